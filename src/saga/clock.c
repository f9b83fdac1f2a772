/*-------------------------------------------------------------------------
 *
 * clock.c
 *		The wall clock, by which times are in tables, was set.
 *
 * Tables have times by the wall clock, because they outlive the server.  The scheduler of a
 * database notices that it was set, and what is a duration moves with it: leases, pauses
 * before the next attempt, outages.  Until it has done so, no other process takes a lease
 * for over.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "saga/clock.h"
#include "saga/saga_tables.h"
#include "storage/lwlock.h"
#include "utils/array.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "worker/self.h"
#include "worker/slots.h"

/* By how much the wall clock may be wrong, ms. */
#define CLOCK_TOLERANCE	1000

static bool
is_off(int64 by)
{
	return by >= CLOCK_TOLERANCE || by <= -CLOCK_TOLERANCE;
}

/*
 * In the scheduler: times in tables are right if DtxWallOffset() is this.
 */
void
DtxSagaClockRight(DtxScheduler *s, int64 offset)
{
	s->wall_offset = offset;
	DtxWorkerSetWallOffset(offset);
}

/*
 * Are there times to move?
 */
bool
DtxSagaClockWasSet(DtxScheduler *s)
{
	return is_off(DtxWallOffset() - s->wall_offset);
}

/*
 * If the wall clock was set, move with it what is a duration, in a transaction of its own.
 * Sagas that others have locked follow later; if the clock is set once more before that,
 * they do not.  May throw; then it is done the next time.
 */
void
DtxSagaClockFollow(DtxScheduler *s)
{
	static const Oid types[] = {INT8OID, INT8ARRAYOID};
	int64		offset = s->wall_offset;
	int64		by = s->clock_by;
	ArrayType  *only = s->clock_left;
	ArrayType  *left = NULL;
	bool		argnulls[lengthof(types)] = {false, false};
	Datum		args[lengthof(types)];
	bool		isnull;

	if (DtxSagaClockWasSet(s))
	{
		offset = DtxWallOffset();
		by = offset - s->wall_offset;
		only = NULL;
	}
	else if (only == NULL)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (DtxSagaInstalled())
	{
		Datum		result;

		args[0] = Int64GetDatum(by);
		args[1] = PointerGetDatum(only);
		argnulls[1] = only == NULL;
		result = DtxSagaCall("saga_clock_set", lengthof(types), types, args, argnulls,
							 &isnull);
		if (!isnull)
		{
			MemoryContext old = MemoryContextSwitchTo(s->cxt);

			left = DatumGetArrayTypePCopy(result);
			MemoryContextSwitchTo(old);
		}
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (s->clock_left != NULL)
		pfree(s->clock_left);
	s->clock_left = left;
	s->clock_by = by;
	if (offset != s->wall_offset)
		ereport(LOG,
				(errmsg("the wall clock was set by " INT64_FORMAT " s", by / 1000),
				 errdetail("Leases and pauses of sagas have moved with it; deadlines, sleeps and schedules have not.")));
	DtxSagaClockRight(s, offset);
	MemoryContextSwitchTo(s->round_cxt);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_clock_right);

/*
 * dtx_internal.saga_clock_right(): are times in the tables of this database right, as far as
 * is known?
 */
Datum
dtx_sql_saga_clock_right(PG_FUNCTION_ARGS)
{
	DtxWorkerSlot *slot;
	int64		offset = 0;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	slot = DtxSlotFind(DTX_WORKER_SCHEDULER, MyDatabaseId, DTX_SLOT_RUNNING,
					   DTX_SLOT_RUNNING);
	if (slot != NULL)
		offset = slot->wall_offset;
	LWLockRelease(&DtxWorkers->lock);
	PG_RETURN_BOOL(offset == 0 || !is_off(DtxWallOffset() - offset));
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_moment);

/*
 * dtx_internal.saga_moment(): now, as a DtxMoment.
 */
Datum
dtx_sql_saga_moment(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(DtxNow());
}
