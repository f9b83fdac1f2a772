/*-------------------------------------------------------------------------
 *
 * mapping.h
 *		Through which user mapping a visit connects.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_MAPPING_H
#define PG_DTX_MAPPING_H

#include "net/target.h"
#include "nodes/pg_list.h"
#include "resolve/visit.h"

extern void DtxVisitSetRoutes(DtxVisit *v, List *routes);
extern const char *DtxMappingRefusal(const DtxVisit *v,
									 const DtxTarget *target);
extern Oid	DtxMappingChoose(DtxVisit *v);

#endif							/* PG_DTX_MAPPING_H */
