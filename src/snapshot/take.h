/*-------------------------------------------------------------------------
 *
 * take.h
 *		Doing something on all servers and here at one moment.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SNAPSHOT_TAKE_H
#define PG_DTX_SNAPSHOT_TAKE_H

#include "snapshot/servers.h"
#include "state/gate.h"

/* What is to be done. */
typedef struct DtxSnapshotJob
{
	const char *what;			/* "could not ...", for messages; translated */
	const char *command;		/* on each server; one row with one column */
	bool		begins;			/* as the first one of a transaction that
								 * stays open, so that it can be done again */
	void		(*here) (void *arg);	/* here, as the last; cannot be done
										 * again */
	void	   *arg;
} DtxSnapshotJob;

extern void DtxSnapshotTake(DtxSnapshotServer *servers, int n, const DtxSnapshotJob *job);
extern void DtxSnapshotAwaitFinished(DtxSnapshotServer *servers, int n);

#endif							/* PG_DTX_SNAPSHOT_TAKE_H */
