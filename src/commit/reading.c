/*-------------------------------------------------------------------------
 *
 * reading.c
 *		What postgres_fdw may read on a connection, and when it is here.
 *
 * When postgres_fdw asks whether it has to wait for a result, we wait, in a cheaper
 * way (DtxWireWait), so that the answer is no.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/guarded.h"
#include "commit/connection.h"
#include "commit/first.h"
#include "commit/participant.h"
#include "commit/put_off.h"
#include "commit/reading.h"
#include "commit/real_libpq.h"
#include "libpq-fe.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "utils/palloc.h"

/* Wait event, see DtxWaitEvent(). */
static uint32 we_result = 0;

static bool reply_is_here(void *arg);
static const char *reply_context(void *arg);

/*
 * Once in each backend that uses postgres_fdw, before anything is awaited.  May throw.
 */
void
DtxReadingPrepareBackend(void)
{
	if (we_result == 0)
		we_result = DtxWaitEvent("PostgresFdwGetResult");	/* as in postgres_fdw */
}

/*
 * Does postgres_fdw have to wait for a result?  Normally this waits until it has
 * not.  Cleanup waits itself, with deadlines of its own.
 *
 * Throws on interrupts, at the very place where postgres_fdw would
 * (pgfdw_get_result in contrib/postgres_fdw/connection.c, libpqsrv_get_result in
 * libpq/libpq-be-fe-helpers.h).
 */
bool
DtxReadingIsBusy(DtxConnection *c)
{
	DtxWire    *wire = &c->wire;
	DtxWait		wait = {
		.wires = &wire,
		.nwires = 1,
		.deadline = DTX_NEVER,
		.wait_event = we_result,
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = reply_is_here,
		.context = reply_context,
		.arg = c
	};

	do
	{
		if (IsTransactionState())
			(void) DtxWireWait(&wait);
		else
			DtxWirePump(wire);
	} while (DtxFirstStartAgainIfLost(c));

	if (wire->broken)
		DtxWireFailJoined(wire);
	if (!DtxWireStartIsDue(wire))
		DtxPutOffForgetFirst(&c->put_off);
	return !reply_is_here(c);
}

/*
 * Is there, or will there be, a reply that postgres_fdw may take, rather than one that
 * is ours?
 */
bool
DtxReadingHasReply(const DtxConnection *c)
{
	return DtxWireExpects(&c->wire, DTX_REPLY_MADE) ||
		DtxWireExpects(&c->wire, DTX_REPLY_JOINED) ||
		!DtxWireExpects(&c->wire, DTX_REPLY_HANDLED);
}

/*
 * Is the answer to a question of ours due that was sent behind a command of
 * postgres_fdw's (DtxParticipantAskXidBehind)?  It comes with the reply to that.
 */
bool
DtxReadingQuestionIsDue(const DtxConnection *c)
{
	return c->participant != NULL && c->participant->state == DTX_PARTICIPANT_OPEN &&
		DtxParticipantReplyDue(c->participant);
}

/* Are results of remote SQL due (exec/run.c), or has it left some? */
bool
DtxReadingIsRemoteSql(const DtxConnection *c)
{
	return DtxWireExpects(&c->wire, DTX_REPLY_DROPPED) ||
		(DtxWireExpects(&c->wire, DTX_REPLY_READ) &&
		 PQpipelineStatus(c->wire.conn) != PQ_PIPELINE_OFF);
}

/*
 * postgres_fdw's cleanup has to get a connection out of remote SQL (DtxReadingIsRemoteSql).
 * Are results still due?  Does not wait.
 *
 * A backend that is terminated passes no PG_CATCH(), so they may be those that exec/run.c
 * was reading.
 */
bool
DtxReadingRemoteSqlIsBusy(DtxConnection *c)
{
	if (!IsTransactionState())
		DtxWireDropReplies(&c->wire);
	DtxWirePump(&c->wire);
	return DtxReadingIsRemoteSql(c);
}

/*
 * A value that dtx.query() receives may need a function that uses the very
 * connection on which it is received, say in a check constraint of a domain.
 */
void
DtxReadingCheckNoRemoteSql(const DtxConnection *c)
{
	if (DtxReadingIsRemoteSql(c))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("connection to server \"%s\" is in use by an active remote command",
						c->endpoint.server_name)));
}

/* Can postgres_fdw go on without waiting? */
static bool
reply_is_here(void *arg)
{
	DtxConnection *c = (DtxConnection *) arg;

	if (c->wire.broken || PQsocket(c->wire.conn) < 0)
		return true;
	if (DtxReadingQuestionIsDue(c))
		return false;
	return DtxWireExpects(&c->wire, DTX_REPLY_MADE) ||
		(!DtxWireExpects(&c->wire, DTX_REPLY_JOINED) &&
		 !dtx_real.PQisBusy(c->wire.conn));
}

static const char *
reply_context(void *arg)
{
	return psprintf("waiting for a reply of server \"%s\"",
					((DtxConnection *) arg)->endpoint.server_name);
}
