--
-- Who may execute functions of dtx_internal, beside superusers.  Run again by each
-- update, so that none is forgotten.
--

DO $$
DECLARE
  who text;
BEGIN
  FOR who IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
      FROM pg_catalog.pg_proc p
      JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
      CROSS JOIN pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
     WHERE n.nspname OPERATOR(pg_catalog.=) 'dtx_internal'
       AND a.grantee OPERATOR(pg_catalog.<>) p.proowner
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON ALL ROUTINES IN SCHEMA dtx_internal FROM %s', who);
  END LOOP;
END
$$;

-- What views and functions of schema dtx call with the privileges of their users.  Others
-- than members of pg_monitor cannot call it themselves, without USAGE on the schema.
GRANT EXECUTE ON FUNCTION dtx_internal.transactions() TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.in_doubt() TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.find_definition_to_explain(text) TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.find_saga_to_explain(bigint) TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.saga_graph(text[], text[]) TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.saga_picture(text, text, jsonb) TO PUBLIC;
GRANT EXECUTE ON FUNCTION dtx_internal.saga_place(text, name[], interval, text, text) TO PUBLIC;

-- The same for members of pg_monitor.
GRANT EXECUTE ON FUNCTION dtx_internal.servers() TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.stat() TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.lock_waits() TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.stat_since_last_call() TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.boot_id() TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.age(timestamptz) TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.rate(bigint, double precision) TO pg_monitor;
GRANT EXECUTE ON FUNCTION dtx_internal.mean(double precision, bigint) TO pg_monitor;
