/*-------------------------------------------------------------------------
 *
 * register.h
 *		Registering background workers: the launcher and the reserved resolver when the server
 *		starts, the others when they are needed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_REGISTER_H
#define PG_DTX_REGISTER_H

#include "postmaster/bgworker.h"
#include "worker/slots.h"

typedef enum DtxStartResult
{
	DTX_STARTED,
	DTX_NO_SLOT,				/* no free background-worker slot */
	DTX_BLOCKED					/* a statement needs the database for itself */
} DtxStartResult;

extern void DtxWorkerDescribe(BackgroundWorker *worker, const char *function,
							  const char *type);
extern DtxStartResult DtxWorkerRegister(DtxWorkerKind kind, Oid dbid, Oid role,
										DtxWorkerKey *key,
										BackgroundWorkerHandle **handle);
extern void DtxLauncherRegister(void);

#endif							/* PG_DTX_REGISTER_H */
