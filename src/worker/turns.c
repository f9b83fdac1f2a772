/*-------------------------------------------------------------------------
 *
 * turns.c
 *		Where databases are more than slots: whose turn it is.
 *
 * Background-worker slots (max_worker_processes) are shared with everybody, parallel
 * queries and sagas included.  A resolver is asked to leave when another database
 * waits, an idle one soon, a busy one after TURN_MAX_MS, and its database waits in its
 * turn; those that have waited longest come first.  Meanwhile a database's sagas get
 * one worker at most, for which room is made in short windows, as for the worker of
 * DROP DATABASE.  What a resolver knows is on the servers and in tables, so nothing is
 * lost when it leaves.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "worker/slots.h"
#include "worker/turns.h"

/* ... and any resolver not much longer than this, if another database waits. */
#define TURN_MAX_MS			10000

/* Longest time that slots are kept from resolvers, and how often that begins, ms. */
#define GUEST_LIMIT_MS		3000
#define GUEST_PERIOD_MS		5000

/*
 * So many workers find no slot: ask resolvers that have had their turn to leave, of
 * those in "dynamic" slots or the "reserved" one, which is of use to resolvers only.
 * Returns how long to wait until that may be tried again, in milliseconds, if none of
 * them wakes us before.  The caller holds the lock.
 */
long
DtxTurnsEndSome(int waiting, bool dynamic, bool reserved)
{
	const DtxSlotScan resolvers = {
		.kinds = DTX_SLOT_BIT(DTX_WORKER_RESOLVER),
		.states = DTX_SLOT_BIT(DTX_SLOT_RUNNING) | DTX_SLOT_BIT(DTX_SLOT_EXITED)
	};
	DtxSlotScan scan = resolvers;
	DtxWorkerSlot *entry;
	long		timeout = DTX_NO_SLOT_PAUSE_MS;
	int			leaving = 0;

#define ASKED(entry) \
	(DtxSlotIndex(entry) == DTX_RESERVED_SLOT ? reserved : dynamic)
	while ((entry = DtxSlotNext(&scan)) != NULL)
	{
		if (ASKED(entry) && (entry->stop || entry->state == DTX_SLOT_EXITED))
			leaving++;
	}
	while (leaving < waiting)
	{
		DtxWorkerSlot *oldest = NULL;

		scan = resolvers;
		while ((entry = DtxSlotNext(&scan)) != NULL)
		{
			long		left;

			if (!ASKED(entry) || entry->state != DTX_SLOT_RUNNING || entry->stop ||
				!entry->started)
				continue;
			left = DtxUntil(entry->attached_at +
							(entry->idle ? DTX_TURN_MIN_MS : TURN_MAX_MS));
			if (left > 0)
				timeout = Min(timeout, left);
			else if (oldest == NULL || entry->attached_at < oldest->attached_at)
				oldest = entry;
		}
		if (oldest == NULL)
			break;
		oldest->stop = true;
		oldest->yields = true;
		SetLatch(oldest->latch);
		leaving++;
	}
#undef ASKED
	return timeout;
}

/*
 * Schedulers of sagas that have no worker, and find no slot for one, would keep each
 * other's places for ever: the one that is there for longest leaves, and comes back.
 * The caller holds the lock.
 */
void
DtxTurnsEndScheduler(void)
{
	DtxSlotScan scan = {
		.kinds = DTX_SLOT_BIT(DTX_WORKER_SCHEDULER),
		.states = DTX_SLOT_BIT(DTX_SLOT_RUNNING)
	};
	DtxWorkerSlot *entry;
	DtxWorkerSlot *oldest = NULL;
	int			n = 0;

	while ((entry = DtxSlotNext(&scan)) != NULL)
	{
		if (DtxSlotOfSagas(entry->dbid))
			continue;
		if (entry->stop)
			return;
		n++;
		if (oldest == NULL || entry->attached_at < oldest->attached_at)
			oldest = entry;
	}
	if (n > 1 && DtxIsDue(oldest->attached_at + DTX_TURN_MIN_MS))
	{
		oldest->stop = true;
		oldest->yields = true;
		SetLatch(oldest->latch);
	}
}

/*
 * The caller has found no slot for a background worker of its own, and tries again in
 * less than DTX_GUEST_MS: resolvers are to make room for it meanwhile.  Never throws.
 */
void
DtxLauncherMakeRoom(void)
{
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	DtxTurnsMakeRoom(DTX_GUEST_MS);
	LWLockRelease(&DtxWorkers->lock);
}

/*
 * A guest may wait for a slot for so long, and longer if it says so again, but not for
 * ever: resolvers get what is free in between.  The caller holds the lock.
 */
void
DtxTurnsMakeRoom(int ms)
{
	if (!DtxIsDue(DtxWorkers->guest_until))
		DtxWorkers->guest_until = Min(DtxIn(ms), DtxWorkers->guest_since + GUEST_LIMIT_MS);
	else if (DtxWorkers->guest_since == 0 ||
			 DtxIsDue(DtxWorkers->guest_since + GUEST_PERIOD_MS))
	{
		DtxWorkers->guest_since = DtxNow();
		DtxWorkers->guest_until = DtxIn(ms);
	}
	else
		return;
	if (DtxWorkers->launcher_latch != NULL)
		SetLatch(DtxWorkers->launcher_latch);
}
