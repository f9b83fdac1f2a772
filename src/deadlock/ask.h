/*-------------------------------------------------------------------------
 *
 * ask.h
 *		Asking several servers at once, over connections that are kept.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ASK_H
#define PG_DTX_ASK_H

#include "base/backoff.h"
#include "libpq-fe.h"
#include "utils/palloc.h"

typedef struct DtxAsk DtxAsk;

/* How a server may be reached: as a session of a backend has reached it. */
typedef struct DtxAskRoute
{
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* user mapping */
	uint64		endpoint;		/* of that session, see DtxWaitSession */
} DtxAskRoute;

/* A row of the answer to a question; "statement" of it, from 0.  The result is ours. */
typedef void (*DtxAskRow) (void *arg, uint64 instance, int statement,
						   const PGresult *res);

extern DtxAsk *DtxAskCreate(MemoryContext parent);
extern void DtxAskDestroy(DtxAsk *ask);
extern void DtxAskBegin(DtxAsk *ask, DtxAskRow row, void *arg);
extern bool DtxAskServer(DtxAsk *ask, uint64 instance, const DtxAskRoute *routes,
						 int nroutes, const char *question);
extern void DtxAskWait(DtxAsk *ask, DtxMoment deadline, uint32 wait_event);
extern int64 DtxAskTakeSilence(DtxAsk *ask);
extern bool DtxAskIdle(DtxAsk *ask, long timeout, uint32 wait_event);

#endif							/* PG_DTX_ASK_H */
