--
-- parallel_commit of postgres_fdw changes nothing.
--
CALL begin_test();
\set SHOW_CONTEXT never
ALTER SERVER one OPTIONS (ADD parallel_commit 'true');
ALTER SERVER two OPTIONS (ADD parallel_commit 'true');
-- two writers
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- a writer and a reader, two readers, two writers that did not write
BEGIN;
UPDATE acct1 SET bal = 2 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
COMMIT;
BEGIN;
SELECT bal FROM acct1 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
COMMIT;
SELECT two_phase, prepared FROM counted();
-- two writers and a reader
BEGIN;
UPDATE acct0 SET bal = 3 WHERE id = 1;
UPDATE acct1 SET bal = 3 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- with savepoints
BEGIN;
SAVEPOINT a;
UPDATE acct1 SET bal = 4 WHERE id = 1;
UPDATE acct2 SET bal = 4 WHERE id = 1;
RELEASE SAVEPOINT a;
SAVEPOINT b;
UPDATE acct1 SET bal = 5 WHERE id = 1;
UPDATE acct2 SET bal = 5 WHERE id = 1;
ROLLBACK TO SAVEPOINT b;
COMMIT;
SELECT * FROM counted();
-- failed
BEGIN;
UPDATE acct1 SET bal = 6 WHERE id = 1;
UPDATE acct2 SET bal = -1 WHERE id = 1;
COMMIT;
-- on one server only
ALTER SERVER two OPTIONS (DROP parallel_commit);
BEGIN;
UPDATE acct1 SET bal = 7 WHERE id = 2;
UPDATE acct2 SET bal = 7 WHERE id = 2;
COMMIT;
SELECT two_phase, prepared FROM counted();
ALTER SERVER one OPTIONS (DROP parallel_commit);
TABLE balances;
TABLE prepared;
