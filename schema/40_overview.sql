--
-- dtx.overview(), for psql's \watch.
--

CREATE OR REPLACE FUNCTION dtx_internal.stat_since_last_call(
  OUT seconds double precision,
  OUT one_phase bigint,
  OUT two_phase bigint,
  OUT prepare_failed bigint,
  OUT handed_over bigint,
  OUT resolved bigint,
  OUT prepare_time double precision,
  OUT commit_time double precision
) RETURNS record
AS 'MODULE_PATHNAME', 'dtx_sql_stat_since_last_call'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.stat_since_last_call() IS
  'internal: what was counted since this session last called this function or, if it has not, since the counters were zero';

-- How long ago that was.
CREATE OR REPLACE FUNCTION dtx_internal.age(since timestamptz) RETURNS text
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN s < 120 THEN s || ' s'
              WHEN s < 7200 THEN s / 60 || ' min'
              WHEN s < 172800 THEN s / 3600 || ' h'
              ELSE s / 86400 || ' days' END
    FROM CAST(greatest(floor(extract(epoch FROM clock_timestamp() - since)), 0) AS bigint) AS s
$$;

COMMENT ON FUNCTION dtx_internal.age(timestamptz) IS 'internal: for dtx.overview()';

CREATE OR REPLACE FUNCTION dtx_internal.rate(n bigint, seconds double precision) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT round((n / greatest(seconds, 0.001))::numeric, 1) || ' per second'$$;

COMMENT ON FUNCTION dtx_internal.rate(bigint, double precision) IS 'internal: for dtx.overview()';

CREATE OR REPLACE FUNCTION dtx_internal.mean(total double precision, n bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$SELECT coalesce(round((total / nullif(n, 0))::numeric, 2) || ' ms', '-')$$;

COMMENT ON FUNCTION dtx_internal.mean(double precision, bigint) IS 'internal: for dtx.overview()';

-- For psql's \watch.  Everything is looked at with the caller's privileges, so it
-- is for members of pg_monitor.  The first row says whether there is anything to do; what
-- to do is beside each row that is not right (t/050_docs.pl looks for the pages).
CREATE OR REPLACE FUNCTION dtx.overview(
  OUT section text,
  OUT item text,
  OUT value text,
  OUT next_step text
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 20
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s record;
  total bigint;
  line text[];
  lines text[] := '{}';
BEGIN
  section := 'transactions';
  FOR item, value, next_step IN
    SELECT w.state, count(t.pid)::text
           || coalesce(', oldest ' || dtx_internal.age(min(t.started)), ''),
           CASE WHEN w.state = 'active' OR min(t.started) > clock_timestamp() - interval '1 minute' THEN NULL
                WHEN w.state = 'deciding' AND count(t.pid) > 0
                THEN 'A synchronous standby of this server may not answer: see wait_event in pg_stat_activity, docs/operations.md#failover'
                WHEN count(t.pid) > 0
                THEN 'Servers do not answer: see waiting_for in dtx.transactions' END
      FROM (VALUES (1, 'active'), (2, 'preparing'), (3, 'deciding'), (4, 'committing'), (5, 'aborting')) AS w (n, state)
      LEFT JOIN dtx.transactions AS t ON t.state = w.state
     GROUP BY w.n, w.state
     ORDER BY w.n
  LOOP
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;

  -- What is counted is counted for all databases together.
  SELECT * INTO s FROM dtx_internal.stat_since_last_call();
  section := 'commits';
  next_step := NULL;
  FOR item, value IN
    VALUES ('one phase', dtx_internal.rate(s.one_phase, s.seconds)),
           ('two phases', dtx_internal.rate(s.two_phase, s.seconds)),
           ('refused in phase one', dtx_internal.rate(s.prepare_failed, s.seconds)),
           ('phase one takes', dtx_internal.mean(s.prepare_time, s.two_phase + s.prepare_failed)),
           ('phase two takes', dtx_internal.mean(s.commit_time, s.two_phase)),
           ('left to the resolver', dtx_internal.rate(s.handed_over, s.seconds)),
           ('done by the resolver', dtx_internal.rate(s.resolved, s.seconds))
  LOOP
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;

  item := 'not atomic';
  SELECT t.unprotected::text, CASE WHEN t.unprotected > 0 THEN 'Look for databases without the extension, and for pg_dtx.two_phase_commit = off; then dtx.reset_stat(): docs/monitoring.md#7-protection' END
    INTO value, next_step FROM dtx.stat AS t;
  lines := lines || ARRAY[ARRAY[section, item, value, next_step]];

  section := 'in doubt';
  total := 0;
  FOR item, value, next_step IN
    SELECT coalesce(d.server, '(dropped server)'),
           count(*) || ', oldest ' || dtx_internal.age(min(d.since))
           || coalesce(', ' || (array_agg(d.last_error ORDER BY d.since) FILTER (WHERE d.last_error IS NOT NULL))[1], ''),
           CASE WHEN min(d.since) < clock_timestamp() - interval '5 minutes'
                THEN 'See last_error in dtx.in_doubt: docs/operations.md#when-something-is-in-doubt' END
      FROM dtx.in_doubt AS d
     GROUP BY d.server
     ORDER BY min(d.since)
     LIMIT 10
  LOOP
    total := total + 1;
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;
  next_step := NULL;
  IF total = 0 THEN
    item := 'all servers';
    value := '0';
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END IF;

  section := 'servers';
  FOR item, value, next_step IN
    SELECT v.server,
           CASE WHEN v.reachable IS NULL THEN 'not visited yet'
                WHEN v.reachable THEN 'reachable'
                ELSE 'NOT REACHABLE' END
           || coalesce(' ' || dtx_internal.age(v.checked_at) || ' ago', '')
           || coalesce(', ' || v.slots_used || ' of ' || v.slots_total || ' slots used', '')
           || CASE WHEN v.reachable THEN '' ELSE coalesce(', ' || v.last_error, '') END,
           CASE WHEN NOT v.reachable THEN format('SELECT * FROM dtx.check_server(%L)', v.server)
                WHEN v.slots_total = 0 OR v.slots_used > 0.8 * v.slots_total
                THEN 'Set max_prepared_transactions there to at least its max_connections: docs/monitoring.md#4-prepared-slots' END
      FROM dtx.servers AS v
     ORDER BY v.reachable NULLS LAST, v.slots_used::float8 / nullif(v.slots_total, 0) DESC NULLS LAST, v.server
     LIMIT 10
  LOOP
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;

  section := 'damage';
  item := 'not acknowledged';
  SELECT count(*)::text, CASE WHEN count(*) > 0 THEN 'See dtx.damage: docs/operations.md#when-it-was-finished-by-hand' END
    INTO value, next_step FROM dtx.damage;
  lines := lines || ARRAY[ARRAY[section, item, value, next_step]];

  section := 'identity';
  item := 'earlier runs';
  SELECT coalesce('SUSPENDED: ' || b.suspended, 'as usual'),
         CASE WHEN b.suspended IS NOT NULL THEN 'dtx.adopt_identity() or dtx.change_identity(): docs/operations.md#restoring-and-cloning' END
    INTO value, next_step
    FROM (VALUES (1)) AS always
    LEFT JOIN dtx_internal.boot AS b ON b.boot_id = dtx_internal.boot_id() AND b.ended_at IS NULL;
  lines := lines || ARRAY[ARRAY[section, item, value, next_step]];

  section := 'workers';
  FOR item, value, next_step IN
    SELECT w.what,
           CASE WHEN count(a.pid) > 0 THEN count(a.pid) || ', for ' || dtx_internal.age(min(a.backend_start))
                WHEN w.always THEN 'NOT RUNNING'
                ELSE '0' END,
           CASE WHEN w.what = 'resolver' AND NOT current_setting('pg_dtx.resolver')::bool
                THEN 'pg_dtx.resolver is off: set it to on, unless this is a copy that must not touch what the original has prepared'
                WHEN w.always AND count(a.pid) = 0
                THEN 'See the server log; most likely max_worker_processes is too small: docs/monitoring.md#3-the-resolver' END
      FROM (VALUES (1, 'launcher', true), (2, 'resolver', true),
                   (3, 'saga scheduler', false), (4, 'saga worker', false)) AS w (n, what, always)
      LEFT JOIN pg_stat_activity AS a
        ON a.backend_type = 'pg_dtx ' || w.what
       AND (a.datname = current_database() OR a.datname IS NULL)
     GROUP BY w.n, w.what, w.always
     ORDER BY w.n
  LOOP
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;

  -- Nothing of them if there are none.
  section := 'sagas';
  FOR item, value, next_step IN
    SELECT CASE WHEN c.state = 'failed' AND c.n > 0 THEN 'FAILED' ELSE c.state END,
           c.n || CASE WHEN c.state = 'running' AND g.oldest IS NOT NULL
                       THEN ', oldest unfinished ' || dtx_internal.age(g.oldest) ELSE '' END,
           CASE WHEN c.state = 'failed' AND c.n > 0 THEN 'dtx.retry_saga(), dtx.skip_step() or dtx.force_saga(): docs/monitoring.md#6-sagas' END
      FROM (SELECT sum(t.started)::bigint AS started, sum(t.pending)::bigint AS pending, sum(t.running)::bigint AS running,
                   sum(t.compensating)::bigint AS compensating, sum(t.failed)::bigint AS failed,
                   sum(t.completed)::bigint AS completed, sum(t.compensated)::bigint AS compensated,
                   min(t.oldest_unfinished) AS oldest
              FROM dtx.saga_stat AS t) AS g,
           LATERAL (VALUES (1, 'pending', g.pending), (2, 'running', g.running), (3, 'compensating', g.compensating),
                           (4, 'failed', g.failed), (5, 'completed', g.completed), (6, 'compensated', g.compensated))
             AS c (k, state, n)
     WHERE g.started > 0
     ORDER BY c.k
  LOOP
    lines := lines || ARRAY[ARRAY[section, item, value, next_step]];
  END LOOP;
  SELECT count(*) INTO total FROM dtx.saga_damage;
  IF total > 0 THEN
    lines := lines || ARRAY[ARRAY[section, 'DAMAGE', total::text, 'See dtx.saga_damage: docs/sagas-howto.md#work-outside-of-the-database']];
  END IF;

  section := 'state';
  item := 'all';
  SELECT count(*) INTO total FROM generate_subscripts(lines, 1) AS i WHERE lines[i][4] IS NOT NULL;
  IF total = 0 THEN
    value := 'OK';
    next_step := NULL;
  ELSE
    value := format('%s TO DO', total);
    next_step := 'See the rows below that have a next step.';
  END IF;
  RETURN NEXT;
  FOREACH line SLICE 1 IN ARRAY lines LOOP
    section := line[1];
    item := line[2];
    value := line[3];
    next_step := line[4];
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx.overview() IS
  'what goes on, on one screen, and what to do where something is not right (next_step; the first row says whether there is anything); rates and times are those since the session last called this function';
