/*-------------------------------------------------------------------------
 *
 * execute.h
 *		Executing a step: its statements run here, on this database or through a foreign server,
 *		and the step is marked as done in the same transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_EXECUTE_H
#define PG_DTX_EXECUTE_H

#include "saga/step.h"

extern DtxStep *DtxStepExecute(DtxStep *step);

#endif							/* PG_DTX_EXECUTE_H */
