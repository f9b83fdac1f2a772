--
-- Graphs as text.  Steps that follow each other are in one column; where several
-- may run at the same time, each begins a branch ("+-"), and a step that waits
-- for several names them.
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_graph(names text[], befores text[], OUT step integer, OUT label text) RETURNS SETOF record
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  n integer := cardinality(names);
  before integer[];
  above integer[] := '{}';      -- the last step that all ways to a step have in common, 0: none
  depth integer[] := '{}';
  a integer;
  b integer;
  stack integer[] := '{0}';     -- steps to be drawn, the next one last
  lines text[] := '{""}';       -- what is drawn left of each of them
  marks text[] := '{""}';       -- and between that and the name
  children integer[];
  line text;
  mark text;
BEGIN
  FOR i IN 1 .. n LOOP
    before := befores[i]::integer[];
    a := coalesce(before[1], 0);
    FOREACH b IN ARRAY before LOOP
      WHILE a <> b LOOP
        IF coalesce(depth[a], 0) >= coalesce(depth[b], 0) THEN
          a := above[a];
        ELSE
          b := above[b];
        END IF;
      END LOOP;
    END LOOP;
    above[i] := a;
    depth[i] := CASE WHEN a = 0 THEN 1 ELSE depth[a] + 1 END;
  END LOOP;
  WHILE cardinality(stack) > 0 LOOP
    a := stack[cardinality(stack)];
    line := lines[cardinality(stack)];
    mark := marks[cardinality(stack)];
    stack := trim_array(stack, 1);
    lines := trim_array(lines, 1);
    marks := trim_array(marks, 1);
    IF a > 0 THEN
      step := a;
      label := line || mark || names[a];
      before := befores[a]::integer[];
      IF cardinality(before) > 1 THEN
        label := label || ' <- ' || (SELECT string_agg(names[x], ', ' ORDER BY x) FROM unnest(before) AS x);
      END IF;
      RETURN NEXT;
      line := line || CASE WHEN mark = '' THEN '' ELSE '|  ' END;
    END IF;
    children := ARRAY(SELECT i FROM generate_series(1, n) AS i WHERE above[i] = a
                       ORDER BY cardinality(befores[i]::integer[]) > 1, i);
    FOR i IN REVERSE cardinality(children) .. 1 LOOP
      stack := stack || children[i];
      lines := lines || line;
      marks := marks || CASE WHEN cardinality(children) > 1 AND cardinality(befores[children[i]]::integer[]) < 2
                             THEN '+- ' ELSE '' END;
    END LOOP;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_graph(text[], text[]) IS
  'internal: the steps of a graph in the order in which they are drawn';

CREATE OR REPLACE FUNCTION dtx_internal.saga_place(action text, servers name[], delay interval, queue text, saga text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE action
           WHEN 'sql' THEN (SELECT string_agg(DISTINCT coalesce(s, '(here)'), ', ') FROM unnest(servers) AS s)
           WHEN 'sleep' THEN '(sleep' || coalesce(' ' || delay, '') || ')'
           WHEN 'signal' THEN '(signal)'
           WHEN 'saga' THEN '(saga' || coalesce(' ' || saga, '') || ')'
           WHEN 'each' THEN '(each: saga' || coalesce(' ' || saga, '') || ')'
           ELSE '(queue' || coalesce(' ' || queue, '') || ')'
         END
$$;

COMMENT ON FUNCTION dtx_internal.saga_place(text, name[], interval, text, text) IS
  'internal: where a step is done, for a graph';

-- One's own, or the only one of that name that one sees.  (Called with the privileges
-- of the caller, so it must not name anything of dtx_internal.)
CREATE OR REPLACE FUNCTION dtx_internal.find_definition_to_explain(name text, OUT owner name, OUT bare text, OUT version integer)
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
  whose text := substring(find_definition_to_explain.name from '^(.*)[.][^.]*$');
  owners name[];
BEGIN
  bare := substring(find_definition_to_explain.name from '[^.]*$');
  owners := ARRAY(SELECT DISTINCT d.owner FROM dtx.saga_definitions d
                   WHERE d.name = bare AND d.owner = coalesce(whose, d.owner));
  IF whose IS NULL AND current_user = ANY (owners) THEN
    owners := ARRAY[current_user];
  ELSIF cardinality(owners) > 1 THEN
    RAISE EXCEPTION USING
      ERRCODE = 'ambiguous_alias',
      MESSAGE = format('there are several definitions of a saga "%s"', bare),
      HINT = 'Write the name of the owner and a dot before that of the definition.';
  END IF;
  owner := owners[1];
  version := (SELECT max(d.version) FROM dtx.saga_definitions d WHERE d.name = bare AND d.owner = owners[1]);
  IF version IS NULL THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN find_definition_to_explain.name IS NULL THEN 'name of the saga must not be null'
                     ELSE format('there is no definition of a saga "%s"', find_definition_to_explain.name) END;
  END IF;
END
$$;

COMMENT ON FUNCTION dtx_internal.find_definition_to_explain(text) IS
  'internal: the definition that the caller means and may see';

CREATE OR REPLACE FUNCTION dtx_internal.find_saga_to_explain(saga bigint) RETURNS dtx.sagas
LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  sg dtx.sagas;
BEGIN
  SELECT g.* INTO sg FROM dtx.sagas g WHERE g.id = find_saga_to_explain.saga;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING
      ERRCODE = 'undefined_object',
      MESSAGE = CASE WHEN find_saga_to_explain.saga IS NULL THEN 'saga must not be null'
                     ELSE format('saga %s does not exist, or is not yours', find_saga_to_explain.saga) END;
  END IF;
  RETURN sg;
END
$$;

COMMENT ON FUNCTION dtx_internal.find_saga_to_explain(bigint) IS
  'internal: a saga that the caller may see';

-- A label of Mermaid: what might mean something there is an entity, and nothing looks like Markdown.
CREATE OR REPLACE FUNCTION dtx_internal.saga_mermaid(label text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT string_agg(CASE WHEN c.c IN (E'\n', E'\r') THEN '<br>'
                         WHEN c.c ~ '^[]["#&<>`*_~|{}\\$%;]$'
                              OR (c.c ~ '^[-+.)=]$' AND substr(label, 1, c.i::integer - 1) ~ '(^|[\n\r])[[:space:]]*[0-9]*$')
                         THEN '#' || ascii(c.c) || ';'
                         ELSE c.c END, '' ORDER BY c.i)
    FROM regexp_split_to_table(label, '') WITH ORDINALITY AS c (c, i)
$$;

COMMENT ON FUNCTION dtx_internal.saga_mermaid(text) IS
  'internal: a text as label of Mermaid, which shows it as it is';

-- A label of dot, in quotation marks; dot knows entities of HTML.
CREATE OR REPLACE FUNCTION dtx_internal.saga_dot(label text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
  SELECT '"' || replace(replace(replace(label, '&', '&amp;'), '\', '\\'), '"', '\"') || '"'
$$;

COMMENT ON FUNCTION dtx_internal.saga_dot(text) IS
  'internal: a text as label of dot, which shows it as it is';

CREATE OR REPLACE FUNCTION dtx_internal.saga_picture(format text, title text, steps jsonb) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  nodes text;
  arrows text;
BEGIN
  IF format = 'json' THEN
    RETURN jsonb_pretty(jsonb_build_object('title', title, 'steps', steps));
  ELSIF format = 'text' THEN
    RETURN (SELECT title || E'\n' || string_agg(concat_ws('  ', g.label, s ->> 'place', s ->> 'kind', s ->> 'state'), E'\n' ORDER BY g.ord)
              FROM (SELECT array_agg(x ->> 'step' ORDER BY i) AS names,
                           array_agg((SELECT coalesce(array_agg(y.j::integer ORDER BY y.j), '{}')::text
                                        FROM jsonb_array_elements(steps) WITH ORDINALITY AS y (z, j)
                                       WHERE x -> 'after' ? (y.z ->> 'step')) ORDER BY i) AS befores
                      FROM jsonb_array_elements(steps) WITH ORDINALITY AS u (x, i)) AS a,
                   ROWS FROM (dtx_internal.saga_graph(a.names, a.befores)) WITH ORDINALITY AS g (step, label, ord),
                   LATERAL (SELECT steps -> (g.step - 1) AS s) AS l);
  ELSIF format = 'dot' THEN
    SELECT string_agg(format(E'  s%s [label=%s, shape=%s%s];', s ->> 'position',
                        dtx_internal.saga_dot(concat_ws(E'\n', s ->> 'step', s ->> 'place', s ->> 'state')),
                        CASE s ->> 'kind' WHEN 'pivot' THEN 'diamond' WHEN 'retriable' THEN 'box' ELSE 'ellipse' END,
                        CASE WHEN s ->> 'state' IN ('completed', 'failed', 'compensated') THEN
                          format(', style=filled, fillcolor=%s', CASE s ->> 'state' WHEN 'completed' THEN 'palegreen' WHEN 'failed' THEN 'salmon' ELSE 'lightgrey' END)
                          ELSE '' END), E'\n' ORDER BY (s ->> 'position')::integer)
      INTO nodes FROM jsonb_array_elements(steps) AS s;
    SELECT string_agg(format('  s%s -> s%s;', b ->> 'position', s ->> 'position'), E'\n' ORDER BY (s ->> 'position')::integer, (b ->> 'position')::integer)
      INTO arrows FROM jsonb_array_elements(steps) AS s JOIN jsonb_array_elements(steps) AS b ON s -> 'after' ? (b ->> 'step');
    RETURN concat_ws(E'\n', 'digraph saga {', format('  label=%s;', dtx_internal.saga_dot(title)), nodes, arrows, '}');
  ELSIF format = 'mermaid' THEN
    SELECT string_agg(format(CASE s ->> 'kind' WHEN 'pivot' THEN '  s%s{"%s"}' WHEN 'retriable' THEN '  s%s["%s"]' ELSE '  s%s("%s")' END, s ->> 'position',
                        concat_ws('<br>', dtx_internal.saga_mermaid(s ->> 'step'), dtx_internal.saga_mermaid(s ->> 'place'), s ->> 'state')),
                        E'\n' ORDER BY (s ->> 'position')::integer)
      INTO nodes FROM jsonb_array_elements(steps) AS s;
    SELECT string_agg(format('  s%s --> s%s', b ->> 'position', s ->> 'position'), E'\n' ORDER BY (s ->> 'position')::integer, (b ->> 'position')::integer)
      INTO arrows FROM jsonb_array_elements(steps) AS s JOIN jsonb_array_elements(steps) AS b ON s -> 'after' ? (b ->> 'step');
    RETURN concat_ws(E'\n', 'flowchart TD', nodes, arrows);
  END IF;
  RAISE EXCEPTION USING
    ERRCODE = 'invalid_parameter_value',
    MESSAGE = 'format must be text, mermaid, dot, or json';
END
$$;

COMMENT ON FUNCTION dtx_internal.saga_picture(text, text, jsonb) IS
  'internal: the graph of a saga in some language';

-- Both of these are parsed when they are made, so their callers need no USAGE on
-- dtx_internal.
CREATE OR REPLACE FUNCTION dtx.explain_saga(name text) RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  WITH d AS MATERIALIZED (
    SELECT f.owner, f.bare, f.version FROM dtx_internal.find_definition_to_explain(explain_saga.name) AS f),
  s AS (
    SELECT p.*, (SELECT pg_catalog.array_agg(b.position ORDER BY b.position)
                   FROM dtx.saga_definition_steps AS b
                  WHERE b.owner = p.owner AND b.name = p.name AND b.version = p.version AND b.step = ANY (p.after)) AS before
      FROM d JOIN dtx.saga_definition_steps AS p ON p.owner = d.owner AND p.name = d.bare AND p.version = d.version),
  g AS (
    SELECT x.step, x.label, x.ord
      FROM (SELECT pg_catalog.array_agg(s.step ORDER BY s.position) AS names,
                   pg_catalog.array_agg(COALESCE(s.before, '{}')::text ORDER BY s.position) AS befores FROM s) AS a,
           ROWS FROM (dtx_internal.saga_graph(a.names, a.befores)) WITH ORDINALITY AS x (step, label, ord)),
  t AS (
    SELECT g.ord, g.label, s.*, dtx_internal.saga_place(s.action, s.servers, s.delay, s.queue, s.saga) AS place
      FROM g JOIN s ON s.position = g.step)
  SELECT l.line
    FROM (SELECT 0 AS ord, pg_catalog.format('definition of saga "%s", version %s', explain_saga.name, d.version) AS line
            FROM d
          UNION ALL
          SELECT t.ord,
                 pg_catalog.rtrim(pg_catalog.rpad(t.label, pg_catalog.max(pg_catalog.length(t.label)) OVER ()) || '  '
                 || pg_catalog.rpad(t.place, pg_catalog.max(pg_catalog.length(t.place)) OVER ()) || '  '
                 || pg_catalog.rpad(t.kind, 13) || '  '
                 || pg_catalog.concat_ws(', ',
                      'only if ' || t.only_if,
                      'until ' || t.until,
                      CASE WHEN t.action NOT IN ('sleep', 'signal') AND (t.action NOT IN ('saga', 'each') OR t.max_attempts > 1)
                           THEN pg_catalog.format('%s attempts, backoff %s', t.max_attempts, t.backoff) END,
                      CASE WHEN t.action = 'each' THEN pg_catalog.format('%s at a time', t.max_parallel) END,
                      'timeout ' || t.timeout,
                      'outages up to ' || t.max_outage,
                      CASE WHEN pg_catalog.array_remove(t.compensate, NULL) <> '{}' OR t.compensate_queue IS NOT NULL
                           THEN pg_catalog.format('compensation with %s attempts', t.compensate_attempts) END))
            FROM t) AS l
   ORDER BY l.ord;
END;

COMMENT ON FUNCTION dtx.explain_saga(text) IS
  'draws the graph of the newest version of a definition, as text; an error if there is none, or several roles have one';

CREATE OR REPLACE FUNCTION dtx.explain_saga(saga bigint) RETURNS SETOF text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  WITH sg AS MATERIALIZED (
    SELECT f.* FROM dtx_internal.find_saga_to_explain(explain_saga.saga) AS f),
  s AS (
    SELECT p.*, (SELECT pg_catalog.array_agg(b.position ORDER BY b.position)
                   FROM dtx.saga_steps AS b
                  WHERE b.saga = p.saga AND b.step = ANY (p.after)) AS before,
           (SELECT pg_catalog.round(EXTRACT(epoch FROM h.finished_at - h.started_at), 3)
              FROM dtx.saga_history AS h
             WHERE h.saga = p.saga AND h.step = p.step AND h.outcome = 'completed'
             ORDER BY h.id DESC LIMIT 1) AS seconds
      FROM sg JOIN dtx.saga_steps AS p ON p.saga = sg.id),
  g AS (
    SELECT x.step, x.label, x.ord
      FROM (SELECT pg_catalog.array_agg(s.step ORDER BY s.position) AS names,
                   pg_catalog.array_agg(COALESCE(s.before, '{}')::text ORDER BY s.position) AS befores FROM s) AS a,
           ROWS FROM (dtx_internal.saga_graph(a.names, a.befores)) WITH ORDINALITY AS x (step, label, ord)),
  t AS (
    SELECT g.ord, g.label, s.*, dtx_internal.saga_place(s.action, s.servers, NULL, s.queue, NULL) AS place
      FROM g JOIN s ON s.position = g.step)
  SELECT l.line
    FROM (SELECT -4 AS ord,
                 pg_catalog.format('saga %s "%s", version %s: %s', sg.id, sg.name, sg.version, sg.state)
                 || COALESCE(' after ' || pg_catalog.round(EXTRACT(epoch FROM sg.finished_at - sg.started_at), 3) || ' s', '') AS line
            FROM sg
          UNION ALL
          SELECT -3, pg_catalog.concat_ws(', ', 'key "' || sg.key || '"', 'started at ' || sg.started_at,
                                          'to run at ' || sg.run_at, 'deadline ' || sg.deadline)
            FROM sg
          UNION ALL
          SELECT -2, sg.reason FROM sg WHERE sg.reason IS NOT NULL
          UNION ALL
          SELECT -1, sg.hint FROM sg WHERE sg.hint IS NOT NULL
          UNION ALL
          SELECT t.ord,
                 pg_catalog.rtrim(pg_catalog.rpad(t.label, pg_catalog.max(pg_catalog.length(t.label)) OVER ()) || '  '
                 || pg_catalog.rpad(t.place, pg_catalog.max(pg_catalog.length(t.place)) OVER ()) || '  '
                 || pg_catalog.rpad(t.kind, 13) || '  '
                 || pg_catalog.rpad(t.state::text, 12) || '  '
                 || pg_catalog.concat_ws(', ',
                      CASE t.attempts WHEN 0 THEN NULL WHEN 1 THEN '1 attempt' ELSE pg_catalog.format('%s attempts', t.attempts) END,
                      CASE WHEN t.state IN ('completed', 'compensated') THEN pg_catalog.format('%s s', t.seconds) END,
                      CASE WHEN t.state IN ('running', 'waiting', 'failed') THEN 'since ' || t.since END,
                      'worker "' || t.worker || '"',
                      'waiting for ' || t.waiting_for,
                      CASE WHEN t.due_at > pg_catalog.clock_timestamp() THEN 'next at ' || t.due_at END,
                      t.error))
            FROM t) AS l
   ORDER BY l.ord;
END;

COMMENT ON FUNCTION dtx.explain_saga(bigint) IS
  'draws the graph of a saga with the states of its steps, attempts and times, as text; an error if the caller may not see it';

-- Pictures.  (Called with the privileges of the caller: views only.)
CREATE OR REPLACE FUNCTION dtx.explain_saga(name text, format text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  WITH d AS MATERIALIZED (
    SELECT f.owner, f.bare, f.version FROM dtx_internal.find_definition_to_explain(explain_saga.name) AS f)
  SELECT dtx_internal.saga_picture(explain_saga.format, explain_saga.name,
           (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('position', s.position, 'step', s.step, 'kind', s.kind, 'action', s.action,
                     'place', dtx_internal.saga_place(s.action, s.servers, s.delay, s.queue, s.saga), 'only_if', s.only_if,
                     'after', s.after) ORDER BY s.position)
              FROM dtx.saga_definition_steps AS s
             WHERE s.owner = d.owner AND s.name = d.bare AND s.version = d.version))
    FROM d;
END;

COMMENT ON FUNCTION dtx.explain_saga(text, text) IS
  'the graph of the newest version of a definition as text, mermaid, dot, or json';

CREATE OR REPLACE FUNCTION dtx.explain_saga(saga bigint, format text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
  WITH sg AS MATERIALIZED (
    SELECT f.* FROM dtx_internal.find_saga_to_explain(explain_saga.saga) AS f)
  SELECT dtx_internal.saga_picture(explain_saga.format, pg_catalog.format('saga %s "%s": %s', sg.id, sg.name, sg.state),
           (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object('position', s.position, 'step', s.step, 'kind', s.kind, 'action', s.action,
                     'place', dtx_internal.saga_place(s.action, s.servers, NULL, s.queue, NULL), 'state', s.state, 'attempts', s.attempts,
                     'since', s.since, 'due_at', s.due_at, 'waiting_for', s.waiting_for, 'error', s.error,
                     'after', s.after) ORDER BY s.position)
              FROM dtx.saga_steps AS s WHERE s.saga = sg.id))
    FROM sg;
END;

COMMENT ON FUNCTION dtx.explain_saga(bigint, text) IS
  'the graph of a saga with the states and times of its steps as text, mermaid, dot, or json';
