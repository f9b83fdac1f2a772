/*-------------------------------------------------------------------------
 *
 * commands.h
 *		What is to become of a command that postgres_fdw sends.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COMMANDS_H
#define PG_DTX_COMMANDS_H

#include "commit/connection.h"

/* What is to become of a command. */
typedef enum DtxCommandVerdict
{
	DTX_COMMAND_SEND,			/* pass it on */
	DTX_COMMAND_START,			/* pass on START TRANSACTION as it is kept */
	DTX_COMMAND_SWALLOW,		/* it is not sent, and its reply is made */
	DTX_COMMAND_REFUSE			/* fail as if the connection were lost */
} DtxCommandVerdict;

extern DtxCommandVerdict DtxCommandsJudge(DtxConnection *c, const char *command);
extern DtxConnection *DtxCommandsBeforeData(PGconn *conn, const char *command,
											bool writes);

#endif							/* PG_DTX_COMMANDS_H */
