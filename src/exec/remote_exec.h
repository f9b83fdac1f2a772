/*-------------------------------------------------------------------------
 *
 * remote_exec.h
 *		Remote SQL in the sessions of postgres_fdw.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REMOTE_EXEC_H
#define PG_DTX_REMOTE_EXEC_H

extern int64 DtxRemoteExecute(const char *server, const char *text,
							  int nparams, const Oid *types,
							  const char **params, Datum *row, bool *isnull);

#endif							/* PG_DTX_REMOTE_EXEC_H */
