/*-------------------------------------------------------------------------
 *
 * own_writes.c
 *		What a session has committed is visible in its next transactions, also if not
 *		every server has confirmed it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "commit/connection.h"
#include "commit/handover.h"
#include "commit/late.h"
#include "commit/own_writes.h"
#include "libpq-fe.h"
#include "net/text.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "utils/palloc.h"

/*
 * How often it is looked whether the resolver has done its work, in milliseconds.
 */
#define LOOK_INTERVAL_MS	10

/* Likewise if it is the server that has to be asked. */
#define ASK_INTERVAL_MS		100


/*
 * A remote transaction is about to begin on a connection: whatever this session has
 * committed on that cluster has to be visible in it, also what it has done on
 * connections that are closed now, or as another user.
 *
 * Waits for that, for pg_dtx.commit_timeout at most (DTX_LATE_WAIT_MS if that is
 * longer) after it was waited for first, and throws if that did not help.  Throws on
 * interrupts, too.  Must not look at catalogs, see DtxTransactionJoin().  May find that
 * the wire is broken.
 *
 * The server itself is asked, on this very connection, first, as the last word, and
 * where shared memory can't tell: because there was no room in it, or because it is
 * not known which cluster the connection leads to.
 */
void
DtxOwnWritesAwait(DtxConnection *c)
{
	uint64		system_id = c->endpoint.system_id;

	DTX_ASSERT_MAY_THROW();
	DtxLateAwaitFor(c, false);

	for (int i = 0; i < DtxHandedOverCount() && !c->wire.broken;)
	{
		DtxHandedOver *h = DtxHandedOverGet(i);
		DtxGid		gid = h->gid;
		bool		same = system_id != 0 && h->system_id == system_id;
		DtxMoment	now = DtxNow();
		bool		ask;

		if (!DtxEndpointMayBeSame(h->system_id, system_id))
		{
			i++;
			continue;
		}
		if (DtxHandedOverIsDone(h))
		{
			DtxHandedOverForget(i);
			continue;
		}
		ask = h->wait_until == 0 || !h->recorded || !same || now >= h->wait_until;

		/* The question has to wait for what is due on the connection. */
		if (ask && DtxLateDueOn(c))
		{
			DtxLateAwait(c);
			continue;
		}
		if (h->wait_until == 0)
			h->wait_until = now + Max(dtx_commit_timeout, DTX_LATE_WAIT_MS);
		if (ask && !DtxConnectionIsPrepared(c, &gid))
		{
			/* What a server that is another one does not know proves nothing. */
			if (same)
				DtxHandedOverForget(i);
			else
				i++;
			continue;
		}
		if (c->wire.broken)
			break;
		if (now >= h->wait_until)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("server \"%s\" has not confirmed an earlier transaction of this session yet",
							h->server_name),
					 errdetail("That transaction has committed, but what it did on this server cannot be seen there before it is confirmed."),
					 errhint("Try again later.  The resolver goes on until it is confirmed; view \"dtx.in_doubt\" shows what is left.")));

		/* As long as we are responsible, the resolver keeps away from it. */
		if (gid.xid == DtxLateXid())
			DtxLateAwaitFor(c, true);
		DtxWirePause(ask ? ASK_INTERVAL_MS : LOOK_INTERVAL_MS, DtxConnectionWaitEvent());
	}
}

/*
 * A connection whose remote transaction is only about to begin on its server, or has
 * to begin anew, can't be used: make it anew, as postgres_fdw does when START
 * TRANSACTION fails (GetConnection in contrib/postgres_fdw/connection.c).  Whatever
 * this session has committed on that server is visible then.  Throws on interrupts,
 * and if that did not help.
 */
void
DtxOwnWritesReconnect(DtxConnection *c)
{
	PG_TRY();
	{
		if (DtxConnectionRenew(c, DTX_NEVER))
		{
			if (c->extension_seen && DtxTwoPhaseCommit())
				DtxConnectionAskCluster(c);
			if (!c->wire.broken)
				DtxOwnWritesAwait(c);
		}
	}
	PG_CATCH();
	{
		DtxWireBreak(&c->wire, "connection lost");
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (c->wire.broken)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 DtxEndpointIsKnown(&c->endpoint) ?
				 errmsg("could not connect to server \"%s\"", c->endpoint.server_name) :
				 errmsg("could not connect to a server"),
				 PQerrorMessage(c->wire.conn)[0] != '\0' ?
				 errdetail_internal("%s", DtxCleanText(PQerrorMessage(c->wire.conn),
													   DTX_MAX_REMOTE_TEXT)) : 0));
}
