--
-- Users who are no superusers, and passwords.
--
CALL begin_test();
\set SHOW_CONTEXT never
CREATE ROLE regress_dtx_user;
CREATE ROLE regress_dtx_remote LOGIN;
GRANT SELECT, INSERT, UPDATE, DELETE ON acct0, acct1, acct2 TO regress_dtx_user;
\c dtx_one
GRANT SELECT, UPDATE ON acct TO regress_dtx_remote;
\c dtx_two
GRANT SELECT, UPDATE ON acct TO regress_dtx_remote;
\c contrib_regression
\set SHOW_CONTEXT never
-- without a password they do not get in, as ever
CREATE USER MAPPING FOR regress_dtx_user SERVER one OPTIONS (user 'regress_dtx_remote');
CREATE USER MAPPING FOR regress_dtx_user SERVER two OPTIONS (user 'regress_dtx_remote');
\set VERBOSITY sqlstate
SET ROLE regress_dtx_user;
UPDATE acct1 SET bal = 1 WHERE id = 1;
RESET ROLE;
\set VERBOSITY default
SELECT * FROM counted();
-- unless a superuser allows it
ALTER USER MAPPING FOR regress_dtx_user SERVER one OPTIONS (ADD password_required 'false');
ALTER USER MAPPING FOR regress_dtx_user SERVER two OPTIONS (ADD password_required 'false');
SET ROLE regress_dtx_user;
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
BEGIN;
UPDATE acct0 SET bal = 2 WHERE id = 2;
UPDATE acct1 SET bal = 2 WHERE id = 2;
COMMIT;
RESET ROLE;
SELECT * FROM counted();
-- they need no rights on anything in schema dtx, and have none to write there
SELECT has_table_privilege('regress_dtx_user', 'dtx_internal.decision', 'INSERT') AS write,
	has_table_privilege('regress_dtx_user', 'dtx_internal.decision', 'SELECT') AS read;
-- two users in one transaction are two participants on one server
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 3;
SET LOCAL ROLE regress_dtx_user;
UPDATE acct1 SET bal = 4 WHERE id = 4;
COMMIT;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
-- a PUBLIC mapping without a password is not for them, neither to look
CALL make_server('pub', 'dtx_one');
CREATE USER MAPPING FOR PUBLIC SERVER pub OPTIONS (user 'regress_dtx_remote');
GRANT USAGE ON FOREIGN SERVER pub TO regress_dtx_user;
SET ROLE regress_dtx_user;
SELECT ok, detail FROM dtx.check_server('pub') WHERE "check" = 'reachable';
RESET ROLE;
DROP USER MAPPING FOR PUBLIC SERVER pub;
DROP SERVER pub;
REVOKE ALL ON acct0, acct1, acct2 FROM regress_dtx_user;
DROP USER MAPPING FOR regress_dtx_user SERVER one;
DROP USER MAPPING FOR regress_dtx_user SERVER two;
DROP ROLE regress_dtx_user;
\c dtx_one
DROP OWNED BY regress_dtx_remote;
\c dtx_two
DROP OWNED BY regress_dtx_remote;
\c contrib_regression
DROP ROLE regress_dtx_remote;
