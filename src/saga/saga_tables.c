/*-------------------------------------------------------------------------
 *
 * saga_tables.c
 *		Has this database the tables of sagas, and which of the sagas in them are its own?
 *
 * What a saga is, and what is to become of it, is known by tables and functions in
 * PL/pgSQL (the extension's script).  C calls them, and decides nothing about states.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "base/compat.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "saga/saga_tables.h"
#include "state/boot.h"
#include "state/identity.h"
#include "state/tables.h"
#include "storage/lockdefs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "worker/wake.h"

/*
 * Where the sagas of this database belong: a number that no copy of it has, be it in
 * this cluster or in another one.  (The views compute the same.)
 */
static int64
saga_home(void)
{
	return (int64) (DtxCoordinatorId() ^ (uint64) MyDatabaseId);
}

/* Has this database the tables of sagas?  In a transaction. */
bool
DtxSagaInstalled(void)
{
	static DtxVerified verified;

	return OidIsValid(DtxExtensionTable("saga_step_record", &verified));
}

/*
 * OID of the table of sagas, InvalidOid if there is none.  In a transaction.
 */
Oid
DtxSagaTable(void)
{
	static DtxVerified verified;

	return DtxExtensionTable("saga_record", &verified);
}

/*
 * Is there a saga of this database that is neither completed nor compensated?  (Those
 * that were copied with the database go on in the original.)  The table is read as it
 * is, because its indexes and the functions may have been dropped already.  To be
 * called in a transaction that has locked the table.  Throws what reading a table
 * throws.
 */
bool
DtxSagaUnfinished(void)
{
	Relation	rel = table_open(DtxSagaTable(), NoLock);
	AttrNumber	finished_at = get_attnum(RelationGetRelid(rel), "finished_at");
	AttrNumber	home = get_attnum(RelationGetRelid(rel), "home");
	static DtxVerified verified;
	bool		known = OidIsValid(DtxExtensionTable("coordinator", &verified));
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = DtxTableBeginScan(rel, snapshot);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found = slot_attisnull(slot, finished_at) &&
			(!known || DatumGetInt64(slot_getattr(slot, home, &isnull)) == saga_home());
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/*
 * How many sagas that have not ended need a foreign server.  In a transaction; throws if the
 * extension's functions were dropped before its tables.
 */
int64
DtxSagasNeedServer(Oid serverid)
{
	static const Oid types[] = {OIDOID};
	Datum		args[lengthof(types)] = {ObjectIdGetDatum(serverid)};
	bool		isnull;
	int64		n;

	/* pg_upgrade gives servers their owners before tables their rows. */
	if (IsBinaryUpgrade || !DtxSagaInstalled())
		return 0;
	PushActiveSnapshot(GetLatestSnapshot());
	n = DatumGetInt64(DtxSagaCall("saga_need_server", lengthof(types), types, args,
								  NULL, &isnull));
	PopActiveSnapshot();
	return isnull ? 0 : n;
}

/*
 * To be called once in the life of a resolver, in a transaction: what was scheduled
 * before the server was restarted.  Throws what calling a function of the extension
 * throws.
 */
void
DtxSagaProbe(void)
{
	bool		isnull;
	bool		any;
	bool		installed;

	PushActiveSnapshot(GetTransactionSnapshot());
	installed = DtxSagaInstalled();
	any = installed &&
		DatumGetBool(DtxSagaCall("saga_any", 0, NULL, NULL, NULL, &isnull)) &&
		!isnull;
	PopActiveSnapshot();
	if (any)
		DtxLauncherWakeSagas(MyDatabaseId);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_own_xid);

/*
 * dtx_internal.saga_own_xid(xid): is it that of the current transaction, or of one of its
 * subtransactions that has not been rolled back?
 */
Datum
dtx_sql_saga_own_xid(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(TransactionIdIsCurrentTransactionId(DatumGetTransactionId(PG_GETARG_DATUM(0))));
}

PG_FUNCTION_INFO_V1(dtx_sql_boot_id);

/*
 * dtx_internal.boot_id()
 */
Datum
dtx_sql_boot_id(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64((int64) DtxBootId());
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_home);

/*
 * dtx_internal.saga_home()
 */
Datum
dtx_sql_saga_home(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(saga_home());
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_active_home);

/*
 * dtx_internal.saga_active_home(): a copy of a server must not go on with sagas of the
 * original, nor a server whose former self may be alive.
 */
Datum
dtx_sql_saga_active_home(PG_FUNCTION_ARGS)
{
	if (DtxBootsSuspended(DtxBootsRead(NULL)))
		PG_RETURN_NULL();
	PG_RETURN_INT64(saga_home());
}

/*
 * The server gets a new identity: sagas of the old one, those of former boots, are the
 * original's.  In the transaction of dtx.change_identity(), with SPI connected, before
 * the identity is replaced (false), and after that (true).
 */
void
DtxSagaDisown(bool replaced)
{
	static const char *const disown[] = {
		"UPDATE dtx_internal.saga_external SET home = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_inbox SET home = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_step_record SET home = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_record SET home = 0"
		" WHERE boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id()",
		"UPDATE dtx_internal.saga_outage SET home = 0",
		"UPDATE dtx_internal.saga_external SET home = 1 WHERE home OPERATOR(pg_catalog.=) dtx_internal.saga_home()",
		"UPDATE dtx_internal.saga_inbox SET home = 1 WHERE home OPERATOR(pg_catalog.=) dtx_internal.saga_home()",
		"UPDATE dtx_internal.saga_step_record SET home = 1 WHERE home OPERATOR(pg_catalog.=) dtx_internal.saga_home()",
		"UPDATE dtx_internal.saga_record SET home = 1 WHERE home OPERATOR(pg_catalog.=) dtx_internal.saga_home()"
	};
	static const char *const take[] = {
		"UPDATE dtx_internal.saga_external SET home = dtx_internal.saga_home() WHERE home OPERATOR(pg_catalog.=) 1",
		"UPDATE dtx_internal.saga_inbox SET home = dtx_internal.saga_home() WHERE home OPERATOR(pg_catalog.=) 1",
		"UPDATE dtx_internal.saga_step_record SET home = dtx_internal.saga_home() WHERE home OPERATOR(pg_catalog.=) 1",
		"UPDATE dtx_internal.saga_record SET home = dtx_internal.saga_home() WHERE home OPERATOR(pg_catalog.=) 1"
	};
	const char *const *commands = replaced ? take : disown;
	int			n = replaced ? lengthof(take) : lengthof(disown);

	if (!DtxSagaInstalled())
		return;
	for (int i = 0; i < n; i++)
	{
		if (SPI_execute(commands[i], false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not update the tables of sagas");
	}
}
