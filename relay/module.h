/*-------------------------------------------------------------------------
 *
 * module.h
 *		Loading the module for a kind of broker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_MODULE_H
#define RELAY_MODULE_H

#include "broker.h"

/*
 * From the directory of PG_DTX_RELAY_MODULES, or the one that was built in; it stays
 * loaded.  NULL: "error" says why not.
 */
extern const BrokerApi *module_load(const char *kind, char *error);

#endif							/* RELAY_MODULE_H */
