/*-------------------------------------------------------------------------
 *
 * jobs.c
 *		What the launcher knows of the workers that each database needs: which there are,
 *		which have died, and which could be started now.  In the launcher only.
 *
 * What is allocated for longer than a call is in TopMemoryContext.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/settings.h"
#include "catalog/pg_database.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "storage/lockdefs.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "worker/jobs.h"
#include "worker/slots.h"
#include "worker/turns.h"

/* Pause before a worker that died is started again, milliseconds. */
#define MIN_RESTART_PAUSE	1000
#define MAX_RESTART_PAUSE	60000

/* A worker that lived for this time did not die of its start, ms. */
#define HEALTHY_AFTER		60000

/* Launcher: what it knows. */
static HTAB *databases = NULL;

static void job_died(DtxJob *job);
static int	compare_dues(const ListCell *a, const ListCell *b);

/*
 * In the launcher, before everything else here.
 */
void
DtxJobsInit(void)
{
	HASHCTL		info;

	DtxAssertInWorker();
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(DtxJobDatabase);
	databases = hash_create("pg_dtx databases", 64, &info,
							HASH_ELEM | HASH_BLOBS);
}

/*
 * Look which databases there are.  In a transaction of its own; throws what reading a
 * catalog throws.
 */
void
DtxJobsFindDatabases(void)
{
	HASH_SEQ_STATUS seq;
	DtxJobDatabase *db;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old = CurrentMemoryContext;

	DtxAssertInWorker();
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
		db->seen = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool		found;

		/*
		 * What is in doubt is to be finished also where users may not
		 * connect, as autovacuum vacuums there.  template0 is to be left
		 * alone.
		 */
		if ((!form->datallowconn && form->oid == Template0DbOid) ||
			form->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;

		db = hash_search(databases, &form->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset(db, 0, sizeof(DtxJobDatabase));
			db->dbid = form->oid;
			for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
				db->jobs[kind].index = -1;

			/* Have a look once; the others are started by those who need them. */
			db->jobs[DTX_WORKER_SCHEDULER].not_needed = true;
			db->jobs[DTX_WORKER_DETECTOR].not_needed = true;
		}
		db->seen = true;
		db->allows_users = form->datallowconn;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		bool		starting = false;

		for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
			starting |= db->jobs[kind].index >= 0;
		if (!db->seen && !starting)
		{
			for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
			{
				if (db->jobs[kind].handle != NULL)
					pfree(db->jobs[kind].handle);
			}
			(void) hash_search(databases, &db->dbid, HASH_REMOVE, NULL);
		}
	}
}

/* Find out which workers have left, and why.  Does not throw. */
void
DtxJobsNoteExits(void)
{
	DtxSlotScan scan = {
		.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) | DTX_SLOT_BIT(DTX_SLOT_EXITED)
	};
	DtxWorkerSlot *entry;
	HASH_SEQ_STATUS seq;
	DtxJobDatabase *db;

	DtxAssertInWorker();

	/* Those that were attached have left a note. */
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	while ((entry = DtxSlotNext(&scan)) != NULL)
	{
		/* Workers of sagas are for their scheduler to collect, if it lives. */
		if (entry->kind == DTX_WORKER_SAGA)
		{
			if (DtxSlotFind(DTX_WORKER_SCHEDULER, entry->dbid,
							DTX_SLOT_RUNNING, DTX_SLOT_RUNNING) == NULL)
				DtxSlotGiveBack(entry);
			continue;
		}
		if (entry->state != DTX_SLOT_EXITED)
			continue;

		db = hash_search(databases, &entry->dbid, HASH_FIND, NULL);
		if (db != NULL)
		{
			DtxJob	   *job = &db->jobs[entry->kind];

			job->backoff.next = 0;
			if (entry->not_needed)
			{
				/* Unless it was asked for after it had looked. */
				job->not_needed = !entry->work;
				job->backoff.failures = 0;
			}
			else if (entry->yields)
				job->backoff.next = DtxIn(Min(Max(dtx_resolve_interval, DTX_TURN_MIN_MS),
											  MAX_RESTART_PAUSE));
			else if (!entry->stop)
				job_died(job);
		}
		DtxSlotGiveBack(entry);
	}
	LWLockRelease(&DtxWorkers->lock);

	/* The others may have died before they could attach. */
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
		{
			DtxJob	   *job = &db->jobs[kind];
			pid_t		pid;
			bool		stopped;

			if (job->index < 0)
				continue;
			entry = &DtxWorkers->workers[job->index];

			/*
			 * Ask before looking at the entry: it may attach and exit
			 * between.
			 */
			stopped = GetBackgroundWorkerPid(job->handle, &pid) == BGWH_STOPPED;
			LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
			if (entry->generation != job->generation ||
				entry->state != DTX_SLOT_STARTING)
				job->index = -1;
			else if (stopped)
			{
				DtxSlotGiveBack(entry);
				job->index = -1;
				job_died(job);
			}
			LWLockRelease(&DtxWorkers->lock);
		}
	}
}

/*
 * A worker has died of its own: when to start it again?
 */
static void
job_died(DtxJob *job)
{
	if (DtxIsDue(job->started_at + HEALTHY_AFTER))
		DtxBackoffReset(&job->backoff);
	DtxBackoffFailed(&job->backoff, MIN_RESTART_PAUSE, MAX_RESTART_PAUSE);
}

/* Workers that were asked for.  Does not throw. */
void
DtxJobsTakeWoken(void)
{
	HASH_SEQ_STATUS seq;
	DtxJobDatabase *db;
	DtxWokenWorker woken[DTX_WOKEN_MAX];
	int			nwoken;
	bool		all;

	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	nwoken = DtxWorkers->nwoken;
	memcpy(woken, DtxWorkers->woken, sizeof(DtxWokenWorker) * nwoken);
	all = DtxWorkers->woken_all;
	DtxWorkers->nwoken = 0;
	DtxWorkers->woken_all = false;
	LWLockRelease(&DtxWorkers->lock);

	for (int i = 0; i < nwoken; i++)
	{
		db = hash_search(databases, &woken[i].dbid, HASH_FIND, NULL);
		if (db != NULL)
		{
			DtxJob	   *job = &db->jobs[woken[i].kind];

			job->not_needed = false;

			/* One that has left for others comes back for something new. */
			if (job->backoff.failures == 0)
				job->backoff.next = 0;
		}
	}
	if (all)
	{
		hash_seq_init(&seq, databases);
		while ((db = hash_seq_search(&seq)) != NULL)
		{
			for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
				db->jobs[kind].not_needed = false;
		}
	}
}

/*
 * The workers that could be started now: a list of Due in the current memory context,
 * resolvers first, and of each kind those first that have waited longest.  Lowers
 * *timeout (-1: none) to the time until another one is due, in milliseconds.
 */
List *
DtxJobsDue(long *timeout)
{
	HASH_SEQ_STATUS seq;
	DtxJobDatabase *db;
	List	   *dues = NIL;

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		for (int kind = 0; kind < DTX_LAUNCHED_KINDS; kind++)
		{
			DtxJob	   *job = &db->jobs[kind];
			bool		may_start;
			DtxJobDue  *due;

			/* Sagas run as their users. */
			may_start = db->seen && !job->not_needed && job->index < 0 &&
				(kind == DTX_WORKER_RESOLVER || db->allows_users);
			if (may_start && !DtxIsDue(job->backoff.next))
			{
				long		left = DtxUntil(job->backoff.next);

				if (*timeout < 0 || left < *timeout)
					*timeout = left;
				may_start = false;
			}
			if (may_start)
			{
				LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
				may_start = DtxSlotFind(kind, db->dbid, DTX_SLOT_STARTING,
										DTX_SLOT_EXITED) == NULL;
				LWLockRelease(&DtxWorkers->lock);
			}
			if (!may_start)
			{
				job->due_since = 0;
				continue;
			}
			if (job->due_since == 0)
				job->due_since = DtxNow();
			due = palloc(sizeof(DtxJobDue));
			due->db = db;
			due->kind = kind;
			dues = lappend(dues, due);
		}
	}
	list_sort(dues, compare_dues);
	return dues;
}

static int
compare_dues(const ListCell *a, const ListCell *b)
{
	const DtxJobDue *due_a = (const DtxJobDue *) lfirst(a);
	const DtxJobDue *due_b = (const DtxJobDue *) lfirst(b);
	DtxMoment	since_a = due_a->db->jobs[due_a->kind].due_since;
	DtxMoment	since_b = due_b->db->jobs[due_b->kind].due_since;

	if (due_a->kind != due_b->kind)
		return due_a->kind < due_b->kind ? -1 : 1;
	return since_a < since_b ? -1 : since_a > since_b ? 1 : 0;
}
