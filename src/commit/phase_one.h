/*-------------------------------------------------------------------------
 *
 * phase_one.h
 *		The commit of a distributed transaction, up to the local commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PHASE_ONE_H
#define PG_DTX_PHASE_ONE_H

extern void DtxPhaseOneSetCheck(void (*check) (void));
extern uint32 DtxPrepareWaitEvent(void);
extern void DtxPhaseOne(void);
extern void DtxPhaseOneOfWorker(void);
extern void DtxPhaseOneAsk(void);

#endif							/* PG_DTX_PHASE_ONE_H */
