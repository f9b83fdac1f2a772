/*-------------------------------------------------------------------------
 *
 * activity.h
 *		What each backend is doing now, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ACTIVITY_H
#define PG_DTX_ACTIVITY_H

#include "base/backoff.h"
#include "base/gid.h"
#include "datatype/timestamp.h"
#include "storage/itemptr.h"

/* Participants of one transaction that dtx.transactions can show by name. */
#define DTX_SHOWN_PARTICIPANTS 64

/* Servers of the last transaction of a backend that DtxActivityUsed() tells. */
#define DTX_USED_SERVERS	8

typedef enum DtxState
{
	DTX_IDLE = 0,				/* no distributed transaction */
	DTX_ACTIVE,					/* has participants, not in COMMIT yet */
	DTX_PREPARING,				/* phase one, until all have prepared */
	DTX_DECIDING,				/* from there to the local commit */
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
	uint64		xid;			/* DtxGid.xid, 0 before COMMIT */
	DtxDecider	decider;		/* likewise */
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
extern uint64 DtxActivityNextNumber(void);
extern void DtxActivityPublish(const DtxGid *gid);
extern void DtxActivitySetState(DtxState state, DtxMoment takeover_at);
extern void DtxActivitySetWaiting(int index, bool waiting);
extern TimestampTz DtxActivityStarted(uint64 xid);
extern void DtxActivityEnd(uint64 xid);
extern void DtxActivityRelease(uint64 xid);
extern bool DtxActivityGetRow(uint64 *xid, ItemPointer tid);
extern void DtxActivitySetRow(uint64 xid, ItemPointer tid);
extern void DtxActivityForgetRow(void);

/* by resolvers and views */
extern bool DtxActivityResponsible(const DtxGid *gid);
extern int	DtxActivityResponsibleProc(const DtxGid *gid);
extern bool DtxActivityOwnsRow(uint64 boot_id, uint64 xid);
extern bool DtxActivityAdoptRow(uint64 boot_id, uint64 xid);
extern bool DtxActivityConfirmed(uint64 boot_id, uint64 xid);
extern int	DtxActivityAnyCommitting(void);
extern uint64 DtxActivityRoutesDeleted(void);
extern bool DtxActivityDeleteRoutes(void);
extern int	DtxActivityCount(void);
extern bool DtxActivityGet(int index, DtxActivity *copy);
extern int	DtxActivityUsed(int index, Oid *servers, DtxMoment *at);

#endif							/* PG_DTX_ACTIVITY_H */
