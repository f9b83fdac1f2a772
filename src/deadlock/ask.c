/*-------------------------------------------------------------------------
 *
 * ask.c
 *		Asking several servers at once, over connections that are kept.
 *
 * Servers are known as running ones (DtxInstance).  A connection is made through a foreign
 * server and user mapping through which a backend has a session there, and to nowhere
 * else: not if their options have changed since.  Each answer begins with which running
 * server has given it; one of another is dropped.
 *
 * A server that does not answer in time is not waited for.  Its answer, should it come,
 * is dropped, and it is asked again when that has come.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/gid.h"
#include "deadlock/ask.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/remote_park.h"
#include "net/remote_set.h"
#include "net/remote_wait.h"
#include "net/target.h"
#include "state/waits.h"
#include "storage/latch.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* Pauses after a server could not be reached, milliseconds. */
#define RETRY_MIN_MS	1000
#define RETRY_MAX_MS	30000

/* A server that has not been asked for this time is forgotten, milliseconds. */
#define KEEP_MS			10000

/*
 * What our questions are to cost, and that they change nothing.  They are short, and their
 * recursion looks expensive, so compiling them takes longer than anything else.
 */
#define SETUP \
	"SELECT pg_catalog.set_config(s.name, 'off', false) FROM pg_catalog.pg_settings AS s" \
	" WHERE s.name OPERATOR(pg_catalog.=) 'jit'; " \
	"SET max_parallel_workers_per_gather = 0; " \
	"SET statement_timeout = 10000; " \
	"SET default_transaction_read_only = on"

/* Which running server answers; in front of every question. */
#define WHO_ARE_YOU "SELECT " DTX_SESSION "; "

typedef enum ServerState
{
	SERVER_CLOSED,				/* no connection */
	SERVER_CONNECTING,
	SERVER_SET_UP,				/* SETUP was sent */
	SERVER_PARKED,				/* it waits for the next question */
	SERVER_ASKED				/* the question was sent */
} ServerState;

typedef struct Server
{
	uint64		instance;		/* hash key */
	DtxAsk	   *ask;
	ServerState state;
	DtxRemote  *remote;			/* if not CLOSED */
	MemoryContext cxt;			/* of the following */
	DtxTarget  *target;
	char	   *question;		/* the present one, or NULL */
	uint64		round;			/* that it is of */
	bool		is_it;			/* does the right server answer? */
	int			attempt;		/* which route is next */
	DtxBackoff	backoff;		/* of connections that failed */
	DtxMoment	asked_at;		/* last time */
} Server;

struct DtxAsk
{
	MemoryContext cxt;
	DtxRemoteSet *set;
	HTAB	   *servers;
	uint64		round;			/* counts them */
	int			outstanding;	/* servers that have not answered in this one */
	DtxMoment	answered_at;	/* when the last one has, or it began */
	int64		silence;		/* waited for those that have not, ms */
	DtxAskRow	row;
	void	   *arg;
};

static void server_ready(DtxRemote *remote, void *arg, const DtxRemoteError *error);
static void server_row(DtxRemote *remote, void *arg, int statement, const PGresult *res);
static void server_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
						  const char *error);
static void park(Server *s);
static void settle(Server *s);

static const DtxRemoteHandler handler = {
	.ready = server_ready,
	.row = server_row,
	.failed = server_failed
};

/*
 * No server is known yet.  Everything lives in a child of "parent".  Throws if out of
 * memory.
 */
DtxAsk *
DtxAskCreate(MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "pg_dtx questions about locks",
											  ALLOCSET_DEFAULT_SIZES);
	DtxAsk	   *ask = MemoryContextAllocZero(cxt, sizeof(DtxAsk));
	HASHCTL		info;

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(uint64);
	info.entrysize = sizeof(Server);
	info.hcxt = cxt;
	ask->cxt = cxt;
	ask->servers = hash_create("pg_dtx servers asked about locks", 32, &info,
							   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	ask->set = DtxRemoteSetCreate(cxt);
	return ask;
}

/* Close all connections. */
void
DtxAskDestroy(DtxAsk *ask)
{
	MemoryContextDelete(ask->cxt);
}

/*
 * Begin a round of questions: "row" is called for each row of the answers, and may throw;
 * everything has to be destroyed then.
 */
void
DtxAskBegin(DtxAsk *ask, DtxAskRow row, void *arg)
{
	HASH_SEQ_STATUS seq;
	Server	   *s;

	ask->round++;
	ask->outstanding = 0;
	ask->answered_at = DtxNow();
	ask->row = row;
	ask->arg = arg;
	hash_seq_init(&seq, ask->servers);
	while ((s = hash_seq_search(&seq)) != NULL)
	{
		if (!DtxIsDue(s->asked_at + KEEP_MS))
			continue;
		if (s->state == SERVER_CLOSED)
		{
			MemoryContextDelete(s->cxt);
			(void) hash_search(ask->servers, &s->instance, HASH_REMOVE, NULL);
		}
		else if (s->state == SERVER_PARKED)
		{
			DtxRemoteClose(s->remote);
			s->remote = NULL;
			s->state = SERVER_CLOSED;
		}
	}
}

/*
 * Ask a server in this round.  Returns false if it cannot be asked now: it still owes an
 * answer, was not to be reached a moment ago, or cannot be reached by any of the routes.  In
 * a transaction; may throw.
 */
bool
DtxAskServer(DtxAsk *ask, uint64 instance, const DtxAskRoute *routes, int nroutes,
			 const char *question)
{
	bool		found;
	Server	   *s = hash_search(ask->servers, &instance, HASH_ENTER, &found);
	MemoryContext old;
	DtxTarget  *target = NULL;

	if (!found)
	{
		memset(s, 0, sizeof(Server));
		s->instance = instance;
		s->ask = ask;
		s->cxt = AllocSetContextCreate(ask->cxt, "pg_dtx server asked about locks",
									   ALLOCSET_SMALL_SIZES);
	}
	s->asked_at = DtxNow();
	if ((s->state != SERVER_PARKED && s->state != SERVER_CLOSED) ||
		!DtxIsDue(s->backoff.next))
		return false;

	MemoryContextReset(s->cxt);
	s->target = NULL;
	s->question = NULL;
	old = MemoryContextSwitchTo(s->cxt);
	for (int i = 0; i < nroutes && target == NULL; i++)
	{
		const DtxAskRoute *route = &routes[(s->attempt + i) % nroutes];

		target = DtxTargetMake(route->serverid, route->umid, 0, InvalidOid);
		if (target->error != NULL ||
			DtxWaitsFingerprint(target->options_text) != route->endpoint)
			target = NULL;
		else
			s->attempt += i;
	}
	s->question = psprintf("%s%s", WHO_ARE_YOU, question);
	MemoryContextSwitchTo(old);
	if (target == NULL)
	{
		DtxBackoffFailed(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
		return false;
	}
	s->target = target;
	s->round = ask->round;
	s->is_it = false;
	ask->outstanding++;

	if (s->state == SERVER_PARKED)
	{
		/* Calls server_ready(), which sends the question. */
		if (DtxRemoteResume(s->remote, s->target, &handler, s))
			return true;
		DtxRemoteClose(s->remote);
	}
	s->state = SERVER_CONNECTING;
	s->remote = DtxRemoteOpen(ask->set, s->target, &handler, s);
	return true;
}

/*
 * Wait until all that were asked have answered, or to the deadline: this ends the round.
 * Throws on interrupts.
 */
void
DtxAskWait(DtxAsk *ask, DtxMoment deadline, uint32 wait_event)
{
	while (ask->outstanding > 0 && !DtxIsDue(deadline))
	{
		if (DtxRemoteWait(ask->set, DtxUntil(deadline), wait_event))
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	if (ask->outstanding > 0)
		ask->silence += DtxNow() - ask->answered_at;

	/* What comes now is nobody's any more. */
	ask->round++;
	ask->outstanding = 0;
	ask->row = NULL;
	ask->arg = NULL;
}

/*
 * How long servers were waited for that have not answered, in milliseconds, since this was
 * asked last.
 */
int64
DtxAskTakeSilence(DtxAsk *ask)
{
	int64		silence = ask->silence;

	ask->silence = 0;
	return silence;
}

/*
 * Between rounds: wait for the latch, for so long (-1: no limit), and look after the
 * connections.  Returns whether the latch is set.  Throws what DtxRemoteWait() throws;
 * everything has to be destroyed then.
 */
bool
DtxAskIdle(DtxAsk *ask, long timeout, uint32 wait_event)
{
	return DtxRemoteWait(ask->set, timeout, wait_event);
}

/* The server has answered, or is not going to. */
static void
settle(Server *s)
{
	if (s->question == NULL)
		return;
	s->question = NULL;
	if (s->round != s->ask->round)
		return;
	s->ask->outstanding--;
	s->ask->answered_at = DtxNow();
}

static void
park(Server *s)
{
	if (DtxRemotePark(s->remote, &handler, s))
		s->state = SERVER_PARKED;
	else
	{
		DtxRemoteClose(s->remote);
		s->remote = NULL;
		s->state = SERVER_CLOSED;
	}
}

static void
server_ready(DtxRemote *remote, void *arg, const DtxRemoteError *error)
{
	Server	   *s = (Server *) arg;

	switch (s->state)
	{
		case SERVER_CONNECTING:
			s->state = SERVER_SET_UP;
			DtxRemoteSend(remote, SETUP);
			break;
		case SERVER_SET_UP:
		case SERVER_PARKED:
			if (s->state == SERVER_SET_UP && error->sqlstate != 0)
			{
				DtxRemoteClose(remote);
				server_failed(remote, s, DTX_REMOTE_REFUSED, error->message);
				break;
			}
			if (s->state == SERVER_PARKED)
				DtxBackoffReset(&s->backoff);
			if (s->question == NULL)
			{
				park(s);
				break;
			}
			s->state = SERVER_ASKED;
			DtxRemoteSend(remote, s->question);
			break;
		case SERVER_ASKED:
			settle(s);
			if (error->sqlstate == 0 && !s->is_it)
			{
				/* This way leads to another server: the next one, if any. */
				s->attempt++;
				s->remote = NULL;
				s->state = SERVER_CLOSED;
				DtxRemoteClose(remote);
				DtxBackoffFailed(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
				break;
			}
			park(s);
			break;
		case SERVER_CLOSED:
			Assert(false);
			break;
	}
}

static void
server_row(DtxRemote *remote, void *arg, int statement, const PGresult *res)
{
	Server	   *s = (Server *) arg;

	if (s->state != SERVER_ASKED || s->question == NULL || s->round != s->ask->round)
		return;
	if (statement == 0)
		s->is_it = PQnfields(res) == 3 &&
			DtxInstance(DtxNumberParse(PQgetvalue(res, 0, 1), PG_INT64_MAX),
						DtxNumberParse(PQgetvalue(res, 0, 2), PG_UINT16_MAX)) ==
			(s->instance ^ DtxInstanceSalt(s->target->serverid, s->target->trusted));
	else if (s->is_it)
		s->ask->row(s->ask->arg, s->instance, statement - 1, res);
}

static void
server_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure, const char *error)
{
	Server	   *s = (Server *) arg;

	elog(DEBUG1, "could not ask server \"%s\" about locks: %s",
		 s->target != NULL ? s->target->servername : "", error);
	settle(s);
	s->remote = NULL;
	s->state = SERVER_CLOSED;
	s->attempt++;
	DtxBackoffFailed(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS);
}
