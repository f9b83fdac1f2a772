/*-------------------------------------------------------------------------
 *
 * point.h
 *		The commit point of a transaction, if a server decides.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_POINT_H
#define PG_DTX_POINT_H

#include "base/gid.h"
#include "commit/participant.h"

/* a command of postgres_fdw that writes is about to be sent; does not throw */
extern bool DtxPointWantsXid(const DtxParticipant *p);

/* before the local commit; these throw */
extern void DtxPointNotNeeded(void);
extern DtxParticipant *DtxPointChoose(DtxParticipant **ask);
extern DtxDecider DtxPointDecider(const DtxParticipant *p);
extern void DtxPointDecide(const DtxDecider *decider);

/* after it; does not throw */
extern void DtxPointFirstPhaseTook(int64 usec);

/* at any time from then on */
extern DtxDecision DtxPointDecision(void);

#endif							/* PG_DTX_POINT_H */
