/*-------------------------------------------------------------------------
 *
 * stop.h
 *		What stops a step.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STOP_H
#define PG_DTX_STOP_H

/* Why a step is stopped: a DtxSagaStop, or one of these. */
#define DTX_SAGA_STOP_TIMEOUT	10	/* it has taken longer than its timeout
									 * ... */
#define DTX_SAGA_STOP_LIMIT		11	/* ... or than the setting allows */
#define DTX_SAGA_STOP_LEAVE		12	/* the worker is to leave */

extern void DtxSagaStopInit(void);
extern void DtxSagaHandleSigterm(SIGNAL_ARGS);
extern void DtxSagaHandleSigusr2(SIGNAL_ARGS);
extern void DtxSagaBeginExecution(void);
extern void DtxSagaEndExecution(void);
extern void DtxSagaSetLimits(int timeout);
extern void DtxSagaCheckStopped(void);

/* Why a step is stopped: a DtxSagaStop, or one of the above. */
extern volatile sig_atomic_t DtxSagaStopReason;

#endif							/* PG_DTX_STOP_H */
