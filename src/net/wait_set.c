/*-------------------------------------------------------------------------
 *
 * wait_set.c
 *		What a process waits for: the latch, the end of the postmaster, and the sockets
 *		of some wires, in sets that are kept.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/guarded.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/*
 * Sets of things to wait for that are kept.  Each takes one of the descriptors that
 * AcquireExternalFD() (storage/file/fd.c) counts, so that many more must be left to
 * others, too.
 */
#define MAX_WAIT_SETS	16

/* A wire in a set, and how it is waited for. */
typedef struct WaitedFor
{
	uint64		serial;			/* the wire's; 0: it is forgotten */
	pgsocket	socket;			/* and its socket, or PGINVALID_SOCKET */
	int			position;		/* in the WaitEventSet, or -1 */
	uint32		events;			/* what the WaitEventSet looks for */
} WaitedFor;

/*
 * The latch, the end of the postmaster, and the sockets of some wires.
 * WaitLatchOrSocket() (storage/ipc/latch.c) makes and closes such a set each time:
 * that takes more system calls than all the rest of a round trip.
 *
 * It knows descriptors, not their numbers: one that was closed has left it, and a
 * new connection has another serial.
 */
struct DtxWaitSet
{
	WaitEventSet *set;			/* NULL: entry unused */
	int			nwires;
	int			max;			/* room in the next one */
	WaitedFor  *wires;
	uint64		used;			/* when it was used last */
};

static DtxWaitSet wait_sets[MAX_WAIT_SETS];

/* The one that DtxWaitSetKeep() has made, or NULL. */
static DtxWaitSet *kept = NULL;

/* Counts uses of wait_sets. */
static uint64 uses = 0;

/* Is there no room for more sets? */
static bool no_more_wait_sets = false;

static WaitedFor *in_set(DtxWaitSet *set, const DtxWire *wire);
static DtxWaitSet *least_used_wait_set(void);
static DtxWaitSet *make_wait_set(DtxWire **wires, int nwires);
static void free_wait_set(DtxWaitSet *set);
static bool descriptors_left(int n);

/*
 * Make the set of things to wait for, so that these wires can be waited for later
 * without opening a descriptor.  Until DtxWaitSetRelease().  Throws if there is no
 * descriptor left, and if out of memory.
 */
void
DtxWaitSetKeep(DtxWire **wires, int nwires)
{
	DTX_ASSERT_MAY_THROW();
	kept = NULL;
	kept = DtxWaitSetFind(wires, nwires);
	if (kept == NULL && nwires > 0)
		kept = make_wait_set(wires, nwires);
}

/*
 * The kept set is for nobody any more: the next one that is asked for is looked up, or
 * made.  Does not throw.
 */
void
DtxWaitSetRelease(void)
{
	kept = NULL;
}

/*
 * The set of some wires.  If there is none it is made, or NULL returned if there is one
 * wire only, and no room, or if nothing may throw.  Throws as make_wait_set().
 */
DtxWaitSet *
DtxWaitSetFind(DtxWire **wires, int nwires)
{
	/*
	 * The kept one will do for fewer, too, and if a connection was lost
	 * meanwhile.
	 */
	if (kept != NULL)
	{
		bool		fits = true;

		for (int i = 0; fits && i < nwires; i++)
			fits = in_set(kept, wires[i]) != NULL;
		if (fits)
			return kept;
	}

	for (int i = 0; i < MAX_WAIT_SETS; i++)
	{
		DtxWaitSet *set = &wait_sets[i];
		bool		fits = set->set != NULL && set->nwires == nwires;

		for (int j = 0; fits && j < nwires; j++)
			fits = set->wires[j].serial == wires[j]->serial &&
				set->wires[j].socket == PQsocket(wires[j]->conn);
		if (fits)
		{
			set->used = ++uses;
			return set;
		}
	}

	if (!DtxMayThrow())
		return NULL;
	if (nwires == 1)
	{
		bool		unused = false;

		for (int i = 0; i < MAX_WAIT_SETS; i++)
			unused |= wait_sets[i].set == NULL;
		if (PQsocket(wires[0]->conn) < 0 || no_more_wait_sets)
			return NULL;
		if (unused && !descriptors_left(MAX_WAIT_SETS))
		{
			/* Until a set is freed: asking is not cheap. */
			no_more_wait_sets = true;
			return NULL;
		}
	}
	return make_wait_set(wires, nwires);
}

/* The entry of a wire in a set, or NULL. */
static WaitedFor *
in_set(DtxWaitSet *set, const DtxWire *wire)
{
	for (int i = 0; i < set->nwires; i++)
	{
		if (set->wires[i].serial == wire->serial)
			return &set->wires[i];
	}
	return NULL;
}

/*
 * Is it to be waited until a wire of the set can be written to, too?
 */
void
DtxWaitSetWantWrite(DtxWaitSet *set, const DtxWire *wire, bool want)
{
	WaitedFor  *w = in_set(set, wire);
	uint32		wanted = WL_SOCKET_READABLE | (want ? WL_SOCKET_WRITEABLE : 0);

	if (w->socket == PGINVALID_SOCKET || w->socket != PQsocket(wire->conn) ||
		wanted == w->events)
		return;
	ModifyWaitEvent(set->set, w->position, wanted, NULL);
	w->events = wanted;
}

/* For WaitEventSetWait(). */
WaitEventSet *
DtxWaitSetEvents(DtxWaitSet *set)
{
	return set->set;
}

/*
 * The wire of an event of a socket.  NULL if it is forgotten: where the kernel is asked
 * by poll(), which knows nothing but numbers, it still reports a closed socket.
 */
DtxWire *
DtxWaitSetWire(DtxWaitSet *set, const WaitEvent *event)
{
	for (int i = 0; i < set->nwires; i++)
	{
		if (set->wires[i].position == event->pos && set->wires[i].serial != 0)
			return (DtxWire *) event->user_data;
	}
	return NULL;
}

/* An unused entry, or that of the set that was not used for the longest time. */
static DtxWaitSet *
least_used_wait_set(void)
{
	DtxWaitSet *set = NULL;

	for (int i = 0; i < MAX_WAIT_SETS; i++)
	{
		DtxWaitSet *other = &wait_sets[i];

		if (other == kept)
			continue;
		if (set == NULL || other->set == NULL ||
			(set->set != NULL && other->used < set->used))
			set = other;
	}
	return set;
}

/*
 * Make the set of some wires, in place of the one that was not used for the longest
 * time if there are too many.
 */
static DtxWaitSet *
make_wait_set(DtxWire **wires, int nwires)
{
	DtxWaitSet *volatile set = least_used_wait_set();

	DTX_ASSERT_MAY_THROW();
	free_wait_set(set);

	if (set->max < nwires)
	{
		if (set->wires == NULL)
			set->wires = MemoryContextAlloc(TopMemoryContext,
											sizeof(WaitedFor) * nwires);
		else
			set->wires = repalloc(set->wires, sizeof(WaitedFor) * nwires);
		set->max = nwires;
	}
	set->nwires = 0;
	set->set = DtxCreateWaitEventSet(nwires + 2);
	PG_TRY();
	{
		AddWaitEventToSet(set->set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		DtxAddPostmasterDeath(set->set, WL_POSTMASTER_DEATH);
		for (int i = 0; i < nwires; i++)
		{
			WaitedFor  *w = &set->wires[i];

			w->serial = wires[i]->serial;
			w->socket = PQsocket(wires[i]->conn);
			w->events = WL_SOCKET_READABLE;
			w->position = -1;
			if (w->socket >= 0)
				w->position = AddWaitEventToSet(set->set, WL_SOCKET_READABLE,
												w->socket, NULL, wires[i]);
		}
	}
	PG_CATCH();
	{
		free_wait_set(set);
		PG_RE_THROW();
	}
	PG_END_TRY();
	set->nwires = nwires;
	set->used = ++uses;
	return set;
}

static void
free_wait_set(DtxWaitSet *set)
{
	if (set->set == NULL)
		return;
	FreeWaitEventSet(set->set);
	set->set = NULL;
	no_more_wait_sets = false;
}

/* A connection is closed, or has another socket now.  Does not throw. */
void
DtxWaitSetForget(uint64 serial)
{
	no_more_wait_sets = false;
	for (int i = 0; i < MAX_WAIT_SETS; i++)
	{
		DtxWaitSet *set = &wait_sets[i];
		bool		in_it = false;

		for (int j = 0; set->set != NULL && j < set->nwires; j++)
		{
			if (set->wires[j].serial != serial)
				continue;
			in_it = true;
			set->wires[j].serial = 0;
		}
		if (in_it && set != kept)
			free_wait_set(set);
	}
}

/*
 * Could so many more descriptors be had?
 */
static bool
descriptors_left(int n)
{
	int			got = 0;

	while (got < n && AcquireExternalFD())
		got++;
	for (int i = 0; i < got; i++)
		ReleaseExternalFD();
	return got == n;
}
