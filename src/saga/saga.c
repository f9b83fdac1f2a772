/*-------------------------------------------------------------------------
 *
 * saga.c
 *		Sagas: who calls, who works on which step, and who is to be woken.
 *
 * What a saga is, and what is to become of it, is known by tables and functions
 * in PL/pgSQL (the extension's script).  Here is what these can't do.
 *
 * The caller.  A function that runs with the rights of its owner does not know
 * any more who has called it: current_user is the owner, and session_user not
 * the role that was SET.  So every public function is one in C, all with the
 * same symbol (dtx_sql_saga_call), that notes the caller and calls the internal
 * function of the same name in schema dtx_internal, as that function's
 * owner.  dtx_internal.saga_caller() returns what was noted.
 *
 * Claims.  A worker that is going to execute a step claims it in shared memory,
 * with the step's row locked.  A claim goes with its process, after that has
 * aborted its transaction.  So a step whose row says that it is being executed,
 * and which nobody claims, was given up by a worker that has died; and a step
 * that is claimed is in good hands, however long it takes.
 *
 * Stopping.  Who wants an execution of a step to be stopped notes that at the
 * claim, which says exactly which execution it is: saga, step, attempt, and
 * direction.  The worker looks at its own claim while it executes, and cancels
 * itself (saga_worker.c).  So nobody sends signals, and what is stopped is what
 * was meant, whatever the worker does by then.  dtx.cancel_saga() and the like do
 * so when their transaction has committed.
 *
 * Wake-ups are given when the transaction that asked for them has committed, on
 * all servers: in a resource-release callback, which runs after the one of
 * coordinator.c that waits for the second phase (callbacks run newest first,
 * and ours is registered when the server starts).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/async.h"
#include "commands/extension.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "saga/saga.h"
#include "state/activity.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/tables.h"
#include "storage/condition_variable.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/wake.h"

/* Those who wait for sagas are divided by the saga's number. */
#define WAIT_PARTITIONS 64

/* Longest sleep of somebody who waits for a saga, milliseconds. */
#define MAX_WAIT_SLEEP	10000

/* ... where nobody wakes him: on a standby. */
#define STANDBY_WAIT_SLEEP	1000

/* Queues that a transaction can announce something in; the rest is not said. */
#define MAX_ANNOUNCED	16

/* Internal functions whose being the extension's own is remembered. */
#define MAX_VERIFIED	32

/*
 * A worker works on a step.  Guarded by SagaShared.lock.  While it is in use, the
 * element stays where it is: its worker reads "stop" without the lock, in a
 * signal handler.
 */
typedef struct SagaClaim
{
	bool		used;
	bool		provisional;	/* goes if the transaction aborts */
	bool		running;		/* is being executed since begun_at? */
	int			procno;			/* PGPROC number of the worker */
	Oid			dbid;			/* database */
	DtxSagaExecution execution;
	volatile sig_atomic_t stop; /* a DtxSagaStop: is it to be stopped? */
	TransactionId stop_with;	/* a prepared transaction that stops it if it is
								 * committed, or InvalidTransactionId */
} SagaClaim;

/* A request to stop an execution, when the transaction commits. */
typedef struct StopRequest
{
	SubTransactionId subid;		/* that has asked */
	int64		saga;
	int16		step;
	int32		attempt;
	bool		compensation;
	struct StopRequest *next;
} StopRequest;

typedef struct SagaShared
{
	ConditionVariable finished[WAIT_PARTITIONS];	/* sagas that have ended */
	LWLock		lock;			/* guards what follows */
	int			nclaims;		/* elements of claims[] from here on are free */
	int			maxclaims;		/* constant: size of claims[] */
	SagaClaim	claims[FLEXIBLE_ARRAY_MEMBER];
} SagaShared;

/* The callers of the trampolines that are active, innermost first. */
typedef struct SagaCall
{
	Oid			caller;			/* role that called the public function */
	struct SagaCall *previous;
} SagaCall;

/* What a trampoline remembers between two calls: fn_extra. */
typedef struct SagaTarget
{
	Oid			owner;			/* whose rights the internal function has */
	bool		old_snapshot_ok;	/* may its transaction have an old snapshot? */
	FmgrInfo	finfo;			/* the internal function */
} SagaTarget;

static SagaShared *shared = NULL;

/* This backend: who has called. */
static SagaCall *calls = NULL;

/* This backend: for the end of the transaction. */
static bool wake_asked = false; /* wake the scheduler of the database? */
static uint64 finished_asked = 0;	/* partitions of sagas that end, a bit each */
static bool claims_made = false;	/* are there provisional claims of ours? */
static bool committed = false;	/* is the transaction past its local commit? */
static StopRequest *stop_requests = NULL;	/* in TopTransactionContext */

/* This worker of sagas: channels to notify when the transaction has committed. */
static char announced[MAX_ANNOUNCED][NAMEDATALEN];
static int	nannounced = 0;

/* This worker: the claim of the step that it executes, or NULL. */
static SagaClaim *volatile my_claim = NULL;

/* Is this process a worker that executes steps? */
static bool saga_worker = false;

/* Wait event, see DtxWaitEvent(). */
static uint32 we_wait_saga = 0;

PG_FUNCTION_INFO_V1(dtx_sql_saga_call);
PG_FUNCTION_INFO_V1(dtx_sql_saga_caller);
PG_FUNCTION_INFO_V1(dtx_sql_saga_claim);
PG_FUNCTION_INFO_V1(dtx_sql_saga_claimed);
PG_FUNCTION_INFO_V1(dtx_sql_saga_stop);
PG_FUNCTION_INFO_V1(dtx_sql_saga_role_in);
PG_FUNCTION_INFO_V1(dtx_sql_saga_role_out);
PG_FUNCTION_INFO_V1(dtx_sql_saga_role_recv);
PG_FUNCTION_INFO_V1(dtx_sql_saga_role_send);
PG_FUNCTION_INFO_V1(dtx_sql_saga_own_xid);
PG_FUNCTION_INFO_V1(dtx_sql_saga_lane_open);
PG_FUNCTION_INFO_V1(dtx_sql_saga_confirmed);
PG_FUNCTION_INFO_V1(dtx_sql_boot_id);
PG_FUNCTION_INFO_V1(dtx_sql_saga_database);
PG_FUNCTION_INFO_V1(dtx_sql_wake_sagas);
PG_FUNCTION_INFO_V1(dtx_sql_saga_active_database);
PG_FUNCTION_INFO_V1(dtx_sql_saga_announce);
PG_FUNCTION_INFO_V1(dtx_sql_saga_finished);
PG_FUNCTION_INFO_V1(dtx_sql_wait_saga);

static void saga_xact_callback(XactEvent event, void *arg);
static void saga_subxact_callback(SubXactEvent event, SubTransactionId mySubid,
								  SubTransactionId parentSubid, void *arg);
static void saga_resource_callback(ResourceReleasePhase release_phase,
								   bool isCommit, bool isTopLevel, void *arg);
static void give_wakeups(void);
static Oid	internal_function(const char *name, oidvector *types, Oid *owner);
static SagaTarget *call_target(FmgrInfo *flinfo);
static bool old_snapshot_ok(const char *name);
static Datum call_as(Oid userid, FmgrInfo *finfo, int nargs,
					 const NullableDatum *args, Oid collation,
					 struct Node *resultinfo, bool *isnull);
static bool lane_open(Oid lane, Oid role);
static void stop_executions(TransactionId prepared);
static void drop_claims(bool provisional_only, int64 saga, int16 step,
						bool keep);
static void drop_claims_at_exit(int code, Datum arg);

/* ----------------------------------------------------------------
 * Shared memory and hooks, in the postmaster
 * ----------------------------------------------------------------
 */

/*
 * Room for claims: two per worker do, one for the step that is being executed
 * and one for the next; some more for what a transaction claims and drops.
 */
static int
max_claims(void)
{
	return 4 * max_worker_processes + 64;
}

/*
 * Bytes of shared memory that this module needs.  max_worker_processes must be
 * known.
 */
Size
DtxSagaShmemSize(void)
{
	return add_size(offsetof(SagaShared, claims),
					mul_size(max_claims(), sizeof(SagaClaim)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxSagaShmemInit(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_dtx sagas", DtxSagaShmemSize(), &found);
	if (!found)
	{
		memset(shared, 0, DtxSagaShmemSize());
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxSaga"));
		for (int i = 0; i < WAIT_PARTITIONS; i++)
			ConditionVariableInit(&shared->finished[i]);
		shared->maxclaims = max_claims();
	}
}

/*
 * Install the callbacks.  From _PG_init() in the postmaster only; backends
 * inherit them.
 */
void
DtxSagaInstallHooks(void)
{
	RegisterXactCallback(saga_xact_callback, NULL);
	RegisterSubXactCallback(saga_subxact_callback, NULL);
	RegisterResourceReleaseCallback(saga_resource_callback, NULL);
}

/* ----------------------------------------------------------------
 * The end of a transaction: nothing here may throw
 * ----------------------------------------------------------------
 */

static void
saga_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			claims_made = false;
			committed = wake_asked || finished_asked != 0 ||
				stop_requests != NULL;
			break;
		case XACT_EVENT_ABORT:
			if (claims_made)
			{
				claims_made = false;
				drop_claims(true, 0, 0, false);
			}
			wake_asked = false;
			finished_asked = 0;
			stop_requests = NULL;
			nannounced = 0;
			committed = false;
			break;
		case XACT_EVENT_PREPARE:

			/*
			 * Whoever commits it doesn't know what is in it.  Those who wait
			 * for a saga look from time to time.
			 */
			if (wake_asked || stop_requests != NULL)
				DtxLauncherSagasPrepared();
			if (stop_requests != NULL)
				stop_executions(GetTopTransactionIdIfAny());
			wake_asked = false;
			finished_asked = 0;
			stop_requests = NULL;
			break;
		default:
			break;
	}
}

/*
 * What a subtransaction has asked for goes with it, or is its parent's.
 */
static void
saga_subxact_callback(SubXactEvent event, SubTransactionId mySubid,
					  SubTransactionId parentSubid, void *arg)
{
	StopRequest **link = &stop_requests;

	if (event != SUBXACT_EVENT_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	while (*link != NULL)
	{
		StopRequest *request = *link;

		if (request->subid == mySubid && event == SUBXACT_EVENT_ABORT_SUB)
		{
			*link = request->next;
			continue;
		}
		if (request->subid == mySubid)
			request->subid = parentSubid;
		link = &request->next;
	}
}

static void
saga_resource_callback(ResourceReleasePhase release_phase, bool isCommit,
					   bool isTopLevel, void *arg)
{
	if (committed && isTopLevel &&
		release_phase == RESOURCE_RELEASE_AFTER_LOCKS)
	{
		committed = false;
		give_wakeups();
	}
}

static void
give_wakeups(void)
{
	if (stop_requests != NULL)
		stop_executions(InvalidTransactionId);
	if (wake_asked)
	{
		wake_asked = false;
		DtxLauncherWakeSagas(MyDatabaseId);
	}
	if (finished_asked != 0)
	{
		for (int i = 0; i < WAIT_PARTITIONS; i++)
		{
			if (finished_asked & (UINT64CONST(1) << i))
				ConditionVariableBroadcast(&shared->finished[i]);
		}
		finished_asked = 0;
	}
}

/* ----------------------------------------------------------------
 * Calling the extension's own functions
 * ----------------------------------------------------------------
 */

/*
 * An internal function of the extension, and its owner.  Throws if there is
 * none.
 */
static Oid
internal_function(const char *name, oidvector *types, Oid *owner)
{
	static Oid	verified[MAX_VERIFIED];
	static int	nverified = 0;
	Oid			nspid = get_namespace_oid(DTX_INTERNAL_SCHEMA, false);
	HeapTuple	tuple;
	Oid			funcid = InvalidOid;
	bool		known = false;

	tuple = SearchSysCache3(PROCNAMEARGSNSP, CStringGetDatum(name),
							PointerGetDatum(types), ObjectIdGetDatum(nspid));
	if (HeapTupleIsValid(tuple))
	{
		funcid = ((Form_pg_proc) GETSTRUCT(tuple))->oid;
		*owner = ((Form_pg_proc) GETSTRUCT(tuple))->proowner;
		ReleaseSysCache(tuple);
	}

	/* One of this name that somebody else made does not count. */
	for (int i = 0; i < nverified && !known; i++)
		known = verified[i] == funcid;
	if (OidIsValid(funcid) && !known)
	{
		Oid			extid = getExtensionOfObject(ProcedureRelationId, funcid);

		if (OidIsValid(extid) && extid == get_extension_oid("pg_dtx", true))
			verified[nverified < MAX_VERIFIED ? nverified++ : 0] = funcid;
		else
			funcid = InvalidOid;
	}
	if (!OidIsValid(funcid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FUNCTION),
				 errmsg("extension \"%s\" has no function \"%s\" with these arguments",
						"pg_dtx", name),
				 errhint("Use ALTER EXTENSION ... UPDATE to bring the extension up to date.")));
	return funcid;
}

/*
 * Call a function with the rights of a role.
 */
static Datum
call_as(Oid userid, FmgrInfo *finfo, int nargs, const NullableDatum *args,
		Oid collation, struct Node *resultinfo, bool *isnull)
{
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	Oid			save_userid;
	int			save_sec_context;
	Datum		result;

	InitFunctionCallInfoData(*fcinfo, finfo, nargs, collation, NULL,
							 resultinfo);
	memcpy(fcinfo->args, args, sizeof(NullableDatum) * nargs);

	/*
	 * Should it throw, the abort of the transaction or of the subtransaction
	 * puts back the user.
	 */
	GetUserIdAndSecContext(&save_userid, &save_sec_context);
	SetUserIdAndSecContext(userid,
						   save_sec_context | SECURITY_LOCAL_USERID_CHANGE);
	result = FunctionCallInvoke(fcinfo);
	SetUserIdAndSecContext(save_userid, save_sec_context);
	*isnull = fcinfo->isnull;
	return result;
}

/*
 * The internal function that belongs to a public one; remembered as long as the
 * caller remembers that.
 */
static SagaTarget *
call_target(FmgrInfo *flinfo)
{
	SagaTarget *target = (SagaTarget *) flinfo->fn_extra;
	HeapTuple	tuple;
	Form_pg_proc proc;
	char		name[NAMEDATALEN];
	Oid			funcid;
	Oid			owner;

	if (target != NULL)
		return target;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(flinfo->fn_oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for function %u", flinfo->fn_oid);
	proc = (Form_pg_proc) GETSTRUCT(tuple);
	strlcpy(name, NameStr(proc->proname), sizeof(name));
	funcid = internal_function(name, &proc->proargtypes, &owner);
	ReleaseSysCache(tuple);

	target = MemoryContextAllocZero(flinfo->fn_mcxt, sizeof(SagaTarget));
	target->owner = owner;
	target->old_snapshot_ok = old_snapshot_ok(name);
	fmgr_info_cxt(funcid, &target->finfo, flinfo->fn_mcxt);
	if (target->finfo.fn_strict)
		elog(ERROR, "internal function \"%s\" must not be strict", name);
	flinfo->fn_extra = target;
	return target;
}

/*
 * May a function be called in a transaction that keeps its snapshot?
 *
 * What becomes of a saga is decided by what its steps are, with its row locked.
 * That lock is no update, so nobody learns in REPEATABLE READ that another
 * transaction had it meanwhile, and has changed steps that this one sees as they
 * were.  Two steps that end at the same time would each find that the other one
 * is still running, and what comes after both would never begin; a pivot that is
 * done would look as if it were not.  Making a saga, and forgetting one that has
 * come to its end, decides nothing of that kind, and unique keys do the rest.
 */
static bool
old_snapshot_ok(const char *name)
{
	return strcmp(name, "define_saga") == 0 ||
		strcmp(name, "start_saga") == 0 ||
		strcmp(name, "take_saga_events") == 0 ||
		strcmp(name, "purge_sagas") == 0;
}

/*
 * The trampoline: every public function of sagas.
 */
Datum
dtx_sql_saga_call(PG_FUNCTION_ARGS)
{
	SagaTarget *volatile target = call_target(fcinfo->flinfo);
	SagaCall	call;
	Datum		result;

	if (IsolationUsesXactSnapshot() && !target->old_snapshot_ok)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot change a saga in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("The transaction would not see what others have done with the saga since it began."),
				 errhint("Use READ COMMITTED.")));
	call.caller = GetUserId();
	call.previous = calls;
	calls = &call;
	PG_TRY();
	{
		result = call_as(target->owner, &target->finfo, PG_NARGS(),
						 fcinfo->args, fcinfo->fncollation,
						 fcinfo->resultinfo, &fcinfo->isnull);
	}
	PG_FINALLY();
	{
		calls = call.previous;
	}
	PG_END_TRY();
	return result;
}

/*
 * dtx_internal.saga_caller(): the role that called the public function.
 */
Datum
dtx_sql_saga_caller(PG_FUNCTION_ARGS)
{
	if (calls == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("internal functions of pg_dtx must not be called directly"),
				 errhint("Call the function of the same name in schema \"dtx\".")));
	PG_RETURN_OID(calls->caller);
}

Datum
DtxSagaCall(const char *name, int nargs, const Oid *types, const Datum *args,
			const bool *argnulls, bool *isnull)
{
	NullableDatum values[FUNC_MAX_ARGS];
	FmgrInfo	finfo;
	Oid			owner;

	for (int i = 0; i < nargs; i++)
	{
		values[i].value = args[i];
		values[i].isnull = argnulls != NULL && argnulls[i];
	}
	fmgr_info(internal_function(name, buildoidvector(types, nargs), &owner),
			  &finfo);
	return call_as(owner, &finfo, nargs, values, InvalidOid, NULL, isnull);
}

bool
DtxSagaInstalled(void)
{
	static Oid	verified = InvalidOid;

	return OidIsValid(DtxExtensionTable("saga_step_record", &verified));
}

Oid
DtxSagaTable(void)
{
	static Oid	verified = InvalidOid;

	return DtxExtensionTable("saga_record", &verified);
}

/*
 * Is there a saga of this database that is neither completed nor compensated?
 * (Those that were copied with the database go on in the original.)  The table is
 * read as it is, because its indexes and the functions may have been dropped
 * already.  To be called in a transaction that has locked the table.
 */
bool
DtxSagaUnfinished(void)
{
	Relation	rel = table_open(DtxSagaTable(), NoLock);
	AttrNumber	finished_at = get_attnum(RelationGetRelid(rel), "finished_at");
	AttrNumber	database = get_attnum(RelationGetRelid(rel), "database");
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = DtxTableBeginScan(rel, snapshot);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found = slot_attisnull(slot, finished_at) &&
			DatumGetObjectId(slot_getattr(slot, database, &isnull)) == MyDatabaseId;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/*
 * To be called once in the life of a resolver, in a transaction: what was
 * scheduled before the server was restarted.
 */
void
DtxSagaProbe(void)
{
	bool		isnull;
	bool		any;
	bool		installed;

	PushActiveSnapshot(GetTransactionSnapshot());
	installed = DtxSagaInstalled();
	any = installed &&
		DatumGetBool(DtxSagaCall("saga_any", 0, NULL, NULL, NULL, &isnull)) &&
		!isnull;
	PopActiveSnapshot();
	if (any)
		DtxLauncherWakeSagas(MyDatabaseId);
}

/* ----------------------------------------------------------------
 * Type dtx_internal.saga_role: a role in a table, which goes in and out as its name
 * ----------------------------------------------------------------
 */

/* What stands for a role that does not exist. */
#define NO_ROLE	"-"

/*
 * The role of that name, quoted or not, or InvalidOid.
 */
static Oid
role_of_name(const char *name)
{
	char	   *unquoted = palloc(strlen(name) + 1);
	char	   *to = unquoted;
	Oid			role;

	if (strcmp(name, NO_ROLE) == 0)
		return InvalidOid;
	if (name[0] == '"')
	{
		for (const char *from = name + 1; *from != '\0'; from++)
		{
			if (*from == '"' && *++from != '"')
				break;
			*to++ = *from;
		}
		*to = '\0';
	}
	else
		strcpy(unquoted, name);

	role = strlen(unquoted) < NAMEDATALEN ? get_role_oid(unquoted, true) : InvalidOid;
	if (!OidIsValid(role))
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", unquoted),
				 errdetail("What was its in the tables of sagas belongs to nobody.")));
	pfree(unquoted);
	return role;
}

/*
 * The name of a role, quoted if necessary.
 */
static const char *
name_of_role(Oid role)
{
	char	   *name = OidIsValid(role) ? GetUserNameFromId(role, true) : NULL;

	return name == NULL ? NO_ROLE : quote_identifier(name);
}

Datum
dtx_sql_saga_role_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(role_of_name(PG_GETARG_CSTRING(0)));
}

Datum
dtx_sql_saga_role_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(pstrdup(name_of_role(PG_GETARG_OID(0))));
}

Datum
dtx_sql_saga_role_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			nbytes;

	PG_RETURN_OID(role_of_name(pq_getmsgtext(buf, buf->len - buf->cursor, &nbytes)));
}

Datum
dtx_sql_saga_role_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	const char *name = name_of_role(PG_GETARG_OID(0));

	pq_begintypsend(&buf);
	pq_sendtext(&buf, name, strlen(name));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/* ----------------------------------------------------------------
 * Claims
 * ----------------------------------------------------------------
 */

/*
 * dtx_internal.saga_claim(saga, step, attempt, compensation, lane, role): this worker is
 * going to execute that step.  The caller has the row of the step locked.  False
 * if another one executes it, or if the role has its share of workers on the lane.
 */
Datum
dtx_sql_saga_claim(PG_FUNCTION_ARGS)
{
	static bool registered = false;
	int64		saga = PG_GETARG_INT64(0);
	int16		step = PG_GETARG_INT16(1);
	int32		attempt = PG_GETARG_INT32(2);
	bool		compensation = PG_GETARG_BOOL(3);
	Oid			lane = PG_GETARG_OID(4);
	Oid			role = PG_GETARG_OID(5);
	int			procno = DtxMyProcNumber();
	SagaClaim  *mine = NULL;
	SagaClaim  *unused = NULL;
	bool		ok = true;

	if (!registered)
	{
		on_shmem_exit(drop_claims_at_exit, (Datum) 0);
		registered = true;
	}

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (!claim->used)
			unused = claim;
		else if (claim->dbid == MyDatabaseId &&
				 claim->execution.saga == saga && claim->execution.step == step)
		{
			if (claim->procno == procno)
				mine = claim;
			else
				ok = false;
		}
	}
	if (ok && mine == NULL)
	{
		if (unused == NULL && shared->nclaims < shared->maxclaims)
			unused = &shared->claims[shared->nclaims++];
		if (unused == NULL || !lane_open(lane, role))
			ok = false;
		else
		{
			mine = unused;
			memset(mine, 0, sizeof(*mine));
			mine->used = true;
			mine->dbid = MyDatabaseId;
			mine->provisional = true;
			mine->procno = procno;
			claims_made = true;
		}
	}
	if (ok)
	{
		mine->execution.pid = MyProcPid;
		mine->execution.role = role;
		mine->execution.lane = lane;
		mine->execution.saga = saga;
		mine->execution.step = step;
		mine->execution.attempt = attempt;
		mine->execution.compensation = compensation;
		mine->stop = DTX_SAGA_GO_ON;
		mine->stop_with = InvalidTransactionId;
	}
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(ok);
}

/*
 * May this worker execute a step of that role on that lane?  What other workers
 * execute for the role counts.  Of the workers that a role may have (one less than
 * there are: that one is kept for roles without any) one is left for other lanes,
 * so that a server that is slow does not hold up the others.  The caller holds the
 * lock.
 */
static bool
lane_open(Oid lane, Oid role)
{
	int			procno = DtxMyProcNumber();
	int			n = 0;

	for (int i = 0; i < shared->nclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];
		bool		counted = false;

		if (!claim->used || claim->dbid != MyDatabaseId ||
			claim->execution.lane != lane || claim->execution.role != role ||
			claim->procno == procno)
			continue;

		/* One that commits has claimed its next step as well. */
		for (int j = 0; j < i && !counted; j++)
		{
			SagaClaim  *other = &shared->claims[j];

			counted = other->used && other->procno == claim->procno &&
				other->dbid == MyDatabaseId &&
				other->execution.lane == lane && other->execution.role == role;
		}
		if (!counted)
			n++;
	}
	return n < Max(1, dtx_saga_workers - 2);
}

/*
 * dtx_internal.saga_lane_open(lane, role)
 */
Datum
dtx_sql_saga_lane_open(PG_FUNCTION_ARGS)
{
	bool		open;

	LWLockAcquire(&shared->lock, LW_SHARED);
	open = lane_open(PG_GETARG_OID(0), PG_GETARG_OID(1));
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(open);
}

/*
 * dtx_internal.saga_claimed(saga, step): does a live worker execute it?
 */
Datum
dtx_sql_saga_claimed(PG_FUNCTION_ARGS)
{
	int64		saga = PG_GETARG_INT64(0);
	int16		step = PG_GETARG_INT16(1);
	bool		claimed = false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims && !claimed; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		claimed = claim->used && claim->dbid == MyDatabaseId &&
			claim->execution.saga == saga && claim->execution.step == step;
	}
	LWLockRelease(&shared->lock);
	PG_RETURN_BOOL(claimed);
}

/* ----------------------------------------------------------------
 * Stopping what is executed
 * ----------------------------------------------------------------
 */

/*
 * dtx_internal.saga_stop(saga, step, attempt, compensation): if this transaction commits,
 * who executes that is to stop.
 */
Datum
dtx_sql_saga_stop(PG_FUNCTION_ARGS)
{
	StopRequest *request;

	request = MemoryContextAllocZero(TopTransactionContext, sizeof(StopRequest));
	request->subid = GetCurrentSubTransactionId();
	request->saga = PG_GETARG_INT64(0);
	request->step = PG_GETARG_INT16(1);
	request->attempt = PG_GETARG_INT32(2);
	request->compensation = PG_GETARG_BOOL(3);
	request->next = stop_requests;
	stop_requests = request;
	PG_RETURN_VOID();
}

/*
 * The transaction has committed, or has become that prepared one: note its requests at
 * the claims that they mean, if these are still there.  Nobody else can ask for the same
 * meanwhile, because a prepared transaction keeps the saga locked.  Never throws.
 */
static void
stop_executions(TransactionId prepared)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (StopRequest *request = stop_requests; request != NULL; request = request->next)
	{
		for (int i = 0; i < shared->nclaims; i++)
		{
			SagaClaim  *claim = &shared->claims[i];

			if (claim->used && claim->dbid == MyDatabaseId &&
				claim->execution.saga == request->saga &&
				claim->execution.step == request->step &&
				claim->execution.attempt == request->attempt &&
				claim->execution.compensation == request->compensation)
			{
				if (TransactionIdIsValid(prepared))
					claim->stop_with = prepared;
				else
					claim->stop = DTX_SAGA_STOP_ENDED;
			}
		}
	}
	LWLockRelease(&shared->lock);
	stop_requests = NULL;
}

/*
 * By the scheduler, which COMMIT PREPARED wakes: stop what prepared transactions have
 * asked to stop that are committed now.
 */
void
DtxSagaStopPrepared(void)
{
	bool		any = false;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims; i++)
		any |= shared->claims[i].used &&
			TransactionIdIsValid(shared->claims[i].stop_with) &&
			shared->claims[i].dbid == MyDatabaseId;
	LWLockRelease(&shared->lock);

	/* In this order: access/heap/heapam_visibility.c, file header. */
	for (int i = 0; any && i < shared->maxclaims; i++)
	{
		SagaClaim  *claim = &shared->claims[i];
		TransactionId xid;
		bool		did_commit;

		LWLockAcquire(&shared->lock, LW_SHARED);
		xid = claim->used && claim->dbid == MyDatabaseId ? claim->stop_with :
			InvalidTransactionId;
		LWLockRelease(&shared->lock);
		if (!TransactionIdIsValid(xid) || TransactionIdIsInProgress(xid))
			continue;
		did_commit = TransactionIdDidCommit(xid);
		LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
		if (claim->used && claim->stop_with == xid)
		{
			claim->stop_with = InvalidTransactionId;
			if (did_commit)
				claim->stop = DTX_SAGA_STOP_ENDED;
		}
		LWLockRelease(&shared->lock);
	}
}

/*
 * What the workers of this database execute, for their scheduler: up to "max"
 * elements.  Returns their number.
 */
int
DtxSagaExecutions(DtxSagaExecution *executions, int max)
{
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	for (int i = 0; i < shared->nclaims && n < max; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (claim->used && claim->running && claim->dbid == MyDatabaseId)
		{
			executions[n] = claim->execution;
			executions[n++].stopping = claim->stop != DTX_SAGA_GO_ON;
		}
	}
	LWLockRelease(&shared->lock);
	return n;
}

/*
 * By the scheduler: have an execution stopped so that another role gets a worker.
 * Returns false if there is no such execution any more.
 */
bool
DtxSagaMakeRoom(const DtxSagaExecution *execution)
{
	bool		found = false;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->nclaims && !found; i++)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (!claim->used || !claim->running || claim->dbid != MyDatabaseId ||
			claim->execution.pid != execution->pid ||
			claim->execution.saga != execution->saga ||
			claim->execution.step != execution->step ||
			claim->execution.attempt != execution->attempt ||
			claim->execution.compensation != execution->compensation)
			continue;
		found = true;
		if (claim->stop == DTX_SAGA_GO_ON)
			claim->stop = DTX_SAGA_STOP_ROOM;
	}
	LWLockRelease(&shared->lock);
	return found;
}

/*
 * By a worker, of the step that it executes (DtxSagaKeepClaim): is it to be
 * stopped?  May be called in a signal handler.
 */
DtxSagaStop
DtxSagaStopAsked(void)
{
	SagaClaim  *claim = my_claim;

	return claim == NULL ? DTX_SAGA_GO_ON : (DtxSagaStop) claim->stop;
}

/*
 * dtx_internal.saga_own_xid(xid): is it that of the current transaction, or of one of its
 * subtransactions that has not been rolled back?
 */
Datum
dtx_sql_saga_own_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TransactionIdIsCurrentTransactionId(DatumGetTransactionId(PG_GETARG_DATUM(0))));
}

/*
 * Drop claims of this process: those made in the current transaction, or all of
 * them; if "keep" is set, not the one of that step, which is there to stay.
 */
static void
drop_claims(bool provisional_only, int64 saga, int16 step, bool keep)
{
	int			procno = DtxMyProcNumber();

	if (!provisional_only)
		my_claim = NULL;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = shared->nclaims - 1; i >= 0; i--)
	{
		SagaClaim  *claim = &shared->claims[i];

		if (claim->used && claim->procno == procno &&
			(!provisional_only || claim->provisional))
		{
			if (keep && claim->execution.saga == saga &&
				claim->execution.step == step)
			{
				claim->provisional = false;
				claim->running = true;
				claim->execution.begun_at = DtxNow();
				my_claim = claim;
			}
			else
				claim->used = false;
		}
		if (!claim->used && i == shared->nclaims - 1)
			shared->nclaims--;
	}
	LWLockRelease(&shared->lock);
}

static void
drop_claims_at_exit(int code, Datum arg)
{
	drop_claims(false, 0, 0, false);
}

/*
 * This worker has committed: the one step that it executes from now on.
 */
void
DtxSagaKeepClaim(int64 saga, int16 step)
{
	drop_claims(false, saga, step, true);
}

/*
 * ... it executes none.
 */
void
DtxSagaDropClaims(void)
{
	drop_claims(false, 0, 0, false);
}

/* ----------------------------------------------------------------
 * Confirmations
 * ----------------------------------------------------------------
 */

/*
 * For a transaction that is known to have committed, or the current one.
 *
 * Its decision row is there until all servers have confirmed.  Then it stays
 * for a while, to be overwritten by the next transaction of its backend, which
 * only shared memory knows.  To be called in a transaction.
 */
bool
DtxSagaConfirmed(uint64 boot_id, uint64 xid)
{
	Snapshot	snapshot;
	bool		found;

	/* Nothing to confirm yet: the worker looks again when it has committed. */
	if (boot_id == DtxBootId() &&
		xid == U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		return true;

	if (DtxActivityConfirmed(boot_id, xid))
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = DtxDecisionFind(snapshot, boot_id, xid);
	UnregisterSnapshot(snapshot);
	if (!found || DtxActivityConfirmed(boot_id, xid))
		return true;

	/* If no backend takes care of it, the resolver should. */
	if (!DtxActivityOwnsRow(boot_id, xid))
		DtxLauncherWakeResolver(MyDatabaseId);
	return false;
}

/*
 * dtx_internal.saga_confirmed(boot_id, xid)
 */
Datum
dtx_sql_saga_confirmed(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(DtxSagaConfirmed((uint64) PG_GETARG_INT64(0),
									(uint64) PG_GETARG_INT64(1)));
}

/*
 * dtx_internal.boot_id()
 */
Datum
dtx_sql_boot_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) DtxBootId());
}

/*
 * dtx_internal.saga_database()
 */
Datum
dtx_sql_saga_database(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(MyDatabaseId);
}

/*
 * dtx_internal.saga_active_database(): a copy of a server must not go on with sagas of the
 * original, nor a server whose former self may be alive.
 */
Datum
dtx_sql_saga_active_database(PG_FUNCTION_ARGS)
{
	if (DtxBootsSuspended(DtxBootsRead(NULL)))
		PG_RETURN_NULL();
	PG_RETURN_OID(MyDatabaseId);
}

/*
 * The server has got a new identity: sagas of the old one, those of former boots, are
 * the original's.  In the transaction of dtx.change_identity(), with SPI connected.
 */
void
DtxSagaDisown(void)
{
	static const char *const commands[] = {
		"UPDATE dtx_internal.saga_external SET database = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_step_record SET database = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_record SET database = 0"
		" WHERE boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id()"
	};

	if (!DtxSagaInstalled())
		return;
	for (int i = 0; i < lengthof(commands); i++)
	{
		if (SPI_execute(commands[i], false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not update the tables of sagas");
	}
}

/*
 * If the current transaction commits, the scheduler of the database is to look.
 */
void
DtxSagaWakeAtCommit(void)
{
	wake_asked = true;
}

/* ----------------------------------------------------------------
 * Waking and waiting
 * ----------------------------------------------------------------
 */

/*
 * dtx_internal.wake_sagas(): if the transaction commits, the scheduler is to look.
 */
Datum
dtx_sql_wake_sagas(PG_FUNCTION_ARGS)
{
	DtxSagaWakeAtCommit();
	PG_RETURN_VOID();
}

/*
 * dtx_internal.saga_announce(queue): there is something for external workers.
 *
 * NOTIFY is no part of the transaction that says so in the tables: it fails when
 * its queue is full, because some session listens and never ends its transaction,
 * and it waits for a lock that any COMMIT with a NOTIFY holds to its end.  Sagas
 * must not be stopped by that.
 */
Datum
dtx_sql_saga_announce(PG_FUNCTION_ARGS)
{
	char	   *queue = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		channel[NAMEDATALEN];

	if (!saga_worker)
		PG_RETURN_VOID();
	strlcpy(channel, "dtx:", sizeof(channel));
	strlcat(channel, queue, sizeof(channel));
	for (int i = 0; i < nannounced; i++)
	{
		if (strcmp(announced[i], channel) == 0)
			PG_RETURN_VOID();
	}
	if (nannounced < MAX_ANNOUNCED)
		strlcpy(announced[nannounced++], channel, NAMEDATALEN);
	PG_RETURN_VOID();
}

/*
 * Has the last transaction, which has committed, something to announce?
 */
bool
DtxSagaHasAnnouncements(void)
{
	return nannounced > 0;
}

/*
 * Have the current transaction announce it.
 */
void
DtxSagaAnnounce(void)
{
	int			n = nannounced;

	nannounced = 0;
	for (int i = 0; i < n; i++)
		Async_Notify(announced[i], "");
}

/*
 * dtx_internal.saga_finished(saga): if the transaction commits, those who wait for it
 * are to look.
 */
Datum
dtx_sql_saga_finished(PG_FUNCTION_ARGS)
{
	uint64		saga = (uint64) PG_GETARG_INT64(0);

	finished_asked |= UINT64CONST(1) << (saga % WAIT_PARTITIONS);
	PG_RETURN_VOID();
}

/*
 * This process executes steps of sagas, and must not wait for sagas in them.
 */
void
DtxSagaWorkerHere(void)
{
	saga_worker = true;
}

/*
 * dtx.wait_saga(saga, timeout): wait until a saga has ended, and return its
 * state; after the timeout, the state that it is in.
 */
Datum
dtx_sql_wait_saga(PG_FUNCTION_ARGS)
{
	uint64		saga;
	DtxMoment volatile deadline = DTX_NEVER;
	ConditionVariable *cv;
	SagaCall	call;
	Datum		args[1];
	static const Oid types[1] = {INT8OID};
	MemoryContext look_cxt;
	MemoryContext old_cxt = CurrentMemoryContext;
	Datum volatile state = (Datum) 0;
	bool volatile isnull = true;

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	saga = (uint64) PG_GETARG_INT64(0);
	args[0] = PG_GETARG_DATUM(0);

	/* It might be its own saga, or one that needs the worker that waits. */
	if (saga_worker)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot wait for a saga in a step of a saga"),
				 errdetail("There might be no worker left to execute what is waited for."),
				 errhint("Use dtx.step_signal(), and let the last step of the other saga call dtx.signal_saga().")));
	if (!PG_ARGISNULL(1))
	{
		TimestampTz now = GetCurrentTimestamp();
		TimestampTz end;

		end = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													  TimestampTzGetDatum(now),
													  PG_GETARG_DATUM(1)));
		deadline = end == DT_NOEND ? DTX_NEVER :
			end <= now ? DtxNow() : DtxIn((end - now) / 1000);
	}
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a saga in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("The transaction would never see the saga end."),
				 errhint("Use READ COMMITTED.")));
	if (we_wait_saga == 0)
		we_wait_saga = DtxWaitEvent("DtxWaitSaga");
	cv = &shared->finished[saga % WAIT_PARTITIONS];
	look_cxt = AllocSetContextCreate(CurrentMemoryContext, "pg_dtx wait_saga",
									 ALLOCSET_SMALL_SIZES);

	call.caller = GetUserId();
	call.previous = calls;
	calls = &call;
	PG_TRY();
	{
		ConditionVariablePrepareToSleep(cv);
		for (;;)
		{
			long		timeout;
			bool		null;
			const char *label;

			MemoryContextReset(look_cxt);
			MemoryContextSwitchTo(look_cxt);
			state = DtxSagaCall("saga_look", 1, types, args, NULL, &null);
			isnull = null;
			if (null)
				break;
			label = DatumGetCString(DirectFunctionCall1(enum_out, state));
			if (strcmp(label, "completed") == 0 ||
				strcmp(label, "compensated") == 0 ||
				strcmp(label, "failed") == 0)
				break;

			timeout = RecoveryInProgress() ? STANDBY_WAIT_SLEEP : MAX_WAIT_SLEEP;
			if (deadline != DTX_NEVER)
			{
				long		left = DtxUntil(deadline);

				if (left <= 0)
					break;
				timeout = Min(timeout, left);
			}
			(void) ConditionVariableTimedSleep(cv, timeout, we_wait_saga);
		}
		ConditionVariableCancelSleep();
		MemoryContextSwitchTo(old_cxt);
		MemoryContextDelete(look_cxt);
	}
	PG_FINALLY();
	{
		calls = call.previous;
	}
	PG_END_TRY();

	if (isnull)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(state);
}
