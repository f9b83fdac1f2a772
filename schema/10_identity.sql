--
-- Who this coordinator is.  Not dumped: a copy must not take the original's prepared
-- transactions for its own.
--

-- A materialized view, like dtx_internal.decision: it must not be published.
CREATE MATERIALIZED VIEW dtx_internal.coordinator USING heap AS
  SELECT NULL::pg_catalog.int8 AS id,
         NULL::pg_catalog.bytea AS secret
   WHERE false;

COMMENT ON MATERIALIZED VIEW dtx_internal.coordinator IS
  'identity of this database as a coordinator; one row, made by CREATE EXTENSION and never dumped';
COMMENT ON COLUMN dtx_internal.coordinator.id IS
  'random identifier; its 64 bits, in hexadecimal, are the first field of every gid';
COMMENT ON COLUMN dtx_internal.coordinator.secret IS
  'key of the seal that ends every gid; who knows it can forge names of prepared transactions';

--
-- Boots of the server.  Read and written in src/state/identity.c, which relies on the
-- columns and their order.  Not dumped, like the rest of the identity.
--

CREATE MATERIALIZED VIEW dtx_internal.boot USING heap AS
  SELECT NULL::pg_catalog.int8 AS boot_id,
         NULL::pg_catalog.int4 AS ordinal,
         NULL::pg_catalog.timestamptz AS started_at,
         NULL::pg_catalog.xid8 AS floor_xid,
         NULL::pg_catalog.xid8 AS next_xid,
         NULL::pg_catalog.xid8 AS proven_xid,
         NULL::pg_catalog.int8 AS timeline,
         NULL::pg_catalog.int8 AS system_id,
         NULL::pg_catalog.text AS machine,
         NULL::pg_catalog.int8 AS control_file,
         NULL::pg_catalog.int8 AS recovery_id,
         NULL::pg_catalog.text AS suspended,
         NULL::pg_catalog.timestamptz AS ended_at,
         NULL::pg_catalog.name AS ended_by,
         NULL::pg_catalog.text AS ended_as,
         NULL::pg_catalog.text AS reason
   WHERE false;

COMMENT ON MATERIALIZED VIEW dtx_internal.boot IS
  'starts of the server with this database: whose prepared transactions are its own; do not change it by hand';
COMMENT ON COLUMN dtx_internal.boot.boot_id IS
  'random identifier of the server run; its 64 bits, in hexadecimal, are the third field of every gid';
COMMENT ON COLUMN dtx_internal.boot.ordinal IS
  'order of the server runs';
COMMENT ON COLUMN dtx_internal.boot.started_at IS
  'when it began';
COMMENT ON COLUMN dtx_internal.boot.floor_xid IS
  'it has assigned no lower transaction identifier';
COMMENT ON COLUMN dtx_internal.boot.next_xid IS
  'first transaction identifier that it can have assigned, or a higher one that was next soon after its start';
COMMENT ON COLUMN dtx_internal.boot.proven_xid IS
  'lower transaction identifiers cannot be assigned again by later runs; raised by the resolver';
COMMENT ON COLUMN dtx_internal.boot.timeline IS
  'timeline of the cluster';
COMMENT ON COLUMN dtx_internal.boot.system_id IS
  'system identifier of the cluster';
COMMENT ON COLUMN dtx_internal.boot.machine IS
  'hash of the identifier of the machine (/etc/machine-id); null if not known';
COMMENT ON COLUMN dtx_internal.boot.control_file IS
  'inode number of the file global/pg_control, which a copied data directory does not share';
COMMENT ON COLUMN dtx_internal.boot.recovery_id IS
  'random number of the last recovery of the cluster from a backup or to a target; 0: none';
COMMENT ON COLUMN dtx_internal.boot.suspended IS
  'why prepared transactions of earlier runs are not resolved until a human says who this server is; null: they are';
COMMENT ON COLUMN dtx_internal.boot.ended_at IS
  'when that was said; null: not yet, or no need';
COMMENT ON COLUMN dtx_internal.boot.ended_by IS
  'session user who said it';
COMMENT ON COLUMN dtx_internal.boot.ended_as IS
  'what was said: original (dtx.adopt_identity()) or copy (dtx.change_identity())';
COMMENT ON COLUMN dtx_internal.boot.reason IS
  'why, in the words of who said it';
