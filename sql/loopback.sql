--
-- Servers that lead back to this database.
--
CALL begin_test();
\set SHOW_CONTEXT never
SELECT current_database() AS this \gset
CALL make_server('self', :'this');
CALL make_mapping('self');
CREATE TABLE behind (id int, bal int);
CREATE FOREIGN TABLE mirror (id int, bal int) SERVER self OPTIONS (table_name 'behind');
-- alone
INSERT INTO mirror VALUES (1, 1);
SELECT * FROM counted();
-- with a local write
BEGIN;
INSERT INTO mirror VALUES (2, 2);
UPDATE acct0 SET bal = 2 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
-- with another server
BEGIN;
INSERT INTO mirror VALUES (3, 3);
UPDATE acct1 SET bal = 3 WHERE id = 3;
UPDATE acct2 SET bal = 3 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
TABLE behind;
-- Two hops: the server would have to prepare a transaction that has written on
-- servers itself, which PostgreSQL does not do.
CREATE FOREIGN TABLE two_hops (id int, bal int) SERVER self OPTIONS (table_name 'acct1');
UPDATE two_hops SET bal = 4 WHERE id = 4;
BEGIN;
UPDATE two_hops SET bal = 44 WHERE id = 4;
UPDATE acct2 SET bal = 44 WHERE id = 4;
COMMIT;
\echo :LAST_ERROR_SQLSTATE
-- A single writer at the end of two hops is still one transaction.
SELECT * FROM balances WHERE id = 4;
TABLE balances;
TABLE prepared;
DROP FOREIGN TABLE mirror, two_hops;
SET client_min_messages = warning;
DROP SERVER self CASCADE;
RESET client_min_messages;
DROP TABLE behind;
