/*-------------------------------------------------------------------------
 *
 * values.h
 *		Values in rows of functions, as their columns show them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_VALUES_H
#define PG_DTX_VALUES_H

#include "base/gid.h"

extern const char *DtxDecisionName(DtxDecision decision);
extern char *DtxServerName(Oid serverid);
extern Datum DtxNameValue(const char *name);
extern Datum DtxTextValue(const char *text);
extern char *DtxVersionText(int version);
extern char *DtxReason(text *reason, const char *function, const char *kept_in);

#endif							/* PG_DTX_VALUES_H */
