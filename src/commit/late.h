/*-------------------------------------------------------------------------
 *
 * late.h
 *		Confirmations that COMMIT has not waited for.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LATE_H
#define PG_DTX_LATE_H

#include "base/backoff.h"
#include "commit/connection.h"
#include "commit/participant.h"
#include "storage/itemptr.h"

extern void DtxLateBegin(uint64 xid, ItemPointer row, bool handed_over,
						 DtxMoment takeover_at);
extern void DtxLateAdd(DtxParticipant *p);
extern bool DtxLateDueOn(const DtxConnection *c);
extern bool DtxLateNeedsConnection(DtxConnection *c);
extern bool DtxLateMayBeFollowed(DtxConnection *c);
extern void DtxLateAwait(DtxConnection *c);
extern void DtxLateAwaitFor(DtxConnection *c, bool all);
extern void DtxLateAwaitAll(void);
extern uint64 DtxLateXid(void);
extern void DtxLateLeave(void);

/* A confirmation is waited for at least this long when it is needed, milliseconds:
 * giving up costs the connection. */
#define DTX_LATE_WAIT_MS	1000

#endif							/* PG_DTX_LATE_H */
