/*-------------------------------------------------------------------------
 *
 * server_changes.c
 *		What was known of a foreign server is not known any more when it was changed.
 *
 * dtx.servers shows what the last visit has found.  After ALTER SERVER that is true of
 * another address, so it is forgotten when the transaction commits, and the resolver is
 * asked to look at servers anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/server_changes.h"
#include "state/in_doubt.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "worker/wake.h"

/* Servers that the current transaction has changed; in TopTransactionContext. */
static List *changed = NIL;

static void server_changes_xact_callback(XactEvent event, void *arg);

/* Install the callback.  Called at server start. */
void
DtxServerChangesInstallHooks(void)
{
	RegisterXactCallback(server_changes_xact_callback, NULL);
}

/*
 * The current transaction has changed a foreign server.  Throws if out of memory.
 */
void
DtxServerChanged(Oid serverid)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	DtxServerStatus status;

	changed = list_append_unique_oid(changed, serverid);
	MemoryContextSwitchTo(old);

	/*
	 * Not for servers that were never visited: a user who may create servers
	 * could have all others visited again and again.
	 */
	if (DtxServerStatusGet(MyDatabaseId, serverid, &status))
		DtxLauncherAskPass();
}

/*
 * At COMMIT the change is visible to every visit that begins from now on.  What a
 * prepared transaction has changed is forgotten when it is prepared, because nobody
 * knows what is in it later.  Does not throw.
 */
static void
server_changes_xact_callback(XactEvent event, void *arg)
{
	ListCell   *lc;

	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			foreach(lc, changed)
				DtxServerStatusChanged(MyDatabaseId, lfirst_oid(lc));
			changed = NIL;
			break;
		case XACT_EVENT_ABORT:
			changed = NIL;
			break;
		default:
			break;
	}
}
