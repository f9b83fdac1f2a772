--
-- What all other tests use: two databases of this cluster as remote servers,
-- and means to see what a transaction did.  Run first.
--
SET client_min_messages = warning;
DROP DATABASE IF EXISTS dtx_one;
DROP DATABASE IF EXISTS dtx_two;
RESET client_min_messages;
CREATE DATABASE dtx_one;
CREATE DATABASE dtx_two;
-- Passes of the resolver come when the tests want them.
ALTER SYSTEM SET pg_dtx.resolve_interval = '1h';
SELECT pg_reload_conf();
CREATE EXTENSION pg_dtx CASCADE;
-- States of sagas change as dtx_internal.saga_transitions() says, or not at all.
CREATE TRIGGER check_saga AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_record
	FOR EACH ROW EXECUTE FUNCTION dtx_internal.saga_check_transition('saga');
CREATE TRIGGER check_step AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_step_record
	FOR EACH ROW WHEN (NEW.step > 0) EXECUTE FUNCTION dtx_internal.saga_check_transition('step');
CREATE TRIGGER check_timer AFTER INSERT OR UPDATE OF state ON dtx_internal.saga_step_record
	FOR EACH ROW WHEN (NEW.step = 0) EXECUTE FUNCTION dtx_internal.saga_check_transition('timer');
SELECT extname, extversion, extnamespace::regnamespace FROM pg_extension WHERE extname = 'pg_dtx';
-- A server that is reached as the tests themselves reach theirs.
CREATE PROCEDURE make_server(name text, dbname text) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE SERVER %I FOREIGN DATA WRAPPER postgres_fdw
		OPTIONS (host %L, port %L, dbname %L)', name,
		split_part(current_setting('unix_socket_directories'), ',', 1),
		current_setting('port'), dbname);
END
$$;
CREATE PROCEDURE make_mapping(server name, options text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER %I OPTIONS (user %L %s)',
		server, current_user, options);
END
$$;
CALL make_server('one', 'dtx_one');
CALL make_server('two', 'dtx_two');
CALL make_mapping('one');
CALL make_mapping('two');
\c dtx_one
CREATE TABLE acct (id int PRIMARY KEY, bal int NOT NULL CHECK (bal >= 0));
\c dtx_two
CREATE TABLE acct (id int PRIMARY KEY, bal int NOT NULL CHECK (bal >= 0));
\c contrib_regression
CREATE TABLE acct0 (id int PRIMARY KEY, bal int NOT NULL CHECK (bal >= 0));
CREATE FOREIGN TABLE acct1 (id int, bal int) SERVER one OPTIONS (table_name 'acct');
CREATE FOREIGN TABLE acct2 (id int, bal int) SERVER two OPTIONS (table_name 'acct');
-- Every test begins with "CALL begin_test()": four accounts on every node.
CREATE TABLE mark AS SELECT * FROM dtx.stat;
CREATE PROCEDURE begin_test() LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM acct0;
	DELETE FROM acct1;
	DELETE FROM acct2;
	INSERT INTO acct0 SELECT i, 100 FROM generate_series(1, 4) i;
	INSERT INTO acct1 SELECT i, 100 FROM generate_series(1, 4) i;
	INSERT INTO acct2 SELECT i, 100 FROM generate_series(1, 4) i;
	COMMIT;
	DELETE FROM mark;
	INSERT INTO mark SELECT * FROM dtx.stat;
END
$$;
CREATE VIEW balances AS
	SELECT id, acct0.bal AS here, acct1.bal AS one, acct2.bal AS two
	FROM acct0 FULL JOIN acct1 USING (id) FULL JOIN acct2 USING (id)
	ORDER BY id;
-- What was counted since the last look.
CREATE FUNCTION counted(OUT one_phase bigint, OUT two_phase bigint,
	OUT prepared bigint, OUT prepare_failed bigint) LANGUAGE plpgsql AS $$
DECLARE
	old mark;
	new mark;
BEGIN
	SELECT * INTO old FROM mark;
	SELECT * INTO new FROM dtx.stat;
	one_phase := new.one_phase - old.one_phase;
	two_phase := new.two_phase - old.two_phase;
	prepared := new.prepared - old.prepared;
	prepare_failed := new.prepare_failed - old.prepare_failed;
	DELETE FROM mark;
	INSERT INTO mark SELECT new.*;
END
$$;
-- What is prepared on any of the servers.
CREATE VIEW prepared AS
	SELECT count(*) AS prepared FROM pg_prepared_xacts WHERE gid LIKE 'dtx:%';
-- Decisions of our own making, in a relation that SQL can't write.
CREATE PROCEDURE change_decisions(command text) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE pg_class SET relkind = 'r', relhasrules = false WHERE oid = 'dtx_internal.decision'::regclass;
	-- with another file, or nobody would look for what we write (src/state/decision_map.c)
	CREATE TEMP TABLE kept AS TABLE dtx_internal.decision;
	TRUNCATE dtx_internal.decision;
	INSERT INTO dtx_internal.decision TABLE kept;
	DROP TABLE kept;
	EXECUTE command;
	UPDATE pg_class SET relkind = 'm', relhasrules = true WHERE oid = 'dtx_internal.decision'::regclass;
END
$$;
-- The decision to commit a transaction, as a coordinator records it; "remote" are
-- the transactions on the servers.
CREATE PROCEDURE record_decision(boot bigint, xid xid8, servers name[], remote bigint[])
LANGUAGE plpgsql AS $$
BEGIN
	CALL change_decisions(format('
		INSERT INTO dtx_internal.decision (boot_id, xid, database, userid, decided_at, serverids, umids,
			system_ids, remote_xids, timelines, endpoints)
		SELECT %L, %L, (SELECT oid FROM pg_database WHERE datname = current_database()), 10, now(),
			array_agg(srvid ORDER BY srvname),
			array_agg(umid ORDER BY srvname), array_agg(system_identifier), %L,
			array_agg(timeline_id), array_agg(0)
		FROM pg_user_mappings, pg_control_system(), pg_control_checkpoint() WHERE srvname = ANY (%L)',
		boot, xid, remote, servers));
END
$$;
-- A gid without what differs from run to run: xid and number.
CREATE FUNCTION short(gid text) RETURNS text LANGUAGE sql AS
	$$ SELECT regexp_replace(gid, '^dtx:[0-9a-f]{16}:\d+:[0-9a-f]{16}:(\d+:\d+):[0-9a-f]{16}$', '\1') $$;
-- Wait until a query returns true, at most a minute.
CREATE PROCEDURE wait_until(query text) LANGUAGE plpgsql AS $$
DECLARE
	result bool;
BEGIN
	FOR i IN 1 .. 600 LOOP
		EXECUTE query INTO result;
		COMMIT;
		IF result THEN
			RETURN;
		END IF;
		PERFORM pg_sleep(0.1);
		COMMIT;
	END LOOP;
	RAISE EXCEPTION 'timed out waiting for: %', query;
END
$$;
CALL begin_test();
TABLE balances;
