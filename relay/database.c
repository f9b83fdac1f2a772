/*-------------------------------------------------------------------------
 *
 * database.c
 *		The connection to the database.
 *
 *-------------------------------------------------------------------------
 */
#include "database.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"
#include "util.h"

/* The last line of several has what is of interest last, and none has a line end. */
static void
copy_line(char *error, size_t size, const char *text)
{
	size_t		len;

	snprintf(error, size, "%s", text);
	len = strlen(error);
	while (len > 0 && (error[len - 1] == '\n' || error[len - 1] == ' '))
		error[--len] = '\0';
	for (size_t i = 0; i < len; i++)
	{
		if (error[i] == '\n')
			error[i] = ' ';
	}
}

static void
no_notice(void *arg, const PGresult *result)
{
	(void) arg;
	(void) result;
}

PGconn *
database_connect(const Config *config, const char *direction, char *error, size_t size)
{
	/* What comes later goes first, so the user's are after ours. */
	const char *keywords[16];
	const char *values[16];
	int			n = 0;
	char	   *name = must_printf("pg_dtx_relay %s", config->name);
	PGconn	   *conn;
	PGresult   *result;

	/* so that a server that is gone is noticed */
	keywords[n] = "connect_timeout";
	values[n++] = "10";
	keywords[n] = "keepalives_idle";
	values[n++] = "30";
	keywords[n] = "keepalives_interval";
	values[n++] = "10";
	keywords[n] = "keepalives_count";
	values[n++] = "3";
	keywords[n] = "tcp_user_timeout";
	values[n++] = "40000";
	/* of several hosts, the one that is no standby */
	keywords[n] = "target_session_attrs";
	values[n++] = "read-write";
	keywords[n] = "application_name";
	values[n++] = name;
	keywords[n] = "dbname";
	values[n++] = config->conninfo;
	if (config->db_password)
	{
		keywords[n] = "password";
		values[n++] = config->db_password;
	}
	keywords[n] = "client_encoding";
	values[n++] = "UTF8";
	keywords[n] = NULL;
	values[n] = NULL;
	fault_point();
	conn = PQconnectdbParams(keywords, values, 1);
	free(name);
	if (conn == NULL || PQstatus(conn) != CONNECTION_OK)
	{
		copy_line(error, size, conn ? PQerrorMessage(conn) : "out of memory");
		PQfinish(conn);
		return NULL;
	}
	PQsetNoticeReceiver(conn, no_notice, NULL);

	/*
	 * (functions of users, which may need the search_path of the role, run on
	 * one for messages)
	 */
	result = database_run(conn, PGRES_TUPLES_OK,
						  direction == NULL || strcmp(direction, "out") != 0 ?
						  "SELECT pg_catalog.set_config('default_transaction_isolation', 'read committed', false)" :
						  "SELECT pg_catalog.set_config('search_path', 'pg_catalog', false),"
						  " pg_catalog.set_config('default_transaction_isolation', 'read committed', false)",
						  0, NULL, NULL, error, size);
	if (result != NULL && direction != NULL)
	{
		const char *params[3];

		params[0] = config->name;
		params[1] = config->group;
		params[2] = direction;
		PQclear(result);
		result = database_run(conn, PGRES_TUPLES_OK, "SELECT dtx.relay_hello($1, $2, $3)", 3, params,
							  NULL, error, size);
	}
	if (result == NULL)
	{
		PQfinish(conn);
		return NULL;
	}
	PQclear(result);
	return conn;
}

void
database_error(PGconn *conn, const PGresult *result, char *sqlstate, char *error, size_t size)
{
	const char *state = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	const char *message = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY) : NULL;
	const char *detail = result ? PQresultErrorField(result, PG_DIAG_MESSAGE_DETAIL) : NULL;

	if (sqlstate != NULL)
		snprintf(sqlstate, 6, "%s", PQstatus(conn) == CONNECTION_OK && state ? state : "");
	if (message == NULL)
	{
		copy_line(error, size, PQerrorMessage(conn));
		if (error[0] == '\0')
			snprintf(error, size, "unexpected reply of the server");
	}
	else
	{
		char	   *text = must_printf("%s%s%s (%s)", message, detail ? ": " : "", detail ? detail : "", state ? state : "");

		copy_line(error, size, text);
		free(text);
	}
}

PGresult *
database_run(PGconn *conn, ExecStatusType expected, const char *command, int nparams,
			 const char *const *params, char *sqlstate, char *error, size_t size)
{
	PGresult   *result;

	fault_point();
	result = PQexecParams(conn, command, nparams, NULL, params, NULL, NULL, 0);

	if (result != NULL && PQresultStatus(result) == expected)
		return result;
	database_error(conn, result, sqlstate, error, size);
	PQclear(result);
	return NULL;
}

char *
database_array(const char *const *elements, int n)
{
	size_t		len = 3;
	char	   *array;
	char	   *p;

	for (int i = 0; i < n; i++)
		len += elements[i] ? 2 * strlen(elements[i]) + 3 : 5;
	array = p = must_alloc(len);
	*p++ = '{';
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			*p++ = ',';
		if (elements[i] == NULL)
		{
			memcpy(p, "NULL", 4);
			p += 4;
			continue;
		}
		*p++ = '"';
		for (const char *s = elements[i]; *s; s++)
		{
			if (*s == '"' || *s == '\\')
				*p++ = '\\';
			*p++ = *s;
		}
		*p++ = '"';
	}
	*p++ = '}';
	*p = '\0';
	return array;
}
