/*-------------------------------------------------------------------------
 *
 * api.h
 *		Remote SQL in the sessions of postgres_fdw, for the steps of sagas and for others.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_EXEC_API_H
#define PG_DTX_EXEC_API_H

extern int64 DtxRemoteExecute(const char *server, const char *text,
							  int nparams, const Oid *types,
							  const char **params, int lock_timeout, Datum *row, bool *isnull);
extern char *DtxRemoteAsk(const char *server, const char *query);

#endif							/* PG_DTX_EXEC_API_H */
