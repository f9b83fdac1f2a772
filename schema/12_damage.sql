--
-- What was finished elsewhere against its decision.  Rows are written by the
-- resolver (src/state/damage.c) and never deleted.  Not dumped: they tell of the data
-- of certain servers, not of a copy's.
--

CREATE TABLE dtx_internal.damage_record (
  gid text PRIMARY KEY,
  server name NOT NULL,
  decided text NOT NULL CHECK (decided IN ('commit', 'rollback')),
  found text NOT NULL CHECK (found IN ('commit', 'rollback', 'lost', 'reappeared', 'unknown')),
  since timestamptz NOT NULL,
  remote_xid xid8 NOT NULL,
  system_id bigint NOT NULL,
  detail text NOT NULL,
  acknowledged_at timestamptz,
  acknowledged_by name,
  reason text,
  CHECK ((acknowledged_at IS NULL) = (acknowledged_by IS NULL)
         AND (acknowledged_at IS NULL) = (reason IS NULL))
) USING heap;

COMMENT ON TABLE dtx_internal.damage_record IS
  'prepared foreign transactions that were finished against their decision, acknowledged or not';
COMMENT ON COLUMN dtx_internal.damage_record.gid IS
  'name of the prepared transaction';
COMMENT ON COLUMN dtx_internal.damage_record.server IS
  'foreign server on which it was prepared';
COMMENT ON COLUMN dtx_internal.damage_record.decided IS
  'what should have become of it: commit or rollback';
COMMENT ON COLUMN dtx_internal.damage_record.found IS
  'what became of it: commit; rollback; lost, if the server does not know its transaction identifier; reappeared, if it had been committed and was prepared again; unknown, if the server cannot tell';
COMMENT ON COLUMN dtx_internal.damage_record.since IS
  'when that was found';
COMMENT ON COLUMN dtx_internal.damage_record.remote_xid IS
  'its transaction identifier on the server';
COMMENT ON COLUMN dtx_internal.damage_record.system_id IS
  'system identifier of the cluster on which it was prepared';
COMMENT ON COLUMN dtx_internal.damage_record.detail IS
  'what that means, in words';
COMMENT ON COLUMN dtx_internal.damage_record.acknowledged_at IS
  'when dtx.acknowledge_damage() was called; null: not yet';
COMMENT ON COLUMN dtx_internal.damage_record.acknowledged_by IS
  'session user who did';
COMMENT ON COLUMN dtx_internal.damage_record.reason IS
  'why, in the words of that user';
