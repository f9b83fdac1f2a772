/*-------------------------------------------------------------------------
 *
 * claims.h
 *		Claims: which worker executes which step, and whether that is to be stopped.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CLAIMS_H
#define PG_DTX_CLAIMS_H

#include "base/backoff.h"

/* So many foreign servers of a step count, when it is asked how many work for one. */
#define DTX_SAGA_MAX_LANES	16

/* An execution of a step, or of its compensation, by a worker. */
typedef struct DtxSagaExecution
{
	pid_t		pid;			/* worker */
	Oid			role;			/* whose saga it is */
	int			nlanes;			/* elements of lanes[] */
	Oid			lanes[DTX_SAGA_MAX_LANES];	/* foreign servers that the step
											 * is on, or 0 if on none, in the
											 * order in which it uses them */
	int64		saga;
	int16		step;
	int32		attempt;
	bool		compensation;
	bool		stopping;		/* was it asked to stop? */
	DtxMoment	begun_at;
} DtxSagaExecution;

/* Why it is to stop. */
typedef enum DtxSagaStop
{
	DTX_SAGA_GO_ON = 0,
	DTX_SAGA_STOP_ENDED,		/* its saga was canceled, or ended */
	DTX_SAGA_STOP_ROOM			/* a role without any worker needs one */
} DtxSagaStop;

/* A request to stop an execution, when the transaction commits. */
typedef struct DtxSagaStopRequest
{
	SubTransactionId subid;		/* that has asked */
	int64		saga;
	int16		step;
	int32		attempt;
	bool		compensation;
	struct DtxSagaStopRequest *next;
} DtxSagaStopRequest;

extern void DtxSagaStopExecutions(const DtxSagaStopRequest *requests,
								  TransactionId prepared);
extern Size DtxSagaShmemSize(void);
extern void DtxSagaShmemInit(void);
extern void DtxClaimsAtCommit(void);
extern void DtxClaimsAtAbort(void);
extern void DtxSagaStopPrepared(void);
extern int	DtxSagaExecutions(DtxSagaExecution *executions, int max);
extern bool DtxSagaExecutionUses(const DtxSagaExecution *execution, Oid lane);
extern bool DtxSagaMakeRoom(const DtxSagaExecution *execution);
extern DtxSagaStop DtxSagaStopAsked(void);
extern void DtxSagaClaimAt(Oid server);
extern void DtxSagaKeepClaim(int64 saga, int16 step);
extern void DtxSagaDropClaims(void);

#endif							/* PG_DTX_CLAIMS_H */
