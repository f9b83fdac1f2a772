/* pg_dtx--1.0.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_dtx" to load this file. \quit

-- The owner of a schema can drop what is in it.  CREATE EXTENSION takes a schema
-- that exists already, so make sure that this is not somebody else's.
DO $$
BEGIN
  IF NOT (SELECT r.rolsuper
            FROM pg_catalog.pg_namespace n
            JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
           WHERE n.nspname OPERATOR(pg_catalog.=) 'dtx') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_schema_definition',
      MESSAGE = 'schema "dtx" must belong to a superuser',
      HINT = 'Drop or rename the schema, or change its owner.';
  END IF;
END
$$;

COMMENT ON SCHEMA dtx IS 'atomic commit across postgres_fdw servers (extension pg_dtx)';

GRANT USAGE ON SCHEMA dtx TO PUBLIC;

--
-- Identity of the coordinator.  Not dumped: a copy must not take the
-- original's prepared transactions for its own.
--

CREATE FUNCTION dtx._make_identity() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_make_identity'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._make_identity() FROM PUBLIC;
COMMENT ON FUNCTION dtx._make_identity() IS
  'internal: makes the row of dtx.coordinator';

-- A materialized view, like dtx.decision: it must not be published.
CREATE MATERIALIZED VIEW dtx.coordinator USING heap AS
  SELECT NULL::pg_catalog.int8 AS id,
         NULL::pg_catalog.bytea AS secret
   WHERE false;

REVOKE ALL ON dtx.coordinator FROM PUBLIC;
GRANT SELECT (id) ON dtx.coordinator TO pg_monitor;
COMMENT ON MATERIALIZED VIEW dtx.coordinator IS
  'identity of this database as a coordinator; one row, made by CREATE EXTENSION and never dumped';
COMMENT ON COLUMN dtx.coordinator.id IS
  'random identifier; its 64 bits, in hexadecimal, are the first field of every gid';
COMMENT ON COLUMN dtx.coordinator.secret IS
  'key of the seal that ends every gid; who knows it can forge names of prepared transactions';

--
-- Boots of the server.  Read and written in src/identity.c, which relies on the
-- columns and their order.  Not dumped, like the rest of the identity.
--

CREATE MATERIALIZED VIEW dtx.boot USING heap AS
  SELECT NULL::pg_catalog.int8 AS boot_id,
         NULL::pg_catalog.int4 AS ordinal,
         NULL::pg_catalog.timestamptz AS started_at,
         NULL::pg_catalog.xid8 AS floor_xid,
         NULL::pg_catalog.xid8 AS next_xid,
         NULL::pg_catalog.xid8 AS proven_xid,
         NULL::pg_catalog.int8 AS timeline,
         NULL::pg_catalog.int8 AS system_id,
         NULL::pg_catalog.text AS machine,
         NULL::pg_catalog.int8 AS control_file,
         NULL::pg_catalog.int8 AS recovery_id,
         NULL::pg_catalog.text AS suspended,
         NULL::pg_catalog.timestamptz AS ended_at,
         NULL::pg_catalog.name AS ended_by,
         NULL::pg_catalog.text AS ended_as,
         NULL::pg_catalog.text AS reason
   WHERE false;

REVOKE ALL ON dtx.boot FROM PUBLIC;
GRANT SELECT ON dtx.boot TO pg_monitor;
COMMENT ON MATERIALIZED VIEW dtx.boot IS
  'starts of the server with this database: whose prepared transactions are its own; do not change it by hand';
COMMENT ON COLUMN dtx.boot.boot_id IS
  'random identifier of the server run; its 64 bits, in hexadecimal, are the third field of every gid';
COMMENT ON COLUMN dtx.boot.ordinal IS
  'order of the server runs';
COMMENT ON COLUMN dtx.boot.started_at IS
  'when it began';
COMMENT ON COLUMN dtx.boot.floor_xid IS
  'it has assigned no lower transaction identifier';
COMMENT ON COLUMN dtx.boot.next_xid IS
  'first transaction identifier that it can have assigned, or a higher one that was next soon after its start';
COMMENT ON COLUMN dtx.boot.proven_xid IS
  'lower transaction identifiers cannot be assigned again by later runs; raised by the resolver';
COMMENT ON COLUMN dtx.boot.timeline IS
  'timeline of the cluster';
COMMENT ON COLUMN dtx.boot.system_id IS
  'system identifier of the cluster';
COMMENT ON COLUMN dtx.boot.machine IS
  'hash of the identifier of the machine (/etc/machine-id); null if not known';
COMMENT ON COLUMN dtx.boot.control_file IS
  'inode number of the file global/pg_control, which a copied data directory does not share';
COMMENT ON COLUMN dtx.boot.recovery_id IS
  'random number of the last recovery of the cluster from a backup or to a target; 0: none';
COMMENT ON COLUMN dtx.boot.suspended IS
  'why prepared transactions of earlier runs are not resolved until a human says who this server is; null: they are';
COMMENT ON COLUMN dtx.boot.ended_at IS
  'when that was said; null: not yet, or no need';
COMMENT ON COLUMN dtx.boot.ended_by IS
  'session user who said it';
COMMENT ON COLUMN dtx.boot.ended_as IS
  'what was said: original (dtx.adopt_identity()) or copy (dtx.new_identity())';
COMMENT ON COLUMN dtx.boot.reason IS
  'why, in the words of who said it';

CREATE FUNCTION dtx._record_boot() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_record_boot'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._record_boot() FROM PUBLIC;
COMMENT ON FUNCTION dtx._record_boot() IS
  'internal: enters the current server run into dtx.boot';

CREATE FUNCTION dtx._gid(xid xid8, n integer, boot_id bigint DEFAULT NULL) RETURNS text
AS 'MODULE_PATHNAME', 'dtx_sql_gid'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._gid(xid8, integer, bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._gid(xid8, integer, bigint) IS
  'internal: name of the prepared transaction of participant n of a transaction; boot_id null: of the current server run';

CREATE FUNCTION dtx.adopt_identity(reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_adopt_identity'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

REVOKE ALL ON FUNCTION dtx.adopt_identity(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.adopt_identity(text) IS
  'says that this is the only living server with this database: prepared transactions of its earlier runs are resolved again, as far as it is proven how they ended';

CREATE FUNCTION dtx.new_identity(reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_new_identity'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

REVOKE ALL ON FUNCTION dtx.new_identity(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.new_identity(text) IS
  'says that this server is a copy of another one: it becomes a coordinator of its own, and leaves all prepared transactions of the original to that';

--
-- Decisions.  Written and read below the executor (src/decision.c), which
-- relies on the columns, on their order, on heap, and on there being no index:
-- rows are overwritten in place, as HOT updates.  Not dumped: they mean
-- something only to the transactions that are prepared now.
--
-- A materialized view is the one kind of relation that is nothing but storage:
-- nobody can write it with SQL, hang triggers, rules or policies on it, or publish
-- it (CREATE PUBLICATION ... FOR ALL TABLES).  It is never refreshed.
--

CREATE MATERIALIZED VIEW dtx.decision USING heap WITH (fillfactor = 20) AS
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
         NULL::pg_catalog.int8[] AS endpoints
   WHERE false;

REVOKE ALL ON dtx.decision FROM PUBLIC;
GRANT SELECT ON dtx.decision TO pg_monitor;
COMMENT ON MATERIALIZED VIEW dtx.decision IS
  'one row per transaction that committed on several servers and may not be finished on all of them; never refreshed';
COMMENT ON COLUMN dtx.decision.boot_id IS
  'random identifier of the server run in which the transaction ran';
COMMENT ON COLUMN dtx.decision.xid IS
  'full transaction identifier of the local transaction';
COMMENT ON COLUMN dtx.decision.database IS
  'OID of the database that decided: another one if this is a copy made with CREATE DATABASE';
COMMENT ON COLUMN dtx.decision.userid IS
  'session user of the transaction';
COMMENT ON COLUMN dtx.decision.decided_at IS
  'when the row was written, just after all servers had prepared';
COMMENT ON COLUMN dtx.decision.serverids IS
  'foreign server of each participant, in the order of the last field of its gid';
COMMENT ON COLUMN dtx.decision.umids IS
  'user mapping of each participant, in the same order';
COMMENT ON COLUMN dtx.decision.system_ids IS
  'system identifier of the cluster of each participant, in the same order; 0 if not known';
COMMENT ON COLUMN dtx.decision.remote_xids IS
  'full transaction identifier of each participant on its server, in the same order; 0 if not known';
COMMENT ON COLUMN dtx.decision.timelines IS
  'timeline of the cluster of each participant, in the same order; 0 if not known';
COMMENT ON COLUMN dtx.decision.endpoints IS
  'hash of the connection options of each participant, without passwords, in the same order';

--
-- Through which user mappings something was prepared, and where.  Written and read
-- below the executor (src/route.c); a materialized view for the same reasons.  Not
-- dumped: nothing was prepared by what is restored from a dump.
--

CREATE MATERIALIZED VIEW dtx.route USING heap AS
  SELECT NULL::pg_catalog.oid AS serverid,
         NULL::pg_catalog.oid AS umid,
         NULL::pg_catalog.name AS server,
         NULL::pg_catalog.oid AS userid,
         NULL::pg_catalog.int8 AS endpoint,
         NULL::pg_catalog.timestamptz AS since
   WHERE false;

REVOKE ALL ON dtx.route FROM PUBLIC;
GRANT SELECT ON dtx.route TO pg_monitor;
COMMENT ON MATERIALIZED VIEW dtx.route IS
  'user mappings through which something was prepared, and where they led then: the resolver uses no others; never refreshed';
COMMENT ON COLUMN dtx.route.serverid IS
  'foreign server';
COMMENT ON COLUMN dtx.route.umid IS
  'user mapping';
COMMENT ON COLUMN dtx.route.server IS
  'name of the foreign server, by which it is found if it was created again';
COMMENT ON COLUMN dtx.route.userid IS
  'local user of the user mapping; 0: that for PUBLIC';
COMMENT ON COLUMN dtx.route.endpoint IS
  'hash of the options that say where the connection leads, as whom, and how the server is made sure of';
COMMENT ON COLUMN dtx.route.since IS
  'when it was recorded, before the first PREPARE TRANSACTION or by dtx.confirm_server()';

--
-- What humans decided.  Append-only, and dumped.
--

CREATE TABLE dtx.forced (
  gid text NOT NULL,
  server name,
  decision text NOT NULL CHECK (decision IN ('commit', 'rollback')),
  decided text NOT NULL CHECK (decided IN ('commit', 'rollback', 'unknown')),
  contradicted boolean NOT NULL,
  reason text NOT NULL,
  by_user name NOT NULL,
  at timestamptz NOT NULL
);

SELECT pg_catalog.pg_extension_config_dump('dtx.forced', '');

REVOKE ALL ON dtx.forced FROM PUBLIC;
GRANT SELECT ON dtx.forced TO pg_monitor;
COMMENT ON TABLE dtx.forced IS
  'what was finished by hand with dtx.force()';
COMMENT ON COLUMN dtx.forced.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx.forced.server IS
  'foreign server on which it was finished; null if the server had been dropped';
COMMENT ON COLUMN dtx.forced.decision IS
  'what was done: commit or rollback';
COMMENT ON COLUMN dtx.forced.decided IS
  'what the recorded decision was: commit, rollback, or unknown';
COMMENT ON COLUMN dtx.forced.contradicted IS
  'was something else done than what was decided?';
COMMENT ON COLUMN dtx.forced.reason IS
  'why, in the words of who did it';
COMMENT ON COLUMN dtx.forced.by_user IS
  'session user who did it';
COMMENT ON COLUMN dtx.forced.at IS
  'when';

--
-- What somebody has finished against its decision.  Rows are written by the
-- resolver (src/damage.c) and never deleted.  Not dumped: they tell of the data
-- of certain servers, not of a copy's.
--

CREATE TABLE dtx.damage_record (
  gid text PRIMARY KEY,
  server name NOT NULL,
  decided text NOT NULL CHECK (decided IN ('commit', 'rollback')),
  found text NOT NULL CHECK (found IN ('commit', 'rollback', 'lost', 'reappeared', 'unknown')),
  since timestamptz NOT NULL,
  remote_xid xid8 NOT NULL,
  system_id bigint NOT NULL,
  detail text NOT NULL,
  acknowledged_at timestamptz,
  acknowledged_by name,
  reason text,
  CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)
         AND (acknowledged_at IS NULL) = (reason IS NULL))
) USING heap;

REVOKE ALL ON dtx.damage_record FROM PUBLIC;
GRANT SELECT ON dtx.damage_record TO pg_monitor;
COMMENT ON TABLE dtx.damage_record IS
  'prepared foreign transactions that were finished against their decision, acknowledged or not';
COMMENT ON COLUMN dtx.damage_record.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx.damage_record.server IS
  'foreign server on which it was prepared';
COMMENT ON COLUMN dtx.damage_record.decided IS
  'what should have become of it: commit or rollback';
COMMENT ON COLUMN dtx.damage_record.found IS
  'what became of it: commit; rollback; lost, if the server does not know its transaction identifier; reappeared, if it had been committed and was prepared again; unknown, if the server cannot tell';
COMMENT ON COLUMN dtx.damage_record.since IS
  'when that was found';
COMMENT ON COLUMN dtx.damage_record.remote_xid IS
  'its transaction identifier on the server';
COMMENT ON COLUMN dtx.damage_record.system_id IS
  'system identifier of the cluster on which it was prepared';
COMMENT ON COLUMN dtx.damage_record.detail IS
  'what that means, in words';
COMMENT ON COLUMN dtx.damage_record.acknowledged_at IS
  'when somebody called dtx.acknowledge(); null: nobody yet';
COMMENT ON COLUMN dtx.damage_record.acknowledged_by IS
  'session user who did';
COMMENT ON COLUMN dtx.damage_record.reason IS
  'why, in his words';

CREATE VIEW dtx.damage AS
  SELECT d.gid, d.server, d.decided, d.found, d.since, d.remote_xid, d.system_id, d.detail
    FROM dtx.damage_record AS d
   WHERE d.acknowledged_at IS NULL;

REVOKE ALL ON dtx.damage FROM PUBLIC;
GRANT SELECT ON dtx.damage TO pg_monitor;
COMMENT ON VIEW dtx.damage IS
  'prepared foreign transactions that were finished against their decision, until somebody acknowledges them';
COMMENT ON COLUMN dtx.damage.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx.damage.server IS
  'foreign server on which it was prepared';
COMMENT ON COLUMN dtx.damage.decided IS
  'what should have become of it: commit or rollback';
COMMENT ON COLUMN dtx.damage.found IS
  'what became of it: commit; rollback; lost, if the server does not know its transaction identifier; reappeared, if it had been committed and was prepared again; unknown, if the server cannot tell';
COMMENT ON COLUMN dtx.damage.since IS
  'when that was found';
COMMENT ON COLUMN dtx.damage.remote_xid IS
  'its transaction identifier on the server';
COMMENT ON COLUMN dtx.damage.system_id IS
  'system identifier of the cluster on which it was prepared';
COMMENT ON COLUMN dtx.damage.detail IS
  'what that means, in words';

--
-- Views.  The functions behind them are called with the privileges of whoever
-- reads the view, and leave out the rows that are not for him.
--

CREATE FUNCTION dtx._transactions(
  OUT gid text,
  OUT pid integer,
  OUT usename name,
  OUT xid xid8,
  OUT state text,
  OUT started timestamptz,
  OUT servers name[],
  OUT waiting_for name[]
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_transactions'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx._transactions() IS 'internal: rows of dtx.transactions';

CREATE VIEW dtx.transactions AS
  SELECT t.gid, t.pid, t.usename, t.xid, t.state, t.started, t.servers, t.waiting_for
    FROM dtx._transactions() AS t;

REVOKE ALL ON dtx.transactions FROM PUBLIC;
GRANT SELECT ON dtx.transactions TO PUBLIC;
COMMENT ON VIEW dtx.transactions IS
  'distributed transactions of this database in progress; members of pg_monitor see all, others their own';
COMMENT ON COLUMN dtx.transactions.gid IS
  'what the names of its prepared transactions begin with; null until the commit begins';
COMMENT ON COLUMN dtx.transactions.pid IS
  'process of the session';
COMMENT ON COLUMN dtx.transactions.usename IS
  'session user';
COMMENT ON COLUMN dtx.transactions.xid IS
  'identifier of the local transaction; null until the commit begins';
COMMENT ON COLUMN dtx.transactions.state IS
  'active, preparing (phase one), committing (phase two), or aborting';
COMMENT ON COLUMN dtx.transactions.started IS
  'start of the local transaction';
COMMENT ON COLUMN dtx.transactions.servers IS
  'foreign servers that take part, one element per connection';
COMMENT ON COLUMN dtx.transactions.waiting_for IS
  'those whose replies the session waits for';

CREATE FUNCTION dtx._in_doubt(
  OUT gid text,
  OUT server name,
  OUT remote_user text,
  OUT decision text,
  OUT since timestamptz,
  OUT attempts integer,
  OUT last_error text,
  OUT next_attempt timestamptz
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_in_doubt'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx._in_doubt() IS 'internal: rows of dtx.in_doubt';

CREATE VIEW dtx.in_doubt AS
  SELECT d.gid, d.server, d.remote_user, d.decision, d.since, d.attempts, d.last_error, d.next_attempt
    FROM dtx._in_doubt() AS d;

REVOKE ALL ON dtx.in_doubt FROM PUBLIC;
GRANT SELECT ON dtx.in_doubt TO PUBLIC;
COMMENT ON VIEW dtx.in_doubt IS
  'prepared foreign transactions of this database that wait for the resolver; members of pg_monitor see all, others their own';
COMMENT ON COLUMN dtx.in_doubt.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx.in_doubt.server IS
  'foreign server on which it is prepared; null if the server was dropped';
COMMENT ON COLUMN dtx.in_doubt.remote_user IS
  'its owner on that server; null if not known';
COMMENT ON COLUMN dtx.in_doubt.decision IS
  'what is to become of it: commit or rollback; null: that is not known, or it is not for this server to say, see last_error';
COMMENT ON COLUMN dtx.in_doubt.since IS
  'in doubt since';
COMMENT ON COLUMN dtx.in_doubt.attempts IS
  'number of failed attempts to finish it';
COMMENT ON COLUMN dtx.in_doubt.last_error IS
  'why the last attempt failed; null if there was none';
COMMENT ON COLUMN dtx.in_doubt.next_attempt IS
  'not tried again before; null: as soon as possible';

CREATE FUNCTION dtx._servers(
  OUT server name,
  OUT reachable boolean,
  OUT checked_at timestamptz,
  OUT version text,
  OUT slots_used integer,
  OUT slots_total integer,
  OUT in_doubt bigint,
  OUT last_error text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_servers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

REVOKE ALL ON FUNCTION dtx._servers() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._servers() TO pg_monitor;
COMMENT ON FUNCTION dtx._servers() IS 'internal: rows of dtx.servers';

CREATE VIEW dtx.servers AS
  SELECT s.server, s.reachable, s.checked_at, s.version, s.slots_used, s.slots_total, s.in_doubt, s.last_error
    FROM dtx._servers() AS s;

REVOKE ALL ON dtx.servers FROM PUBLIC;
GRANT SELECT ON dtx.servers TO pg_monitor;
COMMENT ON VIEW dtx.servers IS
  'postgres_fdw servers of this database, as the resolver last found them';
COMMENT ON COLUMN dtx.servers.server IS
  'foreign server';
COMMENT ON COLUMN dtx.servers.reachable IS
  'did the last visit succeed? null if there was none';
COMMENT ON COLUMN dtx.servers.checked_at IS
  'time of the last visit';
COMMENT ON COLUMN dtx.servers.version IS
  'version of PostgreSQL there';
COMMENT ON COLUMN dtx.servers.slots_used IS
  'prepared transactions there, of whomever';
COMMENT ON COLUMN dtx.servers.slots_total IS
  'max_prepared_transactions there';
COMMENT ON COLUMN dtx.servers.in_doubt IS
  'number of rows of dtx.in_doubt for this server';
COMMENT ON COLUMN dtx.servers.last_error IS
  'why the last failed visit failed';

CREATE FUNCTION dtx._stat(
  OUT one_phase bigint,
  OUT two_phase bigint,
  OUT prepared bigint,
  OUT prepare_failed bigint,
  OUT unprotected bigint,
  OUT handed_over bigint,
  OUT resolved_commit bigint,
  OUT resolved_rollback bigint,
  OUT forced bigint,
  OUT passes bigint,
  OUT not_remembered bigint,
  OUT prepare_time double precision,
  OUT commit_time double precision,
  OUT stats_reset timestamptz
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_stat'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 1;

REVOKE ALL ON FUNCTION dtx._stat() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._stat() TO pg_monitor;
COMMENT ON FUNCTION dtx._stat() IS 'internal: the row of dtx.stat';

CREATE VIEW dtx.stat AS
  SELECT s.one_phase, s.two_phase, s.prepared, s.prepare_failed, s.unprotected, s.handed_over,
         s.resolved_commit, s.resolved_rollback, s.forced, s.passes, s.not_remembered,
         s.prepare_time, s.commit_time, s.stats_reset
    FROM dtx._stat() AS s;

REVOKE ALL ON dtx.stat FROM PUBLIC;
GRANT SELECT ON dtx.stat TO pg_monitor;
COMMENT ON VIEW dtx.stat IS
  'cumulative counters of all databases of this server, kept across a clean restart';
COMMENT ON COLUMN dtx.stat.one_phase IS
  'transactions with foreign servers for which one-phase commit was enough';
COMMENT ON COLUMN dtx.stat.two_phase IS
  'transactions committed in two phases';
COMMENT ON COLUMN dtx.stat.prepared IS
  'foreign transactions prepared';
COMMENT ON COLUMN dtx.stat.prepare_failed IS
  'transactions rolled back in phase one';
COMMENT ON COLUMN dtx.stat.unprotected IS
  'transactions that wrote on several servers, this one included, and were not committed atomically, because the extension was not installed or pg_dtx.two_phase_commit was off';
COMMENT ON COLUMN dtx.stat.handed_over IS
  'prepared foreign transactions that sessions left to the resolver';
COMMENT ON COLUMN dtx.stat.resolved_commit IS
  'prepared foreign transactions committed by a resolver';
COMMENT ON COLUMN dtx.stat.resolved_rollback IS
  'prepared foreign transactions rolled back by a resolver';
COMMENT ON COLUMN dtx.stat.forced IS
  'calls of dtx.force() that succeeded';
COMMENT ON COLUMN dtx.stat.passes IS
  'full passes of the resolvers over their servers';
COMMENT ON COLUMN dtx.stat.not_remembered IS
  'times that a prepared foreign transaction in doubt was not remembered because pg_dtx.max_in_doubt was reached, since the server started; each full pass finds, and counts, it again';
COMMENT ON COLUMN dtx.stat.prepare_time IS
  'time spent in phase one, milliseconds';
COMMENT ON COLUMN dtx.stat.commit_time IS
  'time spent waiting in phase two, milliseconds';
COMMENT ON COLUMN dtx.stat.stats_reset IS
  'since when the counters count';

--
-- Functions
--

CREATE FUNCTION dtx.stat_reset() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_stat_reset'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.stat_reset() FROM PUBLIC;
COMMENT ON FUNCTION dtx.stat_reset() IS
  'sets the counters of dtx.stat to zero';

CREATE FUNCTION dtx.check_server(
  name name,
  OUT "check" text,
  OUT ok boolean,
  OUT detail text,
  OUT hint text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_check_server'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 8 COST 10000;

COMMENT ON FUNCTION dtx.check_server(name) IS
  'checks whether a foreign server is ready for commits in two phases, through the user mapping of the current user, who needs USAGE on it';

CREATE FUNCTION dtx.resolve(
  OUT server name,
  OUT gid text,
  OUT decision text,
  OUT done boolean,
  OUT error text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_resolve'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10 COST 10000;

REVOKE ALL ON FUNCTION dtx.resolve() FROM PUBLIC;
COMMENT ON FUNCTION dtx.resolve() IS
  'finishes now what is in doubt on all servers of this database, and tells what was done; done at once, and not undone by ROLLBACK';

CREATE FUNCTION dtx.confirm_server(
  server name,
  all_mappings boolean DEFAULT false,
  expected_options text[] DEFAULT NULL
) RETURNS integer
AS 'MODULE_PATHNAME', 'dtx_sql_confirm_server'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.confirm_server(name, boolean, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.confirm_server(name, boolean, text[]) IS
  'lets the resolver connect to where a foreign server leads now (with expected_options, ''host=…'', ''port=…'', only if it has these), through the user mappings that were used there or through all of them, with their passwords; returns how many that are; superusers only';

CREATE FUNCTION dtx.force(
  gid text,
  decision text,
  reason text,
  override boolean DEFAULT false
) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_force'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

REVOKE ALL ON FUNCTION dtx.force(text, text, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx.force(text, text, text, boolean) IS
  'finishes one prepared foreign transaction by hand, ''commit'' or ''rollback'', and remembers it in dtx.forced; a contradiction with the recorded decision needs override; what happens on the server happens at once and is not undone by ROLLBACK';

--
-- Remote SQL in the distributed transaction
--

CREATE FUNCTION dtx.exec(
  server name,
  command text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_exec'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

REVOKE ALL ON FUNCTION dtx.exec(name, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.exec(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns the number of rows affected';

CREATE FUNCTION dtx.exec_all(
  servers name[],
  command text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS TABLE (server name, rows bigint)
AS 'MODULE_PATHNAME', 'dtx_sql_exec_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 COST 10000;

REVOKE ALL ON FUNCTION dtx.exec_all(name[], text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.exec_all(name[], text, text[]) IS
  'runs SQL on several foreign servers at the same time as part of the current transaction, and returns the number of rows affected on each';

CREATE FUNCTION dtx.query(
  server name,
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

REVOKE ALL ON FUNCTION dtx.query(name, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.query(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns the rows; needs a column definition list';

CREATE FUNCTION dtx.query_all(
  servers name[],
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_query_all'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

REVOKE ALL ON FUNCTION dtx.query_all(name[], text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.query_all(name[], text, text[]) IS
  'runs SQL on several foreign servers at the same time as part of the current transaction, and returns the rows of all of them; needs a column definition list, whose first column takes the name of the server';

CREATE FUNCTION dtx.query_json(
  server name,
  query text,
  VARIADIC params text[] DEFAULT '{}'
) RETURNS SETOF jsonb
AS 'MODULE_PATHNAME', 'dtx_sql_query_json'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

REVOKE ALL ON FUNCTION dtx.query_json(name, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.query_json(name, text, text[]) IS
  'runs SQL on a foreign server as part of the current transaction, and returns each row as a JSON object';

CREATE FUNCTION dtx.acknowledge(
  gid text,
  reason text
) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_acknowledge'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

REVOKE ALL ON FUNCTION dtx.acknowledge(text, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.acknowledge(text, text) IS
  'takes a prepared foreign transaction off the view dtx.damage, and remembers in dtx.damage_record who did it, when and why';

CREATE FUNCTION dtx._wake_resolver() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_wake_resolver'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._wake_resolver() FROM PUBLIC;
COMMENT ON FUNCTION dtx._wake_resolver() IS
  'internal: makes sure that this database gets a resolver';

SELECT dtx._make_identity();
SELECT dtx._record_boot();

-- Last: from now on there is something to resolve for.
SELECT dtx._wake_resolver();
