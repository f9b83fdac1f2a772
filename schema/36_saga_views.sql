--
-- Views.  Users see their own sagas, that is, those of roles whose privileges they
-- have.  Members of pg_monitor see that there are others, and how they do, but nothing
-- that users have put into them.
--

CREATE OR REPLACE VIEW dtx.saga_definitions WITH (security_barrier) AS
  SELECT d.name,
         d.version,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.created_at,
         ARRAY(SELECT s.name FROM dtx_internal.saga_definition_step_record AS s WHERE s.definition = d.id ORDER BY s.step) AS steps,
         ARRAY(SELECT COALESCE(r.rolname, 'public')
                 FROM dtx_internal.saga_definition_grant AS g
                 LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = g.grantee
                WHERE g.owner = d.owner AND g.name = d.name AND (g.grantee IS NULL OR r.oid IS NOT NULL)
                ORDER BY 1) AS granted_to
    FROM dtx_internal.saga_definition_record AS d
   WHERE NOT d.dropped
     AND (pg_catalog.pg_has_role(d.owner, 'USAGE')
          OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
          OR EXISTS (SELECT FROM dtx_internal.saga_definition_grant AS g
                      WHERE g.owner = d.owner AND g.name = d.name
                        AND (g.grantee IS NULL OR pg_catalog.pg_has_role(g.grantee, 'USAGE'))));

COMMENT ON VIEW dtx.saga_definitions IS
  'definitions of sagas, all versions; one''s own, and those that one may use; members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_definitions.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definitions.version IS
  'version; the highest one is used by sagas that start now';
COMMENT ON COLUMN dtx.saga_definitions.owner IS
  'who may define the next version, and let others use it; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_definitions.granted_to IS
  'who else may start sagas of it, by dtx.grant_saga_definition()';
COMMENT ON COLUMN dtx.saga_definitions.created_at IS
  'when this version was defined';
COMMENT ON COLUMN dtx.saga_definitions.steps IS
  'names of its steps; dtx.explain_saga(name) tells more';

CREATE OR REPLACE VIEW dtx.saga_definition_steps WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.name,
         d.version,
         s.step AS position,
         s.name AS step,
         s.action,
         s.kind,
         ARRAY(SELECT p.name FROM dtx_internal.saga_definition_step_record AS p
                WHERE p.definition = d.id AND p.step = ANY (s.after) ORDER BY p.step) AS after,
         s.servers,
         s.execute,
         s.compensate,
         s.min_rows,
         s.max_attempts,
         s.compensate_attempts,
         s.backoff,
         s.timeout,
         s.max_outage,
         s.event,
         s.delay,
         s.queue,
         s.payload,
         s.compensate_queue,
         s.condition AS only_if,
         CASE WHEN s.action = 'sleep' THEN s.expression END AS until,
         s.saga,
         s.version AS saga_version,
         CASE WHEN s.action IN ('saga', 'each') THEN s.expression END AS saga_input,
         CASE WHEN s.action = 'each' THEN s.parallel END AS max_parallel,
         s.retry,
         s.count AS signals
    FROM dtx_internal.saga_definition_record AS d
    JOIN dtx_internal.saga_definition_step_record AS s ON s.definition = d.id
   WHERE NOT d.dropped
     AND (pg_catalog.pg_has_role(d.owner, 'USAGE')
          OR EXISTS (SELECT FROM dtx_internal.saga_definition_grant AS g
                      WHERE g.owner = d.owner AND g.name = d.name
                        AND (g.grantee IS NULL OR pg_catalog.pg_has_role(g.grantee, 'USAGE'))));

COMMENT ON VIEW dtx.saga_definition_steps IS
  'steps of definitions of sagas, all versions; of one''s own, and of those that one may use';
COMMENT ON COLUMN dtx.saga_definition_steps.owner IS
  'owner of the definition; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_definition_steps.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_definition_steps.version IS
  'its version';
COMMENT ON COLUMN dtx.saga_definition_steps.position IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.saga_definition_steps.step IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_definition_steps.action IS
  'sql, sleep, signal, external, saga, or each';
COMMENT ON COLUMN dtx.saga_definition_steps.kind IS
  'compensatable, pivot, or retriable';
COMMENT ON COLUMN dtx.saga_definition_steps.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.saga_definition_steps.servers IS
  'foreign server of each statement; null: the coordinator';
COMMENT ON COLUMN dtx.saga_definition_steps.execute IS
  'the statements';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate IS
  'what undoes each statement; null: nothing to undo';
COMMENT ON COLUMN dtx.saga_definition_steps.min_rows IS
  'rows that each statement must affect or return at least; null: any number';
COMMENT ON COLUMN dtx.saga_definition_steps.max_attempts IS
  'the step fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate_attempts IS
  'its compensation fails for good after so many attempts';
COMMENT ON COLUMN dtx.saga_definition_steps.backoff IS
  'pause after the first failed attempt; it doubles with each one, up to ten minutes';
COMMENT ON COLUMN dtx.saga_definition_steps.timeout IS
  'longest time of an attempt, or of a wait; null: any time';
COMMENT ON COLUMN dtx.saga_definition_steps.max_outage IS
  'it fails when servers that it needs have been away for so long; null: it waits for them';
COMMENT ON COLUMN dtx.saga_definition_steps.event IS
  'event that there is when it is done; null: none';
COMMENT ON COLUMN dtx.saga_definition_steps.delay IS
  'time that a step of action sleep lets pass';
COMMENT ON COLUMN dtx.saga_definition_steps.queue IS
  'queue of a step of action external';
COMMENT ON COLUMN dtx.saga_definition_steps.payload IS
  'what the worker that claims it is given besides input and results';
COMMENT ON COLUMN dtx.saga_definition_steps.compensate_queue IS
  'queue of its compensation; null: nothing to undo';
COMMENT ON COLUMN dtx.saga_definition_steps.only_if IS
  'SQL expression; if it is not true, the step is skipped';
COMMENT ON COLUMN dtx.saga_definition_steps.until IS
  'SQL expression: until when a step of action sleep sleeps';
COMMENT ON COLUMN dtx.saga_definition_steps.saga IS
  'definition of the sagas that a step of action saga or each consists of';
COMMENT ON COLUMN dtx.saga_definition_steps.saga_version IS
  'its version; null: the newest one';
COMMENT ON COLUMN dtx.saga_definition_steps.saga_input IS
  'SQL expression: input of that saga, or the items, each of which is the input of one';
COMMENT ON COLUMN dtx.saga_definition_steps.max_parallel IS
  'so many of them at a time';
COMMENT ON COLUMN dtx.saga_definition_steps.retry IS
  'when it is tried again after an attempt has failed; null: as usual';
COMMENT ON COLUMN dtx.saga_definition_steps.signals IS
  'so many signals it waits for, if its result is a list of them';

CREATE OR REPLACE VIEW dtx.sagas WITH (security_barrier) AS
  SELECT g.id,
         d.name,
         d.version,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.key END AS key,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = g.role) AS role,
         g.state,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.input END AS input,
         g.started_at,
         x.run_at,
         x.deadline,
         g.finished_at,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN NULLIF(pg_catalog.concat_ws('; ', x.reason, x.failure), '') END AS reason,
         g.priority,
         (SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('server "%s"', f.srvname), ', ')
            FROM dtx_internal.saga_step_record AS s
            JOIN dtx_internal.saga_outage AS o ON o.home = s.home AND o.role = s.role AND o.server = ANY (s.servers)
            JOIN pg_catalog.pg_foreign_server AS f ON f.oid = o.server
           WHERE s.saga = g.id AND s.due_at IS NOT NULL) AS waiting_for,
         CASE WHEN g.state NOT IN ('completed', 'compensated') AND g.home <> h.home THEN
           pg_catalog.format(
             'It belongs to %2$s, of which this one is a copy, and goes on there only. To end it here, SELECT dtx.force_saga(%1$s, ''compensated'', ''why''), which changes nothing there. If that is gone for good, see dtx.adopt_sagas().',
             g.id,
             COALESCE((SELECT pg_catalog.format('database "%s"', o.datname) FROM pg_catalog.pg_database AS o, dtx_internal.coordinator AS c
                        WHERE c.id OPERATOR(pg_catalog.#) o.oid::bigint = g.home),
                      'a database on another server, or that was dropped'))
              WHEN g.state = 'failed' THEN
           pg_catalog.format(
             CASE WHEN g.compensating
                  THEN 'Remove the cause and SELECT dtx.retry_saga(%1$s); or undo it by hand and SELECT dtx.skip_step(%1$s, %2$L, ''why''); or end the saga with dtx.force_saga(%1$s, ''compensated'', ''why'').'
                  ELSE 'Remove the cause and SELECT dtx.retry_saga(%1$s); or do it by hand and SELECT dtx.skip_step(%1$s, %2$L, ''why''); or turn back with dtx.force_saga(%1$s, ''compensating'', ''why'').' END,
             g.id,
             (SELECT p.name
                FROM dtx_internal.saga_step_record AS s
                JOIN dtx_internal.saga_definition_step_record AS p ON p.definition = g.definition AND p.step = s.step
               WHERE s.saga = g.id AND s.state = 'failed' AND s.compensation = g.compensating
               ORDER BY s.since
               LIMIT 1))
         END AS hint,
         g.parent,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.attributes END AS attributes,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN x.lane END AS lane,
         g.paused OR EXISTS (SELECT FROM dtx_internal.saga_pause_record AS p
                              WHERE p.kind = 'definition' AND p.name = d.name AND p.role = d.owner) AS paused
    FROM dtx_internal.saga_record AS g
    JOIN dtx_internal.saga_data AS x ON x.saga = g.id
    JOIN dtx_internal.saga_definition_record AS d ON d.id = g.definition
    CROSS JOIN (SELECT c.id OPERATOR(pg_catalog.#) d.oid::bigint AS home FROM dtx_internal.coordinator AS c, pg_catalog.pg_database AS d
                 WHERE d.datname = pg_catalog.current_database()) AS h
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW dtx.sagas IS
  'sagas; one''s own, and for members of pg_monitor all others, without what users have put into them (key, input, reason)';
COMMENT ON COLUMN dtx.sagas.id IS
  'number of the saga';
COMMENT ON COLUMN dtx.sagas.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.sagas.version IS
  'version of its definition';
COMMENT ON COLUMN dtx.sagas.owner IS
  'owner of its definition; null: that role was dropped';
COMMENT ON COLUMN dtx.sagas.key IS
  'key with which it was started';
COMMENT ON COLUMN dtx.sagas.role IS
  'role that has started it, as which its steps run; null: it was dropped';
COMMENT ON COLUMN dtx.sagas.state IS
  'pending, running, completed, compensating, compensated; failed: only an operator can decide how to go on';
COMMENT ON COLUMN dtx.sagas.input IS
  'its input';
COMMENT ON COLUMN dtx.sagas.started_at IS
  'when dtx.start_saga() was called';
COMMENT ON COLUMN dtx.sagas.run_at IS
  'not begun before; null: at once';
COMMENT ON COLUMN dtx.sagas.deadline IS
  'compensated if it has not reached its point of no return until then; null: any time';
COMMENT ON COLUMN dtx.sagas.finished_at IS
  'when it was completed or compensated';
COMMENT ON COLUMN dtx.sagas.reason IS
  'why it compensates, has failed, or was forced';
COMMENT ON COLUMN dtx.sagas.priority IS
  'of sagas that wait for a worker, those with the highest priority come first';
COMMENT ON COLUMN dtx.sagas.waiting_for IS
  'servers that do not answer, and without which it does not go on';
COMMENT ON COLUMN dtx.sagas.parent IS
  'saga one of whose steps it is';
COMMENT ON COLUMN dtx.sagas.attributes IS
  'what it is found by';
COMMENT ON COLUMN dtx.sagas.lane IS
  'those of one lane go one after the other';
COMMENT ON COLUMN dtx.sagas.paused IS
  'does it rest until dtx.resume_saga(), or dtx.resume_saga_definition()? see dtx.saga_pauses';
COMMENT ON COLUMN dtx.sagas.hint IS
  'what to do, if it has failed, or belongs to the database that this one is a copy of';

CREATE OR REPLACE VIEW dtx.saga_steps WITH (security_barrier) AS
  SELECT g.id AS saga,
         d.step AS position,
         d.name AS step,
         d.action,
         d.kind,
         ARRAY(SELECT p.name FROM dtx_internal.saga_definition_step_record AS p
                WHERE p.definition = d.definition AND p.step = ANY (d.after) ORDER BY p.step) AS after,
         d.servers,
         COALESCE(s.state,
           CASE WHEN g.state IN ('pending', 'running', 'failed') AND NOT g.compensating
                THEN 'pending' ELSE 'skipped' END::dtx.saga_step_state) AS state,
         COALESCE(s.attempt, 0) AS attempts,
         s.since,
         CASE WHEN g.home = h.home THEN s.due_at END AS due_at,
         e.queue,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN e.worker END AS worker,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN r.result END AS result,
         CASE WHEN s.state NOT IN ('completed', 'compensated') AND pg_catalog.pg_has_role(g.role, 'USAGE') THEN
           (SELECT h.message FROM dtx_internal.saga_history_record AS h
             WHERE h.saga = g.id AND h.step = d.step AND h.outcome IN ('failed', 'lost', 'postponed')
             ORDER BY h.id DESC LIMIT 1)
         END AS error,
         CASE WHEN s.held_at IS NOT NULL THEN
           COALESCE((SELECT 'dtx.resume_saga()' WHERE g.paused),
                    (SELECT 'dtx.resume_saga_definition()'
                       FROM dtx_internal.saga_pause_record AS p JOIN dtx_internal.saga_definition_record AS f ON f.name = p.name AND f.owner = p.role
                      WHERE p.kind = 'definition' AND f.id = g.definition),
                    'another saga of its lane')
              WHEN s.due_at IS NOT NULL AND NOT s.taken THEN
           COALESCE((SELECT pg_catalog.string_agg(DISTINCT pg_catalog.format('server "%s", which is paused', f.srvname), ', ')
                       FROM dtx_internal.saga_pause_record AS p JOIN pg_catalog.pg_foreign_server AS f ON f.srvname = p.name
                      WHERE p.kind = 'server' AND p.role IN (s.role::oid, 0::oid) AND f.oid = ANY (s.servers)),
           (SELECT pg_catalog.string_agg(pg_catalog.format('server "%s"', f.srvname), ', ' ORDER BY f.srvname)
                       FROM dtx_internal.saga_outage AS o
                       JOIN pg_catalog.pg_foreign_server AS f ON f.oid = o.server
                      WHERE o.home = s.home AND o.role = s.role AND o.server = ANY (s.servers)),
                    CASE WHEN s.away_since IS NOT NULL THEN 'what was not there or had no room'
                         WHEN s.collisions > 0 THEN 'others that lock or change the same' END)
              WHEN d.action IN ('saga', 'each') AND s.state IN ('waiting', 'compensating') THEN
           (SELECT pg_catalog.string_agg(pg_catalog.format(CASE y.state WHEN 'failed' THEN 'saga %s, which has failed' ELSE 'saga %s' END, c.child), ', ' ORDER BY c.item)
              FROM dtx_internal.saga_child AS c JOIN dtx_internal.saga_record AS y ON y.id = c.child
             WHERE c.saga = s.saga AND c.step = s.step AND c.state IN ('running', 'canceling', 'undoing'))
         END AS waiting_for,
         CASE WHEN d.action IN ('saga', 'each') THEN
           ARRAY(SELECT c.child FROM dtx_internal.saga_child AS c
                  WHERE c.saga = s.saga AND c.step = s.step AND c.child IS NOT NULL ORDER BY c.item)
         END AS sagas
    FROM dtx_internal.saga_record AS g
    JOIN dtx_internal.saga_definition_step_record AS d ON d.definition = g.definition
    LEFT JOIN dtx_internal.saga_step_record AS s ON s.saga = g.id AND s.step = d.step
    LEFT JOIN dtx_internal.saga_external AS e ON e.saga = g.id AND e.step = d.step
    LEFT JOIN dtx_internal.saga_result AS r ON r.saga = g.id AND r.step = d.step
    CROSS JOIN (SELECT c.id OPERATOR(pg_catalog.#) d.oid::bigint AS home FROM dtx_internal.coordinator AS c, pg_catalog.pg_database AS d
                 WHERE d.datname = pg_catalog.current_database()) AS h
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW dtx.saga_steps IS
  'steps of sagas; those of one''s own, and for members of pg_monitor all others, without worker, result and error';
COMMENT ON COLUMN dtx.saga_steps.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_steps.position IS
  'number of the step; higher than those of the steps that it comes after';
COMMENT ON COLUMN dtx.saga_steps.step IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_steps.action IS
  'sql, sleep, signal, external, saga, or each';
COMMENT ON COLUMN dtx.saga_steps.kind IS
  'compensatable, pivot, or retriable';
COMMENT ON COLUMN dtx.saga_steps.after IS
  'steps that must be done before';
COMMENT ON COLUMN dtx.saga_steps.servers IS
  'foreign server of each of its statements; null: the coordinator';
COMMENT ON COLUMN dtx.saga_steps.state IS
  'pending, running, waiting, completed, failed, skipped, compensating, or compensated';
COMMENT ON COLUMN dtx.saga_steps.attempts IS
  'attempts begun, at the step or, on the way back, at its compensation';
COMMENT ON COLUMN dtx.saga_steps.since IS
  'since when it is in this state';
COMMENT ON COLUMN dtx.saga_steps.due_at IS
  'when it will be looked at next; in the past: now; null: not at all';
COMMENT ON COLUMN dtx.saga_steps.queue IS
  'queue in which it waits for an external worker';
COMMENT ON COLUMN dtx.saga_steps.worker IS
  'external worker that has claimed it';
COMMENT ON COLUMN dtx.saga_steps.result IS
  'its result';
COMMENT ON COLUMN dtx.saga_steps.error IS
  'why the last attempt that was not successful has failed; null if it has succeeded since';
COMMENT ON COLUMN dtx.saga_steps.waiting_for IS
  'what keeps it from being tried, or tried again, or ended: servers that do not answer, others, or the sagas that it consists of';
COMMENT ON COLUMN dtx.saga_steps.sagas IS
  'the sagas that a step of action saga or each consists of';

CREATE OR REPLACE VIEW dtx.saga_history WITH (security_barrier) AS
  SELECT h.saga,
         h.id,
         d.name AS step,
         h.action,
         h.attempt,
         h.outcome,
         h.sqlstate,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.message END AS message,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.detail END AS detail,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.hint END AS hint,
         h.started_at,
         h.finished_at,
         h.retry_at,
         CASE WHEN pg_catalog.pg_has_role(g.role, 'USAGE') THEN h.by_whom END AS by_whom
    FROM dtx_internal.saga_history_record AS h
    JOIN dtx_internal.saga_record AS g ON g.id = h.saga
    LEFT JOIN dtx_internal.saga_definition_step_record AS d ON d.definition = g.definition AND d.step = h.step
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW dtx.saga_history IS
  'all attempts at steps of sagas, and what operators have done; of one''s own, and for members of pg_monitor of all others, without message, detail, hint and by_whom';
COMMENT ON COLUMN dtx.saga_history.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_history.id IS
  'number of the entry; they grow with time within a saga';
COMMENT ON COLUMN dtx.saga_history.step IS
  'name of the step; null: about the saga';
COMMENT ON COLUMN dtx.saga_history.action IS
  'execute or compensate; or what happened to the saga: cancel, retry, skip, force, migrate, adopt, deadline';
COMMENT ON COLUMN dtx.saga_history.attempt IS
  'which attempt it was, from 1';
COMMENT ON COLUMN dtx.saga_history.outcome IS
  'completed, failed, skipped (its condition was not true), lost (its worker or its lease has gone), late (its worker has reported it as done after that), or for no fault of its own, so that it was no attempt: stopped, or postponed (a server was away, or others had locked the same; only the first time); for other actions, the state that followed';
COMMENT ON COLUMN dtx.saga_history.sqlstate IS
  'SQLSTATE of the error';
COMMENT ON COLUMN dtx.saga_history.message IS
  'its message; or the reason that was given';
COMMENT ON COLUMN dtx.saga_history.detail IS
  'its detail';
COMMENT ON COLUMN dtx.saga_history.hint IS
  'its hint';
COMMENT ON COLUMN dtx.saga_history.started_at IS
  'when the attempt began';
COMMENT ON COLUMN dtx.saga_history.finished_at IS
  'when it ended';
COMMENT ON COLUMN dtx.saga_history.retry_at IS
  'when it is tried again; null: not by itself';
COMMENT ON COLUMN dtx.saga_history.by_whom IS
  'role that has done it, or name of the external worker; null: a worker of pg_dtx';

CREATE OR REPLACE VIEW dtx.saga_stat WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.name,
         pg_catalog.count(*) AS started,
         pg_catalog.count(*) FILTER (WHERE g.state = 'pending') AS pending,
         pg_catalog.count(*) FILTER (WHERE g.state = 'running') AS running,
         pg_catalog.count(*) FILTER (WHERE g.state = 'completed') AS completed,
         pg_catalog.count(*) FILTER (WHERE g.state = 'compensating') AS compensating,
         pg_catalog.count(*) FILTER (WHERE g.state = 'compensated') AS compensated,
         pg_catalog.count(*) FILTER (WHERE g.state = 'failed') AS failed,
         pg_catalog.min(g.started_at) FILTER (WHERE g.finished_at IS NULL) AS oldest_unfinished,
         pg_catalog.avg(g.finished_at - g.started_at) FILTER (WHERE g.state = 'completed') AS mean_time,
         pg_catalog.max(g.finished_at - g.started_at) FILTER (WHERE g.state = 'completed') AS max_time
    FROM dtx_internal.saga_record AS g
    JOIN dtx_internal.saga_definition_record AS d ON d.id = g.definition
   WHERE pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   GROUP BY d.owner, d.name;

COMMENT ON VIEW dtx.saga_stat IS
  'numbers of sagas by definition, as far as they were not purged; members of pg_monitor see all, others those of their own';
COMMENT ON COLUMN dtx.saga_stat.owner IS
  'owner of the definition; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_stat.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_stat.started IS
  'sagas, whatever their state';
COMMENT ON COLUMN dtx.saga_stat.pending IS
  'sagas that have not begun';
COMMENT ON COLUMN dtx.saga_stat.running IS
  'sagas that go on';
COMMENT ON COLUMN dtx.saga_stat.completed IS
  'sagas of which all steps are done';
COMMENT ON COLUMN dtx.saga_stat.compensating IS
  'sagas that are being undone';
COMMENT ON COLUMN dtx.saga_stat.compensated IS
  'sagas that were undone';
COMMENT ON COLUMN dtx.saga_stat.failed IS
  'sagas that wait for an operator';
COMMENT ON COLUMN dtx.saga_stat.oldest_unfinished IS
  'start of the oldest saga that is neither completed nor compensated';
COMMENT ON COLUMN dtx.saga_stat.mean_time IS
  'mean time from start to completion';
COMMENT ON COLUMN dtx.saga_stat.max_time IS
  'longest time from start to completion';

CREATE OR REPLACE VIEW dtx.saga_pauses WITH (security_barrier) AS
  SELECT p.kind,
         p.name,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = p.role) AS role,
         p.reason,
         p.by_whom,
         p.since
    FROM dtx_internal.saga_pause_record AS p
   WHERE pg_catalog.pg_has_role('pg_monitor', 'USAGE')
      OR CASE WHEN p.role::oid = 0::oid THEN true ELSE pg_catalog.pg_has_role(p.role, 'USAGE') END;

COMMENT ON VIEW dtx.saga_pauses IS
  'what of sagas was paused; of one''s own, members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_pauses.kind IS
  'saga, definition, queue, or server';
COMMENT ON COLUMN dtx.saga_pauses.name IS
  'number of the saga, or name of the definition, queue, or server';
COMMENT ON COLUMN dtx.saga_pauses.role IS
  'whose saga or queue, the owner of the definition, or whose sagas do not use the server; null: those of all roles';
COMMENT ON COLUMN dtx.saga_pauses.reason IS
  'why';
COMMENT ON COLUMN dtx.saga_pauses.by_whom IS
  'who has paused it';
COMMENT ON COLUMN dtx.saga_pauses.since IS
  'when';

CREATE OR REPLACE VIEW dtx.waiting WITH (security_barrier) AS
  SELECT g.id AS saga,
         f.name,
         x.key,
         d.name AS signal,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = g.role) AS role,
         COALESCE(d.count, 1) - (SELECT pg_catalog.count(*)::integer FROM dtx_internal.saga_inbox AS m
                                  WHERE m.saga = g.id AND m.kind = 'signal' AND m.name = d.name) AS missing,
         s.since,
         s.due_at AS until
    FROM dtx_internal.saga_record AS g
    JOIN dtx_internal.saga_definition_record AS f ON f.id = g.definition
    JOIN dtx_internal.saga_definition_step_record AS d ON d.definition = g.definition AND d.action = 'signal'
    JOIN dtx_internal.saga_step_record AS s ON s.saga = g.id AND s.step = d.step AND s.state = 'waiting'
    JOIN dtx_internal.saga_data AS x ON x.saga = g.id
   WHERE g.finished_at IS NULL AND pg_catalog.pg_has_role(g.role, 'USAGE');

COMMENT ON VIEW dtx.waiting IS
  'one''s own sagas that wait for signals, such as those that people give';
COMMENT ON COLUMN dtx.waiting.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.waiting.name IS
  'name of its definition';
COMMENT ON COLUMN dtx.waiting.key IS
  'its key';
COMMENT ON COLUMN dtx.waiting.signal IS
  'name of the signal';
COMMENT ON COLUMN dtx.waiting.role IS
  'role that has started it';
COMMENT ON COLUMN dtx.waiting.missing IS
  'how many of them have not come';
COMMENT ON COLUMN dtx.waiting.since IS
  'since when it waits';
COMMENT ON COLUMN dtx.waiting.until IS
  'how long it will; null: without end';

CREATE OR REPLACE VIEW dtx.saga_schedules WITH (security_barrier) AS
  SELECT x.schedule,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = x.role) AS role,
         x.name,
         x.cron,
         x.zone,
         CASE WHEN pg_catalog.pg_has_role(x.role, 'USAGE') THEN x.input END AS input,
         x.overlap,
         x.catch_up,
         CASE WHEN x.paused IS NULL THEN x.next_at END AS next_at,
         x.last_at,
         x.last_outcome,
         x.last_saga,
         x.paused
    FROM dtx_internal.saga_schedule_record AS x
   WHERE pg_catalog.pg_has_role(x.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW dtx.saga_schedules IS
  'schedules of sagas, one''s own; members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_schedules.schedule IS
  'name of the schedule';
COMMENT ON COLUMN dtx.saga_schedules.role IS
  'role as which sagas are started';
COMMENT ON COLUMN dtx.saga_schedules.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_schedules.cron IS
  'minute, hour, day of the month, month, day of the week';
COMMENT ON COLUMN dtx.saga_schedules.zone IS
  'time zone';
COMMENT ON COLUMN dtx.saga_schedules.input IS
  'input of the sagas';
COMMENT ON COLUMN dtx.saga_schedules.overlap IS
  'if the one before has not ended: skip this one, or start it';
COMMENT ON COLUMN dtx.saga_schedules.catch_up IS
  'are those started that were missed?';
COMMENT ON COLUMN dtx.saga_schedules.next_at IS
  'when the next one is';
COMMENT ON COLUMN dtx.saga_schedules.last_at IS
  'when the last one was';
COMMENT ON COLUMN dtx.saga_schedules.last_outcome IS
  'what became of that: started, skipped, or failed, and why';
COMMENT ON COLUMN dtx.saga_schedules.last_saga IS
  'the last saga that was started';
COMMENT ON COLUMN dtx.saga_schedules.paused IS
  'why it rests; null: it does not';

CREATE OR REPLACE VIEW dtx.saga_queues WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = e.role) AS role,
         e.queue,
         pg_catalog.count(*) FILTER (WHERE e.token IS NULL OR e.available_at <= pg_catalog.clock_timestamp()) AS length,
         pg_catalog.count(*) FILTER (WHERE e.token IS NOT NULL AND e.available_at > pg_catalog.clock_timestamp()) AS in_hands,
         pg_catalog.min(e.available_at) FILTER (WHERE e.available_at <= pg_catalog.clock_timestamp()) AS oldest,
         q.concurrency,
         q.rate,
         q.per,
         p.reason AS paused
    FROM dtx_internal.saga_external AS e
    LEFT JOIN dtx_internal.saga_queue_record AS q ON q.role = e.role AND q.queue = e.queue
    LEFT JOIN dtx_internal.saga_pause_record AS p ON p.kind = 'queue' AND p.role = e.role AND p.name = e.queue
   WHERE pg_catalog.pg_has_role(e.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE')
   GROUP BY e.role, e.queue, q.concurrency, q.rate, q.per, p.reason;

COMMENT ON VIEW dtx.saga_queues IS
  'queues of external steps in which there is something; those of one''s own sagas, members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_queues.role IS
  'whose sagas they are';
COMMENT ON COLUMN dtx.saga_queues.queue IS
  'name of the queue';
COMMENT ON COLUMN dtx.saga_queues.length IS
  'steps that nobody has, also those that are offered again later';
COMMENT ON COLUMN dtx.saga_queues.in_hands IS
  'steps that workers have';
COMMENT ON COLUMN dtx.saga_queues.oldest IS
  'since when the first one waits for a worker; null: none does';
COMMENT ON COLUMN dtx.saga_queues.concurrency IS
  'limit of in_hands; see dtx.set_queue()';
COMMENT ON COLUMN dtx.saga_queues.rate IS
  'how many may be claimed in the time "per"';
COMMENT ON COLUMN dtx.saga_queues.per IS
  'for rate';
COMMENT ON COLUMN dtx.saga_queues.paused IS
  'why workers get nothing from it; null: they do';

CREATE OR REPLACE VIEW dtx.saga_durations WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = d.owner) AS owner,
         d.name,
         b.le,
         pg_catalog.count(*) FILTER (WHERE EXTRACT(epoch FROM g.finished_at - g.started_at) <= b.le) AS sagas
    FROM dtx_internal.saga_record AS g
    JOIN dtx_internal.saga_definition_record AS d ON d.id = g.definition
    CROSS JOIN (VALUES (0.1::float8), (1), (10), (60), (600), (3600), (86400), ('Infinity')) AS b (le)
   WHERE g.state = 'completed'
     AND (pg_catalog.pg_has_role(g.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'))
   GROUP BY d.owner, d.name, b.le;

COMMENT ON VIEW dtx.saga_durations IS
  'how long completed sagas have taken, as far as they were not purged: a histogram by definition; of one''s own, members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_durations.owner IS
  'owner of the definition; null: that role was dropped';
COMMENT ON COLUMN dtx.saga_durations.name IS
  'name of the definition';
COMMENT ON COLUMN dtx.saga_durations.le IS
  'seconds';
COMMENT ON COLUMN dtx.saga_durations.sagas IS
  'sagas that have taken so long at most';

CREATE OR REPLACE VIEW dtx.saga_damage WITH (security_barrier) AS
  SELECT x.saga,
         x.step,
         (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = x.role) AS role,
         CASE WHEN pg_catalog.pg_has_role(x.role, 'USAGE') THEN x.worker END AS worker,
         x.found_at
    FROM dtx_internal.saga_damage_record AS x
   WHERE x.acknowledged_at IS NULL
     AND (pg_catalog.pg_has_role(x.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE'));

COMMENT ON VIEW dtx.saga_damage IS
  'steps that external workers have reported as done after their compensation was offered, so that they may be done for good, until dtx.acknowledge_saga_damage(); of one''s own sagas, members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_damage.saga IS
  'number of the saga';
COMMENT ON COLUMN dtx.saga_damage.step IS
  'name of the step';
COMMENT ON COLUMN dtx.saga_damage.role IS
  'role that has started the saga; null: it was dropped';
COMMENT ON COLUMN dtx.saga_damage.worker IS
  'name of the worker';
COMMENT ON COLUMN dtx.saga_damage.found_at IS
  'when it has reported';

CREATE OR REPLACE VIEW dtx.saga_consumers WITH (security_barrier) AS
  SELECT (SELECT r.rolname FROM pg_catalog.pg_roles AS r WHERE r.oid = c.role) AS role,
         c.name,
         c.registered_at,
         c.taken_at,
         (SELECT pg_catalog.count(*)
            FROM dtx_internal.saga_outbox AS o
           WHERE pg_catalog.pg_has_role(c.role, o.role, 'USAGE')
             AND NOT pg_catalog.pg_visible_in_snapshot(o.xid, c.seen)
             AND NOT (c.reading IS NOT NULL AND pg_catalog.pg_visible_in_snapshot(o.xid, c.reading) AND o.id <= c.after)) AS waiting
    FROM dtx_internal.saga_consumer_record AS c
   WHERE pg_catalog.pg_has_role(c.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');

COMMENT ON VIEW dtx.saga_consumers IS
  'consumers of events of sagas, one''s own; members of pg_monitor see all';
COMMENT ON COLUMN dtx.saga_consumers.role IS
  'whose consumer it is; null: it was dropped';
COMMENT ON COLUMN dtx.saga_consumers.name IS
  'its name';
COMMENT ON COLUMN dtx.saga_consumers.registered_at IS
  'when it has taken events for the first time';
COMMENT ON COLUMN dtx.saga_consumers.taken_at IS
  'when it has done so for the last time';
COMMENT ON COLUMN dtx.saga_consumers.waiting IS
  'events that it has not had; they are kept until it has';
