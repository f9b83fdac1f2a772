--
-- dtx.overview(): one screen for psql's \watch.
--
CALL begin_test();
-- what does not depend on what went on before
CREATE VIEW shown AS
	SELECT section, item,
		regexp_replace(value, '\d[\d.]*( (s|min|h|days)\M)?', 'N', 'g') AS value, next_step
	FROM dtx.overview();
SELECT count(*) >= 0 AS visited FROM dtx.resolve_in_doubt();
SELECT section, item FROM dtx.overview();
CALL wait_until($$SELECT count(*) = 1 FROM pg_stat_activity
	WHERE backend_type = 'pg_dtx resolver' AND datname = current_database()$$);
SELECT * FROM shown WHERE section IN ('transactions', 'in doubt', 'servers', 'damage', 'workers');
-- rates and times are those since the last call of this session
SELECT count(*) > 0 AS called FROM dtx.overview();
BEGIN;
UPDATE acct1 SET bal = 3 WHERE id = 1;
UPDATE acct2 SET bal = 3 WHERE id = 1;
SELECT * FROM shown WHERE item = 'active';
COMMIT;
BEGIN;
UPDATE acct1 SET bal = 4 WHERE id = 1;
COMMIT;
SELECT one_phase, two_phase, prepare_failed, handed_over, resolved,
	seconds > 0 AS seconds, prepare_time > 0 AS prepare_time, commit_time > 0 AS commit_time
FROM dtx_internal.stat_since_last_call();
SELECT one_phase, two_phase, prepare_time, commit_time FROM dtx_internal.stat_since_last_call();
SELECT * FROM shown WHERE item IN ('two phases', 'phase one takes');
-- and not negative after a reset
UPDATE acct1 SET bal = 5 WHERE id = 1;
SELECT dtx.reset_stat();
SELECT one_phase, two_phase, seconds >= 0 AS seconds FROM dtx_internal.stat_since_last_call();
-- what is wrong is in capitals
CALL make_server('nowhere', 'regress_dtx_no_such_database');
CALL make_mapping('nowhere');
-- what was not tried is not wrong
SELECT item, value FROM dtx.overview() WHERE section = 'servers' AND item = 'nowhere';
SELECT dtx.confirm_server('nowhere', all_mappings => true);
SELECT count(*) > 0 AS visited FROM dtx.resolve_in_doubt();
SELECT item, value ~ '^NOT REACHABLE \d+ s ago, .*regress_dtx_no_such_database' AS value, next_step
FROM dtx.overview() WHERE section = 'servers' AND item = 'nowhere';
-- ... and comes with what to do; the first row says how much there is
BEGIN;
INSERT INTO dtx_internal.damage_record (gid, server, decided, found, since, remote_xid, system_id, detail)
	VALUES ('dtx:none', 'nowhere', 'commit', 'rollback', now(), '1', 1, 'test');
SELECT section, item, next_step FROM dtx.overview() WHERE next_step IS NOT NULL AND item <> 'not atomic';
SELECT (count(next_step) - 1) || ' TO DO' = min(value) FILTER (WHERE section = 'state') AS counted FROM dtx.overview();
ROLLBACK;
SET client_min_messages = warning;
DROP SERVER nowhere CASCADE;
RESET client_min_messages;
-- for members of pg_monitor
CREATE ROLE regress_dtx_user;
SET ROLE regress_dtx_user;
SELECT * FROM dtx.overview();
RESET ROLE;
GRANT pg_monitor TO regress_dtx_user;
SET ROLE regress_dtx_user;
SELECT count(*) > 0 AS shown FROM dtx.overview();
RESET ROLE;
DROP ROLE regress_dtx_user;
DROP VIEW shown;
