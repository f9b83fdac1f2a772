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
 * remote transaction, in a pipeline, which saves a round trip.  postgres_fdw gets
 * its results as if it had waited for START TRANSACTION; if the connection turns out
 * to be dead, it is replaced here, as postgres_fdw would have done it, and both are
 * sent again.
 * CLOSE of a cursor is put off likewise, until the next command or the end of the
 * transaction, which closes it anyway.
 *
 * When postgres_fdw asks whether it has to wait for a result, the wrapper waits,
 * in a cheaper way (see ParticipantWait), so that the answer is no.
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
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "commit/coordinator.h"
#include "commit/fdw_library.h"
#include "commit/interpose.h"
#include "commit/participant.h"
#include "commit/statement.h"
#include "foreign/fdwapi.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/cancel.h"
#include "net/text.h"
#include "net/wrapper.h"
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

/*
 * A connection that was idle for longer may be dead without anybody having
 * noticed; then START TRANSACTION goes first, and if it fails postgres_fdw makes
 * another connection.  Milliseconds.
 */
#define FOLD_MAX_IDLE_MS	60000

/* The longest command that is sent before the reply to COMMIT PREPARED is here. */
#define MAX_BEHIND_OWED		(32 * 1024)

/* The longest command that is sent with START TRANSACTION, and kept; bytes. */
#define MAX_FIRST_SIZE		(32 * 1024)

#define START_REPEATABLE_READ	"START TRANSACTION ISOLATION LEVEL REPEATABLE READ"
#define START_READ_COMMITTED	"START TRANSACTION ISOLATION LEVEL READ COMMITTED"

/* Is DtxInterposeOpen() under way, and which connection has it got? */
static bool opening = false;
static Participant *opened = NULL;

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

/*
 * What was sent together with START TRANSACTION, in one piece of memory.  Kept until
 * the reply to that is here.
 */
struct FirstCommand
{
	char		start_command[DTX_START_SIZE];
	char	   *prepare;		/* name of the statement that it prepares, or NULL:
								 * it is executed */
	char	   *command;		/* its text, or NULL: there was none */
	int			nparams;
	char	  **values;			/* of parameters, as text, or NULL for null */
};

/* What is to become of a command. */
typedef enum Verdict
{
	SEND,						/* pass it on */
	SEND_START,					/* pass start_command on instead */
	SWALLOW,					/* pretend success */
	REFUSE						/* fail as if the connection were lost */
} Verdict;

static Participant *before_connect(const void *caller,
								   const char *const *keywords,
								   const char *const *values);
static void release_descriptor(void);
static void enroll(Participant *p, PGconn *conn);
static Verdict judge(PGconn *conn, const char *command);
static Participant *before_data_command(PGconn *conn, const char *command,
										bool writes);
static void note_setup(Participant *p, const char *command);
static bool may_put_off(const Participant *p);
static bool put_off_start(Participant *p, const char *command);
static bool put_off_close(Participant *p, const char *command);
static int	send_start(PGconn *conn);
static void revive(Participant *p);
static void keep_first(Participant *p, const char *prepare,
					   const char *command, int nParams,
					   const char *const *paramValues);
static bool may_start_again(const Participant *p);
static void start_again(Participant *p);
static int	start_with(Participant *p, const char *prepare, const char *command,
					   int nParams, const char *const *paramValues);
static void start_alone(Participant *p);
static size_t params_size(const char *command, int nParams,
						  const char *const *paramValues);
static int	send_query(PGconn *conn, const char *query);
static bool begin_folded(Participant *p, bool more);
static int	end_folded(Participant *p, int sent);
static int	send_params(Participant *p, const char *command, int nParams,
						const char *const *paramValues,
						const int *paramLengths, const int *paramFormats);
static void note_command(Participant *p, bool writes);
static void check_not_piped(const Participant *p);
static bool answer_import(Participant *p, const char *command);
static bool starts_with(const char *command, const char *word);
static bool is_write(const char *command);
static bool is_ours_to_receive(const Participant *p);
static bool unfold(Participant *p, bool wait);
static bool is_busy(Participant *p);

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

		/* Whoever is loaded later must find the wrapper first. */
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
 * Decisions
 * ----------------------------------------------------------------
 */

/*
 * A connection is about to be made.  Returns its participant if it is
 * postgres_fdw that makes it, or NULL.
 */
static Participant *
before_connect(const void *caller, const char *const *keywords,
			   const char *const *values)
{
	Participant *volatile p = NULL;

	if (!DtxFdwLibraryFind(caller))
		return NULL;

	PG_TRY();
	{
		/* Catalogs can be looked at now: there is no connection to be closed. */
		bool		wanted = DtxExtensionInstalled();

		CoordinatorPrepareBackend();
		if (we_result == 0)
			we_result = DtxWaitEvent("PostgresFdwGetResult");	/* as in postgres_fdw */
		p = ParticipantCreate(keywords, values);
		p->wanted = wanted;
	}
	PG_CATCH();
	{
		release_descriptor();
		PG_RE_THROW();
	}
	PG_END_TRY();
	return p;
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
enroll(Participant *p, PGconn *conn)
{
	if (conn == NULL)
	{
		ParticipantDestroy(p);
		return;
	}
	PG_TRY();
	{
		ParticipantAttach(p, conn);
	}
	PG_CATCH();
	{
		ParticipantDestroy(p);
		real_PQfinish(conn);
		release_descriptor();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * postgres_fdw sends a command by the simple protocol.
 */
static Verdict
judge(PGconn *conn, const char *command)
{
	Participant *p = ParticipantFind(conn);
	bool		is_commit;
	bool		is_abort;
	bool		is_deallocate;

	if (p == NULL)
		return SEND;

	is_commit = strcmp(command, "COMMIT TRANSACTION") == 0;
	is_abort = strcmp(command, "ABORT TRANSACTION") == 0;
	is_deallocate = strcmp(command, "DEALLOCATE ALL") == 0;
	if (is_deallocate)
		StatementForgetAll(p);

	if (p->start_command[0] != '\0' && (is_commit || is_abort))
	{
		/* Nothing has begun there, whatever an earlier transaction owes. */
		p->start_command[0] = '\0';
		p->synthetic = 2;
		return SWALLOW;
	}

	/* It is put off, too, while the connection is in a pipeline. */
	if (is_deallocate && p->owing && !p->folded)
	{
		p->deallocate_due = true;
		p->synthetic = 2;
		return SWALLOW;
	}

	if (ParticipantControlled(p) && !p->unsettled)
	{
		if (is_commit || is_abort)
		{
			p->synthetic = 2;
			return SWALLOW;
		}
		if (is_deallocate)
		{
			/*
			 * Put off: postgres_fdw would wait for the reply inside libpq,
			 * where neither a timeout nor a cancel reaches, while everything
			 * is prepared.
			 */
			p->deallocate_due = true;
			p->synthetic = 2;
			return SWALLOW;
		}
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use server \"%s\" while the transaction is being committed",
						p->server_name),
				 errdetail("The remote transaction has been prepared or ended already.")));
	}

	/* Likewise if that is known to the coordinator already. */
	if (p->unsettled && (is_commit || is_abort))
	{
		p->synthetic = 2;
		return SWALLOW;
	}

	/*
	 * An earlier transaction may still owe a reply on this connection.  The first
	 * command need not wait for it, if it can be sent after it in the same
	 * pipeline.
	 */
	if ((p->unsettled || (p->state == PARTICIPANT_IDLE && p->reply_due)) &&
		!(starts_with(command, "START TRANSACTION") && may_put_off(p) &&
		  CoordinatorOwe(p)))
		CoordinatorSettle(p);

	if (!is_abort && !is_commit)
		revive(p);
	if (p->broken)
	{
		/* It is closed as soon as postgres_fdw looks at PQstatus(). */
		if (is_abort)
		{
			p->synthetic = 2;
			return SWALLOW;
		}
		return REFUSE;
	}

	if (p->piped)
	{
		/* Cleanup that could not wait for the end of the results fails. */
		if (is_abort || starts_with(command, "ROLLBACK"))
			return REFUSE;
		check_not_piped(p);
	}

	/*
	 * What ends the transaction closes its cursors, though if it wrote they had
	 * better be closed before its deferred triggers run.  A command that
	 * repairs a failed transaction must not have anything before it.
	 */
	if (is_abort || (is_commit && p->asked && !p->wrote) ||
		(starts_with(command, "ROLLBACK") &&
		 real_PQtransactionStatus(conn) != PQTRANS_INTRANS))
		p->ncloses = 0;

	if (p->state == PARTICIPANT_IDLE)
	{
		if (!p->set_up && !starts_with(command, "START TRANSACTION"))
			note_setup(p, command);
		if (starts_with(command, "START TRANSACTION"))
		{
			p->set_up = true;
			if (p->wanted && !p->introduced && CoordinatorTwoPhaseCommit())
				CoordinatorIntroduce(p);
			if (p->broken)
				return REFUSE;
			CoordinatorCatchUp(p);
			if (p->broken)
				return REFUSE;
			CoordinatorEnlist(p);
			return put_off_start(p, command) ? SWALLOW : SEND_START;
		}
	}
	else if (!is_commit && !is_abort && !is_deallocate &&
			 !starts_with(command, "ROLLBACK"))
	{
		if (opening && answer_import(p, command))
			return SWALLOW;
		if (put_off_close(p, command))
			return SWALLOW;
		note_command(p, is_write(command));
	}
	return SEND;
}

/*
 * postgres_fdw sets up the session of a new connection (configure_remote_session in
 * contrib/postgres_fdw/connection.c): remember how.  Throws if out of memory.
 */
static void
note_setup(Participant *p, const char *command)
{
	char	   *all = MemoryContextAlloc(TopMemoryContext,
										 (p->setup ? strlen(p->setup) : 0) +
										 strlen(command) + 3);

	if (p->setup == NULL)
		strcpy(all, command);
	else
	{
		sprintf(all, "%s; %s", p->setup, command);
		pfree(p->setup);
	}
	p->setup = all;
}

/*
 * May the START TRANSACTION of a connection that is alive be put off?
 */
static bool
may_put_off(const Participant *p)
{
	return dtx_fold_start && dtx_two_phase_commit && p->wanted &&
		!DtxIsDue(p->last_start + FOLD_MAX_IDLE_MS);
}

/*
 * postgres_fdw starts a remote transaction: keep the command, as it is to be
 * sent, in start_command.  Returns true if it need not be sent now.
 *
 * postgres_fdw replaces a connection that fails with this very command, so that
 * a server's restart goes unnoticed, and no other.  So it is sent alone on a
 * connection that is seen to be dead, or was idle for long.  What can't be seen
 * shows in the reply to the first command, and then the connection is replaced here
 * (start_again).
 */
static bool
put_off_start(Participant *p, const char *command)
{
	bool		put_off = may_put_off(p);

	p->last_start = DtxNow();
	if (dtx_remote_isolation == XACT_READ_COMMITTED &&
		XactIsoLevel == XACT_READ_COMMITTED && p->wanted &&
		starts_with(command, START_REPEATABLE_READ))
		snprintf(p->start_command, sizeof(p->start_command), "%s%s",
				 START_READ_COMMITTED, command + strlen(START_REPEATABLE_READ));
	else
		strlcpy(p->start_command, command, sizeof(p->start_command));

	if (strlen(command) >= sizeof(p->start_command))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("postgres_fdw starts a transaction in an unknown way: %s",
						command)));

	if (!p->owing && (!put_off || !ParticipantQuiet(p)))
		return false;
	p->synthetic = 2;
	return true;
}

/*
 * postgres_fdw closes a cursor (close_cursor in
 * contrib/postgres_fdw/postgres_fdw.c).  Returns true if the server need not be
 * told now.
 */
static bool
put_off_close(Participant *p, const char *command)
{
	unsigned int number;
	int			len = 0;

	if (!dtx_fold_start || !dtx_two_phase_commit || !p->wanted ||
		p->start_command[0] != '\0' || p->ncloses >= DTX_MAX_CLOSES)
		return false;

	/* An error that is known already is not put off. */
	if (real_PQstatus(p->conn) != CONNECTION_OK ||
		real_PQtransactionStatus(p->conn) != PQTRANS_INTRANS)
		return false;
	if (sscanf(command, "CLOSE c%9u%n", &number, &len) != 1 ||
		command[len] != '\0')
		return false;
	p->closes[p->ncloses++] = number;
	p->synthetic = 2;
	return true;
}

/*
 * Send START TRANSACTION alone.
 */
static int
send_start(PGconn *conn)
{
	Participant *p = ParticipantFind(conn);
	int			sent = real_PQsendQuery(conn, p->start_command);

	p->start_command[0] = '\0';
	return sent;
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
	Participant *p = ParticipantFind(conn);
	StringInfoData all;
	int			sent;

	if (p == NULL || (p->start_command[0] == '\0' && p->ncloses == 0))
		return real_PQsendQuery(conn, query);

	if (p->start_command[0] != '\0')
	{
		/* (not that it had to, but it is not worth the trouble) */
		if (p->owing)
			CoordinatorCollect(p);
		revive(p);
		if (strchr(query, ';') == NULL && strlen(query) <= MAX_FIRST_SIZE)
			return start_with(p, NULL, query, 0, NULL);
		start_alone(p);
		return real_PQsendQuery(conn, query);
	}

	initStringInfo(&all);
	for (int i = 0; i < p->ncloses; i++)
		appendStringInfo(&all, "CLOSE c%u; ", p->closes[i]);
	appendStringInfoString(&all, query);
	p->ncloses = 0;
	sent = real_PQsendQuery(conn, all.data);
	pfree(all.data);
	return sent;
}

/* ----------------------------------------------------------------
 * The first command of a remote transaction
 * ----------------------------------------------------------------
 */

/*
 * A connection that is broken before anything of its remote transaction was sent,
 * START TRANSACTION included, is made anew.  Throws on interrupts, and if that was in
 * vain.
 */
static void
revive(Participant *p)
{
	char		start_command[DTX_START_SIZE];

	if (!p->broken || p->start_command[0] == '\0')
		return;
	strlcpy(start_command, p->start_command, DTX_START_SIZE);
	CoordinatorReconnect(p);
	strlcpy(p->start_command, start_command, DTX_START_SIZE);
}

/*
 * Keep what is about to be sent together with START TRANSACTION.  Throws if out of
 * memory.
 */
static void
keep_first(Participant *p, const char *prepare, const char *command,
		   int nParams, const char *const *paramValues)
{
	Size		size = MAXALIGN(sizeof(FirstCommand)) + sizeof(char *) * nParams;
	FirstCommand *first;
	char	   *next;

	size += prepare != NULL ? strlen(prepare) + 1 : 0;
	size += command != NULL ? strlen(command) + 1 : 0;
	for (int i = 0; i < nParams && paramValues != NULL; i++)
		size += paramValues[i] != NULL ? strlen(paramValues[i]) + 1 : 0;

	DtxInterposeForgetFirst(p);
	first = MemoryContextAllocZero(TopMemoryContext, size);
	first->nparams = nParams;
	first->values = (char **) ((char *) first + MAXALIGN(sizeof(FirstCommand)));
	next = (char *) (first->values + nParams);
	strlcpy(first->start_command, p->start_command, DTX_START_SIZE);
	if (prepare != NULL)
	{
		first->prepare = strcpy(next, prepare);
		next += strlen(prepare) + 1;
	}
	if (command != NULL)
	{
		first->command = strcpy(next, command);
		next += strlen(command) + 1;
	}
	for (int i = 0; i < nParams && paramValues != NULL; i++)
	{
		if (paramValues[i] == NULL)
			continue;
		first->values[i] = strcpy(next, paramValues[i]);
		next += strlen(paramValues[i]) + 1;
	}
	p->first = first;
}

/*
 * The first command of a remote transaction need not be sent again.  Does not throw.
 */
void
DtxInterposeForgetFirst(Participant *p)
{
	if (p->first == NULL)
		return;
	pfree(p->first);
	p->first = NULL;
}

/*
 * START TRANSACTION and the command after it have failed, or rather their connection
 * has: was it dead before the server has got them, or must the transaction begin
 * anew for another reason?  Then they are sent again, once.
 *
 * If the reply to START TRANSACTION is here, the connection has died of the command,
 * or under it: that is nobody's business but the caller's, as it is in postgres_fdw.
 */
static bool
may_start_again(const Participant *p)
{
	return p->first != NULL && IsTransactionState() &&
		(p->start_again ||
		 (p->start_due && real_PQstatus(p->conn) == CONNECTION_BAD));
}

/*
 * Make a connection anew and send START TRANSACTION and the command after it again.
 * Throws on interrupts, and if it was in vain.
 */
static void
start_again(Participant *p)
{
	FirstCommand *first = p->first;
	int			sent = 1;

	CoordinatorReconnect(p);
	strlcpy(p->start_command, first->start_command, DTX_START_SIZE);
	(void) begin_folded(p, true);
	if (first->prepare != NULL)
		sent = real_PQsendPrepare(p->conn, first->prepare, first->command,
								  first->nparams, NULL);
	else if (first->command != NULL)
		sent = real_PQsendQueryParams(p->conn, first->command, first->nparams,
									  NULL, (const char *const *) first->values,
									  NULL, NULL, 0);
	(void) end_folded(p, sent);
	p->folded = true;			/* what went wrong shows in the results */

	/* It is not sent for a third time. */
	DtxInterposeForgetFirst(p);
}

/*
 * Send START TRANSACTION, which was put off, and a command with parameters in text,
 * or with "prepare", the preparation of one by that name.  Returns what the wrapper
 * has to return.  Throws what start_again() throws.
 */
static int
start_with(Participant *p, const char *prepare, const char *command,
		   int nParams, const char *const *paramValues)
{
	int			sent = 1;

	keep_first(p, prepare, command, nParams, paramValues);
	(void) begin_folded(p, true);
	if (prepare != NULL)
		sent = real_PQsendPrepare(p->conn, prepare, command, nParams, NULL);
	else if (command != NULL)
		sent = real_PQsendQueryParams(p->conn, command, nParams, NULL,
									  paramValues, NULL, NULL, 0);
	if (!end_folded(p, sent))
	{
		p->start_due = true;
		if (!may_start_again(p))
			return 0;
		start_again(p);
	}
	return 1;
}

/*
 * Send START TRANSACTION, which was put off, and wait for the reply, because what
 * comes next can't be kept.  Throws on interrupts, and if it fails.
 */
static void
start_alone(Participant *p)
{
	bool		busy;
	const char *sqlstate;

	if (!start_with(p, NULL, NULL, 0, NULL))
		p->folded = false;
	busy = p->folded && is_busy(p);
	p->synthetic = 0;
	if (!busy && !p->broken && PQresultStatus(p->answer) == PGRES_COMMAND_OK)
	{
		PQclear(p->answer);
		p->answer = NULL;
		return;
	}

	p->broken = true;
	sqlstate = PQresultErrorField(p->answer, PG_DIAG_SQLSTATE);
	ereport(ERROR,
			(errcode(sqlstate != NULL && strlen(sqlstate) == 5 ?
					 MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
								   sqlstate[3], sqlstate[4]) :
					 ERRCODE_CONNECTION_FAILURE),
			 errmsg("could not begin transaction on server \"%s\"",
					p->identified ? p->server_name : "(unknown)"),
			 errdetail_internal("%s", DtxCleanText(p->answer != NULL ?
												   PQresultErrorMessage(p->answer) :
												   PQerrorMessage(p->conn),
												   DTX_MAX_REMOTE_TEXT))));
}

/*
 * The same for the extended protocol, which takes one statement at a time.
 * Between these two the caller sends its command.  begin_folded() returns false
 * if it is the only one; "more" says that the caller will send more than one.
 */
static bool
begin_folded(Participant *p, bool more)
{
	if (p == NULL ||
		(p->start_command[0] == '\0' && p->ncloses == 0 && !more))
		return false;
	if (!PQenterPipelineMode(p->conn) || ParticipantSendPending(p) < 0)
		p->broken = true;
	return true;
}

/*
 * "sent": was the command sent?  Returns what the wrapper has to return.
 */
static int
end_folded(Participant *p, int sent)
{
	if (!sent || p->broken || !PQpipelineSync(p->conn))
	{
		p->broken = true;
		return 0;
	}
	p->folded = true;
	return 1;
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
send_params(Participant *p, const char *command, int nParams,
			const char *const *paramValues, const int *paramLengths,
			const int *paramFormats)
{
	bool		prepare;
	const char *name;
	bool		folded;
	int			sent = 1;

	/*
	 * libpq blocks, and no cancel reaches it, when a socket can't take all of a
	 * command; and a server that owes us a reply may not be reading.
	 */
	if (p->owing && params_size(command, nParams, paramValues) > MAX_BEHIND_OWED)
		CoordinatorCollect(p);
	revive(p);

	/* It is used for the first time, and for the last, if it is not kept. */
	if (p->start_command[0] != '\0' &&
		(params_size(command, nParams, paramValues) > MAX_FIRST_SIZE ||
		 paramLengths != NULL || paramFormats != NULL))
		start_alone(p);
	if (p->start_command[0] != '\0')
		keep_first(p, NULL, command, nParams, paramValues);

	name = StatementUse(p, command, &prepare);
	folded = begin_folded(p, prepare);
	if (prepare)
		sent = real_PQsendPrepare(p->conn, name, command, nParams, NULL);
	if (sent && name != NULL)
		sent = real_PQsendQueryPrepared(p->conn, name, nParams, paramValues,
										paramLengths, paramFormats, 0);
	else if (sent)
		sent = real_PQsendQueryParams(p->conn, command, nParams, NULL,
									  paramValues, paramLengths, paramFormats,
									  0);
	if (!folded)
		return sent;
	if (end_folded(p, sent))
		return 1;
	p->start_due = p->first != NULL;
	if (!may_start_again(p))
		return 0;
	start_again(p);
	return 1;
}

/*
 * postgres_fdw sends a command by the extended protocol.  Returns the
 * connection's participant, or NULL if there is none.
 */
static Participant *
before_data_command(PGconn *conn, const char *command, bool writes)
{
	Participant *p = ParticipantFind(conn);

	if (p == NULL)
		return NULL;
	if (ParticipantControlled(p))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use server \"%s\" while the transaction is being committed",
						p->server_name),
				 errdetail("The remote transaction has been prepared or ended already.")));
	revive(p);
	if (p->broken)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						p->server_name)));
	check_not_piped(p);
	note_command(p, writes || is_write(command));
	return p;
}

/*
 * A value that dtx.query() receives may need a function that uses the very
 * connection on which it is received, say in a check constraint of a domain.
 */
static void
check_not_piped(const Participant *p)
{
	if (p->piped)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("connection to server \"%s\" is in use by an active remote command",
						p->server_name)));
}

/*
 * A command is sent in the remote transaction.  Not for those that end a
 * (sub)transaction, because these also come when the local transaction has
 * failed, and then catalogs can't be read.
 */
static void
note_command(Participant *p, bool writes)
{
	p->used = true;
	p->asked = false;
	if (writes)
		p->wrote = true;
	if (!p->seen)
		CoordinatorSeen(p);
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
Participant *
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
	revive(opened);
	if (opened->broken || ParticipantControlled(opened) ||
		real_PQstatus(opened->conn) != CONNECTION_OK)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						opened->server_name)));

	/* What the caller makes of the connection begins with no reply due. */
	if (opened->owing)
		CoordinatorCollect(opened);
	revive(opened);
	return opened;
}

/*
 * Is this a question of IMPORT FOREIGN SCHEMA?  Then it is answered here: the
 * schema exists, and has no tables.  Throws if out of memory.
 */
static bool
answer_import(Participant *p, const char *command)
{
	bool		exists = starts_with(command, IMPORT_QUESTION_1);
	PGresult   *answer;

	if (!exists && !starts_with(command, IMPORT_QUESTION_2))
		return false;

	/* It is used when something is sent: see exec/run.c. */
	if (!p->seen)
		CoordinatorSeen(p);

	answer = PQmakeEmptyPGresult(p->conn, PGRES_TUPLES_OK);
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

	PQclear(p->answer);
	p->answer = answer;
	p->synthetic = 2;
	opened = p;
	return true;
}

/*
 * ParticipantUnfold(), and the coordinator learns what it may have waited for.
 */
static bool
unfold(Participant *p, bool wait)
{
	bool		done = ParticipantUnfold(p, wait);

	if (p->owed_is_in)
		CoordinatorTakeOwed(p);
	if (!p->start_due && !p->start_again)
		DtxInterposeForgetFirst(p);
	return done;
}

/*
 * Does postgres_fdw have to wait for a result?  Normally this waits until it has
 * not.  Cleanup waits itself, with deadlines of its own.
 *
 * Throws on interrupts, at the very place where postgres_fdw would
 * (pgfdw_get_result in contrib/postgres_fdw/connection.c, libpqsrv_get_result in
 * libpq/libpq-be-fe-helpers.h).
 */
static bool
is_busy(Participant *p)
{
	for (;;)
	{
		bool		busy;

		if (p->folded)
		{
			busy = !unfold(p, false);
			if (!busy && may_start_again(p))
			{
				start_again(p);
				continue;
			}
		}
		else
			busy = real_PQisBusy(p->conn);
		if (!busy)
			return false;
		if (!IsTransactionState() || PQsocket(p->conn) < 0)
			return true;

		if (ParticipantWait(p, -1, we_result) & WL_SOCKET_READABLE)
		{
			if (!real_PQconsumeInput(p->conn))
			{
				/* As if postgres_fdw had seen that itself. */
				if (p->folded)
				{
					(void) unfold(p, true);
					if (may_start_again(p))
					{
						start_again(p);
						continue;
					}
				}
				PQclear(p->answer);
				p->answer = PQmakeEmptyPGresult(p->conn, PGRES_FATAL_ERROR);
				p->synthetic = 2;
				return false;
			}
		}
		else
		{
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/* Is a reply on the way that postgres_fdw must not take? */
static bool
is_ours_to_receive(const Participant *p)
{
	return p->reply_due;
}

/* ----------------------------------------------------------------
 * The wrappers
 * ----------------------------------------------------------------
 */

PGDLLEXPORT pg_noinline PGconn *
PQconnectdbParams(const char *const *keywords, const char *const *values,
				  int expand_dbname)
{
	Participant *p = before_connect(__builtin_return_address(0), keywords, values);
	PGconn	   *conn = real_PQconnectdbParams(keywords, values, expand_dbname);

	if (p != NULL)
		enroll(p, conn);
	return conn;
}

PGDLLEXPORT pg_noinline PGconn *
PQconnectStartParams(const char *const *keywords, const char *const *values,
					 int expand_dbname)
{
	Participant *p = before_connect(__builtin_return_address(0), keywords, values);
	PGconn	   *conn = real_PQconnectStartParams(keywords, values, expand_dbname);

	if (p != NULL)
		enroll(p, conn);
	return conn;
}

PGDLLEXPORT pg_noinline void
PQfinish(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind(conn);

		if (p != NULL)
		{
			if (!ParticipantControlled(p))
				CoordinatorForget(p);

			/* There may be something left that it owes. */
			if (ParticipantControlled(p))
			{
				CoordinatorAbandon(p);
				return;
			}
			ParticipantDestroy(p);
		}
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
		switch (judge(conn, query))
		{
			case SEND:
				return send_query(conn, query);
			case SEND_START:
				return send_start(conn);
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
	if (CALLED_BY_FDW())
	{
		Participant *p = before_data_command(conn, command, false);

		/* postgres_fdw gives no types, and wants text */
		if (p != NULL && paramTypes == NULL && resultFormat == 0)
			return send_params(p, command, nParams, paramValues, paramLengths,
							   paramFormats);
		if (p != NULL && p->start_command[0] != '\0')
			start_alone(p);
		if (begin_folded(p, false))
			return end_folded(p, real_PQsendQueryParams(conn, command, nParams,
														paramTypes, paramValues,
														paramLengths,
														paramFormats,
														resultFormat));
	}
	return real_PQsendQueryParams(conn, command, nParams, paramTypes,
								  paramValues, paramLengths, paramFormats,
								  resultFormat);
}

PGDLLEXPORT pg_noinline int
PQsendPrepare(PGconn *conn, const char *stmtName, const char *query,
			  int nParams, const Oid *paramTypes)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = before_data_command(conn, NULL, false);

		if (p != NULL && p->start_command[0] != '\0')
		{
			if (paramTypes == NULL && strlen(query) <= MAX_FIRST_SIZE)
				return start_with(p, stmtName, query, nParams, NULL);
			start_alone(p);
		}
		if (begin_folded(p, false))
			return end_folded(p, real_PQsendPrepare(conn, stmtName, query,
													nParams, paramTypes));
	}
	return real_PQsendPrepare(conn, stmtName, query, nParams, paramTypes);
}

/* postgres_fdw prepares nothing but INSERT, UPDATE and DELETE. */
PGDLLEXPORT pg_noinline int
PQsendQueryPrepared(PGconn *conn, const char *stmtName, int nParams,
					const char *const *paramValues, const int *paramLengths,
					const int *paramFormats, int resultFormat)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = before_data_command(conn, NULL, true);

		if (p != NULL && p->start_command[0] != '\0')
			start_alone(p);
		if (begin_folded(p, false))
			return end_folded(p, real_PQsendQueryPrepared(conn, stmtName,
														  nParams, paramValues,
														  paramLengths,
														  paramFormats,
														  resultFormat));
	}
	return real_PQsendQueryPrepared(conn, stmtName, nParams, paramValues,
									paramLengths, paramFormats, resultFormat);
}

PGDLLEXPORT pg_noinline PGresult *
PQexec(PGconn *conn, const char *query)
{
	if (CALLED_BY_FDW())
	{
		Participant *p;

		switch (judge(conn, query))
		{
			case SEND:
			case SEND_START:
				/* neither comes this way, but for DEALLOCATE ALL */
				break;
			case SWALLOW:
				p = ParticipantFind(conn);
				p->synthetic = 0;
				return PQmakeEmptyPGresult(conn, PGRES_COMMAND_OK);
			case REFUSE:
				return NULL;
		}
	}
	return real_PQexec(conn, query);
}

PGDLLEXPORT pg_noinline PGresult *
PQgetResult(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind(conn);

		if (p != NULL && p->folded)
			(void) unfold(p, true);
		if (p != NULL && p->synthetic > 0)
		{
			PGresult   *answer = p->answer;

			if (--p->synthetic == 0)
				return NULL;
			p->answer = NULL;
			if (answer == NULL)
				return PQmakeEmptyPGresult(conn, PGRES_COMMAND_OK);
			StatementDone(p, answer);
			return answer;
		}
		if (p != NULL && is_ours_to_receive(p))
			return NULL;
		if (p != NULL && p->piped && !ParticipantDrain(p))
		{
			/* not reached: whoever asks has waited until it is not busy */
			p->broken = true;
			return NULL;
		}
		if (p != NULL)
		{
			PGresult   *result = real_PQgetResult(conn);

			StatementDone(p, result);
			return result;
		}
	}
	return real_PQgetResult(conn);
}

PGDLLEXPORT pg_noinline int
PQisBusy(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind(conn);

		if (p != NULL && (p->synthetic > 0 || is_ours_to_receive(p)))
			return 0;
		if (p != NULL && p->piped)
			return !ParticipantDrain(p);
		if (p != NULL)
			return is_busy(p);
	}
	return real_PQisBusy(conn);
}

PGDLLEXPORT pg_noinline int
PQconsumeInput(PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind(conn);

		if (p != NULL && (p->synthetic > 0 || is_ours_to_receive(p)))
			return 1;
	}
	return real_PQconsumeInput(conn);
}

PGDLLEXPORT pg_noinline ConnStatusType
PQstatus(const PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind((PGconn *) conn);

		if (p != NULL && p->broken)
			return CONNECTION_BAD;
	}
	return real_PQstatus(conn);
}

PGDLLEXPORT pg_noinline PGTransactionStatusType
PQtransactionStatus(const PGconn *conn)
{
	if (CALLED_BY_FDW())
	{
		Participant *p = ParticipantFind((PGconn *) conn);

		if (p != NULL && p->broken)
			return PQTRANS_UNKNOWN;
		if (p != NULL && (p->piped || p->folded))
			return PQTRANS_ACTIVE;
		if (p != NULL && (ParticipantControlled(p) || is_ours_to_receive(p) ||
						  p->owing))
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
	if (CoordinatorMayThrow())
		fdw_notice_receiver(arg, res);
}

PGDLLEXPORT pg_noinline PQnoticeReceiver
PQsetNoticeReceiver(PGconn *conn, PQnoticeReceiver proc, void *arg)
{
	if (CALLED_BY_FDW() && proc != NULL)
	{
		Participant *p = ParticipantFind(conn);

		fdw_notice_receiver = proc;
		proc = receive_notice;
		if (p != NULL)
			return ParticipantPassNotices(p, proc, arg);
	}
	return real_PQsetNoticeReceiver(conn, proc, arg);
}
