/*-------------------------------------------------------------------------
 *
 * route.c
 *		The table dtx_internal.route: through which user mappings something was prepared,
 *		and at which address.
 *
 * A resolver connects though nobody has asked it to, with passwords that are not its
 * own.  So it goes only where their owners have gone before, in a transaction that was
 * prepared: the first one through a user mapping, to where its options lead then,
 * leaves a row here.  resolve/mapping.c lets no other mapping be used, and this one
 * only as long as it leads to the same place, unless the owner of the server is a
 * superuser, who can read all passwords anyway.
 *
 * A row is on disk before the first PREPARE is sent, and stays when that transaction
 * fails: a coordinator that crashes in between has nothing else that tells where to
 * look.  So it is written as if its transaction had committed long ago
 * (HEAP_INSERT_FROZEN, access/heap/heapam.c, heap_prepare_insert), and flushed.  It is
 * not waited for on synchronous standbys: a decision to commit has a row of its own,
 * behind this one in the WAL, and what was rolled back is found when the mapping
 * is used again.
 *
 * The same route may be recorded twice, by two sessions at the same time; that does
 * no harm, and is put in order by the resolver.  A session remembers which ones it
 * has seen in the table, so that later commits look no further.  It may: a row is
 * deleted when its mapping does not exist any more (unless a human has decided about
 * something that was prepared through a server that is gone), or with all others when the
 * database gets another identity, whose endpoints are different
 * (target.c, DtxEndpoint), or because it tells of an address that the mapping has
 * left.  Before the last the resolver makes all sessions look again, see DtxRouteTidy().
 *
 * Where a mapping led once is forgotten, when nothing is in doubt, as soon as something
 * was prepared where it leads now: otherwise its password would go there again if the
 * server was led back, years later.  Until then the latest one stays, because the
 * server may be led back to what is prepared there.
 *
 * A row has the object identifiers of server and mapping and, for when these change,
 * the name of the one and the local user of the other: pg_upgrade gives foreign servers
 * and user mappings new identifiers, and people drop and create them.  A
 * row may lie no more than that: who gives a server the name of one that was dropped
 * is trusted as far as the owner of any server.  A copy of the database (CREATE
 * DATABASE ... TEMPLATE) has a copy of the rows, as it has one of the decisions.
 *
 * The table is a materialized view, for the reasons that decision.c gives.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogdefs.h"
#include "base/compat.h"
#include "base/wakeup.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "net/route.h"
#include "net/target.h"
#include "net/wrapper.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "state/activity.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(dtx_sql_confirm_server);

/* Columns of dtx_internal.route, in the order of the extension's script. */
enum
{
	Anum_route_serverid = 1,
	Anum_route_umid,
	Anum_route_server,
	Anum_route_userid,
	Anum_route_endpoint,
	Anum_route_since,
	Natts_route = Anum_route_since
};

static const DtxColumn route_columns[] = {
	{"serverid", OIDOID},
	{"umid", OIDOID},
	{"server", NAMEOID},
	{"userid", OIDOID},
	{"endpoint", INT8OID},
	{"since", TIMESTAMPTZOID}
};
static DtxTable route_table = {
	.name = "route",
	.columns = route_columns,
	.ncolumns = lengthof(route_columns),
	.below_executor = true
};

/* A row. */
typedef struct Row
{
	Oid			serverid;
	Oid			umid;
	NameData	server;
	Oid			userid;			/* InvalidOid: of a mapping for PUBLIC */
	uint64		endpoint;
	TimestampTz since;
} Row;

/* Key of a hash table of routes; without padding. */
typedef struct RouteKey
{
	Oid			serverid;
	Oid			umid;
	uint64		endpoint;
} RouteKey;

/* A row that DtxRouteTidy() has found to be right. */
typedef struct Kept
{
	ItemPointerData tid;
	Oid			umid;
	uint64		endpoint;
} Kept;

/* The route of a mapping that is to stay. */
typedef struct Latest
{
	Oid			umid;			/* hash key */
	uint64		present;		/* where it leads now */
	uint64		endpoint;
	TimestampTz since;
} Latest;

/* Routes that this process has seen in, or written to, the table known_in. */
static HTAB *known = NULL;
static Oid	known_in = InvalidOid;
static uint64 known_since = 0;	/* DtxActivityRoutesDeleted() */

static HTAB *make_hash(MemoryContext cxt);
static bool is_known(const DtxPrepared *prepared);
static void read_row(TupleTableSlot *slot, Row *row);
static bool resolve_row(const Row *row, Row *now);
static bool read_mapping(Oid umid, Oid *serverid, Oid *userid);
static bool is_uncommitted(TupleTableSlot *slot);
static bool writer_is_running(TupleTableSlot *slot);
static char *show_options(List *options);
static List *mappings_of(Oid serverid);
static bool describe(Oid umid, uint64 endpoint, Row *row);
static void note_latest(HTAB *latest, const Row *row);
static uint64 present_endpoint(const Row *row);
static void look_for_known(Relation rel, const DtxPrepared *prepared, int n);
static void insert_row(Relation rel, const Row *row, bool frozen);
static Relation open_table(LOCKMODE lockmode);

/* ----------------------------------------------------------------
 * Recording
 * ----------------------------------------------------------------
 */

/* See route.h. */
void
DtxRouteRecord(const DtxPrepared *prepared, int n)
{
	Relation	rel = NULL;
	Oid			relid = DtxTableOid(&route_table);
	uint64		deleted = DtxActivityRoutesDeleted();

	if (known == NULL || known_in != relid || known_since != deleted)
	{
		if (known != NULL)
			hash_destroy(known);
		known = NULL;
		known = make_hash(TopMemoryContext);
		known_in = relid;
		known_since = deleted;
	}

	for (int i = 0; i < n; i++)
	{
		RouteKey	key = {prepared[i].serverid, prepared[i].umid, prepared[i].endpoint};
		Row			row;

		if (is_known(&prepared[i]))
			continue;
		if (rel == NULL)
		{
			rel = DtxTableOpenInTime(&route_table, RowExclusiveLock);
			look_for_known(rel, prepared, n);
			if (is_known(&prepared[i]))
				continue;
		}

		/*
		 * Dropped by another session while it was used: it cannot be used any
		 * more.
		 */
		if (!describe(prepared[i].umid, prepared[i].endpoint, &row))
			continue;
		insert_row(rel, &row, true);
		XLogFlush(XactLastRecEnd);
		(void) hash_search(known, &key, HASH_ENTER, NULL);
	}

	/* Nothing depends on the lock: the rows are visible already. */
	if (rel != NULL)
		table_close(rel, RowExclusiveLock);
}

static HTAB *
make_hash(MemoryContext cxt)
{
	HASHCTL		info;

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(RouteKey);
	info.entrysize = sizeof(RouteKey);
	info.hcxt = cxt;
	return hash_create("pg_dtx routes", 32, &info,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

static bool
is_known(const DtxPrepared *prepared)
{
	RouteKey	key = {prepared->serverid, prepared->umid, prepared->endpoint};

	return hash_search(known, &key, HASH_FIND, NULL) != NULL;
}

/*
 * Remember those of these participants' routes that are in the table.  Each may have
 * been written a moment ago by a session that has not flushed it yet, so that is done for
 * him.
 */
static void
look_for_known(Relation rel, const DtxPrepared *prepared, int n)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = DtxTableBeginScan(rel, snapshot);
	XLogRecPtr	lsn = InvalidXLogRecPtr;

	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Row			row;
		Row			now;
		bool		wanted = false;

		CHECK_FOR_INTERRUPTS();
		lsn = Max(lsn, BufferGetLSNAtomic(((BufferHeapTupleTableSlot *) slot)->buffer));
		read_row(slot, &row);
		for (int i = 0; i < n && !wanted; i++)
			wanted = prepared[i].umid == row.umid &&
				prepared[i].serverid == row.serverid &&
				prepared[i].endpoint == row.endpoint;
		if (!wanted)
			continue;

		/*
		 * One that has only its name will get a row of its own; one that this
		 * transaction has confirmed may be gone with it.
		 */
		if (resolve_row(&row, &now) && now.umid == row.umid &&
			!is_uncommitted(slot))
		{
			RouteKey	key = {row.serverid, row.umid, row.endpoint};

			(void) hash_search(known, &key, HASH_ENTER, NULL);
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	XLogFlush(lsn);
}

/* Is it a row that the current transaction takes with it if it fails? */
static bool
is_uncommitted(TupleTableSlot *slot)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);

	return TransactionIdIsCurrentTransactionId(HeapTupleHeaderGetXmin(tuple->t_data));
}

/*
 * What the table is to have of this mapping.  Returns false if it does not exist.
 */
static bool
describe(Oid umid, uint64 endpoint, Row *row)
{
	ForeignServer *server;

	memset(row, 0, sizeof(Row));
	if (!read_mapping(umid, &row->serverid, &row->userid))
		return false;
	server = GetForeignServerExtended(row->serverid, FSV_MISSING_OK);
	if (server == NULL)
		return false;
	row->umid = umid;
	namestrcpy(&row->server, server->servername);
	row->endpoint = endpoint;
	row->since = GetCurrentTimestamp();
	return true;
}

/*
 * "frozen": it is there from now on, whatever becomes of the transaction.
 */
static void
insert_row(Relation rel, const Row *row, bool frozen)
{
	Datum		values[Natts_route];
	bool		nulls[Natts_route] = {0};
	HeapTuple	tuple;

	values[Anum_route_serverid - 1] = ObjectIdGetDatum(row->serverid);
	values[Anum_route_umid - 1] = ObjectIdGetDatum(row->umid);
	values[Anum_route_server - 1] = NameGetDatum(&row->server);
	values[Anum_route_userid - 1] = ObjectIdGetDatum(row->userid);
	values[Anum_route_endpoint - 1] = Int64GetDatum((int64) row->endpoint);
	values[Anum_route_since - 1] = TimestampTzGetDatum(row->since);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);

	/* heapam.c wants a snapshot to be held while a row is written */
	PushActiveSnapshot(GetLatestSnapshot());
	heap_insert(rel, tuple, GetCurrentCommandId(true),
				frozen ? HEAP_INSERT_FROZEN : 0, NULL);
	PopActiveSnapshot();
	heap_freetuple(tuple);
}

static Relation
open_table(LOCKMODE lockmode)
{
	return DtxTableOpenExisting(&route_table, lockmode);
}

/* ----------------------------------------------------------------
 * Reading
 * ----------------------------------------------------------------
 */

static void
read_row(TupleTableSlot *slot, Row *row)
{
	memset(row, 0, sizeof(Row));
	slot_getallattrs(slot);
	row->serverid = DatumGetObjectId(slot->tts_values[Anum_route_serverid - 1]);
	row->umid = DatumGetObjectId(slot->tts_values[Anum_route_umid - 1]);
	namestrcpy(&row->server,
			   NameStr(*DatumGetName(slot->tts_values[Anum_route_server - 1])));
	row->userid = DatumGetObjectId(slot->tts_values[Anum_route_userid - 1]);
	row->endpoint = (uint64) DatumGetInt64(slot->tts_values[Anum_route_endpoint - 1]);
	row->since = DatumGetTimestampTz(slot->tts_values[Anum_route_since - 1]);
}

/* Server and local user of a mapping.  Returns false if it does not exist. */
static bool
read_mapping(Oid umid, Oid *serverid, Oid *userid)
{
	HeapTuple	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(umid));

	if (!HeapTupleIsValid(tuple))
		return false;
	*serverid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver;
	*userid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->umuser;
	ReleaseSysCache(tuple);
	return true;
}

/*
 * *now is the row as it would have to be with the catalogs as they are.  Returns false
 * if its server or mapping does not exist.
 */
static bool
resolve_row(const Row *row, Row *now)
{
	Oid			serverid;
	Oid			userid;

	*now = *row;
	if (!read_mapping(row->umid, &serverid, &userid) ||
		serverid != row->serverid || userid != row->userid)
	{
		HeapTuple	tuple;

		now->serverid = get_foreign_server_oid(NameStr(row->server), true);
		if (!OidIsValid(now->serverid))
			return false;
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(row->userid),
								ObjectIdGetDatum(now->serverid));
		if (!HeapTupleIsValid(tuple))
			return false;
		now->umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;
		ReleaseSysCache(tuple);
	}
	if (!describe(now->umid, row->endpoint, now))
		return false;
	now->since = row->since;
	return true;
}

/* See route.h. */
List *
DtxRouteList(void)
{
	List	   *routes = NIL;
	Relation	rel = DtxTableOpen(&route_table, AccessShareLock);
	Snapshot	snapshot;
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (rel == NULL)
		return NIL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Row			row;
		Row			now;
		DtxRoute   *route;

		CHECK_FOR_INTERRUPTS();
		read_row(slot, &row);
		if (!resolve_row(&row, &now))
			continue;
		route = palloc(sizeof(DtxRoute));
		route->serverid = now.serverid;
		route->umid = now.umid;
		route->endpoint = now.endpoint;
		routes = lappend(routes, route);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return routes;
}

/* ----------------------------------------------------------------
 * Putting in order
 * ----------------------------------------------------------------
 */

/* See route.h. */
void
DtxRouteTidy(void)
{
	Oid			relid = DtxTableOid(&route_table);
	Relation	rel;
	MemoryContext cxt;
	HTAB	   *seen;
	HTAB	   *latest;
	HASHCTL		info;
	bool		all;
	List	   *forgotten_commits;
	List	   *forgotten_rollbacks;
	List	   *kept = NIL;
	TupleTableSlot *slot;
	TableScanDesc scan;
	List	   *renewed = NIL;
	ListCell   *lc;

	/*
	 * From here on nobody adds a route.  A session that publishes a
	 * transaction after the next step looks for its routes after us; one that
	 * has done so before may rely on any that are there, and on what the
	 * catalogs have been.
	 */
	if (!OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, ShareRowExclusiveLock))
		return;
	rel = DtxTableOpen(&route_table, ShareRowExclusiveLock);
	if (rel == NULL)
		return;
	all = !DtxActivityDeleteRoutes() && DtxInDoubtList(MyDatabaseId) == NIL;
	AcceptInvalidationMessages();

	cxt = AllocSetContextCreate(CurrentMemoryContext, "pg_dtx routes",
								ALLOCSET_DEFAULT_SIZES);
	seen = make_hash(cxt);
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(Latest);
	info.hcxt = cxt;
	latest = hash_create("pg_dtx latest routes", 32, &info,
						 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	PushActiveSnapshot(GetLatestSnapshot());

	/*
	 * What a human has decided without a server is carried out if a server
	 * leads there again, and only a route tells the resolver to look.
	 */
	DtxForced(GetActiveSnapshot(), &forgotten_commits, &forgotten_rollbacks);

	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, GetActiveSnapshot());
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		Row			row;
		Row			now;
		bool		found = false;
		bool		same = false;

		CHECK_FOR_INTERRUPTS();
		if (writer_is_running(slot))
			continue;
		read_row(slot, &row);
		if (resolve_row(&row, &now))
		{
			RouteKey	key = {now.serverid, now.umid, now.endpoint};

			(void) hash_search(seen, &key, HASH_ENTER, &found);
			same = now.serverid == row.serverid && now.umid == row.umid &&
				strcmp(NameStr(now.server), NameStr(row.server)) == 0;
			if (same && !found)
			{
				MemoryContext old = MemoryContextSwitchTo(cxt);
				Kept	   *copy = palloc(sizeof(Kept));

				copy->tid = slot->tts_tid;
				copy->umid = row.umid;
				copy->endpoint = row.endpoint;
				kept = lappend(kept, copy);
				MemoryContextSwitchTo(old);
				note_latest(latest, &row);
				continue;
			}
			if (!found)
			{
				Row		   *copy = MemoryContextAlloc(cxt, sizeof(Row));
				MemoryContext old = MemoryContextSwitchTo(cxt);

				*copy = now;
				note_latest(latest, &now);
				renewed = lappend(renewed, copy);
				MemoryContextSwitchTo(old);
			}
		}
		else if (forgotten_commits != NIL || forgotten_rollbacks != NIL)
			continue;
		simple_heap_delete(rel, &slot->tts_tid);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();

	foreach(lc, kept)
	{
		Kept	   *row = (Kept *) lfirst(lc);
		Latest	   *entry = hash_search(latest, &row->umid, HASH_FIND, NULL);

		if (all && entry->endpoint != row->endpoint)
			simple_heap_delete(rel, &row->tid);
	}
	foreach(lc, renewed)
		insert_row(rel, (Row *) lfirst(lc), false);
	if (renewed != NIL)
		ForceSyncCommit();
	MemoryContextDelete(cxt);
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
}

/*
 * Of the routes of a mapping, the one to where it leads now is to stay; if there is
 * none, the one that was recorded last.
 */
static void
note_latest(HTAB *latest, const Row *row)
{
	bool		found;
	Latest	   *entry = hash_search(latest, &row->umid, HASH_ENTER, &found);

	if (!found)
	{
		entry->present = present_endpoint(row);
		entry->endpoint = row->endpoint;
		entry->since = row->since;
	}
	else if (entry->endpoint != entry->present &&
			 (row->endpoint == entry->present || row->since > entry->since))
	{
		entry->endpoint = row->endpoint;
		entry->since = row->since;
	}
}

/* Where the mapping of a row leads now; it exists. */
static uint64
present_endpoint(const Row *row)
{
	return DtxTargetMake(row->serverid, row->umid, 0, InvalidOid)->endpoint;
}

/*
 * Is the transaction that has written a row still running?  It may have made the
 * mapping itself, which nobody else sees then.  After "false" the catalogs show what
 * it has done: the lock on a transaction id is taken with the id and released after
 * the invalidation messages are sent (access/transam/xact.c, CommitTransaction).
 * HEAP_INSERT_FROZEN leaves the id in the row.
 */
static bool
writer_is_running(TupleTableSlot *slot)
{
	HeapTuple	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
	TransactionId xid = HeapTupleHeaderGetRawXmin(tuple->t_data);
	LOCKTAG		tag;

	if (!TransactionIdIsNormal(xid))
		return false;
	SET_LOCKTAG_TRANSACTION(tag, xid);
	if (LockAcquire(&tag, ShareLock, false, true) == LOCKACQUIRE_NOT_AVAIL)
		return true;
	LockRelease(&tag, ShareLock, false);
	AcceptInvalidationMessages();
	return false;
}

/* See route.h. */
void
DtxRouteDeleteAll(void)
{
	Relation	rel = DtxTableOpen(&route_table, ShareRowExclusiveLock);
	TupleTableSlot *slot;
	TableScanDesc scan;

	if (rel == NULL)
		return;
	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, GetActiveSnapshot());
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
		simple_heap_delete(rel, &slot->tts_tid);
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
}

/* ----------------------------------------------------------------
 * SQL functions
 * ----------------------------------------------------------------
 */

/*
 * dtx.confirm_server(server name, all_mappings boolean, expected_options text[]): a
 * human says that the resolver may connect to where a server leads now; with
 * expected_options, if these are its options that tell where that is.
 */
Datum
dtx_sql_confirm_server(PG_FUNCTION_ARGS)
{
	ForeignServer *server;
	bool		all;
	char	   *options;
	List	   *umids = NIL;
	int			n = 0;
	Relation	rel;
	ListCell   *lc;

	/* Who owns the server, and was granted this, would confirm his own trap. */
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to confirm where a server leads"),
				 errdetail("The passwords of all who use the server are sent there.")));
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("server and all_mappings must not be null")));
	server = GetForeignServerByName(NameStr(*PG_GETARG_NAME(0)), false);
	all = PG_GETARG_BOOL(1);

	PreventCommandIfReadOnly("dtx.confirm_server()");
	if (!DtxWrapperIsPostgresFdw(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of postgres_fdw",
						server->servername)));
	options = show_options(server->options);
	if (!PG_ARGISNULL(2) &&
		strcmp(DtxEndpointText(server->options, NIL),
			   DtxEndpointText(untransformRelOptions(PG_GETARG_DATUM(2)), NIL)) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" does not have the expected options",
						server->servername),
				 errdetail("Its options are: %s.", options)));

	rel = open_table(RowExclusiveLock);
	if (all)
		umids = mappings_of(server->serverid);
	else
	{
		foreach(lc, DtxRouteList())
		{
			DtxRoute   *route = (DtxRoute *) lfirst(lc);

			if (route->serverid == server->serverid)
				umids = list_append_unique_oid(umids, route->umid);
		}
	}
	if (umids == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 all ?
				 errmsg("server \"%s\" has no user mappings", server->servername) :
				 errmsg("nothing was prepared through any user mapping of server \"%s\"",
						server->servername),
				 all ? 0 :
				 errhint("Pass all_mappings => true to let the resolver use all of them.")));

	foreach(lc, umids)
	{
		Oid			serverid;
		Oid			userid;
		UserMapping *mapping;
		Row			row;

		/* The options of the server are those that were looked at above. */
		if (!read_mapping(lfirst_oid(lc), &serverid, &userid))
			continue;
		mapping = GetUserMapping(userid, server->serverid);
		if (!describe(mapping->umid,
					  DtxEndpoint(DtxEndpointText(server->options, mapping->options)),
					  &row))
			continue;
		insert_row(rel, &row, false);
		n++;
	}
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */

	ereport(LOG,
			(errmsg("user \"%s\" confirmed where server \"%s\" leads",
					GetUserNameFromId(GetSessionUserId(), false),
					server->servername),
			 errdetail("Its options are: %s.", options)));
	ForceSyncCommit();
	DtxWakeupPass(MyDatabaseId);
	PG_RETURN_INT32(n);
}

/* Options of a server as a text for humans; there are no secrets among them. */
static char *
show_options(List *options)
{
	StringInfoData text;
	ListCell   *lc;

	initStringInfo(&text);
	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		appendStringInfo(&text, "%s%s=%s", text.len > 0 ? ", " : "",
						 def->defname, defGetString(def));
	}
	if (text.len == 0)
		appendStringInfoString(&text, "none");
	return text.data;
}

/* All user mappings of a server: OIDs in the current memory context. */
static List *
mappings_of(Oid serverid)
{
	List	   *umids = NIL;
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple	tuple;

	/* The index begins with umuser, so this is a sequential scan. */
	ScanKeyInit(&key, Anum_pg_user_mapping_umserver, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(serverid));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		umids = lappend_oid(umids, ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return umids;
}
