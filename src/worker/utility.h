/*-------------------------------------------------------------------------
 *
 * utility.h
 *		Statements that concern workers: those before which they have to leave a database,
 *		and those after which they have something to do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_UTILITY_H
#define PG_DTX_UTILITY_H

extern void DtxLauncherInstallHooks(void);

#endif							/* PG_DTX_UTILITY_H */
