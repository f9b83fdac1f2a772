/*-------------------------------------------------------------------------
 *
 * saga_workers.c
 *		The workers of sagas of a database, as their scheduler sees them.
 *
 * To be called by the scheduler.  Nothing here throws but DtxSagaWorkerStart() (out of
 * memory), or waits for more than a lock that is held for a few instructions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "worker/register.h"
#include "worker/saga_workers.h"
#include "worker/slots.h"

static DtxWorkerSlot *saga_entry(const DtxSagaWorker *worker);

/*
 * The workers of sagas of this database, those included whose going the
 * scheduler has not acknowledged (DtxSagaWorkerRelease).  Returns their number,
 * which max_worker_processes is an upper bound of.
 */
int
DtxSagaWorkerList(DtxSagaWorker *workers, int max)
{
	DtxSlotScan scan = {
		.kinds = DTX_SLOT_BIT(DTX_WORKER_SAGA),
		.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) |
		DTX_SLOT_BIT(DTX_SLOT_RUNNING) | DTX_SLOT_BIT(DTX_SLOT_EXITED),
		.dbid = MyDatabaseId
	};
	DtxWorkerSlot *entry;
	int			n = 0;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	while (n < max && (entry = DtxSlotNext(&scan)) != NULL)
	{
		DtxSagaWorker *worker = &workers[n];

		worker->index = DtxSlotIndex(entry);
		worker->generation = entry->generation;
		worker->role = entry->role;
		worker->starting = entry->state == DTX_SLOT_STARTING;
		worker->exited = entry->state == DTX_SLOT_EXITED;
		worker->clean = entry->not_needed || entry->stop;
		worker->idle = entry->idle;
		worker->has_worked = entry->started;
		worker->stop = entry->stop;
		worker->attached_at = entry->attached_at;
		worker->pid = entry->pid;
		n++;
	}
	LWLockRelease(&DtxWorkers->lock);
	return n;
}

/*
 * Start one that connects as that role.  Fills in *worker and *handle if it
 * returns DTX_STARTED.
 */
DtxStartResult
DtxSagaWorkerStart(Oid role, DtxSagaWorker *worker,
				   BackgroundWorkerHandle **handle)
{
	DtxWorkerKey key;
	DtxStartResult result;

	result = DtxWorkerRegister(DTX_WORKER_SAGA, MyDatabaseId, role, &key, handle);
	if (result == DTX_STARTED)
	{
		memset(worker, 0, sizeof(*worker));
		worker->index = key.index;
		worker->generation = key.generation;
		worker->role = role;
		worker->starting = true;
	}
	return result;
}

/*
 * The entry of a worker, if it is still that one's.  The caller holds the lock.
 */
static DtxWorkerSlot *
saga_entry(const DtxSagaWorker *worker)
{
	DtxWorkerSlot *entry = &DtxWorkers->workers[worker->index];

	return entry->generation == worker->generation ? entry : NULL;
}

/*
 * There is something to do for it.
 */
void
DtxSagaWorkerWake(const DtxSagaWorker *worker)
{
	DtxWorkerSlot *entry;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->latch != NULL)
	{
		entry->work = true;
		SetLatch(entry->latch);
	}
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Ask it to leave after the step that it is executing.
 */
void
DtxSagaWorkerDismiss(const DtxSagaWorker *worker)
{
	DtxWorkerSlot *entry;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->latch != NULL)
	{
		entry->stop = true;
		SetLatch(entry->latch);
	}
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * Have all of them that work look whether what they do is to be stopped (SIGUSR2).
 * Returns whether there are any, idle ones and those that are starting included.
 */
bool
DtxSagaWorkersPoke(void)
{
	DtxSlotScan scan = {
		.kinds = DTX_SLOT_BIT(DTX_WORKER_SAGA),
		.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) | DTX_SLOT_BIT(DTX_SLOT_RUNNING),
		.dbid = MyDatabaseId
	};
	DtxWorkerSlot *entry;
	bool		any = false;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	while ((entry = DtxSlotNext(&scan)) != NULL)
	{
		any = true;

		/* It cannot detach while we hold the lock, so the pid is right. */
		if (entry->state == DTX_SLOT_RUNNING && !entry->idle)
			(void) kill(entry->pid, SIGUSR2);
	}
	LWLockRelease(&DtxWorkers->lock);
	return any;
}

/*
 * It has left, or is not wanted any more if it is still starting.
 */
void
DtxSagaWorkerRelease(const DtxSagaWorker *worker)
{
	DtxWorkerSlot *entry;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->state != DTX_SLOT_RUNNING)
		DtxSlotGiveBack(entry);
	LWLockRelease(&DtxWorkers->lock);
}
