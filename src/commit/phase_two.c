/*-------------------------------------------------------------------------
 *
 * phase_two.c
 *		After the local commit, or in an abort: COMMIT or ROLLBACK PREPARED, and what
 *		becomes of participants that do not confirm it.
 *
 * Nothing here throws, reports anything, allocates in a memory context, looks at a
 * catalog, or opens a descriptor, see coordinator.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/connection.h"
#include "commit/handover.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/phase_two.h"
#include "commit/point.h"
#include "commit/replies.h"
#include "commit/standby.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/wire_wait.h"
#include "state/activity.h"
#include "state/gate.h"
#include "state/in_doubt.h"
#include "worker/wake.h"

/*
 * Longest time, in milliseconds, that an abort waits for the servers.  The
 * client is waiting for its error message; the resolver can do the rest.
 */
#define ABORT_WAIT_MS	2000

/*
 * Likewise if the abort is what the client has asked for, because a server did not
 * answer: the others have this time.
 */
#define CANCELED_WAIT_MS	100

/*
 * The resolver has this time to do on a new connection what failed on ours before
 * the client is warned, in milliseconds; and how often it is looked whether it has.
 */
#define SECOND_TRY_MS	2000
#define SECOND_TRY_INTERVAL_MS	10

/* The current transaction. */
static DtxTransaction *const t = &dtx_transaction;

/* Wait events, see DtxWaitEvent(). */
static uint32 we_commit;
static uint32 we_abort;

/* Has the last transaction committed without being confirmed everywhere? */
static bool left_unconfirmed = false;

static bool must_wait(void);
static int	hand_over_unfinished(void);
static bool leave_late(bool handed_over);
static void keep_decision_row(bool needed);
static void tell_unconfirmed(DtxWaitEnd end);
static void warn_unconfirmed(void *arg);
static DtxWaitEnd wait_resolver(void);
static bool resolver_is_through(void *arg);
static bool name_unconfirmed(bool contradicted);
static void warn_committed_elsewhere(void *arg);

/*
 * Before the first transaction of a process.  May throw.
 */
void
DtxPhaseTwoPrepareBackend(void)
{
	we_commit = DtxWaitEvent("DtxCommit");
	we_abort = DtxWaitEvent("DtxAbort");
}

/*
 * A transaction is about to commit: nothing is known of it yet.
 */
void
DtxPhaseTwoForgetLast(void)
{
	left_unconfirmed = false;
}

/*
 * Has the last transaction of this process committed without the confirmation of
 * all its servers?  Then the resolver takes care of it.
 */
bool
DtxPhaseTwoLeftUnconfirmed(void)
{
	return left_unconfirmed;
}

/* ----------------------------------------------------------------
 * After the local commit: nothing may throw
 * ----------------------------------------------------------------
 */

/* Microseconds since the phase began. */
static int64
phase_usec(void)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, t->phase_start);
	return (int64) INSTR_TIME_GET_MICROSEC(elapsed);
}

/*
 * The decision is durable and visible: send every COMMIT PREPARED.
 */
void
DtxPhaseTwoBegin(void)
{
	bool		followed = dtx_fold_start && !must_wait();
	int64		took = phase_usec();
	dlist_iter	iter;

	DtxTransactionSetPhase(DTX_PHASE_COMMIT);
	DTX_FAULT("local-commit", NULL);
	DtxGateDecided();
	if (t->point != NULL)
		DtxGateConfirmed(t->point->index);
	DtxStatsAdd(DTX_STAT_PREPARE_USEC, took);
	DtxPointFirstPhaseTook(took);
	INSTR_TIME_SET_CURRENT(t->phase_start);
	t->committing_since = DtxNow();

	/*
	 * The outcome is visible now, so a resolver that finds us busy for longer
	 * than we are going to wait may help.
	 */
	DtxActivitySetState(DTX_COMMITTING, t->committing_since + dtx_commit_timeout);

	/*
	 * If the wait for a synchronous standby was cut short, a failover may
	 * still lose the decision.  Nobody is told to commit then: the resolver
	 * does that when the standby has it.
	 */
	t->decision_durable = t->point != NULL ? !t->point->not_replicated :
		DtxStandbyHas(XactLastCommitEnd, synchronous_commit);

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->state != DTX_PARTICIPANT_PREPARED)
			continue;
		if (!t->decision_durable)
		{
			DtxParticipantLeaveUnfinished(p, DTX_COMMIT, t->point != NULL ?
										  DTX_DECIDER_NOT_REPLICATED :
										  DTX_DECISION_NOT_REPLICATED);
			continue;
		}
		DTX_FAULT("commit-before", p->connection->wire.conn);
		if (DtxParticipantFinish(p, DTX_COMMIT, followed))
			DtxActivitySetWaiting(p->index, true);
		DTX_FAULT("commit-sent", p->connection->wire.conn);
	}
}

/*
 * Does COMMIT wait for the confirmations?  Not only because it shall: a
 * connection that postgres_fdw wanted closed is not used again.
 */
static bool
must_wait(void)
{
	dlist_iter	iter;

	if (DtxCommitWaits())
		return true;
	dlist_foreach(iter, &t->participants)
	{
		if (DTX_PARTICIPANT(iter)->connection->closed_by_fdw)
			return true;
	}
	return false;
}

/*
 * No local lock is held any more: wait for the confirmations, and see to what has not
 * come.
 */
void
DtxPhaseTwoFinish(void)
{
	DtxWaitEnd	end = DTX_WAIT_DONE;
	bool		wait = must_wait();
	int			handed_over;
	bool		late;
	uint64		contradictions = DtxInDoubtContradictions();

	DTX_ASSERT_MUST_NOT_THROW();
	DTX_FAULT("commit-wait", NULL);
	if (wait)
	{
		end = DtxRepliesWait(dtx_commit_timeout, we_commit);
		DtxRepliesGiveUp();
	}
	handed_over = hand_over_unfinished();
	DTX_FAULT("gate-leave", NULL);
	DtxGateLeave();
	DTX_FAULT("committed", NULL);
	DtxStatsAdd(DTX_STAT_TWO_PHASE, 1);
	DtxStatsAdd(DTX_STAT_COMMIT_USEC, phase_usec());

	late = leave_late(handed_over > 0);

	if (!late)
	{
		keep_decision_row(handed_over > 0);
		DtxTransactionHide(t->xid);
	}
	left_unconfirmed = handed_over > 0 || late;

	if (handed_over > 0)
	{
		DtxLauncherWakeResolver(MyDatabaseId);
		if (wait && end == DTX_WAIT_DONE && t->decision_durable)
			end = wait_resolver();
		if (name_unconfirmed(DtxInDoubtContradictions() != contradictions))
			tell_unconfirmed(end);
		else
			left_unconfirmed = late;
	}

	DtxTransactionEnd();
}

/*
 * What is not going to be confirmed here is left to the resolver.  Returns how many
 * participants that are.
 */
static int
hand_over_unfinished(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->state != DTX_PARTICIPANT_UNFINISHED)
			continue;
		DtxHandOver(p, t->point != NULL ? InvalidXLogRecPtr : XactLastCommitEnd);
		n++;
	}
	return n;
}

/*
 * If replies are still due, because they are not waited for: they are received before
 * the connections are used in another way, and until then the transaction is shown.
 * Returns whether there are any.
 */
static bool
leave_late(bool handed_over)
{
	dlist_mutable_iter iter;
	bool		any = false;

	dlist_foreach_modify(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->state != DTX_PARTICIPANT_FINISHING)
			continue;
		if (!any)
			DtxLateBegin(t->xid, &t->row, handed_over,
						 t->committing_since + dtx_commit_timeout);
		any = true;
		dlist_delete(&p->node);
		DtxLateAdd(p);
	}
	if (any && handed_over && ItemPointerIsValid(&t->row))
		DtxActivityForgetRow();
	if (any)
		DtxTransactionKeepShown();
	return any;
}

/*
 * All is known of the transaction: its decision row can be used again, unless it is
 * needed by the resolver.
 */
static void
keep_decision_row(bool needed)
{
	if (!ItemPointerIsValid(&t->row))
		return;					/* decided by a server */
	if (needed)
		DtxActivityForgetRow();
	else
		DtxActivitySetRow(t->xid, &t->row);
}

/*
 * A connection may have been lost between PREPARE and COMMIT PREPARED with nothing
 * wrong with its server: idle_session_timeout there, a firewall.  No new one is made
 * here (a descriptor, a name to look up), but the resolver, which has been woken,
 * does that; give it the time for one attempt before the client is warned, at most
 * SECOND_TRY_MS and not beyond pg_dtx.commit_timeout.
 *
 * We are not responsible for the transaction any more.  Does not throw; a request to
 * cancel or terminate ends the wait, as in DtxRepliesWait().
 */
static DtxWaitEnd
wait_resolver(void)
{
	DtxWait		wait = {
		.deadline = Min(DtxIn(SECOND_TRY_MS),
						t->committing_since + dtx_commit_timeout),
		.poll_ms = SECOND_TRY_INTERVAL_MS,
		.wait_event = we_commit,
		.interrupts = DTX_INTERRUPTS_END_IT,
		.done = resolver_is_through
	};
	DtxWaitEnd	end = DtxWireWait(&wait);

	return end == DTX_WAIT_TIMED_OUT ? DTX_WAIT_DONE : end;
}

/*
 * Has the resolver tried everything that was handed over at least once?  Or does it
 * not run?
 */
static bool
resolver_is_through(void *arg)
{
	dlist_iter	iter;

	if (!dtx_resolver || !IsUnderPostmaster)
		return true;
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);
		DtxInDoubt	entry;

		if (p->state == DTX_PARTICIPANT_UNFINISHED &&
			DtxInDoubtGet(&p->gid, &entry) && entry.attempts == 0)
			return false;
	}
	return true;
}

/*
 * Collect the names of those who have not confirmed.  Returns false if the resolver
 * has finished everything that was handed over.  "contradicted": it may have found
 * that some of it ended otherwise.
 */
static bool
name_unconfirmed(bool contradicted)
{
	dlist_iter	iter;

	DtxRepliesNameNone();
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);
		DtxHandedOver *h;

		if (p->state != DTX_PARTICIPANT_UNFINISHED)
			continue;
		h = DtxHandedOverFind(&p->gid);
		if (contradicted || h == NULL || !DtxHandedOverIsDone(h))
			DtxRepliesName(p);
	}
	return DtxRepliesNames()[0] != '\0';
}

/*
 * Warn the client; if that can't be said in its encoding, with the names without what
 * it can't take, or not at all.
 */
static void
tell_unconfirmed(DtxWaitEnd end)
{
	if (DtxGuarded(warn_unconfirmed, &end))
		return;
	for (char *c = DtxRepliesNames(); *c != '\0'; c++)
	{
		if (IS_HIGHBIT_SET(*c))
			*c = '?';
	}
	(void) DtxGuarded(warn_unconfirmed, &end);
}

/*
 * Tell the client who has not confirmed.  To be called by DtxGuarded(): a message is
 * converted to the client's encoding when it is sent, and a server's name may
 * contain anything, and so may translations.
 */
static void
warn_unconfirmed(void *arg)
{
	DtxWaitEnd	end = *(DtxWaitEnd *) arg;

	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("transaction has committed, but not every server has confirmed it yet: %s",
					DtxRepliesNames()),
			 end == DTX_WAIT_CANCELED ?
			 errdetail("The wait was canceled due to user request.") :
			 end == DTX_WAIT_STATEMENT_TIMEOUT ?
			 errdetail("The wait was canceled due to statement timeout.") :
			 end == DTX_WAIT_TERMINATED ?
			 errdetail("The wait was ended by a request to terminate the connection.") :
			 end == DTX_WAIT_TIMED_OUT ?
			 errdetail("There was no confirmation within %d ms (\"pg_dtx.commit_timeout\").",
					   dtx_commit_timeout) : 0,
			 errhint("The resolver goes on until they have; view \"dtx.in_doubt\" shows what is left.")));
}

/* ----------------------------------------------------------------
 * Abort: must not throw either
 * ----------------------------------------------------------------
 */

/*
 * The local transaction aborts: roll back what is prepared.  If a server decides and has
 * committed already, commit it; if it is not known whether it has, leave it to the
 * resolver.
 */
void
DtxAbortBegin(void)
{
	dlist_iter	iter;
	DtxDecision decision;
	bool		prepared = t->phase == DTX_PHASE_PREPARE;

	if (t->phase == DTX_PHASE_ABORT || t->phase == DTX_PHASE_PLAIN_ABORT)
		return;					/* an error in AbortTransaction itself */

	DtxTransactionSetPhase(prepared ? DTX_PHASE_ABORT : DTX_PHASE_PLAIN_ABORT);
	if (!prepared)
	{
		/*
		 * A server that has not answered by now is not waited for by
		 * postgres_fdw, either, if that is what the client has canceled.
		 */
		if (t->canceled)
			DtxRepliesGiveUp();
		dlist_foreach(iter, &t->participants)
			DtxParticipantGiveBack(DTX_PARTICIPANT(iter));
		return;
	}

	decision = DtxPointDecision();
	DtxStatsAdd(decision == DTX_COMMIT ? DTX_STAT_TWO_PHASE : DTX_STAT_PREPARE_FAILED, 1);
	DtxActivitySetState(DTX_ABORTING, 0);

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		/*
		 * Its transaction may be open there, in an error: postgres_fdw ends
		 * it.
		 */
		if (p == t->point && p->state == DTX_PARTICIPANT_FAILED &&
			PQtransactionStatus(p->connection->wire.conn) != PQTRANS_IDLE)
			DtxParticipantGiveBack(p);
		if (p->state != DTX_PARTICIPANT_PREPARED)
			continue;
		if (decision == DTX_UNDECIDED || (decision == DTX_COMMIT && t->point->not_replicated))
		{
			DtxParticipantLeaveUnfinished(p, decision,
										  decision == DTX_COMMIT ? DTX_DECIDER_NOT_REPLICATED :
										  DTX_DECIDER_NOT_ASKED);
			continue;
		}
		DTX_FAULT("rollback-before", p->connection->wire.conn);
		(void) DtxParticipantFinish(p, decision, false);
		DTX_FAULT("rollback-sent", p->connection->wire.conn);
	}
}

/*
 * No local lock is held any more: wait for the replies, for a short time.
 */
void
DtxAbortFinish(void)
{
	dlist_iter	iter;
	DtxDecision decision = DtxPointDecision();
	bool		wake = false;

	DTX_ASSERT_MUST_NOT_THROW();
	DTX_FAULT("abort-wait", NULL);
	(void) DtxRepliesWait(t->canceled ? CANCELED_WAIT_MS : ABORT_WAIT_MS, we_abort);
	DTX_FAULT("aborted", NULL);
	DtxRepliesGiveUp();

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		/* prepared or not, which only a visit of the server can tell */
		if (p->state == DTX_PARTICIPANT_UNKNOWN ||
			p->state == DTX_PARTICIPANT_PREPARED)
			DtxParticipantLeaveUnfinished(p, decision, NULL);
		if (p->state == DTX_PARTICIPANT_UNFINISHED)
		{
			DtxHandOver(p, InvalidXLogRecPtr);
			wake = true;
		}
	}

	DtxTransactionHide(t->xid);
	if (wake)
		DtxLauncherWakeResolver(MyDatabaseId);
	if (decision == DTX_COMMIT)
		(void) DtxGuarded(warn_committed_elsewhere,
						  t->point->connection->endpoint.server_name);
	DtxTransactionEnd();
}

/*
 * The error that the client gets is not the truth about the servers.  To be called by
 * DtxGuarded().
 */
static void
warn_committed_elsewhere(void *arg)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("transaction has committed on all servers, but could not be ended without an error here"),
			 errdetail("Server \"%s\", which decides about it, had committed before.",
					   (const char *) arg)));
}
