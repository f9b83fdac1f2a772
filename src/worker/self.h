/*-------------------------------------------------------------------------
 *
 * self.h
 *		A worker's own slot: taking it, what the worker was asked to do, and what it says of
 *		itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SELF_H
#define PG_DTX_SELF_H

#include "worker/slots.h"

extern Oid	DtxWorkerAwaitDatabase(void);
extern bool DtxWorkerAttach(DtxWorkerKind kind, Oid dbid);
extern bool DtxWorkerMustStop(void);
extern bool DtxWorkerTakeWork(void);
extern void DtxWorkerStarted(void);
extern bool DtxWorkerTakePass(void);
extern void DtxWorkerNotNeeded(void);
extern bool DtxWorkerExecutesSagas(void);
extern Oid	DtxWorkerRole(void);
extern void DtxWorkerSetIdle(bool idle, bool had_work);
extern void DtxSchedulerWakeWhenIdle(bool idle_worker);
extern void DtxWorkerSetWallOffset(int64 offset);

#endif							/* PG_DTX_SELF_H */
