--
-- Who may do what, beside superusers.  Not run again by updates, because
-- administrators may have granted more.  (Functions of dtx_internal: 89_internal.sql.)
--
-- What has no entry here is a function that PUBLIC may execute: those that make values
-- for dtx.define_saga(), and those that see and do no more than the caller's own views
-- and user mappings.
--

-- Whatever ALTER DEFAULT PRIVILEGES has given away.
DO $$
DECLARE
  who text;
BEGIN
  FOR who IN
    SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END
      FROM (SELECT n.nspowner AS owner, n.nspacl AS acl
              FROM pg_catalog.pg_namespace n
             WHERE n.nspname OPERATOR(pg_catalog.=) 'dtx_internal'
            UNION ALL
            SELECT c.relowner, c.relacl
              FROM pg_catalog.pg_class c
              JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
             WHERE n.nspname OPERATOR(pg_catalog.=) 'dtx_internal') AS o,
           pg_catalog.aclexplode(o.acl) AS a
     WHERE a.grantee OPERATOR(pg_catalog.<>) o.owner
  LOOP
    EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA dtx_internal FROM %s', who);
    EXECUTE pg_catalog.format('REVOKE ALL ON ALL TABLES IN SCHEMA dtx_internal FROM %s', who);
    EXECUTE pg_catalog.format('REVOKE ALL ON ALL SEQUENCES IN SCHEMA dtx_internal FROM %s', who);
  END LOOP;
END
$$;

-- dtx_internal.  Nobody has privileges for what sagas are in: who may DELETE may LOCK
-- TABLE, too, and would hold up all sagas that come to their end.
GRANT USAGE ON SCHEMA dtx_internal TO pg_monitor;
GRANT SELECT (id) ON dtx_internal.coordinator TO pg_monitor;
GRANT SELECT ON dtx_internal.boot TO pg_monitor;
GRANT SELECT ON dtx_internal.decision TO pg_monitor;
GRANT SELECT ON dtx_internal.route TO pg_monitor;
GRANT SELECT ON dtx_internal.forced_record TO pg_monitor;
GRANT SELECT ON dtx_internal.damage_record TO pg_monitor;

-- views
REVOKE ALL ON dtx.transactions FROM PUBLIC;
GRANT SELECT ON dtx.transactions TO PUBLIC;
REVOKE ALL ON dtx.in_doubt FROM PUBLIC;
GRANT SELECT ON dtx.in_doubt TO PUBLIC;
REVOKE ALL ON dtx.saga_definitions FROM PUBLIC;
GRANT SELECT ON dtx.saga_definitions TO PUBLIC;
REVOKE ALL ON dtx.saga_definition_steps FROM PUBLIC;
GRANT SELECT ON dtx.saga_definition_steps TO PUBLIC;
REVOKE ALL ON dtx.sagas FROM PUBLIC;
GRANT SELECT ON dtx.sagas TO PUBLIC;
REVOKE ALL ON dtx.saga_steps FROM PUBLIC;
GRANT SELECT ON dtx.saga_steps TO PUBLIC;
REVOKE ALL ON dtx.saga_history FROM PUBLIC;
GRANT SELECT ON dtx.saga_history TO PUBLIC;
REVOKE ALL ON dtx.saga_consumers FROM PUBLIC;
GRANT SELECT ON dtx.saga_consumers TO PUBLIC;
REVOKE ALL ON dtx.saga_pauses FROM PUBLIC;
GRANT SELECT ON dtx.saga_pauses TO PUBLIC;
REVOKE ALL ON dtx.waiting FROM PUBLIC;
GRANT SELECT ON dtx.waiting TO PUBLIC;
REVOKE ALL ON dtx.saga_schedules FROM PUBLIC;
GRANT SELECT ON dtx.saga_schedules TO PUBLIC;
REVOKE ALL ON dtx.saga_queues FROM PUBLIC;
GRANT SELECT ON dtx.saga_queues TO PUBLIC;
REVOKE ALL ON dtx.saga_durations FROM PUBLIC;
GRANT SELECT ON dtx.saga_durations TO PUBLIC;
REVOKE ALL ON dtx.saga_damage FROM PUBLIC;
GRANT SELECT ON dtx.saga_damage TO PUBLIC;
REVOKE ALL ON dtx.saga_stat FROM PUBLIC;
GRANT SELECT ON dtx.saga_stat TO PUBLIC;
REVOKE ALL ON dtx.servers FROM PUBLIC;
GRANT SELECT ON dtx.servers TO pg_monitor;
REVOKE ALL ON dtx.stat FROM PUBLIC;
GRANT SELECT ON dtx.stat TO pg_monitor;
REVOKE ALL ON dtx.lock_waits FROM PUBLIC;
GRANT SELECT ON dtx.lock_waits TO pg_monitor;
REVOKE ALL ON dtx.damage FROM PUBLIC;
GRANT SELECT ON dtx.damage TO pg_monitor;
REVOKE ALL ON dtx.forced FROM PUBLIC;
GRANT SELECT ON dtx.forced TO pg_monitor;
REVOKE ALL ON dtx.relays FROM PUBLIC;
GRANT SELECT ON dtx.relays TO pg_monitor;
REVOKE ALL ON dtx.outbox_stat FROM PUBLIC;
GRANT SELECT ON dtx.outbox_stat TO pg_monitor;

-- what users have put into events
REVOKE ALL ON dtx.outbox FROM PUBLIC;
REVOKE ALL ON SEQUENCE dtx.outbox_seq_seq FROM PUBLIC;
REVOKE ALL ON dtx.outbox_dead FROM PUBLIC;
REVOKE ALL ON dtx.inbox FROM PUBLIC;

-- functions for superusers, until they grant them
REVOKE ALL ON FUNCTION dtx.adopt_identity(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.change_identity(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.reset_stat() FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resolve_in_doubt() FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.adopt_coordinator(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.confirm_server(name, boolean, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.force_in_doubt(text, text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.acknowledge_damage(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.exec(name, text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.exec(name, text, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.create_restore_point(text, name[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.exec_all(name[], text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.exec_all(name[], text, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query(name, text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query(name, text, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query_all(name[], text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query_all(name[], text, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query_json(name, text, text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.query_json(name, text, "any") FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.define_saga(text, dtx.step_spec[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.grant_saga_definition(text, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.revoke_saga_definition(text, name) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.drop_saga_definition(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.wait_saga(bigint, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.cancel_saga(bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.adopt_sagas(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.cancel_sagas(bigint[], text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.schedule_saga(text, text, text, jsonb, text, text, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.unschedule_saga(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_schedule(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_schedule(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.dry_run(text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.advance_time(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.retry_sagas(bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_sagas(bigint[], text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_sagas(bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.signal_sagas(bigint[], text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_saga(bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_saga(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_saga_definition(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_saga_definition(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_queue(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_queue(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.pause_server(name, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.resume_server(name) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.set_queue(text, integer, integer, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.find_sagas(text, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.migrate_saga(bigint, integer, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.migrate_sagas(text, integer, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.retry_saga(bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.skip_step(bigint, text, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.force_saga(bigint, dtx.saga_state, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.signal_saga(bigint, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.purge_sagas(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.claim_step(text, text, interval, integer, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.heartbeat_step(uuid, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.complete_step(uuid, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.fail_step(uuid, text, boolean, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.release_step(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.acknowledge_saga_damage(bigint, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.take_saga_events(text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.drop_saga_consumer(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.emit_saga_event(bigint, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.signal_saga(text, text, text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.publish(text, text, text, jsonb, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.republish(uuid) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.purge_outbox(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.grant_relay(name) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_hello(text, text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_beat(integer, bigint, bigint, bigint, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_wait(integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_position() FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_take(smallint[], bigint[], text[], text[], text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_done(uuid[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_bury(uuid, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_receive(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_prune(interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_message(text, text, text, text, text, text, text[], text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_dispatch(text, text, text, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.relay_reply(jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION dtx.overview() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION dtx.overview() TO pg_monitor;
