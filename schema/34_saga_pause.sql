--
-- Resting: a saga, all of a definition, a queue, a server; limits of queues; finding sagas.
--
-- What rests is not due: saga_try() takes a step that is from the queue of what is due, and
-- keeps in held_at when it was.  Who has it go on gives that back.
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_pause(role oid, kind text, name text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  INSERT INTO dtx_internal.saga_pause_record (role, kind, name, reason, by_whom, since)
  VALUES (saga_pause.role, saga_pause.kind, saga_pause.name, saga_pause.reason, pg_get_userbyid(dtx_internal.saga_caller()), clock_timestamp())
  ON CONFLICT DO NOTHING;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_pause(oid, text, text, text) IS
  'internal: remembers that something rests';

CREATE OR REPLACE FUNCTION dtx_internal.saga_unpause(role oid, kind text, name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM dtx_internal.saga_pause_record AS p
   WHERE p.role = saga_unpause.role AND p.kind = saga_unpause.kind AND p.name = saga_unpause.name;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('%s %s is not paused', saga_unpause.kind,
                       CASE WHEN saga_unpause.kind = 'saga' THEN saga_unpause.name ELSE format('"%s"', saga_unpause.name) END);
  END IF;
  PERFORM dtx_internal.wake_sagas();
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_unpause(oid, text, text) IS
  'internal: something does not rest any more; an error if it does not';

CREATE OR REPLACE FUNCTION dtx_internal.pause_saga(saga bigint, reason text) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  sg := dtx_internal.saga_lock(pause_saga.saga);
  PERFORM dtx_internal.saga_check_unfinished(sg);
  IF NOT sg.paused THEN
    UPDATE dtx_internal.saga_record SET paused = true WHERE id = sg.id;
    PERFORM dtx_internal.saga_pause(sg.role, 'saga', sg.id::text, reason);
    PERFORM dtx_internal.saga_audit(sg, NULL, 'pause', sg.state::text, reason);
  END IF;
  RETURN sg.state;
END
$$;

COMMENT ON FUNCTION dtx_internal.pause_saga(bigint, text) IS
  'internal: dtx.pause_saga()';

CREATE OR REPLACE FUNCTION dtx.pause_saga(saga bigint, reason text) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.pause_saga(bigint, text) IS
  'has a saga rest: what runs of it is finished, and nothing more begins until dtx.resume_saga(); its deadline passes all the same';

CREATE OR REPLACE FUNCTION dtx_internal.resume_saga(saga bigint) RETURNS dtx.saga_state
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  sg dtx_internal.saga_record;
BEGIN
  sg := dtx_internal.saga_lock(resume_saga.saga);
  PERFORM dtx_internal.saga_unpause(sg.role, 'saga', sg.id::text);
  UPDATE dtx_internal.saga_record SET paused = false WHERE id = sg.id;
  PERFORM dtx_internal.saga_release(sg.id);
  PERFORM dtx_internal.saga_audit(sg, NULL, 'resume', sg.state::text, NULL);
  RETURN sg.state;
END
$$;

COMMENT ON FUNCTION dtx_internal.resume_saga(bigint) IS
  'internal: dtx.resume_saga()';

CREATE OR REPLACE FUNCTION dtx.resume_saga(saga bigint) RETURNS dtx.saga_state
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.resume_saga(bigint) IS
  'a saga that was paused goes on; an error if it was not';

CREATE OR REPLACE FUNCTION dtx_internal.pause_saga_definition(name text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record := dtx_internal.saga_own_name(pause_saga_definition.name);
BEGIN
  IF NOT EXISTS (SELECT FROM dtx_internal.saga_definition_record d WHERE d.owner = own.owner AND d.name = own.bare AND NOT d.dropped) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', pause_saga_definition.name);
  END IF;
  PERFORM dtx_internal.saga_pause(own.owner, 'definition', own.bare, reason);
END
$$;

COMMENT ON FUNCTION dtx_internal.pause_saga_definition(text, text) IS
  'internal: dtx.pause_saga_definition()';

CREATE OR REPLACE FUNCTION dtx.pause_saga_definition(name text, reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.pause_saga_definition(text, text) IS
  'has all sagas of a definition of one''s own rest, also those that are started then, until dtx.resume_saga_definition()';

CREATE OR REPLACE FUNCTION dtx_internal.resume_saga_definition(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record := dtx_internal.saga_own_name(resume_saga_definition.name);
BEGIN
  PERFORM dtx_internal.saga_unpause(own.owner, 'definition', own.bare);
  -- (what others have locked just now began to rest before this, or does not)
  UPDATE dtx_internal.saga_step_record AS s SET due_at = s.held_at, held_at = NULL
    FROM dtx_internal.saga_record g
    JOIN dtx_internal.saga_definition_record d ON d.id = g.definition
   WHERE d.owner = own.owner AND d.name = own.bare AND g.finished_at IS NULL AND s.saga = g.id AND s.held_at IS NOT NULL;
END
$$;

COMMENT ON FUNCTION dtx_internal.resume_saga_definition(text) IS
  'internal: dtx.resume_saga_definition()';

CREATE OR REPLACE FUNCTION dtx.resume_saga_definition(name text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.resume_saga_definition(text) IS
  'sagas of a definition that was paused go on; an error if it was not';

CREATE OR REPLACE FUNCTION dtx_internal.pause_queue(queue text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(queue, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of the queue must not be null or empty';
  END IF;
  PERFORM dtx_internal.saga_pause(dtx_internal.saga_caller(), 'queue', queue, reason);
END
$$;

COMMENT ON FUNCTION dtx_internal.pause_queue(text, text) IS
  'internal: dtx.pause_queue()';

CREATE OR REPLACE FUNCTION dtx.pause_queue(queue text, reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.pause_queue(text, text) IS
  'workers get no steps of one''s sagas from a queue until dtx.resume_queue(); what they have is theirs';

CREATE OR REPLACE FUNCTION dtx_internal.resume_queue(queue text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM dtx_internal.saga_unpause(dtx_internal.saga_caller(), 'queue', queue);
  PERFORM dtx_internal.saga_finished(hashtext(queue));
END
$$;

COMMENT ON FUNCTION dtx_internal.resume_queue(text) IS
  'internal: dtx.resume_queue()';

CREATE OR REPLACE FUNCTION dtx.resume_queue(queue text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.resume_queue(text) IS
  'workers get steps from a queue again that was paused; an error if it was not';

-- By superusers: of the sagas of all roles.
CREATE OR REPLACE FUNCTION dtx_internal.saga_pause_role() RETURNS oid
LANGUAGE sql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN r.rolsuper THEN 0::oid ELSE r.oid END FROM pg_authid r WHERE r.oid = dtx_internal.saga_caller()
$$;

COMMENT ON FUNCTION dtx_internal.saga_pause_role() IS
  'internal: for whose sagas the caller has a server rest';

CREATE OR REPLACE FUNCTION dtx_internal.pause_server(server name, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM pg_foreign_server f WHERE f.srvname = server) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('server "%s" does not exist', server);
  END IF;
  PERFORM dtx_internal.saga_pause(dtx_internal.saga_pause_role(), 'server', server, reason);
END
$$;

COMMENT ON FUNCTION dtx_internal.pause_server(name, text) IS
  'internal: dtx.pause_server()';

CREATE OR REPLACE FUNCTION dtx.pause_server(server name, reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.pause_server(name, text) IS
  'no step of one''s sagas (of a superuser: of anybody''s) begins that uses a foreign server, until dtx.resume_server()';

CREATE OR REPLACE FUNCTION dtx_internal.resume_server(server name) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT dtx_internal.saga_unpause(dtx_internal.saga_pause_role(), 'server', server)
$$;

COMMENT ON FUNCTION dtx_internal.resume_server(name) IS
  'internal: dtx.resume_server()';

CREATE OR REPLACE FUNCTION dtx.resume_server(server name) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.resume_server(name) IS
  'steps that use a foreign server that was paused go on; an error if it was not';

--
-- Limits of queues
--

CREATE OR REPLACE FUNCTION dtx_internal.set_queue(queue text, concurrency integer, rate integer, per interval) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
BEGIN
  IF coalesce(set_queue.queue, '') = '' OR octet_length(set_queue.queue) > 59 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of the queue must have 1 to 59 bytes';
  ELSIF set_queue.concurrency < 1 OR set_queue.rate < 1 OR coalesce(set_queue.per <= '0' OR set_queue.per > '1 year', true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'limits of a queue must be positive';
  END IF;
  DELETE FROM dtx_internal.saga_queue_record AS q WHERE q.role = caller AND q.queue = set_queue.queue;
  IF concurrency IS NOT NULL OR rate IS NOT NULL THEN
    INSERT INTO dtx_internal.saga_queue_record (role, queue, concurrency, rate, per, tokens, filled_at)
    VALUES (caller, set_queue.queue, set_queue.concurrency, set_queue.rate, set_queue.per, coalesce(set_queue.rate, 0), clock_timestamp());
  END IF;
  PERFORM dtx_internal.saga_finished(hashtext(set_queue.queue));
END
$$;

COMMENT ON FUNCTION dtx_internal.set_queue(text, integer, integer, interval) IS
  'internal: dtx.set_queue()';

CREATE OR REPLACE FUNCTION dtx.set_queue(queue text, concurrency integer DEFAULT NULL, rate integer DEFAULT NULL, per interval DEFAULT '1 second') RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.set_queue(text, integer, integer, interval) IS
  'how many steps of one''s sagas from a queue may be in the hands of workers, and how many may be claimed in some time; null: any number';

-- How many more steps of a role from a queue may be claimed now.  Of a queue with limits, one
-- session at a time claims.
CREATE OR REPLACE FUNCTION dtx_internal.saga_queue_room(role oid, queue text) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  q dtx_internal.saga_queue_record;
  room double precision := 1000000;
  now_at timestamptz := clock_timestamp();
BEGIN
  IF EXISTS (SELECT FROM dtx_internal.saga_pause_record p WHERE p.kind = 'queue' AND p.name = saga_queue_room.queue AND p.role = saga_queue_room.role) THEN
    RETURN 0;
  ELSIF NOT EXISTS (SELECT FROM dtx_internal.saga_queue_record x WHERE x.role = saga_queue_room.role AND x.queue = saga_queue_room.queue) THEN
    RETURN room;
  END IF;
  SELECT x.* INTO q FROM dtx_internal.saga_queue_record x
   WHERE x.role = saga_queue_room.role AND x.queue = saga_queue_room.queue FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN 0;
  END IF;
  IF q.rate IS NOT NULL THEN
    q.tokens := least(q.rate, q.tokens + q.rate * greatest(extract(epoch FROM now_at - q.filled_at), 0) / extract(epoch FROM q.per));
    UPDATE dtx_internal.saga_queue_record AS x SET tokens = q.tokens, filled_at = now_at WHERE x.role = q.role AND x.queue = q.queue;
    room := floor(q.tokens + 0.000001);
  END IF;
  IF q.concurrency IS NOT NULL THEN
    room := least(room, q.concurrency - (SELECT count(*) FROM dtx_internal.saga_external e
                                          WHERE e.home = dtx_internal.saga_home() AND e.role = q.role AND e.queue = q.queue
                                            AND e.token IS NOT NULL AND e.available_at > now_at));
  END IF;
  RETURN greatest(room, 0);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_queue_room(oid, text) IS
  'internal: how many more steps may be claimed from a queue';

--
-- Finding
--

CREATE OR REPLACE FUNCTION dtx_internal.find_sagas(name text, key text, attributes jsonb) RETURNS SETOF bigint
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
BEGIN
  IF key IS NOT NULL AND name IS NOT NULL THEN
    RETURN QUERY
      SELECT k.saga
        FROM dtx_internal.saga_definition_record d
        JOIN dtx_internal.saga_key k ON k.owner = d.owner AND k.name = d.name AND k.key = find_sagas.key
         AND k.role IN (SELECT r.oid FROM pg_authid r WHERE pg_has_role(caller, r.oid, 'USAGE') UNION ALL SELECT 0::oid)
        JOIN dtx_internal.saga_record g ON g.id = k.saga AND pg_has_role(caller, g.role, 'USAGE')
        JOIN dtx_internal.saga_data x ON x.saga = g.id
       WHERE d.name = substring(find_sagas.name from '[^.]*$') AND NOT d.dropped
         AND (position('.' in find_sagas.name) = 0 OR d.owner = (SELECT r.oid FROM pg_authid r WHERE r.rolname = substring(find_sagas.name from '^(.*)[.][^.]*$')))
         AND (find_sagas.attributes IS NULL OR x.attributes @> find_sagas.attributes)
       GROUP BY k.saga ORDER BY k.saga;
  ELSIF attributes IS NOT NULL AND key IS NULL THEN
    RETURN QUERY
      SELECT g.id
        FROM dtx_internal.saga_data x
        JOIN dtx_internal.saga_record g ON g.id = x.saga AND pg_has_role(caller, g.role, 'USAGE')
        JOIN dtx_internal.saga_definition_record d ON d.id = g.definition
       WHERE x.attributes @> find_sagas.attributes AND x.attributes IS NOT NULL
         AND (find_sagas.name IS NULL OR d.name = substring(find_sagas.name from '[^.]*$'))
       ORDER BY g.id;
  ELSE
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a key and the name of the definition, or attributes, are required';
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.find_sagas(text, text, jsonb) IS
  'internal: dtx.find_sagas()';

CREATE OR REPLACE FUNCTION dtx.find_sagas(name text DEFAULT NULL, key text DEFAULT NULL, attributes jsonb DEFAULT NULL) RETURNS SETOF bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx.find_sagas(text, text, jsonb) IS
  'numbers of one''s sagas of a definition with a key, or with attributes that contain these; found through indexes';

--
-- Trying out
--

CREATE OR REPLACE FUNCTION dtx_internal.dry_run(name text, input jsonb) RETURNS TABLE ("position" integer, step text, kind text,
  after text[], place text, sql text, undo text, problem text)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  def dtx_internal.saga_definition_record := dtx_internal.saga_find_definition(dry_run.name, NULL);
  caller oid := dtx_internal.saga_caller();
  d dtx_internal.saga_definition_step_record;
BEGIN
  IF jsonb_typeof(coalesce(dry_run.input, '{}')) IS NULL THEN
    RETURN;
  END IF;
  FOR d IN SELECT a.* FROM dtx_internal.saga_definition_step_record a WHERE a.definition = def.id ORDER BY a.step LOOP
    position := d.step;
    step := d.name;
    kind := d.kind;
    after := ARRAY(SELECT p.name FROM dtx_internal.saga_definition_step_record p WHERE p.definition = def.id AND p.step = ANY (d.after) ORDER BY p.step);
    place := dtx_internal.saga_place(d.action, d.servers, d.delay, d.queue, d.saga);
    sql := nullif(concat_ws(E';\n', 'only if ' || d.condition, d.expression, array_to_string(d."execute", E';\n')), '');
    undo := coalesce(nullif(array_to_string(d.compensate, E';\n'), ''), 'queue ' || d.compensate_queue);
    problem := (SELECT CASE WHEN f.oid IS NULL THEN format('server "%s" does not exist', u.name)
                            WHEN NOT has_server_privilege(caller, f.oid, 'USAGE') THEN format('permission denied for foreign server %s', u.name)
                            WHEN NOT EXISTS (SELECT FROM pg_user_mapping m WHERE m.umserver = f.oid AND m.umuser IN (caller, 0))
                              THEN format('user mapping not found for "%s", server "%s"', pg_get_userbyid(caller), u.name) END AS p
                  FROM unnest(d.servers) AS u (name) LEFT JOIN pg_foreign_server f ON f.srvname = u.name
                 WHERE u.name IS NOT NULL ORDER BY p NULLS LAST LIMIT 1);
    -- A result that is used is one of a step that comes before.
    IF problem IS NULL THEN
      SELECT format('it uses the result of step "%s", which does not come before it', n.name) INTO problem
        FROM unnest(d.needs) AS n (name)
       WHERE NOT EXISTS (SELECT FROM dtx_internal.saga_definition_step_record p
                          WHERE p.definition = def.id AND p.name = n.name AND (p.step = ANY (d.ancestors) OR p.step = d.step)) LIMIT 1;
    END IF;
    IF problem IS NULL AND d.action IN ('saga', 'each') THEN
      BEGIN
        PERFORM dtx_internal.saga_child_definition(def.owner, d.saga, d.version, caller);
      EXCEPTION WHEN OTHERS THEN
        problem := SQLERRM;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.dry_run(text, jsonb) IS
  'internal: dtx.dry_run()';

CREATE OR REPLACE FUNCTION dtx.dry_run(name text, input jsonb DEFAULT '{}') RETURNS SETOF dtx.planned_step
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10;

COMMENT ON FUNCTION dtx.dry_run(text, jsonb) IS
  'what a saga of the newest version of a definition would do, in which order, and what is in the way of it for this role; executes nothing';

CREATE OR REPLACE FUNCTION dtx_internal.advance_time(by interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_home();
  n bigint;
BEGIN
  IF coalesce(advance_time.by < '0', true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'time passes forward only';
  END IF;
  UPDATE dtx_internal.saga_external AS e SET available_at = dtx_internal.saga_after(e.available_at, -advance_time.by) WHERE e.home = here;
  UPDATE dtx_internal.saga_step_record AS s
     SET due_at = dtx_internal.saga_after(s.due_at, -advance_time.by), held_at = dtx_internal.saga_after(s.held_at, -advance_time.by), since = dtx_internal.saga_after(s.since, -advance_time.by),
         away_since = dtx_internal.saga_after(s.away_since, -advance_time.by)
   WHERE s.home = here AND (s.due_at IS NOT NULL OR s.held_at IS NOT NULL OR s.state IN ('waiting', 'compensating'));
  GET DIAGNOSTICS n = ROW_COUNT;
  UPDATE dtx_internal.saga_outage AS o SET probe_at = dtx_internal.saga_after(o.probe_at, -advance_time.by), since = dtx_internal.saga_after(o.since, -advance_time.by) WHERE o.home = here;
  UPDATE dtx_internal.saga_schedule_record AS x SET next_at = dtx_internal.saga_after(x.next_at, -advance_time.by) WHERE x.home = here;
  PERFORM dtx_internal.wake_sagas();
  RETURN n;
END
$$;

COMMENT ON FUNCTION dtx_internal.advance_time(interval) IS
  'internal: dtx.advance_time()';

CREATE OR REPLACE FUNCTION dtx.advance_time(by interval) RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.advance_time(interval) IS
  'for tests: what sagas of this database wait for comes so much earlier: sleeps, pauses, timeouts, deadlines, leases, schedules; returns how many steps that are';
