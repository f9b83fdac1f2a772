/*-------------------------------------------------------------------------
 *
 * identity.h
 *		Who this database is as a coordinator: its identifier, and the seal of its gids.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_IDENTITY_H
#define PG_DTX_IDENTITY_H

#include "base/gid.h"
#include "fmgr.h"

extern void DtxCoordinatorMake(void);
extern void DtxCoordinatorReplace(void);
extern void DtxCoordinatorLock(void);
extern uint64 DtxCoordinatorId(void);
extern void DtxCoordinatorConfirm(uint64 id);
extern void DtxSeal(DtxGid *gid);
extern uint64 DtxKeyedHash(const char *data, int len);
extern bool DtxSealed(const DtxGid *gid);

#endif							/* PG_DTX_IDENTITY_H */
