--
-- Finishing what a coordinator that is lost for ever has left behind.
--

CREATE OR REPLACE FUNCTION dtx_internal.outcome_question(xid bigint) RETURNS text
AS 'MODULE_PATHNAME', 'dtx_sql_outcome_question'
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.outcome_question(bigint) IS
  'internal: SQL by which a server tells what became of a transaction id of its own';

CREATE OR REPLACE FUNCTION dtx_internal.finish_prepared(server name, gid text, committed boolean, system_id text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_finish_prepared'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx_internal.finish_prepared(name, text, boolean, text) IS
  'internal: finishes a prepared transaction at once, whatever coordinator has prepared it, on a server that leads to this cluster';

-- What became of the transaction that decides, on its own server; "committed" only if its
-- synchronous standby has it, too, if there is one.
CREATE OR REPLACE FUNCTION dtx_internal.ask_decider(server name, xid bigint) RETURNS text
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  outcome text;
  lsn pg_lsn;
BEGIN
  SELECT q.o INTO outcome
    FROM dtx.query(server, dtx_internal.outcome_question(xid)) AS q(o text);
  IF outcome IS DISTINCT FROM 'committed' THEN
    RETURN coalesce(outcome, 'unknown');
  END IF;

  SELECT q.l INTO lsn
    FROM dtx.query(server, $q$SELECT CASE WHEN pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) ''
      THEN pg_catalog.pg_current_wal_insert_lsn() END$q$) AS q(l pg_lsn);
  FOR i IN 1 .. 20 LOOP
    IF lsn IS NULL OR
       (SELECT q.has
          FROM dtx.query(server, pg_catalog.format($q$SELECT count(*) FILTER (WHERE r.flush_lsn OPERATOR(pg_catalog.>=) %L) OPERATOR(pg_catalog.=) count(*)
              AND count(*) OPERATOR(pg_catalog.>) 0
              FROM pg_catalog.pg_stat_replication AS r
             WHERE r.sync_state OPERATOR(pg_catalog.=) ANY ('{sync,quorum}')$q$, lsn)) AS q(has boolean)) THEN
      RETURN outcome;
    END IF;
    PERFORM pg_sleep(0.1);
  END LOOP;
  RETURN 'committed, not replicated';
END
$$;

COMMENT ON FUNCTION dtx_internal.ask_decider(name, bigint) IS
  'internal: what became of a transaction id on a server';

CREATE OR REPLACE FUNCTION dtx.adopt_coordinator(
  coordinator text,
  OUT server name,
  OUT gid text,
  OUT decided_by text,
  OUT decision text,
  OUT done boolean,
  OUT problem text
) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE ROWS 10 COST 10000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
  clusters jsonb := '{}';
  databases text[] := '{}';
  found jsonb := '[]';
  entry jsonb;
  reply jsonb;
  part text[];
  outcome text;
BEGIN
  IF coordinator !~ '^[0-9a-f]{16}$' THEN
    RAISE EXCEPTION 'invalid identifier of a coordinator: "%"', coordinator
      USING ERRCODE = 'invalid_parameter_value',
        HINT = 'It has 16 hexadecimal digits: the second part of the names of its prepared transactions.';
  END IF;
  IF coordinator = (SELECT lpad(to_hex(c.id), 16, '0') FROM dtx_internal.coordinator AS c) THEN
    RAISE EXCEPTION 'this database is coordinator "%"', coordinator
      USING ERRCODE = 'object_not_in_prerequisite_state',
        HINT = 'Use dtx.resolve_in_doubt().';
  END IF;

  -- which cluster and database each server is, and what is prepared there
  FOR server IN SELECT s.server FROM dtx.servers AS s ORDER BY s.server LOOP
    BEGIN
      SELECT q INTO STRICT reply
        FROM dtx.query_json(server, $q$SELECT system_identifier::pg_catalog.text AS cluster,
          (('x' OPERATOR(pg_catalog.||) pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 8))::pg_catalog.bit(32)::pg_catalog.int8)::pg_catalog.text AS timeline,
          pg_catalog.current_database()::pg_catalog.text AS database
          FROM pg_catalog.pg_control_system()$q$) AS q;
      clusters := clusters || jsonb_build_object(reply ->> 'cluster',
        jsonb_build_object('server', server, 'timeline', reply ->> 'timeline'));
      CONTINUE WHEN format('%s %s', reply ->> 'cluster', reply ->> 'database') = ANY (databases);
      databases := databases || format('%s %s', reply ->> 'cluster', reply ->> 'database');
      found := found || coalesce((
        SELECT jsonb_agg(q || jsonb_build_object('server', server, 'cluster', reply ->> 'cluster'))
          FROM dtx.query_json(server, format($q$SELECT gid FROM pg_catalog.pg_prepared_xacts
            WHERE gid LIKE 'dtx:%s:%%' AND database OPERATOR(pg_catalog.=) pg_catalog.current_database()
            ORDER BY prepared, gid$q$, coordinator)) AS q), '[]');
    EXCEPTION WHEN OTHERS THEN
      gid := NULL;
      decided_by := NULL;
      decision := NULL;
      done := false;
      problem := sqlerrm;
      RETURN NEXT;
    END;
  END LOOP;

  FOR entry IN SELECT value FROM jsonb_array_elements(found) LOOP
    server := entry ->> 'server';
    gid := entry ->> 'gid';
    decided_by := NULL;
    decision := NULL;
    done := false;
    problem := NULL;
    part := string_to_array(gid, ':');
    IF part[5] !~ '^s' THEN
      problem := 'only the coordinator that is lost can decide about it';
      RETURN NEXT;
      CONTINUE;
    END IF;

    decided_by := coalesce(clusters -> part[6] ->> 'server', format('cluster %s', part[6]));
    IF clusters -> part[6] IS NULL THEN
      problem := 'no foreign server of this database leads to the cluster that decides about it';
    ELSIF clusters -> part[6] ->> 'timeline' IS DISTINCT FROM part[7] THEN
      problem := format('the server that decides about it has failed over since, or was restored (timeline %s, now %s), and nothing proves what became of its transaction',
                        part[7], clusters -> part[6] ->> 'timeline');
    ELSE
      BEGIN
        outcome := dtx_internal.ask_decider((clusters -> part[6] ->> 'server')::name, part[8]::bigint);
        decision := CASE
          WHEN outcome = 'committed' THEN 'commit'
          WHEN outcome = 'aborted' THEN 'rollback'
          WHEN outcome = 'in progress' THEN 'its transaction is still in progress on the server that decides about it'
          WHEN outcome = 'committed, not replicated' THEN 'the synchronous standby of the server that has decided has not got the decision yet'
          ELSE 'the server that decides about it does not know its transaction any more' END;
        IF decision NOT IN ('commit', 'rollback') THEN
          problem := decision;
          decision := NULL;
        ELSE
          PERFORM dtx_internal.finish_prepared(server, gid, decision = 'commit', entry ->> 'cluster');
          done := true;
          RAISE LOG 'user "%" finished prepared transaction "%" of a lost coordinator on server "%": %',
            session_user, gid, server, decision;
        END IF;
      EXCEPTION WHEN OTHERS THEN
        problem := sqlerrm;
      END;
    END IF;
    RETURN NEXT;
  END LOOP;
END
$$;

COMMENT ON FUNCTION dtx.adopt_coordinator(text) IS
  'finishes what another coordinator, which is lost for ever, has left prepared on the servers of this database, as far as a server decides about it, and lists the rest; done at once, and not undone by ROLLBACK; superusers only';
