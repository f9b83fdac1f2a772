/*-------------------------------------------------------------------------
 *
 * process.h
 *		In which kind of process a function may be called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PROCESS_H
#define PG_DTX_PROCESS_H

#include "postmaster/bgworker.h"

/* First in a function that only background workers may call. */
#define DtxAssertInWorker()		Assert(MyBgworkerEntry != NULL)

#endif							/* PG_DTX_PROCESS_H */
