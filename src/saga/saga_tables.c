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
#include "base/compat.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "saga/saga_tables.h"
#include "state/boot.h"
#include "state/tables.h"
#include "storage/lockdefs.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "worker/wake.h"

/* Has this database the tables of sagas?  In a transaction. */
bool
DtxSagaInstalled(void)
{
	static Oid	verified = InvalidOid;

	return OidIsValid(DtxExtensionTable("saga_step_record", &verified));
}

/*
 * OID of the table of sagas, InvalidOid if there is none.  In a transaction.
 */
Oid
DtxSagaTable(void)
{
	static Oid	verified = InvalidOid;

	return DtxExtensionTable("saga_record", &verified);
}

/*
 * Is there a saga of this database that is neither completed nor compensated?
 * (Those that were copied with the database go on in the original.)  The table is
 * read as it is, because its indexes and the functions may have been dropped
 * already.  To be called in a transaction that has locked the table.
 */
bool
DtxSagaUnfinished(void)
{
	Relation	rel = table_open(DtxSagaTable(), NoLock);
	AttrNumber	finished_at = get_attnum(RelationGetRelid(rel), "finished_at");
	AttrNumber	database = get_attnum(RelationGetRelid(rel), "database");
	Snapshot	snapshot = RegisterSnapshot(GetLatestSnapshot());
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	TableScanDesc scan = DtxTableBeginScan(rel, snapshot);
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found = slot_attisnull(slot, finished_at) &&
			DatumGetObjectId(slot_getattr(slot, database, &isnull)) == MyDatabaseId;
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return found;
}

/*
 * To be called once in the life of a resolver, in a transaction: what was
 * scheduled before the server was restarted.
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

PG_FUNCTION_INFO_V1(dtx_sql_saga_database);

/*
 * dtx_internal.saga_database()
 */
Datum
dtx_sql_saga_database(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(MyDatabaseId);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_active_database);

/*
 * dtx_internal.saga_active_database(): a copy of a server must not go on with sagas of the
 * original, nor a server whose former self may be alive.
 */
Datum
dtx_sql_saga_active_database(PG_FUNCTION_ARGS)
{
	if (DtxBootsSuspended(DtxBootsRead(NULL)))
		PG_RETURN_NULL();
	PG_RETURN_OID(MyDatabaseId);
}

/*
 * The server has got a new identity: sagas of the old one, those of former boots, are
 * the original's.  In the transaction of dtx.change_identity(), with SPI connected.
 */
void
DtxSagaDisown(void)
{
	static const char *const commands[] = {
		"UPDATE dtx_internal.saga_external SET database = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_step_record SET database = 0 WHERE saga IN"
		" (SELECT g.id FROM dtx_internal.saga_record AS g WHERE g.boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id())",
		"UPDATE dtx_internal.saga_record SET database = 0"
		" WHERE boot_id OPERATOR(pg_catalog.<>) dtx_internal.boot_id()"
	};

	if (!DtxSagaInstalled())
		return;
	for (int i = 0; i < lengthof(commands); i++)
	{
		if (SPI_execute(commands[i], false, 0) != SPI_OK_UPDATE)
			elog(ERROR, "could not update the tables of sagas");
	}
}
