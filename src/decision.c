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
 * The table holds one row per session slot, overwritten in place by the next
 * transaction once all participants have confirmed the last one (activity.c
 * knows where), plus the rows of transactions that are in doubt.  It has no
 * index, so that every overwriting is a HOT update, and a low fillfactor; its
 * readers scan it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "catalog/dependency.h"
#include "compat.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "pg_dtx.h"
#include "storage/bufmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define DTX_EXTENSION	"pg_dtx"
#define DTX_SCHEMA		"dtx"

/* Columns of dtx.decision, in the order of the extension's script. */
enum
{
	Anum_boot_id = 1,
	Anum_xid,
	Anum_userid,
	Anum_decided_at,
	Anum_serverids,
	Anum_umids,
	Anum_system_ids,
	Anum_remote_xids,
	Natts_decision = Anum_remote_xids
};

static bool fetch_row(Relation rel, ItemPointer tid, uint64 boot_id, uint64 xid);
static ArrayType *oid_array(const Oid *oids, int n);
static Oid *read_oid_array(Datum datum, int *n);
static ArrayType *int8_array(const uint64 *values, int n);
static uint64 *read_int8_array(Datum datum, int *n);
static void throw_not_installed(void);

/*
 * OID of a table of the extension, InvalidOid if the extension is not installed
 * in this database.  A table of that name that somebody else made does not
 * count; *verified remembers the last one that did.
 */
Oid
DtxExtensionTable(const char *name, Oid *verified)
{
	Oid			nspid = get_namespace_oid(DTX_SCHEMA, true);
	Oid			relid;
	Oid			extid;

	if (!OidIsValid(nspid))
		return InvalidOid;
	relid = get_relname_relid(name, nspid);
	if (!OidIsValid(relid) || relid == *verified)
		return relid;

	extid = getExtensionOfObject(RelationRelationId, relid);
	if (!OidIsValid(extid) ||
		extid != get_extension_oid(DTX_EXTENSION, true))
		return InvalidOid;

	*verified = relid;
	return relid;
}

/*
 * OID of the decision table, InvalidOid if the extension is not installed.
 */
Oid
DtxDecisionTable(void)
{
	static Oid	verified = InvalidOid;

	return DtxExtensionTable("decision", &verified);
}

/*
 * Is the extension installed in this database?  To be called in a transaction;
 * costs two syscache lookups.
 */
bool
DtxExtensionInstalled(void)
{
	return OidIsValid(DtxDecisionTable());
}

/*
 * The coordinator id of this database.  To be called in a transaction.  Throws
 * if the extension is not installed or its one row is missing.
 */
uint64
DtxCoordinatorId(void)
{
	static Oid	verified = InvalidOid;
	static Oid	cached_relid = InvalidOid;
	static uint64 cached_id = 0;
	Oid			relid = DtxExtensionTable("coordinator", &verified);
	Relation	rel;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;

	if (!OidIsValid(relid))
		throw_not_installed();
	if (relid == cached_relid)
		return cached_id;

	rel = try_table_open(relid, AccessShareLock);
	if (rel == NULL)
		throw_not_installed();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		cached_id = (uint64) DatumGetInt64(slot_getattr(slot, 1, &isnull));
		found = !isnull;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.coordinator\" is empty", DTX_SCHEMA),
				 errhint("Drop and create extension \"%s\" again.",
						 DTX_EXTENSION)));
	cached_relid = relid;
	return cached_id;
}

/*
 * Make sure that the current transaction can write its decision row without
 * waiting for a lock.  To be called before its participants are prepared.
 */
void
DtxDecisionLock(void)
{
	Relation	rel = DtxDecisionOpen(RowExclusiveLock);

	if (rel == NULL)
		throw_not_installed();

	/*
	 * If we failed, nothing would be left of the table, nor of the
	 * coordinator's id by which a resolver recognizes what is to be rolled back.
	 */
	if (rel->rd_createSubid != InvalidSubTransactionId)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot commit on several servers in the transaction that creates extension \"%s\"",
						"pg_dtx"),
				 errhint("Commit CREATE EXTENSION first, and write on the servers in another transaction.")));
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
}

/*
 * Write the decision row of the current transaction, in which nothing but the
 * commit itself is still to come.
 *
 * serverids, umids, system_ids and remote_xids name the foreign server, the user
 * mapping, the cluster and the transaction there (0: not known) of participants
 * 1 to nparticipants.  *tid receives where the row is.  Throws like any write.
 */
void
DtxDecisionWrite(uint64 xid, int nparticipants, const Oid *serverids,
				 const Oid *umids, const uint64 *system_ids,
				 const uint64 *remote_xids, ItemPointer tid)
{
	Relation	rel = DtxDecisionOpen(RowExclusiveLock);
	Datum		values[Natts_decision];
	bool		nulls[Natts_decision] = {0};
	HeapTuple	tuple;
	uint64		old_xid;
	ItemPointerData old_tid;

	if (rel == NULL)
		throw_not_installed();

	/* heapam.c wants a snapshot to be held while a row is written */
	PushActiveSnapshot(GetLatestSnapshot());

	values[Anum_boot_id - 1] = Int64GetDatum((int64) DtxBootId());
	values[Anum_xid - 1] = Int64GetDatum((int64) xid);
	values[Anum_userid - 1] = ObjectIdGetDatum(GetSessionUserId());
	values[Anum_decided_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_serverids - 1] = PointerGetDatum(oid_array(serverids, nparticipants));
	values[Anum_umids - 1] = PointerGetDatum(oid_array(umids, nparticipants));
	values[Anum_system_ids - 1] = PointerGetDatum(int8_array(system_ids, nparticipants));
	values[Anum_remote_xids - 1] = PointerGetDatum(int8_array(remote_xids, nparticipants));
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);

	if (DtxActivityGetRow(&old_xid, &old_tid) &&
		fetch_row(rel, &old_tid, DtxBootId(), old_xid))
		DtxHeapUpdate(rel, &old_tid, tuple);
	else
		simple_heap_insert(rel, tuple);

	*tid = tuple->t_self;
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
 * Open the decision table, NULL if the extension is not installed (any more).
 */
Relation
DtxDecisionOpen(LOCKMODE lockmode)
{
	Oid			relid = DtxDecisionTable();

	return OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;
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
	TableScanDesc scan;
	TupleTableSlot *slot;

	if (rel == NULL)
		return NIL;
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		DtxDecisionRow *row = palloc0(sizeof(DtxDecisionRow));
		int			numids;
		uint64	   *xids;

		slot_getallattrs(slot);
		row->boot_id = (uint64) DatumGetInt64(slot->tts_values[Anum_boot_id - 1]);
		row->xid = (uint64) DatumGetInt64(slot->tts_values[Anum_xid - 1]);
		row->userid = DatumGetObjectId(slot->tts_values[Anum_userid - 1]);
		row->decided_at = DatumGetTimestampTz(slot->tts_values[Anum_decided_at - 1]);
		row->serverids = read_oid_array(slot->tts_values[Anum_serverids - 1],
										&row->nparticipants);
		row->umids = read_oid_array(slot->tts_values[Anum_umids - 1], &numids);
		row->nparticipants = Min(row->nparticipants, numids);
		row->system_ids = read_int8_array(slot->tts_values[Anum_system_ids - 1],
										  &numids);
		row->nparticipants = Min(row->nparticipants, numids);
		xids = read_int8_array(slot->tts_values[Anum_remote_xids - 1],
							   &numids);
		row->remote_xids = palloc0(sizeof(uint64) * Max(row->nparticipants, 1));
		memcpy(row->remote_xids, xids,
			   sizeof(uint64) * Min(row->nparticipants, numids));
		row->tid = slot->tts_tid;
		rows = lappend(rows, row);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);

	return rows;
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
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;

	if (rel == NULL)
		return false;
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found =
			(uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_id, &isnull)) == boot_id &&
			(uint64) DatumGetInt64(slot_getattr(slot, Anum_xid, &isnull)) == xid;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
	return found;
}

static ArrayType *
oid_array(const Oid *oids, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = ObjectIdGetDatum(oids[i]);
	return construct_array(datums, n, OIDOID, sizeof(Oid), true, TYPALIGN_INT);
}

static Oid *
read_oid_array(Datum datum, int *n)
{
	Datum	   *datums;
	Oid		   *oids;

	deconstruct_array(DatumGetArrayTypeP(datum), OIDOID, sizeof(Oid), true,
					  TYPALIGN_INT, &datums, NULL, n);
	oids = palloc(sizeof(Oid) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		oids[i] = DatumGetObjectId(datums[i]);
	return oids;
}

static ArrayType *
int8_array(const uint64 *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum((int64) values[i]);
	return construct_array(datums, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL,
						   TYPALIGN_DOUBLE);
}

static uint64 *
read_int8_array(Datum datum, int *n)
{
	Datum	   *datums;
	uint64	   *values;

	deconstruct_array(DatumGetArrayTypeP(datum), INT8OID, sizeof(int64),
					  FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &datums, NULL, n);
	values = palloc(sizeof(uint64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		values[i] = (uint64) DatumGetInt64(datums[i]);
	return values;
}

static void
throw_not_installed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("extension \"%s\" is not installed in this database",
					DTX_EXTENSION),
			 errdetail("It may have been dropped a moment ago.")));
}
