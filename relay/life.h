/*-------------------------------------------------------------------------
 *
 * life.h
 *		What all threads of a relay share: is it to end, and how it shall run.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_LIFE_H
#define RELAY_LIFE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "broker.h"
#include "config.h"

typedef enum RunMode
{
	RUN_ON,						/* until told to stop */
	RUN_ONCE,					/* what there is now */
	RUN_DRAIN					/* until there is nothing left to publish */
} RunMode;

typedef struct Life
{
	const Config *config;
	const BrokerApi *api;
	RunMode		mode;
	char		client_name[256];	/* what brokers show */
	atomic_bool stop;			/* threads end after what they are doing */
	atomic_bool out_failed;		/* something was not published (RUN_ONCE) */
	atomic_bool in_failed;		/* something had no effect (RUN_ONCE) */
	atomic_bool out_ended;
	atomic_bool in_ended;
	atomic_int	out_turns;		/* for the watchdog: grows while it is alive */
	atomic_int	in_turns;
} Life;

/* Sleep, but not beyond the order to stop; false: stop. */
extern bool life_sleep(Life *life, int ms);

/*
 * How the broker is to be connected to.  Valid as long as the Life: connections keep it, for
 * those that they open themselves.
 */
extern BrokerSettings life_broker_settings(const Life *life);

/* Fill in a Life, of which nothing has been used yet. */
extern void life_begin(Life *life, const Config *config, const BrokerApi *api, RunMode mode);

#endif							/* RELAY_LIFE_H */
