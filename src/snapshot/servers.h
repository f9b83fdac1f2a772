/*-------------------------------------------------------------------------
 *
 * servers.h
 *		On which servers snapshots are taken.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SNAPSHOT_SERVERS_H
#define PG_DTX_SNAPSHOT_SERVERS_H

#include "commit/put_off.h"
#include "libpq-fe.h"

/* One of them, and what is asked there. */
typedef struct DtxSnapshotServer
{
	const char *name;
	Oid			serverid;
	struct DtxConnection *c;	/* its connection, or NULL */
	bool		begun;			/* is a transaction of ours open there, as far
								 * as was sent? */
	bool		lost;			/* was a reply lost? */
	PGresult   *listed;			/* answer to the question what is prepared
								 * there, or NULL */
	PGresult   *began;			/* ... to START TRANSACTION */
	PGresult   *answer;			/* ... to the command */
} DtxSnapshotServer;

extern DtxSnapshotServer *DtxSnapshotAllServers(int *n);
extern DtxSnapshotServer *DtxSnapshotNamedServers(char **names, int n);

#endif							/* PG_DTX_SNAPSHOT_SERVERS_H */
