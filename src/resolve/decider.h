/*-------------------------------------------------------------------------
 *
 * decider.h
 *		What the servers that decide about transactions have said of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DECIDER_H
#define PG_DTX_DECIDER_H

#include "base/gid.h"
#include "base/outcome.h"
#include "libpq-fe.h"
#include "net/remote.h"
#include "resolve/resolver.h"
#include "resolve/visit.h"
#include "state/in_doubt.h"

/* What is known of one that decides. */
typedef struct DtxDeciderAnswer
{
	DtxOutcome	outcome;		/* on the cluster and timeline of the gid */
	bool		replicated;		/* committed: has its synchronous standby got
								 * it? */
	char		why[DTX_ERROR_SIZE];	/* why there is no answer, or "" */
	Oid			why_umid;		/* user mapping whose options that may show,
								 * or InvalidOid */
} DtxDeciderAnswer;

/* all of these in the worker only */
extern void DtxDeciderGet(DtxResolver *r, const DtxGid *gid, DtxDeciderAnswer *answer);
extern void DtxDeciderWant(DtxResolver *r, const DtxGid *gid, bool may_end);

/* by a visit of any server */
extern bool DtxDeciderAskHistory(DtxVisit *v, DtxRemote *remote);
extern void DtxDeciderReadHistory(DtxVisit *v, const PGresult *res);
extern bool DtxDeciderAsk(DtxVisit *v, DtxRemote *remote);
extern void DtxDeciderRead(DtxVisit *v, int statement, const PGresult *res);
extern void DtxDeciderAnswered(DtxVisit *v, const DtxRemoteError *error);
extern bool DtxDeciderNeedsReplication(const DtxVisit *v);
extern void DtxDeciderReplicated(DtxVisit *v);
extern void DtxDeciderVisitOver(DtxVisit *v);

#endif							/* PG_DTX_DECIDER_H */
