/*-------------------------------------------------------------------------
 *
 * remote_park.c
 *		Connections that are kept for their next use.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "libpq-fe.h"
#include "net/remote.h"
#include "net/remote_park.h"
#include "net/target.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* In one set, and to one place. */
#define MAX_PARKED				16
#define MAX_PARKED_AT_PLACE		2

/*
 * Keep a connection that can take a command for later, instead of closing it; only
 * from within the handler's ready().  Returns false if there is no room: close it
 * then.  From now on the connection is "handler"'s, whose failed() is called if it is
 * lost; its target is kept with it, so the owner's may go.
 */
bool
DtxRemotePark(DtxRemote *remote, const DtxRemoteHandler *handler, void *arg)
{
	MemoryContext old;

	Assert(remote->state == DTX_REMOTE_IDLE);
	if (remote->set->nparked >= MAX_PARKED ||
		remote->place->nparked >= MAX_PARKED_AT_PLACE)
		return false;
	old = MemoryContextSwitchTo(remote->cxt);
	remote->target = DtxTargetCopy(remote->target);
	MemoryContextSwitchTo(old);
	remote->handler = handler;
	remote->arg = arg;
	remote->state = DTX_REMOTE_PARKED;
	remote->set->nparked++;
	remote->place->nparked++;
	DtxRemoteWant(remote, WL_SOCKET_READABLE);
	return true;
}

/*
 * Use a parked connection again: it is its new owner's, whose ready() is called at
 * once.  Returns false, and does nothing, if it was made for another target.
 */
bool
DtxRemoteResume(DtxRemote *remote, const DtxTarget *target,
				const DtxRemoteHandler *handler, void *arg)
{
	Assert(remote->state == DTX_REMOTE_PARKED);
	if (!DtxTargetSame(remote->target, target))
		return false;
	remote->set->nparked--;
	remote->place->nparked--;
	remote->target = target;
	remote->handler = handler;
	remote->arg = arg;
	remote->state = DTX_REMOTE_IDLE;
	remote->resumed = true;
	memset(&remote->error, 0, sizeof(remote->error));
	MemoryContextReset(remote->cxt);	/* what earlier uses have left */
	remote->hosts = NULL;
	handler->ready(remote, arg, &remote->error);
	if (remote->state == DTX_REMOTE_IDLE)
		DtxRemoteClose(remote);
	return true;
}

/*
 * Something has come on a parked connection: most likely its end.  Then its owner is
 * told (DtxRemoteFail).
 */
void
DtxRemoteParkedStep(DtxRemote *remote)
{
	PGnotify   *notify;

	if (!PQconsumeInput(remote->conn) || PQisBusy(remote->conn) ||
		PQstatus(remote->conn) != CONNECTION_OK)
	{
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  PQerrorMessage(remote->conn));
		return;
	}
	while ((notify = PQnotifies(remote->conn)) != NULL)
		PQfreemem(notify);
}

/*
 * Close a parked connection, because its descriptor is needed.  Its owner is told
 * (DtxRemoteFail).  Returns false if there is none.
 */
bool
DtxRemoteFreeDescriptor(DtxRemoteSet *set)
{
	dlist_iter	iter;

	dlist_foreach(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == DTX_REMOTE_PARKED)
		{
			DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE, "its descriptor is needed");
			return true;
		}
	}
	return false;
}
