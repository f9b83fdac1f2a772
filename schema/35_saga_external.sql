--
-- External workers, and events.
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_claim_steps(queue text, worker text, lease interval, n integer)
RETURNS TABLE (token uuid, saga bigint, name text, step text, action text, attempt integer,
  payload jsonb, input jsonb, results jsonb, lease_until timestamptz, idempotency_key text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  roles oid[];
  this_role oid;
  due record;
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
  e dtx_internal.saga_external;
  now_at timestamptz := clock_timestamp();
  here bigint := dtx_internal.saga_active_home();
  got integer := 0;
  room integer;
  this_batch uuid := CASE WHEN saga_claim_steps.n > 1 THEN gen_random_uuid() END;
BEGIN
  IF coalesce(saga_claim_steps.queue, '') = '' OR coalesce(saga_claim_steps.worker, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'names of queue and worker are required';
  ELSIF saga_claim_steps.lease IS NULL OR saga_claim_steps.lease <= '0' OR NOT isfinite(saga_claim_steps.lease) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'lease must be positive and finite';
  ELSIF saga_claim_steps.n IS NULL OR saga_claim_steps.n NOT BETWEEN 1 AND 1000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'number of steps to claim must be from 1 to 1000';
  END IF;
  -- Whose steps may the caller have?  Begin with the role that has waited longest.
  WITH RECURSIVE r (role) AS (
    (SELECT x.role FROM dtx_internal.saga_external x WHERE x.home = here ORDER BY x.home, x.role LIMIT 1)
    UNION ALL
    SELECT (SELECT x.role FROM dtx_internal.saga_external x WHERE x.home = here AND x.role > r.role
             ORDER BY x.home, x.role LIMIT 1)
      FROM r WHERE r.role IS NOT NULL)
  SELECT array_agg(r.role::oid ORDER BY h.available_at) INTO roles
    FROM r
    CROSS JOIN LATERAL (SELECT x.available_at FROM dtx_internal.saga_external x
                         WHERE x.home = here AND x.role = r.role AND x.queue = saga_claim_steps.queue
                         ORDER BY x.home, x.role, x.queue, x.available_at LIMIT 1) AS h
   WHERE pg_has_role(caller, r.role, 'USAGE');
  FOREACH this_role IN ARRAY coalesce(roles, '{}') LOOP
    room := dtx_internal.saga_queue_room(this_role, saga_claim_steps.queue);
    CONTINUE WHEN room <= 0;
    FOR due IN
      SELECT x.saga, x.step
        FROM dtx_internal.saga_external x
       WHERE x.home = here AND x.role = this_role AND x.queue = saga_claim_steps.queue AND x.available_at <= now_at
       ORDER BY x.home, x.role, x.queue, x.available_at
       LIMIT saga_claim_steps.n + 5000    -- others may have locked some of them; rows are read as they are needed
    LOOP
      SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = due.saga FOR UPDATE SKIP LOCKED;
      CONTINUE WHEN NOT FOUND OR sg.paused;
      SELECT x.* INTO e FROM dtx_internal.saga_external x
       WHERE x.saga = due.saga AND x.step = due.step FOR UPDATE;
      CONTINUE WHEN NOT FOUND OR e.queue <> saga_claim_steps.queue OR e.available_at > clock_timestamp();
      SELECT s.* INTO STRICT st FROM dtx_internal.saga_step_record s WHERE s.saga = due.saga AND s.step = due.step FOR UPDATE;
      IF e.token IS NOT NULL THEN
        -- The lease of another worker is over; it may have been the last attempt.
        CONTINUE WHEN NOT dtx_internal.saga_clock_right();
        PERFORM dtx_internal.saga_lease_lost(sg, st, e);
        SELECT x.* INTO e FROM dtx_internal.saga_external x WHERE x.saga = due.saga AND x.step = due.step;
        CONTINUE WHEN NOT FOUND;
        SELECT s.* INTO STRICT st FROM dtx_internal.saga_step_record s WHERE s.saga = due.saga AND s.step = due.step;
      END IF;
      SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
       WHERE a.definition = sg.definition AND a.step = st.step;
      now_at := clock_timestamp();
      CONTINUE WHEN NOT st.compensation AND st.since + d.timeout <= now_at;
      token := gen_random_uuid();
      saga := sg.id;
      SELECT f.name INTO name FROM dtx_internal.saga_definition_record f WHERE f.id = sg.definition;
      step := d.name;
      action := CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END;
      attempt := st.attempt + 1;
      payload := d.payload;
      SELECT x.input INTO input FROM dtx_internal.saga_data x WHERE x.saga = sg.id;
      results := dtx_internal.saga_results(sg.id, sg.definition);
      lease_until := now_at + saga_claim_steps.lease;
      idempotency_key := dtx_internal.saga_idempotency_key(sg, st, d);
      UPDATE dtx_internal.saga_external AS x
         SET token = saga_claim_steps.token, worker = saga_claim_steps.worker, lease = saga_claim_steps.lease,
             claimed_at = now_at, available_at = saga_claim_steps.lease_until,
             batch = this_batch, place = CASE WHEN this_batch IS NOT NULL THEN got + 1 END, begun = false
       WHERE x.saga = sg.id AND x.step = st.step;
      UPDATE dtx_internal.saga_step_record AS s
         SET attempt = st.attempt + 1,
             due_at = least(saga_claim_steps.lease_until, CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
       WHERE s.saga = sg.id AND s.step = st.step;
      RETURN NEXT;
      got := got + 1;
      room := room - 1;
      UPDATE dtx_internal.saga_queue_record AS q SET tokens = q.tokens - 1
       WHERE q.role = this_role AND q.queue = saga_claim_steps.queue AND q.rate IS NOT NULL;
      EXIT WHEN got >= saga_claim_steps.n OR room <= 0;
    END LOOP;
    EXIT WHEN got >= saga_claim_steps.n;
  END LOOP;
  IF got > 0 THEN
    IF this_batch IS NOT NULL THEN
      INSERT INTO dtx_internal.saga_batch (id, at, claimed_at) VALUES (this_batch, 1, now_at);
      -- those of which nothing is left
      DELETE FROM dtx_internal.saga_batch AS b
       WHERE b.id IN (SELECT y.id FROM dtx_internal.saga_batch y
                       WHERE y.claimed_at < now_at - interval '1 minute'
                         AND NOT EXISTS (SELECT FROM dtx_internal.saga_external x WHERE x.batch = y.id)
                       LIMIT 10 FOR UPDATE SKIP LOCKED);
    END IF;
    PERFORM dtx_internal.wake_sagas();
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_claim_steps(text, text, interval, integer) IS
  'internal: gives an external worker what there is just now';

CREATE OR REPLACE FUNCTION dtx_internal.claim_step(queue text, worker text, lease interval, n integer, wait interval)
RETURNS TABLE (token uuid, saga bigint, name text, step text, action text, attempt integer,
  payload jsonb, input jsonb, results jsonb, lease_until timestamptz, idempotency_key text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  until bigint := dtx_internal.saga_moment() + ceil(extract(epoch FROM claim_step.wait) * 1000);
BEGIN
  IF claim_step.wait < '0' OR claim_step.wait > '10 minutes' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'time to wait for a step must be from 0 to 10 minutes';
  END IF;
  LOOP
    RETURN QUERY SELECT c.* FROM dtx_internal.saga_claim_steps(claim_step.queue, claim_step.worker, claim_step.lease, claim_step.n) AS c;
    EXIT WHEN FOUND OR claim_step.wait IS NULL OR dtx_internal.saga_moment() >= until;
    PERFORM dtx_internal.saga_wait_work(claim_step.queue, (until - dtx_internal.saga_moment())::integer);
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.claim_step(text, text, interval, integer, interval) IS
  'internal: dtx.claim_step()';

CREATE OR REPLACE FUNCTION dtx.claim_step(queue text, worker text, lease interval DEFAULT '1 minute', n integer DEFAULT 1,
  wait interval DEFAULT NULL)
RETURNS SETOF dtx.claimed_step
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 1;

COMMENT ON FUNCTION dtx.claim_step(text, text, interval, integer, interval) IS
  'gives an external worker up to n steps, or compensations, from a queue, each for the time of the lease; never waits for others, and for something to do as long as asked; no rows if there is none';

-- What a token stands for, locked, if its lease still lasts.
CREATE OR REPLACE FUNCTION dtx_internal.saga_token(token uuid, OUT sg dtx_internal.saga_record, OUT st dtx_internal.saga_step_record, OUT e dtx_internal.saga_external)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
BEGIN
  IF saga_token.token IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'token must not be null';
  END IF;
  SELECT x.* INTO e FROM dtx_internal.saga_external x WHERE x.token = saga_token.token;
  IF FOUND THEN
    sg := dtx_internal.saga_lock(e.saga);
    SELECT x.* INTO e FROM dtx_internal.saga_external x
     WHERE x.saga = e.saga AND x.step = e.step AND x.token = saga_token.token FOR UPDATE;
    IF FOUND AND (e.available_at > clock_timestamp() OR NOT dtx_internal.saga_clock_right()) THEN
      SELECT s.* INTO STRICT st FROM dtx_internal.saga_step_record s WHERE s.saga = e.saga AND s.step = e.step FOR UPDATE;
      RETURN;
    END IF;
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'object_not_in_prerequisite_state',
    MESSAGE = 'lease has been lost',
    DETAIL = format('The token %s is not valid, or not valid any more.', saga_token.token),
    HINT = 'Nothing was changed. Another worker may do this step now.';
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_token(uuid) IS
  'internal: what an external worker has claimed, locked; an error if the lease is over';

-- A worker is at a step of those that it has claimed together, or has reported it.
CREATE OR REPLACE FUNCTION dtx_internal.saga_batch_at(e dtx_internal.saga_external, at integer) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  UPDATE dtx_internal.saga_batch AS b SET at = greatest(b.at, saga_batch_at.at)
   WHERE b.ctid IN (SELECT x.ctid FROM dtx_internal.saga_batch x WHERE x.id = (e).batch FOR UPDATE SKIP LOCKED)
$$;

COMMENT ON FUNCTION dtx_internal.saga_batch_at(dtx_internal.saga_external, integer) IS
  'internal: which of the steps that it has claimed together an external worker is at';

CREATE OR REPLACE FUNCTION dtx_internal.heartbeat_step(token uuid, lease interval) RETURNS dtx.step_lease
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
  lease_until timestamptz;
BEGIN
  IF heartbeat_step.lease <= '0' OR NOT isfinite(heartbeat_step.lease) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'lease must be positive and finite';
  END IF;
  t := dtx_internal.saga_token(heartbeat_step.token);
  lease_until := clock_timestamp() + coalesce(heartbeat_step.lease, (t.e).lease);
  -- When the step becomes due at the old end of the lease, the new one is seen.
  UPDATE dtx_internal.saga_external AS x
     SET available_at = lease_until, lease = coalesce(heartbeat_step.lease, x.lease), begun = true
   WHERE x.saga = (t.sg).id AND x.step = (t.st).step;
  IF lease_until < (t.st).due_at THEN
    UPDATE dtx_internal.saga_step_record AS s SET due_at = lease_until WHERE s.saga = (t.sg).id AND s.step = (t.st).step;
    PERFORM dtx_internal.wake_sagas();
  END IF;
  PERFORM dtx_internal.saga_batch_at(t.e, (t.e).place);
  RETURN ROW(lease_until, (t.sg).compensating AND NOT (t.st).compensation,
             CASE WHEN (t.sg).compensating AND NOT (t.st).compensation
                  THEN (SELECT x.reason FROM dtx_internal.saga_data x WHERE x.saga = (t.sg).id) END)::dtx.step_lease;
END
$$;

COMMENT ON FUNCTION dtx_internal.heartbeat_step(uuid, interval) IS
  'internal: dtx.heartbeat_step()';

CREATE OR REPLACE FUNCTION dtx.heartbeat_step(token uuid, lease interval DEFAULT NULL) RETURNS dtx.step_lease
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.heartbeat_step(uuid, interval) IS
  'begins the lease of an external worker anew, and returns its end, and whether the saga has turned back; an error if it is over';

CREATE OR REPLACE FUNCTION dtx_internal.complete_step(token uuid, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  -- The error that follows must not make that forgotten.
  PERFORM dtx_internal.saga_note_late(complete_step.token)
    WHERE EXISTS (SELECT
                    FROM (SELECT l.saga FROM dtx_internal.saga_lost_lease l WHERE l.token = complete_step.token
                          UNION ALL
                          SELECT x.saga FROM dtx_internal.saga_external x WHERE x.token = complete_step.token AND x.available_at <= clock_timestamp()
                             AND dtx_internal.saga_clock_right()) AS y
                    JOIN dtx_internal.saga_record g ON g.id = y.saga
                   WHERE pg_has_role(dtx_internal.saga_caller(), g.role, 'USAGE'));
  PERFORM dtx_internal.saga_complete(complete_step.token, complete_step.result);
END
$$;

COMMENT ON FUNCTION dtx_internal.complete_step(uuid, jsonb) IS
  'internal: dtx.complete_step()';

CREATE OR REPLACE FUNCTION dtx_internal.saga_complete(token uuid, result jsonb) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
BEGIN
  t := dtx_internal.saga_token(saga_complete.token);
  IF NOT (t.st).compensation THEN
    PERFORM dtx_internal.saga_check_result(t.sg, saga_complete.result);
  END IF;
  DELETE FROM dtx_internal.saga_external x WHERE x.saga = (t.sg).id AND x.step = (t.st).step;
  PERFORM dtx_internal.saga_batch_at(t.e, (t.e).place + 1);
  PERFORM dtx_internal.saga_succeeded(t.sg, t.st, result, (t.e).claimed_at, (t.e).worker);
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_complete(uuid, jsonb) IS
  'internal: an external worker has done a step; an error if its lease is over';

CREATE OR REPLACE FUNCTION dtx.complete_step(token uuid, result jsonb DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.complete_step(uuid, jsonb) IS
  'an external worker has done what it has claimed, if this transaction commits; an error if its lease is over';

CREATE OR REPLACE FUNCTION dtx_internal.fail_step(token uuid, error text, retry boolean, retry_after interval) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
  again_at timestamptz;
BEGIN
  IF coalesce(btrim(fail_step.error), '') = '' OR fail_step.retry IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'error and retry must not be null, nor error empty';
  ELSIF fail_step.retry_after < '0' OR fail_step.retry_after > '1000 years' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'retry_after must not be negative, or longer than 1000 years';
  END IF;
  t := dtx_internal.saga_token(fail_step.token);
  PERFORM dtx_internal.saga_attempt_failed(t.sg, t.st, 'failed', fail_step.retry, NOT fail_step.retry, NULL, fail_step.error, NULL, NULL,
                                   (t.e).claimed_at, (t.e).worker);
  PERFORM dtx_internal.saga_batch_at(t.e, (t.e).place + 1);
  IF fail_step.retry_after IS NOT NULL THEN
    -- If it is tried again at all.
    UPDATE dtx_internal.saga_external AS x
       SET available_at = clock_timestamp() + fail_step.retry_after
     WHERE x.saga = (t.sg).id AND x.step = (t.st).step AND x.token IS NULL
    RETURNING x.available_at INTO again_at;
    IF FOUND THEN
      UPDATE dtx_internal.saga_step_record AS s SET due_at = CASE WHEN (t.st).compensation OR d.timeout IS NULL THEN again_at ELSE least(again_at, (t.st).since + d.timeout) END
        FROM dtx_internal.saga_definition_step_record d
       WHERE d.definition = (t.sg).definition AND d.step = s.step AND s.saga = (t.sg).id AND s.step = (t.st).step;
      UPDATE dtx_internal.saga_history_record AS h SET retry_at = again_at
       WHERE h.saga = (t.sg).id
         AND h.id = (SELECT max(y.id) FROM dtx_internal.saga_history_record y WHERE y.saga = (t.sg).id AND y.step = (t.st).step);
    END IF;
  END IF;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.fail_step(uuid, text, boolean, interval) IS
  'internal: dtx.fail_step()';

CREATE OR REPLACE FUNCTION dtx.fail_step(token uuid, error text, retry boolean DEFAULT true, retry_after interval DEFAULT NULL) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.fail_step(uuid, text, boolean, interval) IS
  'an external worker has not been able to do what it has claimed, and nothing of it was done; retry false: it will never be; an error if its lease is over';

CREATE OR REPLACE FUNCTION dtx_internal.release_step(token uuid) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  t record;
BEGIN
  t := dtx_internal.saga_token(release_step.token);
  PERFORM dtx_internal.saga_put_back(t.sg, t.st, t.e, format('released by worker "%s"', (t.e).worker));
  PERFORM dtx_internal.saga_batch_at(t.e, (t.e).place + 1);
  PERFORM dtx_internal.saga_finished(hashtext((t.e).queue));
END
$$;

COMMENT ON FUNCTION dtx_internal.release_step(uuid) IS
  'internal: dtx.release_step()';

CREATE OR REPLACE FUNCTION dtx.release_step(token uuid) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.release_step(uuid) IS
  'an external worker gives back what it has claimed and has not worked on, which is no attempt; an error if its lease is over';

-- By the scheduler: what was reported too late.
CREATE OR REPLACE FUNCTION dtx_internal.saga_report_late(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  this_token uuid;
  l dtx_internal.saga_lost_lease;
  e dtx_internal.saga_external;
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
  now_at timestamptz := clock_timestamp();
BEGIN
  FOREACH this_token IN ARRAY dtx_internal.saga_late() LOOP
    SELECT g.* INTO sg
      FROM (SELECT x.saga FROM dtx_internal.saga_lost_lease x WHERE x.token = this_token
            UNION ALL
            SELECT x.saga FROM dtx_internal.saga_external x WHERE x.token = this_token) AS y
      JOIN dtx_internal.saga_record g ON g.id = y.saga;
    CONTINUE WHEN NOT FOUND;
    SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = sg.id FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
      PERFORM dtx_internal.saga_note_late(this_token);
      next_due := now_at + interval '200 milliseconds';
      CONTINUE;
    END IF;
    -- Nobody may have found yet that the lease has ended.
    SELECT x.* INTO e FROM dtx_internal.saga_external x WHERE x.token = this_token FOR UPDATE;
    IF FOUND AND e.available_at <= now_at THEN
      SELECT s.* INTO STRICT st FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = e.step FOR UPDATE;
      PERFORM dtx_internal.saga_lease_lost(sg, st, e);
      SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = sg.id;
    END IF;
    DELETE FROM dtx_internal.saga_lost_lease AS x WHERE x.token = this_token RETURNING x.* INTO l;
    CONTINUE WHEN NOT FOUND;
    SELECT s.* INTO st FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = l.step;
    SELECT a.* INTO d FROM dtx_internal.saga_definition_step_record a WHERE a.definition = sg.definition AND a.step = l.step;
    INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, message, started_at, finished_at, by_whom)
    VALUES (sg.id, l.step, CASE WHEN l.compensation THEN 'compensate' ELSE 'execute' END, l.attempt, 'late',
            format('worker "%s" has reported that it was done, after its lease had ended', l.worker), l.claimed_at, now_at, l.worker);
    -- Who undoes it may have found nothing.
    IF NOT l.compensation AND (st.compensation OR (sg.compensating AND st.state IN ('failed', 'skipped'))) THEN
      INSERT INTO dtx_internal.saga_damage_record (saga, step, role, worker, found_at)
      VALUES (sg.id, d.name, sg.role, l.worker, now_at)
      ON CONFLICT DO NOTHING;
      PERFORM dtx_internal.saga_warn(
        format('step "%s" of saga %s was done after its compensation was offered', d.name, sg.id),
        format('Worker "%s" has reported so after its lease had ended.', l.worker),
        'Undo by hand what was done, if that has not been done, and call dtx.acknowledge_saga_damage().');
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_report_late(integer) IS
  'internal: records what external workers have reported too late; tells when to ask again';

CREATE OR REPLACE FUNCTION dtx_internal.acknowledge_saga_damage(saga bigint, step text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  UPDATE dtx_internal.saga_damage_record AS x
     SET acknowledged_at = clock_timestamp(), acknowledged_by = pg_get_userbyid(dtx_internal.saga_caller()),
         reason = acknowledge_saga_damage.reason
   WHERE x.saga = acknowledge_saga_damage.saga AND x.step = acknowledge_saga_damage.step AND x.acknowledged_at IS NULL
     AND pg_has_role(dtx_internal.saga_caller(), x.role, 'USAGE');
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no damage of step "%s" of saga %s that is yours and was not acknowledged', step, saga);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.acknowledge_saga_damage(bigint, text, text) IS
  'internal: dtx.acknowledge_saga_damage()';

CREATE OR REPLACE FUNCTION dtx.acknowledge_saga_damage(saga bigint, step text, reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.acknowledge_saga_damage(bigint, text, text) IS
  'takes a step of a saga off the view dtx.saga_damage, and remembers who did it, when and why; an error if it is not there';

--
-- Events
--

-- Each consumer gets each event once, and an event after those that were there when it was
-- written.  A consumer that is taking events just now gets no others.
CREATE OR REPLACE FUNCTION dtx_internal.take_saga_events(consumer text, n integer)
RETURNS TABLE (id bigint, saga bigint, owner name, name text, role name, step text, event text, at timestamptz, payload jsonb)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  c dtx_internal.saga_consumer_record;
  o dtx_internal.saga_outbox;
  latest pg_snapshot := pg_current_snapshot();
  got integer := 0;
BEGIN
  IF take_saga_events.n IS NULL OR take_saga_events.n NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'number of events to take must be from 1 to 10000';
  ELSIF coalesce(consumer, '') = '' OR length(consumer) > 200 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of a consumer must have 1 to 200 characters';
  END IF;
  INSERT INTO dtx_internal.saga_consumer_record (role, name, seen, registered_at)
  SELECT caller, consumer, '1:1:', clock_timestamp()
   WHERE NOT EXISTS (SELECT FROM dtx_internal.saga_consumer_record x WHERE x.role = caller AND x.name = consumer)
  ON CONFLICT DO NOTHING;
  SELECT x.* INTO c FROM dtx_internal.saga_consumer_record x WHERE x.role = caller AND x.name = consumer FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  LOOP
    IF c.reading IS NULL THEN
      c.reading := latest;
      c.after := 0;
    END IF;
    FOR o IN
      WITH e AS MATERIALIZED (
        SELECT x.*
          FROM dtx_internal.saga_outbox x
         WHERE x.xid >= pg_snapshot_xmin(c.seen) AND x.id > c.after
           AND pg_visible_in_snapshot(x.xid, c.reading) AND NOT pg_visible_in_snapshot(x.xid, c.seen))
      SELECT e.* FROM e WHERE pg_has_role(caller, e.role, 'USAGE') ORDER BY e.id LIMIT take_saga_events.n - got
    LOOP
      c.after := o.id;
      got := got + 1;
      id := o.id;
      saga := o.saga;
      owner := (SELECT u.rolname FROM pg_roles u WHERE u.oid = o.owner);
      name := o.name;
      role := (SELECT u.rolname FROM pg_roles u WHERE u.oid = o.role);
      step := o.step;
      event := o.event;
      at := o.at;
      payload := o.payload;
      RETURN NEXT;
    END LOOP;
    EXIT WHEN got >= take_saga_events.n;
    c.seen := c.reading;
    c.reading := NULL;
    EXIT WHEN c.seen::text = latest::text;
  END LOOP;
  UPDATE dtx_internal.saga_consumer_record AS x
     SET seen = c.seen, reading = c.reading, after = c.after, taken_at = clock_timestamp()
   WHERE x.role = caller AND x.name = consumer;
END
$$;

COMMENT ON FUNCTION dtx_internal.take_saga_events(text, integer) IS
  'internal: dtx.take_saga_events()';

CREATE OR REPLACE FUNCTION dtx.take_saga_events(consumer text, n integer DEFAULT 100)
RETURNS SETOF dtx.saga_event
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.take_saga_events(text, integer) IS
  'gives a consumer the next events of one''s sagas, n at most; it has had them if this transaction commits; none while another session takes events for the same consumer';

-- Has everybody had an event who is to have it?
CREATE OR REPLACE FUNCTION dtx_internal.saga_event_taken(o dtx_internal.saga_outbox) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT NOT EXISTS (SELECT FROM dtx_internal.saga_consumer_record c
                      WHERE pg_has_role(c.role, (o).role, 'USAGE')
                        AND NOT pg_visible_in_snapshot((o).xid, c.seen)
                        AND NOT (c.reading IS NOT NULL AND pg_visible_in_snapshot((o).xid, c.reading) AND (o).id <= c.after))
$$;

COMMENT ON FUNCTION dtx_internal.saga_event_taken(dtx_internal.saga_outbox) IS
  'internal: is there no consumer that has not had an event?';

CREATE OR REPLACE FUNCTION dtx_internal.drop_saga_consumer(consumer text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM dtx_internal.saga_consumer_record x WHERE x.role = dtx_internal.saga_caller() AND x.name = consumer;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN consumer IS NULL THEN 'name of the consumer must not be null'
                     ELSE format('there is no consumer "%s"', consumer) END;
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.drop_saga_consumer(text) IS
  'internal: dtx.drop_saga_consumer()';

CREATE OR REPLACE FUNCTION dtx.drop_saga_consumer(consumer text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.drop_saga_consumer(text) IS
  'events are not kept for that consumer any more';

CREATE OR REPLACE FUNCTION dtx_internal.emit_saga_event(saga bigint, event text, payload jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record := dtx_internal.saga_see(emit_saga_event.saga);
BEGIN
  IF coalesce(emit_saga_event.event, '') = '' OR length(emit_saga_event.event) > 200
     OR emit_saga_event.event IN ('completed', 'compensated', 'failed') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of an event must have 1 to 200 characters, and not be that of an event of sagas';
  END IF;
  RETURN dtx_internal.saga_emit(sg, NULL, emit_saga_event.event, coalesce(emit_saga_event.payload, '{}'));
END
$$;

COMMENT ON FUNCTION dtx_internal.emit_saga_event(bigint, text, jsonb) IS
  'internal: dtx.emit_saga_event()';

CREATE OR REPLACE FUNCTION dtx.emit_saga_event(saga bigint, event text, payload jsonb DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.emit_saga_event(bigint, text, jsonb) IS
  'an event of one''s own about a saga, which is there if this transaction commits; returns its number';
