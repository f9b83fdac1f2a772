/*-------------------------------------------------------------------------
 *
 * questions.h
 *		What servers are asked about locks, and how their answers are read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LOCK_QUESTIONS_H
#define PG_DTX_LOCK_QUESTIONS_H

#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "nodes/pg_list.h"

/* Statements of a question, as DtxAskRow is told. */
#define DTX_WHO_BLOCKS		0
#define DTX_WHICH_LOCKS		1

/* A row of the answer to "who blocks whom". */
typedef struct DtxBlocked
{
	uint64		instance;		/* which server has said so */
	int			pid;			/* process there */
	int			nblockers;
	int		   *blockers;		/* processes there that it waits for; 0: a
								 * prepared transaction */
	uint32		mark;			/* of its session (net/session_mark), or 0: it
								 * has none, or was not asked */
} DtxBlocked;

/* A row of the answer to "for which locks". */
typedef struct DtxLockWait
{
	uint64		instance;
	int			pid;			/* process that waits */
	int			blocker;		/* another one that has that lock; 0: a
								 * prepared transaction, or nobody */
	bool		holds;			/* does it hold it, in a mode that conflicts? */
	bool		queues;			/* does that mean that it is next in a queue? */
	char	   *lock;			/* "ShareLock on transaction 123" */
	char	   *identity;		/* of the wait */
	char	   *gid;			/* of the prepared transaction, or NULL */
	uint64		started;		/* when the processes have started, 0 if not
								 * told */
	uint64		blocker_started;
} DtxLockWait;

extern void DtxAskWhoBlocks(StringInfo question, List *pids, List *marks);
extern void DtxAskWhichLocks(StringInfo question, List *pids);
extern DtxBlocked *DtxReadBlocked(uint64 instance, const PGresult *res);
extern DtxLockWait *DtxReadLockWait(uint64 instance, const PGresult *res);

#endif							/* PG_DTX_LOCK_QUESTIONS_H */
