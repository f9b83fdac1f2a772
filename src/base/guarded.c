/*-------------------------------------------------------------------------
 *
 * guarded.c
 *		Calling what may throw, after the local commit, where nothing may.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/guarded.h"
#include "base/quiet.h"
#include "miscadmin.h"
#include "utils/palloc.h"

#ifdef USE_ASSERT_CHECKING
/* How many handlers of signals are running, one within the other? */
volatile sig_atomic_t dtx_handlers = 0;
#endif

/* Does an ERROR do no more harm than it does anywhere else? */
static bool may_throw_now = true;

/*
 * May what is called now throw?  Not from the local commit to the end of phase two,
 * and not in an abort.
 */
bool
DtxMayThrow(void)
{
	return may_throw_now;
}

/*
 * By the coordinator: the current transaction enters, or leaves, that stretch.
 */
void
DtxSetMayThrow(bool may_throw)
{
	may_throw_now = may_throw;
}

/*
 * Call a function that may throw or report, while interrupts are held.  Returns
 * false if it has thrown, which has no other effect.  Does not throw.
 *
 * Callbacks for error contexts belong to functions that run, such as the procedure
 * that commits.  They are not called, because they have not been made for this
 * moment.
 */
bool
DtxGuarded(void (*function) (void *arg), void *arg)
{
	volatile bool done = false;
	MemoryContext cxt = CurrentMemoryContext;
	uint32		holdoff = InterruptHoldoffCount;
	uint32		cancel_holdoff = QueryCancelHoldoffCount;

	DTX_QUIET_PAUSE();
	PG_TRY();
	{
		error_context_stack = NULL;
		function(arg);
		done = true;
	}
	PG_CATCH();
	{
		/* errfinish() has let interrupts in: keep them out. */
		MemoryContextSwitchTo(cxt);
		FlushErrorState();
		InterruptHoldoffCount = holdoff;
		QueryCancelHoldoffCount = cancel_holdoff;
	}
	PG_END_TRY();
	DTX_QUIET_RESUME();
	return done;
}
