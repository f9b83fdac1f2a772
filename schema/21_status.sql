--
-- Views of what is going on.  The functions behind them are called with the privileges
-- of the reader of the view, and leave out the rows that are not for that role.
--

CREATE OR REPLACE VIEW dtx.damage AS
  SELECT d.gid, d.server, d.decided, d.found, d.since, d.remote_xid, d.system_id, d.detail
    FROM dtx_internal.damage_record AS d
   WHERE d.acknowledged_at IS NULL;

COMMENT ON VIEW dtx.damage IS
  'prepared foreign transactions that were finished against their decision, until they are acknowledged';
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

CREATE OR REPLACE VIEW dtx.forced AS
  SELECT f.gid, f.server, f.decision, f.decided, f.contradicted, f.reason, f.by_user, f.at
    FROM dtx_internal.forced_record AS f;

COMMENT ON VIEW dtx.forced IS
  'what was finished by hand with dtx.force_in_doubt()';
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

CREATE OR REPLACE FUNCTION dtx_internal.transactions(
  OUT transaction text,
  OUT pid integer,
  OUT usename name,
  OUT xid xid8,
  OUT state text,
  OUT started timestamptz,
  OUT servers name[],
  OUT waiting_for name[],
  OUT decided_by text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_transactions'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx_internal.transactions() IS 'internal: rows of dtx.transactions';

CREATE OR REPLACE VIEW dtx.transactions AS
  SELECT t.transaction, t.pid, t.usename, t.xid, t.state, t.started, t.servers, t.waiting_for,
         t.decided_by
    FROM dtx_internal.transactions() AS t;

COMMENT ON VIEW dtx.transactions IS
  'distributed transactions of this database in progress; members of pg_monitor see all, others their own';
COMMENT ON COLUMN dtx.transactions.transaction IS
  'what the names of its prepared transactions begin with, as in dtx.in_doubt; null until the commit begins';
COMMENT ON COLUMN dtx.transactions.pid IS
  'process of the session';
COMMENT ON COLUMN dtx.transactions.usename IS
  'session user';
COMMENT ON COLUMN dtx.transactions.xid IS
  'identifier of the local transaction; null until the commit begins, and if a server decides';
COMMENT ON COLUMN dtx.transactions.state IS
  'active; preparing (phase one); deciding: all servers have prepared, and the commit that decides is under way; committing (phase two); or aborting';
COMMENT ON COLUMN dtx.transactions.started IS
  'start of the local transaction';
COMMENT ON COLUMN dtx.transactions.servers IS
  'foreign servers that take part, one element per connection';
COMMENT ON COLUMN dtx.transactions.waiting_for IS
  'those whose replies the session waits for';
COMMENT ON COLUMN dtx.transactions.decided_by IS
  'server whose commit is the decision; null until the commit begins, and if the coordinator decides';

CREATE OR REPLACE FUNCTION dtx_internal.in_doubt(
  OUT transaction text,
  OUT gid text,
  OUT server name,
  OUT remote_user text,
  OUT role name,
  OUT application_name text,
  OUT database name,
  OUT started timestamptz,
  OUT decision text,
  OUT decided_by text,
  OUT since timestamptz,
  OUT attempts integer,
  OUT last_error text,
  OUT next_attempt timestamptz
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_in_doubt'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx_internal.in_doubt() IS 'internal: rows of dtx.in_doubt';

CREATE OR REPLACE VIEW dtx.in_doubt AS
  SELECT d.transaction, d.gid, d.server, d.remote_user, d.role, d.application_name, d.database, d.started,
         d.decision, d.decided_by, d.since, d.attempts, d.last_error, d.next_attempt
    FROM dtx_internal.in_doubt() AS d;

COMMENT ON VIEW dtx.in_doubt IS
  'prepared foreign transactions of this database that wait for the resolver; members of pg_monitor see all, others their own';
COMMENT ON COLUMN dtx.in_doubt.transaction IS
  'what the names of all prepared transactions of one distributed transaction begin with; rows of one transaction come together, the oldest first';
COMMENT ON COLUMN dtx.in_doubt.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx.in_doubt.server IS
  'foreign server on which it is prepared; null if the server was dropped';
COMMENT ON COLUMN dtx.in_doubt.remote_user IS
  'its owner on that server; null if not known';
COMMENT ON COLUMN dtx.in_doubt.role IS
  'session user of the transaction; null if not known, because the coordinator crashed before it had decided, or if the role was dropped';
COMMENT ON COLUMN dtx.in_doubt.application_name IS
  'application_name of its session; null if not known';
COMMENT ON COLUMN dtx.in_doubt.database IS
  'database of the coordinator in which it ran: this one';
COMMENT ON COLUMN dtx.in_doubt.started IS
  'start of the transaction; null if not known';
COMMENT ON COLUMN dtx.in_doubt.decision IS
  'what is to become of it: commit or rollback; asked: the server in decided_by decides, and has not said yet; null: that is not known, or it is not for this server to say, see last_error';
COMMENT ON COLUMN dtx.in_doubt.decided_by IS
  'server that decides about it; null: this coordinator does';
COMMENT ON COLUMN dtx.in_doubt.since IS
  'in doubt since';
COMMENT ON COLUMN dtx.in_doubt.attempts IS
  'number of failed attempts to finish it';
COMMENT ON COLUMN dtx.in_doubt.last_error IS
  'why the last attempt failed; null if there was none';
COMMENT ON COLUMN dtx.in_doubt.next_attempt IS
  'not tried again before; null: as soon as possible';

CREATE OR REPLACE FUNCTION dtx_internal.servers(
  OUT server name,
  OUT reachable boolean,
  OUT checked_at timestamptz,
  OUT visited_at timestamptz,
  OUT version text,
  OUT slots_used integer,
  OUT slots_total integer,
  OUT in_doubt bigint,
  OUT last_error text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_servers'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx_internal.servers() IS 'internal: rows of dtx.servers';

CREATE OR REPLACE VIEW dtx.servers AS
  SELECT s.server, s.reachable, s.checked_at, s.visited_at, s.version, s.slots_used, s.slots_total, s.in_doubt,
         s.last_error
    FROM dtx_internal.servers() AS s;

COMMENT ON VIEW dtx.servers IS
  'postgres_fdw servers of this database, as the resolver or dtx.check() last found them; nothing is known of a server after ALTER SERVER until the next look';
COMMENT ON COLUMN dtx.servers.server IS
  'foreign server';
COMMENT ON COLUMN dtx.servers.reachable IS
  'did the last look succeed? null if there was none';
COMMENT ON COLUMN dtx.servers.checked_at IS
  'time of the last look, of the resolver or of dtx.check()';
COMMENT ON COLUMN dtx.servers.visited_at IS
  'time of the last visit of the resolver';
COMMENT ON COLUMN dtx.servers.version IS
  'version of PostgreSQL there';
COMMENT ON COLUMN dtx.servers.slots_used IS
  'prepared transactions there, of all applications';
COMMENT ON COLUMN dtx.servers.slots_total IS
  'max_prepared_transactions there';
COMMENT ON COLUMN dtx.servers.in_doubt IS
  'number of rows of dtx.in_doubt for this server';
COMMENT ON COLUMN dtx.servers.last_error IS
  'why the last look failed';

CREATE OR REPLACE FUNCTION dtx_internal.stat(
  OUT one_phase bigint,
  OUT two_phase bigint,
  OUT decided_by_server bigint,
  OUT prepared bigint,
  OUT prepare_failed bigint,
  OUT unprotected bigint,
  OUT handed_over bigint,
  OUT resolved_commit bigint,
  OUT resolved_rollback bigint,
  OUT forced bigint,
  OUT passes bigint,
  OUT deadlocks bigint,
  OUT snapshots bigint,
  OUT snapshot_retries bigint,
  OUT snapshots_refused bigint,
  OUT not_remembered bigint,
  OUT prepare_time double precision,
  OUT commit_time double precision,
  OUT gate_time double precision,
  OUT stats_reset timestamptz
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_stat'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION dtx_internal.stat() IS 'internal: the row of dtx.stat';

CREATE OR REPLACE VIEW dtx.stat AS
  SELECT s.one_phase, s.two_phase, s.decided_by_server, s.prepared, s.prepare_failed, s.unprotected, s.handed_over,
         s.resolved_commit, s.resolved_rollback, s.forced, s.passes, s.deadlocks, s.snapshots, s.snapshot_retries,
         s.snapshots_refused, s.not_remembered, s.prepare_time, s.commit_time, s.gate_time, s.stats_reset
    FROM dtx_internal.stat() AS s;

COMMENT ON VIEW dtx.stat IS
  'cumulative counters of all databases of this server, kept across a clean restart';
COMMENT ON COLUMN dtx.stat.one_phase IS
  'transactions with foreign servers for which one-phase commit was enough';
COMMENT ON COLUMN dtx.stat.two_phase IS
  'transactions committed in two phases';
COMMENT ON COLUMN dtx.stat.decided_by_server IS
  'of these, those about which a server decided, because nothing was written here';
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
  'calls of dtx.force_in_doubt() that succeeded';
COMMENT ON COLUMN dtx.stat.passes IS
  'full passes of the resolvers over their servers';
COMMENT ON COLUMN dtx.stat.deadlocks IS
  'deadlocks between servers that were ended with an error of one session';
COMMENT ON COLUMN dtx.stat.snapshots IS
  'moments at which snapshots or restore points were taken on all servers';
COMMENT ON COLUMN dtx.stat.snapshot_retries IS
  'attempts at that which had to be repeated';
COMMENT ON COLUMN dtx.stat.snapshots_refused IS
  'of these moments, those that did not come within pg_dtx.snapshot_timeout';
COMMENT ON COLUMN dtx.stat.not_remembered IS
  'times that a prepared foreign transaction in doubt was not remembered because pg_dtx.max_in_doubt was reached, since the server started; each full pass finds, and counts, it again';
COMMENT ON COLUMN dtx.stat.prepare_time IS
  'time spent in phase one, milliseconds';
COMMENT ON COLUMN dtx.stat.commit_time IS
  'time spent waiting in phase two, milliseconds';
COMMENT ON COLUMN dtx.stat.gate_time IS
  'time for which transactions could not commit because of such a moment, milliseconds';
COMMENT ON COLUMN dtx.stat.stats_reset IS
  'since when the counters count';

CREATE OR REPLACE FUNCTION dtx_internal.lock_waits(
  OUT pid integer,
  OUT server name,
  OUT remote_pid integer,
  OUT lock text,
  OUT since timestamptz,
  OUT blocked_by_pid integer,
  OUT blocked_by text,
  OUT gid text
) RETURNS SETOF record
AS 'MODULE_PATHNAME', 'dtx_sql_lock_waits'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx_internal.lock_waits() IS
  'internal: rows of dtx.lock_waits; asks the servers on which a waiting session of this server has a session';

CREATE OR REPLACE VIEW dtx.lock_waits AS
  SELECT w.pid, w.server, w.remote_pid, w.lock, w.since, w.blocked_by_pid, w.blocked_by, w.gid,
         (SELECT pg_catalog.min(d.since) FROM dtx_internal.in_doubt() AS d
           WHERE d.gid OPERATOR(pg_catalog.=) w.gid) AS in_doubt_since
    FROM dtx_internal.lock_waits() AS w;

COMMENT ON VIEW dtx.lock_waits IS
  'who waits for whom, on all servers on which a waiting session of this server has a session, and here; asks the servers when it is read, for half a second at most; what they do not tell in time is missing. For members of pg_monitor';
COMMENT ON COLUMN dtx.lock_waits.pid IS
  'process of this server that waits; null if it is one of another server';
COMMENT ON COLUMN dtx.lock_waits.server IS
  'foreign server on which it waits; null: here';
COMMENT ON COLUMN dtx.lock_waits.remote_pid IS
  'process there; null: it waits here';
COMMENT ON COLUMN dtx.lock_waits.lock IS
  'what it waits for; null if the server does not tell';
COMMENT ON COLUMN dtx.lock_waits.since IS
  'when the session began to wait for the server; null if it is not a session of this server, or waits here';
COMMENT ON COLUMN dtx.lock_waits.blocked_by_pid IS
  'process of this server that is in the way; null if it is none of this server';
COMMENT ON COLUMN dtx.lock_waits.blocked_by IS
  'what is in the way, in words';
COMMENT ON COLUMN dtx.lock_waits.gid IS
  'name of the prepared transaction that is in the way; null if it is none';
COMMENT ON COLUMN dtx.lock_waits.in_doubt_since IS
  'since when that is in doubt; null if it is not';
