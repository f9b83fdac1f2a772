/*-------------------------------------------------------------------------
 *
 * resolver.h
 *		A resolver, of the background worker or of a backend: the record that its visits
 *		share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_RESOLVER_H
#define PG_DTX_RESOLVER_H

#include "base/backoff.h"
#include "base/gid.h"
#include "net/remote.h"
#include "nodes/pg_list.h"
#include "utils/palloc.h"

/* Backoff of servers and gids, milliseconds. */
#define DTX_RETRY_MIN_MS			1000
#define DTX_RETRY_MAX_MS			60000

/*
 * Visits at a time; of them, those of servers on which nothing is known to be in
 * doubt, and those of servers that could not be reached the last time.  The others
 * always find a place.
 */
#define DTX_VISITS_MAX			80
#define MAX_ORDINARY		16
#define MAX_FAILING			32

/* One thing that a pass did, or could not do. */
typedef struct DtxResolved
{
	Oid			serverid;		/* foreign server */
	char	   *server;			/* its name */
	char	   *gid;			/* text, NULL if the server was not reached */
	DtxDecision decision;		/* valid if gid is set */
	bool		done;			/* finished now? */
	char	   *error;			/* why not, or NULL */
} DtxResolved;

typedef struct DtxResolver DtxResolver;

struct DtxResolver
{
	bool		worker;			/* the background worker, not a backend */
	MemoryContext cxt;			/* this struct and what hangs off it */
	MemoryContext step_cxt;		/* worker: reset in each step */
	DtxRemoteSet *set;
	uint64		coordinator_id;
	char		prefix[DTX_GID_SIZE];	/* of all our gids */
	uint64		serial;			/* a clock for visits and rows */
	int			nvisits;		/* running */
	int			nin_pass;		/* those of full passes, running or to come */
	int			nagain;			/* those to be repeated for an asked pass */
	int			nordinary;		/* running ones with DtxVisit.ordinary ... */
	int			nfailing;		/* ... and with DtxVisit.failing */
	struct DtxVisit *ended;		/* over, not freed yet */
	MemoryContext result_cxt;	/* backend: where the results go */
	List	   *results;		/* backend: DtxResolved */
	List	   *left;			/* backend: DtxInDoubt, left to the worker */

	/* worker only */
	DtxMoment	pass_began;		/* last full pass, 0: none yet */
	bool		pass_asked;		/* one was asked for before its time */
	bool		pass_open;		/* not counted as completed yet */
	MemoryContext routes_cxt;
	List	   *routes;			/* DtxRoute, as of the last time that
								 * something had to be done */
	List	   *urgent;			/* Oids of servers that wait to be visited,
								 * because something is in doubt there, ... */
	List	   *ordinary;		/* ... and others */
	bool		may_start;		/* have these, or the room for them, changed? */
	bool		look;			/* has what is due changed by our doing? */
	uint64		seen_changes;	/* DtxInDoubtChanges() at the last look, ... */
	DtxMoment	looked_at;		/* ... when that was, ... */
	DtxMoment	next_due;		/* ... and when something is due after it */
	DtxMoment	swept_at;		/* when the routes were put in order */
	uint64		seen_overflows; /* DtxInDoubtOverflows() at the last pass */
	bool		overflowed;		/* was it another one at the pass before? */
	MemoryContext unconfirmed_cxt;
	List	   *unconfirmed;	/* DtxUnconfirmed */
	bool		prunable;		/* is any of them confirmed? */
	bool		report_activity;	/* has what we do changed? */
	bool		suspect;		/* is another server with this database alive?
								 * Then nothing of former boots is touched,
								 * until a witness says that a human has
								 * settled it */
};

extern DtxResolver *DtxResolverCreate(MemoryContext parent, bool worker);
extern bool DtxResolverIdentify(DtxResolver *r);
extern void DtxResolverXactBegin(DtxResolver *r);
extern void DtxResolverXactEnd(DtxResolver *r);
extern int	DtxRetryPauseMax(void);
extern DtxMoment DtxRetryAfter(int failures);

extern uint32 DtxResolverWaitEvent;

#endif							/* PG_DTX_RESOLVER_H */
