/*-------------------------------------------------------------------------
 *
 * look.c
 *		One look at all servers concerned: who waits for whom.
 *
 * Concerned are the servers on which a backend that waits for a server has a session.
 * They are asked at the same time about all sessions that backends of this server have
 * there, waiting or not; and about this server its own lock table is.
 *
 * A look is not of one moment.  What it finds is true if a second look finds it again, and
 * the same waits have lasted from before the first to after the second (search.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "deadlock/here.h"
#include "deadlock/look.h"
#include "deadlock/owners.h"
#include "deadlock/questions.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "state/waits.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* How long servers have to answer, all together, milliseconds. */
#define ANSWER_MS		500

/* Of each server: rows of an answer that are taken in, edges of them, and ways there. */
#define MAX_ROWS		5000
#define MAX_EDGES		100000
#define MAX_ROUTES		8

/* A server that is asked. */
typedef struct Concerned
{
	uint64		instance;
	char	   *name;			/* of a foreign server that leads there, or
								 * NULL */
	List	   *pids;			/* of sessions of backends of this server */
	List	   *details;		/* those whose locks are asked for */
	int			nrows[2];		/* taken in, of each statement */
	int			nedges;			/* made of them */
	int			nroutes;
	DtxAskRoute routes[MAX_ROUTES];
} Concerned;

static bool begin(void);
static void end(bool own_transaction);
static void add_backends(DtxLook *look);
static Concerned *find_server(DtxLook *look, uint64 instance, bool make);
static void ask_all(DtxLook *look, DtxAsk *ask, List *marks, uint32 wait_event);
static void take_row(void *arg, uint64 instance, int statement, const PGresult *res);
static List *add_marked(DtxLook *look);
static void add_edges(DtxLook *look);
static bool is_another(const DtxGraph *g, int node, uint64 instance, int pid,
					   uint64 started);

/*
 * Look at all servers concerned.  The locks for which "details" (DtxLookDetail) wait are
 * told, too, or, with "all_details", those for which any session waits that is waited for.
 * The result lives in cxt.  In a transaction or not, in which case it needs some of its own;
 * takes half a second at most, and throws on interrupts; then "ask" has to be destroyed.
 */
DtxLook *
DtxLookTake(DtxAsk *ask, MemoryContext cxt, List *details, bool all_details,
			uint32 wait_event)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	DtxLook    *look = palloc0(sizeof(DtxLook));
	List	   *marks;
	ListCell   *lc;
	bool		own_transaction;

	look->cxt = cxt;
	look->graph = DtxGraphCreate(cxt);
	add_backends(look);
	foreach(lc, details)
	{
		const DtxLookDetail *d = (const DtxLookDetail *) lfirst(lc);
		Concerned  *server = find_server(look, d->instance, false);

		if (server != NULL)
			server->details = list_append_unique_int(server->details, d->pid);
	}
	if (all_details)
	{
		foreach(lc, look->servers)
		{
			Concerned  *server = (Concerned *) lfirst(lc);

			server->details = list_concat_unique_int(server->details, server->pids);
		}
	}

	ask_all(look, ask, NIL, wait_event);
	marks = add_marked(look);
	if (marks != NIL)
	{
		/*
		 * A process of another coordinator: with what it has on the other
		 * servers.
		 */
		look->blocked = look->lock_waits = NIL;
		foreach(lc, look->servers)
		{
			Concerned  *server = (Concerned *) lfirst(lc);

			server->nrows[DTX_WHO_BLOCKS] = server->nrows[DTX_WHICH_LOCKS] = 0;
		}
		ask_all(look, ask, marks, wait_event);
		(void) add_marked(look);
	}
	add_edges(look);
	MemoryContextSwitchTo(old);

	own_transaction = begin();
	MemoryContextSwitchTo(cxt);
	DtxHereAddWaits(look->graph);
	end(own_transaction);
	MemoryContextSwitchTo(old);
	return look;
}

/* Begin a transaction, unless there is one; says whether it did. */
static bool
begin(void)
{
	if (IsTransactionState())
		return false;
	StartTransactionCommand();
	return true;
}

static void
end(bool own_transaction)
{
	if (own_transaction)
		CommitTransactionCommand();
}

/* The name of a foreign server that leads to that server, or NULL for this one. */
const char *
DtxLookServerName(const DtxLook *look, uint64 instance)
{
	Concerned  *server = find_server(unconstify(DtxLook *, look), instance, false);

	if (instance == DtxInstanceHere())
		return NULL;
	return server != NULL && server->name != NULL ? server->name : "(unknown)";
}

/*
 * All backends that have sessions with servers, and the servers of those that wait.
 */
static void
add_backends(DtxLook *look)
{
	DtxGraph   *g = look->graph;
	uint64		here = DtxInstanceHere();
	DtxWaits   *copy = palloc(sizeof(DtxWaits));

	for (int i = 0; i < DtxWaitsCount(); i++)
	{
		int			node;

		if (!DtxWaitsGet(i, copy) || copy->nsessions == 0)
			continue;
		node = DtxGraphAddBackend(g, copy);
		for (int j = 0; j < copy->nsessions; j++)
		{
			DtxGraphPlace(g, copy->sessions[j].instance, copy->sessions[j].pid, node);
			if ((DtxWaitsNow(copy) || copy->appending) &&
				copy->sessions[j].instance != here)
				(void) find_server(look, copy->sessions[j].instance, true);
		}
		copy = palloc(sizeof(DtxWaits));
	}

	/* Whatever a server has said of its processes, these are ours. */
	for (int n = 0; n < g->nnodes; n++)
		DtxGraphPlace(g, here, g->nodes[n].pid, n);

	for (int n = 0; n < g->nnodes; n++)
	{
		const DtxWaits *b = g->nodes[n].backend;

		for (int j = 0; j < b->nsessions; j++)
		{
			const DtxWaitSession *session = &b->sessions[j];
			Concerned  *server = find_server(look, session->instance, false);
			bool		known = false;

			if (server == NULL)
				continue;
			server->pids = lappend_int(server->pids, session->pid);

			/* Foreign servers of another database cannot be looked up here. */
			if (b->dbid != MyDatabaseId || server->nroutes == MAX_ROUTES)
				continue;
			for (int k = 0; k < server->nroutes && !known; k++)
				known = server->routes[k].umid == session->umid &&
					server->routes[k].endpoint == session->endpoint;
			if (known)
				continue;
			server->routes[server->nroutes].serverid = session->serverid;
			server->routes[server->nroutes].umid = session->umid;
			server->routes[server->nroutes].endpoint = session->endpoint;
			server->nroutes++;
		}
	}
}

static Concerned *
find_server(DtxLook *look, uint64 instance, bool make)
{
	ListCell   *lc;
	Concerned  *server;

	foreach(lc, look->servers)
	{
		server = (Concerned *) lfirst(lc);
		if (server->instance == instance)
			return server;
	}
	if (!make)
		return NULL;
	server = palloc0(sizeof(Concerned));
	server->instance = instance;
	look->servers = lappend(look->servers, server);
	return server;
}

/*
 * Ask all servers concerned at once.
 */
static void
ask_all(DtxLook *look, DtxAsk *ask, List *marks, uint32 wait_event)
{
	ListCell   *lc;
	bool		own_transaction;

	DtxAskBegin(ask, take_row, look);
	own_transaction = begin();
	MemoryContextSwitchTo(look->cxt);
	foreach(lc, look->servers)
	{
		Concerned  *server = (Concerned *) lfirst(lc);
		StringInfoData question;

		if (server->nroutes == 0)
			continue;
		if (server->name == NULL)
		{
			ForeignServer *fs = GetForeignServerExtended(server->routes[0].serverid,
														 FSV_MISSING_OK);

			if (fs != NULL)
				server->name = pstrdup(fs->servername);
		}
		initStringInfo(&question);
		DtxAskWhoBlocks(&question, server->pids, marks);
		if (server->details != NIL)
			DtxAskWhichLocks(&question, server->details);
		(void) DtxAskServer(ask, server->instance, server->routes, server->nroutes,
							question.data);
		pfree(question.data);
	}
	end(own_transaction);
	MemoryContextSwitchTo(look->cxt);
	DtxAskWait(ask, DtxIn(ANSWER_MS), wait_event);
}

static void
take_row(void *arg, uint64 instance, int statement, const PGresult *res)
{
	DtxLook    *look = (DtxLook *) arg;
	Concerned  *server = find_server(look, instance, true);
	MemoryContext old;

	if (statement > DTX_WHICH_LOCKS || server->nrows[statement]++ >= MAX_ROWS)
		return;
	old = MemoryContextSwitchTo(look->cxt);
	if (statement == DTX_WHO_BLOCKS)
	{
		DtxBlocked *row = DtxReadBlocked(instance, res);

		if (row != NULL)
			look->blocked = lappend(look->blocked, row);
	}
	else
	{
		DtxLockWait *row = DtxReadLockWait(instance, res);

		if (row != NULL)
			look->lock_waits = lappend(look->lock_waits, row);
	}
	MemoryContextSwitchTo(old);
}

/*
 * Processes of other coordinators, by the marks of their sessions.  Returns the marks.
 */
static List *
add_marked(DtxLook *look)
{
	DtxGraph   *g = look->graph;
	List	   *marks = NIL;
	ListCell   *lc;

	foreach(lc, look->blocked)
	{
		const DtxBlocked *row = (const DtxBlocked *) lfirst(lc);

		if (row->mark != 0 && DtxGraphFind(g, row->instance, row->pid) < 0)
		{
			(void) DtxGraphProcess(g, row->instance, row->pid, row->mark);
			marks = list_append_unique_oid(marks, (Oid) row->mark);
		}
	}
	return marks;
}

/*
 * What servers have said.
 */
static void
add_edges(DtxLook *look)
{
	DtxGraph   *g = look->graph;
	ListCell   *lc;

	foreach(lc, look->blocked)
	{
		const DtxBlocked *row = (const DtxBlocked *) lfirst(lc);
		int			from;

		if (row->nblockers == 0)
			continue;
		from = DtxGraphProcess(g, row->instance, row->pid, 0);
		if (!DtxGraphWaitCounts(g, from, row->instance, row->pid))
			continue;
		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < row->nblockers; i++)
		{
			if (find_server(look, row->instance, true)->nedges++ >= MAX_EDGES)
				break;
			if (row->blockers[i] != 0)
				(void) DtxGraphAddEdge(g, from,
									   DtxGraphProcess(g, row->instance,
													   row->blockers[i], 0),
									   row->instance, row->pid, row->blockers[i]);
			else if (!list_member_int(find_server(look, row->instance, true)->details,
									  row->pid))
			{
				DtxLookDetail *d = palloc(sizeof(DtxLookDetail));

				d->instance = row->instance;
				d->pid = row->pid;
				look->unnamed = lappend(look->unnamed, d);
			}
		}
	}

	foreach(lc, look->lock_waits)
	{
		const DtxLockWait *row = (const DtxLockWait *) lfirst(lc);
		DtxEdge		like = {
			.instance = row->instance,
			.waiter_pid = row->pid,
			.blocker_pid = row->blocker,
			.gid = row->gid
		};
		DtxEdge    *edge = DtxGraphFindEdge(g, &like);
		int			from = DtxGraphFind(g, row->instance, row->pid);

		if (from < 0)
			continue;
		if (edge == NULL && row->blocker == 0 && row->holds &&
			DtxGraphWaitCounts(g, from, row->instance, row->pid))
		{
			edge = DtxGraphAddEdge(g, from,
								   DtxOwnerOfPrepared(g, row->instance, row->gid),
								   row->instance, row->pid, 0);
			edge->gid = row->gid;
		}
		if (edge != NULL &&
			is_another(g, edge->to, row->instance, row->blocker, row->blocker_started))
			edge->wrong = true;
		if (edge != NULL)
			edge->hard |= row->holds && !row->queues;

		/* It waits for one lock at a time. */
		for (int e = g->nodes[from].first_edge; e >= 0; e = g->edges[e].next)
		{
			if (g->edges[e].instance == row->instance &&
				g->edges[e].waiter_pid == row->pid)
			{
				if (is_another(g, from, row->instance, row->pid, row->started))
					g->edges[e].wrong = true;
				g->edges[e].lock = row->lock;
				g->edges[e].identity = row->identity;
			}
		}
	}
}

/*
 * Has a process that started then got the id of one that a backend had a session with?
 * The backend does not know yet that it has lost that.
 */
static bool
is_another(const DtxGraph *g, int node, uint64 instance, int pid, uint64 started)
{
	const DtxWaits *b = g->nodes[node].backend;

	for (int i = 0; b != NULL && started != 0 && i < b->nsessions; i++)
	{
		const DtxWaitSession *session = &b->sessions[i];

		if (session->instance == instance && session->pid == pid)
			return session->started != 0 && session->started != started;
	}
	return false;
}
