/*-------------------------------------------------------------------------
 *
 * remote_exec.c
 *		Remote SQL in the distributed transaction: dtx.exec(), dtx.query() and
 *		their relatives, and the steps of sagas.
 *
 * The commands run in the sessions of postgres_fdw, which stays the only owner
 * of connections: DtxInterposeOpen() has it open one, begin the remote
 * transaction, and go to the current level of subtransactions.  So what is done
 * here and what is done through foreign tables is one remote transaction, and
 * it ends as all others do (coordinator.c).
 *
 * One call is one round trip, in libpq's pipeline mode:
 *
 *		START TRANSACTION, if interpose.c has put it off, and Flush
 *		give the session the remote role's own search_path and time zone
 *		the statements, one by one, with their parameters
 *		put back what postgres_fdw relies on
 *		Sync
 *
 * Statements go out by the extended protocol, which takes one at a time.  So a
 * text can't smuggle in a COMMIT that we did not see, even if the server would
 * divide the text in another way than our parser.
 *
 * If a statement fails, its settings need not be put back: the transaction or
 * the subtransaction around it has to be rolled back, and that does it.
 *
 * If the connection is lost before the reply to START TRANSACTION is here, it was
 * dead before, as one that postgres_fdw replaces without a word: it is made anew, and
 * everything is sent again, once.
 *
 * An error that is thrown while results are due (a cancel, a value that can't be
 * converted, a failure on another server) has to get the other servers out of
 * their commands.  A cancel request is lost on a server that is just between two
 * commands, and a pipeline has many such moments, so it is repeated (quiesce).
 * What does not end soon is left in pipeline mode: postgres_fdw finds the
 * connection busy in its abort cleanup, cancels once more, and drains it through
 * the wrappers of interpose.c.  All of that works only if the Sync has been sent:
 * nothing throws between the first command and the Sync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "commit/coordinator.h"
#include "commit/interpose.h"
#include "commit/participant.h"
#include "exec/remote_exec.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "net/cancel.h"
#include "net/remote.h"
#include "net/wrapper.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/*
 * Cancel requests are repeated after this time, doubled each time, and no longer
 * than that; milliseconds.  Then it is postgres_fdw's turn, which has half a
 * minute of patience.
 */
#define CANCEL_RETRY_MS		50
#define CANCEL_PATIENCE_MS	5000

/* Sockets looked at per WaitEventSetWait() call. */
#define EVENTS_AT_ONCE		16

/*
 * The role's own values, which are those that the session began with, until the
 * end of the transaction at the latest.  What decides how values are written
 * (DateStyle, IntervalStyle, extra_float_digits) stays as postgres_fdw has set
 * it: the text is read again here.
 *
 * SET takes no snapshot, unlike SELECT: whoever locks a table with the first
 * command of a REPEATABLE READ transaction wants to see what was committed until
 * he got the lock.  READ ONLY, however, is final only once there is a snapshot.
 */
static const char *const before_command[] = {
	"SET LOCAL search_path TO DEFAULT",
	"SET LOCAL TimeZone TO DEFAULT",

	/* Only if the local transaction is read-only. */
	"SELECT pg_catalog.set_config('transaction_read_only', 'on', true)"
};

/*
 * What postgres_fdw relies on (configure_remote_session in
 * contrib/postgres_fdw/connection.c), and what libpq does.  For the session,
 * because a SET in the command would otherwise come back at its end.  A NULL
 * stands for the value that the session began with (set_config_by_name in
 * utils/misc/guc.c).  "ISO" alone does not change the order of day and month, so
 * that is put back first.
 *
 * The role, too: who prepares a transaction owns it, and only its owner can
 * finish it.  The session's user comes first, because a change of it changes
 * the role.
 */
#define AFTER_COMMAND \
	"SELECT pg_catalog.set_config('session_authorization', NULL, false)," \
	" pg_catalog.set_config('role', NULL, false)," \
	" pg_catalog.set_config('search_path', 'pg_catalog', false)," \
	" pg_catalog.set_config('TimeZone', 'GMT', false)," \
	" pg_catalog.set_config('DateStyle', NULL, false)," \
	" pg_catalog.set_config('DateStyle', 'ISO', false)," \
	" pg_catalog.set_config('IntervalStyle', 'postgres', false)," \
	" pg_catalog.set_config('extra_float_digits', '3', false)," \
	" pg_catalog.set_config('client_encoding', '%s', false)"

/*
 * Before that, for the steps of sagas: the next transaction of the session may be
 * one of another saga, which must not find a default_transaction_read_only or a
 * statement_timeout that it does not know of, or wait for an advisory lock.
 */
static const char *const tidy_command[] = {
	"RESET ALL",
	"SELECT pg_catalog.pg_advisory_unlock_all()"
};

/* What to run; the same on all servers. */
typedef struct RemoteCommand
{
	List	   *statements;		/* texts (char *), at least one */
	int			nparams;
	const Oid  *types;			/* their types, or NULL: the server finds out */
	const char **params;		/* their values as text, or NULL for null */
	bool		tidy;			/* leave no settings and locks in the session? */
} RemoteCommand;

/* What went wrong, other than an error that the server reported. */
typedef enum Problem
{
	NO_PROBLEM = 0,
	TRANSACTION_CONTROL,		/* a command tag that must not be */
	NO_RESULT_SET				/* rows wanted, but the last statement has none */
} Problem;

/* The command on one server. */
typedef struct Execution
{
	char	   *server;			/* name of the server */
	Oid			serverid;
	Participant *p;				/* its connection */
	int			step;			/* which results are due: up to 0 START TRANSACTION
								 * and settings, 1 to n statements, then
								 * settings and the Sync */
	char		start_command[DTX_START_SIZE];	/* START TRANSACTION that was sent
												 * with it, or "" */
	bool		anew;			/* was it sent again? */
	bool		ended;			/* was the last result a NULL? */
	bool		done;			/* Sync seen, and pipeline mode left */
	bool		wants_write;	/* does the wait set look for writability? */
	PGresult   *result;			/* the one that is being looked at, or NULL */
	PGresult   *error;			/* the first error, or NULL */
	int			error_step;		/* its step */
	Problem		problem;		/* the first one */
	int64		affected;		/* rows, all statements together */
	int64		affected_last;	/* rows of the last statement with a result */
	int64		nrows;			/* rows received of the last statement */
} Execution;

/*
 * Where the rows of the last statement go.  "rows" is called for every result
 * that has rows or could have had some, so at least once.
 */
typedef struct RowSink
{
	void		(*rows) (struct RowSink *sink, Execution *e, PGresult *res);
	Tuplestorestate *store;
	TupleDesc	desc;			/* of the rows in the store */
	AttInMetadata *attin;		/* how to make them, or NULL until known */
	bool		server_column;	/* does the server's name come first? */
	bool		optional;		/* may there be no rows? */
	bool		found;			/* take_first_row: is there one? */
	Datum		first;			/* ... as jsonb, in the caller's context */
	MemoryContext row_context;	/* reset for every row */
} RowSink;

/* For the error context while a value is converted. */
typedef struct ValuePosition
{
	const Execution *e;
	const PGresult *res;
	int			column;			/* from 0; -1: the row as a whole */
} ValuePosition;

/* Wait event, see DtxWaitEvent(). */
static uint32 we_remote_exec = 0;

PG_FUNCTION_INFO_V1(dtx_sql_exec);
PG_FUNCTION_INFO_V1(dtx_sql_exec_all);
PG_FUNCTION_INFO_V1(dtx_sql_query);
PG_FUNCTION_INFO_V1(dtx_sql_query_all);
PG_FUNCTION_INFO_V1(dtx_sql_query_json);

static void get_command(FunctionCallInfo fcinfo, RemoteCommand *command);
static List *split_command(const char *text);
static void check_statement(Node *stmt);
static void check_unknown(const char *text);
static const char *next_word(const char *text, char *word, int size);
static void refuse_transaction_control(const char *what);
static void refuse_copy(void);
static Execution *get_server(FunctionCallInfo fcinfo);
static Execution *get_servers(FunctionCallInfo fcinfo, int *n);
static void find_server(Execution *e, const char *name);
static void run(const RemoteCommand *command, Execution *executions, int n,
				RowSink *sink);
static Participant *open_session(Execution *e);
static void server_context(void *arg);
static WaitEventSet *make_set(Execution *executions, int n);
static bool start(Execution *e, const RemoteCommand *command);
static void begin_anew(Execution *e);
static void release_results(Execution *executions, int n);
static void quiesce(Execution *executions, int n, WaitEventSet *set);
static bool any_piped(Execution *executions, int n);
static void send_cancel(PGconn *conn, DtxMoment deadline);
static Execution *wait_for_results(const RemoteCommand *command,
								   Execution *executions, int n, RowSink *sink,
								   WaitEventSet *set);
static bool take_results(Execution *e, const RemoteCommand *command,
						 RowSink *sink);
static void take_result(Execution *e, const RemoteCommand *command,
						RowSink *sink);
static void take_tag(Execution *e);
static void finish(Execution *e, const RemoteCommand *command);
static void throw_lost(Execution *e);
static void throw_remote(Execution *e, const RemoteCommand *command);
static void begin_rows(FunctionCallInfo fcinfo, RowSink *sink);
static void take_rows(RowSink *sink, Execution *e, PGresult *res);
static void take_json_rows(RowSink *sink, Execution *e, PGresult *res);
static void take_first_row(RowSink *sink, Execution *e, PGresult *res);
static void describe_for_json(RowSink *sink, Execution *e, const PGresult *res);
static Datum make_json(RowSink *sink, Execution *e, PGresult *res, int row);
static void check_columns(RowSink *sink, Execution *e, PGresult *res);
static TupleDesc describe_result(const PGresult *res);
static Oid	type_for_json(Oid type);
static HeapTuple make_row(RowSink *sink, Execution *e, PGresult *res, int row);
static void value_context(void *arg);

/* ----------------------------------------------------------------
 * SQL functions
 * ----------------------------------------------------------------
 */

/*
 * dtx.exec(server, command, params): run a command and count the rows.
 */
Datum
dtx_sql_exec(PG_FUNCTION_ARGS)
{
	RemoteCommand command;
	Execution  *e;

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	run(&command, e, 1, NULL);
	PG_RETURN_INT64(e->affected);
}

/*
 * dtx.exec_all(servers, command, params): the same on all servers at once.
 */
Datum
dtx_sql_exec_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RemoteCommand command;
	Execution  *executions;
	int			n;

	get_command(fcinfo, &command);
	executions = get_servers(fcinfo, &n);
	InitMaterializedSRF(fcinfo, 0);
	run(&command, executions, n, NULL);

	for (int i = 0; i < n; i++)
	{
		NameData	name;
		Datum		values[2];
		bool		nulls[2] = {false, false};

		namestrcpy(&name, executions[i].server);
		values[0] = NameGetDatum(&name);
		values[1] = Int64GetDatum(executions[i].affected);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/*
 * dtx.query(server, query, params): rows, as the column definition list says.
 */
Datum
dtx_sql_query(PG_FUNCTION_ARGS)
{
	RemoteCommand command;
	Execution  *e;
	RowSink		sink = {0};

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	begin_rows(fcinfo, &sink);
	run(&command, e, 1, &sink);
	return (Datum) 0;
}

/*
 * dtx.query_all(servers, query, params): rows of all servers, whose names come
 * in the first column.
 */
Datum
dtx_sql_query_all(PG_FUNCTION_ARGS)
{
	RemoteCommand command;
	Execution  *executions;
	int			n;
	RowSink		sink = {0};

	get_command(fcinfo, &command);
	executions = get_servers(fcinfo, &n);
	sink.server_column = true;
	begin_rows(fcinfo, &sink);
	run(&command, executions, n, &sink);
	return (Datum) 0;
}

/*
 * dtx.query_json(server, query, params): rows as objects of jsonb, for which no
 * column definition list is needed.
 */
Datum
dtx_sql_query_json(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	RemoteCommand command;
	Execution  *e;
	RowSink		sink = {0};

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	sink.rows = take_json_rows;
	sink.store = rsinfo->setResult;
	sink.desc = rsinfo->setDesc;
	run(&command, e, 1, &sink);
	return (Datum) 0;
}

/*
 * For the steps of sagas: run a command whose parameters have the given types,
 * and that may be several statements, all of which get the parameters.  Returns
 * the number of rows of the last one, and its first row as jsonb, in the current
 * memory context; *isnull says that there was none.  If "row" is NULL, nobody
 * wants that row, so it need not be one that jsonb can hold.
 */
int64
DtxRemoteExecute(const char *server, const char *text, int nparams,
				 const Oid *types, const char **params, Datum *row,
				 bool *isnull)
{
	RemoteCommand command;
	Execution  *e = palloc0(sizeof(Execution));
	RowSink		sink = {0};

	command.statements = split_command(text);
	command.nparams = nparams;
	command.types = types;
	command.params = params;
	command.tidy = true;
	find_server(e, server);
	sink.rows = take_first_row;
	sink.optional = true;
	sink.found = row == NULL;
	run(&command, e, 1, &sink);
	if (row != NULL)
	{
		*row = sink.first;
		*isnull = !sink.found;
	}
	return e->affected_last;
}

/* ----------------------------------------------------------------
 * Arguments
 * ----------------------------------------------------------------
 */

/*
 * The command and its parameters, the second and third argument.
 */
static void
get_command(FunctionCallInfo fcinfo, RemoteCommand *command)
{
	ArrayType  *array;
	Datum	   *values;
	bool	   *nulls;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("remote command must not be null")));
	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array of parameters must not be null"),
				 errhint("An element of the array can be null.")));

	command->tidy = false;
	array = PG_GETARG_ARRAYTYPE_P(2);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &command->nparams);
	if (command->nparams > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("remote command has too many parameters: %d",
						command->nparams),
				 errdetail("The limit is %d.", PG_UINT16_MAX)));
	command->types = NULL;
	command->params = palloc(sizeof(char *) * Max(command->nparams, 1));
	for (int i = 0; i < command->nparams; i++)
		command->params[i] = nulls[i] ? NULL : TextDatumGetCString(values[i]);

	command->statements = split_command(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (command->nparams > 0 && list_length(command->statements) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot pass parameters to more than one statement"),
				 errhint("Call the function once for each statement.")));
}

/*
 * Divide a command into its statements, and refuse what must not be in it.
 *
 * Our parser may be of another version than the server.  A text that it does
 * not understand is sent as one statement, and if it is more than one, or really
 * wrong, the server says so.
 */
static List *
split_command(const char *text)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *raw = NIL;
	bool		understood = true;
	List	   *statements = NIL;
	ListCell   *lc;

	/*
	 * Nothing but memory is at stake in the parser's grammar, so the error can
	 * be dropped without a subtransaction.
	 */
	PG_TRY();
	{
		raw = raw_parser(text, RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) !=
			ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(edata);
		understood = false;
	}
	PG_END_TRY();

	if (!understood)
	{
		check_unknown(text);
		return list_make1(pstrdup(text));
	}

	if (raw == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("remote command is empty")));
	foreach(lc, raw)
	{
		RawStmt    *stmt = lfirst_node(RawStmt, lc);
		const char *begin = text + stmt->stmt_location;
		const char *end = stmt->stmt_len > 0 ? begin + stmt->stmt_len :
			begin + strlen(begin);

		check_statement(stmt->stmt);
		while (begin < end && scanner_isspace(*begin))
			begin++;
		statements = lappend(statements, pnstrdup(begin, end - begin));
	}
	return statements;
}

/*
 * Refuse a statement that can't be part of the distributed transaction, or that
 * takes away what postgres_fdw keeps in the session.
 */
static void
check_statement(Node *stmt)
{
	const char *taken = NULL;

	switch (nodeTag(stmt))
	{
		case T_TransactionStmt:
			switch (((TransactionStmt *) stmt)->kind)
			{
				case TRANS_STMT_BEGIN:
					refuse_transaction_control("BEGIN");
					break;
				case TRANS_STMT_START:
					refuse_transaction_control("START TRANSACTION");
					break;
				case TRANS_STMT_COMMIT:
					refuse_transaction_control("COMMIT");
					break;
				case TRANS_STMT_ROLLBACK:
					refuse_transaction_control("ROLLBACK");
					break;
				case TRANS_STMT_SAVEPOINT:
					refuse_transaction_control("SAVEPOINT");
					break;
				case TRANS_STMT_RELEASE:
					refuse_transaction_control("RELEASE SAVEPOINT");
					break;
				case TRANS_STMT_ROLLBACK_TO:
					refuse_transaction_control("ROLLBACK TO SAVEPOINT");
					break;
				case TRANS_STMT_PREPARE:
					refuse_transaction_control("PREPARE TRANSACTION");
					break;
				case TRANS_STMT_COMMIT_PREPARED:
					refuse_transaction_control("COMMIT PREPARED");
					break;
				case TRANS_STMT_ROLLBACK_PREPARED:
					refuse_transaction_control("ROLLBACK PREPARED");
					break;
			}
			break;
		case T_CopyStmt:
			if (((CopyStmt *) stmt)->filename == NULL)
				refuse_copy();
			break;
		case T_DeallocateStmt:
			if (((DeallocateStmt *) stmt)->name == NULL)
				taken = "DEALLOCATE ALL";
			break;
		case T_ClosePortalStmt:
			if (((ClosePortalStmt *) stmt)->portalname == NULL)
				taken = "CLOSE ALL";
			break;
		case T_DiscardStmt:
			taken = "DISCARD";
			break;
		default:
			break;
	}

	if (taken != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use %s in a remote command", taken),
				 errdetail("The session belongs to postgres_fdw, which keeps cursors and prepared statements in it.")));
}

/*
 * The same for a text that our parser does not understand: look at the first
 * word of the one statement that it can be.
 */
static void
check_unknown(const char *text)
{
	static const char *const control[] = {
		"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT",
		"RELEASE"
	};
	char		word[16];
	char		second[16];
	const char *rest = next_word(text, word, sizeof(word));

	for (int i = 0; i < lengthof(control); i++)
	{
		if (pg_strcasecmp(word, control[i]) == 0)
			refuse_transaction_control(control[i]);
	}
	next_word(rest, second, sizeof(second));
	if (pg_strcasecmp(word, "PREPARE") == 0 &&
		pg_strcasecmp(second, "TRANSACTION") == 0)
		refuse_transaction_control("PREPARE TRANSACTION");
	if (pg_strcasecmp(word, "COPY") == 0)
		refuse_copy();
}

/*
 * The word that a text begins with, behind white space, comments and semicolons,
 * or as much of it as there is room for.  Returns the text behind it.
 */
static const char *
next_word(const char *text, char *word, int size)
{
	int			depth = 0;
	int			len = 0;

	for (;;)
	{
		if (text[0] == '/' && text[1] == '*')
		{
			depth++;
			text += 2;
		}
		else if (depth > 0 && text[0] == '*' && text[1] == '/')
		{
			depth--;
			text += 2;
		}
		else if (depth == 0 && text[0] == '-' && text[1] == '-')
		{
			while (*text != '\0' && *text != '\n' && *text != '\r')
				text++;
		}
		else if (*text != '\0' &&
				 (depth > 0 || *text == ';' || scanner_isspace(*text)))
			text++;
		else
			break;
	}
	while ((text[0] >= 'a' && text[0] <= 'z') ||
		   (text[0] >= 'A' && text[0] <= 'Z') || text[0] == '_')
	{
		if (len < size - 1)
			word[len++] = *text;
		text++;
	}
	word[len] = '\0';
	return text;
}

static void
refuse_transaction_control(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("cannot use %s in a remote command", what),
			 errdetail("The remote transaction is part of the local one, and ends with it."),
			 errhint("Use transactions and savepoints in the local session; the servers follow.")));
}

static void
refuse_copy(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot use COPY from or to the client in a remote command"),
			 errhint("Use COPY with a foreign table, or INSERT with dtx.query().")));
}

/*
 * The server that the first argument names.
 */
static Execution *
get_server(FunctionCallInfo fcinfo)
{
	Execution  *e = palloc0(sizeof(Execution));

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("server name must not be null")));
	find_server(e, NameStr(*PG_GETARG_NAME(0)));
	return e;
}

/*
 * The servers whose names are in the array that is the first argument.
 */
static Execution *
get_servers(FunctionCallInfo fcinfo, int *n)
{
	Datum	   *names;
	bool	   *nulls;
	Execution  *executions;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array of server names must not be null")));
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &names, &nulls, n);
	executions = palloc0(sizeof(Execution) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("server name must not be null")));
		find_server(&executions[i], NameStr(*DatumGetName(names[i])));
		for (int j = 0; j < i; j++)
		{
			if (executions[j].serverid == executions[i].serverid)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("server \"%s\" is named more than once",
								executions[i].server)));
		}
	}
	return executions;
}

/*
 * As for creating a foreign table, USAGE on the server is needed.
 */
static void
find_server(Execution *e, const char *name)
{
	ForeignServer *server = GetForeignServerByName(name, false);
	AclResult	aclresult;

	aclresult = DtxForeignServerAclcheck(server->serverid, GetUserId(), ACL_USAGE);
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FOREIGN_SERVER, server->servername);
	if (!DtxWrapperIsPostgresFdw(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of postgres_fdw",
						server->servername)));
	e->server = server->servername;
	e->serverid = server->serverid;
}

/* ----------------------------------------------------------------
 * Running a command
 * ----------------------------------------------------------------
 */

/*
 * Run a command on n servers at the same time, and give the rows of its last
 * statement to the sink, if there is one.  Returns when it has succeeded on all
 * of them; throws as soon as it has failed on one.
 */
static void
run(const RemoteCommand *command, Execution *executions, int n, RowSink *sink)
{
	WaitEventSet *volatile set = NULL;

	if (we_remote_exec == 0)
		we_remote_exec = DtxWaitEvent("DtxRemoteExec");
	if (sink != NULL)
		sink->row_context = AllocSetContextCreate(CurrentMemoryContext,
												  "pg_dtx remote row",
												  ALLOCSET_DEFAULT_SIZES);

	for (int i = 0; i < n; i++)
	{
		executions[i].p = open_session(&executions[i]);
		for (int j = 0; j < i; j++)
		{
			if (executions[j].p == executions[i].p)
				ereport(ERROR,
						(errcode(ERRCODE_INTERNAL_ERROR),
						 errmsg("servers \"%s\" and \"%s\" have the same connection",
								executions[j].server, executions[i].server)));
		}
	}

	PG_TRY();
	{
		Execution  *lost = NULL;

		for (int i = 0; i < n; i++)
		{
			if (PQsocket(executions[i].p->conn) < 0)
				begin_anew(&executions[i]);
		}

		/* Before anything is sent, because it may throw. */
		set = make_set(executions, n);
		for (int i = 0; i < n; i++)
		{
			if (!start(&executions[i], command))
				lost = &executions[i];
		}
		while (lost != NULL ||
			   (lost = wait_for_results(command, executions, n, sink, set)) != NULL)
		{
			WaitEventSet *old = set;

			begin_anew(lost);
			set = NULL;
			FreeWaitEventSet(old);
			set = make_set(executions, n);
			if (!start(lost, command))
				throw_lost(lost);
			lost = NULL;
		}
	}
	PG_CATCH();
	{
		release_results(executions, n);
		if (set != NULL)
		{
			quiesce(executions, n, set);
			FreeWaitEventSet(set);
		}
		PG_RE_THROW();
	}
	PG_END_TRY();
	FreeWaitEventSet(set);
}

/*
 * What is waited for: the latch, the end of the postmaster, and all servers.
 */
static WaitEventSet *
make_set(Execution *executions, int n)
{
	WaitEventSet *set = DtxCreateWaitEventSet(n + 2);

	PG_TRY();
	{
		AddWaitEventToSet(set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		DtxAddPostmasterDeath(set, WL_EXIT_ON_PM_DEATH);
		for (int i = 0; i < n; i++)
		{
			AddWaitEventToSet(set, WL_SOCKET_READABLE,
							  PQsocket(executions[i].p->conn), NULL,
							  &executions[i]);
			executions[i].wants_write = false;
		}
	}
	PG_CATCH();
	{
		FreeWaitEventSet(set);
		PG_RE_THROW();
	}
	PG_END_TRY();
	return set;
}

/*
 * Not all errors of postgres_fdw name the server.
 */
static Participant *
open_session(Execution *e)
{
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = server_context,
		.arg = e
	};
	Participant *p;

	error_context_stack = &callback;
	p = DtxInterposeOpen(e->serverid);
	error_context_stack = callback.previous;
	return p;
}

static void
server_context(void *arg)
{
	errcontext("remote command on server \"%s\"", ((Execution *) arg)->server);
}

/*
 * After an error: libpq's memory is not freed with the transaction's.
 */
static void
release_results(Execution *executions, int n)
{
	for (int i = 0; i < n; i++)
	{
		PQclear(executions[i].result);
		PQclear(executions[i].error);
		executions[i].result = executions[i].error = NULL;
	}
}

/*
 * After an error: get the servers out of the commands that are still under way.
 * Takes a bounded time, whatever the servers do.
 */
static void
quiesce(Execution *executions, int n, WaitEventSet *set)
{
	DtxMoment	deadline = DtxIn(CANCEL_PATIENCE_MS);
	DtxMoment	next_cancel = 0;
	int			retry_ms = CANCEL_RETRY_MS;

	for (int i = 0; i < n; i++)
	{
		Participant *p = executions[i].p;

		/*
		 * Interrupted in the middle of a message: the server waits for the rest
		 * of it, and no cancel would reach it.
		 */
		if (p->piped && PQflush(p->conn) != 0)
		{
			p->piped = false;
			p->broken = true;
		}
		if (executions[i].wants_write && p->piped)
			ModifyWaitEvent(set, i + 2, WL_SOCKET_READABLE, NULL);
	}

	while (any_piped(executions, n) && !ProcDiePending)
	{
		WaitEvent	events[EVENTS_AT_ONCE];
		int			nevents;

		if (DtxIsDue(deadline))
			break;
		if (DtxIsDue(next_cancel))
		{
			for (int i = 0; i < n; i++)
			{
				if (executions[i].p->piped)
					send_cancel(executions[i].p->conn, deadline);
			}
			next_cancel = DtxIn(retry_ms);
			retry_ms *= 2;
		}

		nevents = WaitEventSetWait(set, DtxUntil(Min(next_cancel, deadline)),
								   events, EVENTS_AT_ONCE,
								   we_remote_exec);
		for (int i = 0; i < nevents; i++)
		{
			Execution  *e = (Execution *) events[i].user_data;

			if (events[i].events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			else if (e != NULL)
			{
				(void) PQconsumeInput(e->p->conn);
				(void) ParticipantDrain(e->p);
			}
		}
	}

	/* The next CHECK_FOR_INTERRUPTS() needs no latch, but others may. */
	SetLatch(MyLatch);
}

/*
 * Is a command still under way?  Takes in what has arrived already.
 */
static bool
any_piped(Execution *executions, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (!ParticipantDrain(executions[i].p))
			return true;
	}
	return false;
}

/*
 * Ask a server to cancel what it does on a connection.  Whether that helps shows
 * in the results.
 */
static void
send_cancel(PGconn *conn, DtxMoment deadline)
{
#ifdef LIBPQ_HAS_ASYNC_CANCEL
	PGcancelConn *cancel = PQcancelCreate(conn);

	if (cancel == NULL)
		return;
	if (PQcancelStart(cancel))
	{
		while (!ProcDiePending)
		{
			PostgresPollingStatusType status = PQcancelPoll(cancel);
			long		timeout;

			timeout = DtxUntil(deadline);
			if ((status != PGRES_POLLING_READING &&
				 status != PGRES_POLLING_WRITING) || timeout <= 0)
				break;
			(void) WaitLatchOrSocket(MyLatch,
									 WL_LATCH_SET | WL_TIMEOUT |
									 WL_EXIT_ON_PM_DEATH |
									 (status == PGRES_POLLING_READING ?
									  WL_SOCKET_READABLE : WL_SOCKET_WRITEABLE),
									 PQcancelSocket(cancel), timeout,
									 we_remote_exec);
			ResetLatch(MyLatch);
		}
	}
	PQcancelFinish(cancel);
#else
	PGcancel   *cancel = PQgetCancel(conn);

	if (cancel != NULL)
		(void) DtxCancelSend(cancel, PQcancel, DtxUntil(deadline), we_remote_exec);
#endif
}

/*
 * Send everything to a server, as far as it goes out without waiting.  Returns false
 * if that failed.
 */
static bool
start(Execution *e, const RemoteCommand *command)
{
	Participant *p = e->p;
	PGconn	   *conn = p->conn;
	StringInfoData after;
	int			nbefore = lengthof(before_command) - (XactReadOnly ? 0 : 1);
	int			npending = -1;
	ListCell   *lc;
	bool		ok;

	initStringInfo(&after);
	appendStringInfo(&after, AFTER_COMMAND, GetDatabaseEncodingName());

	strlcpy(e->start_command, p->start_command, DTX_START_SIZE);

	/* From here to the Sync nothing may throw, see the head of the file. */
	if (!PQenterPipelineMode(conn))
		return false;
	p->piped = true;
	p->used = true;
	p->asked = false;
	ok = PQsetnonblocking(conn, 1) == 0;
	if (ok)
		npending = ParticipantSendPending(p);	/* see interpose.c */
	ok = npending >= 0;
	e->step = 1 - nbefore - npending;
	for (int i = 0; i < nbefore; i++)
	{
		ok = ok && PQsendQueryParams(conn, before_command[i], 0, NULL, NULL,
									 NULL, NULL, 0);
	}
	foreach(lc, command->statements)
	{
		ok = ok && PQsendQueryParams(conn, (const char *) lfirst(lc),
									 command->nparams, command->types,
									 command->params,
									 NULL, NULL, 0);
	}
	for (int i = 0; i < (command->tidy ? (int) lengthof(tidy_command) : 0); i++)
	{
		ok = ok && PQsendQueryParams(conn, tidy_command[i], 0, NULL, NULL,
									 NULL, NULL, 0);
	}
	ok = ok &&
		PQsendQueryParams(conn, after.data, 0, NULL, NULL, NULL, NULL, 0) &&
		PQpipelineSync(conn) && PQflush(conn) >= 0;
	pfree(after.data);
	return ok;
}

/*
 * The connection of an execution is lost: make it anew, so that everything can be
 * sent again, if the server has done nothing of it.  Otherwise throws.
 */
static void
begin_anew(Execution *e)
{
	Participant *p = e->p;
	bool		unused = p->start_due || p->start_command[0] != '\0';

	/* Nobody knows what the server has got. */
	p->broken = true;
	if (!unused || e->anew)
		throw_lost(e);

	if (p->start_command[0] != '\0')
		strlcpy(e->start_command, p->start_command, DTX_START_SIZE);
	e->anew = true;
	e->ended = false;
	PQclear(e->result);
	PQclear(e->error);
	e->result = e->error = NULL;
	CoordinatorReconnect(p);
	strlcpy(p->start_command, e->start_command, DTX_START_SIZE);
}

/*
 * Take in the results of all.  Returns NULL when they are complete, or an execution
 * whose connection is lost.
 */
static Execution *
wait_for_results(const RemoteCommand *command, Execution *executions, int n,
				 RowSink *sink, WaitEventSet *set)
{
	int			due = 0;

	for (int i = 0; i < n; i++)
		due += executions[i].done ? 0 : 1;

	while (due > 0)
	{
		WaitEvent	events[EVENTS_AT_ONCE];
		int			nevents;

		/* What has not gone out yet wants a socket that can be written to. */
		for (int i = 0; i < n; i++)
		{
			Execution  *e = &executions[i];
			int			unsent = e->done ? 0 : PQflush(e->p->conn);

			if (unsent < 0)
				return e;
			if ((unsent > 0) != e->wants_write)
			{
				e->wants_write = unsent > 0;
				ModifyWaitEvent(set, i + 2, WL_SOCKET_READABLE |
								(unsent > 0 ? WL_SOCKET_WRITEABLE : 0), NULL);
			}
		}

		nevents = WaitEventSetWait(set, -1, events, EVENTS_AT_ONCE,
								   we_remote_exec);
		for (int i = 0; i < nevents; i++)
		{
			Execution  *e = (Execution *) events[i].user_data;

			if (events[i].events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			else if (e != NULL && (events[i].events & WL_SOCKET_READABLE))
			{
				/* A server that is done has nothing to say but that it dies. */
				if (!PQconsumeInput(e->p->conn) && (e->done || !e->p->start_due))
					throw_lost(e);
				if (e->done)
					continue;
				if (!take_results(e, command, sink))
					return e;
				if (e->done)
				{
					finish(e, command);
					due--;
				}
			}
		}
		CHECK_FOR_INTERRUPTS();
	}
	return NULL;
}

/*
 * Take the results that are here.  Returns false if the connection is lost.
 */
static bool
take_results(Execution *e, const RemoteCommand *command, RowSink *sink)
{
	PGconn	   *conn = e->p->conn;

	while (!e->done && !PQisBusy(conn))
	{
		CHECK_FOR_INTERRUPTS();
		e->result = PQgetResult(conn);
		if (PQstatus(conn) == CONNECTION_BAD)
			return false;
		if (e->result == NULL)
		{
			/* one NULL ends a command, two are the end of everything */
			if (e->ended)
				return false;
			e->ended = true;
			e->step++;

			/* If it does not take effect, all rows come at once. */
			if (e->step >= 1 && e->step <= list_length(command->statements))
				(void) PQsetSingleRowMode(conn);
			continue;
		}
		e->ended = false;
		take_result(e, command, sink);
		PQclear(e->result);
		e->result = NULL;
	}
	return true;
}

static void
take_result(Execution *e, const RemoteCommand *command, RowSink *sink)
{
	Participant *p = e->p;
	int			nstatements = list_length(command->statements);
	bool		is_statement = e->step >= 1 && e->step <= nstatements;
	bool		is_last = e->step == nstatements;	/* never 0 */

	switch (PQresultStatus(e->result))
	{
		case PGRES_SINGLE_TUPLE:
		case PGRES_TUPLES_OK:
			if (is_last && sink != NULL)
				sink->rows(sink, e, e->result);
			if (is_statement && PQresultStatus(e->result) == PGRES_TUPLES_OK)
				take_tag(e);
			break;

		case PGRES_COMMAND_OK:
			p->start_due = false;
			if (is_statement)
				take_tag(e);
			if (is_last && sink != NULL && !sink->optional &&
				e->problem == NO_PROBLEM)
				e->problem = NO_RESULT_SET;
			break;

		case PGRES_FATAL_ERROR:
			if (e->error == NULL)
			{
				e->error = e->result;
				e->error_step = e->step;
				e->result = NULL;
			}
			break;

		case PGRES_EMPTY_QUERY:
		case PGRES_NONFATAL_ERROR:
		case PGRES_PIPELINE_ABORTED:
			break;

		case PGRES_PIPELINE_SYNC:
			p->piped = false;
			if (!PQexitPipelineMode(p->conn) ||
				PQsetnonblocking(p->conn, 0) != 0)
				p->broken = true;
			e->done = true;
			break;

		default:
			/* COPY was refused, so the server is not what it seems */
			p->broken = true;
			ereport(ERROR,
					(errcode(ERRCODE_PROTOCOL_VIOLATION),
					 errmsg("unexpected reply from server \"%s\" to a remote command",
							e->server)));
	}
}

/*
 * Look at the tag of a statement that has succeeded.
 */
static void
take_tag(Execution *e)
{
	static const char *const control[] = {
		"BEGIN", "START TRANSACTION", "COMMIT", "ROLLBACK", "SAVEPOINT",
		"RELEASE", "PREPARE TRANSACTION", "COMMIT PREPARED", "ROLLBACK PREPARED"
	};
	static const char *const writes[] = {
		"INSERT ", "UPDATE ", "DELETE ", "MERGE "
	};
	const char *tag = PQcmdStatus(e->result);
	char	   *tuples = PQcmdTuples(e->result);
	int64		count = tuples[0] != '\0' ? strtoll(tuples, NULL, 10) : 0;

	for (int i = 0; i < lengthof(control); i++)
	{
		if (strcmp(tag, control[i]) == 0)
			e->problem = TRANSACTION_CONTROL;
	}
	for (int i = 0; i < lengthof(writes); i++)
	{
		if (strncmp(tag, writes[i], strlen(writes[i])) == 0 && count > 0)
			e->p->wrote = true;
	}
	/* For all else the server is asked when the transaction commits. */

	e->affected_last = count;
	if (count > 0)
		e->affected += count;
}

/*
 * All results of a server are in: was it a success?
 */
static void
finish(Execution *e, const RemoteCommand *command)
{
	Participant *p = e->p;
	PGTransactionStatusType status = PQtransactionStatus(p->conn);
	bool		lost = p->broken;
	bool		ended;

	ended = e->problem == TRANSACTION_CONTROL ||
		status != (e->error != NULL ? PQTRANS_INERROR : PQTRANS_INTRANS);

	/* There is no going on with a session that has left its transaction. */
	if (ended)
		p->broken = true;

	if (e->error != NULL)
		throw_remote(e, command);
	if (lost)
		throw_lost(e);
	if (ended)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("remote command ended the transaction on server \"%s\"",
						e->server),
				 errdetail("The remote transaction is part of the local one, and ends with it.")));
	if (e->problem == NO_RESULT_SET)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("remote command returns no rows on server \"%s\"",
						e->server),
				 errhint("Add RETURNING, or use dtx.exec().")));
}

/*
 * The connection failed.
 */
static void
throw_lost(Execution *e)
{
	char	   *detail = NULL;

	/* A server that closes a session may have said why. */
	if (e->error != NULL)
		detail = DtxRemoteText(e->error, PG_DIAG_MESSAGE_PRIMARY);
	if (detail == NULL && e->result != NULL)
		detail = DtxRemoteText(e->result, PG_DIAG_MESSAGE_PRIMARY);
	if (detail == NULL)
		detail = DtxCleanText(PQerrorMessage(e->p->conn), DTX_MAX_REMOTE_TEXT);

	e->p->broken = true;
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("connection to server \"%s\" was lost", e->server),
			 detail[0] != '\0' ? errdetail_internal("%s", detail) : 0));
}

/*
 * Pass on the error that the server has reported.
 */
static void
throw_remote(Execution *e, const RemoteCommand *command)
{
	const char *sqlstate = PQresultErrorField(e->error, PG_DIAG_SQLSTATE);
	const char *position = PQresultErrorField(e->error, PG_DIAG_STATEMENT_POSITION);
	char	   *message = DtxRemoteText(e->error, PG_DIAG_MESSAGE_PRIMARY);
	char	   *detail = DtxRemoteText(e->error, PG_DIAG_MESSAGE_DETAIL);
	char	   *hint = DtxRemoteText(e->error, PG_DIAG_MESSAGE_HINT);
	char	   *context = DtxRemoteText(e->error, PG_DIAG_CONTEXT);
	int			code = ERRCODE_CONNECTION_FAILURE;
	const char *statement = NULL;

	if (sqlstate != NULL && strspn(sqlstate, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == 5 &&
		sqlstate[5] == '\0')
		code = MAKE_SQLSTATE(sqlstate[0], sqlstate[1], sqlstate[2],
							 sqlstate[3], sqlstate[4]);
	if (e->error_step >= 1 && e->error_step <= list_length(command->statements))
		statement = list_nth(command->statements, e->error_step - 1);

	ereport(ERROR,
			(errcode(code),
			 errmsg("server \"%s\": %s", e->server,
					message ? message : "unknown error"),
			 detail ? errdetail_internal("%s", detail) : 0,
			 hint ? errhint("%s", hint) : 0,
			 context ? errcontext("%s", context) : 0,
			 statement ? internalerrquery(statement) : 0,
			 statement && position ? internalerrposition(atoi(position)) : 0,
			 DtxRemoteFields(e->error),
			 errcontext("remote command on server \"%s\"", e->server)));
}

/* ----------------------------------------------------------------
 * Rows
 * ----------------------------------------------------------------
 */

/*
 * Get ready to return the rows that the column definition list describes.
 */
static void
begin_rows(FunctionCallInfo fcinfo, RowSink *sink)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		rsinfo->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record"),
				 errhint("Call it in FROM with a column definition list, as in: SELECT * FROM dtx.query(...) AS t(id integer, name text).")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	sink->rows = take_rows;
	sink->store = rsinfo->setResult;
	sink->desc = rsinfo->setDesc;
	sink->attin = TupleDescGetAttInMetadata(sink->desc);
}

/*
 * Rows for dtx.query() and dtx.query_all().
 */
static void
take_rows(RowSink *sink, Execution *e, PGresult *res)
{
	check_columns(sink, e, res);
	for (int row = 0; row < PQntuples(res); row++)
	{
		HeapTuple	tuple = make_row(sink, e, res, row);

		tuplestore_puttuple(sink->store, tuple);
	}
	MemoryContextReset(sink->row_context);
}

/*
 * Rows for dtx.query_json().
 */
static void
take_json_rows(RowSink *sink, Execution *e, PGresult *res)
{
	describe_for_json(sink, e, res);
	for (int row = 0; row < PQntuples(res); row++)
	{
		Datum		json = make_json(sink, e, res, row);
		bool		isnull = false;

		tuplestore_putvalues(sink->store, sink->desc, &json, &isnull);
	}
	MemoryContextReset(sink->row_context);
}

/*
 * The first row, for DtxRemoteExecute().  What follows it is not looked at.
 */
static void
take_first_row(RowSink *sink, Execution *e, PGresult *res)
{
	if (sink->found || PQntuples(res) == 0)
		return;
	describe_for_json(sink, e, res);
	sink->first = PointerGetDatum(PG_DETOAST_DATUM_COPY(make_json(sink, e, res, 0)));
	sink->found = true;
	MemoryContextReset(sink->row_context);
}

/*
 * Get ready to make rows of the columns that a result has.
 */
static void
describe_for_json(RowSink *sink, Execution *e, const PGresult *res)
{
	if (sink->attin == NULL)
		sink->attin = TupleDescGetAttInMetadata(describe_result(res));
	if (PQnfields(res) != sink->attin->tupdesc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("rows from server \"%s\" differ in their number of columns",
						e->server)));
}

/*
 * A row as an object of jsonb, in the sink's row context, which is reset before.
 */
static Datum
make_json(RowSink *sink, Execution *e, PGresult *res, int row)
{
	HeapTuple	tuple = make_row(sink, e, res, row);
	MemoryContext old = MemoryContextSwitchTo(sink->row_context);
	ValuePosition position = {.e = e, .res = res, .column = -1};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = value_context,
		.arg = &position
	};
	Datum		json;

	/* A value that is good JSON may still not be good jsonb. */
	error_context_stack = &callback;
	json = DirectFunctionCall1(row_to_json, HeapTupleGetDatum(tuple));
	json = DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(TextDatumGetCString(json)));
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);
	return json;
}

/*
 * Does the result have the columns of the column definition list?
 */
static void
check_columns(RowSink *sink, Execution *e, PGresult *res)
{
	int			expected = sink->desc->natts - (sink->server_column ? 1 : 0);

	if (PQnfields(res) != expected)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("remote query returns another number of columns than the column definition list has"),
				 errdetail("Server \"%s\" returned %d, and the list has %d.",
						   e->server, PQnfields(res), expected),
				 sink->server_column ?
				 errhint("The first column in the list is for the name of the server, and is not counted here.") : 0));
}

/*
 * A local row type for the columns of a result, whose values are to become
 * JSON.
 */
static TupleDesc
describe_result(const PGresult *res)
{
	int			natts = PQnfields(res);
	TupleDesc	desc;

	if (natts > MaxTupleAttributeNumber)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_COLUMNS),
				 errmsg("remote query returns too many columns: %d", natts)));
	desc = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < natts; i++)
	{
		char	   *name = PQfname(res, i);

		(void) pg_verifymbstr(name, strlen(name), false);
		TupleDescInitEntry(desc, i + 1, name, type_for_json(PQftype(res, i)),
						   -1, 0);
	}
	return BlessTupleDesc(desc);
}

/*
 * The local type by which a remote value becomes JSON.
 *
 * Types with numbers that are fixed by hand (access/transam.h) are the same on
 * all servers.  Of them, take those whose JSON is something else than a string
 * of their text, and arrays of those or of strings.  All others, first of all
 * the server's own types, become strings.
 */
static Oid
type_for_json(Oid type)
{
	Oid			element = type;

	if (type >= FirstGenbkiObjectId)
		return TEXTOID;
	if (get_element_type(type) != InvalidOid)
		element = get_element_type(type);

	switch (element)
	{
		case BOOLOID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case OIDOID:
		case FLOAT4OID:
		case FLOAT8OID:
		case NUMERICOID:
		case JSONOID:
		case JSONBOID:
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case NAMEOID:
		case UUIDOID:
		case BYTEAOID:
			return type;
		default:
			return TEXTOID;
	}
}

/*
 * Make a row of the values in a result, by the input functions of its types, in
 * the sink's row context, which is reset before.
 */
static HeapTuple
make_row(RowSink *sink, Execution *e, PGresult *res, int row)
{
	AttInMetadata *attin = sink->attin;
	int			first = sink->server_column ? 1 : 0;
	int			natts = attin->tupdesc->natts;
	MemoryContext old;
	ErrorContextCallback callback;
	ValuePosition position;
	Datum	   *values;
	bool	   *nulls;
	HeapTuple	tuple;

	e->nrows++;
	position.e = e;
	position.res = res;
	position.column = -1;
	callback.callback = value_context;
	callback.arg = &position;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	MemoryContextReset(sink->row_context);
	old = MemoryContextSwitchTo(sink->row_context);
	values = palloc(sizeof(Datum) * Max(natts, 1));
	nulls = palloc(sizeof(bool) * Max(natts, 1));
	for (int i = 0; i < natts; i++)
	{
		char	   *value = NULL;

		position.column = i - first;
		if (i < first)
			value = e->server;
		else if (!PQgetisnull(res, row, i - first))
		{
			value = PQgetvalue(res, row, i - first);
			(void) pg_verifymbstr(value, strlen(value), false);
		}

		/* Called for nulls, too: a domain may not take them. */
		values[i] = InputFunctionCall(&attin->attinfuncs[i], value,
									  attin->attioparams[i],
									  attin->atttypmods[i]);
		nulls[i] = value == NULL;
	}
	position.column = -1;
	tuple = heap_form_tuple(attin->tupdesc, values, nulls);
	MemoryContextSwitchTo(old);

	error_context_stack = callback.previous;
	return tuple;
}

static void
value_context(void *arg)
{
	const ValuePosition *position = (const ValuePosition *) arg;
	char	   *name;

	if (position->column < 0)
	{
		errcontext("row " INT64_FORMAT " from server \"%s\"",
				   position->e->nrows, position->e->server);
		return;
	}
	name = DtxCleanText(PQfname(position->res, position->column), NAMEDATALEN);
	errcontext("column \"%s\" of row " INT64_FORMAT " from server \"%s\"",
			   name, position->e->nrows, position->e->server);
}
