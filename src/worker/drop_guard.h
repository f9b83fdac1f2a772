/*-------------------------------------------------------------------------
 *
 * drop_guard.h
 *		DROP DATABASE of a database with decisions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_DROP_GUARD_H
#define PG_DTX_DROP_GUARD_H

extern Size DtxDropGuardShmemSize(void);
extern void DtxDropGuardShmemInit(void);
extern void DtxDropGuardCheck(Oid dbid, const char *name);
PGDLLEXPORT extern void dtx_drop_guard_main(Datum arg);

#endif							/* PG_DTX_DROP_GUARD_H */
