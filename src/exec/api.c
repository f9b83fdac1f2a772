/*-------------------------------------------------------------------------
 *
 * api.c
 *		Remote SQL for users: dtx.exec(), dtx.query() and their relatives; and for
 *		the steps of sagas.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
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
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/palloc.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dtx_sql_exec);
PG_FUNCTION_INFO_V1(dtx_sql_exec_all);
PG_FUNCTION_INFO_V1(dtx_sql_query);
PG_FUNCTION_INFO_V1(dtx_sql_query_all);
PG_FUNCTION_INFO_V1(dtx_sql_query_json);

static void get_command(FunctionCallInfo fcinfo, DtxRemoteCommand *command);
static void get_params(FunctionCallInfo fcinfo, DtxRemoteCommand *command);
static void read_array(FunctionCallInfo fcinfo, Oid *element, Datum **values,
					   bool **nulls, int *n);
static int	set_transmission_modes(void);
static bool has_text(Oid type);
static char *to_text(Oid type, Datum value);
static Oid	type_to_send(Oid type);
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
 * For the steps of sagas: run a command whose parameters have the given types, and that
 * may be several statements, all of which get the parameters.  They wait for locks
 * there for "lock_timeout" milliseconds at most (0: as the server says), unless the
 * session there has a limit already.  Returns the number of rows of the last one, and
 * its first row as jsonb, in the current memory context; *isnull says that there was
 * none.  If "row" is NULL, nobody wants that row, so it need not be one that jsonb can
 * hold.  Throws what dtx.exec() throws; the caller has a snapshot.
 */
int64
DtxRemoteExecute(const char *server, const char *text, int nparams,
				 const Oid *types, const char **params, int lock_timeout,
				 Datum *row, bool *isnull)
{
	DtxRemoteCommand command;
	DtxExecution *e = palloc0(sizeof(DtxExecution));
	DtxRowSink	sink;

	command.statements = DtxSplitStatements(text);
	command.nparams = nparams;
	command.types = types;
	command.params = params;
	command.tidy = true;
	command.lock_timeout = lock_timeout;
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

/*
 * The column "value" of the first row of a query on a server, as part of the current
 * transaction, with the rights and the user mapping of the current user.  Text in the
 * current memory context, "" if it is null or if there is no row.  Throws what dtx.query()
 * throws; the caller has a snapshot.
 */
char *
DtxRemoteAsk(const char *server, const char *query)
{
	DtxRemoteCommand command = {0};
	DtxExecution *e = palloc0(sizeof(DtxExecution));
	DtxRowSink	sink;
	JsonbValue	value;

	command.statements = list_make1(pstrdup(query));
	find_server(e, server);
	DtxRowsFirst(true, &sink);
	DtxRun(&command, e, 1, &sink);
	if (!sink.found ||
		getKeyJsonValueFromContainer(&DatumGetJsonbP(sink.first)->root, "value", strlen("value"), &value) == NULL ||
		value.type != jbvString)
		return pstrdup("");
	return pnstrdup(value.val.string.val, value.val.string.len);
}

/* ----------------------------------------------------------------
 * Arguments
 * ----------------------------------------------------------------
 */

/*
 * The command, which is the second argument, and its parameters.
 */
static void
get_command(FunctionCallInfo fcinfo, DtxRemoteCommand *command)
{
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("remote command must not be null")));
	command->tidy = false;
	command->lock_timeout = 0;
	get_params(fcinfo, command);
	command->statements = DtxSplitStatements(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	if (command->nparams > 0 && list_length(command->statements) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("cannot pass parameters to more than one statement"),
				 errhint("Call the function once for each statement.")));
}

/*
 * The parameters: one array, or, of the functions that are VARIADIC "any", the
 * arguments from the third one on.
 *
 * All are sent as text, of "any" written so that settings here do not matter, and with
 * those types that servers know, too: what the command makes of such a value is what it
 * would be here.  All else is read as what the command wants in that place.
 */
static void
get_params(FunctionCallInfo fcinfo, DtxRemoteCommand *command)
{
	bool		any = get_func_variadictype(fcinfo->flinfo->fn_oid) == ANYOID;
	bool		is_array = !any || get_fn_expr_variadic(fcinfo->flinfo);
	int			nparams = PG_NARGS() - 2;
	Datum	   *values = NULL;
	bool	   *nulls = NULL;
	Oid			element = InvalidOid;
	Oid		   *types;
	bool		typed = false;
	int			nestlevel;

	if (is_array)
		read_array(fcinfo, &element, &values, &nulls, &nparams);
	if (nparams > PG_UINT16_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_TOO_MANY_ARGUMENTS),
				 errmsg("remote command has too many parameters: %d", nparams),
				 errdetail("The limit is %d.", PG_UINT16_MAX)));
	types = palloc0(sizeof(Oid) * Max(nparams, 1));
	command->nparams = nparams;
	command->params = palloc(sizeof(char *) * Max(nparams, 1));

	nestlevel = any ? set_transmission_modes() : NewGUCNestLevel();
	for (int i = 0; i < nparams; i++)
	{
		Oid			type = is_array ? element : get_fn_expr_argtype(fcinfo->flinfo, i + 2);
		bool		isnull = is_array ? nulls[i] : PG_ARGISNULL(i + 2);

		if (!has_text(type))
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("parameter $%d of a remote command must not be of type %s",
							i + 1, format_type_be(type))));
		command->params[i] = NULL;
		if (!isnull)
			command->params[i] = to_text(type, is_array ? values[i] : PG_GETARG_DATUM(i + 2));
		if (any)
			types[i] = type_to_send(type);
		typed |= OidIsValid(types[i]);
	}
	AtEOXact_GUC(true, nestlevel);

	/* Without types the server counts the parameters, too. */
	command->types = typed ? types : NULL;
}

/*
 * The array of parameters, taken to pieces in the current memory context.
 */
static void
read_array(FunctionCallInfo fcinfo, Oid *element, Datum **values, bool **nulls, int *n)
{
	ArrayType  *array;
	int16		typlen;
	bool		typbyval;
	char		typalign;

	if (PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("array of parameters must not be null"),
				 errhint("An element of the array can be null.")));
	if (!OidIsValid(get_base_element_type(get_fn_expr_argtype(fcinfo->flinfo, 2))))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("VARIADIC argument must be an array")));
	array = PG_GETARG_ARRAYTYPE_P(2);
	*element = ARR_ELEMTYPE(array);
	get_typlenbyvalalign(*element, &typlen, &typbyval, &typalign);
	deconstruct_array(array, *element, typlen, typbyval, typalign, values, nulls, n);
}

/*
 * Settings under which values are written so that they can be read anywhere, as
 * postgres_fdw and pg_dump do.  To be undone by AtEOXact_GUC().
 */
static int
set_transmission_modes(void)
{
	static const char *const modes[][2] = {
		{"DateStyle", "ISO"}, {"IntervalStyle", "postgres"}, {"extra_float_digits", "3"},

		/* Names of objects are written with their schemas. */
		{"search_path", "pg_catalog"}
	};
	int			nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(modes); i++)
		(void) set_config_option(modes[i][0], modes[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
}

/* Can a value of this type, a literal's included, be written as text? */
static bool
has_text(Oid type)
{
	return get_typtype(type) != TYPTYPE_PSEUDO || type == UNKNOWNOID ||
		type == RECORDOID || type == RECORDARRAYOID;
}

static char *
to_text(Oid type, Datum value)
{
	Oid			output;
	bool		is_varlena;

	getTypeOutputInfo(type, &output, &is_varlena);
	return OidOutputFunctionCall(output, value);
}

/*
 * The type with which a parameter goes: its own, if all servers have it under the same
 * OID.  0, which leaves it to the server to find out: others, and strings, which are what
 * everything else is written in ('2020-02-03', '{"a": 1}').
 */
static Oid
type_to_send(Oid type)
{
	Oid			element = get_element_type(type);
	char		category;
	bool		preferred;

	if (type >= FirstGenbkiObjectId || get_typtype(type) == TYPTYPE_PSEUDO)
		return InvalidOid;
	get_type_category_preferred(OidIsValid(element) ? element : type, &category, &preferred);
	return category == TYPCATEGORY_STRING ? InvalidOid : type;
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
