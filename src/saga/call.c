/*-------------------------------------------------------------------------
 *
 * call.c
 *		Calling the extension's own functions, and who has called the public ones.
 *
 * A function that runs with the rights of its owner does not know any more who has
 * called it: current_user is the owner, and session_user not the role that was SET.  So
 * every public function is one in C, all with the same symbol (dtx_sql_saga_call), that
 * notes the caller and calls the internal function of the same name with an underscore
 * before it, as that function's owner.  dtx_internal.saga_caller() returns what was noted.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_proc.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "state/tables.h"
#include "utils/builtins.h"
#include "utils/palloc.h"
#include "utils/syscache.h"

/* Internal functions whose being the extension's own is remembered. */
#define MAX_VERIFIED	32

/* What a trampoline remembers between two calls: fn_extra. */
typedef struct SagaTarget
{
	Oid			owner;			/* whose rights the internal function has */
	bool		old_snapshot_ok;	/* may its transaction have an old
									 * snapshot? */
	FmgrInfo	finfo;			/* the internal function */
} SagaTarget;

/* This backend: who has called. */
DtxSagaCaller *DtxSagaCallers = NULL;

static Oid	internal_function(const char *name, oidvector *types, Oid *owner);
static Datum call_as(Oid userid, FmgrInfo *finfo, int nargs,
					 const NullableDatum *args, Oid collation,
					 struct Node *resultinfo, bool *isnull);
static SagaTarget *call_target(FmgrInfo *flinfo);
static bool old_snapshot_ok(const char *name);

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

	/* One of this name that is not the extension's does not count. */
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
		strcmp(name, "emit_saga_event") == 0 ||
		strcmp(name, "purge_sagas") == 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_call);

/*
 * The trampoline: every public function of sagas.
 */
Datum
dtx_sql_saga_call(PG_FUNCTION_ARGS)
{
	SagaTarget *volatile target = call_target(fcinfo->flinfo);
	DtxSagaCaller call;
	Datum		result;

	if (IsolationUsesXactSnapshot() && !target->old_snapshot_ok)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot change a saga in a transaction with isolation level REPEATABLE READ or SERIALIZABLE"),
				 errdetail("The transaction would not see what others have done with the saga since it began."),
				 errhint("Use READ COMMITTED.")));
	call.caller = GetUserId();
	call.previous = DtxSagaCallers;
	DtxSagaCallers = &call;
	PG_TRY();
	{
		result = call_as(target->owner, &target->finfo, PG_NARGS(),
						 fcinfo->args, fcinfo->fncollation,
						 fcinfo->resultinfo, &fcinfo->isnull);
	}
	PG_FINALLY();
	{
		DtxSagaCallers = call.previous;
	}
	PG_END_TRY();
	return result;
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_caller);

/*
 * dtx_internal.saga_caller(): the role that called the public function.
 */
Datum
dtx_sql_saga_caller(PG_FUNCTION_ARGS)
{
	if (DtxSagaCallers == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("internal functions of pg_dtx must not be called directly"),
				 errhint("Call the function of the same name in schema \"dtx\".")));
	PG_RETURN_OID(DtxSagaCallers->caller);
}

/*
 * Call an internal function of the extension by name, with arguments of these types, as
 * its owner.  "argnulls" may be NULL: none is null.  The result is in the current memory
 * context.  In a transaction, with an active snapshot; throws what the function throws, and
 * if there is no such function of the extension.
 */
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

PG_FUNCTION_INFO_V1(dtx_sql_saga_warn);

/*
 * dtx_internal.saga_warn(message, detail, hint): what RAISE WARNING says, but the server
 * log gets no CONTEXT: which internal functions called each other tells users nothing.
 */
Datum
dtx_sql_saga_warn(PG_FUNCTION_ARGS)
{
	ereport(WARNING,
			(errmsg_internal("%s", PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0))),
			 PG_ARGISNULL(1) ? 0 : errdetail_internal("%s", text_to_cstring(PG_GETARG_TEXT_PP(1))),
			 PG_ARGISNULL(2) ? 0 : errhint("%s", text_to_cstring(PG_GETARG_TEXT_PP(2))),
			 errhidecontext(true)));
	PG_RETURN_VOID();
}
