/*-------------------------------------------------------------------------
 *
 * interpose.h
 *		The wrappers around the functions of libpq that postgres_fdw calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_INTERPOSE_H
#define PG_DTX_INTERPOSE_H

#include "commit/participant.h"

extern void DtxInterposeCheck(void);
extern void DtxInterposeForgetFirst(Participant *p);
extern Participant *DtxInterposeOpen(Oid serverid);

#endif							/* PG_DTX_INTERPOSE_H */
