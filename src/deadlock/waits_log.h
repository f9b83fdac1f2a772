/*-------------------------------------------------------------------------
 *
 * waits_log.h
 *		Long waits for servers in the server log.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAITS_LOG_H
#define PG_DTX_WAITS_LOG_H

#include "deadlock/look.h"

extern void DtxWaitsLog(DtxLook *look);

#endif							/* PG_DTX_WAITS_LOG_H */
