# What a role can do to the sagas of others by means of steps that do not end: each has
# a limit, can be stopped, and leaves room for roles without any worker; deadlines pass.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use SagaBooks;
use Test::More;
use Time::HiRes qw(time);

my $books = SagaBooks->new(conf => "pg_dtx.saga_workers = 4\nmax_prepared_transactions = 5\n");
my $dtx = $books->dtx;
my $coord = $dtx->coord;

sub setting
{
	my ($name, $value) = @_;
	$dtx->sql("ALTER SYSTEM SET $name = '$value'");
	$coord->reload;
	$dtx->poll($coord, "SELECT current_setting('$name') = '$value'", 't', "$name is $value");
	return;
}

sub workers
{
	my ($role, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $dtx->poll($coord,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND usename = '$role' AND state = 'active'",
		$expected, $name);
}

# Idle ones would stay for a while.
sub no_workers
{
	my $n = $dtx->sql('SHOW pg_dtx.saga_workers');
	setting('pg_dtx.saga_workers', 0);
	$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'}, 0, 'no worker');
	setting('pg_dtx.saga_workers', $n);
	return;
}

sub history
{
	my ($id, $what) = @_;
	$what //= "concat_ws(' ', step, action, attempt, outcome, sqlstate, message)";
	return $dtx->sql("SELECT $what FROM dtx.saga_history WHERE saga = $id ORDER BY id");
}

# Two users, as ordinary as can be; and their steps.
for my $role (qw(mallory bob))
{
	$dtx->sql(qq{
CREATE ROLE $role LOGIN;
GRANT USAGE ON FOREIGN SERVER s1, s2 TO $role;
CREATE USER MAPPING FOR $role SERVER s1 OPTIONS (password_required 'false');
CREATE USER MAPPING FOR $role SERVER s2 OPTIONS (password_required 'false');
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dtx TO $role});
	$_->safe_psql('postgres', "CREATE ROLE $role LOGIN; GRANT ALL ON acct TO $role") for $dtx->p(1), $dtx->p(2);
}

# A saga of one step of a role; more arguments of dtx.step() may follow.
sub define
{
	my ($role, $name, $server, $sql, @more) = @_;
	my $arguments = join ', ', "'step'", "server => $server", "execute => \$step\$$sql\$step\$", @more;
	$dtx->sql("SET ROLE $role; SELECT dtx.define_saga('$name', dtx.step($arguments))");
	return;
}

sub start
{
	my ($role, $name, @more) = @_;
	return $dtx->sql('SET ROLE ' . $role . '; SELECT dtx.start_saga(' . join(', ', "'$name'", @more) . ')');
}

# A step that catches whatever it can, and that switches off what it can.
my $stubborn = q{
DO $do$
BEGIN
	PERFORM set_config('statement_timeout', '0', false), set_config('pg_dtx.prepare_timeout', '1d', false);
	LOOP
		BEGIN
			PERFORM pg_sleep(600);
		EXCEPTION WHEN query_canceled OR admin_shutdown OR OTHERS THEN
			NULL;
		END;
	END LOOP;
END
$do$};

# ----------------------------------------------------------------
# The limit
# ----------------------------------------------------------------

setting('pg_dtx.saga_step_timeout', '700ms');
my @once = ("max_attempts => 1", "backoff => '10 ms'");
my %endless = (
	'a query' => [ 'NULL', 'SELECT pg_sleep(600)' ],
	'a query on a server' => [ "'s1'", 'SELECT pg_sleep(600)' ],
	'one that sets timeouts' => [ 'NULL', q{SET statement_timeout = 0; SET lock_timeout = 0; SELECT pg_sleep(600)} ],
	'a loop' => [ 'NULL', 'DO $do$ BEGIN LOOP NULL; END LOOP; END $do$' ],
	'a lock' => [ 'NULL', 'SELECT pg_advisory_xact_lock(4711)' ]);
my $lock = $dtx->session;
$lock->run('SELECT pg_advisory_lock(4711)');
for my $what (sort keys %endless)
{
	define('mallory', $what, @{ $endless{$what} }, @once);
	my $id = start('mallory', $what);
	is($books->state($id), 'compensated', "$what: has a limit");
	is(history($id), 'step execute 1 failed 57014 canceling saga step due to "pg_dtx.saga_step_timeout"', '... which its history tells');
}

# A definition may ask for less, and not for more.
define('mallory', 'short', 'NULL', 'SELECT pg_sleep(600)', @once, "timeout => '100 ms'");
define('mallory', 'long', 'NULL', 'SELECT pg_sleep(600)', @once, "timeout => '1 hour'");
for my $case ([ short => 'its timeout' ], [ long => '"pg_dtx.saga_step_timeout"' ])
{
	my $id = start('mallory', $case->[0]);
	is($books->state($id), 'compensated', "timeout of definition: $case->[0]");
	is(history($id, 'message'), "canceling saga step due to $case->[1]", '... against the setting');
}
my ($ret, undef, $stderr) = $coord->psql('postgres', q{SET ROLE mallory; SET pg_dtx.saga_step_timeout = 0});
like($stderr, qr/permission denied to set parameter "pg_dtx.saga_step_timeout"/, 'it is not for everybody to set');

# Who catches the cancellation loses the worker.
define('mallory', 'stubborn', 'NULL', $stubborn, @once);
my $begin = time;
my $id = start('mallory', 'stubborn');
is($books->state($id), 'compensated', 'a step that catches its cancellation');
is(history($id, 'outcome'), 'lost', '... loses its worker');
cmp_ok(time - $begin, '<', 30, '... soon');

# ... or has not done anything, if it ends.
$dtx->sql('CREATE TABLE done (what text); GRANT ALL ON done TO mallory');
define('mallory', 'late', 'NULL', q{
DO $do$
BEGIN
	BEGIN
		PERFORM pg_sleep(600);
	EXCEPTION WHEN query_canceled THEN
		INSERT INTO done VALUES ('late');
	END;
END
$do$}, @once);
$id = start('mallory', 'late');
is($books->state($id), 'compensated', 'a step that catches its cancellation, and ends');
is($dtx->sql('SELECT count(*) FROM done'), 0, '... has not been done');

# The limit is there for steps that take long honestly; it can be a role's own.
setting('pg_dtx.saga_step_timeout', '0');
$dtx->sql(q{ALTER ROLE mallory SET pg_dtx.saga_step_timeout = '300ms'});
no_workers();
$id = start('mallory', 'a query');
is($books->state($id), 'compensated', 'a role has a limit of its own');
$dtx->sql(q{ALTER ROLE mallory RESET pg_dtx.saga_step_timeout});

# ----------------------------------------------------------------
# Stopping what runs
# ----------------------------------------------------------------

my %hangs = (
	'a query' => [ q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND wait_event = 'PgSleep'} ],
	'a lock' => [ q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted} ],
	'a query on a server' => [ q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND state = 'active' AND pid <> pg_backend_pid()}, $dtx->p(1) ]);
no_workers();
define('mallory', 'all', 'NULL', 'SELECT 1');
for my $what (sort keys %hangs)
{
	my ($hanging, $node) = @{ $hangs{$what} };
	for my $call ('cancel_saga(%s, $$enough$$)', 'force_saga(%s, $$completed$$, $$enough$$)', 'force_saga(%s, $$compensating$$, $$enough$$)')
	{
		next if $call =~ /force/ && $what ne 'a query';

		$id = start('mallory', $what);
		$dtx->poll($node // $coord, $hanging, 1, "$what: is being executed");
		my $bystander = start('mallory', $what);
		$dtx->poll($node // $coord, $hanging, 2, '... and so is that of another saga');

		# Not by others, nor before the commit.
		($ret, undef, $stderr) = $coord->psql('postgres', 'SET ROLE bob; SELECT dtx.' . sprintf($call, $id));
		like($stderr, qr/permission denied for saga $id/, '... which is not for others to stop');
		$dtx->sql('SET ROLE mallory; BEGIN; SAVEPOINT a; SELECT dtx.' . sprintf($call, $id) . '; ROLLBACK TO a; COMMIT');
		is(($node // $coord)->safe_psql('postgres', $hanging), 2, '... and who rolls back has stopped nothing');

		$begin = time;
		$dtx->sql('SET ROLE mallory; SELECT dtx.' . sprintf($call, $id));
		$dtx->poll($node // $coord, $hanging, 1, "$call stops it");
		cmp_ok(time - $begin, '<', 10, '... at once');
		is($books->state($id), $call =~ /completed/ ? 'completed' : 'compensated', '... and the saga is what it was to be');
		like($dtx->sql("SELECT state FROM dtx.saga_steps WHERE saga = $bystander"), qr/running/, '... and the other one goes on');
		is(history($id, 'message'), $call =~ /completed/ ? 'enough' : "enough\ncanceling saga step due to cancellation of its saga",
			'... which its history tells');
		$dtx->sql("SELECT dtx.force_saga($bystander, 'completed', 'test')");
		$dtx->poll($node // $coord, $hanging, 0, '... until it is stopped, too');
	}
}

# By a transaction that is prepared: when that is committed.
$id = start('mallory', 'a query');
$dtx->poll($coord, $hangs{'a query'}->[0], 1, 'a query: is being executed');
$dtx->sql("BEGIN; SELECT dtx.cancel_saga($id, 'enough'); PREPARE TRANSACTION 'cancel'; ROLLBACK PREPARED 'cancel'");
$dtx->sql("BEGIN; SELECT dtx.cancel_saga($id, 'enough'); PREPARE TRANSACTION 'cancel'");
is($dtx->sql($hangs{'a query'}->[0]), 1, 'prepared: it goes on');
$begin = time;
$dtx->sql(q{COMMIT PREPARED 'cancel'});
$dtx->poll($coord, $hangs{'a query'}->[0], 0, 'COMMIT PREPARED stops it');
cmp_ok(time - $begin, '<', 10, '... at once');
is($books->state($id), 'compensated', '... and the saga turns back');

# One that does not listen.
$id = start('mallory', 'stubborn');
workers('mallory', 1, 'a stubborn step is being executed');
$dtx->sql("SELECT dtx.force_saga($id, 'completed', 'enough')");
workers('mallory', 0, 'stopped with its worker');
$lock->close;

# ----------------------------------------------------------------
# Deadlines wait for no worker
# ----------------------------------------------------------------

setting('pg_dtx.saga_workers', 1);
no_workers();
define('bob', 'sleep', 'NULL', 'SELECT 1');
my $endless = start('mallory', 'a query');
workers('mallory', 1, 'the only worker is busy');
$id = start('bob', 'sleep', q{deadline => clock_timestamp() + interval '1 s'});
is($books->state($id), 'compensated', 'a deadline passes though there is no worker');
is($dtx->sql("SELECT state FROM dtx.sagas WHERE id = $endless"), 'running', '... and nobody else was disturbed');
$dtx->sql("SELECT dtx.force_saga($endless, 'completed', 'test')");

# The step that is being executed is stopped then.
$id = start('mallory', 'a query', q{deadline => clock_timestamp() + interval '1 s'});
is($books->state($id), 'compensated', 'a deadline stops a step that is being executed');
is(history($id, "concat_ws(' ', action, outcome)"), "deadline compensating\nexecute failed", '... and the saga turns back');

# Many sagas of one role, all of them locked, are in nobody's way.
setting('pg_dtx.saga_workers', 4);
$dtx->sql(q{SET ROLE mallory; SELECT dtx.define_saga('waits', dtx.step_signal('signal'))});
my $locker = $dtx->session;
$dtx->sql(q{SET ROLE mallory; SELECT count(dtx.start_saga('waits', deadline => clock_timestamp() + interval '1 h')) FROM generate_series(1, 1500)});
$locker->run(q{BEGIN; SELECT count(*) FROM (SELECT g.id FROM dtx_internal.saga_record g JOIN dtx.sagas s USING (id) WHERE s.name = 'waits' FOR UPDATE OF g) x});
$dtx->sql(q{SET ROLE bob; SELECT dtx.define_saga('waits too', dtx.step_signal('signal'))});
# (however long that has taken)
my $pass = q{UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp()
WHERE step = 0 AND state = 'waiting' AND saga IN (SELECT id FROM dtx.sagas WHERE name LIKE 'waits%'); SELECT dtx_internal.wake_sagas()};
$dtx->sql($pass);
$id = start('bob', 'waits too', q{deadline => clock_timestamp() + interval '1 s'});
is($books->state($id), 'compensated', 'a deadline passes though many others are locked');
is($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE name = 'waits' AND state = 'compensated'}), 0, '... which wait');
$locker->run('ROLLBACK');
$locker->close;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE name = 'waits' AND state = 'compensated'}, 1500, '... until they are unlocked');

# Nor are many deadlines of one role in the way of one of another role.
$dtx->sql(q{SET ROLE mallory; SELECT count(dtx.start_saga('waits', deadline => clock_timestamp() + interval '1 h')) FROM generate_series(1, 1500)});
$id = start('bob', 'waits too', q{deadline => clock_timestamp() + interval '1 h'});
my $at = $dtx->sql('SELECT clock_timestamp()');
$dtx->sql($pass);
is($books->state($id), 'compensated', 'a deadline passes though another role has many');
cmp_ok($dtx->sql(qq{SELECT count(*) FROM dtx_internal.saga_history_record h
WHERE h.action = 'deadline' AND h.finished_at >= '$at' AND h.id < (SELECT b.id FROM dtx_internal.saga_history_record b WHERE b.saga = $id AND b.action = 'deadline')}),
	'<', 300, '... before most of these');
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE name = 'waits' AND state <> 'compensated'}, 0, '... which pass, too');

# ----------------------------------------------------------------
# Room for roles without any worker
# ----------------------------------------------------------------

no_workers();
define('bob', 'quick', 'NULL', 'SELECT 1');
define('bob', 'quick there', q{'s1'}, 'SELECT 1');
$dtx->sql(q{SET ROLE mallory; SELECT count(dtx.start_saga('a query')) FROM generate_series(1, 10);
SELECT count(dtx.start_saga('a query on a server')) FROM generate_series(1, 10)});
workers('mallory', 3, 'endless steps of one role: a worker is kept for others');
$begin = time;
for my $name ('quick', 'quick there')
{
	is($books->state(start('bob', $name)), 'completed', "meanwhile: $name");
}
cmp_ok(time - $begin, '<', 5, '... at once');
workers('mallory', 3, '... and nobody was disturbed');
is($dtx->sql(q{SELECT count(*) FROM dtx.saga_history h JOIN dtx.sagas s ON s.id = h.saga WHERE s.role = 'mallory' AND h.outcome = 'stopped'}), 0,
	'... nobody at all');

# Two roles have all of them: a third one gets one, from the role that has most, and that
# is no attempt of the step.
define('bob', 'endless', 'NULL', 'SELECT pg_sleep(600)');
start('bob', 'endless');
workers('bob', 1, 'the last worker is taken');
$begin = time;
my $third = $books->start('move');
$books->ended($third, 'completed', 'a third role gets its turn');
cmp_ok(time - $begin, '<', 25, '... soon');
workers('bob', 1, 'not from one that has one');
is($dtx->sql(q{SELECT DISTINCT concat_ws(' ', s.role, h.step, h.attempt, h.outcome, h.message)
FROM dtx.saga_history h JOIN dtx.sagas s ON s.id = h.saga WHERE h.outcome = 'stopped'}),
	'mallory step 1 stopped another role needed a worker', '... but from one that has several');
is($dtx->sql(q{SELECT count(*) FROM dtx.saga_history h JOIN dtx.sagas s ON s.id = h.saga
WHERE s.role = 'mallory' AND s.name LIKE 'a query%' AND s.finished_at IS NULL AND h.outcome IN ('failed', 'lost')}), 0, '... and counts no attempt');
is($dtx->sql(q{SELECT max(attempts) FROM dtx.saga_steps p JOIN dtx.sagas s ON s.id = p.saga WHERE s.role = 'mallory' AND s.finished_at IS NULL}), 1,
	'... so it is the first one again');
$books->force('completed', 'true');
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND state = 'active'}, 0, 'all are stopped');

# Many steps, none of which takes long, do not hold up other roles either, whichever comes
# first in whatever order.
setting('pg_dtx.saga_workers', 1);
for my $pair ([qw(mallory bob)], [qw(bob mallory)])
{
	my ($many, $one) = @$pair;
	define($many, 'short steps', 'NULL', 'SELECT pg_sleep(0.2)');
	define($one, 'in between', 'NULL', 'SELECT 1');
	$dtx->sql(qq{SET ROLE $many; SELECT count(dtx.start_saga('short steps')) FROM generate_series(1, 400)});
	workers($many, 1, "the only worker is for $many");
	is($books->state(start($one, 'in between')), 'completed', "... and then for $one");
	cmp_ok($dtx->sql(qq{SELECT count(*) FROM dtx.sagas WHERE role = '$many' AND finished_at IS NULL}), '>', 100,
		'... though it has much to do still');
	$books->force('completed', 'true');
}

# With the fewest workers that there may be room with
setting('pg_dtx.saga_workers', 2);
no_workers();
$dtx->sql(q{SET ROLE mallory; SELECT count(dtx.start_saga('a query')) FROM generate_series(1, 3)});
workers('mallory', 1, 'two workers: one role has one of them');
is($books->state(start('bob', 'quick')), 'completed', '... and another role the other one');
workers('mallory', 1, '... without disturbing the first one');
$books->force('completed', 'true');
$books->balanced('at last');

done_testing();
