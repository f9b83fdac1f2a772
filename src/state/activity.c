/*-------------------------------------------------------------------------
 *
 * activity.c
 *		What each backend is doing now, in shared memory: which distributed
 *		transaction it is responsible for, and which decision row it will use
 *		again.
 *
 * One slot per PGPROC of a regular backend.  Only its backend writes a slot;
 * resolvers and views read it.  The slot's lock makes these reads consistent;
 * it is held for a few instructions, never across a wait.
 *
 * Two things rest on a slot:
 *
 * 1. Resolvers leave a gid alone while a slot says that its backend takes care
 *	  of it (DtxActivityResponsible).  So a slot must name the transaction
 *	  before the first PREPARE is sent, and must go on doing so until the local
 *	  transaction's outcome is visible to a snapshot taken later.  The slot of a
 *	  backend that dies is emptied in on_shmem_exit, which runs after
 *	  ShutdownPostgres() has aborted the transaction (storage/ipc/ipc.c,
 *	  shmem_exit: before_shmem_exit callbacks first).
 *
 * 2. The decision row of a slot whose participants have all confirmed is used
 *	  again by the next distributed transaction in this slot, be it by this
 *	  backend or by the next one that gets the same PGPROC.  That keeps the
 *	  decision table at one row per slot, and resolvers must not delete such a
 *	  row (DtxActivityOwnsRow), unless they have taken it out of a slot that
 *	  nobody uses (DtxActivityAdoptRow).
 *
 * Slots speak of the current boot only (identity.c): an xid that never reached
 * the WAL is handed out again after a crash, so an xid alone decides nothing.
 *
 * Nothing here throws, allocates in a memory context or waits for more than the lock of
 * a slot, but for the first DtxActivityBegin() of a process, which registers a callback
 * for its end (on_shmem_exit).  What speaks of "this backend" is called by that
 * backend, after DtxActivityBegin(); the rest by anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/process.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "state/activity.h"
#include "state/boot.h"
#include "storage/ipc.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

typedef struct ActivitySlot
{
	LWLock		lock;			/* guards everything below */
	DtxActivity pub;			/* what the views show; pid 0: slot unused */
	uint64		committing_xid; /* transaction this backend answers for, or 0 */
	TimestampTz committing_start;	/* start of that transaction */
	DtxMoment	takeover_at;	/* when resolvers may help, 0: never */
	Oid			used_dbid;		/* database of the following */
	int			nused;			/* servers of the last transaction without a
								 * decision row, as many as there is room for */
	Oid			used[DTX_USED_SERVERS];
	DtxMoment	used_at;		/* when it prepared */
	Oid			row_dbid;		/* database of the decision row, or invalid */
	uint64		row_xid;		/* xid in that row, 0: no row to use again */
	ItemPointerData row_tid;	/* where that row is */
} ActivitySlot;

typedef struct ActivityShared
{
	int			nslots;			/* constant after init */
	pg_atomic_uint64 routes_deleted;	/* how often routes may have been */
	pg_atomic_uint64 last_number;	/* DtxActivityNextNumber() */
	ActivitySlot slots[FLEXIBLE_ARRAY_MEMBER];
} ActivityShared;

static ActivityShared *activity = NULL;

/* This backend's slot, NULL until the first use. */
static ActivitySlot *my_slot = NULL;

static void activity_attach(void);
static void activity_detach(int code, Datum arg);
static bool next_slot(ActivitySlot **slot, LWLockMode mode);
static void end_slots(ActivitySlot *slot);

/*
 * Bytes of shared memory that this module needs.  MaxBackends must be known.
 */
Size
DtxActivityShmemSize(void)
{
	return add_size(offsetof(ActivityShared, slots),
					mul_size(MaxBackends, sizeof(ActivitySlot)));
}

/*
 * Create or attach to the slots.  The caller holds AddinShmemInitLock.
 */
void
DtxActivityShmemInit(void)
{
	bool		found;

	activity = ShmemInitStruct("pg_dtx activity", DtxActivityShmemSize(), &found);
	if (!found)
	{
		int			tranche = DtxLWLockTranche("DtxActivity");

		memset(activity, 0, DtxActivityShmemSize());
		activity->nslots = MaxBackends;
		pg_atomic_init_u64(&activity->routes_deleted, 0);
		pg_atomic_init_u64(&activity->last_number, 0);
		for (int i = 0; i < activity->nslots; i++)
			LWLockInitialize(&activity->slots[i].lock, tranche);
	}
}

/*
 * Take this backend's slot.  What the previous owner left of a decision row
 * stays: it is ours to use now.
 */
static void
activity_attach(void)
{
	int			procno = DtxMyProcNumber();

	Assert(procno >= 0 && procno < activity->nslots);
	my_slot = &activity->slots[procno];

	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	memset(&my_slot->pub, 0, sizeof(my_slot->pub));
	my_slot->pub.pid = MyProcPid;
	my_slot->pub.dbid = MyDatabaseId;
	my_slot->committing_xid = 0;
	my_slot->takeover_at = 0;
	LWLockRelease(&my_slot->lock);

	on_shmem_exit(activity_detach, (Datum) 0);
}

static void
activity_detach(int code, Datum arg)
{
	DtxAssertExiting();
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.pid = 0;
	my_slot->pub.state = DTX_IDLE;

	/*
	 * A transaction that is still ours here committed without all its
	 * confirmations (commit_wait = off): the row must not be used again, and
	 * from now on the resolver is responsible.
	 */
	my_slot->committing_xid = 0;
	LWLockRelease(&my_slot->lock);
	my_slot = NULL;
}

/*
 * The current local transaction got its first participant.
 */
void
DtxActivityBegin(void)
{
	if (my_slot == NULL)
		activity_attach();

	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.userid = GetSessionUserId();
	my_slot->pub.state = DTX_ACTIVE;
	my_slot->pub.xid = 0;
	memset(&my_slot->pub.decider, 0, sizeof(DtxDecider));
	my_slot->pub.start = GetCurrentTransactionStartTimestamp();
	my_slot->pub.nparticipants = 0;
	LWLockRelease(&my_slot->lock);
}

/*
 * Participant number "index", from 0, is a transaction on "serverid".
 */
void
DtxActivityAddServer(int index, Oid serverid)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	if (index < DTX_SHOWN_PARTICIPANTS)
	{
		my_slot->pub.servers[index] = serverid;
		my_slot->pub.waiting[index] = false;
	}
	my_slot->pub.nparticipants = index + 1;
	LWLockRelease(&my_slot->lock);
}

/*
 * The number of a transaction that is decided by a server, with DTX_NUMBERED.  No other
 * transaction of this boot has it.
 */
uint64
DtxActivityNextNumber(void)
{
	return (pg_atomic_fetch_add_u64(&activity->last_number, 1) + 1) | DTX_NUMBERED;
}

/*
 * From now on this backend is responsible for the gids of this gid's transaction.  To
 * be called before the first PREPARE is sent.
 */
void
DtxActivityPublish(const DtxGid *gid)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.state = DTX_PREPARING;
	my_slot->pub.xid = gid->xid;
	my_slot->pub.decider = gid->decider;
	my_slot->committing_xid = gid->xid;
	if (DtxGidDecidedElsewhere(gid))
	{
		my_slot->used_dbid = MyDatabaseId;
		my_slot->nused = Min(my_slot->pub.nparticipants, DTX_USED_SERVERS);
		memcpy(my_slot->used, my_slot->pub.servers, sizeof(Oid) * my_slot->nused);
		my_slot->used_at = DtxNow();
	}
	my_slot->committing_start = my_slot->pub.start;
	my_slot->takeover_at = 0;
	LWLockRelease(&my_slot->lock);
}

/*
 * The start of the transaction "xid", if this backend is responsible for it; else 0.
 */
TimestampTz
DtxActivityStarted(uint64 xid)
{
	TimestampTz result = 0;

	if (my_slot == NULL)
		return 0;
	LWLockAcquire(&my_slot->lock, LW_SHARED);
	if (my_slot->committing_xid == xid)
		result = my_slot->committing_start;
	LWLockRelease(&my_slot->lock);
	return result;
}

/*
 * Enter another state.  From takeover_at on (0: never) a resolver need not wait
 * for this backend any more; only to be given once the outcome is visible.
 */
void
DtxActivitySetState(DtxState state, DtxMoment takeover_at)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.state = state;
	my_slot->takeover_at = takeover_at;
	LWLockRelease(&my_slot->lock);
}

/*
 * Is a reply of participant "index" outstanding?  For dtx.transactions only.
 */
void
DtxActivitySetWaiting(int index, bool waiting)
{
	if (index >= DTX_SHOWN_PARTICIPANTS)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.waiting[index] = waiting;
	LWLockRelease(&my_slot->lock);
}

/*
 * The current distributed transaction is over.  If it was published under
 * "xid", this backend is not responsible for it any more: it is finished, or
 * the resolver's from now on.  An earlier transaction whose confirmations are
 * still due (commit_wait = off) stays ours: pass 0 then.
 */
void
DtxActivityEnd(uint64 xid)
{
	if (my_slot == NULL)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.state = DTX_IDLE;
	my_slot->pub.xid = 0;
	my_slot->pub.nparticipants = 0;
	if (xid != 0 && my_slot->committing_xid == xid)
	{
		my_slot->committing_xid = 0;
		my_slot->takeover_at = 0;
	}
	LWLockRelease(&my_slot->lock);
}

/*
 * An earlier transaction, whose confirmations were still due, is finished or
 * the resolver's from now on.  What the current one shows is not touched.
 */
void
DtxActivityRelease(uint64 xid)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	if (my_slot->committing_xid == xid)
	{
		my_slot->committing_xid = 0;
		my_slot->takeover_at = 0;
		if (my_slot->pub.state == DTX_COMMITTING)
			my_slot->pub.state = DTX_IDLE;
	}
	LWLockRelease(&my_slot->lock);
}

/*
 * The decision row of this slot that may be overwritten, if there is one in
 * this database.  The caller must check that the row there still is the one
 * with this xid and this boot id: the table may have been rewritten.
 */
bool
DtxActivityGetRow(uint64 *xid, ItemPointer tid)
{
	bool		result;

	LWLockAcquire(&my_slot->lock, LW_SHARED);
	result = my_slot->row_xid != 0 && my_slot->row_dbid == MyDatabaseId;
	*xid = my_slot->row_xid;
	*tid = my_slot->row_tid;
	LWLockRelease(&my_slot->lock);
	return result;
}

/*
 * All participants of "xid" have confirmed: its row may be used again.  Not if
 * this backend has stopped being responsible for xid in between, because then
 * a resolver may be about to delete the row.  Call it before DtxActivityEnd().
 */
void
DtxActivitySetRow(uint64 xid, ItemPointer tid)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	if (my_slot->committing_xid == xid)
	{
		my_slot->row_dbid = MyDatabaseId;
		my_slot->row_xid = xid;
		my_slot->row_tid = *tid;
	}
	LWLockRelease(&my_slot->lock);
}

/*
 * The slot's row is not to be used again; once nobody is responsible for its
 * transaction, it is the resolver's to delete.
 */
void
DtxActivityForgetRow(void)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->row_xid = 0;
	LWLockRelease(&my_slot->lock);
}

/*
 * A walk over all slots: begins with *slot NULL, and goes from the slot that it is at
 * and holds the lock of to the next one.  Returns false at the end, with *slot NULL.  Who
 * ends it before calls end_slots(); nothing that throws may come between.
 */
static bool
next_slot(ActivitySlot **slot, LWLockMode mode)
{
	int			next = *slot == NULL ? 0 : *slot - activity->slots + 1;

	end_slots(*slot);
	*slot = next < activity->nslots ? &activity->slots[next] : NULL;
	if (*slot != NULL)
		LWLockAcquire(&(*slot)->lock, mode);
	return *slot != NULL;
}

/* Let go of where a walk is; NULL: it has come to its end. */
static void
end_slots(ActivitySlot *slot)
{
	if (slot != NULL)
		LWLockRelease(&slot->lock);
}

/*
 * The number of the entry whose backend is responsible for a gid, or -1.
 */
int
DtxActivityResponsibleProc(const DtxGid *gid)
{
	ActivitySlot *slot = NULL;
	int			procno = -1;

	if (gid->boot_id != DtxBootId())
		return -1;
	while (procno < 0 && next_slot(&slot, LW_SHARED))
	{
		if (slot->pub.pid != 0 && slot->pub.dbid == gid->dbid &&
			slot->committing_xid == gid->xid)
			procno = slot - activity->slots;
	}
	end_slots(slot);
	return procno;
}

/*
 * Is a live backend of this boot taking care of this gid?
 *
 * "false" is final for a gid of this boot: a backend answers for a transaction
 * before its first PREPARE is sent, so the gid of a transaction to come cannot
 * have been seen on a server, and an xid is not used twice in one boot.  After
 * "false", a snapshot taken later shows the outcome, because slots are emptied
 * after ProcArrayEndTransaction() (access/transam/xact.c, CommitTransaction
 * and AbortTransaction), and the one case in which a resolver takes over from
 * a live backend is a transaction whose local commit is behind it.
 */
bool
DtxActivityResponsible(const DtxGid *gid)
{
	ActivitySlot *slot = NULL;
	bool		responsible = false;

	/* Gids of an earlier life, or of another machine, have nobody here. */
	if (gid->boot_id != DtxBootId())
		return false;

	while (!responsible && next_slot(&slot, LW_SHARED))
		responsible = slot->pub.pid != 0 && slot->pub.dbid == gid->dbid &&
			slot->committing_xid == gid->xid &&
			(slot->takeover_at == 0 || !DtxIsDue(slot->takeover_at));
	end_slots(slot);

	/*
	 * The second witness is the proc array: a transaction that PostgreSQL
	 * says is running has no outcome yet.  One that is decided by a server
	 * has its outcome there.
	 */
	if (!responsible && !DtxGidDecidedElsewhere(gid))
	{
		uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());

		/*
		 * TransactionIdIsInProgress() takes the lower half only, and says yes
		 * to what was not assigned yet.
		 */
		if (gid->xid < next && next - gid->xid < PG_INT32_MAX)
			responsible = TransactionIdIsInProgress((TransactionId) gid->xid);
	}

	return responsible;
}

/*
 * Is the decision row with this key going to be used again, or is its
 * transaction still being taken care of?  Then resolvers must not delete it.
 */
bool
DtxActivityOwnsRow(uint64 boot_id, uint64 xid)
{
	ActivitySlot *slot = NULL;
	bool		owned = false;

	if (boot_id != DtxBootId())
		return false;

	while (!owned && next_slot(&slot, LW_SHARED))
		owned = (slot->row_dbid == MyDatabaseId && slot->row_xid == xid) ||
			(slot->pub.pid != 0 && slot->pub.dbid == MyDatabaseId &&
			 slot->committing_xid == xid);
	end_slots(slot);
	return owned;
}

/*
 * Does the decision row with this key wait in a slot to be used again?  Then all
 * participants of its transaction have confirmed.
 */
bool
DtxActivityConfirmed(uint64 boot_id, uint64 xid)
{
	ActivitySlot *slot = NULL;
	bool		confirmed = false;

	if (boot_id != DtxBootId())
		return false;

	while (!confirmed && next_slot(&slot, LW_SHARED))
		confirmed = slot->row_dbid == MyDatabaseId && slot->row_xid == xid;
	end_slots(slot);
	return confirmed;
}

/*
 * A decision row that waits in a slot without a backend, to be used again by the
 * next one: take it away from the slot.  Returns false if there is no such slot.
 * After "true" the row is the caller's to delete: all participants have
 * confirmed (DtxActivitySetRow), and the backend that takes the slot now does not find
 * it.  A backend that is overwriting it has the slot, so it is not taken from
 * that one.
 */
bool
DtxActivityAdoptRow(uint64 boot_id, uint64 xid)
{
	ActivitySlot *slot = NULL;
	bool		adopted = false;

	if (boot_id != DtxBootId())
		return false;

	while (!adopted && next_slot(&slot, LW_EXCLUSIVE))
	{
		if (slot->pub.pid == 0 && slot->row_dbid == MyDatabaseId &&
			slot->row_xid == xid)
		{
			slot->row_xid = 0;
			adopted = true;
		}
	}
	end_slots(slot);
	return adopted;
}

/*
 * Is another backend of this database answering for a transaction?  Returns its
 * process id, or 0.
 */
int
DtxActivityAnyCommitting(void)
{
	ActivitySlot *slot = NULL;
	int			pid = 0;

	while (pid == 0 && next_slot(&slot, LW_SHARED))
	{
		if (slot->pub.pid != MyProcPid && slot->pub.dbid == MyDatabaseId &&
			slot->committing_xid != 0)
			pid = slot->pub.pid;
	}
	end_slots(slot);
	return pid;
}

/*
 * How often routes may have been deleted (route.c), in any database.  By a backend
 * after DtxActivityPublish().
 */
uint64
DtxActivityRoutesDeleted(void)
{
	return pg_atomic_read_u64(&activity->routes_deleted);
}

/*
 * Routes are going to be deleted: backends of this database that publish a transaction
 * from now on look again which there are.  Returns whether one has published a
 * transaction already, and so may rely on what it knows.  The locks of the slots are
 * barriers for both sides.
 */
bool
DtxActivityDeleteRoutes(void)
{
	(void) pg_atomic_fetch_add_u64(&activity->routes_deleted, 1);
	return DtxActivityAnyCommitting() != 0;
}

/*
 * Number of slots, for DtxActivityGet().
 */
int
DtxActivityCount(void)
{
	return activity->nslots;
}

/*
 * Copy what slot "index" shows.  Returns false if there is no distributed
 * transaction in it.
 */
bool
DtxActivityGet(int index, DtxActivity *copy)
{
	ActivitySlot *slot = &activity->slots[index];
	bool		result;

	LWLockAcquire(&slot->lock, LW_SHARED);
	result = slot->pub.pid != 0 && slot->pub.state != DTX_IDLE;
	if (result)
		*copy = slot->pub;
	LWLockRelease(&slot->lock);
	return result;
}

/*
 * The servers on which the last transaction in slot "index" has prepared, if it has left
 * no decision row that tells, because a server decided, and was one of this database.
 * "servers" has room for DTX_USED_SERVERS.  Returns how many there are.
 */
int
DtxActivityUsed(int index, Oid *servers, DtxMoment *at)
{
	ActivitySlot *slot = &activity->slots[index];
	int			n = 0;

	LWLockAcquire(&slot->lock, LW_SHARED);
	if (slot->used_dbid == MyDatabaseId)
	{
		n = slot->nused;
		memcpy(servers, slot->used, sizeof(Oid) * n);
		*at = slot->used_at;
	}
	LWLockRelease(&slot->lock);
	return n;
}
