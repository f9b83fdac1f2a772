/*-------------------------------------------------------------------------
 *
 * guards.c
 *		What must not be dropped, and what is said when it is: decisions, sagas, the extension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/settings.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_foreign_server.h"
#include "commands/extension.h"
#include "commit/late.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "saga/saga_tables.h"
#include "sql/guards.h"
#include "sql/server_changes.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "worker/wake.h"

static object_access_hook_type prev_object_access_hook = NULL;

static void dtx_object_access(ObjectAccessType access, Oid classId,
							  Oid objectId, int subId, void *arg);

PG_FUNCTION_INFO_V1(dtx_sql_wake_resolver);

/*
 * Let the launcher know that this database may need a resolver.
 */
Datum
dtx_sql_wake_resolver(PG_FUNCTION_ARGS)
{
	DtxLauncherWakeResolver(MyDatabaseId);
	PG_RETURN_VOID();
}

/*
 * With the decision table the decisions are dropped, and with the table of sagas
 * what is to become of them.  Refuse while one is needed.  (When the extension
 * is dropped, its tables go before it does: catalog/dependency.c,
 * deleteObjectsInList.)
 */
static void
dtx_object_access(ObjectAccessType access, Oid classId, Oid objectId,
				  int subId, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, classId, objectId, subId, arg);

	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		objectId == DtxDecisionTable())
		DtxCheckNothingInDoubt(false);
	if (access == OAT_DROP && classId == RelationRelationId && subId == 0 &&
		objectId == DtxSagaTable() && DtxSagaUnfinished())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop the sagas of \"%s\"", "pg_dtx"),
				 errdetail("Some have not ended. What they have done so far would neither be completed nor compensated."),
				 errhint("Wait until view \"dtx.sagas\" shows no others than completed and compensated ones, or end them with dtx.force_saga().")));

	/*
	 * The resolver may have kept a connection to it, if it was there.
	 * (Otherwise a user who may create servers could have all others visited
	 * again and again.)
	 */
	if (access == OAT_DROP && classId == ForeignServerRelationId)
	{
		DtxServerStatus status;

		if (DtxServerStatusGet(MyDatabaseId, objectId, &status))
			DtxLauncherAskPass();
	}

	if (access == OAT_POST_ALTER && classId == ForeignServerRelationId)
		DtxServerChanged(objectId);

	if ((access == OAT_DROP || access == OAT_POST_ALTER) && classId == ForeignServerRelationId)
	{
		int64		n = DtxSagasNeedServer(objectId);

		if (n > 0 && access == OAT_DROP)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop server \"%s\"",
							GetForeignServer(objectId)->servername),
					 errdetail_plural("%lld saga that has not ended has done something there that may have to be undone, or is going to.",
									  "%lld sagas that have not ended have done something there that may have to be undone, or are going to.",
									  (unsigned long) n, (long long) n),
					 errhint("Wait for them, or end them with dtx.cancel_saga() or dtx.force_saga().")));
		if (n > 0)
			ereport(WARNING,
					(errmsg("sagas need server \"%s\", which was changed",
							GetForeignServer(objectId)->servername),
					 errdetail_plural("%lld saga has not ended.", "%lld sagas have not ended.",
									  (unsigned long) n, (long long) n),
					 errhint("Under another name they undo what they have done there, but find it for nothing else; if it leads to another cluster, they stop.")));
	}

	if (access == OAT_DROP && classId == ExtensionRelationId &&
		objectId == get_extension_oid(DTX_EXTENSION, true) &&
		DtxPostgresFdwServers() != NIL)
		ereport(NOTICE,
				(errmsg("transactions that write on several servers are not committed atomically any more in this database"),
				 errdetail("It has servers of postgres_fdw, and extension \"%s\" is dropped.",
						   DTX_EXTENSION)));
}

/*
 * Are there decision rows that may be needed?  A full pass finds out, and deletes those
 * that are not: let one begin soon.  In a transaction; throws what reading the table
 * throws.
 */
bool
DtxAskPassIfDecisions(bool current_boot_only)
{
	if (!DtxDecisionAnyNeeded(current_boot_only))
		return false;
	DtxLauncherAskPass();
	return true;
}

/*
 * Throw if something of this database may be in doubt, or, with
 * "current_boot_only", something of the current boot.  By the holder of a lock on
 * dtx_internal.decision with which nobody records a decision.  Throws on interrupts, too.
 */
void
DtxCheckNothingInDoubt(bool current_boot_only)
{
	int			pid;
	bool		in_doubt = false;
	bool		decisions;
	ListCell   *lc;

	/*
	 * What this session has not waited for; it cannot show as another
	 * session's.
	 */
	DtxLateAwaitAll();

	/*
	 * Locks are released before phase two and before the end of an abort, and
	 * a session makes its entries before it lets go: look in this order.
	 */
	pid = DtxActivityAnyCommitting();
	foreach(lc, DtxInDoubtList(MyDatabaseId))
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

		in_doubt |= !current_boot_only || entry->gid.boot_id == DtxBootId();
	}
	decisions = DtxAskPassIfDecisions(current_boot_only);

	if (pid != 0 || in_doubt || decisions)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop the decisions of \"%s\"", "pg_dtx"),
				 errdetail("Transactions may be in doubt: not all prepared foreign transactions are known to be finished, and the record of what is to become of them would be lost."),
				 pid != 0 ?
				 errhint("Wait for the session with process ID %d. If it is idle, its COMMIT has not waited for the servers (\"%s\" is off); its next command on each of them will, or its end.",
						 pid, "pg_dtx.commit_wait") :
				 in_doubt || !dtx_resolver ?
				 errhint("Wait until view \"dtx.in_doubt\" is empty, run dtx.resolve_in_doubt(), or finish them with dtx.force_in_doubt().") :
				 errhint("The resolver has been told to look at them. Try again in a few seconds.")));
}

/*
 * Install the hook.  Called at server start.
 */
void
DtxGuardsInstallHook(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = dtx_object_access;
}
