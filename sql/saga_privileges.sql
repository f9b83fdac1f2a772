--
-- Who may see and do what with sagas; what is forgotten.
--
\set SHOW_CONTEXT never
CALL end_all();
-- No workers: the tests are the workers.
ALTER SYSTEM SET pg_dtx.saga_workers = 0;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n = 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
CREATE ROLE regress_dtx_ann LOGIN;
CREATE ROLE regress_dtx_bob LOGIN;
CREATE ROLE regress_dtx_team LOGIN;
CREATE ROLE regress_dtx_member LOGIN IN ROLE regress_dtx_team;
CREATE ROLE regress_dtx_monitor IN ROLE pg_monitor;
-- by default nobody may do anything
SET ROLE regress_dtx_ann;
SELECT dtx.start_saga('chain');
SELECT dtx.wait_saga(1);
SELECT dtx.cancel_saga(1, 'x');
SELECT dtx.retry_saga(1);
SELECT dtx.skip_step(1, 'a', 'x');
SELECT dtx.force_saga(1, 'completed', 'x');
SELECT dtx.signal_saga(1, 'x');
SELECT dtx.claim_step('q', 'w');
SELECT dtx.heartbeat_step(NULL);
SELECT dtx.complete_step(NULL);
SELECT dtx.fail_step(NULL, 'x');
SELECT dtx.purge_sagas('0');
SELECT count(*) FROM dtx.sagas;
SELECT count(*) FROM dtx_internal.saga_record;
SELECT count(*) FROM dtx_internal.saga_history_record;
DELETE FROM dtx.saga_history;
UPDATE dtx.sagas SET state = 'completed';
DELETE FROM dtx_internal.saga_outbox;
SELECT count(*) FROM dtx_internal.saga_outbox;
BEGIN;
LOCK TABLE dtx_internal.saga_outbox IN ACCESS SHARE MODE;
ROLLBACK;
SELECT count(*) FROM dtx.take_saga_events('me');
SELECT dtx.define_saga('mine', dtx.step('a', NULL, 'SELECT 1'));
SELECT dtx.grant_saga_definition('mine', 'public');
SELECT dtx.revoke_saga_definition('mine', 'public');
SELECT dtx.drop_saga_definition('mine');
RESET ROLE;
DO $$
DECLARE
	f regprocedure;
BEGIN
	FOR f IN SELECT p.oid FROM pg_proc p WHERE p.pronamespace = 'dtx'::regnamespace AND p.prosrc IN ('dtx_sql_saga_call', 'dtx_sql_wait_saga') LOOP
		EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO regress_dtx_ann, regress_dtx_bob, regress_dtx_team, regress_dtx_monitor', f);
	END LOOP;
END
$$;
SELECT dtx.define_saga('private', dtx.step('a', NULL, 'SELECT 1'), dtx.step_external('b', 'private'), dtx.step_signal('c'));
SELECT dtx.define_saga('private one', dtx.step('a', NULL, 'SELECT 1', kind => 'retriable', max_attempts => 1));
SELECT dtx.grant_saga_definition('private', 'public'), dtx.grant_saga_definition('private one', 'public');
-- who starts it is who is acting
SET ROLE regress_dtx_ann;
SELECT dtx.start_saga('private', '"secret"', 'k') AS ann \gset
RESET ROLE;
SET SESSION AUTHORIZATION regress_dtx_bob;
SELECT dtx.start_saga('private', key => 'k') AS bob \gset
RESET SESSION AUTHORIZATION;
CREATE FUNCTION start_private() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT dtx.start_saga('private') $$;
ALTER FUNCTION start_private() OWNER TO regress_dtx_team;
SET ROLE regress_dtx_ann;
SELECT start_private() AS team \gset
RESET ROLE;
SELECT role, key FROM dtx.sagas WHERE name = 'private' ORDER BY id;
SELECT :ann <> :bob AS another;
-- seeing
SET ROLE regress_dtx_ann;
SELECT role, input FROM dtx.sagas;
SELECT count(*), bool_and(saga = :ann) AS mine FROM dtx.saga_steps;
SELECT name, started FROM dtx.saga_stat;
SELECT dtx.explain_saga(:bob);
SELECT count(*) FROM dtx.explain_saga(:ann);
-- not even by means of a function that is cheap
CREATE FUNCTION pg_temp.peep(jsonb) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$ BEGIN RAISE NOTICE 'seen: %', $1; RETURN true; END $$;
SELECT role FROM dtx.sagas WHERE pg_temp.peep(input);
SET ROLE regress_dtx_member;
SELECT role FROM dtx.sagas;
-- who monitors sees how they do, and nothing of what is in them
SET ROLE regress_dtx_monitor;
SELECT role, state, key, input, reason FROM dtx.sagas WHERE name = 'private' ORDER BY id;
SELECT started, pending FROM dtx.saga_stat WHERE name = 'private';
SELECT count(*) FROM dtx.saga_definition_steps;
SELECT count(*) > 0 AS names FROM dtx.saga_definitions;
RESET ROLE;
-- acting
SET ROLE regress_dtx_bob;
\set VERBOSITY terse
SELECT dtx.wait_saga(:ann, '1 ms');
SELECT dtx.cancel_saga(:ann, 'x');
SELECT dtx.retry_saga(:ann);
SELECT dtx.skip_step(:ann, 'a', 'x');
SELECT dtx.force_saga(:ann, 'completed', 'x');
SELECT dtx.signal_saga(:ann, 'c');
SET ROLE regress_dtx_monitor;
SELECT dtx.cancel_saga(:ann, 'x');
RESET ROLE;
\set VERBOSITY default
-- queues: those for whom one may act
CREATE PROCEDURE work_for(who regrole) LANGUAGE plpgsql AS $$
DECLARE
	t record;
BEGIN
	LOOP
		SELECT * INTO t FROM dtx_internal.saga_take(who);
		EXIT WHEN NOT t.more AND t.saga IS NULL;
		IF t.saga IS NOT NULL THEN
			PERFORM dtx_internal.saga_done(t.saga, t.step, t.attempt, t.direction, NULL);
		END IF;
	END LOOP;
END
$$;
CALL work_for('regress_dtx_ann');
CALL work_for('regress_dtx_bob');
CALL work_for('regress_dtx_team');
SET ROLE regress_dtx_ann;
SELECT token, saga = :ann AS mine FROM dtx.claim_step('private', 'w', n => 10) \gset
\echo :mine
SET ROLE regress_dtx_bob;
\set VERBOSITY terse
SELECT dtx.complete_step(:'token');
SELECT dtx.fail_step(:'token', 'x');
SELECT dtx.heartbeat_step(:'token');
\set VERBOSITY default
RESET ROLE;
GRANT regress_dtx_ann, regress_dtx_bob TO regress_dtx_team;
SET ROLE regress_dtx_team;
SELECT saga = :bob AS bob, saga = :team AS team FROM dtx.claim_step('private', 'w', n => 10);
SELECT dtx.complete_step(:'token');
SELECT dtx.signal_saga(:ann, 'c');
RESET ROLE;
SELECT by_whom FROM dtx.saga_history WHERE saga = :ann ORDER BY id;
SET ROLE regress_dtx_bob;
SELECT count(*) > 0 AS some, bool_and(saga = :bob) AS mine FROM dtx.saga_history;
SET ROLE regress_dtx_monitor;
SELECT count(DISTINCT saga) > 1 AS several, count(outcome) > 1 AS outcomes, count(message) AS messages,
	count(detail) AS details, count(hint) AS hints, count(by_whom) AS by_whom FROM dtx.saga_history;
SELECT count(DISTINCT saga) > 1 AS several, count(state) > 1 AS states, count(result) AS results, count(error) AS errors,
	count(worker) AS workers FROM dtx.saga_steps;
RESET ROLE;
CALL work_for('regress_dtx_ann');
SELECT state FROM dtx.sagas WHERE id = :ann;
-- events: each takes his own, and nobody touches the table
SET ROLE regress_dtx_bob;
SELECT count(*) FROM dtx.take_saga_events('me');
SET ROLE regress_dtx_monitor;
SELECT count(*) FROM dtx.take_saga_events('me');
SELECT count(*) FROM dtx_internal.saga_outbox;
BEGIN;
LOCK TABLE dtx_internal.saga_outbox IN ACCESS SHARE MODE;
ROLLBACK;
SET ROLE regress_dtx_ann;
SELECT dtx.take_saga_events('me', 0);
SELECT dtx.take_saga_events('me', NULL);
BEGIN;
SELECT saga = :ann AS mine, name, role, event FROM dtx.take_saga_events('me', 10);
SELECT count(*) FROM dtx.take_saga_events('me', 10);
ROLLBACK;
SELECT saga = :ann AS mine, name, role, event, at <= clock_timestamp() AS dated, payload FROM dtx.take_saga_events('me', 1);
SELECT count(*) FROM dtx.take_saga_events('me');
RESET ROLE;
-- forgetting
SET ROLE regress_dtx_bob;
SELECT dtx.purge_sagas('0');
SET ROLE regress_dtx_ann;
SELECT dtx.start_saga('private', (SELECT input FROM dtx.sagas WHERE id = :ann), key => 'k') = :ann AS same;
SELECT dtx.purge_sagas('1 hour');
SELECT dtx.purge_sagas('0');
SELECT count(*) FROM dtx.sagas;
SELECT dtx.start_saga('private', (SELECT input FROM dtx.sagas WHERE id = :ann), key => 'k') = :ann AS same;
SELECT dtx.purge_sagas(NULL);
SELECT dtx.purge_sagas('-1 s');
RESET ROLE;
-- neither what goes on, nor what has failed
SET ROLE regress_dtx_ann;
SELECT dtx.start_saga('private one') AS id \gset
RESET ROLE;
SELECT dtx_internal.saga_error(t.saga, t.step, 1, 'execute', '22000', 'x', NULL, NULL, NULL) FROM dtx_internal.saga_take('regress_dtx_ann'::regrole, :id) t;
SET ROLE regress_dtx_ann;
SELECT dtx.purge_sagas('0');
SELECT state FROM dtx.sagas ORDER BY id;
RESET ROLE;
CALL end_all();
DELETE FROM dtx_internal.saga_consumer_record;
SELECT dtx.purge_sagas('0') > 0 AS purged;
SELECT (SELECT count(*) FROM dtx_internal.saga_record) + (SELECT count(*) FROM dtx_internal.saga_data) + (SELECT count(*) FROM dtx_internal.saga_step_record)
	+ (SELECT count(*) FROM dtx_internal.saga_result) + (SELECT count(*) FROM dtx_internal.saga_history_record) + (SELECT count(*) FROM dtx_internal.saga_external)
	+ (SELECT count(*) FROM dtx_internal.saga_inbox) + (SELECT count(*) FROM dtx_internal.saga_note) + (SELECT count(*) FROM dtx_internal.saga_outage) + (SELECT count(*) FROM dtx_internal.saga_key) + (SELECT count(*) FROM dtx_internal.saga_outbox) AS rows_left;
DROP FUNCTION start_private();
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dtx FROM regress_dtx_ann, regress_dtx_bob, regress_dtx_team, regress_dtx_monitor;
DROP OWNED BY regress_dtx_ann, regress_dtx_bob, regress_dtx_team, regress_dtx_member, regress_dtx_monitor;
DROP ROLE regress_dtx_ann, regress_dtx_bob, regress_dtx_team, regress_dtx_member, regress_dtx_monitor;
ALTER SYSTEM RESET pg_dtx.saga_workers;
SELECT pg_reload_conf();
-- The transaction that has started a saga can't wait for it, whatever its
-- savepoints.
SELECT dtx.define_saga('waited', dtx.step('a', execute => 'SELECT 1'));
\set VERBOSITY sqlstate
BEGIN;
SAVEPOINT one;
SELECT dtx.start_saga('waited') > 0 AS started;
RELEASE one;
SELECT dtx.wait_saga(max(id), '1 min') FROM dtx.sagas;
ROLLBACK;
\set VERBOSITY default
SELECT dtx.drop_saga_definition('waited');
