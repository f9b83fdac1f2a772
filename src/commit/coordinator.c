/*-------------------------------------------------------------------------
 *
 * coordinator.c
 *		The commit of a distributed transaction: two-phase commit driven from
 *		the callbacks of the local transaction.
 *
 * The order of things, with the function of access/transam/xact.c that calls:
 *
 * CommitTransaction, XACT_EVENT_PRE_COMMIT (phase_one.c), ahead of
 * postgres_fdw's own callback: find out which participants wrote; if more than
 * one node did, publish the transaction, prepare the participants that wrote,
 * write the decision row.  Errors are allowed and abort everything.
 *
 * CommitTransaction, XACT_EVENT_COMMIT (DtxPhaseTwoBegin): the decision is durable
 * and visible.  Send every COMMIT PREPARED.
 *
 * CommitTransaction, RESOURCE_RELEASE_AFTER_LOCKS (DtxPhaseTwoFinish): wait for the
 * replies, when no local lock is held any more.
 *
 * AbortTransaction, XACT_EVENT_ABORT (DtxAbortBegin) and
 * RESOURCE_RELEASE_AFTER_LOCKS (DtxAbortFinish): the same for ROLLBACK PREPARED,
 * after the replies to PREPAREs that are still on their way.
 *
 * Between the local commit and the end of DtxPhaseTwoFinish an ERROR would be a
 * PANIC.  So nothing there reports anything, allocates in a memory context, looks
 * at a catalog, or opens a file descriptor; what is to be said is collected, and
 * said in one place, which catches whatever goes wrong (DtxGuarded).  Builds for
 * tests check that (quiet.c, DTX_ASSERT_MAY_THROW).  Interrupts are held by xact.c, and
 * the wait looks at the flags itself (DtxWireWait), as SyncRepWaitForLSN
 * (replication/syncrep.c) does.
 *
 * Callbacks run newest first (RegisterXactCallback).  postgres_fdw registers
 * its callback before it makes its first connection, and we register ours when
 * we see that connection being made, so ours runs first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/fault.h"
#include "base/process.h"
#include "base/quiet.h"
#include "base/settings.h"
#include "commit/connection.h"
#include "commit/coordinator.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/phase_one.h"
#include "commit/phase_two.h"
#include "commit/point.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/session_mark.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "state/activity.h"
#include "state/gate.h"
#include "state/tables.h"
#include "state/waits.h"
#include "storage/ipc.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/resowner.h"

/* The current transaction. */
static DtxTransaction *const t = &dtx_transaction;

static void dtx_xact_callback(XactEvent event, void *arg);
static void dtx_resource_callback(ResourceReleasePhase release_phase,
								  bool isCommit, bool isTopLevel, void *arg);
static void dtx_before_exit(int code, Datum arg);
static void reply_came(DtxParticipant *p);
static const char *show_wrote_elsewhere(void);
static bool can_be_asked(const DtxParticipant *p);
static bool any_wrote(void);

/* ----------------------------------------------------------------
 * Set-up
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw makes its first connection in this backend, or another one.
 * Registers the callbacks, once.  May throw.
 */
void
DtxCoordinatorPrepareBackend(void)
{
	static bool done = false;

	if (done)
		return;

	DtxWaitsPrepareBackend(DtxSessionMark());
	(void) DtxConnectionWaitEvent();
	(void) DtxPrepareWaitEvent();
	DtxPhaseTwoPrepareBackend();
	before_shmem_exit(dtx_before_exit, (Datum) 0);
	RegisterXactCallback(dtx_xact_callback, NULL);
	RegisterResourceReleaseCallback(dtx_resource_callback, NULL);
	done = true;
}

static void
dtx_before_exit(int code, Datum arg)
{
	DtxAssertExiting();
	DtxLateLeave();
}

/*
 * postgres_fdw starts a remote transaction, see DtxTransactionJoin().
 */
void
DtxCoordinatorJoin(DtxConnection *c)
{
	DtxTransactionJoin(c, reply_came);
}

/*
 * postgres_fdw closes a connection.  Returns true if it is still needed: then it is
 * closed when it is not.  A remote command that uses it finds it broken.  Does not
 * throw.
 */
bool
DtxCoordinatorKeepsConnection(DtxConnection *c)
{
	if (c->participant != NULL && !DtxParticipantIsOurs(c->participant))
		DtxTransactionLoseConnection(c->participant);
	if (c->holds > 0)
		DtxWireBreak(&c->wire, "connection lost");
	else if (c->participant == NULL && !DtxLateNeedsConnection(c))
		return false;
	DtxConnectionKeep(c);
	return true;
}

/*
 * The reply of a participant is complete, or lost.  In an abort go on with the
 * rollback of what turns out to have been prepared.  Called by a handler of the wire:
 * does not throw.
 */
static void
reply_came(DtxParticipant *p)
{
	DTX_FAULT(p == t->point ? "point-commit-reply" :
			  t->phase == DTX_PHASE_PREPARE ? "prepare-reply" :
			  t->phase == DTX_PHASE_COMMIT ? "commit-reply" :
			  t->phase == DTX_PHASE_ABORT ? "rollback-reply" : "ask-reply",
			  p->connection->wire.conn);
	if (t->phase == DTX_PHASE_ABORT && p->state == DTX_PARTICIPANT_PREPARED)
	{
		/* The point of decision was not reached, or all had been prepared. */
		Assert(DtxPointDecision() == DTX_ROLLBACK);
		DTX_FAULT("rollback-late-before", p->connection->wire.conn);
		(void) DtxParticipantFinish(p, DTX_ROLLBACK, false);
		DTX_FAULT("rollback-late-sent", p->connection->wire.conn);
	}
	if (t->phase == DTX_PHASE_COMMIT && p->state == DTX_PARTICIPANT_FINISHED)
		DtxGateConfirmed(p->index);
	if (t->phase != DTX_PHASE_NONE && !DtxParticipantReplyDue(p))
		DtxActivitySetWaiting(p->index, false);
}

/* ----------------------------------------------------------------
 * What another coordinator asks
 * ----------------------------------------------------------------
 */

/* In _PG_init(): the setting in which another coordinator, of which this server is
 * a participant, sees whether the transaction may have written on further servers.
 */
void
DtxCoordinatorDefineSettings(void)
{
	static bool never_looked_at = false;	/* see the show hook */

	DefineCustomBoolVariable("pg_dtx.wrote_elsewhere",
							 "Shows whether the current transaction may have written on foreign servers.",
							 NULL,
							 &never_looked_at, false,
							 PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, show_wrote_elsewhere);
}

/*
 * Show hook of pg_dtx.wrote_elsewhere: may the current transaction have written on
 * a server?  Another coordinator, of which this server is a participant, asks
 * that before it commits.
 *
 * What was sent may have written without looking like it, so a participant that has
 * not said that it did not is asked, which waits for the network.  One that can't be
 * asked now counts as a writer.  Throws on interrupts, and what a failed question
 * throws.
 */
static const char *
show_wrote_elsewhere(void)
{
	bool		ask = false;
	dlist_iter	iter;

	if (t->nlost > 0 || any_wrote())
		return "on";
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->use == DTX_USED && p->writes == DTX_WRITES_UNKNOWN)
			ask = true;
	}
	if (!ask)
		return "off";

	if (t->phase != DTX_PHASE_NONE || !IsTransactionState())
		return "on";
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->use == DTX_USED && p->writes == DTX_WRITES_UNKNOWN &&
			!can_be_asked(p))
			return "on";
	}

	PG_TRY();
	{
		DtxTransactionMakeWaitSet();
		DtxPhaseOneAsk();
	}
	PG_CATCH();
	{
		t->canceled = false;
		DtxWaitSetRelease();
		dlist_foreach(iter, &t->participants)
			DtxParticipantGiveBack(DTX_PARTICIPANT(iter));
		PG_RE_THROW();
	}
	PG_END_TRY();
	DtxWaitSetRelease();
	return any_wrote() ? "on" : "off";
}

static bool
any_wrote(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		if (DTX_PARTICIPANT(iter)->writes == DTX_WROTE)
			return true;
	}
	return false;
}

/*
 * Can a command of ours be sent in an open remote transaction?
 */
static bool
can_be_asked(const DtxParticipant *p)
{
	const DtxConnection *c = p->connection;

	return p->state == DTX_PARTICIPANT_OPEN && !c->wire.broken &&
		DtxWireIdle(&c->wire) && c->put_off.start[0] == '\0' &&
		PQtransactionStatus(c->wire.conn) == PQTRANS_INTRANS;
}

/* ----------------------------------------------------------------
 * Callbacks
 * ----------------------------------------------------------------
 */

static void
dtx_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			{
				/* The caller's, if it is a procedure, lives longer. */
				MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

				DtxPhaseTwoForgetLast();
				DtxPhaseOne();
				MemoryContextSwitchTo(old);
			}
			break;
		case XACT_EVENT_COMMIT:
			if (t->phase == DTX_PHASE_PREPARE)
			{
				/*
				 * See DtxPointDecide().  CommitTransaction() holds them, too;
				 * a callback that has caught an error has let go of ours.
				 */
				if (t->point != NULL && InterruptHoldoffCount > 1)
					RESUME_INTERRUPTS();
				DTX_QUIET_BEGIN();
				DTX_LISTEN_BEGIN();
				DtxPhaseTwoBegin();
				DTX_LISTEN_END();
			}
			else
			{
				DtxTransactionHide(0);
				DtxTransactionEnd();
			}
			break;
		case XACT_EVENT_ABORT:
			DtxWaitsEnd();
			DtxAbortBegin();
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* postgres_fdw refuses if it was used, and has not forgotten that */
			if (DtxTwoPhaseCommit() && DtxExtensionInstalled())
				DtxTransactionCheckNoneLost();
			break;
		case XACT_EVENT_PREPARE:
			DtxTransactionHide(0);
			DtxTransactionEnd();
			break;

			/*
			 * postgres_fdw does not run in parallel workers, but a function
			 * that claims to be parallel safe may bring it there.
			 */
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			DtxPhaseOneOfWorker();
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
			DtxTransactionHide(0);
			DtxTransactionEnd();
			break;
		case XACT_EVENT_PARALLEL_ABORT:
			DtxWaitsEnd();
			DtxAbortBegin();
			break;
	}
}

static void
dtx_resource_callback(ResourceReleasePhase release_phase, bool isCommit,
					  bool isTopLevel, void *arg)
{
	/* Also called for portals and subtransactions, which are not top-level. */
	if (release_phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;

	if (t->phase == DTX_PHASE_COMMIT)
	{
		DTX_LISTEN_BEGIN();
		DtxPhaseTwoFinish();
		DTX_LISTEN_END();
		DTX_QUIET_END();
	}
	else if (t->phase == DTX_PHASE_ABORT)
		DtxAbortFinish();
	else if (t->phase == DTX_PHASE_PLAIN_ABORT)
	{
		DtxTransactionHide(0);
		DtxTransactionEnd();
	}
}
