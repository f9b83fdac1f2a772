/*-------------------------------------------------------------------------
 *
 * settings.h
 *		The settings pg_dtx.*; docs say what they mean to users.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SETTINGS_H
#define PG_DTX_SETTINGS_H

/* What happens to a transaction that is not committed atomically. */
typedef enum DtxRequire
{
	DTX_REQUIRE_OFF,
	DTX_REQUIRE_WARNING,
	DTX_REQUIRE_ERROR
} DtxRequire;

/* Which node may be the commit point of a transaction that wrote on servers only. */
typedef enum DtxCommitPoint
{
	DTX_POINT_AUTO,				/* a server, where that is faster */
	DTX_POINT_COORDINATOR,
	DTX_POINT_SERVER
} DtxCommitPoint;

extern bool dtx_two_phase_commit;
extern int	dtx_commit_point;	/* DtxCommitPoint */
extern int	dtx_require;		/* DtxRequire */
extern int	dtx_prepare_timeout;	/* milliseconds */
extern int	dtx_commit_timeout; /* milliseconds */
extern int	dtx_snapshot_timeout;	/* milliseconds */
extern bool dtx_commit_wait;
extern bool dtx_fold_start;
extern bool dtx_prepare_statements;
extern int	dtx_remote_isolation;	/* XACT_READ_COMMITTED or _REPEATABLE_READ */
extern int	dtx_resolve_interval;	/* milliseconds */
extern bool dtx_resolver;
extern char *dtx_resolver_role; /* local role, or "" */
extern char *dtx_resolver_require_auth; /* as libpq's option, or "" */
extern bool dtx_wait_for_standby;
extern bool dtx_deadlock_detection;
extern int	dtx_max_in_doubt;	/* entries */
extern int	dtx_saga_workers;	/* per database, 0: sagas do not run */
extern int	dtx_saga_step_timeout;	/* milliseconds, 0: none */
extern int	dtx_saga_retention; /* seconds, 0: for ever */
extern int	dtx_saga_lock_timeout;	/* milliseconds, 0: none */

extern void DtxSettingsDefine(void);

/* what holds for this process */
extern void DtxRequireTwoPhaseCommit(void);
extern bool DtxTwoPhaseCommit(void);
extern bool DtxCommitWaits(void);

#endif							/* PG_DTX_SETTINGS_H */
