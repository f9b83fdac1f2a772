/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The launcher: a static background worker without a database that starts those of
 *		each database that has the extension.
 *
 * It starts a resolver (a dynamic background worker) once in each database; a resolver
 * that finds no extension there leaves, and is not started again until a session
 * asks for it: CREATE EXTENSION, or a backend that hands something over.  A resolver
 * that died is started again after a pause.
 *
 * The same goes for the scheduler of sagas, but that is started only when a session
 * asks for it: a transaction that starts a saga, or the resolver when it finds some
 * that were left by an earlier life of the server.  The scheduler in its turn starts
 * workers that execute steps.  A detector of deadlocks is started likewise, when a session
 * waits for a server for long.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/twophase.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "state/boot.h"
#include "state/in_doubt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "worker/jobs.h"
#include "worker/launcher.h"
#include "worker/register.h"
#include "worker/slots.h"
#include "worker/startup.h"
#include "worker/turns.h"

/* Pause between words about that, ms. */
#define NO_SLOT_LOG_INTERVAL	(60 * 60 * 1000)

/* How long they must have been taken before that is worth a word, ms. */
#define NO_SLOT_PATIENCE	1000

/* Limits of the time between two looks at pg_database, milliseconds. */
#define MIN_SCAN_INTERVAL	1000
#define MAX_SCAN_INTERVAL	60000

/* Workers that may be on their way at a time, so as not to take all slots. */
#define MAX_STARTING		3

static void launcher_exit(int code, Datum arg);
static int	count_starting(void);
static long start_due(DtxMoment *logged_at);
static bool start_worker(DtxJobDatabase *db, DtxWorkerKind kind);
static bool start_reserved(DtxJobDatabase *db);

/*
 * Main program of the launcher.  An error ends it; the postmaster starts it
 * again a few seconds later, and it finds its workers in shared memory.
 */
void
dtx_launcher_main(Datum arg)
{
	DtxSlotScan scan = {
		.kinds = DTX_SLOT_LAUNCHED,
		.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) | DTX_SLOT_BIT(DTX_SLOT_EXITED)
	};
	DtxWorkerSlot *entry;
	MemoryContext loop_cxt;
	DtxMoment	next_scan = 0;
	DtxMoment	no_slot_logged_at = 0;
	uint32		wait_event;

	DtxWorkerBegin(die);

	/* No database: shared catalogs are all it needs. */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "pg_dtx launcher", PGC_USERSET,
					PGC_S_OVERRIDE);
	pgstat_report_appname("pg_dtx launcher");
	wait_event = DtxWaitEvent("DtxLauncherMain");

	DtxJobsInit();
	loop_cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx launcher",
									 ALLOCSET_DEFAULT_SIZES);

	DtxBootBegin();
	on_shmem_exit(launcher_exit, (Datum) 0);
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);

	/* What was prepared in an earlier life may have started sagas. */
	for (int i = 0; i < max_prepared_xacts; i++)
	{
		if (TransactionIdIsValid(PreparedXactProcs[i].xid))
			DtxWorkers->prepared = true;
	}
	DtxWorkers->launcher_pid = MyProcPid;
	DtxWorkers->launcher_latch = MyLatch;

	/*
	 * An earlier launcher may have been about to start a scheduler again: let
	 * one have a look in each database.
	 */
	if (DtxWorkers->launched)
		DtxWorkers->woken_all = true;
	DtxWorkers->launched = true;

	/*
	 * Those that an earlier launcher was starting: we have no handle to learn
	 * of their fate, so do not let them in any more.
	 */
	while ((entry = DtxSlotNext(&scan)) != NULL)
		DtxSlotGiveBack(entry);
	LWLockRelease(&DtxWorkers->lock);

	for (;;)
	{
		long		timeout;
		long		left;
		bool		look;

		ResetLatch(MyLatch);

		/* A shutdown is nothing to be FATAL about; 0 would mean "for good". */
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		(void) DtxWorkerReloadConfig();
		MemoryContextSwitchTo(loop_cxt);
		MemoryContextReset(loop_cxt);
		DtxInDoubtReport();

		LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
		look = DtxWorkers->scan;
		DtxWorkers->scan = false;
		LWLockRelease(&DtxWorkers->lock);

		timeout = Max(MIN_SCAN_INTERVAL,
					  Min(MAX_SCAN_INTERVAL, dtx_resolve_interval));
		if (look || DtxIsDue(next_scan))
		{
			next_scan = DtxIn(timeout);
			DtxJobsFindDatabases();
		}
		timeout = DtxUntil(next_scan);

		DtxJobsNoteExits();
		DtxJobsTakeWoken();
		left = start_due(&no_slot_logged_at);
		if (left >= 0)
			timeout = Min(timeout, left);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
	}
}

static void
launcher_exit(int code, Datum arg)
{
	DtxAssertExiting();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	DtxWorkers->launcher_pid = 0;
	DtxWorkers->launcher_latch = NULL;
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Workers that are on their way or have their first look.
 */
static int
count_starting(void)
{
	DtxSlotScan scan = {
		.kinds = DTX_SLOT_LAUNCHED,
		.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) | DTX_SLOT_BIT(DTX_SLOT_RUNNING)
	};
	DtxWorkerSlot *entry;
	int			starting = 0;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	while ((entry = DtxSlotNext(&scan)) != NULL)
	{
		if (entry->state == DTX_SLOT_STARTING || !entry->started)
			starting++;
	}
	LWLockRelease(&DtxWorkers->lock);
	return starting;
}

/*
 * Start the workers that are due.  Returns the time until there may be more to be
 * started, in milliseconds, or -1.  *logged_at is the time of the last complaint
 * about too few slots.
 */
static long
start_due(DtxMoment *logged_at)
{
	long		timeout = -1;
	int			starting = count_starting();
	int			waiting = 0;
	bool		resolver_waiting = false;
	bool		patient = true;
	bool		guest;
	long		left;
	ListCell   *lc;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	guest = !DtxIsDue(DtxWorkers->guest_until);
	LWLockRelease(&DtxWorkers->lock);

	foreach(lc, DtxJobsDue(&timeout))
	{
		DtxJobDue  *due = (DtxJobDue *) lfirst(lc);
		DtxJob	   *job = &due->db->jobs[due->kind];

		/* Their progress wakes us. */
		if (starting >= MAX_STARTING)
			break;

		/* What is free but for the reserved one is left to a guest. */
		if (guest ? due->kind == DTX_WORKER_RESOLVER && start_reserved(due->db) :
			start_worker(due->db, due->kind))
		{
			starting++;
			continue;
		}
		if (DtxIsDue(job->due_since + NO_SLOT_PATIENCE))
			patient = false;
		waiting++;
		if (due->kind != DTX_WORKER_RESOLVER)
			break;
		resolver_waiting = true;
	}

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	DtxWorkers->slot_needed = waiting > 0;
	left = DTX_NO_SLOT_PAUSE_MS;
	if (guest)
	{
		left = Min(DtxTurnsEndSome(1, true, false), DTX_GUEST_MS);
		DtxTurnsEndScheduler();
	}
	if (waiting > 0)
		left = Min(left, DtxTurnsEndSome(guest ? 1 : waiting, !guest, resolver_waiting));
	LWLockRelease(&DtxWorkers->lock);
	if (waiting == 0 && !guest)
		return timeout;
	if (timeout < 0 || left < timeout)
		timeout = left;
	if (waiting == 0)
		return timeout;

	/*
	 * Those that only have a look make room again, a moment after they have
	 * left their entry.
	 */
	if (starting > 0 || patient)
		return Min(timeout, NO_SLOT_PATIENCE / 10);
	if (*logged_at == 0 || DtxIsDue(*logged_at + NO_SLOT_LOG_INTERVAL))
	{
		*logged_at = DtxNow();
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("out of background worker slots for the workers of pg_dtx"),
				 errdetail("The resolvers of several databases take turns, and sagas wait."),
				 errhint("You might need to increase \"%s\".",
						 "max_worker_processes")));
	}
	return timeout;
}

/*
 * Start the worker of that kind of a database.  Returns false if there is no
 * slot.
 */
static bool
start_worker(DtxJobDatabase *db, DtxWorkerKind kind)
{
	DtxJob	   *job = &db->jobs[kind];
	DtxWorkerKey key;
	BackgroundWorkerHandle *handle;

	switch (DtxWorkerRegister(kind, db->dbid, InvalidOid, &key, &handle))
	{
		case DTX_NO_SLOT:
			return kind == DTX_WORKER_RESOLVER && start_reserved(db);
		case DTX_BLOCKED:
			/* The backend that blocks the database wakes us when it is done. */
			return true;
		case DTX_STARTED:
			break;
	}

	if (job->handle != NULL)
		pfree(job->handle);
	job->handle = handle;
	job->started_at = DtxNow();
	job->backoff.next = 0;
	job->due_since = 0;
	job->index = key.index;
	job->generation = key.generation;
	return true;
}

/*
 * Give the reserved resolver a database.  Returns false if it has one, or is not
 * there.
 */
static bool
start_reserved(DtxJobDatabase *db)
{
	DtxJob	   *job = &db->jobs[DTX_WORKER_RESOLVER];
	DtxWorkerSlot *entry = &DtxWorkers->workers[DTX_RESERVED_SLOT];
	bool		ok = false;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	if (entry->state == DTX_SLOT_WAITING && !DtxDatabaseIsBlocked(db->dbid))
	{
		DtxSlotTake(entry, DTX_WORKER_RESOLVER, db->dbid, InvalidOid);
		SetLatch(entry->latch);
		ok = true;
	}
	LWLockRelease(&DtxWorkers->lock);
	if (ok)
	{
		job->started_at = DtxNow();
		job->backoff.next = 0;
		job->due_since = 0;
	}
	return ok;
}
