/*-------------------------------------------------------------------------
 *
 * first.c
 *		The first command of a remote transaction, sent with START TRANSACTION.
 *
 * START TRANSACTION is put off and sent together with the first command, in a pipeline,
 * which saves a round trip.  (By the simple protocol there would be one reply for both.)
 * postgres_fdw makes a dead connection anew only if START TRANSACTION fails, and it has
 * been told already that it has succeeded, so it is done here.  Both commands are kept
 * until the reply to START TRANSACTION is here.  No reply: the connection was dead before,
 * and both are sent again on a new connection.  A reply: it has died of the command, or
 * under it, and that is an error, as without pg_dtx.
 *
 * If the connection was idle for some time the server is told to send that reply at once,
 * with a Flush.  Otherwise it comes together with the other one, and wakes us once.  Then
 * no reply may also mean that it has died under the command; DtxFirstReconnect() is about
 * that.
 *
 * To do without: let DtxFirstMayPutOff() return false.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "commit/connection.h"
#include "commit/first.h"
#include "commit/late.h"
#include "commit/own_writes.h"
#include "commit/put_off.h"
#include "libpq-fe.h"
#include "net/text.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "utils/palloc.h"

/*
 * A connection that was idle for longer may be dead without anybody having
 * noticed; then START TRANSACTION goes first, and if it fails postgres_fdw makes
 * another connection.  Milliseconds.
 */
#define FOLD_MAX_IDLE_MS	60000

/*
 * One that was in use in the last so many milliseconds is hardly dead: the reply to START
 * TRANSACTION is not asked for at once (DtxFirstReconnect).
 */
#define RECENT_MS	1000

#define START_REPEATABLE_READ	"START TRANSACTION ISOLATION LEVEL REPEATABLE READ"
#define START_READ_COMMITTED	"START TRANSACTION ISOLATION LEVEL READ COMMITTED"

/* See DtxFirstHoldStart(). */
static bool hold_start = false;

static bool may_start_again(const DtxConnection *c);
static void start_again(DtxConnection *c);
static PGresult *start_now(DtxConnection *c, const char *start);
static bool is_readable(void *arg);

/*
 * May the START TRANSACTION of a connection that is alive be put off?
 */
bool
DtxFirstMayPutOff(const DtxConnection *c)
{
	if (hold_start)
		return true;
	return dtx_fold_start && dtx_two_phase_commit && c->extension_seen &&
		!DtxIsDue(c->last_start + FOLD_MAX_IDLE_MS);
}

/*
 * While "hold" is true every START TRANSACTION is put off: the caller has something to
 * ask outside of a transaction first, finds out whether the connection is alive by that,
 * and sends what was put off itself.
 */
void
DtxFirstHoldStart(bool hold)
{
	hold_start = hold;
}

/*
 * postgres_fdw starts a remote transaction: keep the command, as it is to be sent, in
 * c->put_off.start.  Returns true if it need not be sent now.  Throws if postgres_fdw
 * talks in an unknown way.
 *
 * postgres_fdw replaces a connection that fails with this very command, so that
 * a server's restart goes unnoticed, and no other.  So it is sent alone on a
 * connection that is seen to be dead, or was idle for long.  What can't be seen
 * shows in the reply to the first command, and then the connection is replaced here
 * (start_again).
 */
bool
DtxFirstPutOff(DtxConnection *c, const char *command)
{
	bool		may_put_off = DtxFirstMayPutOff(c);
	char	   *start = c->put_off.start;

	c->put_off.prompt = DtxIsDue(c->last_start + RECENT_MS) ||
		!c->cluster_asked || c->endpoint.run == 0;
	c->last_start = DtxNow();
	if (dtx_remote_isolation == XACT_READ_COMMITTED &&
		XactIsoLevel == XACT_READ_COMMITTED && c->extension_seen &&
		strncmp(command, START_REPEATABLE_READ, strlen(START_REPEATABLE_READ)) == 0)
		snprintf(start, DTX_START_SIZE, "%s%s",
				 START_READ_COMMITTED, command + strlen(START_REPEATABLE_READ));
	else
		strlcpy(start, command, DTX_START_SIZE);

	if (strlen(command) >= DTX_START_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("postgres_fdw starts a transaction in an unknown way: %s",
						command)));
	strlcpy(c->put_off.last_start, start, DTX_START_SIZE);

	return DtxLateDueOn(c) || (may_put_off && DtxWireIsSilent(&c->wire));
}

/*
 * A connection that is broken before anything of its remote transaction was sent,
 * START TRANSACTION included, is made anew.  Throws on interrupts, and if that was in
 * vain.
 */
void
DtxFirstReconnectIfBroken(DtxConnection *c)
{
	if (c->wire.broken && c->put_off.start[0] != '\0')
		DtxOwnWritesReconnect(c);
}

/*
 * Send START TRANSACTION, which was put off, and a command with parameters in text,
 * or with "prepare", the preparation of one by that name.  Returns what the function
 * of libpq would.  Throws what a new connection throws.
 */
int
DtxFirstSend(DtxConnection *c, const char *prepare, const char *command,
			 int nparams, const char *const *values)
{
	int			sent;

	DtxPutOffKeepFirst(&c->put_off, prepare, command, nparams, values);
	(void) DtxPutOffBeginJoined(&c->put_off, &c->wire, true);
	if (prepare != NULL)
		sent = PQsendPrepare(c->wire.conn, prepare, command, nparams, NULL);
	else
		sent = PQsendQueryParams(c->wire.conn, command, nparams, NULL,
								 values, NULL, NULL, 0);
	return DtxPutOffEndJoined(&c->wire, sent) || DtxFirstStartAgainIfLost(c);
}

/*
 * If the connection of a START TRANSACTION and the command after it, which was kept, is
 * lost, and it is not known that it was alive: send both again, on a new one, once.
 * Likewise if what they follow was not confirmed (DtxParticipantFinish).  Returns false
 * if there is nothing to be sent again.  Throws on interrupts, and if that failed.
 */
bool
DtxFirstStartAgainIfLost(DtxConnection *c)
{
	if (!may_start_again(c))
		return false;
	start_again(c);
	return true;
}

/*
 * The connection of a START TRANSACTION and what comes after it is lost without a reply
 * to the former: make it anew, so that both can be sent again.  "sent": may the server have
 * got them?  What it has done then is rolled back with the old connection; but if it has
 * crashed since that was made, it may have crashed of the command.  Throws on interrupts,
 * and if that was in vain, or is not to be done.
 */
void
DtxFirstReconnect(DtxConnection *c, bool sent)
{
	DtxWalOf	before = DtxEndpointWal(&c->endpoint);
	DtxWalOf	now;

	DtxOwnWritesReconnect(c);
	now = DtxEndpointWal(&c->endpoint);
	if (!sent || c->put_off.prompt || memcmp(&before, &now, sizeof(now)) == 0)
		return;
	DtxWireBreak(&c->wire, "connection lost");
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 DtxEndpointIsKnown(&c->endpoint) ?
			 errmsg("connection to server \"%s\" was lost", c->endpoint.server_name) :
			 errmsg("connection to a server was lost"),
			 errdetail("The server has crashed, perhaps of the command.")));
}

/*
 * If the reply to START TRANSACTION is here, the connection has died of the command,
 * or under it: then the error is the caller's, as it is in postgres_fdw.
 */
static bool
may_start_again(const DtxConnection *c)
{
	return c->put_off.first != NULL && IsTransactionState() && c->wire.broken &&
		(DtxWireStartIsDue(&c->wire) || c->put_off.start[0] != '\0');
}

static void
start_again(DtxConnection *c)
{
	DtxFirstCommand *first = c->put_off.first;
	PGconn	   *conn = c->wire.conn;
	int			sent;

	DtxFirstReconnect(c, c->put_off.start[0] == '\0');
	strlcpy(c->put_off.start, first->start, DTX_START_SIZE);
	(void) DtxPutOffBeginJoined(&c->put_off, &c->wire, true);
	if (first->prepare != NULL)
		sent = PQsendPrepare(conn, first->prepare, first->command,
							 first->nparams, NULL);
	else
		sent = PQsendQueryParams(conn, first->command, first->nparams, NULL,
								 (const char *const *) first->values,
								 NULL, NULL, 0);

	/* What went wrong shows in the result. */
	if (!DtxPutOffEndJoined(&c->wire, sent) &&
		!DtxWireExpects(&c->wire, DTX_REPLY_JOINED))
		DtxWireExpect(&c->wire, DTX_REPLY_JOINED, 1);

	/* It is not sent for a third time. */
	DtxPutOffForgetFirst(&c->put_off);
}

/*
 * Send START TRANSACTION, which was put off, and wait for the reply, because what
 * comes next can't be kept.  Throws on interrupts, and if it fails.
 */
void
DtxFirstStartAlone(DtxConnection *c)
{
	char		start[DTX_START_SIZE];
	PGresult   *result;
	const char *sqlstate;
	int			code = ERRCODE_CONNECTION_FAILURE;
	char	   *detail;

	strlcpy(start, c->put_off.start, DTX_START_SIZE);
	if (DtxLateDueOn(c))
		DtxLateAwait(c);
	DtxFirstReconnectIfBroken(c);

	c->put_off.start[0] = '\0';
	result = start_now(c, start);
	if (PQresultStatus(result) != PGRES_COMMAND_OK && IsTransactionState() &&
		PQstatus(c->wire.conn) == CONNECTION_BAD)
	{
		/* It was dead before. */
		PQclear(result);
		DtxOwnWritesReconnect(c);
		result = start_now(c, start);
	}
	if (PQresultStatus(result) == PGRES_COMMAND_OK)
	{
		PQclear(result);
		return;
	}

	sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	if (sqlstate != NULL && strlen(sqlstate) == 5)
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
							 sqlstate[3], sqlstate[4]);
	detail = DtxCleanText(result != NULL ? PQresultErrorMessage(result) :
						  PQerrorMessage(c->wire.conn), DTX_MAX_REMOTE_TEXT);
	PQclear(result);
	DtxWireBreak(&c->wire, "could not begin transaction");
	ereport(ERROR,
			(errcode(code),
			 errmsg("could not begin transaction on server \"%s\"",
					DtxEndpointIsKnown(&c->endpoint) ?
					c->endpoint.server_name : "(unknown)"),
			 errdetail_internal("%s", detail)));
}

/*
 * Returns the last result, NULL if nothing could be sent.  On an interrupt the reply is
 * left to postgres_fdw, which cancels the command and reads it.
 */
static PGresult *
start_now(DtxConnection *c, const char *start)
{
	DtxWire    *wire = &c->wire;
	PGresult   *last = NULL;
	DtxWait		wait = {
		.wires = &wire,
		.nwires = 1,
		.deadline = DTX_NEVER,
		.wait_event = DtxConnectionWaitEvent(),
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = is_readable,
		.arg = wire
	};

	if (!PQsendQuery(wire->conn, start))
		return NULL;
	DtxWireExpect(wire, DTX_REPLY_READ, 1);
	for (;;)
	{
		PGresult   *result;

		(void) DtxWireWait(&wait);
		result = PQgetResult(wire->conn);
		if (result == NULL)
			break;
		PQclear(last);
		last = result;
		if (PQresultStatus(result) != PGRES_COMMAND_OK &&
			PQresultStatus(result) != PGRES_FATAL_ERROR)
		{
			/* libpq would return the results of a COPY for ever */
			DtxWireBreak(wire, "unexpected reply");
			break;
		}
	}
	DtxWireReadIsOver(wire);
	return last;
}

static bool
is_readable(void *arg)
{
	return !PQisBusy(((DtxWire *) arg)->conn);
}
