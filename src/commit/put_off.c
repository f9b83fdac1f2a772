/*-------------------------------------------------------------------------
 *
 * put_off.c
 *		What postgres_fdw has said, and the server has not been told yet, because it
 *		can go with the next command, or has to wait for the end of the transaction.
 *
 * START TRANSACTION goes with the first command of a remote transaction, and CLOSE of
 * a cursor with the next one: each saves a round trip.  DEALLOCATE ALL, which
 * postgres_fdw sends when it has committed, waits until the connection is not busy
 * with commands of ours any more.
 *
 * Which command is put off is decided where commands are seen (commands.c, first.c);
 * without these decisions nothing here has anything to do.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guarded.h"
#include "commit/put_off.h"
#include "libpq-fe.h"
#include "net/wire.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

const DtxWireStatement DtxPutOffStarts[DTX_PUT_OFF_STARTS] = {
	{"dtx_start", "START TRANSACTION ISOLATION LEVEL REPEATABLE READ"},
	{"dtx_start_read_committed", "START TRANSACTION ISOLATION LEVEL READ COMMITTED"}
};

static const char *start_name(const DtxPutOff *put_off);
static void tidied(void *owner, PGresult *last, const char *lost);

static const DtxReplyHandler tidy_handler = {.complete = tidied};

/*
 * In pipeline mode: send what has to come before the caller's command.  Returns how
 * many commands that were, or -1 if one could not be sent.  Does not throw.
 */
int
DtxPutOffSend(DtxPutOff *put_off, DtxWire *wire)
{
	int			n = 0;

	if (put_off->start[0] != '\0')
	{
		if (!DtxWireSendStep(wire, put_off->start, start_name(put_off),
							 DTX_REPLY_START, put_off->prompt))
			return -1;
		put_off->start[0] = '\0';
		n++;
	}
	for (int i = 0; i < put_off->ncloses; i++)
	{
		char		command[32];

		snprintf(command, sizeof(command), "CLOSE c%u", put_off->closes[i]);
		if (!DtxWireSendStep(wire, command, NULL, DTX_REPLY_STEP, false))
			return -1;
		n++;
	}
	put_off->ncloses = 0;
	return n;
}

/* The name under which START TRANSACTION is prepared, or NULL. */
static const char *
start_name(const DtxPutOff *put_off)
{
	for (int i = 0; put_off->start_prepared && i < DTX_PUT_OFF_STARTS; i++)
	{
		if (strcmp(put_off->start, DtxPutOffStarts[i].command) == 0)
			return DtxPutOffStarts[i].name;
	}
	return NULL;
}

/*
 * postgres_fdw's command goes in a pipeline, behind what was put off: the caller sends
 * it, and what else has to precede it, between these two.  DtxPutOffBeginJoined()
 * returns false if there is nothing that precedes it; "more" says that there will be.
 * Neither throws.
 */
bool
DtxPutOffBeginJoined(DtxPutOff *put_off, DtxWire *wire, bool more)
{
	if (!DtxPutOffAny(put_off) && !more)
		return false;
	if (!PQenterPipelineMode(wire->conn) || DtxPutOffSend(put_off, wire) < 0)
		DtxWireBreak(wire, "could not send a command");
	return true;
}

/*
 * "sent": was the command sent?  Returns what the function of libpq would: 0, and the
 * wire is broken, if something could not be sent.
 */
int
DtxPutOffEndJoined(DtxWire *wire, int sent)
{
	if (sent && !wire->broken)
	{
		DtxWireExpect(wire, DTX_REPLY_JOINED, 1);
		if (DtxWireSync(wire))
			return 1;
	}
	DtxWireBreak(wire, "could not send a command");
	return 0;
}

/*
 * The CLOSEs as text in front of a command of the simple protocol, of
 * DTX_CLOSES_SIZE bytes at most.  They are not put off any more.  Returns the length.
 * Does not throw.
 */
int
DtxPutOffCloses(DtxPutOff *put_off, char *commands, size_t size)
{
	int			len = 0;

	commands[0] = '\0';
	for (int i = 0; i < put_off->ncloses; i++)
		len += snprintf(commands + len, size - len, "CLOSE c%u; ", put_off->closes[i]);
	put_off->ncloses = 0;
	return len;
}

/*
 * Keep what is about to be sent together with START TRANSACTION, in TopMemoryContext.
 * Throws if out of memory.
 */
void
DtxPutOffKeepFirst(DtxPutOff *put_off, const char *prepare, const char *command,
				   int nparams, const char *const *values)
{
	Size		size = MAXALIGN(sizeof(DtxFirstCommand)) + sizeof(char *) * nparams;
	DtxFirstCommand *first;
	char	   *next;

	DTX_ASSERT_MAY_THROW();
	size += prepare != NULL ? strlen(prepare) + 1 : 0;
	size += command != NULL ? strlen(command) + 1 : 0;
	for (int i = 0; i < nparams && values != NULL; i++)
		size += values[i] != NULL ? strlen(values[i]) + 1 : 0;

	DtxPutOffForgetFirst(put_off);
	first = MemoryContextAllocZero(TopMemoryContext, size);
	first->nparams = nparams;
	first->values = (char **) ((char *) first + MAXALIGN(sizeof(DtxFirstCommand)));
	next = (char *) (first->values + nparams);
	strlcpy(first->start, put_off->start, DTX_START_SIZE);
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
	for (int i = 0; i < nparams && values != NULL; i++)
	{
		if (values[i] == NULL)
			continue;
		first->values[i] = strcpy(next, values[i]);
		next += strlen(values[i]) + 1;
	}
	put_off->first = first;
}

/*
 * The first command of a remote transaction need not be sent again.  Does not throw.
 */
void
DtxPutOffForgetFirst(DtxPutOff *put_off)
{
	if (put_off->first == NULL)
		return;
	pfree(put_off->first);
	put_off->first = NULL;
}

/*
 * The remote transaction is over, or has to begin anew: nothing in front of a command
 * is put off.  Does not throw.
 */
void
DtxPutOffForgetTransaction(DtxPutOff *put_off)
{
	put_off->start[0] = '\0';
	put_off->ncloses = 0;
	DtxPutOffForgetFirst(put_off);
}

/*
 * The transaction is over: do what was put off until then, unless a reply is due, after
 * which this is called again.  As with postgres_fdw,
 * nobody is interested in the reply, which is received before the connection is used
 * again.  Does not throw.
 */
void
DtxPutOffTidy(DtxPutOff *put_off, DtxWire *wire)
{
	static const char reset[] = "RESET statement_timeout; RESET client_min_messages; DEALLOCATE ALL";
	char		command[sizeof(reset)];

	if ((!put_off->deallocate && !put_off->reset) ||
		(!wire->broken && !DtxWireIdle(wire)))
		return;
	strlcpy(command, put_off->reset ? reset : strstr(reset, "DEALLOCATE"),
			sizeof(command));
	if (!put_off->deallocate)
		*strstr(command, "; DEALLOCATE") = '\0';
	put_off->deallocate = put_off->reset = false;
	if (!wire->broken && PQstatus(wire->conn) == CONNECTION_OK)
		(void) DtxWireSend(wire, command, &tidy_handler, NULL);
}

static void
tidied(void *owner, PGresult *last, const char *lost)
{
	PQclear(last);
}
