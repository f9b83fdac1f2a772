/*-------------------------------------------------------------------------
 *
 * saga_worker.c
 *		The processes that make sagas go on: one scheduler per database that has
 *		work for it, and workers that execute steps.
 *
 * What is to be done is in tables, and the functions in PL/pgSQL that belong to
 * them say what comes next (see saga.h).  A worker
 *
 *		takes a step that is due (dtx_internal.saga_take): the attempt is counted, and
 *			committed, before it is made;
 *		executes its statements, and marks the step as done (dtx_internal.saga_done), in
 *			one transaction.  The servers and this database commit in two phases,
 *			so the step and the mark are there, or neither is.  The next step of
 *			the saga is taken in the same transaction, so a step costs one commit;
 *		or, if that failed, says so in a transaction of its own (dtx_internal.saga_error).
 *
 * It may die at any moment.  Then its transaction is rolled back, and its claim
 * on the step (saga.c) goes after that; the step's row says that it is being
 * executed, which nobody does, and whoever takes it next knows what that means.
 *
 * What stops a step.  Each has a limit (pg_dtx.saga_step_timeout, and the timeout
 * of its definition).  Its saga may be canceled or ended, a role without any worker
 * may need this one (saga.c), and the worker may be told to leave.  All of it cancels
 * the step from signal handlers of this file, which the SQL of the step can't
 * change, by a timer, or when the scheduler says so, should the wall clock be set back;
 * if that does not help within a grace time, the worker dies.  A step that was stopped
 * for no fault of its own (the last two) is given back, and that was no attempt.
 *
 * A worker is connected as the role whose sagas it executes, so a step has the
 * rights, the user mappings and the settings of that role, and can't get others.
 * The functions of the extension are called with the rights of their owner.
 *
 * The scheduler sleeps until something is due, or until it is woken by the
 * commit of a transaction that has made something due (launcher.c).  It wakes
 * workers, and starts some if there are too few.  One place is kept for roles
 * without any.  If there is none, it sends away one of another role after its step,
 * and stops that step after a while if that role has more than its share.  Deadlines
 * pass here, too, so that they wait for no worker.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/settings.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "commit/coordinator.h"
#include "datatype/timestamp.h"
#include "exec/api.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "saga/saga.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "worker/connect.h"
#include "worker/register.h"
#include "worker/saga_workers.h"
#include "worker/self.h"
#include "worker/slots.h"

/* How long a worker, and the scheduler, stay without anything to do, ms. */
#define WORKER_LINGER	10000
#define SCHEDULER_LINGER	10000

/* Pause after an error that is none of a step's, doubled each time, ms. */
#define MIN_ERROR_PAUSE	200
#define MAX_ERROR_PAUSE	60000

/* The scheduler looks again after this time while something stays undone, ms. */
#define LEFTOVER_INTERVAL	1000

/*
 * The schedule is in tables, by the wall clock, which may be set: longest time before
 * it is looked at again, ms.
 */
#define MAX_SCHEDULE_WAIT	20000

/* Longest wait for a saga's row by a worker that has executed a step. */
#define SAGA_LOCK_TIMEOUT	"10s"

/* ... and of one that gives back a step because it is to leave. */
#define GIVE_BACK_LOCK_TIMEOUT	"2s"

/* ... and of one that notifies those who listen. */
#define NOTIFY_LOCK_TIMEOUT	"200ms"

/* A worker is not sent away for the sake of another role before that, ms. */
#define MIN_TENURE	1000

/* A role waits so long for its only worker before somebody's step is stopped, ms. */
#define ROOM_PATIENCE	5000

/* How often a worker that executes a step looks whether to stop it, ms. */
#define WATCH_INTERVAL	200

/*
 * How often the scheduler has workers look, ms.  Timers of PostgreSQL strike by the wall
 * clock (utils/misc/timeout.c), and are of no use for an hour if that is set back.
 */
#define POKE_INTERVAL	1000

/* From canceling a step to killing its worker, and if that is to leave, ms. */
#define STOP_GRACE	5000
#define LEAVE_GRACE	2000

/* Deadlines that pass in one transaction. */
#define DEADLINES_AT_ONCE	100

/*
 * So many executions of a step may end because its worker was told to leave, nobody
 * knows by whom.  The next ones are attempts: the step itself may have done it.
 */
#define MAX_LEAVES		10

/* A worker that lived for this time did not die of its start, ms. */
#define HEALTHY_AFTER	10000

/* A role that can't connect is looked at again after this time, ms. */
#define ROLE_PAUSE	60000

/* How often a worker tries to say that a step has failed. */
#define REPORT_TRIES	5

/* A step that this worker has taken. */
typedef struct Step
{
	MemoryContext cxt;			/* where all of this lives */
	int64		saga;
	int16		step;
	int32		attempt;
	char	   *direction;		/* "execute" or "compensate" */
	int			ncommands;
	char	  **servers;		/* per command; NULL: this database */
	char	  **commands;		/* NULL: nothing to do */
	int		   *min_rows;		/* -1: does not matter */
	bool		has_input;
	Datum		input;			/* jsonb, $1 */
	bool		has_results;
	Datum		results;		/* jsonb, $2 */
	int			timeout;		/* milliseconds, 0: none */
	TimestampTz started_at;		/* to be shown */
} Step;

/* What dtx_internal.saga_schedule() says of a role. */
typedef struct RoleWork
{
	Oid			role;
	int64		due;			/* steps that are due and that nobody executes */
	DtxMoment	waiting_since;	/* RoleState.waiting_since, DTX_NEVER if 0 */
	TimestampTz next_due;		/* when the next one will be, DT_NOEND: none */
} RoleWork;

/* What the scheduler knows of a role.  Private to it. */
typedef struct RoleState
{
	Oid			role;			/* hash key */
	DtxBackoff	backoff;		/* of workers that died in a row */
	DtxMoment	waiting_since;	/* it needs a worker and has none; 0: not so */
	bool		seen;			/* does it have work in this round? */
	bool		refused;		/* has it been said that it can't connect? */
} RoleState;

/* A worker that the scheduler has started, and that may still be starting. */
typedef struct StartedWorker
{
	DtxSagaWorker worker;
	BackgroundWorkerHandle *handle;
} StartedWorker;

/* The scheduler. */
typedef struct Scheduler
{
	MemoryContext cxt;			/* lives as long as it */
	MemoryContext round_cxt;	/* reset in every round */
	HTAB	   *roles;			/* RoleState */
	List	   *started;		/* StartedWorker */
	DtxSagaWorker *workers;		/* as they were at the start of the round */
	int			nworkers;
	DtxSagaExecution *executions;	/* what they execute; room for one each */
	DtxMoment	next_look;		/* when to ask what is due; DTX_NEVER: not before
								 * somebody wakes us */
	DtxMoment	idle_since;		/* nothing is scheduled, and no worker there;
								 * 0: not so */
	Oid			last_deadline;	/* role whose deadlines passed last */
	bool		no_slot_logged; /* has it been said that slots are missing? */
} Scheduler;

/* Keeps the first row that it gets, and counts. */
typedef struct FirstRowReceiver
{
	DestReceiver pub;
	MemoryContext cxt;			/* for the row */
	TupleDesc	desc;			/* of the rows */
	bool		found;			/* has it the row, or need it none? */
	Datum		first;			/* as jsonb */
} FirstRowReceiver;

/* Worker and scheduler: errors in a row that were none of a step's. */
static DtxBackoff errors;

/* Why a step is stopped: a DtxSagaStop, or one of these. */
#define STOP_TIMEOUT	10		/* it has taken longer than its timeout ... */
#define STOP_LIMIT		11		/* ... or than the setting allows */
#define STOP_LEAVE		12		/* the worker is to leave */

/*
 * Worker: is it executing a step, so that SIGTERM does not kill it at once?  Why and
 * since when is the step to stop?  When is its limit over (0: it has none), and which one
 * is that?  Signal handlers read and set these.
 */
static volatile sig_atomic_t executing = false;
static volatile sig_atomic_t stop_reason = DTX_SAGA_GO_ON;
static volatile DtxMoment stop_since = 0;
static volatile DtxMoment limit_at = 0;
static volatile sig_atomic_t limit_reason = STOP_LIMIT;

/* Worker: the timers. */
static TimeoutId limit_timer;
static TimeoutId watch_timer;

/* Worker: has a step run in this session since it was cleaned? */
static bool session_used = false;

/* Worker: has it said that it has nothing to do? */
static bool idle = false;

/* Worker: parent of the contexts of the steps that it has taken. */
static MemoryContext steps_cxt = NULL;

/* Wait events, see DtxWaitEvent(). */
static uint32 we_scheduler;
static uint32 we_worker;

static void start_process(DtxWorkerKind kind, Oid dbid, const char *name);
static bool may_log_in(Oid role);
static void recover_from_error(void);

static void scheduler_look(Scheduler *s, bool *leave);
static int64 until_due(TimestampTz at);
static void pass_deadlines(Scheduler *s);
static bool scheduler_collect(Scheduler *s);
static RoleState *role_state(Scheduler *s, Oid role);
static void role_died(Scheduler *s, Oid role, DtxMoment attached_at);
static bool role_may_connect(Scheduler *s, Oid role);
static List *ask_schedule(Scheduler *s);
static void serve(Scheduler *s, List *work);
static int	compare_waiting(const ListCell *a, const ListCell *b);
static bool start_worker(Scheduler *s, Oid role);
static bool send_one_away(Scheduler *s, Oid for_role);
static void stop_one(Scheduler *s, Oid for_role, int share);
static int	busy_workers(Scheduler *s, Oid role);

static bool worker_round(MemoryContext cxt, bool careful, bool *gone);
static void begin(void);
static void clean_session(void);
static void worker_sigterm(SIGNAL_ARGS);
static void worker_sigusr2(SIGNAL_ARGS);
static void ask_to_stop(int reason);
static void limit_over(void);
static void watch_step(void);
static void announce(void);
static void begin_execution(void);
static void end_execution(void);
static void set_limits(Step *step);
static void check_stopped(void);
static Step *take_step(int64 only, bool careful, bool *more);
static Step *read_step(Datum taken, bool *more);
static void free_step(Step *step);
static Step *execute_step(Step *step);
static void run_commands(Step *step, MemoryContext cxt, Datum *result,
						 bool *isnull);
static int64 run_local(const char *command, Step *step, MemoryContext cxt,
					   Datum *row, bool *isnull);
static void mark_done(Step *step, Datum result, bool isnull);
static void give_back(Step *step, const char *why, int most);
static void report_error(Step *step, ErrorData *edata);

/* ----------------------------------------------------------------
 * Both kinds of processes
 * ----------------------------------------------------------------
 */

/*
 * What both do first.  Leaves if nobody wants this process any more.
 */
static void
start_process(DtxWorkerKind kind, Oid dbid, const char *name)
{
	Oid			role = InvalidOid;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, kind == DTX_WORKER_SAGA ? worker_sigterm : die);
	if (kind == DTX_WORKER_SAGA)
		pqsignal(SIGUSR2, worker_sigusr2);
	BackgroundWorkerUnblockSignals();

	/* A SIGHUP from before our handler was there was lost. */
	ConfigReloadPending = true;

	/* Before connecting, see DtxWorkerAttach(). */
	if (!DtxWorkerAttach(kind, dbid))
		proc_exit(0);
	if (kind == DTX_WORKER_SAGA)
	{
		/* Without a role it would be connected as a superuser. */
		role = DtxWorkerRole();
		if (!OidIsValid(role))
			elog(FATAL, "worker of sagas without a role");
	}
	DtxWorkerConnect(dbid, role, 0, name);
}

/*
 * Is there such a role, and may it log in?  In a transaction.
 */
static bool
may_log_in(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		login;

	if (!HeapTupleIsValid(tuple))
		return false;
	login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return login;
}

/*
 * After an error that has been dealt with: back to where a transaction can be
 * started.  The error itself has been copied or reported by the caller.
 */
static void
recover_from_error(void)
{
	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	debug_query_string = NULL;
	disable_all_timeouts(false);
	QueryCancelPending = false; /* second to avoid a race */
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(TopMemoryContext);
	RESUME_INTERRUPTS();
}

/* ----------------------------------------------------------------
 * The scheduler
 * ----------------------------------------------------------------
 */

/*
 * Main program of the scheduler of database "arg".
 */
void
dtx_saga_scheduler_main(Datum arg)
{
	Scheduler	scheduler;
	Scheduler  *s = &scheduler;
	HASHCTL		info;
	volatile bool leave = false;

	start_process(DTX_WORKER_SCHEDULER, DatumGetObjectId(arg),
				  "pg_dtx saga scheduler");

	/* Whoever locks our tables for long must not make us deaf. */
	SetConfigOption("lock_timeout", "5s", PGC_USERSET, PGC_S_OVERRIDE);

	/* Deadlines that have passed pass again after a crash. */
	SetConfigOption("synchronous_commit", "off", PGC_USERSET, PGC_S_OVERRIDE);
	we_scheduler = DtxWaitEvent("DtxSagaSchedulerMain");

	memset(s, 0, sizeof(*s));
	s->cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga scheduler",
								   ALLOCSET_DEFAULT_SIZES);
	s->round_cxt = AllocSetContextCreate(s->cxt, "pg_dtx saga scheduler round",
										 ALLOCSET_DEFAULT_SIZES);
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(RoleState);
	info.hcxt = s->cxt;
	s->roles = hash_create("pg_dtx saga roles", 32, &info,
						   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	s->workers = MemoryContextAlloc(s->cxt,
									sizeof(DtxSagaWorker) * max_worker_processes);
	s->executions = MemoryContextAlloc(s->cxt,
									   sizeof(DtxSagaExecution) * max_worker_processes);

	while (!leave)
	{
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			bool		nothing = false;
			long		timeout = -1;

			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
				s->next_look = 0;
			}
			if (!DtxIsDue(errors.next))
				timeout = Max(DtxUntil(errors.next), 1);
			else
			{
				MemoryContextReset(s->round_cxt);
				MemoryContextSwitchTo(s->round_cxt);
				scheduler_look(s, &nothing);
				leave = nothing;
				DtxBackoffReset(&errors);

				if (s->next_look != DTX_NEVER)
					timeout = DtxUntil(s->next_look);
				if (s->idle_since != 0 && s->next_look == DTX_NEVER)
					timeout = Max(DtxUntil(s->idle_since + SCHEDULER_LINGER), 1);
			}
			if (!leave)
			{
				DtxWorkerStarted();
				if (DtxSagaWorkersPoke())
					timeout = timeout < 0 ? POKE_INTERVAL : Min(timeout, POKE_INTERVAL);
				(void) WaitLatch(MyLatch, WL_LATCH_SET |
								 (timeout >= 0 ? WL_TIMEOUT : 0) |
								 WL_EXIT_ON_PM_DEATH, timeout, we_scheduler);
			}
		}
		PG_CATCH();
		{
			/* Where a lock is in the way, the wait for it was a pause, too. */
			if (geterrcode() == ERRCODE_LOCK_NOT_AVAILABLE && errors.failures > 0)
				errors.failures--;
			EmitErrorReport();
			FlushErrorState();
			recover_from_error();
			s->next_look = 0;
			DtxBackoffFailed(&errors, MIN_ERROR_PAUSE, MAX_ERROR_PAUSE);
		}
		PG_END_TRY();
	}

	if (leave)
		DtxWorkerNotNeeded();
	proc_exit(0);
}

/*
 * One round: who has come and gone, what is due, who is to do it.
 */
static void
scheduler_look(Scheduler *s, bool *leave)
{
	bool		enabled = dtx_saga_workers > 0 && dtx_resolver;
	bool		look = DtxIsDue(s->next_look);

	/* Whoever wakes us from now on is for the next round. */
	look |= DtxWorkerTakeWork();
	look |= scheduler_collect(s);
	if (look)
	{
		List	   *work;
		ListCell   *lc;

		SetCurrentStatementStartTimestamp();
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (!DtxSagaInstalled())
		{
			/* Dropped under us: the workers find out themselves. */
			PopActiveSnapshot();
			CommitTransactionCommand();
			*leave = true;
			return;
		}
		DtxSagaStopPrepared();
		work = ask_schedule(s);
		s->next_look = DTX_NEVER;
		foreach(lc, work)
		{
			RoleWork   *w = (RoleWork *) lfirst(lc);

			if (w->next_due != DT_NOEND)
				s->next_look = Min(s->next_look, DtxIn(until_due(w->next_due)));
		}
		if (enabled)
			serve(s, work);
		PopActiveSnapshot();
		CommitTransactionCommand();

		/* Steps do not wait for deadlines, nor for errors there. */
		if (enabled)
			pass_deadlines(s);
		pgstat_report_stat(false);
		MemoryContextSwitchTo(s->round_cxt);

		/* With nothing in store, and nobody there, we are not needed. */
		if (work == NIL && s->nworkers == 0)
		{
			if (s->idle_since == 0)
				s->idle_since = DtxNow();
		}
		else
			s->idle_since = 0;
		if (!enabled)
			s->next_look = DTX_NEVER;
	}

	/* Too many of them, after a reload. */
	for (int i = 0, n = 0; i < s->nworkers; i++)
	{
		if (!s->workers[i].stop && ++n > (enabled ? dtx_saga_workers : 0))
			DtxSagaWorkerDismiss(&s->workers[i]);
	}

	if (s->idle_since != 0 && s->next_look == DTX_NEVER &&
		DtxIsDue(s->idle_since + SCHEDULER_LINGER))
		*leave = true;
}

/*
 * Milliseconds until something in the schedule is due, or until it is to be looked at
 * again.
 */
static int64
until_due(TimestampTz at)
{
	return Min(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at),
			   MAX_SCHEDULE_WAIT);
}

/*
 * In a transaction of its own: let deadlines pass, some of them if there are many, and
 * note when the next one does.
 */
static void
pass_deadlines(Scheduler *s)
{
	static const Oid types[] = {INT4OID, OIDOID};
	Datum		args[lengthof(types)];
	Datum		result;
	HeapTupleHeader header;
	bool		isnull;
	TimestampTz next;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (DtxSagaInstalled())
	{
		args[0] = Int32GetDatum(DEADLINES_AT_ONCE);
		args[1] = ObjectIdGetDatum(s->last_deadline);
		result = DtxSagaCall("saga_deadlines", lengthof(types), types, args, NULL,
							 &isnull);
		header = DatumGetHeapTupleHeader(result);
		s->last_deadline =
			DatumGetObjectId(GetAttributeByName(header, "last", &isnull));
		next = DatumGetTimestampTz(GetAttributeByName(header, "next_due", &isnull));
		if (!isnull)
			s->next_look = Min(s->next_look, DtxIn(until_due(next)));
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * Take stock of the workers, and let go of those that have left.  Returns
 * whether there were any.
 */
static bool
scheduler_collect(Scheduler *s)
{
	DtxSagaWorker *workers;
	int			n;
	bool		left = false;
	ListCell   *lc;

	workers = palloc(sizeof(DtxSagaWorker) * max_worker_processes);
	n = DtxSagaWorkerList(workers, max_worker_processes);
	s->nworkers = 0;
	for (int i = 0; i < n; i++)
	{
		DtxSagaWorker *worker = &workers[i];
		bool		gone = worker->exited;

		if (worker->starting)
		{
			StartedWorker *started = NULL;
			pid_t		pid;

			foreach(lc, s->started)
			{
				StartedWorker *candidate = (StartedWorker *) lfirst(lc);

				if (candidate->worker.index == worker->index &&
					candidate->worker.generation == worker->generation)
					started = candidate;
			}

			if (started == NULL)
			{
				/* Of an earlier scheduler: nobody would learn of its fate. */
				gone = true;
				worker->clean = true;
			}
			else
				gone = GetBackgroundWorkerPid(started->handle, &pid) == BGWH_STOPPED;
		}
		if (!gone)
		{
			s->workers[s->nworkers++] = *worker;
			continue;
		}
		if (!worker->clean)
			role_died(s, worker->role, worker->attached_at);
		DtxSagaWorkerForget(worker);
		left = true;
	}

	/* Handles are of use only until the worker is there. */
	foreach(lc, s->started)
	{
		StartedWorker *started = (StartedWorker *) lfirst(lc);
		bool		starting = false;

		for (int i = 0; i < s->nworkers; i++)
		{
			if (s->workers[i].index == started->worker.index &&
				s->workers[i].generation == started->worker.generation)
				starting = s->workers[i].starting;
		}
		if (!starting)
		{
			s->started = foreach_delete_current(s->started, lc);
			pfree(started->handle);
			pfree(started);
		}
	}
	return left;
}

static RoleState *
role_state(Scheduler *s, Oid role)
{
	bool		found;
	RoleState  *state = hash_search(s->roles, &role, HASH_ENTER, &found);

	if (!found)
	{
		memset(state, 0, sizeof(*state));
		state->role = role;
	}
	return state;
}

/*
 * A worker has died of its own: when to start another one for its role?
 */
static void
role_died(Scheduler *s, Oid role, DtxMoment attached_at)
{
	RoleState  *state = role_state(s, role);

	if (attached_at != 0 && DtxIsDue(attached_at + HEALTHY_AFTER))
		DtxBackoffReset(&state->backoff);
	DtxBackoffFailed(&state->backoff, MIN_ERROR_PAUSE, MAX_ERROR_PAUSE);
}

/*
 * Can a worker connect as that role?  If not, say so once, and leave its sagas
 * for a while.
 */
static bool
role_may_connect(Scheduler *s, Oid role)
{
	RoleState  *state = role_state(s, role);
	char	   *name;

	if (may_log_in(role))
	{
		state->refused = false;
		return true;
	}

	state->backoff.next = DtxIn(ROLE_PAUSE);
	name = GetUserNameFromId(role, true);
	if (!state->refused && name != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("sagas of role \"%s\" wait because it is not permitted to log in",
						name),
				 errhint("Use ALTER ROLE ... LOGIN, or end its sagas with dtx.force_saga().")));
	else if (name == NULL)
	{
		static const Oid types[] = {OIDOID};
		Datum		args[lengthof(types)];
		bool		isnull;

		/* Nobody else shall do their steps: they fail, and say why. */
		args[0] = ObjectIdGetDatum(role);
		(void) DtxSagaCall("saga_orphaned", lengthof(types), types, args, NULL,
						   &isnull);
		state->backoff.next = DtxIn(LEFTOVER_INTERVAL);
	}
	state->refused = true;
	return false;
}

/*
 * What is due, and what will be: a list of RoleWork in the round's context.  In
 * a transaction with a snapshot.
 */
static List *
ask_schedule(Scheduler *s)
{
	List	   *work = NIL;

	SPI_connect();
	if (SPI_execute("SELECT role, due, next_due FROM dtx_internal.saga_schedule()",
					false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not ask for the schedule of sagas");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		HeapTuple	tuple = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;
		MemoryContext old = MemoryContextSwitchTo(s->round_cxt);
		RoleWork   *w = palloc0(sizeof(RoleWork));
		bool		isnull;
		Datum		value;

		value = SPI_getbinval(tuple, desc, 1, &isnull);
		if (!isnull)
			w->role = DatumGetObjectId(value);
		value = SPI_getbinval(tuple, desc, 2, &isnull);
		if (!isnull)
			w->due = DatumGetInt64(value);
		value = SPI_getbinval(tuple, desc, 3, &isnull);
		w->next_due = isnull ? DT_NOEND : DatumGetTimestampTz(value);
		work = lappend(work, w);
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	return work;
}

/*
 * Give the work to workers.
 */
static void
serve(Scheduler *s, List *work)
{
	DtxMoment	again = DtxIn(LEFTOVER_INTERVAL);
	HASH_SEQ_STATUS seq;
	RoleState  *state;
	ListCell   *lc;
	bool		wanting = false;
	int			nroles = 0;

	/* A role's share of the workers; and who has waited longest comes first. */
	foreach(lc, work)
	{
		RoleWork   *w = (RoleWork *) lfirst(lc);

		if (w->due > 0 || busy_workers(s, w->role) > 0)
			nroles++;
		state = role_state(s, w->role);
		w->waiting_since = state->waiting_since == 0 ? DTX_NEVER : state->waiting_since;
	}
	list_sort(work, compare_waiting);

	foreach(lc, work)
	{
		RoleWork   *w = (RoleWork *) lfirst(lc);
		int64		missing = w->due;
		int			there = 0;

		state = role_state(s, w->role);
		if (w->due == 0)
			continue;

		/* Those who have nothing to do first. */
		for (int i = 0; i < s->nworkers; i++)
		{
			DtxSagaWorker *worker = &s->workers[i];

			if (worker->role != w->role || worker->stop)
				continue;
			there++;
			if (missing > 0 && (worker->idle || worker->starting))
			{
				if (worker->idle)
					DtxSagaWorkerWake(worker);
				missing--;
			}
		}

		/*
		 * As many more as are needed and allowed.  Whoever is busy goes on with
		 * what is left, but somebody else's step may be in his way: look again.
		 */
		if (!DtxIsDue(state->backoff.next))
		{
			s->next_look = Min(s->next_look, state->backoff.next);
			continue;
		}
		if (missing > 0 && !role_may_connect(s, w->role))
		{
			s->next_look = Min(s->next_look, state->backoff.next);
			continue;
		}
		s->next_look = Min(s->next_look, again);

		/* The last place is kept for a role that has none. */
		while (missing > 0 &&
			   s->nworkers < (there == 0 ? dtx_saga_workers : dtx_saga_workers - 1) &&
			   start_worker(s, w->role))
		{
			missing--;
			there++;
		}
		if (there > 0)
			continue;
		wanting |= send_one_away(s, w->role);
		state->seen = true;
		if (state->waiting_since == 0)
			state->waiting_since = DtxNow();
		else if (DtxIsDue(state->waiting_since + ROOM_PATIENCE))
			stop_one(s, w->role, Max(1, dtx_saga_workers / Max(1, nroles)));
	}
	DtxSchedulerWants(wanting);

	hash_seq_init(&seq, s->roles);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (!state->seen)
			state->waiting_since = 0;
		state->seen = false;
	}
}

/*
 * For list_sort(): of two roles, the one that has waited longer for a worker.
 */
static int
compare_waiting(const ListCell *a, const ListCell *b)
{
	DtxMoment	first = ((RoleWork *) lfirst(a))->waiting_since;
	DtxMoment	second = ((RoleWork *) lfirst(b))->waiting_since;

	return first < second ? -1 : first > second ? 1 : 0;
}

/*
 * Start a worker.  Returns false if that is not possible now.
 */
static bool
start_worker(Scheduler *s, Oid role)
{
	MemoryContext old;
	StartedWorker *started;
	bool		ok = false;

	old = MemoryContextSwitchTo(s->cxt);
	started = palloc0(sizeof(StartedWorker));
	switch (DtxSagaWorkerStart(role, &started->worker, &started->handle))
	{
		case DTX_STARTED:
			s->started = lappend(s->started, started);
			s->workers[s->nworkers++] = started->worker;
			s->no_slot_logged = false;
			ok = true;
			break;
		case DTX_NO_SLOT:
			if (!s->no_slot_logged)
				ereport(s->nworkers > 0 ? LOG : WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("out of background worker slots for the sagas of pg_dtx"),
						 errdetail("%d of at most %d workers (\"%s\") are there.",
								   s->nworkers, dtx_saga_workers,
								   "pg_dtx.saga_workers"),
						 errhint("You might need to increase \"%s\".",
								 "max_worker_processes")));
			s->no_slot_logged = true;
			break;
		case DTX_BLOCKED:
			break;
	}
	if (!ok)
		pfree(started);
	MemoryContextSwitchTo(old);
	return ok;
}

/*
 * A role has work and no worker, and all are taken: let the role that has most
 * of them give one up.  Returns true; the caller is told when somebody leaves.
 */
static bool
send_one_away(Scheduler *s, Oid for_role)
{
	DtxSagaWorker *victim = NULL;
	int			most = 0;

	for (int i = 0; i < s->nworkers; i++)
	{
		DtxSagaWorker *worker = &s->workers[i];
		int			n = 0;

		/* Somebody is leaving already. */
		if (worker->stop)
			return true;
		if (worker->starting || worker->role == for_role)
			continue;

		/* The idle ones first, then those of the role that has most. */
		if (worker->idle)
			n = s->nworkers;
		else if (DtxIsDue(worker->attached_at + MIN_TENURE))
		{
			for (int j = 0; j < s->nworkers; j++)
			{
				if (s->workers[j].role == worker->role)
					n++;
			}
		}
		if (n > most)
		{
			most = n;
			victim = worker;
		}
	}
	if (victim != NULL)
	{
		victim->stop = true;
		DtxSagaWorkerDismiss(victim);
	}
	return true;
}

/* How many workers of a role have, or are about to have, something to do? */
static int
busy_workers(Scheduler *s, Oid role)
{
	int			n = 0;

	for (int i = 0; i < s->nworkers; i++)
	{
		if (s->workers[i].role == role && !s->workers[i].idle)
			n++;
	}
	return n;
}

/*
 * A role has been waiting for its only worker: stop a step of a role that has more
 * workers than its share, the one that has run longest.  One that is to leave anyway
 * is preferred.  If no role has more than its share, but all of them wait for one
 * foreign server, one of them makes room for the others.  Steps that are within their
 * rights go on, until their own limit.
 */
static void
stop_one(Scheduler *s, Oid for_role, int share)
{
	DtxSagaExecution *victim = NULL;
	DtxSagaWorker *victim_worker = NULL;
	int			most = 0;
	int			n = DtxSagaExecutions(s->executions, max_worker_processes);

	for (int i = 0; i < n; i++)
	{
		DtxSagaExecution *e = &s->executions[i];
		DtxSagaWorker *worker = NULL;
		int			rank;

		/* One is being stopped already. */
		if (e->stopping)
			return;
		for (int j = 0; j < s->nworkers; j++)
		{
			if (s->workers[j].pid == e->pid)
				worker = &s->workers[j];
		}
		if (worker == NULL || e->role == for_role)
			continue;
		rank = busy_workers(s, e->role);
		if (rank <= share)
		{
			int			there = 0;

			for (int j = 0; j < n; j++)
				there += s->executions[j].lane == e->lane;
			if (!OidIsValid(e->lane) || dtx_saga_workers < 2 ||
				there < dtx_saga_workers)
				continue;
			rank = 1;
		}
		rank = 2 * rank + (worker->stop ? 1 : 0);
		if (rank > most ||
			(rank == most && e->begun_at < victim->begun_at))
		{
			most = rank;
			victim = e;
			victim_worker = worker;
		}
	}
	if (victim == NULL || !DtxSagaMakeRoom(victim))
		return;
	victim_worker->stop = true;
	DtxSagaWorkerDismiss(victim_worker);
	ereport(LOG,
			(errmsg("stopping a step of saga " INT64_FORMAT " because sagas of another role have no worker",
					victim->saga),
			 errdetail("It is tried again, and this was no attempt."),
			 errhint("You might need to increase \"%s\".", "pg_dtx.saga_workers")));
}

/* ----------------------------------------------------------------
 * The worker: main program
 * ----------------------------------------------------------------
 */

/*
 * Main program of a worker for database "arg".
 */
void
dtx_saga_worker_main(Datum arg)
{
	MemoryContext cxt;
	volatile bool worked = false;
	volatile bool paused = false;
	volatile bool fruitful = false;
	volatile bool leave = false;
	volatile DtxMoment idle_since = 0;

	start_process(DTX_WORKER_SAGA, DatumGetObjectId(arg), "pg_dtx saga worker");

	/* Atomicity is not for a step's SQL to switch off. */
	CoordinatorInsist();
	DtxSagaWorkerHere();
	we_worker = DtxWaitEvent("DtxSagaWorkerMain");
	limit_timer = RegisterTimeout(USER_TIMEOUT, limit_over);
	watch_timer = RegisterTimeout(USER_TIMEOUT, watch_step);
	cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga worker",
								ALLOCSET_DEFAULT_SIZES);
	steps_cxt = AllocSetContextCreate(TopMemoryContext, "pg_dtx saga steps",
									  ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}

			/* After an error nothing is done for a while, whoever wakes us. */
			paused = !DtxIsDue(errors.next);
			if (paused)
				(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
								 WL_EXIT_ON_PM_DEATH,
								 Max(DtxUntil(errors.next), 1), we_worker);
			else
			{
				bool		gone = false;

				(void) DtxWorkerTakeWork();
				MemoryContextReset(cxt);
				MemoryContextSwitchTo(cxt);
				MemoryContextReset(steps_cxt);
				worked = worker_round(cxt, errors.failures > 0, &gone);
				leave = gone;
				DtxBackoffReset(&errors);
			}
		}
		PG_CATCH();
		{
			/*
			 * What went wrong is none of a step's.  If it was executing one,
			 * that is found as one that nobody executes.
			 */
			EmitErrorReport();
			FlushErrorState();
			recover_from_error();
			DtxSagaDropClaims();
			session_used = true;
			DtxBackoffFailed(&errors, MIN_ERROR_PAUSE, MAX_ERROR_PAUSE);
			paused = true;
			worked = false;
		}
		PG_END_TRY();

		if (paused)
			continue;
		if (worked)
			fruitful = true;
		else
		{
			if (!idle)
			{
				pgstat_report_stat(true);
				DtxWorkerSetIdle(true, fruitful);
				idle = true;
				fruitful = false;
				idle_since = DtxNow();
			}
			if (leave || DtxIsDue(idle_since + WORKER_LINGER))
			{
				DtxWorkerNotNeeded();
				break;
			}
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
							 WL_EXIT_ON_PM_DEATH,
							 Max(DtxUntil(idle_since + WORKER_LINGER), 1),
							 we_worker);
		}
	}
	proc_exit(0);
}

/*
 * Take steps and execute them, as long as one leads to the next.  Returns false
 * if there was nothing to do.  *gone says that there never will be.  After an
 * error one is careful: a saga that nobody can take must not stop all others.
 */
static bool
worker_round(MemoryContext cxt, bool careful, bool *gone)
{
	Step	   *step = NULL;
	bool		more = false;

	begin();
	clean_session();
	*gone = !DtxSagaInstalled() || !may_log_in(GetSessionUserId());
	if (!*gone)
		step = take_step(0, careful, &more);

	/* The attempt is counted, whatever becomes of it. */
	if (step != NULL)
		ForceSyncCommit();
	PopActiveSnapshot();
	CommitTransactionCommand();
	if (step == NULL)
	{
		DtxSagaDropClaims();
		announce();
		return more;
	}
	DtxSagaKeepClaim(step->saga, step->step);
	if (idle)
	{
		DtxWorkerSetIdle(false, false);
		idle = false;
	}
	DTX_FAULT("saga-taken", NULL);

	while (step != NULL)
	{
		MemoryContextReset(cxt);
		MemoryContextSwitchTo(cxt);

		/* Before each step one may leave, or listen. */
		begin_execution();
		if (ProcDiePending || ConfigReloadPending || DtxWorkerMustStop())
		{
			end_execution();
			give_back(step, NULL, -1);
			free_step(step);
			DtxSagaDropClaims();
			break;
		}
		step = execute_step(step);
	}
	return true;
}

/*
 * Tell those who listen that there is something in their queues.  They look every now
 * and then anyway, so an error is only worth a word, and nothing is waited for.
 */
static void
announce(void)
{
	static bool said = false;
	MemoryContext cxt = CurrentMemoryContext;

	if (!DtxSagaHasAnnouncements())
		return;
	PG_TRY();
	{
		begin();
		(void) set_config_option("lock_timeout", NOTIFY_LOCK_TIMEOUT, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		DtxSagaAnnounce();
		PopActiveSnapshot();
		CommitTransactionCommand();
		said = false;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		recover_from_error();
		if (!said)
			ereport(LOG,
					(errmsg("could not notify external workers of sagas: %s",
							edata->message),
					 errdetail("They find their work when they ask for it.")));
		said = true;
		FreeErrorData(edata);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
}

/* ----------------------------------------------------------------
 * The worker: steps
 * ----------------------------------------------------------------
 */

/*
 * Begin a transaction, and have a snapshot.
 */
static void
begin(void)
{
	MemoryContext old = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* Whatever an earlier step, or its triggers, have made the default. */
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(old);
}

/*
 * In a transaction: take away what the SQL of an earlier step has left in the
 * session, as DISCARD ALL does (commands/discard.c).  Plans may stay.
 */
static void
clean_session(void)
{
	if (!session_used)
		return;
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	session_used = false;
}

/* ----------------------------------------------------------------
 * The worker: what stops a step
 *
 * Handlers of signals: they set flags and the latch, and CHECK_FOR_INTERRUPTS() does
 * the rest.
 * ----------------------------------------------------------------
 */

/*
 * SIGTERM.  A step that is being executed is canceled and given back first.
 */
static void
worker_sigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	if (executing && stop_reason != STOP_LEAVE)
		ask_to_stop(STOP_LEAVE);
	else
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
	errno = save_errno;
}

/*
 * SIGUSR2, from the scheduler: look, whatever time it is.
 */
static void
worker_sigusr2(SIGNAL_ARGS)
{
	int			save_errno = errno;

	watch_step();
	errno = save_errno;
}

static void
ask_to_stop(int reason)
{
	if (stop_reason == DTX_SAGA_GO_ON || reason == STOP_LEAVE)
	{
		stop_since = DtxNow();
		stop_reason = reason;
	}
	QueryCancelPending = true;
	InterruptPending = true;
}

/*
 * The step has taken too long.
 */
static void
limit_over(void)
{
	if (executing)
		ask_to_stop(limit_reason);
	SetLatch(MyLatch);
}

/*
 * Every now and then while a step is executed.  A step may catch that it is
 * canceled, so it is canceled again, and in the end the worker dies.
 */
static void
watch_step(void)
{
	if (!executing)
		return;
	if (stop_reason == DTX_SAGA_GO_ON)
	{
		int			stop = DtxSagaStopAsked();

		if (stop == DTX_SAGA_GO_ON && limit_at != 0 && DtxIsDue(limit_at))
			stop = limit_reason;
		if (stop == DTX_SAGA_GO_ON)
			return;
		ask_to_stop(stop);
	}
	else if (DtxNow() - stop_since <
			 (stop_reason == STOP_LEAVE ? LEAVE_GRACE : STOP_GRACE))
	{
		QueryCancelPending = true;
		InterruptPending = true;
	}
	else
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
}

/*
 * From now on SIGTERM cancels, and does not kill.
 */
static void
begin_execution(void)
{
	stop_reason = DTX_SAGA_GO_ON;
	stop_since = 0;
	limit_at = 0;
	executing = true;
}

/*
 * ... no more.  Whoever has tried to cancel came too late; a worker that is to leave
 * does so at the next opportunity.
 */
static void
end_execution(void)
{
	executing = false;
	disable_timeout(limit_timer, false);
	disable_timeout(watch_timer, false);
	if (stop_reason != DTX_SAGA_GO_ON)
		QueryCancelPending = false;
	if (stop_reason == STOP_LEAVE)
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
}

/*
 * Start the timers.  The settings are those of the session, before the step.
 */
static void
set_limits(Step *step)
{
	int			limit = dtx_saga_step_timeout;

	limit_reason = STOP_LIMIT;
	if (step->timeout > 0 && (limit == 0 || step->timeout < limit))
	{
		limit = step->timeout;
		limit_reason = STOP_TIMEOUT;
	}
	if (limit > 0)
	{
		limit_at = DtxIn(limit);
		enable_timeout_after(limit_timer, limit);
	}
	enable_timeout_every(watch_timer,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 WATCH_INTERVAL),
						 WATCH_INTERVAL);
}

/*
 * A step that has caught that it was canceled, and ends, has been stopped all the
 * same.
 */
static void
check_stopped(void)
{
	CHECK_FOR_INTERRUPTS();
	if (stop_reason != DTX_SAGA_GO_ON)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to user request")));
}

/*
 * In a transaction: take a step that is due, of saga "only" if that is not 0.
 * If there is none, *more says whether to ask again.  If it is to be careful, a
 * step that can't even be looked at is left for later; that costs a
 * subtransaction for each one.
 */
static Step *
take_step(int64 only, bool careful, bool *more)
{
	static const Oid types[] = {OIDOID, INT8OID, BOOLOID};
	Datum		args[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	Datum		taken;
	bool		isnull;

	args[0] = ObjectIdGetDatum(GetSessionUserId());
	args[1] = Int64GetDatum(only);
	nulls[1] = only == 0;
	args[2] = BoolGetDatum(careful);
	taken = DtxSagaCall("saga_take", lengthof(args), types, args, nulls,
						&isnull);
	*more = false;
	return isnull ? NULL : read_step(taken, more);
}

/*
 * What dtx_internal.saga_take() has returned.
 */
static Step *
read_step(Datum taken, bool *more)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(taken);
	HeapTupleData tuple;
	TupleDesc	desc;
	MemoryContext cxt;
	MemoryContext old;
	Step	   *step;
	Datum	   *values;
	bool	   *nulls;
	int			nservers = 0;
	int			nmin_rows = 0;
	Datum	   *servers = NULL;
	Datum	   *commands = NULL;
	Datum	   *min_rows = NULL;
	bool	   *no_server = NULL;
	bool	   *no_command = NULL;
	bool	   *no_min_rows = NULL;
	bool		found = false;

	cxt = AllocSetContextCreate(steps_cxt, "pg_dtx saga step",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	step = palloc0(sizeof(Step));
	step->cxt = cxt;

	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
								  HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(&tuple, desc, values, nulls);

	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);

		if (nulls[i])
			continue;
		if (strcmp(name, "saga") == 0)
		{
			step->saga = DatumGetInt64(values[i]);
			found = true;
		}
		else if (strcmp(name, "step") == 0)
			step->step = DatumGetInt16(values[i]);
		else if (strcmp(name, "attempt") == 0)
			step->attempt = DatumGetInt32(values[i]);
		else if (strcmp(name, "direction") == 0)
			step->direction = TextDatumGetCString(values[i]);
		else if (strcmp(name, "servers") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), NAMEOID,
							  NAMEDATALEN, false, TYPALIGN_CHAR, &servers,
							  &no_server, &nservers);
		else if (strcmp(name, "commands") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), TEXTOID, -1,
							  false, TYPALIGN_INT, &commands, &no_command,
							  &step->ncommands);
		else if (strcmp(name, "min_rows") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), INT4OID,
							  sizeof(int32), true, TYPALIGN_INT, &min_rows,
							  &no_min_rows, &nmin_rows);
		else if (strcmp(name, "input") == 0)
		{
			step->input = JsonbPGetDatum(DatumGetJsonbPCopy(values[i]));
			step->has_input = true;
		}
		else if (strcmp(name, "results") == 0)
		{
			step->results = JsonbPGetDatum(DatumGetJsonbPCopy(values[i]));
			step->has_results = true;
		}
		else if (strcmp(name, "timeout") == 0)
		{
			Interval   *interval = DatumGetIntervalP(values[i]);
			double		ms;

			ms = (interval->time +
				  ((double) interval->day + (double) interval->month * DAYS_PER_MONTH) *
				  USECS_PER_DAY) / 1000.0;
			step->timeout = ms <= 1 ? 1 : ms >= PG_INT32_MAX ? 0 : (int) ms;
		}
		else if (strcmp(name, "more") == 0)
			*more = DatumGetBool(values[i]);
	}
	ReleaseTupleDesc(desc);

	if (found)
	{
		int			n = Max(step->ncommands, 1);

		step->servers = palloc0(sizeof(char *) * n);
		step->commands = palloc0(sizeof(char *) * n);
		step->min_rows = palloc0(sizeof(int) * n);
		for (int i = 0; i < step->ncommands; i++)
		{
			if (i < nservers && !no_server[i])
				step->servers[i] = pstrdup(NameStr(*DatumGetName(servers[i])));
			if (!no_command[i])
				step->commands[i] = TextDatumGetCString(commands[i]);
			step->min_rows[i] = i < nmin_rows && !no_min_rows[i] ?
				DatumGetInt32(min_rows[i]) : -1;
		}
	}
	MemoryContextSwitchTo(old);
	if (!found)
	{
		MemoryContextDelete(cxt);
		return NULL;
	}
	return step;
}

static void
free_step(Step *step)
{
	MemoryContextDelete(step->cxt);
}

/*
 * Execute a step and commit it, after begin_execution().  Returns the next one of its
 * saga, taken but not begun, or NULL.  The step is freed.  Throws if it can't even be said that the
 * step has failed.
 */
static Step *
execute_step(Step *step)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData  *volatile edata = NULL;
	Step	   *volatile next = NULL;
	const char *volatile shown = "(nothing to do)";

	for (int i = step->ncommands - 1; i >= 0; i--)
	{
		if (step->commands[i] != NULL)
			shown = step->commands[i];
	}
	step->started_at = GetCurrentTimestamp();

	PG_TRY();
	{
		Datum		result;
		bool		isnull;
		bool		more;

		begin();
		clean_session();
		set_limits(step);
		pgstat_report_activity(STATE_RUNNING, shown);
		debug_query_string = shown;
		run_commands(step, cxt, &result, &isnull);
		check_stopped();
		DTX_FAULT("saga-executed", NULL);
		mark_done(step, result, isnull);
		if (!DtxWorkerMustStop())
			next = take_step(step->saga, false, &more);
		check_stopped();

		/* The attempt at the next step is counted, whatever becomes of it. */
		if (next != NULL)
			ForceSyncCommit();
		DTX_FAULT("saga-done", NULL);
		PopActiveSnapshot();
		CommitTransactionCommand();
		end_execution();
		DTX_FAULT("saga-committed", NULL);
		debug_query_string = NULL;
		pgstat_report_activity(STATE_IDLE, NULL);
		pgstat_report_stat(false);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(step->cxt);
		edata = CopyErrorData();
		FlushErrorState();
		recover_from_error();
		end_execution();
		session_used = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);

	if (edata != NULL)
	{
		/* A step that was taken and has been rolled back with this one. */
		if (next != NULL)
			free_step(next);
		next = NULL;

		/*
		 * If it is not ours any more (ERRCODE_DTX_STEP_LOST), that changes
		 * nothing.  But who knows: the step's own SQL may have said so, or
		 * have done what was rolled back with it.
		 */
		if (stop_reason == STOP_LEAVE)
			give_back(step, "the worker was told to leave",
					  DtxWorkerMustStop() ? -1 : MAX_LEAVES);
		else if (stop_reason == DTX_SAGA_STOP_ROOM)
			give_back(step, "another role needed a worker", -1);
		else
			report_error(step, edata);
	}
	else if (next != NULL && CoordinatorUnconfirmed())
	{
		/* The next step must not begin before the servers have confirmed. */
		give_back(next, NULL, -1);
		free_step(next);
		next = NULL;
	}
	free_step(step);

	if (next != NULL)
		DtxSagaKeepClaim(next->saga, next->step);
	else
		DtxSagaDropClaims();
	return next;
}

/*
 * Run the statements of a step, in the current transaction.  The result is made
 * of the first rows of all of them.
 */
static void
run_commands(Step *step, MemoryContext cxt, Datum *result, bool *isnull)
{
	static const Oid types[] = {JSONBOID, JSONBOID};
	const char *params[2] = {NULL, NULL};
	int			nestlevel = NewGUCNestLevel();

	/* A compensation has no result, so whatever its rows are is all right. */
	bool		compensating = strcmp(step->direction, "compensate") == 0;

	*result = (Datum) 0;
	*isnull = true;
	if (step->has_input)
		params[0] = JsonbToCString(NULL, &DatumGetJsonbP(step->input)->root,
								   VARSIZE(DatumGetPointer(step->input)));
	if (step->has_results)
		params[1] = JsonbToCString(NULL, &DatumGetJsonbP(step->results)->root,
								   VARSIZE(DatumGetPointer(step->results)));

	for (int i = 0; i < step->ncommands; i++)
	{
		int64		rows;
		Datum		row = (Datum) 0;
		bool		norow = true;

		if (step->commands[i] == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (step->servers[i] != NULL)
			rows = DtxRemoteExecute(step->servers[i], step->commands[i],
									lengthof(types), types, params,
									compensating ? NULL : &row, &norow);
		else
			rows = run_local(step->commands[i], step, cxt,
							 compensating ? NULL : &row, &norow);

		if (step->min_rows[i] >= 0 && rows < step->min_rows[i])
			ereport(ERROR,
					(errcode(ERRCODE_NO_DATA_FOUND),
					 errmsg("statement %d affected or returned " INT64_FORMAT " rows, but the step requires at least %d",
							i + 1, rows, step->min_rows[i])));
		if (!norow)
			*result = *isnull ? row :
				DirectFunctionCall2(jsonb_concat, *result, row);
		*isnull &= norow;
	}

	/* Settings of a step are not for what follows. */
	AtEOXact_GUC(false, nestlevel);
}

static void
first_row_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->cxt);

	receiver->desc = BlessTupleDesc(CreateTupleDescCopy(typeinfo));
	MemoryContextSwitchTo(old);
}

static bool
first_row_receive(TupleTableSlot *slot, DestReceiver *self)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;
	Datum		json;
	MemoryContext old;
	HeapTuple	tuple;
	bool		free_tuple;

	if (receiver->found)
		return true;
	old = MemoryContextSwitchTo(receiver->cxt);

	/*
	 * The slot may be one of a scan, as it is: then the names in its descriptor
	 * are those of the table, or none, and not those of the query.
	 */
	tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);
	json = DirectFunctionCall1(row_to_json,
							   heap_copy_tuple_as_datum(tuple, receiver->desc));
	receiver->first = DirectFunctionCall1(jsonb_in,
										  CStringGetDatum(TextDatumGetCString(json)));
	MemoryContextSwitchTo(old);
	receiver->found = true;
	return true;
}

static void
first_row_shutdown(DestReceiver *self)
{
}

static void
first_row_destroy(DestReceiver *self)
{
}

/*
 * Run a statement, or several, in this database.  Returns the number of rows of
 * the last one, and its first row, as DtxRemoteExecute() does: so they are run
 * one by one.  NULL for the row: nobody wants it.
 */
static int64
run_local(const char *command, Step *step, MemoryContext cxt, Datum *row,
		  bool *isnull)
{
	List	   *statements = raw_parser(command, RAW_PARSE_DEFAULT);
	ListCell   *lc;
	ParamListInfo params = makeParamList(2);
	int64		rows = 0;

	session_used = true;
	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the SQL of a step is empty")));
	params->params[0].value = step->input;
	params->params[0].isnull = !step->has_input;
	params->params[1].value = step->results;
	params->params[1].isnull = !step->has_results;
	for (int i = 0; i < 2; i++)
	{
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = JSONBOID;
	}

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	foreach(lc, statements)
	{
		RawStmt    *stmt = lfirst_node(RawStmt, lc);
		const char *begin = command + stmt->stmt_location;
		FirstRowReceiver receiver = {0};
		SPIExecuteOptions options = {0};
		int			code;

		receiver.pub.receiveSlot = first_row_receive;
		receiver.pub.rStartup = first_row_startup;
		receiver.pub.rShutdown = first_row_shutdown;
		receiver.pub.rDestroy = first_row_destroy;
		receiver.pub.mydest = DestNone;
		receiver.cxt = cxt;
		receiver.found = row == NULL;
		options.params = params;
		options.dest = &receiver.pub;

		code = SPI_execute_extended(stmt->stmt_len > 0 ?
									pnstrdup(begin, stmt->stmt_len) : begin,
									&options);
		if (code == SPI_ERROR_TRANSACTION)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
					 errmsg("cannot use transaction control statements in a step of a saga"),
					 errdetail("Each step is a transaction.")));
		if (code == SPI_ERROR_COPY)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot use COPY from or to the client in a step of a saga")));
		if (code < 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("could not execute the statement of a step: %s",
							SPI_result_code_string(code))));
		rows = (int64) SPI_processed;
		if (row != NULL)
		{
			*row = receiver.first;
			*isnull = !receiver.found;
		}
	}
	SPI_finish();
	return rows;
}

/*
 * In the transaction of the step: it is done.
 */
static void
mark_done(Step *step, Datum result, bool isnull)
{
	static const Oid types[] = {INT8OID, INT2OID, INT4OID, TEXTOID, JSONBOID};
	Datum		args[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	bool		nothing;
	int			nestlevel;

	args[0] = Int64GetDatum(step->saga);
	args[1] = Int16GetDatum(step->step);
	args[2] = Int32GetDatum(step->attempt);
	args[3] = CStringGetTextDatum(step->direction);
	args[4] = result;
	nulls[4] = isnull;

	/* It has to see what the statements have done, and others meanwhile. */
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());

	/*
	 * Somebody may hold the saga's row, and wait on a server for what this
	 * step has locked there: nobody sees such a deadlock.  The step is tried
	 * again then.
	 */
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("lock_timeout", SAGA_LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) DtxSagaCall("saga_done", lengthof(types), types, args, nulls,
					   &nothing);
	AtEOXact_GUC(true, nestlevel);
}

/*
 * A step that was taken is not going to be executed now, or was stopped for no fault
 * of its own and is rolled back: it was no attempt.  "why" is for the history; NULL:
 * it was not begun.  "most": that often for that reason, then it counts, as one that
 * was lost; -1: no bound.  If this throws, it counts, too.
 *
 * That has to be said by a worker that was asked to die, too: it was asked while
 * it committed the step before, perhaps.  Then it does not die before this is
 * done; but it does not wait for long either, neither for a lock nor for disks
 * and standbys.
 */
static void
give_back(Step *step, const char *why, int most)
{
	static const Oid types[] = {
		INT8OID, INT2OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID
	};
	bool		must_die = ProcDiePending;

	PG_TRY();
	{
		Datum		args[lengthof(types)];
		bool		nulls[lengthof(types)] = {0};
		bool		nothing;

		ProcDiePending = false; /* asked once more, it dies at once */
		begin();
		if (must_die)
		{
			(void) set_config_option("lock_timeout", GIVE_BACK_LOCK_TIMEOUT,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
			(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
									 false);
		}
		args[0] = Int64GetDatum(step->saga);
		args[1] = Int16GetDatum(step->step);
		args[2] = Int32GetDatum(step->attempt);
		args[3] = CStringGetTextDatum(step->direction);
		args[4] = why ? CStringGetTextDatum(why) : (Datum) 0;
		nulls[4] = why == NULL;
		args[5] = TimestampTzGetDatum(step->started_at);
		nulls[5] = why == NULL;
		args[6] = Int32GetDatum(most);
		nulls[6] = most < 0;

		/* Unless the extension was dropped meanwhile. */
		if (DtxSagaInstalled())
			(void) DtxSagaCall("saga_untake", lengthof(types), types, args,
							   nulls, &nothing);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_FINALLY();
	{
		if (must_die)
		{
			ProcDiePending = true;
			InterruptPending = true;
		}
	}
	PG_END_TRY();
}

/*
 * A step has failed, and its transaction has been rolled back.
 */
static void
report_error(Step *step, ErrorData *edata)
{
	static const Oid types[] = {
		INT8OID, INT2OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
		TIMESTAMPTZOID
	};
	const char *volatile message = edata->message;

	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		switch (stop_reason)
		{
			case STOP_TIMEOUT:
				message = "canceling saga step due to its timeout";
				break;
			case STOP_LIMIT:
				message = "canceling saga step due to \"pg_dtx.saga_step_timeout\"";
				break;
			case DTX_SAGA_STOP_ENDED:
				message = "canceling saga step because its saga was canceled";
				break;
			default:
				break;
		}
	}

	for (volatile int try = 1;; try++)
	{
		volatile bool done = false;

		PG_TRY();
		{
			Datum		args[lengthof(types)];
			bool		nulls[lengthof(types)] = {0};
			bool		nothing;

			begin();
			args[0] = Int64GetDatum(step->saga);
			args[1] = Int16GetDatum(step->step);
			args[2] = Int32GetDatum(step->attempt);
			args[3] = CStringGetTextDatum(step->direction);
			args[4] = CStringGetTextDatum(unpack_sql_state(edata->sqlerrcode));
			args[5] = CStringGetTextDatum(message ? message : "");
			args[6] = edata->detail ? CStringGetTextDatum(edata->detail) : (Datum) 0;
			nulls[6] = edata->detail == NULL;
			args[7] = edata->hint ? CStringGetTextDatum(edata->hint) : (Datum) 0;
			nulls[7] = edata->hint == NULL;
			args[8] = TimestampTzGetDatum(step->started_at);

			/* Unless the extension was dropped meanwhile. */
			if (DtxSagaInstalled())
				(void) DtxSagaCall("saga_error", lengthof(types), types, args,
								   nulls, &nothing);
			DTX_FAULT("saga-error", NULL);
			PopActiveSnapshot();
			CommitTransactionCommand();
			done = true;
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(step->cxt);
			error = CopyErrorData();
			if (error->sqlerrcode == ERRCODE_DTX_STEP_LOST)
				done = true;
			else if (try >= REPORT_TRIES)
				PG_RE_THROW();
			else
				EmitErrorReport();
			FlushErrorState();
			recover_from_error();
		}
		PG_END_TRY();

		if (done)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH,
								 DtxBackoffPause(try, MIN_ERROR_PAUSE, MAX_ERROR_PAUSE),
								 we_worker);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
