/*
 * What a test does to a server through LD_PRELOAD: host names that nobody answers,
 * and a wall clock that is set.  See t/DtxPreload.pm.
 *
 * Directory DTX_PRELOAD has
 *
 *	names	what DtxPreload.pm's name server knows; getaddrinfo(), too, but there a
 *			name that is not answered takes a minute, as with a real name server;
 *			unless there is a file "impatient"
 *	lookups	getaddrinfo() writes here "pid name" for each name that is no address
 *	clock	int64: seconds by which the wall clock is wrong
 *	resolv.conf	takes the place of /etc/resolv.conf
 *
 * Name servers are looked for at port DTX_PRELOAD_PORT instead of 53.
 */
#define _GNU_SOURCE

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const char *
file_name(const char *name)
{
	static char path[1024];

	snprintf(path, sizeof(path), "%s/%s", getenv("DTX_PRELOAD"), name);
	return path;
}

/* ---- names ---- */

int
getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
			struct addrinfo **res)
{
	static int	(*real) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **);
	char		line[512];
	char		numeric[64];
	int			fd;
	FILE	   *file;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "getaddrinfo");
	if (node == NULL || (hints != NULL && (hints->ai_flags & AI_NUMERICHOST)) ||
		inet_pton(AF_INET, node, numeric) == 1 ||
		inet_pton(AF_INET6, node, numeric) == 1)
		return real(node, service, hints, res);

	fd = open(file_name("lookups"), O_WRONLY | O_APPEND | O_CREAT, 0600);
	dprintf(fd, "%d %s\n", (int) getpid(), node);
	close(fd);

	file = fopen(file_name("names"), "r");
	while (file != NULL && fgets(line, sizeof(line), file) != NULL)
	{
		char	   *value = strchr(line, ' ');

		if (value == NULL)
			continue;
		*value++ = '\0';
		if (strcmp(line, node) != 0)
			continue;
		fclose(file);
		value[strcspn(value, ",\n")] = '\0';
		if (strcmp(value, "-") == 0)
		{
			struct timespec left = {60, 0};

			while (access(file_name("impatient"), F_OK) != 0 &&
				   nanosleep(&left, &left) != 0 && errno == EINTR)
				;
			return EAI_AGAIN;
		}
		return real(value, service, hints, res);
	}
	if (file != NULL)
		fclose(file);
	return real(node, service, hints, res);
}

#define REDIRECT_FOPEN(function) \
FILE * \
function(const char *path, const char *mode) \
{ \
	static FILE *(*real) (const char *, const char *); \
\
	if (real == NULL) \
		*(void **) &real = dlsym(RTLD_NEXT, #function); \
	if (strcmp(path, "/etc/resolv.conf") == 0) \
		path = file_name("resolv.conf"); \
	return real(path, mode); \
}

REDIRECT_FOPEN(fopen)
REDIRECT_FOPEN(fopen64)

int
connect(int fd, const struct sockaddr *address, socklen_t len)
{
	static int	(*real) (int, const struct sockaddr *, socklen_t);
	struct sockaddr_in in;
	const char *port = getenv("DTX_PRELOAD_PORT");

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "connect");
	if (address->sa_family == AF_INET && len == sizeof(in))
	{
		memcpy(&in, address, sizeof(in));
		if (port != NULL && in.sin_port == htons(53))
			in.sin_port = htons(atoi(port));
		return real(fd, (struct sockaddr *) &in, sizeof(in));
	}
	return real(fd, address, len);
}

/* ... and seem to answer from there. */
ssize_t
recvfrom(int fd, void *restrict buf, size_t size, int flags,
		 struct sockaddr *restrict address, socklen_t *restrict len)
{
	static ssize_t (*real) (int, void *, size_t, int, struct sockaddr *, socklen_t *);
	struct sockaddr_in in;
	const char *port = getenv("DTX_PRELOAD_PORT");
	ssize_t		n;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "recvfrom");
	n = real(fd, buf, size, flags, address, len);
	if (n >= 0 && address != NULL && port != NULL &&
		address->sa_family == AF_INET && *len >= sizeof(in))
	{
		memcpy(&in, address, sizeof(in));
		if (in.sin_port == htons(atoi(port)))
			in.sin_port = htons(53);
		memcpy(address, &in, sizeof(in));
	}
	return n;
}

/* ---- the clock ---- */

static int64_t
clock_offset(void)
{
	static volatile int64_t *offset;

	if (offset == NULL)
	{
		int			fd = open(file_name("clock"), O_RDONLY);
		void	   *map;

		if (fd < 0)
			return 0;
		map = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
		close(fd);
		if (map == MAP_FAILED)
			return 0;
		offset = map;
	}
	return *offset;
}

int
clock_gettime(clockid_t id, struct timespec *ts)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			rc;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "clock_gettime");
	rc = real(id, ts);
	if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
		ts->tv_sec += clock_offset();
	return rc;
}

int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	static int	(*real) (struct timeval *, void *);
	int			rc;

	if (real == NULL)
		*(void **) &real = dlsym(RTLD_NEXT, "gettimeofday");
	rc = real(tv, tz);
	if (rc == 0)
		tv->tv_sec += clock_offset();
	return rc;
}

time_t
time(time_t *result)
{
	struct timeval tv;

	gettimeofday(&tv, NULL);
	if (result != NULL)
		*result = tv.tv_sec;
	return tv.tv_sec;
}
