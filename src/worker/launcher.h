/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The background workers of each database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LAUNCHER_H
#define PG_DTX_LAUNCHER_H

extern Size DtxLauncherShmemSize(void);
extern void DtxLauncherShmemInit(void);
extern void DtxLauncherRegister(void);
extern void DtxLauncherInstallHooks(void);
extern void DtxLauncherWakeResolver(Oid dbid);	/* never throws */
extern void DtxLauncherAskPass(void);	/* never throws */
extern void DtxLauncherWakeSagas(Oid dbid); /* never throws */
extern void DtxLauncherSagasPrepared(void); /* never throws */
PGDLLEXPORT extern void dtx_launcher_main(Datum arg);

#endif							/* PG_DTX_LAUNCHER_H */
