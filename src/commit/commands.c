/*-------------------------------------------------------------------------
 *
 * commands.c
 *		What is to become of a command that postgres_fdw sends.
 *
 * postgres_fdw (contrib/postgres_fdw/connection.c, 15 to 19) drives a remote
 * transaction with a handful of literal commands: START TRANSACTION ...,
 * SAVEPOINT ..., RELEASE ..., ROLLBACK TO ..., COMMIT TRANSACTION, ABORT
 * TRANSACTION, DEALLOCATE ALL.  The first enlists the connection with the
 * coordinator.  Once the coordinator has taken the remote transaction into its
 * own hands, COMMIT and ABORT are swallowed: a success is made, and nothing is sent.
 *
 * START TRANSACTION is put off and sent together with the first command of the
 * remote transaction (first.c).  CLOSE of a cursor is put off likewise, until the next
 * command or the end of the transaction, which closes it anyway.
 *
 * What is not recognized while the remote transaction is in the coordinator's
 * hands is an ERROR: fail closed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "commit/commands.h"
#include "commit/connection.h"
#include "commit/coordinator.h"
#include "commit/fdw_session.h"
#include "commit/first.h"
#include "commit/late.h"
#include "commit/own_writes.h"
#include "commit/participant.h"
#include "commit/put_off.h"
#include "commit/reading.h"
#include "commit/real_libpq.h"
#include "commit/statement.h"
#include "commit/transaction.h"
#include "libpq-fe.h"
#include "net/wire.h"

static DtxCommandVerdict start_transaction(DtxConnection *c, const char *command);
static DtxCommandVerdict commit_transaction(DtxConnection *c, const char *command);
static DtxCommandVerdict abort_transaction(DtxConnection *c, const char *command);
static DtxCommandVerdict rollback_to(DtxConnection *c, const char *command);
static DtxCommandVerdict deallocate_all(DtxConnection *c, const char *command);
static DtxCommandVerdict close_cursor(DtxConnection *c, const char *command);
static DtxCommandVerdict other_command(DtxConnection *c, const char *command);

static DtxCommandVerdict swallow(DtxConnection *c);
static DtxCommandVerdict make_usable(DtxConnection *c);
static bool is_ended_here(DtxConnection *c);
static bool is_being_committed(const DtxConnection *c);
static void refuse_while_committing(const DtxConnection *c);
static void note_use(DtxParticipant *p, bool writes);
static bool starts_with(const char *command, const char *word);
static bool is_write(const char *command);

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
	DtxCommandVerdict (*handler) (DtxConnection *c, const char *command);
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

/*
 * postgres_fdw sends a command by the simple protocol.  May throw.
 */
DtxCommandVerdict
DtxCommandsJudge(DtxConnection *c, const char *command)
{
	for (int i = 0; i < lengthof(commands); i++)
	{
		if (commands[i].whole ? strcmp(command, commands[i].text) == 0 :
			starts_with(command, commands[i].text))
			return commands[i].handler(c, command);
	}
	return DTX_COMMAND_REFUSE;	/* not reached */
}

/*
 * A remote transaction begins.
 */
static DtxCommandVerdict
start_transaction(DtxConnection *c, const char *command)
{
	if (DtxParticipantTookOver(c))
		refuse_while_committing(c);
	if (c->participant != NULL)
		return other_command(c, command);

	/*
	 * The confirmation of an earlier transaction may be due on this
	 * connection.  The first command need not wait for it, if it can be sent
	 * after it in the same pipeline.
	 */
	if (!(DtxFirstMayPutOff(c) && DtxLateMayBeFollowed(c)) &&
		make_usable(c) == DTX_COMMAND_REFUSE)
		return DTX_COMMAND_REFUSE;

	if (c->wire.start_unknown)
		DtxConnectionForgetQuestion(c, true);
	if (c->extension_seen && DtxTwoPhaseCommit() &&
		(!c->cluster_asked || DtxConnectionWantsQuestion(c)))
		DtxConnectionAskCluster(c);
	if (!c->wire.broken)
		DtxOwnWritesAwait(c);
	if (c->wire.broken)
		return DTX_COMMAND_REFUSE;
	DtxCoordinatorJoin(c);
	return DtxFirstPutOff(c, command) ? swallow(c) : DTX_COMMAND_START;
}

static DtxCommandVerdict
commit_transaction(DtxConnection *c, const char *command)
{
	if (is_ended_here(c))
		return swallow(c);
	if (make_usable(c) == DTX_COMMAND_REFUSE)
		return DTX_COMMAND_REFUSE;
	DtxReadingCheckNoRemoteSql(c);

	/*
	 * It closes the cursors, though if it wrote they had better be closed
	 * before its deferred triggers run.
	 */
	if (c->participant != NULL && c->participant->writes == DTX_READ)
		c->put_off.ncloses = 0;
	return DTX_COMMAND_SEND;
}

static DtxCommandVerdict
abort_transaction(DtxConnection *c, const char *command)
{
	if (is_ended_here(c))
		return swallow(c);

	/* A broken one is closed as soon as postgres_fdw looks at PQstatus(). */
	if (make_usable(c) == DTX_COMMAND_REFUSE)
		return swallow(c);

	/* Cleanup that could not wait for the end of the results fails. */
	if (DtxReadingIsRemoteSql(c))
		return DTX_COMMAND_REFUSE;
	c->put_off.ncloses = 0;
	return DTX_COMMAND_SEND;
}

/*
 * A subtransaction is rolled back.
 */
static DtxCommandVerdict
rollback_to(DtxConnection *c, const char *command)
{
	if (DtxParticipantTookOver(c))
		refuse_while_committing(c);
	if (make_usable(c) == DTX_COMMAND_REFUSE || DtxReadingIsRemoteSql(c))
		return DTX_COMMAND_REFUSE;

	/* What repairs a failed transaction must not have anything before it. */
	if (dtx_real.PQtransactionStatus(c->wire.conn) != PQTRANS_INTRANS)
		c->put_off.ncloses = 0;
	return DTX_COMMAND_SEND;
}

/*
 * Sent when a remote transaction has ended in which there were errors.
 */
static DtxCommandVerdict
deallocate_all(DtxConnection *c, const char *command)
{
	DtxStatementForgetAll(&c->statements);
	DtxConnectionForgetQuestion(c, false);

	/*
	 * Put off while we are busy on the connection: postgres_fdw would wait
	 * for the reply inside libpq, where neither a timeout nor a cancel
	 * reaches, while everything is prepared.  Likewise while it is in a
	 * pipeline.
	 */
	if (DtxParticipantTookOver(c) ||
		(DtxLateDueOn(c) && !DtxWireStartIsDue(&c->wire) &&
		 !DtxWireExpects(&c->wire, DTX_REPLY_JOINED)))
	{
		c->put_off.deallocate = true;
		return swallow(c);
	}
	if (make_usable(c) == DTX_COMMAND_REFUSE)
		return DTX_COMMAND_REFUSE;
	DtxReadingCheckNoRemoteSql(c);
	return DTX_COMMAND_SEND;
}

/*
 * postgres_fdw closes a cursor (close_cursor in
 * contrib/postgres_fdw/postgres_fdw.c): the server need not be told now.  To do
 * without, take the entry out of the table.
 */
static DtxCommandVerdict
close_cursor(DtxConnection *c, const char *command)
{
	DtxPutOff  *put_off = &c->put_off;
	unsigned int number;
	int			len = 0;

	if (DtxParticipantTookOver(c))
		refuse_while_committing(c);
	if (make_usable(c) == DTX_COMMAND_REFUSE)
		return DTX_COMMAND_REFUSE;
	DtxReadingCheckNoRemoteSql(c);

	/* An error that is known already is not put off. */
	if (c->participant == NULL || !dtx_fold_start || !dtx_two_phase_commit ||
		!c->extension_seen || put_off->start[0] != '\0' ||
		put_off->ncloses >= DTX_MAX_CLOSES ||
		dtx_real.PQstatus(c->wire.conn) != CONNECTION_OK ||
		dtx_real.PQtransactionStatus(c->wire.conn) != PQTRANS_INTRANS ||
		sscanf(command, "CLOSE c%9u%n", &number, &len) != 1 ||
		command[len] != '\0')
		return other_command(c, command);
	put_off->closes[put_off->ncloses++] = number;
	return swallow(c);
}

/*
 * SAVEPOINT, RELEASE, cursors, and what sets up the session of a new connection.
 */
static DtxCommandVerdict
other_command(DtxConnection *c, const char *command)
{
	if (DtxParticipantTookOver(c))
		refuse_while_committing(c);
	if (make_usable(c) == DTX_COMMAND_REFUSE)
		return DTX_COMMAND_REFUSE;
	DtxReadingCheckNoRemoteSql(c);

	if (c->participant == NULL)
	{
		if (c->transactions == 0)
			DtxConnectionNoteSetup(c, command);
		return DTX_COMMAND_SEND;
	}
	if (DtxFdwSessionAnswerImport(c, command))
		return DTX_COMMAND_SWALLOW;
	note_use(c->participant, is_write(command));
	return DTX_COMMAND_SEND;
}

/*
 * The command is not sent; postgres_fdw gets a reply that it has succeeded.
 */
static DtxCommandVerdict
swallow(DtxConnection *c)
{
	DtxWireMake(&c->wire, NULL);
	return DTX_COMMAND_SWALLOW;
}

/*
 * A command is about to be sent: a connection on which no remote transaction has begun
 * has to be waited for if a reply of ours is due on it, and made anew if it is broken.
 * Returns DTX_COMMAND_REFUSE if it can't be used.  Throws on interrupts, and if it can't
 * be made anew.
 */
static DtxCommandVerdict
make_usable(DtxConnection *c)
{
	if (c->participant == NULL && DtxWireExpects(&c->wire, DTX_REPLY_HANDLED))
		DtxLateAwait(c);
	DtxFirstReconnectIfBroken(c);
	return c->wire.broken ? DTX_COMMAND_REFUSE : DTX_COMMAND_SEND;
}

/*
 * Does the end of the transaction need no command of postgres_fdw, because its start was
 * put off (which ends here; whatever is due is of an earlier one), or because it is ours?
 */
static bool
is_ended_here(DtxConnection *c)
{
	if (c->put_off.start[0] != '\0')
	{
		c->put_off.start[0] = '\0';
		return true;
	}
	return is_being_committed(c);
}

/*
 * Is it committed by the coordinator, or is it known already that it has committed?
 */
static bool
is_being_committed(const DtxConnection *c)
{
	return DtxParticipantTookOver(c) || (c->participant == NULL && DtxLateDueOn(c));
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

/*
 * postgres_fdw sends a command by the extended protocol.  Returns the connection, or
 * NULL if it is not known.  May throw.
 */
DtxConnection *
DtxCommandsBeforeData(PGconn *conn, const char *command, bool writes)
{
	DtxConnection *c = DtxConnectionFind(conn);

	if (c == NULL)
		return NULL;
	if (DtxParticipantTookOver(c))
		refuse_while_committing(c);
	DtxFirstReconnectIfBroken(c);
	if (c->wire.broken)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						c->endpoint.server_name)));
	DtxReadingCheckNoRemoteSql(c);
	if (c->participant != NULL)
		note_use(c->participant, writes || is_write(command));
	return c;
}
