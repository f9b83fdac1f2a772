/*-------------------------------------------------------------------------
 *
 * remote_wait.c
 *		Latch-aware libpq for the resolver and the administrative functions: the loop that
 *		drives a set of connections.
 *
 * Everything that pg_dtx itself (not postgres_fdw) says to a foreign server goes through
 * here, over connections of its own that live for one visit, or are parked for the next
 * one.
 *
 * Rules kept by this file:
 *
 * - Nothing waits for one server.  All sockets, the latch and the nearest
 *   deadline are waited for together, and every step has a deadline, so that
 *   a server that is dead, hung or slow costs the others nothing.
 *
 * - libpq looks up no host name, because it would block: it gets addresses
 *   (hosts.c, names.c), and the name beside them, for TLS and the password file.  Nor does
 *   it ask Kerberos about servers of ordinary users, which would do the same.
 *
 * - A deadline counts time in which we could have noticed an answer.  What this
 *   process was busy with, or stopped for, does not count (DtxRemoteSetTick), and before a
 *   connection is given up its socket is looked at once more.
 *
 * - What a server sends is not trusted.  Rows are read one at a time, the
 *   number of bytes without a result is limited, text is checked for encoding
 *   and length before it is shown (text.c).  What is left is libpq's own limit: a
 *   message may claim to be 1 GB long, and once it has, one read lasts as long
 *   as its bytes come fast enough; while connecting, only time is limited.
 *
 * - Whatever is thrown, all connections of a set are closed and all results
 *   freed by the reset callback of the set's memory context.
 *
 * - Texts of errors come from libpq and from the server; neither contains a
 *   password.  Connection strings are not shown.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>

#include "base/backoff.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "net/names.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/remote_connect.h"
#include "net/remote_park.h"
#include "net/remote_set.h"
#include "net/remote_wait.h"
#include "storage/latch.h"

static bool is_ready(DtxRemote *remote);

/*
 * Wait until something happens, at most "timeout" milliseconds (-1: no limit),
 * and handle it.  Returns true if the latch is set: the caller then resets it
 * and looks what for, which includes interrupts.  Exits if the postmaster dies.
 *
 * Throws what the handlers throw, and if a wait-event set cannot be made; the
 * set must be destroyed then.
 */
bool
DtxRemoteWait(DtxRemoteSet *set, long timeout, uint32 wait_event_info)
{
	dlist_mutable_iter iter;
	WaitEvent	occurred[64];
	int			noccurred;
	bool		latch_set = false;
	int64		longest;

	/*
	 * Let the next ones in.  Callbacks may append to the list meanwhile;
	 * those have their turn in the next round.
	 */
	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state != DTX_REMOTE_QUEUED)
			continue;
		if (DtxRemoteConnectKnowsHosts(remote) && DtxRemoteSetHasRoom(remote))
			DtxRemoteConnectStart(remote);

		/* Its owner has something new to decide on. */
		if (remote->state == DTX_REMOTE_CLOSED)
			timeout = 0;
	}
	DtxRemoteSetSweep(set);

	DtxRemoteSetTick(set, DTX_REMOTE_MAX_COUNTED_PAUSE);
	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);
		long		left;

		/* Queued: its turn comes when something happens to the others. */
		if (remote->state == DTX_REMOTE_PARKED)
			continue;
		if (remote->state == DTX_REMOTE_QUEUED)
			left = (remote->hosts != NULL && remote->hosts->pending) ||
				set->nconnections > set->nparked ? timeout : 0;
		else
			left = Max(remote->deadline - set->clock, 0);
		if (timeout < 0 || (left >= 0 && left < timeout))
			timeout = left;
	}
	if (DtxNamesUntil() != DTX_NEVER)
	{
		long		left = DtxUntil(DtxNamesUntil());

		if (timeout < 0 || left < timeout)
			timeout = left;
	}

	if (set->dirty || set->events == NULL ||
		set->names_version != DtxNamesSocketsVersion())
		DtxRemoteSetBuildEvents(set);

	noccurred = WaitEventSetWait(set->events, timeout, occurred,
								 lengthof(occurred), wait_event_info);

	/* More than it was to be is a time in which we did not run. */
	longest = timeout < 0 ? PG_INT64_MAX : timeout + DTX_REMOTE_MAX_COUNTED_PAUSE;
	DtxRemoteSetTick(set, longest);
	for (int i = 0; i < noccurred; i++)
	{
		int			name = DtxRemoteSetNameSocket(&occurred[i]);

		if (occurred[i].events & WL_LATCH_SET)
			latch_set = true;
		else if (name >= 0)
			DtxNamesReady(name, occurred[i].events);
		else if (occurred[i].user_data != NULL)
			((DtxRemote *) occurred[i].user_data)->ready = true;
	}

	/* Those who wait for a name look in the next round. */
	(void) DtxNamesProcess();

	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == DTX_REMOTE_PARKED && remote->ready)
		{
			remote->ready = false;
			DtxRemoteParkedStep(remote);
		}
		if (remote->state != DTX_REMOTE_CONNECTING && remote->state != DTX_REMOTE_BUSY)
			continue;
		if (remote->ready ||
			(set->clock >= remote->deadline && is_ready(remote)))
		{
			remote->ready = false;
			if (remote->state == DTX_REMOTE_CONNECTING)
				DtxRemoteConnectStep(remote);
			else
				DtxRemoteCommandStep(remote);
		}
		if ((remote->state == DTX_REMOTE_CONNECTING ||
			 remote->state == DTX_REMOTE_BUSY) && set->clock >= remote->deadline)
		{
			if (PQstatus(remote->conn) == CONNECTION_BAD)
				DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
							  PQerrorMessage(remote->conn));
			else
				DtxRemoteFail(remote, remote->state == DTX_REMOTE_CONNECTING ?
							  DTX_REMOTE_UNREACHABLE : DTX_REMOTE_SILENT,
							  remote->state == DTX_REMOTE_CONNECTING ?
							  "timeout while connecting" :
							  "timeout while waiting for an answer");
		}
	}
	DtxRemoteSetSweep(set);

	return latch_set;
}

/*
 * Has a connection that is about to be given up something to read or to write after
 * all?  A wait tells of some of many sockets only.
 */
static bool
is_ready(DtxRemote *remote)
{
	struct pollfd fd;

	fd.fd = PQsocket(remote->conn);
	if (fd.fd < 0)
		return false;
	fd.events = (remote->events & WL_SOCKET_READABLE ? POLLIN : 0) |
		(remote->events & WL_SOCKET_WRITEABLE ? POLLOUT : 0);
	fd.revents = 0;
	return poll(&fd, 1, 0) > 0;
}
