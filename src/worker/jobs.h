/*-------------------------------------------------------------------------
 *
 * jobs.h
 *		What the launcher knows of the workers that each database needs: which there are,
 *		which have died, and which could be started now.  In the launcher only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_JOBS_H
#define PG_DTX_JOBS_H

#include "base/backoff.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "worker/slots.h"

/* What the launcher knows of the worker of one kind in a database. */
typedef struct DtxJob
{
	bool		not_needed;		/* there is nothing to do for it */
	DtxBackoff	backoff;		/* of workers that died in a row */
	DtxMoment	started_at;		/* of the last one */
	DtxMoment	due_since;		/* it could have been started, but for a slot;
								 * 0: it could not, or runs */
	int			index;			/* entry of the one that is starting, or -1 */
	uint32		generation;		/* its generation */
	BackgroundWorkerHandle *handle; /* of the last one, or NULL */
} DtxJob;

/* What the launcher knows of a database.  Private to it. */
typedef struct DtxJobDatabase
{
	Oid			dbid;			/* hash key */
	bool		seen;			/* in the last look at pg_database */
	bool		allows_users;	/* may users connect, then? */
	DtxJob		jobs[DTX_LAUNCHED_KINDS];	/* by kind */
} DtxJobDatabase;

/* A worker that could be started now. */
typedef struct DtxJobDue
{
	DtxJobDatabase *db;
	DtxWorkerKind kind;
} DtxJobDue;

extern void DtxJobsInit(void);
extern void DtxJobsFindDatabases(void);
extern void DtxJobsNoteExits(void);
extern void DtxJobsTakeWoken(void);
extern List *DtxJobsDue(long *timeout);

#endif							/* PG_DTX_JOBS_H */
