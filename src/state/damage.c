/*-------------------------------------------------------------------------
 *
 * damage.c
 *		What was finished against its decision by others: recorded in a table,
 *		so that it stays visible until a human acknowledges it.
 *
 * The resolver finds it (resolve/gone.c) and records it in a transaction of its
 * own, before it forgets what it has found it by.  Rows are never deleted.
 *
 * Whatever dtx.force_in_doubt() did on the word of a human is no damage: it is on record
 * already, in dtx_internal.forced_record.  dtx.force_in_doubt() locks that table before
 * it does anything on a server (DtxDamageLockForced), so a session that locks it against
 * writers and then looks sees the row of everything that was forced before.  What it has
 * forgotten is finished as the human said if it appears after all.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "base/compat.h"
#include "base/gid.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "nodes/pg_list.h"
#include "state/damage.h"
#include "state/tables.h"
#include "storage/lmgr.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"

/* Columns of dtx_internal.forced_record, in the order of the extension's script. */
enum
{
	Anum_forced_gid = 1,
	Anum_forced_server,
	Anum_forced_decision
};

static const DtxColumn forced_columns[] = {
	{"gid", TEXTOID},
	{"server", NAMEOID},
	{"decision", TEXTOID}
};
static DtxTable forced = {
	.name = "forced_record",
	.columns = forced_columns,
	.ncolumns = lengthof(forced_columns)
};

static Oid	forced_table(void);
static const char *found_name(DtxFound found);
static const char *found_detail(DtxDecision decided, DtxFound found);

/* OID of dtx_internal.forced_record.  Throws if it is not there. */
static Oid
forced_table(void)
{
	Oid			relid = DtxTableOid(&forced);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						DTX_EXTENSION)));
	return relid;
}

/*
 * Announce that a row of dtx_internal.forced_record is going to be written.  Throws like any
 * locking.
 */
void
DtxDamageLockForced(void)
{
	LockRelationOid(forced_table(), RowExclusiveLock);
}

/*
 * The gids, as texts in the current memory context, that dtx.force_in_doubt() was told
 * to commit, or to roll back, and has forgotten because they were not to be found, as
 * the snapshot sees them.  In a transaction.  Throws like any reading of a table.
 */
void
DtxForced(Snapshot snapshot, List **commits, List **rollbacks)
{
	Relation	rel = DtxTableOpen(&forced, AccessShareLock);
	TableScanDesc scan;
	TupleTableSlot *slot;

	*commits = *rollbacks = NIL;
	if (rel == NULL)
		return;
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;
		char	   *decision;
		char	   *gid;

		/* Forgotten: without a server. */
		if (!slot_attisnull(slot, Anum_forced_server))
			continue;
		decision = TextDatumGetCString(slot_getattr(slot, Anum_forced_decision,
													&isnull));
		gid = TextDatumGetCString(slot_getattr(slot, Anum_forced_gid, &isnull));
		if (strcmp(decision, "commit") == 0)
			*commits = lappend(*commits, gid);
		else
			*rollbacks = lappend(*rollbacks, gid);
		pfree(decision);
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, AccessShareLock);
}

static const char *
found_name(DtxFound found)
{
	switch (found)
	{
		case DTX_FOUND_COMMITTED:
			return "commit";
		case DTX_FOUND_ROLLED_BACK:
			return "rollback";
		case DTX_FOUND_LOST:
			return "lost";
		case DTX_FOUND_REAPPEARED:
			return "reappeared";
		case DTX_FOUND_UNKNOWN:
			break;
	}
	return "unknown";
}

static const char *
found_detail(DtxDecision decided, DtxFound found)
{
	switch (found)
	{
		case DTX_FOUND_COMMITTED:
			return "The transaction has been rolled back, but its changes on this server were committed by hand or by another program.";
		case DTX_FOUND_ROLLED_BACK:
			return "The transaction has committed, but its changes on this server were rolled back by hand or by another program, and are lost.";
		case DTX_FOUND_LOST:
			return "The transaction has committed, but this server has never seen it: it was restored to an earlier time, or is a standby that was promoted without it.";
		case DTX_FOUND_REAPPEARED:
			return "The transaction has committed, and this server had confirmed it. Then its changes were there once more, prepared: the server was restored to an earlier time, or is a standby that was promoted without the confirmation. They are committed again; what else the server has lost is not known.";
		case DTX_FOUND_UNKNOWN:
			break;
	}
	return decided == DTX_COMMIT ?
		"The transaction has committed; its changes on this server were committed or rolled back, and the server cannot tell which: it is too long ago, or another server was promoted in its place." :
		"The transaction has been rolled back; its changes on this server were committed or rolled back, and the server cannot tell which: it is too long ago, or another server was promoted in its place.";
}

/*
 * Record that a prepared transaction was not finished as it was decided, and
 * say so in the server log, once.  "server" is the name of the foreign server.
 *
 * To be called by the resolver in a transaction that does nothing else, and
 * that it commits before it forgets anything.  Returns false if that is not
 * possible now and has to be tried again later: another session may be writing down in
 * this moment that he did it on purpose.  Does not wait for him.  Throws like
 * any write.
 */
bool
DtxDamageRecord(const DtxGid *gid, const char *server, DtxDecision decided,
				DtxFound found, uint64 remote_xid, uint64 system_id)
{
	Oid			types[7] = {TEXTOID, NAMEOID, TEXTOID, TEXTOID, XID8OID,
	INT8OID, TEXTOID};
	Datum		values[7];
	NameData	name;
	char text[	DTX_GID_SIZE];
	bool		recorded;

	if (!ConditionalLockRelationOid(forced_table(), ShareLock))
		return false;

	PushActiveSnapshot(GetTransactionSnapshot());
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	DtxGidFormat(gid, text);
	namestrcpy(&name, server);
	values[0] = CStringGetTextDatum(text);
	values[1] = NameGetDatum(&name);
	values[2] = CStringGetTextDatum(decided == DTX_COMMIT ? "commit" : "rollback");
	values[3] = CStringGetTextDatum(found_name(found));
	values[4] = Int64GetDatum((int64) remote_xid);
	values[5] = Int64GetDatum((int64) system_id);
	values[6] = CStringGetTextDatum(found_detail(decided, found));
	if (SPI_execute_with_args("INSERT INTO dtx_internal.damage_record"
							  " (gid, server, decided, found, since, remote_xid, system_id, detail)"
							  " SELECT $1, $2, $3, $4, pg_catalog.clock_timestamp(), $5, $6, $7"
							  " WHERE NOT EXISTS (SELECT FROM dtx_internal.forced_record f"
							  " WHERE f.gid OPERATOR(pg_catalog.=) $1"
							  " AND (f.decision OPERATOR(pg_catalog.=) $4"
							  " OR $4 OPERATOR(pg_catalog.=) ANY ('{unknown,reappeared}')))"
							  " ON CONFLICT (gid) DO NOTHING",
							  7, types, values, NULL, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into dtx_internal.damage_record");
	recorded = SPI_processed > 0;
	SPI_finish();
	PopActiveSnapshot();

	if (recorded)
		ereport(WARNING,
				(errcode(ERRCODE_DATA_EXCEPTION),
				 found == DTX_FOUND_COMMITTED ?
				 errmsg("prepared transaction \"%s\" was committed on server \"%s\", although its transaction was rolled back",
						text, server) :
				 found == DTX_FOUND_ROLLED_BACK ?
				 errmsg("prepared transaction \"%s\" was rolled back on server \"%s\", although its transaction has committed",
						text, server) :
				 found == DTX_FOUND_LOST ?
				 errmsg("prepared transaction \"%s\" was lost on server \"%s\", although its transaction has committed",
						text, server) :
				 found == DTX_FOUND_REAPPEARED ?
				 errmsg("prepared transaction \"%s\" is there again on server \"%s\", which had committed it",
						text, server) :
				 errmsg("prepared transaction \"%s\" was finished on server \"%s\", and it cannot be found out how",
						text, server),
				 errdetail_internal("%s", found_detail(decided, found)),
				 errhint("Compare the data and repair it by hand, then call dtx.acknowledge_damage(). View \"dtx.damage\" shows the transaction until then.")));
	return true;
}
