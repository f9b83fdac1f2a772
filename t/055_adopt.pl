# Adopting pg_dtx in a running system, as docs/adopt.md says, and going back: while
# pgbench moves money, no transaction fails, and none is lost or done twice.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my (%node, $load);

# ----------------------------------------------------------------
# A system as it was before: two servers, one more that reaches them, two databases.

for my $name (qw(coordinator berlin tokyo))
{
	my $node = $node{$name} = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', "max_prepared_transactions = 0\n");
	$node->start;
}
my $coord = $node{coordinator};
for my $name (qw(berlin tokyo))
{
	$node{$name}->safe_psql('postgres', 'CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
		INSERT INTO account SELECT i, 1000 FROM generate_series(1, 1000) i');
}
$coord->safe_psql('postgres', 'CREATE DATABASE app');
for my $db (qw(app postgres))
{
	$coord->safe_psql($db, 'CREATE EXTENSION postgres_fdw');
	for my $name (qw(berlin tokyo))
	{
		my ($host, $port) = ($node{$name}->host, $node{$name}->port);
		$coord->safe_psql($db, "CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
			CREATE USER MAPPING FOR CURRENT_USER SERVER $name;
			CREATE FOREIGN TABLE $name (id int, balance int) SERVER $name OPTIONS (table_name 'account')");
	}
}
my $script = "$PostgreSQL::Test::Utils::tmp_check/transfer.sql";
append_to_file($script, q{\set id random(1, 500) * 2 - :client_id
BEGIN;
UPDATE berlin SET balance = balance - 1 WHERE id = :id;
UPDATE tokyo SET balance = balance + 1 WHERE id = :id;
COMMIT;
});

# New sessions all the time, as those that a pool makes.
sub start_load
{
	my $out = '';

	$load = {
		out => \$out,
		handle => IPC::Run::start(
			[
				$coord->installed_command('pgbench'), '-n', '-C', '-c', '2', '-T', '600', '-f', $script,
				'-h', $coord->host, '-p', $coord->port, 'app'
			],
			'>', \$out, '2>&1', IPC::Run::timeout($timeout))
	};
	return;
}

# pgbench says at once what has failed.  It does not listen to everything in every
# phase, but it ends when it is told to terminate.
sub stop_load
{
	my $what = shift;

	$load->{handle}->signal('TERM');
	eval { $load->{handle}->finish; };
	unlike(${ $load->{out} }, qr/error|fatal|aborted/i, "$what: no transaction has failed");
	return;
}

sub transfers
{
	return 1_000_000 - $node{berlin}->safe_psql('postgres', 'SELECT sum(balance) FROM account');
}

sub more_transfers
{
	my $what = shift;
	my $target = transfers() + 20;

	ok($node{berlin}->poll_query_until('postgres', "SELECT 1000000 - sum(balance) >= $target FROM account"), $what);
	return;
}

sub stat_of
{
	return $coord->safe_psql('app', "SELECT $_[0] FROM dtx.stat");
}

start_load();
more_transfers('the system before');
stop_load('before');

# ----------------------------------------------------------------
# 1, 2: restarts

for my $name (qw(berlin tokyo))
{
	$node{$name}->append_conf('postgresql.conf', "max_prepared_transactions = 100\n");
	$node{$name}->restart;
}
start_load();
more_transfers('with max_prepared_transactions');
stop_load('1');
$coord->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\npg_dtx.require = 'off'\n");
$coord->safe_psql('postgres', "ALTER DATABASE $_ SET pg_dtx.two_phase_commit = off") for qw(app postgres);
$coord->restart;

# ----------------------------------------------------------------
# 3 to 7, under load

start_load();
more_transfers('with the library');
$coord->safe_psql($_, 'CREATE EXTENSION pg_dtx CASCADE') for qw(app postgres);
more_transfers('with the extension');
my ($page) = slurp_file("$FindBin::RealBin/../docs/adopt.md") =~ /\*\*4\. Check.*?```sql\n(.*?)```/s;
is($coord->safe_psql($_, $page), '', "4: nothing is wrong in $_") for qw(app postgres);
is(stat_of('two_phase'), '0', 'nothing was committed in two phases so far');
more_transfers('... and work goes on');

$coord->safe_psql('postgres', "ALTER DATABASE $_ RESET pg_dtx.two_phase_commit") for qw(app postgres);
ok($coord->poll_query_until('app', 'SELECT two_phase > 20 FROM dtx.stat'), '5: two phases');
my $unprotected;
ok($coord->poll_query_until('app', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'pgbench' AND backend_start <
	(SELECT max(stats_reset) FROM (VALUES (pg_postmaster_start_time())) AS t(stats_reset))}), 'sessions are new ones');
$unprotected = stat_of('unprotected');
more_transfers('6: transfers go on');
cmp_ok(stat_of('unprotected') - $unprotected, '<=', 2, '... none of a new session is unprotected');
$coord->append_conf('postgresql.conf', "pg_dtx.require = 'error'\n");
$coord->reload;
more_transfers('7: with pg_dtx.require = error');
stop_load('3 to 7');
is($coord->safe_psql('app', 'SELECT (SELECT sum(balance) FROM berlin) + (SELECT sum(balance) FROM tokyo)'), '2000000', 'no money is lost');

# ----------------------------------------------------------------
# Back

$coord->append_conf('postgresql.conf', "pg_dtx.require = 'off'\n");
$coord->reload;
start_load();
more_transfers('still on');
$coord->safe_psql('postgres', "ALTER DATABASE $_ SET pg_dtx.two_phase_commit = off") for qw(app postgres);
$unprotected = stat_of('unprotected');
ok($coord->poll_query_until('app', "SELECT unprotected > $unprotected + 20 FROM dtx.stat"), 'off again');
ok($coord->poll_query_until('app', 'SELECT count(*) = 0 FROM dtx.in_doubt'), 'nothing is in doubt');
for my $db (qw(app postgres))
{
	# (it is refused as long as a session that commits needs it)
	my ($deadline, $dropped) = (time + $timeout, 0);
	while (!$dropped && time < $deadline)
	{
		$dropped = $coord->psql($db, 'DROP EXTENSION pg_dtx', on_error_stop => 1) == 0;
	}
	ok($dropped, "the extension is dropped in $db");
}
more_transfers('as before');
stop_load('back');
$coord->append_conf('postgresql.conf', "shared_preload_libraries = ''\n");
$coord->restart;
start_load();
more_transfers('without the library');
stop_load('in the end');
is($coord->safe_psql('app', 'SELECT (SELECT sum(balance) FROM berlin) + (SELECT sum(balance) FROM tokyo)'), '2000000', 'no money is lost');
is($node{$_}->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0', "nothing is left on $_") for qw(berlin tokyo);

done_testing();
