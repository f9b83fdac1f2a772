--
-- dtx.check_server(): is this server ready?
--
CALL begin_test();
\set SHOW_CONTEXT never
\pset format unaligned
SELECT "check", ok, hint FROM dtx.check_server('one');
-- no such server
SELECT * FROM dtx.check_server('nonsense');
SELECT * FROM dtx.check_server(NULL);
-- not one of postgres_fdw
CREATE FOREIGN DATA WRAPPER regress_dtx_other;
CREATE SERVER other FOREIGN DATA WRAPPER regress_dtx_other;
SELECT * FROM dtx.check_server('other');
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER regress_dtx_other CASCADE;
RESET client_min_messages;
-- no mapping
CALL make_server('three', 'dtx_one');
SELECT "check", ok, hint FROM dtx.check_server('three');
-- the same database as another server
CALL make_mapping('three');
SELECT "check", ok, hint FROM dtx.check_server('three');
SET client_min_messages = warning;
DROP SERVER three CASCADE;
RESET client_min_messages;
-- unreachable
CALL make_server('nowhere', 'regress_dtx_no_such_database');
CALL make_mapping('nowhere');
SELECT "check", ok, hint FROM dtx.check_server('nowhere');
SET client_min_messages = warning;
DROP SERVER nowhere CASCADE;
RESET client_min_messages;
-- in a transaction that uses the server already
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT count(*) > 0 AS checked, bool_and(ok) AS ok FROM dtx.check_server('one');
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- dtx.servers shows what was found, and forgets it when the server is changed
CALL make_server('fresh', 'dtx_one');
CALL make_mapping('fresh');
CREATE VIEW fresh AS SELECT reachable, checked_at IS NOT NULL AS checked, version IS NOT NULL AS version,
	slots_used, slots_total > 0 AS slots, last_error FROM dtx.servers WHERE server = 'fresh';
TABLE fresh;
SELECT count(*) > 0 AS checked FROM dtx.check_server('fresh');
TABLE fresh;
BEGIN;
ALTER SERVER fresh OPTIONS (SET dbname 'regress_dtx_no_such_database');
TABLE fresh;
ROLLBACK;
TABLE fresh;
ALTER SERVER fresh OPTIONS (SET dbname 'regress_dtx_no_such_database');
TABLE fresh;
SELECT count(*) > 0 AS checked FROM dtx.check_server('fresh');
SELECT reachable, checked, version, slots, last_error ~ 'regress_dtx_no_such_database' AS last_error FROM fresh;
ALTER SERVER fresh OPTIONS (SET dbname 'dtx_one');
SELECT count(*) > 0 AS checked FROM dtx.check_server('fresh');
TABLE fresh;
-- one user mapping that does not work, and one that does
CREATE ROLE regress_dtx_app LOGIN;
GRANT USAGE ON FOREIGN SERVER fresh TO regress_dtx_app;
CREATE USER MAPPING FOR regress_dtx_app SERVER fresh OPTIONS (user 'regress_dtx_nobody', password_required 'false');
SELECT bool_or(ok) AS works, bool_and(ok) AS all_work FROM
	(SELECT 'regress_dtx_app'::name AS role UNION ALL SELECT current_user) AS r, LATERAL dtx.check_server('fresh', r.role) AS c
	WHERE "check" = 'reachable';
TABLE fresh;
-- another role's finding is not shown
SET ROLE regress_dtx_app;
SELECT "check", ok FROM dtx.check_server('fresh') WHERE "check" = 'reachable';
RESET ROLE;
TABLE fresh;
-- dropped and made again
SET client_min_messages = warning;
DROP SERVER fresh CASCADE;
TABLE fresh;
CALL make_server('fresh', 'dtx_one');
TABLE fresh;
DROP SERVER fresh CASCADE;
RESET client_min_messages;
DROP VIEW fresh;
DROP OWNED BY regress_dtx_app;
DROP ROLE regress_dtx_app;
