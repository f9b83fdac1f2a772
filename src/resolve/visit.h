/*-------------------------------------------------------------------------
 *
 * visit.h
 *		The record of one visit of one server: what it is for, what is known as it
 *		begins, what it has found, and its end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_VISIT_H
#define PG_DTX_VISIT_H

#include "base/backoff.h"
#include "base/gid.h"
#include "miscadmin.h"
#include "net/remote.h"
#include "nodes/pg_list.h"
#include "resolve/judge.h"
#include "resolve/resolver.h"
#include "state/in_doubt.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"

/* Connections, one after the other, in one visit. */
#define DTX_VISIT_CONNECTIONS_MAX			16

/* What a visit of one server as one local user found. */
typedef struct DtxProbe
{
	bool		reachable;
	char	   *error;			/* why not reachable; never has a password */
	char	   *resolver_error; /* why a resolver cannot use the mapping, or
								 * NULL */
	char	   *remote_user;	/* current_user there */
	char	   *database;		/* current_database() there */
	int			version;		/* as PQserverVersion() */
	int			slots_used;		/* prepared transactions there */
	int			slots_total;	/* its max_prepared_transactions */
	bool		pooled;			/* a connection pooler is in between */
	uint64		system_id;		/* system identifier, 0 if it does not tell */
	uint64		timeline;		/* of its WAL, likewise */

	bool		has_session;	/* has it answered what follows? */
	int			role_limit;		/* connections that the user may have, or -1 */
	int			database_limit; /* that the database may have, or -1 */
	bool		reserved;		/* are connections reserved for the user? */
	bool		counts_utilities;	/* does pg_stat_statements count them? */
	bool		has_standbys;	/* has it synchronous standbys? */
	bool		has_witness;	/* can a resolver find out whether these have
								 * got something? */
} DtxProbe;

/* What a visit is for. */
typedef enum DtxVisitPurpose
{
	DTX_VISIT_RESOLVE,			/* finish what is in doubt */
	DTX_VISIT_FORCE,			/* finish one gid on the word of a human */
	DTX_VISIT_LOOK				/* only look */
} DtxVisitPurpose;

typedef enum DtxVisitPhase
{
	DTX_PHASE_CONNECT,			/* connecting */
	DTX_PHASE_IDENTIFY,			/* asking which cluster it is */
	DTX_PHASE_LIST,				/* asking what is prepared */
	DTX_PHASE_CANCEL,			/* canceling PREPAREs that are running */
	DTX_PHASE_MODE,				/* setting up the session for what comes next */
	DTX_PHASE_WITNESS,			/* waiting for its synchronous standby */
	DTX_PHASE_FINISH,			/* COMMIT PREPARED, ROLLBACK PREPARED */
	DTX_PHASE_HISTORY,			/* asking where its timeline comes from */
	DTX_PHASE_DECIDER,			/* asking what it has decided about others */
	DTX_PHASE_OUTCOME,			/* asking how others have finished some */
	DTX_PHASE_PROBE				/* asking what DtxProbe wants to know besides */
} DtxVisitPhase;

/* What the session of a visit is set up for. */
typedef enum DtxSessionMode
{
	DTX_MODE_LOOK,				/* as DtxRemoteOpen() has left it */
	DTX_MODE_ROLLBACK,			/* nothing waits for a standby */
	DTX_MODE_COMMIT,			/* no time-out on the server */
	DTX_MODE_WITNESS			/* WITNESS_TIMEOUT */
} DtxSessionMode;

typedef enum DtxListedState
{
	DTX_LISTED_NEW,				/* not looked at yet */
	DTX_LISTED_LEFT,			/* a backend is responsible */
	DTX_LISTED_ORPHAN,			/* nobody is; to be listed once more */
	DTX_LISTED_DECIDED,			/* "decision" is what is to become of it */
	DTX_LISTED_DONE,			/* we have finished it */
	DTX_LISTED_GONE,			/* it is not prepared any more, not by us */
	DTX_LISTED_FAILED			/* tried, or not ours to try; see "error" */
} DtxListedState;

/* A gid that a server holds. */
typedef struct DtxListedGid
{
	DtxGid		gid;			/* hash key */
	char	   *owner;			/* role that may finish it, or NULL */
	char	   *database;		/* where it must be finished, or NULL */
	uint64		remote_xid;		/* its full transaction id there, or 0 */
	int64		age_ms;			/* prepared for so long, -1 if not known */
	bool		reappeared;		/* DtxReappeared() */
	bool		forced;			/* is a human's word the reason to roll it
								 * back? */
	int			list;			/* number of the last list that has it */
	int			orphaned;		/* number of the list after which nobody was
								 * responsible for it */
	int			suspected;		/* number of the list after which its decision
								 * was not there, 0: none */
	DtxListedState state;
	DtxDecision decision;
	DtxRemoteError error;		/* of the last attempt */
	Oid			error_umid;		/* user mapping whose options its text may
								 * show */
} DtxListedGid;

/* A PREPARE that is running on a server. */
typedef struct DtxRunningPrepare
{
	DtxGid		gid;
	int			pid;			/* process over there */
	int64		age_ms;			/* running for so long, -1 if not known */
} DtxRunningPrepare;

/* Work on one server: a few connections, one after the other. */
typedef struct DtxVisit
{
	DtxResolver *resolver;
	MemoryContext cxt;			/* this struct and what hangs off it */
	DtxVisitPurpose purpose;
	Oid			serverid;
	char	   *name;			/* of the server */
	uint64		serial;			/* DtxResolver.serial when it began */
	uint64		coordinator_id; /* DtxResolver.coordinator_id when it began */
	DtxMoment	began_at;
	uint64		seen_changes;	/* DtxServerChanges() when it began */
	int			failures;		/* failed visits before this one */
	int			turn;			/* visits before this one, modulo a lot */
	bool		in_pass;		/* part of a full pass */
	bool		ordinary;		/* nothing is known to be in doubt there */
	bool		failing;		/* the last visit has failed */
	DtxGid		only;			/* DTX_VISIT_FORCE, DTX_VISIT_LOOK: only this
								 * gid */
	bool		has_only;		/* is "only" set? */
	DtxDecision forced;			/* DTX_VISIT_FORCE: what is to become of it,
								 * ... */
	uint64		forced_system_id;	/* ... in this cluster only, unless 0 */
	Oid			fixed_umid;		/* only this mapping, or InvalidOid */
	Oid			on_behalf_of;	/* user who wants to look, or InvalidOid */
	DtxProbe   *probe;			/* DTX_VISIT_LOOK: to be filled, or NULL */
	List	   *entries;		/* in-doubt entries when it began */
	HTAB	   *entry_hash;		/* the same, by gid: EntryRef */

	/* mappings */
	List	   *routes;			/* DtxRoute: those of the server */
	Oid			designated;		/* mapping of pg_dtx.resolver_role, if it may
								 * be used, or InvalidOid */
	List	   *preferred;		/* Oids, to be tried first */
	List	   *mappings;		/* those that may be used, once loaded */
	bool		mappings_loaded;
	bool		names_database; /* does the server, then?  (default: the user) */
	List	   *tried;			/* Oids */
	int			ntries;			/* connections made */
	int			nrefusals;		/* users that were not let in */
	char	   *refusal;		/* why the last one was not, or NULL */
	Oid			refusal_umid;	/* of its user mapping */
	Oid			umid;			/* mapping of the current connection */
	Oid			good_umid;		/* one that has worked */

	/* current connection */
	bool		reused;			/* was it kept by an earlier visit, and has
								 * not answered yet? */
	DtxVisitPhase phase;
	int			version;		/* of the server */
	char	   *remote_user;	/* current_user there */
	char	   *database;		/* current_database() there */
	bool		superuser;		/* may it finish everything? */
	bool		sees_all;		/* does it see what others are doing? */
	bool		in_recovery;	/* a standby shows nothing */
	uint64		conn_system_id; /* which cluster it is, 0 if it does not tell */
	uint64		conn_timeline;	/* its timeline, likewise */
	bool		history_asked;	/* was it asked where that comes from? */
	char	   *history;		/* the answer (resolve/timeline_history.c), or
								 * NULL */
	char	   *no_history;		/* why there is none, or NULL */
	uint64		conn_endpoint;	/* DtxEndpoint() of server and mapping */
	uint64		next_xid;		/* next full xid here before the list was
								 * asked for */
	bool		has_info;		/* are the fields above valid? */
	uint64		next_remote_xid;	/* full transaction id, 0 if not known */
	bool		relisted;		/* listed a second time? */
	bool		deciders_asked; /* was it asked for its decisions since the
								 * last list? */
	DtxSessionMode mode;		/* of the session */
	bool		has_standbys;	/* has it synchronous standbys, as far as
								 * known? */
	bool		standby_waits;	/* are COMMIT PREPAREDs of ours waiting for
								 * one? */
	bool		hung;			/* has the last visit left one behind that
								 * does? */
	bool		witnessed;		/* was the witness asked for since the last
								 * list? */
	bool		replicated;		/* and is all that was committed before that
								 * list? */
	char	   *no_witness;		/* why it cannot be asked, or NULL */

	/* findings */
	uint64		system_id;		/* cluster that the lists are from, or 0 */
	uint64		timeline;		/* its timeline, or 0 */
	bool		mixed;			/* are they from several? */
	uint64		endpoints[DTX_VISIT_CONNECTIONS_MAX];	/* of the connections
														 * that listed */
	int			nendpoints;
	bool		listed;			/* has any list been complete? */
	bool		truncated;		/* did the last list stop short? */
	int			list;			/* number of the current list */
	int			nlisted;		/* rows of the current list */
	int			slots_used;		/* -1 unknown */
	int			slots_total;	/* -1 unknown */
	bool		pooled;			/* the backend is not the one that was
								 * connected to */
	HTAB	   *found_hash;		/* DtxListedGid */
	List	   *found;			/* the same, in the order of the lists */
	bool		suspicious;		/* has something of it to be listed once more? */
	List	   *in_flight;		/* DtxRunningPrepare of the current list */
	List	   *seen_in_flight; /* DtxRunningPrepare of all lists of this
								 * visit */
	List	   *todo;			/* DtxListedGid, to be finished on this
								 * connection */
	DtxListedGid *current;		/* of them, the one being finished */
	List	   *cancels;		/* DtxRunningPrepare, to be canceled */
	HTAB	   *outcome_hash;	/* Outcome: asked for, NULL if none was */
	List	   *asked;			/* Outcome, those of the current question */
	List	   *covered;		/* Oids of mappings whose PREPAREs we saw */
	const char *other_database; /* last one that was looked for, or NULL: ... */
	bool		other_leads_there;	/* ... does another foreign server lead to
									 * it? */
	char	   *error;			/* why the visit failed, or NULL */
	Oid			error_umid;		/* user mapping whose options that may show */
	int			nadded;			/* entries added to the in-doubt table */
	struct DtxVisit *next_ended;	/* in DtxResolver.ended */
} DtxVisit;

extern DtxVisit *DtxVisitCreate(DtxResolver *r, DtxVisitPurpose purpose,
								Oid serverid, const char *name);
extern void DtxVisitSetEntries(DtxVisit *v, List *entries);
extern DtxInDoubt *DtxVisitEntry(DtxVisit *v, const DtxGid *gid);
extern DtxSame DtxVisitSameCluster(const DtxVisit *v, uint64 system_id);
extern bool DtxVisitSameEndpoint(const DtxVisit *v, uint64 endpoint);
extern bool DtxVisitSawPrepare(DtxVisit *v, const DtxGid *gid);
extern void DtxVisitEnd(DtxVisit *v);
extern void DtxVisitFreeEnded(DtxResolver *r);
extern bool DtxVisitLeadsElsewhere(const DtxVisit *v, uint64 system_id);

#endif							/* PG_DTX_VISIT_H */
