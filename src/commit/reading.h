/*-------------------------------------------------------------------------
 *
 * reading.h
 *		What postgres_fdw may read on a connection, and when it is here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_READING_H
#define PG_DTX_READING_H

#include "commit/connection.h"

extern void DtxReadingPrepareBackend(void);
extern bool DtxReadingIsBusy(DtxConnection *c);
extern bool DtxReadingHasReply(const DtxConnection *c);
extern bool DtxReadingQuestionIsDue(const DtxConnection *c);
extern bool DtxReadingIsRemoteSql(const DtxConnection *c);
extern bool DtxReadingRemoteSqlIsBusy(DtxConnection *c);
extern void DtxReadingCheckNoRemoteSql(const DtxConnection *c);

#endif							/* PG_DTX_READING_H */
