/*-------------------------------------------------------------------------
 *
 * pg_dtx.h
 *		What the modules of pg_dtx share: types, settings, and the functions
 *		that one module offers to the others.
 *
 * One section per module, lowest first.  Calls go one way, from a section to
 * the ones above it:
 *
 *	remote_exec -> interpose -> coordinator -> participant -> in_doubt, activity,
 *		decision, gid
 *	resolver -> saga -> launcher
 *	saga_worker -> saga, remote_exec, launcher
 *	resolver -> remote, launcher, in_doubt, activity, decision, gid
 *	admin -> everything
 *
 * libpq is used here through its own header, never through
 * libpq-be-fe.h: that header's PGresult wrapper allocates in memory contexts,
 * which is not allowed after the local commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_H
#define PG_DTX_H

#include "access/transam.h"
#include "access/xlogdefs.h"
#include "backoff.h"
#include "datatype/timestamp.h"
#include "libpq-fe.h"
#include "nodes/pg_list.h"
#include "storage/itemptr.h"
#include "storage/lockdefs.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapshot.h"

/* ----------------------------------------------------------------
 * gid.c: the global transaction identifier
 * ----------------------------------------------------------------
 */

/*
 * What a gid says,
 * "dtx:<coordinator id>:<database>:<boot id>:<xid>:<n>:<seal>".
 * Used as a hash key: zero the whole struct before filling it.
 */
typedef struct DtxGid
{
	uint64		coordinator_id; /* random, one per CREATE EXTENSION */
	uint64		boot_id;		/* random, one per life of shared memory */
	uint64		xid;			/* full transaction id of the local transaction */
	uint64		seal;			/* proof that the coordinator gave the name */
	Oid			dbid;			/* database of the coordinator */
	uint32		n;				/* number of the participant, from 1 */
} DtxGid;

/* Room for a gid's text with its NUL; PostgreSQL's GIDSIZE is 200. */
#define DTX_GID_SIZE	128

/*
 * What stands in front of PREPARE TRANSACTION in the message that prepares a
 * participant, up to the gid, which follows in a comment so that it is near the
 * beginning: pg_stat_activity shows the beginning only (track_activity_query_size).
 * Resolvers look for running commands that begin with it.
 */
#define DTX_PREPARE_HEAD	"SET CONSTRAINTS ALL IMMEDIATE; SELECT /* "

/*
 * Asked of a server on a new connection: the name of its current WAL file, which
 * begins with the timeline, and its system identifier, which not everybody may
 * ask for.  Servers before version 10 call the functions of the first otherwise.
 */
#define DTX_IDENTIFY_OLD \
	"SELECT NULL::pg_catalog.text; " \
	"SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"
#define DTX_IDENTIFY \
	"SELECT CASE WHEN NOT pg_catalog.pg_is_in_recovery() " \
	"THEN pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()) END; " \
	"SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"

extern void DtxGidFormat(const DtxGid *gid, char *buf);
extern void DtxGidFormatStem(const DtxGid *gid, char *buf);
extern void DtxGidFormatPrefix(uint64 coordinator_id, Oid dbid, char *buf);
extern bool DtxGidParse(const char *text, DtxGid *gid);
extern uint64 DtxNumberParse(const char *text, uint64 max);
extern uint64 DtxTimelineParse(const char *text);

/* What became, or is to become, of a prepared transaction. */
typedef enum DtxDecision
{
	DTX_ROLLBACK = 0,
	DTX_COMMIT = 1,
	DTX_UNDECIDED = 2			/* a human has to say; see judge.h */
} DtxDecision;

/* ----------------------------------------------------------------
 * wrapper.c: which foreign-data wrappers are postgres_fdw
 * ----------------------------------------------------------------
 */

/* The C function that makes a foreign-data wrapper a postgres_fdw. */
#define DTX_POSTGRES_FDW_HANDLER	"postgres_fdw_handler"

extern bool DtxServerIsPostgresFdw(Oid fdwid);
extern const void *DtxWrapperHandler(Oid fdwid);
extern List *DtxPostgresFdwWrappers(void);

/* ----------------------------------------------------------------
 * pg_dtx.c: settings (see README for what they mean)
 * ----------------------------------------------------------------
 */
extern bool dtx_two_phase_commit;
extern int	dtx_require;		/* DtxRequire */
extern int	dtx_prepare_timeout;	/* milliseconds */
extern int	dtx_commit_timeout; /* milliseconds */
extern bool dtx_commit_wait;
extern bool dtx_fold_start;
extern bool dtx_prepare_statements;
extern int	dtx_remote_isolation;	/* XACT_READ_COMMITTED or _REPEATABLE_READ */
extern int	dtx_resolve_interval;	/* milliseconds */
extern bool dtx_resolver;
extern char *dtx_resolver_role; /* local role, or "" */
extern char *dtx_resolver_require_auth; /* as libpq's option, or "" */
extern bool dtx_wait_for_standby;
extern int	dtx_max_in_doubt;	/* entries */
extern int	dtx_saga_workers;	/* per database, 0: sagas do not run */
extern int	dtx_saga_step_timeout;	/* milliseconds, 0: none */

/* ----------------------------------------------------------------
 * stats.c: cumulative counters in shared memory
 * ----------------------------------------------------------------
 */
typedef enum DtxCounter
{
	DTX_STAT_ONE_PHASE,			/* transactions left to one-phase commit */
	DTX_STAT_TWO_PHASE,			/* transactions committed in two phases */
	DTX_STAT_PREPARED,			/* participants prepared */
	DTX_STAT_PREPARE_FAILED,	/* transactions rolled back in phase one */
	DTX_STAT_HANDED_OVER,		/* participants handed to the resolver */
	DTX_STAT_RESOLVED_COMMIT,	/* in doubt, committed by a resolver */
	DTX_STAT_RESOLVED_ROLLBACK, /* in doubt, rolled back by a resolver */
	DTX_STAT_FORCED,			/* finished by dtx.force() */
	DTX_STAT_PASSES,			/* full passes of the resolvers */
	DTX_STAT_UNPROTECTED,		/* transactions that were not committed
								 * atomically */
	DTX_STAT_PREPARE_USEC,		/* time in phase one, microseconds */
	DTX_STAT_COMMIT_USEC,		/* time in phase two, microseconds */
	DTX_STAT_COUNT
} DtxCounter;

extern Size DtxStatsShmemSize(void);
extern void DtxStatsShmemInit(void);
extern void DtxStatsAdd(DtxCounter counter, uint64 amount);	/* never throws */
extern uint64 DtxStatsGet(DtxCounter counter);
extern TimestampTz DtxStatsResetAt(void);
extern void DtxStatsReset(void);

/* ----------------------------------------------------------------
 * activity.c: what each backend is doing now, in shared memory
 * ----------------------------------------------------------------
 */

/* Participants of one transaction that dtx.transactions can show by name. */
#define DTX_SHOWN_PARTICIPANTS 64

typedef enum DtxState
{
	DTX_IDLE = 0,				/* no distributed transaction */
	DTX_ACTIVE,					/* has participants, not in COMMIT yet */
	DTX_PREPARING,				/* phase one, up to the local commit */
	DTX_COMMITTING,				/* phase two after the local commit */
	DTX_ABORTING				/* rolling back after phase one began */
} DtxState;

/* A copy of one backend's entry, for the views. */
typedef struct DtxActivity
{
	int			pid;			/* backend's process id */
	Oid			dbid;			/* its database */
	Oid			userid;			/* session user */
	DtxState	state;
	uint64		xid;			/* full transaction id, 0 if not assigned */
	TimestampTz start;			/* start of the local transaction */
	int			nparticipants;	/* all of them, shown or not */
	Oid			servers[DTX_SHOWN_PARTICIPANTS];
	bool		waiting[DTX_SHOWN_PARTICIPANTS];	/* reply outstanding? */
} DtxActivity;

extern Size DtxActivityShmemSize(void);
extern void DtxActivityShmemInit(void);

/* by a backend, of itself; none of these throws */
extern void DtxActivityBegin(void);
extern void DtxActivityAddServer(int index, Oid serverid);
extern void DtxActivityPublish(uint64 xid);
extern void DtxActivitySetState(DtxState state, DtxMoment takeover_at);
extern void DtxActivitySetWaiting(int index, bool waiting);
extern void DtxActivityEnd(uint64 xid);
extern void DtxActivityRelease(uint64 xid);
extern bool DtxActivityGetRow(uint64 *xid, ItemPointer tid);
extern void DtxActivitySetRow(uint64 xid, ItemPointer tid);
extern void DtxActivityForgetRow(void);

/* by resolvers and views */
extern bool DtxActivityResponsible(const DtxGid *gid);
extern bool DtxActivityOwnsRow(uint64 boot_id, uint64 xid);
extern bool DtxActivityAdoptRow(uint64 boot_id, uint64 xid);
extern bool DtxActivityConfirmed(uint64 boot_id, uint64 xid);
extern int	DtxActivityAnyCommitting(void);
extern uint64 DtxActivityRoutesDeleted(void);
extern bool DtxActivityDeleteRoutes(void);
extern int	DtxActivityCount(void);
extern bool DtxActivityGet(int index, DtxActivity *copy);

/* ----------------------------------------------------------------
 * in_doubt.c: prepared transactions that wait for the resolver, and what the
 * resolver knows of each server; both in shared memory
 * ----------------------------------------------------------------
 */
#define DTX_ERROR_SIZE	256

typedef struct DtxInDoubt
{
	DtxGid		gid;			/* hash key */
	Oid			serverid;		/* foreign server; may have been dropped */
	Oid			umid;			/* user mapping, InvalidOid if not known */
	uint64		system_id;		/* cluster that prepared it, 0 if not known */
	uint64		timeline;		/* of that cluster, 0 if not known */
	uint64		endpoint;		/* DtxEndpoint() when it prepared it, 0 if not
								 * known */
	uint64		remote_xid;		/* its full transaction id there, 0 if not
								 * known */
	uint64		xid_system_id;	/* cluster whose id that is, 0 if not known */
	Oid			userid;			/* local user, InvalidOid if not known */
	char		remote_user[NAMEDATALEN];	/* owner there, "" if not known */
	XLogRecPtr	commit_lsn;		/* end of the record of the local commit, if the
								 * session has told it; else invalid */
	int			commit_level;	/* then: synchronous_commit of that session */
	DtxDecision decision;
	TimestampTz since;			/* in doubt since */
	DtxMoment	entered;		/* when it was entered here */
	int			attempts;		/* tries of a resolver to finish it */
	DtxMoment	next_attempt;	/* 0: at once */
	char		last_error[DTX_ERROR_SIZE]; /* "" if none */
	Oid			error_umid;		/* user mapping whose options that may show, or
								 * InvalidOid */
} DtxInDoubt;

typedef struct DtxServerStatus
{
	Oid			dbid;			/* key: database of the coordinator, ... */
	Oid			serverid;		/* ... and foreign server in it */
	bool		reachable;		/* did the last visit succeed? */
	TimestampTz checked_at;		/* time of the last visit */
	int			version;		/* as PQserverVersion(), 0 if not known */
	int			slots_used;		/* prepared transactions there, -1 unknown */
	int			slots_total;	/* its max_prepared_transactions, -1 unknown */
	int			failures;		/* failed visits in a row */
	char		last_error[DTX_ERROR_SIZE]; /* of the last failure, or "" */
	Oid			error_umid;		/* user mapping whose options that may show, or
								 * InvalidOid */
} DtxServerStatus;

/* Servers, of all databases together, that dtx.servers can show a status of. */
#define DTX_MAX_SERVERS 4096

extern Size DtxInDoubtShmemSize(void);
extern void DtxInDoubtShmemInit(void);

/* never throw: they are called after the local commit */
extern bool DtxInDoubtAdd(const DtxInDoubt *entry);
extern bool DtxInDoubtSeen(const DtxInDoubt *entry, uint64 seen_on);
extern void DtxInDoubtRemove(const DtxGid *gid);
extern void DtxInDoubtFailed(const DtxGid *gid, const char *error,
							 Oid error_umid, DtxMoment next_attempt);
extern void DtxInDoubtHurry(const DtxGid *gid);
extern bool DtxInDoubtGet(const DtxGid *gid, DtxInDoubt *copy);

/* palloc a list of copies in the current memory context */
extern List *DtxInDoubtList(Oid dbid);

extern void DtxServerStatusSet(const DtxServerStatus *status);
extern bool DtxServerStatusGet(Oid dbid, Oid serverid, DtxServerStatus *copy);
extern void DtxServerStatusForget(Oid dbid, Oid serverid);

/* ----------------------------------------------------------------
 * tables.c: the extension in this database, and its tables that C code reads
 * ----------------------------------------------------------------
 */
#define DTX_EXTENSION	"pg_dtx"
#define DTX_SCHEMA		"dtx"

typedef struct DtxColumn
{
	const char *name;
	Oid			type;
} DtxColumn;

/* A table of which C code reads columns by number.  Static, one per table. */
typedef struct DtxTable
{
	const char *name;			/* in schema dtx */
	const DtxColumn *columns;	/* the first ones, in the order of the script */
	int			ncolumns;
	bool		below_executor; /* written by C, too: it must not have more columns,
								 * nor indexes */

	/* what tables.c knows; as long as the relcache entry is valid */
	Oid			relid;			/* known to be the extension's, or InvalidOid */
	bool		checked;		/* are the columns known to be right? */
	bool		noted;			/* is it in the list of all of them? */
	struct DtxTable *next;		/* in that list */
} DtxTable;

extern bool DtxExtensionInstalled(void);
extern Oid	DtxExtensionTable(const char *name, Oid *verified);
extern Oid	DtxTableOid(DtxTable *table);
extern Relation DtxTableOpen(DtxTable *table, LOCKMODE lockmode);
extern Relation DtxTableOpenInTime(DtxTable *table, LOCKMODE lockmode);

/* ----------------------------------------------------------------
 * protection.c: what keeps atomicity from being switched off without a word
 * ----------------------------------------------------------------
 */

/* What happens to a transaction that is not committed atomically. */
typedef enum DtxRequire
{
	DTX_REQUIRE_OFF,
	DTX_REQUIRE_WARNING,
	DTX_REQUIRE_ERROR
} DtxRequire;

extern void DtxProtectionInstallHooks(void);
extern void DtxProtectionMissing(int nodes);

/* ----------------------------------------------------------------
 * decision_map.c: where the rows of the decision tables are
 * ----------------------------------------------------------------
 */
typedef struct DtxDecisionPlace
{
	uint64		boot_id;
	uint64		xid;
	ItemPointerData tid;
} DtxDecisionPlace;

extern Size DtxDecisionMapShmemSize(void);
extern void DtxDecisionMapShmemInit(void);
extern void DtxDecisionMapWritten(uint64 xid, ItemPointer tid, uint64 old_xid);
extern bool DtxDecisionMapIsComplete(Relation rel, uint64 *mark);
extern bool DtxDecisionMapFound(uint64 boot_id, uint64 xid, ItemPointer tid);
extern void DtxDecisionMapCompleted(Relation rel, uint64 mark);
extern DtxDecisionPlace *DtxDecisionMapList(int *n);
extern bool DtxDecisionMapFind(uint64 boot_id, uint64 xid, ItemPointer tid);
extern bool DtxDecisionMapInProgress(const DtxDecisionPlace *place);
extern void DtxDecisionMapPrune(const DtxDecisionPlace *place);
extern void DtxDecisionMapForget(Oid dbid);

/* ----------------------------------------------------------------
 * decision.c: the decision table, read and written below the executor
 * ----------------------------------------------------------------
 */

/* What is on record of one prepared participant. */
typedef struct DtxPrepared
{
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* its user mapping */
	uint64		system_id;		/* system identifier of its cluster, 0 if not
								 * known */
	uint64		timeline;		/* of that cluster, 0 if not known */
	uint64		endpoint;		/* DtxEndpoint() of server and mapping */
	uint64		remote_xid;		/* its full transaction id there, 0 if not
								 * known */
} DtxPrepared;

typedef struct DtxDecisionRow
{
	uint64		boot_id;
	uint64		xid;			/* full transaction id */
	bool		inherited;		/* from the database that was this one's template:
								 * nothing here can carry it out */
	Oid			userid;			/* local user who committed */
	TimestampTz decided_at;
	int			nparticipants;
	DtxPrepared *prepared;		/* of participant n = 1, 2, ... */
	ItemPointerData tid;		/* where the row was read */
} DtxDecisionRow;

extern Oid	DtxDecisionTable(void);
extern void DtxDecisionCheck(void);
extern void DtxDecisionWrite(uint64 xid, int nparticipants,
							 const DtxPrepared *prepared, ItemPointer tid);
extern List *DtxDecisionScan(Snapshot snapshot);
extern HTAB *DtxDecisionIndex(List *rows, MemoryContext cxt);
extern DtxDecisionRow *DtxDecisionLookup(HTAB *index, uint64 boot_id, uint64 xid);
extern bool DtxDecisionFind(Snapshot snapshot, uint64 boot_id, uint64 xid);
extern Relation DtxDecisionOpen(LOCKMODE lockmode);
extern bool DtxDecisionDelete(const DtxDecisionRow *row);

/* ----------------------------------------------------------------
 * damage.c: what somebody has finished against its decision
 * ----------------------------------------------------------------
 */

/* What became of a prepared transaction that was not finished by us. */
typedef enum DtxFound
{
	DTX_FOUND_COMMITTED,
	DTX_FOUND_ROLLED_BACK,
	DTX_FOUND_LOST,				/* its server does not know its xid any more */
	DTX_FOUND_UNKNOWN,			/* its server cannot tell */
	DTX_FOUND_REAPPEARED		/* it was confirmed once, and prepared again */
} DtxFound;

extern bool DtxDamageRecord(const DtxGid *gid, const char *server,
							DtxDecision decided, DtxFound found,
							uint64 remote_xid, uint64 system_id);
extern void DtxDamageLockForced(void);
extern void DtxForced(Snapshot snapshot, List **commits, List **rollbacks);

/* ----------------------------------------------------------------
 * drop_guard.c: DROP DATABASE of a database with decisions
 * ----------------------------------------------------------------
 */
extern Size DtxDropGuardShmemSize(void);
extern void DtxDropGuardShmemInit(void);
extern void DtxDropGuardCheck(Oid dbid, const char *name);
PGDLLEXPORT extern void dtx_drop_guard_main(Datum arg);

/* ----------------------------------------------------------------
 * launcher.c: the background workers of each database
 * ----------------------------------------------------------------
 */
extern Size DtxLauncherShmemSize(void);
extern void DtxLauncherShmemInit(void);
extern void DtxLauncherRegister(void);
extern void DtxLauncherInstallHooks(void);
extern void DtxLauncherWakeResolver(Oid dbid);	/* never throws */
extern void DtxLauncherAskPass(void);	/* never throws */
extern void DtxLauncherWakeSagas(Oid dbid); /* never throws */
extern void DtxLauncherSagasPrepared(void); /* never throws */
PGDLLEXPORT extern void dtx_launcher_main(Datum arg);

/* ----------------------------------------------------------------
 * saga.c: what the SQL functions of sagas can't do
 * saga_worker.c: scheduler and workers of sagas
 * (declarations: saga.h, worker.h)
 * ----------------------------------------------------------------
 */
extern Size DtxSagaShmemSize(void);
extern void DtxSagaShmemInit(void);
extern void DtxSagaInstallHooks(void);
PGDLLEXPORT extern void dtx_saga_scheduler_main(Datum arg);
PGDLLEXPORT extern void dtx_saga_worker_main(Datum arg);

/* ----------------------------------------------------------------
 * remote.c: latch-aware libpq for workers and administrative functions
 * resolver.c: finishing what is in doubt
 * (declarations: remote.h, resolver.h)
 * ----------------------------------------------------------------
 */
PGDLLEXPORT extern void dtx_resolver_main(Datum arg);

/* ----------------------------------------------------------------
 * statement.c: statements of postgres_fdw, prepared on the server
 * participant.c: one postgres_fdw connection and its remote transaction
 * coordinator.c: the commit of a distributed transaction
 * interpose.c: the wrappers around libpq that postgres_fdw calls
 * remote_exec.c: remote SQL in the sessions of postgres_fdw
 * (declarations: participant.h)
 * ----------------------------------------------------------------
 */
extern void DtxAdminInstallHooks(void);	/* admin.c */
extern void DtxPassedByInstallHooks(void);	/* passed_by.c */
extern void DtxCheckNothingInDoubt(bool current_boot_only);	/* admin.c */
extern void DtxInterposeCheck(void);
extern bool DtxInterposeSees(const void *handler);
extern bool DtxInterposeIsPassedBy(void);
extern const char *DtxShowWroteElsewhere(void);

#endif							/* PG_DTX_H */
