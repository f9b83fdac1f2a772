/*-------------------------------------------------------------------------
 *
 * schedule.h
 *		Which servers the worker visits, and when.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SCHEDULE_H
#define PG_DTX_SCHEDULE_H

#include "resolve/resolver.h"

extern long DtxScheduleStep(DtxResolver *r, bool *leave);

#endif							/* PG_DTX_SCHEDULE_H */
