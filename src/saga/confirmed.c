/*-------------------------------------------------------------------------
 *
 * confirmed.c
 *		Is the second phase of a transaction that executed a step confirmed on all its servers?
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "worker/wake.h"

/*
 * For a transaction that is known to have committed, or the current one.
 *
 * Its decision row is there until all servers have confirmed.  Then it stays
 * for a while, to be overwritten by the next transaction of its backend, which
 * only shared memory knows.  To be called in a transaction.
 */
static bool
is_confirmed(uint64 boot_id, uint64 xid)
{
	Snapshot	snapshot;
	bool		found;

	/* Nothing to confirm yet: the worker looks again when it has committed. */
	if (boot_id == DtxBootId() &&
		xid == U64FromFullTransactionId(GetTopFullTransactionIdIfAny()))
		return true;

	if (DtxActivityConfirmed(boot_id, xid))
		return true;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	found = DtxDecisionFind(snapshot, boot_id, xid);
	UnregisterSnapshot(snapshot);
	if (!found || DtxActivityConfirmed(boot_id, xid))
		return true;

	/* If no backend takes care of it, the resolver should. */
	if (!DtxActivityOwnsRow(boot_id, xid))
		DtxLauncherWakeResolver(MyDatabaseId);
	return false;
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_confirmed);

/*
 * dtx_internal.saga_confirmed(boot_id, xid)
 */
Datum
dtx_sql_saga_confirmed(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(true);
	PG_RETURN_BOOL(is_confirmed((uint64) PG_GETARG_INT64(0),
								(uint64) PG_GETARG_INT64(1)));
}
