/*-------------------------------------------------------------------------
 *
 * api.h
 *		What administrative functions ask of a resolver in their own backend and
 *		transaction: resolve, finish, find, probe.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_API_H
#define PG_DTX_API_H

#include "base/gid.h"
#include "nodes/pg_list.h"
#include "resolve/visit.h"

/*
 * Run a full pass in this backend, inside its transaction, and return a list
 * of DtxResolved in the current memory context.  Interruptible; throws if
 * pg_dtx.resolver is off.  Errors of single servers are rows, not throws.  What
 * was prepared through a server that was dropped since is left to the worker.
 */
extern List *DtxResolveNow(void);

/*
 * Finish one gid on one server on the word of a human, through the mapping
 * "umid" (or, if that is InvalidOid, the mapping that belongs to the owner of
 * the prepared transaction).  Throws with the remote SQLSTATE if it fails,
 * ERRCODE_UNDEFINED_OBJECT if no such prepared transaction is there, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the server leads to another cluster
 * than "system_id" (0: no matter which).  "on_behalf_of": the user who wants the connection
 * through that mapping; InvalidOid: it is the resolver's, which uses only those through
 * which something was prepared.
 */
extern void DtxFinishGid(Oid serverid, Oid umid, const char *gid,
						 DtxDecision decision, uint64 system_id,
						 Oid on_behalf_of);

/* Servers of postgres_fdw that hold "gid" now: list of Oids. */
extern List *DtxFindGid(const char *gid);

/* Visit a server with the mapping of "userid"; does not throw for its errors. */
extern void DtxProbeServer(Oid serverid, Oid userid, DtxProbe *probe);

#endif							/* PG_DTX_API_H */
