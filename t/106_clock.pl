# The wall clock is set under a running server: what is measured in seconds still
# takes seconds.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxPreload;
use DtxTest;
use Test::More;
use Time::HiRes qw(time usleep);

my $preload = DtxPreload->new;
my $dtx = DtxTest->new(
	servers => 2,
	conf => "pg_dtx.saga_workers = 2\nmax_worker_processes = 20\npg_dtx.prepare_timeout = '10min'\n");
my $coord = $dtx->coord;
$coord->stop;
$preload->start($coord);

sub pid_of
{
	my $kind = shift;
	return $dtx->sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx $kind'");
}

# End a worker again and again, as if its start was its end: the pause before the next
# one gets longer.
sub wear_out
{
	my ($kind, $times) = @_;
	for (1 .. $times)
	{
		$dtx->poll($coord, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx $kind'",
			'1', "there is a $kind")
		  or return;
		$dtx->sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'pg_dtx $kind'");
	}
	return;
}

# Start a saga and wait for it.
sub saga
{
	my $id = $dtx->sql("SELECT dtx.start_saga('$_[0]')");
	return $dtx->sql("SELECT dtx.wait_saga($id, '40s')");
}

sub is_soon
{
	my ($start, $what) = @_;
	cmp_ok(time - $start, '<', 40, "$what: in seconds");
	return;
}

my $wall = $dtx->sql('SELECT extract(epoch FROM clock_timestamp())');
$preload->set_clock(-3600);
cmp_ok($dtx->sql('SELECT extract(epoch FROM clock_timestamp())'), '<', $wall - 3000, 'the clock is set back by an hour');
$preload->set_clock(0);

# A resolver that has just died.
wear_out('resolver', 3);
$preload->set_clock(-3600);
my $start = time;
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'},
	'1', 'set back: a resolver that has died is started again');
is_soon($start, 'a resolver');

# What it had put off.
$preload->set_clock(0);
$dtx->arm;
my $s = $dtx->session;
$s->run($dtx->hold . "SET pg_dtx.commit_timeout = '1s'; BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10; UPDATE acct0 SET bal = bal + 1;");
$s->start('COMMIT');
$dtx->wait_held($s);
$dtx->p(2)->stop('immediate');
$dtx->release;
$s->finish;
$dtx->poll($coord, 'SELECT max(attempts) > 2 FROM dtx.in_doubt', 't', 'an unreachable server is tried again');
$preload->set_clock(-3600);
$dtx->p(2)->start;
$start = time;
$dtx->clean('set back: what was in doubt');
is_soon($start, 'what was in doubt');

# Deadlines of a COMMIT.
$preload->set_clock(0);
$s->run("SET synchronous_commit = local; SET pg_dtx.prepare_timeout = '3s'; BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10;");
$dtx->freeze($dtx->p(2));
$start = time;
$s->start('COMMIT');
$dtx->poll($coord, 'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $s->pid, 'Extension', 'COMMIT waits');
$preload->set_clock(-3600);
$s->finish;
like($s->stderr, qr/ERROR: .*"s2"/, 'set back: a time-out strikes');
is_soon($start, 'a time-out');
$dtx->thaw($dtx->p(2));
$dtx->clean('after that');

$preload->set_clock(0);
$s->run("RESET pg_dtx.prepare_timeout; BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10;");
$dtx->freeze($dtx->p(2));
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
$preload->set_clock(3600);
$coord->reload;
$dtx->sql('SELECT pg_log_backend_memory_contexts(' . $s->pid . ')');	# wakes it up
usleep(200_000);
$dtx->thaw($dtx->p(2));
$s->finish;
is($s->stderr =~ /ERROR|WARNING/ ? $s->stderr : '', '', 'set forward: nothing has timed out');
$dtx->clean('set forward');
$s->close;

# Sagas of a role whose worker has just died, again and again.
$preload->set_clock(0);
$dtx->sql(q{CREATE TABLE done (i int);
SELECT dtx.define_saga('add', dtx.step('one', execute => 'INSERT INTO done VALUES (1)', kind => 'retriable'))});
for (1 .. 5)
{
	is(saga('add'), 'completed', 'a saga');
	$dtx->sql(q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'});
}
$preload->set_clock(-3600);
$start = time;
is(saga('add'), 'completed', 'set back: sagas go on');
is_soon($start, 'a saga');

# Limits of steps, and who stops them
$preload->set_clock(0);
$dtx->sql(q{SELECT dtx.define_saga('limited', dtx.step('one', execute => 'SELECT pg_sleep(600)', timeout => '3 s', max_attempts => 1));
SELECT dtx.define_saga('endless', dtx.step('one', execute => 'SELECT pg_sleep(600)', max_attempts => 1))});
for my $name ('limited', 'endless')
{
	my $id = $dtx->sql("SELECT dtx.start_saga('$name')");
	$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND wait_event = 'PgSleep'},
		1, "$name: is being executed");
	$preload->set_clock(-3600);
	$start = time;
	$dtx->sql("SELECT dtx.cancel_saga($id, 'enough')") if $name eq 'endless';
	$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND wait_event = 'PgSleep'},
		0, "set back, $name: a step is stopped");
	is_soon($start, $name);
	$preload->set_clock(0);
	is($dtx->sql("SELECT dtx.wait_saga($id, '40s')"), 'compensated', '... and its saga turns back');
}

# ... and one that sleeps notices, if the clock is set forward.
$dtx->sql(q{SELECT dtx.define_saga('sleep', dtx.step_sleep('night', '1 hour'))});
my $id = $dtx->sql(q{SELECT dtx.start_saga('sleep')});
$dtx->poll($coord, "SELECT state FROM dtx.saga_steps WHERE saga = $id", 'waiting', 'a saga sleeps for an hour');
$preload->set_clock(3600);
$start = time;
$dtx->poll($coord, "SELECT state FROM dtx.sagas WHERE id = $id", 'completed', 'set forward: it has slept for an hour');
$preload->set_clock(0);

# What is a duration moves with the clock: leases, pauses, outages, and how long one waits.
$dtx->sql(q{CREATE SEQUENCE tries;
SELECT dtx.define_saga('again', dtx.step('one', backoff => '1 s', retry => dtx.retry(always => '{22}'),
	execute => $$SELECT 1 / (nextval('tries') - 1)$$));
SELECT dtx.define_saga('outside', dtx.step_external('one', 'q'));
SELECT dtx.define_saga('away', dtx.step('one', server => 's2', max_outage => '30 min', execute => 'SELECT 1'))});
$id = $dtx->sql(q{SELECT dtx.start_saga('again')});
$dtx->poll($coord, "SELECT attempts FROM dtx.saga_steps WHERE saga = $id AND state = 'pending'", 1, 'a step has failed once');
$preload->set_clock(-3600);
$start = time;
is($dtx->sql("SELECT dtx.wait_saga($id, '40s')"), 'completed', 'set back: it is tried again');
is_soon($start, 'the next attempt');

$preload->set_clock(0);
$id = $dtx->sql(q{SELECT dtx.start_saga('outside')});
my $claim = q{SELECT token FROM dtx.claim_step('q', 'w', lease => '%s', wait => '30 s')};
my $token = $dtx->sql(sprintf $claim, '3 s');
$preload->set_clock(-3600);
$start = time;
my $next = $dtx->sql(sprintf $claim, '1 min');
isnt($next, $token, 'set back: the lease of another worker ends');
isnt($next, '', '... and this one gets the step');
is_soon($start, 'a lease');
$dtx->sql("SELECT dtx.complete_step('$next')");
is($dtx->sql("SELECT dtx.wait_saga($id, '40s')"), 'completed', '... and does it');

$preload->set_clock(0);
$id = $dtx->sql(q{SELECT dtx.start_saga('outside')});
$token = $dtx->sql(sprintf $claim, '1 min');
$dtx->p(2)->stop('immediate');
my $away = $dtx->sql(q{SELECT dtx.start_saga('away')});
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.saga_outage', 1, 'a server is away');
$preload->set_clock(3600);
$dtx->poll($coord, q{SELECT max(available_at) > clock_timestamp() FROM dtx_internal.saga_external}, 't',
	'set forward: a lease lasts');
$dtx->sql("SELECT dtx.complete_step('$token')");
is($dtx->sql("SELECT dtx.wait_saga($id, '40s')"), 'completed', '... and its worker completes the step');
is($dtx->sql("SELECT state FROM dtx.sagas WHERE id = $away"), 'running', '... and an outage has not lasted for an hour');
$dtx->p(2)->start;
is($dtx->sql("SELECT dtx.wait_saga($away, '40s')"), 'completed', '... until the server is there again');

$preload->set_clock(0);
$s = $dtx->session;
$start = time;
$s->start(q{SELECT count(*) FROM dtx.claim_step('q', 'w', wait => '3 s')});
$dtx->poll($coord, 'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $s->pid, 'Extension', 'a worker waits for work');
$preload->set_clock(-3600);
$s->finish;
is_soon($start, 'a wait for work');
$s->close;

done_testing();
