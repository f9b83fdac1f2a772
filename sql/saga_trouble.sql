--
-- What is no fault of a step: servers that are away, others that have locked or changed
-- the same, and what workers cannot report because the saga is locked.  There are no
-- workers, see saga_define.sql.
--
\set SHOW_CONTEXT never
CALL begin_test();
CALL end_all();
CREATE FUNCTION error_at(id bigint, step text, code text, server text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	PERFORM dtx_internal.saga_error(error_at.id, s.position, 1,
			CASE s.state WHEN 'compensating' THEN 'compensate' ELSE 'execute' END, error_at.code, 'it is away', NULL, NULL, clock_timestamp(), error_at.server)
		FROM dtx.saga_steps s WHERE s.saga = error_at.id AND s.step = error_at.step;
	-- (nobody tries before the test says so)
	UPDATE dtx_internal.saga_outage SET probe_at = now() + interval '1 hour';
	RETURN (SELECT g.state || ' ' || coalesce('waiting for ' || g.waiting_for, '-') FROM dtx.sagas g WHERE g.id = error_at.id);
END
$$;
CREATE FUNCTION probe() RETURNS void LANGUAGE sql AS 'UPDATE dtx_internal.saga_outage SET probe_at = now() - interval ''1 ms''';
CREATE VIEW waiting AS SELECT g.key, s.step, s.state, s.attempts, s.waiting_for
	FROM dtx.saga_steps s JOIN dtx.sagas g ON g.id = s.saga WHERE g.state NOT IN ('completed', 'compensated') AND s.due_at IS NOT NULL ORDER BY 1, 2;
SELECT dtx.define_saga('away',
	dtx.step('a', server => 'one', execute => 'SELECT 1', compensate => 'SELECT -1', max_attempts => 1, compensate_attempts => 1));

-- a server is away: no attempt is used up, one at a time tries, the others keep their places
SELECT count(dtx.start_saga('away', key => 'saga ' || i)) FROM generate_series(1, 3) AS i;
SELECT id AS first FROM dtx.sagas WHERE key = 'saga 1' \gset
SELECT saga = :first AS is_first, attempt FROM take();
SELECT error_at(:first, 'a', '08001', 'one');
TABLE waiting;
SELECT count(*) FROM take();
SELECT probe();
SELECT saga = :first AS is_first, attempt FROM take();
SELECT count(*) FROM take();
SELECT error_at(:first, 'a', '53300', 'one');
SELECT * FROM history(:first);
SELECT e FROM dtx.explain_saga(:first) AS e WHERE e ~ 'waiting for server "one"' AND e !~ 'attempt';
-- it answers: all go on, in their order
SELECT probe();
SELECT saga = :first AS is_first, attempt FROM take();
SELECT done(:first, 'a');
TABLE waiting;
SELECT g.key FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT done(id, 'a') FROM dtx.sagas WHERE key = 'saga 2';
SELECT g.key FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
-- an answer that is an error is one, too
SELECT error_at(id, 'a', '08001', 'one') FROM dtx.sagas WHERE key = 'saga 3';
SELECT probe();
SELECT count(*) FROM take();
SELECT error_at(id, 'a', '22012', 'one') FROM dtx.sagas WHERE key = 'saga 3';
SELECT count(*) FROM dtx_internal.saga_outage;

-- it goes while it executes a step: so it does not for ever, because the step may do that
SELECT dtx.start_saga('away', key => 'lost') AS id \gset
CREATE PROCEDURE go_on(id bigint, code text, server text, times integer) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. times LOOP
		PERFORM probe(), later(id);
		PERFORM take();
		PERFORM error_at(id, 'a', code, server);
		COMMIT;
	END LOOP;
END
$$;
CALL go_on(:id, '08006', 'one', 10);
SELECT state, attempts, waiting_for FROM dtx.saga_steps WHERE saga = :id;
CALL go_on(:id, '08006', 'one', 1);
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT outcome, sqlstate, count(*) FROM dtx.saga_history WHERE saga = :id GROUP BY 1, 2 ORDER BY 3 DESC;
DELETE FROM dtx_internal.saga_outage;

-- compensations wait, too
SELECT dtx.define_saga('back', dtx.step('a', server => 'one', execute => 'SELECT 1', compensate => 'SELECT -1', compensate_attempts => 1),
	dtx.step('b', execute => 'SELECT 1', max_attempts => 1));
SELECT dtx.start_saga('back', key => 'back') AS id \gset
SELECT step FROM take();
SELECT done(:id, 'a');
SELECT step FROM take();
SELECT error(:id, 'b', '22012');
SELECT step, direction FROM take();
SELECT error_at(:id, 'a', '57P03', 'one');
TABLE waiting;
SELECT probe();
SELECT step, direction FROM take();
SELECT done(:id, 'a');

-- not for longer than asked: whoever has tried, and whoever has not
SELECT dtx.define_saga('patient', dtx.step('a', server => 'two', execute => 'SELECT 1', max_outage => '1 hour'));
SELECT dtx.define_saga('patient', dtx.step('a', server => 'two', execute => 'SELECT 1', max_outage => '-1 hour'));
SELECT * FROM dtx.explain_saga('patient');
SELECT count(dtx.start_saga('patient', key => 'patient ' || i)) FROM generate_series(1, 2) AS i;
SELECT id AS first FROM dtx.sagas WHERE key = 'patient 1' \gset
SELECT saga = :first AS is_first FROM take();
SELECT error_at(:first, 'a', '08001', 'two');
SELECT extract(epoch FROM dtx_internal.saga_give_up(100) - now()) BETWEEN 3500 AND 3600 AS in_an_hour;
UPDATE dtx_internal.saga_outage SET since = since - interval '1 hour';
UPDATE dtx_internal.saga_step_record SET due_at = due_at - interval '1 hour' WHERE saga IN (SELECT id FROM dtx.sagas WHERE name = 'patient');
SELECT dtx_internal.saga_give_up(100);
SELECT key, state, reason FROM dtx.sagas WHERE name = 'patient' ORDER BY 1;
DELETE FROM dtx_internal.saga_outage;

-- several servers: it waits for the one that is away, and is in nobody's way
SELECT dtx.define_saga('both', dtx.step('a', statements => ARRAY[dtx.statement('one', 'SELECT 1'), dtx.statement('two', 'SELECT 1')]));
SELECT dtx.start_saga('both', key => 'both') AS id \gset
SELECT step FROM take();
SELECT error_at(:id, 'a', '08001', 'two');
SELECT dtx.start_saga('both', key => 'both, too') > 0 AS started, dtx.start_saga('away', key => 'one only') > 0 AS started;
SELECT g.key FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
TABLE waiting;
SELECT key, (SELECT srvname FROM pg_foreign_server WHERE oid = s.lane) AS waits_at FROM dtx_internal.saga_step_record s JOIN dtx.sagas g ON g.id = s.saga
	WHERE g.state IN ('pending', 'running') ORDER BY 1;
CALL end_all();
DELETE FROM dtx_internal.saga_outage;

-- not known where: by itself, more and more seldom
SELECT dtx.define_saga('here', dtx.step('a', execute => 'SELECT 1', max_attempts => 1));
SELECT dtx.start_saga('here', key => 'here') AS id \gset
SELECT step FROM take();
SELECT error_at(:id, 'a', '53100', NULL);
TABLE waiting;
SELECT due_at - since BETWEEN '0.7 s' AND '1.3 s' AS pause FROM dtx.saga_steps WHERE saga = :id;
UPDATE dtx_internal.saga_step_record SET away_since = away_since - interval '80 s' WHERE saga = :id;
SELECT later(:id) >= 0 AS later;
SELECT step FROM take();
SELECT error_at(:id, 'a', '53100', NULL);
SELECT due_at - since BETWEEN '15 s' AND '26 s' AS pause FROM dtx.saga_steps WHERE saga = :id;
-- collisions: soon again, and often
CALL end_all();
SELECT dtx.start_saga('here', key => 'collision') AS id \gset
SELECT step FROM take();
SELECT error_at(:id, 'a', '40001', NULL);
TABLE waiting;
SELECT due_at - since < '20 ms' AS soon FROM dtx.saga_steps WHERE saga = :id;
CALL go_on(:id, '40P01', NULL, 20);
CALL go_on(:id, '55P03', NULL, 20);
SELECT due_at - since BETWEEN '0.4 s' AND '1.6 s' AS pause FROM dtx.saga_steps WHERE saga = :id;
UPDATE dtx_internal.saga_step_record SET collisions = 1000 WHERE saga = :id;
CALL go_on(:id, '40001', NULL, 1);
SELECT state FROM dtx.sagas WHERE id = :id;
SELECT outcome, sqlstate, count(*) FROM dtx.saga_history WHERE saga = :id GROUP BY 1, 2 ORDER BY 1, 2;

-- which is which
SELECT coalesce(dtx_internal.saga_trouble(code), '-') AS trouble, string_agg(code, ' ' ORDER BY code) AS codes
	FROM unnest('{08000,08001,08003,08006,08007,53000,53100,53200,53300,57P01,57P02,57P03,57P04,57P05,40001,40P01,40002,40003,55P03,57014,22012,P0001}'::text[]) AS code GROUP BY 1 ORDER BY 1;

-- what has begun is finished first, compensations before all else; then priority; then age
SELECT dtx.define_saga('ranks', dtx.step('a', execute => 'SELECT 1', compensate => 'SELECT -1'), dtx.step_sleep('s', '0'), dtx.step('b', execute => 'SELECT 1'));
SELECT dtx.start_saga('ranks', key => 'x', priority => 401);
SELECT dtx.start_saga('ranks', key => '1') AS one, dtx.start_saga('ranks', key => '2') AS two \gset
SELECT g.key, t.step FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT done(:one, 'a');
SELECT count(dtx.start_saga('ranks', key => k, priority => p)) FROM (VALUES ('3', NULL), ('4', 5), ('5', -5), ('6', 400)) v (k, p);
SELECT key, priority FROM dtx.sagas WHERE name = 'ranks' ORDER BY 1;
SELECT g.key, t.step FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT done(:one, 'b');
SELECT g.key, t.step FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT done(id, 'a'), dtx.cancel_saga(id, 'test') FROM dtx.sagas WHERE key = '6';
SELECT g.key, t.step, t.direction FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT done(id, 'a') FROM dtx.sagas WHERE key = '6';
SELECT g.key, t.step FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
SELECT g.key, t.step FROM take() t JOIN dtx.sagas g ON g.id = t.saga;
CALL end_all();
-- a day has 24 hours, whatever the time zone
SET TimeZone = 'America/New_York';
SELECT extract(epoch FROM dtx_internal.saga_after('2026-03-01 12:00-05', '150 days') - '2026-03-01 12:00-05'::timestamptz) / 3600 / 24 AS days;
RESET TimeZone;
DROP VIEW waiting;
DROP FUNCTION error_at, probe;
DROP PROCEDURE go_on;
