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
SELECT count(*) FROM dtx.claim('printer', 'w1');
SELECT step FROM take();
SELECT count(*) FROM dtx.claim('printer', 'w1');
SELECT done(:id, 'pack', '{"box": 7}');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT queue, worker FROM dtx.saga_steps WHERE saga = :id AND step = 'print';
SELECT count(*) FROM dtx.claim('post', 'w1');
SELECT token, saga = :id AS same, name, step, action, attempt, payload, input, results, lease_until - now() < '2 min' AS lease
	FROM dtx.claim('printer', 'w1', '1 min') \gset t_
\echo :t_same :t_name :t_step :t_action :t_attempt :t_payload :t_input :t_results :t_lease
SELECT count(*) FROM dtx.claim('printer', 'w2');
SELECT queue, worker, state, attempts, due_at > now() AS due_later FROM dtx.saga_steps WHERE saga = :id AND step = 'print';
SELECT dtx.heartbeat(:'t_token', '1 hour') - now() BETWEEN '59 min' AND '61 min' AS longer;
SELECT dtx.heartbeat(:'t_token') - now() BETWEEN '59 min' AND '61 min' AS same;
SELECT dtx.complete(:'t_token', '{"label": "L1"}');
-- a token is good for one report
\set VERBOSITY terse
SELECT dtx.complete(:'t_token');
\set VERBOSITY default
SELECT dtx.complete('00000000-0000-0000-0000-000000000000');
\set VERBOSITY terse
SELECT * FROM steps(:id);
SELECT step FROM take();
-- it failed, but may go well later
SELECT token FROM dtx.claim('post', 'w1') \gset
SELECT dtx.fail(:'token', 'no stamps');
SELECT * FROM steps(:id);
SELECT count(*) FROM dtx.claim('post', 'w1');
SELECT later(:id);
SELECT attempt, results FROM dtx.claim('post', 'w2');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.complete(:'token');
SELECT step FROM take();
SELECT token FROM dtx.claim('mails', 'w1') \gset
SELECT dtx.complete(:'token', '"sent"');
SELECT * FROM steps(:id);
SELECT * FROM history(:id);
SELECT state FROM dtx.sagas WHERE id = :id;

-- it is not offered in the transaction that has done the step before: that may not
-- be confirmed by all servers yet
SELECT dtx.start_saga('parcel') AS id \gset
SELECT step FROM take();
BEGIN;
SELECT done(:id, 'pack');
SELECT saga, step, more FROM dtx._saga_take(current_user::regrole, :id);
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
			PERFORM dtx.complete(c.token) FROM dtx.claim(queue, 'w') c;
		END IF;
	END LOOP;
	RETURN id;
END
$$;
-- a lease that is over: the token changes nothing, and says so
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim('printer', 'slow', '1 hour') \gset
UPDATE dtx.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT dtx.complete(:'token');
SELECT dtx.fail(:'token', 'x');
SELECT dtx.heartbeat(:'token');
SELECT * FROM steps(:id) WHERE step = 'print';
-- the next one can have it at once, whoever looks first: he himself, ...
SELECT attempt, worker, lease_until > now() AS lease FROM dtx.claim('printer', 'quick') c JOIN dtx.saga_steps s USING (saga, step);
SELECT dtx.complete(:'token');
SELECT * FROM history(:id) WHERE step = 'print';
-- ... or the scheduler
UPDATE dtx.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
UPDATE dtx.saga_step SET due_at = clock_timestamp() WHERE saga = :id AND step = 2;
SELECT step FROM take();
SELECT * FROM steps(:id) WHERE step = 'print';
SELECT attempt FROM dtx.claim('printer', 'third');
SELECT * FROM history(:id) WHERE step = 'print';
-- attempts are limited.  What has been lost may have been done, so it is undone
UPDATE dtx.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT count(*) FROM dtx.claim('printer', 'fourth');
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT count(*) FROM dtx.claim('printer', 'fourth');
SELECT step, action, attempt, payload FROM dtx.claim('shredder', 's1');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.fail(:'token', 'jam');
SELECT later(:id);
SELECT step FROM take();
SELECT attempt FROM dtx.claim('shredder', 's1');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.fail(:'token', 'jam again');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT attempt FROM dtx.claim('shredder', 's1');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.complete(:'token', '"no result of a compensation"');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
SELECT * FROM history(:id);

-- failed for good: nothing was done, so there is nothing to undo of this one
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim('printer', 'w') \gset
SELECT dtx.fail(:'token', 'no such address', retry => false);
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT done(:id, 'pack');
-- a pivot likewise
SELECT parcel('send') AS id \gset
SELECT token FROM dtx.claim('post', 'w') \gset
SELECT dtx.cancel_saga(:id, 'too late');
SELECT dtx.fail(:'token', 'no such address', retry => false);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT action, step FROM dtx.claim('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');
-- but if nobody knows whether a pivot was done, nobody but an operator can decide
SELECT parcel('send') AS id \gset
SELECT attempt FROM dtx.claim('post', 'w');
UPDATE dtx.saga_external SET available_at = clock_timestamp() WHERE saga = :id;
SELECT attempt FROM dtx.claim('post', 'w');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.fail(:'token', 'no such address', retry => false);
SELECT state, reason FROM dtx.sagas WHERE id = :id;
SELECT dtx.cancel_saga(:id, 'no');
SELECT dtx.skip_step(:id, 'send', 'the parcel has arrived');
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT dtx.force_saga(:id, 'completed', 'test');
-- a retriable one: after all attempts, or if the worker says so
SELECT parcel('mail') AS id \gset
SELECT token FROM dtx.claim('mails', 'w') \gset
SELECT dtx.fail(:'token', 'mailbox is full');
SELECT dtx.retry_saga(:id);
SELECT attempt FROM dtx.claim('mails', 'w');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
SELECT dtx.fail(:'token', 'mailbox is full');
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT token FROM dtx.claim('mails', 'w') \gset
SELECT dtx.fail(:'token', 'no such user', retry => false);
SELECT dtx.skip_step(:id, 'mail', 'called by phone');
SELECT * FROM history(:id) WHERE step = 'mail' OR step IS NULL;
-- not in time
SELECT parcel('mail') AS id \gset
SELECT later(:id);
SELECT count(*) FROM dtx.claim('mails', 'w');
SELECT step FROM take();
SELECT dtx.retry_saga(:id);
SELECT step FROM take();
SELECT count(*) FROM dtx.claim('mails', 'w');
SELECT token FROM dtx.saga_external WHERE saga = :id \gset
UPDATE dtx.saga_step SET due_at = clock_timestamp(), since = since - interval '1 day' WHERE saga = :id AND step = 4;
SELECT step FROM take();
SELECT dtx.complete(:'token');
SELECT * FROM history(:id) WHERE step = 'mail';
SELECT dtx.force_saga(:id, 'completed', 'test');

-- canceled while nobody has it: gone from the queue
SELECT parcel('print') AS id \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT count(*) FROM dtx.claim('printer', 'w');
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- while somebody has it: he may complete, and it is undone then
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT * FROM steps(:id);
SELECT dtx.heartbeat(:'token') > now() AS goes_on;
SELECT dtx.complete(:'token');
SELECT * FROM steps(:id);
SELECT step FROM take();
SELECT token, action FROM dtx.claim('shredder', 'w') \gset
\echo :action
SELECT dtx.complete(:'token');
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- or fail, which is not tried again
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.fail(:'token', 'jam');
SELECT * FROM steps(:id);
SELECT step, direction FROM take();
SELECT done(:id, 'pack');
-- or go away: it may have been done
SELECT parcel('print') AS id \gset
SELECT token FROM dtx.claim('printer', 'w') \gset
SELECT dtx.cancel_saga(:id, 'test');
SELECT later(:id);
SELECT step FROM take();
SELECT * FROM steps(:id);
SELECT action, step FROM dtx.claim('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');
-- canceled between two attempts, one of which was lost
SELECT parcel('print') AS id \gset
SELECT attempt FROM dtx.claim('printer', 'w');
SELECT later(:id);
SELECT step FROM take();
SELECT dtx.cancel_saga(:id, 'test');
SELECT step FROM take();
SELECT action, step FROM dtx.claim('shredder', 'w');
SELECT dtx.force_saga(:id, 'compensated', 'test');

-- a worker that has done its work in the database as well: together, or not at all
CREATE TABLE printed (saga bigint);
SELECT parcel('print') AS id \gset
BEGIN;
SELECT token FROM dtx.claim('printer', 'w') \gset
INSERT INTO printed VALUES (:id);
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT dtx.complete(:'token');
ROLLBACK;
SELECT * FROM steps(:id) WHERE step = 'print';
BEGIN;
SELECT token FROM dtx.claim('printer', 'w') \gset
INSERT INTO printed VALUES (:id);
UPDATE acct1 SET bal = 1 WHERE id = 1;
SELECT dtx.complete(:'token');
COMMIT;
SELECT * FROM steps(:id) WHERE step = 'print';
DROP TABLE printed;
SELECT dtx.force_saga(:id, 'compensated', 'test');

-- several at once, the oldest first
CALL end_all();
SELECT count(parcel('print')) FROM generate_series(1, 5);
SELECT count(*) FROM dtx.claim('printer', 'w', n => 3);
SELECT rank() OVER (ORDER BY saga) AS nth, worker FROM dtx.saga_steps WHERE queue = 'printer' ORDER BY saga;
SELECT count(*) FROM dtx.claim('printer', 'w', n => 3);
SELECT count(*) FROM dtx.claim('printer', 'w', n => 3);
CALL end_all();
SELECT count(*) FROM dtx.saga_external;
-- claims look at what they can have, not at the backlog
INSERT INTO dtx.saga_external (saga, step, database, role, queue, available_at)
	SELECT -i, 1, dtx._saga_database(), current_user::regrole::oid, 'printer', '2100-01-01' FROM generate_series(1, 1000) i;
SELECT parcel('print') AS id \gset
BEGIN;
SELECT idx_tup_fetch AS fetched, seq_tup_read AS read FROM pg_stat_xact_user_tables WHERE relid = 'dtx.saga_external'::regclass \gset
SELECT step FROM dtx.claim('printer', 'w', n => 3);
SELECT idx_tup_fetch - :fetched < 30 AS few, seq_tup_read - :read AS scanned
	FROM pg_stat_xact_user_tables WHERE relid = 'dtx.saga_external'::regclass;
COMMIT;
DELETE FROM dtx.saga_external WHERE saga < 0;
CALL end_all();
-- neither do workers and scheduler of the sagas
SELECT count(dtx.start_saga('chain', run_at => '2100-01-01')) FROM generate_series(1, 1000);
SELECT dtx.start_saga('chain') AS id \gset
BEGIN;
SELECT idx_tup_fetch AS fetched, seq_tup_read AS read FROM pg_stat_xact_user_tables WHERE relid = 'dtx.saga_step'::regclass \gset
SELECT due FROM dtx._saga_schedule();
SELECT step FROM dtx._saga_take(current_user::regrole);
SELECT dtx._saga_any();
SELECT idx_tup_fetch - :fetched < 30 AS few, seq_tup_read - :read AS scanned
	FROM pg_stat_xact_user_tables WHERE relid = 'dtx.saga_step'::regclass;
COMMIT;
CALL end_all();
-- results that would be too large for the saga to end
SELECT dtx.define_saga('large', dtx.step_external('a', 'large', after => '{}'), dtx.step_external('b', 'large', after => '{}'),
	dtx.step_signal('c', after => '{}'), dtx.step('d', NULL, 'SELECT repeat($$x$$, 60000000)', after => '{}'));
SELECT dtx.start_saga('large') AS id \gset
SELECT step FROM take();
SELECT count(*) FROM take();
CREATE TEMP TABLE token AS SELECT step, token FROM dtx.claim('large', 'w', n => 2);
SELECT dtx.complete(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'a';
SELECT dtx.complete(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'b';
SELECT dtx.signal_saga(:id, 'c', to_jsonb(repeat('x', 60000000)));
SELECT dtx.skip_step(:id, 'c', 'test', to_jsonb(repeat('x', 60000000)));
SELECT dtx._saga_done(saga, position, attempts, 'execute', to_jsonb(repeat('x', 60000000)))
	FROM dtx.saga_steps WHERE saga = :id AND step = 'd';
SELECT dtx.signal_saga(:id, 'c', to_jsonb(repeat('x', 30000000)));
SELECT dtx.complete(token, to_jsonb(repeat('x', 60000000))) FROM token WHERE step = 'b';
SELECT dtx.complete(token, '1') FROM token WHERE step = 'b';
SELECT dtx.force_saga(:id, 'compensated', 'test');
SELECT length(payload::text) FROM dtx.saga_outbox WHERE saga = :id;
DROP TABLE token;

-- errors
SELECT * FROM dtx.claim(NULL, 'w');
SELECT * FROM dtx.claim('', 'w');
SELECT * FROM dtx.claim('q', NULL);
SELECT * FROM dtx.claim('q', '');
SELECT * FROM dtx.claim('q', 'w', '0');
SELECT * FROM dtx.claim('q', 'w', '-1 s');
SELECT * FROM dtx.claim('q', 'w', NULL);
SELECT * FROM dtx.claim('q', 'w', n => 0);
SELECT * FROM dtx.claim('q', 'w', n => 1001);
SELECT * FROM dtx.claim('q', 'w', n => NULL);
SELECT * FROM dtx.claim('no such queue', 'w');
SELECT dtx.complete(NULL);
SELECT dtx.fail(NULL, 'x');
SELECT dtx.fail('00000000-0000-0000-0000-000000000000', NULL);
SELECT dtx.fail('00000000-0000-0000-0000-000000000000', ' ');
SELECT dtx.fail('00000000-0000-0000-0000-000000000000', 'x', NULL);
SELECT dtx.fail('00000000-0000-0000-0000-000000000000', 'x');
SELECT dtx.heartbeat(NULL);
SELECT dtx.heartbeat('00000000-0000-0000-0000-000000000000');
SELECT dtx.heartbeat('00000000-0000-0000-0000-000000000000', '0');
