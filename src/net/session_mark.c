/*-------------------------------------------------------------------------
 *
 * session_mark.c
 *		By what coordinators know each other's sessions on a server.
 *
 * Two sessions that postgres_fdw has opened for one process, maybe on two servers, end
 * together, and wait together.  Another coordinator has to know that to find a deadlock
 * with it.  What a server shows of a session to everybody, and what takes nothing away from
 * its user, is an advisory lock: each session takes one, in shared mode, for as long as it
 * lasts, whose second key is a random number of the process.
 *
 * Anybody may take such a lock, so it proves nothing.  What may be believed of it is that
 * sessions with the same mark wait together: the worst that can come of a false one is a
 * deadlock that is none, with who has the false mark in the circle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "net/session_mark.h"

/* The mark of this process's sessions; never 0.  Does not throw. */
uint32
DtxSessionMark(void)
{
	static uint32 mark = 0;

	while (mark == 0)
		mark = pg_prng_uint32(&pg_global_prng_state);
	return mark;
}
