/*-------------------------------------------------------------------------
 *
 * counters.c
 *		What is counted, for metrics and for dtx.relays.
 *
 *-------------------------------------------------------------------------
 */
#include "counters.h"

Counters	counters;

const int	latency_bounds_ms[LATENCY_BUCKETS] = {
	5, 10, 25, 50, 100, 250, 500, 1000, 2500, 10000, 60000, 600000
};

void
count_latency(int64_t ms)
{
	int			i = 0;

	if (ms < 0)
		ms = 0;					/* (clocks of two machines) */
	while (i < LATENCY_BUCKETS && ms > latency_bounds_ms[i])
		i++;
	atomic_fetch_add(&counters.latency[i], 1);
	atomic_fetch_add(&counters.latency_sum_ms, ms);
}
