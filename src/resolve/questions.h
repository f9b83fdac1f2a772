/*-------------------------------------------------------------------------
 *
 * questions.h
 *		What a visit asks a server, and how its answers are read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_QUESTIONS_H
#define PG_DTX_QUESTIONS_H

#include "libpq-fe.h"
#include "net/remote.h"
#include "resolve/visit.h"

extern void DtxAskList(DtxVisit *v, DtxRemote *remote);
extern void DtxReadSession(DtxVisit *v, DtxRemote *remote,
						   const PGresult *res);
extern void DtxReadRunning(DtxVisit *v, const PGresult *res);
extern bool DtxReadPrepared(DtxVisit *v, const PGresult *res);
extern void DtxAskLimits(DtxVisit *v, DtxRemote *remote);
extern void DtxReadLimits(DtxVisit *v, const PGresult *res);
extern bool DtxAskMode(DtxVisit *v, DtxRemote *remote, DtxSessionMode mode);
extern bool DtxAskReplicated(DtxVisit *v, DtxRemote *remote);

#endif							/* PG_DTX_QUESTIONS_H */
