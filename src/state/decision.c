/*-------------------------------------------------------------------------
 *
 * decision.c
 *		The decision table: the durable fact that a distributed transaction
 *		committed.
 *
 * A row is written by the user's own transaction once its participants are
 * prepared, so it becomes visible exactly if that transaction commits, in
 * the same WAL record.  Row visible means commit; row not visible, and the
 * transaction no longer running, means abort.
 *
 * Rows are read and written below the executor.  COMMIT must not run user code
 * (triggers, rules, hooks of other extensions), must not depend on the user's
 * privileges, and must work in a transaction that the user declared READ ONLY.
 *
 * So the duties of the executor are this file's.  Those that it takes over: the
 * lock, the snapshot, the shape of the rows (tables.c), pruning.  Those that can be
 * left out, because the relation is a materialized view, of which PostgreSQL
 * uses nothing but the storage: triggers, rules, row security, constraints,
 * generated columns and foreign keys cannot be created on it, and only REFRESH,
 * which protection.c refuses, writes it otherwise.  It cannot be published either
 * (catalog/pg_publication.c, is_publishable_class), not even by FOR ALL TABLES: a
 * subscriber would stop at the first row, or take another coordinator's decisions
 * for its own.  Indexes can be created, and are refused.
 *
 * Nobody reads the whole table to find a row: decision_map.c knows where they are,
 * once the first reader has looked through it.  So what is done does not grow
 * with the dead rows that an old snapshot keeps in it.
 *
 * The table holds one row per session slot, overwritten in place by the next
 * transaction once all participants have confirmed the last one (activity.c
 * knows where), plus the rows of transactions that are in doubt.  It has no
 * index, so that every overwriting is a HOT update, and a low fillfactor; its
 * readers use the map.
 *
 * All but DtxDecisionLookup() is called in a transaction, and throws what looking up,
 * locking and reading a table do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/decision_map.h"
#include "state/tables.h"
#include "storage/bufmgr.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"

/* Columns of dtx_internal.decision, in the order of the extension's script. */
enum
{
	Anum_boot_id = 1,
	Anum_xid,
	Anum_database,
	Anum_userid,
	Anum_decided_at,
	Anum_serverids,
	Anum_umids,
	Anum_system_ids,
	Anum_remote_xids,
	Anum_timelines,
	Anum_endpoints,
	Anum_started,
	Anum_application_name,
	Natts_decision = Anum_application_name
};

static const DtxColumn decision_columns[] = {
	{"boot_id", INT8OID},
	{"xid", INT8OID},
	{"database", OIDOID},
	{"userid", OIDOID},
	{"decided_at", TIMESTAMPTZOID},
	{"serverids", OIDARRAYOID},
	{"umids", OIDARRAYOID},
	{"system_ids", INT8ARRAYOID},
	{"remote_xids", INT8ARRAYOID},
	{"timelines", INT8ARRAYOID},
	{"endpoints", INT8ARRAYOID},
	{"started", TIMESTAMPTZOID},
	{"application_name", TEXTOID}
};

StaticAssertDecl(lengthof(decision_columns) == Natts_decision,
				 "columns of dtx_internal.decision");
static DtxTable decision_table = {
	.name = "decision",
	.columns = decision_columns,
	.ncolumns = lengthof(decision_columns),
	.below_executor = true
};

/* Reading the rows that a snapshot sees. */
typedef struct RowScan
{
	Relation	rel;
	Snapshot	snapshot;
	TupleTableSlot *slot;		/* the current row */
	TableScanDesc scan;			/* of the whole table; NULL: by the map */
	DtxDecisionPlace *places;	/* of the map */
	int			nplaces;
	int			next;			/* index of the next one */
	int			nunseen;		/* those that were not seen: they have been
								 * moved to the begin of the array */
} RowScan;

static Relation open_to_decide(void);
static void begin_rows(RowScan *rows, Relation rel, Snapshot snapshot);
static bool next_row(RowScan *rows);
static void end_rows(RowScan *rows);
static bool use_map(Relation rel);
static bool fetch_place(Relation rel, const DtxDecisionPlace *place,
						Snapshot snapshot, TupleTableSlot *slot);
static void prune_map(Relation rel, const DtxDecisionPlace *places, int n,
					  TupleTableSlot *slot);
static bool fetch_row(Relation rel, ItemPointer tid, uint64 boot_id, uint64 xid);
static bool find_row(Relation rel, Snapshot snapshot, uint64 boot_id, uint64 xid,
					 ItemPointer tid);
static ArrayType *oid_array(const DtxPrepared *prepared, int n, size_t field);
static ArrayType *int8_array(const DtxPrepared *prepared, int n, size_t field);
static void read_array(TupleTableSlot *slot, AttrNumber attnum, Oid type,
					   DtxDecisionRow *row, size_t field);

/*
 * OID of the decision table, InvalidOid if it is not there, for whatever reason.  Does
 * not wait for locks.
 */
Oid
DtxDecisionTable(void)
{
	static DtxVerified verified;

	return DtxExtensionTable("decision", &verified);
}

/*
 * Make sure that the current transaction can write its decision row.  To be called
 * before its participants are prepared.  Waits for those who have locked the table.
 *
 * The lock is not kept: PREPARE may take as long as the slowest server, and whatever
 * needs the table for itself (VACUUM FULL, REINDEX DATABASE, DROP EXTENSION) would
 * wait for that, and all other commits for it.
 *
 * Throws if the extension is not installed, or created in this very transaction.
 */
void
DtxDecisionCheck(void)
{
	Relation	rel = DtxTableOpenExisting(&decision_table, RowExclusiveLock);

	/*
	 * If we failed, nothing would be left of the table, nor of the
	 * coordinator's id by which a resolver recognizes what is to be rolled
	 * back.
	 */
	if (rel->rd_createSubid != InvalidSubTransactionId)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot commit on several servers in the transaction that creates extension \"%s\"",
						"pg_dtx"),
				 errhint("Commit CREATE EXTENSION first, and write on the servers in another transaction.")));
	table_close(rel, RowExclusiveLock);
}

/*
 * Open the decision table to write the row of the current transaction, with
 * everything prepared: a lock is waited for no longer than the servers are.  It is
 * kept until the transaction ends, which is all that is still to come.  Throws if
 * the time is over, if the extension was dropped, and on interrupts.
 */
static Relation
open_to_decide(void)
{
	return DtxTableOpenInTime(&decision_table, RowExclusiveLock);
}

/*
 * Write the decision row of the current transaction, in which nothing but the
 * commit itself is still to come.
 *
 * "prepared" tells of participants 1 to nparticipants.  *tid receives where the
 * row is.  Throws like any write.
 */
void
DtxDecisionWrite(uint64 xid, int nparticipants, const DtxPrepared *prepared,
				 ItemPointer tid)
{
	Relation	rel = open_to_decide();
	Datum		values[Natts_decision];
	bool		nulls[Natts_decision] = {0};
	HeapTuple	tuple;
	uint64		old_xid = 0;
	ItemPointerData old_tid;

	/* heapam.c wants a snapshot to be held while a row is written */
	PushActiveSnapshot(GetLatestSnapshot());

	values[Anum_boot_id - 1] = Int64GetDatum((int64) DtxBootId());
	values[Anum_xid - 1] = Int64GetDatum((int64) xid);
	values[Anum_database - 1] = ObjectIdGetDatum(MyDatabaseId);
	values[Anum_userid - 1] = ObjectIdGetDatum(GetSessionUserId());
	values[Anum_decided_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
#define FIELD(name)	offsetof(DtxPrepared, name)
	values[Anum_serverids - 1] = PointerGetDatum(oid_array(prepared, nparticipants, FIELD(serverid)));
	values[Anum_umids - 1] = PointerGetDatum(oid_array(prepared, nparticipants, FIELD(umid)));
	values[Anum_system_ids - 1] = PointerGetDatum(int8_array(prepared, nparticipants, FIELD(system_id)));
	values[Anum_remote_xids - 1] = PointerGetDatum(int8_array(prepared, nparticipants, FIELD(remote_xid)));
	values[Anum_timelines - 1] = PointerGetDatum(int8_array(prepared, nparticipants, FIELD(timeline)));
	values[Anum_endpoints - 1] = PointerGetDatum(int8_array(prepared, nparticipants, FIELD(endpoint)));
	values[Anum_started - 1] = TimestampTzGetDatum(GetCurrentTransactionStartTimestamp());
	values[Anum_application_name - 1] = CStringGetTextDatum(application_name);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);

	/* If the table was rewritten (VACUUM FULL), the old row is elsewhere. */
	if (DtxActivityGetRow(&old_xid, &old_tid) &&
		(fetch_row(rel, &old_tid, DtxBootId(), old_xid) ||
		 find_row(rel, GetActiveSnapshot(), DtxBootId(), old_xid, &old_tid)))
		DtxHeapUpdate(rel, &old_tid, tuple);
	else
	{
		old_xid = 0;
		simple_heap_insert(rel, tuple);
	}

	*tid = tuple->t_self;
	DtxDecisionMapWritten(xid, tid, old_xid);
	heap_freetuple(tuple);
	PopActiveSnapshot();
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
}

/*
 * Is the live row at *tid the one with this key, as the active snapshot sees it?
 * It is not if the table was rewritten (VACUUM FULL, CLUSTER) or created again;
 * the caller's lock on the table keeps the answer true.  Prunes the page on the
 * way, because nothing else visits it often enough to keep HOT chains short.
 */
static bool
fetch_row(Relation rel, ItemPointer tid, uint64 boot_id, uint64 xid)
{
	HeapTupleData tuple;
	Buffer		buffer;
	bool		result = false;

	if (ItemPointerGetBlockNumber(tid) >= RelationGetNumberOfBlocks(rel))
		return false;

	tuple.t_self = *tid;
	if (heap_fetch(rel, GetActiveSnapshot(), &tuple, &buffer, false))
	{
		bool		isnull;
		TupleDesc	desc = RelationGetDescr(rel);

		result =
			(uint64) DatumGetInt64(heap_getattr(&tuple, Anum_boot_id, desc, &isnull)) == boot_id &&
			(uint64) DatumGetInt64(heap_getattr(&tuple, Anum_xid, desc, &isnull)) == xid;

		/* The tuple may move within its page; its tid does not change. */
		DtxHeapPrune(rel, buffer);
		ReleaseBuffer(buffer);
	}
	return result;
}

/*
 * Open the decision table, NULL if the extension is not installed (any more).  Throws
 * if it is, and the table is not what this code expects.  The caller closes it.
 */
Relation
DtxDecisionOpen(LOCKMODE lockmode)
{
	return DtxTableOpen(&decision_table, lockmode);
}

/*
 * Read all decision rows that "snapshot" sees: a list of DtxDecisionRow in the
 * current memory context, empty if the extension is not installed.
 */
List *
DtxDecisionScan(Snapshot snapshot)
{
	List	   *rows = NIL;
	Relation	rel = DtxDecisionOpen(AccessShareLock);
	RowScan		scan;

	if (rel == NULL)
		return NIL;
	begin_rows(&scan, rel, snapshot);
	while (next_row(&scan))
	{
		TupleTableSlot *slot = scan.slot;
		DtxDecisionRow *row = palloc0(sizeof(DtxDecisionRow));

		slot_getallattrs(slot);
		row->boot_id = (uint64) DatumGetInt64(slot->tts_values[Anum_boot_id - 1]);
		row->xid = (uint64) DatumGetInt64(slot->tts_values[Anum_xid - 1]);
		row->inherited = !slot->tts_isnull[Anum_database - 1] &&
			DatumGetObjectId(slot->tts_values[Anum_database - 1]) != MyDatabaseId;
		row->userid = DatumGetObjectId(slot->tts_values[Anum_userid - 1]);
		row->decided_at = DatumGetTimestampTz(slot->tts_values[Anum_decided_at - 1]);
		read_array(slot, Anum_serverids, OIDOID, row, FIELD(serverid));
		read_array(slot, Anum_umids, OIDOID, row, FIELD(umid));
		read_array(slot, Anum_system_ids, INT8OID, row, FIELD(system_id));
		read_array(slot, Anum_remote_xids, INT8OID, row, FIELD(remote_xid));
		read_array(slot, Anum_timelines, INT8OID, row, FIELD(timeline));
		read_array(slot, Anum_endpoints, INT8OID, row, FIELD(endpoint));
		if (!slot->tts_isnull[Anum_started - 1])
			row->started = DatumGetTimestampTz(slot->tts_values[Anum_started - 1]);
		row->application_name = slot->tts_isnull[Anum_application_name - 1] ? "" :
			TextDatumGetCString(slot->tts_values[Anum_application_name - 1]);
		row->tid = slot->tts_tid;
		rows = lappend(rows, row);
	}
	end_rows(&scan);
	table_close(rel, AccessShareLock);

	return rows;
}

/* A decision row by its key, in DtxDecisionIndex()'s hash table. */
typedef struct RowKey
{
	uint64		key[2];			/* boot id, xid */
	DtxDecisionRow *row;
} RowKey;

/*
 * A hash table, in this memory context, of a list of DtxDecisionRow.
 */
HTAB *
DtxDecisionIndex(List *rows, MemoryContext cxt)
{
	HTAB	   *index;
	HASHCTL		info;
	ListCell   *lc;

	/* Two uint64: no padding. */
	memset(&info, 0, sizeof(info));
	info.keysize = 2 * sizeof(uint64);
	info.entrysize = sizeof(RowKey);
	info.hcxt = cxt;
	index = hash_create("pg_dtx decisions", 64, &info,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);
		uint64		key[2] = {row->boot_id, row->xid};
		RowKey	   *entry = hash_search(index, key, HASH_ENTER, NULL);

		entry->row = row;
	}
	return index;
}

/*
 * The row with this key in such a table, or NULL.
 */
DtxDecisionRow *
DtxDecisionLookup(HTAB *index, uint64 boot_id, uint64 xid)
{
	uint64		key[2] = {boot_id, xid};
	RowKey	   *entry = hash_search(index, key, HASH_FIND, NULL);

	return entry ? entry->row : NULL;
}

/*
 * Begin to read the rows that "snapshot" sees.  The caller has locked the table.
 */
static void
begin_rows(RowScan *rows, Relation rel, Snapshot snapshot)
{
	memset(rows, 0, sizeof(RowScan));
	rows->rel = rel;
	rows->snapshot = snapshot;
	rows->slot = table_slot_create(rel, NULL);
	if (use_map(rel))
		rows->places = DtxDecisionMapList(&rows->nplaces);
	else
		rows->scan = DtxTableBeginScan(rel, snapshot);
}

/*
 * The next row, in rows->slot.  Returns false if there is none.
 */
static bool
next_row(RowScan *rows)
{
	if (rows->scan != NULL)
		return table_scan_getnextslot(rows->scan, ForwardScanDirection,
									  rows->slot);
	while (rows->next < rows->nplaces)
	{
		DtxDecisionPlace *place = &rows->places[rows->next++];

		if (fetch_place(rows->rel, place, rows->snapshot, rows->slot))
			return true;
		rows->places[rows->nunseen++] = *place;
	}
	return false;
}

static void
end_rows(RowScan *rows)
{
	if (rows->scan != NULL)
		table_endscan(rows->scan);
	else
		prune_map(rows->rel, rows->places, rows->nunseen, rows->slot);
	ExecDropSingleTupleTableSlot(rows->slot);
}

/*
 * May rows be looked for by the map?  If it is not complete, look through the table
 * and make it so, if it has room.  The caller has locked the table.
 */
static bool
use_map(Relation rel)
{
	uint64		mark;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		room = true;

	if (DtxDecisionMapIsComplete(rel, &mark))
		return true;
	if (RecoveryInProgress())
		return false;

	/* The table is locked, so it gets no other file after this snapshot. */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (room && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		room = DtxDecisionMapFound((uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_id, &isnull)),
								   (uint64) DatumGetInt64(slot_getattr(slot, Anum_xid, &isnull)),
								   &slot->tts_tid);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	if (room)
		DtxDecisionMapCompleted(rel, mark);
	return DtxDecisionMapIsComplete(rel, &mark);
}

/*
 * Is the row that the map says is there, there, as the snapshot sees it?
 */
static bool
fetch_place(Relation rel, const DtxDecisionPlace *place, Snapshot snapshot,
			TupleTableSlot *slot)
{
	ItemPointerData tid = place->tid;
	bool		isnull;

	if (ItemPointerGetBlockNumber(&tid) >= RelationGetNumberOfBlocks(rel) ||
		!table_tuple_fetch_row_version(rel, &tid, snapshot, slot))
		return false;
	return
		(uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_id, &isnull)) == place->boot_id &&
		(uint64) DatumGetInt64(slot_getattr(slot, Anum_xid, &isnull)) == place->xid;
}

/*
 * Take those of these places out of the map at which no snapshot sees the row any
 * more.
 */
static void
prune_map(Relation rel, const DtxDecisionPlace *places, int n,
		  TupleTableSlot *slot)
{
	bool	   *in_progress;
	Snapshot	snapshot;

	if (n == 0)
		return;
	in_progress = palloc(sizeof(bool) * n);
	for (int i = 0; i < n; i++)
		in_progress[i] = DtxDecisionMapInProgress(&places[i]);

	/* First that, then the snapshot, as with every judgment. */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	for (int i = 0; i < n; i++)
	{
		if (!in_progress[i] && !fetch_place(rel, &places[i], snapshot, slot))
			DtxDecisionMapPrune(&places[i]);
	}
	UnregisterSnapshot(snapshot);
	pfree(in_progress);
}

/*
 * Delete a row that DtxDecisionScan() returned.  Returns false if it is not
 * there any more.  The caller has made sure that no backend owns it and that
 * no server holds a gid of it.
 */
bool
DtxDecisionDelete(const DtxDecisionRow *row)
{
	Relation	rel = DtxDecisionOpen(RowExclusiveLock);
	ItemPointerData tid = row->tid;
	bool		found;

	if (rel == NULL)
		return false;
	PushActiveSnapshot(GetLatestSnapshot());
	found = fetch_row(rel, &tid, row->boot_id, row->xid);
	if (found)
		simple_heap_delete(rel, &tid);
	PopActiveSnapshot();
	table_close(rel, NoLock);
	return found;
}

/*
 * Does the snapshot see a decision row with this key?
 */
bool
DtxDecisionFind(Snapshot snapshot, uint64 boot_id, uint64 xid)
{
	Relation	rel = DtxDecisionOpen(AccessShareLock);
	DtxDecisionPlace place = {.boot_id = boot_id,.xid = xid};
	bool		found;

	if (rel == NULL)
		return false;
	if (use_map(rel))
	{
		found = DtxDecisionMapFind(boot_id, xid, &place.tid);
		if (found)
		{
			TupleTableSlot *slot = table_slot_create(rel, NULL);

			found = fetch_place(rel, &place, snapshot, slot);
			ExecDropSingleTupleTableSlot(slot);
		}
	}
	else
		found = find_row(rel, snapshot, boot_id, xid, &place.tid);
	table_close(rel, AccessShareLock);
	return found;
}

/*
 * Look through the table for the row with this key.
 */
static bool
find_row(Relation rel, Snapshot snapshot, uint64 boot_id, uint64 xid,
		 ItemPointer tid)
{
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;

	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found =
			(uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_id, &isnull)) == boot_id &&
			(uint64) DatumGetInt64(slot_getattr(slot, Anum_xid, &isnull)) == xid;
		*tid = slot->tts_tid;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	return found;
}

/* An array of the field at this offset of each participant. */
static ArrayType *
oid_array(const DtxPrepared *prepared, int n, size_t field)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = ObjectIdGetDatum(*(const Oid *) ((const char *) &prepared[i] + field));
	return construct_array(datums, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT);
}

static ArrayType *
int8_array(const DtxPrepared *prepared, int n, size_t field)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum((int64) *(const uint64 *) ((const char *) &prepared[i] + field));
	return construct_array(datums, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

/*
 * The reverse: fill the field at this offset of each participant of a row.  The
 * first array says how many there are; what others lack stays 0, "not known".
 */
static void
read_array(TupleTableSlot *slot, AttrNumber attnum, Oid type,
		   DtxDecisionRow *row, size_t field)
{
	bool		oids = type == OIDOID;
	Datum	   *datums;
	int			n = 0;

	if (!slot->tts_isnull[attnum - 1])
		deconstruct_array(DatumGetArrayTypeP(slot->tts_values[attnum - 1]), type,
						  oids ? sizeof(Oid) : sizeof(int64),
						  oids || FLOAT8PASSBYVAL,
						  oids ? TYPALIGN_INT : TYPALIGN_DOUBLE, &datums, NULL,
						  &n);
	if (row->prepared == NULL)
	{
		row->nparticipants = n;
		row->prepared = palloc0(sizeof(DtxPrepared) * Max(n, 1));
	}
	for (int i = 0; i < Min(n, row->nparticipants); i++)
	{
		char	   *value = (char *) &row->prepared[i] + field;

		if (oids)
			*(Oid *) value = DatumGetObjectId(datums[i]);
		else
			*(uint64 *) value = (uint64) DatumGetInt64(datums[i]);
	}
}

/*
 * Is there a decision that may be needed, of the current boot or, unless
 * "current_boot_only" is set, of any?  That is one whose participants are not known to
 * have confirmed: the row of a backend that waits to use it again is not needed.  In a
 * transaction.
 */
bool
DtxDecisionAnyNeeded(bool current_boot_only)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	List	   *rows = DtxDecisionScan(snapshot);
	ListCell   *lc;

	UnregisterSnapshot(snapshot);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);

		if (!row->inherited &&
			(!current_boot_only || row->boot_id == DtxBootId()) &&
			!DtxActivityOwnsRow(row->boot_id, row->xid))
			return true;
	}
	return false;
}
