/*-------------------------------------------------------------------------
 *
 * remote_wait.h
 *		The loop that drives a set of connections of pg_dtx's own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_WAIT_H
#define PG_DTX_REMOTE_WAIT_H

#include "net/remote.h"

extern bool DtxRemoteWait(DtxRemoteSet *set, long timeout,
						  uint32 wait_event_info);

#endif							/* PG_DTX_REMOTE_WAIT_H */
