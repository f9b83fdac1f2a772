/*-------------------------------------------------------------------------
 *
 * damage.h
 *		What was finished against its decision.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DAMAGE_H
#define PG_DTX_DAMAGE_H

#include "base/gid.h"
#include "nodes/pg_list.h"
#include "utils/snapshot.h"

/* What became of a prepared transaction that was not finished by us. */
typedef enum DtxFound
{
	DTX_FOUND_COMMITTED,
	DTX_FOUND_ROLLED_BACK,
	DTX_FOUND_LOST,				/* its server does not know its xid any more */
	DTX_FOUND_UNKNOWN,			/* its server cannot tell */
	DTX_FOUND_REAPPEARED		/* it was confirmed once, and prepared again */
} DtxFound;

extern bool DtxDamageRecord(const DtxGid *gid, const char *server,
							DtxDecision decided, DtxFound found,
							uint64 remote_xid, uint64 system_id);
extern void DtxDamageLockForced(void);
extern void DtxForced(Snapshot snapshot, List **commits, List **rollbacks);

#endif							/* PG_DTX_DAMAGE_H */
