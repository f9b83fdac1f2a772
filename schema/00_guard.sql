/* pg_dtx: made of schema/, see updates/README.md */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_dtx" to load this file. \quit

--
-- The schemas.  dtx is what users use; CREATE EXTENSION makes it, or takes one that
-- exists.  dtx_internal is everything else, and nobody's but superusers' (90_privileges.sql).
--

-- The owner of a schema can drop what is in it, so it must be a superuser.
DO $$
BEGIN
  IF NOT (SELECT r.rolsuper
            FROM pg_catalog.pg_namespace n
            JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) n.nspowner
           WHERE n.nspname OPERATOR(pg_catalog.=) 'dtx') THEN
    RAISE EXCEPTION USING
      ERRCODE = 'invalid_schema_definition',
      MESSAGE = 'schema "dtx" must belong to a superuser',
      HINT = 'Drop or rename the schema, or change its owner.';
  END IF;
END
$$;

COMMENT ON SCHEMA dtx IS 'atomic commit across postgres_fdw servers (extension pg_dtx)';
GRANT USAGE ON SCHEMA dtx TO PUBLIC;

CREATE SCHEMA dtx_internal;
COMMENT ON SCHEMA dtx_internal IS 'tables and internal functions of extension pg_dtx; see schema dtx for what to use';
