/*-------------------------------------------------------------------------
 *
 * proxy.c
 *		A TCP proxy that makes a network out of one machine: what it passes on
 *		arrives later by a constant time, in order, in either direction.
 *
 *	proxy -d MICROSECONDS -s FILE [-t FILE] LISTEN:TARGET ...
 *
 * Each LISTEN:TARGET is a pair of ports of 127.0.0.1.  The proxy
 * writes "ready" to its standard output when it accepts connections, and ends when
 * its standard input does.
 *
 * FILE of -s holds an array of struct Counters, one per pair, always up to date:
 * read before and after a measurement.  FILE of -t gets a line for each
 * chunk that comes in: microseconds, number of the pair, number of the
 * connection, '>' (to the server) or '<', the time at which it is passed on, and
 * what the chunk says, as far as it is text of a message to be shown.
 *
 * There is one thread.  It sleeps in epoll_wait(); a timerfd with an absolute
 * time wakes it when the next chunk is due, so that a delay is kept to a few
 * dozen microseconds as long as there is a processor for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define MAX_PAIRS		64
#define CHUNK_SIZE		(64 * 1024)
/* Stop reading from a socket when that much waits to be passed on. */
#define MAX_QUEUED		(4 * 1024 * 1024)

/* What is counted for each pair; the file of -s is an array of these. */
typedef struct Counters
{
	uint64_t	connections;	/* accepted so far */
	uint64_t	turns;			/* the client spoke first or after the server:
								 * round trips begun */
	uint64_t	to_server;		/* bytes */
	uint64_t	to_client;		/* bytes */
} Counters;

/* What was read at once; size 0 is the end of the stream. */
typedef struct Chunk
{
	struct Chunk *next;
	uint64_t	due;			/* nanoseconds of CLOCK_MONOTONIC */
	size_t		size;
	size_t		done;			/* bytes of it that have been passed on */
	char		data[];
} Chunk;

typedef enum Kind
{
	LISTENER, TIMER, STDIN, CLIENT, SERVER
} Kind;

/* Whatever epoll watches; a connection has two of them. */
typedef struct End
{
	Kind		kind;
	int			fd;
	uint32_t	watched;		/* events epoll was asked for */
	bool		blocked;		/* the kernel's buffer for writing is full */
	bool		eof;			/* nothing more to read from it */
	bool		shut;			/* nothing more to write to it */
	bool		gone;			/* hung up; epoll watches it no more */
	int			pair;			/* which pair it belongs to */
	struct Conn *conn;			/* of CLIENT and SERVER */
	struct End *peer;			/* the other end of the connection */

	/* what was read from the peer and is to be written here, oldest first */
	Chunk	   *first;
	Chunk	   *last;
	size_t		queued;
} End;

typedef struct Conn
{
	struct Conn *next;			/* list of all, or of the dead */
	struct Conn *prev;
	unsigned long number;
	bool		dead;			/* freed before epoll is asked again */
	bool		server_spoke;	/* direction of the last chunk */
	End			client;
	End			server;
} Conn;

typedef struct Pair
{
	End			listener;
	struct sockaddr_in target;
} Pair;

static int	epfd;
static End	timer = {.kind = TIMER};
static End	input = {.kind = STDIN};
static Pair pairs[MAX_PAIRS];
static int	npairs;
static Counters *counters;
static FILE *trace;
static uint64_t delay;			/* nanoseconds */
static uint64_t armed;			/* what the timer is set to, 0: off */
static Conn *conns;
static Conn *dead;
static unsigned long nconns;

static void
die(const char *what)
{
	fprintf(stderr, "proxy: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t
now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t) ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/*
 * Ask epoll for what is of interest at an end now.
 */
static void
watch(End *end)
{
	struct epoll_event event = {0};

	if (end->peer == NULL || (!end->eof && end->peer->queued < MAX_QUEUED))
		event.events |= EPOLLIN;
	if (end->blocked)
		event.events |= EPOLLOUT;
	if (event.events == end->watched || end->gone)
		return;
	event.data.ptr = end;
	if (epoll_ctl(epfd, EPOLL_CTL_MOD, end->fd, &event) < 0)
		die("epoll_ctl");
	end->watched = event.events;
}

static void
add(End *end)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = end};

	end->watched = EPOLLIN;
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, end->fd, &event) < 0)
		die("epoll_ctl");
}

static void
drop_chunks(End *end)
{
	while (end->first)
	{
		Chunk	   *chunk = end->first;

		end->first = chunk->next;
		free(chunk);
	}
	end->last = NULL;
	end->queued = 0;
}

/*
 * Close a connection.  It is freed later, since epoll may just have reported
 * its other end.
 */
static void
kill_conn(Conn *conn)
{
	if (conn->dead)
		return;
	conn->dead = true;
	close(conn->client.fd);
	close(conn->server.fd);
	drop_chunks(&conn->client);
	drop_chunks(&conn->server);

	if (conn->prev)
		conn->prev->next = conn->next;
	else
		conns = conn->next;
	if (conn->next)
		conn->next->prev = conn->prev;
	conn->next = dead;
	dead = conn;
}

/*
 * A line of the trace: the text of the messages in a chunk.  Chunks are whole
 * messages in practice, because PostgreSQL flushes when it has something to
 * wait for; if one is not, only the trace suffers.
 */
static void
write_trace(const End *from, const Chunk *chunk, uint64_t at)
{
	size_t		pos = 0;
	bool		first = true;

	fprintf(trace, "%.1f %d %lu %c %.1f ", at / 1000.0, from->pair,
			from->conn->number, from->kind == CLIENT ? '>' : '<',
			chunk->due / 1000.0);
	while (pos + 5 <= chunk->size)
	{
		char		type = chunk->data[pos];
		uint32_t	len;
		const char *text = chunk->data + pos + 5;
		const char *end;
		size_t		max = 0;

		memcpy(&len, chunk->data + pos + 1, 4);
		len = ntohl(len);
		if (len < 4 || pos + 1 + len > chunk->size)
			break;
		end = chunk->data + pos + 1 + len;
		fprintf(trace, "%s%c", first ? "" : "|", type);
		first = false;
		if (from->kind == CLIENT)
		{
			if (type == 'P' || type == 'B')
			{
				/* name of the statement and text, portal and name */
				if (type == 'P')
					fprintf(trace, "[%.*s]", 20, text);
				text += strnlen(text, end - text) + 1;
				if (type == 'B' && text < end)
				{
					fprintf(trace, "[%.*s]", 20, text);
					text = end;
				}
				max = 100;
			}
			else if (type == 'Q')
				max = 100;
		}
		else if (type == 'C')
			max = 30;
		for (; max > 0 && text < end && *text; text++, max--)
			fputc((unsigned char) *text < ' ' || *text == '|' ? ' ' : *text, trace);
		pos += 1 + len;
	}
	fputc('\n', trace);
}

/*
 * Read from one end what is there, for the other one to get it later.
 */
static void
take_in(End *end)
{
	static char buffer[CHUNK_SIZE];
	Conn	   *conn = end->conn;
	End		   *to = end->peer;
	ssize_t		got;
	Chunk	   *chunk;
	uint64_t	at;

	got = recv(end->fd, buffer, sizeof(buffer), MSG_DONTWAIT);
	if (got < 0)
	{
		if (errno != EAGAIN && errno != EINTR)
			kill_conn(conn);
		return;
	}
	at = now();
	chunk = malloc(sizeof(Chunk) + got);
	if (chunk == NULL)
		die("malloc");
	chunk->next = NULL;
	chunk->due = at + delay;
	chunk->size = got;
	chunk->done = 0;
	memcpy(chunk->data, buffer, got);
	if (to->last)
		to->last->next = chunk;
	else
		to->first = chunk;
	to->last = chunk;
	to->queued += got;

	if (got == 0)
		end->eof = true;
	else if (end->kind == CLIENT)
	{
		if (conn->server_spoke)
			counters[end->pair].turns++;
		conn->server_spoke = false;
		counters[end->pair].to_server += got;
	}
	else
	{
		conn->server_spoke = true;
		counters[end->pair].to_client += got;
	}
	if (trace && got > 0)
		write_trace(end, chunk, at);
	watch(end);
}

/*
 * Pass on to one end what is due.
 */
static void
pass_on(End *end, uint64_t at)
{
	while (end->first && end->first->due <= at)
	{
		Chunk	   *chunk = end->first;

		if (chunk->size == 0)
		{
			shutdown(end->fd, SHUT_WR);
			end->shut = true;
		}
		else
		{
			ssize_t		put = send(end->fd, chunk->data + chunk->done,
								   chunk->size - chunk->done,
								   MSG_DONTWAIT | MSG_NOSIGNAL);

			if (put < 0)
			{
				if (errno != EAGAIN && errno != EINTR)
				{
					kill_conn(end->conn);
					return;
				}
				end->blocked = true;
				watch(end);
				return;
			}
			chunk->done += put;
			end->queued -= put;
			if (chunk->done < chunk->size)
				continue;
		}
		end->first = chunk->next;
		if (end->first == NULL)
			end->last = NULL;
		free(chunk);
	}
	if (end->shut && end->peer->shut)
	{
		kill_conn(end->conn);
		return;
	}
	end->blocked = false;
	watch(end);
	watch(end->peer);
}

/*
 * Pass on all that is due, and set the timer for the next time.
 */
static void
pass_on_all(void)
{
	uint64_t	at = now();
	uint64_t	next = 0;
	Conn	   *conn = conns;

	while (conn)
	{
		Conn	   *following = conn->next;
		End		   *ends[2] = {&conn->client, &conn->server};

		for (int i = 0; i < 2 && !conn->dead; i++)
		{
			if (!ends[i]->blocked && ends[i]->first && ends[i]->first->due <= at)
				pass_on(ends[i], at);
		}
		for (int i = 0; i < 2 && !conn->dead; i++)
		{
			if (!ends[i]->blocked && ends[i]->first &&
				(next == 0 || ends[i]->first->due < next))
				next = ends[i]->first->due;
		}
		conn = following;
	}
	if (next != armed)
	{
		struct itimerspec spec = {
			.it_value.tv_sec = next / 1000000000,
			.it_value.tv_nsec = next % 1000000000
		};

		if (timerfd_settime(timer.fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
			die("timerfd_settime");
		armed = next;
	}
}

static void
accept_one(Pair *pair)
{
	int			one = 1;
	int			fd = accept4(pair->listener.fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int			server;
	Conn	   *conn;

	if (fd < 0)
		return;
	server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (server < 0)
		die("socket");
	/* on this machine, so this does not block for long */
	if (connect(server, (struct sockaddr *) &pair->target, sizeof(pair->target)) < 0)
	{
		close(server);
		close(fd);
		return;
	}
	fcntl(server, F_SETFL, O_NONBLOCK);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));

	conn = calloc(1, sizeof(Conn));
	if (conn == NULL)
		die("calloc");
	conn->number = ++nconns;
	conn->server_spoke = true;
	conn->client.kind = CLIENT;
	conn->client.fd = fd;
	conn->client.peer = &conn->server;
	conn->server.kind = SERVER;
	conn->server.fd = server;
	conn->server.peer = &conn->client;
	conn->client.conn = conn->server.conn = conn;
	conn->client.pair = conn->server.pair = pair->listener.pair;
	conn->next = conns;
	if (conns)
		conns->prev = conn;
	conns = conn;
	add(&conn->client);
	add(&conn->server);
	counters[pair->listener.pair].connections++;
}

static void
make_address(struct sockaddr_in *address, const char *port)
{
	memset(address, 0, sizeof(*address));
	address->sin_family = AF_INET;
	address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	address->sin_port = htons(atoi(port));
}

static void
add_pair(char *text)
{
	struct sockaddr_in address;
	char	   *target = strchr(text, ':');
	Pair	   *pair = &pairs[npairs];
	int			one = 1;

	if (target == NULL || npairs == MAX_PAIRS)
	{
		errno = EINVAL;
		die(text);
	}
	*target++ = '\0';
	make_address(&pair->target, target);
	make_address(&address, text);
	pair->listener.kind = LISTENER;
	pair->listener.pair = npairs++;
	pair->listener.fd = socket(AF_INET,
								   SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (pair->listener.fd < 0)
		die("socket");
	setsockopt(pair->listener.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(pair->listener.fd, (struct sockaddr *) &address, sizeof(address)) < 0 ||
		listen(pair->listener.fd, 256) < 0)
		die(text);
	add(&pair->listener);
}

int
main(int argc, char **argv)
{
	const char *counter_file = NULL;
	int			opt;
	int			fd;
	size_t		size;

	while ((opt = getopt(argc, argv, "d:s:t:")) != -1)
	{
		switch (opt)
		{
			case 'd':
				delay = strtoull(optarg, NULL, 10) * 1000;
				break;
			case 's':
				counter_file = optarg;
				break;
			case 't':
				trace = fopen(optarg, "w");
				if (trace == NULL)
					die(optarg);
				break;
			default:
				return 1;
		}
	}
	if (counter_file == NULL || optind == argc)
	{
		fprintf(stderr, "usage: proxy -d MICROSECONDS -s FILE [-t FILE] LISTEN:TARGET ...\n");
		return 1;
	}

	size = (argc - optind) * sizeof(Counters);
	fd = open(counter_file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, size) < 0)
		die(counter_file);
	counters = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counters == MAP_FAILED)
		die("mmap");

	signal(SIGPIPE, SIG_IGN);
	prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	epfd = epoll_create1(EPOLL_CLOEXEC);
	timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (epfd < 0 || timer.fd < 0)
		die("epoll_create1 or timerfd_create");
	add(&timer);
	add(&input);
	for (int i = optind; i < argc; i++)
		add_pair(argv[i]);
	puts("ready");
	fflush(stdout);

	for (;;)
	{
		struct epoll_event events[64];
		int			n = epoll_wait(epfd, events, 64, -1);

		if (n < 0 && errno != EINTR)
			die("epoll_wait");
		for (int i = 0; i < n; i++)
		{
			End		   *end = events[i].data.ptr;
			uint64_t	expirations;
			char		byte;

			switch (end->kind)
			{
				case LISTENER:
					accept_one(&pairs[end->pair]);
					break;
				case TIMER:
					if (read(timer.fd, &expirations, sizeof(expirations)) > 0)
						armed = 0;
					break;
				case STDIN:
					if (read(0, &byte, 1) <= 0)
					{
						if (trace)
							fclose(trace);
						return 0;
					}
					break;
				case CLIENT:
				case SERVER:
					if (end->conn->dead)
						break;
					if (events[i].events & EPOLLOUT)
						pass_on(end, now());
					if (!end->conn->dead &&
						(events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)))
					{
						if (end->eof && (events[i].events & EPOLLERR))
							kill_conn(end->conn);
						else if (!end->eof)
							take_in(end);
						else if (events[i].events & EPOLLHUP)
						{
							/* its last words may still be on their way */
							epoll_ctl(epfd, EPOLL_CTL_DEL, end->fd, NULL);
							end->gone = true;
						}
					}
					break;
			}
		}
		pass_on_all();
		while (dead)
		{
			Conn	   *conn = dead;

			dead = conn->next;
			free(conn);
		}
	}
}
