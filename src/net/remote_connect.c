/*-------------------------------------------------------------------------
 *
 * remote_connect.c
 *		Making a connection of pg_dtx's own, up to where it takes commands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "libpq-fe.h"
#include "net/hosts.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/remote_connect.h"
#include "net/remote_park.h"
#include "net/remote_set.h"
#include "net/target.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/palloc.h"

static void connected(DtxRemote *remote);

/*
 * Does a queued connection know where it may lead?  Otherwise that is being looked up,
 * or it has failed.  May throw if out of memory.
 */
bool
DtxRemoteConnectKnowsHosts(DtxRemote *remote)
{
	MemoryContext old = MemoryContextSwitchTo(remote->cxt);
	const char *error = NULL;
	bool		known = false;

	if (remote->hosts == NULL)
		remote->hosts = DtxHostsFind(remote->target, &error);
	if (error == NULL)
		known = DtxHostsHaveAddresses(remote->hosts, &error);
	MemoryContextSwitchTo(old);
	if (error != NULL)
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE, error);
	return known;
}

/*
 * Begin to connect.  If there is no descriptor left, closes a parked connection for
 * one, or leaves this one queued until another one is closed.  Problems are told to the
 * handler; may throw if out of memory.
 */
void
DtxRemoteConnectStart(DtxRemote *remote)
{
	MemoryContext old;

	/*
	 * fd.c must know of our sockets.  If it has no room, wait for those of
	 * our own connections that are open to be closed.
	 */
	if (!AcquireExternalFD() &&
		!(DtxRemoteFreeDescriptor(remote->set) && AcquireExternalFD()))
	{
		if (remote->set->nconnections > remote->set->nparked)
			return;
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  "too many open files on the local server");
		return;
	}
	remote->has_fd = true;
	remote->set->nconnections++;
	remote->place->nconnections++;
	DtxRemoteSetTick(remote->set, DTX_REMOTE_MAX_COUNTED_PAUSE);

	old = MemoryContextSwitchTo(remote->cxt);
	remote->conn = DtxHostsConnect(remote->hosts, remote->target);
	MemoryContextSwitchTo(old);
	remote->set->dirty = true;
	if (remote->conn == NULL)
	{
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE, "out of memory");
		return;
	}
	PQsetNoticeReceiver(remote->conn, DtxRemoteReceiveNotice, remote);
	if (PQstatus(remote->conn) == CONNECTION_BAD)
	{
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  PQerrorMessage(remote->conn));
		return;
	}
	remote->state = DTX_REMOTE_CONNECTING;
	remote->events = WL_SOCKET_WRITEABLE;
	remote->deadline = remote->set->clock + remote->target->connect_timeout;
}

/*
 * The socket of a connection that is being made is ready: go on.  Calls the handler if
 * it is made, or has failed.  Throws what that throws.
 */
void
DtxRemoteConnectStep(DtxRemote *remote)
{
	PostgresPollingStatusType status;

	switch (PQstatus(remote->conn))
	{
		case CONNECTION_AWAITING_RESPONSE:
		case CONNECTION_AUTH_OK:
			remote->answered = true;
			break;
		default:
			remote->answered = false;
			break;
	}

	status = PQconnectPoll(remote->conn);

	/* Whatever it did may have been on another socket. */
	remote->set->dirty = true;

	switch (status)
	{
		case PGRES_POLLING_READING:
			remote->events = WL_SOCKET_READABLE;
			break;
		case PGRES_POLLING_WRITING:
			remote->events = WL_SOCKET_WRITEABLE;
			break;
		case PGRES_POLLING_OK:
			connected(remote);
			break;
		default:

			/*
			 * A server that has read our startup packet and then refused may
			 * let another user in.
			 */
			DtxRemoteFail(remote,
						  remote->answered ? DTX_REMOTE_REFUSED :
						  DTX_REMOTE_UNREACHABLE,
						  PQerrorMessage(remote->conn));
			break;
	}
}

static void
connected(DtxRemote *remote)
{
	char		setup[512];

	if (remote->target->need_password &&
		!PQconnectionUsedPassword(remote->conn))
	{
		DtxRemoteFail(remote, DTX_REMOTE_REFUSED,
					  "password is required: the server did not ask for the password of a user mapping whose role is not a superuser");
		return;
	}

	/* PQsendQuery() and PQfinish() must not block either. */
	if (PQsetnonblocking(remote->conn, 1) != 0)
	{
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  PQerrorMessage(remote->conn));
		return;
	}

	/*
	 * Settings of the role or the database over there must not change what
	 * our commands mean, and a command that we have given up must not stay
	 * behind for ever.  (The owner lifts the time-out where it must not
	 * strike.)
	 */
	snprintf(setup, sizeof(setup),
			 "SET search_path = pg_catalog; "
			 "SET client_min_messages = warning; "
			 "SET default_transaction_read_only = off; "
			 "SET lock_timeout = 0; "
			 "SET statement_timeout = %d",
			 DTX_REMOTE_COMMAND_TIMEOUT);
	remote->state = DTX_REMOTE_IDLE;
	remote->setting_up = true;
	DtxRemoteSend(remote, setup);
}
