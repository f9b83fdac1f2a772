/*-------------------------------------------------------------------------
 *
 * fault.c
 *		Dying at a given call, for tests ("make -C relay FAULTS=1").
 *
 *-------------------------------------------------------------------------
 */
#include "fault.h"

#ifdef RELAY_FAULTS

#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

void
fault_point(void)
{
	static atomic_int calls = 0;
	const char *die = getenv("PG_DTX_RELAY_DIE");

	if (die != NULL && atomic_fetch_add(&calls, 1) + 1 == atoi(die))
		raise(SIGKILL);
}

#else

/* (a translation unit is not empty) */
extern int	relay_without_faults;
int			relay_without_faults = 0;

#endif
