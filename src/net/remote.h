/*-------------------------------------------------------------------------
 *
 * remote.h
 *		Latch-aware libpq: connections of pg_dtx's own to foreign servers, many at a time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_H
#define PG_DTX_REMOTE_H

#include "libpq-fe.h"
#include "net/target.h"
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

extern DtxRemoteSet *DtxRemoteSetCreate(MemoryContext parent);
extern void DtxRemoteSetDestroy(DtxRemoteSet *set);
extern DtxRemote *DtxRemoteOpen(DtxRemoteSet *set, const DtxTarget *target,
								const DtxRemoteHandler *handler, void *arg);
extern void DtxRemoteSend(DtxRemote *remote, const char *sql);
extern void DtxRemoteClose(DtxRemote *remote);
extern bool DtxRemotePark(DtxRemote *remote, const DtxRemoteHandler *handler,
						  void *arg);
extern bool DtxRemoteResume(DtxRemote *remote, const DtxTarget *target,
							const DtxRemoteHandler *handler, void *arg);
extern int	DtxRemoteVersion(DtxRemote *remote);
extern int	DtxRemoteBackendPid(DtxRemote *remote);
extern int	DtxRemoteCount(DtxRemoteSet *set);
extern bool DtxRemoteWait(DtxRemoteSet *set, long timeout,
						  uint32 wait_event_info);

#endif							/* PG_DTX_REMOTE_H */
