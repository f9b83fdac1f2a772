/*-------------------------------------------------------------------------
 *
 * search.c
 *		Finding deadlocks, and ending one wait of each.
 *
 * A circle that one look has found is looked at again.  It is a deadlock if each of its
 * edges is found again, and each of its waits is the same: then all of them existed at one
 * moment between the looks, and what waits in a circle waits for ever.  That a wait is the
 * same is known of backends of this server by the numbers of their waits, of processes
 * that wait for a lock of this server by when that began, and of processes of other
 * servers by the lock and their virtual transaction.  Of one who stands in a queue it is not
 * enough to know that its wait lasts: it may be in another queue by now, behind the same
 * process.  So these are known by the lock, too; and since the first look does not ask for
 * that, a circle with one of either kind is looked at a third time.
 *
 * Victims are backends of this server that wait for a server, and nobody else.  With
 * processes of another coordinator in the circle, that one finds it as well: the one whose
 * process has the greatest mark ends it, the other one only if it is still there after a
 * while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/encoding.h"
#include "base/fault.h"
#include "base/process.h"
#include "base/stats.h"
#include "deadlock/describe.h"
#include "deadlock/search.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "state/waits.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Circles that are looked at in one look. */
#define MAX_CIRCLES		100

/* How long another coordinator has to end a deadlock that is its to end, milliseconds. */
#define OTHERS_TURN_MS	3000

static List *circles(const DtxLook *look, bool *unsure);
static bool same_wait(const DtxEdge *edge, const DtxLook *look, const DtxLook *earlier,
					  bool by_lock);
static bool is_stranger(const DtxGraph *g, const DtxEdge *edge);
static bool is_unsure(const DtxGraph *g, const DtxEdge *edge);
static bool is_ours_to_end(const DtxGraph *g, const int *cycle, int n);
static void end_wait(DtxLook *look, const int *cycle, int n, int victim);

/*
 * Look at all servers concerned, and end one wait of each deadlock that is found.  Returns
 * the last look, in cxt; with "all_details" it tells all locks that are waited for.  Not
 * in a transaction; see DtxLookTake() for what it throws.
 */
DtxLook *
DtxSearchDeadlocks(DtxAsk *ask, MemoryContext cxt, bool all_details,
				   uint32 wait_event)
{
	DtxLook    *first = DtxLookTake(ask, cxt, NIL, all_details, wait_event);
	DtxLook    *second = NULL;
	DtxLook    *last;
	DtxGraph   *g;
	List	   *details;
	bool		unsure;
	int		   *cycle;
	int			searches = 0;
	int			n;

	DtxAssertInWorker();
	if (first->unnamed != NIL)
		first = DtxLookTake(ask, cxt, first->unnamed, all_details, wait_event);
	details = circles(first, &unsure);
	if (details == NIL)
		return first;

	DTX_FAULT("deadlock-seen", NULL);
	details = list_concat(details, first->unnamed);
	last = DtxLookTake(ask, cxt, details, all_details, wait_event);
	details = list_concat(circles(last, &unsure), details);
	if (unsure)
	{
		second = last;
		last = DtxLookTake(ask, cxt, details, all_details, wait_event);
	}

	g = last->graph;
	cycle = MemoryContextAlloc(cxt, sizeof(int) * (g->nnodes + 1));
	while (searches++ < MAX_CIRCLES && (n = DtxGraphFindCycle(g, cycle)) > 0)
	{
		int			ignore = -1;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < n && ignore < 0; i++)
		{
			const DtxEdge *edge = &g->edges[cycle[i]];

			if (!same_wait(edge, last, first, false) ||
				(is_unsure(g, edge) &&
				 (second == NULL || !same_wait(edge, last, second, true))))
				ignore = cycle[i];
		}
		if (ignore < 0)
		{
			int			victim = DtxGraphVictim(g, cycle, n);

			ignore = cycle[Max(victim, 0)];
			if (victim >= 0 && is_ours_to_end(g, cycle, n))
			{
				end_wait(last, cycle, n, victim);

				/* Nothing that it waits for counts any more. */
				for (int e = g->nodes[g->edges[ignore].from].first_edge; e >= 0;
					 e = g->edges[e].next)
					g->edges[e].ignored = true;
			}
		}
		g->edges[ignore].ignored = true;
	}
	return last;
}

/*
 * The waits that are part of a circle (DtxLookDetail), enough of them to know one circle of
 * each deadlock.  *unsure: is the wait of one of them known by its lock only?
 */
static List *
circles(const DtxLook *look, bool *unsure)
{
	DtxGraph   *g = look->graph;
	MemoryContext old = MemoryContextSwitchTo(look->cxt);
	int		   *cycle = palloc(sizeof(int) * (g->nnodes + 1));
	List	   *details = NIL;
	int			searches = 0;
	int			n;

	*unsure = false;
	while (searches++ < MAX_CIRCLES && (n = DtxGraphFindCycle(g, cycle)) > 0)
	{
		int			victim = DtxGraphVictim(g, cycle, n);

		CHECK_FOR_INTERRUPTS();
		if (victim < 0)
		{
			/* Nobody can be ended here. */
			for (int i = 0; i < n; i++)
				g->edges[cycle[i]].ignored = true;
			continue;
		}
		for (int i = 0; i < n; i++)
		{
			const DtxEdge *edge = &g->edges[cycle[i]];
			DtxLookDetail *d = palloc(sizeof(DtxLookDetail));

			*unsure |= is_unsure(g, edge);
			d->instance = edge->instance;
			d->pid = edge->waiter_pid;
			details = lappend(details, d);
		}
		g->edges[cycle[victim]].ignored = true;
	}
	DtxGraphIgnoreNone(g);
	MemoryContextSwitchTo(old);
	return details;
}

/*
 * Does the edge say of a process that is not of this server that it waits?  A backend that
 * sleeps in the executor has no number for its wait, either.
 */
static bool
is_stranger(const DtxGraph *g, const DtxEdge *edge)
{
	const DtxNode *node = &g->nodes[edge->from];

	return node->kind == DTX_NODE_MARKED ||
		(node->kind == DTX_NODE_BACKEND && node->backend->appending &&
		 edge->instance != DtxInstanceHere()) ||
		(node->kind == DTX_NODE_PROCESS &&
		 edge->instance != DtxInstanceHere());
}

/* Is it to be seen by the lock only whether the wait is still the same? */
static bool
is_unsure(const DtxGraph *g, const DtxEdge *edge)
{
	return is_stranger(g, edge) || !edge->hard;
}

/*
 * Did an earlier look find the same wait?  "by_lock": it has to be for the same lock, which
 * that look has asked for.
 */
static bool
same_wait(const DtxEdge *edge, const DtxLook *look, const DtxLook *earlier, bool by_lock)
{
	const DtxEdge *before = DtxGraphFindEdge(earlier->graph, edge);
	const DtxNode *node = &look->graph->nodes[edge->from];
	bool		here = edge->instance == DtxInstanceHere() &&
	!(node->kind == DTX_NODE_BACKEND && edge->waiter_pid != node->pid);

	if (before == NULL)
		return false;
	if (node->kind == DTX_NODE_BACKEND && !here && !node->backend->appending)
	{
		const DtxNode *was = &earlier->graph->nodes[before->from];

		if (was->kind != DTX_NODE_BACKEND || !DtxWaitsNow(node->backend) ||
			was->backend->procno != node->backend->procno ||
			was->backend->number != node->backend->number)
			return false;
	}
	if (!here && !by_lock)
		return true;
	return edge->identity != NULL && before->identity != NULL &&
		strcmp(edge->identity, before->identity) == 0;
}

/*
 * Is it this coordinator that has to end a deadlock, or has another one had its time?
 */
static bool
is_ours_to_end(const DtxGraph *g, const int *cycle, int n)
{
	uint32		our_mark = 0;
	uint32		their_mark = 0;
	DtxMoment	since = 0;

	for (int i = 0; i < n; i++)
	{
		const DtxNode *node = &g->nodes[g->edges[cycle[i]].from];

		if (node->kind == DTX_NODE_MARKED)
			their_mark = Max(their_mark, node->mark);
		if (node->kind != DTX_NODE_BACKEND)
			continue;
		our_mark = Max(our_mark, node->mark);
		if (DtxWaitsNow(node->backend))
			since = Max(since, node->backend->since);
	}
	return our_mark >= their_mark || DtxIsDue(since + DeadlockTimeout + OTHERS_TURN_MS);
}

/*
 * The victim is to be told, unless one of the waits is over.
 */
static void
end_wait(DtxLook *look, const int *cycle, int n, int victim)
{
	const DtxGraph *g = look->graph;
	MemoryContext old = MemoryContextSwitchTo(look->cxt);
	int		   *procnos = palloc(sizeof(int) * n);
	uint64	   *numbers = palloc(sizeof(uint64) * n);
	int			nbackends = 0;
	StringInfoData detail;
	StringInfoData queries;
	char		told[DTX_VICTIM_TEXT];
	char		logged[DTX_VICTIM_TEXT];

	initStringInfo(&detail);
	initStringInfo(&queries);
	StartTransactionCommand();
	MemoryContextSwitchTo(look->cxt);
	for (int i = 0; i < n; i++)
	{
		/* The victim's own wait comes first. */
		const DtxEdge *edge = &g->edges[cycle[(victim + i) % n]];
		const DtxNode *node = &g->nodes[edge->from];

		if (i > 0)
			appendStringInfoChar(&detail, '\n');
		DtxDescribeWait(&detail, look, edge);
		appendStringInfoString(&detail, "; blocked by ");
		DtxDescribeBlocker(&detail, look, edge);
		appendStringInfoChar(&detail, '.');
		if (node->kind == DTX_NODE_BACKEND && DtxWaitsNow(node->backend))
		{
			procnos[nbackends] = node->backend->procno;
			numbers[nbackends++] = node->backend->number;
		}
	}
	DtxDescribeQueries(&queries, look, cycle, n);
	CommitTransactionCommand();
	MemoryContextSwitchTo(look->cxt);
	DtxTextClip(told, detail.data, sizeof(told));
	DtxTextClip(logged, queries.data, sizeof(logged));

	DTX_FAULT("deadlock-choose", NULL);
	if (DtxWaitsChoose(procnos, numbers, nbackends,
					   g->nodes[g->edges[cycle[victim]].from].backend->procno,
					   told, logged))
		DtxStatsAdd(DTX_STAT_DEADLOCKS, 1);
	MemoryContextSwitchTo(old);
}
