/*-------------------------------------------------------------------------
 *
 * startup.c
 *		How a background worker starts: its signals, its configuration, and its
 *		connection, which is its own whatever the database or its role have as
 *		their defaults.
 *
 * ALTER DATABASE ... SET and ALTER ROLE ... SET are meant for the sessions of users.
 * Of them, a worker that works for all must not take over who it is (role), what
 * names mean (search_path), what a commit is worth, or a time after which it is
 * stopped; and a worker that executes the steps of a user's saga, which takes over
 * the rest, not those that end its session between them.
 *
 * The settings are made before the connection, as autovacuum does (AutoVacWorkerMain
 * in postmaster/autovacuum.c): PGC_S_OVERRIDE stands above what InitPostgres() finds
 * in pg_db_role_setting.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "base/process.h"
#include "catalog/pg_authid.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "worker/startup.h"

typedef struct Setting
{
	const char *name;
	const char *value;
} Setting;

/* For all workers. */
static const Setting everywhere[] = {
	{"role", "none"},
	{"default_transaction_isolation", "read committed"},
	{"default_transaction_read_only", "off"},
	{"default_transaction_deferrable", "off"},
	{"exit_on_error", "off"},
	{"transaction_timeout", "0"},
	{"idle_in_transaction_session_timeout", "0"},
	{"idle_session_timeout", "0"},
	{"pg_dtx.consistent_reads", "off"}
};

/* For those that work for all, as the bootstrap superuser. */
static const Setting for_all[] = {
	{"search_path", "pg_catalog, pg_temp"},
	{"statement_timeout", "0"},
	{"session_replication_role", "origin"},
	{"force_parallel_mode", "off"},
	{"debug_parallel_query", "off"}
};

static void override(const Setting *settings, int n);

static void
override(const Setting *settings, int n)
{
	for (int i = 0; i < n; i++)
	{
		/* One that a later major version has brought may be missing. */
		if (GetConfigOption(settings[i].name, true, false) != NULL)
			SetConfigOption(settings[i].name, settings[i].value, PGC_SUSET,
							PGC_S_OVERRIDE);
	}
}

/*
 * The first thing that a background worker does: from now on "sigterm" handles SIGTERM,
 * and SIGHUP is noticed (DtxWorkerReloadConfig).
 */
void
DtxWorkerBegin(pqsigfunc sigterm)
{
	DtxAssertInWorker();
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, sigterm);
	BackgroundWorkerUnblockSignals();

	/* A SIGHUP from before our handler was there was lost. */
	ConfigReloadPending = true;
}

/*
 * In each round of a worker's loop: read the configuration if it has changed.  Returns
 * whether it was read.
 */
bool
DtxWorkerReloadConfig(void)
{
	if (!ConfigReloadPending)
		return false;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	return true;
}

/*
 * Connect this process, which is attached (DtxWorkerAttach), to a database under an
 * application name: as "role", or as the bootstrap superuser if that is InvalidOid.
 * "flags" are those of BackgroundWorkerInitializeConnectionByOid().
 *
 * To be called once, with signals unblocked.  FATAL if it cannot connect.
 */
void
DtxWorkerConnect(Oid dbid, Oid role, uint32 flags, const char *name)
{
	Oid			user = OidIsValid(role) ? role : BOOTSTRAP_SUPERUSERID;

	DtxAssertInWorker();
	override(everywhere, lengthof(everywhere));
	if (!OidIsValid(role))
		override(for_all, lengthof(for_all));
	SetConfigOption("application_name", name, PGC_USERSET, PGC_S_OVERRIDE);

	BackgroundWorkerInitializeConnectionByOid(dbid, role, flags);

	/*
	 * The one that cannot be set before there is a catalog to look the name
	 * up.
	 */
	if (GetSessionUserId() != user)
	{
		StartTransactionCommand();
		SetSessionAuthorization(user, superuser_arg(user));
		CommitTransactionCommand();
	}
	pgstat_report_appname(name);
}
