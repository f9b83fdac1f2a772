/*-------------------------------------------------------------------------
 *
 * passed_by.c
 *		Servers on which postgres_fdw works past pg_dtx: no transaction that used
 *		one of them together with another node commits.
 *
 * A postgres_fdw that was linked statically with libpq, or was bound to another
 * libpq, never calls the wrappers of interpose.c; fdw_library.c finds that out when
 * it is loaded.  Its servers can't be prepared.  Who has used one of them is
 * told by the locks of the transaction: whatever reads or writes a foreign table
 * locks it until the transaction ends, or the subtransaction is rolled back, with
 * what was done on the server.  (Except for TRUNCATE, stronger locks are those of
 * commands that do nothing on the server.)
 *
 * The check has to come before such a library commits on its server, in a
 * transaction callback that it registered with its first connection.  Callbacks
 * run newest first (RegisterXactCallback in access/transam/xact.c), so ours is
 * registered anew at the end of the first statement that used such a library.  And it
 * has to come before the other postgres_fdw commits on its servers, whose callback may
 * be even newer: that of coordinator.c is ahead of that one, and makes the check, too.
 * (A statement that failed has left nothing on its server.)  It all costs next to
 * nothing as long as no such library is loaded.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_foreign_table.h"
#include "commit/fdw_library.h"
#include "commit/passed_by.h"
#include "commit/phase_one.h"
#include "commit/transaction.h"
#include "datatype/timestamp.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "state/tables.h"
#include "tcop/utility.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* Libraries, by their handlers, after which our callback was registered. */
static const void **covered = NULL;
static int	ncovered = 0;

/* Start of the last transaction that has executed TRUNCATE. */
static TimestampTz truncated_in = 0;

static ExecutorEnd_hook_type prev_ExecutorEnd = NULL;
static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static void dtx_ExecutorEnd(QueryDesc *queryDesc);
static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv,
							   DestReceiver *dest, QueryCompletion *qc);
static void after_statement(void);
static void passed_by_xact_callback(XactEvent event, void *arg);
static void check_not_passed_by(void);
static List *wrappers_passing_by(void);
static List *servers_used(List *wrappers);
static bool was_used(Oid relid);

/*
 * From the postmaster, when all libraries have been loaded; backends inherit the
 * hooks.
 */
void
DtxPassedByInstallHooks(void)
{
	prev_ExecutorEnd = ExecutorEnd_hook;
	ExecutorEnd_hook = dtx_ExecutorEnd;
	DtxPhaseOneSetCheck(check_not_passed_by);
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;
}

static void
dtx_ExecutorEnd(QueryDesc *queryDesc)
{
	if (prev_ExecutorEnd)
		prev_ExecutorEnd(queryDesc);
	else
		standard_ExecutorEnd(queryDesc);
	after_statement();
}

static void
dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	/* (the statement may be freed by what it does) */
	bool		is_transaction = IsA(pstmt->utilityStmt, TransactionStmt);
	bool		is_truncate = IsA(pstmt->utilityStmt, TruncateStmt);

	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
	if (is_transaction || !IsTransactionState())
		return;
	if (is_truncate)
		truncated_in = GetCurrentTransactionStartTimestamp();
	after_statement();
}

/*
 * If a postgres_fdw that passes us by has been used for the first time, make our
 * callback the newest one.  It is not unregistered, because xact.c may be about
 * to call it; the number of them is that of such libraries.
 */
static void
after_statement(void)
{
	ListCell   *lc;

	if (!DtxFdwLibraryAnyPassesBy() || !IsTransactionState() ||
		!DtxExtensionInstalled())
		return;
	foreach(lc, wrappers_passing_by())
	{
		const void *handler = DtxWrapperHandler(lfirst_oid(lc));
		bool		known = false;

		for (int i = 0; i < ncovered; i++)
			known |= covered[i] == handler;
		if (known || servers_used(list_make1_oid(lfirst_oid(lc))) == NIL)
			continue;
		if (covered == NULL)
			covered = MemoryContextAlloc(TopMemoryContext, sizeof(*covered));
		else
			covered = repalloc(covered, sizeof(*covered) * (ncovered + 1));
		covered[ncovered] = handler;
		RegisterXactCallback(passed_by_xact_callback,
							 (void *) (intptr_t) (ncovered + 1));
		ncovered++;
	}
}

static void
passed_by_xact_callback(XactEvent event, void *arg)
{
	/* only the newest one */
	if (event == XACT_EVENT_PRE_COMMIT && (intptr_t) arg == ncovered)
		check_not_passed_by();
}

/*
 * Throw if the current transaction used a server that can't be prepared, and
 * something else: which of them wrote is not known.
 */
static void
check_not_passed_by(void)
{
	List	   *servers;
	ForeignServer *server;
	int			nodes;

	if (!DtxFdwLibraryAnyPassesBy() || !DtxTwoPhaseCommit() ||
		!DtxExtensionInstalled())
		return;
	servers = servers_used(wrappers_passing_by());
	if (servers == NIL)
		return;
	nodes = list_length(servers) + DtxTransactionParticipants() +
		(TransactionIdIsValid(GetTopTransactionIdIfAny()) ? 1 : 0);
	if (nodes < 2)
		return;

	server = GetForeignServer(linitial_oid(servers));
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("server \"%s\" cannot take part in an atomic commit",
					server->servername),
			 errdetail("Its foreign-data wrapper \"%s\" does not call libpq through pg_dtx.",
					   GetForeignDataWrapper(server->fdwid)->fdwname),
			 errhint("Use the server in transactions of its own, or through a postgres_fdw that is linked dynamically with libpq.")));
}

/*
 * Wrappers whose library is a postgres_fdw that passes us by.
 */
static List *
wrappers_passing_by(void)
{
	List	   *wrappers = DtxPostgresFdwWrappers();
	ListCell   *lc;

	foreach(lc, wrappers)
	{
		if (DtxFdwLibraryCallsUs(DtxWrapperHandler(lfirst_oid(lc))))
			wrappers = foreach_delete_current(wrappers, lc);
	}
	return wrappers;
}

/*
 * The servers of these wrappers on which the current transaction has used a
 * foreign table.
 */
static List *
servers_used(List *wrappers)
{
	List	   *servers = NIL;
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;

	if (wrappers == NIL)
		return NIL;
	rel = table_open(ForeignTableRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_table form = (Form_pg_foreign_table) GETSTRUCT(tuple);

		if (!list_member_oid(servers, form->ftserver) &&
			was_used(form->ftrelid) &&
			list_member_oid(wrappers, GetForeignServer(form->ftserver)->fdwid))
			servers = lappend_oid(servers, form->ftserver);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return servers;
}

/*
 * Has the current transaction read or written this foreign table?
 */
static bool
was_used(Oid relid)
{
	return DtxRelationLockedByMe(relid, AccessShareLock) ||
		DtxRelationLockedByMe(relid, RowShareLock) ||
		DtxRelationLockedByMe(relid, RowExclusiveLock) ||
		(truncated_in == GetCurrentTransactionStartTimestamp() &&
		 DtxRelationLockedByMe(relid, AccessExclusiveLock));
}
