/*-------------------------------------------------------------------------
 *
 * unconfirmed.c
 *		Decision rows that no live backend owns, and which of their participants have
 *		not confirmed yet.  In the worker only.
 *
 * A decision row goes when, for each of its participants, a visit that began after
 * the row was read has finished it, or has proof that it ended as decided.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "base/gid.h"
#include "base/process.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "resolve/known_server.h"
#include "resolve/resolver.h"
#include "resolve/unconfirmed.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"

/*
 * The next participant that has not confirmed, of the rows that were read before a visit
 * with this serial number began: what such a visit sees of it is newer than the row.
 * Returns false if there is no more.
 */
bool
DtxUnconfirmedNext(DtxResolver *r, uint64 serial, DtxUnconfirmedCursor *cursor)
{
	for (;;)
	{
		if (cursor->row == NULL || cursor->next_index >= cursor->row->row.nparticipants)
		{
			if (cursor->next_row >= list_length(r->unconfirmed))
				return false;
			cursor->row = (DtxUnconfirmed *) list_nth(r->unconfirmed, cursor->next_row++);
			cursor->next_index = cursor->row->serial < serial ? 0 :
				cursor->row->row.nparticipants;
			continue;
		}
		cursor->index = cursor->next_index++;
		if (!cursor->row->confirmed[cursor->index])
		{
			DtxUnconfirmedGid(r, cursor->row, cursor->index, &cursor->gid);
			return true;
		}
	}
}

/* A decision row that no live backend owns. */
typedef struct UnownedRow
{
	DtxDecisionRow *row;
	bool		adopted;		/* known to be confirmed by all participants */
} UnownedRow;

static List *unowned_rows(void);

/* The gid of participant "index", from 0, of a decision row. */
void
DtxUnconfirmedGid(DtxResolver *r, DtxUnconfirmed *note, int index, DtxGid *gid)
{
	memset(gid, 0, sizeof(DtxGid));
	gid->coordinator_id = r->coordinator_id;
	gid->dbid = MyDatabaseId;
	gid->boot_id = note->row.boot_id;
	gid->xid = note->row.xid;
	gid->n = (uint32) index + 1;
	gid->seal = note->seals[index];
}

/*
 * The decision rows that no live backend owns: a list of UnownedRow in the current
 * memory context.  In a transaction of the worker.
 */
static List *
unowned_rows(void)
{
	List	   *result = NIL;
	List	   *rows;
	Snapshot	snapshot;
	bool		doubtful = false;
	ListCell   *lc;

	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	rows = DtxDecisionScan(snapshot);
	UnregisterSnapshot(snapshot);
	DTX_FAULT("resolver-rows", NULL);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);
		UnownedRow *unowned;
		bool		adopted;

		if (!row->inherited)
			DtxKnownServersUsedBy(row);

		/*
		 * The row of a session that has gone is deleted while it is known
		 * that everybody has confirmed.  After a restart servers would be
		 * asked, and one that was dropped meanwhile cannot be.
		 */
		adopted = row->inherited ||
			DtxActivityAdoptRow(row->boot_id, row->xid);
		if (!adopted && DtxActivityOwnsRow(row->boot_id, row->xid))
			continue;
		unowned = palloc(sizeof(UnownedRow));
		unowned->row = row;
		unowned->adopted = adopted;
		result = lappend(result, unowned);
		doubtful |= !adopted && row->boot_id == DtxBootId();
	}

	/*
	 * A session may have overwritten its row between the snapshot and our
	 * look at its slot, which names the new one then.  The old one is not
	 * visible any more, while one that was handed over stays.
	 */
	if (doubtful)
	{
		HTAB	   *keys;

		snapshot = RegisterSnapshot(GetTransactionSnapshot());
		rows = DtxDecisionScan(snapshot);
		UnregisterSnapshot(snapshot);
		keys = DtxDecisionIndex(rows, CurrentMemoryContext);
		foreach(lc, result)
		{
			UnownedRow *unowned = (UnownedRow *) lfirst(lc);

			if (!unowned->adopted &&
				DtxDecisionLookup(keys, unowned->row->boot_id,
								  unowned->row->xid) == NULL)
				result = foreach_delete_current(result, lc);
		}
	}
	return result;
}

/*
 * Read the decision rows that no live backend owns, keeping what is known of those read
 * before.  In a transaction of the worker.  Throws what reading the table throws.
 */
void
DtxUnconfirmedRead(DtxResolver *r)
{
	MemoryContext cxt;
	MemoryContext old;
	HTAB	   *known;
	HASHCTL		info;
	List	   *notes = NIL;
	ListCell   *lc;
	typedef struct KnownNote
	{
		uint64		key[2];		/* boot id, xid */
		DtxUnconfirmed *note;
	} KnownNote;

	DtxAssertInWorker();
	cxt = AllocSetContextCreate(r->cxt, "pg_dtx decision rows",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);

	memset(&info, 0, sizeof(info));
	info.keysize = 2 * sizeof(uint64);
	info.entrysize = sizeof(KnownNote);
	info.hcxt = r->step_cxt;
	known = hash_create("pg_dtx known decision rows", 64, &info,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, r->unconfirmed)
	{
		DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);
		uint64		key[2] = {note->row.boot_id, note->row.xid};
		KnownNote  *entry = hash_search(known, key, HASH_ENTER, NULL);

		entry->note = note;
	}

	foreach(lc, unowned_rows())
	{
		UnownedRow *unowned = (UnownedRow *) lfirst(lc);
		DtxDecisionRow *row = unowned->row;
		uint64		key[2] = {row->boot_id, row->xid};
		KnownNote  *entry;
		DtxUnconfirmed *note;
		bool		adopted = unowned->adopted;

		note = palloc0(sizeof(DtxUnconfirmed));
		note->row = *row;
		note->confirmed = palloc0(sizeof(bool) * Max(row->nparticipants, 1));
		note->serial = ++r->serial;
		note->seals = palloc(sizeof(uint64) * Max(row->nparticipants, 1));
		for (int i = 0; i < row->nparticipants; i++)
		{
			DtxGid		gid;

			note->seals[i] = 0;
			DtxUnconfirmedGid(r, note, i, &gid);
			DtxSeal(&gid);
			note->seals[i] = gid.seal;
		}
		entry = hash_search(known, key, HASH_FIND, NULL);
		if (entry != NULL &&
			entry->note->row.nparticipants == row->nparticipants)
		{
			note->serial = entry->note->serial;
			note->nconfirmed = entry->note->nconfirmed;
			memcpy(note->confirmed, entry->note->confirmed,
				   sizeof(bool) * row->nparticipants);
		}
		if (adopted)
		{
			note->nconfirmed = row->nparticipants;
			memset(note->confirmed, true, sizeof(bool) * row->nparticipants);
		}
		if (note->nconfirmed >= row->nparticipants)
			r->prunable = true;
		notes = lappend(notes, note);

		/* A server that is gone cannot confirm, but must not be forgotten. */
		for (int i = 0; i < row->nparticipants; i++)
		{
			if (!note->confirmed[i] &&
				!DtxKnownServerGet(row->prepared[i].serverid)->exists)
			{
				char		error[64];

				snprintf(error, sizeof(error),
						 "foreign server with OID %u was dropped",
						 row->prepared[i].serverid);
				DtxUnconfirmedShow(r, note, i, error, InvalidOid);
			}
		}
	}
	MemoryContextSwitchTo(old);

	MemoryContextDelete(r->unconfirmed_cxt);
	r->unconfirmed_cxt = cxt;
	r->unconfirmed = notes;
}

/*
 * A participant of a committed transaction cannot be asked: let the in-doubt
 * table show it.
 */
void
DtxUnconfirmedShow(DtxResolver *r, DtxUnconfirmed *note, int index, const char *error,
				   Oid error_umid)
{
	DtxInDoubt	entry;
	DtxGid		gid;

	DtxAssertInWorker();
	if (note->confirmed[index])
		return;
	DtxUnconfirmedGid(r, note, index, &gid);

	/*
	 * An entry that does not say where it was prepared came from a server
	 * that has something of this gid, maybe not the one that we miss.
	 */
	if (DtxInDoubtGet(&gid, &entry) &&
		(entry.system_id != 0 || note->row.prepared[index].system_id == 0))
		return;

	memset(&entry, 0, sizeof(entry));
	entry.gid = gid;
	entry.serverid = note->row.prepared[index].serverid;
	entry.umid = note->row.prepared[index].umid;
	entry.system_id = note->row.prepared[index].system_id;
	entry.timeline = note->row.prepared[index].timeline;
	entry.endpoint = note->row.prepared[index].endpoint;
	entry.remote_xid = note->row.prepared[index].remote_xid;
	entry.xid_system_id = note->row.prepared[index].system_id;
	entry.userid = note->row.userid;
	entry.decision = DTX_COMMIT;
	entry.since = note->row.decided_at;
	if (DtxInDoubtAdd(&entry))
		DtxInDoubtFailed(&gid, error, error_umid, DtxRetryAfter(1));
}

/*
 * Delete the decision rows all of whose participants have confirmed.
 */
void
DtxUnconfirmedDeleteDone(DtxResolver *r)
{
	ListCell   *lc;

	DtxAssertInWorker();
	r->prunable = false;

	DtxResolverXactBegin(r);
	if (DtxExtensionInstalled() && DtxCoordinatorId() == r->coordinator_id)
	{
		foreach(lc, r->unconfirmed)
		{
			DtxUnconfirmed *note = (DtxUnconfirmed *) lfirst(lc);

			if (note->nconfirmed < note->row.nparticipants)
				continue;

			/*
			 * No backend owned it when it was read, and none can have become
			 * its owner since (activity.c, DtxActivitySetRow).
			 */
			(void) DtxDecisionDelete(&note->row);
			r->unconfirmed = foreach_delete_current(r->unconfirmed, lc);
		}
	}
	DtxResolverXactEnd(r);
}
