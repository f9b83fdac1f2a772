/*-------------------------------------------------------------------------
 *
 * rows.h
 *		What becomes of the rows that a remote command returns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ROWS_H
#define PG_DTX_ROWS_H

#include "fmgr.h"
#include "funcapi.h"
#include "libpq-fe.h"
#include "utils/tuplestore.h"

/* Where rows come from. */
typedef struct DtxRowSource
{
	char	   *server;			/* name of the server */
	int64		nrows;			/* rows received of the last statement */
} DtxRowSource;

/*
 * Where the rows of the last statement go.  "rows" is called for every result
 * that has rows or could have had some, so at least once.
 */
typedef struct DtxRowSink
{
	void		(*rows) (struct DtxRowSink *sink, DtxRowSource *source,
						 PGresult *res);
	Tuplestorestate *store;
	TupleDesc	desc;			/* of the rows in the store */
	AttInMetadata *attin;		/* how to make them, or NULL until known */
	bool		server_column;	/* does the server's name come first? */
	bool		optional;		/* may there be no rows? */
	bool		found;			/* the first row: is there one? */
	Datum		first;			/* ... as jsonb, in the caller's context */
	MemoryContext row_context;	/* reset for every row */
} DtxRowSink;

extern void DtxRowsAsRecords(FunctionCallInfo fcinfo, bool server_column,
							 DtxRowSink *sink);
extern void DtxRowsAsJson(FunctionCallInfo fcinfo, DtxRowSink *sink);
extern void DtxUniqueColumns(TupleDesc desc);
extern int	DtxResultSettings(void);
extern Datum DtxRowToJsonb(Datum row);
extern void DtxRowsFirst(bool wanted, DtxRowSink *sink);

#endif							/* PG_DTX_ROWS_H */
