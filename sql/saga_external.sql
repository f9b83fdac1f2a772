--
-- Steps that are done outside of the database: queues, leases, tokens.  There
-- are no workers of ours, see saga_define.sql; the test is the external worker.
--
\set SHOW_CONTEXT never
CALL end_all();
SELECT dtx.define_saga('parcel',
	dtx.step('pack', NULL, 'SELECT 1', 'SELECT -1'),
	dtx.step_external('print', 'printer', '{"size": "A6"}', compensate_queue => 'shredder', max_attempts => 3, compensate_attempts => 2),
	dtx.step_external('send', 'post', kind => 'pivot', max_attempts => 2),
	dtx.step_external('mail', 'mails', kind => 'retriable', max_attempts => 2, timeout => '1 day'));
SELECT * FROM dtx.explain_saga('parcel');

-- offered, claimed, completed
SELECT dtx.start_saga('parcel', '{"to": "me"}') AS id \gset
SELECT count(*) FROM dtx.claim_step('printer', 'w1');
SELECT step FROM take();
SELECT count(*) FROM dtx.claim_step('printer', 'w1');
SELECT done(:id, 'pack', '{"box": 7}');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT queue, worker FROM dtx.saga_steps WHERE saga = :id AND step = 'print';
SELECT count(*) FROM dtx.claim_step('post', 'w1');
SELECT token, saga = :id AS same, name, step, action, attempt, payload, input, results, lease_until - now() < '2 min' AS lease
	FROM dtx.claim_step('printer', 'w1', '1 min') \gset t_
\echo :t_same :t_name :t_step :t_action :t_attempt :t_payload :t_input :t_results :t_lease
SELECT count(*) FROM dtx.claim_step('printer', 'w2');
SELECT queue, worker, state, attempts, due_at > now() AS due_later FROM dtx.saga_steps WHERE saga = :id AND step = 'print';
SELECT (dtx.heartbeat_step(:'t_token', '1 hour')).lease_until - now() BETWEEN '59 min' AND '61 min' AS longer;
SELECT (dtx.heartbeat_step(:'t_token')).lease_until - now() BETWEEN '59 min' AND '61 min' AS same;
SELECT dtx.complete_step(:'t_token', '{"label": "L1"}');
-- a token is good for one report
\set VERBOSITY terse
SELECT dtx.complete_step(:'t_token');
\set VERBOSITY default
SELECT dtx.complete_step('00000000-0000-0000-0000-000000000000');
\set VERBOSITY terse
SELECT * FROM steps(:id);
SELECT step FROM take();
-- it failed, but may go well later
SELECT token FROM dtx.claim_step('post', 'w1') \gset
SELECT dtx.fail_step(:'token', 'no stamps');
SELECT * FROM steps(:id);
SELECT count(*) FROM dtx.claim_step('post', 'w1');
SELECT later(:id);
SELECT attempt, results FROM dtx.claim_step('post', 'w2');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.complete_step(:'token');
SELECT step FROM take();
SELECT token FROM dtx.claim_step('mails', 'w1') \gset
SELECT dtx.complete_step(:'token', '"sent"');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT state FROM dtx.sagas WHERE id = :id;

-- it is not offered in the transaction that has done the step before: that may not
-- be confirmed by all servers yet
SELECT dtx.start_saga('parcel') AS id \gset
SELECT step FROM take();
BEGIN;
SELECT done(:id, 'pack');
SELECT saga, step, more FROM dtx_internal.saga_take(current_user::regrole, :id);
COMMIT;
SELECT * FROM steps(:id);
SELECT dtx.force_saga(:id, 'completed', 'test');
-- to a certain step
CREATE FUNCTION parcel(upto text) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
	id bigint := dtx.start_saga('parcel');
	queue text;
	t record;
BEGIN
	LOOP
		SELECT * INTO t FROM take();
		IF t.saga IS NOT NULL THEN
			PERFORM done(id, 'pack');
		ELSE
			SELECT s.queue INTO queue FROM dtx.saga_steps s WHERE s.saga = id AND s.state = 'waiting' AND s.step <> upto;
			EXIT WHEN NOT FOUND;
			PERFORM dtx.complete_step(c.token) FROM dtx.claim_step(queue, 'w') c;
		END IF;
	END LOOP;
	RETURN id;
END
$$;
-- a lease that is over: the token changes nothing, and says so
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim_step('printer', 'slow', '1 hour') \gset
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT dtx.complete_step(:'token');
SELECT dtx.fail_step(:'token', 'x');
SELECT dtx.heartbeat_step(:'token');
SELECT * FROM steps(:id) WHERE step = 'print';
-- the next one can have it at once: the same worker, ...
SELECT attempt, worker, lease_until > now() AS lease FROM dtx.claim_step('printer', 'quick') c JOIN dtx.saga_steps s USING (saga, step);
SELECT dtx.complete_step(:'token');
SELECT * FROM history(:id) WHERE step = 'print';
-- ... or the scheduler
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp() WHERE saga = :id AND step = 2;
SELECT step FROM take();
SELECT * FROM steps(:id) WHERE step = 'print';
SELECT attempt FROM dtx.claim_step('printer', 'third');
SELECT * FROM history(:id) WHERE step = 'print';
-- attempts are limited.  What has been lost may have been done, so it is undone
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT count(*) FROM dtx.claim_step('printer', 'fourth');
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT count(*) FROM dtx.claim_step('printer', 'fourth');
SELECT step, action, attempt, payload FROM dtx.claim_step('shredder', 's1');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.fail_step(:'token', 'jam');
SELECT later(:id);
SELECT step FROM take();
SELECT attempt FROM dtx.claim_step('shredder', 's1');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.fail_step(:'token', 'jam again');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT attempt FROM dtx.claim_step('shredder', 's1');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.complete_step(:'token', '"no result of a compensation"');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
SELECT * FROM history(:id);

-- failed for good: nothing was done, so there is nothing to undo of this one
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim_step('printer', 'w') \gset
SELECT dtx.fail_step(:'token', 'no such address', retry => false);
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT done(:id, 'pack');
-- a pivot likewise
SELECT parcel('send') AS id \gset
SELECT token FROM dtx.claim_step('post', 'w') \gset
SELECT dtx.cancel_saga(:id, 'too late');
SELECT dtx.fail_step(:'token', 'no such address', retry => false);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT action, step FROM dtx.claim_step('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');
-- but if nobody knows whether a pivot was done, nobody but an operator can decide
SELECT parcel('send') AS id \gset
SELECT attempt FROM dtx.claim_step('post', 'w');
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT attempt FROM dtx.claim_step('post', 'w');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.fail_step(:'token', 'no such address', retry => false);
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT dtx.cancel_saga(:id, 'no');
SELECT dtx.skip_step(:id, 'send', 'the parcel has arrived');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT dtx.force_saga(:id, 'completed', 'test');
-- a retriable one: after all attempts, or if the worker says so
SELECT parcel('mail') AS id \gset
SELECT token FROM dtx.claim_step('mails', 'w') \gset
SELECT dtx.fail_step(:'token', 'mailbox is full');
SELECT dtx.retry_saga(:id);
SELECT attempt FROM dtx.claim_step('mails', 'w');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
SELECT dtx.fail_step(:'token', 'mailbox is full');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT token FROM dtx.claim_step('mails', 'w') \gset
SELECT dtx.fail_step(:'token', 'no such user', retry => false);
SELECT dtx.skip_step(:id, 'mail', 'called by phone');
SELECT * FROM history(:id) WHERE step = 'mail' OR step IS NULL;
-- not in time
SELECT parcel('mail') AS id \gset
SELECT later(:id);
SELECT count(*) FROM dtx.claim_step('mails', 'w');
SELECT step FROM take();
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT count(*) FROM dtx.claim_step('mails', 'w');
SELECT token FROM dtx_internal.saga_external WHERE saga = :id \gset
UPDATE dtx_internal.saga_step_record SET due_at = clock_timestamp(), since = since - interval '1 day' WHERE saga = :id AND step = 4;
SELECT step FROM take();
SELECT dtx.complete_step(:'token');
SELECT * FROM history(:id) WHERE step = 'mail';
SELECT dtx.force_saga(:id, 'completed', 'test');

-- canceled while nobody has it: gone from the queue
SELECT parcel('print') AS id \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT count(*) FROM dtx.claim_step('printer', 'w');
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- while a worker has it: it may complete, and that is undone then
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim_step('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT * FROM steps(:id);
SELECT (dtx.heartbeat_step(:'token')).lease_until > now() AS goes_on;
SELECT dtx.complete_step(:'token');
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT token, action FROM dtx.claim_step('shredder', 'w') \gset
\echo :action
SELECT dtx.complete_step(:'token');
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- or fail, which is not tried again
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim_step('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.fail_step(:'token', 'jam');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- or go away: it may have been done
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim_step('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT later(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT action, step FROM dtx.claim_step('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');
-- canceled between two attempts, one of which was lost
SELECT parcel('print') AS id \gset
SELECT attempt FROM dtx.claim_step('printer', 'w');
SELECT later(:id);
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'test');
SELECT step FROM take();
SELECT action, step FROM dtx.claim_step('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');

-- a worker that has done its work in the database as well: together, or not at all
CREATE TABLE printed (saga bigint);
SELECT parcel('print') AS id \gset
BEGIN;
SELECT token FROM dtx.claim_step('printer', 'w') \gset
INSERT INTO printed VALUES (:id);
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT dtx.complete_step(:'token');
ROLLBACK;
SELECT * FROM steps(:id) WHERE step = 'print';
BEGIN;
SELECT token FROM dtx.claim_step('printer', 'w') \gset
INSERT INTO printed VALUES (:id);
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT dtx.complete_step(:'token');
COMMIT;
SELECT * FROM steps(:id) WHERE step = 'print';
DROP TABLE printed;
SELECT dtx.force_saga(:id, 'compensated', 'test');

-- several at once, the oldest first
CALL end_all();
SELECT count(parcel('print')) FROM generate_series(1, 5);
SELECT count(*) FROM dtx.claim_step('printer', 'w', n => 3);
SELECT rank() OVER (ORDER BY saga) AS nth, worker FROM dtx.saga_steps WHERE queue = 'printer' ORDER BY saga;
SELECT count(*) FROM dtx.claim_step('printer', 'w', n => 3);
SELECT count(*) FROM dtx.claim_step('printer', 'w', n => 3);
CALL end_all();
SELECT count(*) FROM dtx_internal.saga_external;
-- claims look at what they can have, not at the backlog
INSERT INTO dtx_internal.saga_external (saga, step, home, role, queue, available_at)
	SELECT -i, 1, dtx_internal.saga_home(), current_user::regrole::oid, 'printer', '2100-01-01' FROM generate_series(1, 1000) i;
SELECT parcel('print') AS id \gset
BEGIN;
SELECT idx_tup_fetch AS fetched, seq_tup_read AS read FROM pg_stat_xact_user_tables WHERE relid = 'dtx_internal.saga_external'::regclass \gset
SELECT step FROM dtx.claim_step('printer', 'w', n => 3);
SELECT idx_tup_fetch - :fetched < 30 AS few, seq_tup_read - :read AS scanned
	FROM pg_stat_xact_user_tables WHERE relid = 'dtx_internal.saga_external'::regclass;
COMMIT;
DELETE FROM dtx_internal.saga_external WHERE saga < 0;
CALL end_all();
-- neither do workers and scheduler of the sagas
SELECT count(dtx.start_saga('chain', run_at => '2100-01-01')) FROM generate_series(1, 1000);
SELECT dtx.start_saga('chain') AS id \gset
BEGIN;
SELECT idx_tup_fetch AS fetched, seq_tup_read AS read FROM pg_stat_xact_user_tables WHERE relid = 'dtx_internal.saga_step_record'::regclass \gset
SELECT due FROM dtx_internal.saga_schedule();
SELECT step FROM dtx_internal.saga_take(current_user::regrole);
SELECT dtx_internal.saga_any();
SELECT idx_tup_fetch - :fetched < 30 AS few, seq_tup_read - :read AS scanned
	FROM pg_stat_xact_user_tables WHERE relid = 'dtx_internal.saga_step_record'::regclass;
COMMIT;
CALL end_all();
-- results that would be too large for the saga to end
SELECT dtx.define_saga('large', dtx.step_external('a', 'large', after => '{}'), dtx.step_external('b', 'large', after => '{}'),
	dtx.step_signal('c', after => '{}'), dtx.step('d', NULL, 'SELECT repeat($$x$$, 60000000)', after => '{}'));
SELECT dtx.start_saga('large') AS id \gset
SELECT step FROM take();
SELECT count(*) FROM take();
CREATE TEMP TABLE token AS SELECT step, token FROM dtx.claim_step('large', 'w', n => 2);
SELECT dtx.complete_step(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'a';
SELECT dtx.complete_step(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'b';
SELECT dtx.signal_saga(:id, 'c', to_jsonb(repeat('x', 60000000)));
SELECT dtx.skip_step(:id, 'c', 'test', to_jsonb(repeat('x', 60000000)));
SELECT dtx_internal.saga_done(saga, position, attempts, 'execute', to_jsonb(repeat('x', 60000000)))
	FROM dtx.saga_steps WHERE saga = :id AND step = 'd';
SELECT dtx.signal_saga(:id, 'c', to_jsonb(repeat('x', 30000000)));
SELECT dtx.complete_step(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'b';
SELECT dtx.complete_step(token, '1') FROM token WHERE step = 'b';
SELECT dtx.force_saga(:id, 'compensated', 'test');
SELECT length(payload::text) FROM dtx_internal.saga_outbox WHERE saga = :id;
DROP TABLE token;

-- errors
SELECT * FROM dtx.claim_step(NULL, 'w');
SELECT * FROM dtx.claim_step('', 'w');
SELECT * FROM dtx.claim_step('q', NULL);
SELECT * FROM dtx.claim_step('q', '');
SELECT * FROM dtx.claim_step('q', 'w', '0');
SELECT * FROM dtx.claim_step('q', 'w', '-1 s');
SELECT * FROM dtx.claim_step('q', 'w', NULL);
SELECT * FROM dtx.claim_step('q', 'w', n => 0);
SELECT * FROM dtx.claim_step('q', 'w', n => 1001);
SELECT * FROM dtx.claim_step('q', 'w', n => NULL);
SELECT * FROM dtx.claim_step('no such queue', 'w');
SELECT dtx.complete_step(NULL);
SELECT dtx.fail_step(NULL, 'x');
SELECT dtx.fail_step('00000000-0000-0000-0000-000000000000', NULL);
SELECT dtx.fail_step('00000000-0000-0000-0000-000000000000', ' ');
SELECT dtx.fail_step('00000000-0000-0000-0000-000000000000', 'x', NULL);
SELECT dtx.fail_step('00000000-0000-0000-0000-000000000000', 'x');
SELECT dtx.heartbeat_step(NULL);
SELECT dtx.heartbeat_step('00000000-0000-0000-0000-000000000000');
SELECT dtx.heartbeat_step('00000000-0000-0000-0000-000000000000', '0');

-- several at once: the one that a worker was at has lost an attempt, the others have not
SELECT dtx.define_saga('batch', dtx.step_external('do', 'batch', max_attempts => 2));
SELECT count(dtx.start_saga('batch', key => 'b' || i)) FROM generate_series(1, 4) AS i;
SELECT count(*) FROM take();
CREATE TEMP TABLE claimed AS SELECT row_number() OVER () AS n, c.* FROM dtx.claim_step('batch', 'poisoned', n => 4) AS c;
SELECT count(*), count(DISTINCT idempotency_key) FROM claimed;
SELECT dtx.complete_step(token) FROM claimed WHERE n = 1;
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE queue = 'batch';
SELECT count(*) FROM (SELECT dtx.claim_step('batch', 'other', n => 1000)) AS c;
SELECT g.key, s.attempts, h.outcome, h.message FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga
	LEFT JOIN dtx.saga_history h ON h.saga = g.id AND h.outcome <> 'completed' WHERE g.name = 'batch' ORDER BY g.key, h.id;
-- one that says that it is at another one
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() + interval '1 hour' WHERE queue = 'batch';
SELECT (dtx.heartbeat_step(token)).canceled FROM dtx_internal.saga_external WHERE queue = 'batch' AND place = 3;
UPDATE dtx_internal.saga_external SET available_at = clock_timestamp() WHERE queue = 'batch';
SELECT count(*) FROM (SELECT dtx.claim_step('batch', 'third', n => 1000)) AS c;
SELECT g.key, g.state, s.attempts FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.name = 'batch' ORDER BY g.key;
CALL end_all();
-- given back: no attempt; not before a time; how long to wait
SELECT dtx.start_saga('batch', key => 'release') AS id \gset
SELECT count(*) FROM take();
SELECT token FROM dtx.claim_step('batch', 'w') \gset
SELECT dtx.release_step(:'token');
SELECT attempts, state FROM dtx.saga_steps WHERE saga = :id;
SELECT token, attempt FROM dtx.claim_step('batch', 'w', wait => '5 s') \gset
SELECT :attempt;
SELECT dtx.fail_step(:'token', 'rate limit', retry_after => '1 hour');
SELECT due_at - now() BETWEEN '59 min' AND '61 min' AS in_an_hour FROM dtx.saga_steps WHERE saga = :id;
SELECT retry_at - now() BETWEEN '59 min' AND '61 min' AS in_an_hour FROM dtx.saga_history WHERE saga = :id AND outcome = 'failed';
SELECT count(*) FROM dtx.claim_step('batch', 'w', wait => '10 ms');
SELECT count(*) FROM dtx.claim_step('batch', 'w', wait => '1 hour');
SELECT dtx.fail_step(:'token', 'x', retry_after => '-1 s');
SELECT later(:id) > 0 AS later;
SELECT token FROM dtx.claim_step('batch', 'w') \gset
-- a cancel is told to who works on it
SELECT (dtx.heartbeat_step(:'token')).canceled;
SELECT dtx.cancel_saga(:id, 'changed my mind');
SELECT canceled, reason FROM dtx.heartbeat_step(:'token');
SELECT dtx.release_step(:'token');
SELECT state FROM dtx.sagas WHERE id = :id;
DROP TABLE claimed;
