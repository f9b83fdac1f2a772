/*-------------------------------------------------------------------------
 *
 * text.h
 *		Texts that a server has sent: cleaned, and not longer than they may be.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TEXT_H
#define PG_DTX_TEXT_H

#include "libpq-fe.h"

/* Of a field of a remote error no more than this is passed on, bytes. */
#define DTX_MAX_REMOTE_TEXT	8192

extern const char *DtxRemoteValue(const PGresult *res, int column, int maxlen);
extern char *DtxCleanText(const char *text, int maxlen);
extern char *DtxRemoteText(const PGresult *res, int field);
extern int	DtxRemoteFields(const PGresult *res);

#endif							/* PG_DTX_TEXT_H */
