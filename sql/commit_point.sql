--
-- A server decides, where nothing was written here: its commit is the decision.
--
CALL begin_test();
SET pg_dtx.commit_point = server;
-- ("prepared" does not count the one that decides; CHECKPOINT has the servers, which are
-- this cluster, flush their WAL, without which they do not decide)
-- two servers
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- not flushed: the coordinator decides
BEGIN;
SET LOCAL pg_dtx.commit_point = auto;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
-- a local write: likewise
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
UPDATE acct0 SET bal = bal + 1 WHERE id = 1;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- and in a serializable transaction, and if it shall
BEGIN ISOLATION LEVEL SERIALIZABLE;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
BEGIN;
SET LOCAL pg_dtx.commit_point = coordinator;
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
TABLE balances;
-- the one that decides refuses at the last moment, or the other one
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 2;
UPDATE acct2 SET bal = bal + 10 WHERE id = 2;
ROLLBACK;
SELECT * FROM counted();
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 2;
UPDATE acct2 SET bal = bal - 1000 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
\c dtx_two
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN RAISE EXCEPTION 'refused at the end' USING ERRCODE = 'P0042', HINT = 'try less'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 666) EXECUTE FUNCTION refuse();
\c contrib_regression
SET pg_dtx.commit_point = server;
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 2;
UPDATE acct2 SET bal = 666 WHERE id = 2;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- the session goes on
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 2;
UPDATE acct2 SET bal = bal + 10 WHERE id = 2;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
TABLE balances;
-- the first write is rolled back, alone
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 3;
SAVEPOINT a;
UPDATE acct2 SET bal = 0 WHERE id = 3;
ROLLBACK TO a;
UPDATE acct2 SET bal = bal + 10 WHERE id = 3;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- the command behind which the transaction id is asked for fails, and the transaction goes on
DO $$
BEGIN
	UPDATE acct1 SET bal = bal - 10 WHERE id = 3;
	BEGIN
		UPDATE acct2 SET bal = -1 WHERE id = 3;
	EXCEPTION WHEN check_violation THEN
		RAISE NOTICE 'refused';
	END;
	UPDATE acct2 SET bal = bal + 10 WHERE id = 3;
	CHECKPOINT;
END
$$;
SELECT * FROM counted();
-- INSERT, which postgres_fdw prepares; COPY; RETURNING; several rows at once
BEGIN;
INSERT INTO acct1 VALUES (10, 1), (11, 1);
INSERT INTO acct2 VALUES (10, 1), (11, 1);
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
BEGIN;
DELETE FROM acct1 WHERE id >= 10 RETURNING id;
DELETE FROM acct2 WHERE id >= 10 RETURNING id;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
BEGIN;
COPY acct1 FROM stdin;
20	1
\.
COPY acct2 FROM stdin;
20	1
\.
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- one that found no row has no transaction id, and can't decide; the other can
BEGIN;
UPDATE acct1 SET bal = bal - 10 WHERE id = 4;
UPDATE acct2 SET bal = 0 WHERE id = 4711;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- one that only reads
BEGIN;
SELECT count(*) FROM acct1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 4;
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- remote SQL does not ask for it
BEGIN;
SET LOCAL pg_dtx.commit_point = auto;
SELECT * FROM dtx.exec('one', 'UPDATE acct SET bal = bal - 1 WHERE id = 4');
SELECT * FROM dtx.exec('two', 'UPDATE acct SET bal = bal + 1 WHERE id = 4');
CHECKPOINT;
COMMIT;
SELECT * FROM counted();
-- a procedure that commits several times
CREATE PROCEDURE move(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		UPDATE acct1 SET bal = bal - 1 WHERE id = 4;
		UPDATE acct2 SET bal = bal + 1 WHERE id = 4;
		CHECKPOINT;
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
-- without waiting for the confirmations
SET pg_dtx.commit_wait = off;
CALL move(6);
SELECT sum(bal) FROM acct1 WHERE id = 4;
TABLE balances;
SELECT * FROM counted();
RESET pg_dtx.commit_wait;
SELECT decided_by_server > 0 AS decided FROM dtx.stat;
-- what is asked before PREPARE TRANSACTION is prepared on the server; a function may
-- have deallocated it, once
SET pg_dtx.commit_point = coordinator;
\c dtx_two
CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN 0; END $$;
CREATE VIEW forget AS SELECT forget();
\c contrib_regression
CREATE FOREIGN TABLE forget (forget int) SERVER two;
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
TABLE forget;
COMMIT;
BEGIN;
UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
TABLE forget;
COMMIT;
TABLE balances;
DROP FOREIGN TABLE forget;
\c dtx_two
DROP VIEW forget;
DROP FUNCTION forget();
\c contrib_regression
-- nothing is left
SELECT count(*) FROM pg_prepared_xacts;
SELECT count(*) FROM dtx.in_doubt;
\c dtx_two
DROP TRIGGER refuse ON acct;
DROP FUNCTION refuse();
\c contrib_regression
DROP PROCEDURE move;
