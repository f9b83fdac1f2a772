--
-- dtx.self_test(): is COMMIT over these servers atomic here?
--
CALL begin_test();
CALL dtx.self_test('{one,two}');
-- committed; refused by each of them; both once more without this database
SELECT two_phase, prepared, prepare_failed FROM counted();
-- a server as the commit point need not be able to prepare
SET pg_dtx.commit_point = server;
CALL dtx.self_test('{one,two}');
SELECT two_phase + prepare_failed AS transactions FROM counted();
RESET pg_dtx.commit_point;
TABLE prepared;
TABLE balances;
-- one server and this database, in any order, more than once, without waiting
SET pg_dtx.commit_wait = off;
CALL dtx.self_test('{two}');
CALL dtx.self_test('{two,one,two}');
SHOW pg_dtx.commit_wait;
RESET pg_dtx.commit_wait;
TABLE prepared;
-- it does not touch what the session has set on a server
SELECT dtx.exec('one', 'SET work_mem = ''1234kB''; SELECT pg_advisory_lock(4711)');
CALL dtx.self_test('{one}');
SELECT * FROM dtx.query('one', 'SELECT current_setting(''work_mem''), pg_advisory_unlock(4711)') AS t(m text, u bool);
SELECT dtx.exec('one', 'RESET work_mem');
-- who may use the servers may test them; null is all of those
\set SHOW_CONTEXT never
CREATE ROLE regress_dtx_user;
GRANT USAGE ON FOREIGN SERVER two TO regress_dtx_user;
CREATE USER MAPPING FOR regress_dtx_user SERVER two OPTIONS (password_required 'false', user :'USER');
SET ROLE regress_dtx_user;
CALL dtx.self_test();
CALL dtx.self_test('{one}');
RESET ROLE;
DROP OWNED BY regress_dtx_user;
DROP ROLE regress_dtx_user;
-- what cannot be tested
BEGIN;
CALL dtx.self_test('{one,two}');
ROLLBACK;
DO $$DECLARE r text; BEGIN CALL dtx.self_test('{one,two}', r); EXCEPTION WHEN division_by_zero THEN END$$;
DO $$DECLARE r text; BEGIN CALL dtx.self_test('{one,two}', r); RAISE NOTICE '%', r; END$$;
CALL dtx.self_test('{}');
CALL dtx.self_test('{one,NULL}');
CALL dtx.self_test('{nowhere}');
CREATE FOREIGN DATA WRAPPER regress_dtx_other;
CREATE SERVER other FOREIGN DATA WRAPPER regress_dtx_other;
CALL dtx.self_test('{other}');
SET client_min_messages = warning;
DROP FOREIGN DATA WRAPPER regress_dtx_other CASCADE;
RESET client_min_messages;
-- without two-phase commit
SET pg_dtx.two_phase_commit = off;
CALL dtx.self_test('{one,two}');
RESET pg_dtx.two_phase_commit;
