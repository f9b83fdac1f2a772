/*-------------------------------------------------------------------------
 *
 * postgres_fdw.c
 *		A small foreign-data wrapper for t/060_lost_member.pl, which does one thing
 *		as all releases of postgres_fdw before May 2026 did it: a connection on which
 *		a subtransaction could not be rolled back is closed when it is used next,
 *		in the middle of the local transaction, and the use after that makes a new
 *		one.  All else is as small as can be: no foreign tables, but a function that
 *		runs a command on a server, and as much of IMPORT FOREIGN SCHEMA as remote
 *		SQL needs.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "utils/builtins.h"

PG_MODULE_MAGIC;

#define MAX_SERVERS 4

typedef struct Entry
{
	Oid			serverid;
	PGconn	   *conn;
	int			depth;			/* of the remote transaction, 0: none */
	bool		changing;		/* is, or was, a change of that under way? */
} Entry;

static Entry entries[MAX_SERVERS];

PG_FUNCTION_INFO_V1(postgres_fdw_handler);
PG_FUNCTION_INFO_V1(old_run);

static List *import_schema(ImportForeignSchemaStmt *stmt, Oid serverid);

Datum
postgres_fdw_handler(PG_FUNCTION_ARGS)
{
	FdwRoutine *routine = makeNode(FdwRoutine);

	routine->ImportForeignSchema = import_schema;
	PG_RETURN_POINTER(routine);
}

/*
 * Run a command; returns the first value, or NULL.
 */
static char *
run(Entry *e, const char *sql)
{
	PGresult   *res;
	PGresult   *last = NULL;
	char	   *value = NULL;

	if (PQsendQuery(e->conn, sql))
	{
		while ((res = PQgetResult(e->conn)) != NULL)
		{
			PQclear(last);
			last = res;
		}
	}
	if (PQresultStatus(last) != PGRES_COMMAND_OK &&
		PQresultStatus(last) != PGRES_TUPLES_OK)
	{
		PQclear(last);
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("remote command failed")));
	}
	if (PQntuples(last) > 0)
		value = pstrdup(PQgetvalue(last, 0, 0));
	PQclear(last);
	return value;
}

static void
disconnect(Entry *e)
{
	PQfinish(e->conn);
	e->conn = NULL;
	e->depth = 0;
	e->changing = false;
}

static void
reject_incomplete_change(Entry *e)
{
	if (e->conn == NULL || !e->changing)
		return;
	disconnect(e);
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_EXCEPTION),
			 errmsg("connection to server was lost")));
}

static void
change(Entry *e, const char *sql)
{
	e->changing = true;
	(void) run(e, sql);
	e->changing = false;
}

static void
xact_callback(XactEvent event, void *arg)
{
	for (int i = 0; i < MAX_SERVERS; i++)
	{
		Entry	   *e = &entries[i];

		if (e->conn == NULL || e->depth == 0)
			continue;
		if (event == XACT_EVENT_PRE_COMMIT)
		{
			reject_incomplete_change(e);
			change(e, "COMMIT TRANSACTION");
			e->depth = 0;
		}
		else if (event == XACT_EVENT_ABORT)
			disconnect(e);
		else if (event == XACT_EVENT_PRE_PREPARE)
			elog(ERROR, "cannot PREPARE");
	}
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mySubid,
				 SubTransactionId parentSubid, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();
	char		sql[100];

	if (event != SUBXACT_EVENT_PRE_COMMIT_SUB && event != SUBXACT_EVENT_ABORT_SUB)
		return;
	for (int i = 0; i < MAX_SERVERS; i++)
	{
		Entry	   *e = &entries[i];

		if (e->conn == NULL || e->depth < level)
			continue;
		if (event == SUBXACT_EVENT_PRE_COMMIT_SUB)
		{
			reject_incomplete_change(e);
			snprintf(sql, sizeof(sql), "RELEASE SAVEPOINT s%d", level);
			change(e, sql);
		}
		else if (!e->changing)
		{
			PGresult   *res;

			snprintf(sql, sizeof(sql),
					 "ROLLBACK TO SAVEPOINT s%d; RELEASE SAVEPOINT s%d", level, level);
			e->changing = true;
			res = PQexec(e->conn, sql);
			if (PQresultStatus(res) == PGRES_COMMAND_OK)
				e->changing = false;
			PQclear(res);
		}
		e->depth--;
	}
}

static Entry *
get_connection(const char *name)
{
	static bool registered = false;
	ForeignServer *server = GetForeignServerByName(name, false);
	UserMapping *user = GetUserMapping(GetUserId(), server->serverid);
	Entry	   *e = entries;
	char		sql[64];

	if (!registered)
	{
		RegisterXactCallback(xact_callback, NULL);
		RegisterSubXactCallback(subxact_callback, NULL);
		registered = true;
	}
	while (OidIsValid(e->serverid) && e->serverid != server->serverid)
		e++;
	e->serverid = server->serverid;

	reject_incomplete_change(e);
	if (e->conn == NULL)
	{
		const char *keywords[20];
		const char *values[20];
		int			n = 0;
		ListCell   *lc;

		foreach(lc, list_concat_copy(server->options, user->options))
		{
			DefElem    *def = (DefElem *) lfirst(lc);

			keywords[n] = def->defname;
			values[n++] = defGetString(def);
		}
		keywords[n] = "fallback_application_name";
		values[n++] = "postgres_fdw";
		keywords[n] = values[n] = NULL;
		e->conn = PQconnectdbParams(keywords, values, false);
		if (PQstatus(e->conn) != CONNECTION_OK)
			elog(ERROR, "no connection: %s", PQerrorMessage(e->conn));
	}
	if (e->depth == 0)
	{
		change(e, "START TRANSACTION ISOLATION LEVEL REPEATABLE READ");
		e->depth = 1;
	}
	while (e->depth < GetCurrentTransactionNestLevel())
	{
		snprintf(sql, sizeof(sql), "SAVEPOINT s%d", e->depth + 1);
		change(e, sql);
		e->depth++;
	}
	return e;
}

/*
 * The questions of IMPORT FOREIGN SCHEMA, for a schema without tables.
 */
static List *
import_schema(ImportForeignSchemaStmt *stmt, Oid serverid)
{
	Entry	   *e = get_connection(GetForeignServer(serverid)->servername);

	(void) run(e, "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = 'none'");
	(void) run(e, "SELECT relname, NULL FROM pg_catalog.pg_class WHERE false");
	return NIL;
}

/*
 * old_run(server text, command text) RETURNS text
 */
Datum
old_run(PG_FUNCTION_ARGS)
{
	Entry	   *e = get_connection(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	char	   *value = run(e, text_to_cstring(PG_GETARG_TEXT_PP(1)));

	if (value == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(value));
}
