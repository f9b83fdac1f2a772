/*-------------------------------------------------------------------------
 *
 * in.h
 *		Having messages from the broker have their effect in the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_IN_H
#define RELAY_IN_H

#include "config.h"

/* The thread that does it; "arg" is a Life. */
extern void *in_main(void *arg);

/* The command for a message of a rule; "function" is [in]'s, as the database writes it. */
extern char *in_command(const InRule *rule, const char *function);

#endif							/* RELAY_IN_H */
