/*-------------------------------------------------------------------------
 *
 * lock_waits.c
 *		The function behind the view of who waits for whom on all servers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/encoding.h"
#include "deadlock/describe.h"
#include "deadlock/look.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "sql/values.h"
#include "state/waits.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dtx_sql_lock_waits);

/*
 * dtx_internal.lock_waits(): asks the servers now, for half a second at most.
 */
Datum
dtx_sql_lock_waits(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext,
											  "pg_dtx look at waits",
											  ALLOCSET_DEFAULT_SIZES);
	DtxAsk	   *ask = DtxAskCreate(cxt);
	DtxLook    *look = DtxLookTake(ask, cxt, NIL, true, DtxWaitEvent("DtxLockWaits"));
	const DtxGraph *g = look->graph;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < g->nedges; i++)
	{
		const DtxEdge *edge = &g->edges[i];
		const DtxNode *from = &g->nodes[edge->from];
		const DtxNode *to = &g->nodes[edge->to];
		bool		from_here = DtxNodeIsHere(from);
		bool		to_here = DtxNodeIsHere(to);
		bool		in_session = !from_here || edge->instance != DtxInstanceHere() ||
		edge->waiter_pid != from->pid;
		const char *gid = to->kind == DTX_NODE_PREPARED ? to->gid : edge->gid;
		StringInfoData blocker;
		Datum		values[8];
		bool		nulls[8] = {0};
		int			n = 0;

		initStringInfo(&blocker);
		DtxDescribeBlocker(&blocker, look, edge);
		DtxTextMakeValid(blocker.data);

		nulls[n] = !from_here;
		values[n++] = Int32GetDatum(from->pid);
		nulls[n] = !in_session;
		values[n++] = in_session ? DtxNameValue(DtxDescribeServer(look, edge)) : (Datum) 0;
		nulls[n] = !in_session;
		values[n++] = Int32GetDatum(edge->waiter_pid);
		nulls[n] = edge->lock == NULL;
		values[n++] = edge->lock != NULL ? CStringGetTextDatum(edge->lock) : (Datum) 0;
		nulls[n] = from->kind != DTX_NODE_BACKEND || !in_session;
		values[n++] = from->kind == DTX_NODE_BACKEND && in_session ?
			TimestampTzGetDatum(DtxMomentToTimestamp(from->backend->since)) : (Datum) 0;
		nulls[n] = !to_here;
		values[n++] = Int32GetDatum(to->pid);
		values[n++] = CStringGetTextDatum(blocker.data);
		nulls[n] = gid == NULL;
		values[n++] = gid != NULL ? CStringGetTextDatum(gid) : (Datum) 0;
		Assert(n == lengthof(values) && n == rsinfo->setDesc->natts);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextDelete(cxt);
	return (Datum) 0;
}
