/*-------------------------------------------------------------------------
 *
 * round_trip.h
 *		How long a message to a server and back takes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ROUND_TRIP_H
#define PG_DTX_ROUND_TRIP_H

#include "base/backoff.h"
#include "libpq-fe.h"
#include "portability/instr_time.h"

/* What is known of a connection; all 0: nothing. */
typedef struct DtxRoundTrip
{
	int			kernel;			/* what the kernel says, microseconds, 0: it
								 * does not say */
	int			uses;			/* of "kernel" before it is asked again */
	int			shortest;		/* measured in the current period,
								 * microseconds, 0: nothing was */
	int			before;			/* ... and in the one before */
	int			measured;		/* how often it was, MIN_MEASURED at most */
	DtxMoment	period_ends;
	instr_time	sent;			/* when the command was sent that is being
								 * measured; zero: none is */
} DtxRoundTrip;

extern int	DtxRoundTripUsec(DtxRoundTrip *trip, PGconn *conn);
extern void DtxRoundTripSent(DtxRoundTrip *trip);
extern void DtxRoundTripReplied(DtxRoundTrip *trip);

#endif							/* PG_DTX_ROUND_TRIP_H */
