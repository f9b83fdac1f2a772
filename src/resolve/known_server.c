/*-------------------------------------------------------------------------
 *
 * known_server.c
 *		What the worker remembers of each foreign server between its visits.
 *
 * This survives errors of the worker.  Entries of the hash table do not move, so a
 * pointer to one may be kept until it is removed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/process.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "state/activity.h"
#include "state/decision.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"

/* By OID.  Survives errors of the worker. */
HTAB	   *DtxKnownServers = NULL;

/*
 * Close the connection that was kept for the next visit, if there is one.  Does not throw.
 */
void
DtxKnownServerDropConnection(DtxKnownServer *state)
{
	if (state->kept != NULL)
		DtxRemoteClose(state->kept);
	state->kept = NULL;
}

/*
 * What a decision row, of any transaction, tells of the use of servers.  (Entries of
 * the hash table do not move, so a pointer to one may be kept until it is removed.)
 */
void
DtxKnownServersUsedBy(const DtxDecisionRow *row)
{
	DtxMoment	decided_at = DtxTimestampToMoment(row->decided_at);

	for (int i = 0; i < row->nparticipants; i++)
	{
		DtxKnownServer *state = DtxKnownServerGet(row->prepared[i].serverid);

		if (decided_at >= state->used_at)
		{
			state->used_at = decided_at;
			state->used_umid = row->prepared[i].umid;
		}
	}
}

/*
 * And those that are committing now, or about which a server has decided lately: they have
 * no row.
 */
void
DtxKnownServersInUse(void)
{
	DtxActivity *a = palloc(sizeof(DtxActivity));

	for (int i = 0; i < DtxActivityCount(); i++)
	{
		Oid			used[DTX_USED_SERVERS];
		DtxMoment	used_at = 0;
		int			nused = DtxActivityUsed(i, used, &used_at);

		for (int n = 0; n < nused; n++)
		{
			DtxKnownServer *state = DtxKnownServerGet(used[n]);

			state->used_at = Max(state->used_at, used_at);
		}
		if (!DtxActivityGet(i, a) || a->dbid != MyDatabaseId ||
			a->state < DTX_PREPARING)
			continue;
		for (int n = 0; n < Min(a->nparticipants, DTX_SHOWN_PARTICIPANTS); n++)
		{
			if (OidIsValid(a->servers[n]))
				DtxKnownServerGet(a->servers[n])->used_at = DtxNow();
		}
	}
	pfree(a);
}

/*
 * Does this foreign server exist?  The worker, which is not in a transaction,
 * knows from its last look.
 */
bool
DtxKnownServerExists(DtxResolver *r, Oid serverid)
{
	if (r->worker)
		return DtxKnownServerGet(serverid)->exists;
	return GetForeignServerExtended(serverid, FSV_MISSING_OK) != NULL;
}

/* What the worker knows of a server; made if need be. */
DtxKnownServer *
DtxKnownServerGet(Oid serverid)
{
	DtxKnownServer *state;
	bool		found;

	DtxAssertInWorker();
	state = hash_search(DtxKnownServers, &serverid, HASH_ENTER, &found);
	if (!found)
	{
		memset(state, 0, sizeof(DtxKnownServer));
		state->serverid = serverid;
	}
	return state;
}
