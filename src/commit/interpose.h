/*-------------------------------------------------------------------------
 *
 * interpose.h
 *		The wrappers around the functions of libpq that postgres_fdw calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_INTERPOSE_H
#define PG_DTX_INTERPOSE_H

#include "commit/connection.h"

extern void DtxInterposeCheck(void);
extern DtxConnection *DtxInterposeOpen(Oid serverid);

#endif							/* PG_DTX_INTERPOSE_H */
