/*-------------------------------------------------------------------------
 *
 * in_doubt.h
 *		Prepared transactions that wait for the resolver, and what the resolver
 *		knows of each server; both in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_IN_DOUBT_H
#define PG_DTX_IN_DOUBT_H

#include "base/backoff.h"
#include "access/xlogdefs.h"
#include "base/gid.h"
#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

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
	char		application_name[NAMEDATALEN];	/* of the session, "" if not
												 * known */
	TimestampTz started;		/* start of the local transaction, 0 if not
								 * known */
	char		remote_user[NAMEDATALEN];	/* owner there, "" if not known */
	XLogRecPtr	commit_lsn;		/* end of the record of the local commit, if
								 * the session has told it; else invalid */
	int			commit_level;	/* then: synchronous_commit of that session */
	DtxDecision decision;
	bool		proven;			/* if a server decides: has the session seen
								 * that decision, and that it lasts? */
	TimestampTz since;			/* in doubt since */
	DtxMoment	entered;		/* when it was entered here */
	int			attempts;		/* tries of a resolver to finish it */
	DtxMoment	next_attempt;	/* 0: at once */
	char		last_error[DTX_ERROR_SIZE]; /* "" if none */
	Oid			error_umid;		/* user mapping whose options that may show,
								 * or InvalidOid */
} DtxInDoubt;

typedef struct DtxServerStatus
{
	Oid			dbid;			/* key: database of the coordinator, ... */
	Oid			serverid;		/* ... and foreign server in it */
	bool		reachable;		/* did the last look succeed? */
	TimestampTz checked_at;		/* time of the last look, 0: none since it was
								 * changed */
	TimestampTz visited_at;		/* of the last one of a resolver, 0: likewise */
	uint64		seen_changes;	/* DtxServerChanges() when that began */
	uint64		changed;		/* DtxServerChanges() after the options of the
								 * server were changed last, 0: not known */
	int			version;		/* as PQserverVersion(), 0 if not known */
	int			slots_used;		/* prepared transactions there, -1 unknown */
	int			slots_total;	/* its max_prepared_transactions, -1 unknown */
	int			failures;		/* failed visits in a row */
	char		last_error[DTX_ERROR_SIZE]; /* of the last failure, or "" */
	Oid			error_umid;		/* user mapping whose options that may show,
								 * or InvalidOid */
} DtxServerStatus;

/* Servers, of all databases together, that dtx.servers can show a status of. */
#define DTX_MAX_SERVERS 4096

extern Size DtxInDoubtShmemSize(void);
extern void DtxInDoubtShmemInit(void);

/* never throw: they are called after the local commit */
extern bool DtxInDoubtAdd(const DtxInDoubt *entry);
extern bool DtxInDoubtAddListed(const DtxInDoubt *entry, uint64 seen_on);
extern void DtxInDoubtRemove(const DtxGid *gid);
extern void DtxInDoubtFailed(const DtxGid *gid, const char *error,
							 Oid error_umid, DtxMoment next_attempt);
extern void DtxInDoubtHurry(const DtxGid *gid);
extern void DtxInDoubtDecide(const DtxGid *gid, DtxDecision decision);
extern bool DtxInDoubtGet(const DtxGid *gid, DtxInDoubt *copy);

/* palloc a list of copies in the current memory context */
extern List *DtxInDoubtList(Oid dbid);

extern void DtxServerStatusSet(const DtxServerStatus *status);
extern bool DtxServerStatusGet(Oid dbid, Oid serverid, DtxServerStatus *copy);
extern void DtxServerStatusRemove(Oid dbid, Oid serverid);
extern void DtxServerStatusChanged(Oid dbid, Oid serverid);
extern uint64 DtxServerChanges(void);

/* What a resolver has to know to see when an entry is due. */
typedef struct DtxInDoubtDue
{
	Oid			serverid;
	uint64		coordinator_id; /* of its gid */
	DtxMoment	next_attempt;	/* 0: at once */
} DtxInDoubtDue;

extern uint64 DtxInDoubtChanges(void);
extern DtxInDoubtDue *DtxInDoubtLook(Oid dbid, int *n);
extern List *DtxInDoubtListServer(Oid dbid, Oid serverid);
extern uint64 DtxInDoubtOverflows(void);
extern void DtxInDoubtOverflowsReset(void);
extern void DtxInDoubtReport(void);
extern void DtxInDoubtContradicted(void);
extern uint64 DtxInDoubtContradictions(void);

#endif							/* PG_DTX_IN_DOUBT_H */
