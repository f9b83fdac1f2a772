/*-------------------------------------------------------------------------
 *
 * wire_wait.h
 *		Waiting for wires.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WIRE_WAIT_H
#define PG_DTX_WIRE_WAIT_H

#include "base/backoff.h"
#include "net/wire.h"

/* How a wait ended. */
typedef enum DtxWaitEnd
{
	DTX_WAIT_DONE,
	DTX_WAIT_TIMED_OUT,
	DTX_WAIT_CANCELED,			/* query cancel, where it cannot throw */
	DTX_WAIT_STATEMENT_TIMEOUT, /* statement_timeout, likewise */
	DTX_WAIT_DEADLOCK,			/* a deadlock, likewise; see
								 * DtxWireThrowDeadlock() */
	DTX_WAIT_TERMINATED			/* SIGTERM or the end of the postmaster,
								 * likewise */
} DtxWaitEnd;

/* What becomes of interrupts during a wait. */
typedef enum DtxWaitInterrupts
{
	DTX_INTERRUPTS_THROW,		/* CHECK_FOR_INTERRUPTS() */
	DTX_INTERRUPTS_END_IT,		/* nothing may throw: they end the wait */
	DTX_INTERRUPTS_DIE			/* likewise, but only a request to terminate
								 * does */
} DtxWaitInterrupts;

typedef struct DtxWait
{
	DtxWire   **wires;			/* whose input is taken in and pumped */
	int			nwires;
	DtxMoment	deadline;		/* or DTX_NEVER */
	int			poll_ms;		/* how often to look whether it is done,
								 * whatever happens; 0: only when something
								 * has happened */
	uint32		wait_event;
	DtxWaitInterrupts interrupts;
	bool		for_locks;		/* may the servers wait for locks, though the
								 * wait does not throw?  Then it ends if it is
								 * chosen to end a deadlock. */
	bool	   *canceled;		/* with THROW: set while an interrupt that
								 * ends the command is processed; or NULL */
	bool		(*done) (void *arg);	/* is it over?  Throws nothing. */
	void	   *arg;
	const char *(*context) (void *arg); /* with THROW: what is waited for, as a
										 * line of CONTEXT, in the current memory
										 * context; or NULL */
} DtxWait;

extern DtxWaitEnd DtxWireWait(const DtxWait *wait);
extern void DtxWireThrowDeadlock(const char *context) pg_attribute_noreturn();
extern void DtxWirePause(int ms, uint32 wait_event);
extern bool DtxWireReconnect(DtxWire *wire, DtxMoment deadline,
							 uint32 wait_event);
extern void DtxWireCancel(DtxWire *wire, DtxMoment deadline, uint32 wait_event);

#endif							/* PG_DTX_WIRE_WAIT_H */
