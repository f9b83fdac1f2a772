/*-------------------------------------------------------------------------
 *
 * slots.h
 *		The workers' shared memory: who is there, in which database, and in which state.
 *		All of it is for the files of this folder.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SLOTS_H
#define PG_DTX_SLOTS_H

#include "base/backoff.h"
#include "storage/latch.h"
#include "storage/lwlock.h"

/* The entry of the reserved resolver. */
#define DTX_RESERVED_SLOT			0

/* Databases that can be woken by name between two looks of the launcher. */
#define DTX_WOKEN_MAX			32

typedef enum DtxWorkerKind
{
	DTX_WORKER_RESOLVER = 0,	/* one per database, started by the launcher */
	DTX_WORKER_SCHEDULER,		/* of sagas; likewise, if there is work */
	DTX_WORKER_DETECTOR,		/* of deadlocks; likewise */
	DTX_WORKER_SAGA				/* executes steps; started by the scheduler */
} DtxWorkerKind;

typedef enum DtxSlotState
{
	DTX_SLOT_FREE = 0,
	DTX_SLOT_WAITING,			/* the reserved one: has no database yet */
	DTX_SLOT_STARTING,			/* registered, not attached yet */
	DTX_SLOT_RUNNING,			/* attached */
	DTX_SLOT_EXITED				/* gone; the launcher has not seen it yet */
} DtxSlotState;

/* Kinds that the launcher starts itself: those before DTX_WORKER_SAGA. */
#define DTX_LAUNCHED_KINDS	DTX_WORKER_SAGA

/* All fields are guarded by DtxWorkersShared.lock. */
typedef struct DtxWorkerSlot
{
	DtxSlotState state;
	uint32		generation;		/* changes with each use and each revocation */
	DtxWorkerKind kind;
	Oid			dbid;			/* database */
	Oid			role;			/* of a worker of sagas */
	pid_t		pid;			/* if running */
	Latch	   *latch;			/* if running */
	bool		started;		/* has had its first look, and stays; of a worker
								 * of sagas: has executed a step */
	bool		work;			/* woken since it last looked */
	bool		pass;			/* of a resolver: asked for a full pass */
	bool		stop;			/* asked to leave */
	bool		yields;			/* of a resolver or scheduler: "stop", because
								 * another database waits */
	bool		not_needed;		/* left because there was nothing to do for it */
	bool		idle;			/* of a resolver or a worker of sagas: has
								 * nothing to do; of a scheduler: wants to
								 * know who has not */
	DtxMoment	attached_at;	/* running since */
	int64		wall_offset;	/* of a scheduler: DtxWallOffset() for which
								 * times in its tables are right; 0: not known */
} DtxWorkerSlot;

/*
 * A walk over the entries, in their order: those of one of these kinds, in one of these
 * states and in this database; 0 each: in any.  Begins at entry number "next".
 */
typedef struct DtxSlotScan
{
	uint32		kinds;			/* DTX_SLOT_BIT() of each, or'ed */
	uint32		states;			/* likewise */
	Oid			dbid;
	int			next;
} DtxSlotScan;

#define DTX_SLOT_BIT(value)	((uint32) 1 << (value))

/* Those kinds that the launcher starts itself. */
#define DTX_SLOT_LAUNCHED	(DTX_SLOT_BIT(DTX_LAUNCHED_KINDS) - 1)

/* A worker that is asked for. */
typedef struct DtxWokenWorker
{
	Oid			dbid;
	DtxWorkerKind kind;
} DtxWokenWorker;

typedef struct DtxWorkersShared
{
	LWLock		lock;			/* guards everything below */
	pid_t		launcher_pid;	/* 0 if not running */
	Latch	   *launcher_latch; /* NULL if not running */
	bool		scan;			/* look at pg_database now */
	int			nwoken;
	DtxWokenWorker woken[DTX_WOKEN_MAX];	/* workers to start if not there */
	bool		woken_all;		/* there were more of them */
	bool		prepared;		/* may COMMIT PREPARED start sagas? */
	bool		launched;		/* was there a launcher before? */
	bool		slot_needed;	/* does a resolver or scheduler wait for a
								 * slot? */
	DtxMoment	guest_since;	/* since then, or last time, ... */
	DtxMoment	guest_until;	/* ... until then a slot is left to something
								 * else than a resolver */
	int			nblocked;		/* constant: size of blocked[] */
	Oid		   *blocked;		/* per PGPROC number: database in which its
								 * backend wants no worker, or InvalidOid */
	int			nworkers;		/* constant: size of workers[] */

	/* The first one is that of the reserved resolver. */
	DtxWorkerSlot workers[FLEXIBLE_ARRAY_MEMBER];
} DtxWorkersShared;

/* How a worker finds its entry: BackgroundWorker.bgw_extra. */
typedef struct DtxWorkerKey
{
	int			index;
	uint32		generation;
} DtxWorkerKey;

extern void DtxSlotTake(DtxWorkerSlot *entry, DtxWorkerKind kind, Oid dbid,
						Oid role);
extern void DtxSlotGiveBack(DtxWorkerSlot *entry);
extern DtxWorkerSlot *DtxSlotNext(DtxSlotScan *scan);
extern int	DtxSlotIndex(const DtxWorkerSlot *entry);
extern DtxWorkerSlot *DtxSlotFind(DtxWorkerKind kind, Oid dbid,
								  DtxSlotState first, DtxSlotState last);
extern bool DtxSlotOfSagas(Oid dbid);
extern bool DtxDatabaseIsBlocked(Oid dbid);
extern Size DtxLauncherShmemSize(void);
extern void DtxLauncherShmemInit(void);

extern DtxWorkersShared *DtxWorkers;

#endif							/* PG_DTX_SLOTS_H */
