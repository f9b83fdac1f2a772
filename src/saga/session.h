/*-------------------------------------------------------------------------
 *
 * session.h
 *		The session of a worker or scheduler of sagas: its start, a transaction, cleaning up after
 *		the SQL of a step, and after an error.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SESSION_H
#define PG_DTX_SESSION_H

#include "worker/slots.h"

/* Pause after an error that is none of a step's, doubled each time, ms. */
#define DTX_SAGA_ERROR_PAUSE_MIN	200
#define DTX_SAGA_ERROR_PAUSE_MAX	60000

extern void DtxSagaStartProcess(DtxWorkerKind kind, Oid dbid,
								const char *name);
extern bool DtxSagaRoleMayLogIn(Oid role);
extern void DtxSagaRecoverFromError(void);
extern void DtxSagaBegin(void);
extern void DtxSagaCleanSession(void);

/* Has a step run in this session since it was cleaned? */
extern bool DtxSagaSessionUsed;

#endif							/* PG_DTX_SESSION_H */
