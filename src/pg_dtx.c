/*-------------------------------------------------------------------------
 *
 * pg_dtx.c
 *		Entry point: what is defined, hooked and reserved when the server starts.
 *		No logic lives here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/coordinator.h"
#include "commit/passed_by.h"
#include "commit/protection.h"
#include "commit/real_libpq.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "saga/at_commit.h"
#include "saga/claims.h"
#include "saga/late_report.h"
#include "saga/wait.h"
#include "sql/drop_extension.h"
#include "sql/guards.h"
#include "sql/server_changes.h"
#include "snapshot/consistent_reads.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision_map.h"
#include "state/flushed.h"
#include "state/gate.h"
#include "state/in_doubt.h"
#include "state/waits.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"
#include "worker/drop_guard.h"
#include "worker/register.h"
#include "worker/slots.h"
#include "worker/utility.h"

PG_MODULE_MAGIC;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

PGDLLEXPORT void _PG_init(void);

static void dtx_shmem_request(void);
static void dtx_shmem_startup(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("pg_dtx must be loaded when the server starts"),
				 errhint("Add pg_dtx to \"shared_preload_libraries\", before any other library that uses libpq, and restart the server.")));

	/* Refuse to start half-armed rather than to lose atomicity silently. */
	DtxRealLibpqFind();

	DtxSettingsDefine();
	DtxCoordinatorDefineSettings();
	DtxConsistentReadsDefineSetting();
#ifdef DTX_FAULTS
	DtxFaultDefineSetting();
#endif
	MarkGUCPrefixReserved("pg_dtx");
	DtxLauncherRegister();

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = dtx_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = dtx_shmem_startup;
}

static void
dtx_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	/*
	 * All libraries have been loaded (postmaster/postmaster.c,
	 * PostmasterMain, and tcop/postgres.c, PostgresSingleUserMain).  Not
	 * before: pg_dtx has to be loaded first, and others, like Citus, refuse
	 * to be loaded after a library that has set these hooks.
	 */
	DtxLauncherInstallHooks();
	DtxSagaInstallHooks();
	DtxGuardsInstallHook();
	DtxDropExtensionInstallHook();
	DtxServerChangesInstallHooks();
	DtxProtectionInstallHooks();
	DtxPassedByInstallHooks();
	DtxConsistentReadsInstallHooks();

	RequestAddinShmemSpace(DtxStatsShmemSize());
	RequestAddinShmemSpace(DtxIdentityShmemSize());
	RequestAddinShmemSpace(DtxActivityShmemSize());
	RequestAddinShmemSpace(DtxWaitsShmemSize());
	RequestAddinShmemSpace(DtxFlushedShmemSize());
	RequestAddinShmemSpace(DtxGateShmemSize());
	RequestAddinShmemSpace(DtxDecisionMapShmemSize());
	RequestAddinShmemSpace(DtxInDoubtShmemSize());
	RequestAddinShmemSpace(DtxDropGuardShmemSize());
	RequestAddinShmemSpace(DtxLauncherShmemSize());
	RequestAddinShmemSpace(DtxSagaShmemSize());
	RequestAddinShmemSpace(DtxSagaWaitShmemSize());
	RequestAddinShmemSpace(DtxSagaLateShmemSize());
}

static void
dtx_shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	DtxStatsShmemInit();
	DtxIdentityShmemInit();
	DtxActivityShmemInit();
	DtxWaitsShmemInit();
	DtxFlushedShmemInit();
	DtxGateShmemInit();
	DtxDecisionMapShmemInit();
	DtxInDoubtShmemInit();
	DtxDropGuardShmemInit();
	DtxLauncherShmemInit();
	DtxSagaShmemInit();
	DtxSagaWaitShmemInit();
	DtxSagaLateShmemInit();
	LWLockRelease(AddinShmemInitLock);
}
