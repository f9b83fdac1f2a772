/*-------------------------------------------------------------------------
 *
 * drop_extension.c
 *		DROP EXTENSION takes its locks without meeting others in a deadlock.
 *
 * It needs all relations of the extension for itself, and PostgreSQL locks them one
 * after the other, in the order of pg_depend.  Workers of sagas, sessions that commit,
 * and readers of views take theirs in the orders in which they need them.  So before
 * PostgreSQL does, they are locked here such that nothing is held while one is waited
 * for: wait for one, try the others, and if one of them is not free, let go of all and
 * wait for that one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "catalog/dependency.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "sql/drop_extension.h"
#include "state/tables.h"
#include "storage/lmgr.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

static ProcessUtility_hook_type prev_ProcessUtility = NULL;

static void dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
							   bool readOnlyTree,
							   ProcessUtilityContext context,
							   ParamListInfo params,
							   QueryEnvironment *queryEnv,
							   DestReceiver *dest, QueryCompletion *qc);
static bool drops_extension(const Node *stmt);
static List *relations_of(Oid extid);
static void lock_all(List *relations);

/*
 * At server start.
 */
void
DtxDropExtensionInstallHook(void)
{
	prev_ProcessUtility = ProcessUtility_hook;
	ProcessUtility_hook = dtx_ProcessUtility;
}

static void
dtx_ProcessUtility(PlannedStmt *pstmt, const char *queryString,
				   bool readOnlyTree, ProcessUtilityContext context,
				   ParamListInfo params, QueryEnvironment *queryEnv,
				   DestReceiver *dest, QueryCompletion *qc)
{
	if (drops_extension(pstmt->utilityStmt) && IsTransactionState() &&
		!RecoveryInProgress())
	{
		Oid			extid = get_extension_oid(DTX_EXTENSION, true);

		/* Who may not drop it gets his error from PostgreSQL, and no lock. */
		if (OidIsValid(extid) && DtxExtensionOwnercheck(extid, GetUserId()))
			lock_all(relations_of(extid));
	}

	if (prev_ProcessUtility)
		prev_ProcessUtility(pstmt, queryString, readOnlyTree, context,
							params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context,
								params, queryEnv, dest, qc);
}

/*
 * Is this DROP EXTENSION, of pg_dtx or of what it requires?
 */
static bool
drops_extension(const Node *stmt)
{
	const DropStmt *drop = (const DropStmt *) stmt;
	ListCell   *lc;

	if (!IsA(stmt, DropStmt) || drop->removeType != OBJECT_EXTENSION)
		return false;
	foreach(lc, drop->objects)
	{
		const char *name = strVal(lfirst(lc));

		if (strcmp(name, DTX_EXTENSION) == 0 ||
			(drop->behavior == DROP_CASCADE && strcmp(name, "postgres_fdw") == 0))
			return true;
	}
	return false;
}

/*
 * OIDs of the tables, views and sequences that are members of an extension.
 */
static List *
relations_of(Oid extid)
{
	Relation	rel = table_open(DependRelationId, AccessShareLock);
	List	   *relations = NIL;
	ScanKeyData key[2];
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(ExtensionRelationId));
	ScanKeyInit(&key[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(extid));
	scan = systable_beginscan(rel, DependReferenceIndexId, true, NULL, 2, key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend depend = (Form_pg_depend) GETSTRUCT(tuple);

		if (depend->classid == RelationRelationId &&
			depend->deptype == DEPENDENCY_EXTENSION)
			relations = lappend_oid(relations, depend->objid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return relations;
}

/*
 * Lock them until the end of the transaction.  Interruptible, and throws when
 * lock_timeout is over, which counts for each wait.
 */
static void
lock_all(List *relations)
{
	int			n = list_length(relations);
	int			first = 0;		/* the one to wait for */
	int			busy;			/* the one that was not free, or n */

	if (n == 0)
		return;
	do
	{
		LockRelationOid(list_nth_oid(relations, first), AccessExclusiveLock);
		for (busy = 0; busy < n; busy++)
		{
			if (busy != first &&
				!ConditionalLockRelationOid(list_nth_oid(relations, busy),
											AccessExclusiveLock))
				break;
		}
		if (busy == n)
			break;
		for (int i = 0; i < busy; i++)
		{
			if (i != first)
				UnlockRelationOid(list_nth_oid(relations, i), AccessExclusiveLock);
		}
		UnlockRelationOid(list_nth_oid(relations, first), AccessExclusiveLock);
		first = busy;
	} while (true);
}
