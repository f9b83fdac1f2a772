/*-------------------------------------------------------------------------
 *
 * remote_set.c
 *		A set of connections of pg_dtx's own: which are open, what is waited for, what time
 *		it is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/compat.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/names.h"
#include "net/remote.h"
#include "net/remote_set.h"
#include "net/target.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Connections of one set at a time; the others queue. */
#define MAX_CONNECTIONS			64

/*
 * The same, to one place: many foreign servers may lead to one cluster, which has
 * other things to do than to serve us.
 */
#define MAX_TO_PLACE			4

/* For what the events of a set are, where they are no connection's: a name's. */
static char names_sockets[64];

static void set_reset(void *arg);
static DtxRemotePlace *find_place(DtxRemoteSet *set, uint64 key);

/*
 * Make an empty set.  It lives in a child of "parent" and is destroyed with it.
 */
DtxRemoteSet *
DtxRemoteSetCreate(MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "pg_dtx connections",
											  ALLOCSET_DEFAULT_SIZES);
	DtxRemoteSet *set = MemoryContextAllocZero(cxt, sizeof(DtxRemoteSet));

	set->cxt = cxt;
	dlist_init(&set->remotes);
	dlist_init(&set->places);
	set->dirty = true;
	set->ticked_at = DtxNow();
	DtxNamesAttach();
	set->callback.func = set_reset;
	set->callback.arg = set;
	MemoryContextRegisterResetCallback(cxt, &set->callback);
	return set;
}

/*
 * Release what is not palloc'd.  Must not throw: it runs during error cleanup.
 * When a context is deleted, its children go before its callbacks are called
 * (utils/mmgr/mcxt.c, MemoryContextDelete), so this looks at nothing that is not
 * allocated in the set's own context.
 */
static void
set_reset(void *arg)
{
	DtxRemoteSet *set = (DtxRemoteSet *) arg;
	dlist_iter	iter;

	dlist_foreach(iter, &set->remotes)
		DtxRemoteDisconnect(dlist_container(DtxRemote, node, iter.cur));

	if (set->events != NULL)
	{
		FreeWaitEventSet(set->events);
		set->events = NULL;
	}
	DtxNamesDetach();
}

/*
 * Add a connection to the set, to be opened as soon as there is room.
 *
 * "target" must not have an error, and must live as long as the connection, as
 * must "arg".  Problems of the server are not thrown but reported through the
 * handler, from within DtxRemoteWait().
 */
DtxRemote *
DtxRemoteOpen(DtxRemoteSet *set, const DtxTarget *target,
			  const DtxRemoteHandler *handler, void *arg)
{
	MemoryContext cxt = AllocSetContextCreate(set->cxt, "pg_dtx connection",
											  ALLOCSET_SMALL_SIZES);
	DtxRemote  *remote = MemoryContextAllocZero(set->cxt, sizeof(DtxRemote));

	Assert(target->error == NULL);

	remote->set = set;
	remote->place = find_place(set, target->place);
	remote->cxt = cxt;
	remote->target = target;
	remote->handler = handler;
	remote->arg = arg;
	remote->state = DTX_REMOTE_QUEUED;
	remote->position = -1;
	dlist_push_tail(&set->remotes, &remote->node);
	set->nremotes++;
	return remote;
}

/*
 * Where connections with this key lead; made if need be.
 */
static DtxRemotePlace *
find_place(DtxRemoteSet *set, uint64 key)
{
	dlist_iter	iter;
	DtxRemotePlace *place;

	dlist_foreach(iter, &set->places)
	{
		place = dlist_container(DtxRemotePlace, node, iter.cur);
		if (place->key == key)
			return place;
	}
	/* (set_reset() needs it) */
	place = MemoryContextAllocZero(set->cxt, sizeof(DtxRemotePlace));
	place->key = key;
	dlist_push_head(&set->places, &place->node);
	return place;
}

/* May it be opened now? */
bool
DtxRemoteSetHasRoom(const DtxRemote *remote)
{
	return remote->set->nconnections < MAX_CONNECTIONS &&
		remote->place->nconnections < MAX_TO_PLACE;
}

/*
 * Let the set's clock go on, by the time since it did so last, at most "counted"
 * milliseconds.
 */
void
DtxRemoteSetTick(DtxRemoteSet *set, int64 counted)
{
	DtxMoment	now = DtxNow();

	set->clock += Min(now - set->ticked_at, counted);
	set->ticked_at = now;
}

/* Free what was closed.  Not from within a handler. */
void
DtxRemoteSetSweep(DtxRemoteSet *set)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == DTX_REMOTE_CLOSED)
		{
			dlist_delete(&remote->node);
			MemoryContextDelete(remote->cxt);
			pfree(remote);
		}
	}
}

/*
 * Make the wait-event set anew.  libpq may close a socket and open another one with the
 * same number at any PQconnectPoll(), which epoll would not notice.  Throws if there is
 * no descriptor left.
 */
void
DtxRemoteSetBuildEvents(DtxRemoteSet *set)
{
	dlist_iter	iter;
	int			nnames = Min(DtxNamesSockets(), lengthof(names_sockets));
	int			n = 2 + nnames; /* latch, postmaster */

	if (set->events != NULL)
	{
		WaitEventSet *old = set->events;

		set->events = NULL;
		FreeWaitEventSet(old);
	}

	dlist_foreach(iter, &set->remotes)
	{
		if (dlist_container(DtxRemote, node, iter.cur)->conn != NULL)
			n++;
	}

	set->events = DtxCreateWaitEventSet(n);
	AddWaitEventToSet(set->events, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	DtxAddPostmasterDeath(set->events, WL_EXIT_ON_PM_DEATH);
	dlist_foreach(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);
		pgsocket	sock;

		remote->position = -1;
		if (remote->conn == NULL)
			continue;

		/* A socket that is gone is found out by the deadline's check. */
		sock = PQsocket(remote->conn);
		if (sock == PGINVALID_SOCKET)
			continue;
		remote->position = AddWaitEventToSet(set->events, remote->events, sock,
											 NULL, remote);
	}
	for (int i = 0; i < nnames; i++)
	{
		pgsocket	sock;
		uint32		events;

		DtxNamesSocket(i, &sock, &events);
		(void) AddWaitEventToSet(set->events, events, sock, NULL,
								 &names_sockets[i]);
	}
	set->names_version = DtxNamesSocketsVersion();
	set->dirty = false;
}

/*
 * Which of DtxNamesSockets() is an event of a set about?  -1: it is about the latch, the
 * postmaster or a connection.
 */
int
DtxRemoteSetNameSocket(const WaitEvent *event)
{
	char	   *data = (char *) event->user_data;

	if (data >= names_sockets && data < names_sockets + lengthof(names_sockets))
		return data - names_sockets;
	return -1;
}
