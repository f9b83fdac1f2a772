/*-------------------------------------------------------------------------
 *
 * cancel.c
 *		Cancel requests that take a bounded time, with any libpq.
 *
 * PQcancel() opens a connection of its own and waits until the server closes it
 * (libpq, fe-connect.c or fe-cancel.c): without a limit, and without looking at
 * signals.  A server that accepts the connection and says nothing, because it hangs
 * or because its owner wants it so, would keep the process from being canceled,
 * terminated, and shut down.  libpq can do better since version 17, and so does
 * postgres_fdw of that version; those before it call PQcancel().
 *
 * So it is called in a thread of its own, for which it is made: it uses nothing but
 * its argument.  No signal is handled there, and none of PostgreSQL's functions is
 * called.  The thread reports through a pipe; if it takes too long, it is left alone,
 * with the request that it owns, and ends with the server's answer or the process.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "base/backoff.h"
#include "miscadmin.h"
#include "net/cancel.h"
#include "storage/ipc.h"
#include "storage/latch.h"

/* What the thread needs: less than PTHREAD_STACK_MIN is not possible anyway. */
#define STACK_SIZE	(256 * 1024)

/* The longest wait of a process that is to die, milliseconds. */
#define DYING_TIMEOUT	1000

/* Owned by the thread; malloc()ed. */
typedef struct Request
{
	PGcancel   *cancel;
	int			(*send) (PGcancel *, char *, int);
	int			report;			/* where to write whether it was sent */
} Request;

static void *
send_request(void *arg)
{
	Request    *request = (Request *) arg;
	char		error[256];
	char		sent;

	sent = request->send(request->cancel, error, sizeof(error)) != 0;
	PQfreeCancel(request->cancel);

	/* Nobody may listen any more; SIGPIPE is blocked here. */
	while (write(request->report, &sent, 1) < 0 && errno == EINTR)
		continue;
	close(request->report);
	free(request);
	return NULL;
}

/*
 * Send a cancel request with "send", libpq's PQcancel(), and wait until the server has
 * seen it, "timeout" milliseconds at most, and less in a process that is to die.
 * Returns whether it has.  Takes over "cancel", whatever it returns.  Never throws but
 * for want of memory; may be called while a transaction is aborted.
 */
bool
DtxCancelSend(PGcancel *cancel, int (*send) (PGcancel *, char *, int), int timeout,
			  uint32 wait_event)
{
	DtxMoment	begun = DtxNow();
	DtxMoment	deadline = begun + timeout;
	Request    *request = malloc(sizeof(Request));
	int			ends[2];
	sigset_t	all;
	sigset_t	old;
	pthread_attr_t attributes;
	pthread_t	thread;
	bool		started;
	char		sent = 0;

	if (request == NULL || pipe(ends) != 0)
	{
		free(request);
		PQfreeCancel(cancel);
		return false;
	}
	for (int i = 0; i < 2; i++)
		(void) fcntl(ends[i], F_SETFD, FD_CLOEXEC);
	(void) fcntl(ends[0], F_SETFL, O_NONBLOCK);
	request->cancel = cancel;
	request->send = send;
	request->report = ends[1];

	/* The thread inherits the mask: signals are for this one to handle. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attributes, STACK_SIZE);
	started = pthread_create(&thread, &attributes, send_request, request) == 0;
	pthread_attr_destroy(&attributes);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!started)
	{
		close(ends[0]);
		close(ends[1]);
		free(request);
		PQfreeCancel(cancel);
		return false;
	}

	while (read(ends[0], &sent, 1) < 0)
	{
		/*
		 * It ends with the process, which must not go too soon, nor stay for
		 * long.
		 */
		if (ProcDiePending || proc_exit_inprogress)
			deadline = Min(deadline, begun + DYING_TIMEOUT);
		if (DtxIsDue(deadline))
			break;
		(void) WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT |
								 WL_EXIT_ON_PM_DEATH,
								 ends[0], DtxUntil(deadline), wait_event);
		ResetLatch(MyLatch);
	}
	close(ends[0]);

	/* Who waits next has to look at what this has taken from the latch. */
	SetLatch(MyLatch);
	return sent != 0;
}
