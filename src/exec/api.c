/*-------------------------------------------------------------------------
 *
 * api.c
 *		Remote SQL for users: dtx.exec(), dtx.query() and their relatives; and for
 *		the steps of sagas.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "exec/api.h"
#include "exec/rows.h"
#include "exec/run.h"
#include "exec/statements.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/palloc.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dtx_sql_exec);
PG_FUNCTION_INFO_V1(dtx_sql_exec_all);
PG_FUNCTION_INFO_V1(dtx_sql_query);
PG_FUNCTION_INFO_V1(dtx_sql_query_all);
PG_FUNCTION_INFO_V1(dtx_sql_query_json);

static void get_command(FunctionCallInfo fcinfo, DtxRemoteCommand *command);
static DtxExecution *get_server(FunctionCallInfo fcinfo);
static DtxExecution *get_servers(FunctionCallInfo fcinfo, int *n);
static DtxExecution *all_servers(int *n);
static int	compare_servers(const ListCell *a, const ListCell *b);
static void find_server(DtxExecution *e, const char *name);

/*
 * dtx.exec(server, command, params): run a command and count the rows.
 */
Datum
dtx_sql_exec(PG_FUNCTION_ARGS)
{
	DtxRemoteCommand command;
	DtxExecution *e;

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	DtxRun(&command, e, 1, NULL);
	PG_RETURN_INT64(e->affected);
}

/*
 * dtx.exec_all(servers, command, params): the same on all servers at once.
 */
Datum
dtx_sql_exec_all(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	DtxRemoteCommand command;
	DtxExecution *executions;
	int			n;

	get_command(fcinfo, &command);
	executions = get_servers(fcinfo, &n);
	InitMaterializedSRF(fcinfo, 0);
	DtxRun(&command, executions, n, NULL);

	for (int i = 0; i < n; i++)
	{
		NameData	name;
		Datum		values[2];
		bool		nulls[2] = {false, false};

		namestrcpy(&name, executions[i].source.server);
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
	DtxRemoteCommand command;
	DtxExecution *e;
	DtxRowSink	sink;

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	DtxRowsAsRecords(fcinfo, false, &sink);
	DtxRun(&command, e, 1, &sink);
	return (Datum) 0;
}

/*
 * dtx.query_all(servers, query, params): rows of all servers, whose names come
 * in the first column.
 */
Datum
dtx_sql_query_all(PG_FUNCTION_ARGS)
{
	DtxRemoteCommand command;
	DtxExecution *executions;
	int			n;
	DtxRowSink	sink;

	get_command(fcinfo, &command);
	executions = get_servers(fcinfo, &n);
	DtxRowsAsRecords(fcinfo, true, &sink);
	DtxRun(&command, executions, n, &sink);
	return (Datum) 0;
}

/*
 * dtx.query_json(server, query, params): rows as objects of jsonb, for which no
 * column definition list is needed.
 */
Datum
dtx_sql_query_json(PG_FUNCTION_ARGS)
{
	DtxRemoteCommand command;
	DtxExecution *e;
	DtxRowSink	sink;

	get_command(fcinfo, &command);
	e = get_server(fcinfo);
	DtxRowsAsJson(fcinfo, &sink);
	DtxRun(&command, e, 1, &sink);
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
	DtxRemoteCommand command;
	DtxExecution *e = palloc0(sizeof(DtxExecution));
	DtxRowSink	sink;

	command.statements = DtxSplitStatements(text);
	command.nparams = nparams;
	command.types = types;
	command.params = params;
	command.tidy = true;
	find_server(e, server);
	DtxRowsFirst(row != NULL, &sink);
	DtxRun(&command, e, 1, &sink);
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
get_command(FunctionCallInfo fcinfo, DtxRemoteCommand *command)
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

	command->statements = DtxSplitStatements(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (command->nparams > 0 && list_length(command->statements) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot pass parameters to more than one statement"),
				 errhint("Call the function once for each statement.")));
}

/*
 * The server that the first argument names.
 */
static DtxExecution *
get_server(FunctionCallInfo fcinfo)
{
	DtxExecution *e = palloc0(sizeof(DtxExecution));

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("server name must not be null")));
	find_server(e, NameStr(*PG_GETARG_NAME(0)));
	return e;
}

/* Orders servers by name. */
static int
compare_servers(const ListCell *a, const ListCell *b)
{
	return strcmp(((ForeignServer *) lfirst(a))->servername,
				  ((ForeignServer *) lfirst(b))->servername);
}

/*
 * All servers of postgres_fdw that the caller may use, by name.
 */
static DtxExecution *
all_servers(int *n)
{
	List	   *servers = DtxPostgresFdwServers();
	DtxExecution *executions = palloc0(sizeof(DtxExecution) *
									   Max(list_length(servers), 1));
	ListCell   *lc;

	list_sort(servers, compare_servers);
	*n = 0;
	foreach(lc, servers)
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);

		if (DtxForeignServerAclcheck(server->serverid, GetUserId(),
									 ACL_USAGE) == ACLCHECK_OK)
			find_server(&executions[(*n)++], server->servername);
	}
	return executions;
}

/*
 * The servers whose names are in the array that is the first argument; null: all
 * that the caller may use.
 */
static DtxExecution *
get_servers(FunctionCallInfo fcinfo, int *n)
{
	Datum	   *names;
	bool	   *nulls;
	DtxExecution *executions;

	if (PG_ARGISNULL(0))
		return all_servers(n);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), NAMEOID, NAMEDATALEN, false,
					  TYPALIGN_CHAR, &names, &nulls, n);
	executions = palloc0(sizeof(DtxExecution) * Max(*n, 1));
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
								executions[i].source.server)));
		}
	}
	return executions;
}

/*
 * As for creating a foreign table, USAGE on the server is needed.
 */
static void
find_server(DtxExecution *e, const char *name)
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
	e->source.server = server->servername;
	e->serverid = server->serverid;
}
