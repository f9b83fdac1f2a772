/*-------------------------------------------------------------------------
 *
 * count_results.c
 *		Preloaded into servers: counts the results of libpq that are made and
 *		freed in each process, in a file that the test reads.
 *
 * All results are made by PQmakeEmptyPGresult() and freed by PQclear().  The file
 * DTX_COUNT_DIR/<pid> has the two numbers, as 64-bit integers.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct pg_conn PGconn;
typedef struct pg_result PGresult;

static uint64_t *counts = NULL;
static pid_t counted_pid = 0;

static void
count(int which)
{
	if (counted_pid != getpid())
	{
		const char *dir = getenv("DTX_COUNT_DIR");
		char		path[1024];
		int			fd;

		counted_pid = getpid();
		counts = NULL;
		if (dir == NULL)
			return;
		snprintf(path, sizeof(path), "%s/%d", dir, (int) counted_pid);
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		if (fd < 0)
			return;
		if (ftruncate(fd, 16) == 0)
		{
			counts = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
			if (counts == MAP_FAILED)
				counts = NULL;
		}
		close(fd);
	}
	if (counts != NULL)
		counts[which]++;
}

PGresult *
PQmakeEmptyPGresult(PGconn *conn, int status)
{
	static PGresult *(*real) (PGconn *, int) = NULL;
	PGresult   *result;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "PQmakeEmptyPGresult");
	result = real(conn, status);
	if (result != NULL)
		count(0);
	return result;
}

void
PQclear(PGresult *result)
{
	static void (*real) (PGresult *) = NULL;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "PQclear");
	if (result != NULL)
		count(1);
	real(result);
}
