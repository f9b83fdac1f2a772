--
-- A PREPARE that fails: an error that says where and why, and nothing is left.
--
CALL begin_test();
\c dtx_two
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE EXCEPTION 'balance % is refused', NEW.bal
		USING ERRCODE = 'ZX001', DETAIL = 'The detail.', HINT = 'The hint.';
END
$$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON acct
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal > 1000) EXECUTE FUNCTION refuse();
CREATE TABLE parent (id int PRIMARY KEY);
CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
CREATE FUNCTION make_temp() RETURNS int LANGUAGE sql VOLATILE AS
	$$CREATE TEMP TABLE t (); SELECT 1$$;
CREATE VIEW temp AS SELECT make_temp() AS n;
\c contrib_regression
CREATE FOREIGN TABLE child (id int) SERVER two;
CREATE FOREIGN TABLE temp2 (n int) SERVER two OPTIONS (table_name 'temp');
\set SHOW_CONTEXT never
-- a trigger
BEGIN;
UPDATE acct0 SET bal = 1 WHERE id = 1;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1001 WHERE id = 1;
COMMIT;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM counted();
-- a foreign key
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
INSERT INTO child VALUES (1);
COMMIT;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM counted();
-- what can't be prepared
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT * FROM temp2;
COMMIT;
\echo :LAST_ERROR_SQLSTATE
SELECT * FROM counted();
-- in a function, in a procedure that goes on
DO $$
BEGIN
	UPDATE acct1 SET bal = 1 WHERE id = 1;
	UPDATE acct2 SET bal = 1001 WHERE id = 1;
	COMMIT;
END
$$;
SELECT * FROM counted();
-- in a message of several statements
UPDATE acct1 SET bal = 1 WHERE id = 1 \; UPDATE acct2 SET bal = 1001 WHERE id = 1;
SELECT * FROM counted();
-- COMMIT AND CHAIN: no transaction follows
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1001 WHERE id = 1;
COMMIT AND CHAIN;
SELECT now() = statement_timestamp() AS no_transaction;
ROLLBACK;
SELECT * FROM counted();
-- this node refuses before anything is prepared
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'refused here'; END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct0
	DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal > 1000) EXECUTE FUNCTION refuse();
BEGIN;
UPDATE acct0 SET bal = 1001 WHERE id = 1;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 1 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
DROP TRIGGER refuse ON acct0;
DROP FUNCTION refuse;
-- nothing is left, and the session goes on
TABLE balances;
TABLE prepared;
SELECT count(*) FROM dtx.in_doubt;
BEGIN;
UPDATE acct1 SET bal = 1 WHERE id = 1;
UPDATE acct2 SET bal = 999 WHERE id = 1;
COMMIT;
SELECT * FROM counted();
SELECT * FROM balances WHERE id = 1;
DROP FOREIGN TABLE child, temp2;
\c dtx_two
DROP TRIGGER refuse ON acct;
\c contrib_regression
