--
-- What keeps atomicity from being switched off without a word.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- the extension's tables can't be taken away from under it
ALTER SCHEMA dtx RENAME TO other;
ALTER SCHEMA dtx_internal RENAME TO other;
ALTER MATERIALIZED VIEW dtx_internal.decision RENAME TO other;
ALTER TABLE dtx_internal.decision RENAME TO other;
ALTER MATERIALIZED VIEW dtx_internal.decision RENAME COLUMN xid TO other;
ALTER MATERIALIZED VIEW dtx_internal.decision SET SCHEMA public;
ALTER MATERIALIZED VIEW dtx_internal.decision SET (fillfactor = 50);
ALTER TABLE dtx_internal.decision OWNER TO CURRENT_USER;
ALTER TABLE dtx_internal.coordinator RENAME TO other;
ALTER TABLE dtx_internal.coordinator SET SCHEMA public;
ALTER TABLE dtx_internal.forced_record ADD COLUMN note text;
ALTER TABLE dtx_internal.forced_record DROP COLUMN gid;
ALTER TABLE dtx_internal.forced_record ALTER COLUMN decision TYPE varchar;
ALTER VIEW dtx.in_doubt RENAME TO other;
ALTER EXTENSION pg_dtx DROP MATERIALIZED VIEW dtx_internal.decision;
ALTER EXTENSION pg_dtx DROP TABLE dtx_internal.coordinator;
REFRESH MATERIALIZED VIEW dtx_internal.decision;
DO $$BEGIN EXECUTE 'ALTER SCHEMA dtx RENAME TO other'; END$$;
-- nor changed by hand, nor be given what would not be looked after
CREATE INDEX ON dtx_internal.decision (xid);
CREATE INDEX CONCURRENTLY ON dtx_internal.decision (xid);
INSERT INTO dtx_internal.decision (boot_id, xid) VALUES (1, 1);
DELETE FROM dtx_internal.decision;
TRUNCATE dtx_internal.decision;
ALTER TABLE dtx_internal.decision ENABLE ROW LEVEL SECURITY;
CREATE TRIGGER t AFTER INSERT ON dtx_internal.decision FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE RULE r AS ON INSERT TO dtx_internal.decision DO INSTEAD NOTHING;
\set VERBOSITY terse
CREATE PUBLICATION p FOR TABLE dtx_internal.decision;
SET client_min_messages = error;
CREATE PUBLICATION p FOR ALL TABLES;
RESET client_min_messages;
SELECT tablename FROM pg_publication_tables WHERE schemaname = 'dtx_internal' AND tablename = 'decision';
DROP PUBLICATION p;
\set VERBOSITY default
-- what does not matter is allowed, and so is all that with others' objects
ALTER TABLE dtx_internal.forced_record SET (fillfactor = 90);
ALTER TABLE dtx_internal.forced_record RESET (fillfactor);
ALTER TABLE dtx_internal.forced_record ALTER COLUMN gid SET STATISTICS 200;
ALTER TABLE dtx_internal.forced_record ALTER COLUMN gid SET STATISTICS -1;
VACUUM FULL dtx_internal.decision;
CREATE TABLE mine (i int);
ALTER TABLE mine RENAME TO yours;
ALTER TABLE yours ADD COLUMN j int;
CREATE INDEX ON yours (j);
DROP TABLE yours;
SELECT count(*) > 0 AS still_there FROM dtx_internal.decision;
-- If it has happened all the same, that is no reason to commit without atomicity.
CREATE PROCEDURE change_two(amount int) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE acct1 SET bal = amount WHERE id = 1;
	UPDATE acct2 SET bal = amount WHERE id = 1;
END
$$;
UPDATE pg_namespace SET nspname = 'dtx_moved' WHERE nspname = 'dtx_internal';
CALL change_two(1);
-- (one server needs no decision)
UPDATE acct1 SET bal = 99 WHERE id = 1;
UPDATE pg_namespace SET nspname = 'dtx_internal' WHERE nspname = 'dtx_moved';
UPDATE pg_class SET relname = 'decision_moved' WHERE oid = 'dtx_internal.decision'::regclass;
CALL change_two(2);
UPDATE pg_class SET relname = 'decision' WHERE oid = 'dtx_internal.decision_moved'::regclass;
UPDATE pg_class SET relname = 'coordinator_moved' WHERE oid = 'dtx_internal.coordinator'::regclass;
CALL change_two(3);
UPDATE pg_class SET relname = 'coordinator' WHERE oid = 'dtx_internal.coordinator_moved'::regclass;
\c -
\set SHOW_CONTEXT never
CREATE TEMP TABLE dependency AS SELECT * FROM pg_depend
	WHERE objid = 'dtx_internal.decision'::regclass AND classid = 'pg_class'::regclass AND deptype = 'e';
DELETE FROM pg_depend WHERE objid = 'dtx_internal.decision'::regclass AND classid = 'pg_class'::regclass AND deptype = 'e';
CALL change_two(4);
INSERT INTO pg_depend TABLE dependency;
\c -
\set SHOW_CONTEXT never
-- nor is a table that does not look as it should
UPDATE pg_attribute SET attname = 'xid_moved' WHERE attrelid = 'dtx_internal.decision'::regclass AND attname = 'xid';
CALL change_two(5);
SELECT gid FROM dtx.in_doubt;
UPDATE pg_attribute SET attname = 'xid' WHERE attrelid = 'dtx_internal.decision'::regclass AND attname = 'xid_moved';
UPDATE pg_attribute SET attname = 'number' WHERE attrelid = 'dtx_internal.coordinator'::regclass AND attname = 'id';
\c -
\set SHOW_CONTEXT never
CALL change_two(6);
UPDATE pg_attribute SET attname = 'id' WHERE attrelid = 'dtx_internal.coordinator'::regclass AND attname = 'number';
CALL change_two(7);
SELECT * FROM balances WHERE id = 1;
TABLE prepared;
SELECT two_phase FROM counted();
DROP PROCEDURE change_two;
--
-- Transactions that are not protected are counted, and superusers say what
-- becomes of them.
--
CREATE VIEW unprotected AS SELECT s.unprotected - m.unprotected AS unprotected FROM dtx.stat s, mark m;
CREATE ROLE regress_dtx_user;
GRANT ALL ON acct0, acct1, acct2, balances TO regress_dtx_user;
SET ROLE regress_dtx_user;
SET pg_dtx.two_phase_commit = off;
SET pg_dtx.require = off;
ALTER ROLE CURRENT_USER SET pg_dtx.two_phase_commit = off;
RESET ROLE;
SET pg_dtx.two_phase_commit = off;
-- one node
UPDATE acct1 SET bal = 50 WHERE id = 2;
-- none
SELECT count(*) FROM acct1, acct2;
TABLE unprotected;
-- two servers; this one and a server
BEGIN;
UPDATE acct1 SET bal = 51 WHERE id = 2;
UPDATE acct2 SET bal = 51 WHERE id = 2;
COMMIT;
BEGIN;
UPDATE acct0 SET bal = 52 WHERE id = 2;
UPDATE acct2 SET bal = 52 WHERE id = 2;
COMMIT;
TABLE unprotected;
SET pg_dtx.require = error;
BEGIN;
UPDATE acct1 SET bal = 53 WHERE id = 2;
UPDATE acct2 SET bal = 53 WHERE id = 2;
COMMIT;
SELECT * FROM balances WHERE id = 2;
\c -
\set SHOW_CONTEXT never
SET pg_dtx.require = off;
SET pg_dtx.two_phase_commit = off;
BEGIN;
UPDATE acct1 SET bal = 54 WHERE id = 2;
UPDATE acct2 SET bal = 54 WHERE id = 2;
COMMIT;
SELECT * FROM balances WHERE id = 2;
-- What counts is the setting at COMMIT, and a superuser's function may set it.
RESET pg_dtx.two_phase_commit;
CREATE FUNCTION turn_off() RETURNS void LANGUAGE sql SECURITY DEFINER
	SET pg_dtx.two_phase_commit = off AS 'SELECT';
SET ROLE regress_dtx_user;
SELECT turn_off();
SHOW pg_dtx.two_phase_commit;
RESET ROLE;
DROP FUNCTION turn_off;
DROP OWNED BY regress_dtx_user;
DROP ROLE regress_dtx_user;
DROP VIEW unprotected;
