# The coordinator dies before and after the decision.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 3);

# Before: s1 and s3 are prepared, s2 hangs.
my $s = $dtx->session;
$s->run('BEGIN; UPDATE acct1 SET bal = 1; UPDATE acct2 SET bal = 2; UPDATE acct3 SET bal = 3; UPDATE acct0 SET bal = 4');
my @remote = $dtx->remote_pids(2);
is(scalar(@remote), 1, 'one remote backend');
$dtx->stop_process(@remote);
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
$dtx->prepared_is(3, 1);
$dtx->crash($dtx->coord);
$s->finish;
$dtx->prepared_is(1, 1, 'still prepared, the coordinator is dead');
$dtx->coord->start;
$dtx->prepared_is($_, 0, "after the restart s$_ is rolled back") for 1, 3;
$dtx->continue_process(@remote);

# Its PREPARE is executed late, and rolled back.
$dtx->poll($dtx->p(2),
	"SELECT count(*) FROM pg_stat_activity WHERE pid = $remote[0]",
	'0', 'the stopped backend ends');
$dtx->clean('before the decision');
$dtx->balances_are('100 100 100 100', 'rolled back everywhere');

# All are prepared, the commit record is not written: a deferred trigger of
# the coordinator would be too early, so s2 holds its PREPARE for a lock.
$dtx->p(2)->safe_psql(
	'postgres', q{
CREATE FUNCTION wait_lock() RETURNS trigger LANGUAGE plpgsql AS
$$BEGIN PERFORM pg_advisory_xact_lock(42); RETURN NULL; END$$;
CREATE CONSTRAINT TRIGGER wait_lock AFTER UPDATE ON acct
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION wait_lock();
});
my $locker = $dtx->session(node => $dtx->p(2));
$locker->run('SELECT pg_advisory_lock(42)');
$s = $dtx->session;
$s->start($dtx->transfer(10, 1, 3, 0, 2));
$dtx->prepared_is(1, 1);
$dtx->prepared_is(3, 1);
$dtx->crash($dtx->coord);
$s->finish;
$locker->close;
$dtx->prepared_is(2, 1, 'PREPARE succeeds after the coordinator died');
$dtx->coord->start;
$dtx->clean('PREPARE outlived the coordinator');
$dtx->balances_are('100 100 100 100', 'rolled back everywhere');
$dtx->p(2)->safe_psql('postgres', 'DROP TRIGGER wait_lock ON acct');

# After: the commit record is on disk, no COMMIT PREPARED was sent.
$s = $dtx->session;
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 3, 0, 2));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1 .. 3;
$dtx->crash($dtx->coord);
$s->finish;

# One participant is down when the coordinator comes back.
$dtx->p(3)->stop('fast');
$dtx->coord->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''");
$dtx->coord->start;
$dtx->prepared_is($_, 0, "after the restart s$_ is committed") for 1, 2;
is($dtx->sql('SELECT bal FROM acct1'), '90', 'committed on s1');
is($dtx->sql('SELECT bal FROM acct0'), '100', 'committed here');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '1',
	'the decision is kept while a server is away');

# Again: the decision must survive any number of crashes.
$dtx->crash($dtx->coord);
$dtx->coord->start;
$dtx->wait_passes(2);
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'),
	'1', '... also after another crash');
$dtx->p(3)->start;
$dtx->clean('after the decision');
$dtx->balances_are('100 90 110 100', 'committed everywhere');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision is forgotten once nobody needs it');

# In the middle of phase two: s1 has committed, s2 has not.
$dtx->arm;
$s = $dtx->session;
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 2, 3, 1));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1 .. 3;
@remote = $dtx->remote_pids(2);
$dtx->stop_process(@remote);
$dtx->release;
$dtx->prepared_is(1, 0, 's1 has committed');
$dtx->prepared_is(2, 1, 's2 has not');
$dtx->crash($dtx->coord);
$s->finish;
$dtx->coord->start;
$dtx->prepared_is(2, 0, 's2 is committed through a new connection');
$dtx->continue_process(@remote);
$dtx->clean('in phase two');
$dtx->balances_are('100 100 100 100', 'committed everywhere');

# Sessions that wait for a server, after their decision and before it: others that need
# something of all processes do not wait for them, and they end by themselves when the
# postmaster is gone.
$dtx->sql('CREATE DATABASE other');
$dtx->sql('INSERT INTO acct1 VALUES (2, 2); INSERT INTO acct2 VALUES (2, 2); INSERT INTO acct3 VALUES (2, 2)');
my %waiting;
$dtx->arm;
$s = $waiting{'in phase two'} = $dtx->session;
$s->run($dtx->hold . "SET pg_dtx.commit_timeout = '10min'");
$s->start($dtx->transfer(10, 1, 2));
$dtx->wait_held($s);
$dtx->stop_process($dtx->remote_pids(2));
$dtx->release;
$dtx->prepared_is(1, 0, 's1 has committed');
$s = $waiting{'in phase one'} = $dtx->session;
$s->run('BEGIN; UPDATE acct1 SET bal = 7 WHERE id = 2; UPDATE acct2 SET bal = 7 WHERE id = 2');
my %before = map { $_ => 1 } $dtx->remote_pids(2);
$dtx->stop_process(keys %before);
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
$s = $waiting{'in a remote command'} = $dtx->session;
$s->start(q{SELECT dtx.exec('s3', 'SELECT pg_sleep(3600)')});
$s = $waiting{'in a foreign table'} = $dtx->session;
$s->run('BEGIN; SELECT bal FROM acct3');
my @asleep = $dtx->p(3)->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'postgres_fdw' AND state = 'idle in transaction'});
$dtx->stop_process(@asleep);
$s->start('SELECT count(*) FROM acct3');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event_type = 'Extension' AND backend_type = 'client backend'},
	'4', 'sessions wait');
$dtx->sql('DROP DATABASE other');
ok(!$waiting{$_}->finished, "$_: DROP DATABASE has not waited") for sort keys %waiting;
kill 'KILL', ($dtx->processes($dtx->coord))[0];
$dtx->coord->kill9;
for my $where (sort keys %waiting)
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	select undef, undef, undef, 0.05 while kill(0, $waiting{$where}->pid) && time < $deadline;
	ok(!kill(0, $waiting{$where}->pid), "$where: ends when the postmaster is gone");
	eval { $waiting{$where}->finish };
	$waiting{$where}->close;
}
unlink $dtx->coord->data_dir . '/postmaster.pid';
$dtx->continue_process($dtx->remote_pids(2), keys %before, @asleep);
$dtx->coord->start;
$dtx->clean('the postmaster was gone');
is($dtx->p($_)->safe_psql('postgres', 'DELETE FROM acct WHERE id = 2 RETURNING bal'), '2', '... what was not decided is rolled back')
  for 1, 2, 3;
$dtx->balances_are('100 90 110 100', '... what was is committed');

# After phase two.  An UPDATE that finds no row takes part in the transaction, too, and
# the server can tell what became of that.
$s = $dtx->session;
$s->run('BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = 0 WHERE id < 0; COMMIT');
is($s->stderr, '', 'an UPDATE that finds no row');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision WHERE 0 = ANY (remote_xids)'),
	'0', '... has a transaction id');
$dtx->crash($dtx->coord);
$s->close;
$dtx->coord->start;
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'... and is known to have committed after a crash');
$dtx->clean('after phase two');

done_testing();
