/*-------------------------------------------------------------------------
 *
 * check.h
 *		pg_dtx_relay --check: is everything there that the configuration asks for?
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_CHECK_H
#define RELAY_CHECK_H

#include "life.h"

/* Look, and say so on standard output.  Returns the exit status. */
extern int	check(Life *life);

#endif							/* RELAY_CHECK_H */
