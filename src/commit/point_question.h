/*-------------------------------------------------------------------------
 *
 * point_question.h
 *		What a server is asked, and told, that may decide about a transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_POINT_QUESTION_H
#define PG_DTX_POINT_QUESTION_H

#include "net/wire.h"

/* The question: its columns are transaction id, position of a record that has it, and
 * position up to which the WAL is on disk. */
#define DTX_POINT_QUESTION_COLUMNS	3

/* The question, which may be prepared under a name; and as it is asked in a round trip of
 * its own where that flushes the WAL (version 17). */
#define DTX_POINT_QUESTION_NAME	"dtx_point"
extern const char *DtxPointQuestion(void);
extern const char *DtxPointQuestionFlushed(void);

/* In front of COMMIT: settings, null if unchanged, and position in front of it. */
#define DTX_POINT_COMMIT_COLUMNS	3

#define DTX_POINT_COMMIT_SIZE	1024

/* The same as statements that are prepared: the first and the last one by the protocol,
 * because there is no such thing in SQL. */
#define DTX_POINT_COMMIT_NAMES	3
extern const char *const DtxPointCommitNames[DTX_POINT_COMMIT_NAMES];
extern const DtxWireStatement DtxPointCommitStatements[2];

extern const char *DtxPointCommitDefinition(void);
extern const char *DtxPointCommit(bool by_name);

#endif							/* PG_DTX_POINT_QUESTION_H */
