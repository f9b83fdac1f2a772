/*-------------------------------------------------------------------------
 *
 * describe.h
 *		Waits in words.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DESCRIBE_H
#define PG_DTX_DESCRIBE_H

#include "deadlock/look.h"
#include "lib/stringinfo.h"

extern void DtxDescribeWait(StringInfo buf, const DtxLook *look, const DtxEdge *edge);
extern void DtxDescribeBlocker(StringInfo buf, const DtxLook *look, const DtxEdge *edge);
extern void DtxDescribeQueries(StringInfo buf, const DtxLook *look, const int *cycle,
							   int n);
extern char *DtxDescribeServer(const DtxLook *look, const DtxEdge *edge);

#endif							/* PG_DTX_DESCRIBE_H */
