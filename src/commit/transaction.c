/*-------------------------------------------------------------------------
 *
 * transaction.c
 *		The current local transaction: who takes part in it, and where it stands.
 *
 * What happens in which phase is decided in coordinator.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/guarded.h"
#include "commit/connection.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/transaction.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "state/activity.h"
#include "state/gate.h"
#include "state/tables.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

DtxTransaction dtx_transaction = {
	.participants = DLIST_STATIC_INIT(dtx_transaction.participants)
};

/* Does this process's slot in shared memory show the current transaction? */
static bool shown = false;

/* See DtxTransactionSetUseCheck(). */
static void (*check_use) (DtxParticipant *p) = NULL;

static void check_committable(DtxParticipant *p);
static void check_seen(DtxConnection *c, void *arg);

/*
 * The transaction enters another phase.  Does not throw.
 */
void
DtxTransactionSetPhase(DtxPhase phase)
{
	dtx_transaction.phase = phase;
	DtxSetMayThrow(phase != DTX_PHASE_COMMIT && phase != DTX_PHASE_ABORT &&
				   phase != DTX_PHASE_PLAIN_ABORT);
}

/* ----------------------------------------------------------------
 * Participants
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw starts a remote transaction.  Called before the command is sent.
 * Throws if it is too late in the local transaction for that, or if out of memory.
 * "replied" is called when the reply to a command of ours is complete.
 *
 * Must not look at catalogs: that may process invalidations, and postgres_fdw,
 * for which the remote transaction has not begun yet, would close the
 * connection under our feet (pgfdw_inval_callback).
 */
void
DtxTransactionJoin(DtxConnection *c, void (*replied) (DtxParticipant *p))
{
	DtxTransaction *t = &dtx_transaction;
	DtxParticipant *p;

	if (t->phase != DTX_PHASE_NONE && t->phase != DTX_PHASE_OFF)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot access foreign tables while the transaction is being committed"),
				 errdetail("The participants of the distributed transaction have been determined already.")));

	p = DtxParticipantBegin(c, t->nbegun, replied);
	t->nbegun++;
	dlist_push_tail(&t->participants, &p->node);
}

/*
 * "check", which may throw and look at catalogs, is called before the first command of each
 * remote transaction.  At server start.
 */
void
DtxTransactionSetUseCheck(void (*check) (DtxParticipant *p))
{
	check_use = check;
}

/*
 * The first command after START TRANSACTION is about to be sent: what could not be done
 * there.  May throw.
 */
void
DtxTransactionAnnounce(DtxParticipant *p)
{
	p->use = Max(p->use, DTX_ANNOUNCED);
	if (!DtxExtensionInstalled())
		return;
	p->connection->extension_seen = true;	/* if not now, then in its next
											 * transaction */
	DtxConnectionIdentify(p->connection);
	if (check_use != NULL)
		check_use(p);
	DtxConnectionFingerprint(p->connection);
	DtxConnectionShow(p->connection);
	DtxTransactionShow();
	DtxActivityAddServer(p->index, p->connection->endpoint.serverid);
}

/*
 * The connection of a participant that postgres_fdw drives is closed, or its remote
 * transaction never began: the participant is gone.  Does not throw.
 *
 * postgres_fdw may do that in the middle of the local transaction, when it has
 * failed to begin or end a subtransaction there (releases before May 2026:
 * pgfdw_reject_incomplete_xact_state_change in contrib/postgres_fdw/connection.c),
 * and that error may be caught.  What was done there is gone then, so the
 * transaction must not commit.  Where nothing was sent, nothing is missing.
 */
void
DtxTransactionLoseConnection(DtxParticipant *p)
{
	DtxTransaction *t = &dtx_transaction;
	const DtxConnectionEndpoint *e = &p->connection->endpoint;

	Assert(!DtxParticipantIsOurs(p));
	if (p->use != DTX_USED)
		t->nunused++;
	else if (t->nlost++ == 0)
		strlcpy(t->lost_server, DtxEndpointIsKnown(e) ? e->server_name : "",
				NAMEDATALEN);
	DtxWireLeaveToReader(&p->connection->wire, p);
	dlist_delete(&p->node);
	DtxParticipantFree(p);
}

/*
 * How many remote transactions has the current transaction?
 */
int
DtxTransactionParticipants(void)
{
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &dtx_transaction.participants)
		n++;
	return n;
}

/* ----------------------------------------------------------------
 * May it commit?
 * ----------------------------------------------------------------
 */

/*
 * Whatever remote transaction has begun must still be there, unless nothing was
 * sent in it.  Otherwise throws.
 */
void
DtxTransactionCheckNoneLost(void)
{
	const DtxTransaction *t = &dtx_transaction;
	int			n = DtxTransactionParticipants();

	if (t->nlost > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 t->lost_server[0] != '\0' ?
				 errmsg("connection to server \"%s\" was lost", t->lost_server) :
				 errmsg("connection to a server was lost"),
				 errdetail("postgres_fdw has closed it in the middle of the transaction, and what the transaction did there is gone."),
				 errhint("Try the transaction again.")));

	Assert(t->nbegun == n + t->nunused + t->nlost);
	if (t->nbegun != n + t->nunused)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_dtx has lost sight of a remote transaction"),
				 errdetail("%d began, %d are open, and %d were not used.",
						   t->nbegun, n, t->nunused),
				 errhint("Report this to the developers of pg_dtx, and set \"pg_dtx.two_phase_commit\" to off to commit without atomicity.")));
}

/*
 * Fail closed: throws if a connection is in a transaction that began unseen.
 */
void
DtxTransactionCheckAllSeen(void)
{
	DtxConnectionForEach(check_seen, NULL);
}

static void
check_seen(DtxConnection *c, void *arg)
{
	PGTransactionStatusType status;

	if (c->participant != NULL || DtxWireExpects(&c->wire, DTX_REPLY_HANDLED) ||
		c->closed_by_fdw || c->wire.broken)
		return;
	status = PQtransactionStatus(c->wire.conn);
	if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_dtx did not see a remote transaction begin on server \"%s\"",
						DtxEndpointIsKnown(&c->endpoint) ?
						c->endpoint.server_name : "(unknown)"),
				 errhint("Report this to the developers of pg_dtx, and set \"pg_dtx.two_phase_commit\" to off to commit without atomicity.")));
}

/*
 * Are all participants in a state in which they can be committed?  Takes out those
 * that never began.  Otherwise throws.
 */
void
DtxTransactionCheckCommittable(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &dtx_transaction.participants)
		check_committable(DTX_PARTICIPANT(iter));
}

static void
check_committable(DtxParticipant *p)
{
	DtxConnection *c = p->connection;
	PGTransactionStatusType status = PQtransactionStatus(c->wire.conn);

	if (c->wire.broken && p->use == DTX_USED)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						c->endpoint.server_name),
				 errdetail("The transaction on that server cannot be committed.")));
	if (status == PQTRANS_INTRANS)
		return;

	/*
	 * START TRANSACTION failed, or was interrupted, in a subtransaction that
	 * was rolled back.  postgres_fdw closes such a connection itself.
	 */
	if (p->use != DTX_USED)
	{
		DtxTransactionLoseConnection(p);
		return;
	}

	if (status == PQTRANS_UNKNOWN)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						c->endpoint.server_name),
				 errdetail("The transaction on that server cannot be committed.")));
	ereport(ERROR,
			(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
			 errmsg("transaction on server \"%s\" cannot be committed",
					c->endpoint.server_name),
			 status == PQTRANS_INERROR ?
			 errdetail("A command failed there, and the remote transaction was aborted.") :
			 status == PQTRANS_ACTIVE ?
			 errdetail("A command is still running there.") :
			 errdetail("The remote transaction has ended already.")));
}

/* ----------------------------------------------------------------
 * What is waited for
 * ----------------------------------------------------------------
 */

/*
 * All that is needed to wait for the participants, also after the local commit, when
 * no descriptor can be opened.  Throws if there is no descriptor left, or no memory.
 */
void
DtxTransactionMakeWaitSet(void)
{
	DtxTransaction *t = &dtx_transaction;
	int			n = DtxTransactionParticipants();

	DTX_ASSERT_MAY_THROW();
	if (t->max_wires < n)
	{
		if (t->wires == NULL)
			t->wires = MemoryContextAlloc(TopMemoryContext, sizeof(DtxWire *) * n);
		else
			t->wires = repalloc(t->wires, sizeof(DtxWire *) * n);
		t->max_wires = n;
	}
	(void) DtxTransactionWires();
	DtxWaitSetKeep(t->wires, n);
}

/*
 * Collect the wires of the participants in dtx_transaction.wires.  Returns how many
 * there are.  After DtxTransactionMakeWaitSet(), since when no participant has joined.
 * Does not throw.
 */
int
DtxTransactionWires(void)
{
	DtxTransaction *t = &dtx_transaction;
	int			n = 0;
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		Assert(n < t->max_wires);
		if (n < t->max_wires)
			t->wires[n++] = &DTX_PARTICIPANT(iter)->connection->wire;
	}
	return n;
}

/* ----------------------------------------------------------------
 * What others see
 * ----------------------------------------------------------------
 */

/*
 * dtx.transactions shows the current transaction from now on.  Does not throw.
 */
void
DtxTransactionShow(void)
{
	if (!shown)
		DtxActivityBegin();
	shown = true;
}

/* Does dtx.transactions show the current transaction? */
bool
DtxTransactionIsShown(void)
{
	return shown;
}

/*
 * It is over, but shown until the next one begins, or its late confirmations are in.
 */
void
DtxTransactionKeepShown(void)
{
	shown = false;
}

/*
 * It is over; "xid" as for DtxActivityEnd().  Does not throw.
 */
void
DtxTransactionHide(uint64 xid)
{
	if (shown)
		DtxActivityEnd(xid);
	shown = false;
}

/* ----------------------------------------------------------------
 * The end
 * ----------------------------------------------------------------
 */

/*
 * Forget the transaction; its connections are postgres_fdw's again, unless it wanted
 * them closed.  Participants whose confirmations are late have been given to
 * DtxLateAdd() before.  Does not throw.
 */
void
DtxTransactionEnd(void)
{
	DtxTransaction *t = &dtx_transaction;
	dlist_mutable_iter iter;

	DtxGateLeave();
	DtxWaitSetRelease();
	dlist_foreach_modify(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);
		DtxConnection *c = p->connection;

		dlist_delete(&p->node);
		DtxParticipantFree(p);
		if (!DtxLateDueOn(c))
			DtxConnectionRelease(c);
	}

	t->nbegun = t->nunused = t->nlost = 0;
	t->canceled = false;
	t->xid = 0;
	t->point = NULL;
	ItemPointerSetInvalid(&t->row);
	t->decision_durable = false;
	DtxTransactionSetPhase(DTX_PHASE_NONE);
}
