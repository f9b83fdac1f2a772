/*-------------------------------------------------------------------------
 *
 * ini.h
 *		Reading a configuration file: sections, and lines "name = value" in them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_INI_H
#define RELAY_INI_H

#include <stdbool.h>
#include <stddef.h>

/* A line.  Strings are the callee's, until it returns.  false: "error" says why not. */
typedef bool (*IniLine) (void *arg, const char *section, const char *name,
						 const char *value, char *error, size_t size);

/* Read a file.  false: "error" says what is wrong, and in which line. */
extern bool ini_read(const char *path, IniLine line, void *arg, char *error, size_t size);

#endif							/* RELAY_INI_H */
