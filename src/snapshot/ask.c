/*-------------------------------------------------------------------------
 *
 * ask.c
 *		What is asked on all servers at once, around the start of a transaction.
 *
 * postgres_fdw opens its session with each server and believes that it has begun the remote
 * transaction there, but START TRANSACTION was put off.  So the server can be asked something
 * outside of a transaction first, and then gets START TRANSACTION and the first command,
 * which takes the snapshot.  All that is sent to it in a row, without waiting, as pipelines
 * of their own.
 *
 * DtxSnapshotAskList(), DtxSnapshotBegin() and DtxSnapshotCommand() do not wait.  What
 * cannot be sent counts as a lost connection (DtxSnapshotServer.lost).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/gid.h"
#include "commit/connection.h"
#include "commit/fdw_session.h"
#include "commit/first.h"
#include "commit/own_writes.h"
#include "commit/participant.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/text.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "snapshot/ask.h"
#include "state/identity.h"
#include "utils/palloc.h"

static void send_text(DtxSnapshotServer *s, const char *command,
					  const DtxReplyHandler *handler);
static void server_context(void *arg);
static bool all_answered(void *arg);
static void throw_answer(const DtxSnapshotServer *s, const PGresult *res);
static void keep(PGresult **kept, DtxSnapshotServer *s, PGresult *last, const char *lost);
static void list_complete(void *owner, PGresult *last, const char *lost);
static void start_complete(void *owner, PGresult *last, const char *lost);
static void command_complete(void *owner, PGresult *last, const char *lost);
static void rollback_complete(void *owner, PGresult *last, const char *lost);

static const DtxReplyHandler list_handler = {.complete = list_complete};
static const DtxReplyHandler start_handler = {.complete = start_complete};
static const DtxReplyHandler command_handler = {.complete = command_complete};
static const DtxReplyHandler rollback_handler = {.complete = rollback_complete};

/* What is waited for. */
typedef struct Waiting
{
	DtxSnapshotServer *servers;
	int			n;
} Waiting;

/* Wait event, see DtxWaitEvent(). */
static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = DtxWaitEvent("DtxSnapshot");
	return event;
}

/* ----------------------------------------------------------------
 * Connections
 * ----------------------------------------------------------------
 */

/*
 * Have postgres_fdw open its session with each server and begin a transaction there, of
 * which nothing has been sent yet.  Throws if one is in use in the current transaction, and
 * what postgres_fdw throws.
 */
void
DtxSnapshotConnect(DtxSnapshotServer *servers, int n)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = server_context
	};

	(void) wait_event();
	error_context_stack = &callback;
	DtxFirstHoldStart(true);
	PG_TRY();
	{
		for (int i = 0; i < n; i++)
		{
			DtxSnapshotServer *s = &servers[i];
			DtxConnection *c;

			callback.arg = s;
			c = DtxFdwSessionOpen(s->serverid);
			if (c->participant->use == DTX_USED)
				ereport(ERROR,
						(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
						 errmsg("server \"%s\" has been used in this transaction already",
								s->name),
						 errdetail("Its part of the transaction has a snapshot of its own."),
						 errhint("Do it first in the transaction.")));
			s->begun = c->put_off.start[0] == '\0';
			DtxConnectionHold(c);
			s->c = c;
		}
	}
	PG_FINALLY();
	{
		DtxFirstHoldStart(false);
	}
	PG_END_TRY();
	error_context_stack = callback.previous;
}

/* Not all errors of postgres_fdw name the server. */
static void
server_context(void *arg)
{
	errcontext("snapshot of server \"%s\"", ((DtxSnapshotServer *) arg)->name);
}

/*
 * Make those connections anew that are lost: they may have been dead before.  Throws if that
 * fails.
 */
void
DtxSnapshotReconnectLost(DtxSnapshotServer *servers, int n)
{
	for (int i = 0; i < n; i++)
	{
		DtxSnapshotServer *s = &servers[i];

		if (!s->c->wire.broken)
			continue;
		DtxOwnWritesReconnect(s->c);
		s->begun = s->lost = false;
	}
}

/*
 * It is over, successfully or not: what has not been answered by now is not waited for, and
 * nobody can use that connection any more.  Does not throw.
 */
void
DtxSnapshotEnd(DtxSnapshotServer *servers, int n)
{
	DtxWaitSetRelease();
	for (int i = 0; i < n; i++)
	{
		DtxSnapshotServer *s = &servers[i];

		if (s->c == NULL)
			continue;
		if (DtxWireOwes(&s->c->wire, s))
			DtxWireBreak(&s->c->wire, "no reply");
		PQclear(s->listed);
		PQclear(s->began);
		PQclear(s->answer);
		DtxConnectionLetGo(s->c);
		s->listed = s->began = s->answer = NULL;
		s->c = NULL;
	}
}

/* ----------------------------------------------------------------
 * Questions
 * ----------------------------------------------------------------
 */

/*
 * Ask which transactions of this coordinator are prepared in the database there, outside of
 * a transaction: one that is open is rolled back before.
 *
 * The list comes before any snapshot that is taken later.  What it does not show has ended
 * by then, or is prepared later.
 *
 * Throws what DtxCoordinatorId() throws.
 */
void
DtxSnapshotAskList(DtxSnapshotServer *s)
{
	char		prefix[DTX_GID_SIZE];
	char	   *question;

	DtxGidFormatPrefix(DtxCoordinatorId(), MyDatabaseId, prefix);
	question = psprintf("SELECT p.gid FROM pg_catalog.pg_prepared_xact() AS p"
						" WHERE p.gid OPERATOR(pg_catalog.~~) '%s%%' AND p.dbid OPERATOR(pg_catalog.=)"
						" (SELECT d.oid FROM pg_catalog.pg_database AS d"
						" WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())",
						prefix);
	PQclear(s->listed);
	s->listed = NULL;
	s->lost = false;
	if (s->begun)
	{
		strlcpy(s->c->put_off.start, s->c->put_off.last_start, DTX_START_SIZE);
		send_text(s, "ROLLBACK", &rollback_handler);
	}
	s->begun = false;
	send_text(s, question, &list_handler);
	pfree(question);
}

/*
 * Begin the transaction, with this as its first command, which takes its snapshot.
 */
void
DtxSnapshotBegin(DtxSnapshotServer *s, const char *command)
{
	PQclear(s->began);
	PQclear(s->answer);
	s->began = s->answer = NULL;
	s->begun = true;
	s->c->put_off.start[0] = '\0';
	DtxParticipantNoteUse(s->c->participant, false);
	send_text(s, s->c->put_off.last_start, &start_handler);
	send_text(s, command, &command_handler);
}

/*
 * A command outside of a transaction.
 */
void
DtxSnapshotCommand(DtxSnapshotServer *s, const char *command)
{
	PQclear(s->answer);
	s->answer = NULL;
	send_text(s, command, &command_handler);
}

/* If that fails the wire is broken. */
static void
send_text(DtxSnapshotServer *s, const char *command, const DtxReplyHandler *handler)
{
	if (!DtxWireSendInPipeline(&s->c->wire, command, handler, s))
		s->lost = true;
}

static void
keep(PGresult **kept, DtxSnapshotServer *s, PGresult *last, const char *lost)
{
	PQclear(*kept);
	*kept = last;
	if (lost != NULL)
		s->lost = true;
}

static void
list_complete(void *owner, PGresult *last, const char *lost)
{
	DtxSnapshotServer *s = (DtxSnapshotServer *) owner;

	keep(&s->listed, s, last, lost);
}

static void
start_complete(void *owner, PGresult *last, const char *lost)
{
	DtxSnapshotServer *s = (DtxSnapshotServer *) owner;

	keep(&s->began, s, last, lost);
}

static void
command_complete(void *owner, PGresult *last, const char *lost)
{
	DtxSnapshotServer *s = (DtxSnapshotServer *) owner;

	keep(&s->answer, s, last, lost);
}

static void
rollback_complete(void *owner, PGresult *last, const char *lost)
{
	DtxSnapshotServer *s = (DtxSnapshotServer *) owner;

	PQclear(last);
	if (lost != NULL)
		s->lost = true;
}

/*
 * Wait for all answers.  Returns false if that has taken until the deadline.  A lost
 * connection has answered.  Throws on interrupts.
 */
bool
DtxSnapshotAwait(DtxSnapshotServer *servers, int n, DtxMoment deadline)
{
	Waiting		w = {.servers = servers,.n = n};
	DtxWire   **wires = palloc(sizeof(DtxWire *) * Max(n, 1));
	DtxWait		wait = {
		.wires = wires,
		.nwires = n,
		.deadline = deadline,
		.wait_event = wait_event(),
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = all_answered,
		.arg = &w
	};
	DtxWaitEnd	end;

	for (int i = 0; i < n; i++)
		wires[i] = &servers[i].c->wire;
	end = DtxWireWait(&wait);
	pfree(wires);
	return end == DTX_WAIT_DONE;
}

static bool
all_answered(void *arg)
{
	const Waiting *w = (const Waiting *) arg;

	return DtxSnapshotFirstDue(w->servers, w->n) == NULL;
}

/* A server that has not answered yet, or NULL. */
const DtxSnapshotServer *
DtxSnapshotFirstDue(const DtxSnapshotServer *servers, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (!servers[i].c->wire.broken && DtxWireOwes(&servers[i].c->wire, &servers[i]))
			return &servers[i];
	}
	return NULL;
}

/*
 * What servers have answered must not be errors.  Throws the first one that is, with the
 * name of the server.
 */
void
DtxSnapshotCheckAnswers(DtxSnapshotServer *servers, int n)
{
	for (int i = 0; i < n; i++)
	{
		const DtxSnapshotServer *s = &servers[i];

		if (s->lost)
			continue;
		if (s->listed != NULL && (PQresultStatus(s->listed) != PGRES_TUPLES_OK ||
								  PQnfields(s->listed) != 1))
			throw_answer(s, s->listed);
		if (s->began != NULL && PQresultStatus(s->began) != PGRES_COMMAND_OK)
			throw_answer(s, s->began);
		if (s->answer != NULL && (PQresultStatus(s->answer) != PGRES_TUPLES_OK ||
								  PQnfields(s->answer) != 1 || PQntuples(s->answer) != 1))
			throw_answer(s, s->answer);
	}
}

static void
throw_answer(const DtxSnapshotServer *s, const PGresult *res)
{
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	char	   *message = DtxRemoteText(res, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = DtxRemoteText(res, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = DtxRemoteText(res, PG_DIAG_MESSAGE_HINT);

	ereport(ERROR,
			(errcode(sqlstate != NULL && strlen(sqlstate) == 5 ?
					 MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2], sqlstate[3], sqlstate[4]) :
					 ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("server \"%s\": %s", s->name, message != NULL ? message : "unexpected answer"),
			 detail != NULL ? errdetail_internal("%s", detail) : 0,
			 hint != NULL ? errhint("%s", hint) : 0));
}
