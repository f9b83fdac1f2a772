/*-------------------------------------------------------------------------
 *
 * step_worker.c
 *		The worker that executes steps of sagas: one process, connected as the role whose sagas
 *		these are, so that a step has the rights, the user mappings and the settings of that
 *		role, and cannot get others.  The functions of the extension are called with the rights
 *		of their owner.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "saga/announce.h"
#include "saga/claims.h"
#include "saga/execute.h"
#include "saga/saga_tables.h"
#include "saga/session.h"
#include "saga/step.h"
#include "saga/step_worker.h"
#include "saga/stop.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "worker/self.h"
#include "worker/slots.h"
#include "worker/startup.h"

/* How long a worker stays without anything to do, ms. */
#define WORKER_LINGER	10000

/* ... and of one that notifies those who listen. */
#define NOTIFY_LOCK_TIMEOUT	"200ms"

/* Worker: errors in a row that were none of a step's. */
static DtxBackoff errors;

/* Worker: has it said that it has nothing to do? */
static bool idle = false;

static bool worker_round(MemoryContext cxt, bool careful, bool *gone);
static void announce(void);

/*
 * Main program of a worker for database "arg".
 */
void
dtx_saga_worker_main(Datum arg)
{
	MemoryContext cxt;
	volatile bool worked = false;
	volatile bool paused = false;
	volatile bool fruitful = false;
	volatile bool leave = false;
	volatile DtxMoment idle_since = 0;

	DtxSagaStartProcess(DTX_WORKER_SAGA, DatumGetObjectId(arg), "pg_dtx saga worker");

	/* Steps that update the same rows wait for each other, unless asked otherwise. */
	SetConfigOption("pg_dtx.remote_isolation", "read committed", PGC_USERSET,
					PGC_S_DYNAMIC_DEFAULT);

	/* Atomicity is not for a step's SQL to switch off. */
	DtxRequireTwoPhaseCommit();
	DtxStepWaitEvent = DtxWaitEvent("DtxSagaWorkerMain");
	DtxSagaStopInit();
	cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga worker",
								ALLOCSET_DEFAULT_SIZES);
	DtxStepsContext = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga steps",
											ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			CHECK_FOR_INTERRUPTS();
			(void) DtxWorkerReloadConfig();

			/*
			 * After an error nothing is done for a while, even if we are
			 * woken.
			 */
			paused = !DtxIsDue(errors.next);
			if (paused)
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
								 WL_EXIT_ON_PM_DEATH,
								 Max(DtxUntil(errors.next), 1), DtxStepWaitEvent);
			else
			{
				bool		gone = false;

				(void) DtxWorkerTakeWork();
				MemoryContextReset(cxt);
				MemoryContextSwitchTo(cxt);
				MemoryContextReset(DtxStepsContext);
				worked = worker_round(cxt, errors.failures > 0, &gone);
				leave = gone;
				DtxBackoffReset(&errors);
			}
		}
		PG_CATCH();
		{
			/*
			 * What went wrong is none of a step's.  If it was executing one,
			 * that is found as one that nobody executes.
			 */
			EmitErrorReport();
			FlushErrorState();
			DtxSagaRecoverFromError();
			DtxSagaDropClaims();
			DtxSagaSessionUsed = true;
			DtxBackoffFailed(&errors, DTX_SAGA_ERROR_PAUSE_MIN, DTX_SAGA_ERROR_PAUSE_MAX);
			paused = true;
			worked = false;
		}
		PG_END_TRY();

		if (paused)
			continue;
		if (worked)
			fruitful = true;
		else
		{
			if (!idle)
			{
				pgstat_report_stat(true);
				DtxWorkerSetIdle(true, fruitful);
				idle = true;
				fruitful = false;
				idle_since = DtxNow();
			}
			if (leave || DtxIsDue(idle_since + WORKER_LINGER))
			{
				DtxWorkerNotNeeded();
				break;
			}
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
							 WL_EXIT_ON_PM_DEATH,
							 Max(DtxUntil(idle_since + WORKER_LINGER), 1),
							 DtxStepWaitEvent);
		}
	}
	proc_exit(0);
}

/*
 * Take steps and execute them, as long as one leads to the next.  Returns false
 * if there was nothing to do.  *gone says that there never will be.  After an
 * error one is careful: a saga that nobody can take must not stop all others.
 */
static bool
worker_round(MemoryContext cxt, bool careful, bool *gone)
{
	DtxStep    *step = NULL;
	bool		more = false;

	DtxSagaBegin();
	DtxSagaCleanSession();
	*gone = !DtxSagaInstalled() || !DtxSagaRoleMayLogIn(GetSessionUserId());
	if (!*gone)
		step = DtxStepTake(0, careful, &more);

	/* The attempt is counted, whatever becomes of it. */
	if (step != NULL)
		ForceSyncCommit();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (step == NULL)
	{
		DtxSagaDropClaims();
		announce();
		return more;
	}
	DtxSagaKeepClaim(step->saga, step->step);
	if (idle)
	{
		DtxWorkerSetIdle(false, false);
		idle = false;
	}
	DTX_FAULT("saga-taken", NULL);

	while (step != NULL)
	{
		MemoryContextReset(cxt);
		MemoryContextSwitchTo(cxt);

		/* Before each step one may leave, or listen. */
		DtxSagaBeginExecution();
		if (ProcDiePending || ConfigReloadPending || DtxWorkerMustStop())
		{
			DtxSagaEndExecution();
			DtxStepGiveBack(step, NULL, -1);
			DtxStepFree(step);
			DtxSagaDropClaims();
			break;
		}
		step = DtxStepExecute(step);

		/* If it dies now, that was not because of its start. */
		DtxWorkerStarted();
	}
	return true;
}

/*
 * Tell those who listen that there is something in their queues.  They look every now
 * and then anyway, so an error is only worth a word, and nothing is waited for.
 */
static void
announce(void)
{
	static bool said = false;
	MemoryContext cxt = CurrentMemoryContext;

	if (!DtxSagaHasAnnouncements())
		return;
	PG_TRY();
	{
		DtxSagaBegin();
		(void) set_config_option("lock_timeout", NOTIFY_LOCK_TIMEOUT, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		DtxSagaAnnounce();
		PopActiveSnapshot();
		CommitTransactionCommand();
		said = false;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		DtxSagaRecoverFromError();
		if (!said)
			ereport(LOG,
					(errmsg("could not notify external workers of sagas: %s",
							edata->message),
					 errdetail("They find their work when they ask for it.")));
		said = true;
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
}
