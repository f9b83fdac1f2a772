/*-------------------------------------------------------------------------
 *
 * visit.c
 *		The record of one visit of one server: what it is for, what is known as it
 *		begins, what it has found, and its end.
 *
 * course.c takes a visit from phase to phase.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/gid.h"
#include "nodes/pg_list.h"
#include "resolve/judge.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/visit.h"
#include "state/in_doubt.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Entry of DtxVisit.entry_hash. */
typedef struct EntryRef
{
	DtxGid		gid;			/* hash key */
	DtxInDoubt *entry;			/* in DtxVisit.entries */
} EntryRef;

/*
 * Make a visit of a foreign server, in a memory context of its own below the resolver's.
 * It is freed by DtxVisitFreeEnded() after it has ended.
 */
DtxVisit *
DtxVisitCreate(DtxResolver *r, DtxVisitPurpose purpose, Oid serverid, const char *name)
{
	MemoryContext cxt = AllocSetContextCreate(r->cxt, "pg_dtx visit",
											  ALLOCSET_DEFAULT_SIZES);
	DtxVisit   *v = MemoryContextAllocZero(cxt, sizeof(DtxVisit));
	HASHCTL		info;

	v->resolver = r;
	v->cxt = cxt;
	v->purpose = purpose;
	v->serverid = serverid;
	v->name = MemoryContextStrdup(cxt, name);
	v->serial = ++r->serial;
	v->coordinator_id = r->coordinator_id;
	v->began_at = DtxNow();
	v->seen_changes = DtxServerChanges();
	v->slots_used = -1;
	v->slots_total = -1;

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(DtxGid);
	info.entrysize = sizeof(DtxListedGid);
	info.hcxt = cxt;
	v->found_hash = hash_create("pg_dtx found gids", 64, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	info.entrysize = sizeof(EntryRef);
	v->entry_hash = hash_create("pg_dtx entries", 16, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	r->nvisits++;
	return v;
}

/*
 * Tell the visit which entries of the in-doubt table (DtxInDoubt, of any
 * server) are there as it begins.  Their mappings are tried first.
 */
void
DtxVisitSetEntries(DtxVisit *v, List *entries)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	ListCell   *lc;

	foreach(lc, entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		EntryRef   *ref;
		DtxInDoubt *copy;
		bool		found;

		/* Entries of an extension that was dropped are nobody's. */
		if (entry->serverid != v->serverid ||
			entry->gid.coordinator_id != v->coordinator_id)
			continue;
		copy = palloc(sizeof(DtxInDoubt));
		*copy = *entry;
		v->entries = lappend(v->entries, copy);
		ref = hash_search(v->entry_hash, &copy->gid, HASH_ENTER, &found);
		ref->entry = copy;
		if (OidIsValid(copy->umid))
			v->preferred = list_append_unique_oid(v->preferred, copy->umid);
	}
	MemoryContextSwitchTo(old);
}

/*
 * The entry of this visit with that gid, or NULL: it is not known to be in doubt.
 */
DtxInDoubt *
DtxVisitEntry(DtxVisit *v, const DtxGid *gid)
{
	EntryRef   *ref = hash_search(v->entry_hash, gid, HASH_FIND, NULL);

	return ref == NULL ? NULL : ref->entry;
}

/*
 * Does the server lead to the cluster where something was prepared?
 */
DtxSame
DtxVisitSameCluster(const DtxVisit *v, uint64 system_id)
{
	if (v->mixed)
		return DTX_DIFFERENT;
	if (system_id == 0 || v->system_id == 0)
		return DTX_NOT_TOLD;
	return system_id == v->system_id ? DTX_SAME : DTX_DIFFERENT;
}

/*
 * Has this visit used the options with which something was prepared?
 */
bool
DtxVisitSameEndpoint(const DtxVisit *v, uint64 endpoint)
{
	for (int i = 0; i < v->nendpoints; i++)
	{
		if (endpoint != 0 && v->endpoints[i] == endpoint)
			return true;
	}
	return false;
}

/*
 * Was a PREPARE of this gid seen running?  By any connection of the visit: the
 * next one may be that of a user who does not see it.
 */
bool
DtxVisitSawPrepare(DtxVisit *v, const DtxGid *gid)
{
	ListCell   *lc;

	foreach(lc, v->seen_in_flight)
	{
		if (memcmp(&((DtxRunningPrepare *) lfirst(lc))->gid, gid, sizeof(DtxGid)) == 0)
			return true;
	}
	return false;
}

/*
 * Not to be freed yet: callbacks on the stack, and callers of run_to_end(),
 * still look at it.
 */
void
DtxVisitEnd(DtxVisit *v)
{
	DtxResolver *r = v->resolver;

	if (r->worker && v->purpose == DTX_VISIT_RESOLVE)
		DtxKnownServerGet(v->serverid)->visit = NULL;
	v->next_ended = r->ended;
	r->ended = v;
	r->nvisits--;
	if (v->in_pass)
		r->nin_pass--;
	if (v->ordinary)
		r->nordinary--;
	if (v->failing)
		r->nfailing--;
	r->may_start = true;
	r->look = true;
	r->report_activity = true;
}

/*
 * Free the visits that have ended.  Not from within a handler of their connections.
 */
void
DtxVisitFreeEnded(DtxResolver *r)
{
	while (r->ended != NULL)
	{
		DtxVisit   *v = r->ended;

		r->ended = v->next_ended;
		MemoryContextDelete(v->cxt);
	}
}

/*
 * Is the cluster that the visit saw another one than this?  What it does not
 * have says nothing then: a server whose options or address have changed must
 * not confirm what the one before has prepared.
 */
bool
DtxVisitLeadsElsewhere(const DtxVisit *v, uint64 system_id)
{
	return system_id != 0 && (v->mixed || v->system_id != system_id);
}
