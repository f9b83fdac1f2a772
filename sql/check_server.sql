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
