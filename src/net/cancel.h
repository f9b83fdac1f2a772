/*-------------------------------------------------------------------------
 *
 * cancel.h
 *		Cancel requests that take a bounded time, with any libpq.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CANCEL_H
#define PG_DTX_CANCEL_H

#include "libpq-fe.h"

/* So long a server may take to take notice of a request of postgres_fdw, ms. */
#define DTX_CANCEL_TIMEOUT	10000

extern bool DtxCancelSend(PGcancel *cancel, int (*send) (PGcancel *, char *, int),
						  int timeout, uint32 wait_event);

#endif							/* PG_DTX_CANCEL_H */
