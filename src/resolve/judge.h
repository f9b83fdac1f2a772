/*-------------------------------------------------------------------------
 *
 * judge.h
 *		From facts to verdicts: what is to become of a prepared transaction, and
 *		whether one that is not prepared any more may be forgotten.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_JUDGE_H
#define PG_DTX_JUDGE_H

#include "base/history.h"
#include "base/outcome.h"

/* What the commit log says of that transaction id. */
typedef enum DtxXactLog
{
	DTX_LOG_IN_PROGRESS,
	DTX_LOG_COMMITTED,
	DTX_LOG_ABORTED,
	DTX_LOG_TRUNCATED,			/* it does not reach back so far */
	DTX_LOG_COUNT
} DtxXactLog;

/* All that a verdict rests on.  Gathered by facts.c. */
typedef struct DtxFacts
{
	bool		authentic;		/* is its seal right? */
	DtxHistory	history;
	bool		suspended;		/* is resolution of former boots suspended? */
	bool late;					/* was it prepared long after this boot began? */
	bool		responsible;	/* does a live backend answer for it?  Asked
								 * before "row" and "log" were read */
	DtxXidOrigin xid;
	bool		row;			/* is its decision to commit recorded? */
	bool		forced;			/* has a human decided to commit it? */
	bool		forced_rollback;	/* or to roll it back? */
	DtxXactLog	log;			/* meaningless if xid is FUTURE or UNWRITTEN */
} DtxFacts;

typedef enum DtxVerdict
{
	DTX_VERDICT_LEAVE,			/* it is being taken care of */
	DTX_VERDICT_COMMIT,			/* proven: its transaction has committed */
	DTX_VERDICT_ROLLBACK,		/* proven: its transaction has not committed
								 * and never will */
	DTX_VERDICT_FORGED,			/* this coordinator did not give that name */
	DTX_VERDICT_OTHER_INSTANCE, /* another copy of this database has made it,
								 * or may have */
	DTX_VERDICT_WAIT,			/* a server decides, and has not said yet */
	DTX_VERDICT_UNKNOWN			/* this database's own; nothing proves how its
								 * transaction ended */
} DtxVerdict;

/* All that a verdict rests on if a server decides. */
typedef struct DtxDecidedFacts
{
	bool		authentic;		/* as in DtxFacts */
	bool		responsible;
	bool		forced;
	bool		forced_rollback;
	DtxOutcome	outcome;		/* what it says of its transaction, on the
								 * cluster and timeline that the gid names;
								 * FUTURE only if it has said so twice */
} DtxDecidedFacts;

/* Does one thing equal what it was when the transaction was prepared? */
typedef enum DtxSame
{
	DTX_SAME,
	DTX_DIFFERENT,
	DTX_NOT_TOLD,				/* it was not known then, or is not now */
	DTX_SAME_COUNT
} DtxSame;

/*
 * What is known of a gid that a complete list of a server, made after the
 * transaction was over, does not show, or that this visit has finished.
 */
typedef struct DtxGoneFacts
{
	bool		finished_here;	/* our own command has finished it */
	bool		decided;		/* is it known what was to become of it, ... */
	bool		commit;			/* ... and was that to be committed? */
	DtxSame		cluster;		/* system identifier */
	bool		same_endpoint;	/* options of server and mapping, passwords
								 * apart */
	DtxSame		timeline;
	bool		xid_known;		/* is the remote transaction id? */
	DtxOutcome	outcome;		/* of that id */
} DtxGoneFacts;

typedef enum DtxGoneVerdict
{
	DTX_GONE_FORGET,			/* it ended as decided: proven */
	DTX_GONE_ELSEWHERE,			/* wait: the server leads to another cluster */
	DTX_GONE_UNIDENTIFIED,		/* wait: it cannot be told which cluster it is */
	DTX_GONE_NO_OUTCOME,		/* wait: how it ended is not known */
	DTX_GONE_COMMITTED,			/* damage: committed against the decision */
	DTX_GONE_ROLLED_BACK,		/* damage: rolled back against the decision */
	DTX_GONE_LOST,				/* damage: the server has lost it */
	DTX_GONE_UNKNOWN			/* damage: it is past finding out */
} DtxGoneVerdict;

extern DtxVerdict DtxJudge(const DtxFacts *facts);
extern DtxVerdict DtxJudgeDecided(const DtxDecidedFacts *facts);
extern bool DtxReappeared(const DtxFacts *facts);
extern DtxGoneVerdict DtxMayForget(const DtxGoneFacts *facts);

#endif							/* PG_DTX_JUDGE_H */
