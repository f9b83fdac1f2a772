/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who this database is as a coordinator: its identifier, and the seal of its gids.
 *
 * The identity of a coordinator database is the row of dtx_internal.coordinator, made by
 * CREATE EXTENSION: a random identifier, and a secret with which gids are sealed.
 * Both are part of every physical copy of the database, so they tell a coordinator
 * from others, but not from its own copies; boot.c does that.
 *
 * The table is a materialized view, for the reasons that decision.c gives: nothing of it
 * is replicated, so that a logical replica does not take another identity for its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/siphash.h"
#include "catalog/pg_type.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "state/copies.h"
#include "state/identity.h"
#include "state/tables.h"
#include "storage/itemptr.h"
#include "storage/lmgr.h"
#include "storage/lockdefs.h"
#include "utils/inval.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"

#define SECRET_SIZE		32

/* Which part of the secret is the key of seals. */
#define SEAL_KEY		16

/* dtx_internal.coordinator */
enum
{
	Anum_coordinator_id = 1,
	Anum_coordinator_secret,
	Natts_coordinator = Anum_coordinator_secret
};

static const DtxColumn coordinator_columns[] = {
	{"id", INT8OID},
	{"secret", BYTEAOID}
};
static DtxTable coordinator_table = {
	.name = "coordinator",
	.columns = coordinator_columns,
	.ncolumns = lengthof(coordinator_columns),
	.below_executor = true
};

/* The row of dtx_internal.coordinator that was read last. */
static struct
{
	Oid			relid;			/* the table, InvalidOid: none read */
	uint64		id;
	uint8		secret[SECRET_SIZE];
}			coordinator;

/* The transaction of this session that has last changed it. */
static TransactionId changed_by = InvalidTransactionId;

static void forget_coordinator(Datum arg, Oid relid);
static void read_coordinator(void);
static void write_coordinator(bool insert);

static void
forget_coordinator(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || relid == coordinator.relid)
		coordinator.relid = InvalidOid;
}

/*
 * Have "coordinator" be the row of this database.  In a transaction.  Throws if
 * the extension is not installed or the row is missing.
 */
static void
read_coordinator(void)
{
	static bool registered = false;
	Oid			relid = DtxTableOid(&coordinator_table);
	Relation	rel;
	Snapshot	snapshot;
	TableScanDesc scan;
	TupleTableSlot *slot;
	bool		found = false;

	if (!OidIsValid(relid))
		DtxThrowNotInstalled();
	if (relid == coordinator.relid)
		return;
	if (!registered)
	{
		/* dtx.change_identity() changes the row. */
		CacheRegisterRelcacheCallback(forget_coordinator, (Datum) 0);
		registered = true;
	}

	rel = DtxTableOpenExisting(&coordinator_table, AccessShareLock);

	/*
	 * One of now, which does not become that of the transaction
	 * (GetLatestSnapshot in utils/time/snapmgr.c): it may have none yet.
	 */
	snapshot = RegisterSnapshot(GetCatalogSnapshot(relid));
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	if (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		null_id;
		bool		null_secret;
		Datum		id = slot_getattr(slot, Anum_coordinator_id, &null_id);
		Datum		secret = slot_getattr(slot, Anum_coordinator_secret,
										  &null_secret);

		if (!null_id && !null_secret &&
			VARSIZE_ANY_EXHDR(DatumGetByteaPP(secret)) == SECRET_SIZE)
		{
			coordinator.id = (uint64) DatumGetInt64(id);
			memcpy(coordinator.secret, VARDATA_ANY(DatumGetByteaPP(secret)),
				   SECRET_SIZE);
			found = true;
		}
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	if (!found)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has no valid row", "dtx_internal.coordinator"),
				 errhint("Drop and create extension \"%s\" again.", "pg_dtx")));
	coordinator.relid = relid;
}

/*
 * Make a new identity: insert the row of dtx_internal.coordinator, or change it.  In a
 * transaction.  Throws like any write.
 */
static void
write_coordinator(bool insert)
{
	Relation	rel = DtxTableOpenExisting(&coordinator_table, RowExclusiveLock);
	bytea	   *secret = palloc(VARHDRSZ + SECRET_SIZE);
	Datum		values[Natts_coordinator];
	bool		nulls[Natts_coordinator] = {0};
	HeapTuple	tuple;
	TableScanDesc scan;
	TupleTableSlot *slot;
	ItemPointerData tid;
	bool		found;

	SET_VARSIZE(secret, VARHDRSZ + SECRET_SIZE);
	if (!pg_strong_random(VARDATA(secret), SECRET_SIZE))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random secret for pg_dtx")));
	values[Anum_coordinator_id - 1] = Int64GetDatum((int64) DtxRandomId());
	values[Anum_coordinator_secret - 1] = PointerGetDatum(secret);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);

	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, GetActiveSnapshot());
	found = table_scan_getnextslot(scan, ForwardScanDirection, slot);
	tid = slot->tts_tid;
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	if (found == insert)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 insert ?
				 errmsg("this database has an identity as a coordinator already") :
				 errmsg("this database has no identity as a coordinator")));
	if (insert)
		simple_heap_insert(rel, tuple);
	else
		DtxHeapUpdate(rel, &tid, tuple);
	PopActiveSnapshot();
	heap_freetuple(tuple);
	CacheInvalidateRelcache(rel);
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();
}

/*
 * Give this database an identity, which it does not have yet.  In a transaction.
 * Throws like any write.
 */
void
DtxCoordinatorMake(void)
{
	write_coordinator(true);
}

/*
 * Give it another one, under DtxCoordinatorLock().  Likewise.  The transaction cannot
 * prepare anything afterwards (DtxCoordinatorConfirm).
 */
void
DtxCoordinatorReplace(void)
{
	write_coordinator(false);
	changed_by = GetTopTransactionId();
}

/*
 * Until the end of the transaction nobody prepares anything in the name of this
 * database.  Waits.
 */
void
DtxCoordinatorLock(void)
{
	LockRelationOid(DtxTableOid(&coordinator_table), AccessExclusiveLock);
}

/*
 * The coordinator id of this database.  In a transaction.  Throws if the
 * extension is not installed or its one row is missing.
 */
uint64
DtxCoordinatorId(void)
{
	read_coordinator();
	return coordinator.id;
}

/*
 * Throw if this is not the coordinator id any more.  To be called once the current
 * transaction is published (DtxActivityPublish) and before its first PREPARE:
 * dtx.change_identity() locks the table, and then looks for published transactions, so
 * one of the two sees the other.  Waits for that lock.
 */
void
DtxCoordinatorConfirm(uint64 id)
{
	Oid			relid = DtxTableOid(&coordinator_table);

	/* If we failed, nobody would know that identity. */
	if (TransactionIdIsValid(changed_by) &&
		TransactionIdIsCurrentTransactionId(changed_by))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("cannot commit on several servers in the transaction that calls %s",
						"dtx.change_identity()"),
				 errhint("Commit that first, and write on the servers in another transaction.")));

	if (OidIsValid(relid))
	{
		LockRelationOid(relid, AccessShareLock);
		UnlockRelationOid(relid, AccessShareLock);
	}
	if (DtxCoordinatorId() != id)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("this database has been given a new identity as a coordinator"),
				 errhint("Try the transaction again.")));
}

/*
 * Seal a gid of this database, of which all other fields are set, with one half of the
 * secret.  In a transaction.  Throws.
 */
void
DtxSeal(DtxGid *gid)
{
	char		text[DTX_GID_SIZE];

	StaticAssertStmt(SEAL_KEY + DTX_SIPHASH_KEY_SIZE <= SECRET_SIZE,
					 "the secret is too short");
	read_coordinator();
	gid->seal = 0;
	DtxGidFormat(gid, text);
	gid->seal = DtxSipHash(coordinator.secret + SEAL_KEY, text, strlen(text));
}

/*
 * A hash that nobody can compute who does not know the secret of this database.  In a
 * transaction, because the cryptographic library registers what it allocates with the
 * resource owner (common/hmac_openssl.c).  Throws.
 */
uint64
DtxKeyedHash(const char *data, int len)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *ctx;
	uint64		result;

	read_coordinator();
	ctx = pg_hmac_create(PG_SHA256);
	if (ctx == NULL ||
		pg_hmac_init(ctx, coordinator.secret, SECRET_SIZE) < 0 ||
		pg_hmac_update(ctx, (const uint8 *) data, len) < 0 ||
		pg_hmac_final(ctx, digest, sizeof(digest)) < 0)
	{
		const char *detail = ctx ? pg_hmac_error(ctx) : "out of memory";

		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a keyed hash for pg_dtx"),
				 errdetail_internal("%s", detail)));
	}
	pg_hmac_free(ctx);
	memcpy(&result, digest, sizeof(result));
	return result;
}

/*
 * Did this database give this name?  As DtxSeal().
 */
bool
DtxSealed(const DtxGid *gid)
{
	DtxGid		copy = *gid;

	DtxSeal(&copy);
	return copy.seal == gid->seal;
}
