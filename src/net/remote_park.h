/*-------------------------------------------------------------------------
 *
 * remote_park.h
 *		Connections that are kept for their next use.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_PARK_H
#define PG_DTX_REMOTE_PARK_H

#include "net/remote.h"
#include "net/target.h"

extern bool DtxRemotePark(DtxRemote *remote, const DtxRemoteHandler *handler,
						  void *arg);
extern bool DtxRemoteResume(DtxRemote *remote, const DtxTarget *target,
							const DtxRemoteHandler *handler, void *arg);

/* for the other remote_* files */
extern void DtxRemoteParkedStep(DtxRemote *remote);
extern bool DtxRemoteFreeDescriptor(DtxRemoteSet *set);

#endif							/* PG_DTX_REMOTE_PARK_H */
