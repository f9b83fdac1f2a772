/*-------------------------------------------------------------------------
 *
 * protocol.h
 *		Commands that more than one module sends to servers, or recognizes there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PROTOCOL_H
#define PG_DTX_PROTOCOL_H

/*
 * What stands in front of PREPARE TRANSACTION in the message that prepares a
 * participant, up to the gid, which follows in a comment so that it is near the
 * beginning: pg_stat_activity shows the beginning only (track_activity_query_size).
 * Resolvers look for running commands that begin with it.
 */
#define DTX_PREPARE_HEAD	"SET CONSTRAINTS ALL IMMEDIATE /* "

/*
 * Asked of a server on a new connection: the name of its current WAL file, which
 * begins with the timeline; which run of it this is; whether every role may execute what
 * commit/point_question.c asks for; and its system identifier, which not everybody may ask
 * for.  Servers before version 10 call the functions of the first otherwise.
 *
 * A run ends when the server crashes, because what it has told of its WAL counts no
 * longer.  Each recovery from a crash resets the statistics (pgstat_discard_stats() in
 * postmaster/pgstat.c, called by StartupXLOG(); in earlier releases the statistics
 * collector), so a run is known by the time of that, in microseconds.  Who resets these
 * statistics begins what looks like another run, which does no harm.
 *
 * The OIDs are those of pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn() and
 * pg_logical_emit_message(boolean, text, text), the last with one more argument from 17
 * on (catalog/pg_proc.dat, 10 to 19).
 */
#define DTX_RUN \
	"(SELECT (pg_catalog.date_part('epoch', b.stats_reset) OPERATOR(pg_catalog.*) 1000000)" \
	"::pg_catalog.int8 FROM pg_catalog.pg_stat_bgwriter AS b)"
#define DTX_EVERYBODY_MAY(function) \
	"pg_catalog.has_function_privilege('public', " function "::pg_catalog.oid, 'EXECUTE')"

/*
 * When a process of a server has started, in microseconds since 1970: by that one is known
 * that has got the id of another one.  Null of processes of other users.
 */
#define DTX_PROCESS_STARTED(pid) \
	"(SELECT (pg_catalog.date_part('epoch', a.backend_start) OPERATOR(pg_catalog.*) 1000000)" \
	"::pg_catalog.int8 FROM pg_catalog.pg_stat_get_activity(" pid ") AS a)"

#define DTX_IDENTIFY_OLD \
	"SELECT NULL::pg_catalog.text, NULL::pg_catalog.text, NULL::pg_catalog.text; " \
	"SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"
#define DTX_IDENTIFY \
	"SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() " \
	"THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END, " \
	DTX_RUN "::pg_catalog.text, (" DTX_EVERYBODY_MAY("2852") " AND " \
	DTX_EVERYBODY_MAY("3330") " AND " DTX_EVERYBODY_MAY("3577") ")::pg_catalog.text; " \
	"SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"

/*
 * Columns of what is asked of a server on a new connection: its process for the session,
 * which may be one behind a pooler; and which running server that is, see DtxInstance().
 */
#define DTX_SESSION \
	"pg_catalog.pg_backend_pid(), (pg_catalog.date_part('epoch', " \
	"pg_catalog.pg_postmaster_start_time()) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8, " \
	"pg_catalog.current_setting('port')"

#endif							/* PG_DTX_PROTOCOL_H */
