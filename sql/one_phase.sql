--
-- At most one node wrote: one phase, and no cost.
--
CALL begin_test();
-- The number of transaction ids that were taken since the last look.  The
-- servers are databases of this cluster: one per remote writer.
CREATE FUNCTION xids_taken() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	old text := current_setting('test.xid', true);
	new xid8 := pg_snapshot_xmax(pg_current_snapshot());
BEGIN
	PERFORM set_config('test.xid', new::text, false);
	RETURN new::text::numeric - nullif(old, '')::numeric;
END
$$;
-- one remote writer
SELECT xids_taken() IS NULL AS first;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
SELECT xids_taken();
SELECT * FROM counted();
-- a reader
SELECT xids_taken() IS NOT NULL AS reset;
SELECT bal FROM acct1 WHERE id = 1;
SELECT xids_taken();
SELECT two_phase, prepared FROM counted();
-- two readers
SELECT xids_taken() IS NOT NULL AS reset;
BEGIN;
SELECT bal FROM acct1 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
COMMIT;
SELECT xids_taken();
SELECT two_phase, prepared FROM counted();
-- one remote writer, another server that is only read
SELECT xids_taken() IS NOT NULL AS reset;
BEGIN;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
COMMIT;
SELECT xids_taken();
SELECT * FROM counted();
-- a local write, two servers that are only read
SELECT xids_taken() IS NOT NULL AS reset;
BEGIN;
SELECT bal FROM acct1 WHERE id = 1;
SELECT bal FROM acct2 WHERE id = 1;
UPDATE acct0 SET bal = bal + 1 WHERE id = 1;
COMMIT;
SELECT xids_taken();
SELECT two_phase, prepared FROM counted();
-- two writers and a reader: the reader is not prepared
BEGIN;
UPDATE acct0 SET bal = bal + 1 WHERE id = 2;
UPDATE acct1 SET bal = bal + 1 WHERE id = 2;
SELECT bal FROM acct2 WHERE id = 2;
COMMIT;
SELECT * FROM counted();
-- statements that could have written and did not
SELECT xids_taken() IS NOT NULL AS reset;
BEGIN;
UPDATE acct1 SET bal = 0 WHERE id = 99;
DELETE FROM acct2 WHERE id = 99;
COMMIT;
SELECT prepared <= 2 AS not_more_than_the_servers FROM counted();
-- a read-only transaction
BEGIN READ ONLY;
SELECT bal FROM acct1 WHERE id = 2;
SELECT bal FROM acct2 WHERE id = 2;
COMMIT;
SELECT two_phase, prepared FROM counted();
-- the single writer fails at the end
\c dtx_one
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''refused at COMMIT''; END';
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.bal = 66) EXECUTE FUNCTION refuse();
\c contrib_regression
\set SHOW_CONTEXT never
UPDATE acct1 SET bal = 66 WHERE id = 1;
BEGIN;
SELECT bal FROM acct2 WHERE id = 1;
UPDATE acct1 SET bal = 66 WHERE id = 1;
COMMIT;
\c dtx_one
DROP TRIGGER refuse ON acct;
DROP FUNCTION refuse;
\c contrib_regression
SELECT two_phase, prepared FROM counted();
TABLE balances;
DROP FUNCTION xids_taken;
