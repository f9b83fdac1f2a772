/*-------------------------------------------------------------------------
 *
 * backoff.h
 *		How long something takes, and when it is tried again: a clock that
 *		nobody sets, and the pauses between failures.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_BACKOFF_H
#define PG_DTX_BACKOFF_H

#include "datatype/timestamp.h"

/*
 * A moment on the monotonic clock of this machine, in milliseconds.  All processes of
 * a server see the same clock.  It means nothing after a restart of the machine, so a
 * moment is never stored in a table, and shown only as DtxMomentToTimestamp().
 *
 * Zero is long before all others: "at once", or "not yet".
 */
typedef int64 DtxMoment;

#define DTX_NEVER	PG_INT64_MAX	/* after all others */

/* A counter of failures in a row, and what follows from it.  All zero: none. */
typedef struct DtxBackoff
{
	int			failures;
	DtxMoment	next;			/* not before */
} DtxBackoff;

extern DtxMoment DtxNow(void);
extern DtxMoment DtxIn(int64 ms);
extern long DtxUntil(DtxMoment at);
extern TimestampTz DtxMomentToTimestamp(DtxMoment at);
extern DtxMoment DtxTimestampToMoment(TimestampTz at);
extern int64 DtxWallOffset(void);
extern int	DtxBackoffPause(int failures, int min_ms, int max_ms);
extern void DtxBackoffFailed(DtxBackoff *backoff, int min_ms, int max_ms);
extern void DtxBackoffReset(DtxBackoff *backoff);

/* Has the moment come? */
static inline bool
DtxIsDue(DtxMoment at)
{
	return at <= DtxNow();
}

#endif							/* PG_DTX_BACKOFF_H */
