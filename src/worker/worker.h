/*-------------------------------------------------------------------------
 *
 * worker.h
 *		What launcher.c and worker_connect.c offer to the background workers of a
 *		database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WORKER_H
#define PG_DTX_WORKER_H

#include "base/backoff.h"
#include "postmaster/bgworker.h"

typedef enum DtxWorkerKind
{
	DTX_WORKER_RESOLVER = 0,	/* one per database, started by the launcher */
	DTX_WORKER_SCHEDULER,		/* of sagas; likewise, if there is work */
	DTX_WORKER_SAGA				/* executes steps; started by the scheduler */
} DtxWorkerKind;

/* By a backend that wants a slot for a worker of another kind. */
extern void DtxLauncherMakeRoom(void);

/* worker_connect.c */
extern void DtxWorkerConnect(Oid dbid, Oid role, uint32 flags, const char *name);

/*
 * By a worker, of itself.  Attach before connecting to the database; false:
 * leave at once.
 */
extern Oid	DtxWorkerAwaitDatabase(void);
extern bool DtxWorkerAttach(DtxWorkerKind kind, Oid dbid);
extern bool DtxWorkerMustStop(void);
extern bool DtxWorkerTakeWork(void);
extern bool DtxWorkerTakePass(void);
extern void DtxWorkerStarted(void);
extern void DtxWorkerNotNeeded(void);
extern Oid	DtxWorkerRole(void);
extern void DtxWorkerSetIdle(bool idle, bool had_work);

/* A saga worker, as its scheduler sees it. */
typedef struct DtxSagaWorker
{
	int			index;			/* identifies it, ... */
	uint32		generation;		/* ... together with this */
	Oid			role;			/* as which it is connected */
	bool		starting;		/* not there yet */
	bool		exited;			/* not there any more */
	bool		clean;			/* if exited: because there was nothing to do? */
	bool		idle;			/* has nothing to do */
	bool		stop;			/* was asked to leave */
	DtxMoment	attached_at;	/* there since; 0 if not there yet */
	pid_t		pid;			/* 0 if not there */
} DtxSagaWorker;

typedef enum DtxStartResult
{
	DTX_STARTED,
	DTX_NO_SLOT,				/* no free background-worker slot */
	DTX_BLOCKED					/* somebody wants no worker in the database */
} DtxStartResult;

/* By the scheduler of the database, of its workers. */
extern void DtxSchedulerWants(bool idle_worker);
extern int	DtxSagaWorkerList(DtxSagaWorker *workers, int max);
extern DtxStartResult DtxSagaWorkerStart(Oid role, DtxSagaWorker *worker,
										 BackgroundWorkerHandle **handle);
extern void DtxSagaWorkerWake(const DtxSagaWorker *worker);
extern void DtxSagaWorkerDismiss(const DtxSagaWorker *worker);
extern bool DtxSagaWorkersPoke(void);
extern void DtxSagaWorkerForget(const DtxSagaWorker *worker);

#endif							/* PG_DTX_WORKER_H */
