/*-------------------------------------------------------------------------
 *
 * scheduler.h
 *		The scheduler of sagas: one process per database that has work for it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SCHEDULER_H
#define PG_DTX_SCHEDULER_H

PGDLLEXPORT extern void dtx_saga_scheduler_main(Datum arg);

#endif							/* PG_DTX_SCHEDULER_H */
