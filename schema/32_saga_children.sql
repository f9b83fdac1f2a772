--
-- Sagas that are steps of sagas: what a step of action saga or each does, and what the two
-- tell each other.  Neither waits for the other one's lock: a message is taken up by the
-- scheduler (saga_deliver()), and says only that there is something to look at.
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_tell(saga bigint, kind text, payload jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  INSERT INTO dtx_internal.saga_inbox (home, role, saga, kind, payload, received_at)
  SELECT g.home, g.role, g.id, saga_tell.kind, saga_tell.payload, clock_timestamp()
    FROM dtx_internal.saga_record g WHERE g.id = saga_tell.saga;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_tell(bigint, text, jsonb) IS
  'internal: tells a saga something, without waiting for it';

-- The definition that a step means; a name without an owner's is one of the owner of the
-- definition that the step is in.  The role must be allowed to start it.
CREATE OR REPLACE FUNCTION dtx_internal.saga_child_definition(owner oid, name text, version integer, role oid)
RETURNS dtx_internal.saga_definition_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  part record := dtx_internal.saga_split_name(saga_child_definition.name);
  d dtx_internal.saga_definition_record;
BEGIN
  SELECT x.* INTO d
    FROM dtx_internal.saga_definition_record x
   WHERE x.owner = CASE WHEN part.owner IS NULL THEN saga_child_definition.owner
                        ELSE (SELECT r.oid FROM pg_authid r WHERE r.rolname = part.owner) END
     AND x.name = part.bare AND NOT x.dropped
     AND x.version = coalesce(saga_child_definition.version, x.version)
   ORDER BY x.version DESC LIMIT 1 FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', saga_child_definition.name)
                || coalesce(' with version ' || saga_child_definition.version, '');
  ELSIF NOT pg_has_role(role, d.owner, 'USAGE') AND NOT dtx_internal.saga_granted(d.owner, d.name, role) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga definition "%s"', saga_child_definition.name),
      HINT = 'Its owner can grant it with dtx.grant_saga_definition().';
  END IF;
  RETURN d;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_child_definition(oid, text, integer, oid) IS
  'internal: the definition of the sagas of a step; an error if a role may not start them';

-- Start the saga of one item.
CREATE OR REPLACE FUNCTION dtx_internal.saga_start_child(sg dtx_internal.saga_record, d dtx_internal.saga_definition_step_record, input jsonb)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  max_depth constant integer := 20;
  owner oid := (SELECT x.owner FROM dtx_internal.saga_definition_record x WHERE x.id = sg.definition);
  def dtx_internal.saga_definition_record;
  depth integer;
  no_return text;
BEGIN
  def := dtx_internal.saga_child_definition(owner, d.saga, d.version, sg.role);
  PERFORM dtx_internal.saga_check_access(def, sg.role);
  WITH RECURSIVE up (parent, depth) AS (
    SELECT sg.parent, 1
    UNION ALL
    SELECT g.parent, up.depth + 1 FROM up JOIN dtx_internal.saga_record g ON g.id = up.parent WHERE up.depth <= max_depth)
  SELECT max(up.depth) INTO depth FROM up;
  IF depth > max_depth THEN
    RAISE EXCEPTION USING
      ERRCODE = 'program_limit_exceeded',
      MESSAGE = format('sagas are steps of sagas more than %s times', max_depth);
  END IF;
  IF d.kind = 'compensatable' THEN
    SELECT x.name INTO no_return FROM dtx_internal.saga_definition_step_record x
     WHERE x.definition = def.id AND x.action IN ('sql', 'external', 'saga', 'each') AND x.kind <> 'compensatable'
     ORDER BY x.step LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('saga "%s" cannot be undone, but step "%s" is to be compensatable', def.name, d.name),
        DETAIL = format('Step "%s" of it is a point of no return.', no_return),
        HINT = 'Make it a step of kind pivot or retriable.';
    END IF;
  END IF;
  RETURN dtx_internal.saga_make(def, sg.role, input, NULL, NULL, NULL, sg.priority, sg.id);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_start_child(dtx_internal.saga_record, dtx_internal.saga_definition_step_record, jsonb) IS
  'internal: starts a saga that is a step of another one, as the role of that';

-- A step of action saga or each is due: begin, or begin to undo it, or its time is over.
-- value: of its expression, if it has one.
CREATE OR REPLACE FUNCTION dtx_internal.saga_do_children(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record, value jsonb DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  now_at timestamptz := clock_timestamp();
BEGIN
  IF st.compensation THEN
    -- What could not be undone may be now.
    UPDATE dtx_internal.saga_child AS c SET state = 'completed', failure = NULL
     WHERE c.saga = sg.id AND c.step = st.step AND c.state = 'stuck';
    UPDATE dtx_internal.saga_step_record AS s SET due_at = NULL WHERE s.saga = sg.id AND s.step = st.step;
  ELSIF st.state IN ('pending', 'running') THEN
    -- Of an earlier attempt, what is done stays done.
    UPDATE dtx_internal.saga_child AS c SET state = 'waiting', child = NULL, failure = NULL
     WHERE c.saga = sg.id AND c.step = st.step AND c.state IN ('undone', 'stuck');
    IF NOT EXISTS (SELECT FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = st.step) THEN
      IF d.action = 'saga' THEN
        INSERT INTO dtx_internal.saga_child (saga, step, item, input)
        SELECT sg.id, st.step, 1, coalesce(value, CASE WHEN d.expression IS NULL THEN x.input END, '{}')
          FROM dtx_internal.saga_data x WHERE x.saga = sg.id;
      ELSIF jsonb_typeof(value) IS DISTINCT FROM 'array' OR jsonb_array_length(value) > 10000 THEN
        RAISE EXCEPTION USING
          ERRCODE = 'invalid_parameter_value',
          MESSAGE = format('items of step "%s" must be an array of jsonb with 10000 elements at most', d.name);
      ELSE
        INSERT INTO dtx_internal.saga_child (saga, step, item, input)
        SELECT sg.id, st.step, u.i, u.item FROM jsonb_array_elements(value) WITH ORDINALITY AS u (item, i);
      END IF;
    END IF;
    UPDATE dtx_internal.saga_step_record AS s
       SET state = 'waiting', attempt = CASE WHEN st.taken THEN st.attempt ELSE st.attempt + 1 END, taken = false, lane = 1,
           due_at = now_at + d.timeout, since = now_at
     WHERE s.saga = sg.id AND s.step = st.step;
    IF d.timeout IS NOT NULL THEN
      PERFORM dtx_internal.wake_sagas();
    END IF;
  ELSE
    -- Its time is over.  It fails when all that was begun is undone.
    UPDATE dtx_internal.saga_step_record AS s SET due_at = NULL WHERE s.saga = sg.id AND s.step = st.step;
    PERFORM dtx_internal.saga_children_turn(sg, st, format('step "%s" of saga %s has taken longer than %s', d.name, sg.id, d.timeout));
  END IF;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = st.step;
  PERFORM dtx_internal.saga_children_go_on(sg, st, d);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_do_children(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record, jsonb) IS
  'internal: what is to be done now for a step that consists of sagas';

-- All of them turn back, or are never started.
CREATE OR REPLACE FUNCTION dtx_internal.saga_children_turn(sg dtx_internal.saga_record, st dtx_internal.saga_step_record, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  c dtx_internal.saga_child;
BEGIN
  FOR c IN
    SELECT x.* FROM dtx_internal.saga_child x
     WHERE x.saga = sg.id AND x.step = st.step AND x.state IN ('waiting', 'running', 'completed') ORDER BY x.item FOR UPDATE
  LOOP
    IF c.state = 'waiting' THEN
      UPDATE dtx_internal.saga_child AS x SET state = 'undone'
       WHERE x.saga = c.saga AND x.step = c.step AND x.item = c.item;
    ELSE
      UPDATE dtx_internal.saga_child AS x SET state = CASE c.state WHEN 'running' THEN 'canceling' ELSE 'undoing' END
       WHERE x.saga = c.saga AND x.step = c.step AND x.item = c.item;
      PERFORM dtx_internal.saga_tell(c.child, CASE c.state WHEN 'running' THEN 'cancel' ELSE 'undo' END, to_jsonb(reason));
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_children_turn(dtx_internal.saga_record, dtx_internal.saga_step_record, text) IS
  'internal: has the sagas of a step turn back';

-- With the row of the saga locked: see how its step's sagas are, and do what follows.
CREATE OR REPLACE FUNCTION dtx_internal.saga_children_go_on(sg dtx_internal.saga_record, st dtx_internal.saga_step_record,
  d dtx_internal.saga_definition_step_record) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  c dtx_internal.saga_child;
  n record;
  failed record;
  result jsonb;
  number bigint;
  started boolean := false;
  code text;
BEGIN
  UPDATE dtx_internal.saga_child AS x
     SET state = CASE g.state WHEN 'completed' THEN 'completed' ELSE 'undone' END,
         failure = CASE WHEN g.state = 'compensated'
                        THEN format('saga %s ("%s") was compensated', g.id, f.name) || coalesce(': ' || y.reason, '') END
    FROM dtx_internal.saga_record g
    JOIN dtx_internal.saga_data y ON y.saga = g.id
    JOIN dtx_internal.saga_definition_record f ON f.id = g.definition
   WHERE x.saga = sg.id AND x.step = st.step AND g.id = x.child
     AND CASE WHEN x.state IN ('running', 'canceling') THEN g.state IN ('completed', 'compensated')
              ELSE x.state IN ('undoing', 'stuck') AND g.state = 'compensated' END;

  IF NOT st.compensation AND NOT sg.compensating AND d.kind = 'retriable'
     AND EXISTS (SELECT FROM dtx_internal.saga_child x WHERE x.saga = sg.id AND x.step = st.step AND x.state = 'undone') THEN
    -- What is done stays done, and what runs goes on.
    SELECT x.failure INTO failed FROM dtx_internal.saga_child x
     WHERE x.saga = sg.id AND x.step = st.step AND x.state = 'undone' ORDER BY x.item LIMIT 1;
    PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', true, false, NULL, failed.failure, NULL, NULL, st.since);
    RETURN;
  END IF;

  IF st.compensation OR sg.compensating
     OR EXISTS (SELECT FROM dtx_internal.saga_child x
                 WHERE x.saga = sg.id AND x.step = st.step AND x.state IN ('canceling', 'undoing', 'undone', 'stuck')) THEN
    PERFORM dtx_internal.saga_children_turn(sg, st, format('step "%s" of saga %s is undone', d.name, sg.id));
    IF EXISTS (SELECT FROM dtx_internal.saga_child x
                WHERE x.saga = sg.id AND x.step = st.step AND x.state IN ('canceling', 'undoing')) THEN
      RETURN;                   -- they will tell
    END IF;
    SELECT x.failure, x.state INTO failed FROM dtx_internal.saga_child x
     WHERE x.saga = sg.id AND x.step = st.step ORDER BY x.state <> 'stuck', x.failure IS NULL, x.item LIMIT 1;
    IF failed.state = 'stuck' THEN
      -- Part of it is done, and cannot be undone.
      st.doubt := NOT st.compensation;
      PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', false, true, '55000', failed.failure, NULL, NULL, st.since);
    ELSIF st.compensation THEN
      PERFORM dtx_internal.saga_succeeded(sg, st, NULL, st.since);
    ELSIF sg.compensating THEN
      UPDATE dtx_internal.saga_step_record AS s
         SET state = 'skipped', due_at = NULL, since = clock_timestamp(),
             boot_id = dtx_internal.boot_id(), xid = dtx_internal.saga_xid()
       WHERE s.saga = sg.id AND s.step = st.step;
      PERFORM dtx_internal.saga_unwind(sg);
    ELSE
      PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', true, false, NULL,
                coalesce(failed.failure, 'it was undone'), NULL, NULL, st.since);
    END IF;
    RETURN;
  END IF;

  SELECT count(*) FILTER (WHERE x.state = 'running') AS running, count(*) FILTER (WHERE x.state = 'waiting') AS waiting INTO n
    FROM dtx_internal.saga_child x WHERE x.saga = sg.id AND x.step = st.step;
  FOR c IN
    SELECT x.* FROM dtx_internal.saga_child x
     WHERE x.saga = sg.id AND x.step = st.step AND x.state = 'waiting'
     ORDER BY x.item LIMIT greatest(coalesce(d.parallel, 1) - n.running, 0)
  LOOP
    BEGIN
      number := dtx_internal.saga_start_child(sg, d, c.input);
    EXCEPTION WHEN OTHERS THEN
      -- What was begun of this step is undone; it is tried again if that may help.
      code := SQLSTATE;
      UPDATE dtx_internal.saga_child AS x SET state = 'undone', failure = left(SQLERRM, 8000)
       WHERE x.saga = c.saga AND x.step = c.step AND x.item = c.item;
      IF n.running = 0 AND NOT started AND d.action = 'saga' THEN
        PERFORM dtx_internal.saga_attempt_failed(sg, st, 'failed', dtx_internal.saga_retryable(code), false, code, SQLERRM, NULL, NULL, st.since);
      ELSE
        PERFORM dtx_internal.saga_children_go_on(sg, st, d);
      END IF;
      RETURN;
    END;
    UPDATE dtx_internal.saga_child AS x SET state = 'running', child = number
     WHERE x.saga = c.saga AND x.step = c.step AND x.item = c.item;
    started := true;
  END LOOP;
  IF n.running > 0 OR n.waiting > 0 THEN
    RETURN;
  END IF;

  SELECT CASE WHEN d.action = 'saga' THEN (array_agg(y.results))[1] ELSE coalesce(jsonb_agg(y.results ORDER BY x.item), '[]') END INTO result
    FROM dtx_internal.saga_child x
    JOIN dtx_internal.saga_record g ON g.id = x.child
   CROSS JOIN LATERAL (SELECT dtx_internal.saga_results(g.id, g.definition) AS results) AS y
   WHERE x.saga = sg.id AND x.step = st.step;
  BEGIN
    PERFORM dtx_internal.saga_check_result(sg, result);
  EXCEPTION WHEN program_limit_exceeded THEN
    UPDATE dtx_internal.saga_child AS x SET state = 'undoing', failure = SQLERRM WHERE x.saga = sg.id AND x.step = st.step;
    PERFORM dtx_internal.saga_tell(x.child, 'undo', to_jsonb(SQLERRM))
       FROM dtx_internal.saga_child x WHERE x.saga = sg.id AND x.step = st.step;
    RETURN;
  END;
  PERFORM dtx_internal.saga_succeeded(sg, st, result, st.since);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_children_go_on(dtx_internal.saga_record, dtx_internal.saga_step_record, dtx_internal.saga_definition_step_record) IS
  'internal: what follows from how the sagas of a step are now';

-- A saga that is a step of another one was told to turn back: cancel, or, if it is
-- completed, undo.
CREATE OR REPLACE FUNCTION dtx_internal.saga_turn_back(sg dtx_internal.saga_record, kind text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  blocker text;
BEGIN
  -- (canceled too late: it has told that it is completed, and is told to be undone then)
  IF sg.state = 'compensated' OR sg.compensating OR (kind = 'cancel') = (sg.state = 'completed') THEN
    RETURN;
  END IF;
  blocker := dtx_internal.saga_no_return(sg);
  IF blocker IS NULL THEN
    INSERT INTO dtx_internal.saga_history_record (saga, action, outcome, message, started_at, finished_at)
    VALUES (sg.id, 'cancel', 'compensating', reason, clock_timestamp(), clock_timestamp());
    PERFORM dtx_internal.saga_stop_steps(sg);
    PERFORM dtx_internal.saga_compensate(sg, 'canceled: ' || reason);
  ELSIF kind = 'undo' THEN
    PERFORM dtx_internal.saga_tell(sg.parent, 'child', jsonb_build_object('stuck', sg.id,
      'reason', format('saga %s is completed and cannot be undone: step "%s" is a point of no return', sg.id, blocker)));
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_turn_back(dtx_internal.saga_record, text, text) IS
  'internal: a saga that is a step of another one is to be undone';
