/*-------------------------------------------------------------------------
 *
 * real_libpq.h
 *		The functions of libpq behind the wrappers of interpose.c.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REAL_LIBPQ_H
#define PG_DTX_REAL_LIBPQ_H

#include "libpq-fe.h"

/*
 * The real functions, found at server start (DtxRealLibpqFind).  Under libpq's names,
 * anybody in the server calls the wrappers.
 */
typedef struct DtxRealLibpq
{
	PGconn	   *(*PQconnectdbParams) (const char *const *keywords,
									  const char *const *values,
									  int expand_dbname);
	PGconn	   *(*PQconnectStartParams) (const char *const *keywords,
										 const char *const *values,
										 int expand_dbname);
	void		(*PQfinish) (PGconn *conn);
	int			(*PQsendQuery) (PGconn *conn, const char *query);
	int			(*PQsendQueryParams) (PGconn *conn, const char *command,
									  int nParams, const Oid *paramTypes,
									  const char *const *paramValues,
									  const int *paramLengths,
									  const int *paramFormats,
									  int resultFormat);
	int			(*PQsendPrepare) (PGconn *conn, const char *stmtName,
								  const char *query, int nParams,
								  const Oid *paramTypes);
	int			(*PQsendQueryPrepared) (PGconn *conn, const char *stmtName,
										int nParams,
										const char *const *paramValues,
										const int *paramLengths,
										const int *paramFormats,
										int resultFormat);
	PGresult   *(*PQexec) (PGconn *conn, const char *query);
	PGresult   *(*PQgetResult) (PGconn *conn);
	int			(*PQisBusy) (PGconn *conn);
	int			(*PQconsumeInput) (PGconn *conn);
	ConnStatusType (*PQstatus) (const PGconn *conn);
	PGTransactionStatusType (*PQtransactionStatus) (const PGconn *conn);
	PGcancel   *(*PQgetCancel) (PGconn *conn);
	int			(*PQcancel) (PGcancel *cancel, char *errbuf, int errbufsize);
	PQnoticeReceiver (*PQsetNoticeReceiver) (PGconn *conn,
											 PQnoticeReceiver proc,
											 void *arg);
} DtxRealLibpq;

extern DtxRealLibpq dtx_real;

extern void DtxRealLibpqFind(void);

#endif							/* PG_DTX_REAL_LIBPQ_H */
