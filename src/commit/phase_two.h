/*-------------------------------------------------------------------------
 *
 * phase_two.h
 *		The commit of a distributed transaction after the local commit, and its abort.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PHASE_TWO_H
#define PG_DTX_PHASE_TWO_H

extern void DtxPhaseTwoPrepareBackend(void);
extern void DtxPhaseTwoForgetLast(void);
extern bool DtxPhaseTwoLeftUnconfirmed(void);

/* none of these throws */
extern void DtxPhaseTwoBegin(void);
extern void DtxPhaseTwoFinish(void);
extern void DtxAbortBegin(void);
extern void DtxAbortFinish(void);

#endif							/* PG_DTX_PHASE_TWO_H */
