/*-------------------------------------------------------------------------
 *
 * fault.h
 *		Named points at which tests make something go wrong.
 *
 * They exist only in a library built with "make FAULTS=1"; in a normal build
 * DTX_FAULT() is nothing at all.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FAULT_H
#define PG_DTX_FAULT_H

#include "libpq-fe.h"

#ifdef DTX_FAULTS
#define DTX_FAULT(point, conn)	DtxFaultHit((point), (conn))
extern void DtxFaultDefineSetting(void);
extern void DtxFaultHit(const char *point, PGconn *conn);
#else
#define DTX_FAULT(point, conn)	((void) 0)
#endif

#endif							/* PG_DTX_FAULT_H */
