/* pg_dtx--1.0--1.1.sql */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION pg_dtx UPDATE TO '1.1'" to load this file. \quit

--
-- Sagas: durable steps with compensation, see docs/sagas.md.
--
-- All state is in the tables below, and only the functions below change it.
-- Workers (src/saga_worker.c) ask _saga_take() what to do, run the SQL of a step,
-- and report with _saga_done() in the step's own transaction, or with
-- _saga_error() in another one.  They decide nothing.
--
-- Locks: whoever changes anything of a saga locks its row in dtx.saga first, and
-- then rows of dtx.saga_external, and then rows of dtx.saga_step.  So two steps
-- that finish at the same time do it one after the other, and the second one
-- sees what the first one has done.
--
-- What users call are C functions (dtx_sql_saga_call in src/saga.c): each notes
-- who calls, and then calls the function of the same name with a leading
-- underscore as its owner.  _saga_caller() tells who it was.
--

CREATE TYPE dtx.saga_state AS ENUM (
  'pending', 'running', 'completed', 'compensating', 'compensated', 'failed'
);
COMMENT ON TYPE dtx.saga_state IS
  'state of a saga; failed: only an operator can decide how to go on';

CREATE TYPE dtx.saga_step_state AS ENUM (
  'pending', 'running', 'waiting', 'completed', 'failed', 'skipped', 'compensating', 'compensated'
);
COMMENT ON TYPE dtx.saga_step_state IS
  'state of a step of a saga; waiting: for its time, for a signal, or for an external worker';

--
-- A role in a table.  It is stored as its OID, so that it can be renamed, and goes in
-- and out as its name, never as a number: in a dump, or a logical replica, the number
-- of a role that was dropped would be somebody else.  A role that does not exist is
-- nobody ('-', zero): nobody can act for it but superusers, and nothing runs as it.
--

CREATE TYPE dtx.saga_role;

CREATE FUNCTION dtx._saga_role_in(cstring) RETURNS dtx.saga_role
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_in'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dtx._saga_role_in(cstring) IS 'I/O';

CREATE FUNCTION dtx._saga_role_out(dtx.saga_role) RETURNS cstring
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_out'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dtx._saga_role_out(dtx.saga_role) IS 'I/O';

CREATE FUNCTION dtx._saga_role_recv(internal) RETURNS dtx.saga_role
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_recv'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dtx._saga_role_recv(internal) IS 'I/O';

CREATE FUNCTION dtx._saga_role_send(dtx.saga_role) RETURNS bytea
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_send'
LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION dtx._saga_role_send(dtx.saga_role) IS 'I/O';

CREATE TYPE dtx.saga_role (
  INPUT = dtx._saga_role_in,
  OUTPUT = dtx._saga_role_out,
  RECEIVE = dtx._saga_role_recv,
  SEND = dtx._saga_role_send,
  LIKE = pg_catalog.oid
);
COMMENT ON TYPE dtx.saga_role IS
  'a role in a table: its OID, which goes in and out as its name; - if there is no such role';

CREATE CAST (dtx.saga_role AS pg_catalog.oid) WITHOUT FUNCTION AS IMPLICIT;
COMMENT ON CAST (dtx.saga_role AS pg_catalog.oid) IS 'the OID of the role';

CREATE CAST (pg_catalog.oid AS dtx.saga_role) WITHOUT FUNCTION AS ASSIGNMENT;
COMMENT ON CAST (pg_catalog.oid AS dtx.saga_role) IS 'the role of that OID';

--
-- What a definition is made of: values of these types are arguments of
-- dtx.define_saga().
--

CREATE TYPE dtx.statement_spec AS (
  server name,
  execute text,
  compensate text,
  min_rows integer
);
COMMENT ON TYPE dtx.statement_spec IS
  'one statement of a step; made by dtx.statement()';

CREATE TYPE dtx.step_spec AS (
  name text,
  action text,
  kind text,
  after text[],
  servers name[],
  execute text[],
  compensate text[],
  min_rows integer[],
  max_attempts integer,
  compensate_attempts integer,
  backoff interval,
  timeout interval,
  delay interval,
  queue text,
  payload jsonb,
  compensate_queue text
);
COMMENT ON TYPE dtx.step_spec IS
  'one step of a saga for dtx.define_saga(); made by dtx.step() and its relatives';

CREATE FUNCTION dtx.statement(
  server name,
  execute text,
  compensate text DEFAULT NULL,
  min_rows integer DEFAULT NULL
) RETURNS dtx.statement_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(statement.server, statement.execute, statement.compensate, statement.min_rows)::dtx.statement_spec;

COMMENT ON FUNCTION dtx.statement(name, text, text, integer) IS
  'one statement of a step that consists of several; server null: on the coordinator';

CREATE FUNCTION dtx.step(
  name text,
  server name DEFAULT NULL,
  execute text DEFAULT NULL,
  compensate text DEFAULT NULL,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT '1 second',
  timeout interval DEFAULT NULL,
  min_rows integer DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step.name, 'sql', step.kind, step.after, ARRAY[step.server], ARRAY[step.execute],
  ARRAY[step.compensate], ARRAY[step.min_rows], step.max_attempts, step.compensate_attempts,
  step.backoff, step.timeout, NULL, NULL, NULL, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step(text, name, text, text, text, text[], integer, interval, interval, integer, integer) IS
  'a step of a saga: one SQL statement, on a server or (server null) on the coordinator; $1 is the input of the saga, $2 the results so far';

CREATE FUNCTION dtx.step(
  name text,
  statements dtx.statement_spec[],
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT '1 second',
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step.name, 'sql', step.kind, step.after,
  ARRAY(SELECT s.server FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.execute FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.compensate FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.min_rows FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  step.max_attempts, step.compensate_attempts,
  step.backoff, step.timeout, NULL, NULL, NULL, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step(text, dtx.statement_spec[], text, text[], integer, interval, interval, integer) IS
  'a step of a saga: several SQL statements on several servers, which take effect together or not at all';

CREATE FUNCTION dtx.step_sleep(
  name text,
  delay interval,
  after text[] DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_sleep.name, 'sleep', NULL, step_sleep.after, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, step_sleep.delay, NULL, NULL, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_sleep(text, interval, text[]) IS
  'a step of a saga that lets some time pass; no worker waits meanwhile';

CREATE FUNCTION dtx.step_signal(
  name text,
  after text[] DEFAULT NULL,
  timeout interval DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_signal.name, 'signal', NULL, step_signal.after, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, step_signal.timeout, NULL, NULL, NULL, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_signal(text, text[], interval) IS
  'a step of a saga that waits for dtx.signal_saga(); if timeout passes first, it fails';

CREATE FUNCTION dtx.step_external(
  name text,
  queue text,
  payload jsonb DEFAULT NULL,
  compensate_queue text DEFAULT NULL,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT '1 second',
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_external.name, 'external', step_external.kind, step_external.after, NULL, NULL, NULL, NULL,
  step_external.max_attempts, step_external.compensate_attempts,
  step_external.backoff, step_external.timeout, NULL,
  step_external.queue, step_external.payload, step_external.compensate_queue)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_external(text, text, jsonb, text, text, text[], integer, interval, interval, integer) IS
  'a step of a saga that is done outside of the database, by whoever claims it from a queue with dtx.claim()';

--
-- Definitions.  Dumped, but not the sequence: numbers that are taken are left out.
-- Each role has names of its own.  What was dropped stays as long as there are sagas
-- of it.
--

CREATE SEQUENCE dtx.saga_definition_id;

REVOKE ALL ON SEQUENCE dtx.saga_definition_id FROM PUBLIC;
COMMENT ON SEQUENCE dtx.saga_definition_id IS
  'numbers of definitions';

CREATE TABLE dtx.saga_definition (
  id bigint PRIMARY KEY,
  owner dtx.saga_role NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  created_at timestamptz NOT NULL,
  dropped boolean NOT NULL DEFAULT false
) USING heap;

-- After a restore, several may belong to nobody.
CREATE UNIQUE INDEX saga_definition_name ON dtx.saga_definition (owner, name, version)
  WHERE owner::pg_catalog.oid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid;

SELECT pg_catalog.pg_extension_config_dump('dtx.saga_definition', 'WHERE NOT dropped');

REVOKE ALL ON dtx.saga_definition FROM PUBLIC;
COMMENT ON TABLE dtx.saga_definition IS
  'versions of definitions of sagas; see view dtx.saga_definitions';
COMMENT ON COLUMN dtx.saga_definition.id IS
  'number of this version of this definition';
COMMENT ON COLUMN dtx.saga_definition.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definition.version IS
  'from 1; the highest one is used by sagas that start now';
COMMENT ON COLUMN dtx.saga_definition.owner IS
  'who may define the next version, and let others start it';
COMMENT ON COLUMN dtx.saga_definition.created_at IS
  'when dtx.define_saga() was called';
COMMENT ON COLUMN dtx.saga_definition.dropped IS
  'was it dropped? then it is for sagas that there are, and for no others';

CREATE TABLE dtx.saga_definition_grant (
  owner dtx.saga_role NOT NULL,
  name text NOT NULL,
  grantee dtx.saga_role
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('dtx.saga_definition_grant',
  'WHERE grantee IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)');

REVOKE ALL ON dtx.saga_definition_grant FROM PUBLIC;
COMMENT ON TABLE dtx.saga_definition_grant IS
  'who may start sagas of whose definitions; see view dtx.saga_definitions';
COMMENT ON COLUMN dtx.saga_definition_grant.owner IS
  'owner of the definition';
COMMENT ON COLUMN dtx.saga_definition_grant.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definition_grant.grantee IS
  'who may start sagas of it; null: everybody';

CREATE TABLE dtx.saga_definition_step (
  definition bigint NOT NULL REFERENCES dtx.saga_definition ON DELETE CASCADE,
  step smallint NOT NULL CHECK (step > 0),
  name text NOT NULL,
  action text NOT NULL CHECK (action IN ('sql', 'sleep', 'signal', 'external')),
  kind text NOT NULL CHECK (kind IN ('compensatable', 'pivot', 'retriable')),
  after smallint[] NOT NULL,
  ancestors smallint[] NOT NULL,
  servers name[],
  execute text[],
  compensate text[],
  min_rows integer[],
  max_attempts integer NOT NULL,
  compensate_attempts integer NOT NULL,
  backoff interval NOT NULL,
  timeout interval,
  delay interval,
  queue text,
  payload jsonb,
  compensate_queue text,
  PRIMARY KEY (definition, step)
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('dtx.saga_definition_step',
  'WHERE definition IN (SELECT d.id FROM dtx.saga_definition AS d WHERE NOT d.dropped)');

REVOKE ALL ON dtx.saga_definition_step FROM PUBLIC;
COMMENT ON TABLE dtx.saga_definition_step IS
  'steps of definitions of sagas';
COMMENT ON COLUMN dtx.saga_definition_step.definition IS
  'dtx.saga_definition.id';
COMMENT ON COLUMN dtx.saga_definition_step.step IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.saga_definition_step.name IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_definition_step.action IS
  'sql: run SQL; sleep: let time pass; signal: wait for a signal; external: wait for an external worker';
COMMENT ON COLUMN dtx.saga_definition_step.kind IS
  'compensatable: can be undone; pivot: the point of no return; retriable: comes after it, and is tried again until it succeeds';
COMMENT ON COLUMN dtx.saga_definition_step.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.saga_definition_step.ancestors IS
  'those, and the steps that must be done before them, and so on';
COMMENT ON COLUMN dtx.saga_definition_step.servers IS
  'foreign server of each statement; null: the coordinator';
COMMENT ON COLUMN dtx.saga_definition_step.execute IS
  'the statements';
COMMENT ON COLUMN dtx.saga_definition_step.compensate IS
  'what undoes each statement; null: nothing to undo';
COMMENT ON COLUMN dtx.saga_definition_step.min_rows IS
  'rows that each statement must affect or return at least; null: any number';
COMMENT ON COLUMN dtx.saga_definition_step.max_attempts IS
  'the step fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_step.compensate_attempts IS
  'its compensation fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_step.backoff IS
  'pause after the first failed attempt; it doubles with each one';
COMMENT ON COLUMN dtx.saga_definition_step.timeout IS
  'longest time of an attempt, or of a wait; null: any time';
COMMENT ON COLUMN dtx.saga_definition_step.delay IS
  'time that a step of action sleep lets pass';
COMMENT ON COLUMN dtx.saga_definition_step.queue IS
  'queue of a step of action external';
COMMENT ON COLUMN dtx.saga_definition_step.payload IS
  'what the worker that claims it is given besides input and results';
COMMENT ON COLUMN dtx.saga_definition_step.compensate_queue IS
  'queue of its compensation; null: nothing to undo';

--
-- Sagas.  Rows that change are narrow and have room on their page for the next
-- version (HOT).  Nothing of this is dumped: a copy must not do it all again.
--

CREATE SEQUENCE dtx.saga_id;

REVOKE ALL ON SEQUENCE dtx.saga_id FROM PUBLIC;
COMMENT ON SEQUENCE dtx.saga_id IS
  'numbers of sagas';

CREATE TABLE dtx.saga (
  id bigint PRIMARY KEY,
  database oid NOT NULL,
  definition bigint NOT NULL,
  role dtx.saga_role NOT NULL,
  boot_id bigint NOT NULL,
  xid bigint NOT NULL,
  state dtx.saga_state NOT NULL,
  compensating boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL,
  finished_at timestamptz
) USING heap WITH (fillfactor = 50);

REVOKE ALL ON dtx.saga FROM PUBLIC;
COMMENT ON TABLE dtx.saga IS
  'sagas; see view dtx.sagas';
COMMENT ON COLUMN dtx.saga.id IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga.database IS
  'database in which it was started: another one, if this is a copy of that (CREATE DATABASE ... TEMPLATE), or 0, if it is one on another server (dtx.new_identity()); then nobody here goes on with it';
COMMENT ON COLUMN dtx.saga.definition IS
  'dtx.saga_definition.id, the version with which it was started';
COMMENT ON COLUMN dtx.saga.role IS
  'role that has started it, as which its steps run';
COMMENT ON COLUMN dtx.saga.boot_id IS
  'random identifier of the server run in which it was started';
COMMENT ON COLUMN dtx.saga.xid IS
  'full transaction identifier of the transaction that has started it';
COMMENT ON COLUMN dtx.saga.state IS
  'its state';
COMMENT ON COLUMN dtx.saga.compensating IS
  'is it on its way back? then failed means that a compensation has failed';
COMMENT ON COLUMN dtx.saga.started_at IS
  'when dtx.start_saga() was called';
COMMENT ON COLUMN dtx.saga.finished_at IS
  'when it was completed or compensated';

CREATE TABLE dtx.saga_data (
  saga bigint PRIMARY KEY,
  input jsonb NOT NULL,
  key text,
  run_at timestamptz,
  deadline timestamptz,
  reason text,
  failure text
) USING heap;

REVOKE ALL ON dtx.saga_data FROM PUBLIC;
COMMENT ON TABLE dtx.saga_data IS
  'what of a saga is wide or seldom changes';
COMMENT ON COLUMN dtx.saga_data.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_data.input IS
  'input of the saga, $1 of its steps';
COMMENT ON COLUMN dtx.saga_data.key IS
  'key with which it was started';
COMMENT ON COLUMN dtx.saga_data.run_at IS
  'not begun before; null: at once';
COMMENT ON COLUMN dtx.saga_data.deadline IS
  'compensated if it has not reached its point of no return until then; null: any time';
COMMENT ON COLUMN dtx.saga_data.reason IS
  'why it compensates, or was forced';
COMMENT ON COLUMN dtx.saga_data.failure IS
  'why it has failed';

CREATE TABLE dtx.saga_key (
  role dtx.saga_role NOT NULL,
  owner dtx.saga_role NOT NULL,
  name text NOT NULL,
  key text NOT NULL,
  saga bigint NOT NULL,
  PRIMARY KEY (role, owner, name, key)
) USING heap;

REVOKE ALL ON dtx.saga_key FROM PUBLIC;
COMMENT ON TABLE dtx.saga_key IS
  'which saga was started with which key';
COMMENT ON COLUMN dtx.saga_key.role IS
  'role that has started it';
COMMENT ON COLUMN dtx.saga_key.owner IS
  'owner of its definition';
COMMENT ON COLUMN dtx.saga_key.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.saga_key.key IS
  'the key';
COMMENT ON COLUMN dtx.saga_key.saga IS
  'dtx.saga.id';

CREATE TABLE dtx.saga_step (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  database oid NOT NULL,
  role dtx.saga_role NOT NULL,
  lane oid NOT NULL,
  state dtx.saga_step_state NOT NULL,
  compensation boolean NOT NULL DEFAULT false,
  taken boolean NOT NULL DEFAULT false,
  doubt boolean NOT NULL DEFAULT false,
  attempt integer NOT NULL DEFAULT 0,
  due_at timestamptz,
  since timestamptz NOT NULL,
  boot_id bigint,
  xid bigint,
  PRIMARY KEY (saga, step)
) USING heap WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The only queue.  It is as large as the work that is due or scheduled, because
-- what is done is due never more.  What belongs to another database is never met.
CREATE INDEX saga_step_due ON dtx.saga_step (database, role, lane, due_at) WHERE due_at IS NOT NULL AND step > 0;

-- Deadlines are for the scheduler.
CREATE INDEX saga_step_deadline ON dtx.saga_step (database, role, due_at) WHERE due_at IS NOT NULL AND step = 0;

REVOKE ALL ON dtx.saga_step FROM PUBLIC;
COMMENT ON TABLE dtx.saga_step IS
  'steps of sagas that have become due; step 0 is the timer of a deadline; see view dtx.saga_steps';
COMMENT ON COLUMN dtx.saga_step.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_step.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx.saga_step.database IS
  'dtx.saga.database';
COMMENT ON COLUMN dtx.saga_step.role IS
  'dtx.saga.role';
COMMENT ON COLUMN dtx.saga_step.lane IS
  'foreign server of its first statement that runs on one, 0 if there is none; a slow server must not take all workers';
COMMENT ON COLUMN dtx.saga_step.state IS
  'its state';
COMMENT ON COLUMN dtx.saga_step.compensation IS
  'do attempt, taken and a state of failed tell of its compensation?';
COMMENT ON COLUMN dtx.saga_step.taken IS
  'was it given to a worker that has not reported yet?';
COMMENT ON COLUMN dtx.saga_step.doubt IS
  'may an external worker have done it without telling?';
COMMENT ON COLUMN dtx.saga_step.attempt IS
  'attempts begun';
COMMENT ON COLUMN dtx.saga_step.due_at IS
  'when a worker has to look at it; null: never';
COMMENT ON COLUMN dtx.saga_step.since IS
  'when it has got into its state';
COMMENT ON COLUMN dtx.saga_step.boot_id IS
  'random identifier of the server run in which it was completed, or compensated';
COMMENT ON COLUMN dtx.saga_step.xid IS
  'full transaction identifier of the transaction that has completed, or compensated, it';

CREATE TABLE dtx.saga_result (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  result jsonb NOT NULL,
  PRIMARY KEY (saga, step)
) USING heap;

REVOKE ALL ON dtx.saga_result FROM PUBLIC;
COMMENT ON TABLE dtx.saga_result IS
  'results of steps';
COMMENT ON COLUMN dtx.saga_result.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_result.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx.saga_result.result IS
  'its first row, what came with the signal, or what the external worker has told';

CREATE TABLE dtx.saga_history_record (
  saga bigint NOT NULL,
  id bigint GENERATED ALWAYS AS IDENTITY,
  step smallint,
  action text NOT NULL,
  attempt integer,
  outcome text NOT NULL,
  sqlstate text,
  message text,
  detail text,
  hint text,
  started_at timestamptz NOT NULL,
  finished_at timestamptz NOT NULL,
  retry_at timestamptz,
  by_whom text,
  PRIMARY KEY (saga, id)
) USING heap;

REVOKE ALL ON dtx.saga_history_record FROM PUBLIC;
COMMENT ON TABLE dtx.saga_history_record IS
  'all attempts, and what operators have done; see view dtx.saga_history';
COMMENT ON SEQUENCE dtx.saga_history_record_id_seq IS
  'numbers of entries in the history';
COMMENT ON COLUMN dtx.saga_history_record.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_history_record.id IS
  'number of the entry; they grow with time within a saga';
COMMENT ON COLUMN dtx.saga_history_record.step IS
  'number of the step in its definition; null: about the saga';
COMMENT ON COLUMN dtx.saga_history_record.action IS
  'execute or compensate; or what happened to the saga: cancel, retry, skip, force, deadline';
COMMENT ON COLUMN dtx.saga_history_record.attempt IS
  'which attempt it was, from 1';
COMMENT ON COLUMN dtx.saga_history_record.outcome IS
  'completed, failed, lost (its worker or its lease has gone), or stopped (for no fault of its own, so it was no attempt); for other actions, the state that followed';
COMMENT ON COLUMN dtx.saga_history_record.sqlstate IS
  'SQLSTATE of the error';
COMMENT ON COLUMN dtx.saga_history_record.message IS
  'its message; or the reason that was given';
COMMENT ON COLUMN dtx.saga_history_record.detail IS
  'its detail';
COMMENT ON COLUMN dtx.saga_history_record.hint IS
  'its hint';
COMMENT ON COLUMN dtx.saga_history_record.started_at IS
  'when the attempt began';
COMMENT ON COLUMN dtx.saga_history_record.finished_at IS
  'when it ended';
COMMENT ON COLUMN dtx.saga_history_record.retry_at IS
  'when it is tried again; null: not by itself';
COMMENT ON COLUMN dtx.saga_history_record.by_whom IS
  'role that has done it, or name of the external worker; null: a worker of pg_dtx';

CREATE TABLE dtx.saga_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  saga bigint NOT NULL,
  owner dtx.saga_role NOT NULL,
  name text NOT NULL,
  role dtx.saga_role NOT NULL,
  event text NOT NULL CHECK (event IN ('completed', 'compensated', 'failed')),
  at timestamptz NOT NULL,
  payload jsonb NOT NULL
) USING heap;

CREATE INDEX saga_outbox_saga ON dtx.saga_outbox (saga);
CREATE INDEX saga_outbox_role ON dtx.saga_outbox (role, id);

-- Nobody has privileges for it: who may DELETE may LOCK TABLE, too, and would hold up
-- all sagas that come to their end.
REVOKE ALL ON dtx.saga_outbox FROM PUBLIC;
COMMENT ON TABLE dtx.saga_outbox IS
  'events of sagas, written in the same commit as the state; for logical decoding, and for dtx.take_events()';
COMMENT ON SEQUENCE dtx.saga_outbox_id_seq IS
  'numbers of events';
COMMENT ON COLUMN dtx.saga_outbox.id IS
  'number of the event; numbers need not become visible in their order';
COMMENT ON COLUMN dtx.saga_outbox.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_outbox.owner IS
  'owner of its definition';
COMMENT ON COLUMN dtx.saga_outbox.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.saga_outbox.role IS
  'role that has started it';
COMMENT ON COLUMN dtx.saga_outbox.event IS
  'completed, compensated, or failed';
COMMENT ON COLUMN dtx.saga_outbox.at IS
  'when that happened';
COMMENT ON COLUMN dtx.saga_outbox.payload IS
  'key of the saga, results of its steps, and reason, as far as there are any';

CREATE TABLE dtx.saga_signal (
  saga bigint NOT NULL,
  name text NOT NULL,
  payload jsonb,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (saga, name)
) USING heap;

REVOKE ALL ON dtx.saga_signal FROM PUBLIC;
COMMENT ON TABLE dtx.saga_signal IS
  'signals that sagas have got';
COMMENT ON COLUMN dtx.saga_signal.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_signal.name IS
  'name of the step that waits for it';
COMMENT ON COLUMN dtx.saga_signal.payload IS
  'what came with it';
COMMENT ON COLUMN dtx.saga_signal.received_at IS
  'when it came';

CREATE TABLE dtx.saga_external (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  database oid NOT NULL,
  role dtx.saga_role NOT NULL,
  queue text NOT NULL,
  available_at timestamptz NOT NULL,
  token uuid,
  worker text,
  lease interval,
  claimed_at timestamptz,
  PRIMARY KEY (saga, step)
) USING heap WITH (fillfactor = 70);

CREATE INDEX saga_external_queue ON dtx.saga_external (database, role, queue, available_at);
CREATE UNIQUE INDEX saga_external_token ON dtx.saga_external (token) WHERE token IS NOT NULL;

REVOKE ALL ON dtx.saga_external FROM PUBLIC;
COMMENT ON TABLE dtx.saga_external IS
  'steps, and compensations, that wait for an external worker or are in its hands';
COMMENT ON COLUMN dtx.saga_external.saga IS
  'dtx.saga.id';
COMMENT ON COLUMN dtx.saga_external.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx.saga_external.database IS
  'dtx.saga.database';
COMMENT ON COLUMN dtx.saga_external.role IS
  'dtx.saga.role';
COMMENT ON COLUMN dtx.saga_external.queue IS
  'name of the queue';
COMMENT ON COLUMN dtx.saga_external.available_at IS
  'when it may be claimed; the end of the lease, if it is claimed';
COMMENT ON COLUMN dtx.saga_external.token IS
  'token of the lease; null: not claimed';
COMMENT ON COLUMN dtx.saga_external.worker IS
  'name of the worker that has claimed it';
COMMENT ON COLUMN dtx.saga_external.lease IS
  'length of the lease, for dtx.heartbeat()';
COMMENT ON COLUMN dtx.saga_external.claimed_at IS
  'when it was claimed';

--
-- What C offers to the functions below (src/saga.c)
--

CREATE FUNCTION dtx._saga_caller() RETURNS oid
AS 'MODULE_PATHNAME', 'dtx_sql_saga_caller'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_caller() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_caller() IS
  'internal: the role that has called the public function';

CREATE FUNCTION dtx._saga_claim(saga bigint, step smallint, attempt integer, compensation boolean, lane oid, role oid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_claim'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_claim(bigint, smallint, integer, boolean, oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_claim(bigint, smallint, integer, boolean, oid, oid) IS
  'internal: makes known that this process works on a step; false if another one does, or if the role has its share of workers on the lane';

CREATE FUNCTION dtx._saga_claimed(saga bigint, step smallint) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_claimed'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_claimed(bigint, smallint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_claimed(bigint, smallint) IS
  'internal: does a live process work on a step?';

CREATE FUNCTION dtx._saga_stop(saga bigint, step smallint, attempt integer, compensation boolean) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_stop'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_stop(bigint, smallint, integer, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_stop(bigint, smallint, integer, boolean) IS
  'internal: has the worker that executes a step stop when this transaction has committed';

CREATE FUNCTION dtx._saga_lane_open(lane oid, role oid) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_lane_open'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_lane_open(oid, oid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_lane_open(oid, oid) IS
  'internal: may one more worker of a role work for a foreign server?';

CREATE FUNCTION dtx._saga_own_xid(xid xid) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_own_xid'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_own_xid(xid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_own_xid(xid) IS
  'internal: is that the current transaction, or a subtransaction of it?';

CREATE FUNCTION dtx._saga_confirmed(boot_id bigint, xid bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_confirmed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_confirmed(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_confirmed(bigint, bigint) IS
  'internal: have all servers confirmed the second phase of a transaction?';

CREATE FUNCTION dtx._saga_database() RETURNS oid
AS 'MODULE_PATHNAME', 'dtx_sql_saga_database'
LANGUAGE C STABLE PARALLEL SAFE;

REVOKE ALL ON FUNCTION dtx._saga_database() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_database() IS
  'internal: the current database';

CREATE FUNCTION dtx._saga_active_database() RETURNS oid
AS 'MODULE_PATHNAME', 'dtx_sql_saga_active_database'
LANGUAGE C STABLE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_active_database() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_active_database() IS
  'internal: the current database, null while it is not certain that no other server goes on with its sagas (dtx.boot)';

CREATE FUNCTION dtx._boot_id() RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_boot_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._boot_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._boot_id() TO pg_monitor;
COMMENT ON FUNCTION dtx._boot_id() IS
  'internal: random identifier of this run of the server';

CREATE FUNCTION dtx._wake_sagas() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_wake_sagas'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._wake_sagas() FROM PUBLIC;
COMMENT ON FUNCTION dtx._wake_sagas() IS
  'internal: has the scheduler look at the sagas when this transaction has committed';

CREATE FUNCTION dtx._saga_announce(queue text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_announce'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_announce(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_announce(text) IS
  'internal: if this transaction commits, this worker of sagas sends a NOTIFY for a queue, in another one';

CREATE FUNCTION dtx._saga_finished(saga bigint) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_finished'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._saga_finished(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_finished(bigint) IS
  'internal: wakes up who waits for a saga when this transaction has committed';

--
-- Small things
--

CREATE FUNCTION dtx._saga_xid() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN pg_catalog.pg_current_xact_id()::text::bigint;

REVOKE ALL ON FUNCTION dtx._saga_xid() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_xid() IS
  'internal: full identifier of this transaction';

CREATE FUNCTION dtx._saga_lane(servers name[], commands text[]) RETURNS oid
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  lane oid;
BEGIN
  FOR i IN 1 .. coalesce(cardinality(commands), 0) LOOP
    IF commands[i] IS NOT NULL AND servers[i] IS NOT NULL THEN
      SELECT f.oid INTO lane FROM pg_foreign_server f WHERE f.srvname = servers[i];
      RETURN coalesce(lane, 0::oid);
    END IF;
  END LOOP;
  RETURN 0::oid;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_lane(name[], text[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_lane(name[], text[]) IS
  'internal: the foreign server of the first of some statements that runs on one, 0 if there is none';

CREATE FUNCTION dtx._saga_results(saga bigint, definition bigint) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(jsonb_object_agg(d.name, r.result), '{}')
    FROM dtx.saga_result r
    JOIN dtx.saga_definition_step d ON d.definition = _saga_results.definition AND d.step = r.step
   WHERE r.saga = _saga_results.saga
$$;

REVOKE ALL ON FUNCTION dtx._saga_results(bigint, bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_results(bigint, bigint) IS
  'internal: results of the steps of a saga by name';

-- All results of a saga are one jsonb object, for its steps and in its last event,
-- which can't be larger than 256 MB.  A thousand steps whose results are not worth
-- counting have 100 MB at most.  A signal is the result of a step later.
CREATE FUNCTION dtx._saga_check_result(sg dtx.saga, result jsonb) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  -- (in an array, because a value from a table may be compressed)
  size bigint := pg_column_size(jsonb_build_array(result));
BEGIN
  IF size <= 100000 THEN
    RETURN;
  END IF;
  size := size
    + (SELECT coalesce(sum(pg_column_size(jsonb_build_array(r.result))), 0) FROM dtx.saga_result r WHERE r.saga = sg.id)
    + (SELECT coalesce(sum(pg_column_size(jsonb_build_array(g.payload))), 0) FROM dtx.saga_signal g
        WHERE g.saga = sg.id
          AND NOT EXISTS (SELECT
                            FROM dtx.saga_definition_step d
                            JOIN dtx.saga_result r ON r.saga = g.saga AND r.step = d.step
                           WHERE d.definition = sg.definition AND d.name = g.name));
  IF size > 100000000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'program_limit_exceeded',
      MESSAGE = format('results of saga %s are too large', sg.id),
      DETAIL = 'Together they may have 100 MB.',
      HINT = 'Keep what is large in a table, and let the result say where it is.';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_check_result(dtx.saga, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_check_result(dtx.saga, jsonb) IS
  'internal: an error if the results of a saga would become too large';

-- A copy of a database (CREATE DATABASE ... TEMPLATE) has the sagas of the original,
-- which go on there, and there only: all of their work on servers would be done
-- twice.  The identifier of a database survives whatever else makes it look like a
-- copy: renaming, pg_upgrade, promotion of a standby.
CREATE FUNCTION dtx._saga_check_database(sg dtx.saga) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF sg.database <> dtx._saga_database() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s belongs to another database', sg.id),
      DETAIL = CASE WHEN sg.database = 0
        THEN 'It was started on another server, of whose database this one is a copy, and goes on there only.'
        ELSE format('It was started in database %s, of which this one is a copy, and goes on there only.',
        coalesce((SELECT format('"%s"', d.datname) FROM pg_database d WHERE d.oid = sg.database),
                 format('with OID %s, which has been dropped', sg.database))) END,
      HINT = 'To end what was copied, use dtx.force_saga() with completed or compensated; that changes nothing there.';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_check_database(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_check_database(dtx.saga) IS
  'internal: an error if a saga belongs to the database that this one is a copy of';

-- The saga, locked, for somebody who may act on it.
CREATE FUNCTION dtx._saga_lock(saga bigint, of_any_database boolean DEFAULT false) RETURNS dtx.saga
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
BEGIN
  -- rights first, so that others can't hold it up
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_lock.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN _saga_lock.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist', _saga_lock.saga) END;
  END IF;
  IF NOT pg_has_role(dtx._saga_caller(), sg.role, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga %s', sg.id);
  END IF;
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_lock.saga FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('saga %s does not exist', _saga_lock.saga);
  END IF;
  IF NOT of_any_database AND sg.state NOT IN ('completed', 'compensated') THEN
    PERFORM dtx._saga_check_database(sg);
  END IF;
  RETURN sg;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_lock(bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_lock(bigint, boolean) IS
  'internal: locks a saga for the caller of the public function';

CREATE FUNCTION dtx._saga_audit(sg dtx.saga, step smallint, action text, outcome text, reason text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO dtx.saga_history_record (saga, step, action, outcome, message, started_at, finished_at, by_whom)
  SELECT (sg).id, _saga_audit.step, _saga_audit.action, _saga_audit.outcome, _saga_audit.reason,
         clock_timestamp(), clock_timestamp(), dtx._saga_caller()::regrole::text
$$;

REVOKE ALL ON FUNCTION dtx._saga_audit(dtx.saga, smallint, text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_audit(dtx.saga, smallint, text, text, text) IS
  'internal: remembers what an operator has done';

CREATE FUNCTION dtx._saga_check_reason(reason text) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(btrim(reason), '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a reason is required';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_check_reason(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_check_reason(text) IS
  'internal: an error if there is no reason';

--
-- The state machine.  All of these are called with the saga's row locked; "sg"
-- and "st" are the rows as they are now.
--

-- The saga has got into a state in which it stays, or fails.
CREATE FUNCTION dtx._saga_end(sg dtx.saga, state dtx.saga_state, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  defname text;
  defowner dtx.saga_role;
BEGIN
  UPDATE dtx.saga
     SET state = _saga_end.state,
         finished_at = CASE WHEN _saga_end.state <> 'failed' THEN clock_timestamp() END
   WHERE id = sg.id;
  IF _saga_end.state = 'failed' THEN
    UPDATE dtx.saga_data SET failure = _saga_end.reason WHERE saga = sg.id;
  ELSIF reason IS NOT NULL THEN
    UPDATE dtx.saga_data SET reason = _saga_end.reason, failure = NULL WHERE saga = sg.id;
  END IF;
  IF _saga_end.state <> 'failed' THEN
    DELETE FROM dtx.saga_step WHERE saga = sg.id AND step = 0;
  END IF;
  SELECT d.name, d.owner INTO defname, defowner FROM dtx.saga_definition d WHERE d.id = sg.definition;
  INSERT INTO dtx.saga_outbox (saga, owner, name, role, event, at, payload)
  SELECT sg.id, defowner, defname, sg.role, _saga_end.state::text, clock_timestamp(),
         jsonb_strip_nulls(jsonb_build_object('key', x.key, 'reason', nullif(concat_ws('; ', x.reason, x.failure), '')))
         || jsonb_build_object('results', dtx._saga_results(sg.id, sg.definition))
    FROM dtx.saga_data x
   WHERE x.saga = sg.id;
  PERFORM dtx._saga_finished(sg.id);
  IF _saga_end.state = 'failed' THEN
    RAISE WARNING USING
      MESSAGE = format('saga %s ("%s") has failed: %s', sg.id, defname, reason),
      HINT = 'Remove the cause and call dtx.retry_saga(); or do the work by hand and call dtx.skip_step() or dtx.force_saga().';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_end(dtx.saga, dtx.saga_state, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_end(dtx.saga, dtx.saga_state, text) IS
  'internal: a saga is completed or compensated, or has failed';

-- The way forth: a step is done, so others may have become due.
CREATE FUNCTION dtx._saga_advance(sg dtx.saga, done smallint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  n integer;
BEGIN
  INSERT INTO dtx.saga_step (saga, step, database, role, lane, state, due_at, since)
  SELECT sg.id, d.step, sg.database, sg.role, dtx._saga_lane(d.servers, d.execute), 'pending', clock_timestamp(), clock_timestamp()
    FROM dtx.saga_definition_step d
   WHERE d.definition = sg.definition
     AND done = ANY (d.after)
     AND NOT EXISTS (SELECT
                       FROM unnest(d.after) AS a (step)
                       LEFT JOIN dtx.saga_step p ON p.saga = sg.id AND p.step = a.step
                      WHERE p.state IS NULL OR p.state NOT IN ('completed', 'skipped'));
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n > 1 THEN
    -- more than the worker that does this can take
    PERFORM dtx._wake_sagas();
  ELSIF n = 0
    AND NOT EXISTS (SELECT
                      FROM dtx.saga_definition_step d
                      LEFT JOIN dtx.saga_step p ON p.saga = sg.id AND p.step = d.step
                     WHERE d.definition = sg.definition
                       AND (p.state IS NULL OR p.state NOT IN ('completed', 'skipped'))) THEN
    PERFORM dtx._saga_end(sg, 'completed');
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_advance(dtx.saga, smallint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_advance(dtx.saga, smallint) IS
  'internal: makes due what has waited for a step, or completes the saga';

-- The way back: a step is compensated when all that comes after it is settled,
-- that is, will never do or undo anything again.
CREATE FUNCTION dtx._saga_unwind(sg dtx.saga) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  st dtx.saga_step;
  d dtx.saga_definition_step;
  compensations text[];
  due integer := 0;
  is_open boolean := false;
  not_yet smallint[] := '{}';   -- all that come before a step that is not settled
BEGIN
  -- Step numbers are such that this comes to a step after all that come after it.
  FOR st IN
    SELECT s.* FROM dtx.saga_step s WHERE s.saga = sg.id AND s.step > 0 ORDER BY s.step DESC
  LOOP
    -- (what comes before this one is in there, too)
    CONTINUE WHEN st.step = ANY (not_yet);
    IF st.state IN ('pending', 'running', 'waiting', 'compensating')
       OR (st.state = 'failed' AND st.compensation) THEN
      is_open := true;
      not_yet := not_yet || (SELECT a.ancestors FROM dtx.saga_definition_step a
                              WHERE a.definition = sg.definition AND a.step = st.step);
    ELSIF st.state = 'completed' OR st.doubt THEN
      SELECT a.* INTO STRICT d FROM dtx.saga_definition_step a
       WHERE a.definition = sg.definition AND a.step = st.step;
      compensations := array_remove(d.compensate, NULL);
      IF cardinality(compensations) > 0 OR d.compensate_queue IS NOT NULL THEN
        UPDATE dtx.saga_step
           SET state = 'compensating', compensation = true, taken = false, doubt = false, attempt = 0,
               lane = dtx._saga_lane(ARRAY(SELECT u.s FROM unnest(d.servers) WITH ORDINALITY AS u (s, i) ORDER BY u.i DESC),
                                     ARRAY(SELECT u.c FROM unnest(d.compensate) WITH ORDINALITY AS u (c, i) ORDER BY u.i DESC)),
               due_at = clock_timestamp(), since = clock_timestamp()
         WHERE saga = sg.id AND step = st.step;
        due := due + 1;
        is_open := true;
        not_yet := not_yet || d.ancestors;
      ELSE
        UPDATE dtx.saga_step
           SET state = CASE WHEN st.state = 'completed' THEN 'compensated' ELSE st.state END,
               doubt = false, since = clock_timestamp()
         WHERE saga = sg.id AND step = st.step;
      END IF;
    END IF;
  END LOOP;
  IF NOT is_open THEN
    PERFORM dtx._saga_end(sg, 'compensated');
  ELSIF due > 0 THEN
    PERFORM dtx._wake_sagas();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_unwind(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_unwind(dtx.saga) IS
  'internal: makes due what can be compensated now, or ends the saga';

-- Turn back.  What runs may finish, and is compensated then, unless it is stopped;
-- so is what an external worker has in hands.  All else that has not been done never will be.
CREATE FUNCTION dtx._saga_compensate(sg dtx.saga, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  sg.compensating := true;
  sg.state := 'compensating';
  UPDATE dtx.saga SET state = 'compensating', compensating = true WHERE id = sg.id;
  UPDATE dtx.saga_data SET reason = _saga_compensate.reason, failure = NULL WHERE saga = sg.id;
  DELETE FROM dtx.saga_external WHERE saga = sg.id AND token IS NULL;
  UPDATE dtx.saga_step AS s
     SET state = 'skipped', due_at = NULL, since = clock_timestamp()
   WHERE s.saga = sg.id
     AND s.step > 0
     AND NOT s.taken
     AND s.state IN ('pending', 'waiting')
     AND NOT EXISTS (SELECT FROM dtx.saga_external e WHERE e.saga = sg.id AND e.step = s.step);
  DELETE FROM dtx.saga_step WHERE saga = sg.id AND step = 0;
  PERFORM dtx._saga_unwind(sg);
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_compensate(dtx.saga, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_compensate(dtx.saga, text) IS
  'internal: begins to compensate a saga';

-- What workers execute of it is to stop.
CREATE FUNCTION dtx._saga_stop_steps(sg dtx.saga) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT dtx._saga_stop(s.saga, s.step, s.attempt, s.compensation)
    FROM dtx.saga_step s
   WHERE s.saga = (sg).id AND s.taken
$$;

REVOKE ALL ON FUNCTION dtx._saga_stop_steps(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_stop_steps(dtx.saga) IS
  'internal: stops the steps of a saga that are being executed, when this transaction has committed';

-- What makes it impossible to turn back, or null.  A step that is being done does,
-- unless only those that are done are asked for.
CREATE FUNCTION dtx._saga_no_return(sg dtx.saga, only_done boolean DEFAULT false) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT d.name
    FROM dtx.saga_step s
    JOIN dtx.saga_definition_step d ON d.definition = (sg).definition AND d.step = s.step
   WHERE s.saga = (sg).id
     AND d.kind IN ('pivot', 'retriable')
     AND (s.state IN ('completed', 'skipped')
          OR s.doubt
          OR (NOT only_done
              AND (s.state = 'running'
                   OR EXISTS (SELECT FROM dtx.saga_external e
                               WHERE e.saga = s.saga AND e.step = s.step AND e.token IS NOT NULL))))
   ORDER BY d.step
   LIMIT 1
$$;

REVOKE ALL ON FUNCTION dtx._saga_no_return(dtx.saga, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_no_return(dtx.saga, boolean) IS
  'internal: the step that has been done, or may have been, and can''t be undone';

-- The deadline has passed.  Returns whether the saga has turned back.
--
-- While the point of no return is just being tried, nobody knows whether it has
-- been reached.  So this is asked again as soon as that is over (and, because an
-- external worker may take days, more and more seldom until then).  The timer is
-- pending then.
CREATE FUNCTION dtx._saga_deadline(sg dtx.saga) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  blocker text := dtx._saga_no_return(sg);
BEGIN
  IF blocker IS NOT NULL AND dtx._saga_no_return(sg, true) IS NULL THEN
    UPDATE dtx.saga_step AS s
       SET state = 'pending', since = CASE WHEN s.state = 'pending' THEN s.since ELSE now_at END,
           due_at = now_at + CASE WHEN s.state = 'pending'
                                  THEN greatest(least((now_at - s.since) / 2, '1 minute'), '1 second')
                                  ELSE interval '1 second' END
     WHERE s.saga = sg.id AND s.step = 0;
    PERFORM dtx._wake_sagas();
    RETURN false;
  END IF;
  DELETE FROM dtx.saga_step WHERE saga = sg.id AND step = 0;
  INSERT INTO dtx.saga_history_record (saga, action, outcome, message, started_at, finished_at)
  VALUES (sg.id, 'deadline', CASE WHEN blocker IS NULL THEN 'compensating' ELSE sg.state::text END,
          CASE WHEN blocker IS NOT NULL THEN format('step "%s" can''t be undone, so the saga goes on', blocker) END,
          now_at, now_at);
  IF blocker IS NULL THEN
    PERFORM dtx._saga_stop_steps(sg);
    PERFORM dtx._saga_compensate(sg, 'its deadline has passed');
  END IF;
  RETURN blocker IS NULL;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_deadline(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_deadline(dtx.saga) IS
  'internal: the deadline of a saga has passed, so it turns back if that is possible';

-- A step, or its compensation, has succeeded.
CREATE FUNCTION dtx._saga_succeeded(sg dtx.saga, st dtx.saga_step, result jsonb, started_at timestamptz,
  by_whom text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  INSERT INTO dtx.saga_history_record (saga, step, action, attempt, outcome, started_at, finished_at, by_whom)
  VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0),
          'completed', _saga_succeeded.started_at, now_at, _saga_succeeded.by_whom);
  UPDATE dtx.saga_step
     SET state = CASE WHEN st.compensation THEN 'compensated' ELSE 'completed' END::dtx.saga_step_state,
         taken = false, doubt = false, due_at = NULL, since = now_at,
         boot_id = dtx._boot_id(), xid = dtx._saga_xid()
   WHERE saga = sg.id AND step = st.step;
  IF result IS NOT NULL AND NOT st.compensation THEN
    INSERT INTO dtx.saga_result (saga, step, result) VALUES (sg.id, st.step, _saga_succeeded.result);
  END IF;
  IF sg.compensating THEN
    PERFORM dtx._saga_unwind(sg);
  ELSIF EXISTS (SELECT FROM dtx.saga_step s WHERE s.saga = sg.id AND s.step = 0 AND s.state = 'pending')
    AND dtx._saga_deadline(sg) THEN
    NULL;                       -- it has turned back
  ELSE
    PERFORM dtx._saga_advance(sg, st.step);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_succeeded(dtx.saga, dtx.saga_step, jsonb, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_succeeded(dtx.saga, dtx.saga_step, jsonb, timestamptz, text) IS
  'internal: a step is completed, or compensated';

-- An attempt has failed, or was lost: try again, or turn back, or give up.
--   retryable: may it succeed if it is tried again?
--   final: somebody has said that it must not be tried again
CREATE FUNCTION dtx._saga_attempt_failed(sg dtx.saga, st dtx.saga_step, outcome text, retryable boolean, final boolean,
  sqlstate text, message text, detail text, hint text, started_at timestamptz, by_whom text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  d dtx.saga_definition_step;
  now_at timestamptz := clock_timestamp();
  again boolean;
  retry_at timestamptz;
  seconds double precision;
  what text;
BEGIN
  SELECT a.* INTO STRICT d FROM dtx.saga_definition_step a
   WHERE a.definition = sg.definition AND a.step = st.step;
  -- They get into several tables, and into the server's log.
  message := left(message, 8000);
  detail := left(detail, 8000);
  hint := left(hint, 8000);
  again := NOT final
    AND st.attempt < CASE WHEN st.compensation THEN d.compensate_attempts ELSE d.max_attempts END
    AND (retryable OR st.compensation OR d.kind = 'retriable')
    AND (st.compensation OR NOT sg.compensating);
  IF again THEN
    -- Twice as long each time, but not longer than ten minutes, and never quite
    -- the same, so that those who failed together do not come back together.
    seconds := greatest(extract(epoch FROM d.backoff), 0.01);
    seconds := least(seconds * 2 ^ least(st.attempt - 1, 30), greatest(seconds, 600));
    IF d.action = 'external' AND outcome = 'lost' THEN
      seconds := 0;             -- another worker can begin at once
    END IF;
    retry_at := now_at + make_interval(secs => seconds * (0.75 + random() / 2));
  END IF;
  INSERT INTO dtx.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, detail, hint,
                                       started_at, finished_at, retry_at, by_whom)
  VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0), outcome,
          _saga_attempt_failed.sqlstate, _saga_attempt_failed.message, _saga_attempt_failed.detail,
          _saga_attempt_failed.hint, _saga_attempt_failed.started_at, now_at, retry_at, _saga_attempt_failed.by_whom);
  IF again THEN
    IF d.action = 'external' THEN
      UPDATE dtx.saga_external
         SET token = NULL, worker = NULL, lease = NULL, claimed_at = NULL, available_at = retry_at
       WHERE saga = sg.id AND step = st.step;
      -- due when it can be claimed again, to tell the workers
      UPDATE dtx.saga_step
         SET doubt = st.doubt,
             due_at = least(retry_at, CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
       WHERE saga = sg.id AND step = st.step;
    ELSE
      UPDATE dtx.saga_step
         SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
             taken = false, due_at = retry_at, since = now_at
       WHERE saga = sg.id AND step = st.step;
    END IF;
    PERFORM dtx._wake_sagas();
    -- Now it can be said whether the deadline lets it be tried again.
    IF NOT sg.compensating
       AND EXISTS (SELECT FROM dtx.saga_step s
                    WHERE s.saga = sg.id AND s.step = 0 AND (s.state = 'pending' OR s.due_at <= now_at)) THEN
      PERFORM dtx._saga_deadline(sg);
    END IF;
    RETURN;
  END IF;

  DELETE FROM dtx.saga_external WHERE saga = sg.id AND step = st.step;
  UPDATE dtx.saga_step
     SET state = 'failed', taken = false, doubt = st.doubt, due_at = NULL, since = now_at
   WHERE saga = sg.id AND step = st.step;
  what := format(CASE WHEN st.compensation THEN 'compensation of step "%s" has failed' ELSE 'step "%s" has failed' END
                 || CASE WHEN st.attempt > 1 THEN ' %s times' ELSE '' END || ': ', d.name, st.attempt) || coalesce(message, sqlstate);
  IF sg.compensating AND NOT st.compensation THEN
    PERFORM dtx._saga_unwind(sg);
  ELSIF st.compensation OR d.kind = 'retriable' OR (d.kind = 'pivot' AND st.doubt) THEN
    -- Neither forth nor back.  Others that have failed before may have told already.
    IF sg.state <> 'failed' THEN
      PERFORM dtx._saga_end(sg, 'failed', what || CASE WHEN st.doubt THEN ' (a worker that was lost may have done it)' ELSE '' END);
    END IF;
  ELSE
    PERFORM dtx._saga_compensate(sg, what);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_attempt_failed(dtx.saga, dtx.saga_step, text, boolean, boolean, text, text, text, text, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_attempt_failed(dtx.saga, dtx.saga_step, text, boolean, boolean, text, text, text, text, timestamptz, text) IS
  'internal: an attempt at a step, or at its compensation, has failed';

-- The lease of an external worker is over.
CREATE FUNCTION dtx._saga_lease_lost(sg dtx.saga, st dtx.saga_step, e dtx.saga_external) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  -- Nobody knows whether he has done it.
  st.doubt := NOT st.compensation;
  PERFORM dtx._saga_attempt_failed(sg, st, 'lost', true, false, NULL,
    format('the lease of worker "%s" has expired', e.worker), NULL, NULL, e.claimed_at, e.worker);
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_lease_lost(dtx.saga, dtx.saga_step, dtx.saga_external) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_lease_lost(dtx.saga, dtx.saga_step, dtx.saga_external) IS
  'internal: an external worker has not reported in time';

--
-- What workers and the scheduler call (src/saga_worker.c)
--

-- Looks at one step that seems to be due.  Verdicts: take (it is to be
-- executed), did (all that was to be done is done), skip (nothing to do here).
-- Plain index scans whatever the statistics say: the tables may have been empty
-- when the plan was made.
CREATE FUNCTION dtx._saga_try(saga bigint, step smallint, sql_only boolean,
  OUT verdict text, OUT attempt integer, OUT direction text, OUT servers name[], OUT commands text[],
  OUT min_rows integer[], OUT input jsonb, OUT results jsonb, OUT timeout interval
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
  d dtx.saga_definition_step;
  e dtx.saga_external;
  now_at timestamptz;
  confirmed boolean;
  payload jsonb;
BEGIN
  verdict := 'skip';
  SELECT g.* INTO sg FROM dtx.saga g
   WHERE g.id = _saga_try.saga AND g.database = dtx._saga_active_database() FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO st FROM dtx.saga_step s
   WHERE s.saga = _saga_try.saga AND s.step = _saga_try.step FOR UPDATE;
  now_at := clock_timestamp();
  IF NOT FOUND OR st.due_at IS NULL OR st.due_at > now_at
     OR (st.taken AND dtx._saga_claimed(st.saga, st.step)) THEN
    RETURN;
  END IF;

  IF st.step = 0 THEN
    -- the deadline
    IF sql_only THEN
      RETURN;
    END IF;
    verdict := 'did';
    IF sg.compensating THEN
      DELETE FROM dtx.saga_step WHERE saga = sg.id AND step = 0;
    ELSE
      PERFORM dtx._saga_deadline(sg);
    END IF;
    RETURN;
  END IF;

  SELECT a.* INTO STRICT d FROM dtx.saga_definition_step a
   WHERE a.definition = sg.definition AND a.step = st.step;
  IF sql_only AND (d.action <> 'sql' OR st.taken) THEN
    RETURN;
  END IF;

  IF st.taken THEN
    -- Its worker has gone, and its transaction with it.
    PERFORM dtx._saga_attempt_failed(sg, st, 'lost', true, false, '57P01', 'the worker has gone', NULL, NULL, st.since);
    verdict := 'did';
    RETURN;
  END IF;

  IF st.state IN ('pending', 'compensating') THEN
    -- Not before the servers show what was done before.  At whatever attempt: the
    -- first one may have been lost before it was begun, with the worker that had
    -- taken it in the commit of the step before.
    IF st.compensation THEN
      confirmed := dtx._saga_confirmed(st.boot_id, st.xid)
        AND NOT EXISTS (SELECT
                          FROM dtx.saga_definition_step a
                          JOIN dtx.saga_step s ON s.saga = sg.id AND s.step = a.step
                         WHERE a.definition = sg.definition
                           AND st.step = ANY (a.ancestors)
                           AND NOT dtx._saga_confirmed(s.boot_id, s.xid));
    ELSIF d.after = '{}' THEN
      confirmed := dtx._saga_confirmed(sg.boot_id, sg.xid);
    ELSE
      confirmed := NOT EXISTS (SELECT
                                 FROM dtx.saga_step s
                                WHERE s.saga = sg.id
                                  AND s.step = ANY (d.after)
                                  AND NOT dtx._saga_confirmed(s.boot_id, s.xid));
    END IF;
    IF NOT confirmed THEN
      UPDATE dtx.saga_step
         SET due_at = now_at + greatest(least((now_at - st.since) / 2, '5 s'), '20 ms')
       WHERE saga = sg.id AND step = st.step;
      PERFORM dtx._wake_sagas();
      RETURN;
    END IF;
  END IF;

  IF d.action = 'sql' AND NOT dtx._saga_claim(st.saga, st.step, st.attempt + 1, st.compensation, st.lane, st.role) THEN
    RETURN;
  END IF;
  IF sg.state = 'pending' THEN
    sg.state := 'running';
    UPDATE dtx.saga SET state = 'running' WHERE id = sg.id;
  END IF;

  IF d.action = 'sql' THEN
    UPDATE dtx.saga_step
       SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'running' END::dtx.saga_step_state,
           taken = true, attempt = st.attempt + 1, since = now_at
     WHERE saga = sg.id AND step = st.step;
    verdict := 'take';
    attempt := st.attempt + 1;
    IF st.compensation THEN
      direction := 'compensate';
      SELECT array_agg(u.s ORDER BY u.i DESC), array_agg(u.c ORDER BY u.i DESC), array_agg(NULL::integer)
        INTO servers, commands, min_rows
        FROM unnest(d.servers, d.compensate) WITH ORDINALITY AS u (s, c, i)
       WHERE u.c IS NOT NULL;
    ELSE
      direction := 'execute';
      servers := d.servers;
      commands := d."execute";
      min_rows := d.min_rows;
    END IF;
    timeout := d.timeout;
    SELECT x.input INTO input FROM dtx.saga_data x WHERE x.saga = sg.id;
    results := dtx._saga_results(sg.id, sg.definition);
    RETURN;
  END IF;

  verdict := 'did';
  IF d.action = 'sleep' THEN
    IF st.state = 'pending' AND d.delay > '0' THEN
      UPDATE dtx.saga_step
         SET state = 'waiting', due_at = now_at + d.delay, since = now_at
       WHERE saga = sg.id AND step = st.step;
      PERFORM dtx._wake_sagas();
    ELSE
      PERFORM dtx._saga_succeeded(sg, st, NULL, st.since);
    END IF;

  ELSIF d.action = 'signal' THEN
    SELECT s.payload INTO payload FROM dtx.saga_signal s WHERE s.saga = sg.id AND s.name = d.name;
    IF FOUND THEN
      PERFORM dtx._saga_succeeded(sg, st, payload, st.since);
    ELSIF st.state = 'pending' THEN
      UPDATE dtx.saga_step
         SET state = 'waiting', due_at = now_at + d.timeout, since = now_at
       WHERE saga = sg.id AND step = st.step;
      IF d.timeout IS NOT NULL THEN
        PERFORM dtx._wake_sagas();
      END IF;
    ELSE
      PERFORM dtx._saga_attempt_failed(sg, st, 'failed', false, true, '57014',
        'the signal has not come in time', NULL, NULL, st.since);
    END IF;

  ELSIF st.state = 'pending' OR (st.compensation AND NOT EXISTS (
          SELECT FROM dtx.saga_external x WHERE x.saga = sg.id AND x.step = st.step)) THEN
    -- Offer it to external workers.
    INSERT INTO dtx.saga_external (saga, step, database, role, queue, available_at)
    VALUES (sg.id, st.step, sg.database, sg.role, CASE WHEN st.compensation THEN d.compensate_queue ELSE d.queue END, now_at);
    UPDATE dtx.saga_step
       SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'waiting' END::dtx.saga_step_state,
           due_at = CASE WHEN NOT st.compensation THEN now_at + d.timeout END, since = now_at
     WHERE saga = sg.id AND step = st.step;
    PERFORM dtx._saga_announce(CASE WHEN st.compensation THEN d.compensate_queue ELSE d.queue END);
    IF d.timeout IS NOT NULL THEN
      PERFORM dtx._wake_sagas();
    END IF;

  ELSE
    -- Something was to happen to what they have been offered until now.
    SELECT x.* INTO STRICT e FROM dtx.saga_external x WHERE x.saga = sg.id AND x.step = st.step FOR UPDATE;
    IF e.token IS NOT NULL AND e.available_at <= now_at THEN
      PERFORM dtx._saga_lease_lost(sg, st, e);
    ELSIF NOT st.compensation AND st.since + d.timeout <= now_at THEN
      st.doubt := st.doubt OR e.token IS NOT NULL;
      PERFORM dtx._saga_attempt_failed(sg, st, 'failed', false, true, '57014',
        CASE WHEN e.token IS NULL THEN format('no worker has completed it within %s', d.timeout)
             ELSE format('worker "%s" has not completed it within %s', e.worker, d.timeout) END,
        NULL, NULL, coalesce(e.claimed_at, st.since), e.worker);
    ELSE
      UPDATE dtx.saga_step
         SET due_at = least(CASE WHEN e.token IS NOT NULL OR e.available_at > now_at THEN e.available_at END,
                            CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
       WHERE saga = sg.id AND step = st.step;
      IF e.token IS NULL AND e.available_at <= now_at THEN
        PERFORM dtx._saga_announce(e.queue);
      END IF;
      PERFORM dtx._wake_sagas();
    END IF;
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_try(bigint, smallint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_try(bigint, smallint, boolean) IS
  'internal: looks at a step that may be due, and takes it or does what is to be done without a worker';

-- Something is wrong with a saga such that nobody can even look whether a step of
-- it is to be executed.  The others must not wait for that.
CREATE FUNCTION dtx._saga_postpone(saga bigint, step smallint, sqlstate text, message text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
  now_at timestamptz := clock_timestamp();
  retry_at timestamptz;
BEGIN
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_postpone.saga FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO st FROM dtx.saga_step s
   WHERE s.saga = _saga_postpone.saga AND s.step = _saga_postpone.step FOR UPDATE;
  IF NOT FOUND OR st.due_at IS NULL OR st.due_at > now_at THEN
    RETURN;
  END IF;
  -- The longer it lasts, the more seldom it is tried.
  retry_at := now_at + greatest(least(now_at - st.since, '1 hour'), '1 minute');
  UPDATE dtx.saga_step SET due_at = retry_at WHERE saga = sg.id AND step = st.step;
  INSERT INTO dtx.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, started_at, finished_at, retry_at)
  VALUES (sg.id, nullif(st.step, 0),
          CASE WHEN st.step = 0 THEN 'deadline' WHEN st.compensation THEN 'compensate' ELSE 'execute' END,
          nullif(st.attempt, 0), CASE WHEN st.step = 0 THEN sg.state::text ELSE 'failed' END,
          _saga_postpone.sqlstate, left(_saga_postpone.message, 8000), now_at, now_at, retry_at);
  PERFORM dtx._wake_sagas();
  RAISE WARNING USING
    MESSAGE = format('saga %s can''t go on: %s', sg.id, left(_saga_postpone.message, 8000)),
    DETAIL = format('It is looked at again at %s.', retry_at),
    HINT = 'If that does not help, end the saga with dtx.force_saga().';
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_postpone(bigint, smallint, text, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_postpone(bigint, smallint, text, text) IS
  'internal: leaves for later a step that can''t be looked at because of an error';

-- careful: an error is no reason to stop (see above); costs a subtransaction.
CREATE FUNCTION dtx._saga_take(role oid, of_saga bigint DEFAULT NULL, careful boolean DEFAULT false,
  OUT saga bigint, OUT step smallint, OUT attempt integer, OUT direction text, OUT servers name[], OUT commands text[],
  OUT min_rows integer[], OUT input jsonb, OUT results jsonb, OUT timeout interval, OUT more boolean
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  -- What is in the hands of workers is left out; what else can't be taken is
  -- locked by others, mostly a few for a moment, but a transaction may hold many.
  -- Rows are read as they are needed, so this costs nothing where none is locked.
  bound constant integer := 5000;
  -- (a variable, because a volatile function would not be a condition of the index)
  now_at timestamptz := clock_timestamp();
  here oid := dtx._saga_active_database();
  lanes oid[];
  this_lane oid;
  due record;
  t record;
BEGIN
  more := false;
  IF of_saga IS NOT NULL THEN
    lanes := ARRAY[NULL];
  ELSE
    -- Each lane is found by a look at one end of its part of the index.
    SELECT array_agg(x.lane ORDER BY random()) INTO lanes
      FROM (WITH RECURSIVE l (lane) AS (
              (SELECT s.lane FROM dtx.saga_step s
                WHERE s.database = here AND s.role = _saga_take.role AND s.due_at IS NOT NULL AND s.step > 0
                ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1)
              UNION ALL
              SELECT (SELECT s.lane FROM dtx.saga_step s
                       WHERE s.database = here AND s.role = _saga_take.role AND s.lane > l.lane AND s.due_at IS NOT NULL AND s.step > 0
                       ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1)
                FROM l WHERE l.lane IS NOT NULL)
            SELECT l.lane FROM l WHERE l.lane IS NOT NULL) AS x;
  END IF;
  FOREACH this_lane IN ARRAY coalesce(lanes, '{}') LOOP
    CONTINUE WHEN of_saga IS NULL AND NOT dtx._saga_lane_open(this_lane, _saga_take.role);
    FOR due IN
      SELECT q.saga, q.step
        FROM (SELECT s.saga, s.step
                FROM dtx.saga_step s
               WHERE of_saga IS NULL AND s.database = here AND s.role = _saga_take.role AND s.lane = this_lane
                 AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step > 0
                 AND NOT (s.taken AND dtx._saga_claimed(s.saga, s.step))
               ORDER BY s.database, s.role, s.lane, s.due_at
               LIMIT bound) AS q
      UNION ALL
      SELECT q.saga, q.step
        FROM (SELECT s.saga, s.step
                FROM dtx.saga_step s
               WHERE s.saga = of_saga AND s.step > 0 AND s.due_at <= now_at AND NOT s.taken) AS q
    LOOP
      IF careful THEN
        BEGIN
          t := dtx._saga_try(due.saga, due.step, of_saga IS NOT NULL);
        EXCEPTION WHEN OTHERS THEN
          PERFORM dtx._saga_postpone(due.saga, due.step, SQLSTATE, SQLERRM);
          CONTINUE;
        END;
      ELSE
        t := dtx._saga_try(due.saga, due.step, of_saga IS NOT NULL);
      END IF;
      IF t.verdict = 'take' THEN
        saga := due.saga;
        step := due.step;
        attempt := t.attempt;
        direction := t.direction;
        servers := t.servers;
        commands := t.commands;
        min_rows := t.min_rows;
        input := t.input;
        results := t.results;
        timeout := t.timeout;
        RETURN;
      ELSIF t.verdict = 'did' THEN
        more := true;
        RETURN;
      END IF;
      EXIT WHEN of_saga IS NULL AND NOT dtx._saga_lane_open(this_lane, _saga_take.role);
    END LOOP;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_take(oid, bigint, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_take(oid, bigint, boolean) IS
  'internal: gives a worker a step that is due';

-- most: if that many executions of the step were stopped for that reason before, this one
-- counts as an attempt that was lost.  A step may have told its worker to leave itself.
CREATE FUNCTION dtx._saga_untake(saga bigint, step smallint, attempt integer, direction text, why text DEFAULT NULL,
  started_at timestamptz DEFAULT NULL, most integer DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  sg dtx.saga;
  st dtx.saga_step;
BEGIN
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_untake.saga FOR UPDATE;
  IF most IS NOT NULL
     AND (SELECT count(*)
            FROM dtx.saga_history_record h
           WHERE h.saga = _saga_untake.saga AND h.step = _saga_untake.step AND h.action = _saga_untake.direction
             AND h.outcome = 'stopped' AND h.message = why) >= most THEN
    SELECT s.* INTO st FROM dtx.saga_step s
     WHERE s.saga = _saga_untake.saga AND s.step = _saga_untake.step
       AND s.taken AND s.attempt = _saga_untake.attempt
       AND s.compensation = (_saga_untake.direction = 'compensate') FOR UPDATE;
    IF FOUND THEN
      PERFORM dtx._saga_attempt_failed(sg, st, 'lost', true, false, '57P01', why, NULL, NULL,
                                       coalesce(_saga_untake.started_at, now_at));
    END IF;
    PERFORM dtx._wake_sagas();
    RETURN;
  END IF;
  UPDATE dtx.saga_step AS s
     SET state = CASE WHEN s.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
         taken = false, attempt = s.attempt - 1, due_at = now_at + '200 ms'
   WHERE s.saga = _saga_untake.saga AND s.step = _saga_untake.step
     AND s.taken AND s.attempt = _saga_untake.attempt
     AND s.compensation = (_saga_untake.direction = 'compensate');
  IF FOUND AND why IS NOT NULL THEN
    INSERT INTO dtx.saga_history_record (saga, step, action, attempt, outcome, message, started_at, finished_at, retry_at)
    VALUES (_saga_untake.saga, _saga_untake.step, _saga_untake.direction, _saga_untake.attempt, 'stopped', why,
            coalesce(_saga_untake.started_at, now_at), now_at, now_at + '200 ms');
  END IF;
  -- What turned the saga back meanwhile could not skip what was taken.
  IF FOUND AND _saga_untake.direction = 'execute'
     AND EXISTS (SELECT FROM dtx.saga g WHERE g.id = _saga_untake.saga AND g.compensating) THEN
    UPDATE dtx.saga_step AS s
       SET state = 'skipped', due_at = NULL, since = now_at
     WHERE s.saga = _saga_untake.saga AND s.step = _saga_untake.step;
    PERFORM dtx._saga_unwind(g) FROM dtx.saga g WHERE g.id = _saga_untake.saga;
  END IF;
  PERFORM dtx._wake_sagas();
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_untake(bigint, smallint, integer, text, text, timestamptz, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_untake(bigint, smallint, integer, text, text, timestamptz, integer) IS
  'internal: a worker gives back a step that it has not begun to execute, or whose execution was stopped for no fault of the step';

CREATE FUNCTION dtx._saga_done(saga bigint, step smallint, attempt integer, direction text, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
BEGIN
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_done.saga FOR UPDATE;
  SELECT s.* INTO st FROM dtx.saga_step s
   WHERE s.saga = _saga_done.saga AND s.step = _saga_done.step FOR UPDATE;
  IF st.taken IS NOT TRUE OR st.attempt <> _saga_done.attempt
     OR st.compensation <> (_saga_done.direction = 'compensate') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'DX001',
      MESSAGE = format('attempt %s at step %s of saga %s is not valid any more',
                       _saga_done.attempt, _saga_done.step, _saga_done.saga);
  END IF;
  IF NOT st.compensation THEN
    PERFORM dtx._saga_check_result(sg, _saga_done.result);
  END IF;
  PERFORM dtx._saga_succeeded(sg, st, result, st.since);
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_done(bigint, smallint, integer, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_done(bigint, smallint, integer, text, jsonb) IS
  'internal: a worker has executed a step, in this transaction';

-- Which errors may go away by themselves.
CREATE FUNCTION dtx._saga_retryable(sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(left(sqlstate, 2) IN ('08', '40', '53')
    OR left(sqlstate, 3) = '57P'                -- shut down, starting up
    OR sqlstate IN ('55P03',                    -- lock_not_available
                    '57014',                    -- query_canceled: a timeout, mostly
                    '25P03', '25P04'), false)   -- other timeouts of a server
$$;

REVOKE ALL ON FUNCTION dtx._saga_retryable(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_retryable(text) IS
  'internal: may the same succeed if it is tried again?';

CREATE FUNCTION dtx._saga_error(saga bigint, step smallint, attempt integer, direction text, sqlstate text,
  message text, detail text, hint text, started_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
BEGIN
  SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = _saga_error.saga FOR UPDATE;
  SELECT s.* INTO st FROM dtx.saga_step s
   WHERE s.saga = _saga_error.saga AND s.step = _saga_error.step FOR UPDATE;
  IF st.taken IS NOT TRUE OR st.attempt <> _saga_error.attempt
     OR st.compensation <> (_saga_error.direction = 'compensate') THEN
    RETURN;                     -- somebody has decided otherwise meanwhile
  END IF;
  PERFORM dtx._saga_attempt_failed(sg, st, 'failed', dtx._saga_retryable(_saga_error.sqlstate), false, _saga_error.sqlstate,
    _saga_error.message, _saga_error.detail, _saga_error.hint, coalesce(_saga_error.started_at, st.since));
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_error(bigint, smallint, integer, text, text, text, text, text, timestamptz) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_error(bigint, smallint, integer, text, text, text, text, text, timestamptz) IS
  'internal: a worker''s attempt at a step has failed';

CREATE FUNCTION dtx._saga_schedule(OUT role oid, OUT due bigint, OUT next_due timestamptz) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  enough integer := greatest(coalesce(current_setting('pg_dtx.saga_workers', true)::integer, 0), 1);
  -- (a variable, because a volatile function would not be a condition of the index)
  now_at timestamptz := clock_timestamp();
  here oid := dtx._saga_active_database();
  this_role oid;
  this_lane oid;
  n bigint;
  t timestamptz;
BEGIN
  -- From one (role, lane) to the next, each at one end of its part of the index.
  SELECT s.role, s.lane INTO this_role, this_lane
    FROM dtx.saga_step s
   WHERE s.database = here AND s.due_at IS NOT NULL AND s.step > 0
   ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1;
  WHILE this_role IS NOT NULL LOOP
    IF role IS DISTINCT FROM this_role THEN
      IF role IS NOT NULL THEN
        RETURN NEXT;
      END IF;
      role := this_role;
      due := 0;
      next_due := NULL;
    END IF;
    IF due < enough AND dtx._saga_lane_open(this_lane, this_role) THEN
      SELECT count(*) INTO n
        FROM (SELECT
                FROM dtx.saga_step s
               WHERE s.database = here AND s.role = this_role AND s.lane = this_lane AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step > 0
                 AND NOT (s.taken AND dtx._saga_claimed(s.saga, s.step))
               LIMIT enough - due) AS x;
      due := due + n;
    ELSIF due < enough AND EXISTS (
            SELECT
              FROM dtx.saga_step s
             WHERE s.database = here AND s.role = this_role AND s.lane = this_lane AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step > 0
               AND NOT (s.taken AND dtx._saga_claimed(s.saga, s.step))) THEN
      -- Others are on this server: soon again.
      next_due := least(next_due, now_at + interval '200 milliseconds');
    END IF;
    SELECT s.due_at INTO t
      FROM dtx.saga_step s
     WHERE s.database = here AND s.role = this_role AND s.lane = this_lane AND s.due_at > now_at AND s.due_at IS NOT NULL AND s.step > 0
     ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1;
    next_due := least(next_due, t);
    SELECT s.role, s.lane INTO this_role, this_lane
      FROM dtx.saga_step s
     WHERE s.database = here AND (s.role, s.lane) > (this_role, this_lane) AND s.due_at IS NOT NULL AND s.step > 0
     ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1;
  END LOOP;
  IF role IS NOT NULL THEN
    RETURN NEXT;
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_schedule() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_schedule() IS
  'internal: for each role with work, how much is due now (not counted further than there are workers), and when there will be more';

-- Deadlines that have passed, n at most, and when to ask again.  For each role in turn,
-- an equal share of n, from the one that follows the last one that was served, so that
-- a role that has many of them, or has locked many of its sagas, is in nobody's way.
CREATE FUNCTION dtx._saga_deadlines(n integer, after oid DEFAULT 0, OUT next_due timestamptz, OUT last oid) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  here oid := dtx._saga_active_database();
  roles oid[];
  this_role oid;
  share integer;
  budget integer;
  due record;
  t timestamptz;
BEGIN
  last := after;
  -- From one role to the next, each at one end of its part of the index.
  WITH RECURSIVE r (role) AS (
    (SELECT s.role FROM dtx.saga_step s
      WHERE s.database = here AND s.due_at IS NOT NULL AND s.step = 0
      ORDER BY s.database, s.role, s.due_at LIMIT 1)
    UNION ALL
    SELECT (SELECT s.role FROM dtx.saga_step s
             WHERE s.database = here AND s.role > r.role AND s.due_at IS NOT NULL AND s.step = 0
             ORDER BY s.database, s.role, s.due_at LIMIT 1)
      FROM r WHERE r.role IS NOT NULL),
  f AS (
    SELECT r.role,
           (SELECT s.due_at FROM dtx.saga_step s
             WHERE s.database = here AND s.role = r.role AND s.due_at IS NOT NULL AND s.step = 0
             ORDER BY s.database, s.role, s.due_at LIMIT 1) AS due_at
      FROM r WHERE r.role IS NOT NULL)
  SELECT array_agg(f.role ORDER BY f.role <= after, f.role) FILTER (WHERE f.due_at <= now_at), min(f.due_at) FILTER (WHERE f.due_at > now_at)
    INTO roles, next_due FROM f;
  IF roles IS NULL THEN
    RETURN;
  END IF;
  share := greatest(n / cardinality(roles), 1);
  FOREACH this_role IN ARRAY roles LOOP
    IF n <= 0 THEN
      next_due := now_at;
      RETURN;
    END IF;
    last := this_role;
    budget := share;
    FOR due IN
      SELECT s.saga
        FROM dtx.saga_step s
       WHERE s.database = here AND s.role = this_role AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step = 0
       ORDER BY s.database, s.role, s.due_at
       LIMIT 1000
    LOOP
      IF budget <= 0 THEN
        next_due := now_at;
        EXIT;
      END IF;
      BEGIN
        IF (dtx._saga_try(due.saga, 0::smallint, false)).verdict = 'did' THEN
          n := n - 1;
          budget := budget - 1;
        ELSE
          next_due := least(next_due, now_at + '1 s');   -- locked by another transaction
        END IF;
      EXCEPTION WHEN OTHERS THEN
        PERFORM dtx._saga_postpone(due.saga, 0::smallint, SQLSTATE, SQLERRM);
        n := n - 1;
        budget := budget - 1;
      END;
    END LOOP;
    SELECT s.due_at INTO t
      FROM dtx.saga_step s
     WHERE s.database = here AND s.role = this_role AND s.due_at > now_at AND s.due_at IS NOT NULL AND s.step = 0
     ORDER BY s.database, s.role, s.due_at LIMIT 1;
    next_due := least(next_due, t);
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_deadlines(integer, oid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_deadlines(integer, oid) IS
  'internal: lets deadlines pass, from the role that follows "after"; tells when the next one does, and which role was the last one';

-- Steps that are due of a role that does not exist any more fail: nobody else shall
-- do them, and they are not forgotten either.
CREATE FUNCTION dtx._saga_orphaned(role oid) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  here oid := dtx._saga_active_database();
  this_saga bigint;
  sg dtx.saga;
  st dtx.saga_step;
  n integer;
  what text;
BEGIN
  IF EXISTS (SELECT FROM pg_authid r WHERE r.oid = _saga_orphaned.role) THEN
    RETURN;
  END IF;
  FOR this_saga IN
    SELECT DISTINCT x.saga
      FROM (SELECT s.saga
              FROM dtx.saga_step s
             WHERE s.database = here AND s.role = _saga_orphaned.role AND s.due_at <= now_at
               AND s.due_at IS NOT NULL AND s.step > 0
             ORDER BY s.database, s.role, s.lane, s.due_at
             LIMIT 100) AS x
  LOOP
    SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = this_saga FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    n := 0;
    FOR st IN
      SELECT s.* FROM dtx.saga_step s
       WHERE s.saga = sg.id AND s.step > 0 AND s.due_at <= now_at
         AND NOT (s.taken AND dtx._saga_claimed(s.saga, s.step))
       ORDER BY s.step
    LOOP
      DELETE FROM dtx.saga_external e WHERE e.saga = sg.id AND e.step = st.step;
      UPDATE dtx.saga_step
         SET state = 'failed', taken = false, due_at = NULL, since = now_at
       WHERE saga = sg.id AND step = st.step;
      INSERT INTO dtx.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, started_at, finished_at)
      VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0), 'failed',
              '42704', 'the role that has started the saga does not exist', st.since, now_at);
      n := n + 1;
    END LOOP;
    IF n > 0 AND sg.state <> 'failed' THEN
      SELECT d.name INTO what
        FROM dtx.saga_step s JOIN dtx.saga_definition_step d ON d.definition = sg.definition AND d.step = s.step
       WHERE s.saga = sg.id AND s.state = 'failed' ORDER BY s.since DESC LIMIT 1;
      PERFORM dtx._saga_end(sg, 'failed', format('step "%s" can''t be executed: the role that has started the saga does not exist', what));
    END IF;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_orphaned(oid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_orphaned(oid) IS
  'internal: fails the steps that are due of a role that does not exist';

CREATE FUNCTION dtx._saga_any() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
BEGIN
  PERFORM
     FROM dtx.saga_step s
    WHERE s.database = dtx._saga_active_database() AND s.due_at IS NOT NULL AND s.step > 0
    ORDER BY s.database, s.role, s.lane, s.due_at LIMIT 1;
  IF NOT FOUND THEN
    PERFORM
       FROM dtx.saga_step s
      WHERE s.database = dtx._saga_active_database() AND s.due_at IS NOT NULL AND s.step = 0
      ORDER BY s.database, s.role, s.due_at LIMIT 1;
  END IF;
  RETURN FOUND;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_any() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_any() IS
  'internal: is anything due, now or later?';

CREATE FUNCTION dtx._saga_look(saga bigint) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg record;
BEGIN
  SELECT g.state, g.role, g.xmin AS made_by, g.xmax AS locked_by, g AS row INTO sg
    FROM dtx.saga g WHERE g.id = _saga_look.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN _saga_look.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist', _saga_look.saga) END;
  END IF;
  IF NOT pg_has_role(dtx._saga_caller(), sg.role, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga %s', _saga_look.saga);
  END IF;
  IF sg.state NOT IN ('completed', 'compensated') THEN
    PERFORM dtx._saga_check_database(sg.row);
  END IF;
  -- Nobody else can go on with a saga that this transaction has made or locked.
  IF sg.state NOT IN ('completed', 'compensated', 'failed')
    AND (dtx._saga_own_xid(sg.made_by) OR dtx._saga_own_xid(sg.locked_by)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('can''t wait for saga %s in the transaction that has started or changed it', _saga_look.saga),
      HINT = 'Commit first.';
  END IF;
  RETURN sg.state;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_look(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_look(bigint) IS
  'internal: state of a saga for somebody who wants to wait for it';

--
-- Definitions
--
-- A name with a dot is that of an owner and that of a definition; the last dot counts,
-- because definitions have none.  Without a dot, it is that of a definition of one's
-- own.  So nobody can be made to run what a stranger has defined, by means of a name.
--

CREATE FUNCTION dtx._saga_split_name(name text, OUT owner text, OUT bare text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT substring(name from '^(.*)[.][^.]*$'), substring(name from '[^.]*$')
$$;

REVOKE ALL ON FUNCTION dtx._saga_split_name(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_split_name(text) IS
  'internal: the parts of the name of a definition';

CREATE FUNCTION dtx._saga_granted(owner oid, name text, role oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT EXISTS (SELECT FROM dtx.saga_definition_grant g
                  WHERE g.owner = _saga_granted.owner AND g.name = _saga_granted.name
                    AND (g.grantee IS NULL OR pg_has_role(_saga_granted.role, g.grantee, 'USAGE')))
$$;

REVOKE ALL ON FUNCTION dtx._saga_granted(oid, text, oid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_granted(oid, text, oid) IS
  'internal: has the owner of a definition let a role start sagas of it?';

-- For whoever owns what the name means, or will own it.
CREATE FUNCTION dtx._saga_own_name(name text, OUT owner oid, OUT bare text)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  part record;
BEGIN
  part := dtx._saga_split_name(_saga_own_name.name);
  bare := part.bare;
  owner := caller;
  IF part.owner IS NOT NULL THEN
    SELECT r.oid INTO owner FROM pg_authid r WHERE r.rolname = part.owner;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'undefined_object',
        MESSAGE = format('role "%s" does not exist', part.owner),
        DETAIL = format('"%s" is the name of an owner and that of a definition.', _saga_own_name.name);
    ELSIF NOT pg_has_role(caller, owner, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('must be owner of saga definition "%s"', _saga_own_name.name);
    END IF;
  END IF;
  IF coalesce(bare, '') = '' OR length(bare) > 200 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of a saga must have 1 to 200 characters';
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_own_name(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_own_name(text) IS
  'internal: owner and name of a definition that the caller owns, or is going to';

-- For whoever starts a saga.  What a superuser has defined and granted needs no owner's
-- name, because a superuser needs no such trick; but superusers run nothing of others
-- that they have not named.
CREATE FUNCTION dtx._saga_find_definition(name text, version integer) RETURNS dtx.saga_definition
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  is_super boolean := (SELECT r.rolsuper FROM pg_authid r WHERE r.oid = caller);
  part record;
  owners oid[];
  d dtx.saga_definition;
BEGIN
  IF _saga_find_definition.name IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of the saga must not be null';
  END IF;
  part := dtx._saga_split_name(_saga_find_definition.name);
  IF part.owner IS NOT NULL THEN
    owners := ARRAY(SELECT r.oid FROM pg_authid r WHERE r.rolname = part.owner);
  ELSIF is_super OR EXISTS (SELECT FROM dtx.saga_definition x
                             WHERE x.owner = caller AND x.name = part.bare AND NOT x.dropped) THEN
    owners := ARRAY[caller];
  ELSE
    owners := ARRAY(SELECT DISTINCT r.oid
                      FROM pg_authid r
                      JOIN dtx.saga_definition x ON x.owner = r.oid AND x.name = part.bare AND NOT x.dropped
                     WHERE r.rolsuper AND dtx._saga_granted(r.oid, part.bare, caller));
    IF cardinality(owners) > 1 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'ambiguous_alias',
        MESSAGE = format('there are several definitions of a saga "%s"', part.bare),
        HINT = 'Write the name of the owner and a dot before that of the definition.';
    END IF;
  END IF;
  SELECT x.* INTO d
    FROM dtx.saga_definition x
   WHERE x.owner = owners[1] AND x.name = part.bare AND NOT x.dropped
     AND x.version = coalesce(_saga_find_definition.version, x.version)
   ORDER BY x.version DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', _saga_find_definition.name)
                || coalesce(' with version ' || _saga_find_definition.version, ''),
      HINT = coalesce((SELECT format('To use that of role "%s", write "%s.%s".', r.rolname, r.rolname, x.name)
                         FROM dtx.saga_definition x
                         JOIN pg_authid r ON r.oid = x.owner
                        WHERE part.owner IS NULL AND x.owner <> caller AND x.name = part.bare AND NOT x.dropped
                          AND (pg_has_role(caller, r.oid, 'USAGE') OR dtx._saga_granted(r.oid, x.name, caller))
                        ORDER BY r.rolname LIMIT 1),
                      'Define it with dtx.define_saga().');
  ELSIF NOT pg_has_role(caller, d.owner, 'USAGE') AND NOT dtx._saga_granted(d.owner, d.name, caller) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga definition "%s"', _saga_find_definition.name),
      HINT = 'Its owner can grant it with dtx.grant_saga_definition().';
  END IF;
  -- It is not dropped before this transaction is over.
  PERFORM FROM dtx.saga_definition x WHERE x.id = d.id AND NOT x.dropped FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', _saga_find_definition.name);
  END IF;
  RETURN d;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_find_definition(text, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_find_definition(text, integer) IS
  'internal: the definition that the caller means and may use';

CREATE FUNCTION dtx._define_saga(name text, steps dtx.step_spec[]) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record;
  n integer := coalesce(cardinality(steps), 0);
  s dtx.step_spec;
  names text[] := '{}';
  after integer[];
  befores text[] := '{}';       -- for each step, its predecessors as text of an array
  numbers integer[];            -- for each step as given, its number
  given integer[] := '{}';      -- for each number, the step as given
  found_one boolean;
  rows dtx.saga_definition_step[] := '{}';
  r dtx.saga_definition_step;
  old dtx.saga_definition;
  x record;
  server_name name;
  wrapper name;
BEGIN
  own := dtx._saga_own_name(_define_saga.name);
  IF n NOT BETWEEN 1 AND 1000 OR array_ndims(steps) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('saga "%s" must have 1 to 1000 steps', _define_saga.name);
  END IF;

  -- Each step by itself
  FOR i IN 1 .. n LOOP
    s := steps[i];
    IF coalesce(s.name, '') = '' OR length(s.name) > 200 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('name of step %s must have 1 to 200 characters', i);
    ELSIF starts_with(s.name, '_') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'reserved_name',
        MESSAGE = format('name of step "%s" is reserved', s.name),
        DETAIL = 'Names that begin with an underscore are reserved.';
    ELSIF s.name = ANY (names) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'duplicate_object',
        MESSAGE = format('there are two steps "%s"', s.name);
    END IF;
    names := names || s.name;
    IF s.action IS NULL OR s.action NOT IN ('sql', 'sleep', 'signal', 'external') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('step "%s" has an unknown action', s.name),
        HINT = 'Make steps with dtx.step(), dtx.step_sleep(), dtx.step_signal() and dtx.step_external().';
    ELSIF s.action IN ('sql', 'external')
      AND (s.kind IS NULL OR s.kind NOT IN ('compensatable', 'pivot', 'retriable')) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('step "%s" has an unknown kind', s.name),
        HINT = 'Kinds of steps are compensatable, pivot, and retriable.';
    ELSIF s.max_attempts NOT BETWEEN 1 AND 10000 OR s.compensate_attempts NOT BETWEEN 1 AND 10000 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('number of attempts at step "%s" must be from 1 to 10000', s.name);
    ELSIF s.backoff < '0' OR s.delay < '0' OR (s.action = 'sleep' AND s.delay IS NULL)
      OR NOT isfinite(s.backoff) OR NOT isfinite(s.delay) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format(CASE WHEN s.action = 'sleep' THEN 'delay of step "%s" must not be null, infinite, or negative'
                              ELSE 'backoff of step "%s" must not be infinite or negative' END, s.name);
    ELSIF s.action IN ('sql', 'external') AND s.backoff < '10 milliseconds' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('backoff of step "%s" must not be shorter than 10 milliseconds', s.name);
    ELSIF s.timeout <= '0' OR NOT isfinite(s.timeout) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('timeout of step "%s" must be positive and finite', s.name);
    ELSIF greatest(s.backoff, s.delay, s.timeout) > '1000 years' THEN
      -- (what is added to the present time must be a time)
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('times of step "%s" must not be longer than 1000 years', s.name);
    END IF;
    IF s.action = 'sql' THEN
      IF coalesce(cardinality(s."execute"), 0) NOT BETWEEN 1 AND 100 OR array_ndims(s."execute") <> 1 THEN
        RAISE EXCEPTION USING
          ERRCODE = 'invalid_parameter_value',
          MESSAGE = format('step "%s" must have 1 to 100 statements', s.name);
      ELSIF (cardinality(s.servers), cardinality(s.compensate), cardinality(s.min_rows))
         IS DISTINCT FROM (cardinality(s."execute"), cardinality(s."execute"), cardinality(s."execute"))
         OR array_ndims(s.servers) <> 1 OR array_ndims(s.compensate) <> 1 OR array_ndims(s.min_rows) <> 1 THEN
        RAISE EXCEPTION USING
          ERRCODE = 'array_subscript_error',
          MESSAGE = format('step "%s" has arrays of unequal length', s.name);
      END IF;
      FOR j IN 1 .. cardinality(s."execute") LOOP
        IF coalesce(btrim(s."execute"[j], E' \t\r\n;'), '') = '' THEN
          RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('step "%s" has nothing to execute', s.name);
        ELSIF btrim(s.compensate[j], E' \t\r\n;') = '' THEN
          RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('compensation of step "%s" is empty', s.name),
            HINT = 'Null means that there is nothing to undo.';
        ELSIF s.min_rows[j] < 0 THEN
          RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('min_rows of step "%s" must not be negative', s.name);
        END IF;
        server_name := s.servers[j];
        IF server_name IS NOT NULL THEN
          SELECT w.fdwname INTO wrapper
            FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw
           WHERE f.srvname = server_name;
          IF NOT FOUND THEN
            RAISE EXCEPTION USING
              ERRCODE = 'undefined_object',
              MESSAGE = format('server "%s" does not exist', server_name),
              DETAIL = format('It is named in step "%s".', s.name);
          ELSIF wrapper <> 'postgres_fdw' THEN
            RAISE EXCEPTION USING
              ERRCODE = 'wrong_object_type',
              MESSAGE = format('server "%s" is not a server of postgres_fdw', server_name),
              DETAIL = format('It is named in step "%s".', s.name);
          END IF;
        END IF;
      END LOOP;
    END IF;
    IF s.action = 'external' THEN
      -- "dtx:" and the name are a channel of NOTIFY
      IF coalesce(s.queue, '') = '' OR s.compensate_queue = '' OR octet_length(s.queue) > 59
         OR octet_length(s.compensate_queue) > 59 THEN
        RAISE EXCEPTION USING
          ERRCODE = 'invalid_parameter_value',
          MESSAGE = format('name of the queue of step "%s" must have 1 to 59 bytes', s.name);
      END IF;
    END IF;
    IF s.kind IN ('pivot', 'retriable')
       AND (array_remove(s.compensate, NULL) <> '{}' OR s.compensate_queue IS NOT NULL) THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('step "%s" of kind %s can''t have a compensation', s.name, s.kind),
        DETAIL = 'Only compensatable steps are compensated.';
    END IF;
  END LOOP;

  -- What comes after what
  FOR i IN 1 .. n LOOP
    s := steps[i];
    after := '{}';
    IF s.after IS NULL THEN
      IF i > 1 THEN
        after := ARRAY[i - 1];
      END IF;
    ELSE
      FOR j IN 1 .. cardinality(s.after) LOOP
        IF s.after[j] IS NULL OR array_position(names, s.after[j]) IS NULL THEN
          RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = CASE WHEN s.after[j] IS NULL THEN format('names of steps after which step "%s" is to come must not be null', s.name)
                           ELSE format('there is no step "%s", after which step "%s" is to come', s.after[j], s.name) END;
        END IF;
        after := after || array_position(names, s.after[j]);
      END LOOP;
    END IF;
    befores := befores || after::text;
  END LOOP;

  -- Numbers such that each step comes after its predecessors, and otherwise in
  -- the order in which they were given
  numbers := array_fill(NULL::integer, ARRAY[n]);
  FOR number IN 1 .. n LOOP
    found_one := false;
    FOR i IN 1 .. n LOOP
      IF numbers[i] IS NULL
         AND NOT EXISTS (SELECT FROM unnest(befores[i]::integer[]) AS b WHERE numbers[b] IS NULL) THEN
        numbers[i] := number;
        given := given || i;
        found_one := true;
        EXIT;
      END IF;
    END LOOP;
    IF NOT found_one THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('steps of saga "%s" come after each other in a circle', _define_saga.name),
        DETAIL = format('These steps can never begin: %s.',
                        (SELECT string_agg(format('"%s"', names[i]), ', ' ORDER BY i)
                           FROM generate_series(1, n) AS i WHERE numbers[i] IS NULL));
    END IF;
  END LOOP;

  -- The steps as they are stored
  FOR number IN 1 .. n LOOP
    s := steps[given[number]];
    r := NULL;
    r.step := number;
    r.name := s.name;
    r.action := s.action;
    r.after := ARRAY(SELECT DISTINCT numbers[b]::smallint FROM unnest(befores[given[number]]::integer[]) AS b ORDER BY 1);
    r.ancestors := ARRAY(SELECT unnest(r.after)
                         UNION
                         SELECT unnest(p.ancestors) FROM unnest(rows) AS p WHERE p.step = ANY (r.after)
                         ORDER BY 1);
    r.kind := CASE WHEN s.action IN ('sql', 'external') THEN s.kind
                   WHEN EXISTS (SELECT FROM unnest(rows) AS p
                                 WHERE p.step = ANY (r.ancestors) AND p.kind IN ('pivot', 'retriable')) THEN 'retriable'
                   ELSE 'compensatable' END;
    r.max_attempts := coalesce(s.max_attempts, CASE WHEN s.action = 'external' OR r.kind = 'retriable' THEN 20 ELSE 5 END);
    r.compensate_attempts := coalesce(s.compensate_attempts, 20);
    r.backoff := coalesce(s.backoff, '1 second');
    r.timeout := s.timeout;
    IF s.action = 'sql' THEN
      r.servers := s.servers;
      r."execute" := s."execute";
      r.compensate := s.compensate;
      r.min_rows := s.min_rows;
    ELSIF s.action = 'sleep' THEN
      r.delay := s.delay;
    ELSIF s.action = 'external' THEN
      r.queue := s.queue;
      r.payload := s.payload;
      r.compensate_queue := s.compensate_queue;
    END IF;
    rows := rows || r;
  END LOOP;

  -- The point of no return.  Whatever may fail, and would then have the others
  -- compensated, must be before it.
  FOR x IN
    SELECT a.name AS may_fail, a.kind AS may_fail_kind, b.name AS no_return, b.kind AS no_return_kind,
           b.step = ANY (a.ancestors) AS wrong_order
      FROM unnest(rows) AS a, unnest(rows) AS b
     WHERE a.kind IN ('compensatable', 'pivot')
       AND (a.action IN ('sql', 'external') OR a.timeout IS NOT NULL)
       AND b.kind IN ('pivot', 'retriable')
       AND a.step <> b.step
       AND NOT a.step = ANY (b.ancestors)
     ORDER BY a.step, b.step
     LIMIT 1
  LOOP
    IF x.may_fail_kind = 'pivot' AND x.no_return_kind = 'pivot' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('saga "%s" has more than one pivot: "%s" and "%s"',
                         _define_saga.name, least(x.may_fail, x.no_return), greatest(x.may_fail, x.no_return)),
        HINT = 'Statements that must take effect together can be one step, see dtx.statement().';
    ELSE
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format(CASE WHEN x.wrong_order THEN '%s step "%s" comes after %s step "%s"'
                              ELSE '%s step "%s" may run at the same time as %s step "%s"' END,
                         x.may_fail_kind, x.may_fail, x.no_return_kind, x.no_return),
        DETAIL = format('If step "%s" failed, step "%s" could not be undone any more.', x.may_fail, x.no_return);
    END IF;
  END LOOP;

  LOOP
    SELECT d.* INTO old FROM dtx.saga_definition d
     WHERE d.owner = own.owner AND d.name = own.bare ORDER BY d.version DESC LIMIT 1;
    IF FOUND AND NOT old.dropped THEN
      rows := ARRAY(SELECT ROW(old.id, u.step, u.name, u.action, u.kind, u.after, u.ancestors, u.servers, u.execute,
                               u.compensate, u.min_rows, u.max_attempts, u.compensate_attempts, u.backoff, u.timeout,
                               u.delay, u.queue, u.payload, u.compensate_queue)::dtx.saga_definition_step
                      FROM unnest(rows) AS u ORDER BY u.step);
      IF rows = ARRAY(SELECT u FROM dtx.saga_definition_step u WHERE u.definition = old.id ORDER BY u.step) THEN
        RETURN old.version;     -- nothing new
      END IF;
    END IF;
    -- Waits for whoever is doing the same just now, and then looks again.
    INSERT INTO dtx.saga_definition (id, owner, name, version, created_at)
    VALUES (nextval('dtx.saga_definition_id'), own.owner, own.bare, coalesce(old.version, 0) + 1, clock_timestamp())
    ON CONFLICT DO NOTHING
    RETURNING * INTO old;
    EXIT WHEN FOUND;
  END LOOP;
  INSERT INTO dtx.saga_definition_step
  SELECT old.id, u.step, u.name, u.action, u.kind, u.after, u.ancestors, u.servers, u.execute, u.compensate,
         u.min_rows, u.max_attempts, u.compensate_attempts, u.backoff, u.timeout, u.delay, u.queue, u.payload,
         u.compensate_queue
    FROM unnest(rows) AS u;
  RETURN old.version;
END
$$;

REVOKE ALL ON FUNCTION dtx._define_saga(text, dtx.step_spec[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx._define_saga(text, dtx.step_spec[]) IS
  'internal: dtx.define_saga()';

CREATE FUNCTION dtx.define_saga(name text, VARIADIC steps dtx.step_spec[]) RETURNS integer
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.define_saga(text, dtx.step_spec[]) FROM PUBLIC;
COMMENT ON FUNCTION dtx.define_saga(text, dtx.step_spec[]) IS
  'defines a saga, or a new version of it if anything is different; returns the version';

CREATE FUNCTION dtx._grant_saga_definition(name text, grantee name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record;
  role oid;
BEGIN
  own := dtx._saga_own_name(_grant_saga_definition.name);
  IF _grant_saga_definition.grantee IS DISTINCT FROM 'public' THEN
    SELECT r.oid INTO role FROM pg_authid r WHERE r.rolname = _grant_saga_definition.grantee;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'undefined_object',
        MESSAGE = CASE WHEN _grant_saga_definition.grantee IS NULL THEN 'grantee must not be null'
                       ELSE format('role "%s" does not exist', _grant_saga_definition.grantee) END;
    END IF;
  END IF;
  PERFORM FROM dtx.saga_definition d WHERE d.owner = own.owner AND d.name = own.bare AND NOT d.dropped FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', _grant_saga_definition.name);
  END IF;
  INSERT INTO dtx.saga_definition_grant (owner, name, grantee)
  SELECT own.owner, own.bare, role
   WHERE NOT EXISTS (SELECT FROM dtx.saga_definition_grant g
                      WHERE g.owner = own.owner AND g.name = own.bare AND g.grantee IS NOT DISTINCT FROM role);
END
$$;

REVOKE ALL ON FUNCTION dtx._grant_saga_definition(text, name) FROM PUBLIC;
COMMENT ON FUNCTION dtx._grant_saga_definition(text, name) IS
  'internal: dtx.grant_saga_definition()';

CREATE FUNCTION dtx.grant_saga_definition(name text, grantee name) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.grant_saga_definition(text, name) FROM PUBLIC;
COMMENT ON FUNCTION dtx.grant_saga_definition(text, name) IS
  'lets a role, or ''public'', start sagas of a definition of one''s own, all versions, with its own rights';

CREATE FUNCTION dtx._revoke_saga_definition(name text, grantee name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record;
BEGIN
  own := dtx._saga_own_name(_revoke_saga_definition.name);
  DELETE FROM dtx.saga_definition_grant g
   WHERE g.owner = own.owner AND g.name = own.bare
     AND (CASE WHEN g.grantee IS NULL THEN _revoke_saga_definition.grantee = 'public'
               ELSE g.grantee = (SELECT r.oid FROM pg_authid r WHERE r.rolname = _revoke_saga_definition.grantee) END);
END
$$;

REVOKE ALL ON FUNCTION dtx._revoke_saga_definition(text, name) FROM PUBLIC;
COMMENT ON FUNCTION dtx._revoke_saga_definition(text, name) IS
  'internal: dtx.revoke_saga_definition()';

CREATE FUNCTION dtx.revoke_saga_definition(name text, grantee name) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.revoke_saga_definition(text, name) FROM PUBLIC;
COMMENT ON FUNCTION dtx.revoke_saga_definition(text, name) IS
  'takes back what dtx.grant_saga_definition() has granted; sagas that were started go on';

CREATE FUNCTION dtx._drop_saga_definition(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  part record := dtx._saga_split_name(_drop_saga_definition.name);
  own record;
  ids bigint[];
  n bigint;
BEGIN
  IF part.owner = '' AND (SELECT r.rolsuper FROM pg_authid r WHERE r.oid = caller) THEN
    -- Those that belong to nobody.
    ids := ARRAY(SELECT d.id FROM dtx.saga_definition d
                  WHERE d.name = part.bare AND NOT d.dropped
                    AND NOT EXISTS (SELECT FROM pg_authid r WHERE r.oid = d.owner)
                  ORDER BY d.id FOR UPDATE);
  ELSE
    own := dtx._saga_own_name(_drop_saga_definition.name);
    ids := ARRAY(SELECT d.id FROM dtx.saga_definition d
                  WHERE d.owner = own.owner AND d.name = own.bare AND NOT d.dropped
                  ORDER BY d.id FOR UPDATE);
  END IF;
  IF ids = '{}' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', _drop_saga_definition.name);
  END IF;
  SELECT count(*) INTO n FROM dtx.saga g WHERE g.definition = ANY (ids) AND g.finished_at IS NULL;
  IF n > 0 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_in_use',
      MESSAGE = format('cannot drop definition "%s", because %s of its sagas have not ended', _drop_saga_definition.name, n),
      HINT = 'Wait for them, or end them with dtx.cancel_saga() or dtx.force_saga().';
  END IF;
  DELETE FROM dtx.saga_definition_grant x
   USING dtx.saga_definition d
   WHERE d.id = ANY (ids) AND x.owner = d.owner AND x.name = d.name;
  UPDATE dtx.saga_definition SET dropped = true WHERE id = ANY (ids);
  PERFORM dtx._saga_forget_definitions();
END
$$;

REVOKE ALL ON FUNCTION dtx._drop_saga_definition(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._drop_saga_definition(text) IS
  'internal: dtx.drop_saga_definition()';

CREATE FUNCTION dtx.drop_saga_definition(name text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.drop_saga_definition(text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.drop_saga_definition(text) IS
  'drops a definition, all versions; refused while sagas of it have not ended';

-- Of those that were dropped, those that no saga is of any more.
CREATE FUNCTION dtx._saga_forget_definitions() RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM dtx.saga_definition
   WHERE id IN (SELECT d.id FROM dtx.saga_definition d
                 WHERE d.dropped AND NOT EXISTS (SELECT FROM dtx.saga g WHERE g.definition = d.id)
                   FOR UPDATE SKIP LOCKED)      -- others may be doing the same
$$;

REVOKE ALL ON FUNCTION dtx._saga_forget_definitions() FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_forget_definitions() IS
  'internal: forgets definitions that were dropped and are not needed any more';

--
-- Starting, and what can be done to a saga
--

CREATE FUNCTION dtx._start_saga(name text, input jsonb, key text, run_at timestamptz, deadline timestamptz, version integer)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  here oid := dtx._saga_database();
  def dtx.saga_definition;
  id bigint;
  now_at timestamptz := clock_timestamp();
  begin_at timestamptz := greatest(now_at, _start_saga.run_at);
BEGIN
  IF octet_length(_start_saga.key) > 1000 THEN
    -- (it is part of an index)
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'key of a saga must not be longer than 1000 bytes';
  END IF;
  def := dtx._saga_find_definition(_start_saga.name, _start_saga.version);
  IF NOT (SELECT r.rolcanlogin FROM pg_authid r WHERE r.oid = caller) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('role "%s" is not permitted to log in', pg_get_userbyid(caller)),
      DETAIL = 'The steps of a saga run in a session of the role that has started it.',
      HINT = format('ALTER ROLE %I LOGIN, or start the saga as another role.', pg_get_userbyid(caller));
  ELSIF NOT has_database_privilege(caller, current_database(), 'CONNECT') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('role "%s" is not permitted to connect to database "%s"', pg_get_userbyid(caller), current_database()),
      DETAIL = 'The steps of a saga run in a session of the role that has started it.',
      HINT = format('GRANT CONNECT ON DATABASE %I TO %I, or start the saga as another role.', current_database(), pg_get_userbyid(caller));
  END IF;
  IF NOT isfinite(_start_saga.run_at) OR NOT isfinite(_start_saga.deadline) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'times of a saga must be finite';
  ELSIF _start_saga.deadline <= begin_at THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('deadline %s is not after the start of the saga', _start_saga.deadline);
  END IF;
  LOOP
    IF _start_saga.key IS NOT NULL THEN
      SELECT k.saga INTO id FROM dtx.saga_key k
       WHERE k.role = caller AND k.owner = def.owner AND k.name = def.name AND k.key = _start_saga.key;
      IF FOUND THEN
        PERFORM dtx._saga_check_database(g)
           FROM dtx.saga_key k JOIN dtx.saga g ON g.id = k.saga
          WHERE k.role = caller AND k.owner = def.owner AND k.name = def.name AND k.key = _start_saga.key
            AND g.state NOT IN ('completed', 'compensated');
        RETURN id;
      END IF;
    END IF;
    id := nextval('dtx.saga_id');
    EXIT WHEN _start_saga.key IS NULL;
    -- waits for whoever is doing the same just now
    INSERT INTO dtx.saga_key (role, owner, name, key, saga)
    VALUES (caller, def.owner, def.name, _start_saga.key, id)
    ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
  END LOOP;
  INSERT INTO dtx.saga (id, database, definition, role, boot_id, xid, state, started_at)
  VALUES (id, here, def.id, caller, dtx._boot_id(), dtx._saga_xid(), 'pending', now_at);
  INSERT INTO dtx.saga_data (saga, input, key, run_at, deadline)
  VALUES (id, coalesce(_start_saga.input, '{}'), _start_saga.key, _start_saga.run_at, _start_saga.deadline);
  INSERT INTO dtx.saga_step (saga, step, database, role, lane, state, due_at, since)
  SELECT id, d.step, here, caller, dtx._saga_lane(d.servers, d.execute), 'pending', begin_at, now_at
    FROM dtx.saga_definition_step d
   WHERE d.definition = def.id AND d.after = '{}';
  IF _start_saga.deadline IS NOT NULL THEN
    INSERT INTO dtx.saga_step (saga, step, database, role, lane, state, due_at, since)
    VALUES (id, 0, here, caller, 0, 'waiting', _start_saga.deadline, now_at);
  END IF;
  PERFORM dtx._wake_sagas();
  RETURN id;
END
$$;

REVOKE ALL ON FUNCTION dtx._start_saga(text, jsonb, text, timestamptz, timestamptz, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx._start_saga(text, jsonb, text, timestamptz, timestamptz, integer) IS
  'internal: dtx.start_saga()';

CREATE FUNCTION dtx.start_saga(name text, input jsonb DEFAULT '{}', key text DEFAULT NULL,
  run_at timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, version integer DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer) IS
  'starts a saga if this transaction commits, as the current role, and returns its number; with the same key, the same saga';

CREATE FUNCTION dtx.wait_saga(saga bigint, timeout interval DEFAULT NULL) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_wait_saga'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

REVOKE ALL ON FUNCTION dtx.wait_saga(bigint, interval) FROM PUBLIC;
COMMENT ON FUNCTION dtx.wait_saga(bigint, interval) IS
  'waits until a saga is completed or compensated or has failed, not longer than the timeout, and returns its state';

CREATE FUNCTION dtx._cancel_saga(saga bigint, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  blocker text;
BEGIN
  PERFORM dtx._saga_check_reason(reason);
  sg := dtx._saga_lock(_cancel_saga.saga);
  IF sg.state = 'completed' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s is completed already', sg.id);
  ELSIF NOT sg.compensating AND sg.state <> 'compensated' THEN
    blocker := dtx._saga_no_return(sg);
    IF blocker IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = format('saga %s can''t be canceled any more', sg.id),
        DETAIL = format('Step "%s" has begun and can''t be undone.', blocker);
    END IF;
    PERFORM dtx._saga_audit(sg, NULL, 'cancel', 'compensating', reason);
    PERFORM dtx._saga_stop_steps(sg);
    PERFORM dtx._saga_compensate(sg, 'canceled: ' || reason);
    PERFORM dtx._wake_sagas();
  END IF;
  RETURN (SELECT g.state FROM dtx.saga g WHERE g.id = sg.id);
END
$$;

REVOKE ALL ON FUNCTION dtx._cancel_saga(bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._cancel_saga(bigint, text) IS
  'internal: dtx.cancel_saga()';

CREATE FUNCTION dtx.cancel_saga(saga bigint, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.cancel_saga(bigint, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.cancel_saga(bigint, text) IS
  'has a saga compensated, if it has not reached its point of no return, and stops its steps that run; returns its state now';

-- The step of that name, and its row, for operators.
CREATE FUNCTION dtx._saga_find_step(sg dtx.saga, name text) RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  step smallint;
BEGIN
  SELECT d.step INTO step FROM dtx.saga_definition_step d
   WHERE d.definition = sg.definition AND d.name = _saga_find_step.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN _saga_find_step.name IS NULL THEN 'name of the step must not be null'
                     ELSE format('saga %s has no step "%s"', sg.id, _saga_find_step.name) END;
  END IF;
  RETURN step;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_find_step(dtx.saga, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_find_step(dtx.saga, text) IS
  'internal: number of a step';

-- After an operator has dealt with what had failed.
CREATE FUNCTION dtx._saga_revive(sg dtx.saga) RETURNS dtx.saga
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF sg.state = 'failed'
     AND NOT EXISTS (SELECT FROM dtx.saga_step s
                      WHERE s.saga = sg.id AND s.state = 'failed' AND s.compensation = sg.compensating) THEN
    sg.state := CASE WHEN sg.compensating THEN 'compensating' ELSE 'running' END;
    UPDATE dtx.saga SET state = sg.state WHERE id = sg.id;
    UPDATE dtx.saga_data SET failure = NULL WHERE saga = sg.id;
  END IF;
  RETURN sg;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_revive(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_revive(dtx.saga) IS
  'internal: a saga that had failed goes on, if nothing that has failed is left';

CREATE FUNCTION dtx._saga_check_unfinished(sg dtx.saga) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF sg.state IN ('completed', 'compensated') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s is %s already', sg.id, sg.state);
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_check_unfinished(dtx.saga) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_check_unfinished(dtx.saga) IS
  'internal: an error if a saga has come to its end';

CREATE FUNCTION dtx._retry_saga(saga bigint) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  n integer;
  total integer := 0;
BEGIN
  sg := dtx._saga_lock(_retry_saga.saga);
  PERFORM dtx._saga_check_unfinished(sg);
  -- what waits for its next attempt
  UPDATE dtx.saga_external AS e
     SET available_at = clock_timestamp()
   WHERE e.saga = sg.id AND e.token IS NULL AND e.available_at > clock_timestamp();
  UPDATE dtx.saga_step AS s
     SET due_at = clock_timestamp()
   WHERE s.saga = sg.id AND s.step > 0 AND NOT s.taken AND s.attempt > 0 AND s.due_at > clock_timestamp()
     AND (s.state IN ('pending', 'compensating')
          OR (s.state = 'waiting' AND EXISTS (SELECT FROM dtx.saga_external e
                                               WHERE e.saga = s.saga AND e.step = s.step AND e.token IS NULL)));
  GET DIAGNOSTICS n = ROW_COUNT;
  total := total + n;
  -- what has failed
  IF sg.state = 'failed' THEN
    UPDATE dtx.saga_step AS s
       SET state = CASE WHEN s.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
           attempt = 0, due_at = clock_timestamp(), since = clock_timestamp()
     WHERE s.saga = sg.id AND s.state = 'failed' AND s.compensation = sg.compensating;
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
  END IF;
  IF total = 0 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('no step of saga %s has failed or waits to be tried again', sg.id);
  END IF;
  sg := dtx._saga_revive(sg);
  PERFORM dtx._saga_audit(sg, NULL, 'retry', sg.state::text, NULL);
  PERFORM dtx._wake_sagas();
  RETURN sg.state;
END
$$;

REVOKE ALL ON FUNCTION dtx._retry_saga(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx._retry_saga(bigint) IS
  'internal: dtx.retry_saga()';

CREATE FUNCTION dtx.retry_saga(saga bigint) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.retry_saga(bigint) FROM PUBLIC;
COMMENT ON FUNCTION dtx.retry_saga(bigint) IS
  'tries again, with all attempts, what has failed, and at once what waits for its next attempt; returns the state of the saga';

CREATE FUNCTION dtx._skip_step(saga bigint, step text, reason text, result jsonb) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
  number smallint;
BEGIN
  PERFORM dtx._saga_check_reason(reason);
  sg := dtx._saga_lock(_skip_step.saga);
  number := dtx._saga_find_step(sg, _skip_step.step);
  PERFORM dtx._saga_check_unfinished(sg);
  -- (rows of dtx.saga_external come before those of dtx.saga_step)
  PERFORM FROM dtx.saga_external e WHERE e.saga = sg.id AND e.step = number FOR UPDATE;
  SELECT s.* INTO st FROM dtx.saga_step s WHERE s.saga = sg.id AND s.step = number FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('step "%s" has not begun yet', _skip_step.step);
  ELSIF st.taken THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_in_use',
      MESSAGE = format('step "%s" is being executed', _skip_step.step);
  ELSIF NOT (CASE WHEN sg.compensating
                  THEN st.state IN ('completed', 'compensating') OR (st.state = 'failed' AND st.compensation)
                  ELSE st.state IN ('pending', 'waiting', 'failed') END) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format(CASE WHEN sg.compensating THEN 'step "%s" is %s, so there is nothing to skip on the way back'
                            ELSE 'step "%s" is %s already' END, _skip_step.step, st.state);
  ELSIF sg.compensating AND _skip_step.result IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a compensation has no result';
  ELSIF NOT sg.compensating
    AND EXISTS (SELECT
                  FROM dtx.saga_definition_step d
                  LEFT JOIN dtx.saga_step p ON p.saga = sg.id AND p.step = ANY (d.after)
                 WHERE d.definition = sg.definition AND d.step = number
                   AND NOT CASE WHEN d.after = '{}' THEN dtx._saga_confirmed(sg.boot_id, sg.xid)
                                ELSE dtx._saga_confirmed(p.boot_id, p.xid) END) THEN
    -- What comes next asks for this step only.
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('what was done before step "%s" is not confirmed by all servers yet', _skip_step.step),
      HINT = 'See view dtx.in_doubt.';
  ELSIF sg.compensating
    AND EXISTS (SELECT
                  FROM dtx.saga_step p
                  JOIN dtx.saga_definition_step d ON d.definition = sg.definition AND d.step = p.step
                 WHERE p.saga = sg.id AND (p.step = number OR number = ANY (d.after))
                   AND NOT dtx._saga_confirmed(p.boot_id, p.xid)) THEN
    -- Likewise on the way back, and what this step itself has done counts, too.
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('step "%s", or one after it, is not confirmed by all servers yet', _skip_step.step),
      HINT = 'See view dtx.in_doubt.';
  END IF;
  PERFORM dtx._saga_check_result(sg, _skip_step.result);
  DELETE FROM dtx.saga_external e WHERE e.saga = sg.id AND e.step = number;
  UPDATE dtx.saga_step
     SET state = 'skipped', doubt = false, due_at = NULL, since = clock_timestamp(),
         boot_id = dtx._boot_id(), xid = dtx._saga_xid()
   WHERE saga = sg.id AND step = number;
  IF result IS NOT NULL THEN
    INSERT INTO dtx.saga_result (saga, step, result) VALUES (sg.id, number, _skip_step.result);
  END IF;
  IF sg.state = 'pending' THEN
    sg.state := 'running';
    UPDATE dtx.saga SET state = 'running' WHERE id = sg.id;
  END IF;
  sg := dtx._saga_revive(sg);
  PERFORM dtx._saga_audit(sg, number, 'skip', sg.state::text, reason);
  IF sg.compensating THEN
    PERFORM dtx._saga_unwind(sg);
  ELSE
    PERFORM dtx._saga_advance(sg, number);
  END IF;
  PERFORM dtx._wake_sagas();
  RETURN (SELECT g.state FROM dtx.saga g WHERE g.id = sg.id);
END
$$;

REVOKE ALL ON FUNCTION dtx._skip_step(bigint, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx._skip_step(bigint, text, text, jsonb) IS
  'internal: dtx.skip_step()';

CREATE FUNCTION dtx.skip_step(saga bigint, step text, reason text, result jsonb DEFAULT NULL) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.skip_step(bigint, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx.skip_step(bigint, text, text, jsonb) IS
  'goes on as if a step that has begun had been done, with this result; or its compensation, on the way back; returns the state of the saga';

CREATE FUNCTION dtx._force_saga(saga bigint, state dtx.saga_state, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
BEGIN
  PERFORM dtx._saga_check_reason(reason);
  IF _force_saga.state IS NULL OR _force_saga.state NOT IN ('completed', 'compensated', 'compensating') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a saga can be forced to be completed, compensated, or compensating only';
  END IF;
  sg := dtx._saga_lock(_force_saga.saga, _force_saga.state <> 'compensating');
  PERFORM dtx._saga_check_unfinished(sg);
  PERFORM dtx._saga_stop_steps(sg);
  IF _force_saga.state = 'compensating' THEN
    IF sg.compensating THEN
      RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = format('saga %s is compensating already', sg.id);
    END IF;
    PERFORM dtx._saga_audit(sg, NULL, 'force', _force_saga.state::text, reason);
    PERFORM dtx._saga_compensate(sg, 'forced: ' || reason);
  ELSE
    -- Whoever has a step in hands will find that it is not his any more, and
    -- roll back.
    PERFORM dtx._saga_audit(sg, NULL, 'force', _force_saga.state::text, reason);
    DELETE FROM dtx.saga_external WHERE saga = sg.id;
    UPDATE dtx.saga_step AS s
       SET state = 'skipped', taken = false, doubt = false, due_at = NULL, since = clock_timestamp()
     WHERE s.saga = sg.id AND s.step > 0
       AND (s.state IN ('pending', 'running', 'waiting', 'compensating')
            OR (s.state = 'failed' AND s.compensation = sg.compensating));
    PERFORM dtx._saga_end(sg, _force_saga.state, 'forced: ' || reason);
  END IF;
  PERFORM dtx._wake_sagas();
  RETURN (SELECT g.state FROM dtx.saga g WHERE g.id = sg.id);
END
$$;

REVOKE ALL ON FUNCTION dtx._force_saga(bigint, dtx.saga_state, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx._force_saga(bigint, dtx.saga_state, text) IS
  'internal: dtx.force_saga()';

CREATE FUNCTION dtx.force_saga(saga bigint, state dtx.saga_state, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.force_saga(bigint, dtx.saga_state, text) FROM PUBLIC;
COMMENT ON FUNCTION dtx.force_saga(bigint, dtx.saga_state, text) IS
  'ends a saga as it is (completed or compensated), or turns it back even after its point of no return (compensating); stops its steps that run';

CREATE FUNCTION dtx._signal_saga(saga bigint, name text, payload jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.saga;
  st dtx.saga_step;
  number smallint;
BEGIN
  sg := dtx._saga_lock(_signal_saga.saga);
  number := dtx._saga_find_step(sg, _signal_saga.name);
  IF NOT EXISTS (SELECT FROM dtx.saga_definition_step d
                  WHERE d.definition = sg.definition AND d.step = number AND d.action = 'signal') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'wrong_object_type',
      MESSAGE = format('step "%s" does not wait for a signal', _signal_saga.name);
  END IF;
  SELECT s.* INTO st FROM dtx.saga_step s WHERE s.saga = sg.id AND s.step = number FOR UPDATE;
  IF sg.compensating OR sg.state IN ('completed', 'compensated') OR st.state NOT IN ('pending', 'waiting', 'failed') THEN
    RETURN false;               -- too late
  END IF;
  PERFORM dtx._saga_check_result(sg, _signal_saga.payload);
  -- The first one counts.
  INSERT INTO dtx.saga_signal (saga, name, payload, received_at)
  VALUES (sg.id, _signal_saga.name, _signal_saga.payload, clock_timestamp())
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  IF st.state = 'waiting' THEN
    PERFORM dtx._saga_succeeded(sg, st, payload, st.since, dtx._saga_caller()::regrole::text);
    PERFORM dtx._wake_sagas();
  END IF;
  RETURN true;
END
$$;

REVOKE ALL ON FUNCTION dtx._signal_saga(bigint, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx._signal_saga(bigint, text, jsonb) IS
  'internal: dtx.signal_saga()';

CREATE FUNCTION dtx.signal_saga(saga bigint, name text, payload jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.signal_saga(bigint, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx.signal_saga(bigint, text, jsonb) IS
  'gives a saga the signal that its step of that name waits for, or will wait for; false if it has got one already, or needs none any more';

--
-- External workers
--

CREATE FUNCTION dtx._claim(queue text, worker text, lease interval, n integer)
RETURNS TABLE (token uuid, saga bigint, name text, step text, action text, attempt integer,
  payload jsonb, input jsonb, results jsonb, lease_until timestamptz)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  roles oid[];
  this_role oid;
  due record;
  sg dtx.saga;
  st dtx.saga_step;
  d dtx.saga_definition_step;
  e dtx.saga_external;
  now_at timestamptz := clock_timestamp();
  here oid := dtx._saga_active_database();
  got integer := 0;
BEGIN
  IF coalesce(_claim.queue, '') = '' OR coalesce(_claim.worker, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'names of queue and worker are required';
  ELSIF _claim.lease IS NULL OR _claim.lease <= '0' OR NOT isfinite(_claim.lease) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'lease must be positive and finite';
  ELSIF _claim.n IS NULL OR _claim.n NOT BETWEEN 1 AND 1000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'number of steps to claim must be from 1 to 1000';
  END IF;
  -- Whose steps may he have?  Begin with the role that has waited longest.
  WITH RECURSIVE r (role) AS (
    (SELECT x.role FROM dtx.saga_external x WHERE x.database = here ORDER BY x.database, x.role LIMIT 1)
    UNION ALL
    SELECT (SELECT x.role FROM dtx.saga_external x WHERE x.database = here AND x.role > r.role
             ORDER BY x.database, x.role LIMIT 1)
      FROM r WHERE r.role IS NOT NULL)
  SELECT array_agg(r.role::oid ORDER BY h.available_at) INTO roles
    FROM r
    CROSS JOIN LATERAL (SELECT x.available_at FROM dtx.saga_external x
                         WHERE x.database = here AND x.role = r.role AND x.queue = _claim.queue
                         ORDER BY x.database, x.role, x.queue, x.available_at LIMIT 1) AS h
   WHERE pg_has_role(caller, r.role, 'USAGE');
  FOREACH this_role IN ARRAY coalesce(roles, '{}') LOOP
    FOR due IN
      SELECT x.saga, x.step
        FROM dtx.saga_external x
       WHERE x.database = here AND x.role = this_role AND x.queue = _claim.queue AND x.available_at <= now_at
       ORDER BY x.database, x.role, x.queue, x.available_at
       LIMIT _claim.n + 5000    -- others may have locked some of them; rows are read as they are needed
    LOOP
      SELECT g.* INTO sg FROM dtx.saga g WHERE g.id = due.saga FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      SELECT x.* INTO e FROM dtx.saga_external x
       WHERE x.saga = due.saga AND x.step = due.step FOR UPDATE;
      CONTINUE WHEN NOT FOUND OR e.queue <> _claim.queue OR e.available_at > clock_timestamp();
      SELECT s.* INTO STRICT st FROM dtx.saga_step s WHERE s.saga = due.saga AND s.step = due.step FOR UPDATE;
      IF e.token IS NOT NULL THEN
        -- The lease of another worker is over; it may have been the last attempt.
        PERFORM dtx._saga_lease_lost(sg, st, e);
        SELECT x.* INTO e FROM dtx.saga_external x WHERE x.saga = due.saga AND x.step = due.step;
        CONTINUE WHEN NOT FOUND;
        SELECT s.* INTO STRICT st FROM dtx.saga_step s WHERE s.saga = due.saga AND s.step = due.step;
      END IF;
      SELECT a.* INTO STRICT d FROM dtx.saga_definition_step a
       WHERE a.definition = sg.definition AND a.step = st.step;
      now_at := clock_timestamp();
      CONTINUE WHEN NOT st.compensation AND st.since + d.timeout <= now_at;
      token := gen_random_uuid();
      saga := sg.id;
      SELECT f.name INTO name FROM dtx.saga_definition f WHERE f.id = sg.definition;
      step := d.name;
      action := CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END;
      attempt := st.attempt + 1;
      payload := d.payload;
      SELECT x.input INTO input FROM dtx.saga_data x WHERE x.saga = sg.id;
      results := dtx._saga_results(sg.id, sg.definition);
      lease_until := now_at + _claim.lease;
      UPDATE dtx.saga_external AS x
         SET token = _claim.token, worker = _claim.worker, lease = _claim.lease,
             claimed_at = now_at, available_at = _claim.lease_until
       WHERE x.saga = sg.id AND x.step = st.step;
      UPDATE dtx.saga_step AS s
         SET attempt = st.attempt + 1,
             due_at = least(_claim.lease_until, CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
       WHERE s.saga = sg.id AND s.step = st.step;
      RETURN NEXT;
      got := got + 1;
      EXIT WHEN got >= _claim.n;
    END LOOP;
    EXIT WHEN got >= _claim.n;
  END LOOP;
  IF got > 0 THEN
    PERFORM dtx._wake_sagas();
  END IF;
END
$$;

REVOKE ALL ON FUNCTION dtx._claim(text, text, interval, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx._claim(text, text, interval, integer) IS
  'internal: dtx.claim()';

CREATE FUNCTION dtx.claim(queue text, worker text, lease interval DEFAULT '1 minute', n integer DEFAULT 1)
RETURNS TABLE (token uuid, saga bigint, name text, step text, action text, attempt integer,
  payload jsonb, input jsonb, results jsonb, lease_until timestamptz)
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1;

REVOKE ALL ON FUNCTION dtx.claim(text, text, interval, integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx.claim(text, text, interval, integer) IS
  'gives an external worker up to n steps, or compensations, from a queue, for the time of the lease';

-- What a token stands for, locked, if its lease still lasts.
CREATE FUNCTION dtx._saga_token(token uuid, OUT sg dtx.saga, OUT st dtx.saga_step, OUT e dtx.saga_external)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
  IF _saga_token.token IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'token must not be null';
  END IF;
  SELECT x.* INTO e FROM dtx.saga_external x WHERE x.token = _saga_token.token;
  IF FOUND THEN
    sg := dtx._saga_lock(e.saga);
    SELECT x.* INTO e FROM dtx.saga_external x
     WHERE x.saga = e.saga AND x.step = e.step AND x.token = _saga_token.token FOR UPDATE;
    IF FOUND AND e.available_at > clock_timestamp() THEN
      SELECT s.* INTO STRICT st FROM dtx.saga_step s WHERE s.saga = e.saga AND s.step = e.step FOR UPDATE;
      RETURN;
    END IF;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'object_not_in_prerequisite_state',
    MESSAGE = 'lease has been lost',
    DETAIL = format('The token %s is not valid, or not valid any more.', _saga_token.token),
    HINT = 'Nothing was changed. Somebody else may do this step now.';
END
$$;

REVOKE ALL ON FUNCTION dtx._saga_token(uuid) FROM PUBLIC;
COMMENT ON FUNCTION dtx._saga_token(uuid) IS
  'internal: what an external worker has claimed, locked; an error if the lease is over';

CREATE FUNCTION dtx._heartbeat(token uuid, lease interval) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
  lease_until timestamptz;
BEGIN
  IF _heartbeat.lease <= '0' OR NOT isfinite(_heartbeat.lease) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'lease must be positive and finite';
  END IF;
  t := dtx._saga_token(_heartbeat.token);
  lease_until := clock_timestamp() + coalesce(_heartbeat.lease, (t.e).lease);
  -- When the step becomes due at the old end of the lease, the new one is seen.
  UPDATE dtx.saga_external AS x
     SET available_at = lease_until, lease = coalesce(_heartbeat.lease, x.lease)
   WHERE x.saga = (t.sg).id AND x.step = (t.st).step;
  IF lease_until < (t.st).due_at THEN
    UPDATE dtx.saga_step AS s SET due_at = lease_until WHERE s.saga = (t.sg).id AND s.step = (t.st).step;
    PERFORM dtx._wake_sagas();
  END IF;
  RETURN lease_until;
END
$$;

REVOKE ALL ON FUNCTION dtx._heartbeat(uuid, interval) FROM PUBLIC;
COMMENT ON FUNCTION dtx._heartbeat(uuid, interval) IS
  'internal: dtx.heartbeat()';

CREATE FUNCTION dtx.heartbeat(token uuid, lease interval DEFAULT NULL) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.heartbeat(uuid, interval) FROM PUBLIC;
COMMENT ON FUNCTION dtx.heartbeat(uuid, interval) IS
  'begins the lease of an external worker anew, and returns its end; an error if it is over';

CREATE FUNCTION dtx._complete(token uuid, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
BEGIN
  t := dtx._saga_token(_complete.token);
  IF NOT (t.st).compensation THEN
    PERFORM dtx._saga_check_result(t.sg, _complete.result);
  END IF;
  DELETE FROM dtx.saga_external x WHERE x.saga = (t.sg).id AND x.step = (t.st).step;
  PERFORM dtx._saga_succeeded(t.sg, t.st, result, (t.e).claimed_at, (t.e).worker);
  PERFORM dtx._wake_sagas();
END
$$;

REVOKE ALL ON FUNCTION dtx._complete(uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx._complete(uuid, jsonb) IS
  'internal: dtx.complete()';

CREATE FUNCTION dtx.complete(token uuid, result jsonb DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.complete(uuid, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION dtx.complete(uuid, jsonb) IS
  'an external worker has done what it has claimed, if this transaction commits; an error if its lease is over';

CREATE FUNCTION dtx._fail(token uuid, error text, retry boolean) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
BEGIN
  IF coalesce(btrim(_fail.error), '') = '' OR _fail.retry IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'error and retry must not be null, nor error empty';
  END IF;
  t := dtx._saga_token(_fail.token);
  PERFORM dtx._saga_attempt_failed(t.sg, t.st, 'failed', _fail.retry, NOT _fail.retry, NULL, _fail.error, NULL, NULL,
                                   (t.e).claimed_at, (t.e).worker);
  PERFORM dtx._wake_sagas();
END
$$;

REVOKE ALL ON FUNCTION dtx._fail(uuid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx._fail(uuid, text, boolean) IS
  'internal: dtx.fail()';

CREATE FUNCTION dtx.fail(token uuid, error text, retry boolean DEFAULT true) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.fail(uuid, text, boolean) FROM PUBLIC;
COMMENT ON FUNCTION dtx.fail(uuid, text, boolean) IS
  'an external worker has not been able to do what it has claimed, and nothing of it was done; retry false: it will never be; an error if its lease is over';

--
-- Events
--

-- For each role by itself, so that one with many events is in nobody's way.
CREATE FUNCTION dtx._take_events(n integer)
RETURNS TABLE (id bigint, saga bigint, owner name, name text, role name, event text, at timestamptz, payload jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  this_id bigint;
  o dtx.saga_outbox;
  got integer := 0;
  beyond bigint := -1;   -- has looked at all events up to this one
  ids bigint[];
  most integer;
BEGIN
  IF _take_events.n IS NULL OR _take_events.n NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'number of events to take must be from 1 to 10000';
  END IF;
  -- Others may have taken any number of them, so in portions: of each role the next ones,
  -- and of all of these as many as no role can have others between.
  most := _take_events.n + 1000;
  LOOP
    WITH RECURSIVE r (role) AS (
      (SELECT x.role FROM dtx.saga_outbox x ORDER BY x.role, x.id LIMIT 1)
      UNION ALL
      SELECT (SELECT x.role FROM dtx.saga_outbox x WHERE x.role > r.role ORDER BY x.role, x.id LIMIT 1)
        FROM r WHERE r.role IS NOT NULL),
    w AS MATERIALIZED (
      SELECT e.ids
        FROM r
        CROSS JOIN LATERAL (SELECT array_agg(y.id ORDER BY y.id) AS ids
                              FROM (SELECT x.id FROM dtx.saga_outbox x WHERE x.role = r.role AND x.id > beyond
                                     ORDER BY x.role, x.id LIMIT most) AS y) AS e
       WHERE r.role IS NOT NULL AND pg_has_role(caller, r.role, 'USAGE')),
    b AS (SELECT min(w.ids[most]) AS id FROM w)
    SELECT (SELECT array_agg(u.id ORDER BY u.id)
              FROM w CROSS JOIN LATERAL unnest(w.ids) AS u (id)
             WHERE b.id IS NULL OR u.id <= b.id), b.id
      INTO ids, beyond FROM b;
    FOREACH this_id IN ARRAY coalesce(ids, '{}') LOOP
      SELECT x.* INTO o FROM dtx.saga_outbox x WHERE x.id = this_id FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND;
      DELETE FROM dtx.saga_outbox x WHERE x.id = o.id;
      id := o.id;
      saga := o.saga;
      owner := (SELECT u.rolname FROM pg_roles u WHERE u.oid = o.owner);
      name := o.name;
      role := (SELECT u.rolname FROM pg_roles u WHERE u.oid = o.role);
      event := o.event;
      at := o.at;
      payload := o.payload;
      RETURN NEXT;
      got := got + 1;
      IF got >= _take_events.n THEN
        RETURN;
      END IF;
    END LOOP;
    EXIT WHEN beyond IS NULL;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION dtx._take_events(integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx._take_events(integer) IS
  'internal: dtx.take_events()';

CREATE FUNCTION dtx.take_events(n integer DEFAULT 100)
RETURNS TABLE (id bigint, saga bigint, owner name, name text, role name, event text, at timestamptz, payload jsonb)
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

REVOKE ALL ON FUNCTION dtx.take_events(integer) FROM PUBLIC;
COMMENT ON FUNCTION dtx.take_events(integer) IS
  'takes up to n events of one''s sagas, the oldest that nobody else takes just now, if this transaction commits';

--
-- Views.  Users see their own sagas, that is, those of roles whose privileges they
-- have.  Members of pg_monitor see that there are others, and how they do, but nothing
-- that users have put into them.
--

CREATE VIEW dtx.saga_definitions WITH (security_barrier) AS
  SELECT d.name,
         d.version,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.created_at,
         ARRAY(SELECT s.name FROM dtx.saga_definition_step AS s WHERE s.definition = d.id ORDER BY s.step) AS steps,
         ARRAY(SELECT COALESCE(r.rolname, 'public')
                 FROM dtx.saga_definition_grant AS g
                 LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
                WHERE g.owner = d.owner AND g.name = d.name AND (g.grantee IS NULL OR r.oid IS NOT NULL)
                ORDER BY 1) AS granted_to
    FROM dtx.saga_definition AS d
   WHERE NOT d.dropped
     AND (pg_catalog.pg_has_role(d.owner, 'USAGE')
          OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
          OR EXISTS (SELECT FROM dtx.saga_definition_grant AS g
                      WHERE g.owner = d.owner AND g.name = d.name
                        AND (g.grantee IS NULL OR pg_catalog.pg_has_role(g.grantee, 'USAGE'))));

REVOKE ALL ON dtx.saga_definitions FROM PUBLIC;
GRANT SELECT ON dtx.saga_definitions TO PUBLIC;
COMMENT ON VIEW dtx.saga_definitions IS
  'definitions of sagas, all versions; one''s own, and those that one may use; members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_definitions.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definitions.version IS
  'version; the highest one is used by sagas that start now';
COMMENT ON COLUMN dtx.saga_definitions.owner IS
  'who may define the next version, and let others use it; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_definitions.granted_to IS
  'who else may start sagas of it, by dtx.grant_saga_definition()';
COMMENT ON COLUMN dtx.saga_definitions.created_at IS
  'when this version was defined';
COMMENT ON COLUMN dtx.saga_definitions.steps IS
  'names of its steps; dtx.explain_saga(name) tells more';

CREATE VIEW dtx.saga_definition_steps WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.name,
         d.version,
         s.step AS position,
         s.name AS step,
         s.action,
         s.kind,
         ARRAY(SELECT p.name FROM dtx.saga_definition_step AS p
                WHERE p.definition = d.id AND p.step = ANY (s.after) ORDER BY p.step) AS after,
         s.servers,
         s.execute,
         s.compensate,
         s.min_rows,
         s.max_attempts,
         s.compensate_attempts,
         s.backoff,
         s.timeout,
         s.delay,
         s.queue,
         s.payload,
         s.compensate_queue
    FROM dtx.saga_definition AS d
    JOIN dtx.saga_definition_step AS s ON s.definition = d.id
   WHERE NOT d.dropped
     AND (pg_catalog.pg_has_role(d.owner, 'USAGE')
          OR EXISTS (SELECT FROM dtx.saga_definition_grant AS g
                      WHERE g.owner = d.owner AND g.name = d.name
                        AND (g.grantee IS NULL OR pg_catalog.pg_has_role(g.grantee, 'USAGE'))));

REVOKE ALL ON dtx.saga_definition_steps FROM PUBLIC;
GRANT SELECT ON dtx.saga_definition_steps TO PUBLIC;
COMMENT ON VIEW dtx.saga_definition_steps IS
  'steps of definitions of sagas, all versions; of one''s own, and of those that one may use';
COMMENT ON COLUMN dtx.saga_definition_steps.owner IS
  'owner of the definition; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_definition_steps.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definition_steps.version IS
  'its version';
COMMENT ON COLUMN dtx.saga_definition_steps.position IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.saga_definition_steps.step IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_definition_steps.action IS
  'sql, sleep, signal, or external';
COMMENT ON COLUMN dtx.saga_definition_steps.kind IS
  'compensatable, pivot, or retriable';
COMMENT ON COLUMN dtx.saga_definition_steps.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.saga_definition_steps.servers IS
  'foreign server of each statement; null: the coordinator';
COMMENT ON COLUMN dtx.saga_definition_steps.execute IS
  'the statements';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate IS
  'what undoes each statement; null: nothing to undo';
COMMENT ON COLUMN dtx.saga_definition_steps.min_rows IS
  'rows that each statement must affect or return at least; null: any number';
COMMENT ON COLUMN dtx.saga_definition_steps.max_attempts IS
  'the step fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate_attempts IS
  'its compensation fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_steps.backoff IS
  'pause after the first failed attempt; it doubles with each one, up to ten minutes';
COMMENT ON COLUMN dtx.saga_definition_steps.timeout IS
  'longest time of an attempt, or of a wait; null: any time';
COMMENT ON COLUMN dtx.saga_definition_steps.delay IS
  'time that a step of action sleep lets pass';
COMMENT ON COLUMN dtx.saga_definition_steps.queue IS
  'queue of a step of action external';
COMMENT ON COLUMN dtx.saga_definition_steps.payload IS
  'what the worker that claims it is given besides input and results';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate_queue IS
  'queue of its compensation; null: nothing to undo';

CREATE VIEW dtx.sagas WITH (security_barrier) AS
  SELECT g.id,
         d.name,
         d.version,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.key END AS key,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = g.role) AS role,
         g.state,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.input END AS input,
         g.started_at,
         x.run_at,
         x.deadline,
         g.finished_at,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN NULLIF(pg_catalog.concat_ws('; ', x.reason, x.failure), '') END AS reason,
         CASE WHEN g.state NOT IN ('completed', 'compensated') AND g.database <> h.oid THEN
           pg_catalog.format(
             'It belongs to database %2$s, of which this one is a copy, and goes on there only. To end it here, SELECT dtx.force_saga(%1$s, ''compensated'', ''why''), which changes nothing there.',
             g.id,
             COALESCE((SELECT pg_catalog.format('"%s"', o.datname) FROM pg_catalog.pg_database AS o WHERE o.oid = g.database),
                      pg_catalog.format('%s, which has been dropped', g.database)))
              WHEN g.state = 'failed' THEN
           pg_catalog.format(
             CASE WHEN g.compensating
                  THEN 'Remove the cause and SELECT dtx.retry_saga(%1$s); or undo it by hand and SELECT dtx.skip_step(%1$s, %2$L, ''why''); or end the saga with dtx.force_saga(%1$s, ''compensated'', ''why'').'
                  ELSE 'Remove the cause and SELECT dtx.retry_saga(%1$s); or do it by hand and SELECT dtx.skip_step(%1$s, %2$L, ''why''); or turn back with dtx.force_saga(%1$s, ''compensating'', ''why'').' END,
             g.id,
             (SELECT p.name
                FROM dtx.saga_step AS s
                JOIN dtx.saga_definition_step AS p ON p.definition = g.definition AND p.step = s.step
               WHERE s.saga = g.id AND s.state = 'failed' AND s.compensation = g.compensating
               ORDER BY s.since
               LIMIT 1))
         END AS hint
    FROM dtx.saga AS g
    JOIN dtx.saga_data AS x ON x.saga = g.id
    JOIN dtx.saga_definition AS d ON d.id = g.definition
    JOIN pg_catalog.pg_database AS h ON h.datname = pg_catalog.current_database()
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

REVOKE ALL ON dtx.sagas FROM PUBLIC;
GRANT SELECT ON dtx.sagas TO PUBLIC;
COMMENT ON VIEW dtx.sagas IS
  'sagas; one''s own, and for members of pg_monitor all others, without what users have put into them (key, input, reason)';
COMMENT ON COLUMN dtx.sagas.id IS
  'number of the saga';
COMMENT ON COLUMN dtx.sagas.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.sagas.version IS
  'version of its definition';
COMMENT ON COLUMN dtx.sagas.owner IS
  'owner of its definition; null: that role was dropped';
COMMENT ON COLUMN dtx.sagas.key IS
  'key with which it was started';
COMMENT ON COLUMN dtx.sagas.role IS
  'role that has started it, as which its steps run; null: it was dropped';
COMMENT ON COLUMN dtx.sagas.state IS
  'pending, running, completed, compensating, compensated; failed: only an operator can decide how to go on';
COMMENT ON COLUMN dtx.sagas.input IS
  'its input';
COMMENT ON COLUMN dtx.sagas.started_at IS
  'when dtx.start_saga() was called';
COMMENT ON COLUMN dtx.sagas.run_at IS
  'not begun before; null: at once';
COMMENT ON COLUMN dtx.sagas.deadline IS
  'compensated if it has not reached its point of no return until then; null: any time';
COMMENT ON COLUMN dtx.sagas.finished_at IS
  'when it was completed or compensated';
COMMENT ON COLUMN dtx.sagas.reason IS
  'why it compensates, has failed, or was forced';
COMMENT ON COLUMN dtx.sagas.hint IS
  'what to do, if it has failed, or belongs to the database that this one is a copy of';

CREATE VIEW dtx.saga_steps WITH (security_barrier) AS
  SELECT g.id AS saga,
         d.step AS position,
         d.name AS step,
         d.action,
         d.kind,
         ARRAY(SELECT p.name FROM dtx.saga_definition_step AS p
                WHERE p.definition = d.definition AND p.step = ANY (d.after) ORDER BY p.step) AS after,
         d.servers,
         COALESCE(s.state,
           CASE WHEN g.state IN ('pending', 'running', 'failed') AND NOT g.compensating
                THEN 'pending' ELSE 'skipped' END::dtx.saga_step_state) AS state,
         COALESCE(s.attempt, 0) AS attempts,
         s.since,
         CASE WHEN g.database = h.oid THEN s.due_at END AS due_at,
         e.queue,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN e.worker END AS worker,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN r.result END AS result,
         CASE WHEN s.state NOT IN ('completed', 'compensated') AND pg_catalog.pg_has_role(g.role, 'USAGE') THEN
           (SELECT h.message FROM dtx.saga_history_record AS h
             WHERE h.saga = g.id AND h.step = d.step AND h.outcome IN ('failed', 'lost')
             ORDER BY h.id DESC LIMIT 1)
         END AS error
    FROM dtx.saga AS g
    JOIN dtx.saga_definition_step AS d ON d.definition = g.definition
    LEFT JOIN dtx.saga_step AS s ON s.saga = g.id AND s.step = d.step
    LEFT JOIN dtx.saga_external AS e ON e.saga = g.id AND e.step = d.step
    LEFT JOIN dtx.saga_result AS r ON r.saga = g.id AND r.step = d.step
    JOIN pg_catalog.pg_database AS h ON h.datname = pg_catalog.current_database()
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

REVOKE ALL ON dtx.saga_steps FROM PUBLIC;
GRANT SELECT ON dtx.saga_steps TO PUBLIC;
COMMENT ON VIEW dtx.saga_steps IS
  'steps of sagas; those of one''s own, and for members of pg_monitor all others, without worker, result and error';
COMMENT ON COLUMN dtx.saga_steps.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_steps.position IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.saga_steps.step IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_steps.action IS
  'sql, sleep, signal, or external';
COMMENT ON COLUMN dtx.saga_steps.kind IS
  'compensatable, pivot, or retriable';
COMMENT ON COLUMN dtx.saga_steps.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.saga_steps.servers IS
  'foreign server of each of its statements; null: the coordinator';
COMMENT ON COLUMN dtx.saga_steps.state IS
  'pending, running, waiting, completed, failed, skipped, compensating, or compensated';
COMMENT ON COLUMN dtx.saga_steps.attempts IS
  'attempts begun, at the step or, on the way back, at its compensation';
COMMENT ON COLUMN dtx.saga_steps.since IS
  'since when it is in this state';
COMMENT ON COLUMN dtx.saga_steps.due_at IS
  'when somebody will look at it next; in the past: now; null: nobody needs to';
COMMENT ON COLUMN dtx.saga_steps.queue IS
  'queue in which it waits for an external worker';
COMMENT ON COLUMN dtx.saga_steps.worker IS
  'external worker that has claimed it';
COMMENT ON COLUMN dtx.saga_steps.result IS
  'its result';
COMMENT ON COLUMN dtx.saga_steps.error IS
  'why the last attempt that was not successful has failed; null if it has succeeded since';

CREATE VIEW dtx.saga_history WITH (security_barrier) AS
  SELECT h.saga,
         h.id,
         d.name AS step,
         h.action,
         h.attempt,
         h.outcome,
         h.sqlstate,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.message END AS message,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.detail END AS detail,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.hint END AS hint,
         h.started_at,
         h.finished_at,
         h.retry_at,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.by_whom END AS by_whom
    FROM dtx.saga_history_record AS h
    JOIN dtx.saga AS g ON g.id = h.saga
    LEFT JOIN dtx.saga_definition_step AS d ON d.definition = g.definition AND d.step = h.step
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

REVOKE ALL ON dtx.saga_history FROM PUBLIC;
GRANT SELECT ON dtx.saga_history TO PUBLIC;
COMMENT ON VIEW dtx.saga_history IS
  'all attempts at steps of sagas, and what operators have done; of one''s own, and for members of pg_monitor of all others, without message, detail, hint and by_whom';
COMMENT ON COLUMN dtx.saga_history.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_history.id IS
  'number of the entry; they grow with time within a saga';
COMMENT ON COLUMN dtx.saga_history.step IS
  'name of the step; null: about the saga';
COMMENT ON COLUMN dtx.saga_history.action IS
  'execute or compensate; or what happened to the saga: cancel, retry, skip, force, deadline';
COMMENT ON COLUMN dtx.saga_history.attempt IS
  'which attempt it was, from 1';
COMMENT ON COLUMN dtx.saga_history.outcome IS
  'completed, failed, lost (its worker or its lease has gone), or stopped (for no fault of its own, so it was no attempt); for other actions, the state that followed';
COMMENT ON COLUMN dtx.saga_history.sqlstate IS
  'SQLSTATE of the error';
COMMENT ON COLUMN dtx.saga_history.message IS
  'its message; or the reason that was given';
COMMENT ON COLUMN dtx.saga_history.detail IS
  'its detail';
COMMENT ON COLUMN dtx.saga_history.hint IS
  'its hint';
COMMENT ON COLUMN dtx.saga_history.started_at IS
  'when the attempt began';
COMMENT ON COLUMN dtx.saga_history.finished_at IS
  'when it ended';
COMMENT ON COLUMN dtx.saga_history.retry_at IS
  'when it is tried again; null: not by itself';
COMMENT ON COLUMN dtx.saga_history.by_whom IS
  'role that has done it, or name of the external worker; null: a worker of pg_dtx';

CREATE VIEW dtx.saga_stat WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.name,
         pg_catalog.count(*) AS started,
         pg_catalog.count(*) FILTER (WHERE g.state = 'pending') AS pending,
         pg_catalog.count(*) FILTER (WHERE g.state = 'running') AS running,
         pg_catalog.count(*) FILTER (WHERE g.state = 'completed') AS completed,
         pg_catalog.count(*) FILTER (WHERE g.state = 'compensating') AS compensating,
         pg_catalog.count(*) FILTER (WHERE g.state = 'compensated') AS compensated,
         pg_catalog.count(*) FILTER (WHERE g.state = 'failed') AS failed,
         pg_catalog.min(g.started_at) FILTER (WHERE g.finished_at IS NULL) AS oldest_unfinished,
         pg_catalog.avg(g.finished_at - g.started_at) FILTER (WHERE g.state = 'completed') AS mean_time,
         pg_catalog.max(g.finished_at - g.started_at) FILTER (WHERE g.state = 'completed') AS max_time
    FROM dtx.saga AS g
    JOIN dtx.saga_definition AS d ON d.id = g.definition
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   GROUP BY d.owner, d.name;

REVOKE ALL ON dtx.saga_stat FROM PUBLIC;
GRANT SELECT ON dtx.saga_stat TO PUBLIC;
COMMENT ON VIEW dtx.saga_stat IS
  'numbers of sagas by definition, as far as they were not purged; members of pg_monitor see all, others those of their own';
COMMENT ON COLUMN dtx.saga_stat.owner IS
  'owner of the definition; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_stat.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_stat.started IS
  'sagas, whatever their state';
COMMENT ON COLUMN dtx.saga_stat.pending IS
  'sagas that have not begun';
COMMENT ON COLUMN dtx.saga_stat.running IS
  'sagas that go on';
COMMENT ON COLUMN dtx.saga_stat.completed IS
  'sagas of which all steps are done';
COMMENT ON COLUMN dtx.saga_stat.compensating IS
  'sagas that are being undone';
COMMENT ON COLUMN dtx.saga_stat.compensated IS
  'sagas that were undone';
COMMENT ON COLUMN dtx.saga_stat.failed IS
  'sagas that wait for an operator';
COMMENT ON COLUMN dtx.saga_stat.oldest_unfinished IS
  'start of the oldest saga that is neither completed nor compensated';
COMMENT ON COLUMN dtx.saga_stat.mean_time IS
  'mean time from start to completion';
COMMENT ON COLUMN dtx.saga_stat.max_time IS
  'longest time from start to completion';

--
-- Graphs as text.  Steps that follow each other are in one column; where several
-- may run at the same time, each begins a branch ("+-"), and a step that waits
-- for several names them.
--

CREATE FUNCTION dtx._saga_graph(names text[], befores text[], OUT step integer, OUT label text) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n integer := cardinality(names);
  before integer[];
  above integer[] := '{}';      -- the last step that all ways to a step have in common, 0: none
  depth integer[] := '{}';
  a integer;
  b integer;
  stack integer[] := '{0}';     -- steps to be drawn, the next one last
  lines text[] := '{""}';       -- what is drawn left of each of them
  marks text[] := '{""}';       -- and between that and the name
  children integer[];
  line text;
  mark text;
BEGIN
  FOR i IN 1 .. n LOOP
    before := befores[i]::integer[];
    a := coalesce(before[1], 0);
    FOREACH b IN ARRAY before LOOP
      WHILE a <> b LOOP
        IF coalesce(depth[a], 0) >= coalesce(depth[b], 0) THEN
          a := above[a];
        ELSE
          b := above[b];
        END IF;
      END LOOP;
    END LOOP;
    above[i] := a;
    depth[i] := CASE WHEN a = 0 THEN 1 ELSE depth[a] + 1 END;
  END LOOP;
  WHILE cardinality(stack) > 0 LOOP
    a := stack[cardinality(stack)];
    line := lines[cardinality(stack)];
    mark := marks[cardinality(stack)];
    stack := trim_array(stack, 1);
    lines := trim_array(lines, 1);
    marks := trim_array(marks, 1);
    IF a > 0 THEN
      step := a;
      label := line || mark || names[a];
      before := befores[a]::integer[];
      IF cardinality(before) > 1 THEN
        label := label || ' <- ' || (SELECT string_agg(names[x], ', ' ORDER BY x) FROM unnest(before) AS x);
      END IF;
      RETURN NEXT;
      line := line || CASE WHEN mark = '' THEN '' ELSE '|  ' END;
    END IF;
    children := ARRAY(SELECT i FROM generate_series(1, n) AS i WHERE above[i] = a
                       ORDER BY cardinality(befores[i]::integer[]) > 1, i);
    FOR i IN REVERSE cardinality(children) .. 1 LOOP
      stack := stack || children[i];
      lines := lines || line;
      marks := marks || CASE WHEN cardinality(children) > 1 AND cardinality(befores[children[i]]::integer[]) < 2
                             THEN '+- ' ELSE '' END;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx._saga_graph(text[], text[]) IS
  'internal: the steps of a graph in the order in which they are drawn';

CREATE FUNCTION dtx._saga_place(action text, servers name[], delay interval, queue text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE action
           WHEN 'sql' THEN (SELECT string_agg(DISTINCT coalesce(s, '(here)'), ', ') FROM unnest(servers) AS s)
           WHEN 'sleep' THEN '(sleep' || coalesce(' ' || delay, '') || ')'
           WHEN 'signal' THEN '(signal)'
           ELSE '(queue' || coalesce(' ' || queue, '') || ')'
         END
$$;

COMMENT ON FUNCTION dtx._saga_place(text, name[], interval, text) IS
  'internal: where a step is done, for a graph';

CREATE FUNCTION dtx.explain_saga(name text) RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  v integer;
  whose text;
  bare text;
  owners name[];
BEGIN
  -- One's own, or the only one of that name that one sees.
  whose := substring(explain_saga.name from '^(.*)[.][^.]*$');
  bare := substring(explain_saga.name from '[^.]*$');
  owners := ARRAY(SELECT DISTINCT d.owner FROM dtx.saga_definitions d
                   WHERE d.name = bare AND d.owner = coalesce(whose, d.owner));
  IF whose IS NULL AND current_user = ANY (owners) THEN
    owners := ARRAY[current_user];
  ELSIF cardinality(owners) > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ambiguous_alias',
      MESSAGE = format('there are several definitions of a saga "%s"', bare),
      HINT = 'Write the name of the owner and a dot before that of the definition.';
  END IF;
  SELECT max(d.version) INTO v FROM dtx.saga_definitions d WHERE d.name = bare AND d.owner = owners[1];
  IF v IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN explain_saga.name IS NULL THEN 'name of the saga must not be null'
                     ELSE format('there is no definition of a saga "%s"', explain_saga.name) END;
  END IF;
  RETURN NEXT format('definition of saga "%s", version %s', explain_saga.name, v);
  RETURN QUERY
    WITH s AS (
      SELECT p.*, (SELECT array_agg(b.position ORDER BY b.position)
                     FROM dtx.saga_definition_steps b
                    WHERE b.owner = p.owner AND b.name = p.name AND b.version = p.version AND b.step = ANY (p.after)) AS before
        FROM dtx.saga_definition_steps p
       WHERE p.owner = owners[1] AND p.name = bare AND p.version = v),
    g AS (
      SELECT x.step, x.label, x.ord
        FROM (SELECT array_agg(s.step ORDER BY s.position) AS names,
                     array_agg(coalesce(s.before, '{}')::text ORDER BY s.position) AS befores FROM s) AS a,
             ROWS FROM (dtx._saga_graph(a.names, a.befores)) WITH ORDINALITY AS x (step, label, ord)),
    t AS (
      SELECT g.ord, g.label, s.*, dtx._saga_place(s.action, s.servers, s.delay, s.queue) AS place
        FROM g JOIN s ON s.position = g.step)
    SELECT rtrim(rpad(t.label, max(length(t.label)) OVER ()) || '  '
                 || rpad(t.place, max(length(t.place)) OVER ()) || '  '
                 || rpad(t.kind, 13) || '  '
                 || concat_ws(', ',
                      CASE WHEN t.action IN ('sql', 'external') THEN format('%s attempts', t.max_attempts) END,
                      CASE WHEN t.action IN ('sql', 'external') THEN format('backoff %s', t.backoff) END,
                      'timeout ' || t.timeout,
                      CASE WHEN array_remove(t.compensate, NULL) <> '{}' OR t.compensate_queue IS NOT NULL
                           THEN format('compensation with %s attempts', t.compensate_attempts) END))
      FROM t ORDER BY t.ord;
END
$$;

COMMENT ON FUNCTION dtx.explain_saga(text) IS
  'draws the graph of the newest version of a definition, as text';

CREATE FUNCTION dtx.explain_saga(saga bigint) RETURNS SETOF text
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx.sagas;
BEGIN
  SELECT g.* INTO sg FROM dtx.sagas g WHERE g.id = explain_saga.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN explain_saga.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist, or is not yours', explain_saga.saga) END;
  END IF;
  RETURN NEXT format('saga %s "%s", version %s: %s', sg.id, sg.name, sg.version, sg.state)
    || coalesce(' after ' || round(extract(epoch FROM sg.finished_at - sg.started_at), 3) || ' s', '');
  RETURN NEXT concat_ws(', ', 'key "' || sg.key || '"', 'started at ' || sg.started_at,
                        'to run at ' || sg.run_at, 'deadline ' || sg.deadline);
  IF sg.reason IS NOT NULL THEN
    RETURN NEXT sg.reason;
  END IF;
  IF sg.hint IS NOT NULL THEN
    RETURN NEXT sg.hint;
  END IF;
  RETURN QUERY
    WITH s AS (
      SELECT p.*, (SELECT array_agg(b.position ORDER BY b.position)
                     FROM dtx.saga_steps b
                    WHERE b.saga = p.saga AND b.step = ANY (p.after)) AS before,
             (SELECT round(extract(epoch FROM h.finished_at - h.started_at), 3)
                FROM dtx.saga_history h
               WHERE h.saga = p.saga AND h.step = p.step AND h.outcome = 'completed'
               ORDER BY h.id DESC LIMIT 1) AS seconds
        FROM dtx.saga_steps p
       WHERE p.saga = sg.id),
    g AS (
      SELECT x.step, x.label, x.ord
        FROM (SELECT array_agg(s.step ORDER BY s.position) AS names,
                     array_agg(coalesce(s.before, '{}')::text ORDER BY s.position) AS befores FROM s) AS a,
             ROWS FROM (dtx._saga_graph(a.names, a.befores)) WITH ORDINALITY AS x (step, label, ord)),
    t AS (
      SELECT g.ord, g.label, s.*, dtx._saga_place(s.action, s.servers, NULL, s.queue) AS place
        FROM g JOIN s ON s.position = g.step)
    SELECT rtrim(rpad(t.label, max(length(t.label)) OVER ()) || '  '
                 || rpad(t.place, max(length(t.place)) OVER ()) || '  '
                 || rpad(t.kind, 13) || '  '
                 || rpad(t.state::text, 12) || '  '
                 || concat_ws(', ',
                      CASE t.attempts WHEN 0 THEN NULL WHEN 1 THEN '1 attempt' ELSE format('%s attempts', t.attempts) END,
                      CASE WHEN t.state IN ('completed', 'compensated') THEN format('%s s', t.seconds) END,
                      CASE WHEN t.state IN ('running', 'waiting', 'failed') THEN 'since ' || t.since END,
                      'worker "' || t.worker || '"',
                      CASE WHEN t.due_at > clock_timestamp() THEN 'next at ' || t.due_at END,
                      t.error))
      FROM t ORDER BY t.ord;
END
$$;

COMMENT ON FUNCTION dtx.explain_saga(bigint) IS
  'draws the graph of a saga with the states of its steps, attempts and times, as text';

--
-- Forgetting
--

CREATE FUNCTION dtx._purge_sagas(older_than interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx._saga_caller();
  ids bigint[];
  last bigint := 0;
  total bigint := 0;
BEGIN
  IF older_than IS NULL OR older_than < '0' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'older_than must not be null or negative';
  END IF;
  LOOP
    SELECT array_agg(x.id) INTO ids
      FROM (SELECT g.id
              FROM dtx.saga g
             WHERE g.id > last
               AND g.finished_at <= clock_timestamp() - older_than
               AND pg_has_role(caller, g.role, 'USAGE')
             ORDER BY g.id
             LIMIT 1000
             FOR UPDATE SKIP LOCKED) AS x;
    EXIT WHEN ids IS NULL;
    last := ids[cardinality(ids)];
    DELETE FROM dtx.saga_key k
     USING dtx.saga g, dtx.saga_data x, dtx.saga_definition d
     WHERE g.id = ANY (ids) AND x.saga = g.id AND d.id = g.definition
       AND k.role = g.role AND k.owner = d.owner AND k.name = d.name AND k.key = x.key;
    DELETE FROM dtx.saga_data x WHERE x.saga = ANY (ids);
    DELETE FROM dtx.saga_step x WHERE x.saga = ANY (ids);
    DELETE FROM dtx.saga_result x WHERE x.saga = ANY (ids);
    DELETE FROM dtx.saga_signal x WHERE x.saga = ANY (ids);
    DELETE FROM dtx.saga_history_record x WHERE x.saga = ANY (ids);
    -- Not those that a consumer is just taking.
    DELETE FROM dtx.saga_outbox
     WHERE id IN (SELECT x.id FROM dtx.saga_outbox x WHERE x.saga = ANY (ids) FOR UPDATE SKIP LOCKED);
    DELETE FROM dtx.saga x WHERE x.id = ANY (ids);
    total := total + cardinality(ids);
  END LOOP;
  PERFORM dtx._saga_forget_definitions();
  RETURN total;
END
$$;

REVOKE ALL ON FUNCTION dtx._purge_sagas(interval) FROM PUBLIC;
COMMENT ON FUNCTION dtx._purge_sagas(interval) IS
  'internal: dtx.purge_sagas()';

CREATE FUNCTION dtx.purge_sagas(older_than interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx.purge_sagas(interval) FROM PUBLIC;
COMMENT ON FUNCTION dtx.purge_sagas(interval) IS
  'forgets one''s sagas that were completed or compensated so long ago, with their keys, history and events, and returns their number';

--
-- Monitoring
--

CREATE FUNCTION dtx._stat_since_last_call(
  OUT seconds double precision,
  OUT one_phase bigint,
  OUT two_phase bigint,
  OUT prepare_failed bigint,
  OUT handed_over bigint,
  OUT resolved bigint,
  OUT prepare_time double precision,
  OUT commit_time double precision
) RETURNS record
AS 'MODULE_PATHNAME', 'dtx_sql_stat_since_last_call'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION dtx._stat_since_last_call() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._stat_since_last_call() TO pg_monitor;
COMMENT ON FUNCTION dtx._stat_since_last_call() IS
  'internal: what was counted since this session last called this function or, if it has not, since the counters were zero';

-- How long ago that was.
CREATE FUNCTION dtx._age(since timestamptz) RETURNS text
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN s < 120 THEN s || ' s'
              WHEN s < 7200 THEN s / 60 || ' min'
              WHEN s < 172800 THEN s / 3600 || ' h'
              ELSE s / 86400 || ' days' END
    FROM CAST(greatest(floor(extract(epoch FROM clock_timestamp() - since)), 0) AS bigint) AS s
$$;

REVOKE ALL ON FUNCTION dtx._age(timestamptz) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._age(timestamptz) TO pg_monitor;
COMMENT ON FUNCTION dtx._age(timestamptz) IS 'internal: for dtx.overview()';

CREATE FUNCTION dtx._rate(n bigint, seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT round((n / greatest(seconds, 0.001))::numeric, 1) || ' per second'$$;

REVOKE ALL ON FUNCTION dtx._rate(bigint, double precision) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._rate(bigint, double precision) TO pg_monitor;
COMMENT ON FUNCTION dtx._rate(bigint, double precision) IS 'internal: for dtx.overview()';

CREATE FUNCTION dtx._mean(total double precision, n bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT coalesce(round((total / nullif(n, 0))::numeric, 2) || ' ms', '-')$$;

REVOKE ALL ON FUNCTION dtx._mean(double precision, bigint) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx._mean(double precision, bigint) TO pg_monitor;
COMMENT ON FUNCTION dtx._mean(double precision, bigint) IS 'internal: for dtx.overview()';

-- For psql's \watch.  Everything is looked at with the caller's privileges, so it
-- is for members of pg_monitor.
CREATE FUNCTION dtx.overview(
  OUT section text,
  OUT item text,
  OUT value text
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s record;
  total bigint;
BEGIN
  section := 'transactions';
  FOR item, value IN
    SELECT w.state, count(t.pid)::text
           || coalesce(', oldest ' || dtx._age(min(t.started)), '')
      FROM (VALUES (1, 'active'), (2, 'preparing'), (3, 'committing'), (4, 'aborting')) AS w (n, state)
      LEFT JOIN dtx.transactions AS t ON t.state = w.state
     GROUP BY w.n, w.state
     ORDER BY w.n
  LOOP
    RETURN NEXT;
  END LOOP;

  -- What is counted is counted for all databases together.
  SELECT * INTO s FROM dtx._stat_since_last_call();
  section := 'commits';
  FOR item, value IN
    VALUES ('one phase', dtx._rate(s.one_phase, s.seconds)),
           ('two phases', dtx._rate(s.two_phase, s.seconds)),
           ('refused in phase one', dtx._rate(s.prepare_failed, s.seconds)),
           ('phase one takes', dtx._mean(s.prepare_time, s.two_phase + s.prepare_failed)),
           ('phase two takes', dtx._mean(s.commit_time, s.two_phase)),
           ('left to the resolver', dtx._rate(s.handed_over, s.seconds)),
           ('done by the resolver', dtx._rate(s.resolved, s.seconds))
  LOOP
    RETURN NEXT;
  END LOOP;

  section := 'in doubt';
  total := 0;
  FOR item, value IN
    SELECT coalesce(d.server, '(dropped server)'),
           count(*) || ', oldest ' || dtx._age(min(d.since))
           || coalesce(', ' || (array_agg(d.last_error ORDER BY d.since) FILTER (WHERE d.last_error IS NOT NULL))[1], '')
      FROM dtx.in_doubt AS d
     GROUP BY d.server
     ORDER BY min(d.since)
     LIMIT 10
  LOOP
    total := total + 1;
    RETURN NEXT;
  END LOOP;
  IF total = 0 THEN
    item := 'all servers';
    value := '0';
    RETURN NEXT;
  END IF;

  section := 'servers';
  FOR item, value IN
    SELECT v.server,
           CASE WHEN v.reachable IS NULL THEN 'not visited yet'
                WHEN v.reachable THEN 'reachable'
                ELSE 'NOT REACHABLE' END
           || coalesce(' ' || dtx._age(v.checked_at) || ' ago', '')
           || coalesce(', ' || v.slots_used || ' of ' || v.slots_total || ' slots used', '')
           || CASE WHEN v.reachable THEN '' ELSE coalesce(', ' || v.last_error, '') END
      FROM dtx.servers AS v
     ORDER BY v.reachable NULLS LAST, v.slots_used::float8 / nullif(v.slots_total, 0) DESC NULLS LAST, v.server
     LIMIT 10
  LOOP
    RETURN NEXT;
  END LOOP;

  section := 'damage';
  item := 'not acknowledged';
  SELECT count(*)::text INTO value FROM dtx.damage;
  RETURN NEXT;

  section := 'identity';
  item := 'earlier runs';
  SELECT coalesce('SUSPENDED: ' || b.suspended, 'as usual') INTO value
    FROM (VALUES (1)) AS always
    LEFT JOIN dtx.boot AS b ON b.boot_id = dtx._boot_id() AND b.ended_at IS NULL;
  RETURN NEXT;

  section := 'workers';
  FOR item, value IN
    SELECT w.what,
           CASE WHEN count(a.pid) > 0 THEN count(a.pid) || ', for ' || dtx._age(min(a.backend_start))
                WHEN w.always THEN 'NOT RUNNING'
                ELSE '0' END
      FROM (VALUES (1, 'launcher', true), (2, 'resolver', true),
                   (3, 'saga scheduler', false), (4, 'saga worker', false)) AS w (n, what, always)
      LEFT JOIN pg_stat_activity AS a
        ON a.backend_type = 'pg_dtx ' || w.what
       AND (a.datname = current_database() OR a.datname IS NULL)
     GROUP BY w.n, w.what, w.always
     ORDER BY w.n
  LOOP
    RETURN NEXT;
  END LOOP;

  -- Nothing of them if there are none.
  section := 'sagas';
  FOR item, value IN
    SELECT CASE WHEN c.state = 'failed' AND c.n > 0 THEN 'FAILED' ELSE c.state END,
           c.n || CASE WHEN c.state = 'running' AND g.oldest IS NOT NULL
                       THEN ', oldest unfinished ' || dtx._age(g.oldest) ELSE '' END
      FROM (SELECT sum(t.started)::bigint AS started, sum(t.pending)::bigint AS pending, sum(t.running)::bigint AS running,
                   sum(t.compensating)::bigint AS compensating, sum(t.failed)::bigint AS failed,
                   sum(t.completed)::bigint AS completed, sum(t.compensated)::bigint AS compensated,
                   min(t.oldest_unfinished) AS oldest
              FROM dtx.saga_stat AS t) AS g,
           LATERAL (VALUES (1, 'pending', g.pending), (2, 'running', g.running), (3, 'compensating', g.compensating),
                           (4, 'failed', g.failed), (5, 'completed', g.completed), (6, 'compensated', g.compensated))
             AS c (k, state, n)
     WHERE g.started > 0
     ORDER BY c.k
  LOOP
    RETURN NEXT;
  END LOOP;
END
$$;

REVOKE ALL ON FUNCTION dtx.overview() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx.overview() TO pg_monitor;
COMMENT ON FUNCTION dtx.overview() IS
  'what goes on, on one screen; rates and times are those since the session last called this function';
