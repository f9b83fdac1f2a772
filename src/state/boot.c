/*-------------------------------------------------------------------------
 *
 * boot.c
 *		The boots of the server that this database remembers, and whether former ones may be
 *		judged.
 *
 * What tells copies of a database apart is the boot: a random identifier made when shared
 * memory is.  It is part of every gid, and two living servers never have the same one.
 * dtx_internal.boot remembers the boots of this database, each in a row that is committed
 * before the first gid of that boot is made.  So a gid of the current boot is this server's
 * own; one of a boot in the table was made by this server or by a server of which it is a
 * copy; one of any other boot is not of this database and is never touched.
 *
 * A former boot is judged as if it had ended, which is wrong if the original is alive, and
 * its end may be missing if this database was restored.  So when a row is written, the one
 * before it is compared with what the server can know of itself (copies.c).  If there is a
 * sign of that, or if something of a former boot is prepared long after this boot began,
 * resolution of all former boots is suspended until a human says who this is:
 * dtx.adopt_identity(), or dtx.change_identity().  The current boot goes on meanwhile, new
 * transactions included: its gids are not those of any other server.
 *
 * The table is a materialized view, for the reasons that decision.c gives: nothing of it is
 * replicated, so that a logical replica does not take another server's boots for its own.
 *
 * What reads or writes the table is called in a transaction, and throws what reading
 * and writing do.  What asks a DtxBoots looks nothing up and does not throw.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/history.h"
#include "base/settings.h"
#include "base/wakeup.h"
#include "catalog/pg_type.h"
#include "common/controldata_utils.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "state/boot.h"
#include "state/copies.h"
#include "state/tables.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lockdefs.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

/* How often a backend looks whether its boot has been recorded, milliseconds. */
#define RECORD_POLL_MS	10

/* dtx_internal.boot */
enum
{
	Anum_boot_boot_id = 1,
	Anum_boot_ordinal,
	Anum_boot_started_at,
	Anum_boot_floor_xid,
	Anum_boot_next_xid,
	Anum_boot_proven_xid,
	Anum_boot_timeline,
	Anum_boot_system_id,
	Anum_boot_machine,
	Anum_boot_control_file,
	Anum_boot_recovery_id,
	Anum_boot_suspended,
	Anum_boot_ended_at,
	Anum_boot_ended_by,
	Anum_boot_ended_as,
	Anum_boot_reason,
	Natts_boot = Anum_boot_reason
};

/* Constant after init, but for first_xid: no lock. */
typedef struct IdentityShared
{
	uint64		boot_id;		/* random */
	TimestampTz started_at;
	DtxMoment	started;		/* the same, by a clock that nobody sets */
	uint64		floor_xid;		/* next full xid of the last checkpoint before */
	pg_atomic_uint64 first_xid; /* the first one that this boot could assign,
								 * or a higher one; 0: not known yet */
	uint64		recovery_id;	/* content of RECOVERY_FILE, 0 if there is
								 * none */
} IdentityShared;

static const DtxColumn boot_columns[] = {
	{"boot_id", INT8OID},
	{"ordinal", INT4OID},
	{"started_at", TIMESTAMPTZOID},
	{"floor_xid", XID8OID},
	{"next_xid", XID8OID},
	{"proven_xid", XID8OID},
	{"timeline", INT8OID},
	{"system_id", INT8OID},
	{"machine", TEXTOID},
	{"control_file", INT8OID},
	{"recovery_id", INT8OID},
	{"suspended", TEXTOID},
	{"ended_at", TIMESTAMPTZOID},
	{"ended_by", NAMEOID},
	{"ended_as", TEXTOID},
	{"reason", TEXTOID}
};
static DtxTable boot_table = {
	.name = "boot",
	.columns = boot_columns,
	.ncolumns = lengthof(boot_columns),
	.below_executor = true
};

static IdentityShared *shared = NULL;

/* The dtx_internal.boot that is known to have the row of the current boot. */
static Oid	recorded_in = InvalidOid;

static const char *why_suspend(const DtxBoot *last, const DtxBoot *now);
static void update_boot(const Datum *values, const bool *nulls,
						const bool *replaces);
static bool find_boot(Relation rel, TupleTableSlot *slot, uint64 boot_id);
static int	by_ordinal(const void *a, const void *b);

/* Bytes of shared memory that this module needs. */
Size
DtxIdentityShmemSize(void)
{
	return MAXALIGN(sizeof(IdentityShared));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.  By the
 * postmaster, before recovery begins: pg_control and the signal files are as the
 * start found them.  Throws, so that the server does not start, if the recovery
 * from a backup cannot be noted.
 */
void
DtxIdentityShmemInit(void)
{
	bool		found;
	bool		crc_ok;
	ControlFileData *control;

	shared = ShmemInitStruct("pg_dtx identity", DtxIdentityShmemSize(), &found);
	if (found)
		return;

	shared->boot_id = DtxRandomId();
	shared->started_at = GetCurrentTimestamp();
	shared->started = DtxNow();
	pg_atomic_init_u64(&shared->first_xid, 0);
	control = get_controlfile(DataDir, &crc_ok);
	shared->floor_xid = crc_ok ?
		U64FromFullTransactionId(control->checkPointCopy.nextXid) : 0;
	pfree(control);
	shared->recovery_id = DtxCopiesNoteRecovery();
}

/*
 * The identity of this life of shared memory.
 */
uint64
DtxBootId(void)
{
	return shared->boot_id;
}

/*
 * Why must former boots not be judged, as far as can be told from the row of the
 * last one?  NULL: they may.
 */
static const char *
why_suspend(const DtxBoot *last, const DtxBoot *now)
{
	if (now->recovery_id != last->recovery_id)
		return "the server was recovered from a backup or to a recovery target";
	if (now->system_id != last->system_id)
		return "the system identifier of the cluster has changed";
	if (now->timeline < last->timeline)
		return "the timeline of the cluster is an earlier one than before";
	if (now->timeline > last->timeline)
		return NULL;			/* promoted */
	if (now->machine != NULL && last->machine != NULL &&
		strcmp(now->machine, last->machine) != 0)
		return "the server runs on another machine than before";
	if (now->control_file != last->control_file)
		return "the data directory is a copy of the one that was used before";
	return NULL;
}

/*
 * Record the current boot in dtx_internal.boot, unless it is there already.  In a
 * transaction, by the resolver, which commits it, or by CREATE EXTENSION.  Throws
 * like any write.
 */
void
DtxBootRecord(void)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	Relation	rel;
	HeapTuple	tuple;
	DtxBoots   *boots;
	DtxBoot		now;
	const char *why;

	if (!OidIsValid(DtxTableOid(&boot_table)))
		DtxThrowNotInstalled();
	if (recorded_in == DtxTableOid(&boot_table))
		return;

	LockRelationOid(DtxTableOid(&boot_table), ShareRowExclusiveLock);
	boots = DtxBootsRead(NULL);
	if (boots->current >= 0)
	{
		recorded_in = DtxTableOid(&boot_table);
		return;
	}

	memset(&now, 0, sizeof(now));
	now.boot_id = shared->boot_id;
	now.ordinal = boots->nboots > 0 ?
		boots->boots[boots->nboots - 1].ordinal + 1 : 1;
	now.started_at = shared->started_at;
	now.next_xid = pg_atomic_read_u64(&shared->first_xid);
	if (now.next_xid == 0)
		now.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	now.floor_xid = Min(shared->floor_xid, now.next_xid);
	now.timeline = GetWALInsertionTimeLine();
	now.system_id = GetSystemIdentifier();
	now.machine = DtxCopiesMachineId();
	now.control_file = DtxCopiesControlFile();
	now.recovery_id = shared->recovery_id;
	why = boots->nboots > 0 ?
		why_suspend(&boots->boots[boots->nboots - 1], &now) : NULL;

#define VALUE(attnum)	(values[(attnum) - 1])
#define ISNULL(attnum)	(nulls[(attnum) - 1])
	VALUE(Anum_boot_boot_id) = Int64GetDatum((int64) now.boot_id);
	VALUE(Anum_boot_ordinal) = Int32GetDatum(now.ordinal);
	VALUE(Anum_boot_started_at) = TimestampTzGetDatum(now.started_at);
	VALUE(Anum_boot_floor_xid) = FullTransactionIdGetDatum(FullTransactionIdFromU64(now.floor_xid));
	VALUE(Anum_boot_next_xid) = FullTransactionIdGetDatum(FullTransactionIdFromU64(now.next_xid));
	VALUE(Anum_boot_proven_xid) = VALUE(Anum_boot_next_xid);
	VALUE(Anum_boot_timeline) = Int64GetDatum((int64) now.timeline);
	VALUE(Anum_boot_system_id) = Int64GetDatum((int64) now.system_id);
	if (now.machine != NULL)
		VALUE(Anum_boot_machine) = CStringGetTextDatum(now.machine);
	ISNULL(Anum_boot_machine) = now.machine == NULL;
	VALUE(Anum_boot_control_file) = Int64GetDatum((int64) now.control_file);
	VALUE(Anum_boot_recovery_id) = Int64GetDatum((int64) now.recovery_id);
	if (why != NULL)
		VALUE(Anum_boot_suspended) = CStringGetTextDatum(why);
	ISNULL(Anum_boot_suspended) = why == NULL;
	ISNULL(Anum_boot_ended_at) = ISNULL(Anum_boot_ended_by) = true;
	ISNULL(Anum_boot_ended_as) = ISNULL(Anum_boot_reason) = true;
#undef VALUE
#undef ISNULL

	rel = DtxTableOpenExisting(&boot_table, RowExclusiveLock);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	PushActiveSnapshot(GetLatestSnapshot());
	simple_heap_insert(rel, tuple);
	PopActiveSnapshot();
	heap_freetuple(tuple);
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();

	/* What the row makes possible is remote, and is not undone with the row. */
	ForceSyncCommit();

	if (why != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("resolution of earlier transactions is suspended"),
				 errdetail("It seems that %s. Another server may be alive that is this database, too, or this one may have forgotten what it has decided.",
						   why),
				 errhint("Call dtx.adopt_identity() if this is the only one, or dtx.change_identity() if it is a copy.")));
}

/*
 * Note the first transaction id that this boot can have assigned.  To be called by the
 * launcher when it begins, soon after the end of recovery: what is taken for the
 * first one must not be lower than it is, and the less it is higher, the more of what
 * a crash has left can be judged (DtxBootsXidOrigin).  Other databases, and users,
 * assign some before a resolver records the boot.
 *
 * The exact one is in pg_control: a start after a shutdown or a crash begins with a
 * checkpoint of the kind that nothing is written beside (access/transam/xlog.c,
 * CreateCheckPoint: redo pointer and record are the same then).  After a promotion
 * there is none on the new timeline yet.
 */
void
DtxBootBegin(void)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		unknown = 0;
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok && control->checkPoint == control->checkPointCopy.redo &&
		control->checkPointCopy.ThisTimeLineID == GetWALInsertionTimeLine())
		next = Min(next, U64FromFullTransactionId(control->checkPointCopy.nextXid));
	pfree(control);

	/* A launcher that was started again comes too late. */
	(void) pg_atomic_compare_exchange_u64(&shared->first_xid, &unknown, next);
}

/*
 * Raise proven_xid of the current boot, if transaction ids were assigned since it was
 * last raised.  In a transaction of the resolver, once in each pass.
 *
 * The commit of the change is flushed, and has a higher id than the value that it
 * writes: so the WAL goes on after that, and no later boot can assign a lower one.
 *
 * Throws like any write.
 */
void
DtxBootProve(void)
{
	static uint64 proven = 0;
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};

	/* (one of them is that of the last change) */
	if (proven == 0)
		proven = next;
	if (next <= proven + 1)
		return;
	values[Anum_boot_proven_xid - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(next));
	replaces[Anum_boot_proven_xid - 1] = true;
	update_boot(values, nulls, replaces);
	ForceSyncCommit();
	proven = next;
}

/*
 * Make sure that the current boot is recorded, before a gid of it is made.  By a
 * backend, in a transaction.  The resolver writes the row when it starts; if it
 * has not yet, wait for that, for pg_dtx.prepare_timeout at most.  Throws on
 * interrupts and when the time is over.
 */
void
DtxBootRequire(uint32 wait_event)
{
	DtxMoment	deadline;

	if (recorded_in == DtxTableOid(&boot_table) && OidIsValid(recorded_in))
		return;
	deadline = DtxIn(dtx_prepare_timeout);
	for (;;)
	{
		DtxBoots   *boots;

		if (!OidIsValid(DtxTableOid(&boot_table)))
			DtxThrowNotInstalled();
		boots = DtxBootsRead(NULL);
		if (boots->current >= 0)
		{
			recorded_in = DtxTableOid(&boot_table);
			return;
		}
		DtxWakeupResolver(MyDatabaseId);
		if (!IsUnderPostmaster || DtxIsDue(deadline))
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("this server has not been recorded in \"%s\" yet",
							"dtx_internal.boot"),
					 errdetail("The resolver of the database does that when it starts; without it, transactions on several servers cannot be prepared."),
					 !IsUnderPostmaster ?
					 errhint("In single-user mode there is none: call dtx_internal.record_boot() in a transaction of its own.") :
					 errhint("Try again. If it persists, look for the reason in the server log, and increase \"max_worker_processes\".")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RECORD_POLL_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Suspend the resolution of former boots, unless it is: another instance of this
 * database has shown itself.  In a transaction of the resolver.  Throws like any write.
 */
void
DtxBootSuspend(const char *why)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};

	if (DtxBootsSuspended(DtxBootsRead(NULL)))
		return;
	values[Anum_boot_suspended - 1] = CStringGetTextDatum(why);
	replaces[Anum_boot_suspended - 1] = true;
	for (int i = Anum_boot_ended_at; i <= Anum_boot_reason; i++)
		nulls[i - 1] = replaces[i - 1] = true;
	update_boot(values, nulls, replaces);
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("resolution of earlier transactions is suspended"),
			 errdetail("It seems that %s.", why),
			 errhint("Call dtx.adopt_identity() if this is the only server with this database, after the other one was stopped for good, or dtx.change_identity() if it is a copy.")));
}

/*
 * A user has said what this server is, "as", and why: former boots may be judged again.
 * In a transaction, under the lock that DtxBootRecord() takes.  Throws like any write.
 */
void
DtxBootEndSuspension(const char *as, const char *by_user, const char *reason)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};
	NameData	name;

	namestrcpy(&name, by_user);
	values[Anum_boot_ended_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_boot_ended_by - 1] = NameGetDatum(&name);
	values[Anum_boot_ended_as - 1] = CStringGetTextDatum(as);
	values[Anum_boot_reason - 1] = CStringGetTextDatum(reason);
	for (int i = Anum_boot_ended_at; i <= Anum_boot_reason; i++)
		replaces[i - 1] = true;
	update_boot(values, nulls, replaces);
}

/*
 * Forget all boots but the current one.  In a transaction.  Throws like any write.
 */
void
DtxBootDeleteFormer(const DtxBoots *boots)
{
	Relation	rel = DtxTableOpenExisting(&boot_table, ShareRowExclusiveLock);
	TupleTableSlot *slot;

	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	for (int i = 0; i < boots->nboots; i++)
	{
		if (i != boots->current &&
			find_boot(rel, slot, boots->boots[i].boot_id))
			simple_heap_delete(rel, &slot->tts_tid);
	}
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();
}

/*
 * Change these columns of the row of the current boot.  In a transaction.  Throws
 * like any write.
 */
static void
update_boot(const Datum *values, const bool *nulls, const bool *replaces)
{
	Relation	rel = DtxTableOpenExisting(&boot_table, ShareRowExclusiveLock);
	TupleTableSlot *slot;
	HeapTuple	old;
	HeapTuple	tuple;
	bool		shouldfree;

	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	if (!find_boot(rel, slot, shared->boot_id))
		elog(ERROR, "dtx_internal.boot has no row of the current boot");
	old = ExecFetchSlotHeapTuple(slot, true, &shouldfree);
	tuple = heap_modify_tuple(old, RelationGetDescr(rel),
							  unconstify(Datum *, values),
							  unconstify(bool *, nulls),
							  unconstify(bool *, replaces));
	DtxHeapUpdate(rel, &slot->tts_tid, tuple);
	if (shouldfree)
		heap_freetuple(old);
	heap_freetuple(tuple);
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();
}

/*
 * Have the slot be the row of that boot, as the active snapshot sees it.  Returns
 * false if there is none.
 */
static bool
find_boot(Relation rel, TupleTableSlot *slot, uint64 boot_id)
{
	TableScanDesc scan = DtxTableBeginScan(rel, GetActiveSnapshot());
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found = (uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_boot_id,
													&isnull)) == boot_id;
	}
	if (found)
		ExecMaterializeSlot(slot);
	table_endscan(scan);
	return found;
}

static int
by_ordinal(const void *a, const void *b)
{
	int			x = ((const DtxBoot *) a)->ordinal;
	int			y = ((const DtxBoot *) b)->ordinal;

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * All boots that "snapshot" sees (NULL: a new one), in the current memory
 * context; none if the extension is not installed.  In a transaction.
 */
DtxBoots *
DtxBootsRead(Snapshot snapshot)
{
	DtxBoots   *result = palloc0(sizeof(DtxBoots));
	Relation	rel = DtxTableOpen(&boot_table, AccessShareLock);
	bool		own = snapshot == NULL;
	int			room = 16;
	TableScanDesc scan;
	TupleTableSlot *slot;

	result->current = -1;
	if (rel == NULL)
		return result;
	if (own)
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	result->boots = palloc(sizeof(DtxBoot) * room);
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		DtxBoot    *boot;

		if (result->nboots == room)
		{
			room *= 2;
			result->boots = repalloc(result->boots, sizeof(DtxBoot) * room);
		}
		boot = &result->boots[result->nboots++];
		slot_getallattrs(slot);
#define VALUE(attnum)	(slot->tts_values[(attnum) - 1])
#define ISNULL(attnum)	(slot->tts_isnull[(attnum) - 1])
		boot->boot_id = (uint64) DatumGetInt64(VALUE(Anum_boot_boot_id));
		boot->ordinal = DatumGetInt32(VALUE(Anum_boot_ordinal));
		boot->started_at = DatumGetTimestampTz(VALUE(Anum_boot_started_at));
		boot->floor_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_floor_xid)));
		boot->next_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_next_xid)));
		boot->proven_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_proven_xid)));
		boot->timeline = (uint32) DatumGetInt64(VALUE(Anum_boot_timeline));
		boot->system_id = (uint64) DatumGetInt64(VALUE(Anum_boot_system_id));
		boot->machine = ISNULL(Anum_boot_machine) ? NULL :
			TextDatumGetCString(VALUE(Anum_boot_machine));
		boot->control_file = (uint64) DatumGetInt64(VALUE(Anum_boot_control_file));
		boot->recovery_id = (uint64) DatumGetInt64(VALUE(Anum_boot_recovery_id));
		boot->suspended = ISNULL(Anum_boot_suspended) ? NULL :
			TextDatumGetCString(VALUE(Anum_boot_suspended));
		boot->ended_at = ISNULL(Anum_boot_ended_at) ? 0 :
			DatumGetTimestampTz(VALUE(Anum_boot_ended_at));
#undef VALUE
#undef ISNULL
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	if (own)
		UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	qsort(result->boots, result->nboots, sizeof(DtxBoot), by_ordinal);
	for (int i = 0; i < result->nboots; i++)
	{
		if (result->boots[i].boot_id == shared->boot_id)
			result->current = i;
	}
	return result;
}

/*
 * Are former boots not to be judged now?  Nor as long as the current boot has not
 * been recorded, because only then it is known.
 */
bool
DtxBootsSuspended(const DtxBoots *boots)
{
	const DtxBoot *now;

	if (boots->current < 0)
		return true;
	now = &boots->boots[boots->current];
	return now->suspended != NULL && now->ended_at == 0;
}

/*
 * What is known of a boot?
 */
DtxHistory
DtxBootsHistory(const DtxBoots *boots, uint64 boot_id)
{
	DtxHistory	history = DTX_HISTORY_UNKNOWN;

	if (boot_id == shared->boot_id)
		return DTX_HISTORY_CURRENT;
	for (int i = 0; i < boots->nboots; i++)
	{
		const DtxBoot *boot = &boots->boots[i];

		if (boot->boot_id == boot_id)
			history = DTX_HISTORY_CONTINUED;
		else if (history == DTX_HISTORY_CONTINUED && boot->suspended != NULL)
			history = DTX_HISTORY_BROKEN;
	}
	return history;
}

/*
 * Which boots can have assigned the transaction id of a gid of "boot_id"?
 * "next_xid" was the next one of this server before the gid was seen.
 */
DtxXidOrigin
DtxBootsXidOrigin(const DtxBoots *boots, uint64 boot_id, uint64 xid,
				  uint64 next_xid)
{
	int			i = 0;

	if (boot_id == shared->boot_id)
		return xid < next_xid && xid >= shared->floor_xid ?
			DTX_XID_OF_BOOT : DTX_XID_FUTURE;

	while (i < boots->nboots && boots->boots[i].boot_id != boot_id)
		i++;
	if (i == boots->nboots || xid < boots->boots[i].floor_xid)
		return DTX_XID_FUTURE;

	if (xid < boots->boots[i].proven_xid)
		return DTX_XID_OF_BOOT;

	/*
	 * What follows the last one in the WAL was assigned once more by the next
	 * boot, be it on record or not.  The one on record had not assigned
	 * "next_xid".
	 */
	if (i + 1 == boots->nboots)
		return xid < next_xid ? DTX_XID_OF_LATER_BOOT : DTX_XID_UNWRITTEN;
	return xid >= boots->boots[i + 1].next_xid ?
		DTX_XID_UNWRITTEN : DTX_XID_OF_LATER_BOOT;
}

/*
 * For how long, in milliseconds, should nothing of a former boot have been prepared?
 */
int64
DtxFormerBootsEndedFor(const DtxBoots *boots)
{
	int64		result = DtxNow() - shared->started;

	if (boots->current >= 0 && boots->boots[boots->current].ended_at != 0)
		result = Min(result, (GetCurrentTimestamp() -
							  boots->boots[boots->current].ended_at) / 1000);
	return result;
}
