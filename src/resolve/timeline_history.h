/*-------------------------------------------------------------------------
 *
 * timeline_history.h
 *		Where a server has left the timelines that it was on before.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TIMELINE_HISTORY_H
#define PG_DTX_TIMELINE_HISTORY_H

/* Room for the question, with its NUL. */
#define DTX_HISTORY_QUESTION_SIZE	128

/* The longest history that is looked at, bytes. */
#define DTX_HISTORY_SIZE	65536

extern void DtxHistoryQuestion(uint64 timeline, char *question);
extern uint64 DtxHistoryLeftAt(const char *history, uint64 timeline);

#endif							/* PG_DTX_TIMELINE_HISTORY_H */
