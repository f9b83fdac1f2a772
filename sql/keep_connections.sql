--
-- Connections that postgres_fdw closes at the end of every transaction.
--
CALL begin_test();
\set SHOW_CONTEXT never
ALTER SERVER one OPTIONS (ADD keep_connections 'off');
ALTER SERVER two OPTIONS (ADD keep_connections 'off');
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
SELECT server_name FROM postgres_fdw_get_connections();
-- without waiting for the confirmation
SET pg_dtx.commit_wait = off;
BEGIN;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
COMMIT;
SELECT server_name FROM postgres_fdw_get_connections();
SELECT * FROM balances WHERE id = 1;
SELECT two_phase, prepared FROM counted();
RESET pg_dtx.commit_wait;
-- rolled back, and failed
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
UPDATE acct2 SET bal = 3 WHERE id = 1;
ROLLBACK;
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
UPDATE acct2 SET bal = -1 WHERE id = 1;
COMMIT;
SELECT server_name FROM postgres_fdw_get_connections();
-- one of them off, many transactions
ALTER SERVER two OPTIONS (DROP keep_connections);
DO $$
BEGIN
	FOR i IN 1 .. 20 LOOP
		UPDATE acct1 SET bal = bal - 1 WHERE id = 2;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 2;
		COMMIT;
	END LOOP;
END
$$;
SELECT two_phase, prepared FROM counted();
SELECT server_name FROM postgres_fdw_get_connections();
ALTER SERVER one OPTIONS (DROP keep_connections);
TABLE balances;
TABLE prepared;
