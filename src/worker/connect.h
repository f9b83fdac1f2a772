/*-------------------------------------------------------------------------
 *
 * connect.h
 *		How a background worker connects to its database: as itself, whatever the
 *		database or its role have as their defaults.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CONNECT_H
#define PG_DTX_CONNECT_H

extern void DtxWorkerConnect(Oid dbid, Oid role, uint32 flags,
							 const char *name);

#endif							/* PG_DTX_CONNECT_H */
