--
-- Types of sagas (see docs/sagas.md).
--

CREATE TYPE dtx.saga_state AS ENUM (
  'pending', 'running', 'completed', 'compensating', 'compensated', 'failed'
);

COMMENT ON TYPE dtx.saga_state IS
  'state of a saga; failed: only an operator can decide how to go on';

CREATE TYPE dtx.saga_step_state AS ENUM (
  'pending', 'running', 'waiting', 'completed', 'failed', 'skipped', 'compensating', 'compensated'
);

COMMENT ON TYPE dtx.saga_step_state IS
  'state of a step of a saga; waiting: for its time, for a signal, or for an external worker';

--
-- A role in a table.  It is stored as its OID, so that it can be renamed, and goes in
-- and out as its name, never as a number: in a dump, or a logical replica, the number
-- of a role that was dropped would be another one.  A role that does not exist is
-- nobody ('-', zero): nobody can act for it but superusers, and nothing runs as it.
--

CREATE TYPE dtx_internal.saga_role;

CREATE FUNCTION dtx_internal.saga_role_in(cstring) RETURNS dtx_internal.saga_role
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_in'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_role_in(cstring) IS 'I/O';

CREATE FUNCTION dtx_internal.saga_role_out(dtx_internal.saga_role) RETURNS cstring
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_out'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_role_out(dtx_internal.saga_role) IS 'I/O';

CREATE FUNCTION dtx_internal.saga_role_recv(internal) RETURNS dtx_internal.saga_role
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_recv'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_role_recv(internal) IS 'I/O';

CREATE FUNCTION dtx_internal.saga_role_send(dtx_internal.saga_role) RETURNS bytea
AS 'MODULE_PATHNAME', 'dtx_sql_saga_role_send'
LANGUAGE C STABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_role_send(dtx_internal.saga_role) IS 'I/O';

CREATE TYPE dtx_internal.saga_role (
  INPUT = dtx_internal.saga_role_in,
  OUTPUT = dtx_internal.saga_role_out,
  RECEIVE = dtx_internal.saga_role_recv,
  SEND = dtx_internal.saga_role_send,
  LIKE = pg_catalog.oid
);

COMMENT ON TYPE dtx_internal.saga_role IS
  'a role in a table: its OID, which goes in and out as its name; - if there is no such role';

CREATE CAST (dtx_internal.saga_role AS pg_catalog.oid) WITHOUT FUNCTION AS IMPLICIT;

COMMENT ON CAST (dtx_internal.saga_role AS pg_catalog.oid) IS 'the OID of the role';

CREATE CAST (pg_catalog.oid AS dtx_internal.saga_role) WITHOUT FUNCTION AS ASSIGNMENT;

COMMENT ON CAST (pg_catalog.oid AS dtx_internal.saga_role) IS 'the role of that OID';

--
-- What a definition is made of: values of these types are arguments of
-- dtx.define_saga().
--

CREATE TYPE dtx.statement_spec AS (
  server name,
  execute text,
  compensate text,
  min_rows integer
);

COMMENT ON TYPE dtx.statement_spec IS
  'one statement of a step; made by dtx.statement()';

CREATE TYPE dtx.retry_policy AS (
  factor double precision,
  maximum interval,
  jitter double precision,
  always text[],
  never text[]
);

COMMENT ON TYPE dtx.retry_policy IS
  'when a step that has failed is tried again; made by dtx.retry()';

CREATE TYPE dtx.step_spec AS (
  name text,
  action text,
  kind text,
  after text[],
  servers name[],
  execute text[],
  compensate text[],
  min_rows integer[],
  max_attempts integer,
  compensate_attempts integer,
  backoff interval,
  timeout interval,
  delay interval,
  queue text,
  payload jsonb,
  compensate_queue text,
  max_outage interval,
  event text,
  condition text,
  expression text,
  saga text,
  version integer,
  parallel integer,
  retry dtx.retry_policy,
  count integer
);

COMMENT ON TYPE dtx.step_spec IS
  'one step of a saga for dtx.define_saga(); made by dtx.step() and its relatives';
