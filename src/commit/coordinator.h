/*-------------------------------------------------------------------------
 *
 * coordinator.h
 *		The commit of a distributed transaction, driven from the callbacks of the
 *		local one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COORDINATOR_H
#define PG_DTX_COORDINATOR_H

#include "commit/connection.h"
#include "commit/participant.h"

extern void DtxCoordinatorDefineSettings(void);

/* for the wrappers */
extern void DtxCoordinatorPrepareBackend(void);
extern void DtxCoordinatorJoin(DtxConnection *c);
extern bool DtxCoordinatorKeepsConnection(DtxConnection *c);

#endif							/* PG_DTX_COORDINATOR_H */
