/*-------------------------------------------------------------------------
 *
 * prepare_question.h
 *		What a server is asked, and told, right before PREPARE TRANSACTION.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PREPARE_QUESTION_H
#define PG_DTX_PREPARE_QUESTION_H

#include "commit/endpoint.h"

/* Room for the question. */
#define DTX_PREPARE_QUESTION_SIZE	1024

/*
 * Columns of the answer: transaction id; role, time-out, messages: null if unchanged;
 * position in the WAL, null if it cannot be asked for.
 */
#define DTX_PREPARE_QUESTION_COLUMNS	5

/*
 * Or in short: transaction id and position; no row if a setting was changed.
 */
#define DTX_PREPARE_QUESTION_SHORT		2

extern const char *DtxPrepareQuestionDefinitions(void);
extern void DtxPrepareQuestion(const DtxConnectionEndpoint *e, bool by_name,
							   char *question);

#endif							/* PG_DTX_PREPARE_QUESTION_H */
