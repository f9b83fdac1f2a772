/*-------------------------------------------------------------------------
 *
 * look.h
 *		One look at all servers concerned: who waits for whom.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LOOK_H
#define PG_DTX_LOOK_H

#include "deadlock/ask.h"
#include "deadlock/graph.h"
#include "nodes/pg_list.h"

/* A process of a server whose locks are to be told. */
typedef struct DtxLookDetail
{
	uint64		instance;
	int			pid;
} DtxLookDetail;

typedef struct DtxLook
{
	MemoryContext cxt;
	DtxGraph   *graph;
	List	   *servers;		/* private to look.c: those that are concerned */
	List	   *blocked;		/* DtxBlocked */
	List	   *lock_waits;		/* DtxLockWait */
	List	   *unnamed;		/* DtxLookDetail: waits for prepared
								 * transactions whose names have not been
								 * asked for */
} DtxLook;

extern DtxLook *DtxLookTake(DtxAsk *ask, MemoryContext cxt, List *details,
							bool all_details, uint32 wait_event);
extern const char *DtxLookServerName(const DtxLook *look, uint64 instance);

#endif							/* PG_DTX_LOOK_H */
