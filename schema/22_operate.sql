--
-- What administrators call, about transactions and servers.
--

CREATE OR REPLACE FUNCTION dtx.reset_stat() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_stat_reset'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.reset_stat() IS
  'sets the counters of dtx.stat to zero';

CREATE OR REPLACE FUNCTION dtx.check_server(server name, role name DEFAULT CURRENT_USER) RETURNS SETOF dtx.server_check
AS 'MODULE_PATHNAME', 'dtx_sql_check_server'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 8 COST 10000;

COMMENT ON FUNCTION dtx.check_server(name, name) IS
  'checks whether a foreign server is ready for commits in two phases, through the user mapping of a role whose privileges the caller has, and who needs USAGE on it; an error if it is no server of postgres_fdw';

CREATE OR REPLACE FUNCTION dtx.resolve_in_doubt() RETURNS SETOF dtx.resolution
AS 'MODULE_PATHNAME', 'dtx_sql_resolve'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE ROWS 10 COST 10000;

COMMENT ON FUNCTION dtx.resolve_in_doubt() IS
  'finishes now what is in doubt on all servers of this database; a row for each prepared transaction, and for each server that could not be visited; done at once, and not undone by ROLLBACK; an error if pg_dtx.resolver is off';

CREATE OR REPLACE FUNCTION dtx.confirm_server(
  server name,
  all_mappings boolean DEFAULT false,
  expected_options text[] DEFAULT NULL
) RETURNS integer
AS 'MODULE_PATHNAME', 'dtx_sql_confirm_server'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx.confirm_server(name, boolean, text[]) IS
  'lets the resolver connect to where a foreign server leads now (with expected_options, ''host=…'', ''port=…'', only if it has these), through the user mappings that were used there or through all of them, with their passwords; returns how many that are; superusers only';

CREATE OR REPLACE FUNCTION dtx.force_in_doubt(
  gid text,
  decision text,
  reason text,
  override boolean DEFAULT false
) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_force'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION dtx.force_in_doubt(text, text, text, boolean) IS
  'finishes one prepared foreign transaction by hand, ''commit'' or ''rollback'', and remembers it in dtx.forced; a contradiction with the recorded decision needs override; what happens on the server happens at once and is not undone by ROLLBACK; an error while its session takes care of it, if it is another coordinator''s or database''s, and if no server has it';

CREATE OR REPLACE FUNCTION dtx.acknowledge_damage(
  gid text,
  reason text
) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_acknowledge'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION dtx.acknowledge_damage(text, text) IS
  'takes a prepared foreign transaction off the view dtx.damage, and remembers in dtx_internal.damage_record who did it, when and why; an error if it is not there';

CREATE OR REPLACE FUNCTION dtx_internal.wake_resolver() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_wake_resolver'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.wake_resolver() IS
  'internal: makes sure that this database gets a resolver';
