/*-------------------------------------------------------------------------
 *
 * gone.c
 *		What is not prepared any more and was not finished by the visit: may it be
 *		forgotten?
 *
 * "Does not exist" in answer to a command proves little: a PREPARE on a connection
 * that broke may arrive later, the server may be another one, or may have been
 * restored.  So an entry of the in-doubt table goes when our own command has finished
 * the gid, or when a visit that began after the entry was there saw it neither
 * prepared nor being prepared, and DtxMayForget() has proof that it ended as decided.
 *
 * It may have been finished by its own backend, by another resolver, or by a human,
 * who may have done the wrong thing.  The server knows: it is asked what became of
 * the transaction id that it gave when it prepared the gid (decision row, in-doubt
 * entry), or that was seen in a list.  Only the worker asks.  If the answer
 * contradicts the decision this is recorded (damage.c), and only then is the gid
 * forgotten.
 *
 * Answered is not replicated: a server with a synchronous standby lets COMMIT
 * PREPARED wait for that standby.  If the wait is cut short, there as here, the commit
 * may still be lost when the server fails over, and what is prepared then must find
 * its decision.  So no time-out of ours cuts it short; a warning in the answer means
 * that it was; and a commit that was not seen to end without one is believed only
 * after a transaction of our own, which writes a few bytes of WAL, has been replicated
 * from there (DtxAskReplicated).  As WAL is replicated in its order, all that was
 * committed before then is, too, on whatever conditions that server has.  A rollback
 * waits for nothing: if it is lost, it is done again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/gid.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/ask_outcome.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "resolve/gone.h"
#include "resolve/judge.h"
#include "resolve/resolver.h"
#include "resolve/unconfirmed.h"
#include "resolve/visit.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Outcomes asked for in one command. */
#define MAX_OUTCOMES		200

/* Why something that is not seen on its server is not done. */
#define NO_OUTCOME	"it is not prepared any more, and how it was finished could not be found out"
#define NOT_RECORDED "it was finished against its decision, which could not be recorded yet"
#define STANDBY_AWAY "the server waits for a synchronous standby that does not confirm"
#define UNIDENTIFIED	"it is not prepared any more, and it cannot be told whether the server is the one where it was: it does not tell its system identifier, and its options or those of the user mapping have changed"

typedef struct Outcome
{
	DtxGid		gid;			/* hash key */
	uint64		remote_xid;		/* what was asked for */
	DtxOutcome	status;
} Outcome;

static void add_question(DtxVisit *v, StringInfo sql, const DtxGid *gid,
						 const DtxPrepared *prepared);

/*
 * Is there something that the last list does not show, was to be committed, and was
 * not seen to be?
 */
bool
DtxGoneNeedsReplication(DtxVisit *v)
{
	DtxResolver *r = v->resolver;
	DtxUnconfirmedCursor cursor = {0};
	ListCell   *lc;

	if (v->purpose != DTX_VISIT_RESOLVE || !r->worker)
		return false;
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		DtxListedGid *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);

		if (entry->decision == DTX_COMMIT &&
			(f == NULL || f->state == DTX_LISTED_GONE))
			return true;
	}
	while (DtxUnconfirmedNext(r, v->serial, &cursor))
	{
		DtxListedGid *f;

		if (cursor.row->row.prepared[cursor.index].serverid != v->serverid)
			continue;
		f = hash_search(v->found_hash, &cursor.gid, HASH_FIND, NULL);
		if (f == NULL || f->state == DTX_LISTED_GONE)
			return true;
	}
	return false;
}

/*
 * Why nothing can be committed, or confirmed, after that.  As long as the visit.
 */
const char *
DtxGoneStandbyAway(DtxVisit *v)
{
	MemoryContext old;
	char	   *text;

	if (v->no_witness == NULL)
		return STANDBY_AWAY;
	old = MemoryContextSwitchTo(v->cxt);
	text = psprintf("whether its server's synchronous standby has it cannot be found out: %s",
					v->no_witness);

	MemoryContextSwitchTo(old);
	return text;
}

/*
 * Ask for the outcome of what is not prepared any more and was not finished by
 * us.  Returns false, and sends nothing, if there is nothing to ask.
 */
bool
DtxAskOutcomes(DtxVisit *v, DtxRemote *remote)
{
	DtxResolver *r = v->resolver;
	DtxUnconfirmedCursor cursor = {0};
	StringInfoData sql;
	MemoryContext old;
	ListCell   *lc;
	bool		any;

	if (v->purpose != DTX_VISIT_RESOLVE || !r->worker || v->truncated ||
		v->mixed || v->version < 100000)
		return false;

	old = MemoryContextSwitchTo(v->cxt);
	v->asked = NIL;

	/*
	 * Whatever was prepared and is not any more has ended, and so it is before
	 * xmax; what is not, this server has never seen.
	 */
	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT u.x::pg_catalog.text, " DTX_ASK_OUTCOME("u.x")
						   " FROM pg_catalog.unnest('{");
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		DtxListedGid *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);
		DtxPrepared prepared;

		DtxGoneEntryPrepared(v, entry, f, &prepared);
		add_question(v, &sql, &entry->gid, &prepared);
	}
	while (DtxUnconfirmedNext(r, v->serial, &cursor))
	{
		const DtxPrepared *prepared = &cursor.row->row.prepared[cursor.index];

		if (prepared->serverid == v->serverid)
			add_question(v, &sql, &cursor.gid, prepared);
	}
	appendStringInfoString(&sql, "}'::pg_catalog.int8[]) AS u(x)");

	any = v->asked != NIL;
	if (any)
	{
		v->phase = DTX_PHASE_OUTCOME;
		DtxRemoteSend(remote, sql.data);
	}
	pfree(sql.data);
	MemoryContextSwitchTo(old);
	return any;
}

/*
 * Add a gid to a question, unless it is still prepared, has been finished by
 * us, was asked for already, or is another cluster's.
 */
static void
add_question(DtxVisit *v, StringInfo sql, const DtxGid *gid,
			 const DtxPrepared *prepared)
{
	uint64		remote_xid = prepared->remote_xid;
	DtxSame		same = DtxVisitSameCluster(v, prepared->system_id);
	DtxListedGid *f = hash_search(v->found_hash, gid, HASH_FIND, NULL);
	Outcome    *outcome;
	bool		found;

	if (remote_xid == 0 || remote_xid > PG_INT64_MAX ||
		same == DTX_DIFFERENT ||
		(same == DTX_NOT_TOLD && !DtxVisitSameEndpoint(v, prepared->endpoint)) ||
		(f != NULL && f->state != DTX_LISTED_GONE) ||
		list_length(v->asked) >= MAX_OUTCOMES)
		return;

	if (v->outcome_hash == NULL)
	{
		HASHCTL		info;

		memset(&info, 0, sizeof(info));
		info.keysize = sizeof(DtxGid);
		info.entrysize = sizeof(Outcome);
		info.hcxt = v->cxt;
		v->outcome_hash = hash_create("pg_dtx outcomes", 16, &info,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	outcome = hash_search(v->outcome_hash, gid, HASH_ENTER, &found);
	if (found)
		return;
	outcome->remote_xid = remote_xid;
	outcome->status = DTX_OUTCOME_NOT_TOLD;
	appendStringInfo(sql, "%s" UINT64_FORMAT, v->asked == NIL ? "" : ",",
					 remote_xid);
	v->asked = lappend(v->asked, outcome);
}

/* One answer to it. */
void
DtxReadOutcome(DtxVisit *v, const PGresult *res)
{
	const char *xid;
	const char *status;
	ListCell   *lc;

	if (PQnfields(res) != 2)
		return;
	xid = DtxRemoteValue(res, 0, 32);
	status = DtxRemoteValue(res, 1, 32);
	if (xid == NULL || status == NULL)
		return;
	foreach(lc, v->asked)
	{
		Outcome    *outcome = (Outcome *) lfirst(lc);

		if (outcome->remote_xid == DtxNumberParse(xid, PG_INT64_MAX))
			outcome->status = DtxOutcomeParse(status);
	}
}

/*
 * A gid is gone.  May it be forgotten, if need be after that was put on record?
 * Then NULL is returned, otherwise why not.
 */
const char *
DtxGoneWhyKept(DtxVisit *v, const DtxGid *gid, DtxDecision decision,
			   const DtxPrepared *prepared)
{
	Outcome    *outcome = NULL;
	DtxGoneFacts facts;
	DtxFound	found;

	if (v->outcome_hash != NULL)
		outcome = hash_search(v->outcome_hash, gid, HASH_FIND, NULL);

	memset(&facts, 0, sizeof(facts));
	facts.decided = decision != DTX_UNDECIDED;
	facts.commit = decision == DTX_COMMIT;
	facts.cluster = DtxVisitSameCluster(v, prepared->system_id);
	facts.same_endpoint = DtxVisitSameEndpoint(v, prepared->endpoint);
	facts.timeline = v->mixed || prepared->timeline == 0 || v->timeline == 0 ?
		DTX_NOT_TOLD : prepared->timeline == v->timeline ? DTX_SAME : DTX_DIFFERENT;
	facts.xid_known = prepared->remote_xid != 0;
	facts.outcome = outcome != NULL ? outcome->status : DTX_OUTCOME_NOT_TOLD;

	switch (DtxMayForget(&facts))
	{
		case DTX_GONE_FORGET:
			if (decision == DTX_COMMIT && v->has_standbys && !v->replicated)
				return v->witnessed ? DtxGoneStandbyAway(v) : DTX_GONE_NOT_REPLICATED;
			return NULL;
		case DTX_GONE_ELSEWHERE:
			return DTX_GONE_LEADS_ELSEWHERE;
		case DTX_GONE_UNIDENTIFIED:
			return UNIDENTIFIED;
		case DTX_GONE_NO_OUTCOME:
			return NO_OUTCOME;
		case DTX_GONE_COMMITTED:
			found = DTX_FOUND_COMMITTED;
			break;
		case DTX_GONE_ROLLED_BACK:
			found = DTX_FOUND_ROLLED_BACK;
			break;
		case DTX_GONE_LOST:
			found = DTX_FOUND_LOST;
			break;
		default:
			found = DTX_FOUND_UNKNOWN;
			break;
	}
	return DtxVisitRecordDamage(v, gid, decision, found, prepared->remote_xid,
								prepared->system_id) ? NULL : NOT_RECORDED;
}

/*
 * What is known of where an entry was prepared, be it from its session or from
 * what visits have seen (f: what this one has, or NULL).
 */
void
DtxGoneEntryPrepared(DtxVisit *v, const DtxInDoubt *entry, const DtxListedGid *f,
					 DtxPrepared *prepared)
{
	memset(prepared, 0, sizeof(DtxPrepared));
	prepared->serverid = entry->serverid;
	prepared->umid = entry->umid;
	prepared->system_id = entry->system_id;
	prepared->timeline = entry->timeline;
	prepared->endpoint = entry->endpoint;
	prepared->remote_xid = entry->remote_xid;
	if (prepared->system_id == 0)
		prepared->system_id = entry->xid_system_id;
	if (prepared->remote_xid == 0 && f != NULL)
	{
		prepared->system_id = v->system_id;
		prepared->timeline = v->timeline;
		prepared->endpoint = v->nendpoints > 0 ? v->endpoints[v->nendpoints - 1] : 0;
		prepared->remote_xid = f->remote_xid;
	}
}

/*
 * Record damage, in a transaction of the worker.  Returns false if that has to
 * wait, for a lock, or because it fails, say for lack of disk space.  Other gids
 * and servers must not wait for that.
 */
bool
DtxVisitRecordDamage(DtxVisit *v, const DtxGid *gid, DtxDecision decision, DtxFound found,
					 uint64 remote_xid, uint64 system_id)
{
	DtxResolver *r = v->resolver;
	MemoryContext old = CurrentMemoryContext;
	volatile bool recorded = false;

	Assert(r->worker);
	PG_TRY();
	{
		DtxResolverXactBegin(r);
		MemoryContextSwitchTo(CurTransactionContext);
		if (DtxExtensionInstalled() && DtxCoordinatorId() == v->coordinator_id)
			recorded = DtxDamageRecord(gid, v->name, decision, found,
									   remote_xid, system_id);
		MemoryContextSwitchTo(old);
		DtxResolverXactEnd(r);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(old);
		recorded = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (recorded && decision == DTX_COMMIT)
		DtxInDoubtContradicted();
	return recorded;
}
