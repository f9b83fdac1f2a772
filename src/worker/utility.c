/*-------------------------------------------------------------------------
 *
 * utility.c
 *		Statements that concern workers: those before which they have to leave a database,
 *		and those after which they have something to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "state/decision_map.h"
#include "state/in_doubt.h"
#include "tcop/dest.h"
#include "tcop/utility.h"
#include "worker/drop_guard.h"
#include "worker/slots.h"
#include "worker/utility.h"
#include "worker/vacate.h"
#include "worker/wake.h"

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static void next_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
								bool readOnlyTree,
								ProcessUtilityContext context,
								ParamListInfo params,
								QueryEnvironment *queryEnv, DestReceiver *dest,
								QueryCompletion *qc);
static void refuse_while_in_doubt(DropdbStmt *stmt, Oid dbid);
static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv, DestReceiver *dest,
							   QueryCompletion *qc);

/*
 * Install the hooks of this folder.  Before the server accepts connections; backends
 * inherit them.
 */
void
DtxLauncherInstallHooks(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;

	/* The one that was registered last is called first. */
	DtxWakeInstallHooks();
	DtxVacateInstallHooks();
}

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
refuse_while_in_doubt(DropdbStmt *stmt, Oid dbid)
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
			 errmsg("cannot drop database \"%s\"", stmt->dbname),
			 errdetail("Transactions of pg_dtx are in doubt. What they have prepared on other servers would stay locked there, and the record of what is to become of it would be lost."),
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
			commit_prepared = DtxWorkers != NULL &&
				((TransactionStmt *) pstmt->utilityStmt)->kind ==
				TRANS_STMT_COMMIT_PREPARED;
			break;
		case T_DropdbStmt:
		case T_CreatedbStmt:
		case T_AlterDatabaseStmt:
		case T_RenameStmt:
			if (DtxWorkers != NULL && IsTransactionState() && !RecoveryInProgress())
				dbid = DtxVacateTarget(pstmt->utilityStmt);
			break;
		default:
			break;
	}

	if (!OidIsValid(dbid))
	{
		next_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
		if (commit_prepared)
			DtxWakeAfterCommitPrepared();
		return;
	}

	DtxVacateBlock(dbid);
	PG_TRY();
	{
		/* The workers have gone, so nothing is added any more. */
		if (IsA(pstmt->utilityStmt, DropdbStmt))
			refuse_while_in_doubt((DropdbStmt *) pstmt->utilityStmt, dbid);
		next_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
		if (IsA(pstmt->utilityStmt, DropdbStmt))
		{
			ListCell   *lc;

			foreach(lc, DtxInDoubtList(dbid))
				DtxInDoubtRemove(&((DtxInDoubt *) lfirst(lc))->gid);
			DtxDecisionMapDropDatabase(dbid);
		}
	}
	PG_CATCH();
	{
		DtxVacateUnblock();
		PG_RE_THROW();
	}
	PG_END_TRY();

	/*
	 * On success the database stays blocked until the transaction is over:
	 * before that, a new worker would only run into our locks.
	 */
}
