/*-------------------------------------------------------------------------
 *
 * coordinator.c
 *		The commit of a distributed transaction: two-phase commit driven from
 *		the callbacks of the local transaction.
 *
 * The order of things, with the function of access/transam/xact.c that calls:
 *
 * CommitTransaction, XACT_EVENT_PRE_COMMIT (pre_commit), ahead of
 * postgres_fdw's own callback: find out which participants wrote; if more than
 * one node did, publish the transaction, prepare the participants that wrote,
 * write the decision row.  Errors are allowed and abort everything.
 *
 * CommitTransaction, XACT_EVENT_COMMIT (send_commits): the decision is durable
 * and visible.  Send every COMMIT PREPARED.
 *
 * CommitTransaction, RESOURCE_RELEASE_AFTER_LOCKS (finish_commit): wait for the
 * replies, when no local lock is held any more.
 *
 * AbortTransaction, XACT_EVENT_ABORT (begin_abort) and
 * RESOURCE_RELEASE_AFTER_LOCKS (finish_abort): the same for ROLLBACK PREPARED,
 * after the replies to PREPAREs that are still on their way.
 *
 * Between the local commit and the end of finish_commit an ERROR would be a
 * PANIC.  So nothing there reports anything, allocates in a memory context, looks
 * at a catalog, or opens a file descriptor; what is to be said is collected, and
 * said in one place, which catches whatever goes wrong (guarded).  Builds for
 * tests check that (quiet.c).  Interrupts are held by xact.c, and the wait looks at
 * the flags itself, as SyncRepWaitForLSN (replication/syncrep.c) does.  The one
 * thing that may report there is WaitEventSetWait(), if the kernel refuses to wait
 * on descriptors that are open, and PostgreSQL's own waits have that in common.
 *
 * Callbacks run newest first (RegisterXactCallback).  postgres_fdw registers
 * its callback before it makes its first connection, and we register ours when
 * we see that connection being made, so ours runs first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/fault.h"
#include "base/gid.h"
#include "base/quiet.h"
#include "base/settings.h"
#include "base/stats.h"
#include "commit/coordinator.h"
#include "commit/participant.h"
#include "commit/protection.h"
#include "commit/standby.h"
#include "libpq-fe.h"
#include "miscadmin.h"
#include "net/route.h"
#include "net/target.h"
#include "net/text.h"
#include "pgstat.h"
#include "state/activity.h"
#include "state/boot.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "state/tables.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/itemptr.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker/wake.h"

/*
 * Longest time, in milliseconds, that an abort waits for the servers.  The
 * client is waiting for its error message; the resolver can do the rest.
 */
#define ABORT_WAIT_MS	2000

/*
 * Likewise if the abort is what the client has asked for, because a server did not
 * answer: the others have this time.
 */
#define CANCELED_WAIT_MS	100

/*
 * A confirmation that COMMIT did not wait for is waited for at least this long,
 * in milliseconds, when its connection is used again: giving up costs the
 * connection.
 */
#define SETTLE_WAIT_MS	1000

/*
 * How often somebody who waits for the resolver looks whether it has done its work,
 * in milliseconds.
 */
#define CATCH_UP_INTERVAL_MS	10

/* Likewise if it is the server that has to be asked. */
#define ASK_AGAIN_INTERVAL_MS	100

/*
 * The resolver has this time to do on a new connection what failed on ours before
 * the client is warned, in milliseconds.
 */
#define SECOND_TRY_MS	2000

/* Replies taken per WaitEventSetWait() call. */
#define EVENTS_AT_ONCE	16

/* How a wait for replies ended. */
typedef enum WaitEnd
{
	WAIT_COMPLETE,				/* no reply is due any more */
	WAIT_FAILED,				/* phase one: a participant failed */
	WAIT_TIMED_OUT,
	WAIT_CANCELED,				/* query cancel, where it can't throw */
	WAIT_STATEMENT_TIMEOUT,		/* statement_timeout, likewise */
	WAIT_TERMINATED				/* SIGTERM or postmaster death, likewise */
} WaitEnd;

/* Where the current local transaction stands. */
typedef enum Phase
{
	PHASE_NONE = 0,				/* before COMMIT */
	PHASE_OFF,					/* in COMMIT, without pg_dtx */
	PHASE_PLAIN,				/* in COMMIT, left to postgres_fdw */
	PHASE_PREPARE,				/* in COMMIT, participants are being prepared */
	PHASE_COMMIT,				/* committed locally */
	PHASE_ABORT,				/* aborted after PHASE_PREPARE began */
	PHASE_PLAIN_ABORT			/* aborted before */
} Phase;

/*
 * Participants of the current local transaction, in order of appearance, whose
 * connections are open.
 */
static dlist_head members = DLIST_STATIC_INIT(members);
static int	nmembers = 0;

/*
 * Who took part is a fact of the transaction, not of the connections that are
 * still open: each remote transaction that began in it is a member, or has left
 * because nothing was sent in it, or is lost.  One that is lost keeps the
 * transaction from committing.
 */
static int	nstarted = 0;
static int	nleft = 0;
static int	nlost = 0;
static char lost_server[NAMEDATALEN];	/* the first that is lost, or "" if its
										 * name is not known */

/* See CoordinatorSetCheck(). */
static void (*other_check) (void) = NULL;

static Phase phase = PHASE_NONE;
static bool canceled = false;	/* is a cancel or termination what ended the
								 * wait before the local commit? */
static uint64 current_xid = 0;	/* full xid under which gids were made, or 0 */
static ItemPointerData current_row; /* its decision row */
static instr_time phase_start;
static DtxMoment committing_since;

/*
 * Sockets of all members, the latch and postmaster death.  Made before the
 * local commit because afterwards no descriptor may be opened.  It is kept for
 * later transactions with the same members.
 */
static WaitEventSet *wait_set = NULL;
static bool wait_set_made = false;	/* is it that of the current transaction? */
static struct
{
	uint64		serial;			/* the participant's */
	pgsocket	socket;			/* and its socket, or PGINVALID_SOCKET */
}		   *waited_for = NULL;	/* the members for which it was made */
static int	nwaited_for = 0;	/* number of entries */
static int	max_waited_for = 0; /* room for so many */

/*
 * The last transaction that returned from COMMIT before all confirmations were
 * in (commit_wait = off).  Its participants are not in "members" any more.
 */
static struct
{
	uint64		xid;			/* 0: none */
	ItemPointerData row;		/* its decision row */
	int			due;			/* replies still to come */
	bool		failed;			/* has the resolver got some of them? */
	DtxMoment	takeover_at;	/* from then on the resolver may finish it */
}			unsettled;

/* Participants with "unsettled" set. */
static int	nunsettled = 0;

/*
 * What this session has committed, and then left to the resolver: it must be
 * visible in the session's next transactions on the cluster where it is prepared.
 */
typedef struct Behind
{
	DtxGid		gid;
	uint64		system_id;		/* of the cluster, 0 if not known */
	char		server_name[NAMEDATALEN];	/* for the error */
	bool		recorded;		/* does in_doubt.c know of it? */
	DtxMoment	wait_until;		/* it is not waited for any longer; 0: it was not
								 * waited for yet */
} Behind;

/*
 * Oldest first.  There is always room for as many more as this session may have to
 * leave to the resolver: that is seen to before participants are prepared.
 */
static Behind *behind = NULL;
static int	nbehind = 0;
static int	max_behind = 0;

/* For whom settle_for() settles others, and whether it settles all of them. */
static Participant *catching_up = NULL;
static bool catch_up_all = false;

/* Wait events, see DtxWaitEvent(). */
static uint32 we_prepare;
static uint32 we_commit;
static uint32 we_abort;
static uint32 we_settle;

/* Does this backend's slot show the current transaction? */
static bool activity_begun = false;

/* Does this process commit in two phases, and wait, whatever the settings say? */
static bool insists = false;

/* Has the last transaction committed without being confirmed everywhere? */
static bool left_unconfirmed = false;

/* PHASE_COMMIT: is the decision as durable as this cluster's commits are? */
static bool decision_durable = false;

/* Names for the one warning after the commit; no allocation there. */
static char unconfirmed[1024];

static void dtx_xact_callback(XactEvent event, void *arg);
static void dtx_resource_callback(ResourceReleasePhase release_phase,
								  bool isCommit, bool isTopLevel, void *arg);
static void dtx_before_exit(int code, Datum arg);
static void begin_activity(void);
static void end_activity(uint64 xid);
static int	count_writers(void);
static void pre_commit(void);
static void parallel_pre_commit(void);
static void check_member(Participant *p);
static void check_none_lost(void);
static void check_not_enlisted(Participant *p);
static void ask_readers(void);
static bool can_be_asked(const Participant *p);
static void stop_asking(void);
static void end_readers(void);
static void prepare_writers(void);
static void send_commits(void);
static bool guarded(void (*function) (WaitEnd end), WaitEnd end);
static void warn_unconfirmed(WaitEnd end);
static void absorb_barrier(WaitEnd end);
static void finish_commit(void);
static WaitEnd wait_resolver(void);
static bool note_all_unconfirmed(bool contradicted);
static void begin_abort(void);
static void finish_abort(void);
static void end_transaction(void);
static void make_wait_set(void);
static bool wait_set_fits(void);
static WaitEnd wait_replies(int timeout_ms, uint32 wait_event);
static bool any_reply_due(void);
static Participant *first_failed(void);
static void throw_timeout(void);
static void hand_over(Participant *p);
static void receive(Participant *p);
static void release(Participant *p);
static void settled(Participant *p);
static void account_for(Participant *p, bool confirmed);
static void still_owing(Participant *p);
static void set_unsettled(Participant *p, bool value);
static void settle_for(Participant *p);
static bool may_be_same_cluster(uint64 a, uint64 b);
static void reserve_behind(void);
static void note_behind(Participant *p, bool recorded);
static int	find_behind(const DtxGid *gid);
static WaitEnd requested_end(void);
static void end_without_postmaster(void);
static void forget_behind(int i);
static bool is_prepared_there(Participant *p, const DtxGid *gid);
static bool must_wait(void);
static void leave_unsettled(Participant *p);
static void leave_unsettled_transaction(void);
static void note_unconfirmed(Participant *p);

/* ----------------------------------------------------------------
 * Enlisting
 * ----------------------------------------------------------------
 */

/*
 * postgres_fdw makes its first connection in this backend, or another one.
 * Registers the callbacks, once.  May throw.
 */
void
CoordinatorPrepareBackend(void)
{
	static bool done = false;

	if (done)
		return;

	we_prepare = DtxWaitEvent("DtxPrepare");
	we_commit = DtxWaitEvent("DtxCommit");
	we_abort = DtxWaitEvent("DtxAbort");
	we_settle = DtxWaitEvent("DtxSettle");
	before_shmem_exit(dtx_before_exit, (Datum) 0);
	RegisterXactCallback(dtx_xact_callback, NULL);
	RegisterResourceReleaseCallback(dtx_resource_callback, NULL);
	done = true;
}

/*
 * From now on all transactions of this process commit in two phases if that is
 * needed, and wait for their confirmations: settings do not matter.
 */
void
CoordinatorInsist(void)
{
	insists = true;
}

/*
 * Has the last transaction of this process committed without the confirmation of
 * all its servers?  Then the resolver takes care of it.
 */
bool
CoordinatorUnconfirmed(void)
{
	return left_unconfirmed;
}

/*
 * Does this process commit in two phases where that is needed?
 */
bool
CoordinatorTwoPhaseCommit(void)
{
	return dtx_two_phase_commit || insists;
}

/*
 * "check", which may throw, is called before anything is committed on any server.  At
 * server start.
 */
void
CoordinatorSetCheck(void (*check) (void))
{
	other_check = check;
}

/*
 * How many remote transactions has the current transaction?
 */
int
CoordinatorMembers(void)
{
	return nmembers;
}

/*
 * May what is called from inside of libpq throw?
 */
bool
CoordinatorMayThrow(void)
{
	return phase != PHASE_COMMIT && phase != PHASE_ABORT &&
		phase != PHASE_PLAIN_ABORT;
}

/*
 * A connection is about to begin its first remote transaction: find out which
 * cluster it leads to.  Once per connection, like the settings that postgres_fdw
 * makes.  Throws on interrupts only; a failure shows in the next command.
 */
void
CoordinatorIntroduce(Participant *p)
{
	if (ParticipantIntroduce(p))
		CoordinatorSettle(p);
}

/*
 * postgres_fdw starts a remote transaction.  Called before the command is sent.
 * Throws if it is too late in the local transaction for that.
 *
 * Must not look at catalogs: that may process invalidations, and postgres_fdw,
 * for which the remote transaction has not begun yet, would close the
 * connection under our feet (pgfdw_inval_callback).
 */
void
CoordinatorEnlist(Participant *p)
{
	if (phase != PHASE_NONE && phase != PHASE_OFF)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot access foreign tables while the transaction is being committed"),
				 errdetail("The participants of the distributed transaction have been determined already.")));

	ParticipantReset(p);
	p->state = PARTICIPANT_OPEN;
	p->index = nstarted++;
	dlist_push_tail(&members, &p->node);
	nmembers++;
}

/*
 * The first command after START TRANSACTION is about to be sent: what could not
 * be done there.  May throw.
 */
void
CoordinatorSeen(Participant *p)
{
	p->seen = true;
	if (!DtxExtensionInstalled())
		return;
	p->wanted = true;			/* if not now, then in its next transaction */
	ParticipantIdentify(p);
	begin_activity();
	DtxActivityAddServer(p->index, p->serverid);
}

static void
begin_activity(void)
{
	if (!activity_begun)
	{
		DtxActivityBegin();
		activity_begun = true;
	}
}

/*
 * The current transaction is over; "xid" as for DtxActivityEnd().
 */
static void
end_activity(uint64 xid)
{
	if (activity_begun)
	{
		DtxActivityEnd(xid);
		activity_begun = false;
	}
}

/*
 * A connection whose remote transaction is postgres_fdw's own affair is closed, or
 * its remote transaction never began.  Does not throw.
 *
 * postgres_fdw may do that in the middle of the local transaction, when it has
 * failed to begin or end a subtransaction there (releases before May 2026:
 * pgfdw_reject_incomplete_xact_state_change in contrib/postgres_fdw/connection.c),
 * and that error may be caught.  What was done there is gone then, so the
 * transaction must not commit.  Where nothing was sent, nothing is missing.
 */
void
CoordinatorForget(Participant *p)
{
	if (p->state != PARTICIPANT_IDLE)
	{
		dlist_delete(&p->node);
		nmembers--;
		if (!p->used)
			nleft++;
		else if (nlost++ == 0)
			strlcpy(lost_server, p->identified ? p->server_name : "", NAMEDATALEN);
		p->state = PARTICIPANT_IDLE;
	}
	if (p->owing)
		still_owing(p);
}

/*
 * Show hook of pg_dtx.wrote_elsewhere: may the current transaction have written on
 * a server?  Another coordinator, of which this server is a participant, asks
 * that before it commits.
 *
 * What was sent may have written without looking like it, so whoever has not said
 * that it did not is asked, which waits for the network.  Who can't be asked now
 * counts as a writer.  Throws on interrupts, and what a failed question throws.
 */
static const char *
show_wrote_elsewhere(void)
{
	bool		unknown = false;
	dlist_iter	iter;

	if (nlost > 0)
		return "on";
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->wrote)
			return "on";
		if (p->used && !p->asked)
			unknown = true;
	}
	if (!unknown)
		return "off";

	if (phase != PHASE_NONE || !IsTransactionState())
		return "on";
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->used && !can_be_asked(p))
			return "on";
	}

	PG_TRY();
	{
		make_wait_set();
		ask_readers();
	}
	PG_CATCH();
	{
		canceled = false;
		wait_set_made = false;
		stop_asking();
		PG_RE_THROW();
	}
	PG_END_TRY();
	wait_set_made = false;		/* others may become members */

	dlist_foreach(iter, &members)
	{
		if (dlist_container(Participant, node, iter.cur)->wrote)
			return "on";
	}
	return "off";
}

/* In _PG_init(): the setting in which another coordinator, of which this server is
 * a participant, sees whether the transaction may have written on further servers.
 */
void
DtxCoordinatorDefineSettings(void)
{
	static bool never_looked_at = false;	/* see the show hook */

	DefineCustomBoolVariable("pg_dtx.wrote_elsewhere",
							 "Shows whether the current transaction may have written on foreign servers.",
							 NULL,
							 &never_looked_at, false,
							 PGC_INTERNAL,
							 GUC_NO_SHOW_ALL | GUC_NOT_IN_SAMPLE | GUC_DISALLOW_IN_FILE,
							 NULL, NULL, show_wrote_elsewhere);
}

/*
 * Can a command of ours be sent in an open remote transaction?
 */
static bool
can_be_asked(const Participant *p)
{
	return p->state == PARTICIPANT_OPEN && !p->broken && !p->reply_due &&
		!p->owing && !p->folded && !p->piped && p->start_command[0] == '\0' &&
		PQtransactionStatus(p->conn) == PQTRANS_INTRANS;
}

/* ----------------------------------------------------------------
 * Callbacks
 * ----------------------------------------------------------------
 */

static void
dtx_xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			{
				/* The caller's, if it is a procedure, lives longer. */
				MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

				pre_commit();
				MemoryContextSwitchTo(old);
			}
			break;
		case XACT_EVENT_COMMIT:
			if (phase == PHASE_PREPARE)
			{
				DTX_QUIET_BEGIN();
				DTX_LISTEN_BEGIN();
				send_commits();
				DTX_LISTEN_END();
			}
			else
			{
				end_activity(0);
				end_transaction();
			}
			break;
		case XACT_EVENT_ABORT:
			begin_abort();
			break;
		case XACT_EVENT_PRE_PREPARE:
			/* postgres_fdw refuses if it was used, and has not forgotten that */
			if (CoordinatorTwoPhaseCommit() && DtxExtensionInstalled())
				check_none_lost();
			break;
		case XACT_EVENT_PREPARE:
			end_activity(0);
			end_transaction();
			break;

			/*
			 * postgres_fdw does not run in parallel workers, but a function
			 * that claims to be parallel safe may bring it there.
			 */
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
			parallel_pre_commit();
			break;
		case XACT_EVENT_PARALLEL_COMMIT:
			end_activity(0);
			end_transaction();
			break;
		case XACT_EVENT_PARALLEL_ABORT:
			begin_abort();
			break;
	}
}

static void
dtx_resource_callback(ResourceReleasePhase release_phase, bool isCommit,
					  bool isTopLevel, void *arg)
{
	/* Also called for portals and subtransactions, which are not top-level. */
	if (release_phase != RESOURCE_RELEASE_AFTER_LOCKS || !isTopLevel)
		return;

	if (phase == PHASE_COMMIT)
	{
		DTX_LISTEN_BEGIN();
		finish_commit();
		DTX_LISTEN_END();
		DTX_QUIET_END();
	}
	else if (phase == PHASE_ABORT)
		finish_abort();
	else if (phase == PHASE_PLAIN_ABORT)
	{
		end_activity(0);
		end_transaction();
	}
}

/* ----------------------------------------------------------------
 * Before the local commit
 * ----------------------------------------------------------------
 */

/*
 * The nodes on which the current transaction has written for sure.
 */
static int
count_writers(void)
{
	int			n = TransactionIdIsValid(GetTopTransactionIdIfAny()) ? 1 : 0;
	dlist_iter	iter;

	dlist_foreach(iter, &members)
	{
		if (dlist_container(Participant, node, iter.cur)->wrote)
			n++;
	}
	return n;
}

static void
pre_commit(void)
{
	dlist_mutable_iter iter;
	int			writers = 0;
	int			unknown = 0;
	int			local;

	left_unconfirmed = false;
	if (!CoordinatorTwoPhaseCommit() || !DtxExtensionInstalled())
	{
		/* It was there when the first of several nodes was written to. */
		if (CoordinatorTwoPhaseCommit() && activity_begun &&
			nmembers + nlost + (TransactionIdIsValid(GetTopTransactionIdIfAny()) ? 1 : 0) > 1)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("extension \"%s\" was dropped while the transaction ran",
							"pg_dtx"),
					 errdetail("The transaction can't be committed atomically on all servers."),
					 errhint("Try it again, or set \"pg_dtx.two_phase_commit\" to off.")));
		DtxProtectionMissing(count_writers());
		phase = PHASE_OFF;
		return;
	}

	/* A remote transaction that we did not see start must not slip through. */
	ParticipantForEach(check_not_enlisted);
	check_none_lost();
	if (other_check != NULL)
		other_check();

	dlist_foreach_modify(iter, &members)
		check_member(dlist_container(Participant, node, iter.cur));

	if (nmembers == 0)
	{
		phase = PHASE_PLAIN;
		return;
	}

	local = TransactionIdIsValid(GetTopTransactionIdIfAny()) ? 1 : 0;
	dlist_foreach_modify(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->wrote)
			writers++;
		else
			unknown++;
	}

	/* Whoever only read may have written: ask, if the answer matters. */
	if (unknown > 0 && writers + unknown + local > 1)
	{
		make_wait_set();
		ask_readers();
		writers = 0;
		dlist_foreach_modify(iter, &members)
		{
			if (dlist_container(Participant, node, iter.cur)->wrote)
				writers++;
		}
	}
	else if (writers + local == 0)
		writers = 1;			/* a lone reader: it may have written */

	if (writers + local <= 1)
	{
		/*
		 * One node wrote, or none.  If it is a remote one, end the readers
		 * first: when one of them fails, nothing has been committed yet.
		 */
		if (writers == 1 && nmembers > 1)
			end_readers();
		phase = PHASE_PLAIN;
		if (writers == 1)
			DtxStatsAdd(DTX_STAT_ONE_PHASE, 1);
		return;
	}

	prepare_writers();
}

/*
 * A parallel worker commits on its own, whatever becomes of its leader.  What
 * it wrote could not be taken back: refuse.
 */
static void
parallel_pre_commit(void)
{
	dlist_iter	iter;

	if (nstarted == 0 || !CoordinatorTwoPhaseCommit() || !DtxExtensionInstalled())
		return;

	check_none_lost();
	make_wait_set();
	ask_readers();
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->wrote)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot write on server \"%s\" in a parallel worker",
							p->server_name),
					 errhint("A function that uses foreign tables must not be marked PARALLEL SAFE.")));
	}
}

/*
 * Is a participant's remote transaction in a state in which it can be
 * committed?  Takes out those that never began.
 */
static void
check_member(Participant *p)
{
	PGTransactionStatusType status = PQtransactionStatus(p->conn);

	if (p->broken && p->used)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						p->server_name),
				 errdetail("The transaction on that server can't be committed.")));
	if (status == PQTRANS_INTRANS)
		return;

	/*
	 * START TRANSACTION failed, or was interrupted, in a subtransaction that
	 * was rolled back.  postgres_fdw closes such a connection itself.
	 */
	if (!p->used)
	{
		CoordinatorForget(p);
		return;
	}

	if (status == PQTRANS_UNKNOWN)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 errmsg("connection to server \"%s\" was lost",
						p->server_name),
				 errdetail("The transaction on that server can't be committed.")));
	ereport(ERROR,
			(errcode(ERRCODE_IN_FAILED_SQL_TRANSACTION),
			 errmsg("transaction on server \"%s\" can't be committed",
					p->server_name),
			 status == PQTRANS_INERROR ?
			 errdetail("A command failed there, and the remote transaction was aborted.") :
			 status == PQTRANS_ACTIVE ?
			 errdetail("A command is still running there.") :
			 errdetail("The remote transaction has ended already.")));
}

/*
 * Whatever remote transaction has begun must still be there, unless nothing was
 * sent in it.
 */
static void
check_none_lost(void)
{
	dlist_iter	iter;
	int			n = 0;

	if (nlost > 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONNECTION_FAILURE),
				 lost_server[0] != '\0' ?
				 errmsg("connection to server \"%s\" was lost", lost_server) :
				 errmsg("connection to a server was lost"),
				 errdetail("postgres_fdw has closed it in the middle of the transaction, and what the transaction did there is gone."),
				 errhint("Try the transaction again.")));

	dlist_foreach(iter, &members)
		n++;
	Assert(n == nmembers && nstarted == nmembers + nleft + nlost);
	if (nstarted != n + nleft)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_dtx has lost sight of a remote transaction"),
				 errdetail("%d began, %d are open, and %d were not used.",
						   nstarted, n, nleft),
				 errhint("Report this to the developers of pg_dtx, and set \"pg_dtx.two_phase_commit\" to off to commit without atomicity.")));
}

/*
 * Fail closed: a connection in a transaction that began unseen.
 */
static void
check_not_enlisted(Participant *p)
{
	PGTransactionStatusType status;

	if (p->state != PARTICIPANT_IDLE || p->reply_due || p->abandoned || p->broken)
		return;
	status = PQtransactionStatus(p->conn);
	if (status == PQTRANS_INTRANS || status == PQTRANS_INERROR)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("pg_dtx did not see a remote transaction begin on server \"%s\"",
						p->identified ? p->server_name : "(unknown)"),
				 errhint("Report this to the developers of pg_dtx, and set \"pg_dtx.two_phase_commit\" to off to commit without atomicity.")));
}

/*
 * Ask all members that may have written, and have not said, whether they did.
 * Throws if that can't be found out.
 */
static void
ask_readers(void)
{
	dlist_iter	iter;
	Participant *failed;

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (!p->wrote && p->used && !ParticipantAsk(p))
			ParticipantThrow(p, "end transaction");
		DTX_FAULT("ask-sent", p->conn);
	}

	switch (wait_replies(dtx_prepare_timeout, we_prepare))
	{
		case WAIT_COMPLETE:
			break;
		case WAIT_FAILED:
			failed = first_failed();
			ParticipantThrow(failed, "end transaction");
			break;
		default:
			throw_timeout();
	}
}

/*
 * A question, or a COMMIT of a reader, that is still unanswered becomes a command
 * that postgres_fdw cancels and drains, as it would one of its own.
 */
static void
stop_asking(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->state == PARTICIPANT_ASKED || p->state == PARTICIPANT_ENDING)
		{
			p->state = PARTICIPANT_OPEN;
			p->reply_due = false;
		}
	}
}

static void
end_readers(void)
{
	dlist_iter	iter;
	Participant *failed;

	make_wait_set();
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (!p->wrote && !ParticipantEnd(p))
			ParticipantThrow(p, "commit transaction");
		DTX_FAULT("end-sent", p->conn);
	}

	switch (wait_replies(dtx_prepare_timeout, we_prepare))
	{
		case WAIT_COMPLETE:
			break;
		case WAIT_FAILED:
			failed = first_failed();
			ParticipantThrow(failed, "commit transaction");
			break;
		default:
			throw_timeout();
	}
}

/*
 * Phase one.  On return every participant that wrote is prepared, every other
 * one has ended, and everything that phase two needs exists.
 */
static void
prepare_writers(void)
{
	dlist_iter	iter;
	DtxGid		gid;
	DtxPrepared *prepared = palloc0(sizeof(DtxPrepared) * nmembers);
	int			n = 0;
	Participant *failed;

	if (RecoveryInProgress())
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot commit a transaction that wrote on several servers during recovery"),
				 errhint("Run it on the primary server.")));

	/* What keeps the row from being written had better show before PREPARE. */
	DtxDecisionCheck();
	DtxBootRequire(we_prepare);

	memset(&gid, 0, sizeof(gid));
	gid.coordinator_id = DtxCoordinatorId();
	gid.boot_id = DtxBootId();
	gid.dbid = MyDatabaseId;
	gid.xid = U64FromFullTransactionId(GetTopFullTransactionId());

	/* The extension may have been created while the transaction ran. */
	begin_activity();

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		/* Without the mapping nobody could finish it after a crash. */
		ParticipantIdentify(p);
		if (!p->identified)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("could not determine which foreign server a connection of postgres_fdw belongs to"),
					 errdetail("The options of the server or of the user mapping have changed since the connection was made."),
					 errhint("Try the transaction again.")));
		DtxActivityAddServer(p->index, p->serverid);
		if (p->wrote)
		{
			if (p->endpoint_of != gid.coordinator_id)
			{
				p->endpoint = DtxEndpoint(p->endpoint_text);
				p->endpoint_of = gid.coordinator_id;
			}
			prepared[n].serverid = p->serverid;
			prepared[n].umid = p->umid;
			prepared[n].system_id = p->system_id;
			prepared[n].timeline = p->timeline;
			prepared[n].endpoint = p->endpoint;
			n++;
		}
	}

	leave_unsettled_transaction();
	reserve_behind();

	make_wait_set();
	current_xid = gid.xid;
	phase = PHASE_PREPARE;
	INSTR_TIME_SET_CURRENT(phase_start);
	DtxActivityPublish(gid.xid);
	DtxCoordinatorConfirm(gid.coordinator_id);
	DtxRouteRecord(prepared, n);

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->wrote)
		{
			gid.n++;
			DtxSeal(&gid);
			DTX_FAULT("prepare-before", p->conn);
			if (!ParticipantPrepare(p, &gid))
				ParticipantThrow(p, "prepare transaction");
			DTX_FAULT("prepare-sent", p->conn);
		}
		else if (!ParticipantEnd(p))
			ParticipantThrow(p, "commit transaction");
		DtxActivitySetWaiting(p->index, true);
	}

	switch (wait_replies(dtx_prepare_timeout, we_prepare))
	{
		case WAIT_COMPLETE:
			break;
		case WAIT_FAILED:
			failed = first_failed();
			ParticipantThrow(failed, failed->wrote ?
							 "prepare transaction" : "commit transaction");
			break;
		default:
			throw_timeout();
	}
	DtxStatsAdd(DTX_STAT_PREPARED, n);

	/*
	 * Only now, because the row keeps what the servers have just told: their
	 * transaction ids.  Until the local commit it means nothing anyway.
	 */
	n = 0;
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->wrote)
			prepared[n++].remote_xid = p->remote_xid;
	}
	DTX_FAULT("decision-before", NULL);
	DtxDecisionWrite(gid.xid, n, prepared, &current_row);
	ForceSyncCommit();
	DTX_FAULT("decision-after", NULL);
	pfree(prepared);
	DTX_FAULT("prepared", NULL);
}

/* ----------------------------------------------------------------
 * After the local commit: nothing may throw
 * ----------------------------------------------------------------
 */

/* Microseconds since the phase began. */
static int64
phase_usec(void)
{
	instr_time	elapsed;

	INSTR_TIME_SET_CURRENT(elapsed);
	INSTR_TIME_SUBTRACT(elapsed, phase_start);
	return (int64) INSTR_TIME_GET_MICROSEC(elapsed);
}

static void
send_commits(void)
{
	bool		pipeline = dtx_fold_start && !must_wait();
	dlist_iter	iter;

	phase = PHASE_COMMIT;
	DTX_FAULT("local-commit", NULL);
	DtxStatsAdd(DTX_STAT_PREPARE_USEC, phase_usec());
	INSTR_TIME_SET_CURRENT(phase_start);
	committing_since = DtxNow();

	/*
	 * The outcome is visible now, so a resolver that finds us busy for longer
	 * than we are going to wait may help.
	 */
	DtxActivitySetState(DTX_COMMITTING, committing_since + dtx_commit_timeout);

	/*
	 * If the wait for a synchronous standby was cut short, a failover may still
	 * lose the decision.  Nobody is told to commit then: the resolver does that
	 * when the standby has it.
	 */
	decision_durable = DtxStandbyHas(XactLastCommitEnd, synchronous_commit);

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->state != PARTICIPANT_PREPARED)
			continue;
		if (!decision_durable)
		{
			p->decision = DTX_COMMIT;
			p->state = PARTICIPANT_UNFINISHED;
			strlcpy(p->error, DTX_DECISION_NOT_REPLICATED, sizeof(p->error));
			continue;
		}
		DTX_FAULT("commit-before", p->conn);
		if (ParticipantFinish(p, DTX_COMMIT, pipeline))
			DtxActivitySetWaiting(p->index, true);
		DTX_FAULT("commit-sent", p->conn);
	}
}

/*
 * Does COMMIT wait for the confirmations?  Not only because it shall: a
 * connection that postgres_fdw wanted closed is not used again.
 */
static bool
must_wait(void)
{
	dlist_iter	iter;

	if (dtx_commit_wait || insists)
		return true;
	dlist_foreach(iter, &members)
	{
		if (dlist_container(Participant, node, iter.cur)->abandoned)
			return true;
	}
	return false;
}

/*
 * After the local commit: call what may throw or report.  Returns false if it has
 * thrown, which has no other effect.
 *
 * Callbacks for error contexts belong to functions that run, such as the procedure
 * that commits.  They are not called, because they have not been made for this
 * moment.
 */
static bool
guarded(void (*function) (WaitEnd end), WaitEnd end)
{
	volatile bool done = false;
	MemoryContext cxt = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;

	DTX_QUIET_PAUSE();
	PG_TRY();
	{
		error_context_stack = NULL;
		function(end);
		done = true;
	}
	PG_CATCH();
	{
		/* errfinish() has let interrupts in: keep them out. */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		InterruptHoldoffCount = holdoff;
		QueryCancelHoldoffCount = cancel_holdoff;
	}
	PG_END_TRY();
	DTX_QUIET_RESUME();
	return done;
}

/*
 * Tell the client who has not confirmed.  To be called by guarded(): a message is
 * converted to the client's encoding when it is sent, and a server's name may
 * contain anything, and so may translations.
 */
static void
warn_unconfirmed(WaitEnd end)
{
	ereport(WARNING,
			(errcode(ERRCODE_WARNING),
			 errmsg("transaction has committed, but not every server has confirmed it yet: %s",
					unconfirmed),
			 end == WAIT_CANCELED ?
			 errdetail("The wait was canceled due to user request.") :
			 end == WAIT_STATEMENT_TIMEOUT ?
			 errdetail("The wait was canceled due to statement timeout.") :
			 end == WAIT_TERMINATED ?
			 errdetail("The wait was ended by a request to terminate the connection.") :
			 end == WAIT_TIMED_OUT ?
			 errdetail("There was no confirmation within %d ms (\"pg_dtx.commit_timeout\").",
					   dtx_commit_timeout) : 0,
			 errhint("The resolver goes on until they have; view \"dtx.in_doubt\" shows what is left.")));
}

/*
 * Others wait until all processes have done something, such as to close the files
 * of a database that is to be dropped: don't let them wait as long as we do.  To be
 * called by guarded(); what could not be done stays pending.
 */
static void
absorb_barrier(WaitEnd end)
{
	ProcessProcSignalBarrier();
}

static void
finish_commit(void)
{
	dlist_mutable_iter iter;
	WaitEnd		end = WAIT_COMPLETE;
	bool		wait = must_wait();
	int			handed_over = 0;
	int			due = 0;
	uint64		contradictions = DtxInDoubtContradictions();

	DTX_FAULT("commit-wait", NULL);
	if (wait)
		end = wait_replies(dtx_commit_timeout, we_commit);

	dlist_foreach_modify(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->state == PARTICIPANT_FINISHING)
		{
			if (!wait)
			{
				set_unsettled(p, true);
				due++;
				continue;
			}
			ParticipantGiveUp(p, "no reply");
		}
		if (p->state == PARTICIPANT_UNFINISHED)
		{
			hand_over(p);
			handed_over++;
		}
	}

	left_unconfirmed = handed_over > 0 || due > 0;
	DTX_FAULT("committed", NULL);
	DtxStatsAdd(DTX_STAT_TWO_PHASE, 1);
	DtxStatsAdd(DTX_STAT_COMMIT_USEC, phase_usec());

	if (due > 0)
	{
		/* Replies are received before the connections are used again. */
		unsettled.xid = current_xid;
		unsettled.row = current_row;
		unsettled.due = due;
		unsettled.failed = handed_over > 0;
		unsettled.takeover_at = committing_since + dtx_commit_timeout;
		if (handed_over > 0)
			DtxActivityForgetRow();
		activity_begun = false; /* shown until the next transaction begins */
	}
	else
	{
		if (handed_over == 0)
			DtxActivitySetRow(current_xid, &current_row);
		else
			DtxActivityForgetRow();
		end_activity(current_xid);
	}

	if (handed_over > 0)
	{
		DtxLauncherWakeResolver(MyDatabaseId);
		if (wait && end == WAIT_COMPLETE && decision_durable)
			end = wait_resolver();
		if (!note_all_unconfirmed(DtxInDoubtContradictions() != contradictions))
			left_unconfirmed = due > 0;
		else if (!guarded(warn_unconfirmed, end))
		{
			/* names without what the client can't take, or nothing */
			for (char *c = unconfirmed; *c != '\0'; c++)
			{
				if (IS_HIGHBIT_SET(*c))
					*c = '?';
			}
			(void) guarded(warn_unconfirmed, end);
		}
	}

	end_transaction();
}

/*
 * Is what was handed over still to be waited for: known to the resolver, and not
 * tried in vain yet?
 */
static bool
resolver_has_yet_to_try(Participant *p)
{
	DtxInDoubt	entry;

	return p->state == PARTICIPANT_UNFINISHED &&
		DtxInDoubtGet(&p->gid, &entry) && entry.attempts == 0;
}

/*
 * A connection may have been lost between PREPARE and COMMIT PREPARED with nothing
 * wrong with its server: idle_session_timeout there, a firewall.  No new one is made
 * here (a descriptor, a name to look up), but the resolver, which has been woken,
 * does that; give it the time for one attempt before the client is warned, at most
 * SECOND_TRY_MS and not beyond pg_dtx.commit_timeout.
 *
 * We are not responsible for the transaction any more.  Does not throw; a request to
 * cancel or terminate ends the wait, as in wait_replies().
 */
static WaitEnd
wait_resolver(void)
{
	DtxMoment	deadline = Min(DtxIn(SECOND_TRY_MS),
							   committing_since + dtx_commit_timeout);

	for (;;)
	{
		bool		waiting = false;
		long		timeout;
		WaitEnd		end;
		dlist_iter	iter;

		dlist_foreach(iter, &members)
			waiting |= resolver_has_yet_to_try(dlist_container(Participant, node, iter.cur));
		timeout = DtxUntil(deadline);
		if (!waiting || timeout <= 0 || !dtx_resolver || !IsUnderPostmaster)
			return WAIT_COMPLETE;

		if (WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_POSTMASTER_DEATH,
					  Min(timeout, CATCH_UP_INTERVAL_MS), we_commit) & WL_POSTMASTER_DEATH)
			end_without_postmaster();
		ResetLatch(MyLatch);
		if (ProcSignalBarrierPending)
			(void) guarded(absorb_barrier, WAIT_COMPLETE);
		end = requested_end();
		if (end != WAIT_COMPLETE)
			return end;
	}
}

/*
 * Collect the names of those who have not confirmed.  Returns false if the resolver
 * has finished everything that was handed over.  "contradicted": it may have found
 * that some of it ended otherwise.
 */
static bool
note_all_unconfirmed(bool contradicted)
{
	dlist_iter	iter;

	unconfirmed[0] = '\0';
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);
		int			i = find_behind(&p->gid);
		DtxInDoubt	entry;

		if (p->state == PARTICIPANT_UNFINISHED &&
			(contradicted || i < 0 || !behind[i].recorded || DtxInDoubtGet(&p->gid, &entry)))
			note_unconfirmed(p);
	}
	return unconfirmed[0] != '\0';
}

/* ----------------------------------------------------------------
 * Abort: must not throw either
 * ----------------------------------------------------------------
 */

static void
begin_abort(void)
{
	dlist_iter	iter;

	if (phase == PHASE_ABORT || phase == PHASE_PLAIN_ABORT)
		return;					/* an error in AbortTransaction itself */

	if (phase != PHASE_PREPARE)
	{
		/*
		 * Nothing was prepared.  Who has not answered by now is not waited for
		 * by postgres_fdw, either, if that is what the client has canceled.
		 */
		dlist_foreach(iter, &members)
		{
			Participant *p = dlist_container(Participant, node, iter.cur);

			if (canceled && p->reply_due &&
				(p->state == PARTICIPANT_ASKED || p->state == PARTICIPANT_ENDING))
				ParticipantGiveUp(p, "no reply");
		}
		stop_asking();
		phase = PHASE_PLAIN_ABORT;
		return;
	}

	phase = PHASE_ABORT;
	DtxStatsAdd(DTX_STAT_PREPARE_FAILED, 1);
	DtxActivitySetState(DTX_ABORTING, 0);

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->state == PARTICIPANT_PREPARED)
		{
			DTX_FAULT("rollback-before", p->conn);
			(void) ParticipantFinish(p, DTX_ROLLBACK, false);
			DTX_FAULT("rollback-sent", p->conn);
		}
	}
}

static void
finish_abort(void)
{
	dlist_iter	iter;
	bool		wake = false;

	DTX_FAULT("abort-wait", NULL);
	(void) wait_replies(canceled ? CANCELED_WAIT_MS : ABORT_WAIT_MS, we_abort);
	DTX_FAULT("aborted", NULL);

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->reply_due)
			ParticipantGiveUp(p, "no reply");

		/* prepared or not, which only a visit of the server can tell */
		if (p->state == PARTICIPANT_UNKNOWN ||
			p->state == PARTICIPANT_UNFINISHED ||
			p->state == PARTICIPANT_PREPARED)
		{
			p->decision = DTX_ROLLBACK;
			hand_over(p);
			wake = true;
		}
	}

	end_activity(current_xid);
	if (wake)
		DtxLauncherWakeResolver(MyDatabaseId);
	end_transaction();
}

/* ----------------------------------------------------------------
 * The end
 * ----------------------------------------------------------------
 */

/*
 * Forget the members of the transaction.  Does not throw.
 */
static void
end_transaction(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		dlist_delete(&p->node);
		nmembers--;
		if (p->owing)
			still_owing(p);
		if (!p->unsettled)
			release(p);
	}
	Assert(nmembers == 0);

	nstarted = nleft = nlost = 0;
	canceled = false;
	wait_set_made = false;
	current_xid = 0;
	phase = PHASE_NONE;
}

/*
 * Give a connection that is in no list back to postgres_fdw, or close it if
 * postgres_fdw wanted that while we still needed it.
 */
static void
release(Participant *p)
{
	ParticipantReset(p);
	if (p->abandoned)
	{
		PGconn	   *conn = p->conn;

		ParticipantDestroy(p);
		PQfinish(conn);
		ReleaseExternalFD();	/* see CoordinatorAbandon() */
	}
	else
		ParticipantDeallocate(p);
}

/*
 * postgres_fdw closes a connection that we still need: keep it until its
 * second phase is over.  postgres_fdw counts the descriptor as released, so
 * count it as ours.  Does not throw.
 */
void
CoordinatorAbandon(Participant *p)
{
	p->abandoned = true;
	ReserveExternalFD();
}

/* ----------------------------------------------------------------
 * Confirmations that COMMIT did not wait for
 * ----------------------------------------------------------------
 */

/*
 * A connection with a reply outstanding is about to be used, or its session must
 * not miss what it stands for: wait for that reply.  For a confirmation of an
 * earlier transaction not longer than pg_dtx.commit_timeout, or SETTLE_WAIT_MS if
 * that is longer; for other replies as long as postgres_fdw would wait for its own
 * command.  Throws on interrupts; postgres_fdw drops the connection then, and
 * CoordinatorCatchUp() goes on when it has made another one.
 */
void
CoordinatorSettle(Participant *p)
{
	DtxMoment	deadline = DtxIn(Max(dtx_commit_timeout, SETTLE_WAIT_MS));

	if (p->unsettled)
		DTX_FAULT("settle-wait", p->conn);
	for (;;)
	{
		long		timeout = -1;

		ParticipantReceive(p);
		if (!p->reply_due)
			break;
		if (p->unsettled)
			timeout = DtxUntil(deadline);
		if (timeout == 0 || PQsocket(p->conn) < 0)
		{
			ParticipantGiveUp(p, "no reply");
			break;
		}
		(void) ParticipantWait(p, timeout, we_settle);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (p->unsettled)
	{
		bool		gone = p->abandoned;

		settled(p);

		/* That may have sent a DEALLOCATE ALL that was put off. */
		if (!gone && p->reply_due)
			CoordinatorSettle(p);
	}
}

/*
 * A remote transaction is about to begin on a connection: whatever this session
 * has committed on that cluster has to be visible in it, also what it has done on
 * connections that are closed now, or as somebody else.
 *
 * Waits for that, for pg_dtx.commit_timeout at most (SETTLE_WAIT_MS if that is
 * longer) after it was waited for first, and throws if it was in vain.  Throws on
 * interrupts, too.  Must not look at catalogs, see CoordinatorEnlist().  May find
 * that the connection is broken.
 *
 * The server itself is asked, on this very connection, first, as the last word, and
 * where shared memory can't tell: because there was no room in it, or because it is
 * not known which cluster the connection leads to.
 */
void
CoordinatorCatchUp(Participant *p)
{
	/* A connection that owes is not unsettled, but its transaction is. */
	catching_up = p;
	catch_up_all = false;
	if (nunsettled > 0 || unsettled.xid != 0)
		ParticipantForEach(settle_for);

	for (int i = 0; i < nbehind && !p->broken;)
	{
		Behind	   *b = &behind[i];
		bool		same = p->system_id != 0 && b->system_id == p->system_id;
		DtxMoment	now = DtxNow();
		bool		ask;
		DtxInDoubt	entry;

		if (!may_be_same_cluster(b->system_id, p->system_id))
		{
			i++;
			continue;
		}
		if (b->recorded && !DtxInDoubtGet(&b->gid, &entry))
		{
			forget_behind(i);
			continue;
		}
		ask = b->wait_until == 0 || !b->recorded || !same || now >= b->wait_until;
		if (b->wait_until == 0)
			b->wait_until = now + Max(dtx_commit_timeout, SETTLE_WAIT_MS);

		if (ask && !is_prepared_there(p, &b->gid))
		{
			/* What a server that is another one does not know proves nothing. */
			if (same)
				forget_behind(i);
			else
				i++;
			continue;
		}
		if (p->broken)
			break;
		if (now >= b->wait_until)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("server \"%s\" has not confirmed an earlier transaction of this session yet",
							b->server_name),
					 errdetail("That transaction has committed, but what it did on this server can't be seen there before it is confirmed."),
					 errhint("Try again later.  The resolver goes on until it is confirmed; view \"dtx.in_doubt\" shows what is left.")));

		/* As long as we are responsible, the resolver keeps away from it. */
		if (b->gid.xid == unsettled.xid)
		{
			catch_up_all = true;
			ParticipantForEach(settle_for);
		}
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 ask ? ASK_AGAIN_INTERVAL_MS : CATCH_UP_INTERVAL_MS, we_settle);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * Is a gid prepared on the cluster that a connection leads to, on which no remote
 * transaction has begun?  If that can't be told, it may be.  Throws on interrupts.
 */
static bool
is_prepared_there(Participant *p, const DtxGid *gid)
{
	/* The simple protocol has to wait for what the connection owes. */
	if (p->owing)
	{
		still_owing(p);
		CoordinatorSettle(p);
	}
	if (p->broken || !ParticipantAskPrepared(p, gid))
		return true;
	CoordinatorSettle(p);
	return p->broken || !p->not_prepared;
}

/*
 * A callback of ParticipantForEach(): wait for an outstanding confirmation, if
 * that matters to the one for whom we do that.
 *
 * The one that a connection owes whose first command is on its way is left alone:
 * it comes with the reply to that, which is waited for before anything else is
 * sent.
 */
static void
settle_for(Participant *p)
{
	bool		matters = catch_up_all ||
		(p != catching_up &&
		 may_be_same_cluster(p->system_id, catching_up->system_id));

	if (p->owing && !p->folded && matters)
	{
		if (p == catching_up)
		{
			/* it has not begun, so it can be as if it had never been asked to */
			still_owing(p);
			CoordinatorSettle(p);
		}
		else
			CoordinatorCollect(p);
	}
	else if (p->unsettled && (matters || p->abandoned))
		CoordinatorSettle(p);
}

/*
 * The extension is about to be dropped: settle what this session has left open.
 * On return it is confirmed or handed over.  Throws on interrupts.
 */
void
CoordinatorSettleAll(void)
{
	catching_up = NULL;
	catch_up_all = true;
	ParticipantForEach(settle_for);
	leave_unsettled_transaction();
}

static bool
may_be_same_cluster(uint64 a, uint64 b)
{
	return a == b || a == 0 || b == 0;
}

static void
set_unsettled(Participant *p, bool value)
{
	if (p->unsettled != value)
		nunsettled += value ? 1 : -1;
	p->unsettled = value;
}

/*
 * Make room for what the current transaction may leave to the resolver, and earlier
 * ones whose confirmations are still due: at most one for each connection.  To be
 * called before participants are prepared; throws if out of memory.
 */
static void
reserve_behind(void)
{
	DtxInDoubt	entry;
	int			n;

	for (int i = 0; i < nbehind;)
	{
		if (behind[i].recorded && !DtxInDoubtGet(&behind[i].gid, &entry))
			forget_behind(i);
		else
			i++;
	}
	n = nbehind + ParticipantCount();
	if (n <= max_behind)
		return;
	if (behind == NULL)
		behind = MemoryContextAlloc(TopMemoryContext, sizeof(Behind) * n * 2);
	else
		behind = repalloc(behind, sizeof(Behind) * n * 2);
	max_behind = n * 2;
}

/*
 * A participant of a transaction that has committed is the resolver's business now;
 * "recorded": and in_doubt.c knows of it.  Does not throw.
 */
static void
note_behind(Participant *p, bool recorded)
{
	if (find_behind(&p->gid) >= 0)
		return;
	Assert(nbehind < max_behind);
	if (nbehind >= max_behind)
		return;
	behind[nbehind].gid = p->gid;
	behind[nbehind].system_id = p->system_id;
	behind[nbehind].recorded = recorded;
	behind[nbehind].wait_until = 0;
	strlcpy(behind[nbehind].server_name, p->server_name, NAMEDATALEN);
	nbehind++;
}

/* Index of a gid in behind[], -1 if it is not there. */
static int
find_behind(const DtxGid *gid)
{
	for (int i = 0; i < nbehind; i++)
	{
		if (memcmp(&behind[i].gid, gid, sizeof(DtxGid)) == 0)
			return i;
	}
	return -1;
}

static void
forget_behind(int i)
{
	nbehind--;
	memmove(&behind[i], &behind[i + 1], sizeof(behind[0]) * (nbehind - i));
}

/*
 * The reply of an unsettled participant is in, or is not waited for any more.
 */
static void
settled(Participant *p)
{
	account_for(p, p->state == PARTICIPANT_FINISHED);
	set_unsettled(p, false);
	release(p);
}

/*
 * It is known whether the commit of the transaction that COMMIT did not wait for,
 * p->gid, is confirmed, or that nothing more will be heard of it.
 */
static void
account_for(Participant *p, bool confirmed)
{
	DTX_FAULT("settled", p->conn);
	if (!confirmed)
	{
		hand_over(p);
		DtxLauncherWakeResolver(MyDatabaseId);
	}

	if (unsettled.xid != 0 && unsettled.xid == p->gid.xid)
	{
		if (!confirmed)
			unsettled.failed = true;
		if (--unsettled.due == 0)
		{
			if (unsettled.failed)
				DtxActivityForgetRow();
			else
				DtxActivitySetRow(unsettled.xid, &unsettled.row);
			DtxActivityRelease(unsettled.xid);
			unsettled.xid = 0;
		}
	}
	else if (confirmed)
		DtxInDoubtRemove(&p->gid);	/* see leave_unsettled() */
}

/*
 * A connection whose earlier transaction is unsettled is about to begin another
 * one: may its commands follow before the reply has come?  If so, the reply will
 * be taken when that to the first command is waited for, or by
 * CoordinatorCollect().  Does not throw or wait.
 */
bool
CoordinatorOwe(Participant *p)
{
	if (!p->unsettled || !p->pipelined || p->abandoned || p->broken ||
		!p->introduced || p->deallocate_due || p->reset_due)
		return false;

	/* The resolver may have finished it, which looks like a failure here. */
	if (p->gid.xid != unsettled.xid ||
		DtxNow() >= unsettled.takeover_at)
		return false;

	/* Perhaps it is here, or a part of it, or the connection is gone. */
	ParticipantReceive(p);
	if (!p->reply_due || p->result != NULL)
		return false;
	DTX_FAULT("settle-wait", p->conn);
	set_unsettled(p, false);
	p->reply_due = false;
	p->owing = true;
	p->owed_is_in = false;
	p->confirmed = false;
	p->state = PARTICIPANT_IDLE;
	return true;
}

/*
 * The transaction during which a connection owes a reply, or that connection, is
 * over.  If nothing was sent, the connection is unsettled again; otherwise nobody
 * is going to see the reply.
 */
static void
still_owing(Participant *p)
{
	p->owing = false;
	if (!p->folded && !p->broken)
	{
		set_unsettled(p, true);
		p->reply_due = true;
		p->state = PARTICIPANT_FINISHING;
	}
	else
	{
		p->pipelined = false;
		strlcpy(p->error, "no reply", sizeof(p->error));
		account_for(p, false);
	}
}

/*
 * A connection owes a reply, and what is to be sent can't be sent before it is
 * here: wait for it, as CoordinatorSettle() does.  Throws on interrupts.
 *
 * If it is not the confirmation, the resolver gets that transaction, and the
 * connection is broken, unless it can be used all the same.  The current
 * transaction has nothing to do with it, and has not sent anything: see
 * CoordinatorReconnect().
 */
void
CoordinatorCollect(Participant *p)
{
	DtxMoment	deadline = DtxIn(Max(dtx_commit_timeout, SETTLE_WAIT_MS));

	while (p->owing)
	{
		ParticipantState state = p->state;
		long		timeout;
		bool		confirmed;
		bool		visible;

		/* Only between these two it looks like a reply that is ours. */
		p->state = PARTICIPANT_FINISHING;
		p->reply_due = true;
		ParticipantReceive(p);
		timeout = DtxUntil(deadline);
		if (p->reply_due && (timeout <= 0 || PQsocket(p->conn) < 0))
			ParticipantGiveUp(p, "no reply");
		confirmed = p->state == PARTICIPANT_FINISHED;
		visible = ParticipantOutcomeVisible(p);
		p->state = state;
		if (!p->reply_due)
		{
			p->owing = false;
			account_for(p, confirmed);
			if (!confirmed && !visible)
				p->broken = true;
			break;
		}
		p->reply_due = false;

		(void) ParticipantWait(p, timeout, we_settle);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}

/*
 * A connection whose remote transaction is only about to begin on its server, or
 * has to begin anew, can't be used: make it anew, as postgres_fdw does when START
 * TRANSACTION fails (GetConnection in contrib/postgres_fdw/connection.c).  Whatever
 * this session has committed on that server is visible then.  Throws on interrupts,
 * and if it was in vain.
 */
void
CoordinatorReconnect(Participant *p)
{
	if (p->owing)
	{
		p->owing = false;
		strlcpy(p->error, "connection lost", sizeof(p->error));
		account_for(p, false);
	}

	PG_TRY();
	{
		if (ParticipantReconnect(p, we_settle))
		{
			if (p->wanted && CoordinatorTwoPhaseCommit())
				CoordinatorIntroduce(p);
			if (!p->broken)
				CoordinatorCatchUp(p);
		}
	}
	PG_CATCH();
	{
		p->broken = true;
		PG_RE_THROW();
	}
	PG_END_TRY();

	if (p->broken)
		ereport(ERROR,
				(errcode(ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION),
				 p->identified ?
				 errmsg("could not connect to server \"%s\"", p->server_name) :
				 errmsg("could not connect to a server"),
				 PQerrorMessage(p->conn)[0] != '\0' ?
				 errdetail_internal("%s", DtxCleanText(PQerrorMessage(p->conn),
													   DTX_MAX_REMOTE_TEXT)) : 0));
}

/*
 * The reply that a connection owed is in.  Does not throw.
 */
void
CoordinatorTakeOwed(Participant *p)
{
	p->owed_is_in = false;
	account_for(p, p->confirmed);
}

/*
 * A callback of ParticipantForEach(): take what has arrived, without waiting;
 * what has not is the resolver's business.  The connection stays unsettled
 * then, because its reply must still be received before it is used.
 */
static void
leave_unsettled(Participant *p)
{
	if (p->owing && p->gid.xid == unsettled.xid)
	{
		/* taken when the reply to the first command is, if ever */
		hand_over(p);
		unsettled.failed = true;
	}
	if (!p->unsettled)
		return;
	ParticipantReceive(p);
	if (!p->reply_due)
		settled(p);
	else
	{
		if (p->gid.xid == unsettled.xid)
		{
			hand_over(p);
			unsettled.failed = true;
		}
		if (p->abandoned)
		{
			/* nobody will ever come for the reply */
			ParticipantGiveUp(p, "no reply");
			set_unsettled(p, false);
			release(p);
		}
	}
}

/*
 * The backend needs its slot for another distributed transaction, or exits:
 * stop being responsible for the unsettled one.  Does not throw or wait.
 */
static void
leave_unsettled_transaction(void)
{
	if (unsettled.xid == 0)
		return;
	ParticipantForEach(leave_unsettled);
	if (unsettled.xid == 0)
		return;
	DtxActivityForgetRow();
	DtxActivityRelease(unsettled.xid);
	unsettled.xid = 0;
	DtxLauncherWakeResolver(MyDatabaseId);
}

static void
dtx_before_exit(int code, Datum arg)
{
	leave_unsettled_transaction();
}

/*
 * Make a participant the resolver's business.  Does not throw.  If shared
 * memory is full nothing is lost: the next full pass finds the gid on its
 * server, and the decision table says what is to become of it.  If it is to be
 * committed, the session's next transactions there wait for that.
 */
static void
hand_over(Participant *p)
{
	DtxInDoubt	entry;
	bool		recorded;

	memset(&entry, 0, sizeof(entry));
	entry.gid = p->gid;
	entry.serverid = p->serverid;
	entry.umid = p->umid;
	entry.system_id = p->system_id;
	entry.timeline = p->timeline;
	entry.endpoint = p->endpoint;
	entry.remote_xid = p->remote_xid;
	entry.xid_system_id = p->system_id;
	entry.userid = GetSessionUserId();
	if (PQuser(p->conn) != NULL)
		strlcpy(entry.remote_user, PQuser(p->conn), NAMEDATALEN);
	entry.decision = p->decision;
	if (phase == PHASE_COMMIT && p->gid.xid == current_xid)
	{
		entry.commit_lsn = XactLastCommitEnd;
		entry.commit_level = synchronous_commit;
	}
	entry.since = GetCurrentTimestamp();
	strlcpy(entry.last_error, p->error, sizeof(entry.last_error));
	recorded = DtxInDoubtAdd(&entry);
	if (p->decision == DTX_COMMIT)
		note_behind(p, recorded);
	DtxStatsAdd(DTX_STAT_HANDED_OVER, 1);
}

/* ----------------------------------------------------------------
 * Waiting
 * ----------------------------------------------------------------
 */

/*
 * Make the set of things to wait for: every member, the latch, postmaster
 * death.  Throws if there is no descriptor left.
 */
static void
make_wait_set(void)
{
	dlist_iter	iter;

	if (wait_set_made)
		return;
	if (wait_set_fits())
	{
		wait_set_made = true;
		return;
	}

	if (wait_set != NULL)
	{
		WaitEventSet *set = wait_set;

		wait_set = NULL;
		FreeWaitEventSet(set);
	}
	if (max_waited_for < nmembers)
	{
		if (waited_for == NULL)
			waited_for = MemoryContextAlloc(TopMemoryContext,
											sizeof(*waited_for) * nmembers);
		else
			waited_for = repalloc(waited_for, sizeof(*waited_for) * nmembers);
		max_waited_for = nmembers;
	}

	nwaited_for = -1;			/* not complete yet */
	wait_set = DtxCreateWaitEventSet(nmembers + 2);
	AddWaitEventToSet(wait_set, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
	DtxAddPostmasterDeath(wait_set, WL_POSTMASTER_DEATH);
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (PQsocket(p->conn) >= 0)
			AddWaitEventToSet(wait_set, WL_SOCKET_READABLE, PQsocket(p->conn),
							  NULL, p);
	}

	nwaited_for = 0;
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		waited_for[nwaited_for].serial = p->serial;
		waited_for[nwaited_for].socket = PQsocket(p->conn);
		nwaited_for++;
	}
	wait_set_made = true;
}

/*
 * Is the set of an earlier transaction that of the current members?  It knows a
 * descriptor, not its number: that of a connection which was closed meanwhile has
 * left it, and a new connection has another serial.
 */
static bool
wait_set_fits(void)
{
	dlist_iter	iter;
	int			i = 0;

	if (wait_set == NULL || nwaited_for != nmembers)
		return false;
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (waited_for[i].serial != p->serial ||
			waited_for[i].socket != PQsocket(p->conn))
			return false;
		i++;
	}
	return true;
}

/*
 * Where nothing may throw: has the end of the wait been requested?  Returns
 * WAIT_COMPLETE if not.
 */
static WaitEnd
requested_end(void)
{
	if (ProcDiePending)
		return WAIT_TERMINATED;
	if (!QueryCancelPending)
		return WAIT_COMPLETE;

	/*
	 * A statement_timeout is for the statement, of which the COMMIT of a procedure
	 * is a part.  So it goes on to its end, and is canceled then.  (It is off in a
	 * COMMIT that is a statement of its own, see finish_xact_command in
	 * tcop/postgres.c.)
	 */
	if (get_timeout_indicator(STATEMENT_TIMEOUT, false))
		return WAIT_STATEMENT_TIMEOUT;
	QueryCancelPending = false;
	return WAIT_CANCELED;
}

/*
 * Where nothing may throw: everything is going down, leave as soon as possible.
 */
static void
end_without_postmaster(void)
{
	ProcDiePending = true;
	InterruptPending = true;
	whereToSendOutput = DestNone;
}

/*
 * Wait until no reply is due, for at most timeout_ms milliseconds.
 *
 * Before the local commit: throws on interrupts, and returns WAIT_FAILED as
 * soon as one participant has failed.  After it, and in an abort: does not
 * throw, and takes a cancel or termination request as the wish to stop
 * waiting.  The request to terminate stays pending, for the next
 * CHECK_FOR_INTERRUPTS() outside, and so does a statement_timeout.
 */
static WaitEnd
wait_replies(int timeout_ms, uint32 wait_event)
{
	bool		may_throw = phase == PHASE_NONE || phase == PHASE_PREPARE;
	DtxMoment	deadline = DtxIn(timeout_ms);
	dlist_iter	iter;

	/* Some replies may be here already. */
	dlist_foreach(iter, &members)
		receive(dlist_container(Participant, node, iter.cur));

	for (;;)
	{
		WaitEvent	events[EVENTS_AT_ONCE];
		long		timeout;
		int			nevents;

		if (may_throw && first_failed() != NULL)
			return WAIT_FAILED;
		if (!any_reply_due())
		{
			/*
			 * Even if there was nothing to wait for: what comes next may be a
			 * COMMIT, which can't be taken back.
			 */
			if (may_throw)
				CHECK_FOR_INTERRUPTS();
			return WAIT_COMPLETE;
		}

		timeout = DtxUntil(deadline);
		if (timeout <= 0)
			return WAIT_TIMED_OUT;

		nevents = WaitEventSetWait(wait_set, timeout, events, EVENTS_AT_ONCE,
								   wait_event);
		for (int i = 0; i < nevents; i++)
		{
			if (events[i].events & WL_POSTMASTER_DEATH)
			{
				if (may_throw)
					proc_exit(1);
				end_without_postmaster();
			}
			else if (events[i].events & WL_LATCH_SET)
				ResetLatch(MyLatch);
			else
				receive((Participant *) events[i].user_data);
		}

		if (may_throw)
		{
			canceled = QueryCancelPending || ProcDiePending;
			CHECK_FOR_INTERRUPTS();
			canceled = false;
			continue;
		}

		if (ProcSignalBarrierPending)
			(void) guarded(absorb_barrier, WAIT_COMPLETE);
		if (any_reply_due())
		{
			WaitEnd		end = requested_end();

			if (end != WAIT_COMPLETE)
				return end;
		}
	}
}

/*
 * Take in what a participant has sent; in an abort, go on with the rollback of
 * what turns out to have been prepared.
 */
static void
receive(Participant *p)
{
	bool		was_due = p->reply_due;

	ParticipantReceive(p);
	if (was_due && !p->reply_due)
		DTX_FAULT(phase == PHASE_PREPARE ? "prepare-reply" :
				  phase == PHASE_COMMIT ? "commit-reply" :
				  phase == PHASE_ABORT ? "rollback-reply" : "ask-reply",
				  p->conn);
	if (phase == PHASE_ABORT && p->state == PARTICIPANT_PREPARED)
	{
		DTX_FAULT("rollback-late-before", p->conn);
		(void) ParticipantFinish(p, DTX_ROLLBACK, false);
		DTX_FAULT("rollback-late-sent", p->conn);
	}
	if (was_due && !p->reply_due && phase != PHASE_NONE)
		DtxActivitySetWaiting(p->index, false);
}

static bool
any_reply_due(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &members)
	{
		if (dlist_container(Participant, node, iter.cur)->reply_due)
			return true;
	}
	return false;
}

/*
 * The first member whose last step failed, or NULL.
 */
static Participant *
first_failed(void)
{
	dlist_iter	iter;

	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->state == PARTICIPANT_NOT_PREPARED ||
			p->state == PARTICIPANT_UNKNOWN ||
			((p->state == PARTICIPANT_ASKED ||
			  p->state == PARTICIPANT_ENDING) && !p->reply_due))
			return p;
	}
	return NULL;
}

/*
 * Some servers did not answer in time.  Their connections are given up now, so
 * that the abort does not wait for them again.
 */
static void
throw_timeout(void)
{
	dlist_iter	iter;

	unconfirmed[0] = '\0';
	dlist_foreach(iter, &members)
	{
		Participant *p = dlist_container(Participant, node, iter.cur);

		if (p->reply_due)
		{
			note_unconfirmed(p);
			ParticipantGiveUp(p, "no reply");
		}
	}
	ereport(ERROR,
			(errcode(ERRCODE_QUERY_CANCELED),
			 errmsg("canceling COMMIT because servers did not answer in time: %s",
					unconfirmed),
			 errdetail("There was no answer within %d ms (\"pg_dtx.prepare_timeout\").",
					   dtx_prepare_timeout),
			 errhint("The transaction is rolled back on all servers.")));
}

/*
 * Add a server to the list of those that have not answered.
 */
static void
note_unconfirmed(Participant *p)
{
	size_t		len = strlen(unconfirmed);

	/* whole names only, because a character that is cut can't be sent */
	if (len + strlen(p->server_name) + 16 > sizeof(unconfirmed))
	{
		if (len < 3 || strcmp(unconfirmed + len - 3, "...") != 0)
			strlcat(unconfirmed, ", ...", sizeof(unconfirmed));
		return;
	}
	snprintf(unconfirmed + len, sizeof(unconfirmed) - len, "%s\"%s\"",
			 len > 0 ? ", " : "", p->server_name);
}
