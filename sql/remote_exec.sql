--
-- dtx.exec(), dtx.query() and relatives: remote SQL in the transaction.
--
CALL begin_test();
-- one server: one phase; DDL and several statements at once
SELECT dtx.exec('one', 'CREATE TABLE item (id int PRIMARY KEY, name text, tags text[]);
	INSERT INTO item SELECT i, ''item '' || i FROM generate_series(1, 5) i;
	UPDATE item SET tags = ''{a,b}'' WHERE id < 3');
SELECT * FROM counted();
-- two servers: two phases; a table here and there in one transaction
BEGIN;
SELECT dtx.exec('two', 'CREATE TABLE item (id int PRIMARY KEY, name text, tags text[])');
SELECT dtx.exec('one', 'DELETE FROM item WHERE id = 5');
COMMIT;
SELECT * FROM counted();
-- rolled back on both
BEGIN;
SELECT dtx.exec_all('{one,two}', 'DROP TABLE item');
ROLLBACK;
SELECT * FROM dtx.query('one', 'SELECT count(*) FROM item') AS t(n bigint);

-- parameters are bound
SELECT dtx.exec('two', 'INSERT INTO item VALUES ($1, $2, $3)', '1', $$it's; DROP TABLE item$$, NULL);
SELECT dtx.exec('two', 'INSERT INTO item VALUES ($1, $2)', VARIADIC ARRAY['2', NULL]);
SELECT dtx.exec('two', 'UPDATE item SET name = $2 WHERE id = $1', 2::text, '{"x": 1}'::jsonb::text);
SELECT dtx.exec(server => 'two', command => 'UPDATE item SET tags = $1', VARIADIC params => ARRAY['{q,NULL,"r s"}']);
SELECT * FROM dtx.query('two', 'SELECT id, name, tags FROM item WHERE id = ANY ($1) ORDER BY id', '{1,2}')
	AS t(id int, name text, tags text[]);
SELECT dtx.exec('two', 'SELECT $1::int', '1', '2');
SELECT dtx.exec('two', 'SELECT $1::int', 'x');
SELECT dtx.exec('two', 'SELECT 1; SELECT $1', '1');
-- ... of any type: as it is here
SELECT dtx.exec('two', 'UPDATE item SET id = $1, name = $2, tags = $3 WHERE id = $4', 7, 'seven', ARRAY['a', NULL], 2);
SELECT * FROM dtx.query('two', 'SELECT id, name, tags FROM item WHERE id = ANY ($1)', ARRAY[7, 8])
	AS t(id int, name text, tags text[]);
SELECT dtx.exec('two', 'UPDATE item SET id = $1 WHERE id = $2', VARIADIC ARRAY[2, 7]);
SET DateStyle = 'SQL, DMY';
SET IntervalStyle = 'sql_standard';
SET extra_float_digits = -10;
SELECT * FROM dtx.query_json('two', $$SELECT $1 - interval '1 day' AS day, $2 * 2 AS n, $3 AS json, $4 = 0.1::float8 + 0.2 AS f, $5 AS nothing,
	pg_typeof($5) AS type, $6 AS flag, $7 AS class, $8 AS some, $9::text AS span$$,
	date '2020-02-03', 1.50, '{"a": 1}'::jsonb, float8 '0.1' + 0.2, NULL::int8, true, 'pg_class'::regclass, 'x'::varchar,
	interval '-1 year 2 days');
RESET DateStyle;
RESET IntervalStyle;
RESET extra_float_digits;
-- a type that the server need not know, and strings, are what is wanted there
SELECT dtx.exec('two', 'CREATE TYPE mood AS ENUM (''low'', ''high''); CREATE TABLE various (m mood, j jsonb, p point[], c "char")');
CREATE TYPE mood AS ENUM ('high', 'low');
SELECT dtx.exec('two', 'INSERT INTO various VALUES ($1, $2, $3, $4)', mood 'low', varchar '{"k": [1]}', ARRAY[point '(1,2)'], 'c'::"char");
SELECT * FROM dtx.query('two', 'SELECT * FROM various WHERE m > $1', mood 'high') AS t(m mood, j jsonb, p point[], c "char");
SELECT * FROM dtx.query('two', 'SELECT * FROM various WHERE m = $1', mood 'low') AS t(m mood, j jsonb, p point[], c "char");
SELECT dtx.exec('two', 'DROP TABLE various; DROP TYPE mood');
DROP TYPE mood;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT $1 + 1', 1) AS t(server name, n int) ORDER BY 1;
SELECT * FROM dtx.exec_all('{one,two}', 'SELECT generate_series(1, $1)', 3);
-- what the server says of a type
\set VERBOSITY terse
SELECT dtx.exec('two', 'SELECT upper($1)', 7);
\set VERBOSITY default
SELECT dtx.exec('two', 'SELECT $2', 1);
-- drivers that do not tell types get text
PREPARE untold AS SELECT dtx.exec('two', 'SELECT $1::int', $1);
EXECUTE untold(7);
DEALLOCATE untold;

-- types are converted by the input functions here
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0) NOT NULL;
SELECT * FROM dtx.query('one', $$VALUES ('\xdeadbeef'::bytea, ROW(1, 'x, "y"'), '{{1,2},{3,4}}'::int[],
	timestamptz '2020-02-03 04:05:06+07', 1.5::float8, NULL::text, 3, '[1,5)'::int4range, 'a'::"char")$$)
	AS t(b bytea, p pair, i int[], ts timestamptz, f float8, n text, d positive, r int4range, c "char");
SELECT * FROM dtx.query('one', 'SELECT i, i - 3 FROM generate_series(5, 1, -1) i') AS t(i int, d positive);
SELECT * FROM dtx.query('one', 'SELECT NULL') AS t(d positive);
SELECT * FROM dtx.query('one', $$SELECT 1 AS a, 'x' AS "strange ""name"$$) AS t(a int, b int);
SELECT * FROM dtx.query('one', 'SELECT 1, 2') AS t(a int);
SELECT * FROM dtx.query('one', 'SELECT WHERE false') AS t(a int);
SELECT * FROM dtx.query('one', 'UPDATE item SET name = name') AS t(a int);
SELECT * FROM dtx.query('one', 'UPDATE item SET name = upper(name) WHERE id = 1 RETURNING id, name') AS t(id int, name text);
SELECT * FROM dtx.query('one', 'SET LOCAL work_mem = ''1234kB''; SHOW work_mem') AS t(m text);
SELECT dtx.query('one', 'SELECT 1');
-- as JSON
SELECT * FROM dtx.query_json('one', $$SELECT id, name, tags, id / 2.0 AS half, id > 1 AS more, NULL AS nothing,
	date '2020-02-03' AS day, '{"k": [1]}'::jsonb AS doc, ROW(1, 'x') AS pair, item::text,
	'pg_class'::regclass AS class, ARRAY[1.5, NULL] AS numbers, '1.2.3.4'::inet AS net
	FROM item WHERE id < 3 ORDER BY id$$) AS j;
SELECT * FROM dtx.query_json('one', 'SELECT 1 AS a WHERE false');
SELECT * FROM dtx.query_json('one', 'SELECT');
SELECT * FROM dtx.query_json('two', 'DELETE FROM item WHERE id = 2 RETURNING *');
SELECT * FROM dtx.query_json('two', 'SET LOCAL work_mem = ''1MB''');

-- all servers
SELECT * FROM dtx.exec_all('{one,two}', 'INSERT INTO item VALUES ($1, $2)', '77', 'all');
SELECT * FROM dtx.exec_all('{two,one}', 'UPDATE item SET name = ''n''');
SELECT * FROM dtx.query_all('{one,two}', 'SELECT id, name FROM item') AS t(server name, id int, name text) ORDER BY 1, 2;
SELECT * FROM dtx.query_all('{one}', 'SELECT id FROM item') AS t(id int);
SELECT * FROM dtx.exec_all('{}', 'SELECT 1');
SELECT * FROM dtx.exec_all('{one,two,one}', 'SELECT 1');
SELECT * FROM dtx.exec_all('{one,NULL}', 'SELECT 1');
-- all of them, that is those that one may use
SELECT * FROM dtx.exec_all(NULL, 'SELECT 1');
SELECT * FROM dtx.query_all(NULL, 'SELECT 1') AS t(server name, n int) ORDER BY server;
SELECT * FROM dtx.exec_all('{one,three}', 'SELECT 1');
-- at the same time: each waits until both have got there
SELECT dtx.exec_all('{one,two}', $$CREATE FUNCTION meet() RETURNS int LANGUAGE plpgsql AS
	'DECLARE n int;
	BEGIN
		PERFORM pg_advisory_xact_lock_shared(4711);
		FOR i IN 1 .. 6000 LOOP
			SELECT count(DISTINCT pid) INTO n FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711;
			EXIT WHEN n = 2;
			PERFORM pg_sleep(0.01);
		END LOOP;
		RETURN n;
	END'$$);
SELECT * FROM dtx.query_all('{one,two}', 'SELECT meet()') AS t(server name, n int) ORDER BY 1;
-- one that fails is named, does not wait for the others, and takes them with it
SELECT dtx.exec('two', 'CREATE TABLE only_two ()');
BEGIN;
SELECT dtx.exec_all('{one,two}', $$INSERT INTO item VALUES (88, 'no')$$);
SELECT dtx.exec_all('{two,one}', 'SELECT count(*) FROM only_two; SELECT pg_sleep(3600)');
COMMIT;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT id FROM item WHERE id = 88') AS t(server name, id int);
TABLE prepared;

-- one session for functions and foreign tables, in whatever order
BEGIN;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 1 WHERE id = 1');
SELECT bal FROM acct1 WHERE id = 1;
UPDATE acct1 SET bal = 2 WHERE id = 1;
SELECT * FROM dtx.query('one', 'SELECT bal FROM acct WHERE id = 1') AS t(bal int);
UPDATE acct2 SET bal = 3 WHERE id = 1;
SELECT * FROM dtx.query('two', 'SELECT bal FROM acct WHERE id = 1') AS t(bal int);
SAVEPOINT a;
SELECT dtx.exec('two', 'UPDATE acct SET bal = 4 WHERE id = 1');
SAVEPOINT b;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 5 WHERE id = 1');
ROLLBACK TO b;
SELECT one, two FROM balances WHERE id = 1;
SELECT dtx.exec('one', 'UPDATE acct SET bal = -1 WHERE id = 1');
ROLLBACK TO a;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT bal FROM acct WHERE id = 1') AS t(server name, bal int) ORDER BY 1;
RELEASE a;
COMMIT;
SELECT one, two FROM balances WHERE id = 1;
-- inside a scan of a foreign table
SELECT a.id, dtx.exec('one', 'UPDATE acct SET bal = bal + 1 WHERE id = $1', a.id::text) FROM acct1 a ORDER BY a.id;
SELECT * FROM acct1 ORDER BY id;
-- errors that are caught
DO $$
BEGIN
	PERFORM dtx.exec('one', 'UPDATE acct SET bal = 50 WHERE id = 2');
	BEGIN
		PERFORM dtx.exec('one', 'UPDATE acct SET bal = 60 WHERE id = 2; SELECT 1/0');
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	BEGIN
		PERFORM * FROM dtx.query('one', 'UPDATE acct SET bal = 70 WHERE id = 2 RETURNING bal') AS t(d date);
	EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN
		RAISE NOTICE '%', SQLSTATE;
	END;
	BEGIN
		-- an error here while rows are still coming
		PERFORM * FROM dtx.query('one', 'SELECT CASE WHEN i = 100000 THEN ''x'' ELSE ''1'' END FROM generate_series(1, 10000000) i') AS t(i int);
	EXCEPTION WHEN invalid_text_representation THEN
		RAISE NOTICE '%', SQLERRM;
	END;
	PERFORM dtx.exec('two', 'UPDATE acct SET bal = bal + 1 WHERE id = 2');
END
$$;
SELECT one, two FROM balances WHERE id = 2;
-- who only reads is asked
SELECT * FROM counted();
BEGIN;
SELECT dtx.exec_all('{one,two}', 'SELECT * FROM acct');
COMMIT;
SELECT * FROM counted();
BEGIN;
SELECT dtx.exec('one', 'SELECT * FROM acct');
SELECT dtx.exec('two', 'UPDATE acct SET bal = bal');
COMMIT;
SELECT * FROM counted();
BEGIN;
SELECT dtx.exec('one', 'DO ''BEGIN UPDATE public.acct SET bal = bal; END''');
SELECT dtx.exec('two', 'WITH w AS (UPDATE acct SET bal = bal RETURNING 1) SELECT * FROM w');
COMMIT;
SELECT * FROM counted();

-- the remote role's own settings, for the command only
\c dtx_one
ALTER DATABASE dtx_one SET search_path = app, public;
ALTER DATABASE dtx_one SET bytea_output = 'escape';
CREATE SCHEMA app;
CREATE TABLE app.mine AS SELECT bytea 'escaped' AS b;
\c contrib_regression
CREATE FOREIGN TABLE settings1 (name text, setting text) SERVER one OPTIONS (schema_name 'pg_catalog', table_name 'pg_settings');
SELECT * FROM dtx.query('one', 'SELECT b::text, current_setting(''search_path'') FROM mine') AS t(b text, path text);
CREATE VIEW pinned AS SELECT name, setting FROM settings1 WHERE name IN
	('search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'extra_float_digits', 'client_encoding') ORDER BY name;
TABLE pinned;
SELECT dtx.exec('one', 'SET search_path = public; SET TimeZone = ''UTC''; SET DateStyle = ''SQL, DMY'';
	SET IntervalStyle = iso_8601; SET extra_float_digits = 0; SET client_encoding = latin1');
TABLE pinned;
BEGIN;
SELECT dtx.exec('one', 'SET search_path = public');
TABLE pinned;
SAVEPOINT a;
SELECT dtx.exec('one', 'SET search_path = public; SELECT 1/0');
ROLLBACK TO a;
TABLE pinned;
SELECT * FROM dtx.query('one', 'SHOW search_path') AS t(path text);
COMMIT;
TABLE pinned;
SELECT dtx.exec('one', 'SET search_path = public; SELECT 1/0');
TABLE pinned;

-- a read-only transaction stays one
BEGIN READ ONLY;
SELECT * FROM dtx.query('two', 'SELECT count(*) > 0 FROM acct') AS t(ok bool);
SELECT dtx.exec('two', 'UPDATE acct SET bal = 0');
ROLLBACK;
SELECT dtx.exec('two', 'UPDATE acct SET bal = bal');

-- what must not be in a command
SELECT dtx.exec('one', 'COMMIT');
SELECT dtx.exec('one', 'SELECT 1; ROLLBACK; SELECT 2');
SELECT dtx.exec('one', 'BEGIN');
SELECT dtx.exec('one', 'START TRANSACTION READ ONLY');
SELECT dtx.exec('one', 'END');
SELECT dtx.exec('one', 'COMMIT AND CHAIN');
SELECT dtx.exec('one', 'SAVEPOINT x');
SELECT dtx.exec('one', 'RELEASE x');
SELECT dtx.exec('one', 'ROLLBACK TO x');
SELECT dtx.exec('one', 'PREPARE TRANSACTION ''x''');
SELECT dtx.exec('one', 'COMMIT PREPARED ''x''');
SELECT dtx.exec('one', 'ROLLBACK PREPARED ''x''');
SELECT dtx.exec('one', 'COPY acct TO STDOUT');
SELECT dtx.exec('one', 'COPY acct FROM STDIN');
SELECT dtx.exec('one', 'DEALLOCATE ALL');
SELECT dtx.exec('one', 'CLOSE ALL');
SELECT dtx.exec('one', 'DISCARD PLANS');
SELECT dtx.exec('one', '');
SELECT dtx.exec('one', '-- nothing');
SELECT dtx.exec('one', NULL);
SELECT dtx.exec(NULL, 'SELECT 1');
\set VERBOSITY terse
SELECT dtx.exec('one', 'SELECT 1', VARIADIC NULL);
\set VERBOSITY default
SELECT dtx.exec('one', 'SELECT 1', VARIADIC NULL::text[]);
SELECT dtx.exec('one', 'SELECT 1', VARIADIC NULL::int[]);
SELECT dtx.exec('one', 'SELECT 1', VARIADIC 7);
SELECT dtx.exec('one', 'SELECT $1', pg_sleep(0));
SELECT dtx.exec('nowhere', 'SELECT 1');
-- not even where the parser here does not understand the text
SELECT dtx.exec('one', ' ; /* /* */ ; */ -- x' || E'\n' || 'commit with unknown words');
SELECT dtx.exec('one', 'PREPARE /**/ transaction unknown words');
SELECT dtx.exec('one', 'COPY unknown words');
SELECT dtx.exec('one', 'SELECT 1; unknown words; COMMIT');
SELECT dtx.exec('one', 'SELECT ''not closed');
-- or where the server divides it in another way
\c dtx_one
ALTER DATABASE dtx_one SET standard_conforming_strings = off;
ALTER DATABASE dtx_one SET escape_string_warning = off;
\c contrib_regression
BEGIN;
SELECT dtx.exec('one', 'UPDATE acct SET bal = 0 WHERE id = 3');
SAVEPOINT a;
SELECT dtx.exec('one', $$SELECT '\''; COMMIT; --'$$);
ROLLBACK TO a;
ROLLBACK;
SELECT one FROM balances WHERE id = 3;
-- procedures can't end the transaction either
SELECT dtx.exec('two', 'CREATE PROCEDURE ends() LANGUAGE plpgsql AS ''BEGIN COMMIT; END''');
SELECT dtx.exec('two', 'CALL ends()');

-- a value that needs the connection on which it comes
CREATE FUNCTION ask_one() RETURNS bool LANGUAGE sql AS 'SELECT count(*) > 0 FROM acct1';
CREATE DOMAIN asking AS int CHECK (ask_one());
\set SHOW_CONTEXT never
SELECT * FROM dtx.query('one', 'SELECT 1') AS t(a asking);
\set SHOW_CONTEXT errors
SELECT * FROM dtx.query('two', 'SELECT 1') AS t(a asking);

-- rights
CREATE ROLE regress_dtx_exec;
GRANT USAGE ON SCHEMA dtx TO regress_dtx_exec;
SET ROLE regress_dtx_exec;
SELECT dtx.exec('one', 'SELECT 1');
SELECT dtx.exec_all('{one}', 'SELECT 1');
SELECT * FROM dtx.query('one', 'SELECT 1') AS t(a int);
SELECT * FROM dtx.query_all('{one}', 'SELECT 1') AS t(s name, a int);
SELECT dtx.query_json('one', 'SELECT 1');
RESET ROLE;
GRANT EXECUTE ON FUNCTION dtx.exec(name, text, text[]), dtx.exec_all(name[], text, text[]) TO regress_dtx_exec;
SET ROLE regress_dtx_exec;
SELECT dtx.exec('one', 'SELECT 1');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER one TO regress_dtx_exec;
SET ROLE regress_dtx_exec;
SELECT dtx.exec_all('{one,two}', 'SELECT 1');
-- as postgres_fdw says
\set VERBOSITY sqlstate
SELECT dtx.exec('one', 'SELECT 1');
RESET ROLE;
CREATE USER MAPPING FOR regress_dtx_exec SERVER one OPTIONS (user 'postgres');
SET ROLE regress_dtx_exec;
SELECT dtx.exec('one', 'SELECT 1');
\set VERBOSITY default
RESET ROLE;
DROP USER MAPPING FOR regress_dtx_exec SERVER one;
REVOKE ALL ON FOREIGN SERVER one FROM regress_dtx_exec;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA dtx FROM regress_dtx_exec;
REVOKE ALL ON SCHEMA dtx FROM regress_dtx_exec;
DROP ROLE regress_dtx_exec;
-- another kind of server
CREATE FOREIGN DATA WRAPPER other;
CREATE SERVER others FOREIGN DATA WRAPPER other;
SELECT dtx.exec('others', 'SELECT 1');
DROP SERVER others;
DROP FOREIGN DATA WRAPPER other;

-- rows move from one server to the other
BEGIN;
WITH moved AS (
	SELECT * FROM dtx.query('one', 'DELETE FROM item WHERE id IN (2, 3) RETURNING id, name') AS t(id int, name text))
SELECT dtx.exec('two', 'INSERT INTO item SELECT * FROM unnest($1::int[], $2::text[])',
	array_agg(id)::text, array_agg(name)::text) FROM moved;
COMMIT;
SELECT * FROM dtx.query_all('{one,two}', 'SELECT id FROM item') AS t(server name, id int) ORDER BY 1, 2;

\c dtx_one
ALTER DATABASE dtx_one RESET ALL;
DROP SCHEMA app CASCADE;
\c contrib_regression
DROP VIEW pinned;
DROP FOREIGN TABLE settings1;
DROP DOMAIN asking, positive;
DROP FUNCTION ask_one();
DROP TYPE pair;
SELECT dtx.exec_all('{one,two}', 'DROP TABLE item; DROP FUNCTION meet()');
SELECT dtx.exec('two', 'DROP PROCEDURE ends(); DROP TABLE only_two');
TABLE prepared;
