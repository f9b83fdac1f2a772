/*-------------------------------------------------------------------------
 *
 * util.h
 *		Memory, time, pauses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_UTIL_H
#define RELAY_UTIL_H

#include <stddef.h>
#include <stdint.h>

/* These end the process if there is no memory: a restart loses nothing. */
extern void *must_alloc(size_t size);	/* zeroed */
extern void *must_realloc(void *p, size_t size);
extern char *must_dup(const char *s);	/* NULL of NULL */
extern char *must_printf(const char *format,...) __attribute__((format(printf, 1, 2)));

/* Milliseconds of a clock that is never set. */
extern int64_t now_ms(void);

/*
 * The pause after the n-th failure in a row, from 1: it doubles from 100 ms to "max_ms",
 * and is never quite the same.
 */
extern int	backoff_ms(int n, int max_ms);

#endif							/* RELAY_UTIL_H */
