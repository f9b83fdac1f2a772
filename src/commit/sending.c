/*-------------------------------------------------------------------------
 *
 * sending.c
 *		Sending what postgres_fdw sends, with what was put off in front of it.
 *
 * All of it is entered in the queue of the connection's wire.  Statements that come
 * again and again are prepared on the server (statement.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commit/connection.h"
#include "commit/first.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/point.h"
#include "commit/put_off.h"
#include "commit/real_libpq.h"
#include "commit/sending.h"
#include "commit/statement.h"
#include "libpq-fe.h"
#include "net/wire.h"
#include "utils/palloc.h"

/* The longest command that is sent before the reply to COMMIT PREPARED is here. */
#define MAX_BEHIND_LATE		(32 * 1024)

static size_t params_size(const char *command, int nParams,
						  const char *const *paramValues);

/*
 * Send START TRANSACTION alone.
 */
int
DtxSendingStart(DtxConnection *c)
{
	int			sent = dtx_real.PQsendQuery(c->wire.conn, c->put_off.start);

	c->put_off.start[0] = '\0';
	return DtxSendingExpect(c, false, false, sent);
}

/*
 * Send a command by the simple protocol, together with what was put off.
 *
 * START TRANSACTION goes with it by the extended protocol, in a pipeline, where it
 * has a reply of its own, unless the command is, or may be, more than one statement.
 * CLOSEs make several statements in one message, of which the last result counts,
 * as postgres_fdw does anyway.
 */
int
DtxSendingQuery(PGconn *conn, const char *query)
{
	DtxConnection *c = DtxConnectionFind(conn);
	char		closes[DTX_CLOSES_SIZE];
	char	   *all;
	int			sent;

	if (c == NULL)
		return dtx_real.PQsendQuery(conn, query);
	if (c->put_off.start[0] != '\0')
	{
		/* (not that it had to, but it is not worth the trouble) */
		if (DtxLateDueOn(c))
			DtxLateAwait(c);
		DtxFirstReconnectIfBroken(c);
		if (strchr(query, ';') == NULL && strlen(query) <= DTX_MAX_FIRST_SIZE)
			return DtxFirstSend(c, NULL, query, 0, NULL);
		DtxFirstStartAlone(c);
	}
	if (c->put_off.ncloses == 0)
		return DtxSendingExpect(c, false, false, dtx_real.PQsendQuery(conn, query));

	(void) DtxPutOffCloses(&c->put_off, closes, sizeof(closes));
	all = psprintf("%s%s", closes, query);
	sent = dtx_real.PQsendQuery(conn, all);
	pfree(all);
	return DtxSendingExpect(c, false, false, sent);
}

/*
 * Send a command with parameters, whose types the server is to infer, and text
 * as result: by name if statement.c knows it, with what has to precede it.
 */
int
DtxSendingParams(DtxConnection *c, const char *command, int nParams,
				 const char *const *paramValues, const int *paramLengths,
				 const int *paramFormats)
{
	PGconn	   *conn = c->wire.conn;
	bool		prepare = false;
	const char *name = NULL;
	bool		ask = DtxSendingWantsXid(c);
	bool		joined;
	int			sent = 1;

	/*
	 * libpq blocks, and no cancel reaches it, when a socket can't take all of
	 * a command; and a server whose reply is due may not be reading.
	 */
	if (params_size(command, nParams, paramValues) > MAX_BEHIND_LATE &&
		DtxLateDueOn(c))
		DtxLateAwait(c);
	DtxFirstReconnectIfBroken(c);

	/* It is used for the first time, and for the last, if it is not kept. */
	if (c->put_off.start[0] != '\0' &&
		(params_size(command, nParams, paramValues) > DTX_MAX_FIRST_SIZE ||
		 paramLengths != NULL || paramFormats != NULL))
		DtxFirstStartAlone(c);
	if (c->put_off.start[0] != '\0')
		DtxPutOffKeepFirst(&c->put_off, NULL, command, nParams, paramValues);

	if (c->extension_seen)
		name = DtxStatementUse(&c->statements, command, &prepare);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, prepare || ask);
	if (prepare)
	{
		sent = dtx_real.PQsendPrepare(conn, name, command, nParams, NULL);
		DtxWireExpect(&c->wire, DTX_REPLY_STEP, 1);
	}
	if (sent && name != NULL)
		sent = dtx_real.PQsendQueryPrepared(conn, name, nParams, paramValues,
											paramLengths, paramFormats, 0);
	else if (sent)
		sent = dtx_real.PQsendQueryParams(conn, command, nParams, NULL,
										  paramValues, paramLengths, paramFormats,
										  0);
	return DtxSendingExpect(c, joined, ask, sent) ||
		(joined && DtxFirstStartAgainIfLost(c));
}

/*
 * Is the id of the remote transaction to be asked for behind a command that writes and
 * is about to be sent?  Then that goes in a pipeline.
 */
bool
DtxSendingWantsXid(const DtxConnection *c)
{
	return c->participant != NULL && DtxPointWantsXid(c->participant);
}

/*
 * The caller has sent a command of postgres_fdw; "joined": between
 * DtxPutOffBeginJoined() and here; "ask": DtxSendingWantsXid().  Returns what the
 * wrapper has to return.
 */
int
DtxSendingExpect(DtxConnection *c, bool joined, bool ask, int sent)
{
	if (joined && ask && sent && !c->wire.broken)
	{
		DtxWireExpect(&c->wire, DTX_REPLY_JOINED, 1);
		if (DtxParticipantAskPointBehind(c->participant) && DtxWireSync(&c->wire))
			return 1;
		DtxWireBreak(&c->wire, "could not send a command");
		return 0;
	}
	if (joined)
		return DtxPutOffEndJoined(&c->wire, sent);
	if (sent)
		DtxWireExpect(&c->wire, DTX_REPLY_READ, 1);
	return sent;
}

/*
 * About how many bytes is a command with its parameters (in text)?
 */
static size_t
params_size(const char *command, int nParams, const char *const *paramValues)
{
	size_t		size = strlen(command);

	for (int i = 0; i < nParams; i++)
		size += paramValues[i] != NULL ? strlen(paramValues[i]) : 0;
	return size;
}
