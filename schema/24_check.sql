-- Is COMMIT atomic here?  Proven by transactions that do nothing (src/sql/self_test.c).

CREATE OR REPLACE PROCEDURE dtx.self_test(servers name[] DEFAULT NULL, INOUT result text DEFAULT NULL)
AS 'MODULE_PATHNAME', 'dtx_sql_self_test'
LANGUAGE C;

COMMENT ON PROCEDURE dtx.self_test(name[], text) IS
  'proves that COMMIT over some servers (null: all that the caller may use) is atomic here, by transactions that do nothing: one is committed on all of them, and one for each server, which refuses it, is rolled back on all; an error tells what is not right';

-- What is not right, of the coordinator and of all servers, and what to do.

CREATE OR REPLACE FUNCTION dtx.check() RETURNS SETOF dtx.finding
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE ROWS 10 COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  first_library text;
  monitor boolean := pg_catalog.pg_has_role('pg_monitor', 'USAGE');
  n bigint;
BEGIN
  IF NOT pg_catalog.current_setting('pg_dtx.two_phase_commit')::pg_catalog.bool THEN
    RETURN NEXT ROW(NULL, NULL, 'pg_dtx.two_phase_commit', 'off: transactions over several servers are not committed atomically',
      'Set it to on, unless pg_dtx is only being introduced.')::dtx.finding;
  END IF;
  IF pg_catalog.current_setting('pg_dtx.require') OPERATOR(pg_catalog.=) 'off' THEN
    RETURN NEXT ROW(NULL, NULL, 'pg_dtx.require', 'off: it is not said when a transaction cannot be committed atomically',
      'Set it to "warning", or to "error" where nothing may go unprotected.')::dtx.finding;
  END IF;
  IF NOT pg_catalog.current_setting('pg_dtx.resolver')::pg_catalog.bool THEN
    RETURN NEXT ROW(NULL, NULL, 'pg_dtx.resolver', 'off: what is in doubt is not finished',
      'Set it to on, unless this is a copy that must not touch the transactions of the original.')::dtx.finding;
  END IF;
  SELECT pg_catalog.count(*) INTO n FROM pg_catalog.pg_publication AS p WHERE p.puballtables;
  IF n OPERATOR(pg_catalog.>) 0 THEN
    RETURN NEXT ROW(NULL, NULL, 'publications', pg_catalog.format('%s for all tables: tables of pg_dtx are among them', n),
      'Publish tables or schemas by name, or let the subscriber have the extension and not copy what is there (copy_data = off).')::dtx.finding;
  END IF;
  IF monitor THEN
    first_library := pg_catalog.btrim(pg_catalog.split_part(pg_catalog.current_setting('shared_preload_libraries'), ',', 1), ' "');
    IF first_library OPERATOR(pg_catalog.<>) 'pg_dtx' THEN
      RETURN NEXT ROW(NULL, NULL, 'shared_preload_libraries', pg_catalog.format('%s is loaded before pg_dtx', first_library),
        'Put pg_dtx in front of every library that uses libpq or loads postgres_fdw, and restart the server.')::dtx.finding;
    END IF;
    SELECT pg_catalog.count(*) INTO n FROM dtx_internal.boot AS b WHERE b.suspended IS NOT NULL AND b.ended_at IS NULL;
    IF n OPERATOR(pg_catalog.>) 0 THEN
      RETURN NEXT ROW(NULL, NULL, 'identity', 'this server was restored or copied: what its earlier runs have prepared is not resolved',
        'Call dtx.adopt_identity(reason) if no other server with this database is alive, or dtx.change_identity(reason) if this is a copy.')::dtx.finding;
    END IF;
    SELECT pg_catalog.count(*) INTO n FROM dtx.damage AS d;
    IF n OPERATOR(pg_catalog.>) 0 THEN
      RETURN NEXT ROW(NULL, NULL, 'damage', pg_catalog.format('%s participants have ended against their decision', n),
        'See view dtx.damage, make the data right, and call dtx.acknowledge_damage().')::dtx.finding;
    END IF;
    RETURN QUERY
      SELECT i.server, NULL::pg_catalog.name[], 'in doubt'::pg_catalog.text,
             pg_catalog.format('%s since more than five minutes', pg_catalog.count(*)),
             'See column "last_error" of view dtx.in_doubt.'::pg_catalog.text
        FROM dtx.in_doubt AS i
       WHERE i.since OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '5 minutes'::pg_catalog.interval)
       GROUP BY i.server;
  END IF;

  -- Every server, through every user mapping that the caller may use: that of a role, or
  -- the one for PUBLIC, for the caller.
  RETURN QUERY
    WITH server AS (
      SELECT s.oid, s.srvname FROM pg_catalog.pg_foreign_server AS s
        JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
        JOIN pg_catalog.pg_proc AS h ON h.oid OPERATOR(pg_catalog.=) w.fdwhandler
       WHERE h.prosrc OPERATOR(pg_catalog.=) 'postgres_fdw_handler'
         AND pg_catalog.has_server_privilege(s.oid, 'USAGE')),
    mapping AS (
      SELECT s.srvname, u.usename AS role FROM server AS s
        JOIN pg_catalog.pg_user_mappings AS u ON u.srvid OPERATOR(pg_catalog.=) s.oid
       WHERE u.umuser OPERATOR(pg_catalog.<>) 0::pg_catalog.oid AND pg_catalog.pg_has_role(u.umuser, 'USAGE')
      UNION
      SELECT s.srvname, CURRENT_USER FROM server AS s
       WHERE EXISTS (SELECT FROM pg_catalog.pg_user_mappings AS u
                      WHERE u.srvid OPERATOR(pg_catalog.=) s.oid AND u.umuser OPERATOR(pg_catalog.=) 0::pg_catalog.oid))
    SELECT m.srvname, pg_catalog.array_agg(m.role ORDER BY m.role), c."check", c.detail, c.hint
      FROM mapping AS m, LATERAL dtx.check_server(m.srvname, m.role) AS c
     WHERE NOT c.ok
     GROUP BY m.srvname, c."check", c.detail, c.hint
    UNION ALL
    SELECT s.srvname, NULL, 'user mapping', 'no role has one', 'Create one with CREATE USER MAPPING.' FROM server AS s
     WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_user_mappings AS u WHERE u.srvid OPERATOR(pg_catalog.=) s.oid)
     ORDER BY 1, 3, 2;
END
$$;
COMMENT ON FUNCTION dtx.check() IS
  'what is not right, of this database and of all servers of postgres_fdw, through all user mappings that the caller may use, and what to do; empty if all is well';
