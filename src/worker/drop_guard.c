/*-------------------------------------------------------------------------
 *
 * drop_guard.c
 *		DROP DATABASE: are there decisions in it that may be needed?
 *
 * What is in doubt is known by shared memory as far as a resolver or a session has
 * told it; after a restart, with pg_dtx.resolver off, nobody has.  The truth is the
 * decision table, which can be read only in its own database.  So a background worker
 * looks into it, on behalf of the backend that executes DROP DATABASE, which waits
 * for that worker to be gone.  It looks even where connections are not allowed.
 *
 * Shared memory holds an answer per PGPROC of a regular backend.  A worker writes that
 * of the backend that has started it, which it knows by the question's number.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "state/decision.h"
#include "state/tables.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/palloc.h"
#include "utils/syscache.h"
#include "worker/drop_guard.h"
#include "worker/register.h"
#include "worker/startup.h"
#include "worker/turns.h"

/* Longest time that a worker is waited for, milliseconds. */
#define PATIENCE_MS		30000

/* Longest time that a slot for one is waited for, and how often it is tried, ms. */
#define SLOT_PATIENCE_MS	10000
#define SLOT_RETRY_MS		50

typedef enum Answer
{
	ANSWER_UNKNOWN = 0,			/* the worker has not got so far */
	ANSWER_NOTHING,				/* no extension there, or no decision that is
								 * needed */
	ANSWER_DECISIONS			/* there are some */
} Answer;

typedef struct Question
{
	uint64		number;			/* of the last question of this backend */
	Answer		answer;
} Question;

typedef struct GuardShared
{
	LWLock		lock;			/* guards everything below */
	Question	questions[FLEXIBLE_ARRAY_MEMBER];	/* by PGPROC number */
} GuardShared;

/* How a worker finds its question: BackgroundWorker.bgw_extra. */
typedef struct QuestionKey
{
	int			procno;
	uint64		number;
} QuestionKey;

static GuardShared *shared = NULL;

static bool is_invalid(Oid dbid);
static Answer ask(Oid dbid);
static BackgroundWorkerHandle *start_worker(BackgroundWorker *worker);
static bool wait_for_worker(BackgroundWorkerHandle *handle);

/*
 * Bytes of shared memory that this module needs.  MaxBackends must be known.
 */
Size
DtxDropGuardShmemSize(void)
{
	return add_size(offsetof(GuardShared, questions),
					mul_size(MaxBackends, sizeof(Question)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxDropGuardShmemInit(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_dtx drop guard", DtxDropGuardShmemSize(), &found);
	if (!found)
	{
		memset(shared, 0, DtxDropGuardShmemSize());
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxDropGuard"));
	}
}

/* ----------------------------------------------------------------
 * The backend that executes DROP DATABASE
 * ----------------------------------------------------------------
 */

/*
 * Throw if a database has decisions that may be needed, or if that cannot be found
 * out.  Its workers have been stopped.  In a transaction; interruptible.
 */
void
DtxDropGuardCheck(Oid dbid, const char *name)
{
	/* No workers in single-user mode; and one cannot connect to ruins. */
	if (!IsUnderPostmaster || is_invalid(dbid))
		return;

	switch (ask(dbid))
	{
		case ANSWER_NOTHING:
			break;
		case ANSWER_DECISIONS:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop database \"%s\"", name),
					 errdetail("Transactions of pg_dtx may be in doubt: its table dtx_internal.decision has decisions that are not known to be carried out on all servers, and they would be lost."),
					 errhint("Wait until the resolver of that database (\"pg_dtx.resolver\") has deleted them, or use WITH (FORCE).")));
			break;
		case ANSWER_UNKNOWN:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("cannot drop database \"%s\"", name),
					 errdetail("It is not known whether transactions of pg_dtx are in doubt: no background worker could look into its table dtx_internal.decision."),
					 errhint("See the server log, increase \"%s\" if there are too few of them, or use WITH (FORCE).",
							 "max_worker_processes")));
	}
}

/* Has an earlier DROP DATABASE failed half way? */
static bool
is_invalid(Oid dbid)
{
	HeapTuple	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	bool		result = true;

	if (HeapTupleIsValid(tuple))
	{
		result = ((Form_pg_database) GETSTRUCT(tuple))->datconnlimit ==
			DATCONNLIMIT_INVALID_DB;
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * Let a worker look.
 */
static Answer
ask(Oid dbid)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	QuestionKey key;
	Question   *question = &shared->questions[DtxMyProcNumber()];
	Answer		answer;

	StaticAssertStmt(sizeof(QuestionKey) <= BGW_EXTRALEN,
					 "QuestionKey does not fit into bgw_extra");

	memset(&key, 0, sizeof(key));
	key.procno = DtxMyProcNumber();
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	key.number = ++question->number;
	question->answer = ANSWER_UNKNOWN;
	LWLockRelease(&shared->lock);

	DtxWorkerDescribe(&worker, "dtx_drop_guard_main", "pg_dtx drop guard");
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 "pg_dtx drop guard for database %u", dbid);
	worker.bgw_main_arg = ObjectIdGetDatum(dbid);
	memcpy(worker.bgw_extra, &key, sizeof(key));
	worker.bgw_notify_pid = MyProcPid;
	handle = start_worker(&worker);
	if (handle == NULL)
		return ANSWER_UNKNOWN;

	PG_TRY();
	{
		if (!wait_for_worker(handle))
			TerminateBackgroundWorker(handle);
	}
	PG_CATCH();
	{
		TerminateBackgroundWorker(handle);
		PG_RE_THROW();
	}
	PG_END_TRY();

	LWLockAcquire(&shared->lock, LW_SHARED);
	answer = question->answer;
	LWLockRelease(&shared->lock);
	return answer;
}

/*
 * Register the worker.  If there is no slot, resolvers of other databases are asked to
 * make room for a moment.  Returns NULL if that takes too long.  Interruptible.
 */
static BackgroundWorkerHandle *
start_worker(BackgroundWorker *worker)
{
	static uint32 wait_event = 0;
	BackgroundWorkerHandle *handle;

	if (wait_event == 0)
		wait_event = DtxWaitEvent("DtxDropGuardSlot");
	for (int waited = 0; waited < SLOT_PATIENCE_MS; waited += SLOT_RETRY_MS)
	{
		if (RegisterDynamicBackgroundWorker(worker, &handle))
			return handle;
		DtxLauncherMakeRoom();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 SLOT_RETRY_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	return NULL;
}

/*
 * Wait until the worker is gone.  Returns false if that takes too long.
 */
static bool
wait_for_worker(BackgroundWorkerHandle *handle)
{
	static uint32 wait_event = 0;
	DtxMoment	deadline = DtxIn(PATIENCE_MS);

	if (wait_event == 0)
		wait_event = DtxWaitEvent("DtxDropGuard");
	for (;;)
	{
		pid_t		pid;
		long		left;

		if (GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED)
			return true;
		left = DtxUntil(deadline);
		if (left <= 0)
			return false;
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 left, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/* ----------------------------------------------------------------
 * The worker
 * ----------------------------------------------------------------
 */

/*
 * Main program of the worker that looks into database "arg".  An error, which is
 * logged, ends it without an answer.
 */
void
dtx_drop_guard_main(Datum arg)
{
	QuestionKey key;
	Answer		answer;

	DtxWorkerBegin(die);
	memcpy(&key, MyBgworkerEntry->bgw_extra, sizeof(key));
	DtxWorkerConnect(DatumGetObjectId(arg), InvalidOid, BGWORKER_BYPASS_ALLOWCONN,
					 "pg_dtx drop guard");
	SetConfigOption("lock_timeout", "10s", PGC_USERSET, PGC_S_OVERRIDE);

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	answer = DtxExtensionInstalled() && DtxDecisionAnyNeeded(false) ?
		ANSWER_DECISIONS : ANSWER_NOTHING;
	CommitTransactionCommand();

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->questions[key.procno].number == key.number)
		shared->questions[key.procno].answer = answer;
	LWLockRelease(&shared->lock);
	proc_exit(0);
}
