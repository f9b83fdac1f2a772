/*-------------------------------------------------------------------------
 *
 * settings.c
 *		The settings pg_dtx.*; docs say what they mean to users.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/xact.h"
#include "base/settings.h"
#include "postmaster/bgworker.h"
#include "utils/guc.h"

bool		dtx_two_phase_commit = true;
int			dtx_commit_point = DTX_POINT_AUTO;
int			dtx_require = DTX_REQUIRE_WARNING;
int			dtx_prepare_timeout = 30 * 1000;
int			dtx_commit_timeout = 10 * 1000;
int			dtx_snapshot_timeout = 5 * 1000;
bool		dtx_commit_wait = true;
bool		dtx_fold_start = true;
bool		dtx_prepare_statements = true;
int			dtx_remote_isolation = XACT_REPEATABLE_READ;
int			dtx_resolve_interval = 30 * 1000;
bool		dtx_resolver = true;
char	   *dtx_resolver_role = NULL;
char	   *dtx_resolver_require_auth = NULL;
bool		dtx_wait_for_standby = true;
bool		dtx_deadlock_detection = true;
int			dtx_max_in_doubt = 10000;
int			dtx_saga_workers = 3;
int			dtx_saga_step_timeout = 5 * 60 * 1000;
int			dtx_saga_lock_timeout = 1000;
int			dtx_saga_retention = 0;

/* Read by SQL functions only, through current_setting(). */
static int	outbox_limit = 10000000;
static bool publish_saga_events = false;

static const struct config_enum_entry remote_isolation_options[] = {
	{"read committed", XACT_READ_COMMITTED, false},
	{"repeatable read", XACT_REPEATABLE_READ, false},
	{NULL, 0, false}
};

static const struct config_enum_entry commit_point_options[] = {
	{"auto", DTX_POINT_AUTO, false},
	{"coordinator", DTX_POINT_COORDINATOR, false},
	{"server", DTX_POINT_SERVER, false},
	{NULL, 0, false}
};

static const struct config_enum_entry require_options[] = {
	{"off", DTX_REQUIRE_OFF, false},
	{"warning", DTX_REQUIRE_WARNING, false},
	{"error", DTX_REQUIRE_ERROR, false},
	{NULL, 0, false}
};

/* In _PG_init(). */
void
DtxSettingsDefine(void)
{
	DefineCustomBoolVariable("pg_dtx.two_phase_commit",
							 "Enables atomic commit of transactions that wrote on several servers.",
							 "When off, postgres_fdw commits one server after the other, as it does without pg_dtx.",
							 &dtx_two_phase_commit, true,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_dtx.require",
							 "Sets what happens to transactions that wrote on several servers and cannot be committed atomically.",
							 "They cannot where the extension is not installed, or \"pg_dtx.two_phase_commit\" is off.",
							 &dtx_require, DTX_REQUIRE_WARNING,
							 require_options,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_dtx.commit_point",
							 "Sets which node decides about a transaction that wrote on several servers and not here.",
							 "With \"auto\" it is one of the servers if the network to it is fast and its transaction is known to be on its disk.",
							 &dtx_commit_point, DTX_POINT_AUTO,
							 commit_point_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.prepare_timeout",
							"Sets the maximum time to wait for all servers to prepare.",
							"When it is over, the transaction is rolled back everywhere.",
							&dtx_prepare_timeout, 30 * 1000, 1, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.commit_timeout",
							"Sets the maximum time that COMMIT waits for the confirmations of the servers.",
							"When it is over, COMMIT returns with a warning and the resolver goes on.",
							&dtx_commit_timeout, 10 * 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.commit_wait",
							 "Makes COMMIT wait for the confirmations of the servers.",
							 "When off, COMMIT returns once the decision is durable and on its way to the servers.",
							 &dtx_commit_wait, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.snapshot_timeout",
							"Sets the maximum time to wait for a moment at which nothing is committed in part.",
							NULL,
							&dtx_snapshot_timeout,
							5 * 1000, 10, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.fold_start",
							 "Enables sending START TRANSACTION together with the first command of a remote transaction.",
							 "Saves a round trip per server.",
							 &dtx_fold_start, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.prepare_statements",
							 "Enables preparing statements on the servers that postgres_fdw sends again and again.",
							 "They need not be parsed and planned each time.",
							 &dtx_prepare_statements, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomEnumVariable("pg_dtx.remote_isolation",
							 "Sets the isolation level of remote transactions when the local one is READ COMMITTED.",
							 "Transactions that ask for more get what postgres_fdw makes of it.",
							 &dtx_remote_isolation, XACT_REPEATABLE_READ,
							 remote_isolation_options,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.resolve_interval",
							"Sets the time between two full passes of the resolver.",
							NULL,
							&dtx_resolve_interval, 30 * 1000, 10, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.resolver",
							 "Enables the resolver, which finishes prepared transactions that are in doubt.",
							 "Turn it off on a copy of a coordinator that must not touch the original's transactions.",
							 &dtx_resolver, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_dtx.resolver_role",
							   "Sets the local role whose user mappings the resolver uses first.",
							   "On servers that superusers own it uses them even if nothing was prepared through them.",
							   &dtx_resolver_role, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomStringVariable("pg_dtx.resolver_require_auth",
							   "Sets the authentication methods by which servers may have the resolver prove who it is.",
							   "As libpq's option require_auth (PostgreSQL 16 and later), for servers and user mappings that do not have that option.",
							   &dtx_resolver_require_auth, "",
							   PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.wait_for_standby",
							 "Makes servers commit only what the coordinator's synchronous standby knows to be decided.",
							 "When off, a COMMIT whose wait for the standby was canceled is sent to the servers at once, and a failover may leave it committed on some of them only.",
							 &dtx_wait_for_standby, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.deadlock_detection",
							 "Enables finding and ending deadlocks between servers.",
							 "A session that has waited for a server for \"deadlock_timeout\" is looked at.",
							 &dtx_deadlock_detection, true,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.max_in_doubt",
							"Sets the maximum number of prepared transactions in doubt that shared memory has room for.",
							"When it is full nothing is lost: the next full pass finds the rest on the servers.",
							&dtx_max_in_doubt, 10000, 16, 1000000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.outbox_limit",
							"Sets the number of events waiting for a relay from which on no more are accepted.",
							"0 means no limit.",
							&outbox_limit, 10000000, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomBoolVariable("pg_dtx.publish_saga_events",
							 "Enables writing the events of sagas into \"dtx.outbox\", too.",
							 "From there a relay publishes them.",
							 &publish_saga_events, false,
							 PGC_SUSET, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_workers",
							"Sets the maximum number of processes per database that execute the steps of sagas.",
							"0 keeps sagas from running.",
							&dtx_saga_workers, 3, 0, 1024,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_step_timeout",
							"Sets the maximum time that an attempt at a step of a saga may take.",
							"A definition may ask for less. 0 turns this off.",
							&dtx_saga_step_timeout, 5 * 60 * 1000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_retention",
							"Sets how long sagas that were completed or compensated are kept.",
							"Events are kept until all consumers have taken them. 0 keeps sagas until dtx.purge_sagas() is called.",
							&dtx_saga_retention, 0, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("pg_dtx.saga_lock_timeout",
							"Sets the maximum time that a step of a saga waits for a lock before it is postponed.",
							"Where \"lock_timeout\" is set, that counts. 0 turns this off.",
							&dtx_saga_lock_timeout, 1000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* Does this process commit in two phases, and wait, whatever the settings say? */
static bool required = false;

/*
 * From now on all transactions of this process commit in two phases if that is needed,
 * and wait for their confirmations: settings do not matter.  For workers.  Cannot be
 * taken back.
 */
void
DtxRequireTwoPhaseCommit(void)
{
	Assert(MyBgworkerEntry != NULL);
	required = true;
}

/*
 * Does this process commit in two phases where that is needed?
 */
bool
DtxTwoPhaseCommit(void)
{
	return dtx_two_phase_commit || required;
}

/*
 * Does COMMIT wait for the confirmations?
 */
bool
DtxCommitWaits(void)
{
	return dtx_commit_wait || required;
}
