/*-------------------------------------------------------------------------
 *
 * names.c
 *		Host names, looked up without waiting for anybody.
 *
 * libpq looks host names up with getaddrinfo(), which returns when a name server
 * has answered or all of them have been waited for, and cannot be interrupted.  One
 * name that is never answered would stop all that a resolver does, for minutes.  So
 * libpq gets addresses from us (hosts.c), and this file finds them with c-ares,
 * whose lookups are sockets and timers in the caller's own loop: no thread, no other
 * process.
 *
 * - What is asked: /etc/hosts, then the name servers of /etc/resolv.conf, with its
 *	 search list.  Other sources that nsswitch.conf may name (mDNS, NIS, LDAP) are not
 *	 asked.
 *
 * - One lookup per name, for all who want it; one that is not answered costs the
 *	 others nothing.  After DTX_NAME_TIMEOUT a name counts as unknown, while c-ares may
 *	 still go on with it: an answer that comes late is good for the next who asks.
 *
 * - Answers are kept as long as they say themselves, but not longer than
 *	 MAX_TTL; failures for FAILED_TTL.
 *
 * - The files are read again when a channel is replaced, every CHANNEL_LIFE.  Not
 *	 with ares_reinit(), which starts a thread.
 *
 * - Callbacks run inside c-ares, which does not expect to be left by longjmp().
 *	 They store what they are told; collect() acts on it afterwards.
 *
 * All state is private to the process and lives while a set of connections is
 * attached.
 *
 * May throw for want of memory: DtxNamesAttach(), DtxNameLookUp(), DtxNamesProcess().
 * The rest does not throw.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>

#if defined(__has_include) && !__has_include(<ares.h>)
#error c-ares is missing: install libc-ares-dev (Debian) or c-ares-devel (RHEL)
#endif
#include <ares.h>

#include "base/backoff.h"
#include "base/compat.h"
#include "lib/ilist.h"
#include "net/names.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

#include "base/compat.h"

/* ares_getaddrinfo() is there since 1.16. */
#if ARES_VERSION < 0x011000
#error pg_dtx needs c-ares 1.16 or later
#endif

/* Longest host name, with the end of the string; DNS has 253 bytes at most. */
#define NAME_SIZE			256

/* Answers live so long at least and at most, milliseconds. */
#define MIN_TTL				1000
#define MAX_TTL				30000
#define FAILED_TTL			5000

/* A channel takes new lookups for so long, milliseconds. */
#define CHANNEL_LIFE		60000

/* ... and then finishes those that it has, for so long. */
#define CHANNEL_REST		30000

/*
 * Lookups that are waited for at a time; the others queue.  Names that have failed
 * before get half of the room, so that names that nobody answers leave some to the
 * others.
 */
#define MAX_WAITED			200
#define MAX_SUSPECTS		(MAX_WAITED / 2)

/* Lookups at a time, with those that are not waited for any more. */
#define MAX_OUTSTANDING		1000

/* Names that are remembered: beyond the first number expired ones go. */
#define MANY_NAMES			1000
#define MAX_NAMES			5000

/* Sockets of one channel, and how many of them fd.c is told of in advance. */
#define MAX_SOCKETS			16
#define RESERVED_SOCKETS	4

/* First and longest time for one name server to answer, and rounds of asking all. */
#define SERVER_TIMEOUT		1000
#define SERVER_ROUNDS		2

typedef struct Socket
{
	ares_socket_t fd;
	uint32		events;			/* WL_SOCKET_xxx that are waited for */
	uint32		occurred;		/* of them, those that have come */
} Socket;

typedef struct Channel
{
	ares_channel channel;
	DtxMoment	made_at;
	int			noutstanding;	/* lookups whose callback has not been called */
	int			nreserved;		/* external descriptors */
	int			nsockets;
	Socket		sockets[MAX_SOCKETS];
} Channel;

typedef struct HostName
{
	char		name[NAME_SIZE];	/* hash key */
	DtxNameStatus status;
	bool		queued;			/* PENDING, in names->queue: not begun */
	Channel    *channel;		/* in names->outstanding: who looks it up */
	DtxMoment	until;			/* PENDING and begun: give up then; else the
								 * answer is good until then */
	int			failures;		/* in a row */
	DtxNameAnswer answer;
	dlist_node	node;			/* in one of these lists, or in none */

	/* written by the callback */
	bool		done;
	int			ares_status;
	struct ares_addrinfo *result;
} HostName;

typedef struct Names
{
	MemoryContext cxt;			/* everything */
	HTAB	   *table;			/* HostName */
	dlist_head	queue;			/* HostName */
	dlist_head	outstanding;	/* HostName */
	int			noutstanding;
	bool		news;			/* is any name not pending any more, since
								 * DtxNamesProcess() has said so? */
	Channel    *current;		/* gets new lookups; NULL: to be made */
	Channel    *retired;		/* finishes those that it has, or NULL */
	long		next_look;		/* make_room() does nothing for fewer names */
} Names;

static Names *names = NULL;
static int	nattached = 0;

/* Changes whenever the sockets or what is waited for do. */
static uint64 sockets_version = 1;

static Channel *channel_make(void);
static void channel_destroy(Channel *ch);
static void channel_replace(void);
static void socket_state(void *arg, ares_socket_t fd, int readable, int writable);
static int	socket_created(ares_socket_t fd, int type, void *arg);
static void lookup_done(void *arg, int status, int timeouts,
						struct ares_addrinfo *result);
static bool begin_lookup(HostName *n);
static void collect(HostName *n);
static void collect_all(void);
static void take_result(HostName *n);
static void set_failed(HostName *n, const char *error);
static void begin_queued(void);
static void make_room(void);

/* ----------------------------------------------------------------
 * For remote_wait.c and remote_set.c
 * ----------------------------------------------------------------
 */

/*
 * A set of connections is made.  May throw.
 */
void
DtxNamesAttach(void)
{
	if (names == NULL)
	{
		MemoryContext cxt = AllocSetContextCreate(TopMemoryContext,
												  "pg_dtx host names",
												  ALLOCSET_DEFAULT_SIZES);
		Names	   *made = MemoryContextAllocZero(cxt, sizeof(Names));
		HASHCTL		info;

		made->cxt = cxt;
		made->next_look = MANY_NAMES;
		memset(&info, 0, sizeof(info));
		info.keysize = NAME_SIZE;
		info.entrysize = sizeof(HostName);
		info.hcxt = cxt;
		made->table = hash_create("pg_dtx host names", 16, &info,
								  HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
		dlist_init(&made->queue);
		dlist_init(&made->outstanding);
		names = made;
	}
	nattached++;
}

/*
 * A set of connections is destroyed; with the last one all lookups are.  Does not
 * throw.
 */
void
DtxNamesDetach(void)
{
	Names	   *old = names;
	dlist_iter	iter;

	if (--nattached > 0)
		return;

	/* This calls all callbacks. */
	if (old->current != NULL)
		channel_destroy(old->current);
	if (old->retired != NULL)
		channel_destroy(old->retired);
	dlist_foreach(iter, &old->outstanding)
	{
		HostName   *n = dlist_container(HostName, node, iter.cur);

		if (n->result != NULL)
			ares_freeaddrinfo(n->result);
	}
	names = NULL;
	sockets_version++;
	MemoryContextDelete(old->cxt);
}

/*
 * Is this an address, as libpq takes one in option hostaddr?  Asks nobody: see
 * AI_NUMERICHOST in getaddrinfo(3).
 */
bool
DtxNameIsNumeric(const char *name)
{
	struct addrinfo hints;
	struct addrinfo *result = NULL;

	memset(&hints, 0, sizeof(hints));
	hints.ai_flags = AI_NUMERICHOST;
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	if (getaddrinfo(name, NULL, &hints, &result) != 0)
		return false;
	freeaddrinfo(result);
	return true;
}

/*
 * What is known of a name?  *answer is set unless that is DTX_NAME_PENDING, and lives
 * until the next call of any function here.  Between DtxNamesAttach() and
 * DtxNamesDetach() only.  Throws if memory is exhausted.
 */
DtxNameStatus
DtxNameLookUp(const char *name, const DtxNameAnswer **answer)
{
	static DtxNameAnswer refusal;
	HostName   *n;
	bool		found;

	if (strlen(name) >= NAME_SIZE)
	{
		strlcpy(refusal.error, "the name is too long", sizeof(refusal.error));
		*answer = &refusal;
		return DTX_NAME_FAILED;
	}

	n = hash_search(names->table, name, HASH_FIND, NULL);
	if (n == NULL)
	{
		make_room();
		if (hash_get_num_entries(names->table) >= MAX_NAMES)
		{
			strlcpy(refusal.error, "too many names are being looked up",
					sizeof(refusal.error));
			*answer = &refusal;
			return DTX_NAME_FAILED;
		}
		n = hash_search(names->table, name, HASH_ENTER, &found);
		memset((char *) n + NAME_SIZE, 0, sizeof(HostName) - NAME_SIZE);
		n->status = DTX_NAME_FAILED;
	}

	/* Not asked for yet, or the answer is too old. */
	if (n->status != DTX_NAME_PENDING && DtxIsDue(n->until))
	{
		n->status = DTX_NAME_PENDING;
		if (n->channel != NULL)
			n->until = DtxIn(DTX_NAME_TIMEOUT);
		else
		{
			n->queued = true;
			dlist_push_tail(&names->queue, &n->node);
			channel_replace();
			begin_queued();
		}
	}

	*answer = &n->answer;
	return n->status;
}

/*
 * How many sockets are to be waited for?  Numbers and events stay what they are as
 * long as DtxNamesSocketsVersion() does.
 */
int
DtxNamesSockets(void)
{
	if (names == NULL)
		return 0;
	return (names->current ? names->current->nsockets : 0) +
		(names->retired ? names->retired->nsockets : 0);
}

static Socket *
nth_socket(int i)
{
	int			ncurrent = names->current ? names->current->nsockets : 0;

	return i < ncurrent ? &names->current->sockets[i] :
		&names->retired->sockets[i - ncurrent];
}

/*
 * Socket number "i", from 0, and the WL_SOCKET_xxx to wait for.
 */
void
DtxNamesSocket(int i, pgsocket *sock, uint32 *events)
{
	Socket	   *s = nth_socket(i);

	*sock = s->fd;
	*events = s->events;
}

/*
 * Changes whenever the sockets do: then a set of what is waited for has to be made anew.
 */
uint64
DtxNamesSocketsVersion(void)
{
	return sockets_version;
}

/*
 * These events have come on socket number "i".  To be called before
 * DtxNamesProcess(), and only if the version is that of the wait.
 */
void
DtxNamesReady(int i, uint32 events)
{
	if (i < DtxNamesSockets())
		nth_socket(i)->occurred |= events;
}

/*
 * When is DtxNamesProcess() to be called at the latest?
 */
DtxMoment
DtxNamesUntil(void)
{
	DtxMoment	until = DTX_NEVER;
	dlist_iter	iter;

	if (names == NULL)
		return until;
	if (names->news)
		return DtxNow();
	for (int i = 0; i < 2; i++)
	{
		Channel    *ch = i == 0 ? names->current : names->retired;
		struct timeval tv;

		if (ch != NULL && ares_timeout(ch->channel, NULL, &tv) != NULL)
			until = Min(until, DtxIn((int64) tv.tv_sec * 1000 +
									 tv.tv_usec / 1000 + 1));
	}
	dlist_foreach(iter, &names->outstanding)
	{
		HostName   *n = dlist_container(HostName, node, iter.cur);

		if (n->status == DTX_NAME_PENDING)
			until = Min(until, n->until);
	}
	return until;
}

/*
 * Do what the sockets that are ready and the timers ask for.  Returns true if any
 * name is not pending any more.
 */
bool
DtxNamesProcess(void)
{
	bool		news;

	if (names == NULL)
		return false;

	for (int i = 0; i < 2; i++)
	{
		Channel    *ch = i == 0 ? names->current : names->retired;
		Socket		sockets[MAX_SOCKETS];
		int			nsockets;

		if (ch == NULL)
			continue;

		/* The array changes while c-ares works. */
		nsockets = ch->nsockets;
		memcpy(sockets, ch->sockets, sizeof(Socket) * nsockets);
		for (int j = 0; j < nsockets; j++)
			ch->sockets[j].occurred = 0;
		for (int j = 0; j < nsockets; j++)
		{
			Socket	   *s = &sockets[j];

			if (s->occurred != 0)
				ares_process_fd(ch->channel,
								(s->occurred & WL_SOCKET_READABLE) ?
								s->fd : ARES_SOCKET_BAD,
								(s->occurred & WL_SOCKET_WRITEABLE) ?
								s->fd : ARES_SOCKET_BAD);
		}
		ares_process_fd(ch->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
	}

	collect_all();
	channel_replace();
	begin_queued();
	news = names->news;
	names->news = false;
	return news;
}

/* ----------------------------------------------------------------
 * Channels of c-ares
 * ----------------------------------------------------------------
 */

/*
 * A new channel, or NULL.  Reads the system's files.
 */
static Channel *
channel_make(void)
{
	char		lookups[] = "fb";	/* files, then DNS */
	struct ares_options options;
	int			mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS |
		ARES_OPT_SOCK_STATE_CB;
	Channel    *ch = MemoryContextAllocZero(names->cxt, sizeof(Channel));

	/*
	 * fd.c closes files of its own to make room for descriptors that it is
	 * told of.  Not all that there may be: mostly there are one or two.
	 */
	while (ch->nreserved < RESERVED_SOCKETS && AcquireExternalFD())
		ch->nreserved++;
	if (ch->nreserved == 0)
	{
		pfree(ch);
		return NULL;
	}

	memset(&options, 0, sizeof(options));
	options.timeout = SERVER_TIMEOUT;
	options.tries = SERVER_ROUNDS;
	options.lookups = lookups;
	options.sock_state_cb = socket_state;
	options.sock_state_cb_data = ch;
#ifdef ARES_OPT_QUERY_CACHE
	/* We have our own cache. */
	options.qcache_max_ttl = 0;
	mask |= ARES_OPT_QUERY_CACHE;
#endif
	if (ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
		ares_init_options(&ch->channel, &options, mask) != ARES_SUCCESS)
	{
		while (ch->nreserved-- > 0)
			ReleaseExternalFD();
		pfree(ch);
		return NULL;
	}
	ares_set_socket_callback(ch->channel, socket_created, ch);
	ch->made_at = DtxNow();
	return ch;
}

/*
 * The callbacks of all its lookups are called.  Does not throw.
 */
static void
channel_destroy(Channel *ch)
{
	ares_destroy(ch->channel);
	while (ch->nreserved-- > 0)
		ReleaseExternalFD();
	sockets_version++;
	pfree(ch);
}

/*
 * Retire the channel that is too old, and destroy the one that is retired.
 */
static void
channel_replace(void)
{
	Channel    *ch = names->retired;

	if (ch != NULL &&
		(ch->noutstanding == 0 ||
		 DtxIsDue(ch->made_at + CHANNEL_LIFE + CHANNEL_REST)))
	{
		/* Names are not to know it any more before it is freed. */
		ares_cancel(ch->channel);
		collect_all();
		names->retired = NULL;
		channel_destroy(ch);
	}

	if (names->retired == NULL && names->current != NULL &&
		DtxIsDue(names->current->made_at + CHANNEL_LIFE))
	{
		names->retired = names->current;
		names->current = NULL;
		sockets_version++;
	}
}

/*
 * Called by c-ares: what it waits for has changed; nothing, if the socket is closed.
 */
static void
socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
	Channel    *ch = (Channel *) arg;
	uint32		events = (readable ? WL_SOCKET_READABLE : 0) |
		(writable ? WL_SOCKET_WRITEABLE : 0);
	int			i = 0;

	sockets_version++;
	while (i < ch->nsockets && ch->sockets[i].fd != fd)
		i++;
	if (events == 0)
	{
		if (i < ch->nsockets)
			ch->sockets[i] = ch->sockets[--ch->nsockets];
		return;
	}
	if (i == ch->nsockets)
	{
		Assert(i < MAX_SOCKETS);	/* see socket_created() */
		if (i == MAX_SOCKETS)
			return;
		ch->sockets[ch->nsockets++].fd = fd;
		ch->sockets[i].occurred = 0;
	}
	ch->sockets[i].events = events;
}

/*
 * Called by c-ares before the former: may it have one more socket?  If not it asks
 * another name server.
 */
static int
socket_created(ares_socket_t fd, int type, void *arg)
{
	return ((Channel *) arg)->nsockets < MAX_SOCKETS ? 0 : -1;
}

/* ----------------------------------------------------------------
 * Lookups
 * ----------------------------------------------------------------
 */

/*
 * Called by c-ares, maybe from within ares_getaddrinfo(), ares_cancel() or
 * ares_destroy(): once for each lookup.
 */
static void
lookup_done(void *arg, int status, int timeouts, struct ares_addrinfo *result)
{
	HostName   *n = (HostName *) arg;

	n->done = true;
	n->ares_status = status;
	n->result = result;
}

/*
 * Hand a name to c-ares.  Returns false if there is an answer at once.
 */
static bool
begin_lookup(HostName *n)
{
	struct ares_addrinfo_hints hints;

	if (names->current == NULL)
		names->current = channel_make();
	if (names->current == NULL)
	{
		set_failed(n, "could not initialize the library for looking up names");
		return false;
	}

	memset(&hints, 0, sizeof(hints));
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;

	n->done = false;
	n->result = NULL;
	n->channel = names->current;
	n->until = DtxIn(DTX_NAME_TIMEOUT);
	n->channel->noutstanding++;
	names->noutstanding++;
	dlist_push_tail(&names->outstanding, &n->node);
	ares_getaddrinfo(n->channel->channel, n->name, NULL, &hints, lookup_done, n);
	if (!n->done)
		return true;
	collect(n);
	return n->status == DTX_NAME_PENDING;
}

/*
 * The callback of a lookup was called: act on it.
 */
static void
collect(HostName *n)
{
	dlist_delete(&n->node);
	names->noutstanding--;
	n->channel->noutstanding--;
	n->channel = NULL;
	n->done = false;

	if (n->ares_status == ARES_SUCCESS && n->result != NULL)
		take_result(n);
	else if (n->ares_status != ARES_ECANCELLED &&
			 n->ares_status != ARES_EDESTRUCTION)
		set_failed(n, ares_strerror(n->ares_status));
	else if (n->status == DTX_NAME_PENDING)
	{
		/* Its channel has gone: once more. */
		n->queued = true;
		dlist_push_tail(&names->queue, &n->node);
	}

	if (n->result != NULL)
	{
		ares_freeaddrinfo(n->result);
		n->result = NULL;
	}
}

/*
 * Act on all callbacks that were called, and on time that has passed.
 */
static void
collect_all(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &names->outstanding)
	{
		HostName   *n = dlist_container(HostName, node, iter.cur);

		if (n->done)
			collect(n);
		else if (n->status == DTX_NAME_PENDING && DtxIsDue(n->until))
			set_failed(n, "no name server has answered in time");
	}
}

/*
 * Take the addresses that were found.
 */
static void
take_result(HostName *n)
{
	int64		ttl = MAX_TTL;

	n->answer.naddresses = 0;
	for (struct ares_addrinfo_node *node = n->result->nodes; node != NULL;
		 node = node->ai_next)
	{
		const void *address;
		char	   *text = n->answer.addresses[n->answer.naddresses];

		if (n->answer.naddresses >= DTX_NAME_MAX_ADDRESSES)
			break;
		if (node->ai_family == AF_INET)
			address = &((struct sockaddr_in *) (void *) node->ai_addr)->sin_addr;
		else if (node->ai_family == AF_INET6)
			address = &((struct sockaddr_in6 *) (void *) node->ai_addr)->sin6_addr;
		else
			continue;
		if (inet_ntop(node->ai_family, address, text, INET6_ADDRSTRLEN) == NULL)
			continue;
		n->answer.naddresses++;
		ttl = Min(ttl, (int64) node->ai_ttl * 1000);
	}
	if (n->answer.naddresses == 0)
	{
		set_failed(n, "the name has no address");
		return;
	}
	n->answer.error[0] = '\0';
	n->status = DTX_NAME_KNOWN;
	names->news = true;
	n->failures = 0;
	n->until = DtxIn(Max(ttl, MIN_TTL));
}

static void
set_failed(HostName *n, const char *error)
{
	strlcpy(n->answer.error, error, sizeof(n->answer.error));
	n->answer.naddresses = 0;
	n->status = DTX_NAME_FAILED;
	names->news = true;
	n->failures = Min(n->failures + 1, 1000);
	n->until = DtxIn(FAILED_TTL);
}

/*
 * Begin the lookups for which there is room.
 */
static void
begin_queued(void)
{
	dlist_mutable_iter iter;
	dlist_iter	it;
	int			nwaited = 0;
	int			nsuspects = 0;

	if (dlist_is_empty(&names->queue))
		return;

	dlist_foreach(it, &names->outstanding)
	{
		HostName   *n = dlist_container(HostName, node, it.cur);

		if (n->status != DTX_NAME_PENDING)
			continue;
		nwaited++;
		nsuspects += n->failures > 0;
	}

	dlist_foreach_modify(iter, &names->queue)
	{
		HostName   *n = dlist_container(HostName, node, iter.cur);

		if (nwaited >= MAX_WAITED || names->noutstanding >= MAX_OUTSTANDING)
			break;
		if (n->failures > 0 && nsuspects >= MAX_SUSPECTS)
			continue;
		dlist_delete(&n->node);
		n->queued = false;
		if (begin_lookup(n))
		{
			nwaited++;
			nsuspects += n->failures > 0;
		}
	}
}

/*
 * Forget names that nobody has asked for lately, if there are many.
 */
static void
make_room(void)
{
	HASH_SEQ_STATUS seq;
	HostName   *n;
	long		nnames = hash_get_num_entries(names->table);

	if (nnames < names->next_look)
		return;
	hash_seq_init(&seq, names->table);
	while ((n = hash_seq_search(&seq)) != NULL)
	{
		if (!n->queued && n->channel == NULL &&
			(nnames >= MAX_NAMES || DtxIsDue(n->until)))
			(void) hash_search(names->table, n->name, HASH_REMOVE, NULL);
	}

	/* Not at each name, if nothing could be done. */
	nnames = hash_get_num_entries(names->table);
	names->next_look = Min(Max(MANY_NAMES, nnames + MANY_NAMES / 10), MAX_NAMES);
}
