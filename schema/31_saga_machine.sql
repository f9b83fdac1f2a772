--
-- The state machine of sagas, and what all functions of sagas use.
--
-- What users call are C functions (dtx_sql_saga_call in src/saga/call.c): each notes
-- who calls, and then calls the function of the same name in dtx_internal as its
-- owner.  saga_caller() tells who it was.
--

--
-- Small things
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_xid() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL UNSAFE
RETURN pg_catalog.pg_current_xact_id()::text::bigint;

COMMENT ON FUNCTION dtx_internal.saga_xid() IS
  'internal: full identifier of this transaction';

CREATE OR REPLACE FUNCTION dtx_internal.saga_servers(servers name[], commands text[]) RETURNS oid[]
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  found_servers oid[] := '{}';
  server oid;
BEGIN
  FOR i IN 1 .. coalesce(cardinality(commands), 0) LOOP
    IF commands[i] IS NOT NULL AND servers[i] IS NOT NULL THEN
      SELECT f.oid INTO server FROM pg_foreign_server f WHERE f.srvname = servers[i];
      IF FOUND AND server <> ALL (found_servers) THEN
        found_servers := found_servers || server;
      END IF;
    END IF;
  END LOOP;
  RETURN found_servers;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_servers(name[], text[]) IS
  'internal: the foreign servers that some statements run on';

CREATE OR REPLACE FUNCTION dtx_internal.saga_lane(action text, servers oid[]) RETURNS oid
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN action = 'sql' THEN coalesce(servers[1], 0::oid) ELSE 1::oid END
$$;

COMMENT ON FUNCTION dtx_internal.saga_lane(text, oid[]) IS
  'internal: in which part of the queue a step begins: that of its first foreign server, 0 if it has none; 1 if it keeps no worker busy';

-- Compensations first, then what has begun, then what has not.
CREATE OR REPLACE FUNCTION dtx_internal.saga_rank(what text, priority smallint) RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE what WHEN 'undo' THEN 0 WHEN 'begun' THEN 1000 ELSE 2000 END - priority
$$;

COMMENT ON FUNCTION dtx_internal.saga_rank(text, smallint) IS
  'internal: dtx_internal.saga_step_record.rank of what is undone, of what belongs to a saga that has begun, or of what is new';

CREATE OR REPLACE FUNCTION dtx_internal.saga_results(saga bigint, definition bigint, needs text[] DEFAULT NULL) RETURNS jsonb
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT coalesce(jsonb_object_agg(d.name, r.result), '{}')
    FROM dtx_internal.saga_result r
    JOIN dtx_internal.saga_definition_step_record d ON d.definition = saga_results.definition AND d.step = r.step
   WHERE r.saga = saga_results.saga AND (saga_results.needs IS NULL OR d.name = ANY (saga_results.needs))
$$;

COMMENT ON FUNCTION dtx_internal.saga_results(bigint, bigint, text[]) IS
  'internal: results of the steps of a saga by name; null: of all of them';

-- All results of a saga are one jsonb object, for its steps and in its last event,
-- which cannot be larger than 256 MB.  A thousand steps whose results are not worth
-- counting have 100 MB at most.  A signal is the result of a step later.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_result(sg dtx_internal.saga_record, result jsonb) RETURNS void
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
    + (SELECT coalesce(sum(pg_column_size(jsonb_build_array(r.result))), 0) FROM dtx_internal.saga_result r WHERE r.saga = sg.id)
    + (SELECT coalesce(sum(pg_column_size(jsonb_build_array(g.payload))), 0) FROM dtx_internal.saga_inbox g
        WHERE g.saga = sg.id AND g.kind = 'signal'
          AND NOT EXISTS (SELECT
                            FROM dtx_internal.saga_definition_step_record d
                            JOIN dtx_internal.saga_result r ON r.saga = g.saga AND r.step = d.step
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

COMMENT ON FUNCTION dtx_internal.saga_check_result(dtx_internal.saga_record, jsonb) IS
  'internal: an error if the results of a saga would become too large';

-- A copy of a database (CREATE DATABASE ... TEMPLATE, a logical replica, another server) has
-- the sagas of the original, which go on there, and there only: all of their work on servers
-- would be done twice.  Identity and OID survive whatever else makes a database look like a
-- copy: renaming, pg_upgrade, promotion of a standby.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_database(sg dtx_internal.saga_record) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF sg.home <> dtx_internal.saga_home() THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s belongs to another database', sg.id),
      DETAIL = coalesce((SELECT format('It was started in database "%s", of which this one is a copy, and goes on there only.', d.datname)
                           FROM pg_database d, dtx_internal.coordinator c WHERE c.id # d.oid::bigint = sg.home),
                        'It was started on another server, or in a database that has been dropped, of which this one is a copy, and goes on there only.'),
      HINT = 'To end what was copied, use dtx.force_saga() with completed or compensated; that changes nothing there. If the original is gone for good, see dtx.adopt_sagas().';
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_database(dtx_internal.saga_record) IS
  'internal: an error if a saga belongs to the database that this one is a copy of';

-- The saga; an error if the caller may not act on it.
CREATE OR REPLACE FUNCTION dtx_internal.saga_see(saga bigint) RETURNS dtx_internal.saga_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
BEGIN
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_see.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN saga_see.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist', saga_see.saga) END;
  END IF;
  IF NOT pg_has_role(dtx_internal.saga_caller(), sg.role, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga %s', sg.id);
  END IF;
  RETURN sg;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_see(bigint) IS
  'internal: a saga for the caller of the public function, as it is now';

-- The saga, locked; an error if the caller may not act on it.
CREATE OR REPLACE FUNCTION dtx_internal.saga_lock(saga bigint, of_any_database boolean DEFAULT false) RETURNS dtx_internal.saga_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
BEGIN
  -- rights first, so that others cannot hold it up
  sg := dtx_internal.saga_see(saga_lock.saga);
  SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = saga_lock.saga FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('saga %s does not exist', saga_lock.saga);
  END IF;
  IF NOT of_any_database AND sg.state NOT IN ('completed', 'compensated') THEN
    PERFORM dtx_internal.saga_check_database(sg);
  END IF;
  -- What workers have noted meanwhile counts.
  IF EXISTS (SELECT FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.noted) THEN
    sg := dtx_internal.saga_take_notes(sg);
  END IF;
  RETURN sg;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_lock(bigint, boolean) IS
  'internal: locks a saga for the caller of the public function';

CREATE OR REPLACE FUNCTION dtx_internal.saga_audit(sg dtx_internal.saga_record, step smallint, action text, outcome text, reason text) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, outcome, message, started_at, finished_at, by_whom)
  SELECT (sg).id, saga_audit.step, saga_audit.action, saga_audit.outcome, saga_audit.reason,
         clock_timestamp(), clock_timestamp(), dtx_internal.saga_caller()::regrole::text
$$;

COMMENT ON FUNCTION dtx_internal.saga_audit(dtx_internal.saga_record, smallint, text, text, text) IS
  'internal: remembers what an operator has done';

CREATE OR REPLACE FUNCTION dtx_internal.saga_check_reason(reason text) RETURNS void
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

COMMENT ON FUNCTION dtx_internal.saga_check_reason(text) IS
  'internal: an error if there is no reason';

--
-- The state machine.  All of these are called with the saga's row locked; "sg"
-- and "st" are the rows as they are now.
--

-- An event, which is there if this transaction commits.
CREATE OR REPLACE FUNCTION dtx_internal.saga_emit(sg dtx_internal.saga_record, step text, event text, payload jsonb) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  o dtx_internal.saga_outbox;
BEGIN
  INSERT INTO dtx_internal.saga_outbox AS x (saga, owner, name, role, step, event, at, payload)
  SELECT sg.id, d.owner, d.name, sg.role, saga_emit.step, saga_emit.event, clock_timestamp(), saga_emit.payload
    FROM dtx_internal.saga_definition_record d WHERE d.id = sg.definition
  RETURNING x.* INTO o;
  IF current_setting('pg_dtx.publish_saga_events')::boolean THEN
    PERFORM dtx_internal.outbox_saga_event(o);
  END IF;
  PERFORM dtx_internal.saga_announce('');
  RETURN o.id;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_emit(dtx_internal.saga_record, text, text, jsonb) IS
  'internal: writes an event of a saga';

-- The saga has got into a state in which it stays, or fails.
CREATE OR REPLACE FUNCTION dtx_internal.saga_end(sg dtx_internal.saga_record, state dtx.saga_state, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  defname text;
BEGIN
  UPDATE dtx_internal.saga_record
     SET state = saga_end.state,
         finished_at = CASE WHEN saga_end.state <> 'failed' THEN clock_timestamp() END
   WHERE id = sg.id;
  IF saga_end.state = 'failed' THEN
    UPDATE dtx_internal.saga_data SET failure = saga_end.reason WHERE saga = sg.id;
  ELSIF reason IS NOT NULL THEN
    UPDATE dtx_internal.saga_data SET reason = saga_end.reason, failure = NULL WHERE saga = sg.id;
  END IF;
  IF saga_end.state <> 'failed' THEN
    DELETE FROM dtx_internal.saga_step_record WHERE saga = sg.id AND step = 0;
  END IF;
  SELECT d.name INTO defname FROM dtx_internal.saga_definition_record d WHERE d.id = sg.definition;
  PERFORM dtx_internal.saga_emit(sg, NULL, saga_end.state::text,
            jsonb_strip_nulls(jsonb_build_object('key', x.key, 'reason', nullif(concat_ws('; ', x.reason, x.failure), '')))
            || jsonb_build_object('results', dtx_internal.saga_results(sg.id, sg.definition)))
     FROM dtx_internal.saga_data x
    WHERE x.saga = sg.id;
  PERFORM dtx_internal.saga_finished(sg.id);
  IF saga_end.state <> 'failed' THEN
    DELETE FROM dtx_internal.saga_lane_record l
     USING dtx_internal.saga_data x
     WHERE x.saga = sg.id AND x.lane IS NOT NULL AND l.home = sg.home AND l.role = sg.role AND l.lane = x.lane AND l.saga = sg.id;
    IF FOUND THEN
      PERFORM dtx_internal.wake_sagas();
    END IF;
    DELETE FROM dtx_internal.saga_pause_record p WHERE p.kind = 'saga' AND p.name = sg.id::text AND sg.paused;
  END IF;
  IF sg.parent IS NOT NULL AND saga_end.state <> 'failed' THEN
    PERFORM dtx_internal.saga_tell(sg.parent, 'child', jsonb_build_object('ended', sg.id));
  END IF;
  IF saga_end.state = 'failed' THEN
    PERFORM dtx_internal.saga_warn(
      format('saga %s ("%s") has failed: %s', sg.id, defname, reason), NULL,
      'Remove the cause and call dtx.retry_saga(); or do the work by hand and call dtx.skip_step() or dtx.force_saga().');
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_end(dtx_internal.saga_record, dtx.saga_state, text) IS
  'internal: a saga is completed or compensated, or has failed';

-- The way forth: a step is done, so others may have become due.
CREATE OR REPLACE FUNCTION dtx_internal.saga_advance(sg dtx_internal.saga_record, done smallint) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  n integer;
BEGIN
  INSERT INTO dtx_internal.saga_step_record (saga, step, home, role, lane, rank, servers, max_outage, state, due_at, since)
  SELECT sg.id, d.step, sg.home, sg.role, dtx_internal.saga_lane(d.action, x.servers), dtx_internal.saga_rank('begun', sg.priority),
         x.servers, d.max_outage, 'pending', clock_timestamp(), clock_timestamp()
    FROM dtx_internal.saga_definition_step_record d
   CROSS JOIN LATERAL dtx_internal.saga_servers(d.servers, d.execute) AS x (servers)
   WHERE d.definition = sg.definition
     AND done = ANY (d.after)
     AND NOT EXISTS (SELECT
                       FROM unnest(d.after) AS a (step)
                       LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = a.step
                      WHERE p.state IS NULL OR p.state NOT IN ('completed', 'skipped'));
  GET DIAGNOSTICS n = ROW_COUNT;
  IF n > 1 THEN
    -- more than the worker that does this can take
    PERFORM dtx_internal.wake_sagas();
  ELSIF n = 0
    AND NOT EXISTS (SELECT
                      FROM dtx_internal.saga_definition_step_record d
                      LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = d.step
                     WHERE d.definition = sg.definition
                       AND (p.state IS NULL OR p.state NOT IN ('completed', 'skipped'))) THEN
    PERFORM dtx_internal.saga_end(sg, 'completed');
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_advance(dtx_internal.saga_record, smallint) IS
  'internal: makes due what has waited for a step, or completes the saga';

-- On which foreign server each statement of a compensation is to be executed: on the
-- one on which the step was done, whatever its name is now; null: it does not exist any more.
-- (If that was not recorded: on the one of that name.)  Without those that are executed here.
CREATE OR REPLACE FUNCTION dtx_internal.saga_places(st dtx_internal.saga_step_record, d dtx_internal.saga_definition_step_record,
  OUT "position" bigint, OUT name name, OUT server oid, OUT now_named name) RETURNS SETOF record
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT u.i, u.s, f.oid, f.srvname
    FROM unnest((d).servers, (d).compensate) WITH ORDINALITY AS u (s, c, i)
    LEFT JOIN pg_foreign_server f
      ON CASE WHEN u.s = ANY ((st).done_names) THEN f.oid = (st).done_on[array_position((st).done_names, u.s)] ELSE f.srvname = u.s END
   WHERE u.s IS NOT NULL AND u.c IS NOT NULL
$$;

COMMENT ON FUNCTION dtx_internal.saga_places(dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: on which foreign servers a step is to be undone';

-- The way back: a step is compensated when all that comes after it is settled,
-- that is, will never do or undo anything again.
CREATE OR REPLACE FUNCTION dtx_internal.saga_unwind(sg dtx_internal.saga_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
  compensations text[];
  due integer := 0;
  is_open boolean := false;
  not_yet smallint[] := '{}';   -- all that come before a step that is not settled
BEGIN
  -- Step numbers are such that this comes to a step after all that come after it.
  FOR st IN
    SELECT s.* FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step > 0 ORDER BY s.step DESC
  LOOP
    -- (what comes before this one is in there, too)
    CONTINUE WHEN st.step = ANY (not_yet);
    IF st.state IN ('pending', 'running', 'waiting', 'compensating')
       OR (st.state = 'failed' AND st.compensation) THEN
      is_open := true;
      not_yet := not_yet || (SELECT a.ancestors FROM dtx_internal.saga_definition_step_record a
                              WHERE a.definition = sg.definition AND a.step = st.step);
    ELSIF st.state = 'completed' OR st.doubt THEN
      SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
       WHERE a.definition = sg.definition AND a.step = st.step;
      compensations := array_remove(d.compensate, NULL);
      IF cardinality(compensations) > 0 OR d.compensate_queue IS NOT NULL OR d.action IN ('saga', 'each') THEN
        UPDATE dtx_internal.saga_step_record AS s
           SET state = 'compensating', compensation = true, taken = false, doubt = false, attempt = 0,
               collisions = 0, losses = 0, away_since = NULL, max_outage = NULL,
               lane = dtx_internal.saga_lane(d.action, x.servers), rank = dtx_internal.saga_rank('undo', sg.priority), servers = x.servers,
               due_at = clock_timestamp(), since = clock_timestamp()
          FROM (SELECT ARRAY(SELECT p.server FROM dtx_internal.saga_places(st, d) AS p
                              WHERE p.server IS NOT NULL GROUP BY p.server ORDER BY max(p.position) DESC) AS servers) AS x
         WHERE s.saga = sg.id AND s.step = st.step;
        due := due + 1;
        is_open := true;
        not_yet := not_yet || d.ancestors;
      ELSE
        UPDATE dtx_internal.saga_step_record
           SET state = CASE WHEN st.state = 'completed' THEN 'compensated' ELSE st.state END,
               doubt = false, since = clock_timestamp()
         WHERE saga = sg.id AND step = st.step;
      END IF;
    END IF;
  END LOOP;
  IF NOT is_open THEN
    PERFORM dtx_internal.saga_end(sg, 'compensated');
  ELSIF due > 0 THEN
    PERFORM dtx_internal.wake_sagas();
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_unwind(dtx_internal.saga_record) IS
  'internal: makes due what can be compensated now, or ends the saga';

-- Turn back.  What runs may finish, and is compensated then, unless it is stopped;
-- so is what an external worker has in hands.  All else that has not been done never will be.
CREATE OR REPLACE FUNCTION dtx_internal.saga_compensate(sg dtx_internal.saga_record, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  st dtx_internal.saga_step_record;
  d dtx_internal.saga_definition_step_record;
BEGIN
  sg.compensating := true;
  sg.state := 'compensating';
  UPDATE dtx_internal.saga_record SET state = 'compensating', compensating = true, finished_at = NULL WHERE id = sg.id;
  UPDATE dtx_internal.saga_data SET reason = saga_compensate.reason, failure = NULL WHERE saga = sg.id;
  DELETE FROM dtx_internal.saga_external WHERE saga = sg.id AND token IS NULL;
  UPDATE dtx_internal.saga_step_record AS s
     SET state = 'skipped', due_at = NULL, since = clock_timestamp()
   WHERE s.saga = sg.id
     AND s.step > 0
     AND NOT s.taken
     AND s.state IN ('pending', 'waiting')
     AND NOT EXISTS (SELECT FROM dtx_internal.saga_external e WHERE e.saga = sg.id AND e.step = s.step)
     AND NOT EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = s.step AND c.state NOT IN ('waiting', 'undone'));
  -- (one that waited for its next attempt, too)
  UPDATE dtx_internal.saga_step_record AS s
     SET state = 'waiting', due_at = NULL, since = clock_timestamp()
   WHERE s.saga = sg.id AND s.step > 0 AND NOT s.taken AND s.state = 'pending'
     AND EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = s.step);
  DELETE FROM dtx_internal.saga_step_record WHERE saga = sg.id AND step = 0;
  PERFORM dtx_internal.saga_unwind(sg);
  -- Sagas that are steps of this one turn back, too; it goes on when they have.
  FOR st IN
    SELECT s.* FROM dtx_internal.saga_step_record s
     WHERE s.saga = sg.id AND s.state = 'waiting' AND EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = s.step)
  LOOP
    SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a WHERE a.definition = sg.definition AND a.step = st.step;
    UPDATE dtx_internal.saga_step_record AS s SET due_at = NULL WHERE s.saga = sg.id AND s.step = st.step;
    PERFORM dtx_internal.saga_children_go_on(sg, st, d);
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_compensate(dtx_internal.saga_record, text) IS
  'internal: begins to compensate a saga';

-- What workers execute of it is to stop.
CREATE OR REPLACE FUNCTION dtx_internal.saga_stop_steps(sg dtx_internal.saga_record) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT dtx_internal.saga_stop(s.saga, s.step, s.attempt, s.compensation)
    FROM dtx_internal.saga_step_record s
   WHERE s.saga = (sg).id AND s.taken AND NOT s.noted
$$;

COMMENT ON FUNCTION dtx_internal.saga_stop_steps(dtx_internal.saga_record) IS
  'internal: stops the steps of a saga that are being executed, when this transaction has committed';

-- What makes it impossible to turn back, or null.  A step that is being done does,
-- unless only those that are done are asked for.
CREATE OR REPLACE FUNCTION dtx_internal.saga_no_return(sg dtx_internal.saga_record, only_done boolean DEFAULT false) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT d.name
    FROM dtx_internal.saga_step_record s
    JOIN dtx_internal.saga_definition_step_record d ON d.definition = (sg).definition AND d.step = s.step
   WHERE s.saga = (sg).id
     AND d.kind IN ('pivot', 'retriable')
     AND (s.state IN ('completed', 'skipped')
          OR s.doubt
          OR EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = s.saga AND c.step = s.step AND c.state = 'completed')
          OR (NOT only_done
              AND (s.state = 'running'
                   OR (s.state = 'waiting' AND d.action IN ('saga', 'each'))
                   OR EXISTS (SELECT FROM dtx_internal.saga_external e
                               WHERE e.saga = s.saga AND e.step = s.step AND e.token IS NOT NULL))))
   ORDER BY d.step
   LIMIT 1
$$;

COMMENT ON FUNCTION dtx_internal.saga_no_return(dtx_internal.saga_record, boolean) IS
  'internal: the step that has been done, or may have been, and cannot be undone';

-- The deadline has passed.  Returns whether the saga has turned back.
--
-- While the point of no return is just being tried, nobody knows whether it has
-- been reached.  So this is asked again as soon as that is over (and, because an
-- external worker may take days, more and more seldom until then).  The timer is
-- pending then.
CREATE OR REPLACE FUNCTION dtx_internal.saga_deadline(sg dtx_internal.saga_record) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
  blocker text := dtx_internal.saga_no_return(sg);
BEGIN
  IF blocker IS NOT NULL AND dtx_internal.saga_no_return(sg, true) IS NULL THEN
    UPDATE dtx_internal.saga_step_record AS s
       SET state = 'pending', since = CASE WHEN s.state = 'pending' THEN s.since ELSE now_at END,
           due_at = now_at + CASE WHEN s.state = 'pending'
                                  THEN greatest(least((now_at - s.since) / 2, '1 minute'), '1 second')
                                  ELSE interval '1 second' END
     WHERE s.saga = sg.id AND s.step = 0;
    PERFORM dtx_internal.wake_sagas();
    RETURN false;
  END IF;
  DELETE FROM dtx_internal.saga_step_record WHERE saga = sg.id AND step = 0;
  INSERT INTO dtx_internal.saga_history_record (saga, action, outcome, message, started_at, finished_at)
  VALUES (sg.id, 'deadline', CASE WHEN blocker IS NULL THEN 'compensating' ELSE sg.state::text END,
          CASE WHEN blocker IS NOT NULL THEN format('step "%s" cannot be undone, so the saga goes on', blocker) END,
          now_at, now_at);
  IF blocker IS NULL THEN
    PERFORM dtx_internal.saga_stop_steps(sg);
    PERFORM dtx_internal.saga_compensate(sg, 'its deadline has passed');
  END IF;
  RETURN blocker IS NULL;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_deadline(dtx_internal.saga_record) IS
  'internal: the deadline of a saga has passed, so it turns back if that is possible';

-- Now it can be said whether a deadline that has passed lets a step be tried again.
CREATE OR REPLACE FUNCTION dtx_internal.saga_ask_deadline(sg dtx_internal.saga_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT sg.compensating
     AND EXISTS (SELECT FROM dtx_internal.saga_step_record s
                  WHERE s.saga = sg.id AND s.step = 0 AND (s.state = 'pending' OR s.due_at <= clock_timestamp())) THEN
    PERFORM dtx_internal.saga_deadline(sg);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_ask_deadline(dtx_internal.saga_record) IS
  'internal: an attempt is over that may have kept the deadline of its saga from passing';

-- A step, or its compensation, has succeeded.
CREATE OR REPLACE FUNCTION dtx_internal.saga_succeeded(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, result jsonb, started_at timestamptz,
  by_whom text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  -- (Of one that was noted the worker has written this, and the result, itself.)
  IF NOT st.noted THEN
    INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, started_at, finished_at, by_whom)
    VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0),
            'completed', saga_succeeded.started_at, now_at, saga_succeeded.by_whom);
  END IF;
  UPDATE dtx_internal.saga_step_record
     SET state = CASE WHEN st.compensation THEN 'compensated' ELSE 'completed' END::dtx.saga_step_state,
         taken = false, noted = false, doubt = false, away_since = NULL, due_at = NULL, since = now_at,
         boot_id = CASE WHEN st.noted THEN st.boot_id ELSE dtx_internal.boot_id() END,
         xid = CASE WHEN st.noted THEN st.xid ELSE dtx_internal.saga_xid() END
   WHERE saga = sg.id AND step = st.step;
  IF result IS NOT NULL AND NOT st.compensation THEN
    INSERT INTO dtx_internal.saga_result (saga, step, result) VALUES (sg.id, st.step, saga_succeeded.result);
  END IF;
  IF NOT st.compensation THEN
    PERFORM dtx_internal.saga_emit(sg, d.name, d.event,
              jsonb_strip_nulls(jsonb_build_object('key', (SELECT x.key FROM dtx_internal.saga_data x WHERE x.saga = sg.id)))
              || jsonb_build_object('result', (SELECT r.result FROM dtx_internal.saga_result r WHERE r.saga = sg.id AND r.step = st.step)))
       FROM dtx_internal.saga_definition_step_record d
      WHERE d.definition = sg.definition AND d.step = st.step AND d.event IS NOT NULL;
  END IF;
  IF sg.compensating THEN
    PERFORM dtx_internal.saga_unwind(sg);
  ELSIF EXISTS (SELECT FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = 0 AND s.state = 'pending')
    AND dtx_internal.saga_deadline(sg) THEN
    NULL;                       -- it has turned back
  ELSE
    PERFORM dtx_internal.saga_advance(sg, st.step);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_succeeded(dtx_internal.saga_record, dtx_internal.saga_step_record, jsonb, timestamptz, text) IS
  'internal: a step is completed, or compensated';

-- What of a step may fail.
CREATE OR REPLACE FUNCTION dtx_internal.saga_may_fail(d dtx_internal.saga_definition_step_record) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT (d).action IN ('sql', 'external', 'saga', 'each') OR (d).timeout IS NOT NULL
      OR (d).condition IS NOT NULL OR (d).expression IS NOT NULL
$$;

COMMENT ON FUNCTION dtx_internal.saga_may_fail(dtx_internal.saga_definition_step_record) IS
  'internal: may a step fail?';

-- Its condition was not true: a step is skipped, and was nothing that could be undone.
CREATE OR REPLACE FUNCTION dtx_internal.saga_skipped(sg dtx_internal.saga_record, st dtx_internal.saga_step_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, started_at, finished_at)
  VALUES (sg.id, st.step, 'execute', nullif(st.attempt, 0), 'skipped', st.since, now_at);
  UPDATE dtx_internal.saga_step_record
     SET state = 'skipped', taken = false, noted = false, away_since = NULL, due_at = NULL, since = now_at,
         boot_id = dtx_internal.boot_id(), xid = dtx_internal.saga_xid()
   WHERE saga = sg.id AND step = st.step;
  IF sg.compensating THEN
    PERFORM dtx_internal.saga_unwind(sg);
  ELSIF EXISTS (SELECT FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = 0 AND s.state = 'pending')
    AND dtx_internal.saga_deadline(sg) THEN
    NULL;                       -- it has turned back
  ELSE
    PERFORM dtx_internal.saga_advance(sg, st.step);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_skipped(dtx_internal.saga_record, dtx_internal.saga_step_record) IS
  'internal: the condition of a step was not true';

-- What an error tells of, beside the step itself:
--   away       a server, or this one, cannot be reached or has no room
--   lost       it has gone while it executed the step
--   collision  others had locked or changed the same
--   access     the role may not do that: somebody has to grant it, or to correct its password
--   hopeless   no repetition mends that: the definition, or data, have to be corrected
-- or null.  (A server that a step has crashed looks as one that has gone.)
CREATE OR REPLACE FUNCTION dtx_internal.saga_trouble(sqlstate text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN sqlstate IN ('08003', '08006', '08007', '57P01', '57P02', '57P05') THEN 'lost'
              WHEN left(sqlstate, 2) IN ('08', '53') OR left(sqlstate, 3) = '57P' THEN 'away'
              WHEN sqlstate IN ('40001', '40P01', '55P03') THEN 'collision'
              WHEN sqlstate = '42501' OR left(sqlstate, 2) = '28' THEN 'access'
              WHEN left(sqlstate, 2) IN ('0A', '21', '22', '23', '2F', '3D', '3F', '42', '54') OR sqlstate = 'DX002' THEN 'hopeless' END
$$;

COMMENT ON FUNCTION dtx_internal.saga_trouble(text) IS
  'internal: what an error tells of for which the step can do nothing, null: nothing';

-- Others may try whether a server is there again.
CREATE OR REPLACE FUNCTION dtx_internal.saga_away(st dtx_internal.saga_step_record, server oid, message text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  INSERT INTO dtx_internal.saga_outage (home, role, server, since, tries, probe_at, message)
  VALUES (st.home, st.role, saga_away.server, now_at, 1, now_at + interval '250 milliseconds', left(saga_away.message, 1000))
  ON CONFLICT DO NOTHING;
  IF NOT FOUND THEN
    -- Another one of these may be doing the same.
    UPDATE dtx_internal.saga_outage AS o
       SET message = left(saga_away.message, 1000), probe_at = now_at + dtx_internal.saga_probe_pause(o.tries)
     WHERE o.ctid IN (SELECT x.ctid FROM dtx_internal.saga_outage x
                       WHERE x.home = st.home AND x.role = st.role AND x.server = saga_away.server FOR UPDATE SKIP LOCKED);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_away(dtx_internal.saga_step_record, oid, text) IS
  'internal: a foreign server does not answer';

CREATE OR REPLACE FUNCTION dtx_internal.saga_probe_pause(tries integer) RETURNS interval
LANGUAGE sql VOLATILE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT make_interval(secs => least(0.25 * 2 ^ least(tries, 10), 5) * (0.9 + random() / 5))
$$;

COMMENT ON FUNCTION dtx_internal.saga_probe_pause(integer) IS
  'internal: after how long a server that does not answer is tried again';

-- What waits for these servers can go on.
CREATE OR REPLACE FUNCTION dtx_internal.saga_answered(st dtx_internal.saga_step_record, servers oid[]) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM dtx_internal.saga_outage AS o
   WHERE o.ctid IN (SELECT x.ctid FROM dtx_internal.saga_outage x
                     WHERE x.home = st.home AND x.role = st.role AND x.server = ANY (saga_answered.servers) FOR UPDATE SKIP LOCKED);
  IF FOUND THEN
    PERFORM dtx_internal.wake_sagas();
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_answered(dtx_internal.saga_step_record, oid[]) IS
  'internal: foreign servers have answered to a step';

-- An attempt has failed, or was lost: try again, or turn back, or give up.
--   retryable: may it succeed if it is tried again?
--   final: it must not be tried again
--   server: the one that was used then
CREATE OR REPLACE FUNCTION dtx_internal.saga_attempt_failed(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, outcome text, retryable boolean, final boolean,
  sqlstate text, message text, detail text, hint text, started_at timestamptz, by_whom text DEFAULT NULL, server oid DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  -- A server that goes so often while it executes a step may be crashed by it.
  max_losses constant integer := 10;
  max_collisions constant integer := 1000;
  d dtx_internal.saga_definition_step_record;
  now_at timestamptz := clock_timestamp();
  may_go_on boolean := NOT final AND (st.compensation OR NOT sg.compensating);
  policy dtx.retry_policy;
  trouble text;
  again boolean;
  retry_at timestamptz;
  seconds double precision;
  what text;
BEGIN
  SELECT a.* INTO STRICT d FROM dtx_internal.saga_definition_step_record a
   WHERE a.definition = sg.definition AND a.step = st.step;
  -- They get into several tables, and into the server's log.
  message := left(message, 8000);
  detail := left(detail, 8000);
  hint := left(hint, 8000);
  policy := d.retry;
  IF NOT final AND saga_attempt_failed.sqlstate LIKE ANY (SELECT c || '%' FROM unnest(policy.always) AS c) THEN
    retryable := true;
    trouble := '';
  ELSIF NOT st.compensation AND saga_attempt_failed.sqlstate LIKE ANY (SELECT c || '%' FROM unnest(policy.never) AS c) THEN
    final := true;
    may_go_on := false;
    trouble := '';
  END IF;
  IF trouble IS NULL AND outcome = 'failed' AND (d.action = 'sql' OR st.taken OR d.action IN ('saga', 'each')) THEN
    trouble := dtx_internal.saga_trouble(saga_attempt_failed.sqlstate);
    IF server IS NOT NULL AND trouble IS DISTINCT FROM 'away' AND trouble IS DISTINCT FROM 'lost' THEN
      PERFORM dtx_internal.saga_answered(st, ARRAY[server]);
    END IF;
  END IF;

  -- For no fault of the step: that is no attempt.
  IF may_go_on
     AND (CASE trouble
            WHEN 'collision' THEN st.collisions < max_collisions
            WHEN 'lost' THEN st.losses < max_losses
            WHEN 'away' THEN st.max_outage IS NULL OR now_at - coalesce(st.away_since, now_at) < st.max_outage
          END) THEN
    IF trouble = 'collision' THEN
      -- soon again, but not all at the same time
      retry_at := now_at + make_interval(secs => least(0.005 * 2 ^ least(st.collisions, 10), 1) * (0.5 + random()));
    ELSIF server IS NOT NULL THEN
      PERFORM dtx_internal.saga_away(st, server, saga_attempt_failed.message);
    ELSE
      retry_at := now_at + greatest(least((now_at - coalesce(st.away_since, now_at)) / 4, interval '30 seconds'), interval '1 second')
                         * (0.75 + random() / 2);
    END IF;
    -- Once in the history is enough.
    IF (CASE trouble WHEN 'collision' THEN st.collisions = 0 WHEN 'lost' THEN true ELSE st.away_since IS NULL END) THEN
      INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, detail, hint,
                                           started_at, finished_at, retry_at)
      VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, st.attempt, 'postponed',
              saga_attempt_failed.sqlstate, saga_attempt_failed.message, saga_attempt_failed.detail,
              saga_attempt_failed.hint, saga_attempt_failed.started_at, now_at, retry_at);
    END IF;
    -- What waits for a server keeps its place among the others that do.
    UPDATE dtx_internal.saga_step_record
       SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
           taken = false, noted = false, attempt = st.attempt - 1, due_at = coalesce(retry_at, st.due_at), since = now_at,
           collisions = CASE WHEN trouble = 'collision' THEN st.collisions + 1 ELSE st.collisions END,
           losses = CASE WHEN trouble = 'lost' THEN st.losses + 1 ELSE st.losses END,
           away_since = CASE WHEN trouble <> 'collision' THEN coalesce(st.away_since, now_at) END,
           -- Who keeps a worker waiting for a lock, or collides again and again, comes after those who do not.
           rank = CASE WHEN trouble = 'collision' AND (st.collisions >= 2 OR saga_attempt_failed.sqlstate = '55P03') THEN dtx_internal.saga_rank('new', sg.priority) ELSE st.rank END,
           lane = CASE WHEN trouble <> 'collision' AND server IS NOT NULL THEN server
                       ELSE dtx_internal.saga_lane('sql', st.servers) END
     WHERE saga = sg.id AND step = st.step;
    PERFORM dtx_internal.wake_sagas();
    PERFORM dtx_internal.saga_ask_deadline(sg);
    RETURN;
  END IF;
  IF trouble = 'away' AND may_go_on THEN
    message := message || format(' (for longer than %s)', st.max_outage);
  END IF;

  again := may_go_on AND coalesce(trouble NOT IN ('away', 'access', 'hopeless'), true)
    AND st.attempt < CASE WHEN st.compensation THEN d.compensate_attempts ELSE d.max_attempts END
    AND (retryable OR st.compensation OR d.kind = 'retriable');
  IF again THEN
    -- Twice as long each time, but not longer than ten minutes, and never quite
    -- the same, so that those who failed together do not come back together.
    seconds := greatest(extract(epoch FROM d.backoff), 0.01);
    seconds := least(seconds * coalesce(policy.factor, 2) ^ least(st.attempt - 1, 30),
                     coalesce(extract(epoch FROM policy.maximum), greatest(seconds, 600)));
    IF d.action = 'external' AND outcome = 'lost' AND NOT st.taken THEN
      seconds := 0;             -- another worker can begin at once
    END IF;
    retry_at := now_at + make_interval(secs => seconds * (1 + coalesce(policy.jitter, 0.5) * (random() - 0.5)));
  END IF;
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, sqlstate, message, detail, hint,
                                       started_at, finished_at, retry_at, by_whom)
  VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0), outcome,
          saga_attempt_failed.sqlstate, saga_attempt_failed.message, saga_attempt_failed.detail,
          saga_attempt_failed.hint, saga_attempt_failed.started_at, now_at, retry_at, saga_attempt_failed.by_whom);
  IF again THEN
    IF d.action = 'external' AND NOT st.taken THEN
      UPDATE dtx_internal.saga_external
         SET token = NULL, worker = NULL, lease = NULL, claimed_at = NULL, batch = NULL, place = NULL, begun = false, available_at = retry_at
       WHERE saga = sg.id AND step = st.step;
      -- due when it can be claimed again, to tell the workers
      UPDATE dtx_internal.saga_step_record
         SET doubt = st.doubt,
             due_at = least(retry_at, CASE WHEN NOT st.compensation THEN st.since + d.timeout END)
       WHERE saga = sg.id AND step = st.step;
    ELSE
      UPDATE dtx_internal.saga_step_record
         SET state = CASE WHEN st.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
             taken = false, noted = false, away_since = NULL, due_at = retry_at, since = now_at,
             lane = dtx_internal.saga_lane(d.action, st.servers)
       WHERE saga = sg.id AND step = st.step;
    END IF;
    PERFORM dtx_internal.wake_sagas();
    PERFORM dtx_internal.saga_ask_deadline(sg);
    RETURN;
  END IF;

  DELETE FROM dtx_internal.saga_external WHERE saga = sg.id AND step = st.step;
  UPDATE dtx_internal.saga_step_record
     SET state = 'failed', taken = false, noted = false, doubt = st.doubt, away_since = NULL, due_at = NULL, since = now_at
   WHERE saga = sg.id AND step = st.step;
  what := format(CASE WHEN st.compensation THEN 'compensation of step "%s" has failed' ELSE 'step "%s" has failed' END
                 || CASE WHEN st.attempt > 1 THEN ' %s times' ELSE '' END || ': ', d.name, st.attempt) || coalesce(message, sqlstate);
  IF sg.compensating AND NOT st.compensation THEN
    PERFORM dtx_internal.saga_unwind(sg);
  ELSIF st.compensation OR d.kind = 'retriable' OR (d.kind = 'pivot' AND st.doubt) OR trouble = 'access' THEN
    -- Neither forth nor back.  Others that have failed before may have told already.
    IF sg.state <> 'failed' THEN
      PERFORM dtx_internal.saga_end(sg, 'failed', what || CASE WHEN st.doubt THEN ' (a worker that was lost may have done it)' ELSE '' END);
    END IF;
  ELSE
    PERFORM dtx_internal.saga_compensate(sg, what);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_attempt_failed(dtx_internal.saga_record, dtx_internal.saga_step_record, text, boolean, boolean, text, text, text, text, timestamptz, text, oid) IS
  'internal: an attempt at a step, or at its compensation, has failed';

-- An external worker has not begun a step that it had claimed: no attempt.
CREATE OR REPLACE FUNCTION dtx_internal.saga_put_back(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, e dtx_internal.saga_external,
  why text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, message, started_at, finished_at, retry_at, by_whom)
  VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, nullif(st.attempt, 0), 'stopped',
          why, e.claimed_at, now_at, now_at, e.worker);
  UPDATE dtx_internal.saga_external AS x
     SET token = NULL, worker = NULL, lease = NULL, claimed_at = NULL, batch = NULL, place = NULL, begun = false, available_at = now_at
   WHERE x.saga = sg.id AND x.step = st.step;
  UPDATE dtx_internal.saga_step_record AS s
     SET attempt = greatest(st.attempt - 1, 0), due_at = now_at
   WHERE s.saga = sg.id AND s.step = st.step;
  -- What turned the saga back meanwhile could not skip what was claimed.
  IF sg.compensating AND NOT st.compensation THEN
    DELETE FROM dtx_internal.saga_external x WHERE x.saga = sg.id AND x.step = st.step;
    UPDATE dtx_internal.saga_step_record AS s
       SET state = 'skipped', due_at = NULL, since = now_at
     WHERE s.saga = sg.id AND s.step = st.step;
    PERFORM dtx_internal.saga_unwind(sg);
  END IF;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_put_back(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_external, text) IS
  'internal: an external worker gives a step back that it has not worked on';

-- The lease of an external worker is over.  Of several that it had claimed together, it was
-- at one; the others it has not worked on.
CREATE OR REPLACE FUNCTION dtx_internal.saga_lease_lost(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, e dtx_internal.saga_external) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF e.batch IS NOT NULL AND NOT e.begun
     AND e.place <> coalesce((SELECT b.at FROM dtx_internal.saga_batch b WHERE b.id = e.batch), 0) THEN
    PERFORM dtx_internal.saga_put_back(sg, st, e, format('worker "%s" has not come to it', e.worker));
    RETURN;
  END IF;
  -- It is not known whether that worker has done it.
  st.doubt := NOT st.compensation;
  INSERT INTO dtx_internal.saga_lost_lease (token, saga, step, attempt, compensation, worker, claimed_at)
  VALUES (e.token, sg.id, st.step, st.attempt, st.compensation, e.worker, e.claimed_at);
  PERFORM dtx_internal.saga_attempt_failed(sg, st, 'lost', true, false, NULL,
    format('the lease of worker "%s" has expired', e.worker), NULL, NULL, e.claimed_at, e.worker);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_lease_lost(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_external) IS
  'internal: an external worker has not reported in time';

-- What workers have noted of steps of a saga that was locked then; the saga as it is
-- afterwards.
CREATE OR REPLACE FUNCTION dtx_internal.saga_take_notes(sg dtx_internal.saga_record) RETURNS dtx_internal.saga_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  this_step smallint;
BEGIN
  FOR this_step IN
    SELECT s.step FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.noted ORDER BY s.step
  LOOP
    PERFORM dtx_internal.saga_take_note(sg, s)
       FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = this_step AND s.noted;
    SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = sg.id;
  END LOOP;
  RETURN sg;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_take_notes(dtx_internal.saga_record) IS
  'internal: takes up what workers have reported while a saga was locked';

CREATE OR REPLACE FUNCTION dtx_internal.saga_take_note(sg dtx_internal.saga_record, st dtx_internal.saga_step_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  note dtx_internal.saga_note;
BEGIN
  DELETE FROM dtx_internal.saga_note n WHERE n.saga = sg.id AND n.step = st.step RETURNING n.* INTO note;
  IF NOT FOUND THEN
    PERFORM dtx_internal.saga_succeeded(sg, st, NULL, st.since);
  ELSIF note.outcome = 'stopped' THEN
    PERFORM dtx_internal.saga_stopped(sg, st, note.message, note.started_at);
  ELSE
    PERFORM dtx_internal.saga_attempt_failed(sg, st, note.outcome, dtx_internal.saga_retryable(note.sqlstate), false, note.sqlstate,
      note.message, note.detail, note.hint, note.started_at, NULL, note.server);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_take_note(dtx_internal.saga_record, dtx_internal.saga_step_record) IS
  'internal: takes up what a worker has reported of a step';

-- A worker has given a step back: it was no attempt.  why: null, if it was not begun.
CREATE OR REPLACE FUNCTION dtx_internal.saga_stopped(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, why text, started_at timestamptz) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  UPDATE dtx_internal.saga_step_record AS s
     SET state = CASE WHEN s.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
         taken = false, noted = false, attempt = s.attempt - 1, due_at = now_at + '200 ms',
         lane = dtx_internal.saga_lane('sql', s.servers)
   WHERE s.saga = sg.id AND s.step = st.step;
  IF why IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_history_record (saga, step, action, attempt, outcome, message, started_at, finished_at, retry_at)
    VALUES (sg.id, st.step, CASE WHEN st.compensation THEN 'compensate' ELSE 'execute' END, st.attempt, 'stopped', why,
            coalesce(saga_stopped.started_at, now_at), now_at, now_at + '200 ms');
  END IF;
  -- What turned the saga back meanwhile could not skip what was taken.
  IF sg.compensating AND NOT st.compensation THEN
    UPDATE dtx_internal.saga_step_record AS s
       SET state = 'skipped', due_at = NULL, since = now_at
     WHERE s.saga = sg.id AND s.step = st.step;
    PERFORM dtx_internal.saga_unwind(sg);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_stopped(dtx_internal.saga_record, dtx_internal.saga_step_record, text, timestamptz) IS
  'internal: a step was given back that was not begun, or was stopped for no fault of its own';
