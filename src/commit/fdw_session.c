/*-------------------------------------------------------------------------
 *
 * fdw_session.c
 *		Having postgres_fdw open its session with a server without a foreign table:
 *		by IMPORT FOREIGN SCHEMA, whose questions are answered here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "commit/connection.h"
#include "commit/fdw_session.h"
#include "commit/first.h"
#include "commit/late.h"
#include "commit/participant.h"
#include "commit/real_libpq.h"
#include "commit/transaction.h"
#include "foreign/fdwapi.h"
#include "libpq-fe.h"
#include "net/wire.h"
#include "nodes/parsenodes.h"

/*
 * The two questions of IMPORT FOREIGN SCHEMA begin with these words
 * (postgresImportForeignSchema in contrib/postgres_fdw/postgres_fdw.c, 15 to
 * 19).  The schema asked for exists nowhere: were the questions put in another
 * way, they would reach the server, and the answer would be an error.
 */
#define IMPORT_SCHEMA		"no schema, pg_dtx opens a session"
#define IMPORT_QUESTION_1	"SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = "
#define IMPORT_QUESTION_2	"SELECT relname, "

/* Is DtxFdwSessionOpen() under way, and which connection has it got? */
static bool opening = false;
static DtxConnection *opened = NULL;

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
DtxFdwSessionOpen(Oid serverid)
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
	if (opened->wire.broken || DtxParticipantTookOver(opened) ||
		dtx_real.PQstatus(opened->wire.conn) != CONNECTION_OK)
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
 * Is this a question of IMPORT FOREIGN SCHEMA, while DtxFdwSessionOpen() is under way?
 * Then it is answered here: the schema exists, and has no tables.  Throws if out of
 * memory.
 */
bool
DtxFdwSessionAnswerImport(DtxConnection *c, const char *command)
{
	bool		exists = pg_strncasecmp(command, IMPORT_QUESTION_1,
										strlen(IMPORT_QUESTION_1)) == 0;
	PGresult   *answer;

	if (!opening ||
		(!exists && pg_strncasecmp(command, IMPORT_QUESTION_2,
								   strlen(IMPORT_QUESTION_2)) != 0))
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
