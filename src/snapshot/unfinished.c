/*-------------------------------------------------------------------------
 *
 * unfinished.c
 *		Which of the transactions that are prepared on a server may be committed on
 *		other nodes already.
 *
 * The servers themselves tell what is prepared there, so it does not matter who was to
 * finish it: a session that does not wait for the confirmation, the resolver, or a
 * coordinator that has crashed since.  Of a transaction of this coordinator, which its seal
 * proves, only one thing is harmless: that a live session is responsible for it and has not
 * entered the gate with it.  It is rolled back, or committed later.  Everything else may have
 * been decided, and is waited for.  The resolver ends it, one way or the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/text.h"
#include "nodes/pg_list.h"
#include "snapshot/unfinished.h"
#include "state/activity.h"
#include "state/gate.h"
#include "state/identity.h"
#include "utils/palloc.h"

static bool is_ours(const PGresult *listed, int row, DtxGid *gid);
static bool is_harmless(DtxUnfinished *u);

/*
 * Is there one in what servers have listed (DtxSnapshotAskList)?  With "any" a harmless
 * one counts, too.  *unfinished is set to the first.  Throws what DtxSealed() throws.
 */
bool
DtxSnapshotFindUnfinished(const DtxSnapshotServer *servers, int n, bool any,
						  DtxUnfinished *unfinished)
{
	for (int i = 0; i < n; i++)
	{
		for (int row = 0; row < PQntuples(servers[i].listed); row++)
		{
			if (!is_ours(servers[i].listed, row, &unfinished->gid) ||
				(is_harmless(unfinished) && !any))
				continue;
			unfinished->server = &servers[i];
			return true;
		}
	}
	return false;
}

/*
 * All of them, as a list of DtxUnfinished in the current memory context.
 */
List *
DtxSnapshotListUnfinished(const DtxSnapshotServer *servers, int n)
{
	List	   *result = NIL;

	for (int i = 0; i < n; i++)
	{
		for (int row = 0; row < PQntuples(servers[i].listed); row++)
		{
			DtxUnfinished *u = palloc0(sizeof(DtxUnfinished));

			u->server = &servers[i];
			if (is_ours(servers[i].listed, row, &u->gid) && !is_harmless(u))
				result = lappend(result, u);
		}
	}
	return result;
}

/* Names that others have made up, or another coordinator has given, are none. */
static bool
is_ours(const PGresult *listed, int row, DtxGid *gid)
{
	return !PQgetisnull(listed, row, 0) &&
		DtxGidParse(PQgetvalue(listed, row, 0), gid) &&
		gid->coordinator_id == DtxCoordinatorId() && gid->dbid == MyDatabaseId &&
		DtxSealed(gid);
}

/*
 * Responsibility is looked at twice: a session that has let go of this transaction in between
 * may have entered with its next one, and then the gate does not know this one any more.
 */
static bool
is_harmless(DtxUnfinished *u)
{
	int			procno = DtxActivityResponsibleProc(&u->gid);
	bool		entered;

	u->in_doubt = procno < 0;
	if (procno < 0)
		return false;
	DTX_FAULT("snapshot-judge", NULL);
	entered = DtxGateHasEntered(procno, u->gid.xid);
	return !entered && DtxActivityResponsibleProc(&u->gid) == procno;
}
