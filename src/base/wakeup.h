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

extern void DtxWakeupRegister(DtxWakeupCallback resolver, DtxWakeupCallback pass,
							  DtxWakeupCallback detector);
extern void DtxWakeupResolver(Oid dbid);
extern void DtxWakeupPass(Oid dbid);
extern void DtxWakeupDetector(Oid dbid);

#endif							/* PG_DTX_WAKEUP_H */
