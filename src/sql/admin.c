/*-------------------------------------------------------------------------
 *
 * admin.c
 *		The SQL functions of schema dtx: behind the views, for checks before
 *		use, and for a human's decisions.
 *
 * Reading is for members of pg_monitor and, row by row, for whoever has the
 * privileges of a transaction's user; the functions that filter rows do it
 * themselves, because a view does not change the current user.  Acting is for
 * those to whom the extension's script leaves EXECUTE.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/settings.h"
#include "base/stats.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "commit/coordinator.h"
#include "commit/fdw_library.h"
#include "commit/interpose.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "resolve/api.h"
#include "resolve/facts.h"
#include "resolve/judge.h"
#include "resolve/resolver.h"
#include "resolve/visit.h"
#include "saga/saga_tables.h"
#include "sql/admin.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/xid8.h"
#include "worker/wake.h"

/* Oldest server that can say whether a transaction wrote there. */
#define OLDEST_REMOTE_VERSION	100000

/* Instead of an error that shows options of another user's user mapping. */
#define HIDDEN_ERROR	"a connection failed; superusers, and the user of the user mapping, see why"

PG_FUNCTION_INFO_V1(dtx_sql_wake_resolver);
PG_FUNCTION_INFO_V1(dtx_sql_transactions);
PG_FUNCTION_INFO_V1(dtx_sql_in_doubt);
PG_FUNCTION_INFO_V1(dtx_sql_servers);
PG_FUNCTION_INFO_V1(dtx_sql_stat);
PG_FUNCTION_INFO_V1(dtx_sql_stat_since_last_call);
PG_FUNCTION_INFO_V1(dtx_sql_stat_reset);
PG_FUNCTION_INFO_V1(dtx_sql_check_server);
PG_FUNCTION_INFO_V1(dtx_sql_resolve);
PG_FUNCTION_INFO_V1(dtx_sql_force);

static object_access_hook_type prev_object_access_hook = NULL;

/* What dtx_internal.forced_record tells, besides the gid and what was done. */
typedef struct Forced
{
	const char *server;			/* its name */
	DtxDecision decided;		/* what was on record */
	const char *reason;
	const char *by_user;
} Forced;

static void dtx_object_access(ObjectAccessType access, Oid classId,
							  Oid objectId, int subId, void *arg);
static bool ask_for_pass_if_decisions(bool current_boot_only);
static List *recorded_in_doubt(void);
static bool may_see(Oid userid);
static bool may_see_options(Oid umid);
static const char *state_name(DtxState state);
static const char *decision_name(DtxDecision decision);
static char *server_name(Oid serverid);
static Datum name_datum(const char *name);
static Datum text_datum(const char *text);
static Datum name_array(const DtxActivity *a, bool waiting_only);
static char *version_text(int version);
static void add_check(ReturnSetInfo *rsinfo, const char *check, int ok,
					  char *detail, const char *hint);
static int	session_seen(ForeignServer *server, const char **error);
static void check_session(ReturnSetInfo *rsinfo, const DtxProbe *probe);
static char *clashing_servers(ForeignServer *server);
static bool same_database(List *options1, List *options2);
static const char *server_option(List *options, const char *name,
								 const char *missing);

static DtxDecision parse_decision(const char *text);
static void check_own_gid(const char *text, const DtxGid *gid);
static void check_contradiction(const char *gid, DtxDecision decision,
								DtxDecision decided, bool override);
static Oid	server_holding(const char *gid_text, const DtxGid *gid,
						   const DtxDecisionRow *row);
static Oid	usable_mapping(Oid umid, Oid serverid);
static void forget_dropped(const DtxGid *gid, DtxDecision decision,
						   DtxDecision decided, const DtxDecisionRow *row, const char *reason,
						   const char *by_user);
static void confirm_commit(Oid serverid, const char *gid, uint64 system_id);
static ErrorData *try_finish(Oid serverid, Oid umid, const char *gid,
							 DtxDecision decision, uint64 system_id,
							 const Forced *forced);
static void audit(const char *gid, const char *server, DtxDecision decision,
				  DtxDecision decided, const char *reason, const char *by_user);

/* ----------------------------------------------------------------
 * For the extension's script
 * ----------------------------------------------------------------
 */

/*
 * Let the launcher know that this database may need a resolver.
 */
Datum
dtx_sql_wake_resolver(PG_FUNCTION_ARGS)
{
	DtxLauncherWakeResolver(MyDatabaseId);
	PG_RETURN_VOID();
}

/* ----------------------------------------------------------------
 * Dropping the extension
 * ----------------------------------------------------------------
 */

/*
 * With the decision table the decisions are dropped, and with the table of sagas
 * what is to become of them.  Refuse while one is needed.  (When the extension
 * is dropped, its tables go before it does: catalog/dependency.c,
 * deleteObjectsInList.)
 */
static void
dtx_object_access(ObjectAccessType access, Oid classId, Oid objectId,
				  int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);

	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		objectId == DtxDecisionTable())
		DtxCheckNothingInDoubt(false);
	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		objectId == DtxSagaTable() && DtxSagaUnfinished())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop the sagas of \"%s\", because some have not ended",
						"pg_dtx"),
				 errdetail("What they have done so far would neither be completed nor compensated."),
				 errhint("Wait until view \"dtx.sagas\" shows no others than completed and compensated ones, or end them with dtx.force_saga().")));

	/*
	 * The resolver may have kept a connection to it, if it was there.  (Otherwise
	 * whoever may create servers could have all others visited again and again.)
	 */
	if (access == OAT_DROP && classId == ForeignServerRelationId)
	{
		DtxServerStatus status;

		if (DtxServerStatusGet(MyDatabaseId, objectId, &status))
			DtxLauncherAskPass();
	}

	if (access == OAT_DROP && classId == ExtensionRelationId &&
		objectId == get_extension_oid(DTX_EXTENSION, true) &&
		DtxPostgresFdwServers() != NIL)
		ereport(NOTICE,
				(errmsg("transactions that write on several servers are not committed atomically any more in this database"),
				 errdetail("It has servers of postgres_fdw, and extension \"%s\" is dropped.",
						   DTX_EXTENSION)));
}

/*
 * Are there decision rows that may be needed?  A full pass finds out, and deletes
 * those that are not: let one begin soon.
 */
static bool
ask_for_pass_if_decisions(bool current_boot_only)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *rows = DtxDecisionScan(snapshot);
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);

		/* The row of a backend that waits to use it again is not needed. */
		if (!row->inherited &&
			(!current_boot_only || row->boot_id == DtxBootId()) &&
			!DtxActivityOwnsRow(row->boot_id, row->xid))
		{
			DtxLauncherAskPass();
			return true;
		}
	}
	return false;
}

/*
 * Throw if something of this database may be in doubt, or, with
 * "current_boot_only", something of the current boot.  By the holder of a lock on
 * dtx_internal.decision with which nobody records a decision.  Throws on interrupts, too.
 */
void
DtxCheckNothingInDoubt(bool current_boot_only)
{
	int			pid;
	bool		in_doubt = false;
	bool		decisions;
	ListCell   *lc;

	/* What this session has not waited for; it can't show as somebody else's. */
	CoordinatorSettleAll();

	/*
	 * Locks are released before phase two and before the end of an abort, and
	 * a session makes its entries before it lets go: look in this order.
	 */
	pid = DtxActivityAnyCommitting();
	foreach(lc, DtxInDoubtList(MyDatabaseId))
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

		in_doubt |= !current_boot_only || entry->gid.boot_id == DtxBootId();
	}
	decisions = ask_for_pass_if_decisions(current_boot_only);

	if (pid != 0 || in_doubt || decisions)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop the decisions of \"%s\", because transactions may be in doubt",
						"pg_dtx"),
				 errdetail("Not all prepared foreign transactions are known to be finished, and the record of what is to become of them would be lost."),
				 pid != 0 ?
				 errhint("Wait for the session with process ID %d. If it is idle, its COMMIT has not waited for the servers (\"%s\" is off); its next command on each of them will, or its end.",
						 pid, "pg_dtx.commit_wait") :
				 in_doubt || !dtx_resolver ?
				 errhint("Wait until view \"dtx.in_doubt\" is empty, run dtx.resolve_in_doubt(), or finish them with dtx.force_in_doubt().") :
				 errhint("The resolver has been told to look at them. Try again in a few seconds.")));
}

/*
 * Install the hook.  Called at server start.
 */
void
DtxAdminInstallHooks(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = dtx_object_access;
}

/* ----------------------------------------------------------------
 * Views
 * ----------------------------------------------------------------
 */

/*
 * May the current user see what belongs to the transactions of "userid"?  The
 * rule of pg_stat_activity.  InvalidOid: not known whose.
 */
static bool
may_see(Oid userid)
{
	return has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) ||
		(OidIsValid(userid) && has_privs_of_role(GetUserId(), userid));
}

/*
 * May the current user see what a text tells of the options of a user mapping, such as
 * where it leads and as whom?  Superusers, the user of the mapping, and of one for
 * PUBLIC the owner of the server, as in pg_user_mappings.  InvalidOid: it tells nothing.
 */
static bool
may_see_options(Oid umid)
{
	HeapTuple	tuple;
	Form_pg_user_mapping form;
	ForeignServer *server;
	Oid			owner = InvalidOid;

	if (!OidIsValid(umid) || superuser())
		return true;
	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(umid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_user_mapping) GETSTRUCT(tuple);
	owner = form->umuser;
	if (!OidIsValid(owner) &&
		(server = GetForeignServerExtended(form->umserver, FSV_MISSING_OK)) != NULL)
		owner = server->owner;
	ReleaseSysCache(tuple);
	return OidIsValid(owner) && has_privs_of_role(GetUserId(), owner);
}

static const char *
state_name(DtxState state)
{
	switch (state)
	{
		case DTX_IDLE:
			return "idle";
		case DTX_ACTIVE:
			return "active";
		case DTX_PREPARING:
			return "preparing";
		case DTX_COMMITTING:
			return "committing";
		case DTX_ABORTING:
			return "aborting";
	}
	return "unknown";
}

static const char *
decision_name(DtxDecision decision)
{
	return decision == DTX_COMMIT ? "commit" :
		decision == DTX_ROLLBACK ? "rollback" : "unknown";
}

/* Name of a foreign server, NULL if there is none with this OID. */
static char *
server_name(Oid serverid)
{
	ForeignServer *server;

	if (!OidIsValid(serverid))
		return NULL;
	server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	return server ? server->servername : NULL;
}

/*
 * A name as a Datum.  Longer ones are cut.
 */
static Datum
name_datum(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

/*
 * A text from shared memory as a Datum.  It may come from another machine, or
 * have been cut anywhere: what is not text in this database's encoding must
 * not get into a query's result.
 */
static Datum
text_datum(const char *text)
{
	char	   *copy = pstrdup(text);
	int			len = strlen(copy);

	/* a text that ends within a character is clipped behind its end */
	len = Min(len, pg_mbcliplen(copy, len, len));
	copy[len] = '\0';
	if (!pg_verifymbstr(copy, len, true))
	{
		for (char *p = copy; *p; p++)
		{
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		}
	}
	return CStringGetTextDatum(copy);
}

/*
 * The names of the servers of a transaction, or of those whose replies are
 * outstanding, as name[].
 */
static Datum
name_array(const DtxActivity *a, bool waiting_only)
{
	Datum		names[DTX_SHOWN_PARTICIPANTS];
	int			nnames = 0;
	int			nshown = Min(a->nparticipants, DTX_SHOWN_PARTICIPANTS);

	for (int i = 0; i < nshown; i++)
	{
		char	   *name;

		if (waiting_only && !a->waiting[i])
			continue;
		name = server_name(a->servers[i]);
		if (name != NULL)
			names[nnames++] = name_datum(name);
	}
	return PointerGetDatum(construct_array(names, nnames, NAMEOID, NAMEDATALEN,
										   false, TYPALIGN_CHAR));
}

/*
 * dtx_internal.transactions(): distributed transactions of this database in progress.
 */
Datum
dtx_sql_transactions(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DtxActivity *a = palloc(sizeof(DtxActivity));
	DtxGid		gid;

	InitMaterializedSRF(fcinfo, 0);

	memset(&gid, 0, sizeof(gid));
	gid.coordinator_id = DtxCoordinatorId();
	gid.boot_id = DtxBootId();
	gid.dbid = MyDatabaseId;

	for (int i = 0; i < DtxActivityCount(); i++)
	{
		Datum		values[8];
		bool		nulls[8] = {0};
		char	   *user;

		if (!DtxActivityGet(i, a) || a->state == DTX_IDLE ||
			a->dbid != MyDatabaseId || !may_see(a->userid))
			continue;

		if (a->xid != 0)
		{
			char		stem[DTX_GID_SIZE];

			gid.xid = a->xid;
			DtxGidFormatStem(&gid, stem);
			values[0] = CStringGetTextDatum(stem);
			values[3] = FullTransactionIdGetDatum(FullTransactionIdFromU64(a->xid));
		}
		else
			nulls[0] = nulls[3] = true;
		values[1] = Int32GetDatum(a->pid);
		user = GetUserNameFromId(a->userid, true);
		if (user != NULL)
			values[2] = name_datum(user);
		else
			nulls[2] = true;
		values[4] = CStringGetTextDatum(state_name(a->state));
		values[5] = TimestampTzGetDatum(a->start);
		values[6] = name_array(a, false);
		values[7] = name_array(a, true);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

/*
 * What the decision table says of transactions that nobody takes care of: a
 * list of DtxInDoubt, without those that are in shared memory already.
 */
static List *
recorded_in_doubt(void)
{
	List	   *entries = NIL;
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *rows = DtxDecisionScan(snapshot);
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);

		if (DtxActivityOwnsRow(row->boot_id, row->xid))
			continue;
		for (int i = 0; i < row->nparticipants; i++)
		{
			DtxInDoubt *entry = palloc0(sizeof(DtxInDoubt));
			DtxInDoubt	known;

			entry->gid.coordinator_id = DtxCoordinatorId();
			entry->gid.dbid = MyDatabaseId;
			entry->gid.boot_id = row->boot_id;
			entry->gid.xid = row->xid;
			entry->gid.n = i + 1;
			DtxSeal(&entry->gid);
			if (DtxInDoubtGet(&entry->gid, &known))
				continue;
			entry->serverid = row->prepared[i].serverid;
			entry->umid = row->prepared[i].umid;
			entry->userid = row->userid;
			entry->decision = DTX_COMMIT;
			entry->since = row->decided_at;
			strlcpy(entry->last_error, "not looked for, because \"pg_dtx.resolver\" is off",
					sizeof(entry->last_error));
			entries = lappend(entries, entry);
		}
	}
	return entries;
}

/*
 * dtx_internal.in_doubt(): prepared transactions of this database that wait for its
 * resolver.
 */
Datum
dtx_sql_in_doubt(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	List	   *entries;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);

	entries = DtxInDoubtList(MyDatabaseId);

	/* Nobody tells shared memory what a restart has left if nobody looks. */
	if (!dtx_resolver)
		entries = list_concat(entries, recorded_in_doubt());

	foreach(lc, entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		Datum		values[8];
		bool		nulls[8] = {0};
		char		gid[DTX_GID_SIZE];
		char	   *server;

		if (!may_see(entry->userid))
			continue;

		DtxGidFormat(&entry->gid, gid);
		values[0] = CStringGetTextDatum(gid);
		server = server_name(entry->serverid);
		if (server != NULL)
			values[1] = name_datum(server);
		else
			nulls[1] = true;
		if (entry->remote_user[0] != '\0')
			values[2] = text_datum(entry->remote_user);
		else
			nulls[2] = true;
		if (entry->decision != DTX_UNDECIDED)
			values[3] = CStringGetTextDatum(decision_name(entry->decision));
		else
			nulls[3] = true;
		values[4] = TimestampTzGetDatum(entry->since);
		values[5] = Int32GetDatum(entry->attempts);
		if (entry->last_error[0] != '\0')
			values[6] = text_datum(may_see_options(entry->error_umid) ?
								   entry->last_error : HIDDEN_ERROR);
		else
			nulls[6] = true;
		if (entry->next_attempt != 0)
			values[7] = TimestampTzGetDatum(DtxMomentToTimestamp(entry->next_attempt));
		else
			nulls[7] = true;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

/*
 * A server's version number as its own server_version begins.
 */
static char *
version_text(int version)
{
	if (version >= 100000)
		return psprintf("%d.%d", version / 10000, version % 10000);
	return psprintf("%d.%d.%d", version / 10000, version / 100 % 100,
					version % 100);
}

/*
 * dtx_internal.servers(): what the resolver knows of each server of postgres_fdw.
 */
Datum
dtx_sql_servers(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	HTAB	   *in_doubt;
	HASHCTL		info;
	ListCell   *lc;
	typedef struct Count
	{
		Oid			serverid;	/* hash key */
		int64		count;
	} Count;

	InitMaterializedSRF(fcinfo, 0);

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(Count);
	info.hcxt = CurrentMemoryContext;
	in_doubt = hash_create("pg_dtx in doubt per server", 64, &info,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, DtxInDoubtList(MyDatabaseId))
	{
		bool		found;
		Count	   *count = hash_search(in_doubt, &((DtxInDoubt *) lfirst(lc))->serverid,
										HASH_ENTER, &found);

		count->count = found ? count->count + 1 : 1;
	}

	foreach(lc, DtxPostgresFdwServers())
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);
		Oid			serverid = server->serverid;
		DtxServerStatus status;
		Datum		values[8];
		bool		nulls[8] = {0};
		Count	   *count = hash_search(in_doubt, &serverid, HASH_FIND, NULL);

		values[0] = name_datum(server->servername);

		memset(nulls + 1, true, sizeof(nulls) - sizeof(nulls[0]));
		if (DtxServerStatusGet(MyDatabaseId, serverid, &status))
		{
			values[1] = BoolGetDatum(status.reachable);
			nulls[1] = false;
			values[2] = TimestampTzGetDatum(status.checked_at);
			nulls[2] = false;
			if (status.version > 0)
			{
				values[3] = CStringGetTextDatum(version_text(status.version));
				nulls[3] = false;
			}
			if (status.slots_used >= 0)
			{
				values[4] = Int32GetDatum(status.slots_used);
				nulls[4] = false;
			}
			if (status.slots_total >= 0)
			{
				values[5] = Int32GetDatum(status.slots_total);
				nulls[5] = false;
			}
			if (status.last_error[0] != '\0')
			{
				values[7] = text_datum(may_see_options(status.error_umid) ?
									   status.last_error : HIDDEN_ERROR);
				nulls[7] = false;
			}
		}

		values[6] = Int64GetDatum(count != NULL ? count->count : 0);
		nulls[6] = false;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

/*
 * dtx_internal.stat(): one row of counters.
 */
Datum
dtx_sql_stat(PG_FUNCTION_ARGS)
{
	/* The counts, in the order of the view; times and the rest follow. */
	static const DtxCounter counts[] = {
		DTX_STAT_ONE_PHASE,
		DTX_STAT_TWO_PHASE,
		DTX_STAT_PREPARED,
		DTX_STAT_PREPARE_FAILED,
		DTX_STAT_UNPROTECTED,
		DTX_STAT_HANDED_OVER,
		DTX_STAT_RESOLVED_COMMIT,
		DTX_STAT_RESOLVED_ROLLBACK,
		DTX_STAT_FORCED,
		DTX_STAT_PASSES
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[lengthof(counts) + 4];
	bool		nulls[lengthof(counts) + 4] = {0};
	int			n = 0;

	InitMaterializedSRF(fcinfo, 0);

	for (int i = 0; i < lengthof(counts); i++)
		values[n++] = Int64GetDatum((int64) DtxStatsGet(counts[i]));
	values[n++] = Int64GetDatum((int64) DtxInDoubtOverflows());
	values[n++] = Float8GetDatum(DtxStatsGet(DTX_STAT_PREPARE_USEC) / 1000.0);
	values[n++] = Float8GetDatum(DtxStatsGet(DTX_STAT_COMMIT_USEC) / 1000.0);
	values[n++] = TimestampTzGetDatum(DtxStatsResetAt());
	Assert(n == lengthof(values) && n == rsinfo->setDesc->natts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);

	return (Datum) 0;
}

/*
 * dtx_internal.stat_since_last_call(): what was counted since this session last asked
 * or, if it has not, or the counters were reset meanwhile, since they were zero.
 */
Datum
dtx_sql_stat_since_last_call(PG_FUNCTION_ARGS)
{
	/* What this session was told last; zeros before that. */
	static uint64 last[DTX_STAT_COUNT];
	static DtxMoment last_at = 0;
	static TimestampTz last_reset = 0;

	uint64		since[DTX_STAT_COUNT];
	DtxMoment	now = DtxNow();
	TimestampTz reset_at = DtxStatsResetAt();
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {0};
	int			n = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (last_reset != reset_at)
	{
		memset(last, 0, sizeof(last));
		last_at = Max(last_at, DtxTimestampToMoment(reset_at));
		last_reset = reset_at;
	}
	for (int i = 0; i < DTX_STAT_COUNT; i++)
	{
		uint64		value = DtxStatsGet((DtxCounter) i);

		/* Less than before: it is being reset just now. */
		since[i] = value - Min(value, last[i]);
		last[i] = value;
	}

	values[n++] = Float8GetDatum(Max(now - last_at, 0) / 1000.0);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_ONE_PHASE]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_TWO_PHASE]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_PREPARE_FAILED]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_HANDED_OVER]);
	values[n++] = Int64GetDatum((int64) (since[DTX_STAT_RESOLVED_COMMIT] +
										 since[DTX_STAT_RESOLVED_ROLLBACK]));
	values[n++] = Float8GetDatum(since[DTX_STAT_PREPARE_USEC] / 1000.0);
	values[n++] = Float8GetDatum(since[DTX_STAT_COMMIT_USEC] / 1000.0);
	Assert(n == lengthof(values) && n == desc->natts);
	last_at = now;

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

/*
 * dtx.reset_stat(): set the counters to zero.
 */
Datum
dtx_sql_stat_reset(PG_FUNCTION_ARGS)
{
	DtxStatsReset();
	DtxInDoubtOverflowsReset();
	PG_RETURN_VOID();
}

/* ----------------------------------------------------------------
 * dtx.check_server()
 * ----------------------------------------------------------------
 */

/*
 * Add a row to the result.  ok: 1 yes, 0 no, -1 not known.  The hint is shown
 * only where something has to be done.
 */
static void
add_check(ReturnSetInfo *rsinfo, const char *check, int ok, char *detail,
		  const char *hint)
{
	Datum		values[4];
	bool		nulls[4] = {0};

	values[0] = CStringGetTextDatum(check);
	values[1] = BoolGetDatum(ok > 0);
	nulls[1] = ok < 0;
	if (detail != NULL)
		values[2] = text_datum(detail);
	else
		nulls[2] = true;
	if (hint != NULL && ok <= 0)
		values[3] = CStringGetTextDatum(hint);
	else
		nulls[3] = true;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * What depends on how the server is set up for the session's user.
 */
static void
check_session(ReturnSetInfo *rsinfo, const DtxProbe *probe)
{
	if (!probe->has_session)
	{
		const char *unknown = "not known, because the server did not tell";

		add_check(rsinfo, "reserved connections", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "synchronous standbys", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "statement statistics", -1, pstrdup(unknown), NULL);
		return;
	}

	/* Not to be had everywhere, so what is merely not reserved is no failure. */
	add_check(rsinfo, "reserved connections",
			  probe->reserved ? 1 :
			  probe->role_limit >= 0 || probe->database_limit >= 0 ? 0 : -1,
			  probe->reserved ?
			  psprintf("\"%s\" may use reserved connections", probe->remote_user) :
			  probe->role_limit >= 0 ?
			  psprintf("\"%s\" may have %d connections", probe->remote_user,
					   probe->role_limit) :
			  probe->database_limit >= 0 ?
			  psprintf("database \"%s\" may have %d connections", probe->database,
					   probe->database_limit) :
			  psprintf("no connection is reserved for \"%s\"", probe->remote_user),
			  "Sessions that wait for what is in doubt can take all connections, and keep the resolver from finishing it unless it has kept one. Grant pg_use_reserved_connections to the role and set \"reserved_connections\" there (PostgreSQL 16 or later), or create a user mapping for a superuser.");
	add_check(rsinfo, "synchronous standbys",
			  !probe->has_standbys || probe->has_witness,
			  pstrdup(!probe->has_standbys ? "the server has none" :
					  probe->has_witness ?
					  "the server has some, and can be asked whether they have what it has committed" :
					  "the server has some, and cannot be asked whether they have what it has committed"),
			  psprintf("A commit whose wait for the standby was canceled stays in doubt. Grant USAGE on language plpgsql and EXECUTE on pg_logical_emit_message() to \"%s\" there (PostgreSQL 11 or later).",
					   probe->remote_user));
	add_check(rsinfo, "statement statistics",
			  !probe->counts_utilities || probe->version >= 170000,
			  pstrdup(!probe->counts_utilities ?
					  "pg_stat_statements does not count utility statements there" :
					  probe->version >= 170000 ?
					  "pg_stat_statements takes commands on prepared transactions together" :
					  "pg_stat_statements fills with one entry for each prepared transaction"),
			  "Set \"pg_stat_statements.track_utility\" to off there, at least for the role of the user mapping (ALTER ROLE ... SET), or use PostgreSQL 17 or later.");
}

/*
 * dtx.check_server(name): is everything there that a commit in two phases
 * needs?  Visits the server with the mapping of the current user, who needs
 * USAGE on it.
 */
Datum
dtx_sql_check_server(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = NameStr(*PG_GETARG_NAME(0));
	ForeignServer *server = GetForeignServerByName(name, false);
	Oid			userid = GetUserId();
	AclResult	aclresult;
	HeapTuple	mapping;
	DtxProbe	probe;
	const char *unknown = "not known, because the server was not reached";
	char	   *clashes;
	const char *seen_error = NULL;
	bool		is_public = false;
	int			seen;

	aclresult = DtxForeignServerAclcheck(server->serverid, userid, ACL_USAGE);
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FOREIGN_SERVER, server->servername);
	if (!DtxWrapperIsPostgresFdw(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of postgres_fdw",
						server->servername)));

	InitMaterializedSRF(fcinfo, 0);

	mapping = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							  ObjectIdGetDatum(server->serverid));
	if (!HeapTupleIsValid(mapping))
		mapping = SearchSysCache2(USERMAPPINGUSERSERVER,
								  ObjectIdGetDatum(InvalidOid),
								  ObjectIdGetDatum(server->serverid));
	memset(&probe, 0, sizeof(probe));
	if (HeapTupleIsValid(mapping))
	{
		is_public = !OidIsValid(((Form_pg_user_mapping) GETSTRUCT(mapping))->umuser);
		ReleaseSysCache(mapping);
		DtxProbeServer(server->serverid, userid, &probe);
	}

	/* postgres_fdw would wait for what we have waited for, and without end. */
	if (HeapTupleIsValid(mapping) && !probe.reachable)
	{
		seen = -1;
		seen_error = "it is not reachable";
	}
	else
		seen = session_seen(server, &seen_error);
	add_check(rsinfo, "interposition", seen,
			  seen > 0 ? pstrdup("pg_dtx has seen postgres_fdw open a session") :
			  seen == 0 ?
			  pstrdup("postgres_fdw does not call libpq through pg_dtx") :
			  psprintf("not known, because postgres_fdw could not open a session: %s",
					   seen_error),
			  seen < 0 ? NULL :
			  "Use a postgres_fdw that is linked dynamically with libpq, with pg_dtx first in \"shared_preload_libraries\" of the coordinator. Transactions that use this server together with others are refused.");

	if (HeapTupleIsValid(mapping))
	{
		add_check(rsinfo, "user mapping", 1,
				  is_public ? pstrdup("mapping for PUBLIC") :
				  psprintf("mapping for \"%s\"",
						   GetUserNameFromId(userid, false)),
				  NULL);

		add_check(rsinfo, "reachable", probe.reachable,
				  probe.reachable ?
				  psprintf("database \"%s\" as user \"%s\"",
						   probe.database, probe.remote_user) : probe.error,
				  probe.error != NULL && strncmp(probe.error, "password", 8) == 0 ?
				  "Add a password to the user mapping, or let a superuser set \"password_required\" to \"false\" in it." :
				  "Check the options of the server and of the user mapping, and that the server is running.");
	}
	else
	{
		add_check(rsinfo, "user mapping", 0,
				  psprintf("no user mapping for \"%s\"",
						   GetUserNameFromId(userid, false)),
				  "Create one with CREATE USER MAPPING.");
		add_check(rsinfo, "reachable", -1,
				  pstrdup("not tried, because there is no user mapping"), NULL);
	}

	if (probe.reachable)
	{
		add_check(rsinfo, "direct connection", probe.pooled ? -1 : 1,
				  pstrdup(probe.pooled ? "a connection pooler is in between" :
						  "no connection pooler is in between"),
				  "A pooler works in session mode only. In other modes the settings of postgres_fdw's sessions get lost, and with them the meaning of values that are exchanged.");
		add_check(rsinfo, "version", probe.version >= OLDEST_REMOTE_VERSION,
				  psprintf("PostgreSQL %s", version_text(probe.version)),
				  "A server older than PostgreSQL 10 can't tell whether a transaction wrote there, so that even readers are prepared.");
		add_check(rsinfo, "identity",
				  probe.system_id != 0 && probe.timeline != 0,
				  probe.system_id == 0 ?
				  pstrdup("the server does not tell its system identifier") :
				  probe.timeline == 0 ?
				  pstrdup("the server does not tell its timeline") :
				  pstrdup("the server tells its system identifier and its timeline"),
				  psprintf("Grant EXECUTE on pg_control_system(), pg_current_wal_insert_lsn() and pg_walfile_name(pg_lsn) to \"%s\" there. Without them it cannot be noticed that the foreign server leads to another cluster, or that a standby was promoted.",
						   probe.remote_user));
		add_check(rsinfo, "max_prepared_transactions", probe.slots_total > 0,
				  psprintf("%d", probe.slots_total),
				  psprintf("Set \"max_prepared_transactions\" on server \"%s\" (not on the coordinator) to at least its \"max_connections\", and restart it.",
						   server->servername));
		add_check(rsinfo, "free slots", probe.slots_total > probe.slots_used,
				  psprintf("%d of %d used", probe.slots_used,
						   probe.slots_total),
				  psprintf("Increase \"max_prepared_transactions\" on server \"%s\", or look for forgotten prepared transactions in its pg_prepared_xacts.",
						   server->servername));
	}
	else
	{
		add_check(rsinfo, "direct connection", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "version", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "identity", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "max_prepared_transactions", -1, pstrdup(unknown),
				  NULL);
		add_check(rsinfo, "free slots", -1, pstrdup(unknown), NULL);
	}
	check_session(rsinfo, &probe);

	clashes = clashing_servers(server);
	add_check(rsinfo, "one server per database", clashes == NULL,
			  clashes ?
			  psprintf("the same database is also reached through: %s",
					   clashes) : pstrdup("no other server has these options"),
			  "Transactions that use several of these servers do not see their own changes through the others, and can wait for themselves. Use one of them only.");

	if (dtx_resolver && probe.resolver_error != NULL)
		add_check(rsinfo, "resolver", 0, probe.resolver_error,
				  "The resolver can't finish through this user mapping what is in doubt. Add a password to it, or let a superuser set \"password_required\" to \"false\" in it.");
	else
		add_check(rsinfo, "resolver", dtx_resolver,
				  psprintf("pg_dtx.resolver is %s",
						   dtx_resolver ? "on" : "off"),
				  "What is in doubt is not finished until \"pg_dtx.resolver\" is on.");

	return (Datum) 0;
}

/*
 * Let postgres_fdw open a session with the server, unless it has one, and look
 * whether we see that.  1 yes, 0 no, -1 not known, and then *error says why, in
 * the current memory context.
 */
static int
session_seen(ForeignServer *server, const char **error)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int result = 1;

	if (!DtxFdwLibraryCallsUs(DtxWrapperHandler(server->fdwid)))
		return 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		(void) DtxInterposeOpen(server->serverid);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();

		/* A cancel is not about the server. */
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(edata);

		/* What postgres_fdw says if its questions have reached the server. */
		result = edata->sqlerrcode == ERRCODE_FDW_SCHEMA_NOT_FOUND ? 0 : -1;
		*error = edata->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * Names of other servers of postgres_fdw that lead to the same database, as far
 * as their options tell, or NULL.
 */
static char *
clashing_servers(ForeignServer *server)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, DtxPostgresFdwServers())
	{
		ForeignServer *other = (ForeignServer *) lfirst(lc);

		if (other->serverid == server->serverid ||
			!same_database(server->options, other->options))
			continue;

		/* The names of others' servers are not for everybody. */
		if (DtxForeignServerAclcheck(other->serverid, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
			continue;
		if (names.len > 0)
			appendStringInfoString(&names, ", ");
		appendStringInfo(&names, "\"%s\"", other->servername);
	}
	return names.len > 0 ? names.data : NULL;
}

/*
 * Do two servers' options lead to the same database, for all that can be told
 * without asking a name service?
 */
static bool
same_database(List *options1, List *options2)
{
	static const char *const same[][2] = {
		{"port", DEF_PGPORT_STR}, {"dbname", ""}, {"service", ""}
	};
	const char *hostaddr1 = server_option(options1, "hostaddr", NULL);
	const char *hostaddr2 = server_option(options2, "hostaddr", NULL);

	for (int i = 0; i < lengthof(same); i++)
	{
		if (strcmp(server_option(options1, same[i][0], same[i][1]),
				   server_option(options2, same[i][0], same[i][1])) != 0)
			return false;
	}
	if (hostaddr1 != NULL && hostaddr2 != NULL)
		return strcmp(hostaddr1, hostaddr2) == 0;

	/* An address may also be given as a host. */
	if (hostaddr1 == NULL)
		hostaddr1 = server_option(options1, "host", "");
	if (hostaddr2 == NULL)
		hostaddr2 = server_option(options2, "host", "");
	return strcmp(hostaddr1, hostaddr2) == 0 ||
		strcmp(server_option(options1, "host", ""),
			   server_option(options2, "host", "")) == 0;
}

/* The value of an option, "missing" if it is not there. */
static const char *
server_option(List *options, const char *name, const char *missing)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return missing;
}

/* ----------------------------------------------------------------
 * dtx.resolve_in_doubt()
 * ----------------------------------------------------------------
 */

/*
 * dtx.resolve_in_doubt(): a full pass now, one row for each thing that was done or could
 * not be done.
 */
Datum
dtx_sql_resolve(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	PreventCommandDuringRecovery("dtx.resolve_in_doubt()");

	InitMaterializedSRF(fcinfo, 0);

	foreach(lc, DtxResolveNow())
	{
		DtxResolved *r = (DtxResolved *) lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {0};

		if (r->server != NULL)
			values[0] = name_datum(r->server);
		else
			nulls[0] = true;
		if (r->gid != NULL)
		{
			values[1] = text_datum(r->gid);
			if (r->decision != DTX_UNDECIDED)
				values[2] = CStringGetTextDatum(decision_name(r->decision));
			else
				nulls[2] = true;
		}
		else
			nulls[1] = nulls[2] = true;
		values[3] = BoolGetDatum(r->done);
		if (r->error != NULL)
			values[4] = text_datum(r->error);
		else
			nulls[4] = true;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	/* Decisions nobody needs any more are deleted by the worker, if by anyone. */
	(void) ask_for_pass_if_decisions(false);

	return (Datum) 0;
}

/* ----------------------------------------------------------------
 * dtx.force_in_doubt()
 * ----------------------------------------------------------------
 */

/*
 * dtx.force_in_doubt(gid text, decision text, reason text, override boolean): finish a
 * prepared transaction on the word of a human.
 *
 * The function is SECURITY DEFINER, so that who is granted EXECUTE needs no
 * privileges on the audit table; the human is the session user.  What is done
 * on the server is done at once, whatever becomes of the local transaction.
 * Hence the row of the audit table is inserted first: if that fails, nothing
 * was done; and the server log tells it in any case.
 */
Datum
dtx_sql_force(PG_FUNCTION_ARGS)
{
	char	   *gid_text;
	char	   *reason;
	char	   *by_user = GetUserNameFromId(GetSessionUserId(), false);
	char	   *server;
	DtxDecision decision;
	DtxDecision decided;
	const DtxDecisionRow *row;
	DtxWitness *witness;
	DtxSighting sighting;
	DtxFacts	facts;
	DtxVerdict	verdict;
	DtxInDoubt	entry;
	DtxGid		gid;
	Oid			serverid;
	Oid			umid;
	bool		override;
	bool		known;

	for (int i = 0; i < 4; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("arguments of %s must not be null",
							"dtx.force_in_doubt()")));
	}
	gid_text = text_to_cstring(PG_GETARG_TEXT_PP(0));
	decision = parse_decision(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	reason = text_to_cstring(PG_GETARG_TEXT_PP(2));
	override = PG_GETARG_BOOL(3);

	if (reason[strspn(reason, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a reason must be given"),
				 errhint("It is kept in the view \"dtx.forced\".")));

	PreventCommandIfReadOnly("dtx.force_in_doubt()");
	DtxDamageLockForced();

	if (!DtxGidParse(gid_text, &gid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid_text),
				 errhint("Take it from the view \"dtx.in_doubt\", or from pg_prepared_xacts on the server.")));
	check_own_gid(gid_text, &gid);

	/*
	 * First this, then the witness.  The other way round, the transaction
	 * could commit in between, and we would take its decision for rollback.
	 */
	memset(&sighting, 0, sizeof(sighting));
	sighting.gid = gid;
	sighting.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	sighting.age_ms = -1;
	sighting.responsible = DtxActivityResponsible(&gid);
	witness = DtxWitnessTake();
	if (witness == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						"pg_dtx")));
	DtxWitnessFacts(witness, &sighting, &facts);
	row = DtxWitnessRow(witness, &gid);
	verdict = DtxJudge(&facts);
	decided = DTX_UNDECIDED;
	switch (verdict)
	{
		case DTX_VERDICT_LEAVE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("prepared transaction \"%s\" is still being taken care of by its session",
							gid_text),
					 errhint("The view \"dtx.transactions\" shows the session. Cancel or terminate it if it has to end.")));
			break;
		case DTX_VERDICT_COMMIT:
			decided = DTX_COMMIT;
			break;
		case DTX_VERDICT_ROLLBACK:
			decided = DTX_ROLLBACK;
			break;
		case DTX_VERDICT_FORGED:
		case DTX_VERDICT_OTHER_INSTANCE:
			if (!override)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("prepared transaction \"%s\" must not be finished by this server",
								gid_text),
						 errdetail("Reason: %s.", DtxVerdictReason(verdict, &facts)),
						 errhint("Pass override => true to do it nevertheless.")));
			break;
		case DTX_VERDICT_UNKNOWN:
			break;
	}
	check_contradiction(gid_text, decision, decided, override);

	known = DtxInDoubtGet(&gid, &entry);
	if (known)
	{
		serverid = entry.serverid;
		umid = entry.umid;
		if (server_name(serverid) == NULL)
		{
			forget_dropped(&gid, decision, decided, row, reason, by_user);
			DtxStatsAdd(DTX_STAT_FORCED, 1);
			PG_RETURN_VOID();
		}
	}
	else
	{
		serverid = server_holding(gid_text, &gid, row);
		umid = InvalidOid;
		if (row != NULL && gid.n <= row->nparticipants &&
			row->prepared[gid.n - 1].serverid == serverid)
			umid = row->prepared[gid.n - 1].umid;
	}
	server = server_name(serverid);
	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server with OID %u does not exist", serverid)));

	if (known && override)
	{
		Forced		forced = {server, decided, reason, by_user};
		ErrorData  *error = try_finish(serverid, usable_mapping(umid, serverid),
									   gid_text, decision, 0, &forced);

		/*
		 * The server was asked and does not have it: a human says that this is
		 * the end.  A server that could not be asked may have it yet.
		 */
		if (error != NULL && error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT)
		{
			if (error->sqlerrcode == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION &&
				error->hint == NULL)
				error->hint = psprintf("If the server is lost for good, drop the foreign server \"%s\", and call dtx.force_in_doubt() again.",
									   server);
			ReThrowError(error);
		}
		if (error != NULL)
		{
			forget_dropped(&gid, decision, decided, row, reason, by_user);
			DtxStatsAdd(DTX_STAT_FORCED, 1);
			PG_RETURN_VOID();
		}
	}
	else
	{
		audit(gid_text, server, decision, decided, reason, by_user);
		DtxFinishGid(serverid, usable_mapping(umid, serverid), gid_text,
					 decision, known ? entry.system_id : 0);
	}

	/* Nothing can undo it now, so say so before anything else can fail. */
	DtxInDoubtRemove(&gid);
	DtxStatsAdd(DTX_STAT_FORCED, 1);
	ereport(LOG,
			(errmsg("user \"%s\" forced %s of prepared transaction \"%s\" on server \"%s\"",
					by_user, decision_name(decision), gid_text, server),
			 errdetail("The recorded decision is %s. Reason: %s",
					   decision_name(decided), reason)));
	DtxLauncherWakeResolver(MyDatabaseId);

	PG_RETURN_VOID();
}

static DtxDecision
parse_decision(const char *text)
{
	if (strcmp(text, "commit") == 0)
		return DTX_COMMIT;
	if (strcmp(text, "rollback") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid decision: \"%s\"", text),
				 errhint("Valid decisions are \"commit\" and \"rollback\".")));
	return DTX_ROLLBACK;
}

/*
 * Throw if a gid belongs to another coordinator or to another database of this
 * one.  Its decision is recorded there, and here it would look like rollback.
 */
static void
check_own_gid(const char *text, const DtxGid *gid)
{
	char	   *database;

	if (gid->coordinator_id != DtxCoordinatorId())
	{
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prepared transaction \"%s\" belongs to another coordinator",
						text),
				 errhint("Connect to the database whose table \"dtx_internal.coordinator\" has that identifier.")));
	}
	if (gid->dbid != MyDatabaseId)
	{
		database = get_database_name(gid->dbid);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prepared transaction \"%s\" belongs to another database",
						text),
				 database ? errhint("Connect to database \"%s\".", database) : 0));
	}
}

/*
 * Throw if a human wants something else than what was decided, and did not say
 * that this is what he wants.
 */
static void
check_contradiction(const char *gid, DtxDecision decision, DtxDecision decided,
					bool override)
{
	if (decision == decided || decided == DTX_UNDECIDED || override)
		return;

	if (decided == DTX_COMMIT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prepared transaction \"%s\" must not be rolled back, because its transaction has committed",
						gid),
				 errdetail("Rolling it back on one server would leave the transaction half done."),
				 errhint("Pass override => true to do it nevertheless.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prepared transaction \"%s\" must not be committed, because its transaction has been rolled back",
						gid),
				 errdetail("No decision to commit is recorded. Committing it on one server would leave the transaction half done."),
				 errhint("Pass override => true to do it nevertheless.")));
}

/*
 * Look for a gid that is not known to be in doubt, on all servers.  Throws if
 * it is on none of them.
 */
static Oid
server_holding(const char *gid_text, const DtxGid *gid,
			   const DtxDecisionRow *row)
{
	List	   *servers = DtxFindGid(gid_text);

	if (servers == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("prepared transaction \"%s\" was not found on any server",
						gid_text),
				 errdetail("It has been finished already, or its server could not be asked.")));

	/* Several servers may lead to one database; prefer the one that was used. */
	if (row != NULL && gid->n <= row->nparticipants &&
		list_member_oid(servers, row->prepared[gid->n - 1].serverid))
		return row->prepared[gid->n - 1].serverid;
	return linitial_oid(servers);
}

/*
 * A user mapping that was in use, if it still is one of this server.
 */
static Oid
usable_mapping(Oid umid, Oid serverid)
{
	Oid			result = InvalidOid;
	HeapTuple	tuple;

	if (!OidIsValid(umid))
		return InvalidOid;
	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(umid));
	if (HeapTupleIsValid(tuple))
	{
		if (((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver == serverid)
			result = umid;
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * The server of a gid was dropped, and a human says that this is the end of it.
 *
 * A decision to commit is one row for all participants of the transaction.  It
 * may go only when nobody needs it any more, so all participants whose servers
 * still exist are committed first, or this throws.  Those whose servers were
 * dropped as well are forgotten together with this one.
 */
static void
forget_dropped(const DtxGid *gid, DtxDecision decision,
			   DtxDecision decided, const DtxDecisionRow *row, const char *reason,
			   const char *by_user)
{
	List	   *forgotten = list_make1_int((int) gid->n);
	ListCell   *lc;

	if (row != NULL)
	{
		for (int i = 0; i < row->nparticipants; i++)
		{
			DtxGid		other = *gid;
			char		text[DTX_GID_SIZE];

			other.n = (uint32) i + 1;
			if (other.n == gid->n)
				continue;
			DtxSeal(&other);
			DtxGidFormat(&other, text);
			if (server_name(row->prepared[i].serverid) != NULL)
				confirm_commit(row->prepared[i].serverid, text,
							   row->prepared[i].system_id);
			else
				forgotten = lappend_int(forgotten, (int) other.n);
		}
	}

	foreach(lc, forgotten)
	{
		DtxGid		which = *gid;
		char		text[DTX_GID_SIZE];

		which.n = (uint32) lfirst_int(lc);
		DtxSeal(&which);
		DtxGidFormat(&which, text);
		audit(text, NULL, decision, decided, reason, by_user);
		ereport(NOTICE,
				(errmsg("prepared transaction \"%s\" is forgotten, because it is not to be found",
						text),
				 decision == DTX_COMMIT ?
				 errdetail("If a foreign server ever leads to where it is prepared, it is committed there.") :
				 errdetail("If a foreign server ever leads to where it is prepared, it is rolled back there.")));
		ereport(LOG,
				(errmsg("user \"%s\" forced prepared transaction \"%s\" to be forgotten, because it is not to be found",
						by_user, text),
				 errdetail("The recorded decision is %s. Reason: %s",
						   decision_name(decided), reason)));
	}

	if (row != NULL && !DtxActivityOwnsRow(row->boot_id, row->xid))
		(void) DtxDecisionDelete(row);

	/* Last: if something above failed, the entries stay. */
	foreach(lc, forgotten)
	{
		DtxGid		which = *gid;

		which.n = (uint32) lfirst_int(lc);
		DtxSeal(&which);
		DtxInDoubtRemove(&which);
	}
}

/*
 * Make sure that a participant of a transaction that has committed is committed
 * on its server.  Throws if that can't be done or found out now.
 *
 * "Does not exist" is proof here: a transaction commits only after all its
 * PREPAREs have succeeded, so none can arrive later.
 */
static void
confirm_commit(Oid serverid, const char *gid, uint64 system_id)
{
	ErrorData  *error = try_finish(serverid, InvalidOid, gid, DTX_COMMIT,
								   system_id, NULL);

	/* Not from a server of which it is not known whether it is that one. */
	if (error != NULL &&
		(error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT || system_id == 0))
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("the decision to commit can't be forgotten yet, because \"%s\" on server \"%s\" could not be committed",
						gid, server_name(serverid)),
				 errdetail_internal("%s", error->message),
				 errhint("Try again when that server can be reached.")));
}

/*
 * DtxFinishGid() in a subtransaction, and before that, unless it is NULL, the row
 * in dtx_internal.forced_record.  Returns the error in the current memory context, or NULL.
 */
static ErrorData *
try_finish(Oid serverid, Oid umid, const char *gid, DtxDecision decision,
		   uint64 system_id, const Forced *forced)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		if (forced != NULL)
			audit(gid, forced->server, decision, forced->decided,
				  forced->reason, forced->by_user);
		DtxFinishGid(serverid, umid, gid, decision, system_id);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Insert a row into dtx_internal.forced_record.  server is NULL if it was dropped.
 */
static void
audit(const char *gid, const char *server, DtxDecision decision,
	  DtxDecision decided, const char *reason, const char *by_user)
{
	Oid			types[7] = {TEXTOID, NAMEOID, TEXTOID, TEXTOID, BOOLOID,
	TEXTOID, NAMEOID};
	Datum		values[7];
	char		nulls[8] = "       ";

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	values[0] = CStringGetTextDatum(gid);
	if (server != NULL)
		values[1] = name_datum(server);
	else
		nulls[1] = 'n';
	values[2] = CStringGetTextDatum(decision_name(decision));
	values[3] = CStringGetTextDatum(decision_name(decided));
	values[4] = BoolGetDatum(decision != decided && decided != DTX_UNDECIDED);
	values[5] = CStringGetTextDatum(reason);
	values[6] = name_datum(by_user);
	if (SPI_execute_with_args("INSERT INTO dtx_internal.forced_record (gid, server, decision, decided, contradicted, reason, by_user, at)"
							  " VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.clock_timestamp())",
							  7, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into dtx_internal.forced_record");
	SPI_finish();
}
