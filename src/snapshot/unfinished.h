/*-------------------------------------------------------------------------
 *
 * unfinished.h
 *		Which of the transactions that are prepared on a server may be committed on
 *		other nodes already.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SNAPSHOT_UNFINISHED_H
#define PG_DTX_SNAPSHOT_UNFINISHED_H

#include "base/gid.h"
#include "snapshot/servers.h"

/* One of them. */
typedef struct DtxUnfinished
{
	const DtxSnapshotServer *server;
	DtxGid		gid;
	bool		in_doubt;		/* is no live session responsible for it? */
} DtxUnfinished;

extern bool DtxSnapshotFindUnfinished(const DtxSnapshotServer *servers, int n, bool any,
									  DtxUnfinished *unfinished);
extern List *DtxSnapshotListUnfinished(const DtxSnapshotServer *servers, int n);

#endif							/* PG_DTX_SNAPSHOT_UNFINISHED_H */
