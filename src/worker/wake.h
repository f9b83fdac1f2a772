/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Waking a resolver, a scheduler of sagas or a detector of deadlocks, or having the
 *		launcher start one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAKE_H
#define PG_DTX_WAKE_H

extern void DtxWakeAfterCommitPrepared(void);
extern void DtxLauncherWakeResolver(Oid dbid);
extern void DtxLauncherAskPass(void);
extern void DtxLauncherWakeSagas(Oid dbid);
extern void DtxLauncherWakeDetector(Oid dbid);
extern void DtxLauncherSagasPrepared(void);
extern void DtxWakeInstallHooks(void);

#endif							/* PG_DTX_WAKE_H */
