/*-------------------------------------------------------------------------
 *
 * graph.c
 *		Who waits for whom on all servers, and where that goes in a circle.
 *
 * Nothing here looks anything up: a graph is built by look.c, from what servers have
 * said.  A backend of this server with all its sessions is one node, whatever server it
 * waits on; so is a process of another coordinator, as far as its sessions are known by
 * their marks.  Everything else that was met is a node of its own.
 *
 * The searches are linear in the number of edges.
 *
 * What adds to a graph, and DtxGraphFindCycle(), may throw for want of memory; the rest
 * does not throw.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "deadlock/graph.h"
#include "state/activity.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

typedef struct Place
{
	uint64		instance;		/* hash key: a running server ... */
	int64		pid;			/* ... and a process of it */
	int			node;
} Place;

/* A node on the way of a search, and the edge by which it goes on. */
typedef struct Step
{
	int			node;
	int			edge;
} Step;

static bool counts(const DtxEdge *edge);
static int	add_node(DtxGraph *g, DtxNodeKind kind);
static int	rank(const DtxGraph *g, const int *cycle, int n, int i);

/* An empty graph.  It lives in cxt, and goes with that. */
DtxGraph *
DtxGraphCreate(MemoryContext cxt)
{
	DtxGraph   *g = MemoryContextAllocZero(cxt, sizeof(DtxGraph));
	HASHCTL		info;

	memset(&info, 0, sizeof(info));
	info.keysize = offsetof(Place, node);
	info.entrysize = sizeof(Place);
	info.hcxt = cxt;
	g->cxt = cxt;
	g->places = hash_create("pg_dtx processes that wait", 256, &info,
							HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	g->max_nodes = g->max_edges = 64;
	g->nodes = MemoryContextAlloc(cxt, sizeof(DtxNode) * g->max_nodes);
	g->edges = MemoryContextAlloc(cxt, sizeof(DtxEdge) * g->max_edges);
	return g;
}

static int
add_node(DtxGraph *g, DtxNodeKind kind)
{
	if (g->nnodes == g->max_nodes)
	{
		g->max_nodes *= 2;
		g->nodes = repalloc(g->nodes, sizeof(DtxNode) * g->max_nodes);
	}
	memset(&g->nodes[g->nnodes], 0, sizeof(DtxNode));
	g->nodes[g->nnodes].kind = kind;
	g->nodes[g->nnodes].first_edge = -1;
	return g->nnodes++;
}

/* A backend of this server.  "backend" has to live as long as the graph. */
int
DtxGraphAddBackend(DtxGraph *g, const DtxWaits *backend)
{
	int			node = add_node(g, DTX_NODE_BACKEND);

	g->nodes[node].backend = backend;
	g->nodes[node].pid = backend->pid;
	g->nodes[node].mark = backend->mark;
	return node;
}

/* That process of that server is, or works for, this node. */
void
DtxGraphPlace(DtxGraph *g, uint64 instance, int pid, int node)
{
	Place		key = {.instance = instance,.pid = pid};
	Place	   *place = hash_search(g->places, &key, HASH_ENTER, NULL);

	place->node = node;
}

/* The node of a process, or -1. */
int
DtxGraphFind(const DtxGraph *g, uint64 instance, int pid)
{
	Place		key = {.instance = instance,.pid = pid};
	Place	   *place = hash_search(g->places, &key, HASH_FIND, NULL);

	return place != NULL ? place->node : -1;
}

/*
 * The node of a process, made if there is none: one of its own, or that of its mark, if that
 * is not 0.
 */
int
DtxGraphProcess(DtxGraph *g, uint64 instance, int pid, uint32 mark)
{
	int			node = DtxGraphFind(g, instance, pid);

	if (node >= 0)
		return node;
	node = mark != 0 ? 0 : g->nnodes;
	while (node < g->nnodes &&
		   (g->nodes[node].kind != DTX_NODE_MARKED || g->nodes[node].mark != mark))
		node++;
	if (node == g->nnodes)
	{
		node = add_node(g, mark != 0 ? DTX_NODE_MARKED : DTX_NODE_PROCESS);
		g->nodes[node].mark = mark;
		g->nodes[node].instance = instance;
		g->nodes[node].pid = pid;
	}
	DtxGraphPlace(g, instance, pid, node);
	return node;
}

/* The node of a prepared transaction, for which nothing here is responsible. */
int
DtxGraphPrepared(DtxGraph *g, uint64 instance, const char *gid)
{
	int			node = add_node(g, DTX_NODE_PREPARED);

	g->nodes[node].instance = instance;
	if (gid != NULL)
		g->nodes[node].gid = MemoryContextStrdup(g->cxt, gid);
	return node;
}

/* One more edge.  The result is good until the next one is added. */
DtxEdge *
DtxGraphAddEdge(DtxGraph *g, int from, int to, uint64 instance, int waiter_pid,
				int blocker_pid)
{
	DtxEdge    *edge;

	if (g->nedges == g->max_edges)
	{
		g->max_edges *= 2;
		g->edges = repalloc_huge(g->edges, sizeof(DtxEdge) * g->max_edges);
	}
	edge = &g->edges[g->nedges];
	memset(edge, 0, sizeof(DtxEdge));
	edge->from = from;
	edge->to = to;
	edge->instance = instance;
	edge->waiter_pid = waiter_pid;
	edge->blocker_pid = blocker_pid;
	edge->next = g->nodes[from].first_edge;
	g->nodes[from].first_edge = g->nedges++;
	return edge;
}

/*
 * Does a wait of that process count?  That of a session of a backend of ours only while
 * the backend waits for it: otherwise it is one that was left, and is being canceled.  One
 * that sleeps in the executor waits for all that are busy.
 */
bool
DtxGraphWaitCounts(const DtxGraph *g, int node, uint64 instance, int pid)
{
	const DtxWaits *b = g->nodes[node].backend;

	if (b == NULL || b->appending)
		return true;
	if (!DtxWaitsNow(b))
		return false;
	for (int i = 0; i < b->nsessions; i++)
	{
		if (b->sessions[i].instance == instance && b->sessions[i].pid == pid)
			return b->sessions[i].awaited;
	}
	return false;
}

/* The edge of this graph that says the same as one of another graph, or NULL. */
DtxEdge *
DtxGraphFindEdge(DtxGraph *g, const DtxEdge *like)
{
	int			from = DtxGraphFind(g, like->instance, like->waiter_pid);

	if (from < 0)
		return NULL;
	for (int i = g->nodes[from].first_edge; i >= 0; i = g->edges[i].next)
	{
		DtxEdge    *edge = &g->edges[i];

		if (edge->instance == like->instance && edge->waiter_pid == like->waiter_pid &&
			edge->blocker_pid == like->blocker_pid &&
			(edge->gid == NULL || like->gid == NULL || strcmp(edge->gid, like->gid) == 0))
			return edge;
	}
	return NULL;
}

/* Is it a process of this server? */
bool
DtxNodeIsHere(const DtxNode *node)
{
	return node->kind == DTX_NODE_BACKEND ||
		(node->kind == DTX_NODE_PROCESS && node->instance == DtxInstanceHere());
}

/* Does it count for searches? */
static bool
counts(const DtxEdge *edge)
{
	return !edge->ignored && !edge->wrong;
}

/* All edges count for searches again. */
void
DtxGraphIgnoreNone(DtxGraph *g)
{
	for (int i = 0; i < g->nedges; i++)
		g->edges[i].ignored = false;
}

/*
 * Find a circle of edges that count: puts their numbers, one leading to the next,
 * into cycle[], which has room for as many as there are nodes, and returns how many they
 * are; 0 if there is none.
 */
int
DtxGraphFindCycle(DtxGraph *g, int *cycle)
{
	Step	   *path = palloc(sizeof(Step) * (g->nnodes + 1));
	int			found = 0;

	g->searches++;
	for (int start = 0; start < g->nnodes && found == 0; start++)
	{
		int			depth = 0;

		if (g->nodes[start].visited == g->searches)
			continue;
		g->nodes[start].visited = g->searches;
		g->nodes[start].on_path = true;
		path[0].node = start;
		path[0].edge = g->nodes[start].first_edge;
		while (depth >= 0 && found == 0)
		{
			int			e = path[depth].edge;
			DtxNode    *to;

			if (e < 0)
			{
				g->nodes[path[depth].node].on_path = false;
				depth--;
				if (depth >= 0)
					path[depth].edge = g->edges[path[depth].edge].next;
				continue;
			}
			to = &g->nodes[g->edges[e].to];
			if (counts(&g->edges[e]) && to->on_path)
			{
				int			first = depth;

				while (path[first].node != g->edges[e].to)
					first--;
				for (int i = first; i <= depth; i++)
					cycle[found++] = path[i].edge;
			}
			else if (counts(&g->edges[e]) && to->visited != g->searches)
			{
				to->visited = g->searches;
				to->on_path = true;
				depth++;
				path[depth].node = g->edges[e].to;
				path[depth].edge = to->first_edge;
			}
			else
				path[depth].edge = g->edges[e].next;
		}
		for (; depth >= 0; depth--)
			g->nodes[path[depth].node].on_path = false;
	}
	pfree(path);
	return found;
}

/*
 * Whose wait is to end?  Of the backends in the circle that wait for a server and can be
 * told, the youngest of the best rank.  Returns the number of the edge in cycle[] that
 * leads away from it, or -1 if there is none.
 */
int
DtxGraphVictim(const DtxGraph *g, const int *cycle, int n)
{
	int			best = -1;
	int			best_rank = 0;

	for (int i = 0; i < n; i++)
	{
		const DtxNode *node = &g->nodes[g->edges[cycle[i]].from];
		int			r = rank(g, cycle, n, i);

		if (r > best_rank ||
			(r > 0 && r == best_rank &&
			 node->backend->start > g->nodes[g->edges[cycle[best]].from].backend->start))
		{
			best = i;
			best_rank = r;
		}
	}
	return best;
}

/*
 * How good a victim is the node from which edge number i of the circle leads away?  0: it
 * cannot be one.  The one before it has to be waiting for what this one holds: nobody is
 * helped by the end of one that only stands in the queue.  One in PREPARE has done
 * more, and takes longer to end.
 */
static int
rank(const DtxGraph *g, const int *cycle, int n, int i)
{
	const DtxEdge *out = &g->edges[cycle[i]];
	const DtxEdge *in = &g->edges[cycle[(i + n - 1) % n]];
	const DtxNode *node = &g->nodes[out->from];
	DtxActivity activity;

	if (node->kind != DTX_NODE_BACKEND || !DtxWaitsNow(node->backend) ||
		!node->backend->may_throw)
		return 0;
	if (!in->hard)
		return 1;
	if (DtxActivityGet(node->backend->procno, &activity) &&
		activity.state != DTX_ACTIVE && activity.state != DTX_IDLE)
		return 2;
	return 3;
}
