/*-------------------------------------------------------------------------
 *
 * statements.h
 *		The statements of a remote command.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STATEMENTS_H
#define PG_DTX_STATEMENTS_H

#include "nodes/pg_list.h"

extern List *DtxSplitStatements(const char *text);

#endif							/* PG_DTX_STATEMENTS_H */
