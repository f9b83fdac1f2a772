/*-------------------------------------------------------------------------
 *
 * here.h
 *		Who waits for whom on this server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_HERE_H
#define PG_DTX_HERE_H

#include "deadlock/graph.h"

extern void DtxHereAddWaits(DtxGraph *g);

#endif							/* PG_DTX_HERE_H */
