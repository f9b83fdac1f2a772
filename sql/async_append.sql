--
-- Asynchronous scans of several servers.
--
CALL begin_test();
\set SHOW_CONTEXT never
ALTER SERVER one OPTIONS (ADD async_capable 'true', ADD fetch_size '1');
ALTER SERVER two OPTIONS (ADD async_capable 'true', ADD fetch_size '1');
CREATE VIEW both_servers AS SELECT id, bal FROM acct1 UNION ALL SELECT id, bal FROM acct2;
EXPLAIN (COSTS OFF) SELECT count(*) FROM both_servers;
BEGIN;
SELECT sum(bal) FROM both_servers;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
SELECT sum(bal) FROM both_servers;
COMMIT;
SELECT * FROM counted();
-- requests are under way at COMMIT
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 2;
UPDATE acct2 SET bal = bal + 1 WHERE id = 2;
DECLARE c CURSOR FOR SELECT 'row' AS row FROM both_servers;
FETCH 1 FROM c;
COMMIT;
SELECT * FROM counted();
-- ... at ROLLBACK
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 2;
UPDATE acct2 SET bal = bal + 1 WHERE id = 2;
DECLARE c CURSOR FOR SELECT 'row' AS row FROM both_servers;
FETCH 1 FROM c;
ROLLBACK;
SELECT * FROM counted();
-- ... with a LIMIT
BEGIN;
INSERT INTO acct0 SELECT 10, 0 FROM both_servers LIMIT 1;
UPDATE acct1 SET bal = bal - 1 WHERE id = 3;
UPDATE acct2 SET bal = bal + 1 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
-- an error in one of them
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 3;
UPDATE acct2 SET bal = bal + 1 WHERE id = 3;
SELECT 1 / (bal - 101) FROM both_servers;
COMMIT;
SELECT * FROM counted();
DROP VIEW both_servers;
ALTER SERVER one OPTIONS (DROP async_capable, DROP fetch_size);
ALTER SERVER two OPTIONS (DROP async_capable, DROP fetch_size);
TABLE balances;
TABLE prepared;
