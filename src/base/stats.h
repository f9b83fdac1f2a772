/*-------------------------------------------------------------------------
 *
 * stats.h
 *		Cumulative counters in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STATS_H
#define PG_DTX_STATS_H

#include "datatype/timestamp.h"

typedef enum DtxCounter
{
	DTX_STAT_ONE_PHASE,			/* transactions left to one-phase commit */
	DTX_STAT_TWO_PHASE,			/* transactions committed in two phases */
	DTX_STAT_AT_SERVER,			/* of them, decided by a server */
	DTX_STAT_PREPARED,			/* participants prepared */
	DTX_STAT_PREPARE_FAILED,	/* transactions rolled back in phase one */
	DTX_STAT_HANDED_OVER,		/* participants handed to the resolver */
	DTX_STAT_RESOLVED_COMMIT,	/* in doubt, committed by a resolver */
	DTX_STAT_RESOLVED_ROLLBACK, /* in doubt, rolled back by a resolver */
	DTX_STAT_FORCED,			/* finished by dtx.force_in_doubt() */
	DTX_STAT_PASSES,			/* full passes of the resolvers */
	DTX_STAT_DEADLOCKS,			/* between servers, broken */
	DTX_STAT_UNPROTECTED,		/* transactions that were not committed
								 * atomically */
	DTX_STAT_SNAPSHOTS,			/* moments on all servers: snapshots, exported
								 * snapshots, restore points */
	DTX_STAT_SNAPSHOT_RETRIES,	/* attempts at one that had to be repeated */
	DTX_STAT_SNAPSHOTS_REFUSED, /* ... and that have failed for good */
	DTX_STAT_GATE_USEC,			/* time for which the gate was closed,
								 * microseconds */
	DTX_STAT_PREPARE_USEC,		/* time in phase one, microseconds */
	DTX_STAT_COMMIT_USEC,		/* time in phase two, microseconds */
	DTX_STAT_COUNT
} DtxCounter;

extern Size DtxStatsShmemSize(void);
extern void DtxStatsShmemInit(void);
extern void DtxStatsAdd(DtxCounter counter, uint64 amount); /* never throws */
extern uint64 DtxStatsGet(DtxCounter counter);
extern TimestampTz DtxStatsResetAt(void);
extern void DtxStatsReset(void);

#endif							/* PG_DTX_STATS_H */
