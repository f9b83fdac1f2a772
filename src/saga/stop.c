/*-------------------------------------------------------------------------
 *
 * stop.c
 *		What stops a step.
 *
 * Each has a limit (pg_dtx.saga_step_timeout, and the timeout of its definition).  Its
 * saga may be canceled or ended, a role without any worker may need this one (claims.c),
 * and the worker may be told to leave.  All of it cancels the step from signal handlers of
 * this file, which the SQL of the step cannot change, by a timer, or when the scheduler
 * says so, should the wall clock be set back; if that does not help within a grace time,
 * the worker dies.  A step that was stopped for no fault of its own (the last two) is given
 * back, and that was no attempt.
 *
 * Handlers set flags and the latch, and CHECK_FOR_INTERRUPTS() does the rest.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/process.h"
#include "base/settings.h"
#include "miscadmin.h"
#include "saga/claims.h"
#include "saga/stop.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

/* How often a worker that executes a step looks whether to stop it, ms. */
#define WATCH_INTERVAL	200

/* From canceling a step to killing its worker, and if that is to leave, ms. */
#define STOP_GRACE	5000
#define LEAVE_GRACE	2000

/*
 * Worker: is it executing a step, so that SIGTERM does not kill it at once?  Why and
 * since when is the step to stop?  When is its limit over (0: it has none), and which one
 * is that?  Signal handlers read and set these.
 */
static volatile sig_atomic_t executing = false;
volatile sig_atomic_t DtxSagaStopReason = DTX_SAGA_GO_ON;
static volatile DtxMoment stop_since = 0;
static volatile DtxMoment limit_at = 0;
static volatile sig_atomic_t limit_reason = DTX_SAGA_STOP_LIMIT;

/* Worker: the timers. */
static TimeoutId limit_timer;
static TimeoutId watch_timer;

static void ask_to_stop(int reason);
static void limit_over(void);
static void look(void);
static void watch_step(void);

/*
 * In a worker, before its first step.
 */
void
DtxSagaStopInit(void)
{
	limit_timer = RegisterTimeout(USER_TIMEOUT, limit_over);
	watch_timer = RegisterTimeout(USER_TIMEOUT, look);
}

/*
 * SIGTERM.  A step that is being executed is canceled and given back first.
 */
void
DtxSagaHandleSigterm(SIGNAL_ARGS)
{
	int			save_errno = errno;

	DTX_HANDLER_BEGIN();
	if (executing && DtxSagaStopReason != DTX_SAGA_STOP_LEAVE)
		ask_to_stop(DTX_SAGA_STOP_LEAVE);
	else
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
	DTX_HANDLER_END();
	errno = save_errno;
}

/*
 * SIGUSR2, from the scheduler: look, whatever time it is.
 */
void
DtxSagaHandleSigusr2(SIGNAL_ARGS)
{
	int			save_errno = errno;

	look();
	errno = save_errno;
}

static void
ask_to_stop(int reason)
{
	DtxAssertInHandler();
	if (DtxSagaStopReason == DTX_SAGA_GO_ON || reason == DTX_SAGA_STOP_LEAVE)
	{
		stop_since = DtxNow();
		DtxSagaStopReason = reason;
	}
	QueryCancelPending = true;
	InterruptPending = true;
}

/*
 * The step has taken too long.
 */
static void
limit_over(void)
{
	DTX_HANDLER_BEGIN();
	if (executing)
		ask_to_stop(limit_reason);
	SetLatch(MyLatch);
	DTX_HANDLER_END();
}

/*
 * Every now and then while a step is executed, and when the scheduler says so.
 */
static void
look(void)
{
	DTX_HANDLER_BEGIN();
	if (executing)
		watch_step();
	DTX_HANDLER_END();
}

/*
 * Is the step that is executed to be stopped, and has it?  A step may catch that it is
 * canceled, so it is canceled again, and in the end the worker dies.
 */
static void
watch_step(void)
{
	DtxAssertInHandler();
	if (DtxSagaStopReason == DTX_SAGA_GO_ON)
	{
		int			stop = DtxSagaStopAsked();

		if (stop == DTX_SAGA_GO_ON && limit_at != 0 && DtxIsDue(limit_at))
			stop = limit_reason;
		if (stop == DTX_SAGA_GO_ON)
			return;
		ask_to_stop(stop);
	}
	else if (DtxNow() - stop_since <
			 (DtxSagaStopReason == DTX_SAGA_STOP_LEAVE ? LEAVE_GRACE : STOP_GRACE))
	{
		QueryCancelPending = true;
		InterruptPending = true;
	}
	else
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
}

/*
 * From now on SIGTERM cancels, and does not kill.
 */
void
DtxSagaBeginExecution(void)
{
	DtxSagaStopReason = DTX_SAGA_GO_ON;
	stop_since = 0;
	limit_at = 0;
	executing = true;
}

/*
 * ... no more.  An attempt to cancel came too late; a worker that is to leave
 * does so at the next opportunity.
 */
void
DtxSagaEndExecution(void)
{
	executing = false;
	disable_timeout(limit_timer, false);
	disable_timeout(watch_timer, false);
	if (DtxSagaStopReason != DTX_SAGA_GO_ON)
		QueryCancelPending = false;
	if (DtxSagaStopReason == DTX_SAGA_STOP_LEAVE)
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
}

/*
 * Start the timers; "timeout" is the step's own, milliseconds, 0: none.  The settings are
 * those of the session, before the step.
 */
void
DtxSagaSetLimits(int timeout)
{
	int			limit = dtx_saga_step_timeout;

	limit_reason = DTX_SAGA_STOP_LIMIT;
	if (timeout > 0 && (limit == 0 || timeout < limit))
	{
		limit = timeout;
		limit_reason = DTX_SAGA_STOP_TIMEOUT;
	}
	if (limit > 0)
	{
		limit_at = DtxIn(limit);
		enable_timeout_after(limit_timer, limit);
	}
	enable_timeout_every(watch_timer,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 WATCH_INTERVAL),
						 WATCH_INTERVAL);
}

/*
 * A step that has caught that it was canceled, and ends, has been stopped all the same.
 * Throws ERRCODE_QUERY_CANCELED then.
 */
void
DtxSagaCheckStopped(void)
{
	CHECK_FOR_INTERRUPTS();
	if (DtxSagaStopReason != DTX_SAGA_GO_ON)
		ereport(ERROR,
				(errcode(ERRCODE_QUERY_CANCELED),
				 errmsg("canceling statement due to user request")));
}
