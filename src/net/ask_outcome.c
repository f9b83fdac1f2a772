/*-------------------------------------------------------------------------
 *
 * ask_outcome.c
 *		How a server is asked what became of transaction ids of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "net/ask_outcome.h"

/*
 * The answer to DTX_ASK_OUTCOME; DTX_OUTCOME_NOT_TOLD if it is none.  Does not throw.
 */
DtxOutcome
DtxOutcomeParse(const char *text)
{
	static const struct
	{
		const char *text;
		DtxOutcome	outcome;
	}			known[] = {
		{"committed", DTX_OUTCOME_COMMITTED},
		{"aborted", DTX_OUTCOME_ABORTED},
		{"in progress", DTX_OUTCOME_IN_PROGRESS},
		{"future", DTX_OUTCOME_FUTURE},
		{"forgotten", DTX_OUTCOME_TRUNCATED}
	};

	for (int i = 0; i < lengthof(known); i++)
	{
		if (strcmp(text, known[i].text) == 0)
			return known[i].outcome;
	}
	return DTX_OUTCOME_NOT_TOLD;
}
