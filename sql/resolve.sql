--
-- dtx.resolve(): finish what is in doubt, by the recorded decision.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- nothing to do
SELECT * FROM dtx.resolve();
-- What a coordinator leaves that died after PREPARE: on each server a prepared
-- transaction with a gid of this database.
CREATE FUNCTION stem(boot text, xid int) RETURNS text LANGUAGE sql AS $$
	SELECT format('dtx:%s:%s:%s:%s', lpad(to_hex(id), 16, '0'), d.oid, boot, xid)
	FROM dtx.coordinator, pg_database d WHERE datname = current_database()
$$;
SELECT stem('00000000000000aa', 7) AS stem \gset
\c dtx_one
BEGIN;
UPDATE acct SET bal = 2 WHERE id = 2;
SELECT :'stem' || ':1' AS gid \gset
PREPARE TRANSACTION :'gid';
\c dtx_two
BEGIN;
UPDATE acct SET bal = 1 WHERE id = 1;
SELECT :'stem' || ':2' AS gid \gset
PREPARE TRANSACTION :'gid';
-- transactions that are not ours: another coordinator, another database of
-- this one, other programs, and imitations
BEGIN;
PREPARE TRANSACTION 'dtx:0123456789abcdef:1:0123456789abcdef:1:1';
BEGIN;
SELECT :'stem' || ':02' AS bad \gset
PREPARE TRANSACTION :'bad';
BEGIN;
PREPARE TRANSACTION 'regress_dtx';
\c contrib_regression
\set SHOW_CONTEXT never
-- no decision: roll back
SELECT server, replace(gid, :'stem', 'stem') AS gid, decision, done, error
FROM dtx.resolve() WHERE done ORDER BY 1, 2;
TABLE balances;
SELECT count(*) FROM pg_prepared_xacts;
-- a recorded decision: commit
SELECT stem('00000000000000aa', 8) AS stem \gset
\c dtx_one
BEGIN;
UPDATE acct SET bal = 3 WHERE id = 3;
SELECT :'stem' || ':1' AS gid \gset
PREPARE TRANSACTION :'gid';
\c dtx_two
BEGIN;
UPDATE acct SET bal = 3 WHERE id = 3;
SELECT :'stem' || ':2' AS gid \gset
PREPARE TRANSACTION :'gid';
\c contrib_regression
\set SHOW_CONTEXT never
CALL change_decisions($$
INSERT INTO dtx.decision (boot_id, xid, userid, decided_at, serverids, umids, system_ids, remote_xids)
SELECT 170, 8, 10, now(), array_agg(srvid ORDER BY srvname), array_agg(umid ORDER BY srvname), '{0,0}', '{}'
FROM pg_user_mappings WHERE srvname IN ('one', 'two')
$$);
SELECT server, replace(gid, :'stem', 'stem') AS gid, decision, done, error
FROM dtx.resolve() WHERE done ORDER BY 1, 2;
TABLE balances;
-- The decision is forgotten by a pass of the resolver that finds nothing of it.
-- dtx.resolve() has asked for one.
CALL wait_until('SELECT count(*) = 0 FROM dtx.decision WHERE boot_id = 170');
-- nothing is left to do
SELECT * FROM dtx.resolve();
-- in a transaction of one's own
BEGIN;
UPDATE acct1 SET bal = 4 WHERE id = 4;
SELECT * FROM dtx.resolve();
UPDATE acct2 SET bal = 4 WHERE id = 4;
COMMIT;
TABLE balances;
-- clean up what is not ours
\c dtx_two
ROLLBACK PREPARED 'dtx:0123456789abcdef:1:0123456789abcdef:1:1';
ROLLBACK PREPARED 'regress_dtx';
ROLLBACK PREPARED :'bad';
\c contrib_regression
SELECT count(*) FROM pg_prepared_xacts;
DROP FUNCTION stem;
