/*-------------------------------------------------------------------------
 *
 * remote.c
 *		Latch-aware libpq for the resolver and the administrative functions.
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
 *   (names.c), and the name beside them, for TLS and the password file.  Nor does
 *   it ask Kerberos about servers of ordinary users, which would do the same.
 *
 * - A deadline counts time in which we could have noticed an answer.  What this
 *   process was busy with, or stopped for, does not count (set_tick), and before a
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

#include <netdb.h>
#include <poll.h>
#include <sys/ioctl.h>

#include <poll.h>

#include "base/backoff.h"
#include "base/compat.h"
#include "fmgr.h"
#include "lib/ilist.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/names.h"
#include "net/remote.h"
#include "net/target.h"
#include "net/text.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Connections of one set at a time; the others queue. */
#define MAX_CONNECTIONS			64

/* Of them, those that are parked. */
#define MAX_PARKED				16

/*
 * The same, to one place: many foreign servers may lead to one cluster, which has
 * other things to do than to serve us.
 */
#define MAX_TO_PLACE			4
#define MAX_PARKED_AT_PLACE		2

/*
 * Bytes that arrive without any result coming out of them.  The longest honest
 * message that we ask for is a few hundred bytes; a server that goes on sending
 * without completing one tries to fill our memory.
 *
 * It must be noticed after one read, and what libpq's buffer holds at first is
 * one read: once a long message is announced, libpq makes room for all of it
 * and then reads as long as something arrives (fe-misc.c, pqReadData).  With
 * encryption a read may take one record only of what waits.  So not more than
 * half a record counts then, and it takes some reads to notice.
 */
#define MAX_FRUITLESS_BYTES		(16 * 1024)
#define MAX_FRUITLESS_ENCRYPTED	(24 * 1024)
#define MAX_COUNTED_ENCRYPTED	(8 * 1024)

/* Longest text of a remote error that we keep, bytes. */
#define MAX_ERROR_TEXT			1000

/* Of a list of hosts so many are tried at a time; next time from another one on. */
#define MAX_HOSTS				32

/* What this process does between two waits counts for deadlines up to that, ms. */
#define MAX_COUNTED_PAUSE		100

/* Not a valid sslmode: see remote_hosts(). */
#define DRY_RUN					"pg_dtx-dry-run"

#define GSS_REQUIRED	"gssencmode=require needs Kerberos, which pg_dtx does not use where a password is required"

typedef enum RemoteState
{
	REMOTE_QUEUED,				/* waits for its hosts' names, and its turn to
								 * connect */
	REMOTE_CONNECTING,			/* in PQconnectPoll() */
	REMOTE_BUSY,				/* a command is on its way */
	REMOTE_IDLE,				/* in the owner's ready() */
	REMOTE_PARKED,				/* waits for its next use */
	REMOTE_CLOSED				/* freed at the end of the round */
} RemoteState;

/* One element of the list of hosts of a connection. */
typedef struct RemoteHost
{
	char	   *host;			/* as libpq would get it; "" is its default */
	char	   *hostaddr;		/* likewise; "" if there is none */
	char	   *port;			/* likewise; "" is its default */
	bool		asked;			/* is "host" a name that is being looked up? */
	DtxNameAnswer *answer;		/* what came of that, or NULL: nothing yet */
} RemoteHost;

/* Where connections of a set lead; as long as the set. */
typedef struct Place
{
	dlist_node	node;			/* in DtxRemoteSet.places */
	uint64		key;			/* DtxTarget.place */
	int			nconnections;	/* those that hold a PGconn */
	int			nparked;		/* of them, those that are parked */
} Place;

/* All fields are private to this process. */
struct DtxRemote
{
	dlist_node	node;			/* in DtxRemoteSet.remotes */
	DtxRemoteSet *set;			/* the set it belongs to */
	Place	   *place;			/* where it leads */
	MemoryContext cxt;			/* what hangs off this struct */
	const DtxTarget *target;	/* the owner's */
	const DtxRemoteHandler *handler;	/* the owner's */
	void	   *arg;			/* for the handler */
	RemoteState state;
	bool		setting_up;		/* the command is our own session setup */
	bool		resumed;		/* the next command is the first after a pause */
	bool		has_hosts;		/* are those known? */
	bool		names_pending;	/* and is any of their names not known yet? */
	int			nhosts;
	RemoteHost *hosts;
	PGconn	   *conn;			/* NULL before and after */
	PGresult   *result;			/* being looked at */
	bool		has_fd;			/* counted by AcquireExternalFD() */
	bool		answered;		/* has the server got our startup packet? */
	bool		unflushed;		/* output left to send */
	bool		ready;			/* its socket is, in this round */
	uint32		events;			/* WL_SOCKET_xxx that we wait for */
	int			position;		/* in the wait-event set, -1 if not there */
	int			statement;		/* results seen of the current command */
	int			fruitless;		/* bytes that came since the last result */
	int64		deadline;		/* of the current step, on the set's clock */
	DtxRemoteError error;		/* of the current command */
};

struct DtxRemoteSet
{
	MemoryContext cxt;			/* everything of the set */
	MemoryContextCallback callback; /* closes everything on reset */
	dlist_head	remotes;		/* DtxRemote */
	int			nremotes;		/* all of them, closed ones excepted */
	int			nconnections;	/* those that hold a PGconn */
	int			nparked;		/* of them, those that are parked */
	dlist_head	places;			/* Place */
	WaitEventSet *events;		/* NULL: to be built */
	bool		dirty;			/* sockets have changed: build again */
	uint64		names_version;	/* DtxNamesSocketsVersion() when it was built */
	int64		clock;			/* milliseconds, see set_tick() */
	DtxMoment	ticked_at;		/* when that was */
};

/* For what the events of a set are, where they are no connection's: a name's. */
static char names_sockets[64];

static void set_reset(void *arg);
static Place *find_place(DtxRemoteSet *set, uint64 key);
static bool has_room(const DtxRemote *remote);
static void remote_parked_step(DtxRemote *remote);
static bool free_descriptor(DtxRemoteSet *set);
static void set_tick(DtxRemoteSet *set, int64 counted);
static bool is_ready(DtxRemote *remote);
static void set_sweep(DtxRemoteSet *set);
static void set_build_events(DtxRemoteSet *set);
static void remote_want(DtxRemote *remote, uint32 events);
static bool remote_hosts(DtxRemote *remote);
static int	count_elements(const char *list);
static void split_list(const char *list, int count, char **elements);
static bool remote_names(DtxRemote *remote);
static void remote_no_address(DtxRemote *remote);
static PGconn *remote_connect(DtxRemote *remote);
static void remote_start(DtxRemote *remote);
static void remote_connect_step(DtxRemote *remote);
static void remote_connected(DtxRemote *remote);
static int	bytes_waiting(DtxRemote *remote);
static bool is_encrypted(DtxRemote *remote);
static void remote_io_step(DtxRemote *remote);
static void remote_take_error(DtxRemote *remote, const PGresult *res);
static void remote_fail(DtxRemote *remote, DtxRemoteFailure failure,
						const char *error);
static void remote_disconnect(DtxRemote *remote);
static void receive_notice(void *arg, const PGresult *res);

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
 * Close all connections and free everything.
 */
void
DtxRemoteSetDestroy(DtxRemoteSet *set)
{
	MemoryContextDelete(set->cxt);
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
		remote_disconnect(dlist_container(DtxRemote, node, iter.cur));

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
	remote->state = REMOTE_QUEUED;
	remote->position = -1;
	dlist_push_tail(&set->remotes, &remote->node);
	set->nremotes++;
	return remote;
}

/*
 * Send a command, which may consist of several statements.  Only from within
 * the handler's ready().  The server has DTX_REMOTE_COMMAND_TIMEOUT to answer, or
 * as long as for a new connection if this one may be dead without a sign.
 */
void
DtxRemoteSend(DtxRemote *remote, const char *sql)
{
	Assert(remote->state == REMOTE_IDLE);

	remote->statement = 0;
	remote->fruitless = 0;
	memset(&remote->error, 0, sizeof(remote->error));
	remote->deadline = remote->set->clock +
		(remote->resumed ? remote->target->connect_timeout :
		 DTX_REMOTE_COMMAND_TIMEOUT);
	remote->resumed = false;
	remote->state = REMOTE_BUSY;

	/* A failure shows up as soon as the connection is read from. */
	if (PQsendQuery(remote->conn, sql))
	{
		/* One row at a time: memory does not depend on what is sent. */
		(void) PQsetSingleRowMode(remote->conn);
		remote->unflushed = PQflush(remote->conn) == 1;
	}
	else
		remote->deadline = remote->set->clock;
	remote_want(remote, WL_SOCKET_READABLE |
				(remote->unflushed ? WL_SOCKET_WRITEABLE : 0));
}

/*
 * Close a connection.  The handler is not called any more, and the memory is
 * freed at the end of the current or next DtxRemoteWait().
 */
void
DtxRemoteClose(DtxRemote *remote)
{
	if (remote->state == REMOTE_CLOSED)
		return;
	if (remote->state == REMOTE_PARKED)
	{
		remote->set->nparked--;
		remote->place->nparked--;
	}
	remote_disconnect(remote);
	remote->state = REMOTE_CLOSED;
	remote->set->nremotes--;
}

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

	Assert(remote->state == REMOTE_IDLE);
	if (remote->set->nparked >= MAX_PARKED ||
		remote->place->nparked >= MAX_PARKED_AT_PLACE)
		return false;
	old = MemoryContextSwitchTo(remote->cxt);
	remote->target = DtxTargetCopy(remote->target);
	MemoryContextSwitchTo(old);
	remote->handler = handler;
	remote->arg = arg;
	remote->state = REMOTE_PARKED;
	remote->set->nparked++;
	remote->place->nparked++;
	remote_want(remote, WL_SOCKET_READABLE);
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
	Assert(remote->state == REMOTE_PARKED);
	if (!DtxTargetSame(remote->target, target))
		return false;
	remote->set->nparked--;
	remote->place->nparked--;
	remote->target = target;
	remote->handler = handler;
	remote->arg = arg;
	remote->state = REMOTE_IDLE;
	remote->resumed = true;
	memset(&remote->error, 0, sizeof(remote->error));
	MemoryContextReset(remote->cxt);	/* what earlier uses have left */
	handler->ready(remote, arg, &remote->error);
	if (remote->state == REMOTE_IDLE)
		DtxRemoteClose(remote);
	return true;
}

/*
 * Where connections with this key lead; made if need be.
 */
static Place *
find_place(DtxRemoteSet *set, uint64 key)
{
	dlist_iter	iter;
	Place	   *place;

	dlist_foreach(iter, &set->places)
	{
		place = dlist_container(Place, node, iter.cur);
		if (place->key == key)
			return place;
	}
	/* (set_reset() needs it) */
	place = MemoryContextAllocZero(set->cxt, sizeof(Place));
	place->key = key;
	dlist_push_head(&set->places, &place->node);
	return place;
}

/* May it be opened now? */
static bool
has_room(const DtxRemote *remote)
{
	return remote->set->nconnections < MAX_CONNECTIONS &&
		remote->place->nconnections < MAX_TO_PLACE;
}

/*
 * Something has come on a parked connection: most likely its end.
 */
static void
remote_parked_step(DtxRemote *remote)
{
	PGnotify   *notify;

	if (!PQconsumeInput(remote->conn) || PQisBusy(remote->conn) ||
		PQstatus(remote->conn) != CONNECTION_OK)
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
					PQerrorMessage(remote->conn));
		return;
	}
	while ((notify = PQnotifies(remote->conn)) != NULL)
		PQfreemem(notify);
}

/*
 * Close a parked connection, because its descriptor is needed.
 */
static bool
free_descriptor(DtxRemoteSet *set)
{
	dlist_iter	iter;

	dlist_foreach(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == REMOTE_PARKED)
		{
			remote_fail(remote, DTX_REMOTE_UNREACHABLE, "its descriptor is needed");
			return true;
		}
	}
	return false;
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

/*
 * Connections of a set that are open or are going to be opened.
 */
int
DtxRemoteCount(DtxRemoteSet *set)
{
	return set->nremotes;
}

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

		if (remote->state != REMOTE_QUEUED)
			continue;
		if ((!remote->has_hosts && !remote_hosts(remote)) ||
			(remote->names_pending && !remote_names(remote)))
		{
			/* It has failed already, or its names are being looked up. */
		}
		else if (has_room(remote))
			remote_start(remote);

		/* Its owner has something new to decide on. */
		if (remote->state == REMOTE_CLOSED)
			timeout = 0;
	}
	set_sweep(set);

	set_tick(set, MAX_COUNTED_PAUSE);
	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);
		long		left;

		/* Queued: its turn comes when something happens to the others. */
		if (remote->state == REMOTE_PARKED)
			continue;
		if (remote->state == REMOTE_QUEUED)
			left = remote->names_pending ||
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
		set_build_events(set);

	noccurred = WaitEventSetWait(set->events, timeout, occurred,
								 lengthof(occurred), wait_event_info);

	/* More than it was to be is a time in which we did not run. */
	longest = timeout < 0 ? PG_INT64_MAX : timeout + MAX_COUNTED_PAUSE;
	set_tick(set, longest);
	for (int i = 0; i < noccurred; i++)
	{
		char	   *data = (char *) occurred[i].user_data;

		if (occurred[i].events & WL_LATCH_SET)
			latch_set = true;
		else if (data >= names_sockets &&
				 data < names_sockets + lengthof(names_sockets))
			DtxNamesReady(data - names_sockets, occurred[i].events);
		else if (data != NULL)
			((DtxRemote *) occurred[i].user_data)->ready = true;
	}

	/* Those who wait for a name look in the next round. */
	(void) DtxNamesProcess();

	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == REMOTE_PARKED && remote->ready)
		{
			remote->ready = false;
			remote_parked_step(remote);
		}
		if (remote->state != REMOTE_CONNECTING && remote->state != REMOTE_BUSY)
			continue;
		if (remote->ready ||
			(set->clock >= remote->deadline && is_ready(remote)))
		{
			remote->ready = false;
			if (remote->state == REMOTE_CONNECTING)
				remote_connect_step(remote);
			else
				remote_io_step(remote);
		}
		if ((remote->state == REMOTE_CONNECTING ||
			 remote->state == REMOTE_BUSY) && set->clock >= remote->deadline)
		{
			if (PQstatus(remote->conn) == CONNECTION_BAD)
				remote_fail(remote, DTX_REMOTE_UNREACHABLE,
							PQerrorMessage(remote->conn));
			else
				remote_fail(remote, remote->state == REMOTE_CONNECTING ?
							DTX_REMOTE_UNREACHABLE : DTX_REMOTE_SILENT,
							remote->state == REMOTE_CONNECTING ?
							"timeout while connecting" :
							"timeout while waiting for an answer");
		}
	}
	set_sweep(set);

	return latch_set;
}

/*
 * Let the set's clock go on, by the time since it did so last, at most "counted"
 * milliseconds.
 */
static void
set_tick(DtxRemoteSet *set, int64 counted)
{
	DtxMoment	now = DtxNow();

	set->clock += Min(now - set->ticked_at, counted);
	set->ticked_at = now;
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

/*
 * Free what was closed.
 */
static void
set_sweep(DtxRemoteSet *set)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &set->remotes)
	{
		DtxRemote  *remote = dlist_container(DtxRemote, node, iter.cur);

		if (remote->state == REMOTE_CLOSED)
		{
			dlist_delete(&remote->node);
			MemoryContextDelete(remote->cxt);
			pfree(remote);
		}
	}
}

/*
 * Make the wait-event set anew.  libpq may close a socket and open another one
 * with the same number at any PQconnectPoll(), which epoll would not notice.
 */
static void
set_build_events(DtxRemoteSet *set)
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
 * Wait for these events on the connection's socket from now on.
 */
static void
remote_want(DtxRemote *remote, uint32 events)
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
 * Find out which hosts libpq would connect to: from options, service file and
 * environment, which only libpq knows all of (fe-connect.c, conninfo_add_defaults()).
 * So it is asked to connect with an option that is refused after all that was read,
 * and before anything is looked up (fe-connect.c, connectOptions2()).
 *
 * Begins to look up their names.  Returns false if the connection has failed.
 */
static bool
remote_hosts(DtxRemote *remote)
{
	const DtxTarget *target = remote->target;
	MemoryContext old;
	const char **keywords;
	const char **values;
	PGconn	   *volatile conn = NULL;
	PQconninfoOption *volatile info = NULL;
	char	   *volatile error = NULL;
	int			n = 0;

	old = MemoryContextSwitchTo(remote->cxt);
	while (target->keywords[n] != NULL)
		n++;
	keywords = palloc((n + 2) * sizeof(char *));
	values = palloc((n + 2) * sizeof(char *));
	memcpy(keywords, target->keywords, n * sizeof(char *));
	memcpy(values, target->values, n * sizeof(char *));
	keywords[n] = "sslmode";
	values[n++] = DRY_RUN;
	keywords[n] = values[n] = NULL;

	PG_TRY();
	{
		conn = PQconnectStartParams(keywords, values, 0);
		info = conn != NULL ? PQconninfo(conn) : NULL;
		if (info == NULL)
			error = pstrdup("out of memory");
		else if (strstr(PQerrorMessage(conn), DRY_RUN) == NULL)
			error = pstrdup(PQerrorMessage(conn));
		else
		{
			const char *host = "";
			const char *hostaddr = "";
			const char *port = "";
			const char *gssencmode = "";
			int			count;
			char	  **hosts;
			char	  **hostaddrs;
			char	  **ports;

			for (PQconninfoOption *option = info; option->keyword; option++)
			{
				if (option->val == NULL)
					continue;
				if (strcmp(option->keyword, "host") == 0)
					host = option->val;
				else if (strcmp(option->keyword, "hostaddr") == 0)
					hostaddr = option->val;
				else if (strcmp(option->keyword, "port") == 0)
					port = option->val;
				else if (strcmp(option->keyword, "gssencmode") == 0)
					gssencmode = option->val;
			}
			if (target->need_password && strcmp(gssencmode, "require") == 0)
				error = pstrdup(GSS_REQUIRED);

			/* That these fit together has been checked by libpq. */
			count = count_elements(hostaddr[0] ? hostaddr : host);
			hosts = palloc(count * sizeof(char *));
			hostaddrs = palloc(count * sizeof(char *));
			ports = palloc(count * sizeof(char *));
			split_list(host, count, hosts);
			split_list(hostaddr, count, hostaddrs);
			split_list(port, count, ports);

			remote->nhosts = Min(count, MAX_HOSTS);
			remote->hosts = palloc0(remote->nhosts * sizeof(RemoteHost));
			for (int i = 0; i < remote->nhosts; i++)
			{
				RemoteHost *h = &remote->hosts[i];
				int			from = (target->attempt % count + i) % count;

				h->host = hosts[from];
				h->hostaddr = hostaddrs[from];
				h->port = ports[from];
				if (h->host[0] == '\0' && h->hostaddr[0] == '\0' &&
					DEFAULT_PGSOCKET_DIR[0] == '\0')
					h->host = "localhost";	/* fe-connect.c, DefaultHost */
				if (h->hostaddr[0] != '\0' || h->host[0] == '\0' ||
					h->host[0] == '/' || h->host[0] == '@')
					continue;
				if (DtxNameIsNumeric(h->host))
					h->hostaddr = h->host;
				else
				{
					h->asked = true;
					remote->names_pending = true;
				}
			}
			remote->has_hosts = true;
		}
	}
	PG_FINALLY();
	{
		if (info != NULL)
			PQconninfoFree(info);
		if (conn != NULL)
			PQfinish(conn);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);

	if (error != NULL)
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE, error);
		return false;
	}
	return true;
}

static int
count_elements(const char *list)
{
	int			n = 1;

	for (; *list; list++)
	{
		if (*list == ',')
			n++;
	}
	return n;
}

/*
 * The "count" elements of a comma-separated list, palloc'd.  If it has fewer, the last
 * one is repeated: a port may be there once for all hosts.
 */
static void
split_list(const char *list, int count, char **elements)
{
	for (int i = 0; i < count; i++)
	{
		const char *end = list + strcspn(list, ",");

		elements[i] = pnstrdup(list, end - list);
		if (*end == ',')
			list = end + 1;
	}
}

/*
 * Are all names of a connection known by now, as far as they can be?  If not even one
 * host has an address, the connection fails.
 */
static bool
remote_names(DtxRemote *remote)
{
	bool		pending = false;
	bool		any = false;

	for (int i = 0; i < remote->nhosts; i++)
	{
		RemoteHost *h = &remote->hosts[i];
		const DtxNameAnswer *answer;

		if (h->asked && h->answer == NULL)
		{
			if (DtxNameLookUp(h->host, &answer) == DTX_NAME_PENDING)
			{
				pending = true;
				continue;
			}
			h->answer = MemoryContextAlloc(remote->cxt, sizeof(DtxNameAnswer));
			*h->answer = *answer;
		}
		any |= !h->asked || h->answer->naddresses > 0;
	}
	if (pending)
		return false;
	remote->names_pending = false;
	if (!any)
		remote_no_address(remote);
	return any;
}

/*
 * Say why there is no address to connect to.
 */
static void
remote_no_address(DtxRemote *remote)
{
	StringInfoData text;
	MemoryContext old = MemoryContextSwitchTo(remote->cxt);

	initStringInfo(&text);
	for (int i = 0; i < remote->nhosts; i++)
	{
		RemoteHost *h = &remote->hosts[i];

		appendStringInfo(&text,
						 "%scould not translate host name \"%s\" to address: %s",
						 i > 0 ? "; " : "", h->host, h->answer->error);
		if (text.len > MAX_ERROR_TEXT)
			break;
	}
	MemoryContextSwitchTo(old);
	remote_fail(remote, DTX_REMOTE_UNREACHABLE, text.data);
}

/*
 * PQconnectStartParams() with the addresses that were found: one element of libpq's
 * lists for each of them, because it takes one address per element.
 */
static PGconn *
remote_connect(DtxRemote *remote)
{
	const DtxTarget *target = remote->target;
	MemoryContext old = MemoryContextSwitchTo(remote->cxt);
	StringInfoData host;
	StringInfoData hostaddr;
	StringInfoData port;
	const char **keywords;
	const char **values;
	int			n = 0;
	int			nelements = 0;
	PGconn	   *conn;

	initStringInfo(&host);
	initStringInfo(&hostaddr);
	initStringInfo(&port);
	for (int i = 0; i < remote->nhosts; i++)
	{
		RemoteHost *h = &remote->hosts[i];
		int			naddresses = h->asked ? h->answer->naddresses : 1;

		for (int j = 0; j < naddresses; j++)
		{
			const char *comma = nelements++ > 0 ? "," : "";
			int			from = (target->attempt / remote->nhosts + j) % naddresses;

			appendStringInfo(&host, "%s%s", comma, h->host);
			appendStringInfo(&hostaddr, "%s%s", comma,
							 h->asked ? h->answer->addresses[from] : h->hostaddr);
			appendStringInfo(&port, "%s%s", comma, h->port);
		}
	}

	while (target->keywords[n] != NULL)
		n++;
	keywords = palloc((n + 6) * sizeof(char *));
	values = palloc((n + 6) * sizeof(char *));
	memcpy(keywords, target->keywords, n * sizeof(char *));
	memcpy(values, target->values, n * sizeof(char *));

	/* Of an option that is there twice the last one counts. */
	keywords[n] = "host";
	values[n++] = host.data;
	keywords[n] = "hostaddr";
	values[n++] = hostaddr.data;
	keywords[n] = "port";
	values[n++] = port.data;

	/*
	 * Who must bring a password gets no ticket of this server's.  Nor does
	 * Kerberos' library look up "host", which it does as soon as the server
	 * asks for a ticket, whatever we have (lib/gssapi/krb5/import_name.c):
	 * what it gets as the host's name is too long to be asked for (libpq
	 * appends "@" and the name to krbsrvname: fe-gssapi-common.c,
	 * pg_GSS_load_servicename).
	 */
	if (target->need_password)
	{
		char	   *service = psprintf("postgres@%0*d", NI_MAXHOST, 0);

		keywords[n] = "gssencmode";
		values[n++] = "disable";
		keywords[n] = "krbsrvname";
		values[n++] = service;
	}
	keywords[n] = values[n] = NULL;

	conn = PQconnectStartParams(keywords, values, 0);
	MemoryContextSwitchTo(old);
	return conn;
}

/*
 * Begin to connect.
 */
static void
remote_start(DtxRemote *remote)
{
	/*
	 * fd.c must know of our sockets.  If it has no room, wait for those of
	 * our own connections that are open to be closed.
	 */
	if (!AcquireExternalFD() &&
		!(free_descriptor(remote->set) && AcquireExternalFD()))
	{
		if (remote->set->nconnections > remote->set->nparked)
			return;
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
					"too many open files on the local server");
		return;
	}
	remote->has_fd = true;
	remote->set->nconnections++;
	remote->place->nconnections++;
	set_tick(remote->set, MAX_COUNTED_PAUSE);

	remote->conn = remote_connect(remote);
	remote->set->dirty = true;
	if (remote->conn == NULL)
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE, "out of memory");
		return;
	}
	PQsetNoticeReceiver(remote->conn, receive_notice, remote);
	if (PQstatus(remote->conn) == CONNECTION_BAD)
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
					PQerrorMessage(remote->conn));
		return;
	}
	remote->state = REMOTE_CONNECTING;
	remote->events = WL_SOCKET_WRITEABLE;
	remote->deadline = remote->set->clock + remote->target->connect_timeout;
}

static void
remote_connect_step(DtxRemote *remote)
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
			remote_connected(remote);
			break;
		default:

			/*
			 * A server that has read our startup packet and then refused may
			 * let another user in.
			 */
			remote_fail(remote,
						remote->answered ? DTX_REMOTE_REFUSED :
						DTX_REMOTE_UNREACHABLE,
						PQerrorMessage(remote->conn));
			break;
	}
}

static void
remote_connected(DtxRemote *remote)
{
	char		setup[512];

	if (remote->target->need_password &&
		!PQconnectionUsedPassword(remote->conn))
	{
		remote_fail(remote, DTX_REMOTE_REFUSED,
					"password is required: the server did not ask for the password of a user mapping of somebody who is not a superuser");
		return;
	}

	/* PQsendQuery() and PQfinish() must not block either. */
	if (PQsetnonblocking(remote->conn, 1) != 0)
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
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
	remote->state = REMOTE_IDLE;
	remote->setting_up = true;
	DtxRemoteSend(remote, setup);
}

/*
 * How many bytes will the next read find, at least?
 */
static int
bytes_waiting(DtxRemote *remote)
{
	int			waiting;

	/* if the system does not tell, it takes some more reads to notice */
	if (ioctl(PQsocket(remote->conn), FIONREAD, &waiting) < 0 || waiting < 0)
		waiting = MAX_FRUITLESS_BYTES / 64;
	return Min(waiting, is_encrypted(remote) ? MAX_COUNTED_ENCRYPTED :
			   MAX_FRUITLESS_BYTES);
}

static bool
is_encrypted(DtxRemote *remote)
{
	return PQsslInUse(remote->conn) || PQgssEncInUse(remote->conn);
}

/*
 * Write what is left, read what is there, hand out what is complete.
 */
static void
remote_io_step(DtxRemote *remote)
{
	PGnotify   *notify;
	int			waiting;

	if (remote->unflushed)
	{
		int			rc = PQflush(remote->conn);

		if (rc < 0)
		{
			remote_fail(remote, DTX_REMOTE_UNREACHABLE,
						PQerrorMessage(remote->conn));
			return;
		}
		remote->unflushed = rc == 1;
		remote_want(remote, WL_SOCKET_READABLE |
					(remote->unflushed ? WL_SOCKET_WRITEABLE : 0));
	}

	waiting = bytes_waiting(remote);
	if (!PQconsumeInput(remote->conn))
	{
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
					PQerrorMessage(remote->conn));
		return;
	}
	while ((notify = PQnotifies(remote->conn)) != NULL)
		PQfreemem(notify);

	while (remote->state == REMOTE_BUSY && !PQisBusy(remote->conn))
	{
		waiting = 0;
		remote->fruitless = 0;
		remote->result = PQgetResult(remote->conn);

		if (remote->result == NULL)
		{
			if (PQstatus(remote->conn) == CONNECTION_BAD)
			{
				remote_fail(remote, DTX_REMOTE_UNREACHABLE,
							remote->error.message ? remote->error.message :
							PQerrorMessage(remote->conn));
				return;
			}
			if (remote->setting_up)
			{
				remote->setting_up = false;
				if (remote->error.sqlstate != 0)
				{
					remote_fail(remote, DTX_REMOTE_REFUSED,
								remote->error.message);
					return;
				}
			}
			remote->state = REMOTE_IDLE;
			remote->handler->ready(remote, remote->arg, &remote->error);
			if (remote->state == REMOTE_IDLE)
				DtxRemoteClose(remote);
			continue;
		}

		switch (PQresultStatus(remote->result))
		{
			case PGRES_SINGLE_TUPLE:
				if (!remote->setting_up && PQntuples(remote->result) == 1)
					remote->handler->row(remote, remote->arg,
										 remote->statement, remote->result);
				break;
			case PGRES_TUPLES_OK:
			case PGRES_COMMAND_OK:
			case PGRES_EMPTY_QUERY:
				remote->statement++;
				break;
			case PGRES_BAD_RESPONSE:
			case PGRES_NONFATAL_ERROR:
			case PGRES_FATAL_ERROR:
				remote_take_error(remote, remote->result);
				break;
			default:
				/* COPY, which nobody asked for */
				remote_fail(remote, DTX_REMOTE_UNREACHABLE,
							"unexpected answer from the server");
				return;
		}
		PQclear(remote->result);
		remote->result = NULL;
	}

	remote->fruitless += waiting;
	if (remote->state == REMOTE_BUSY &&
		remote->fruitless >= (is_encrypted(remote) ? MAX_FRUITLESS_ENCRYPTED :
							  MAX_FRUITLESS_BYTES))
		remote_fail(remote, DTX_REMOTE_UNREACHABLE,
					"the server sends more than it was asked for");
}

/*
 * Keep what the server says about a command that failed; the first error
 * counts.
 */
static void
remote_take_error(DtxRemote *remote, const PGresult *res)
{
	MemoryContext old;
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);

	if (remote->error.sqlstate != 0)
		return;

	old = MemoryContextSwitchTo(remote->cxt);
	if (sqlstate != NULL && strlen(sqlstate) == 5 &&
		strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
		remote->error.sqlstate = MAKE_SQLSTATE(sqlstate[0], sqlstate[1],
											   sqlstate[2], sqlstate[3],
											   sqlstate[4]);
	else
		remote->error.sqlstate = ERRCODE_CONNECTION_FAILURE;
	if (message == NULL)
		message = PQresultErrorMessage(res);
	remote->error.message = DtxCleanText(message, MAX_ERROR_TEXT);
	if (detail != NULL)
		remote->error.detail = DtxCleanText(detail, MAX_ERROR_TEXT);
	if (hint != NULL)
		remote->error.hint = DtxCleanText(hint, MAX_ERROR_TEXT);
	MemoryContextSwitchTo(old);
}

/*
 * Close the connection and tell its owner.  "error" may be libpq's.
 */
static void
remote_fail(DtxRemote *remote, DtxRemoteFailure failure, const char *error)
{
	MemoryContext old = MemoryContextSwitchTo(remote->cxt);
	char	   *text = DtxCleanText(error, MAX_ERROR_TEXT);

	MemoryContextSwitchTo(old);
	DtxRemoteClose(remote);
	remote->handler->failed(remote, remote->arg, failure, text);
}

/*
 * Free what is not palloc'd.  Never throws.
 */
static void
remote_disconnect(DtxRemote *remote)
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
 * Notices of other servers have no place in our log.  But a warning may say that
 * what is about to be answered is not replicated: see participant.c,
 * receive_notice().  Called by libpq, before it hands out the result.
 */
static void
receive_notice(void *arg, const PGresult *res)
{
	DtxRemote  *remote = (DtxRemote *) arg;
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);

	if (severity == NULL || strcmp(severity, "WARNING") == 0)
		remote->error.warned = true;
}
