/*-------------------------------------------------------------------------
 *
 * statement.h
 *		Statements that postgres_fdw sends again and again, prepared on the server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STATEMENT_H
#define PG_DTX_STATEMENT_H

#include "commit/participant.h"
#include "libpq-fe.h"

extern const char *StatementUse(Participant *p, const char *sql, bool *prepare);
extern void StatementDone(Participant *p, const PGresult *result);
extern void StatementForgetAll(Participant *p);

#endif							/* PG_DTX_STATEMENT_H */
