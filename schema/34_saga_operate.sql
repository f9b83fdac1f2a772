--
-- Starting a saga, waiting for it, what operators can do to it, and forgetting it.
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_look(saga bigint) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg record;
BEGIN
  SELECT g.state, g.role, g.xmin AS made_by, g.xmax AS locked_by, g AS row INTO sg
    FROM dtx_internal.saga_record g WHERE g.id = saga_look.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN saga_look.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist', saga_look.saga) END;
  END IF;
  IF NOT pg_has_role(dtx_internal.saga_caller(), sg.role, 'USAGE') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga %s', saga_look.saga);
  END IF;
  IF sg.state NOT IN ('completed', 'compensated') THEN
    PERFORM dtx_internal.saga_check_database(sg.row);
  END IF;
  -- Nobody else can go on with a saga that this transaction has made or locked.
  IF sg.state NOT IN ('completed', 'compensated', 'failed')
    AND (dtx_internal.saga_own_xid(sg.made_by) OR dtx_internal.saga_own_xid(sg.locked_by)
         OR EXISTS (SELECT FROM dtx_internal.saga_inbox m
                     WHERE m.saga = saga_look.saga AND NOT m.taken_up AND dtx_internal.saga_own_xid(m.xmin))) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('cannot wait for saga %s in the transaction that has started or changed it', saga_look.saga),
      HINT = 'Commit first.';
  END IF;
  RETURN sg.state;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_look(bigint) IS
  'internal: state of a saga for a caller that is going to wait for it';

-- An error if a role cannot use a server of a definition: it would find out when half
-- of the saga is done.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_access(def dtx_internal.saga_definition_record, role oid) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x record;
BEGIN
  SELECT u.name, d.name AS step, f.oid IS NOT NULL AS there, has_server_privilege(role, f.oid, 'USAGE') AS may INTO x
    FROM dtx_internal.saga_definition_step_record d
    CROSS JOIN unnest(d.servers) AS u (name)
    LEFT JOIN pg_foreign_server f ON f.srvname = u.name
   WHERE d.definition = def.id AND u.name IS NOT NULL
     AND (f.oid IS NULL OR NOT has_server_privilege(role, f.oid, 'USAGE')
          OR NOT EXISTS (SELECT FROM pg_user_mapping m WHERE m.umserver = f.oid AND m.umuser IN (role, 0)))
   ORDER BY d.step LIMIT 1;
  IF NOT FOUND THEN
    RETURN;
  ELSIF NOT x.there THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('server "%s" does not exist', x.name),
      DETAIL = format('Step "%s" of saga "%s", version %s, needs it.', x.step, def.name, def.version);
  ELSIF NOT x.may THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for foreign server %s', x.name),
      DETAIL = format('Step "%s" of saga "%s", version %s, needs it.', x.step, def.name, def.version);
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'undefined_object',
    MESSAGE = format('user mapping not found for "%s"', pg_get_userbyid(role)),
    DETAIL = format('Step "%s" of saga "%s", version %s, needs server "%s".', x.step, def.name, def.version, x.name);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_access(dtx_internal.saga_definition_record, oid) IS
  'internal: an error if a role cannot use the servers of a definition';

-- The rows of a new saga.  All that may be wrong with it was looked at.
CREATE OR REPLACE FUNCTION dtx_internal.saga_make(def dtx_internal.saga_definition_record, role oid, input jsonb, key text,
  run_at timestamptz, deadline timestamptz, priority smallint, parent bigint, number bigint DEFAULT NULL,
  attributes jsonb DEFAULT NULL, lane text DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_home();
  id bigint := coalesce(number, nextval('dtx_internal.saga_id'));
  now_at timestamptz := clock_timestamp();
  begin_at timestamptz := greatest(now_at, saga_make.run_at);
BEGIN
  INSERT INTO dtx_internal.saga_record (id, home, definition, role, boot_id, xid, state, priority, started_at, parent)
  VALUES (id, here, def.id, saga_make.role, dtx_internal.boot_id(), dtx_internal.saga_xid(), 'pending', saga_make.priority, now_at, saga_make.parent);
  INSERT INTO dtx_internal.saga_data (saga, input, key, run_at, deadline, attributes, lane)
  VALUES (id, saga_make.input, saga_make.key, saga_make.run_at, saga_make.deadline, saga_make.attributes, saga_make.lane);
  IF saga_make.lane IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_lane_record (home, role, lane, saga) VALUES (here, saga_make.role, saga_make.lane, id);
  END IF;
  INSERT INTO dtx_internal.saga_step_record (saga, step, home, role, lane, rank, servers, max_outage, state, due_at, since)
  SELECT id, d.step, here, saga_make.role, dtx_internal.saga_lane(d.action, x.servers),
         dtx_internal.saga_rank(CASE WHEN saga_make.parent IS NULL THEN 'new' ELSE 'begun' END, saga_make.priority),
         x.servers, d.max_outage, 'pending', begin_at, now_at
    FROM dtx_internal.saga_definition_step_record d
   CROSS JOIN LATERAL dtx_internal.saga_servers(d.servers, d.execute) AS x (servers)
   WHERE d.definition = def.id AND d.after = '{}';
  IF saga_make.deadline IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_step_record (saga, step, home, role, lane, state, due_at, since)
    VALUES (id, 0, here, saga_make.role, 0, 'waiting', saga_make.deadline, now_at);
  END IF;
  PERFORM dtx_internal.wake_sagas();
  RETURN id;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_make(dtx_internal.saga_definition_record, oid, jsonb, text, timestamptz, timestamptz, smallint, bigint, bigint, jsonb, text) IS
  'internal: makes a saga';

CREATE OR REPLACE FUNCTION dtx_internal.start_saga(name text, input jsonb, key text, run_at timestamptz, deadline timestamptz, version integer,
  priority integer, if_exists text, key_scope text, attributes jsonb, lane text)
RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  def dtx_internal.saga_definition_record;
  id bigint;
  -- A key is one of the role that starts the saga, or of all who start sagas of that definition.
  key_role dtx_internal.saga_role := CASE WHEN key_scope = 'definition' THEN 0 ELSE caller END;
  old record;
  now_at timestamptz := clock_timestamp();
  begin_at timestamptz := greatest(now_at, start_saga.run_at);
BEGIN
  IF jsonb_typeof(start_saga.attributes) <> 'object' OR pg_column_size(start_saga.attributes) > 100000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'attributes of a saga must be an object with 100 kB at most';
  ELSIF start_saga.lane = '' OR octet_length(start_saga.lane) > 1000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'lane of a saga must have 1 to 1000 bytes';
  END IF;
  IF octet_length(start_saga.key) > 1000 THEN
    -- (it is part of an index)
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'key of a saga must not be longer than 1000 bytes';
  END IF;
  IF coalesce(start_saga.if_exists NOT IN ('return', 'reject', 'restart'), true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'if_exists must be return, reject, or restart';
  ELSIF coalesce(start_saga.key_scope NOT IN ('role', 'definition'), true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'key_scope must be role or definition';
  END IF;
  def := dtx_internal.saga_find_definition(start_saga.name, start_saga.version);
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
  PERFORM dtx_internal.saga_check_access(def, caller);
  IF NOT isfinite(start_saga.run_at) OR NOT isfinite(start_saga.deadline) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'times of a saga must be finite';
  ELSIF start_saga.priority NOT BETWEEN -400 AND 400 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'priority of a saga must be from -400 to 400';
  ELSIF start_saga.deadline <= begin_at THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('deadline %s is not after the start of the saga', start_saga.deadline);
  END IF;
  LOOP
    IF start_saga.key IS NOT NULL THEN
      SELECT k.saga, g.state, x.input, g AS sg INTO old
        FROM dtx_internal.saga_key k
        JOIN dtx_internal.saga_record g ON g.id = k.saga
        JOIN dtx_internal.saga_data x ON x.saga = k.saga
       WHERE k.role = key_role AND k.owner = def.owner AND k.name = def.name AND k.key = start_saga.key;
      IF FOUND THEN
        IF old.state NOT IN ('completed', 'compensated') THEN
          PERFORM dtx_internal.saga_check_database(old.sg);
        END IF;
        IF start_saga.if_exists = 'reject' THEN
          RAISE EXCEPTION USING
            ERRCODE = 'unique_violation',
            MESSAGE = format('there is a saga with key "%s" already', start_saga.key),
            DETAIL = format('It is saga %s, %s.', old.saga, old.state);
        ELSIF start_saga.if_exists = 'restart' AND old.state = 'compensated' THEN
          -- Of several who do this at the same time, one makes the new saga.
          DELETE FROM dtx_internal.saga_key k
           WHERE k.role = key_role AND k.owner = def.owner AND k.name = def.name AND k.key = start_saga.key AND k.saga = old.saga;
        ELSIF old.input <> coalesce(start_saga.input, '{}') THEN
          RAISE EXCEPTION USING
            ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('saga %s with key "%s" has another input', old.saga, start_saga.key),
            HINT = 'The same key means the same saga.';
        ELSE
          RETURN old.saga;
        END IF;
      END IF;
    END IF;
    id := nextval('dtx_internal.saga_id');
    EXIT WHEN start_saga.key IS NULL;
    -- waits for another transaction that is doing the same just now
    INSERT INTO dtx_internal.saga_key (role, owner, name, key, saga)
    VALUES (key_role, def.owner, def.name, start_saga.key, id)
    ON CONFLICT DO NOTHING;
    EXIT WHEN FOUND;
  END LOOP;
  RETURN dtx_internal.saga_make(def, caller, coalesce(start_saga.input, '{}'), start_saga.key, start_saga.run_at, start_saga.deadline,
           coalesce(start_saga.priority, 0)::smallint, NULL, id, start_saga.attributes, start_saga.lane);
END
$$;

COMMENT ON FUNCTION dtx_internal.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) IS
  'internal: dtx.start_saga()';

CREATE OR REPLACE FUNCTION dtx.start_saga(name text, input jsonb DEFAULT '{}', key text DEFAULT NULL,
  run_at timestamptz DEFAULT NULL, deadline timestamptz DEFAULT NULL, version integer DEFAULT NULL,
  priority integer DEFAULT NULL, if_exists text DEFAULT 'return', key_scope text DEFAULT 'role',
  attributes jsonb DEFAULT NULL, lane text DEFAULT NULL) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) IS
  'starts a saga if this transaction commits, as the current role, and returns its number; with the same key, the same saga, unless asked otherwise; an error if this role may not start it, or could not connect to have its steps executed';

CREATE OR REPLACE FUNCTION dtx.wait_saga(saga bigint, timeout interval DEFAULT NULL) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_wait_saga'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.wait_saga(bigint, interval) IS
  'waits until a saga is completed or compensated or has failed, not longer than the timeout (null: without limit), and returns its state then; an error in the transaction that has started or changed it, and in a step of a saga';

CREATE OR REPLACE FUNCTION dtx_internal.cancel_saga(saga bigint, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  blocker text;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  sg := dtx_internal.saga_lock(cancel_saga.saga);
  IF sg.state = 'completed' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s is completed already', sg.id);
  ELSIF NOT sg.compensating AND sg.state <> 'compensated' THEN
    blocker := dtx_internal.saga_no_return(sg);
    IF blocker IS NOT NULL THEN
      RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = format('saga %s cannot be canceled any more', sg.id),
        DETAIL = format('Step "%s" has begun and cannot be undone.', blocker);
    END IF;
    PERFORM dtx_internal.saga_audit(sg, NULL, 'cancel', 'compensating', reason);
    PERFORM dtx_internal.saga_stop_steps(sg);
    PERFORM dtx_internal.saga_compensate(sg, 'canceled: ' || reason);
    PERFORM dtx_internal.wake_sagas();
  END IF;
  RETURN (SELECT g.state FROM dtx_internal.saga_record g WHERE g.id = sg.id);
END
$$;

COMMENT ON FUNCTION dtx_internal.cancel_saga(bigint, text) IS
  'internal: dtx.cancel_saga()';

CREATE OR REPLACE FUNCTION dtx.cancel_saga(saga bigint, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.cancel_saga(bigint, text) IS
  'has a saga compensated, if it has not reached its point of no return, and stops its steps that run; returns its state now; an error if it is completed, or cannot go back any more';

-- The step of that name, and its row, for operators.
CREATE OR REPLACE FUNCTION dtx_internal.saga_find_step(sg dtx_internal.saga_record, name text) RETURNS smallint
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  step smallint;
BEGIN
  SELECT d.step INTO step FROM dtx_internal.saga_definition_step_record d
   WHERE d.definition = sg.definition AND d.name = saga_find_step.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN saga_find_step.name IS NULL THEN 'name of the step must not be null'
                     ELSE format('saga %s has no step "%s"', sg.id, saga_find_step.name) END;
  END IF;
  RETURN step;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_find_step(dtx_internal.saga_record, text) IS
  'internal: number of a step';

-- After an operator has dealt with what had failed.
CREATE OR REPLACE FUNCTION dtx_internal.saga_revive(sg dtx_internal.saga_record) RETURNS dtx_internal.saga_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF sg.state = 'failed'
     AND NOT EXISTS (SELECT FROM dtx_internal.saga_step_record s
                      WHERE s.saga = sg.id AND s.state = 'failed' AND s.compensation = sg.compensating) THEN
    sg.state := CASE WHEN sg.compensating THEN 'compensating' ELSE 'running' END;
    UPDATE dtx_internal.saga_record SET state = sg.state WHERE id = sg.id;
    UPDATE dtx_internal.saga_data SET failure = NULL WHERE saga = sg.id;
  END IF;
  RETURN sg;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_revive(dtx_internal.saga_record) IS
  'internal: a saga that had failed goes on, if nothing that has failed is left';

CREATE OR REPLACE FUNCTION dtx_internal.saga_check_unfinished(sg dtx_internal.saga_record) RETURNS void
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

COMMENT ON FUNCTION dtx_internal.saga_check_unfinished(dtx_internal.saga_record) IS
  'internal: an error if a saga has come to its end';

CREATE OR REPLACE FUNCTION dtx_internal.retry_saga(saga bigint) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  n integer;
  total integer := 0;
BEGIN
  sg := dtx_internal.saga_lock(retry_saga.saga);
  PERFORM dtx_internal.saga_check_unfinished(sg);
  -- what waits for its next attempt
  UPDATE dtx_internal.saga_external AS e
     SET available_at = clock_timestamp()
   WHERE e.saga = sg.id AND e.token IS NULL AND e.available_at > clock_timestamp();
  UPDATE dtx_internal.saga_step_record AS s
     SET due_at = clock_timestamp()
   WHERE s.saga = sg.id AND s.step > 0 AND NOT s.taken AND s.attempt > 0 AND s.due_at > clock_timestamp()
     AND (s.state IN ('pending', 'compensating')
          OR (s.state = 'waiting' AND EXISTS (SELECT FROM dtx_internal.saga_external e
                                               WHERE e.saga = s.saga AND e.step = s.step AND e.token IS NULL)));
  GET DIAGNOSTICS n = ROW_COUNT;
  total := total + n;
  -- servers that do not answer, and collisions, from the beginning
  UPDATE dtx_internal.saga_outage AS o
     SET probe_at = clock_timestamp(), tries = 1
   WHERE o.ctid IN (SELECT x.ctid
                      FROM dtx_internal.saga_outage x
                      JOIN dtx_internal.saga_step_record s ON s.saga = sg.id AND s.due_at IS NOT NULL AND x.server = ANY (s.servers)
                     WHERE x.home = sg.home AND x.role = sg.role FOR UPDATE OF x SKIP LOCKED);
  GET DIAGNOSTICS n = ROW_COUNT;
  total := total + n;
  -- what has failed
  IF sg.state = 'failed' THEN
    UPDATE dtx_internal.saga_step_record AS s
       SET state = CASE WHEN s.compensation THEN 'compensating' ELSE 'pending' END::dtx.saga_step_state,
           attempt = 0, collisions = 0, losses = 0, due_at = clock_timestamp(), since = clock_timestamp()
     WHERE s.saga = sg.id AND s.state = 'failed' AND s.compensation = sg.compensating;
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
  END IF;
  IF total = 0 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('no step of saga %s has failed or waits to be tried again', sg.id);
  END IF;
  sg := dtx_internal.saga_revive(sg);
  PERFORM dtx_internal.saga_audit(sg, NULL, 'retry', sg.state::text, NULL);
  PERFORM dtx_internal.wake_sagas();
  RETURN sg.state;
END
$$;

COMMENT ON FUNCTION dtx_internal.retry_saga(bigint) IS
  'internal: dtx.retry_saga()';

CREATE OR REPLACE FUNCTION dtx.retry_saga(saga bigint) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.retry_saga(bigint) IS
  'tries again, with all attempts, what has failed, and at once what waits for its next attempt; returns the state of the saga; an error if there is no such step';

CREATE OR REPLACE FUNCTION dtx_internal.skip_step(saga bigint, step text, reason text, result jsonb) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  number smallint;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  sg := dtx_internal.saga_lock(skip_step.saga);
  number := dtx_internal.saga_find_step(sg, skip_step.step);
  PERFORM dtx_internal.saga_check_unfinished(sg);
  -- (rows of dtx_internal.saga_external come before those of dtx_internal.saga_step_record)
  PERFORM FROM dtx_internal.saga_external e WHERE e.saga = sg.id AND e.step = number FOR UPDATE;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = number FOR UPDATE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('step "%s" has not begun yet', skip_step.step);
  ELSIF st.taken THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_in_use',
      MESSAGE = format('step "%s" is being executed', skip_step.step);
  ELSIF NOT (CASE WHEN sg.compensating
                  THEN st.state IN ('completed', 'compensating') OR (st.state = 'failed' AND st.compensation)
                  ELSE st.state IN ('pending', 'waiting', 'failed') END) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format(CASE WHEN sg.compensating THEN 'step "%s" is %s, so there is nothing to skip on the way back'
                            ELSE 'step "%s" is %s already' END, skip_step.step, st.state);
  ELSIF sg.compensating AND skip_step.result IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a compensation has no result';
  ELSIF NOT sg.compensating
    AND EXISTS (SELECT
                  FROM dtx_internal.saga_definition_step_record d
                  LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = ANY (d.after)
                 WHERE d.definition = sg.definition AND d.step = number
                   AND NOT CASE WHEN d.after = '{}' THEN dtx_internal.saga_confirmed(sg.boot_id, sg.xid)
                                ELSE dtx_internal.saga_confirmed(p.boot_id, p.xid) END) THEN
    -- What comes next asks for this step only.
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('what was done before step "%s" is not confirmed by all servers yet', skip_step.step),
      HINT = 'See view dtx.in_doubt.';
  ELSIF sg.compensating
    AND EXISTS (SELECT
                  FROM dtx_internal.saga_step_record p
                  JOIN dtx_internal.saga_definition_step_record d ON d.definition = sg.definition AND d.step = p.step
                 WHERE p.saga = sg.id AND (p.step = number OR number = ANY (d.after))
                   AND NOT dtx_internal.saga_confirmed(p.boot_id, p.xid)) THEN
    -- Likewise on the way back, and what this step itself has done counts, too.
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('step "%s", or one after it, is not confirmed by all servers yet', skip_step.step),
      HINT = 'See view dtx.in_doubt.';
  END IF;
  PERFORM dtx_internal.saga_check_result(sg, skip_step.result);
  DELETE FROM dtx_internal.saga_external e WHERE e.saga = sg.id AND e.step = number;
  -- Sagas that it consists of are not needed.  (On the way back, they stay as they are.)
  IF NOT sg.compensating THEN
    PERFORM dtx_internal.saga_children_turn(sg, st, 'its step was skipped: ' || reason);
  END IF;
  DELETE FROM dtx_internal.saga_child c WHERE c.saga = sg.id AND c.step = number;
  UPDATE dtx_internal.saga_step_record
     SET state = 'skipped', doubt = false, due_at = NULL, since = clock_timestamp(),
         boot_id = dtx_internal.boot_id(), xid = dtx_internal.saga_xid()
   WHERE saga = sg.id AND step = number;
  IF result IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_result (saga, step, result) VALUES (sg.id, number, skip_step.result);
  END IF;
  IF sg.state = 'pending' THEN
    sg.state := 'running';
    UPDATE dtx_internal.saga_record SET state = 'running' WHERE id = sg.id;
  END IF;
  sg := dtx_internal.saga_revive(sg);
  PERFORM dtx_internal.saga_audit(sg, number, 'skip', sg.state::text, reason);
  IF sg.compensating THEN
    PERFORM dtx_internal.saga_unwind(sg);
  ELSE
    PERFORM dtx_internal.saga_advance(sg, number);
  END IF;
  PERFORM dtx_internal.wake_sagas();
  RETURN (SELECT g.state FROM dtx_internal.saga_record g WHERE g.id = sg.id);
END
$$;

COMMENT ON FUNCTION dtx_internal.skip_step(bigint, text, text, jsonb) IS
  'internal: dtx.skip_step()';

CREATE OR REPLACE FUNCTION dtx.skip_step(saga bigint, step text, reason text, result jsonb DEFAULT NULL) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.skip_step(bigint, text, text, jsonb) IS
  'goes on as if a step that has begun had been done, with this result; or its compensation, on the way back; returns the state of the saga; an error while it is executed, if it has not begun, and if it is done';

CREATE OR REPLACE FUNCTION dtx_internal.force_saga(saga bigint, state dtx.saga_state, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  IF force_saga.state IS NULL OR force_saga.state NOT IN ('completed', 'compensated', 'compensating') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a saga can be forced to be completed, compensated, or compensating only';
  END IF;
  sg := dtx_internal.saga_lock(force_saga.saga, force_saga.state <> 'compensating');
  IF force_saga.state <> 'compensating' THEN
    -- From here on no worker can note anything.
    PERFORM FROM dtx_internal.saga_external e WHERE e.saga = sg.id FOR UPDATE;
    PERFORM FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id FOR UPDATE;
    sg := dtx_internal.saga_take_notes(sg);
  END IF;
  PERFORM dtx_internal.saga_check_unfinished(sg);
  PERFORM dtx_internal.saga_stop_steps(sg);
  IF force_saga.state = 'compensating' THEN
    IF sg.compensating THEN
      RAISE EXCEPTION USING
        ERRCODE = 'object_not_in_prerequisite_state',
        MESSAGE = format('saga %s is compensating already', sg.id);
    END IF;
    PERFORM dtx_internal.saga_audit(sg, NULL, 'force', force_saga.state::text, reason);
    PERFORM dtx_internal.saga_compensate(sg, 'forced: ' || reason);
  ELSE
    -- A worker that has a step in hands will find that it is not its own any more,
    -- and roll back.
    PERFORM dtx_internal.saga_audit(sg, NULL, 'force', force_saga.state::text, reason);
    DELETE FROM dtx_internal.saga_external WHERE saga = sg.id;
    UPDATE dtx_internal.saga_step_record AS s
       SET state = 'skipped', taken = false, doubt = false, due_at = NULL, since = clock_timestamp()
     WHERE s.saga = sg.id AND s.step > 0
       AND (s.state IN ('pending', 'running', 'waiting', 'compensating')
            OR (s.state = 'failed' AND s.compensation = sg.compensating));
    PERFORM dtx_internal.saga_end(sg, force_saga.state, 'forced: ' || reason);
  END IF;
  PERFORM dtx_internal.wake_sagas();
  RETURN (SELECT g.state FROM dtx_internal.saga_record g WHERE g.id = sg.id);
END
$$;

COMMENT ON FUNCTION dtx_internal.force_saga(bigint, dtx.saga_state, text) IS
  'internal: dtx.force_saga()';

CREATE OR REPLACE FUNCTION dtx.force_saga(saga bigint, state dtx.saga_state, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.force_saga(bigint, dtx.saga_state, text) IS
  'ends a saga as it is (completed or compensated), or turns it back even after its point of no return (compensating); stops its steps that run; an error if it has ended, or is compensating already';

CREATE OR REPLACE FUNCTION dtx_internal.signal_saga(saga bigint, name text, payload jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  st dtx_internal.saga_step_record;
  number smallint;
BEGIN
  -- Nothing is locked, so that nobody waits for whoever signals, and he for nobody.
  sg := dtx_internal.saga_see(signal_saga.saga);
  IF sg.state NOT IN ('completed', 'compensated') THEN
    PERFORM dtx_internal.saga_check_database(sg);
  END IF;
  number := dtx_internal.saga_find_step(sg, signal_saga.name);
  IF NOT EXISTS (SELECT FROM dtx_internal.saga_definition_step_record d
                  WHERE d.definition = sg.definition AND d.step = number AND d.action = 'signal') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'wrong_object_type',
      MESSAGE = format('step "%s" does not wait for a signal', signal_saga.name);
  END IF;
  SELECT s.* INTO st FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id AND s.step = number;
  IF sg.compensating OR sg.state IN ('completed', 'compensated') OR st.state NOT IN ('pending', 'waiting', 'failed') THEN
    RETURN false;               -- too late
  ELSIF (SELECT count(*) FROM dtx_internal.saga_inbox m WHERE m.saga = sg.id AND m.kind = 'signal' AND m.name = signal_saga.name)
        >= (SELECT coalesce(d.count, 1) FROM dtx_internal.saga_definition_step_record d WHERE d.definition = sg.definition AND d.step = number) THEN
    RETURN false;               -- the first ones count
  END IF;
  PERFORM dtx_internal.saga_check_result(sg, signal_saga.payload);
  INSERT INTO dtx_internal.saga_inbox (home, role, saga, kind, name, payload, received_at, by_whom)
  VALUES (sg.home, sg.role, sg.id, 'signal', signal_saga.name, signal_saga.payload, clock_timestamp(),
          dtx_internal.saga_caller()::regrole::text);
  PERFORM dtx_internal.wake_sagas();
  RETURN true;
END
$$;

COMMENT ON FUNCTION dtx_internal.signal_saga(bigint, text, jsonb) IS
  'internal: dtx.signal_saga()';

CREATE OR REPLACE FUNCTION dtx.signal_saga(saga bigint, name text, payload jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.signal_saga(bigint, text, jsonb) IS
  'gives a saga the signal that its step of that name waits for, or will wait for; false if it has got one already, or needs none any more; an error if that step does not wait for a signal';

--
-- Another version of the definition for sagas that have begun
--

CREATE OR REPLACE FUNCTION dtx_internal.migrate_saga(saga bigint, version integer, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
  old dtx_internal.saga_definition_record;
  new dtx_internal.saga_definition_record;
  wrong text;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  sg := dtx_internal.saga_lock(migrate_saga.saga);
  PERFORM dtx_internal.saga_check_unfinished(sg);
  SELECT d.* INTO old FROM dtx_internal.saga_definition_record d WHERE d.id = sg.definition;
  SELECT d.* INTO new FROM dtx_internal.saga_definition_record d
   WHERE d.owner = old.owner AND d.name = old.name AND NOT d.dropped
     AND d.version = coalesce(migrate_saga.version, d.version)
   ORDER BY d.version DESC LIMIT 1 FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', old.name) || coalesce(' with version ' || migrate_saga.version, '');
  ELSIF NOT pg_has_role(dtx_internal.saga_caller(), new.owner, 'USAGE')
    AND NOT dtx_internal.saga_granted(new.owner, new.name, dtx_internal.saga_caller()) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga definition "%s"', new.name);
  ELSIF new.id = old.id THEN
    RETURN sg.state;
  END IF;
  PERFORM dtx_internal.saga_check_access(new, sg.role);
  PERFORM FROM dtx_internal.saga_external e WHERE e.saga = sg.id FOR UPDATE;
  PERFORM FROM dtx_internal.saga_step_record s WHERE s.saga = sg.id FOR UPDATE;
  sg := dtx_internal.saga_take_notes(sg);
  PERFORM dtx_internal.saga_check_unfinished(sg);
  -- What has only become due, and was never tried, may be anything in the new version.
  DELETE FROM dtx_internal.saga_step_record AS s
   WHERE s.saga = sg.id AND s.step > 0 AND s.state = 'pending' AND NOT s.taken AND s.attempt = 0 AND NOT s.doubt;

  -- What has begun has to fit.
  SELECT CASE
           WHEN s.taken THEN format('step "%s" is being executed', o.name)
           WHEN n.step IS NULL THEN format('version %s has no step "%s", which has begun', new.version, o.name)
           WHEN n.action <> o.action OR n.kind <> o.kind THEN format('step "%s", which has begun, is of another kind', o.name)
           WHEN EXISTS (SELECT FROM unnest(n.ancestors) AS a (step)
                          JOIN dtx_internal.saga_definition_step_record x ON x.definition = new.id AND x.step = a.step
                          LEFT JOIN dtx_internal.saga_definition_step_record y ON y.definition = old.id AND y.name = x.name
                          LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = y.step
                         WHERE p.state IS NULL OR (NOT sg.compensating AND p.state NOT IN ('completed', 'skipped')))
             THEN format('step "%s" has begun, and comes after one that has not been done', o.name)
         END INTO wrong
    FROM dtx_internal.saga_step_record s
    JOIN dtx_internal.saga_definition_step_record o ON o.definition = old.id AND o.step = s.step
    LEFT JOIN dtx_internal.saga_definition_step_record n ON n.definition = new.id AND n.name = o.name
   WHERE s.saga = sg.id AND s.step > 0
   ORDER BY 1 NULLS LAST LIMIT 1;
  IF wrong IS NULL AND NOT sg.compensating AND dtx_internal.saga_no_return(sg) IS NOT NULL THEN
    SELECT format('step "%s" may fail, and what was done cannot be undone any more', n.name) INTO wrong
      FROM dtx_internal.saga_definition_step_record n
      LEFT JOIN dtx_internal.saga_definition_step_record o ON o.definition = old.id AND o.name = n.name
      LEFT JOIN dtx_internal.saga_step_record s ON s.saga = sg.id AND s.step = o.step
     WHERE n.definition = new.id AND n.kind <> 'retriable' AND dtx_internal.saga_may_fail(n)
       AND (s.state IS NULL OR s.state NOT IN ('completed', 'skipped'))
     ORDER BY n.step LIMIT 1;
  END IF;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('saga %s cannot go on with version %s of "%s"', sg.id, new.version, new.name),
      DETAIL = initcap(left(wrong, 1)) || substr(wrong, 2) || '.';
  END IF;

  -- Numbers of steps are those of the definition; negative ones meanwhile, because they are unique.
  UPDATE dtx_internal.saga_step_record AS x SET step = -n.step
    FROM dtx_internal.saga_definition_step_record o, dtx_internal.saga_definition_step_record n
   WHERE x.saga = sg.id AND o.definition = old.id AND o.step = x.step AND n.definition = new.id AND n.name = o.name;
  UPDATE dtx_internal.saga_step_record SET step = -step WHERE saga = sg.id AND step < 0;
  UPDATE dtx_internal.saga_result AS x SET step = -n.step
    FROM dtx_internal.saga_definition_step_record o, dtx_internal.saga_definition_step_record n
   WHERE x.saga = sg.id AND o.definition = old.id AND o.step = x.step AND n.definition = new.id AND n.name = o.name;
  UPDATE dtx_internal.saga_result SET step = -step WHERE saga = sg.id AND step < 0;
  UPDATE dtx_internal.saga_external AS x SET step = -n.step
    FROM dtx_internal.saga_definition_step_record o, dtx_internal.saga_definition_step_record n
   WHERE x.saga = sg.id AND o.definition = old.id AND o.step = x.step AND n.definition = new.id AND n.name = o.name;
  UPDATE dtx_internal.saga_external SET step = -step WHERE saga = sg.id AND step < 0;
  UPDATE dtx_internal.saga_child AS x SET step = -n.step
    FROM dtx_internal.saga_definition_step_record o, dtx_internal.saga_definition_step_record n
   WHERE x.saga = sg.id AND o.definition = old.id AND o.step = x.step AND n.definition = new.id AND n.name = o.name;
  UPDATE dtx_internal.saga_child SET step = -step WHERE saga = sg.id AND step < 0;
  UPDATE dtx_internal.saga_history_record AS x SET step = n.step
    FROM dtx_internal.saga_definition_step_record o
    LEFT JOIN dtx_internal.saga_definition_step_record n ON n.definition = new.id AND n.name = o.name
   WHERE x.saga = sg.id AND o.definition = old.id AND o.step = x.step;
  UPDATE dtx_internal.saga_record SET definition = new.id WHERE id = sg.id;
  sg.definition := new.id;
  PERFORM dtx_internal.saga_audit(sg, NULL, 'migrate', sg.state::text, format('to version %s: %s', new.version, reason));

  IF sg.compensating THEN
    IF sg.state <> 'failed' THEN
      PERFORM dtx_internal.saga_unwind(sg);
    END IF;
  ELSE
    INSERT INTO dtx_internal.saga_step_record (saga, step, home, role, lane, rank, servers, max_outage, state, due_at, since)
    SELECT sg.id, d.step, sg.home, sg.role, dtx_internal.saga_lane(d.action, x.servers), dtx_internal.saga_rank('begun', sg.priority),
           x.servers, d.max_outage, 'pending', greatest(clock_timestamp(), CASE WHEN sg.state = 'pending' THEN t.run_at END), clock_timestamp()
      FROM dtx_internal.saga_definition_step_record d
     CROSS JOIN LATERAL dtx_internal.saga_servers(d.servers, d.execute) AS x (servers)
     CROSS JOIN (SELECT y.run_at FROM dtx_internal.saga_data y WHERE y.saga = sg.id) AS t
     WHERE d.definition = new.id
       AND NOT EXISTS (SELECT FROM dtx_internal.saga_step_record p WHERE p.saga = sg.id AND p.step = d.step)
       AND NOT EXISTS (SELECT
                         FROM unnest(d.after) AS a (step)
                         LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = a.step
                        WHERE p.state IS NULL OR p.state NOT IN ('completed', 'skipped'));
    IF NOT EXISTS (SELECT
                     FROM dtx_internal.saga_definition_step_record d
                     LEFT JOIN dtx_internal.saga_step_record p ON p.saga = sg.id AND p.step = d.step
                    WHERE d.definition = new.id
                      AND (p.state IS NULL OR p.state NOT IN ('completed', 'skipped'))) THEN
      PERFORM dtx_internal.saga_end(sg, 'completed');
    END IF;
  END IF;
  PERFORM dtx_internal.wake_sagas();
  RETURN (SELECT g.state FROM dtx_internal.saga_record g WHERE g.id = sg.id);
END
$$;

COMMENT ON FUNCTION dtx_internal.migrate_saga(bigint, integer, text) IS
  'internal: dtx.migrate_saga()';

CREATE OR REPLACE FUNCTION dtx.migrate_saga(saga bigint, version integer, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.migrate_saga(bigint, integer, text) IS
  'has a saga go on with another version of its definition (null: the newest one), if what has begun fits to that; returns its state';

-- For each of several sagas, what became of it: one that refuses is in nobody's way.
CREATE OR REPLACE FUNCTION dtx_internal.saga_each(what text, sagas bigint[], version integer, reason text, payload jsonb DEFAULT NULL)
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF what IN ('cancel', 'migrate', 'pause') THEN
    PERFORM dtx_internal.saga_check_reason(reason);
  END IF;
  FOREACH saga IN ARRAY coalesce(sagas, '{}') LOOP
    BEGIN
      ok := true;
      error := NULL;
      CASE what
        WHEN 'cancel' THEN
          state := dtx_internal.cancel_saga(saga_each.saga, reason);
        WHEN 'migrate' THEN
          state := dtx_internal.migrate_saga(saga_each.saga, version, reason);
        WHEN 'retry' THEN
          state := dtx_internal.retry_saga(saga_each.saga);
        WHEN 'pause' THEN
          state := dtx_internal.pause_saga(saga_each.saga, reason);
        WHEN 'resume' THEN
          state := dtx_internal.resume_saga(saga_each.saga);
        WHEN 'signal' THEN
          ok := dtx_internal.signal_saga(saga_each.saga, reason, payload);
          IF NOT ok THEN
            error := 'it has got this signal already, or does not need it any more';
          END IF;
          state := (SELECT g.state FROM dtx_internal.saga_record g WHERE g.id = saga_each.saga);
      END CASE;
    EXCEPTION WHEN OTHERS THEN
      ok := false;
      error := SQLERRM;
      state := (SELECT g.state FROM dtx_internal.saga_record g
                 WHERE g.id = saga_each.saga AND pg_has_role(dtx_internal.saga_caller(), g.role, 'USAGE'));
    END;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_each(text, bigint[], integer, text, jsonb) IS
  'internal: does the same to several sagas';

CREATE OR REPLACE FUNCTION dtx_internal.cancel_sagas(sagas bigint[], reason text)
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT * FROM dtx_internal.saga_each('cancel', sagas, NULL, reason, NULL)
$$;

COMMENT ON FUNCTION dtx_internal.cancel_sagas(bigint[], text) IS
  'internal: dtx.cancel_sagas()';

CREATE OR REPLACE FUNCTION dtx.cancel_sagas(sagas bigint[], reason text) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.cancel_sagas(bigint[], text) IS
  'dtx.cancel_saga() for several sagas, and what became of each: one that refuses is in nobody''s way';

CREATE OR REPLACE FUNCTION dtx_internal.retry_sagas(sagas bigint[])
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT * FROM dtx_internal.saga_each('retry', sagas, NULL, NULL, NULL)
$$;

COMMENT ON FUNCTION dtx_internal.retry_sagas(bigint[]) IS
  'internal: dtx.retry_sagas()';

CREATE OR REPLACE FUNCTION dtx.retry_sagas(sagas bigint[]) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.retry_sagas(bigint[]) IS
  'dtx.retry_saga() for several sagas, and what became of each: one that refuses is in nobody''s way';

CREATE OR REPLACE FUNCTION dtx_internal.pause_sagas(sagas bigint[], reason text)
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT * FROM dtx_internal.saga_each('pause', sagas, NULL, reason, NULL)
$$;

COMMENT ON FUNCTION dtx_internal.pause_sagas(bigint[], text) IS
  'internal: dtx.pause_sagas()';

CREATE OR REPLACE FUNCTION dtx.pause_sagas(sagas bigint[], reason text) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.pause_sagas(bigint[], text) IS
  'dtx.pause_saga() for several sagas, and what became of each: one that refuses is in nobody''s way';

CREATE OR REPLACE FUNCTION dtx_internal.resume_sagas(sagas bigint[])
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT * FROM dtx_internal.saga_each('resume', sagas, NULL, NULL, NULL)
$$;

COMMENT ON FUNCTION dtx_internal.resume_sagas(bigint[]) IS
  'internal: dtx.resume_sagas()';

CREATE OR REPLACE FUNCTION dtx.resume_sagas(sagas bigint[]) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.resume_sagas(bigint[]) IS
  'dtx.resume_saga() for several sagas, and what became of each: one that refuses is in nobody''s way';

CREATE OR REPLACE FUNCTION dtx_internal.signal_sagas(sagas bigint[], name text, payload jsonb)
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT * FROM dtx_internal.saga_each('signal', sagas, NULL, name, payload)
$$;

COMMENT ON FUNCTION dtx_internal.signal_sagas(bigint[], text, jsonb) IS
  'internal: dtx.signal_sagas()';

CREATE OR REPLACE FUNCTION dtx.signal_sagas(sagas bigint[], name text, payload jsonb DEFAULT NULL) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.signal_sagas(bigint[], text, jsonb) IS
  'dtx.signal_saga() for several sagas, and what became of each: one that refuses is in nobody''s way';

CREATE OR REPLACE FUNCTION dtx_internal.migrate_sagas(name text, version integer, reason text)
RETURNS TABLE (saga bigint, ok boolean, state dtx.saga_state, error text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  def dtx_internal.saga_definition_record := dtx_internal.saga_find_definition(migrate_sagas.name, migrate_sagas.version);
BEGIN
  RETURN QUERY
    SELECT e.*
      FROM dtx_internal.saga_each('migrate',
             ARRAY(SELECT g.id
                     FROM dtx_internal.saga_definition_record d
                     JOIN dtx_internal.saga_record g ON g.definition = d.id
                    WHERE d.owner = def.owner AND d.name = def.name AND g.definition <> def.id AND g.finished_at IS NULL
                      AND pg_has_role(dtx_internal.saga_caller(), g.role, 'USAGE')
                    ORDER BY g.id), def.version, reason) AS e;
END
$$;

COMMENT ON FUNCTION dtx_internal.migrate_sagas(text, integer, text) IS
  'internal: dtx.migrate_sagas()';

CREATE OR REPLACE FUNCTION dtx.migrate_sagas(name text, version integer, reason text) RETURNS SETOF dtx.saga_outcome
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 100;

COMMENT ON FUNCTION dtx.migrate_sagas(text, integer, text) IS
  'dtx.migrate_saga() for all sagas of a definition that have not ended, and what became of each';

--
-- A copy that has become the original
--

CREATE OR REPLACE FUNCTION dtx_internal.adopt_sagas(reason text) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_home();
  this_saga bigint;
  sg dtx_internal.saga_record;
  n bigint := 0;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  -- Sequences are not replicated.
  PERFORM setval(q.seq, greatest(q.used, (SELECT s.last_value FROM pg_sequences s WHERE s.schemaname = 'dtx_internal' AND 'dtx_internal.' || s.sequencename = q.seq)))
     FROM (VALUES ('dtx_internal.saga_id', (SELECT max(g.id) FROM dtx_internal.saga_record g)),
                  ('dtx_internal.saga_definition_id', (SELECT max(d.id) FROM dtx_internal.saga_definition_record d)),
                  ('dtx_internal.saga_history_record_id_seq', (SELECT max(h.id) FROM dtx_internal.saga_history_record h)),
                  ('dtx_internal.saga_inbox_id_seq', (SELECT max(m.id) FROM dtx_internal.saga_inbox m)),
                  ('dtx_internal.saga_outbox_id_seq', (SELECT max(o.id) FROM dtx_internal.saga_outbox o))) AS q (seq, used)
    WHERE q.used IS NOT NULL;
  FOR this_saga IN SELECT g.id FROM dtx_internal.saga_record g WHERE g.finished_at IS NULL AND g.home <> here ORDER BY g.id LOOP
    SELECT g.* INTO sg FROM dtx_internal.saga_record g WHERE g.id = this_saga FOR UPDATE;
    IF EXISTS (SELECT FROM pg_database d, dtx_internal.coordinator c WHERE c.id # d.oid::bigint = sg.home) THEN
      PERFORM dtx_internal.saga_check_database(sg);
    END IF;
    UPDATE dtx_internal.saga_record SET home = here WHERE id = sg.id;
    UPDATE dtx_internal.saga_external SET home = here WHERE saga = sg.id;
    UPDATE dtx_internal.saga_step_record SET home = here WHERE saga = sg.id;
    UPDATE dtx_internal.saga_inbox SET home = here WHERE saga = sg.id;
    UPDATE dtx_internal.saga_lane_record SET home = here WHERE saga = sg.id;
    -- Servers of the same names have other OIDs here; where they lead is compared when a step
    -- is undone.
    UPDATE dtx_internal.saga_step_record AS s
       SET done_on = ARRAY(SELECT coalesce(f.oid, 0) FROM unnest(s.done_names) WITH ORDINALITY AS u (name, i)
                             LEFT JOIN pg_foreign_server f ON f.srvname = u.name ORDER BY u.i)
     WHERE s.saga = sg.id AND s.done_names IS NOT NULL;
    UPDATE dtx_internal.saga_step_record AS s
       SET servers = x.servers, lane = CASE WHEN s.noted THEN s.lane ELSE dtx_internal.saga_lane(x.action, x.servers) END
      FROM (SELECT y.step, d.action,
                   CASE WHEN y.compensation
                        THEN ARRAY(SELECT p.server FROM dtx_internal.saga_places(y, d) AS p
                                    WHERE p.server IS NOT NULL GROUP BY p.server ORDER BY max(p.position) DESC)
                        ELSE dtx_internal.saga_servers(d.servers, d.execute) END AS servers
              FROM dtx_internal.saga_step_record y
              JOIN dtx_internal.saga_definition_step_record d ON d.definition = sg.definition AND d.step = y.step
             WHERE y.saga = sg.id) AS x
     WHERE s.saga = sg.id AND s.step = x.step AND s.step > 0;
    PERFORM dtx_internal.saga_audit(sg, NULL, 'adopt', sg.state::text, reason);
    n := n + 1;
  END LOOP;
  PERFORM dtx_internal.wake_sagas();
  RETURN n;
END
$$;

COMMENT ON FUNCTION dtx_internal.adopt_sagas(text) IS
  'internal: dtx.adopt_sagas()';

CREATE OR REPLACE FUNCTION dtx.adopt_sagas(reason text) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.adopt_sagas(text) IS
  'has this database go on with the sagas of the one that it is a copy of, and returns their number; only after that has been shut down for good';

--
-- Forgetting
--

-- Sagas that ended before a time, of roles that one may act for (null: of all), "most" at
-- most; and their events, unless a consumer is to have them: those follow when it has.
CREATE OR REPLACE FUNCTION dtx_internal.saga_purge(before timestamptz, of_role oid, most bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  ids bigint[];
  last bigint := 0;
  total bigint := 0;
BEGIN
  WHILE total < most LOOP
    SELECT array_agg(x.id) INTO ids
      FROM (SELECT g.id
              FROM dtx_internal.saga_record g
             WHERE g.id > last
               AND g.finished_at <= before
               -- (one that is a step of another saga may have to be undone with that)
               AND NOT EXISTS (SELECT FROM dtx_internal.saga_record p WHERE p.id = g.parent AND p.finished_at IS NULL)
               AND (of_role IS NULL OR pg_has_role(of_role, g.role, 'USAGE'))
             ORDER BY g.id
             LIMIT 1000
             FOR UPDATE SKIP LOCKED) AS x;
    EXIT WHEN ids IS NULL;
    last := ids[cardinality(ids)];
    DELETE FROM dtx_internal.saga_key k WHERE k.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_data x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_step_record x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_note x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_child x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_lost_lease x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_result x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_inbox x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_history_record x WHERE x.saga = ANY (ids);
    DELETE FROM dtx_internal.saga_record x WHERE x.id = ANY (ids);
    total := total + cardinality(ids);
  END LOOP;
  DELETE FROM dtx_internal.saga_outbox
   WHERE id IN (SELECT x.id FROM dtx_internal.saga_outbox x
                 WHERE x.at <= before
                   AND (of_role IS NULL OR pg_has_role(of_role, x.role, 'USAGE'))
                   AND NOT EXISTS (SELECT FROM dtx_internal.saga_record g WHERE g.id = x.saga)
                   AND dtx_internal.saga_event_taken(x)
                   FOR UPDATE SKIP LOCKED);
  PERFORM dtx_internal.saga_forget_definitions();
  RETURN total;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_purge(timestamptz, oid, bigint) IS
  'internal: forgets sagas that have ended';

CREATE OR REPLACE FUNCTION dtx_internal.purge_sagas(older_than interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  IF older_than IS NULL OR older_than < '0' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'older_than must not be null or negative';
  END IF;
  RETURN dtx_internal.saga_purge(clock_timestamp() - older_than, dtx_internal.saga_caller(), 9223372036854775807);
END
$$;

COMMENT ON FUNCTION dtx_internal.purge_sagas(interval) IS
  'internal: dtx.purge_sagas()';

CREATE OR REPLACE FUNCTION dtx.purge_sagas(older_than interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.purge_sagas(interval) IS
  'forgets one''s sagas that were completed or compensated so long ago, with their keys, history, and events that no consumer has still to take; returns their number';

-- By the scheduler: pg_dtx.saga_retention.
CREATE OR REPLACE FUNCTION dtx_internal.saga_retain(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  retention interval := coalesce(current_setting('pg_dtx.saga_retention', true), '0');
BEGIN
  IF retention > '0' AND dtx_internal.saga_purge(clock_timestamp() - retention, NULL, n) >= n THEN
    next_due := clock_timestamp() + interval '1 second';
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_retain(integer) IS
  'internal: forgets sagas that ended longer ago than they are to be kept';
