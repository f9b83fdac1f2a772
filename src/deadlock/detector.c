/*-------------------------------------------------------------------------
 *
 * detector.c
 *		The detector: the background worker of one database that finds deadlocks between
 *		servers.
 *
 * It is started when a session has waited for a server for deadlock_timeout, looks again
 * from time to time as long as one does, since the last wait of a circle may be one of
 * another process, and leaves when there has been none for a while.
 *
 * It waits for servers for a bounded time, and for nothing else.  If it fails, sessions
 * wait on, and it is started again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "deadlock/ask.h"
#include "deadlock/detector.h"
#include "deadlock/search.h"
#include "deadlock/waits_log.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "state/tables.h"
#include "state/waits.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "worker/self.h"
#include "worker/slots.h"
#include "worker/startup.h"

/* It stays for so long without anything to look at, and keeps connections, ms. */
#define LINGER_MS		60000
#define KEEP_MS			10000

/* Limits of the time between two looks, milliseconds ... */
#define LOOK_MIN_MS		20
#define LOOK_MAX_MS		2000

/* ... and it is no less than so many times the time that a look takes. */
#define LOOK_SHARE		10

/* Pauses after errors, milliseconds. */
#define RETRY_MIN_MS	1000
#define RETRY_MAX_MS	30000

/* Errors in a row. */
static DtxBackoff errors;

/* When a look took how long. */
static DtxMoment looked_at = 0;
static int64 look_took = 0;

static bool is_installed(void);
static long until_look(bool woken);

/*
 * Main program of the detector of database "arg".
 */
void
dtx_detector_main(Datum arg)
{
	Oid			dbid = DatumGetObjectId(arg);
	DtxAsk	   *volatile ask = NULL;
	MemoryContext look_cxt;
	uint32		we_idle;
	uint32		we_look;
	volatile DtxMoment needed_at;
	volatile bool leave = false;

	DtxWorkerBegin(die);
	if (!DtxWorkerAttach(DTX_WORKER_DETECTOR, dbid))
		proc_exit(0);
	DtxWorkerConnect(dbid, InvalidOid, 0, "pg_dtx deadlock detector");

	/* Catalogs are all that it needs: not to be part of what it looks for. */
	SetConfigOption("lock_timeout", "1s", PGC_USERSET, PGC_S_OVERRIDE);
	we_idle = DtxWaitEvent("DtxDetectorMain");
	we_look = DtxWaitEvent("DtxDetectorLook");
	look_cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx look at waits",
									 ALLOCSET_DEFAULT_SIZES);
	needed_at = DtxNow();

	while (!leave)
	{
		CurrentResourceOwner = NULL;
		MemoryContextSwitchTo(TopMemoryContext);
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			long		timeout;
			bool		woken;
			bool		needed;

			CHECK_FOR_INTERRUPTS();
			(void) DtxWorkerReloadConfig();

			/* Wake-ups from now on are for the next round. */
			woken = DtxWorkerTakeWork();
			needed = dtx_deadlock_detection && DtxWaitsAnyOverdue();
			if (needed)
				needed_at = DtxNow();
			timeout = needed ? until_look(woken) :
				Max(DtxUntil(needed_at + (ask != NULL ? KEEP_MS : LINGER_MS)), 1);
			if (!DtxIsDue(errors.next))
				timeout = Max(DtxUntil(errors.next), 1);
			else if (needed && timeout == 0)
			{
				if (ask == NULL)
					ask = DtxAskCreate(TopMemoryContext);
				looked_at = DtxNow();
				if (is_installed())
				{
					pgstat_report_activity(STATE_RUNNING, "looking for deadlocks between servers");
					DtxWaitsLog(DtxSearchDeadlocks(ask, look_cxt, log_lock_waits,
												   we_look));
					pgstat_report_activity(STATE_IDLE, NULL);
				}
				else
					leave = true;
				/* A server that hangs is no reason to look less often. */
				look_took = DtxNow() - looked_at - DtxAskTakeSilence(ask);
				MemoryContextReset(look_cxt);
				DtxBackoffReset(&errors);
				timeout = until_look(false);
			}
			else if (!needed && ask != NULL && DtxIsDue(needed_at + KEEP_MS))
			{
				DtxAsk	   *old = ask;

				ask = NULL;
				DtxAskDestroy(old);
				timeout = Max(DtxUntil(needed_at + LINGER_MS), 1);
			}
			else if (!needed && DtxIsDue(needed_at + LINGER_MS))
				leave = true;

			if (!leave)
			{
				DtxWorkerStarted();
				if (ask != NULL)
					(void) DtxAskIdle(ask, timeout, we_idle);
				else
					(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
									 WL_EXIT_ON_PM_DEATH, timeout, we_idle);
			}
		}
		PG_CATCH();
		{
			HOLD_INTERRUPTS();
			error_context_stack = NULL;
			EmitErrorReport();
			MemoryContextSwitchTo(TopMemoryContext);
			FlushErrorState();
			AbortOutOfAnyTransaction();
			LWLockReleaseAll();
			pgstat_report_wait_end();
			pgstat_report_activity(STATE_IDLE, NULL);
			if (ask != NULL)
			{
				DtxAsk	   *old = ask;

				ask = NULL;
				DtxAskDestroy(old);
			}
			MemoryContextReset(look_cxt);
			DtxBackoffFailed(&errors, RETRY_MIN_MS, RETRY_MAX_MS);
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();
	}

	if (leave)
		DtxWorkerNotNeeded();
	if (ask != NULL)
		DtxAskDestroy(ask);
	proc_exit(0);
}

/* Is the extension still there? */
static bool
is_installed(void)
{
	bool		installed;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	installed = DtxExtensionInstalled();
	CommitTransactionCommand();
	return installed;
}

/*
 * Milliseconds until the next look while there is something to look at; "woken": there is
 * something new.
 */
static long
until_look(bool woken)
{
	int64		pause = Max(look_took * LOOK_SHARE, LOOK_MIN_MS);

	if (!woken)
		pause = Max(pause, Min(DeadlockTimeout, LOOK_MAX_MS));
	return looked_at == 0 ? 0 : DtxUntil(looked_at + pause);
}
