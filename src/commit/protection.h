/*-------------------------------------------------------------------------
 *
 * protection.h
 *		What keeps atomicity from being switched off without a word.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PROTECTION_H
#define PG_DTX_PROTECTION_H

extern void DtxProtectionInstallHooks(void);
extern void DtxProtectionMissing(int nodes);

#endif							/* PG_DTX_PROTECTION_H */
