/*-------------------------------------------------------------------------
 *
 * worker_main.c
 *		The resolver: the background worker of one database that finishes what is in doubt.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/remote_wait.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/schedule.h"
#include "resolve/worker_main.h"
#include "saga/saga_tables.h"
#include "state/boot.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "utils/wait_event.h"
#include "worker/self.h"
#include "worker/slots.h"
#include "worker/startup.h"

/* Pause after sagas could not be looked for, milliseconds. */
#define PROBE_PAUSE			60000

/* Worker: errors in a row. */
static DtxBackoff errors;

static uint32 wait_event_idle = 0;

static void give_up(DtxResolver *r);

/*
 * Close all connections and forget what was begun.
 */
static void
give_up(DtxResolver *r)
{
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		state->visit = NULL;
		state->kept = NULL;
		state->queued = DTX_QUEUED_NOT;
		state->in_pass = false;
		state->again = false;
	}
	MemoryContextDelete(r->cxt);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Main program of the resolver of database "arg"; InvalidOid: of the reserved one,
 * which waits for a database first, and is started again when it has left that.
 */
void
dtx_resolver_main(Datum arg)
{
	Oid			dbid = DatumGetObjectId(arg);
	int			exit_code = OidIsValid(dbid) ? 0 : 1;
	HASHCTL		info;
	DtxResolver *volatile r = NULL;
	volatile bool idle = false;
	volatile bool leave = false;
	volatile DtxMoment probe_at = 0;

	DtxWorkerBegin(die);

	/*
	 * Attach first: then our entry is given back after this process has left
	 * the proc array, and a session that waits for that may drop the
	 * database.
	 */
	if (!OidIsValid(dbid))
		dbid = DtxWorkerAwaitDatabase();
	if (!DtxWorkerAttach(DTX_WORKER_RESOLVER, dbid))
		proc_exit(exit_code);
	DtxWorkerConnect(dbid, InvalidOid, BGWORKER_BYPASS_ALLOWCONN, "pg_dtx resolver");

	/* A lock on our tables that is held for long must not make us deaf. */
	SetConfigOption("lock_timeout", "5s", PGC_USERSET, PGC_S_OVERRIDE);

	/*
	 * Nor may a synchronous standby that is away.  Nothing is lost with what
	 * is not replicated: a decision row that comes back on a promoted standby
	 * is asked for again.  (For this session only: standby.c wants to know
	 * what is configured.)
	 */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET,
					PGC_S_SESSION);

	wait_event_idle = DtxWaitEvent("DtxResolverMain");

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(DtxKnownServer);
	DtxKnownServers = hash_create("pg_dtx server states", 32, &info,
								  HASH_ELEM | HASH_BLOBS);

	for (;;)
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
			long		timeout = -1;

			CHECK_FOR_INTERRUPTS();
			(void) DtxWorkerReloadConfig();

			/* Wake-ups from now on are seen in the next round. */
			(void) DtxWorkerTakeWork();
			DtxInDoubtReport();

			if (!dtx_resolver)
			{
				if (r != NULL)
				{
					DtxResolver *old = r;

					r = NULL;
					give_up(old);
				}

				/* Nothing to do, but a database without us is left anyway. */
				SetCurrentStatementStartTimestamp();
				StartTransactionCommand();
				leave = !DtxExtensionInstalled();
				if (!leave)
					DtxBootRecord();
				CommitTransactionCommand();
			}
			else if (!DtxIsDue(errors.next))
				timeout = DtxUntil(errors.next);
			else
			{
				bool		gone = false;

				if (r == NULL)
					r = DtxResolverCreate(TopMemoryContext, true);
				r->pass_asked |= DtxWorkerTakePass();
				timeout = DtxScheduleStep(r, &gone);
				leave = gone;

				/* Once: sagas that an earlier life of the server has left. */
				if (!leave && DtxIsDue(probe_at))
				{
					probe_at = DtxIn(PROBE_PAUSE);
					SetCurrentStatementStartTimestamp();
					StartTransactionCommand();
					DtxSagaProbe();
					CommitTransactionCommand();
					probe_at = DTX_NEVER;
				}
			}

			if (!leave)
			{
				bool		now_idle = r == NULL ||
					(r->nvisits == 0 && !r->pass_open && r->unconfirmed == NIL);

				DtxWorkerStarted();
				if (idle != now_idle)
					DtxWorkerSetIdle(now_idle, false);
				idle = now_idle;
				if (r != NULL)
				{
					MemoryContextSwitchTo(r->step_cxt);
					(void) DtxRemoteWait(r->set, timeout,
										 r->nvisits > 0 ? DtxResolverWaitEvent :
										 wait_event_idle);
				}
				else
					(void) WaitLatch(MyLatch, WL_LATCH_SET |
									 (timeout >= 0 ? WL_TIMEOUT : 0) |
									 WL_EXIT_ON_PM_DEATH,
									 timeout, wait_event_idle);
				if (r != NULL && !r->pass_open)
					DtxBackoffReset(&errors);
			}
		}
		PG_CATCH();
		{
			/*
			 * Whatever it was, nothing is lost by giving up what was begun:
			 * the truth is on the servers and in the decision table.
			 */
			HOLD_INTERRUPTS();
			error_context_stack = NULL;
			EmitErrorReport();
			MemoryContextSwitchTo(TopMemoryContext);
			FlushErrorState();
			AbortOutOfAnyTransaction();
			LWLockReleaseAll();
			pgstat_report_wait_end();
			if (r != NULL)
			{
				DtxResolver *old = r;

				r = NULL;
				give_up(old);
			}
			DtxBackoffFailed(&errors, DTX_RETRY_MIN_MS, DtxRetryPauseMax());
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();

		if (leave)
		{
			DtxWorkerNotNeeded();
			break;
		}
	}

	/* Say good-bye to the servers. */
	if (r != NULL)
		give_up(r);
	proc_exit(exit_code);
}
