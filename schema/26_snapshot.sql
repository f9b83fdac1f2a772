--
-- One moment on all servers (src/snapshot/api.c).
--

CREATE OR REPLACE FUNCTION dtx.export_snapshot(
  servers name[] DEFAULT NULL
) RETURNS TABLE (server name, snapshot text)
AS 'MODULE_PATHNAME', 'dtx_sql_export_snapshot'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 COST 10000;

COMMENT ON FUNCTION dtx.export_snapshot(name[]) IS
  'exports a snapshot of this database (server null) and of each of the servers (null: all that the caller may use and has a user mapping for), all of one moment, for pg_dump --snapshot and SET TRANSACTION SNAPSHOT; they last until the end of the transaction; an error with SQLSTATE 40001 if there is no such moment within pg_dtx.snapshot_timeout';

CREATE OR REPLACE FUNCTION dtx.create_restore_point(
  name text,
  servers name[] DEFAULT NULL
) RETURNS TABLE (server name, lsn pg_lsn)
AS 'MODULE_PATHNAME', 'dtx_sql_create_restore_point'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE ROWS 10 COST 10000;

COMMENT ON FUNCTION dtx.create_restore_point(text, name[]) IS
  'creates a restore point of this name in the WAL of this cluster (server null) and of each of the servers (null: all that the caller may use and has a user mapping for) at a moment at which no distributed transaction of this database is prepared or committed in part; an error with SQLSTATE 40001 if there is no such moment within pg_dtx.snapshot_timeout; remote users need EXECUTE on pg_create_restore_point()';

CREATE OR REPLACE FUNCTION dtx.wait_until_visible(
  servers name[] DEFAULT NULL
) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_wait_until_visible'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE COST 10000;

COMMENT ON FUNCTION dtx.wait_until_visible(name[]) IS
  'waits until what this database has committed before can be seen on each of the servers (null: all that the caller may use and has a user mapping for); an error with SQLSTATE 40001 if that takes longer than pg_dtx.snapshot_timeout';
