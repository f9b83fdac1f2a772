/*-------------------------------------------------------------------------
 *
 * identity_functions.c
 *		SQL functions about who this database is.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/gid.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "net/route.h"
#include "nodes/pg_list.h"
#include "saga/at_commit.h"
#include "saga/saga_tables.h"
#include "sql/guards.h"
#include "sql/values.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/identity.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/xid8.h"
#include "worker/wake.h"

static void become_another(const DtxBoots *boots);
static void end_suspension(const char *function, text *reason_text,
						   bool adopted);

PG_FUNCTION_INFO_V1(dtx_sql_make_identity);

/*
 * dtx_internal.make_identity(): by the script of the extension.
 */
Datum
dtx_sql_make_identity(PG_FUNCTION_ARGS)
{
	DtxCoordinatorMake();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(dtx_sql_record_boot);

/*
 * dtx_internal.record_boot()
 */
Datum
dtx_sql_record_boot(PG_FUNCTION_ARGS)
{
	DtxBootRecord();
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(dtx_sql_gid);

/*
 * dtx_internal.gid(xid xid8, n int, boot_id bigint): the name of participant n of a
 * transaction; boot_id null: of the current boot.
 */
Datum
dtx_sql_gid(PG_FUNCTION_ARGS)
{
	DtxGid		gid;
	char text[	DTX_GID_SIZE];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	memset(&gid, 0, sizeof(gid));
	gid.coordinator_id = DtxCoordinatorId();
	gid.dbid = MyDatabaseId;
	gid.boot_id = PG_ARGISNULL(2) ? DtxBootId() : (uint64) PG_GETARG_INT64(2);
	gid.xid = U64FromFullTransactionId(PG_GETARG_FULLTRANSACTIONID(0));
	gid.n = (uint32) PG_GETARG_INT32(1);
	DtxSeal(&gid);
	DtxGidFormat(&gid, text);
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

PG_FUNCTION_INFO_V1(dtx_sql_adopt_identity);

/*
 * dtx.adopt_identity(reason): this server goes on as the original.
 */
Datum
dtx_sql_adopt_identity(PG_FUNCTION_ARGS)
{
	end_suspension("dtx.adopt_identity()",
				   PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0), true);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(dtx_sql_new_identity);

/*
 * dtx.change_identity(reason): this server is a copy, and becomes a coordinator of
 * its own.
 */
Datum
dtx_sql_new_identity(PG_FUNCTION_ARGS)
{
	end_suspension("dtx.change_identity()",
				   PG_ARGISNULL(0) ? NULL : PG_GETARG_TEXT_PP(0), false);
	PG_RETURN_VOID();
}

/*
 * The part of dtx.change_identity() that makes this database another coordinator, to
 * which nothing belongs that was made before this boot.
 */
static void
become_another(const DtxBoots *boots)
{
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ListCell   *lc;

	foreach(lc, DtxDecisionScan(snapshot))
		(void) DtxDecisionDelete((DtxDecisionRow *) lfirst(lc));
	UnregisterSnapshot(snapshot);

	DtxBootDeleteFormer(boots);
	DtxRouteDeleteAll();

	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	DtxSagaDisown(false);
	SPI_finish();
	PopActiveSnapshot();
	CommandCounterIncrement();

	DtxCoordinatorReplace();

	CommandCounterIncrement();
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	DtxSagaDisown(true);
	SPI_finish();
	PopActiveSnapshot();
}

/*
 * What both have in common.
 *
 * A new identity makes all gids of the old one another coordinator's, and decisions
 * about them useless.  So no transaction of the current boot may be under way or in
 * doubt (DtxCoordinatorConfirm sees to those that begin now).  Those of former boots are
 * the original's if resolution is suspended; otherwise they are ours, and there must be
 * none.
 */
static void
end_suspension(const char *function, text *reason_text, bool adopted)
{
	char	   *by_user = GetUserNameFromId(GetSessionUserId(), false);
	char	   *reason;
	DtxBoots   *boots;
	bool		suspended;

	reason = DtxReason(reason_text, function, "table \"dtx_internal.boot\"");
	PreventCommandIfReadOnly(function);

	if (!adopted)
		DtxCoordinatorLock();
	DtxBootRecord();
	boots = DtxBootsRead(NULL);
	suspended = DtxBootsSuspended(boots);

	if (adopted && !suspended)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("resolution is not suspended in this database")));
	if (!adopted)
		DtxCheckNothingInDoubt(suspended);

	if (!adopted)
		become_another(boots);

	DtxBootEndSuspension(adopted ? "original" : "copy", by_user, reason);

	ereport(LOG,
			(adopted ?
			 errmsg("user \"%s\" declared this server to be the original of its database", by_user) :
			 errmsg("user \"%s\" declared this server to be a copy, with a new identity", by_user),
			 errdetail("Reason: %s", reason)));
	DtxLauncherWakeResolver(MyDatabaseId);
	DtxSagaWakeAtCommit();
}
