--
-- Views and functions that reach a server as their owner.
--
CALL begin_test();
\set SHOW_CONTEXT never
CREATE ROLE regress_dtx_user;
CREATE ROLE regress_dtx_owner;
GRANT CREATE ON SCHEMA public TO regress_dtx_owner;
GRANT SELECT, UPDATE ON acct1, acct2 TO regress_dtx_user, regress_dtx_owner;
CREATE USER MAPPING FOR regress_dtx_user SERVER one OPTIONS (password_required 'false', user :'USER');
CREATE USER MAPPING FOR regress_dtx_owner SERVER one OPTIONS (password_required 'false', user :'USER');
SET ROLE regress_dtx_owner;
CREATE VIEW owned AS SELECT * FROM acct1;
GRANT SELECT, UPDATE ON owned TO regress_dtx_user;
CREATE FUNCTION owned_update(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS
	'UPDATE acct1 SET bal = 50 WHERE id = $1';
RESET ROLE;
-- the owner's mapping alone: one phase
SET ROLE regress_dtx_user;
UPDATE owned SET bal = 10 WHERE id = 1;
RESET ROLE;
SELECT * FROM counted();
-- the owner's and the user's own: two participants on one server
SET ROLE regress_dtx_user;
BEGIN;
UPDATE owned SET bal = 20 WHERE id = 1;
UPDATE acct1 SET bal = 20 WHERE id = 2;
COMMIT;
RESET ROLE;
SELECT * FROM counted();
-- a function that runs as its owner
SET ROLE regress_dtx_user;
BEGIN;
SELECT owned_update(3);
UPDATE acct1 SET bal = 30 WHERE id = 4;
COMMIT;
RESET ROLE;
SELECT * FROM counted();
-- all or nothing between the two
\c dtx_one
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$BEGIN RAISE EXCEPTION 'refused'; END$$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 66) EXECUTE FUNCTION refuse();
\c contrib_regression
\set SHOW_CONTEXT never
SET ROLE regress_dtx_user;
BEGIN;
UPDATE owned SET bal = 65 WHERE id = 1;
UPDATE acct1 SET bal = 66 WHERE id = 2;
COMMIT;
RESET ROLE;
SELECT * FROM counted();
\c dtx_one
DROP TRIGGER refuse ON acct;
DROP FUNCTION refuse;
\c contrib_regression
-- three mappings of one server
BEGIN;
UPDATE acct1 SET bal = 70 WHERE id = 1;
UPDATE owned SET bal = 70 WHERE id = 2;
SET LOCAL ROLE regress_dtx_user;
UPDATE acct1 SET bal = 70 WHERE id = 3;
COMMIT;
SELECT * FROM counted();
TABLE balances;
TABLE prepared;
DROP VIEW owned;
DROP FUNCTION owned_update;
DROP OWNED BY regress_dtx_user, regress_dtx_owner;
DROP ROLE regress_dtx_user, regress_dtx_owner;
