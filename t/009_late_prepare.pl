# A PREPARE that arrives after everybody has given up the transaction.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $work =
  'BEGIN; UPDATE acct1 SET bal = 0; UPDATE acct2 SET bal = 0; UPDATE acct0 SET bal = 0;';
my $offset;

# What has happened on s2 since $offset, one statement after the other.
sub statements
{
	my $log = slurp_file($dtx->p(2)->logfile, $offset);
	my $said = join ' ', $log =~
	  /statement: (?:SET [^;]*; (?:SELECT|EXECUTE) [^;]*; )?(PREPARE TRANSACTION|ROLLBACK PREPARED|COMMIT PREPARED)/g;

	# The resolver may have seen it running, and canceled it: as good.
	$said .= ' ROLLBACK PREPARED'
	  if $said eq 'PREPARE TRANSACTION' && $log =~ /ERROR:  canceling statement due to user request/;
	return $said;
}

# Held in the network; the backend is terminated.
$offset = -s $dtx->p(2)->logfile;
my $s = $dtx->session;
$s->run($work);
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
$dtx->proxy(2)->wait_for('hold');
$dtx->sql('SELECT pg_terminate_backend(' . $s->pid . ')');
$s->finish;
$s->close;
$dtx->proxy(2)->wait_for('orphan');
$dtx->prepared_is(1, 0);

# Passes come and go and see nothing on s2.
$dtx->wait_passes(3);
$dtx->clean('nothing to be seen yet');
unlike(statements(), qr/^PREPARE/, 'PREPARE is still on its way');
$dtx->proxy(2)->clear;
$dtx->poll($dtx->p(2),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', 'PREPARE arrives');
$dtx->clean('after it arrived');
like(statements(), qr/PREPARE TRANSACTION ROLLBACK PREPARED$/,
	'PREPARE arrived late and was rolled back');
$dtx->balances_are('100 100 100', 'nothing is left');

# Held by the server itself, with prepare_timeout.  Its backend may be told to
# cancel when it wakes up, so whether PREPARE succeeds is not certain; that
# nothing is left is.
$s = $dtx->session;
$s->run("SET pg_dtx.prepare_timeout = '500ms'; $work");
my @remote = $dtx->remote_pids(2);
is(scalar(@remote), 1, 'one remote backend');
$dtx->stop_process(@remote);
$s->run('COMMIT');
like($s->stderr, qr/ERROR:.*"s2"/, 'prepare_timeout');
$dtx->prepared_is(1, 0);
$dtx->wait_passes(2);
$dtx->continue_process(@remote);
$dtx->poll($dtx->p(2),
	"SELECT count(*) FROM pg_stat_activity WHERE pid = $remote[0]",
	'0', 'the stopped backend ends');
$dtx->clean('a stopped backend');
$dtx->balances_are('100 100 100', 'nothing is left');

# It hangs on the server, in a deferred trigger, and closes a cursor before: the
# resolver cancels it.
$dtx->p(2)->safe_psql('postgres', q{
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hang AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION hang();
});
my $locker = $dtx->session(node => $dtx->p(2));
$locker->run('SELECT pg_advisory_lock(4711)');
$offset = -s $dtx->p(2)->logfile;
$s->run("$work SELECT bal FROM acct2; COMMIT");
like($s->stderr, qr/ERROR:.*"s2"/, 'a deferred trigger hangs: prepare_timeout');
like(slurp_file($dtx->p(2)->logfile, $offset), qr/statement: CLOSE c\d+; SET [^;]*; (?:SELECT|EXECUTE) [^;]*; PREPARE TRANSACTION/,
	'... in a PREPARE that closes a cursor');
$dtx->poll($dtx->p(2),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', '... which is canceled by the resolver');
$dtx->clean('canceled');
$dtx->balances_are('100 100 100', 'nothing is left');
$locker->close;
$dtx->p(2)->safe_psql('postgres', 'DROP FUNCTION hang() CASCADE');

# While the PREPARE of the first attempt is still out, a second one commits:
# the late one must not be mistaken for it.
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->run("SET pg_dtx.prepare_timeout = '500ms'; $work COMMIT");
like($s->stderr, qr/ERROR:.*"s2"/, 'the first attempt fails');
$dtx->proxy(2)->wait_for('orphan');
$dtx->p(1)->safe_psql('postgres', 'SELECT 1');
my $t = $dtx->session;
$t->run("SET pg_dtx.prepare_timeout = '1min'; BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct0 SET bal = bal + 10; COMMIT");
is($t->stderr, '', 'the second one commits');
$dtx->proxy(2)->clear;
$dtx->poll($dtx->p(2),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', 'the late PREPARE arrives');
$dtx->clean('after the second attempt');
$dtx->balances_are('110 90 100', 'the second attempt is all there is');
$s->run('RESET pg_dtx.prepare_timeout');
$s->run($dtx->transfer(10, 0, 2, 1));
is($s->stderr, '', 'the session that failed goes on');
$dtx->balances_are('100 100 100', '... and commits');
$dtx->clean('at the end');
$_->close for $s, $t;

# Delivered at all times: before anybody has looked, after one pass and after
# several, with the coordinator's backend terminated or with the coordinator
# crashed and restarted in between, so that the gid is one of an earlier boot.
sub resolver
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver = $to");
	$dtx->coord->reload;
	$dtx->poll($dtx->coord, "SELECT current_setting('pg_dtx.resolver') = '$to'",
		't', "resolver $to");
	return;
}
for my $crash (0, 1)
{
	for my $passes (0, 1, 4)
	{
		my $what = ($crash ? 'crash' : 'terminated') . ", $passes passes";

		resolver('off') if $passes == 0;
		$offset = -s $dtx->p(2)->logfile;
		$s = $dtx->session;
		$s->run($work);
		$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
		$s->start('COMMIT');
		$dtx->prepared_is(1, 1);
		$dtx->proxy(2)->wait_for('hold');
		if ($crash)
		{
			$dtx->crash($dtx->coord);
			$dtx->coord->start;
		}
		else
		{
			$dtx->sql('SELECT pg_terminate_backend(' . $s->pid . ')');
		}
		$s->finish;
		$s->close;
		$dtx->proxy(2)->wait_for('orphan');
		$dtx->wait_passes($passes) if $passes > 0;
		unlike(statements(), qr/PREPARE/, "$what: PREPARE is still on its way");
		$dtx->proxy(2)->clear;
		$dtx->poll($dtx->p(2),
			'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
			'0', "$what: PREPARE arrives");
		if ($passes == 0)
		{
			$dtx->prepared_is(2, 1, "$what: it is prepared");
			resolver('on');
		}
		$dtx->clean($what);
		like(statements(), qr/^PREPARE TRANSACTION ROLLBACK PREPARED$/,
			"$what: it was prepared and rolled back");
		$dtx->balances_are('100 100 100', "$what: nothing is left");
	}
}

# The server's backend is terminated before PREPARE arrives, which then reaches
# nobody.
$offset = -s $dtx->p(2)->logfile;
$s = $dtx->session;
$s->run($work);
@remote = $dtx->remote_pids(2);
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start('COMMIT');
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
$dtx->p(2)->safe_psql('postgres', "SELECT pg_terminate_backend($remote[0])");
$s->finish;
like($s->stderr, qr/ERROR:.*"s2"/, 'the connection is closed by the server');
$dtx->proxy(2)->clear;
$dtx->wait_passes(2);
$dtx->clean('closed by the server');
unlike(statements(), qr/PREPARE/, '... it was never prepared');
$dtx->balances_are('100 100 100', '... and nothing is left');

# PREPARE arrives, its connection breaks before the reply, and the coordinator
# crashes before it learns of either.
$offset = -s $dtx->p(2)->logfile;
$s->run($work);
my @first = $dtx->remote_pids(1);
$dtx->stop_process(@first);
$dtx->proxy(2)->rule(cut_reply => q{PREPARE TRANSACTION 'dtx});
resolver('off');
$s->start('COMMIT');
$dtx->prepared_is(2, 1);
$dtx->crash($dtx->coord);
$dtx->continue_process(@first);
$s->finish;
$s->close;
$dtx->proxy(2)->clear;
$dtx->coord->start;
resolver('on');
$dtx->clean('reply lost and crash');
like(statements(), qr/^PREPARE TRANSACTION ROLLBACK PREPARED$/,
	'... it was prepared and rolled back');
$dtx->balances_are('100 100 100', '... and nothing is left');

done_testing();
