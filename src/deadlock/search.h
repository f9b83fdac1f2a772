/*-------------------------------------------------------------------------
 *
 * search.h
 *		Finding deadlocks, and ending one wait of each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SEARCH_H
#define PG_DTX_SEARCH_H

#include "deadlock/ask.h"
#include "deadlock/look.h"

extern DtxLook *DtxSearchDeadlocks(DtxAsk *ask, MemoryContext cxt, bool all_details,
								   uint32 wait_event);

#endif							/* PG_DTX_SEARCH_H */
