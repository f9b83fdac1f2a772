/*-------------------------------------------------------------------------
 *
 * participant.c
 *		One remote transaction, and the steps by which it is asked, prepared and
 *		finished.
 *
 * Every step is a command sent and a reply handled when it comes; the coordinator
 * decides which step comes next and does the waiting.  What a reply means is decided
 * here, in the handlers, which are called from the wire's DtxWirePump().
 *
 * A participant lives in a local transaction, not in its connection: that may be used
 * by the next transaction while the confirmation of this one is due.
 *
 * The functions that may be called after the local commit, and the handlers, do not
 * throw, and allocate nothing but what libpq takes from malloc.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/gid.h"
#include "base/guarded.h"
#include "commit/connection.h"
#include "commit/participant.h"
#include "commit/point_question.h"
#include "commit/prepare_question.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "net/protocol.h"
#include "net/round_trip.h"
#include "net/text.h"
#include "net/wire.h"
#include "state/flushed.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* What PREPARE TRANSACTION says on a server without the needed slots. */
#define SQLSTATE_PREPARE_DISABLED	"55000"
#define SQLSTATE_PREPARE_EXHAUSTED	"53200"

/* What COMMIT PREPARED says if there is no such prepared transaction. */
#define SQLSTATE_GONE	"42704"

/* What EXECUTE says if there is no such prepared statement. */
#define SQLSTATE_NO_STATEMENT	"26000"

/* What a server has answered without waiting for its synchronous standby. */
#define PREPARE_NOT_REPLICATED	"it is prepared, but the server has not waited until its synchronous standby has it"
#define COMMIT_NOT_REPLICATED	"it is committed, but the server has not waited until its synchronous standby has it"

#define SETTING		"pg_catalog.current_setting"

/* The name that all versions since 10 know. */
#define ASSIGNED_XID	"pg_catalog.txid_current_if_assigned()"

/* Which states may follow each state.  (Back to OPEN: DtxParticipantGiveBack.) */
#define TO(state)	(1 << DTX_PARTICIPANT_##state)

static const uint32 next_states[] PG_USED_FOR_ASSERTS_ONLY = {
	[DTX_PARTICIPANT_OPEN] = TO(ASKED) | TO(ENDING) | TO(DECIDING) | TO(PREPARING),
	[DTX_PARTICIPANT_ASKED] = TO(OPEN) | TO(FAILED),
	[DTX_PARTICIPANT_ENDING] = TO(ENDED) | TO(FAILED) | TO(OPEN),
	[DTX_PARTICIPANT_ENDED] = 0,
	[DTX_PARTICIPANT_DECIDING] = TO(DECIDED) | TO(FAILED),
	[DTX_PARTICIPANT_DECIDED] = 0,
	[DTX_PARTICIPANT_FAILED] = TO(OPEN),
	[DTX_PARTICIPANT_PREPARING] = TO(PREPARED) | TO(NOT_PREPARED) | TO(UNKNOWN),
	[DTX_PARTICIPANT_PREPARED] = TO(FINISHING) | TO(UNFINISHED),
	[DTX_PARTICIPANT_NOT_PREPARED] = 0,
	[DTX_PARTICIPANT_UNKNOWN] = TO(UNFINISHED),
	[DTX_PARTICIPANT_FINISHING] = TO(FINISHED) | TO(UNFINISHED),
	[DTX_PARTICIPANT_FINISHED] = 0,
	[DTX_PARTICIPANT_UNFINISHED] = 0
};

static void change_state(DtxParticipant *p, DtxParticipantState state);
static bool send_command(DtxParticipant *p, DtxParticipantState next,
						 const char *command, const DtxReplyHandler *handler);
static char *append(char *end, const char *text);
static void take_result(DtxParticipant *p, PGresult *last);
static void point_result(void *owner, const PGresult *result);
static void point_behind_complete(void *owner, PGresult *last, const char *lost);
static void point_complete(void *owner, PGresult *last, const char *lost);
static void question_complete(void *owner, PGresult *last, const char *lost);
static void answered(DtxParticipant *p, bool answer, const char *lost);
static void request_flush(const DtxParticipant *p);
static void tell_flushed(const DtxParticipant *p, uint64 lsn);
static void note_deallocated(DtxParticipant *p, const PGresult *result);
static void reader_complete(void *owner, PGresult *last, const char *lost);
static void decide_result(void *owner, const PGresult *result);
static void decide_complete(void *owner, PGresult *last, const char *lost);
static bool prepare_notice(void *owner, const PGresult *notice);
static void prepare_result(void *owner, const PGresult *result);
static void prepare_complete(void *owner, PGresult *last, const char *lost);
static bool finish_notice(void *owner, const PGresult *notice);
static void finish_complete(void *owner, PGresult *last, const char *lost);
static void followed_complete(void *owner, PGresult *last, const char *lost);
static bool may_be_warning(const PGresult *notice);
static bool confirms(const DtxParticipant *p, const PGresult *result);
static bool is_gone(const PGresult *result);
static bool is_error(const PGresult *result, const char *expected);
static bool is_row(const PGresult *result, int columns);
static void set_error(DtxParticipant *p, const char *fallback);

static const DtxReplyHandler point_behind_handler = {
	.result = point_result,
	.complete = point_behind_complete
};
static const DtxReplyHandler point_handler = {
	.result = point_result,
	.complete = point_complete
};
static const DtxReplyHandler question_handler = {.complete = question_complete};
static const DtxReplyHandler reader_handler = {.complete = reader_complete};
static const DtxReplyHandler decide_handler = {
	.notice = prepare_notice,
	.result = decide_result,
	.complete = decide_complete
};
static const DtxReplyHandler prepare_handler = {
	.notice = prepare_notice,
	.result = prepare_result,
	.complete = prepare_complete
};
static const DtxReplyHandler finish_handler = {
	.notice = finish_notice,
	.complete = finish_complete
};
static const DtxReplyHandler followed_handler = {
	.notice = finish_notice,
	.complete = followed_complete
};

/* ----------------------------------------------------------------
 * Life
 * ----------------------------------------------------------------
 */

/*
 * A remote transaction begins on a connection that has none.  In TopMemoryContext;
 * throws if out of memory.
 */
DtxParticipant *
DtxParticipantBegin(DtxConnection *c, int index,
					void (*replied) (DtxParticipant *p))
{
	DtxParticipant *p;

	DTX_ASSERT_MAY_THROW();
	Assert(c->participant == NULL);
	p = MemoryContextAllocZero(TopMemoryContext, sizeof(DtxParticipant));
	p->connection = c;
	p->index = index;
	p->state = DTX_PARTICIPANT_OPEN;
	p->replied = replied;
	c->participant = p;
	c->transactions++;
	return p;
}

/*
 * It is over, and in no list; no reply to it is due.  Does not throw.
 */
void
DtxParticipantFree(DtxParticipant *p)
{
	Assert(!DtxParticipantReplyDue(p));
	if (p->connection->participant == p)
		p->connection->participant = NULL;
	PQclear(p->result);
	pfree(p);
}

static void
change_state(DtxParticipant *p, DtxParticipantState state)
{
	Assert(next_states[p->state] & (1 << state));
	p->state = state;
}

/*
 * Is the remote transaction out of postgres_fdw's hands?
 */
bool
DtxParticipantIsOurs(const DtxParticipant *p)
{
	return p->state > DTX_PARTICIPANT_ASKED;
}

/*
 * Is the reply to a command of ours due?
 */
bool
DtxParticipantReplyDue(const DtxParticipant *p)
{
	return DtxWireOwes(&p->connection->wire, p);
}

/*
 * A command is about to be sent in the remote transaction; does it write for sure?
 * Anything else is asked at commit.
 */
void
DtxParticipantNoteUse(DtxParticipant *p, bool writes)
{
	p->use = DTX_USED;
	if (writes)
		p->writes = DTX_WROTE;
	else if (p->writes == DTX_READ)
		p->writes = DTX_WRITES_UNKNOWN;
}

/* ----------------------------------------------------------------
 * Steps
 * ----------------------------------------------------------------
 */

/*
 * Send a command whose reply goes to a handler.  Returns false if it could not be
 * sent.
 */
static bool
send_command(DtxParticipant *p, DtxParticipantState next, const char *command,
			 const DtxReplyHandler *handler)
{
	PQclear(p->result);
	p->result = NULL;
	change_state(p, next);
	if (DtxWireSend(&p->connection->wire, command, handler, p))
		return true;
	strlcpy(p->error, "could not send a command", sizeof(p->error));
	return false;
}

/* Write a text, with its NUL; returns the end.  (snprintf() takes as long as all else.) */
static char *
append(char *end, const char *text)
{
	size_t		len = strlen(text);

	memcpy(end, text, len + 1);
	return end + len;
}

/*
 * In a pipeline, behind a command of postgres_fdw that writes, and in front of the Sync:
 * ask what has to be known of a commit point (point_question.c).  The id is that of the
 * topmost level, which stays when a subtransaction is rolled back.  Returns false if it
 * could not be sent.
 */
bool
DtxParticipantAskPointBehind(DtxParticipant *p)
{
	DtxConnection *c = p->connection;
	bool		by_name = DtxConnectionMayPrepare(c);

	p->xid_asked = true;
	DtxRoundTripSent(&c->round_trip);
	return DtxWireSendBehind(&c->wire, DtxPointQuestion(),
							 by_name ? DTX_POINT_QUESTION_NAME : NULL,
							 by_name && !c->point_prepared,
							 &point_behind_handler, p);
}

/* The first record that carries the id is the one to be flushed soonest. */
static void
point_result(void *owner, const PGresult *result)
{
	DtxParticipant *p = (DtxParticipant *) owner;
	uint64		xid;
	DtxWalOf	wal;

	if (PQresultStatus(result) == PGRES_COMMAND_OK)
		p->connection->point_prepared = true;
	if (!is_row(result, DTX_POINT_QUESTION_COLUMNS))
		return;
	xid = DtxNumberParse(PQgetvalue(result, 0, 0), PG_INT64_MAX);
	if (p->xid_lsn == 0 || xid != p->remote_xid)
		p->xid_lsn = DtxLsnParse(PQgetvalue(result, 0, 1));
	p->remote_xid = xid;
	wal = DtxEndpointWal(&p->connection->endpoint);
	p->requests_seen = DtxFlushedRequests(&wal);
	tell_flushed(p, DtxLsnParse(PQgetvalue(result, 0, 2)));
}

/* If the command has failed there is no answer, and none is needed. */
static void
point_behind_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	note_deallocated(p, last);
	if (lost == NULL)
		DtxRoundTripReplied(&p->connection->round_trip);
	PQclear(last);
}

/*
 * Ask an open remote transaction the same, in a round trip of its own; where that can be
 * had the WAL is flushed by it.  Returns false if sending failed.
 */
bool
DtxParticipantAskPoint(DtxParticipant *p)
{
	if (send_command(p, DTX_PARTICIPANT_ASKED,
					 DtxParticipantPointFlushes(p) ?
					 DtxPointQuestionFlushed() : DtxPointQuestion(), &point_handler))
		return true;
	change_state(p, DTX_PARTICIPANT_FAILED);
	return false;
}

/*
 * Does that question flush the WAL of its server?
 */
bool
DtxParticipantPointFlushes(const DtxParticipant *p)
{
	return PQserverVersion(p->connection->wire.conn) >= 170000;
}

static void
point_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	take_result(p, last);
	answered(p, is_row(last, DTX_POINT_QUESTION_COLUMNS), lost);
}

/* Its server has told that its WAL is on disk up to there.  0: it has not. */
static void
tell_flushed(const DtxParticipant *p, uint64 lsn)
{
	DtxWalOf	wal = DtxEndpointWal(&p->connection->endpoint);

	p->connection->told_lsn = Max(p->connection->told_lsn, lsn);
	DtxFlushedTell(&wal, lsn);
}

/* A command is about to be sent that has its server flush its WAL. */
static void
request_flush(const DtxParticipant *p)
{
	DtxWalOf	wal = DtxEndpointWal(&p->connection->endpoint);

	DtxFlushedRequested(&wal);
}

/*
 * Has another session sent a command since the id of the remote transaction was told that
 * will have it flushed, and is about to tell?
 */
bool
DtxParticipantFlushIsDue(const DtxParticipant *p)
{
	DtxWalOf	wal = DtxEndpointWal(&p->connection->endpoint);

	return p->xid_lsn != 0 && DtxFlushedRequests(&wal) > p->requests_seen;
}

/*
 * Has another session told more of the WAL of its server than this one?
 */
bool
DtxParticipantOthersTell(const DtxParticipant *p)
{
	DtxWalOf	wal = DtxEndpointWal(&p->connection->endpoint);

	return DtxFlushedCovers(&wal, p->connection->told_lsn + 1);
}

/* A function may have deallocated the questions: never by name again. */
static void
note_deallocated(DtxParticipant *p, const PGresult *result)
{
	if (DtxConnectionMayPrepare(p->connection) &&
		is_error(result, SQLSTATE_NO_STATEMENT))
		DtxConnectionForgetQuestion(p->connection, true);
}

/*
 * Ask an open remote transaction whether it wrote.  A server that can't tell
 * counts as a writer, and nothing is sent.  Returns false if sending failed.
 */
bool
DtxParticipantAsk(DtxParticipant *p)
{
	if (PQserverVersion(p->connection->wire.conn) < 100000)
	{
		p->writes = DTX_WROTE;
		return true;
	}

	/*
	 * A server that is a coordinator itself has no transaction id if it wrote
	 * on other servers only.  It counts as a writer, and PREPARE will fail:
	 * better than to commit there before the others have prepared.
	 */
	if (send_command(p, DTX_PARTICIPANT_ASKED,
					 "SELECT " ASSIGNED_XID ", COALESCE(" SETTING "('pg_dtx.wrote_elsewhere', true), '')"
					 " OPERATOR(pg_catalog.=) 'on'", &question_handler))
		return true;
	change_state(p, DTX_PARTICIPANT_FAILED);
	return false;
}

static void
question_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	take_result(p, last);
	if (lost == NULL && is_row(last, 2))
	{
		/* anything but a clear no */
		p->remote_xid = DtxNumberParse(PQgetvalue(last, 0, 0), PG_INT64_MAX);
		if (p->writes != DTX_WROTE)
			p->writes = !PQgetisnull(last, 0, 0) ||
				strcmp(PQgetvalue(last, 0, 1), "f") != 0 ? DTX_WROTE : DTX_READ;
	}
	answered(p, is_row(last, 2), lost);
}

/* It has answered a question, if "answer". */
static void
answered(DtxParticipant *p, bool answer, const char *lost)
{
	if (lost == NULL && answer)
		change_state(p, DTX_PARTICIPANT_OPEN);
	else
	{
		set_error(p, lost ? lost : "unexpected reply");
		change_state(p, DTX_PARTICIPANT_FAILED);
	}
	p->replied(p);
}

/*
 * Commit an open remote transaction that did not write, in one phase.  Returns false
 * if sending failed.
 */
bool
DtxParticipantCommitReader(DtxParticipant *p)
{
	if (send_command(p, DTX_PARTICIPANT_ENDING, "COMMIT TRANSACTION",
					 &reader_handler))
		return true;
	change_state(p, DTX_PARTICIPANT_FAILED);
	return false;
}

static void
reader_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	take_result(p, last);

	/*
	 * The server answers COMMIT in a failed transaction with success and the
	 * tag ROLLBACK.
	 */
	if (lost == NULL && PQresultStatus(last) == PGRES_COMMAND_OK &&
		strcmp(PQcmdStatus(last), "COMMIT") == 0)
		change_state(p, DTX_PARTICIPANT_ENDED);
	else
	{
		set_error(p, lost ? lost : "transaction was rolled back by the server");
		change_state(p, DTX_PARTICIPANT_FAILED);
	}
	p->replied(p);
}

/*
 * The remote transaction is the commit point, and all others are prepared: commit it.
 * Its commit record is the decision, so it has to be on disk when the server answers,
 * whatever synchronous_commit is there; and if the server does not wait until its
 * synchronous standby has it, it has to say so (prepare_notice).  Both is seen to in the
 * same message, when deferred triggers have run, which may change settings.
 *
 * Returns false if the command could not be sent; part of it may have reached the
 * server.
 */
bool
DtxParticipantDecide(DtxParticipant *p)
{
	DtxConnection *c = p->connection;
	char		command[DTX_CLOSES_SIZE + DTX_POINT_COMMIT_SIZE];
	int			len;

	p->not_replicated = p->commit_seen = false;
	p->end_lsn = 0;
	if (c->put_off.ncloses == 0 && DtxConnectionHasCommands(c))
	{
		PQclear(p->result);
		p->result = NULL;
		change_state(p, DTX_PARTICIPANT_DECIDING);
		request_flush(p);
		if (DtxWireSendNames(&c->wire, DtxPointCommitNames, DTX_POINT_COMMIT_NAMES,
							 &decide_handler, p))
			return true;
		strlcpy(p->error, "could not send a command", sizeof(p->error));
		return false;
	}
	len = DtxPutOffCloses(&c->put_off, command, sizeof(command));
	strlcpy(command + len, DtxPointCommit(DtxConnectionHasQuestion(c)),
			sizeof(command) - len);
	request_flush(p);
	return send_command(p, DTX_PARTICIPANT_DECIDING, command, &decide_handler);
}

/* What comes after that, such as an error of the statistics, does not undo it. */
static void
decide_result(void *owner, const PGresult *result)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	if (is_row(result, DTX_POINT_COMMIT_COLUMNS))
		p->end_lsn = DtxLsnParse(PQgetvalue(result, 0, 2));
	if (PQresultStatus(result) == PGRES_COMMAND_OK &&
		strcmp(PQcmdStatus(unconstify(PGresult *, result)), "COMMIT") == 0)
	{
		p->commit_seen = true;
		tell_flushed(p, p->end_lsn);
	}
}

/*
 * An error is a refusal only if the server goes on afterwards, and not if it is about
 * connections or a shutdown: a pooler in between may send errors of its own when it has
 * lost the server.
 */
static void
decide_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;
	PGconn	   *conn = p->connection->wire.conn;
	const char *sqlstate = PQresultErrorField(last, PG_DIAG_SQLSTATE);
	bool		over;

	take_result(p, last);
	over = lost == NULL && PQstatus(conn) == CONNECTION_OK &&
		(PQtransactionStatus(conn) == PQTRANS_IDLE ||
		 PQtransactionStatus(conn) == PQTRANS_INERROR);
	if (p->commit_seen)
		DtxParticipantDecided(p, true, !p->not_replicated);
	else if (over && ((sqlstate != NULL && strncmp(sqlstate, "08", 2) != 0 &&
					   strncmp(sqlstate, "57P", 3) != 0) ||
					  (PQresultStatus(last) == PGRES_COMMAND_OK &&
					   strcmp(PQcmdStatus(last), "ROLLBACK") == 0)))
	{
		set_error(p, "transaction was rolled back by the server");
		note_deallocated(p, last);
		DtxParticipantDecided(p, false, true);
	}
	else
		set_error(p, lost ? lost : "unexpected reply");
	p->replied(p);
}

/*
 * It is known whether the commit point has committed.  "replicated": as far as its
 * server waits for that?  Does not throw.
 */
void
DtxParticipantDecided(DtxParticipant *p, bool committed, bool replicated)
{
	p->not_replicated = !replicated;
	change_state(p, committed ? DTX_PARTICIPANT_DECIDED : DTX_PARTICIPANT_FAILED);
}

/*
 * Prepare an open remote transaction under a gid.  Returns false, in state UNKNOWN, if
 * the command could not be sent.
 *
 * What the second phase relies on is established in the same message, at the cost
 * of no round trip (prepare_question.c), when deferred triggers have run, so that it
 * finds the session as they have left it.  We are in a transaction block, so all of it
 * belongs to the transaction, and if something fails the rest is not executed.
 */
bool
DtxParticipantPrepare(DtxParticipant *p, const DtxGid *gid)
{
	DtxConnection *c = p->connection;
	char		gid_text[DTX_GID_SIZE];
	char		question[DTX_PREPARE_QUESTION_SIZE];
	char		command[DTX_CLOSES_SIZE + sizeof(DTX_PREPARE_HEAD) +
						DTX_PREPARE_QUESTION_SIZE + 2 * DTX_GID_SIZE + 64];
	char	   *end;
	int			len;

	p->gid = *gid;
	p->remote_xid = p->end_lsn = 0;
	p->not_replicated = false;
	DtxGidFormat(gid, gid_text);

	/* Deferred triggers may mind open cursors. */
	len = DtxPutOffCloses(&c->put_off, command, sizeof(command));
	DtxPrepareQuestion(&c->endpoint, DtxConnectionHasQuestion(c), question);
	end = append(append(command + len, DTX_PREPARE_HEAD), gid_text);
	end = append(append(append(end, " */; "), question), "; PREPARE TRANSACTION '");
	end = append(append(end, gid_text), "'");
	Assert(end < command + sizeof(command));
	request_flush(p);

	if (send_command(p, DTX_PARTICIPANT_PREPARING, command, &prepare_handler))
		return true;

	/* Part of it may have reached the server all the same. */
	change_state(p, DTX_PARTICIPANT_UNKNOWN);
	return false;
}

/*
 * A server whose wait for a synchronous standby was cut short, by a cancel, a
 * time-out or a termination, says so in a WARNING and then reports success
 * (replication/syncrep.c, SyncRepWaitForLSN).  Its text may be translated, and one
 * of its two SQLSTATEs is that of every warning.  PREPARE may bring warnings of
 * triggers as well, so it is recognized by the function that it comes from, which is
 * not translated.
 */
static bool
prepare_notice(void *owner, const PGresult *notice)
{
	DtxParticipant *p = (DtxParticipant *) owner;
	const char *function = PQresultErrorField(notice, PG_DIAG_SOURCE_FUNCTION);

	if (may_be_warning(notice) && function != NULL &&
		strcmp(function, "SyncRepWaitForLSN") == 0)
		p->not_replicated = true;
	return p->not_replicated;
}

static void
prepare_result(void *owner, const PGresult *result)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	if (PQresultStatus(result) == PGRES_TUPLES_OK &&
		PQnfields(result) == DTX_PREPARE_QUESTION_SHORT)
	{
		if (PQntuples(result) == 1)
		{
			p->remote_xid = DtxNumberParse(PQgetvalue(result, 0, 0), PG_INT64_MAX);
			p->end_lsn = DtxLsnParse(PQgetvalue(result, 0, 1));
		}
		else
			p->connection->put_off.reset = true;
		return;
	}
	if (!is_row(result, DTX_PREPARE_QUESTION_COLUMNS))
		return;
	p->remote_xid = DtxNumberParse(PQgetvalue(result, 0, 0), PG_INT64_MAX);
	p->end_lsn = DtxLsnParse(PQgetvalue(result, 0, 4));
	if (!PQgetisnull(result, 0, 2) || !PQgetisnull(result, 0, 3))
		p->connection->put_off.reset = true;
}

static void
prepare_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;
	DtxWire    *wire = &p->connection->wire;

	take_result(p, last);
	if (lost != NULL)
	{
		set_error(p, lost);
		change_state(p, DTX_PARTICIPANT_UNKNOWN);
	}
	else if (PQresultStatus(last) != PGRES_COMMAND_OK ||
			 strcmp(PQcmdStatus(last), "PREPARE TRANSACTION") != 0)
	{
		/* As with COMMIT only the tag is proof. */
		set_error(p, "transaction was rolled back by the server");
		note_deallocated(p, last);
		change_state(p, DTX_PARTICIPANT_NOT_PREPARED);

		/*
		 * If the command before PREPARE failed, the aborted transaction is
		 * still open.  Nobody is going to end it, so the connection can't be
		 * used again.
		 */
		if (PQtransactionStatus(wire->conn) != PQTRANS_IDLE)
			DtxWireBreak(wire, "transaction was rolled back by the server");
	}
	else if (p->not_replicated)
	{
		/*
		 * What a failover would lose must not be committed.  ROLLBACK
		 * PREPARED would wait for the same standby: the resolver knows how to
		 * do without.
		 */
		set_error(p, PREPARE_NOT_REPLICATED);
		change_state(p, DTX_PARTICIPANT_UNKNOWN);
	}
	else
	{
		change_state(p, DTX_PARTICIPANT_PREPARED);
		tell_flushed(p, p->end_lsn);
	}
	p->replied(p);
}

/*
 * Finish a prepared transaction.  "followed": other commands can be sent before the
 * reply has come; if that is not the confirmation they can't be relied on, and the
 * wire is broken.  Returns false, in state UNFINISHED, if sending failed.  Does not
 * throw.
 */
bool
DtxParticipantFinish(DtxParticipant *p, DtxDecision decision, bool followed)
{
	char		gid_text[DTX_GID_SIZE];
	char		command[DTX_GID_SIZE + 32];
	DtxWire    *wire = &p->connection->wire;

	DtxGidFormat(&p->gid, gid_text);
	(void) append(append(append(command, decision == DTX_COMMIT ?
								"COMMIT PREPARED '" : "ROLLBACK PREPARED '"),
						 gid_text), "'");
	p->decision = decision;
	p->proven = true;
	p->not_replicated = false;
	PQclear(p->result);
	p->result = NULL;
	if (followed ? DtxWireSendInPipeline(wire, command, &followed_handler, p) :
		DtxWireSend(wire, command, &finish_handler, p))
	{
		change_state(p, DTX_PARTICIPANT_FINISHING);
		return true;
	}
	strlcpy(p->error, "could not send a command", sizeof(p->error));
	change_state(p, DTX_PARTICIPANT_UNFINISHED);
	return false;
}

/*
 * It is not finished from here, but left to the resolver.  Does not throw.
 */
void
DtxParticipantLeaveUnfinished(DtxParticipant *p, DtxDecision decision,
							  const char *why)
{
	p->decision = decision;
	p->proven = false;
	if (why != NULL)
		strlcpy(p->error, why, sizeof(p->error));
	change_state(p, DTX_PARTICIPANT_UNFINISHED);
}

/*
 * COMMIT PREPARED runs nothing of a user's: any warning means that more is not known,
 * see prepare_notice().
 */
static bool
finish_notice(void *owner, const PGresult *notice)
{
	if (may_be_warning(notice))
		((DtxParticipant *) owner)->not_replicated = true;
	return true;
}

static void
finish_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;

	take_result(p, last);
	if (lost == NULL && confirms(p, last))
		change_state(p, DTX_PARTICIPANT_FINISHED);
	else
	{
		set_error(p, lost ? lost : p->not_replicated ? COMMIT_NOT_REPLICATED :
				  "unexpected reply");
		change_state(p, DTX_PARTICIPANT_UNFINISHED);
	}
	p->replied(p);
}

static void
followed_complete(void *owner, PGresult *last, const char *lost)
{
	DtxParticipant *p = (DtxParticipant *) owner;
	DtxWire    *wire = &p->connection->wire;

	/* What was sent after it may not have seen what it did. */
	if (lost == NULL && !confirms(p, last) && !is_gone(last) &&
		!(p->not_replicated && PQresultStatus(last) == PGRES_COMMAND_OK))
		DtxWireBreak(wire, "an earlier transaction was not confirmed");
	finish_complete(owner, last, lost);
}

/*
 * Is this the confirmation of what DtxParticipantFinish() has sent?  A rollback that a
 * failover of the server loses is done again.
 */
static bool
confirms(const DtxParticipant *p, const PGresult *result)
{
	return PQresultStatus(result) == PGRES_COMMAND_OK &&
		!(p->not_replicated && p->decision == DTX_COMMIT) &&
		strcmp(PQcmdStatus((PGresult *) result),
			   p->decision == DTX_COMMIT ?
			   "COMMIT PREPARED" : "ROLLBACK PREPARED") == 0;
}

/*
 * The transaction aborts before anything was prepared, or this one was refused as the
 * commit point: a command of ours that is still unanswered becomes one that
 * postgres_fdw cancels and reads, as it would one of its own.  Does not throw.
 */
void
DtxParticipantGiveBack(DtxParticipant *p)
{
	if (p->state != DTX_PARTICIPANT_ASKED && p->state != DTX_PARTICIPANT_ENDING &&
		p->state != DTX_PARTICIPANT_FAILED)
		return;
	DtxWireLeaveToReader(&p->connection->wire, p);
	change_state(p, DTX_PARTICIPANT_OPEN);
}

/* ----------------------------------------------------------------
 * Replies
 * ----------------------------------------------------------------
 */

/* The last result of a reply is kept for what is to be said of it. */
static void
take_result(DtxParticipant *p, PGresult *last)
{
	PQclear(p->result);
	p->result = last;
}

/*
 * Is this notice a WARNING?  Before 9.6 there is but the translated severity: any notice
 * counts then.
 */
static bool
may_be_warning(const PGresult *notice)
{
	const char *severity = PQresultErrorField(notice, PG_DIAG_SEVERITY_NONLOCALIZED);

	return severity == NULL || strcmp(severity, "WARNING") == 0;
}

/*
 * Does the reply to COMMIT PREPARED say that there is no such transaction?
 */
static bool
is_gone(const PGresult *result)
{
	return is_error(result, SQLSTATE_GONE);
}

static bool
is_error(const PGresult *result, const char *expected)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL && strcmp(sqlstate, expected) == 0;
}

/* Is this one row of so many columns? */
static bool
is_row(const PGresult *result, int columns)
{
	return PQresultStatus(result) == PGRES_TUPLES_OK &&
		PQntuples(result) == 1 && PQnfields(result) == columns;
}

/*
 * Keep the reason of a failure for the view and the warning: what the server
 * said, or else "fallback".  libpq's own texts, several lines long, are left to
 * DtxParticipantThrow().
 */
static void
set_error(DtxParticipant *p, const char *fallback)
{
	const char *message = NULL;
	int			len;

	if (PQresultErrorField(p->result, PG_DIAG_SQLSTATE) != NULL)
		message = PQresultErrorField(p->result, PG_DIAG_MESSAGE_PRIMARY);
	if (message == NULL || message[0] == '\0')
		message = fallback;

	/* It goes into a view: cut no character, and pass on no broken one. */
	len = strlen(message);
	len = Min(len, pg_mbcliplen(message, len, sizeof(p->error) - 1));
	memcpy(p->error, message, len);
	p->error[len] = '\0';
	if (!pg_verifymbstr(p->error, len, true))
	{
		for (int i = 0; i < len; i++)
		{
			if (IS_HIGHBIT_SET(p->error[i]))
				p->error[i] = '?';
		}
	}
}

/*
 * Report the failure of a participant as an ERROR with the server's name and
 * the remote SQLSTATE, message, detail and hint, and the names of a constraint and
 * the like.  "what" completes the sentence
 * "could not ...", and is already translated.  To be called before the local
 * commit.
 */
void
DtxParticipantThrow(DtxParticipant *p, const char *what)
{
	PGconn	   *conn = p->connection->wire.conn;
	const char *server = p->connection->endpoint.server_name;
	const char *sqlstate = PQresultErrorField(p->result, PG_DIAG_SQLSTATE);
	const char *detail = DtxRemoteText(p->result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = DtxRemoteText(p->result, PG_DIAG_MESSAGE_HINT);
	const char *context = DtxRemoteText(p->result, PG_DIAG_CONTEXT);
	int			code = ERRCODE_CONNECTION_FAILURE;

	DTX_ASSERT_MAY_THROW();
	if (sqlstate != NULL && strlen(sqlstate) == 5)
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
							 sqlstate[3], sqlstate[4]);
	else if (PQstatus(conn) == CONNECTION_OK)
		code = ERRCODE_TRANSACTION_ROLLBACK;
	else if (PQerrorMessage(conn)[0] != '\0')
		detail = DtxCleanText(PQerrorMessage(conn), DTX_MAX_REMOTE_TEXT);

	if (p->state == DTX_PARTICIPANT_NOT_PREPARED && sqlstate != NULL &&
		strcmp(sqlstate, SQLSTATE_PREPARE_DISABLED) == 0 &&
		PQserverVersion(conn) > 0 && hint != NULL &&
		strstr(hint, "max_prepared_transactions") != NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("could not %s on server \"%s\": %s",
						what, server, p->error),
				 errhint("On the server that \"%s\" connects to, set \"max_prepared_transactions\" to at least its \"max_connections\", and restart it.",
						 server)));
	if (p->state == DTX_PARTICIPANT_NOT_PREPARED && sqlstate != NULL &&
		strcmp(sqlstate, SQLSTATE_PREPARE_EXHAUSTED) == 0 &&
		hint != NULL && strstr(hint, "max_prepared_transactions") != NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("could not %s on server \"%s\": %s",
						what, server, p->error),
				 errdetail("%s", hint),
				 errhint("On the server that \"%s\" connects to, set \"max_prepared_transactions\" to at least its \"max_connections\", and restart it.",
						 server)));

	ereport(ERROR,
			(errcode(code),
			 errmsg("could not %s on server \"%s\": %s",
					what, server, p->error),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 DtxRemoteFields(p->result)));
}
