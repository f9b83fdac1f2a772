/*-------------------------------------------------------------------------
 *
 * participant.c
 *		One postgres_fdw connection and its remote transaction: which foreign
 *		server it belongs to, and the steps by which the transaction is asked,
 *		prepared and finished.
 *
 * Every step is a command sent and a reply received later; the coordinator
 * decides which step comes next and does the waiting.  What a reply means is
 * decided here, in ParticipantReceive().
 *
 * The functions that are called after the local commit (ParticipantFinish,
 * ParticipantReceive, ParticipantGiveUp, ParticipantDeallocate) do not throw,
 * and allocate nothing but what libpq takes from malloc, whose failure libpq
 * reports as a failed command.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <poll.h>
#include <sys/socket.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commit/interpose.h"
#include "commit/participant.h"
#include "commit/statement.h"
#include "foreign/foreign.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/target.h"
#include "net/text.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "storage/fd.h"
#include "storage/latch.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/timestamp.h"

/* libpq's: session states that mean a server without the needed slots */
#define SQLSTATE_PREPARE_DISABLED	"55000"
#define SQLSTATE_PREPARE_EXHAUSTED	"53200"

/* Likewise, of COMMIT PREPARED: there is no such prepared transaction */
#define SQLSTATE_GONE	"42704"

/*
 * Reads after which a server that still has not ended its reply to one of our
 * commands is given up: it would fill our memory.  A reply is some hundred bytes,
 * but triggers at PREPARE may send notices, which come in pieces of 8 kB.
 */
#define MAX_READS	10000

/*
 * Connections of a backend whose sets of things to wait for are kept.  Each takes
 * one of the descriptors that AcquireExternalFD() (storage/file/fd.c) counts, so
 * that many more must be left to others, too.
 */
#define MAX_WAIT_SETS	16

/* What a server has answered without waiting for its synchronous standby. */
#define PREPARE_NOT_REPLICATED	"it is prepared, but the server has not waited until its synchronous standby has it"
#define COMMIT_NOT_REPLICATED	"it is committed, but the server has not waited until its synchronous standby has it"

/*
 * What ParticipantPrepare() has the server look at, after the transaction id.
 * pg_catalog comes first in every name look-up of postgres_fdw's sessions, but a
 * function may have changed that.
 */
#define SET_CONFIG	"pg_catalog.set_config"
#define SETTING		"pg_catalog.current_setting"
#define SESSION_ROLE \
	"CASE WHEN current_user OPERATOR(pg_catalog.<>) session_user" \
	" THEN " SET_CONFIG "('role', 'none', false) END"
#define OTHER_ROLE \
	"CASE WHEN current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(%u)" \
	" AND pg_catalog.pg_has_role(session_user, %u, 'MEMBER')" \
	" THEN " SET_CONFIG "('role', pg_catalog.pg_get_userbyid(%u)::pg_catalog.text, false) END"
#define SETTINGS \
	"CASE WHEN " SETTING "('statement_timeout') OPERATOR(pg_catalog.<>) '0'" \
	" THEN " SET_CONFIG "('statement_timeout', '0', false) END, " \
	"CASE WHEN " SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error'" \
	" THEN " SET_CONFIG "('client_min_messages', 'warning', false) END"
#define CAUTIOUS_SETTINGS \
	SET_CONFIG "('statement_timeout', '0', false), " \
	SET_CONFIG "('client_min_messages', 'warning', false)"

/* What ParticipantIntroduce() asks first: see ParticipantPrepare(). */
#define ASK_SESSION \
	"SELECT CASE WHEN current_user OPERATOR(pg_catalog.=) session_user" \
	" THEN 0::pg_catalog.oid ELSE" \
	" pg_catalog.quote_ident(current_user)::pg_catalog.regrole::pg_catalog.oid END, " \
	SETTING "('statement_timeout') OPERATOR(pg_catalog.<>) '0' OR " \
	SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error'; "

/* Columns of the answer to the question in ParticipantPrepare(). */
#define PREPARE_COLUMNS	4

typedef struct ParticipantEntry
{
	PGconn	   *conn;			/* hash key */
	Participant *participant;
} ParticipantEntry;

/* All connections of postgres_fdw in this backend. */
static HTAB *participants = NULL;

/* The last number that was given to a connection. */
static uint64 last_serial = 0;

/* Participants that have a wait_set; is there no room for more? */
static int	nwait_sets = 0;
static bool no_more_wait_sets = false;

static void receive_notice(void *arg, const PGresult *result);
static void ignore_notice(void *arg, const PGresult *result);
static bool is_answer(const PGresult *result, int columns);
static bool send_command(Participant *p, const char *command,
						 ParticipantState next);
static bool ask_idle(Participant *p, IdleQuestion question,
					 const char *command);
static void reply_complete(Participant *p);
static void take_identity(Participant *p, const PGresult *result);
static bool confirms(const Participant *p, const PGresult *result);
static bool is_gone(const PGresult *result);
static bool take_owed(Participant *p, PGresult *result, bool ended);
static bool run_setup(Participant *p, uint32 wait_event);
static void make_wait_set(Participant *p);
static void free_wait_set(Participant *p);
static bool descriptors_left(int n);
static bool is_copy(const PGresult *result);
static void set_error(Participant *p, const char *fallback);
static void forget_parameters(Participant *p);
static bool options_match(const Participant *p, List *server_options,
						  List *mapping_options);
static const char *find_option(List *options, const char *keyword);
static bool is_own_parameter(const char *keyword);
static bool is_libpq_option(const char *name);
static bool mapping_in_use(Oid umid, const Participant *except);

/*
 * The participant of a connection, or NULL if postgres_fdw did not make it.
 */
Participant *
ParticipantFind(PGconn *conn)
{
	ParticipantEntry *entry;

	if (participants == NULL)
		return NULL;
	entry = hash_search(participants, &conn, HASH_FIND, NULL);
	return entry ? entry->participant : NULL;
}

/*
 * postgres_fdw is about to make a connection with these parameters.  Throws if
 * out of memory.
 */
Participant *
ParticipantCreate(const char *const *keywords, const char *const *values)
{
	MemoryContext old = CurrentMemoryContext;
	Participant *p;

	if (participants == NULL)
	{
		HASHCTL		ctl;

		ctl.keysize = sizeof(PGconn *);
		ctl.entrysize = sizeof(ParticipantEntry);
		ctl.hcxt = TopMemoryContext;
		participants = hash_create("pg_dtx participants", 16, &ctl,
								   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}

	p = MemoryContextAllocZero(TopMemoryContext, sizeof(Participant));
	PG_TRY();
	{
		int			n = 0;

		MemoryContextSwitchTo(TopMemoryContext);
		p->serial = ++last_serial;
		p->last_start = DtxNow();
		while (keywords[n] != NULL)
			n++;
		p->values = palloc0(sizeof(char *) * (n + 1));
		p->keywords = palloc0(sizeof(char *) * (n + 1));
		for (int i = 0; i < n; i++)
		{
			p->keywords[i] = pstrdup(keywords[i]);
			p->values[i] = values[i] ? pstrdup(values[i]) : NULL;
		}
		MemoryContextSwitchTo(old);
	}
	PG_CATCH();
	{
		ParticipantDestroy(p);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return p;
}

/*
 * The connection exists.  Throws if out of memory.
 */
void
ParticipantAttach(Participant *p, PGconn *conn)
{
	ParticipantEntry *entry;
	bool		found;

	DTX_FAULT("attach", conn);
	entry = hash_search(participants, &conn, HASH_ENTER, &found);
	Assert(!found);
	p->conn = conn;
	entry->participant = p;
	p->notice_receiver = PQsetNoticeReceiver(conn, receive_notice, p);
}

/*
 * Forget a connection; the caller closes it.  The participant must not be in
 * the coordinator's list any more.  Does not throw.
 */
void
ParticipantDestroy(Participant *p)
{
	if (p->conn != NULL)
	{
		hash_search(participants, &p->conn, HASH_REMOVE, NULL);
		(void) PQsetNoticeReceiver(p->conn, ignore_notice, NULL);
	}
	PQclear(p->result);
	PQclear(p->answer);
	StatementForgetAll(p);
	DtxInterposeForgetFirst(p);
	forget_parameters(p);
	free_wait_set(p);
	if (p->setup != NULL)
		pfree(p->setup);
	if (p->endpoint_text != NULL)
		pfree(p->endpoint_text);
	pfree(p);
}

/*
 * The parameters have passwords among them: don't keep them longer than needed.
 */
static void
forget_parameters(Participant *p)
{
	for (int i = 0; p->keywords != NULL && p->keywords[i] != NULL; i++)
	{
		pfree(p->keywords[i]);
		if (p->values[i] != NULL)
		{
			explicit_bzero(p->values[i], strlen(p->values[i]));
			pfree(p->values[i]);
		}
	}
	if (p->keywords != NULL)
		pfree(p->keywords);
	if (p->values != NULL)
		pfree(p->values);
	p->keywords = p->values = NULL;
}

/*
 * Call a function for every connection.  It may destroy the one it is given.
 */
void
ParticipantForEach(void (*callback) (Participant *p))
{
	HASH_SEQ_STATUS scan;
	ParticipantEntry *entry;

	if (participants == NULL)
		return;
	hash_seq_init(&scan, participants);
	while ((entry = hash_seq_search(&scan)) != NULL)
		callback(entry->participant);
}

/*
 * Connections of postgres_fdw in this backend, those included that it has closed and
 * that are still needed.
 */
int
ParticipantCount(void)
{
	return participants == NULL ? 0 : (int) hash_get_num_entries(participants);
}

/*
 * Is the remote transaction out of postgres_fdw's hands?
 */
bool
ParticipantControlled(const Participant *p)
{
	return p->state >= PARTICIPANT_ENDING;
}

/*
 * Make the participant ready for its next remote transaction.
 */
void
ParticipantReset(Participant *p)
{
	p->state = PARTICIPANT_IDLE;
	p->used = false;
	p->seen = false;
	p->wrote = false;
	p->asked = false;
	p->index = -1;
	p->error[0] = '\0';
	p->start_command[0] = '\0';
	p->start_due = false;
	p->start_again = false;
	DtxInterposeForgetFirst(p);
	p->ncloses = 0;
	if (!p->reply_due)
	{
		PQclear(p->result);
		p->result = NULL;
	}
}

/*
 * In pipeline mode: send what was put off, START TRANSACTION and CLOSE, which has
 * to come before the caller's command.  Returns how many commands that were, or -1
 * if one could not be sent.
 *
 * The server is told to reply to START TRANSACTION at once, not with the rest: if
 * the connection is lost, that reply tells whether it was dead before, and nothing
 * has been done, or whether it died of what came next.
 */
int
ParticipantSendPending(Participant *p)
{
	int			n = 0;

	if (p->start_command[0] != '\0')
	{
		if (!PQsendQueryParams(p->conn, p->start_command, 0, NULL, NULL, NULL,
							   NULL, 0) ||
			!PQsendFlushRequest(p->conn))
			return -1;
		p->start_command[0] = '\0';
		p->start_due = true;
		n++;
	}
	for (int i = 0; i < p->ncloses; i++)
	{
		char		command[32];

		snprintf(command, sizeof(command), "CLOSE c%u", p->closes[i]);
		if (!PQsendQueryParams(p->conn, command, 0, NULL, NULL, NULL, NULL, 0))
			return -1;
		n++;
	}
	p->ncloses = 0;
	return n;
}

/* ----------------------------------------------------------------
 * Notices
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw tells what to do with the notices of a connection (19 on; before
 * that libpq writes them to stderr).  Returns what was to be done before.
 */
PQnoticeReceiver
ParticipantPassNotices(Participant *p, PQnoticeReceiver proc, void *arg)
{
	PQnoticeReceiver old = p->notice_receiver;

	p->notice_receiver = proc;
	p->notice_arg = arg;
	return old;
}

/*
 * A notice, as libpq comes across it, which is before the result of the command
 * that it belongs to.
 *
 * A server whose wait for a synchronous standby was cut short, by a cancel, a
 * time-out or a termination, says so in a WARNING and then reports success
 * (replication/syncrep.c, SyncRepWaitForLSN).  Its text may be translated, and one
 * of its two SQLSTATEs is that of every warning.  PREPARE may bring warnings of
 * triggers as well, so there it is recognised by the function that it comes from,
 * which is not translated; COMMIT PREPARED runs nothing of a user's, and there any
 * warning means that more is not known.
 *
 * Does not throw for what is ours: it is called after the local commit, too.
 */
static void
receive_notice(void *arg, const PGresult *result)
{
	Participant *p = (Participant *) arg;
	bool		preparing = p->state == PARTICIPANT_PREPARING;

	if (preparing || p->state == PARTICIPANT_FINISHING || p->owing)
	{
		const char *severity = PQresultErrorField(result, PG_DIAG_SEVERITY_NONLOCALIZED);
		const char *function = PQresultErrorField(result, PG_DIAG_SOURCE_FUNCTION);

		/* Before 9.6 there is but the translated one: any notice counts then. */
		if ((severity == NULL || strcmp(severity, "WARNING") == 0) &&
			(!preparing ||
			 (function != NULL && strcmp(function, "SyncRepWaitForLSN") == 0)))
			p->warned = true;
		if (!preparing || p->warned)
			return;
	}
	if (p->notice_receiver != NULL)
		p->notice_receiver(p->notice_arg, result);
}

/* libpq's own may write to stderr when the connection is closed. */
static void
ignore_notice(void *arg, const PGresult *result)
{
}

/* ----------------------------------------------------------------
 * Waiting
 * ----------------------------------------------------------------
 */

/*
 * Wait for input on a connection, the latch, or the end of timeout_ms
 * milliseconds (-1: no limit).  Returns what has happened, as WaitLatchOrSocket()
 * does; likewise the process exits if the postmaster has died.
 *
 * WaitLatchOrSocket() (storage/ipc/latch.c) makes and closes an epoll instance
 * each time: that takes more system calls than all the rest of a round trip.
 * Here it is kept with the connection.  Throws if there is no descriptor left.
 */
int
ParticipantWait(Participant *p, long timeout_ms, uint32 wait_event)
{
	WaitEvent	event;

	if (p->wait_set == NULL || p->wait_socket != PQsocket(p->conn))
		make_wait_set(p);
	if (p->wait_set == NULL)
		return WaitLatchOrSocket(MyLatch,
								 WL_LATCH_SET | WL_SOCKET_READABLE |
								 WL_EXIT_ON_PM_DEATH |
								 (timeout_ms >= 0 ? WL_TIMEOUT : 0),
								 PQsocket(p->conn), timeout_ms, wait_event);

	if (WaitEventSetWait(p->wait_set, timeout_ms, &event, 1, wait_event) == 0)
		return WL_TIMEOUT;
	return event.events;
}

/*
 * Make the set of a connection, if there is a socket and room for it.
 */
static void
make_wait_set(Participant *p)
{
	WaitEventSet *set;

	/* (not always: it forgets that there was no room) */
	if (p->wait_set != NULL)
		free_wait_set(p);
	if (PQsocket(p->conn) < 0 || nwait_sets >= MAX_WAIT_SETS ||
		no_more_wait_sets)
		return;
	if (!descriptors_left(MAX_WAIT_SETS))
	{
		/* Until a connection is closed: asking is not cheap. */
		no_more_wait_sets = true;
		return;
	}

	set = DtxCreateWaitEventSet(3);
	PG_TRY();
	{
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		DtxAddPostmasterDeath(set, WL_EXIT_ON_PM_DEATH);
		AddWaitEventToSet(set, WL_SOCKET_READABLE, PQsocket(p->conn), NULL,
						  NULL);
	}
	PG_CATCH();
	{
		FreeWaitEventSet(set);
		PG_RE_THROW();
	}
	PG_END_TRY();
	p->wait_set = set;
	p->wait_socket = PQsocket(p->conn);
	nwait_sets++;
}

/*
 * The connection is closed, or has another socket now.
 */
static void
free_wait_set(Participant *p)
{
	no_more_wait_sets = false;
	if (p->wait_set == NULL)
		return;
	FreeWaitEventSet(p->wait_set);
	p->wait_set = NULL;
	nwait_sets--;
}

/*
 * Could so many more descriptors be had?
 */
static bool
descriptors_left(int n)
{
	int			got = 0;

	while (got < n && AcquireExternalFD())
		got++;
	for (int i = 0; i < got; i++)
		ReleaseExternalFD();
	return got == n;
}

/* ----------------------------------------------------------------
 * Identity
 * ----------------------------------------------------------------
 */

/*
 * Find out which foreign server and user mapping a connection belongs to.
 *
 * postgres_fdw builds the connection parameters from the options of the server
 * and of the mapping (contrib/postgres_fdw/connection.c, connect_pg_server),
 * so what it gave to libpq is compared with the options in the catalogs.  Of
 * several mappings that fit, one of a superuser's server wins: who may make servers
 * could otherwise make one that looks the same, take transactions for it, and then
 * drop or move it.  Then one that has no connection yet, because postgres_fdw makes one
 * per mapping; then the current user's.  All of them lead to the same place as the same
 * remote user, so that each will do to finish the transaction.
 *
 * To be called in a transaction, but not while postgres_fdw believes that the
 * connection has no remote transaction: reading a catalog may process
 * invalidations, and postgres_fdw closes idle connections then
 * (pgfdw_inval_callback).  Leaves p->identified false if nothing fits.  May
 * throw what a catalog scan throws.
 */
void
ParticipantIdentify(Participant *p)
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			best_score = -1;

	if (p->identified || p->keywords == NULL)
		return;

	rel = table_open(UserMappingRelationId, AccessShareLock);
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_user_mapping form = (Form_pg_user_mapping) GETSTRUCT(tuple);
		ForeignServer *server;
		Datum		options;
		bool		isnull;
		int			score = 0;

		/* Any of them may be dropped by somebody else in this moment. */
		server = GetForeignServerExtended(form->umserver, FSV_MISSING_OK);
		if (server == NULL || !DtxWrapperIsPostgresFdw(server->fdwid))
			continue;

		options = heap_getattr(tuple, Anum_pg_user_mapping_umoptions,
							   RelationGetDescr(rel), &isnull);
		if (!options_match(p, server->options,
						   isnull ? NIL : untransformRelOptions(options)))
			continue;

		if (superuser_arg(server->owner))
			score += 4;
		if (!mapping_in_use(form->oid, p))
			score += 2;
		if (form->umuser == GetUserId())
			score += 1;

		if (score > best_score)
		{
			best_score = score;
			p->serverid = server->serverid;
			p->umid = form->oid;
			strlcpy(p->server_name, server->servername, NAMEDATALEN);
			if (p->endpoint_text != NULL)
				pfree(p->endpoint_text);
			p->endpoint_text = MemoryContextStrdup(TopMemoryContext,
												   DtxEndpointText(server->options,
																   isnull ? NIL : untransformRelOptions(options)));
			p->endpoint_of = 0;
			p->identified = true;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (p->identified)
		forget_parameters(p);
}

/*
 * Do these options make the parameters of the connection?
 */
static bool
options_match(const Participant *p, List *server_options, List *mapping_options)
{
	int			n = 0;
	ListCell   *lc;

	/* Each parameter must come from an option; the last one given counts. */
	for (int i = 0; p->keywords[i] != NULL; i++)
	{
		const char *keyword = p->keywords[i];
		const char *option;

		if (is_own_parameter(keyword))
			continue;
		n++;
		option = find_option(mapping_options, keyword);
		if (option == NULL || strcmp(option, p->values[i] ? p->values[i] : "") != 0)
			option = find_option(server_options, keyword);
		if (option == NULL || strcmp(option, p->values[i] ? p->values[i] : "") != 0)
			return false;
	}

	/* And there must be no option that would have made another one. */
	foreach(lc, server_options)
	{
		if (is_libpq_option(((DefElem *) lfirst(lc))->defname))
			n--;
	}
	foreach(lc, mapping_options)
	{
		if (is_libpq_option(((DefElem *) lfirst(lc))->defname))
			n--;
	}
	return n == 0;
}

static const char *
find_option(List *options, const char *keyword)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, keyword) == 0)
			return defGetString(def);
	}
	return NULL;
}

/*
 * Parameters that postgres_fdw sets or changes of its own accord.
 */
static bool
is_own_parameter(const char *keyword)
{
	static const char *const own[] = {
		"application_name", "fallback_application_name", "client_encoding",
		"scram_client_key", "scram_server_key", "require_auth"
	};

	for (int i = 0; i < lengthof(own); i++)
	{
		if (strcmp(keyword, own[i]) == 0)
			return true;
	}
	return false;
}

/*
 * Does postgres_fdw pass this option on to libpq?  As in
 * contrib/postgres_fdw/option.c, libpq itself is asked, once per backend.
 */
static bool
is_libpq_option(const char *name)
{
	static PQconninfoOption *known = NULL;

	if (is_own_parameter(name))
		return false;
	if (known == NULL)
		known = PQconndefaults();
	if (known == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OUT_OF_MEMORY),
				 errmsg("out of memory"),
				 errdetail("Could not get libpq's default connection options.")));
	for (PQconninfoOption *option = known; option->keyword; option++)
	{
		if (strcmp(option->keyword, name) == 0)
			return true;
	}
	return false;
}

static bool
mapping_in_use(Oid umid, const Participant *except)
{
	HASH_SEQ_STATUS scan;
	ParticipantEntry *entry;
	bool		in_use = false;

	hash_seq_init(&scan, participants);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		Participant *p = entry->participant;

		if (p != except && p->identified && !p->abandoned && !p->broken &&
			p->umid == umid)
			in_use = true;
	}
	return in_use;
}

/* ----------------------------------------------------------------
 * Steps
 * ----------------------------------------------------------------
 */

/*
 * Send a command whose reply is ours to receive.  Returns false, in state
 * UNKNOWN, if it could not be sent.
 */
static bool
send_command(Participant *p, const char *command, ParticipantState next)
{
	PQclear(p->result);
	p->result = NULL;
	p->state = next;
	if (PQsendQuery(p->conn, command))
	{
		p->reply_due = true;
		p->reads = 0;
		return true;
	}
	p->reply_due = false;
	set_error(p, "could not send a command");
	p->broken = true;
	return false;
}

/*
 * Ask a connection without a transaction what the session is like, see
 * ParticipantPrepare(), which cluster it leads to, and which timeline that is on.  A
 * foreign server may be made to lead elsewhere later, and what is not seen there
 * proves nothing.  A server that does not tell (privileges) stays unknown.
 */
bool
ParticipantIntroduce(Participant *p)
{
	p->introduced = true;
	return ask_idle(p, QUESTION_IDENTITY, PQserverVersion(p->conn) >= 100000 ?
					ASK_SESSION DTX_IDENTIFY : ASK_SESSION DTX_IDENTIFY_OLD);
}

/*
 * Ask a connection without a transaction whether a gid is prepared on the cluster
 * that it leads to.  When the reply is in, p->not_prepared says that it is not for
 * sure.  Returns false if the question could not be sent.
 */
bool
ParticipantAskPrepared(Participant *p, const DtxGid *gid)
{
	char		text[DTX_GID_SIZE];
	char		command[DTX_GID_SIZE + 128];

	p->not_prepared = false;
	DtxGidFormat(gid, text);
	snprintf(command, sizeof(command),
			 "SELECT pg_catalog.count(*) FROM pg_catalog.pg_prepared_xacts WHERE gid OPERATOR(pg_catalog.=) '%s'",
			 text);
	return ask_idle(p, QUESTION_PREPARED, command);
}

/*
 * Send a question whose answer is one number.  Returns false if that failed.
 */
static bool
ask_idle(Participant *p, IdleQuestion question, const char *command)
{
	PQclear(p->result);
	p->result = NULL;
	p->reads = 0;
	p->question = question;
	p->reply_due = PQsendQuery(p->conn, command) != 0;
	if (!p->reply_due)
		p->broken = true;
	return p->reply_due;
}

/*
 * Ask an open remote transaction whether it wrote.  A server that can't tell
 * counts as a writer, and nothing is sent.  Returns false if sending failed.
 */
bool
ParticipantAsk(Participant *p)
{
	if (PQserverVersion(p->conn) < 100000)
	{
		p->wrote = true;
		return true;
	}

	/*
	 * The name that all versions since 10 know.
	 *
	 * A server that is a coordinator itself has no transaction id if it wrote on
	 * other servers only.  It counts as a writer, and PREPARE will fail: better
	 * than to commit there before the others have prepared.
	 */
	return send_command(p, "SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL OR"
						" COALESCE(pg_catalog.current_setting('pg_dtx.wrote_elsewhere', true), '')"
						" OPERATOR(pg_catalog.=) 'on'",
						PARTICIPANT_ASKED);
}

/*
 * Commit an open remote transaction that did not write, in one phase.
 */
bool
ParticipantEnd(Participant *p)
{
	return send_command(p, "COMMIT TRANSACTION", PARTICIPANT_ENDING);
}

/*
 * Prepare an open remote transaction under a gid.  All commands that may be
 * needed later are built here.
 *
 * What the second phase relies on is established in the same message, at the cost
 * of no round trip.  We are in a transaction block, so all of it belongs to the
 * transaction, and if something fails the rest is not executed.
 *
 * - Deferred triggers run first, as they are, so that what follows finds the session
 *	 as they have left it.
 * - The server tells its transaction id, from which it can tell later how the
 *	 transaction ended if somebody else finished it.
 * - The current role is the one as which connections through this user mapping
 *	 begin.  It will be the owner of the prepared transaction, and nobody but the
 *	 owner may finish it (access/transam/twophase.c, LockGXact).  A trigger or
 *	 function may have set another one, until the end of the transaction or longer.
 *	 (Only a superuser can have changed the session user; then any role will do.)
 * - No time-out of the session cuts short the wait of COMMIT PREPARED for a
 *	 synchronous standby (PostgreSQL turns statement_timeout off for COMMIT only), and
 *	 it says so if something else has done that, see receive_notice().  This lasts
 *	 beyond the transaction, and ParticipantDeallocate() takes it back.
 */
bool
ParticipantPrepare(Participant *p, const DtxGid *gid)
{
	char		role[sizeof(OTHER_ROLE) + 3 * 10];
	char		command[sizeof(DTX_PREPARE_HEAD) + sizeof(role) +
						Max(sizeof(SETTINGS), sizeof(CAUTIOUS_SETTINGS)) +
						2 * DTX_GID_SIZE + 128 + DTX_MAX_CLOSES * 20];
	int			len = 0;

	p->gid = *gid;
	p->remote_xid = 0;
	p->warned = false;
	DtxGidFormat(gid, p->gid_text);

	/* Deferred triggers may mind open cursors. */
	for (int i = 0; i < p->ncloses; i++)
		len += snprintf(command + len, sizeof(command) - len, "CLOSE c%u; ",
						p->closes[i]);
	p->ncloses = 0;
	if (OidIsValid(p->default_role))
		snprintf(role, sizeof(role), OTHER_ROLE, p->default_role,
				 p->default_role, p->default_role);
	else
		strlcpy(role, SESSION_ROLE, sizeof(role));
	snprintf(command + len, sizeof(command) - len,
			 DTX_PREPARE_HEAD "%s */ %s, %s, %s; PREPARE TRANSACTION '%s'",
			 p->gid_text,
			 PQserverVersion(p->conn) >= 100000 ?
			 "pg_catalog.txid_current_if_assigned()" : "NULL",
			 role, p->cautious ? CAUTIOUS_SETTINGS : SETTINGS, p->gid_text);
	snprintf(p->commit_command, sizeof(p->commit_command),
			 "COMMIT PREPARED '%s'", p->gid_text);
	snprintf(p->rollback_command, sizeof(p->rollback_command),
			 "ROLLBACK PREPARED '%s'", p->gid_text);

	if (send_command(p, command, PARTICIPANT_PREPARING))
		return true;

	/* Part of it may have reached the server all the same. */
	p->state = PARTICIPANT_UNKNOWN;
	return false;
}

/*
 * Finish a prepared transaction.  With "pipeline", other commands can be sent
 * before the reply has come.  Does not throw.
 */
bool
ParticipantFinish(Participant *p, DtxDecision decision, bool pipeline)
{
	const char *command = decision == DTX_COMMIT ?
		p->commit_command : p->rollback_command;

	p->decision = decision;
	p->warned = false;
	if (!pipeline)
	{
		if (send_command(p, command, PARTICIPANT_FINISHING))
			return true;
	}
	else
	{
		PQclear(p->result);
		p->result = NULL;
		p->reads = 0;
		if (PQenterPipelineMode(p->conn) &&
			PQsendQueryParams(p->conn, command, 0, NULL, NULL, NULL, NULL, 0) &&
			PQpipelineSync(p->conn))
		{
			p->state = PARTICIPANT_FINISHING;
			p->reply_due = true;
			p->pipelined = true;
			return true;
		}
		set_error(p, "could not send a command");
		p->broken = true;
	}
	p->state = PARTICIPANT_UNFINISHED;
	return false;
}

/*
 * Take in what has arrived on the connection, and if a reply of ours is
 * complete, go to the state that it means.  Does not wait and does not throw.
 */
void
ParticipantReceive(Participant *p)
{
	bool		ended = false;	/* was the last result a NULL? */

	/* On failure PQgetResult() below says so, with an error result. */
	(void) PQconsumeInput(p->conn);

	if (!p->reply_due)
		return;
	if (++p->reads > MAX_READS)
	{
		ParticipantGiveUp(p, "the server sends more than it was asked for");
		return;
	}

	while (!PQisBusy(p->conn))
	{
		PGresult   *result = PQgetResult(p->conn);

		if (result == NULL)
		{
			/* In a pipeline, one NULL ends a command, two are the end. */
			if (p->pipelined && !ended && PQstatus(p->conn) != CONNECTION_BAD)
			{
				ended = true;
				continue;
			}
			if (p->pipelined)
				p->broken = true;
			reply_complete(p);
			return;
		}
		ended = false;
		if (PQresultStatus(result) == PGRES_PIPELINE_SYNC)
		{
			PQclear(result);
			if (!PQexitPipelineMode(p->conn))
				p->broken = true;
			reply_complete(p);
			return;
		}
		if (p->state == PARTICIPANT_PREPARING && is_answer(result, PREPARE_COLUMNS))
		{
			p->remote_xid = DtxNumberParse(PQgetvalue(result, 0, 0), PG_INT64_MAX);
			if (!PQgetisnull(result, 0, 2) || !PQgetisnull(result, 0, 3))
				p->reset_due = true;
		}
		else if (p->question == QUESTION_IDENTITY && is_answer(result, 1))
			take_identity(p, result);
		else if (p->question == QUESTION_IDENTITY && is_answer(result, 2))
		{
			p->default_role = (Oid) DtxNumberParse(PQgetvalue(result, 0, 0),
												   PG_UINT32_MAX);
			p->cautious = PQgetvalue(result, 0, 1)[0] == 't';
		}
		PQclear(p->result);
		p->result = result;

		/*
		 * An error in a pipeline is the reply already.  If it says that the
		 * server goes down, nothing else is going to come.
		 */
		if (p->pipelined && PQresultStatus(result) == PGRES_FATAL_ERROR)
			p->broken = true;
		if (PQstatus(p->conn) == CONNECTION_BAD || is_copy(result) || p->broken)
		{
			reply_complete(p);
			return;
		}
	}
}

/* Is this one row of so many columns? */
static bool
is_answer(const PGresult *result, int columns)
{
	return PQresultStatus(result) == PGRES_TUPLES_OK &&
		PQntuples(result) == 1 && PQnfields(result) == columns;
}

/*
 * A row of the reply to ParticipantIntroduce(): the name of a WAL file, or a system
 * identifier.  A server that does not tell leaves 0.
 */
static void
take_identity(Participant *p, const PGresult *result)
{
	const char *value = PQgetvalue(result, 0, 0);
	uint64		timeline = DtxTimelineParse(value);

	if (timeline != 0)
		p->timeline = timeline;
	else
		p->system_id = DtxNumberParse(value, PG_UINT64_MAX);
}

/*
 * A server that wants to copy data, which nobody has asked for, is not one to go
 * on with: libpq would return such results for ever.
 */
static bool
is_copy(const PGresult *result)
{
	ExecStatusType status = PQresultStatus(result);

	return status == PGRES_COPY_IN || status == PGRES_COPY_OUT ||
		status == PGRES_COPY_BOTH;
}

static void
reply_complete(Participant *p)
{
	bool		lost = PQstatus(p->conn) == CONNECTION_BAD || is_copy(p->result);
	ExecStatusType status = PQresultStatus(p->result);

	p->reply_due = false;
	p->pipelined = false;
	if (lost)
	{
		p->broken = true;
		if (PQsocket(p->conn) >= 0)
			(void) shutdown(PQsocket(p->conn), SHUT_RDWR);
	}

	switch (p->state)
	{
		case PARTICIPANT_ASKED:
			if (!lost && status == PGRES_TUPLES_OK &&
				PQntuples(p->result) == 1 && PQnfields(p->result) == 1)
			{
				/* anything but a clear no */
				p->wrote = strcmp(PQgetvalue(p->result, 0, 0), "f") != 0;
				p->asked = true;
				p->state = PARTICIPANT_OPEN;
			}
			else
				set_error(p, lost ? "connection lost" : "unexpected reply");
			break;

		case PARTICIPANT_ENDING:

			/*
			 * The server answers COMMIT in a failed transaction with success
			 * and the tag ROLLBACK.
			 */
			if (!lost && status == PGRES_COMMAND_OK &&
				strcmp(PQcmdStatus(p->result), "COMMIT") == 0)
				p->state = PARTICIPANT_ENDED;
			else
				set_error(p, lost ? "connection lost" :
						  "transaction was rolled back by the server");
			break;

		case PARTICIPANT_PREPARING:

			/* Likewise for PREPARE: only the tag is proof. */
			if (!lost && status == PGRES_COMMAND_OK &&
				strcmp(PQcmdStatus(p->result), "PREPARE TRANSACTION") == 0)
			{
				p->state = PARTICIPANT_PREPARED;

				/*
				 * What a failover would lose must not be committed.  ROLLBACK
				 * PREPARED would wait for the same standby: the resolver knows
				 * how to do without.
				 */
				if (p->warned)
				{
					p->state = PARTICIPANT_UNKNOWN;
					set_error(p, PREPARE_NOT_REPLICATED);
				}
			}
			else if (lost)
			{
				p->state = PARTICIPANT_UNKNOWN;
				set_error(p, "connection lost");
			}
			else
			{
				p->state = PARTICIPANT_NOT_PREPARED;
				set_error(p, "transaction was rolled back by the server");

				/*
				 * If the command before PREPARE failed, the aborted
				 * transaction is still open.  Nobody is going to end it, so
				 * the connection can't be used again.
				 */
				if (PQtransactionStatus(p->conn) != PQTRANS_IDLE)
					p->broken = true;
			}
			break;

		case PARTICIPANT_FINISHING:
			if (!lost && confirms(p, p->result))
				p->state = PARTICIPANT_FINISHED;
			else
			{
				p->state = PARTICIPANT_UNFINISHED;
				set_error(p, !lost && p->warned ? COMMIT_NOT_REPLICATED :
						  "connection lost");
			}
			break;

		default:
			/* the answer to a question, or the reply to ParticipantDeallocate() */
			if (p->question == QUESTION_PREPARED && !lost &&
				is_answer(p->result, 1))
				p->not_prepared = strcmp(PQgetvalue(p->result, 0, 0), "0") == 0;
			if (p->question == QUESTION_SETUP && status != PGRES_COMMAND_OK)
				p->broken = true;
			p->question = QUESTION_NONE;
			PQclear(p->result);
			p->result = NULL;
			break;
	}
}

/*
 * Is this the confirmation of what ParticipantFinish() has sent?  A rollback that
 * a failover of the server loses is done again.
 */
static bool
confirms(const Participant *p, const PGresult *result)
{
	return PQresultStatus(result) == PGRES_COMMAND_OK &&
		!(p->warned && p->decision == DTX_COMMIT) &&
		strcmp(PQcmdStatus((PGresult *) result),
			   p->decision == DTX_COMMIT ?
			   "COMMIT PREPARED" : "ROLLBACK PREPARED") == 0;
}

/*
 * The confirmation of what ParticipantFinish() has sent has not come, but another
 * reply: is the outcome visible on the server all the same?  It is if somebody else
 * has finished it, and if the server has not waited for its standby.
 */
bool
ParticipantOutcomeVisible(const Participant *p)
{
	return p->state == PARTICIPANT_UNFINISHED && !p->broken &&
		(is_gone(p->result) ||
		 (p->warned && PQresultStatus(p->result) == PGRES_COMMAND_OK));
}

/*
 * Does the reply to COMMIT PREPARED say that there is no such transaction?
 */
static bool
is_gone(const PGresult *result)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);

	return sqlstate != NULL && strcmp(sqlstate, SQLSTATE_GONE) == 0;
}

/*
 * Take in what a pipeline whose sender was interrupted still has to say, and
 * leave pipeline mode when that is over.  Returns false while results are
 * missing.  Does not wait and does not throw.
 *
 * postgres_fdw gets here in its abort cleanup: it sees a busy connection,
 * cancels the command, and waits for the end of the results, with deadlines of
 * its own.
 */
bool
ParticipantDrain(Participant *p)
{
	bool		ended = false;	/* was the last result a NULL? */

	while (p->piped)
	{
		PGresult   *result;
		bool		synced;

		if (PQstatus(p->conn) == CONNECTION_BAD)
		{
			p->piped = false;
			p->broken = true;
			break;
		}
		if (PQisBusy(p->conn))
			return false;
		result = PQgetResult(p->conn);
		if (result == NULL)
		{
			/* one NULL ends a command, two are the end of everything */
			if (ended)
			{
				p->piped = false;
				p->broken = true;
			}
			ended = true;
			continue;
		}
		ended = false;
		synced = PQresultStatus(result) == PGRES_PIPELINE_SYNC;
		if (is_copy(result))
		{
			p->piped = false;
			p->broken = true;
		}
		PQclear(result);
		if (synced)
		{
			p->piped = false;
			if (!PQexitPipelineMode(p->conn) ||
				PQsetnonblocking(p->conn, 0) != 0)
				p->broken = true;
		}
	}
	return true;
}

/*
 * Is nothing to be heard on an idle connection?  If something is, then most
 * likely that the server has closed it.  Does not throw.
 */
bool
ParticipantQuiet(Participant *p)
{
	struct pollfd pfd;

	pfd.fd = PQsocket(p->conn);
	pfd.events = POLLIN;
	pfd.revents = 0;
	return pfd.fd >= 0 && PQtransactionStatus(p->conn) == PQTRANS_IDLE &&
		poll(&pfd, 1, 0) == 0;
}

/*
 * A command of postgres_fdw was sent with START TRANSACTION, or the preparation
 * of the command, before it.  Take in the results of all; when they are complete,
 * leave pipeline mode, make the wrappers give postgres_fdw the one result that it
 * expects, and return true.  Returns false while results are missing, unless
 * "wait".  Does not throw.
 *
 * The one result is that of the command, or of the first that has failed.
 * postgres_fdw sends one statement at a time, and takes its rows together.
 *
 * The reply that an earlier transaction owes comes first of all.  If it is not
 * the confirmation, the command may not have seen what that transaction did: then
 * p->start_again says that it has to be sent again on another connection, and if
 * that can't be done it fails, too.  If the transaction does not exist any more,
 * somebody has finished it before, and the command has seen the outcome.
 */
bool
ParticipantUnfold(Participant *p, bool wait)
{
	bool		ended = false;	/* was the last result a NULL? */

	while (p->folded)
	{
		PGresult   *result;
		ExecStatusType status;

		if (!wait && PQisBusy(p->conn))
			return false;
		result = PQgetResult(p->conn);
		status = PQresultStatus(result);
		if (p->owing && take_owed(p, result, ended))
		{
			ended = result == NULL;
			continue;
		}
		if (PQstatus(p->conn) == CONNECTION_BAD || status == PGRES_PIPELINE_SYNC ||
			is_copy(result) || (result == NULL && ended))
		{
			p->folded = false;
			if (status == PGRES_PIPELINE_SYNC)
				PQclear(result);
			else if (result != NULL)
			{
				PQclear(p->answer);
				p->answer = result;
			}
			if (PQstatus(p->conn) != CONNECTION_BAD &&
				(status != PGRES_PIPELINE_SYNC || !PQexitPipelineMode(p->conn)))
				p->broken = true;
			if (p->answer == NULL)
				p->answer = PQmakeEmptyPGresult(p->conn, PGRES_FATAL_ERROR);
			p->synthetic = 2;
			break;
		}

		ended = result == NULL;
		if (result == NULL)
			continue;
		if (status == PGRES_COMMAND_OK)
			p->start_due = false;
		if (status == PGRES_PIPELINE_ABORTED ||
			(p->answer != NULL &&
			 PQresultStatus(p->answer) == PGRES_FATAL_ERROR))
			PQclear(result);
		else
		{
			PQclear(p->answer);
			p->answer = result;
		}
	}
	return true;
}

/*
 * A result, or NULL, of a connection that owes the reply to an earlier command;
 * "ended": the one before it was NULL, and two of them are the end of everything.
 * Returns false if it is the caller's, because the connection is lost.
 */
static bool
take_owed(Participant *p, PGresult *result, bool ended)
{
	ExecStatusType status = PQresultStatus(result);

	if (PQstatus(p->conn) == CONNECTION_BAD || is_copy(result) ||
		(result == NULL && ended))
	{
		p->broken = true;
		strlcpy(p->error, "connection lost", sizeof(p->error));
	}
	else if (result == NULL)
		return true;
	else if (status != PGRES_PIPELINE_SYNC)
	{
		p->confirmed = confirms(p, result);
		PQclear(p->result);
		p->result = result;
		return true;
	}
	else if (!p->confirmed && p->warned &&
			 PQresultStatus(p->result) == PGRES_COMMAND_OK)
	{
		/* It is committed, and will be seen. */
		set_error(p, COMMIT_NOT_REPLICATED);
	}
	else if (is_gone(p->result))
		set_error(p, "unexpected reply");
	else if (!p->confirmed)
	{
		p->broken = true;
		p->start_again = true;
		set_error(p, "unexpected reply");
		PQclear(p->answer);
		p->answer = PQresultStatus(p->result) == PGRES_FATAL_ERROR ? p->result :
			PQmakeEmptyPGresult(p->conn, PGRES_FATAL_ERROR);
		if (p->answer == p->result)
			p->result = NULL;
	}

	/* That was all of it. */
	p->owing = false;
	p->pipelined = false;
	p->owed_is_in = true;
	p->confirmed = p->confirmed && !p->broken;
	if (status != PGRES_PIPELINE_SYNC)
		return false;
	PQclear(result);
	return true;
}

/* ----------------------------------------------------------------
 * Making a connection anew
 * ----------------------------------------------------------------
 */

/*
 * Replace a connection that is dead, or whose remote transaction is to begin anew,
 * by another one to the same server, with the same parameters, within the same
 * PGconn, which postgres_fdw goes on using.  The session is set up as postgres_fdw
 * has set up the old one.  To be called while nothing that postgres_fdw knows of
 * exists in the session, so at the beginning of a remote transaction.
 *
 * postgres_fdw has checked how it got in (pgfdw_security_check, or connect_pg_server
 * in 15, in contrib/postgres_fdw/connection.c): who had to give a password must not
 * get in without one now.
 *
 * Waits on the latch, for the connection's connect_timeout if it has one.  Throws on
 * interrupts.  Returns false, and p->broken is set, if it failed; PQerrorMessage()
 * says why.
 */
bool
ParticipantReconnect(Participant *p, uint32 wait_event)
{
	PGconn	   *conn = p->conn;
	bool		used_password = PQconnectionUsedPassword(conn) != 0;
	bool		used_gssapi = DtxConnectionUsedGssapi(conn);
	PostgresPollingStatusType status = PGRES_POLLING_WRITING;
	PQconninfoOption *options = PQconninfo(conn);
	DtxMoment	deadline = 0;

	for (PQconninfoOption *o = options; o != NULL && o->keyword != NULL; o++)
	{
		if (o->val == NULL)
			continue;
		if (strcmp(o->keyword, "connect_timeout") == 0 && atoi(o->val) > 0)
			deadline = DtxIn(Min(atoi(o->val), 86400) * 1000L);
		explicit_bzero(o->val, strlen(o->val)); /* passwords are among them */
	}
	PQconninfoFree(options);

	/* until the end is reached */
	p->broken = true;

	free_wait_set(p);
	p->serial = ++last_serial;
	StatementForgetAll(p);
	PQclear(p->result);
	PQclear(p->answer);
	p->result = p->answer = NULL;
	p->reply_due = p->pipelined = p->piped = p->folded = false;
	p->start_due = p->start_again = false;
	p->deallocate_due = p->reset_due = false;
	p->synthetic = 0;
	p->ncloses = 0;
	p->introduced = false;
	p->system_id = p->timeline = 0;
	p->default_role = InvalidOid;
	p->cautious = false;
	p->warned = false;

	if (!PQresetStart(conn))
		return false;
	while (status == PGRES_POLLING_READING || status == PGRES_POLLING_WRITING)
	{
		long		timeout = deadline == 0 ? -1 : DtxUntil(deadline);
		int			events = status == PGRES_POLLING_READING ?
			WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE;
		int			happened;

		if (timeout == 0 || PQsocket(conn) < 0)
			return false;
		happened = WaitLatchOrSocket(MyLatch,
									 WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | events |
									 (timeout >= 0 ? WL_TIMEOUT : 0),
									 PQsocket(conn), timeout, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (happened & events)
			status = PQresetPoll(conn);
	}
	if (status != PGRES_POLLING_OK ||
		(used_password && !PQconnectionUsedPassword(conn)) ||
		(used_gssapi && !DtxConnectionUsedGssapi(conn)))
		return false;

	p->broken = false;
	if (!run_setup(p, wait_event))
		p->broken = true;
	return !p->broken;
}

/*
 * Send again what postgres_fdw has sent when the connection was made.
 */
static bool
run_setup(Participant *p, uint32 wait_event)
{
	if (p->setup == NULL)
		return true;
	if (!ask_idle(p, QUESTION_SETUP, p->setup))
		return false;
	for (;;)
	{
		ParticipantReceive(p);
		if (!p->reply_due)
			return !p->broken;
		if (PQsocket(p->conn) < 0)
			return false;
		(void) ParticipantWait(p, -1, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Stop waiting for a reply.  The connection can't be used any more: a reply
 * that comes now would be taken for that of another command.  The server is
 * told by shutting the socket down; the PGconn itself is postgres_fdw's to
 * close.  Does not throw.
 */
void
ParticipantGiveUp(Participant *p, const char *error)
{
	if (p->reply_due)
	{
		p->reply_due = false;
		p->pipelined = false;
		p->broken = true;
		if (PQsocket(p->conn) >= 0)
			(void) shutdown(PQsocket(p->conn), SHUT_RDWR);
		strlcpy(p->error, error, sizeof(p->error));
	}
	if (p->state == PARTICIPANT_PREPARING)
		p->state = PARTICIPANT_UNKNOWN;
	else if (p->state == PARTICIPANT_FINISHING)
		p->state = PARTICIPANT_UNFINISHED;
}

/*
 * Do what was put off until the end of a transaction in which the connection was
 * busy with our commands: what postgres_fdw wanted, and taking back what
 * ParticipantPrepare() has changed.  The reply is received before the connection is
 * used again; as in postgres_fdw, nobody is interested in it.
 */
void
ParticipantDeallocate(Participant *p)
{
	static const char reset[] = "RESET statement_timeout; RESET client_min_messages; DEALLOCATE ALL";
	char		command[sizeof(reset)];

	if (!p->deallocate_due && !p->reset_due)
		return;
	strlcpy(command, p->reset_due ? reset : strstr(reset, "DEALLOCATE"),
			sizeof(command));
	if (!p->deallocate_due)
		*strstr(command, "; DEALLOCATE") = '\0';
	p->deallocate_due = p->reset_due = false;
	if (!p->broken && !p->reply_due && PQstatus(p->conn) == CONNECTION_OK)
	{
		p->reads = 0;
		p->reply_due = PQsendQuery(p->conn, command) != 0;
	}
}

/*
 * Keep the reason of a failure for the view and the warning: what the server
 * said, or else "fallback".  libpq's own texts, several lines long, are left to
 * ParticipantThrow().
 */
static void
set_error(Participant *p, const char *fallback)
{
	const char *message = NULL;
	int			len;

	if (PQresultErrorField(p->result, PG_DIAG_SQLSTATE) != NULL)
		message = PQresultErrorField(p->result, PG_DIAG_MESSAGE_PRIMARY);
	if (message == NULL || message[0] == '\0')
		message = fallback;

	/* It goes into a view: cut no character, and pass on no broken one. */
	len = strlen(message);
	len = Min(len, pg_mbcliplen(message, len, sizeof(p->error) - 1));
	memcpy(p->error, message, len);
	p->error[len] = '\0';
	if (!pg_verifymbstr(p->error, len, true))
	{
		for (int i = 0; i < len; i++)
		{
			if (IS_HIGHBIT_SET(p->error[i]))
				p->error[i] = '?';
		}
	}
}

/*
 * Report the failure of a participant as an ERROR with the server's name and
 * the remote SQLSTATE, message, detail and hint, and the names of a constraint and
 * the like.  "what" completes the sentence
 * "could not ...", and is already translated.  To be called before the local
 * commit.
 */
void
ParticipantThrow(Participant *p, const char *what)
{
	const char *sqlstate = PQresultErrorField(p->result, PG_DIAG_SQLSTATE);
	const char *detail = DtxRemoteText(p->result, PG_DIAG_MESSAGE_DETAIL);
	const char *hint = DtxRemoteText(p->result, PG_DIAG_MESSAGE_HINT);
	const char *context = DtxRemoteText(p->result, PG_DIAG_CONTEXT);
	int			code = ERRCODE_CONNECTION_FAILURE;

	if (sqlstate != NULL && strlen(sqlstate) == 5)
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
							 sqlstate[3], sqlstate[4]);
	else if (PQstatus(p->conn) == CONNECTION_OK)
		code = ERRCODE_TRANSACTION_ROLLBACK;
	else if (PQerrorMessage(p->conn)[0] != '\0')
		detail = DtxCleanText(PQerrorMessage(p->conn), DTX_MAX_REMOTE_TEXT);

	if (p->state == PARTICIPANT_NOT_PREPARED && sqlstate != NULL &&
		strcmp(sqlstate, SQLSTATE_PREPARE_DISABLED) == 0 &&
		PQserverVersion(p->conn) > 0 && hint != NULL &&
		strstr(hint, "max_prepared_transactions") != NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("could not %s on server \"%s\": %s",
						what, p->server_name, p->error),
				 errhint("Set \"max_prepared_transactions\" to a nonzero value on the server that \"%s\" connects to, and restart that server.",
						 p->server_name)));
	if (p->state == PARTICIPANT_NOT_PREPARED && sqlstate != NULL &&
		strcmp(sqlstate, SQLSTATE_PREPARE_EXHAUSTED) == 0 &&
		hint != NULL && strstr(hint, "max_prepared_transactions") != NULL)
		ereport(ERROR,
				(errcode(code),
				 errmsg("could not %s on server \"%s\": %s",
						what, p->server_name, p->error),
				 errdetail("%s", hint),
				 errhint("Increase \"max_prepared_transactions\" on the server that \"%s\" connects to, and restart that server.",
						 p->server_name)));

	ereport(ERROR,
			(errcode(code),
			 errmsg("could not %s on server \"%s\": %s",
					what, p->server_name, p->error),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 DtxRemoteFields(p->result)));
}
