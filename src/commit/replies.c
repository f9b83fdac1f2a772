/*-------------------------------------------------------------------------
 *
 * replies.c
 *		Waiting for what the participants of the current transaction answer, and the
 *		names of those that do not.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/guarded.h"
#include "commit/participant.h"
#include "commit/replies.h"
#include "commit/transaction.h"
#include "net/wire.h"
#include "net/wire_wait.h"

/* The current transaction. */
static DtxTransaction *const t = &dtx_transaction;

/* Names of servers; no allocation after the local commit. */
static char names[1024];

static bool replies_are_in(void *arg);
static const char *replies_context(void *arg);

/*
 * Wait until no reply is due, for at most timeout_ms milliseconds.
 *
 * Before the local commit: throws on interrupts, and returns as soon as one
 * participant has failed.  After it, and in an abort: does not throw, and takes a
 * cancel or termination request as the wish to stop waiting (DtxWireWait).
 */
DtxWaitEnd
DtxRepliesWait(int timeout_ms, uint32 wait_event)
{
	DtxWait		wait = {
		.wires = t->wires,
		.nwires = DtxTransactionWires(),
		.deadline = DtxIn(timeout_ms),
		.wait_event = wait_event,
		.interrupts = DtxMayThrow() ?
		DTX_INTERRUPTS_THROW : DTX_INTERRUPTS_END_IT,
		.canceled = &t->canceled,
		.done = replies_are_in,
		.context = replies_context
	};

	return DtxWireWait(&wait);
}

static bool
replies_are_in(void *arg)
{
	dlist_iter	iter;

	if (DtxMayThrow() && DtxRepliesFirstFailed() != NULL)
		return true;
	dlist_foreach(iter, &t->participants)
	{
		if (DtxParticipantReplyDue(DTX_PARTICIPANT(iter)))
			return false;
	}
	return true;
}

static const char *
replies_context(void *arg)
{
	return "waiting for the servers to prepare the transaction";
}

/*
 * The first participant whose last step has failed in phase one, or NULL.
 */
DtxParticipant *
DtxRepliesFirstFailed(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (p->state == DTX_PARTICIPANT_FAILED ||
			p->state == DTX_PARTICIPANT_NOT_PREPARED ||
			p->state == DTX_PARTICIPANT_UNKNOWN)
			return p;
	}
	return NULL;
}

/*
 * What has not been answered is not waited for any more: those connections are broken.
 */
void
DtxRepliesGiveUp(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		if (DtxParticipantReplyDue(p))
			DtxWireBreak(&p->connection->wire, "no reply");
	}
}

/*
 * Begin a list of names.
 */
void
DtxRepliesNameNone(void)
{
	names[0] = '\0';
}

/*
 * Add the server of a participant to the list.  Does not throw.
 */
void
DtxRepliesName(DtxParticipant *p)
{
	const char *name = p->connection->endpoint.server_name;
	size_t		len = strlen(names);

	/* whole names only, because a character that is cut can't be sent */
	if (len + strlen(name) + 16 > sizeof(names))
	{
		if (len < 3 || strcmp(names + len - 3, "...") != 0)
			strlcat(names, ", ...", sizeof(names));
		return;
	}
	snprintf(names + len, sizeof(names) - len, "%s\"%s\"",
			 len > 0 ? ", " : "", name);
}

/*
 * The list: names in quotation marks, with commas, cut at whole names; "" if there are
 * none.  The caller may change it.
 */
char *
DtxRepliesNames(void)
{
	return names;
}
