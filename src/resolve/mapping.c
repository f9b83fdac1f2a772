/*-------------------------------------------------------------------------
 *
 * mapping.c
 *		Through which user mapping a visit connects.
 *
 * Visits go to servers on which something was prepared, through the user mappings
 * through which it was (net/route.c), and unless the owner of the server is a
 * superuser, only as long as server and mapping lead to where they led then.  The
 * owner of a server would otherwise be told the passwords of all its users by moving
 * it to a place of his own.  A mapping of pg_dtx.resolver_role is there for the
 * resolver, and may be used at once on servers of superusers.  (A user who asks for
 * for itself, with dtx.check_server(), uses its own mapping, wherever that leads.)
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/gid.h"
#include "base/settings.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/route.h"
#include "net/target.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "resolve/mapping.h"
#include "resolve/visit.h"
#include "state/in_doubt.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/syscache.h"

/* Users that the server refuses before a visit is given up. */
#define MAX_REFUSALS		5

/* Why a user mapping is not used. */
#define NOT_USED	"nothing was prepared through this user mapping"
#define MOVED		"the server, whose owner is not a superuser, leads elsewhere than when the user mapping was used: lead it back, commit something there through the mapping, or call dtx.confirm_server()"

/* A user mapping that may be chosen. */
typedef struct Mapping
{
	Oid			umid;
	char	   *user;			/* option "user", or NULL */
} Mapping;

static bool has_route(const DtxVisit *v, Oid umid);
static void load_mappings(DtxVisit *v);
static Oid	find_mapping(DtxVisit *v, const char *owner, Oid known_umid);
static Oid	guess_mapping(DtxVisit *v);

/*
 * Tell the visit which routes (DtxRoute, of any server) there are.  In a transaction.
 */
void
DtxVisitSetRoutes(DtxVisit *v, List *routes)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	Oid			roleid = InvalidOid;
	ForeignServer *server;
	HeapTuple	tuple;
	ListCell   *lc;

	foreach(lc, routes)
	{
		DtxRoute   *route = (DtxRoute *) lfirst(lc);
		DtxRoute   *copy;

		if (route->serverid != v->serverid)
			continue;
		copy = palloc(sizeof(DtxRoute));
		*copy = *route;
		v->routes = lappend(v->routes, copy);
	}

	if (dtx_resolver_role != NULL && dtx_resolver_role[0] != '\0')
		roleid = get_role_oid(dtx_resolver_role, true);
	server = GetForeignServerExtended(v->serverid, FSV_MISSING_OK);
	if (OidIsValid(roleid) && server != NULL)
	{
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(roleid),
								ObjectIdGetDatum(v->serverid));
		if (HeapTupleIsValid(tuple))
		{
			Oid			umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;

			ReleaseSysCache(tuple);
			if (has_route(v, umid) || superuser_arg(server->owner))
			{
				v->designated = umid;
				v->preferred = lcons_oid(umid, v->preferred);
			}
		}
	}
	MemoryContextSwitchTo(old);
}

/* Was something prepared through this mapping? */
static bool
has_route(const DtxVisit *v, Oid umid)
{
	ListCell   *lc;

	foreach(lc, v->routes)
	{
		if (((DtxRoute *) lfirst(lc))->umid == umid)
			return true;
	}
	return false;
}

/*
 * May the visit connect there?  NULL, or why not.
 */
const char *
DtxMappingRefusal(const DtxVisit *v, const DtxTarget *target)
{
	ListCell   *lc;

	if (OidIsValid(v->on_behalf_of))
		return NULL;
	if (!has_route(v, target->umid))
		return target->trusted && target->umid == v->designated ? NULL : NOT_USED;
	if (target->trusted)
		return NULL;
	foreach(lc, v->routes)
	{
		DtxRoute   *route = (DtxRoute *) lfirst(lc);

		if (route->umid == target->umid && route->endpoint == target->endpoint)
			return NULL;
	}
	return MOVED;
}

/*
 * Read the user mappings that may be used.  To be called in a transaction.
 */
static void
load_mappings(DtxVisit *v)
{
	MemoryContext old;
	ForeignServer *server;
	List	   *umids = NIL;
	ListCell   *lc;

	if (v->mappings_loaded)
		return;

	server = GetForeignServerExtended(v->serverid, FSV_MISSING_OK);
	foreach(lc, server != NULL ? server->options : NIL)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "dbname") == 0)
			v->names_database = true;
	}

	foreach(lc, v->routes)
		umids = list_append_unique_oid(umids, ((DtxRoute *) lfirst(lc))->umid);
	if (OidIsValid(v->designated))
		umids = list_append_unique_oid(umids, v->designated);

	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, umids)
	{
		HeapTuple	tuple = SearchSysCache1(USERMAPPINGOID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Mapping    *mapping;
		Oid			userid;

		if (!HeapTupleIsValid(tuple))
			continue;
		userid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->umuser;
		ReleaseSysCache(tuple);
		mapping = palloc(sizeof(Mapping));
		mapping->umid = lfirst_oid(lc);
		mapping->user = DtxMappingOption(mapping->umid, "user");

		/* Those meant for everybody, or made for administrators, first. */
		if (!OidIsValid(userid) || superuser_arg(userid) ||
			mapping->umid == v->designated)
			v->mappings = lcons(mapping, v->mappings);
		else
			v->mappings = lappend(v->mappings, mapping);
	}
	MemoryContextSwitchTo(old);
	v->mappings_loaded = true;
}

/*
 * The next mapping to try, or InvalidOid if there is nothing more that another
 * one would be good for.  To be called in a transaction.
 */
Oid
DtxMappingChoose(DtxVisit *v)
{
	ListCell   *lc;

	if (v->ntries >= DTX_VISIT_CONNECTIONS_MAX)
		return InvalidOid;

	/* To begin with, any mapping will do. */
	if (!v->listed)
	{
		int			n;

		if (v->nrefusals >= MAX_REFUSALS)
			return InvalidOid;
		if (OidIsValid(v->fixed_umid))
			return list_member_oid(v->tried, v->fixed_umid) ?
				InvalidOid : v->fixed_umid;

		/*
		 * Every other time without them: those who are refused there must not
		 * be all who are ever tried.
		 */
		if (v->failures % 2 == 0)
		{
			foreach(lc, v->preferred)
			{
				if (!list_member_oid(v->tried, lfirst_oid(lc)) &&
					(has_route(v, lfirst_oid(lc)) ||
					 lfirst_oid(lc) == v->designated))
					return lfirst_oid(lc);
			}
		}
		load_mappings(v);

		/* After failures, begin somewhere else each time. */
		n = list_length(v->mappings);
		for (int i = 0; i < n; i++)
		{
			int			start = (int) (((int64) v->failures * MAX_REFUSALS) % n);
			Mapping    *mapping = (Mapping *) list_nth(v->mappings,
													   (start + i) % n);

			if (!list_member_oid(v->tried, mapping->umid))
				return mapping->umid;
		}
		return InvalidOid;
	}

	if (v->purpose == DTX_VISIT_LOOK || OidIsValid(v->fixed_umid))
		return InvalidOid;

	/*
	 * Is there something that another user could finish?  First those whose
	 * mapping is known, so that guesses for one gid do not use up the tries
	 * of another; and it is another gid that comes first each time.
	 */
	for (int guess = 0; guess <= 1; guess++)
	{
		int			n = list_length(v->found);

		for (int i = 0; i < n; i++)
		{
			DtxListedGid *f = (DtxListedGid *) list_nth(v->found, (v->turn + i) % n);
			DtxInDoubt *entry;
			Oid			umid;

			if (f->state != DTX_LISTED_DECIDED)
				continue;

			/*
			 * No other user leads to another database, if the server says
			 * which.  (The mappings were loaded when none was known.)
			 */
			if (guess && v->names_database &&
				(f->database == NULL || strcmp(f->database, v->database) != 0))
				continue;
			entry = DtxVisitEntry(v, &f->gid);
			umid = guess ? guess_mapping(v) :
				find_mapping(v, f->owner, entry ? entry->umid : InvalidOid);
			if (OidIsValid(umid))
				return umid;
		}
	}

	/*
	 * To see a PREPARE that is running one must be the one who runs it.  That
	 * matters only where nothing else is seen of a gid that is to be rolled
	 * back.
	 */
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

		if (entry->decision == DTX_ROLLBACK && OidIsValid(entry->umid) &&
			!v->sees_all && has_route(v, entry->umid) &&
			!list_member_oid(v->covered, entry->umid) &&
			!list_member_oid(v->tried, entry->umid) &&
			hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL) == NULL)
			return entry->umid;
	}
	return InvalidOid;
}

/*
 * The mapping, not tried yet, through which a gid was prepared, or that names the
 * role that owns it.
 */
static Oid
find_mapping(DtxVisit *v, const char *owner, Oid known_umid)
{
	ListCell   *lc;

	if (OidIsValid(known_umid) && !list_member_oid(v->tried, known_umid) &&
		has_route(v, known_umid))
		return known_umid;

	load_mappings(v);
	foreach(lc, v->mappings)
	{
		Mapping    *mapping = (Mapping *) lfirst(lc);

		if (owner != NULL && mapping->user != NULL &&
			strcmp(mapping->user, owner) == 0 &&
			!list_member_oid(v->tried, mapping->umid))
			return mapping->umid;
	}
	return InvalidOid;
}

/*
 * A mapping, not tried yet, that may lead to any role.  One that names no user
 * has libpq's default, which may be any.  One that names another user than the
 * owner of a gid may still become it (ALTER ROLE ... SET role).
 */
static Oid
guess_mapping(DtxVisit *v)
{
	Oid			guess = InvalidOid;
	int			n;

	load_mappings(v);
	n = list_length(v->mappings);
	for (int i = 0; i < n; i++)
	{
		/* Every other time from another one on: there may be too many. */
		int			start = v->turn % 2 == 0 ? 0 : v->turn / 2 % n;
		Mapping    *mapping = (Mapping *) list_nth(v->mappings,
												   (start + i) % n);

		if (!list_member_oid(v->tried, mapping->umid) &&
			(mapping->user == NULL || !OidIsValid(guess)))
			guess = mapping->umid;
	}
	return guess;
}
