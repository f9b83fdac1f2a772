/*-------------------------------------------------------------------------
 *
 * module.c
 *		Loading the module for a kind of broker.
 *
 *-------------------------------------------------------------------------
 */
#include "module.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "util.h"

#ifndef MODULE_DIR
#define MODULE_DIR "/usr/lib/pg_dtx_relay"
#endif

const BrokerApi *
module_load(const char *kind, char *error)
{
	const char *dir = getenv("PG_DTX_RELAY_MODULES");
	char	   *path = must_printf("%s/relay_%s.so", dir ? dir : MODULE_DIR, kind);
	void	   *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	const BrokerApi *api = NULL;

	if (handle == NULL)
		snprintf(error, ERROR_SIZE, "could not load the module for %s: %s", kind, dlerror());
	else if ((api = (const BrokerApi *) dlsym(handle, "relay_broker")) == NULL)
		snprintf(error, ERROR_SIZE, "\"%s\" is no module of pg_dtx_relay", path);
	else if (api->abi != BROKER_ABI)
	{
		snprintf(error, ERROR_SIZE, "\"%s\" is of another version of pg_dtx_relay", path);
		api = NULL;
	}
	free(path);
	return api;
}
