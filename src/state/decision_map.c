/*-------------------------------------------------------------------------
 *
 * decision_map.c
 *		Where the rows of the decision tables are, in shared memory, so that nobody
 *		has to look through a table that an old snapshot keeps full of dead rows.
 *
 * The map of a database names every row that any snapshot taken from now on may
 * see: more than these perhaps, never less.  That holds because
 *
 * 1. a row is entered by the transaction that writes it, before it commits, and
 *	  taken out when a transaction that has overwritten it has committed, or when
 *	  nobody can see it any more (DtxDecisionMapPrune);
 * 2. the rows that were there before shared memory was are entered by the first
 *	  reader, who scans the table for that with a snapshot of its own, taken with
 *	  the table locked: a row that this snapshot does not see is written by a
 *	  transaction that has entered it, or is going to.
 *
 * Until that is done, the map is not complete, and readers scan the table.  It is not
 * complete either if the table has another file than then (VACUUM FULL; dropped and
 * created again), because rows have other places then; while there is a writer whose
 * row has found no room, and from its commit until the next scan; and on a standby,
 * where rows come out of the WAL.
 *
 * A reader takes its snapshot first and looks at the map afterwards.  A row that was
 * overwritten or deleted in between is not found, as if the snapshot had been taken a
 * moment later; its transaction is confirmed everywhere.
 *
 * The lock is held for a few instructions per row, never across a wait.  What is
 * called after a commit does not throw.
 *
 * Nothing here throws but DtxDecisionMapList() (out of memory), and
 * DtxDecisionMapWritten() in its first call in a process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/compat.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "state/boot.h"
#include "state/decision_map.h"
#include "storage/itemptr.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"

/* Databases whose maps can be complete at a time. */
#define MAX_DATABASES	256

/* Hash key: zero the whole struct before filling it. */
typedef struct MapKey
{
	Oid			dbid;
	uint64		boot_id;
	uint64		xid;
} MapKey;

typedef struct MapEntry
{
	MapKey		key;
	ItemPointerData tid;
} MapEntry;

typedef struct MapDatabase
{
	Oid			dbid;			/* hash key */
	Oid			relid;			/* the decision table, and ... */
	Oid			file;			/* ... its file, for which the map is
								 * complete; or InvalidOid */
} MapDatabase;

typedef struct MapShared
{
	LWLock		lock;			/* guards everything here and in the tables */
	int			unregistered;	/* transactions whose row has found no room */
	uint64		losses;			/* times that a map became incomplete */
} MapShared;

static MapShared *shared = NULL;
static HTAB *entries = NULL;
static HTAB *databases = NULL;

/* The row that the current transaction has written, xid 0: none. */
static MapKey written;

/* The one that it has overwritten with that, xid 0: none. */
static MapKey overwritten;

/* Has the row found no room? */
static bool unregistered = false;

static void map_xact_callback(XactEvent event, void *arg);
static void map_key(MapKey *key, Oid dbid, uint64 boot_id, uint64 xid);
static int64 map_size(void);

/* Rows that there is room for: one per session and its next one, and those in doubt. */
static int64
map_size(void)
{
	return (int64) dtx_max_in_doubt + 2 * (int64) MaxBackends;
}

/*
 * Bytes of shared memory that this module needs.  MaxBackends must be known.
 */
Size
DtxDecisionMapShmemSize(void)
{
	Size		size = MAXALIGN(sizeof(MapShared));

	size = add_size(size, hash_estimate_size(map_size(), sizeof(MapEntry)));
	return add_size(size, hash_estimate_size(MAX_DATABASES, sizeof(MapDatabase)));
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxDecisionMapShmemInit(void)
{
	HASHCTL		info;
	bool		found;

	shared = ShmemInitStruct("pg_dtx decision map", sizeof(MapShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(MapShared));
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxDecisionMap"));
	}
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(MapKey);
	info.entrysize = sizeof(MapEntry);
	entries = DtxShmemInitHash("pg_dtx decisions", map_size(), &info,
							   HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(MapDatabase);
	databases = DtxShmemInitHash("pg_dtx decision tables", MAX_DATABASES, &info,
								 HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
}

static void
map_key(MapKey *key, Oid dbid, uint64 boot_id, uint64 xid)
{
	memset(key, 0, sizeof(MapKey));
	key->dbid = dbid;
	key->boot_id = boot_id;
	key->xid = xid;
}

/* ----------------------------------------------------------------
 * Writers
 * ----------------------------------------------------------------
 */

/*
 * The current transaction, "xid", has written its row, over that of old_xid of this
 * boot (0: it has inserted it), and has nothing to do any more but to commit.  Does
 * not throw, but for the first call in a process (out of memory).
 */
void
DtxDecisionMapWritten(uint64 xid, ItemPointer tid, uint64 old_xid)
{
	static bool registered = false;
	MapEntry   *entry;

	if (!registered)
	{
		RegisterXactCallback(map_xact_callback, NULL);
		registered = true;
	}
	map_key(&written, MyDatabaseId, DtxBootId(), xid);
	map_key(&overwritten, MyDatabaseId, DtxBootId(), old_xid);

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, &written, HASH_ENTER_NULL, NULL);
	if (entry != NULL)
		entry->tid = *tid;
	else
	{
		unregistered = true;
		shared->unregistered++;
	}
	LWLockRelease(&shared->lock);
}

/*
 * The transaction is over.  (CommitTransaction() in access/transam/xact.c calls this
 * when its row is visible, and the one that it has overwritten is not.)
 */
static void
map_xact_callback(XactEvent event, void *arg)
{
	if (written.xid == 0 ||
		(event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT))
		return;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (event == XACT_EVENT_ABORT)
		(void) hash_search(entries, &written, HASH_REMOVE, NULL);
	else if (overwritten.xid != 0)
		(void) hash_search(entries, &overwritten, HASH_REMOVE, NULL);
	if (unregistered)
	{
		if (event == XACT_EVENT_COMMIT)
		{
			MapDatabase *database = hash_search(databases, &written.dbid,
												HASH_FIND, NULL);

			if (database != NULL)
				database->file = InvalidOid;
			shared->losses++;
		}
		shared->unregistered--;
		unregistered = false;
	}
	LWLockRelease(&shared->lock);
	written.xid = 0;
}

/* ----------------------------------------------------------------
 * Readers
 * ----------------------------------------------------------------
 */

/*
 * Is the map of this database complete?  "rel" is its decision table, which the
 * caller has locked and keeps locked as long as it uses the map.  *mark is for
 * DtxDecisionMapCompleted(), if it is not.
 */
bool
DtxDecisionMapIsComplete(Relation rel, uint64 *mark)
{
	MapDatabase *database;
	bool		complete;

	if (RecoveryInProgress())
	{
		*mark = PG_UINT64_MAX;
		return false;
	}
	LWLockAcquire(&shared->lock, LW_SHARED);
	database = hash_search(databases, &MyDatabaseId, HASH_FIND, NULL);
	complete = shared->unregistered == 0 && database != NULL &&
		database->relid == RelationGetRelid(rel) &&
		OidIsValid(database->file) && database->file == DtxRelFile(rel);
	*mark = shared->losses;
	LWLockRelease(&shared->lock);
	return complete;
}

/*
 * A scan with a snapshot that was taken after DtxDecisionMapIsComplete() said no has
 * found this row.  Returns false if there is no room; then the scan is of no use.
 */
bool
DtxDecisionMapFound(uint64 boot_id, uint64 xid, ItemPointer tid)
{
	MapKey		key;
	MapEntry   *entry;

	map_key(&key, MyDatabaseId, boot_id, xid);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, &key, HASH_ENTER_NULL, NULL);
	if (entry != NULL)
		entry->tid = *tid;
	LWLockRelease(&shared->lock);
	return entry != NULL;
}

/*
 * That scan has found all rows.  Now the map is complete, unless there is a row that
 * has found no room since.  "mark" is what DtxDecisionMapIsComplete() gave.
 */
void
DtxDecisionMapCompleted(Relation rel, uint64 mark)
{
	MapDatabase *database;

	if (RecoveryInProgress())
		return;
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	if (shared->unregistered == 0 && shared->losses == mark)
	{
		database = hash_search(databases, &MyDatabaseId, HASH_ENTER_NULL, NULL);
		if (database != NULL)
		{
			database->relid = RelationGetRelid(rel);
			database->file = DtxRelFile(rel);
		}
	}
	LWLockRelease(&shared->lock);
}

/*
 * The rows of this database: an array in the current memory context.  To be called
 * after the snapshot was taken with which they are to be read.
 */
DtxDecisionPlace *
DtxDecisionMapList(int *n)
{
	HASH_SEQ_STATUS seq;
	MapEntry   *entry;
	DtxDecisionPlace *places;
	int			max = map_size();

	*n = 0;

	/* (nothing is allocated with the lock held) */
	LWLockAcquire(&shared->lock, LW_SHARED);
	max = (int) hash_get_num_entries(entries);
	LWLockRelease(&shared->lock);
	for (;;)
	{
		bool		fits;

		places = palloc(sizeof(DtxDecisionPlace) * Max(max, 1));
		LWLockAcquire(&shared->lock, LW_SHARED);
		fits = hash_get_num_entries(entries) <= max;
		if (fits)
		{
			hash_seq_init(&seq, entries);
			while ((entry = hash_seq_search(&seq)) != NULL)
			{
				if (entry->key.dbid != MyDatabaseId)
					continue;
				places[*n].boot_id = entry->key.boot_id;
				places[*n].xid = entry->key.xid;
				places[*n].tid = entry->tid;
				(*n)++;
			}
		}
		else
			max = (int) hash_get_num_entries(entries);
		LWLockRelease(&shared->lock);
		if (fits)
			return places;
		pfree(places);
	}
}

/*
 * Where the row with this key is, if it is there.  As DtxDecisionMapList().
 */
bool
DtxDecisionMapFind(uint64 boot_id, uint64 xid, ItemPointer tid)
{
	MapKey		key;
	MapEntry   *entry;

	map_key(&key, MyDatabaseId, boot_id, xid);
	LWLockAcquire(&shared->lock, LW_SHARED);
	entry = hash_search(entries, &key, HASH_FIND, NULL);
	if (entry != NULL)
		*tid = entry->tid;
	LWLockRelease(&shared->lock);
	return entry != NULL;
}

/*
 * May the transaction that wrote this row still commit?  Ask this before a snapshot
 * is taken; if it may not, and that snapshot does not see the row, then no later one
 * does, and DtxDecisionMapPrune() is for it.
 */
bool
DtxDecisionMapInProgress(const DtxDecisionPlace *place)
{
	uint64		next;

	if (place->boot_id != DtxBootId())
		return false;
	next = U64FromFullTransactionId(ReadNextFullTransactionId());

	/* TransactionIdIsInProgress() takes the lower half only. */
	return place->xid >= next || next - place->xid >= PG_INT32_MAX ||
		TransactionIdIsInProgress((TransactionId) place->xid);
}

/*
 * No snapshot sees this row any more.
 */
void
DtxDecisionMapPrune(const DtxDecisionPlace *place)
{
	MapKey		key;
	MapEntry   *entry;

	map_key(&key, MyDatabaseId, place->boot_id, place->xid);
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(entries, &key, HASH_FIND, NULL);
	if (entry != NULL && ItemPointerEquals(&entry->tid,
										   unconstify(ItemPointerData *, &place->tid)))
		(void) hash_search(entries, &key, HASH_REMOVE, NULL);
	LWLockRelease(&shared->lock);
}

/*
 * A database was dropped.
 */
void
DtxDecisionMapDropDatabase(Oid dbid)
{
	HASH_SEQ_STATUS seq;
	MapEntry   *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, entries);
	while ((entry = hash_seq_search(&seq)) != NULL)
	{
		if (entry->key.dbid == dbid)
			(void) hash_search(entries, &entry->key, HASH_REMOVE, NULL);
	}
	(void) hash_search(databases, &dbid, HASH_REMOVE, NULL);
	LWLockRelease(&shared->lock);
}
