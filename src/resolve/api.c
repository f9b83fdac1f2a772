/*-------------------------------------------------------------------------
 *
 * api.c
 *		What administrative functions ask of a resolver in their own backend and
 *		transaction: resolve, finish, find, probe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/backoff.h"
#include "base/gid.h"
#include "base/settings.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/remote_set.h"
#include "net/remote_wait.h"
#include "net/route.h"
#include "net/target.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "resolve/api.h"
#include "resolve/course.h"
#include "resolve/gone.h"
#include "resolve/mapping.h"
#include "resolve/resolver.h"
#include "resolve/visit.h"
#include "state/in_doubt.h"
#include "storage/latch.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/syscache.h"

/* Longest time that dtx.resolve_in_doubt() waits for the worker, and how often it looks, ms. */
#define WORKER_PATIENCE		3000
#define WORKER_POLL_MS		10

static void run_to(DtxResolver *r, int left);
static void run_to_end(DtxResolver *r);
static bool is_business_there(Oid serverid, List *routes, List *entries);
static void wait_for_worker(DtxResolver *r);
static bool found_here(DtxVisit *v);

/*
 * Wait until not more than so many visits are left.  Interruptible.
 */
static void
run_to(DtxResolver *r, int left)
{
	while (r->nvisits > left)
	{
		if (DtxRemoteWait(r->set, -1, DtxResolverWaitEvent))
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
run_to_end(DtxResolver *r)
{
	run_to(r, 0);
	Assert(r->set->nremotes == 0);
}

/*
 * Is there a route to this server, or is something in doubt there?
 */
static bool
is_business_there(Oid serverid, List *routes, List *entries)
{
	ListCell   *lc;

	foreach(lc, routes)
	{
		if (((DtxRoute *) lfirst(lc))->serverid == serverid)
			return true;
	}
	foreach(lc, entries)
	{
		if (((DtxInDoubt *) lfirst(lc))->serverid == serverid)
			return true;
	}
	return false;
}

/*
 * Wait until the worker has found out what it can about that which was left to it,
 * for a moment at most: who calls dtx.resolve_in_doubt() looks at dtx.in_doubt next.
 * Interruptible.
 */
static void
wait_for_worker(DtxResolver *r)
{
	DtxMoment	deadline = DtxIn(WORKER_PATIENCE);
	ListCell   *lc;

	foreach(lc, r->left)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		DtxInDoubt	now;

		while (DtxInDoubtGet(&entry->gid, &now) &&
			   now.attempts == entry->attempts &&
			   !DtxIsDue(deadline))
		{
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 WORKER_POLL_MS, DtxResolverWaitEvent);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/* See api.h. */
List *
DtxResolveNow(void)
{
	MemoryContext caller = CurrentMemoryContext;
	DtxResolver *r;
	List	   *volatile results = NIL;

	if (!dtx_resolver)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("resolution is disabled by \"%s\"", "pg_dtx.resolver"),
				 errhint("Set it to on and reload the configuration.")));

	r = DtxResolverCreate(caller, false);
	r->result_cxt = caller;
	PG_TRY();
	{
		List	   *entries;
		List	   *routes;
		List	   *servers = NIL;
		ListCell   *lc;
		int			next = 0;

		MemoryContextSwitchTo(r->cxt);
		if (!DtxResolverIdentify(r))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("extension \"%s\" is not installed in this database",
							"pg_dtx")));
		entries = DtxInDoubtList(MyDatabaseId);
		routes = DtxRouteList();
		foreach(lc, DtxPostgresFdwServers())
		{
			ForeignServer *server = (ForeignServer *) lfirst(lc);

			if (is_business_there(server->serverid, routes, entries))
				servers = lappend(servers, server);
		}
		while (next < list_length(servers))
		{
			ForeignServer *server = (ForeignServer *) list_nth(servers, next++);
			DtxServerStatus status;
			DtxVisit   *v;

			v = DtxVisitCreate(r, DTX_VISIT_RESOLVE, server->serverid,
							   server->servername);
			DtxVisitSetEntries(v, entries);
			DtxVisitSetRoutes(v, routes);
			if (DtxServerStatusGet(MyDatabaseId, server->serverid, &status))
				v->failures = status.failures;
			DtxVisitNext(v);
			run_to(r, DTX_VISITS_MAX - 1);
			DtxVisitFreeEnded(r);
		}
		run_to(r, 0);
		wait_for_worker(r);
		results = r->results;
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();

	return results;
}

/* See api.h. */
void
DtxFinishGid(Oid serverid, Oid umid, const char *gid, DtxDecision decision,
			 uint64 system_id, Oid on_behalf_of)
{
	MemoryContext caller = CurrentMemoryContext;
	DtxResolver *r;
	DtxGid		parsed;

	if (!DtxGidParse(gid, &parsed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid)));

	r = DtxResolverCreate(caller, false);
	PG_TRY();
	{
		ForeignServer *server = GetForeignServer(serverid);
		DtxVisit   *v;
		DtxListedGid *f;

		MemoryContextSwitchTo(r->cxt);
		(void) DtxResolverIdentify(r);
		v = DtxVisitCreate(r, DTX_VISIT_FORCE, serverid, server->servername);
		v->has_only = true;
		v->only = parsed;
		v->forced = decision;
		v->forced_system_id = system_id;
		v->fixed_umid = umid;
		v->on_behalf_of = on_behalf_of;
		DtxVisitSetEntries(v, DtxInDoubtList(MyDatabaseId));
		DtxVisitSetRoutes(v, DtxRouteList());
		DtxVisitNext(v);
		run_to_end(r);

		f = hash_search(v->found_hash, &parsed, HASH_FIND, NULL);
		if (f == NULL && v->error != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("could not connect to server \"%s\"",
							server->servername),
					 errdetail_internal("%s", v->error)));
		if (DtxVisitLeadsElsewhere(v, system_id))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("server \"%s\" cannot tell about prepared transaction \"%s\"",
							server->servername, gid),
					 errdetail_internal("%s.", DTX_GONE_LEADS_ELSEWHERE)));
		if (f == NULL || f->state == DTX_LISTED_GONE)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("prepared transaction \"%s\" does not exist on server \"%s\"",
							gid, server->servername)));
		if (f->state != DTX_LISTED_DONE)
			ereport(ERROR,
					(errcode(f->error.sqlstate ? f->error.sqlstate :
							 ERRCODE_CONNECTION_FAILURE),
					 errmsg("could not finish prepared transaction \"%s\" on server \"%s\": %s",
							gid, server->servername,
							f->error.message ? f->error.message :
							v->error ? v->error : "unknown error"),
					 f->error.detail ?
					 errdetail_internal("%s", f->error.detail) : 0,
					 f->error.hint ?
					 errhint("%s", f->error.hint) : 0));
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();
}

/*
 * Did the visit find something in the database that the server leads to?
 * pg_prepared_xacts shows those of the whole cluster.
 */
static bool
found_here(DtxVisit *v)
{
	ListCell   *lc;

	foreach(lc, v->found)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);

		if (f->database != NULL && v->database != NULL &&
			strcmp(f->database, v->database) == 0)
			return true;
	}
	return false;
}

/* See api.h.  Servers that cannot be asked are reported with a WARNING. */
List *
DtxFindGid(const char *gid)
{
	MemoryContext caller = CurrentMemoryContext;
	DtxResolver *r;
	DtxGid		parsed;
	List	   *volatile result = NIL;

	if (!DtxGidParse(gid, &parsed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid)));

	r = DtxResolverCreate(caller, false);
	PG_TRY();
	{
		List	   *routes;
		ListCell   *lc;

		MemoryContextSwitchTo(r->cxt);
		routes = DtxRouteList();
		foreach(lc, DtxPostgresFdwServers())
		{
			ForeignServer *server = (ForeignServer *) lfirst(lc);
			DtxVisit   *v;

			if (!is_business_there(server->serverid, routes, NIL))
				continue;
			v = DtxVisitCreate(r, DTX_VISIT_LOOK, server->serverid,
							   server->servername);
			v->has_only = true;
			v->only = parsed;
			DtxVisitSetRoutes(v, routes);
			DtxVisitNext(v);
		}
		run_to_end(r);

		MemoryContextSwitchTo(caller);
		for (DtxVisit *v = r->ended; v != NULL; v = v->next_ended)
		{
			if (found_here(v))
				result = lappend_oid(result, v->serverid);
			else if (v->error != NULL)
				ereport(WARNING,
						(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
						 errmsg("could not look for the prepared transaction on server \"%s\"",
								v->name),
						 errdetail_internal("%s", v->error)));
		}
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();

	return result;
}

/* See api.h.  The texts in *probe are in the current memory context. */
void
DtxProbeServer(Oid serverid, Oid userid, DtxProbe *probe)
{
	MemoryContext caller = CurrentMemoryContext;
	DtxResolver *r;

	memset(probe, 0, sizeof(DtxProbe));
	probe->slots_used = -1;
	probe->slots_total = -1;

	r = DtxResolverCreate(caller, false);
	PG_TRY();
	{
		ForeignServer *server = GetForeignServer(serverid);
		HeapTuple	tuple;
		DtxVisit   *v;
		const char *error = NULL;
		const char *unusable = NULL;

		MemoryContextSwitchTo(r->cxt);
		v = DtxVisitCreate(r, DTX_VISIT_LOOK, serverid, server->servername);

		/* A gid that nobody has: there is nothing to list. */
		v->has_only = true;
		v->on_behalf_of = userid;
		v->probe = probe;

		/* As GetUserMapping() chooses, but without throwing. */
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(userid),
								ObjectIdGetDatum(serverid));
		if (!HeapTupleIsValid(tuple))
			tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
									ObjectIdGetDatum(InvalidOid),
									ObjectIdGetDatum(serverid));
		if (HeapTupleIsValid(tuple))
		{
			v->fixed_umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;
			ReleaseSysCache(tuple);

			/* A resolver is not here on anybody's behalf. */
			unusable = DtxTargetMake(serverid, v->fixed_umid, 0,
									 InvalidOid)->error;
			DtxVisitNext(v);
			run_to_end(r);
			error = v->error;
		}
		else
			error = "no user mapping for this user";

		MemoryContextSwitchTo(caller);
		probe->reachable = v->listed;
		probe->resolver_error = unusable ? pstrdup(unusable) : NULL;
		if (v->listed)
		{
			probe->remote_user = pstrdup(v->remote_user);
			probe->database = pstrdup(v->database);
			probe->version = v->version;
			probe->slots_used = v->slots_used;
			probe->slots_total = v->slots_total;
			probe->pooled = v->pooled;
			probe->system_id = v->system_id;
			probe->timeline = v->timeline;
		}
		else
			probe->error = pstrdup(error ? error : "unknown error");
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();
}
