/*-------------------------------------------------------------------------
 *
 * exits.h
 *		Exit statuses, as the man page has them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_EXITS_H
#define RELAY_EXITS_H

#define RELAY_EXIT_OK			0	/* done, or stopped as told */
#define RELAY_EXIT_FATAL		1	/* cannot go on */
#define RELAY_EXIT_USAGE		2	/* options */
#define RELAY_EXIT_CONFIG		3	/* configuration file, or module */
#define RELAY_EXIT_DATABASE		4	/* --check: something of the database */
#define RELAY_EXIT_BROKER		5	/* --check: something of the broker */
#define RELAY_EXIT_LEFT			6	/* --once, --drain: something is left */

#endif							/* RELAY_EXITS_H */
