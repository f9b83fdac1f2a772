/*-------------------------------------------------------------------------
 *
 * ask.h
 *		What is asked on all servers at once, around the start of a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SNAPSHOT_ASK_H
#define PG_DTX_SNAPSHOT_ASK_H

#include "base/backoff.h"
#include "snapshot/servers.h"

extern void DtxSnapshotConnect(DtxSnapshotServer *servers, int n);
extern void DtxSnapshotReconnectLost(DtxSnapshotServer *servers, int n);
extern void DtxSnapshotEnd(DtxSnapshotServer *servers, int n);

extern void DtxSnapshotAskList(DtxSnapshotServer *s);
extern void DtxSnapshotBegin(DtxSnapshotServer *s, const char *command);
extern void DtxSnapshotCommand(DtxSnapshotServer *s, const char *command);
extern bool DtxSnapshotAwait(DtxSnapshotServer *servers, int n, DtxMoment deadline);
extern const DtxSnapshotServer *DtxSnapshotFirstDue(const DtxSnapshotServer *servers, int n);
extern void DtxSnapshotCheckAnswers(DtxSnapshotServer *servers, int n);

#endif							/* PG_DTX_SNAPSHOT_ASK_H */
