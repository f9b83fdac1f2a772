--
-- dtx.resolve_in_doubt(): finish what is in doubt, by the recorded decision.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- nothing to do
SELECT * FROM dtx.resolve_in_doubt();
-- What a coordinator leaves that died after PREPARE: on each server a prepared
-- transaction with a gid of this database.
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
ROLLBACK;
SELECT dtx_internal.gid(:'xid', 1) AS gid1, dtx_internal.gid(:'xid', 2) AS gid2 \gset
\c dtx_one
BEGIN;
UPDATE acct SET bal = 2 WHERE id = 2;
PREPARE TRANSACTION :'gid1';
\c dtx_two
BEGIN;
UPDATE acct SET bal = 1 WHERE id = 1;
PREPARE TRANSACTION :'gid2';
-- transactions that are not ours: another coordinator, another database of
-- this one, other programs, and imitations
BEGIN;
PREPARE TRANSACTION 'dtx:0123456789abcdef:1:0123456789abcdef:9:1:0123456789abcdef';
BEGIN;
SELECT replace(:'gid2', ':2:', ':02:') AS bad \gset
PREPARE TRANSACTION :'bad';
BEGIN;
PREPARE TRANSACTION 'regress_dtx';
\c contrib_regression
\set SHOW_CONTEXT never
-- no decision: roll back
SELECT server, replace(short(gid), :'xid', 'xid') AS gid, decision, done, error
FROM dtx.resolve_in_doubt() WHERE done ORDER BY 1, 2;
TABLE balances;
SELECT count(*) FROM pg_prepared_xacts;
-- a recorded decision: commit.  Until it is recorded the transaction is in progress:
-- a resolver would take it for one that has reappeared.
CALL wait_until($$SELECT bool_and(state = 'idle') FROM pg_stat_activity
	WHERE backend_type = 'pg_dtx resolver' AND datname = current_database()$$);
BEGIN;
SELECT pg_current_xact_id() AS xid \gset
PREPARE TRANSACTION 'regress_in_progress';
SELECT dtx_internal.gid(:'xid', 1) AS gid1, dtx_internal.gid(:'xid', 2) AS gid2 \gset
\c dtx_one
BEGIN;
UPDATE acct SET bal = 3 WHERE id = 3;
PREPARE TRANSACTION :'gid1';
\c dtx_two
BEGIN;
UPDATE acct SET bal = 3 WHERE id = 3;
PREPARE TRANSACTION :'gid2';
\c contrib_regression
\set SHOW_CONTEXT never
SELECT transaction AS remote1 FROM pg_prepared_xacts WHERE gid = :'gid1' \gset
SELECT transaction AS remote2 FROM pg_prepared_xacts WHERE gid = :'gid2' \gset
CALL record_decision(dtx_internal.boot_id(), :'xid', '{one,two}', ARRAY[:remote1, :remote2]);
COMMIT PREPARED 'regress_in_progress';
SELECT server, replace(short(gid), :'xid', 'xid') AS gid, decision, done, error
FROM dtx.resolve_in_doubt() WHERE done ORDER BY 1, 2;
TABLE balances;
-- The decision is forgotten by a pass of the resolver that finds nothing of it.
-- dtx.resolve_in_doubt() has asked for one.
SELECT format('SELECT count(*) = 0 FROM dtx_internal.decision WHERE xid = %s', :'xid') AS query \gset
CALL wait_until(:'query');
-- nothing is left to do
SELECT * FROM dtx.resolve_in_doubt();
-- in a transaction of one's own
BEGIN;
UPDATE acct1 SET bal = 4 WHERE id = 4;
SELECT * FROM dtx.resolve_in_doubt();
UPDATE acct2 SET bal = 4 WHERE id = 4;
COMMIT;
TABLE balances;
-- clean up what is not ours
\c dtx_two
ROLLBACK PREPARED 'dtx:0123456789abcdef:1:0123456789abcdef:9:1:0123456789abcdef';
ROLLBACK PREPARED 'regress_dtx';
ROLLBACK PREPARED :'bad';
\c contrib_regression
SELECT count(*) FROM pg_prepared_xacts;
