/*-------------------------------------------------------------------------
 *
 * scheduler.c
 *		The scheduler of sagas: one process per database that has work for it.
 *
 * It sleeps until something is due, or until it is woken by the commit of a transaction
 * that has made something due (worker/wake.c).  Deadlines pass here, too, so that they
 * wait for no worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "datatype/timestamp.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "saga/call.h"
#include "saga/claims.h"
#include "saga/clock.h"
#include "saga/placement.h"
#include "saga/saga_tables.h"
#include "saga/scheduler.h"
#include "saga/session.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/saga_workers.h"
#include "worker/self.h"
#include "worker/slots.h"
#include "worker/startup.h"

/* ... and the scheduler. */
#define SCHEDULER_LINGER	10000

/*
 * The schedule is in tables, by the wall clock, which may be set: longest time before
 * it is looked at again, ms.
 */
#define MAX_SCHEDULE_WAIT	20000

/*
 * How often the scheduler has workers look, ms.  Timers of PostgreSQL strike by the wall
 * clock (utils/misc/timeout.c), and are of no use for an hour if that is set back.
 */
#define POKE_INTERVAL	1000

/* How often it is looked whether that was set, while anything is scheduled, ms. */
#define CLOCK_INTERVAL	2000

/* How often sagas that have ended are forgotten, if there is anything else to do, ms. */
#define PURGE_INTERVAL	10000

/* Deadlines that pass in one transaction. */
#define DEADLINES_AT_ONCE	100

/* Scheduler: errors in a row. */
static DtxBackoff errors;

static uint32 we_scheduler;

static void scheduler_look(DtxScheduler *s, bool *leave);
static int64 until_due(TimestampTz at);
static void pass_deadlines(DtxScheduler *s);
static void run_errands(DtxScheduler *s, const char *function);
static List *ask_schedule(DtxScheduler *s);

/*
 * Main program of the scheduler of database "arg".
 */
void
dtx_saga_scheduler_main(Datum arg)
{
	DtxScheduler scheduler;
	DtxScheduler *s = &scheduler;
	HASHCTL		info;
	volatile bool leave = false;

	DtxSagaStartProcess(DTX_WORKER_SCHEDULER, DatumGetObjectId(arg),
						"pg_dtx saga scheduler");

	/* A lock on our tables that is held for long must not make us deaf. */
	SetConfigOption("lock_timeout", "5s", PGC_USERSET, PGC_S_OVERRIDE);

	/* Deadlines that have passed pass again after a crash. */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	we_scheduler = DtxWaitEvent("DtxSagaSchedulerMain");

	memset(s, 0, sizeof(*s));
	DtxSagaClockRight(s, DtxWallOffset());
	s->cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga scheduler",
								   ALLOCSET_DEFAULT_SIZES);
	s->round_cxt = AllocSetContextCreate(s->cxt, "pg_dtx saga scheduler round",
										 ALLOCSET_DEFAULT_SIZES);
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(DtxRoleState);
	info.hcxt = s->cxt;
	s->roles = hash_create("pg_dtx saga roles", 32, &info,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	s->workers = MemoryContextAlloc(s->cxt,
									sizeof(DtxSagaWorker) * max_worker_processes);
	s->executions = MemoryContextAlloc(s->cxt,
									   sizeof(DtxSagaExecution) * max_worker_processes);

	while (!leave)
	{
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			bool		nothing = false;
			long		timeout = -1;

			CHECK_FOR_INTERRUPTS();
			if (DtxWorkerReloadConfig())
				s->next_look = 0;
			if (!DtxIsDue(errors.next))
				timeout = Max(DtxUntil(errors.next), 1);
			else
			{
				MemoryContextReset(s->round_cxt);
				MemoryContextSwitchTo(s->round_cxt);
				scheduler_look(s, &nothing);
				leave = nothing;
				DtxBackoffReset(&errors);

				if (s->next_look != DTX_NEVER)
					timeout = Min(DtxUntil(s->next_look), CLOCK_INTERVAL);
				if (s->idle_since != 0 && s->next_look == DTX_NEVER)
					timeout = Max(DtxUntil(s->idle_since + SCHEDULER_LINGER), 1);
			}
			if (!leave)
			{
				DtxWorkerStarted();
				if (DtxSagaWorkersPoke())
					timeout = timeout < 0 ? POKE_INTERVAL : Min(timeout, POKE_INTERVAL);
				(void) WaitLatch(MyLatch, WL_LATCH_SET |
								 (timeout >= 0 ? WL_TIMEOUT : 0) |
								 WL_EXIT_ON_PM_DEATH, timeout, we_scheduler);
			}
		}
		PG_CATCH();
		{
			/* Where a lock is in the way, the wait for it was a pause, too. */
			if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE && errors.failures > 0)
				errors.failures--;
			EmitErrorReport();
			FlushErrorState();
			DtxSagaRecoverFromError();
			s->next_look = 0;
			DtxBackoffFailed(&errors, DTX_SAGA_ERROR_PAUSE_MIN, DTX_SAGA_ERROR_PAUSE_MAX);
		}
		PG_END_TRY();
	}

	if (leave)
		DtxWorkerNotNeeded();
	proc_exit(0);
}

/*
 * One round: who has come and gone, what is due, who is to do it.
 */
static void
scheduler_look(DtxScheduler *s, bool *leave)
{
	bool		enabled = dtx_saga_workers > 0 && dtx_resolver;
	bool		look = DtxIsDue(s->next_look);

	/* Wake-ups from now on are for the next round. */
	look |= DtxWorkerTakeWork();
	look |= DtxPlacementNoteExits(s);
	look |= DtxSagaClockWasSet(s);
	if (look)
	{
		List	   *work;
		ListCell   *lc;

		DtxSagaClockFollow(s);
		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (!DtxSagaInstalled())
		{
			/* Dropped under us: the workers find out themselves. */
			PopActiveSnapshot();
			CommitTransactionCommand();
			*leave = true;
			return;
		}
		DtxSagaStopPrepared();
		work = ask_schedule(s);
		s->next_look = DTX_NEVER;
		foreach(lc, work)
		{
			DtxRoleWork *w = (DtxRoleWork *) lfirst(lc);

			if (w->next_due != DT_NOEND)
				s->next_look = Min(s->next_look, DtxIn(until_due(w->next_due)));
		}
		if (s->clock_left != NULL)
			s->next_look = Min(s->next_look, DtxIn(DTX_SAGA_LEFTOVER_MS));
		if (enabled)
			DtxPlacementServe(s, work);
		PopActiveSnapshot();
		CommitTransactionCommand();

		/* Steps do not wait for deadlines, nor for errors there. */
		if (enabled)
		{
			pass_deadlines(s);
			run_errands(s, "saga_deliver");
			run_errands(s, "saga_give_up");
			run_errands(s, "saga_report_late");
			run_errands(s, "saga_lanes");
			run_errands(s, "saga_start_scheduled");
			if (dtx_saga_retention > 0 && DtxIsDue(s->next_purge))
			{
				s->next_purge = DtxIn(PURGE_INTERVAL);
				run_errands(s, "saga_retain");
			}
		}
		pgstat_report_stat(false);
		MemoryContextSwitchTo(s->round_cxt);

		/* With nothing in store, and nobody there, we are not needed. */
		if (work == NIL && s->nworkers == 0 && s->next_look == DTX_NEVER)
		{
			if (s->idle_since == 0)
				s->idle_since = DtxNow();
		}
		else
			s->idle_since = 0;
		if (!enabled)
			s->next_look = DTX_NEVER;
	}

	/* Too many of them, after a reload. */
	for (int i = 0, n = 0; i < s->nworkers; i++)
	{
		if (!s->workers[i].stop && ++n > (enabled ? dtx_saga_workers : 0))
			DtxSagaWorkerDismiss(&s->workers[i]);
	}

	if (s->idle_since != 0 && s->next_look == DTX_NEVER &&
		DtxIsDue(s->idle_since + SCHEDULER_LINGER))
		*leave = true;
}

/*
 * Milliseconds until something in the schedule is due, or until it is to be looked at
 * again.
 */
static int64
until_due(TimestampTz at)
{
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at),
			   MAX_SCHEDULE_WAIT);
}

/*
 * In a transaction of its own: let deadlines pass, some of them if there are many, and
 * note when the next one does.
 */
static void
pass_deadlines(DtxScheduler *s)
{
	static const Oid types[] = {INT4OID, OIDOID};
	Datum		args[lengthof(types)];
	Datum		result;
	HeapTupleHeader header;
	bool		isnull;
	TimestampTz next;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (DtxSagaInstalled())
	{
		args[0] = Int32GetDatum(DEADLINES_AT_ONCE);
		args[1] = ObjectIdGetDatum(s->last_deadline);
		result = DtxSagaCall("saga_deadlines", lengthof(types), types, args, NULL,
							 &isnull);
		header = DatumGetHeapTupleHeader(result);
		s->last_deadline =
			DatumGetObjectId(GetAttributeByName(header, "last", &isnull));
		next = DatumGetTimestampTz(GetAttributeByName(header, "next_due", &isnull));
		if (!isnull)
			s->next_look = Min(s->next_look, DtxIn(until_due(next)));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * In a transaction of its own: call a function that does some of what needs no worker, and
 * says when it is to be called again.
 */
static void
run_errands(DtxScheduler *s, const char *function)
{
	static const Oid types[] = {INT4OID};
	Datum		args[lengthof(types)] = {Int32GetDatum(DEADLINES_AT_ONCE)};
	Datum		next;
	bool		isnull;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (DtxSagaInstalled())
	{
		next = DtxSagaCall(function, lengthof(types), types, args, NULL, &isnull);
		if (!isnull)
			s->next_look = Min(s->next_look,
							   DtxIn(until_due(DatumGetTimestampTz(next))));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * What is due, and what will be: a list of RoleWork in the round's context.  In
 * a transaction with a snapshot.
 */
static List *
ask_schedule(DtxScheduler *s)
{
	List	   *work = NIL;

	SPI_connect();
	if (SPI_execute("SELECT role, due, next_due FROM dtx_internal.saga_schedule()",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not ask for the schedule of sagas");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(s->round_cxt);
		DtxRoleWork *w = palloc0(sizeof(DtxRoleWork));
		bool		isnull;
		Datum		value;

		value = SPI_getbinval(tuple, desc, 1, &isnull);
		if (!isnull)
			w->role = DatumGetObjectId(value);
		value = SPI_getbinval(tuple, desc, 2, &isnull);
		if (!isnull)
			w->due = DatumGetInt64(value);
		value = SPI_getbinval(tuple, desc, 3, &isnull);
		w->next_due = isnull ? DT_NOEND : DatumGetTimestampTz(value);
		work = lappend(work, w);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return work;
}
