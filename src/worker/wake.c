/*-------------------------------------------------------------------------
 *
 * wake.c
 *		Waking a resolver, a scheduler of sagas or a detector of deadlocks, or having the
 *		launcher start one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/wakeup.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "worker/slots.h"
#include "worker/wake.h"

/*
 * Backend: database whose resolver is to be woken once the transaction is over,
 * or InvalidOid.
 */
static Oid	wake_at_end = InvalidOid;

/* Backend: ask that resolver for a full pass, too? */
static bool pass_at_end = false;

static void wake(DtxWorkerKind kind, Oid dbid, bool running_only, bool pass);
static void ask_pass_of(Oid dbid);
static void wake_xact_callback(XactEvent event, void *arg);

/*
 * There is work for the resolver of this database; if none runs there, the
 * launcher is to try and start one.  Never throws, and does nothing but take
 * a lock and set a latch, so it may be called after the local commit.
 *
 * In a transaction (CREATE EXTENSION) a resolver that is not running yet would
 * not see what the transaction has done.  So it is woken, again, once the
 * transaction is over.
 */
void
DtxLauncherWakeResolver(Oid dbid)
{
	if (DtxWorkers == NULL)
		return;
	if (IsTransactionState())
	{
		wake_at_end = dbid;
		wake(DTX_WORKER_RESOLVER, dbid, true, false);
	}
	else
		wake(DTX_WORKER_RESOLVER, dbid, false, false);
}

/*
 * The resolver of this database is to begin a full pass once the current
 * transaction is over, be it a commit or not: there are decision rows that it
 * may find to be needed no more.  In a transaction; never throws.
 */
void
DtxLauncherAskPass(void)
{
	wake_at_end = MyDatabaseId;
	pass_at_end = true;
}

/*
 * There is, or will be, work for the scheduler of sagas.  Never throws.  At once: to be
 * called when the transaction that made it is over.
 */
void
DtxLauncherWakeSagas(Oid dbid)
{
	if (DtxWorkers != NULL)
		wake(DTX_WORKER_SCHEDULER, dbid, false, false);
}

/*
 * A session of this database waits for a server for long: the detector of deadlocks is to
 * have a look.  Never throws.
 */
void
DtxLauncherWakeDetector(Oid dbid)
{
	if (DtxWorkers != NULL)
		wake(DTX_WORKER_DETECTOR, dbid, false, false);
}

/*
 * A transaction that started sagas has been prepared, or may have been.  Who
 * commits it does not know what is in it, so from now on COMMIT PREPARED wakes
 * the scheduler.  Never throws.
 */
void
DtxLauncherSagasPrepared(void)
{
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	DtxWorkers->prepared = true;
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * A worker that is not running yet begins with a full pass anyway.
 */
static void
wake(DtxWorkerKind kind, Oid dbid, bool running_only, bool pass)
{
	DtxWorkerSlot *entry;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	entry = DtxSlotFind(kind, dbid, DTX_SLOT_STARTING, DTX_SLOT_EXITED);
	if (entry != NULL)
	{
		entry->work = true;
		entry->pass |= pass;
		if (entry->latch != NULL)
			SetLatch(entry->latch);
	}
	else if (!running_only)
	{
		bool		found = false;

		for (int i = 0; i < DtxWorkers->nwoken; i++)
		{
			if (DtxWorkers->woken[i].dbid == dbid && DtxWorkers->woken[i].kind == kind)
				found = true;
		}
		if (!found && DtxWorkers->nwoken < DTX_WOKEN_MAX)
		{
			DtxWorkers->woken[DtxWorkers->nwoken].dbid = dbid;
			DtxWorkers->woken[DtxWorkers->nwoken].kind = kind;
			DtxWorkers->nwoken++;
		}
		else if (!found)
			DtxWorkers->woken_all = true;

		/* It may be a database that the launcher does not know yet. */
		DtxWorkers->scan = true;
		if (DtxWorkers->launcher_latch != NULL)
			SetLatch(DtxWorkers->launcher_latch);
	}
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * A prepared transaction of this database has been committed: it may have started
 * sagas.  Never throws.
 */
void
DtxWakeAfterCommitPrepared(void)
{
	bool		prepared;

	LWLockAcquire(&DtxWorkers->lock, LW_SHARED);
	prepared = DtxWorkers->prepared;
	LWLockRelease(&DtxWorkers->lock);
	if (prepared)
		DtxLauncherWakeSagas(MyDatabaseId);
}

/*
 * The end of a transaction: the worker that waits for it is woken.  Never throws.
 */
static void
wake_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			if (OidIsValid(wake_at_end))
			{
				Oid			dbid = wake_at_end;

				wake_at_end = InvalidOid;
				wake(DTX_WORKER_RESOLVER, dbid, false, pass_at_end);
				pass_at_end = false;
			}
			break;
		default:
			break;
	}
}

static void
ask_pass_of(Oid dbid)
{
	Assert(dbid == MyDatabaseId);
	DtxLauncherAskPass();
}

/*
 * Before the server accepts connections; backends inherit it.
 */
void
DtxWakeInstallHooks(void)
{
	RegisterXactCallback(wake_xact_callback, NULL);
	DtxWakeupRegister(DtxLauncherWakeResolver, ask_pass_of, DtxLauncherWakeDetector);
}
