# The sagas in examples/ with Debian's drivers, while a server is killed and comes
# back: each of them ends, completed or compensated.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use DtxTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $examples = "$FindBin::RealBin/../../examples";
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

# JDBC knows TCP only.
my $dtx = DtxTest->new(servers => 2, conf => "listen_addresses = '127.0.0.1'\n");
$dtx->sql('ALTER SERVER s1 RENAME TO berlin; ALTER SERVER s2 RENAME TO tokyo;');
$dtx->p($_)->safe_psql('postgres',
	'CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO account VALUES (1, 100000)')
  for 1, 2;
$dtx->sql(slurp_file("$examples/schema.sql") . slurp_file("$examples/saga.sql"));

local %ENV = (
	%ENV,
	PGHOST => $dtx->coord->host,
	PGPORT => $dtx->coord->port,
	PGDATABASE => 'postgres',
	PGUSER => (getpwuid $<)[0],
	GO111MODULE => 'off',
	GOPATH => '/usr/share/gocode',
	GOCACHE => "$ENV{TMPDIR}/go",
	GOFLAGS => '-p=1');
my $bin = "$PostgreSQL::Test::Utils::tmp_check/examples_sagas";
mkdir $bin;
system('go', 'build', '-o', "$bin/saga", "$examples/go/saga.go") == 0 or die 'go build failed';
system('javac', '-d', $bin, "$examples/java/Saga.java") == 0 or die 'javac failed';

my $before = 0;
sub run_client
{
	my ($name, $count, @command) = @_;
	my ($out, $err) = ('', '');
	my $deadline = time + 2 * $timeout;
	my $known = $dtx->sql('SELECT count(*) FROM dtx.sagas');
	my $attempts = q{SELECT count(*) FROM dtx.saga_history WHERE outcome <> 'completed'};
	my $failed = $dtx->sql($attempts);

	# The row on tokyo is locked, so a step is under way there when it is killed.
	my $lock = $dtx->session(node => $dtx->p(2));
	$lock->run('BEGIN; UPDATE account SET balance = balance;');
	my $client = IPC::Run::start([@command], '<', \undef, '>', \$out, '2>', \$err);
	until ($dtx->p(2)->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'}) > 0)
	{
		die "$name: no step waits: $err" if time > $deadline || !$client->pumpable;
		$client->pump_nb;
		usleep(10_000);
	}
	$dtx->p(2)->stop('immediate');
	$dtx->poll($dtx->coord, "SELECT ($attempts) > $failed", 't', "$name: an attempt has failed");
	$lock->close;
	$dtx->p(2)->start;
	$client->pump until !$client->pumpable;
	ok($client->finish, "$name: goes on until all is done") or diag($err);
	is($dtx->sql('SELECT count(*) FROM dtx.sagas') - $known, $count, "$name: each saga was started once");
	is($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated')}), 0, "$name: all have ended");
	$dtx->clean($name);
	my $made = $dtx->sql('SELECT coalesce(sum(amount), 0) FROM transfer');
	is($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE state = 'completed'}), $made, "$name: completed sagas are recorded");
	is($dtx->p(1)->safe_psql('postgres', 'SELECT 100000 - balance FROM account'), $made, "$name: gone from berlin");
	is($dtx->p(2)->safe_psql('postgres', 'SELECT balance - 100000 FROM account'), $made, "$name: come to tokyo");
	cmp_ok($made, '>', $before, "$name: something was done");
	$before = $made;
	return;
}

run_client('Python, psycopg2', 60, 'python3', "$examples/python/saga.py", 60);
run_client('Python, psycopg 3', 60, 'python3', "$examples/python/saga_psycopg3.py", 60);
run_client('Go', 60, "$bin/saga", 60);
run_client('Java', 60, 'java', '-cp', "$bin:/usr/share/java/postgresql.jar", 'Saga', 60);
run_client('pgbench', 60, 'pgbench', '-n', '-f', "$examples/pgbench/saga.sql", '-c', 4, '-t', 15);

done_testing();
