/*-------------------------------------------------------------------------
 *
 * check.c
 *		pg_dtx_relay --check: is everything there that the configuration asks for?
 *
 *-------------------------------------------------------------------------
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "database.h"
#include "exits.h"
#include "in.h"

static bool
told(bool ok, const char *what, const char *name, const char *why)
{
	printf("%s %s%s%s%s%s%s\n", ok ? "ok    " : "not ok", what, name[0] ? " \"" : "", name, name[0] ? "\"" : "",
		   why[0] ? ": " : "", why);
	return ok;
}

/* Functions that it calls, of which some are for rules only. */
static bool
check_functions(PGconn *conn, const Config *c)
{
	bool		commands = false;
	bool		replies = false;
	const char *params[2];
	char		error[ERROR_SIZE];
	PGresult   *result;
	bool		ok = true;

	for (int i = 0; i < c->nout; i++)
		commands = commands || c->out[i].queue != NULL;
	for (int i = 0; i < c->nin; i++)
		replies = replies || c->in[i].action == IN_REPLY;
	params[0] = commands ? "t" : "f";
	params[1] = replies ? "t" : "f";
	result = database_run(conn, PGRES_TUPLES_OK,
						  "SELECT p.oid::regprocedure FROM pg_proc p WHERE p.pronamespace = 'dtx'::regnamespace"
						  " AND p.proname LIKE 'relay\\_%' AND NOT has_function_privilege(p.oid, 'EXECUTE')"
						  " AND (p.proname <> 'relay_dispatch' OR $1::bool) AND (p.proname <> 'relay_reply' OR $2::bool)"
						  " ORDER BY p.proname", 2, params, NULL, error, sizeof(error));
	if (result == NULL)
		return told(false, "functions", "", error);
	for (int i = 0; i < PQntuples(result); i++)
		ok = told(false, "may not execute", PQgetvalue(result, i, 0), "SELECT dtx.grant_relay(role) grants it");
	PQclear(result);
	return ok;
}

static bool
check_database(Life *life)
{
	const Config *c = life->config;
	char		error[ERROR_SIZE];
	PGconn	   *conn = database_connect(c, NULL, error, sizeof(error));
	bool		ok;

	if (conn == NULL)
		return told(false, "database", "", error);
	told(true, "database", PQdb(conn), "");
	ok = check_functions(conn, c);
	for (int i = 0; i < c->nin; i++)
	{
		const InRule *r = &c->in[i];
		char	   *function = NULL;
		char	   *command;
		const char *params[1];
		PGresult   *result;
		char		rule[256];

		snprintf(rule, sizeof(rule), "in.%.200s", r->name);
		if (r->action == IN_CALL)
		{
			params[0] = r->function;
			result = database_run(conn, PGRES_TUPLES_OK,
								  "SELECT p.oid::regproc, has_function_privilege(p.oid, 'EXECUTE') FROM"
								  " (SELECT to_regprocedure($1 || '(jsonb)')::oid AS oid) AS p WHERE p.oid IS NOT NULL",
								  1, params, NULL, error, sizeof(error));
			if (result == NULL || PQntuples(result) == 0)
			{
				char		why[ERROR_SIZE];

				if (result != NULL)
					snprintf(error, sizeof(error), "there is no function %.300s(jsonb)", r->function);
				snprintf(why, sizeof(why), "%s", error);
				ok = told(false, "rule", rule, why);
				PQclear(result);
				continue;
			}
			if (strcmp(PQgetvalue(result, 0, 1), "t") != 0)
				ok = told(false, "rule", rule, "may not execute that function");
			function = strdup(PQgetvalue(result, 0, 0));
			PQclear(result);
		}
		command = in_command(r, function);
		result = PQprepare(conn, "", command, 0, NULL);
		if (PQresultStatus(result) == PGRES_COMMAND_OK)
			told(true, "rule", rule, "");
		else
		{
			database_error(conn, result, NULL, error, sizeof(error));
			ok = told(false, "rule", rule, error);
		}
		PQclear(result);
		free(command);
		free(function);
	}
	PQfinish(conn);
	return ok;
}

static bool
check_broker(Life *life)
{
	const Config *c = life->config;
	char		error[ERROR_SIZE] = "";
	BrokerSettings settings = life_broker_settings(life);
	Broker	   *broker = life->api->connect(&settings, NULL, 0, error);
	bool		ok = true;

	if (broker == NULL)
		return told(false, "broker", life->api->name, error);
	told(true, "broker", life->api->name, "");
	for (int i = 0; i < c->nout; i++)
	{
		const OutRule *r = &c->out[i];

		error[0] = '\0';
		if (strchr(r->exchange, '{') != NULL)
			told(true, r->name, "", "leads to more than one place, which were not looked for");
		else
			ok = told(life->api->there(broker, r->exchange, false, error), r->name, r->exchange, error) && ok;
	}
	for (int i = 0; i < c->nin; i++)
	{
		const InRule *r = &c->in[i];
		char		rule[256];

		snprintf(rule, sizeof(rule), "in.%.200s", r->name);
		error[0] = '\0';
		ok = told(life->api->there(broker, r->source, true, error), rule, r->source, error) && ok;
		error[0] = '\0';
		ok = told(life->api->there(broker, r->dead_letter, true, error), rule, r->dead_letter, error) && ok;
	}
	life->api->close(broker);
	return ok;
}

int
check(Life *life)
{
	bool		database = check_database(life);
	bool		broker = check_broker(life);

	return !database ? RELAY_EXIT_DATABASE : !broker ? RELAY_EXIT_BROKER : RELAY_EXIT_OK;
}
