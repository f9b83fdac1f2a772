/*-------------------------------------------------------------------------
 *
 * placement.h
 *		Which role's sagas get a worker: starting them, waking them, sending them away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PLACEMENT_H
#define PG_DTX_PLACEMENT_H

#include "base/backoff.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "saga/claims.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "worker/saga_workers.h"

/* The scheduler looks again after this time while something stays undone, ms. */
#define DTX_SAGA_LEFTOVER_MS	1000

/* What dtx_internal.saga_schedule() says of a role. */
typedef struct DtxRoleWork
{
	Oid			role;
	int64		due;			/* steps that are due and that nobody executes */
	DtxMoment	waiting_since;	/* DtxRoleState.waiting_since, DTX_NEVER if 0 */
	TimestampTz next_due;		/* when the next one will be, DT_NOEND: none */
} DtxRoleWork;

/* What the scheduler knows of a role.  Private to it. */
typedef struct DtxRoleState
{
	Oid			role;			/* hash key */
	DtxBackoff	backoff;		/* of workers that died in a row */
	DtxMoment	waiting_since;	/* it needs a worker and has none; 0: not so */
	bool		seen;			/* does it have work in this round? */
	bool		refused;		/* has it been said that it cannot connect? */
} DtxRoleState;

/* A worker that the scheduler has started, and that may still be starting. */
typedef struct DtxStartedWorker
{
	DtxSagaWorker worker;
	BackgroundWorkerHandle *handle;
} DtxStartedWorker;

/* The scheduler. */
typedef struct DtxScheduler
{
	MemoryContext cxt;			/* lives as long as it */
	MemoryContext round_cxt;	/* reset in every round */
	HTAB	   *roles;			/* DtxRoleState */
	List	   *started;		/* DtxStartedWorker */
	DtxSagaWorker *workers;		/* as they were at the start of the round */
	int			nworkers;
	DtxSagaExecution *executions;	/* what they execute; room for one each */
	DtxMoment	next_look;		/* when to ask what is due; DTX_NEVER: not
								 * before we are woken */
	DtxMoment	idle_since;		/* nothing is scheduled, and no worker there;
								 * 0: not so */
	DtxMoment	next_purge;		/* when to forget sagas that have ended */
	int64		wall_offset;	/* DtxWallOffset() for which times in tables
								 * are right, ... */
	struct ArrayType *clock_left;	/* ... but those of these sagas, which were
									 * locked; NULL: none */
	int64		clock_by;		/* by so many ms the clock was set meanwhile */
	Oid			last_deadline;	/* role whose deadlines passed last */
	bool		no_slot_logged; /* has it been said that slots are missing? */
} DtxScheduler;

extern bool DtxPlacementNoteExits(DtxScheduler *s);
extern void DtxPlacementServe(DtxScheduler *s, List *work);

#endif							/* PG_DTX_PLACEMENT_H */
