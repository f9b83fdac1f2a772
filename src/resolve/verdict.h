/*-------------------------------------------------------------------------
 *
 * verdict.h
 *		From what a server has listed to what is to become of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_VERDICT_H
#define PG_DTX_VERDICT_H

#include "base/gid.h"
#include "resolve/visit.h"

extern void DtxVerdictQueue(DtxVisit *v, DtxDecision decision);
extern bool DtxVerdictJudgeAll(DtxVisit *v);
extern bool DtxVerdictStillHolds(DtxVisit *v, DtxListedGid *f);

#endif							/* PG_DTX_VERDICT_H */
