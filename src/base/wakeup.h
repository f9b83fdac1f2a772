/*-------------------------------------------------------------------------
 *
 * wakeup.h
 *		What lower folders ask of the background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAKEUP_H
#define PG_DTX_WAKEUP_H

typedef void (*DtxWakeupCallback) (Oid dbid);

extern void DtxWakeupRegister(DtxWakeupCallback resolver, DtxWakeupCallback pass);
extern void DtxWakeupResolver(Oid dbid);
extern void DtxWakeupPass(Oid dbid);

#endif							/* PG_DTX_WAKEUP_H */
