/*-------------------------------------------------------------------------
 *
 * consistent_reads.c
 *		pg_dtx.consistent_reads: transactions that read from one moment on all servers.
 *
 * The snapshots are taken before the first statement of a transaction that needs one: right
 * after the BEGIN, SET TRANSACTION or SET that makes a transaction of REPEATABLE READ have
 * the setting.  From a function it would be too late, because the local snapshot is there
 * when a function is called.
 *
 * All else fails closed: with the setting on, no server can be used in a transaction without
 * such snapshots, nor one, or a user mapping, that has none.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commit/connection.h"
#include "commit/participant.h"
#include "commit/transaction.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "snapshot/ask.h"
#include "snapshot/consistent_reads.h"
#include "snapshot/servers.h"
#include "snapshot/take.h"
#include "state/tables.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/varlena.h"

#define SETTING "pg_dtx.consistent_reads"

static char *consistent_reads = NULL;

/* The servers (names) of the current transaction's snapshots, and its connections. */
static bool open_now = false;
static bool opening = false;
static List *open_servers = NIL;
static List *open_connections = NIL;

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static bool check_setting(char **newval, void **extra, GucSource source);
static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv,
							   DestReceiver *dest, QueryCompletion *qc);
static bool is_on(void);
static bool may_begin(const Node *stmt);
static bool sets_it(const Node *stmt);
static void open_snapshots(void);
static void take_local(void *arg);
static void check_use(DtxParticipant *p);
static void xact_callback(XactEvent event, void *arg);

/* In _PG_init(). */
void
DtxConsistentReadsDefineSetting(void)
{
	DefineCustomStringVariable(SETTING,
							   "Sets the servers that transactions of REPEATABLE READ read at one moment.",
							   "\"off\", \"on\" for all servers that the user may use and has a mapping for, or a list of servers.",
							   &consistent_reads, "off",
							   PGC_USERSET, GUC_LIST_INPUT, check_setting, NULL, NULL);
}

/*
 * From the postmaster, when all libraries have been loaded; backends inherit them.
 */
void
DtxConsistentReadsInstallHooks(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;
	DtxTransactionSetUseCheck(check_use);
}

static bool
check_setting(char **newval, void **extra, GucSource source)
{
	bool		on;
	char	   *copy;
	List	   *names;
	bool		valid;

	if (parse_bool(*newval, &on))
		return true;
	copy = pstrdup(*newval);
	valid = SplitIdentifierString(copy, ',', &names) && names != NIL;
	pfree(copy);
	if (!valid)
		GUC_check_errdetail("It must be \"off\", \"on\", or a list of servers, with commas between them.");
	return valid;
}

static bool
is_on(void)
{
	bool		on;

	return !parse_bool(consistent_reads, &on) || on;
}

static void
dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	/*
	 * The statement is not there any more when COMMIT has ended a procedure's
	 * context.
	 */
	bool		begins = may_begin(pstmt->utilityStmt);
	bool		sets = sets_it(pstmt->utilityStmt);

	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);

	if (!begins || !is_on() || open_now || !IsolationUsesXactSnapshot() ||
		!(IsTransactionBlock() || context != PROCESS_UTILITY_TOPLEVEL))
		return;
	if (FirstSnapshotSet)
	{
		if (sets)
			ereport(ERROR,
					(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
					 errmsg("\"%s\" must be set before any query", SETTING),
					 errdetail("The transaction has a snapshot already.")));
		return;
	}
	open_snapshots();
}

/* Can a transaction have the setting after a statement that did not have it before? */
static bool
may_begin(const Node *stmt)
{
	if (IsA(stmt, VariableSetStmt))
		return true;
	if (IsA(stmt, TransactionStmt))
		return ((const TransactionStmt *) stmt)->kind == TRANS_STMT_BEGIN ||
			((const TransactionStmt *) stmt)->kind == TRANS_STMT_START;
	return false;
}

static bool
sets_it(const Node *stmt)
{
	return IsA(stmt, VariableSetStmt) && ((const VariableSetStmt *) stmt)->name != NULL &&
		pg_strcasecmp(((const VariableSetStmt *) stmt)->name, SETTING) == 0;
}

/*
 * Take the snapshots of the current transaction, which has none yet.
 */
static void
open_snapshots(void)
{
	const DtxSnapshotJob job = {
		.what = _("take a consistent snapshot"),
		.command = "SELECT 1",
		.begins = true,
		.here = take_local
	};
	static bool registered = false;
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);
	DtxSnapshotServer *volatile servers;
	volatile int n = 0;
	int			count;
	bool		on;

	if (IsolationIsSerializable() && XactReadOnly && XactDeferrable)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("\"%s\" cannot be used in a transaction that is DEFERRABLE", SETTING)));
	if (!registered)
		RegisterXactCallback(xact_callback, NULL);
	registered = true;

	if (parse_bool(consistent_reads, &on))
		servers = DtxSnapshotAllServers(&count);
	else
	{
		List	   *names;
		char	  **array;

		(void) SplitIdentifierString(pstrdup(consistent_reads), ',', &names);
		count = list_length(names);
		array = palloc(sizeof(char *) * count);
		for (int i = 0; i < count; i++)
			array[i] = (char *) list_nth(names, i);
		servers = DtxSnapshotNamedServers(array, count);
	}
	n = count;

	opening = true;
	PG_TRY();
	{
		DtxSnapshotTake(servers, n, &job);
		for (int i = 0; i < n; i++)
		{
			open_servers = lappend(open_servers, unconstify(char *, servers[i].name));
			open_connections = lappend(open_connections, servers[i].c);
		}
		open_now = true;
	}
	PG_FINALLY();
	{
		opening = false;
		DtxSnapshotEnd(servers, n);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(old);
}

static void
take_local(void *arg)
{
	if (FirstSnapshotSet)
		elog(ERROR, "the transaction has a snapshot already");
	(void) GetTransactionSnapshot();
}

/*
 * A remote transaction gets its first command: is that to be, with the setting on?
 */
static void
check_use(DtxParticipant *p)
{
	const char *server = p->connection->endpoint.server_name;

	if (opening || (!is_on() && !open_now))
		return;
	if (!open_now)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot use server \"%s\" without a consistent snapshot", server),
				 IsolationUsesXactSnapshot() ?
				 errdetail("\"%s\" is \"%s\", and there was a query before it was set, or the statement is a transaction of its own.",
						   SETTING, consistent_reads) :
				 errdetail("\"%s\" is \"%s\", and the transaction is READ COMMITTED.",
						   SETTING, consistent_reads),
				 errhint("Begin with BEGIN ISOLATION LEVEL REPEATABLE READ, or set \"%s\" to \"off\".",
						 SETTING)));

	/* One that is lost may have been replaced, with a snapshot of its own. */
	DtxTransactionCheckNoneLost();
	if (!list_member_ptr(open_connections, p->connection))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("server \"%s\" is not part of the consistent snapshot", server),
				 errdetail("The transaction reads all servers as they were when it began, and this server, or this user mapping of it, was not among them."),
				 errhint("Add it to \"%s\".", SETTING)));
}

/*
 * Has the current transaction consistent snapshots?  Then *servers is set to a list of
 * the names of the servers, which lives as long as the transaction.
 */
bool
DtxConsistentReadsOpen(List **servers)
{
	if (open_now)
		*servers = open_servers;
	return open_now;
}

/*
 * Servers are going to be asked by the functions of api.c, which see to their snapshots
 * themselves; until DtxConsistentReadsOtherEnd().
 */
void
DtxConsistentReadsOtherBegin(void)
{
	opening = true;
}

/*
 * From now on the setting counts again.  Neither throws.
 */
void
DtxConsistentReadsOtherEnd(void)
{
	opening = false;
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			open_now = opening = false;
			open_servers = open_connections = NIL;
			break;
		default:
			break;
	}
}
