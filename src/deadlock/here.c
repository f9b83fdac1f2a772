/*-------------------------------------------------------------------------
 *
 * here.c
 *		Who waits for whom on this server, from its own lock table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "deadlock/graph.h"
#include "deadlock/here.h"
#include "deadlock/owners.h"
#include "executor/spi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"

static bool is_momentary(const LOCKTAG *tag);
static void add_waits_of(DtxGraph *g, int pid, List **todo);
static char *describe(const LockInstanceData *waiter);
static char *identify(int pid, const char *lock);
static char *find_gid(const LockInstanceData *holder);

/*
 * Add the edges that begin at processes of this server which the graph knows, and at those
 * that they lead to.  In a transaction, without a snapshot.  May throw.
 */
void
DtxHereAddWaits(DtxGraph *g)
{
	uint64		here = DtxInstanceHere();
	List	   *todo = NIL;
	int			done = 0;

	for (int i = 0; i < g->nnodes; i++)
	{
		const DtxWaits *b = g->nodes[i].backend;

		if (b == NULL)
			continue;
		todo = lappend_int(todo, b->pid);
		for (int j = 0; j < b->nsessions; j++)
		{
			if (b->sessions[j].instance == here)
				todo = lappend_int(todo, b->sessions[j].pid);
		}
	}
	while (done < list_length(todo))
		add_waits_of(g, list_nth_int(todo, done++), &todo);
}

/*
 * Locks that are held for moments, and given back before the transaction ends.
 */
static bool
is_momentary(const LOCKTAG *tag)
{
	return tag->locktag_type == LOCKTAG_RELATION_EXTEND ||
		tag->locktag_type == LOCKTAG_PAGE ||
		tag->locktag_type == LOCKTAG_SPECULATIVE_TOKEN;
}

/*
 * What a process and its parallel workers wait for, as in pg_blocking_pids() of
 * utils/adt/lockfuncs.c.  Appends the process ids that were not known to *todo.
 */
static void
add_waits_of(DtxGraph *g, int pid, List **todo)
{
	uint64		here = DtxInstanceHere();
	int			from = DtxGraphProcess(g, here, pid, 0);
	BlockedProcsData *data;

	/* A session of a backend with this server: see there. */
	if (g->nodes[from].pid != pid && !DtxGraphWaitCounts(g, from, here, pid))
		return;
	CHECK_FOR_INTERRUPTS();
	data = GetBlockerStatusData(pid);

	for (int i = 0; i < data->nprocs; i++)
	{
		BlockedProcData *proc = &data->procs[i];
		LockInstanceData *instances = &data->locks[proc->first_lock];
		int		   *ahead = &data->waiter_pids[proc->first_waiter];
		LockInstanceData *waiter = NULL;
		LOCKMASK	conflicts;
		char	   *lock;
		char	   *identity;

		for (int j = 0; j < proc->num_locks; j++)
		{
			if (instances[j].pid == proc->pid)
				waiter = &instances[j];
		}
		if (waiter == NULL || is_momentary(&waiter->locktag))
			continue;
		conflicts = GetLockTagsMethodTable(&waiter->locktag)->conflictTab[waiter->waitLockMode];
		lock = describe(waiter);
		identity = identify(proc->pid, lock);

		for (int j = 0; j < proc->num_locks; j++)
		{
			LockInstanceData *other = &instances[j];
			bool		hard = (conflicts & other->holdMask) != 0;
			bool		soft = false;
			DtxEdge    *edge;
			char	   *gid = NULL;
			int			to;

			if (other == waiter || other->leaderPid == waiter->leaderPid)
				continue;
			if (!hard && other->waitLockMode != NoLock &&
				(conflicts & LOCKBIT_ON(other->waitLockMode)) != 0)
			{
				for (int k = 0; k < proc->num_waiters && !soft; k++)
					soft = ahead[k] == other->pid;
			}
			if (!hard && !soft)
				continue;
			if (other->leaderPid == 0)
			{
				gid = find_gid(other);
				to = DtxOwnerOfPrepared(g, here, gid);
			}
			else
			{
				to = DtxGraphFind(g, here, other->leaderPid);
				if (to < 0)
				{
					to = DtxGraphProcess(g, here, other->leaderPid, 0);
					*todo = lappend_int(*todo, other->leaderPid);
				}
			}
			edge = DtxGraphAddEdge(g, from, to, here, pid, other->leaderPid);
			edge->hard = hard && waiter->locktag.locktag_type != LOCKTAG_TUPLE;
			edge->lock = lock;
			edge->gid = gid;
			edge->identity = identity;
		}
	}

	/* Each is as large as there are backends. */
	pfree(data->procs);
	pfree(data->locks);
	pfree(data->waiter_pids);
	pfree(data);
}

/*
 * "ShareLock on transaction 123", as in DeadLockReport() of storage/lmgr/deadlock.c.
 */
static char *
describe(const LockInstanceData *waiter)
{
	StringInfoData buf;

	initStringInfo(&buf);
	appendStringInfo(&buf, "%s on ",
					 GetLockmodeName(waiter->locktag.locktag_lockmethodid,
									 waiter->waitLockMode));
	DescribeLockTag(&buf, &waiter->locktag);
	return buf.data;
}

/*
 * Which wait of a process for that lock it is: when it began, which GetBlockerStatusData()
 * does not tell.  NULL if that is not known yet: PostgreSQL says it a moment after the wait
 * has begun.
 */
static char *
identify(int pid, const char *lock)
{
	PGPROC	   *proc = BackendPidGetProc(pid);
	uint64		since = proc != NULL ? pg_atomic_read_u64(&proc->waitStart) : 0;

	return since != 0 ? psprintf(UINT64_FORMAT " %s", since, lock) : NULL;
}

/*
 * The gid of a prepared transaction of this server, in the current memory context, or NULL.
 * What is known of it is its virtual transaction, which is that of the session that has
 * prepared it; it holds the lock on its transaction id under that.
 */
static char *
find_gid(const LockInstanceData *holder)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			type = TEXTOID;
	Datum		arg = CStringGetTextDatum(psprintf("%d/%u",
												   (int) DtxLockInstanceBackend(holder),
												   DtxLockInstanceLxid(holder)));
	char	   *gid = NULL;

	PushActiveSnapshot(GetTransactionSnapshot());
	SPI_connect();
	if (SPI_execute_with_args("SELECT g.gid FROM pg_catalog.pg_locks AS l"
							  " JOIN pg_catalog.pg_prepared_xact() AS g"
							  " ON g.transaction OPERATOR(pg_catalog.=) l.transactionid"
							  " WHERE l.pid IS NULL AND l.granted"
							  " AND l.locktype OPERATOR(pg_catalog.=) 'transactionid'"
							  " AND l.virtualtransaction OPERATOR(pg_catalog.=) $1",
							  1, &type, &arg, NULL, true, 1) == SPI_OK_SELECT &&
		SPI_processed == 1)
	{
		char	   *value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (value != NULL)
			gid = MemoryContextStrdup(cxt, value);
	}
	SPI_finish();
	PopActiveSnapshot();
	return gid;
}
