/*-------------------------------------------------------------------------
 *
 * at_commit.h
 *		What a transaction asks for and gets when it has committed: wake the scheduler, wake
 *		those who wait for a saga, stop an execution.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_AT_COMMIT_H
#define PG_DTX_AT_COMMIT_H

extern void DtxSagaInstallHooks(void);
extern void DtxSagaWakeAtCommit(void);

#endif							/* PG_DTX_AT_COMMIT_H */
