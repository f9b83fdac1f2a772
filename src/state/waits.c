/*-------------------------------------------------------------------------
 *
 * waits.c
 *		Which backends wait for a server, and through which of its sessions, in shared
 *		memory.
 *
 * One entry per PGPROC of a regular backend or worker.  Only its process writes it, but
 * for the verdict that a wait is to end, which the detector of deadlocks writes; the
 * entry's lock guards all of it, and is held for a few instructions, never across a
 * wait.  So nothing is sent, and next to nothing done, for a wait that ends in time.
 *
 * A wait is known by its number.  A victim is chosen for the wait
 * with that number, and no later one can be hit: a verdict is void once the number
 * has changed.
 *
 * One wait is not numbered: that of the executor for several foreign tables at once
 * (ExecAppendAsyncEventWait() in executor/nodeAppend.c), which asks nobody before it
 * sleeps.  That it sleeps there can be seen.
 *
 * Nothing here throws or allocates but DtxWaitsPrepareBackend(), in its first call, and
 * DtxWaitsFingerprint().  DtxWaitsSetOverdue(), DtxWaitsIsVictim() and
 * DtxWaitsTakeVerdict() are called between a DtxWaitsBegin() that has returned true and
 * DtxWaitsEnd().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/encoding.h"
#include "base/process.h"
#include "base/wakeup.h"
#include "common/hashfn.h"
#include "common/hmac.h"
#include "common/sha2.h"
#include "miscadmin.h"
#include "postmaster/postmaster.h"
#include "state/waits.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* Bytes of a secret. */
#define SECRET_SIZE		32

typedef struct WaitSlot
{
	LWLock		lock;			/* guards everything below */
	DtxWaits	pub;			/* pid 0: entry unused */
	uint64		victim_number;	/* wait that is to end, or 0 */
	char		detail[DTX_VICTIM_TEXT];	/* what the victim is told, ... */
	char		log[DTX_VICTIM_TEXT];	/* ... and what its server's log is */
} WaitSlot;

typedef struct WaitsShared
{
	int			nslots;			/* constant after init */
	uint8		secret[SECRET_SIZE];	/* likewise; of this start of the
										 * server */
	LWLock		choice;			/* held by who chooses a victim, before locks
								 * of entries */
	WaitSlot	slots[FLEXIBLE_ARRAY_MEMBER];
} WaitsShared;

static WaitsShared *waits = NULL;

/* This process's entry, NULL until the first session. */
static WaitSlot *my_slot = NULL;

static void waits_detach(int code, Datum arg);

/*
 * Bytes of shared memory that this module needs.  MaxBackends must be known.
 */
Size
DtxWaitsShmemSize(void)
{
	return add_size(offsetof(WaitsShared, slots),
					mul_size(MaxBackends, sizeof(WaitSlot)));
}

/*
 * Create or attach to the entries.  The caller holds AddinShmemInitLock.
 */
void
DtxWaitsShmemInit(void)
{
	bool		found;

	waits = ShmemInitStruct("pg_dtx waits", DtxWaitsShmemSize(), &found);
	if (!found)
	{
		int			tranche = DtxLWLockTranche("DtxWaits");

		memset(waits, 0, DtxWaitsShmemSize());
		waits->nslots = MaxBackends;
		if (!pg_strong_random(waits->secret, SECRET_SIZE))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate a random number")));
		LWLockInitialize(&waits->choice, tranche);
		for (int i = 0; i < waits->nslots; i++)
			LWLockInitialize(&waits->slots[i].lock, tranche);
	}
}

/* ----------------------------------------------------------------
 * By a backend, of itself
 * ----------------------------------------------------------------
 */

/*
 * Take this process's entry, once; "mark" is that of its sessions.  May throw.
 */
void
DtxWaitsPrepareBackend(uint32 mark)
{
	int			procno = DtxMyProcNumber();

	if (my_slot != NULL || waits == NULL)
		return;
	on_shmem_exit(waits_detach, (Datum) 0);
	Assert(procno >= 0 && procno < waits->nslots);
	my_slot = &waits->slots[procno];

	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	/* the number goes on, so that a wait of the one before is not one of ours */
	my_slot->pub.number = (my_slot->pub.number + 2) & ~UINT64CONST(1);
	my_slot->pub.procno = procno;
	my_slot->pub.pid = MyProcPid;
	my_slot->pub.dbid = MyDatabaseId;
	my_slot->pub.mark = mark;
	my_slot->pub.nsessions = 0;
	my_slot->pub.overdue = false;
	my_slot->victim_number = 0;
	LWLockRelease(&my_slot->lock);
}

static void
waits_detach(int code, Datum arg)
{
	DtxAssertExiting();
	if (my_slot == NULL)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.pid = 0;
	my_slot->pub.nsessions = 0;
	my_slot->pub.overdue = false;
	LWLockRelease(&my_slot->lock);
	my_slot = NULL;
}

/*
 * This process has a session with a server, or knows more of it than before.
 */
void
DtxWaitsAddSession(const DtxWaitSession *session)
{
	DtxWaits   *w;
	int			i = 0;

	if (my_slot == NULL)
		return;
	w = &my_slot->pub;
	while (i < w->nsessions && w->sessions[i].serial != session->serial)
		i++;
	if (i == DTX_WAIT_SESSIONS)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	w->sessions[i] = *session;
	w->sessions[i].awaited = false;
	w->nsessions = Max(w->nsessions, i + 1);
	LWLockRelease(&my_slot->lock);
}

/*
 * The connection with that wire is closed, or made anew.
 */
void
DtxWaitsDropSession(uint64 serial)
{
	DtxWaits   *w;

	if (my_slot == NULL)
		return;
	w = &my_slot->pub;
	for (int i = 0; i < w->nsessions; i++)
	{
		if (w->sessions[i].serial != serial)
			continue;
		LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
		w->sessions[i] = w->sessions[--w->nsessions];
		LWLockRelease(&my_slot->lock);
		return;
	}
}

/*
 * This process begins to wait for replies on the wires with these serials; "may_throw":
 * it looks whether it is to end the wait with an error (DtxWaitsIsVictim).  Returns false,
 * and nothing has begun, if there is nothing to be known of them.
 */
bool
DtxWaitsBegin(const uint64 *serials, int n, bool may_throw)
{
	DtxWaits   *w;
	bool		any = false;

	if (my_slot == NULL || my_slot->pub.nsessions == 0)
		return false;
	w = &my_slot->pub;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	for (int i = 0; i < w->nsessions; i++)
	{
		w->sessions[i].awaited = false;
		for (int j = 0; j < n && !w->sessions[i].awaited; j++)
			w->sessions[i].awaited = w->sessions[i].serial == serials[j];
		any |= w->sessions[i].awaited;
	}
	if (any)
	{
		/* odd, and another one than before, however the last wait has ended */
		w->number = (w->number + 2) | 1;
		w->since = DtxNow();
		w->start = GetCurrentTransactionStartTimestamp();
		w->userid = GetSessionUserId();
		w->may_throw = may_throw;
		w->overdue = false;
		my_slot->victim_number = 0;
	}
	LWLockRelease(&my_slot->lock);
	return any;
}

/*
 * The wait is longer than deadlock_timeout: it is to be looked at.
 */
void
DtxWaitsSetOverdue(void)
{
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.overdue = true;
	LWLockRelease(&my_slot->lock);
	DtxWakeupDetector(MyDatabaseId);
}

/*
 * Is the present wait to end with an error?
 */
bool
DtxWaitsIsVictim(void)
{
	bool		victim;

	LWLockAcquire(&my_slot->lock, LW_SHARED);
	victim = my_slot->victim_number == my_slot->pub.number;
	LWLockRelease(&my_slot->lock);
	return victim;
}

/*
 * What the victim is told, and its server's log, into buffers of DTX_VICTIM_TEXT bytes.
 */
void
DtxWaitsTakeVerdict(char *detail, char *log)
{
	LWLockAcquire(&my_slot->lock, LW_SHARED);
	memcpy(detail, my_slot->detail, DTX_VICTIM_TEXT);
	memcpy(log, my_slot->log, DTX_VICTIM_TEXT);
	LWLockRelease(&my_slot->lock);
}

/*
 * The wait is over, if there is one.
 */
void
DtxWaitsEnd(void)
{
	if (my_slot == NULL || (my_slot->pub.number & 1) == 0)
		return;
	LWLockAcquire(&my_slot->lock, LW_EXCLUSIVE);
	my_slot->pub.number = (my_slot->pub.number + 1) & ~UINT64CONST(1);
	my_slot->pub.overdue = false;
	LWLockRelease(&my_slot->lock);
}

/* ----------------------------------------------------------------
 * By others
 * ----------------------------------------------------------------
 */

/*
 * By what is known that options of a connection are the same as those of another one: a
 * keyed hash of them, since they contain passwords.  Never 0; throws if out of memory.
 */
uint64
DtxWaitsFingerprint(const char *text)
{
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_hmac_ctx *ctx = pg_hmac_create(PG_SHA256);
	uint64		result;

	if (ctx == NULL ||
		pg_hmac_init(ctx, waits->secret, SECRET_SIZE) < 0 ||
		pg_hmac_update(ctx, (const uint8 *) text, strlen(text)) < 0 ||
		pg_hmac_final(ctx, digest, sizeof(digest)) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not compute a keyed hash for pg_dtx"),
				 errdetail_internal("%s", ctx ? pg_hmac_error(ctx) : "out of memory")));
	pg_hmac_free(ctx);
	memcpy(&result, digest, sizeof(result));
	return result != 0 ? result : 1;
}

/*
 * Which running server is one that has started then, in microseconds since 1970, and
 * listens on that port?  A process id means something in one running server only.  Its
 * system identifier does not tell it from its copies, nor from what it was before a
 * restart; and not everybody may ask for that.
 */
uint64
DtxInstance(int64 started_usec, int port)
{
	return ((uint64) started_usec << 12) ^ (uint64) port;
}

/* This server. */
uint64
DtxInstanceHere(void)
{
	return DtxInstance(PgStartTime +
					   (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY,
					   PostPortNumber);
}

/*
 * What instances are combined with ("xor") that were told through a foreign server whose
 * owner is not a superuser: he may have it lead to something that pretends to be another
 * server, which then is none but that of his own.
 */
uint64
DtxInstanceSalt(Oid serverid, bool trusted)
{
	return trusted ? 0 : hash_bytes_uint32_extended(serverid, 1);
}

/* Number of entries. */
int
DtxWaitsCount(void)
{
	return waits->nslots;
}

/*
 * Copy an entry.  Returns false if nobody uses it.
 */
bool
DtxWaitsGet(int procno, DtxWaits *copy)
{
	WaitSlot   *slot = &waits->slots[procno];
	bool		used;

	LWLockAcquire(&slot->lock, LW_SHARED);
	used = slot->pub.pid != 0;
	if (used)
	{
		memcpy(copy, &slot->pub, offsetof(DtxWaits, sessions) +
			   slot->pub.nsessions * sizeof(DtxWaitSession));
		copy->victim = slot->victim_number == slot->pub.number;
		copy->appending = GetPGProcByNumber(procno)->wait_event_info ==
			WAIT_EVENT_APPEND_READY;
	}
	LWLockRelease(&slot->lock);
	return used;
}

/*
 * Does anybody in this database wait longer than deadlock_timeout?
 */
bool
DtxWaitsAnyOverdue(void)
{
	bool		any = false;

	for (int i = 0; i < waits->nslots && !any; i++)
	{
		WaitSlot   *slot = &waits->slots[i];

		LWLockAcquire(&slot->lock, LW_SHARED);
		any = slot->pub.pid != 0 && slot->pub.overdue &&
			slot->pub.dbid == MyDatabaseId &&
			slot->victim_number != slot->pub.number;
		LWLockRelease(&slot->lock);
	}
	return any;
}

/*
 * These waits keep each other waiting: end that of entry number "victim", unless one of
 * them is over or was chosen already.  Returns whether it was done.  "detail" and "log"
 * are what the victim says.  Does not throw.
 */
bool
DtxWaitsChoose(const int *procnos, const uint64 *numbers, int n, int victim,
			   const char *detail, const char *log)
{
	WaitSlot   *slot = &waits->slots[victim];
	bool		same = true;
	uint64		number = 0;

	LWLockAcquire(&waits->choice, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		WaitSlot   *member = &waits->slots[procnos[i]];

		LWLockAcquire(&member->lock, LW_SHARED);
		same &= member->pub.pid != 0 && member->pub.number == numbers[i] &&
			member->victim_number != numbers[i];
		LWLockRelease(&member->lock);
		if (procnos[i] == victim)
			number = numbers[i];
	}
	if (same)
	{
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		same = slot->pub.number == number && (number & 1) != 0;
		if (same)
		{
			slot->victim_number = number;
			strlcpy(slot->detail, detail, DTX_VICTIM_TEXT);
			strlcpy(slot->log, log, DTX_VICTIM_TEXT);
		}
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&waits->choice);
	if (same)
		SetLatch(&GetPGProcByNumber(victim)->procLatch);
	return same;
}
