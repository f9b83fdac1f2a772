/*-------------------------------------------------------------------------
 *
 * wait_set.h
 *		Sets of wires that are waited for together.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAIT_SET_H
#define PG_DTX_WAIT_SET_H

#include "net/wire.h"
#include "storage/latch.h"

typedef struct DtxWaitSet DtxWaitSet;

extern void DtxWaitSetKeep(DtxWire **wires, int nwires);
extern void DtxWaitSetRelease(void);
extern DtxWaitSet *DtxWaitSetFind(DtxWire **wires, int nwires);
extern void DtxWaitSetWantWrite(DtxWaitSet *set, const DtxWire *wire, bool want);
extern WaitEventSet *DtxWaitSetEvents(DtxWaitSet *set);
extern DtxWire *DtxWaitSetWire(DtxWaitSet *set, const WaitEvent *event);
extern void DtxWaitSetForget(uint64 serial);

#endif							/* PG_DTX_WAIT_SET_H */
