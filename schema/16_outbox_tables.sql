--
-- What goes to message brokers, and what has come from them (docs/broker.md).  The functions
-- of 38_outbox.sql and 39_relay.sql change it.
--

--
-- Events.  Debezium reads this table as it is, so it is in schema dtx, with the names of
-- columns of its outbox event router.  Not dumped: a copy must not publish them again.
--
-- In which order they are published: that of seq, among those that are committed.  Who
-- writes an event of an aggregate that he has locked gets a higher number than those before
-- him, and what he saw committed everybody sees who sees his event.  (The order of xid says
-- nothing: a transaction may have got its xid long before it has waited for that lock.)
--
-- xid comes before seq, because defaults are evaluated in the order of columns: who has a
-- number has an xid already (see dtx.relay_position()).
--
CREATE TABLE dtx.outbox (
  id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
  xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
  seq bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
  aggregatetype text NOT NULL,
  aggregateid text NOT NULL,
  type text NOT NULL,
  payload jsonb,
  headers jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(headers) OPERATOR(pg_catalog.=) 'object'),
  at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
  bucket smallint NOT NULL GENERATED ALWAYS AS (
    CAST(pg_catalog.hashtextextended(aggregateid, pg_catalog.hashtextextended(aggregatetype, 0)) OPERATOR(pg_catalog.&) 63 AS smallint)) STORED
) USING heap WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE UNIQUE INDEX outbox_queue ON dtx.outbox (bucket, seq);

COMMENT ON TABLE dtx.outbox IS
  'events that are not published yet, for pg_dtx_relay or Debezium; written by dtx.publish()';
COMMENT ON SEQUENCE dtx.outbox_seq_seq IS
  'numbers of events';
COMMENT ON COLUMN dtx.outbox.id IS
  'identifier of the event, the same each time it is published';
COMMENT ON COLUMN dtx.outbox.xid IS
  'transaction that has written it';
COMMENT ON COLUMN dtx.outbox.seq IS
  'number of the event; events of an aggregate are published in this order, if they were not written at the same time';
COMMENT ON COLUMN dtx.outbox.aggregatetype IS
  'kind of the thing that the event is about; what rules of relays, and routes of Debezium, go by';
COMMENT ON COLUMN dtx.outbox.aggregateid IS
  'which one of that kind; the key of the message';
COMMENT ON COLUMN dtx.outbox.type IS
  'kind of the event';
COMMENT ON COLUMN dtx.outbox.payload IS
  'what the event says';
COMMENT ON COLUMN dtx.outbox.headers IS
  'more headers of the message, an object of strings';
COMMENT ON COLUMN dtx.outbox.at IS
  'when it was written';
COMMENT ON COLUMN dtx.outbox.bucket IS
  'which part of the outbox it is in; events of an aggregate are in the same one';

-- Events that no broker takes.
CREATE TABLE dtx_internal.outbox_dead_record (
  id uuid PRIMARY KEY,
  seq bigint NOT NULL,
  aggregatetype text NOT NULL,
  aggregateid text NOT NULL,
  type text NOT NULL,
  payload jsonb,
  headers jsonb NOT NULL,
  at timestamptz NOT NULL,
  dead_at timestamptz NOT NULL,
  reason text NOT NULL,
  relay text NOT NULL
) USING heap;

COMMENT ON TABLE dtx_internal.outbox_dead_record IS
  'events that could not be published for a reason of their own; see view dtx.outbox_dead';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.id IS
  'dtx.outbox.id';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.seq IS
  'dtx.outbox.seq';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.aggregatetype IS
  'dtx.outbox.aggregatetype';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.aggregateid IS
  'dtx.outbox.aggregateid';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.type IS
  'dtx.outbox.type';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.payload IS
  'dtx.outbox.payload';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.headers IS
  'dtx.outbox.headers';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.at IS
  'dtx.outbox.at';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.dead_at IS
  'when a relay has given it up';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.reason IS
  'what the broker has said';
COMMENT ON COLUMN dtx_internal.outbox_dead_record.relay IS
  'name of that relay';

-- Messages that have had their effect.
CREATE TABLE dtx_internal.inbox_record (
  source text NOT NULL,
  message_id text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (source, message_id)
) USING heap;

CREATE INDEX inbox_age ON dtx_internal.inbox_record (at);

SELECT pg_catalog.pg_extension_config_dump('dtx_internal.inbox_record', '');

COMMENT ON TABLE dtx_internal.inbox_record IS
  'messages that have had their effect here, which they have not again; see view dtx.inbox';
COMMENT ON COLUMN dtx_internal.inbox_record.source IS
  'where they come from: name of a rule of a relay';
COMMENT ON COLUMN dtx_internal.inbox_record.message_id IS
  'identifier of the message there';
COMMENT ON COLUMN dtx_internal.inbox_record.at IS
  'when it had its effect';

-- Relays that run, or ran: a row for each connection.
CREATE TABLE dtx_internal.relay_record (
  pid integer PRIMARY KEY,
  backend_start timestamptz NOT NULL,
  name text NOT NULL,
  relay_group text NOT NULL,
  direction text NOT NULL CHECK (direction IN ('out', 'in')),
  seen_at timestamptz NOT NULL,
  buckets integer NOT NULL DEFAULT 0,
  done bigint NOT NULL DEFAULT 0,
  failed bigint NOT NULL DEFAULT 0,
  dead bigint NOT NULL DEFAULT 0,
  last_done_at timestamptz,
  error text,
  error_at timestamptz
) USING heap WITH (fillfactor = 50);

COMMENT ON TABLE dtx_internal.relay_record IS
  'relays; see view dtx.relays';
COMMENT ON COLUMN dtx_internal.relay_record.pid IS
  'process of the server for the connection of the relay';
COMMENT ON COLUMN dtx_internal.relay_record.backend_start IS
  'when that was started';
COMMENT ON COLUMN dtx_internal.relay_record.name IS
  'name of the relay';
COMMENT ON COLUMN dtx_internal.relay_record.relay_group IS
  'relays of one group share the outbox';
COMMENT ON COLUMN dtx_internal.relay_record.direction IS
  'out: it publishes events; in: it takes messages';
COMMENT ON COLUMN dtx_internal.relay_record.seen_at IS
  'when it has told of itself for the last time';
COMMENT ON COLUMN dtx_internal.relay_record.buckets IS
  'parts of the outbox that it holds';
COMMENT ON COLUMN dtx_internal.relay_record.done IS
  'messages that it has published, or that have had their effect, since it is connected';
COMMENT ON COLUMN dtx_internal.relay_record.failed IS
  'attempts that have failed';
COMMENT ON COLUMN dtx_internal.relay_record.dead IS
  'messages that it has given up';
COMMENT ON COLUMN dtx_internal.relay_record.last_done_at IS
  'when it has had success for the last time';
COMMENT ON COLUMN dtx_internal.relay_record.error IS
  'its last error; null: none since it has had success';
COMMENT ON COLUMN dtx_internal.relay_record.error_at IS
  'when that was';

-- Steps of sagas that were sent as commands.
CREATE TABLE dtx_internal.command_record (
  token uuid PRIMARY KEY,
  saga bigint NOT NULL,
  step smallint NOT NULL,
  compensation boolean NOT NULL,
  queue text NOT NULL,
  at timestamptz NOT NULL,
  payload jsonb NOT NULL,
  headers jsonb NOT NULL,
  replied_at timestamptz
) USING heap WITH (fillfactor = 70);

CREATE INDEX command_step ON dtx_internal.command_record (saga, step);

CREATE INDEX command_age ON dtx_internal.command_record (at);

COMMENT ON TABLE dtx_internal.command_record IS
  'steps of sagas that were sent to external services as commands';
COMMENT ON COLUMN dtx_internal.command_record.token IS
  'dtx_internal.saga_external.token; correlation id of the command';
COMMENT ON COLUMN dtx_internal.command_record.saga IS
  'dtx_internal.saga_record.id';
COMMENT ON COLUMN dtx_internal.command_record.step IS
  'number of the step in its definition';
COMMENT ON COLUMN dtx_internal.command_record.compensation IS
  'was it its compensation?';
COMMENT ON COLUMN dtx_internal.command_record.queue IS
  'name of the queue';
COMMENT ON COLUMN dtx_internal.command_record.at IS
  'when it was sent';
COMMENT ON COLUMN dtx_internal.command_record.payload IS
  'payload of the command';
COMMENT ON COLUMN dtx_internal.command_record.headers IS
  'its headers';
COMMENT ON COLUMN dtx_internal.command_record.replied_at IS
  'when the reply came that counts';

CREATE TYPE dtx.relay_event AS (
  id uuid,
  seq bigint,
  bucket smallint,
  rule integer,
  aggregatetype text,
  aggregateid text,
  type text,
  at timestamptz,
  content_type text,
  body text,
  header_names text[],
  header_values text[]
);

COMMENT ON TYPE dtx.relay_event IS
  'an event as a relay publishes it';
