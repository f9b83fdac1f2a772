/*-------------------------------------------------------------------------
 *
 * owners.h
 *		Whose a prepared transaction is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_OWNERS_H
#define PG_DTX_OWNERS_H

#include "deadlock/graph.h"

extern int	DtxOwnerOfPrepared(DtxGraph *g, uint64 instance, const char *gid);

#endif							/* PG_DTX_OWNERS_H */
