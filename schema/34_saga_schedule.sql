--
-- Schedules: sagas that are started by the clock.  The scheduler of sagas starts them
-- (saga_start_scheduled()); when is told by saga_next_time().
--

-- A field of a cron expression, as the numbers that it stands for.
CREATE OR REPLACE FUNCTION dtx_internal.saga_cron_field(field text, lowest integer, highest integer, names text[] DEFAULT NULL) RETURNS integer[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  part text;
  m text[];
  first integer;
  last integer;
  step integer;
  numbers integer[] := '{}';
  word text := lower(field);
BEGIN
  FOR i IN 1 .. coalesce(cardinality(names), 0) LOOP
    word := regexp_replace(word, '\m' || names[i] || '\M', (i - 1 + lowest)::text, 'g');
  END LOOP;
  FOREACH part IN ARRAY string_to_array(word, ',') LOOP
    m := regexp_match(part, '^(?:[*]|(\d{1,2})(?:-(\d{1,2}))?)(?:/(\d{1,2}))?$');
    first := coalesce(m[1]::integer, lowest);
    last := coalesce(m[2]::integer, CASE WHEN m[1] IS NULL OR m[3] IS NOT NULL THEN highest ELSE first END);
    step := coalesce(m[3]::integer, 1);
    IF m IS NULL OR first < lowest OR last > highest OR first > last OR step < 1 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('"%s" is no field of a schedule with numbers from %s to %s', field, lowest, highest),
        HINT = 'A field is *, numbers, ranges such as 1-5, lists of these, or any of them with a step, such as */15.';
    END IF;
    numbers := numbers || ARRAY(SELECT generate_series(first, last, step));
  END LOOP;
  RETURN ARRAY(SELECT DISTINCT n FROM unnest(numbers) AS n ORDER BY 1);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_cron_field(text, integer, integer, text[]) IS
  'internal: the numbers that a field of a cron expression stands for';

-- The first time after "after".  Where a zone has no such local time, because the clock is
-- set forward, it is that much later; where it has it twice, the first one.
CREATE OR REPLACE FUNCTION dtx_internal.saga_next_time(cron text, zone text, after timestamptz) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  fields text[] := regexp_split_to_array(btrim(cron), '\s+');
  minutes integer[];
  hours integer[];
  days integer[];
  months integer[];
  weekdays integer[];
  day date;
  local timestamp;
  at timestamptz;
  m integer;
  h integer;
BEGIN
  IF coalesce(cardinality(fields), 0) <> 5 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'a schedule has five fields: minute, hour, day of the month, month, day of the week';
  END IF;
  minutes := dtx_internal.saga_cron_field(fields[1], 0, 59);
  hours := dtx_internal.saga_cron_field(fields[2], 0, 23);
  days := dtx_internal.saga_cron_field(fields[3], 1, 31);
  months := dtx_internal.saga_cron_field(fields[4], 1, 12, '{jan,feb,mar,apr,may,jun,jul,aug,sep,oct,nov,dec}');
  weekdays := ARRAY(SELECT DISTINCT n % 7 FROM unnest(dtx_internal.saga_cron_field(fields[5], 0, 7, '{sun,mon,tue,wed,thu,fri,sat}')) AS n);
  -- (a day before: what the clock has skipped then may be due now)
  day := (after AT TIME ZONE zone)::date - 1;
  FOR i IN 1 .. 366 * 9 LOOP
    IF extract(month FROM day)::integer = ANY (months)
       AND (CASE WHEN left(fields[3], 1) = '*' OR left(fields[5], 1) = '*'
                 THEN extract(day FROM day)::integer = ANY (days) AND extract(dow FROM day)::integer = ANY (weekdays)
                 -- as in cron: either
                 ELSE extract(day FROM day)::integer = ANY (days) OR extract(dow FROM day)::integer = ANY (weekdays) END) THEN
      FOREACH h IN ARRAY hours LOOP
        FOREACH m IN ARRAY minutes LOOP
          local := day + make_time(h, m, 0);
          -- of two, the first one; of none, PostgreSQL takes the offset before the gap
          at := local AT TIME ZONE zone;
          IF (at - interval '1 hour') AT TIME ZONE zone = local THEN
            at := at - interval '1 hour';
          END IF;
          IF at > after THEN
            RETURN at;
          END IF;
        END LOOP;
      END LOOP;
    END IF;
    day := day + 1;
  END LOOP;
  RETURN NULL;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_next_time(text, text, timestamptz) IS
  'internal: when a schedule strikes next; null: never';

CREATE OR REPLACE FUNCTION dtx_internal.schedule_saga(schedule text, name text, cron text, input jsonb, zone text, overlap text, catch_up boolean)
RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  def dtx_internal.saga_definition_record := dtx_internal.saga_find_definition(schedule_saga.name, NULL);
  next_at timestamptz;
BEGIN
  IF coalesce(schedule_saga.schedule, '') = '' OR length(schedule_saga.schedule) > 200 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of a schedule must have 1 to 200 characters';
  ELSIF coalesce(schedule_saga.overlap NOT IN ('skip', 'start'), true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'overlap must be skip or start';
  ELSIF NOT EXISTS (SELECT FROM pg_timezone_names z WHERE lower(z.name) = lower(schedule_saga.zone)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('time zone "%s" not recognized', schedule_saga.zone);
  END IF;
  PERFORM dtx_internal.saga_check_access(def, caller);
  next_at := dtx_internal.saga_next_time(schedule_saga.cron, schedule_saga.zone, clock_timestamp());
  IF next_at IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('schedule "%s" never strikes', schedule_saga.cron);
  END IF;
  INSERT INTO dtx_internal.saga_schedule_record AS x (home, role, schedule, owner, name, cron, zone, input, overlap, catch_up, next_at)
  VALUES (dtx_internal.saga_home(), caller, schedule_saga.schedule, def.owner, def.name, schedule_saga.cron, schedule_saga.zone,
          coalesce(schedule_saga.input, '{}'), schedule_saga.overlap, coalesce(schedule_saga.catch_up, false), next_at)
  ON CONFLICT (role, schedule) DO UPDATE
    SET home = excluded.home, owner = excluded.owner, name = excluded.name, cron = excluded.cron, zone = excluded.zone, input = excluded.input,
        overlap = excluded.overlap, catch_up = excluded.catch_up, next_at = excluded.next_at;
  PERFORM dtx_internal.wake_sagas();
  RETURN next_at;
END
$$;

COMMENT ON FUNCTION dtx_internal.schedule_saga(text, text, text, jsonb, text, text, boolean) IS
  'internal: dtx.schedule_saga()';

CREATE OR REPLACE FUNCTION dtx.schedule_saga(schedule text, name text, cron text, input jsonb DEFAULT '{}', zone text DEFAULT 'UTC',
  overlap text DEFAULT 'skip', catch_up boolean DEFAULT false) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.schedule_saga(text, text, text, jsonb, text, text, boolean) IS
  'has sagas of a definition started by the clock, as this role, or changes such a schedule; cron: minute, hour, day of the month, month, day of the week, in that time zone; returns when the first one is';

CREATE OR REPLACE FUNCTION dtx_internal.unschedule_saga(schedule text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  DELETE FROM dtx_internal.saga_schedule_record AS x WHERE x.role = dtx_internal.saga_caller() AND x.schedule = unschedule_saga.schedule;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no schedule "%s"', unschedule_saga.schedule);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.unschedule_saga(text) IS
  'internal: dtx.unschedule_saga()';

CREATE OR REPLACE FUNCTION dtx.unschedule_saga(schedule text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.unschedule_saga(text) IS
  'ends a schedule of one''s own; sagas that it has started go on';

CREATE OR REPLACE FUNCTION dtx_internal.pause_schedule(schedule text, reason text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
  PERFORM dtx_internal.saga_check_reason(reason);
  UPDATE dtx_internal.saga_schedule_record AS x SET paused = pause_schedule.reason
   WHERE x.role = dtx_internal.saga_caller() AND x.schedule = pause_schedule.schedule;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no schedule "%s"', pause_schedule.schedule);
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.pause_schedule(text, text) IS
  'internal: dtx.pause_schedule()';

CREATE OR REPLACE FUNCTION dtx.pause_schedule(schedule text, reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.pause_schedule(text, text) IS
  'a schedule of one''s own starts nothing until dtx.resume_schedule()';

CREATE OR REPLACE FUNCTION dtx_internal.resume_schedule(schedule text) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  next_at timestamptz;
BEGIN
  UPDATE dtx_internal.saga_schedule_record AS x
     SET paused = NULL, next_at = dtx_internal.saga_next_time(x.cron, x.zone, clock_timestamp())
   WHERE x.role = dtx_internal.saga_caller() AND x.schedule = resume_schedule.schedule AND x.paused IS NOT NULL
  RETURNING x.next_at INTO next_at;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_not_in_prerequisite_state',
      MESSAGE = format('schedule "%s" is not paused', resume_schedule.schedule);
  END IF;
  PERFORM dtx_internal.wake_sagas();
  RETURN next_at;
END
$$;

COMMENT ON FUNCTION dtx_internal.resume_schedule(text) IS
  'internal: dtx.resume_schedule()';

CREATE OR REPLACE FUNCTION dtx.resume_schedule(schedule text) RETURNS timestamptz
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.resume_schedule(text) IS
  'a schedule that was paused starts sagas again, from the next time on, which it returns';

-- By the scheduler: start what is to be started now.
CREATE OR REPLACE FUNCTION dtx_internal.saga_start_scheduled(n integer, OUT next_due timestamptz) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  here bigint := dtx_internal.saga_active_home();
  s dtx_internal.saga_schedule_record;
  d dtx_internal.saga_definition_record;
  now_at timestamptz := clock_timestamp();
  id bigint;
  what text;
BEGIN
  FOR s IN
    SELECT x.* FROM dtx_internal.saga_schedule_record x
     WHERE x.home = here AND x.paused IS NULL AND x.next_at <= now_at ORDER BY x.next_at LIMIT n FOR UPDATE SKIP LOCKED
  LOOP
    id := NULL;
    BEGIN
      IF s.overlap = 'skip' AND EXISTS (SELECT FROM dtx_internal.saga_record g WHERE g.id = s.last_saga AND g.finished_at IS NULL) THEN
        what := 'skipped: the one before has not ended';
      ELSE
        SELECT x.* INTO d FROM dtx_internal.saga_definition_record x
         WHERE x.owner = s.owner AND x.name = s.name AND NOT x.dropped ORDER BY x.version DESC LIMIT 1 FOR KEY SHARE;
        IF NOT FOUND THEN
          RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = format('there is no definition of a saga "%s"', s.name);
        ELSIF NOT pg_has_role(s.role, d.owner, 'USAGE') AND NOT dtx_internal.saga_granted(d.owner, d.name, s.role) THEN
          RAISE EXCEPTION USING
            ERRCODE = 'insufficient_privilege',
            MESSAGE = format('permission denied for saga definition "%s"', s.name);
        END IF;
        PERFORM dtx_internal.saga_check_access(d, s.role);
        id := dtx_internal.saga_make(d, s.role, s.input || jsonb_build_object('scheduled_at', s.next_at), NULL, NULL, NULL, 0::smallint, NULL,
                NULL, jsonb_build_object('schedule', s.schedule));
        what := 'started';
      END IF;
    EXCEPTION WHEN OTHERS THEN
      what := 'failed: ' || left(SQLERRM, 1000);
      PERFORM dtx_internal.saga_warn(format('schedule "%s" could not start a saga: %s', s.schedule, left(SQLERRM, 1000)), NULL, NULL);
    END;
    -- What was missed is started one by one, or left out.
    UPDATE dtx_internal.saga_schedule_record AS x
       SET last_at = s.next_at, last_outcome = what, last_saga = coalesce(id, s.last_saga),
           next_at = dtx_internal.saga_next_time(s.cron, s.zone, CASE WHEN s.catch_up THEN s.next_at ELSE greatest(now_at, s.next_at) END)
     WHERE x.role = s.role AND x.schedule = s.schedule;
  END LOOP;
  next_due := (SELECT min(x.next_at) FROM dtx_internal.saga_schedule_record x WHERE x.home = here AND x.paused IS NULL);
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_start_scheduled(integer) IS
  'internal: starts sagas by the clock; tells when the next one is';
