--
-- Rows that functions return.
--

CREATE TYPE dtx.server_check AS (
  "check" text,
  ok boolean,
  detail text,
  hint text
);
COMMENT ON TYPE dtx.server_check IS
  'what dtx.check_server() has looked at, and found';
COMMENT ON COLUMN dtx.server_check."check" IS
  'what was looked at; a name that does not change';
COMMENT ON COLUMN dtx.server_check.ok IS
  'true: as it should be; false: not; null: could not be found out, or cannot be told';
COMMENT ON COLUMN dtx.server_check.detail IS
  'what was found';
COMMENT ON COLUMN dtx.server_check.hint IS
  'what to do, null if nothing is to be done';

CREATE TYPE dtx.resolution AS (
  server name,
  gid text,
  decision text,
  done boolean,
  error text
);
COMMENT ON TYPE dtx.resolution IS
  'what dtx.resolve_in_doubt() has done, or could not do';
COMMENT ON COLUMN dtx.resolution.server IS
  'foreign server, null: it was dropped';
COMMENT ON COLUMN dtx.resolution.gid IS
  'name of the prepared transaction; null: the server could not be visited';
COMMENT ON COLUMN dtx.resolution.decision IS
  'commit or rollback; null: not known';
COMMENT ON COLUMN dtx.resolution.done IS
  'was it finished now?';
COMMENT ON COLUMN dtx.resolution.error IS
  'why not, null if it was';

CREATE TYPE dtx.claimed_step AS (
  token uuid,
  saga bigint,
  name text,
  step text,
  action text,
  attempt integer,
  payload jsonb,
  input jsonb,
  results jsonb,
  lease_until timestamptz,
  idempotency_key text
);
COMMENT ON TYPE dtx.claimed_step IS
  'a step that dtx.claim_step() gives an external worker';
COMMENT ON COLUMN dtx.claimed_step.token IS
  'what the worker shows to dtx.heartbeat_step(), dtx.complete_step() and dtx.fail_step()';
COMMENT ON COLUMN dtx.claimed_step.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.claimed_step.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.claimed_step.step IS
  'name of the step';
COMMENT ON COLUMN dtx.claimed_step.action IS
  'execute or compensate';
COMMENT ON COLUMN dtx.claimed_step.attempt IS
  'the first one is 1';
COMMENT ON COLUMN dtx.claimed_step.payload IS
  'as the definition of the step says';
COMMENT ON COLUMN dtx.claimed_step.input IS
  'as dtx.start_saga() was given it';
COMMENT ON COLUMN dtx.claimed_step.results IS
  'of the steps that are done: an object with a member for each, by name';
COMMENT ON COLUMN dtx.claimed_step.lease_until IS
  'the token is worth nothing after that';
COMMENT ON COLUMN dtx.claimed_step.idempotency_key IS
  'the same at each attempt, and no other step has it, of whatever saga in whatever database';

CREATE TYPE dtx.step_lease AS (
  lease_until timestamptz,
  canceled boolean,
  reason text
);
COMMENT ON TYPE dtx.step_lease IS
  'the lease of a step, from dtx.heartbeat_step()';
COMMENT ON COLUMN dtx.step_lease.lease_until IS
  'its end';
COMMENT ON COLUMN dtx.step_lease.canceled IS
  'has the saga turned back? then the worker may stop, and release or fail the step';
COMMENT ON COLUMN dtx.step_lease.reason IS
  'why, null if it has not';

CREATE TYPE dtx.saga_event AS (
  id bigint,
  saga bigint,
  owner name,
  name text,
  role name,
  step text,
  event text,
  at timestamptz,
  payload jsonb
);
COMMENT ON TYPE dtx.saga_event IS
  'an event of a saga, from dtx.take_saga_events()';
COMMENT ON COLUMN dtx.saga_event.id IS
  'number of the event, which does not change; of two events of one saga, the later one has the higher number';
COMMENT ON COLUMN dtx.saga_event.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_event.owner IS
  'owner of its definition';
COMMENT ON COLUMN dtx.saga_event.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.saga_event.role IS
  'as which it runs';
COMMENT ON COLUMN dtx.saga_event.step IS
  'name of the step whose event it is; null: of the saga';
COMMENT ON COLUMN dtx.saga_event.event IS
  'what has happened';
COMMENT ON COLUMN dtx.saga_event.at IS
  'when';
COMMENT ON COLUMN dtx.saga_event.payload IS
  'what belongs to it, depending on the event';

CREATE TYPE dtx.finding AS (
  server name,
  roles name[],
  "check" text,
  detail text,
  hint text
);
COMMENT ON TYPE dtx.finding IS
  'what dtx.check() has found wrong: at which server (null: here), through whose user mappings, and what to do';
COMMENT ON COLUMN dtx.finding.server IS
  'foreign server, null: this database or server';
COMMENT ON COLUMN dtx.finding.roles IS
  'those whose user mappings it concerns, null: all';
COMMENT ON COLUMN dtx.finding."check" IS
  'as in dtx.check_server()';
COMMENT ON COLUMN dtx.finding.detail IS
  'what was found';
COMMENT ON COLUMN dtx.finding.hint IS
  'what to do';

CREATE TYPE dtx.planned_step AS (
  "position" integer,
  step text,
  kind text,
  after text[],
  place text,
  sql text,
  undo text,
  problem text
);
COMMENT ON TYPE dtx.planned_step IS
  'a step of a saga that is not executed, from dtx.dry_run()';
COMMENT ON COLUMN dtx.planned_step."position" IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.planned_step.step IS
  'its name';
COMMENT ON COLUMN dtx.planned_step.kind IS
  'compensatable, pivot, or retriable';
COMMENT ON COLUMN dtx.planned_step.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.planned_step.place IS
  'where it is done';
COMMENT ON COLUMN dtx.planned_step.sql IS
  'what is executed';
COMMENT ON COLUMN dtx.planned_step.undo IS
  'what would undo it; null: nothing';
COMMENT ON COLUMN dtx.planned_step.problem IS
  'what is in the way; null: nothing that can be known before';

CREATE TYPE dtx.saga_outcome AS (
  saga bigint,
  ok boolean,
  state dtx.saga_state,
  error text
);
COMMENT ON TYPE dtx.saga_outcome IS
  'what became of one of several sagas, from dtx.cancel_sagas() and dtx.migrate_sagas()';
COMMENT ON COLUMN dtx.saga_outcome.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_outcome.ok IS
  'was it done?';
COMMENT ON COLUMN dtx.saga_outcome.state IS
  'state of the saga now; null: no such saga, or none of one''s own';
COMMENT ON COLUMN dtx.saga_outcome.error IS
  'why not, null if it was';
