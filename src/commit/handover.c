/*-------------------------------------------------------------------------
 *
 * handover.c
 *		Leaving a participant to the resolver: it is told, and the session remembers
 *		what it has committed and cannot see on a server yet.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/gid.h"
#include "base/guarded.h"
#include "base/stats.h"
#include "commit/handover.h"
#include "commit/participant.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "state/activity.h"
#include "state/in_doubt.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

/*
 * Oldest first.  There is always room for as many more as this session may have to
 * leave to the resolver: that is seen to before participants are prepared.
 */
static DtxHandedOver *handed_over = NULL;
static int	nhanded_over = 0;
static int	max_handed_over = 0;

/*
 * Make room for n participants that the current transaction and earlier ones may leave
 * to the resolver.  To be called before participants are prepared; throws if out of
 * memory.
 */
void
DtxHandOverReserve(int n)
{
	DTX_ASSERT_MAY_THROW();
	for (int i = 0; i < nhanded_over;)
	{
		if (DtxHandedOverIsDone(&handed_over[i]))
			DtxHandedOverForget(i);
		else
			i++;
	}
	n += nhanded_over;
	if (n <= max_handed_over)
		return;
	if (handed_over == NULL)
		handed_over = MemoryContextAlloc(TopMemoryContext,
										 sizeof(DtxHandedOver) * n * 2);
	else
		handed_over = repalloc(handed_over, sizeof(DtxHandedOver) * n * 2);
	max_handed_over = n * 2;
}

/*
 * The resolver is to finish a participant as p->decision says.  Does not throw.
 * commit_lsn: end of the record of the local commit, if this is called by the
 * transaction itself, else invalid.
 *
 * If shared memory is full nothing is lost: the next full pass finds the gid on its
 * server, and the decision table says what is to become of it.  If it is to be
 * committed, the session's next transactions there wait for that.
 */
void
DtxHandOver(DtxParticipant *p, XLogRecPtr commit_lsn)
{
	const DtxConnectionEndpoint *e = &p->connection->endpoint;
	const char *user = PQuser(p->connection->wire.conn);
	DtxInDoubt	entry;
	bool		recorded;

	memset(&entry, 0, sizeof(entry));
	entry.gid = p->gid;
	entry.serverid = e->serverid;
	entry.umid = e->umid;
	entry.system_id = e->system_id;
	entry.timeline = e->timeline;
	entry.endpoint = e->hash;
	entry.remote_xid = p->remote_xid;
	entry.xid_system_id = e->system_id;
	entry.userid = GetSessionUserId();
	strlcpy(entry.application_name, application_name, NAMEDATALEN);
	entry.started = DtxActivityStarted(p->gid.xid);
	if (user != NULL)
		strlcpy(entry.remote_user, user, NAMEDATALEN);
	entry.decision = p->decision;
	entry.proven = p->proven;
	if (commit_lsn != InvalidXLogRecPtr)
	{
		entry.commit_lsn = commit_lsn;
		entry.commit_level = synchronous_commit;
	}
	entry.since = GetCurrentTimestamp();
	strlcpy(entry.last_error, p->error, sizeof(entry.last_error));
	recorded = DtxInDoubtAdd(&entry);
	DtxStatsAdd(DTX_STAT_HANDED_OVER, 1);

	if (p->decision == DTX_COMMIT && DtxHandedOverFind(&p->gid) == NULL)
	{
		Assert(nhanded_over < max_handed_over);
		if (nhanded_over < max_handed_over)
		{
			DtxHandedOver *h = &handed_over[nhanded_over++];

			h->gid = p->gid;
			h->system_id = e->system_id;
			h->recorded = recorded;
			h->wait_until = 0;
			strlcpy(h->server_name, e->server_name, NAMEDATALEN);
		}
	}
}

/*
 * Has the resolver finished it?  If in_doubt.c had no room for it, that is not known.
 */
bool
DtxHandedOverIsDone(const DtxHandedOver *h)
{
	DtxInDoubt	entry;

	return h->recorded && !DtxInDoubtGet(&h->gid, &entry);
}

/* How many there are, for DtxHandedOverGet(). */
int
DtxHandedOverCount(void)
{
	return nhanded_over;
}

/* Number i, from 0; valid until the next one is handed over or forgotten. */
DtxHandedOver *
DtxHandedOverGet(int i)
{
	Assert(i >= 0 && i < nhanded_over);
	return &handed_over[i];
}

/* That with this gid, or NULL. */
DtxHandedOver *
DtxHandedOverFind(const DtxGid *gid)
{
	for (int i = 0; i < nhanded_over; i++)
	{
		if (memcmp(&handed_over[i].gid, gid, sizeof(DtxGid)) == 0)
			return &handed_over[i];
	}
	return NULL;
}

/* Number i can be seen by the session's next transactions. */
void
DtxHandedOverForget(int i)
{
	nhanded_over--;
	memmove(&handed_over[i], &handed_over[i + 1],
			sizeof(handed_over[0]) * (nhanded_over - i));
}
