/*-------------------------------------------------------------------------
 *
 * coordinator.h
 *		The commit of a distributed transaction, driven from the callbacks of the
 *		local one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COORDINATOR_H
#define PG_DTX_COORDINATOR_H

#include "commit/participant.h"

extern void DtxCoordinatorDefineSettings(void);

/* for steps of sagas */
extern void CoordinatorInsist(void);
extern bool CoordinatorTwoPhaseCommit(void);
extern bool CoordinatorMayThrow(void);
extern bool CoordinatorUnconfirmed(void);

/* for passed_by.c */
extern int	CoordinatorMembers(void);
extern void CoordinatorSetCheck(void (*check) (void));

/* for interpose.c */
extern void CoordinatorPrepareBackend(void);
extern void CoordinatorIntroduce(Participant *p);
extern void CoordinatorEnlist(Participant *p);
extern void CoordinatorSeen(Participant *p);
extern void CoordinatorForget(Participant *p);
extern void CoordinatorAbandon(Participant *p);
extern void CoordinatorSettle(Participant *p);
extern void CoordinatorCatchUp(Participant *p);
extern void CoordinatorSettleAll(void);
extern bool CoordinatorOwe(Participant *p);
extern void CoordinatorCollect(Participant *p);
extern void CoordinatorTakeOwed(Participant *p);
extern void CoordinatorReconnect(Participant *p);

#endif							/* PG_DTX_COORDINATOR_H */
