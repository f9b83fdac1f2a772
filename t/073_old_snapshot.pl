# An old snapshot keeps dead rows in the decision table; what is done by the resolver
# and by sagas does not grow with them.  And the map that makes that possible may
# overflow, be of another file of the table, or be lost.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => q{
pg_dtx.max_in_doubt = 16
pg_dtx.resolve_interval = '100ms'
max_connections = 12
max_wal_senders = 1
max_worker_processes = 6
autovacuum_max_workers = 1
},
	participant_conf => "max_prepared_transactions = 100\nmax_connections = 150\n");
my $coord = $dtx->coord;

# Scans of the decision table so far
sub scans
{
	$dtx->sql('SELECT pg_stat_force_next_flush()');
	return $dtx->sql(
		q{SELECT seq_scan FROM pg_stat_all_tables WHERE relid = 'dtx_internal.decision'::regclass});
}

sub commits
{
	my $n = shift;
	my $session = $dtx->session;
	$session->run(qq{
SET client_min_messages = error;
CREATE OR REPLACE PROCEDURE commits(n int) LANGUAGE plpgsql AS \$\$
BEGIN
	FOR i IN 1 .. n LOOP
		UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
		UPDATE acct2 SET bal = bal - 1 WHERE id = 1;
		COMMIT;
		UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
		COMMIT;
	END LOOP;
END \$\$;
CALL commits($n)});
	is($session->stderr, '', "$n commits, there and back");
	return $session;
}

$dtx->sql(q{
SELECT dtx.define_saga('quiet',
	dtx.step('one', server => 's1', execute => 'UPDATE acct SET bal = bal + 1 WHERE id = 1'),
	dtx.step('two', server => 's1', execute => 'UPDATE acct SET bal = bal - 1 WHERE id = 1'))
});

sub saga
{
	my $name = shift;
	my $id = $dtx->sql(q{SELECT dtx.start_saga('quiet')});
	return $dtx->poll($coord, "SELECT state FROM dtx.sagas WHERE id = $id", 'completed', $name);
}
saga('a saga');

my $old = $dtx->session;
$old->run('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM probe;');
my $session = commits(200);
my $size = $dtx->sql("SELECT pg_relation_size('dtx_internal.decision') / 8192");
cmp_ok($size, '>', 3, 'an old snapshot makes the table grow');
$dtx->wait_passes;
my $before = scans();
$dtx->wait_passes(3);
saga('a saga beside it');
$dtx->sql('SELECT count(*) FROM dtx.resolve_in_doubt()');
$dtx->wait_passes(1);
is(scans() - $before, 0, 'passes and steps of sagas do not look through the table');
$old->run('COMMIT');
$old->close;
$session->close;

# The table gets another file: it is looked through again, and rows in old places
# are found in the new ones.
$session = $dtx->session;
$session->run($dtx->transfer(1, 1, 2));
my $held = $dtx->session;
$held->run($dtx->hold . 'BEGIN; UPDATE acct1 SET bal = bal + 1 WHERE id = 1; UPDATE acct2 SET bal = bal - 1 WHERE id = 1;');
$held->start('COMMIT');
$dtx->wait_held($held);
my $vacuum = $dtx->session;
$vacuum->start('VACUUM FULL dtx_internal.decision');
$dtx->poll($coord, 'SELECT count(*) FROM pg_locks WHERE NOT granted', '1', 'VACUUM FULL waits for a commit');
$dtx->release;
$held->finish;
$vacuum->finish;
is($vacuum->stderr, '', '... and is done');
$session->run($dtx->transfer(1, 2, 1));
is($session->stderr, '', 'sessions go on');
$_->close for $held, $session, $vacuum;
$dtx->poll($coord, 'SELECT count(*) <= 1 FROM dtx_internal.decision', 't', '... and leave nothing but the row of a worker of sagas');

# More decisions than the map has room for
my $amount = 70;
$before = scans();
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
my $errors = '';
for my $i (1 .. $amount)
{
	$coord->psql('postgres', "SET pg_dtx.commit_timeout = 0; SET client_min_messages = error;
BEGIN; INSERT INTO acct1 VALUES ($i + 1, 1); INSERT INTO acct2 VALUES ($i + 1, 1); COMMIT;",
		stderr => \my $stderr);
	$errors .= $stderr;
}
is($errors, '', "$amount transactions are not confirmed");
cmp_ok($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '>=', $amount, 'all decisions are on record');

# (counted when a process reports, which it does not do all the time)
for (1 .. 50)
{
	$dtx->wait_passes;
	last if scans() - $before > 1;
}
cmp_ok(scans() - $before, '>', 1, 'the table has to be looked through again');
$dtx->proxy(2)->clear;
$dtx->clean('after an overflow');
is($dtx->p($_)->safe_psql('postgres', 'SELECT count(*) FROM acct'),
	$amount + 1, "all are committed on s$_")
  for 1, 2;
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', 'no decision is left');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', 'no damage');

# (a worker reports what it has done up to a second later)
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
my $scans;
do
{
	$before = scans();
	$dtx->wait_passes(4);
	$scans = scans() - $before;
} while ($scans > 0 && time < $deadline);
is($scans, 0, 'and there is room for all rows again');

done_testing();
