--
-- Monitoring views.
--
CALL begin_test();
\set SHOW_CONTEXT never
SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, NULL) AS type
FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
WHERE c.relnamespace = 'dtx'::regnamespace AND c.relkind = 'v' AND a.attnum > 0
ORDER BY 1, 2;
-- nothing is going on
SELECT count(*) FROM dtx.transactions;
SELECT count(*) FROM dtx.in_doubt;
-- a transaction in progress
BEGIN;
SELECT count(*) FROM dtx.transactions;
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT pid = pg_backend_pid() AS pid, usename = current_user AS usename, transaction, xid,
	state, started = now() AS started, servers, waiting_for
FROM dtx.transactions;
UPDATE acct2 SET bal = 1 WHERE id = 1;
SELECT servers FROM dtx.transactions;
COMMIT;
SELECT count(*) FROM dtx.transactions;
BEGIN;
UPDATE acct1 SET bal = 2 WHERE id = 1;
ROLLBACK;
SELECT count(*) FROM dtx.transactions;
-- servers, after a visit
SELECT count(*) >= 0 AS visited FROM dtx.resolve_in_doubt();
SELECT server, reachable, checked_at > now() - interval '1 hour' AS checked,
	split_part(version, '.', 1)::int = current_setting('server_version_num')::int / 10000 AS same_version,
	slots_used, slots_total = current_setting('max_prepared_transactions')::int AS slots,
	in_doubt, last_error
FROM dtx.servers ORDER BY server;
CALL make_server('nowhere', 'regress_dtx_no_such_database');
CALL make_mapping('nowhere');
SELECT dtx.confirm_server('nowhere', all_mappings => true);
SELECT server, gid, decision, done, error ~ 'regress_dtx_no_such_database' AS error FROM dtx.resolve_in_doubt();
SELECT server, reachable, last_error ~ 'regress_dtx_no_such_database' AS last_error
FROM dtx.servers ORDER BY server;
SET client_min_messages = warning;
DROP SERVER nowhere CASCADE;
RESET client_min_messages;
SELECT server FROM dtx.servers ORDER BY server;
-- statistics
SELECT count(*) FROM dtx.stat;
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
UPDATE acct2 SET bal = 3 WHERE id = 1;
COMMIT;
SELECT one_phase, two_phase, prepared, prepare_failed FROM counted();
SELECT dtx.reset_stat();
SELECT one_phase, two_phase, prepared, prepare_failed, handed_over, resolved_commit,
	resolved_rollback, forced FROM dtx.stat;
TABLE prepared;
