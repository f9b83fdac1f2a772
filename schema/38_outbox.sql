--
-- Writing events for message brokers, and what is seen of them.
--

CREATE OR REPLACE FUNCTION dtx_internal.outbox_insert(aggregatetype text, aggregateid text, type text, payload jsonb, headers jsonb) RETURNS uuid
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT dtx_internal.saga_finished(hashtext('dtx.outbox'));
  INSERT INTO dtx.outbox (aggregatetype, aggregateid, type, payload, headers)
  VALUES (outbox_insert.aggregatetype, outbox_insert.aggregateid, outbox_insert.type, outbox_insert.payload,
          coalesce(outbox_insert.headers, '{}'))
  RETURNING id
$$;

COMMENT ON FUNCTION dtx_internal.outbox_insert(text, text, text, jsonb, jsonb) IS
  'internal: writes an event, and wakes relays when it is committed';

CREATE OR REPLACE FUNCTION dtx.publish(aggregatetype text, aggregateid text, type text, payload jsonb DEFAULT NULL, headers jsonb DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  max_events bigint := current_setting('pg_dtx.outbox_limit');
BEGIN
  IF coalesce(publish.aggregatetype, '') = '' OR publish.aggregateid IS NULL OR coalesce(publish.type, '') = '' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'aggregatetype, aggregateid and type are required';
  ELSIF octet_length(publish.aggregatetype) > 255 OR octet_length(publish.aggregateid) > 255 OR octet_length(publish.type) > 255 THEN
    -- (what AMQP has for a routing key)
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'aggregatetype, aggregateid and type must not be longer than 255 bytes';
  ELSIF publish.aggregatetype LIKE 'dtx.%' OR publish.aggregatetype LIKE 'saga.%' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'reserved_name',
      MESSAGE = format('aggregatetype "%s" is reserved', publish.aggregatetype),
      DETAIL = 'What begins with "dtx." or "saga." is written by pg_dtx itself.';
  ELSIF publish.headers IS NOT NULL AND (jsonb_typeof(publish.headers) <> 'object'
     OR EXISTS (SELECT FROM jsonb_each(publish.headers) AS h (k, v) WHERE jsonb_typeof(v) <> 'string' OR octet_length(k) NOT BETWEEN 1 AND 128)) THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'headers must be an object of strings',
      DETAIL = 'Their names have 1 to 128 bytes.';
  ELSIF max_events > 0 AND pg_stat_get_live_tuples('dtx.outbox'::regclass) >= max_events THEN
    RAISE EXCEPTION USING
      ERRCODE = 'configuration_limit_exceeded',
      MESSAGE = format('%s events or more are waiting to be published', max_events),
      HINT = 'See dtx.relays for what keeps the relay from publishing them; pg_dtx.outbox_limit is the limit.';
  END IF;
  RETURN dtx_internal.outbox_insert(publish.aggregatetype, publish.aggregateid, publish.type, publish.payload, publish.headers);
END
$$;

COMMENT ON FUNCTION dtx.publish(text, text, text, jsonb, jsonb) IS
  'writes an event, which pg_dtx_relay publishes if this transaction commits, at least once, events of an aggregate in their order; returns its identifier; errors: 22023 for what is missing or too long (255 bytes), or headers that are no object of strings, 42939 for an aggregatetype that is reserved, 53400 while pg_dtx.outbox_limit events or more wait';

-- An event of a saga, for those who want it on a broker, too.
CREATE OR REPLACE FUNCTION dtx_internal.outbox_saga_event(o dtx_internal.saga_outbox) RETURNS void
LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT dtx_internal.outbox_insert(left('saga.' || (o).name, 250), (o).saga::text, (o).event,
           jsonb_strip_nulls(jsonb_build_object('saga', (o).saga, 'owner', (o).owner::text, 'name', (o).name, 'role', (o).role::text,
             'step', (o).step, 'event', (o).event, 'at', (o).at)) || jsonb_build_object('payload', (o).payload), NULL)
$$;

COMMENT ON FUNCTION dtx_internal.outbox_saga_event(dtx_internal.saga_outbox) IS
  'internal: writes an event of a saga into dtx.outbox';

CREATE OR REPLACE FUNCTION dtx.republish(id uuid) RETURNS uuid
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
  PERFORM dtx_internal.saga_finished(hashtext('dtx.outbox'));
  WITH d AS (
    DELETE FROM dtx_internal.outbox_dead_record AS x WHERE x.id = republish.id
    RETURNING x.*)
  INSERT INTO dtx.outbox (id, aggregatetype, aggregateid, type, payload, headers, at)
  SELECT d.id, d.aggregatetype, d.aggregateid, d.type, d.payload, d.headers, d.at FROM d;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN republish.id IS NULL THEN 'identifier of the event must not be null'
                     ELSE format('there is no event %s that was given up', republish.id) END,
      HINT = 'See dtx.outbox_dead.';
  END IF;
  RETURN republish.id;
END
$$;

COMMENT ON FUNCTION dtx.republish(uuid) IS
  'has an event of dtx.outbox_dead published after all, after those that were written before this transaction; returns its identifier; an error (42704) if it is not there';

CREATE OR REPLACE FUNCTION dtx.purge_outbox(older_than interval) RETURNS bigint
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n bigint;
BEGIN
  IF older_than IS NULL OR older_than < '0' THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_parameter_value',
      MESSAGE = 'age must not be null or negative';
  END IF;
  DELETE FROM dtx.outbox o WHERE o.at < clock_timestamp() - older_than;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END
$$;

COMMENT ON FUNCTION dtx.purge_outbox(interval) IS
  'deletes events that are so old, published or not, and returns their number; for databases whose events Debezium reads, and relays do not delete';

--
-- Views
--

CREATE OR REPLACE VIEW dtx.relays AS
SELECT r.name,
       r.relay_group,
       r.direction,
       r.pid,
       r.backend_start AS connected_at,
       r.seen_at,
       r.buckets,
       r.done,
       r.failed,
       r.dead,
       r.last_done_at,
       r.error,
       r.error_at
  FROM dtx_internal.relay_record AS r
 WHERE EXISTS (SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) AS a WHERE a.backend_start OPERATOR(pg_catalog.=) r.backend_start);

COMMENT ON VIEW dtx.relays IS
  'relays to message brokers that are connected, a row for each direction';
COMMENT ON COLUMN dtx.relays.name IS
  'name of the relay';
COMMENT ON COLUMN dtx.relays.relay_group IS
  'relays of one group share the outbox';
COMMENT ON COLUMN dtx.relays.direction IS
  'out: it publishes events; in: it takes messages';
COMMENT ON COLUMN dtx.relays.pid IS
  'process of the server for its connection';
COMMENT ON COLUMN dtx.relays.connected_at IS
  'since when it is connected';
COMMENT ON COLUMN dtx.relays.seen_at IS
  'when it has told of itself for the last time';
COMMENT ON COLUMN dtx.relays.buckets IS
  'parts of the outbox that it holds, of 64';
COMMENT ON COLUMN dtx.relays.done IS
  'messages that it has published, or that have had their effect, since it is connected';
COMMENT ON COLUMN dtx.relays.failed IS
  'attempts that have failed';
COMMENT ON COLUMN dtx.relays.dead IS
  'messages that it has given up';
COMMENT ON COLUMN dtx.relays.last_done_at IS
  'when it has had success for the last time';
COMMENT ON COLUMN dtx.relays.error IS
  'its last error; null: none since it has had success';
COMMENT ON COLUMN dtx.relays.error_at IS
  'when that was';

CREATE OR REPLACE VIEW dtx.outbox_dead AS
SELECT d.id, d.aggregatetype, d.aggregateid, d.type, d.payload, d.headers, d.at, d.dead_at, d.reason, d.relay
  FROM dtx_internal.outbox_dead_record AS d;

COMMENT ON VIEW dtx.outbox_dead IS
  'events that could not be published for a reason of their own; dtx.republish() has that tried again';
COMMENT ON COLUMN dtx.outbox_dead.id IS
  'identifier of the event';
COMMENT ON COLUMN dtx.outbox_dead.aggregatetype IS
  'kind of the thing that the event is about';
COMMENT ON COLUMN dtx.outbox_dead.aggregateid IS
  'which one of that kind';
COMMENT ON COLUMN dtx.outbox_dead.type IS
  'kind of the event';
COMMENT ON COLUMN dtx.outbox_dead.payload IS
  'what the event says';
COMMENT ON COLUMN dtx.outbox_dead.headers IS
  'more headers of the message';
COMMENT ON COLUMN dtx.outbox_dead.at IS
  'when it was written';
COMMENT ON COLUMN dtx.outbox_dead.dead_at IS
  'when a relay has given it up';
COMMENT ON COLUMN dtx.outbox_dead.reason IS
  'what the broker has said';
COMMENT ON COLUMN dtx.outbox_dead.relay IS
  'name of that relay';

CREATE OR REPLACE VIEW dtx.inbox AS
SELECT i.source, i.message_id, i.at
  FROM dtx_internal.inbox_record AS i;

COMMENT ON VIEW dtx.inbox IS
  'messages from brokers that have had their effect here, which they have not again';
COMMENT ON COLUMN dtx.inbox.source IS
  'where they come from: name of a rule of a relay';
COMMENT ON COLUMN dtx.inbox.message_id IS
  'identifier of the message there';
COMMENT ON COLUMN dtx.inbox.at IS
  'when it had its effect';

CREATE OR REPLACE VIEW dtx.outbox_stat AS
SELECT (SELECT pg_catalog.count(*) FROM (SELECT FROM dtx.outbox LIMIT 100000) AS o) AS waiting,
       (SELECT pg_catalog.min(f.at) FROM pg_catalog.generate_series(0, 63) AS b (bucket)
         CROSS JOIN LATERAL (SELECT o.at FROM dtx.outbox AS o WHERE o.bucket OPERATOR(pg_catalog.=) b.bucket
                              ORDER BY o.seq LIMIT 1) AS f) AS oldest,
       pg_catalog.pg_table_size('dtx.outbox'::pg_catalog.regclass) AS bytes,
       (SELECT pg_catalog.count(*) FROM dtx_internal.outbox_dead_record) AS dead,
       (SELECT pg_catalog.count(*) FROM dtx.relays AS r WHERE r.direction OPERATOR(pg_catalog.=) 'out') AS relays;

COMMENT ON VIEW dtx.outbox_stat IS
  'how many events wait to be published, and for how long';
COMMENT ON COLUMN dtx.outbox_stat.waiting IS
  'events that wait; 100,000 if there are more';
COMMENT ON COLUMN dtx.outbox_stat.oldest IS
  'when the one was written that waits longest; null: none';
COMMENT ON COLUMN dtx.outbox_stat.bytes IS
  'size of the table on disk';
COMMENT ON COLUMN dtx.outbox_stat.dead IS
  'events that were given up';
COMMENT ON COLUMN dtx.outbox_stat.relays IS
  'relays that are connected to publish events';
