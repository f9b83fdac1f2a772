/*-------------------------------------------------------------------------
 *
 * remote_set.h
 *		Sets of connections of pg_dtx's own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_SET_H
#define PG_DTX_REMOTE_SET_H

#include "net/remote.h"
#include "net/target.h"
#include "storage/latch.h"
#include "utils/palloc.h"

extern DtxRemoteSet *DtxRemoteSetCreate(MemoryContext parent);
extern DtxRemote *DtxRemoteOpen(DtxRemoteSet *set, const DtxTarget *target,
								const DtxRemoteHandler *handler, void *arg);

/* for the other remote_* files */
extern bool DtxRemoteSetHasRoom(const DtxRemote *remote);
extern void DtxRemoteSetTick(DtxRemoteSet *set, int64 counted);
extern void DtxRemoteSetSweep(DtxRemoteSet *set);
extern void DtxRemoteSetBuildEvents(DtxRemoteSet *set);
extern int	DtxRemoteSetNameSocket(const WaitEvent *event);

#endif							/* PG_DTX_REMOTE_SET_H */
