/*-------------------------------------------------------------------------
 *
 * life.c
 *		What all threads of a relay share: is it to end, and how it shall run.
 *
 *-------------------------------------------------------------------------
 */
#include "life.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "util.h"

bool
life_sleep(Life *life, int ms)
{
	int64_t		end = now_ms() + ms;

	for (;;)
	{
		int64_t		left = end - now_ms();
		struct timespec t;

		if (atomic_load(&life->stop))
			return false;
		if (left <= 0)
			return true;
		if (left > 50)
			left = 50;
		t.tv_sec = 0;
		t.tv_nsec = (long) left * 1000000;
		nanosleep(&t, NULL);
	}
}

BrokerSettings
life_broker_settings(const Life *life)
{
	BrokerSettings s;

	s.settings = life->config->broker;
	s.nsettings = life->config->nbroker;
	s.client_name = life->client_name;
	s.timeout_ms = life->config->timeout_ms;
	return s;
}

void
life_begin(Life *life, const Config *config, const BrokerApi *api, RunMode mode)
{
	memset(life, 0, sizeof(*life));
	life->config = config;
	life->api = api;
	life->mode = mode;
	snprintf(life->client_name, sizeof(life->client_name), "pg_dtx_relay %s", config->name);
}
