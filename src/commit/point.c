/*-------------------------------------------------------------------------
 *
 * point.c
 *		The commit point of a transaction: which node decides; and if that is a server,
 *		committing there, and finding out what became of it.
 *
 * Where nothing was written locally, the coordinator has no part in the transaction but
 * to drive it.  Then one of the servers decides: all others are prepared, under gids
 * that name its cluster and the id of its transaction there, and then that is committed
 * in one phase.  Its commit record is the decision.  The coordinator writes nothing; who
 * wants to know what was decided asks the server (txid_status()), and nothing else
 * counts.
 *
 * A transaction id that has not reached the disk when its server crashes is handed out
 * again.  So a server decides only if its WAL is known to be flushed up to a record that
 * carries the id (state/flushed.c) when the others are about to be prepared; then what the
 * server says of that id is the truth, whatever has crashed.  Other transactions flush that
 * WAL all the time where there are some, and what servers have told of it all sessions
 * know.  Where there are none the coordinator decides.
 *
 * It costs a round trip to that server alone, and saves the flush of a decision here and
 * a PREPARE and a COMMIT PREPARED there.  So it pays where the round trip is short.  The
 * server with the longest one is chosen: it is waited for once, the others twice.
 *
 * The id, and the position of such a record, are asked for behind the first command that
 * writes there, when another server takes part already, or is expected to, because this
 * session's last transaction wrote on several (DtxPointWantsXid): the earlier, the more
 * time there is for the flush.
 *
 * If the reply to COMMIT does not come, what became of it is asked on a new connection,
 * within the same PGconn.  If that cannot be found out, the transaction fails with an
 * error that says so, and the prepared ones are left to the resolver, which asks as
 * long as it takes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/connection.h"
#include "commit/participant.h"
#include "commit/point.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/ask_outcome.h"
#include "net/protocol.h"
#include "net/round_trip.h"
#include "net/text.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "state/activity.h"
#include "state/flushed.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/*
 * With a longer round trip to the server that would decide, microseconds, one more of
 * them is taken to cost more than what is saved, a flush and two commands.  An estimate.
 * Where it is measured (net/round_trip.c) the command that the server executes is in it.
 */
#define MAX_ROUND_TRIP_USEC	700

/*
 * Where no other session tells how far the WAL is on disk, or the answer has not helped so
 * often in a row, it is asked only in every so many transactions.
 */
#define MAX_MISSES	8
#define TRY_EVERY	64

/*
 * What is not known to be on disk is waited for if another session has sent a command that
 * flushes it; otherwise this one does, and others wait for it.  It is waited for as long as PREPARE and the decision take lately, milliseconds
 * within these limits.
 */
#define MIN_WAIT_MS	1
#define MAX_WAIT_MS	10

/* A round trip counts as longer than another one if it is by so much; microseconds. */
#define NOTICEABLE_USEC	200

/* How long a server has to answer after it was asked to cancel, milliseconds. */
#define CANCEL_WAIT_MS	1000

/* Pause between two questions what became of the transaction, milliseconds. */
#define ASK_PAUSE_MS	100

/* What is asked on a new connection, and told. */
typedef struct Answer
{
	uint64		timeline;
	uint64		system_id;
	DtxOutcome	outcome;
	bool		has_standbys;	/* synchronous ones */
} Answer;

/* The current transaction. */
static DtxTransaction *const t = &dtx_transaction;

/* Did the last transaction of this process that wrote on servers write on several? */
static bool wrote_on_several = false;

/* How long the first phase takes lately in this process, microseconds. */
static int64 first_phase_usec = 0;

static bool may_decide(const DtxParticipant *p);
static bool is_durable(const DtxParticipant *p);
static bool is_better_asked(const DtxParticipant *p, const DtxParticipant *other);
static int	round_trip(const DtxParticipant *p);
static DtxWaitEnd wait_for_reply(DtxMoment deadline);
static bool reply_is_in(void *arg);
static void find_out(const DtxDecider *decider);
static DtxOutcome ask_until(const DtxDecider *decider, DtxMoment deadline,
							Answer *answer, const char **why);
static void ask(DtxConnection *c, const DtxDecider *decider, Answer *answer,
				DtxMoment deadline);
static void answer_result(void *owner, const PGresult *result);
static void answer_complete(void *owner, PGresult *last, const char *lost);
static void warn_found_out(void *arg);

static const DtxReplyHandler answer_handler = {
	.result = answer_result,
	.complete = answer_complete
};

/* Wait event, see DtxWaitEvent(). */
static uint32
wait_event(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = DtxWaitEvent("DtxCommitPoint");
	return event;
}

/* ----------------------------------------------------------------
 * Which node decides?
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw is about to send a command that writes: is the id of the remote
 * transaction to be asked for behind it, because this server may become the commit
 * point?  Once per remote transaction, and only of one server, unless another one is
 * better.
 */
bool
DtxPointWantsXid(const DtxParticipant *p)
{
	dlist_iter	iter;

	if (dtx_commit_point == DTX_POINT_COORDINATOR || p->xid_asked ||
		p->remote_xid != 0 || p->writes != DTX_WROTE ||
		p->state != DTX_PARTICIPANT_OPEN || !dtx_two_phase_commit ||
		!p->connection->extension_seen ||
		TransactionIdIsValid(GetTopTransactionIdIfAny()) ||
		IsolationIsSerializable() ||
		(DtxTransactionParticipants() < 2 && !wrote_on_several) || !may_decide(p))
		return false;
	if (dtx_commit_point == DTX_POINT_AUTO &&
		(p->connection->point_misses >= MAX_MISSES || !DtxParticipantOthersTell(p)) &&
		p->connection->transactions % TRY_EVERY != 0)
		return false;

	dlist_foreach(iter, &t->participants)
	{
		const DtxParticipant *other = DTX_PARTICIPANT(iter);

		if (other->xid_asked && may_decide(other) &&
			round_trip(p) < round_trip(other) + NOTICEABLE_USEC)
			return false;
	}
	return true;
}

/*
 * Can a server decide, as far as its connection goes?  It has to be told apart from all
 * others, and so from what it will be after a failover, and has to know what becomes of
 * its transactions, and to tell how far they are on its disk.
 */
static bool
may_decide(const DtxParticipant *p)
{
	const DtxConnection *c = p->connection;

	if (c->endpoint.system_id == 0 || c->endpoint.timeline == 0 ||
		c->endpoint.run == 0 || !c->endpoint.may_ask_wal ||
		c->wire.broken || c->closed_by_fdw ||
		PQserverVersion(c->wire.conn) < 100000)
		return false;
	return dtx_commit_point == DTX_POINT_SERVER ||
		round_trip(p) <= MAX_ROUND_TRIP_USEC;
}

/*
 * Is the id of the remote transaction known, and known to be on the disk of its server?
 */
static bool
is_durable(const DtxParticipant *p)
{
	DtxWalOf	wal = DtxEndpointWal(&p->connection->endpoint);

	return p->remote_xid != 0 && DtxFlushedCovers(&wal, p->xid_lsn);
}

/*
 * None is: is it better to ask or wait for this one than for another one?  From version 17
 * on the question has the id written to disk; and what was asked before has had more time.
 */
static bool
is_better_asked(const DtxParticipant *p, const DtxParticipant *other)
{
	if (dtx_commit_point == DTX_POINT_SERVER &&
		DtxParticipantPointFlushes(p) != DtxParticipantPointFlushes(other))
		return DtxParticipantPointFlushes(p);
	return other->xid_lsn == 0 && p->xid_lsn != 0;
}

/*
 * A transaction that wrote on one server at most is about to commit.
 */
void
DtxPointNotNeeded(void)
{
	wrote_on_several = false;
}

/*
 * The first phase has taken so long, microseconds.  Does not throw.
 */
void
DtxPointFirstPhaseTook(int64 usec)
{
	first_phase_usec += (usec - first_phase_usec) / 8;
}

/*
 * The server that is to decide about a transaction that wrote on several, and not here:
 * the writer with the longest round trip among those that may and whose transaction id
 * is known to be on its disk.  NULL: the coordinator, unless *ask is set to one that may
 * decide if it is asked once more, which costs a round trip.  Throws what
 * DtxConnectionIdentify() throws.
 */
DtxParticipant *
DtxPointChoose(DtxParticipant **ask)
{
	DtxParticipant *best = NULL;
	DtxParticipant *next = NULL;
	dlist_iter	iter;

	DTX_ASSERT_MAY_THROW();
	*ask = NULL;
	wrote_on_several = true;
	if (dtx_commit_point == DTX_POINT_COORDINATOR)
		return NULL;
	dlist_foreach(iter, &t->participants)
	{
		DtxParticipant *p = DTX_PARTICIPANT(iter);

		DtxConnectionIdentify(p->connection);
		if (p->writes != DTX_WROTE || !may_decide(p) ||
			!DtxEndpointIsKnown(&p->connection->endpoint))
			continue;
		if (is_durable(p) &&
			(best == NULL || round_trip(p) > round_trip(best) + NOTICEABLE_USEC))
			best = p;
		if (next == NULL || is_better_asked(p, next))
			next = p;
	}

	if (best == NULL && next != NULL)
	{
		DtxWalOf	wal = DtxEndpointWal(&next->connection->endpoint);

		if (DtxParticipantFlushIsDue(next) &&
			DtxFlushedWait(&wal, next->xid_lsn,
						   Min(MAX_WAIT_MS, MIN_WAIT_MS + first_phase_usec / 1000)))
			best = next;
		else if (dtx_commit_point == DTX_POINT_SERVER)
			*ask = next;
		else if (next->xid_lsn != 0)
			next->connection->point_misses++;
	}
	if (best != NULL)
		best->connection->point_misses = 0;
	return best;
}

/* The round trip of a participant's connection, microseconds; 0: not known. */
static int
round_trip(const DtxParticipant *p)
{
	return DtxRoundTripUsec(&p->connection->round_trip, p->connection->wire.conn);
}

/* What the gids of the other participants say of it. */
DtxDecider
DtxPointDecider(const DtxParticipant *p)
{
	const DtxConnectionEndpoint *e = &p->connection->endpoint;
	DtxDecider	decider = {
		.system_id = e->system_id,
		.timeline = e->timeline,
		.xid = p->remote_xid,
		.lsn = p->xid_lsn,
		.serverid = e->serverid
	};

	return decider;
}

/* ----------------------------------------------------------------
 * The decision
 * ----------------------------------------------------------------
 */

/*
 * All other writers are prepared: commit on the server that decides.  On return it has
 * committed, and interrupts are held until the local commit (or until an error, which
 * lets go of them: elog.c, errfinish).  Throws otherwise.
 */
void
DtxPointDecide(const DtxDecider *decider)
{
	DtxParticipant *p = t->point;
	DtxWire    *wire = &p->connection->wire;
	DtxWaitEnd	end = DTX_WAIT_DONE;
	bool		cancel_pending;

	DTX_FAULT("point-commit-before", wire->conn);
	CHECK_FOR_INTERRUPTS();
	if (wire->broken || PQstatus(wire->conn) != CONNECTION_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						p->connection->endpoint.server_name),
				 errdetail("The transaction on that server cannot be committed.")));
	DtxActivitySetState(DTX_DECIDING, 0);
	if (DtxParticipantDecide(p))
	{
		DtxActivitySetWaiting(p->index, true);
		DTX_FAULT("point-commit-sent", wire->conn);
		end = wait_for_reply(DtxIn(dtx_prepare_timeout));
		if (end != DTX_WAIT_DONE && end != DTX_WAIT_TERMINATED)
		{
			/* It may wait for a lock, or for its standby: it is not to go on. */
			DtxWireCancel(wire, DtxIn(CANCEL_WAIT_MS), wait_event());
			(void) wait_for_reply(DtxIn(CANCEL_WAIT_MS));
		}
		if (DtxParticipantReplyDue(p))
			DtxWireBreak(wire, "no reply");
	}

	/*
	 * A request to terminate is not kept waiting; one to cancel is, see
	 * below.
	 */
	if (ProcDiePending)
		CHECK_FOR_INTERRUPTS();
	cancel_pending = QueryCancelPending;
	QueryCancelPending = false;
	if (p->state == DTX_PARTICIPANT_DECIDING)
		find_out(decider);
	if (p->state == DTX_PARTICIPANT_FAILED && end == DTX_WAIT_DEADLOCK)
		DtxWireThrowDeadlock(psprintf("waiting for server \"%s\" to commit",
									  p->connection->endpoint.server_name));
	if (p->state == DTX_PARTICIPANT_FAILED)
		DtxParticipantThrow(p, "commit transaction");
	Assert(p->state == DTX_PARTICIPANT_DECIDED);
	HOLD_INTERRUPTS();
	if (cancel_pending)
		QueryCancelPending = InterruptPending = true;	/* after the commit */
	DtxStatsAdd(DTX_STAT_AT_SERVER, 1);
	DTX_FAULT("point-decided", wire->conn);
}

/*
 * Wait for the reply.  Interrupts end the wait; they do not throw, because what has to
 * be done then depends on what has become of the COMMIT.
 */
static DtxWaitEnd
wait_for_reply(DtxMoment deadline)
{
	DtxWait		wait = {
		.wires = t->wires,
		.nwires = DtxTransactionWires(),
		.deadline = deadline,
		.wait_event = wait_event(),
		.interrupts = DTX_INTERRUPTS_END_IT,
		.for_locks = true,
		.done = reply_is_in
	};

	return DtxWireWait(&wait);
}

static bool
reply_is_in(void *arg)
{
	return !DtxParticipantReplyDue(t->point);
}

/*
 * What the decision is, as far as this session knows: what is to become of those that
 * are prepared if the local transaction aborts now.
 */
DtxDecision
DtxPointDecision(void)
{
	if (t->point == NULL)
		return DTX_ROLLBACK;
	switch (t->point->state)
	{
		case DTX_PARTICIPANT_DECIDING:
			return DTX_UNDECIDED;
		case DTX_PARTICIPANT_DECIDED:
			return DTX_COMMIT;
		default:
			return DTX_ROLLBACK;
	}
}

/* ----------------------------------------------------------------
 * No reply
 * ----------------------------------------------------------------
 */

/*
 * The reply to COMMIT has not come: find out what has become of the transaction, for
 * "pg_dtx.commit_timeout" at most.  On return that is known, and the client is warned if
 * it was committed.  Throws otherwise.
 */
static void
find_out(const DtxDecider *decider)
{
	DtxParticipant *p = t->point;
	const char *server = p->connection->endpoint.server_name;
	const char *why = NULL;
	Answer		answer;

	DTX_FAULT("point-commit-lost", p->connection->wire.conn);
	switch (ask_until(decider, DtxIn(dtx_commit_timeout), &answer, &why))
	{
		case DTX_OUTCOME_COMMITTED:
			/* Has its standby got it?  The resolver knows how to find out. */
			DtxParticipantDecided(p, true, !answer.has_standbys);
			(void) DtxGuarded(warn_found_out, unconstify(char *, server));
			break;
		case DTX_OUTCOME_ABORTED:
			DtxParticipantDecided(p, false, true);
			ereport(ERROR,
					(errcode(ERRCODE_CONNECTION_FAILURE),
					 errmsg("connection to server \"%s\" was lost during COMMIT",
							server),
					 errdetail("The transaction was rolled back there, and is rolled back on all other servers."),
					 errhint("Try the transaction again.")));
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN),
					 errmsg("could not find out whether the transaction has committed on server \"%s\"",
							server),
					 why != NULL ?
					 errdetail("The connection was lost during COMMIT, and then: %s", why) :
					 errdetail("The connection was lost during COMMIT, and there was no answer within %d ms (\"pg_dtx.commit_timeout\").",
							   dtx_commit_timeout),
					 errhint("That server decides about the transaction. The others are prepared, and follow it when it can be asked; view \"dtx.in_doubt\" shows them.")));
	}
}

/*
 * To be called by DtxGuarded().
 */
static void
warn_found_out(void *arg)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("connection to server \"%s\" was lost during COMMIT, and the transaction has committed there",
					(const char *) arg)));
}

/*
 * Ask until there is an answer that stays as it is, or it is too late.  Does not throw
 * but on a request to terminate; a request to cancel ends it.  *why: what has kept it
 * from being found out, if that is known, in the current memory context.
 */
static DtxOutcome
ask_until(const DtxDecider *decider, DtxMoment deadline, Answer *answer,
		  const char **why)
{
	MemoryContext cxt = CurrentMemoryContext;
	DtxConnection *c = t->point->connection;
	ErrorData  *volatile error = NULL;
	volatile int future = 0;

	memset(answer, 0, sizeof(*answer));
	PG_TRY();
	{
		while (!DtxIsDue(deadline))
		{
			*why = NULL;
			if (DtxConnectionRenew(c, deadline))
				ask(c, decider, answer, deadline);
			else if (PQerrorMessage(c->wire.conn)[0] != '\0')
				*why = DtxCleanText(PQerrorMessage(c->wire.conn),
									DTX_MAX_REMOTE_TEXT);

			/* In progress: its backend has been told to end. */
			if (answer->outcome == DTX_OUTCOME_COMMITTED ||
				answer->outcome == DTX_OUTCOME_ABORTED ||
				answer->outcome == DTX_OUTCOME_TRUNCATED ||
				(answer->outcome == DTX_OUTCOME_FUTURE && future++ > 0))
				break;
			DtxWirePause(ASK_PAUSE_MS, wait_event());
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		DtxWireBreak(&c->wire, "interrupted");
	}
	PG_END_TRY();

	if (error != NULL)
	{
		*why = error->message;
		return DTX_OUTCOME_NOT_TOLD;
	}
	if (answer->outcome == DTX_OUTCOME_NOT_TOLD)
		return DTX_OUTCOME_NOT_TOLD;

	/* Any other one may have given the same id to a transaction of its own. */
	if (answer->system_id != decider->system_id ||
		answer->timeline != decider->timeline)
	{
		*why = "the server is another cluster now, or on another timeline";
		return DTX_OUTCOME_NOT_TOLD;
	}
	if (answer->outcome == DTX_OUTCOME_FUTURE ||
		answer->outcome == DTX_OUTCOME_TRUNCATED)
	{
		*why = "the server does not know the transaction any more";
		return DTX_OUTCOME_NOT_TOLD;
	}
	return answer->outcome;
}

/*
 * Ask on a new connection; and if the transaction is in progress, and that is ours, end
 * its backend.  Throws on interrupts.
 */
static void
ask(DtxConnection *c, const DtxDecider *decider, Answer *answer,
	DtxMoment deadline)
{
	char		sql[4096];

	snprintf(sql, sizeof(sql),
			 DTX_IDENTIFY "; "
			 "SELECT " DTX_ASK_OUTCOME("u.x") ", "
			 "pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) '', "
			 "(SELECT pg_catalog.count(pg_catalog.pg_terminate_backend(a.pid))"
			 " FROM pg_catalog.pg_stat_activity AS a"
			 " WHERE a.backend_xid::pg_catalog.text OPERATOR(pg_catalog.=) '%u'"
			 " AND a.usename OPERATOR(pg_catalog.=) current_user), NULL "
			 "FROM (VALUES (" UINT64_FORMAT "::pg_catalog.int8)) AS u(x)",
			 (uint32) decider->xid, decider->xid);
	answer->outcome = DTX_OUTCOME_NOT_TOLD;
	if (DtxWireSend(&c->wire, sql, &answer_handler, answer) &&
		!DtxConnectionAwait(c, deadline))
		DtxWireBreak(&c->wire, "no reply");
}

static void
answer_result(void *owner, const PGresult *result)
{
	Answer	   *answer = (Answer *) owner;
	const char *value;

	if (PQresultStatus(result) != PGRES_TUPLES_OK || PQntuples(result) != 1)
		return;
	value = PQgetvalue(result, 0, 0);
	if (PQnfields(result) == 4)
	{
		answer->outcome = DtxOutcomeParse(value);
		answer->has_standbys = strcmp(PQgetvalue(result, 0, 1), "f") != 0;
	}
	else if (PQnfields(result) == 3)
		answer->timeline = DtxTimelineParse(value);
	else if (PQnfields(result) == 1)
		answer->system_id = DtxNumberParse(value, PG_UINT64_MAX);
}

static void
answer_complete(void *owner, PGresult *last, const char *lost)
{
	if (lost != NULL || PQresultStatus(last) != PGRES_TUPLES_OK)
		((Answer *) owner)->outcome = DTX_OUTCOME_NOT_TOLD;
	PQclear(last);
}
