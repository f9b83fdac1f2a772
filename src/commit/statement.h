/*-------------------------------------------------------------------------
 *
 * statement.h
 *		Statements that postgres_fdw sends again and again, prepared on the server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STATEMENT_H
#define PG_DTX_STATEMENT_H

#include "libpq-fe.h"

typedef struct DtxStatementCache DtxStatementCache; /* statement.c */

/* Those of one connection.  All zero: none. */
typedef struct DtxStatements
{
	DtxStatementCache *cache;	/* or NULL */
	uint32		last_number;	/* in the name of the last one prepared */
} DtxStatements;

extern const char *DtxStatementUse(DtxStatements *s, const char *sql,
								   bool *prepare);
extern void DtxStatementDone(DtxStatements *s, const PGresult *result);
extern void DtxStatementForgetAll(DtxStatements *s);

#endif							/* PG_DTX_STATEMENT_H */
