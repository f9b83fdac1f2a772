/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The background workers of each database that has the extension.
 *
 * The launcher is a static background worker without a database.  It starts a
 * resolver (a dynamic background worker) once in each database; a resolver that
 * finds no extension there leaves, and is not started again until somebody
 * asks for it: CREATE EXTENSION, or a backend that hands something over.  A
 * resolver that died is started again after a pause.
 *
 * The same goes for the scheduler of sagas (saga_worker.c), but that is started
 * only when somebody asks for it: a transaction that starts a saga, or the
 * resolver when it finds some that were left by an earlier life of the server.
 * The scheduler in its turn starts workers that execute steps.
 *
 * Background-worker slots (max_worker_processes) are shared with everybody, parallel
 * queries and sagas included.  One is reserved for a resolver: a static background
 * worker waits in it for a database that finds no other, and the postmaster starts it
 * again when it has left that.  Where databases are more than slots they take turns:
 * a resolver is asked to leave when another database waits, an idle one soon, a busy
 * one after MAX_TURN_MS, and its database waits in its turn; those that have waited
 * longest come first.  Meanwhile a database's sagas get one worker at most, for which
 * room is made in short windows, as for the worker of DROP DATABASE.  What a resolver
 * knows is on the servers and in tables, so nothing is lost when it leaves.
 *
 * Shared memory holds an entry per worker, guarded by one lock, which is held
 * for a few instructions only.  An entry goes from FREE to STARTING (launcher),
 * to RUNNING (the worker, DtxWorkerAttach), to EXITED (the worker, when it has
 * left the proc array), to FREE (launcher; for a worker of sagas its scheduler,
 * or the launcher if that is gone).  The worker knows its entry by
 * index and generation; if the generation has changed meanwhile nobody waits
 * for it any more, and it leaves at once.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE, and CREATE
 * DATABASE with the database as template, need the database for themselves
 * (commands/dbcommands.c, CountOtherDBBackends).  So before such a statement
 * all workers of the database are stopped, and kept from being started again
 * until the transaction is over.  PostgreSQL 19 has a flag with which
 * a background worker asks to be stopped in that case; it is set as well, but
 * the launcher's part is needed all the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/twophase.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "state/decision_map.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "tcop/utility.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/drop_guard.h"
#include "worker/launcher.h"
#include "worker/worker.h"

/* Pause before a worker that died is started again, milliseconds. */
#define MIN_RESTART_PAUSE	1000
#define MAX_RESTART_PAUSE	60000

/* A worker that lived for this time did not die of its start, ms. */
#define HEALTHY_AFTER		60000

/* Pause after all background-worker slots were found taken, milliseconds. */
#define NO_SLOT_PAUSE		5000

/* Pause between words about that, ms. */
#define NO_SLOT_LOG_INTERVAL	(60 * 60 * 1000)

/* How long they must have been taken before that is worth a word, ms. */
#define NO_SLOT_PATIENCE	1000

/* Limits of the time between two looks at pg_database, milliseconds. */
#define MIN_SCAN_INTERVAL	1000
#define MAX_SCAN_INTERVAL	60000

/*
 * Where databases wait for a slot: an idle resolver has it for at least this time, any
 * resolver for not much longer than that, ms.
 */
#define MIN_TURN_MS			1000
#define MAX_TURN_MS			10000

/* DtxLauncherMakeRoom() is good for this time, ms. */
#define GUEST_MS			200

/* Likewise for a saga that finds no slot: a resolver leaves within that, ms. */
#define SAGA_GUEST_MS		1500

/* Longest time that slots are kept from resolvers, and how often that begins, ms. */
#define GUEST_LIMIT_MS		3000
#define GUEST_PERIOD_MS		5000

/* The entry of the reserved resolver. */
#define RESERVED			0

/* Pause between looks of a reserved resolver that waits, ms. */
#define RESERVED_POLL_MS	1000

/* Workers that may be on their way at a time, so as not to take all slots. */
#define MAX_STARTING		3

/* Longest time that a statement waits for workers to leave, ms. */
#define STOP_TIMEOUT		5000

/* Databases that can be woken by name between two looks of the launcher. */
#define MAX_WOKEN			32

typedef enum WorkerState
{
	WORKER_FREE = 0,
	WORKER_WAITING,				/* the reserved one: has no database yet */
	WORKER_STARTING,			/* registered, not attached yet */
	WORKER_RUNNING,				/* attached */
	WORKER_EXITED				/* gone; the launcher has not seen it yet */
} WorkerState;

/* Kinds that the launcher starts itself: those before DTX_WORKER_SAGA. */
#define LAUNCHED_KINDS	DTX_WORKER_SAGA

/* All fields are guarded by LauncherShared.lock. */
typedef struct WorkerEntry
{
	WorkerState state;
	uint32		generation;		/* changes with each use and each revocation */
	DtxWorkerKind kind;
	Oid			dbid;			/* database */
	Oid			role;			/* of a worker of sagas */
	pid_t		pid;			/* if running */
	Latch	   *latch;			/* if running */
	bool		started;		/* has had its first look, and stays */
	bool		work;			/* woken since it last looked */
	bool		pass;			/* of a resolver: asked for a full pass */
	bool		stop;			/* asked to leave */
	bool		yields;			/* of a resolver or scheduler: "stop", because
								 * another database waits */
	bool		not_needed;		/* left because there was nothing to do for it */
	bool		idle;			/* of a resolver or a worker of sagas: has nothing
								 * to do; of a scheduler: wants to know who hasn't */
	DtxMoment	attached_at;	/* running since */
} WorkerEntry;

/* A worker that somebody asks for. */
typedef struct Woken
{
	Oid			dbid;
	DtxWorkerKind kind;
} Woken;

typedef struct LauncherShared
{
	LWLock		lock;			/* guards everything below */
	pid_t		launcher_pid;	/* 0 if not running */
	Latch	   *launcher_latch; /* NULL if not running */
	bool		scan;			/* look at pg_database now */
	int			nwoken;
	Woken		woken[MAX_WOKEN];	/* workers to start if not there */
	bool		woken_all;		/* there were more of them */
	bool		prepared;		/* may COMMIT PREPARED start sagas? */
	bool		launched;		/* was there a launcher before? */
	bool		slot_wanted; /* does a resolver or scheduler wait for a slot? */
	DtxMoment	guest_since;	/* since then, or last time, ... */
	DtxMoment	guest_until;	/* ... until then a slot is left to something else
								 * than a resolver */
	int			nblocked;		/* constant: size of blocked[] */
	Oid		   *blocked;		/* per PGPROC number: database in which its
								 * backend wants no worker, or InvalidOid */
	int			nworkers;		/* constant: size of workers[] */

	/* The first one is that of the reserved resolver. */
	WorkerEntry workers[FLEXIBLE_ARRAY_MEMBER];
} LauncherShared;

/* How a worker finds its entry: BackgroundWorker.bgw_extra. */
typedef struct WorkerKey
{
	int			index;
	uint32		generation;
} WorkerKey;

/* What the launcher knows of the worker of one kind in a database. */
typedef struct Job
{
	bool		not_needed;		/* there is nothing to do for it */
	DtxBackoff	backoff;		/* of workers that died in a row */
	DtxMoment	started_at;		/* of the last one */
	DtxMoment	due_since;		/* it could have been started, but for a slot; 0:
								 * it could not, or runs */
	int			index;			/* entry of the one that is starting, or -1 */
	uint32		generation;		/* its generation */
	BackgroundWorkerHandle *handle; /* of the last one, or NULL */
} Job;

/* What the launcher knows of a database.  Private to it. */
typedef struct Database
{
	Oid			dbid;			/* hash key */
	bool		seen;			/* in the last look at pg_database */
	bool		allows_users;	/* may users connect, then? */
	Job			jobs[LAUNCHED_KINDS];	/* by kind */
} Database;

/* A worker that could be started now. */
typedef struct Due
{
	Database   *db;
	DtxWorkerKind kind;
} Due;

static LauncherShared *shared = NULL;
static ProcessUtility_hook_type prev_ProcessUtility = NULL;

/* Launcher: what it knows. */
static HTAB *databases = NULL;

/* Worker: its entry. */
static WorkerEntry *my_entry = NULL;

/* The reserved resolver: the key of its entry, once it has a database. */
static WorkerKey reserved_key;

/* Backend: database that it has blocked, or InvalidOid. */
static Oid	my_blocked = InvalidOid;

/*
 * Backend: database whose resolver is to be woken once the transaction is over,
 * or InvalidOid.
 */
static Oid	wake_at_end = InvalidOid;

/* Backend: ask that resolver for a full pass, too? */
static bool pass_at_end = false;

static void launcher_exit(int code, Datum arg);
static void launcher_collect(void);
static void launcher_scan(void);
static void launcher_take_woken(void);
static List *launcher_due(long *timeout);
static int	compare_dues(const ListCell *a, const ListCell *b);
static int	count_starting(void);
static long launcher_start_due(DtxMoment *logged_at);
static long ask_to_leave(int waiting, bool dynamic, bool reserved);
static void ask_scheduler_to_leave(void);
static bool start_reserved(Database *db);
static bool has_saga_worker(Oid dbid);
static void make_room_for(int ms);
static void take_entry(WorkerEntry *entry, DtxWorkerKind kind, Oid dbid, Oid role);
static void give_back(WorkerEntry *entry);
static bool launcher_start(Database *db, DtxWorkerKind kind);
static void launcher_died(Job *job);
static DtxStartResult register_worker(DtxWorkerKind kind, Oid dbid, Oid role,
									  WorkerKey *key,
									  BackgroundWorkerHandle **handle);
static WorkerEntry *find_entry(DtxWorkerKind kind, Oid dbid, WorkerState first,
							   WorkerState last);
static WorkerEntry *saga_entry(const DtxSagaWorker *worker);
static bool is_blocked(Oid dbid);
static void wake_now(DtxWorkerKind kind, Oid dbid, bool running_only, bool pass);
static void wake_scheduler(Oid dbid);
static void worker_detach(int code, Datum arg);
static void next_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
								bool readOnlyTree,
								ProcessUtilityContext context,
								ParamListInfo params,
								QueryEnvironment *queryEnv,
								DestReceiver *dest, QueryCompletion *qc);
static void check_nothing_in_doubt(DropdbStmt *stmt, Oid dbid);
static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv,
							   DestReceiver *dest, QueryCompletion *qc);
static void wake_prepared(void);
static Oid	database_to_vacate(Node *stmt);
static bool may_use_as_template(Oid dbid);
static void block_database(Oid dbid);
static void unblock_database(void);
static void unblock_at_exit(int code, Datum arg);
static void launcher_xact_callback(XactEvent event, void *arg);

/* ----------------------------------------------------------------
 * Shared memory and registration, in the postmaster
 * ----------------------------------------------------------------
 */

/*
 * Bytes of shared memory that this module needs.  max_worker_processes and
 * MaxBackends must be known.
 */
Size
DtxLauncherShmemSize(void)
{
	Size		size;

	size = add_size(offsetof(LauncherShared, workers),
					mul_size(max_worker_processes + 1, sizeof(WorkerEntry)));
	return add_size(MAXALIGN(size), mul_size(MaxBackends, sizeof(Oid)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxLauncherShmemInit(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_dtx launcher", DtxLauncherShmemSize(), &found);
	if (!found)
	{
		memset(shared, 0, DtxLauncherShmemSize());
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxLauncher"));
		shared->nworkers = max_worker_processes + 1;
		shared->nblocked = MaxBackends;
		shared->blocked = (Oid *)
			((char *) shared +
			 MAXALIGN(offsetof(LauncherShared, workers) +
					  shared->nworkers * sizeof(WorkerEntry)));
	}
}

/*
 * Register the launcher.  From _PG_init() in the postmaster only.
 */
void
DtxLauncherRegister(void)
{
	BackgroundWorker worker;

	/* Nothing may connect to the databases behind pg_upgrade's back. */
	if (IsBinaryUpgrade)
		return;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pg_dtx");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "dtx_launcher_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "pg_dtx launcher");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "pg_dtx launcher");
	RegisterBackgroundWorker(&worker);

	/* The reserved resolver. */
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name),
			 "dtx_resolver_main");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "pg_dtx reserved resolver");
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "pg_dtx resolver");
	worker.bgw_main_arg = ObjectIdGetDatum(InvalidOid);
	RegisterBackgroundWorker(&worker);
}

/*
 * Install the hooks that keep workers out of the way of DROP DATABASE and
 * the like.  From _PG_init() in the postmaster only; backends inherit them.
 */
void
DtxLauncherInstallHooks(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;
	RegisterXactCallback(launcher_xact_callback, NULL);
}

/* ----------------------------------------------------------------
 * The launcher
 * ----------------------------------------------------------------
 */

/*
 * Main program of the launcher.  An error ends it; the postmaster starts it
 * again a few seconds later, and it finds its workers in shared memory.
 */
void
dtx_launcher_main(Datum arg)
{
	HASHCTL		info;
	MemoryContext loop_cxt;
	DtxMoment	next_scan = 0;
	DtxMoment	no_slot_logged_at = 0;
	uint32		wait_event;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	/* A SIGHUP from before our handler was there was lost. */
	ConfigReloadPending = true;

	/* No database: shared catalogs are all it needs. */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	SetConfigOption("application_name", "pg_dtx launcher", PGC_USERSET,
					PGC_S_OVERRIDE);
	pgstat_report_appname("pg_dtx launcher");
	wait_event = DtxWaitEvent("DtxLauncherMain");

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(Database);
	databases = hash_create("pg_dtx databases", 64, &info,
							HASH_ELEM | HASH_BLOBS);
	loop_cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx launcher",
									 ALLOCSET_DEFAULT_SIZES);

	DtxBootBegin();
	on_shmem_exit(launcher_exit, (Datum) 0);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);

	/* What was prepared in an earlier life may have started sagas. */
	for (int i = 0; i < max_prepared_xacts; i++)
	{
		if (TransactionIdIsValid(PreparedXactProcs[i].xid))
			shared->prepared = true;
	}
	shared->launcher_pid = MyProcPid;
	shared->launcher_latch = MyLatch;

	/*
	 * An earlier launcher may have been about to start a scheduler again: let
	 * one have a look in each database.
	 */
	if (shared->launched)
		shared->woken_all = true;
	shared->launched = true;

	/*
	 * Those that an earlier launcher was starting: we have no handle to learn
	 * of their fate, so don't let them in any more.
	 */
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (entry->kind != DTX_WORKER_SAGA &&
			(entry->state == WORKER_STARTING || entry->state == WORKER_EXITED))
			give_back(entry);
	}
	LWLockRelease(&shared->lock);

	for (;;)
	{
		long		timeout;
		long		left;
		bool		scan;

		ResetLatch(MyLatch);

		/* A shutdown is nothing to be FATAL about; 0 would mean "for good". */
		if (ProcDiePending)
			proc_exit(1);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(loop_cxt);
		MemoryContextReset(loop_cxt);
		DtxInDoubtReport();

		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		scan = shared->scan;
		shared->scan = false;
		LWLockRelease(&shared->lock);

		timeout = Max(MIN_SCAN_INTERVAL,
					  Min(MAX_SCAN_INTERVAL, dtx_resolve_interval));
		if (scan || DtxIsDue(next_scan))
		{
			next_scan = DtxIn(timeout);
			launcher_scan();
		}
		timeout = DtxUntil(next_scan);

		launcher_collect();
		launcher_take_woken();
		left = launcher_start_due(&no_slot_logged_at);
		if (left >= 0)
			timeout = Min(timeout, left);

		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 timeout, wait_event);
	}
}

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->launcher_pid = 0;
	shared->launcher_latch = NULL;
	LWLockRelease(&shared->lock);
}

/*
 * Look which databases there are.
 */
static void
launcher_scan(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	MemoryContext old = CurrentMemoryContext;

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
		db->seen = false;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database form = (Form_pg_database) GETSTRUCT(tuple);
		bool		found;

		/*
		 * What is in doubt is to be finished also where users may not connect, as
		 * autovacuum vacuums there.  template0 is to be left alone.
		 */
		if ((!form->datallowconn && form->oid == Template0DbOid) ||
			form->datconnlimit == DATCONNLIMIT_INVALID_DB)
			continue;

		db = hash_search(databases, &form->oid, HASH_ENTER, &found);
		if (!found)
		{
			memset(db, 0, sizeof(Database));
			db->dbid = form->oid;
			for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
				db->jobs[kind].index = -1;

			/* Have a look once; sagas are started by those who need them. */
			db->jobs[DTX_WORKER_SCHEDULER].not_needed = true;
		}
		db->seen = true;
		db->allows_users = form->datallowconn;
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		bool		starting = false;

		for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
			starting |= db->jobs[kind].index >= 0;
		if (!db->seen && !starting)
		{
			for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
			{
				if (db->jobs[kind].handle != NULL)
					pfree(db->jobs[kind].handle);
			}
			(void) hash_search(databases, &db->dbid, HASH_REMOVE, NULL);
		}
	}
}

/*
 * Find out which workers have left, and why.
 */
static void
launcher_collect(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;

	/* Those that were attached have left a note. */
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		/* Workers of sagas are for their scheduler to collect, if it lives. */
		if (entry->kind == DTX_WORKER_SAGA)
		{
			if ((entry->state == WORKER_EXITED ||
				 entry->state == WORKER_STARTING) &&
				find_entry(DTX_WORKER_SCHEDULER, entry->dbid,
						   WORKER_RUNNING, WORKER_RUNNING) == NULL)
				give_back(entry);
			continue;
		}
		if (entry->state != WORKER_EXITED)
			continue;

		db = hash_search(databases, &entry->dbid, HASH_FIND, NULL);
		if (db != NULL)
		{
			Job		   *job = &db->jobs[entry->kind];

			job->backoff.next = 0;
			if (entry->not_needed)
			{
				/* Unless somebody asked for it after it had looked. */
				job->not_needed = !entry->work;
				job->backoff.failures = 0;
			}
			else if (entry->yields)
				job->backoff.next = DtxIn(Min(Max(dtx_resolve_interval, MIN_TURN_MS),
											  MAX_RESTART_PAUSE));
			else if (!entry->stop)
				launcher_died(job);
		}
		give_back(entry);
	}
	LWLockRelease(&shared->lock);

	/* The others may have died before they could attach. */
	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
		{
			Job		   *job = &db->jobs[kind];
			WorkerEntry *entry;
			pid_t		pid;
			bool		stopped;

			if (job->index < 0)
				continue;
			entry = &shared->workers[job->index];

			/* Ask before looking at the entry: it may attach and exit between. */
			stopped = GetBackgroundWorkerPid(job->handle, &pid) == BGWH_STOPPED;
			LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
			if (entry->generation != job->generation ||
				entry->state != WORKER_STARTING)
				job->index = -1;
			else if (stopped)
			{
				give_back(entry);
				job->index = -1;
				launcher_died(job);
			}
			LWLockRelease(&shared->lock);
		}
	}
}

/*
 * A worker has died of its own: when to start it again?
 */
static void
launcher_died(Job *job)
{
	if (DtxIsDue(job->started_at + HEALTHY_AFTER))
		DtxBackoffReset(&job->backoff);
	DtxBackoffFailed(&job->backoff, MIN_RESTART_PAUSE, MAX_RESTART_PAUSE);
}

/*
 * Workers that somebody asked for.
 */
static void
launcher_take_woken(void)
{
	HASH_SEQ_STATUS seq;
	Database   *db;
	Woken		woken[MAX_WOKEN];
	int			nwoken;
	bool		all;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	nwoken = shared->nwoken;
	memcpy(woken, shared->woken, sizeof(Woken) * nwoken);
	all = shared->woken_all;
	shared->nwoken = 0;
	shared->woken_all = false;
	LWLockRelease(&shared->lock);

	for (int i = 0; i < nwoken; i++)
	{
		db = hash_search(databases, &woken[i].dbid, HASH_FIND, NULL);
		if (db != NULL)
		{
			Job		   *job = &db->jobs[woken[i].kind];

			job->not_needed = false;

			/* One that has left for others comes back for something new. */
			if (job->backoff.failures == 0)
				job->backoff.next = 0;
		}
	}
	if (all)
	{
		hash_seq_init(&seq, databases);
		while ((db = hash_seq_search(&seq)) != NULL)
		{
			for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
				db->jobs[kind].not_needed = false;
		}
	}
}

/*
 * The workers that could be started now: a list of Due in the current memory context,
 * resolvers first, and of each kind those first that have waited longest.  Lowers
 * *timeout (-1: none) to the time until another one is due, in milliseconds.
 */
static List *
launcher_due(long *timeout)
{
	HASH_SEQ_STATUS seq;
	Database   *db;
	List	   *dues = NIL;

	hash_seq_init(&seq, databases);
	while ((db = hash_seq_search(&seq)) != NULL)
	{
		for (int kind = 0; kind < LAUNCHED_KINDS; kind++)
		{
			Job		   *job = &db->jobs[kind];
			bool		may_start;
			Due		   *due;

			/* Sagas run as their users. */
			may_start = db->seen && !job->not_needed && job->index < 0 &&
				(kind == DTX_WORKER_RESOLVER || db->allows_users);
			if (may_start && !DtxIsDue(job->backoff.next))
			{
				long		left = DtxUntil(job->backoff.next);

				if (*timeout < 0 || left < *timeout)
					*timeout = left;
				may_start = false;
			}
			if (may_start)
			{
				LWLockAcquire(&shared->lock, LW_SHARED);
				may_start = find_entry(kind, db->dbid, WORKER_STARTING,
									   WORKER_EXITED) == NULL;
				LWLockRelease(&shared->lock);
			}
			if (!may_start)
			{
				job->due_since = 0;
				continue;
			}
			if (job->due_since == 0)
				job->due_since = DtxNow();
			due = palloc(sizeof(Due));
			due->db = db;
			due->kind = kind;
			dues = lappend(dues, due);
		}
	}
	list_sort(dues, compare_dues);
	return dues;
}

static int
compare_dues(const ListCell *a, const ListCell *b)
{
	const Due  *due_a = (const Due *) lfirst(a);
	const Due  *due_b = (const Due *) lfirst(b);
	DtxMoment	since_a = due_a->db->jobs[due_a->kind].due_since;
	DtxMoment	since_b = due_b->db->jobs[due_b->kind].due_since;

	if (due_a->kind != due_b->kind)
		return due_a->kind < due_b->kind ? -1 : 1;
	return since_a < since_b ? -1 : since_a > since_b ? 1 : 0;
}

/*
 * Workers that are on their way or have their first look.
 */
static int
count_starting(void)
{
	int			starting = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (entry->kind < LAUNCHED_KINDS &&
			(entry->state == WORKER_STARTING ||
			 (entry->state == WORKER_RUNNING && !entry->started)))
			starting++;
	}
	LWLockRelease(&shared->lock);
	return starting;
}

/*
 * Start the workers that are due.  Returns the time until there may be more to be
 * started, in milliseconds, or -1.  *logged_at is the time of the last complaint
 * about too few slots.
 */
static long
launcher_start_due(DtxMoment *logged_at)
{
	long		timeout = -1;
	int			starting = count_starting();
	int			waiting = 0;
	bool		resolver_waiting = false;
	bool		patient = true;
	bool		guest;
	long		left;
	ListCell   *lc;

	LWLockAcquire(&shared->lock, LW_SHARED);
	guest = !DtxIsDue(shared->guest_until);
	LWLockRelease(&shared->lock);

	foreach(lc, launcher_due(&timeout))
	{
		Due		   *due = (Due *) lfirst(lc);
		Job		   *job = &due->db->jobs[due->kind];

		/* Their progress wakes us. */
		if (starting >= MAX_STARTING)
			break;

		/* What is free but for the reserved one is left to a guest. */
		if (guest ? due->kind == DTX_WORKER_RESOLVER && start_reserved(due->db) :
			launcher_start(due->db, due->kind))
		{
			starting++;
			continue;
		}
		if (DtxIsDue(job->due_since + NO_SLOT_PATIENCE))
			patient = false;
		waiting++;
		if (due->kind != DTX_WORKER_RESOLVER)
			break;
		resolver_waiting = true;
	}

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->slot_wanted = waiting > 0;
	left = NO_SLOT_PAUSE;
	if (guest)
	{
		left = Min(ask_to_leave(1, true, false), GUEST_MS);
		ask_scheduler_to_leave();
	}
	if (waiting > 0)
		left = Min(left, ask_to_leave(guest ? 1 : waiting, !guest, resolver_waiting));
	LWLockRelease(&shared->lock);
	if (waiting == 0 && !guest)
		return timeout;
	if (timeout < 0 || left < timeout)
		timeout = left;
	if (waiting == 0)
		return timeout;

	/*
	 * Those that only have a look make room again, a moment after they have left
	 * their entry.
	 */
	if (starting > 0 || patient)
		return Min(timeout, NO_SLOT_PATIENCE / 10);
	if (*logged_at == 0 || DtxIsDue(*logged_at + NO_SLOT_LOG_INTERVAL))
	{
		*logged_at = DtxNow();
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("out of background worker slots for the workers of pg_dtx"),
				 errdetail("The resolvers of several databases take turns, and sagas wait."),
				 errhint("You might need to increase \"%s\".",
						 "max_worker_processes")));
	}
	return timeout;
}

/*
 * So many workers find no slot: ask resolvers that have had their turn to leave, of
 * those in "dynamic" slots or the "reserved" one, which is of use to resolvers only.
 * Returns how long to wait until that may be tried again, in milliseconds, if none of
 * them wakes us before.  The caller holds the lock.
 */
static long
ask_to_leave(int waiting, bool dynamic, bool reserved)
{
	long		timeout = NO_SLOT_PAUSE;
	int			leaving = 0;

#define ASKED(i)	((i) == RESERVED ? reserved : dynamic)
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (ASKED(i) && entry->kind == DTX_WORKER_RESOLVER &&
			(entry->state == WORKER_RUNNING ? entry->stop : entry->state == WORKER_EXITED))
			leaving++;
	}
	while (leaving < waiting)
	{
		WorkerEntry *oldest = NULL;

		for (int i = 0; i < shared->nworkers; i++)
		{
			WorkerEntry *entry = &shared->workers[i];
			long		left;

			if (!ASKED(i) || entry->state != WORKER_RUNNING || entry->stop ||
				entry->kind != DTX_WORKER_RESOLVER || !entry->started)
				continue;
			left = DtxUntil(entry->attached_at +
							(entry->idle ? MIN_TURN_MS : MAX_TURN_MS));
			if (left > 0)
				timeout = Min(timeout, left);
			else if (oldest == NULL || entry->attached_at < oldest->attached_at)
				oldest = entry;
		}
		if (oldest == NULL)
			break;
		oldest->stop = true;
		oldest->yields = true;
		SetLatch(oldest->latch);
		leaving++;
	}
#undef ASKED
	return timeout;
}

/*
 * Schedulers of sagas that have no worker, and find no slot for one, would keep each
 * other's places for ever: the one that is there for longest leaves, and comes back.
 * The caller holds the lock.
 */
static void
ask_scheduler_to_leave(void)
{
	WorkerEntry *oldest = NULL;
	int			n = 0;

	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (entry->kind != DTX_WORKER_SCHEDULER ||
			entry->state != WORKER_RUNNING || has_saga_worker(entry->dbid))
			continue;
		if (entry->stop)
			return;
		n++;
		if (oldest == NULL || entry->attached_at < oldest->attached_at)
			oldest = entry;
	}
	if (n > 1 && DtxIsDue(oldest->attached_at + MIN_TURN_MS))
	{
		oldest->stop = true;
		oldest->yields = true;
		SetLatch(oldest->latch);
	}
}

/*
 * Start the worker of that kind of a database.  Returns false if there is no
 * slot.
 */
static bool
launcher_start(Database *db, DtxWorkerKind kind)
{
	Job		   *job = &db->jobs[kind];
	WorkerKey	key;
	BackgroundWorkerHandle *handle;

	switch (register_worker(kind, db->dbid, InvalidOid, &key, &handle))
	{
		case DTX_NO_SLOT:
			return kind == DTX_WORKER_RESOLVER && start_reserved(db);
		case DTX_BLOCKED:
			/* Whoever blocks the database wakes us when he is done. */
			return true;
		case DTX_STARTED:
			break;
	}

	if (job->handle != NULL)
		pfree(job->handle);
	job->handle = handle;
	job->started_at = DtxNow();
	job->backoff.next = 0;
	job->due_since = 0;
	job->index = key.index;
	job->generation = key.generation;
	return true;
}

/*
 * Give the reserved resolver a database.  Returns false if it has one, or is not
 * there.
 */
static bool
start_reserved(Database *db)
{
	Job		   *job = &db->jobs[DTX_WORKER_RESOLVER];
	WorkerEntry *entry = &shared->workers[RESERVED];
	bool		ok = false;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (entry->state == WORKER_WAITING && !is_blocked(db->dbid))
	{
		take_entry(entry, DTX_WORKER_RESOLVER, db->dbid, InvalidOid);
		SetLatch(entry->latch);
		ok = true;
	}
	LWLockRelease(&shared->lock);
	if (ok)
	{
		job->started_at = DtxNow();
		job->backoff.next = 0;
		job->due_since = 0;
	}
	return ok;
}

/*
 * An entry is for a worker that is to attach.  The caller holds the lock.
 */
static void
take_entry(WorkerEntry *entry, DtxWorkerKind kind, Oid dbid, Oid role)
{
	entry->state = WORKER_STARTING;
	entry->generation++;
	entry->kind = kind;
	entry->dbid = dbid;
	entry->role = role;
	entry->started = false;
	entry->work = false;
	entry->pass = false;
	entry->stop = false;
	entry->yields = false;
	entry->not_needed = false;
	entry->idle = false;
	entry->attached_at = 0;
}

/*
 * Its worker has left, or is not to attach any more.  The reserved one waits for
 * another database if it is still there.  The caller holds the lock.
 */
static void
give_back(WorkerEntry *entry)
{
	entry->state = entry->pid != 0 ? WORKER_WAITING : WORKER_FREE;
	entry->generation++;
	entry->dbid = InvalidOid;
}

/*
 * Take an entry and register a background worker for it.  Fills in *key and
 * *handle, which lives in TopMemoryContext, if it returns DTX_STARTED.
 */
static DtxStartResult
register_worker(DtxWorkerKind kind, Oid dbid, Oid role, WorkerKey *key,
				BackgroundWorkerHandle **handle)
{
	static const char *const names[] = {
		"pg_dtx resolver", "pg_dtx saga scheduler", "pg_dtx saga worker"
	};
	static const char *const functions[] = {
		"dtx_resolver_main", "dtx_saga_scheduler_main", "dtx_saga_worker_main"
	};
	BackgroundWorker worker;
	WorkerEntry *entry = NULL;
	MemoryContext old;
	bool		first_saga;
	bool		ok;

	StaticAssertStmt(sizeof(WorkerKey) <= BGW_EXTRALEN,
					 "WorkerKey does not fit into bgw_extra");

	memset(key, 0, sizeof(*key));
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (is_blocked(dbid))
	{
		LWLockRelease(&shared->lock);
		return DTX_BLOCKED;
	}
	for (int i = RESERVED + 1; i < shared->nworkers && entry == NULL; i++)
	{
		if (shared->workers[i].state == WORKER_FREE)
		{
			entry = &shared->workers[i];
			key->index = i;
		}
	}

	/*
	 * Sagas come after resolvers, but for the first worker of a database: room is
	 * made for that one as for a resolver.
	 */
	first_saga = kind == DTX_WORKER_SAGA && !has_saga_worker(dbid);
	if (entry == NULL ||
		(kind == DTX_WORKER_SAGA && !first_saga && shared->slot_wanted))
	{
		if (first_saga)
			make_room_for(SAGA_GUEST_MS);
		LWLockRelease(&shared->lock);
		return DTX_NO_SLOT;
	}
	take_entry(entry, kind, dbid, role);
	key->generation = entry->generation;
	LWLockRelease(&shared->lock);

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
		BGWORKER_BACKEND_DATABASE_CONNECTION | DTX_BGWORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker.bgw_library_name, sizeof(worker.bgw_library_name), "pg_dtx");
	snprintf(worker.bgw_function_name, sizeof(worker.bgw_function_name), "%s",
			 functions[kind]);
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 OidIsValid(role) ? "%s for database %u, role %u" :
			 "%s for database %u", names[kind], dbid, role);
	snprintf(worker.bgw_type, sizeof(worker.bgw_type), "%s", names[kind]);
	worker.bgw_main_arg = ObjectIdGetDatum(dbid);
	memcpy(worker.bgw_extra, key, sizeof(*key));
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!ok)
	{
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (entry->generation == key->generation)
			give_back(entry);
		if (first_saga)
			make_room_for(SAGA_GUEST_MS);
		LWLockRelease(&shared->lock);
		return DTX_NO_SLOT;
	}
	return DTX_STARTED;
}

/*
 * The first entry of a worker whose state is one of first to last, or
 * NULL.  The caller holds the lock.
 */
static WorkerEntry *
find_entry(DtxWorkerKind kind, Oid dbid, WorkerState first, WorkerState last)
{
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (entry->kind == kind && entry->dbid == dbid &&
			entry->state >= first && entry->state <= last)
			return entry;
	}
	return NULL;
}

/* Has a database a worker of sagas?  The caller holds the lock. */
static bool
has_saga_worker(Oid dbid)
{
	return find_entry(DTX_WORKER_SAGA, dbid, WORKER_STARTING, WORKER_RUNNING) != NULL;
}

/* Does a backend want no worker there?  The caller holds the lock. */
static bool
is_blocked(Oid dbid)
{
	for (int i = 0; i < shared->nblocked; i++)
	{
		if (shared->blocked[i] == dbid)
			return true;
	}
	return false;
}

/* ----------------------------------------------------------------
 * For everybody: waking a resolver or a scheduler
 * ----------------------------------------------------------------
 */

/*
 * There is work for the resolver of this database; if none runs there, the
 * launcher is to try and start one.  Never throws, and does nothing but take
 * a lock and set a latch, so it may be called after the local commit.
 *
 * In a transaction (CREATE EXTENSION) a resolver that is not running yet would
 * not see what the transaction has done.  So it is woken, again, once the
 * transaction is over.
 */
void
DtxLauncherWakeResolver(Oid dbid)
{
	if (shared == NULL)
		return;
	if (IsTransactionState())
	{
		wake_at_end = dbid;
		wake_now(DTX_WORKER_RESOLVER, dbid, true, false);
	}
	else
		wake_now(DTX_WORKER_RESOLVER, dbid, false, false);
}

/*
 * The resolver of this database is to begin a full pass once the current
 * transaction is over, be it a commit or not: there are decision rows that it
 * may find to be needed no more.  In a transaction; never throws.
 */
void
DtxLauncherAskPass(void)
{
	wake_at_end = MyDatabaseId;
	pass_at_end = true;
}

/*
 * There is, or will be, work for the scheduler of sagas.  Likewise, but at once:
 * to be called when the transaction that made it is over.
 */
void
DtxLauncherWakeSagas(Oid dbid)
{
	if (shared != NULL)
		wake_now(DTX_WORKER_SCHEDULER, dbid, false, false);
}

/*
 * A transaction that started sagas has been prepared, or may have been.  Who
 * commits it does not know what is in it, so from now on COMMIT PREPARED wakes
 * the scheduler.  Never throws.
 */
void
DtxLauncherSagasPrepared(void)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->prepared = true;
	LWLockRelease(&shared->lock);
}

/*
 * The caller has found no slot for a background worker of his own, and tries again in
 * less than GUEST_MS: resolvers are to make room for it meanwhile.  Never throws.
 */
void
DtxLauncherMakeRoom(void)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	make_room_for(GUEST_MS);
	LWLockRelease(&shared->lock);
}

/*
 * A guest may wait for a slot for so long, and longer if it says so again, but not for
 * ever: resolvers get what is free in between.  The caller holds the lock.
 */
static void
make_room_for(int ms)
{
	if (!DtxIsDue(shared->guest_until))
		shared->guest_until = Min(DtxIn(ms), shared->guest_since + GUEST_LIMIT_MS);
	else if (shared->guest_since == 0 ||
			 DtxIsDue(shared->guest_since + GUEST_PERIOD_MS))
	{
		shared->guest_since = DtxNow();
		shared->guest_until = DtxIn(ms);
	}
	else
		return;
	if (shared->launcher_latch != NULL)
		SetLatch(shared->launcher_latch);
}

/*
 * A worker that is not running yet begins with a full pass anyway.
 */
static void
wake_now(DtxWorkerKind kind, Oid dbid, bool running_only, bool pass)
{
	WorkerEntry *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = find_entry(kind, dbid, WORKER_STARTING, WORKER_EXITED);
	if (entry != NULL)
	{
		entry->work = true;
		entry->pass |= pass;
		if (entry->latch != NULL)
			SetLatch(entry->latch);
	}
	else if (!running_only)
	{
		bool		found = false;

		for (int i = 0; i < shared->nwoken; i++)
		{
			if (shared->woken[i].dbid == dbid && shared->woken[i].kind == kind)
				found = true;
		}
		if (!found && shared->nwoken < MAX_WOKEN)
		{
			shared->woken[shared->nwoken].dbid = dbid;
			shared->woken[shared->nwoken].kind = kind;
			shared->nwoken++;
		}
		else if (!found)
			shared->woken_all = true;

		/* It may be a database that the launcher does not know yet. */
		shared->scan = true;
		if (shared->launcher_latch != NULL)
			SetLatch(shared->launcher_latch);
	}
	LWLockRelease(&shared->lock);
}

/* ----------------------------------------------------------------
 * For workers: their entry
 * ----------------------------------------------------------------
 */

/*
 * The reserved resolver leaves without having attached.
 */
static void
reserved_exit(int code, Datum arg)
{
	WorkerEntry *entry = &shared->workers[RESERVED];

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (entry->pid == MyProcPid &&
		(entry->state == WORKER_WAITING || entry->state == WORKER_STARTING))
	{
		entry->pid = 0;
		entry->latch = NULL;
		give_back(entry);
		if (shared->launcher_latch != NULL)
			SetLatch(shared->launcher_latch);
	}
	LWLockRelease(&shared->lock);
}

/*
 * To be called by the reserved resolver first, with signals unblocked: wait for a
 * database that needs it, and return its OID.  The process has to attach to it then,
 * and must leave with exit code 1, so that the postmaster starts it again.
 */
Oid
DtxWorkerAwaitDatabase(void)
{
	WorkerEntry *entry = &shared->workers[RESERVED];
	uint32		wait_event = DtxWaitEvent("DtxResolverReserved");

	on_shmem_exit(reserved_exit, (Datum) 0);
	for (;;)
	{
		Oid			dbid = InvalidOid;

		ResetLatch(MyLatch);
		if (ProcDiePending)
			proc_exit(1);

		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (entry->state == WORKER_FREE)
		{
			/* Its predecessor's end has been noticed. */
			entry->state = WORKER_WAITING;
			entry->pid = MyProcPid;
			entry->latch = MyLatch;
			if (shared->launcher_latch != NULL)
				SetLatch(shared->launcher_latch);
		}
		else if (entry->state == WORKER_STARTING && entry->pid == MyProcPid)
		{
			reserved_key.index = RESERVED;
			reserved_key.generation = entry->generation;
			dbid = entry->dbid;
		}
		LWLockRelease(&shared->lock);

		if (OidIsValid(dbid))
			return dbid;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RESERVED_POLL_MS, wait_event);
	}
}

/*
 * Take the entry that was made for us.  Returns false if nobody
 * wants this process any more: it has to leave then, without connecting.
 *
 * To be called before the process connects to the database.  on_shmem_exit
 * callbacks run in reverse order, so ours runs after RemoveProcFromArray()
 * (registered by InitPostgres()): when the entry says that we are gone, we
 * don't count as a user of the database any more.
 */
bool
DtxWorkerAttach(DtxWorkerKind kind, Oid dbid)
{
	WorkerKey	key;
	WorkerEntry *entry;
	bool		ok = false;

	if (reserved_key.generation != 0)
		key = reserved_key;
	else
		memcpy(&key, MyBgworkerEntry->bgw_extra, sizeof(key));
	if (key.index < 0 || key.index >= shared->nworkers)
		return false;
	entry = &shared->workers[key.index];

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (entry->generation == key.generation &&
		entry->state == WORKER_STARTING && entry->kind == kind &&
		entry->dbid == dbid)
	{
		entry->state = WORKER_RUNNING;
		entry->pid = MyProcPid;
		entry->latch = MyLatch;
		entry->attached_at = DtxNow();
		ok = true;
	}
	LWLockRelease(&shared->lock);

	if (ok)
	{
		my_entry = entry;
		on_shmem_exit(worker_detach, (Datum) 0);
	}
	return ok;
}

/*
 * A worker of sagas has gone.  The caller holds the lock.
 */
static void
wake_scheduler(Oid dbid)
{
	WorkerEntry *entry = find_entry(DTX_WORKER_SCHEDULER, dbid,
									WORKER_RUNNING, WORKER_RUNNING);

	if (entry != NULL)
		SetLatch(entry->latch);
}

static void
worker_detach(int code, Datum arg)
{
	Oid			dbid = my_entry->dbid;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_entry->state = WORKER_EXITED;
	my_entry->pid = 0;
	my_entry->latch = NULL;
	if (shared->launcher_latch != NULL)
		SetLatch(shared->launcher_latch);
	if (my_entry->kind == DTX_WORKER_SAGA)
		wake_scheduler(dbid);
	else if (!DtxIsDue(shared->guest_until))
	{
		/* The place may be meant for the sagas of any database. */
		for (int i = 0; i < shared->nworkers; i++)
		{
			if (shared->workers[i].kind == DTX_WORKER_SCHEDULER &&
				shared->workers[i].state == WORKER_RUNNING)
			{
				shared->workers[i].work = true;
				SetLatch(shared->workers[i].latch);
			}
		}
	}

	/* Those who wait for it: see block_database(). */
	for (int i = 0; i < shared->nblocked; i++)
	{
		if (shared->blocked[i] == dbid)
			SetLatch(&GetPGProcByNumber(i)->procLatch);
	}
	LWLockRelease(&shared->lock);
	my_entry = NULL;
}

/*
 * Has this worker been asked to leave?
 */
bool
DtxWorkerMustStop(void)
{
	bool		stop;

	LWLockAcquire(&shared->lock, LW_SHARED);
	stop = my_entry->stop;
	LWLockRelease(&shared->lock);
	return stop;
}

/*
 * This worker is about to look for work: wakes from now on are for its next
 * look.  Returns whether it has been woken since the last one.
 */
bool
DtxWorkerTakeWork(void)
{
	bool		work;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	work = my_entry->work;
	my_entry->work = false;
	LWLockRelease(&shared->lock);
	return work;
}

/*
 * This worker has had its first look, or failed to, and is going to wait: the
 * launcher may start the next one.  To be called before every wait.
 */
void
DtxWorkerStarted(void)
{
	static bool started = false;

	if (started)
		return;
	started = true;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_entry->started = true;
	if (shared->launcher_latch != NULL)
		SetLatch(shared->launcher_latch);
	LWLockRelease(&shared->lock);
}

/*
 * Has this resolver been asked for a full pass?  The answer is given once.
 */
bool
DtxWorkerTakePass(void)
{
	bool		pass;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	pass = my_entry->pass;
	my_entry->pass = false;
	LWLockRelease(&shared->lock);
	return pass;
}

/*
 * This worker leaves because there is nothing to do for it: no extension in its
 * database, or no sagas.
 */
void
DtxWorkerNotNeeded(void)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_entry->not_needed = true;
	LWLockRelease(&shared->lock);
}

/*
 * The role as which this worker is to connect.
 */
Oid
DtxWorkerRole(void)
{
	return my_entry->role;
}

/*
 * Has this resolver or worker of sagas something to do?  If a worker of sagas has had something to do, and
 * has nothing now, its scheduler is told: somebody else may need its place, or
 * there was a step that it was not allowed to take.
 */
void
DtxWorkerSetIdle(bool idle, bool had_work)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_entry->idle = idle;
	if (my_entry->kind == DTX_WORKER_RESOLVER)
	{
		/* Another database may be waiting for just that. */
		if (idle && shared->slot_wanted && shared->launcher_latch != NULL)
			SetLatch(shared->launcher_latch);
	}
	else if (idle && had_work)
	{
		WorkerEntry *entry = find_entry(DTX_WORKER_SCHEDULER, my_entry->dbid,
										WORKER_RUNNING, WORKER_RUNNING);

		if (entry != NULL)
		{
			entry->work = true;
			SetLatch(entry->latch);
		}
	}
	LWLockRelease(&shared->lock);
}

/* ----------------------------------------------------------------
 * For the scheduler of sagas: its workers
 * ----------------------------------------------------------------
 */

/*
 * Does the scheduler want to be woken when a worker has nothing to do any more?
 */
void
DtxSchedulerWants(bool idle_worker)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	my_entry->idle = idle_worker;
	LWLockRelease(&shared->lock);
}

/*
 * The workers of sagas of this database, those included whose going the
 * scheduler has not acknowledged (DtxSagaWorkerForget).  Returns their number,
 * which max_worker_processes is an upper bound of.
 */
int
DtxSagaWorkerList(DtxSagaWorker *workers, int max)
{
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers && n < max; i++)
	{
		WorkerEntry *entry = &shared->workers[i];
		DtxSagaWorker *worker = &workers[n];

		if (entry->state == WORKER_FREE || entry->kind != DTX_WORKER_SAGA ||
			entry->dbid != MyDatabaseId)
			continue;
		worker->index = i;
		worker->generation = entry->generation;
		worker->role = entry->role;
		worker->starting = entry->state == WORKER_STARTING;
		worker->exited = entry->state == WORKER_EXITED;
		worker->clean = entry->not_needed || entry->stop;
		worker->idle = entry->idle;
		worker->stop = entry->stop;
		worker->attached_at = entry->attached_at;
		worker->pid = entry->pid;
		n++;
	}
	LWLockRelease(&shared->lock);
	return n;
}

/*
 * Start one that connects as that role.  Fills in *worker and *handle if it
 * returns DTX_STARTED.
 */
DtxStartResult
DtxSagaWorkerStart(Oid role, DtxSagaWorker *worker,
				   BackgroundWorkerHandle **handle)
{
	WorkerKey	key;
	DtxStartResult result;

	result = register_worker(DTX_WORKER_SAGA, MyDatabaseId, role, &key, handle);
	if (result == DTX_STARTED)
	{
		memset(worker, 0, sizeof(*worker));
		worker->index = key.index;
		worker->generation = key.generation;
		worker->role = role;
		worker->starting = true;
	}
	return result;
}

/*
 * The entry of a worker, if it is still that one's.  The caller holds the lock.
 */
static WorkerEntry *
saga_entry(const DtxSagaWorker *worker)
{
	WorkerEntry *entry = &shared->workers[worker->index];

	return entry->generation == worker->generation ? entry : NULL;
}

/*
 * There is something to do for it.
 */
void
DtxSagaWorkerWake(const DtxSagaWorker *worker)
{
	WorkerEntry *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->latch != NULL)
	{
		entry->work = true;
		SetLatch(entry->latch);
	}
	LWLockRelease(&shared->lock);
}

/*
 * Ask it to leave after the step that it is executing.
 */
void
DtxSagaWorkerDismiss(const DtxSagaWorker *worker)
{
	WorkerEntry *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->latch != NULL)
	{
		entry->stop = true;
		SetLatch(entry->latch);
	}
	LWLockRelease(&shared->lock);
}

/*
 * Have all of them that work look whether what they do is to be stopped (SIGUSR2).
 * Returns whether there are any, idle ones and those that are starting included.
 */
bool
DtxSagaWorkersPoke(void)
{
	bool		any = false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nworkers; i++)
	{
		WorkerEntry *entry = &shared->workers[i];

		if (entry->kind != DTX_WORKER_SAGA || entry->dbid != MyDatabaseId ||
			(entry->state != WORKER_STARTING && entry->state != WORKER_RUNNING))
			continue;
		any = true;

		/* It can't detach while we hold the lock, so the pid is right. */
		if (entry->state == WORKER_RUNNING && !entry->idle)
			(void) kill(entry->pid, SIGUSR2);
	}
	LWLockRelease(&shared->lock);
	return any;
}

/*
 * It has left, or is not wanted any more if it is still starting.
 */
void
DtxSagaWorkerForget(const DtxSagaWorker *worker)
{
	WorkerEntry *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = saga_entry(worker);
	if (entry != NULL && entry->state != WORKER_RUNNING)
		give_back(entry);
	LWLockRelease(&shared->lock);
}

/* ----------------------------------------------------------------
 * For backends: databases that are needed exclusively
 * ----------------------------------------------------------------
 */

static void
next_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
					bool readOnlyTree, ProcessUtilityContext context,
					ParamListInfo params, QueryEnvironment *queryEnv,
					DestReceiver *dest, QueryCompletion *qc)
{
	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * With the database its decisions are dropped.  Refuse while one is needed;
 * WITH (FORCE) is the way to insist.
 */
static void
check_nothing_in_doubt(DropdbStmt *stmt, Oid dbid)
{
	ListCell   *lc;

	foreach(lc, stmt->options)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "force") == 0)
			return;
	}
	if (DtxInDoubtList(dbid) == NIL)
	{
		DtxDropGuardCheck(dbid, stmt->dbname);
		return;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("cannot drop database \"%s\", because transactions of pg_dtx are in doubt",
					stmt->dbname),
			 errdetail("What they have prepared on other servers would stay locked there, and the record of what is to become of it would be lost."),
			 errhint("Wait until view \"dtx.in_doubt\" in that database is empty, finish them with dtx.force_in_doubt(), or use WITH (FORCE).")));
}

static void
dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	volatile Oid dbid = InvalidOid;
	bool		commit_prepared = false;

	switch (nodeTag(pstmt->utilityStmt))
	{
		case T_TransactionStmt:
			commit_prepared = shared != NULL &&
				((TransactionStmt *) pstmt->utilityStmt)->kind ==
				TRANS_STMT_COMMIT_PREPARED;
			break;
		case T_DropdbStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_RenameStmt:
			if (shared != NULL && IsTransactionState() && !RecoveryInProgress())
				dbid = database_to_vacate(pstmt->utilityStmt);
			break;
		default:
			break;
	}

	if (!OidIsValid(dbid))
	{
		next_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
		if (commit_prepared)
			wake_prepared();
		return;
	}

	block_database(dbid);
	PG_TRY();
	{
		/* The workers have gone, so nothing is added any more. */
		if (IsA(pstmt->utilityStmt, DropdbStmt))
			check_nothing_in_doubt((DropdbStmt *) pstmt->utilityStmt, dbid);
		next_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
		if (IsA(pstmt->utilityStmt, DropdbStmt))
		{
			ListCell   *lc;

			foreach(lc, DtxInDoubtList(dbid))
				DtxInDoubtRemove(&((DtxInDoubt *) lfirst(lc))->gid);
			DtxDecisionMapForget(dbid);
		}
	}
	PG_CATCH();
	{
		unblock_database();
		PG_RE_THROW();
	}
	PG_END_TRY();

	/*
	 * On success the database stays blocked until the transaction is over:
	 * before that, a new worker would only run into our locks.
	 */
}

/*
 * A prepared transaction of this database has been committed: it may have
 * started sagas.
 */
static void
wake_prepared(void)
{
	bool		prepared;

	LWLockAcquire(&shared->lock, LW_SHARED);
	prepared = shared->prepared;
	LWLockRelease(&shared->lock);
	if (prepared)
		DtxLauncherWakeSagas(MyDatabaseId);
}

/*
 * The database that this statement needs for itself, if any, and if the user
 * may do that: nobody else shall be able to stop its workers.  The statement
 * itself checks everything again.
 */
static Oid
database_to_vacate(Node *stmt)
{
	const char *name = NULL;
	bool		template = false;
	Oid			dbid;
	ListCell   *lc;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) stmt)->dbname;
			break;

		case T_CreatedbStmt:
			template = true;
			name = "template1";
			foreach(lc, ((CreatedbStmt *) stmt)->options)
			{
				DefElem    *def = (DefElem *) lfirst(lc);

				if (strcmp(def->defname, "template") == 0 && def->arg != NULL)
					name = defGetString(def);
			}
			break;

		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
			{
				DefElem    *def = (DefElem *) lfirst(lc);

				if (strcmp(def->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) stmt)->dbname;
			}
			break;

		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) stmt)->subname;
			break;

		default:
			break;
	}
	if (name == NULL)
		return InvalidOid;

	dbid = get_database_oid(name, true);
	if (!OidIsValid(dbid))
		return InvalidOid;
	if (template ? may_use_as_template(dbid) :
		DtxDatabaseOwnercheck(dbid, GetUserId()))
		return dbid;
	return InvalidOid;
}

/*
 * May the user create a database from this one?  commands/dbcommands.c,
 * createdb(): with the right to create databases, from a template or from a
 * database of his own.
 */
static bool
may_use_as_template(Oid dbid)
{
	HeapTuple	tuple;
	bool		createdb = superuser();
	bool		istemplate = false;

	if (!createdb)
	{
		tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
		if (HeapTupleIsValid(tuple))
		{
			createdb = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
			ReleaseSysCache(tuple);
		}
	}
	if (!createdb)
		return false;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	if (HeapTupleIsValid(tuple))
	{
		istemplate = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return istemplate || DtxDatabaseOwnercheck(dbid, GetUserId());
}

/*
 * Stop the workers of a database, wait until they are gone, and keep them from
 * being started again until unblock_database().
 *
 * Interruptible.  If they do not leave in time the statement that needs the
 * database says so itself.
 */
static void
block_database(Oid dbid)
{
	static bool registered = false;
	static uint32 wait_event = 0;
	DtxMoment	deadline = DtxIn(STOP_TIMEOUT);
	bool	   *signaled = palloc0(sizeof(bool) * shared->nworkers);

	if (wait_event == 0)
		wait_event = DtxWaitEvent("DtxResolverStop");
	if (!registered)
	{
		before_shmem_exit(unblock_at_exit, (Datum) 0);
		registered = true;
	}

	my_blocked = dbid;
	PG_TRY();
	{
		for (;;)
		{
			bool		running = false;
			long		left;

			LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
			shared->blocked[DtxMyProcNumber()] = dbid;
			for (int i = 0; i < shared->nworkers; i++)
			{
				WorkerEntry *entry = &shared->workers[i];

				if (entry->dbid != dbid)
					continue;

				/* One that has not attached yet is not let in any more. */
				if (entry->state == WORKER_STARTING)
					give_back(entry);

				/*
				 * The entry can't be given back while we hold the lock, so the
				 * pid is right.
				 */
				if (entry->state == WORKER_RUNNING)
				{
					running = true;
					if (!signaled[i])
					{
						signaled[i] = true;
						entry->stop = true;
						SetLatch(entry->latch);
						(void) kill(entry->pid, SIGTERM);
					}
				}
			}
			LWLockRelease(&shared->lock);

			left = DtxUntil(deadline);
			if (!running || left <= 0)
				break;
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Min(left, 100), wait_event);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_CATCH();
	{
		unblock_database();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Let the launcher have the database again that this backend has blocked.
 * Never throws.
 */
static void
unblock_database(void)
{
	if (!OidIsValid(my_blocked))
		return;
	my_blocked = InvalidOid;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	shared->blocked[DtxMyProcNumber()] = InvalidOid;

	/* There may be a new database, or one less. */
	shared->scan = true;
	if (shared->launcher_latch != NULL)
		SetLatch(shared->launcher_latch);
	LWLockRelease(&shared->lock);
}

static void
unblock_at_exit(int code, Datum arg)
{
	unblock_database();
}

/*
 * The end of a transaction: what waited for it.  Never throws.
 */
static void
launcher_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			unblock_database();
			if (OidIsValid(wake_at_end))
			{
				Oid			dbid = wake_at_end;

				wake_at_end = InvalidOid;
				wake_now(DTX_WORKER_RESOLVER, dbid, false, pass_at_end);
				pass_at_end = false;
			}
			break;
		default:
			break;
	}
}
