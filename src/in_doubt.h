/*-------------------------------------------------------------------------
 *
 * in_doubt.h
 *		What in_doubt.c offers to dtx.stat, to workers, and to a COMMIT that waits
 *		for them; the rest is in pg_dtx.h.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_IN_DOUBT_H
#define PG_DTX_IN_DOUBT_H

extern uint64 DtxInDoubtOverflows(void);
extern void DtxInDoubtOverflowsReset(void);
extern void DtxInDoubtReport(void);
extern void DtxInDoubtContradicted(void);
extern uint64 DtxInDoubtContradictions(void);

#endif							/* PG_DTX_IN_DOUBT_H */
