/*-------------------------------------------------------------------------
 *
 * remote_command.c
 *		Commands on a connection of pg_dtx's own, and what a server answers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/ioctl.h>

#include "libpq-fe.h"
#include "net/remote.h"
#include "net/remote_command.h"
#include "net/text.h"
#include "storage/latch.h"
#include "utils/palloc.h"

/*
 * Bytes that arrive without any result coming out of them.  The longest honest
 * message that we ask for is a few hundred bytes; a server that goes on sending
 * without completing one tries to fill our memory.
 *
 * It must be noticed after one read, and what libpq's buffer holds at first is
 * one read: once a long message is announced, libpq makes room for all of it
 * and then reads as long as something arrives (fe-misc.c, pqReadData).  With
 * encryption a read may take one record only of what waits.  So not more than
 * half a record counts then, and it takes some reads to notice.
 */
#define MAX_FRUITLESS_BYTES		(16 * 1024)
#define MAX_FRUITLESS_ENCRYPTED	(24 * 1024)
#define MAX_COUNTED_ENCRYPTED	(8 * 1024)

static int	bytes_waiting(DtxRemote *remote);
static bool is_encrypted(DtxRemote *remote);
static void take_error(DtxRemote *remote, const PGresult *res);

/*
 * Send a command, which may consist of several statements.  Only from within the
 * handler's ready().  The server has DTX_REMOTE_COMMAND_TIMEOUT to answer, or as long
 * as for a new connection if this one may be dead without a sign.  A failure is
 * reported through failed(), later, from within DtxRemoteWait().
 */
void
DtxRemoteSend(DtxRemote *remote, const char *sql)
{
	Assert(remote->state == DTX_REMOTE_IDLE);

	remote->statement = 0;
	remote->fruitless = 0;
	memset(&remote->error, 0, sizeof(remote->error));
	remote->deadline = remote->set->clock +
		(remote->resumed ? remote->target->connect_timeout :
		 DTX_REMOTE_COMMAND_TIMEOUT);
	remote->resumed = false;
	remote->state = DTX_REMOTE_BUSY;

	/* A failure shows up as soon as the connection is read from. */
	if (PQsendQuery(remote->conn, sql))
	{
		/* One row at a time: memory does not depend on what is sent. */
		(void) PQsetSingleRowMode(remote->conn);
		remote->unflushed = PQflush(remote->conn) == 1;
	}
	else
		remote->deadline = remote->set->clock;
	DtxRemoteWant(remote, WL_SOCKET_READABLE |
				  (remote->unflushed ? WL_SOCKET_WRITEABLE : 0));
}

/*
 * Write what is left, read what is there, hand out what is complete.  Throws what the
 * handler throws.
 */
void
DtxRemoteCommandStep(DtxRemote *remote)
{
	PGnotify   *notify;
	int			waiting;

	if (remote->unflushed)
	{
		int			rc = PQflush(remote->conn);

		if (rc < 0)
		{
			DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
						  PQerrorMessage(remote->conn));
			return;
		}
		remote->unflushed = rc == 1;
		DtxRemoteWant(remote, WL_SOCKET_READABLE |
					  (remote->unflushed ? WL_SOCKET_WRITEABLE : 0));
	}

	waiting = bytes_waiting(remote);
	if (!PQconsumeInput(remote->conn))
	{
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  PQerrorMessage(remote->conn));
		return;
	}
	while ((notify = PQnotifies(remote->conn)) != NULL)
		PQfreemem(notify);

	while (remote->state == DTX_REMOTE_BUSY && !PQisBusy(remote->conn))
	{
		waiting = 0;
		remote->fruitless = 0;
		remote->result = PQgetResult(remote->conn);

		if (remote->result == NULL)
		{
			if (PQstatus(remote->conn) == CONNECTION_BAD)
			{
				DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
							  remote->error.message ? remote->error.message :
							  PQerrorMessage(remote->conn));
				return;
			}
			if (remote->setting_up)
			{
				remote->setting_up = false;
				if (remote->error.sqlstate != 0)
				{
					DtxRemoteFail(remote, DTX_REMOTE_REFUSED,
								  remote->error.message);
					return;
				}
			}
			remote->state = DTX_REMOTE_IDLE;
			remote->handler->ready(remote, remote->arg, &remote->error);
			if (remote->state == DTX_REMOTE_IDLE)
				DtxRemoteClose(remote);
			continue;
		}

		switch (PQresultStatus(remote->result))
		{
			case PGRES_SINGLE_TUPLE:
				if (!remote->setting_up && PQntuples(remote->result) == 1)
					remote->handler->row(remote, remote->arg,
										 remote->statement, remote->result);
				break;
			case PGRES_TUPLES_OK:
			case PGRES_COMMAND_OK:
			case PGRES_EMPTY_QUERY:
				remote->statement++;
				break;
			case PGRES_BAD_RESPONSE:
			case PGRES_NONFATAL_ERROR:
			case PGRES_FATAL_ERROR:
				take_error(remote, remote->result);
				break;
			default:
				/* COPY, which nobody asked for */
				DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
							  "unexpected answer from the server");
				return;
		}
		PQclear(remote->result);
		remote->result = NULL;
	}

	remote->fruitless += waiting;
	if (remote->state == DTX_REMOTE_BUSY &&
		remote->fruitless >= (is_encrypted(remote) ? MAX_FRUITLESS_ENCRYPTED :
							  MAX_FRUITLESS_BYTES))
		DtxRemoteFail(remote, DTX_REMOTE_UNREACHABLE,
					  "the server sends more than it was asked for");
}

/*
 * How many bytes will the next read find, at least?
 */
static int
bytes_waiting(DtxRemote *remote)
{
	int			waiting;

	/* if the system does not tell, it takes some more reads to notice */
	if (ioctl(PQsocket(remote->conn), FIONREAD, &waiting) < 0 || waiting < 0)
		waiting = MAX_FRUITLESS_BYTES / 64;
	return Min(waiting, is_encrypted(remote) ? MAX_COUNTED_ENCRYPTED :
			   MAX_FRUITLESS_BYTES);
}

static bool
is_encrypted(DtxRemote *remote)
{
	return PQsslInUse(remote->conn) || PQgssEncInUse(remote->conn);
}

/*
 * Keep what the server says about a command that failed; the first error
 * counts.
 */
static void
take_error(DtxRemote *remote, const PGresult *res)
{
	MemoryContext old;
	const char *sqlstate = PQresultErrorField(res, PG_DIAG_SQLSTATE);
	const char *message = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
	const char *detail = PQresultErrorField(res, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);

	if (remote->error.sqlstate != 0)
		return;

	old = MemoryContextSwitchTo(remote->cxt);
	if (sqlstate != NULL && strlen(sqlstate) == 5 &&
		strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5)
		remote->error.sqlstate = MAKE_SQLSTATE(sqlstate[0], sqlstate[1],
											   sqlstate[2], sqlstate[3],
											   sqlstate[4]);
	else
		remote->error.sqlstate = ERRCODE_CONNECTION_FAILURE;
	if (message == NULL)
		message = PQresultErrorMessage(res);
	remote->error.message = DtxCleanText(message, DTX_REMOTE_MAX_ERROR_TEXT);
	if (detail != NULL)
		remote->error.detail = DtxCleanText(detail, DTX_REMOTE_MAX_ERROR_TEXT);
	if (hint != NULL)
		remote->error.hint = DtxCleanText(hint, DTX_REMOTE_MAX_ERROR_TEXT);
	MemoryContextSwitchTo(old);
}

/*
 * Notices of other servers have no place in our log.  But a warning may say that
 * what is about to be answered is not replicated: see participant.c,
 * DtxRemoteReceiveNotice().  Called by libpq, before it hands out the result.
 */
void
DtxRemoteReceiveNotice(void *arg, const PGresult *res)
{
	DtxRemote  *remote = (DtxRemote *) arg;
	const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);

	if (severity == NULL || strcmp(severity, "WARNING") == 0)
		remote->error.warned = true;
}
