/*-------------------------------------------------------------------------
 *
 * api.c
 *		SQL functions: exporting snapshots, restore points, and waiting until all that
 *		was committed can be seen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "exec/api.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "snapshot/ask.h"
#include "snapshot/consistent_reads.h"
#include "snapshot/servers.h"
#include "snapshot/take.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/palloc.h"
#include "utils/pg_lsn.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dtx_sql_export_snapshot);
PG_FUNCTION_INFO_V1(dtx_sql_create_restore_point);
PG_FUNCTION_INFO_V1(dtx_sql_wait_until_visible);

static DtxSnapshotServer *get_servers(FunctionCallInfo fcinfo, int argument, int *n);
static void put_row(FunctionCallInfo fcinfo, const char *server, Datum value);
static void export_open(FunctionCallInfo fcinfo, List *servers);
static void export_here(void *arg);
static void restore_point_here(void *arg);

/* ----------------------------------------------------------------
 * Snapshots for others
 * ----------------------------------------------------------------
 */

/*
 * dtx.export_snapshot(servers): (server, snapshot), the coordinator first.
 */
Datum
dtx_sql_export_snapshot(PG_FUNCTION_ARGS)
{
	char	   *here = NULL;
	const DtxSnapshotJob job = {
		.what = _("export a consistent snapshot"),
		.command = "SELECT pg_catalog.pg_export_snapshot()",
		.begins = true,
		.here = export_here,
		.arg = &here
	};
	DtxSnapshotServer *servers;
	List	   *open;
	int			n;

	if (!IsTransactionBlock())
		ereport(ERROR,
				(errcode(ERRCODE_NO_ACTIVE_SQL_TRANSACTION),
				 errmsg("dtx.export_snapshot() can only be used in transaction blocks"),
				 errdetail("The snapshots are gone when the transaction that has exported them ends.")));
	InitMaterializedSRF(fcinfo, 0);
	if (DtxConsistentReadsOpen(&open))
	{
		if (!PG_ARGISNULL(0))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the servers of this transaction's snapshot cannot be chosen again"),
					 errhint("Call dtx.export_snapshot() without servers.")));
		export_open(fcinfo, open);
		return (Datum) 0;
	}
	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("the transaction has a snapshot of its own already"),
				 errhint("Use a transaction of READ COMMITTED, or set \"pg_dtx.consistent_reads\" before its first query.")));

	servers = get_servers(fcinfo, 0, &n);
	DtxConsistentReadsOtherBegin();
	PG_TRY();
	{
		DtxSnapshotTake(servers, n, &job);
		put_row(fcinfo, NULL, CStringGetTextDatum(here));
		for (int i = 0; i < n; i++)
			put_row(fcinfo, servers[i].name,
					CStringGetTextDatum(DtxCleanText(PQgetvalue(servers[i].answer, 0, 0),
													 DTX_MAX_REMOTE_TEXT)));
	}
	PG_FINALLY();
	{
		DtxConsistentReadsOtherEnd();
		DtxSnapshotEnd(servers, n);
	}
	PG_END_TRY();
	return (Datum) 0;
}

static void
export_here(void *arg)
{
	PushActiveSnapshot(GetLatestSnapshot());
	*(char **) arg = ExportSnapshot(GetActiveSnapshot());
	PopActiveSnapshot();
}

/* Those that the transaction has. */
static void
export_open(FunctionCallInfo fcinfo, List *servers)
{
	ListCell   *lc;

	put_row(fcinfo, NULL, CStringGetTextDatum(ExportSnapshot(GetActiveSnapshot())));
	foreach(lc, servers)
	{
		const char *server = (const char *) lfirst(lc);

		put_row(fcinfo, server,
				CStringGetTextDatum(DtxRemoteAsk(server, "SELECT pg_catalog.pg_export_snapshot() AS value")));
	}
}

/* ----------------------------------------------------------------
 * Restore points
 * ----------------------------------------------------------------
 */

/* What is to be created here, and where it is. */
typedef struct RestorePoint
{
	Datum		name;			/* text */
	Datum		lsn;
} RestorePoint;

/*
 * dtx.create_restore_point(name, servers): (server, lsn), the coordinator first.
 *
 * While it is created nothing of this coordinator is prepared anywhere, so that nothing is
 * half committed, or left to be decided, when all servers are restored to it.
 */
Datum
dtx_sql_create_restore_point(PG_FUNCTION_ARGS)
{
	RestorePoint point = {0};
	DtxSnapshotJob job = {
		.what = _("create a restore point"),
		.here = restore_point_here,
		.arg = &point
	};
	DtxSnapshotServer *servers;
	char	   *name;
	int			n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of a restore point must not be null")));
	point.name = PG_GETARG_DATUM(0);
	name = text_to_cstring(DatumGetTextPP(point.name));
	if (name[0] == '\0' || strlen(name) >= MAXFNAMELEN)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name of a restore point must have 1 to %d bytes", MAXFNAMELEN - 1)));
	if (!XLogIsNeeded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("WAL level not sufficient for creating a restore point"),
				 errhint("\"wal_level\" must be set to \"replica\" or \"logical\" at server start.")));
	job.command = psprintf("SELECT pg_catalog.pg_create_restore_point(%s)",
						   quote_literal_cstr(name));

	InitMaterializedSRF(fcinfo, 0);
	servers = get_servers(fcinfo, 1, &n);
	DtxConsistentReadsOtherBegin();
	PG_TRY();
	{
		DtxSnapshotTake(servers, n, &job);
		put_row(fcinfo, NULL, point.lsn);
		for (int i = 0; i < n; i++)
			put_row(fcinfo, servers[i].name,
					DirectFunctionCall1(pg_lsn_in, CStringGetDatum(PQgetvalue(servers[i].answer, 0, 0))));
	}
	PG_FINALLY();
	{
		DtxConsistentReadsOtherEnd();
		DtxSnapshotEnd(servers, n);
	}
	PG_END_TRY();
	return (Datum) 0;
}

static void
restore_point_here(void *arg)
{
	RestorePoint *point = (RestorePoint *) arg;

	point->lsn = DirectFunctionCall1(pg_create_restore_point, point->name);
}

/* ----------------------------------------------------------------
 * What others have committed
 * ----------------------------------------------------------------
 */

/*
 * dtx.wait_until_visible(servers): on return what was committed before can be seen.
 */
Datum
dtx_sql_wait_until_visible(PG_FUNCTION_ARGS)
{
	int			n;
	DtxSnapshotServer *servers = get_servers(fcinfo, 0, &n);

	DtxConsistentReadsOtherBegin();
	PG_TRY();
	{
		DtxSnapshotAwaitFinished(servers, n);
	}
	PG_FINALLY();
	{
		DtxConsistentReadsOtherEnd();
		DtxSnapshotEnd(servers, n);
	}
	PG_END_TRY();
	PG_RETURN_VOID();
}

/* ----------------------------------------------------------------
 * Arguments and rows
 * ----------------------------------------------------------------
 */

/*
 * The servers in an argument of type name[]; null: all that can be used.
 */
static DtxSnapshotServer *
get_servers(FunctionCallInfo fcinfo, int argument, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	char	  **names;

	if (PG_ARGISNULL(argument))
		return DtxSnapshotAllServers(n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(argument), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &values, &nulls, n);
	names = palloc(sizeof(char *) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("server name must not be null")));
		names[i] = NameStr(*DatumGetName(values[i]));
	}
	return DtxSnapshotNamedServers(names, *n);
}

/* A row of the result; server NULL: the coordinator. */
static void
put_row(FunctionCallInfo fcinfo, const char *server, Datum value)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	NameData	name;
	Datum		values[2];
	bool		nulls[2] = {server == NULL, false};

	memset(&name, 0, sizeof(name));
	if (server != NULL)
		namestrcpy(&name, server);
	values[0] = NameGetDatum(&name);
	values[1] = value;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}
