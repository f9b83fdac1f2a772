/*-------------------------------------------------------------------------
 *
 * late_report.h
 *		What external workers report after their leases have ended.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_LATE_REPORT_H
#define PG_DTX_LATE_REPORT_H

extern Size DtxSagaLateShmemSize(void);
extern void DtxSagaLateShmemInit(void);

#endif							/* PG_DTX_LATE_REPORT_H */
