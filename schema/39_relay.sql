--
-- What pg_dtx_relay calls.  Each of these is for the role of a relay, which has EXECUTE on
-- them and needs nothing else (dtx.grant_relay()).
--

CREATE OR REPLACE FUNCTION dtx.grant_relay(role name) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  f regprocedure;
BEGIN
  FOR f IN
    SELECT p.oid FROM pg_proc p
     WHERE p.pronamespace = 'dtx'::regnamespace AND p.proname LIKE 'relay\_%' ORDER BY p.proname
  LOOP
    EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO %I', f, grant_relay.role);
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx.grant_relay(name) IS
  'lets a role run pg_dtx_relay: EXECUTE on the functions that it calls; what its rules call has to be granted besides';

--
-- Who is there
--

CREATE OR REPLACE FUNCTION dtx.relay_hello(name text, relay_group text, direction text) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(relay_hello.name, '') = '' OR coalesce(relay_hello.relay_group, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'names of relay and group are required';
  END IF;
  DELETE FROM dtx_internal.relay_record AS r
   WHERE r.pid = pg_backend_pid()
      OR NOT EXISTS (SELECT FROM pg_stat_get_activity(r.pid) a WHERE a.backend_start = r.backend_start);
  INSERT INTO dtx_internal.relay_record (pid, backend_start, name, relay_group, direction, seen_at)
  SELECT pg_backend_pid(), a.backend_start, relay_hello.name, relay_hello.relay_group, relay_hello.direction, clock_timestamp()
    FROM pg_stat_get_activity(pg_backend_pid()) a;
END
$$;

COMMENT ON FUNCTION dtx.relay_hello(text, text, text) IS
  'a relay is connected, for direction out or in; for pg_dtx_relay';

-- Shares of the outbox are those of the relays of a group that are connected.
CREATE OR REPLACE FUNCTION dtx.relay_beat(buckets integer, done bigint, failed bigint, dead bigint, error text) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  this_group text;
BEGIN
  UPDATE dtx_internal.relay_record AS r
     SET seen_at = clock_timestamp(), buckets = relay_beat.buckets,
         last_done_at = CASE WHEN relay_beat.done > r.done THEN clock_timestamp() ELSE r.last_done_at END,
         done = relay_beat.done, failed = relay_beat.failed, dead = relay_beat.dead,
         error_at = CASE WHEN relay_beat.error IS NULL THEN NULL
                         WHEN relay_beat.failed > r.failed OR r.error IS DISTINCT FROM relay_beat.error THEN clock_timestamp()
                         ELSE r.error_at END,
         error = left(relay_beat.error, 2000)
   WHERE r.pid = pg_backend_pid()
  RETURNING r.relay_group INTO this_group;
  RETURN (SELECT count(*) FROM dtx_internal.relay_record r
           WHERE r.relay_group = this_group AND r.direction = 'out'
             AND EXISTS (SELECT FROM pg_stat_get_activity(r.pid) a WHERE a.backend_start = r.backend_start));
END
$$;

COMMENT ON FUNCTION dtx.relay_beat(integer, bigint, bigint, bigint, text) IS
  'a relay tells of itself, and learns how many of its group there are; for pg_dtx_relay';

-- Sleeps until there may be something in the outbox.
CREATE OR REPLACE FUNCTION dtx.relay_wait(ms integer) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM dtx_internal.saga_wait_work('dtx.outbox', relay_wait.ms);
END
$$;

COMMENT ON FUNCTION dtx.relay_wait(integer) IS
  'waits until there may be an event to publish, for milliseconds, a second at most; for pg_dtx_relay';

--
-- Out
--

-- Whoever has got a number up to "seq" had a transaction id before, which is lower than "xid".
-- So when "oldest" has reached that, all events up to "seq" are there, or never will be: a
-- relay that has published them need not read what is left of them in the index.
CREATE OR REPLACE FUNCTION dtx.relay_position(OUT seq bigint, OUT xid xid8, OUT oldest xid8)
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  oldest := pg_snapshot_xmin(pg_current_snapshot());
  SELECT CASE WHEN s.is_called THEN s.last_value ELSE 0 END INTO relay_position.seq FROM dtx.outbox_seq_seq s;
  xid := pg_current_xact_id();
END
$$;

COMMENT ON FUNCTION dtx.relay_position() IS
  'number of the newest event, a transaction id that is higher than those of who has written events until now, and the oldest that is running; for pg_dtx_relay';

CREATE OR REPLACE FUNCTION dtx.relay_take(buckets smallint[], after bigint[], patterns text[], envelopes text[], source text, n integer)
RETURNS SETOF dtx.relay_event
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off ROWS 500
AS $$
DECLARE
  there integer;
  each integer;
BEGIN
  SELECT count(*) INTO there
    FROM unnest(relay_take.buckets, relay_take.after) AS b (bucket, after)
   WHERE EXISTS (SELECT FROM dtx.outbox o WHERE o.bucket = b.bucket AND o.seq > b.after);
  IF there = 0 THEN
    RETURN;
  END IF;
  each := greatest(relay_take.n / there, 1);
  RETURN QUERY
    SELECT e.id, e.seq, e.bucket, e.rule, e.aggregatetype, e.aggregateid, e.type, e.at,
           m.content_type, m.body, m.header_names, m.header_values
      FROM (SELECT o.*, (SELECT min(p.i)::integer FROM unnest(relay_take.patterns) WITH ORDINALITY AS p (pattern, i)
                          WHERE o.aggregatetype LIKE p.pattern) AS rule,
                   sum(coalesce(pg_column_size(o.payload), 0)) OVER (ORDER BY o.seq) - coalesce(pg_column_size(o.payload), 0) AS before
              FROM unnest(relay_take.buckets, relay_take.after) AS b (bucket, after)
             CROSS JOIN LATERAL (SELECT x.* FROM dtx.outbox x
                                  WHERE x.bucket = b.bucket AND x.seq > b.after AND x.aggregatetype LIKE ANY (relay_take.patterns)
                                  ORDER BY x.bucket, x.seq LIMIT each) AS o) AS e
     CROSS JOIN LATERAL dtx_internal.relay_envelope(relay_take.envelopes[e.rule], relay_take.source,
                          e.id, e.aggregatetype, e.aggregateid, e.type, e.at, e.payload, e.headers) AS m
     WHERE e.before < 16 * 1024 * 1024      -- all of them are in memory at once there
     ORDER BY e.seq;
END
$$;

COMMENT ON FUNCTION dtx.relay_take(smallint[], bigint[], text[], text[], text, integer) IS
  'the next events of buckets, about n, whose aggregatetype is LIKE one of the patterns, as messages; for pg_dtx_relay';

CREATE OR REPLACE FUNCTION dtx_internal.relay_envelope(envelope text, source text, id uuid, aggregatetype text, aggregateid text,
  type text, at timestamptz, payload jsonb, headers jsonb,
  OUT content_type text, OUT body text, OUT header_names text[], OUT header_values text[])
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'
AS $$
#variable_conflict use_variable
DECLARE
  time text := to_char(at, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
  more jsonb;
BEGIN
  -- For both brokers, names without a prefix: the relay knows which one each has.
  content_type := 'application/json';
  body := payload::text;
  IF envelope = 'cloudevents' THEN
    more := jsonb_build_object('ce:specversion', '1.0', 'ce:id', id, 'ce:source', source, 'ce:type', type,
                               'ce:subject', aggregateid, 'ce:time', time, 'ce:aggregatetype', aggregatetype);
  ELSIF envelope = 'cloudevents-structured' THEN
    content_type := 'application/cloudevents+json';
    body := jsonb_strip_nulls(jsonb_build_object('specversion', '1.0', 'id', id, 'source', source, 'type', type, 'subject', aggregateid,
              'time', time, 'aggregatetype', aggregatetype, 'datacontenttype', CASE WHEN payload IS NOT NULL THEN 'application/json' END))
            || CASE WHEN payload IS NULL THEN '{}' ELSE jsonb_build_object('data', payload) END;
    more := '{}';
  ELSIF envelope = 'debezium' THEN
    more := jsonb_build_object('id', id, 'eventType', type);
  ELSE
    more := jsonb_build_object('id', id, 'type', type);
  END IF;
  SELECT array_agg(h.k ORDER BY h.k), array_agg(h.v ORDER BY h.k) INTO header_names, header_values
    FROM jsonb_each_text(headers || more) AS h (k, v);
END
$$;

COMMENT ON FUNCTION dtx_internal.relay_envelope(text, text, uuid, text, text, text, timestamptz, jsonb, jsonb) IS
  'internal: an event in the form in which it goes to a broker';

CREATE OR REPLACE FUNCTION dtx.relay_done(ids uuid[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  DELETE FROM dtx.outbox o WHERE o.id = ANY (relay_done.ids);
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END
$$;

COMMENT ON FUNCTION dtx.relay_done(uuid[]) IS
  'the broker has confirmed events: deletes them, and returns how many were still there; for pg_dtx_relay';

CREATE OR REPLACE FUNCTION dtx.relay_bury(id uuid, reason text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  WITH d AS (
    DELETE FROM dtx.outbox AS o WHERE o.id = relay_bury.id RETURNING o.*)
  INSERT INTO dtx_internal.outbox_dead_record (id, seq, aggregatetype, aggregateid, type, payload, headers, at, dead_at, reason, relay)
  SELECT d.id, d.seq, d.aggregatetype, d.aggregateid, d.type, d.payload, d.headers, d.at, clock_timestamp(), left(relay_bury.reason, 2000),
         coalesce((SELECT r.name FROM dtx_internal.relay_record r WHERE r.pid = pg_backend_pid()), session_user)
    FROM d;
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION dtx.relay_bury(uuid, text) IS
  'gives an event up that no broker takes: it goes to dtx.outbox_dead with the reason; false if it is not there; for pg_dtx_relay';

--
-- In
--

CREATE OR REPLACE FUNCTION dtx.relay_receive(source text, message_id text) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  IF coalesce(relay_receive.source, '') = '' OR coalesce(relay_receive.message_id, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'null_value_not_allowed',
      MESSAGE = 'message has no id',
      HINT = 'Without one, a message that is delivered twice would have its effect twice.';
  ELSIF octet_length(relay_receive.source) + octet_length(relay_receive.message_id) > 2000 THEN
    -- (both are in an index)
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'id of the message must not be longer than 2000 bytes together with its source';
  END IF;
  -- waits for another transaction that has received the same message
  INSERT INTO dtx_internal.inbox_record (source, message_id, at)
  VALUES (relay_receive.source, relay_receive.message_id, clock_timestamp())
  ON CONFLICT DO NOTHING;
  RETURN FOUND;
END
$$;

COMMENT ON FUNCTION dtx.relay_receive(text, text) IS
  'remembers that a message has its effect in this transaction; false: it had it before; waits for another transaction that has received the same one; errors: 22004 for a message without an id, 22023 for an id that is longer than 2000 bytes together with its source; for pg_dtx_relay, and for consumers of one''s own';

CREATE OR REPLACE FUNCTION dtx.relay_prune(keep interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off
AS $$
DECLARE
  n bigint;
BEGIN
  IF relay_prune.keep IS NULL OR relay_prune.keep < '1 hour' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'ids of messages must be kept for an hour or longer';
  END IF;
  DELETE FROM dtx_internal.command_record AS c
   WHERE c.ctid = ANY (ARRAY(SELECT x.ctid FROM dtx_internal.command_record x WHERE x.at < clock_timestamp() - relay_prune.keep
                                AND NOT EXISTS (SELECT FROM dtx_internal.saga_external e WHERE e.token = x.token)
                              ORDER BY x.at LIMIT 1000 FOR UPDATE SKIP LOCKED));
  DELETE FROM dtx_internal.inbox_record AS i
   WHERE i.ctid = ANY (ARRAY(SELECT x.ctid FROM dtx_internal.inbox_record x WHERE x.at < clock_timestamp() - relay_prune.keep
                              ORDER BY x.at LIMIT 10000 FOR UPDATE SKIP LOCKED));
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END
$$;

COMMENT ON FUNCTION dtx.relay_prune(interval) IS
  'forgets ids of messages, and commands, that are older (an hour or more), some at a time, and returns the number of ids; for pg_dtx_relay';

-- A message as functions get it, whatever form it had:
-- {"id", "source", "type", "key", "content_type", "headers": {...}, "data": ...}
CREATE OR REPLACE FUNCTION dtx.relay_message(envelope text, id text, key text, type text, content_type text, body text,
  header_names text[], header_values text[]) RETURNS jsonb
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
  headers jsonb := coalesce((SELECT jsonb_object_agg(h.k, h.v) FROM unnest(header_names, header_values) AS h (k, v)), '{}');
  attributes jsonb;
  data jsonb;
  source text;
BEGIN
  IF envelope = 'cloudevents' AND content_type LIKE 'application/cloudevents+json%' THEN
    attributes := body::jsonb;
    data := CASE WHEN attributes ? 'data_base64'
                 THEN to_jsonb(convert_from(decode(attributes->>'data_base64', 'base64'), 'UTF8')) ELSE attributes->'data' END;
    attributes := attributes - 'data' - 'data_base64';
  ELSE
    IF body = '' THEN
      data := NULL;
    ELSIF coalesce(content_type, '') = '' OR content_type ~* '^[^;]*[/+]json' THEN
      data := body::jsonb;
    ELSE
      data := to_jsonb(body);
    END IF;
    IF envelope = 'cloudevents' THEN
      SELECT jsonb_object_agg(m.name[1], m.v) INTO attributes
        FROM (SELECT regexp_match(h.k, '^(?:cloudEvents[:_]|ce_)(.+)$') AS name, h.v FROM jsonb_each(headers) AS h (k, v)) AS m
       WHERE m.name IS NOT NULL;
    END IF;
  END IF;
  IF envelope = 'cloudevents' THEN
    IF attributes->>'specversion' IS NULL OR coalesce(attributes->>'id', '') = '' OR coalesce(attributes->>'source', '') = '' THEN
      RAISE EXCEPTION USING
        ERRCODE = 'invalid_text_representation',
        MESSAGE = 'message is no CloudEvent',
        DETAIL = 'It has no specversion, id or source.';
    END IF;
    source := attributes->>'source';
    id := (attributes->>'id');
    type := coalesce(attributes->>'type', type);
    key := coalesce(key, attributes->>'subject');
    headers := headers || attributes;
  ELSE
    id := coalesce(id, headers->>'id');
    type := coalesce(headers->>'eventType', headers->>'type', type);
    IF envelope = 'debezium' THEN
      IF jsonb_typeof(data) = 'object' AND data ?& '{schema,payload}' THEN
        data := data->'payload';
      END IF;
      IF jsonb_typeof(data) = 'string' AND left(data #>> '{}', 1) IN ('{', '[') THEN
        data := (data #>> '{}')::jsonb;
      END IF;
    END IF;
  END IF;
  RETURN jsonb_build_object('id', id, 'source', source, 'type', type, 'key', key, 'content_type', content_type,
                            'headers', headers, 'data', data);
END
$$;

COMMENT ON FUNCTION dtx.relay_message(text, text, text, text, text, text, text[], text[]) IS
  'a message from a broker in the form that functions get: id, source, type, key, content_type, headers, data; for pg_dtx_relay';

-- A saga that the caller may act on, by its key.
CREATE OR REPLACE FUNCTION dtx_internal.signal_saga(name text, key text, signal text, payload jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  caller oid := dtx_internal.saga_caller();
  found_saga bigint;
  n bigint;
BEGIN
  SELECT max(g.id), count(*) INTO found_saga, n
    FROM dtx_internal.saga_key k
    JOIN dtx_internal.saga_record g ON g.id = k.saga
   WHERE k.key = signal_saga.key
     AND (k.name = signal_saga.name
          OR k.name = regexp_replace(signal_saga.name, '^.*\.', '') AND k.owner = to_regrole(quote_ident(regexp_replace(signal_saga.name, '\.[^.]*$', ''))))
     AND pg_has_role(caller, g.role, 'USAGE');
  IF n = 0 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there is no saga "%s" with key "%s"', signal_saga.name, signal_saga.key);
  ELSIF n > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ambiguous_alias',
      MESSAGE = format('there are %s sagas "%s" with key "%s"', n, signal_saga.name, signal_saga.key),
      HINT = 'Name the owner of the definition, or signal the saga by its number.';
  END IF;
  RETURN dtx_internal.signal_saga(found_saga, signal_saga.signal, signal_saga.payload);
END
$$;

COMMENT ON FUNCTION dtx_internal.signal_saga(text, text, text, jsonb) IS
  'internal: dtx.signal_saga()';

CREATE OR REPLACE FUNCTION dtx.signal_saga(name text, key text, signal text, payload jsonb DEFAULT NULL) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.signal_saga(text, text, text, jsonb) IS
  'as dtx.signal_saga(), for the saga of that definition (or owner.definition) with that key; an error if there is none (42704), or if several owners have one (42725)';

--
-- External steps of sagas as commands
--

-- The claim, and the command, commit together.  The lease does not end, because nobody
-- knows how long a command waits in a broker: what ends is the step, by its timeout, or the
-- lease of a service that has sent a heartbeat.
CREATE OR REPLACE FUNCTION dtx_internal.relay_dispatch(queue text, relay text, reply_to text, n integer) RETURNS integer
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  c record;
  x record;
  payload jsonb;
  headers jsonb;
  got integer := 0;
BEGIN
  FOR c IN
    SELECT * FROM dtx_internal.saga_claim_steps(relay_dispatch.queue, relay_dispatch.relay, interval '100 years', relay_dispatch.n)
  LOOP
    SELECT s.step, s.compensation, CASE WHEN NOT s.compensation THEN s.since + d.timeout END AS deadline INTO STRICT x
      FROM dtx_internal.saga_external e
      JOIN dtx_internal.saga_step_record s ON s.saga = e.saga AND s.step = e.step
      JOIN dtx_internal.saga_record g ON g.id = e.saga
      JOIN dtx_internal.saga_definition_step_record d ON d.definition = g.definition AND d.step = s.step
     WHERE e.token = c.token;
    payload := jsonb_build_object('saga', c.saga, 'name', c.name, 'step', c.step, 'action', c.action, 'attempt', c.attempt,
                 'payload', c.payload, 'input', c.input, 'results', c.results, 'idempotency_key', c.idempotency_key, 'deadline', x.deadline);
    headers := jsonb_strip_nulls(jsonb_build_object('correlation_id', c.token, 'reply_to', relay_dispatch.reply_to, 'saga', c.saga::text, 'step', c.step,
                 'action', c.action, 'attempt', c.attempt::text, 'idempotency_key', c.idempotency_key, 'deadline', to_jsonb(x.deadline)));
    INSERT INTO dtx_internal.command_record (token, saga, step, compensation, queue, at, payload, headers)
    VALUES (c.token, c.saga, x.step, x.compensation, relay_dispatch.queue, clock_timestamp(), payload, headers);
    PERFORM dtx_internal.outbox_insert('dtx.step.' || relay_dispatch.queue, c.saga::text, c.action, payload, headers);
    got := got + 1;
  END LOOP;
  RETURN got;
END
$$;

COMMENT ON FUNCTION dtx_internal.relay_dispatch(text, text, text, integer) IS
  'internal: dtx.relay_dispatch()';

CREATE OR REPLACE FUNCTION dtx.relay_dispatch(queue text, relay text, reply_to text, n integer) RETURNS integer
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.relay_dispatch(text, text, text, integer) IS
  'writes commands for steps that wait in a queue, n at most, into dtx.outbox, and returns their number; for pg_dtx_relay';

-- Replies: ok, retry, failed, heartbeat.  The first one that ends the step counts.
CREATE OR REPLACE FUNCTION dtx_internal.relay_reply(message jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  headers jsonb := relay_reply.message->'headers';
  data jsonb := CASE WHEN jsonb_typeof(relay_reply.message->'data') = 'object' THEN relay_reply.message->'data' ELSE '{}' END;
  status text := coalesce(headers->>'status', data->>'status');
  this_token uuid := coalesce(headers->>'correlation_id', data->>'correlation_id');
  error text := coalesce(headers->>'error', data->>'error', 'the service has not said why');
  c dtx_internal.command_record;
  undo dtx_internal.command_record;
BEGIN
  IF this_token IS NULL OR coalesce(status NOT IN ('ok', 'retry', 'failed', 'heartbeat'), true) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'message is no reply to a command',
      DETAIL = 'It needs a correlation_id, and a status of ok, retry, failed, or heartbeat.';
  END IF;
  SELECT r.* INTO c FROM dtx_internal.command_record r WHERE r.token = this_token;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = format('there was no command with correlation_id %s', this_token);
  END IF;
  PERFORM dtx_internal.saga_see(c.saga);
  BEGIN
    CASE status
      WHEN 'ok' THEN
        -- (one that is late is dealt with below)
        PERFORM dtx_internal.saga_complete(this_token, coalesce(data->'result', CASE WHEN NOT data ? 'status' THEN nullif(relay_reply.message->'data', 'null') END));
      WHEN 'retry' THEN
        PERFORM dtx_internal.fail_step(this_token, error, true, coalesce(headers->>'retry_after', data->>'retry_after')::interval);
      WHEN 'failed' THEN
        PERFORM dtx_internal.fail_step(this_token, error, false, NULL);
      WHEN 'heartbeat' THEN
        PERFORM dtx_internal.heartbeat_step(this_token, coalesce(headers->>'lease', data->>'lease')::interval);
    END CASE;
    IF status <> 'heartbeat' THEN
      UPDATE dtx_internal.command_record r SET replied_at = clock_timestamp() WHERE r.token = c.token;
    END IF;
    RETURN status;
  EXCEPTION
    WHEN object_not_in_prerequisite_state THEN
      -- (the lease is over: the step has ended otherwise)
      IF EXISTS (SELECT FROM dtx_internal.saga_external e WHERE e.token = c.token AND e.available_at > clock_timestamp()) THEN
        RAISE;
      END IF;
  END;
  IF status <> 'ok' OR c.replied_at IS NOT NULL THEN
    RETURN 'late';
  END IF;

  -- It was done after all, after the step was given up.  (saga_complete() has not told the
  -- scheduler: it is undone again here, which is no damage.)
  INSERT INTO dtx_internal.saga_history_record (saga, step, action, outcome, message, started_at, finished_at, by_whom)
  VALUES (c.saga, c.step, CASE WHEN c.compensation THEN 'compensate' ELSE 'execute' END, 'late',
          'reply "ok" has come after the step had ended', c.at, clock_timestamp(), 'queue ' || c.queue);
  UPDATE dtx_internal.command_record r SET replied_at = clock_timestamp() WHERE r.token = c.token;
  IF NOT c.compensation THEN
    -- Who was told to undo it may have found nothing then.
    SELECT r.* INTO undo FROM dtx_internal.command_record r
     WHERE r.saga = c.saga AND r.step = c.step AND r.compensation ORDER BY r.at DESC LIMIT 1;
    IF FOUND THEN
      PERFORM dtx_internal.outbox_insert('dtx.step.' || undo.queue, c.saga::text, 'compensate', undo.payload, undo.headers);
      RETURN 'late, undone again';
    END IF;
  END IF;
  RETURN 'late';
END
$$;

COMMENT ON FUNCTION dtx_internal.relay_reply(jsonb) IS
  'internal: dtx.relay_reply()';

CREATE OR REPLACE FUNCTION dtx.relay_reply(message jsonb) RETURNS text
AS 'MODULE_PATHNAME', 'dtx_sql_saga_call'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.relay_reply(jsonb) IS
  'a service has replied to a command: what it said, or late if the step had ended before; for pg_dtx_relay';
