/*-------------------------------------------------------------------------
 *
 * wait.c
 *		Waiting for the end of a saga: dtx.wait_saga().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "catalog/pg_collation.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "saga/wait.h"
#include "storage/condition_variable.h"
#include "storage/shmem.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"
#include "worker/self.h"

/* Longest sleep of a session that waits for a saga, milliseconds. */
#define MAX_WAIT_SLEEP	10000

/* ... of one that waits for work in a queue. */
#define MAX_WORK_SLEEP	1000

/* ... where nothing wakes it: on a standby. */
#define STANDBY_WAIT_SLEEP	1000

typedef struct WaitShared
{
	ConditionVariable finished[DTX_SAGA_WAIT_PARTITIONS];	/* sagas that have ended */
} WaitShared;

static WaitShared *waits = NULL;

/* Wait event, see DtxWaitEvent(). */
static uint32 we_wait_saga = 0;
static uint32 we_claim = 0;

/*
 * Bytes of shared memory that this module needs.
 */
Size
DtxSagaWaitShmemSize(void)
{
	return sizeof(WaitShared);
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxSagaWaitShmemInit(void)
{
	bool		found;

	waits = ShmemInitStruct("pg_dtx saga waits", DtxSagaWaitShmemSize(), &found);
	if (!found)
	{
		memset(waits, 0, DtxSagaWaitShmemSize());
		for (int i = 0; i < DTX_SAGA_WAIT_PARTITIONS; i++)
			ConditionVariableInit(&waits->finished[i]);
	}
}

/*
 * Those who wait for sagas of these partitions are to look.  Never throws.
 */
void
DtxSagaWakeWaiters(uint64 partitions)
{
	for (int i = 0; i < DTX_SAGA_WAIT_PARTITIONS; i++)
	{
		if (partitions & (UINT64CONST(1) << i))
			ConditionVariableBroadcast(&waits->finished[i]);
	}
}

PG_FUNCTION_INFO_V1(dtx_sql_wait_saga);

/*
 * dtx.wait_saga(saga, timeout): wait until a saga has ended, and return its
 * state; after the timeout, the state that it is in.
 */
Datum
dtx_sql_wait_saga(PG_FUNCTION_ARGS)
{
	uint64		saga;
	DtxMoment volatile deadline = DTX_NEVER;
	ConditionVariable *cv;
	DtxSagaCaller call;
	Datum		args[1];
	static const Oid types[1] = {INT8OID};
	MemoryContext look_cxt;
	MemoryContext old_cxt = CurrentMemoryContext;
	Datum volatile state = (Datum) 0;
	bool volatile isnull = true;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	saga = (uint64) PG_GETARG_INT64(0);
	args[0] = PG_GETARG_DATUM(0);

	/* It might be its own saga, or one that needs the worker that waits. */
	if (DtxWorkerExecutesSagas())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for a saga in a step of a saga"),
				 errdetail("There might be no worker left to execute what is waited for."),
				 errhint("Use dtx.step_signal(), and let the last step of the other saga call dtx.signal_saga().")));
	if (!PG_ARGISNULL(1))
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz end;

		end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													  TimestampTzGetDatum(now),
													  PG_GETARG_DATUM(1)));
		deadline = end == DT_NOEND ? DTX_NEVER :
			end <= now ? DtxNow() : DtxIn((end - now) / 1000);
	}
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a saga in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("The transaction would never see the saga end."),
				 errhint("Use READ COMMITTED.")));
	if (we_wait_saga == 0)
		we_wait_saga = DtxWaitEvent("DtxWaitSaga");
	cv = &waits->finished[saga % DTX_SAGA_WAIT_PARTITIONS];
	look_cxt = AllocSetContextCreate(CurrentMemoryContext, "pg_dtx wait_saga",
									 ALLOCSET_SMALL_SIZES);

	call.caller = GetUserId();
	call.previous = DtxSagaCallers;
	DtxSagaCallers = &call;
	PG_TRY();
	{
		ConditionVariablePrepareToSleep(cv);
		for (;;)
		{
			long		timeout;
			bool		null;
			const char *label;

			MemoryContextReset(look_cxt);
			MemoryContextSwitchTo(look_cxt);
			state = DtxSagaCall("saga_look", 1, types, args, NULL, &null);
			isnull = null;
			if (null)
				break;
			label = DatumGetCString(DirectFunctionCall1(enum_out, state));
			if (strcmp(label, "completed") == 0 ||
				strcmp(label, "compensated") == 0 ||
				strcmp(label, "failed") == 0)
				break;

			timeout = RecoveryInProgress() ? STANDBY_WAIT_SLEEP : MAX_WAIT_SLEEP;
			if (deadline != DTX_NEVER)
			{
				long		left = DtxUntil(deadline);

				if (left <= 0)
					break;
				timeout = Min(timeout, left);
			}
			(void) ConditionVariableTimedSleep(cv, timeout, we_wait_saga);
		}
		ConditionVariableCancelSleep();
		MemoryContextSwitchTo(old_cxt);
		MemoryContextDelete(look_cxt);
	}
	PG_FINALLY();
	{
		DtxSagaCallers = call.previous;
	}
	PG_END_TRY();

	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(state);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_wait_work);

/*
 * dtx_internal.saga_wait_work(queue, ms): sleep until something was put into that queue, not
 * longer than that, nor than a second: it may have been put there right before,
 * and some of it becomes available with time.
 */
Datum
dtx_sql_saga_wait_work(PG_FUNCTION_ARGS)
{
	Datum		hash = DirectFunctionCall1Coll(hashtext, DEFAULT_COLLATION_OID,
										   PG_GETARG_DATUM(0));
	uint64		key = (uint64) (int64) DatumGetInt32(hash);
	int			ms = PG_GETARG_INT32(1);
	ConditionVariable *cv = &waits->finished[key % DTX_SAGA_WAIT_PARTITIONS];

	if (we_claim == 0)
		we_claim = DtxWaitEvent("DtxClaimStep");
	if (ms > 0)
	{
		ConditionVariablePrepareToSleep(cv);
		(void) ConditionVariableTimedSleep(cv, Min(ms, MAX_WORK_SLEEP), we_claim);
		ConditionVariableCancelSleep();
	}
	PG_RETURN_VOID();
}
