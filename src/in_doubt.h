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

#include "backoff.h"
#include "nodes/pg_list.h"

/* What a resolver has to know to see when an entry is due. */
typedef struct DtxInDoubtDue
{
	Oid			serverid;
	uint64		coordinator_id; /* of its gid */
	DtxMoment	next_attempt;	/* 0: at once */
} DtxInDoubtDue;

extern uint64 DtxInDoubtChanges(void);
extern DtxInDoubtDue *DtxInDoubtLook(Oid dbid, int *n);
extern List *DtxInDoubtListServer(Oid dbid, Oid serverid);
extern uint64 DtxInDoubtOverflows(void);
extern void DtxInDoubtOverflowsReset(void);
extern void DtxInDoubtReport(void);
extern void DtxInDoubtContradicted(void);
extern uint64 DtxInDoubtContradictions(void);

#endif							/* PG_DTX_IN_DOUBT_H */
