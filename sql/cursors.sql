--
-- Cursors over foreign tables.
--
CALL begin_test();
-- open at COMMIT
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM acct1 ORDER BY id;
FETCH 2 FROM c;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
FETCH 1 FROM c;
COMMIT;
SELECT * FROM counted();
-- two cursors on the same connection, one closed, with fetch_size 1
ALTER SERVER one OPTIONS (ADD fetch_size '1');
BEGIN;
DECLARE c CURSOR FOR SELECT * FROM acct1 ORDER BY id;
DECLARE d CURSOR FOR SELECT * FROM acct1 ORDER BY id DESC;
FETCH 1 FROM c;
FETCH 1 FROM d;
CLOSE c;
UPDATE acct1 SET bal = 2 WHERE id = 2;
UPDATE acct0 SET bal = 2 WHERE id = 2;
FETCH 2 FROM d;
COMMIT;
SELECT * FROM counted();
ALTER SERVER one OPTIONS (DROP fetch_size);
-- WITH HOLD: read to the end before the PREPARE
BEGIN;
DECLARE h CURSOR WITH HOLD FOR
	SELECT acct1.id, acct1.bal, acct2.bal FROM acct1 JOIN acct2 USING (id) ORDER BY 1;
FETCH 1 FROM h;
UPDATE acct1 SET bal = 3 WHERE id = 3;
UPDATE acct2 SET bal = 3 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
FETCH ALL FROM h;
CLOSE h;
-- a loop over a foreign table that writes
DO $$
DECLARE
	r record;
BEGIN
	FOR r IN SELECT * FROM acct1 WHERE id > 2 ORDER BY id LOOP
		UPDATE acct2 SET bal = r.bal + r.id WHERE id = r.id;
		UPDATE acct1 SET bal = bal - r.id WHERE id = r.id;
	END LOOP;
END
$$;
SELECT * FROM counted();
-- a cursor of a subtransaction that is rolled back
BEGIN;
SAVEPOINT a;
DECLARE c CURSOR FOR SELECT * FROM acct1 ORDER BY id;
FETCH 1 FROM c;
ROLLBACK TO SAVEPOINT a;
UPDATE acct1 SET bal = 44 WHERE id = 4;
UPDATE acct2 SET bal = 44 WHERE id = 4;
COMMIT;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
