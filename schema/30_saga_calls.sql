--
-- What C offers to the functions of sagas (src/saga/).
--

CREATE OR REPLACE FUNCTION dtx_internal.saga_caller() RETURNS oid
AS 'MODULE_PATHNAME', 'dtx_sql_saga_caller'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_caller() IS
  'internal: the role that has called the public function';

CREATE OR REPLACE FUNCTION dtx_internal.saga_warn(message text, detail text, hint text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_warn'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_warn(text, text, text) IS
  'internal: a warning without the calls of internal functions that have led to it, in the server log';

CREATE OR REPLACE FUNCTION dtx_internal.saga_claim(saga bigint, step smallint, attempt integer, compensation boolean, lanes oid[], role oid)
RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_claim'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_claim(bigint, smallint, integer, boolean, oid[], oid) IS
  'internal: makes known that this process works on a step; false if another one does, or if the role has its share of workers on one of the servers';

CREATE OR REPLACE FUNCTION dtx_internal.saga_claimed(saga bigint, step smallint) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_claimed'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_claimed(bigint, smallint) IS
  'internal: does a live process work on a step?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_stop(saga bigint, step smallint, attempt integer, compensation boolean) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_stop'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_stop(bigint, smallint, integer, boolean) IS
  'internal: has the worker that executes a step stop when this transaction has committed';

CREATE OR REPLACE FUNCTION dtx_internal.saga_lane_open(lane oid, role oid) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_lane_open'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_lane_open(oid, oid) IS
  'internal: may one more worker of a role work for a foreign server?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_lane_used(lane oid, role oid) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_lane_used'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_lane_used(oid, oid) IS
  'internal: does another worker of a role work for a foreign server?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_own_xid(xid xid) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_own_xid'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_own_xid(xid) IS
  'internal: is that the current transaction, or a subtransaction of it?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_confirmed(boot_id bigint, xid bigint) RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_confirmed'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_confirmed(bigint, bigint) IS
  'internal: have all servers confirmed the second phase of a transaction?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_home() RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_home'
LANGUAGE C STABLE PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_home() IS
  'internal: the current database, wherever that is: identity of the coordinator, and OID of the database';

CREATE OR REPLACE FUNCTION dtx_internal.saga_active_home() RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_active_home'
LANGUAGE C STABLE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_active_home() IS
  'internal: dtx_internal.saga_home(), null while it is not certain that no other server goes on with its sagas (dtx_internal.boot)';

CREATE OR REPLACE FUNCTION dtx_internal.boot_id() RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_boot_id'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.boot_id() IS
  'internal: random identifier of this run of the server';

CREATE OR REPLACE FUNCTION dtx_internal.wake_sagas() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_wake_sagas'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.wake_sagas() IS
  'internal: has the scheduler look at the sagas when this transaction has committed';

CREATE OR REPLACE FUNCTION dtx_internal.saga_announce(queue text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_announce'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_announce(text) IS
  'internal: if this transaction commits, this worker of sagas sends a NOTIFY for a queue, in another one';

CREATE OR REPLACE FUNCTION dtx_internal.saga_note_late(token uuid) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_note_late'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_note_late(uuid) IS
  'internal: an external worker has reported a step whose lease has ended; has the scheduler record that, whatever becomes of this transaction';

CREATE OR REPLACE FUNCTION dtx_internal.saga_late() RETURNS uuid[]
AS 'MODULE_PATHNAME', 'dtx_sql_saga_late'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_late() IS
  'internal: tokens of leases that had ended when their workers reported that the step was done; forgets them';

CREATE OR REPLACE FUNCTION dtx_internal.saga_wait_work(queue text, ms integer) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_wait_work'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_wait_work(text, integer) IS
  'internal: waits until there may be something in a queue, for milliseconds, a second at most';

CREATE OR REPLACE FUNCTION dtx_internal.saga_moment() RETURNS bigint
AS 'MODULE_PATHNAME', 'dtx_sql_saga_moment'
LANGUAGE C VOLATILE STRICT PARALLEL SAFE;

COMMENT ON FUNCTION dtx_internal.saga_moment() IS
  'internal: milliseconds on a clock of this machine that nobody sets';

CREATE OR REPLACE FUNCTION dtx_internal.saga_clock_right() RETURNS boolean
AS 'MODULE_PATHNAME', 'dtx_sql_saga_clock_right'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_clock_right() IS
  'internal: has what is a duration in tables followed the wall clock, as far as is known?';

CREATE OR REPLACE FUNCTION dtx_internal.saga_finished(saga bigint) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_saga_finished'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.saga_finished(bigint) IS
  'internal: wakes up who waits for a saga, or for work in the queue with that hash value, when this transaction has committed';
