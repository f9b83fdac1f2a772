--
-- Definitions of sagas.
--
-- A name with a dot is that of an owner and that of a definition; the last dot counts,
-- because definitions have none.  Without a dot, it is that of a definition of one's
-- own.  So nobody can be made to run what a stranger has defined, by means of a name.
--

CREATE OR REPLACE FUNCTION dtx.statement(
  server name,
  execute text,
  compensate text DEFAULT NULL,
  min_rows integer DEFAULT NULL
) RETURNS dtx.statement_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(statement.server, statement.execute, statement.compensate, statement.min_rows)::dtx.statement_spec;

COMMENT ON FUNCTION dtx.statement(name, text, text, integer) IS
  'one statement of a step that consists of several; server null: on the coordinator';

CREATE OR REPLACE FUNCTION dtx.retry(
  factor double precision DEFAULT 2,
  maximum interval DEFAULT NULL,
  jitter double precision DEFAULT 0.5,
  always text[] DEFAULT NULL,
  never text[] DEFAULT NULL
) RETURNS dtx.retry_policy
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(retry.factor, retry.maximum, retry.jitter, retry.always, retry.never)::dtx.retry_policy;

COMMENT ON FUNCTION dtx.retry(double precision, interval, double precision, text[], text[]) IS
  'when a step that has failed is tried again: by which factor pauses grow and how long they may become, how much they vary, and after which SQLSTATEs, or classes of them, always or never';

CREATE OR REPLACE FUNCTION dtx.step_defaults(
  max_attempts integer DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  max_outage interval DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(NULL, 'defaults', NULL, NULL, NULL, NULL, NULL, NULL, step_defaults.max_attempts, step_defaults.compensate_attempts,
  step_defaults.backoff, NULL, NULL, NULL, NULL, NULL, step_defaults.max_outage, NULL,
  NULL, NULL, NULL, NULL, NULL, step_defaults.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_defaults(integer, integer, interval, interval, dtx.retry_policy) IS
  'no step: how those of this definition that run SQL, or are for external workers, are tried again unless they say so themselves';

CREATE OR REPLACE FUNCTION dtx.step(
  name text,
  server name DEFAULT NULL,
  execute text DEFAULT NULL,
  compensate text DEFAULT NULL,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  min_rows integer DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  max_outage interval DEFAULT NULL,
  event text DEFAULT NULL,
  only_if text DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step.name, 'sql', step.kind, step.after, ARRAY[step.server], ARRAY[step.execute],
  ARRAY[step.compensate], ARRAY[step.min_rows], step.max_attempts, step.compensate_attempts,
  step.backoff, step.timeout, NULL, NULL, NULL, NULL, step.max_outage, step.event,
  step.only_if, NULL, NULL, NULL, NULL, step.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step(text, name, text, text, text, text[], integer, interval, interval, integer, integer, interval, text, text, dtx.retry_policy) IS
  'a step of a saga: one SQL statement, on a server or (server null) on the coordinator; $1 is the input of the saga, $2 the results so far, $3 says which step of which saga it is';

CREATE OR REPLACE FUNCTION dtx.step(
  name text,
  statements dtx.statement_spec[],
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  max_outage interval DEFAULT NULL,
  event text DEFAULT NULL,
  only_if text DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step.name, 'sql', step.kind, step.after,
  ARRAY(SELECT s.server FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.execute FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.compensate FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  ARRAY(SELECT s.min_rows FROM pg_catalog.unnest(step.statements) WITH ORDINALITY AS s ORDER BY s.ordinality),
  step.max_attempts, step.compensate_attempts,
  step.backoff, step.timeout, NULL, NULL, NULL, NULL, step.max_outage, step.event,
  step.only_if, NULL, NULL, NULL, NULL, step.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step(text, dtx.statement_spec[], text, text[], integer, interval, interval, integer, interval, text, text, dtx.retry_policy) IS
  'a step of a saga: several SQL statements on several servers, which take effect together or not at all';

CREATE OR REPLACE FUNCTION dtx.step_sleep(
  name text,
  delay interval DEFAULT NULL,
  after text[] DEFAULT NULL,
  until text DEFAULT NULL,
  only_if text DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_sleep.name, 'sleep', NULL, step_sleep.after, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, NULL, step_sleep.delay, NULL, NULL, NULL, NULL, NULL,
  step_sleep.only_if, step_sleep.until, NULL, NULL, NULL, NULL, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_sleep(text, interval, text[], text, text) IS
  'a step of a saga that lets some time pass, or waits until a time that an SQL expression over $1 and $2 says; no worker waits meanwhile';

CREATE OR REPLACE FUNCTION dtx.step_signal(
  name text,
  after text[] DEFAULT NULL,
  timeout interval DEFAULT NULL,
  only_if text DEFAULT NULL,
  count integer DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_signal.name, 'signal', NULL, step_signal.after, NULL, NULL, NULL, NULL, NULL, NULL,
  NULL, step_signal.timeout, NULL, NULL, NULL, NULL, NULL, NULL,
  step_signal.only_if, NULL, NULL, NULL, NULL, NULL, step_signal.count)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_signal(text, text[], interval, text, integer) IS
  'a step of a saga that waits for dtx.signal_saga(), or for so many of them as count says; if timeout passes first, it fails';

CREATE OR REPLACE FUNCTION dtx.step_external(
  name text,
  queue text,
  payload jsonb DEFAULT NULL,
  compensate_queue text DEFAULT NULL,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  event text DEFAULT NULL,
  only_if text DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_external.name, 'external', step_external.kind, step_external.after, NULL, NULL, NULL, NULL,
  step_external.max_attempts, step_external.compensate_attempts,
  step_external.backoff, step_external.timeout, NULL,
  step_external.queue, step_external.payload, step_external.compensate_queue, NULL, step_external.event,
  step_external.only_if, NULL, NULL, NULL, NULL, step_external.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_external(text, text, jsonb, text, text, text[], integer, interval, interval, integer, text, text, dtx.retry_policy) IS
  'a step of a saga that is done outside of the database, by an external worker that claims it from a queue with dtx.claim_step()';

CREATE OR REPLACE FUNCTION dtx.step_saga(
  name text,
  saga text,
  input text DEFAULT NULL,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  version integer DEFAULT NULL,
  event text DEFAULT NULL,
  only_if text DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_saga.name, 'saga', step_saga.kind, step_saga.after, NULL, NULL, NULL, NULL,
  step_saga.max_attempts, step_saga.compensate_attempts, step_saga.backoff, step_saga.timeout, NULL, NULL, NULL, NULL, NULL, step_saga.event,
  step_saga.only_if, step_saga.input, step_saga.saga, step_saga.version, 1, step_saga.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_saga(text, text, text, text, text[], integer, interval, interval, integer, integer, text, text, dtx.retry_policy) IS
  'a step of a saga that is a saga itself: done when that is completed, failed when that is compensated, undone with it; input: SQL expression over $1 and $2, null: the same input';

CREATE OR REPLACE FUNCTION dtx.step_each(
  name text,
  items text,
  saga text,
  max_parallel integer DEFAULT 10,
  kind text DEFAULT 'compensatable',
  after text[] DEFAULT NULL,
  max_attempts integer DEFAULT NULL,
  backoff interval DEFAULT NULL,
  timeout interval DEFAULT NULL,
  compensate_attempts integer DEFAULT NULL,
  version integer DEFAULT NULL,
  event text DEFAULT NULL,
  only_if text DEFAULT NULL,
  retry dtx.retry_policy DEFAULT NULL
) RETURNS dtx.step_spec
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN ROW(step_each.name, 'each', step_each.kind, step_each.after, NULL, NULL, NULL, NULL,
  step_each.max_attempts, step_each.compensate_attempts, step_each.backoff, step_each.timeout, NULL, NULL, NULL, NULL, NULL, step_each.event,
  step_each.only_if, step_each.items, step_each.saga, step_each.version, step_each.max_parallel, step_each.retry, NULL)::dtx.step_spec;

COMMENT ON FUNCTION dtx.step_each(text, text, text, integer, text, text[], integer, interval, interval, integer, integer, text, text, dtx.retry_policy) IS
  'a step of a saga that is one saga for each item of a list: an SQL expression over $1 and $2 that is an array of jsonb; its result is the array of theirs';

CREATE OR REPLACE FUNCTION dtx_internal.saga_split_name(name text, OUT owner text, OUT bare text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT substring(name from '^(.*)[.][^.]*$'), substring(name from '[^.]*$')
$$;

COMMENT ON FUNCTION dtx_internal.saga_split_name(text) IS
  'internal: the parts of the name of a definition';

CREATE OR REPLACE FUNCTION dtx_internal.saga_granted(owner oid, name text, role oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT EXISTS (SELECT FROM dtx_internal.saga_definition_grant g
                  WHERE g.owner = saga_granted.owner AND g.name = saga_granted.name
                    AND (g.grantee IS NULL OR pg_has_role(saga_granted.role, g.grantee, 'USAGE')))
$$;

COMMENT ON FUNCTION dtx_internal.saga_granted(oid, text, oid) IS
  'internal: has the owner of a definition let a role start sagas of it?';

-- For the owner of what the name means, or the one to be.
CREATE OR REPLACE FUNCTION dtx_internal.saga_own_name(name text, OUT owner oid, OUT bare text)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  part record;
BEGIN
  part := dtx_internal.saga_split_name(saga_own_name.name);
  bare := part.bare;
  owner := caller;
  IF part.owner IS NOT NULL THEN
    SELECT r.oid INTO owner FROM pg_authid r WHERE r.rolname = part.owner;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'undefined_object',
        MESSAGE = format('role "%s" does not exist', part.owner),
        DETAIL = format('"%s" is the name of an owner and that of a definition.', saga_own_name.name);
    ELSIF NOT pg_has_role(caller, owner, 'USAGE') THEN
      RAISE EXCEPTION USING
        ERRCODE = 'insufficient_privilege',
        MESSAGE = format('must be owner of saga definition "%s"', saga_own_name.name);
    END IF;
  END IF;
  IF coalesce(bare, '') = '' OR length(bare) > 200 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of a saga must have 1 to 200 characters';
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_own_name(text) IS
  'internal: owner and name of a definition that the caller owns, or is going to';

-- For the role that starts a saga.  What a superuser has defined and granted needs no owner's
-- name, because a superuser needs no such trick; but superusers run nothing of others
-- that they have not named.
CREATE OR REPLACE FUNCTION dtx_internal.saga_find_definition(name text, version integer) RETURNS dtx_internal.saga_definition_record
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  is_super boolean := (SELECT r.rolsuper FROM pg_authid r WHERE r.oid = caller);
  part record;
  owners oid[];
  d dtx_internal.saga_definition_record;
BEGIN
  IF saga_find_definition.name IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'name of the saga must not be null';
  END IF;
  part := dtx_internal.saga_split_name(saga_find_definition.name);
  IF part.owner IS NOT NULL THEN
    owners := ARRAY(SELECT r.oid FROM pg_authid r WHERE r.rolname = part.owner);
  ELSIF is_super OR EXISTS (SELECT FROM dtx_internal.saga_definition_record x
                             WHERE x.owner = caller AND x.name = part.bare AND NOT x.dropped) THEN
    owners := ARRAY[caller];
  ELSE
    owners := ARRAY(SELECT DISTINCT r.oid
                      FROM pg_authid r
                      JOIN dtx_internal.saga_definition_record x ON x.owner = r.oid AND x.name = part.bare AND NOT x.dropped
                     WHERE r.rolsuper AND dtx_internal.saga_granted(r.oid, part.bare, caller));
    IF cardinality(owners) > 1 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'ambiguous_alias',
        MESSAGE = format('there are several definitions of a saga "%s"', part.bare),
        HINT = 'Write the name of the owner and a dot before that of the definition.';
    END IF;
  END IF;
  SELECT x.* INTO d
    FROM dtx_internal.saga_definition_record x
   WHERE x.owner = owners[1] AND x.name = part.bare AND NOT x.dropped
     AND x.version = coalesce(saga_find_definition.version, x.version)
   ORDER BY x.version DESC LIMIT 1;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', saga_find_definition.name)
                || coalesce(' with version ' || saga_find_definition.version, ''),
      HINT = coalesce((SELECT format('To use that of role "%s", write "%s.%s".', r.rolname, r.rolname, x.name)
                         FROM dtx_internal.saga_definition_record x
                         JOIN pg_authid r ON r.oid = x.owner
                        WHERE part.owner IS NULL AND x.owner <> caller AND x.name = part.bare AND NOT x.dropped
                          AND (pg_has_role(caller, r.oid, 'USAGE') OR dtx_internal.saga_granted(r.oid, x.name, caller))
                        ORDER BY r.rolname LIMIT 1),
                      'Define it with dtx.define_saga().');
  ELSIF NOT pg_has_role(caller, d.owner, 'USAGE') AND NOT dtx_internal.saga_granted(d.owner, d.name, caller) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'insufficient_privilege',
      MESSAGE = format('permission denied for saga definition "%s"', saga_find_definition.name),
      HINT = 'Its owner can grant it with dtx.grant_saga_definition().';
  END IF;
  -- It is not dropped before this transaction is over.
  PERFORM FROM dtx_internal.saga_definition_record x WHERE x.id = d.id AND NOT x.dropped FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', saga_find_definition.name);
  END IF;
  RETURN d;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_find_definition(text, integer) IS
  'internal: the definition that the caller means and may use';

-- The SQL of a step: arrays that fit, statements that are none, servers that there are.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_statements(s dtx.step_spec) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  server_name name;
  handler text;
BEGIN
  IF coalesce(cardinality(s."execute"), 0) NOT BETWEEN 1 AND 100 OR array_ndims(s."execute") <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('step "%s" must have 1 to 100 statements', s.name);
  ELSIF (cardinality(s.servers), cardinality(s.compensate), cardinality(s.min_rows))
     IS DISTINCT FROM (cardinality(s."execute"), cardinality(s."execute"), cardinality(s."execute"))
     OR array_ndims(s.servers) <> 1 OR array_ndims(s.compensate) <> 1 OR array_ndims(s.min_rows) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'array_subscript_error',
      MESSAGE = format('step "%s" has arrays of unequal length', s.name);
  END IF;
  FOR j IN 1 .. cardinality(s."execute") LOOP
    IF coalesce(btrim(s."execute"[j], E' \t\r\n;'), '') = '' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('step "%s" has nothing to execute', s.name);
    ELSIF btrim(s.compensate[j], E' \t\r\n;') = '' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('compensation of step "%s" is empty', s.name),
        HINT = 'Null means that there is nothing to undo.';
    ELSIF s.min_rows[j] < 0 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('min_rows of step "%s" must not be negative', s.name);
    END IF;
    server_name := s.servers[j];
    IF server_name IS NOT NULL THEN
      SELECT h.prosrc INTO handler
        FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw LEFT JOIN pg_proc h ON h.oid = w.fdwhandler
       WHERE f.srvname = server_name;
      IF NOT FOUND THEN
        RAISE EXCEPTION USING
          ERRCODE = 'undefined_object',
          MESSAGE = format('server "%s" does not exist', server_name),
          DETAIL = format('It is named in step "%s".', s.name);
      ELSIF handler IS DISTINCT FROM 'postgres_fdw_handler' THEN
        RAISE EXCEPTION USING
          ERRCODE = 'wrong_object_type',
          MESSAGE = format('server "%s" is not a server of postgres_fdw', server_name),
          DETAIL = format('It is named in step "%s".', s.name);
      END IF;
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_statements(dtx.step_spec) IS
  'internal: an error if the SQL of a step is not as it must be';

-- A step by itself, the i-th one, after steps of those names.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_step(s dtx.step_spec, i integer, names text[]) RETURNS void
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(s.name, '') = '' OR length(s.name) > 200 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('name of step %s must have 1 to 200 characters', i);
  ELSIF starts_with(s.name, '_') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'reserved_name',
      MESSAGE = format('name of step "%s" is reserved', s.name),
      DETAIL = 'Names that begin with an underscore are reserved.';
  ELSIF s.name = ANY (names) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'duplicate_object',
      MESSAGE = format('there are two steps "%s"', s.name);
  END IF;
  IF s.action IS NULL OR s.action NOT IN ('sql', 'sleep', 'signal', 'external', 'saga', 'each') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('step "%s" has an unknown action', s.name),
      HINT = 'Make steps with dtx.step(), dtx.step_sleep(), dtx.step_signal(), dtx.step_external(), dtx.step_saga() and dtx.step_each().';
  ELSIF s.action NOT IN ('sleep', 'signal')
    AND (s.kind IS NULL OR s.kind NOT IN ('compensatable', 'pivot', 'retriable')) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('step "%s" has an unknown kind', s.name),
      HINT = 'Kinds of steps are compensatable, pivot, and retriable.';
  ELSIF s.max_attempts NOT BETWEEN 1 AND 10000 OR s.compensate_attempts NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('number of attempts at step "%s" must be from 1 to 10000', s.name);
  ELSIF s.backoff < '0' OR s.delay < '0' OR (s.action = 'sleep' AND (s.delay IS NULL) = (s.expression IS NULL))
    OR NOT isfinite(s.backoff) OR NOT isfinite(s.delay) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format(CASE WHEN s.action = 'sleep' THEN 'step "%s" must have a delay that is not infinite or negative, or else a time until which it sleeps'
                            ELSE 'backoff of step "%s" must not be infinite or negative' END, s.name);
  ELSIF s.action NOT IN ('sleep', 'signal') AND s.backoff < '10 milliseconds' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('backoff of step "%s" must not be shorter than 10 milliseconds', s.name);
  ELSIF s.timeout <= '0' OR NOT isfinite(s.timeout) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('timeout of step "%s" must be positive and finite', s.name);
  ELSIF s.max_outage < '0' OR NOT isfinite(s.max_outage) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('max_outage of step "%s" must not be infinite or negative', s.name);
  ELSIF greatest(s.backoff, s.delay, s.timeout, s.max_outage) > '1000 years' THEN
    -- (what is added to the present time must be a time)
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('times of step "%s" must not be longer than 1000 years', s.name);
  END IF;
  IF (s.retry).factor NOT BETWEEN 1 AND 100 OR (s.retry).jitter NOT BETWEEN 0 AND 1 OR (s.retry).maximum <= '0'
     OR (s.retry).maximum > '1000 years'
     OR EXISTS (SELECT FROM unnest((s.retry).always || (s.retry).never) AS c (code) WHERE coalesce(c.code !~ '^[0-9A-Z]{2}([0-9A-Z]{3})?$', true)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('retry policy of step "%s" is not valid', s.name),
      DETAIL = 'The factor is from 1 to 100, jitter from 0 to 1, and always and never have SQLSTATEs, or the first two characters of some.';
  ELSIF s.count NOT BETWEEN 1 AND 1000 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('number of signals of step "%s" must be from 1 to 1000', s.name);
  END IF;
  IF s.event = '' OR length(s.event) > 200 OR s.event IN ('completed', 'compensated', 'failed') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('name of the event of step "%s" must have 1 to 200 characters, and not be that of an event of sagas', s.name);
  END IF;
  IF btrim(s.condition, E' \t\r\n') = '' OR btrim(s.expression, E' \t\r\n') = '' OR (s.action = 'each' AND s.expression IS NULL) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('an expression of step "%s" is empty', s.name);
  END IF;
  IF s.action = 'sql' THEN
    PERFORM dtx_internal.saga_check_statements(s);
  ELSIF s.action IN ('saga', 'each') AND (coalesce(s.saga, '') = '' OR coalesce(s.parallel < 1, true)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('step "%s" must name a saga, and run at least one at a time', s.name);
  END IF;
  IF s.action = 'external' THEN
    -- "dtx:" and the name are a channel of NOTIFY
    IF coalesce(s.queue, '') = '' OR s.compensate_queue = '' OR octet_length(s.queue) > 59
       OR octet_length(s.compensate_queue) > 59 THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('name of the queue of step "%s" must have 1 to 59 bytes', s.name);
    END IF;
  END IF;
  IF s.kind IN ('pivot', 'retriable')
     AND (array_remove(s.compensate, NULL) <> '{}' OR s.compensate_queue IS NOT NULL) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('step "%s" of kind %s cannot have a compensation', s.name, s.kind),
      DETAIL = 'Only compensatable steps are compensated.';
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_step(dtx.step_spec, integer, text[]) IS
  'internal: an error if a step is not as it must be, whatever the others are';

-- What comes after what.
CREATE OR REPLACE FUNCTION dtx_internal.saga_order_steps(saga text, steps dtx.step_spec[], names text[],
  OUT befores text[],           -- for each step, its predecessors as text of an array
  OUT numbers integer[],        -- for each step as given, its number
  OUT given integer[]           -- for each number, the step as given
)
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n integer := cardinality(steps);
  s dtx.step_spec;
  after integer[];
  found_one boolean;
BEGIN
  befores := '{}';
  given := '{}';
  FOR i IN 1 .. n LOOP
    s := steps[i];
    after := '{}';
    IF s.after IS NULL THEN
      IF i > 1 THEN
        after := ARRAY[i - 1];
      END IF;
    ELSE
      FOR j IN 1 .. cardinality(s.after) LOOP
        IF s.after[j] IS NULL OR array_position(names, s.after[j]) IS NULL THEN
          RAISE EXCEPTION USING
            ERRCODE = 'undefined_object',
            MESSAGE = CASE WHEN s.after[j] IS NULL THEN format('names of steps after which step "%s" is to come must not be null', s.name)
                           ELSE format('there is no step "%s", after which step "%s" is to come', s.after[j], s.name) END;
        END IF;
        after := after || array_position(names, s.after[j]);
      END LOOP;
    END IF;
    befores := befores || after::text;
  END LOOP;

  -- Numbers such that each step comes after its predecessors, and otherwise in
  -- the order in which they were given
  numbers := array_fill(NULL::integer, ARRAY[n]);
  FOR number IN 1 .. n LOOP
    found_one := false;
    FOR i IN 1 .. n LOOP
      IF numbers[i] IS NULL
         AND NOT EXISTS (SELECT FROM unnest(befores[i]::integer[]) AS b WHERE numbers[b] IS NULL) THEN
        numbers[i] := number;
        given := given || i;
        found_one := true;
        EXIT;
      END IF;
    END LOOP;
    IF NOT found_one THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('steps of saga "%s" come after each other in a circle', saga),
        DETAIL = format('These steps can never begin: %s.',
                        (SELECT string_agg(format('"%s"', names[i]), ', ' ORDER BY i)
                           FROM generate_series(1, n) AS i WHERE numbers[i] IS NULL));
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_order_steps(text, dtx.step_spec[], text[]) IS
  'internal: the order of the steps of a definition; an error if there is none';

-- Whose results do these texts name?  Null, if that cannot be told: then it is all.
CREATE OR REPLACE FUNCTION dtx_internal.saga_needs(texts text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN count(*) = count(m.name) THEN coalesce(array_agg(DISTINCT m.name) FILTER (WHERE m.name IS NOT NULL), '{}') END
    FROM unnest(texts) AS t (sql)
   CROSS JOIN LATERAL regexp_split_to_table(t.sql, '[$]2(?![0-9])') WITH ORDINALITY AS p (rest, i)
   CROSS JOIN LATERAL (SELECT replace((regexp_match(p.rest, '^\s*(?:->>?|[?])\s*''((?:[^''\\]|'''')*)'''))[1], '''''', '''') AS name) AS m
   WHERE t.sql IS NOT NULL AND p.i > 1
$$;

COMMENT ON FUNCTION dtx_internal.saga_needs(text[]) IS
  'internal: names of the steps whose results some SQL uses; null: those of all, perhaps';

-- The steps as they are stored, but for the number of the definition.
CREATE OR REPLACE FUNCTION dtx_internal.saga_make_steps(steps dtx.step_spec[], befores text[], numbers integer[], given integer[])
RETURNS dtx_internal.saga_definition_step_record[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s dtx.step_spec;
  rows dtx_internal.saga_definition_step_record[] := '{}';
  r dtx_internal.saga_definition_step_record;
BEGIN
  FOR number IN 1 .. cardinality(steps) LOOP
    s := steps[given[number]];
    r := NULL;
    r.step := number;
    r.name := s.name;
    r.action := s.action;
    r.after := ARRAY(SELECT DISTINCT numbers[b]::smallint FROM unnest(befores[given[number]]::integer[]) AS b ORDER BY 1);
    r.ancestors := ARRAY(SELECT unnest(r.after)
                         UNION
                         SELECT unnest(p.ancestors) FROM unnest(rows) AS p WHERE p.step = ANY (r.after)
                         ORDER BY 1);
    r.kind := CASE WHEN s.action NOT IN ('sleep', 'signal') THEN s.kind
                   WHEN EXISTS (SELECT FROM unnest(rows) AS p
                                 WHERE p.step = ANY (r.ancestors) AND p.kind IN ('pivot', 'retriable')) THEN 'retriable'
                   ELSE 'compensatable' END;
    r.max_attempts := coalesce(s.max_attempts, CASE WHEN s.action = 'external' OR r.kind = 'retriable' THEN 20
                                                     WHEN s.action IN ('saga', 'each') THEN 1 ELSE 5 END);
    r.compensate_attempts := coalesce(s.compensate_attempts, 20);
    r.backoff := coalesce(s.backoff, '1 second');
    r.timeout := s.timeout;
    r.max_outage := s.max_outage;
    r.event := s.event;
    r.retry := CASE WHEN s.action NOT IN ('sleep', 'signal') THEN s.retry END;
    r.count := CASE WHEN s.action = 'signal' THEN s.count END;
    r.needs := dtx_internal.saga_needs(s."execute" || s.compensate || s.condition || s.expression);
    r.condition := s.condition;
    r.expression := CASE WHEN s.action IN ('sleep', 'saga', 'each') THEN s.expression END;
    IF s.action = 'sql' THEN
      r.servers := s.servers;
      r."execute" := s."execute";
      r.compensate := s.compensate;
      r.min_rows := s.min_rows;
    ELSIF s.action = 'sleep' THEN
      r.delay := s.delay;
    ELSIF s.action = 'external' THEN
      r.queue := s.queue;
      r.payload := s.payload;
      r.compensate_queue := s.compensate_queue;
    ELSIF s.action IN ('saga', 'each') THEN
      r.saga := s.saga;
      r.version := s.version;
      r.parallel := s.parallel;
    END IF;
    rows := rows || r;
  END LOOP;
  RETURN rows;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_make_steps(dtx.step_spec[], text[], integer[], integer[]) IS
  'internal: rows of dtx_internal.saga_definition_step_record';

-- The point of no return.  Whatever may fail, and would then have the others
-- compensated, must be before it.
CREATE OR REPLACE FUNCTION dtx_internal.saga_check_no_return(saga text, rows dtx_internal.saga_definition_step_record[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  x record;
BEGIN
  FOR x IN
    SELECT a.name AS may_fail, a.kind AS may_fail_kind, b.name AS no_return, b.kind AS no_return_kind,
           b.step = ANY (a.ancestors) AS wrong_order
      FROM unnest(rows) AS a, unnest(rows) AS b
     WHERE a.kind IN ('compensatable', 'pivot')
       AND dtx_internal.saga_may_fail(a)
       AND b.kind IN ('pivot', 'retriable')
       AND a.step <> b.step
       AND NOT a.step = ANY (b.ancestors)
     ORDER BY a.step, b.step
     LIMIT 1
  LOOP
    IF x.may_fail_kind = 'pivot' AND x.no_return_kind = 'pivot' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format('saga "%s" has more than one pivot: "%s" and "%s"',
                         saga, least(x.may_fail, x.no_return), greatest(x.may_fail, x.no_return)),
        HINT = 'Statements that must take effect together can be one step, see dtx.statement().';
    ELSE
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_parameter_value',
        MESSAGE = format(CASE WHEN x.wrong_order THEN '%s step "%s" comes after %s step "%s"'
                              ELSE '%s step "%s" may run at the same time as %s step "%s"' END,
                         x.may_fail_kind, x.may_fail, x.no_return_kind, x.no_return),
        DETAIL = format('If step "%s" failed, step "%s" could not be undone any more.', x.may_fail, x.no_return);
    END IF;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_check_no_return(text, dtx_internal.saga_definition_step_record[]) IS
  'internal: an error if something may fail after the point of no return';

-- The steps, with the defaults that are given among them.
CREATE OR REPLACE FUNCTION dtx_internal.saga_apply_defaults(saga text, steps dtx.step_spec[]) RETURNS dtx.step_spec[]
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  s dtx.step_spec;
  defaults dtx.step_spec;
  given integer := 0;
  result dtx.step_spec[] := '{}';
BEGIN
  FOREACH s IN ARRAY steps LOOP
    IF s.action = 'defaults' THEN
      defaults := s;
      given := given + 1;
    END IF;
  END LOOP;
  IF given = 0 THEN
    RETURN steps;
  ELSIF given > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('saga "%s" has defaults of its steps twice', saga);
  END IF;
  FOREACH s IN ARRAY steps LOOP
    CONTINUE WHEN s.action = 'defaults';
    IF s.action IN ('sql', 'external') THEN
      s.max_attempts := coalesce(s.max_attempts, defaults.max_attempts);
      s.compensate_attempts := coalesce(s.compensate_attempts, defaults.compensate_attempts);
      s.backoff := coalesce(s.backoff, defaults.backoff);
      IF s.retry IS NULL THEN
        s.retry := defaults.retry;
      END IF;
    END IF;
    IF s.action = 'sql' THEN
      s.max_outage := coalesce(s.max_outage, defaults.max_outage);
    END IF;
    result := result || s;
  END LOOP;
  RETURN result;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_apply_defaults(text, dtx.step_spec[]) IS
  'internal: the steps of a definition, with what dtx.step_defaults() among them says';

-- Returns the version: the newest one, if that is the same.
CREATE OR REPLACE FUNCTION dtx_internal.saga_store_definition(owner oid, name text, rows dtx_internal.saga_definition_step_record[])
RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  old dtx_internal.saga_definition_record;
BEGIN
  LOOP
    SELECT d.* INTO old FROM dtx_internal.saga_definition_record d
     WHERE d.owner = saga_store_definition.owner AND d.name = saga_store_definition.name ORDER BY d.version DESC LIMIT 1;
    IF FOUND AND NOT old.dropped THEN
      rows := ARRAY(SELECT ROW(old.id, u.step, u.name, u.action, u.kind, u.after, u.ancestors, u.servers, u.execute,
                               u.compensate, u.min_rows, u.max_attempts, u.compensate_attempts, u.backoff, u.timeout,
                               u.max_outage, u.event, u.delay, u.queue, u.payload, u.compensate_queue,
                               u.condition, u.expression, u.saga, u.version, u.parallel, u.retry, u.count, u.needs)::dtx_internal.saga_definition_step_record
                      FROM unnest(rows) AS u ORDER BY u.step);
      IF rows = ARRAY(SELECT u FROM dtx_internal.saga_definition_step_record u WHERE u.definition = old.id ORDER BY u.step) THEN
        RETURN old.version;     -- nothing new
      END IF;
    END IF;
    -- Waits for another transaction that is doing the same just now, and then looks again.
    INSERT INTO dtx_internal.saga_definition_record (id, owner, name, version, created_at)
    VALUES (nextval('dtx_internal.saga_definition_id'), saga_store_definition.owner, saga_store_definition.name, coalesce(old.version, 0) + 1, clock_timestamp())
    ON CONFLICT DO NOTHING
    RETURNING * INTO old;
    EXIT WHEN FOUND;
  END LOOP;
  INSERT INTO dtx_internal.saga_definition_step_record
  SELECT old.id, u.step, u.name, u.action, u.kind, u.after, u.ancestors, u.servers, u.execute, u.compensate,
         u.min_rows, u.max_attempts, u.compensate_attempts, u.backoff, u.timeout, u.max_outage, u.event, u.delay, u.queue, u.payload,
         u.compensate_queue, u.condition, u.expression, u.saga, u.version, u.parallel, u.retry, u.count, u.needs
    FROM unnest(rows) AS u;
  RETURN old.version;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_store_definition(oid, text, dtx_internal.saga_definition_step_record[]) IS
  'internal: stores a definition, if it is new';

CREATE OR REPLACE FUNCTION dtx_internal.define_saga(name text, steps dtx.step_spec[]) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  own record := dtx_internal.saga_own_name(define_saga.name);
  n integer := coalesce(cardinality(steps), 0);
  names text[] := '{}';
  o record;
  rows dtx_internal.saga_definition_step_record[];
BEGIN
  IF n > 0 AND array_ndims(steps) = 1 THEN
    steps := dtx_internal.saga_apply_defaults(define_saga.name, steps);
    n := cardinality(steps);
  END IF;
  IF n NOT BETWEEN 1 AND 1000 OR array_ndims(steps) <> 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = format('saga "%s" must have 1 to 1000 steps', define_saga.name);
  END IF;
  FOR i IN 1 .. n LOOP
    PERFORM dtx_internal.saga_check_step(steps[i], i, names);
    names := names || steps[i].name;
  END LOOP;
  o := dtx_internal.saga_order_steps(define_saga.name, steps, names);
  rows := dtx_internal.saga_make_steps(steps, o.befores, o.numbers, o.given);
  PERFORM dtx_internal.saga_check_no_return(define_saga.name, rows);
  RETURN dtx_internal.saga_store_definition(own.owner, own.bare, rows);
END
$$;

COMMENT ON FUNCTION dtx_internal.define_saga(text, dtx.step_spec[]) IS
  'internal: dtx.define_saga()';

CREATE OR REPLACE FUNCTION dtx.define_saga(name text, VARIADIC steps dtx.step_spec[]) RETURNS integer
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.define_saga(text, dtx.step_spec[]) IS
  'defines a saga, or a new version of it if anything is different; returns the version; an error names the step that is not right';

CREATE OR REPLACE FUNCTION dtx_internal.grant_saga_definition(name text, grantee name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record;
  role oid;
BEGIN
  own := dtx_internal.saga_own_name(grant_saga_definition.name);
  IF grant_saga_definition.grantee IS DISTINCT FROM 'public' THEN
    SELECT r.oid INTO role FROM pg_authid r WHERE r.rolname = grant_saga_definition.grantee;
    IF NOT FOUND THEN
      RAISE EXCEPTION USING
        ERRCODE = 'undefined_object',
        MESSAGE = CASE WHEN grant_saga_definition.grantee IS NULL THEN 'grantee must not be null'
                       ELSE format('role "%s" does not exist', grant_saga_definition.grantee) END;
    END IF;
  END IF;
  PERFORM FROM dtx_internal.saga_definition_record d WHERE d.owner = own.owner AND d.name = own.bare AND NOT d.dropped FOR KEY SHARE;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', grant_saga_definition.name);
  END IF;
  INSERT INTO dtx_internal.saga_definition_grant (owner, name, grantee)
  SELECT own.owner, own.bare, role
   WHERE NOT EXISTS (SELECT FROM dtx_internal.saga_definition_grant g
                      WHERE g.owner = own.owner AND g.name = own.bare AND g.grantee IS NOT DISTINCT FROM role);
END
$$;

COMMENT ON FUNCTION dtx_internal.grant_saga_definition(text, name) IS
  'internal: dtx.grant_saga_definition()';

CREATE OR REPLACE FUNCTION dtx.grant_saga_definition(name text, grantee name) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.grant_saga_definition(text, name) IS
  'lets a role, or ''public'', start sagas of a definition of one''s own, all versions, with its own rights; an error if there is none of that name';

CREATE OR REPLACE FUNCTION dtx_internal.revoke_saga_definition(name text, grantee name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  own record;
BEGIN
  own := dtx_internal.saga_own_name(revoke_saga_definition.name);
  DELETE FROM dtx_internal.saga_definition_grant g
   WHERE g.owner = own.owner AND g.name = own.bare
     AND (CASE WHEN g.grantee IS NULL THEN revoke_saga_definition.grantee = 'public'
               ELSE g.grantee = (SELECT r.oid FROM pg_authid r WHERE r.rolname = revoke_saga_definition.grantee) END);
END
$$;

COMMENT ON FUNCTION dtx_internal.revoke_saga_definition(text, name) IS
  'internal: dtx.revoke_saga_definition()';

CREATE OR REPLACE FUNCTION dtx.revoke_saga_definition(name text, grantee name) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.revoke_saga_definition(text, name) IS
  'takes back what dtx.grant_saga_definition() has granted; sagas that were started go on';

CREATE OR REPLACE FUNCTION dtx_internal.drop_saga_definition(name text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  part record := dtx_internal.saga_split_name(drop_saga_definition.name);
  own record;
  ids bigint[];
  n bigint;
BEGIN
  IF part.owner = '' AND (SELECT r.rolsuper FROM pg_authid r WHERE r.oid = caller) THEN
    -- Those that belong to nobody.
    ids := ARRAY(SELECT d.id FROM dtx_internal.saga_definition_record d
                  WHERE d.name = part.bare AND NOT d.dropped
                    AND NOT EXISTS (SELECT FROM pg_authid r WHERE r.oid = d.owner)
                  ORDER BY d.id FOR UPDATE);
  ELSE
    own := dtx_internal.saga_own_name(drop_saga_definition.name);
    ids := ARRAY(SELECT d.id FROM dtx_internal.saga_definition_record d
                  WHERE d.owner = own.owner AND d.name = own.bare AND NOT d.dropped
                  ORDER BY d.id FOR UPDATE);
  END IF;
  IF ids = '{}' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no definition of a saga "%s"', drop_saga_definition.name);
  END IF;
  SELECT count(*) INTO n FROM dtx_internal.saga_record g WHERE g.definition = ANY (ids) AND g.finished_at IS NULL;
  IF n > 0 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'object_in_use',
      MESSAGE = format('cannot drop definition "%s"', drop_saga_definition.name),
      DETAIL = format('Sagas of it that have not ended: %s.', n),
      HINT = 'Wait for them, or end them with dtx.cancel_saga() or dtx.force_saga().';
  END IF;
  DELETE FROM dtx_internal.saga_definition_grant x
   USING dtx_internal.saga_definition_record d
   WHERE d.id = ANY (ids) AND x.owner = d.owner AND x.name = d.name;
  UPDATE dtx_internal.saga_definition_record SET dropped = true WHERE id = ANY (ids);
  PERFORM dtx_internal.saga_forget_definitions();
END
$$;

COMMENT ON FUNCTION dtx_internal.drop_saga_definition(text) IS
  'internal: dtx.drop_saga_definition()';

CREATE OR REPLACE FUNCTION dtx.drop_saga_definition(name text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.drop_saga_definition(text) IS
  'drops a definition, all versions; refused while sagas of it have not ended';

-- Of those that were dropped, those that no saga is of any more.
CREATE OR REPLACE FUNCTION dtx_internal.saga_forget_definitions() RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  DELETE FROM dtx_internal.saga_definition_record
   WHERE id IN (SELECT d.id FROM dtx_internal.saga_definition_record d
                 WHERE d.dropped AND NOT EXISTS (SELECT FROM dtx_internal.saga_record g WHERE g.definition = d.id)
                   FOR UPDATE SKIP LOCKED)      -- others may be doing the same
$$;

COMMENT ON FUNCTION dtx_internal.saga_forget_definitions() IS
  'internal: forgets definitions that were dropped and are not needed any more';
