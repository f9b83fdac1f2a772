/*-------------------------------------------------------------------------
 *
 * fault.h
 *		Dying at a given call, for tests ("make -C relay FAULTS=1").
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_FAULT_H
#define RELAY_FAULT_H

#ifdef RELAY_FAULTS

/*
 * Before each call to the database or the broker.  The process kills itself at the n-th,
 * if PG_DTX_RELAY_DIE is n; a module calls the program's.
 */
extern void fault_point(void);

#else
#define fault_point()	((void) 0)
#endif

#endif							/* RELAY_FAULT_H */
