/*-------------------------------------------------------------------------
 *
 * saga.h
 *		Sagas: what saga.c offers to the resolver and to the processes of
 *		saga_worker.c.
 *
 * All state of sagas is in tables, and changed only by functions in PL/pgSQL
 * that belong to the extension.  C calls them, and decides nothing about
 * states.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SAGA_H
#define PG_DTX_SAGA_H

#include "base/backoff.h"
#include "fmgr.h"

/* SQLSTATE with which a step learns that it is not its worker's any more. */
#define ERRCODE_DTX_STEP_LOST	MAKE_SQLSTATE('D', 'X', '0', '0', '1')

/* Does this database have the tables of sagas (SQL version 1.1 or later)? */
extern bool DtxSagaInstalled(void);

/*
 * The table of sagas, InvalidOid if there is none; and has some saga of this
 * database not ended?
 */
extern Oid	DtxSagaTable(void);
extern bool DtxSagaUnfinished(void);

/*
 * Call one of the extension's own functions, as a superuser.  Throws if the
 * extension has no such function.
 */
extern Datum DtxSagaCall(const char *name, int nargs, const Oid *types,
						 const Datum *args, const bool *argnulls,
						 bool *isnull);

/* If something is scheduled in this database, ask for its scheduler. */
extern void DtxSagaProbe(void);
extern void DtxSagaDisown(void);
extern void DtxSagaWakeAtCommit(void);

/* An execution of a step, or of its compensation, by a worker. */
typedef struct DtxSagaExecution
{
	pid_t		pid;			/* worker */
	Oid			role;			/* whose saga it is */
	Oid			lane;			/* foreign server that the step is on, or 0 */
	int64		saga;
	int16		step;
	int32		attempt;
	bool		compensation;
	bool		stopping;		/* has somebody asked it to stop? */
	DtxMoment	begun_at;
} DtxSagaExecution;

/* Why it is to stop. */
typedef enum DtxSagaStop
{
	DTX_SAGA_GO_ON = 0,
	DTX_SAGA_STOP_ENDED,		/* its saga was canceled, or ended */
	DTX_SAGA_STOP_ROOM			/* a role without any worker needs one */
} DtxSagaStop;

extern int	DtxSagaExecutions(DtxSagaExecution *executions, int max);
extern void DtxSagaStopPrepared(void);
extern bool DtxSagaMakeRoom(const DtxSagaExecution *execution);
extern DtxSagaStop DtxSagaStopAsked(void);

/* Claims: which worker works on which step. */
extern void DtxSagaKeepClaim(int64 saga, int16 step);
extern void DtxSagaDropClaims(void);

/* What external workers are to be told, in a transaction of its own. */
extern bool DtxSagaHasAnnouncements(void);
extern void DtxSagaAnnounce(void);

/* This process executes steps of sagas. */
extern void DtxSagaWorkerHere(void);

/* Is the second phase of this transaction confirmed on all its servers? */
extern bool DtxSagaConfirmed(uint64 boot_id, uint64 xid);

extern Size DtxSagaShmemSize(void);
extern void DtxSagaShmemInit(void);
extern void DtxSagaInstallHooks(void);
PGDLLEXPORT extern void dtx_saga_scheduler_main(Datum arg);
PGDLLEXPORT extern void dtx_saga_worker_main(Datum arg);

#endif							/* PG_DTX_SAGA_H */
