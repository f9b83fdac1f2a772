/*-------------------------------------------------------------------------
 *
 * self.c
 *		A worker's own slot: taking it, what the worker was asked to do, and what it says of
 *		itself.
 *
 * Nothing here throws, or waits for more than a lock that is held for a few
 * instructions, but for DtxWorkerAwaitDatabase().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/compat.h"
#include "base/process.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "worker/self.h"
#include "worker/slots.h"

/* Pause between looks of a reserved resolver that waits, ms. */
#define RESERVED_POLL_MS	1000

/* Worker: its entry. */
static DtxWorkerSlot *my_entry = NULL;

/* The reserved resolver: the key of its entry, once it has a database. */
static DtxWorkerKey reserved_key;

static void reserved_exit(int code, Datum arg);
static void wake_scheduler(Oid dbid);
static void worker_detach(int code, Datum arg);

/*
 * The reserved resolver leaves without having attached.
 */
static void
reserved_exit(int code, Datum arg)
{
	DtxWorkerSlot *entry = &DtxWorkers->workers[DTX_RESERVED_SLOT];

	DtxAssertExiting();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	if (entry->pid == MyProcPid &&
		(entry->state == DTX_SLOT_WAITING || entry->state == DTX_SLOT_STARTING))
	{
		entry->pid = 0;
		entry->latch = NULL;
		DtxSlotGiveBack(entry);
		if (DtxWorkers->launcher_latch != NULL)
			SetLatch(DtxWorkers->launcher_latch);
	}
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * To be called by the reserved resolver first, with signals unblocked: wait for a
 * database that needs it, and return its OID.  The process has to attach to it then,
 * and must leave with exit code 1, so that the postmaster starts it again.  Does not
 * return if the process is told to end, or if the postmaster dies.
 */
Oid
DtxWorkerAwaitDatabase(void)
{
	DtxWorkerSlot *entry = &DtxWorkers->workers[DTX_RESERVED_SLOT];
	uint32		wait_event = DtxWaitEvent("DtxResolverReserved");

	on_shmem_exit(reserved_exit, (Datum) 0);
	for (;;)
	{
		Oid			dbid = InvalidOid;

		ResetLatch(MyLatch);
		if (ProcDiePending)
			proc_exit(1);

		LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
		if (entry->state == DTX_SLOT_FREE)
		{
			/* Its predecessor's end has been noticed. */
			entry->state = DTX_SLOT_WAITING;
			entry->pid = MyProcPid;
			entry->latch = MyLatch;
			if (DtxWorkers->launcher_latch != NULL)
				SetLatch(DtxWorkers->launcher_latch);
		}
		else if (entry->state == DTX_SLOT_STARTING && entry->pid == MyProcPid)
		{
			reserved_key.index = DTX_RESERVED_SLOT;
			reserved_key.generation = entry->generation;
			dbid = entry->dbid;
		}
		LWLockRelease(&DtxWorkers->lock);

		if (OidIsValid(dbid))
			return dbid;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RESERVED_POLL_MS, wait_event);
	}
}

/*
 * Take the entry that was made for us.  Returns false if nobody
 * wants this process any more: it has to leave then, without connecting.
 *
 * To be called before the process connects to the database.  on_shmem_exit
 * callbacks run in reverse order, so ours runs after RemoveProcFromArray()
 * (registered by InitPostgres()): when the entry says that we are gone, we
 * do not count as a user of the database any more.
 */
bool
DtxWorkerAttach(DtxWorkerKind kind, Oid dbid)
{
	DtxWorkerKey key;
	DtxWorkerSlot *entry;
	bool		ok = false;

	DtxAssertInWorker();
	if (reserved_key.generation != 0)
		key = reserved_key;
	else
		memcpy(&key, MyBgworkerEntry->bgw_extra, sizeof(key));
	if (key.index < 0 || key.index >= DtxWorkers->nworkers)
		return false;
	entry = &DtxWorkers->workers[key.index];

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	if (entry->generation == key.generation &&
		entry->state == DTX_SLOT_STARTING && entry->kind == kind &&
		entry->dbid == dbid)
	{
		entry->state = DTX_SLOT_RUNNING;
		entry->pid = MyProcPid;
		entry->latch = MyLatch;
		entry->attached_at = DtxNow();
		ok = true;
	}
	LWLockRelease(&DtxWorkers->lock);

	if (ok)
	{
		my_entry = entry;
		on_shmem_exit(worker_detach, (Datum) 0);
	}
	return ok;
}

/*
 * A worker of sagas has gone.  The caller holds the lock.
 */
static void
wake_scheduler(Oid dbid)
{
	DtxWorkerSlot *entry = DtxSlotFind(DTX_WORKER_SCHEDULER, dbid,
									   DTX_SLOT_RUNNING, DTX_SLOT_RUNNING);

	if (entry != NULL)
		SetLatch(entry->latch);
}

static void
worker_detach(int code, Datum arg)
{
	Oid			dbid = my_entry->dbid;
	DtxSlotScan schedulers = {
		.kinds = DTX_SLOT_BIT(DTX_WORKER_SCHEDULER),
		.states = DTX_SLOT_BIT(DTX_SLOT_RUNNING)
	};
	DtxWorkerSlot *entry;

	DtxAssertExiting();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->state = DTX_SLOT_EXITED;
	my_entry->pid = 0;
	my_entry->latch = NULL;
	if (DtxWorkers->launcher_latch != NULL)
		SetLatch(DtxWorkers->launcher_latch);
	if (my_entry->kind == DTX_WORKER_SAGA)
		wake_scheduler(dbid);
	else if (!DtxIsDue(DtxWorkers->guest_until))
	{
		/* The place may be meant for the sagas of any database. */
		while ((entry = DtxSlotNext(&schedulers)) != NULL)
		{
			entry->work = true;
			SetLatch(entry->latch);
		}
	}

	/* Those who wait for it: see DtxVacateBlock(). */
	for (int i = 0; i < DtxWorkers->nblocked; i++)
	{
		if (DtxWorkers->blocked[i] == dbid)
			SetLatch(&GetPGProcByNumber(i)->procLatch);
	}
	LWLockRelease(&DtxWorkers->lock);
	my_entry = NULL;
}

/*
 * Has this worker been asked to leave?
 */
bool
DtxWorkerMustStop(void)
{
	bool		stop;

	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	stop = my_entry->stop;
	LWLockRelease(&DtxWorkers->lock);
	return stop;
}

/*
 * This worker is about to look for work: wakes from now on are for its next
 * look.  Returns whether it has been woken since the last one.
 */
bool
DtxWorkerTakeWork(void)
{
	bool		work;

	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	work = my_entry->work;
	my_entry->work = false;
	LWLockRelease(&DtxWorkers->lock);
	return work;
}

/*
 * This worker has had its first look, or failed to, and is going to wait: the
 * launcher may start the next one.  To be called before every wait.  A worker of sagas
 * calls it when it has executed a step.
 */
void
DtxWorkerStarted(void)
{
	static bool started = false;

	if (started)
		return;
	started = true;
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->started = true;
	if (DtxWorkers->launcher_latch != NULL)
		SetLatch(DtxWorkers->launcher_latch);
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Has this resolver been asked for a full pass?  The answer is given once.
 */
bool
DtxWorkerTakePass(void)
{
	bool		pass;

	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	pass = my_entry->pass;
	my_entry->pass = false;
	LWLockRelease(&DtxWorkers->lock);
	return pass;
}

/*
 * This worker leaves because there is nothing to do for it: no extension in its
 * database, or no sagas.
 */
void
DtxWorkerNotNeeded(void)
{
	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->not_needed = true;
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Is this process a worker that executes steps of sagas?
 */
bool
DtxWorkerExecutesSagas(void)
{
	return my_entry != NULL && my_entry->kind == DTX_WORKER_SAGA;
}

/*
 * The role as which this worker is to connect.
 */
Oid
DtxWorkerRole(void)
{
	return my_entry->role;
}

/*
 * Has this resolver or worker of sagas something to do?  If a worker of sagas has had
 * something to do, and has nothing now, its scheduler is told: another role may need its
 * place, or there was a step that it was not allowed to take.
 */
void
DtxWorkerSetIdle(bool idle, bool had_work)
{
	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->idle = idle;
	if (my_entry->kind == DTX_WORKER_RESOLVER)
	{
		/* Another database may be waiting for just that. */
		if (idle && DtxWorkers->slot_needed && DtxWorkers->launcher_latch != NULL)
			SetLatch(DtxWorkers->launcher_latch);
	}
	else if (idle && had_work)
	{
		DtxWorkerSlot *entry = DtxSlotFind(DTX_WORKER_SCHEDULER, my_entry->dbid,
										   DTX_SLOT_RUNNING, DTX_SLOT_RUNNING);

		if (entry != NULL)
		{
			entry->work = true;
			SetLatch(entry->latch);
		}
	}
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Does the scheduler want to be woken when a worker has nothing to do any more?
 */
void
DtxSchedulerWakeWhenIdle(bool idle_worker)
{
	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->idle = idle_worker;
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * In a scheduler: for which DtxWallOffset() times in the tables of its database are right.
 */
void
DtxWorkerSetWallOffset(int64 offset)
{
	DtxAssertInWorker();
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	my_entry->wall_offset = offset;
	LWLockRelease(&DtxWorkers->lock);
}
