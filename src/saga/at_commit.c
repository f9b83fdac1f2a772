/*-------------------------------------------------------------------------
 *
 * at_commit.c
 *		What a transaction asks for and gets when it has committed: wake the scheduler, wake
 *		those who wait for a saga, stop an execution.
 *
 * Wake-ups are given when the transaction has committed on all servers: in a
 * resource-release callback, which runs after the one of coordinator.c that waits for
 * the second phase (callbacks run newest first, and ours is registered when the server
 * starts).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/announce.h"
#include "saga/at_commit.h"
#include "saga/claims.h"
#include "saga/wait.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "worker/wake.h"

/* This backend: for the end of the transaction. */
static bool wake_asked = false; /* wake the scheduler of the database? */
static uint64 finished_asked = 0;	/* partitions of sagas that end, a bit
									 * each */
static bool committed = false;	/* is the transaction past its local commit? */
static DtxSagaStopRequest *stop_requests = NULL;	/* in
													 * TopTransactionContext */

static void saga_xact_callback(XactEvent event, void *arg);
static void saga_subxact_callback(SubXactEvent event, SubTransactionId mySubid,
								  SubTransactionId parentSubid, void *arg);
static void saga_resource_callback(ResourceReleasePhase release_phase,
								   bool isCommit, bool isTopLevel, void *arg);
static void give_wakeups(void);

/*
 * Install the callbacks.  From _PG_init() in the postmaster only; backends
 * inherit them.
 */
void
DtxSagaInstallHooks(void)
{
	RegisterXactCallback(saga_xact_callback, NULL);
	RegisterSubXactCallback(saga_subxact_callback, NULL);
	RegisterResourceReleaseCallback(saga_resource_callback, NULL);
}

static void
saga_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			DtxClaimsAtCommit();
			committed = wake_asked || finished_asked != 0 ||
				stop_requests != NULL;
			break;
		case XACT_EVENT_ABORT:
			DtxClaimsAtAbort();
			DtxSagaDropAnnouncements();
			wake_asked = false;
			finished_asked = 0;
			stop_requests = NULL;
			committed = false;
			break;
		case XACT_EVENT_PREPARE:

			/*
			 * The session that commits it does not know what is in it.  Those
			 * who wait for a saga look from time to time.
			 */
			if (wake_asked || stop_requests != NULL)
				DtxLauncherSagasPrepared();
			if (stop_requests != NULL)
				DtxSagaStopExecutions(stop_requests, GetTopTransactionIdIfAny());
			wake_asked = false;
			finished_asked = 0;
			stop_requests = NULL;
			break;
		default:
			break;
	}
}

/*
 * What a subtransaction has asked for goes with it, or is its parent's.
 */
static void
saga_subxact_callback(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	DtxSagaStopRequest **link = &stop_requests;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (*link != NULL)
	{
		DtxSagaStopRequest *request = *link;

		if (request->subid == mySubid && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = request->next;
			continue;
		}
		if (request->subid == mySubid)
			request->subid = parentSubid;
		link = &request->next;
	}
}

static void
saga_resource_callback(ResourceReleasePhase release_phase, bool isCommit,
					   bool isTopLevel, void *arg)
{
	if (committed && isTopLevel &&
		release_phase == RESOURCE_RELEASE_AFTER_LOCKS)
	{
		committed = false;
		give_wakeups();
	}
}

static void
give_wakeups(void)
{
	if (stop_requests != NULL)
	{
		DtxSagaStopExecutions(stop_requests, InvalidTransactionId);
		stop_requests = NULL;
	}
	if (wake_asked)
	{
		wake_asked = false;
		DtxLauncherWakeSagas(MyDatabaseId);
	}
	if (finished_asked != 0)
	{
		DtxSagaWakeWaiters(finished_asked);
		finished_asked = 0;
	}
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_stop);

/*
 * dtx_internal.saga_stop(saga, step, attempt, compensation): if this transaction commits,
 * who executes that is to stop.
 */
Datum
dtx_sql_saga_stop(PG_FUNCTION_ARGS)
{
	DtxSagaStopRequest *request;

	request = MemoryContextAllocZero(TopTransactionContext, sizeof(DtxSagaStopRequest));
	request->subid = GetCurrentSubTransactionId();
	request->saga = PG_GETARG_INT64(0);
	request->step = PG_GETARG_INT16(1);
	request->attempt = PG_GETARG_INT32(2);
	request->compensation = PG_GETARG_BOOL(3);
	request->next = stop_requests;
	stop_requests = request;
	PG_RETURN_VOID();
}

/*
 * If the current transaction commits, the scheduler of the database is to look.
 */
void
DtxSagaWakeAtCommit(void)
{
	wake_asked = true;
}

PG_FUNCTION_INFO_V1(dtx_sql_wake_sagas);

/*
 * dtx_internal.wake_sagas(): if the transaction commits, the scheduler is to look.
 */
Datum
dtx_sql_wake_sagas(PG_FUNCTION_ARGS)
{
	DtxSagaWakeAtCommit();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_finished);

/*
 * dtx_internal.saga_finished(saga): if the transaction commits, those who wait for it
 * are to look.
 */
Datum
dtx_sql_saga_finished(PG_FUNCTION_ARGS)
{
	uint64		saga = (uint64) PG_GETARG_INT64(0);

	finished_asked |= UINT64CONST(1) << (saga % DTX_SAGA_WAIT_PARTITIONS);
	PG_RETURN_VOID();
}
