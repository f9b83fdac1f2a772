/*-------------------------------------------------------------------------
 *
 * known_server.h
 *		What the worker remembers of each foreign server between its visits.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_KNOWN_SERVER_H
#define PG_DTX_KNOWN_SERVER_H

#include "base/backoff.h"
#include "net/remote.h"
#include "resolve/resolver.h"
#include "state/decision.h"
#include "utils/hsearch.h"

/*
 * A server is in use for so long after a transaction prepared something there,
 * milliseconds.  Meanwhile a connection to it is kept: those who wait for what is in
 * doubt may take all others.
 */
#define DTX_KEEP_CONNECTION_MS		(5 * 60 * 1000)

/* Does a server wait to be visited? */
typedef enum DtxQueued
{
	DTX_QUEUED_NOT = 0,
	DTX_QUEUED_ORDINARY,		/* in DtxResolver.ordinary */
	DTX_QUEUED_URGENT			/* in DtxResolver.urgent, maybe in the other
								 * one, too */
} DtxQueued;

/* What the worker remembers of a server between visits. */
typedef struct DtxKnownServer
{
	Oid			serverid;		/* hash key */
	char		name[NAMEDATALEN];	/* at the last pass or look */
	struct DtxVisit *visit;		/* running now, or NULL */
	DtxQueued	queued;
	bool		in_pass;		/* is it queued as a part of a full pass? */
	bool		again;			/* has an asked pass begun during its visit? */
	bool		exists;			/* in the catalogs at the last pass or visit */
	bool		routed;			/* has it routes, as of the last pass? */
	bool		in_doubt;		/* has it entries, as of the last look, or
								 * unconfirmed decisions? */
	DtxMoment	visited_at;		/* begin of the last visit, 0: none yet */
	int			visits;			/* begun, modulo a lot */
	DtxBackoff	backoff;		/* failed visits in a row; passes leave it
								 * alone until then */
	DtxMoment	hurry_after;	/* in-doubt entries leave it alone until then */
	DtxMoment	wanted_at;		/* since when it is to tell what it has
								 * decided (decider.c), 0: it is not */
	uint64		system_id;		/* cluster that the last visit found, or 0 */
	bool		hung;			/* did the last one end in a COMMIT PREPARED
								 * that was not answered? */
	Oid			good_umid;		/* the mapping that worked last */
	DtxMoment	used_at;		/* when something was prepared there last, as
								 * far as seen */
	Oid			used_umid;		/* through this mapping */
	DtxRemote  *kept;			/* connection for the next visit, or NULL */
	Oid			kept_umid;		/* its mapping */
} DtxKnownServer;

extern void DtxKnownServerDropConnection(DtxKnownServer *state);
extern void DtxKnownServersUsedBy(const DtxDecisionRow *row);
extern void DtxKnownServersInUse(void);
extern bool DtxKnownServerExists(DtxResolver *r, Oid serverid);
extern DtxKnownServer *DtxKnownServerGet(Oid serverid);

extern HTAB *DtxKnownServers;

#endif							/* PG_DTX_KNOWN_SERVER_H */
