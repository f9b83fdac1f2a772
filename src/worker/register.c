/*-------------------------------------------------------------------------
 *
 * register.c
 *		Registering background workers: the launcher and the reserved resolver when the server
 *		starts, the others when they are needed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/lwlock.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "worker/register.h"
#include "worker/slots.h"
#include "worker/turns.h"

/*
 * What all background workers of pg_dtx have in common: *worker is to run "function" of
 * this library, connected to a database, once, and is shown as "type".
 */
void
DtxWorkerDescribe(BackgroundWorker *worker, const char *function, const char *type)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	snprintf(worker->bgw_library_name, sizeof(worker->bgw_library_name), "pg_dtx");
	snprintf(worker->bgw_function_name, sizeof(worker->bgw_function_name), "%s", function);
	snprintf(worker->bgw_name, sizeof(worker->bgw_name), "%s", type);
	snprintf(worker->bgw_type, sizeof(worker->bgw_type), "%s", type);
}

/*
 * Register the launcher.  From _PG_init() in the postmaster only.
 */
void
DtxLauncherRegister(void)
{
	BackgroundWorker worker;

	/* Nothing may connect to the databases behind pg_upgrade's back. */
	if (IsBinaryUpgrade)
		return;

	DtxWorkerDescribe(&worker, "dtx_launcher_main", "pg_dtx launcher");
	worker.bgw_restart_time = 5;
	RegisterBackgroundWorker(&worker);

	/* The reserved resolver. */
	DtxWorkerDescribe(&worker, "dtx_resolver_main", "pg_dtx resolver");
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_name, sizeof(worker.bgw_name), "pg_dtx reserved resolver");
	worker.bgw_main_arg = ObjectIdGetDatum(InvalidOid);
	RegisterBackgroundWorker(&worker);
}

/*
 * Take an entry and register a background worker for it.  Fills in *key and *handle,
 * which lives in TopMemoryContext, if it returns DTX_STARTED.  Does not wait for the
 * worker to start; its end is told by a signal to this process (bgw_notify_pid).  The
 * caller does not hold the lock.  Throws if out of memory.
 */
DtxStartResult
DtxWorkerRegister(DtxWorkerKind kind, Oid dbid, Oid role, DtxWorkerKey *key,
				  BackgroundWorkerHandle **handle)
{
	static const char *const names[] = {
		"pg_dtx resolver", "pg_dtx saga scheduler", "pg_dtx deadlock detector",
		"pg_dtx saga worker"
	};
	static const char *const functions[] = {
		"dtx_resolver_main", "dtx_saga_scheduler_main", "dtx_detector_main",
		"dtx_saga_worker_main"
	};
	BackgroundWorker worker;
	DtxSlotScan scan = {
		.states = DTX_SLOT_BIT(DTX_SLOT_FREE),
		.next = DTX_RESERVED_SLOT + 1
	};
	DtxWorkerSlot *entry;
	MemoryContext old;
	bool		first_saga;
	bool		ok;

	StaticAssertStmt(sizeof(DtxWorkerKey) <= BGW_EXTRALEN,
					 "WorkerKey does not fit into bgw_extra");

	memset(key, 0, sizeof(*key));
	LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
	if (DtxDatabaseIsBlocked(dbid))
	{
		LWLockRelease(&DtxWorkers->lock);
		return DTX_BLOCKED;
	}
	entry = DtxSlotNext(&scan);
	if (entry != NULL)
		key->index = DtxSlotIndex(entry);

	/*
	 * Sagas come after resolvers, but for the first worker of a database:
	 * room is made for that one as for a resolver.
	 */
	first_saga = kind == DTX_WORKER_SAGA && !DtxSlotOfSagas(dbid);
	if (entry == NULL ||
		(kind == DTX_WORKER_SAGA && !first_saga && DtxWorkers->slot_needed))
	{
		if (first_saga)
			DtxTurnsMakeRoom(DTX_SAGA_GUEST_MS);
		LWLockRelease(&DtxWorkers->lock);
		return DTX_NO_SLOT;
	}
	DtxSlotTake(entry, kind, dbid, role);
	key->generation = entry->generation;
	LWLockRelease(&DtxWorkers->lock);

	DtxWorkerDescribe(&worker, functions[kind], names[kind]);
	worker.bgw_flags |= DTX_BGWORKER_INTERRUPTIBLE;
	snprintf(worker.bgw_name, sizeof(worker.bgw_name),
			 OidIsValid(role) ? "%s for database %u, role %u" :
			 "%s for database %u", names[kind], dbid, role);
	worker.bgw_main_arg = ObjectIdGetDatum(dbid);
	memcpy(worker.bgw_extra, key, sizeof(*key));
	worker.bgw_notify_pid = MyProcPid;

	old = MemoryContextSwitchTo(TopMemoryContext);
	ok = RegisterDynamicBackgroundWorker(&worker, handle);
	MemoryContextSwitchTo(old);
	if (!ok)
	{
		LWLockAcquire(&DtxWorkers->lock, LW_EXCLUSIVE);
		if (entry->generation == key->generation)
			DtxSlotGiveBack(entry);
		if (first_saga)
			DtxTurnsMakeRoom(DTX_SAGA_GUEST_MS);
		LWLockRelease(&DtxWorkers->lock);
		return DTX_NO_SLOT;
	}
	return DTX_STARTED;
}
