/*-------------------------------------------------------------------------
 *
 * admin.h
 *		SQL functions for administrators: what other modules need of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ADMIN_H
#define PG_DTX_ADMIN_H

extern void DtxAdminInstallHooks(void);
extern void DtxCheckNothingInDoubt(bool current_boot_only);

#endif							/* PG_DTX_ADMIN_H */
