/* pg_dtx: made of schema/, see updates/README.md */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION pg_dtx" to load this file. \quit

--
-- The schema: made by CREATE EXTENSION, or there already.
--

-- The owner of a schema can drop what is in it.  CREATE EXTENSION takes a schema
-- that exists already, so make sure that this is not somebody else's.
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
