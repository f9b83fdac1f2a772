--
-- Events for message brokers, and messages from them; the test is the relay.  t/140 to
-- t/142 have one, and brokers.
--
\set SHOW_CONTEXT never
CALL end_all();
-- No workers: the test is the workers.
ALTER SYSTEM SET pg_dtx.saga_workers = 0;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n = 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
CREATE ROLE regress_dtx_relay;
SELECT dtx.grant_relay('regress_dtx_relay');
-- which is all that it may
SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'dtx'::regnamespace
	AND EXISTS (SELECT FROM aclexplode(p.proacl) a WHERE a.grantee = 'regress_dtx_relay'::regrole)
ORDER BY p.oid::regprocedure::text COLLATE "C";
CREATE FUNCTION taken(n int DEFAULT 100, envelope text DEFAULT 'raw', pattern text DEFAULT '%', buckets smallint[] DEFAULT NULL, after bigint DEFAULT 0)
RETURNS SETOF dtx.relay_event LANGUAGE sql AS $$
	SELECT t.* FROM (SELECT array_agg(b::smallint) AS all FROM generate_series(0, 63) b) x,
		dtx.relay_take(coalesce(buckets, x.all), array_fill(after, ARRAY[64]), ARRAY['rule one', pattern], ARRAY['raw', envelope], '/shop', n) t
$$;

-- publishing
SELECT dtx.publish('order', '7', 'created', '{"n": 1}', '{"trace": "abc"}') IS NOT NULL AS id;
BEGIN;
SELECT dtx.publish('order', '8', 'created') IS NOT NULL AS id;
ROLLBACK;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT dtx.publish('order', '7', 'paid', '{"n": 2}') IS NOT NULL AS id;
COMMIT;
SELECT aggregatetype, aggregateid, type, payload, headers, bucket BETWEEN 0 AND 63 AS bucket FROM dtx.outbox ORDER BY seq;
SELECT count(DISTINCT bucket) FROM dtx.outbox;
\set VERBOSITY terse
SELECT dtx.publish('', '7', 'created');
SELECT dtx.publish('order', NULL, 'created');
SELECT dtx.publish(repeat('x', 256), '7', 'created');
SELECT dtx.publish('order', '7', 'created', '{}', '[]');
SELECT dtx.publish('order', '7', 'created', '{}', '{"a": 1}');
\set VERBOSITY default
SELECT dtx.publish('dtx.step.hotels', '7', 'execute');
SET ROLE regress_dtx_relay;
SELECT dtx.publish('order', '7', 'created');
SELECT count(*) FROM dtx.outbox;
SELECT count(*) FROM dtx.inbox;
RESET ROLE;

-- taking: in which form, and what
SET ROLE regress_dtx_relay;
SELECT dtx.relay_hello('r1', 'rabbit', 'out');
RESET ROLE;
SELECT rule, aggregatetype, aggregateid, type, content_type, body, header_names, regexp_replace(header_values::text, '[0-9a-f-]{36}', 'ID') AS values FROM taken();
SELECT body, header_names, regexp_replace(regexp_replace(header_values::text, '[0-9a-f-]{36}', 'ID'), '20[-0-9T:.]+Z', 'TIME') AS values FROM taken(envelope => 'cloudevents');
SELECT content_type, regexp_replace(regexp_replace(body, '[0-9a-f-]{36}', 'ID'), '20[-0-9T:.]+Z', 'TIME') AS body, header_names FROM taken(envelope => 'cloudevents-structured');
SELECT body, header_names FROM taken(envelope => 'debezium');
SELECT count(*) FROM taken(pattern => 'payment%');
SELECT count(*) FROM taken(pattern => 'ord__');
SELECT type FROM taken(1);
SELECT count(*) FROM taken(buckets => ARRAY[(SELECT (min(bucket) + 1) & 63 FROM dtx.outbox)]::smallint[]);
SELECT count(*) FROM taken(after => (SELECT max(seq) FROM dtx.outbox));
-- in the order of all buckets, and of each its share
SELECT dtx.publish('item', i::text, 'counted', to_jsonb(i)) IS NULL AS id FROM generate_series(1, 200) i GROUP BY 1;
SELECT count(*) > 100 AS all, string_agg(e.seq::text, ',' ORDER BY e.ordinality) = string_agg(e.seq::text, ',' ORDER BY e.seq) AS ordered
FROM taken(1000) WITH ORDINALITY e;
SELECT count(*) BETWEEN 20 AND 64 AS shares FROM taken(64);
-- what was confirmed is gone
SELECT dtx.relay_done(ARRAY(SELECT id FROM taken(1000, pattern => 'item')));
SELECT type FROM taken();
SELECT dtx.relay_done('{00000000-0000-0000-0000-000000000000}');
-- what is below the position when nothing older runs was published or rolled back
SELECT p.seq = (SELECT last_value FROM dtx.outbox_seq_seq) AS last, p.xid > p.oldest OR p.xid = p.oldest AS later FROM dtx.relay_position() p;

-- given up, and yet published
SELECT id FROM taken(1) \gset
SELECT dtx.relay_bury(:'id', 'NOT_FOUND - no exchange');
SELECT dtx.relay_bury(:'id', 'NOT_FOUND - no exchange');
SELECT aggregatetype, type, payload, headers, reason, relay FROM dtx.outbox_dead;
SELECT waiting, oldest < now() AS old, dead, relays FROM dtx.outbox_stat;
SELECT dtx.republish(:'id') = :'id' AS same;
\set VERBOSITY terse
\set VERBOSITY sqlstate
SELECT dtx.republish(gen_random_uuid());
\set VERBOSITY terse
SELECT dtx.republish(NULL);
\set VERBOSITY default
SELECT type FROM taken();

-- relays tell of themselves
SELECT dtx.relay_beat(64, 2, 1, 0, 'connection refused');
SELECT name, relay_group, direction, pid = pg_backend_pid() AS me, buckets, done, failed, dead, last_done_at IS NOT NULL AS did, error, error_at IS NOT NULL AS erred FROM dtx.relays;
SELECT dtx.relay_beat(64, 3, 1, 0, NULL);
SELECT error, error_at FROM dtx.relays;
-- those that are gone are not shown, nor counted
INSERT INTO dtx_internal.relay_record (pid, backend_start, name, relay_group, direction, seen_at) VALUES (1, now(), 'gone', 'rabbit', 'out', now());
SELECT dtx.relay_beat(64, 3, 1, 0, NULL);
SELECT name FROM dtx.relays;
SELECT dtx.relay_hello('r1', 'rabbit', 'out');
SELECT name FROM dtx_internal.relay_record;
SELECT dtx.relay_hello('', 'rabbit', 'out');
SELECT dtx.purge_outbox('1 hour');
SELECT dtx.purge_outbox('0');
SELECT dtx.purge_outbox(NULL);

-- a limit
ALTER SYSTEM SET pg_dtx.outbox_limit = 10;
SELECT pg_reload_conf();
SELECT dtx.publish('item', i::text, 'counted') IS NULL AS id FROM generate_series(1, 12) i GROUP BY 1;
\c
\set SHOW_CONTEXT never
DO $$ BEGIN
	FOR i IN 1 .. 600 LOOP
		PERFORM pg_stat_clear_snapshot();
		EXIT WHEN current_setting('pg_dtx.outbox_limit') = '10' AND pg_stat_get_live_tuples('dtx.outbox'::regclass) >= 10;
		PERFORM pg_sleep(0.1);
	END LOOP;
END $$;
SELECT dtx.publish('item', '1', 'counted');
ALTER SYSTEM RESET pg_dtx.outbox_limit;
SELECT pg_reload_conf();
SELECT dtx.purge_outbox('0');

-- messages have their effect once
SELECT dtx.relay_receive('orders', 'm1');
SELECT dtx.relay_receive('orders', 'm1');
SELECT dtx.relay_receive('other', 'm1');
BEGIN;
SELECT dtx.relay_receive('orders', 'm2');
ROLLBACK;
SELECT dtx.relay_receive('orders', 'm2');
SELECT dtx.relay_receive('orders', NULL);
SELECT dtx.relay_receive('orders', '');
SELECT dtx.relay_receive('orders', repeat('x', 2000));
SELECT source, message_id FROM dtx.inbox ORDER BY 1, 2;
SELECT dtx.relay_prune('1 second');
SELECT dtx.relay_prune('1 hour');
UPDATE dtx_internal.inbox_record SET at = at - interval '2 hours' WHERE source = 'other';
SELECT dtx.relay_prune('1 hour');
SELECT source, message_id FROM dtx.inbox ORDER BY 1, 2;
-- whatever form they have
SELECT dtx.relay_message('raw', 'm1', 'k', 'created', 'application/json', '{"a": [1]}', '{h}', '{v}');
SELECT dtx.relay_message('raw', 'm1', NULL, NULL, 'text/plain; charset=utf-8', 'hello', '{id,type}', '{m2,said}');
SELECT dtx.relay_message('raw', NULL, NULL, NULL, NULL, '', NULL, NULL);
SELECT dtx.relay_message('cloudevents', 'x', NULL, NULL, 'application/cloudevents+json; charset=utf-8',
	'{"specversion": "1.0", "id": "c1", "source": "/a", "type": "t", "subject": "s", "data": {"b": 2}}', NULL, NULL);
SELECT dtx.relay_message('cloudevents', 'x', 'k', NULL, 'application/json', '{"b": 2}',
	'{cloudEvents:specversion,cloudEvents:id,cloudEvents:source,cloudEvents:type,other}', '{1.0,c1,/a,t,o}');
SELECT dtx.relay_message('cloudevents', 'x', 'k', NULL, 'application/json', '{"b": 2}', '{ce_specversion,ce_id,ce_source,ce_type}', '{1.0,c1,/a,t}')->'id' AS id;
SELECT dtx.relay_message('cloudevents', 'x', NULL, NULL, 'application/cloudevents+json',
	'{"specversion": "1.0", "id": "c1", "source": "/a", "type": "t", "data_base64": "aGVsbG8="}', NULL, NULL)->'data' AS data;
SELECT dtx.relay_message('debezium', NULL, 'k', NULL, NULL, '{"schema": {}, "payload": "{\"a\": 1}"}', '{id,eventType}', '{d1,created}');
\set VERBOSITY terse
SELECT dtx.relay_message('cloudevents', 'x', NULL, NULL, 'application/json', '{}', NULL, NULL);
SELECT dtx.relay_message('raw', 'm1', NULL, NULL, NULL, 'no json', NULL, NULL);
\set VERBOSITY default

-- a saga by its key
SELECT dtx.define_saga('wait', dtx.step_signal('go'));
SELECT dtx.start_saga('wait', key => 'w1') IS NOT NULL AS id;
SELECT dtx.signal_saga('wait', 'w1', 'go', '{"x": 1}');
SELECT dtx.signal_saga(current_user || '.wait', 'w1', 'go');
\set VERBOSITY terse
SELECT dtx.signal_saga('wait', 'w2', 'go');
SELECT dtx.signal_saga('no_such_role.wait', 'w1', 'go');
\set VERBOSITY default

-- external steps as commands
SELECT dtx.define_saga('travel',
	dtx.step_external('hotel', 'hotels', '{"stars": 3}', compensate_queue => 'cancellations', timeout => '1 day', backoff => '10 ms'),
	dtx.step_external('flight', 'flights', max_attempts => 1));
CREATE FUNCTION command(which text) RETURNS uuid LANGUAGE sql AS
	$$ SELECT (headers->>'correlation_id')::uuid FROM dtx.outbox WHERE aggregatetype = 'dtx.step.' || which ORDER BY seq DESC LIMIT 1 $$;
CREATE FUNCTION reply(which text, status text, more jsonb DEFAULT '{}') RETURNS text LANGUAGE sql AS
	$$ SELECT dtx.relay_reply(jsonb_build_object('headers', jsonb_build_object('correlation_id', command(which), 'status', status), 'data', more)) $$;
SELECT dtx.start_saga('travel', '{"who": "eva"}', key => 't1') AS id \gset
SELECT step FROM take();
SELECT dtx.relay_dispatch('hotels', 'r1', 'replies', 10);
SELECT dtx.relay_dispatch('hotels', 'r1', 'replies', 10);
SELECT aggregatetype, aggregateid = :'id' AS saga, type, payload - 'saga' - 'idempotency_key' - 'deadline' AS payload,
	(SELECT array_agg(k ORDER BY k) FROM jsonb_object_keys(headers) k) AS headers, headers->>'reply_to' AS reply_to FROM dtx.outbox;
SELECT step, state, attempts, worker FROM dtx.saga_steps WHERE saga = :id AND step = 'hotel';
SELECT reply('hotels', 'heartbeat', '{"lease": "1 hour"}');
SELECT reply('hotels', 'retry', '{"error": "busy"}');
SELECT pg_sleep(0.05);
SELECT dtx.relay_dispatch('hotels', 'r1', 'replies', 10);
SELECT reply('hotels', 'ok', '{"result": {"booking": "H1"}}');
SELECT reply('hotels', 'ok', '{"result": {"booking": "H2"}}');
SELECT step, state, attempts, result FROM dtx.saga_steps WHERE saga = :id AND step = 'hotel';
SELECT step FROM take();
SELECT dtx.relay_dispatch('flights', 'r1', 'replies', 10);
SELECT reply('flights', 'failed', '{"error": "full"}');
SELECT step FROM take();
SELECT dtx.relay_dispatch('cancellations', 'r1', 'replies', 10);
SELECT type FROM dtx.outbox WHERE aggregatetype = 'dtx.step.cancellations';
SELECT reply('cancellations', 'ok');
SELECT state, reason FROM dtx.sagas WHERE id = :id;
-- done after the step was given up: undone again
SELECT dtx.start_saga('travel', key => 't2') AS id \gset
SELECT step FROM take();
SELECT dtx.relay_dispatch('hotels', 'r1', 'replies', 10);
SELECT later(:id) > 0 AS later;
SELECT step FROM take();
SELECT dtx.relay_dispatch('cancellations', 'r1', 'replies', 10);
SELECT reply('cancellations', 'ok');
SELECT count(*) FROM dtx.outbox WHERE aggregatetype = 'dtx.step.cancellations' AND headers->>'correlation_id' = command('cancellations')::text;
SELECT reply('hotels', 'ok', '{"result": {"booking": "H3"}}');
SELECT count(*) FROM dtx.outbox WHERE aggregatetype = 'dtx.step.cancellations' AND headers->>'correlation_id' = command('cancellations')::text;
SELECT reply('hotels', 'ok', '{"result": {"booking": "H3"}}');
SELECT step, action, outcome, message FROM dtx.saga_history WHERE saga = :id AND outcome = 'late';
\set VERBOSITY terse
SELECT reply('hotels', 'maybe');
SELECT reply('nobody', 'ok');
SELECT dtx.relay_reply('{"headers": {"correlation_id": "00000000-0000-0000-0000-000000000000", "status": "ok"}}');
SET ROLE regress_dtx_relay;
SELECT dtx.relay_dispatch('hotels', 'r1', 'replies', 10);
RESET ROLE;
SELECT headers->>'correlation_id' AS token FROM dtx.outbox WHERE aggregatetype = 'dtx.step.hotels' LIMIT 1 \gset
SET ROLE regress_dtx_relay;
\set VERBOSITY sqlstate
SELECT dtx.relay_reply(jsonb_build_object('headers', jsonb_build_object('correlation_id', :'token', 'status', 'ok'))) = '' AS no;
RESET ROLE;
\set VERBOSITY default

-- events of sagas
SELECT dtx.purge_outbox('0') > 0 AS purged;
SET pg_dtx.publish_saga_events = on;
SELECT dtx.start_saga('travel', key => 't3') AS id \gset
SELECT dtx.emit_saga_event(:id, 'noted', '{"x": 1}') IS NOT NULL AS id;
SELECT dtx.cancel_saga(:id, 'changed my mind');
RESET pg_dtx.publish_saga_events;
SELECT dtx.emit_saga_event(:id, 'noted') IS NOT NULL AS id;
SELECT aggregatetype, aggregateid = :'id' AS saga, type, payload - 'saga' - 'at' - 'owner' - 'role' AS payload FROM dtx.outbox ORDER BY seq;
SELECT dtx.purge_outbox('0');
CALL end_all();
DELETE FROM dtx_internal.inbox_record;
DROP FUNCTION taken, command, reply;
DROP OWNED BY regress_dtx_relay;
DROP ROLE regress_dtx_relay;
