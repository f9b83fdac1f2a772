/*-------------------------------------------------------------------------
 *
 * decision.h
 *		The decision table, read and written below the executor.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DECISION_H
#define PG_DTX_DECISION_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* What is on record of one prepared participant. */
typedef struct DtxPrepared
{
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* its user mapping */
	uint64		system_id;		/* system identifier of its cluster, 0 if not
								 * known */
	uint64		timeline;		/* of that cluster, 0 if not known */
	uint64		endpoint;		/* DtxEndpoint() of server and mapping */
	uint64		remote_xid;		/* its full transaction id there, 0 if not
								 * known */
} DtxPrepared;

typedef struct DtxDecisionRow
{
	uint64		boot_id;
	uint64		xid;			/* full transaction id */
	bool		inherited;		/* from the database that was this one's
								 * template: nothing here can carry it out */
	Oid			userid;			/* local user who committed */
	TimestampTz decided_at;
	TimestampTz started;		/* start of the transaction, 0 if not known */
	char	   *application_name;	/* of the session, "" if not known */
	int			nparticipants;
	DtxPrepared *prepared;		/* of participant n = 1, 2, ... */
	ItemPointerData tid;		/* where the row was read */
} DtxDecisionRow;

extern Oid	DtxDecisionTable(void);
extern void DtxDecisionCheck(void);
extern void DtxDecisionWrite(uint64 xid, int nparticipants,
							 const DtxPrepared *prepared, ItemPointer tid);
extern List *DtxDecisionScan(Snapshot snapshot);
extern HTAB *DtxDecisionIndex(List *rows, MemoryContext cxt);
extern DtxDecisionRow *DtxDecisionLookup(HTAB *index, uint64 boot_id, uint64 xid);
extern bool DtxDecisionFind(Snapshot snapshot, uint64 boot_id, uint64 xid);
extern Relation DtxDecisionOpen(LOCKMODE lockmode);
extern bool DtxDecisionDelete(const DtxDecisionRow *row);
extern bool DtxDecisionAnyNeeded(bool current_boot_only);

#endif							/* PG_DTX_DECISION_H */
