--
-- What workers and the scheduler of sagas call (src/saga/step.c, src/saga/scheduler.c).  Workers ask
-- saga_take() what to do, run the SQL of a step, and report with saga_done() in the
-- step's own transaction, or with saga_error() in another one.  They decide nothing.
--

-- Do the servers show what was done before a step?  Asked at whatever attempt: the first
-- one may have been lost before it was begun, with the worker that had taken it in the
-- commit of the step before.
CREATE OR REPLACE FUNCTION dtx_internal.saga_step_confirmed(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF st.compensation THEN
    RETURN dtx_internal.saga_confirmed(st.boot_id, st.xid)
      AND NOT EXISTS (SELECT
                        FROM dtx_internal.saga_definition_step_record a
                        JOIN dtx_internal.saga_step_record s ON s.saga = sg.id AND s.step = a.step
                       WHERE a.definition = sg.definition
                         AND st.step = ANY (a.ancestors)
                         AND NOT dtx_internal.saga_confirmed(s.boot_id, s.xid));
  ELSIF d.after = '{}' THEN
    RETURN dtx_internal.saga_confirmed(sg.boot_id, sg.xid);
  END IF;
  RETURN NOT EXISTS (SELECT
                       FROM dtx_internal.saga_step_record s
                      WHERE s.saga = sg.id
                        AND s.step = ANY (d.after)
                        AND NOT dtx_internal.saga_confirmed(s.boot_id, s.xid));
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_step_confirmed(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: have all servers confirmed what was done before a step?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_idempotency_key(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('%s/%s/%s%s', to_hex((sg).home), (sg).id, (d).name, CASE WHEN (st).compensation THEN '/undo' ELSE '' END)
$$;

COMMENT ON FUNCTION dtx_internal.saga_idempotency_key(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: the same at each attempt at a step, and of no other step of whatever saga in whatever database';

-- A step of action sql is due, or one whose expressions are to be evaluated: this worker has
-- claimed it, and is told what to execute.
CREATE OR REPLACE FUNCTION dtx_internal.saga_take_sql(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record,
  OUT attempt integer, OUT direction text, OUT servers name[], OUT commands text[],
  OUT min_rows integer[], OUT input jsonb, OUT results jsonb, OUT timeout interval, OUT context jsonb, OUT condition text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  UPDATE dtx_internal.saga_step_record
     SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'running' END::dtx.saga_step_state,
         taken = true, attempt = st.attempt + 1, since = clock_timestamp()
   WHERE saga = sg.id AND step = st.step;
  attempt := st.attempt + 1;
  IF st.compensation THEN
    direction := 'compensate';
    SELECT array_agg(p.now_named ORDER BY u.i DESC), array_agg(u.c ORDER BY u.i DESC), array_agg(NULL::integer)
      INTO servers, commands, min_rows
      FROM unnest(d.compensate) WITH ORDINALITY AS u (c, i)
      LEFT JOIN dtx_internal.saga_places(st, d) AS p ON p.position = u.i
     WHERE u.c IS NOT NULL;
  ELSE
    direction := 'execute';
    IF d.action = 'sql' THEN
      servers := d.servers;
      commands := d."execute";
      min_rows := d.min_rows;
    END IF;
    -- No row, if the step is to be skipped.
    IF d.condition IS NOT NULL OR d.expression IS NOT NULL THEN
      condition := format(E'SELECT %s%s',
        coalesce(E'pg_catalog.to_jsonb((\n' || d.expression || E'\n)) AS value', ''),
        coalesce(E' WHERE (\n' || d.condition || E'\n)', ''));
    END IF;
  END IF;
  -- (of others, it is the time of the whole wait)
  timeout := CASE WHEN d.action = 'sql' THEN d.timeout END;
  context := jsonb_build_object('saga', sg.id, 'step', d.name, 'action', direction, 'attempt', attempt,
    'key', (SELECT x.key FROM dtx_internal.saga_data x WHERE x.saga = sg.id), 'parent', sg.parent, 'started_at', sg.started_at,
    'idempotency_key', dtx_internal.saga_idempotency_key(sg, st, d));
  SELECT x.input INTO input FROM dtx_internal.saga_data x WHERE x.saga = sg.id;
  results := dtx_internal.saga_results(sg.id, sg.definition, d.needs);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_take_sql(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: gives a step to the worker that has claimed it';

-- A day has 24 hours, whatever the time zone of the role, and a month ends when it does in UTC.
CREATE OR REPLACE FUNCTION dtx_internal.saga_after(at timestamptz, delay interval) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT (at AT TIME ZONE 'UTC' + delay) AT TIME ZONE 'UTC'
$$;

COMMENT ON FUNCTION dtx_internal.saga_after(timestamptz, interval) IS
  'internal: the time at which a delay is over';

-- A step of action sleep is due: begin to wait, or the time is over.
CREATE OR REPLACE FUNCTION dtx_internal.saga_do_sleep(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record, value jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  until timestamptz := now_at;
BEGIN
  IF st.state IN ('pending', 'running') THEN
    until := CASE WHEN d.expression IS NOT NULL THEN (value #>> '{}')::timestamptz ELSE dtx_internal.saga_after(now_at, d.delay) END;
    IF until IS NULL OR NOT isfinite(until) OR until > now_at + interval '1000 years' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('time until which step "%s" is to sleep must not be null, infinite, or more than 1000 years away', d.name);
    END IF;
  END IF;
  IF until > now_at THEN
    UPDATE dtx_internal.saga_step_record
       SET state = 'waiting', taken = false, lane = 1, due_at = until, since = now_at
     WHERE saga = sg.id AND step = st.step;
    PERFORM dtx_internal.wake_sagas();
  ELSE
    PERFORM dtx_internal.saga_succeeded(sg, st, NULL, st.since);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_do_sleep(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record, jsonb) IS
  'internal: what is to be done now for a step that lets time pass';

-- A step of action signal is due: begin to wait, or the signal is there, or it has not
-- come in time.
CREATE OR REPLACE FUNCTION dtx_internal.saga_do_signal(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  payload jsonb;
BEGIN
  SELECT CASE WHEN d.count IS NULL THEN (array_agg(x.payload ORDER BY x.id))[1]
              ELSE jsonb_agg(coalesce(x.payload, 'null') ORDER BY x.id) END INTO payload
    FROM (SELECT s.id, s.payload FROM dtx_internal.saga_inbox s
           WHERE s.saga = sg.id AND s.kind = 'signal' AND s.name = d.name ORDER BY s.id LIMIT coalesce(d.count, 1)) AS x
  HAVING count(*) = coalesce(d.count, 1);
  IF FOUND THEN
    PERFORM dtx_internal.saga_succeeded(sg, st, payload, st.since);
  ELSIF st.state IN ('pending', 'running') THEN
    UPDATE dtx_internal.saga_step_record
       SET state = 'waiting', taken = false, lane = 1, due_at = now_at + d.timeout, since = now_at
     WHERE saga = sg.id AND step = st.step;
    IF d.timeout IS NOT NULL THEN
      PERFORM dtx_internal.wake_sagas();
    END IF;
  ELSE
    PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', false, true, '57014',
      'the signal has not come in time', NULL, NULL, st.since);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_do_signal(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: what is to be done now for a step that waits for a signal';

-- A step of action external is due: offer it to external workers, or something was to
-- happen to what they have been offered until now.
CREATE OR REPLACE FUNCTION dtx_internal.saga_do_external(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  this_queue text := CASE WHEN st.compensation THEN d.compensate_queue ELSE d.queue END;
  e dtx_internal.saga_external;
BEGIN
  IF st.state IN ('pending', 'running') OR (st.compensation AND NOT EXISTS (
       SELECT FROM dtx_internal.saga_external x WHERE x.saga = sg.id AND x.step = st.step)) THEN
    INSERT INTO dtx_internal.saga_external (saga, step, home, role, queue, available_at)
    VALUES (sg.id, st.step, sg.home, sg.role, this_queue, now_at);
    UPDATE dtx_internal.saga_step_record
       SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'waiting' END::dtx.saga_step_state, taken = false, lane = 1,
           attempt = CASE WHEN st.taken THEN st.attempt - 1 ELSE st.attempt END,
           due_at = CASE WHEN NOT st.compensation THEN now_at + d.timeout END, since = now_at
     WHERE saga = sg.id AND step = st.step;
    PERFORM dtx_internal.saga_announce(this_queue);
    PERFORM dtx_internal.saga_finished(hashtext(this_queue));
    IF d.timeout IS NOT NULL THEN
      PERFORM dtx_internal.wake_sagas();
    END IF;
    RETURN;
  END IF;

  SELECT x.* INTO STRICT e FROM dtx_internal.saga_external x WHERE x.saga = sg.id AND x.step = st.step FOR UPDATE;
  IF e.token IS NOT NULL AND e.available_at <= now_at AND NOT dtx_internal.saga_clock_right() THEN
    UPDATE dtx_internal.saga_step_record SET due_at = now_at + '200 ms' WHERE saga = sg.id AND step = st.step;
    PERFORM dtx_internal.wake_sagas();
  ELSIF e.token IS NOT NULL AND e.available_at <= now_at THEN
    PERFORM dtx_internal.saga_lease_lost(sg, st, e);
  ELSIF NOT st.compensation AND st.since + d.timeout <= now_at THEN
    st.doubt := st.doubt OR e.token IS NOT NULL;
    INSERT INTO dtx_internal.saga_lost_lease (token, saga, step, attempt, compensation, worker, claimed_at)
    SELECT e.token, sg.id, st.step, st.attempt, st.compensation, e.worker, e.claimed_at WHERE e.token IS NOT NULL;
    PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', false, true, '57014',
      CASE WHEN e.token IS NULL THEN format('no worker has completed it within %s', d.timeout)
           ELSE format('worker "%s" has not completed it within %s', e.worker, d.timeout) END,
      NULL, NULL, coalesce(e.claimed_at, st.since), e.worker);
  ELSE
    UPDATE dtx_internal.saga_step_record
       SET due_at = least(CASE WHEN e.token IS NOT NULL OR e.available_at > now_at THEN e.available_at END,
                          CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
     WHERE saga = sg.id AND step = st.step;
    IF e.token IS NULL AND e.available_at <= now_at THEN
      PERFORM dtx_internal.saga_announce(e.queue);
      PERFORM dtx_internal.saga_finished(hashtext(e.queue));
    END IF;
    PERFORM dtx_internal.wake_sagas();
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_do_external(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: what is to be done now for a step that is for external workers';

-- May a worker of a role use a foreign server (0: none) now?  open; closed; or probe, if it
-- did not answer when it was used last, and it is time to try again.
CREATE OR REPLACE FUNCTION dtx_internal.saga_gate(role oid, server oid) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_home();
  probe_at timestamptz;
BEGIN
  IF server = 1::oid THEN
    RETURN 'open';
  ELSIF EXISTS (SELECT FROM dtx_internal.saga_pause_record p JOIN pg_foreign_server f ON f.srvname = p.name
                 WHERE p.kind = 'server' AND f.oid = saga_gate.server AND p.role IN (saga_gate.role, 0::oid)) THEN
    RETURN 'closed';
  ELSIF NOT dtx_internal.saga_lane_open(server, saga_gate.role) THEN
    RETURN 'closed';
  ELSIF server = 0::oid THEN
    RETURN 'open';
  END IF;
  SELECT o.probe_at INTO probe_at FROM dtx_internal.saga_outage o
   WHERE o.home = here AND o.role = saga_gate.role AND o.server = saga_gate.server;
  IF NOT FOUND THEN
    RETURN 'open';
  ELSIF probe_at > clock_timestamp() OR dtx_internal.saga_lane_used(saga_gate.server, saga_gate.role) THEN
    RETURN 'closed';
  END IF;
  RETURN 'probe';
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_gate(oid, oid) IS
  'internal: may a step of a role begin that needs a foreign server?';

-- Looks at one step that seems to be due.  Verdicts: take (it is to be
-- executed), did (all that was to be done is done), skip (nothing to do here).
-- Plain index scans whatever the statistics say: the tables may have been empty
-- when the plan was made.
CREATE OR REPLACE FUNCTION dtx_internal.saga_try(saga bigint, step smallint, sql_only boolean,
  OUT verdict text, OUT attempt integer, OUT direction text, OUT servers name[], OUT commands text[],
  OUT min_rows integer[], OUT input jsonb, OUT results jsonb, OUT timeout interval, OUT context jsonb, OUT condition text
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
  now_at timestamptz;
  server oid;
  gone name;
  t record;
  by_worker boolean;            -- is there anything that a worker has to execute?
BEGIN
  verdict := 'skip';
  SELECT g.* INTO sg FROM dtx_internal.saga_record g
   WHERE g.id = saga_try.saga AND g.home = dtx_internal.saga_active_home() FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s
   WHERE s.saga = saga_try.saga AND s.step = saga_try.step FOR UPDATE;
  now_at := clock_timestamp();
  IF NOT FOUND OR st.due_at IS NULL OR st.due_at > now_at
     OR (st.taken AND NOT st.noted AND dtx_internal.saga_claimed(st.saga, st.step)) THEN
    RETURN;
  END IF;

  IF st.step = 0 THEN
    -- the deadline
    IF sql_only THEN
      RETURN;
    END IF;
    verdict := 'did';
    sg := dtx_internal.saga_take_notes(sg);
    IF sg.state IN ('completed', 'compensated') THEN
      NULL;                     -- it has ended meanwhile
    ELSIF sg.compensating THEN
      DELETE FROM dtx_internal.saga_step_record WHERE saga = sg.id AND step = 0;
    ELSE
      PERFORM dtx_internal.saga_deadline(sg);
    END IF;
    RETURN;
  END IF;

  -- What rests is not due, and becomes so again when it does not rest any more.
  IF NOT st.taken
     AND (sg.paused
          OR EXISTS (SELECT FROM dtx_internal.saga_pause_record p JOIN dtx_internal.saga_definition_record f ON f.name = p.name AND f.owner = p.role
                      WHERE p.kind = 'definition' AND f.id = sg.definition)
          OR (sg.state = 'pending' AND dtx_internal.saga_lane_waits(sg))) THEN
    UPDATE dtx_internal.saga_step_record SET held_at = due_at, due_at = NULL WHERE saga = sg.id AND step = st.step;
    -- What it waits for may just have ended.
    PERFORM dtx_internal.wake_sagas();
    verdict := CASE WHEN sql_only THEN 'skip' ELSE 'did' END;
    RETURN;
  END IF;

  SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
   WHERE a.definition = sg.definition AND a.step = st.step;
  by_worker := d.action = 'sql'
    OR (st.state = 'pending' AND (d.condition IS NOT NULL OR d.expression IS NOT NULL)
        AND NOT EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = st.step));
  IF sql_only AND (NOT by_worker OR st.taken) THEN
    RETURN;
  END IF;

  IF st.noted THEN
    PERFORM dtx_internal.saga_take_note(sg, st);
    verdict := 'did';
    RETURN;
  END IF;

  IF st.taken THEN
    -- Its worker has gone, and its transaction with it.
    PERFORM dtx_internal.saga_attempt_failed(sg, st, 'lost', true, false, '57P01', 'the worker has gone', NULL, NULL, st.since);
    verdict := 'did';
    RETURN;
  END IF;

  IF st.state IN ('pending', 'compensating') AND NOT dtx_internal.saga_step_confirmed(sg, st, d) THEN
    UPDATE dtx_internal.saga_step_record
       SET due_at = now_at + greatest(least((now_at - st.since) / 2, '5 s'), '20 ms')
     WHERE saga = sg.id AND step = st.step;
    PERFORM dtx_internal.wake_sagas();
    RETURN;
  END IF;

  IF d.action = 'sql' AND st.compensation THEN
    SELECT p.name INTO gone FROM dtx_internal.saga_places(st, d) AS p WHERE p.server IS NULL ORDER BY p.position LIMIT 1;
    IF FOUND THEN
      st.attempt := st.attempt + 1;
      PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', false, true, 'DX002',
        format('server "%s", on which the step was done, does not exist any more', gone),
        'A server of the same name that was made later is another one.',
        'Undo by hand what was done there, and call dtx.skip_step().', now_at);
      verdict := 'did';
      RETURN;
    END IF;
  END IF;

  IF by_worker THEN
    -- It waits in the part of the queue of a server of which there is no room.
    FOREACH server IN ARRAY CASE WHEN st.servers = '{}' THEN ARRAY[0::oid] ELSE st.servers END LOOP
      IF dtx_internal.saga_gate(st.role, server) = 'closed' THEN
        UPDATE dtx_internal.saga_step_record SET lane = server WHERE saga = sg.id AND step = st.step AND lane <> server;
        RETURN;
      END IF;
    END LOOP;
    IF NOT dtx_internal.saga_claim(st.saga, st.step, st.attempt + 1, st.compensation,
             CASE WHEN st.servers = '{}' THEN ARRAY[0::oid] ELSE st.servers END, st.role) THEN
      RETURN;
    END IF;
    -- Of those that wait for a server that does not answer, this one tries.
    UPDATE dtx_internal.saga_outage AS o
       SET tries = o.tries + 1, probe_at = now_at + dtx_internal.saga_probe_pause(o.tries + 1)
     WHERE o.ctid IN (SELECT x.ctid FROM dtx_internal.saga_outage x
                       WHERE x.home = st.home AND x.role = st.role AND x.server = ANY (st.servers) FOR UPDATE SKIP LOCKED);
  END IF;
  IF sg.state = 'pending' THEN
    sg.state := 'running';
    UPDATE dtx_internal.saga_record SET state = 'running' WHERE id = sg.id;
    -- What has begun comes before what has not.
    UPDATE dtx_internal.saga_step_record AS s
       SET rank = dtx_internal.saga_rank('begun', sg.priority)
     WHERE s.saga = sg.id AND s.step > 0;
  END IF;

  verdict := 'did';
  CASE (CASE WHEN by_worker THEN 'sql' ELSE d.action END)
    WHEN 'sql' THEN
      verdict := 'take';
      t := dtx_internal.saga_take_sql(sg, st, d);
      attempt := t.attempt;
      direction := t.direction;
      servers := t.servers;
      commands := t.commands;
      min_rows := t.min_rows;
      input := t.input;
      results := t.results;
      timeout := t.timeout;
      context := t.context;
      condition := t.condition;
    WHEN 'sleep' THEN
      PERFORM dtx_internal.saga_do_sleep(sg, st, d);
    WHEN 'signal' THEN
      PERFORM dtx_internal.saga_do_signal(sg, st, d);
    WHEN 'external' THEN
      PERFORM dtx_internal.saga_do_external(sg, st, d);
    ELSE
      PERFORM dtx_internal.saga_do_children(sg, st, d);
  END CASE;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_try(bigint, smallint, boolean) IS
  'internal: looks at a step that may be due, and takes it or does what is to be done without a worker';

-- Something is wrong with a saga such that nobody can even look whether a step of
-- it is to be executed.  The others must not wait for that.
CREATE OR REPLACE FUNCTION dtx_internal.saga_postpone(saga bigint, step smallint, sqlstate text, message text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  now_at timestamptz := clock_timestamp();
  retry_at timestamptz;
BEGIN
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_postpone.saga FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s
   WHERE s.saga = saga_postpone.saga AND s.step = saga_postpone.step FOR UPDATE;
  IF NOT FOUND OR st.due_at IS NULL OR st.due_at > now_at THEN
    RETURN;
  END IF;
  -- The longer it lasts, the more seldom it is tried.
  retry_at := now_at + greatest(least(now_at - st.since, '1 hour'), '1 minute');
  UPDATE dtx_internal.saga_step_record SET due_at = retry_at WHERE saga = sg.id AND step = st.step;
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, started_at, finished_at, retry_at)
  VALUES (sg.id, nullif(st.step, 0),
          CASE WHEN st.step = 0 THEN 'deadline' WHEN st.compensation THEN 'compensate' ELSE 'execute' END,
          nullif(st.attempt, 0), CASE WHEN st.step = 0 THEN sg.state::text ELSE 'failed' END,
          saga_postpone.sqlstate, left(saga_postpone.message, 8000), now_at, now_at, retry_at);
  PERFORM dtx_internal.wake_sagas();
  PERFORM dtx_internal.saga_warn(
    format('saga %s cannot go on: %s', sg.id, left(saga_postpone.message, 8000)),
    format('It is looked at again at %s.', retry_at),
    'If that does not help, end the saga with dtx.force_saga().');
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_postpone(bigint, smallint, text, text) IS
  'internal: leaves for later a step that cannot be looked at because of an error';

-- careful: an error is no reason to stop (see above); costs a subtransaction.
CREATE OR REPLACE FUNCTION dtx_internal.saga_take(role oid, of_saga bigint DEFAULT NULL, careful boolean DEFAULT false,
  OUT saga bigint, OUT step smallint, OUT attempt integer, OUT direction text, OUT servers name[], OUT commands text[],
  OUT min_rows integer[], OUT input jsonb, OUT results jsonb, OUT timeout interval, OUT context jsonb, OUT condition text, OUT more boolean
)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  -- What is in the hands of workers is left out; what else cannot be taken is
  -- locked by others, mostly a few for a moment, but a transaction may hold many.
  -- Rows are read as they are needed, so this costs nothing where none is locked.
  bound constant integer := 5000;
  -- (a variable, because a volatile function would not be a condition of the index)
  now_at timestamptz := clock_timestamp();
  here bigint := dtx_internal.saga_active_home();
  this record;
  due record;
  t record;
BEGIN
  more := false;
  -- Each part of the queue is found by a look at one end of its part of the index.
  FOR this IN
    SELECT y.lane, y.rank
      FROM (SELECT x.lane, x.rank
      FROM (WITH RECURSIVE l (lane, rank) AS (
              (SELECT s.lane, s.rank FROM dtx_internal.saga_step_record s
                WHERE s.home = here AND s.role = saga_take.role AND s.due_at IS NOT NULL AND s.step > 0
                ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1)
              UNION ALL
              SELECT n.lane, n.rank
                FROM l
                CROSS JOIN LATERAL (SELECT s.lane, s.rank FROM dtx_internal.saga_step_record s
                                     WHERE s.home = here AND s.role = saga_take.role AND (s.lane, s.rank) > (l.lane, l.rank)
                                       AND s.due_at IS NOT NULL AND s.step > 0
                                     ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1) AS n)
            SELECT l.lane, l.rank FROM l) AS x
             WHERE of_saga IS NULL
             UNION ALL
            SELECT NULL, NULL WHERE of_saga IS NOT NULL) AS y
     ORDER BY y.rank, y.lane <> 1, random()
  LOOP
    CONTINUE WHEN of_saga IS NULL AND dtx_internal.saga_gate(saga_take.role, this.lane) = 'closed';
    FOR due IN
      SELECT q.saga, q.step
        FROM (SELECT s.saga, s.step
                FROM dtx_internal.saga_step_record s
               WHERE of_saga IS NULL AND s.home = here AND s.role = saga_take.role AND s.lane = this.lane AND s.rank = this.rank
                 AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step > 0
                 AND NOT (s.taken AND NOT s.noted AND dtx_internal.saga_claimed(s.saga, s.step))
               ORDER BY s.home, s.role, s.lane, s.rank, s.due_at
               LIMIT bound) AS q
      UNION ALL
      SELECT q.saga, q.step
        FROM (SELECT s.saga, s.step
                FROM dtx_internal.saga_step_record s
               WHERE s.saga = of_saga AND s.step > 0 AND s.due_at <= now_at AND NOT s.taken) AS q
    LOOP
      IF careful THEN
        BEGIN
          t := dtx_internal.saga_try(due.saga, due.step, of_saga IS NOT NULL);
        EXCEPTION WHEN deadlock_detected OR lock_not_available THEN
          RAISE;        -- a table is locked, which is no fault of this saga
        WHEN OTHERS THEN
          PERFORM dtx_internal.saga_postpone(due.saga, due.step, SQLSTATE, SQLERRM);
          CONTINUE;
        END;
      ELSE
        t := dtx_internal.saga_try(due.saga, due.step, of_saga IS NOT NULL);
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
        context := t.context;
        condition := t.condition;
        RETURN;
      ELSIF t.verdict = 'did' THEN
        more := true;
        RETURN;
      END IF;
      EXIT WHEN of_saga IS NULL AND dtx_internal.saga_gate(saga_take.role, this.lane) = 'closed';
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_take(oid, bigint, boolean) IS
  'internal: gives a worker a step that is due';

-- Somebody has the saga locked: what a worker has to say of a step is left for later, so
-- that no worker waits.  outcome null: it was done, in this transaction.
CREATE OR REPLACE FUNCTION dtx_internal.saga_note_down(st dtx_internal.saga_step_record, outcome text, sqlstate text,
  message text, detail text, hint text, server oid, started_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF outcome IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_note (saga, step, outcome, sqlstate, message, detail, hint, server, started_at)
    VALUES (st.saga, st.step, saga_note_down.outcome, saga_note_down.sqlstate, left(saga_note_down.message, 8000),
            left(saga_note_down.detail, 8000), left(saga_note_down.hint, 8000), saga_note_down.server, saga_note_down.started_at);
  END IF;
  UPDATE dtx_internal.saga_step_record
     SET noted = true, lane = 1, due_at = clock_timestamp(), boot_id = dtx_internal.boot_id(), xid = dtx_internal.saga_xid()
   WHERE saga = st.saga AND step = st.step;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_note_down(dtx_internal.saga_step_record, text, text, text, text, text, oid, timestamptz) IS
  'internal: leaves for later what a worker has to report of a step, because the saga is locked';

-- most: if that many executions of the step were stopped for that reason before, this one
-- counts as an attempt that was lost.  A step may have told its worker to leave itself.
CREATE OR REPLACE FUNCTION dtx_internal.saga_untake(saga bigint, step smallint, attempt integer, direction text, why text DEFAULT NULL,
  started_at timestamptz DEFAULT NULL, most integer DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  is_free boolean;
BEGIN
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_untake.saga FOR UPDATE SKIP LOCKED;
  is_free := FOUND;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s
   WHERE s.saga = saga_untake.saga AND s.step = saga_untake.step
     AND s.taken AND NOT s.noted AND s.attempt = saga_untake.attempt
     AND s.compensation = (saga_untake.direction = 'compensate') FOR UPDATE;
  IF FOUND THEN
    IF NOT is_free THEN
      PERFORM dtx_internal.saga_note_down(st, 'stopped', NULL, why, NULL, NULL, NULL, coalesce(saga_untake.started_at, now_at));
    ELSIF most IS NOT NULL
      AND (SELECT count(*)
             FROM dtx_internal.saga_history_record h
            WHERE h.saga = saga_untake.saga AND h.step = saga_untake.step AND h.action = saga_untake.direction
              AND h.outcome = 'stopped' AND h.message = why) >= most THEN
      PERFORM dtx_internal.saga_attempt_failed(sg, st, 'lost', true, false, '57P01', why, NULL, NULL,
                                       coalesce(saga_untake.started_at, now_at));
    ELSE
      PERFORM dtx_internal.saga_stopped(sg, st, why, saga_untake.started_at);
    END IF;
  END IF;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_untake(bigint, smallint, integer, text, text, timestamptz, integer) IS
  'internal: a worker gives back a step that it has not begun to execute, or whose execution was stopped for no fault of the step';

-- skipped: its condition was not true.  Of a step that is none of SQL, result has the value of
-- its expression, and it begins now.
CREATE OR REPLACE FUNCTION dtx_internal.saga_done(saga bigint, step smallint, attempt integer, direction text, result jsonb,
  server_names name[] DEFAULT NULL, systems bigint[] DEFAULT NULL, skipped boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
  is_free boolean;
  elsewhere name;
BEGIN
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_done.saga FOR UPDATE SKIP LOCKED;
  is_free := FOUND;
  IF NOT is_free THEN
    SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_done.saga;
  END IF;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s
   WHERE s.saga = saga_done.saga AND s.step = saga_done.step FOR UPDATE;
  IF st.taken IS NOT TRUE OR st.noted OR st.attempt <> saga_done.attempt
     OR st.compensation <> (saga_done.direction = 'compensate') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'DX001',
      MESSAGE = format('attempt %s at step %s of saga %s is not valid any more',
                       saga_done.attempt, saga_done.step, saga_done.saga);
  END IF;
  SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
   WHERE a.definition = sg.definition AND a.step = st.step;
  IF skipped OR d.action NOT IN ('sql') AND NOT st.compensation THEN
    IF NOT is_free THEN
      -- Nothing was done, so that is tried again.
      RAISE EXCEPTION USING
        ERRCODE = 'lock_not_available',
        MESSAGE = format('saga %s is locked by another transaction', saga_done.saga);
    ELSIF skipped THEN
      PERFORM dtx_internal.saga_skipped(sg, st);
    ELSIF sg.compensating THEN
      PERFORM dtx_internal.saga_stopped(sg, st, NULL, NULL);
    ELSE
      CASE d.action
        WHEN 'sleep' THEN
          PERFORM dtx_internal.saga_do_sleep(sg, st, d, result -> 'value');
        WHEN 'signal' THEN
          PERFORM dtx_internal.saga_do_signal(sg, st, d);
        WHEN 'external' THEN
          PERFORM dtx_internal.saga_do_external(sg, st, d);
        ELSE
          PERFORM dtx_internal.saga_do_children(sg, st, d, nullif(result -> 'value', 'null'));
      END CASE;
    END IF;
    RETURN;
  END IF;
  IF NOT st.compensation THEN
    PERFORM dtx_internal.saga_check_result(sg, saga_done.result);
  END IF;
  IF st.compensation THEN
    -- Names and options of servers may have changed, but not what they lead to.
    SELECT u.name INTO elsewhere
      FROM unnest(saga_done.server_names, saga_done.systems) AS u (name, system)
      JOIN pg_foreign_server f ON f.srvname = u.name
      JOIN unnest(st.done_on, st.done_systems) AS o (server, system) ON o.server = f.oid
     WHERE u.system <> 0 AND o.system <> 0 AND u.system <> o.system
     LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'DX002',
        MESSAGE = format('server "%s" leads to another cluster than when the step was done', elsewhere),
        DETAIL = 'Nothing was changed there.',
        HINT = 'Have the server lead to where it did and call dtx.retry_saga(); or undo by hand what was done, and call dtx.skip_step().';
    END IF;
  ELSIF server_names IS NOT NULL THEN
    UPDATE dtx_internal.saga_step_record AS s
       SET done_names = x.names, done_on = x.servers, done_systems = x.systems
      FROM (SELECT array_agg(f.srvname ORDER BY f.oid) AS names, array_agg(f.oid ORDER BY f.oid) AS servers,
                   array_agg(u.system ORDER BY f.oid) AS systems
              FROM unnest(saga_done.server_names, saga_done.systems) AS u (name, system)
              JOIN pg_foreign_server f ON f.srvname = u.name) AS x
     WHERE s.saga = st.saga AND s.step = st.step;
  END IF;
  PERFORM dtx_internal.saga_answered(st, st.servers);
  IF is_free THEN
    PERFORM dtx_internal.saga_succeeded(sg, st, result, st.since);
    RETURN;
  END IF;
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, started_at, finished_at)
  VALUES (sg.id, st.step, saga_done.direction, nullif(st.attempt, 0), 'completed', st.since, clock_timestamp());
  IF result IS NOT NULL AND NOT st.compensation THEN
    INSERT INTO dtx_internal.saga_result (saga, step, result) VALUES (sg.id, st.step, saga_done.result);
  END IF;
  PERFORM dtx_internal.saga_note_down(st, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_done(bigint, smallint, integer, text, jsonb, name[], bigint[], boolean) IS
  'internal: a worker has executed a step, in this transaction';

-- Which errors may go away by themselves.
CREATE OR REPLACE FUNCTION dtx_internal.saga_retryable(sqlstate text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(dtx_internal.saga_trouble(sqlstate) IN ('away', 'lost', 'collision')
    OR left(sqlstate, 2) = '40'
    OR sqlstate IN ('57014',                    -- query_canceled: a timeout, mostly
                    '25P03', '25P04'), false)   -- other timeouts of a server
$$;

COMMENT ON FUNCTION dtx_internal.saga_retryable(text) IS
  'internal: may the same succeed if it is tried again?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_error(saga bigint, step smallint, attempt integer, direction text, sqlstate text,
  message text, detail text, hint text, started_at timestamptz, server text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  is_free boolean;
  serverid oid;
BEGIN
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_error.saga FOR UPDATE SKIP LOCKED;
  is_free := FOUND;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s
   WHERE s.saga = saga_error.saga AND s.step = saga_error.step FOR UPDATE;
  IF st.taken IS NOT TRUE OR st.noted OR st.attempt <> saga_error.attempt
     OR st.compensation <> (saga_error.direction = 'compensate') THEN
    RETURN;                     -- it was decided otherwise meanwhile
  END IF;
  serverid := (SELECT f.oid FROM pg_foreign_server f WHERE f.srvname = saga_error.server);
  IF is_free THEN
    PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', dtx_internal.saga_retryable(saga_error.sqlstate), false, saga_error.sqlstate,
      saga_error.message, saga_error.detail, saga_error.hint, coalesce(saga_error.started_at, st.since), NULL, serverid);
  ELSE
    PERFORM dtx_internal.saga_note_down(st, 'failed', saga_error.sqlstate, saga_error.message, saga_error.detail, saga_error.hint,
      serverid, coalesce(saga_error.started_at, st.since));
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_error(bigint, smallint, integer, text, text, text, text, text, timestamptz, text) IS
  'internal: a worker''s attempt at a step has failed';

CREATE OR REPLACE FUNCTION dtx_internal.saga_schedule(OUT role oid, OUT due bigint, OUT next_due timestamptz) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  enough integer := greatest(coalesce(current_setting('pg_dtx.saga_workers', true)::integer, 0), 1);
  -- (a variable, because a volatile function would not be a condition of the index)
  now_at timestamptz := clock_timestamp();
  here bigint := dtx_internal.saga_active_home();
  this_role oid;
  this_lane oid;
  this_rank integer;
  gate text;
  n bigint;
  t timestamptz;
BEGIN
  -- From one (role, lane, rank) to the next, each at one end of its part of the index.
  SELECT s.role, s.lane, s.rank INTO this_role, this_lane, this_rank
    FROM dtx_internal.saga_step_record s
   WHERE s.home = here AND s.due_at IS NOT NULL AND s.step > 0
   ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1;
  WHILE this_role IS NOT NULL LOOP
    IF role IS DISTINCT FROM this_role THEN
      IF role IS NOT NULL THEN
        RETURN NEXT;
      END IF;
      role := this_role;
      due := 0;
      next_due := NULL;
    END IF;
    IF due < enough THEN
      gate := dtx_internal.saga_gate(this_role, this_lane);
      SELECT count(*) INTO n
        FROM (SELECT
                FROM dtx_internal.saga_step_record s
               WHERE s.home = here AND s.role = this_role AND s.lane = this_lane AND s.rank = this_rank
                 AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step > 0
                 AND NOT (s.taken AND NOT s.noted AND dtx_internal.saga_claimed(s.saga, s.step))
               LIMIT CASE gate WHEN 'open' THEN enough - due ELSE 1 END) AS x;
      IF gate <> 'closed' THEN
        due := due + n;
      ELSIF n > 0 AND NOT EXISTS (SELECT FROM dtx_internal.saga_pause_record p JOIN pg_foreign_server f ON f.srvname = p.name
                                   WHERE p.kind = 'server' AND f.oid = this_lane AND p.role IN (this_role, 0::oid)) THEN
        -- Others are on this server: soon again; or it does not answer.
        next_due := least(next_due,
          greatest(now_at + interval '200 milliseconds',
                   (SELECT o.probe_at FROM dtx_internal.saga_outage o
                     WHERE o.home = here AND o.role = this_role AND o.server = this_lane)));
      END IF;
    END IF;
    SELECT s.due_at INTO t
      FROM dtx_internal.saga_step_record s
     WHERE s.home = here AND s.role = this_role AND s.lane = this_lane AND s.rank = this_rank
       AND s.due_at > now_at AND s.due_at IS NOT NULL AND s.step > 0
     ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1;
    next_due := least(next_due, t);
    SELECT s.role, s.lane, s.rank INTO this_role, this_lane, this_rank
      FROM dtx_internal.saga_step_record s
     WHERE s.home = here AND (s.role, s.lane, s.rank) > (this_role, this_lane, this_rank) AND s.due_at IS NOT NULL AND s.step > 0
     ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1;
  END LOOP;
  IF role IS NOT NULL THEN
    RETURN NEXT;
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_schedule() IS
  'internal: for each role with work, how much is due now (not counted further than there are workers), and when there will be more';

-- Deadlines that have passed, n at most, and when to ask again.  For each role in turn,
-- an equal share of n, from the one that follows the last one that was served, so that
-- a role that has many of them, or has locked many of its sagas, is in nobody's way.
CREATE OR REPLACE FUNCTION dtx_internal.saga_deadlines(n integer, after oid DEFAULT 0, OUT next_due timestamptz, OUT last oid) RETURNS record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  here bigint := dtx_internal.saga_active_home();
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
    (SELECT s.role FROM dtx_internal.saga_step_record s
      WHERE s.home = here AND s.due_at IS NOT NULL AND s.step = 0
      ORDER BY s.home, s.role, s.due_at LIMIT 1)
    UNION ALL
    SELECT (SELECT s.role FROM dtx_internal.saga_step_record s
             WHERE s.home = here AND s.role > r.role AND s.due_at IS NOT NULL AND s.step = 0
             ORDER BY s.home, s.role, s.due_at LIMIT 1)
      FROM r WHERE r.role IS NOT NULL),
  f AS (
    SELECT r.role,
           (SELECT s.due_at FROM dtx_internal.saga_step_record s
             WHERE s.home = here AND s.role = r.role AND s.due_at IS NOT NULL AND s.step = 0
             ORDER BY s.home, s.role, s.due_at LIMIT 1) AS due_at
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
        FROM dtx_internal.saga_step_record s
       WHERE s.home = here AND s.role = this_role AND s.due_at <= now_at AND s.due_at IS NOT NULL AND s.step = 0
       ORDER BY s.home, s.role, s.due_at
       LIMIT 1000
    LOOP
      IF budget <= 0 THEN
        next_due := now_at;
        EXIT;
      END IF;
      BEGIN
        IF (dtx_internal.saga_try(due.saga, 0::smallint, false)).verdict = 'did' THEN
          n := n - 1;
          budget := budget - 1;
        ELSE
          next_due := least(next_due, now_at + '1 s');   -- locked by another transaction
        END IF;
      EXCEPTION WHEN OTHERS THEN
        PERFORM dtx_internal.saga_postpone(due.saga, 0::smallint, SQLSTATE, SQLERRM);
        n := n - 1;
        budget := budget - 1;
      END;
    END LOOP;
    SELECT s.due_at INTO t
      FROM dtx_internal.saga_step_record s
     WHERE s.home = here AND s.role = this_role AND s.due_at > now_at AND s.due_at IS NOT NULL AND s.step = 0
     ORDER BY s.home, s.role, s.due_at LIMIT 1;
    next_due := least(next_due, t);
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_deadlines(integer, oid) IS
  'internal: lets deadlines pass, from the role that follows "after"; tells when the next one does, and which role was the last one';

-- The wall clock was set.  What is a duration moves with it: leases, pauses before the next
-- attempt, outages.  What is a time stays: deadlines, sleeps, the waits for signals and
-- workers.  Written in between, by the new clock already, is mostly what was moved too far:
-- then an attempt is made earlier, and a lease has its whole length once more.
CREATE OR REPLACE FUNCTION dtx_internal.saga_clock_set(by_ms bigint, only_sagas bigint[], OUT locked bigint[]) RETURNS bigint[]
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_active_home();
  delta interval := make_interval(secs => saga_clock_set.by_ms / 1000.0);
  now_at timestamptz := clock_timestamp();
  ids bigint[];
  mine bigint[];
BEGIN
  SELECT array_agg(DISTINCT s.saga) INTO ids
    FROM dtx_internal.saga_step_record s
   WHERE s.home = here AND s.step > 0 AND coalesce(s.due_at, s.held_at) IS NOT NULL
     AND (saga_clock_set.only_sagas IS NULL OR s.saga = ANY (saga_clock_set.only_sagas));
  SELECT array_agg(x.id) INTO mine
    FROM (SELECT g.id FROM dtx_internal.saga_record g WHERE g.id = ANY (ids) ORDER BY g.id FOR UPDATE SKIP LOCKED) AS x;
  UPDATE dtx_internal.saga_external AS e
     SET available_at = CASE WHEN e.token IS NOT NULL THEN least(e.available_at + greatest(delta, '0'), now_at + e.lease)
                             WHEN e.available_at > now_at THEN e.available_at + least(delta, '0')
                             ELSE e.available_at END
   WHERE e.saga = ANY (mine);
  UPDATE dtx_internal.saga_step_record AS s
     SET due_at = CASE WHEN EXISTS (SELECT FROM dtx_internal.saga_external e WHERE e.saga = s.saga AND e.step = s.step)
                         THEN least(s.due_at, now_at)       -- looked at again
                       WHEN s.due_at > now_at AND s.state IN ('pending', 'compensating')
                            AND s.due_at IS DISTINCT FROM x.run_at THEN s.due_at + least(delta, '0')
                       ELSE s.due_at END,
         held_at = CASE WHEN s.held_at > now_at AND s.state IN ('pending', 'compensating')
                             AND s.held_at IS DISTINCT FROM x.run_at THEN s.held_at + least(delta, '0')
                        ELSE s.held_at END,
         away_since = CASE WHEN delta > '0' OR s.away_since > now_at THEN least(s.away_since + delta, now_at) ELSE s.away_since END
    FROM dtx_internal.saga_data x
   WHERE s.saga = ANY (mine) AND x.saga = s.saga AND s.step > 0 AND NOT s.taken AND coalesce(s.due_at, s.held_at) IS NOT NULL;
  IF saga_clock_set.only_sagas IS NULL THEN
    UPDATE dtx_internal.saga_outage AS o
       SET since = CASE WHEN delta > '0' OR o.since > now_at THEN least(o.since + delta, now_at) ELSE o.since END,
           probe_at = CASE WHEN o.probe_at > now_at THEN o.probe_at + least(delta, '0') ELSE o.probe_at END
     WHERE o.ctid IN (SELECT y.ctid FROM dtx_internal.saga_outage y WHERE y.home = here FOR UPDATE SKIP LOCKED);
  END IF;
  SELECT array_agg(i) INTO locked FROM unnest(ids) AS i WHERE i <> ALL (coalesce(mine, '{}'));
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_clock_set(bigint, bigint[]) IS
  'internal: the wall clock was set by so many milliseconds; moves what is a duration, of some sagas or of all; returns those that were locked';

-- A message for a saga, with its row locked.
CREATE OR REPLACE FUNCTION dtx_internal.saga_receive(sg dtx_internal.saga_record, m dtx_internal.saga_inbox) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
BEGIN
  IF m.kind IN ('cancel', 'undo') THEN
    PERFORM dtx_internal.saga_turn_back(sg, m.kind, m.payload #>> '{}');
    RETURN;
  ELSIF m.kind = 'child' THEN
    UPDATE dtx_internal.saga_child AS c SET state = 'stuck', failure = m.payload ->> 'reason'
     WHERE c.saga = sg.id AND c.child = (m.payload ->> 'stuck')::bigint AND c.state = 'undoing';
    FOR st IN
      SELECT s.* FROM dtx_internal.saga_step_record s
       WHERE s.saga = sg.id AND (s.state = 'waiting' OR (s.state = 'compensating' AND s.due_at IS NULL)) AND NOT s.taken
         AND EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = s.step
                                AND c.child = coalesce(m.payload ->> 'ended', m.payload ->> 'stuck')::bigint)
    LOOP
      SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
       WHERE a.definition = sg.definition AND a.step = st.step;
      PERFORM dtx_internal.saga_children_go_on(sg, st, d);
    END LOOP;
    RETURN;
  END IF;
  SELECT s.* INTO st
    FROM dtx_internal.saga_definition_step_record d
    JOIN dtx_internal.saga_step_record s ON s.saga = sg.id AND s.step = d.step
   WHERE d.definition = sg.definition AND d.name = m.name
     FOR UPDATE OF s;
  -- One that has come before its step is found by that.
  IF FOUND AND st.state = 'waiting' AND NOT sg.compensating AND sg.state NOT IN ('completed', 'compensated') THEN
    SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a WHERE a.definition = sg.definition AND a.step = st.step;
    IF d.count IS NULL THEN
      PERFORM dtx_internal.saga_succeeded(sg, st, m.payload, st.since, m.by_whom);
    ELSIF d.count <= (SELECT count(*) FROM dtx_internal.saga_inbox x WHERE x.saga = sg.id AND x.kind = 'signal' AND x.name = m.name) THEN
      PERFORM dtx_internal.saga_do_signal(sg, st, d);
    END IF;
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_receive(dtx_internal.saga_record, dtx_internal.saga_inbox) IS
  'internal: gives a saga what it was told';

-- What sagas were told, n messages at most, and when to ask again.  Each role has an equal
-- share, as with deadlines.
CREATE OR REPLACE FUNCTION dtx_internal.saga_deliver(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_active_home();
  roles oid[];
  this_role oid;
  m dtx_internal.saga_inbox;
  sg dtx_internal.saga_record;
  budget integer;
BEGIN
  WITH RECURSIVE r (role) AS (
    (SELECT x.role FROM dtx_internal.saga_inbox x
      WHERE x.home = here AND NOT x.taken_up
      ORDER BY x.home, x.role, x.id LIMIT 1)
    UNION ALL
    SELECT (SELECT x.role FROM dtx_internal.saga_inbox x
             WHERE x.home = here AND x.role > r.role AND NOT x.taken_up
             ORDER BY x.home, x.role, x.id LIMIT 1)
      FROM r WHERE r.role IS NOT NULL)
  SELECT array_agg(r.role::oid) INTO roles FROM r WHERE r.role IS NOT NULL;
  FOREACH this_role IN ARRAY coalesce(roles, '{}') LOOP
    budget := greatest(n / cardinality(roles), 1);
    FOR m IN
      SELECT x.*
        FROM dtx_internal.saga_inbox x
       WHERE x.home = here AND x.role = this_role AND NOT x.taken_up
       ORDER BY x.home, x.role, x.id
       LIMIT 1000
    LOOP
      IF budget <= 0 THEN
        next_due := clock_timestamp();
        EXIT;
      END IF;
      BEGIN
        SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = m.saga FOR UPDATE SKIP LOCKED;
        IF FOUND THEN
          PERFORM dtx_internal.saga_receive(dtx_internal.saga_take_notes(sg), m);
        ELSIF EXISTS (SELECT FROM dtx_internal.saga_record g WHERE g.id = m.saga) THEN
          next_due := least(next_due, clock_timestamp() + '100 milliseconds');     -- locked by another transaction
          CONTINUE;
        END IF;
        UPDATE dtx_internal.saga_inbox SET taken_up = true WHERE id = m.id;
      EXCEPTION WHEN OTHERS THEN
        -- A signal can be given again; what sagas tell each other must not be lost.
        IF m.kind = 'signal' THEN
          UPDATE dtx_internal.saga_inbox SET taken_up = true WHERE id = m.id;
        ELSE
          next_due := least(next_due, clock_timestamp() + interval '1 minute');
        END IF;
        PERFORM dtx_internal.saga_warn(format('saga %s cannot take up what it was told: %s', m.saga, left(SQLERRM, 8000)), NULL,
          'See dtx.explain_saga(); dtx.skip_step() can do the same.');
      END;
      budget := budget - 1;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_deliver(integer) IS
  'internal: has sagas take up what they were told; tells when to ask again';

-- Is there a saga before this one in its lane?
CREATE OR REPLACE FUNCTION dtx_internal.saga_lane_waits(sg dtx_internal.saga_record) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT EXISTS (SELECT FROM dtx_internal.saga_data x
                   JOIN dtx_internal.saga_lane_record l ON l.home = (sg).home AND l.role = (sg).role AND l.lane = x.lane AND l.saga <> (sg).id
                   JOIN dtx_internal.saga_record g ON g.id = l.saga
                  WHERE x.saga = (sg).id AND x.lane IS NOT NULL
                    -- (one with a lower number may have been committed later than this one has begun)
                    AND (l.saga < (sg).id OR g.state <> 'pending'))
$$;

COMMENT ON FUNCTION dtx_internal.saga_lane_waits(dtx_internal.saga_record) IS
  'internal: does a saga wait for another one of its lane?';

-- By the scheduler: the first sagas of their lanes do not rest any more.
CREATE OR REPLACE FUNCTION dtx_internal.saga_lanes(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_active_home();
  l record;
BEGIN
  FOR l IN
    WITH RECURSIVE r (role, lane, saga) AS (
      (SELECT x.role, x.lane, x.saga FROM dtx_internal.saga_lane_record x WHERE x.home = here
        ORDER BY x.home, x.role, x.lane, x.saga LIMIT 1)
      UNION ALL
      SELECT y.* FROM r CROSS JOIN LATERAL (
        SELECT x.role, x.lane, x.saga FROM dtx_internal.saga_lane_record x
         WHERE x.home = here AND (x.role, x.lane) > (r.role, r.lane)
         ORDER BY x.home, x.role, x.lane, x.saga LIMIT 1) AS y)
    SELECT r.saga FROM r JOIN dtx_internal.saga_record g ON g.id = r.saga
     WHERE NOT dtx_internal.saga_lane_waits(g)
       AND EXISTS (SELECT FROM dtx_internal.saga_step_record s WHERE s.saga = r.saga AND s.held_at IS NOT NULL)
  LOOP
    IF dtx_internal.saga_release(l.saga) IS NULL THEN
      next_due := clock_timestamp() + interval '200 milliseconds';
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_lanes(integer) IS
  'internal: has the first saga of each lane begin; tells when to ask again';

-- What rested of a saga is due again.  Null, if others have it locked.
CREATE OR REPLACE FUNCTION dtx_internal.saga_release(saga bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM FROM dtx_internal.saga_record g WHERE g.id = saga_release.saga FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  UPDATE dtx_internal.saga_step_record AS s SET due_at = s.held_at, held_at = NULL
   WHERE s.saga = saga_release.saga AND s.held_at IS NOT NULL;
  PERFORM dtx_internal.wake_sagas();
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_release(bigint) IS
  'internal: what rested of a saga is due again';

-- Steps that do not wait any longer for a server, n at most, and when to ask again.
CREATE OR REPLACE FUNCTION dtx_internal.saga_give_up(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_active_home();
  o record;
  s record;
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  give_up_at timestamptz;
BEGIN
  FOR o IN
    SELECT x.role, x.server, x.since, x.message, f.srvname
      FROM dtx_internal.saga_outage x LEFT JOIN pg_foreign_server f ON f.oid = x.server
     WHERE x.home = here
  LOOP
    FOR s IN
      SELECT x.saga, x.step, x.max_outage, x.due_at
        FROM dtx_internal.saga_step_record x
       WHERE x.home = here AND x.role = o.role AND x.lane = o.server
         AND x.max_outage IS NOT NULL AND x.due_at IS NOT NULL AND x.step > 0 AND NOT x.taken
    LOOP
      give_up_at := greatest(o.since, s.due_at) + s.max_outage;
      IF give_up_at > clock_timestamp() OR n <= 0 THEN
        next_due := least(next_due, give_up_at);
        CONTINUE;
      END IF;
      SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = s.saga FOR UPDATE SKIP LOCKED;
      IF NOT FOUND THEN
        next_due := least(next_due, clock_timestamp() + '1 second');
        CONTINUE;
      END IF;
      SELECT x.* INTO st FROM dtx_internal.saga_step_record x
       WHERE x.saga = s.saga AND x.step = s.step AND NOT x.taken AND x.max_outage IS NOT NULL AND x.due_at IS NOT NULL FOR UPDATE;
      IF FOUND AND (sg.state IN ('pending', 'running') OR sg.compensating) THEN
        st.attempt := st.attempt + 1;
        IF sg.state = 'pending' THEN
          sg.state := 'running';
          UPDATE dtx_internal.saga_record SET state = 'running' WHERE id = sg.id;
        END IF;
        PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', false, true, '08001',
          format('server "%s" has not answered for longer than %s: %s', o.srvname, st.max_outage, o.message), NULL, NULL,
          greatest(o.since, s.due_at));
        n := n - 1;
      END IF;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_give_up(integer) IS
  'internal: fails steps that have waited for a server for longer than their max_outage; tells when to ask again';

-- Steps that are due of a role that does not exist any more fail: nobody else shall
-- do them, and they are not forgotten either.
CREATE OR REPLACE FUNCTION dtx_internal.saga_orphaned(role oid) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  here bigint := dtx_internal.saga_active_home();
  this_saga bigint;
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  n integer;
  what text;
BEGIN
  IF EXISTS (SELECT FROM pg_authid r WHERE r.oid = saga_orphaned.role) THEN
    RETURN;
  END IF;
  FOR this_saga IN
    SELECT DISTINCT x.saga
      FROM (SELECT s.saga
              FROM dtx_internal.saga_step_record s
             WHERE s.home = here AND s.role = saga_orphaned.role AND s.due_at <= now_at
               AND s.due_at IS NOT NULL AND s.step > 0
             ORDER BY s.home, s.role, s.lane, s.rank, s.due_at
             LIMIT 100) AS x
  LOOP
    SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = this_saga FOR UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND;
    sg := dtx_internal.saga_take_notes(sg);
    n := 0;
    FOR st IN
      SELECT s.* FROM dtx_internal.saga_step_record s
       WHERE s.saga = sg.id AND s.step > 0 AND s.due_at <= now_at
         AND NOT (s.taken AND NOT s.noted AND dtx_internal.saga_claimed(s.saga, s.step))
       ORDER BY s.step
    LOOP
      DELETE FROM dtx_internal.saga_external e WHERE e.saga = sg.id AND e.step = st.step;
      UPDATE dtx_internal.saga_step_record
         SET state = 'failed', taken = false, due_at = NULL, since = now_at
       WHERE saga = sg.id AND step = st.step;
      INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, started_at, finished_at)
      VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0), 'failed',
              '42704', 'the role that has started the saga does not exist', st.since, now_at);
      n := n + 1;
    END LOOP;
    IF n > 0 AND sg.state <> 'failed' THEN
      SELECT d.name INTO what
        FROM dtx_internal.saga_step_record s JOIN dtx_internal.saga_definition_step_record d ON d.definition = sg.definition AND d.step = s.step
       WHERE s.saga = sg.id AND s.state = 'failed' ORDER BY s.since DESC LIMIT 1;
      PERFORM dtx_internal.saga_end(sg, 'failed', format('step "%s" cannot be executed: the role that has started the saga does not exist', what));
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_orphaned(oid) IS
  'internal: fails the steps that are due of a role that does not exist';

CREATE OR REPLACE FUNCTION dtx_internal.saga_any() RETURNS boolean
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
DECLARE
  -- (first, so that no other table is locked after this one: DROP EXTENSION locks both)
  here bigint := dtx_internal.saga_active_home();
BEGIN
  PERFORM
     FROM dtx_internal.saga_step_record s
    WHERE s.home = here AND s.due_at IS NOT NULL AND s.step > 0
    ORDER BY s.home, s.role, s.lane, s.rank, s.due_at LIMIT 1;
  IF NOT FOUND THEN
    PERFORM
       FROM dtx_internal.saga_step_record s
      WHERE s.home = here AND s.due_at IS NOT NULL AND s.step = 0
      ORDER BY s.home, s.role, s.due_at LIMIT 1;
  END IF;
  IF NOT FOUND THEN
    PERFORM
       FROM dtx_internal.saga_inbox x
      WHERE x.home = here AND NOT x.taken_up
      ORDER BY x.home, x.role, x.id LIMIT 1;
  END IF;
  IF NOT FOUND THEN
    PERFORM FROM dtx_internal.saga_schedule_record x WHERE x.home = here AND x.paused IS NULL LIMIT 1;
  END IF;
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_any() IS
  'internal: is anything due, now or later?';

-- How many sagas need a foreign server: because of what they have done there, or are going to do.
CREATE OR REPLACE FUNCTION dtx_internal.saga_need_server(server oid) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT count(*)
    FROM dtx_internal.saga_record g
   WHERE g.finished_at IS NULL AND g.home = dtx_internal.saga_home()
     AND EXISTS (SELECT
                   FROM dtx_internal.saga_definition_step_record d
                   LEFT JOIN dtx_internal.saga_step_record s ON s.saga = g.id AND s.step = d.step
                  WHERE d.definition = g.definition AND d.action = 'sql'
                    AND CASE WHEN s.state IN ('compensated', 'skipped') THEN false
                             WHEN s.done_on IS NOT NULL THEN saga_need_server.server = ANY (s.done_on) AND array_remove(d.compensate, NULL) <> '{}'
                             ELSE NOT g.compensating
                                  AND (SELECT f.srvname FROM pg_foreign_server f WHERE f.oid = saga_need_server.server) = ANY (d.servers) END)
$$;

COMMENT ON FUNCTION dtx_internal.saga_need_server(oid) IS
  'internal: how many sagas that have not ended need a foreign server';
