/*-------------------------------------------------------------------------
 *
 * take.c
 *		Doing something on all servers and here at one moment: taking snapshots,
 *		restore points.
 *
 * The moment is one at which no distributed transaction of this coordinator is committed in
 * part.  One attempt:
 *
 *	 close the gate for these servers and this database (state/gate)
 *	 wait until nobody is inside whom that concerns
 *	 ask each server what is prepared there, and right behind that take its snapshot
 *	 take the local snapshot
 *	 was the gate kept, and is nothing prepared that may be committed elsewhere?
 *	 open the gate
 *
 * An attempt holds up those who commit, so it is over after PATIENCE_MS for each of its two
 * waits, whatever a server or a session does; then the gate is open for some time before
 * the next one.  After pg_dtx.snapshot_timeout there is an error, which says what was in the
 * way.  Nothing is remembered between attempts, and servers are asked rather than shared
 * memory, so restarts, crashes and promotions of this server make no difference.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/connection.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/wire_wait.h"
#include "nodes/pg_list.h"
#include "portability/instr_time.h"
#include "snapshot/ask.h"
#include "snapshot/take.h"
#include "snapshot/unfinished.h"
#include "state/gate.h"
#include "state/tables.h"
#include "utils/palloc.h"

/*
 * How long committers wait for one another and for the servers while the gate is closed, or
 * for servers four times as long as their last answer took, if superusers own them all: others
 * could hold up everybody with a server that takes its time; milliseconds.
 */
#define PATIENCE_MS		100
#define MAX_PATIENCE_MS	1000

/* Pause between two attempts, and between two looks within one; milliseconds. */
#define RETRY_MS		20
#define LOOK_MS			2

/* What was in the way of the last attempt; the first that is set. */
typedef struct Obstacle
{
	const char *silent;			/* a server that does not answer */
	DtxUnfinished unfinished;	/* server NULL: none */
	DtxGateBlocker blocker;		/* pid 0: none */
} Obstacle;

static bool attempt(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
					DtxMoment deadline, int *patience, Obstacle *obstacle);
static bool attempt_closed(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
						   int *patience, Obstacle *obstacle);
static void open_gate(instr_time start);
static bool look(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
				 DtxMoment deadline, int *patience, Obstacle *obstacle);
static bool await_hope(DtxSnapshotServer *servers, int n, DtxMoment deadline,
					   Obstacle *obstacle);
static bool await_list(DtxSnapshotServer *servers, int n, DtxMoment deadline,
					   Obstacle *obstacle);
static List *common_unfinished(List *before, const List *now);
static int	max_patience(const DtxSnapshotServer *servers, int n);
static void check_allowed(const DtxSnapshotJob *job);
static DtxGateNode *nodes_of(const DtxSnapshotServer *servers, int n);
static void throw_too_late(const DtxSnapshotServer *servers, int n, const char *what,
						   const Obstacle *obstacle);

/*
 * Do a job on all servers and here at one moment.  Its answers are in servers[].answer, whose
 * connections stay held until DtxSnapshotEnd(), which is the caller's to call, also after an
 * error.  Throws if it cannot be done in pg_dtx.snapshot_timeout, and on interrupts.
 */
void
DtxSnapshotTake(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job)
{
	DtxMoment	deadline = DtxIn(dtx_snapshot_timeout);
	int			patience = PATIENCE_MS;
	Obstacle	obstacle;

	check_allowed(job);
	DtxSnapshotConnect(servers, n);
	while (!attempt(servers, n, job, deadline, &patience, &obstacle))
	{
		DtxStatsAdd(DTX_STAT_SNAPSHOT_RETRIES, 1);
		if (DtxIsDue(deadline) || !await_hope(servers, n, deadline, &obstacle))
			throw_too_late(servers, n, job->what, &obstacle);
	}
	DtxStatsAdd(DTX_STAT_SNAPSHOTS, 1);
	DTX_FAULT("snapshot-opened", NULL);
}

/*
 * Before the gate is closed again: wait until every server answers, and nothing is in doubt
 * there.  Returns false if that has taken until the deadline.
 */
static bool
await_hope(DtxSnapshotServer *servers, int n, DtxMoment deadline, Obstacle *obstacle)
{
	do
	{
		DtxUnfinished unfinished = {0};

		DtxWirePause(RETRY_MS, DtxConnectionWaitEvent());
		if (!await_list(servers, n, deadline, obstacle))
			continue;
		if (!DtxSnapshotFindUnfinished(servers, n, false, &unfinished) ||
			!unfinished.in_doubt)
			return true;
		obstacle->silent = NULL;
		obstacle->unfinished = unfinished;
	} while (!DtxIsDue(deadline));
	return false;
}

/*
 * Ask all servers what is prepared there.  Returns false if not all have answered at the
 * deadline, or a connection was lost, and says which, unless the deadline was too near.
 */
static bool
await_list(DtxSnapshotServer *servers, int n, DtxMoment deadline, Obstacle *obstacle)
{
	DtxMoment	asked = DtxNow();
	bool		answered;

	DtxSnapshotReconnectLost(servers, n);
	answered = DtxSnapshotAwait(servers, n, deadline);
	for (int i = 0; i < n && answered; i++)
		DtxSnapshotAskList(&servers[i]);
	answered = answered && DtxSnapshotAwait(servers, n, deadline);
	if (!answered)
	{
		if (DtxNow() - asked >= PATIENCE_MS || obstacle->unfinished.server == NULL)
			obstacle->silent = DtxSnapshotFirstDue(servers, n)->name;
		return false;
	}
	for (int i = 0; i < n; i++)
	{
		if (servers[i].lost)
		{
			obstacle->silent = servers[i].name;
			return false;
		}
	}
	DtxSnapshotCheckAnswers(servers, n);
	return true;
}

static void
check_allowed(const DtxSnapshotJob *job)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not %s: recovery is in progress", job->what),
				 errhint("Run it on the primary server.")));
	if (GetCurrentTransactionNestLevel() > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("could not %s in a subtransaction", job->what),
				 errhint("Do it before the first savepoint, or exception block.")));
	if (!DtxExtensionInstalled() || !DtxTwoPhaseCommit())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("could not %s", job->what),
				 DtxTwoPhaseCommit() ?
				 errdetail("Extension \"%s\" is not installed in this database.", DTX_EXTENSION) :
				 errdetail("\"%s\" is off.", "pg_dtx.two_phase_commit")));
}

/* Returns false if it is to be tried again. */
static bool
attempt(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
		DtxMoment deadline, int *patience, Obstacle *obstacle)
{
	DtxGateNode *nodes = nodes_of(servers, n);
	volatile bool done = false;

	memset(obstacle, 0, sizeof(*obstacle));
	Assert(DtxSnapshotFirstDue(servers, n) == NULL);
	if (DtxGateClose(job->begins ? DTX_GATE_COMMIT : DTX_GATE_PREPARE, nodes, n,
					 PATIENCE_MS, deadline))
	{
		instr_time	start;

		INSTR_TIME_SET_CURRENT(start);
		PG_TRY();
		{
			DTX_FAULT("gate-closed", NULL);
			done = attempt_closed(servers, n, job, patience, obstacle);
		}
		PG_CATCH();
		{
			open_gate(start);
			PG_RE_THROW();
		}
		PG_END_TRY();
		open_gate(start);
	}
	pfree(nodes);
	return done;
}

/* It was closed at that time.  Does not throw. */
static void
open_gate(instr_time start)
{
	instr_time	took;

	DtxGateOpen();
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, start);
	DtxStatsAdd(DTX_STAT_GATE_USEC, INSTR_TIME_GET_MICROSEC(took));
}

static bool
attempt_closed(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
			   int *patience, Obstacle *obstacle)
{
	if (!DtxGateAwaitEmpty(&obstacle->blocker) || !DtxGateExtend(*patience))
		return false;
	while (!look(servers, n, job, DtxGateClosedUntil(), patience, obstacle))
	{
		/* What the resolver has to finish may take a while. */
		if (obstacle->silent != NULL || obstacle->unfinished.in_doubt ||
			DtxSnapshotFirstDue(servers, n) != NULL || DtxIsDue(DtxGateClosedUntil()))
			return false;
		DtxWirePause(LOOK_MS, DtxConnectionWaitEvent());
	}
	if (!DtxGateKept())
		return false;
	if (!job->begins)
	{
		for (int i = 0; i < n; i++)
			DtxSnapshotCommand(&servers[i], job->command);
		if (!DtxSnapshotAwait(servers, n, DtxGateClosedUntil()))
		{
			obstacle->silent = DtxSnapshotFirstDue(servers, n)->name;
			throw_too_late(servers, n, job->what, obstacle);
		}
		DtxSnapshotCheckAnswers(servers, n);
		for (int i = 0; i < n; i++)
		{
			if (servers[i].lost)
				ereport(ERROR,
						(errcode(ERRCODE_CONNECTION_FAILURE),
						 errmsg("connection to server \"%s\" was lost", servers[i].name)));
		}
	}

	/* As the last: it cannot be done again. */
	job->here(job->arg);
	if (!DtxGateKept())
		throw_too_late(servers, n, job->what, obstacle);
	return true;
}

/*
 * Ask all servers what is prepared there, and, if that can be taken back, begin the job
 * behind that.  Returns false if that is not over at the deadline, or something is in the
 * way.
 */
static bool
look(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job,
	 DtxMoment deadline, int *patience, Obstacle *obstacle)
{
	DtxMoment	start = DtxNow();

	for (int i = 0; i < n; i++)
	{
		DtxSnapshotAskList(&servers[i]);
		if (job->begins)
			DtxSnapshotBegin(&servers[i], job->command);
	}
	if (!DtxSnapshotAwait(servers, n, deadline))
	{
		if (DtxNow() - start >= PATIENCE_MS / 2 || obstacle->unfinished.server == NULL)
			obstacle->silent = DtxSnapshotFirstDue(servers, n)->name;
		*patience = Min(*patience * 2, max_patience(servers, n));
		return false;
	}
	*patience = Min(Max(PATIENCE_MS, 4 * (int) (DtxNow() - start)), max_patience(servers, n));
	for (int i = 0; i < n; i++)
	{
		if (servers[i].lost)
		{
			obstacle->silent = servers[i].name;
			return false;
		}
	}
	DtxSnapshotCheckAnswers(servers, n);
	return !DtxSnapshotFindUnfinished(servers, n, !job->begins, &obstacle->unfinished);
}

static int
max_patience(const DtxSnapshotServer *servers, int n)
{
	for (int i = 0; i < n; i++)
	{
		ForeignServer *server = GetForeignServerExtended(servers[i].serverid, FSV_MISSING_OK);

		if (server == NULL || !superuser_arg(server->owner))
			return PATIENCE_MS;
	}
	return MAX_PATIENCE_MS;
}

/*
 * Wait until all that is committed in part now is committed on these servers.  The caller
 * calls DtxSnapshotEnd().  Throws if that takes longer than pg_dtx.snapshot_timeout, and on
 * interrupts.
 */
void
DtxSnapshotAwaitFinished(DtxSnapshotServer *servers, int n)
{
	const DtxSnapshotJob job = {.what = _("see all that was committed")};
	DtxMoment	deadline = DtxIn(dtx_snapshot_timeout);
	Obstacle	obstacle = {0};
	List	   *before = NIL;
	bool		first = true;

	check_allowed(&job);
	DtxSnapshotConnect(servers, n);
	for (;;)
	{
		if (await_list(servers, n, deadline, &obstacle))
		{
			List	   *now = DtxSnapshotListUnfinished(servers, n);

			/* Of what was there at first, what is there still. */
			before = first ? now : common_unfinished(before, now);
			first = false;
			if (before == NIL)
				return;
			obstacle.silent = NULL;
			obstacle.unfinished = *(DtxUnfinished *) linitial(before);
		}
		if (DtxIsDue(deadline))
			throw_too_late(servers, n, job.what, &obstacle);
		DtxWirePause(RETRY_MS, DtxConnectionWaitEvent());
	}
}

/* Those of "before" (DtxUnfinished) that are in "now", too. */
static List *
common_unfinished(List *before, const List *now)
{
	List	   *result = NIL;
	ListCell   *lc;

	foreach(lc, before)
	{
		DtxUnfinished *u = (DtxUnfinished *) lfirst(lc);
		ListCell   *lc2;

		foreach(lc2, now)
		{
			const DtxUnfinished *v = (const DtxUnfinished *) lfirst(lc2);

			if (u->server == v->server && memcmp(&u->gid, &v->gid, sizeof(DtxGid)) == 0)
			{
				result = lappend(result, u);
				break;
			}
		}
	}
	return result;
}

static DtxGateNode *
nodes_of(const DtxSnapshotServer *servers, int n)
{
	DtxGateNode *nodes = palloc0(sizeof(DtxGateNode) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nodes[i].system_id = servers[i].c->endpoint.system_id;
		nodes[i].serverid = servers[i].serverid;
	}
	return nodes;
}

/*
 * The error: which server, and why.
 */
static void
throw_too_late(const DtxSnapshotServer *servers, int n, const char *what,
			   const Obstacle *obstacle)
{
	char		gid[DTX_GID_SIZE];
	const char *server = obstacle->silent;

	if (server == NULL && obstacle->unfinished.server != NULL)
		server = obstacle->unfinished.server->name;
	for (int i = 0; i < n && server == NULL && obstacle->blocker.pid != 0; i++)
	{
		if (servers[i].serverid == obstacle->blocker.serverid)
			server = servers[i].name;
	}
	DtxStatsAdd(DTX_STAT_SNAPSHOTS_REFUSED, 1);
	if (obstacle->silent == NULL && obstacle->unfinished.server != NULL)
		DtxGidFormat(&obstacle->unfinished.gid, gid);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
			 server != NULL ?
			 errmsg("could not %s on server \"%s\"", what, server) :
			 errmsg("could not %s", what),
			 obstacle->silent != NULL ?
			 errdetail("It has not answered in time.") :
			 obstacle->unfinished.server != NULL ?
			 errdetail("Prepared transaction \"%s\" there may have been committed on other servers already.",
					   gid) :
			 obstacle->blocker.pid != 0 ?
			 errdetail("Process %d has been committing on it for too long.", obstacle->blocker.pid) :
			 errdetail("Too much was being committed."),
			 errhint("Try again. The time is limited by \"pg_dtx.snapshot_timeout\"; views \"dtx.in_doubt\" and \"dtx.transactions\" show what is not finished.")));
}
