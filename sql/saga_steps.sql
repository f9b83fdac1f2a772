--
-- The way of sagas from step to step, forth and back.  There are no workers; the
-- test takes steps and reports, see saga_define.sql.
--
\set SHOW_CONTEXT never
CALL begin_test();
-- all goes well
SELECT dtx.start_saga('chain', '{"n": 1}') AS id \gset
SELECT state, input FROM dtx.sagas WHERE id = :id;
SELECT * FROM steps(:id);
SELECT step, direction, attempt, servers, commands, min_rows, input, results, timeout FROM take();
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT * FROM take();
SELECT done(:id, 'a', '{"bal": 99}');
SELECT step, direction, attempt, servers, commands, min_rows, input, results, timeout FROM take();
SELECT * FROM steps(:id);
SELECT done(:id, 'b');
SELECT step, direction, servers, results FROM take();
SELECT done(:id, 'c', '{"x": [1, null]}');
SELECT step, direction, servers, results FROM take();
SELECT done(:id, 'd');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT started_at <= finished_at AS times, reason, hint FROM dtx.sagas WHERE id = :id;
SELECT name, event, payload FROM dtx_internal.saga_outbox WHERE saga = :id;

-- errors that may go away are retried, with a pause that grows, up to the limit
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a', '{"bal": 1}');
SELECT step, attempt FROM take();
SELECT error(:id, 'b', '57014', 'connection lost');
SELECT * FROM steps(:id);
SELECT due_at - since BETWEEN '7 s' AND '13 s' AS pause FROM dtx.saga_steps WHERE saga = :id AND step = 'b';
SELECT step FROM take();
SELECT later(:id);
SELECT step, attempt FROM take();
SELECT error(:id, 'b', '57014', 'could not serialize');
SELECT due_at - since BETWEEN '14 s' AND '26 s' AS pause FROM dtx.saga_steps WHERE saga = :id AND step = 'b';
SELECT later(:id);
SELECT step, attempt FROM take();
-- the third attempt was the last one: back
SELECT error(:id, 'b', '57014', 'starting up');
SELECT * FROM steps(:id);
SELECT reason FROM dtx.sagas WHERE id = :id;
SELECT step, direction, attempt, servers, commands, min_rows, results FROM take();
SELECT * FROM steps(:id);
SELECT done(:id, 'a');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT name, event, payload FROM dtx_internal.saga_outbox WHERE saga = :id;

-- which errors may go away
SELECT code, dtx_internal.saga_retryable(code) FROM unnest('{08000,08006,40001,40P01,53300,57P01,57P03,55P03,57014,25P03,25P04,
	23505,P0002,P0001,42P01,22012,57000,55000,25006,XX000,NULL}'::text[]) AS code;
-- all others turn the saga back at once
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT error(:id, 'a', 'P0002', 'too few rows');
SELECT * FROM steps(:id);
SELECT step FROM take();

-- a pivot that fails can be undone, because it was not done
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
SELECT error(:id, 'c', '23505', 'duplicate key');
-- compensations run in reverse order, and are retried whatever the error
SELECT step, direction, commands FROM take();
SELECT step FROM take();
SELECT error(:id, 'b', 'XX000', 'division by zero');
SELECT * FROM steps(:id);
SELECT later(:id);
SELECT step, direction, attempt FROM take();
-- two attempts were all: only an operator can decide
SELECT error(:id, 'b', 'XX000', 'division by zero');
SELECT * FROM steps(:id);
SELECT state, reason, replace(hint, :id::text, '(id)') AS hint FROM dtx.sagas WHERE id = :id;
SELECT name, event, payload FROM dtx_internal.saga_outbox WHERE saga = :id;
SELECT step FROM take();
-- he tries again
SELECT dtx.retry_saga(:id);
SELECT * FROM steps(:id);
SELECT step, direction, attempt FROM take();
SELECT done(:id, 'b');
SELECT step, direction, attempt FROM take();
SELECT done(:id, 'a');
SELECT state, reason, hint FROM dtx.sagas WHERE id = :id;
SELECT * FROM history(:id);

-- after the pivot there is no way back: retried whatever the error, then failed
SELECT dtx.start_saga('chain', key => 'no return') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
SELECT done(:id, 'c', '{"done": true}');
SELECT step, attempt FROM take();
SELECT error(:id, 'd', 'XX000', 'no such table');
SELECT * FROM steps(:id);
SELECT later(:id);
SELECT step, attempt FROM take();
SELECT error(:id, 'd', 'XX000', 'no such table');
SELECT * FROM steps(:id);
SELECT state, reason, replace(hint, :id::text, '(id)') AS hint FROM dtx.sagas WHERE id = :id;
SELECT name, event, payload FROM dtx_internal.saga_outbox WHERE saga = :id;
SELECT dtx.cancel_saga(:id, 'no more');
-- again, with new attempts
SELECT dtx.retry_saga(:id);
SELECT state, reason, hint FROM dtx.sagas WHERE id = :id;
SELECT step, attempt FROM take();
SELECT error(:id, 'd', 'XX000', 'no such table');
-- at once what waits for its next attempt
SELECT dtx.retry_saga(:id);
SELECT step, attempt FROM take();
SELECT dtx.retry_saga(:id);
SELECT dtx.skip_step(:id, 'd', 'it runs');
SELECT error(:id, 'd', 'XX000', 'no such table');
-- the operator has done it by hand
SELECT dtx.skip_step(:id, 'c', 'mistake');
SELECT dtx.skip_step(:id, 'd', 'ticket 4711', '{"by": "hand"}');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT name, event, payload FROM dtx_internal.saga_outbox WHERE saga = :id ORDER BY id;

-- cancel while a step runs: it may finish, and is undone then
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'changed my mind');
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'really');
SELECT done(:id, 'b');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'b');
SELECT step, direction FROM take();
SELECT done(:id, 'a');
SELECT dtx.cancel_saga(:id, 'once more');
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM history(:id);
-- or it fails, and is not tried again
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'changed my mind');
SELECT error(:id, 'b', '57014');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'a');
-- between two attempts there is nothing to wait for, of a pivot neither
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT error(:id, 'a', '57014');
SELECT dtx.cancel_saga(:id, 'enough');
SELECT * FROM steps(:id);
SELECT dtx.start_saga('anywhere') AS id \gset
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'a pivot runs');
SELECT error(:id, 'a', '57014');
SELECT dtx.cancel_saga(:id, 'it does not');
-- before anything was done
SELECT dtx.start_saga('chain') AS id \gset
SELECT dtx.cancel_saga(:id, 'at once');
SELECT * FROM steps(:id);
SELECT step FROM take();

-- several at a time; those of two servers
\c
\set SHOW_CONTEXT never
SELECT dtx.define_saga('diamond',
	dtx.step('top', NULL, 'SELECT 1', 'SELECT -1'),
	dtx.step('left', 'one', 'SELECT 1', 'SELECT -1', after => '{top}'),
	dtx.step('right', 'two', 'SELECT 1', 'SELECT -1', after => '{top}'),
	dtx.step('nothing', NULL, 'SELECT 1', after => '{right}'),
	dtx.step('bottom', NULL, 'SELECT 1', 'SELECT -1', after => '{left,nothing}'),
	dtx.step('point', NULL, 'SELECT 1', kind => 'pivot'),
	dtx.step('x', NULL, 'SELECT 1', kind => 'retriable', max_attempts => 1, after => '{point}'),
	dtx.step('y', NULL, 'SELECT 1', kind => 'retriable', max_attempts => 1, after => '{point}'),
	dtx.step('z', NULL, 'SELECT 1', kind => 'retriable', after => '{x,y}'));
SELECT dtx.start_saga('diamond') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'top');
SELECT step FROM (SELECT step FROM take() UNION ALL SELECT step FROM take()) AS t ORDER BY 1;
SELECT step FROM take();
-- two finish at the same moment
SELECT done(:id, 'left'), done(:id, 'right');
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT done(:id, 'nothing');
SELECT step FROM take();
SELECT error(:id, 'bottom', '22000');
-- back: left need not wait for right; what has nothing to undo does not hold up
SELECT * FROM steps(:id);
SELECT step, direction FROM (SELECT * FROM take() UNION ALL SELECT * FROM take()) AS t ORDER BY 1;
SELECT done(:id, 'right');
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT done(:id, 'left');
SELECT step, direction FROM take();
SELECT done(:id, 'top');
-- one fails while another one runs, and a third waits
SELECT dtx.start_saga('diamond') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'top');
SELECT step FROM (SELECT step FROM take() UNION ALL SELECT step FROM take()) AS t ORDER BY 1;
SELECT done(:id, 'right');
SELECT error(:id, 'left', '22000');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'right');
SELECT step, direction FROM take();
SELECT done(:id, 'top');
-- the same, and the other one is not done before the first has failed
SELECT dtx.start_saga('diamond') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'top');
SELECT step FROM (SELECT step FROM take() UNION ALL SELECT step FROM take()) AS t ORDER BY 1;
SELECT error(:id, 'left', '22000');
SELECT step FROM take();
SELECT done(:id, 'right');
SELECT step, direction FROM take();
SELECT done(:id, 'right');
SELECT step, direction FROM take();
SELECT done(:id, 'top');
-- after the pivot: one branch has failed, the other goes on
SELECT dtx.start_saga('diamond') AS id \gset
DO $$
DECLARE
	t record;
BEGIN
	LOOP
		SELECT * INTO t FROM take();
		EXIT WHEN NOT FOUND OR t.step IN ('x', 'y');
		PERFORM done(t.saga, t.step);
	END LOOP;
END
$$;
SELECT count(*) FROM take();
SELECT error(:id, 'x', '22000', 'x has an error');
SELECT error(:id, 'y', '22000', 'y has an error');
SELECT * FROM steps(:id) WHERE step IN ('x', 'y', 'z');
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT count(*) FROM dtx_internal.saga_outbox WHERE saga = :id;
SELECT dtx.skip_step(:id, 'y', 'not needed');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT done(:id, 'x');
SELECT step FROM take();
SELECT done(:id, 'z');

-- nothing is done before all servers have confirmed what was done before, neither
-- the first step, nor the next one, nor a compensation; so says a decision
CREATE PROCEDURE decide(id bigint, step int) LANGUAGE sql AS $$
	CALL change_decisions(format('
	INSERT INTO dtx_internal.decision (boot_id, xid, userid, decided_at, serverids, umids, system_ids, remote_xids)
	SELECT x.boot_id, x.xid, 10, now(), ''{1}'', ''{1}'', ''{0}'', ''{}''
	FROM (SELECT g.boot_id, g.xid FROM dtx_internal.saga_record g WHERE g.id = %1$s AND %2$s = 0
		UNION ALL SELECT s.boot_id, s.xid FROM dtx_internal.saga_step_record s WHERE s.saga = %1$s AND s.step = %2$s) AS x',
	id, step))
$$;
SELECT dtx.start_saga('chain') AS id \gset
BEGIN;
CALL decide(:id, 0);
SELECT * FROM take();
SELECT * FROM steps(:id);
ROLLBACK;
SELECT step FROM take();
SELECT done(:id, 'a');
BEGIN;
CALL decide(:id, 1);
SELECT * FROM take();
SELECT * FROM steps(:id);
SELECT dtx.skip_step(:id, 'b', 'too early');
ROLLBACK;
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT dtx.cancel_saga(:id, 'test');
BEGIN;
CALL decide(:id, 2);
SELECT * FROM take();
ROLLBACK;
SELECT step, direction FROM take();
SELECT done(:id, 'b');
BEGIN;
CALL decide(:id, 2);
SELECT * FROM take();
ROLLBACK;
SELECT step, direction FROM take();
SELECT done(:id, 'a');

-- a worker that has gone: its attempt counts
SELECT dtx.start_saga('chain') AS id \gset
SELECT step, attempt FROM take();
SELECT * FROM take();
\c
\set SHOW_CONTEXT never
SELECT format('SELECT NOT dtx_internal.saga_claimed(%s, 1::smallint)', :id) AS gone \gset
CALL wait_until(:'gone');
BEGIN;
SELECT * FROM take();
SELECT * FROM history(:id);
SELECT * FROM steps(:id);
SELECT later(:id);
COMMIT;
SELECT step, attempt FROM take();
-- reports that come too late, or twice
SELECT dtx_internal.saga_done(:id, 1::smallint, 1, 'execute', NULL);
SELECT dtx_internal.saga_done(:id, 1::smallint, 2, 'compensate', NULL);
SELECT dtx_internal.saga_done(:id, 2::smallint, 1, 'execute', NULL);
SELECT dtx_internal.saga_done(0, 1::smallint, 1, 'execute', NULL);
\set VERBOSITY sqlstate
SELECT dtx_internal.saga_done(:id, 1::smallint, 1, 'execute', NULL);
\set VERBOSITY default
SELECT dtx_internal.saga_error(:id, 1::smallint, 1, 'execute', '22000', 'late', NULL, NULL, now());
SELECT dtx_internal.saga_error(:id, 1::smallint, 2, 'compensate', '22000', 'late', NULL, NULL, now());
SELECT dtx_internal.saga_error(0, 1::smallint, 2, 'execute', '22000', 'late', NULL, NULL, now());
SELECT * FROM steps(:id);
SELECT done(:id, 'a');
SELECT dtx_internal.saga_done(:id, 1::smallint, 2, 'execute', NULL);
-- a worker gives a step back
SELECT step, attempt FROM take();
BEGIN;
SELECT dtx_internal.saga_untake(:id, 2::smallint, 1, 'execute');
SELECT dtx_internal.saga_untake(:id, 2::smallint, 1, 'execute');
SELECT * FROM steps(:id);
SELECT later(:id);
COMMIT;
SELECT step, attempt FROM take();
-- the next step of a saga can be taken in the transaction that has done the last one
BEGIN;
SELECT done(:id, 'b');
SELECT saga = :id AS same, step, attempt, direction FROM dtx_internal.saga_take(current_user::regrole, :id);
COMMIT;
SELECT * FROM steps(:id);
-- an operator ends it; the worker finds out
SELECT dtx.force_saga(:id, 'completed', 'ticket 4712');
SELECT dtx_internal.saga_done(:id, 3::smallint, 1, 'execute', NULL);
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT state, reason FROM dtx.sagas WHERE id = :id;

-- force: back, even after the point of no return
SELECT dtx.start_saga('chain') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
SELECT done(:id, 'c');
SELECT dtx.force_saga(:id, 'compensating', 'ticket 4713');
SELECT dtx.force_saga(:id, 'compensating', 'ticket 4713');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT error(:id, 'b', '22000');
-- skip a compensation
SELECT dtx.skip_step(:id, 'c', 'it is no compensation');
SELECT dtx.skip_step(:id, 'b', 'is undone by hand', '1');
SELECT dtx.skip_step(:id, 'b', 'is undone by hand');
SELECT * FROM steps(:id);
SELECT dtx.force_saga(:id, 'compensated', 'all is undone by hand');
SELECT * FROM steps(:id);

-- a group of statements: compensations in reverse order, as far as there are any
SELECT dtx.define_saga('group', dtx.step('all', statements => ARRAY[
		dtx.statement(NULL, 'SELECT 1', 'SELECT -1', 1), dtx.statement('one', 'SELECT 2'), dtx.statement('two', 'SELECT 3', 'SELECT -3', 0)]),
	dtx.step_sleep('wait', '1 hour'));
SELECT dtx.start_saga('group') AS id \gset
SELECT step, servers, commands, min_rows FROM take();
SELECT done(:id, 'all');
SELECT dtx.cancel_saga(:id, 'test');
SELECT step, servers, commands, min_rows FROM take();
SELECT f.srvname FROM dtx_internal.saga_step_record s JOIN pg_foreign_server f ON f.oid = s.lane WHERE s.saga = :id;
SELECT done(:id, 'all');
-- what is retried soon becomes no time at all, and the pause has an end
SELECT dtx.define_saga('pauses', dtx.step('a', NULL, 'SELECT 1', backoff => '10 ms', max_attempts => 2),
	dtx.step('b', NULL, 'SELECT 1', backoff => '1 min', max_attempts => 1000), dtx.step('c', NULL, 'SELECT 1', backoff => '1 day', max_attempts => 1000));
SELECT dtx.start_saga('pauses') AS id \gset
SELECT step FROM take();
SELECT error(:id, 'a', '57014');
SELECT later(:id) <= 1 AS soon;
SELECT step, attempt FROM take();
SELECT done(:id, 'a');
SELECT step, attempt FROM take();
-- not even a definition of an earlier time makes it none
UPDATE dtx_internal.saga_definition_step_record SET backoff = '0' WHERE step = 2
	AND definition = (SELECT id FROM dtx_internal.saga_definition_record WHERE name = 'pauses');
SELECT error(:id, 'b', '57014');
SELECT due_at - since > '7 ms' AS pause FROM dtx.saga_steps WHERE saga = :id AND step = 'b';
UPDATE dtx_internal.saga_definition_step_record SET backoff = '1 min' WHERE step = 2
	AND definition = (SELECT id FROM dtx_internal.saga_definition_record WHERE name = 'pauses');
SELECT later(:id) <= 1 AS soon;
SELECT step, attempt FROM take();
UPDATE dtx_internal.saga_step_record SET attempt = 900 WHERE saga = :id AND step = 2;
SELECT error(:id, 'b', '57014');
SELECT due_at - since BETWEEN '7 min' AND '13 min' AS pause FROM dtx.saga_steps WHERE saga = :id AND step = 'b';
SELECT later(:id);
SELECT step, attempt FROM take();
SELECT done(:id, 'b');
SELECT step, attempt FROM take();
UPDATE dtx_internal.saga_step_record SET attempt = 900 WHERE saga = :id AND step = 3;
SELECT error(:id, 'c', '57014');
SELECT due_at - since BETWEEN '17 hours' AND '31 hours' AS pause FROM dtx.saga_steps WHERE saga = :id AND step = 'c';
SELECT dtx.cancel_saga(:id, 'test');

-- errors of the functions for operators
SELECT dtx.cancel_saga(0, 'x');
SELECT dtx.cancel_saga(NULL, 'x');
SELECT dtx.cancel_saga(:id, NULL);
SELECT dtx.cancel_saga(:id, ' ');
SELECT g.id AS completed FROM dtx.sagas g WHERE g.state = 'completed' ORDER BY g.id LIMIT 1 \gset
\set VERBOSITY terse
SELECT dtx.cancel_saga(:completed, 'x');
SELECT dtx.retry_saga(:completed);
SELECT dtx.skip_step(:completed, 'a', 'x');
SELECT dtx.force_saga(:completed, 'compensating', 'x');
SELECT dtx.retry_saga(0);
SELECT dtx.retry_saga(NULL);
SELECT dtx.skip_step(0, 'a', 'x');
SELECT dtx.skip_step(:completed, 'e', 'x');
SELECT dtx.skip_step(:completed, NULL, 'x');
SELECT dtx.skip_step(:completed, 'a', '');
SELECT dtx.force_saga(0, 'completed', 'x');
SELECT dtx.force_saga(:completed, 'completed', NULL);
SELECT dtx.force_saga(:completed, 'failed', 'x');
SELECT dtx.force_saga(:completed, 'running', 'x');
SELECT dtx.force_saga(:completed, NULL, 'x');
SELECT dtx.force_saga(:completed, 'nonsense', 'x');
SELECT dtx.explain_saga(0);
SELECT dtx.explain_saga(NULL::bigint);
\set VERBOSITY default
SELECT dtx.start_saga('chain') AS id \gset
SELECT dtx.retry_saga(:id);
SELECT dtx.skip_step(:id, 'b', 'not yet');
SELECT dtx.skip_step(:id, 'a', 'not at all');
SELECT dtx.force_saga(:id, 'completed', 'test');
-- a change of state that is not foreseen (see setup.sql)
SELECT t.of, t.by AS no_function FROM dtx_internal.saga_transitions() t WHERE to_regproc('dtx_internal.' || t.by) IS NULL;
SELECT t.* FROM dtx_internal.saga_transitions() t GROUP BY 1, 2, 3, 4 HAVING count(*) > 1;
UPDATE dtx_internal.saga_record SET state = 'running' WHERE id = :id;
UPDATE dtx_internal.saga_step_record SET state = 'completed' WHERE saga = :id AND step = 1;
DO $$BEGIN INSERT INTO dtx_internal.saga_record SELECT 0, home, definition, role, boot_id, xid, 'running', false, 0, now() FROM dtx_internal.saga_record LIMIT 1; END$$;
