/*-------------------------------------------------------------------------
 *
 * passed_by.h
 *		Servers on which postgres_fdw works past the wrappers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PASSED_BY_H
#define PG_DTX_PASSED_BY_H

extern void DtxPassedByInstallHooks(void);

#endif							/* PG_DTX_PASSED_BY_H */
