--
-- Savepoints and subtransactions.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- kept and released
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
SAVEPOINT a;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
SAVEPOINT b;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
RELEASE SAVEPOINT a;
COMMIT;
SELECT * FROM counted();
-- partly rolled back
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
SAVEPOINT a;
UPDATE acct1 SET bal = bal - 50 WHERE id = 1;
UPDATE acct2 SET bal = bal + 50 WHERE id = 1;
ROLLBACK TO SAVEPOINT a;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
TABLE balances;
-- all of one server's work rolled back
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
SAVEPOINT a;
UPDATE acct2 SET bal = bal + 50 WHERE id = 1;
ROLLBACK TO SAVEPOINT a;
COMMIT;
SELECT prepare_failed FROM counted();
-- an error on a server in a subtransaction
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
SAVEPOINT a;
UPDATE acct2 SET bal = -1 WHERE id = 1;
ROLLBACK TO SAVEPOINT a;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- an error on a server that is first used in the subtransaction
\c
\set SHOW_CONTEXT never
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 2;
SAVEPOINT a;
SAVEPOINT b;
INSERT INTO acct2 VALUES (1, 1);
ROLLBACK TO SAVEPOINT a;
UPDATE acct0 SET bal = bal + 1 WHERE id = 2;
COMMIT;
SELECT prepare_failed FROM counted();
-- exceptions in PL/pgSQL
DO $$
BEGIN
	FOR i IN 1 .. 4 LOOP
		BEGIN
			UPDATE acct1 SET bal = bal - 60 WHERE id = 3;
			UPDATE acct2 SET bal = bal + 60 WHERE id = 3;
		EXCEPTION WHEN check_violation THEN
			RAISE NOTICE 'round %: %', i, sqlerrm;
		END;
	END LOOP;
END
$$;
SELECT * FROM counted();
-- the whole transaction rolled back after a released subtransaction
BEGIN;
SAVEPOINT a;
UPDATE acct1 SET bal = 0;
UPDATE acct2 SET bal = 0;
RELEASE SAVEPOINT a;
ROLLBACK;
SELECT * FROM counted();
-- ... and failed
BEGIN;
SAVEPOINT a;
UPDATE acct1 SET bal = 0;
UPDATE acct2 SET bal = 0;
RELEASE SAVEPOINT a;
SELECT 1 / 0;
COMMIT;
SELECT * FROM counted();
-- deep
DO $$
DECLARE
	i int := 0;
BEGIN
	BEGIN
		BEGIN
			BEGIN
				UPDATE acct1 SET bal = bal + 4 WHERE id = 4;
				BEGIN
					UPDATE acct2 SET bal = bal + 4 WHERE id = 4;
				END;
				RAISE EXCEPTION 'away with it';
			EXCEPTION WHEN OTHERS THEN
				UPDATE acct2 SET bal = bal + 1 WHERE id = 4;
			END;
		END;
	END;
	UPDATE acct1 SET bal = bal + 1 WHERE id = 4;
END
$$;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
