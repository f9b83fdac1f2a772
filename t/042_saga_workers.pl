# The scheduler and the workers of sagas: who is there when, for whom they work,
# and what happens when something is in the way.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use SagaBooks;
use Test::More;

my $books = SagaBooks->new(conf => "max_prepared_transactions = 5\nshared_buffers = '32 MB'\n");
my $dtx = $books->dtx;
my $coord = $dtx->coord;

sub setting
{
	my ($name, $value) = @_;
	$dtx->sql("ALTER SYSTEM SET $name = $value");
	$coord->reload;
	return;
}

sub workers_are
{
	my ($kind, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $dtx->poll($coord,
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga $kind'",
		$expected, $name);
}

sub log_since
{
	my $offset = shift;
	return slurp_file($coord->logfile, $offset);
}

# ----------------------------------------------------------------
# Who is there when
# ----------------------------------------------------------------

workers_are('scheduler', 0, 'no scheduler before there is a saga');
my $id = $books->start('move');
$books->state($id);
is($dtx->sql(q{
SELECT count(*) > 0 AND bool_and(usename = current_user AND application_name = 'pg_dtx saga worker')
FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'}),
	't', 'a worker is connected as the role whose sagas it executes');
$books->ended($id, 'completed', 'first saga');
workers_are('scheduler', 1, 'one scheduler');
my $log = -s $coord->logfile;
workers_are('worker', 0, 'workers leave when there is nothing to do');
workers_are('scheduler', 0, 'so does the scheduler');
unlike(log_since($log), qr/ERROR|FATAL|WARNING/, '... without a word');
$books->ended($books->start('refused'), 'compensated', 'the next saga finds them again');

# ----------------------------------------------------------------
# Sagas off, and on again; a restart in between
# ----------------------------------------------------------------

setting('pg_dtx.saga_workers', 0);
workers_are('worker', 0, 'no workers when there shall be none');
$id = $books->start('move');
$coord->restart;
workers_are('scheduler', 1, 'after a restart the scheduler comes back because of what is due');
is($dtx->sql("SELECT dtx.wait_saga($id, '100 ms')"), 'pending', 'but executes nothing');
setting('pg_dtx.saga_workers', 4);
$books->ended($id, 'completed', 'until it may');

setting('pg_dtx.saga_workers', 0);
$id = $books->start('move');
workers_are('worker', 0, 'off again');
setting('pg_dtx.saga_workers', 4);
$coord->stop('immediate');
$coord->start;
$books->ended($id, 'completed', 'found after a crash');

# A copy of a coordinator must not touch the servers of the original.
setting('pg_dtx.resolver', 'off');
workers_are('worker', 0, 'no workers without a resolver');
$id = $books->start('move');
is($dtx->sql("SELECT dtx.wait_saga($id, '300 ms')"), 'pending', 'nothing is executed');
setting('pg_dtx.resolver', 'on');
$books->ended($id, 'completed', 'with the resolver');

# ----------------------------------------------------------------
# Started by a prepared transaction
# ----------------------------------------------------------------

$books->dismiss_workers('no workers there');
workers_are('scheduler', 0, 'nobody there');
$dtx->sql(q{
BEGIN;
SELECT dtx.start_saga('move', '{"id": 1000, "n": 1}', key => 'prepared');
PREPARE TRANSACTION 'mine'});
$dtx->sql(q{COMMIT PREPARED 'mine'});
$id = $dtx->sql('SELECT max(id) FROM dtx.sagas');
$books->{number}{$id} = 1000;
$books->ended($id, 'completed', 'COMMIT PREPARED starts sagas');

# The same with a restart in between: the scheduler does not see what is prepared,
# and nothing in memory tells of it.
$dtx->sql(q{
BEGIN;
SELECT dtx.start_saga('move', '{"id": 1001, "n": 1}', key => 'prepared too');
PREPARE TRANSACTION 'mine'});
$coord->restart;
workers_are('scheduler', 0, 'nobody there after a restart');
$dtx->sql(q{COMMIT PREPARED 'mine'});
$id = $dtx->sql('SELECT max(id) FROM dtx.sagas');
$books->{number}{$id} = 1001;
$books->ended($id, 'completed', 'COMMIT PREPARED starts sagas after a restart, too');

# ----------------------------------------------------------------
# What a step leaves in the session is gone in the next one
# ----------------------------------------------------------------

$dtx->sql(q{
CREATE ROLE alien;
SELECT dtx.define_saga('untidy',
	dtx.step('leave', execute => $$
		SET work_mem = '1234kB';
		SET LOCAL pg_dtx.two_phase_commit = off;
		SET pg_dtx.commit_wait = off;
		PREPARE p AS SELECT 1;
		SELECT pg_advisory_lock(4711);
		CREATE TEMP TABLE t (i int);
		DECLARE c CURSOR WITH HOLD FOR SELECT 1;
		SET ROLE alien$$, backoff => '20 ms'),
	dtx.step('look', execute => $$
		SELECT current_user AS "user", session_user AS "session",
			current_setting('work_mem') <> '1234kB' AS work_mem,
			current_setting('pg_dtx.two_phase_commit') AS two_phase_commit,
			current_setting('pg_dtx.commit_wait') AS commit_wait,
			current_setting('transaction_isolation') AS isolation,
			(SELECT count(*) FROM pg_prepared_statements WHERE name = 'p') AS statements,
			(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks,
			(SELECT count(*) FROM pg_cursors WHERE name = 'c') AS cursors,
			to_regclass('pg_temp.t') AS t$$))});
$id = $dtx->sql(q{SELECT dtx.start_saga('untidy')});
is($books->state($id), 'completed', 'a saga that leaves things behind');
my $me = $dtx->sql('SELECT current_user');
is( $dtx->sql(qq{
SELECT r.result - 'locks' FROM dtx_internal.saga_result r WHERE saga = $id AND step = 2}),
	qq({"t": null, "user": "$me", "cursors": 0, "session": "$me", "work_mem": true, "isolation": "read committed", "statements": 0, "commit_wait": "on", "two_phase_commit": "on"}),
	'its next step does not see them') or diag $dtx->sql("SELECT * FROM dtx.saga_history WHERE saga = $id");

# Nor does it see what a deferred trigger has made the default, at the very end.
$dtx->sql(q{
CREATE TABLE late_default (i int);
CREATE FUNCTION late_default() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	SET default_transaction_read_only = on;
	SET default_transaction_isolation = 'serializable';
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late_default DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION late_default();
SELECT dtx.define_saga('late_default',
	dtx.step('leave', execute => $$INSERT INTO late_default VALUES (1)$$),
	dtx.step('look', execute => $$SELECT current_setting('transaction_isolation') AS isolation, current_setting('transaction_read_only') AS read_only$$))});
$id = $dtx->sql(q{SELECT dtx.start_saga('late_default')});
is($books->state($id), 'completed', 'a saga whose trigger changes defaults');
is($dtx->sql("SELECT result->>'isolation', result->>'read_only' FROM dtx_internal.saga_result WHERE saga = $id AND step = 2"),
	'read committed|off', 'its next step does not see them');

# ----------------------------------------------------------------
# One slow server does not hold up the others
# ----------------------------------------------------------------

$dtx->sql(q{
SELECT dtx.define_saga('on_s1', dtx.step('s', server => 's1', execute => $$UPDATE acct SET bal = bal WHERE id = 1$$, max_attempts => 1000, backoff => '50 ms'));
SELECT dtx.define_saga('on_s2', dtx.step('s', server => 's2', execute => $$UPDATE acct SET bal = bal WHERE id = 1$$))});
my $lock = $dtx->session(node => $dtx->p(1));
$lock->run('BEGIN; LOCK TABLE acct');
$dtx->sql(q{SELECT count(dtx.start_saga('on_s1')) FROM generate_series(1, 20)});
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	2, 'a slow server has all workers of a role but one, and one is kept for other roles');
my @fast = map { $dtx->sql(q{SELECT dtx.start_saga('on_s2')}) } 1 .. 10;
is($books->state($_), 'completed', 'a saga on the other server') for @fast;
is($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE name = 'on_s1' AND state = 'completed'}),
	0, 'meanwhile none on the slow one');

# Idle workers do not run in circles.  What they did before may be reported later,
# so it is enough that they are quiet at last.
my ($rounds, $quiet_by) = (0, time + $PostgreSQL::Test::Utils::timeout_default);
do {
	$rounds = $dtx->sql(q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'});
	$lock->run('SELECT pg_sleep(2)');
	$rounds = $dtx->sql(q{SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'postgres'}) - $rounds;
} while ($rounds >= 100 && time < $quiet_by);
cmp_ok($rounds, '<', 100, 'no circles');
$lock->run('COMMIT');
$lock->close;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE name = 'on_s1' AND state = 'completed'},
	20, 'when it is free, they end');

# Though there were workers with nothing to do, nobody took a step that another
# one was at.
is($dtx->sql(q{SELECT count(*) FROM dtx.saga_history WHERE saga IN (SELECT id FROM dtx.sagas WHERE name = 'on_s1') AND outcome = 'lost'}),
	0, 'no step was taken from a live worker');

# A step that takes too long is stopped, and tried again.
$dtx->sql(q{SELECT dtx.define_saga('slow',
	dtx.step('s', server => 's1', execute => $$SELECT pg_sleep(60)$$, timeout => '200 ms', max_attempts => 2, backoff => '20 ms'));
SELECT dtx.define_saga('slow_here',
	dtx.step('s', execute => $$SELECT pg_sleep(60)$$, timeout => '200 ms', max_attempts => 2, backoff => '20 ms'))});
for my $name (qw(slow slow_here))
{
	$id = $dtx->sql("SELECT dtx.start_saga('$name')");
	is($books->state($id), 'compensated', "saga $name has a timeout");
	is($dtx->sql(qq{SELECT string_agg(attempt || ' ' || sqlstate || ' ' || message, ', ' ORDER BY id) FROM dtx.saga_history WHERE saga = $id}),
		'1 57014 canceling saga step due to its timeout, 2 57014 canceling saga step due to its timeout',
		'... which its history tells');
}
is($dtx->p(1)->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()}),
	0, 'nothing of it runs on the server');

# A session has locked the saga, and wants on the server what its step has locked
# there.  Nobody would see that deadlock, so the step does not wait for the saga.
$dtx->sql(q{SELECT dtx.define_saga('deadlock', dtx.step('s', server => 's1', execute => $$UPDATE acct SET bal = bal + 1 WHERE id = 1$$, max_attempts => 1))});
my $before = $dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1');
my $gate = $dtx->session(node => $dtx->p(1));
$gate->run('BEGIN; LOCK TABLE acct');
$id = $dtx->sql(q{SELECT dtx.start_saga('deadlock')});
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	1, 'a step is being executed');
my $holder = $dtx->session;
$holder->run("SET statement_timeout = '60s'; BEGIN; SELECT id FROM dtx_internal.saga_record WHERE id = $id FOR UPDATE");
$gate->run('COMMIT');
$gate->close;
$holder->run('UPDATE acct1 SET bal = bal WHERE id = 1');
is($holder->stderr, '', 'who has locked its saga gets what it has locked on a server');
$holder->run('COMMIT');
$holder->close;
is($books->state($id), 'completed', '... and the step was done');
is($dtx->sql("SELECT string_agg(attempt || ' ' || outcome, ', ') FROM dtx.saga_history WHERE saga = $id"), '1 completed', '... at the first attempt');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), $before + 1, '... once');
$dtx->p(1)->safe_psql('postgres', 'UPDATE acct SET bal = bal - 1 WHERE id = 1');

# ----------------------------------------------------------------
# A step that is taken away while it is executed changes nothing
# ----------------------------------------------------------------

$dtx->sql(q{SELECT dtx.define_saga('late',
	dtx.step('s', ARRAY[
		dtx.statement('s1', $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, 'late')$$),
		dtx.statement('s2', $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, 'late')$$),
		dtx.statement('s2', $$UPDATE acct SET bal = bal WHERE id = 1$$)]))});
$lock = $dtx->session(node => $dtx->p(2));
$lock->run('BEGIN; LOCK TABLE acct');
$id = $dtx->sql(q{SELECT dtx.start_saga('late', '{"id": 2000}')});
$dtx->poll($dtx->p(2), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	1, 'a step is being executed');
$dtx->sql("SELECT dtx.force_saga($id, 'compensated', 'test')");
$lock->run('COMMIT');
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker' AND state = 'active'},
	0, 'the late worker has ended');
is(join(' ', map { $_->safe_psql('postgres', 'SELECT count(*) FROM saga_log WHERE saga = 2000') } @{ $dtx->{nodes} }),
	'0 0 0', 'what it did is rolled back');
is($books->state($id), 'compensated', 'the saga has not noticed');
$lock->close;

# ----------------------------------------------------------------
# Roles
# ----------------------------------------------------------------

my $grants = join ' ', map {
	qq{CREATE ROLE r$_ LOGIN; GRANT USAGE ON FOREIGN SERVER s1, s2 TO r$_;
	GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dtx TO r$_;
	CREATE USER MAPPING FOR r$_ SERVER s1 OPTIONS (user '$me', password_required 'false');
	CREATE USER MAPPING FOR r$_ SERVER s2 OPTIONS (user '$me', password_required 'false');}
} 1 .. 3;
$dtx->sql($grants . 'CREATE TABLE who (saga int, name text); GRANT INSERT ON who TO PUBLIC; '
	  . q{SELECT dtx.define_saga('who',
	dtx.step('local', execute => $$INSERT INTO who VALUES (1, current_user)$$),
	dtx.step('there', server => 's2', execute => $$UPDATE acct SET bal = bal WHERE id = 1$$));
SELECT dtx.grant_saga_definition('who', 'public')});
setting('pg_dtx.saga_workers', 1);
for my $i (1 .. 3)
{
	$dtx->sql("SET ROLE r$i; SELECT count(dtx.start_saga('who')) FROM generate_series(1, 10)");
}
$dtx->poll($coord, q{SELECT string_agg(role || ' ' || state || ' ' || n, ', ' ORDER BY role) FROM (SELECT role, state, count(*) AS n FROM dtx.sagas WHERE name = 'who' GROUP BY 1, 2) s},
	'r1 completed 10, r2 completed 10, r3 completed 10', 'one worker serves three roles, one after the other');
is($dtx->sql(q{SELECT string_agg(name || ' ' || n, ', ' ORDER BY name) FROM (SELECT name, count(*) AS n FROM who GROUP BY 1) s}),
	'r1 10, r2 10, r3 10', 'with the rights of each');

# A role finds room at a server though workers of another one wait there, and goes on
# when they do not leave.
setting('pg_dtx.saga_workers', 4);
$books->dismiss_workers('nobody there');
$dtx->sql(q{
SELECT dtx.define_saga('there', dtx.step('there', server => 's2', execute => $$UPDATE acct SET bal = bal WHERE id = 1$$));
SELECT dtx.define_saga('there_and_here', dtx.step('there', server => 's2', execute => $$UPDATE acct SET bal = bal WHERE id = 1$$, max_attempts => 1000, backoff => '20 ms'),
	dtx.step('here', execute => $$SELECT pg_advisory_xact_lock(4712)$$));
SELECT dtx.grant_saga_definition(name, 'public') FROM (VALUES ('there'), ('there_and_here')) v (name)});
my $here = $dtx->session;
$here->run('SELECT pg_advisory_lock(4712)');
$lock = $dtx->session(node => $dtx->p(2));
$lock->run('BEGIN; LOCK TABLE acct');
$dtx->sql(q{SET ROLE r1; SELECT count(dtx.start_saga('there_and_here')) FROM generate_series(1, 2)});
$dtx->poll($dtx->p(2), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	2, 'a role has taken all its room at a server');
$id = $dtx->sql(q{SET ROLE r2; SELECT dtx.start_saga('there')});
workers_are('worker', 3, 'the other one has a worker, too');
$lock->run('COMMIT');
$lock->close;
is($books->state($id), 'completed', 'it goes on when the server does');
$dtx->poll($coord, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}, 2,
	'... while those of the first one are busy elsewhere');
$here->close;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE name = 'there_and_here' AND finished_at IS NULL}, 0, '... and end');

# Two-phase commit is not for a role to switch off.
$dtx->sql(q{ALTER ROLE r3 SET pg_dtx.two_phase_commit = off;
SELECT dtx.define_saga('both', dtx.step('both', ARRAY[
	dtx.statement('s1', $$UPDATE acct SET bal = bal WHERE id = 1$$),
	dtx.statement('s2', $$UPDATE acct SET bal = bal WHERE id = 1$$)]));
SELECT dtx.grant_saga_definition('both', 'r3')});
$books->dismiss_workers('nobody there, again');
my $prepares = $dtx->sql('SELECT two_phase FROM dtx.stat');
$id = $dtx->sql(q{SET ROLE r3; SELECT dtx.start_saga('both')});
is($books->state($id), 'completed', 'a saga of a role without two-phase commit');
is($dtx->sql("SELECT string_agg(attempt || ' ' || outcome, ', ') FROM dtx.saga_history WHERE saga = $id"),
	'1 completed', '... at the first attempt');
cmp_ok($dtx->sql('SELECT two_phase FROM dtx.stat'), '>', $prepares, '... in two phases');
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.decision d, unnest(d.system_ids) s WHERE s = 0}), 0, '... on clusters that are known');
$dtx->sql('ALTER ROLE r3 RESET pg_dtx.two_phase_commit');

# The attempt at a step is on disk before it begins, though the step before it
# was committed asynchronously.  Nobody may come to write WAL out meanwhile, nor
# may a dirty buffer be evicted, which would write it out, too.
$dtx->sql(q{ALTER ROLE r1 SET synchronous_commit = off;
SELECT dtx.define_saga('lazy',
	dtx.step('gate', execute => $$SELECT pg_advisory_xact_lock(4713)$$),
	dtx.step('a', execute => $$INSERT INTO who VALUES (2, current_user)$$),
	dtx.step('b', execute => $$SELECT pg_advisory_xact_lock(4711)$$, max_attempts => 1));
SELECT dtx.grant_saga_definition('lazy', 'r1')});
$books->dismiss_workers('nobody there, once more');
$lock = $dtx->session;
$lock->run('SELECT pg_advisory_lock(l) FROM unnest(ARRAY[4711, 4713]) l');
$id = $dtx->sql(q{SET ROLE r1; SELECT dtx.start_saga('lazy')});
$dtx->poll($coord, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4713 AND NOT granted}, 1,
	'a worker is there');
$dtx->stop_process(split /\n/, $dtx->sql(q{
SELECT pid FROM pg_stat_activity WHERE backend_type NOT IN ('client backend', 'pg_dtx saga worker')}));
$lock->run('SELECT pg_advisory_unlock(4713)');
$dtx->poll($coord, q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted}, 1,
	'the last step is being executed');
kill 'KILL', $dtx->sql(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
$lock->close;
is($books->state($id), 'compensated', 'a step that has crashed the server once, and may once, is not begun again');
is($dtx->sql("SELECT count(*) FROM who WHERE saga = 2"), 1, 'what was before it is not done again');
$dtx->sql('ALTER ROLE r1 RESET synchronous_commit');
setting('pg_dtx.saga_workers', 4);

# One that may not log in any more, one that was dropped, and one that can't
# connect for another reason: the others go on.
$log = -s $coord->logfile;
setting('pg_dtx.saga_workers', 0);
workers_are('worker', 0, 'workers are off');
$dtx->sql("SET ROLE r$_; SELECT dtx.start_saga('who')") for 1 .. 3;
$dtx->sql('ALTER ROLE r1 NOLOGIN');
$dtx->sql('DROP OWNED BY r2; DROP ROLE r2');
$dtx->sql('ALTER ROLE r3 CONNECTION LIMIT 0');
setting('pg_dtx.saga_workers', 4);
$books->ended($books->start('move'), 'completed', 'saga of a role that is all right');
ok($coord->poll_query_until('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga scheduler'}, 1), 'scheduler is there');
ok(pump_log($log, qr/sagas of role "r1" wait\n.*DETAIL:  The role is not permitted to log in/), 'the log says who may not log in');
my @said = log_since($log) =~ /sagas of role "r1" wait/g;
is(scalar @said, 1, '... once');
$dtx->poll($coord, q{SELECT state || ' ' || reason FROM dtx.sagas WHERE role IS NULL AND state = 'failed'},
	'failed step "local" cannot be executed: the role that has started the saga does not exist', 'sagas of a role that was dropped fail');
cmp_ok(scalar(() = log_since($log) =~ /too many connections for role/g), '<', 8, 'who can not connect is not tried in a loop');
$dtx->sql('ALTER ROLE r3 CONNECTION LIMIT -1');
$dtx->poll($coord, q{SELECT count(*) FROM dtx.sagas WHERE name = 'who' AND role = 'r3' AND state = 'completed'},
	11, 'the one that can connect again goes on');

sub pump_log
{
	my ($offset, $pattern) = @_;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		return 1 if log_since($offset) =~ $pattern;
		select undef, undef, undef, 0.1;
	}
	return 0;
}

# ----------------------------------------------------------------
# Processes that are killed
# ----------------------------------------------------------------

$lock = $dtx->session(node => $dtx->p(1));
$lock->run('BEGIN; LOCK TABLE acct');
$id = $books->start('move');
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE relation = 'acct'::regclass AND NOT granted},
	1, 'a step is being executed');
$dtx->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga scheduler'});
$dtx->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'});
$lock->run('COMMIT');
$lock->close;
$books->ended($id, 'completed', 'scheduler and worker terminated');

# ----------------------------------------------------------------
# Databases and extensions that go away
# ----------------------------------------------------------------

$dtx->sql('CREATE DATABASE other');
$dtx->install('other');
$coord->safe_psql('other', q{SELECT dtx.define_saga('hang', dtx.step('s', execute => $$SELECT pg_sleep(600)$$));
SELECT count(dtx.start_saga('hang')) FROM generate_series(1, 10)});
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND query LIKE '%pg_sleep(600)%'},
	2, 'sagas run in another database');
my $begin = time;
$dtx->sql('ALTER DATABASE other RENAME TO another');
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'another' AND query LIKE '%pg_sleep(600)%'},
	2, 'it was renamed meanwhile, and they come back');
$dtx->sql('DROP DATABASE another');
cmp_ok(time - $begin, '<', 300, 'or dropped');

# A copy of the database has the sagas of the original, which go on there, and
# there only: their steps would be done twice on the servers.
$dtx->sql(q{
SELECT dtx.define_saga('charge', dtx.step_sleep('wait', '1 hour'),
	dtx.step('charge', server => 's1', execute => $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, current_setting('application_name'))$$));
SELECT dtx.define_saga('mail', dtx.step_external('mail', 'letters'))});
my ($sleeper, $mail) = map { $dtx->sql("SELECT dtx.start_saga('$_', '{\"id\": 5000}', key => 'of the original')") } qw(charge mail);
$dtx->poll($coord, "SELECT string_agg(state::text, ' ' ORDER BY position) FROM dtx.saga_steps WHERE saga IN ($sleeper, $mail)",
	'waiting waiting pending', 'a saga sleeps, and another one waits for a program');
$coord->safe_psql('template1', 'CREATE DATABASE copy TEMPLATE postgres');
my $in_copy = sub {
	my $sql = shift;
	my ($ret, $stdout, $stderr) = $coord->psql('copy', $sql);
	return $ret == 0 ? $stdout : $stderr;
};
my $finish = "UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = $sleeper";
my $one = q{SELECT dtx.start_saga('charge', '{"id": 5001}', key => 'of the copy');};
my $copied = "SELECT count(*) FROM dtx.sagas WHERE id IN ($sleeper, $mail) AND hint LIKE 'It belongs to database \"postgres\"%'";
is($in_copy->($copied), 2, 'the copy knows them');
$in_copy->($finish);
my $own = $in_copy->($one);
cmp_ok($own, '>', $mail, 'sagas of its own are started there');
ok($coord->poll_query_until('copy', "SELECT state = 'waiting' FROM dtx.saga_steps WHERE saga = $own AND position = 1"),
	'... and go on');
$in_copy->("SELECT dtx.skip_step($own, 'wait', 'test')");
is($in_copy->("SELECT dtx.wait_saga($own, '60 s')"), 'completed', '... and end');
is($in_copy->("SELECT state FROM dtx.sagas WHERE id = $sleeper"), 'running', 'that of the original does not');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM saga_log WHERE saga IN (5000)'),
	0, '... and has done nothing on the server');
is($in_copy->(q{SELECT count(*) FROM dtx.claim_step('letters', 'me')}), 0, 'nor can a program claim its step');
for my $call ("dtx.cancel_saga($sleeper, 'test')", "dtx.retry_saga($sleeper)", "dtx.skip_step($sleeper, 'wait', 'test')",
	"dtx.signal_saga($sleeper, 'wait')", "dtx.wait_saga($sleeper)", "dtx.force_saga($sleeper, 'compensating', 'test')",
	q{dtx.start_saga('charge', key => 'of the original')})
{
	like($in_copy->("SELECT $call"),
		qr/ERROR:  saga $sleeper belongs to another database\nDETAIL:  .*"postgres".*HINT:  .*force_saga/s, "in the copy: $call");
}
like($in_copy->("SELECT dtx.explain_saga($sleeper)"), qr/belongs to database "postgres"/, 'dtx.explain_saga() says so');
is($in_copy->("SELECT count(due_at) FROM dtx.saga_steps WHERE saga = $sleeper"), 0, 'none of its steps is due there');
is($in_copy->("SELECT dtx.force_saga($sleeper, 'compensated', 'is a copy')"), 'compensated', 'it can be ended');
is($in_copy->($copied), 1, '... one by one');
is($in_copy->('DROP EXTENSION pg_dtx CASCADE'), '', 'and is no reason to keep the extension');
$dtx->sql($finish);
$dtx->sql(q{SELECT dtx.start_saga('mail')});
is($books->state($sleeper), 'completed', 'the original has gone on');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM saga_log WHERE saga = 5000'), 1, '... once');
$dtx->sql('DROP DATABASE copy');
$books->force('compensated', q{name = 'mail'});

$log = -s $coord->logfile;
$dtx->sql(q{SELECT dtx.define_saga('hang', dtx.step('s', execute => $$SELECT pg_sleep(600)$$))});
$id = $dtx->sql(q{SELECT dtx.start_saga('hang')});
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(600)%' AND backend_type = 'pg_dtx saga worker'},
	1, 'a saga hangs');
my ($status, undef, $stderr) = $coord->psql('postgres', 'DROP EXTENSION pg_dtx CASCADE');
isnt($status, 0, 'DROP EXTENSION is refused while a saga has not ended');
like($stderr, qr/cannot drop the sagas of "pg_dtx"\n.*DETAIL:  Some have not ended.*HINT:  .*dtx\.force_saga/s, '... and why');
is($dtx->sql("SELECT state FROM dtx.sagas WHERE id = $id"), 'running', '... and it is all there');
$books->force('compensated', 'true');
$dtx->sql('DROP EXTENSION pg_dtx CASCADE');
$dtx->sql(q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'});
workers_are('worker', 0, 'extension dropped: no workers');
workers_are('scheduler', 0, '... and no scheduler');
cmp_ok(scalar(() = log_since($log) =~ /ERROR/g), '<', 20, '... and no loop of errors');

done_testing();
