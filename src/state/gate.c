/*-------------------------------------------------------------------------
 *
 * gate.c
 *		The gate through which distributed transactions commit, and which is closed
 *		while snapshots are taken on several servers.
 *
 * A transaction commits on one node after the other, so snapshots that are taken
 * meanwhile see a part of it.  Therefore it passes a gate: it enters when all its
 * participants are prepared, before any node commits, and leaves when all nodes have
 * confirmed, or it is left to the resolver, which its prepared transactions show on their
 * servers.  Who wants to take snapshots closes the gate, waits until it is empty, takes
 * them, and opens it.
 *
 * WHOM A CLOSED GATE CONCERNS.  It is closed for the nodes on which snapshots are taken,
 * this database included.
 *
 * - Who would commit on one of them or more does not enter.  One is enough: a later
 *	 transaction of the same client, on another node, must not be seen without it.
 *
 * - Who is inside and has not decided yet is waited for if it commits on two of them or
 *	 more.  On one of them it cannot be seen in part; and whoever depends on it enters
 *	 later.
 *
 * - Who has decided is waited for as long as one of them has not confirmed.
 *
 * So a server that hangs holds up nobody who does not use it.  But such a one that was not
 * waited for may commit between two snapshots, and then a transaction that did not pass the
 * gate, because it was local, may follow and be seen without it.  DtxGateKept() tells.
 *
 * HOW LONG.  A gate is closed up to a moment, and from then on concerns nobody, whatever has
 * become of its owner, who therefore looks whether that has come when the snapshots are
 * taken (DtxGateKept).  Those who wait to enter are let in before one is closed again, as far
 * as that takes no longer than they are closed at first (may_close).  So who enters waits for
 * gates that were closed when it came, and for others only if it has not got to run meanwhile;
 * and one that never goes on delays those who close gates, but nobody for ever.
 *
 * HOW IT WORKS.  A committer writes into its slot where it stands, and then looks whether
 * any gate is closed; who closes one enters it, and then looks into the slots.  Both steps
 * of each have a full barrier between them (the locks), so at least one sees the other.
 * A committer that finds that it is concerned steps back, and sleeps.
 *
 * Between the decision and DtxGateLeave() nothing here throws, waits for more than a lock
 * that is held for a few instructions, or allocates.
 *
 * DtxGateWillPrepare(), DtxGateEnter() and DtxGateEnterAlone() throw on interrupts; the
 * transaction is then where it was.  So do DtxGateClose(), after which no gate is
 * closed, and DtxGateAwaitEmpty(), after which the caller opens it.  The rest throws
 * nothing.  A gate that is closed is opened at the end of its process at the latest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/process.h"
#include "miscadmin.h"
#include "port/atomics.h"
#include "state/gate.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"

/* Gates that are closed at a time. */
#define MAX_CLOSED	32

/* For so many milliseconds others may close theirs, too, though committers wait. */
#define TOGETHER_MS	10

/* Nodes of a committer, or of a closed gate. */
typedef struct Nodes
{
	int			n;
	bool		all;			/* more than there is room for */
	DtxGateNode nodes[DTX_GATE_NODES];
} Nodes;

/* Where a committer stands. */
typedef enum Stage
{
	OUTSIDE,
	PREPARING,					/* its participants are being prepared */
	INSIDE,						/* it may be decided at any moment */
	DECIDED						/* its outcome can be seen here, or on the
								 * server that decides */
} Stage;

typedef struct GateSlot
{
	LWLock		lock;			/* guards the rest, which only its backend
								 * writes */
	Stage		stage;
	int			pid;
	Oid			dbid;
	bool		local;			/* has it written here? */
	uint64		xid;			/* of the last one in two phases with which it
								 * has entered, or 0 */
	uint64		entries;		/* how often it has entered */
	Nodes		on;
	bool		confirmed[DTX_GATE_NODES];
} GateSlot;

typedef struct ClosedGate
{
	int			procno;			/* whose; -1: unused */
	Oid			dbid;
	DtxGateKind kind;
	DtxMoment	until;
	Nodes		on;
} ClosedGate;

typedef struct GateShared
{
	LWLock		lock;			/* guards closed, and the count of those who
								 * wait */
	pg_atomic_uint32 nclosed;	/* entries of closed in use; written with the
								 * lock, read without */
	int			nwaiting;		/* committers that wait to enter */
	DtxMoment	open_since;		/* when the last gate was opened */
	DtxMoment	closed_since;	/* when the first of those that are closed
								 * was */
	ConditionVariable opened;	/* a gate was opened, or a committer has
								 * entered */
	ConditionVariable left;		/* a committer has left, or gone on */
	ClosedGate	closed[MAX_CLOSED];
	int			nslots;			/* constant */
	GateSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} GateShared;

static GateShared *gate = NULL;

/* This process's slot, or NULL; what it says; and does it wait to enter? */
static GateSlot *my_slot = NULL;
static Stage my_stage = OUTSIDE;
static uint64 my_xid = 0;
static bool waiting = false;

/* The gate that this process has closed, or NULL. */
static ClosedGate *my_gate = NULL;

/* Who was inside and was not waited for, when it was found to be empty. */
typedef struct Passed
{
	int			procno;
	uint64		entries;
} Passed;

static Passed *passed = NULL;	/* room for all slots */
static int	npassed = 0;

static void attach(void);
static void detach(int code, Datum arg);
static void set_nodes(Nodes *on, const DtxGateNode *nodes, int n);
static void enter(Stage stage, uint64 xid);
static void set_stage(Stage stage, uint64 xid);
static void set_waiting(bool wait);
static DtxMoment closed_until(Stage from, Stage to);
static bool may_close(int ms, DtxMoment *look_at);
static int	count_common(const GateSlot *slot, const ClosedGate *closed,
						 bool unconfirmed, Oid *serverid);
static bool same_node(const DtxGateNode *a, const DtxGateNode *b);
static bool holds_up(const GateSlot *slot, const ClosedGate *closed, Oid *serverid,
					 bool *is_passed);

/* Wait event, see DtxWaitEvent(). */
static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = DtxWaitEvent("DtxGate");
	return event;
}

/*
 * Bytes of shared memory that this module needs.  MaxBackends must be known.
 */
Size
DtxGateShmemSize(void)
{
	return add_size(offsetof(GateShared, slots),
					mul_size(MaxBackends, sizeof(GateSlot)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxGateShmemInit(void)
{
	bool		found;

	gate = ShmemInitStruct("pg_dtx gate", DtxGateShmemSize(), &found);
	if (!found)
	{
		int			tranche = DtxLWLockTranche("DtxGateLock");

		memset(gate, 0, DtxGateShmemSize());
		LWLockInitialize(&gate->lock, tranche);
		pg_atomic_init_u32(&gate->nclosed, 0);
		ConditionVariableInit(&gate->opened);
		ConditionVariableInit(&gate->left);
		for (int i = 0; i < MAX_CLOSED; i++)
			gate->closed[i].procno = -1;
		gate->nslots = MaxBackends;
		for (int i = 0; i < gate->nslots; i++)
			LWLockInitialize(&gate->slots[i].lock, tranche);
	}
}

static void
attach(void)
{
	if (my_slot != NULL)
		return;
	(void) wait_event();
	my_slot = &gate->slots[DtxMyProcNumber()];
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->stage = OUTSIDE;
	my_slot->pid = MyProcPid;
	my_slot->dbid = MyDatabaseId;
	my_slot->xid = my_xid = 0;
	LWLockRelease(&my_slot->lock);
	on_shmem_exit(detach, (Datum) 0);
}

/* After the abort of a transaction that was under way (ipc.c, shmem_exit). */
static void
detach(int code, Datum arg)
{
	DtxAssertExiting();
	DtxGateOpen();
	DtxGateLeave();
	my_slot = NULL;
}

static void
set_nodes(Nodes *on, const DtxGateNode *nodes, int n)
{
	on->all = n > DTX_GATE_NODES;
	on->n = Min(n, DTX_GATE_NODES);
	memcpy(on->nodes, nodes, sizeof(DtxGateNode) * on->n);
}

/* ----------------------------------------------------------------
 * Committing
 * ----------------------------------------------------------------
 */

/*
 * The current transaction is about to prepare participants on these nodes; "local": it has
 * written here, too.  Waits while nothing is to be prepared.
 */
void
DtxGateWillPrepare(const DtxGateNode *nodes, int n, bool local)
{
	attach();
	Assert(my_stage == OUTSIDE);
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->local = local;
	set_nodes(&my_slot->on, nodes, n);
	memset(my_slot->confirmed, 0, sizeof(my_slot->confirmed));
	LWLockRelease(&my_slot->lock);
	enter(PREPARING, my_xid);
}

/*
 * All participants are prepared, and the next step is the decision; "xid" is DtxGid.xid of
 * the transaction.  Waits while nothing is to be committed.
 */
void
DtxGateEnter(uint64 xid)
{
	Assert(my_stage == PREPARING);
	DTX_FAULT("gate-enter", NULL);
	enter(INSIDE, xid);
	DTX_FAULT("gate-inside", NULL);
}

/*
 * The current transaction is about to commit on this node alone.  Waits while nothing is
 * to be committed there.
 */
void
DtxGateEnterAlone(const DtxGateNode *node)
{
	attach();
	Assert(my_stage == OUTSIDE);
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->local = false;
	set_nodes(&my_slot->on, node, 1);
	memset(my_slot->confirmed, 0, sizeof(my_slot->confirmed));
	LWLockRelease(&my_slot->lock);
	enter(INSIDE, my_xid);
}

/*
 * Go on to a stage, as soon as no closed gate is in the way.  Throws on interrupts, and
 * then it stays where it was.
 */
static void
enter(Stage stage, uint64 xid)
{
	Stage		from = my_stage;
	uint64		before = my_xid;
	DtxMoment	until;

	set_stage(stage, xid);
	if (pg_atomic_read_u32(&gate->nclosed) == 0 || closed_until(from, stage) == 0)
		return;

	set_waiting(true);
	PG_TRY();
	{
		do
		{
			/*
			 * Nobody waits for who waits here.  To wake others is to be awake
			 * (ConditionVariableBroadcast), so that comes first.
			 */
			set_stage(from, before);
			ConditionVariableBroadcast(&gate->left);
			DTX_FAULT("gate-wait", NULL);
			ConditionVariablePrepareToSleep(&gate->opened);
			while ((until = closed_until(from, stage)) != 0)
				(void) ConditionVariableTimedSleep(&gate->opened, Max(1, DtxUntil(until)),
												   wait_event());
			ConditionVariableCancelSleep();
			set_stage(stage, xid);
		} while (closed_until(from, stage) != 0);
	}
	PG_CATCH();
	{
		ConditionVariableCancelSleep();
		set_stage(from, before);
		set_waiting(false);
		PG_RE_THROW();
	}
	PG_END_TRY();
	set_waiting(false);
}

/*
 * What others see of this process.  A full barrier.  Does not throw.
 */
static void
set_stage(Stage stage, uint64 xid)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->stage = stage;
	my_slot->xid = xid;
	if (stage == INSIDE)
		my_slot->entries++;
	LWLockRelease(&my_slot->lock);
	my_stage = stage;
	my_xid = xid;
}

static void
set_waiting(bool wait)
{
	if (waiting == wait)
		return;
	waiting = wait;
	LWLockAcquire(&gate->lock, LW_EXCLUSIVE);
	gate->nwaiting += wait ? 1 : -1;
	LWLockRelease(&gate->lock);
	if (!wait)
		ConditionVariableBroadcast(&gate->opened);
}

/*
 * The moment up to which a gate is closed that keeps this process from going from one
 * stage to another; 0: none does.
 */
static DtxMoment
closed_until(Stage from, Stage to)
{
	DtxMoment	until = 0;

	LWLockAcquire(&gate->lock, LW_SHARED);
	for (int i = 0; i < MAX_CLOSED; i++)
	{
		const ClosedGate *closed = &gate->closed[i];

		if (closed->procno < 0 || DtxIsDue(closed->until) ||
			(to == PREPARING && closed->kind != DTX_GATE_PREPARE) ||
			(from == PREPARING && closed->kind == DTX_GATE_PREPARE) ||
			count_common(my_slot, closed, false, NULL) == 0)
			continue;
		until = Max(until, closed->until);
	}
	LWLockRelease(&gate->lock);
	return until;
}

/*
 * The transaction is decided, and that can be seen where it was.
 */
void
DtxGateDecided(void)
{
	if (my_stage != INSIDE)
		return;
	set_stage(DECIDED, my_xid);
	if (pg_atomic_read_u32(&gate->nclosed) > 0)
		ConditionVariableBroadcast(&gate->left);
}

/*
 * The node of this participant has confirmed.
 */
void
DtxGateConfirmed(int index)
{
	if (my_stage != DECIDED)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < my_slot->on.n; i++)
	{
		if (my_slot->on.nodes[i].index == index)
			my_slot->confirmed[i] = true;
	}
	LWLockRelease(&my_slot->lock);
	if (pg_atomic_read_u32(&gate->nclosed) > 0)
		ConditionVariableBroadcast(&gate->left);
}

/*
 * The transaction is over, or what is left of it is the resolver's.  Also if it has not
 * entered.
 */
void
DtxGateLeave(void)
{
	if (waiting)
		set_waiting(false);
	if (my_stage == OUTSIDE)
		return;
	set_stage(OUTSIDE, my_xid);
	if (pg_atomic_read_u32(&gate->nclosed) > 0)
		ConditionVariableBroadcast(&gate->left);
}

/* ----------------------------------------------------------------
 * Taking snapshots
 * ----------------------------------------------------------------
 */

/*
 * Close a gate for these nodes, and this database, for so many milliseconds.  Waits until
 * those who waited for others have entered, as long as that, and while too many gates are
 * closed.  Returns false if that has taken until the deadline.
 */
bool
DtxGateClose(DtxGateKind kind, const DtxGateNode *nodes, int n, int ms, DtxMoment deadline)
{
	attach();
	Assert(my_gate == NULL);
	if (passed == NULL)
		passed = MemoryContextAlloc(TopMemoryContext, sizeof(Passed) * gate->nslots);
	npassed = 0;

	ConditionVariablePrepareToSleep(&gate->opened);
	for (;;)
	{
		DtxMoment	look_at = DtxIn(ms);

		LWLockAcquire(&gate->lock, LW_EXCLUSIVE);
		if (may_close(ms, &look_at))
		{
			for (int i = 0; i < MAX_CLOSED && my_gate == NULL; i++)
			{
				if (gate->closed[i].procno < 0)
					my_gate = &gate->closed[i];
			}
		}
		if (my_gate != NULL)
		{
			my_gate->procno = DtxMyProcNumber();
			my_gate->dbid = MyDatabaseId;
			my_gate->kind = kind;
			my_gate->until = DtxIn(ms);
			set_nodes(&my_gate->on, nodes, n);
			pg_atomic_fetch_add_u32(&gate->nclosed, 1);
		}
		LWLockRelease(&gate->lock);
		if (my_gate != NULL || DtxIsDue(deadline))
			break;
		(void) ConditionVariableTimedSleep(&gate->opened,
										   Max(1, DtxUntil(Min(look_at, deadline))),
										   wait_event());
	}
	ConditionVariableCancelSleep();
	return my_gate != NULL;
}

/*
 * May a gate be closed now?  While committers wait to enter, not before all have been open
 * for so many milliseconds, and from then on all who want to at once: one at a time those who
 * open theirs quickly would overtake the others for ever.  Otherwise *look_at is set to when
 * that may be, if it is known.  The caller holds the lock; the period in which one is closed
 * begins now, if it may and none is.
 */
static bool
may_close(int ms, DtxMoment *look_at)
{
	DtxMoment	since = gate->open_since;
	bool		open = true;

	for (int i = 0; i < MAX_CLOSED; i++)
	{
		if (gate->closed[i].procno < 0)
			continue;
		if (DtxIsDue(gate->closed[i].until))
			since = Max(since, gate->closed[i].until);
		else
			open = false;
	}
	if (gate->nwaiting > 0)
	{
		if (open && !DtxIsDue(since + ms))
		{
			*look_at = since + ms;
			return false;
		}
		if (!open && DtxIsDue(gate->closed_since + TOGETHER_MS))
			return false;
	}
	if (open)
		gate->closed_since = DtxNow();
	return true;
}

/*
 * Wait until nobody is inside whom the gate of this process concerns.  Returns false if
 * that has taken as long as it is closed, and one of those who are.  For half of that time
 * those are waited for, too, who need not be: the fewer of them there are, the fewer leave
 * before DtxGateKept().
 */
bool
DtxGateAwaitEmpty(DtxGateBlocker *blocker)
{
	DtxMoment	begin = DtxNow();
	DtxMoment	half = begin + (my_gate->until - begin) / 2;
	bool		empty;

	ConditionVariablePrepareToSleep(&gate->left);
	for (;;)
	{
		empty = true;
		npassed = 0;
		for (int i = 0; i < gate->nslots && empty; i++)
		{
			GateSlot   *slot = &gate->slots[i];
			bool		is_passed = false;

			if (slot == my_slot)
				continue;
			LWLockAcquire(&slot->lock, LW_SHARED);
			if (holds_up(slot, my_gate, &blocker->serverid, &is_passed))
			{
				blocker->pid = slot->pid;
				empty = false;
			}
			else if (is_passed)
			{
				passed[npassed].procno = i;
				passed[npassed++].entries = slot->entries;
			}
			LWLockRelease(&slot->lock);
		}
		if ((empty && (npassed == 0 || DtxIsDue(half))) || DtxIsDue(my_gate->until))
			break;
		(void) ConditionVariableTimedSleep(&gate->left,
										   Max(1, DtxUntil(empty ? half : my_gate->until)),
										   wait_event());
	}
	ConditionVariableCancelSleep();
	return empty;
}

/*
 * Has a closed gate to wait for this committer?  *is_passed is set if not, although it is
 * inside and commits on one of its nodes.  The caller holds the slot's lock.
 */
static bool
holds_up(const GateSlot *slot, const ClosedGate *closed, Oid *serverid, bool *is_passed)
{
	int			common;

	if (slot->stage == OUTSIDE ||
		(slot->stage == PREPARING && closed->kind != DTX_GATE_PREPARE))
		return false;
	common = count_common(slot, closed, false, serverid);
	if (slot->stage == DECIDED)
		return common > 1 && count_common(slot, closed, true, serverid) > 0;
	*is_passed = common == 1 && slot->stage == INSIDE;
	return common > 1;
}

/*
 * On how many nodes of a gate does a committer commit; this database is one of them if there
 * is another one: alone it is as with local transactions, which do not pass the gate; "unconfirmed": and has that not been
 * confirmed?  *serverid, unless it is NULL, is set to one of them.  The caller holds
 * the slot's lock, or owns it.
 */
static int
count_common(const GateSlot *slot, const ClosedGate *closed, bool unconfirmed,
			 Oid *serverid)
{
	int			n = 0;

	if (slot->dbid != closed->dbid)
		return 0;
	if (slot->on.all)
		return DTX_GATE_NODES;
	for (int i = 0; i < slot->on.n; i++)
	{
		bool		common = closed->on.all;

		for (int j = 0; j < closed->on.n && !common; j++)
			common = same_node(&slot->on.nodes[i], &closed->on.nodes[j]);
		if (!common || (unconfirmed && slot->confirmed[i]))
			continue;
		n++;
		if (serverid != NULL)
			*serverid = slot->on.nodes[i].serverid;
	}
	return n + (slot->local && n > 0 && !unconfirmed ? 1 : 0);
}

/* May they be the same?  What is not known is no proof that they are not. */
static bool
same_node(const DtxGateNode *a, const DtxGateNode *b)
{
	return a->serverid == b->serverid || a->system_id == 0 || b->system_id == 0 ||
		a->system_id == b->system_id;
}

/*
 * The gate of this process stays closed for so many milliseconds from now on.  Returns
 * false, and it does not, if it was closed up to now only.
 */
bool
DtxGateExtend(int ms)
{
	bool		in_time;

	LWLockAcquire(&gate->lock, LW_EXCLUSIVE);
	in_time = !DtxIsDue(my_gate->until);
	if (in_time)
		my_gate->until = Max(my_gate->until, DtxIn(ms));
	LWLockRelease(&gate->lock);
	return in_time;
}

/* Up to when it is closed. */
DtxMoment
DtxGateClosedUntil(void)
{
	return my_gate->until;
}

/*
 * Was the gate of this process closed all the time from when it was found to be empty until
 * now, and has nobody left it since?  Then what snapshots have seen is a cut through the
 * history of this database.
 */
bool
DtxGateKept(void)
{
	bool		kept;

	LWLockAcquire(&gate->lock, LW_SHARED);
	kept = !DtxIsDue(my_gate->until);
	LWLockRelease(&gate->lock);
	for (int i = 0; i < npassed && kept; i++)
	{
		GateSlot   *slot = &gate->slots[passed[i].procno];

		LWLockAcquire(&slot->lock, LW_SHARED);
		kept = slot->stage == INSIDE && slot->entries == passed[i].entries;
		LWLockRelease(&slot->lock);
	}
	return kept;
}

/*
 * Open the gate that this process has closed, if it has.
 */
void
DtxGateOpen(void)
{
	if (my_gate == NULL)
		return;
	LWLockAcquire(&gate->lock, LW_EXCLUSIVE);
	gate->open_since = Max(gate->open_since, Min(DtxNow(), my_gate->until));
	my_gate->procno = -1;
	my_gate = NULL;
	pg_atomic_fetch_sub_u32(&gate->nclosed, 1);
	LWLockRelease(&gate->lock);
	ConditionVariableBroadcast(&gate->opened);
}

/*
 * Has the backend with this number entered with this transaction, which it is responsible
 * for?  Then it may be committed on some of its nodes.
 */
bool
DtxGateHasEntered(int procno, uint64 xid)
{
	GateSlot   *slot = &gate->slots[procno];
	bool		entered;

	LWLockAcquire(&slot->lock, LW_SHARED);
	entered = slot->xid == xid;
	LWLockRelease(&slot->lock);
	return entered;
}
