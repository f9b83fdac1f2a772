/*-------------------------------------------------------------------------
 *
 * describe.c
 *		Waits in words, as PostgreSQL tells of those on one server (DeadLockReport() in
 *		storage/lmgr/deadlock.c).
 *
 * What is told is added to "buf".  Throws if out of memory, and what looking up a
 * foreign server throws.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "deadlock/describe.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "state/waits.h"
#include "utils/backend_status.h"

static void append_node(StringInfo buf, const DtxLook *look, const DtxNode *node,
						const char *process, const DtxEdge *edge, int pid);

/*
 * "Process 12 waits for ShareLock on transaction 345 on server "berlin" (process 67
 * there)".  In a transaction.
 */
void
DtxDescribeWait(StringInfo buf, const DtxLook *look, const DtxEdge *edge)
{
	const DtxNode *node = &look->graph->nodes[edge->from];
	bool		through_session;

	append_node(buf, look, node, "Process", edge, edge->waiter_pid);
	appendStringInfo(buf, " waits for %s",
					 edge->lock != NULL ? edge->lock : "a lock");

	/* The name of another server's process contains where that is. */
	through_session = node->kind == DTX_NODE_BACKEND &&
		(edge->instance != DtxInstanceHere() || edge->waiter_pid != node->pid);
	if (through_session)
		appendStringInfo(buf, " on server \"%s\" (process %d there)",
						 DtxDescribeServer(look, edge), edge->waiter_pid);
}

/*
 * "process 89", and where that is if it is not one of this server.  In a transaction.
 */
void
DtxDescribeBlocker(StringInfo buf, const DtxLook *look, const DtxEdge *edge)
{
	append_node(buf, look, &look->graph->nodes[edge->to], "process", edge,
				edge->blocker_pid);
	if (edge->gid != NULL && look->graph->nodes[edge->to].kind == DTX_NODE_BACKEND)
		appendStringInfoString(buf, ", which has prepared its transaction there");
}

/*
 * What the processes of this server in a circle are doing, a line each.
 */
void
DtxDescribeQueries(StringInfo buf, const DtxLook *look, const int *cycle, int n)
{
	const DtxGraph *g = look->graph;

	for (int i = 0; i < n; i++)
	{
		const DtxNode *node = &g->nodes[g->edges[cycle[i]].from];

		if (DtxNodeIsHere(node))
			appendStringInfo(buf, "%sProcess %d: %s", buf->len > 0 ? "\n" : "",
							 node->pid,
							 pgstat_get_backend_current_activity(node->pid, false));
	}
}

/*
 * The foreign server on which an edge's node waits: of its session, if that is known.  In
 * a transaction; in the current memory context.
 */
char *
DtxDescribeServer(const DtxLook *look, const DtxEdge *edge)
{
	const DtxWaits *b = look->graph->nodes[edge->from].backend;
	const char *name;

	for (int i = 0; b != NULL && b->dbid == MyDatabaseId && i < b->nsessions; i++)
	{
		const DtxWaitSession *session = &b->sessions[i];
		ForeignServer *server;

		if (session->instance == edge->instance && session->pid == edge->waiter_pid &&
			(server = GetForeignServerExtended(session->serverid, FSV_MISSING_OK)) != NULL)
			return server->servername;
	}
	name = DtxLookServerName(look, edge->instance);
	return pstrdup(name != NULL ? name : "(this)");
}

static void
append_node(StringInfo buf, const DtxLook *look, const DtxNode *node, const char *process,
			const DtxEdge *edge, int pid)
{
	switch (node->kind)
	{
		case DTX_NODE_BACKEND:
			appendStringInfo(buf, "%s %d", process, node->pid);
			break;
		case DTX_NODE_PROCESS:
		case DTX_NODE_MARKED:
			appendStringInfo(buf, "%s %d", process, pid);
			if (edge->instance != DtxInstanceHere())
				appendStringInfo(buf, " of server \"%s\"",
								 DtxLookServerName(look, edge->instance));
			break;
		case DTX_NODE_PREPARED:
			if (node->gid != NULL)
				appendStringInfo(buf, "prepared transaction \"%s\"", node->gid);
			else
				appendStringInfoString(buf, "a prepared transaction");
			if (node->instance != DtxInstanceHere())
				appendStringInfo(buf, " of server \"%s\"",
								 DtxLookServerName(look, node->instance));
			break;
	}
}
