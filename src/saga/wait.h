/*-------------------------------------------------------------------------
 *
 * wait.h
 *		Waiting for the end of a saga: dtx.wait_saga().
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WAIT_H
#define PG_DTX_WAIT_H

/* Those who wait for sagas are divided by the saga's number. */
#define DTX_SAGA_WAIT_PARTITIONS 64

extern Size DtxSagaWaitShmemSize(void);
extern void DtxSagaWaitShmemInit(void);
extern void DtxSagaWakeWaiters(uint64 partitions);

#endif							/* PG_DTX_WAIT_H */
