--
-- postgres_fdw_disconnect() and postgres_fdw_disconnect_all().
--
CALL begin_test();
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
-- refused, the connections are in use; the warnings come in any order
SET client_min_messages = error;
SELECT postgres_fdw_disconnect_all();
RESET client_min_messages;
SELECT postgres_fdw_disconnect('one');
COMMIT;
SELECT * FROM counted();
SELECT postgres_fdw_disconnect('one');
SELECT server_name FROM postgres_fdw_get_connections();
BEGIN;
UPDATE acct1 SET bal = 2 WHERE id = 1;
UPDATE acct2 SET bal = 2 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
SELECT postgres_fdw_disconnect_all();
SELECT server_name FROM postgres_fdw_get_connections();
-- while the confirmation is still under way
SET pg_dtx.commit_wait = off;
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
UPDATE acct2 SET bal = 3 WHERE id = 1;
COMMIT;
SELECT postgres_fdw_disconnect_all();
SELECT * FROM balances WHERE id = 1;
SELECT two_phase, prepared FROM counted();
RESET pg_dtx.commit_wait;
DISCARD ALL;
BEGIN;
UPDATE acct1 SET bal = 4 WHERE id = 1;
UPDATE acct2 SET bal = 4 WHERE id = 1;
COMMIT;
SELECT two_phase, prepared FROM counted();
TABLE balances;
TABLE prepared;
SELECT count(*) FROM dtx.in_doubt;
