/*-------------------------------------------------------------------------
 *
 * metrics.h
 *		What is counted, over HTTP, as Prometheus reads it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_METRICS_H
#define RELAY_METRICS_H

#include <stdbool.h>
#include <stddef.h>

#include "life.h"

/* Serve /metrics, /healthz and /readyz; false: "error" says why not. */
extern bool metrics_start(const char *address, int port, char *error, size_t size);
extern void metrics_stop(void);

/* The Life that is told of; NULL: none. */
extern void metrics_of(Life *life);

/* Is it connected to whatever it needs? */
extern bool metrics_ready(const Life *life);

#endif							/* RELAY_METRICS_H */
