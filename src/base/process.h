/*-------------------------------------------------------------------------
 *
 * process.h
 *		In which kind of process, and of moment, a function may be called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PROCESS_H
#define PG_DTX_PROCESS_H

#include <signal.h>

#include "postmaster/bgworker.h"
#include "storage/ipc.h"

/* First in a function that only background workers may call. */
#define DtxAssertInWorker()		Assert(MyBgworkerEntry != NULL)

/* ... that only the end of a process may call: registered for its exit. */
#define DtxAssertExiting()		Assert(proc_exit_inprogress || shmem_exit_inprogress)

/*
 * A handler of a signal or of a timeout of ours has these around what it does, so that
 * what only handlers may call can assert DtxAssertInHandler(), and what must not be
 * called by them, because it allocates, throws or takes a lock, DtxAssertNotInHandler().
 */
#ifdef USE_ASSERT_CHECKING
#define DTX_HANDLER_BEGIN()		(dtx_handlers++)
#define DTX_HANDLER_END()		(dtx_handlers--)
extern volatile sig_atomic_t dtx_handlers;
#else
#define DTX_HANDLER_BEGIN()		((void) 0)
#define DTX_HANDLER_END()		((void) 0)
#endif
#define DtxAssertInHandler()	Assert(dtx_handlers > 0)
#define DtxAssertNotInHandler() Assert(dtx_handlers == 0)

#endif							/* PG_DTX_PROCESS_H */
