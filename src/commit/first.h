/*-------------------------------------------------------------------------
 *
 * first.h
 *		The first command of a remote transaction, sent with START TRANSACTION.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FIRST_H
#define PG_DTX_FIRST_H

#include "commit/connection.h"

/* The longest command that is sent with START TRANSACTION, and kept; bytes. */
#define DTX_MAX_FIRST_SIZE	(32 * 1024)

extern bool DtxFirstMayPutOff(const DtxConnection *c);
extern void DtxFirstHoldStart(bool hold);
extern bool DtxFirstPutOff(DtxConnection *c, const char *command);
extern void DtxFirstReconnectIfBroken(DtxConnection *c);
extern int	DtxFirstSend(DtxConnection *c, const char *prepare,
						 const char *command, int nparams,
						 const char *const *values);
extern void DtxFirstStartAlone(DtxConnection *c);
extern bool DtxFirstStartAgainIfLost(DtxConnection *c);
extern void DtxFirstReconnect(DtxConnection *c, bool sent);

#endif							/* PG_DTX_FIRST_H */
