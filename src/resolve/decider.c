/*-------------------------------------------------------------------------
 *
 * decider.c
 *		What the servers that decide about transactions have said of them.
 *
 * A gid may name a server as the one that decides: its cluster, the timeline that was
 * on, and the transaction id there (commit/point.c).  A resolver that finds such a gid on
 * another server asks that one, and nothing else counts: no row here, no commit log of
 * ours.  So this database may be a copy, or restored, and judges right all the same.
 *
 * A visit that lists such a gid leaves it in doubt and enters a question here
 * (DtxDeciderWant).  The server that is to answer is visited at once, and asked all open
 * questions that it is to answer (is_for()).  Then what waits for the answers is tried
 * again.
 *
 * Only the cluster itself can answer, and only if it has received what its timeline's WAL
 * had up to a record that carries the id, whose position the gid tells: after a failover
 * to a standby that had not, the same id is another transaction's.  On the timeline on
 * which the transaction ran it has.  On another one the history of that tells: the WAL up
 * to a position belongs to it.  Before that, the cluster's answer counts; after it, the
 * transaction did not happen for those who go on from there, so it was aborted.  Without
 * that history nothing is proven.
 *
 * "Committed" counts only if its synchronous standby has got it, too, where it has one:
 * until then a failover may undo it.
 *
 * "Committed" and "aborted" stay as they are, so they are remembered; what is not final is
 * asked again when it is wanted again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/gid.h"
#include "base/process.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/ask_outcome.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "resolve/decider.h"
#include "resolve/judge.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/timeline_history.h"
#include "resolve/visit.h"
#include "state/in_doubt.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"

/* Questions in one command. */
#define MAX_QUESTIONS	200

/* Questions that are remembered, before those that are not open are forgotten. */
#define MAX_REMEMBERED	10000

typedef struct Key
{
	uint64		system_id;
	uint64		timeline;
	uint64		xid;
	uint64		lsn;
} Key;

typedef struct Question
{
	Key			key;			/* hash key */
	Oid			serverid;		/* foreign server that led there */
	DtxOutcome	outcome;
	int			future;			/* times in a row that it was "future" */
	bool		replicated;
	DtxOutcome	told_outcome;	/* what those who wait know already */
	bool		open;			/* is it to be asked? */
	uint64		asked_by;		/* visit (DtxVisit.serial) that is asking it,
								 * or 0 */
	bool		may_end;		/* is nobody responsible for that transaction
								 * any more, so that its backend may be ended? */
	char		why[DTX_ERROR_SIZE];
	Oid			why_umid;
} Question;

static HTAB *questions = NULL;

static Question *find(const DtxGid *gid, HASHACTION action);
static void forget_answered(void);
static DtxKnownServer *server_to_ask(const Question *q);
static bool is_for(const Question *q, const DtxVisit *v);
static bool is_asked(const Question *q, const DtxVisit *v);
static bool may_ask(const DtxVisit *v);
static bool has_that_timeline(Question *q, const DtxVisit *v);
static DtxKnownServer *named_server(const Question *q);
static bool named_answers(const Question *q);
static void tell_if_new(Question *q);
static void hurry_those_who_wait(const Question *q);

static Question *
find(const DtxGid *gid, HASHACTION action)
{
	Key			key = {gid->decider.system_id, gid->decider.timeline,
	gid->decider.xid, gid->decider.lsn};
	Question   *q;
	bool		found;

	DtxAssertInWorker();
	if (action == HASH_ENTER && questions != NULL &&
		hash_get_num_entries(questions) >= MAX_REMEMBERED)
		forget_answered();
	if (questions == NULL)
	{
		HASHCTL		info;

		if (action != HASH_ENTER)
			return NULL;
		memset(&info, 0, sizeof(info));
		info.keysize = sizeof(Key);
		info.entrysize = sizeof(Question);
		questions = hash_create("pg_dtx deciders", 64, &info, HASH_ELEM | HASH_BLOBS);
	}
	q = hash_search(questions, &key, action, &found);
	if (q != NULL && !found)
	{
		memset(q, 0, sizeof(Question));
		q->key = key;
		q->serverid = gid->decider.serverid;
	}
	return q;
}

/* What is not open can be asked again. */
static void
forget_answered(void)
{
	HASH_SEQ_STATUS seq;
	Question   *q;

	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (!q->open)
			(void) hash_search(questions, &q->key, HASH_REMOVE, NULL);
	}
}

/*
 * What is known of the transaction that decides about a gid.
 */
void
DtxDeciderGet(DtxResolver *r, const DtxGid *gid, DtxDeciderAnswer *answer)
{
	Question   *q = find(gid, HASH_FIND);

	memset(answer, 0, sizeof(*answer));
	if (q == NULL)
		return;
	answer->outcome = q->outcome;
	answer->replicated = q->replicated;
	strlcpy(answer->why, q->why, sizeof(answer->why));
	answer->why_umid = q->why_umid;
}

/*
 * It has to be asked, soon.  "may_end": if it is in progress its backend is told to end,
 * because nobody is responsible for the transaction any more.
 */
void
DtxDeciderWant(DtxResolver *r, const DtxGid *gid, bool may_end)
{
	Question   *q = find(gid, HASH_ENTER);
	DtxKnownServer *state;

	q->may_end = may_end;
	q->open = true;
	state = server_to_ask(q);
	if (state == NULL)
	{
		snprintf(q->why, sizeof(q->why),
				 "the foreign server that led to the cluster that decides about it (system identifier " UINT64_FORMAT ") does not exist any more",
				 q->key.system_id);
		return;
	}
	state->wanted_at = DtxNow();
	r->look = true;
}

/* The foreign server that the gid names; NULL if it does not exist. */
static DtxKnownServer *
named_server(const Question *q)
{
	DtxKnownServer *state = hash_search(DtxKnownServers, &q->serverid, HASH_FIND, NULL);

	return state != NULL && state->exists ? state : NULL;
}

/*
 * Is that the one to answer?  Not if it was seen to lead to another cluster: it was
 * changed, or the gid is of another database, where its OID meant another server.
 */
static bool
named_answers(const Question *q)
{
	const DtxKnownServer *state = named_server(q);

	return state != NULL &&
		(state->system_id == 0 || state->system_id == q->key.system_id);
}

/*
 * The foreign server through which it can be asked: the one through which it ran, or
 * another one that has been seen to lead to the same cluster; NULL: none.
 */
static DtxKnownServer *
server_to_ask(const Question *q)
{
	HASH_SEQ_STATUS seq;
	DtxKnownServer *state;

	if (named_answers(q))
		return named_server(q);

	hash_seq_init(&seq, DtxKnownServers);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (state->exists && state->system_id == q->key.system_id)
		{
			hash_seq_term(&seq);
			return state;
		}
	}
	return named_server(q);
}

/* ----------------------------------------------------------------
 * Asking
 * ----------------------------------------------------------------
 */

/*
 * Is it a question to the cluster of this visit's connection?  The foreign server that the
 * gid names answers; another one that leads to the same cluster only if that one cannot.
 * (What a gid says of a cluster comes from the server itself, which may lie: so the others
 * only tell, and end no backend.)
 */
static bool
is_for(const Question *q, const DtxVisit *v)
{
	return v->conn_system_id != 0 && q->key.system_id == v->conn_system_id &&
		(q->serverid == v->serverid || !named_answers(q));
}

/* Is it open, and a question to the cluster of this visit? */
static bool
is_asked(const Question *q, const DtxVisit *v)
{
	return q->open && q->asked_by != v->serial && is_for(q, v);
}

/* May this visit ask its server for what it has decided? */
static bool
may_ask(const DtxVisit *v)
{
	return questions != NULL && !v->deciders_asked &&
		v->purpose == DTX_VISIT_RESOLVE && v->resolver->worker &&
		!v->in_recovery && v->version >= 100000;
}

/*
 * Is there a question of another timeline than that of the current connection of this
 * visit?  Then ask where that comes from, once.  Returns false, and sends nothing, if there
 * is none.
 */
bool
DtxDeciderAskHistory(DtxVisit *v, DtxRemote *remote)
{
	HASH_SEQ_STATUS seq;
	Question   *q;

	if (!may_ask(v) || v->history_asked || v->conn_timeline == 0)
		return false;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (is_asked(q, v) && q->key.timeline != v->conn_timeline)
		{
			char		question[DTX_HISTORY_QUESTION_SIZE];

			hash_seq_term(&seq);
			v->history_asked = true;
			DtxHistoryQuestion(v->conn_timeline, question);
			v->phase = DTX_PHASE_HISTORY;
			DtxRemoteSend(remote, question);
			return true;
		}
	}
	return false;
}

/* A row of the answer, in the memory context of the visit. */
void
DtxDeciderReadHistory(DtxVisit *v, const PGresult *res)
{
	const char *history = DtxRemoteValue(res, 0, DTX_HISTORY_SIZE);

	if (v->history == NULL && history != NULL)
		v->history = pstrdup(history);
}

/*
 * The transaction ran on another timeline than this visit's connection is on.  Returns true
 * if what the server says of its id counts all the same; otherwise the question is closed,
 * answered or with an explanation.
 */
static bool
has_that_timeline(Question *q, const DtxVisit *v)
{
	uint64		left_at = v->history == NULL ? 0 :
	DtxHistoryLeftAt(v->history, q->key.timeline);

	if (left_at >= q->key.lsn)
		return true;
	q->open = false;
	q->asked_by = 0;
	q->why_umid = InvalidOid;
	if (left_at != 0)
	{
		q->outcome = DTX_OUTCOME_ABORTED;
		q->why[0] = '\0';
		tell_if_new(q);
		return false;
	}
	q->outcome = DTX_OUTCOME_NOT_TOLD;
	snprintf(q->why, sizeof(q->why),
			 "the server that decides about it has failed over since, or was restored (timeline " UINT64_FORMAT ", now " UINT64_FORMAT "), and its timeline history does not prove what became of it%s%s",
			 q->key.timeline, v->conn_timeline, v->no_history != NULL ? ": " : "",
			 v->no_history != NULL ? v->no_history : "");
	return false;
}

/*
 * Ask what is open and the current connection of this visit can answer.  Returns false,
 * and sends nothing, if there is nothing, or it was asked already since the last list.
 */
bool
DtxDeciderAsk(DtxVisit *v, DtxRemote *remote)
{
	HASH_SEQ_STATUS seq;
	Question   *q;
	StringInfoData xids;
	StringInfoData ended;
	int			n = 0;

	if (!may_ask(v))
		return false;
	initStringInfo(&xids);
	initStringInfo(&ended);
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (!is_asked(q, v) || n >= MAX_QUESTIONS ||
			(q->key.timeline != v->conn_timeline && !has_that_timeline(q, v)))
			continue;
		q->asked_by = v->serial;
		appendStringInfo(&xids, "%s" UINT64_FORMAT, n == 0 ? "" : ",", q->key.xid);
		if (q->may_end && q->outcome == DTX_OUTCOME_IN_PROGRESS &&
			q->serverid == v->serverid)
			appendStringInfo(&ended, "%s%u", ended.len == 0 ? "" : ",",
							 (uint32) q->key.xid);
		n++;
	}
	v->deciders_asked = n < MAX_QUESTIONS;
	if (n > 0)
	{
		StringInfoData sql;

		/* An id that is in progress is the only one with its lower half. */
		initStringInfo(&sql);
		appendStringInfo(&sql,
						 "SELECT u.x::pg_catalog.text, " DTX_ASK_OUTCOME("u.x")
						 " FROM pg_catalog.unnest('{%s}'::pg_catalog.int8[]) AS u(x)",
						 xids.data);
		if (ended.len > 0)
			appendStringInfo(&sql,
							 "; SELECT pg_catalog.pg_terminate_backend(a.pid)::pg_catalog.text"
							 " FROM pg_catalog.pg_stat_activity AS a"
							 " WHERE a.backend_xid::pg_catalog.text OPERATOR(pg_catalog.=)"
							 " ANY ('{%s}'::pg_catalog.text[])"
							 " AND a.usename OPERATOR(pg_catalog.=) current_user",
							 ended.data);
		v->phase = DTX_PHASE_DECIDER;
		DtxRemoteSend(remote, sql.data);
		pfree(sql.data);
	}
	pfree(xids.data);
	pfree(ended.data);
	return n > 0;
}

/* A row of the answer. */
void
DtxDeciderRead(DtxVisit *v, int statement, const PGresult *res)
{
	HASH_SEQ_STATUS seq;
	Question   *q;
	const char *xid;
	const char *outcome;

	if (statement != 0 || PQnfields(res) != 2 || questions == NULL)
		return;
	xid = DtxRemoteValue(res, 0, 32);
	outcome = DtxRemoteValue(res, 1, 32);
	if (xid == NULL || outcome == NULL)
		return;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (q->asked_by == v->serial && q->key.xid == DtxNumberParse(xid, PG_INT64_MAX))
		{
			DtxOutcome	told = DtxOutcomeParse(outcome);

			/* That is to be believed only if it is said twice. */
			q->future = told == DTX_OUTCOME_FUTURE ? q->future + 1 : 0;
			q->outcome = q->future == 1 ? DTX_OUTCOME_NOT_TOLD : told;
			q->why[0] = '\0';
			q->why_umid = InvalidOid;
		}
	}
}

/*
 * The answer is complete.  What is committed there and has no standby to wait for is
 * proven.
 */
void
DtxDeciderAnswered(DtxVisit *v, const DtxRemoteError *error)
{
	HASH_SEQ_STATUS seq;
	Question   *q;

	if (questions == NULL)
		return;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (q->asked_by != v->serial)
			continue;
		if (error->sqlstate != 0)
		{
			q->open = false;
			q->asked_by = 0;
			q->why_umid = InvalidOid;
			snprintf(q->why, sizeof(q->why),
					 "server \"%s\", which decides about it, has refused to answer: %s",
					 v->name, error->message);
			continue;
		}
		if (q->outcome == DTX_OUTCOME_COMMITTED && !v->has_standbys)
			q->replicated = true;
		q->open = q->outcome == DTX_OUTCOME_COMMITTED && !q->replicated;
		if (!q->open)
		{
			q->asked_by = 0;
			tell_if_new(q);
		}
	}
}

/*
 * Has something been told that is committed, and it is not known whether the server's
 * synchronous standby has it?  Then that has to be asked after it was told.
 */
bool
DtxDeciderNeedsReplication(const DtxVisit *v)
{
	HASH_SEQ_STATUS seq;
	Question   *q;

	if (questions == NULL || !v->deciders_asked)
		return false;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (q->asked_by == v->serial && q->open &&
			q->outcome == DTX_OUTCOME_COMMITTED)
		{
			hash_seq_term(&seq);
			return true;
		}
	}
	return false;
}

/*
 * The standby was asked: v->replicated tells.
 */
void
DtxDeciderReplicated(DtxVisit *v)
{
	HASH_SEQ_STATUS seq;
	Question   *q;

	if (questions == NULL)
		return;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (q->asked_by != v->serial || !q->open ||
			q->outcome != DTX_OUTCOME_COMMITTED)
			continue;
		q->asked_by = 0;
		q->open = false;
		q->replicated = v->replicated;
		if (q->replicated)
			tell_if_new(q);
	}
}

/*
 * A visit is over.  What was to be asked there and was not has an explanation, and is
 * asked again when it is wanted again.
 */
void
DtxDeciderVisitOver(DtxVisit *v)
{
	DtxKnownServer *state;
	HASH_SEQ_STATUS seq;
	Question   *q;
	bool		came_late;
	bool		again = false;

	if (!v->resolver->worker || v->purpose != DTX_VISIT_RESOLVE)
		return;
	state = DtxKnownServerGet(v->serverid);
	if (v->conn_system_id != 0)
		state->system_id = v->conn_system_id;

	/*
	 * What came after it began may have come too late for it.  (What this
	 * visit itself has listed, too, if the server leads to where that is
	 * prepared; then another visit is of no use.)
	 */
	came_late = state->wanted_at > v->began_at;
	if (questions == NULL)
		return;
	hash_seq_init(&seq, questions);
	while ((q = hash_seq_search(&seq)) != NULL)
	{
		if (!q->open || server_to_ask(q) != state)
			continue;
		if (came_late && (v->conn_system_id == 0 || is_for(q, v)))
		{
			again = true;
			continue;
		}
		q->open = false;
		q->asked_by = 0;
		q->why_umid = v->error != NULL ? v->error_umid : InvalidOid;
		if (v->error != NULL)
			snprintf(q->why, sizeof(q->why),
					 "server \"%s\", which decides about it, can't be asked: %s",
					 v->name, v->error);
		else if (!is_for(q, v))
			snprintf(q->why, sizeof(q->why),
					 "server \"%s\", which decides about it, leads to another cluster now",
					 v->name);
		else
			snprintf(q->why, sizeof(q->why),
					 "server \"%s\", which decides about it, has not answered",
					 v->name);
	}
	if (!again)
		state->wanted_at = 0;
}

/*
 * Those who wait are told of an answer that they do not know yet.
 */
static void
tell_if_new(Question *q)
{
	if (q->outcome == q->told_outcome)
		return;
	q->told_outcome = q->outcome;
	hurry_those_who_wait(q);
}

/*
 * Let what is decided by it be tried again at once.
 */
static void
hurry_those_who_wait(const Question *q)
{
	ListCell   *lc;

	foreach(lc, DtxInDoubtList(MyDatabaseId))
	{
		const DtxInDoubt *entry = (const DtxInDoubt *) lfirst(lc);
		const DtxDecider *d = &entry->gid.decider;

		if (d->system_id == q->key.system_id && d->timeline == q->key.timeline &&
			d->xid == q->key.xid && d->lsn == q->key.lsn)
		{
			DtxDecidedFacts facts = {
				.authentic = true,
				.outcome = q->outcome
			};
			DtxVerdict	verdict = DtxJudgeDecided(&facts);

			DtxInDoubtDecide(&entry->gid,
							 verdict == DTX_VERDICT_COMMIT ? DTX_COMMIT :
							 verdict == DTX_VERDICT_ROLLBACK ? DTX_ROLLBACK :
							 DTX_UNDECIDED);
		}
	}
}
