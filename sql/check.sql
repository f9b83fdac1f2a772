--
-- dtx.check(): what is not right, here and at all servers?
--
CALL begin_test();
\set SHOW_CONTEXT never
\pset format unaligned
-- all is well
SELECT * FROM dtx.check();
-- what is set here
SET pg_dtx.two_phase_commit = off;
SET pg_dtx.require = 'off';
SELECT server, "check", detail, hint FROM dtx.check();
RESET pg_dtx.two_phase_commit;
RESET pg_dtx.require;
SET client_min_messages = error;
CREATE PUBLICATION everything FOR ALL TABLES;
RESET client_min_messages;
SELECT server, "check", detail, hint FROM dtx.check();
DROP PUBLICATION everything;
-- servers: without a mapping, and one that leads nowhere, with mappings of several roles
CREATE ROLE regress_dtx_app LOGIN;
CREATE ROLE regress_dtx_batch LOGIN;
GRANT USAGE ON FOREIGN SERVER one TO regress_dtx_app;
CREATE USER MAPPING FOR regress_dtx_app SERVER one OPTIONS (user 'regress_dtx_app');
CREATE USER MAPPING FOR regress_dtx_batch SERVER one OPTIONS (user 'regress_dtx_batch');
CALL make_server('three', 'dtx_one');
SELECT server, (SELECT array_agg(r ORDER BY r) FROM unnest(array_replace(roles, current_user::name, '(me)')) AS r) AS roles, "check", detail FROM dtx.check() WHERE server <> 'three' OR "check" <> 'one server per database' ORDER BY 1, 3, 2;
-- a role sees what concerns it
SET ROLE regress_dtx_app;
SELECT server, roles, "check", detail FROM dtx.check();
SELECT "check" FROM dtx.check_server('one', 'regress_dtx_batch');
RESET ROLE;
-- the owner of a server gets no password by having a superuser check
ALTER SERVER three OWNER TO regress_dtx_app;
CREATE USER MAPPING FOR regress_dtx_batch SERVER three OPTIONS (user 'regress_dtx_batch', password 'secret');
SELECT "check", ok, detail, hint FROM dtx.check_server('three', 'regress_dtx_batch') WHERE "check" IN ('reachable', 'interposition');
SELECT * FROM dtx.check_server('three', 'regress_dtx_nobody');
SET client_min_messages = warning;
DROP SERVER three CASCADE;
DROP OWNED BY regress_dtx_app, regress_dtx_batch;
DROP ROLE regress_dtx_app, regress_dtx_batch;
RESET client_min_messages;
