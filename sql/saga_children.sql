--
-- Steps that are sagas, one or one for each item of a list; conditions and expressions; what a
-- step knows of itself.  Executed by workers.
--
\set SHOW_CONTEXT never
CALL end_all();
ALTER SYSTEM RESET pg_dtx.saga_workers;
SELECT pg_reload_conf();
CALL wait_until($$SELECT n > 0 FROM dtx.query('one', 'SHOW pg_dtx.saga_workers') AS t(n int)$$);
CREATE TABLE done (saga bigint, what text);
-- "t" is a step that notes that it was done, and that it was undone, and fails if the input says so
CREATE FUNCTION t(name text, after text[] DEFAULT NULL, only_if text DEFAULT NULL) RETURNS dtx.step_spec LANGUAGE sql
RETURN dtx.step(name, execute => format('INSERT INTO done SELECT ($3->>''saga'')::bigint, %L WHERE 1 / (CASE WHEN $1->>''fail'' = %1$L THEN 0 ELSE 1 END) = 1 RETURNING what', name),
	compensate => format('INSERT INTO done VALUES (($3->>''saga'')::bigint, %L)', 'no ' || name), after => after, only_if => only_if);
-- what was done for a saga and those that are its steps, in order within each
CREATE FUNCTION did(id bigint) RETURNS TABLE (name text, state dtx.saga_state, did text, reason text) LANGUAGE sql SET jit = off AS $$
	WITH RECURSIVE s (id) AS (VALUES (did.id) UNION ALL SELECT g.id FROM s JOIN dtx_internal.saga_record g ON g.parent = s.id)
	SELECT g.name, g.state, (SELECT string_agg(d.what, ', ' ORDER BY d.ctid) FROM done d WHERE d.saga = g.id),
		regexp_replace(g.reason, 'saga \d+', 'saga N', 'g') FROM s, LATERAL (SELECT x.* FROM dtx.sagas x WHERE x.id = s.id OFFSET 0) AS g ORDER BY g.id
$$;
CREATE PROCEDURE finish(id bigint, state text) LANGUAGE plpgsql AS $$
BEGIN
	CALL wait_until(format('SELECT state = %L FROM dtx.sagas WHERE id = %s', finish.state, finish.id));
END
$$;

-- what a step knows of its saga, on servers, too
SELECT dtx.define_saga('who am I', dtx.step('here', execute => 'SELECT $3 AS me'), dtx.step('there', 'one', 'SELECT $3->>''saga'' AS saga, $3->>''step'' AS step'));
SELECT dtx.start_saga('who am I', key => 'k') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT r->>'step' AS step, r->>'attempt' AS attempt, r->>'action' AS action, r->>'key' AS key, r->'saga' = to_jsonb(:id) AS saga,
	r->>'idempotency_key' LIKE '%/' || :id || '/here' AS idempotency_key, r ? 'started_at' AS started_at, r->>'parent' AS parent
	FROM (SELECT result->'me' AS r FROM dtx.saga_steps WHERE saga = :id AND position = 1) AS s;
SELECT result->>'saga' = :id::text AS saga, result->>'step' AS step FROM dtx.saga_steps WHERE saga = :id AND position = 2;

-- a saga that is a step: its result
SELECT dtx.define_saga('child', t('one'), t('two'));
SELECT dtx.define_saga('parent', t('before'), dtx.step_saga('child', 'child', input => '$1 || jsonb_build_object(''from'', $2->''before''->>''what'')', event => 'child done'), t('after'));
SELECT * FROM dtx.explain_saga('parent');
SELECT dtx.start_saga('parent', '{"n": 1}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
SELECT step, state, attempts, result FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
SELECT input FROM dtx.sagas WHERE parent = :id;
SELECT (SELECT sagas FROM dtx.saga_steps WHERE saga = :id AND step = 'child') = ARRAY[id] AS same FROM dtx.sagas WHERE parent = :id;
-- its failure is that of the step
SELECT dtx.start_saga('parent', '{"fail": "two"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
-- what comes after it fails: it is undone with the rest
SELECT dtx.start_saga('parent', '{"fail": "after"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
-- a cancel passes down
SELECT dtx.define_saga('child', t('one'), dtx.step_signal('never'), t('two'));
SELECT dtx.start_saga('parent') AS id \gset
CALL wait_until(format('SELECT EXISTS (SELECT FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.parent = %s AND s.state = ''waiting'')', :id));
SELECT regexp_replace(waiting_for, '\d+', 'N') AS waiting_for FROM dtx.saga_steps WHERE saga = :id AND step = 'child';
SELECT dtx.cancel_saga(:id, 'not wanted');
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
-- and up
SELECT dtx.start_saga('parent') AS id \gset
CALL wait_until(format('SELECT EXISTS (SELECT FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.parent = %s AND s.state = ''waiting'')', :id));
SELECT dtx.cancel_saga(id, 'not wanted') FROM dtx.sagas WHERE parent = :id;
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
-- a deadline, and a timeout of the step
SELECT dtx.start_saga('parent', deadline => clock_timestamp() + interval '1 s') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
SELECT dtx.define_saga('in time', t('before'), dtx.step_saga('child', 'child', timeout => '500 ms'));
SELECT dtx.start_saga('in time') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
-- one that has failed is waited for
SELECT dtx.define_saga('child', dtx.step('one', execute => 'SELECT 1 / (SELECT count(*) FROM done WHERE what = ''go'')', kind => 'retriable'));
SELECT dtx.define_saga('patient', dtx.step_saga('child', 'child', kind => 'pivot'), dtx.step('end', execute => 'SELECT 1', kind => 'retriable'));
SELECT dtx.start_saga('patient') AS id \gset
CALL wait_until(format('SELECT EXISTS (SELECT FROM dtx.sagas WHERE parent = %s AND state = ''failed'')', :id));
SELECT state, regexp_replace(waiting_for, '\d+', 'N') AS waiting_for FROM dtx.saga_steps WHERE saga = :id AND step = 'child';
\set VERBOSITY terse
SELECT replace(error, :'id', 'N') FROM dtx.cancel_sagas(ARRAY[:id], 'too late') AS c (saga, ok, state, error);
\set VERBOSITY default
INSERT INTO done VALUES (0, 'go');
SELECT dtx.retry_saga(id) FROM dtx.sagas WHERE parent = :id;
SELECT dtx.wait_saga(:id, '60 s');
-- one that cannot be undone is no compensatable step
SELECT dtx.define_saga('wrong kind', dtx.step_saga('child', 'child'));
SELECT dtx.start_saga('wrong kind') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;
-- nor one that there is not, nor one without end
SELECT dtx.define_saga('nothing', dtx.step_saga('child', 'no such saga', after => '{}'));
SELECT dtx.start_saga('nothing') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;
SELECT dtx.define_saga('endless', dtx.step_saga('again', 'endless'));
SELECT dtx.start_saga('endless') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT count(*), count(*) FILTER (WHERE state = 'compensated') AS compensated FROM dtx.sagas WHERE name = 'endless';
-- retriable: again, until it is completed
CREATE SEQUENCE tries;
SELECT dtx.define_saga('child', dtx.step('one', execute => 'SELECT 1 / (SELECT CASE WHEN nextval(''tries'') < 3 THEN 0 ELSE 1 END)'));
SELECT dtx.define_saga('again', dtx.step_saga('child', 'child', kind => 'retriable', backoff => '10 ms'));
SELECT dtx.start_saga('again') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT attempts FROM dtx.saga_steps WHERE saga = :id;

-- one for each item
SELECT dtx.define_saga('item', t('one'), dtx.step('price', execute => 'SELECT 10 * ($1->>''n'')::int AS price'));
SELECT dtx.define_saga('all', t('before'), dtx.step_each('items', '$1->''items''', 'item', max_parallel => 2), t('after'));
SELECT * FROM dtx.explain_saga('all');
SELECT dtx.start_saga('all', '{"items": [{"n": 1}, {"n": 2}, {"n": 3}, {"n": 4}, {"n": 5}]}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT jsonb_path_query_array(result, '$[*].price.price') AS prices, cardinality(sagas) FROM dtx.saga_steps WHERE saga = :id AND step = 'items';
SELECT dtx.start_saga('all', '{"items": []}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT result FROM dtx.saga_steps WHERE saga = :id AND step = 'items';
-- one of them fails: the others are undone
SELECT dtx.start_saga('all', '{"items": [{"n": 1}, {"n": 2}, {"n": 3, "fail": "one"}, {"n": 4}]}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT (SELECT count(*) FROM dtx.sagas WHERE parent = :id AND state = 'compensated') = count(*) AS all_undone FROM dtx.sagas WHERE parent = :id;
SELECT sum(CASE WHEN what LIKE 'no %' THEN -1 ELSE 1 END) AS left FROM done WHERE saga = :id OR saga IN (SELECT id FROM dtx.sagas WHERE parent = :id);
-- what comes after fails
SELECT dtx.start_saga('all', '{"fail": "after", "items": [{"n": 1}, {"n": 2}, {"n": 3}]}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT state, count(*) FROM dtx.sagas WHERE parent = :id GROUP BY 1;
SELECT sum(CASE WHEN what LIKE 'no %' THEN -1 ELSE 1 END) AS left FROM done WHERE saga = :id OR saga IN (SELECT id FROM dtx.sagas WHERE parent = :id);
-- no list
SELECT dtx.start_saga('all', '{"items": 7}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;

-- conditions: what is not to be done is skipped, also by what is undone
SELECT dtx.define_saga('if', t('a', only_if => '$1->>''a'' = ''yes'''), t('b', only_if => '$2 ? ''a'' -- done?'),
	dtx.step_sleep('pause', '1 hour', only_if => 'false'), dtx.step_external('mail', 'mails', only_if => 'NULL::boolean'),
	dtx.step_signal('wait', only_if => '$1 ? ''wait'''), dtx.step_saga('child', 'child', only_if => 'false'), t('end'));
SELECT * FROM dtx.explain_saga('if');
SELECT dtx.start_saga('if', '{"a": "no"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, state FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
SELECT step, action, outcome FROM dtx.saga_history WHERE saga = :id ORDER BY id;
SELECT dtx.start_saga('if', '{"a": "yes", "fail": "end"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT step, state FROM dtx.saga_steps WHERE saga = :id ORDER BY position;
SELECT did FROM did(:id);
-- true, where no worker is needed
SELECT dtx.define_saga('if 2', dtx.step_signal('wait', only_if => '$1 ? ''wait'''), dtx.step_external('mail', 'mails 2', only_if => 'true'));
SELECT dtx.start_saga('if 2', '{"wait": 1}') AS id \gset
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s AND step = ''wait''', :id));
SELECT dtx.signal_saga(:id, 'wait', '1');
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s AND step = ''mail''', :id));
SELECT dtx.complete_step(token) FROM dtx.claim_step('mails 2', 'w');
SELECT dtx.wait_saga(:id, '60 s');
-- a condition does nothing, and one that fails is a failure of the step
SELECT dtx.define_saga('if 3', t('a'), t('b', only_if => '(WITH x AS (INSERT INTO done VALUES (1) RETURNING 1) SELECT true FROM x)'));
SELECT dtx.start_saga('if 3') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.define_saga('if 3', t('a'), t('b', only_if => 'nextval(''tries'') > 0'));
SELECT dtx.start_saga('if 3') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;

-- until
SELECT dtx.define_saga('until', dtx.step_sleep('a', until => '($1->>''at'')::timestamptz'), t('b'));
SELECT dtx.start_saga('until', '{"at": "2001-01-01 00:00+00"}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.start_saga('until', '{"at": "2999-01-01 00:00+00"}') AS id \gset
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s AND step = ''a''', :id));
SELECT due_at = '2999-01-01 00:00+00' AS due FROM dtx.saga_steps WHERE saga = :id AND step = 'a';
SELECT dtx.skip_step(:id, 'a', 'test');
SELECT dtx.wait_saga(:id, '60 s');
SELECT dtx.start_saga('until', '{}') AS id \gset
SELECT dtx.wait_saga(:id, '60 s');
SELECT reason FROM dtx.sagas WHERE id = :id;
-- errors
\set VERBOSITY terse
SELECT dtx.define_saga('x', dtx.step_sleep('a'));
SELECT dtx.define_saga('x', dtx.step_sleep('a', '1 s', until => 'now()'));
SELECT dtx.define_saga('x', dtx.step_saga('a', ''));
SELECT dtx.define_saga('x', dtx.step_each('a', NULL, 'item'));
SELECT dtx.define_saga('x', dtx.step_each('a', '$1', 'item', max_parallel => 0));
SELECT dtx.define_saga('x', dtx.step('a', execute => 'SELECT 1', only_if => ' '));
SELECT dtx.define_saga('x', dtx.step('p', execute => 'SELECT 1', kind => 'pivot'), dtx.step_saga('a', 'child'));
\set VERBOSITY default
-- a saga that is a step is kept as long as the one whose step it is
SELECT dtx.define_saga('child', t('one'));
SELECT dtx.define_saga('keep', dtx.step_saga('child', 'child'), dtx.step_signal('go'));
SELECT dtx.start_saga('keep') AS id \gset
CALL wait_until(format('SELECT state = ''waiting'' FROM dtx.saga_steps WHERE saga = %s AND step = ''go''', :id));
SELECT dtx.purge_sagas('0') > 0 AS purged;
SELECT name FROM dtx.sagas WHERE parent = :id;
SELECT dtx.cancel_saga(:id, 'test');
SELECT dtx.wait_saga(:id, '60 s');
SELECT * FROM did(:id);
SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated');


-- an external worker that reports too late, after the undo was offered
SELECT dtx.define_saga('zombie', dtx.step_external('do', 'zombie', compensate_queue => 'zombie undo', max_attempts => 1));
SELECT dtx.start_saga('zombie') AS id \gset
SELECT token FROM dtx.claim_step('zombie', 'slow', '100 ms', wait => '30 s') \gset
SELECT token AS undo FROM dtx.claim_step('zombie undo', 'undo', wait => '30 s') \gset
SELECT dtx.complete_step(:'undo');
SELECT dtx.wait_saga(:id, '60 s');
SELECT count(*) FROM dtx.saga_damage WHERE saga = :id;
\set VERBOSITY terse
BEGIN;
INSERT INTO done VALUES (0, 'by a zombie');
SELECT dtx.complete_step(:'token');
ROLLBACK;
\set VERBOSITY default
CALL wait_until(format('SELECT count(*) = 1 FROM dtx.saga_damage WHERE saga = %s', :id));
SELECT step, role = current_user AS mine, worker FROM dtx.saga_damage WHERE saga = :id;
SELECT action, outcome, message, by_whom FROM dtx.saga_history WHERE saga = :id ORDER BY id;
SELECT item, next_step FROM dtx.overview() WHERE item = 'DAMAGE';
SELECT dtx.acknowledge_saga_damage(:id, 'do', '');
SELECT dtx.acknowledge_saga_damage(:id, 'do', 'booking HX-3 was canceled by telephone');
SELECT count(*) FROM dtx.saga_damage WHERE saga = :id;
\set VERBOSITY terse
SELECT dtx.acknowledge_saga_damage(0, 'do', 'again');
\set VERBOSITY default
-- one that is only tried again is none
SELECT dtx.define_saga('zombie', dtx.step_external('do', 'zombie', compensate_queue => 'zombie undo', max_attempts => 2));
SELECT dtx.start_saga('zombie') AS id \gset
SELECT token AS first FROM dtx.claim_step('zombie', 'slow', '100 ms', wait => '30 s') \gset
SELECT token FROM dtx.claim_step('zombie', 'quick', wait => '30 s') \gset
\set VERBOSITY terse
SELECT dtx.complete_step(:'first');
\set VERBOSITY default
CALL wait_until(format('SELECT EXISTS (SELECT FROM dtx.saga_history WHERE saga = %s AND outcome = ''late'')', :id));
SELECT dtx.complete_step(:'token');
SELECT dtx.wait_saga(:id, '60 s');
SELECT count(*) FROM dtx.saga_damage WHERE saga = :id;
DROP FUNCTION t, did;
