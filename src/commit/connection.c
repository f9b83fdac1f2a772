/*-------------------------------------------------------------------------
 *
 * connection.c
 *		The connections of postgres_fdw in this process.
 *
 * postgres_fdw owns them: it makes them, uses them, and closes them.  Here is what is
 * known of each, found by its PGconn, and what can be done with one on which no remote
 * transaction has begun: ask it, make it anew, wait for it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "commit/connection.h"
#include "commit/point_question.h"
#include "commit/prepare_question.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/wait_set.h"
#include "net/wire.h"
#include "net/wire_wait.h"
#include "state/waits.h"
#include "storage/fd.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"

/* What is prepared in a session: dtx_prepare, dtx_prepare_bare, dtx_commit. */
#define QUESTIONS	3

typedef struct ConnectionEntry
{
	PGconn	   *conn;			/* hash key */
	DtxConnection *connection;
} ConnectionEntry;

/*
 * Has a server deallocated what was prepared in a session, which nobody has told it to?
 * Then something that this process does has that effect, and nothing is prepared any
 * more.
 */
static bool question_deallocated = false;

/* All connections of postgres_fdw in this process. */
static HTAB *connections = NULL;

/* The one that DtxConnectionFind() has found last, or NULL: mostly the next one, too. */
static DtxConnection *last_found = NULL;

static bool mapping_in_use(Oid umid);
static bool nothing_handled(void *arg);
static void cluster_result(void *owner, const PGresult *result);
static void cluster_complete(void *owner, PGresult *last, const char *lost);
static void prepare_commands(DtxConnection *c);
static void commands_complete(void *owner, PGresult *last, const char *lost);
static void prepared_complete(void *owner, PGresult *last, const char *lost);
static void setup_complete(void *owner, PGresult *last, const char *lost);

static const DtxReplyHandler cluster_handler = {
	.result = cluster_result,
	.complete = cluster_complete
};
static const DtxReplyHandler commands_handler = {.complete = commands_complete};
static const DtxReplyHandler prepared_handler = {.complete = prepared_complete};
static const DtxReplyHandler setup_handler = {.complete = setup_complete};

/* ----------------------------------------------------------------
 * Which there are
 * ----------------------------------------------------------------
 */

/*
 * What is known of a connection, or NULL if postgres_fdw did not make it.  Does not
 * throw.
 */
DtxConnection *
DtxConnectionFind(PGconn *conn)
{
	ConnectionEntry *entry;

	if (last_found != NULL && last_found->wire.conn == conn)
		return last_found;
	if (connections == NULL)
		return NULL;
	entry = hash_search(connections, &conn, HASH_FIND, NULL);
	if (entry == NULL)
		return NULL;
	last_found = entry->connection;
	return last_found;
}

/*
 * postgres_fdw is about to make a connection with these parameters.  Throws if out of
 * memory.
 */
DtxConnection *
DtxConnectionCreate(const char *const *keywords, const char *const *values)
{
	MemoryContext old = CurrentMemoryContext;
	DtxConnection *c;

	if (connections == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(PGconn *);
		ctl.entrysize = sizeof(ConnectionEntry);
		ctl.hcxt = TopMemoryContext;
		connections = hash_create("pg_dtx connections", 16, &ctl,
								  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	c = MemoryContextAllocZero(TopMemoryContext, sizeof(DtxConnection));
	PG_TRY();
	{
		c->last_start = DtxNow();
		DtxEndpointNoteParameters(&c->endpoint, keywords, values);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		DtxConnectionDestroy(c);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return c;
}

/*
 * The connection exists.  Throws if out of memory.
 */
void
DtxConnectionAttach(DtxConnection *c, PGconn *conn)
{
	ConnectionEntry *entry;
	bool		found;

	DTX_FAULT("attach", conn);
	entry = hash_search(connections, &conn, HASH_ENTER, &found);
	Assert(!found);
	entry->connection = c;
	DtxWireAttach(&c->wire, conn);
}

/*
 * Forget a connection; the caller closes it.  No reply to a participant is due on it,
 * and it has no remote transaction.  Does not throw.
 */
void
DtxConnectionDestroy(DtxConnection *c)
{
	Assert(c->participant == NULL);
	if (c->wire.conn != NULL)
	{
		hash_search(connections, &c->wire.conn, HASH_REMOVE, NULL);
		if (last_found == c)
			last_found = NULL;
		DtxWaitSetForget(c->wire.serial);
		DtxWaitsDropSession(c->wire.serial);
		DtxWireDetach(&c->wire);
	}
	DtxStatementForgetAll(&c->statements);
	DtxPutOffForgetTransaction(&c->put_off);
	DtxEndpointForget(&c->endpoint);
	if (c->setup != NULL)
		pfree(c->setup);
	pfree(c);
}

/*
 * Call a function for every connection.  It may destroy the one that it is given.
 */
void
DtxConnectionForEach(void (*callback) (DtxConnection *c, void *arg), void *arg)
{
	HASH_SEQ_STATUS scan;
	ConnectionEntry *entry;

	if (connections == NULL)
		return;
	hash_seq_init(&scan, connections);
	while ((entry = hash_seq_search(&scan)) != NULL)
		callback(entry->connection, arg);
}

/*
 * How many connections are there, those included that postgres_fdw has closed and
 * that are still needed?
 */
int
DtxConnectionCount(void)
{
	return connections == NULL ? 0 : (int) hash_get_num_entries(connections);
}

/*
 * postgres_fdw closes a connection that is still needed: it is kept until
 * DtxConnectionRelease().  postgres_fdw counts the descriptor as released, so it is
 * counted as ours.  Does not throw.
 */
void
DtxConnectionKeep(DtxConnection *c)
{
	c->closed_by_fdw = true;
	ReserveExternalFD();
}

/*
 * A connection is not needed by any transaction at the moment: postgres_fdw may use it
 * again.  What was put off is sent; if postgres_fdw has closed it, it is closed.  Does
 * not throw.
 */
void
DtxConnectionRelease(DtxConnection *c)
{
	DtxPutOffForgetTransaction(&c->put_off);
	if (c->closed_by_fdw)
	{
		PGconn	   *conn = c->wire.conn;

		DtxConnectionDestroy(c);
		PQfinish(conn);
		ReleaseExternalFD();	/* see DtxConnectionKeep() */
	}
	else
		DtxPutOffTidy(&c->put_off, &c->wire);
}

/*
 * A remote command of ours begins to use a connection of the current transaction: it
 * stays in memory until DtxConnectionLetGo(), even if postgres_fdw closes it, whom a
 * function that looks at the results may bring to that.  Calls nest.
 */
void
DtxConnectionHold(DtxConnection *c)
{
	c->holds++;
}

/*
 * The remote command is over.  Does not throw.
 */
void
DtxConnectionLetGo(DtxConnection *c)
{
	Assert(c->holds > 0);
	if (--c->holds == 0 && c->closed_by_fdw && c->participant == NULL)
		DtxConnectionRelease(c);
}

/* ----------------------------------------------------------------
 * Where they lead
 * ----------------------------------------------------------------
 */

/*
 * Find out which foreign server and user mapping a connection belongs to, see
 * DtxEndpointIdentify(), also for what it throws.
 */
void
DtxConnectionIdentify(DtxConnection *c)
{
	DtxEndpointIdentify(&c->endpoint, mapping_in_use);
}

/*
 * Before a connection that was identified is shown for the first time: by what others know
 * its options, and whether it may say which server it leads to.  May throw.
 */
void
DtxConnectionFingerprint(DtxConnection *c)
{
	ForeignServer *server;

	if (c->fingerprint != 0 || c->endpoint.options_text == NULL ||
		(server = GetForeignServerExtended(c->endpoint.serverid, FSV_MISSING_OK)) == NULL)
		return;
	c->salt = DtxInstanceSalt(server->serverid, superuser_arg(server->owner));
	c->fingerprint = DtxWaitsFingerprint(c->endpoint.options_text);
}

/*
 * Others can see from now on which server a connection leads to, and through which of its
 * processes, as far as both is known (state/waits).  Does not throw.
 */
void
DtxConnectionShow(DtxConnection *c)
{
	DtxWaitSession session = {
		.serial = c->wire.serial,
		.instance = c->endpoint.instance ^ c->salt,
		.pid = c->endpoint.pid,
		.started = c->endpoint.process_started,
		.serverid = c->endpoint.serverid,
		.umid = c->endpoint.umid,
		.endpoint = c->fingerprint
	};

	if (c->shown == c->wire.serial || !DtxEndpointIsKnown(&c->endpoint) ||
		c->endpoint.pid == 0 || c->fingerprint == 0)
		return;
	DtxWaitsAddSession(&session);
	c->shown = c->wire.serial;
}

static bool
mapping_in_use(Oid umid)
{
	HASH_SEQ_STATUS scan;
	ConnectionEntry *entry;
	bool		in_use = false;

	hash_seq_init(&scan, connections);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		DtxConnection *c = entry->connection;

		if (c->endpoint.umid == umid && !c->closed_by_fdw && !c->wire.broken)
			in_use = true;
	}
	return in_use;
}

/*
 * A connection is about to begin its first remote transaction: find out which
 * cluster it leads to, and prepare there what is asked in each transaction
 * (prepare_question.c, point_question.c).  Once per connection, like the settings that postgres_fdw
 * makes, and when the latter is lost.  Throws on interrupts only; a failure breaks the
 * wire.
 */
void
DtxConnectionAskCluster(DtxConnection *c)
{
	bool		define = DtxConnectionWantsQuestion(c);
	StringInfoData question;

	initStringInfo(&question);
	if (define)
	{
		c->nquestions = 0;
		appendStringInfo(&question, "%s; %s; ", DtxPrepareQuestionDefinitions(),
						 DtxPointCommitDefinition());
	}
	appendStringInfoString(&question, DtxEndpointQuestion(c->wire.conn));
	c->cluster_asked = true;
	if (DtxWireSend(&c->wire, question.data, &cluster_handler, c))
		(void) DtxConnectionAwait(c, DTX_NEVER);
	pfree(question.data);

	/*
	 * The first statement that fails ends the message: once more, without
	 * that.
	 */
	if (define && c->nquestions < QUESTIONS && !c->wire.broken)
	{
		c->question_refused = true;
		DtxConnectionAskCluster(c);
	}
	else if (define)
		prepare_commands(c);
}

/*
 * Likewise what SQL knows no PREPARE of.  Throws on interrupts.
 */
static void
prepare_commands(DtxConnection *c)
{
	DtxWireStatement all[DTX_PUT_OFF_STARTS + lengthof(DtxPointCommitStatements)];

	memcpy(all, DtxPutOffStarts, sizeof(DtxPutOffStarts));
	memcpy(all + DTX_PUT_OFF_STARTS, DtxPointCommitStatements,
		   sizeof(DtxPointCommitStatements));
	if (DtxWirePrepare(&c->wire, all, lengthof(all), &commands_handler, c))
		(void) DtxConnectionAwait(c, DTX_NEVER);
}

static void
commands_complete(void *owner, PGresult *last, const char *lost)
{
	((DtxConnection *) owner)->put_off.start_prepared =
		lost == NULL && PQresultStatus(last) == PGRES_COMMAND_OK;
	PQclear(last);
}

/*
 * Can START TRANSACTION, and what commits at the server that decides, be executed by name?
 */
bool
DtxConnectionHasCommands(const DtxConnection *c)
{
	return c->put_off.start_prepared && DtxConnectionHasQuestion(c);
}

/* For DtxConnectionSystemId(). */
typedef struct SystemIdOf
{
	Oid			serverid;
	uint64		system_id;
} SystemIdOf;

static void
find_system_id(DtxConnection *c, void *arg)
{
	SystemIdOf *of = (SystemIdOf *) arg;

	if (c->participant != NULL && c->endpoint.serverid == of->serverid)
		of->system_id = c->endpoint.system_id;
}

/*
 * The system identifier of the cluster to which a foreign server leads in the current
 * transaction; 0 if it does not take part, or has not said it.  Does not throw.
 */
uint64
DtxConnectionSystemId(Oid serverid)
{
	SystemIdOf	of = {.serverid = serverid,.system_id = 0};

	DtxConnectionForEach(find_system_id, &of);
	return of.system_id;
}

/*
 * Can what is prepared there be executed by name?
 */
bool
DtxConnectionHasQuestion(const DtxConnection *c)
{
	return c->nquestions == QUESTIONS && !question_deallocated;
}

/*
 * May anything of ours be prepared in the session?
 */
bool
DtxConnectionMayPrepare(const DtxConnection *c)
{
	return dtx_prepare_statements && !question_deallocated;
}

/*
 * Is something to be prepared in the session?
 */
bool
DtxConnectionWantsQuestion(const DtxConnection *c)
{
	return DtxConnectionMayPrepare(c) && c->nquestions < QUESTIONS && !c->question_refused &&
		PQserverVersion(c->wire.conn) >= 100000;
}

/*
 * They are not there any more; "deallocated": for a reason that is not known here.  Does not
 * throw.
 */
void
DtxConnectionForgetQuestion(DtxConnection *c, bool deallocated)
{
	c->nquestions = 0;
	c->point_prepared = c->put_off.start_prepared = c->wire.start_unknown = false;
	question_deallocated |= deallocated;
}

static void
cluster_result(void *owner, const PGresult *result)
{
	DtxConnection *c = (DtxConnection *) owner;

	if (PQresultStatus(result) == PGRES_COMMAND_OK &&
		strcmp(PQcmdStatus(unconstify(PGresult *, result)), "PREPARE") == 0)
		c->nquestions++;
	else
		DtxEndpointTakeAnswer(&c->endpoint, result);
}

static void
cluster_complete(void *owner, PGresult *last, const char *lost)
{
	PQclear(last);
	DtxConnectionShow((DtxConnection *) owner);
}

/*
 * Is a gid prepared on the cluster that a connection leads to, on which no remote
 * transaction has begun?  If that can't be told, it may be.  Throws on interrupts.
 */
bool
DtxConnectionIsPrepared(DtxConnection *c, const DtxGid *gid)
{
	char		gid_text[DTX_GID_SIZE];
	char		command[DTX_GID_SIZE + 128];

	DtxGidFormat(gid, gid_text);
	snprintf(command, sizeof(command),
			 "SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) '%s'",
			 gid_text);
	c->not_prepared = false;
	if (DtxWireSend(&c->wire, command, &prepared_handler, c))
		(void) DtxConnectionAwait(c, DTX_NEVER);
	return c->wire.broken || !c->not_prepared;
}

static void
prepared_complete(void *owner, PGresult *last, const char *lost)
{
	if (lost == NULL && PQresultStatus(last) == PGRES_TUPLES_OK &&
		PQntuples(last) == 1 && PQnfields(last) == 1)
		((DtxConnection *) owner)->not_prepared = strcmp(PQgetvalue(last, 0, 0), "0") == 0;
	PQclear(last);
}

/* ----------------------------------------------------------------
 * Waiting, and making one anew
 * ----------------------------------------------------------------
 */

/* Wait event for all that is waited for before a remote transaction begins. */
uint32
DtxConnectionWaitEvent(void)
{
	static uint32 event = 0;

	if (event == 0)
		event = DtxWaitEvent("DtxSettle");
	return event;
}

/*
 * Wait until no reply to a command of ours is due on a connection.  Returns false if
 * that has not come about at the deadline.  Throws on interrupts; postgres_fdw drops
 * the connection then.
 */
bool
DtxConnectionAwait(DtxConnection *c, DtxMoment deadline)
{
	DtxWire    *wire = &c->wire;
	DtxWait		wait = {
		.wires = &wire,
		.nwires = 1,
		.deadline = deadline,
		.wait_event = DtxConnectionWaitEvent(),
		.interrupts = DTX_INTERRUPTS_THROW,
		.done = nothing_handled,
		.arg = wire
	};

	return DtxWireWait(&wait) == DTX_WAIT_DONE;
}

/* (A lost connection breaks the wire, and then nothing is due any more.) */
static bool
nothing_handled(void *arg)
{
	return !DtxWireExpects((DtxWire *) arg, DTX_REPLY_HANDLED);
}

/*
 * postgres_fdw sets up the session of a new connection (configure_remote_session in
 * contrib/postgres_fdw/connection.c): remember how.  Throws if out of memory.
 */
void
DtxConnectionNoteSetup(DtxConnection *c, const char *command)
{
	char	   *all = MemoryContextAlloc(TopMemoryContext,
										 (c->setup ? strlen(c->setup) : 0) +
										 strlen(command) + 3);

	if (c->setup == NULL)
		strcpy(all, command);
	else
	{
		sprintf(all, "%s; %s", c->setup, command);
		pfree(c->setup);
	}
	c->setup = all;
}

/*
 * Replace a connection that is dead, or whose remote transaction is to begin anew, by
 * another one to the same place (DtxWireReconnect), which postgres_fdw goes on using.
 * The session is set up as postgres_fdw has set up the old one.  To be called while
 * nothing that postgres_fdw knows of exists in the session, so at the beginning of a
 * remote transaction, or when that is over.
 *
 * Throws on interrupts.  Returns false, and the wire is broken, if it failed, or was not
 * done at the deadline (DTX_NEVER: none); PQerrorMessage() says why.
 */
bool
DtxConnectionRenew(DtxConnection *c, DtxMoment deadline)
{
	DtxStatementForgetAll(&c->statements);
	c->put_off.ncloses = 0;
	c->put_off.deallocate = c->put_off.reset = false;
	c->cluster_asked = false;
	c->told_lsn = 0;
	DtxConnectionForgetQuestion(c, false);
	DtxEndpointForgetAnswer(&c->endpoint);
	DtxWaitsDropSession(c->wire.serial);

	if (!DtxWireReconnect(&c->wire, deadline, DtxConnectionWaitEvent()))
		return false;
	if (c->setup != NULL &&
		DtxWireSend(&c->wire, c->setup, &setup_handler, c) &&
		!DtxConnectionAwait(c, deadline))
		DtxWireBreak(&c->wire, "no reply");
	return !c->wire.broken;
}

static void
setup_complete(void *owner, PGresult *last, const char *lost)
{
	if (lost == NULL && PQresultStatus(last) != PGRES_COMMAND_OK)
		DtxWireBreak(&((DtxConnection *) owner)->wire, "could not set up the session");
	PQclear(last);
}
