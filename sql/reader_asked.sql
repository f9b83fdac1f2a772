--
-- A participant that only ran SELECT is asked whether it wrote.
--
CALL begin_test();
\c dtx_one
CREATE TABLE visits (who text);
CREATE FUNCTION visit() RETURNS int LANGUAGE sql VOLATILE AS
	$$INSERT INTO public.visits VALUES ('somebody') RETURNING 1$$;
CREATE VIEW visited AS SELECT visit() AS n;
\c dtx_two
CREATE TABLE visits (who text);
CREATE FUNCTION visit() RETURNS int LANGUAGE sql VOLATILE AS
	$$INSERT INTO public.visits VALUES ('somebody') RETURNING 1$$;
CREATE VIEW visited AS SELECT visit() AS n;
\c contrib_regression
CREATE FOREIGN TABLE visited1 (n int) SERVER one OPTIONS (table_name 'visited');
CREATE FOREIGN TABLE visited2 (n int) SERVER two OPTIONS (table_name 'visited');
CREATE FOREIGN TABLE visits1 (who text) SERVER one OPTIONS (table_name 'visits');
CREATE FOREIGN TABLE visits2 (who text) SERVER two OPTIONS (table_name 'visits');
-- both wrote
BEGIN;
SELECT * FROM visited1;
SELECT * FROM visited2;
COMMIT;
SELECT * FROM counted();
-- one wrote
BEGIN;
SELECT * FROM visited1;
SELECT count(*) FROM visits2;
COMMIT;
SELECT * FROM counted();
-- one wrote, and this node did
BEGIN;
SELECT * FROM visited1;
UPDATE acct0 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- one of them in a subtransaction that was rolled back
BEGIN;
SELECT * FROM visited1;
SAVEPOINT a;
SELECT * FROM visited2;
ROLLBACK TO a;
COMMIT;
SELECT prepare_failed FROM counted();
-- locking rows is writing, too
BEGIN;
SELECT bal FROM acct1 WHERE id = 1 FOR UPDATE;
UPDATE acct2 SET bal = 2 WHERE id = 1;
COMMIT;
SELECT prepare_failed FROM counted();
-- none
BEGIN;
SELECT * FROM visited1;
SELECT * FROM visited2;
ROLLBACK;
SELECT * FROM counted();
SELECT (SELECT count(*) FROM visits1) AS one, (SELECT count(*) FROM visits2) AS two;
TABLE balances;
TABLE prepared;
DROP FOREIGN TABLE visited1, visited2, visits1, visits2;
