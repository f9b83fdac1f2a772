/*-------------------------------------------------------------------------
 *
 * standby.c
 *		Has the synchronous standby of this server got a decision?
 *
 * No participant is told to commit before the decision is as durable as commits of
 * this server are.  COMMIT waits for that in the usual place (access/transam/xact.c,
 * RecordTransactionCommit), but the wait may be cut short, by a cancel or a
 * termination, and a decision that a restart has found was waited for by nobody.  If
 * a participant were told then, and the server failed over to a standby without the
 * decision, the others would be rolled back.  A rollback needs no such care: it is
 * what a lost decision means anyway.
 *
 * Nothing here waits.  What the standby has not got is left to the resolver, which
 * asks again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlogdefs.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/settings.h"
#include "commit/standby.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "replication/walsender_private.h"
#include "state/in_doubt.h"
#include "storage/lwlock.h"
#include "utils/guc.h"
#include "utils/hsearch.h"

/* Decisions whose position is remembered, before all are forgotten. */
#define MAX_AWAITED		10000

/* A decision that the standby had not got when this process first looked. */
typedef struct Awaited
{
	uint64		key[2];			/* boot id, xid */
	XLogRecPtr	lsn;			/* its commit record ends there, or before */
} Awaited;

static HTAB *awaited = NULL;

static bool standbys_defined(void);
static int	configured_level(void);

/*
 * Is what was committed up to "lsn" as durable as synchronous_commit = "level" asks
 * for?  By any backend, also after the local commit: it does not throw, and takes
 * SyncRepLock for a moment.
 *
 * With "off" and "local" nothing is waited for.  The decision itself is always
 * flushed here (ForceSyncCommit), because a crash must not undo it; but that a
 * failover may undo what was committed is what these levels mean, for a distributed
 * transaction as for a local one, and as it is where standbys are asynchronous.
 */
bool
DtxStandbyHas(XLogRecPtr lsn, int level)
{
	bool		has;
	int			mode;

	if (!dtx_wait_for_standby || max_wal_senders == 0 ||
		level <= SYNCHRONOUS_COMMIT_LOCAL_FLUSH)
		return true;

	/* as assign_synchronous_commit() in replication/syncrep.c */
	switch (level)
	{
		case SYNCHRONOUS_COMMIT_REMOTE_WRITE:
			mode = SYNC_REP_WAIT_WRITE;
			break;
		case SYNCHRONOUS_COMMIT_REMOTE_APPLY:
			mode = SYNC_REP_WAIT_APPLY;
			break;
		default:
			mode = SYNC_REP_WAIT_FLUSH;
			break;
	}
	LWLockAcquire(SyncRepLock, LW_SHARED);
	has = !standbys_defined() || lsn <= WalSndCtl->lsn[mode];
	LWLockRelease(SyncRepLock);
	return has;
}

/*
 * Are there synchronous standbys?  What SyncRepWaitForLSN() (replication/syncrep.c)
 * asks, which is not this process's own configuration: the checkpointer's, under whose
 * eyes commits begin and end to wait.  The caller holds SyncRepLock.
 */
static bool
standbys_defined(void)
{
#ifdef SYNC_STANDBY_DEFINED
	if (WalSndCtl->sync_standbys_status & SYNC_STANDBY_INIT)
		return (WalSndCtl->sync_standbys_status & SYNC_STANDBY_DEFINED) != 0;
	return SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
#else
	return WalSndCtl->sync_standbys_defined;
#endif
}

/*
 * The same for the decision to commit a gid, which the caller has seen committed; by
 * resolvers.  "entry" is what the in-doubt table says of the gid, or NULL.
 *
 * Where the record of the commit ends is known only if the session has told it.
 * Otherwise it is somewhere before the end of the WAL as this process first finds it,
 * and the level is that of the configuration.  A backend ("worker" false), which
 * will not look again, remembers nothing.
 */
bool
DtxStandbyHasDecision(const DtxGid *gid, const DtxInDoubt *entry, bool worker)
{
	uint64		key[2] = {gid->boot_id, gid->xid};
	Awaited    *found;
	XLogRecPtr	lsn;
	bool		known;
	bool		has;

	if (entry != NULL && entry->commit_lsn != InvalidXLogRecPtr)
		return DtxStandbyHas(entry->commit_lsn, entry->commit_level);

	lsn = GetFlushRecPtr(NULL);
	if (DtxStandbyHas(lsn, configured_level()))
		return true;
	if (!worker)
		return false;

	if (awaited != NULL && hash_get_num_entries(awaited) >= MAX_AWAITED)
	{
		hash_destroy(awaited);
		awaited = NULL;
	}
	if (awaited == NULL)
	{
		HASHCTL		info;

		/* Two uint64: no padding. */
		memset(&info, 0, sizeof(info));
		info.keysize = sizeof(key);
		info.entrysize = sizeof(Awaited);
		awaited = hash_create("pg_dtx awaited decisions", 64, &info,
							  HASH_ELEM | HASH_BLOBS);
	}
	found = hash_search(awaited, key, HASH_ENTER, &known);
	if (!known)
		found->lsn = lsn;
	has = DtxStandbyHas(found->lsn, configured_level());
	if (has)
		(void) hash_search(awaited, key, HASH_REMOVE, NULL);
	return has;
}

/*
 * What synchronous_commit is where nobody has set it for a session.  The resolver
 * has, for its own transactions.
 */
static int
configured_level(void)
{
	static const struct
	{
		const char *name;
		int			level;
	}			levels[] = {
		{"off", SYNCHRONOUS_COMMIT_OFF},
		{"local", SYNCHRONOUS_COMMIT_LOCAL_FLUSH},
		{"remote_write", SYNCHRONOUS_COMMIT_REMOTE_WRITE},
		{"remote_apply", SYNCHRONOUS_COMMIT_REMOTE_APPLY}
	};
	const char *name = GetConfigOptionResetString("synchronous_commit");

	for (int i = 0; i < lengthof(levels); i++)
	{
		if (strcmp(name, levels[i].name) == 0)
			return levels[i].level;
	}
	return SYNCHRONOUS_COMMIT_ON;
}
