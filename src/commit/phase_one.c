/*-------------------------------------------------------------------------
 *
 * phase_one.c
 *		Before the local commit: who wrote, and if more than one node did, PREPARE on
 *		all of them and the decision.
 *
 * Errors are allowed here and abort everything.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/connection.h"
#include "commit/handover.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/phase_one.h"
#include "commit/point.h"
#include "commit/protection.h"
#include "commit/replies.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/route.h"
#include "net/wire_wait.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/gate.h"
#include "state/identity.h"
#include "state/tables.h"
#include "utils/palloc.h"

/* The current transaction. */
static DtxTransaction *const t = &dtx_transaction;

/* See DtxPhaseOneSetCheck(). */
static void (*other_check) (void) = NULL;

static bool is_switched_off(void);
static void check_participants(void);
static void decide_how(void);
static void commit_in_one_phase(void);
static void commit_in_two_phases(void);
static DtxParticipant *choose_point(void);
static int	count_writers(void);
static int	count_local_writer(void);
static int	count_unknown(void);
static void commit_readers(void);
static void check_can_prepare(void);
static DtxGid new_gid(void);
static DtxPrepared *describe_writers(const DtxGid *gid, int *n);
static void announce(int nwriters);
static void enter_alone(void);
static DtxGateNode gate_node(const DtxParticipant *p);
static void publish(const DtxGid *gid, const DtxPrepared *prepared, int n);
static void send_prepares(DtxGid *gid);
static void write_decision(DtxPrepared *prepared, int n);
static void wait_for_all(const char *what);
static void throw_failed(const char *what);
static void throw_timeout(void);

/* Wait event, see DtxWaitEvent(). */
uint32
DtxPrepareWaitEvent(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = DtxWaitEvent("DtxPrepare");
	return event;
}

/*
 * "check", which may throw, is called before anything is committed on any server.  At
 * server start.
 */
void
DtxPhaseOneSetCheck(void (*check) (void))
{
	other_check = check;
}

/*
 * The transaction is about to commit: on return it may.  Throws otherwise.
 */
void
DtxPhaseOne(void)
{
	DTX_ASSERT_MAY_THROW();
	if (is_switched_off())
	{
		DtxTransactionSetPhase(DTX_PHASE_OFF);
		return;
	}
	check_participants();
	decide_how();
}

/*
 * Does the transaction commit without us?  Throws if that can't be.
 */
static bool
is_switched_off(void)
{
	if (DtxTwoPhaseCommit() && DtxExtensionInstalled())
		return false;

	/* It was there when the first of several nodes was written to. */
	if (DtxTwoPhaseCommit() && DtxTransactionIsShown() &&
		DtxTransactionParticipants() + t->nlost + count_local_writer() > 1)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("extension \"%s\" was dropped while the transaction ran",
						"pg_dtx"),
				 errdetail("The transaction cannot be committed atomically on all servers."),
				 errhint("Try it again, or set \"pg_dtx.two_phase_commit\" to off.")));
	DtxProtectionMissing(count_local_writer() + count_writers());
	return true;
}

/*
 * Are those who took part all there, and able to commit?  Otherwise throws.
 */
static void
check_participants(void)
{
	DtxTransactionCheckAllSeen();
	DtxTransactionCheckNoneLost();
	if (other_check != NULL)
		other_check();
	DtxTransactionCheckCommittable();
}

/*
 * At most one node wrote: one phase.  Otherwise two.  A participant that only read may
 * have written: it is asked, if the answer matters.
 */
static void
decide_how(void)
{
	int			local = count_local_writer();
	int			unknown = count_unknown();

	if (dlist_is_empty(&t->participants))
	{
		DtxTransactionSetPhase(DTX_PHASE_PLAIN);
		return;
	}
	if (unknown > 0 && count_writers() + unknown + local > 1)
	{
		DtxTransactionMakeWaitSet();
		DtxPhaseOneAsk();
		unknown = 0;
	}

	/* A lone participant that was not asked counts as a writer. */
	if (count_writers() + unknown + local <= 1)
		commit_in_one_phase();
	else
		commit_in_two_phases();
}

/*
 * The nodes, other than this one, on which the current transaction has written for
 * sure.
 */
static int
count_writers(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		if (DTX_PARTICIPANT(iter)->writes == DTX_WROTE)
			n++;
	}
	return n;
}

static int
count_local_writer(void)
{
	return TransactionIdIsValid(GetTopTransactionIdIfAny()) ? 1 : 0;
}

/* Participants that have not said that they did not write. */
static int
count_unknown(void)
{
	return DtxTransactionParticipants() - count_writers();
}

/*
 * One node wrote, or none.  If it is a remote one, end the readers first: when one of
 * them fails, nothing has been committed yet.
 */
static void
commit_in_one_phase(void)
{
	bool		remote_writer = count_local_writer() == 0 &&
	(count_writers() > 0 || DtxTransactionParticipants() == 1);

	if (remote_writer && DtxTransactionParticipants() > 1)
		commit_readers();
	DtxTransactionSetPhase(DTX_PHASE_PLAIN);
	if (count_writers() > 0)
		DtxPointNotNeeded();
	if (remote_writer)
	{
		DtxStatsAdd(DTX_STAT_ONE_PHASE, 1);
		enter_alone();
	}
}

/*
 * One participant is going to be committed by postgres_fdw.
 */
static void
enter_alone(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);
		DtxGateNode node = gate_node(p);

		if (p->use == DTX_USED && p->writes != DTX_READ)
			DtxGateEnterAlone(&node);
	}
}

/*
 * A parallel worker commits on its own, whatever becomes of its leader.  What
 * it wrote could not be taken back: refuse.
 */
void
DtxPhaseOneOfWorker(void)
{
	dlist_iter	iter;

	if (t->nbegun == 0 || !DtxTwoPhaseCommit() || !DtxExtensionInstalled())
		return;

	DtxTransactionCheckNoneLost();
	DtxTransactionMakeWaitSet();
	DtxPhaseOneAsk();
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->writes == DTX_WROTE)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot write on server \"%s\" in a parallel worker",
							p->connection->endpoint.server_name),
					 errhint("A function that uses foreign tables must not be marked PARALLEL SAFE.")));
	}
}

/*
 * Ask all participants that may have written, and have not said, whether they did.
 * After DtxTransactionMakeWaitSet().  Throws if that can't be found out.
 */
void
DtxPhaseOneAsk(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->writes == DTX_WRITES_UNKNOWN && p->use == DTX_USED &&
			!DtxParticipantAsk(p))
			DtxParticipantThrow(p, "end transaction");
		DTX_FAULT("ask-sent", p->connection->wire.conn);
	}
	wait_for_all("end transaction");
}

/*
 * Commit all participants that have not written.  Throws if that fails.
 */
static void
commit_readers(void)
{
	dlist_iter	iter;

	DtxTransactionMakeWaitSet();
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->writes != DTX_WROTE && !DtxParticipantCommitReader(p))
			DtxParticipantThrow(p, "commit transaction");
		DTX_FAULT("end-sent", p->connection->wire.conn);
	}
	wait_for_all("commit transaction");
}

/*
 * Phase one.  On return every participant that wrote is prepared, or has committed if it
 * is the one that decides, every other one has ended, and everything that phase two
 * needs exists.
 */
static void
commit_in_two_phases(void)
{
	DtxGid		gid;
	DtxPrepared *prepared;
	int			n;

	t->point = choose_point();
	check_can_prepare();
	gid = new_gid();
	prepared = describe_writers(&gid, &n);

	DtxLateLeave();
	DtxHandOverReserve(DtxConnectionCount());
	DtxTransactionMakeWaitSet();
	announce(n);
	publish(&gid, prepared, n);
	send_prepares(&gid);
	wait_for_all(NULL);
	DtxStatsAdd(DTX_STAT_PREPARED, t->point != NULL ? n - 1 : n);
	if (t->point == NULL)
		write_decision(prepared, n);
	DtxGateEnter(gid.xid);
	CHECK_FOR_INTERRUPTS();
	if (t->point != NULL)
		DtxPointDecide(&gid.decider);
	pfree(prepared);
	DTX_FAULT("prepared", NULL);
}

/*
 * The participant that is to decide; NULL: the coordinator.  That it is if something was
 * written here, because then the local commit is needed anyway; and in a serializable
 * transaction, which may fail at its commit, after a server would have decided.
 */
static DtxParticipant *
choose_point(void)
{
	DtxParticipant *point;
	DtxParticipant *ask;

	if (count_local_writer() > 0 || IsolationIsSerializable())
		return NULL;
	point = DtxPointChoose(&ask);
	if (point == NULL && ask != NULL)
	{
		DtxTransactionMakeWaitSet();
		if (!DtxParticipantAskPoint(ask))
			DtxParticipantThrow(ask, "end transaction");
		wait_for_all("end transaction");
		point = DtxPointChoose(&ask);
	}
	return point;
}

/*
 * What keeps the row from being written had better show before PREPARE.
 */
static void
check_can_prepare(void)
{
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot commit a transaction that wrote on several servers during recovery"),
				 errhint("Run it on the primary server.")));
	if (t->point == NULL)
		DtxDecisionCheck();
	DtxBootRequire(DtxPrepareWaitEvent());
}

/*
 * The gid of the transaction, but for the number of the participant.
 */
static DtxGid
new_gid(void)
{
	DtxGid		gid;

	memset(&gid, 0, sizeof(gid));
	gid.coordinator_id = DtxCoordinatorId();
	gid.boot_id = DtxBootId();
	gid.dbid = MyDatabaseId;
	if (t->point != NULL)
	{
		gid.decider = DtxPointDecider(t->point);
		gid.xid = DtxActivityNextNumber();
	}
	else
		gid.xid = U64FromFullTransactionId(GetTopFullTransactionId());
	return gid;
}

/*
 * Where those who wrote can be found after a crash: *n entries in the current memory
 * context.  Throws if that is not known of one.
 */
static DtxPrepared *
describe_writers(const DtxGid *gid, int *n)
{
	DtxPrepared *prepared = palloc0(sizeof(DtxPrepared) * DtxTransactionParticipants());
	dlist_iter	iter;

	/* The extension may have been created while the transaction ran. */
	DtxTransactionShow();

	*n = 0;
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);
		DtxConnectionEndpoint *e = &p->connection->endpoint;

		/* Without the mapping nobody could finish it after a crash. */
		DtxConnectionIdentify(p->connection);
		if (!DtxEndpointIsKnown(e))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not determine which foreign server a connection of postgres_fdw belongs to"),
					 errdetail("The options of the server or of the user mapping have changed since the connection was made."),
					 errhint("Try the transaction again.")));
		DtxActivityAddServer(p->index, e->serverid);
		if (p->writes != DTX_WROTE)
			continue;
		prepared[*n].serverid = e->serverid;
		prepared[*n].umid = e->umid;
		prepared[*n].system_id = e->system_id;
		prepared[*n].timeline = e->timeline;
		prepared[*n].endpoint = DtxEndpointHash(e, gid->coordinator_id);
		(*n)++;
	}
	return prepared;
}

/*
 * Who takes snapshots on several servers may have to wait for this transaction, or it for
 * that.
 */
static void
announce(int nwriters)
{
	DtxGateNode *nodes = palloc0(sizeof(DtxGateNode) * nwriters);
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->writes == DTX_WROTE)
			nodes[n++] = gate_node(p);
	}
	Assert(n == nwriters);
	DtxGateWillPrepare(nodes, n, count_local_writer() > 0);
	pfree(nodes);
}

static DtxGateNode
gate_node(const DtxParticipant *p)
{
	const DtxConnectionEndpoint *e = &p->connection->endpoint;
	DtxGateNode node = {
		.system_id = e->system_id,
		.serverid = e->serverid,
		.index = p->index
	};

	return node;
}

/*
 * The transaction is published, and stays so until its outcome is visible to every
 * later snapshot.  From here on it has to be finished, or rolled back, everywhere.
 */
static void
publish(const DtxGid *gid, const DtxPrepared *prepared, int n)
{
	t->xid = gid->xid;
	DtxTransactionSetPhase(DTX_PHASE_PREPARE);
	INSTR_TIME_SET_CURRENT(t->phase_start);
	DtxActivityPublish(gid);
	DtxCoordinatorConfirm(gid->coordinator_id);
	DtxRouteRecord(prepared, n);
}

/*
 * Prepare those who wrote, but for the one that decides, and commit the others.
 */
static void
send_prepares(DtxGid *gid)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p == t->point)
			continue;
		if (p->writes == DTX_WROTE)
		{
			gid->n++;
			DtxSeal(gid);
			DTX_FAULT("prepare-before", p->connection->wire.conn);
			if (!DtxParticipantPrepare(p, gid))
				DtxParticipantThrow(p, "prepare transaction");
			DTX_FAULT("prepare-sent", p->connection->wire.conn);
		}
		else if (!DtxParticipantCommitReader(p))
			DtxParticipantThrow(p, "commit transaction");
		DtxActivitySetWaiting(p->index, true);
	}
}

/*
 * Only when they are prepared, because the row keeps what the servers have just told:
 * their transaction ids.  Until the local commit it means nothing anyway.
 */
static void
write_decision(DtxPrepared *prepared, int n)
{
	int			i = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->writes == DTX_WROTE)
			prepared[i++].remote_xid = p->remote_xid;
	}
	Assert(i == n);
	DtxActivitySetState(DTX_DECIDING, 0);
	DTX_FAULT("decision-before", NULL);
	DtxDecisionWrite(t->xid, n, prepared, &t->row);
	ForceSyncCommit();
	DTX_FAULT("decision-after", NULL);
}

/*
 * Wait for the replies of all participants.  Throws if one of them has failed: "what"
 * could not be done, NULL: what was to be done with it in two phases.
 */
static void
wait_for_all(const char *what)
{
	switch (DtxRepliesWait(dtx_prepare_timeout, DtxPrepareWaitEvent()))
	{
		case DTX_WAIT_DONE:
			if (DtxRepliesFirstFailed() != NULL)
				throw_failed(what);

			/*
			 * Even if there was nothing to wait for: what comes next may be a
			 * COMMIT, which can't be taken back.
			 */
			CHECK_FOR_INTERRUPTS();
			break;
		default:
			throw_timeout();
	}
}

static void
throw_failed(const char *what)
{
	DtxParticipant *failed = DtxRepliesFirstFailed();

	if (what == NULL)
		what = failed->writes == DTX_WROTE ?
			"prepare transaction" : "commit transaction";
	DtxParticipantThrow(failed, what);
}

/*
 * Some servers did not answer in time.  Their connections are given up now, so
 * that the abort does not wait for them again.
 */
static void
throw_timeout(void)
{
	dlist_iter	iter;

	DtxRepliesNameNone();
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (DtxParticipantReplyDue(p))
			DtxRepliesName(p);
	}
	DtxRepliesGiveUp();
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling COMMIT due to timeout waiting for servers: %s",
					DtxRepliesNames()),
			 errdetail("There was no answer within %d ms (\"pg_dtx.prepare_timeout\").",
					   dtx_prepare_timeout),
			 errhint("The transaction is rolled back on all servers.")));
}
