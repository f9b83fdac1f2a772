/*-------------------------------------------------------------------------
 *
 * guarded.h
 *		Calling what may throw, after the local commit, where nothing may.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GUARDED_H
#define PG_DTX_GUARDED_H

#include "base/process.h"

/*
 * To be asserted by what may throw, allocate in a memory context, read a catalog or
 * open a descriptor: it is not called from the local commit to the end of phase two,
 * in an abort, or by a handler of a signal.
 */
#define DTX_ASSERT_MAY_THROW() \
	do { \
		DtxAssertNotInHandler(); \
		Assert(DtxMayThrow()); \
	} while (0)

/* To be asserted by what is called only then. */
#define DTX_ASSERT_MUST_NOT_THROW()	Assert(!DtxMayThrow())

extern bool DtxMayThrow(void);
extern void DtxSetMayThrow(bool may_throw);
extern bool DtxGuarded(void (*function) (void *arg), void *arg);

#endif							/* PG_DTX_GUARDED_H */
