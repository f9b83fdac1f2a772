/*-------------------------------------------------------------------------
 *
 * gate.h
 *		The gate through which distributed transactions commit, and which is closed
 *		while snapshots are taken on several servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GATE_H
#define PG_DTX_GATE_H

#include "base/backoff.h"
#include "base/gid.h"

/* Nodes that are told apart.  Who has more counts as being on all of them. */
#define DTX_GATE_NODES	16

/* A server on which a transaction commits, or a snapshot is taken. */
typedef struct DtxGateNode
{
	uint64		system_id;		/* its cluster, 0 if not known */
	Oid			serverid;		/* foreign server that leads there */
	int			index;			/* of a committer: the participant's number */
} DtxGateNode;

/* What is closed. */
typedef enum DtxGateKind
{
	DTX_GATE_COMMIT,			/* nothing is committed */
	DTX_GATE_PREPARE			/* nothing is prepared, either */
} DtxGateKind;

/* Who keeps a gate from being empty. */
typedef struct DtxGateBlocker
{
	int			pid;			/* a session that commits */
	Oid			serverid;		/* one of the servers that it concerns, or
								 * InvalidOid */
} DtxGateBlocker;

extern Size DtxGateShmemSize(void);
extern void DtxGateShmemInit(void);

/* by who commits; those that wait throw on interrupts */
extern void DtxGateWillPrepare(const DtxGateNode *nodes, int n, bool local);
extern void DtxGateEnter(uint64 xid);
extern void DtxGateEnterAlone(const DtxGateNode *node);

/* likewise; none of these throws */
extern void DtxGateDecided(void);
extern void DtxGateConfirmed(int index);
extern void DtxGateLeave(void);

/* by who takes snapshots; these throw on interrupts */
extern bool DtxGateClose(DtxGateKind kind, const DtxGateNode *nodes, int n,
						 int ms, DtxMoment deadline);
extern bool DtxGateAwaitEmpty(DtxGateBlocker *blocker);

/* likewise; none of these throws */
extern bool DtxGateExtend(int ms);
extern DtxMoment DtxGateClosedUntil(void);
extern bool DtxGateKept(void);
extern void DtxGateOpen(void);
extern bool DtxGateHasEntered(int procno, uint64 xid);

#endif							/* PG_DTX_GATE_H */
