--
-- Rows that functions return.
--

CREATE TYPE dtx.server_check AS (
  "check" text,
  ok boolean,
  detail text,
  hint text
);
COMMENT ON TYPE dtx.server_check IS
  'what dtx.check_server() has looked at, and found';

CREATE TYPE dtx.resolution AS (
  server name,
  gid text,
  decision text,
  done boolean,
  error text
);
COMMENT ON TYPE dtx.resolution IS
  'what dtx.resolve_in_doubt() has done, or could not do';

CREATE TYPE dtx.claimed_step AS (
  token uuid,
  saga bigint,
  name text,
  step text,
  action text,
  attempt integer,
  payload jsonb,
  input jsonb,
  results jsonb,
  lease_until timestamptz
);
COMMENT ON TYPE dtx.claimed_step IS
  'a step that dtx.claim_step() gives an external worker';

CREATE TYPE dtx.saga_event AS (
  id bigint,
  saga bigint,
  owner name,
  name text,
  role name,
  event text,
  at timestamptz,
  payload jsonb
);
COMMENT ON TYPE dtx.saga_event IS
  'an event of a saga, from dtx.take_saga_events()';

CREATE TYPE dtx.finding AS (
  server name,
  roles name[],
  "check" text,
  detail text,
  hint text
);
COMMENT ON TYPE dtx.finding IS
  'what dtx.check() has found wrong: at which server (null: here), through whose user mappings, and what to do';
