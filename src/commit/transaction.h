/*-------------------------------------------------------------------------
 *
 * transaction.h
 *		The current local transaction, and who takes part in it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TRANSACTION_H
#define PG_DTX_TRANSACTION_H

#include "base/backoff.h"
#include "commit/connection.h"
#include "commit/participant.h"
#include "lib/ilist.h"
#include "net/wire.h"
#include "portability/instr_time.h"
#include "storage/itemptr.h"

/* Where the current local transaction stands. */
typedef enum DtxPhase
{
	DTX_PHASE_NONE = 0,			/* before COMMIT */
	DTX_PHASE_OFF,				/* in COMMIT, without pg_dtx */
	DTX_PHASE_PLAIN,			/* in COMMIT, left to postgres_fdw */
	DTX_PHASE_PREPARE,			/* in COMMIT, participants are being prepared */
	DTX_PHASE_COMMIT,			/* committed locally */
	DTX_PHASE_ABORT,			/* aborted after PREPARE began */
	DTX_PHASE_PLAIN_ABORT		/* aborted before */
} DtxPhase;

/*
 * Who took part is a fact of the transaction, not of the connections that are still
 * open: each remote transaction that began in it is a participant, or has left because
 * nothing was sent in it, or is lost.  One that is lost keeps the transaction from
 * committing.
 */
typedef struct DtxTransaction
{
	DtxPhase	phase;
	dlist_head	participants;	/* in order of appearance */
	int			nbegun;			/* remote transactions that have begun in it,
								 * of these: */
	int			nunused;		/* left */
	int			nlost;			/* lost */
	char		lost_server[NAMEDATALEN];	/* the first that is lost, or ""
											 * if its name is not known */

	/* for the wait */
	DtxWire   **wires;			/* those of the participants; kept for later
								 * transactions */
	int			max_wires;		/* room in it */
	bool		canceled;		/* has a cancel or termination ended the wait
								 * before the local commit? */

	/* from DTX_PHASE_PREPARE on */
	uint64		xid;			/* DtxGid.xid of its gids, or 0 */
	DtxParticipant *point;		/* the participant that decides, or NULL: the
								 * coordinator does */
	ItemPointerData row;		/* its decision row; invalid if there is none */
	instr_time	phase_start;
	DtxMoment	committing_since;
	bool		decision_durable;	/* is the decision as durable as commits
									 * of the node that decides are? */
} DtxTransaction;

extern DtxTransaction dtx_transaction;

/* The participant at which a dlist_iter, or dlist_mutable_iter, stands. */
#define DTX_PARTICIPANT(iter) \
	dlist_container(DtxParticipant, node, (iter).cur)

extern void DtxTransactionSetPhase(DtxPhase phase);
extern void DtxTransactionJoin(DtxConnection *c,
							   void (*replied) (DtxParticipant *p));
extern void DtxTransactionSetUseCheck(void (*check) (DtxParticipant *p));
extern void DtxTransactionAnnounce(DtxParticipant *p);
extern void DtxTransactionLoseConnection(DtxParticipant *p);
extern int	DtxTransactionParticipants(void);
extern void DtxTransactionCheckNoneLost(void);
extern void DtxTransactionCheckAllSeen(void);
extern void DtxTransactionCheckCommittable(void);
extern void DtxTransactionMakeWaitSet(void);
extern int	DtxTransactionWires(void);
extern void DtxTransactionShow(void);
extern bool DtxTransactionIsShown(void);
extern void DtxTransactionKeepShown(void);
extern void DtxTransactionHide(uint64 xid);
extern void DtxTransactionEnd(void);

#endif							/* PG_DTX_TRANSACTION_H */
