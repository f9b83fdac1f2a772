/*-------------------------------------------------------------------------
 *
 * route.h
 *		Through which user mappings something was prepared, and at which address.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ROUTE_H
#define PG_DTX_ROUTE_H

#include "state/decision.h"

/* A way to a server that a user has gone, as the catalogs are now. */
typedef struct DtxRoute
{
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* user mapping of it */
	uint64		endpoint;		/* DtxEndpoint() when it was used */
} DtxRoute;

/*
 * By a backend, in a transaction that has an id and is about to prepare: see that
 * the routes of these participants are on record, whatever becomes of the
 * transaction.  It must be published (DtxActivityPublish).  Throws like any write, and
 * if the table is locked for longer than "pg_dtx.prepare_timeout".
 */
extern void DtxRouteRecord(const DtxPrepared *prepared, int n);

/*
 * All routes whose server and mapping exist: a list of DtxRoute in the current memory
 * context, possibly with duplicates.  In a transaction.
 */
extern List *DtxRouteList(void);

/*
 * By the resolver, in a transaction, when nothing is in doubt in this database:
 * forget routes that lead nowhere or to where their mapping led before, and bring the
 * others up to date.  Does nothing if it has to wait for a lock.
 */
extern void DtxRouteTidy(void);

/* In a transaction: forget all of them.  For another identity. */
extern void DtxRouteDeleteAll(void);

#endif							/* PG_DTX_ROUTE_H */
