/*-------------------------------------------------------------------------
 *
 * handover.h
 *		Leaving a participant to the resolver.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_HANDOVER_H
#define PG_DTX_HANDOVER_H

#include "access/xlogdefs.h"
#include "base/backoff.h"
#include "base/gid.h"
#include "commit/participant.h"

/*
 * What this session has committed, and then left to the resolver: it must be visible
 * in the session's next transactions on the cluster where it is prepared.
 */
typedef struct DtxHandedOver
{
	DtxGid		gid;
	uint64		system_id;		/* of the cluster, 0 if not known */
	char		server_name[NAMEDATALEN];	/* for the error */
	bool		recorded;		/* does in_doubt.c know of it? */
	DtxMoment	wait_until;		/* it is not waited for any longer; 0: it was
								 * not waited for yet */
} DtxHandedOver;

extern void DtxHandOverReserve(int n);
extern void DtxHandOver(DtxParticipant *p, XLogRecPtr commit_lsn);
extern bool DtxHandedOverIsDone(const DtxHandedOver *h);
extern int	DtxHandedOverCount(void);
extern DtxHandedOver *DtxHandedOverGet(int i);
extern DtxHandedOver *DtxHandedOverFind(const DtxGid *gid);
extern void DtxHandedOverForget(int i);

#endif							/* PG_DTX_HANDOVER_H */
