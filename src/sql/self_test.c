/*-------------------------------------------------------------------------
 *
 * self_test.c
 *		dtx.self_test(): a proof that COMMIT over some servers is atomic here.
 *
 * A procedure, because it has to commit, and in C, because it has to survive a COMMIT
 * that fails.  It runs transactions over this database and all of the servers, which
 * do nothing but to have transaction identifiers assigned, and asks each node afterwards
 * what has become of its part:
 *
 * 1.  One that is to be committed, and must be everywhere.
 * 2.  For each server, one in which this server refuses PREPARE TRANSACTION.  It
 *	   must fail, and be rolled back everywhere.  (Without pg_dtx it succeeds: what
 *	   cannot be prepared can be committed.)
 * 3.  The same again without this database, if there are several servers.  Then one of
 *	   them may be the commit point, which is not asked to prepare anything: such a COMMIT
 *	   may succeed, but then everywhere.
 *
 * Nothing remains but what every distributed transaction leaves: the transaction
 * identifiers, and that something was prepared through these user mappings
 * (dtx_internal.route).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "exec/api.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "resolve/facts.h"
#include "state/tables.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/wait_event.h"

/* How long a part may take to be finished after COMMIT has returned, and pauses, ms. */
#define FINISH_PATIENCE_MS	30000
#define FINISH_PAUSE_MS		100

#define ASSIGN_XID	"SELECT pg_catalog.txid_current()::pg_catalog.text AS value"

/* What has sent a notification cannot be prepared; it needs no privilege. */
#define REFUSE_PREPARE	"SELECT pg_catalog.pg_notify('pg_dtx_self_test', '')::pg_catalog.text AS value"

#define XID_STATUS	"SELECT COALESCE(pg_catalog.txid_status(%s), 'not known any more') AS value"

/* One of the servers. */
typedef struct Tested
{
	char	   *name;
	char	   *xid;			/* its part of the transaction, as text */
} Tested;

static void check_can_test(FunctionCallInfo fcinfo);
static Tested *chosen_servers(FunctionCallInfo fcinfo, int *n);
static int	compare_names(const ListCell *a, const ListCell *b);
static void run_all(Tested *servers, int n, bool local);
static uint64 begin(Tested *servers, int n, const Tested *refuses, bool local);
static void commit(void);
static bool commit_refused(const Tested *refuses);
static void expect(Tested *servers, int n, uint64 local_xid, const char *expected);
static char *status_here(uint64 local_xid);
static Datum make_result(FunctionCallInfo fcinfo, const Tested *servers, int n);
static void self_test_context(void *arg);

PG_FUNCTION_INFO_V1(dtx_sql_self_test);

/*
 * CALL dtx.self_test(servers, result)
 */
Datum
dtx_sql_self_test(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	Tested	   *servers;
	int			n;
	Datum		result;

	check_can_test(fcinfo);
	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect_ext failed");
	servers = chosen_servers(fcinfo, &n);

	run_all(servers, n, true);
	if (n > 1)
		run_all(servers, n, false);

	MemoryContextSwitchTo(caller);
	result = make_result(fcinfo, servers, n);
	SPI_finish();
	return result;
}

/*
 * Throw if it can be said beforehand that the test cannot be made, or what it would find.
 */
static void
check_can_test(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic || IsSubTransaction())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("%s cannot be called in a transaction block", "dtx.self_test()"),
				 errdetail("It commits transactions of its own."),
				 errhint("Use CALL dtx.self_test() as a statement of its own, outside of BEGIN and of functions.")));
	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s cannot be called during recovery", "dtx.self_test()"),
				 errhint("Call it on the primary server.")));
	if (!dtx_two_phase_commit)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("COMMIT is not atomic here"),
				 errdetail("\"%s\" is off.", "pg_dtx.two_phase_commit"),
				 errhint("Set it to on. It can also be set for the database or the role (view \"pg_db_role_setting\").")));
}

/*
 * The servers that the first argument names; null: all that the caller may use.
 */
static Tested *
chosen_servers(FunctionCallInfo fcinfo, int *n)
{
	Tested	   *servers;
	List	   *names = NIL;
	ListCell   *lc;

	if (PG_ARGISNULL(0))
	{
		foreach(lc, DtxPostgresFdwServers())
		{
			ForeignServer *server = (ForeignServer *) lfirst(lc);

			if (DtxForeignServerAclcheck(server->serverid, GetUserId(),
										 ACL_USAGE) == ACLCHECK_OK)
				names = lappend(names, server->servername);
		}
	}
	else
	{
		Datum	   *values;
		bool	   *nulls;
		int			nvalues;

		deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false,
						  TYPALIGN_CHAR, &values, &nulls, &nvalues);
		for (int i = 0; i < nvalues; i++)
		{
			if (nulls[i])
				ereport(ERROR,
						(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("server name must not be null")));
			names = lappend(names, pstrdup(NameStr(*DatumGetName(values[i]))));
		}
	}
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there are no servers to be tested"),
				 errhint("Name some that you have USAGE on and a user mapping for.")));
	list_sort(names, compare_names);

	servers = palloc0(sizeof(Tested) * list_length(names));
	*n = 0;
	foreach(lc, names)
	{
		char	   *name = (char *) lfirst(lc);

		if (*n == 0 || strcmp(servers[*n - 1].name, name) != 0)
			servers[(*n)++].name = name;
	}
	return servers;
}

/* Orders names. */
static int
compare_names(const ListCell *a, const ListCell *b)
{
	return strcmp((const char *) lfirst(a), (const char *) lfirst(b));
}

/*
 * Run all transactions over the servers and, if "local" is set, this database.
 */
static void
run_all(Tested *servers, int n, bool local)
{
	ErrorContextCallback callback;
	uint64		xid;

	callback.callback = self_test_context;
	callback.arg = (void *) "the transaction that is to be committed";
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	xid = begin(servers, n, NULL, local);
	commit();
	expect(servers, n, xid, "committed");

	for (int i = 0; i < n; i++)
	{
		bool		refused;

		callback.arg = psprintf("the transaction that server \"%s\" is to refuse", servers[i].name);
		xid = begin(servers, n, &servers[i], local);
		refused = commit_refused(&servers[i]);
		if (!refused && local)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("COMMIT is not atomic here"),
					 errdetail("Server \"%s\" cannot prepare the transaction, and COMMIT has succeeded: it did not ask.",
							   servers[i].name),
					 errhint("SELECT * FROM dtx.check() tells what is not right.")));
		expect(servers, n, xid, refused ? "aborted" : "committed");
	}
	error_context_stack = callback.previous;
}

/*
 * In the current transaction, which is a new one, let all servers take part, "refuses",
 * unless it is NULL, so that it cannot be prepared, and, if "local" is set, this database.
 * Returns the transaction id here, 0 if it does not take part.
 */
static uint64
begin(Tested *servers, int n, const Tested *refuses, bool local)
{
	uint64		xid = 0;

	/* What is looked at afterwards is not to be under way yet. */
	(void) set_config_option("pg_dtx.commit_wait", "on", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_LOCAL, true, 0, false);
	PushActiveSnapshot(GetTransactionSnapshot());
	if (local)
		xid = U64FromFullTransactionId(GetTopFullTransactionId());
	for (int i = 0; i < n; i++)
	{
		servers[i].xid = DtxRemoteAsk(servers[i].name, ASSIGN_XID);
		if (&servers[i] == refuses)
			(void) DtxRemoteAsk(servers[i].name, REFUSE_PREPARE);
	}
	PopActiveSnapshot();
	return xid;
}

/* Commit, and begin another transaction. */
static void
commit(void)
{
	CHECK_FOR_INTERRUPTS();
	SPI_commit();
}

/*
 * The same, but a server is to refuse it: has it?  Throws if the COMMIT fails for any
 * other reason.
 */
static bool
commit_refused(const Tested *refuses)
{
	MemoryContext cxt = CurrentMemoryContext;
	char	   *quoted = psprintf("\"%s\"", refuses->name);
	volatile bool refused = false;

	PG_TRY();
	{
		commit();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		if (edata->sqlerrcode != ERRCODE_FEATURE_NOT_SUPPORTED ||
			edata->message == NULL || strstr(edata->message, quoted) == NULL)
			ReThrowError(edata);
		FreeErrorData(edata);
		refused = true;
	}
	PG_END_TRY();
	return refused;
}

/*
 * Throw unless all parts of a transaction have ended in the same way.  In a transaction
 * that is new, and so it is afterwards.
 */
static void
expect(Tested *servers, int n, uint64 local_xid, const char *expected)
{
	DtxMoment	deadline = DtxIn(FINISH_PATIENCE_MS);
	StringInfoData found;
	bool		good;

	initStringInfo(&found);
	for (;;)
	{
		char	   *status;
		bool		in_progress = false;

		good = true;
		resetStringInfo(&found);
		if (local_xid != 0)
		{
			status = status_here(local_xid);
			good = strcmp(status, expected) == 0;
			appendStringInfo(&found, "here %s", status);
		}
		PushActiveSnapshot(GetTransactionSnapshot());
		for (int i = 0; i < n; i++)
		{
			char	   *query = psprintf(XID_STATUS, servers[i].xid);

			status = DtxRemoteAsk(servers[i].name, query);
			pfree(query);
			appendStringInfo(&found, "%son server \"%s\" %s", found.len > 0 ? ", " : "",
							 servers[i].name, status);
			good &= strcmp(status, expected) == 0;
			in_progress |= strcmp(status, "in progress") == 0;
		}
		PopActiveSnapshot();
		commit();

		/*
		 * A server may answer before the session that has ended there is
		 * gone.
		 */
		if (good || !in_progress || DtxIsDue(deadline))
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 FINISH_PAUSE_MS, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (!good)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("COMMIT is not atomic here"),
				 errdetail("The transaction should be %s everywhere, and is: %s.", expected, found.data),
				 errhint("SELECT * FROM dtx.check() tells what is not right.")));
	pfree(found.data);
}

/* What has become of a transaction here, in the words of txid_status(). */
static char *
status_here(uint64 local_xid)
{
	switch (DtxCommitLog(local_xid))
	{
		case DTX_LOG_COMMITTED:
			return "committed";
		case DTX_LOG_ABORTED:
			return "aborted";
		case DTX_LOG_IN_PROGRESS:
			return "in progress";
		default:
			return "not known any more";
	}
}

/*
 * The row that CALL returns, in the current memory context.
 */
static Datum
make_result(FunctionCallInfo fcinfo, const Tested *servers, int n)
{
	TupleDesc	desc;
	StringInfoData names;
	Datum		value;
	bool		isnull = false;

	initStringInfo(&names);
	for (int i = 0; i < n; i++)
		appendStringInfo(&names, "%s\"%s\"", i > 0 ? ", " : "", servers[i].name);
	value = CStringGetTextDatum(psprintf("COMMIT is atomic over %s and this database", names.data));
	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), &value, &isnull));
}

static void
self_test_context(void *arg)
{
	errcontext("self-test of pg_dtx: %s", (const char *) arg);
}
