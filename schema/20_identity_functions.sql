--
-- Functions that make and change the identity of the coordinator.
--

CREATE OR REPLACE FUNCTION dtx_internal.make_identity() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_make_identity'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.make_identity() IS
  'internal: makes the row of dtx_internal.coordinator';

CREATE OR REPLACE FUNCTION dtx_internal.record_boot() RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_record_boot'
LANGUAGE C VOLATILE STRICT PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.record_boot() IS
  'internal: enters the current server run into dtx_internal.boot';

CREATE OR REPLACE FUNCTION dtx_internal.gid(xid xid8, n integer, boot_id bigint DEFAULT NULL) RETURNS text
AS 'MODULE_PATHNAME', 'dtx_sql_gid'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION dtx_internal.gid(xid8, integer, bigint) IS
  'internal: name of the prepared transaction of participant n of a transaction; boot_id null: of the current server run';

CREATE OR REPLACE FUNCTION dtx.adopt_identity(reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_adopt_identity'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION dtx.adopt_identity(text) IS
  'says that this is the only living server with this database: prepared transactions of its earlier runs are resolved again, as far as it is proven how they ended; needs a reason; an error if resolution is not suspended';

CREATE OR REPLACE FUNCTION dtx.change_identity(reason text) RETURNS void
AS 'MODULE_PATHNAME', 'dtx_sql_new_identity'
LANGUAGE C VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
SECURITY DEFINER SET search_path = pg_catalog, pg_temp;

COMMENT ON FUNCTION dtx.change_identity(text) IS
  'says that this server is a copy of another one: it becomes a coordinator of its own, and leaves all prepared transactions of the original to that; needs a reason; COMMIT on several servers is an error in this transaction';
