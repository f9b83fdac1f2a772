/*-------------------------------------------------------------------------
 *
 * slots.c
 *		The workers' shared memory: who is there, in which database, and in which state.
 *
 * An entry per worker, guarded by one lock, which is held for a few instructions only.
 * An entry goes from FREE to STARTING (launcher), to RUNNING (the worker,
 * DtxWorkerAttach), to EXITED (the worker, when it has left the proc array), to FREE
 * (launcher; for a worker of sagas its scheduler, or the launcher if that is gone).
 * The worker knows its entry by index and generation; if the generation has changed
 * meanwhile nobody waits for it any more, and it leaves at once.
 *
 * One slot is reserved for a resolver: a static background worker waits in it for a
 * database that finds no other (DTX_RESERVED_SLOT).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/palloc.h"
#include "worker/slots.h"

/* NULL where this library was not preloaded. */
DtxWorkersShared *DtxWorkers = NULL;

/*
 * Bytes of shared memory that this module needs.  max_worker_processes and
 * MaxBackends must be known.
 */
Size
DtxLauncherShmemSize(void)
{
	Size		size;

	size = add_size(offsetof(DtxWorkersShared, workers),
					mul_size(max_worker_processes + 1, sizeof(DtxWorkerSlot)));
	return add_size(MAXALIGN(size), mul_size(MaxBackends, sizeof(Oid)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxLauncherShmemInit(void)
{
	bool		found;

	DtxWorkers = ShmemInitStruct("pg_dtx launcher", DtxLauncherShmemSize(), &found);
	if (!found)
	{
		memset(DtxWorkers, 0, DtxLauncherShmemSize());
		LWLockInitialize(&DtxWorkers->lock, DtxLWLockTranche("DtxLauncher"));
		DtxWorkers->nworkers = max_worker_processes + 1;
		DtxWorkers->nblocked = MaxBackends;
		DtxWorkers->blocked = (Oid *)
			((char *) DtxWorkers +
			 MAXALIGN(offsetof(DtxWorkersShared, workers) +
					  DtxWorkers->nworkers * sizeof(DtxWorkerSlot)));
	}
}

/*
 * An entry is for a worker that is to attach.  The caller holds the lock.
 */
void
DtxSlotTake(DtxWorkerSlot *entry, DtxWorkerKind kind, Oid dbid, Oid role)
{
	entry->state = DTX_SLOT_STARTING;
	entry->generation++;
	entry->kind = kind;
	entry->dbid = dbid;
	entry->role = role;
	entry->started = false;
	entry->work = false;
	entry->pass = false;
	entry->stop = false;
	entry->yields = false;
	entry->not_needed = false;
	entry->idle = false;
	entry->attached_at = 0;
	entry->wall_offset = 0;
}

/*
 * Its worker has left, or is not to attach any more.  The reserved one waits for
 * another database if it is still there.  The caller holds the lock.
 */
void
DtxSlotGiveBack(DtxWorkerSlot *entry)
{
	entry->state = entry->pid != 0 ? DTX_SLOT_WAITING : DTX_SLOT_FREE;
	entry->generation++;
	entry->dbid = InvalidOid;
}

/*
 * The next entry of a scan, or NULL at its end.  The caller holds the lock from the
 * first call to the last, and may change what it gets.
 */
DtxWorkerSlot *
DtxSlotNext(DtxSlotScan *scan)
{
	Assert(LWLockHeldByMe(&DtxWorkers->lock));

	while (scan->next < DtxWorkers->nworkers)
	{
		DtxWorkerSlot *entry = &DtxWorkers->workers[scan->next++];

		if ((scan->kinds == 0 || (scan->kinds & DTX_SLOT_BIT(entry->kind)) != 0) &&
			(scan->states == 0 || (scan->states & DTX_SLOT_BIT(entry->state)) != 0) &&
			(!OidIsValid(scan->dbid) || scan->dbid == entry->dbid))
			return entry;
	}
	return NULL;
}

/* Its number, from 0. */
int
DtxSlotIndex(const DtxWorkerSlot *entry)
{
	return entry - DtxWorkers->workers;
}

/*
 * The first entry of a worker whose state is one of first to last, or
 * NULL.  The caller holds the lock.
 */
DtxWorkerSlot *
DtxSlotFind(DtxWorkerKind kind, Oid dbid, DtxSlotState first, DtxSlotState last)
{
	DtxSlotScan scan = {.kinds = DTX_SLOT_BIT(kind),.dbid = dbid};

	Assert(OidIsValid(dbid));
	for (int state = first; state <= last; state++)
		scan.states |= DTX_SLOT_BIT(state);
	return DtxSlotNext(&scan);
}

/* Has a database a worker of sagas?  The caller holds the lock. */
bool
DtxSlotOfSagas(Oid dbid)
{
	return DtxSlotFind(DTX_WORKER_SAGA, dbid, DTX_SLOT_STARTING, DTX_SLOT_RUNNING) != NULL;
}

/* Does a backend want no worker there?  The caller holds the lock. */
bool
DtxDatabaseIsBlocked(Oid dbid)
{
	for (int i = 0; i < DtxWorkers->nblocked; i++)
	{
		if (DtxWorkers->blocked[i] == dbid)
			return true;
	}
	return false;
}
