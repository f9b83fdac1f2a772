--
-- Retry policies, pauses, limits and lanes, lists of signals, many sagas at once, finding
-- them.  Executed by workers.
--
\set SHOW_CONTEXT never
CALL end_all();
ALTER SYSTEM RESET pg_dtx.saga_workers;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n > 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
-- only the results that the SQL of a step names are passed to it
SELECT dtx.define_saga('needs', dtx.step('a', execute => 'SELECT 1 AS x'), dtx.step('b b''', execute => 'SELECT 2 AS x'),
	dtx.step('none', execute => 'SELECT 3 AS x'), dtx.step('one', execute => 'SELECT $2->''a'' AS a, $2->''b b'''''' AS b, ($2 ? ''c'') AS c'),
	dtx.step('all', execute => 'SELECT $2 AS all'), dtx.step('by name', execute => 'SELECT $2->($1->>''which'') AS which'));
SELECT position, needs FROM dtx_internal.saga_definition_step_record s JOIN dtx_internal.saga_definition_record d ON d.id = s.definition,
	LATERAL (SELECT s.step AS position) AS p WHERE d.name = 'needs' ORDER BY 1;
SELECT dtx.start_saga('needs', '{"which": "a"}', attributes => '{"customer": 7, "region": "eu"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, CASE WHEN step = 'all' THEN to_jsonb(ARRAY(SELECT k FROM jsonb_object_keys(result->'all') k ORDER BY 1)) ELSE result END AS result
	FROM dtx.saga_steps WHERE saga = :id ORDER BY position;

-- finding
SELECT s = :id AS found FROM dtx.find_sagas(attributes => '{"customer": 7}') AS s;
SELECT s = :id AS found FROM dtx.find_sagas('needs', attributes => '{"region": "eu", "customer": 7}') AS s;
SELECT count(*) FROM dtx.find_sagas(attributes => '{"customer": 8}');
SELECT dtx.start_saga('needs', key => 'found by key') AS id \gset
SELECT s = :id AS found FROM dtx.find_sagas('needs', 'found by key') AS s;
SELECT s = :id AS found FROM dtx.find_sagas(current_user || '.needs', 'found by key') AS s;
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.find_sagas('needs');
SELECT dtx.start_saga('needs', attributes => '[1]');

-- retry policies
CREATE SEQUENCE n_tries;
SELECT dtx.define_saga('policy',
	dtx.step('always', execute => 'SELECT 1 / (CASE WHEN nextval(''n_tries'') < 4 THEN 0 ELSE 1 END)', max_attempts => 10, backoff => '10 ms',
		retry => dtx.retry(factor => 1, jitter => 0, always => '{22012}')),
	dtx.step('never', execute => 'SELECT pg_sleep(3)', timeout => '50 ms', backoff => '10 ms', retry => dtx.retry(never => '{57}')));
SELECT dtx.start_saga('policy') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, outcome, sqlstate, (extract(epoch FROM retry_at - finished_at) * 1000)::int AS pause FROM dtx.saga_history WHERE saga = :id ORDER BY id;
\set VERBOSITY terse
-- for all steps of a definition, but for what they say themselves
SELECT dtx.define_saga('defaults', dtx.step_defaults(max_attempts => 7, compensate_attempts => 8, backoff => '20 ms', max_outage => '1 day',
		retry => dtx.retry(factor => 1, jitter => 0, always => '{22012}')),
	dtx.step('a', execute => $$SELECT 1 / count(*) FROM dtx.saga_history WHERE step = 'a' AND outcome = 'failed' AND saga = ($3->>'saga')::bigint HAVING count(*) < 100$$),
	dtx.step('b', execute => 'SELECT 1', max_attempts => 2, compensate_attempts => 3, backoff => '1 second', max_outage => '1 hour', retry => dtx.retry(factor => 3)),
	dtx.step_sleep('c', '0'), dtx.step_signal('d'), dtx.step_external('e', 'defaults'), dtx.step_saga('f', 'x'));
SELECT step, max_attempts, compensate_attempts, backoff, max_outage, retry FROM dtx.saga_definition_steps WHERE name = 'defaults' ORDER BY position;
SELECT dtx.start_saga('defaults') AS id \gset
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s AND step = ''d''', :id));
SELECT attempts FROM dtx.saga_steps WHERE saga = :id AND step = 'a';
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.define_saga('x', dtx.step_defaults());
SELECT dtx.define_saga('x', dtx.step_defaults(), dtx.step('a', execute => 'SELECT 1'), dtx.step_defaults());
SELECT dtx.define_saga('x', dtx.step_defaults(backoff => '1 ms'), dtx.step('a', execute => 'SELECT 1'));
SELECT dtx.define_saga('x', dtx.step('a', execute => 'SELECT 1', retry => dtx.retry(factor => 0.5)));
SELECT dtx.define_saga('x', dtx.step('a', execute => 'SELECT 1', retry => dtx.retry(always => '{4000}')));
\set VERBOSITY default

-- a saga is paused
SELECT dtx.define_saga('rest', dtx.step_signal('go'), dtx.step('a', execute => 'SELECT 1'));
SELECT dtx.start_saga('rest') AS id \gset
CALL wait_until(format('SELECT count(*) = 1 FROM dtx.waiting WHERE saga = %s', :id));
SELECT dtx.pause_saga(:id, 'not now');
SELECT dtx.signal_saga(:id, 'go');
CALL wait_until(format('SELECT waiting_for = ''dtx.resume_saga()'' FROM dtx.saga_steps WHERE saga = %s AND step = ''a''', :id));
SELECT kind, name = :'id' AS same, reason FROM dtx.saga_pauses;
SELECT state, paused FROM dtx.sagas WHERE id = :id;
SELECT dtx.resume_saga(:id);
SELECT dtx.wait_saga(:id, '60 s');
\set VERBOSITY terse
SELECT replace(error, :'id', 'N') FROM dtx.resume_sagas(ARRAY[:id]);
\set VERBOSITY default
-- a definition
SELECT dtx.pause_saga_definition('needs', 'is wrong');
SELECT dtx.start_saga('needs') AS id \gset
CALL wait_until(format('SELECT waiting_for = ''dtx.resume_saga_definition()'' FROM dtx.saga_steps WHERE saga = %s AND step = ''a''', :id));
SELECT state, paused FROM dtx.sagas WHERE id = :id;
SELECT dtx.resume_saga_definition('needs');
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.resume_saga_definition('needs');
-- a server
SELECT dtx.define_saga('there', dtx.step('a', 'one', 'SELECT 1'));
SELECT dtx.pause_server('one', 'maintenance');
SELECT dtx.start_saga('there') AS id \gset
CALL wait_until(format('SELECT waiting_for = ''server "one", which is paused'' FROM dtx.saga_steps WHERE saga = %s', :id));
SELECT dtx.start_saga('needs') AS other \gset
SELECT dtx.wait_saga(:other, '60 s');
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx.resume_server('one');
SELECT dtx.wait_saga(:id, '60 s');
-- a queue, and its limits
SELECT dtx.define_saga('mail', dtx.step_external('send', 'limited'));
SELECT count(dtx.start_saga('mail')) FROM generate_series(1, 5);
CALL wait_until('SELECT count(*) = 5 FROM dtx.saga_steps WHERE queue = ''limited'' AND state = ''waiting''');
SELECT dtx.pause_queue('limited', 'printer is empty');
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT dtx.resume_queue('limited');
SELECT dtx.set_queue('limited', concurrency => 2);
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT count(dtx.complete_step(token)) FROM dtx_internal.saga_external WHERE queue = 'limited' AND token IS NOT NULL;
SELECT dtx.set_queue('limited', rate => 1, per => '1 hour');
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT dtx.set_queue('limited');
SELECT count(*) FROM dtx.claim_step('limited', 'w', n => 10);
SELECT count(dtx.complete_step(token)) FROM dtx_internal.saga_external WHERE queue = 'limited' AND token IS NOT NULL;

-- one after the other
CREATE TABLE line (n int, what text);
SELECT dtx.define_saga('in line', dtx.step('a', execute => 'INSERT INTO line VALUES (($1->>''n'')::int, ''begin'')'), dtx.step_sleep('pause', '10 ms'),
	dtx.step('b', execute => 'INSERT INTO line VALUES (($1->>''n'')::int, ''end'')'));
SELECT count(dtx.start_saga('in line', jsonb_build_object('n', n), lane => 'customer 7')) FROM generate_series(1, 6) AS n;
SELECT dtx.start_saga('in line', '{"n": 100}', lane => 'customer 8') AS id \gset
CALL wait_until('SELECT count(*) = 7 FROM dtx.sagas WHERE name = ''in line'' AND state = ''completed''');
SELECT string_agg(n || ' ' || what, ', ' ORDER BY ctid) AS line FROM line WHERE n < 100;
SELECT count(*) FROM dtx_internal.saga_lane_record;

-- a list of signals, early ones and late ones
SELECT dtx.define_saga('votes', dtx.step_signal('vote', count => 3));
SELECT dtx.start_saga('votes', key => 'v') AS id \gset
SELECT dtx.signal_saga(:id, 'vote', '"yes"');
CALL wait_until(format('SELECT count(*) = 1 FROM dtx.waiting WHERE saga = %s', :id));
SELECT name, key, signal, role = current_user AS mine, missing, until FROM dtx.waiting WHERE saga = :id;
SELECT dtx.signal_saga(:id, 'vote', '"no"');
SELECT ok, error FROM dtx.signal_sagas(ARRAY[:id], 'vote', '"yes"');
SELECT ok, error FROM dtx.signal_sagas(ARRAY[:id], 'vote', '"too late"');
SELECT dtx.wait_saga(:id, '60 s');
SELECT result FROM dtx.saga_steps WHERE saga = :id;

-- many at once
SELECT dtx.define_saga('many', dtx.step_signal('go'));
SELECT count(dtx.start_saga('many', key => n::text)) FROM generate_series(1, 3) AS n;
SELECT ok, error FROM dtx.pause_sagas(ARRAY(SELECT id FROM dtx.sagas WHERE name = 'many' ORDER BY id), 'test');
SELECT ok, error FROM dtx.resume_sagas(ARRAY(SELECT id FROM dtx.sagas WHERE name = 'many' ORDER BY id));
SELECT ok, regexp_replace(error, '\d+', 'N') AS error FROM dtx.retry_sagas(ARRAY(SELECT id FROM dtx.sagas WHERE name = 'many' ORDER BY id));
SELECT ok, error FROM dtx.cancel_sagas(ARRAY(SELECT id FROM dtx.sagas WHERE name = 'many' ORDER BY id), 'test');
SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated');

-- schedules: when
CREATE FUNCTION next(cron text, zone text, after timestamptz, n int DEFAULT 3) RETURNS SETOF text LANGUAGE sql AS $$
	WITH RECURSIVE t (at, i) AS (SELECT dtx_internal.saga_next_time(cron, zone, after), 1 UNION ALL
		SELECT dtx_internal.saga_next_time(cron, zone, at), i + 1 FROM t WHERE i < n)
	SELECT to_char(at AT TIME ZONE zone, 'Dy YYYY-MM-DD HH24:MI') FROM t $$;
SELECT next('*/20 9-10 * * mon-fri', 'UTC', '2026-01-02 10:30Z', 4);
SELECT next('0 0 29 feb *', 'UTC', '2026-01-01 00:00Z', 2);
SELECT next('0 12 13 * 5', 'UTC', '2026-02-10 00:00Z', 3);
-- the clock is set forward: later, once; set back: once
SELECT next('30 2 * * *', 'Europe/Berlin', '2026-03-28 12:00Z', 3);
SELECT next('30 2 * * *', 'Europe/Berlin', '2026-10-24 12:00Z', 3);
SELECT next('30 2,3 * * *', 'Europe/Berlin', '2026-03-28 12:00Z', 3);
\set VERBOSITY terse
SELECT dtx.schedule_saga('x', 'needs', '61 * * * *');
SELECT dtx.schedule_saga('x', 'needs', '* * * *');
SELECT dtx.schedule_saga('x', 'needs', '0 0 31 feb *');
SELECT dtx.schedule_saga('x', 'needs', '0 0 * * *', zone => 'Nowhere');
SELECT dtx.schedule_saga('x', 'no such saga', '0 0 * * *');
\set VERBOSITY default
-- they start; time passes as the test wants it
SELECT dtx.define_saga('nightly', dtx.step_signal('go'), dtx.step('a', execute => 'SELECT $1->''scheduled_at'' AS at'));
SELECT dtx.schedule_saga('every night', 'nightly', '30 2 * * *', '{"n": 1}', zone => 'Europe/Berlin') > now() AS later;
SELECT schedule, name, cron, zone, overlap, catch_up, last_at, last_outcome, next_at > now() AS later FROM dtx.saga_schedules;
SELECT dtx.advance_time('25 hours') >= 0 AS advanced;
CALL wait_until('SELECT last_outcome = ''started'' FROM dtx.saga_schedules');
SELECT id, input - 'scheduled_at' AS input, input ? 'scheduled_at' AS at, attributes FROM dtx.sagas WHERE name = 'nightly' \gset
\echo :input :at :attributes
SELECT dtx.advance_time('25 hours') >= 0 AS advanced;
CALL wait_until('SELECT last_outcome LIKE ''skipped%'' FROM dtx.saga_schedules');
SELECT last_outcome FROM dtx.saga_schedules;
SELECT dtx.pause_schedule('every night', 'holidays');
SELECT paused, next_at FROM dtx.saga_schedules;
SELECT dtx.resume_schedule('every night') > now() AS later;
SELECT dtx.resume_schedule('every night');
SELECT dtx.unschedule_saga('every night');
SELECT count(*) FROM dtx.sagas WHERE name = 'nightly';
SELECT dtx.cancel_saga(:id, 'test');
-- a sleep and a deadline pass
SELECT dtx.define_saga('patient one', dtx.step_sleep('a', '150 days'));
SELECT dtx.start_saga('patient one') AS id \gset
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s', :id));
SELECT dtx.advance_time('149 days') > 0 AS advanced;
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT dtx.advance_time('1 day') > 0 AS advanced;
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.advance_time('-1 s');

-- what would be done
SELECT dtx.define_saga('plan', dtx.step('a', 'one', 'SELECT 1', 'SELECT -1', after => '{}'), dtx.step('b', execute => 'SELECT $2->''a'', $2->''c''', after => '{}'),
	dtx.step('c', execute => 'SELECT $2->''a''', kind => 'pivot', after => '{a,b}', only_if => '$1 ? ''c'''), dtx.step_saga('d', 'no such saga', kind => 'retriable'));
SELECT position, step, kind, after, place, sql, undo, problem FROM dtx.dry_run('plan');
-- pictures
SELECT dtx.explain_saga('plan', 'mermaid');
SELECT dtx.explain_saga('plan', 'dot');
SELECT dtx.explain_saga('plan', 'text');
SELECT dtx.explain_saga('plan', 'json')::jsonb->'steps'->2;
SELECT replace(dtx.explain_saga(:id, 'mermaid'), :'id', 'N');
SELECT dtx.explain_saga('plan', 'png');
-- queues and durations
SELECT dtx.set_queue('limited', concurrency => 5);
SELECT count(dtx.start_saga('mail')) FROM generate_series(1, 3);
CALL wait_until('SELECT count(*) = 3 FROM dtx.saga_steps WHERE queue = ''limited'' AND state = ''waiting''');
SELECT count(*) FROM dtx.claim_step('limited', 'w');
SELECT queue, length, in_hands, oldest IS NOT NULL AS waits, concurrency, rate, paused FROM dtx.saga_queues WHERE queue = 'limited';
SELECT dtx.set_queue('limited');
SELECT le, sagas FROM dtx.saga_durations WHERE name = 'votes' AND le >= 60 ORDER BY le;
CALL end_all();
