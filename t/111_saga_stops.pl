# Workers of sagas that are told to leave: what they executed is tried again, and was no
# attempt.  Crashes are attempts.  And NOTIFY is in nobody's way.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(servers => 1, conf => "pg_dtx.saga_lock_timeout = 0\nmax_worker_processes = 20\n");
my $coord = $dtx->coord;

# A step here, and one on a server, that may be tried once only, and wait for a lock.
$dtx->sql(q{
SELECT dtx.define_saga('here', dtx.step('step', execute => 'SELECT pg_advisory_xact_lock(4711)', max_attempts => 1));
SELECT dtx.define_saga('there', dtx.step('step', 's1', 'SELECT pg_advisory_xact_lock(4711)', max_attempts => 1));
SELECT dtx.define_saga('back', dtx.step('step', execute => 'SELECT 1', compensate => 'SELECT pg_advisory_xact_lock(4711)', compensate_attempts => 1),
	dtx.step('fails', execute => 'SELECT 1 / 0'));
SELECT dtx.define_saga('deaf', dtx.step('step', execute => $step$
	DO $do$ BEGIN
		LOOP
			BEGIN
				PERFORM pg_sleep(600);
			EXCEPTION WHEN query_canceled THEN NULL;
			END;
		END LOOP;
	END $do$ $step$, max_attempts => 1))});

my @locks;

sub lock
{
	@locks = map { $dtx->session(node => $_) } $coord, $dtx->p(1);
	$_->run('SELECT pg_advisory_lock(4711)') for @locks;
	return;
}

sub unlock
{
	eval { $_->close } for @locks;
	@locks = ();
	return;
}

sub waits
{
	my $name = shift;
	my $node = $name eq 'there' ? $dtx->p(1) : $coord;
	return $dtx->poll($node, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 1, "$name: is being executed");
}

sub history
{
	my $id = shift;
	return $dtx->sql("SELECT concat_ws(' ', action, attempt, outcome, message) FROM dtx.saga_history WHERE saga = $id AND step = 'step' ORDER BY id");
}

my %expected = (
	here => [ 'completed', 'execute 1 stopped the worker was told to leave', 'execute 1 completed' ],
	there => [ 'completed', 'execute 1 stopped the worker was told to leave', 'execute 1 completed' ],
	back => [ 'compensated', 'execute 1 completed', 'compensate 1 stopped the worker was told to leave', 'compensate 1 completed' ]);
my %stop = (
	'restart' => sub { $coord->restart; },
	'pg_terminate_backend' => sub {
		$dtx->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'});
	},

	# It fails, because the database is in use by others, too.
	'CREATE DATABASE' => sub {
		my (undef, undef, $stderr) = $coord->psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
		like($stderr, qr/is being accessed by other users/, 'a copy of a database in use is refused');
	});

for my $how (sort keys %stop)
{
	for my $name (sort keys %expected)
	{
		next if $name ne 'here' && $how ne 'restart';
		lock();
		my $id = $dtx->sql("SELECT dtx.start_saga('$name')");
		waits($name);
		my $begin = time;
		$stop{$how}->();
		cmp_ok(time - $begin, '<', 20, "$how, $name: nobody was held up");
		unlock();
		my ($state, @history) = @{ $expected{$name} };
		is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), $state, "$how, $name: $state");
		is(history($id), join("\n", @history), '... and that was no attempt');
	}
}

# Nor is anybody held up by a server that does not answer: in SQL of a step on it, and
# in a local one with a foreign table.  (postgres_fdw of 17 and later gives up by itself, after
# 30 s.)
$dtx->p(1)->safe_psql('postgres', q{CREATE FUNCTION waits() RETURNS int LANGUAGE sql AS 'SELECT 1 FROM pg_advisory_xact_lock(4711)';
CREATE VIEW waiting AS SELECT waits() AS i});
$dtx->sql(q{CREATE FOREIGN TABLE waiting (i int) SERVER s1;
SELECT dtx.define_saga('foreign', dtx.step('step', execute => 'SELECT i FROM waiting', max_attempts => 1))});
for my $name (qw(there foreign))
{
	for my $how ('stop', 'cancel')
	{
		lock();
		my $id = $dtx->sql("SELECT dtx.start_saga('$name')");
		waits('there');
		$dtx->freeze($dtx->p(1));
		my $begin = time;
		if ($how eq 'stop')
		{
			$coord->stop('fast');
		}
		else
		{
			$dtx->sql("SELECT dtx.force_saga($id, 'completed', 'test')");
			$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND state = 'active'}, 0,
				"$name: its worker is stopped");
		}
		cmp_ok(time - $begin, '<', 50, "$name, $how: nobody was held up by a server that does not answer");
		$dtx->thaw($dtx->p(1));
		unlock();
		next if $how eq 'cancel';
		$coord->start;
		is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'completed', '... and that was no attempt');
	}
}

# One that does not listen does not keep the server from being stopped.  That is an
# attempt, and so is a crash: a step that crashes the server must not do so for ever.
my $id = $dtx->sql(q{SELECT dtx.start_saga('deaf')});
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND wait_event = 'PgSleep'}, 1,
	'deaf: is being executed');
my $begin = time;
$coord->restart;
cmp_ok(time - $begin, '<', 20, '... and holds up nobody');
is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'compensated', '... but has used up its attempt');
is(history($id), 'execute 1 lost the worker has gone', '... which its history tells');
lock();
$id = $dtx->sql(q{SELECT dtx.start_saga('here')});
waits('here');
$coord->stop('immediate');
unlock();
$coord->start;
is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'compensated', 'a crash is an attempt');
is(history($id), 'execute 1 lost the worker has gone', '... which its history tells');

# A step that stops its own worker does not do so for ever: ten times are not counted,
# as nobody knows who has done it.
$dtx->sql(q{
SELECT dtx.define_saga('suicide', dtx.step_signal('go'),
	dtx.step('step', execute => 'SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(60)', max_attempts => 1))});
$id = $dtx->sql(q{SELECT dtx.start_saga('suicide')});
$dtx->sql(qq{INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, message, started_at, finished_at)
SELECT $id, 2, 'execute', 1, 'stopped', 'the worker was told to leave', now(), now() FROM generate_series(1, 9);
SELECT dtx.signal_saga($id, 'go')});
is($dtx->sql("SELECT dtx.wait_saga($id, '30 s')"), 'compensated', 'a step that stops its worker uses up its attempts');
is($dtx->sql("SELECT string_agg(concat_ws(' ', attempt, outcome, sqlstate), ', ' ORDER BY id) FROM dtx.saga_history WHERE saga = $id AND step = 'step' OFFSET 0"),
	join(', ', ('1 stopped') x 10, '1 lost 57P01'), '... after a while');

# ----------------------------------------------------------------
# NOTIFY: a user's COMMIT holds the lock of the queue, and does not end
# ----------------------------------------------------------------

$dtx->sql(q{
SELECT dtx.define_saga('external', dtx.step_external('letter', 'letters'));
SELECT dtx.define_saga('quick', dtx.step('step', execute => 'SELECT 1'))});
my $notifier = $dtx->session;
$dtx->arm;
$notifier->start($dtx->hold . 'BEGIN; UPDATE probe SET i = i + 1; NOTIFY anything; COMMIT');
$dtx->wait_held($notifier);
$id = $dtx->sql(q{SELECT dtx.start_saga('external')});
$dtx->poll($coord, "SELECT state FROM dtx.saga_steps WHERE saga = $id", 'waiting', 'a step is offered though nobody can notify');
$dtx->sql(q{SELECT dtx.complete_step(token) FROM dtx.claim_step('letters', 'w')});
is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'completed', '... and the saga goes on');
$dtx->release;
$notifier->finish;
$notifier->close;

done_testing();
