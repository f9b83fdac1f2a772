/*-------------------------------------------------------------------------
 *
 * interpose.c
 *		The wrappers around libpq that stock postgres_fdw calls.
 *
 * They have the names of libpq's functions, so that the calls of postgres_fdw lead to
 * them (real_libpq.c).  Only calls that come from postgres_fdw itself count.  All
 * others, from dblink, the walreceiver, libpq's own insides or other modules of
 * pg_dtx, pass straight through, at the cost of a comparison (fdw_library.c).
 *
 * What is done about a call is elsewhere: which command is sent (commands.c) and how
 * (sending.c), what is read and when (reading.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/guarded.h"
#include "commit/commands.h"
#include "commit/connection.h"
#include "commit/coordinator.h"
#include "commit/fdw_library.h"
#include "commit/first.h"
#include "commit/participant.h"
#include "commit/reading.h"
#include "commit/real_libpq.h"
#include "commit/sending.h"
#include "commit/statement.h"
#include "libpq-fe.h"
#include "net/cancel.h"
#include "net/wire.h"
#include "state/tables.h"
#include "storage/fd.h"

/* The last request to cancel that postgres_fdw has asked for, and its connection. */
static PGconn *canceled_conn = NULL;
static PGcancel *canceled_by = NULL;

/* What postgres_fdw does with a notice of a server, from 19 on; see below. */
static PQnoticeReceiver fdw_notice_receiver = NULL;

/*
 * Does the caller of a wrapper lie in postgres_fdw?  Must be a macro: a
 * return address is that of the function in which it is asked for.  For the same
 * reason wrappers are never inlined, and nothing in this file calls one.
 */
#define CALLED_BY_FDW() \
	DtxFdwLibraryContains(__builtin_return_address(0))

static DtxConnection *before_connect(const void *caller,
									 const char *const *keywords,
									 const char *const *values);
static void release_descriptor(void);
static void after_connect(DtxConnection *c, PGconn *conn);

/* ----------------------------------------------------------------
 * Connections
 * ----------------------------------------------------------------
 */

/*
 * A connection is about to be made.  Returns what is known of it if it is postgres_fdw
 * that makes it, or NULL.  May throw.
 */
static DtxConnection *
before_connect(const void *caller, const char *const *keywords,
			   const char *const *values)
{
	DtxConnection *volatile c = NULL;

	if (!DtxFdwLibraryFind(caller))
		return NULL;

	PG_TRY();
	{
		/* Catalogs can be looked at now: there is no connection to be closed. */
		bool		extension_seen = DtxExtensionInstalled();

		DtxCoordinatorPrepareBackend();
		DtxReadingPrepareBackend();
		c = DtxConnectionCreate(keywords, values);
		c->extension_seen = extension_seen;
	}
	PG_CATCH();
	{
		release_descriptor();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return c;
}

/*
 * postgres_fdw has reserved a descriptor for the connection, and gives it back
 * only if it has got one (connect_pg_server in contrib/postgres_fdw/connection.c,
 * libpqsrv_connect_prepare in libpq/libpq-be-fe-helpers.h): that is for us to do
 * if we throw instead of returning one.
 */
static void
release_descriptor(void)
{
	ReleaseExternalFD();
}

/* postgres_fdw made a connection, or started to. */
static void
after_connect(DtxConnection *c, PGconn *conn)
{
	if (conn == NULL)
	{
		DtxConnectionDestroy(c);
		return;
	}
	PG_TRY();
	{
		DtxConnectionAttach(c, conn);
	}
	PG_CATCH();
	{
		DtxConnectionDestroy(c);
		dtx_real.PQfinish(conn);
		release_descriptor();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ----------------------------------------------------------------
 * The wrappers
 * ----------------------------------------------------------------
 */

PGDLLEXPORT pg_noinline PGconn *
PQconnectdbParams(const char *const *keywords, const char *const *values,
				  int expand_dbname)
{
	DtxConnection *c = before_connect(__builtin_return_address(0), keywords, values);
	PGconn	   *conn = dtx_real.PQconnectdbParams(keywords, values, expand_dbname);

	if (c != NULL)
		after_connect(c, conn);
	return conn;
}

PGDLLEXPORT pg_noinline PGconn *
PQconnectStartParams(const char *const *keywords, const char *const *values,
					 int expand_dbname)
{
	DtxConnection *c = before_connect(__builtin_return_address(0), keywords, values);
	PGconn	   *conn = dtx_real.PQconnectStartParams(keywords, values, expand_dbname);

	if (c != NULL)
		after_connect(c, conn);
	return conn;
}

PGDLLEXPORT pg_noinline void
PQfinish(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind(conn);

		/* It may be needed, by the current transaction or an earlier one. */
		if (c != NULL && DtxCoordinatorKeepsConnection(c))
			return;
		if (c != NULL)
			DtxConnectionDestroy(c);
	}
	dtx_real.PQfinish(conn);
}

/*
 * Until 16, postgres_fdw cancels a command while it aborts a transaction with these
 * two, one right after the other, and the second one may take for ever (cancel.c).
 */
PGDLLEXPORT pg_noinline PGcancel *
PQgetCancel(PGconn *conn)
{
	PGcancel   *cancel = dtx_real.PQgetCancel(conn);

	if (CALLED_BY_FDW())
	{
		canceled_conn = conn;
		canceled_by = cancel;
	}
	return cancel;
}

PGDLLEXPORT pg_noinline int
PQcancel(PGcancel *cancel, char *errbuf, int errbufsize)
{
	PGcancel   *own = NULL;

	if (!CALLED_BY_FDW() || cancel == NULL || cancel != canceled_by)
		return dtx_real.PQcancel(cancel, errbuf, errbufsize);

	/* One that outlives this call.  The caller's is the caller's to free. */
	own = dtx_real.PQgetCancel(canceled_conn);
	canceled_by = NULL;
	if (own != NULL &&
		DtxCancelSend(own, dtx_real.PQcancel, DTX_CANCEL_TIMEOUT, PG_WAIT_EXTENSION))
		return 1;
	strlcpy(errbuf, "the server has not answered the request in time", errbufsize);
	return 0;
}

PGDLLEXPORT pg_noinline int
PQsendQuery(PGconn *conn, const char *query)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind(conn);

		switch (c == NULL ? DTX_COMMAND_SEND : DtxCommandsJudge(c, query))
		{
			case DTX_COMMAND_SEND:
				return DtxSendingQuery(conn, query);
			case DTX_COMMAND_START:
				return DtxSendingStart(c);
			case DTX_COMMAND_SWALLOW:
				return 1;
			case DTX_COMMAND_REFUSE:
				return 0;
		}
	}
	return dtx_real.PQsendQuery(conn, query);
}

PGDLLEXPORT pg_noinline int
PQsendQueryParams(PGconn *conn, const char *command, int nParams,
				  const Oid *paramTypes, const char *const *paramValues,
				  const int *paramLengths, const int *paramFormats,
				  int resultFormat)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	DtxCommandsBeforeData(conn, command, false) : NULL;
	bool		joined;

	if (c == NULL)
		return dtx_real.PQsendQueryParams(conn, command, nParams, paramTypes,
										  paramValues, paramLengths, paramFormats,
										  resultFormat);

	/* postgres_fdw gives no types, and wants text */
	if (paramTypes == NULL && resultFormat == 0)
		return DtxSendingParams(c, command, nParams, paramValues, paramLengths,
								paramFormats);
	if (c->put_off.start[0] != '\0')
		DtxFirstStartAlone(c);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, false);
	return DtxSendingExpect(c, joined, false,
							dtx_real.PQsendQueryParams(conn, command, nParams, paramTypes,
													   paramValues, paramLengths,
													   paramFormats, resultFormat));
}

PGDLLEXPORT pg_noinline int
PQsendPrepare(PGconn *conn, const char *stmtName, const char *query,
			  int nParams, const Oid *paramTypes)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	DtxCommandsBeforeData(conn, NULL, false) : NULL;
	bool		joined;

	if (c == NULL)
		return dtx_real.PQsendPrepare(conn, stmtName, query, nParams, paramTypes);
	if (c->put_off.start[0] != '\0')
	{
		if (paramTypes == NULL && strlen(query) <= DTX_MAX_FIRST_SIZE)
			return DtxFirstSend(c, stmtName, query, nParams, NULL);
		DtxFirstStartAlone(c);
	}
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, false);
	return DtxSendingExpect(c, joined, false,
							dtx_real.PQsendPrepare(conn, stmtName, query,
												   nParams, paramTypes));
}

/* postgres_fdw prepares nothing but INSERT, UPDATE and DELETE. */
PGDLLEXPORT pg_noinline int
PQsendQueryPrepared(PGconn *conn, const char *stmtName, int nParams,
					const char *const *paramValues, const int *paramLengths,
					const int *paramFormats, int resultFormat)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	DtxCommandsBeforeData(conn, NULL, true) : NULL;
	bool		ask;
	bool		joined;

	if (c == NULL)
		return dtx_real.PQsendQueryPrepared(conn, stmtName, nParams, paramValues,
											paramLengths, paramFormats, resultFormat);
	if (c->put_off.start[0] != '\0')
		DtxFirstStartAlone(c);
	ask = DtxSendingWantsXid(c);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, ask);
	return DtxSendingExpect(c, joined, ask,
							dtx_real.PQsendQueryPrepared(conn, stmtName, nParams,
														 paramValues, paramLengths,
														 paramFormats, resultFormat));
}

PGDLLEXPORT pg_noinline PGresult *
PQexec(PGconn *conn, const char *query)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind(conn);
		bool		received;
		PGresult   *result;

		switch (c == NULL ? DTX_COMMAND_SEND : DtxCommandsJudge(c, query))
		{
			case DTX_COMMAND_SEND:
			case DTX_COMMAND_START:
				/* neither comes this way, but for DEALLOCATE ALL */
				break;
			case DTX_COMMAND_SWALLOW:
				result = DtxWireReadMade(&c->wire, &received);
				(void) DtxWireReadMade(&c->wire, &received);
				return result;
			case DTX_COMMAND_REFUSE:
				return NULL;
		}
	}
	return dtx_real.PQexec(conn, query);
}

PGDLLEXPORT pg_noinline PGresult *
PQgetResult(PGconn *conn)
{
	DtxConnection *c = CALLED_BY_FDW() ? DtxConnectionFind(conn) : NULL;
	PGresult   *result;

	if (c == NULL)
		return dtx_real.PQgetResult(conn);

	/*
	 * What is not here is waited for as postgres_fdw does it, which has asked
	 * before, and in cleanup goes on when it is here.
	 */
	if ((DtxWireExpects(&c->wire, DTX_REPLY_JOINED) || DtxReadingQuestionIsDue(c)) &&
		DtxReadingIsBusy(c))
	{
		DtxWireBreak(&c->wire, "no reply");
		DtxWireFailJoined(&c->wire);
	}
	if (DtxWireExpects(&c->wire, DTX_REPLY_MADE))
	{
		bool		received;

		result = DtxWireReadMade(&c->wire, &received);
		if (received && result != NULL)
			DtxStatementDone(&c->statements, result);
		return result;
	}
	if (!DtxReadingHasReply(c))
		return NULL;
	if (DtxReadingIsRemoteSql(c))
	{
		if (DtxReadingRemoteSqlIsBusy(c))
			DtxWireBreak(&c->wire, "no reply");
		return NULL;
	}

	result = dtx_real.PQgetResult(conn);
	if (result == NULL)
		DtxWireReadIsOver(&c->wire);
	DtxStatementDone(&c->statements, result);
	return result;
}

PGDLLEXPORT pg_noinline int
PQisBusy(PGconn *conn)
{
	DtxConnection *c = CALLED_BY_FDW() ? DtxConnectionFind(conn) : NULL;

	if (c == NULL)
		return dtx_real.PQisBusy(conn);
	if (DtxReadingQuestionIsDue(c))
		return DtxReadingIsBusy(c);
	if (DtxWireExpects(&c->wire, DTX_REPLY_MADE) || !DtxReadingHasReply(c))
		return 0;
	if (DtxReadingIsRemoteSql(c))
		return DtxReadingRemoteSqlIsBusy(c);
	return DtxReadingIsBusy(c);
}

PGDLLEXPORT pg_noinline int
PQconsumeInput(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind(conn);

		if (c != NULL && !DtxReadingQuestionIsDue(c) &&
			(DtxWireExpects(&c->wire, DTX_REPLY_MADE) || !DtxReadingHasReply(c)))
			return 1;
	}
	return dtx_real.PQconsumeInput(conn);
}

PGDLLEXPORT pg_noinline ConnStatusType
PQstatus(const PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind((PGconn *) conn);

		if (c != NULL && c->wire.broken)
			return CONNECTION_BAD;
	}
	return dtx_real.PQstatus(conn);
}

PGDLLEXPORT pg_noinline PGTransactionStatusType
PQtransactionStatus(const PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind((PGconn *) conn);

		if (c != NULL && c->wire.broken)
			return PQTRANS_UNKNOWN;
		if (c != NULL && (DtxReadingIsRemoteSql(c) || DtxReadingQuestionIsDue(c) ||
						  DtxWireExpects(&c->wire, DTX_REPLY_JOINED)))
			return PQTRANS_ACTIVE;
		if (c != NULL && (DtxParticipantTookOver(c) ||
						  DtxWireExpects(&c->wire, DTX_REPLY_HANDLED)))
			return PQTRANS_IDLE;
	}
	return dtx_real.PQtransactionStatus(conn);
}

/*
 * From 19 on postgres_fdw writes a server's notices to the log and to the client
 * (libpqsrv_notice_receiver in libpq/libpq-be-fe-helpers.h).  That throws if the
 * client can't take what the server says, and comes from inside of libpq whenever
 * something is received.  After the local commit it must not: notices are not
 * passed on then.
 */
static void
receive_notice(void *arg, const PGresult *res)
{
	if (DtxMayThrow())
		fdw_notice_receiver(arg, res);
}

PGDLLEXPORT pg_noinline PQnoticeReceiver
PQsetNoticeReceiver(PGconn *conn, PQnoticeReceiver proc, void *arg)
{
	if (CALLED_BY_FDW() && proc != NULL)
	{
		DtxConnection *c = DtxConnectionFind(conn);

		fdw_notice_receiver = proc;
		proc = receive_notice;
		if (c != NULL)
			return DtxWirePassNotices(&c->wire, proc, arg);
	}
	return dtx_real.PQsetNoticeReceiver(conn, proc, arg);
}
