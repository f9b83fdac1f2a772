/*-------------------------------------------------------------------------
 *
 * wire.c
 *		A connection and the queue of the replies that are due on it.
 *
 * libpq's pipeline mode has such a queue inside and does not show it; here it
 * covers the simple protocol, too.  A wire knows nothing of transactions and of
 * postgres_fdw.
 *
 * Sending: a command leaves by one of the DtxWireSend...() functions, or the caller
 * sends it with libpq and says so with DtxWireExpect().  In a pipeline the last one
 * is followed by DtxWireSync().  The simple protocol can be used only while nothing
 * is due.
 *
 * Receiving: DtxWirePump() takes what is here, as far as it need not wait, up to a
 * reply that its owner reads (DtxWireRead).  A result of NULL ends the reply to a
 * command; in a pipeline each command has at least one result before that, so two
 * NULLs in a row are the end of everything (PQgetResult in
 * interfaces/libpq/fe-exec.c).
 *
 * Nothing here waits (wire_wait.c does) or throws, or allocates anything but what libpq
 * takes from malloc, whose failure libpq reports as a failed command: so it may be
 * called after the local commit.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>

#include "libpq-fe.h"
#include "net/wire.h"

/*
 * Reads after which a server that still has not ended its reply to one of our
 * commands is given up: it would fill our memory.  A reply is some hundred bytes,
 * but triggers at PREPARE may send notices, which come in pieces of 8 kB.
 */
#define MAX_READS	10000

/* What a server says that does not know a prepared statement. */
#define SQLSTATE_NO_STATEMENT	"26000"

/* The last number that was given to a connection. */
static uint64 last_serial = 0;

static DtxPending *next_due(DtxWire *wire);
static DtxPending *push(DtxWire *wire, DtxReplyKind kind, int commands);
static void pop(DtxWire *wire, DtxPending *entry);
static void take(DtxWire *wire, DtxPending *entry, PGresult *result);
static void make_error(DtxWire *wire, DtxPending *entry);
static void complete(DtxWire *wire, DtxPending *entry);
static void keep_first_error(PGresult **kept_result, PGresult *result);
static void forget_failed_start(DtxWire *wire);
static bool leave_pipeline(DtxWire *wire);
static bool is_copy(const PGresult *result);
static void clear_queue(DtxWire *wire);
static void receive_notice(void *arg, const PGresult *result);
static void ignore_notice(void *arg, const PGresult *result);

/* ----------------------------------------------------------------
 * Connections
 * ----------------------------------------------------------------
 */

/*
 * A new wire is that of this connection, on which nothing is due.
 */
void
DtxWireAttach(DtxWire *wire, PGconn *conn)
{
	wire->conn = conn;
	wire->serial = ++last_serial;
	wire->broken = false;
	wire->npending = 0;
	wire->notice_receiver = PQsetNoticeReceiver(conn, receive_notice, wire);
	wire->notice_arg = NULL;
}

/*
 * The connection is about to be closed by the caller, who has let go of its sets to wait
 * for (DtxWaitSetForget).  No handler is told that a reply does not come any more: see to
 * that before (DtxWireBreak).
 */
void
DtxWireDetach(DtxWire *wire)
{
	/* libpq's own receiver may write to stderr when the connection is closed. */
	(void) PQsetNoticeReceiver(wire->conn, ignore_notice, NULL);
	clear_queue(wire);
	wire->conn = NULL;
}

/*
 * The connection is about to be replaced by another one within its PGconn: what was due
 * is not any more, and handlers are told.  The wire gets another serial, and is broken
 * until the caller says that it is not.
 */
void
DtxWireForget(DtxWire *wire)
{
	DtxWireBreak(wire, "connection lost");
	clear_queue(wire);
	wire->serial = ++last_serial;
}

/*
 * What is to be done with notices that no handler takes.  Returns what was to be done
 * before.
 */
PQnoticeReceiver
DtxWirePassNotices(DtxWire *wire, PQnoticeReceiver receiver, void *arg)
{
	PQnoticeReceiver old = wire->notice_receiver;

	wire->notice_receiver = receiver;
	wire->notice_arg = arg;
	return old;
}

/*
 * A notice, as libpq comes across it, which is before the result of the command that
 * it belongs to: the first one that is due.  (Between the end of a command and a
 * notice of the next one there is at least one other message, which libpq does not
 * look at before PQgetResult() has returned that end: pqParseInput3 in
 * interfaces/libpq/fe-protocol3.c.)
 */
static void
receive_notice(void *arg, const PGresult *result)
{
	DtxWire    *wire = (DtxWire *) arg;
	DtxPending *entry = next_due(wire);

	if (entry != NULL && entry->kind == DTX_REPLY_HANDLED &&
		entry->handler->notice != NULL &&
		entry->handler->notice(entry->owner, result))
		return;
	if (wire->notice_receiver != NULL)
		wire->notice_receiver(wire->notice_arg, result);
}

static void
ignore_notice(void *arg, const PGresult *result)
{
}

/* ----------------------------------------------------------------
 * The queue
 * ----------------------------------------------------------------
 */

/*
 * The entry whose reply comes next on the wire, or NULL.
 */
static DtxPending *
next_due(DtxWire *wire)
{
	for (int i = 0; i < wire->npending; i++)
	{
		if (wire->pending[i].kind != DTX_REPLY_MADE &&
			wire->pending[i].kind != DTX_REPLY_START_FAILED)
			return &wire->pending[i];
	}
	return NULL;
}

/*
 * Append an entry.  There is always room: before a command come at most a
 * confirmation, START TRANSACTION, CLOSEs, which are counted together, and a
 * preparation.
 */
static DtxPending *
push(DtxWire *wire, DtxReplyKind kind, int commands)
{
	DtxPending *entry;

	/*
	 * libpq has taken a command of the simple protocol, so it knows of
	 * nothing that is due: who has sent the one before has not read it to its
	 * end.
	 */
	if ((kind == DTX_REPLY_READ || kind == DTX_REPLY_HANDLED) &&
		PQpipelineStatus(wire->conn) == PQ_PIPELINE_OFF)
	{
		Assert(!DtxWireExpects(wire, DTX_REPLY_HANDLED));
		clear_queue(wire);
	}

	/* Likewise for a reply that was made. */
	for (int i = 0; kind == DTX_REPLY_JOINED && i < wire->npending; i++)
	{
		if (wire->pending[i].kind != DTX_REPLY_MADE)
			continue;
		PQclear(wire->pending[i].result);
		pop(wire, &wire->pending[i--]);
	}

	Assert(wire->npending < DTX_WIRE_QUEUE);
	if (wire->npending >= DTX_WIRE_QUEUE)
	{
		/* Never; but what would come could not be told from anything else. */
		DtxWireBreak(wire, "too many commands");
		wire->npending = DTX_WIRE_QUEUE - 1;
	}
	entry = &wire->pending[wire->npending++];
	memset(entry, 0, sizeof(DtxPending));
	entry->kind = kind;
	entry->commands = commands;
	return entry;
}

/*
 * Take out an entry, whose result is the caller's, or was cleared.
 */
static void
pop(DtxWire *wire, DtxPending *entry)
{
	int			i = entry - wire->pending;

	wire->npending--;
	memmove(entry, entry + 1, sizeof(DtxPending) * (wire->npending - i));
}

static void
clear_queue(DtxWire *wire)
{
	for (int i = 0; i < wire->npending; i++)
		PQclear(wire->pending[i].result);
	wire->npending = 0;
}

/* Is nothing due? */
bool
DtxWireIdle(const DtxWire *wire)
{
	return wire->npending == 0;
}

/* Is a reply of this kind in the queue? */
bool
DtxWireExpects(const DtxWire *wire, DtxReplyKind kind)
{
	for (int i = 0; i < wire->npending; i++)
	{
		if (wire->pending[i].kind == kind)
			return true;
	}
	return false;
}

/*
 * Is it open whether the server has begun the transaction that was started last, and
 * done anything of what follows?
 */
bool
DtxWireStartIsDue(const DtxWire *wire)
{
	return DtxWireExpects(wire, DTX_REPLY_START) ||
		DtxWireExpects(wire, DTX_REPLY_START_FAILED);
}

/* Is a reply due that goes to a handler with this owner? */
bool
DtxWireOwes(const DtxWire *wire, const void *owner)
{
	for (int i = 0; i < wire->npending; i++)
	{
		if (wire->pending[i].kind == DTX_REPLY_HANDLED &&
			wire->pending[i].owner == owner)
			return true;
	}
	return false;
}

/*
 * Is nothing to be heard on an idle connection?  If something is, then most likely
 * that the server has closed it.
 */
bool
DtxWireIsSilent(const DtxWire *wire)
{
	struct pollfd pfd;

	pfd.fd = PQsocket(wire->conn);
	pfd.events = POLLIN;
	pfd.revents = 0;
	return pfd.fd >= 0 && PQtransactionStatus(wire->conn) == PQTRANS_IDLE &&
		poll(&pfd, 1, 0) == 0;
}

/* ----------------------------------------------------------------
 * Sending
 * ----------------------------------------------------------------
 */

/*
 * Send a command of ours by the simple protocol.  Returns false, and the wire is
 * broken, if that failed; the handler is not called then.
 */
bool
DtxWireSend(DtxWire *wire, const char *command, const DtxReplyHandler *handler,
			void *owner)
{
	DtxPending *entry;

	if (wire->broken || !PQsendQuery(wire->conn, command))
	{
		DtxWireBreak(wire, "could not send a command");
		return false;
	}
	entry = push(wire, DTX_REPLY_HANDLED, 1);
	entry->handler = handler;
	entry->owner = owner;
	return true;
}

/*
 * Likewise, as a pipeline of its own, so that other commands can follow before the
 * reply has come.
 */
bool
DtxWireSendInPipeline(DtxWire *wire, const char *command,
					  const DtxReplyHandler *handler, void *owner)
{
	DtxPending *entry;

	if (wire->broken || !PQenterPipelineMode(wire->conn) ||
		!PQsendQueryParams(wire->conn, command, 0, NULL, NULL, NULL, NULL, 0) ||
		!PQpipelineSync(wire->conn))
	{
		DtxWireBreak(wire, "could not send a command");
		return false;
	}
	entry = push(wire, DTX_REPLY_HANDLED, 1);
	entry->sync = true;
	entry->handler = handler;
	entry->owner = owner;
	return true;
}

/*
 * Send a command of ours behind one that was sent in a pipeline, to which the caller
 * adds the Sync (DtxWireSync): both are over at the same time, or if the first one fails
 * this one is not executed.  "name", or NULL: under which it is prepared, or is to be with
 * "prepare", which brings one more result.  Returns false if it could not be sent; what is
 * due is known all the same.
 */
bool
DtxWireSendBehind(DtxWire *wire, const char *command, const char *name,
				  bool prepare, const DtxReplyHandler *handler, void *owner)
{
	DtxPending *entry = push(wire, DTX_REPLY_HANDLED, prepare ? 2 : 1);

	entry->handler = handler;
	entry->owner = owner;
	if (prepare && !PQsendPrepare(wire->conn, name, command, 0, NULL))
		return false;
	return name != NULL ?
		PQsendQueryPrepared(wire->conn, name, 0, NULL, NULL, NULL, 0) != 0 :
		PQsendQueryParams(wire->conn, command, 0, NULL, NULL, NULL, NULL, 0) != 0;
}

/*
 * Send a command that precedes one of postgres_fdw or of remote SQL, in a pipeline.
 * Its error becomes that of the command.  "name", or NULL: under which it is prepared.
 * "prompt": the server is told to reply at once,
 * which costs it and us a message.  Returns false if the command could not be sent; what
 * is due is known all the same.
 */
bool
DtxWireSendStep(DtxWire *wire, const char *command, const char *name,
				DtxReplyKind kind, bool prompt)
{
	DtxPending *last = wire->npending > 0 ?
	&wire->pending[wire->npending - 1] : NULL;

	Assert(kind == DTX_REPLY_START || kind == DTX_REPLY_STEP);
	if (last != NULL && kind == DTX_REPLY_STEP && last->kind == kind)
		last->commands++;
	else
		(void) push(wire, kind, 1);
	return (name != NULL ?
			PQsendQueryPrepared(wire->conn, name, 0, NULL, NULL, NULL, 0) :
			PQsendQueryParams(wire->conn, command, 0, NULL, NULL, NULL, NULL, 0)) &&
		(!prompt || PQsendFlushRequest(wire->conn));
}

/*
 * Have statements prepared, in a pipeline of their own.  Otherwise as DtxWireSend().
 */
bool
DtxWirePrepare(DtxWire *wire, const DtxWireStatement *statements, int n,
			   const DtxReplyHandler *handler, void *owner)
{
	bool		sent = !wire->broken && PQenterPipelineMode(wire->conn);
	DtxPending *entry;

	for (int i = 0; sent && i < n; i++)
		sent = PQsendPrepare(wire->conn, statements[i].name,
							 statements[i].command, 0, NULL);
	if (!sent || !PQpipelineSync(wire->conn))
	{
		DtxWireBreak(wire, "could not send a command");
		return false;
	}
	entry = push(wire, DTX_REPLY_HANDLED, n);
	entry->sync = true;
	entry->handler = handler;
	entry->owner = owner;
	return true;
}

/*
 * Have statements executed, one after the other, that are prepared under these names, in a
 * pipeline of their own.  Otherwise as DtxWireSend(): if one fails the rest is not
 * executed, and its error is the last result.
 */
bool
DtxWireSendNames(DtxWire *wire, const char *const *names, int n,
				 const DtxReplyHandler *handler, void *owner)
{
	bool		sent = !wire->broken && PQenterPipelineMode(wire->conn);
	DtxPending *entry;

	for (int i = 0; sent && i < n; i++)
		sent = PQsendQueryPrepared(wire->conn, names[i], 0, NULL, NULL, NULL, 0);
	if (!sent || !PQpipelineSync(wire->conn))
	{
		DtxWireBreak(wire, "could not send a command");
		return false;
	}
	entry = push(wire, DTX_REPLY_HANDLED, n);
	entry->sync = true;
	entry->handler = handler;
	entry->owner = owner;
	return true;
}

/*
 * The caller has sent commands, or is about to, whose replies are READ, JOINED, or a
 * STEP in front of these.
 */
void
DtxWireExpect(DtxWire *wire, DtxReplyKind kind, int commands)
{
	(void) push(wire, kind, commands);
}

/*
 * The last command of a pipeline was sent: send the Sync after it.  Returns false if
 * that failed.
 */
bool
DtxWireSync(DtxWire *wire)
{
	wire->pending[wire->npending - 1].sync = true;
	return PQpipelineSync(wire->conn) != 0;
}

/*
 * A command is not sent, and its reply is made here: "result", which becomes the
 * wire's, or success without rows if it is NULL.
 */
void
DtxWireMake(DtxWire *wire, PGresult *result)
{
	push(wire, DTX_REPLY_MADE, 1)->result = result;
}

/* ----------------------------------------------------------------
 * Receiving
 * ----------------------------------------------------------------
 */

/*
 * Take in replies that libpq has got already, up to the first that its owner reads
 * (DTX_REPLY_READ).
 */
void
DtxWirePump(DtxWire *wire)
{
	DtxPending *entry;

	while (!wire->broken && (entry = next_due(wire)) != NULL &&
		   entry->kind != DTX_REPLY_READ && !PQisBusy(wire->conn))
		take(wire, entry, PQgetResult(wire->conn));
}

/*
 * Take in what has arrived on the connection, and then as DtxWirePump().
 *
 * What could be read of a reply has been read before, so if there is nothing but the
 * end of the connection, that is the reply.  (PQgetResult() would add to libpq's
 * message that it cannot wait for more.)
 */
void
DtxWireTakeInput(DtxWire *wire)
{
	bool		lost = !PQconsumeInput(wire->conn);
	DtxPending *entry = next_due(wire);

	if (wire->broken || entry == NULL)
		return;
	switch (entry->kind)
	{
		case DTX_REPLY_HANDLED:
			if (++entry->reads > MAX_READS)
				DtxWireBreak(wire, "the server sends more than it was asked for");
			break;
		case DTX_REPLY_READ:
			if (lost && PQpipelineStatus(wire->conn) == PQ_PIPELINE_OFF)
				make_error(wire, entry);
			else if (lost)
				DtxWireBreak(wire, "connection lost");
			break;
		case DTX_REPLY_DROPPED:
			break;
		default:
			if (lost)
				DtxWireBreak(wire, "connection lost");
			break;
	}
	DtxWirePump(wire);
}

/*
 * The reply to this entry is made: the error that libpq has met.
 */
static void
make_error(DtxWire *wire, DtxPending *entry)
{
	PQclear(entry->result);
	entry->result = PQmakeEmptyPGresult(wire->conn, PGRES_FATAL_ERROR);
	entry->kind = DTX_REPLY_MADE;
	entry->commands = 1;
	entry->sync = false;
	entry->answered = true;
}

/*
 * A result, or NULL, is part of the reply to the entry that is due.
 */
static void
take(DtxWire *wire, DtxPending *entry, PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);
	bool		in_pipeline = PQpipelineStatus(wire->conn) != PQ_PIPELINE_OFF;
	bool		synced = result != NULL && status == PGRES_PIPELINE_SYNC;

	/*
	 * Lost, or not to be gone on with: libpq would return results of a COPY,
	 * which nobody has asked for, for ever.
	 */
	if (PQstatus(wire->conn) == CONNECTION_BAD || is_copy(result) ||
		(in_pipeline && result == NULL && !entry->answered) ||
		(synced && (entry->commands > 0 || !entry->sync)))
	{
		if (result != NULL && entry->kind == DTX_REPLY_HANDLED)
		{
			PQclear(entry->result);
			entry->result = result;
		}
		else
			PQclear(result);
		DtxWireBreak(wire, "connection lost");
		return;
	}

	if (synced)
	{
		PQclear(result);
		complete(wire, entry);
		return;
	}
	if (result == NULL)
	{
		entry->answered = false;
		entry->commands = in_pipeline ? entry->commands - 1 : 0;
		if (entry->commands == 0 && !entry->sync)
			complete(wire, entry);
		return;
	}

	entry->answered = true;
	switch (entry->kind)
	{
		case DTX_REPLY_HANDLED:
			if (entry->handler->result != NULL)
				entry->handler->result(entry->owner, result);
			if (status == PGRES_PIPELINE_ABORTED && entry->result != NULL)
				PQclear(result);
			else
			{
				PQclear(entry->result);
				entry->result = result;
			}
			break;
		case DTX_REPLY_JOINED:
			keep_first_error(&entry->result, result);
			break;
		case DTX_REPLY_START:
			if (status == PGRES_FATAL_ERROR)
			{
				const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

				if (sqlstate != NULL && strcmp(sqlstate, SQLSTATE_NO_STATEMENT) == 0)
					wire->start_unknown = true;
				PQclear(entry->result);
				entry->result = result;
			}
			else
				PQclear(result);
			break;
		case DTX_REPLY_STEP:
			if (status == PGRES_FATAL_ERROR)
				keep_first_error(&entry->result, result);
			else
				PQclear(result);
			break;
		default:
			PQclear(result);
			break;
	}
}

/*
 * The one result of several commands is that of the last, or of the first that has
 * failed.
 */
static void
keep_first_error(PGresult **kept_result, PGresult *result)
{
	if (PQresultStatus(result) == PGRES_PIPELINE_ABORTED ||
		(*kept_result != NULL &&
		 PQresultStatus(*kept_result) == PGRES_FATAL_ERROR))
		PQclear(result);
	else
	{
		PQclear(*kept_result);
		*kept_result = result;
	}
}

/*
 * The reply to an entry that is due is complete.
 */
static void
complete(DtxWire *wire, DtxPending *entry)
{
	DtxPending	done = *entry;

	if (done.kind == DTX_REPLY_JOINED)
	{
		entry->kind = DTX_REPLY_MADE;
		entry->commands = 1;
		entry->sync = false;
		entry->answered = true;
	}
	else if (done.kind == DTX_REPLY_START && done.result != NULL)
	{
		/*
		 * Was it refused, or does the server close the connection?  That
		 * shows before the next Sync.
		 */
		entry->result = NULL;
		entry->kind = DTX_REPLY_START_FAILED;
		if (next_due(wire) != NULL)
			keep_first_error(&next_due(wire)->result, done.result);
		else
			PQclear(done.result);
	}
	else
	{
		pop(wire, entry);

		/* An error of a step goes on, if more steps come. */
		if (done.kind == DTX_REPLY_STEP)
		{
			if (done.result != NULL && next_due(wire) != NULL)
				keep_first_error(&next_due(wire)->result, done.result);
			else
				PQclear(done.result);
		}
		else if (done.kind != DTX_REPLY_HANDLED)
			PQclear(done.result);
	}

	if (done.sync)
		forget_failed_start(wire);
	if (done.sync && next_due(wire) == NULL && !leave_pipeline(wire))
		DtxWireBreak(wire, "connection lost");
	if (done.kind == DTX_REPLY_HANDLED)
		done.handler->complete(done.owner, done.result, NULL);
}

/*
 * The Sync behind a START TRANSACTION that failed is here, so it was refused.
 */
static void
forget_failed_start(DtxWire *wire)
{
	for (int i = 0; i < wire->npending; i++)
	{
		if (wire->pending[i].kind == DTX_REPLY_START_FAILED)
			pop(wire, &wire->pending[i--]);
	}
}

/*
 * Nothing is due any more: back to the simple protocol.
 */
static bool
leave_pipeline(DtxWire *wire)
{
	return PQexitPipelineMode(wire->conn) &&
		(!PQisnonblocking(wire->conn) || PQsetnonblocking(wire->conn, 0) == 0);
}

static bool
is_copy(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
		status == PGRES_COPY_BOTH;
}

/* Would DtxWireRead() find something? */
bool
DtxWireIsReadable(DtxWire *wire)
{
	DtxPending *entry = next_due(wire);

	return wire->broken ||
		(entry != NULL && entry->kind == DTX_REPLY_READ &&
		 (entry->result != NULL || !PQisBusy(wire->conn)));
}

/*
 * Remote SQL reads the results of what it has sent in a pipeline.  *result is set to
 * NULL unless there is one; if the wire is lost that may say why.  An error of a step
 * in front comes first.
 */
DtxReadEnd
DtxWireRead(DtxWire *wire, PGresult **result)
{
	DtxPending *entry;

	*result = NULL;
	DtxWirePump(wire);
	if (wire->broken)
		return DTX_READ_LOST;
	entry = next_due(wire);
	if (entry == NULL || entry->kind != DTX_REPLY_READ)
		return DTX_READ_NOT_YET;
	if (entry->result != NULL)
	{
		*result = entry->result;
		entry->result = NULL;
		return DTX_READ_RESULT;
	}
	if (PQisBusy(wire->conn))
		return DTX_READ_NOT_YET;

	*result = PQgetResult(wire->conn);
	if (PQstatus(wire->conn) == CONNECTION_BAD ||
		(*result == NULL && !entry->answered))
		return DTX_READ_LOST;
	if (*result == NULL)
	{
		entry->answered = false;
		entry->commands--;
		return DTX_READ_NEXT;
	}
	if (PQresultStatus(*result) != PGRES_PIPELINE_SYNC)
	{
		entry->answered = true;
		return DTX_READ_RESULT;
	}
	PQclear(*result);
	*result = NULL;
	pop(wire, entry);
	forget_failed_start(wire);
	if (!leave_pipeline(wire))
		DtxWireBreak(wire, "connection lost");
	return DTX_READ_COMPLETE;
}

/*
 * postgres_fdw reads the results of a command that it has sent by the simple protocol
 * with PQgetResult(), and has got the NULL at their end.
 */
void
DtxWireReadIsOver(DtxWire *wire)
{
	DtxPending *entry = next_due(wire);

	if (entry != NULL && entry->kind == DTX_REPLY_READ)
	{
		PQclear(entry->result);
		pop(wire, entry);
	}
}

/*
 * Read the reply that is MADE, as PQgetResult() would: the result, which is the
 * caller's to clear, and then NULL.  *received: has the server sent it?
 */
PGresult *
DtxWireReadMade(DtxWire *wire, bool *received)
{
	*received = false;
	for (int i = 0; i < wire->npending; i++)
	{
		DtxPending *entry = &wire->pending[i];
		PGresult   *result = entry->result;

		if (entry->kind != DTX_REPLY_MADE)
			continue;
		if (entry->commands-- == 0)
		{
			pop(wire, entry);
			return NULL;
		}
		entry->result = NULL;
		*received = entry->answered;

		/* Without memory for the result of the server it is no success. */
		return result != NULL ? result :
			PQmakeEmptyPGresult(wire->conn, *received ? PGRES_FATAL_ERROR :
								PGRES_COMMAND_OK);
	}
	return NULL;
}

/*
 * Nothing more comes of what is JOINED: what precedes it is forgotten, and its reply
 * is the error that libpq has met.
 */
void
DtxWireFailJoined(DtxWire *wire)
{
	for (int i = 0; i < wire->npending;)
	{
		DtxPending *entry = &wire->pending[i];

		if (entry->kind == DTX_REPLY_START || entry->kind == DTX_REPLY_STEP ||
			entry->kind == DTX_REPLY_START_FAILED)
		{
			PQclear(entry->result);
			pop(wire, entry);
			continue;
		}
		if (entry->kind == DTX_REPLY_JOINED)
			make_error(wire, entry);
		i++;
	}
}

/*
 * Commands of this owner, sent by the simple protocol, become ones that postgres_fdw
 * cancels and reads, as it would its own.
 */
void
DtxWireLeaveToReader(DtxWire *wire, const void *owner)
{
	for (int i = 0; i < wire->npending; i++)
	{
		DtxPending *entry = &wire->pending[i];

		if (entry->kind != DTX_REPLY_HANDLED || entry->owner != owner)
			continue;
		PQclear(entry->result);
		entry->result = NULL;
		entry->kind = DTX_REPLY_READ;
	}
}

/*
 * The replies that their owner reads are thrown away from now on.
 */
void
DtxWireDropReplies(DtxWire *wire)
{
	for (int i = 0; i < wire->npending; i++)
	{
		if (wire->pending[i].kind == DTX_REPLY_READ)
			wire->pending[i].kind = DTX_REPLY_DROPPED;
	}

	/* On a broken one nothing more is going to come. */
	if (wire->broken)
		DtxWireBreak(wire, "connection lost");
}

/*
 * Nothing more is sent, and nothing more is waited for, because a reply that comes now
 * would be taken for that to another command.  The server is told by shutting the
 * socket down; the PGconn is that of postgres_fdw, which closes it.
 *
 * Handlers are told; what others read or have JOINED stays in the queue.
 */
void
DtxWireBreak(DtxWire *wire, const char *why)
{
	if (!wire->broken && PQsocket(wire->conn) >= 0)
		(void) shutdown(PQsocket(wire->conn), SHUT_RDWR);
	wire->broken = true;

	for (int i = 0; i < wire->npending;)
	{
		DtxPending	entry = wire->pending[i];

		if (entry.kind != DTX_REPLY_HANDLED && entry.kind != DTX_REPLY_DROPPED)
		{
			i++;
			continue;
		}
		pop(wire, &wire->pending[i]);
		if (entry.kind == DTX_REPLY_HANDLED)
			entry.handler->complete(entry.owner, entry.result, why);
		else
			PQclear(entry.result);

		/* The handler may have changed the queue. */
		i = 0;
	}
}
