/*-------------------------------------------------------------------------
 *
 * clock.h
 *		The wall clock, by which times are in tables, was set.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CLOCK_H
#define PG_DTX_CLOCK_H

#include "saga/placement.h"

extern void DtxSagaClockRight(DtxScheduler *s, int64 offset);
extern bool DtxSagaClockWasSet(DtxScheduler *s);
extern void DtxSagaClockFollow(DtxScheduler *s);

#endif							/* PG_DTX_CLOCK_H */
