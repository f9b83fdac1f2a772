/*-------------------------------------------------------------------------
 *
 * flushed.h
 *		How far the WAL of other clusters is known to be on their disks, in shared
 *		memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FLUSHED_H
#define PG_DTX_FLUSHED_H

/* Whose WAL: one run of one cluster (net/protocol.h).  None of these is 0. */
typedef struct DtxWalOf
{
	uint64		system_id;
	uint64		timeline;
	uint64		run;
} DtxWalOf;

extern Size DtxFlushedShmemSize(void);
extern void DtxFlushedShmemInit(void);

/* none of these throws */
extern void DtxFlushedTell(const DtxWalOf *wal, uint64 lsn);
extern void DtxFlushedRequested(const DtxWalOf *wal);
extern uint64 DtxFlushedRequests(const DtxWalOf *wal);
extern bool DtxFlushedCovers(const DtxWalOf *wal, uint64 lsn);

/* throws on interrupts */
extern bool DtxFlushedWait(const DtxWalOf *wal, uint64 lsn, int ms);

#endif							/* PG_DTX_FLUSHED_H */
