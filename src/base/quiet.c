/*-------------------------------------------------------------------------
 *
 * quiet.c
 *		Checks that nothing is reported, allocated or looked up after the local
 *		commit; empty unless built with "make FAULTS=1".
 *
 * An ERROR between the local commit and the end of the transaction is a PANIC of
 * the whole cluster, and every report can become one: a message is converted to
 * the client's encoding, and callbacks add context to it.  A test sees that only if
 * the conversion fails.  So the linker puts the functions here in front of those
 * that must not be called (ld's option --wrap, see the Makefile), for the calls of
 * this library.  What other code reports on its behalf shows in a callback for
 * error contexts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/quiet.h"
#include "storage/lockdefs.h"
#include "utils/palloc.h"
#include "utils/relcache.h"

#ifdef DTX_FAULTS

#include <unistd.h>

#include "access/table.h"
#include "base/compat.h"
#include "utils/syscache.h"

/* Is this the stretch, and is what happens now prepared for errors? */
static bool quiet = false;
static bool paused = false;

static ErrorContextCallback listener;

static void
check(const char *what)
{
	if (!quiet || paused)
		return;
	quiet = false;
	write_stderr("pg_dtx: %s was called after the local commit, process %d\n",
				 what, (int) getpid());
	abort();
}

/* See quiet.h, DTX_QUIET_BEGIN(). */
void
DtxQuietBegin(void)
{
	quiet = true;
}

/* ... DTX_QUIET_END(). */
void
DtxQuietEnd(void)
{
	quiet = false;
}

/* ... DTX_QUIET_PAUSE(), DTX_QUIET_RESUME(). */
void
DtxQuietPause(bool pause)
{
	paused = pause;
}

static void
report_heard(void *arg)
{
	check("errfinish");
}

/* ... DTX_LISTEN_BEGIN(). */
void
DtxListenBegin(void)
{
	listener.callback = report_heard;
	listener.arg = NULL;
	listener.previous = error_context_stack;
	error_context_stack = &listener;
}

/* ... DTX_LISTEN_END(). */
void
DtxListenEnd(void)
{
	error_context_stack = listener.previous;
}

/* A function, its result, its parameters with and without their types. */
#define WRAP(name, result, parameters, arguments) \
	extern result __real_##name parameters; \
	extern result __wrap_##name parameters; \
	result \
	__wrap_##name parameters \
	{ \
		check(#name); \
		return __real_##name arguments; \
	}

WRAP(errstart, bool, (int elevel, const char *domain), (elevel, domain))
WRAP(errstart_cold, bool, (int elevel, const char *domain), (elevel, domain))
WRAP(palloc, void *, (Size size), (size))
WRAP(palloc0, void *, (Size size), (size))
WRAP(repalloc, void *, (void *pointer, Size size), (pointer, size))
WRAP(pstrdup, char *, (const char *in), (in))
WRAP(MemoryContextAlloc, void *, (MemoryContext context, Size size), (context, size))
WRAP(MemoryContextAllocZero, void *, (MemoryContext context, Size size), (context, size))
WRAP(MemoryContextStrdup, char *, (MemoryContext context, const char *string), (context, string))
WRAP(table_open, Relation, (Oid relid, LOCKMODE lockmode), (relid, lockmode))
WRAP(SearchSysCache1, HeapTuple, (int id, Datum key), (id, key))

#else

/* ISO C forbids an empty translation unit. */
typedef int dtx_not_quiet;

#endif							/* DTX_FAULTS */
