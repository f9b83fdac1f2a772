/*-------------------------------------------------------------------------
 *
 * remote.c
 *		A connection of pg_dtx's own to a foreign server.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "libpq-fe.h"
#include "net/remote.h"
#include "net/text.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/palloc.h"

/*
 * Close a connection.  The handler is not called any more, and the memory is freed at
 * the end of the current or next DtxRemoteWait().  Does not throw; closing twice does
 * no harm.
 */
void
DtxRemoteClose(DtxRemote *remote)
{
	if (remote->state == DTX_REMOTE_CLOSED)
		return;
	if (remote->state == DTX_REMOTE_PARKED)
	{
		remote->set->nparked--;
		remote->place->nparked--;
	}
	DtxRemoteDisconnect(remote);
	remote->state = DTX_REMOTE_CLOSED;
	remote->set->nremotes--;
}

/*
 * Close the connection and tell its owner.  "error" may be libpq's.  Throws what its
 * failed() throws.
 */
void
DtxRemoteFail(DtxRemote *remote, DtxRemoteFailure failure, const char *error)
{
	MemoryContext old = MemoryContextSwitchTo(remote->cxt);
	char	   *text = DtxCleanText(error, DTX_REMOTE_MAX_ERROR_TEXT);

	MemoryContextSwitchTo(old);
	DtxRemoteClose(remote);
	remote->handler->failed(remote, remote->arg, failure, text);
}

/*
 * Free what is not palloc'd.  Never throws.
 */
void
DtxRemoteDisconnect(DtxRemote *remote)
{
	if (remote->result != NULL)
	{
		PQclear(remote->result);
		remote->result = NULL;
	}
	if (remote->conn != NULL)
	{
		PQfinish(remote->conn);
		remote->conn = NULL;
		remote->set->dirty = true;
	}
	if (remote->has_fd)
	{
		ReleaseExternalFD();
		remote->has_fd = false;
		remote->set->nconnections--;
		remote->place->nconnections--;
	}
}

/*
 * Wait for these events on the connection's socket from now on.
 */
void
DtxRemoteWant(DtxRemote *remote, uint32 events)
{
	DtxRemoteSet *set = remote->set;

	if (remote->events == events)
		return;
	remote->events = events;
	if (!set->dirty && remote->position >= 0)
		ModifyWaitEvent(set->events, remote->position, events, NULL);
	else
		set->dirty = true;
}

/*
 * The server's version, as PQserverVersion().
 */
int
DtxRemoteVersion(DtxRemote *remote)
{
	return PQserverVersion(remote->conn);
}

/*
 * The process that the server said, when it was connected to, that it serves us
 * with; 0 if it did not say.
 */
int
DtxRemoteBackendPid(DtxRemote *remote)
{
	return PQbackendPID(remote->conn);
}
