# Nothing switches atomicity off without a word: not a missing extension, not an
# update of the extension before the restart; and nothing that needs the decision
# table for itself stops the commits beside one hung server.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(
	servers => 2,
	conf => "pg_dtx.prepare_timeout = '60s'\npg_dtx.resolve_interval = '1h'\n");
my $coord = $dtx->coord;
my $unprotected = qr/transaction wrote on several servers, but is not committed atomically/;

# A database without the extension
$coord->safe_psql('postgres', 'CREATE DATABASE bare');
$dtx->install('bare', without_extension => 1);
my $session = $dtx->session(dbname => 'bare');
$session->run($dtx->transfer(1, 1, 2));
like($session->stderr, qr/WARNING.*$unprotected.*Extension "pg_dtx" is not installed in this database/s,
	'without the extension: a warning');
$session->run($dtx->transfer(1, 0, 2));
is($session->stderr, '', '... once per session');
is($dtx->sql('SELECT unprotected FROM dtx.stat'), '2', '... both are counted');
$session->run('UPDATE acct1 SET bal = bal WHERE id = 1');
$session->run('BEGIN; SELECT * FROM acct1; UPDATE acct2 SET bal = bal WHERE id = 1; COMMIT;');
is($dtx->sql('SELECT unprotected FROM dtx.stat'), '2', '... what one server wrote is not');
$session->run("SET pg_dtx.require = error;\n" . $dtx->transfer(1, 1, 2));
like($session->stderr, qr/ERROR.*cannot be committed atomically/, '... an error, if that is asked for');
$session->close;
$dtx->balances_are('100 99 102', '... rolled back on both');
$dtx->sql("ALTER SYSTEM SET pg_dtx.require = error");
$coord->reload;
$dtx->poll($coord, 'SHOW pg_dtx.require', 'error', 'for the whole cluster');
my ($ret, $out, $err) = $coord->psql('bare', $dtx->transfer(1, 1, 2));
like($err, qr/cannot be committed atomically/, '... everybody gets an error');
($ret, $out, $err) = $coord->psql('postgres', $dtx->transfer(1, 1, 2));
is($err, '', '... but where the extension is');
$dtx->balances_are('100 98 103', '... which has committed');

# One hung server, and statements that need the decision table for themselves
$dtx->sql('INSERT INTO acct2 VALUES (2, 2)');
my $hung = $dtx->session;
$hung->run('BEGIN; UPDATE acct1 SET bal = bal + 1 WHERE id = 1; UPDATE acct2 SET bal = bal - 1 WHERE id = 1;');
$dtx->freeze($dtx->p(1));
$hung->start('COMMIT');
$dtx->poll($coord, "SELECT state FROM dtx.transactions WHERE pid = " . $hung->pid,
	'preparing', 'a commit hangs, because a server does');
for my $statement (
	'VACUUM FULL dtx_internal.decision', 'VACUUM FULL', 'REINDEX SCHEMA dtx',
	'ALTER MATERIALIZED VIEW dtx_internal.decision SET (fillfactor = 20)',
	'CLUSTER', 'REINDEX DATABASE postgres')
{
	my $other = $dtx->session;
	$other->start($statement);
	my $started = time;
	($ret, $out, $err) = $coord->psql('postgres',
		'BEGIN; INSERT INTO probe VALUES (2); UPDATE acct2 SET bal = bal + 1 WHERE id = 2; COMMIT;');
	is($err, '', "$statement: others commit");
	cmp_ok(time - $started, '<', 20, '... without waiting for the hung server');
	$other->finish;
	unlike($other->stderr, qr/canceling|timeout/, '... and the statement ends');
	$other->close;
}
$dtx->thaw($dtx->p(1));
$hung->finish;
is($hung->stderr, '', 'the hung commit comes to its end');
$hung->close;

# A lock on the table holds up no commit for longer than the servers may
my $locker = $dtx->session;
$locker->run("BEGIN; UPDATE pg_class SET relkind = 'r' WHERE oid = 'dtx_internal.decision'::regclass;
LOCK TABLE dtx_internal.decision; UPDATE pg_class SET relkind = 'm' WHERE oid = 'dtx_internal.decision'::regclass;");
is($locker->stderr, '', 'a superuser has found a way to lock the table');
$session = $dtx->session;
$session->start($dtx->transfer(1, 1, 2));
$dtx->poll($coord, 'SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = $$dtx_internal.decision$$::regclass',
	'1', 'a commit waits for it');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'),
	'0', '... and has not prepared anything');
$locker->run('ROLLBACK');
$session->finish;
is($session->stderr, '', '... and goes on');
# ... nor one that has prepared already, but that waits no longer than for servers.
my $before = $dtx->balances;
for my $unlocked ('', 'when it is unlocked')
{
	$session->run($unlocked ? 'RESET pg_dtx.prepare_timeout' : "SET pg_dtx.prepare_timeout = '5s'");
	$session->run("BEGIN; UPDATE acct1 SET bal = bal - 1 WHERE id = 1; UPDATE acct2 SET bal = bal + 1 WHERE id = 1");
	my @remote = $dtx->remote_pids(2);
	$dtx->stop_process(@remote);
	$session->start('COMMIT');
	$dtx->prepared_is(1, 1, 'one server has prepared');
	$locker->run("BEGIN; UPDATE pg_class SET relkind = 'r' WHERE oid = 'dtx_internal.decision'::regclass;
LOCK TABLE dtx_internal.decision IN SHARE MODE; UPDATE pg_class SET relkind = 'm' WHERE oid = 'dtx_internal.decision'::regclass");
	$dtx->continue_process(@remote);
	$dtx->prepared_is(2, 1, '... and then the other one');
	$locker->run('ROLLBACK') if $unlocked;
	$session->finish;
	if ($unlocked)
	{
		is($session->stderr, '', "... it goes on $unlocked");
		next;
	}
	like($session->stderr, qr/ERROR:  55P03: could not lock table "dtx_internal.decision" in time\n.*5000 ms/, '... it does not wait for ever');
	$locker->run('ROLLBACK');
	$dtx->balances_are($before, '... and is rolled back');
}
$locker->close;

# A table of the extension that is gone, in whatever way: nothing is committed without
# it, and everything says which one that is.
for my $table (qw(decision route boot coordinator))
{
	$before = $dtx->balances;
	$dtx->sql("UPDATE pg_class SET relname = 'away' WHERE oid = 'dtx_internal.$table'::regclass");
	my $missing = qr/ERROR:.* table "dtx_internal.$table" of extension "pg_dtx" is missing/;
	$session->run($dtx->transfer(1, 1, 2));
	like($session->stderr, $missing, "$table is gone: a session that has used it gets an error");
	for my $sql ($dtx->transfer(1, 1, 2), q{BEGIN; SELECT dtx.change_identity('test'); ROLLBACK})
	{
		($ret, $out, $err) = $coord->psql('postgres', $sql);
		like($err, $missing, '... and a new one');
	}
	for my $sql ('SELECT dtx_internal.gid(pg_current_xact_id(), 1)', 'SELECT dtx.resolve_in_doubt()', 'SELECT dtx.check()',
		q{SELECT dtx.confirm_server('s1', all_mappings => true)}, 'SELECT dtx.overview()', q{SELECT dtx.adopt_identity('test')},
		q{BEGIN; DROP SERVER s2 CASCADE; ROLLBACK})
	{
		($ret, $out, $err) = $coord->psql('postgres', $sql);
		unlike($err, qr/ERROR(?!.*(?:is missing|does not exist|is not suspended))/, "... $sql");
	}
	$dtx->balances_are($before, '... nothing has changed');
	$dtx->sql("UPDATE pg_class SET relname = '$table' WHERE relname = 'away'");
	$session->run($dtx->transfer(1, 1, 2));
	is($session->stderr, '', '... it is back');
}
$session->close;

# An update of the extension that the library does not know
chomp(my $sharedir = `$ENV{PG_CONFIG} --sharedir`);
my $decision = $dtx->sql(q{SELECT rtrim(pg_get_viewdef('dtx_internal.decision'::regclass), ';')});
my $new = $decision;
$new =~ s/\s+WHERE/, 1 AS further WHERE/ or die;
append_to_file("$sharedir/extension/pg_dtx--1.0.0--test.sql", qq{
ALTER EXTENSION pg_dtx DROP MATERIALIZED VIEW dtx_internal.decision;
DROP MATERIALIZED VIEW dtx_internal.decision;
CREATE MATERIALIZED VIEW dtx_internal.decision WITH (fillfactor = 20) AS $new;
});
append_to_file("$sharedir/extension/pg_dtx--test--test2.sql", qq{
ALTER EXTENSION pg_dtx DROP MATERIALIZED VIEW dtx_internal.decision;
DROP MATERIALIZED VIEW dtx_internal.decision;
CREATE MATERIALIZED VIEW dtx_internal.decision WITH (fillfactor = 20) AS $decision;
CREATE INDEX ON dtx_internal.decision (xid);
});
append_to_file("$sharedir/extension/pg_dtx--test2--test3.sql", qq{
ALTER EXTENSION pg_dtx DROP MATERIALIZED VIEW dtx_internal.decision;
DROP MATERIALIZED VIEW dtx_internal.decision;
CREATE MATERIALIZED VIEW dtx_internal.decision WITH (fillfactor = 20) AS $decision;
});
$session = $dtx->session;
$session->run($dtx->transfer(1, 1, 2));
is($session->stderr, '', 'a session has committed before');

# the rows of sessions that are over are deleted first
sub update
{
	my $version = shift;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (1)
	{
		($ret, $out, $err) = $coord->psql('postgres', "ALTER EXTENSION pg_dtx UPDATE TO '$version'");
		last if $err !~ /may be in doubt/ || time > $deadline;
		Time::HiRes::usleep(100_000);
	}
	return is($err, '', "updated to $version");
}
update('test');
$before = $dtx->balances;
for my $how ('a session that was there', 'a new session')
{
	$session = $dtx->session if $how =~ /new/;
	$session->run($dtx->transfer(1, 1, 2));
	like($session->stderr,
		qr/ERROR:  .*table "dtx_internal.decision" is not as this version of pg_dtx expects.*It has more columns.*HINT/s,
		"$how: an error");
}
$dtx->balances_are($before, 'nothing has changed');
update('test2');
$session->run($dtx->transfer(1, 1, 2));
like($session->stderr, qr/ERROR:  .*table "dtx_internal.decision" must not have indexes/, 'an index: an error');
$dtx->balances_are($before, 'nothing has changed');
update('test3');
$session->run($dtx->transfer(1, 1, 2));
is($session->stderr, '', 'with the table of the script it commits');
$session->close;
is($dtx->p($_)->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0', "nothing is prepared on s$_")
  for 1, 2;

done_testing();
