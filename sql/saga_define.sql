--
-- Definitions of sagas, and what steps through sagas by hand in the tests that
-- follow.
--
\set SHOW_CONTEXT never
-- No workers: the tests are the workers.
ALTER SYSTEM SET pg_dtx.saga_workers = 0;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n = 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
-- What a worker does: take what is due, and report.
CREATE FUNCTION take(OUT saga bigint, OUT step text, OUT direction text, OUT attempt int,
	OUT servers name[], OUT commands text[], OUT min_rows int[], OUT input jsonb, OUT results jsonb, OUT timeout interval)
RETURNS SETOF record LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	PERFORM dtx_internal.saga_deliver(100);	-- the scheduler
	PERFORM dtx_internal.saga_deadlines(100);
	PERFORM dtx_internal.saga_give_up(100);
	LOOP
		SELECT * INTO t FROM dtx_internal.saga_take(current_user::regrole::oid);
		EXIT WHEN NOT t.more;
	END LOOP;
	IF t.saga IS NOT NULL THEN
		SELECT t.saga, s.step, t.direction, t.attempt, t.servers, t.commands, t.min_rows, t.input, t.results, t.timeout
			INTO saga, step, direction, attempt, servers, commands, min_rows, input, results, timeout
			FROM dtx.saga_steps s WHERE s.saga = t.saga AND s.position = t.step;
		RETURN NEXT;
	END IF;
END
$$;
CREATE FUNCTION done(id bigint, step text, result jsonb DEFAULT NULL) RETURNS dtx.saga_state LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx_internal.saga_done(done.id, s.position, s.attempts,
			CASE s.state WHEN 'compensating' THEN 'compensate' ELSE 'execute' END, done.result)
		FROM dtx.saga_steps s WHERE s.saga = done.id AND s.step = done.step;
	RETURN (SELECT g.state FROM dtx.sagas g WHERE g.id = done.id);
END
$$;
CREATE FUNCTION error(id bigint, step text, code text, message text DEFAULT 'something is wrong')
RETURNS dtx.saga_state LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx_internal.saga_error(error.id, s.position, s.attempts,
			CASE s.state WHEN 'compensating' THEN 'compensate' ELSE 'execute' END, error.code, error.message, NULL, NULL, clock_timestamp())
		FROM dtx.saga_steps s WHERE s.saga = error.id AND s.step = error.step;
	RETURN (SELECT g.state FROM dtx.sagas g WHERE g.id = error.id);
END
$$;
-- Time passes: what would become due later is due now.  Time is that of the
-- transaction, so what becomes due soon does not while a slow machine is in it.
CREATE FUNCTION later(id bigint) RETURNS bigint LANGUAGE sql AS $$
	UPDATE dtx_internal.saga_external SET available_at = now() WHERE saga = id AND available_at > now();
	WITH u AS (UPDATE dtx_internal.saga_step_record SET due_at = now(), since = since - interval '1 day'
		WHERE saga = id AND due_at > now() RETURNING 1)
	SELECT count(*) FROM u
$$;
CREATE FUNCTION steps(id bigint, OUT step text, OUT state text, OUT attempts int, OUT due text, OUT result jsonb, OUT error text)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT step, state, attempts, CASE WHEN due_at <= now() THEN 'now' WHEN due_at IS NOT NULL THEN 'later' END,
		result, error FROM dtx.saga_steps WHERE saga = steps.id ORDER BY position
$$;
CREATE FUNCTION history(id bigint, OUT step text, OUT action text, OUT attempt int, OUT outcome text, OUT sqlstate text,
	OUT message text, OUT retry bool, OUT by_whom text)
RETURNS SETOF record LANGUAGE sql AS $$
	SELECT step, action, attempt, outcome, sqlstate, message, retry_at IS NOT NULL,
		replace(by_whom, current_user, '(me)') FROM dtx.saga_history h WHERE h.saga = history.id ORDER BY h.id
$$;

-- a chain; after: the previous step
SELECT dtx.define_saga('chain',
	dtx.step('a', server => 'one', execute => 'UPDATE acct SET bal = bal - 1 WHERE id = 1 RETURNING bal',
		compensate => 'UPDATE acct SET bal = bal + 1 WHERE id = 1', min_rows => 1, backoff => '10 s'),
	dtx.step('b', 'two', 'UPDATE acct SET bal = bal + 1 WHERE id = 1', 'UPDATE acct SET bal = bal - 1 WHERE id = 1',
		max_attempts => 3, backoff => '10 s', timeout => '1 min', compensate_attempts => 2),
	dtx.step('c', NULL, 'INSERT INTO acct0 VALUES (10, 1)', kind => 'pivot'),
	dtx.step('d', 'one', 'SELECT 1', kind => 'retriable', max_attempts => 2));
SELECT position, step, action, kind, after, servers, min_rows, max_attempts, compensate_attempts, backoff, timeout
	FROM dtx.saga_definition_steps WHERE name = 'chain' ORDER BY position;
-- a graph of all kinds of steps, not in the order in which they come
SELECT dtx.define_saga('graph',
	dtx.step('end', NULL, 'SELECT 1', kind => 'retriable', after => '{ship,mail}'),
	dtx.step('ship', statements => ARRAY[
		dtx.statement('one', 'SELECT 1'), dtx.statement(NULL, 'SELECT 2', min_rows => 1)],
		kind => 'retriable', after => '{pay}'),
	dtx.step_external('mail', 'mails', '{"template": "thanks"}', kind => 'retriable', after => '{pay}'),
	dtx.step_signal('approved', timeout => '1 day', after => '{check}'),
	dtx.step('check', 'one', 'SELECT 1', after => '{}'),
	dtx.step_sleep('pause', '1 hour', after => '{check}'),
	dtx.step('reserve', statements => ARRAY[dtx.statement('one', 'SELECT 1', 'SELECT -1'),
		dtx.statement('two', 'SELECT 2', 'SELECT -2', 1)], after => '{check}'),
	dtx.step_external('hotel', 'hotels', compensate_queue => 'hotel cancellations', after => '{check}'),
	dtx.step('pay', server => 'two', execute => 'SELECT 1', kind => 'pivot', after => '{approved,pause,reserve,hotel}'));
SELECT position, step, action, kind, after, servers, execute, compensate, min_rows, delay, queue, payload, compensate_queue
	FROM dtx.saga_definition_steps WHERE name = 'graph' ORDER BY position;
SELECT * FROM dtx.explain_saga('graph');
SELECT * FROM dtx.explain_saga('chain');
-- several begin at once; the number of branches changes
SELECT dtx.define_saga('wide',
	dtx.step('a', NULL, 'SELECT 1', after => '{}'), dtx.step('b', NULL, 'SELECT 1', after => '{}'),
	dtx.step('c', NULL, 'SELECT 1', after => '{b}'), dtx.step('d', NULL, 'SELECT 1', after => '{b}'),
	dtx.step('e', NULL, 'SELECT 1', after => '{d}'), dtx.step('f', NULL, 'SELECT 1', after => '{c,e}'),
	dtx.step('g', NULL, 'SELECT 1', after => '{a,f}'), dtx.step('h', NULL, 'SELECT 1'));
SELECT * FROM dtx.explain_saga('wide');

-- versions: the same again is no new one
SELECT dtx.define_saga('v', dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx.define_saga('v', dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx.define_saga('v', dtx.step('a', NULL, 'SELECT 2'));
SELECT dtx.define_saga('v', VARIADIC ARRAY[dtx.step('a', NULL, 'SELECT 2'), dtx.step_sleep('b', '0')]);
SELECT dtx.define_saga('v', dtx.step('a', NULL, 'SELECT 1'));
SELECT name, version, owner = current_user AS mine, created_at <= clock_timestamp() AS dated, steps
	FROM dtx.saga_definitions ORDER BY name, version;

-- errors: the saga
SELECT dtx.define_saga('', dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx.define_saga(NULL, dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx.define_saga(repeat('x', 201), dtx.step('a', NULL, 'SELECT 1'));
\set VERBOSITY terse
SELECT dtx.define_saga('x');
\set VERBOSITY default
SELECT dtx.define_saga('x', VARIADIC '{}');
SELECT dtx.define_saga('x', VARIADIC NULL);
SELECT dtx.define_saga('x', NULL::dtx.step_spec);
SELECT dtx.define_saga('x', VARIADIC array_fill(dtx.step('a', NULL, 'SELECT 1'), '{1001}'));
SELECT dtx.define_saga('x', VARIADIC ARRAY[ARRAY[dtx.step('a', NULL, 'SELECT 1')]]);
SELECT dtx.explain_saga('no such saga');
SELECT dtx.explain_saga(NULL::text);
-- errors: names
SELECT dtx.define_saga('x', dtx.step('', NULL, 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step(NULL, NULL, 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('_a', NULL, 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('a', NULL, 'SELECT 2'));
-- errors: kinds and actions
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'pivotal'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => NULL));
SELECT dtx.define_saga('x', json_populate_record(NULL::dtx.step_spec, '{"name": "a", "action": "dance"}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', 'SELECT 2', kind => 'pivot'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', 'SELECT 2', kind => 'retriable'));
SELECT dtx.define_saga('x', dtx.step_external('a', 'q', compensate_queue => 'r', kind => 'pivot'));
-- errors: statements
SELECT dtx.define_saga('x', dtx.step('a'));
SELECT dtx.define_saga('x', dtx.step('a', 'one', ' ;
	'));
SELECT dtx.define_saga('x', dtx.step('a', 'one', 'SELECT 1', ''));
SELECT dtx.define_saga('x', dtx.step('a', statements => '{}'));
SELECT dtx.define_saga('x', dtx.step('a', statements => NULL));
SELECT dtx.define_saga('x', dtx.step('a', statements => ARRAY[dtx.statement('one', NULL)]));
SELECT dtx.define_saga('x', dtx.step('a', statements => array_fill(dtx.statement('one', 'SELECT 1'), '{101}')));
SELECT dtx.define_saga('x', ROW('a', 'sql', 'pivot', NULL, '{one,two}', '{SELECT 1}', '{NULL}', '{NULL}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::dtx.step_spec);
SELECT dtx.define_saga('x', ROW('a', 'sql', 'pivot', NULL, '{one}', '{SELECT 1}', '{NULL,NULL}', '{NULL}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::dtx.step_spec);
SELECT dtx.define_saga('x', ROW('a', 'sql', 'pivot', NULL, '{one}', '{SELECT 1}', '{NULL}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::dtx.step_spec);
SELECT dtx.define_saga('x', ROW('a', 'sql', 'pivot', NULL, '{{one,one}}', '{{SELECT 1,SELECT 2}}', '{{a,b}}', '{{1,2}}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::dtx.step_spec);
-- errors: servers
CREATE FOREIGN DATA WRAPPER regress_dtx_other;
CREATE SERVER regress_dtx_other FOREIGN DATA WRAPPER regress_dtx_other;
SELECT dtx.define_saga('x', dtx.step('a', 'nowhere', 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', 'regress_dtx_other', 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', statements => ARRAY[dtx.statement('one', 'SELECT 1'), dtx.statement('three', 'SELECT 1')]));
DROP FOREIGN DATA WRAPPER regress_dtx_other CASCADE;
-- errors: numbers and times
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', max_attempts => 0));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', compensate_attempts => -1));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', max_attempts => 2000000000, backoff => '0'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', compensate_attempts => 10001));
SELECT dtx.define_saga('x', dtx.step_external('a', 'q', max_attempts => 10001));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', backoff => '9 ms'));
SELECT dtx.define_saga('x', dtx.step_external('a', 'q', backoff => '0'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', min_rows => -1));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', backoff => '-1 s'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', timeout => '0'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', timeout => '-1 s'));
SELECT dtx.define_saga('x', dtx.step_sleep('a', '-1 s'));
SELECT dtx.define_saga('x', dtx.step_sleep('a', NULL));
SELECT dtx.define_saga('x', dtx.step_signal('a', timeout => '0'));
SELECT dtx.define_saga('x', dtx.step_sleep('a', '300000 years'));
SELECT dtx.define_saga('x', dtx.step_signal('a', timeout => '300000 years'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', backoff => '300000 years'));
-- errors: queues
SELECT dtx.define_saga('x', dtx.step_external('a', ''));
SELECT dtx.define_saga('x', dtx.step_external('a', NULL));
SELECT dtx.define_saga('x', dtx.step_external('a', repeat('q', 60)));
SELECT dtx.define_saga('x', dtx.step_external('a', 'q', compensate_queue => ''));
SELECT dtx.define_saga('x', dtx.step_external('a', 'q', compensate_queue => repeat('q', 60)));
-- errors: the graph
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', after => '{b}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1', after => '{a,NULL}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', after => '{a}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1', after => '{a,d}'),
	dtx.step('c', NULL, 'SELECT 1'), dtx.step('d', NULL, 'SELECT 1'));
-- errors: the point of no return
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'pivot'), dtx.step('b', NULL, 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'retriable'), dtx.step('b', NULL, 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'retriable'), dtx.step('b', NULL, 'SELECT 1', kind => 'pivot'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'pivot'), dtx.step('b', NULL, 'SELECT 1', kind => 'pivot'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1', kind => 'pivot'),
	dtx.step('c', NULL, 'SELECT 1', after => '{a}', kind => 'pivot'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1', kind => 'pivot'),
	dtx.step('c', NULL, 'SELECT 1', after => '{a}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1'), dtx.step('b', NULL, 'SELECT 1', kind => 'retriable', after => '{}'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'pivot'), dtx.step_external('b', 'q'));
SELECT dtx.define_saga('x', dtx.step('a', NULL, 'SELECT 1', kind => 'pivot'), dtx.step_signal('b', timeout => '1 s', after => '{}'));
-- what can't fail may be anywhere, and takes the kind of where it is
SELECT dtx.define_saga('anywhere', dtx.step_signal('s', after => '{}'), dtx.step('a', NULL, 'SELECT 1', kind => 'pivot', after => '{}'),
	dtx.step_sleep('t', '1 s'), dtx.step_signal('u', timeout => '1 s'), dtx.step_sleep('v', '1 s', after => '{s,u}'));
SELECT step, kind, after FROM dtx.saga_definition_steps WHERE name = 'anywhere' ORDER BY position;
SELECT name FROM dtx.saga_definitions WHERE name = 'x';

-- who may
CREATE ROLE regress_dtx_definer LOGIN;
CREATE ROLE regress_dtx_friend LOGIN IN ROLE regress_dtx_definer;
CREATE ROLE regress_dtx_other LOGIN;
SELECT current_user AS me \gset
SET ROLE regress_dtx_definer;
SELECT dtx.define_saga('theirs', dtx.step('a', NULL, 'SELECT 1'));
RESET ROLE;
DO $$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'dtx'::regnamespace AND p.prosrc = 'dtx_sql_saga_call' LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO regress_dtx_definer, regress_dtx_friend, regress_dtx_other', f);
	END LOOP;
END
$$;
SET ROLE regress_dtx_definer;
SELECT dtx.define_saga('theirs', dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx_internal.define_saga('theirs', ARRAY[dtx.step('a', NULL, 'SELECT 1')]);
-- each role has its own names, and defines what is of roles that it is a member of
SELECT dtx.define_saga('chain', dtx.step('a', NULL, 'SELECT 1'));
SET ROLE regress_dtx_other;
SELECT dtx.define_saga('theirs', dtx.step('a', NULL, 'SELECT 2'));
SELECT dtx.define_saga('regress_dtx_definer.theirs', dtx.step('a', NULL, 'SELECT 2'));
SELECT dtx.define_saga('no_such_role.theirs', dtx.step('a', NULL, 'SELECT 2'));
SELECT dtx.define_saga('regress_dtx_other.', dtx.step('a', NULL, 'SELECT 2'));
SELECT * FROM dtx.explain_saga('regress_dtx_definer.theirs');
SELECT name, owner FROM dtx.saga_definitions;
SELECT owner, execute FROM dtx.saga_definition_steps;
SET ROLE regress_dtx_friend;
SELECT dtx.define_saga('regress_dtx_definer.theirs', dtx.step('a', NULL, 'SELECT 3'));
RESET ROLE;
SELECT dtx.define_saga('regress_dtx_definer.theirs', dtx.step('a', NULL, 'SELECT 4'));
SELECT name, version, owner FROM dtx.saga_definitions WHERE name = 'theirs' ORDER BY owner, version;
SELECT dtx.explain_saga('theirs');
SELECT * FROM dtx.explain_saga('regress_dtx_definer.theirs');
-- nobody runs what a stranger has defined
SET ROLE regress_dtx_other;
SELECT dtx.drop_saga_definition('theirs');
SELECT dtx.start_saga('theirs');
SELECT dtx.start_saga('regress_dtx_definer.theirs');
SELECT dtx.start_saga('no_such_role.theirs');
SELECT dtx.grant_saga_definition('regress_dtx_definer.theirs', 'regress_dtx_other');
SELECT dtx.revoke_saga_definition('regress_dtx_definer.theirs', 'regress_dtx_other');
SELECT dtx.drop_saga_definition('regress_dtx_definer.theirs');
RESET ROLE;
-- a superuser, and a member, if they name the owner
SELECT dtx.start_saga('theirs');
SELECT dtx.start_saga('regress_dtx_definer.theirs') > 0 AS started;
SET ROLE regress_dtx_friend;
SELECT dtx.start_saga('theirs');
SELECT dtx.start_saga('regress_dtx_definer.theirs') > 0 AS started;
-- what was granted, if they name the owner
SELECT dtx.grant_saga_definition('theirs', 'regress_dtx_other');
SET ROLE regress_dtx_definer;
SELECT dtx.grant_saga_definition('theirs', 'regress_dtx_other'), dtx.grant_saga_definition('theirs', 'regress_dtx_other');
SELECT dtx.grant_saga_definition('theirs', 'no_such_role');
SELECT dtx.grant_saga_definition('theirs', NULL);
SELECT dtx.grant_saga_definition('no such saga', 'public');
SELECT granted_to FROM dtx.saga_definitions WHERE name = 'theirs';
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('theirs');
SELECT dtx.start_saga('regress_dtx_definer.theirs') > 0 AS started;
SELECT version, execute FROM dtx.saga_definition_steps WHERE owner = 'regress_dtx_definer' ORDER BY version;
-- which version, too: the newest one, or the one that one has read
SELECT dtx.start_saga('regress_dtx_definer.theirs', version => 1) > 0 AS started;
SELECT dtx.start_saga('regress_dtx_definer.theirs', version => 7);
SELECT version, count(*) FROM dtx.sagas GROUP BY 1 ORDER BY 1;
-- keys are those of one definition
SELECT dtx.define_saga('theirs', dtx.step('a', NULL, 'SELECT 5'));
SELECT dtx.start_saga('theirs', key => 'k') AS mine, dtx.start_saga('regress_dtx_definer.theirs', key => 'k') AS theirs \gset
SELECT :mine <> :theirs AS another, dtx.start_saga('regress_dtx_definer.theirs', key => 'k') = :theirs AS same,
	dtx.start_saga('regress_dtx_other.theirs', key => 'k') = :mine AS same;
RESET ROLE;
SELECT dtx.start_saga('theirs');
SELECT dtx.start_saga('regress_dtx_other.theirs') > 0 AS started;
-- it can be taken back
SELECT dtx.revoke_saga_definition('regress_dtx_definer.theirs', 'regress_dtx_other');
SELECT dtx.grant_saga_definition('regress_dtx_definer.theirs', 'public');
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('regress_dtx_definer.theirs') > 0 AS started;
RESET ROLE;
SELECT dtx.revoke_saga_definition('regress_dtx_definer.theirs', 'public');
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('regress_dtx_definer.theirs');
RESET ROLE;
-- what a superuser has granted needs no owner
SELECT dtx.grant_saga_definition('graph', 'regress_dtx_other');
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('graph') > 0 AS started;
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER one, two TO regress_dtx_other;
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('graph') > 0 AS started;
RESET ROLE;
CREATE USER MAPPING FOR regress_dtx_other SERVER one;
CREATE USER MAPPING FOR regress_dtx_other SERVER two;
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('graph') > 0 AS started;
SELECT dtx.start_saga('chain');
RESET ROLE;
SELECT dtx.start_saga(:'me' || '.graph') > 0 AS started;
SELECT dtx.revoke_saga_definition('graph', 'regress_dtx_other');
-- it is not dropped while sagas of it run; what was started keeps its version
SET ROLE regress_dtx_definer;
SELECT dtx.drop_saga_definition('no such saga');
SELECT dtx.drop_saga_definition(NULL);
SELECT dtx.drop_saga_definition('theirs');
RESET ROLE;
SELECT count(dtx.force_saga(id, 'completed', 'test')) > 0 AS ended FROM dtx.sagas WHERE finished_at IS NULL;
SET ROLE regress_dtx_definer;
SELECT dtx.drop_saga_definition('theirs');
SELECT dtx.start_saga('theirs');
SELECT count(*) FROM dtx.saga_definitions WHERE name = 'theirs';
SELECT dtx.define_saga('theirs', dtx.step('a', NULL, 'SELECT 4'));
RESET ROLE;
SELECT DISTINCT owner, name, version FROM dtx.sagas WHERE owner = 'regress_dtx_definer' ORDER BY 3;
SELECT count(*) FROM dtx_internal.saga_definition_record WHERE dropped;
SELECT dtx.purge_sagas('0') > 0 AS purged;
SELECT count(*) FROM dtx_internal.saga_definition_record WHERE dropped;
-- whose owner was dropped belongs to nobody
DROP OWNED BY regress_dtx_definer;
DROP ROLE regress_dtx_definer;
SET ROLE regress_dtx_other;
SELECT dtx.start_saga('regress_dtx_definer.theirs');
SELECT dtx.drop_saga_definition('.theirs');
RESET ROLE;
SELECT name, version FROM dtx.saga_definitions WHERE owner IS NULL ORDER BY 1, 2;
SELECT DISTINCT owner FROM dtx_internal.saga_definition_record WHERE name = 'theirs' ORDER BY 1;
SELECT dtx.drop_saga_definition('.theirs'), dtx.drop_saga_definition('.chain');
SELECT dtx.drop_saga_definition('.theirs');
-- roles go in and out as names, and never as numbers
CREATE ROLE "regress_dtx -""x";
SELECT '"regress_dtx -""x"'::dtx_internal.saga_role, '"regress_dtx -""x"'::dtx_internal.saga_role::oid::regrole, 'regress_dtx -"x'::dtx_internal.saga_role,
	'-'::dtx_internal.saga_role, '"-"'::dtx_internal.saga_role, '10'::dtx_internal.saga_role, (SELECT oid FROM pg_authid WHERE rolname = 'regress_dtx_other')::dtx_internal.saga_role;
SELECT '"regress_dtx -""x"'::dtx_internal.saga_role::oid AS oid \gset
DROP ROLE "regress_dtx -""x";
SELECT :oid::oid::dtx_internal.saga_role;
SET ROLE regress_dtx_other;
SELECT dtx.drop_saga_definition('theirs');
RESET ROLE;
DROP OWNED BY regress_dtx_friend, regress_dtx_other;
DROP ROLE regress_dtx_friend, regress_dtx_other;
SELECT setval('dtx_internal.saga_id', 1, false) AS numbers_begin_again FROM (SELECT count(*) AS n FROM dtx_internal.saga_record) s WHERE n = 0;
-- not through the trampoline
SELECT dtx_internal.define_saga('direct', ARRAY[dtx.step('a', NULL, 'SELECT 1')]);
