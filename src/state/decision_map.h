/*-------------------------------------------------------------------------
 *
 * decision_map.h
 *		Where the rows of the decision tables are.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DECISION_MAP_H
#define PG_DTX_DECISION_MAP_H

#include "storage/itemptr.h"
#include "utils/relcache.h"

typedef struct DtxDecisionPlace
{
	uint64		boot_id;
	uint64		xid;
	ItemPointerData tid;
} DtxDecisionPlace;

extern Size DtxDecisionMapShmemSize(void);
extern void DtxDecisionMapShmemInit(void);
extern void DtxDecisionMapWritten(uint64 xid, ItemPointer tid, uint64 old_xid);
extern bool DtxDecisionMapIsComplete(Relation rel, uint64 *mark);
extern bool DtxDecisionMapFound(uint64 boot_id, uint64 xid, ItemPointer tid);
extern void DtxDecisionMapCompleted(Relation rel, uint64 mark);
extern DtxDecisionPlace *DtxDecisionMapList(int *n);
extern bool DtxDecisionMapFind(uint64 boot_id, uint64 xid, ItemPointer tid);
extern bool DtxDecisionMapInProgress(const DtxDecisionPlace *place);
extern void DtxDecisionMapPrune(const DtxDecisionPlace *place);
extern void DtxDecisionMapDropDatabase(Oid dbid);

#endif							/* PG_DTX_DECISION_MAP_H */
