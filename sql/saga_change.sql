--
-- What changes while sagas are under way: servers, definitions, rights; and keys.  There are
-- no workers, see saga_define.sql.
--
\set SHOW_CONTEXT never
CALL begin_test();
CALL end_all();
-- what a worker says of where a step was done
CREATE FUNCTION done_at(id bigint, step text, system bigint) RETURNS dtx.saga_state LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx_internal.saga_done(done_at.id, s.position, s.attempts,
			CASE s.state WHEN 'compensating' THEN 'compensate' ELSE 'execute' END, NULL,
			ARRAY(SELECT srvname FROM pg_foreign_server WHERE srvname LIKE 'regress_dtx_moving%'), ARRAY[done_at.system])
		FROM dtx.saga_steps s WHERE s.saga = done_at.id AND s.step = done_at.step;
	RETURN (SELECT g.state FROM dtx.sagas g WHERE g.id = done_at.id);
END
$$;
CREATE SERVER regress_dtx_moving FOREIGN DATA WRAPPER postgres_fdw;
CREATE USER MAPPING FOR CURRENT_USER SERVER regress_dtx_moving;
SELECT dtx.define_saga('book', dtx.step('book', 'regress_dtx_moving', 'SELECT 1', 'SELECT -1'), dtx.step_signal('go'), dtx.step('b', execute => 'SELECT 1'));
-- renamed: it is undone on the same server
SELECT dtx.start_saga('book', key => 'renamed') AS id \gset
SELECT step FROM take();
SELECT done_at(:id, 'book', 1);
ALTER SERVER regress_dtx_moving RENAME TO regress_dtx_moving2;
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;
SELECT dtx.cancel_saga(:id, 'test');
SELECT step, direction, servers FROM take();
SELECT done_at(:id, 'book', 1);
ALTER SERVER regress_dtx_moving2 RENAME TO regress_dtx_moving;
-- it leads elsewhere: nothing is changed there, and an operator has to look
SELECT dtx.start_saga('book', key => 'elsewhere') AS id \gset
SELECT step FROM take();
SELECT done_at(:id, 'book', 1);
SELECT dtx.cancel_saga(:id, 'test');
SELECT step, direction, servers FROM take();
SELECT done_at(:id, 'book', 2);
SELECT error(:id, 'book', 'DX002', 'server "regress_dtx_moving" leads to another cluster than when the step was done');
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx.retry_saga(:id);
SELECT step, direction, servers FROM take();
SELECT done_at(:id, 'book', 1);
-- dropped: not while it is needed
SELECT dtx.start_saga('book', key => 'dropped') AS id \gset
SET client_min_messages = warning;	-- (the role is that of who runs this)
DROP SERVER regress_dtx_moving CASCADE;
SELECT step FROM take();
SELECT done_at(:id, 'book', 1);
DROP SERVER regress_dtx_moving CASCADE;
ALTER SERVER regress_dtx_moving OPTIONS (ADD host 'elsewhere');
-- ... and if it was all the same, a new one of that name is another one
CREATE PROCEDURE drop_all_the_same() LANGUAGE plpgsql AS $$
BEGIN
	UPDATE dtx_internal.saga_record SET home = 0 WHERE id = (SELECT id FROM dtx.sagas WHERE key = 'dropped');
	DROP SERVER regress_dtx_moving CASCADE;
	UPDATE dtx_internal.saga_record SET home = dtx_internal.saga_home() WHERE id = (SELECT id FROM dtx.sagas WHERE key = 'dropped');
END
$$;
CALL drop_all_the_same();
RESET client_min_messages;
CREATE SERVER regress_dtx_moving FOREIGN DATA WRAPPER postgres_fdw;
SELECT dtx.cancel_saga(:id, 'test');
SELECT count(*) FROM take();
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT dtx.skip_step(:id, 'book', 'undone by hand');
DROP SERVER regress_dtx_moving, other;

-- errors that no repetition mends: an operator is told at once, and gives the saga a new version
SELECT dtx.define_saga('wrong', dtx.step('a', execute => 'SELECT 1', compensate => 'SELEKT -1'), dtx.step_signal('go'), dtx.step('b', execute => 'SELECT 1'));
SELECT dtx.start_saga('wrong', key => 'wrong ' || i) FROM generate_series(1, 3) AS i;
SELECT count(*) FROM take() t, done(t.saga, t.step);
SELECT count(*) FROM take() t, done(t.saga, t.step);
SELECT count(*) FROM take() t, done(t.saga, t.step);
SELECT id AS one FROM dtx.sagas WHERE key = 'wrong 1' \gset
SELECT id AS two FROM dtx.sagas WHERE key = 'wrong 2' \gset
SELECT id AS three FROM dtx.sagas WHERE key = 'wrong 3' \gset
SELECT dtx.cancel_saga(:one, 'test');
SELECT step, direction FROM take();
SELECT error(:one, 'a', '42601', 'syntax error at or near "SELEKT"');
SELECT attempts FROM dtx.saga_steps WHERE saga = :one AND step = 'a';
SELECT dtx.define_saga('wrong', dtx.step('new', execute => 'SELECT 0', after => '{}'), dtx.step('a', execute => 'SELECT 1', compensate => 'SELECT -1', after => '{}'),
	dtx.step_signal('go'), dtx.step('b', execute => 'SELECT 2', after => '{go,new}'));
SELECT dtx.migrate_saga(:one, NULL, '');
SELECT dtx.migrate_saga(:one, 7, 'corrected');
SELECT * FROM dtx.migrate_sagas('wrong', NULL, 'corrected') m WHERE m.saga NOT IN (:one, :two, :three);
SELECT version, state, count(*) FROM dtx.sagas WHERE name = 'wrong' GROUP BY 1, 2 ORDER BY 2;
SELECT step, state FROM dtx.saga_steps WHERE saga = :one ORDER BY position;
SELECT step, state FROM dtx.saga_steps WHERE saga = :two ORDER BY position;
SELECT dtx.retry_saga(:one);
SELECT step, direction, commands FROM take() WHERE saga = :one;
SELECT done(:one, 'a');
SELECT step, commands FROM take() WHERE saga IN (:two, :three);
SELECT done(id, 'new') FROM dtx.sagas WHERE id IN (:two, :three) AND EXISTS (SELECT FROM dtx.saga_steps s WHERE s.saga = id AND s.step = 'new' AND s.state = 'running');
SELECT action, outcome, message FROM dtx.saga_history WHERE saga = :two ORDER BY id;
-- what does not fit
SELECT dtx.define_saga('wrong', dtx.step_signal('go'), dtx.step('a', execute => 'SELECT 1'), dtx.step('b', execute => 'SELECT 3'));
SELECT dtx.migrate_saga(:two, NULL, 'test');
SELECT dtx.define_saga('wrong', dtx.step('b', execute => 'SELECT 3'));
SELECT dtx.migrate_saga(:two, NULL, 'test');
SELECT dtx.define_saga('wrong', dtx.step('a', execute => 'SELECT 1', kind => 'pivot'));
SELECT dtx.migrate_saga(:two, NULL, 'test');
SELECT saga = :two AS two, ok, state, error FROM dtx.migrate_sagas('wrong', 2, 'test') WHERE saga IN (:two, :three);
SELECT saga = :two AS two, ok, state, error FROM dtx.cancel_sagas(ARRAY[:one, :two, 0], 'test');
CALL end_all();
SELECT dtx.define_saga('charge', dtx.step('p', execute => 'SELECT 1', kind => 'pivot'), dtx.step('r', execute => 'SELECT 1', kind => 'retriable'));
SELECT dtx.start_saga('charge') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'p');
SELECT dtx.define_saga('charge', dtx.step('p', execute => 'SELECT 1', kind => 'pivot'), dtx.step('r', execute => 'SELECT 2', kind => 'retriable'));
SELECT dtx.migrate_saga(:id, NULL, 'test');
SELECT step, commands FROM take();
SELECT dtx.migrate_saga(:id, 1, 'test');
SELECT ok, error FROM dtx.cancel_sagas(ARRAY[:id], 'test');
-- another retriable step that meets such an error
SELECT error(:id, 'r', '23505', 'duplicate key');
CALL end_all();
-- rights are for somebody to grant, and no reason to give up an order
SELECT dtx.define_saga('may not', dtx.step('a', execute => 'SELECT 1', compensate => 'SELECT -1'), dtx.step('b', execute => 'SELECT 1'));
SELECT dtx.start_saga('may not') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT error(:id, 'b', '42501', 'permission denied for table t');
SELECT step, state FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT done(:id, 'b');

-- keys
SELECT dtx.start_saga('may not', '{"n": 1}', 'k') AS id \gset
SELECT dtx.start_saga('may not', '{"n": 1}', 'k') = :id AS same;
SELECT dtx.start_saga('may not', '{"n": 2}', 'k');
SELECT dtx.start_saga('may not', '{"n": 1}', 'k', if_exists => 'reject');
SELECT dtx.start_saga('may not', '{"n": 1}', 'k', if_exists => 'restart') = :id AS same;
SELECT dtx.start_saga('may not', '{"n": 1}', 'k', if_exists => 'ignore');
SELECT dtx.start_saga('may not', '{"n": 1}', 'k', key_scope => 'world');
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.start_saga('may not', '{"n": 1}', 'k') = :id AS same;
SELECT dtx.start_saga('may not', '{"n": 2}', 'k', if_exists => 'restart') AS again \gset
SELECT :again > :id AS another;
SELECT dtx.start_saga('may not', '{"n": 2}', 'k') = :again AS same;
CREATE ROLE regress_dtx_clerk LOGIN;
SELECT dtx.grant_saga_definition('may not', 'regress_dtx_clerk');
GRANT EXECUTE ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) TO regress_dtx_clerk;
SELECT dtx.start_saga('may not', key => 'shared', key_scope => 'definition') AS id \gset
SET ROLE regress_dtx_clerk;
SELECT dtx.start_saga('may not', key => 'shared') <> :id AS another;
SELECT dtx.start_saga('may not', key => 'shared', key_scope => 'definition') = :id AS same;
RESET ROLE;
CALL end_all();
SELECT dtx.force_saga(id, 'compensated', 'test') FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated');
SELECT dtx.purge_sagas('0') > 0 AS purged;
SELECT count(*) FROM dtx_internal.saga_key;
DROP OWNED BY regress_dtx_clerk;
DROP ROLE regress_dtx_clerk;
DROP FUNCTION done_at;
DROP PROCEDURE drop_all_the_same;
