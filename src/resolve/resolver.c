/*-------------------------------------------------------------------------
 *
 * resolver.c
 *		A resolver: what the background worker of one database, and a backend that
 *		calls an administrative function, work with while they visit servers.
 *
 * The unit of work is a visit of one foreign server (visit.h).  Visits of different
 * servers run side by side, driven by DtxRemoteWait().  While they wait for the
 * network no transaction is open in the worker, no lock and no snapshot is held; the
 * catalogs and the decision table are read in transactions of their own that wait
 * for nothing.  (Called from SQL, all this runs in the caller's transaction.)
 *
 * Everything that hangs off a resolver, a visit, or one step of the worker has a memory
 * context there (DtxResolver.cxt, DtxVisit.cxt, DtxResolver.step_cxt).  What is called
 * with one of them may throw, for want of memory if for nothing else; then the resolver
 * is destroyed as a whole, its connections are closed by that, and the worker makes
 * another one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/remote_set.h"
#include "nodes/pg_list.h"
#include "resolve/resolver.h"
#include "state/boot.h"
#include "state/identity.h"
#include "state/tables.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Waiting for servers; set by DtxResolverCreate(). */
uint32		DtxResolverWaitEvent = 0;

/*
 * Make a resolver, of the background worker or of the current backend, in a memory context
 * of its own below "parent", with which it goes.
 */
DtxResolver *
DtxResolverCreate(MemoryContext parent, bool worker)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "pg_dtx resolver",
											  ALLOCSET_DEFAULT_SIZES);
	DtxResolver *r = MemoryContextAllocZero(cxt, sizeof(DtxResolver));

	if (DtxResolverWaitEvent == 0)
		DtxResolverWaitEvent = DtxWaitEvent("DtxResolverRemote");

	r->worker = worker;
	r->cxt = cxt;
	r->step_cxt = AllocSetContextCreate(cxt, "pg_dtx resolver step",
										ALLOCSET_DEFAULT_SIZES);
	r->unconfirmed_cxt = AllocSetContextCreate(cxt, "pg_dtx decision rows",
											   ALLOCSET_DEFAULT_SIZES);
	r->routes_cxt = AllocSetContextCreate(cxt, "pg_dtx routes",
										  ALLOCSET_DEFAULT_SIZES);
	r->look = true;
	r->next_due = DTX_NEVER;
	r->set = DtxRemoteSetCreate(cxt);
	return r;
}

/*
 * Learn who we are.  To be called in a transaction.  Returns false if the extension is
 * not installed (any more).  Throws what DtxBootRecord() throws.
 */
bool
DtxResolverIdentify(DtxResolver *r)
{
	uint64		coordinator_id;

	if (!DtxExtensionInstalled())
		return false;

	/* Backends wait for that before they make gids, and so does judging. */
	if (r->worker)
		DtxBootRecord();
	coordinator_id = DtxCoordinatorId();
	if (coordinator_id == r->coordinator_id)
		return true;

	/* What was read of an extension dropped since is not ours any more. */
	r->coordinator_id = coordinator_id;
	r->unconfirmed = NIL;
	r->prunable = false;
	DtxGidFormatPrefix(r->coordinator_id, MyDatabaseId, r->prefix);
	return true;
}

/*
 * The worker runs a transaction just for what is between these two; a backend
 * is in one anyway.  Neither changes the current memory context.
 */
void
DtxResolverXactBegin(DtxResolver *r)
{
	MemoryContext old = CurrentMemoryContext;

	if (!r->worker)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(old);
}

/* See DtxResolverXactBegin(). */
void
DtxResolverXactEnd(DtxResolver *r)
{
	MemoryContext old = CurrentMemoryContext;

	if (!r->worker)
		return;
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/*
 * Longest pause before something is tried again: not longer than until the next full
 * pass, but not less than a second.
 */
int
DtxRetryPauseMax(void)
{
	return Max(DTX_RETRY_MIN_MS, Min(DTX_RETRY_MAX_MS, dtx_resolve_interval));
}

/*
 * When something that has failed so many times in a row is to be tried again.
 */
DtxMoment
DtxRetryAfter(int failures)
{
	return DtxIn(DtxBackoffPause(failures, DTX_RETRY_MIN_MS, DtxRetryPauseMax()));
}
