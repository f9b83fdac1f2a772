/*-------------------------------------------------------------------------
 *
 * interpose.c
 *		The wrappers around libpq that stock postgres_fdw calls, the only place
 *		that knows how postgres_fdw talks.
 *
 * PostgreSQL opens modules with dlopen(RTLD_NOW | RTLD_GLOBAL)
 * (utils/fmgr/dfmgr.c, internal_load_library).  This module, loaded at server
 * start, exports functions with names of libpq; when postgres_fdw.so is loaded
 * later, the dynamic linker binds its references to them, by the ELF rules of
 * symbol interposition.  The real functions are found with RTLD_NEXT.
 *
 * Only calls that come from postgres_fdw itself count.  All others, from
 * dblink, the walreceiver, libpq's own insides or other modules of pg_dtx, pass
 * straight through, at the cost of a comparison (fdw_library.c).
 *
 * postgres_fdw (contrib/postgres_fdw/connection.c, 15 to 19) drives a remote
 * transaction with a handful of literal commands: START TRANSACTION ...,
 * SAVEPOINT ..., RELEASE ..., ROLLBACK TO ..., COMMIT TRANSACTION, ABORT
 * TRANSACTION, DEALLOCATE ALL.  The first enlists the connection with the
 * coordinator.  Once the coordinator has taken the remote transaction into its
 * own hands, COMMIT and ABORT are swallowed: the wrappers answer with a
 * synthetic success, and nothing is sent.
 *
 * Statements that come again and again are prepared on the server (statement.c).
 *
 * START TRANSACTION is put off and sent together with the first command of the
 * remote transaction (first.c).  CLOSE of a cursor is put off likewise, until the next
 * command or the end of the transaction, which closes it anyway.
 *
 * Whatever postgres_fdw sends is entered in the queue of the connection's wire, and
 * what it asks for is looked up there.  When it asks whether it has to wait for a
 * result, the wrapper waits, in a cheaper way (DtxWireWait), so that the answer is no.
 *
 * DtxInterposeOpen() lets postgres_fdw open a session without a foreign table,
 * by IMPORT FOREIGN SCHEMA, whose questions are answered here.
 *
 * What is not recognised while the remote transaction is in the coordinator's
 * hands is an ERROR: fail closed.
 *
 *-------------------------------------------------------------------------
 */
/* for RTLD_NEXT; must precede all headers */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "postgres.h"

#include <dlfcn.h>

#include "access/xact.h"
#include "base/compat.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "commit/connection.h"
#include "commit/coordinator.h"
#include "commit/fdw_library.h"
#include "commit/first.h"
#include "commit/interpose.h"
#include "commit/late.h"
#include "commit/own_writes.h"
#include "commit/participant.h"
#include "commit/statement.h"
#include "commit/transaction.h"
#include "foreign/fdwapi.h"
#include "libpq-fe.h"
#include "net/cancel.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "nodes/parsenodes.h"
#include "state/tables.h"
#include "storage/fd.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"

/* The real functions. */
static PGconn *(*real_PQconnectdbParams) (const char *const *keywords,
										  const char *const *values,
										  int expand_dbname);
static PGconn *(*real_PQconnectStartParams) (const char *const *keywords,
											 const char *const *values,
											 int expand_dbname);
static void (*real_PQfinish) (PGconn *conn);
static int	(*real_PQsendQuery) (PGconn *conn, const char *query);
static int	(*real_PQsendQueryParams) (PGconn *conn, const char *command,
									   int nParams, const Oid *paramTypes,
									   const char *const *paramValues,
									   const int *paramLengths,
									   const int *paramFormats,
									   int resultFormat);
static int	(*real_PQsendPrepare) (PGconn *conn, const char *stmtName,
								   const char *query, int nParams,
								   const Oid *paramTypes);
static int	(*real_PQsendQueryPrepared) (PGconn *conn, const char *stmtName,
										 int nParams,
										 const char *const *paramValues,
										 const int *paramLengths,
										 const int *paramFormats,
										 int resultFormat);
static PGresult *(*real_PQexec) (PGconn *conn, const char *query);
static PGresult *(*real_PQgetResult) (PGconn *conn);
static int	(*real_PQisBusy) (PGconn *conn);
static int	(*real_PQconsumeInput) (PGconn *conn);
static ConnStatusType (*real_PQstatus) (const PGconn *conn);
static PGTransactionStatusType (*real_PQtransactionStatus) (const PGconn *conn);
static PGcancel *(*real_PQgetCancel) (PGconn *conn);
static int	(*real_PQcancel) (PGcancel *cancel, char *errbuf, int errbufsize);
static PQnoticeReceiver (*real_PQsetNoticeReceiver) (PGconn *conn,
													 PQnoticeReceiver proc,
													 void *arg);

/* The last request to cancel that postgres_fdw has asked for, and its connection. */
static PGconn *canceled_conn = NULL;
static PGcancel *canceled_by = NULL;

static const struct
{
	const char *name;
	void	  **real;
}			wrapped[] =

{
	{
		"PQconnectdbParams", (void **) &real_PQconnectdbParams
	},
	{
		"PQconnectStartParams", (void **) &real_PQconnectStartParams
	},
	{
		"PQfinish", (void **) &real_PQfinish
	},
	{
		"PQgetCancel", (void **) &real_PQgetCancel
	},
	{
		"PQcancel", (void **) &real_PQcancel
	},
	{
		"PQsendQuery", (void **) &real_PQsendQuery
	},
	{
		"PQsendQueryParams", (void **) &real_PQsendQueryParams
	},
	{
		"PQsendPrepare", (void **) &real_PQsendPrepare
	},
	{
		"PQsendQueryPrepared", (void **) &real_PQsendQueryPrepared
	},
	{
		"PQexec", (void **) &real_PQexec
	},
	{
		"PQgetResult", (void **) &real_PQgetResult
	},
	{
		"PQisBusy", (void **) &real_PQisBusy
	},
	{
		"PQconsumeInput", (void **) &real_PQconsumeInput
	},
	{
		"PQstatus", (void **) &real_PQstatus
	},
	{
		"PQtransactionStatus", (void **) &real_PQtransactionStatus
	},
	{
		"PQsetNoticeReceiver", (void **) &real_PQsetNoticeReceiver
	},
};

/*
 * The two questions of IMPORT FOREIGN SCHEMA begin with these words
 * (postgresImportForeignSchema in contrib/postgres_fdw/postgres_fdw.c, 15 to
 * 19).  The schema asked for exists nowhere: were the questions put in another
 * way, they would reach the server, and the answer would be an error.
 */
#define IMPORT_SCHEMA		"no schema, pg_dtx opens a session"
#define IMPORT_QUESTION_1	"SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = "
#define IMPORT_QUESTION_2	"SELECT relname, "

/* The longest command that is sent before the reply to COMMIT PREPARED is here. */
#define MAX_BEHIND_LATE		(32 * 1024)

/* Is DtxInterposeOpen() under way, and which connection has it got? */
static bool opening = false;
static DtxConnection *opened = NULL;

/* What postgres_fdw does with a notice of a server, from 19 on; see below. */
static PQnoticeReceiver fdw_notice_receiver = NULL;

/* Wait event, see DtxWaitEvent(). */
static uint32 we_result = 0;

/*
 * Does the caller of a wrapper lie in postgres_fdw?  Must be a macro: a
 * return address is that of the function in which it is asked for.  For the same
 * reason wrappers are never inlined, and nothing in this file calls one.
 */
#define CALLED_BY_FDW() \
	DtxFdwLibraryContains(__builtin_return_address(0))

/* What is to become of a command. */
typedef enum Verdict
{
	SEND,						/* pass it on */
	SEND_START,					/* pass on START TRANSACTION as it is kept */
	SWALLOW,					/* it is not sent, and its reply is made */
	REFUSE						/* fail as if the connection were lost */
} Verdict;

static DtxConnection *before_connect(const void *caller,
									 const char *const *keywords,
									 const char *const *values);
static void release_descriptor(void);
static void after_connect(DtxConnection *c, PGconn *conn);

static Verdict judge(DtxConnection *c, const char *command);
static Verdict start_transaction(DtxConnection *c, const char *command);
static Verdict commit_transaction(DtxConnection *c, const char *command);
static Verdict abort_transaction(DtxConnection *c, const char *command);
static Verdict rollback_to(DtxConnection *c, const char *command);
static Verdict deallocate_all(DtxConnection *c, const char *command);
static Verdict close_cursor(DtxConnection *c, const char *command);
static Verdict other_command(DtxConnection *c, const char *command);

static Verdict swallow(DtxConnection *c);
static Verdict make_usable(DtxConnection *c);
static bool is_taken_over(const DtxConnection *c);
static bool is_being_committed(const DtxConnection *c);
static void refuse_while_committing(const DtxConnection *c);
static bool runs_remote_sql(const DtxConnection *c);
static void check_runs_no_remote_sql(const DtxConnection *c);
static void note_use(DtxParticipant *p, bool writes);
static bool starts_with(const char *command, const char *word);
static bool is_write(const char *command);
static bool answer_import(DtxConnection *c, const char *command);

static int	send_query(PGconn *conn, const char *query);
static int	send_start(DtxConnection *c);
static DtxConnection *before_data_command(PGconn *conn, const char *command,
										  bool writes);
static int	send_params(DtxConnection *c, const char *command, int nParams,
						const char *const *paramValues,
						const int *paramLengths, const int *paramFormats);
static int	expect_reply(DtxConnection *c, bool joined, int sent);
static size_t params_size(const char *command, int nParams,
						  const char *const *paramValues);
static bool is_busy(DtxConnection *c);
static bool reply_is_here(void *arg);
static bool has_own_reply(const DtxConnection *c);

/*
 * The commands with which postgres_fdw drives a connection, by the simple protocol
 * (contrib/postgres_fdw/connection.c, 15 to 19), and what is decided about each.  The
 * first entry that fits counts.
 */
static const struct
{
	const char *text;
	bool		whole;			/* is that all of the command, or its
								 * beginning? */
	Verdict		(*handler) (DtxConnection *c, const char *command);
}			commands[] =

{
	{
		"START TRANSACTION", false, start_transaction
	},
	{
		"COMMIT TRANSACTION", true, commit_transaction
	},
	{
		"ABORT TRANSACTION", true, abort_transaction
	},
	{
		"ROLLBACK", false, rollback_to
	},
	{
		"DEALLOCATE ALL", true, deallocate_all
	},
	{
		"CLOSE c", false, close_cursor
	},
	{
		"", false, other_command
	},
};

/* ----------------------------------------------------------------
 * Arming
 * ----------------------------------------------------------------
 */

/*
 * Find the real functions and make sure that postgres_fdw will be bound to the
 * wrappers.  To be called at server start; throws, so that the server does not
 * start, if it would not.
 */
void
DtxInterposeCheck(void)
{
	static const char *names[lengthof(wrapped)];

	for (int i = 0; i < lengthof(wrapped); i++)
		names[i] = wrapped[i].name;
	DtxFdwLibraryInit(names, lengthof(wrapped));

	for (int i = 0; i < lengthof(wrapped); i++)
	{
		void	   *first = dlsym(RTLD_DEFAULT, wrapped[i].name);

		*wrapped[i].real = dlsym(RTLD_NEXT, wrapped[i].name);
		if (*wrapped[i].real == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_FUNCTION),
					 errmsg("could not find function \"%s\" of libpq",
							wrapped[i].name)));

		/* What is loaded later must find the wrapper first. */
		if (first == NULL ||
			!DtxFdwLibraryIsOurs(first))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("pg_dtx was loaded after another library that uses libpq"),
					 errdetail("Function \"%s\" would be called past pg_dtx, and transactions would not be atomic.",
							   wrapped[i].name),
					 errhint("Put pg_dtx first in \"shared_preload_libraries\".")));
	}

	if (DtxFdwLibraryLoaded())
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_dtx was loaded after postgres_fdw"),
				 errdetail("postgres_fdw would commit past pg_dtx, and transactions would not be atomic."),
				 errhint("Put pg_dtx first in \"shared_preload_libraries\".")));
}

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
		if (we_result == 0)
			we_result = DtxWaitEvent("PostgresFdwGetResult");	/* as in postgres_fdw */
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
		real_PQfinish(conn);
		release_descriptor();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/* ----------------------------------------------------------------
 * Commands of the simple protocol
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw sends a command by the simple protocol.  May throw.
 */
static Verdict
judge(DtxConnection *c, const char *command)
{
	for (int i = 0; i < lengthof(commands); i++)
	{
		if (commands[i].whole ? strcmp(command, commands[i].text) == 0 :
			starts_with(command, commands[i].text))
			return commands[i].handler(c, command);
	}
	return REFUSE;				/* not reached */
}

/*
 * A remote transaction begins.
 */
static Verdict
start_transaction(DtxConnection *c, const char *command)
{
	if (is_taken_over(c))
		refuse_while_committing(c);
	if (c->participant != NULL)
		return other_command(c, command);

	/*
	 * The confirmation of an earlier transaction may be due on this
	 * connection.  The first command need not wait for it, if it can be sent
	 * after it in the same pipeline.
	 */
	if (!(DtxFirstMayPutOff(c) && DtxLateMayBeFollowed(c)) &&
		make_usable(c) == REFUSE)
		return REFUSE;

	if (c->extension_seen && !c->cluster_asked && DtxTwoPhaseCommit())
		DtxConnectionAskCluster(c);
	if (!c->wire.broken)
		DtxOwnWritesAwait(c);
	if (c->wire.broken)
		return REFUSE;
	DtxCoordinatorJoin(c);
	return DtxFirstPutOff(c, command) ? swallow(c) : SEND_START;
}

static Verdict
commit_transaction(DtxConnection *c, const char *command)
{
	if (c->put_off.start[0] != '\0')
	{
		/* Nothing has begun there, whatever is due of an earlier one. */
		c->put_off.start[0] = '\0';
		return swallow(c);
	}
	if (is_being_committed(c))
		return swallow(c);
	if (make_usable(c) == REFUSE)
		return REFUSE;
	check_runs_no_remote_sql(c);

	/*
	 * It closes the cursors, though if it wrote they had better be closed
	 * before its deferred triggers run.
	 */
	if (c->participant != NULL && c->participant->writes == DTX_READ)
		c->put_off.ncloses = 0;
	return SEND;
}

static Verdict
abort_transaction(DtxConnection *c, const char *command)
{
	if (c->put_off.start[0] != '\0')
	{
		c->put_off.start[0] = '\0';
		return swallow(c);
	}
	if (is_being_committed(c))
		return swallow(c);

	/* A broken one is closed as soon as postgres_fdw looks at PQstatus(). */
	if (make_usable(c) == REFUSE)
		return swallow(c);

	/* Cleanup that could not wait for the end of the results fails. */
	if (runs_remote_sql(c))
		return REFUSE;
	c->put_off.ncloses = 0;
	return SEND;
}

/*
 * A subtransaction is rolled back.
 */
static Verdict
rollback_to(DtxConnection *c, const char *command)
{
	if (is_taken_over(c))
		refuse_while_committing(c);
	if (make_usable(c) == REFUSE || runs_remote_sql(c))
		return REFUSE;

	/* What repairs a failed transaction must not have anything before it. */
	if (real_PQtransactionStatus(c->wire.conn) != PQTRANS_INTRANS)
		c->put_off.ncloses = 0;
	return SEND;
}

/*
 * Sent when a remote transaction has ended in which there were errors.
 */
static Verdict
deallocate_all(DtxConnection *c, const char *command)
{
	DtxStatementForgetAll(&c->statements);

	/*
	 * Put off while we are busy on the connection: postgres_fdw would wait
	 * for the reply inside libpq, where neither a timeout nor a cancel
	 * reaches, while everything is prepared.  Likewise while it is in a
	 * pipeline.
	 */
	if (is_taken_over(c) ||
		(DtxLateDueOn(c) && !DtxWireStartIsDue(&c->wire) &&
		 !DtxWireExpects(&c->wire, DTX_REPLY_JOINED)))
	{
		c->put_off.deallocate = true;
		return swallow(c);
	}
	if (make_usable(c) == REFUSE)
		return REFUSE;
	check_runs_no_remote_sql(c);
	return SEND;
}

/*
 * postgres_fdw closes a cursor (close_cursor in
 * contrib/postgres_fdw/postgres_fdw.c): the server need not be told now.  To do
 * without, take the entry out of the table.
 */
static Verdict
close_cursor(DtxConnection *c, const char *command)
{
	DtxPutOff  *put_off = &c->put_off;
	unsigned int number;
	int			len = 0;

	if (is_taken_over(c))
		refuse_while_committing(c);
	if (make_usable(c) == REFUSE)
		return REFUSE;
	check_runs_no_remote_sql(c);

	/* An error that is known already is not put off. */
	if (c->participant == NULL || !dtx_fold_start || !dtx_two_phase_commit ||
		!c->extension_seen || put_off->start[0] != '\0' ||
		put_off->ncloses >= DTX_MAX_CLOSES ||
		real_PQstatus(c->wire.conn) != CONNECTION_OK ||
		real_PQtransactionStatus(c->wire.conn) != PQTRANS_INTRANS ||
		sscanf(command, "CLOSE c%9u%n", &number, &len) != 1 ||
		command[len] != '\0')
		return other_command(c, command);
	put_off->closes[put_off->ncloses++] = number;
	return swallow(c);
}

/*
 * SAVEPOINT, RELEASE, cursors, and what sets up the session of a new connection.
 */
static Verdict
other_command(DtxConnection *c, const char *command)
{
	if (is_taken_over(c))
		refuse_while_committing(c);
	if (make_usable(c) == REFUSE)
		return REFUSE;
	check_runs_no_remote_sql(c);

	if (c->participant == NULL)
	{
		if (c->transactions == 0)
			DtxConnectionNoteSetup(c, command);
		return SEND;
	}
	if (opening && answer_import(c, command))
		return SWALLOW;
	note_use(c->participant, is_write(command));
	return SEND;
}

/*
 * The command is not sent; postgres_fdw gets a reply that it has succeeded.
 */
static Verdict
swallow(DtxConnection *c)
{
	DtxWireMake(&c->wire, NULL);
	return SWALLOW;
}

/*
 * A command is about to be sent: a connection on which no remote transaction has begun
 * has to be waited for if a reply of ours is due on it, and made anew if it is broken.
 * Returns REFUSE if it can't be used.  Throws on interrupts, and if it can't be made
 * anew.
 */
static Verdict
make_usable(DtxConnection *c)
{
	if (c->participant == NULL && DtxWireExpects(&c->wire, DTX_REPLY_HANDLED))
		DtxLateAwait(c);
	DtxFirstReconnectIfBroken(c);
	return c->wire.broken ? REFUSE : SEND;
}

/* Is its remote transaction out of postgres_fdw's hands? */
static bool
is_taken_over(const DtxConnection *c)
{
	return c->participant != NULL && DtxParticipantIsOurs(c->participant);
}

/* Likewise, or is it known to the coordinator already that it has committed? */
static bool
is_being_committed(const DtxConnection *c)
{
	return is_taken_over(c) || (c->participant == NULL && DtxLateDueOn(c));
}

/* Fail closed. */
static void
refuse_while_committing(const DtxConnection *c)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot use server \"%s\" while the transaction is being committed",
					c->endpoint.server_name),
			 errdetail("The remote transaction has been prepared or ended already.")));
}

/* Are results of remote SQL due (exec/run.c), or has it left some? */
static bool
runs_remote_sql(const DtxConnection *c)
{
	return DtxWireExpects(&c->wire, DTX_REPLY_DROPPED) ||
		(DtxWireExpects(&c->wire, DTX_REPLY_READ) &&
		 PQpipelineStatus(c->wire.conn) != PQ_PIPELINE_OFF);
}

/*
 * A value that dtx.query() receives may need a function that uses the very
 * connection on which it is received, say in a check constraint of a domain.
 */
static void
check_runs_no_remote_sql(const DtxConnection *c)
{
	if (runs_remote_sql(c))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("connection to server \"%s\" is in use by an active remote command",
						c->endpoint.server_name)));
}

/*
 * A command is sent in the remote transaction.  Not for those that end a
 * (sub)transaction, because these also come when the local transaction has
 * failed, and then catalogs can't be read.
 */
static void
note_use(DtxParticipant *p, bool writes)
{
	bool		first = p->use == DTX_UNUSED;

	DtxParticipantNoteUse(p, writes);
	if (first)
		DtxTransactionAnnounce(p);
}

static bool
starts_with(const char *command, const char *word)
{
	return pg_strncasecmp(command, word, strlen(word)) == 0;
}

/*
 * Does a command write for sure?  Anything else is asked at commit.
 */
static bool
is_write(const char *command)
{
	static const char *const words[] = {
		"INSERT ", "UPDATE ", "DELETE ", "TRUNCATE ", "COPY ", "MERGE "
	};

	if (command == NULL)
		return false;
	for (int i = 0; i < lengthof(words); i++)
	{
		if (starts_with(command, words[i]))
			return true;
	}
	return false;
}

/* ----------------------------------------------------------------
 * Sending
 * ----------------------------------------------------------------
 */

/*
 * The caller has sent a command of postgres_fdw; "joined": between
 * DtxPutOffBeginJoined() and here.  Returns what the wrapper has to return.
 */
static int
expect_reply(DtxConnection *c, bool joined, int sent)
{
	if (joined)
		return DtxPutOffEndJoined(&c->wire, sent);
	if (sent)
		DtxWireExpect(&c->wire, DTX_REPLY_READ, 1);
	return sent;
}

/*
 * Send START TRANSACTION alone.
 */
static int
send_start(DtxConnection *c)
{
	int			sent = real_PQsendQuery(c->wire.conn, c->put_off.start);

	c->put_off.start[0] = '\0';
	return expect_reply(c, false, sent);
}

/*
 * Send a command by the simple protocol, together with what was put off.
 *
 * START TRANSACTION goes with it by the extended protocol, in a pipeline, where it
 * has a reply of its own, unless the command is, or may be, more than one statement.
 * CLOSEs make several statements in one message, of which the last result counts,
 * as postgres_fdw does anyway.
 */
static int
send_query(PGconn *conn, const char *query)
{
	DtxConnection *c = DtxConnectionFind(conn);
	char		closes[DTX_CLOSES_SIZE];
	char	   *all;
	int			sent;

	if (c == NULL)
		return real_PQsendQuery(conn, query);
	if (c->put_off.start[0] != '\0')
	{
		/* (not that it had to, but it is not worth the trouble) */
		if (DtxLateDueOn(c))
			DtxLateAwait(c);
		DtxFirstReconnectIfBroken(c);
		if (strchr(query, ';') == NULL && strlen(query) <= DTX_MAX_FIRST_SIZE)
			return DtxFirstSend(c, NULL, query, 0, NULL);
		DtxFirstStartAlone(c);
	}
	if (c->put_off.ncloses == 0)
		return expect_reply(c, false, real_PQsendQuery(conn, query));

	(void) DtxPutOffCloses(&c->put_off, closes, sizeof(closes));
	all = psprintf("%s%s", closes, query);
	sent = real_PQsendQuery(conn, all);
	pfree(all);
	return expect_reply(c, false, sent);
}

/*
 * About how many bytes is a command with its parameters (in text)?
 */
static size_t
params_size(const char *command, int nParams, const char *const *paramValues)
{
	size_t		size = strlen(command);

	for (int i = 0; i < nParams; i++)
		size += paramValues[i] != NULL ? strlen(paramValues[i]) : 0;
	return size;
}

/*
 * Send a command with parameters, whose types the server is to infer, and text
 * as result: by name if statement.c knows it, with what has to precede it.
 */
static int
send_params(DtxConnection *c, const char *command, int nParams,
			const char *const *paramValues, const int *paramLengths,
			const int *paramFormats)
{
	PGconn	   *conn = c->wire.conn;
	bool		prepare = false;
	const char *name = NULL;
	bool		joined;
	int			sent = 1;

	/*
	 * libpq blocks, and no cancel reaches it, when a socket can't take all of
	 * a command; and a server whose reply is due may not be reading.
	 */
	if (params_size(command, nParams, paramValues) > MAX_BEHIND_LATE &&
		DtxLateDueOn(c))
		DtxLateAwait(c);
	DtxFirstReconnectIfBroken(c);

	/* It is used for the first time, and for the last, if it is not kept. */
	if (c->put_off.start[0] != '\0' &&
		(params_size(command, nParams, paramValues) > DTX_MAX_FIRST_SIZE ||
		 paramLengths != NULL || paramFormats != NULL))
		DtxFirstStartAlone(c);
	if (c->put_off.start[0] != '\0')
		DtxPutOffKeepFirst(&c->put_off, NULL, command, nParams, paramValues);

	if (c->extension_seen)
		name = DtxStatementUse(&c->statements, command, &prepare);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, prepare);
	if (prepare)
	{
		sent = real_PQsendPrepare(conn, name, command, nParams, NULL);
		DtxWireExpect(&c->wire, DTX_REPLY_STEP, 1);
	}
	if (sent && name != NULL)
		sent = real_PQsendQueryPrepared(conn, name, nParams, paramValues,
										paramLengths, paramFormats, 0);
	else if (sent)
		sent = real_PQsendQueryParams(conn, command, nParams, NULL,
									  paramValues, paramLengths, paramFormats,
									  0);
	return expect_reply(c, joined, sent) ||
		(joined && DtxFirstStartAgainIfLost(c));
}

/*
 * postgres_fdw sends a command by the extended protocol.  Returns the connection, or
 * NULL if it is not known.  May throw.
 */
static DtxConnection *
before_data_command(PGconn *conn, const char *command, bool writes)
{
	DtxConnection *c = DtxConnectionFind(conn);

	if (c == NULL)
		return NULL;
	if (is_taken_over(c))
		refuse_while_committing(c);
	DtxFirstReconnectIfBroken(c);
	if (c->wire.broken)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						c->endpoint.server_name)));
	check_runs_no_remote_sql(c);
	if (c->participant != NULL)
		note_use(c->participant, writes || is_write(command));
	return c;
}

/* ----------------------------------------------------------------
 * Sessions for remote commands
 * ----------------------------------------------------------------
 */

/*
 * Have postgres_fdw open its session with a foreign server for the current
 * user, unless it has one, begin the remote transaction, unless it has begun,
 * and go to the current level of subtransactions.  Returns the connection, with
 * nothing under way on it.
 *
 * IMPORT FOREIGN SCHEMA is the one thing that makes postgres_fdw do all that,
 * its checks of passwords included, without a foreign table.  What it asks the
 * server is answered here and costs no round trip.
 *
 * Whether the user may use the server is for the caller to check.  Throws what
 * postgres_fdw throws.
 */
DtxConnection *
DtxInterposeOpen(Oid serverid)
{
	ImportForeignSchemaStmt *stmt = makeNode(ImportForeignSchemaStmt);
	FdwRoutine *routine = GetFdwRoutineByServerId(serverid);

	stmt->remote_schema = IMPORT_SCHEMA;
	stmt->list_type = FDW_IMPORT_SCHEMA_ALL;

	opening = true;
	opened = NULL;
	PG_TRY();
	{
		(void) routine->ImportForeignSchema(stmt, serverid);
	}
	PG_FINALLY();
	{
		opening = false;
	}
	PG_END_TRY();

	if (opened == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_dtx did not see postgres_fdw open a session"),
				 errhint("Report this to the developers of pg_dtx.")));
	DtxFirstReconnectIfBroken(opened);
	if (opened->wire.broken || is_taken_over(opened) ||
		real_PQstatus(opened->wire.conn) != CONNECTION_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						opened->endpoint.server_name)));

	/* What the caller makes of the connection begins with no reply due. */
	if (DtxLateDueOn(opened))
		DtxLateAwait(opened);
	DtxFirstReconnectIfBroken(opened);
	return opened;
}

/*
 * Is this a question of IMPORT FOREIGN SCHEMA?  Then it is answered here: the
 * schema exists, and has no tables.  Throws if out of memory.
 */
static bool
answer_import(DtxConnection *c, const char *command)
{
	bool		exists = starts_with(command, IMPORT_QUESTION_1);
	PGresult   *answer;

	if (!exists && !starts_with(command, IMPORT_QUESTION_2))
		return false;

	/* It is used when something is sent: see exec/run.c. */
	if (c->participant->use == DTX_UNUSED)
		DtxTransactionAnnounce(c->participant);

	answer = PQmakeEmptyPGresult(c->wire.conn, PGRES_TUPLES_OK);
	if (answer != NULL && exists)
	{
		PGresAttDesc column = {
			.name = "?column?",
			.typid = INT4OID,
			.typlen = 4,
			.atttypmod = -1
		};

		if (!PQsetResultAttrs(answer, 1, &column) ||
			!PQsetvalue(answer, 0, 0, "1", 1))
		{
			PQclear(answer);
			answer = NULL;
		}
	}
	if (answer == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("out of memory")));

	DtxWireMake(&c->wire, answer);
	opened = c;
	return true;
}

/* ----------------------------------------------------------------
 * Receiving
 * ----------------------------------------------------------------
 */

/*
 * Does postgres_fdw have to wait for a result?  Normally this waits until it has
 * not.  Cleanup waits itself, with deadlines of its own.
 *
 * Throws on interrupts, at the very place where postgres_fdw would
 * (pgfdw_get_result in contrib/postgres_fdw/connection.c, libpqsrv_get_result in
 * libpq/libpq-be-fe-helpers.h).
 */
static bool
is_busy(DtxConnection *c)
{
	DtxWire    *wire = &c->wire;
	DtxWait		wait = {
		.wires = &wire,
		.nwires = 1,
		.deadline = DTX_NEVER,
		.wait_event = we_result,
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = reply_is_here,
		.arg = c
	};

	do
	{
		if (IsTransactionState())
			(void) DtxWireWait(&wait);
		else
			DtxWirePump(wire);
	} while (DtxFirstStartAgainIfLost(c));

	if (wire->broken)
		DtxWireFailJoined(wire);
	if (!DtxWireStartIsDue(wire))
		DtxPutOffForgetFirst(&c->put_off);
	return !reply_is_here(c);
}

/* Can postgres_fdw go on without waiting? */
static bool
reply_is_here(void *arg)
{
	DtxConnection *c = (DtxConnection *) arg;

	return c->wire.broken || PQsocket(c->wire.conn) < 0 ||
		DtxWireExpects(&c->wire, DTX_REPLY_MADE) ||
		(!DtxWireExpects(&c->wire, DTX_REPLY_JOINED) &&
		 !real_PQisBusy(c->wire.conn));
}

/*
 * Is there, or will there be, a reply that postgres_fdw may take, rather than one that
 * is ours?
 */
static bool
has_own_reply(const DtxConnection *c)
{
	return DtxWireExpects(&c->wire, DTX_REPLY_MADE) ||
		DtxWireExpects(&c->wire, DTX_REPLY_JOINED) ||
		!DtxWireExpects(&c->wire, DTX_REPLY_HANDLED);
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
	PGconn	   *conn = real_PQconnectdbParams(keywords, values, expand_dbname);

	if (c != NULL)
		after_connect(c, conn);
	return conn;
}

PGDLLEXPORT pg_noinline PGconn *
PQconnectStartParams(const char *const *keywords, const char *const *values,
					 int expand_dbname)
{
	DtxConnection *c = before_connect(__builtin_return_address(0), keywords, values);
	PGconn	   *conn = real_PQconnectStartParams(keywords, values, expand_dbname);

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
	real_PQfinish(conn);
}

/*
 * Until 16, postgres_fdw cancels a command while it aborts a transaction with these
 * two, one right after the other, and the second one may take for ever (cancel.c).
 */
PGDLLEXPORT pg_noinline PGcancel *
PQgetCancel(PGconn *conn)
{
	PGcancel   *cancel = real_PQgetCancel(conn);

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
		return real_PQcancel(cancel, errbuf, errbufsize);

	/* One that outlives this call.  The caller's is the caller's to free. */
	own = real_PQgetCancel(canceled_conn);
	canceled_by = NULL;
	if (own != NULL &&
		DtxCancelSend(own, real_PQcancel, DTX_CANCEL_TIMEOUT, PG_WAIT_EXTENSION))
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

		switch (c == NULL ? SEND : judge(c, query))
		{
			case SEND:
				return send_query(conn, query);
			case SEND_START:
				return send_start(c);
			case SWALLOW:
				return 1;
			case REFUSE:
				return 0;
		}
	}
	return real_PQsendQuery(conn, query);
}

PGDLLEXPORT pg_noinline int
PQsendQueryParams(PGconn *conn, const char *command, int nParams,
				  const Oid *paramTypes, const char *const *paramValues,
				  const int *paramLengths, const int *paramFormats,
				  int resultFormat)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	before_data_command(conn, command, false) : NULL;
	bool		joined;

	if (c == NULL)
		return real_PQsendQueryParams(conn, command, nParams, paramTypes,
									  paramValues, paramLengths, paramFormats,
									  resultFormat);

	/* postgres_fdw gives no types, and wants text */
	if (paramTypes == NULL && resultFormat == 0)
		return send_params(c, command, nParams, paramValues, paramLengths,
						   paramFormats);
	if (c->put_off.start[0] != '\0')
		DtxFirstStartAlone(c);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, false);
	return expect_reply(c, joined,
						real_PQsendQueryParams(conn, command, nParams, paramTypes,
											   paramValues, paramLengths,
											   paramFormats, resultFormat));
}

PGDLLEXPORT pg_noinline int
PQsendPrepare(PGconn *conn, const char *stmtName, const char *query,
			  int nParams, const Oid *paramTypes)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	before_data_command(conn, NULL, false) : NULL;
	bool		joined;

	if (c == NULL)
		return real_PQsendPrepare(conn, stmtName, query, nParams, paramTypes);
	if (c->put_off.start[0] != '\0')
	{
		if (paramTypes == NULL && strlen(query) <= DTX_MAX_FIRST_SIZE)
			return DtxFirstSend(c, stmtName, query, nParams, NULL);
		DtxFirstStartAlone(c);
	}
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, false);
	return expect_reply(c, joined, real_PQsendPrepare(conn, stmtName, query,
													  nParams, paramTypes));
}

/* postgres_fdw prepares nothing but INSERT, UPDATE and DELETE. */
PGDLLEXPORT pg_noinline int
PQsendQueryPrepared(PGconn *conn, const char *stmtName, int nParams,
					const char *const *paramValues, const int *paramLengths,
					const int *paramFormats, int resultFormat)
{
	DtxConnection *c = CALLED_BY_FDW() ?
	before_data_command(conn, NULL, true) : NULL;
	bool		joined;

	if (c == NULL)
		return real_PQsendQueryPrepared(conn, stmtName, nParams, paramValues,
										paramLengths, paramFormats, resultFormat);
	if (c->put_off.start[0] != '\0')
		DtxFirstStartAlone(c);
	joined = DtxPutOffBeginJoined(&c->put_off, &c->wire, false);
	return expect_reply(c, joined,
						real_PQsendQueryPrepared(conn, stmtName, nParams,
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

		switch (c == NULL ? SEND : judge(c, query))
		{
			case SEND:
			case SEND_START:
				/* neither comes this way, but for DEALLOCATE ALL */
				break;
			case SWALLOW:
				result = DtxWireReadMade(&c->wire, &received);
				(void) DtxWireReadMade(&c->wire, &received);
				return result;
			case REFUSE:
				return NULL;
		}
	}
	return real_PQexec(conn, query);
}

PGDLLEXPORT pg_noinline PGresult *
PQgetResult(PGconn *conn)
{
	DtxConnection *c = CALLED_BY_FDW() ? DtxConnectionFind(conn) : NULL;
	PGresult   *result;

	if (c == NULL)
		return real_PQgetResult(conn);

	/*
	 * What is not here is waited for as postgres_fdw does it, which has asked
	 * before, and in cleanup goes on when it is here.
	 */
	if (DtxWireExpects(&c->wire, DTX_REPLY_JOINED) && is_busy(c))
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
	if (!has_own_reply(c))
		return NULL;
	if (runs_remote_sql(c))
	{
		DtxWirePump(&c->wire);
		if (runs_remote_sql(c))
			DtxWireBreak(&c->wire, "no reply");
		return NULL;
	}

	result = real_PQgetResult(conn);
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
		return real_PQisBusy(conn);
	if (DtxWireExpects(&c->wire, DTX_REPLY_MADE) || !has_own_reply(c))
		return 0;
	if (runs_remote_sql(c))
	{
		DtxWirePump(&c->wire);
		return runs_remote_sql(c);
	}
	return is_busy(c);
}

PGDLLEXPORT pg_noinline int
PQconsumeInput(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind(conn);

		if (c != NULL &&
			(DtxWireExpects(&c->wire, DTX_REPLY_MADE) || !has_own_reply(c)))
			return 1;
	}
	return real_PQconsumeInput(conn);
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
	return real_PQstatus(conn);
}

PGDLLEXPORT pg_noinline PGTransactionStatusType
PQtransactionStatus(const PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		DtxConnection *c = DtxConnectionFind((PGconn *) conn);

		if (c != NULL && c->wire.broken)
			return PQTRANS_UNKNOWN;
		if (c != NULL && (runs_remote_sql(c) ||
						  DtxWireExpects(&c->wire, DTX_REPLY_JOINED)))
			return PQTRANS_ACTIVE;
		if (c != NULL && (is_taken_over(c) ||
						  DtxWireExpects(&c->wire, DTX_REPLY_HANDLED)))
			return PQTRANS_IDLE;
	}
	return real_PQtransactionStatus(conn);
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
	return real_PQsetNoticeReceiver(conn, proc, arg);
}
