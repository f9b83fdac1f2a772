/*-------------------------------------------------------------------------
 *
 * fdw_session.h
 *		Having postgres_fdw open its session with a server without a foreign table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FDW_SESSION_H
#define PG_DTX_FDW_SESSION_H

#include "commit/connection.h"

extern DtxConnection *DtxFdwSessionOpen(Oid serverid);

/* for commands.c */
extern bool DtxFdwSessionAnswerImport(DtxConnection *c, const char *command);

#endif							/* PG_DTX_FDW_SESSION_H */
