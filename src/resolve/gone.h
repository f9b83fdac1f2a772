/*-------------------------------------------------------------------------
 *
 * gone.h
 *		What is not prepared any more and was not finished by the visit: may it be
 *		forgotten?
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GONE_H
#define PG_DTX_GONE_H

#include "base/gid.h"
#include "libpq-fe.h"
#include "net/remote.h"
#include "resolve/visit.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/in_doubt.h"

/* The same, for other rooms. */
#define DTX_GONE_NOT_REPLICATED "it is committed, but its server's synchronous standby has not confirmed that yet"
#define DTX_GONE_LEADS_ELSEWHERE	"the foreign server leads to another cluster now than when the transaction was prepared"

extern bool DtxGoneNeedsReplication(DtxVisit *v);
extern const char *DtxGoneStandbyAway(DtxVisit *v);
extern bool DtxAskOutcomes(DtxVisit *v, DtxRemote *remote);
extern void DtxReadOutcome(DtxVisit *v, const PGresult *res);
extern const char *DtxGoneWhyKept(DtxVisit *v, const DtxGid *gid,
								  DtxDecision decision,
								  const DtxPrepared *prepared);
extern void DtxGoneEntryPrepared(DtxVisit *v, const DtxInDoubt *entry,
								 const DtxListedGid *f, DtxPrepared *prepared);
extern bool DtxVisitRecordDamage(DtxVisit *v, const DtxGid *gid,
								 DtxDecision decision, DtxFound found,
								 uint64 remote_xid, uint64 system_id);

#endif							/* PG_DTX_GONE_H */
