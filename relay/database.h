/*-------------------------------------------------------------------------
 *
 * database.h
 *		The connection to the database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_DATABASE_H
#define RELAY_DATABASE_H

#include <stdbool.h>
#include <stddef.h>

#include <libpq-fe.h>

#include "config.h"

/*
 * Connect, and tell the database who is there: "direction" is out or in, or NULL for
 * nobody.  NULL: "error" says why not.
 */
extern PGconn *database_connect(const Config *config, const char *direction,
								char *error, size_t size);

/*
 * Run a command with parameters in text form.  The result has the status that is
 * expected, or NULL, and "error" says why, and "sqlstate" (6 bytes; NULL: not wanted) is
 * that, or "" if the connection was lost.
 */
extern PGresult *database_run(PGconn *conn, ExecStatusType expected, const char *command,
							  int nparams, const char *const *params,
							  char *sqlstate, char *error, size_t size);

/*
 * What an error says, in one line, and its SQLSTATE.
 */
extern void database_error(PGconn *conn, const PGresult *result, char *sqlstate,
						   char *error, size_t size);

/* An array of texts, or of NULLs, as the database reads it. */
extern char *database_array(const char *const *elements, int n);

#endif							/* RELAY_DATABASE_H */
