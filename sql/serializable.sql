--
-- Isolation levels.
--
CALL begin_test();
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE acct0 SET bal = 2 WHERE id = 2;
SELECT sum(bal) FROM acct2;
UPDATE acct1 SET bal = 2 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
BEGIN ISOLATION LEVEL REPEATABLE READ;
UPDATE acct1 SET bal = 3 WHERE id = 3;
UPDATE acct2 SET bal = 3 WHERE id = 3;
SELECT * FROM balances WHERE id = 3;
COMMIT;
SELECT * FROM counted();
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE;
SELECT sum(bal) FROM acct1;
SELECT sum(bal) FROM acct2;
COMMIT;
SELECT two_phase, prepared FROM counted();
SET default_transaction_isolation = 'serializable';
DO $$
BEGIN
	FOR i IN 1 .. 10 LOOP
		UPDATE acct1 SET bal = bal - 1 WHERE id = 4;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 4;
		COMMIT;
	END LOOP;
END
$$;
RESET default_transaction_isolation;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
