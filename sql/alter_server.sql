--
-- Servers and mappings that change while connections are open.
--
CALL begin_test();
\set SHOW_CONTEXT never
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
-- between two transactions
ALTER SERVER one OPTIONS (ADD application_name 'changed');
BEGIN;
UPDATE acct1 SET bal = 2 WHERE id = 1;
UPDATE acct2 SET bal = 2 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- within a transaction: the open connection stays until its end
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
ALTER SERVER one OPTIONS (SET application_name 'changed again');
UPDATE acct1 SET bal = 4 WHERE id = 1;
UPDATE acct2 SET bal = 4 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
SELECT server_name FROM postgres_fdw_get_connections() ORDER BY 1;
-- to another database, and back
ALTER SERVER one OPTIONS (SET dbname 'dtx_two');
BEGIN;
UPDATE acct1 SET bal = 5 WHERE id = 1;
UPDATE acct2 SET bal = 5 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
ALTER SERVER one OPTIONS (SET dbname 'dtx_one');
-- the mapping
ALTER USER MAPPING FOR CURRENT_USER SERVER two OPTIONS (ADD sslcert 'nowhere');
BEGIN;
UPDATE acct1 SET bal = 6 WHERE id = 3;
UPDATE acct2 SET bal = 6 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
ALTER USER MAPPING FOR CURRENT_USER SERVER two OPTIONS (DROP sslcert);
-- dropped and made again
BEGIN;
UPDATE acct2 SET bal = 7 WHERE id = 4;
DROP USER MAPPING FOR CURRENT_USER SERVER two;
CALL make_mapping('two');
UPDATE acct1 SET bal = 7 WHERE id = 4;
COMMIT;
SELECT two_phase, prepared FROM counted();
ALTER SERVER one OPTIONS (DROP application_name);
-- renamed
ALTER SERVER one RENAME TO uno;
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 4;
UPDATE acct2 SET bal = bal - 1 WHERE id = 4;
COMMIT;
SELECT two_phase, prepared FROM counted();
SELECT server FROM dtx.servers ORDER BY 1;
ALTER SERVER uno RENAME TO one;
TABLE balances;
TABLE prepared;
