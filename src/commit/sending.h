/*-------------------------------------------------------------------------
 *
 * sending.h
 *		Sending what postgres_fdw sends, with what was put off in front of it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SENDING_H
#define PG_DTX_SENDING_H

#include "commit/connection.h"

extern int	DtxSendingStart(DtxConnection *c);
extern int	DtxSendingQuery(PGconn *conn, const char *query);
extern int	DtxSendingParams(DtxConnection *c, const char *command, int nParams,
							 const char *const *paramValues,
							 const int *paramLengths, const int *paramFormats);
extern int	DtxSendingExpect(DtxConnection *c, bool joined, bool ask, int sent);
extern bool DtxSendingWantsXid(const DtxConnection *c);

#endif							/* PG_DTX_SENDING_H */
