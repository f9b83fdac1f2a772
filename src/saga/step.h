/*-------------------------------------------------------------------------
 *
 * step.h
 *		A step that this worker has taken: taking it, and saying what has become of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STEP_H
#define PG_DTX_STEP_H

#include "datatype/timestamp.h"
#include "utils/palloc.h"

/* SQLSTATE with which a step learns that it is not its worker's any more. */
#define ERRCODE_DTX_STEP_LOST	MAKE_SQLSTATE('D', 'X', '0', '0', '1')

/* A step that this worker has taken. */
typedef struct DtxStep
{
	MemoryContext cxt;			/* where all of this lives */
	int64		saga;
	int16		step;
	int32		attempt;
	char	   *direction;		/* "execute" or "compensate" */
	int			ncommands;
	char	  **servers;		/* per command; NULL: this database */
	char	  **commands;		/* NULL: nothing to do */
	int		   *min_rows;		/* -1: does not matter */
	char	   *condition;		/* query for this database that comes before
								 * the commands: no row, if the step is to be
								 * skipped; if there are no commands its row is
								 * the result; NULL: none */
	bool		has_input;
	Datum		input;			/* jsonb, $1 */
	bool		has_results;
	Datum		results;		/* jsonb, $2 */
	bool		has_context;
	Datum		context;		/* jsonb, $3: which step of which saga it is */
	int			timeout;		/* milliseconds, 0: none */
	const char *volatile at_server; /* foreign server that executes a
									 * statement of it just now; NULL: none,
									 * or its commit */
	volatile bool local;		/* is a statement executed in this database
								 * just now? */
	TimestampTz started_at;		/* to be shown */
} DtxStep;

extern DtxStep *DtxStepTake(int64 only, bool careful, bool *more);
extern void DtxStepFree(DtxStep *step);
extern void DtxStepDone(DtxStep *step, Datum result, bool isnull, bool skipped);
extern void DtxStepGiveBack(DtxStep *step, const char *why, int most);
extern void DtxStepFailed(DtxStep *step, ErrorData *edata);

extern MemoryContext DtxStepsContext;
extern uint32 DtxStepWaitEvent;

#endif							/* PG_DTX_STEP_H */
