/*-------------------------------------------------------------------------
 *
 * course.c
 *		The course of a visit, from phase to phase: connect, identify, list, judge, finish,
 *		ask; once more through another user mapping; the end.
 *
 * Everything here is called by DtxRemoteWait() or starts from DtxVisitNext(), and
 * nothing waits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/fault.h"
#include "base/gid.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/remote_park.h"
#include "net/remote_set.h"
#include "net/target.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "resolve/course.h"
#include "resolve/decider.h"
#include "resolve/gone.h"
#include "resolve/known_server.h"
#include "resolve/mapping.h"
#include "resolve/questions.h"
#include "resolve/resolver.h"
#include "resolve/results.h"
#include "resolve/verdict.h"
#include "resolve/visit.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/damage.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Why a server is not visited. */
#define NO_ROUTE	"nothing was prepared through any user mapping of the server; dtx.confirm_server() lets the resolver use them all the same"

static bool visit_connect(DtxVisit *v, Oid umid);
static void visit_row(DtxRemote *remote, void *arg, int statement,
					  const PGresult *res);
static void visit_ready(DtxRemote *remote, void *arg,
						const DtxRemoteError *error);
static void visit_failed(DtxRemote *remote, void *arg,
						 DtxRemoteFailure failure, const char *error);
static void visit_listed(DtxVisit *v, DtxRemote *remote);
static void visit_continue(DtxVisit *v, DtxRemote *remote);
static void visit_witnessed(DtxVisit *v, const DtxRemoteError *error);
static bool keep_connection(DtxVisit *v, DtxRemote *remote);
static void kept_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
						const char *error);

static const DtxRemoteHandler visit_handler = {
	.ready = visit_ready,
	.row = visit_row,
	.failed = visit_failed
};

/* Nobody is told anything of a kept connection but that it was lost. */
static const DtxRemoteHandler kept_handler = {
	.failed = kept_failed
};

/*
 * Begin a connection through this mapping.  Returns false if it cannot be used.
 * To be called in a transaction.
 */
static bool
visit_connect(DtxVisit *v, Oid umid)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	DtxTarget  *target = DtxTargetMake(v->serverid, umid, v->failures,
									   v->on_behalf_of);

	if (target->error == NULL)
		target->error = unconstify(char *, DtxMappingRefusal(v, target));
	v->tried = lappend_oid(v->tried, umid);
	v->umid = umid;
	v->conn_endpoint = target->endpoint;
	if (target->error == NULL)
	{
		DtxKnownServer *state = v->resolver->worker ?
		DtxKnownServerGet(v->serverid) : NULL;

		v->ntries++;
		v->phase = DTX_PHASE_CONNECT;
		v->relisted = false;
		v->mode = DTX_MODE_LOOK;
		v->in_flight = NIL;
		v->reused = false;
		if (state != NULL && state->kept != NULL && state->kept_umid == umid)
		{
			DtxRemote  *kept = state->kept;

			state->kept = NULL;
			v->reused = true;
			if (!DtxRemoteResume(kept, target, &visit_handler, v))
			{
				/* It does not lead there any more. */
				v->reused = false;
				DtxRemoteClose(kept);
			}
		}
		if (!v->reused)
			DtxRemoteOpen(v->resolver->set, target, &visit_handler, v);
	}
	else
	{
		v->refusal = target->error;
		if (!v->listed)
			v->error = target->error;
	}
	MemoryContextSwitchTo(old);
	return target->error == NULL;
}

/*
 * Connect once more, or end the visit.
 */
void
DtxVisitNext(DtxVisit *v)
{
	DtxResolver *r = v->resolver;
	MemoryContext old;
	MemoryContext scratch;
	bool		connecting = false;
	Oid			umid;

	scratch = AllocSetContextCreate(v->cxt, "pg_dtx visit step",
									ALLOCSET_DEFAULT_SIZES);
	DtxResolverXactBegin(r);
	old = MemoryContextSwitchTo(scratch);
	while (!connecting && OidIsValid(umid = DtxMappingChoose(v)))
	{
		CHECK_FOR_INTERRUPTS();
		connecting = visit_connect(v, umid);
	}
	MemoryContextSwitchTo(old);
	DtxResolverXactEnd(r);
	MemoryContextDelete(scratch);

	if (connecting)
		return;
	if (v->listed)
		DtxVisitSucceeded(v);
	else
	{
		if (v->error == NULL)
			v->error = MemoryContextStrdup(v->cxt, NO_ROUTE);
		DtxVisitFailed(v);
	}
}

static void
visit_row(DtxRemote *remote, void *arg, int statement, const PGresult *res)
{
	DtxVisit   *v = (DtxVisit *) arg;
	MemoryContext old = MemoryContextSwitchTo(v->cxt);

	if (v->phase == DTX_PHASE_LIST)
	{
		if (statement == 0)
			DtxReadSession(v, remote, res);
		else if (statement == 1)
			DtxReadRunning(v, res);
		else if (statement == 2 && !DtxReadPrepared(v, res))
		{
			DtxRemoteClose(remote);
			if (!v->listed)
				v->error = pstrdup("the server sends more than it was asked for");
			DtxVisitNext(v);
		}
	}
	else if (v->phase == DTX_PHASE_IDENTIFY)
	{
		const char *value = DtxRemoteValue(res, 0, 32);

		if (statement == 0)
		{
			if (value != NULL)
				v->conn_timeline = DtxTimelineParse(value);
		}
		else if (value != NULL)
			v->conn_system_id = DtxNumberParse(value, PG_UINT64_MAX);
	}
	else if (v->phase == DTX_PHASE_HISTORY)
		DtxDeciderReadHistory(v, res);
	else if (v->phase == DTX_PHASE_DECIDER)
		DtxDeciderRead(v, statement, res);
	else if (v->phase == DTX_PHASE_OUTCOME)
	{
		DtxReadOutcome(v, res);
	}
	else if (v->phase == DTX_PHASE_PROBE)
		DtxReadLimits(v, res);
	MemoryContextSwitchTo(old);
}

/*
 * The connection is there, or a command is over.
 */
static void
visit_ready(DtxRemote *remote, void *arg, const DtxRemoteError *error)
{
	DtxVisit   *v = (DtxVisit *) arg;

	switch (v->phase)
	{
		case DTX_PHASE_CONNECT:
			v->version = DtxRemoteVersion(remote);
			v->conn_system_id = 0;
			v->conn_timeline = 0;
			v->history_asked = false;
			v->history = v->no_history = NULL;
			v->phase = DTX_PHASE_IDENTIFY;
			DtxRemoteSend(remote, v->version >= 100000 ? DTX_IDENTIFY :
						  DTX_IDENTIFY_OLD);
			break;

		case DTX_PHASE_IDENTIFY:
			/* Not everybody may ask for it; then we do not know. */
			DtxAskList(v, remote);
			break;

		case DTX_PHASE_LIST:
			v->reused = false;
			if (error->sqlstate == 0 && v->has_info && !v->in_recovery)
				visit_listed(v, remote);
			else
			{
				/* Another user may have more luck. */
				if (!v->listed)
					v->error = MemoryContextStrdup(v->cxt,
												   error->sqlstate ? error->message :
												   !v->has_info ? "unexpected answer from the server" :
												   "the server is in recovery and does not show its prepared transactions");
				v->nrefusals++;
				DtxRemoteClose(remote);
				DtxVisitNext(v);
			}
			break;

		case DTX_PHASE_CANCEL:
			/* Whether it worked is seen in the next list. */
			visit_continue(v, remote);
			break;

		case DTX_PHASE_FINISH:
			DtxVisitGidAnswered(v, error);
			visit_continue(v, remote);
			break;

		case DTX_PHASE_MODE:
			/* A session that cannot be set up is none to commit in. */
			if (error->sqlstate != 0)
			{
				v->refusal = MemoryContextStrdup(v->cxt, error->message);
				v->todo = NIL;
				DtxRemoteClose(remote);
				DtxVisitNext(v);
				break;
			}
			visit_continue(v, remote);
			break;

		case DTX_PHASE_WITNESS:
			visit_witnessed(v, error);
			visit_continue(v, remote);
			break;

		case DTX_PHASE_HISTORY:
			if (v->history == NULL)
				v->no_history = MemoryContextStrdup(v->cxt, error->sqlstate != 0 ?
													error->message : "it has no file for that");
			visit_continue(v, remote);
			break;

		case DTX_PHASE_DECIDER:
			DtxDeciderAnswered(v, error);
			visit_continue(v, remote);
			break;

		case DTX_PHASE_OUTCOME:
			/* What has no answer is asked again in the next visit. */
			v->asked = NIL;
			visit_continue(v, remote);
			break;

		case DTX_PHASE_PROBE:
			DtxRemoteClose(remote);
			DtxVisitNext(v);
			break;
	}
}

/*
 * The connection failed.
 */
static void
visit_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
			 const char *error)
{
	DtxVisit   *v = (DtxVisit *) arg;

	/*
	 * A command on its way may have been carried out or not.  The gid stays,
	 * and the next visit will see.
	 */
	if (v->current != NULL && v->current->state == DTX_LISTED_DECIDED)
	{
		if (failure == DTX_REMOTE_SILENT && v->phase == DTX_PHASE_FINISH &&
			v->current->decision == DTX_COMMIT && v->resolver->worker)
			DtxKnownServerGet(v->serverid)->hung = true;
		v->current->error.sqlstate = ERRCODE_CONNECTION_FAILURE;
		v->current->error.message = MemoryContextStrdup(v->cxt, error);
		v->current->error_umid = v->umid;
		DtxVisitGidFailed(v, v->current);
	}
	v->current = NULL;
	v->todo = NIL;
	v->cancels = NIL;

	/* A connection that was kept may be lost without anybody having noticed. */
	if (v->reused)
	{
		v->reused = false;
		v->tried = list_delete_oid(v->tried, v->umid);
		DtxVisitNext(v);
		return;
	}

	if (failure == DTX_REMOTE_REFUSED)
	{
		v->refusal = MemoryContextStrdup(v->cxt, error);
		v->refusal_umid = v->umid;
		if (!v->listed)
		{
			v->error = v->refusal;
			v->error_umid = v->umid;
		}
		v->nrefusals++;
		DtxVisitNext(v);
		return;
	}

	v->error = MemoryContextStrdup(v->cxt, error);
	v->error_umid = v->umid;
	DtxVisitFailed(v);
}

/*
 * A list is complete: judge what is in it, and begin to act.
 */
static void
visit_listed(DtxVisit *v, DtxRemote *remote)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	bool		orphans = false;
	ListCell   *lc;

	/* Several hosts, or an address that means another machine now. */
	if (v->listed && (v->system_id != v->conn_system_id ||
					  v->timeline != v->conn_timeline))
		v->mixed = true;
	v->system_id = v->conn_system_id;
	v->timeline = v->conn_timeline;
	if (v->nendpoints < lengthof(v->endpoints))
		v->endpoints[v->nendpoints++] = v->conn_endpoint;
	v->listed = true;
	v->error = NULL;
	v->good_umid = v->umid;
	v->covered = list_append_unique_oid(v->covered, v->umid);

	if (v->purpose == DTX_VISIT_LOOK)
	{
		MemoryContextSwitchTo(old);
		if (v->probe != NULL)
		{
			DtxAskLimits(v, remote);
			return;
		}
		DtxRemoteClose(remote);
		DtxVisitNext(v);
		return;
	}

	foreach(lc, v->found)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);

		/* Others were faster, and have done it. */
		if (f->list != v->list)
		{
			if (f->state != DTX_LISTED_DONE && f->state != DTX_LISTED_FAILED)
				f->state = DTX_LISTED_GONE;
			continue;
		}

		if (v->purpose == DTX_VISIT_FORCE && f->state == DTX_LISTED_NEW &&
			!DtxVisitLeadsElsewhere(v, v->forced_system_id))
		{
			f->state = DTX_LISTED_DECIDED;
			f->decision = v->forced;
		}

		if (f->state != DTX_LISTED_NEW && f->state != DTX_LISTED_LEFT)
		{
			/* DTX_LISTED_ORPHAN and listed again: it is one. */
			continue;
		}

		/* Before DtxVerdictJudgeAll() reads what this database knows. */
		if (DtxActivityResponsible(&f->gid))
			f->state = DTX_LISTED_LEFT;
		else
		{
			f->state = DTX_LISTED_ORPHAN;
			f->orphaned = v->list;

			/*
			 * If nobody told us, it may just have been finished since the
			 * list was made; gids of an earlier boot cannot.
			 */
			if (f->gid.boot_id == DtxBootId() &&
				DtxVisitEntry(v, &f->gid) == NULL)
				orphans = true;
		}
	}

	if (orphans && !v->relisted)
	{
		v->relisted = true;
		MemoryContextSwitchTo(old);
		DtxAskList(v, remote);
		return;
	}

	DTX_FAULT("resolver-listed", NULL);
	if (v->purpose == DTX_VISIT_RESOLVE && !DtxVerdictJudgeAll(v))
	{
		MemoryContextSwitchTo(old);
		DtxRemoteClose(remote);
		v->error = MemoryContextStrdup(v->cxt, "the extension was dropped");
		DtxVisitFailed(v);
		return;
	}

	if (v->suspicious)
	{
		v->suspicious = false;
		MemoryContextSwitchTo(old);
		DtxAskList(v, remote);
		return;
	}

	DtxVerdictQueue(v, DTX_ROLLBACK);
	DtxVerdictQueue(v, DTX_COMMIT);
	MemoryContextSwitchTo(old);
	visit_continue(v, remote);
}

/*
 * Send the next command, or leave this connection.
 */
static void
visit_continue(DtxVisit *v, DtxRemote *remote)
{
	char		gid[DTX_GID_SIZE];
	char		sql[1024];

	if (v->cancels != NIL)
	{
		DtxRunningPrepare *item = (DtxRunningPrepare *) linitial(v->cancels);

		v->cancels = list_delete_first(v->cancels);
		DtxGidFormat(&item->gid, gid);
		snprintf(sql, sizeof(sql),
				 "SELECT pg_catalog.pg_cancel_backend(pid) "
				 "FROM pg_catalog.pg_stat_activity "
				 "WHERE pid = %d AND state = 'active' "
				 "AND (query LIKE '" DTX_PREPARE_HEAD "%s %%' "
				 "OR query LIKE 'CLOSE c%%" DTX_PREPARE_HEAD "%s %%')",
				 item->pid, gid, gid);
		v->phase = DTX_PHASE_CANCEL;
	}
	else if (v->todo != NIL)
	{
		DtxDecision decision = ((DtxListedGid *) linitial(v->todo))->decision;

		/*
		 * COMMIT PREPARED would leave a session behind that waits for as long
		 * as the standby is away, so ask first where that is to be feared.
		 */
		if (decision == DTX_COMMIT && (v->hung || v->standby_waits))
		{
			if (!v->witnessed && DtxAskReplicated(v, remote))
				return;
			if (!v->replicated)
			{
				List	   *todo = v->todo;
				ListCell   *lc;

				v->todo = NIL;
				foreach(lc, todo)
				{
					DtxListedGid *f = (DtxListedGid *) lfirst(lc);

					f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
					f->error.message = unconstify(char *, DtxGoneStandbyAway(v));
					DtxVisitGidFailed(v, f);
				}
				visit_continue(v, remote);
				return;
			}
		}
		if (DtxAskMode(v, remote,
					   decision == DTX_COMMIT ? DTX_MODE_COMMIT : DTX_MODE_ROLLBACK))
			return;
		v->current = (DtxListedGid *) linitial(v->todo);
		v->todo = list_delete_first(v->todo);
		if (!DtxVerdictStillHolds(v, v->current) ||
			(v->current->reappeared &&
			 !DtxVisitRecordDamage(v, &v->current->gid, DTX_COMMIT, DTX_FOUND_REAPPEARED,
								   v->current->remote_xid, v->system_id)))
		{
			/* the next visit looks again */
			v->current->state = DTX_LISTED_LEFT;
			v->current = NULL;
			visit_continue(v, remote);
			return;
		}
		DtxGidFormat(&v->current->gid, gid);
		snprintf(sql, sizeof(sql), "%s PREPARED '%s'",
				 v->current->decision == DTX_COMMIT ? "COMMIT" : "ROLLBACK",
				 gid);
		v->phase = DTX_PHASE_FINISH;
		DTX_FAULT("resolver-decided", NULL);
	}
	else
	{
		v->current = NULL;
		if (DtxDeciderAskHistory(v, remote) || DtxDeciderAsk(v, remote))
			return;
		if (DtxDeciderNeedsReplication(v))
		{
			/* What was asked before proves nothing about that. */
			v->witnessed = v->replicated = false;
			if (DtxAskReplicated(v, remote))
				return;
			DtxDeciderReplicated(v);
		}
		if (!v->witnessed && DtxGoneNeedsReplication(v) &&
			DtxAskReplicated(v, remote))
			return;
		if (DtxAskOutcomes(v, remote))
			return;
		if (!keep_connection(v, remote))
		{
			DtxRemoteClose(remote);
			DtxVisitNext(v);
		}
		return;
	}
	DtxRemoteSend(remote, sql);
	if (v->phase == DTX_PHASE_FINISH)
		DTX_FAULT("resolver-sent", NULL);
}

/*
 * It has, or the time for that was over.
 */
static void
visit_witnessed(DtxVisit *v, const DtxRemoteError *error)
{
	v->witnessed = true;
	v->replicated = error->sqlstate == 0 && !error->warned;
	v->no_witness = error->sqlstate == 0 ? NULL :
		MemoryContextStrdup(v->cxt, error->message);
	if (v->replicated && v->resolver->worker)
		v->hung = DtxKnownServerGet(v->serverid)->hung = false;
	if (v->resolver->worker)
		DtxDeciderReplicated(v);
	DTX_FAULT("resolver-witnessed", NULL);
}

/*
 * Nothing more is to be done on this connection.  If the server is in use, keep it,
 * go on with the visit, and return true.
 *
 * The sessions that wait for a row that an in-doubt transaction has locked may fill
 * max_connections there, or whatever limits the user's connections, and then
 * nobody could get in who could release it.  One connection per server is kept,
 * preferably that of the user who has prepared last.
 */
static bool
keep_connection(DtxVisit *v, DtxRemote *remote)
{
	DtxKnownServer *state;

	if (!v->resolver->worker || v->purpose != DTX_VISIT_RESOLVE)
		return false;
	state = DtxKnownServerGet(v->serverid);
	if (DtxIsDue(state->used_at + DTX_KEEP_CONNECTION_MS) ||
		(state->kept != NULL && v->umid != state->used_umid))
		return false;
	if (DtxAskMode(v, remote, DTX_MODE_LOOK))
		return true;			/* and once more when that is done */
	DtxKnownServerDropConnection(state);
	if (!DtxRemotePark(remote, &kept_handler, state))
		return false;
	state->kept = remote;
	state->kept_umid = v->umid;
	DtxVisitNext(v);
	return true;
}

static void
kept_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
			const char *error)
{
	((DtxKnownServer *) arg)->kept = NULL;
}
