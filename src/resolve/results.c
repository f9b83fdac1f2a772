/*-------------------------------------------------------------------------
 *
 * results.c
 *		What a visit leaves behind: entries of the in-doubt table, confirmations of
 *		decision rows, the status of the server, and what a backend wants to know.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commands/defrem.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/wrapper.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "resolve/decider.h"
#include "resolve/gone.h"
#include "resolve/judge.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/results.h"
#include "resolve/unconfirmed.h"
#include "resolve/visit.h"
#include "state/decision.h"
#include "state/in_doubt.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"
#include "worker/wake.h"

/* Pause before a server that left something undone is visited again, ms. */
#define REVISIT_PAUSE		200

/*
 * An entry that is to be rolled back is kept for this time, milliseconds, even
 * if nothing is seen of it: its PREPARE may be under way.
 */
#define LATE_PREPARE_GRACE	1000

/* Why something that is not seen on its server is not done. */
#define GONE_UNDECIDED	"it is not prepared any more, and the server that decides about it has not said what should have become of it"

static bool enter_in_doubt(DtxVisit *v, const DtxGid *gid, const char *owner,
						   Oid umid, DtxDecision decision, const char *error,
						   DtxMoment next_attempt);
static void add_result(DtxVisit *v, DtxListedGid *f);
static bool is_business_of_other(DtxVisit *v, DtxListedGid *f);
static char *unfinished_reason(DtxVisit *v, DtxListedGid *f);
static void review_entries(DtxVisit *v);
static void review_gone_entry(DtxVisit *v, DtxInDoubt *entry, DtxListedGid *f);
static void leave_to_worker(DtxVisit *v, const DtxGid *gid);
static void confirm_rows(DtxVisit *v);
static void set_status(DtxVisit *v, bool reachable);
static void entry_finished(DtxVisit *v, const DtxGid *gid);

/*
 * COMMIT PREPARED or ROLLBACK PREPARED has been answered.
 */
void
DtxVisitGidAnswered(DtxVisit *v, const DtxRemoteError *error)
{
	DtxListedGid *f = v->current;
	char		gid[DTX_GID_SIZE];

	DTX_FAULT("resolver-finished", NULL);

	/* Gone it is, but what that means is for the witness to say. */
	if (error->sqlstate == 0 && error->warned && f->decision == DTX_COMMIT &&
		v->purpose == DTX_VISIT_RESOLVE)
	{
		f->error.sqlstate = ERRCODE_WARNING;
		f->error.message = MemoryContextStrdup(v->cxt, DTX_GONE_NOT_REPLICATED);
		(void) enter_in_doubt(v, &f->gid, f->owner, InvalidOid, f->decision,
							  DTX_GONE_NOT_REPLICATED, DtxRetryAfter(1));
		f->state = DTX_LISTED_GONE;
		v->witnessed = v->replicated = false;
		add_result(v, f);
		return;
	}

	if (error->sqlstate == 0)
	{
		f->state = DTX_LISTED_DONE;
		entry_finished(v, &f->gid);
		if (v->purpose == DTX_VISIT_RESOLVE)
			DtxStatsAdd(f->decision == DTX_COMMIT ?
						DTX_STAT_RESOLVED_COMMIT : DTX_STAT_RESOLVED_ROLLBACK, 1);
		DtxGidFormat(&f->gid, gid);
		ereport(LOG,
				(f->decision == DTX_COMMIT ?
				 errmsg("committed prepared transaction \"%s\" on server \"%s\"",
						gid, v->name) :
				 errmsg("rolled back prepared transaction \"%s\" on server \"%s\"",
						gid, v->name)));
		add_result(v, f);
		return;
	}

	f->error.sqlstate = error->sqlstate;
	f->error.message = MemoryContextStrdup(v->cxt, error->message);
	f->error.detail = error->detail ?
		MemoryContextStrdup(v->cxt, error->detail) : NULL;
	f->error.hint = error->hint ?
		MemoryContextStrdup(v->cxt, error->hint) : NULL;

	/*
	 * It was there a moment ago, so others have finished it: another
	 * resolver, its own backend late, or a human.  The worker looks how, if
	 * there is a decision row, or an entry from before this visit.  If there
	 * is neither, it may have been finished, and its row deleted, between our
	 * list and our look at the decisions.
	 */
	if (error->sqlstate == ERRCODE_UNDEFINED_OBJECT &&
		v->purpose == DTX_VISIT_RESOLVE)
	{
		f->state = DTX_LISTED_GONE;
		return;
	}

	/*
	 * "Busy": the worker, most likely, is finishing it in this moment.  A
	 * backend must not enter it again, a moment after the worker has removed
	 * it.
	 */
	if (error->sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
		v->purpose == DTX_VISIT_RESOLVE && !v->resolver->worker)
	{
		f->state = DTX_LISTED_FAILED;
		leave_to_worker(v, &f->gid);
		add_result(v, f);
		return;
	}

	DtxVisitGidFailed(v, f);
}

/*
 * A gid could not be finished: enter it, tell why, try again later.
 */
void
DtxVisitGidFailed(DtxVisit *v, DtxListedGid *f)
{
	f->state = DTX_LISTED_FAILED;

	if (v->purpose == DTX_VISIT_RESOLVE)
	{
		DtxInDoubt	entry;
		int			attempts = 0;
		bool		ours;
		bool		known;

		ours = enter_in_doubt(v, &f->gid, f->owner, InvalidOid, f->decision, "", 0);
		known = DtxInDoubtGet(&f->gid, &entry);
		if (known)
			attempts = entry.attempts;

		/* The entry of another server's gid tells what is wrong there. */
		if (ours)
			DtxInDoubtFailed(&f->gid, f->error.message, f->error_umid,
							 DtxRetryAfter(attempts + 1));
		if (attempts == 0 &&
			(ours || (!known && f->decision != DTX_UNDECIDED)))
		{
			char		gid[DTX_GID_SIZE];

			DtxGidFormat(&f->gid, gid);
			ereport(LOG,
					(f->decision == DTX_UNDECIDED ?
					 errmsg("prepared transaction \"%s\" on server \"%s\" is left alone: %s",
							gid, v->name, f->error.message) :
					 f->decision == DTX_COMMIT ?
					 errmsg("could not commit prepared transaction \"%s\" on server \"%s\": %s",
							gid, v->name, f->error.message) :
					 errmsg("could not roll back prepared transaction \"%s\" on server \"%s\": %s",
							gid, v->name, f->error.message)));
		}
	}
	add_result(v, f);
}

/*
 * The server that decides about a gid has to be asked first: enter it, and look again
 * when it has answered, or later.  "why_umid": user mapping whose options the reason may
 * show, or InvalidOid.
 */
void
DtxVisitGidWaits(DtxVisit *v, DtxListedGid *f, const char *why, Oid why_umid)
{
	DtxInDoubt	entry;

	f->state = DTX_LISTED_FAILED;
	f->decision = DTX_UNDECIDED;
	f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
	f->error.message = MemoryContextStrdup(v->cxt, why);
	if (enter_in_doubt(v, &f->gid, f->owner, InvalidOid, DTX_UNDECIDED, "", 0) &&
		DtxInDoubtGet(&f->gid, &entry))
		DtxInDoubtFailed(&f->gid, why, why_umid, DtxRetryAfter(entry.attempts + 1));
	add_result(v, f);
}

/*
 * Enter a gid that a visit has found into the in-doubt table.  No server may
 * fill it alone.  Returns false if there is no entry of this server.
 */
static bool
enter_in_doubt(DtxVisit *v, const DtxGid *gid, const char *owner, Oid umid,
			   DtxDecision decision, const char *error, DtxMoment next_attempt)
{
	DtxInDoubt	entry;
	DtxListedGid *f;

	f = hash_search(v->found_hash, gid, HASH_FIND, NULL);

	/*
	 * Is it the business of another server of the same cluster?  If a session
	 * or a decision row says so, or if it is not in our database; otherwise
	 * that other one has merely seen it first.
	 */
	if (DtxInDoubtGet(gid, &entry) && entry.serverid != v->serverid &&
		DtxKnownServerExists(v->resolver, entry.serverid) &&
		(entry.system_id != 0 || f == NULL || f->database == NULL ||
		 strcmp(f->database, v->database) != 0))
		return false;

	if (DtxVisitEntry(v, gid) == NULL &&
		list_length(v->entries) + ++v->nadded > Max(16, dtx_max_in_doubt / 4))
		return false;

	memset(&entry, 0, sizeof(entry));
	entry.gid = *gid;
	entry.serverid = v->serverid;
	entry.umid = umid;
	if (owner != NULL)
		strlcpy(entry.remote_user, owner, sizeof(entry.remote_user));
	entry.decision = decision;
	if (f != NULL && f->remote_xid != 0 && !v->mixed)
	{
		entry.remote_xid = f->remote_xid;
		entry.xid_system_id = v->system_id;
		entry.timeline = v->timeline;
		entry.endpoint = v->nendpoints > 0 ? v->endpoints[v->nendpoints - 1] : 0;
	}
	entry.since = GetCurrentTimestamp();
	entry.next_attempt = next_attempt;
	strlcpy(entry.last_error, error, sizeof(entry.last_error));
	return DtxInDoubtAddListed(&entry, v->system_id);
}

/*
 * Remember a result for the caller of DtxResolveNow(); f is NULL if the server
 * was not reached.
 */
static void
add_result(DtxVisit *v, DtxListedGid *f)
{
	DtxResolver *r = v->resolver;
	MemoryContext old;
	DtxResolved *result;

	if (r->worker || v->purpose != DTX_VISIT_RESOLVE)
		return;

	old = MemoryContextSwitchTo(r->result_cxt);
	result = palloc0(sizeof(DtxResolved));
	result->serverid = v->serverid;
	result->server = pstrdup(v->name);
	if (f != NULL)
	{
		result->gid = palloc(DTX_GID_SIZE);
		DtxGidFormat(&f->gid, result->gid);
		result->decision = f->decision;
		result->done = f->state == DTX_LISTED_DONE;
		if (f->error.message != NULL)
			result->error = pstrdup(f->error.message);
	}
	else
		result->error = pstrdup(v->error);
	r->results = lappend(r->results, result);
	MemoryContextSwitchTo(old);
}

/*
 * Is a gid that could not be finished the business of another foreign server, because
 * it was prepared in a database to which this one does not lead, and that one does?
 * That one tells, if it cannot be finished there either.
 */
static bool
is_business_of_other(DtxVisit *v, DtxListedGid *f)
{
	DtxResolver *r = v->resolver;
	MemoryContext old;
	DtxInDoubt	entry;
	bool		found = false;
	ListCell   *lc;

	if (f->database == NULL || v->database == NULL ||
		strcmp(f->database, v->database) == 0)
		return false;
	if (DtxInDoubtGet(&f->gid, &entry) && entry.serverid != v->serverid &&
		DtxKnownServerExists(r, entry.serverid))
		return true;

	/* Most of what is listed is in the same one. */
	if (v->other_database != NULL && strcmp(v->other_database, f->database) == 0)
		return v->other_leads_there;

	DtxResolverXactBegin(r);
	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, DtxPostgresFdwServers())
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);
		ListCell   *lc2;

		if (server->serverid == v->serverid)
			continue;
		foreach(lc2, server->options)
		{
			DefElem    *def = (DefElem *) lfirst(lc2);

			if (strcmp(def->defname, "dbname") == 0 &&
				strcmp(defGetString(def), f->database) == 0)
				found = true;
		}
	}
	MemoryContextSwitchTo(old);
	DtxResolverXactEnd(r);
	v->other_database = f->database;
	v->other_leads_there = found;
	return found;
}

/* Why no connection of the visit could finish it. */
static char *
unfinished_reason(DtxVisit *v, DtxListedGid *f)
{
	StringInfoData text;

	initStringInfo(&text);
	if (f->database != NULL && v->database != NULL &&
		strcmp(f->database, v->database) != 0)
		appendStringInfo(&text, "it was prepared in database \"%s\", and this server leads to database \"%s\"",
						 f->database, v->database);
	else if (f->owner == NULL)
		appendStringInfoString(&text, "its owner was dropped, and no user mapping leads to a superuser");
	else
		appendStringInfo(&text, "no user mapping leads to its owner \"%s\" in database \"%s\"",
						 f->owner, f->database ? f->database : "?");
	if (v->refusal != NULL)
	{
		appendStringInfo(&text, "; one was refused: %s", v->refusal);
		f->error_umid = v->refusal_umid;
	}
	return text.data;
}

/*
 * The server has been reached and nothing more can be done there now.
 */
void
DtxVisitSucceeded(DtxVisit *v)
{
	MemoryContext old;
	ListCell   *lc;

	/* What no user could finish. */
	foreach(lc, v->found)
	{
		DtxListedGid *f = (DtxListedGid *) lfirst(lc);

		if (f->state != DTX_LISTED_DECIDED)
			continue;

		/* pg_prepared_xacts shows those of the whole cluster. */
		if (is_business_of_other(v, f))
		{
			f->state = DTX_LISTED_LEFT;
			continue;
		}
		f->error.sqlstate = ERRCODE_INSUFFICIENT_PRIVILEGE;
		old = MemoryContextSwitchTo(v->cxt);
		f->error.message = unfinished_reason(v, f);
		MemoryContextSwitchTo(old);
		DtxVisitGidFailed(v, f);
	}

	if (v->purpose == DTX_VISIT_RESOLVE)
	{
		review_entries(v);
		set_status(v, true);

		if (v->resolver->worker)
		{
			DtxKnownServer *state = DtxKnownServerGet(v->serverid);

			confirm_rows(v);
			if (state->backoff.failures > 0)
				ereport(LOG,
						(errmsg("server \"%s\" can be reached again, after %d failed attempts",
								v->name, state->backoff.failures)));
			DtxBackoffReset(&state->backoff);
			state->hurry_after = DtxIn(v->entries != NIL ? REVISIT_PAUSE : 0);
			state->good_umid = v->good_umid;
		}
	}
	DtxDeciderVisitOver(v);
	DtxVisitEnd(v);
}

/*
 * The server could not be reached, or answered nonsense.  v->error tells.
 */
void
DtxVisitFailed(DtxVisit *v)
{
	if (v->purpose == DTX_VISIT_RESOLVE)
	{
		ListCell   *lc;

		foreach(lc, v->entries)
		{
			DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
			DtxListedGid *f = hash_search(v->found_hash, &entry->gid, HASH_FIND,
										  NULL);

			if (f != NULL && (f->state == DTX_LISTED_DONE ||
							  f->state == DTX_LISTED_FAILED))
				continue;
			DtxInDoubtFailed(&entry->gid, v->error, v->error_umid,
							 DtxRetryAfter(entry->attempts + 1));
		}
		set_status(v, false);

		if (v->resolver->worker)
		{
			DtxKnownServer *state = DtxKnownServerGet(v->serverid);

			if (state->backoff.failures == 0)
				ereport(LOG,
						(errmsg("could not resolve prepared transactions on server \"%s\": %s",
								v->name, v->error)));
			DtxBackoffFailed(&state->backoff, DTX_RETRY_MIN_MS, DtxRetryPauseMax());
			state->hurry_after = DtxIn(DTX_RETRY_MIN_MS);

			foreach(lc, v->resolver->unconfirmed)
			{
				DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);

				for (int i = 0; i < note->row.nparticipants; i++)
				{
					if (note->row.prepared[i].serverid == v->serverid)
						DtxUnconfirmedShow(v->resolver, note, i, v->error,
										   v->error_umid);
				}
			}
		}
		add_result(v, NULL);
	}
	DtxDeciderVisitOver(v);
	DtxVisitEnd(v);
}

/*
 * What has become of the entries that were in the in-doubt table when this
 * visit began?  Those not seen any more go.
 */
static void
review_entries(DtxVisit *v)
{
	ListCell   *lc;

	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		DtxListedGid *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);

		if (f != NULL)
		{
			/* It was prepared and is not any more, so it cannot come back. */
			if (f->state == DTX_LISTED_GONE && !v->truncated)
				review_gone_entry(v, entry, f);

			/*
			 * DTX_LISTED_LEFT stays as it is; the others have been dealt
			 * with.
			 */
			continue;
		}

		/* Not seen because we have not seen everything. */
		if (v->truncated)
			continue;

		if (DtxVisitSawPrepare(v, &entry->gid))
		{
			DtxInDoubtFailed(&entry->gid,
							 "its PREPARE TRANSACTION is still running on the server",
							 InvalidOid,
							 DtxRetryAfter(entry->attempts + 1));
			continue;
		}

		if (entry->decision == DTX_ROLLBACK &&
			v->began_at < entry->entered + LATE_PREPARE_GRACE)
			continue;

		review_gone_entry(v, entry, NULL);
	}
}

/*
 * The gid of an entry is not prepared any more, and we have not finished it
 * (f: what was seen of it, or NULL).  Forget it, unless it is not known yet
 * whether it was finished as it was decided.
 */
static void
review_gone_entry(DtxVisit *v, DtxInDoubt *entry, DtxListedGid *f)
{
	DtxPrepared prepared;
	const char *why;

	/* Whether it ended as decided can be told when that is known. */
	if (DtxGidDecidedElsewhere(&entry->gid) && entry->decision == DTX_UNDECIDED)
	{
		if (v->resolver->worker)
		{
			DtxDeciderWant(v->resolver, &entry->gid, false);
			DtxInDoubtFailed(&entry->gid, GONE_UNDECIDED, InvalidOid,
							 DtxRetryAfter(entry->attempts + 1));
		}
		else
			leave_to_worker(v, &entry->gid);
		return;
	}
	DtxGoneEntryPrepared(v, entry, f, &prepared);
	why = DtxGoneWhyKept(v, &entry->gid, entry->decision, &prepared);
	if (why == NULL)
		DtxInDoubtRemove(&entry->gid);
	else if (v->resolver->worker)
		DtxInDoubtFailed(&entry->gid, why, InvalidOid,
						 DtxRetryAfter(entry->attempts + 1));
	else
		leave_to_worker(v, &entry->gid);
}

/*
 * In a backend: what the worker can find out about a gid, or is just finding out, is
 * not for us to tell.  It is to do so now.
 */
static void
leave_to_worker(DtxVisit *v, const DtxGid *gid)
{
	MemoryContext old = MemoryContextSwitchTo(v->resolver->cxt);
	DtxInDoubt *entry = palloc(sizeof(DtxInDoubt));

	if (DtxInDoubtGet(gid, entry))
		v->resolver->left = lappend(v->resolver->left, entry);
	MemoryContextSwitchTo(old);
	DtxInDoubtHurry(gid);
	DtxLauncherWakeResolver(MyDatabaseId);
}

/*
 * Which participants of decision rows does this visit confirm?
 */
static void
confirm_rows(DtxVisit *v)
{
	DtxResolver *r = v->resolver;
	ListCell   *lc;

	foreach(lc, r->unconfirmed)
	{
		DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);

		/* Only if the visit began after the row was read. */
		if (note->serial >= v->serial)
			continue;

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			DtxGid		gid;
			DtxListedGid *f;
			bool		confirmed;

			if (note->confirmed[i])
				continue;
			DtxUnconfirmedGid(r, note, i, &gid);
			f = hash_search(v->found_hash, &gid, HASH_FIND, NULL);

			/*
			 * Only the server that was asked to prepare it can confirm it, or
			 * if that was dropped, another name of the same cluster.  The gid
			 * alone proves nothing: any user who can prepare transactions on
			 * some server may have used it.
			 */
			if (f != NULL && f->state == DTX_LISTED_DONE &&
				note->row.prepared[i].serverid != v->serverid)
				confirmed = DtxVisitSameCluster(v, note->row.prepared[i].system_id) == DTX_SAME &&
					!DtxKnownServerGet(note->row.prepared[i].serverid)->exists;
			else if (note->row.prepared[i].serverid != v->serverid)
				confirmed = false;
			else if (f != NULL && f->state == DTX_LISTED_DONE)
				confirmed = DtxVisitSameCluster(v, note->row.prepared[i].system_id) != DTX_DIFFERENT;
			else
			{
				confirmed = !v->truncated &&
					(f == NULL || f->state == DTX_LISTED_GONE);
				if (confirmed)
				{
					const char *why = DtxGoneWhyKept(v, &gid, DTX_COMMIT,
													 &note->row.prepared[i]);

					if (why != NULL)
					{
						DtxUnconfirmedShow(r, note, i, why, InvalidOid);
						confirmed = false;
					}
				}
			}

			if (confirmed)
			{
				note->confirmed[i] = true;
				note->nconfirmed++;
			}
		}
		if (note->nconfirmed >= note->row.nparticipants)
			r->prunable = true;
	}
}

static void
set_status(DtxVisit *v, bool reachable)
{
	DtxServerStatus status;

	memset(&status, 0, sizeof(status));
	if (!DtxServerStatusGet(MyDatabaseId, v->serverid, &status))
	{
		status.dbid = MyDatabaseId;
		status.serverid = v->serverid;
		status.slots_used = -1;
		status.slots_total = -1;
	}
	status.reachable = reachable;
	status.checked_at = status.visited_at = GetCurrentTimestamp();
	status.seen_changes = v->seen_changes;
	if (v->version != 0)
		status.version = v->version;
	if (reachable)
	{
		status.failures = 0;
		status.last_error[0] = '\0';
		status.error_umid = InvalidOid;
	}
	else
	{
		status.failures++;
		strlcpy(status.last_error, v->error, sizeof(status.last_error));
		status.error_umid = v->error_umid;
	}
	if (v->slots_total >= 0)
	{
		status.slots_used = v->slots_used;
		status.slots_total = v->slots_total;
	}
	DtxServerStatusSet(&status);
}

/*
 * We have finished a gid: forget its entry, if it was this server's, or that of
 * a server that was dropped and led to the same cluster.
 */
static void
entry_finished(DtxVisit *v, const DtxGid *gid)
{
	DtxInDoubt	entry;
	bool		same;

	if (!DtxInDoubtGet(gid, &entry) || DtxVisitLeadsElsewhere(v, entry.system_id))
		return;
	same = entry.serverid == v->serverid;
	if (!same && entry.system_id != 0)
		same = !DtxKnownServerExists(v->resolver, entry.serverid);
	if (same)
		DtxInDoubtRemove(gid);
}
