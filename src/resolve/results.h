/*-------------------------------------------------------------------------
 *
 * results.h
 *		What a visit leaves behind: entries of the in-doubt table, confirmations of
 *		decision rows, the status of the server, and what a backend wants to know.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_RESULTS_H
#define PG_DTX_RESULTS_H

#include "net/remote.h"
#include "resolve/visit.h"

extern void DtxVisitGidAnswered(DtxVisit *v, const DtxRemoteError *error);
extern void DtxVisitGidFailed(DtxVisit *v, DtxListedGid *f);
extern void DtxVisitGidWaits(DtxVisit *v, DtxListedGid *f, const char *why,
							 Oid why_umid);
extern void DtxVisitSucceeded(DtxVisit *v);
extern void DtxVisitFailed(DtxVisit *v);

#endif							/* PG_DTX_RESULTS_H */
