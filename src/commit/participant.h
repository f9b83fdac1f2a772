/*-------------------------------------------------------------------------
 *
 * participant.h
 *		One remote transaction of a local one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PARTICIPANT_H
#define PG_DTX_PARTICIPANT_H

#include "base/gid.h"
#include "commit/connection.h"
#include "lib/ilist.h"
#include "libpq-fe.h"
#include "state/in_doubt.h"

/*
 * Where the remote transaction stands.  In OPEN and ASKED postgres_fdw drives the
 * connection; in all later states the coordinator does, and the wrappers keep
 * postgres_fdw's own commands away from it.  Which states may follow each other is
 * in participant.c.
 */
typedef enum DtxParticipantState
{
	DTX_PARTICIPANT_OPEN,		/* begun, or START TRANSACTION is put off */
	DTX_PARTICIPANT_ASKED,		/* asked whether it wrote */
	DTX_PARTICIPANT_ENDING,		/* reader: COMMIT TRANSACTION sent */
	DTX_PARTICIPANT_ENDED,		/* reader: committed in one phase */
	DTX_PARTICIPANT_DECIDING,	/* commit point: COMMIT TRANSACTION sent; if
								 * no reply is due, what became of it is not
								 * known */
	DTX_PARTICIPANT_DECIDED,	/* commit point: committed */
	DTX_PARTICIPANT_FAILED,		/* one of these was not answered as it should:
								 * it is not committed */
	DTX_PARTICIPANT_PREPARING,	/* PREPARE TRANSACTION sent */
	DTX_PARTICIPANT_PREPARED,
	DTX_PARTICIPANT_NOT_PREPARED,	/* the server has refused: it is gone
									 * there */
	DTX_PARTICIPANT_UNKNOWN,	/* connection lost, prepared or not */
	DTX_PARTICIPANT_FINISHING,	/* COMMIT or ROLLBACK PREPARED sent */
	DTX_PARTICIPANT_FINISHED,	/* confirmed */
	DTX_PARTICIPANT_UNFINISHED	/* not confirmed: to be left to the resolver */
} DtxParticipantState;

/* What was sent in it. */
typedef enum DtxParticipantUse
{
	DTX_UNUSED,					/* nothing but START TRANSACTION, if that */
	DTX_ANNOUNCED,				/* likewise, but it is identified and shown */
	DTX_USED					/* commands */
} DtxParticipantUse;

/* Has it written? */
typedef enum DtxWrites
{
	DTX_WRITES_UNKNOWN,			/* it may have */
	DTX_READ,					/* no: it said so, after its last command */
	DTX_WROTE					/* data-modifying SQL was sent, or it said so */
} DtxWrites;

typedef struct DtxParticipant
{
	dlist_node	node;			/* in its transaction, or among those whose
								 * confirmations are late */
	DtxConnection *connection;
	int			index;			/* its number in the transaction, from 0 */
	DtxParticipantState state;
	DtxParticipantUse use;
	DtxWrites	writes;
	DtxGid		gid;			/* valid from PREPARING on */
	uint64		remote_xid;		/* full transaction id there, 0 if not known */
	bool		xid_asked;		/* was it asked for, behind a command of
								 * postgres_fdw's? */
	uint64		requests_seen;	/* DtxFlushedRequests() when it was told */
	uint64		xid_lsn;		/* a WAL record there that carries that id, or
								 * a higher one, ends here; 0: not known */
	uint64		end_lsn;		/* of PREPARE TRANSACTION, or the COMMIT that
								 * decides: its record there begins here, or
								 * later; 0: not known */
	DtxDecision decision;		/* valid from FINISHING on, and when handed
								 * over */
	bool		commit_seen;	/* of the COMMIT that decides: has the server
								 * said that it is done? */
	bool		proven;			/* "decision" is one that lasts: the resolver
								 * need not ask the server that has decided */
	bool		not_replicated; /* of the last PREPARE TRANSACTION, COMMIT
								 * PREPARED, or COMMIT that decides: may what
								 * the server has answered not be replicated? */
	PGresult   *result;			/* last result of the last command of ours, or
								 * NULL */
	char		error[DTX_ERROR_SIZE];	/* why FAILED, UNKNOWN, NOT_PREPARED
										 * or UNFINISHED */
	void		(*replied) (struct DtxParticipant *p);	/* called when the reply
														 * to a command of ours
														 * is complete, or lost */
} DtxParticipant;

extern DtxParticipant *DtxParticipantBegin(DtxConnection *c, int index,
										   void (*replied) (DtxParticipant *p));
extern void DtxParticipantFree(DtxParticipant *p);
extern bool DtxParticipantIsOurs(const DtxParticipant *p);
extern bool DtxParticipantReplyDue(const DtxParticipant *p);
extern void DtxParticipantNoteUse(DtxParticipant *p, bool writes);
extern bool DtxParticipantAskPointBehind(DtxParticipant *p);

/* before the local commit */
extern bool DtxParticipantAsk(DtxParticipant *p);
extern bool DtxParticipantAskPoint(DtxParticipant *p);
extern bool DtxParticipantFlushIsDue(const DtxParticipant *p);
extern bool DtxParticipantOthersTell(const DtxParticipant *p);
extern bool DtxParticipantPointFlushes(const DtxParticipant *p);
extern bool DtxParticipantCommitReader(DtxParticipant *p);
extern bool DtxParticipantPrepare(DtxParticipant *p, const DtxGid *gid);
extern bool DtxParticipantDecide(DtxParticipant *p);
extern void DtxParticipantDecided(DtxParticipant *p, bool committed, bool replicated);
extern void DtxParticipantThrow(DtxParticipant *p, const char *what);

/* at any time */
extern bool DtxParticipantFinish(DtxParticipant *p, DtxDecision decision,
								 bool followed);
extern void DtxParticipantLeaveUnfinished(DtxParticipant *p, DtxDecision decision,
										  const char *why);
extern void DtxParticipantGiveBack(DtxParticipant *p);

/* Is the remote transaction of a connection out of postgres_fdw's hands? */
static inline bool
DtxParticipantTookOver(const DtxConnection *c)
{
	return c->participant != NULL && DtxParticipantIsOurs(c->participant);
}

#endif							/* PG_DTX_PARTICIPANT_H */
