/*-------------------------------------------------------------------------
 *
 * vacate.c
 *		Databases that a statement needs for itself: their workers are stopped, and kept from
 *		being started again until the transaction is over.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE, and CREATE DATABASE with
 * the database as template, need the database for themselves (commands/dbcommands.c,
 * CountOtherDBBackends).  PostgreSQL 19 has a flag with which a background worker asks
 * to be stopped in that case; it is set as well, but this is needed all the same.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/process.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lwlock.h"
#include "utils/palloc.h"
#include "utils/syscache.h"
#include "worker/slots.h"
#include "worker/vacate.h"

/* Longest time that a statement waits for workers to leave, ms. */
#define STOP_TIMEOUT		5000

/* Backend: database that it has blocked, or InvalidOid. */
static Oid	my_blocked = InvalidOid;

static bool may_use_as_template(Oid dbid);
static void unblock_at_exit(int code, Datum arg);
static void vacate_xact_callback(XactEvent event, void *arg);

/*
 * The database that this statement needs for itself, if any, and if the user may do
 * that: nobody else shall be able to stop its workers.  The statement itself checks
 * everything again.  In a transaction; throws what looking up a database throws.
 */
Oid
DtxVacateTarget(Node *stmt)
{
	const char *name = NULL;
	bool		template = false;
	Oid			dbid;
	ListCell   *lc;

	switch (nodeTag(stmt))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) stmt)->dbname;
			break;

		case T_CreatedbStmt:
			template = true;
			name = "template1";
			foreach(lc, ((CreatedbStmt *) stmt)->options)
			{
				DefElem    *def = (DefElem *) lfirst(lc);

				if (strcmp(def->defname, "template") == 0 && def->arg != NULL)
					name = defGetString(def);
			}
			break;

		case T_AlterDatabaseStmt:
			foreach(lc, ((AlterDatabaseStmt *) stmt)->options)
			{
				DefElem    *def = (DefElem *) lfirst(lc);

				if (strcmp(def->defname, "tablespace") == 0)
					name = ((AlterDatabaseStmt *) stmt)->dbname;
			}
			break;

		case T_RenameStmt:
			if (((RenameStmt *) stmt)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) stmt)->subname;
			break;

		default:
			break;
	}
	if (name == NULL)
		return InvalidOid;

	dbid = get_database_oid(name, true);
	if (!OidIsValid(dbid))
		return InvalidOid;
	if (template ? may_use_as_template(dbid) :
		DtxDatabaseOwnercheck(dbid, GetUserId()))
		return dbid;
	return InvalidOid;
}

/*
 * May the user create a database from this one?  commands/dbcommands.c,
 * createdb(): with the right to create databases, from a template or from a
 * database of its own.
 */
static bool
may_use_as_template(Oid dbid)
{
	HeapTuple	tuple;
	bool		createdb = superuser();
	bool		istemplate = false;

	if (!createdb)
	{
		tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
		if (HeapTupleIsValid(tuple))
		{
			createdb = ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
			ReleaseSysCache(tuple);
		}
	}
	if (!createdb)
		return false;

	tuple = SearchSysCache1(DATABASEOID, ObjectIdGetDatum(dbid));
	if (HeapTupleIsValid(tuple))
	{
		istemplate = ((Form_pg_database) GETSTRUCT(tuple))->datistemplate;
		ReleaseSysCache(tuple);
	}
	return istemplate || DtxDatabaseOwnercheck(dbid, GetUserId());
}

/*
 * Stop the workers of a database, wait until they are gone, and keep them from
 * being started again until DtxVacateUnblock().
 *
 * Throws on interrupts, and then blocks nothing.  One database at a time.  If they do
 * not leave in time the statement that needs the database says so itself.
 */
void
DtxVacateBlock(Oid dbid)
{
	static bool registered = false;
	static uint32 wait_event = 0;
	DtxMoment	deadline = DtxIn(STOP_TIMEOUT);
	bool	   *signaled = palloc0(sizeof(bool) * DtxWorkers->nworkers);

	if (wait_event == 0)
		wait_event = DtxWaitEvent("DtxResolverStop");
	if (!registered)
	{
		before_shmem_exit(unblock_at_exit, (Datum) 0);
		registered = true;
	}

	my_blocked = dbid;
	PG_TRY();
	{
		for (;;)
		{
			DtxSlotScan scan = {
				.states = DTX_SLOT_BIT(DTX_SLOT_STARTING) | DTX_SLOT_BIT(DTX_SLOT_RUNNING),
				.dbid = dbid
			};
			DtxWorkerSlot *entry;
			bool		running = false;
			long		left;

			LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
			DtxWorkers->blocked[DtxMyProcNumber()] = dbid;
			while ((entry = DtxSlotNext(&scan)) != NULL)
			{
				/* One that has not attached yet is not let in any more. */
				if (entry->state == DTX_SLOT_STARTING)
				{
					DtxSlotGiveBack(entry);
					continue;
				}

				/*
				 * The entry cannot be given back while we hold the lock, so
				 * the pid is right.
				 */
				running = true;
				if (!signaled[DtxSlotIndex(entry)])
				{
					signaled[DtxSlotIndex(entry)] = true;
					entry->stop = true;
					SetLatch(entry->latch);
					(void) kill(entry->pid, SIGTERM);
				}
			}
			LWLockRelease(&DtxWorkers->lock);

			left = DtxUntil(deadline);
			if (!running || left <= 0)
				break;
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 Min(left, 100), wait_event);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
	PG_CATCH();
	{
		DtxVacateUnblock();
		PG_RE_THROW();
	}
	PG_END_TRY();
}

/*
 * Let the launcher have the database again that this backend has blocked.
 * Never throws.
 */
void
DtxVacateUnblock(void)
{
	if (!OidIsValid(my_blocked))
		return;
	my_blocked = InvalidOid;

	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	DtxWorkers->blocked[DtxMyProcNumber()] = InvalidOid;

	/* There may be a new database, or one less. */
	DtxWorkers->scan = true;
	if (DtxWorkers->launcher_latch != NULL)
		SetLatch(DtxWorkers->launcher_latch);
	LWLockRelease(&DtxWorkers->lock);
}

static void
unblock_at_exit(int code, Datum arg)
{
	DtxAssertExiting();
	DtxVacateUnblock();
}

/*
 * The end of a transaction: its database may have workers again.  Never throws.
 */
static void
vacate_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			DtxVacateUnblock();
			break;
		default:
			break;
	}
}

/*
 * Before the server accepts connections; backends inherit it.
 */
void
DtxVacateInstallHooks(void)
{
	RegisterXactCallback(vacate_xact_callback, NULL);
}
