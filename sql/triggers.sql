--
-- Triggers that write on other nodes.
--
CALL begin_test();
\set SHOW_CONTEXT never
CREATE TABLE audit (what text);
-- on a foreign table, writing here and on the other server
CREATE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO audit VALUES (format('%s %s -> %s', NEW.id, OLD.bal, NEW.bal));
	UPDATE acct2 SET bal = bal - (NEW.bal - OLD.bal) WHERE id = NEW.id;
	RETURN NEW;
END
$$;
CREATE TRIGGER follow AFTER UPDATE ON acct1 FOR EACH ROW EXECUTE FUNCTION follow();
UPDATE acct1 SET bal = bal + 10 WHERE id = 1;
SELECT * FROM counted();
UPDATE acct1 SET bal = bal + 1000 WHERE id = 1;
SELECT * FROM counted();
DROP TRIGGER follow ON acct1;
-- on a local table, at the end of the transaction
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	UPDATE acct1 SET bal = bal + 1 WHERE id = NEW.id;
	UPDATE acct2 SET bal = bal + 1 WHERE id = NEW.id;
	RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON acct0
	DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit();
BEGIN;
UPDATE acct0 SET bal = 0 WHERE id = 2;
SELECT * FROM balances WHERE id = 2;
COMMIT;
SELECT * FROM counted();
-- in a session that has not used postgres_fdw before
\c
BEGIN;
UPDATE acct0 SET bal = 1 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
DROP TRIGGER at_commit ON acct0;
DROP FUNCTION at_commit, follow;
TABLE audit;
TABLE balances;
TABLE prepared;
DROP TABLE audit;
