/*-------------------------------------------------------------------------
 *
 * run.c
 *		A remote command in the distributed transaction, on several servers at
 *		once.
 *
 * The commands run in the sessions of postgres_fdw, which stays the only owner
 * of connections: DtxFdwSessionOpen() has it open one, begin the remote
 * transaction, and go to the current level of subtransactions.  So what is done
 * here and what is done through foreign tables is one remote transaction, and
 * it ends as all others do (coordinator.c).
 *
 * One call is one round trip, in libpq's pipeline mode:
 *
 *		START TRANSACTION, if it was put off, and Flush
 *		give the session the remote role's own search_path and time zone
 *		the statements, one by one, with their parameters
 *		put back what postgres_fdw relies on
 *		Sync
 *
 * Statements go out by the extended protocol, which takes one at a time.  So a
 * text cannot smuggle in a COMMIT that we did not see, even if the server would
 * divide the text in another way than our parser.
 *
 * If a statement fails, its settings need not be put back: the transaction or
 * the subtransaction around it has to be rolled back, and that does it.
 *
 * If the connection is lost before the reply to START TRANSACTION is here, it was
 * dead before, as one that postgres_fdw replaces without a word: it is made anew, and
 * everything is sent again, once.
 *
 * An error that is thrown while results are due (a cancel, a value that cannot be
 * converted, a failure on another server) has to get the other servers out of
 * their commands.  A cancel request is lost on a server that is just between two
 * commands, and a pipeline has many such moments, so it is repeated (quiesce).
 * What does not end soon is left in the queue of the wire: postgres_fdw finds the
 * connection busy in its abort cleanup, cancels once more, and drains it through
 * the wrappers of interpose.c.  All of that works only if the Sync has been sent:
 * nothing throws between the first command and the Sync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "commit/connection.h"
#include "commit/fdw_session.h"
#include "commit/first.h"
#include "commit/participant.h"
#include "commit/put_off.h"
#include "exec/run.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "net/text.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "nodes/pg_list.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/*
 * Cancel requests are repeated after this time, doubled each time, and no longer
 * than that; milliseconds.  Then it is postgres_fdw's turn, which has half a
 * minute of patience.
 */
#define CANCEL_RETRY_MS		50
#define CANCEL_PATIENCE_MS	5000

/* Sockets looked at per WaitEventSetWait() call. */
#define EVENTS_AT_ONCE		16

/*
 * The role's own values, which are those that the session began with, until the
 * end of the transaction at the latest.  What decides how values are written
 * (DateStyle, IntervalStyle, extra_float_digits) stays as postgres_fdw has set
 * it: the text is read again here.
 *
 * SET takes no snapshot, unlike SELECT: a REPEATABLE READ transaction that locks a table
 * with its first command is to see what was committed until it got the lock.  READ ONLY,
 * however, is final only once there is a snapshot.
 */
static const char *const before_command[] = {
	"SET LOCAL search_path TO DEFAULT",
	"SET LOCAL TimeZone TO DEFAULT",

	/* Only if the local transaction is read-only. */
	"SELECT pg_catalog.set_config('transaction_read_only', 'on', true)"
};

/*
 * What postgres_fdw relies on (configure_remote_session in
 * contrib/postgres_fdw/connection.c), and what libpq does.  For the session,
 * because a SET in the command would otherwise come back at its end.  A NULL
 * stands for the value that the session began with (set_config_by_name in
 * utils/misc/guc.c).  "ISO" alone does not change the order of day and month, so
 * that is put back first.
 *
 * The role, too: who prepares a transaction owns it, and only its owner can
 * finish it.  The session's user comes first, because a change of it changes
 * the role.
 */
#define AFTER_COMMAND \
	"SELECT pg_catalog.set_config('session_authorization', NULL, false)," \
	" pg_catalog.set_config('role', NULL, false)," \
	" pg_catalog.set_config('search_path', 'pg_catalog', false)," \
	" pg_catalog.set_config('TimeZone', 'GMT', false)," \
	" pg_catalog.set_config('DateStyle', NULL, false)," \
	" pg_catalog.set_config('DateStyle', 'ISO', false)," \
	" pg_catalog.set_config('IntervalStyle', 'postgres', false)," \
	" pg_catalog.set_config('extra_float_digits', '3', false)," \
	" pg_catalog.set_config('client_encoding', '%s', false)"

/*
 * Before that, for the steps of sagas: the next transaction of the session may be
 * one of another saga, which must not find a default_transaction_read_only or a
 * statement_timeout that it does not know of, or wait for an advisory lock.
 */
static const char *const tidy_command[] = {
	"RESET ALL",
	"SELECT pg_catalog.pg_advisory_unlock_all()"
};

/* Before the statements, if they are not to wait long for locks: %d milliseconds. */
#define LOCK_TIMEOUT_COMMAND \
	"SELECT pg_catalog.set_config('lock_timeout', '%d', true)" \
	" WHERE pg_catalog.current_setting('lock_timeout') OPERATOR(pg_catalog.=) '0'"

/* What is waited for. */
typedef struct Waiting
{
	DtxExecution *executions;
	DtxWire   **wires;			/* theirs */
	int			n;
} Waiting;

/* Wait event, see DtxWaitEvent(). */
static uint32 we_remote_exec = 0;

static DtxConnection *open_session(DtxExecution *e);
static void server_context(void *arg);
static bool start(DtxExecution *e, const DtxRemoteCommand *command);
static void begin_anew(DtxExecution *e);
static void release_results(const Waiting *w);
static void let_go(const Waiting *w);
static void quiesce(const Waiting *w);
static bool nothing_runs(void *arg);
static DtxExecution *wait_for_results(const DtxRemoteCommand *command,
									  const Waiting *w, DtxRowSink *sink);
static bool any_is_readable(void *arg);
static const char *results_context(void *arg);
static bool take_results(DtxExecution *e, const DtxRemoteCommand *command,
						 DtxRowSink *sink);
static void take_result(DtxExecution *e, const DtxRemoteCommand *command,
						DtxRowSink *sink);
static void take_tag(DtxExecution *e);
static void finish(DtxExecution *e, const DtxRemoteCommand *command);
static void throw_lost(DtxExecution *e);
static void throw_remote(DtxExecution *e, const DtxRemoteCommand *command);

/*
 * Run a command on n servers at the same time, and give the rows of its last statement
 * to the sink, if there is one.  Returns when it has succeeded on all of them; throws
 * as soon as it has failed on one.  Remote errors keep their SQLSTATE, detail and hint,
 * and name the server.  Throws on interrupts, too.
 */
void
DtxRun(const DtxRemoteCommand *command, DtxExecution *executions, int n,
	   DtxRowSink *sink)
{
	Waiting		w = {.executions = executions,.n = n};

	if (we_remote_exec == 0)
		we_remote_exec = DtxWaitEvent("DtxRemoteExec");
	if (sink != NULL)
		sink->row_context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_dtx remote row",
												  ALLOCSET_DEFAULT_SIZES);

	w.wires = palloc(sizeof(DtxWire *) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		executions[i].c = open_session(&executions[i]);
		w.wires[i] = &executions[i].c->wire;
		for (int j = 0; j < i; j++)
		{
			if (executions[j].c == executions[i].c)
				ereport(ERROR,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("servers \"%s\" and \"%s\" have the same connection",
								executions[j].source.server,
								executions[i].source.server)));
		}
	}

	/* A function that looks at the rows may have postgres_fdw close one. */
	for (int i = 0; i < n; i++)
		DtxConnectionHold(executions[i].c);

	PG_TRY();
	{
		DtxExecution *lost = NULL;

		for (int i = 0; i < n; i++)
		{
			if (PQsocket(w.wires[i]->conn) < 0)
				begin_anew(&executions[i]);
		}

		/* Before anything is sent, because it may throw. */
		DtxWaitSetKeep(w.wires, n);
		for (int i = 0; i < n; i++)
		{
			if (!start(&executions[i], command))
				lost = &executions[i];
		}
		while (lost != NULL ||
			   (lost = wait_for_results(command, &w, sink)) != NULL)
		{
			begin_anew(lost);
			DtxWaitSetKeep(w.wires, n);
			if (!start(lost, command))
				throw_lost(lost);
			lost = NULL;
		}
	}
	PG_CATCH();
	{
		release_results(&w);
		quiesce(&w);
		let_go(&w);
		PG_RE_THROW();
	}
	PG_END_TRY();
	let_go(&w);
}

/*
 * Not all errors of postgres_fdw name the server.
 */
static DtxConnection *
open_session(DtxExecution *e)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = server_context,
		.arg = e
	};
	DtxConnection *c;

	error_context_stack = &callback;
	c = DtxFdwSessionOpen(e->serverid);
	error_context_stack = callback.previous;
	return c;
}

static void
server_context(void *arg)
{
	errcontext("remote command on server \"%s\"", ((DtxExecution *) arg)->source.server);
}

/*
 * After an error: libpq's memory is not freed with the transaction's.
 */
static void
release_results(const Waiting *w)
{
	for (int i = 0; i < w->n; i++)
	{
		PQclear(w->executions[i].result);
		PQclear(w->executions[i].error);
		w->executions[i].result = w->executions[i].error = NULL;
	}
}

/*
 * The command is over on all servers.
 */
static void
let_go(const Waiting *w)
{
	DtxWaitSetRelease();
	for (int i = 0; i < w->n; i++)
		DtxConnectionLetGo(w->executions[i].c);
}

/*
 * After an error: get the servers out of the commands that are still under way.
 * Takes a bounded time, whatever the servers do.
 */
static void
quiesce(const Waiting *w)
{
	DtxMoment	deadline = DtxIn(CANCEL_PATIENCE_MS);
	DtxMoment	next_cancel = 0;
	int			retry_ms = CANCEL_RETRY_MS;
	DtxWait		wait = {
		.wires = w->wires,
		.nwires = w->n,
		.wait_event = we_remote_exec,
		.interrupts = DTX_INTERRUPTS_DIE,
		.done = nothing_runs,
		.arg = (void *) w
	};

	for (int i = 0; i < w->n; i++)
	{
		DtxWire    *wire = w->wires[i];

		DtxWireDropReplies(wire);

		/*
		 * Interrupted in the middle of a message: the server waits for the
		 * rest of it, and no cancel would reach it.
		 */
		if (DtxWireExpects(wire, DTX_REPLY_DROPPED) && PQflush(wire->conn) != 0)
			DtxWireBreak(wire, "interrupted in the middle of a command");
	}

	while (!nothing_runs((void *) w) && !ProcDiePending && !DtxIsDue(deadline))
	{
		if (DtxIsDue(next_cancel))
		{
			for (int i = 0; i < w->n; i++)
			{
				if (DtxWireExpects(w->wires[i], DTX_REPLY_DROPPED))
					DtxWireCancel(w->wires[i], deadline, we_remote_exec);
			}
			next_cancel = DtxIn(retry_ms);
			retry_ms *= 2;
		}
		wait.deadline = Min(next_cancel, deadline);
		(void) DtxWireWait(&wait);
	}

	/* The next CHECK_FOR_INTERRUPTS() needs no latch, but others may. */
	SetLatch(MyLatch);
}

/*
 * Is no command under way any more?  Takes in what has arrived already.
 */
static bool
nothing_runs(void *arg)
{
	const Waiting *w = (const Waiting *) arg;
	bool		runs = false;

	for (int i = 0; i < w->n; i++)
	{
		DtxWirePump(w->wires[i]);
		runs |= DtxWireExpects(w->wires[i], DTX_REPLY_DROPPED);
	}
	return !runs;
}

/*
 * Send everything to a server, as far as it goes out without waiting.  Returns false
 * if that failed.
 */
static bool
start(DtxExecution *e, const DtxRemoteCommand *command)
{
	DtxConnection *c = e->c;
	PGconn	   *conn = c->wire.conn;
	StringInfoData after;
	int			nsettings = lengthof(before_command) - (XactReadOnly ? 0 : 1);
	int			nbefore = nsettings + (command->lock_timeout > 0 ? 1 : 0);
	char		lock_timeout[sizeof(LOCK_TIMEOUT_COMMAND) + 16];
	int			ntidy = command->tidy ? lengthof(tidy_command) : 0;
	ListCell   *lc;
	bool		ok;

	initStringInfo(&after);
	appendStringInfo(&after, AFTER_COMMAND, GetDatabaseEncodingName());

	strlcpy(e->start_command, c->put_off.start, DTX_START_SIZE);
	e->step = 1 - nbefore;

	/* From here to the Sync nothing may throw, see the head of the file. */
	if (!PQenterPipelineMode(conn))
		return false;
	DtxParticipantNoteUse(c->participant, false);

	/* What is lost under a long command is lost, and not begun anew. */
	c->put_off.prompt = true;
	ok = PQsetnonblocking(conn, 1) == 0 && DtxPutOffSend(&c->put_off, &c->wire) >= 0;
	DtxWireExpect(&c->wire, DTX_REPLY_READ,
				  nbefore + list_length(command->statements) + ntidy + 1);
	for (int i = 0; i < nsettings; i++)
	{
		ok = ok && PQsendQueryParams(conn, before_command[i], 0, NULL, NULL,
									 NULL, NULL, 0);
	}
	if (command->lock_timeout > 0)
	{
		snprintf(lock_timeout, sizeof(lock_timeout), LOCK_TIMEOUT_COMMAND,
				 command->lock_timeout);
		ok = ok && PQsendQueryParams(conn, lock_timeout, 0, NULL, NULL,
									 NULL, NULL, 0);
	}
	foreach(lc, command->statements)
	{
		ok = ok && PQsendQueryParams(conn, (const char *) lfirst(lc),
									 command->nparams, command->types,
									 command->params,
									 NULL, NULL, 0);
	}
	for (int i = 0; i < ntidy; i++)
	{
		ok = ok && PQsendQueryParams(conn, tidy_command[i], 0, NULL, NULL,
									 NULL, NULL, 0);
	}
	ok = ok &&
		PQsendQueryParams(conn, after.data, 0, NULL, NULL, NULL, NULL, 0) &&
		DtxWireSync(&c->wire) && PQflush(conn) >= 0;
	pfree(after.data);
	return ok;
}

/*
 * The connection of an execution is lost: make it anew, so that everything can be
 * sent again, if the server has done nothing of it.  Otherwise throws.
 */
static void
begin_anew(DtxExecution *e)
{
	DtxConnection *c = e->c;
	bool		sent = c->put_off.start[0] == '\0';
	bool		unused = !sent || DtxWireStartIsDue(&c->wire);

	/* Nobody knows what the server has got. */
	DtxWireBreak(&c->wire, "connection lost");
	if (!unused || e->anew)
		throw_lost(e);

	if (c->put_off.start[0] != '\0')
		strlcpy(e->start_command, c->put_off.start, DTX_START_SIZE);
	e->anew = true;
	PQclear(e->result);
	PQclear(e->error);
	e->result = e->error = NULL;
	DtxFirstReconnect(c, sent);
	strlcpy(c->put_off.start, e->start_command, DTX_START_SIZE);
}

/*
 * Take in the results of all.  Returns NULL when they are complete, or an execution
 * whose connection is lost.
 */
static DtxExecution *
wait_for_results(const DtxRemoteCommand *command, const Waiting *w,
				 DtxRowSink *sink)
{
	DtxWait		wait = {
		.wires = w->wires,
		.nwires = w->n,
		.deadline = DTX_NEVER,
		.wait_event = we_remote_exec,
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = any_is_readable,
		.context = results_context,
		.arg = (void *) w
	};
	int			due = 0;

	for (int i = 0; i < w->n; i++)
		due += w->executions[i].done ? 0 : 1;

	while (due > 0)
	{
		(void) DtxWireWait(&wait);
		for (int i = 0; i < w->n; i++)
		{
			DtxExecution *e = &w->executions[i];

			if (e->done)
			{
				/* It has nothing to say but that it dies. */
				if (PQstatus(e->c->wire.conn) == CONNECTION_BAD)
					throw_lost(e);
				continue;
			}
			if (!take_results(e, command, sink))
				return e;
			if (e->done)
			{
				finish(e, command);
				due--;
			}
		}
		CHECK_FOR_INTERRUPTS();
	}
	return NULL;
}

/* Is there anything to be looked at? */
static bool
any_is_readable(void *arg)
{
	const Waiting *w = (const Waiting *) arg;

	for (int i = 0; i < w->n; i++)
	{
		if (w->executions[i].done ?
			PQstatus(w->wires[i]->conn) == CONNECTION_BAD :
			DtxWireIsReadable(w->wires[i]))
			return true;
	}
	return false;
}

static const char *
results_context(void *arg)
{
	const Waiting *w = (const Waiting *) arg;
	StringInfoData servers;

	initStringInfo(&servers);
	for (int i = 0; i < w->n; i++)
	{
		if (!w->executions[i].done)
			appendStringInfo(&servers, "%s\"%s\"", servers.len > 0 ? ", " : "",
							 w->executions[i].source.server);
	}
	return psprintf("waiting for remote commands on %s", servers.data);
}

/*
 * Take the results that are here.  Returns false if the connection is lost.
 */
static bool
take_results(DtxExecution *e, const DtxRemoteCommand *command, DtxRowSink *sink)
{
	DtxWire    *wire = &e->c->wire;

	while (!e->done)
	{
		CHECK_FOR_INTERRUPTS();
		switch (DtxWireRead(wire, &e->result))
		{
			case DTX_READ_NOT_YET:
				return true;
			case DTX_READ_LOST:
				return false;
			case DTX_READ_NEXT:
				e->step++;

				/* If it does not take effect, all rows come at once. */
				if (e->step >= 1 && e->step <= list_length(command->statements))
					(void) PQsetSingleRowMode(wire->conn);
				break;
			case DTX_READ_RESULT:
				take_result(e, command, sink);
				PQclear(e->result);
				e->result = NULL;
				break;
			case DTX_READ_COMPLETE:
				e->done = true;
				break;
		}
	}
	return true;
}

static void
take_result(DtxExecution *e, const DtxRemoteCommand *command, DtxRowSink *sink)
{
	int			nstatements = list_length(command->statements);
	bool		is_statement = e->step >= 1 && e->step <= nstatements;
	bool		is_last = e->step == nstatements;	/* never 0 */

	switch (PQresultStatus(e->result))
	{
		case PGRES_SINGLE_TUPLE:
		case PGRES_TUPLES_OK:
			if (is_last && sink != NULL)
				sink->rows(sink, &e->source, e->result);
			if (is_statement && PQresultStatus(e->result) == PGRES_TUPLES_OK)
				take_tag(e);
			break;

		case PGRES_COMMAND_OK:
			if (is_statement)
				take_tag(e);
			if (is_last && sink != NULL && !sink->optional &&
				e->problem == DTX_NO_PROBLEM)
				e->problem = DTX_NO_RESULT_SET;
			break;

		case PGRES_FATAL_ERROR:
			if (e->error == NULL)
			{
				e->error = e->result;
				e->error_step = e->step;
				e->result = NULL;
			}
			break;

		case PGRES_EMPTY_QUERY:
		case PGRES_NONFATAL_ERROR:
		case PGRES_PIPELINE_ABORTED:
			break;

		default:
			/* COPY was refused, so the server is not what it seems */
			DtxWireBreak(&e->c->wire, "unexpected reply");
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("unexpected reply from server \"%s\" to a remote command",
							e->source.server)));
	}
}

/*
 * Look at the tag of a statement that has succeeded.
 */
static void
take_tag(DtxExecution *e)
{
	static const char *const control[] = {
		"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT",
		"RELEASE", "PREPARE TRANSACTION", "COMMIT PREPARED", "ROLLBACK PREPARED"
	};
	static const char *const writes[] = {
		"INSERT ", "UPDATE ", "DELETE ", "MERGE "
	};
	DtxParticipant *p = e->c->participant;	/* NULL if postgres_fdw has closed
											 * it */
	const char *tag = PQcmdStatus(e->result);
	char	   *tuples = PQcmdTuples(e->result);
	int64		count = tuples[0] != '\0' ? strtoll(tuples, NULL, 10) : 0;

	for (int i = 0; i < lengthof(control); i++)
	{
		if (strcmp(tag, control[i]) == 0)
			e->problem = DTX_TRANSACTION_CONTROL;
	}
	for (int i = 0; i < lengthof(writes); i++)
	{
		if (p != NULL && count > 0 &&
			strncmp(tag, writes[i], strlen(writes[i])) == 0)
			DtxParticipantNoteUse(p, true);
	}
	/* For all else the server is asked when the transaction commits. */

	e->affected_last = count;
	if (count > 0)
		e->affected += count;
}

/*
 * All results of a server are in: was it a success?
 */
static void
finish(DtxExecution *e, const DtxRemoteCommand *command)
{
	DtxWire    *wire = &e->c->wire;
	PGTransactionStatusType status = PQtransactionStatus(wire->conn);
	bool		lost = wire->broken;
	bool		ended;

	ended = e->problem == DTX_TRANSACTION_CONTROL ||
		status != (e->error != NULL ? PQTRANS_INERROR : PQTRANS_INTRANS);

	/* There is no going on with a session that has left its transaction. */
	if (ended)
		DtxWireBreak(wire, "the transaction was ended");

	if (e->error != NULL)
		throw_remote(e, command);
	if (lost)
		throw_lost(e);
	if (ended)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("remote command ended the transaction on server \"%s\"",
						e->source.server),
				 errdetail("The remote transaction is part of the local one, and ends with it.")));
	if (e->problem == DTX_NO_RESULT_SET)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("remote command returns no rows on server \"%s\"",
						e->source.server),
				 errhint("Add RETURNING, or use dtx.exec().")));
}

/*
 * The connection failed.
 */
static void
throw_lost(DtxExecution *e)
{
	char	   *detail = NULL;

	/* A server that closes a session may have said why. */
	if (e->error != NULL)
		detail = DtxRemoteText(e->error, PG_DIAG_MESSAGE_PRIMARY);
	if (detail == NULL && e->result != NULL)
		detail = DtxRemoteText(e->result, PG_DIAG_MESSAGE_PRIMARY);
	if (detail == NULL)
		detail = DtxCleanText(PQerrorMessage(e->c->wire.conn), DTX_MAX_REMOTE_TEXT);

	DtxWireBreak(&e->c->wire, "connection lost");
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection to server \"%s\" was lost", e->source.server),
			 detail[0] != '\0' ? errdetail_internal("%s", detail) : 0));
}

/*
 * Pass on the error that the server has reported.
 */
static void
throw_remote(DtxExecution *e, const DtxRemoteCommand *command)
{
	const char *sqlstate = PQresultErrorField(e->error, PG_DIAG_SQLSTATE);
	const char *position = PQresultErrorField(e->error, PG_DIAG_STATEMENT_POSITION);
	char	   *message = DtxRemoteText(e->error, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = DtxRemoteText(e->error, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = DtxRemoteText(e->error, PG_DIAG_MESSAGE_HINT);
	char	   *context = DtxRemoteText(e->error, PG_DIAG_CONTEXT);
	int			code = ERRCODE_CONNECTION_FAILURE;
	const char *statement = NULL;

	if (sqlstate != NULL && strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
		sqlstate[5] == '\0')
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
							 sqlstate[3], sqlstate[4]);
	if (e->error_step >= 1 && e->error_step <= list_length(command->statements))
		statement = list_nth(command->statements, e->error_step - 1);

	ereport(ERROR,
			(errcode(code),
			 errmsg("server \"%s\": %s", e->source.server,
					message ? message : "unknown error"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 statement ? internalerrquery(statement) : 0,
			 statement && position ? internalerrposition(atoi(position)) : 0,
			 DtxRemoteFields(e->error),
			 errcontext("remote command on server \"%s\"", e->source.server)));
}
