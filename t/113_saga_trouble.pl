# Servers that are away, locked rows, open transactions that signal, hung servers: a saga
# waits for what it needs, uses up no attempt, and is in nobody else's way.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use SagaBooks;
use Test::More;
use Time::HiRes qw(time usleep);

my $books = SagaBooks->new(conf => "pg_dtx.saga_lock_timeout = '300 ms'\n", participant_conf => "log_connections = on\n");
my $dtx = $books->dtx;
my $coord = $dtx->coord;
my ($s1, $s2) = map { $dtx->p($_) } 1, 2;

$dtx->sql(q{
SELECT dtx.define_saga('two',
	dtx.step('a', 's1', $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, 'a')$$, $$DELETE FROM saga_log WHERE saga = ($1->>'id')::int$$, max_attempts => 1),
	dtx.step('b', 's2', $$INSERT INTO saga_log VALUES (($1->>'id')::int, 2, 'b')$$, max_attempts => 1));
SELECT dtx.define_saga('on_s1', dtx.step('s', 's1', $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, 'one')$$));
SELECT dtx.define_saga('here', dtx.step('s', execute => $$SELECT 1$$));
SELECT dtx.define_saga('hot', dtx.step('take', 's1', 'UPDATE acct SET bal = bal - 1 WHERE id = 1', max_attempts => 1),
	dtx.step('give', 's2', 'UPDATE acct SET bal = bal + 1 WHERE id = 1', max_attempts => 1));
SELECT dtx.define_saga('row', dtx.step('s', execute => 'UPDATE acct0 SET bal = bal WHERE id = 1', max_attempts => 1));
SELECT dtx.define_saga('both', dtx.step('m', ARRAY[dtx.statement('s1', 'SELECT 1'), dtx.statement('s2', 'UPDATE acct SET bal = bal WHERE id = 1')]));
SELECT dtx.define_saga('on_s2', dtx.step('s', 's2', 'UPDATE acct SET bal = bal WHERE id = 1'));
SELECT dtx.define_saga('late', dtx.step('s', 's1', $$INSERT INTO saga_log SELECT ($1->>'id')::int, 1, 'late' FROM pg_sleep(1)$$, max_attempts => 1), dtx.step_signal('go'))});

sub completed
{
	my ($name, $n, $what) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $dtx->poll($coord, "SELECT string_agg(state || ' ' || n, ', ') FROM (SELECT state, count(*) AS n FROM dtx.sagas WHERE name = '$name' GROUP BY 1) s",
		"completed $n", $what);
}

# ----------------------------------------------------------------
# An outage: no attempt is used up, the server is not run down, and then all go on
# ----------------------------------------------------------------

$s2->stop('fast');
my $begin = time;
$dtx->sql(q{SELECT count(dtx.start_saga('two', jsonb_build_object('id', 100 + i))) FROM generate_series(1, 30) AS i});
$dtx->poll($coord, q{SELECT DISTINCT waiting_for FROM dtx.sagas WHERE name = 'two'}, 'server "s2"', 'sagas wait, and say for what');
is($books->state($dtx->sql(q{SELECT dtx.start_saga('on_s1', '{"id": 99}')})), 'completed', 'sagas on another server go on');
usleep(100_000) while time < $begin + 4;
my $tries = $dtx->sql('SELECT sum(tries) FROM dtx_internal.saga_outage');
cmp_ok($tries, '<=', 8, "one at a time tries whether it is there again ($tries times)");
is($dtx->sql(q{SELECT max(attempts) FROM dtx.saga_steps WHERE step = 'b' AND state = 'pending'}), 0, 'which is no attempt');
like($dtx->sql(q{SELECT dtx.explain_saga(min(id)) FROM dtx.sagas WHERE name = 'two'}), qr/waiting for server "s2"/, 'dtx.explain_saga() shows it');
$s2->start;
$begin = time;
completed('two', 30, 'when it is there again, all go on');
cmp_ok(time - $begin, '<', 15, '... soon');
is($s2->safe_psql('postgres', q{SELECT count(*) || ' ' || count(DISTINCT saga) FROM saga_log WHERE what = 'b'}), '30 30', '... and took effect once');
is($dtx->sql('SELECT count(*) FROM dtx_internal.saga_outage'), 0, 'nothing of it is left');
is($dtx->sql(q{SELECT string_agg(DISTINCT outcome, ' ' ORDER BY outcome) FROM dtx.saga_history h JOIN dtx.sagas g ON g.id = h.saga WHERE g.name = 'two'}),
	'completed postponed', 'no attempt has failed');

# ----------------------------------------------------------------
# Many update the same rows
# ----------------------------------------------------------------

$dtx->sql('ALTER SYSTEM SET pg_dtx.saga_workers = 6');
$coord->reload;
$dtx->sql(q{SELECT count(dtx.start_saga('hot')) FROM generate_series(1, 60) AS i});
completed('hot', 60, 'sagas that update the same rows');
is($dtx->sql(q{SELECT count(*) FROM dtx.saga_history h JOIN dtx.sagas g ON g.id = h.saga WHERE g.name = 'hot' AND outcome <> 'completed'}),
	0, '... wait for each other there: read committed');

# One who has set another level, has it.
$dtx->sql(q{SELECT dtx.define_saga('level', dtx.step('s', 's1', $$SELECT current_setting('transaction_isolation') AS level$$))});
is($books->state(my $id = $dtx->sql(q{SELECT dtx.start_saga('level')})), 'completed', 'a saga');
is($dtx->sql("SELECT result->>'level' FROM dtx.saga_steps WHERE saga = $id"), 'read committed', '... runs at read committed');
$dtx->sql(q{CREATE ROLE strict LOGIN SUPERUSER; ALTER ROLE strict SET pg_dtx.remote_isolation = 'repeatable read'});
my $me = $dtx->sql('SELECT current_user');
$dtx->sql(qq{CREATE USER MAPPING FOR strict SERVER s1 OPTIONS (user '$me')});
$id = $dtx->sql(qq{SET ROLE strict; SELECT dtx.start_saga('"$me".level')} =~ s/"//gr);
is($books->state($id), 'completed', 'a saga of a role that has asked for more');
is($dtx->sql("SELECT result->>'level' FROM dtx.saga_steps WHERE saga = $id"), 'repeatable read', '... gets it');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.saga_workers');
$coord->reload;

# ----------------------------------------------------------------
# A locked row
# ----------------------------------------------------------------

my $lock = $dtx->session;
$lock->run('BEGIN; UPDATE acct0 SET bal = bal WHERE id = 1');
$dtx->sql(q{SELECT count(dtx.start_saga('row')) FROM generate_series(1, 10)});
$dtx->poll($coord, q{SELECT count(*) > 1 FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.name = 'row' AND s.waiting_for = 'others that lock or change the same'},
	't', 'sagas want a row that is locked');
$begin = time;
is($books->state($dtx->sql(q{SELECT dtx.start_saga('here')})), 'completed', 'others on the coordinator go on') for 1 .. 3;
cmp_ok(time - $begin, '<', 20, '... soon');
$lock->run('COMMIT');
completed('row', 10, 'those go on when it is free');

# ----------------------------------------------------------------
# A transaction that signals, and stays open; one that has locked a saga
# ----------------------------------------------------------------

my @late = split /\n/, $dtx->sql(q{SELECT dtx.start_saga('late', jsonb_build_object('id', 300 + i)) FROM generate_series(1, 2) AS i});
$dtx->poll($s1, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%late%' AND state = 'active' AND pid <> pg_backend_pid()}, 't', 'a step is executed');
$lock->run("BEGIN; SELECT dtx.signal_saga(id, 'go') FROM dtx.sagas WHERE name = 'late'");
$dtx->poll($coord, q{SELECT count(*) FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.name = 'late' AND s.state = 'waiting'}, 2,
	'a transaction that signals, and is open, holds up nobody');
my $other = $dtx->session;
is($other->run("SELECT dtx.signal_saga($late[0], 'go')"), 't', '... nor others that signal');
is($books->state($late[0]), 'completed', '... which count');
$lock->run('COMMIT');
is($books->state($late[1]), 'completed', 'its signal counts when it has committed');

$id = $dtx->sql(q{SELECT dtx.start_saga('late', '{"id": 310}')});
$dtx->poll($s1, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%late%' AND state = 'active' AND pid <> pg_backend_pid()}, 't', 'a step is executed');
$lock->run("BEGIN; SELECT id FROM dtx_internal.saga_record WHERE id = $id FOR UPDATE");
$dtx->poll($s1, q{SELECT count(*) FROM saga_log WHERE saga = 310}, 1, 'it is done, though somebody has locked its saga');
is($books->state($dtx->sql(qq{SELECT dtx.start_saga('on_s1', '{"id": 98}')})), 'completed', '... and its worker is there for others');
is($dtx->sql("SELECT state FROM dtx.saga_steps WHERE saga = $id AND step = 's'"), 'running', 'the saga does not know yet');
$lock->run('COMMIT');
$dtx->poll($coord, "SELECT string_agg(state::text, ' ' ORDER BY position) FROM dtx.saga_steps WHERE saga = $id", 'completed waiting', 'it takes that up');
is($dtx->sql("SELECT string_agg(concat_ws(' ', step, attempt, outcome), ', ' ORDER BY id) FROM dtx.saga_history WHERE saga = $id"), 's 1 completed', '... and does nothing twice');
is($s1->safe_psql('postgres', 'SELECT count(*) FROM saga_log WHERE saga = 310'), 1, '... on the server either');

# One that ends the saga meanwhile counts, and what was done is undone or was not.
for my $how ([ "dtx.force_saga(%d, 'completed', 'test')", 'completed' ], [ "dtx.cancel_saga(%d, 'test')", 'compensated' ])
{
	my ($call, $state) = @$how;
	$id = $dtx->sql(q{SELECT dtx.start_saga('late', '{"id": 320}')});
	$dtx->poll($s1, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%late%' AND state = 'active' AND pid <> pg_backend_pid()}, 't', 'a step is executed');
	$lock->run("BEGIN; SELECT id FROM dtx_internal.saga_record WHERE id = $id FOR UPDATE");
	$dtx->poll($coord, "SELECT noted FROM dtx_internal.saga_step_record WHERE saga = $id AND step = 1", 't', 'it is noted as done');
	$lock->run('SELECT ' . sprintf($call, $id) . '; COMMIT');
	is($books->state($id), $state, "$call counts");
	is($dtx->sql("SELECT state FROM dtx.saga_steps WHERE saga = $id AND step = 's'"), $state, '... and knows that the step was done');
}

# A step that fails has that noted, too.
$dtx->sql(q{SELECT dtx.define_saga('fails', dtx.step('s', 's1', 'SELECT 1 / length(pg_sleep(1)::text)'))});
$id = $dtx->sql(q{SELECT dtx.start_saga('fails')});
$dtx->poll($s1, q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1)%' AND state = 'active' AND pid <> pg_backend_pid()}, 't', 'a step is executed');
$lock->run("BEGIN; SELECT id FROM dtx_internal.saga_record WHERE id = $id FOR UPDATE");
$dtx->poll($coord, "SELECT outcome || ' ' || sqlstate FROM dtx_internal.saga_note WHERE saga = $id", 'failed 22012', 'it fails, and its worker waits for nobody');
$lock->run('COMMIT');
is($books->state($id), 'compensated', '... which is taken up later');
$lock->close;
$other->close;

# ----------------------------------------------------------------
# A hung server
# ----------------------------------------------------------------

$books->state($dtx->sql(q{SELECT dtx.start_saga('both')}));
$dtx->freeze($s2);
$dtx->sql(q{SELECT count(dtx.start_saga(n)) FROM generate_series(1, 10) AS i, unnest('{both,on_s2}'::text[]) AS n});
$dtx->poll($coord, q{SELECT count(*) > 0 FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.name IN ('both', 'on_s2') AND s.state = 'running'}, 't', 'a server hangs');
$begin = time;
is($books->state($dtx->sql(q{SELECT dtx.start_saga('here')})), 'completed', 'sagas here go on');
is($books->state($dtx->sql(q{SELECT dtx.start_saga('on_s1', '{"id": 97}')})), 'completed', '... and those on another server');
cmp_ok(time - $begin, '<', 10, '... soon');
$dtx->thaw($s2);
completed('both', 11, 'those on several servers when it goes on');
completed('on_s2', 10, '... and all others');

# ----------------------------------------------------------------
# A backlog: what has begun is finished first, and a cancel does not wait
# ----------------------------------------------------------------

$dtx->sql(q{SELECT dtx.define_saga('ab', dtx.step('a', 's1', 'SELECT 1', 'SELECT -1'), dtx.step_sleep('s', '1 ms'), dtx.step('b', 's1', 'SELECT 1'));
SELECT count(dtx.start_saga('ab')) FROM generate_series(1, 400)});
$dtx->poll($coord, q{SELECT count(*) > 0 FROM dtx.sagas WHERE name = 'ab' AND state = 'completed'}, 't', 'the first of many is completed');
my ($running, $pending) = split /\|/, $dtx->sql(q{SELECT count(*) FILTER (WHERE state = 'running'), count(*) FILTER (WHERE state = 'pending') FROM dtx.sagas WHERE name = 'ab'});
cmp_ok($running, '<', 20, "only few have begun then ($running, $pending have not)");
$begin = time;
$id = $dtx->sql(q{SELECT dtx.start_saga('ab', priority => 10)});
is($books->state($id), 'completed', 'an urgent one');
cmp_ok($dtx->sql(q{SELECT count(*) FROM dtx.sagas WHERE name = 'ab' AND state = 'pending'}), '>', 50, '... is done before all others that have not begun') or diag time - $begin;
completed('ab', 401, 'all end');

# ----------------------------------------------------------------
# A server that leads elsewhere meanwhile
# ----------------------------------------------------------------

my ($host, $port) = map { $_->host, $_->port } $s1;
$dtx->sql(qq{
CREATE SERVER moving FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER moving OPTIONS (user '$me');
SELECT dtx.define_saga('book', dtx.step('book', 'moving', \$\$INSERT INTO saga_log VALUES (400, 1, 'book')\$\$, \$\$INSERT INTO saga_log VALUES (400, 1, 'undo')\$\$),
	dtx.step_signal('go'), dtx.step('fails', execute => 'SELECT 1 / 0'))});
$id = $dtx->sql(q{SELECT dtx.start_saga('book')});
$dtx->poll($coord, "SELECT state FROM dtx.saga_steps WHERE saga = $id AND step = 'go'", 'waiting', 'something was booked');
is($dtx->sql("SELECT done_systems[1] = (SELECT n FROM dtx.query('s1', 'SELECT system_identifier FROM pg_control_system()') AS t (n bigint)) FROM dtx_internal.saga_step_record WHERE saga = $id AND step = 1"),
	't', '... and it is known where');
$dtx->sql(sprintf("ALTER SERVER moving OPTIONS (SET host '%s', SET port '%s')", $s2->host, $s2->port));
$dtx->sql("SELECT dtx.signal_saga($id, 'go')");
is($books->state($id), 'failed', 'the server leads elsewhere, so it is not undone there');
like($dtx->sql("SELECT reason FROM dtx.sagas WHERE id = $id"), qr/server "moving" leads to another cluster than when the step was done/, '... and an operator is told');
is($s2->safe_psql('postgres', 'SELECT count(*) FROM saga_log WHERE saga = 400'), 0, 'nothing was changed there');
$dtx->sql("ALTER SERVER moving OPTIONS (SET host '$host', SET port '$port')");
$dtx->sql('ALTER SERVER moving RENAME TO moved');
$dtx->sql("SELECT dtx.retry_saga($id)");
is($books->state($id), 'compensated', 'it leads back there, under another name');
is($s1->safe_psql('postgres', q{SELECT string_agg(what, ' ' ORDER BY what) FROM saga_log WHERE saga = 400}), 'book undo', '... where it is undone');

done_testing();
