--
-- What was finished by hand against its decision is found and stays visible.
--
CALL begin_test();
\set SHOW_CONTEXT never
-- transactions on the servers, which are this cluster, and how they ended
SELECT pg_current_xact_id() AS committed \gset
BEGIN;
SELECT pg_current_xact_id() AS aborted1 \gset
ROLLBACK;
BEGIN;
SELECT pg_current_xact_id() AS aborted2 \gset
ROLLBACK;
BEGIN;
SELECT pg_current_xact_id() AS aborted3 \gset
ROLLBACK;
-- Decisions to commit: done; not done; done and not done; not done, on purpose;
-- not known to the server; not known which transaction.
CREATE PROCEDURE decide(xid int, servers name[], remote text) LANGUAGE sql AS
	$$ CALL record_decision(221, xid::text::xid8, servers, remote::bigint[]) $$;
CREATE FUNCTION gid(xid text, n int) RETURNS text LANGUAGE sql AS
	$$ SELECT dtx_internal.gid(xid::xid8, n, 221) $$;
BEGIN;
CALL decide(1, '{one}', format('{%s}', :'committed'));
CALL decide(2, '{one}', format('{%s}', :'aborted1'));
CALL decide(3, '{one,two}', format('{%s,%s}', :'committed', :'aborted2'));
CALL decide(4, '{one}', format('{%s}', :'aborted3'));
INSERT INTO dtx_internal.forced_record VALUES (gid('4', 1), 'one', 'rollback', 'commit', true, 'on purpose', current_user, now());
CALL decide(5, '{two}', format('{%s}', :'committed'::bigint + 1000000));
CALL decide(7, '{two}', '{0}');
COMMIT;
-- The resolver makes a pass if it is asked for one.
DO 'BEGIN PERFORM dtx.resolve_in_doubt(); END';
CALL wait_until('SELECT count(*) = 0 FROM dtx_internal.decision WHERE boot_id = 221 AND xid <> 7');
SELECT short(gid) AS gid, server, decided, found, since > now() - interval '1 hour' AS lately,
	remote_xid = :'aborted1' AS one, remote_xid = :'aborted2' AS two, detail
FROM dtx.damage ORDER BY gid;
SELECT short(gid), last_error FROM dtx.in_doubt;
SELECT gid('3', 2) AS gid32 \gset
-- who may do what
CREATE ROLE regress_dtx_user;
CREATE ROLE regress_dtx_monitor IN ROLE pg_monitor;
SET ROLE regress_dtx_user;
SELECT count(*) FROM dtx.damage;
SELECT count(*) FROM dtx_internal.damage_record;
SELECT dtx.acknowledge_damage(:'gid32', 'not mine');
RESET ROLE;
SET ROLE regress_dtx_monitor;
SELECT count(*) FROM dtx.damage;
SELECT dtx.acknowledge_damage(:'gid32', 'not mine');
DELETE FROM dtx_internal.damage_record;
RESET ROLE;
-- acknowledging
CREATE FUNCTION try_ack(gid text, reason text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	h text;
BEGIN
	PERFORM dtx.acknowledge_damage(gid, reason);
	RETURN 'done';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS h = PG_EXCEPTION_HINT;
	RETURN replace(concat_ws(E'\n', sqlstate || ' ' || sqlerrm, nullif(h, '')), coalesce(gid, ''), 'GID');
END
$$;
\pset format unaligned
\pset tuples_only on
SELECT try_ack(gid('2', 1), NULL);
SELECT try_ack(gid('2', 1), ' ');
SELECT try_ack('dtx:nonsense', 'whatever');
BEGIN READ ONLY;
SELECT try_ack(gid('2', 1), 'read only');
COMMIT;
SELECT try_ack(gid('2', 1), 'booked again');
SELECT try_ack(gid('2', 1), 'booked again');
-- a role that is granted EXECUTE may, and is noted
GRANT EXECUTE ON FUNCTION dtx.acknowledge_damage(text, text) TO regress_dtx_user;
SET SESSION AUTHORIZATION regress_dtx_user;
SELECT dtx.acknowledge_damage(:'gid32', 'known to all');
RESET SESSION AUTHORIZATION;
REVOKE EXECUTE ON FUNCTION dtx.acknowledge_damage(text, text) FROM regress_dtx_user;
\pset format aligned
\pset tuples_only off
SELECT short(gid) AS gid FROM dtx.damage ORDER BY gid;
SELECT short(gid) AS gid, acknowledged_by = current_user AS by_me, reason,
	acknowledged_at > since AS later
FROM dtx_internal.damage_record ORDER BY gid;
-- found again: on record already
CALL decide(2, '{one}', format('{%s}', :'aborted1'));
DO 'BEGIN PERFORM dtx.resolve_in_doubt(); END';
CALL wait_until('SELECT count(*) = 0 FROM dtx_internal.decision WHERE boot_id = 221 AND xid <> 7');
SELECT short(gid) AS gid FROM dtx.damage ORDER BY gid;
-- clean up
DELETE FROM dtx_internal.damage_record;
DELETE FROM dtx_internal.forced_record WHERE gid = gid('4', 1);
CALL change_decisions('DELETE FROM dtx_internal.decision WHERE boot_id = 221');
SET client_min_messages = warning;
SELECT dtx.force_in_doubt(gid('7', 1), 'commit', 'done', override => true);
RESET client_min_messages;
DROP PROCEDURE decide;
DROP FUNCTION gid;
DROP FUNCTION try_ack;
DROP ROLE regress_dtx_user, regress_dtx_monitor;
