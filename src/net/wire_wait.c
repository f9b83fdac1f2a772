/*-------------------------------------------------------------------------
 *
 * wire_wait.c
 *		Waiting for wires: the only loop that waits for replies; and making a
 *		connection anew, and canceling what it does, which take a wait of their own.
 *
 * A server may wait for a lock before it replies.  So others can see who waits for which
 * servers (state/waits), a wait that lasts for deadlock_timeout is looked at, and one that
 * was found to be part of a deadlock ends with an error.  Not in phase two, where servers
 * wait for no locks and nothing may throw.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/encoding.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/cancel.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "state/waits.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "storage/procsignal.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/timeout.h"

/* How often wires are looked at for which there is no set; milliseconds. */
#define LOOK_INTERVAL_MS	10

/* How long servers have to answer to cancel requests of a victim, milliseconds. */
#define VICTIM_CANCEL_MS	1000

/* Of the wires of a wait, so many are shown to others. */
#define SHOWN_WIRES		DTX_WAIT_SESSIONS

/* What the victim of a deadlock is told, and what its server's log is. */
static char verdict_detail[DTX_VICTIM_TEXT];
static char verdict_log[DTX_VICTIM_TEXT];

/* Sockets looked at per WaitEventSetWait() call. */
#define EVENTS_AT_ONCE	16

static bool show_wait(const DtxWait *wait);
static DtxWaitEnd wait_shown(const DtxWait *wait, bool *shown);
static void throw_deadlock(const DtxWait *wait) pg_attribute_noreturn();
static bool never_done(void *arg);
static void wait_once(const DtxWait *wait, long timeout);
static void wait_without_set(const DtxWait *wait, long timeout);
static void wait_on_set(const DtxWait *wait, DtxWaitSet *set, long timeout);
static void postmaster_is_dead(const DtxWait *wait);
static void absorb_barrier(void *arg);
static DtxWaitEnd requested_end(DtxWaitInterrupts interrupts);

/*
 * Wait until wait->done() says so.  Before that is asked, what has arrived on the
 * wires is taken in (DtxWireTakeInput).
 *
 * With DTX_INTERRUPTS_THROW this throws on interrupts and if there is no descriptor
 * left; otherwise not, and a set for these wires should have been made before
 * (DtxWaitSetKeep).  A request to terminate then stays
 * pending, for the next CHECK_FOR_INTERRUPTS() outside, and so does a
 * statement_timeout.  The one thing that may report then is WaitEventSetWait(), if
 * the kernel refuses to wait on descriptors that are open, and PostgreSQL's own waits
 * have that in common.
 */
DtxWaitEnd
DtxWireWait(const DtxWait *wait)
{
	bool		shown = false;
	DtxWaitEnd	end;

	for (int i = 0; i < wait->nwires; i++)
		DtxWirePump(wait->wires[i]);
	end = wait_shown(wait, &shown);
	if (shown)
		DtxWaitsEnd();
	return end;
}

/*
 * Others are to see the wait, if the servers may be waiting for locks.  Returns whether
 * they do.
 */
static bool
show_wait(const DtxWait *wait)
{
	uint64		serials[SHOWN_WIRES];
	int			n = Min(wait->nwires, SHOWN_WIRES);

	if (!dtx_deadlock_detection || n == 0 ||
		(wait->interrupts != DTX_INTERRUPTS_THROW && !wait->for_locks) ||
		!IsTransactionState())
		return false;
	for (int i = 0; i < n; i++)
		serials[i] = wait->wires[i]->serial;
	return DtxWaitsBegin(serials, n, InterruptHoldoffCount == 0);
}

/*
 * Likewise, with input pumped.  *shown: can others see the wait?  If this throws, they can
 * not any more.
 */
static DtxWaitEnd
wait_shown(const DtxWait *wait, bool *shown)
{
	DtxMoment	overdue_at = DTX_NEVER;
	bool		first = true;

	for (;;)
	{
		long		timeout = -1;

		if (wait->done(wait->arg))
			return DTX_WAIT_DONE;
		if (first && (*shown = show_wait(wait)))
			overdue_at = DtxIn(DeadlockTimeout);
		first = false;
		if (wait->deadline != DTX_NEVER)
			timeout = DtxUntil(wait->deadline);
		if (timeout == 0)
		{
			for (int i = 0; i < wait->nwires; i++)
				DtxWireTakeInput(wait->wires[i]);
			return wait->done(wait->arg) ? DTX_WAIT_DONE : DTX_WAIT_TIMED_OUT;
		}
		if (wait->poll_ms > 0)
			timeout = timeout < 0 ? wait->poll_ms : Min(timeout, wait->poll_ms);

		if (overdue_at != DTX_NEVER)
		{
			long		left = DtxUntil(overdue_at);

			if (left == 0)
			{
				DtxWaitsSetOverdue();
				overdue_at = DTX_NEVER;
			}
			else
				timeout = timeout < 0 ? left : Min(timeout, left);
		}

		wait_once(wait, timeout);

		if (wait->interrupts == DTX_INTERRUPTS_THROW)
		{
			if (*shown && InterruptHoldoffCount == 0 && DtxWaitsIsVictim())
			{
				if (wait->done(wait->arg))
					return DTX_WAIT_DONE;
				*shown = false;
				throw_deadlock(wait);
			}
			if (InterruptPending)
			{
				/*
				 * What throws here ends the wait; what does not, too, as
				 * others see it.
				 */
				if (*shown)
					DtxWaitsEnd();
				*shown = false;
				if (wait->canceled != NULL)
					*wait->canceled = QueryCancelPending || ProcDiePending;
				CHECK_FOR_INTERRUPTS();
				if (wait->canceled != NULL)
					*wait->canceled = false;
				first = true;
			}
		}
		else
		{
			DtxWaitEnd	end;

			if (ProcSignalBarrierPending)
				(void) DtxGuarded(absorb_barrier, NULL);
			if (wait->done(wait->arg))
				return DTX_WAIT_DONE;
			end = requested_end(wait->interrupts);
			if (end != DTX_WAIT_DONE)
				return end;
			if (*shown && InterruptHoldoffCount == 0 && DtxWaitsIsVictim())
			{
				DtxWaitsTakeVerdict(verdict_detail, verdict_log);
				return DTX_WAIT_DEADLOCK;
			}
		}
	}
}

/*
 * This wait is part of a deadlock, and was chosen to end, as DeadLockReport() ends one in
 * storage/lmgr/deadlock.c.  What was asked by us is canceled here; what postgres_fdw has
 * asked for, in its abort cleanup.
 */
static void
throw_deadlock(const DtxWait *wait)
{
	DtxMoment	deadline = DtxIn(VICTIM_CANCEL_MS);

	DtxWaitsTakeVerdict(verdict_detail, verdict_log);
	DtxWaitsEnd();
	for (int i = 0; i < wait->nwires && !DtxIsDue(deadline); i++)
	{
		if (DtxWireExpects(wait->wires[i], DTX_REPLY_HANDLED))
			DtxWireCancel(wait->wires[i], deadline, wait->wait_event);
	}
	DtxWireThrowDeadlock(wait->context != NULL ? wait->context(wait->arg) : NULL);
}

/*
 * Throw the error of a deadlock, which the last wait of this process that has ended with one
 * was told.  "context": what was waited for, as a line of CONTEXT, or NULL.
 */
void
DtxWireThrowDeadlock(const char *context)
{
	DtxTextMakeValid(verdict_detail);
	DtxTextMakeValid(verdict_log);
	ereport(ERROR,
			(errcode(ERRCODE_T_R_DEADLOCK_DETECTED),
			 errmsg("deadlock detected"),
			 errdetail_internal("%s", verdict_detail),
			 errdetail_log("%s\n%s", verdict_detail, verdict_log),
			 errhint("See server log for query details."),
			 context != NULL ? errcontext("%s", context) : 0));
}

/*
 * Wait for so many milliseconds.  Throws on interrupts.
 */
void
DtxWirePause(int ms, uint32 wait_event)
{
	DtxWait		wait = {
		.deadline = DtxIn(ms),
		.wait_event = wait_event,
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = never_done
	};

	(void) DtxWireWait(&wait);
}

static bool
never_done(void *arg)
{
	return false;
}

/*
 * Wait for the first thing that happens, for at most so many milliseconds (-1: no
 * limit), and take in what has arrived.
 */
static void
wait_once(const DtxWait *wait, long timeout)
{
	int			events;

	for (int i = 0; i < wait->nwires; i++)
	{
		if (PQisnonblocking(wait->wires[i]->conn) &&
			PQflush(wait->wires[i]->conn) < 0)
		{
			DtxWireBreak(wait->wires[i], "connection lost");
			return;
		}
	}

	if (wait->nwires > 0)
	{
		DtxWaitSet *set = DtxWaitSetFind(wait->wires, wait->nwires);

		if (set != NULL)
		{
			wait_on_set(wait, set, timeout);
			return;
		}
		if (wait->nwires > 1)
		{
			/* There is none, and none can be made here: look at all of them. */
			wait_without_set(wait, timeout);
			return;
		}
	}

	/* Either no wire, or one without a socket, or no room to keep its set. */
	if (wait->nwires == 0 || PQsocket(wait->wires[0]->conn) < 0)
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_POSTMASTER_DEATH |
						   (timeout >= 0 ? WL_TIMEOUT : 0),
						   timeout, wait->wait_event);
	else
		events = WaitLatchOrSocket(MyLatch,
								   WL_LATCH_SET | WL_POSTMASTER_DEATH |
								   WL_SOCKET_READABLE |
								   (PQisnonblocking(wait->wires[0]->conn) &&
									PQflush(wait->wires[0]->conn) > 0 ?
									WL_SOCKET_WRITEABLE : 0) |
								   (timeout >= 0 ? WL_TIMEOUT : 0),
								   PQsocket(wait->wires[0]->conn), timeout,
								   wait->wait_event);
	if (events & WL_POSTMASTER_DEATH)
		postmaster_is_dead(wait);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	if (events & WL_SOCKET_READABLE)
		DtxWireTakeInput(wait->wires[0]);
}

static void
wait_without_set(const DtxWait *wait, long timeout)
{
	int			events = WaitLatch(MyLatch, WL_LATCH_SET | WL_POSTMASTER_DEATH |
								   WL_TIMEOUT,
								   timeout < 0 ? LOOK_INTERVAL_MS :
								   Min(timeout, LOOK_INTERVAL_MS),
								   wait->wait_event);

	if (events & WL_POSTMASTER_DEATH)
		postmaster_is_dead(wait);
	if (events & WL_LATCH_SET)
		ResetLatch(MyLatch);
	for (int i = 0; i < wait->nwires; i++)
		DtxWireTakeInput(wait->wires[i]);
}

static void
wait_on_set(const DtxWait *wait, DtxWaitSet *set, long timeout)
{
	WaitEvent	events[EVENTS_AT_ONCE];
	int			nevents;

	for (int i = 0; i < wait->nwires; i++)
	{
		/* What has not gone out yet wants a socket that can be written to. */
		PGconn	   *conn = wait->wires[i]->conn;

		DtxWaitSetWantWrite(set, wait->wires[i],
							PQisnonblocking(conn) && PQflush(conn) > 0);
	}

	nevents = WaitEventSetWait(DtxWaitSetEvents(set), timeout, events, EVENTS_AT_ONCE,
							   wait->wait_event);
	for (int i = 0; i < nevents; i++)
	{
		if (events[i].events & WL_POSTMASTER_DEATH)
			postmaster_is_dead(wait);
		else if (events[i].events & WL_LATCH_SET)
			ResetLatch(MyLatch);
		else if (events[i].events & WL_SOCKET_READABLE)
		{
			DtxWire    *wire = DtxWaitSetWire(set, &events[i]);

			if (wire != NULL)
				DtxWireTakeInput(wire);
		}
	}
}

/*
 * Everything is going down: leave as soon as possible.
 */
static void
postmaster_is_dead(const DtxWait *wait)
{
	if (wait->interrupts == DTX_INTERRUPTS_THROW)
		proc_exit(1);
	ProcDiePending = true;
	InterruptPending = true;
	whereToSendOutput = DestNone;
}

/*
 * Others wait until all processes have done something, such as to close the files
 * of a database that is to be dropped: do not let them wait as long as we do.  To be
 * called by DtxGuarded(); what could not be done stays pending.
 */
static void
absorb_barrier(void *arg)
{
	ProcessProcSignalBarrier();
}

/*
 * Where nothing may throw: has the end of the wait been requested?  Returns
 * DTX_WAIT_DONE if not.
 */
static DtxWaitEnd
requested_end(DtxWaitInterrupts interrupts)
{
	if (ProcDiePending)
		return DTX_WAIT_TERMINATED;
	if (!QueryCancelPending || interrupts == DTX_INTERRUPTS_DIE)
		return DTX_WAIT_DONE;

	/*
	 * A statement_timeout is for the statement, of which the COMMIT of a
	 * procedure is a part.  So it goes on to its end, and is canceled then.
	 * (It is off in a COMMIT that is a statement of its own, see
	 * finish_xact_command in tcop/postgres.c.)
	 */
	if (get_timeout_indicator(STATEMENT_TIMEOUT, false))
		return DTX_WAIT_STATEMENT_TIMEOUT;
	QueryCancelPending = false;
	return DTX_WAIT_CANCELED;
}

/*
 * Ask the server to cancel what it does for this connection.  Whether that helps
 * shows in the results.  Waits until the request was taken, or to the deadline; does
 * not throw on interrupts.
 */
void
DtxWireCancel(DtxWire *wire, DtxMoment deadline, uint32 wait_event)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PGcancelConn *cancel = PQcancelCreate(wire->conn);

	if (cancel == NULL)
		return;
	if (PQcancelStart(cancel))
	{
		while (!ProcDiePending)
		{
			PostgresPollingStatusType status = PQcancelPoll(cancel);
			long		timeout;

			timeout = DtxUntil(deadline);
			if ((status != PGRES_POLLING_READING &&
				 status != PGRES_POLLING_WRITING) || timeout <= 0)
				break;
			(void) WaitLatchOrSocket(MyLatch,
									 WL_LATCH_SET | WL_TIMEOUT |
									 WL_EXIT_ON_PM_DEATH |
									 (status == PGRES_POLLING_READING ?
									  WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE),
									 PQcancelSocket(cancel), timeout,
									 wait_event);
			ResetLatch(MyLatch);
		}
	}
	PQcancelFinish(cancel);
#else
	PGcancel   *cancel = PQgetCancel(wire->conn);

	if (cancel != NULL)
		(void) DtxCancelSend(cancel, PQcancel, DtxUntil(deadline), wait_event);
#endif
}

/*
 * Replace a connection by another one to the same server, with the same parameters,
 * within the same PGconn.  What was due is not any more; handlers are told.
 *
 * Who has opened the connection has checked how it got in (pgfdw_security_check, or
 * connect_pg_server in 15, in contrib/postgres_fdw/connection.c): who had to give a
 * password must not get in without one now.
 *
 * Waits on the latch, to the deadline (DTX_NEVER: none), and for the connection's
 * connect_timeout if it has one.  Throws on interrupts.  Returns false, and the wire is broken, if it failed; PQerrorMessage()
 * says why.
 */
bool
DtxWireReconnect(DtxWire *wire, DtxMoment deadline, uint32 wait_event)
{
	PGconn	   *conn = wire->conn;
	bool		used_password = PQconnectionUsedPassword(conn) != 0;
	bool		used_gssapi = DtxConnectionUsedGssapi(conn);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	PQconninfoOption *options = PQconninfo(conn);

	DTX_ASSERT_MAY_THROW();
	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if (o->val == NULL)
			continue;
		if (strcmp(o->keyword, "connect_timeout") == 0 && atoi(o->val) > 0)
			deadline = Min(deadline, DtxIn(Min(atoi(o->val), 86400) * 1000L));
		explicit_bzero(o->val, strlen(o->val)); /* passwords are among them */
	}
	PQconninfoFree(options);

	/* It is broken until the end is reached. */
	DtxWaitSetForget(wire->serial);
	DtxWireForget(wire);

	if (!PQresetStart(conn))
		return false;
	while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
	{
		long		timeout = deadline == DTX_NEVER ? -1 : DtxUntil(deadline);
		int			events = status == PGRES_POLLING_READING ?
		WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		int			happened;

		if (timeout == 0 || PQsocket(conn) < 0)
			return false;
		happened = WaitLatchOrSocket(MyLatch,
									 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | events |
									 (timeout >= 0 ? WL_TIMEOUT : 0),
									 PQsocket(conn), timeout, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (happened & events)
			status = PQresetPoll(conn);
	}
	if (status != PGRES_POLLING_OK ||
		(used_password && !PQconnectionUsedPassword(conn)) ||
		(used_gssapi && !DtxConnectionUsedGssapi(conn)))
		return false;
	wire->broken = false;
	return true;
}
