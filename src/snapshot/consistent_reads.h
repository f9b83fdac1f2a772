/*-------------------------------------------------------------------------
 *
 * consistent_reads.h
 *		pg_dtx.consistent_reads: transactions that read from one moment on all servers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CONSISTENT_READS_H
#define PG_DTX_CONSISTENT_READS_H

#include "nodes/pg_list.h"

extern void DtxConsistentReadsDefineSetting(void);
extern void DtxConsistentReadsInstallHooks(void);
extern bool DtxConsistentReadsOpen(List **servers);
extern void DtxConsistentReadsOtherBegin(void);
extern void DtxConsistentReadsOtherEnd(void);

#endif							/* PG_DTX_CONSISTENT_READS_H */
