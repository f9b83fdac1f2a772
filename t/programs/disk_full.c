/*-------------------------------------------------------------------------
 *
 * disk_full.c
 *		Preloaded into servers: makes the disk of a data directory full.
 *
 * While the data directory, in which all processes of a server work, has a file
 * "disk_full_wal", no file in its pg_wal can grow; while it has "disk_full_data",
 * no other file in it can.  What a file has already may be overwritten, as on a
 * file system that is full.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* The function that is replaced. */
#define FIND(name) \
	if (real == NULL) \
		real = dlsym(RTLD_NEXT, #name)

/*
 * Would the file become longer than it is, on a disk that has no room for that?
 * offset -1: where the descriptor stands.
 */
static int
no_room(int fd, off_t offset, size_t length)
{
	static const char wal[] = "pg_wal/";
	char		link[64];
	char		path[PATH_MAX];
	char		cwd[PATH_MAX];
	ssize_t		n;
	size_t		len;
	struct stat st;
	int			saved_errno = errno;
	int			result = 0;

	if (access("disk_full_wal", F_OK) != 0 && access("disk_full_data", F_OK) != 0)
		goto done;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		goto done;
	if (offset < 0)
		offset = lseek(fd, 0, SEEK_CUR);
	if (offset < 0 || offset + (off_t) length <= st.st_size)
		goto done;

	/* Whose file is it?  Not the server's log, which lies outside. */
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, sizeof(path) - 1);
	if (n < 0 || getcwd(cwd, sizeof(cwd)) == NULL)
		goto done;
	path[n] = '\0';
	len = strlen(cwd);
	if (strncmp(path, cwd, len) != 0 || path[len] != '/')
		goto done;
	result = access(strncmp(path + len + 1, wal, strlen(wal)) == 0 ?
					"disk_full_wal" : "disk_full_data", F_OK) == 0;
done:
	errno = saved_errno;
	return result;
}

static size_t
total(const struct iovec *iov, int n)
{
	size_t		sum = 0;

	for (int i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

#define WRITE_AT(name, offset_type) \
ssize_t \
name(int fd, const void *data, size_t length, offset_type offset) \
{ \
	static ssize_t (*real) (int, const void *, size_t, offset_type) = NULL; \
 \
	FIND(name); \
	if (no_room(fd, offset, length)) \
	{ \
		errno = ENOSPC; \
		return -1; \
	} \
	return real(fd, data, length, offset); \
}

#define WRITE_VECTOR_AT(name, offset_type) \
ssize_t \
name(int fd, const struct iovec *iov, int n, offset_type offset) \
{ \
	static ssize_t (*real) (int, const struct iovec *, int, offset_type) = NULL; \
 \
	FIND(name); \
	if (no_room(fd, offset, total(iov, n))) \
	{ \
		errno = ENOSPC; \
		return -1; \
	} \
	return real(fd, iov, n, offset); \
}

/* This one returns the error. */
#define ALLOCATE(name, offset_type) \
int \
name(int fd, offset_type offset, offset_type length) \
{ \
	static int	(*real) (int, offset_type, offset_type) = NULL; \
 \
	FIND(name); \
	return no_room(fd, offset, length) ? ENOSPC : real(fd, offset, length); \
}

WRITE_AT(pwrite, off_t)
WRITE_AT(pwrite64, off64_t)
WRITE_VECTOR_AT(pwritev, off_t)
WRITE_VECTOR_AT(pwritev64, off64_t)
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

ssize_t
write(int fd, const void *data, size_t length)
{
	static ssize_t (*real) (int, const void *, size_t) = NULL;

	FIND(write);
	if (no_room(fd, -1, length))
	{
		errno = ENOSPC;
		return -1;
	}
	return real(fd, data, length);
}
