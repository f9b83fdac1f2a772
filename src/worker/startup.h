/*-------------------------------------------------------------------------
 *
 * startup.h
 *		How a background worker starts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_STARTUP_H
#define PG_DTX_STARTUP_H

extern void DtxWorkerBegin(pqsigfunc sigterm);
extern bool DtxWorkerReloadConfig(void);
extern void DtxWorkerConnect(Oid dbid, Oid role, uint32 flags,
							 const char *name);

#endif							/* PG_DTX_STARTUP_H */
