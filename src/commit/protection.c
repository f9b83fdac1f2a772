/*-------------------------------------------------------------------------
 *
 * protection.c
 *		What keeps atomicity from being switched off without a word.
 *
 * Statements that would take the extension's tables away from under it, by name,
 * by shape or by membership, are refused.  Transactions that write on several
 * nodes and are not protected, because the extension is not installed or
 * pg_dtx.two_phase_commit is off, are counted, and pg_dtx.require says what else
 * happens to them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/settings.h"
#include "base/stats.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "commands/extension.h"
#include "commit/protection.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "state/tables.h"
#include "tcop/utility.h"
#include "utils/lsyscache.h"

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv,
							   DestReceiver *dest, QueryCompletion *qc);
static void check_statement(Node *stmt);
static void check_alter_table(const AlterTableStmt *stmt);
static Oid	member_relation(const RangeVar *rv);
static void refuse_relation(Oid relid);

/*
 * From the postmaster, when all libraries have been loaded; backends inherit the
 * hook.
 */
void
DtxProtectionInstallHooks(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;
}

/* ----------------------------------------------------------------
 * Transactions without protection
 * ----------------------------------------------------------------
 */

/*
 * The current transaction, which is about to commit, has written on so many nodes
 * for sure, this one included, and postgres_fdw commits them one after the other.
 * Throws if that is not to be.
 */
void
DtxProtectionMissing(int nodes)
{
	static bool warned = false;
	bool		error = dtx_require == DTX_REQUIRE_ERROR;

	if (nodes < 2)
		return;
	if (!error)
		DtxStatsAdd(DTX_STAT_UNPROTECTED, 1);
	if (dtx_require == DTX_REQUIRE_OFF || (warned && !error))
		return;
	warned = true;
	ereport(error ? ERROR : WARNING,
			(errcode(error ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE :
					 ERRCODE_WARNING),
			 error ?
			 errmsg("transaction wrote on several servers, but cannot be committed atomically") :
			 errmsg("transaction wrote on several servers, but is not committed atomically"),
			 dtx_two_phase_commit ?
			 errdetail("Extension \"%s\" is not installed in this database.",
					   DTX_EXTENSION) :
			 errdetail("\"%s\" is off.", "pg_dtx.two_phase_commit"),
			 error ? 0 :
			 errhint("This is said once per session. Whether it is a warning, an error, or nothing, is for superusers to set with \"%s\".",
					 "pg_dtx.require")));
}

/* ----------------------------------------------------------------
 * Statements that are refused
 * ----------------------------------------------------------------
 */

static void
dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	check_statement(pstmt->utilityStmt);
	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * Throw if a statement would take something from the extension that its commits
 * rest on.  The script of an extension may do everything, and so may pg_upgrade, which
 * makes the members one by one.
 */
static void
check_statement(Node *stmt)
{
	switch (nodeTag(stmt))
	{
		case T_RenameStmt:
		case T_AlterObjectSchemaStmt:
		case T_AlterExtensionContentsStmt:
		case T_AlterTableStmt:
		case T_IndexStmt:
		case T_RefreshMatViewStmt:
			break;
		default:
			return;
	}
	if (creating_extension || IsBinaryUpgrade || !IsTransactionState() || !DtxExtensionInstalled())
		return;

	switch (nodeTag(stmt))
	{
		case T_RenameStmt:
			{
				RenameStmt *rename = (RenameStmt *) stmt;

				if (rename->renameType == OBJECT_SCHEMA &&
					(strcmp(rename->subname, DTX_SCHEMA) == 0 ||
					 strcmp(rename->subname, DTX_INTERNAL_SCHEMA) == 0))
					ereport(ERROR,
							(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							 errmsg("cannot rename schema \"%s\"", rename->subname),
							 errdetail("Extension \"%s\" needs it.", DTX_EXTENSION)));
				refuse_relation(member_relation(rename->relation));
				break;
			}

		case T_AlterObjectSchemaStmt:
			refuse_relation(member_relation(((AlterObjectSchemaStmt *) stmt)->relation));
			break;

		case T_AlterExtensionContentsStmt:
			{
				AlterExtensionContentsStmt *alter = (AlterExtensionContentsStmt *) stmt;

				if (alter->action < 0 && strcmp(alter->extname, DTX_EXTENSION) == 0)
					ereport(ERROR,
							(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
							 errmsg("cannot take objects out of extension \"%s\"",
									DTX_EXTENSION),
							 errdetail("It needs them.")));
				break;
			}

		case T_AlterTableStmt:
			check_alter_table((AlterTableStmt *) stmt);
			break;

		case T_IndexStmt:
			{
				Oid			relid = member_relation(((IndexStmt *) stmt)->relation);

				/* Others are written by way of the executor. */
				if (OidIsValid(relid) && get_rel_relkind(relid) == RELKIND_MATVIEW)
					refuse_relation(relid);
				break;
			}

		case T_RefreshMatViewStmt:
			refuse_relation(member_relation(((RefreshMatViewStmt *) stmt)->relation));
			break;

		default:
			break;
	}
}

/*
 * Properties that have no meaning to the code may be changed, but nothing of the
 * decision table.
 */
static void
check_alter_table(const AlterTableStmt *stmt)
{
	Oid			relid = member_relation(stmt->relation);
	ListCell   *lc;

	if (!OidIsValid(relid))
		return;
	if (get_rel_relkind(relid) == RELKIND_MATVIEW)
		refuse_relation(relid);
	foreach(lc, stmt->cmds)
	{
		switch (((AlterTableCmd *) lfirst(lc))->subtype)
		{
			case AT_SetStatistics:
			case AT_SetOptions:
			case AT_ResetOptions:
			case AT_SetStorage:
			case AT_SetCompression:
			case AT_ChangeOwner:
			case AT_ClusterOn:
			case AT_DropCluster:
			case AT_SetTableSpace:
			case AT_SetRelOptions:
			case AT_ResetRelOptions:
			case AT_ReplaceRelOptions:
			case AT_ReplicaIdentity:
			case AT_EnableTrig:
			case AT_EnableAlwaysTrig:
			case AT_EnableReplicaTrig:
			case AT_DisableTrig:
				break;
			default:
				refuse_relation(relid);
		}
	}
}

/*
 * The relation of that name, if it is a member of the extension; else InvalidOid.
 */
static Oid
member_relation(const RangeVar *rv)
{
	Oid			relid = rv != NULL ? RangeVarGetRelid(rv, NoLock, true) : InvalidOid;
	Oid			extid;

	if (!OidIsValid(relid))
		return InvalidOid;
	extid = getExtensionOfObject(RelationRelationId, relid);
	return OidIsValid(extid) && extid == get_extension_oid(DTX_EXTENSION, true) ?
		relid : InvalidOid;
}

static void
refuse_relation(Oid relid)
{
	if (OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot change \"%s.%s\"",
						get_namespace_name(get_rel_namespace(relid)),
						get_rel_name(relid)),
				 errdetail("Extension \"%s\" needs it as it is.", DTX_EXTENSION)));
}
