/*-------------------------------------------------------------------------
 *
 * round_trip.c
 *		How long a message to a server and back takes.
 *
 * The kernel knows it of a TCP connection.  What it says lately is no good: a server sends
 * its acknowledgment with its reply, so the smoothed round trip is the time that commands
 * take, with their flushes, and what a busy machine adds.  The shortest one is what the
 * network takes.  But where a proxy or pooler is in between it is that to the proxy.  So
 * quick commands are measured, too, and the shortest one in a while counts; it has the
 * time in it that the server needs at least.
 *
 * Nothing here throws.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>
#ifdef __linux__
#include <linux/tcp.h>			/* (knows more of tcp_info than netinet/tcp.h) */
#include <netinet/in.h>
#include <sys/socket.h>
#endif

#include "base/backoff.h"
#include "libpq-fe.h"
#include "net/round_trip.h"

/* The shortest one is forgotten after one to two of these, milliseconds. */
#define PERIOD_MS	60000

/* The first commands of a session take longer: so many are measured before they count. */
#define MIN_MEASURED	8

/* The kernel is asked again after so many uses of what it has said. */
#define KERNEL_USES	256

static int	ask_kernel(PGconn *conn);
static void begin_period(DtxRoundTrip *trip);

/*
 * The round trip of a connection, microseconds; 0: nothing is known.
 */
int
DtxRoundTripUsec(DtxRoundTrip *trip, PGconn *conn)
{
	int			measured;

	if (trip->uses-- <= 0)
	{
		trip->kernel = ask_kernel(conn);
		trip->uses = KERNEL_USES;
	}
	if (trip->measured < MIN_MEASURED)
		return trip->kernel;
	begin_period(trip);
	measured = trip->shortest == 0 ? trip->before :
		trip->before == 0 ? trip->shortest : Min(trip->shortest, trip->before);
	return Max(trip->kernel, measured);
}

/*
 * A command is sent now that is quick, or may be.
 */
void
DtxRoundTripSent(DtxRoundTrip *trip)
{
	INSTR_TIME_SET_CURRENT(trip->sent);
}

/*
 * Its reply is here.
 */
void
DtxRoundTripReplied(DtxRoundTrip *trip)
{
	instr_time	took;
	int64		usec;

	if (INSTR_TIME_IS_ZERO(trip->sent))
		return;
	INSTR_TIME_SET_CURRENT(took);
	INSTR_TIME_SUBTRACT(took, trip->sent);
	INSTR_TIME_SET_ZERO(trip->sent);
	usec = Max(1, Min((int64) INSTR_TIME_GET_MICROSEC(took), INT_MAX));
	trip->measured = Min(trip->measured + 1, MIN_MEASURED);
	begin_period(trip);
	if (trip->shortest == 0 || usec < trip->shortest)
		trip->shortest = (int) usec;
}

static void
begin_period(DtxRoundTrip *trip)
{
	if (trip->shortest == 0 && trip->before == 0)
		trip->period_ends = DtxIn(PERIOD_MS);
	if (!DtxIsDue(trip->period_ends))
		return;
	trip->before = trip->shortest;
	trip->shortest = 0;
	trip->period_ends = DtxIn(PERIOD_MS);
}

/* 0 for Unix-domain sockets, and where it does not tell. */
static int
ask_kernel(PGconn *conn)
{
#ifdef __linux__
	const char *host = PQhost(conn);
	struct tcp_info info;
	socklen_t	len = sizeof(info);

	if (host != NULL && host[0] != '/' && host[0] != '@' &&
		getsockopt(PQsocket(conn), IPPROTO_TCP, TCP_INFO, &info, &len) == 0 &&
		len >= offsetof(struct tcp_info, tcpi_min_rtt) + sizeof(info.tcpi_min_rtt) &&
		info.tcpi_min_rtt <= INT_MAX)
		return (int) info.tcpi_min_rtt;
#endif
	return 0;
}
