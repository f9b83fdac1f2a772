/*-------------------------------------------------------------------------
 *
 * participant.h
 *		One postgres_fdw connection and the remote transaction on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PARTICIPANT_H
#define PG_DTX_PARTICIPANT_H

#include "base/backoff.h"
#include "base/gid.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "state/in_doubt.h"
#include "storage/latch.h"

/*
 * Where the remote transaction stands.  Up to OPEN postgres_fdw drives the
 * connection; in all later states the coordinator does, and the wrappers keep
 * postgres_fdw's own commands away from it.
 */
typedef enum ParticipantState
{
	PARTICIPANT_IDLE = 0,		/* no remote transaction */
	PARTICIPANT_OPEN,			/* remote transaction open */
	PARTICIPANT_ASKED,			/* asked whether it wrote */
	PARTICIPANT_ENDING,			/* reader: COMMIT TRANSACTION sent */
	PARTICIPANT_ENDED,			/* reader: committed in one phase */
	PARTICIPANT_PREPARING,		/* PREPARE TRANSACTION sent */
	PARTICIPANT_PREPARED,		/* prepared */
	PARTICIPANT_NOT_PREPARED,	/* server refused: the transaction is gone there */
	PARTICIPANT_UNKNOWN,		/* connection lost, prepared or not */
	PARTICIPANT_FINISHING,		/* COMMIT or ROLLBACK PREPARED sent */
	PARTICIPANT_FINISHED,		/* confirmed */
	PARTICIPANT_UNFINISHED		/* not confirmed, the resolver's business */
} ParticipantState;

/*
 * Room for the longest START TRANSACTION, with READ ONLY and DEFERRABLE
 * (begin_remote_xact in contrib/postgres_fdw/connection.c, 19).
 */
#define DTX_START_SIZE	128

/* What a connection without a remote transaction was asked. */
typedef enum IdleQuestion
{
	QUESTION_NONE = 0,			/* nothing, or nobody is interested in the answer */
	QUESTION_SETUP,				/* set what postgres_fdw has set */
	QUESTION_IDENTITY,			/* which cluster is this? */
	QUESTION_PREPARED			/* is a gid prepared? */
} IdleQuestion;

/* Cursors that postgres_fdw has closed, and the server does not know it yet. */
#define DTX_MAX_CLOSES	8

typedef struct StatementCache StatementCache;	/* statement.c */
typedef struct FirstCommand FirstCommand;	/* interpose.c */

/* A connection of postgres_fdw.  Lives from its PQconnect to its PQfinish. */
typedef struct Participant
{
	PGconn	   *conn;			/* hash key */
	uint64		serial;			/* no other connection of this backend ever has
								 * or had it */

	/* identity, found once per connection */
	char	  **keywords;		/* parameters as postgres_fdw gave them, with a
								 * NULL at the end, until identified */
	char	  **values;			/* likewise */
	bool		identified;		/* are the next three known? */
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* user mapping */
	char		server_name[NAMEDATALEN];
	bool		wanted;			/* was the extension there when it was made? */
	bool		introduced;		/* has the next one been asked for? */
	uint64		system_id;		/* system identifier of the cluster, or 0 */
	uint64		timeline;		/* of the cluster when it was asked, or 0 */
	char	   *endpoint_text;	/* DtxEndpointText(), if identified */
	uint64		endpoint;		/* DtxEndpoint() of it, as this coordinator's: */
	uint64		endpoint_of;	/* its identifier, 0: not known yet */
	Oid			default_role;	/* role there as which it begins, unless that is
								 * the session user, or not known: InvalidOid */
	bool		cautious;		/* do the session's own settings hide warnings, or
								 * have commands canceled that take long? */

	char	   *setup;			/* what postgres_fdw has sent before the first
								 * transaction, as one text, or NULL */
	bool		set_up;			/* is that all of it? */

	DtxMoment	last_start;		/* local start of its last transaction */

	/* the current remote transaction */
	char		start_command[DTX_START_SIZE];	/* START TRANSACTION that was put
												 * off, or "" */
	FirstCommand *first;		/* what was sent together with it, to be sent again
								 * if the connection turns out to be dead; or NULL */
	bool		start_due;		/* was it sent, and is its own reply not here yet? */
	bool		start_again;	/* is the transaction to begin anew, on another
								 * connection, because it can't have seen what an
								 * earlier one did? */
	int			ncloses;		/* entries of the next one */
	uint32		closes[DTX_MAX_CLOSES]; /* numbers of the cursors whose CLOSE
										 * was put off */
	ParticipantState state;
	dlist_node	node;			/* in the coordinator's list, unless IDLE */
	bool		used;			/* was anything sent after START TRANSACTION? */
	bool		seen;			/* has CoordinatorSeen() been called? */
	bool		wrote;			/* sent data-modifying SQL, or said it wrote */
	bool		asked;			/* has it said whether it wrote? */
	int			index;			/* position in the list, for dtx.transactions */
	DtxGid		gid;			/* valid from PREPARING on */
	char		gid_text[DTX_GID_SIZE];
	uint64		remote_xid;		/* full transaction id there, 0 if not known;
								 * valid from PREPARED on */
	DtxDecision decision;		/* valid from FINISHING on */
	char		commit_command[DTX_GID_SIZE + 32];	/* built at PREPARE */
	char		rollback_command[DTX_GID_SIZE + 32];	/* likewise */

	/* replies */
	bool		warned;			/* since the last PREPARE TRANSACTION or COMMIT
								 * PREPARED, has the server said that what it
								 * answers may not be replicated? */
	PQnoticeReceiver notice_receiver;	/* what other notices go to, ... */
	void	   *notice_arg;		/* ... and its argument */
	bool		reply_due;		/* a command of ours is unanswered */
	IdleQuestion question;		/* what was asked, if the state is IDLE */
	bool		not_prepared;	/* after QUESTION_PREPARED: the server says so */
	bool		pipelined;		/* COMMIT PREPARED was sent as a pipeline of its
								 * own, and is unanswered */
	bool		owing;			/* the reply to that command, for "gid", precedes
								 * those to the commands of the current remote
								 * transaction, or of the one about to begin */
	bool		owed_is_in;		/* has it come meanwhile?  Then "confirmed" is
								 * valid, and the coordinator is to be told */
	bool		confirmed;		/* was it the confirmation? */
	int			reads;			/* times that its reply was read from */
	PGresult   *result;			/* last result of that command, or NULL */
	char		error[DTX_ERROR_SIZE];	/* why UNKNOWN or UNFINISHED */
	WaitEventSet *wait_set;		/* its socket, the latch, and postmaster death;
								 * or NULL */
	pgsocket	wait_socket;	/* the socket in there */

	/* commands of exec/run.c */
	bool		piped;			/* in pipeline mode, with results due */

	StatementCache *statements; /* prepared by statement.c, or NULL */
	uint32		last_statement; /* number in the name of the last of them */

	/* what the wrappers have to pretend */
	bool		folded;			/* a command of postgres_fdw is on its way in
								 * pipeline mode, with others before it */
	int			synthetic;		/* results still to be faked: 2 OK, 1 NULL */
	PGresult   *answer;			/* what to give instead of that OK, or NULL */
	bool		deallocate_due; /* DEALLOCATE ALL was put off */
	bool		reset_due;		/* PREPARE has changed settings of the session */
	bool		abandoned;		/* postgres_fdw called PQfinish */
	bool		unsettled;		/* COMMIT has returned without the reply to
								 * COMMIT PREPARED */
	bool		broken;			/* must not be used again */
} Participant;

extern Participant *ParticipantFind(PGconn *conn);
extern Participant *ParticipantCreate(const char *const *keywords,
									  const char *const *values);
extern void ParticipantAttach(Participant *p, PGconn *conn);
extern void ParticipantDestroy(Participant *p);
extern PQnoticeReceiver ParticipantPassNotices(Participant *p,
											   PQnoticeReceiver proc, void *arg);
extern void ParticipantIdentify(Participant *p);
extern void ParticipantReset(Participant *p);
extern void ParticipantForEach(void (*callback) (Participant *p));
extern int	ParticipantCount(void);
extern bool ParticipantControlled(const Participant *p);
extern bool ParticipantIntroduce(Participant *p);
extern bool ParticipantAskPrepared(Participant *p, const DtxGid *gid);
extern bool ParticipantAsk(Participant *p);
extern bool ParticipantEnd(Participant *p);
extern bool ParticipantPrepare(Participant *p, const DtxGid *gid);
extern bool ParticipantFinish(Participant *p, DtxDecision decision,
							  bool pipeline);
extern void ParticipantReceive(Participant *p);
extern bool ParticipantOutcomeVisible(const Participant *p);
extern bool ParticipantDrain(Participant *p);
extern bool ParticipantQuiet(Participant *p);
extern int	ParticipantSendPending(Participant *p);
extern int	ParticipantWait(Participant *p, long timeout_ms,
							uint32 wait_event);
extern bool ParticipantUnfold(Participant *p, bool wait);
extern bool ParticipantReconnect(Participant *p, uint32 wait_event);
extern void ParticipantGiveUp(Participant *p, const char *error);
extern void ParticipantDeallocate(Participant *p);
extern void ParticipantThrow(Participant *p, const char *what);

#endif							/* PG_DTX_PARTICIPANT_H */
