/*-------------------------------------------------------------------------
 *
 * step_worker.h
 *		The worker that executes steps of sagas: one process, connected as the role whose sagas
 *		these are, so that a step has the rights, the user mappings and the settings of that
 *		role, and cannot get others.  The functions of the extension are called with the rights
 *		of their owner.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STEP_WORKER_H
#define PG_DTX_STEP_WORKER_H

PGDLLEXPORT extern void dtx_saga_worker_main(Datum arg);

#endif							/* PG_DTX_STEP_WORKER_H */
