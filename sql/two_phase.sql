--
-- More than one node wrote: all of them or none.
--
CALL begin_test();
-- two servers
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- one server and this one
BEGIN;
UPDATE acct0 SET bal = bal - 10 WHERE id = 2;
UPDATE acct1 SET bal = bal + 10 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
-- the other way round: the local write is the last
BEGIN;
DELETE FROM acct2 WHERE id = 3;
INSERT INTO acct0 VALUES (5, 100);
COMMIT;
SELECT * FROM counted();
-- all of them
BEGIN;
INSERT INTO acct0 VALUES (6, 6);
INSERT INTO acct1 VALUES (6, 6);
INSERT INTO acct2 VALUES (6, 6);
COMMIT;
SELECT * FROM counted();
TABLE balances;
-- rolled back
BEGIN;
UPDATE acct1 SET bal = 0;
UPDATE acct2 SET bal = 0;
ROLLBACK;
SELECT * FROM counted();
-- failed
BEGIN;
UPDATE acct1 SET bal = bal - 50 WHERE id = 1;
UPDATE acct2 SET bal = 1 / 0 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- several statements in one message, without BEGIN
UPDATE acct1 SET bal = 70 WHERE id = 4 \; UPDATE acct2 SET bal = 130 WHERE id = 4;
SELECT * FROM counted();
-- a DO block
DO $$
BEGIN
	UPDATE acct1 SET bal = bal + 1 WHERE id = 4;
	UPDATE acct2 SET bal = bal - 1 WHERE id = 4;
END
$$;
SELECT * FROM counted();
-- a procedure that commits several times
CREATE PROCEDURE move(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		UPDATE acct1 SET bal = bal - 1 WHERE id = 4;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 4;
		IF i % 3 = 0 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END
$$;
CALL move(6);
SELECT * FROM counted();
DROP PROCEDURE move;
-- COMMIT AND CHAIN
BEGIN;
UPDATE acct1 SET bal = bal + 5 WHERE id = 4;
UPDATE acct2 SET bal = bal + 5 WHERE id = 4;
COMMIT AND CHAIN;
UPDATE acct1 SET bal = bal + 5 WHERE id = 4;
UPDATE acct2 SET bal = bal + 5 WHERE id = 4;
COMMIT;
SELECT * FROM counted();
-- a statement that writes on two servers
WITH gone AS (DELETE FROM acct1 WHERE id = 6 RETURNING *)
INSERT INTO acct2 SELECT 60, bal FROM gone;
SELECT * FROM counted();
-- a COMMIT that does not wait: the next statement sees it all the same
SET pg_dtx.commit_wait = off;
BEGIN;
UPDATE acct1 SET bal = 41 WHERE id = 1;
UPDATE acct2 SET bal = 42 WHERE id = 1;
COMMIT;
SELECT one, two FROM balances WHERE id = 1;
BEGIN;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
COMMIT;
SELECT one, two FROM balances WHERE id = 1;
RESET pg_dtx.commit_wait;
SELECT two_phase, prepared FROM counted();
TABLE balances;
TABLE prepared;
SELECT count(*) FROM dtx.in_doubt;
-- The decision table does not grow with the number of transactions.
DO $$
BEGIN
	FOR i IN 1 .. 50 LOOP
		UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
		COMMIT;
	END LOOP;
END
$$;
SELECT two_phase, prepared FROM counted();
SELECT count(*) < 10 AS few_rows FROM dtx_internal.decision;
SELECT pg_relation_size('dtx_internal.decision') <= 4 * current_setting('block_size')::int AS small;
