--
-- Sagas executed by workers.
--
\set SHOW_CONTEXT never
CALL begin_test();
CALL end_all();
ALTER SYSTEM RESET pg_dtx.saga_workers;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n > 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
-- reserve, charge, ship
CALL make_server('stock', 'dtx_one');
CALL make_server('bank', 'dtx_two');
CALL make_server('depot', 'dtx_one');
CALL make_mapping('stock');
CALL make_mapping('bank');
CALL make_mapping('depot');
SELECT dtx.exec('one', $$
	CREATE TABLE item (id int PRIMARY KEY, qty int NOT NULL);
	INSERT INTO item VALUES (7, 2);
	CREATE TABLE shipment (id serial, what jsonb);
	CREATE FUNCTION ship(jsonb) RETURNS int LANGUAGE sql AS 'INSERT INTO public.shipment (what) VALUES ($1) RETURNING id'$$);
SELECT dtx.exec('two', $$
	CREATE TABLE charge (what jsonb CHECK (what->>'card' IS NULL OR what->>'card' <> 'invalid'));
	CREATE FUNCTION charge(jsonb) RETURNS boolean LANGUAGE sql AS 'INSERT INTO public.charge VALUES ($1) RETURNING true'$$);
CREATE TABLE orders (id int);
CREATE VIEW books AS
	SELECT (SELECT sum(qty) FROM dtx.query('stock', 'SELECT qty FROM item') AS t(qty int)) AS qty,
		(SELECT count(*) FROM dtx.query('bank', 'SELECT what FROM charge') AS t(what jsonb)) AS charges,
		(SELECT count(*) FROM dtx.query('depot', 'SELECT id FROM shipment') AS t(id int)) AS shipments,
		(SELECT count(*) FROM orders) AS orders;
SELECT dtx.define_saga('order',
  dtx.step('reserve', server => 'stock',
      execute    => $$UPDATE item SET qty = qty - 1 WHERE id = ($1->>'item')::int AND qty > 0 RETURNING id$$,
      compensate => $$UPDATE item SET qty = qty + 1 WHERE id = ($2->'reserve'->>'id')::int$$, min_rows => 1),
  dtx.step('charge',  server => 'bank',  execute => $$SELECT charge($1)$$, kind => 'pivot'),
  dtx.step('ship',    server => 'depot', execute => $$SELECT ship($1)$$,   kind => 'retriable'));
BEGIN;
INSERT INTO orders VALUES (42);
SELECT dtx.start_saga('order', '{"item": 7}', key => 'order-42') AS id \gset
COMMIT;
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
TABLE books;
SELECT regexp_replace(regexp_replace(e, 'started at .*', 'started at (time)'), '\d+\.\d+ s', 'N s') AS explain FROM dtx.explain_saga(:id) e;
-- the customer can't pay: the item is back
SELECT dtx.start_saga('order', '{"item": 7, "card": "invalid"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM steps(:id);
SELECT step, action, outcome, sqlstate, message, detail FROM dtx.saga_history WHERE saga = :id ORDER BY id;
TABLE books;
-- sold out: min_rows
SELECT dtx.start_saga('order', '{"item": 7}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.start_saga('order', '{"item": 7}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, action, outcome, sqlstate FROM dtx.saga_history WHERE saga = :id ORDER BY id;
TABLE books;
-- many, in no order
SELECT dtx.exec('stock', 'UPDATE item SET qty = 10');
SELECT dtx.define_saga('order',
  dtx.step('reserve', server => 'stock', execute => $$UPDATE item SET qty = qty - 1 WHERE id = ($1->>'item')::int AND qty > 0 RETURNING id$$,
      compensate => $$UPDATE item SET qty = qty + 1 WHERE id = ($2->'reserve'->>'id')::int$$, min_rows => 1,
      backoff => '10 ms', max_attempts => 1000, compensate_attempts => 1000),
  dtx.step('charge',  server => 'bank',  execute => $$SELECT charge($1)$$, kind => 'pivot'),
  dtx.step('ship',    server => 'depot', execute => $$SELECT ship($1)$$,   kind => 'retriable'));
SELECT count(dtx.start_saga('order', jsonb_build_object('item', 7, 'card', CASE WHEN i % 3 = 0 THEN 'invalid' END))) FROM generate_series(1, 24) i;
CALL wait_until($$SELECT NOT EXISTS (SELECT FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated'))$$);
SELECT b.qty = 10 - s.completed + 2 AS qty, b.charges = s.completed AS charges, b.shipments = s.completed AS shipments,
	s.completed + s.compensated = s.started AS all_ended FROM books b, dtx.saga_stat s WHERE s.name = 'order';

-- several statements on several servers: all or none
SELECT dtx.define_saga('transfer', dtx.step('move', statements => ARRAY[
	dtx.statement('one', $$UPDATE acct SET bal = bal - ($1->>'amount')::int WHERE id = 1 RETURNING bal AS one$$,
		$$UPDATE acct SET bal = bal + ($1->>'amount')::int WHERE id = 1$$, 1),
	dtx.statement('two', $$UPDATE acct SET bal = bal + ($1->>'amount')::int WHERE id = ($1->>'to')::int RETURNING bal AS two$$,
		$$UPDATE acct SET bal = bal - ($1->>'amount')::int WHERE id = ($1->>'to')::int$$, 1),
	dtx.statement(NULL, $$UPDATE acct0 SET bal = 0 WHERE id = 1$$, $$UPDATE acct0 SET bal = 100 WHERE id = 1$$)]),
	dtx.step('check', NULL, $$SELECT 1 / (1 - ($1->>'undo')::int)$$));
SELECT dtx.start_saga('transfer', '{"amount": 30, "to": 1, "undo": 0}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM balances WHERE id = 1;
SELECT * FROM steps(:id);
SELECT dtx.start_saga('transfer', '{"amount": 30, "to": 99, "undo": 0}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM balances WHERE id = 1;
SELECT dtx.start_saga('transfer', '{"amount": 300, "to": 1, "undo": 0}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM balances WHERE id = 1;
SELECT dtx.start_saga('transfer', '{"amount": 30, "to": 1, "undo": 1}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM balances WHERE id = 1;
SELECT * FROM history(:id);

-- side by side, and what follows sees the results of all
SELECT dtx.define_saga('sum', dtx.step('a', 'one', 'SELECT bal FROM acct WHERE id = 2', after => '{}'),
	dtx.step('b', 'two', 'SELECT bal FROM acct WHERE id = 2', after => '{}'), dtx.step_sleep('c', '10 ms', after => '{}'),
	dtx.step('add', NULL, $$SELECT ($2->'a'->>'bal')::int + ($2->'b'->>'bal')::int AS sum, $1->'x' AS x, $2 ? 'c' AS c$$, after => '{a,b,c}'));
SELECT dtx.start_saga('sum', '{"x": [null]}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT result FROM dtx.saga_steps WHERE saga = :id AND step = 'add';

-- what may go away is tried again; a retriable step whatever it is
SELECT dtx.exec('one', 'CREATE SEQUENCE s');
SELECT dtx.define_saga('stubborn', dtx.step('a', 'one', $s$DO $$BEGIN IF nextval('s') < 3 THEN RAISE lock_not_available; END IF; END$$ $s$, backoff => '10 ms'),
	dtx.step('b', 'one', $s$DO $$BEGIN IF nextval('s') = 4 THEN RAISE 'not yet'; END IF; END$$ $s$, kind => 'retriable', backoff => '10 ms'));
SELECT dtx.start_saga('stubborn') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, action, attempt, outcome, sqlstate, retry_at IS NOT NULL AS retry FROM dtx.saga_history WHERE saga = :id ORDER BY id;

-- not in time
SELECT dtx.define_saga('slow', dtx.step('a', 'one', 'SELECT pg_sleep(3600)', timeout => '100 ms', backoff => '10 ms', max_attempts => 2));
SELECT dtx.start_saga('slow') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, action, attempt, outcome, sqlstate, retry_at IS NOT NULL AS retry FROM dtx.saga_history WHERE saga = :id ORDER BY id;
-- what a step must not do
SELECT dtx.define_saga('bad', dtx.step('a', 'one', $$INSERT INTO acct VALUES (50, ($1->>'n')::int)$$), dtx.step('b', NULL, 'COMMIT'));
SELECT dtx.start_saga('bad', '{"n": 50}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT error IS NOT NULL AS refused FROM dtx.saga_steps WHERE saga = :id AND step = 'b';
SELECT dtx.define_saga('bad', dtx.step('a', 'one', 'COMMIT'));
SELECT dtx.start_saga('bad') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT error FROM dtx.saga_steps WHERE saga = :id AND step = 'a';
-- the server is dropped meanwhile
CALL make_server('gone', 'dtx_one');
SELECT dtx.define_saga('orphan', dtx.step('a', NULL, 'SELECT 1', 'UPDATE acct0 SET bal = 55 WHERE id = 4'), dtx.step('b', 'gone', 'SELECT 1'));
DROP SERVER gone;
SELECT dtx.start_saga('orphan') AS id \gset

-- an external worker, a signal, a deadline
SELECT dtx.define_saga('mixed', dtx.step('a', 'one', 'UPDATE acct SET bal = 77 WHERE id = 3', 'UPDATE acct SET bal = 100 WHERE id = 3'),
	dtx.step_external('b', 'mixed'), dtx.step_signal('c'), dtx.step('d', 'two', $$UPDATE acct SET bal = ($2->'c')::int WHERE id = 3$$));
SELECT dtx.start_saga('mixed') AS id \gset
CALL wait_until($$SELECT EXISTS (SELECT FROM dtx.saga_steps WHERE queue = 'mixed')$$);
SELECT dtx.complete_step(token, '"ok"') FROM dtx.claim_step('mixed', 'w');
SELECT dtx.signal_saga(:id, 'c', '66');
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM balances WHERE id = 3;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 100 WHERE id = 3');
SELECT dtx.start_saga('mixed', deadline => clock_timestamp() + interval '500 ms') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM balances WHERE id = 3;

-- the rows of a compensation are of no use, so they need not be good jsonb
SELECT dtx.define_saga('rows', dtx.step('here', NULL, 'SELECT 1', $$SELECT '{"a": "\u0000"}'::json AS doc$$, compensate_attempts => 1),
	dtx.step('there', 'one', 'SELECT 1', $$SELECT '{"a": "\u0000"}'::json AS doc$$, compensate_attempts => 1), dtx.step('no', NULL, 'SELECT 1 / 0'));
SELECT dtx.start_saga('rows') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, state, error FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
CALL end_all();

-- as the role that has started it, on the coordinator and on the servers
CREATE ROLE regress_dtx_app LOGIN;
CREATE ROLE regress_dtx_remote LOGIN;
GRANT USAGE ON FOREIGN SERVER one TO regress_dtx_app;
CREATE USER MAPPING FOR regress_dtx_app SERVER one OPTIONS (user 'regress_dtx_remote', password_required 'false');
GRANT EXECUTE ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text), dtx.wait_saga(bigint, interval) TO regress_dtx_app;
SELECT dtx.define_saga('who', dtx.step('here', NULL, 'SELECT current_user, session_user'), dtx.step('there', 'one', 'SELECT current_user, session_user'),
	dtx.step('no', NULL, 'DELETE FROM acct0'));
SELECT dtx.grant_saga_definition('who', 'regress_dtx_app');
SET ROLE regress_dtx_app;
SELECT dtx.start_saga('who') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, state, result, error FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
RESET ROLE;
SELECT role FROM dtx.sagas WHERE id = :id;
SELECT dtx.force_saga(:id, 'compensated', 'test');
DROP OWNED BY regress_dtx_app;
DROP ROLE regress_dtx_app, regress_dtx_remote;
SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated');
TABLE prepared;
DROP VIEW books;

-- a transaction that does not see others end cannot wait for that
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT dtx.wait_saga(1);
ROLLBACK;
