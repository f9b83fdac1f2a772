/*-------------------------------------------------------------------------
 *
 * flushed.c
 *		How far the WAL of other clusters is known to be on their disks, in shared
 *		memory.
 *
 * A transaction id counts as assigned for good once a WAL record that carries it, or a
 * higher one, is on disk: recovery goes on with the ids behind the highest one that it has
 * replayed (ApplyWalRecord in access/transam/xlogrecovery.c).  One that has not got there
 * when the server crashes is handed out again.  So a transaction may be known by its id
 * only if the WAL is flushed up to such a record, and sessions tell each other here what
 * servers have told them of that.
 *
 * A position counts in the run in which it was told.  After a crash the WAL is continued
 * where the last complete record ends, which may be before a position that was flushed.
 *
 * What is not here is not known.  So the table may forget: it is divided into sets of a
 * few entries, and in each the one that was told longest ago gives way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/compat.h"
#include "common/hashfn.h"
#include "state/flushed.h"
#include "storage/condition_variable.h"
#include "storage/shmem.h"
#include "storage/spin.h"

#define SETS	64
#define WAYS	4

typedef struct Entry
{
	DtxWalOf	wal;			/* all 0: unused */
	uint64		lsn;			/* flushed up to there */
	uint64		wanted;			/* sessions wait for this position, and maybe
								 * for higher ones; 0: none does */
	uint64		told;			/* Set.told when it was told last */
	uint64		requests;		/* flushes that sessions have asked for */
} Entry;

typedef struct Set
{
	slock_t		lock;			/* guards the rest; held for a few
								 * instructions */
	uint64		told;			/* how often something was told */
	Entry		entries[WAYS];
	ConditionVariable changed;	/* (has a lock of its own) */
} Set;

static Set *sets = NULL;

static Set *set_of(const DtxWalOf *wal);
static bool is_of(const Entry *entry, const DtxWalOf *wal);
static bool covers(const DtxWalOf *wal, uint64 lsn, bool want);

/*
 * Bytes of shared memory that this module needs.
 */
Size
DtxFlushedShmemSize(void)
{
	return mul_size(SETS, sizeof(Set));
}

/*
 * Create or attach to the table.  The caller holds AddinShmemInitLock.
 */
void
DtxFlushedShmemInit(void)
{
	bool		found;

	sets = ShmemInitStruct("pg_dtx flushed", DtxFlushedShmemSize(), &found);
	if (!found)
	{
		memset(sets, 0, DtxFlushedShmemSize());
		for (int i = 0; i < SETS; i++)
		{
			SpinLockInit(&sets[i].lock);
			ConditionVariableInit(&sets[i].changed);
		}
	}
}

static Set *
set_of(const DtxWalOf *wal)
{
	return &sets[hash_bytes((const unsigned char *) wal, sizeof(*wal)) % SETS];
}

static bool
is_of(const Entry *entry, const DtxWalOf *wal)
{
	return memcmp(&entry->wal, wal, sizeof(*wal)) == 0;
}

/*
 * The WAL is on disk up to "lsn"; 0, and parts of "wal" that are 0: not known.
 */
void
DtxFlushedTell(const DtxWalOf *wal, uint64 lsn)
{
	Set		   *set = set_of(wal);
	Entry	   *entry = &set->entries[0];
	bool		wake;

	if (lsn == 0 || wal->system_id == 0 || wal->timeline == 0 || wal->run == 0)
		return;
	SpinLockAcquire(&set->lock);
	for (int i = 0; i < WAYS; i++)
	{
		if (is_of(&set->entries[i], wal))
		{
			entry = &set->entries[i];
			break;
		}
		if (set->entries[i].told < entry->told)
			entry = &set->entries[i];
	}
	if (!is_of(entry, wal))
	{
		entry->wal = *wal;
		entry->lsn = entry->wanted = entry->requests = 0;
	}
	entry->lsn = Max(entry->lsn, lsn);
	wake = entry->wanted != 0 && entry->wanted <= entry->lsn;
	if (wake)
		entry->wanted = 0;
	entry->told = ++set->told;
	SpinLockRelease(&set->lock);
	if (wake)
		ConditionVariableBroadcast(&set->changed);
}

/*
 * This session has sent a command that flushes the WAL, and is going to tell.
 */
void
DtxFlushedRequested(const DtxWalOf *wal)
{
	Set		   *set = set_of(wal);

	SpinLockAcquire(&set->lock);
	for (int i = 0; i < WAYS; i++)
	{
		if (is_of(&set->entries[i], wal))
			set->entries[i].requests++;
	}
	SpinLockRelease(&set->lock);
}

/*
 * How often was DtxFlushedRequested() called, by any session?  If it is more often than it
 * was when a record was known to be written, another session is about to tell that the record is
 * on disk.  0: not known.
 */
uint64
DtxFlushedRequests(const DtxWalOf *wal)
{
	Set		   *set = set_of(wal);
	uint64		requests = 0;

	SpinLockAcquire(&set->lock);
	for (int i = 0; i < WAYS; i++)
	{
		if (is_of(&set->entries[i], wal))
			requests = set->entries[i].requests;
	}
	SpinLockRelease(&set->lock);
	return requests;
}

/*
 * Is it known that the WAL is on disk up to "lsn"?
 */
bool
DtxFlushedCovers(const DtxWalOf *wal, uint64 lsn)
{
	return lsn != 0 && covers(wal, lsn, false);
}

/* "want": if not, those who sleep are to be woken when it is. */
static bool
covers(const DtxWalOf *wal, uint64 lsn, bool want)
{
	Set		   *set = set_of(wal);
	bool		covered = false;

	SpinLockAcquire(&set->lock);
	for (int i = 0; i < WAYS; i++)
	{
		Entry	   *entry = &set->entries[i];

		if (!is_of(entry, wal))
			continue;
		covered = lsn <= entry->lsn;
		if (!covered && want && (entry->wanted == 0 || lsn < entry->wanted))
			entry->wanted = lsn;
	}
	SpinLockRelease(&set->lock);
	return covered;
}

/*
 * Wait until it is, for so many milliseconds at most: others may be about to tell.  Returns
 * whether it is.  Throws on interrupts.
 */
bool
DtxFlushedWait(const DtxWalOf *wal, uint64 lsn, int ms)
{
	static uint32 event = 0;
	DtxMoment	deadline = DtxIn(ms);
	Set		   *set = set_of(wal);
	bool		covered;

	if (event == 0)
		event = DtxWaitEvent("DtxFlushed");
	ConditionVariablePrepareToSleep(&set->changed);
	while (!(covered = covers(wal, lsn, true)) && !DtxIsDue(deadline))
		(void) ConditionVariableTimedSleep(&set->changed,
										   Max(1, deadline - DtxNow()), event);
	ConditionVariableCancelSleep();
	return covered;
}
