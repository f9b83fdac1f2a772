/*-------------------------------------------------------------------------
 *
 * replies.h
 *		What the participants of the current transaction answer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REPLIES_H
#define PG_DTX_REPLIES_H

#include "commit/participant.h"
#include "net/wire_wait.h"

extern DtxWaitEnd DtxRepliesWait(int timeout_ms, uint32 wait_event);
extern DtxParticipant *DtxRepliesFirstFailed(void);
extern void DtxRepliesGiveUp(void);
extern void DtxRepliesNameNone(void);
extern void DtxRepliesName(DtxParticipant *p);
extern char *DtxRepliesNames(void);

#endif							/* PG_DTX_REPLIES_H */
