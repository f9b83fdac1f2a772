/*-------------------------------------------------------------------------
 *
 * endpoint.c
 *		Which foreign server, user mapping and cluster a connection of postgres_fdw
 *		belongs to.
 *
 * postgres_fdw does not tell: the server and the mapping are found by the connection
 * parameters, and the cluster is asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/reloptions.h"
#include "access/table.h"
#include "base/gid.h"
#include "base/guarded.h"
#include "base/settings.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commit/endpoint.h"
#include "foreign/foreign.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/session_mark.h"
#include "net/target.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "state/waits.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/rel.h"
#include "utils/relcache.h"

#define SETTING		"pg_catalog.current_setting"

/* What DtxEndpointQuestion() asks first: see DtxParticipantPrepare(). */
#define ASK_SESSION \
	"SELECT CASE WHEN current_user OPERATOR(pg_catalog.=) session_user" \
	" THEN 0::pg_catalog.oid ELSE" \
	" pg_catalog.quote_ident(current_user)::pg_catalog.regrole::pg_catalog.oid END, " \
	SETTING "('statement_timeout') OPERATOR(pg_catalog.<>) '0' OR " \
	SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error', " \
	DTX_SESSION ", " \
	DTX_PROCESS_STARTED("pg_catalog.pg_backend_pid()")

static void forget_parameters(DtxConnectionEndpoint *e);
static bool options_match(const DtxConnectionEndpoint *e, List *server_options,
						  List *mapping_options);
static const char *find_option(List *options, const char *keyword);
static bool is_own_parameter(const char *keyword);
static bool is_libpq_option(const char *name);
static bool is_row(const PGresult *result, int columns);

/*
 * postgres_fdw is about to make a connection with these parameters.  They are copied
 * to TopMemoryContext; throws if out of memory.
 */
void
DtxEndpointNoteParameters(DtxConnectionEndpoint *e, const char *const *keywords,
						  const char *const *values)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	int			n = 0;

	while (keywords[n] != NULL)
		n++;
	e->values = palloc0(sizeof(char *) * (n + 1));
	e->keywords = palloc0(sizeof(char *) * (n + 1));
	for (int i = 0; i < n; i++)
	{
		e->keywords[i] = pstrdup(keywords[i]);
		e->values[i] = values[i] ? pstrdup(values[i]) : NULL;
	}
	MemoryContextSwitchTo(old);
}

/*
 * Free what belongs to an endpoint.  Does not throw.
 */
void
DtxEndpointForget(DtxConnectionEndpoint *e)
{
	forget_parameters(e);
	if (e->options_text != NULL)
		pfree(e->options_text);
	e->options_text = NULL;
}

/*
 * The parameters have passwords among them: don't keep them longer than needed.
 */
static void
forget_parameters(DtxConnectionEndpoint *e)
{
	for (int i = 0; e->keywords != NULL && e->keywords[i] != NULL; i++)
	{
		pfree(e->keywords[i]);
		if (e->values[i] != NULL)
		{
			explicit_bzero(e->values[i], strlen(e->values[i]));
			pfree(e->values[i]);
		}
	}
	if (e->keywords != NULL)
		pfree(e->keywords);
	if (e->values != NULL)
		pfree(e->values);
	e->keywords = e->values = NULL;
}

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
 * (pgfdw_inval_callback).  Leaves the server InvalidOid if nothing fits.  May
 * throw what a catalog scan throws.
 *
 * "mapping_in_use" tells whether another connection is that of a mapping.
 */
void
DtxEndpointIdentify(DtxConnectionEndpoint *e,
					bool (*mapping_in_use) (Oid umid))
{
	Relation	rel;
	SysScanDesc scan;
	HeapTuple	tuple;
	int			best_score = -1;

	DTX_ASSERT_MAY_THROW();
	if (DtxEndpointIsKnown(e) || e->keywords == NULL)
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

		/* Any of them may be dropped by another session at this moment. */
		server = GetForeignServerExtended(form->umserver, FSV_MISSING_OK);
		if (server == NULL || !DtxWrapperIsPostgresFdw(server->fdwid))
			continue;

		options = heap_getattr(tuple, Anum_pg_user_mapping_umoptions,
							   RelationGetDescr(rel), &isnull);
		if (!options_match(e, server->options,
						   isnull ? NIL : untransformRelOptions(options)))
			continue;

		if (superuser_arg(server->owner))
			score += 4;
		if (!mapping_in_use(form->oid))
			score += 2;
		if (form->umuser == GetUserId())
			score += 1;

		if (score > best_score)
		{
			best_score = score;
			e->serverid = server->serverid;
			e->umid = form->oid;
			strlcpy(e->server_name, server->servername, NAMEDATALEN);
			if (e->options_text != NULL)
				pfree(e->options_text);
			e->options_text = MemoryContextStrdup(TopMemoryContext,
												  DtxEndpointText(server->options,
																  isnull ? NIL : untransformRelOptions(options)));
			e->hash_of = 0;
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);

	if (DtxEndpointIsKnown(e))
		forget_parameters(e);
}

/*
 * Do these options make the parameters of the connection?
 */
static bool
options_match(const DtxConnectionEndpoint *e, List *server_options,
			  List *mapping_options)
{
	int			n = 0;
	ListCell   *lc;

	/* Each parameter must come from an option; the last one given counts. */
	for (int i = 0; e->keywords[i] != NULL; i++)
	{
		const char *keyword = e->keywords[i];
		const char *option;

		if (is_own_parameter(keyword))
			continue;
		n++;
		option = find_option(mapping_options, keyword);
		if (option == NULL || strcmp(option, e->values[i] ? e->values[i] : "") != 0)
			option = find_option(server_options, keyword);
		if (option == NULL || strcmp(option, e->values[i] ? e->values[i] : "") != 0)
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

/*
 * The hash by which a coordinator knows the options of server and mapping, or 0.
 * "coordinator_id": its identifier.  Throws if out of memory.
 */
uint64
DtxEndpointHash(DtxConnectionEndpoint *e, uint64 coordinator_id)
{
	if (e->hash_of != coordinator_id)
	{
		e->hash = DtxEndpoint(e->options_text);
		e->hash_of = coordinator_id;
	}
	return e->hash;
}

/* ----------------------------------------------------------------
 * The cluster
 * ----------------------------------------------------------------
 */

/*
 * A question to a session without a transaction: what the session is like, see
 * DtxParticipantPrepare(), which cluster it leads to, and which timeline that is on.  A
 * foreign server may be made to lead elsewhere later, and what is not seen there
 * proves nothing.  A server that does not tell (privileges) stays unknown.  The result is
 * good until the next call.
 */
const char *
DtxEndpointQuestion(const PGconn *conn)
{
	static char question[4096];
	char		mark[128] = "";
	int			len PG_USED_FOR_ASSERTS_ONLY;

	/*
	 * By which others know the session; not to be waited for.  If it fails,
	 * no matter.
	 */
	if (dtx_deadlock_detection)
		snprintf(mark, sizeof(mark),
				 "; SELECT pg_catalog.pg_try_advisory_lock_shared("
				 DTX_SESSION_MARK_CLASS ", %d), NULL", (int) DtxSessionMark());
	len = snprintf(question, sizeof(question), ASK_SESSION "; %s%s",
				   PQserverVersion(conn) >= 100000 ? DTX_IDENTIFY : DTX_IDENTIFY_OLD, mark);
	Assert(len < sizeof(question));
	return question;
}

/*
 * A result of the reply to that.  Does not throw.
 */
void
DtxEndpointTakeAnswer(DtxConnectionEndpoint *e, const PGresult *result)
{
	if (is_row(result, 6))
	{
		e->default_role = (Oid) DtxNumberParse(PQgetvalue(result, 0, 0),
											   PG_UINT32_MAX);
		e->cautious = PQgetvalue(result, 0, 1)[0] == 't';
		e->pid = (int) DtxNumberParse(PQgetvalue(result, 0, 2), PG_INT32_MAX);
		e->process_started = DtxNumberParse(PQgetvalue(result, 0, 5), PG_INT64_MAX);
		e->instance = DtxInstance(DtxNumberParse(PQgetvalue(result, 0, 3), PG_INT64_MAX),
								  DtxNumberParse(PQgetvalue(result, 0, 4), PG_UINT16_MAX));
	}
	else if (is_row(result, 3))
	{
		e->timeline = DtxTimelineParse(PQgetvalue(result, 0, 0));
		e->run = DtxNumberParse(PQgetvalue(result, 0, 1), PG_INT64_MAX);
		e->may_ask_wal = strcmp(PQgetvalue(result, 0, 2), "true") == 0;
	}
	else if (is_row(result, 1))
		e->system_id = DtxNumberParse(PQgetvalue(result, 0, 0), PG_UINT64_MAX);
}

/*
 * The connection is made anew: what it leads to is not known until it is asked.
 */
void
DtxEndpointForgetAnswer(DtxConnectionEndpoint *e)
{
	e->system_id = e->timeline = e->run = e->instance = 0;
	e->pid = 0;
	e->process_started = 0;
	e->default_role = InvalidOid;
	e->cautious = e->may_ask_wal = false;
}

/*
 * May these be the system identifiers of the same cluster?  0: not known.
 */
bool
DtxEndpointMayBeSame(uint64 a, uint64 b)
{
	return a == b || a == 0 || b == 0;
}

/* Is this one row of so many columns? */
static bool
is_row(const PGresult *result, int columns)
{
	return PQresultStatus(result) == PGRES_TUPLES_OK &&
		PQntuples(result) == 1 && PQnfields(result) == columns;
}
