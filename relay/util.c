/*-------------------------------------------------------------------------
 *
 * util.c
 *		Memory, time, pauses.
 *
 *-------------------------------------------------------------------------
 */
#include "util.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void *
checked(void *p)
{
	if (p == NULL)
	{
		fputs("pg_dtx_relay: out of memory\n", stderr);
		abort();
	}
	return p;
}

void *
must_alloc(size_t size)
{
	return checked(calloc(1, size > 0 ? size : 1));
}

void *
must_realloc(void *p, size_t size)
{
	return checked(realloc(p, size > 0 ? size : 1));
}

char *
must_dup(const char *s)
{
	return s == NULL ? NULL : checked(strdup(s));
}

char *
must_printf(const char *format,...)
{
	va_list		args;
	char	   *s;

	va_start(args, format);
	if (vasprintf(&s, format, args) < 0)
		s = NULL;
	va_end(args);
	return checked(s);
}

int64_t
now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int
backoff_ms(int n, int max_ms)
{
	static __thread unsigned int seed = 0;
	int64_t		ms = 100;

	if (seed == 0)
		seed = (unsigned int) now_ms() ^ (unsigned int) (uintptr_t) &seed;
	for (int i = 1; i < n && ms < max_ms; i++)
		ms *= 2;
	if (ms > max_ms)
		ms = max_ms;
	return (int) (ms * 3 / 4 + rand_r(&seed) % (ms / 4 + 1));
}
