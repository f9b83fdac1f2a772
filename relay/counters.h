/*-------------------------------------------------------------------------
 *
 * counters.h
 *		What is counted, for metrics and for dtx.relays.
 *
 * Each is written by one thread, and read by others at any time.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_COUNTERS_H
#define RELAY_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#define LATENCY_BUCKETS		12

typedef struct Counters
{
	/* out */
	atomic_llong published;
	atomic_llong publish_failed;
	atomic_llong poison;
	atomic_llong commands;
	atomic_int	buckets;
	atomic_int	blocked_buckets;
	atomic_llong oldest_ms;		/* age of the oldest event of the last batch */
	atomic_llong latency[LATENCY_BUCKETS + 1];	/* from writing to confirm */
	atomic_llong latency_sum_ms;
	/* in */
	atomic_llong received;
	atomic_llong effects;
	atomic_llong duplicates;
	atomic_llong retries;
	atomic_llong dead_letters;
	/* both: is it connected? */
	atomic_int	out_database;
	atomic_int	out_broker;
	atomic_int	in_database;
	atomic_int	in_broker;
} Counters;

extern Counters counters;

/* Upper bounds of the classes of latency, milliseconds; the last class has none. */
extern const int latency_bounds_ms[LATENCY_BUCKETS];

extern void count_latency(int64_t ms);

#endif							/* RELAY_COUNTERS_H */
