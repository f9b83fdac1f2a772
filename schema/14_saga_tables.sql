--
-- Tables of sagas.  All state is here, and only the functions of 31 to 35 change it.
--
-- Locks: what changes anything of a saga locks its row in dtx_internal.saga_record first, and
-- then rows of dtx_internal.saga_external, and then rows of dtx_internal.saga_step_record.  So two steps
-- that finish at the same time do it one after the other, and the second one
-- sees what the first one has done.
--

--
-- Definitions.  Dumped, but not the sequence: numbers that are taken are left out.
-- Each role has names of its own.  What was dropped stays as long as there are sagas
-- of it.
--

CREATE SEQUENCE dtx_internal.saga_definition_id;

COMMENT ON SEQUENCE dtx_internal.saga_definition_id IS
  'numbers of definitions';

CREATE TABLE dtx_internal.saga_definition_record (
  id bigint PRIMARY KEY,
  owner dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  version integer NOT NULL,
  created_at timestamptz NOT NULL,
  dropped boolean NOT NULL DEFAULT false
) USING heap;

-- After a restore, several may belong to nobody.
CREATE UNIQUE INDEX saga_definition_name ON dtx_internal.saga_definition_record (owner, name, version)
  WHERE owner::pg_catalog.oid OPERATOR(pg_catalog.<>) 0::pg_catalog.oid;

SELECT pg_catalog.pg_extension_config_dump('dtx_internal.saga_definition_record', 'WHERE NOT dropped');

COMMENT ON TABLE dtx_internal.saga_definition_record IS
  'versions of definitions of sagas; see view dtx.saga_definitions';
COMMENT ON COLUMN dtx_internal.saga_definition_record.id IS
  'number of this version of this definition';
COMMENT ON COLUMN dtx_internal.saga_definition_record.name IS
  'name of the definition';
COMMENT ON COLUMN dtx_internal.saga_definition_record.version IS
  'from 1; the highest one is used by sagas that start now';
COMMENT ON COLUMN dtx_internal.saga_definition_record.owner IS
  'who may define the next version, and let others start it';
COMMENT ON COLUMN dtx_internal.saga_definition_record.created_at IS
  'when dtx.define_saga() was called';
COMMENT ON COLUMN dtx_internal.saga_definition_record.dropped IS
  'was it dropped? then it is for sagas that there are, and for no others';

CREATE TABLE dtx_internal.saga_definition_grant (
  owner dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  grantee dtx_internal.saga_role
) USING heap;

SELECT pg_catalog.pg_extension_config_dump('dtx_internal.saga_definition_grant',
  'WHERE grantee IS NULL OR EXISTS (SELECT FROM pg_catalog.pg_roles AS r WHERE r.oid = grantee)');

COMMENT ON TABLE dtx_internal.saga_definition_grant IS
  'who may start sagas of whose definitions; see view dtx.saga_definitions';
COMMENT ON COLUMN dtx_internal.saga_definition_grant.owner IS
  'owner of the definition';
COMMENT ON COLUMN dtx_internal.saga_definition_grant.name IS
  'name of the definition';
COMMENT ON COLUMN dtx_internal.saga_definition_grant.grantee IS
  'who may start sagas of it; null: everybody';

CREATE TABLE dtx_internal.saga_definition_step_record (
  definition bigint NOT NULL REFERENCES dtx_internal.saga_definition_record ON DELETE CASCADE,
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

SELECT pg_catalog.pg_extension_config_dump('dtx_internal.saga_definition_step_record',
  'WHERE definition IN (SELECT d.id FROM dtx_internal.saga_definition_record AS d WHERE NOT d.dropped)');

COMMENT ON TABLE dtx_internal.saga_definition_step_record IS
  'steps of definitions of sagas';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.definition IS
  'dtx_internal.saga_definition_record.id';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.step IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.name IS
  'name of the step';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.action IS
  'sql: run SQL; sleep: let time pass; signal: wait for a signal; external: wait for an external worker';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.kind IS
  'compensatable: can be undone; pivot: the point of no return; retriable: comes after it, and is tried again until it succeeds';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.ancestors IS
  'those, and the steps that must be done before them, and so on';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.servers IS
  'foreign server of each statement; null: the coordinator';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.execute IS
  'the statements';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.compensate IS
  'what undoes each statement; null: nothing to undo';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.min_rows IS
  'rows that each statement must affect or return at least; null: any number';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.max_attempts IS
  'the step fails for good after so many attempts';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.compensate_attempts IS
  'its compensation fails for good after so many attempts';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.backoff IS
  'pause after the first failed attempt; it doubles with each one';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.timeout IS
  'longest time of an attempt, or of a wait; null: any time';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.delay IS
  'time that a step of action sleep lets pass';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.queue IS
  'queue of a step of action external';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.payload IS
  'what the worker that claims it is given besides input and results';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.compensate_queue IS
  'queue of its compensation; null: nothing to undo';

--
-- Sagas.  Rows that change are narrow and have room on their page for the next
-- version (HOT).  Nothing of this is dumped: a copy must not do it all again.
--

CREATE SEQUENCE dtx_internal.saga_id;

COMMENT ON SEQUENCE dtx_internal.saga_id IS
  'numbers of sagas';

CREATE TABLE dtx_internal.saga_record (
  id bigint PRIMARY KEY,
  database oid NOT NULL,
  definition bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  boot_id bigint NOT NULL,
  xid bigint NOT NULL,
  state dtx.saga_state NOT NULL,
  compensating boolean NOT NULL DEFAULT false,
  started_at timestamptz NOT NULL,
  finished_at timestamptz
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.saga_record IS
  'sagas; see view dtx.sagas';
COMMENT ON COLUMN dtx_internal.saga_record.id IS
  'number of the saga';
COMMENT ON COLUMN dtx_internal.saga_record.database IS
  'database in which it was started: another one, if this is a copy of that (CREATE DATABASE ... TEMPLATE), or 0, if it is one on another server (dtx.change_identity()); then nobody here goes on with it';
COMMENT ON COLUMN dtx_internal.saga_record.definition IS
  'dtx_internal.saga_definition_record.id, the version with which it was started';
COMMENT ON COLUMN dtx_internal.saga_record.role IS
  'role that has started it, as which its steps run';
COMMENT ON COLUMN dtx_internal.saga_record.boot_id IS
  'random identifier of the server run in which it was started';
COMMENT ON COLUMN dtx_internal.saga_record.xid IS
  'full transaction identifier of the transaction that has started it';
COMMENT ON COLUMN dtx_internal.saga_record.state IS
  'its state';
COMMENT ON COLUMN dtx_internal.saga_record.compensating IS
  'is it on its way back? then failed means that a compensation has failed';
COMMENT ON COLUMN dtx_internal.saga_record.started_at IS
  'when dtx.start_saga() was called';
COMMENT ON COLUMN dtx_internal.saga_record.finished_at IS
  'when it was completed or compensated';

CREATE TABLE dtx_internal.saga_data (
  saga bigint PRIMARY KEY,
  input jsonb NOT NULL,
  key text,
  run_at timestamptz,
  deadline timestamptz,
  reason text,
  failure text
) USING heap;

COMMENT ON TABLE dtx_internal.saga_data IS
  'what of a saga is wide or seldom changes';
COMMENT ON COLUMN dtx_internal.saga_data.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_data.input IS
  'input of the saga, $1 of its steps';
COMMENT ON COLUMN dtx_internal.saga_data.key IS
  'key with which it was started';
COMMENT ON COLUMN dtx_internal.saga_data.run_at IS
  'not begun before; null: at once';
COMMENT ON COLUMN dtx_internal.saga_data.deadline IS
  'compensated if it has not reached its point of no return until then; null: any time';
COMMENT ON COLUMN dtx_internal.saga_data.reason IS
  'why it compensates, or was forced';
COMMENT ON COLUMN dtx_internal.saga_data.failure IS
  'why it has failed';

CREATE TABLE dtx_internal.saga_key (
  role dtx_internal.saga_role NOT NULL,
  owner dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  key text NOT NULL,
  saga bigint NOT NULL,
  PRIMARY KEY (role, owner, name, key)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_key IS
  'which saga was started with which key';
COMMENT ON COLUMN dtx_internal.saga_key.role IS
  'role that has started it';
COMMENT ON COLUMN dtx_internal.saga_key.owner IS
  'owner of its definition';
COMMENT ON COLUMN dtx_internal.saga_key.name IS
  'name of its definition';
COMMENT ON COLUMN dtx_internal.saga_key.key IS
  'the key';
COMMENT ON COLUMN dtx_internal.saga_key.saga IS
  'dtx_internal.saga_record.id';

CREATE TABLE dtx_internal.saga_step_record (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  database oid NOT NULL,
  role dtx_internal.saga_role NOT NULL,
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
CREATE INDEX saga_step_due ON dtx_internal.saga_step_record (database, role, lane, due_at) WHERE due_at IS NOT NULL AND step > 0;

-- Deadlines are for the scheduler.
CREATE INDEX saga_step_deadline ON dtx_internal.saga_step_record (database, role, due_at) WHERE due_at IS NOT NULL AND step = 0;

COMMENT ON TABLE dtx_internal.saga_step_record IS
  'steps of sagas that have become due; step 0 is the timer of a deadline; see view dtx.saga_steps';
COMMENT ON COLUMN dtx_internal.saga_step_record.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_step_record.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_step_record.database IS
  'dtx_internal.saga_record.database';
COMMENT ON COLUMN dtx_internal.saga_step_record.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_step_record.lane IS
  'foreign server of its first statement that runs on one, 0 if there is none; a slow server must not take all workers';
COMMENT ON COLUMN dtx_internal.saga_step_record.state IS
  'its state';
COMMENT ON COLUMN dtx_internal.saga_step_record.compensation IS
  'do attempt, taken and a state of failed tell of its compensation?';
COMMENT ON COLUMN dtx_internal.saga_step_record.taken IS
  'was it given to a worker that has not reported yet?';
COMMENT ON COLUMN dtx_internal.saga_step_record.doubt IS
  'may an external worker have done it without telling?';
COMMENT ON COLUMN dtx_internal.saga_step_record.attempt IS
  'attempts begun';
COMMENT ON COLUMN dtx_internal.saga_step_record.due_at IS
  'when a worker has to look at it; null: never';
COMMENT ON COLUMN dtx_internal.saga_step_record.since IS
  'when it has got into its state';
COMMENT ON COLUMN dtx_internal.saga_step_record.boot_id IS
  'random identifier of the server run in which it was completed, or compensated';
COMMENT ON COLUMN dtx_internal.saga_step_record.xid IS
  'full transaction identifier of the transaction that has completed, or compensated, it';

CREATE TABLE dtx_internal.saga_result (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  result jsonb NOT NULL,
  PRIMARY KEY (saga, step)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_result IS
  'results of steps';
COMMENT ON COLUMN dtx_internal.saga_result.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_result.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_result.result IS
  'its first row, what came with the signal, or what the external worker has told';

CREATE TABLE dtx_internal.saga_history_record (
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

COMMENT ON TABLE dtx_internal.saga_history_record IS
  'all attempts, and what operators have done; see view dtx.saga_history';
COMMENT ON SEQUENCE dtx_internal.saga_history_record_id_seq IS
  'numbers of entries in the history';
COMMENT ON COLUMN dtx_internal.saga_history_record.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_history_record.id IS
  'number of the entry; they grow with time within a saga';
COMMENT ON COLUMN dtx_internal.saga_history_record.step IS
  'number of the step in its definition; null: about the saga';
COMMENT ON COLUMN dtx_internal.saga_history_record.action IS
  'execute or compensate; or what happened to the saga: cancel, retry, skip, force, deadline';
COMMENT ON COLUMN dtx_internal.saga_history_record.attempt IS
  'which attempt it was, from 1';
COMMENT ON COLUMN dtx_internal.saga_history_record.outcome IS
  'completed, failed, lost (its worker or its lease has gone), or stopped (for no fault of its own, so it was no attempt); for other actions, the state that followed';
COMMENT ON COLUMN dtx_internal.saga_history_record.sqlstate IS
  'SQLSTATE of the error';
COMMENT ON COLUMN dtx_internal.saga_history_record.message IS
  'its message; or the reason that was given';
COMMENT ON COLUMN dtx_internal.saga_history_record.detail IS
  'its detail';
COMMENT ON COLUMN dtx_internal.saga_history_record.hint IS
  'its hint';
COMMENT ON COLUMN dtx_internal.saga_history_record.started_at IS
  'when the attempt began';
COMMENT ON COLUMN dtx_internal.saga_history_record.finished_at IS
  'when it ended';
COMMENT ON COLUMN dtx_internal.saga_history_record.retry_at IS
  'when it is tried again; null: not by itself';
COMMENT ON COLUMN dtx_internal.saga_history_record.by_whom IS
  'role that has done it, or name of the external worker; null: a worker of pg_dtx';

CREATE TABLE dtx_internal.saga_outbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  saga bigint NOT NULL,
  owner dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  event text NOT NULL CHECK (event IN ('completed', 'compensated', 'failed')),
  at timestamptz NOT NULL,
  payload jsonb NOT NULL
) USING heap;

CREATE INDEX saga_outbox_saga ON dtx_internal.saga_outbox (saga);

CREATE INDEX saga_outbox_role ON dtx_internal.saga_outbox (role, id);

COMMENT ON TABLE dtx_internal.saga_outbox IS
  'events of sagas, written in the same commit as the state; for logical decoding, and for dtx.take_saga_events()';
COMMENT ON SEQUENCE dtx_internal.saga_outbox_id_seq IS
  'numbers of events';
COMMENT ON COLUMN dtx_internal.saga_outbox.id IS
  'number of the event; numbers need not become visible in their order';
COMMENT ON COLUMN dtx_internal.saga_outbox.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx_internal.saga_outbox.owner IS
  'owner of its definition';
COMMENT ON COLUMN dtx_internal.saga_outbox.name IS
  'name of its definition';
COMMENT ON COLUMN dtx_internal.saga_outbox.role IS
  'role that has started it';
COMMENT ON COLUMN dtx_internal.saga_outbox.event IS
  'completed, compensated, or failed';
COMMENT ON COLUMN dtx_internal.saga_outbox.at IS
  'when that happened';
COMMENT ON COLUMN dtx_internal.saga_outbox.payload IS
  'key of the saga, results of its steps, and reason, as far as there are any';

CREATE TABLE dtx_internal.saga_signal (
  saga bigint NOT NULL,
  name text NOT NULL,
  payload jsonb,
  received_at timestamptz NOT NULL,
  PRIMARY KEY (saga, name)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_signal IS
  'signals that sagas have got';
COMMENT ON COLUMN dtx_internal.saga_signal.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_signal.name IS
  'name of the step that waits for it';
COMMENT ON COLUMN dtx_internal.saga_signal.payload IS
  'what came with it';
COMMENT ON COLUMN dtx_internal.saga_signal.received_at IS
  'when it came';

CREATE TABLE dtx_internal.saga_external (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  database oid NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  queue text NOT NULL,
  available_at timestamptz NOT NULL,
  token uuid,
  worker text,
  lease interval,
  claimed_at timestamptz,
  PRIMARY KEY (saga, step)
) USING heap WITH (fillfactor = 70);

CREATE INDEX saga_external_queue ON dtx_internal.saga_external (database, role, queue, available_at);

CREATE UNIQUE INDEX saga_external_token ON dtx_internal.saga_external (token) WHERE token IS NOT NULL;

COMMENT ON TABLE dtx_internal.saga_external IS
  'steps, and compensations, that wait for an external worker or are in its hands';
COMMENT ON COLUMN dtx_internal.saga_external.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_external.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_external.database IS
  'dtx_internal.saga_record.database';
COMMENT ON COLUMN dtx_internal.saga_external.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_external.queue IS
  'name of the queue';
COMMENT ON COLUMN dtx_internal.saga_external.available_at IS
  'when it may be claimed; the end of the lease, if it is claimed';
COMMENT ON COLUMN dtx_internal.saga_external.token IS
  'token of the lease; null: not claimed';
COMMENT ON COLUMN dtx_internal.saga_external.worker IS
  'name of the worker that has claimed it';
COMMENT ON COLUMN dtx_internal.saga_external.lease IS
  'length of the lease, for dtx.heartbeat_step()';
COMMENT ON COLUMN dtx_internal.saga_external.claimed_at IS
  'when it was claimed';
