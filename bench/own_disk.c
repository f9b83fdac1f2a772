/*-------------------------------------------------------------------------
 *
 * own_disk.c
 *		Preloaded into the benchmark's servers: gives each of them a disk of its own.
 *
 * All servers of a benchmark share the one disk and the processors of its machine,
 * where two servers that flush at the same time wait for each other, and where
 * flushing may cost a good deal of processor time.  With this library and data in
 * memory, fsync() and fdatasync() take a constant time in which nothing else waits:
 * OWN_DISK_US microseconds of sleep.  Within a server flushes are as serial, and as
 * shared between sessions, as they always are: that is PostgreSQL's doing.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

static long microseconds;

static void __attribute__((constructor))
begin(void)
{
	const char *value = getenv("OWN_DISK_US");

	if (value != NULL)
		microseconds = atol(value);
}

static int
flush(void)
{
	struct timespec left = {microseconds / 1000000, microseconds % 1000000 * 1000};
	int			saved_errno = errno;

	/*
	 * A sleep may last as much longer as the slack of the thread's timers, which
	 * is 50 microseconds unless it is told otherwise.
	 */
	prctl(PR_SET_TIMERSLACK, 1UL);
	while (nanosleep(&left, &left) != 0 && errno == EINTR)
		;
	errno = saved_errno;
	return 0;
}

int
fsync(int fd)
{
	(void) fd;
	return flush();
}

int
fdatasync(int fd)
{
	(void) fd;
	return flush();
}
