/*-------------------------------------------------------------------------
 *
 * backoff.c
 *		How long something takes, and when it is tried again.
 *
 * Deadlines, pauses and ages are measured here, in all processes and in shared
 * memory, because the wall clock may be set at any time: back, and what was
 * planned waits for hours; forward, and all deadlines have passed.  The wall clock
 * is for what is shown or stored as a time.
 *
 * Nothing here throws, allocates or takes a lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#include <time.h>

#include "base/backoff.h"
#include "common/pg_prng.h"
#include "datatype/timestamp.h"
#include "utils/timestamp.h"

/*
 * Added to what the system's clock says, which may begin with the machine, so that
 * zero is long ago: ten years, milliseconds.
 */
#define ORIGIN	INT64CONST(315360000000)

/*
 * Now.  Not instr_time's clock: that is only meant to be compared within a process
 * (portability/instr_time.h).
 */
DtxMoment
DtxNow(void)
{
	struct timespec ts;

	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
	return ORIGIN + (DtxMoment) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * The moment in so many milliseconds, which may be any number.
 */
DtxMoment
DtxIn(int64 ms)
{
	DtxMoment	now = DtxNow();

	if (ms >= DTX_NEVER - now)
		return DTX_NEVER;
	return Max(now + ms, 1);
}

/*
 * Milliseconds until a moment, from 0 to INT_MAX, which is what WaitLatch() takes.
 */
long
DtxUntil(DtxMoment at)
{
	DtxMoment	now = DtxNow();

	if (at <= now)
		return 0;
	return (long) Min(at - now, INT_MAX);
}

/*
 * What the wall clock will show at a moment, if nobody sets it until then: for
 * showing it.
 */
TimestampTz
DtxMomentToTimestamp(DtxMoment at)
{
	if (at == DTX_NEVER)
		return DT_NOEND;
	return GetCurrentTimestamp() + (at - DtxNow()) * 1000;
}

/*
 * The moment when the wall clock showed this, if nobody has set it since; now, if that
 * is still to come.
 */
DtxMoment
DtxTimestampToMoment(TimestampTz at)
{
	return DtxNow() - Max((GetCurrentTimestamp() - at) / 1000, 0);
}

/*
 * By how many milliseconds the wall clock is ahead of one that nobody sets, and that goes
 * on while the machine is suspended, where there is one.  It changes only if the wall clock
 * is set.
 */
int64
DtxWallOffset(void)
{
	struct timespec ts;

#ifdef CLOCK_BOOTTIME
	(void) clock_gettime(CLOCK_BOOTTIME, &ts);
#else
	(void) clock_gettime(CLOCK_MONOTONIC, &ts);
#endif
	return GetCurrentTimestamp() / 1000 -
		((int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000);
}

/*
 * The pause after so many failures in a row, in milliseconds: min_ms, doubled
 * with each of them, max_ms at most.
 */
int
DtxBackoffPause(int failures, int min_ms, int max_ms)
{
	int			pause = min_ms;

	while (--failures > 0 && pause < max_ms)
		pause = pause > max_ms / 2 ? max_ms : pause * 2;
	return Min(pause, max_ms);
}

/*
 * Something has failed: set the moment of the next attempt.  A tenth of the pause
 * is random, so that those who have failed together do not come together for ever.
 */
void
DtxBackoffFailed(DtxBackoff *backoff, int min_ms, int max_ms)
{
	int			pause;

	if (backoff->failures < INT_MAX)
		backoff->failures++;
	pause = DtxBackoffPause(backoff->failures, min_ms, max_ms);
	pause -= (int) (pg_prng_double(&pg_global_prng_state) * (pause / 10));
	backoff->next = DtxIn(pause);
}

/* It has succeeded: no pause before the next attempt. */
void
DtxBackoffReset(DtxBackoff *backoff)
{
	backoff->failures = 0;
	backoff->next = 0;
}
