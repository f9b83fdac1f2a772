/*-------------------------------------------------------------------------
 *
 * remote_command.h
 *		Commands on a connection of pg_dtx's own.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_COMMAND_H
#define PG_DTX_REMOTE_COMMAND_H

#include "libpq-fe.h"
#include "net/remote.h"

extern void DtxRemoteSend(DtxRemote *remote, const char *sql);

/* for the other remote_* files */
extern void DtxRemoteCommandStep(DtxRemote *remote);
extern void DtxRemoteReceiveNotice(void *arg, const PGresult *res);

#endif							/* PG_DTX_REMOTE_COMMAND_H */
