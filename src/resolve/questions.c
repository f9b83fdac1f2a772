/*-------------------------------------------------------------------------
 *
 * questions.c
 *		What a visit asks a server, and how its answers are read.
 *
 * The server is asked in this order: is it in recovery (then its prepared
 * transactions cannot be seen), which PREPAREs are running, which transactions are
 * prepared.  In any other order one could slip through.  A PREPARE that arrives even
 * later belongs to a transaction that has been rolled back, because a commit needs
 * the success of all PREPAREs; a later pass finds it.
 *
 * Nothing in a command comes from another machine, and nothing in an answer is
 * trusted: values have a longest length, numbers and gids are parsed strictly.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/gid.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "resolve/questions.h"
#include "resolve/visit.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"

/* Gids listed in one visit; the rest is left to the next one. */
#define MAX_LISTED			10000

/* Running PREPAREs listed in one visit. */
#define MAX_IN_FLIGHT		100

/*
 * Longest wait for the synchronous standby of a server before it is said to be
 * away, milliseconds; only where waiting longer would leave a session behind.
 */
#define WITNESS_TIMEOUT		2000

static int64 milliseconds(const PGresult *res, int column);

/*
 * Ask what is prepared.  Three statements, whose order matters (see the top of
 * this file).  Nothing in them comes from another machine; a gid contains no
 * character that means something to LIKE or to a literal.  LIKE rather than a
 * function on the text, because a gid or a query of other software may be in
 * another encoding.
 */
void
DtxAskList(DtxVisit *v, DtxRemote *remote)
{
	StringInfoData sql;
	char		pattern[DTX_GID_SIZE + 1];

	if (v->has_only)
		DtxGidFormat(&v->only, pattern);
	else
		snprintf(pattern, sizeof(pattern), "%s%%", v->resolver->prefix);

	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT current_user::pg_catalog.text, "
						   "pg_catalog.current_database()::pg_catalog.text, "
						   "pg_catalog.pg_is_in_recovery()::pg_catalog.text, "
						   "(SELECT r.rolsuper FROM pg_catalog.pg_roles r"
						   " WHERE r.rolname = current_user)::pg_catalog.text, "
						   "(SELECT count(*) > 0 FROM pg_catalog.pg_roles r"
						   " WHERE r.rolname = 'pg_read_all_stats'"
						   " AND pg_catalog.pg_has_role(r.oid, 'USAGE'))::pg_catalog.text, "
						   "pg_catalog.current_setting('max_prepared_transactions'), "
						   "(SELECT count(*) FROM pg_catalog.pg_prepared_xacts)::pg_catalog.text, "
						   "pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::pg_catalog.text, "
						   "pg_catalog.pg_backend_pid()::pg_catalog.text, "
						   "(pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) '')::pg_catalog.text; ");
	appendStringInfo(&sql,
					 "SELECT pid::pg_catalog.text, query, "
					 "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) query_start)::pg_catalog.int8::pg_catalog.text "
					 "FROM pg_catalog.pg_stat_activity "
					 "WHERE state = 'active' AND pg_catalog.octet_length(query) <= 2048 "
					 "AND (query LIKE '" DTX_PREPARE_HEAD "%s%s' "
					 "OR query LIKE 'CLOSE c%%" DTX_PREPARE_HEAD "%s%s' "
					 "OR wait_event = 'SyncRep' AND query LIKE 'COMMIT P%%''%s%s') "
					 "LIMIT %d; ",
					 pattern, v->has_only ? " %" : "",
					 pattern, v->has_only ? " %" : "",
					 pattern, v->has_only ? "''%" : "", MAX_IN_FLIGHT);
	appendStringInfo(&sql,
					 "SELECT gid, owner::pg_catalog.text, database::pg_catalog.text, "
					 "transaction::pg_catalog.text, "
					 "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) prepared)::pg_catalog.int8::pg_catalog.text "
					 "FROM pg_catalog.pg_prepared_xacts "
					 "WHERE gid LIKE '%s' LIMIT %d",
					 pattern, MAX_LISTED + 1);

	v->next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	v->phase = DTX_PHASE_LIST;
	v->list++;
	v->nlisted = 0;
	v->truncated = false;
	v->has_info = false;
	v->standby_waits = false;
	v->witnessed = v->replicated = false;
	v->deciders_asked = false;
	v->in_flight = NIL;
	DtxRemoteSend(remote, sql.data);
	pfree(sql.data);
}

/* What the server and the session are. */
void
DtxReadSession(DtxVisit *v, DtxRemote *remote, const PGresult *res)
{
	const char *values[10];
	int64		pid;

	if (PQnfields(res) != lengthof(values) || v->has_info)
		return;
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = DtxRemoteValue(res, i, NAMEDATALEN * 4);
		if (values[i] == NULL)
			return;
	}

	v->remote_user = DtxCleanText(values[0], NAMEDATALEN * 4);
	v->database = DtxCleanText(values[1], NAMEDATALEN * 4);
	v->in_recovery = strcmp(values[2], "false") != 0;
	v->superuser = strcmp(values[3], "true") == 0;
	v->sees_all = v->superuser || strcmp(values[4], "true") == 0;
	v->slots_total = (int) DtxNumberParse(values[5], PG_INT32_MAX);
	v->slots_used = (int) DtxNumberParse(values[6], PG_INT32_MAX);
	v->next_remote_xid = DtxNumberParse(values[7], PG_INT64_MAX);

	/* A pooler tells its clients numbers of its own. */
	pid = DtxNumberParse(values[8], PG_INT32_MAX);
	v->pooled = DtxRemoteBackendPid(remote) != 0 &&
		DtxRemoteBackendPid(remote) != pid;
	v->has_standbys = strcmp(values[9], "false") != 0;
	v->has_info = true;
}

/* A PREPARE of ours that is running, or a COMMIT PREPARED that waits. */
void
DtxReadRunning(DtxVisit *v, const PGresult *res)
{
	const char *pid;
	const char *query;
	char text[	DTX_GID_SIZE];
	const char *end;
	DtxRunningPrepare *item;
	unsigned int cursor;
	int			len = 0;

	if (PQnfields(res) != 3 || list_length(v->in_flight) >= MAX_IN_FLIGHT)
		return;
	pid = DtxRemoteValue(res, 0, 12);
	query = DtxRemoteValue(res, 1, 2048);
	if (pid == NULL || query == NULL || DtxNumberParse(pid, PG_INT32_MAX) == 0)
		return;
	if (strncmp(query, "COMMIT ", 7) == 0)
	{
		v->standby_waits = true;
		return;
	}
	/* what DtxParticipantPrepare() puts in front */
	while (sscanf(query, "CLOSE c%9u; %n", &cursor, &len) == 1 && len > 0)
	{
		query += len;
		len = 0;
	}
	if (strncmp(query, DTX_PREPARE_HEAD, strlen(DTX_PREPARE_HEAD)) != 0)
		return;
	query += strlen(DTX_PREPARE_HEAD);
	end = strchr(query, ' ');
	if (end == NULL || end - query >= DTX_GID_SIZE)
		return;
	memcpy(text, query, end - query);
	text[		end - query] = '\0';

	item = palloc0(sizeof(DtxRunningPrepare));
	item->pid = (int) DtxNumberParse(pid, PG_INT32_MAX);
	item->age_ms = milliseconds(res, 2);
	if (!DtxGidParse(text, &item->gid) ||
		(!v->has_only &&
		 (item->gid.coordinator_id != v->coordinator_id ||
		  item->gid.dbid != MyDatabaseId)))
	{
		pfree(item);
		return;
	}
	v->in_flight = lappend(v->in_flight, item);
	v->seen_in_flight = lappend(v->seen_in_flight, item);
}

/* A number of seconds in a result, as milliseconds; -1 if there is none. */
static int64
milliseconds(const PGresult *res, int column)
{
	const char *value = DtxRemoteValue(res, column, 20);

	/* (less than 0 if the clock was set back) */
	if (value == NULL || value[0] < '0' || value[0] > '9')
		return -1;
	return (int64) DtxNumberParse(value, PG_INT32_MAX) * 1000;
}

/*
 * A prepared transaction of ours.  Returns false if the server does not stop where it
 * was told to.
 */
bool
DtxReadPrepared(DtxVisit *v, const PGresult *res)
{
	const char *value;
	DtxGid		gid;
	DtxListedGid *f;
	bool		known;

	if (++v->nlisted > MAX_LISTED)
	{
		v->truncated = true;

		return v->nlisted <= MAX_LISTED + 1;
	}

	if (PQnfields(res) != 5)
		return true;
	value = DtxRemoteValue(res, 0, DTX_GID_SIZE);
	if (value == NULL || !DtxGidParse(value, &gid))
		return true;
	if (v->has_only ? memcmp(&gid, &v->only, sizeof(gid)) != 0 :
		(gid.coordinator_id != v->coordinator_id ||
		 gid.dbid != MyDatabaseId))
		return true;

	f = hash_search(v->found_hash, &gid, HASH_ENTER, &known);
	if (!known)
	{
		memset(f, 0, sizeof(DtxListedGid));
		f->gid = gid;
		v->found = lappend(v->found, f);
		value = DtxRemoteValue(res, 1, NAMEDATALEN * 4);
		if (value != NULL)
			f->owner = DtxCleanText(value, NAMEDATALEN * 4);
		value = DtxRemoteValue(res, 2, NAMEDATALEN * 4);
		if (value != NULL)
			f->database = DtxCleanText(value, NAMEDATALEN * 4);
		value = DtxRemoteValue(res, 3, 12);
		if (value != NULL && v->next_remote_xid != 0)
		{
			uint32		low = (uint32) DtxNumberParse(value, PG_UINT32_MAX);
			int32		distance = (int32) (low - (uint32) v->next_remote_xid);

			/* An id that is in use is less than 2^31 away from the next one. */
			if (low != 0)
				f->remote_xid = v->next_remote_xid + (int64) distance;
		}
		f->age_ms = milliseconds(res, 4);
	}
	f->list = v->list;
	return true;
}

/*
 * Ask what else dtx.check_server() wants to know.  Limits are those of the role that
 * logs in.  A function is named without its arguments, which differ between versions.
 */
void
DtxAskLimits(DtxVisit *v, DtxRemote *remote)
{
	v->phase = DTX_PHASE_PROBE;
	DtxRemoteSend(remote,
				  "SELECT (SELECT r.rolconnlimit FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = session_user)::pg_catalog.text, "
				  "(SELECT d.datconnlimit FROM pg_catalog.pg_database d"
				  " WHERE d.datname = pg_catalog.current_database())::pg_catalog.text, "
				  "(SELECT r.rolsuper FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = session_user)::pg_catalog.text, "
				  "(SELECT count(*) > 0 FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = 'pg_use_reserved_connections'"
				  " AND pg_catalog.pg_has_role(session_user, r.oid, 'USAGE')"
				  " AND pg_catalog.current_setting('reserved_connections', true) <> '0')::pg_catalog.text, "
				  "(pg_catalog.current_setting('pg_stat_statements.track_utility', true) = 'on')::pg_catalog.text, "
				  "(SELECT count(*) > 0 FROM pg_catalog.pg_proc p, pg_catalog.pg_language l"
				  " WHERE p.proname = 'pg_logical_emit_message'"
				  " AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
				  " AND l.lanname = 'plpgsql'"
				  " AND pg_catalog.has_language_privilege(l.oid, 'USAGE'))::pg_catalog.text");
}

/*
 * The answer to the question for limits of connections; what is not as expected is left
 * as it was.
 */
void
DtxReadLimits(DtxVisit *v, const PGresult *res)
{
	const char *values[6];
	DtxProbe   *probe = v->probe;

	if (PQnfields(res) != lengthof(values))
		return;
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = DtxRemoteValue(res, i, 32);
		if (values[i] == NULL)
			values[i] = "";
	}
	probe->role_limit = atoi(values[0]);
	probe->database_limit = atoi(values[1]);
	probe->reserved = strcmp(values[2], "true") == 0 ||
		strcmp(values[3], "true") == 0;
	probe->counts_utilities = strcmp(values[4], "true") == 0;
	probe->has_standbys = v->has_standbys;
	probe->has_witness = v->version >= 110000 && strcmp(values[5], "true") == 0;
	probe->has_session = true;
}

/*
 * Set up the session, see the top of this file.  Returns false, and sends nothing,
 * if it is already.
 */
bool
DtxAskMode(DtxVisit *v, DtxRemote *remote, DtxSessionMode mode)
{
	char		sql[128];

	if (v->mode == mode)
		return false;
	v->mode = mode;
	v->phase = DTX_PHASE_MODE;
	switch (mode)
	{
		case DTX_MODE_LOOK:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = %d",
					 DTX_REMOTE_COMMAND_TIMEOUT);
			break;
		case DTX_MODE_ROLLBACK:
			snprintf(sql, sizeof(sql), "SET synchronous_commit = local");
			break;
		case DTX_MODE_COMMIT:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = 0");
			break;
		case DTX_MODE_WITNESS:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = %d",
					 WITNESS_TIMEOUT);
			break;
	}
	DtxRemoteSend(remote, sql);
	return true;
}

/*
 * Have the server commit something, synchronously.  An assigned transaction id alone
 * would not wait, because it writes nothing (xact.c, RecordTransactionCommit), and
 * statement_timeout does not strike while a command's own transaction is committed
 * (tcop/postgres.c, finish_xact_command): hence the block.  Returns false, and sends
 * nothing, if there is no standby to wait for.
 */
bool
DtxAskReplicated(DtxVisit *v, DtxRemote *remote)
{
	if (!v->has_standbys)
	{
		v->witnessed = v->replicated = true;
		return false;
	}
	if (DtxAskMode(v, remote, DTX_MODE_WITNESS))
		return true;
	v->phase = DTX_PHASE_WITNESS;
	DtxRemoteSend(remote, "DO LANGUAGE plpgsql $$BEGIN"
				  " PERFORM pg_catalog.pg_logical_emit_message(true, 'pg_dtx', '');"
				  " COMMIT; END$$");
	return true;
}
