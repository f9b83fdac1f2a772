--
-- Who may see and do what.
--
CALL begin_test();
\set SHOW_CONTEXT never
CREATE ROLE regress_dtx_user;
CREATE ROLE regress_dtx_other;
CREATE ROLE regress_dtx_monitor IN ROLE pg_monitor;
CREATE ROLE regress_dtx_operator;
GRANT SELECT, UPDATE ON acct1, acct2 TO regress_dtx_user;
GRANT USAGE ON FOREIGN SERVER one TO regress_dtx_user;
CREATE USER MAPPING FOR regress_dtx_user SERVER one
	OPTIONS (password_required 'false', user :'USER', password 'secret');
-- everything that the extension has, and to whom it is open
SELECT p.proname, has_function_privilege('regress_dtx_user', p.oid, 'EXECUTE') AS users,
	has_function_privilege('regress_dtx_monitor', p.oid, 'EXECUTE') AS monitors
FROM pg_proc p WHERE pronamespace = 'dtx'::regnamespace ORDER BY 1;
-- (of internal functions, those that are executed for others by views and functions, or are for monitors)
SELECT p.proname, has_function_privilege('regress_dtx_user', p.oid, 'EXECUTE') AS users,
	has_function_privilege('regress_dtx_monitor', p.oid, 'EXECUTE') AS monitors
FROM pg_proc p WHERE pronamespace = 'dtx_internal'::regnamespace
	AND has_function_privilege('regress_dtx_monitor', p.oid, 'EXECUTE') ORDER BY 1;
SELECT n.nspname, has_schema_privilege('regress_dtx_user', n.oid, 'USAGE') AS users,
	has_schema_privilege('regress_dtx_monitor', n.oid, 'USAGE') AS monitors,
	has_schema_privilege('regress_dtx_monitor', n.oid, 'CREATE') AS monitors_create
FROM pg_namespace n WHERE n.nspname IN ('dtx', 'dtx_internal') ORDER BY 1;
SELECT c.oid::regclass AS relation, c.relkind,
	has_table_privilege('regress_dtx_user', c.oid, 'SELECT') AS users,
	has_table_privilege('regress_dtx_monitor', c.oid, 'SELECT') AS monitors,
	has_table_privilege('regress_dtx_user', c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE') AS users_write
FROM pg_class c WHERE relnamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace)
	AND relkind IN ('r', 'm', 'v', 'S') ORDER BY c.oid::regclass::text COLLATE "C";
-- acting
SET ROLE regress_dtx_user;
SELECT * FROM dtx.resolve_in_doubt();
SELECT dtx.force_in_doubt('dtx:0000000000000000:1:0000000000000000:1:1', 'commit', 'why not');
SELECT dtx.reset_stat();
DELETE FROM dtx_internal.decision;
TRUNCATE dtx_internal.decision;
INSERT INTO dtx_internal.decision SELECT * FROM dtx_internal.decision;
UPDATE dtx_internal.coordinator SET id = 0;
DELETE FROM dtx_internal.forced_record;
RESET ROLE;
SET ROLE regress_dtx_monitor;
SELECT * FROM dtx.resolve_in_doubt();
SELECT dtx.reset_stat();
RESET ROLE;
-- a role that is granted EXECUTE may
GRANT USAGE ON SCHEMA dtx TO regress_dtx_operator;
GRANT EXECUTE ON FUNCTION dtx.resolve_in_doubt() TO regress_dtx_operator;
SET ROLE regress_dtx_operator;
SELECT * FROM dtx.resolve_in_doubt();
RESET ROLE;
REVOKE EXECUTE ON FUNCTION dtx.resolve_in_doubt() FROM regress_dtx_operator;
REVOKE USAGE ON SCHEMA dtx FROM regress_dtx_operator;
-- seeing: a transaction's own user, monitors, nobody else
BEGIN;
SET LOCAL ROLE regress_dtx_user;
SELECT count(*) FROM acct1;
RESET ROLE;
SELECT usename = current_user AS mine, state, servers FROM dtx.transactions;
SET LOCAL ROLE regress_dtx_monitor;
SELECT state, servers FROM dtx.transactions;
SET LOCAL ROLE regress_dtx_other;
SELECT count(*) FROM dtx.transactions;
RESET ROLE;
ROLLBACK;
-- the same with a session of a role's own
SET SESSION AUTHORIZATION regress_dtx_user;
BEGIN;
SELECT count(*) FROM acct1;
SELECT usename, state, servers FROM dtx.transactions;
ROLLBACK;
RESET SESSION AUTHORIZATION;
-- nothing shows a password or a connection string
SELECT count(*) FROM dtx.servers s WHERE s::text ~ 'secret|password|host|dbname';
SET ROLE regress_dtx_user;
SELECT bool_and(ok) AS ok, count(*) FILTER (WHERE c::text ~ 'secret|host=|dbname=') AS shown
FROM dtx.check_server('one') c;
SELECT * FROM dtx.check_server('two');
RESET ROLE;
DROP OWNED BY regress_dtx_user, regress_dtx_operator;
DROP ROLE regress_dtx_user, regress_dtx_other, regress_dtx_monitor, regress_dtx_operator;
