/*-------------------------------------------------------------------------
 *
 * waits.h
 *		Which backends wait for a server, and through which of its sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAITS_H
#define PG_DTX_WAITS_H

#include "base/backoff.h"
#include "datatype/timestamp.h"

/* Sessions with servers of one backend that others can see; further ones are not known. */
#define DTX_WAIT_SESSIONS	64

/* Room for what a victim is told, with its NUL. */
#define DTX_VICTIM_TEXT		2048

/* A session of a backend with a server. */
typedef struct DtxWaitSession
{
	uint64		serial;			/* of its wire, in that backend */
	uint64		instance;		/* which running server (DtxInstance) */
	int			pid;			/* the server's process for it */
	uint64		started;		/* when that has started, 0 if not known */
	Oid			serverid;		/* foreign server ... */
	Oid			umid;			/* ... and user mapping that lead there */
	uint64		endpoint;		/* DtxWaitsFingerprint() of their options */
	bool		awaited;		/* if the backend waits: for this one? */
} DtxWaitSession;

/* A copy of a backend's entry. */
typedef struct DtxWaits
{
	int			procno;			/* number of the entry */
	int			pid;			/* backend's process id */
	Oid			dbid;			/* its database */
	Oid			userid;			/* its session user */
	uint32		mark;			/* of its sessions (net/session_mark) */
	TimestampTz start;			/* of the local transaction, when it last
								 * waited */
	uint64		number;			/* of its waits, see below */
	DtxMoment	since;			/* when the last wait began */
	bool		may_throw;		/* ... and may it end with an error? */
	bool		overdue;		/* ... and is it longer than deadlock_timeout? */
	bool		victim;			/* ... and was it chosen to end? */
	bool		appending;		/* does it sleep in the executor, for several
								 * foreign tables at once? */
	int			nsessions;
	DtxWaitSession sessions[DTX_WAIT_SESSIONS];
} DtxWaits;

/*
 * Waits of a backend are numbered: an odd number means that it waits, and the same odd
 * number later, that it is the same wait, without an interruption.
 */
static inline bool
DtxWaitsNow(const DtxWaits *w)
{
	return (w->number & 1) != 0 && !w->victim;
}

extern Size DtxWaitsShmemSize(void);
extern void DtxWaitsShmemInit(void);

/* by a backend, of itself; none of these throws, but for the first */
extern void DtxWaitsPrepareBackend(uint32 mark);
extern void DtxWaitsAddSession(const DtxWaitSession *session);
extern void DtxWaitsDropSession(uint64 serial);
extern bool DtxWaitsBegin(const uint64 *serials, int n, bool may_throw);
extern void DtxWaitsSetOverdue(void);
extern bool DtxWaitsIsVictim(void);
extern void DtxWaitsTakeVerdict(char *detail, char *log);
extern void DtxWaitsEnd(void);

/* by the detector of deadlocks, and views */
extern uint64 DtxWaitsFingerprint(const char *text);
extern uint64 DtxInstance(int64 started_usec, int port);
extern uint64 DtxInstanceHere(void);
extern uint64 DtxInstanceSalt(Oid serverid, bool trusted);
extern int	DtxWaitsCount(void);
extern bool DtxWaitsGet(int procno, DtxWaits *copy);
extern bool DtxWaitsAnyOverdue(void);
extern bool DtxWaitsChoose(const int *procnos, const uint64 *numbers, int n,
						   int victim, const char *detail, const char *log);

#endif							/* PG_DTX_WAITS_H */
