/*-------------------------------------------------------------------------
 *
 * late.c
 *		Confirmations that COMMIT has not waited for (commit_wait = off).
 *
 * COMMIT PREPARED was sent as a pipeline of its own, so that commands of the next
 * transaction on the connection can follow it before the reply is here; the server
 * does one after the other, and the session sees its own writes.  The participants
 * stay in a list until their replies have come, or do not come any more: the wire's
 * queue knows where they are due, and its handler leads here.
 *
 * This process stays responsible for the last such transaction, and for the row with
 * its decision, until all its replies are in.  When it needs its slot for another
 * transaction, or exits, the resolver gets what is still due (DtxLateLeave); the
 * replies must still be received, because what follows them on the connection does.
 *
 * Nothing here throws unless it says so: replies may come after the local commit of
 * another transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogdefs.h"
#include "base/backoff.h"
#include "base/fault.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "commit/connection.h"
#include "commit/handover.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/wire.h"
#include "state/activity.h"
#include "state/in_doubt.h"
#include "worker/wake.h"

/* Participants whose confirmations are due, of the following and of earlier ones. */
static dlist_head due = DLIST_STATIC_INIT(due);

/* The last transaction that has returned from COMMIT without waiting. */
static struct
{
	uint64		xid;			/* 0: none, or all is known of it */
	ItemPointerData row;		/* its decision row */
	bool		handed_over;	/* has the resolver got a part of it? */
	DtxMoment	takeover_at;	/* from then on the resolver may finish it */
} late;

/* What DtxLateAwaitFor() is to wait for. */
typedef struct AwaitFor
{
	DtxConnection *connection;	/* for this one */
	bool		all;			/* whether it matters to that or not? */
} AwaitFor;

static DtxParticipant *late_on(const DtxConnection *c);
static bool any_of_current(void);
static bool is_followed(const DtxConnection *c);
static void confirmation_came(DtxParticipant *p);
static void release_if_closed(DtxConnection *c);
static void await_for(DtxConnection *c, void *arg);
static void leave(DtxConnection *c, void *arg);

/*
 * The current transaction has committed and does not wait: confirmations that are due
 * are given to DtxLateAdd() after this.  "row": its decision row; "handed_over": has
 * the resolver got a part of it already?
 */
void
DtxLateBegin(uint64 xid, ItemPointer row, bool handed_over, DtxMoment takeover_at)
{
	DTX_ASSERT_MUST_NOT_THROW();
	Assert(late.xid == 0);
	late.		xid = xid;
	late.		row = *row;			/* invalid if a server has decided */
	late.		handed_over = handed_over;
	late.		takeover_at = takeover_at;
}

/*
 * A participant of that transaction, in no list, whose confirmation is due.  Its
 * connection can be used for another one.
 */
void
DtxLateAdd(DtxParticipant *p)
{
	DTX_ASSERT_MUST_NOT_THROW();
	Assert(p->state == DTX_PARTICIPANT_FINISHING && p->gid.xid == late.xid);
	p->replied = confirmation_came;
	p->connection->participant = NULL;
	DtxPutOffForgetTransaction(&p->connection->put_off);
	dlist_push_tail(&due, &p->node);
}

/*
 * The transaction of which confirmations are due, and for which this process is
 * responsible; 0: none.
 */
uint64
DtxLateXid(void)
{
	return late.xid;
}

/* Is a confirmation due on this connection? */
bool
DtxLateDueOn(const DtxConnection *c)
{
	return late_on(c) != NULL;
}

/* There is at most one: before the next one all that follows has been read. */
static DtxParticipant *
late_on(const DtxConnection *c)
{
	dlist_iter	iter;

	dlist_foreach(iter, &due)
	{
		DtxParticipant *p = dlist_container(DtxParticipant, node, iter.cur);

		if (p->connection == c)
			return p;
	}
	return NULL;
}

static bool
any_of_current(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &due)
	{
		if (dlist_container(DtxParticipant, node, iter.cur)->gid.xid == late.xid)
			return true;
	}
	return false;
}

/* Are commands on their way whose replies come after the confirmation? */
static bool
is_followed(const DtxConnection *c)
{
	return DtxWireStartIsDue(&c->wire) || DtxWireExpects(&c->wire, DTX_REPLY_JOINED);
}

/*
 * postgres_fdw closes a connection: has it to be kept because of a confirmation?  One
 * that will not be seen is given up.
 */
bool
DtxLateNeedsConnection(DtxConnection *c)
{
	if (late_on(c) == NULL)
		return false;
	if (!c->wire.broken && !is_followed(c))
		return true;
	DtxWireBreak(&c->wire, "no reply");
	return false;
}

/*
 * The reply to COMMIT PREPARED has come, or does not come any more.  Called by the
 * handler of the participant.
 */
static void
confirmation_came(DtxParticipant *p)
{
	DtxConnection *c = p->connection;
	DtxGid		gid = p->gid;
	bool		confirmed = p->state == DTX_PARTICIPANT_FINISHED;

	DTX_FAULT("settled", c->wire.conn);
	if (!confirmed)
	{
		DtxHandOver(p, InvalidXLogRecPtr);
		DtxLauncherWakeResolver(MyDatabaseId);
	}
	dlist_delete(&p->node);
	DtxParticipantFree(p);

	if (late.xid != 0 && late.xid == gid.xid)
	{
		late.		handed_over |= !confirmed;

		if (!any_of_current())
		{
			if (!ItemPointerIsValid(&late.row))
				;
			else if (late.handed_over)
				DtxActivityForgetRow();
			else
				DtxActivitySetRow(late.xid, &late.row);
			DtxActivityRelease(late.xid);
			late.		xid = 0;
		}
	}
	else if (confirmed)
		DtxInDoubtRemove(&gid); /* see DtxLateLeave() */

	/* Unless the next transaction has begun on it, it is as after any other. */
	if (c->participant == NULL && !c->closed_by_fdw)
		DtxConnectionRelease(c);
}

/* A connection that postgres_fdw has closed was kept for its confirmation only. */
static void
release_if_closed(DtxConnection *c)
{
	if (c->closed_by_fdw && c->participant == NULL && late_on(c) == NULL)
		DtxConnectionRelease(c);
}

/*
 * A connection on which a confirmation is due is about to begin another remote
 * transaction: may its commands follow before that has come?  If so, the reply is
 * taken with that to the first command, or by DtxLateAwait().  Does not wait; takes in
 * what is here.
 */
bool
DtxLateMayBeFollowed(DtxConnection *c)
{
	DtxParticipant *p = late_on(c);

	if (p == NULL || c->closed_by_fdw || c->wire.broken || !c->cluster_asked ||
		DtxConnectionWantsQuestion(c) ||
		c->put_off.deallocate || c->put_off.reset ||
		PQpipelineStatus(c->wire.conn) == PQ_PIPELINE_OFF)
		return false;

	/* The resolver may have finished it, which looks like a failure here. */
	if (p->gid.xid != late.xid || DtxIsDue(late.takeover_at))
		return false;

	/* Perhaps it is here, or the connection is gone. */
	DTX_FAULT("settle-wait", c->wire.conn);
	DtxWireTakeInput(&c->wire);
	return !c->wire.broken && late_on(c) != NULL;
}

/*
 * A connection is about to be used in a way for which no reply of ours may be due, or
 * the session must not miss what such a reply stands for: wait for it.  For a
 * confirmation not longer than pg_dtx.commit_timeout, or DTX_LATE_WAIT_MS if that is
 * longer; for other replies as long as postgres_fdw would wait for its own command.
 * If it does not come, or the confirmation turns out to be something else, the wire is
 * broken, and the resolver gets that transaction.  A connection that postgres_fdw has
 * closed is not there any more afterwards.
 *
 * Throws on interrupts; postgres_fdw drops the connection then.
 */
void
DtxLateAwait(DtxConnection *c)
{
	bool		late_due = late_on(c) != NULL;
	const DtxMoment deadline = late_due ?
		DtxIn(Max(dtx_commit_timeout, DTX_LATE_WAIT_MS)) : DTX_NEVER;

	if (late_due)
		DTX_FAULT("settle-wait", c->wire.conn);
	PG_TRY();
	{
		if (!DtxConnectionAwait(c, deadline))
			DtxWireBreak(&c->wire, "no reply");
	}
	PG_FINALLY();
	{
		/* The confirmation may have come together with the interrupt. */
		release_if_closed(c);
	}
	PG_END_TRY();
}

/*
 * A remote transaction is about to begin on this connection: wait for confirmations
 * that are due on other connections to the same cluster, or with "all" on all.  Throws
 * on interrupts.
 *
 * One that is followed by the first command of a transaction is left alone: it comes
 * with the reply to that, which is waited for before anything else is sent.
 */
void
DtxLateAwaitFor(DtxConnection *c, bool all)
{
	AwaitFor	what = {.connection = c,.all = all};

	if (!dlist_is_empty(&due))
		DtxConnectionForEach(await_for, &what);
}

/* A callback of DtxConnectionForEach(). */
static void
await_for(DtxConnection *c, void *arg)
{
	const AwaitFor *what = (const AwaitFor *) arg;

	if (late_on(c) == NULL || is_followed(c))
		return;
	if (what->all || c->closed_by_fdw ||
		(c != what->connection &&
		 DtxEndpointMayBeSame(c->endpoint.system_id,
							  what->connection->endpoint.system_id)))
		DtxLateAwait(c);
}

/*
 * The extension is about to be dropped: on return all is confirmed or handed over.
 * Throws on interrupts.
 */
void
DtxLateAwaitAll(void)
{
	DtxLateAwaitFor(NULL, true);
	DtxLateLeave();
}

/*
 * The process needs its slot for another distributed transaction, or exits: take what
 * has arrived, without waiting, and leave the rest to the resolver.
 */
void
DtxLateLeave(void)
{
	if (late.xid == 0)
		return;
	DtxConnectionForEach(leave, NULL);
	if (late.xid == 0)
		return;
	if (ItemPointerIsValid(&late.row))
		DtxActivityForgetRow();
	DtxActivityRelease(late.xid);
	late.		xid = 0;

	DtxLauncherWakeResolver(MyDatabaseId);
}

/*
 * A callback of DtxConnectionForEach().  The reply must still be received before the
 * connection is used.
 */
static void
leave(DtxConnection *c, void *arg)
{
	DtxParticipant *p;

	if (late_on(c) == NULL)
		return;
	if (!is_followed(c))
		DtxWireTakeInput(&c->wire);
	p = late_on(c);
	if (p != NULL && p->gid.xid == late.xid)
	{
		DtxHandOver(p, InvalidXLogRecPtr);
		late.		handed_over = true;
	}

	/* Nobody will ever come for the reply. */
	if (p != NULL && c->closed_by_fdw)
		DtxWireBreak(&c->wire, "no reply");
	release_if_closed(c);
}
