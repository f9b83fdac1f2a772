/*-------------------------------------------------------------------------
 *
 * in_doubt.c
 *		What waits for the resolvers, and what they know of each server, in
 *		shared memory.
 *
 * Two hash tables, each with a lock of its own.  The locks are held while
 * entries are copied, never across a wait.
 *
 * Neither table holds the truth: which transactions are prepared is known to
 * the participants, what is to become of them to the decision table.  The
 * tables make resolution fast (a hand-over is worked on at once instead of in
 * the next full pass) and visible (dtx.in_doubt, dtx.servers).  So an entry
 * that finds no room is not an error.  It is counted, and the next full pass
 * finds the prepared transaction on its server.
 *
 * Backends hand over after their local commit, when an ERROR would be a PANIC, and
 * every report could become one.  Hence the functions that they call neither
 * allocate, nor throw, nor report: the tables are allocated in full at startup,
 * HASH_ENTER_NULL reports a lack of room, and what there is to be said about that
 * is said by a worker (DtxInDoubtReport).
 *
 * So nothing here throws but what makes lists and copies in a memory context (out of
 * memory), and DtxInDoubtReport().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlogdefs.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/encoding.h"
#include "base/gid.h"
#include "base/settings.h"
#include "nodes/pg_list.h"
#include "port/atomics.h"
#include "state/in_doubt.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

/* At most one message about a full table in this time, milliseconds. */
#define OVERFLOW_LOG_INTERVAL	60000

typedef struct InDoubtShared
{
	LWLock		lock;			/* guards in_doubt_hash and the next two */
	bool		full;			/* has an entry found no room since ... */
	DtxMoment	logged_at;		/* ... the last message about that, or 0 */
	pg_atomic_uint64 overflows; /* entries that found no room; no lock */
	pg_atomic_uint64 contradictions;	/* commits that ended otherwise; no
										 * lock */
	pg_atomic_uint64 changes;	/* of in_doubt_hash, after which something may
								 * be due earlier; written with the lock, read
								 * without */
	pg_atomic_uint64 server_changes;	/* written with server_lock, read
										 * without */
	LWLock		server_lock;	/* guards server_hash */
} InDoubtShared;

/* The key of server_hash: how DtxServerStatus begins. */
typedef struct ServerKey
{
	Oid			dbid;			/* database of the coordinator */
	Oid			serverid;		/* foreign server in it */
} ServerKey;

StaticAssertDecl(offsetof(DtxInDoubt, gid) == 0,
				 "DtxInDoubt must begin with its hash key");
StaticAssertDecl(sizeof(DtxGid) == 8 * sizeof(uint64) + 4 * sizeof(uint32),
				 "DtxGid must not have padding, it is a hash key");
StaticAssertDecl(offsetof(DtxServerStatus, dbid) == offsetof(ServerKey, dbid) &&
				 offsetof(DtxServerStatus, serverid) == offsetof(ServerKey, serverid),
				 "DtxServerStatus must begin with its hash key");

static InDoubtShared *shared = NULL;
static HTAB *in_doubt_hash = NULL;	/* of DtxInDoubt */
static HTAB *server_hash = NULL;	/* of DtxServerStatus */

static bool add_entry(const DtxInDoubt *entry, bool seen, uint64 seen_on);
static bool may_be_seen(const DtxInDoubt *entry, Oid serverid, uint64 seen_on);
static void note_change(void);
static List *list_entries(Oid dbid, Oid serverid);
static DtxServerStatus *server_entry(Oid dbid, Oid serverid);
static void evict_stalest_server(void);

/*
 * Bytes of shared memory that this module needs.  pg_dtx.max_in_doubt must be
 * known.
 */
Size
DtxInDoubtShmemSize(void)
{
	Size		size = MAXALIGN(sizeof(InDoubtShared));

	size = add_size(size, hash_estimate_size(dtx_max_in_doubt,
											 sizeof(DtxInDoubt)));
	size = add_size(size, hash_estimate_size(DTX_MAX_SERVERS,
											 sizeof(DtxServerStatus)));
	return size;
}

/*
 * Create or attach to the two tables.  The caller holds AddinShmemInitLock.
 */
void
DtxInDoubtShmemInit(void)
{
	HASHCTL		info;
	bool		found;

	shared = ShmemInitStruct("pg_dtx in doubt", sizeof(InDoubtShared), &found);
	if (!found)
	{
		memset(shared, 0, sizeof(InDoubtShared));
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxInDoubt"));
		LWLockInitialize(&shared->server_lock, DtxLWLockTranche("DtxServers"));
		pg_atomic_init_u64(&shared->overflows, 0);
		pg_atomic_init_u64(&shared->contradictions, 0);
		pg_atomic_init_u64(&shared->changes, 0);
		pg_atomic_init_u64(&shared->server_changes, 0);
	}

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(DtxGid);
	info.entrysize = sizeof(DtxInDoubt);
	in_doubt_hash = DtxShmemInitHash("pg_dtx in doubt hash", dtx_max_in_doubt,
									 &info, HASH_ELEM | HASH_BLOBS);

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(ServerKey);
	info.entrysize = sizeof(DtxServerStatus);
	server_hash = DtxShmemInitHash("pg_dtx server hash", DTX_MAX_SERVERS,
								   &info, HASH_ELEM | HASH_BLOBS);
}

/*
 * Remember that a prepared transaction waits for the resolver.
 *
 * If its gid is known already, what the new entry tells is added to the old
 * one, which keeps its age and its history.  A decision may turn out to be
 * commit, but commit stays commit: a decision row that was seen is final.
 *
 * Returns false if there is no room.  Never throws; any process, any time.
 */
bool
DtxInDoubtAdd(const DtxInDoubt *entry)
{
	return add_entry(entry, false, 0);
}

/*
 * The same for what a visit has seen prepared on its server, which leads to the
 * cluster "seen_on" (0 if that does not tell).
 *
 * An entry of another server that says on which cluster it was prepared is not
 * touched because another transaction uses its gid on a different one: it would become the
 * business of a server that can never confirm it.
 *
 * Returns false if there is no room, or the entry is not this server's.
 */
bool
DtxInDoubtAddListed(const DtxInDoubt *entry, uint64 seen_on)
{
	return add_entry(entry, true, seen_on);
}

/* What both have in common. */
static bool
add_entry(const DtxInDoubt *entry, bool seen, uint64 seen_on)
{
	bool		added = true;
	DtxInDoubt *old;
	bool		found;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);

	/*
	 * The hash table may find room for more than it was made for in what
	 * shared memory has to spare; do not let it depend on that.
	 */
	if (hash_get_num_entries(in_doubt_hash) < dtx_max_in_doubt)
		old = hash_search(in_doubt_hash, &entry->gid, HASH_ENTER_NULL, &found);
	else
		old = hash_search(in_doubt_hash, &entry->gid, HASH_FIND, &found);

	if (old == NULL)
		shared->full = true;
	else if (!found)
	{
		*old = *entry;
		if (old->since == 0)
			old->since = GetCurrentTimestamp();
		old->entered = DtxNow();
	}
	else if (seen && !may_be_seen(old, entry->serverid, seen_on))
		added = false;
	else
	{
		if (OidIsValid(entry->serverid))
			old->serverid = entry->serverid;
		if (!OidIsValid(old->umid))
			old->umid = entry->umid;
		if (old->system_id == 0)
			old->system_id = entry->system_id;
		if (old->timeline == 0)
			old->timeline = entry->timeline;
		if (old->endpoint == 0)
			old->endpoint = entry->endpoint;
		if (entry->remote_xid != 0 &&
			(old->remote_xid == 0 || entry->system_id != 0))
		{
			/* what its session knows counts for more than what was seen */
			old->remote_xid = entry->remote_xid;
			old->xid_system_id = entry->xid_system_id;
		}
		if (!OidIsValid(old->userid))
			old->userid = entry->userid;
		if (old->started == 0)
		{
			old->started = entry->started;
			strlcpy(old->application_name, entry->application_name,
					sizeof(old->application_name));
		}
		if (old->commit_lsn == InvalidXLogRecPtr)
		{
			old->commit_lsn = entry->commit_lsn;
			old->commit_level = entry->commit_level;
		}
		if (old->remote_user[0] == '\0')
			strlcpy(old->remote_user, entry->remote_user,
					sizeof(old->remote_user));
		if (old->decision != DTX_COMMIT)
			old->decision = entry->decision;
		old->proven |= entry->proven;
	}
	if (added && old != NULL)
		note_change();
	LWLockRelease(&shared->lock);

	if (old == NULL)
		pg_atomic_fetch_add_u64(&shared->overflows, 1);

	return added && old != NULL;
}

/*
 * Can this entry, which the caller has locked, be what was seen on a server and
 * its cluster?
 */
static bool
may_be_seen(const DtxInDoubt *entry, Oid serverid, uint64 seen_on)
{
	uint64		home = entry->system_id != 0 ? entry->system_id :
	entry->xid_system_id;

	return entry->serverid == serverid || home == 0 || home == seen_on;
}

/*
 * Say in the server log that entries have found no room since the last time that
 * this was said.  For workers, outside of anything that must not fail; throws what
 * a message for the log throws.
 */
void
DtxInDoubtReport(void)
{
	bool		report;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	report = shared->full &&
		DtxIsDue(shared->logged_at + OVERFLOW_LOG_INTERVAL);
	if (report)
	{
		shared->full = false;
		shared->logged_at = DtxNow();
	}
	LWLockRelease(&shared->lock);

	if (report)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many prepared foreign transactions are in doubt to remember them all"),
				 errdetail("There is room for %d of them. The resolver finds the others on their servers in its next full pass.",
						   dtx_max_in_doubt),
				 errhint("Consider increasing the configuration parameter \"%s\".",
						 "pg_dtx.max_in_doubt")));
}

/*
 * Forget an entry, because nothing of its gid is left to be done.  It need not
 * exist.  Never throws.
 */
void
DtxInDoubtRemove(const DtxGid *gid)
{
	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	(void) hash_search(in_doubt_hash, gid, HASH_REMOVE, NULL);
	LWLockRelease(&shared->lock);
}

/*
 * Record a failed attempt to finish a gid, and when to try again (0: at once).
 * error_umid: user mapping whose options the text may show, or InvalidOid.
 * The entry need not exist.  Never throws.
 */
void
DtxInDoubtFailed(const DtxGid *gid, const char *error, Oid error_umid,
				 DtxMoment next_attempt)
{
	DtxInDoubt *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(in_doubt_hash, gid, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (entry->attempts < PG_INT32_MAX)
			entry->attempts++;
		if (next_attempt < entry->next_attempt)
			note_change();
		entry->next_attempt = next_attempt;
		DtxTextClip(entry->last_error, error, sizeof(entry->last_error));
		entry->error_umid = error_umid;
	}
	LWLockRelease(&shared->lock);
}

/*
 * Let the resolver try a gid at once that it was to try later.  The entry need not
 * exist.  Never throws.  The caller wakes the resolver.
 */
void
DtxInDoubtHurry(const DtxGid *gid)
{
	DtxInDoubt *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(in_doubt_hash, gid, HASH_FIND, NULL);
	if (entry != NULL)
	{
		entry->next_attempt = 0;
		note_change();
	}
	LWLockRelease(&shared->lock);
}

/*
 * It is known now what is to become of a gid (DTX_UNDECIDED: that it can't be known):
 * let the resolver try at once.  The entry need not exist.  Never throws.
 */
void
DtxInDoubtDecide(const DtxGid *gid, DtxDecision decision)
{
	DtxInDoubt *entry;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = hash_search(in_doubt_hash, gid, HASH_FIND, NULL);
	if (entry != NULL)
	{
		if (decision != DTX_UNDECIDED)
			entry->decision = decision;
		entry->next_attempt = 0;
		note_change();
	}
	LWLockRelease(&shared->lock);
}

/*
 * Copy the entry of a gid.  Returns false if there is none.  Never throws.
 */
bool
DtxInDoubtGet(const DtxGid *gid, DtxInDoubt *copy)
{
	DtxInDoubt *entry;

	LWLockAcquire(&shared->lock, LW_SHARED);
	entry = hash_search(in_doubt_hash, gid, HASH_FIND, NULL);
	if (entry != NULL)
		*copy = *entry;
	LWLockRelease(&shared->lock);

	return entry != NULL;
}

/* The caller holds the lock exclusively. */
static void
note_change(void)
{
	pg_atomic_write_u64(&shared->changes,
						pg_atomic_read_u64(&shared->changes) + 1);
}

/*
 * A number that is another one after entries, of any database, were added or have
 * become due earlier.  No lock is taken.  The session that adds one wakes the resolver after
 * that.
 */
uint64
DtxInDoubtChanges(void)
{
	return pg_atomic_read_u64(&shared->changes);
}

/*
 * What of each entry of a coordinator database a resolver has to know to see what is
 * due, in the current memory context; *n receives how many there are.  Returns NULL
 * if there are more than a moment ago: try again.
 */
DtxInDoubtDue *
DtxInDoubtLook(Oid dbid, int *n)
{
	int			room = hash_get_num_entries(in_doubt_hash) + 64;
	DtxInDoubtDue *result = palloc(sizeof(DtxInDoubtDue) * room);
	HASH_SEQ_STATUS status;
	DtxInDoubt *entry;
	int			found = 0;

	LWLockAcquire(&shared->lock, LW_SHARED);
	if (hash_get_num_entries(in_doubt_hash) > room)
		found = -1;
	else
	{
		hash_seq_init(&status, in_doubt_hash);
		while ((entry = hash_seq_search(&status)) != NULL)
		{
			if (entry->gid.dbid != dbid)
				continue;
			result[found].serverid = entry->serverid;
			result[found].coordinator_id = entry->gid.coordinator_id;
			result[found].next_attempt = entry->next_attempt;
			found++;
		}
	}
	LWLockRelease(&shared->lock);

	*n = Max(found, 0);
	return found < 0 ? NULL : result;
}

/*
 * Copies of all entries of a coordinator database: a list of DtxInDoubt in the
 * current memory context, in no particular order.  Throws if out of memory.
 */
List *
DtxInDoubtList(Oid dbid)
{
	return list_entries(dbid, InvalidOid);
}

/*
 * The same of one foreign server.
 */
List *
DtxInDoubtListServer(Oid dbid, Oid serverid)
{
	return list_entries(dbid, serverid);
}

static List *
list_entries(Oid dbid, Oid serverid)
{
	List	   *result = NIL;
	HASH_SEQ_STATUS status;
	DtxInDoubt *entry;

	LWLockAcquire(&shared->lock, LW_SHARED);
	hash_seq_init(&status, in_doubt_hash);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		DtxInDoubt *copy;

		if (entry->gid.dbid != dbid ||
			(OidIsValid(serverid) && entry->serverid != serverid))
			continue;
		copy = palloc(sizeof(DtxInDoubt));
		*copy = *entry;
		result = lappend(result, copy);
	}
	LWLockRelease(&shared->lock);

	return result;
}

/*
 * Entries that found no room since the server started or the statistics were
 * reset.
 */
uint64
DtxInDoubtOverflows(void)
{
	return pg_atomic_read_u64(&shared->overflows);
}

/*
 * A participant of a committed transaction has ended otherwise, which is recorded as
 * damage: to be called before its entry is removed.  Never throws.
 */
void
DtxInDoubtContradicted(void)
{
	pg_atomic_fetch_add_u64(&shared->contradictions, 1);
}

/*
 * How often that has happened since the server started.  As long as the number stays
 * the same, entries that went did so because they were finished as decided.
 */
uint64
DtxInDoubtContradictions(void)
{
	return pg_atomic_read_u64(&shared->contradictions);
}

/*
 * Set the number of overflows to zero.
 */
void
DtxInDoubtOverflowsReset(void)
{
	pg_atomic_write_u64(&shared->overflows, 0);
}

/*
 * Record what a visit of a server found.  A visit that began before the server was
 * changed has not seen where it leads now, and is not recorded.  If there is no room,
 * the server that was not visited for the longest time goes.  Never throws.
 */
void
DtxServerStatusSet(const DtxServerStatus *status)
{
	DtxServerStatus *entry;

	LWLockAcquire(&shared->server_lock, LW_EXCLUSIVE);
	entry = server_entry(status->dbid, status->serverid);
	if (entry != NULL && status->seen_changes >= entry->changed)
	{
		uint64		changed = entry->changed;

		*entry = *status;
		entry->changed = changed;
	}
	LWLockRelease(&shared->server_lock);
}

/*
 * A server has other options now: nothing is known of it until the next visit.  To be
 * called when the transaction that has changed it is committed.  Never throws.
 */
void
DtxServerStatusChanged(Oid dbid, Oid serverid)
{
	DtxServerStatus *entry;

	LWLockAcquire(&shared->server_lock, LW_EXCLUSIVE);
	entry = server_entry(dbid, serverid);
	if (entry != NULL)
	{
		memset(entry, 0, sizeof(DtxServerStatus));
		entry->dbid = dbid;
		entry->serverid = serverid;
		entry->changed = pg_atomic_add_fetch_u64(&shared->server_changes, 1);
	}
	LWLockRelease(&shared->server_lock);
}

/*
 * A number that grows with every change of a foreign server, in any database.  What is
 * found at a server after it was read is true after all changes that it counts.
 */
uint64
DtxServerChanges(void)
{
	return pg_atomic_read_u64(&shared->server_changes);
}

/*
 * The entry of a server, made if need be.  NULL if there is no room.  The caller holds
 * server_lock exclusively.
 */
static DtxServerStatus *
server_entry(Oid dbid, Oid serverid)
{
	ServerKey	key = {.dbid = dbid,.serverid = serverid};
	DtxServerStatus *entry = hash_search(server_hash, &key, HASH_FIND, NULL);

	if (entry != NULL)
		return entry;
	if (hash_get_num_entries(server_hash) >= DTX_MAX_SERVERS)
		evict_stalest_server();
	entry = hash_search(server_hash, &key, HASH_ENTER_NULL, NULL);
	if (entry != NULL)
	{
		memset(entry, 0, sizeof(DtxServerStatus));
		entry->dbid = dbid;
		entry->serverid = serverid;
	}
	return entry;
}

/*
 * Make room in server_hash, which the caller has locked exclusively.  Servers
 * of databases that were dropped go this way at last, too.
 */
static void
evict_stalest_server(void)
{
	HASH_SEQ_STATUS status;
	DtxServerStatus *entry;
	DtxServerStatus *stalest = NULL;

	hash_seq_init(&status, server_hash);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (stalest == NULL || entry->checked_at < stalest->checked_at)
			stalest = entry;
	}
	if (stalest != NULL)
	{
		ServerKey	key = {.dbid = stalest->dbid,.serverid = stalest->serverid};

		(void) hash_search(server_hash, &key, HASH_REMOVE, NULL);
	}
}

/*
 * Copy what is known of a server.  Returns false if nothing is, because it was not
 * visited, or not since it was changed.  Never throws.
 */
bool
DtxServerStatusGet(Oid dbid, Oid serverid, DtxServerStatus *copy)
{
	ServerKey	key = {.dbid = dbid,.serverid = serverid};
	DtxServerStatus *entry;

	LWLockAcquire(&shared->server_lock, LW_SHARED);
	entry = hash_search(server_hash, &key, HASH_FIND, NULL);
	if (entry != NULL && entry->checked_at == 0)
		entry = NULL;
	if (entry != NULL)
		*copy = *entry;
	LWLockRelease(&shared->server_lock);

	return entry != NULL;
}

/*
 * Forget a server, because it was dropped.  Never throws.
 */
void
DtxServerStatusRemove(Oid dbid, Oid serverid)
{
	ServerKey	key = {.dbid = dbid,.serverid = serverid};

	LWLockAcquire(&shared->server_lock, LW_EXCLUSIVE);
	(void) hash_search(server_hash, &key, HASH_REMOVE, NULL);
	LWLockRelease(&shared->server_lock);
}
