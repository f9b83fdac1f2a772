--
-- dtx.force_in_doubt(): a human decides.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- alone
ALTER SYSTEM SET pg_dtx.resolver = off;
SELECT pg_reload_conf();
CALL wait_until($$SELECT bool_and(state = 'idle') FROM pg_stat_activity
	WHERE backend_type = 'pg_dtx resolver' AND datname = current_database()$$);
BEGIN;
SELECT pg_current_xact_id() AS xid1 \gset
ROLLBACK;
BEGIN;
SELECT pg_current_xact_id() AS xid2 \gset
ROLLBACK;
SELECT pg_current_xact_id() AS xid3 \gset
SELECT dtx_internal.gid(:'xid1', 1) AS gid1, dtx_internal.gid(:'xid2', 1) AS gid2, dtx_internal.gid(:'xid3', 1) AS gid3, dtx_internal.gid(:'xid1', 4) AS gid4 \gset
\c dtx_one
BEGIN;
UPDATE acct SET bal = 1 WHERE id = 1;
PREPARE TRANSACTION :'gid1';
BEGIN;
UPDATE acct SET bal = 2 WHERE id = 2;
PREPARE TRANSACTION :'gid2';
BEGIN;
UPDATE acct SET bal = 3 WHERE id = 3;
PREPARE TRANSACTION :'gid3';
\c contrib_regression
\set SHOW_CONTEXT never
-- What force() says, without what differs from run to run.
CREATE FUNCTION try(gid text, decision text, reason text, override bool DEFAULT false)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	d text;
	h text;
BEGIN
	PERFORM dtx.force_in_doubt(gid, decision, reason, override);
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL, h = PG_EXCEPTION_HINT;
	RETURN replace(concat_ws(E'\n', sqlstate || ' ' || sqlerrm, nullif(d, ''), nullif(h, '')),
		coalesce(gid, ''), 'GID');
END
$$;
\pset format unaligned
\pset tuples_only on
-- the third was committed
CALL record_decision(dtx_internal.boot_id(), :'xid3', '{one}', '{0}');
-- in agreement with the record
SELECT try(:'gid1', 'rollback', 'tidying up');
SELECT one FROM balances WHERE id = 1;
-- against it: refused, unless it is asked for
SELECT try(:'gid3', 'rollback', 'I know better');
SELECT try(:'gid3', 'rollback', 'I know better', override => true);
SELECT one FROM balances WHERE id = 3;
SELECT try(:'gid2', 'commit', 'the other server has it');
SELECT try(:'gid2', 'commit', 'the other server has it', override => true);
SELECT one FROM balances WHERE id = 2;
-- it is on record
SELECT f.server, f.decision, f.decided, f.contradicted, f.reason,
	f.by_user = current_user AS by_me FROM dtx.forced f ORDER BY at;
-- no such transaction
SELECT try(:'gid4', 'rollback', 'gone');
-- a decision and a reason are needed
SELECT try(:'gid4', 'maybe', 'reason');
SELECT try(:'gid4', 'rollback', '');
SELECT try(:'gid4', 'rollback', NULL);
SELECT try(NULL, 'rollback', 'reason');
SELECT count(*) FROM dtx.forced;
SELECT count(*) FROM pg_prepared_xacts;
SELECT format('DELETE FROM dtx_internal.decision WHERE xid = %s', :'xid3') AS command \gset
CALL change_decisions(:'command');
DROP FUNCTION try;
ALTER SYSTEM RESET pg_dtx.resolver;
SELECT pg_reload_conf();

-- what dtx.confirm_server() does not take
CREATE FOREIGN DATA WRAPPER regress_dtx_other;
CREATE SERVER regress_dtx_other FOREIGN DATA WRAPPER regress_dtx_other;
CREATE SERVER regress_dtx_alone FOREIGN DATA WRAPPER postgres_fdw;
SELECT dtx.confirm_server('regress_dtx_other');
SELECT dtx.confirm_server('regress_dtx_alone');
SELECT dtx.confirm_server('regress_dtx_alone', all_mappings => true);
SELECT dtx.confirm_server('regress_dtx_alone', all_mappings => null);
SELECT dtx.confirm_server(null);
DROP SERVER regress_dtx_alone;
DROP FOREIGN DATA WRAPPER regress_dtx_other CASCADE;
