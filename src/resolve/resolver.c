/*-------------------------------------------------------------------------
 *
 * resolver.c
 *		Finishing what is in doubt: the background worker of one database, and
 *		what the administrative functions share with it.
 *
 * The unit of work is a Visit of one foreign server: connect through a user
 * mapping that works, ask which of our gids are prepared there, find out what
 * became of their transactions, finish them.  Visits of different servers run
 * side by side, driven by DtxRemoteWait().  While they wait for the network no
 * transaction is open here, no lock and no snapshot is held; the catalogs and
 * the decision table are read in transactions of their own that wait for
 * nothing.  (Called from SQL, all this runs in the caller's transaction.)
 *
 * Where it goes, and as whom
 * --------------------------
 * To servers on which something was prepared, through the user mappings through
 * which it was (route.c), and unless the owner of the server is a superuser, only as
 * long as server and mapping lead to where they led then.  Whoever owns a server
 * would otherwise be told the passwords of all its users by moving it to a place of
 * his own.  A mapping of pg_dtx.resolver_role is there for the resolver, and may be
 * used at once on servers of superusers.  (A user who asks for himself, with
 * dtx.check_server(), uses his own mapping, wherever it leads.)
 *
 * In its first pass, and when not all that is in doubt has found room in the in-doubt
 * table, the worker visits all of these servers; otherwise those where
 * something is in doubt or was prepared lately, and each of the others once in
 * SWEEP_PASSES passes.
 *
 * How a gid is judged
 * -------------------
 * The server is asked what is prepared there, then this server whether a backend
 * is responsible for it, then facts.c for what this database knows; judge.c makes
 * a verdict of that, and visit_obey() does what follows from it.  A gid that
 * the server has shown only once may just have been finished by its backend: what
 * nobody handed over to us is listed once more before it is judged.
 *
 * Right before each command both questions are asked again that have an answer
 * without a transaction: is a backend responsible, and has the transaction
 * committed after all?
 *
 * When a gid is forgotten
 * -----------------------
 * "Does not exist" in answer to a command proves little: a PREPARE on a
 * connection that broke may arrive later, the server may be another one, or may
 * have been restored.  So an entry of the in-doubt table goes when our own
 * command has finished the gid, or when a visit that began after the entry was
 * there saw it neither prepared nor being prepared, and DtxMayForget() has proof
 * that it ended as decided.  The server is asked in this order: is it in recovery
 * (then its prepared transactions can't be seen), which PREPAREs are running, which
 * transactions are prepared.  In any other order one could slip through.  A PREPARE
 * that arrives even later belongs to a transaction that has been rolled back,
 * because a commit needs the success of all PREPAREs; a later pass finds it.
 *
 * What is gone and was not finished by us may have been finished by its own
 * backend, by another resolver, or by a human, who may have done the wrong
 * thing.  The server knows: it is asked what became of the transaction id
 * that it gave when it prepared the gid (decision row, in-doubt entry), or that
 * was seen in a list.  Only the worker asks.  If the answer contradicts the
 * decision this is recorded (damage.c), and only then is the gid forgotten.
 *
 * Answered is not replicated
 * --------------------------
 * A server with a synchronous standby lets COMMIT PREPARED wait for that standby.
 * If the wait is cut short, there as here, the commit may still be lost when the
 * server fails over, and what is prepared then must find its decision.  So no
 * time-out of ours cuts it short; a warning in the answer means that it was; and
 * a commit that was not seen to end without one is believed only after a
 * transaction of our own, which writes a few bytes of WAL, has been replicated
 * from there (visit_send_witness).  As WAL is replicated in its order, all that was
 * committed before then is, too, on whatever conditions that server has.
 * A rollback waits for nothing: if it is lost, it is done again.
 *
 * A decision row goes when, for each of its participants, a visit that began
 * after the row was read has that proof, or finished it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/settings.h"
#include "base/stats.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commit/standby.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/protocol.h"
#include "net/remote.h"
#include "net/route.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "resolve/facts.h"
#include "resolve/judge.h"
#include "resolve/resolver.h"
#include "saga/saga.h"
#include "state/activity.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "storage/ipc.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"
#include "utils/snapshot.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "worker/launcher.h"
#include "worker/worker.h"

/* Gids listed in one visit; the rest is left to the next one. */
#define MAX_LISTED			10000

/* Running PREPAREs listed in one visit. */
#define MAX_IN_FLIGHT		100

/* Connections, one after the other, in one visit. */
#define MAX_TRIES			16

/* Users that the server refuses before a visit is given up. */
#define MAX_REFUSALS		5

/* Backoff of servers and gids, milliseconds. */
#define MIN_BACKOFF			1000
#define MAX_BACKOFF			60000

/*
 * Longest wait for the synchronous standby of a server before it is said to be
 * away, milliseconds; only where waiting longer would leave a session behind.
 */
#define WITNESS_TIMEOUT		2000

/*
 * A server is in use for so long after a transaction prepared something there,
 * milliseconds.  Meanwhile a connection to it is kept: those who wait for what is in
 * doubt may take all others.
 */
#define KEEP_CONNECTION		(5 * 60 * 1000)

/*
 * A server on which nothing is in doubt, and nothing was prepared lately, is visited
 * once in so many passes, or in so many if the last visit has failed.
 */
#define SWEEP_PASSES		20
#define RETRY_PASSES		5

/*
 * Visits at a time; of them, those of servers on which nothing is known to be in
 * doubt, and those of servers that could not be reached the last time.  The others
 * always find a place.
 */
#define MAX_VISITS			80
#define MAX_ORDINARY		16
#define MAX_FAILING			32

/* Pause between two looks at what is in doubt, milliseconds. */
#define LOOK_PAUSE			20

/* Outcomes asked for in one command. */
#define MAX_OUTCOMES		200

/* Pause after sagas could not be looked for, milliseconds. */
#define PROBE_PAUSE			60000

/* Pause before a server that left something undone is visited again, ms. */
#define REVISIT_PAUSE		200

/* Longest time that dtx.resolve_in_doubt() waits for the worker, and how often it looks, ms. */
#define WORKER_PATIENCE		3000
#define WORKER_POLL_MS		10

/* Pause between full passes, however often somebody asks for one, ms. */
#define ASKED_PASS_PAUSE	1000

/*
 * An entry that is to be rolled back is kept for this time, milliseconds, even
 * if nothing is seen of it: its PREPARE may be under way.
 */
#define LATE_PREPARE_GRACE	1000

/* Why something that is not seen on its server is not done. */
#define NO_OUTCOME	"it is not prepared any more, and how it was finished could not be found out"
#define NOT_RECORDED "it was finished against its decision, which could not be recorded yet"
#define NOT_REPLICATED "it is committed, but its server's synchronous standby has not confirmed that yet"
#define STANDBY_AWAY "the server waits for a synchronous standby that does not confirm"
#define LEADS_ELSEWHERE	"the foreign server leads to another cluster now than when the transaction was prepared"
#define NOT_USED	"nothing was prepared through this user mapping"
#define NO_ROUTE	"nothing was prepared through any user mapping of the server; dtx.confirm_server() lets the resolver use them all the same"
#define MOVED		"the server, whose owner is not a superuser, leads elsewhere than when the user mapping was used: lead it back, commit something there through the mapping, or call dtx.confirm_server()"
#define UNIDENTIFIED	"it is not prepared any more, and it cannot be told whether the server is the one where it was: it does not tell its system identifier, and its options or those of the user mapping have changed"

/* What a visit is for. */
typedef enum VisitPurpose
{
	VISIT_RESOLVE,				/* finish what is in doubt */
	VISIT_FORCE,				/* finish one gid on the word of a human */
	VISIT_LOOK					/* only look */
} VisitPurpose;

typedef enum VisitPhase
{
	PHASE_CONNECT,				/* connecting */
	PHASE_IDENTIFY,				/* asking which cluster it is */
	PHASE_LIST,					/* asking what is prepared */
	PHASE_CANCEL,				/* canceling PREPAREs that are running */
	PHASE_MODE,					/* setting up the session for what comes next */
	PHASE_WITNESS,				/* waiting for its synchronous standby */
	PHASE_FINISH,				/* COMMIT PREPARED, ROLLBACK PREPARED */
	PHASE_OUTCOME,				/* asking how somebody else finished some */
	PHASE_PROBE					/* asking what DtxProbe wants to know besides */
} VisitPhase;

/* What the session of a visit is set up for. */
typedef enum VisitMode
{
	MODE_LOOK,					/* as DtxRemoteOpen() has left it */
	MODE_ROLLBACK,				/* nothing waits for a standby */
	MODE_COMMIT,				/* no time-out on the server */
	MODE_WITNESS				/* WITNESS_TIMEOUT */
} VisitMode;

typedef enum FoundState
{
	FOUND_NEW,					/* not looked at yet */
	FOUND_LEFT,					/* a backend is responsible */
	FOUND_ORPHAN,				/* nobody is; to be listed once more */
	FOUND_DECIDED,				/* "decision" is what is to become of it */
	FOUND_DONE,					/* we have finished it */
	FOUND_GONE,					/* it is not prepared any more, not by us */
	FOUND_FAILED				/* tried, or not ours to try; see "error" */
} FoundState;

/* A gid that a server holds. */
typedef struct Found
{
	DtxGid		gid;			/* hash key */
	char	   *owner;			/* role that may finish it, or NULL */
	char	   *database;		/* where it must be finished, or NULL */
	uint64		remote_xid;		/* its full transaction id there, or 0 */
	int64		age_ms;			/* prepared for so long, -1 if not known */
	bool		reappeared;		/* DtxReappeared() */
	bool		forced;			/* is a human's word the reason to roll it back? */
	int			list;			/* number of the last list that has it */
	int			orphaned;		/* number of the list after which nobody was
								 * responsible for it */
	int			suspected;		/* number of the list after which its decision was
								 * not there, 0: none */
	FoundState	state;
	DtxDecision decision;
	DtxRemoteError error;		/* of the last attempt */
	Oid			error_umid;		/* user mapping whose options its text may show */
} Found;

typedef struct Outcome
{
	DtxGid		gid;			/* hash key */
	uint64		remote_xid;		/* what was asked for */
	DtxOutcome	status;
} Outcome;

/* A PREPARE that is running on a server. */
typedef struct InFlight
{
	DtxGid		gid;
	int			pid;			/* process over there */
	int64		age_ms;			/* running for so long, -1 if not known */
} InFlight;

typedef struct Resolver Resolver;

/* Work on one server: a few connections, one after the other. */
typedef struct Visit
{
	Resolver   *resolver;
	MemoryContext cxt;			/* this struct and what hangs off it */
	VisitPurpose purpose;
	Oid			serverid;
	char	   *name;			/* of the server */
	uint64		serial;			/* Resolver.serial when it began */
	uint64		coordinator_id; /* Resolver.coordinator_id when it began */
	DtxMoment	began_at;
	int			failures;		/* failed visits before this one */
	int			turn;			/* visits before this one, modulo a lot */
	bool		in_pass;		/* part of a full pass */
	bool		ordinary;		/* nothing is known to be in doubt there */
	bool		failing;		/* the last visit has failed */
	DtxGid		only;			/* VISIT_FORCE, VISIT_LOOK: only this gid */
	bool		has_only;		/* is "only" set? */
	DtxDecision forced;			/* VISIT_FORCE: what is to become of it, ... */
	uint64		forced_system_id;	/* ... in this cluster only, unless 0 */
	Oid			fixed_umid;		/* only this mapping, or InvalidOid */
	Oid			on_behalf_of;	/* user who wants to look, or InvalidOid */
	DtxProbe   *probe;			/* VISIT_LOOK: to be filled, or NULL */
	List	   *entries;		/* in-doubt entries when it began */
	HTAB	   *entry_hash;		/* the same, by gid: EntryRef */

	/* mappings */
	List	   *routes;			/* DtxRoute: those of the server */
	Oid			designated;		/* mapping of pg_dtx.resolver_role, if it may be
								 * used, or InvalidOid */
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
	bool		reused;			/* was it kept by an earlier visit, and has not
								 * answered yet? */
	VisitPhase	phase;
	int			version;		/* of the server */
	char	   *remote_user;	/* current_user there */
	char	   *database;		/* current_database() there */
	bool		superuser;		/* may it finish everything? */
	bool		sees_all;		/* does it see what others are doing? */
	bool		in_recovery;	/* a standby shows nothing */
	uint64		conn_system_id; /* which cluster it is, 0 if it does not tell */
	uint64		conn_timeline;	/* its timeline, likewise */
	uint64		conn_endpoint;	/* DtxEndpoint() of server and mapping */
	uint64		next_xid;		/* next full xid here before the list was asked for */
	bool		has_info;		/* are the fields above valid? */
	uint64		next_remote_xid;	/* full transaction id, 0 if not known */
	bool		relisted;		/* listed a second time? */
	VisitMode	mode;			/* of the session */
	bool		has_standbys;	/* has it synchronous standbys, as far as known? */
	bool		standby_waits;	/* are COMMIT PREPAREDs of ours waiting for one? */
	bool		hung;			/* has the last visit left one behind that does? */
	bool		witnessed;		/* was the witness asked for since the last list? */
	bool		replicated;		/* and is all that was committed before that list? */
	char	   *no_witness;		/* why it can't be asked, or NULL */

	/* findings */
	uint64		system_id;		/* cluster that the lists are from, or 0 */
	uint64		timeline;		/* its timeline, or 0 */
	bool		mixed;			/* are they from several? */
	uint64		endpoints[MAX_TRIES];	/* of the connections that listed */
	int			nendpoints;
	bool		listed;			/* has any list been complete? */
	bool		truncated;		/* did the last list stop short? */
	int			list;			/* number of the current list */
	int			nlisted;		/* rows of the current list */
	int			slots_used;		/* -1 unknown */
	int			slots_total;	/* -1 unknown */
	bool		pooled;			/* the backend is not the one that was connected to */
	HTAB	   *found_hash;		/* Found */
	List	   *found;			/* the same, in the order of the lists */
	bool		suspicious;		/* has something of it to be listed once more? */
	List	   *in_flight;		/* InFlight of the current list */
	List	   *seen_in_flight; /* InFlight of all lists of this visit */
	List	   *todo;			/* Found, to be finished on this connection */
	Found	   *current;		/* of them, the one being finished */
	List	   *cancels;		/* InFlight, to be canceled */
	HTAB	   *outcome_hash;	/* Outcome: asked for, NULL if none was */
	List	   *asked;			/* Outcome, those of the current question */
	List	   *covered;		/* Oids of mappings whose PREPAREs we saw */
	const char *other_database; /* last one that was looked for, or NULL: ... */
	bool		other_leads_there;	/* ... does another foreign server lead to it? */
	char	   *error;			/* why the visit failed, or NULL */
	Oid			error_umid;		/* user mapping whose options that may show */
	int			nadded;			/* entries added to the in-doubt table */
	struct Visit *next_ended;	/* in Resolver.ended */
} Visit;

/* Entry of Visit.entry_hash. */
typedef struct EntryRef
{
	DtxGid		gid;			/* hash key */
	DtxInDoubt *entry;			/* in Visit.entries */
} EntryRef;

/* A user mapping, when somebody has to choose one. */
typedef struct Mapping
{
	Oid			umid;
	char	   *user;			/* option "user", or NULL */
} Mapping;

/* Does a server wait to be visited? */
typedef enum Queued
{
	QUEUED_NOT = 0,
	QUEUED_ORDINARY,			/* in Resolver.ordinary */
	QUEUED_URGENT				/* in Resolver.urgent, maybe in the other one, too */
} Queued;

/* What the worker remembers of a server between visits. */
typedef struct ServerState
{
	Oid			serverid;		/* hash key */
	char		name[NAMEDATALEN];	/* at the last pass or look */
	Visit	   *visit;			/* running now, or NULL */
	Queued		queued;
	bool		in_pass;		/* is it queued as a part of a full pass? */
	bool		exists;			/* in the catalogs at the last pass or visit */
	bool		routed;			/* has it routes, as of the last pass? */
	bool		in_doubt;		/* has it entries, as of the last look, or unconfirmed
								 * decisions? */
	DtxMoment	visited_at;		/* begin of the last visit, 0: none yet */
	int			visits;			/* begun, modulo a lot */
	DtxBackoff	backoff;		/* failed visits in a row; passes leave it alone
								 * until then */
	DtxMoment	hurry_after;	/* in-doubt entries leave it alone until then */
	bool		hung;			/* did the last one end in a COMMIT PREPARED that
								 * was not answered? */
	Oid			good_umid;		/* the mapping that worked last */
	DtxMoment	used_at;		/* when something was prepared there last, as far
								 * as seen */
	Oid			used_umid;		/* through this mapping */
	DtxRemote  *kept;			/* connection for the next visit, or NULL */
	Oid			kept_umid;		/* its mapping */
} ServerState;

/* A decision row that no backend owns, waiting for its participants. */
typedef struct Note
{
	DtxDecisionRow row;
	uint64		serial;			/* Resolver.serial when it was first read */
	int			nconfirmed;
	bool	   *confirmed;		/* per participant */
	uint64	   *seals;			/* of their gids, likewise */
} Note;

struct Resolver
{
	bool		worker;			/* the background worker, not a backend */
	MemoryContext cxt;			/* this struct and what hangs off it */
	MemoryContext step_cxt;		/* worker: reset in each step */
	DtxRemoteSet *set;
	uint64		coordinator_id;
	char		prefix[DTX_GID_SIZE];	/* of all our gids */
	uint64		serial;			/* a clock for visits and notes */
	int			nvisits;		/* running */
	int			nin_pass;		/* those of full passes, running or to come */
	int			nordinary;		/* running ones with Visit.ordinary ... */
	int			nfailing;		/* ... and with Visit.failing */
	Visit	   *ended;			/* over, not freed yet */
	MemoryContext result_cxt;	/* backend: where the results go */
	List	   *results;		/* backend: DtxResolved */
	List	   *left;			/* backend: DtxInDoubt, left to the worker */

	/* worker only */
	DtxMoment	pass_began;		/* last full pass, 0: none yet */
	bool		pass_asked;		/* somebody wants one before its time */
	bool		pass_open;		/* not counted as completed yet */
	MemoryContext routes_cxt;
	List	   *routes;			/* DtxRoute, as of the last time that something had to
								 * be done */
	List	   *urgent;			/* Oids of servers that wait to be visited, because
								 * something is in doubt there, ... */
	List	   *ordinary;		/* ... and others */
	bool		may_start;		/* have these, or the room for them, changed? */
	bool		look;			/* has what is due changed by our doing? */
	uint64		seen_changes;	/* DtxInDoubtChanges() at the last look, ... */
	DtxMoment	looked_at;		/* ... when that was, ... */
	DtxMoment	next_due;		/* ... and when something is due after it */
	DtxMoment	swept_at;		/* when the routes were put in order */
	uint64		seen_overflows; /* DtxInDoubtOverflows() at the last pass */
	bool		overflowed;		/* was it another one at the pass before? */
	MemoryContext notes_cxt;
	List	   *notes;			/* Note */
	bool		prunable;		/* is any of them confirmed? */
	bool		report_activity;	/* has what we do changed? */
	bool		suspect;		/* is another server with this database alive?  Then
								 * nothing of former boots is touched, until a
								 * witness says that a human has settled it */
};

/* Survives errors of the worker: what it knows of the servers. */
static HTAB *server_states = NULL;

/* Worker: errors in a row. */
static DtxBackoff errors;

static uint32 wait_event_idle = 0;
static uint32 wait_event_remote = 0;

static Resolver *resolver_create(MemoryContext parent, bool worker);
static bool resolver_refresh(Resolver *r);
static void xact_begin(Resolver *r);
static void xact_end(Resolver *r);
static char *server_name_if_usable(Oid serverid);
static int	max_backoff(void);
static DtxMoment backoff_until(int failures);

static Visit *visit_create(Resolver *r, VisitPurpose purpose, Oid serverid,
						   const char *name);
static void visit_set_entries(Visit *v, List *entries);
static void visit_set_routes(Visit *v, List *routes);
static bool has_route(const Visit *v, Oid umid);
static const char *route_refusal(const Visit *v, const DtxTarget *target);
static void visit_next(Visit *v);
static bool visit_connect(Visit *v, Oid umid);
static Oid	choose_mapping(Visit *v);
static Oid	find_mapping(Visit *v, const char *owner, Oid known_umid);
static Oid	guess_mapping(Visit *v);
static void load_mappings(Visit *v);
static void visit_ready(DtxRemote *remote, void *arg,
						const DtxRemoteError *error);
static void visit_row(DtxRemote *remote, void *arg, int statement,
					  const PGresult *res);
static void visit_failed(DtxRemote *remote, void *arg,
						 DtxRemoteFailure failure, const char *error);
static void visit_send_list(Visit *v, DtxRemote *remote);
static void row_info(Visit *v, DtxRemote *remote, const PGresult *res);
static void row_in_flight(Visit *v, const PGresult *res);
static void row_prepared(Visit *v, DtxRemote *remote, const PGresult *res);
static void visit_listed(Visit *v, DtxRemote *remote);
static bool visit_judge(Visit *v);
static void visit_send_probe(Visit *v, DtxRemote *remote);
static void row_probe(Visit *v, const PGresult *res);
static void visit_obey(Visit *v, Found *f, const DtxFacts *facts,
					   const DtxDecisionRow *row);
static bool still_so(Visit *v, Found *f);
static int64 milliseconds(const PGresult *res, int column);
static void append_todo(Visit *v, DtxDecision decision);
static bool visit_mode(Visit *v, DtxRemote *remote, VisitMode mode);
static bool needs_witness(Visit *v);
static bool visit_send_witness(Visit *v, DtxRemote *remote);
static void visit_witnessed(Visit *v, const DtxRemoteError *error);
static const char *standby_away(Visit *v);
static void visit_continue(Visit *v, DtxRemote *remote);
static bool may_finish(Visit *v, Found *f);
static void visit_finished_one(Visit *v, const DtxRemoteError *error);
static bool visit_ask_outcomes(Visit *v, DtxRemote *remote);
static void add_question(Visit *v, StringInfo sql, const DtxGid *gid,
						 const DtxPrepared *prepared);
static void row_outcome(Visit *v, const PGresult *res);
static const char *why_not_done(Visit *v, const DtxGid *gid, DtxDecision decision,
								const DtxPrepared *prepared);
static DtxSame same_cluster(const Visit *v, uint64 system_id);
static bool same_endpoint(const Visit *v, uint64 endpoint);
static void entry_prepared(Visit *v, const DtxInDoubt *entry, const Found *f,
						   DtxPrepared *prepared);
static bool record_damage(Visit *v, const DtxGid *gid, DtxDecision decision,
						  DtxFound found, uint64 remote_xid, uint64 system_id);
static bool is_business_of_other(Visit *v, Found *f);
static char *unfinished_reason(Visit *v, Found *f);
static void visit_done(Visit *v);
static void visit_failed_for_good(Visit *v);
static void settle_entries(Visit *v);
static void settle_gone(Visit *v, DtxInDoubt *entry, Found *f);
static void leave_to_worker(Visit *v, const DtxGid *gid);
static void wait_for_worker(Resolver *r);
static void settle_notes(Visit *v);
static void found_failed(Visit *v, Found *f);
static bool add_entry(Visit *v, const DtxGid *gid, const char *owner, Oid umid,
					  DtxDecision decision, const char *error,
					  DtxMoment next_attempt);
static void add_result(Visit *v, Found *f);
static void set_status(Visit *v, bool reachable);
static DtxInDoubt *visit_entry(Visit *v, const DtxGid *gid);
static bool is_in_flight(Visit *v, const DtxGid *gid);
static bool found_here(Visit *v);
static bool leads_elsewhere(const Visit *v, uint64 system_id);
static bool server_exists(Resolver *r, Oid serverid);
static void entry_finished(Visit *v, const DtxGid *gid);
static bool is_business_there(Oid serverid, List *routes, List *entries);
static void run_to(Resolver *r, int left);
static void run_to_end(Resolver *r);

static bool keep_connection(Visit *v, DtxRemote *remote);
static void kept_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
						const char *error);
static void drop_kept(ServerState *state);
static void note_use(const DtxDecisionRow *row);
static void note_users(void);
static ServerState *server_state(Oid serverid);
static DtxMoment next_pass(Resolver *r);
static long worker_step(Resolver *r, bool *leave);
static bool must_look(Resolver *r, DtxMoment now);
static List *worker_look(Resolver *r, DtxMoment now, bool *strange);
static void worker_begin_pass(Resolver *r);
static bool is_wanted(Resolver *r, const ServerState *state, DtxMoment now,
					  bool *in_pass);
static void enqueue(Resolver *r, ServerState *state, Queued how, bool in_pass);
static void worker_start_visits(Resolver *r);
static List *start_some(Resolver *r, List *queue, Queued how);
static void load_routes(Resolver *r);
static void worker_take_notes(Resolver *r);
static List *unowned_rows(void);
static void worker_prune(Resolver *r);
static void worker_start_visit(Resolver *r, ServerState *state);
static long worker_timeout(Resolver *r);
static void worker_report_activity(Resolver *r);
static void worker_give_up(Resolver *r);
static void note_unconfirmed(Resolver *r, Note *note, int index,
							 const char *error, Oid error_umid);
static void note_gid(Resolver *r, Note *note, int index, DtxGid *gid);
static void visit_end(Visit *v);
static void free_ended(Resolver *r);

static const DtxRemoteHandler visit_handler = {
	.ready = visit_ready,
	.row = visit_row,
	.failed = visit_failed
};

/* Nobody is told anything of a kept connection but that it was lost. */
static const DtxRemoteHandler kept_handler = {
	.failed = kept_failed
};

/* ----------------------------------------------------------------
 * Resolvers, of the worker and of backends
 * ----------------------------------------------------------------
 */

static Resolver *
resolver_create(MemoryContext parent, bool worker)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "pg_dtx resolver",
											  ALLOCSET_DEFAULT_SIZES);
	Resolver   *r = MemoryContextAllocZero(cxt, sizeof(Resolver));

	if (wait_event_remote == 0)
		wait_event_remote = DtxWaitEvent("DtxResolverRemote");

	r->worker = worker;
	r->cxt = cxt;
	r->step_cxt = AllocSetContextCreate(cxt, "pg_dtx resolver step",
										ALLOCSET_DEFAULT_SIZES);
	r->notes_cxt = AllocSetContextCreate(cxt, "pg_dtx decision rows",
										 ALLOCSET_DEFAULT_SIZES);
	r->routes_cxt = AllocSetContextCreate(cxt, "pg_dtx routes",
										  ALLOCSET_DEFAULT_SIZES);
	r->look = true;
	r->next_due = DTX_NEVER;
	r->set = DtxRemoteSetCreate(cxt);
	return r;
}

/*
 * Learn who we are.  To be called in a transaction.  Returns false if the
 * extension is not installed (any more).
 */
static bool
resolver_refresh(Resolver *r)
{
	uint64		coordinator_id;

	if (!DtxExtensionInstalled())
		return false;

	/* Backends wait for that before they make gids, and so does judging. */
	if (r->worker)
		DtxBootRecord();
	coordinator_id = DtxCoordinatorId();
	if (coordinator_id == r->coordinator_id)
		return true;

	/* What was read of an extension dropped since is not ours any more. */
	r->coordinator_id = coordinator_id;
	r->notes = NIL;
	r->prunable = false;
	DtxGidFormatPrefix(r->coordinator_id, MyDatabaseId, r->prefix);
	return true;
}

/*
 * The worker runs a transaction just for what is between these two; a backend
 * is in one anyway.  Neither changes the current memory context.
 */
static void
xact_begin(Resolver *r)
{
	MemoryContext old = CurrentMemoryContext;

	if (!r->worker)
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(old);
}

static void
xact_end(Resolver *r)
{
	MemoryContext old = CurrentMemoryContext;

	if (!r->worker)
		return;
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
}

/*
 * Longest pause before something is tried again: not longer than until the next full
 * pass, but not less than a second.
 */
static int
max_backoff(void)
{
	return Max(MIN_BACKOFF, Min(MAX_BACKOFF, dtx_resolve_interval));
}

/*
 * When something that has failed so many times in a row is to be tried again.
 */
static DtxMoment
backoff_until(int failures)
{
	return DtxIn(DtxBackoffPause(failures, MIN_BACKOFF, max_backoff()));
}

/*
 * Name of a server of postgres_fdw, NULL if there is none with this OID.  To
 * be called in a transaction.
 */
static char *
server_name_if_usable(Oid serverid)
{
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);

	if (server == NULL || !DtxWrapperIsPostgresFdw(server->fdwid))
		return NULL;
	return server->servername;
}

/* ----------------------------------------------------------------
 * A visit: beginning, and choice of user mappings
 * ----------------------------------------------------------------
 */

static Visit *
visit_create(Resolver *r, VisitPurpose purpose, Oid serverid, const char *name)
{
	MemoryContext cxt = AllocSetContextCreate(r->cxt, "pg_dtx visit",
											  ALLOCSET_DEFAULT_SIZES);
	Visit	   *v = MemoryContextAllocZero(cxt, sizeof(Visit));
	HASHCTL		info;

	v->resolver = r;
	v->cxt = cxt;
	v->purpose = purpose;
	v->serverid = serverid;
	v->name = MemoryContextStrdup(cxt, name);
	v->serial = ++r->serial;
	v->coordinator_id = r->coordinator_id;
	v->began_at = DtxNow();
	v->slots_used = -1;
	v->slots_total = -1;

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(DtxGid);
	info.entrysize = sizeof(Found);
	info.hcxt = cxt;
	v->found_hash = hash_create("pg_dtx found gids", 64, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	info.entrysize = sizeof(EntryRef);
	v->entry_hash = hash_create("pg_dtx entries", 16, &info,
								HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	r->nvisits++;
	return v;
}

/*
 * Tell the visit which entries of the in-doubt table (DtxInDoubt, of any
 * server) are there as it begins.  Their mappings are tried first.
 */
static void
visit_set_entries(Visit *v, List *entries)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	ListCell   *lc;

	foreach(lc, entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		EntryRef   *ref;
		DtxInDoubt *copy;
		bool		found;

		/* Entries of an extension that was dropped are nobody's. */
		if (entry->serverid != v->serverid ||
			entry->gid.coordinator_id != v->coordinator_id)
			continue;
		copy = palloc(sizeof(DtxInDoubt));
		*copy = *entry;
		v->entries = lappend(v->entries, copy);
		ref = hash_search(v->entry_hash, &copy->gid, HASH_ENTER, &found);
		ref->entry = copy;
		if (OidIsValid(copy->umid))
			v->preferred = list_append_unique_oid(v->preferred, copy->umid);
	}
	MemoryContextSwitchTo(old);
}

static DtxInDoubt *
visit_entry(Visit *v, const DtxGid *gid)
{
	EntryRef   *ref = hash_search(v->entry_hash, gid, HASH_FIND, NULL);

	return ref == NULL ? NULL : ref->entry;
}

/*
 * Tell the visit which routes (DtxRoute, of any server) there are.  In a transaction.
 */
static void
visit_set_routes(Visit *v, List *routes)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	Oid			roleid = InvalidOid;
	ForeignServer *server;
	HeapTuple	tuple;
	ListCell   *lc;

	foreach(lc, routes)
	{
		DtxRoute   *route = (DtxRoute *) lfirst(lc);
		DtxRoute   *copy;

		if (route->serverid != v->serverid)
			continue;
		copy = palloc(sizeof(DtxRoute));
		*copy = *route;
		v->routes = lappend(v->routes, copy);
	}

	if (dtx_resolver_role != NULL && dtx_resolver_role[0] != '\0')
		roleid = get_role_oid(dtx_resolver_role, true);
	server = GetForeignServerExtended(v->serverid, FSV_MISSING_OK);
	if (OidIsValid(roleid) && server != NULL)
	{
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(roleid),
								ObjectIdGetDatum(v->serverid));
		if (HeapTupleIsValid(tuple))
		{
			Oid			umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;

			ReleaseSysCache(tuple);
			if (has_route(v, umid) || superuser_arg(server->owner))
			{
				v->designated = umid;
				v->preferred = lcons_oid(umid, v->preferred);
			}
		}
	}
	MemoryContextSwitchTo(old);
}

/* Was something prepared through this mapping? */
static bool
has_route(const Visit *v, Oid umid)
{
	ListCell   *lc;

	foreach(lc, v->routes)
	{
		if (((DtxRoute *) lfirst(lc))->umid == umid)
			return true;
	}
	return false;
}

/*
 * May the visit connect there?  NULL, or why not.
 */
static const char *
route_refusal(const Visit *v, const DtxTarget *target)
{
	ListCell   *lc;

	if (OidIsValid(v->on_behalf_of))
		return NULL;
	if (!has_route(v, target->umid))
		return target->trusted && target->umid == v->designated ? NULL : NOT_USED;
	if (target->trusted)
		return NULL;
	foreach(lc, v->routes)
	{
		DtxRoute   *route = (DtxRoute *) lfirst(lc);

		if (route->umid == target->umid && route->endpoint == target->endpoint)
			return NULL;
	}
	return MOVED;
}

/*
 * Read the user mappings that may be used.  To be called in a transaction.
 */
static void
load_mappings(Visit *v)
{
	MemoryContext old;
	ForeignServer *server;
	List	   *umids = NIL;
	ListCell   *lc;

	if (v->mappings_loaded)
		return;

	server = GetForeignServerExtended(v->serverid, FSV_MISSING_OK);
	foreach(lc, server != NULL ? server->options : NIL)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "dbname") == 0)
			v->names_database = true;
	}

	foreach(lc, v->routes)
		umids = list_append_unique_oid(umids, ((DtxRoute *) lfirst(lc))->umid);
	if (OidIsValid(v->designated))
		umids = list_append_unique_oid(umids, v->designated);

	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, umids)
	{
		HeapTuple	tuple = SearchSysCache1(USERMAPPINGOID,
											ObjectIdGetDatum(lfirst_oid(lc)));
		Mapping    *mapping;
		Oid			userid;

		if (!HeapTupleIsValid(tuple))
			continue;
		userid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->umuser;
		ReleaseSysCache(tuple);
		mapping = palloc(sizeof(Mapping));
		mapping->umid = lfirst_oid(lc);
		mapping->user = DtxMappingOption(mapping->umid, "user");

		/* Those meant for everybody, or made for administrators, first. */
		if (!OidIsValid(userid) || superuser_arg(userid) ||
			mapping->umid == v->designated)
			v->mappings = lcons(mapping, v->mappings);
		else
			v->mappings = lappend(v->mappings, mapping);
	}
	MemoryContextSwitchTo(old);
	v->mappings_loaded = true;
}

/*
 * The next mapping to try, or InvalidOid if there is nothing more that another
 * one would be good for.  To be called in a transaction.
 */
static Oid
choose_mapping(Visit *v)
{
	ListCell   *lc;

	if (v->ntries >= MAX_TRIES)
		return InvalidOid;

	/* To begin with, any mapping will do. */
	if (!v->listed)
	{
		int			n;

		if (v->nrefusals >= MAX_REFUSALS)
			return InvalidOid;
		if (OidIsValid(v->fixed_umid))
			return list_member_oid(v->tried, v->fixed_umid) ?
				InvalidOid : v->fixed_umid;

		/*
		 * Every other time without them: those who are refused there must not
		 * be all who are ever tried.
		 */
		if (v->failures % 2 == 0)
		{
			foreach(lc, v->preferred)
			{
				if (!list_member_oid(v->tried, lfirst_oid(lc)) &&
					(has_route(v, lfirst_oid(lc)) ||
					 lfirst_oid(lc) == v->designated))
					return lfirst_oid(lc);
			}
		}
		load_mappings(v);

		/* After failures, begin somewhere else each time. */
		n = list_length(v->mappings);
		for (int i = 0; i < n; i++)
		{
			int			start = (int) (((int64) v->failures * MAX_REFUSALS) % n);
			Mapping    *mapping = (Mapping *) list_nth(v->mappings,
													   (start + i) % n);

			if (!list_member_oid(v->tried, mapping->umid))
				return mapping->umid;
		}
		return InvalidOid;
	}

	if (v->purpose == VISIT_LOOK || OidIsValid(v->fixed_umid))
		return InvalidOid;

	/*
	 * Is there something that another user could finish?  First those whose
	 * mapping is known, so that guesses for one gid do not use up the tries of
	 * another; and it is another gid that comes first each time.
	 */
	for (int guess = 0; guess <= 1; guess++)
	{
		int			n = list_length(v->found);

		for (int i = 0; i < n; i++)
		{
			Found	   *f = (Found *) list_nth(v->found, (v->turn + i) % n);
			DtxInDoubt *entry;
			Oid			umid;

			if (f->state != FOUND_DECIDED)
				continue;

			/*
			 * No other user leads to another database, if the server says
			 * which.  (The mappings were loaded when none was known.)
			 */
			if (guess && v->names_database &&
				(f->database == NULL || strcmp(f->database, v->database) != 0))
				continue;
			entry = visit_entry(v, &f->gid);
			umid = guess ? guess_mapping(v) :
				find_mapping(v, f->owner, entry ? entry->umid : InvalidOid);
			if (OidIsValid(umid))
				return umid;
		}
	}

	/*
	 * To see a PREPARE that is running one must be the one who runs it.  That
	 * matters only where nothing else is seen of a gid that is to be rolled
	 * back.
	 */
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

		if (entry->decision == DTX_ROLLBACK && OidIsValid(entry->umid) &&
			!v->sees_all && has_route(v, entry->umid) &&
			!list_member_oid(v->covered, entry->umid) &&
			!list_member_oid(v->tried, entry->umid) &&
			hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL) == NULL)
			return entry->umid;
	}
	return InvalidOid;
}

/*
 * The mapping, not tried yet, through which a gid was prepared, or that names the
 * role that owns it.
 */
static Oid
find_mapping(Visit *v, const char *owner, Oid known_umid)
{
	ListCell   *lc;

	if (OidIsValid(known_umid) && !list_member_oid(v->tried, known_umid) &&
		has_route(v, known_umid))
		return known_umid;

	load_mappings(v);
	foreach(lc, v->mappings)
	{
		Mapping    *mapping = (Mapping *) lfirst(lc);

		if (owner != NULL && mapping->user != NULL &&
			strcmp(mapping->user, owner) == 0 &&
			!list_member_oid(v->tried, mapping->umid))
			return mapping->umid;
	}
	return InvalidOid;
}

/*
 * A mapping, not tried yet, that may lead to any role.  One that names no user
 * has libpq's default, whoever that is.  One that names another user than the
 * owner of a gid may still become it (ALTER ROLE ... SET role).
 */
static Oid
guess_mapping(Visit *v)
{
	Oid			guess = InvalidOid;
	int			n;

	load_mappings(v);
	n = list_length(v->mappings);
	for (int i = 0; i < n; i++)
	{
		/* Every other time from another one on: there may be too many. */
		int			start = v->turn % 2 == 0 ? 0 : v->turn / 2 % n;
		Mapping    *mapping = (Mapping *) list_nth(v->mappings,
												   (start + i) % n);

		if (!list_member_oid(v->tried, mapping->umid) &&
			(mapping->user == NULL || !OidIsValid(guess)))
			guess = mapping->umid;
	}
	return guess;
}

/*
 * Begin a connection through this mapping.  Returns false if it can't be used.
 * To be called in a transaction.
 */
static bool
visit_connect(Visit *v, Oid umid)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	DtxTarget  *target = DtxTargetMake(v->serverid, umid, v->failures,
									  v->on_behalf_of);

	if (target->error == NULL)
		target->error = unconstify(char *, route_refusal(v, target));
	v->tried = lappend_oid(v->tried, umid);
	v->umid = umid;
	v->conn_endpoint = target->endpoint;
	if (target->error == NULL)
	{
		ServerState *state = v->resolver->worker ?
			server_state(v->serverid) : NULL;

		v->ntries++;
		v->phase = PHASE_CONNECT;
		v->relisted = false;
		v->mode = MODE_LOOK;
		v->in_flight = NIL;
		v->reused = false;
		if (state != NULL && state->kept != NULL && state->kept_umid == umid)
		{
			DtxRemote  *kept = state->kept;

			state->kept = NULL;
			v->reused = true;
			if (!DtxRemoteResume(kept, target, &visit_handler, v))
			{
				/* It does not lead there any more. */
				v->reused = false;
				DtxRemoteClose(kept);
			}
		}
		if (!v->reused)
			DtxRemoteOpen(v->resolver->set, target, &visit_handler, v);
	}
	else
	{
		v->refusal = target->error;
		if (!v->listed)
			v->error = target->error;
	}
	MemoryContextSwitchTo(old);
	return target->error == NULL;
}

/*
 * Connect once more, or end the visit.
 */
static void
visit_next(Visit *v)
{
	Resolver   *r = v->resolver;
	MemoryContext old;
	MemoryContext scratch;
	bool		connecting = false;
	Oid			umid;

	scratch = AllocSetContextCreate(v->cxt, "pg_dtx visit step",
									ALLOCSET_DEFAULT_SIZES);
	xact_begin(r);
	old = MemoryContextSwitchTo(scratch);
	while (!connecting && OidIsValid(umid = choose_mapping(v)))
	{
		CHECK_FOR_INTERRUPTS();
		connecting = visit_connect(v, umid);
	}
	MemoryContextSwitchTo(old);
	xact_end(r);
	MemoryContextDelete(scratch);

	if (connecting)
		return;
	if (v->listed)
		visit_done(v);
	else
	{
		if (v->error == NULL)
			v->error = MemoryContextStrdup(v->cxt, NO_ROUTE);
		visit_failed_for_good(v);
	}
}

/* ----------------------------------------------------------------
 * A visit: talking to the server
 * ----------------------------------------------------------------
 */

/*
 * Ask what is prepared.  Three statements, whose order matters (see the top of
 * this file).  Nothing in them comes from another machine; a gid contains no
 * character that means something to LIKE or to a literal.  LIKE rather than a
 * function on the text, because a gid or a query of somebody else may be in
 * another encoding.
 */
static void
visit_send_list(Visit *v, DtxRemote *remote)
{
	StringInfoData sql;
	char		pattern[DTX_GID_SIZE + 1];

	if (v->has_only)
		DtxGidFormat(&v->only, pattern);
	else
		snprintf(pattern, sizeof(pattern), "%s%%", v->resolver->prefix);

	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT current_user::pg_catalog.text, "
						   "pg_catalog.current_database()::pg_catalog.text, "
						   "pg_catalog.pg_is_in_recovery()::pg_catalog.text, "
						   "(SELECT r.rolsuper FROM pg_catalog.pg_roles r"
						   " WHERE r.rolname = current_user)::pg_catalog.text, "
						   "(SELECT count(*) > 0 FROM pg_catalog.pg_roles r"
						   " WHERE r.rolname = 'pg_read_all_stats'"
						   " AND pg_catalog.pg_has_role(r.oid, 'USAGE'))::pg_catalog.text, "
						   "pg_catalog.current_setting('max_prepared_transactions'), "
						   "(SELECT count(*) FROM pg_catalog.pg_prepared_xacts)::pg_catalog.text, "
						   "pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())::pg_catalog.text, "
						   "pg_catalog.pg_backend_pid()::pg_catalog.text, "
						   "(pg_catalog.current_setting('synchronous_standby_names') OPERATOR(pg_catalog.<>) '')::pg_catalog.text; ");
	appendStringInfo(&sql,
					 "SELECT pid::pg_catalog.text, query, "
					 "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) query_start)::pg_catalog.int8::pg_catalog.text "
					 "FROM pg_catalog.pg_stat_activity "
					 "WHERE state = 'active' AND pg_catalog.octet_length(query) <= 1024 "
					 "AND (query LIKE '" DTX_PREPARE_HEAD "%s%s' "
					 "OR query LIKE 'CLOSE c%%" DTX_PREPARE_HEAD "%s%s' "
					 "OR wait_event = 'SyncRep' AND query LIKE 'COMMIT P%%''%s%s') "
					 "LIMIT %d; ",
					 pattern, v->has_only ? " %" : "",
					 pattern, v->has_only ? " %" : "",
					 pattern, v->has_only ? "''%" : "", MAX_IN_FLIGHT);
	appendStringInfo(&sql,
					 "SELECT gid, owner::pg_catalog.text, database::pg_catalog.text, "
					 "transaction::pg_catalog.text, "
					 "pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) prepared)::pg_catalog.int8::pg_catalog.text "
					 "FROM pg_catalog.pg_prepared_xacts "
					 "WHERE gid LIKE '%s' LIMIT %d",
					 pattern, MAX_LISTED + 1);

	v->next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	v->phase = PHASE_LIST;
	v->list++;
	v->nlisted = 0;
	v->truncated = false;
	v->has_info = false;
	v->standby_waits = false;
	v->witnessed = v->replicated = false;
	v->in_flight = NIL;
	DtxRemoteSend(remote, sql.data);
	pfree(sql.data);
}

static void
visit_row(DtxRemote *remote, void *arg, int statement, const PGresult *res)
{
	Visit	   *v = (Visit *) arg;
	MemoryContext old = MemoryContextSwitchTo(v->cxt);

	if (v->phase == PHASE_LIST)
	{
		if (statement == 0)
			row_info(v, remote, res);
		else if (statement == 1)
			row_in_flight(v, res);
		else if (statement == 2)
			row_prepared(v, remote, res);
	}
	else if (v->phase == PHASE_IDENTIFY)
	{
		const char *value = DtxRemoteValue(res, 0, 32);

		if (value != NULL && statement == 0)
			v->conn_timeline = DtxTimelineParse(value);
		else if (value != NULL)
			v->conn_system_id = DtxNumberParse(value, PG_UINT64_MAX);
	}
	else if (v->phase == PHASE_OUTCOME)
	{
		row_outcome(v, res);
	}
	else if (v->phase == PHASE_PROBE)
		row_probe(v, res);
	MemoryContextSwitchTo(old);
}

/* What the server and the session are. */
static void
row_info(Visit *v, DtxRemote *remote, const PGresult *res)
{
	const char *values[10];
	int64		pid;

	if (PQnfields(res) != lengthof(values) || v->has_info)
		return;
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = DtxRemoteValue(res, i, NAMEDATALEN * 4);
		if (values[i] == NULL)
			return;
	}

	v->remote_user = DtxCleanText(values[0], NAMEDATALEN * 4);
	v->database = DtxCleanText(values[1], NAMEDATALEN * 4);
	v->in_recovery = strcmp(values[2], "false") != 0;
	v->superuser = strcmp(values[3], "true") == 0;
	v->sees_all = v->superuser || strcmp(values[4], "true") == 0;
	v->slots_total = (int) DtxNumberParse(values[5], PG_INT32_MAX);
	v->slots_used = (int) DtxNumberParse(values[6], PG_INT32_MAX);
	v->next_remote_xid = DtxNumberParse(values[7], PG_INT64_MAX);

	/* A pooler tells its clients numbers of its own. */
	pid = DtxNumberParse(values[8], PG_INT32_MAX);
	v->pooled = DtxRemoteBackendPid(remote) != 0 &&
		DtxRemoteBackendPid(remote) != pid;
	v->has_standbys = strcmp(values[9], "false") != 0;
	v->has_info = true;
}

/* A PREPARE of ours that is running, or a COMMIT PREPARED that waits. */
static void
row_in_flight(Visit *v, const PGresult *res)
{
	const char *pid;
	const char *query;
	char		text[DTX_GID_SIZE];
	const char *end;
	InFlight   *item;
	unsigned int cursor;
	int			len = 0;

	if (PQnfields(res) != 3 || list_length(v->in_flight) >= MAX_IN_FLIGHT)
		return;
	pid = DtxRemoteValue(res, 0, 12);
	query = DtxRemoteValue(res, 1, 1024);
	if (pid == NULL || query == NULL || DtxNumberParse(pid, PG_INT32_MAX) == 0)
		return;
	if (strncmp(query, "COMMIT ", 7) == 0)
	{
		v->standby_waits = true;
		return;
	}
	/* what ParticipantPrepare() puts in front */
	while (sscanf(query, "CLOSE c%9u; %n", &cursor, &len) == 1 && len > 0)
	{
		query += len;
		len = 0;
	}
	if (strncmp(query, DTX_PREPARE_HEAD, strlen(DTX_PREPARE_HEAD)) != 0)
		return;
	query += strlen(DTX_PREPARE_HEAD);
	end = strchr(query, ' ');
	if (end == NULL || end - query >= DTX_GID_SIZE)
		return;
	memcpy(text, query, end - query);
	text[end - query] = '\0';

	item = palloc0(sizeof(InFlight));
	item->pid = (int) DtxNumberParse(pid, PG_INT32_MAX);
	item->age_ms = milliseconds(res, 2);
	if (!DtxGidParse(text, &item->gid) ||
		(!v->has_only &&
		 (item->gid.coordinator_id != v->coordinator_id ||
		  item->gid.dbid != MyDatabaseId)))
	{
		pfree(item);
		return;
	}
	v->in_flight = lappend(v->in_flight, item);
	v->seen_in_flight = lappend(v->seen_in_flight, item);
}

/* A number of seconds in a result, as milliseconds; -1 if there is none. */
static int64
milliseconds(const PGresult *res, int column)
{
	const char *value = DtxRemoteValue(res, column, 20);

	/* (less than 0 if the clock was set back) */
	if (value == NULL || value[0] < '0' || value[0] > '9')
		return -1;
	return (int64) DtxNumberParse(value, PG_INT32_MAX) * 1000;
}

/* A prepared transaction of ours. */
static void
row_prepared(Visit *v, DtxRemote *remote, const PGresult *res)
{
	const char *value;
	DtxGid		gid;
	Found	   *f;
	bool		known;

	if (++v->nlisted > MAX_LISTED)
	{
		v->truncated = true;

		/* An honest server stops here by itself. */
		if (v->nlisted > MAX_LISTED + 1)
		{
			DtxRemoteClose(remote);
			if (!v->listed)
				v->error = pstrdup("the server sends more than it was asked for");
			visit_next(v);
		}
		return;
	}

	if (PQnfields(res) != 5)
		return;
	value = DtxRemoteValue(res, 0, DTX_GID_SIZE);
	if (value == NULL || !DtxGidParse(value, &gid))
		return;
	if (v->has_only ? memcmp(&gid, &v->only, sizeof(gid)) != 0 :
		(gid.coordinator_id != v->coordinator_id ||
		 gid.dbid != MyDatabaseId))
		return;

	f = hash_search(v->found_hash, &gid, HASH_ENTER, &known);
	if (!known)
	{
		memset(f, 0, sizeof(Found));
		f->gid = gid;
		v->found = lappend(v->found, f);
		value = DtxRemoteValue(res, 1, NAMEDATALEN * 4);
		if (value != NULL)
			f->owner = DtxCleanText(value, NAMEDATALEN * 4);
		value = DtxRemoteValue(res, 2, NAMEDATALEN * 4);
		if (value != NULL)
			f->database = DtxCleanText(value, NAMEDATALEN * 4);
		value = DtxRemoteValue(res, 3, 12);
		if (value != NULL && v->next_remote_xid != 0)
		{
			uint32		low = (uint32) DtxNumberParse(value, PG_UINT32_MAX);
			int32		distance = (int32) (low - (uint32) v->next_remote_xid);

			/* An id that is in use is less than 2^31 away from the next one. */
			if (low != 0)
				f->remote_xid = v->next_remote_xid + (int64) distance;
		}
		f->age_ms = milliseconds(res, 4);
	}
	f->list = v->list;
}

/*
 * The connection is there, or a command is over.
 */
static void
visit_ready(DtxRemote *remote, void *arg, const DtxRemoteError *error)
{
	Visit	   *v = (Visit *) arg;

	switch (v->phase)
	{
		case PHASE_CONNECT:
			v->version = DtxRemoteVersion(remote);
			v->conn_system_id = 0;
			v->conn_timeline = 0;
			v->phase = PHASE_IDENTIFY;
			DtxRemoteSend(remote, v->version >= 100000 ? DTX_IDENTIFY :
						  DTX_IDENTIFY_OLD);
			break;

		case PHASE_IDENTIFY:
			/* Not everybody may ask for it; then we don't know. */
			visit_send_list(v, remote);
			break;

		case PHASE_LIST:
			v->reused = false;
			if (error->sqlstate == 0 && v->has_info && !v->in_recovery)
				visit_listed(v, remote);
			else
			{
				/* Another user may have more luck. */
				if (!v->listed)
					v->error = MemoryContextStrdup(v->cxt,
												   error->sqlstate ? error->message :
												   !v->has_info ? "unexpected answer from the server" :
												   "the server is in recovery and does not show its prepared transactions");
				v->nrefusals++;
				DtxRemoteClose(remote);
				visit_next(v);
			}
			break;

		case PHASE_CANCEL:
			/* Whether it worked is seen in the next list. */
			visit_continue(v, remote);
			break;

		case PHASE_FINISH:
			visit_finished_one(v, error);
			visit_continue(v, remote);
			break;

		case PHASE_MODE:
			/* A session that can't be set up is none to commit in. */
			if (error->sqlstate != 0)
			{
				v->refusal = MemoryContextStrdup(v->cxt, error->message);
				v->todo = NIL;
				DtxRemoteClose(remote);
				visit_next(v);
				break;
			}
			visit_continue(v, remote);
			break;

		case PHASE_WITNESS:
			visit_witnessed(v, error);
			visit_continue(v, remote);
			break;

		case PHASE_OUTCOME:
			/* What has no answer is asked again in the next visit. */
			v->asked = NIL;
			visit_continue(v, remote);
			break;

		case PHASE_PROBE:
			DtxRemoteClose(remote);
			visit_next(v);
			break;
	}
}

/*
 * The connection failed.
 */
static void
visit_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
			 const char *error)
{
	Visit	   *v = (Visit *) arg;

	/*
	 * A command on its way may have been carried out or not.  The gid stays,
	 * and the next visit will see.
	 */
	if (v->current != NULL && v->current->state == FOUND_DECIDED)
	{
		if (failure == DTX_REMOTE_SILENT && v->phase == PHASE_FINISH &&
			v->current->decision == DTX_COMMIT && v->resolver->worker)
			server_state(v->serverid)->hung = true;
		v->current->error.sqlstate = ERRCODE_CONNECTION_FAILURE;
		v->current->error.message = MemoryContextStrdup(v->cxt, error);
		v->current->error_umid = v->umid;
		found_failed(v, v->current);
	}
	v->current = NULL;
	v->todo = NIL;
	v->cancels = NIL;

	/* A connection that was kept may be lost without anybody having noticed. */
	if (v->reused)
	{
		v->reused = false;
		v->tried = list_delete_oid(v->tried, v->umid);
		visit_next(v);
		return;
	}

	if (failure == DTX_REMOTE_REFUSED)
	{
		v->refusal = MemoryContextStrdup(v->cxt, error);
		v->refusal_umid = v->umid;
		if (!v->listed)
		{
			v->error = v->refusal;
			v->error_umid = v->umid;
		}
		v->nrefusals++;
		visit_next(v);
		return;
	}

	v->error = MemoryContextStrdup(v->cxt, error);
	v->error_umid = v->umid;
	visit_failed_for_good(v);
}

/*
 * A list is complete: judge what is in it, and begin to act.
 */
static void
visit_listed(Visit *v, DtxRemote *remote)
{
	MemoryContext old = MemoryContextSwitchTo(v->cxt);
	bool		orphans = false;
	ListCell   *lc;

	/* Several hosts, or an address that means another machine now. */
	if (v->listed && (v->system_id != v->conn_system_id ||
					  v->timeline != v->conn_timeline))
		v->mixed = true;
	v->system_id = v->conn_system_id;
	v->timeline = v->conn_timeline;
	if (v->nendpoints < lengthof(v->endpoints))
		v->endpoints[v->nendpoints++] = v->conn_endpoint;
	v->listed = true;
	v->error = NULL;
	v->good_umid = v->umid;
	v->covered = list_append_unique_oid(v->covered, v->umid);

	if (v->purpose == VISIT_LOOK)
	{
		MemoryContextSwitchTo(old);
		if (v->probe != NULL)
		{
			visit_send_probe(v, remote);
			return;
		}
		DtxRemoteClose(remote);
		visit_next(v);
		return;
	}

	foreach(lc, v->found)
	{
		Found	   *f = (Found *) lfirst(lc);

		/* Somebody was faster.  Nothing to talk about. */
		if (f->list != v->list)
		{
			if (f->state != FOUND_DONE && f->state != FOUND_FAILED)
				f->state = FOUND_GONE;
			continue;
		}

		if (v->purpose == VISIT_FORCE && f->state == FOUND_NEW &&
			!leads_elsewhere(v, v->forced_system_id))
		{
			f->state = FOUND_DECIDED;
			f->decision = v->forced;
		}

		if (f->state != FOUND_NEW && f->state != FOUND_LEFT)
		{
			/* FOUND_ORPHAN and listed again: it is one. */
			continue;
		}

		/* Before visit_judge() reads what this database knows. */
		if (DtxActivityResponsible(&f->gid))
			f->state = FOUND_LEFT;
		else
		{
			f->state = FOUND_ORPHAN;
			f->orphaned = v->list;

			/*
			 * If nobody told us, it may just have been finished since the
			 * list was made; gids of an earlier boot can't.
			 */
			if (f->gid.boot_id == DtxBootId() &&
				visit_entry(v, &f->gid) == NULL)
				orphans = true;
		}
	}

	if (orphans && !v->relisted)
	{
		v->relisted = true;
		MemoryContextSwitchTo(old);
		visit_send_list(v, remote);
		return;
	}

	DTX_FAULT("resolver-listed", NULL);
	if (v->purpose == VISIT_RESOLVE && !visit_judge(v))
	{
		MemoryContextSwitchTo(old);
		DtxRemoteClose(remote);
		v->error = MemoryContextStrdup(v->cxt, "the extension was dropped");
		visit_failed_for_good(v);
		return;
	}

	if (v->suspicious)
	{
		v->suspicious = false;
		MemoryContextSwitchTo(old);
		visit_send_list(v, remote);
		return;
	}

	append_todo(v, DTX_ROLLBACK);
	append_todo(v, DTX_COMMIT);
	MemoryContextSwitchTo(old);
	visit_continue(v, remote);
}

/*
 * Ask what else dtx.check_server() wants to know.  Limits are those of the role that
 * logs in.  A function is named without its arguments, which differ between versions.
 */
static void
visit_send_probe(Visit *v, DtxRemote *remote)
{
	v->phase = PHASE_PROBE;
	DtxRemoteSend(remote,
				  "SELECT (SELECT r.rolconnlimit FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = session_user)::pg_catalog.text, "
				  "(SELECT d.datconnlimit FROM pg_catalog.pg_database d"
				  " WHERE d.datname = pg_catalog.current_database())::pg_catalog.text, "
				  "(SELECT r.rolsuper FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = session_user)::pg_catalog.text, "
				  "(SELECT count(*) > 0 FROM pg_catalog.pg_roles r"
				  " WHERE r.rolname = 'pg_use_reserved_connections'"
				  " AND pg_catalog.pg_has_role(session_user, r.oid, 'USAGE')"
				  " AND pg_catalog.current_setting('reserved_connections', true) <> '0')::pg_catalog.text, "
				  "(pg_catalog.current_setting('pg_stat_statements.track_utility', true) = 'on')::pg_catalog.text, "
				  "(SELECT count(*) > 0 FROM pg_catalog.pg_proc p, pg_catalog.pg_language l"
				  " WHERE p.proname = 'pg_logical_emit_message'"
				  " AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
				  " AND l.lanname = 'plpgsql'"
				  " AND pg_catalog.has_language_privilege(l.oid, 'USAGE'))::pg_catalog.text");
}

static void
row_probe(Visit *v, const PGresult *res)
{
	const char *values[6];
	DtxProbe   *probe = v->probe;

	if (PQnfields(res) != lengthof(values))
		return;
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = DtxRemoteValue(res, i, 32);
		if (values[i] == NULL)
			values[i] = "";
	}
	probe->role_limit = atoi(values[0]);
	probe->database_limit = atoi(values[1]);
	probe->reserved = strcmp(values[2], "true") == 0 ||
		strcmp(values[3], "true") == 0;
	probe->counts_utilities = strcmp(values[4], "true") == 0;
	probe->has_standbys = v->has_standbys;
	probe->has_witness = v->version >= 110000 && strcmp(values[5], "true") == 0;
	probe->has_session = true;
}

/* What this connection can finish, and in which way. */
static void
append_todo(Visit *v, DtxDecision decision)
{
	ListCell   *lc;

	foreach(lc, v->found)
	{
		Found	   *f = (Found *) lfirst(lc);

		if (f->state == FOUND_DECIDED && f->decision == decision &&
			may_finish(v, f))
			v->todo = lappend(v->todo, f);
	}
}

/*
 * Judge all orphans, and choose the running PREPAREs that are to be canceled.
 * Returns false if the extension is gone.
 */
static bool
visit_judge(Visit *v)
{
	Resolver   *r = v->resolver;
	MemoryContext scratch;
	MemoryContext old;
	DtxWitness *witness;
	List	   *sightings = NIL;
	List	   *all_facts = NIL;
	bool		suspect = false;
	bool		any = v->in_flight != NIL;
	ListCell   *lc;
	ListCell   *lc2;

	foreach(lc, v->found)
	{
		if (((Found *) lfirst(lc))->state == FOUND_ORPHAN)
			any = true;
	}
	if (!any)
		return true;

	scratch = AllocSetContextCreate(v->cxt, "pg_dtx decisions",
									ALLOCSET_DEFAULT_SIZES);
	xact_begin(r);
	old = MemoryContextSwitchTo(scratch);

	/* Who is responsible has to be asked before anything is read. */
	foreach(lc, v->in_flight)
	{
		InFlight   *item = (InFlight *) lfirst(lc);
		DtxSighting *sighting = palloc0(sizeof(DtxSighting));

		sighting->gid = item->gid;
		sighting->next_xid = v->next_xid;
		sighting->age_ms = item->age_ms;
		sighting->responsible = DtxActivityResponsible(&item->gid);
		sightings = lappend(sightings, sighting);
	}

	witness = DtxWitnessTake();
	DTX_FAULT("resolver-snapshot", NULL);
	if (witness == NULL || DtxCoordinatorId() != v->coordinator_id)
	{
		MemoryContextSwitchTo(old);
		xact_end(r);
		MemoryContextDelete(scratch);
		return false;
	}

	/* First all facts: one gid may say that nothing of its kind is to be touched. */
	if (!DtxWitnessSuspended(witness))
		r->suspect = false;
	foreach(lc, v->found)
	{
		Found	   *f = (Found *) lfirst(lc);
		DtxSighting sighting = {
			.gid = f->gid,
			.next_xid = v->next_xid,
			.age_ms = f->age_ms
		};
		DtxFacts   *facts = palloc(sizeof(DtxFacts));

		if (f->state == FOUND_ORPHAN)
		{
			DtxWitnessFacts(witness, &sighting, facts);
			suspect |= facts->authentic && facts->late && !facts->suspended &&
				(facts->history == DTX_HISTORY_CONTINUED ||
				 facts->history == DTX_HISTORY_BROKEN);
		}
		all_facts = lappend(all_facts, facts);
	}
	r->suspect |= suspect;

	forboth(lc, v->in_flight, lc2, sightings)
	{
		const DtxSighting *sighting = (const DtxSighting *) lfirst(lc2);

		if (DtxWitnessMayCancel(witness, sighting) &&
			(!r->suspect || sighting->gid.boot_id == DtxBootId()))
		{
			MemoryContextSwitchTo(v->cxt);
			v->cancels = lappend(v->cancels, lfirst(lc));
			MemoryContextSwitchTo(scratch);
		}
	}
	forboth(lc, v->found, lc2, all_facts)
	{
		Found	   *f = (Found *) lfirst(lc);
		DtxFacts   *facts = (DtxFacts *) lfirst(lc2);

		if (f->state != FOUND_ORPHAN)
			continue;

		/* Not listed again since, and nobody told us: let it wait. */
		if (f->list == f->orphaned && f->gid.boot_id == DtxBootId() &&
			visit_entry(v, &f->gid) == NULL)
		{
			f->state = FOUND_LEFT;
			continue;
		}
		if (r->suspect && f->gid.boot_id != DtxBootId())
			facts->suspended = true;
		visit_obey(v, f, facts, DtxWitnessRow(witness, &f->gid));
	}
	if (suspect && r->worker)
		DtxBootSuspend("another server with this database is alive");
	MemoryContextSwitchTo(old);
	xact_end(r);
	MemoryContextDelete(scratch);
	return true;
}

/*
 * What follows from a verdict.  In a transaction.
 */
static void
visit_obey(Visit *v, Found *f, const DtxFacts *facts, const DtxDecisionRow *row)
{
	Resolver   *r = v->resolver;
	DtxVerdict	verdict = DtxJudge(facts);

	/*
	 * The decision is not there.  It may have been confirmed and forgotten since the
	 * list was made, through another foreign server that leads to the same cluster;
	 * then the next list does not have it.
	 */
	if ((DtxReappeared(facts) || verdict == DTX_VERDICT_UNKNOWN) &&
		(f->suspected == 0 || f->suspected == f->list))
	{
		f->suspected = f->list;
		v->suspicious = true;
		return;
	}

	switch (verdict)
	{
		case DTX_VERDICT_LEAVE:
			f->state = FOUND_LEFT;
			return;
		case DTX_VERDICT_COMMIT:
		case DTX_VERDICT_ROLLBACK:
			break;
		default:
			/* Never touched; shown, so that a human can decide. */
			f->decision = DTX_UNDECIDED;
			f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
			f->error.message = MemoryContextStrdup(v->cxt,
												   DtxVerdictReason(verdict, facts));
			found_failed(v, f);
			return;
	}

	f->reappeared = DtxReappeared(facts);
	f->forced = facts->forced_rollback;

	/*
	 * Left to the worker: damage is recorded by it alone, and what was prepared
	 * through a server that was dropped since is confirmed by nobody else, and only
	 * if it commits it itself (see settle_notes()).
	 */
	if (!r->worker &&
		(f->reappeared ||
		 (row != NULL && f->gid.n <= (uint32) row->nparticipants &&
		  row->prepared[f->gid.n - 1].serverid != v->serverid &&
		  !server_exists(r, row->prepared[f->gid.n - 1].serverid))))
	{
		DtxLauncherAskPass();
		f->state = FOUND_LEFT;
		return;
	}
	f->decision = verdict == DTX_VERDICT_COMMIT ? DTX_COMMIT : DTX_ROLLBACK;

	/* It was seen to be decided, but that must not be lost after it was told. */
	if (f->decision == DTX_COMMIT &&
		!DtxStandbyHasDecision(&f->gid, visit_entry(v, &f->gid), r->worker))
	{
		f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
		f->error.message = MemoryContextStrdup(v->cxt,
											   DTX_DECISION_NOT_REPLICATED);
		found_failed(v, f);
		return;
	}
	f->state = FOUND_DECIDED;
}

/*
 * A command is about to be sent.  Does what it rests on still hold, as far as that
 * can be told without a transaction?
 */
static bool
still_so(Visit *v, Found *f)
{
	if (v->purpose != VISIT_RESOLVE)
		return true;
	if (f->gid.boot_id != DtxBootId())
		return !v->resolver->suspect;
	return !DtxActivityResponsible(&f->gid) &&
		(f->decision == DTX_COMMIT || f->forced ||
		 DtxCommitLog(f->gid.xid) == DTX_LOG_ABORTED);
}

/*
 * May the current connection finish this gid?  xact/twophase.c, LockGXact: the
 * owner may, and a superuser, in the database where it was prepared.
 */
static bool
may_finish(Visit *v, Found *f)
{
	if (f->database == NULL || strcmp(f->database, v->database) != 0)
		return false;
	return v->superuser ||
		(f->owner != NULL && strcmp(f->owner, v->remote_user) == 0);
}

/*
 * Send the next command, or leave this connection.
 */
static void
visit_continue(Visit *v, DtxRemote *remote)
{
	char		gid[DTX_GID_SIZE];
	char		sql[1024];

	if (v->cancels != NIL)
	{
		InFlight   *item = (InFlight *) linitial(v->cancels);

		v->cancels = list_delete_first(v->cancels);
		DtxGidFormat(&item->gid, gid);
		snprintf(sql, sizeof(sql),
				 "SELECT pg_catalog.pg_cancel_backend(pid) "
				 "FROM pg_catalog.pg_stat_activity "
				 "WHERE pid = %d AND state = 'active' "
				 "AND (query LIKE '" DTX_PREPARE_HEAD "%s %%' "
				 "OR query LIKE 'CLOSE c%%" DTX_PREPARE_HEAD "%s %%')",
				 item->pid, gid, gid);
		v->phase = PHASE_CANCEL;
	}
	else if (v->todo != NIL)
	{
		DtxDecision decision = ((Found *) linitial(v->todo))->decision;

		/*
		 * COMMIT PREPARED would leave a session behind that waits for as long
		 * as the standby is away, so ask first where that is to be feared.
		 */
		if (decision == DTX_COMMIT && (v->hung || v->standby_waits))
		{
			if (!v->witnessed && visit_send_witness(v, remote))
				return;
			if (!v->replicated)
			{
				List	   *todo = v->todo;
				ListCell   *lc;

				v->todo = NIL;
				foreach(lc, todo)
				{
					Found	   *f = (Found *) lfirst(lc);

					f->error.sqlstate = ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
					f->error.message = unconstify(char *, standby_away(v));
					found_failed(v, f);
				}
				visit_continue(v, remote);
				return;
			}
		}
		if (visit_mode(v, remote,
					   decision == DTX_COMMIT ? MODE_COMMIT : MODE_ROLLBACK))
			return;
		v->current = (Found *) linitial(v->todo);
		v->todo = list_delete_first(v->todo);
		if (!still_so(v, v->current) ||
			(v->current->reappeared &&
			 !record_damage(v, &v->current->gid, DTX_COMMIT, DTX_FOUND_REAPPEARED,
							v->current->remote_xid, v->system_id)))
		{
			/* the next visit looks again */
			v->current->state = FOUND_LEFT;
			v->current = NULL;
			visit_continue(v, remote);
			return;
		}
		DtxGidFormat(&v->current->gid, gid);
		snprintf(sql, sizeof(sql), "%s PREPARED '%s'",
				 v->current->decision == DTX_COMMIT ? "COMMIT" : "ROLLBACK",
				 gid);
		v->phase = PHASE_FINISH;
		DTX_FAULT("resolver-decided", NULL);
	}
	else
	{
		v->current = NULL;
		if (!v->witnessed && needs_witness(v) &&
			visit_send_witness(v, remote))
			return;
		if (visit_ask_outcomes(v, remote))
			return;
		if (!keep_connection(v, remote))
		{
			DtxRemoteClose(remote);
			visit_next(v);
		}
		return;
	}
	DtxRemoteSend(remote, sql);
	if (v->phase == PHASE_FINISH)
		DTX_FAULT("resolver-sent", NULL);
}

/*
 * Set up the session, see the top of this file.  Returns false, and sends nothing,
 * if it is already.
 */
static bool
visit_mode(Visit *v, DtxRemote *remote, VisitMode mode)
{
	char		sql[128];

	if (v->mode == mode)
		return false;
	v->mode = mode;
	v->phase = PHASE_MODE;
	switch (mode)
	{
		case MODE_LOOK:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = %d",
					 DTX_REMOTE_COMMAND_TIMEOUT);
			break;
		case MODE_ROLLBACK:
			snprintf(sql, sizeof(sql), "SET synchronous_commit = local");
			break;
		case MODE_COMMIT:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = 0");
			break;
		case MODE_WITNESS:
			snprintf(sql, sizeof(sql),
					 "RESET synchronous_commit; SET statement_timeout = %d",
					 WITNESS_TIMEOUT);
			break;
	}
	DtxRemoteSend(remote, sql);
	return true;
}

/*
 * Is there something that the last list does not show, was to be committed, and was
 * not seen to be?
 */
static bool
needs_witness(Visit *v)
{
	Resolver   *r = v->resolver;
	ListCell   *lc;

	if (v->purpose != VISIT_RESOLVE || !r->worker)
		return false;
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		Found	   *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);

		if (entry->decision == DTX_COMMIT &&
			(f == NULL || f->state == FOUND_GONE))
			return true;
	}
	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);

		if (note->serial >= v->serial)
			continue;
		for (int i = 0; i < note->row.nparticipants; i++)
		{
			DtxGid		gid;
			Found	   *f;

			if (note->row.prepared[i].serverid != v->serverid || note->confirmed[i])
				continue;
			note_gid(r, note, i, &gid);
			f = hash_search(v->found_hash, &gid, HASH_FIND, NULL);
			if (f == NULL || f->state == FOUND_GONE)
				return true;
		}
	}
	return false;
}

/*
 * Have the server commit something, synchronously.  An assigned transaction id alone
 * would not wait, because it writes nothing (xact.c, RecordTransactionCommit), and
 * statement_timeout does not strike while a command's own transaction is committed
 * (tcop/postgres.c, finish_xact_command): hence the block.  Returns false, and sends
 * nothing, if there is no standby to wait for.
 */
static bool
visit_send_witness(Visit *v, DtxRemote *remote)
{
	if (!v->has_standbys)
	{
		v->witnessed = v->replicated = true;
		return false;
	}
	if (visit_mode(v, remote, MODE_WITNESS))
		return true;
	v->phase = PHASE_WITNESS;
	DtxRemoteSend(remote, "DO LANGUAGE plpgsql $$BEGIN"
				  " PERFORM pg_catalog.pg_logical_emit_message(true, 'pg_dtx', '');"
				  " COMMIT; END$$");
	return true;
}

/*
 * It has, or the time for that was over.
 */
static void
visit_witnessed(Visit *v, const DtxRemoteError *error)
{
	v->witnessed = true;
	v->replicated = error->sqlstate == 0 && !error->warned;
	v->no_witness = error->sqlstate == 0 ? NULL :
		MemoryContextStrdup(v->cxt, error->message);
	if (v->replicated && v->resolver->worker)
		v->hung = server_state(v->serverid)->hung = false;
	DTX_FAULT("resolver-witnessed", NULL);
}

/* Why nothing can be committed, or confirmed, after that. */
static const char *
standby_away(Visit *v)
{
	MemoryContext old;
	char	   *text;

	if (v->no_witness == NULL)
		return STANDBY_AWAY;
	old = MemoryContextSwitchTo(v->cxt);
	text = psprintf("whether its server's synchronous standby has it can't be found out: %s",
					v->no_witness);
	MemoryContextSwitchTo(old);
	return text;
}

/*
 * COMMIT PREPARED or ROLLBACK PREPARED has been answered.
 */
static void
visit_finished_one(Visit *v, const DtxRemoteError *error)
{
	Found	   *f = v->current;
	char		gid[DTX_GID_SIZE];

	DTX_FAULT("resolver-finished", NULL);

	/* Gone it is, but what that means is for the witness to say. */
	if (error->sqlstate == 0 && error->warned && f->decision == DTX_COMMIT &&
		v->purpose == VISIT_RESOLVE)
	{
		f->error.sqlstate = ERRCODE_WARNING;
		f->error.message = MemoryContextStrdup(v->cxt, NOT_REPLICATED);
		(void) add_entry(v, &f->gid, f->owner, InvalidOid, f->decision,
						 NOT_REPLICATED, backoff_until(1));
		f->state = FOUND_GONE;
		v->witnessed = v->replicated = false;
		add_result(v, f);
		return;
	}

	if (error->sqlstate == 0)
	{
		f->state = FOUND_DONE;
		entry_finished(v, &f->gid);
		if (v->purpose == VISIT_RESOLVE)
			DtxStatsAdd(f->decision == DTX_COMMIT ?
						DTX_STAT_RESOLVED_COMMIT : DTX_STAT_RESOLVED_ROLLBACK, 1);
		DtxGidFormat(&f->gid, gid);
		ereport(LOG,
				(f->decision == DTX_COMMIT ?
				 errmsg("committed prepared transaction \"%s\" on server \"%s\"",
						gid, v->name) :
				 errmsg("rolled back prepared transaction \"%s\" on server \"%s\"",
						gid, v->name)));
		add_result(v, f);
		return;
	}

	f->error.sqlstate = error->sqlstate;
	f->error.message = MemoryContextStrdup(v->cxt, error->message);
	f->error.detail = error->detail ?
		MemoryContextStrdup(v->cxt, error->detail) : NULL;
	f->error.hint = error->hint ?
		MemoryContextStrdup(v->cxt, error->hint) : NULL;

	/*
	 * It was there a moment ago, so somebody else has finished it: another
	 * resolver, its own backend late, or a human.  The worker looks how, if
	 * there is a decision row, or an entry from before this visit.  If there is
	 * neither, it may have been finished, and its row deleted, between our list
	 * and our look at the decisions.
	 */
	if (error->sqlstate == ERRCODE_UNDEFINED_OBJECT &&
		v->purpose == VISIT_RESOLVE)
	{
		f->state = FOUND_GONE;
		return;
	}

	/*
	 * "Busy": the worker, most likely, is finishing it in this moment.  A backend
	 * must not enter it again, a moment after the worker has removed it.
	 */
	if (error->sqlstate == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE &&
		v->purpose == VISIT_RESOLVE && !v->resolver->worker)
	{
		f->state = FOUND_FAILED;
		leave_to_worker(v, &f->gid);
		add_result(v, f);
		return;
	}

	found_failed(v, f);
}

/* ----------------------------------------------------------------
 * A visit: the connection that is kept for the next one
 * ----------------------------------------------------------------
 */

/*
 * Nothing more is to be done on this connection.  If the server is in use, keep it,
 * go on with the visit, and return true.
 *
 * The sessions that wait for a row that an in-doubt transaction has locked may fill
 * max_connections there, or whatever limits the user's connections, and then
 * nobody could get in who could release it.  One connection per server is kept,
 * preferably that of the user who has prepared last.
 */
static bool
keep_connection(Visit *v, DtxRemote *remote)
{
	ServerState *state;

	if (!v->resolver->worker || v->purpose != VISIT_RESOLVE)
		return false;
	state = server_state(v->serverid);
	if (DtxIsDue(state->used_at + KEEP_CONNECTION) ||
		(state->kept != NULL && v->umid != state->used_umid))
		return false;
	if (visit_mode(v, remote, MODE_LOOK))
		return true;			/* and once more when that is done */
	drop_kept(state);
	if (!DtxRemotePark(remote, &kept_handler, state))
		return false;
	state->kept = remote;
	state->kept_umid = v->umid;
	visit_next(v);
	return true;
}

static void
kept_failed(DtxRemote *remote, void *arg, DtxRemoteFailure failure,
			const char *error)
{
	((ServerState *) arg)->kept = NULL;
}

static void
drop_kept(ServerState *state)
{
	if (state->kept != NULL)
		DtxRemoteClose(state->kept);
	state->kept = NULL;
}

/*
 * What a decision row, of any transaction, tells of the use of servers.  (Entries of
 * the hash table do not move, so a pointer to one may be kept until it is removed.)
 */
static void
note_use(const DtxDecisionRow *row)
{
	DtxMoment	decided_at = DtxTimestampToMoment(row->decided_at);

	for (int i = 0; i < row->nparticipants; i++)
	{
		ServerState *state = server_state(row->prepared[i].serverid);

		if (decided_at >= state->used_at)
		{
			state->used_at = decided_at;
			state->used_umid = row->prepared[i].umid;
		}
	}
}

/*
 * And those that are committing now.
 */
static void
note_users(void)
{
	DtxActivity *a = palloc(sizeof(DtxActivity));

	for (int i = 0; i < DtxActivityCount(); i++)
	{
		if (!DtxActivityGet(i, a) || a->dbid != MyDatabaseId ||
			a->state < DTX_PREPARING)
			continue;
		for (int n = 0; n < Min(a->nparticipants, DTX_SHOWN_PARTICIPANTS); n++)
		{
			if (OidIsValid(a->servers[n]))
				server_state(a->servers[n])->used_at = DtxNow();
		}
	}
	pfree(a);
}

/* ----------------------------------------------------------------
 * A visit: how others have finished what is gone
 * ----------------------------------------------------------------
 */

/*
 * Ask for the outcome of what is not prepared any more and was not finished by
 * us.  Returns false, and sends nothing, if there is nothing to ask.
 */
static bool
visit_ask_outcomes(Visit *v, DtxRemote *remote)
{
	Resolver   *r = v->resolver;
	StringInfoData sql;
	MemoryContext old;
	ListCell   *lc;
	bool		any;

	if (v->purpose != VISIT_RESOLVE || !r->worker || v->truncated ||
		v->mixed || v->version < 100000)
		return false;

	old = MemoryContextSwitchTo(v->cxt);
	v->asked = NIL;

	/*
	 * txid_status() throws if an id was not assigned yet.  Whatever was
	 * prepared and is not any more is before xmax, because it has ended; what
	 * is not, this server has never seen.
	 */
	initStringInfo(&sql);
	appendStringInfoString(&sql,
						   "SELECT u.x::pg_catalog.text, "
						   "CASE WHEN u.x OPERATOR(pg_catalog.<) "
						   "pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot()) "
						   "THEN COALESCE(pg_catalog.txid_status(u.x), 'forgotten') "
						   "ELSE 'future' END "
						   "FROM pg_catalog.unnest('{");
	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		Found	   *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);
		DtxPrepared prepared;

		entry_prepared(v, entry, f, &prepared);
		add_question(v, &sql, &entry->gid, &prepared);
	}
	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);

		if (note->serial >= v->serial)
			continue;
		for (int i = 0; i < note->row.nparticipants; i++)
		{
			DtxGid		gid;

			if (note->row.prepared[i].serverid != v->serverid || note->confirmed[i])
				continue;
			note_gid(r, note, i, &gid);
			add_question(v, &sql, &gid, &note->row.prepared[i]);
		}
	}
	appendStringInfoString(&sql, "}'::pg_catalog.int8[]) AS u(x)");

	any = v->asked != NIL;
	if (any)
	{
		v->phase = PHASE_OUTCOME;
		DtxRemoteSend(remote, sql.data);
	}
	pfree(sql.data);
	MemoryContextSwitchTo(old);
	return any;
}

/*
 * Add a gid to a question, unless it is still prepared, has been finished by
 * us, was asked for already, or is another cluster's.
 */
static void
add_question(Visit *v, StringInfo sql, const DtxGid *gid,
			 const DtxPrepared *prepared)
{
	uint64		remote_xid = prepared->remote_xid;
	DtxSame		same = same_cluster(v, prepared->system_id);
	Found	   *f = hash_search(v->found_hash, gid, HASH_FIND, NULL);
	Outcome    *outcome;
	bool		found;

	if (remote_xid == 0 || remote_xid > PG_INT64_MAX ||
		same == DTX_DIFFERENT ||
		(same == DTX_NOT_TOLD && !same_endpoint(v, prepared->endpoint)) ||
		(f != NULL && f->state != FOUND_GONE) ||
		list_length(v->asked) >= MAX_OUTCOMES)
		return;

	if (v->outcome_hash == NULL)
	{
		HASHCTL		info;

		memset(&info, 0, sizeof(info));
		info.keysize = sizeof(DtxGid);
		info.entrysize = sizeof(Outcome);
		info.hcxt = v->cxt;
		v->outcome_hash = hash_create("pg_dtx outcomes", 16, &info,
									  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	outcome = hash_search(v->outcome_hash, gid, HASH_ENTER, &found);
	if (found)
		return;
	outcome->remote_xid = remote_xid;
	outcome->status = DTX_OUTCOME_NOT_TOLD;
	appendStringInfo(sql, "%s" UINT64_FORMAT, v->asked == NIL ? "" : ",",
					 remote_xid);
	v->asked = lappend(v->asked, outcome);
}

/* One answer to it. */
static void
row_outcome(Visit *v, const PGresult *res)
{
	static const struct
	{
		const char *text;
		DtxOutcome	status;
	}			known[] = {
		{"committed", DTX_OUTCOME_COMMITTED},
		{"aborted", DTX_OUTCOME_ABORTED},
		{"in progress", DTX_OUTCOME_IN_PROGRESS},
		{"future", DTX_OUTCOME_FUTURE},
		{"forgotten", DTX_OUTCOME_TRUNCATED}
	};
	const char *xid;
	const char *status;
	ListCell   *lc;

	if (PQnfields(res) != 2)
		return;
	xid = DtxRemoteValue(res, 0, 32);
	status = DtxRemoteValue(res, 1, 32);
	if (xid == NULL || status == NULL)
		return;
	foreach(lc, v->asked)
	{
		Outcome    *outcome = (Outcome *) lfirst(lc);

		if (outcome->remote_xid != DtxNumberParse(xid, PG_INT64_MAX))
			continue;
		for (int i = 0; i < lengthof(known); i++)
		{
			if (strcmp(status, known[i].text) == 0)
				outcome->status = known[i].status;
		}
	}
}

/*
 * A gid is gone.  May it be forgotten, if need be after that was put on record?
 * Then NULL is returned, otherwise why not.
 */
static const char *
why_not_done(Visit *v, const DtxGid *gid, DtxDecision decision,
			 const DtxPrepared *prepared)
{
	Outcome    *outcome = NULL;
	DtxGoneFacts facts;
	DtxFound	found;

	if (v->outcome_hash != NULL)
		outcome = hash_search(v->outcome_hash, gid, HASH_FIND, NULL);

	memset(&facts, 0, sizeof(facts));
	facts.decided = decision != DTX_UNDECIDED;
	facts.commit = decision == DTX_COMMIT;
	facts.cluster = same_cluster(v, prepared->system_id);
	facts.same_endpoint = same_endpoint(v, prepared->endpoint);
	facts.timeline = v->mixed || prepared->timeline == 0 || v->timeline == 0 ?
		DTX_NOT_TOLD : prepared->timeline == v->timeline ? DTX_SAME : DTX_DIFFERENT;
	facts.xid_known = prepared->remote_xid != 0;
	facts.outcome = outcome != NULL ? outcome->status : DTX_OUTCOME_NOT_TOLD;

	switch (DtxMayForget(&facts))
	{
		case DTX_GONE_FORGET:
			if (decision == DTX_COMMIT && v->has_standbys && !v->replicated)
				return v->witnessed ? standby_away(v) : NOT_REPLICATED;
			return NULL;
		case DTX_GONE_ELSEWHERE:
			return LEADS_ELSEWHERE;
		case DTX_GONE_UNIDENTIFIED:
			return UNIDENTIFIED;
		case DTX_GONE_NO_OUTCOME:
			return NO_OUTCOME;
		case DTX_GONE_COMMITTED:
			found = DTX_FOUND_COMMITTED;
			break;
		case DTX_GONE_ROLLED_BACK:
			found = DTX_FOUND_ROLLED_BACK;
			break;
		case DTX_GONE_LOST:
			found = DTX_FOUND_LOST;
			break;
		default:
			found = DTX_FOUND_UNKNOWN;
			break;
	}
	return record_damage(v, gid, decision, found, prepared->remote_xid,
						 prepared->system_id) ? NULL : NOT_RECORDED;
}

/*
 * Does the server lead to the cluster where something was prepared?
 */
static DtxSame
same_cluster(const Visit *v, uint64 system_id)
{
	if (v->mixed)
		return DTX_DIFFERENT;
	if (system_id == 0 || v->system_id == 0)
		return DTX_NOT_TOLD;
	return system_id == v->system_id ? DTX_SAME : DTX_DIFFERENT;
}

/*
 * Has this visit used the options with which something was prepared?
 */
static bool
same_endpoint(const Visit *v, uint64 endpoint)
{
	for (int i = 0; i < v->nendpoints; i++)
	{
		if (endpoint != 0 && v->endpoints[i] == endpoint)
			return true;
	}
	return false;
}

/*
 * What is known of where an entry was prepared, be it from its session or from
 * what visits have seen (f: what this one has, or NULL).
 */
static void
entry_prepared(Visit *v, const DtxInDoubt *entry, const Found *f,
			   DtxPrepared *prepared)
{
	memset(prepared, 0, sizeof(DtxPrepared));
	prepared->serverid = entry->serverid;
	prepared->umid = entry->umid;
	prepared->system_id = entry->system_id;
	prepared->timeline = entry->timeline;
	prepared->endpoint = entry->endpoint;
	prepared->remote_xid = entry->remote_xid;
	if (prepared->system_id == 0)
		prepared->system_id = entry->xid_system_id;
	if (prepared->remote_xid == 0 && f != NULL)
	{
		prepared->system_id = v->system_id;
		prepared->timeline = v->timeline;
		prepared->endpoint = v->nendpoints > 0 ? v->endpoints[v->nendpoints - 1] : 0;
		prepared->remote_xid = f->remote_xid;
	}
}

/*
 * Record damage, in a transaction of the worker.  Returns false if that has to
 * wait, for a lock, or because it fails, say for lack of disk space.  Other gids
 * and servers must not wait for that.
 */
static bool
record_damage(Visit *v, const DtxGid *gid, DtxDecision decision, DtxFound found,
			  uint64 remote_xid, uint64 system_id)
{
	Resolver   *r = v->resolver;
	MemoryContext old = CurrentMemoryContext;
	volatile bool recorded = false;

	Assert(r->worker);
	PG_TRY();
	{
		xact_begin(r);
		MemoryContextSwitchTo(CurTransactionContext);
		if (DtxExtensionInstalled() && DtxCoordinatorId() == v->coordinator_id)
			recorded = DtxDamageRecord(gid, v->name, decision, found,
									   remote_xid, system_id);
		MemoryContextSwitchTo(old);
		xact_end(r);
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		EmitErrorReport();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		MemoryContextSwitchTo(old);
		recorded = false;
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();
	if (recorded && decision == DTX_COMMIT)
		DtxInDoubtContradicted();
	return recorded;
}

/* ----------------------------------------------------------------
 * A visit: the end
 * ----------------------------------------------------------------
 */

/*
 * A gid could not be finished: enter it, tell why, try again later.
 */
static void
found_failed(Visit *v, Found *f)
{
	f->state = FOUND_FAILED;

	if (v->purpose == VISIT_RESOLVE)
	{
		DtxInDoubt	entry;
		int			attempts = 0;
		bool		ours;
		bool		known;

		ours = add_entry(v, &f->gid, f->owner, InvalidOid, f->decision, "", 0);
		known = DtxInDoubtGet(&f->gid, &entry);
		if (known)
			attempts = entry.attempts;

		/* The entry of another server's gid tells what is wrong there. */
		if (ours)
			DtxInDoubtFailed(&f->gid, f->error.message, f->error_umid,
							 backoff_until(attempts + 1));
		if (attempts == 0 &&
			(ours || (!known && f->decision != DTX_UNDECIDED)))
		{
			char		gid[DTX_GID_SIZE];

			DtxGidFormat(&f->gid, gid);
			ereport(LOG,
					(f->decision == DTX_UNDECIDED ?
					 errmsg("prepared transaction \"%s\" on server \"%s\" is left alone: %s",
							gid, v->name, f->error.message) :
					 f->decision == DTX_COMMIT ?
					 errmsg("could not commit prepared transaction \"%s\" on server \"%s\": %s",
							gid, v->name, f->error.message) :
					 errmsg("could not roll back prepared transaction \"%s\" on server \"%s\": %s",
							gid, v->name, f->error.message)));
		}
	}
	add_result(v, f);
}

/*
 * Enter a gid that a visit has found into the in-doubt table.  No server may
 * fill it alone.  Returns false if there is no entry of this server.
 */
static bool
add_entry(Visit *v, const DtxGid *gid, const char *owner, Oid umid,
		  DtxDecision decision, const char *error, DtxMoment next_attempt)
{
	DtxInDoubt	entry;
	Found	   *f;

	f = hash_search(v->found_hash, gid, HASH_FIND, NULL);

	/*
	 * Is it the business of another server of the same cluster?  If a session
	 * or a decision row says so, or if it is not in our database; otherwise
	 * that other one has merely seen it first.
	 */
	if (DtxInDoubtGet(gid, &entry) && entry.serverid != v->serverid &&
		server_exists(v->resolver, entry.serverid) &&
		(entry.system_id != 0 || f == NULL || f->database == NULL ||
		 strcmp(f->database, v->database) != 0))
		return false;

	if (visit_entry(v, gid) == NULL &&
		list_length(v->entries) + ++v->nadded > Max(16, dtx_max_in_doubt / 4))
		return false;

	memset(&entry, 0, sizeof(entry));
	entry.gid = *gid;
	entry.serverid = v->serverid;
	entry.umid = umid;
	if (owner != NULL)
		strlcpy(entry.remote_user, owner, sizeof(entry.remote_user));
	entry.decision = decision;
	if (f != NULL && f->remote_xid != 0 && !v->mixed)
	{
		entry.remote_xid = f->remote_xid;
		entry.xid_system_id = v->system_id;
		entry.timeline = v->timeline;
		entry.endpoint = v->nendpoints > 0 ? v->endpoints[v->nendpoints - 1] : 0;
	}
	entry.since = GetCurrentTimestamp();
	entry.next_attempt = next_attempt;
	strlcpy(entry.last_error, error, sizeof(entry.last_error));
	return DtxInDoubtSeen(&entry, v->system_id);
}

/*
 * Remember a result for the caller of DtxResolveNow(); f is NULL if the server
 * was not reached.
 */
static void
add_result(Visit *v, Found *f)
{
	Resolver   *r = v->resolver;
	MemoryContext old;
	DtxResolved *result;

	if (r->worker || v->purpose != VISIT_RESOLVE)
		return;

	old = MemoryContextSwitchTo(r->result_cxt);
	result = palloc0(sizeof(DtxResolved));
	result->serverid = v->serverid;
	result->server = pstrdup(v->name);
	if (f != NULL)
	{
		result->gid = palloc(DTX_GID_SIZE);
		DtxGidFormat(&f->gid, result->gid);
		result->decision = f->decision;
		result->done = f->state == FOUND_DONE;
		if (f->error.message != NULL)
			result->error = pstrdup(f->error.message);
	}
	else
		result->error = pstrdup(v->error);
	r->results = lappend(r->results, result);
	MemoryContextSwitchTo(old);
}

/*
 * Was a PREPARE of this gid seen running?  By any connection of the visit: the
 * next one may be that of a user who does not see it.
 */
static bool
is_in_flight(Visit *v, const DtxGid *gid)
{
	ListCell   *lc;

	foreach(lc, v->seen_in_flight)
	{
		if (memcmp(&((InFlight *) lfirst(lc))->gid, gid, sizeof(DtxGid)) == 0)
			return true;
	}
	return false;
}

/*
 * Is a gid that could not be finished the business of another foreign server, because
 * it was prepared in a database to which this one does not lead, and that one does?
 * That one tells, if it can't be finished there either.
 */
static bool
is_business_of_other(Visit *v, Found *f)
{
	Resolver   *r = v->resolver;
	MemoryContext old;
	DtxInDoubt	entry;
	bool		found = false;
	ListCell   *lc;

	if (f->database == NULL || v->database == NULL ||
		strcmp(f->database, v->database) == 0)
		return false;
	if (DtxInDoubtGet(&f->gid, &entry) && entry.serverid != v->serverid &&
		server_exists(r, entry.serverid))
		return true;

	/* Most of what is listed is in the same one. */
	if (v->other_database != NULL && strcmp(v->other_database, f->database) == 0)
		return v->other_leads_there;

	xact_begin(r);
	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, DtxPostgresFdwServers())
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);
		ListCell   *lc2;

		if (server->serverid == v->serverid)
			continue;
		foreach(lc2, server->options)
		{
			DefElem    *def = (DefElem *) lfirst(lc2);

			if (strcmp(def->defname, "dbname") == 0 &&
				strcmp(defGetString(def), f->database) == 0)
				found = true;
		}
	}
	MemoryContextSwitchTo(old);
	xact_end(r);
	v->other_database = f->database;
	v->other_leads_there = found;
	return found;
}

/* Why no connection of the visit could finish it. */
static char *
unfinished_reason(Visit *v, Found *f)
{
	StringInfoData text;

	initStringInfo(&text);
	if (f->database != NULL && v->database != NULL &&
		strcmp(f->database, v->database) != 0)
		appendStringInfo(&text, "it was prepared in database \"%s\", and this server leads to database \"%s\"",
						 f->database, v->database);
	else if (f->owner == NULL)
		appendStringInfoString(&text, "its owner was dropped, and no user mapping leads to a superuser");
	else
		appendStringInfo(&text, "no user mapping leads to its owner \"%s\" in database \"%s\"",
						 f->owner, f->database ? f->database : "?");
	if (v->refusal != NULL)
	{
		appendStringInfo(&text, "; one was refused: %s", v->refusal);
		f->error_umid = v->refusal_umid;
	}
	return text.data;
}

/*
 * The server has been reached and nothing more can be done there now.
 */
static void
visit_done(Visit *v)
{
	MemoryContext old;
	ListCell   *lc;

	/* What no user could finish. */
	foreach(lc, v->found)
	{
		Found	   *f = (Found *) lfirst(lc);

		if (f->state != FOUND_DECIDED)
			continue;

		/* pg_prepared_xacts shows those of the whole cluster. */
		if (is_business_of_other(v, f))
		{
			f->state = FOUND_LEFT;
			continue;
		}
		f->error.sqlstate = ERRCODE_INSUFFICIENT_PRIVILEGE;
		old = MemoryContextSwitchTo(v->cxt);
		f->error.message = unfinished_reason(v, f);
		MemoryContextSwitchTo(old);
		found_failed(v, f);
	}

	if (v->purpose == VISIT_RESOLVE)
	{
		settle_entries(v);
		set_status(v, true);

		if (v->resolver->worker)
		{
			ServerState *state = server_state(v->serverid);

			settle_notes(v);
			if (state->backoff.failures > 0)
				ereport(LOG,
						(errmsg("server \"%s\" can be reached again, after %d failed attempts",
								v->name, state->backoff.failures)));
			DtxBackoffReset(&state->backoff);
			state->hurry_after = DtxIn(v->entries != NIL ? REVISIT_PAUSE : 0);
			state->good_umid = v->good_umid;
		}
	}
	visit_end(v);
}

/*
 * The server could not be reached, or answered nonsense.  v->error tells.
 */
static void
visit_failed_for_good(Visit *v)
{
	if (v->purpose == VISIT_RESOLVE)
	{
		ListCell   *lc;

		foreach(lc, v->entries)
		{
			DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
			Found	   *f = hash_search(v->found_hash, &entry->gid, HASH_FIND,
										NULL);

			if (f != NULL && (f->state == FOUND_DONE ||
							  f->state == FOUND_FAILED))
				continue;
			DtxInDoubtFailed(&entry->gid, v->error, v->error_umid,
							 backoff_until(entry->attempts + 1));
		}
		set_status(v, false);

		if (v->resolver->worker)
		{
			ServerState *state = server_state(v->serverid);

			if (state->backoff.failures == 0)
				ereport(LOG,
						(errmsg("could not resolve prepared transactions on server \"%s\": %s",
								v->name, v->error)));
			DtxBackoffFailed(&state->backoff, MIN_BACKOFF, max_backoff());
			state->hurry_after = DtxIn(MIN_BACKOFF);

			foreach(lc, v->resolver->notes)
			{
				Note	   *note = (Note *) lfirst(lc);

				for (int i = 0; i < note->row.nparticipants; i++)
				{
					if (note->row.prepared[i].serverid == v->serverid)
						note_unconfirmed(v->resolver, note, i, v->error,
										 v->error_umid);
				}
			}
		}
		add_result(v, NULL);
	}
	visit_end(v);
}

/*
 * Not to be freed yet: callbacks on the stack, and callers of run_to_end(),
 * still look at it.
 */
static void
visit_end(Visit *v)
{
	Resolver   *r = v->resolver;

	if (r->worker && v->purpose == VISIT_RESOLVE)
		server_state(v->serverid)->visit = NULL;
	v->next_ended = r->ended;
	r->ended = v;
	r->nvisits--;
	if (v->in_pass)
		r->nin_pass--;
	if (v->ordinary)
		r->nordinary--;
	if (v->failing)
		r->nfailing--;
	r->may_start = true;
	r->look = true;
	r->report_activity = true;
}

static void
free_ended(Resolver *r)
{
	while (r->ended != NULL)
	{
		Visit	   *v = r->ended;

		r->ended = v->next_ended;
		MemoryContextDelete(v->cxt);
	}
}

/*
 * What has become of the entries that were in the in-doubt table when this
 * visit began?  Those not seen any more go.
 */
static void
settle_entries(Visit *v)
{
	ListCell   *lc;

	foreach(lc, v->entries)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		Found	   *f = hash_search(v->found_hash, &entry->gid, HASH_FIND, NULL);

		if (f != NULL)
		{
			/* It was prepared and is not any more, so it can't come back. */
			if (f->state == FOUND_GONE && !v->truncated)
				settle_gone(v, entry, f);

			/* FOUND_LEFT stays as it is; the others have been dealt with. */
			continue;
		}

		/* Not seen because we have not seen everything. */
		if (v->truncated)
			continue;

		if (is_in_flight(v, &entry->gid))
		{
			DtxInDoubtFailed(&entry->gid,
							 "its PREPARE TRANSACTION is still running on the server",
							 InvalidOid,
							 backoff_until(entry->attempts + 1));
			continue;
		}

		if (entry->decision == DTX_ROLLBACK &&
			v->began_at < entry->entered + LATE_PREPARE_GRACE)
			continue;

		settle_gone(v, entry, NULL);
	}
}

/*
 * The gid of an entry is not prepared any more, and we have not finished it
 * (f: what was seen of it, or NULL).  Forget it, unless it is not known yet
 * whether it was finished as it was decided.
 */
static void
settle_gone(Visit *v, DtxInDoubt *entry, Found *f)
{
	DtxPrepared prepared;
	const char *why;

	entry_prepared(v, entry, f, &prepared);
	why = why_not_done(v, &entry->gid, entry->decision, &prepared);
	if (why == NULL)
		DtxInDoubtRemove(&entry->gid);
	else if (v->resolver->worker)
		DtxInDoubtFailed(&entry->gid, why, InvalidOid,
						 backoff_until(entry->attempts + 1));
	else
		leave_to_worker(v, &entry->gid);
}

/*
 * In a backend: what the worker can find out about a gid, or is just finding out, is
 * not for us to tell.  It is to do so now.
 */
static void
leave_to_worker(Visit *v, const DtxGid *gid)
{
	MemoryContext old = MemoryContextSwitchTo(v->resolver->cxt);
	DtxInDoubt *entry = palloc(sizeof(DtxInDoubt));

	if (DtxInDoubtGet(gid, entry))
		v->resolver->left = lappend(v->resolver->left, entry);
	MemoryContextSwitchTo(old);
	DtxInDoubtHurry(gid);
	DtxLauncherWakeResolver(MyDatabaseId);
}

/*
 * Which participants of decision rows does this visit confirm?
 */
static void
settle_notes(Visit *v)
{
	Resolver   *r = v->resolver;
	ListCell   *lc;

	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);

		/* Only if the visit began after the row was read. */
		if (note->serial >= v->serial)
			continue;

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			DtxGid		gid;
			Found	   *f;
			bool		confirmed;

			if (note->confirmed[i])
				continue;
			note_gid(r, note, i, &gid);
			f = hash_search(v->found_hash, &gid, HASH_FIND, NULL);

			/*
			 * Only the server that was asked to prepare it can confirm it, or
			 * if that was dropped, another name of the same cluster.  The
			 * gid alone proves nothing: whoever can prepare transactions on
			 * any server may have used it.
			 */
			if (f != NULL && f->state == FOUND_DONE &&
				note->row.prepared[i].serverid != v->serverid)
				confirmed = same_cluster(v, note->row.prepared[i].system_id) == DTX_SAME &&
					!server_state(note->row.prepared[i].serverid)->exists;
			else if (note->row.prepared[i].serverid != v->serverid)
				confirmed = false;
			else if (f != NULL && f->state == FOUND_DONE)
				confirmed = same_cluster(v, note->row.prepared[i].system_id) != DTX_DIFFERENT;
			else
			{
				confirmed = !v->truncated &&
					(f == NULL || f->state == FOUND_GONE);
				if (confirmed)
				{
					const char *why = why_not_done(v, &gid, DTX_COMMIT,
												   &note->row.prepared[i]);

					if (why != NULL)
					{
						note_unconfirmed(r, note, i, why, InvalidOid);
						confirmed = false;
					}
				}
			}

			if (confirmed)
			{
				note->confirmed[i] = true;
				note->nconfirmed++;
			}
		}
		if (note->nconfirmed >= note->row.nparticipants)
			r->prunable = true;
	}
}

static void
set_status(Visit *v, bool reachable)
{
	DtxServerStatus status;

	memset(&status, 0, sizeof(status));
	if (!DtxServerStatusGet(MyDatabaseId, v->serverid, &status))
	{
		status.dbid = MyDatabaseId;
		status.serverid = v->serverid;
		status.slots_used = -1;
		status.slots_total = -1;
	}
	status.reachable = reachable;
	status.checked_at = GetCurrentTimestamp();
	if (v->version != 0)
		status.version = v->version;
	if (reachable)
	{
		status.failures = 0;
		status.last_error[0] = '\0';
		status.error_umid = InvalidOid;
	}
	else
	{
		status.failures++;
		strlcpy(status.last_error, v->error, sizeof(status.last_error));
		status.error_umid = v->error_umid;
	}
	if (v->slots_total >= 0)
	{
		status.slots_used = v->slots_used;
		status.slots_total = v->slots_total;
	}
	DtxServerStatusSet(&status);
}

/* ----------------------------------------------------------------
 * For administrative functions, in a backend's transaction
 * ----------------------------------------------------------------
 */

/*
 * Wait until not more than so many visits are left.  Interruptible.
 */
static void
run_to(Resolver *r, int left)
{
	while (r->nvisits > left)
	{
		if (DtxRemoteWait(r->set, -1, wait_event_remote))
			ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

static void
run_to_end(Resolver *r)
{
	run_to(r, 0);
	Assert(DtxRemoteCount(r->set) == 0);
}

/*
 * Has somebody a route to this server, or is something in doubt there?
 */
static bool
is_business_there(Oid serverid, List *routes, List *entries)
{
	ListCell   *lc;

	foreach(lc, routes)
	{
		if (((DtxRoute *) lfirst(lc))->serverid == serverid)
			return true;
	}
	foreach(lc, entries)
	{
		if (((DtxInDoubt *) lfirst(lc))->serverid == serverid)
			return true;
	}
	return false;
}

/*
 * Wait until the worker has found out what it can about that which was left to it,
 * for a moment at most: who calls dtx.resolve_in_doubt() looks at dtx.in_doubt next.
 * Interruptible.
 */
static void
wait_for_worker(Resolver *r)
{
	DtxMoment	deadline = DtxIn(WORKER_PATIENCE);
	ListCell   *lc;

	foreach(lc, r->left)
	{
		DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);
		DtxInDoubt	now;

		while (DtxInDoubtGet(&entry->gid, &now) &&
			   now.attempts == entry->attempts &&
			   !DtxIsDue(deadline))
		{
			(void) WaitLatch(MyLatch,
							 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 WORKER_POLL_MS, wait_event_remote);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
		}
	}
}

/*
 * See resolver.h.
 */
List *
DtxResolveNow(void)
{
	MemoryContext caller = CurrentMemoryContext;
	Resolver   *r;
	List	   *volatile results = NIL;

	if (!dtx_resolver)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("resolution is disabled by \"%s\"", "pg_dtx.resolver"),
				 errhint("Set it to on and reload the configuration.")));

	r = resolver_create(caller, false);
	r->result_cxt = caller;
	PG_TRY();
	{
		List	   *entries;
		List	   *routes;
		List	   *servers = NIL;
		ListCell   *lc;
		int			next = 0;

		MemoryContextSwitchTo(r->cxt);
		if (!resolver_refresh(r))
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("extension \"%s\" is not installed in this database",
							"pg_dtx")));
		entries = DtxInDoubtList(MyDatabaseId);
		routes = DtxRouteList();
		foreach(lc, DtxPostgresFdwServers())
		{
			ForeignServer *server = (ForeignServer *) lfirst(lc);

			if (is_business_there(server->serverid, routes, entries))
				servers = lappend(servers, server);
		}
		while (next < list_length(servers))
		{
			ForeignServer *server = (ForeignServer *) list_nth(servers, next++);
			DtxServerStatus status;
			Visit	   *v;

			v = visit_create(r, VISIT_RESOLVE, server->serverid,
							 server->servername);
			visit_set_entries(v, entries);
			visit_set_routes(v, routes);
			if (DtxServerStatusGet(MyDatabaseId, server->serverid, &status))
				v->failures = status.failures;
			visit_next(v);
			run_to(r, MAX_VISITS - 1);
			free_ended(r);
		}
		run_to(r, 0);
		wait_for_worker(r);
		results = r->results;
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();

	return results;
}

/*
 * See resolver.h.
 */
void
DtxFinishGid(Oid serverid, Oid umid, const char *gid, DtxDecision decision,
			 uint64 system_id)
{
	MemoryContext caller = CurrentMemoryContext;
	Resolver   *r;
	DtxGid		parsed;

	if (!DtxGidParse(gid, &parsed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid)));

	r = resolver_create(caller, false);
	PG_TRY();
	{
		ForeignServer *server = GetForeignServer(serverid);
		Visit	   *v;
		Found	   *f;

		MemoryContextSwitchTo(r->cxt);
		(void) resolver_refresh(r);
		v = visit_create(r, VISIT_FORCE, serverid, server->servername);
		v->has_only = true;
		v->only = parsed;
		v->forced = decision;
		v->forced_system_id = system_id;
		v->fixed_umid = umid;
		visit_set_entries(v, DtxInDoubtList(MyDatabaseId));
		visit_set_routes(v, DtxRouteList());
		visit_next(v);
		run_to_end(r);

		f = hash_search(v->found_hash, &parsed, HASH_FIND, NULL);
		if (f == NULL && v->error != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
					 errmsg("could not connect to server \"%s\"",
							server->servername),
					 errdetail_internal("%s", v->error)));
		if (leads_elsewhere(v, system_id))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("server \"%s\" can't tell about prepared transaction \"%s\"",
							server->servername, gid),
					 errdetail_internal("%s.", LEADS_ELSEWHERE)));
		if (f == NULL || f->state == FOUND_GONE)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_OBJECT),
					 errmsg("prepared transaction \"%s\" does not exist on server \"%s\"",
							gid, server->servername)));
		if (f->state != FOUND_DONE)
			ereport(ERROR,
					(errcode(f->error.sqlstate ? f->error.sqlstate :
							 ERRCODE_CONNECTION_FAILURE),
					 errmsg("could not finish prepared transaction \"%s\" on server \"%s\": %s",
							gid, server->servername,
							f->error.message ? f->error.message :
							v->error ? v->error : "unknown error"),
					 f->error.detail ?
					 errdetail_internal("%s", f->error.detail) : 0,
					 f->error.hint ?
					 errhint("%s", f->error.hint) : 0));
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();
}

/*
 * Is the cluster that the visit saw another one than this?  What it does not
 * have says nothing then: a server whose options or address have changed must
 * not confirm what the one before has prepared.
 */
static bool
leads_elsewhere(const Visit *v, uint64 system_id)
{
	return system_id != 0 && (v->mixed || v->system_id != system_id);
}

/*
 * Does this foreign server exist?  The worker, which is not in a transaction,
 * knows from its last look.
 */
static bool
server_exists(Resolver *r, Oid serverid)
{
	if (r->worker)
		return server_state(serverid)->exists;
	return GetForeignServerExtended(serverid, FSV_MISSING_OK) != NULL;
}

/*
 * We have finished a gid: forget its entry, if it was this server's, or that of
 * a server that was dropped and led to the same cluster.
 */
static void
entry_finished(Visit *v, const DtxGid *gid)
{
	DtxInDoubt	entry;
	bool		same;

	if (!DtxInDoubtGet(gid, &entry) || leads_elsewhere(v, entry.system_id))
		return;
	same = entry.serverid == v->serverid;
	if (!same && entry.system_id != 0)
		same = !server_exists(v->resolver, entry.serverid);
	if (same)
		DtxInDoubtRemove(gid);
}

/*
 * Did the visit find something in the database that the server leads to?
 * pg_prepared_xacts shows those of the whole cluster.
 */
static bool
found_here(Visit *v)
{
	ListCell   *lc;

	foreach(lc, v->found)
	{
		Found	   *f = (Found *) lfirst(lc);

		if (f->database != NULL && v->database != NULL &&
			strcmp(f->database, v->database) == 0)
			return true;
	}
	return false;
}

/*
 * See resolver.h.  Servers that can't be asked are reported with a WARNING.
 */
List *
DtxFindGid(const char *gid)
{
	MemoryContext caller = CurrentMemoryContext;
	Resolver   *r;
	DtxGid		parsed;
	List	   *volatile result = NIL;

	if (!DtxGidParse(gid, &parsed))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid)));

	r = resolver_create(caller, false);
	PG_TRY();
	{
		List	   *routes;
		ListCell   *lc;

		MemoryContextSwitchTo(r->cxt);
		routes = DtxRouteList();
		foreach(lc, DtxPostgresFdwServers())
		{
			ForeignServer *server = (ForeignServer *) lfirst(lc);
			Visit	   *v;

			if (!is_business_there(server->serverid, routes, NIL))
				continue;
			v = visit_create(r, VISIT_LOOK, server->serverid,
							 server->servername);
			v->has_only = true;
			v->only = parsed;
			visit_set_routes(v, routes);
			visit_next(v);
		}
		run_to_end(r);

		MemoryContextSwitchTo(caller);
		for (Visit *v = r->ended; v != NULL; v = v->next_ended)
		{
			if (found_here(v))
				result = lappend_oid(result, v->serverid);
			else if (v->error != NULL)
				ereport(WARNING,
						(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
						 errmsg("could not look for the prepared transaction on server \"%s\"",
								v->name),
						 errdetail_internal("%s", v->error)));
		}
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();

	return result;
}

/*
 * See resolver.h.  The texts in *probe are in the current memory context.
 */
void
DtxProbeServer(Oid serverid, Oid userid, DtxProbe *probe)
{
	MemoryContext caller = CurrentMemoryContext;
	Resolver   *r;

	memset(probe, 0, sizeof(DtxProbe));
	probe->slots_used = -1;
	probe->slots_total = -1;

	r = resolver_create(caller, false);
	PG_TRY();
	{
		ForeignServer *server = GetForeignServer(serverid);
		HeapTuple	tuple;
		Visit	   *v;
		const char *error = NULL;
		const char *unusable = NULL;

		MemoryContextSwitchTo(r->cxt);
		v = visit_create(r, VISIT_LOOK, serverid, server->servername);

		/* A gid that nobody has: there is nothing to list. */
		v->has_only = true;
		v->on_behalf_of = userid;
		v->probe = probe;

		/* As GetUserMapping() chooses, but without throwing. */
		tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
								ObjectIdGetDatum(userid),
								ObjectIdGetDatum(serverid));
		if (!HeapTupleIsValid(tuple))
			tuple = SearchSysCache2(USERMAPPINGUSERSERVER,
									ObjectIdGetDatum(InvalidOid),
									ObjectIdGetDatum(serverid));
		if (HeapTupleIsValid(tuple))
		{
			v->fixed_umid = ((Form_pg_user_mapping) GETSTRUCT(tuple))->oid;
			ReleaseSysCache(tuple);

			/* A resolver is not here on anybody's behalf. */
			unusable = DtxTargetMake(serverid, v->fixed_umid, 0,
									 InvalidOid)->error;
			visit_next(v);
			run_to_end(r);
			error = v->error;
		}
		else
			error = "no user mapping for this user";

		MemoryContextSwitchTo(caller);
		probe->reachable = v->listed;
		probe->resolver_error = unusable ? pstrdup(unusable) : NULL;
		if (v->listed)
		{
			probe->remote_user = pstrdup(v->remote_user);
			probe->database = pstrdup(v->database);
			probe->version = v->version;
			probe->slots_used = v->slots_used;
			probe->slots_total = v->slots_total;
			probe->pooled = v->pooled;
			probe->system_id = v->system_id;
			probe->timeline = v->timeline;
		}
		else
			probe->error = pstrdup(error ? error : "unknown error");
	}
	PG_FINALLY();
	{
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(r->cxt);
	}
	PG_END_TRY();
}

/* ----------------------------------------------------------------
 * The background worker
 * ----------------------------------------------------------------
 */

/* What the worker knows of a server; made if need be. */
static ServerState *
server_state(Oid serverid)
{
	ServerState *state;
	bool		found;

	state = hash_search(server_states, &serverid, HASH_ENTER, &found);
	if (!found)
	{
		memset(state, 0, sizeof(ServerState));
		state->serverid = serverid;
	}
	return state;
}

/*
 * When is the next full pass due?
 */
static DtxMoment
next_pass(Resolver *r)
{
	int			ms = dtx_resolve_interval;

	if (r->pass_asked)
		ms = Min(ms, ASKED_PASS_PAUSE);
	return r->pass_began + ms;
}

/*
 * Look what is to be done now and begin it.  Returns how long to wait for
 * something to happen, in milliseconds (-1: no limit).  Sets *leave if the
 * extension is not installed any more.
 */
static long
worker_step(Resolver *r, bool *leave)
{
	DtxMoment	now = DtxNow();
	MemoryContext old;
	List	   *due = NIL;
	bool		need_pass;
	bool		strange = false;
	long		timeout;
	ListCell   *lc;

	free_ended(r);
	MemoryContextReset(r->step_cxt);
	old = MemoryContextSwitchTo(r->step_cxt);

	need_pass = now >= next_pass(r);

	if (need_pass || must_look(r, now))
		due = worker_look(r, now, &strange);

	if (need_pass || due != NIL || strange)
	{
		xact_begin(r);
		if (!resolver_refresh(r))
		{
			*leave = true;
			xact_end(r);

			/* Nobody can finish what was entered while it was dropped. */
			foreach(lc, DtxInDoubtList(MyDatabaseId))
				DtxInDoubtRemove(&((DtxInDoubt *) lfirst(lc))->gid);
			MemoryContextSwitchTo(old);
			return 0;
		}
		foreach(lc, strange ? DtxInDoubtList(MyDatabaseId) : NIL)
		{
			DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc);

			/* They are older than what we have just learned. */
			if (entry->gid.coordinator_id != r->coordinator_id)
				DtxInDoubtRemove(&entry->gid);
			r->look = true;
		}
		load_routes(r);
		if (need_pass)
			worker_begin_pass(r);
		foreach(lc, due)
		{
			Oid			serverid = lfirst_oid(lc);
			ServerState *state = server_state(serverid);
			char	   *name = server_name_if_usable(serverid);

			if (name == NULL)
			{
				char	   *error = psprintf("foreign server with OID %u was dropped",
											 serverid);
				ListCell   *lc2;

				foreach(lc2, DtxInDoubtListServer(MyDatabaseId, serverid))
				{
					DtxInDoubt *entry = (DtxInDoubt *) lfirst(lc2);

					if (DtxIsDue(entry->next_attempt))
						DtxInDoubtFailed(&entry->gid, error, InvalidOid,
										 backoff_until(entry->attempts + 1));
				}
				r->look = true;
				continue;
			}
			strlcpy(state->name, name, NAMEDATALEN);
			enqueue(r, state, QUEUED_URGENT, false);
		}
		xact_end(r);
	}

	if (r->may_start)
		worker_start_visits(r);

	if (r->prunable)
		worker_prune(r);

	if (r->pass_open && r->nin_pass == 0)
	{
		r->pass_open = false;
		DtxStatsAdd(DTX_STAT_PASSES, 1);
		(void) pgstat_report_stat(false);
	}
	if (r->report_activity)
		worker_report_activity(r);

	MemoryContextReset(r->step_cxt);
	timeout = worker_timeout(r);
	MemoryContextSwitchTo(old);
	return timeout;
}

/*
 * Can something be due that was not at the last look?  The table is not looked
 * through for each message from a server: backends that commit need its lock.
 */
static bool
must_look(Resolver *r, DtxMoment now)
{
	return (r->look || r->next_due <= now ||
			r->seen_changes != DtxInDoubtChanges()) &&
		now >= r->looked_at + LOOK_PAUSE;
}

/*
 * Which servers have something in doubt that is due, and are neither visited nor about
 * to be?  A list of Oids.  Sets *strange if there are entries of an extension that
 * was dropped since, or created since.
 */
static List *
worker_look(Resolver *r, DtxMoment now, bool *strange)
{
	List	   *due = NIL;
	HASH_SEQ_STATUS seq;
	ServerState *state;
	DtxInDoubtDue *entries;
	int			n;

	/* In this order, or a change could be missed. */
	r->seen_changes = DtxInDoubtChanges();
	entries = DtxInDoubtLook(MyDatabaseId, &n);
	r->looked_at = now;
	r->look = entries == NULL;
	r->next_due = DTX_NEVER;
	if (entries == NULL)
		return NIL;

	hash_seq_init(&seq, server_states);
	while ((state = hash_seq_search(&seq)) != NULL)
		state->in_doubt = false;

	for (int i = 0; i < n; i++)
	{
		DtxMoment	at;

		if (entries[i].coordinator_id != r->coordinator_id)
		{
			*strange = true;
			continue;
		}
		state = server_state(entries[i].serverid);
		state->used_at = now;

		/* The end of a visit lets us look again. */
		if (state->visit != NULL || state->queued == QUEUED_URGENT)
			state->in_doubt = true;
		else if (entries[i].next_attempt > now || state->hurry_after > now)
		{
			state->in_doubt = true;
			at = Max(entries[i].next_attempt, state->hurry_after);
			r->next_due = Min(r->next_due, at);
		}
		else
		{
			due = list_append_unique_oid(due, entries[i].serverid);
			state->in_doubt = true;
		}
	}
	return due;
}

/*
 * How long until something becomes due?
 */
static long
worker_timeout(Resolver *r)
{
	DtxMoment	next = Min(next_pass(r), r->next_due);

	if (r->look || r->seen_changes != DtxInDoubtChanges())
		next = Min(next, r->looked_at + LOOK_PAUSE);

	/* A visit that is over, or a row to delete, waits for the next step. */
	if (r->ended != NULL || r->prunable)
		return 0;
	return DtxUntil(next);
}

/* Read the routes.  In a transaction. */
static void
load_routes(Resolver *r)
{
	MemoryContext old;

	MemoryContextReset(r->routes_cxt);
	r->routes = NIL;
	old = MemoryContextSwitchTo(r->routes_cxt);
	r->routes = DtxRouteList();
	MemoryContextSwitchTo(old);
}

/*
 * Begin a full pass: queue the servers that are to be visited in it.  In a
 * transaction.
 */
static void
worker_begin_pass(Resolver *r)
{
	DtxMoment	now = DtxNow();
	HASH_SEQ_STATUS seq;
	ServerState *state;
	List	   *servers = DtxPostgresFdwServers();
	ListCell   *lc;
	bool		again = false;
	bool		quiet = true;

	hash_seq_init(&seq, server_states);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		state->exists = state->routed = false;
		quiet &= !state->in_doubt;
	}
	foreach(lc, servers)
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);

		state = server_state(server->serverid);
		state->exists = true;
		strlcpy(state->name, server->servername, NAMEDATALEN);
	}

	worker_take_notes(r);
	note_users();
	DtxBootProve();
	r->overflowed = r->seen_overflows != DtxInDoubtOverflows();
	r->seen_overflows = DtxInDoubtOverflows();

	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			if (!note->confirmed[i])
				server_state(note->row.prepared[i].serverid)->in_doubt = true;
		}
	}
	foreach(lc, r->routes)
		server_state(((DtxRoute *) lfirst(lc))->serverid)->routed = true;

	foreach(lc, servers)
	{
		bool		in_pass;

		state = server_state(((ForeignServer *) lfirst(lc))->serverid);
		if (!state->routed && !state->in_doubt)
			continue;

		/* What a running visit sees is older than what this pass is to know. */
		if (state->visit != NULL)
			again |= r->pass_asked;
		else if (is_wanted(r, state, now, &in_pass))
			enqueue(r, state, state->in_doubt ? QUEUED_URGENT : QUEUED_ORDINARY,
					in_pass);
	}

	hash_seq_init(&seq, server_states);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (!state->exists ||
			now > state->used_at + KEEP_CONNECTION)
			drop_kept(state);
		if (!state->exists && state->visit == NULL && state->queued == QUEUED_NOT)
		{
			DtxServerStatusForget(MyDatabaseId, state->serverid);
			(void) hash_search(server_states, &state->serverid, HASH_REMOVE,
							   NULL);
		}
	}

	if (r->pass_began != 0 && quiet && r->notes == NIL &&
		now > r->swept_at + SWEEP_PASSES * (int64) dtx_resolve_interval)
	{
		DtxRouteTidy();
		r->swept_at = now;
	}

	r->pass_began = now;
	r->pass_asked = again;
	r->pass_open = true;
}

/*
 * Is a server to be visited in this pass?  *in_pass: is the pass complete only with
 * it?
 */
static bool
is_wanted(Resolver *r, const ServerState *state, DtxMoment now, bool *in_pass)
{
	int64		pause = (state->backoff.failures > 0 ? RETRY_PASSES : SWEEP_PASSES) *
		(int64) dtx_resolve_interval;

	/* A crash may have left something anywhere, and so may those without an entry. */
	*in_pass = r->pass_asked || r->overflowed || state->visited_at == 0 ||
		state->in_doubt || now <= state->used_at + KEEP_CONNECTION;
	if (!r->pass_asked && state->backoff.next > now)
		return false;
	return *in_pass || now >= state->visited_at + pause;
}

/* ----------------------------------------------------------------
 * The background worker: beginning visits
 * ----------------------------------------------------------------
 */

/*
 * Let a server be visited as soon as there is room, unless it is being visited.
 */
static void
enqueue(Resolver *r, ServerState *state, Queued how, bool in_pass)
{
	MemoryContext old;

	if (state->visit != NULL)
		return;
	if (in_pass && !state->in_pass)
	{
		state->in_pass = true;
		r->nin_pass++;
	}
	if (state->queued >= how)
		return;
	state->queued = how;
	old = MemoryContextSwitchTo(r->cxt);
	if (how == QUEUED_URGENT)
		r->urgent = lappend_oid(r->urgent, state->serverid);
	else
		r->ordinary = lappend_oid(r->ordinary, state->serverid);
	MemoryContextSwitchTo(old);
	r->may_start = true;
}

static void
worker_start_visits(Resolver *r)
{
	r->may_start = false;
	r->urgent = start_some(r, r->urgent, QUEUED_URGENT);
	r->ordinary = start_some(r, r->ordinary, QUEUED_ORDINARY);
}

/*
 * Begin the visits of those servers in a queue for which there is room.  Returns what
 * is left of it.
 */
static List *
start_some(Resolver *r, List *queue, Queued how)
{
	ListCell   *lc;

	foreach(lc, queue)
	{
		ServerState *state = server_state(lfirst_oid(lc));

		if (r->nvisits >= MAX_VISITS)
			break;
		if (state->queued == how)
		{
			if ((how == QUEUED_ORDINARY && r->nordinary >= MAX_ORDINARY) ||
				(state->backoff.failures > 0 && r->nfailing >= MAX_FAILING))
				continue;
			state->queued = QUEUED_NOT;
			worker_start_visit(r, state);
		}
		queue = foreach_delete_current(queue, lc);
	}
	return queue;
}

/*
 * Begin the visit of a server, unless one is running.
 */
static void
worker_start_visit(Resolver *r, ServerState *state)
{
	MemoryContext old;
	Visit	   *v;
	ListCell   *lc;

	/* Its entries are read before it begins: see settle_entries(). */
	List	   *entries = state->in_doubt ?
		DtxInDoubtListServer(MyDatabaseId, state->serverid) : NIL;

	v = visit_create(r, VISIT_RESOLVE, state->serverid, state->name);
	state->visit = v;
	state->visited_at = v->began_at;
	v->failures = state->backoff.failures;
	v->turn = state->visits;
	v->hung = state->hung;
	state->visits = (state->visits + 1) % 1000000;
	v->in_pass = state->in_pass;	/* counted already */
	state->in_pass = false;
	v->ordinary = !state->in_doubt;
	v->failing = state->backoff.failures > 0;
	if (v->ordinary)
		r->nordinary++;
	if (v->failing)
		r->nfailing++;

	/* It was there a moment ago, maybe made since the last pass. */
	state->exists = true;
	r->report_activity = true;
	visit_set_entries(v, entries);

	/* Users known to have business there first, then the one who got in. */
	old = MemoryContextSwitchTo(v->cxt);
	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);

		for (int i = 0; i < note->row.nparticipants; i++)
		{
			if (note->row.prepared[i].serverid == v->serverid &&
				!note->confirmed[i] &&
				OidIsValid(note->row.prepared[i].umid) &&
				list_length(v->preferred) < MAX_TRIES)
				v->preferred = list_append_unique_oid(v->preferred,
													  note->row.prepared[i].umid);
		}
	}
	if (OidIsValid(state->used_umid))
		v->preferred = list_append_unique_oid(v->preferred, state->used_umid);
	if (OidIsValid(state->good_umid))
		v->preferred = list_append_unique_oid(v->preferred, state->good_umid);
	MemoryContextSwitchTo(old);

	xact_begin(r);
	visit_set_routes(v, r->routes);
	xact_end(r);
	visit_next(v);
}

/* ----------------------------------------------------------------
 * The background worker: decision rows that are not needed any more
 * ----------------------------------------------------------------
 */

/* The gid of participant "index", from 0, of a decision row. */
static void
note_gid(Resolver *r, Note *note, int index, DtxGid *gid)
{
	memset(gid, 0, sizeof(DtxGid));
	gid->coordinator_id = r->coordinator_id;
	gid->dbid = MyDatabaseId;
	gid->boot_id = note->row.boot_id;
	gid->xid = note->row.xid;
	gid->n = (uint32) index + 1;
	gid->seal = note->seals[index];
}

/* A decision row that no live backend owns. */
typedef struct UnownedRow
{
	DtxDecisionRow *row;
	bool		adopted;		/* known to be confirmed by all participants */
} UnownedRow;

/*
 * The decision rows that no live backend owns: a list of UnownedRow in the current
 * memory context.  In a transaction of the worker.
 */
static List *
unowned_rows(void)
{
	List	   *result = NIL;
	List	   *rows;
	Snapshot	snapshot;
	bool		doubtful = false;
	ListCell   *lc;

	snapshot = RegisterSnapshot(GetTransactionSnapshot());
	rows = DtxDecisionScan(snapshot);
	UnregisterSnapshot(snapshot);
	DTX_FAULT("resolver-rows", NULL);
	foreach(lc, rows)
	{
		DtxDecisionRow *row = (DtxDecisionRow *) lfirst(lc);
		UnownedRow *unowned;
		bool		adopted;

		if (!row->inherited)
			note_use(row);

		/*
		 * The row of a session that has gone is deleted while it is known
		 * that everybody has confirmed.  After a restart servers would be
		 * asked, and one that was dropped meanwhile can't be.
		 */
		adopted = row->inherited ||
			DtxActivityAdoptRow(row->boot_id, row->xid);
		if (!adopted && DtxActivityOwnsRow(row->boot_id, row->xid))
			continue;
		unowned = palloc(sizeof(UnownedRow));
		unowned->row = row;
		unowned->adopted = adopted;
		result = lappend(result, unowned);
		doubtful |= !adopted && row->boot_id == DtxBootId();
	}

	/*
	 * A session may have overwritten its row between the snapshot and our look at
	 * its slot, which names the new one then.  The old one is not visible any
	 * more, while one that was handed over stays.
	 */
	if (doubtful)
	{
		HTAB	   *keys;

		snapshot = RegisterSnapshot(GetTransactionSnapshot());
		rows = DtxDecisionScan(snapshot);
		UnregisterSnapshot(snapshot);
		keys = DtxDecisionIndex(rows, CurrentMemoryContext);
		foreach(lc, result)
		{
			UnownedRow *unowned = (UnownedRow *) lfirst(lc);

			if (!unowned->adopted &&
				DtxDecisionLookup(keys, unowned->row->boot_id,
								  unowned->row->xid) == NULL)
				result = foreach_delete_current(result, lc);
		}
	}
	return result;
}

/*
 * Read the decision rows that no live backend owns, keeping what is known of
 * those read before.  In a transaction of the worker.
 */
static void
worker_take_notes(Resolver *r)
{
	MemoryContext cxt;
	MemoryContext old;
	HTAB	   *known;
	HASHCTL		info;
	List	   *notes = NIL;
	ListCell   *lc;
	typedef struct KnownNote
	{
		uint64		key[2];		/* boot id, xid */
		Note	   *note;
	} KnownNote;

	cxt = AllocSetContextCreate(r->cxt, "pg_dtx decision rows",
								ALLOCSET_DEFAULT_SIZES);
	old = MemoryContextSwitchTo(cxt);

	memset(&info, 0, sizeof(info));
	info.keysize = 2 * sizeof(uint64);
	info.entrysize = sizeof(KnownNote);
	info.hcxt = r->step_cxt;
	known = hash_create("pg_dtx known decision rows", 64, &info,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, r->notes)
	{
		Note	   *note = (Note *) lfirst(lc);
		uint64		key[2] = {note->row.boot_id, note->row.xid};
		KnownNote  *entry = hash_search(known, key, HASH_ENTER, NULL);

		entry->note = note;
	}

	foreach(lc, unowned_rows())
	{
		UnownedRow *unowned = (UnownedRow *) lfirst(lc);
		DtxDecisionRow *row = unowned->row;
		uint64		key[2] = {row->boot_id, row->xid};
		KnownNote  *entry;
		Note	   *note;
		bool		adopted = unowned->adopted;

		note = palloc0(sizeof(Note));
		note->row = *row;
		note->confirmed = palloc0(sizeof(bool) * Max(row->nparticipants, 1));
		note->serial = ++r->serial;
		note->seals = palloc(sizeof(uint64) * Max(row->nparticipants, 1));
		for (int i = 0; i < row->nparticipants; i++)
		{
			DtxGid		gid;

			note->seals[i] = 0;
			note_gid(r, note, i, &gid);
			DtxSeal(&gid);
			note->seals[i] = gid.seal;
		}
		entry = hash_search(known, key, HASH_FIND, NULL);
		if (entry != NULL &&
			entry->note->row.nparticipants == row->nparticipants)
		{
			note->serial = entry->note->serial;
			note->nconfirmed = entry->note->nconfirmed;
			memcpy(note->confirmed, entry->note->confirmed,
				   sizeof(bool) * row->nparticipants);
		}
		if (adopted)
		{
			note->nconfirmed = row->nparticipants;
			memset(note->confirmed, true, sizeof(bool) * row->nparticipants);
		}
		if (note->nconfirmed >= row->nparticipants)
			r->prunable = true;
		notes = lappend(notes, note);

		/* A server that is gone can't confirm, but must not be forgotten. */
		for (int i = 0; i < row->nparticipants; i++)
		{
			if (!note->confirmed[i] &&
				!server_state(row->prepared[i].serverid)->exists)
			{
				char		error[64];

				snprintf(error, sizeof(error),
						 "foreign server with OID %u was dropped",
						 row->prepared[i].serverid);
				note_unconfirmed(r, note, i, error, InvalidOid);
			}
		}
	}
	MemoryContextSwitchTo(old);

	MemoryContextDelete(r->notes_cxt);
	r->notes_cxt = cxt;
	r->notes = notes;
}

/*
 * A participant of a committed transaction can't be asked: let the in-doubt
 * table show it.
 */
static void
note_unconfirmed(Resolver *r, Note *note, int index, const char *error,
				 Oid error_umid)
{
	DtxInDoubt	entry;
	DtxGid		gid;

	if (note->confirmed[index])
		return;
	note_gid(r, note, index, &gid);

	/*
	 * An entry that does not say where it was prepared came from a server
	 * that has something of this gid, maybe not the one that we miss.
	 */
	if (DtxInDoubtGet(&gid, &entry) &&
		(entry.system_id != 0 || note->row.prepared[index].system_id == 0))
		return;

	memset(&entry, 0, sizeof(entry));
	entry.gid = gid;
	entry.serverid = note->row.prepared[index].serverid;
	entry.umid = note->row.prepared[index].umid;
	entry.system_id = note->row.prepared[index].system_id;
	entry.timeline = note->row.prepared[index].timeline;
	entry.endpoint = note->row.prepared[index].endpoint;
	entry.remote_xid = note->row.prepared[index].remote_xid;
	entry.xid_system_id = note->row.prepared[index].system_id;
	entry.userid = note->row.userid;
	entry.decision = DTX_COMMIT;
	entry.since = note->row.decided_at;
	if (DtxInDoubtAdd(&entry))
		DtxInDoubtFailed(&gid, error, error_umid, backoff_until(1));
}

/*
 * Delete the decision rows all of whose participants have confirmed.
 */
static void
worker_prune(Resolver *r)
{
	ListCell   *lc;

	r->prunable = false;

	xact_begin(r);
	if (DtxExtensionInstalled() && DtxCoordinatorId() == r->coordinator_id)
	{
		foreach(lc, r->notes)
		{
			Note	   *note = (Note *) lfirst(lc);

			if (note->nconfirmed < note->row.nparticipants)
				continue;

			/*
			 * No backend owned it when it was read, and none can have become
			 * its owner since (activity.c, DtxActivitySetRow).
			 */
			(void) DtxDecisionDelete(&note->row);
			r->notes = foreach_delete_current(r->notes, lc);
		}
	}
	xact_end(r);
}

/* ----------------------------------------------------------------
 * The background worker: main program
 * ----------------------------------------------------------------
 */

/* Tell pg_stat_activity what is going on. */
static void
worker_report_activity(Resolver *r)
{
	char		text[NAMEDATALEN + 64];
	HASH_SEQ_STATUS seq;
	ServerState *state;
	const char *name = NULL;

	r->report_activity = false;

	hash_seq_init(&seq, server_states);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (state->visit != NULL)
			name = state->visit->name;
	}
	if (name == NULL)
	{
		pgstat_report_activity(STATE_IDLE, NULL);
		return;
	}
	if (r->nvisits > 1)
		snprintf(text, sizeof(text), "visiting server \"%s\" and %d more",
				 name, r->nvisits - 1);
	else
		snprintf(text, sizeof(text), "visiting server \"%s\"", name);
	pgstat_report_activity(STATE_RUNNING, text);
}

/*
 * Close all connections and forget what was begun.
 */
static void
worker_give_up(Resolver *r)
{
	HASH_SEQ_STATUS seq;
	ServerState *state;

	hash_seq_init(&seq, server_states);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		state->visit = NULL;
		state->kept = NULL;
		state->queued = QUEUED_NOT;
		state->in_pass = false;
	}
	MemoryContextDelete(r->cxt);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Main program of the resolver of database "arg"; InvalidOid: of the reserved one,
 * which waits for a database first, and is started again when it has left that.
 */
void
dtx_resolver_main(Datum arg)
{
	Oid			dbid = DatumGetObjectId(arg);
	int			exit_code = OidIsValid(dbid) ? 0 : 1;
	HASHCTL		info;
	Resolver   *volatile r = NULL;
	volatile bool idle = false;
	volatile bool leave = false;
	volatile DtxMoment probe_at = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	/* A SIGHUP from before our handler was there was lost. */
	ConfigReloadPending = true;

	/*
	 * Attach first: then our entry is given back after this process has left
	 * the proc array, and whoever waits for that may drop the database.
	 */
	if (!OidIsValid(dbid))
		dbid = DtxWorkerAwaitDatabase();
	if (!DtxWorkerAttach(DTX_WORKER_RESOLVER, dbid))
		proc_exit(exit_code);
	DtxWorkerConnect(dbid, InvalidOid, BGWORKER_BYPASS_ALLOWCONN, "pg_dtx resolver");

	/* Whoever locks our tables for long must not make us deaf. */
	SetConfigOption("lock_timeout", "5s", PGC_USERSET, PGC_S_OVERRIDE);

	/*
	 * Nor may a synchronous standby that is away.  Nothing is lost with what is
	 * not replicated: a decision row that comes back on a promoted standby is
	 * asked for again.  (For this session only: standby.c wants to know what is
	 * configured.)
	 */
	SetConfigOption("synchronous_commit", "local", PGC_USERSET,
					PGC_S_SESSION);

	wait_event_idle = DtxWaitEvent("DtxResolverMain");

	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(Oid);
	info.entrysize = sizeof(ServerState);
	server_states = hash_create("pg_dtx server states", 32, &info,
								HASH_ELEM | HASH_BLOBS);

	for (;;)
	{
		CurrentResourceOwner = NULL;
		MemoryContextSwitchTo(TopMemoryContext);
		ResetLatch(MyLatch);
		if (DtxWorkerMustStop())
			break;

		/* A shutdown is nothing to be FATAL about. */
		if (ProcDiePending)
			proc_exit(1);

		PG_TRY();
		{
			long		timeout = -1;

			CHECK_FOR_INTERRUPTS();
			if (ConfigReloadPending)
			{
				ConfigReloadPending = false;
				ProcessConfigFile(PGC_SIGHUP);
			}

			/* Wake-ups from now on are seen in the next round. */
			(void) DtxWorkerTakeWork();
			DtxInDoubtReport();

			if (!dtx_resolver)
			{
				if (r != NULL)
				{
					Resolver   *old = r;

					r = NULL;
					worker_give_up(old);
				}

				/* Nothing to do, but a database without us is left anyway. */
				SetCurrentStatementStartTimestamp();
				StartTransactionCommand();
				leave = !DtxExtensionInstalled();
				if (!leave)
					DtxBootRecord();
				CommitTransactionCommand();
			}
			else if (!DtxIsDue(errors.next))
				timeout = DtxUntil(errors.next);
			else
			{
				bool		gone = false;

				if (r == NULL)
					r = resolver_create(TopMemoryContext, true);
				r->pass_asked |= DtxWorkerTakePass();
				timeout = worker_step(r, &gone);
				leave = gone;

				/* Once: sagas that an earlier life of the server has left. */
				if (!leave && DtxIsDue(probe_at))
				{
					probe_at = DtxIn(PROBE_PAUSE);
					SetCurrentStatementStartTimestamp();
					StartTransactionCommand();
					DtxSagaProbe();
					CommitTransactionCommand();
					probe_at = DTX_NEVER;
				}
			}

			if (!leave)
			{
				bool		now_idle = r == NULL ||
					(r->nvisits == 0 && !r->pass_open && r->notes == NIL);

				DtxWorkerStarted();
				if (idle != now_idle)
					DtxWorkerSetIdle(now_idle, false);
				idle = now_idle;
				if (r != NULL)
				{
					MemoryContextSwitchTo(r->step_cxt);
					(void) DtxRemoteWait(r->set, timeout,
										 r->nvisits > 0 ? wait_event_remote :
										 wait_event_idle);
				}
				else
					(void) WaitLatch(MyLatch, WL_LATCH_SET |
									 (timeout >= 0 ? WL_TIMEOUT : 0) |
									 WL_EXIT_ON_PM_DEATH,
									 timeout, wait_event_idle);
				if (r != NULL && !r->pass_open)
					DtxBackoffReset(&errors);
			}
		}
		PG_CATCH();
		{
			/*
			 * Whatever it was, nothing is lost by giving up what was begun:
			 * the truth is on the servers and in the decision table.
			 */
			HOLD_INTERRUPTS();
			error_context_stack = NULL;
			EmitErrorReport();
			MemoryContextSwitchTo(TopMemoryContext);
			FlushErrorState();
			AbortOutOfAnyTransaction();
			LWLockReleaseAll();
			pgstat_report_wait_end();
			if (r != NULL)
			{
				Resolver   *old = r;

				r = NULL;
				worker_give_up(old);
			}
			DtxBackoffFailed(&errors, MIN_BACKOFF, max_backoff());
			RESUME_INTERRUPTS();
		}
		PG_END_TRY();

		if (leave)
		{
			DtxWorkerNotNeeded();
			break;
		}
	}

	/* Say good-bye to the servers. */
	if (r != NULL)
		worker_give_up(r);
	proc_exit(exit_code);
}
