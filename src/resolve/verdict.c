/*-------------------------------------------------------------------------
 *
 * verdict.c
 *		From what a server has listed to what is to become of it.
 *
 * The server is asked what is prepared there, then this server whether a backend is
 * responsible for it, then facts.c for what this database knows; judge.c makes a
 * verdict of that, and carry_out() does what follows from it.  A gid that the server
 * has shown only once may just have been finished by its backend: what nobody handed
 * over to us is listed once more before it is judged.
 *
 * Right before each command both questions are asked again that have an answer
 * without a transaction: is a backend responsible, and has the transaction committed
 * after all?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "base/gid.h"
#include "base/history.h"
#include "commit/standby.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "resolve/decider.h"
#include "resolve/facts.h"
#include "resolve/judge.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/results.h"
#include "resolve/verdict.h"
#include "resolve/visit.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/identity.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "worker/wake.h"

static void carry_out(DtxVisit *v, DtxListedGid *f, const DtxFacts *facts,
					  const DtxDecisionRow *row);
static void judge_decided(DtxVisit *v, DtxListedGid *f, DtxWitness *witness);
static void leave_alone(DtxVisit *v, DtxListedGid *f, const char *why);
static bool may_finish(DtxVisit *v, DtxListedGid *f);

/* What this connection can finish, and in which way. */
void
DtxVerdictQueue(DtxVisit *v, DtxDecision decision)
{
	ListCell   *lc;

	foreach(lc, v->found)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);

		if (f->state == DTX_LISTED_DECIDED && f->decision == decision &&
			may_finish(v, f))
			v->todo = lappend(v->todo, f);
	}
}

/*
 * Judge all orphans, and choose the running PREPAREs that are to be canceled.  Returns
 * false if the extension is gone.  In a transaction of its own (DtxResolverXactBegin).
 */
bool
DtxVerdictJudgeAll(DtxVisit *v)
{
	DtxResolver *r = v->resolver;
	MemoryContext scratch;
	MemoryContext old;
	DtxWitness *witness;
	List	   *sightings = NIL;
	List	   *all_facts = NIL;
	bool		suspect = false;
	bool		any = v->in_flight != NIL;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, v->found)
	{
		if (((DtxListedGid *) lfirst(lc))->state == DTX_LISTED_ORPHAN)
			any = true;
	}
	if (!any)
		return true;

	scratch = AllocSetContextCreate(v->cxt, "pg_dtx decisions",
									ALLOCSET_DEFAULT_SIZES);
	DtxResolverXactBegin(r);
	old = MemoryContextSwitchTo(scratch);

	/* Who is responsible has to be asked before anything is read. */
	foreach(lc, v->in_flight)
	{
		DtxRunningPrepare *item = (DtxRunningPrepare *) lfirst(lc);
		DtxSighting *sighting = palloc0(sizeof(DtxSighting));

		sighting->gid = item->gid;
		sighting->next_xid = v->next_xid;
		sighting->age_ms = item->age_ms;
		sighting->responsible = DtxActivityResponsible(&item->gid);
		sightings = lappend(sightings, sighting);
	}

	witness = DtxWitnessTake();
	DTX_FAULT("resolver-snapshot", NULL);
	if (witness == NULL || DtxCoordinatorId() != v->coordinator_id)
	{
		MemoryContextSwitchTo(old);
		DtxResolverXactEnd(r);
		MemoryContextDelete(scratch);
		return false;
	}

	/*
	 * First all facts: one gid may say that nothing of its kind is to be
	 * touched.
	 */
	if (!DtxWitnessSuspended(witness))
		r->suspect = false;
	foreach(lc, v->found)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);
		DtxSighting sighting = {
			.gid = f->gid,
			.next_xid = v->next_xid,
			.age_ms = f->age_ms
		};
		DtxFacts   *facts = palloc(sizeof(DtxFacts));

		if (f->state == DTX_LISTED_ORPHAN && !DtxGidDecidedElsewhere(&f->gid))
		{
			DtxWitnessFacts(witness, &sighting, facts);
			suspect |= facts->authentic && facts->late &&!facts->suspended &&
				(facts->history == DTX_HISTORY_CONTINUED ||
				 facts->history == DTX_HISTORY_BROKEN);
		}
		all_facts = lappend(all_facts, facts);
	}
	r->suspect |= suspect;

	forboth(lc, v->in_flight, lc2, sightings)
	{
		const DtxSighting *sighting = (const DtxSighting *) lfirst(lc2);

		if (DtxWitnessMayCancel(witness, sighting) &&
			(!r->suspect || sighting->gid.boot_id == DtxBootId()))
		{
			MemoryContextSwitchTo(v->cxt);
			v->cancels = lappend(v->cancels, lfirst(lc));
			MemoryContextSwitchTo(scratch);
		}
	}
	forboth(lc, v->found, lc2, all_facts)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);
		DtxFacts   *facts = (DtxFacts *) lfirst(lc2);

		if (f->state != DTX_LISTED_ORPHAN)
			continue;

		/* Not listed again since, and nobody told us: let it wait. */
		if (f->list == f->orphaned && f->gid.boot_id == DtxBootId() &&
			DtxVisitEntry(v, &f->gid) == NULL)
		{
			f->state = DTX_LISTED_LEFT;
			continue;
		}
		if (DtxGidDecidedElsewhere(&f->gid))
		{
			judge_decided(v, f, witness);
			continue;
		}
		if (r->suspect && f->gid.boot_id != DtxBootId())
			facts->suspended = true;
		carry_out(v, f, facts, DtxWitnessRow(witness, &f->gid));
	}
	if (suspect && r->worker)
		DtxBootSuspend("another server with this database is alive");
	MemoryContextSwitchTo(old);
	DtxResolverXactEnd(r);
	MemoryContextDelete(scratch);
	return true;
}

/*
 * What follows from a verdict.  In a transaction.
 */
static void
carry_out(DtxVisit *v, DtxListedGid *f, const DtxFacts *facts, const DtxDecisionRow *row)
{
	DtxResolver *r = v->resolver;
	DtxVerdict	verdict = DtxJudge(facts);

	/*
	 * The decision is not there.  It may have been confirmed and forgotten
	 * since the list was made, through another foreign server that leads to
	 * the same cluster; then the next list does not have it.
	 */
	if ((DtxReappeared(facts) || verdict == DTX_VERDICT_UNKNOWN) &&
		(f->suspected == 0 || f->suspected == f->list))
	{
		f->suspected = f->list;
		v->suspicious = true;
		return;
	}

	switch (verdict)
	{
		case DTX_VERDICT_LEAVE:
			f->state = DTX_LISTED_LEFT;
			return;
		case DTX_VERDICT_COMMIT:
		case DTX_VERDICT_ROLLBACK:
			break;
		default:
			leave_alone(v, f, DtxVerdictReason(verdict, facts));
			return;
	}

	f->reappeared = DtxReappeared(facts);
	f->forced = facts->forced_rollback;

	/*
	 * Left to the worker: damage is recorded by it alone, and what was
	 * prepared through a server that was dropped since is confirmed by nobody
	 * else, and only if it commits it itself (see confirm_rows()).
	 */
	if (!r->worker &&
		(f->reappeared ||
		 (row != NULL && f->gid.n <= (uint32) row->nparticipants &&
		  row->prepared[f->gid.n - 1].serverid != v->serverid &&
		  !DtxKnownServerExists(r, row->prepared[f->gid.n - 1].serverid))))
	{
		DtxLauncherAskPass();
		f->state = DTX_LISTED_LEFT;
		return;
	}
	f->decision = verdict == DTX_VERDICT_COMMIT ? DTX_COMMIT : DTX_ROLLBACK;

	/* It was seen to be decided, but that must not be lost after it was told. */
	if (f->decision == DTX_COMMIT &&
		!DtxStandbyHasDecision(&f->gid, DtxVisitEntry(v, &f->gid), r->worker))
	{
		f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		f->error.message = MemoryContextStrdup(v->cxt,
											   DTX_DECISION_NOT_REPLICATED);
		DtxVisitGidFailed(v, f);
		return;
	}
	f->state = DTX_LISTED_DECIDED;
}

/* Never touched; shown, so that a human can decide. */
static void
leave_alone(DtxVisit *v, DtxListedGid *f, const char *why)
{
	f->decision = DTX_UNDECIDED;
	f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	f->error.message = MemoryContextStrdup(v->cxt, why);
	DtxVisitGidFailed(v, f);
}

/*
 * A gid about which a server decides: what follows from what that has said.  If it has
 * not, it is asked, by the worker.  In a transaction.
 *
 * Its transaction there may be ended if it is in progress, when it is this database's
 * own and nobody is responsible for it any more; not if another instance of this database
 * may have it under way.
 */
static void
judge_decided(DtxVisit *v, DtxListedGid *f, DtxWitness *witness)
{
	DtxResolver *r = v->resolver;
	DtxSighting sighting = {
		.gid = f->gid,
		.next_xid = v->next_xid,
		.age_ms = f->age_ms
	};
	DtxDecidedFacts facts;
	DtxDeciderAnswer answer;
	DtxInDoubt *entry;
	DtxVerdict	verdict;

	if (!r->worker)
	{
		DtxLauncherAskPass();
		f->state = DTX_LISTED_LEFT;
		return;
	}

	DtxWitnessDecidedFacts(witness, &sighting, &facts);
	DtxDeciderGet(r, &f->gid, &answer);
	entry = DtxVisitEntry(v, &f->gid);
	if (entry != NULL && entry->proven && entry->decision != DTX_UNDECIDED)
	{
		/* Our own session has had the answer. */
		answer.outcome = entry->decision == DTX_COMMIT ?
			DTX_OUTCOME_COMMITTED : DTX_OUTCOME_ABORTED;
		answer.replicated = true;
	}
	facts.outcome = answer.outcome;
	verdict = DtxJudgeDecided(&facts);

	/* What is not final may have changed. */
	if (verdict == DTX_VERDICT_WAIT || verdict == DTX_VERDICT_UNKNOWN ||
		(verdict == DTX_VERDICT_COMMIT && !answer.replicated))
		DtxDeciderWant(r, &f->gid,
					   DtxWitnessMayCancel(witness, &sighting) && !r->suspect);

	switch (verdict)
	{
		case DTX_VERDICT_COMMIT:
			f->decision = DTX_COMMIT;
			if (facts.outcome == DTX_OUTCOME_COMMITTED && !answer.replicated)
			{
				f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
				f->error.message = MemoryContextStrdup(v->cxt,
													   DTX_DECIDER_NOT_REPLICATED);
				DtxVisitGidFailed(v, f);
				return;
			}
			break;
		case DTX_VERDICT_ROLLBACK:
			f->decision = DTX_ROLLBACK;
			f->forced = facts.forced_rollback;
			break;
		case DTX_VERDICT_WAIT:
			DtxVisitGidWaits(v, f, answer.why[0] != '\0' ? answer.why :
							 answer.outcome == DTX_OUTCOME_IN_PROGRESS ?
							 "its transaction is still in progress on the server that decides about it" :
							 DTX_DECIDER_NOT_ASKED, answer.why_umid);
			return;
		case DTX_VERDICT_FORGED:
			leave_alone(v, f, DtxVerdictReason(verdict, NULL));
			return;
		case DTX_VERDICT_UNKNOWN:
			leave_alone(v, f, answer.outcome == DTX_OUTCOME_FUTURE ?
						"the server that decides about it has not assigned its transaction id: it was restored" :
						"the commit log of the server that decides about it does not reach back to its transaction");
			return;
		default:
			f->state = DTX_LISTED_LEFT;
			return;
	}
	f->state = DTX_LISTED_DECIDED;
}

/*
 * A command is about to be sent.  Does what it rests on still hold, as far as that
 * can be told without a transaction?
 */
bool
DtxVerdictStillHolds(DtxVisit *v, DtxListedGid *f)
{
	if (v->purpose != DTX_VISIT_RESOLVE)
		return true;
	if (DtxGidDecidedElsewhere(&f->gid))
		return !DtxActivityResponsible(&f->gid);
	if (f->gid.boot_id != DtxBootId())
		return !v->resolver->suspect;
	return !DtxActivityResponsible(&f->gid) &&
		(f->decision == DTX_COMMIT || f->forced ||
		 DtxCommitLog(f->gid.xid) == DTX_LOG_ABORTED);
}

/*
 * May the current connection finish this gid?  xact/twophase.c, LockGXact: the
 * owner may, and a superuser, in the database where it was prepared.
 */
static bool
may_finish(DtxVisit *v, DtxListedGid *f)
{
	if (f->database == NULL || strcmp(f->database, v->database) != 0)
		return false;
	return v->superuser ||
		(f->owner != NULL && strcmp(f->owner, v->remote_user) == 0);
}
