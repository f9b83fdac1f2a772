--
-- Remote SQL among everything else: savepoints and foreign tables in either
-- order, async scans, triggers, cursors, lateral joins, roles, hostile search
-- paths, a server that is a coordinator itself.
--
CALL begin_test();
\set SHOW_CONTEXT never

-- a savepoint is reached by a foreign table first, or by a function first
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
SAVEPOINT a;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 2 WHERE id = 1');
SAVEPOINT b;
UPDATE acct1 SET bal = 3 WHERE id = 1;
SELECT dtx.exec('two', 'UPDATE acct SET bal = 3 WHERE id = 1');
SAVEPOINT c;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 4 WHERE id = 1');
UPDATE acct2 SET bal = 4 WHERE id = 1;
ROLLBACK TO c;
SELECT one, two FROM balances WHERE id = 1;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT bal FROM acct WHERE id = 1') AS t(server name, bal int) ORDER BY server;
RELEASE b;
SELECT one, two FROM balances WHERE id = 1;
ROLLBACK TO a;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT bal FROM acct WHERE id = 1') AS t(server name, bal int) ORDER BY server;
SELECT one, two FROM balances WHERE id = 1;
SELECT dtx.exec('two', 'UPDATE acct SET bal = 5 WHERE id = 1');
COMMIT;
SELECT one, two FROM balances WHERE id = 1;
SELECT * FROM counted();
-- all that was done on the servers is rolled back
BEGIN;
UPDATE acct0 SET bal = bal;
SAVEPOINT a;
SELECT dtx.exec_all('{one,two}', 'UPDATE acct SET bal = 0');
ROLLBACK TO a;
COMMIT;
SELECT one, two FROM balances WHERE id = 1;
-- a procedure that ends transactions
CREATE PROCEDURE many() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 4 LOOP
		PERFORM dtx.exec_all('{one,two}', 'UPDATE acct SET bal = bal + $1::int WHERE id = 2', (10 ^ i)::text);
		IF i = 3 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END
$$;
CALL many();
SELECT one, two FROM balances WHERE id = 2;
DROP PROCEDURE many();
-- without two-phase commit, postgres_fdw's own is left
SET pg_dtx.two_phase_commit = off;
SET pg_dtx.require = off;
SELECT * FROM counted();
BEGIN;
SELECT dtx.exec_all('{one,two}', 'UPDATE acct SET bal = 0 WHERE id = 2');
COMMIT;
SELECT * FROM counted();
SELECT one, two FROM balances WHERE id = 2;
RESET pg_dtx.two_phase_commit;
RESET pg_dtx.require;

-- in the rows of an asynchronous scan of the same servers, with errors
CALL begin_test();
ALTER SERVER one OPTIONS (ADD async_capable 'true', ADD fetch_size '1');
ALTER SERVER two OPTIONS (ADD async_capable 'true', ADD fetch_size '1');
CREATE VIEW both_servers AS SELECT id, bal FROM acct1 UNION ALL SELECT id, bal FROM acct2;
CREATE FUNCTION try(server name, command text) RETURNS bigint LANGUAGE plpgsql AS $$
BEGIN
	RETURN dtx.exec(server, command);
EXCEPTION WHEN division_by_zero THEN
	RETURN -1;
END
$$;
EXPLAIN (COSTS OFF) SELECT dtx.exec('one', 'SELECT 1') FROM both_servers;
SELECT id, dtx.exec('one', 'UPDATE acct SET bal = bal + 1 WHERE id = $1', id::text), try('two', 'SELECT 1/0'),
	try('two', 'UPDATE acct SET bal = bal + 1 WHERE id = 4') FROM both_servers ORDER BY id;
SELECT id, one, two FROM balances;
DROP FUNCTION try(name, text);
DROP VIEW both_servers;
ALTER SERVER one OPTIONS (DROP async_capable, DROP fetch_size);
ALTER SERVER two OPTIONS (DROP async_capable, DROP fetch_size);

-- in triggers of a foreign table
CREATE FUNCTION log_there() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx.exec_all('{one,two}', 'UPDATE acct SET bal = bal + 1 WHERE id = 4');
	RETURN COALESCE(NEW, OLD);
END
$$;
CALL begin_test();
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON acct1 FOR EACH ROW EXECUTE FUNCTION log_there();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON acct1 FOR EACH ROW EXECUTE FUNCTION log_there();
INSERT INTO acct1 VALUES (10, 10), (11, 10);
UPDATE acct1 SET bal = 11 WHERE id >= 10;
DELETE FROM acct1 WHERE id = 10 RETURNING *;
COPY acct1 FROM stdin;
12	12
13	13
\.
DROP TRIGGER before_row ON acct1;
DROP TRIGGER after_row ON acct1;
SELECT id, one, two FROM balances WHERE id >= 4;
-- ... at COMMIT
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON acct0 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION log_there();
BEGIN;
UPDATE acct0 SET bal = bal WHERE id = 1;
COMMIT;
SELECT id, one, two FROM balances WHERE id = 4;
DROP TRIGGER at_commit ON acct0;
DROP FUNCTION log_there();

-- in cursors
CALL begin_test();
BEGIN;
DECLARE c CURSOR FOR SELECT id, dtx.exec('one', 'UPDATE acct SET bal = bal + 1 WHERE id = $1', id::text) FROM acct2 ORDER BY id;
FETCH c;
SAVEPOINT a;
FETCH c;
ROLLBACK TO a;
FETCH c;
COMMIT;
SELECT id, one FROM balances;
BEGIN;
DECLARE c SCROLL CURSOR WITH HOLD FOR SELECT * FROM dtx.query('one', 'SELECT * FROM generate_series(1, 9)') AS t(i int);
FETCH 2 FROM c;
COMMIT;
FETCH 2 FROM c;
FETCH PRIOR FROM c;
CLOSE c;

-- in a select list, in joins, and once more for every row
SELECT dtx.query_json('one', 'SELECT generate_series(1, 3) AS i') LIMIT 2;
SELECT dtx.exec_all('{one,two}', 'SELECT 1'), generate_series(1, 3) AS i;
SELECT * FROM ROWS FROM (dtx.query('one', 'SELECT 1, 2') AS (a int, b int), dtx.query('two', 'SELECT generate_series(1, 2)') AS (c int)) WITH ORDINALITY;
SELECT i, t.* FROM generate_series(1, 3) i, LATERAL dtx.query_all('{one,two}', 'SELECT $1::int * 2', i::text) AS t(server name, twice int) ORDER BY 1, 2;
SELECT i, t.* FROM generate_series(1, 3) i LEFT JOIN dtx.query('one', 'SELECT generate_series(2, 3)') AS t(j int) ON i = j ORDER BY i;
SELECT (SELECT j FROM dtx.query('one', 'SELECT $1::int + 1', i::text) AS t(j int)) FROM generate_series(1, 2) i;
CREATE MATERIALIZED VIEW copied AS SELECT * FROM dtx.query('one', 'SELECT id, bal FROM acct') AS t(id int, bal int);
SELECT dtx.exec('one', 'UPDATE acct SET bal = 7 WHERE id = 1');
REFRESH MATERIALIZED VIEW copied;
SELECT * FROM copied ORDER BY id;
DROP MATERIALIZED VIEW copied;

-- composite types, arrays of them, bytea, there and back
SELECT dtx.exec('one', 'CREATE TYPE thing AS (name text, n int); CREATE TYPE things AS (list thing[], day date)');
CREATE TYPE thing AS (name text, n int);
CREATE TYPE things AS (list thing[], day date);
SELECT t.*, (b).list[2].name IS NULL AS isnull FROM dtx.query('one', 'SELECT $1::thing, ($1::thing).n, $2::things, $3::bytea, $4::text[], $5::int',
	ROW('it''s "a, b\c"', 5)::thing::text, ROW(ARRAY[ROW('x', 1), ROW(NULL, NULL)]::thing[], date '2020-02-03')::things::text,
	'\x00ff5c27'::bytea::text, ARRAY['a,b', NULL, '"', '']::text, NULL) AS t(a thing, n int, b things, c bytea, d text[], e int);
DROP TYPE things, thing;
SELECT dtx.exec('one', 'DROP TYPE things, thing');
\set SHOW_CONTEXT errors
-- good JSON, but not good jsonb
SELECT * FROM dtx.query_json('one', $$SELECT i, CASE i WHEN 2 THEN '"\u0000"' ELSE '1' END::json AS j FROM generate_series(1, 3) i$$);
\set SHOW_CONTEXT never
SELECT * FROM dtx.query_json('one', $$SELECT 'NaN'::float8 AS nan, 'infinity'::timestamptz AS inf, interval '1 day -2 hours' AS i, '12'::money AS m,
	'{}'::int[] AS none, '{a,"b c",NULL}'::text[] AS some, '{{1,2},{3,4}}'::int[] AS two, 1::oid AS o, '\x00ff'::bytea AS b, '"x"'::jsonb AS x,
	'[1, {"a": null}]'::json AS y, date '0044-03-15 BC' AS d, 12345678901234567890.10 AS n, '{1,NULL}'::bool[] AS t, '1 2'::int2vector AS v$$);

-- the role is put back, too: who prepares must be able to finish
\c dtx_one
CREATE ROLE regress_dtx_owner;
CREATE ROLE regress_dtx_login LOGIN IN ROLE regress_dtx_owner;
GRANT CREATE ON SCHEMA public TO regress_dtx_owner;
\c contrib_regression
CALL make_server('as_login', 'dtx_one');
CREATE USER MAPPING FOR CURRENT_USER SERVER as_login OPTIONS (user 'regress_dtx_login');
BEGIN;
SELECT dtx.exec('as_login', 'SET LOCAL ROLE regress_dtx_owner; CREATE TABLE owned ()');
SELECT * FROM dtx.query('as_login', 'SELECT current_user') AS t(who name);
SELECT dtx.exec('two', 'UPDATE acct SET bal = bal');
COMMIT;
SELECT * FROM dtx.query('as_login', 'SELECT relowner::regrole FROM pg_class WHERE relname = ''owned''') AS t(owner text);
TABLE prepared;
SELECT dtx.exec('as_login', 'SET ROLE regress_dtx_owner');
SELECT * FROM dtx.query('as_login', 'SELECT current_user') AS t(who name);
SELECT * FROM dtx.query('one', 'SET SESSION AUTHORIZATION regress_dtx_login; SET ROLE regress_dtx_owner; SELECT session_user, current_user') AS t(who name, acts_as name);
SELECT who = acts_as AND who <> 'regress_dtx_login' AS same, role FROM dtx.query('one', 'SELECT session_user, current_user, current_setting(''role'')') AS t(who name, acts_as name, role text);
SELECT dtx.exec('as_login', 'SET LOCAL ROLE regress_dtx_owner; DROP TABLE owned');
SET client_min_messages = warning;
DROP SERVER as_login CASCADE;
RESET client_min_messages;
\c dtx_one
REVOKE CREATE ON SCHEMA public FROM regress_dtx_owner;
\c contrib_regression

-- a read-only transaction stays one, whatever the command says
BEGIN READ ONLY;
SELECT dtx.exec('one', 'SET TRANSACTION READ WRITE; UPDATE acct SET bal = 0');
ROLLBACK;
BEGIN;
SAVEPOINT a;
SET TRANSACTION READ ONLY;
SELECT dtx.exec('one', 'SELECT 1');
ROLLBACK TO a;
SELECT dtx.exec('one', 'UPDATE acct SET bal = bal');
COMMIT;

-- functions that belong to nobody but superusers, and never to a parallel worker
SELECT proname, proparallel, EXISTS (SELECT FROM aclexplode(proacl) WHERE grantee = 0) AS to_public FROM pg_proc
	WHERE pronamespace = 'dtx'::regnamespace AND proname IN ('exec', 'exec_all', 'query', 'query_all', 'query_json') ORDER BY proname;
-- a function that lends its owner's rights
CREATE ROLE regress_dtx_exec;
CREATE FUNCTION lent() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$SELECT dtx.exec('one', 'SELECT 1')$$;
SET ROLE regress_dtx_exec;
SELECT lent();
RESET ROLE;
DROP FUNCTION lent();
DROP ROLE regress_dtx_exec, regress_dtx_owner, regress_dtx_login;

-- schemas that shadow everything, on both sides
\set evil 'CREATE SCHEMA evil; CREATE FUNCTION evil.set_config(text, text, bool) RETURNS text LANGUAGE plpgsql AS ''BEGIN RAISE ''''evil set_config''''; END''; CREATE FUNCTION evil.txid_current_if_assigned() RETURNS bigint LANGUAGE plpgsql AS ''BEGIN RAISE ''''evil txid''''; END''; CREATE FUNCTION evil.row_to_json(record) RETURNS json LANGUAGE plpgsql AS ''BEGIN RAISE ''''evil row_to_json''''; END''; CREATE FUNCTION evil.unequal(text, text) RETURNS bool LANGUAGE plpgsql AS ''BEGIN RAISE ''''evil operator''''; END''; CREATE OPERATOR evil.= (FUNCTION = evil.unequal, LEFTARG = text, RIGHTARG = text); CREATE DOMAIN evil.int4 AS text; CREATE TABLE evil.pg_foreign_server (srvname name)'
\c dtx_one
:evil;
ALTER DATABASE dtx_one SET search_path = evil, pg_catalog, public;
\c contrib_regression
:evil;
SET search_path = evil, pg_catalog, public;
BEGIN;
SELECT dtx.exec('one', 'UPDATE acct SET bal = bal');
SELECT * FROM dtx.query('one', 'SELECT bal FROM acct WHERE id = 1') AS t(bal pg_catalog.int4);
SELECT * FROM dtx.query_json('one', 'SELECT bal FROM acct WHERE id = 1');
SELECT * FROM dtx.query_all('{one,two}', 'SELECT bal FROM acct WHERE id = 1') AS t(server name, bal pg_catalog.int4) ORDER BY bal;
SELECT * FROM dtx.exec_all('{one,two}', 'SELECT bal FROM acct WHERE id = 1') ORDER BY rows;
UPDATE acct2 SET bal = bal;
COMMIT;
SELECT * FROM dtx.query('one', 'SELECT set_config(''a.b'', ''c'', true)') AS t(a text);
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA evil CASCADE;
\c dtx_one
SET client_min_messages = warning;
ALTER DATABASE dtx_one RESET search_path;
DROP SCHEMA evil CASCADE;
\c contrib_regression

-- a server that is a coordinator itself
CALL make_server('again', 'contrib_regression');
CALL make_mapping('again');
SELECT dtx.exec('again', $$SELECT dtx.exec('one', 'UPDATE acct SET bal = 42 WHERE id = 1')$$);
SELECT * FROM dtx.query('again', $$SELECT * FROM dtx.query('one', 'SELECT bal FROM acct WHERE id = 1') AS t(bal int)$$) AS t(bal int);
\set VERBOSITY terse
BEGIN;
SAVEPOINT a;
SELECT dtx.exec('again', $$SELECT dtx.exec('one', 'SELECT 1/0')$$);
ROLLBACK TO a;
SELECT dtx.exec('again', $$SELECT dtx.exec('one', 'UPDATE acct SET bal = 43 WHERE id = 1')$$);
COMMIT;
SELECT id, one, two FROM balances WHERE id = 1;
-- it can't be prepared if it wrote on other servers
BEGIN;
SELECT dtx.exec('again', 'UPDATE acct1 SET bal = 0 WHERE id = 1');
SELECT dtx.exec('two', 'UPDATE acct SET bal = 0 WHERE id = 1');
COMMIT;
-- ... nor if a function did, and it has no transaction id of its own
CREATE FUNCTION write_one() RETURNS bigint LANGUAGE sql AS $$SELECT dtx.exec('one', 'UPDATE acct SET bal = 0 WHERE id = 1')$$;
CREATE FUNCTION read_one() RETURNS bigint LANGUAGE sql AS $$SELECT bal FROM acct1 WHERE id = 1$$;
BEGIN;
SELECT dtx.exec('again', 'SELECT write_one()');
SELECT dtx.exec('two', 'UPDATE acct SET bal = 0 WHERE id = 1');
COMMIT;
-- ... nor if it wrote there by something that does not look like it
SELECT dtx.exec('one', 'CREATE FUNCTION quietly() RETURNS int LANGUAGE sql AS $$UPDATE public.acct SET bal = 0 WHERE id = 1 RETURNING bal$$');
CREATE FUNCTION write_quietly() RETURNS bigint LANGUAGE sql AS $$SELECT dtx.exec('one', 'SELECT quietly()')$$;
BEGIN;
SELECT dtx.exec('again', 'SELECT write_quietly()');
SELECT dtx.exec('two', 'UPDATE acct SET bal = 0 WHERE id = 1');
COMMIT;
-- who is asked is not asked again, unless something was sent meanwhile
BEGIN;
SHOW pg_dtx.wrote_elsewhere;
SELECT read_one();
SHOW pg_dtx.wrote_elsewhere;
SELECT dtx.exec('one', 'SELECT quietly()');
SHOW pg_dtx.wrote_elsewhere;
ROLLBACK;
-- a question that fails, in a subtransaction
BEGIN;
SELECT read_one();
SAVEPOINT a;
SELECT pid AS remote_pid FROM dtx.query('one', 'SELECT pg_backend_pid()') AS t(pid int) \gset
SELECT pg_terminate_backend(:remote_pid, 10000);
SET client_min_messages = error;
SHOW pg_dtx.wrote_elsewhere;
ROLLBACK TO a;
COMMIT;
RESET client_min_messages;
SELECT dtx.exec('one', 'DROP FUNCTION quietly()');
-- it may read there
BEGIN;
SELECT * FROM dtx.query('again', 'SELECT read_one()') AS t(bal int);
SELECT dtx.exec('two', 'UPDATE acct SET bal = 99 WHERE id = 1');
COMMIT;
SHOW pg_dtx.wrote_elsewhere;
DROP FUNCTION write_one(), read_one(), write_quietly();
\set VERBOSITY default
SELECT id, one, two FROM balances WHERE id = 1;
SET client_min_messages = warning;
DROP SERVER again CASCADE;
RESET client_min_messages;
-- parameters that cannot be
SELECT dtx.exec('one', 'SELECT 1', VARIADIC array_fill('x'::text, ARRAY[70000]));
-- what would end or divide the transaction, or empty the session, is refused
DO $$
DECLARE
	refused text;
BEGIN
	FOREACH refused IN ARRAY '{START TRANSACTION, ROLLBACK, RELEASE a, ROLLBACK TO a, PREPARE TRANSACTION ''a'', COMMIT PREPARED ''a'',
		ROLLBACK PREPARED ''a'', DEALLOCATE ALL, CLOSE ALL, DISCARD PLANS}'::text[]
	LOOP
		BEGIN
			PERFORM dtx.exec('one', refused);
			RAISE WARNING '%: done', refused;
		EXCEPTION WHEN OTHERS THEN
			RAISE NOTICE '%: % %', refused, SQLSTATE, SQLERRM;
		END;
	END LOOP;
END $$;
\set SHOW_CONTEXT errors
TABLE prepared;
