--
-- dtx.force(): a human decides.
--
CALL begin_test();
\set SHOW_CONTEXT never
CREATE FUNCTION stem(boot text, xid int) RETURNS text LANGUAGE sql AS $$
	SELECT format('dtx:%s:%s:%s:%s', lpad(to_hex(id), 16, '0'), d.oid, boot, xid)
	FROM dtx.coordinator, pg_database d WHERE datname = current_database()
$$;
SELECT stem('00000000000000bb', 11) || ':1' AS gid1, stem('00000000000000bb', 12) || ':1' AS gid2,
	stem('00000000000000bb', 13) || ':1' AS gid3, stem('00000000000000bb', 14) || ':1' AS gid4 \gset
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
	PERFORM dtx.force(gid, decision, reason, override);
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
CALL change_decisions($$
INSERT INTO dtx.decision (boot_id, xid, userid, decided_at, serverids, umids, system_ids, remote_xids)
SELECT 187, 13, 10, now(), array_agg(srvid), array_agg(umid), '{0}', '{}'
FROM pg_user_mappings WHERE srvname = 'one'
$$);
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
SELECT split_part(gid, ':', 5) AS xid, f.server, f.decision, f.decided, f.contradicted, f.reason,
	f.by_user = current_user AS by_me FROM dtx.forced f ORDER BY 1;
-- no such transaction
SELECT try(:'gid4', 'rollback', 'gone');
-- a decision and a reason are needed
SELECT try(:'gid4', 'maybe', 'reason');
SELECT try(:'gid4', 'rollback', '');
SELECT try(:'gid4', 'rollback', NULL);
SELECT try(NULL, 'rollback', 'reason');
SELECT count(*) FROM dtx.forced;
SELECT count(*) FROM pg_prepared_xacts;
CALL change_decisions('DELETE FROM dtx.decision WHERE boot_id = 187');
DROP FUNCTION stem, try;
