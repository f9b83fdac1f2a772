--
-- Tables of sagas.  All state is here, and only the functions of 31 to 35 change it.
--
-- Locks: what changes anything of a saga locks its row in dtx_internal.saga_record first, and
-- then rows of dtx_internal.saga_external, and then rows of dtx_internal.saga_step_record.  So two steps
-- that finish at the same time do it one after the other, and the second one
-- sees what the first one has done.
--
-- Nobody waits for that lock but those who act for users.  A worker that has executed a step
-- and finds the saga locked marks the step's row as noted, and the saga takes it up when it is
-- free; what others tell a saga is in dtx_internal.saga_inbox until then.
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
  action text NOT NULL CHECK (action IN ('sql', 'sleep', 'signal', 'external', 'saga', 'each')),
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
  max_outage interval,
  event text,
  delay interval,
  queue text,
  payload jsonb,
  compensate_queue text,
  condition text,
  expression text,
  saga text,
  version integer,
  parallel integer,
  retry dtx.retry_policy,
  count integer,
  needs text[],
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
  'sql: run SQL; sleep: let time pass; signal: wait for a signal; external: wait for an external worker; saga: run another saga; each: run one for each item of a list';
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
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.max_outage IS
  'the step fails when servers that it needs have been away for so long; null: it waits for them';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.event IS
  'event that there is when the step is done; null: none';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.delay IS
  'time that a step of action sleep lets pass';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.queue IS
  'queue of a step of action external';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.payload IS
  'what the worker that claims it is given besides input and results';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.compensate_queue IS
  'queue of its compensation; null: nothing to undo';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.condition IS
  'SQL expression; if it is not true, the step is skipped; null: it never is';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.expression IS
  'SQL expression: until when to sleep, the input of the saga of a step of action saga, or the items of a step of action each; null: none';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.saga IS
  'name of the definition of the sagas of a step of action saga or each; without an owner''s name, of the owner of this one';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.version IS
  'its version; null: the newest one';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.parallel IS
  'so many sagas of a step of action each at a time';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.retry IS
  'when it is tried again after an attempt has failed; null: as usual';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.count IS
  'so many signals a step of action signal waits for, if its result is the list of them; null: for one';
COMMENT ON COLUMN dtx_internal.saga_definition_step_record.needs IS
  'steps whose results its SQL names; null: it may need those of all';

--
-- Sagas.  Rows that change are narrow and have room on their page for the next
-- version (HOT).  Nothing of this is dumped: a copy must not do it all again.
--

CREATE SEQUENCE dtx_internal.saga_id;

COMMENT ON SEQUENCE dtx_internal.saga_id IS
  'numbers of sagas';

CREATE TABLE dtx_internal.saga_record (
  id bigint PRIMARY KEY,
  home bigint NOT NULL,
  definition bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  boot_id bigint NOT NULL,
  xid bigint NOT NULL,
  state dtx.saga_state NOT NULL,
  compensating boolean NOT NULL DEFAULT false,
  priority smallint NOT NULL DEFAULT 0,
  started_at timestamptz NOT NULL,
  finished_at timestamptz,
  parent bigint,
  paused boolean NOT NULL DEFAULT false
) USING heap WITH (fillfactor = 50);

-- Those that are steps of another one.
CREATE INDEX saga_parent ON dtx_internal.saga_record (parent) WHERE parent IS NOT NULL;

-- Those that an operator has to look at.
CREATE INDEX saga_failed ON dtx_internal.saga_record (id) WHERE state = 'failed';

-- What has not ended, by definition; how many have is of no importance.
CREATE INDEX saga_unfinished ON dtx_internal.saga_record (definition, state) WHERE finished_at IS NULL;

COMMENT ON TABLE dtx_internal.saga_record IS
  'sagas; see view dtx.sagas';
COMMENT ON COLUMN dtx_internal.saga_record.id IS
  'number of the saga';
COMMENT ON COLUMN dtx_internal.saga_record.home IS
  'where it belongs: identity of the coordinator, and OID of the database; another one in a copy, of whatever kind; 0, if that is another server (dtx.change_identity()); then nobody here goes on with it';
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
COMMENT ON COLUMN dtx_internal.saga_record.priority IS
  'of two sagas that could begin, the one with the higher priority does; so do their steps';
COMMENT ON COLUMN dtx_internal.saga_record.started_at IS
  'when dtx.start_saga() was called';
COMMENT ON COLUMN dtx_internal.saga_record.finished_at IS
  'when it was completed or compensated';
COMMENT ON COLUMN dtx_internal.saga_record.parent IS
  'saga one of whose steps it is; null: none';
COMMENT ON COLUMN dtx_internal.saga_record.paused IS
  'does it rest until dtx.resume_saga()? then dtx_internal.saga_pause_record says why';

CREATE TABLE dtx_internal.saga_data (
  saga bigint PRIMARY KEY,
  input jsonb NOT NULL,
  key text,
  run_at timestamptz,
  deadline timestamptz,
  reason text,
  failure text,
  attributes jsonb,
  lane text
) USING heap;

CREATE INDEX saga_data_attributes ON dtx_internal.saga_data USING gin (attributes jsonb_path_ops) WHERE attributes IS NOT NULL;

-- Sagas of one lane go one after the other.
CREATE TABLE dtx_internal.saga_lane_record (
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  lane text NOT NULL,
  saga bigint NOT NULL,
  PRIMARY KEY (home, role, lane, saga)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_lane_record IS
  'sagas that have not ended and go one after the other';
COMMENT ON COLUMN dtx_internal.saga_lane_record.home IS
  'dtx_internal.saga_record.home';
COMMENT ON COLUMN dtx_internal.saga_lane_record.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_lane_record.lane IS
  'name of the lane';
COMMENT ON COLUMN dtx_internal.saga_lane_record.saga IS
  'dtx_internal.saga_record.id; the lowest one of a lane goes';

-- Limits of queues of external steps.
CREATE TABLE dtx_internal.saga_queue_record (
  role dtx_internal.saga_role NOT NULL,
  queue text NOT NULL,
  concurrency integer CHECK (concurrency > 0),
  rate integer CHECK (rate > 0),
  per interval NOT NULL,
  tokens double precision NOT NULL,
  filled_at timestamptz NOT NULL,
  PRIMARY KEY (role, queue)
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.saga_queue_record IS
  'limits of queues; see dtx.set_queue()';
COMMENT ON COLUMN dtx_internal.saga_queue_record.role IS
  'role whose steps are in it';
COMMENT ON COLUMN dtx_internal.saga_queue_record.queue IS
  'name of the queue';
COMMENT ON COLUMN dtx_internal.saga_queue_record.concurrency IS
  'so many steps may be in the hands of workers; null: any number';
COMMENT ON COLUMN dtx_internal.saga_queue_record.rate IS
  'so many may be claimed in the time that "per" says; null: any number';
COMMENT ON COLUMN dtx_internal.saga_queue_record.per IS
  'for rate';
COMMENT ON COLUMN dtx_internal.saga_queue_record.tokens IS
  'so many more could be claimed at filled_at';
COMMENT ON COLUMN dtx_internal.saga_queue_record.filled_at IS
  'when that was so';

-- Sagas that are started by the clock.
CREATE TABLE dtx_internal.saga_schedule_record (
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  schedule text NOT NULL,
  owner dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  cron text NOT NULL,
  zone text NOT NULL,
  input jsonb NOT NULL,
  overlap text NOT NULL CHECK (overlap IN ('skip', 'start')),
  catch_up boolean NOT NULL,
  next_at timestamptz,
  last_at timestamptz,
  last_outcome text,
  last_saga bigint,
  paused text,
  PRIMARY KEY (role, schedule)
) USING heap WITH (fillfactor = 70);

COMMENT ON TABLE dtx_internal.saga_schedule_record IS
  'schedules of sagas; see view dtx.saga_schedules';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.home IS
  'where it belongs, as dtx_internal.saga_record.home';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.role IS
  'role as which sagas are started';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.schedule IS
  'name of the schedule';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.owner IS
  'owner of the definition';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.name IS
  'name of the definition';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.cron IS
  'when: minute, hour, day of the month, month, day of the week';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.zone IS
  'in which time zone';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.input IS
  'input of the sagas, to which scheduled_at is added';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.overlap IS
  'if the one before has not ended: skip this one, or start it';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.catch_up IS
  'are those started that were missed?';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.next_at IS
  'when the next one is; null: never';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.last_at IS
  'when the last one was';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.last_outcome IS
  'what became of that: started, skipped, or failed, and why';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.last_saga IS
  'the last saga that was started';
COMMENT ON COLUMN dtx_internal.saga_schedule_record.paused IS
  'why it rests; null: it does not';

-- What rests.
CREATE TABLE dtx_internal.saga_pause_record (
  role dtx_internal.saga_role NOT NULL,
  kind text NOT NULL CHECK (kind IN ('saga', 'definition', 'queue', 'server')),
  name text NOT NULL,
  reason text NOT NULL,
  by_whom name NOT NULL,
  since timestamptz NOT NULL,
  PRIMARY KEY (kind, name, role)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_pause_record IS
  'what of sagas was paused; see view dtx.saga_pauses';
COMMENT ON COLUMN dtx_internal.saga_pause_record.role IS
  'of a saga or queue: whose it is; of a definition: its owner; of a server: whose sagas do not use it, nobody''s number: those of all roles';
COMMENT ON COLUMN dtx_internal.saga_pause_record.kind IS
  'saga, definition, queue, or server';
COMMENT ON COLUMN dtx_internal.saga_pause_record.name IS
  'number of the saga, or name of the definition, queue, or server';
COMMENT ON COLUMN dtx_internal.saga_pause_record.reason IS
  'why';
COMMENT ON COLUMN dtx_internal.saga_pause_record.by_whom IS
  'who has done that';
COMMENT ON COLUMN dtx_internal.saga_pause_record.since IS
  'when';

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
COMMENT ON COLUMN dtx_internal.saga_data.attributes IS
  'what it is found by';
COMMENT ON COLUMN dtx_internal.saga_data.lane IS
  'those of one lane go one after the other; null: it waits for no other one';

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
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  lane oid NOT NULL,
  rank integer NOT NULL DEFAULT 0,
  servers oid[] NOT NULL DEFAULT '{}',
  state dtx.saga_step_state NOT NULL,
  compensation boolean NOT NULL DEFAULT false,
  taken boolean NOT NULL DEFAULT false,
  noted boolean NOT NULL DEFAULT false,
  doubt boolean NOT NULL DEFAULT false,
  attempt integer NOT NULL DEFAULT 0,
  collisions integer NOT NULL DEFAULT 0,
  losses integer NOT NULL DEFAULT 0,
  away_since timestamptz,
  max_outage interval,
  held_at timestamptz,
  due_at timestamptz,
  since timestamptz NOT NULL,
  boot_id bigint,
  xid bigint,
  done_names name[],
  done_on oid[],
  done_systems bigint[],
  PRIMARY KEY (saga, step)
) USING heap WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

-- The only queue.  It is as large as the work that is due or scheduled, because
-- what is done is due never more.  What belongs to another database is never met.
CREATE INDEX saga_step_due ON dtx_internal.saga_step_record (home, role, lane, rank, due_at) WHERE due_at IS NOT NULL AND step > 0;

-- What does not wait for a server without end.
CREATE INDEX saga_step_outage ON dtx_internal.saga_step_record (home, role, lane)
  WHERE max_outage IS NOT NULL AND due_at IS NOT NULL AND step > 0;

-- Deadlines are for the scheduler.
CREATE INDEX saga_step_deadline ON dtx_internal.saga_step_record (home, role, due_at) WHERE due_at IS NOT NULL AND step = 0;

COMMENT ON TABLE dtx_internal.saga_step_record IS
  'steps of sagas that have become due; step 0 is the timer of a deadline; see view dtx.saga_steps';
COMMENT ON COLUMN dtx_internal.saga_step_record.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_step_record.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_step_record.home IS
  'dtx_internal.saga_record.home';
COMMENT ON COLUMN dtx_internal.saga_step_record.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_step_record.lane IS
  'in which part of the queue it is: that of a foreign server that it needs, one of those of which there is no room if there is such a one; 0: it needs none; 1: it keeps no worker busy';
COMMENT ON COLUMN dtx_internal.saga_step_record.rank IS
  'lower ones come first: compensations, then what has begun, then what has not, each with the highest priority first';
COMMENT ON COLUMN dtx_internal.saga_step_record.servers IS
  'foreign servers that its statements run on';
COMMENT ON COLUMN dtx_internal.saga_step_record.state IS
  'its state';
COMMENT ON COLUMN dtx_internal.saga_step_record.compensation IS
  'do attempt, taken and a state of failed tell of its compensation?';
COMMENT ON COLUMN dtx_internal.saga_step_record.taken IS
  'was it given to a worker that has not reported yet?';
COMMENT ON COLUMN dtx_internal.saga_step_record.noted IS
  'has its worker reported, but not to the saga, which was locked? then dtx_internal.saga_note says what, or else it was done';
COMMENT ON COLUMN dtx_internal.saga_step_record.doubt IS
  'may an external worker have done it without telling?';
COMMENT ON COLUMN dtx_internal.saga_step_record.attempt IS
  'attempts begun, without those that were for no fault of the step''s own';
COMMENT ON COLUMN dtx_internal.saga_step_record.collisions IS
  'executions that ended because others had locked or changed the same';
COMMENT ON COLUMN dtx_internal.saga_step_record.losses IS
  'executions that ended because a server has gone meanwhile';
COMMENT ON COLUMN dtx_internal.saga_step_record.away_since IS
  'since when a server that it needs has not been there; null: not so, or not tried yet';
COMMENT ON COLUMN dtx_internal.saga_step_record.max_outage IS
  'as in its definition';
COMMENT ON COLUMN dtx_internal.saga_step_record.held_at IS
  'due_at as it would be if it did not rest: its saga is paused, or waits for another one of its lane; null: it does not rest';
COMMENT ON COLUMN dtx_internal.saga_step_record.due_at IS
  'when a worker has to look at it; null: never';
COMMENT ON COLUMN dtx_internal.saga_step_record.since IS
  'when it has got into its state';
COMMENT ON COLUMN dtx_internal.saga_step_record.boot_id IS
  'random identifier of the server run in which it was completed, or compensated';
COMMENT ON COLUMN dtx_internal.saga_step_record.xid IS
  'full transaction identifier of the transaction that has completed, or compensated, it';
COMMENT ON COLUMN dtx_internal.saga_step_record.done_names IS
  'foreign servers on which it was done, as its definition names them';
COMMENT ON COLUMN dtx_internal.saga_step_record.done_on IS
  'their OIDs: they are the same servers when they were renamed, and others when they were dropped and made anew';
COMMENT ON COLUMN dtx_internal.saga_step_record.done_systems IS
  'system identifiers of the clusters that they led to; 0: not known';

CREATE TABLE dtx_internal.saga_note (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  outcome text NOT NULL,
  sqlstate text,
  message text,
  detail text,
  hint text,
  server oid,
  started_at timestamptz NOT NULL,
  PRIMARY KEY (saga, step)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_note IS
  'what workers could not report because somebody else had the saga locked';
COMMENT ON COLUMN dtx_internal.saga_note.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_note.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_note.outcome IS
  'failed, or stopped';
COMMENT ON COLUMN dtx_internal.saga_note.sqlstate IS
  'SQLSTATE of the error';
COMMENT ON COLUMN dtx_internal.saga_note.message IS
  'its message';
COMMENT ON COLUMN dtx_internal.saga_note.detail IS
  'its detail';
COMMENT ON COLUMN dtx_internal.saga_note.hint IS
  'its hint';
COMMENT ON COLUMN dtx_internal.saga_note.server IS
  'foreign server that was used then; null: none, or not known';
COMMENT ON COLUMN dtx_internal.saga_note.started_at IS
  'when the execution began';

CREATE TABLE dtx_internal.saga_outage (
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  server oid NOT NULL,
  since timestamptz NOT NULL,
  tries integer NOT NULL,
  probe_at timestamptz NOT NULL,
  message text,
  PRIMARY KEY (home, role, server)
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.saga_outage IS
  'foreign servers that do not answer; one step at a time tries whether they do again';
COMMENT ON COLUMN dtx_internal.saga_outage.home IS
  'dtx_internal.saga_record.home';
COMMENT ON COLUMN dtx_internal.saga_outage.role IS
  'role as which a step has found that out; what it cannot reach others may';
COMMENT ON COLUMN dtx_internal.saga_outage.server IS
  'the foreign server';
COMMENT ON COLUMN dtx_internal.saga_outage.since IS
  'when that was found out first';
COMMENT ON COLUMN dtx_internal.saga_outage.tries IS
  'how often it was tried';
COMMENT ON COLUMN dtx_internal.saga_outage.probe_at IS
  'when it is tried next';
COMMENT ON COLUMN dtx_internal.saga_outage.message IS
  'what it was found out from';

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
  'execute or compensate; or what happened to the saga: cancel, retry, skip, force, migrate, adopt, deadline';
COMMENT ON COLUMN dtx_internal.saga_history_record.attempt IS
  'which attempt it was, from 1';
COMMENT ON COLUMN dtx_internal.saga_history_record.outcome IS
  'completed, failed, skipped (its condition was not true), lost (its worker or its lease has gone), late (its worker has reported it as done after that), or for no fault of its own, so that it was no attempt: stopped, or postponed (a server was away, or others had locked the same; only the first time); for other actions, the state that followed';
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
  step text,
  event text NOT NULL,
  at timestamptz NOT NULL,
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  payload jsonb NOT NULL
) USING heap;

CREATE INDEX saga_outbox_saga ON dtx_internal.saga_outbox (saga);

CREATE INDEX saga_outbox_role ON dtx_internal.saga_outbox (role, id);

CREATE INDEX saga_outbox_xid ON dtx_internal.saga_outbox (xid);

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
  'completed, compensated, or failed; or as the definition, or the role that has sent it, has named it';
COMMENT ON COLUMN dtx_internal.saga_outbox.step IS
  'name of the step whose event it is; null: of the saga';
COMMENT ON COLUMN dtx_internal.saga_outbox.xid IS
  'transaction that has written it: it is there for all whose snapshot sees that';
COMMENT ON COLUMN dtx_internal.saga_outbox.at IS
  'when that happened';
COMMENT ON COLUMN dtx_internal.saga_outbox.payload IS
  'key of the saga, results of its steps, and reason, as far as there are any';

-- Consumers of events.  Which transactions a consumer has seen tells which events it has:
-- so none is lost that was committed late.
CREATE TABLE dtx_internal.saga_consumer_record (
  role dtx_internal.saga_role NOT NULL,
  name text NOT NULL,
  seen pg_snapshot NOT NULL,
  reading pg_snapshot,
  after bigint NOT NULL DEFAULT 0,
  registered_at timestamptz NOT NULL,
  taken_at timestamptz,
  PRIMARY KEY (role, name)
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.saga_consumer_record IS
  'consumers of events; see view dtx.saga_consumers';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.role IS
  'whose consumer it is';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.name IS
  'its name';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.seen IS
  'it has had all events of transactions that this snapshot sees';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.reading IS
  'it is having those that this one sees, too; null: none';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.after IS
  'number of the last one of these that it has had';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.registered_at IS
  'when it has taken events for the first time';
COMMENT ON COLUMN dtx_internal.saga_consumer_record.taken_at IS
  'when it has done so for the last time';

-- What others tell a saga.  Whoever does needs no lock on it, and keeps none.
CREATE TABLE dtx_internal.saga_inbox (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  saga bigint NOT NULL,
  kind text NOT NULL CHECK (kind IN ('signal', 'child', 'cancel', 'undo')),
  name text,
  payload jsonb,
  received_at timestamptz NOT NULL,
  by_whom text,
  taken_up boolean NOT NULL DEFAULT false
) USING heap WITH (fillfactor = 70);

CREATE INDEX saga_inbox_saga ON dtx_internal.saga_inbox (saga, name, id);

CREATE INDEX saga_inbox_new ON dtx_internal.saga_inbox (home, role, id) WHERE NOT taken_up;

COMMENT ON TABLE dtx_internal.saga_inbox IS
  'what sagas were told: signals, and what sagas tell those whose steps they are, or the other way round';
COMMENT ON SEQUENCE dtx_internal.saga_inbox_id_seq IS
  'numbers of messages';
COMMENT ON COLUMN dtx_internal.saga_inbox.id IS
  'number of the message; the lowest one counts';
COMMENT ON COLUMN dtx_internal.saga_inbox.home IS
  'dtx_internal.saga_record.home';
COMMENT ON COLUMN dtx_internal.saga_inbox.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_inbox.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_inbox.kind IS
  'signal; child: a saga of a step has ended, or cannot be undone; cancel: turn back; undo: turn back although it is completed';
COMMENT ON COLUMN dtx_internal.saga_inbox.name IS
  'name of the step that a signal is for';
COMMENT ON COLUMN dtx_internal.saga_inbox.payload IS
  'what came with it';
COMMENT ON COLUMN dtx_internal.saga_inbox.received_at IS
  'when it came';
COMMENT ON COLUMN dtx_internal.saga_inbox.by_whom IS
  'role that has sent it';
COMMENT ON COLUMN dtx_internal.saga_inbox.taken_up IS
  'has the saga looked at it?';

-- Sagas that are steps of sagas.  A step of action saga has one row, one of action each as
-- many as there are items.  Neither saga waits for the lock of the other one: they tell each
-- other what is new (dtx_internal.saga_inbox).
CREATE TABLE dtx_internal.saga_child (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  item integer NOT NULL,
  input jsonb NOT NULL,
  child bigint,
  state text NOT NULL DEFAULT 'waiting'
    CHECK (state IN ('waiting', 'running', 'completed', 'canceling', 'undoing', 'undone', 'stuck')),
  failure text,
  PRIMARY KEY (saga, step, item)
) USING heap WITH (fillfactor = 70);

COMMENT ON TABLE dtx_internal.saga_child IS
  'sagas that are steps of sagas';
COMMENT ON COLUMN dtx_internal.saga_child.saga IS
  'dtx_internal.saga_record.id of the saga whose step it is';
COMMENT ON COLUMN dtx_internal.saga_child.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_child.item IS
  'number of the item, from 1';
COMMENT ON COLUMN dtx_internal.saga_child.input IS
  'the item: input of the saga';
COMMENT ON COLUMN dtx_internal.saga_child.child IS
  'dtx_internal.saga_record.id of the saga for it; null: not started yet';
COMMENT ON COLUMN dtx_internal.saga_child.state IS
  'as the saga knows it whose step it is: waiting: not started; running; completed; canceling, undoing: told to turn back; undone: did, or was never started; stuck: cannot';
COMMENT ON COLUMN dtx_internal.saga_child.failure IS
  'why it is undone, or stuck';

CREATE TABLE dtx_internal.saga_external (
  saga bigint NOT NULL,
  step smallint NOT NULL,
  home bigint NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  queue text NOT NULL,
  available_at timestamptz NOT NULL,
  token uuid,
  worker text,
  lease interval,
  claimed_at timestamptz,
  batch uuid,
  place integer,
  begun boolean NOT NULL DEFAULT false,
  PRIMARY KEY (saga, step)
) USING heap WITH (fillfactor = 70);

-- Leases that have ended: their workers may still report.
CREATE TABLE dtx_internal.saga_lost_lease (
  token uuid PRIMARY KEY,
  saga bigint NOT NULL,
  step smallint NOT NULL,
  attempt integer NOT NULL,
  compensation boolean NOT NULL,
  worker text NOT NULL,
  claimed_at timestamptz NOT NULL
) USING heap;

CREATE INDEX saga_lost_lease_saga ON dtx_internal.saga_lost_lease (saga);

COMMENT ON TABLE dtx_internal.saga_lost_lease IS
  'leases of external workers that have ended before their workers have reported';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.token IS
  'its token';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.attempt IS
  'which attempt it was';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.compensation IS
  'at the compensation of the step?';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.worker IS
  'name of the worker that had claimed it';
COMMENT ON COLUMN dtx_internal.saga_lost_lease.claimed_at IS
  'when it had';

-- What was done after its undoing was offered.  Kept until it is acknowledged, and longer.
CREATE TABLE dtx_internal.saga_damage_record (
  saga bigint NOT NULL,
  step text NOT NULL,
  role dtx_internal.saga_role NOT NULL,
  worker text NOT NULL,
  found_at timestamptz NOT NULL,
  acknowledged_at timestamptz,
  acknowledged_by name,
  reason text,
  PRIMARY KEY (saga, step, worker)
) USING heap;

COMMENT ON TABLE dtx_internal.saga_damage_record IS
  'steps that external workers have reported as done after their compensation was offered; see view dtx.saga_damage';
COMMENT ON COLUMN dtx_internal.saga_damage_record.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx_internal.saga_damage_record.step IS
  'name of the step';
COMMENT ON COLUMN dtx_internal.saga_damage_record.role IS
  'dtx_internal.saga_record.role';
COMMENT ON COLUMN dtx_internal.saga_damage_record.worker IS
  'name of the worker';
COMMENT ON COLUMN dtx_internal.saga_damage_record.found_at IS
  'when it has reported';
COMMENT ON COLUMN dtx_internal.saga_damage_record.acknowledged_at IS
  'when that was acknowledged; null: not yet';
COMMENT ON COLUMN dtx_internal.saga_damage_record.acknowledged_by IS
  'by which role';
COMMENT ON COLUMN dtx_internal.saga_damage_record.reason IS
  'and what it has said';

CREATE TABLE dtx_internal.saga_batch (
  id uuid PRIMARY KEY,
  at integer NOT NULL,
  claimed_at timestamptz NOT NULL
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.saga_batch IS
  'steps that an external worker has claimed together: which of them it is at';
COMMENT ON COLUMN dtx_internal.saga_batch.id IS
  'dtx_internal.saga_external.batch';
COMMENT ON COLUMN dtx_internal.saga_batch.at IS
  'place of the step that it is at: after the last one that it has reported';
COMMENT ON COLUMN dtx_internal.saga_batch.claimed_at IS
  'when they were claimed';

CREATE INDEX saga_external_queue ON dtx_internal.saga_external (home, role, queue, available_at);

CREATE UNIQUE INDEX saga_external_token ON dtx_internal.saga_external (token) WHERE token IS NOT NULL;

COMMENT ON TABLE dtx_internal.saga_external IS
  'steps, and compensations, that wait for an external worker or are in its hands';
COMMENT ON COLUMN dtx_internal.saga_external.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.saga_external.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.saga_external.home IS
  'dtx_internal.saga_record.home';
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
COMMENT ON COLUMN dtx_internal.saga_external.batch IS
  'dtx_internal.saga_batch.id; null: it was claimed by itself';
COMMENT ON COLUMN dtx_internal.saga_external.place IS
  'its place in the batch, from 1';
COMMENT ON COLUMN dtx_internal.saga_external.begun IS
  'has its worker said that it works on it?';
COMMENT ON COLUMN dtx_internal.saga_external.claimed_at IS
  'when it was claimed';
