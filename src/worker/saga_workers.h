/*-------------------------------------------------------------------------
 *
 * saga_workers.h
 *		The workers of sagas of a database, as their scheduler sees them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SAGA_WORKERS_H
#define PG_DTX_SAGA_WORKERS_H

#include "base/backoff.h"
#include "postmaster/bgworker.h"
#include "worker/register.h"

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
	bool		has_worked;		/* has executed a step */
	bool		stop;			/* was asked to leave */
	DtxMoment	attached_at;	/* there since; 0 if not there yet */
	pid_t		pid;			/* 0 if not there */
} DtxSagaWorker;

extern int	DtxSagaWorkerList(DtxSagaWorker *workers, int max);
extern DtxStartResult DtxSagaWorkerStart(Oid role, DtxSagaWorker *worker,
										 BackgroundWorkerHandle **handle);
extern void DtxSagaWorkerWake(const DtxSagaWorker *worker);
extern void DtxSagaWorkerDismiss(const DtxSagaWorker *worker);
extern bool DtxSagaWorkersPoke(void);
extern void DtxSagaWorkerRelease(const DtxSagaWorker *worker);

#endif							/* PG_DTX_SAGA_WORKERS_H */
