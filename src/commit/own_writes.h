/*-------------------------------------------------------------------------
 *
 * own_writes.h
 *		What a session has committed is visible in its next transactions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_OWN_WRITES_H
#define PG_DTX_OWN_WRITES_H

#include "commit/connection.h"

extern void DtxOwnWritesAwait(DtxConnection *c);
extern void DtxOwnWritesReconnect(DtxConnection *c);

#endif							/* PG_DTX_OWN_WRITES_H */
