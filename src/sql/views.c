/*-------------------------------------------------------------------------
 *
 * views.c
 *		The functions behind the views of transactions, of what is in doubt, and of servers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/settings.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "sql/values.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "utils/xid8.h"

/* Instead of an error that shows options of another user's user mapping. */
#define HIDDEN_ERROR	"a connection failed; superusers, and the user of the user mapping, see why"

static bool may_see(Oid userid);
static bool may_see_options(Oid umid);
static const char *state_name(DtxState state);
static Datum decider_name(const DtxDecider *decider);
static Datum name_array(const DtxActivity *a, bool waiting_only);
static List *recorded_in_doubt(void);
static void complete_in_doubt(List *entries);
static int	compare_in_doubt(const ListCell *a, const ListCell *b);

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
		case DTX_DECIDING:
			return "deciding";
		case DTX_COMMITTING:
			return "committing";
		case DTX_ABORTING:
			return "aborting";
	}
	return "unknown";
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
		name = DtxServerName(a->servers[i]);
		if (name != NULL)
			names[nnames++] = DtxNameValue(name);
	}
	return PointerGetDatum(construct_array(names, nnames, NAMEOID, NAMEDATALEN,
										   false, TYPALIGN_CHAR));
}

/*
 * The server that decides, as a text: its name, or if it was dropped its cluster.
 */
static Datum
decider_name(const DtxDecider *decider)
{
	char	   *name = DtxServerName(decider->serverid);

	return DtxTextValue(name != NULL ? name :
						psprintf("cluster " UINT64_FORMAT, decider->system_id));
}

PG_FUNCTION_INFO_V1(dtx_sql_transactions);

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
		Datum		values[9];
		bool		nulls[9] = {0};
		char	   *user;

		if (!DtxActivityGet(i, a) || a->state == DTX_IDLE ||
			a->dbid != MyDatabaseId || !may_see(a->userid))
			continue;

		if (a->xid != 0)
		{
			char		stem[DTX_GID_SIZE];

			gid.xid = a->xid;
			gid.decider = a->decider;
			DtxGidFormatStem(&gid, stem);
			values[0] = CStringGetTextDatum(stem);
		}
		else
			nulls[0] = true;
		nulls[3] = a->xid == 0 || DtxGidDecidedElsewhere(&gid);
		if (!nulls[3])
			values[3] = FullTransactionIdGetDatum(FullTransactionIdFromU64(a->xid));
		values[1] = Int32GetDatum(a->pid);
		user = GetUserNameFromId(a->userid, true);
		if (user != NULL)
			values[2] = DtxNameValue(user);
		else
			nulls[2] = true;
		values[4] = CStringGetTextDatum(state_name(a->state));
		values[5] = TimestampTzGetDatum(a->start);
		values[6] = name_array(a, false);
		values[7] = name_array(a, true);
		nulls[8] = a->xid == 0 || !DtxGidDecidedElsewhere(&gid);
		if (!nulls[8])
			values[8] = decider_name(&a->decider);
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
			entry->started = row->started;
			strlcpy(entry->application_name, row->application_name, NAMEDATALEN);
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
 * Add what the decision table knows to those of a list of DtxInDoubt of which no session
 * has said whose they are: it was lost in a crash.
 */
static void
complete_in_doubt(List *entries)
{
	HTAB	   *rows = NULL;
	ListCell   *lc;

	foreach(lc, entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		const DtxDecisionRow *row;

		if ((OidIsValid(entry->userid) && entry->started != 0) ||
			entry->gid.coordinator_id != DtxCoordinatorId())
			continue;
		if (rows == NULL)
		{
			Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());

			rows = DtxDecisionIndex(DtxDecisionScan(snapshot), CurrentMemoryContext);
			UnregisterSnapshot(snapshot);
		}
		row = DtxDecisionLookup(rows, entry->gid.boot_id, entry->gid.xid);

		/* Others can prepare something under a name that looks like ours. */
		if (row == NULL || row->inherited || !DtxSealed(&entry->gid))
			continue;
		entry->userid = row->userid;
		entry->started = row->started;
		strlcpy(entry->application_name, row->application_name, NAMEDATALEN);
	}
}

/*
 * The oldest transaction first, because transaction identifiers are given in that order,
 * and its participants by their numbers.
 */
static int
compare_in_doubt(const ListCell *a, const ListCell *b)
{
	const DtxGid *gid1 = &((const DtxInDoubt *) lfirst(a))->gid;
	const DtxGid *gid2 = &((const DtxInDoubt *) lfirst(b))->gid;
	const uint64 keys[][2] = {
		{gid1->xid, gid2->xid}, {gid1->boot_id, gid2->boot_id},
		{gid1->coordinator_id, gid2->coordinator_id}, {gid1->n, gid2->n},
		{gid1->seal, gid2->seal}
	};

	for (int i = 0; i < lengthof(keys); i++)
	{
		if (keys[i][0] != keys[i][1])
			return keys[i][0] < keys[i][1] ? -1 : 1;
	}
	return 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_in_doubt);

/*
 * dtx_internal.in_doubt(): prepared transactions of this database that wait for its
 * resolver, those of one transaction together, the oldest first.
 */
Datum
dtx_sql_in_doubt(PG_FUNCTION_ARGS)
{
	enum
	{
		Anum_transaction = 1,
		Anum_gid,
		Anum_server,
		Anum_remote_user,
		Anum_role,
		Anum_application_name,
		Anum_database,
		Anum_started,
		Anum_decision,
		Anum_decided_by,
		Anum_since,
		Anum_attempts,
		Anum_last_error,
		Anum_next_attempt,
		Natts_in_doubt = Anum_next_attempt
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *database = get_database_name(MyDatabaseId);
	List	   *entries;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);

	entries = DtxInDoubtList(MyDatabaseId);

	/* Nobody tells shared memory what a restart has left if nobody looks. */
	if (!dtx_resolver)
		entries = list_concat(entries, recorded_in_doubt());
	complete_in_doubt(entries);
	list_sort(entries, compare_in_doubt);

	foreach(lc, entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		Datum		values[Natts_in_doubt] = {0};
		bool		nulls[Natts_in_doubt];
		char		gid[DTX_GID_SIZE];
		char	   *name;

		if (!may_see(entry->userid))
			continue;
		memset(nulls, true, sizeof(nulls));
#define VALUE(column, value) \
		(values[(column) - 1] = (value), nulls[(column) - 1] = false)

		DtxGidFormatStem(&entry->gid, gid);
		VALUE(Anum_transaction, CStringGetTextDatum(gid));
		DtxGidFormat(&entry->gid, gid);
		VALUE(Anum_gid, CStringGetTextDatum(gid));
		if ((name = DtxServerName(entry->serverid)) != NULL)
			VALUE(Anum_server, DtxNameValue(name));
		if (entry->remote_user[0] != '\0')
			VALUE(Anum_remote_user, DtxTextValue(entry->remote_user));
		if (OidIsValid(entry->userid) &&
			(name = GetUserNameFromId(entry->userid, true)) != NULL)
			VALUE(Anum_role, DtxNameValue(name));
		if (entry->started != 0)
		{
			VALUE(Anum_application_name, DtxTextValue(entry->application_name));
			VALUE(Anum_started, TimestampTzGetDatum(entry->started));
		}
		if (database != NULL)
			VALUE(Anum_database, DtxNameValue(database));
		if (entry->decision != DTX_UNDECIDED)
			VALUE(Anum_decision, CStringGetTextDatum(DtxDecisionName(entry->decision)));
		else if (DtxGidDecidedElsewhere(&entry->gid))
			VALUE(Anum_decision, CStringGetTextDatum("asked"));
		if (DtxGidDecidedElsewhere(&entry->gid))
			VALUE(Anum_decided_by, decider_name(&entry->gid.decider));
		VALUE(Anum_since, TimestampTzGetDatum(entry->since));
		VALUE(Anum_attempts, Int32GetDatum(entry->attempts));
		if (entry->last_error[0] != '\0')
			VALUE(Anum_last_error,
				  DtxTextValue(may_see_options(entry->error_umid) ?
							   entry->last_error : HIDDEN_ERROR));
		if (entry->next_attempt != 0)
			VALUE(Anum_next_attempt,
				  TimestampTzGetDatum(DtxMomentToTimestamp(entry->next_attempt)));
#undef VALUE
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_servers);

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
		Datum		values[9];
		bool		nulls[9] = {0};
		Count	   *count = hash_search(in_doubt, &serverid, HASH_FIND, NULL);

		values[0] = DtxNameValue(server->servername);

		memset(nulls + 1, true, sizeof(nulls) - sizeof(nulls[0]));
		if (DtxServerStatusGet(MyDatabaseId, serverid, &status))
		{
			values[1] = BoolGetDatum(status.reachable);
			nulls[1] = false;
			values[2] = TimestampTzGetDatum(status.checked_at);
			nulls[2] = false;
			if (status.visited_at != 0)
			{
				values[3] = TimestampTzGetDatum(status.visited_at);
				nulls[3] = false;
			}
			if (status.version > 0)
			{
				values[4] = CStringGetTextDatum(DtxVersionText(status.version));
				nulls[4] = false;
			}
			if (status.slots_used >= 0)
			{
				values[5] = Int32GetDatum(status.slots_used);
				nulls[5] = false;
			}
			if (status.slots_total >= 0)
			{
				values[6] = Int32GetDatum(status.slots_total);
				nulls[6] = false;
			}
			if (status.last_error[0] != '\0')
			{
				values[8] = DtxTextValue(may_see_options(status.error_umid) ?
										 status.last_error : HIDDEN_ERROR);
				nulls[8] = false;
			}
		}

		values[7] = Int64GetDatum(count != NULL ? count->count : 0);
		nulls[7] = false;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	return (Datum) 0;
}
