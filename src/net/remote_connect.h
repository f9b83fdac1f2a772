/*-------------------------------------------------------------------------
 *
 * remote_connect.h
 *		Making a connection of pg_dtx's own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_CONNECT_H
#define PG_DTX_REMOTE_CONNECT_H

#include "net/remote.h"

extern bool DtxRemoteConnectKnowsHosts(DtxRemote *remote);
extern void DtxRemoteConnectStart(DtxRemote *remote);
extern void DtxRemoteConnectStep(DtxRemote *remote);

#endif							/* PG_DTX_REMOTE_CONNECT_H */
