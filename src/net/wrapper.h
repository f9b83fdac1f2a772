/*-------------------------------------------------------------------------
 *
 * wrapper.h
 *		Which foreign-data wrappers are postgres_fdw, and which servers they have.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WRAPPER_H
#define PG_DTX_WRAPPER_H

#include "nodes/pg_list.h"

/* The C function that makes a foreign-data wrapper a postgres_fdw. */
#define DTX_POSTGRES_FDW_HANDLER	"postgres_fdw_handler"

extern bool DtxWrapperIsPostgresFdw(Oid fdwid);
extern const void *DtxWrapperHandler(Oid fdwid);
extern List *DtxPostgresFdwWrappers(void);
extern List *DtxPostgresFdwServers(void);

#endif							/* PG_DTX_WRAPPER_H */
