--
-- Modifications that are done by the server, row by row, and with RETURNING.
--
CALL begin_test();
EXPLAIN (VERBOSE, COSTS OFF) UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
BEGIN;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
DELETE FROM acct2 WHERE id = 1 RETURNING *;
COMMIT;
SELECT * FROM counted();
-- not shippable: rows come here and go back
CREATE FUNCTION here(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN $1 + 1; END';
EXPLAIN (VERBOSE, COSTS OFF) UPDATE acct1 SET bal = here(bal) WHERE id = 2;
BEGIN;
UPDATE acct1 SET bal = here(bal) WHERE id = 2 RETURNING bal;
UPDATE acct2 SET bal = here(bal) WHERE here(id) = 3 RETURNING bal;
COMMIT;
SELECT * FROM counted();
-- joined with a table of the other server
BEGIN;
UPDATE acct1 SET bal = acct1.bal + acct2.bal FROM acct2 WHERE acct1.id = acct2.id AND acct1.id > 2;
UPDATE acct2 SET bal = 0 WHERE id > 2;
COMMIT;
SELECT * FROM counted();
-- ON CONFLICT DO NOTHING, prepared statements
PREPARE ins1 AS INSERT INTO acct1 VALUES ($1, $2) ON CONFLICT DO NOTHING;
PREPARE ins2 AS INSERT INTO acct2 VALUES ($1, $2) ON CONFLICT DO NOTHING;
BEGIN;
EXECUTE ins1 (1, 5);
EXECUTE ins2 (1, 5);
EXECUTE ins1 (5, 5);
EXECUTE ins2 (5, 5);
COMMIT;
BEGIN;
EXECUTE ins1 (6, 6);
EXECUTE ins2 (6, 6);
COMMIT;
SELECT two_phase FROM counted();
DEALLOCATE ALL;
-- TRUNCATE
BEGIN;
TRUNCATE acct1;
DELETE FROM acct2;
INSERT INTO acct2 VALUES (7, 7);
COMMIT;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
DROP FUNCTION here;
