/*-------------------------------------------------------------------------
 *
 * standby.h
 *		Has the synchronous standby of this server got a decision?
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STANDBY_H
#define PG_DTX_STANDBY_H

#include "access/xlogdefs.h"
#include "base/gid.h"
#include "state/in_doubt.h"

/* Why a participant is not told yet. */
#define DTX_DECISION_NOT_REPLICATED "this server's synchronous standby has not got the decision yet"

/* Likewise, if a server has decided; and if it is not known whether it has. */
#define DTX_DECIDER_NOT_REPLICATED "the synchronous standby of the server that has decided has not got the decision yet"
#define DTX_DECIDER_NOT_ASKED "the server that decides about it has not been asked yet"

extern bool DtxStandbyHas(XLogRecPtr lsn, int level);
extern bool DtxStandbyHasDecision(const DtxGid *gid, const DtxInDoubt *entry,
								  bool worker);

#endif							/* PG_DTX_STANDBY_H */
