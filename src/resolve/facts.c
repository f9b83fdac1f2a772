/*-------------------------------------------------------------------------
 *
 * facts.c
 *		Gathering what a verdict on a prepared transaction rests on: the seal of
 *		its name, the boots of this database, its decision row, the word of a
 *		human, and the commit log.
 *
 * The order matters: first the server shows the gid, then it is asked whether a
 * backend is responsible (DtxActivityResponsible), then a witness is taken.  In any
 * other order a transaction could commit in between, unseen.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/gid.h"
#include "base/history.h"
#include "nodes/pg_list.h"
#include "resolve/facts.h"
#include "resolve/judge.h"
#include "state/boot.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/tables.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/hsearch.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

/*
 * A PREPARE that was on its way when its coordinator died arrives within this
 * time, milliseconds.  One that comes later was sent by a living server.
 */
#define LATE_AFTER_MS	60000

struct DtxWitness
{
	DtxBoots   *boots;
	HTAB	   *rows;			/* DtxDecisionIndex() */
	List	   *commits;		/* DtxForced() */
	List	   *rollbacks;
};

static bool is_late(DtxWitness *witness, const DtxSighting *sighting);
static bool is_forced(List *forced, const DtxGid *gid);

/*
 * Read what this database knows now, in the current memory context.  In a
 * transaction, after it was asked for each gid whether a backend is responsible.
 *
 * The rows must be those of the extension that made the gids.  Dropped and created
 * again it has another coordinator id and empty tables.  Returns NULL if it is not
 * there, or changes meanwhile; the caller compares the coordinator id.  Throws what
 * reading these tables throws.
 */
DtxWitness *
DtxWitnessTake(void)
{
	DtxWitness *witness = palloc0(sizeof(DtxWitness));
	Snapshot	snapshot;
	uint64		coordinator_id;

	if (!DtxExtensionInstalled())
		return NULL;
	coordinator_id = DtxCoordinatorId();
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	witness->boots = DtxBootsRead(snapshot);
	witness->rows = DtxDecisionIndex(DtxDecisionScan(snapshot),
									 CurrentMemoryContext);

	/* With the same snapshot: there is the row, or what is left of it. */
	DtxForced(snapshot, &witness->commits, &witness->rollbacks);
	UnregisterSnapshot(snapshot);
	if (!DtxExtensionInstalled() || DtxCoordinatorId() != coordinator_id)
		return NULL;
	return witness;
}

/*
 * The decision row of a gid's transaction, or NULL.
 */
const DtxDecisionRow *
DtxWitnessRow(DtxWitness *witness, const DtxGid *gid)
{
	return DtxDecisionLookup(witness->rows, gid->boot_id, gid->xid);
}

/*
 * Is resolution of former boots suspended?
 */
bool
DtxWitnessSuspended(const DtxWitness *witness)
{
	return DtxBootsSuspended(witness->boots);
}

/*
 * All facts about a gid of this database.  In a transaction.  Throws what sealing
 * throws.
 */
void
DtxWitnessFacts(DtxWitness *witness, const DtxSighting *sighting, DtxFacts *facts)
{
	const DtxGid *gid = &sighting->gid;

	memset(facts, 0, sizeof(DtxFacts));
	facts->authentic = DtxSealed(gid);
	facts->history = DtxBootsHistory(witness->boots, gid->boot_id);
	facts->suspended = DtxBootsSuspended(witness->boots);
	facts->late = is_late(witness, sighting);
	facts->responsible = sighting->responsible;
	facts->xid = DtxBootsXidOrigin(witness->boots, gid->boot_id, gid->xid,
								   sighting->next_xid);
	facts->row = DtxWitnessRow(witness, gid) != NULL;
	facts->forced = is_forced(witness->commits, gid);
	facts->forced_rollback = is_forced(witness->rollbacks, gid);
	facts->log = facts->xid == DTX_XID_OF_BOOT || facts->xid == DTX_XID_OF_LATER_BOOT ?
		DtxCommitLog(gid->xid) : DTX_LOG_TRUNCATED;
}

/*
 * The same about a gid that names a server which decides; what that says is for the
 * caller to add.
 */
void
DtxWitnessDecidedFacts(DtxWitness *witness, const DtxSighting *sighting,
					   DtxDecidedFacts *facts)
{
	const DtxGid *gid = &sighting->gid;

	memset(facts, 0, sizeof(DtxDecidedFacts));
	facts->authentic = DtxSealed(gid);
	facts->responsible = sighting->responsible;
	facts->forced = is_forced(witness->commits, gid);
	facts->forced_rollback = is_forced(witness->rollbacks, gid);
	facts->outcome = DTX_OUTCOME_NOT_TOLD;
}

/*
 * May a PREPARE that is running on a server under this name be canceled, or, if a
 * server decides about it, the transaction there?  Nobody is going to go on with it, so
 * it can only be rolled back.
 */
bool
DtxWitnessMayCancel(DtxWitness *witness, const DtxSighting *sighting)
{
	if (sighting->responsible)
		return false;
	if (sighting->gid.boot_id == DtxBootId())
		return true;
	return DtxBootsHistory(witness->boots, sighting->gid.boot_id) == DTX_HISTORY_CONTINUED &&
		!DtxBootsSuspended(witness->boots) && !is_late(witness, sighting);
}

/*
 * Was something of a former boot prepared when that should have been over for
 * long?  By the server's clock, of which only the distance counts.
 */
static bool
is_late(DtxWitness *witness, const DtxSighting *sighting)
{
	int64		quiet_ms;

	if (sighting->gid.boot_id == DtxBootId() || sighting->age_ms < 0)
		return false;
	quiet_ms = DtxFormerBootsEndedFor(witness->boots);
	return quiet_ms - sighting->age_ms > LATE_AFTER_MS;
}

/*
 * Has a human let go of this gid, because it was not to be found?  When it appears
 * after all, it is finished as that human said.
 */
static bool
is_forced(List *forced, const DtxGid *gid)
{
	char text[	DTX_GID_SIZE];
	ListCell   *lc;

	if (forced == NIL)
		return false;
	DtxGidFormat(gid, text);
	foreach(lc, forced)
	{
		if (strcmp((const char *) lfirst(lc), text) == 0)
			return true;
	}
	return false;
}

/*
 * What the commit log says of a full transaction id that this server has assigned
 * (pg_xact_status() in utils/adt/xid8funcs.c, which throws for others).  In a
 * transaction.
 */
DtxXactLog
DtxCommitLog(uint64 xid)
{
	LOCAL_FCINFO(fcinfo, 1);
	Datum		status;
	char	   *name;
	DtxXactLog	result;

	InitFunctionCallInfoData(*fcinfo, NULL, 1, InvalidOid, NULL, NULL);
	fcinfo->args[0].value = FullTransactionIdGetDatum(FullTransactionIdFromU64(xid));
	fcinfo->args[0].isnull = false;
	status = pg_xact_status(fcinfo);
	if (fcinfo->isnull)
		return DTX_LOG_TRUNCATED;
	name = TextDatumGetCString(status);
	result = strcmp(name, "committed") == 0 ? DTX_LOG_COMMITTED :
		strcmp(name, "aborted") == 0 ? DTX_LOG_ABORTED : DTX_LOG_IN_PROGRESS;
	pfree(name);
	pfree(DatumGetPointer(status));
	return result;
}

/*
 * Why a prepared transaction is not touched, for dtx.in_doubt.
 */
const char *
DtxVerdictReason(DtxVerdict verdict, const DtxFacts *facts)
{
	switch (verdict)
	{
		case DTX_VERDICT_FORGED:
			return "this coordinator has not given that name: it was forged";
		case DTX_VERDICT_OTHER_INSTANCE:
			if (facts->history == DTX_HISTORY_UNKNOWN)
				return "it was made by another server with this database, or by one that this database does not remember";
			if (facts->suspended)
				return "resolution of earlier transactions is suspended until dtx.adopt_identity() or dtx.change_identity() is called";
			return "it was made by another server with this database, which is alive";
		case DTX_VERDICT_UNKNOWN:
			if (facts->history == DTX_HISTORY_BROKEN)
				return "this database was restored since, and nothing proves how the transaction ended";
			if (facts->xid == DTX_XID_OF_LATER_BOOT)
				return "the coordinator crashed, and nothing proves whether this transaction or a later one with the same id has committed";
			return "the commit log does not reach back to the transaction";
		default:
			return "";
	}
}
