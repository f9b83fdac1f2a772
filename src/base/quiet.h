/*-------------------------------------------------------------------------
 *
 * quiet.h
 *		The stretch after the local commit in which nothing may be reported,
 *		allocated or looked up.
 *
 * A library built with "make FAULTS=1" checks that: whatever of pg_dtx's own code
 * calls ereport(), palloc() and the like while it is quiet, and whatever else is
 * reported by what it calls, ends the process by abort().  In a normal build these
 * are nothing at all.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_QUIET_H
#define PG_DTX_QUIET_H

#ifdef DTX_FAULTS
/* from here to DTX_QUIET_END(), in other functions, too */
#define DTX_QUIET_BEGIN()	DtxQuietBegin()
#define DTX_QUIET_END()		DtxQuietEnd()

/* around code that is prepared for it to throw */
#define DTX_QUIET_PAUSE()	DtxQuietPause(true)
#define DTX_QUIET_RESUME()	DtxQuietPause(false)

/* around calls of functions that report by themselves; do not nest */
#define DTX_LISTEN_BEGIN()	DtxListenBegin()
#define DTX_LISTEN_END()	DtxListenEnd()

extern void DtxQuietBegin(void);
extern void DtxQuietEnd(void);
extern void DtxQuietPause(bool pause);
extern void DtxListenBegin(void);
extern void DtxListenEnd(void);
#else
#define DTX_QUIET_BEGIN()	((void) 0)
#define DTX_QUIET_END()		((void) 0)
#define DTX_QUIET_PAUSE()	((void) 0)
#define DTX_QUIET_RESUME()	((void) 0)
#define DTX_LISTEN_BEGIN()	((void) 0)
#define DTX_LISTEN_END()	((void) 0)
#endif

#endif							/* PG_DTX_QUIET_H */
