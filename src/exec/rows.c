/*-------------------------------------------------------------------------
 *
 * rows.c
 *		Rows that a remote command returns, made into local ones, or into jsonb.
 *
 * A sink is made by DtxRowsAsRecords(), DtxRowsAsJson() or DtxRowsFirst(), in the memory
 * context in which its rows are kept, and serves one DtxRun().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "base/compat.h"
#include "catalog/pg_type.h"
#include "exec/rows.h"
#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "net/text.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/tuplestore.h"

/* For the error context while a value is converted. */
typedef struct ValuePosition
{
	const DtxRowSource *source;
	const PGresult *res;
	int			column;			/* from 0; -1: the row as a whole */
} ValuePosition;

static void take_rows(DtxRowSink *sink, DtxRowSource *source, PGresult *res);
static void take_json_rows(DtxRowSink *sink, DtxRowSource *source, PGresult *res);
static void take_first_row(DtxRowSink *sink, DtxRowSource *source, PGresult *res);
static void describe_for_json(DtxRowSink *sink, DtxRowSource *source,
							  const PGresult *res);
static Datum make_json(DtxRowSink *sink, DtxRowSource *source, PGresult *res,
					   int row);
static void check_columns(DtxRowSink *sink, DtxRowSource *source, PGresult *res);
static TupleDesc describe_result(const PGresult *res);
static Oid	type_for_json(Oid type);
static HeapTuple make_row(DtxRowSink *sink, DtxRowSource *source, PGresult *res,
						  int row);
static void value_context(void *arg);

/*
 * Get ready to return the rows that the column definition list describes; with
 * "server_column" the name of the server comes first.  Throws
 * ERRCODE_FEATURE_NOT_SUPPORTED if there is none.
 */
void
DtxRowsAsRecords(FunctionCallInfo fcinfo, bool server_column, DtxRowSink *sink)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	if (rsinfo == NULL || !IsA(rsinfo, ReturnSetInfo) ||
		rsinfo->expectedDesc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("function returning record called in context that cannot accept type record"),
				 errhint("Call it in FROM with a column definition list, as in: SELECT * FROM dtx.query(...) AS t(id integer, name text).")));

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(sink, 0, sizeof(DtxRowSink));
	sink->server_column = server_column;
	sink->rows = take_rows;
	sink->store = rsinfo->setResult;
	sink->desc = rsinfo->setDesc;
	sink->attin = TupleDescGetAttInMetadata(sink->desc);
}

/*
 * Get ready to return rows as objects of jsonb.
 */
void
DtxRowsAsJson(FunctionCallInfo fcinfo, DtxRowSink *sink)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	memset(sink, 0, sizeof(DtxRowSink));
	sink->rows = take_json_rows;
	sink->store = rsinfo->setResult;
	sink->desc = rsinfo->setDesc;
}

/*
 * Get ready to keep the first row as jsonb, in the current memory context, if it is
 * wanted: then sink->found says whether there was one, and sink->first is that.
 */
void
DtxRowsFirst(bool wanted, DtxRowSink *sink)
{
	memset(sink, 0, sizeof(DtxRowSink));
	sink->rows = take_first_row;
	sink->optional = true;
	sink->found = !wanted;
}

/*
 * Rows for dtx.query() and dtx.query_all().
 */
static void
take_rows(DtxRowSink *sink, DtxRowSource *source, PGresult *res)
{
	check_columns(sink, source, res);
	for (int row = 0; row < PQntuples(res); row++)
	{
		HeapTuple	tuple = make_row(sink, source, res, row);

		tuplestore_puttuple(sink->store, tuple);
	}
	MemoryContextReset(sink->row_context);
}

/*
 * Rows for dtx.query_json().
 */
static void
take_json_rows(DtxRowSink *sink, DtxRowSource *source, PGresult *res)
{
	describe_for_json(sink, source, res);
	for (int row = 0; row < PQntuples(res); row++)
	{
		Datum		json = make_json(sink, source, res, row);
		bool		isnull = false;

		tuplestore_putvalues(sink->store, sink->desc, &json, &isnull);
	}
	MemoryContextReset(sink->row_context);
}

/*
 * The first row, for DtxRowsFirst().  What follows it is not looked at.
 */
static void
take_first_row(DtxRowSink *sink, DtxRowSource *source, PGresult *res)
{
	int			nestlevel;

	if (sink->found || PQntuples(res) == 0)
		return;
	describe_for_json(sink, source, res);
	nestlevel = DtxResultSettings();
	sink->first = PointerGetDatum(PG_DETOAST_DATUM_COPY(make_json(sink, source, res, 0)));
	AtEOXact_GUC(true, nestlevel);
	sink->found = true;
	MemoryContextReset(sink->row_context);
}

/*
 * Get ready to make rows of the columns that a result has.
 */
static void
describe_for_json(DtxRowSink *sink, DtxRowSource *source, const PGresult *res)
{
	if (sink->attin == NULL)
		sink->attin = TupleDescGetAttInMetadata(describe_result(res));
	if (PQnfields(res) != sink->attin->tupdesc->natts)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("rows from server \"%s\" differ in their number of columns",
						source->server)));
}

/*
 * A row, of a composite type, as an object of jsonb.  Throws if a value of type json
 * is none of jsonb.
 */
Datum
DtxRowToJsonb(Datum row)
{
	Datum		json = DirectFunctionCall1(row_to_json, row);

	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(TextDatumGetCString(json)));
}

/*
 * A row as an object of jsonb, in the sink's row context, which is reset before.
 */
static Datum
make_json(DtxRowSink *sink, DtxRowSource *source, PGresult *res, int row)
{
	HeapTuple	tuple = make_row(sink, source, res, row);
	MemoryContext old = MemoryContextSwitchTo(sink->row_context);
	ValuePosition position = {.source = source,.res = res,.column = -1};
	ErrorContextCallback callback = {
		.previous = error_context_stack,
		.callback = value_context,
		.arg = &position
	};
	Datum		json;

	/* A value that is good JSON may still not be good jsonb. */
	error_context_stack = &callback;
	json = DtxRowToJsonb(HeapTupleGetDatum(tuple));
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(old);
	return json;
}

/*
 * Does the result have the columns of the column definition list?
 */
static void
check_columns(DtxRowSink *sink, DtxRowSource *source, PGresult *res)
{
	int			expected = sink->desc->natts - (sink->server_column ? 1 : 0);

	if (PQnfields(res) != expected)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("remote query returns another number of columns than the column definition list has"),
				 errdetail("Server \"%s\" returned %d, and the list has %d.",
						   source->server, PQnfields(res), expected),
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
	DtxUniqueColumns(desc);
	return BlessTupleDesc(desc);
}

/*
 * Of columns of the same name, which would be one member of an object, the second one gets
 * the name with _2, and so on.  The row type must not be blessed yet.
 */
void
DtxUniqueColumns(TupleDesc desc)
{
	for (int i = 1; i < desc->natts; i++)
	{
		char	   *name = NameStr(TupleDescAttr(desc, i)->attname);
		char	   *original = pstrdup(name);

		for (int n = 2, j = 0; j < i; j++)
		{
			char		suffix[16];
			int			len;

			if (strcmp(NameStr(TupleDescAttr(desc, j)->attname), name) != 0)
				continue;
			snprintf(suffix, sizeof(suffix), "_%d", n++);
			len = pg_mbcliplen(original, strlen(original),
							   NAMEDATALEN - 1 - strlen(suffix));
			memcpy(name, original, len);
			strlcpy(name + len, suffix, NAMEDATALEN - len);
			j = -1;				/* is that free? */
		}
		pfree(original);
	}
}

/*
 * Values in the results of steps are written in one way, whatever the settings of the
 * role, until AtEOXact_GUC(true, nestlevel) with the number that this returns.  In a
 * transaction.
 */
int
DtxResultSettings(void)
{
	static const char *const settings[][2] = {
		{"bytea_output", "hex"},
		{"DateStyle", "ISO, YMD"},
		{"extra_float_digits", "1"},
		{"IntervalStyle", "postgres"},
		{"TimeZone", "UTC"}
	};
	int			nestlevel = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	return nestlevel;
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
make_row(DtxRowSink *sink, DtxRowSource *source, PGresult *res, int row)
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

	source->nrows++;
	position.source = source;
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
			value = source->server;
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
				   position->source->nrows, position->source->server);
		return;
	}
	name = DtxCleanText(PQfname(position->res, position->column), NAMEDATALEN);
	errcontext("column \"%s\" of row " INT64_FORMAT " from server \"%s\"",
			   name, position->source->nrows, position->source->server);
}
