/*-------------------------------------------------------------------------
 *
 * outcome.h
 *		What a server says of a transaction id of its own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_OUTCOME_H
#define PG_DTX_OUTCOME_H

typedef enum DtxOutcome
{
	DTX_OUTCOME_NOT_TOLD,		/* not asked, or no answer */
	DTX_OUTCOME_COMMITTED,
	DTX_OUTCOME_ABORTED,
	DTX_OUTCOME_IN_PROGRESS,
	DTX_OUTCOME_FUTURE,			/* it has not assigned that id yet */
	DTX_OUTCOME_TRUNCATED,		/* its commit log does not reach back so far */
	DTX_OUTCOME_COUNT
} DtxOutcome;

#endif							/* PG_DTX_OUTCOME_H */
