/*-------------------------------------------------------------------------
 *
 * pg_dtx.c
 *		Entry point: settings, shared-memory hooks, background worker.  No
 *		logic lives here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "fault.h"
#include "fmgr.h"
#include "identity.h"
#include "miscadmin.h"
#include "pg_dtx.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/guc.h"

PG_MODULE_MAGIC;

bool		dtx_two_phase_commit = true;
int			dtx_require = DTX_REQUIRE_WARNING;
int			dtx_prepare_timeout = 30 * 1000;
int			dtx_commit_timeout = 10 * 1000;
bool		dtx_commit_wait = true;
bool		dtx_fold_start = true;
bool		dtx_prepare_statements = true;
static bool dtx_wrote_elsewhere = false;	/* never looked at, see its show hook */
int			dtx_remote_isolation = XACT_REPEATABLE_READ;
int			dtx_resolve_interval = 30 * 1000;
bool		dtx_resolver = true;
char	   *dtx_resolver_role = NULL;
char	   *dtx_resolver_require_auth = NULL;
bool		dtx_wait_for_standby = true;
int			dtx_max_in_doubt = 10000;
int			dtx_saga_workers = 3;
int			dtx_saga_step_timeout = 5 * 60 * 1000;

static const struct config_enum_entry remote_isolation_options[] = {
	{"read committed", XACT_READ_COMMITTED, false},
	{"repeatable read", XACT_REPEATABLE_READ, false},
	{NULL, 0, false}
};

static const struct config_enum_entry require_options[] = {
	{"off", DTX_REQUIRE_OFF, false},
	{"warning", DTX_REQUIRE_WARNING, false},
	{"error", DTX_REQUIRE_ERROR, false},
	{NULL, 0, false}
};

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

PGDLLEXPORT void _PG_init(void);

static void define_settings(void);
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
	DtxInterposeCheck();

	define_settings();
	DtxLauncherRegister();

	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = dtx_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = dtx_shmem_startup;
}

static void
define_settings(void)
{
	DefineCustomBoolVariable("pg_dtx.two_phase_commit",
							 "Commits transactions that wrote on several servers atomically.",
							 "When off, postgres_fdw commits one server after the other, as it does without pg_dtx.",
							 &dtx_two_phase_commit, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_dtx.require",
							 "What happens to transactions that wrote on several servers and can't be committed atomically.",
							 "They can't where the extension is not installed, or \"pg_dtx.two_phase_commit\" is off.",
							 &dtx_require, DTX_REQUIRE_WARNING,
							 require_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.prepare_timeout",
							"Longest time to wait for all servers to prepare.",
							"When it is over, the transaction is rolled back everywhere.",
							&dtx_prepare_timeout, 30 * 1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.commit_timeout",
							"Longest time that COMMIT waits for the confirmations of the servers.",
							"When it is over, COMMIT returns with a warning and the resolver goes on.",
							&dtx_commit_timeout, 10 * 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.commit_wait",
							 "Lets COMMIT wait for the confirmations of the servers.",
							 "When off, COMMIT returns once the decision is durable and on its way to the servers.",
							 &dtx_commit_wait, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.fold_start",
							 "Sends START TRANSACTION together with the first command of a remote transaction.",
							 "Saves a round trip per server.",
							 &dtx_fold_start, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.prepare_statements",
							 "Prepares statements on the servers that postgres_fdw sends again and again.",
							 "They need not be parsed and planned each time.",
							 &dtx_prepare_statements, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_dtx.remote_isolation",
							 "Isolation level of remote transactions when the local one is READ COMMITTED.",
							 "Transactions that ask for more get what postgres_fdw makes of it.",
							 &dtx_remote_isolation, XACT_REPEATABLE_READ,
							 remote_isolation_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.resolve_interval",
							"Time between two full passes of the resolver.",
							NULL,
							&dtx_resolve_interval, 30 * 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.resolver",
							 "Finishes prepared transactions that are in doubt.",
							 "Turn it off on a copy of a coordinator that must not touch the original's transactions.",
							 &dtx_resolver, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_dtx.resolver_role",
							   "Local role whose user mappings the resolver uses first.",
							   "On servers that superusers own it uses them even if nothing was prepared through them.",
							   &dtx_resolver_role, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_dtx.resolver_require_auth",
							   "Authentication methods by which servers may have the resolver prove who it is.",
							   "As libpq's option require_auth (PostgreSQL 16 and later), for servers and user mappings that do not have that option.",
							   &dtx_resolver_require_auth, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.wait_for_standby",
							 "Lets servers commit only what the coordinator's synchronous standby knows to be decided.",
							 "When off, a COMMIT whose wait for the standby was canceled is sent to the servers at once, and a failover may leave it committed on some of them only.",
							 &dtx_wait_for_standby, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.max_in_doubt",
							"Prepared transactions in doubt that shared memory has room for.",
							"When it is full nothing is lost: the next full pass finds the rest on the servers.",
							&dtx_max_in_doubt, 10000, 16, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_workers",
							"Processes per database that execute the steps of sagas.",
							"0 keeps sagas from running.",
							&dtx_saga_workers, 3, 0, 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_step_timeout",
							"Longest time that an attempt at a step of a saga may take.",
							"A definition may ask for less. 0 turns this off.",
							&dtx_saga_step_timeout, 5 * 60 * 1000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);

	/* For another coordinator, of which this server is a participant. */
	DefineCustomBoolVariable("pg_dtx.wrote_elsewhere",
							 "Shows whether the current transaction may have written on foreign servers.",
							 NULL,
							 &dtx_wrote_elsewhere, false,
							 PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, DtxShowWroteElsewhere);
#ifdef DTX_FAULTS
	DtxFaultDefineSetting();
#endif
	MarkGUCPrefixReserved("pg_dtx");
}

static void
dtx_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();

	/*
	 * All libraries have been loaded (postmaster/postmaster.c, PostmasterMain, and
	 * tcop/postgres.c, PostgresSingleUserMain).  Not before: pg_dtx has to be
	 * loaded first, and others, like Citus, refuse to be loaded after a library
	 * that has set these hooks.
	 */
	DtxLauncherInstallHooks();
	DtxSagaInstallHooks();
	DtxAdminInstallHooks();
	DtxProtectionInstallHooks();
	DtxPassedByInstallHooks();

	RequestAddinShmemSpace(DtxStatsShmemSize());
	RequestAddinShmemSpace(DtxIdentityShmemSize());
	RequestAddinShmemSpace(DtxActivityShmemSize());
	RequestAddinShmemSpace(DtxDecisionMapShmemSize());
	RequestAddinShmemSpace(DtxInDoubtShmemSize());
	RequestAddinShmemSpace(DtxDropGuardShmemSize());
	RequestAddinShmemSpace(DtxLauncherShmemSize());
	RequestAddinShmemSpace(DtxSagaShmemSize());
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
	DtxDecisionMapShmemInit();
	DtxInDoubtShmemInit();
	DtxDropGuardShmemInit();
	DtxLauncherShmemInit();
	DtxSagaShmemInit();
	LWLockRelease(AddinShmemInitLock);
}
