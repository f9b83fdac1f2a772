--
-- What schema dtx offers to everybody, and that nothing of dtx_internal is within reach.
--
\set SHOW_CONTEXT never
CREATE ROLE regress_dtx_anybody;
CREATE VIEW member AS
SELECT d.classid, d.objid FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
	AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_dtx');
-- everything that anybody may use
SELECT p.oid::regprocedure AS function, p.provolatile AS v, p.prosecdef AS definer, pg_get_function_result(p.oid) AS result
FROM pg_proc p
WHERE p.pronamespace = 'dtx'::regnamespace AND has_function_privilege('regress_dtx_anybody', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";
SELECT c.oid::regclass AS relation, c.relkind, string_agg(a.privilege_type, ', ') AS may
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
WHERE c.relnamespace = 'dtx'::regnamespace AND a.grantee = 0
GROUP BY 1, 2 ORDER BY c.oid::regclass::text COLLATE "C";
SELECT t.typname, t.typtype FROM pg_type t
WHERE t.typnamespace = 'dtx'::regnamespace AND t.typelem = 0
	AND NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = t.typrelid AND c.relkind <> 'c') ORDER BY 1;
-- all else of the extension is in dtx_internal
SELECT pg_describe_object(m.classid, m.objid, 0) AS elsewhere
FROM member m LEFT JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) i ON true
WHERE coalesce(i.schema, '-') NOT IN ('dtx', 'dtx_internal')
ORDER BY pg_describe_object(m.classid, m.objid, 0) COLLATE "C";
SELECT c.oid::regclass AS not_internal FROM pg_class c
WHERE c.relnamespace = 'dtx'::regnamespace AND c.relkind NOT IN ('v', 'c');
-- which belongs to nobody: schema, relations, functions
SELECT has_schema_privilege('regress_dtx_anybody', 'dtx_internal', 'USAGE, CREATE') AS schema;
SELECT c.oid::regclass AS relation, a.grantee::regrole, a.privilege_type
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
WHERE c.relnamespace = 'dtx_internal'::regnamespace AND a.grantee <> c.relowner
ORDER BY c.oid::regclass::text COLLATE "C";
SELECT p.oid::regprocedure AS definer FROM pg_proc p
WHERE p.pronamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace) AND p.prosecdef
	AND has_function_privilege('regress_dtx_anybody', p.oid, 'EXECUTE');
-- what of it is executed for anybody, and by what; it has the caller's rights
SELECT p.oid::regprocedure AS internal, p.prosecdef AS definer,
	(SELECT string_agg(DISTINCT pg_describe_object(coalesce(w.classid, d.classid), coalesce(w.objid, d.objid), 0), ', ')
		FROM pg_depend d
		LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
		LEFT JOIN LATERAL (VALUES ('pg_class'::regclass::oid, r.ev_class)) AS w (classid, objid) ON r.oid IS NOT NULL
		WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid AND d.deptype = 'n') AS used_by
FROM pg_proc p
WHERE p.pronamespace = 'dtx_internal'::regnamespace AND has_function_privilege('regress_dtx_anybody', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";
-- nothing else leads there: what uses an internal function is a view, a function of dtx, or a type of dtx_internal
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS user, d.refobjid::regprocedure AS internal
FROM pg_depend d JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid
WHERE p.pronamespace = 'dtx_internal'::regnamespace
	AND d.classid NOT IN ('pg_rewrite'::regclass, 'pg_proc'::regclass)
	AND NOT (d.classid = 'pg_type'::regclass AND d.objid = 'dtx_internal.saga_role'::regtype)
	AND p.proname <> 'saga_check_transition'	-- (see setup.sql)
ORDER BY pg_describe_object(d.classid, d.objid, d.objsubid) COLLATE "C";
-- where a kind of plan is forbidden, what has no other costs so much that it would be compiled, each time
SELECT p.oid::regprocedure AS compiles FROM pg_proc p
WHERE p.pronamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace)
	AND p.proconfig::text ~ 'enable_' AND NOT 'jit=off' = ANY (p.proconfig);
-- names do not, either
GRANT CREATE ON SCHEMA public TO regress_dtx_anybody;
SET ROLE regress_dtx_anybody;
SELECT dtx_internal.wake_resolver();
SELECT * FROM dtx_internal.in_doubt();
SELECT NULL::dtx_internal.saga_role;
SET search_path = dtx_internal, public;
\set VERBOSITY terse
SELECT wake_resolver();
TABLE decision;
\set VERBOSITY default
RESET search_path;
CREATE VIEW public.stolen AS SELECT * FROM dtx_internal.in_doubt();
CREATE FUNCTION public.stolen() RETURNS SETOF record LANGUAGE sql BEGIN ATOMIC SELECT * FROM dtx_internal.in_doubt(); END;
CREATE TABLE public.stolen (i dtx_internal.saga_role);
CREATE AGGREGATE public.stolen (text) (SFUNC = dtx_internal.saga_check_reason, STYPE = text);
CREATE OPERATOR public.=== (FUNCTION = dtx_internal.mean, LEFTARG = double precision, RIGHTARG = bigint);
CREATE TABLE public.stolen (i int);
CREATE TRIGGER t AFTER INSERT ON public.stolen EXECUTE FUNCTION dtx_internal.record_boot();
CREATE POLICY p ON public.stolen USING (dtx_internal.saga_any());
DROP TABLE public.stolen;
-- nor what was parsed for those who may
SELECT count(*) FROM dtx.in_doubt;
SELECT count(*) FROM dtx.servers;
SELECT dtx.explain_saga(0);
RESET ROLE;
REVOKE CREATE ON SCHEMA public FROM regress_dtx_anybody;
-- everything has a comment
SELECT pg_describe_object(m.classid, m.objid, 0) AS no_comment
FROM member m
WHERE m.classid <> 'pg_type'::regclass
	AND obj_description(m.objid, m.classid::regclass::name) IS NULL;
SELECT t.oid::regtype AS no_comment FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
WHERE t.typnamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace) AND t.typelem = 0
	AND coalesce(c.relkind, 'c') = 'c' AND obj_description(t.oid, 'pg_type') IS NULL;
SELECT a.attrelid::regclass AS table, a.attname AS no_comment
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace) AND c.relkind IN ('r', 'm', 'v')
	AND a.attnum > 0 AND col_description(a.attrelid, a.attnum) IS NULL;
-- functions that are not in C look nowhere but in the catalog
SELECT p.oid::regprocedure AS not_pinned FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
WHERE p.pronamespace IN ('dtx'::regnamespace, 'dtx_internal'::regnamespace)
	AND l.lanname IN ('sql', 'plpgsql') AND p.prosqlbody IS NULL
	AND NOT coalesce(p.proconfig @> '{"search_path=pg_catalog, pg_temp"}', false);
-- results that are wide have a type
SELECT p.oid::regprocedure AS wide FROM pg_proc p
WHERE p.pronamespace = 'dtx'::regnamespace AND length(pg_get_function_result(p.oid)) > 40;
DROP VIEW member;
-- whatever the superuser's default privileges are
CREATE DATABASE regress_dtx_defaults;
\c regress_dtx_defaults
\set SHOW_CONTEXT never
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC, regress_dtx_anybody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC, regress_dtx_anybody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO PUBLIC, regress_dtx_anybody;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO PUBLIC, regress_dtx_anybody;
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION pg_dtx;
SELECT has_schema_privilege('regress_dtx_anybody', 'dtx_internal', 'USAGE, CREATE') AS schema;
SELECT c.oid::regclass AS relation, a.grantee::regrole, a.privilege_type
FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
WHERE c.relnamespace = 'dtx_internal'::regnamespace AND a.grantee NOT IN (c.relowner, 'pg_monitor'::regrole);
SELECT p.oid::regprocedure AS function FROM pg_proc p
WHERE p.pronamespace = 'dtx_internal'::regnamespace AND has_function_privilege('regress_dtx_anybody', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";
DROP OWNED BY regress_dtx_anybody;
-- pg_dtx is nothing without postgres_fdw
-- (workers that have just begun lock the same tables in another order)
CREATE PROCEDURE try_drop(options text) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 100 LOOP
		BEGIN
			EXECUTE 'DROP EXTENSION postgres_fdw ' || options;
			RETURN;
		EXCEPTION
			WHEN deadlock_detected THEN NULL;
			WHEN dependent_objects_still_exist THEN
				RAISE NOTICE 'ERROR: %', SQLERRM;
				RETURN;
		END;
		COMMIT;
	END LOOP;
END
$$;
CALL try_drop('');
CALL try_drop('CASCADE');
CREATE EXTENSION pg_dtx;
SELECT extname FROM pg_extension WHERE extname = 'pg_dtx';
\c contrib_regression
DROP DATABASE regress_dtx_defaults;
DROP OWNED BY regress_dtx_anybody;
DROP ROLE regress_dtx_anybody;
