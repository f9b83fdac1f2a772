/*-------------------------------------------------------------------------
 *
 * identity.c
 *		Who this database is: its identifier as a coordinator, the seal of its
 *		gids, and the boots of the server that it remembers.
 *
 * The identity of a coordinator database is the row of dtx_internal.coordinator, made by
 * CREATE EXTENSION: a random identifier, and a secret with which gids are sealed.
 * Both are part of every physical copy of the database, so they tell a
 * coordinator from others, but not from its own copies.
 *
 * What tells copies apart is the boot: a random identifier made when shared
 * memory is.  It is part of every gid, and two living servers never have the same
 * one.  dtx_internal.boot remembers the boots of this database, each in a row that is
 * committed before the first gid of that boot is made.  So a gid of the current
 * boot is this server's own; one of a boot in the table was made by this server
 * or by a server of which it is a copy; one of any other boot is somebody else's
 * and is never touched.
 *
 * Both are materialized views, for the reasons that decision.c gives: nothing of them
 * is replicated, so that a logical replica does not take another identity, nor another
 * server's boots, for its own.
 *
 * A former boot is judged as if it had ended, which is wrong if the original is
 * alive, and its end may be missing if this database was restored.  So when a row
 * is written, the one before it is compared with what the server can know of
 * itself:
 *
 *	- Was it recovered from a backup, or to a target?  (recovery.signal, or
 *	  backup_label without standby.signal, at a start since then.  Such a start
 *	  leaves a random number in a file in the data directory.)
 *	- Is it another cluster now (pg_upgrade, pg_resetwal), or is the timeline an
 *	  earlier one?
 *	- On the same timeline, is it another machine, or is pg_control another file?
 *	  Then the data directory was copied or moved.  On a later timeline both may
 *	  differ: a standby was promoted.
 *
 * If so, or if something of a former boot is prepared long after this boot began,
 * resolution of all former boots is suspended until a human says who this
 * is: dtx.adopt_identity(), or dtx.change_identity().  The current boot goes on
 * meanwhile, new transactions included: its gids are not those of any other
 * server.
 *
 * What cannot be told apart from a crash: a copy of a whole disk or machine that
 * keeps its inode numbers and its machine identifier, started beside the
 * original; and that of a primary server whose standby was promoted beside it.
 * There the first minute is not protected.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/table.h"
#include "access/tableam.h"
#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogrecovery.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "common/controldata_utils.h"
#include "common/hashfn.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "datatype/timestamp.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "net/route.h"
#include "resolve/judge.h"
#include "saga/at_commit.h"
#include "saga/saga_tables.h"
#include "sql/admin.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/tables.h"
#include "storage/fd.h"
#include "storage/itemptr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/shmem.h"
#include "tcop/utility.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"
#include "worker/wake.h"

PG_FUNCTION_INFO_V1(dtx_sql_make_identity);
PG_FUNCTION_INFO_V1(dtx_sql_record_boot);
PG_FUNCTION_INFO_V1(dtx_sql_gid);
PG_FUNCTION_INFO_V1(dtx_sql_adopt_identity);
PG_FUNCTION_INFO_V1(dtx_sql_new_identity);

/* In the data directory: a number that each recovery from a backup changes. */
#define RECOVERY_FILE	"pg_dtx.recovery_id"

#define MACHINE_FILE	"/etc/machine-id"
#define MACHINE_SEED	UINT64CONST(0x70675f647478)	/* "pg_dtx" */
#define CONTROL_FILE	"global/pg_control"

#define SECRET_SIZE		32

/* How often a backend looks whether its boot has been recorded, milliseconds. */
#define RECORD_POLL_MS	10

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

/* dtx_internal.boot */
enum
{
	Anum_boot_boot_id = 1,
	Anum_boot_ordinal,
	Anum_boot_started_at,
	Anum_boot_floor_xid,
	Anum_boot_next_xid,
	Anum_boot_proven_xid,
	Anum_boot_timeline,
	Anum_boot_system_id,
	Anum_boot_machine,
	Anum_boot_control_file,
	Anum_boot_recovery_id,
	Anum_boot_suspended,
	Anum_boot_ended_at,
	Anum_boot_ended_by,
	Anum_boot_ended_as,
	Anum_boot_reason,
	Natts_boot = Anum_boot_reason
};

static const DtxColumn boot_columns[] = {
	{"boot_id", INT8OID},
	{"ordinal", INT4OID},
	{"started_at", TIMESTAMPTZOID},
	{"floor_xid", XID8OID},
	{"next_xid", XID8OID},
	{"proven_xid", XID8OID},
	{"timeline", INT8OID},
	{"system_id", INT8OID},
	{"machine", TEXTOID},
	{"control_file", INT8OID},
	{"recovery_id", INT8OID},
	{"suspended", TEXTOID},
	{"ended_at", TIMESTAMPTZOID},
	{"ended_by", NAMEOID},
	{"ended_as", TEXTOID},
	{"reason", TEXTOID}
};
static DtxTable boot_table = {
	.name = "boot",
	.columns = boot_columns,
	.ncolumns = lengthof(boot_columns),
	.below_executor = true
};

/* Constant after init, but for first_xid: no lock. */
typedef struct IdentityShared
{
	uint64		boot_id;		/* random */
	TimestampTz started_at;
	DtxMoment	started;		/* the same, by a clock that nobody sets */
	uint64		floor_xid;		/* next full xid of the last checkpoint before */
	pg_atomic_uint64 first_xid; /* the first one that this boot could assign, or a
								 * higher one; 0: not known yet */
	uint64		recovery_id;	/* content of RECOVERY_FILE, 0 if there is none */
} IdentityShared;

static IdentityShared *shared = NULL;

/* The row of dtx_internal.coordinator that was read last. */
static struct
{
	Oid			relid;			/* the table, InvalidOid: none read */
	uint64		id;
	uint8		secret[SECRET_SIZE];
}			coordinator;

/* The transaction of this session that has last changed it. */
static TransactionId changed_by = InvalidTransactionId;

/* The dtx_internal.boot that is known to have the row of the current boot. */
static Oid	recorded_in = InvalidOid;

static void read_coordinator(void);
static void forget_coordinator(Datum arg, Oid relid);
static void write_coordinator(bool insert);
static bool find_boot(Relation rel, TupleTableSlot *slot, uint64 boot_id);
static void update_boot(const Datum *values, const bool *nulls,
						const bool *replaces);
static uint64 recovery_id(void);
static uint64 random_id(void);
static char *machine_id(void);
static uint64 control_file(void);
static const char *why_suspend(const DtxBoot *last, const DtxBoot *now);
static void become_another(const DtxBoots *boots);
static void end_suspension(const char *function, text *reason, bool adopted);
static void throw_not_installed(void);

/* ----------------------------------------------------------------
 * Shared memory
 * ----------------------------------------------------------------
 */

Size
DtxIdentityShmemSize(void)
{
	return MAXALIGN(sizeof(IdentityShared));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.  By the
 * postmaster, before recovery begins: pg_control and the signal files are as the
 * start found them.  Throws, so that the server does not start, if the recovery
 * from a backup cannot be noted.
 */
void
DtxIdentityShmemInit(void)
{
	bool		found;
	bool		crc_ok;
	ControlFileData *control;

	shared = ShmemInitStruct("pg_dtx identity", DtxIdentityShmemSize(), &found);
	if (found)
		return;

	shared->boot_id = random_id();
	shared->started_at = GetCurrentTimestamp();
	shared->started = DtxNow();
	pg_atomic_init_u64(&shared->first_xid, 0);
	control = get_controlfile(DataDir, &crc_ok);
	shared->floor_xid = crc_ok ?
		U64FromFullTransactionId(control->checkPointCopy.nextXid) : 0;
	pfree(control);
	shared->recovery_id = recovery_id();
}

/*
 * Was this server started to be recovered from a backup, or to a target?  Then
 * note a new number in the data directory.  Returns the number there, or 0.
 */
static uint64
recovery_id(void)
{
	struct stat st;
	bool		recovery = stat(RECOVERY_SIGNAL_FILE, &st) == 0;
	bool		standby = stat(STANDBY_SIGNAL_FILE, &st) == 0;
	bool		backup = stat(BACKUP_LABEL_FILE, &st) == 0;
	uint64		id = 0;
	char		text[32];
	int			fd;
	int			len;

	if ((recovery && !standby) || (backup && !standby) ||
		((recovery || standby) && recoveryTarget != RECOVERY_TARGET_UNSET))
	{
		id = random_id();
		snprintf(text, sizeof(text), "%016llx\n", (unsigned long long) id);
		fd = BasicOpenFile(RECOVERY_FILE ".tmp",
						   O_CREAT | O_TRUNC | O_WRONLY | PG_BINARY);
		if (fd < 0 || write(fd, text, strlen(text)) != strlen(text) ||
			pg_fsync(fd) != 0 || close(fd) != 0)
			ereport(ERROR,
					(errcode_for_file_access(),
					 errmsg("could not write file \"%s\": %m",
							RECOVERY_FILE ".tmp")));
		(void) durable_rename(RECOVERY_FILE ".tmp", RECOVERY_FILE, ERROR);
		return id;
	}

	fd = BasicOpenFile(RECOVERY_FILE, O_RDONLY | PG_BINARY);
	if (fd < 0)
	{
		if (errno == ENOENT)
			return 0;
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", RECOVERY_FILE)));
	}
	len = read(fd, text, sizeof(text) - 1);
	(void) close(fd);
	text[Max(len, 0)] = '\0';
	id = strtou64(text, NULL, 16);
	if (id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("invalid content of file \"%s\"", RECOVERY_FILE)));
	return id;
}

/* A random number that is not 0. */
static uint64
random_id(void)
{
	uint64		id;

	do
	{
		if (!pg_strong_random(&id, sizeof(id)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random identifier for pg_dtx")));
	} while (id == 0);
	return id;
}

/*
 * The identity of this life of shared memory.
 */
uint64
DtxBootId(void)
{
	return shared->boot_id;
}

/* ----------------------------------------------------------------
 * The coordinator's identifier and its seal
 * ----------------------------------------------------------------
 */

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
		throw_not_installed();
	if (relid == coordinator.relid)
		return;
	if (!registered)
	{
		/* dtx.change_identity() changes the row. */
		CacheRegisterRelcacheCallback(forget_coordinator, (Datum) 0);
		registered = true;
	}

	rel = DtxTableOpen(&coordinator_table, AccessShareLock);
	if (rel == NULL)
		throw_not_installed();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
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
	Relation	rel = DtxTableOpen(&coordinator_table, RowExclusiveLock);
	bytea	   *secret = palloc(VARHDRSZ + SECRET_SIZE);
	Datum		values[Natts_coordinator];
	bool		nulls[Natts_coordinator] = {0};
	HeapTuple	tuple;
	TableScanDesc scan;
	TupleTableSlot *slot;
	ItemPointerData tid;
	bool		found;

	if (rel == NULL)
		throw_not_installed();
	SET_VARSIZE(secret, VARHDRSZ + SECRET_SIZE);
	if (!pg_strong_random(VARDATA(secret), SECRET_SIZE))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate a random secret for pg_dtx")));
	values[Anum_coordinator_id - 1] = Int64GetDatum((int64) random_id());
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
 * Seal a gid of this database, of which all other fields are set.  In a
 * transaction, because the cryptographic library registers what it allocates with
 * the resource owner (common/hmac_openssl.c).  Throws.
 */
void
DtxSeal(DtxGid *gid)
{
	char		text[DTX_GID_SIZE];

	gid->seal = 0;
	DtxGidFormat(gid, text);
	gid->seal = DtxKeyedHash(text, strlen(text));
}

/*
 * A hash that nobody can compute who does not know the secret of this database.  As
 * DtxSeal().
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

/* ----------------------------------------------------------------
 * Boots: writing
 * ----------------------------------------------------------------
 */

/*
 * What tells this machine from others, in the current memory context, or NULL.  Not
 * its identifier itself, which is confidential (machine-id(5)).
 */
static char *
machine_id(void)
{
	char		text[33];
	FILE	   *file = AllocateFile(MACHINE_FILE, "r");
	bool		ok;

	if (file == NULL)
		return NULL;
	ok = fgets(text, sizeof(text), file) != NULL;
	FreeFile(file);
	if (!ok || strlen(text) != 32 || strspn(text, "0123456789abcdef") != 32)
		return NULL;
	return psprintf("%016llx",
					(unsigned long long) DatumGetUInt64(hash_any_extended((unsigned char *) text, 32, MACHINE_SEED)));
}

/* The inode number of pg_control, which PostgreSQL overwrites in place. */
static uint64
control_file(void)
{
	struct stat st;

	if (stat(CONTROL_FILE, &st) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not stat file \"%s\": %m", CONTROL_FILE)));
	return (uint64) st.st_ino;
}

/*
 * Why must former boots not be judged, as far as can be told from the row of the
 * last one?  NULL: they may.
 */
static const char *
why_suspend(const DtxBoot *last, const DtxBoot *now)
{
	if (now->recovery_id != last->recovery_id)
		return "the server was recovered from a backup or to a recovery target";
	if (now->system_id != last->system_id)
		return "the system identifier of the cluster has changed";
	if (now->timeline < last->timeline)
		return "the timeline of the cluster is an earlier one than before";
	if (now->timeline > last->timeline)
		return NULL;			/* promoted */
	if (now->machine != NULL && last->machine != NULL &&
		strcmp(now->machine, last->machine) != 0)
		return "the server runs on another machine than before";
	if (now->control_file != last->control_file)
		return "the data directory is a copy of the one that was used before";
	return NULL;
}

/*
 * Record the current boot in dtx_internal.boot, unless it is there already.  In a
 * transaction, by the resolver, which commits it, or by CREATE EXTENSION.  Throws
 * like any write.
 */
void
DtxBootRecord(void)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	Relation	rel;
	HeapTuple	tuple;
	DtxBoots   *boots;
	DtxBoot		now;
	const char *why;

	if (!OidIsValid(DtxTableOid(&boot_table)))
		throw_not_installed();
	if (recorded_in == DtxTableOid(&boot_table))
		return;

	LockRelationOid(DtxTableOid(&boot_table), ShareRowExclusiveLock);
	boots = DtxBootsRead(NULL);
	if (boots->current >= 0)
	{
		recorded_in = DtxTableOid(&boot_table);
		return;
	}

	memset(&now, 0, sizeof(now));
	now.boot_id = shared->boot_id;
	now.ordinal = boots->nboots > 0 ?
		boots->boots[boots->nboots - 1].ordinal + 1 : 1;
	now.started_at = shared->started_at;
	now.next_xid = pg_atomic_read_u64(&shared->first_xid);
	if (now.next_xid == 0)
		now.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	now.floor_xid = Min(shared->floor_xid, now.next_xid);
	now.timeline = GetWALInsertionTimeLine();
	now.system_id = GetSystemIdentifier();
	now.machine = machine_id();
	now.control_file = control_file();
	now.recovery_id = shared->recovery_id;
	why = boots->nboots > 0 ?
		why_suspend(&boots->boots[boots->nboots - 1], &now) : NULL;

#define VALUE(attnum)	(values[(attnum) - 1])
#define ISNULL(attnum)	(nulls[(attnum) - 1])
	VALUE(Anum_boot_boot_id) = Int64GetDatum((int64) now.boot_id);
	VALUE(Anum_boot_ordinal) = Int32GetDatum(now.ordinal);
	VALUE(Anum_boot_started_at) = TimestampTzGetDatum(now.started_at);
	VALUE(Anum_boot_floor_xid) = FullTransactionIdGetDatum(FullTransactionIdFromU64(now.floor_xid));
	VALUE(Anum_boot_next_xid) = FullTransactionIdGetDatum(FullTransactionIdFromU64(now.next_xid));
	VALUE(Anum_boot_proven_xid) = VALUE(Anum_boot_next_xid);
	VALUE(Anum_boot_timeline) = Int64GetDatum((int64) now.timeline);
	VALUE(Anum_boot_system_id) = Int64GetDatum((int64) now.system_id);
	if (now.machine != NULL)
		VALUE(Anum_boot_machine) = CStringGetTextDatum(now.machine);
	ISNULL(Anum_boot_machine) = now.machine == NULL;
	VALUE(Anum_boot_control_file) = Int64GetDatum((int64) now.control_file);
	VALUE(Anum_boot_recovery_id) = Int64GetDatum((int64) now.recovery_id);
	if (why != NULL)
		VALUE(Anum_boot_suspended) = CStringGetTextDatum(why);
	ISNULL(Anum_boot_suspended) = why == NULL;
	ISNULL(Anum_boot_ended_at) = ISNULL(Anum_boot_ended_by) = true;
	ISNULL(Anum_boot_ended_as) = ISNULL(Anum_boot_reason) = true;
#undef VALUE
#undef ISNULL

	rel = DtxTableOpen(&boot_table, RowExclusiveLock);
	if (rel == NULL)
		throw_not_installed();
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	PushActiveSnapshot(GetLatestSnapshot());
	simple_heap_insert(rel, tuple);
	PopActiveSnapshot();
	heap_freetuple(tuple);
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();

	/* What the row makes possible is remote, and is not undone with the row. */
	ForceSyncCommit();

	if (why != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("resolution of earlier transactions is suspended, because %s",
						why),
				 errdetail("Another server may be alive that is this database, too, or this one may have forgotten what it has decided."),
				 errhint("Call dtx.adopt_identity() if this is the only one, or dtx.change_identity() if it is a copy.")));
}

/*
 * Note the first transaction id that this boot can have assigned.  To be called by the
 * launcher when it begins, soon after the end of recovery: what is taken for the
 * first one must not be lower than it is, and the less it is higher, the more of what
 * a crash has left can be judged (DtxBootsXidOrigin).  Other databases, and users,
 * assign some before a resolver records the boot.
 *
 * The exact one is in pg_control: a start after a shutdown or a crash begins with a
 * checkpoint of the kind that nothing is written beside (access/transam/xlog.c,
 * CreateCheckPoint: redo pointer and record are the same then).  After a promotion
 * there is none on the new timeline yet.
 */
void
DtxBootBegin(void)
{
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	uint64		unknown = 0;
	bool		crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	if (crc_ok && control->checkPoint == control->checkPointCopy.redo &&
		control->checkPointCopy.ThisTimeLineID == GetWALInsertionTimeLine())
		next = Min(next, U64FromFullTransactionId(control->checkPointCopy.nextXid));
	pfree(control);

	/* A launcher that was started again comes too late. */
	(void) pg_atomic_compare_exchange_u64(&shared->first_xid, &unknown, next);
}

/*
 * Raise proven_xid of the current boot, if transaction ids were assigned since it was
 * last raised.  In a transaction of the resolver, once in each pass.
 *
 * The commit of the change is flushed, and has a higher id than the value that it
 * writes: so the WAL goes on after that, and no later boot can assign a lower one.
 */
void
DtxBootProve(void)
{
	static uint64 proven = 0;
	uint64		next = U64FromFullTransactionId(ReadNextFullTransactionId());
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};

	/* (one of them is that of the last change) */
	if (proven == 0)
		proven = next;
	if (next <= proven + 1)
		return;
	values[Anum_boot_proven_xid - 1] = FullTransactionIdGetDatum(FullTransactionIdFromU64(next));
	replaces[Anum_boot_proven_xid - 1] = true;
	update_boot(values, nulls, replaces);
	ForceSyncCommit();
	proven = next;
}

/*
 * Make sure that the current boot is recorded, before a gid of it is made.  By a
 * backend, in a transaction.  The resolver writes the row when it starts; if it
 * has not yet, wait for that, for pg_dtx.prepare_timeout at most.  Throws on
 * interrupts and when the time is over.
 */
void
DtxBootRequire(uint32 wait_event)
{
	DtxMoment	deadline;

	if (recorded_in == DtxTableOid(&boot_table) && OidIsValid(recorded_in))
		return;
	deadline = DtxIn(dtx_prepare_timeout);
	for (;;)
	{
		DtxBoots   *boots;

		if (!OidIsValid(DtxTableOid(&boot_table)))
			throw_not_installed();
		boots = DtxBootsRead(NULL);
		if (boots->current >= 0)
		{
			recorded_in = DtxTableOid(&boot_table);
			return;
		}
		DtxLauncherWakeResolver(MyDatabaseId);
		if (!IsUnderPostmaster || DtxIsDue(deadline))
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("this server has not been recorded in \"%s\" yet",
							"dtx_internal.boot"),
					 errdetail("The resolver of the database does that when it starts; without it, transactions on several servers cannot be prepared."),
					 !IsUnderPostmaster ?
					 errhint("In single-user mode there is none: call dtx_internal.record_boot() in a transaction of its own.") :
					 errhint("Try again. If it persists, look for the reason in the server log, and increase \"max_worker_processes\".")));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 RECORD_POLL_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Suspend the resolution of former boots, unless it is: another instance of this
 * database has shown itself.  In a transaction of the resolver.
 */
void
DtxBootSuspend(const char *why)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};

	if (DtxBootsSuspended(DtxBootsRead(NULL)))
		return;
	values[Anum_boot_suspended - 1] = CStringGetTextDatum(why);
	replaces[Anum_boot_suspended - 1] = true;
	for (int i = Anum_boot_ended_at; i <= Anum_boot_reason; i++)
		nulls[i - 1] = replaces[i - 1] = true;
	update_boot(values, nulls, replaces);
	ereport(WARNING,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("resolution of earlier transactions is suspended, because %s",
					why),
			 errhint("Call dtx.adopt_identity() if this is the only server with this database, after the other one was stopped for good, or dtx.change_identity() if it is a copy.")));
}

/*
 * Change these columns of the row of the current boot.  In a transaction.  Throws
 * like any write.
 */
static void
update_boot(const Datum *values, const bool *nulls, const bool *replaces)
{
	Relation	rel = DtxTableOpen(&boot_table, ShareRowExclusiveLock);
	TupleTableSlot *slot;
	HeapTuple	old;
	HeapTuple	tuple;
	bool		shouldfree;

	if (rel == NULL)
		throw_not_installed();
	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	if (!find_boot(rel, slot, shared->boot_id))
		elog(ERROR, "dtx_internal.boot has no row of the current boot");
	old = ExecFetchSlotHeapTuple(slot, true, &shouldfree);
	tuple = heap_modify_tuple(old, RelationGetDescr(rel),
							  unconstify(Datum *, values),
							  unconstify(bool *, nulls),
							  unconstify(bool *, replaces));
	DtxHeapUpdate(rel, &slot->tts_tid, tuple);
	if (shouldfree)
		heap_freetuple(old);
	heap_freetuple(tuple);
	ExecDropSingleTupleTableSlot(slot);
	PopActiveSnapshot();
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	CommandCounterIncrement();
}

/*
 * Have the slot be the row of that boot, as the active snapshot sees it.  Returns
 * false if there is none.
 */
static bool
find_boot(Relation rel, TupleTableSlot *slot, uint64 boot_id)
{
	TableScanDesc scan = DtxTableBeginScan(rel, GetActiveSnapshot());
	bool		found = false;

	while (!found && table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		bool		isnull;

		found = (uint64) DatumGetInt64(slot_getattr(slot, Anum_boot_boot_id,
													&isnull)) == boot_id;
	}
	if (found)
		ExecMaterializeSlot(slot);
	table_endscan(scan);
	return found;
}

/* ----------------------------------------------------------------
 * Boots: reading
 * ----------------------------------------------------------------
 */

static int
by_ordinal(const void *a, const void *b)
{
	int			x = ((const DtxBoot *) a)->ordinal;
	int			y = ((const DtxBoot *) b)->ordinal;

	return x < y ? -1 : x > y ? 1 : 0;
}

/*
 * All boots that "snapshot" sees (NULL: a new one), in the current memory
 * context; none if the extension is not installed.  In a transaction.
 */
DtxBoots *
DtxBootsRead(Snapshot snapshot)
{
	DtxBoots   *result = palloc0(sizeof(DtxBoots));
	Relation	rel = DtxTableOpen(&boot_table, AccessShareLock);
	bool		own = snapshot == NULL;
	int			room = 16;
	TableScanDesc scan;
	TupleTableSlot *slot;

	result->current = -1;
	if (rel == NULL)
		return result;
	if (own)
		snapshot = RegisterSnapshot(GetLatestSnapshot());
	result->boots = palloc(sizeof(DtxBoot) * room);
	slot = table_slot_create(rel, NULL);
	scan = DtxTableBeginScan(rel, snapshot);
	while (table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		DtxBoot    *boot;

		if (result->nboots == room)
		{
			room *= 2;
			result->boots = repalloc(result->boots, sizeof(DtxBoot) * room);
		}
		boot = &result->boots[result->nboots++];
		slot_getallattrs(slot);
#define VALUE(attnum)	(slot->tts_values[(attnum) - 1])
#define ISNULL(attnum)	(slot->tts_isnull[(attnum) - 1])
		boot->boot_id = (uint64) DatumGetInt64(VALUE(Anum_boot_boot_id));
		boot->ordinal = DatumGetInt32(VALUE(Anum_boot_ordinal));
		boot->started_at = DatumGetTimestampTz(VALUE(Anum_boot_started_at));
		boot->floor_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_floor_xid)));
		boot->next_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_next_xid)));
		boot->proven_xid = U64FromFullTransactionId(DatumGetFullTransactionId(VALUE(Anum_boot_proven_xid)));
		boot->timeline = (uint32) DatumGetInt64(VALUE(Anum_boot_timeline));
		boot->system_id = (uint64) DatumGetInt64(VALUE(Anum_boot_system_id));
		boot->machine = ISNULL(Anum_boot_machine) ? NULL :
			TextDatumGetCString(VALUE(Anum_boot_machine));
		boot->control_file = (uint64) DatumGetInt64(VALUE(Anum_boot_control_file));
		boot->recovery_id = (uint64) DatumGetInt64(VALUE(Anum_boot_recovery_id));
		boot->suspended = ISNULL(Anum_boot_suspended) ? NULL :
			TextDatumGetCString(VALUE(Anum_boot_suspended));
		boot->ended_at = ISNULL(Anum_boot_ended_at) ? 0 :
			DatumGetTimestampTz(VALUE(Anum_boot_ended_at));
#undef VALUE
#undef ISNULL
	}
	table_endscan(scan);
	ExecDropSingleTupleTableSlot(slot);
	if (own)
		UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);

	qsort(result->boots, result->nboots, sizeof(DtxBoot), by_ordinal);
	for (int i = 0; i < result->nboots; i++)
	{
		if (result->boots[i].boot_id == shared->boot_id)
			result->current = i;
	}
	return result;
}

/*
 * Are former boots not to be judged now?  Nor as long as the current boot has not
 * been recorded, because only then it is known.
 */
bool
DtxBootsSuspended(const DtxBoots *boots)
{
	const DtxBoot *now;

	if (boots->current < 0)
		return true;
	now = &boots->boots[boots->current];
	return now->suspended != NULL && now->ended_at == 0;
}

/*
 * What is known of a boot?
 */
DtxHistory
DtxBootsHistory(const DtxBoots *boots, uint64 boot_id)
{
	DtxHistory	history = DTX_HISTORY_UNKNOWN;

	if (boot_id == shared->boot_id)
		return DTX_HISTORY_CURRENT;
	for (int i = 0; i < boots->nboots; i++)
	{
		const DtxBoot *boot = &boots->boots[i];

		if (boot->boot_id == boot_id)
			history = DTX_HISTORY_CONTINUED;
		else if (history == DTX_HISTORY_CONTINUED && boot->suspended != NULL)
			history = DTX_HISTORY_BROKEN;
	}
	return history;
}

/*
 * Which boots can have assigned the transaction id of a gid of "boot_id"?
 * "next_xid" was the next one of this server before the gid was seen.
 */
DtxXidOrigin
DtxBootsXidOrigin(const DtxBoots *boots, uint64 boot_id, uint64 xid,
				  uint64 next_xid)
{
	int			i = 0;

	if (boot_id == shared->boot_id)
		return xid < next_xid && xid >= shared->floor_xid ?
			DTX_XID_OF_BOOT : DTX_XID_FUTURE;

	while (i < boots->nboots && boots->boots[i].boot_id != boot_id)
		i++;
	if (i == boots->nboots || xid < boots->boots[i].floor_xid)
		return DTX_XID_FUTURE;

	if (xid < boots->boots[i].proven_xid)
		return DTX_XID_OF_BOOT;

	/*
	 * What follows the last one in the WAL was assigned once more by the next boot,
	 * be it on record or not.  The one on record had not assigned "next_xid".
	 */
	if (i + 1 == boots->nboots)
		return xid < next_xid ? DTX_XID_OF_LATER_BOOT : DTX_XID_UNWRITTEN;
	return xid >= boots->boots[i + 1].next_xid ?
		DTX_XID_UNWRITTEN : DTX_XID_OF_LATER_BOOT;
}

/*
 * For how long, in milliseconds, should nothing of a former boot have been prepared?
 */
int64
DtxBootsQuietFor(const DtxBoots *boots)
{
	int64		result = DtxNow() - shared->started;

	if (boots->current >= 0 && boots->boots[boots->current].ended_at != 0)
		result = Min(result, (GetCurrentTimestamp() -
							  boots->boots[boots->current].ended_at) / 1000);
	return result;
}

/* ----------------------------------------------------------------
 * SQL functions
 * ----------------------------------------------------------------
 */

/*
 * dtx_internal.make_identity(): by the script of the extension.
 */
Datum
dtx_sql_make_identity(PG_FUNCTION_ARGS)
{
	write_coordinator(true);
	PG_RETURN_VOID();
}

/*
 * dtx_internal.record_boot()
 */
Datum
dtx_sql_record_boot(PG_FUNCTION_ARGS)
{
	DtxBootRecord();
	PG_RETURN_VOID();
}

/*
 * dtx_internal.gid(xid xid8, n int, boot_id bigint): the name of participant n of a
 * transaction; boot_id null: of the current boot.
 */
Datum
dtx_sql_gid(PG_FUNCTION_ARGS)
{
	DtxGid		gid;
	char		text[DTX_GID_SIZE];

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	memset(&gid, 0, sizeof(gid));
	gid.coordinator_id = DtxCoordinatorId();
	gid.dbid = MyDatabaseId;
	gid.boot_id = PG_ARGISNULL(2) ? shared->boot_id : (uint64) PG_GETARG_INT64(2);
	gid.xid = U64FromFullTransactionId(PG_GETARG_FULLTRANSACTIONID(0));
	gid.n = (uint32) PG_GETARG_INT32(1);
	DtxSeal(&gid);
	DtxGidFormat(&gid, text);
	PG_RETURN_TEXT_P(cstring_to_text(text));
}

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
	Relation	rel = DtxTableOpen(&boot_table, ShareRowExclusiveLock);
	TupleTableSlot *slot;
	ListCell   *lc;

	foreach(lc, DtxDecisionScan(snapshot))
		(void) DtxDecisionDelete((DtxDecisionRow *) lfirst(lc));
	UnregisterSnapshot(snapshot);

	if (rel == NULL)
		throw_not_installed();
	PushActiveSnapshot(GetLatestSnapshot());
	slot = table_slot_create(rel, NULL);
	for (int i = 0; i < boots->nboots; i++)
	{
		if (i != boots->current &&
			find_boot(rel, slot, boots->boots[i].boot_id))
			simple_heap_delete(rel, &slot->tts_tid);
	}
	ExecDropSingleTupleTableSlot(slot);
	table_close(rel, NoLock);	/* keep the lock until the end of transaction */
	DtxRouteForgetAll();

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	DtxSagaDisown();
	SPI_finish();
	PopActiveSnapshot();
	CommandCounterIncrement();

	write_coordinator(false);
	changed_by = GetTopTransactionId();
}

/*
 * What both have in common.
 *
 * A new identity makes all gids of the old one somebody else's, and decisions
 * about them useless.  So no transaction of the current boot may be under way or in
 * doubt (DtxCoordinatorConfirm sees to those that begin now).  Those of former boots are the original's if resolution is suspended; otherwise they
 * are ours, and there must be none.
 */
static void
end_suspension(const char *function, text *reason_text, bool adopted)
{
	Datum		values[Natts_boot] = {0};
	bool		nulls[Natts_boot] = {0};
	bool		replaces[Natts_boot] = {0};
	NameData	name;
	char	   *by_user = GetUserNameFromId(GetSessionUserId(), false);
	char	   *reason;
	DtxBoots   *boots;
	bool		suspended;

	if (reason_text == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of %s must not be null", function)));
	reason = text_to_cstring(reason_text);
	if (reason[strspn(reason, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a reason must be given"),
				 errhint("It is kept in the table \"%s\".", "dtx_internal.boot")));
	PreventCommandIfReadOnly(function);

	if (!adopted)
		LockRelationOid(DtxTableOid(&coordinator_table), AccessExclusiveLock);
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

	namestrcpy(&name, by_user);
	values[Anum_boot_ended_at - 1] = TimestampTzGetDatum(GetCurrentTimestamp());
	values[Anum_boot_ended_by - 1] = NameGetDatum(&name);
	values[Anum_boot_ended_as - 1] = CStringGetTextDatum(adopted ? "original" : "copy");
	values[Anum_boot_reason - 1] = CStringGetTextDatum(reason);
	for (int i = Anum_boot_ended_at; i <= Anum_boot_reason; i++)
		replaces[i - 1] = true;
	update_boot(values, nulls, replaces);

	ereport(LOG,
			(adopted ?
			 errmsg("user \"%s\" declared this server to be the original of its database", by_user) :
			 errmsg("user \"%s\" declared this server to be a copy, with a new identity", by_user),
			 errdetail("Reason: %s", reason)));
	DtxLauncherWakeResolver(MyDatabaseId);
	DtxSagaWakeAtCommit();
}

static void
throw_not_installed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("extension \"%s\" is not installed in this database",
					"pg_dtx"),
			 errdetail("It may have been dropped a moment ago.")));
}
