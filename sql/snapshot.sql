-- One moment on all servers: pg_dtx.consistent_reads, exported snapshots, restore points,
-- waiting for what others have committed.  What snapshots see while others commit is in
-- specs/snapshot.spec, with crashes in t/140_snapshots.pl.
\set VERBOSITY default
CALL begin_test();
CREATE FUNCTION taken() RETURNS bigint LANGUAGE sql AS 'SELECT s.snapshots - m.snapshots FROM dtx.stat s, mark m';

-- off
SHOW pg_dtx.consistent_reads;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT sum(one) FROM balances;
COMMIT;
SELECT taken();

-- for one transaction
BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
SET LOCAL pg_dtx.consistent_reads = on;
SELECT sum(here) + sum(one) + sum(two) FROM balances;
SELECT dtx.query_json('one', 'SELECT count(*) FROM public.acct');
COMMIT;
SELECT taken();
SHOW pg_dtx.consistent_reads;

-- ... with writes, which commit atomically
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = 'one, two';
UPDATE acct1 SET bal = bal - 10 WHERE id = 1;
UPDATE acct2 SET bal = bal + 10 WHERE id = 1;
SAVEPOINT a;
UPDATE acct1 SET bal = 0;
ROLLBACK TO a;
COMMIT;
SELECT * FROM balances WHERE id = 1;

-- SERIALIZABLE, but for READ ONLY DEFERRABLE, which may wait for long
BEGIN ISOLATION LEVEL SERIALIZABLE;
SET LOCAL pg_dtx.consistent_reads = on;
SELECT sum(one) FROM balances;
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;

-- for a session
SET pg_dtx.consistent_reads = 'one';
SELECT taken();
BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SELECT taken();
SELECT count(*) FROM acct1;
SELECT count(*) FROM acct2;
ROLLBACK;
BEGIN;
SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
SELECT taken();
COMMIT;
SET default_transaction_isolation = 'repeatable read';
START TRANSACTION;
SELECT count(*) FROM acct1;
COMMIT;
SELECT taken();
-- ... a statement that is a transaction of its own has a snapshot before it is known what it reads
SELECT count(*) FROM acct1;
RESET default_transaction_isolation;
SELECT count(*) FROM acct1;
UPDATE acct1 SET bal = 1;
BEGIN;
SELECT count(*) FROM acct1;
ROLLBACK;
SELECT count(*) FROM acct0;
RESET pg_dtx.consistent_reads;

-- too late
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM acct0;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT set_config('pg_dtx.consistent_reads', 'on', true);
SELECT count(*) FROM acct1;
ROLLBACK;
-- ... which concerns only who sets it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM acct0;
SET LOCAL work_mem = '8MB';
SET LOCAL pg_dtx.consistent_reads = off;
ROLLBACK;
-- in a subtransaction
BEGIN ISOLATION LEVEL REPEATABLE READ;
SAVEPOINT a;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK TO a;
SELECT sum(one) + sum(two) FROM balances;
COMMIT;
-- in a procedure, transaction by transaction
CREATE PROCEDURE sums() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 2 LOOP
		COMMIT;
		SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;
		SET LOCAL pg_dtx.consistent_reads = on;
		RAISE NOTICE '%', (SELECT sum(one) + sum(two) FROM balances);
	END LOOP;
END
$$;
CALL sums();
DROP PROCEDURE sums;

-- what it must be
SET pg_dtx.consistent_reads = '';
SET pg_dtx.consistent_reads = 'one,,two';
SET pg_dtx.consistent_reads = 'no';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = 'one, three';
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = 'one, two, one';
ROLLBACK;
CREATE ROLE regress_dtx_reader;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET ROLE regress_dtx_reader;
SET LOCAL pg_dtx.consistent_reads = 'one';
ROLLBACK;
-- ... all that it may use are none
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET ROLE regress_dtx_reader;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;
DROP ROLE regress_dtx_reader;
SET pg_dtx.two_phase_commit = off;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;
RESET pg_dtx.two_phase_commit;
RESET pg_dtx.consistent_reads;

-- a server that cannot be reached
CALL make_server('nowhere', 'no_such_database');
CALL make_mapping('nowhere');
\set VERBOSITY terse
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;
\set VERBOSITY default
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = one, two;
SELECT sum(one) + sum(two) FROM balances;
COMMIT;
DROP USER MAPPING FOR CURRENT_USER SERVER nowhere;
DROP SERVER nowhere;

-- exported
BEGIN;
SELECT server, snapshot <> '' AS ok FROM dtx.export_snapshot();
SELECT count(*) FROM acct1;
COMMIT;
BEGIN;
SELECT server, snapshot <> '' AS ok FROM dtx.export_snapshot('{two}');
COMMIT;
SELECT * FROM dtx.export_snapshot();
BEGIN;
SELECT count(*) FROM acct1;
SELECT * FROM dtx.export_snapshot();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM dtx.export_snapshot();
ROLLBACK;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = 'two, one';
SELECT server, snapshot <> '' AS ok FROM dtx.export_snapshot();
SELECT * FROM dtx.export_snapshot('{one}');
ROLLBACK;
BEGIN;
SELECT * FROM dtx.export_snapshot('{one, null}');
ROLLBACK;
-- ... with the setting on, too
SET pg_dtx.consistent_reads = on;
BEGIN;
SELECT server, snapshot <> '' AS ok FROM dtx.export_snapshot();
ROLLBACK;
RESET pg_dtx.consistent_reads;
-- who has exported cannot be prepared, as on a single server
BEGIN;
SET LOCAL pg_dtx.commit_point = coordinator;
SELECT count(*) FROM dtx.export_snapshot();
UPDATE acct1 SET bal = bal WHERE id = 1;
UPDATE acct2 SET bal = bal WHERE id = 1;
\set VERBOSITY sqlstate
COMMIT;
\set VERBOSITY default

-- restore points
SELECT server, lsn > '0/0' AS ok FROM dtx.create_restore_point('before the migration');
SELECT server, lsn > '0/0' AS ok FROM dtx.create_restore_point('it''s', '{one}');
SELECT * FROM dtx.create_restore_point(NULL);
SELECT * FROM dtx.create_restore_point('');
SELECT * FROM dtx.create_restore_point(repeat('x', 64));
BEGIN;
UPDATE acct1 SET bal = bal WHERE id = 1;
SELECT * FROM dtx.create_restore_point('x');
ROLLBACK;
-- (the user there may not)
\c dtx_one
REVOKE EXECUTE ON FUNCTION pg_create_restore_point(text) FROM PUBLIC;
CREATE ROLE regress_dtx_far LOGIN;
\c contrib_regression
ALTER USER MAPPING FOR CURRENT_USER SERVER one OPTIONS (SET user 'regress_dtx_far');
SELECT * FROM dtx.create_restore_point('x', '{one}');
DO $$ BEGIN EXECUTE format('ALTER USER MAPPING FOR CURRENT_USER SERVER one OPTIONS (SET user %L)', current_user); END $$;
DROP ROLE regress_dtx_far;

-- what has been decided, for all that is known, and is not finished: no such moment
ALTER SYSTEM SET pg_dtx.resolver = off;
SELECT pg_reload_conf();
DO $$ BEGIN
	FOR i IN 1 .. 3000 LOOP
		PERFORM pg_sleep(0.01);
		EXIT WHEN NOT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver' AND state = 'active');
	END LOOP;
END $$;
BEGIN;
SELECT dtx_internal.gid(pg_current_xact_id(), 1) AS gid \gset
ROLLBACK;
\c dtx_one
BEGIN;
INSERT INTO acct VALUES (99, 1);
PREPARE TRANSACTION :'gid';
-- names that others have made up do not matter
SELECT left(:'gid', -4) || '0000' AS forged \gset
BEGIN;
PREPARE TRANSACTION :'forged';
\c contrib_regression
SET pg_dtx.snapshot_timeout = '100ms';
\set VERBOSITY sqlstate
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = on;
ROLLBACK;
SELECT * FROM dtx.wait_until_visible();
\set VERBOSITY default
-- ... but on the others
SET pg_dtx.consistent_reads = 'two';
BEGIN ISOLATION LEVEL REPEATABLE READ;
COMMIT;
RESET pg_dtx.consistent_reads;
SELECT dtx.wait_until_visible('{two}');
RESET pg_dtx.snapshot_timeout;
SELECT snapshots_refused > 1 AS refused, snapshot_retries > 0 AS retries, gate_time > 0 AS gate_time FROM dtx.stat;
\c dtx_one
ROLLBACK PREPARED :'gid';
ROLLBACK PREPARED :'forged';
\c contrib_regression
ALTER SYSTEM RESET pg_dtx.resolver;
SELECT pg_reload_conf();
SELECT dtx.wait_until_visible();
BEGIN;
SELECT dtx.wait_until_visible();
SELECT sum(one) + sum(two) FROM balances;
COMMIT;
DROP FUNCTION taken;
