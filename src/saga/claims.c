/*-------------------------------------------------------------------------
 *
 * claims.c
 *		Claims: which worker executes which step, and whether that is to be stopped.
 *
 * A worker that is going to execute a step claims it in shared memory, with the step's
 * row locked.  A claim goes with its process, after that has aborted its transaction.
 * So a step whose row says that it is being executed, and which nobody claims, was given
 * up by a worker that has died; and a step that is claimed is in good hands, however
 * long it takes.
 *
 * What is to be stopped is noted at the claim, which says exactly which execution it is:
 * saga, step, attempt, and direction.  The worker looks at its own claim while it
 * executes, and cancels itself (stop.c).  So nobody sends signals, and what is stopped is
 * what was meant, whatever the worker does by then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/process.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/claims.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/array.h"
#include "utils/palloc.h"

/*
 * A worker works on a step.  Guarded by SagaShared.lock.  While it is in use, the
 * element stays where it is: its worker reads "stop" without the lock, in a
 * signal handler.
 */
typedef struct SagaClaim
{
	bool		used;
	bool		provisional;	/* goes if the transaction aborts */
	bool		running;		/* is being executed since begun_at? */
	int			procno;			/* PGPROC number of the worker */
	Oid			dbid;			/* database */
	DtxSagaExecution execution;
	int			at;				/* lane where it is just now, -1: none */
	int			passed;			/* lanes where it has been */
	DtxMoment	at_since;		/* since when; 0: not begun */
	volatile sig_atomic_t stop; /* a DtxSagaStop: is it to be stopped? */
	TransactionId stop_with;	/* a prepared transaction that stops it if it
								 * is committed, or InvalidTransactionId */
} SagaClaim;

/* A step that has been somewhere for this time, ms, takes up no room elsewhere. */
#define HANGS_AFTER		1000

typedef struct SagaShared
{
	LWLock		lock;			/* guards what follows */
	int			nclaims;		/* elements of claims[] from here on are free */
	int			maxclaims;		/* constant: size of claims[] */
	SagaClaim	claims[FLEXIBLE_ARRAY_MEMBER];
} SagaShared;

static SagaShared *shared = NULL;

/* This transaction: are there provisional claims of ours? */
static bool claims_made = false;

/* This worker: the claim of the step that it executes, or NULL. */
static SagaClaim *volatile my_claim = NULL;

static int	max_claims(void);
static int	lane_workers(Oid lane, Oid role);
static bool lane_open(Oid lane, Oid role);
static void drop_claims(bool provisional_only, int64 saga, int16 step,
						bool keep);
static void drop_claims_at_exit(int code, Datum arg);

/*
 * Room for claims: two per worker do, one for the step that is being executed
 * and one for the next; some more for what a transaction claims and drops.
 */
static int
max_claims(void)
{
	return 4 * max_worker_processes + 64;
}

/*
 * Bytes of shared memory that this module needs.  max_worker_processes must be
 * known.
 */
Size
DtxSagaShmemSize(void)
{
	return add_size(offsetof(SagaShared, claims),
					mul_size(max_claims(), sizeof(SagaClaim)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxSagaShmemInit(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_dtx sagas", DtxSagaShmemSize(), &found);
	if (!found)
	{
		memset(shared, 0, DtxSagaShmemSize());
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxSaga"));
		shared->maxclaims = max_claims();
	}
}

/*
 * The transaction has committed: its claims stay.
 */
void
DtxClaimsAtCommit(void)
{
	claims_made = false;
}

/*
 * It has not: they go.  Never throws.
 */
void
DtxClaimsAtAbort(void)
{
	if (claims_made)
	{
		claims_made = false;
		drop_claims(true, 0, 0, false);
	}
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_claim);

/*
 * dtx_internal.saga_claim(saga, step, attempt, compensation, lanes, role): this worker is
 * going to execute that step.  The caller has the row of the step locked.  False
 * if another one executes it, or if the role has its share of workers on one of the lanes.
 */
Datum
dtx_sql_saga_claim(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	int64		saga = PG_GETARG_INT64(0);
	int16		step = PG_GETARG_INT16(1);
	int32		attempt = PG_GETARG_INT32(2);
	bool		compensation = PG_GETARG_BOOL(3);
	ArrayType  *lane_array = PG_GETARG_ARRAYTYPE_P(4);
	Oid			role = PG_GETARG_OID(5);
	Datum	   *lanes;
	int			nlanes;
	int			procno = DtxMyProcNumber();
	SagaClaim  *mine = NULL;
	SagaClaim  *unused = NULL;
	bool		ok = true;

	if (!registered)
	{
		on_shmem_exit(drop_claims_at_exit, (Datum) 0);
		registered = true;
	}

	deconstruct_array(lane_array, OIDOID, sizeof(Oid), true, TYPALIGN_INT,
					  &lanes, NULL, &nlanes);
	nlanes = Min(nlanes, DTX_SAGA_MAX_LANES);

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (!claim->used)
			unused = claim;
		else if (claim->dbid == MyDatabaseId &&
				 claim->execution.saga == saga && claim->execution.step == step)
		{
			if (claim->procno == procno)
				mine = claim;
			else
				ok = false;
		}
	}
	if (ok && mine == NULL)
	{
		if (unused == NULL && shared->nclaims < shared->maxclaims)
			unused = &shared->claims[shared->nclaims++];
		ok = unused != NULL;
		for (int i = 0; i < nlanes && ok; i++)
			ok = lane_open(DatumGetObjectId(lanes[i]), role);
		if (ok)
		{
			mine = unused;
			memset(mine, 0, sizeof(*mine));
			mine->used = true;
			mine->dbid = MyDatabaseId;
			mine->provisional = true;
			mine->procno = procno;
			claims_made = true;
		}
	}
	if (ok)
	{
		mine->execution.pid = MyProcPid;
		mine->execution.role = role;
		mine->execution.nlanes = nlanes;
		for (int i = 0; i < nlanes; i++)
			mine->execution.lanes[i] = DatumGetObjectId(lanes[i]);
		mine->execution.saga = saga;
		mine->execution.step = step;
		mine->execution.attempt = attempt;
		mine->execution.compensation = compensation;
		mine->at = -1;
		mine->passed = 0;
		mine->at_since = 0;
		mine->stop = DTX_SAGA_GO_ON;
		mine->stop_with = InvalidTransactionId;
	}
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(ok);
}

/*
 * Is that foreign server, or none if it is 0, one that an execution needs?
 */
bool
DtxSagaExecutionUses(const DtxSagaExecution *execution, Oid lane)
{
	for (int i = 0; i < execution->nlanes; i++)
	{
		if (execution->lanes[i] == lane)
			return true;
	}
	return false;
}

/*
 * Does that claim take up room on a lane: is it there, or about to be?  One that has been
 * somewhere else for a while may never come.  The caller holds the lock.
 */
static bool
takes_room(const SagaClaim *claim, Oid lane)
{
	for (int i = 0; i < claim->execution.nlanes; i++)
	{
		if (claim->execution.lanes[i] == lane)
			return i == claim->at ||
				(i >= claim->passed &&
				 (claim->at_since == 0 || !DtxIsDue(claim->at_since + HANGS_AFTER)));
	}
	return false;
}

/*
 * By a worker: from now on the step that it executes is at that foreign server, or at
 * none (InvalidOid).
 */
void
DtxSagaClaimAt(Oid server)
{
	SagaClaim  *claim = my_claim;

	DtxAssertInWorker();
	if (claim == NULL)
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	claim->at = -1;
	for (int i = 0; i < claim->execution.nlanes; i++)
	{
		if (claim->execution.lanes[i] == server)
			claim->at = i;
	}
	claim->passed = Max(claim->passed, claim->at + 1);
	claim->at_since = DtxNow();
	LWLockRelease(&shared->lock);
}

/*
 * How many other workers execute steps of that role on that lane?  The caller holds the
 * lock.
 */
static int
lane_workers(Oid lane, Oid role)
{
	int			procno = DtxMyProcNumber();
	int			n = 0;

	for (int i = 0; i < shared->nclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];
		bool		counted = false;

		if (!claim->used || claim->dbid != MyDatabaseId ||
			claim->execution.role != role || claim->procno == procno ||
			!takes_room(claim, lane))
			continue;

		/* One that commits has claimed its next step as well. */
		for (int j = 0; j < i && !counted; j++)
		{
			SagaClaim  *other = &shared->claims[j];

			counted = other->used && other->procno == claim->procno &&
				other->dbid == MyDatabaseId && other->execution.role == role &&
				takes_room(other, lane);
		}
		if (!counted)
			n++;
	}
	return n;
}

/*
 * May this worker execute a step of that role on that lane?  What other workers
 * execute for the role counts.  Of the workers that a role may have (one less than
 * there are: that one is kept for roles without any) one is left for other lanes,
 * so that a server that is slow does not hold up the others.  The caller holds the
 * lock.
 */
static bool
lane_open(Oid lane, Oid role)
{
	return lane_workers(lane, role) < Max(1, dtx_saga_workers - 2);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_lane_open);

/*
 * dtx_internal.saga_lane_open(lane, role)
 */
Datum
dtx_sql_saga_lane_open(PG_FUNCTION_ARGS)
{
	bool		open;

	LWLockAcquire(&shared->lock, LW_SHARED);
	open = lane_open(PG_GETARG_OID(0), PG_GETARG_OID(1));
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(open);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_lane_used);

/*
 * dtx_internal.saga_lane_used(lane, role)
 */
Datum
dtx_sql_saga_lane_used(PG_FUNCTION_ARGS)
{
	bool		used;

	LWLockAcquire(&shared->lock, LW_SHARED);
	used = lane_workers(PG_GETARG_OID(0), PG_GETARG_OID(1)) > 0;
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(used);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_claimed);

/*
 * dtx_internal.saga_claimed(saga, step): does a live worker execute it?
 */
Datum
dtx_sql_saga_claimed(PG_FUNCTION_ARGS)
{
	int64		saga = PG_GETARG_INT64(0);
	int16		step = PG_GETARG_INT16(1);
	bool		claimed = false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims && !claimed; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		claimed = claim->used && claim->dbid == MyDatabaseId &&
			claim->execution.saga == saga && claim->execution.step == step;
	}
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(claimed);
}

/*
 * The transaction has committed, or has become that prepared one: note its requests at
 * the claims that they mean, if these are still there.  Nobody else can ask for the same
 * meanwhile, because a prepared transaction keeps the saga locked.  Never throws.
 */
void
DtxSagaStopExecutions(const DtxSagaStopRequest *requests, TransactionId prepared)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (const DtxSagaStopRequest *request = requests; request != NULL; request = request->next)
	{
		for (int i = 0; i < shared->nclaims; i++)
		{
			SagaClaim  *claim = &shared->claims[i];

			if (claim->used && claim->dbid == MyDatabaseId &&
				claim->execution.saga == request->saga &&
				claim->execution.step == request->step &&
				claim->execution.attempt == request->attempt &&
				claim->execution.compensation == request->compensation)
			{
				if (TransactionIdIsValid(prepared))
					claim->stop_with = prepared;
				else
					claim->stop = DTX_SAGA_STOP_ENDED;
			}
		}
	}
	LWLockRelease(&shared->lock);
}

/*
 * By the scheduler, which COMMIT PREPARED wakes: stop what prepared transactions have
 * asked to stop that are committed now.
 */
void
DtxSagaStopPrepared(void)
{
	bool		any = false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims; i++)
		any |= shared->claims[i].used &&
			TransactionIdIsValid(shared->claims[i].stop_with) &&
			shared->claims[i].dbid == MyDatabaseId;
	LWLockRelease(&shared->lock);

	/* In this order: access/heap/heapam_visibility.c, file header. */
	for (int i = 0; any && i < shared->maxclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];
		TransactionId xid;
		bool		did_commit;

		LWLockAcquire(&shared->lock, LW_SHARED);
		xid = claim->used && claim->dbid == MyDatabaseId ? claim->stop_with :
			InvalidTransactionId;
		LWLockRelease(&shared->lock);
		if (!TransactionIdIsValid(xid) || TransactionIdIsInProgress(xid))
			continue;
		did_commit = TransactionIdDidCommit(xid);
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (claim->used && claim->stop_with == xid)
		{
			claim->stop_with = InvalidTransactionId;
			if (did_commit)
				claim->stop = DTX_SAGA_STOP_ENDED;
		}
		LWLockRelease(&shared->lock);
	}
}

/*
 * What the workers of this database execute, for their scheduler: up to "max"
 * elements.  Returns their number.
 */
int
DtxSagaExecutions(DtxSagaExecution *executions, int max)
{
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims && n < max; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (claim->used && claim->running && claim->dbid == MyDatabaseId)
		{
			executions[n] = claim->execution;
			executions[n++].stopping = claim->stop != DTX_SAGA_GO_ON;
		}
	}
	LWLockRelease(&shared->lock);
	return n;
}

/*
 * By the scheduler: have an execution stopped so that another role gets a worker.
 * Returns false if there is no such execution any more.
 */
bool
DtxSagaMakeRoom(const DtxSagaExecution *execution)
{
	bool		found = false;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nclaims && !found; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (!claim->used || !claim->running || claim->dbid != MyDatabaseId ||
			claim->execution.pid != execution->pid ||
			claim->execution.saga != execution->saga ||
			claim->execution.step != execution->step ||
			claim->execution.attempt != execution->attempt ||
			claim->execution.compensation != execution->compensation)
			continue;
		found = true;
		if (claim->stop == DTX_SAGA_GO_ON)
			claim->stop = DTX_SAGA_STOP_ROOM;
	}
	LWLockRelease(&shared->lock);
	return found;
}

/*
 * By a worker, of the step that it executes (DtxSagaKeepClaim): is it to be
 * stopped?  Only for handlers of signals and timeouts.
 */
DtxSagaStop
DtxSagaStopAsked(void)
{
	SagaClaim  *claim = my_claim;

	DtxAssertInHandler();
	return claim == NULL ? DTX_SAGA_GO_ON : (DtxSagaStop) claim->stop;
}

/*
 * Drop claims of this process: those made in the current transaction, or all of
 * them; if "keep" is set, not the one of that step, which is there to stay.
 */
static void
drop_claims(bool provisional_only, int64 saga, int16 step, bool keep)
{
	int			procno = DtxMyProcNumber();

	if (!provisional_only)
		my_claim = NULL;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = shared->nclaims - 1; i >= 0; i--)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (claim->used && claim->procno == procno &&
			(!provisional_only || claim->provisional))
		{
			if (keep && claim->execution.saga == saga &&
				claim->execution.step == step)
			{
				claim->provisional = false;
				claim->running = true;
				claim->execution.begun_at = DtxNow();
				my_claim = claim;
			}
			else
				claim->used = false;
		}
		if (!claim->used && i == shared->nclaims - 1)
			shared->nclaims--;
	}
	LWLockRelease(&shared->lock);
}

static void
drop_claims_at_exit(int code, Datum arg)
{
	DtxAssertExiting();
	drop_claims(false, 0, 0, false);
}

/*
 * This worker has committed: the one step that it executes from now on.
 */
void
DtxSagaKeepClaim(int64 saga, int16 step)
{
	DtxAssertInWorker();
	drop_claims(false, saga, step, true);
}

/*
 * ... it executes none.
 */
void
DtxSagaDropClaims(void)
{
	drop_claims(false, 0, 0, false);
}
