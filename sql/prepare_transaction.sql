--
-- PREPARE TRANSACTION here: refused after foreign writes, as ever; untouched
-- otherwise.
--
CALL begin_test();
\set SHOW_CONTEXT never
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
PREPARE TRANSACTION 'regress_dtx';
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM pg_prepared_xacts;
-- with the library switched off the message is the same
BEGIN;
SET LOCAL pg_dtx.two_phase_commit = off;
UPDATE acct1 SET bal = 1 WHERE id = 1;
PREPARE TRANSACTION 'regress_dtx';
-- reading is refused, too
BEGIN;
SELECT bal FROM acct1 WHERE id = 1;
UPDATE acct0 SET bal = 1 WHERE id = 1;
PREPARE TRANSACTION 'regress_dtx';
-- local work only
BEGIN;
UPDATE acct0 SET bal = 2 WHERE id = 2;
PREPARE TRANSACTION 'regress_dtx';
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 3;
UPDATE acct2 SET bal = 3 WHERE id = 3;
COMMIT;
COMMIT PREPARED 'regress_dtx';
SELECT * FROM counted();
TABLE balances;
SELECT count(*) FROM pg_prepared_xacts;
