/*-------------------------------------------------------------------------
 *
 * waits_log.c
 *		Long waits for servers in the server log, if log_lock_waits is on, as PostgreSQL
 *		logs those for its own locks (ProcSleep() in storage/lmgr/proc.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/process.h"
#include "deadlock/describe.h"
#include "deadlock/waits_log.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "state/waits.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Of each entry of DtxWaits: number of the wait that was logged last. */
static uint64 *logged = NULL;

/*
 * Log each wait of a session of this database that is overdue and was not logged yet.  Not
 * in a transaction.  May throw.
 */
void
DtxWaitsLog(DtxLook *look)
{
	const DtxGraph *g = look->graph;
	MemoryContext old;

	DtxAssertInWorker();
	if (!log_lock_waits)
		return;
	if (logged == NULL)
		logged = MemoryContextAllocZero(TopMemoryContext,
										sizeof(uint64) * DtxWaitsCount());
	StartTransactionCommand();
	old = MemoryContextSwitchTo(look->cxt);
	for (int n = 0; n < g->nnodes; n++)
	{
		const DtxWaits *b = g->nodes[n].backend;
		StringInfoData wait;
		StringInfoData blockers;

		if (b == NULL || !b->overdue || !DtxWaitsNow(b) || b->dbid != MyDatabaseId ||
			logged[b->procno] == b->number || g->nodes[n].first_edge < 0)
			continue;
		logged[b->procno] = b->number;
		initStringInfo(&wait);
		initStringInfo(&blockers);
		DtxDescribeWait(&wait, look, &g->edges[g->nodes[n].first_edge]);
		wait.data[0] = 'p';
		for (int e = g->nodes[n].first_edge; e >= 0; e = g->edges[e].next)
		{
			if (blockers.len > 0)
				appendStringInfoString(&blockers, ", ");
			DtxDescribeBlocker(&blockers, look, &g->edges[e]);
		}
		ereport(LOG,
				(errmsg_internal("%s since " INT64_FORMAT " ms", wait.data,
								 DtxNow() - b->since),
				 errdetail_internal("Blocked by %s.", blockers.data)));
	}
	MemoryContextSwitchTo(old);
	CommitTransactionCommand();
}
