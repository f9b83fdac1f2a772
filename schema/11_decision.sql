--
-- Decisions.  Written and read below the executor (src/state/decision.c), which
-- relies on the columns, on their order, on heap, and on there being no index:
-- rows are overwritten in place, as HOT updates.  Not dumped: they mean
-- something only to the transactions that are prepared now.
--
-- A materialized view is the one kind of relation that is nothing but storage:
-- nobody can write it with SQL, hang triggers, rules or policies on it, or publish
-- it (CREATE PUBLICATION ... FOR ALL TABLES).  It is never refreshed.
--

CREATE MATERIALIZED VIEW dtx_internal.decision USING heap WITH (fillfactor = 20) AS
  SELECT NULL::pg_catalog.int8 AS boot_id,
         NULL::pg_catalog.int8 AS xid,
         NULL::pg_catalog.oid AS database,
         NULL::pg_catalog.oid AS userid,
         NULL::pg_catalog.timestamptz AS decided_at,
         NULL::pg_catalog.oid[] AS serverids,
         NULL::pg_catalog.oid[] AS umids,
         NULL::pg_catalog.int8[] AS system_ids,
         NULL::pg_catalog.int8[] AS remote_xids,
         NULL::pg_catalog.int8[] AS timelines,
         NULL::pg_catalog.int8[] AS endpoints,
         NULL::pg_catalog.timestamptz AS started,
         NULL::pg_catalog.text AS application_name
   WHERE false;

COMMENT ON MATERIALIZED VIEW dtx_internal.decision IS
  'one row per transaction that committed on several servers and may not be finished on all of them; never refreshed';
COMMENT ON COLUMN dtx_internal.decision.boot_id IS
  'random identifier of the server run in which the transaction ran';
COMMENT ON COLUMN dtx_internal.decision.xid IS
  'full transaction identifier of the local transaction';
COMMENT ON COLUMN dtx_internal.decision.database IS
  'OID of the database that decided: another one if this is a copy made with CREATE DATABASE';
COMMENT ON COLUMN dtx_internal.decision.userid IS
  'session user of the transaction';
COMMENT ON COLUMN dtx_internal.decision.decided_at IS
  'when the row was written, just after all servers had prepared';
COMMENT ON COLUMN dtx_internal.decision.serverids IS
  'foreign server of each participant, in the order of the last field of its gid';
COMMENT ON COLUMN dtx_internal.decision.umids IS
  'user mapping of each participant, in the same order';
COMMENT ON COLUMN dtx_internal.decision.system_ids IS
  'system identifier of the cluster of each participant, in the same order; 0 if not known';
COMMENT ON COLUMN dtx_internal.decision.remote_xids IS
  'full transaction identifier of each participant on its server, in the same order; 0 if not known';
COMMENT ON COLUMN dtx_internal.decision.timelines IS
  'timeline of the cluster of each participant, in the same order; 0 if not known';
COMMENT ON COLUMN dtx_internal.decision.endpoints IS
  'hash of the connection options of each participant, without passwords, in the same order';
COMMENT ON COLUMN dtx_internal.decision.started IS
  'start of the transaction';
COMMENT ON COLUMN dtx_internal.decision.application_name IS
  'application_name of its session';

--
-- Through which user mappings something was prepared, and where.  Written and read
-- below the executor (src/net/route.c); a materialized view for the same reasons.  Not
-- dumped: nothing was prepared by what is restored from a dump.
--

CREATE MATERIALIZED VIEW dtx_internal.route USING heap AS
  SELECT NULL::pg_catalog.oid AS serverid,
         NULL::pg_catalog.oid AS umid,
         NULL::pg_catalog.name AS server,
         NULL::pg_catalog.oid AS userid,
         NULL::pg_catalog.int8 AS endpoint,
         NULL::pg_catalog.timestamptz AS since
   WHERE false;

COMMENT ON MATERIALIZED VIEW dtx_internal.route IS
  'user mappings through which something was prepared, and where they led then: the resolver uses no others; never refreshed';
COMMENT ON COLUMN dtx_internal.route.serverid IS
  'foreign server';
COMMENT ON COLUMN dtx_internal.route.umid IS
  'user mapping';
COMMENT ON COLUMN dtx_internal.route.server IS
  'name of the foreign server, by which it is found if it was created again';
COMMENT ON COLUMN dtx_internal.route.userid IS
  'local user of the user mapping; 0: that for PUBLIC';
COMMENT ON COLUMN dtx_internal.route.endpoint IS
  'hash of the options that say where the connection leads, as whom, and how the server is made sure of';
COMMENT ON COLUMN dtx_internal.route.since IS
  'when it was recorded, before the first PREPARE TRANSACTION or by dtx.confirm_server()';

--
-- What humans decided.  Append-only, and dumped.
--

CREATE TABLE dtx_internal.forced_record (
  gid text NOT NULL,
  server name,
  decision text NOT NULL CHECK (decision IN ('commit', 'rollback')),
  decided text NOT NULL CHECK (decided IN ('commit', 'rollback', 'unknown')),
  contradicted boolean NOT NULL,
  reason text NOT NULL,
  by_user name NOT NULL,
  at timestamptz NOT NULL
);

SELECT pg_catalog.pg_extension_config_dump('dtx_internal.forced_record', '');

COMMENT ON TABLE dtx_internal.forced_record IS
  'what was finished by hand with dtx.force_in_doubt()';
COMMENT ON COLUMN dtx_internal.forced_record.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx_internal.forced_record.server IS
  'foreign server on which it was finished; null if the server had been dropped';
COMMENT ON COLUMN dtx_internal.forced_record.decision IS
  'what was done: commit or rollback';
COMMENT ON COLUMN dtx_internal.forced_record.decided IS
  'what the recorded decision was: commit, rollback, or unknown';
COMMENT ON COLUMN dtx_internal.forced_record.contradicted IS
  'was something else done than what was decided?';
COMMENT ON COLUMN dtx_internal.forced_record.reason IS
  'why, in the words of who did it';
COMMENT ON COLUMN dtx_internal.forced_record.by_user IS
  'session user who did it';
COMMENT ON COLUMN dtx_internal.forced_record.at IS
  'when';
