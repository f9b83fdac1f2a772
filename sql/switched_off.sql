--
-- pg_dtx.two_phase_commit = off: plain postgres_fdw.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- only superusers may, see also protection.sql
SET pg_dtx.two_phase_commit = off;
SET pg_dtx.require = off;
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
UPDATE acct0 SET bal = 1 WHERE id = 1;
COMMIT;
RESET pg_dtx.two_phase_commit;
SELECT two_phase, prepared FROM counted();
-- what is lost with it: the first server commits before the second refuses
\c dtx_two
CREATE FUNCTION refuse2() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'refused by the second'; END$$;
CREATE CONSTRAINT TRIGGER refuse2 AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 66) EXECUTE FUNCTION refuse2();
\c contrib_regression
\set SHOW_CONTEXT never
SET pg_dtx.require = off;
BEGIN;
SET LOCAL pg_dtx.two_phase_commit = off;
UPDATE acct1 SET bal = 66 WHERE id = 2;
UPDATE acct2 SET bal = 66 WHERE id = 2;
COMMIT;
SELECT two_phase, prepared FROM counted();
SELECT two FROM balances WHERE id = 2;
-- for one transaction only
SHOW pg_dtx.two_phase_commit;
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 3;
UPDATE acct2 SET bal = 66 WHERE id = 3;
COMMIT;
SELECT * FROM balances WHERE id = 3;
SELECT * FROM counted();
-- what holds at COMMIT is what counts
SET pg_dtx.two_phase_commit = off;
BEGIN;
UPDATE acct1 SET bal = 4 WHERE id = 4;
SET LOCAL pg_dtx.two_phase_commit = on;
UPDATE acct2 SET bal = 4 WHERE id = 4;
COMMIT;
RESET pg_dtx.two_phase_commit;
SELECT * FROM counted();
-- subtransactions, rollback, cursors work without it
SET pg_dtx.two_phase_commit = off;
BEGIN;
SAVEPOINT a;
UPDATE acct1 SET bal = 0;
ROLLBACK TO SAVEPOINT a;
UPDATE acct2 SET bal = 5 WHERE id = 4;
COMMIT;
BEGIN;
UPDATE acct1 SET bal = 0;
UPDATE acct2 SET bal = 0;
ROLLBACK;
RESET pg_dtx.two_phase_commit;
SELECT * FROM balances WHERE id <> 2;
\c dtx_two
DROP TRIGGER refuse2 ON acct;
DROP FUNCTION refuse2;
\c contrib_regression
TABLE prepared;
