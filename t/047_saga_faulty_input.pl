# Odd things that people put into sagas, and do to them.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use SagaBooks;
use Test::More;

my $books = SagaBooks->new;
my $dtx = $books->dtx;
my $coord = $dtx->coord;

# Define a saga of these steps, start it, and return its number.
sub start
{
	my ($name, @steps) = @_;
	$dtx->sql("SELECT dtx.define_saga('$name', " . join(', ', @steps) . ')');
	return $dtx->sql("SELECT dtx.start_saga('$name')");
}

sub results
{
	my $id = shift;
	return $dtx->sql("SELECT step || ' ' || coalesce(result::text, '-') FROM dtx.saga_steps WHERE saga = $id ORDER BY position");
}

sub history
{
	my $id = shift;
	return $dtx->sql("SELECT concat_ws(' ', step, attempt, outcome, sqlstate, message) FROM dtx.saga_history WHERE saga = $id ORDER BY id");
}

# ----------------------------------------------------------------
# Texts of several statements: the same here and there
# ----------------------------------------------------------------

my @texts = (
	q{SELECT 1 AS a; SELECT 2 AS b},
	q{SELECT 1 AS a; CREATE TABLE gone (i int); DROP TABLE gone},
	q{SELECT 1 AS a; SELECT 1 AS c WHERE false},
	q{DO $x$ BEGIN PERFORM 1; END $x$; ; SELECT ';' AS ";", $1 = '{}' AS "$1"; -- end},
	q{SELECT NULL; UPDATE acct SET bal = bal WHERE id = 1 RETURNING id},
	q{SELECT ROW(1, 2) IS NULL AS r, NULL::int AS n},
	q{SELECT id AS one, bal AS two FROM acct WHERE id = 1},
	q{SELECT g FROM generate_series(7, 9) AS g});
my $n = 0;
my $id = start('texts',
	map { $n++; ("dtx.step('here $n', execute => \$e\$$_\$e\$, min_rows => 0)",
			"dtx.step('there $n', 's1', \$e\$$_\$e\$, min_rows => 0)") }
	  map { s/\bacct\b/probe_acct/r } @texts);
is($books->state($id), 'compensated', 'a table that does not exist');
$dtx->sql("CREATE TABLE probe_acct (id int, bal int); INSERT INTO probe_acct VALUES (1, 1)");
$dtx->p(1)->safe_psql('postgres', 'CREATE VIEW probe_acct AS SELECT * FROM acct');
$id = $dtx->sql(q{SELECT dtx.start_saga('texts')});
is($books->state($id), 'completed', 'texts of several statements');
is( results($id), q(here 1 {"b": 2}
there 1 {"b": 2}
here 2 -
there 2 -
here 3 -
there 3 -
here 4 {";": ";", "$1": true}
there 4 {";": ";", "$1": true}
here 5 {"id": 1}
there 5 {"id": 1}
here 6 {"n": null, "r": false}
there 6 {"n": null, "r": false}
here 7 {"one": 1, "two": 1}
there 7 {"one": 1, "two": 100}
here 8 {"g": 7}
there 8 {"g": 7}), 'the result is the first row of the last statement');

$id = start('min_rows', q{dtx.step('a', execute => 'SELECT 1; SELECT 1 WHERE false', min_rows => 1)});
is($books->state($id), 'compensated', 'min_rows is about the last statement');
for my $server ('NULL', q{'s1'})
{
	$id = start('empty', qq{dtx.step('a', $server, '-- nothing')});
	is($books->state($id), 'compensated', "nothing but a comment on $server");
	like(history($id), qr/42601 .*empty/, '... says so');
}

# Nothing of a result is lost, and its values do not depend on the settings of the role.
$dtx->sql(q{ALTER ROLE CURRENT_USER SET bytea_output = 'escape'; ALTER ROLE CURRENT_USER SET IntervalStyle = 'iso_8601';
ALTER ROLE CURRENT_USER SET TimeZone = 'Asia/Kathmandu'});
$dtx->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'});
for my $server ('NULL', q{'s1'})
{
	$id = start('columns', qq{dtx.step('a', $server, \$e\$SELECT 1 AS id, 2 AS id, 3 AS id_2, 4 AS id, '\\x00ff'::bytea AS b,
		'1 day 02:00'::interval AS i, '2026-01-02 03:04+00'::timestamptz AS t\$e\$)});
	is($books->state($id), 'completed', "columns of the same name on $server");
	is($dtx->sql("SELECT result::text FROM dtx.saga_steps WHERE saga = $id"),
		'{"b": "\\\\x00ff", "i": "1 day 02:00:00", "t": "2026-01-02T03:04:00+00:00", "id": 1, "id_2": 2, "id_3": 4, "id_2_2": 3}', '... are all there');
}
$dtx->sql('ALTER ROLE CURRENT_USER RESET ALL');

# ----------------------------------------------------------------
# What a step leaves in the session of a server is not for the next one
# ----------------------------------------------------------------

$id = start('leaves',
	q{dtx.step('a', 's1', $$
		SET default_transaction_read_only = on; SET statement_timeout = '1 h'; SET search_path = nowhere;
		SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET client_min_messages = 'error';
		SELECT set_config('my.own', 'x', false), pg_advisory_lock(4711)$$)},
	q{dtx.step('b', 's1', $$
		SELECT current_setting('default_transaction_read_only') || current_setting('transaction_read_only') AS read_only,
			current_setting('statement_timeout') AS timeout,
			current_setting('search_path') <> 'nowhere' AND current_setting('TimeZone') <> 'Asia/Kathmandu' AS path_and_zone,
			current_setting('client_min_messages') AS messages, current_setting('my.own', true) AS own,
			date '2001-02-03' AS date, (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks$$)},
	q{dtx.step('c', 's1', 'UPDATE acct SET bal = bal RETURNING id')});
is($books->state($id), 'completed', 'a step that leaves things behind on a server');
like($dtx->sql("SELECT result - 'own' FROM dtx.saga_steps WHERE saga = $id AND step = 'b'"),
	qr/^{"date": "2001-02-03", "locks": 0, "timeout": "0", "messages": "notice", "read_only": "offoff", "path_and_zone": true}$/,
	'... which the next one does not see');
is($dtx->sql("SELECT coalesce(result->>'own', '') FROM dtx.saga_steps WHERE saga = $id AND step = 'b'"), '',
	'... nor a setting that nobody knows');

# ----------------------------------------------------------------
# Steps that call functions of sagas
# ----------------------------------------------------------------

my @waiting = map { start('waits for itself',
		q{dtx.step('a', execute => $$SELECT dtx.wait_saga(max(id)) FROM dtx.sagas$$)}) } 1 .. 5;
is($books->state($_), 'compensated', 'a step that waits for its own saga') for @waiting;
like(history($waiting[0]), qr/^a 1 failed 55000 cannot wait for a saga in a step of a saga$/, '... is refused');

$id = start('ends itself', q{dtx.step('a', execute => $$SELECT dtx.force_saga(max(id), 'completed', 'why') FROM dtx.sagas$$)});
is($books->state($id), 'compensated', 'a step that ends its own saga takes no effect');
like(history($id), qr/^a 1 failed DX001 attempt 1 at step 1 of saga $id is not valid any more$/, '... and the history tells why');

$id = start('knows too much', q{dtx.step('a', execute => $$DO $x$ BEGIN RAISE 'mine' USING ERRCODE = 'DX001'; END $x$ $$)});
is($books->state($id), 'compensated', q{a step that uses an SQLSTATE of ours});
is(history($id), 'a 1 failed DX001 mine', '... is not mistaken for one that was lost');

$id = start('cancels itself',
	q{dtx.step('before', execute => 'SELECT 1', compensate => 'SELECT 1')},
	q{dtx.step('a', execute => $$SELECT dtx.cancel_saga(max(id), 'why') FROM dtx.sagas$$, compensate => 'SELECT 1')},
	q{dtx.step('after', execute => 'SELECT 1')});
is($books->state($id), 'compensated', 'a step that cancels its own saga');
is( $dtx->sql("SELECT string_agg(step || ' ' || state, ', ' ORDER BY position) FROM dtx.saga_steps WHERE saga = $id"),
	'before compensated, a compensated, after skipped', '... is compensated, too');

# ----------------------------------------------------------------
# A saga that nobody can take does not stop the others
# ----------------------------------------------------------------

$dtx->sql(q{
SELECT dtx.define_saga('poison', dtx.step_sleep('a', '1 s'));
UPDATE dtx_internal.saga_definition_step_record SET delay = '300000 years'
WHERE definition = (SELECT id FROM dtx_internal.saga_definition_record WHERE name = 'poison')});
my @poison = map { $dtx->sql(q{SELECT dtx.start_saga('poison')}) } 1 .. 8;
for (1 .. 3)
{
	$id = $books->start('move');
	$books->ended($id, 'completed', 'a saga beside some that nobody can take');
}
$dtx->poll($coord,
	"SELECT count(DISTINCT saga) FROM dtx.saga_history WHERE saga IN (" . join(', ', @poison) . ")
	AND step = 'a' AND outcome = 'failed' AND sqlstate = '22008' AND retry_at > finished_at",
	8, 'these are looked at again later');
is( $dtx->sql("SELECT state, error FROM dtx.saga_steps WHERE saga = $poison[0]"),
	'pending|timestamp out of range', '... and say why');
$dtx->sql(q{
UPDATE dtx_internal.saga_definition_step_record SET delay = '0'
WHERE definition = (SELECT id FROM dtx_internal.saga_definition_record WHERE name = 'poison');
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE due_at > clock_timestamp();
DO 'BEGIN PERFORM dtx_internal.wake_sagas(); END'});
is($books->state($_), 'completed', '... and go on when that has gone') for @poison;

# What the server log says of them, and of a saga that can go neither on nor back, is for
# operators: the internal functions that have led to it are not in it.
my $log_begins = -s $coord->logfile;
$id = start('stuck', q{dtx.step('a', execute => 'SELECT 1', compensate => 'SELECT 1/0', compensate_attempts => 1)},
	q{dtx.step('b', execute => 'SELECT 1/0', max_attempts => 1)});
is($books->state($id), 'failed', 'a saga that can go neither on nor back');
like(slurp_file($coord->logfile, $log_begins),
	qr/WARNING:  saga $id \("stuck"\) has failed: [^\n]*\n[^\n]*HINT:  Remove the cause and call dtx\.retry_saga[^\n]*\n(?![^\n]*CONTEXT)/,
	'... is in the log, without the calls of internal functions');
like(slurp_file($coord->logfile), qr/WARNING:  saga $poison[0] cannot go on: timestamp out of range\n[^\n]*DETAIL:[^\n]*\n[^\n]*HINT:[^\n]*\n(?![^\n]*CONTEXT)/,
	'... and so is one that nobody could take');
$dtx->sql("SELECT dtx.force_saga($id, 'compensated', 'test')");

# ----------------------------------------------------------------
# Roles whose steps could never run
# ----------------------------------------------------------------

$dtx->sql(q{
REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;
CREATE ROLE stranger LOGIN;
GRANT EXECUTE ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) TO stranger;
SELECT dtx.grant_saga_definition('move', 'stranger')});
my ($ret, undef, $stderr) = $coord->psql('postgres', q{SET ROLE stranger; SELECT dtx.start_saga('move')});
like($stderr, qr/role "stranger" is not permitted to connect to database "postgres"/, 'a role that may not connect');
like($stderr, qr/HINT:  GRANT CONNECT ON DATABASE postgres TO stranger, or/, '... and what to do');
$dtx->sql('GRANT CONNECT ON DATABASE postgres TO PUBLIC');

# ----------------------------------------------------------------
# What is seen of all that
# ----------------------------------------------------------------

$id = start('in progress', q{dtx.step_signal('s')});
$dtx->poll($coord, "SELECT state FROM dtx.saga_steps WHERE saga = $id", 'waiting', 'a saga that waits');
like($dtx->sql("SELECT dtx.explain_saga($id)"), qr/^saga $id "in progress", version 1: running$/m, 'has taken no time yet');
$dtx->sql("SELECT dtx.cancel_saga($id, 'enough')");

$id = start('long-winded', q{dtx.step('a', execute => $$DO $x$ BEGIN RAISE '%', repeat('x', 1000000); END $x$ $$)});
is($books->state($id), 'compensated', 'an error message of a million characters');
cmp_ok($dtx->sql("SELECT max(length(l)) FROM dtx.explain_saga($id) AS l"), '<', 10000, '... is cut off');
cmp_ok($dtx->sql("SELECT length(payload::text) FROM dtx_internal.saga_outbox WHERE saga = $id"), '<', 10000, '... in the event, too');

# ----------------------------------------------------------------
# Errors that come again and again: a process that pauses for that is not deaf
# ----------------------------------------------------------------

# Waits until a process has said so seven times: then it pauses for 12.8 seconds.
sub long_pause
{
	my ($offset, $pattern, $name) = @_;
	my $errors = 0;
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$errors = () = slurp_file($coord->logfile, $offset) =~ /$pattern/g;
		last if $errors >= 7;
		select undef, undef, undef, 0.1;
	}
	return cmp_ok($errors, '>=', 7, "$name: seven errors");
}

$dtx->sql('ALTER SYSTEM SET pg_dtx.saga_workers = 1');
$coord->reload;
$id = start('copies', q{dtx.step('a', execute => 'COPY probe TO STDOUT', max_attempts => 1)});
is($books->state($id), 'compensated', 'COPY to a client that is not there');
like(history($id), qr/^a 1 failed 0A000 cannot use COPY from or to the client in a step of a saga$/, '... is refused');

# What has become of a step cannot be noted: that is tried again.
$books->dismiss_workers('another worker');
my $offset = -s $coord->logfile;
$dtx->sql('ALTER FUNCTION dtx_internal.saga_error RENAME TO away');
$id = start('hard to note', q{dtx.step('a', execute => 'SELECT 1/0', max_attempts => 1)});
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
select undef, undef, undef, 0.1
  until slurp_file($coord->logfile, $offset) =~ /ERROR: .*has no function "saga_error"/ || time > $deadline;
$dtx->sql('ALTER FUNCTION dtx_internal.away RENAME TO saga_error');
is($books->state($id), 'compensated', 'a step whose end could not be noted at first');
is(history($id), 'a 1 failed 22012 division by zero', '... was executed once');

for my $case ([ worker => 'saga_take', '(oid, bigint, boolean)', qr/ERROR: .*has no function "saga_take"/ ],
	[ scheduler => 'saga_schedule', '()', qr/ERROR: .*function dtx_internal\.saga_schedule\(\) does not exist/ ])
{
	my ($name, $function, $arguments, $pattern) = @$case;

	# (a new one: what knows the function calls it by its number)
	$books->dismiss_workers("$name: nobody there");
	my $log = -s $coord->logfile;
	$dtx->sql("ALTER FUNCTION dtx_internal.$function$arguments RENAME TO away");
	$dtx->sql('CREATE DATABASE other');
	$id = $books->start('move');
	long_pause($log, $pattern, $name);
	my $begin = time;
	$dtx->sql('DROP DATABASE other');
	cmp_ok(time - $begin, '<', 8, "$name: meanwhile a database can be dropped");
	$begin = time;
	$coord->stop('fast');
	cmp_ok(time - $begin, '<', 8, "$name: and the server stopped");
	$coord->start;
	$dtx->sql("ALTER FUNCTION dtx_internal.away$arguments RENAME TO $function");
	$books->ended($id, 'completed', "$name: then it goes on");
}

done_testing();
