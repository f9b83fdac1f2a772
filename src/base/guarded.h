/*-------------------------------------------------------------------------
 *
 * guarded.h
 *		Calling what may throw, after the local commit, where nothing may.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GUARDED_H
#define PG_DTX_GUARDED_H

/*
 * To be asserted by what may throw, allocate in a memory context, read a catalog or
 * open a descriptor: it is not called from the local commit to the end of phase two,
 * or in an abort.
 */
#define DTX_ASSERT_MAY_THROW()	Assert(DtxMayThrow())

/* To be asserted by what is called only then. */
#define DTX_ASSERT_MUST_NOT_THROW()	Assert(!DtxMayThrow())

extern bool DtxMayThrow(void);
extern void DtxSetMayThrow(bool may_throw);
extern bool DtxGuarded(void (*function) (void *arg), void *arg);

#endif							/* PG_DTX_GUARDED_H */
