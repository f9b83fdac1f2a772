--
-- Starting sagas; time: sleeps, deadlines, what is due when; signals.  There are
-- no workers, see saga_define.sql.
--
\set SHOW_CONTEXT never
-- nothing is left of the tests before
CREATE PROCEDURE end_all() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx.force_saga(id, 'compensated', 'test') FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated');
END
$$;
CALL end_all();
SELECT dtx_internal.saga_any();
SELECT * FROM dtx_internal.saga_schedule();
SELECT * FROM take();

-- a saga starts if and only if its transaction commits
BEGIN;
SELECT dtx.start_saga('chain') AS id \gset
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx.wait_saga(:id, '1 min');
ROLLBACK;
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx_internal.saga_any();
BEGIN;
SELECT dtx.start_saga('chain', key => 'one') AS id \gset
SELECT dtx.start_saga('chain', key => 'one') = :id AS same;
COMMIT;
SELECT name, key, state, input, run_at, deadline FROM dtx.sagas WHERE id = :id;
-- the same key is the same saga; what a key means depends on name and role
SELECT dtx.start_saga('chain', (SELECT input FROM dtx.sagas WHERE id = :id), 'one') = :id AS same;
SELECT dtx.start_saga('chain', key => 'two') = :id AS same;
SELECT dtx.start_saga('diamond', key => 'one') = :id AS same;
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.start_saga('chain', key => 'one') = :id AS same;
SELECT count(*) FROM dtx.sagas WHERE key = 'one';
-- a start that was rolled back has left no key
BEGIN;
SELECT dtx.start_saga('chain', key => 'three') AS id3 \gset
ROLLBACK;
SELECT dtx.start_saga('chain', key => 'three') > :id3 AS another;
-- no key, no input
SELECT dtx.start_saga('chain', NULL) AS id \gset
SELECT input FROM dtx.sagas WHERE id = :id;
SELECT dtx.start_saga('chain', '[1, "x"]') AS id \gset
SELECT input FROM dtx.sagas WHERE id = :id;
-- a running saga keeps its version
SELECT dtx.define_saga('v', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1'));
SELECT dtx.start_saga('v') AS id \gset
SELECT dtx.define_saga('v', dtx.step('c', NULL, 'SELECT 1'));
SELECT version FROM dtx.sagas WHERE id = :id;
SELECT dtx.start_saga('v') AS new \gset
SELECT new.version - old.version AS versions FROM dtx.sagas old, dtx.sagas new WHERE old.id = :id AND new.id = :new;
SELECT * FROM steps(:id);
SELECT * FROM steps(:new);
-- errors
SELECT dtx.start_saga('no such saga');
SELECT dtx.start_saga(NULL);
SELECT dtx.start_saga('chain', key => repeat('k', 1001));
SELECT dtx.start_saga('chain', deadline => '2020-01-01 00:00Z');
SELECT dtx.start_saga('chain', run_at => '2100-01-01 00:00Z', deadline => '2099-12-31 23:59:59Z');
SELECT dtx.start_saga('chain', run_at => 'infinity');
SELECT dtx.start_saga('chain', deadline => 'infinity');
SELECT dtx_internal.start_saga('chain', '{}', NULL, NULL, NULL, NULL, NULL, 'return', 'role', NULL, NULL);
CREATE ROLE regress_dtx_nologin;
GRANT EXECUTE ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) TO regress_dtx_nologin;
SELECT dtx.grant_saga_definition('chain', 'regress_dtx_nologin');
SET ROLE regress_dtx_nologin;
SELECT dtx.start_saga('chain');
RESET ROLE;
SELECT dtx.revoke_saga_definition('chain', 'regress_dtx_nologin');
DROP OWNED BY regress_dtx_nologin;
DROP ROLE regress_dtx_nologin;
-- waiting
SELECT dtx.wait_saga(0);
SELECT dtx.wait_saga(NULL);
SELECT dtx.wait_saga(:id, '1 ms');
SELECT dtx.wait_saga(g.id) FROM dtx.sagas g WHERE g.state = 'compensated' ORDER BY g.id LIMIT 1;
BEGIN;
SELECT dtx.signal_saga(:id, 'a');
ROLLBACK;
BEGIN;
SELECT dtx.retry_saga(:id);
ROLLBACK;
BEGIN;
SELECT dtx.skip_step(:id, 'a', 'test');
SELECT dtx.wait_saga(:id, '1 min');
ROLLBACK;

-- what is due, by role
CALL end_all();
SELECT * FROM dtx_internal.saga_schedule();
SELECT dtx.start_saga('chain', run_at => '2100-01-01 00:00Z', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT state, run_at = '2100-01-01 00:00Z' AS run_at, deadline = '2100-01-02 00:00Z' AS deadline FROM dtx.sagas WHERE id = :id;
SELECT * FROM steps(:id);
SELECT role::regrole = current_user::regrole AS me, due, next_due = '2100-01-01 00:00Z' AS next_due FROM dtx_internal.saga_schedule();
SELECT * FROM take();
SELECT dtx_internal.saga_any();
SELECT dtx.start_saga('chain', run_at => now() - interval '1 day') AS past \gset
SELECT role::regrole = current_user::regrole AS me, due, next_due = '2100-01-01 00:00Z' AS next_due FROM dtx_internal.saga_schedule();
SELECT saga = :past AS past, step FROM take();
-- what is being executed is not due
SELECT role::regrole = current_user::regrole AS me, due, next_due = '2100-01-01 00:00Z' AS next_due FROM dtx_internal.saga_schedule();
SELECT done(:past, 'a');
SELECT dtx.cancel_saga(:past, 'test');
SELECT step FROM take();
SELECT done(:past, 'a');
-- a deadline passes before anything is done
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 0;
SELECT step FROM take();
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM history(:id);
SELECT dtx_internal.saga_any();
-- while a step runs, which is undone then
SELECT dtx.start_saga('chain', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 0;
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step, direction FROM take();
SELECT done(:id, 'b');
SELECT step, direction FROM take();
SELECT done(:id, 'a');
SELECT * FROM history(:id);
-- after the point of no return: it goes on
SELECT dtx.start_saga('chain', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 0;
SELECT step FROM take();
SELECT done(:id, 'c');
SELECT step FROM take();
SELECT done(:id, 'd');
SELECT * FROM history(:id);
-- while the point of no return is tried: that decides
SELECT dtx.start_saga('chain', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 0;
SELECT step FROM take();
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx_internal.saga_error(saga, position, attempts, 'execute', '57014', 'gone', NULL, NULL, NULL)
	FROM dtx.saga_steps WHERE saga = :id AND step = 'c';
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT step, direction FROM take();
SELECT done(:id, 'b');
SELECT step, direction FROM take();
SELECT done(:id, 'a');
SELECT * FROM history(:id);
-- it passes while the point of no return is tried, and nobody has looked yet
SELECT dtx.start_saga('chain', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT done(:id, 'b');
SELECT step FROM take();
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 0;
SELECT dtx_internal.saga_error(saga, position, attempts, 'execute', '57014', 'gone', NULL, NULL, NULL)
	FROM dtx.saga_steps WHERE saga = :id AND step = 'c';
SELECT state, reason FROM dtx.sagas WHERE id = :id;
CALL end_all();
-- a saga that comes to its end in time has no deadline any more
SELECT dtx.start_saga('chain', deadline => '2100-01-02 00:00Z') AS id \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx_internal.saga_any();

-- sleep: nobody works meanwhile
SELECT dtx.define_saga('sleepy', dtx.step_sleep('nap', '0'), dtx.step_sleep('night', '8 hours'), dtx.step('up', NULL, 'SELECT 1', 'SELECT 2'));
SELECT dtx.start_saga('sleepy') AS id \gset
SELECT * FROM take();
SELECT * FROM steps(:id);
SELECT due_at - since AS delay FROM dtx.saga_steps WHERE saga = :id AND step = 'night';
SELECT due, next_due > now() + interval '7 hours' AS next_due FROM dtx_internal.saga_schedule();
SELECT later(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT error(:id, 'up', '22000');
SELECT * FROM steps(:id);
-- canceled asleep
SELECT dtx.start_saga('sleepy') AS id \gset
SELECT * FROM take();
SELECT dtx.cancel_saga(:id, 'wake up');
SELECT * FROM steps(:id);
-- waked up
SELECT dtx.start_saga('sleepy') AS id \gset
SELECT * FROM take();
SELECT dtx.retry_saga(:id);
SELECT dtx.skip_step(:id, 'night', 'no time to sleep');
SELECT step FROM take();
SELECT done(:id, 'up');

-- signals
SELECT dtx.define_saga('approval', dtx.step('ask', NULL, 'SELECT 1', 'SELECT -1'), dtx.step_signal('answer', timeout => '1 week'),
	dtx.step('act', NULL, 'SELECT 2'), dtx.step_signal('thanks'), dtx.step('end', NULL, 'SELECT 3'));
-- when the saga waits
SELECT dtx.start_saga('approval') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'ask');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT due_at - since AS timeout FROM dtx.saga_steps WHERE saga = :id AND step = 'answer';
SELECT dtx.signal_saga(:id, 'answer', '{"yes": true}');
SELECT dtx.signal_saga(:id, 'answer', '{"yes": false}');
SELECT step, results FROM take();
-- before it waits
SELECT dtx.signal_saga(:id, 'thanks');
SELECT dtx.signal_saga(:id, 'thanks', '1');
SELECT done(:id, 'act');
SELECT step, results FROM take();
SELECT done(:id, 'end');
SELECT * FROM history(:id);
SELECT dtx.signal_saga(:id, 'thanks');
-- who has only locked it can't wait for it either
SELECT dtx.start_saga('approval') AS id \gset
BEGIN;
SELECT dtx.signal_saga(:id, 'thanks');
SELECT dtx.wait_saga(:id, '1 min');
ROLLBACK;
SELECT dtx.force_saga(:id, 'completed', 'test');
-- even before the saga has begun; its payload comes along
SELECT dtx.start_saga('approval', run_at => now() + interval '1 hour') AS id \gset
SELECT dtx.signal_saga(:id, 'answer', '"early"');
SELECT later(:id);
SELECT step FROM take();
SELECT done(:id, 'ask');
SELECT step, results FROM take();
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.signal_saga(:id, 'thanks');
SELECT done(:id, 'act');
SELECT step, direction FROM take();
SELECT done(:id, 'ask');
-- one that has not been looked at since it is due
SELECT dtx.start_saga('approval') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'ask');
SELECT dtx.signal_saga(:id, 'answer');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT dtx.force_saga(:id, 'completed', 'test');
-- no signal in time: back
SELECT dtx.start_saga('approval') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'ask');
SELECT step FROM take();
SELECT later(:id);
SELECT step, direction FROM take();
SELECT dtx.signal_saga(:id, 'answer');
SELECT done(:id, 'ask');
SELECT reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM history(:id);
-- the same after the point of no return: failed; the signal may come before the operator
SELECT dtx.start_saga('anywhere') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT later(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT later(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT dtx.signal_saga(:id, 'u', '"late"');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT dtx.signal_saga(:id, 's');
SELECT step FROM take();
SELECT later(:id);
SELECT step FROM take();
SELECT state FROM dtx.sagas WHERE id = :id;
-- errors
SELECT dtx.signal_saga(0, 'answer');
SELECT dtx.signal_saga(NULL, 'answer');
SELECT dtx.signal_saga(:id, 'no such step');
SELECT dtx.signal_saga(:id, NULL);
SELECT dtx.signal_saga(:id, 'a');
SELECT dtx_internal.signal_saga(:id, 'u', NULL);
SELECT dtx_internal.saga_any();
