/*-------------------------------------------------------------------------
 *
 * remote.h
 *		A connection of pg_dtx's own to a foreign server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_H
#define PG_DTX_REMOTE_H

#include "base/backoff.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "net/hosts.h"
#include "net/target.h"
#include "storage/latch.h"
#include "utils/palloc.h"

/* Longest time for one command, milliseconds. */
#define DTX_REMOTE_COMMAND_TIMEOUT	30000

/* Why a connection ended. */
typedef enum DtxRemoteFailure
{
	DTX_REMOTE_UNREACHABLE,		/* no use to try another user now */
	DTX_REMOTE_SILENT,			/* likewise: no answer to a command in time */
	DTX_REMOTE_REFUSED			/* reached, but this user was not let in */
} DtxRemoteFailure;

/* What a server answered to a command that it rejected. */
typedef struct DtxRemoteError
{
	int			sqlstate;		/* packed; 0 if the command succeeded */
	char	   *message;		/* never NULL if sqlstate is set */
	char	   *detail;			/* or NULL */
	char	   *hint;			/* or NULL */
	bool		warned;			/* did a WARNING come with the answer? */
} DtxRemoteError;

typedef struct DtxRemoteSet DtxRemoteSet;
typedef struct DtxRemote DtxRemote;

/*
 * What the owner of a connection is told.  All may throw; the set has to be
 * destroyed then.  All may call DtxRemoteClose().
 */
typedef struct DtxRemoteHandler
{
	/*
	 * The connection can take a command: it was just established, or the last
	 * command is over, with error->sqlstate set if it failed.  Must call
	 * DtxRemoteSend() or DtxRemoteClose().
	 */
	void		(*ready) (DtxRemote *remote, void *arg,
						  const DtxRemoteError *error);

	/*
	 * A row of the statement number "statement", from 0, of the command.  The
	 * result is the engine's and holds just this row.
	 */
	void		(*row) (DtxRemote *remote, void *arg, int statement,
						const PGresult *res);

	/*
	 * The connection could not be made, broke, or was too slow.  It is closed
	 * already.  "error" lives until this function returns.
	 */
	void		(*failed) (DtxRemote *remote, void *arg,
						   DtxRemoteFailure failure, const char *error);
} DtxRemoteHandler;

/* Longest text of a remote error that we keep, bytes. */
#define DTX_REMOTE_MAX_ERROR_TEXT	1000

/* What this process does between two waits counts for deadlines up to that, ms. */
#define DTX_REMOTE_MAX_COUNTED_PAUSE	100

typedef enum DtxRemoteState
{
	DTX_REMOTE_QUEUED,			/* waits for its hosts' names, and its turn to
								 * connect */
	DTX_REMOTE_CONNECTING,		/* in PQconnectPoll() */
	DTX_REMOTE_BUSY,			/* a command is on its way */
	DTX_REMOTE_IDLE,			/* in the owner's ready() */
	DTX_REMOTE_PARKED,			/* waits for its next use */
	DTX_REMOTE_CLOSED			/* freed at the end of the round */
} DtxRemoteState;

/* Where connections of a set lead; as long as the set. */
typedef struct DtxRemotePlace
{
	dlist_node	node;			/* in DtxRemoteSet.places */
	uint64		key;			/* DtxTarget.place */
	int			nconnections;	/* those that hold a PGconn */
	int			nparked;		/* of them, those that are parked */
} DtxRemotePlace;

/* Its fields are for the remote_* files only. */
struct DtxRemote
{
	dlist_node	node;			/* in DtxRemoteSet.remotes */
	DtxRemoteSet *set;			/* the set it belongs to */
	DtxRemotePlace *place;		/* where it leads */
	MemoryContext cxt;			/* what hangs off this struct */
	const DtxTarget *target;	/* the owner's */
	const DtxRemoteHandler *handler;	/* the owner's */
	void	   *arg;			/* for the handler */
	DtxRemoteState state;
	bool		setting_up;		/* the command is our own session setup */
	bool		resumed;		/* the next command is the first after a pause */
	DtxHosts   *hosts;			/* where it may lead, NULL: not known yet */
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

/* Likewise. */
struct DtxRemoteSet
{
	MemoryContext cxt;			/* everything of the set */
	MemoryContextCallback callback; /* closes everything on reset */
	dlist_head	remotes;		/* DtxRemote */
	int			nremotes;		/* all of them, closed ones excepted */
	int			nconnections;	/* those that hold a PGconn */
	int			nparked;		/* of them, those that are parked */
	dlist_head	places;			/* DtxRemotePlace */
	WaitEventSet *events;		/* NULL: to be built */
	bool		dirty;			/* sockets have changed: build again */
	uint64		names_version;	/* DtxNamesSocketsVersion() when it was built */
	int64		clock;			/* milliseconds, see DtxRemoteSetTick() */
	DtxMoment	ticked_at;		/* when that was */
};

extern void DtxRemoteClose(DtxRemote *remote);
extern int	DtxRemoteVersion(DtxRemote *remote);
extern int	DtxRemoteBackendPid(DtxRemote *remote);

/* for the remote_* files */
extern void DtxRemoteFail(DtxRemote *remote, DtxRemoteFailure failure,
						  const char *error);
extern void DtxRemoteDisconnect(DtxRemote *remote);
extern void DtxRemoteWant(DtxRemote *remote, uint32 events);

#endif							/* PG_DTX_REMOTE_H */
