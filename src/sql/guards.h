/*-------------------------------------------------------------------------
 *
 * guards.h
 *		What must not be dropped, and what is said when it is: decisions, sagas, the extension.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GUARDS_H
#define PG_DTX_GUARDS_H

extern bool DtxAskPassIfDecisions(bool current_boot_only);
extern void DtxCheckNothingInDoubt(bool current_boot_only);
extern void DtxGuardsInstallHook(void);

#endif							/* PG_DTX_GUARDS_H */
