/*-------------------------------------------------------------------------
 *
 * schedule.c
 *		Which servers the worker visits, and when.
 *
 * In its first pass, and when not all that is in doubt has found room in the in-doubt
 * table, the worker visits all servers on which something was prepared; otherwise
 * those where something is in doubt or was prepared lately, and each of the others
 * once in SWEEP_PASSES passes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/process.h"
#include "base/settings.h"
#include "base/stats.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/route.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "resolve/course.h"
#include "resolve/known_server.h"
#include "resolve/mapping.h"
#include "resolve/resolver.h"
#include "resolve/schedule.h"
#include "resolve/unconfirmed.h"
#include "resolve/visit.h"
#include "state/boot.h"
#include "state/in_doubt.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/*
 * A server on which nothing is in doubt, and nothing was prepared lately, is visited
 * once in so many passes, or in so many if the last visit has failed.
 */
#define SWEEP_PASSES		20
#define RETRY_PASSES		5

/* Pause between two looks at what is in doubt, milliseconds. */
#define LOOK_PAUSE			20

/* Pause between full passes, however often one is asked for, ms. */
#define ASKED_PASS_PAUSE	1000

static char *server_name_if_usable(Oid serverid);
static DtxMoment next_pass(DtxResolver *r);
static bool must_look(DtxResolver *r, DtxMoment now);
static List *look_for_due(DtxResolver *r, DtxMoment now, bool *strange);
static long until_due(DtxResolver *r);
static void load_routes(DtxResolver *r);
static void begin_pass(DtxResolver *r);
static void repeat_visits(DtxResolver *r);
static bool belongs_to_pass(DtxResolver *r, const DtxKnownServer *state,
							DtxMoment now, bool *in_pass);
static void enqueue(DtxResolver *r, DtxKnownServer *state, DtxQueued how,
					bool in_pass);
static void start_visits(DtxResolver *r);
static List *start_some(DtxResolver *r, List *queue, DtxQueued how);
static void start_visit(DtxResolver *r, DtxKnownServer *state);
static void report_activity(DtxResolver *r);

/*
 * Name of a server of postgres_fdw, NULL if there is none with this OID.  To
 * be called in a transaction.
 */
static char *
server_name_if_usable(Oid serverid)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);

	if (server == NULL || !DtxWrapperIsPostgresFdw(server->fdwid))
		return NULL;
	return server->servername;
}

/*
 * When is the next full pass due?
 */
static DtxMoment
next_pass(DtxResolver *r)
{
	int			ms = dtx_resolve_interval;

	if (r->pass_asked)
		ms = Min(ms, ASKED_PASS_PAUSE);
	return r->pass_began + ms;
}

/*
 * Look what is to be done now and begin it.  Returns how long to wait for something to
 * happen, in milliseconds (-1: no limit).  Sets *leave if the extension is not
 * installed any more.  Does not wait.  Resets DtxResolver.step_cxt.
 */
long
DtxScheduleStep(DtxResolver *r, bool *leave)
{
	DtxMoment	now = DtxNow();
	MemoryContext old;
	List	   *due = NIL;
	bool		need_pass;
	bool		strange = false;
	long		timeout;
	ListCell   *lc;

	DtxAssertInWorker();
	DtxVisitFreeEnded(r);
	MemoryContextReset(r->step_cxt);
	old = MemoryContextSwitchTo(r->step_cxt);

	if (r->nagain > 0)
		repeat_visits(r);
	need_pass = now >= next_pass(r);

	if (need_pass || must_look(r, now))
		due = look_for_due(r, now, &strange);

	if (need_pass || due != NIL || strange)
	{
		DtxResolverXactBegin(r);
		if (!DtxResolverIdentify(r))
		{
			*leave = true;
			DtxResolverXactEnd(r);

			/* Nobody can finish what was entered while it was dropped. */
			foreach(lc, DtxInDoubtList(MyDatabaseId))
				DtxInDoubtRemove(&((DtxInDoubt *) lfirst(lc))->gid);
			MemoryContextSwitchTo(old);
			return 0;
		}
		foreach(lc, strange ? DtxInDoubtList(MyDatabaseId) : NIL)
		{
			DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

			/* They are older than what we have just learned. */
			if (entry->gid.coordinator_id != r->coordinator_id)
				DtxInDoubtRemove(&entry->gid);
			r->look = true;
		}
		load_routes(r);
		if (need_pass)
			begin_pass(r);
		foreach(lc, due)
		{
			Oid			serverid = lfirst_oid(lc);
			DtxKnownServer *state = DtxKnownServerGet(serverid);
			char	   *name = server_name_if_usable(serverid);

			if (name == NULL)
			{
				char	   *error = psprintf("foreign server with OID %u was dropped",
											 serverid);
				ListCell   *lc2;

				foreach(lc2, DtxInDoubtListServer(MyDatabaseId, serverid))
				{
					DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc2);

					if (DtxIsDue(entry->next_attempt))
						DtxInDoubtFailed(&entry->gid, error, InvalidOid,
										 DtxRetryAfter(entry->attempts + 1));
				}
				state->exists = false;
				state->wanted_at = 0;
				r->look = true;
				continue;
			}
			strlcpy(state->name, name, NAMEDATALEN);
			enqueue(r, state, DTX_QUEUED_URGENT, false);
		}
		DtxResolverXactEnd(r);
	}

	if (r->may_start)
		start_visits(r);

	if (r->prunable)
		DtxUnconfirmedDeleteDone(r);

	if (r->pass_open && r->nin_pass == 0 && r->nagain == 0)
	{
		r->pass_open = false;
		DtxStatsAdd(DTX_STAT_PASSES, 1);
		(void) pgstat_report_stat(false);
	}
	if (r->report_activity)
		report_activity(r);

	MemoryContextReset(r->step_cxt);
	timeout = until_due(r);
	MemoryContextSwitchTo(old);
	return timeout;
}

/*
 * Can something be due that was not at the last look?  The table is not looked
 * through for each message from a server: backends that commit need its lock.
 */
static bool
must_look(DtxResolver *r, DtxMoment now)
{
	return (r->look || r->next_due <= now ||
			r->seen_changes != DtxInDoubtChanges()) &&
		now >= r->looked_at + LOOK_PAUSE;
}

/*
 * Which servers have something in doubt that is due, and are neither visited nor about
 * to be?  A list of Oids.  Sets *strange if there are entries of an extension that
 * was dropped since, or created since.
 */
static List *
look_for_due(DtxResolver *r, DtxMoment now, bool *strange)
{
	List	   *due = NIL;
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;
	DtxInDoubtDue *entries;
	int			n;

	/* In this order, or a change could be missed. */
	r->seen_changes = DtxInDoubtChanges();
	entries = DtxInDoubtLook(MyDatabaseId, &n);
	r->looked_at = now;
	r->look = entries == NULL;
	r->next_due = DTX_NEVER;
	if (entries == NULL)
		return NIL;

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
		state->in_doubt = false;

	for (int i = 0; i < n; i++)
	{
		DtxMoment	at;

		if (entries[i].coordinator_id != r->coordinator_id)
		{
			*strange = true;
			continue;
		}
		state = DtxKnownServerGet(entries[i].serverid);
		state->used_at = now;

		/* The end of a visit lets us look again. */
		if (state->visit != NULL || state->queued == DTX_QUEUED_URGENT)
			state->in_doubt = true;
		else if (entries[i].next_attempt > now || state->hurry_after > now)
		{
			state->in_doubt = true;
			at = Max(entries[i].next_attempt, state->hurry_after);
			r->next_due = Min(r->next_due, at);
		}
		else
		{
			due = list_append_unique_oid(due, entries[i].serverid);
			state->in_doubt = true;
		}
	}

	/* And those that are to tell what they have decided. */
	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		DtxMoment	at = Max(state->backoff.next, state->hurry_after);

		if (state->wanted_at == 0 || state->visit != NULL ||
			state->queued == DTX_QUEUED_URGENT)
			continue;
		if (at > now)
			r->next_due = Min(r->next_due, at);
		else
			due = list_append_unique_oid(due, state->serverid);
	}
	return due;
}

/*
 * How long until something becomes due?
 */
static long
until_due(DtxResolver *r)
{
	DtxMoment	next = Min(next_pass(r), r->next_due);

	if (r->look || r->seen_changes != DtxInDoubtChanges())
		next = Min(next, r->looked_at + LOOK_PAUSE);

	/* A visit that is over, or a row to delete, waits for the next step. */
	if (r->ended != NULL || r->prunable)
		return 0;
	return DtxUntil(next);
}

/* Read the routes.  In a transaction. */
static void
load_routes(DtxResolver *r)
{
	MemoryContext old;

	MemoryContextReset(r->routes_cxt);
	r->routes = NIL;
	old = MemoryContextSwitchTo(r->routes_cxt);
	r->routes = DtxRouteList();
	MemoryContextSwitchTo(old);
}

/*
 * Begin a full pass: queue the servers that are to be visited in it.  In a
 * transaction.
 */
static void
begin_pass(DtxResolver *r)
{
	DtxMoment	now = DtxNow();
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;
	List	   *servers = DtxPostgresFdwServers();
	ListCell   *lc;
	bool		quiet = true;

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		state->exists = state->routed = false;
		quiet &= !state->in_doubt;
	}
	foreach(lc, servers)
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);

		state = DtxKnownServerGet(server->serverid);
		state->exists = true;
		strlcpy(state->name, server->servername, NAMEDATALEN);
	}

	DtxUnconfirmedRead(r);
	DtxKnownServersInUse();
	DtxBootProve();
	r->overflowed = r->seen_overflows != DtxInDoubtOverflows();
	r->seen_overflows = DtxInDoubtOverflows();

	foreach(lc, r->unconfirmed)
	{
		DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			if (!note->confirmed[i])
				DtxKnownServerGet(note->row.prepared[i].serverid)->in_doubt = true;
		}
	}
	foreach(lc, r->routes)
		DtxKnownServerGet(((DtxRoute *) lfirst(lc))->serverid)->routed = true;

	foreach(lc, servers)
	{
		bool		in_pass;

		state = DtxKnownServerGet(((ForeignServer *) lfirst(lc))->serverid);
		if (!state->routed && !state->in_doubt)
			continue;

		/*
		 * What a running visit sees is older than what an asked pass is to
		 * know: the server is visited once more after it.  (To repeat all of
		 * the pass would never come to an end where one takes longer than the
		 * pause between two.)
		 */
		if (state->visit != NULL)
		{
			if (r->pass_asked && !state->again)
			{
				state->again = true;
				r->nagain++;
			}
		}
		else if (belongs_to_pass(r, state, now, &in_pass))
			enqueue(r, state, state->in_doubt ? DTX_QUEUED_URGENT : DTX_QUEUED_ORDINARY,
					in_pass);
	}

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (!state->exists ||
			now > state->used_at + DTX_KEEP_CONNECTION_MS)
			DtxKnownServerDropConnection(state);
		if (!state->exists && state->visit == NULL && state->queued == DTX_QUEUED_NOT)
		{
			DtxServerStatusRemove(MyDatabaseId, state->serverid);
			(void) hash_search(DtxKnownServers, &state->serverid, HASH_REMOVE,
							   NULL);
		}
	}

	if (r->pass_began != 0 && quiet && r->unconfirmed == NIL &&
		now > r->swept_at + SWEEP_PASSES * (int64) dtx_resolve_interval)
	{
		DtxRouteTidy();
		r->swept_at = now;
	}

	r->pass_began = now;
	r->pass_asked = false;
	r->pass_open = true;
}

/*
 * Queue the servers that an asked pass has found being visited, as soon as that visit
 * is over.
 */
static void
repeat_visits(DtxResolver *r)
{
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (!state->again || state->visit != NULL)
			continue;
		state->again = false;
		r->nagain--;
		if (state->exists)
			enqueue(r, state, state->in_doubt ? DTX_QUEUED_URGENT : DTX_QUEUED_ORDINARY,
					true);
	}
}

/*
 * Is a server to be visited in this pass?  *in_pass: is the pass complete only with
 * it?
 */
static bool
belongs_to_pass(DtxResolver *r, const DtxKnownServer *state, DtxMoment now, bool *in_pass)
{
	int64		pause = (state->backoff.failures > 0 ? RETRY_PASSES : SWEEP_PASSES) *
	(int64) dtx_resolve_interval;

	/*
	 * A crash may have left something anywhere, and so may those without an
	 * entry.
	 */
	*in_pass = r->pass_asked || r->overflowed || state->visited_at == 0 ||
		state->in_doubt || now <= state->used_at + DTX_KEEP_CONNECTION_MS;
	if (!r->pass_asked && state->backoff.next > now)
		return false;
	return *in_pass || now >= state->visited_at + pause;
}

/*
 * Let a server be visited as soon as there is room, unless it is being visited.
 */
static void
enqueue(DtxResolver *r, DtxKnownServer *state, DtxQueued how, bool in_pass)
{
	MemoryContext old;

	if (state->visit != NULL)
		return;
	if (in_pass && !state->in_pass)
	{
		state->in_pass = true;
		r->nin_pass++;
	}
	if (state->queued >= how)
		return;
	state->queued = how;
	old = MemoryContextSwitchTo(r->cxt);
	if (how == DTX_QUEUED_URGENT)
		r->urgent = lappend_oid(r->urgent, state->serverid);
	else
		r->ordinary = lappend_oid(r->ordinary, state->serverid);
	MemoryContextSwitchTo(old);
	r->may_start = true;
}

static void
start_visits(DtxResolver *r)
{
	r->may_start = false;
	r->urgent = start_some(r, r->urgent, DTX_QUEUED_URGENT);
	r->ordinary = start_some(r, r->ordinary, DTX_QUEUED_ORDINARY);
}

/*
 * Begin the visits of those servers in a queue for which there is room.  Returns what
 * is left of it.
 */
static List *
start_some(DtxResolver *r, List *queue, DtxQueued how)
{
	ListCell   *lc;

	foreach(lc, queue)
	{
		DtxKnownServer *state = DtxKnownServerGet(lfirst_oid(lc));

		if (r->nvisits >= DTX_VISITS_MAX)
			break;
		if (state->queued == how)
		{
			if ((how == DTX_QUEUED_ORDINARY && r->nordinary >= MAX_ORDINARY) ||
				(state->backoff.failures > 0 && r->nfailing >= MAX_FAILING))
				continue;
			state->queued = DTX_QUEUED_NOT;
			start_visit(r, state);
		}
		queue = foreach_delete_current(queue, lc);
	}
	return queue;
}

/*
 * Begin the visit of a server, unless one is running.
 */
static void
start_visit(DtxResolver *r, DtxKnownServer *state)
{
	MemoryContext old;
	DtxVisit   *v;
	ListCell   *lc;

	/* Its entries are read before it begins: see review_entries(). */
	List	   *entries = state->in_doubt ?
	DtxInDoubtListServer(MyDatabaseId, state->serverid) : NIL;

	v = DtxVisitCreate(r, DTX_VISIT_RESOLVE, state->serverid, state->name);
	state->visit = v;
	state->visited_at = v->began_at;
	v->failures = state->backoff.failures;
	v->turn = state->visits;
	v->hung = state->hung;
	state->visits = (state->visits + 1) % 1000000;
	v->in_pass = state->in_pass;	/* counted already */
	state->in_pass = false;
	v->ordinary = !state->in_doubt;
	v->failing = state->backoff.failures > 0;
	if (v->ordinary)
		r->nordinary++;
	if (v->failing)
		r->nfailing++;

	/* It was there a moment ago, maybe made since the last pass. */
	state->exists = true;
	r->report_activity = true;
	DtxVisitSetEntries(v, entries);

	/* Users known to have business there first, then the one who got in. */
	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, r->unconfirmed)
	{
		DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			if (note->row.prepared[i].serverid == v->serverid &&
				!note->confirmed[i] &&
				OidIsValid(note->row.prepared[i].umid) &&
				list_length(v->preferred) < DTX_VISIT_CONNECTIONS_MAX)
				v->preferred = list_append_unique_oid(v->preferred,
													  note->row.prepared[i].umid);
		}
	}
	if (OidIsValid(state->used_umid))
		v->preferred = list_append_unique_oid(v->preferred, state->used_umid);
	if (OidIsValid(state->good_umid))
		v->preferred = list_append_unique_oid(v->preferred, state->good_umid);
	MemoryContextSwitchTo(old);

	DtxResolverXactBegin(r);
	DtxVisitSetRoutes(v, r->routes);
	DtxResolverXactEnd(r);
	DtxVisitNext(v);
}

/* Tell pg_stat_activity what is going on. */
static void
report_activity(DtxResolver *r)
{
	char text[	NAMEDATALEN + 64];
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;
	const char *name = NULL;

	r->report_activity = false;

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (state->visit != NULL)
			name = state->visit->name;
	}
	if (name == NULL)
	{
		pgstat_report_activity(STATE_IDLE, NULL);
		return;
	}
	if (r->nvisits > 1)
		snprintf(text, sizeof(text), "visiting server \"%s\" and %d more",
				 name, r->nvisits - 1);
	else
		snprintf(text, sizeof(text), "visiting server \"%s\"", name);
	pgstat_report_activity(STATE_RUNNING, text);
}
