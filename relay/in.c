/*-------------------------------------------------------------------------
 *
 * in.c
 *		Having messages from the broker have their effect in the database.
 *
 * A message's id goes into dtx.inbox in the transaction in which it has its effect, and the
 * broker learns after that; what it delivers again is found there.  Messages that come
 * together share a transaction; if that fails, each gets one of its own.  Then an error
 * that goes away by itself is waited out, in place; any other one is tried some times, and
 * after that the message goes to the queue or topic for dead letters.
 *
 *-------------------------------------------------------------------------
 */
#include "in.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "database.h"
#include "fault.h"
#include "life.h"
#include "log.h"
#include "util.h"

#define BATCH			100
#define BEAT_MS			1000

/* How long one waits for the next message, milliseconds. */
#define RECEIVE_MS		250

/* ... before there is none any more (RUN_ONCE). */
#define LAST_MS			2000

/* Parameters of the command of a rule. */
#define NPARAMS			7

typedef struct In
{
	Life	   *life;
	const Config *config;
	PGconn	   *conn;			/* NULL: not connected */
	Broker	   *broker;			/* NULL: not connected */
	int			db_failures;
	int			broker_failures;
	int64_t		beat_at;
	char		error[ERROR_SIZE];
} In;

/* Parameters of one message. */
typedef struct Params
{
	const char *values[NPARAMS];
	char	   *names;
	char	   *texts;
} Params;

/* ----------------------------------------------------------------
 * Commands
 * ----------------------------------------------------------------
 */

static char *
quoted(const char *text)
{
	char	   *result = must_alloc(2 * strlen(text) + 4);
	char	   *p = result;

	*p++ = 'E';
	*p++ = '\'';
	for (; *text; text++)
	{
		if (*text == '\'' || *text == '\\')
			*p++ = *text;
		*p++ = *text;
	}
	*p++ = '\'';
	return result;
}

/* Part of the message m, as text: id, key, type, header.NAME, data.FIELD.FIELD */
static char *
part(const char *key)
{
	const char *dot = strchr(key, '.');
	char	   *path;
	char	   *literal;
	char	   *result;

	if (dot == NULL)
		return must_printf("m->>'%s'", key);
	path = must_printf("%s", dot + 1);
	literal = quoted(path);
	if (strncmp(key, "header.", 7) == 0)
		result = must_printf("m->'headers'->>%s", literal);
	else
		result = must_printf("m->'data'#>>string_to_array(%s, '.')", literal);
	free(path);
	free(literal);
	return result;
}

char *
in_command(const InRule *r, const char *function)
{
	char	   *key = part(r->key);
	char	   *saga = quoted(r->saga ? r->saga : "");
	char	   *signal = quoted(r->signal ? r->signal : "");
	char	   *name = quoted(r->name);
	char	   *envelope = quoted(r->envelope);
	char	   *action = NULL;
	char	   *command;

	switch (r->action)
	{
		case IN_START_SAGA:
			action = must_printf("dtx.start_saga(%s, coalesce(nullif(m->'data', 'null'), '{}'), key => %s)", saga, key);
			break;
		case IN_SIGNAL_SAGA:
			action = must_printf("dtx.signal_saga(%s, %s, %s, nullif(m->'data', 'null'))", saga, key, signal);
			break;
		case IN_REPLY:
			action = must_dup("dtx.relay_reply(m)");
			break;
		case IN_CALL:
			action = must_printf("%s(m)", function);
			break;
	}
	/* (of CASE, only the part that counts is evaluated) */
	command = must_printf("SELECT CASE WHEN dtx.relay_receive(%s, concat_ws(' ', m->>'source', m->>'id')) THEN (%s)::text ELSE 'duplicate' END"
						  " FROM dtx.relay_message(%s, $1, $2, $3, $4, $5, $6, $7) AS m",
						  name, action, envelope);
	free(key);
	free(saga);
	free(signal);
	free(name);
	free(envelope);
	free(action);
	return command;
}

/* Prepare the commands of all rules; false: "error" says which one cannot be. */
static bool
prepare(In *in, char *error)
{
	for (int i = 0; i < in->config->nin; i++)
	{
		const InRule *r = &in->config->in[i];
		char		statement[16];
		char	   *function = NULL;
		char	   *command;
		PGresult   *result;
		bool		ok;

		if (r->action == IN_CALL)
		{
			const char *params[1];

			params[0] = r->function;
			result = database_run(in->conn, PGRES_TUPLES_OK,
								  "SELECT to_regprocedure($1 || '(jsonb)')::oid::regproc", 1, params, NULL, error, ERROR_SIZE);
			if (result == NULL)
				return false;
			if (PQgetisnull(result, 0, 0))
			{
				snprintf(error, ERROR_SIZE, "[in.%s]: there is no function %s(jsonb)", r->name, r->function);
				PQclear(result);
				return false;
			}
			function = must_dup(PQgetvalue(result, 0, 0));
			PQclear(result);
		}
		command = in_command(r, function);
		snprintf(statement, sizeof(statement), "in%d", i);
		fault_point();
		result = PQprepare(in->conn, statement, command, 0, NULL);
		ok = PQresultStatus(result) == PGRES_COMMAND_OK;
		if (!ok)
		{
			char		why[ERROR_SIZE];

			database_error(in->conn, result, NULL, why, sizeof(why));
			snprintf(error, ERROR_SIZE, "[in.%s]: %.400s", r->name, why);
		}
		PQclear(result);
		free(command);
		free(function);
		if (!ok)
			return false;
	}
	return true;
}

static void
make_params(const InMessage *m, Params *p)
{
	const char **list = must_alloc(sizeof(char *) * (size_t) (m->nheaders + 1));

	for (int i = 0; i < m->nheaders; i++)
		list[i] = m->headers[i].name;
	p->names = database_array(list, m->nheaders);
	for (int i = 0; i < m->nheaders; i++)
		list[i] = m->headers[i].value;
	p->texts = database_array(list, m->nheaders);
	free(list);
	p->values[0] = m->id;
	p->values[1] = m->key;
	p->values[2] = m->type;
	p->values[3] = m->content_type;
	p->values[4] = m->body;
	p->values[5] = p->names;
	p->values[6] = p->texts;
}

static void
free_params(Params *p)
{
	free(p->names);
	free(p->texts);
}

/* ----------------------------------------------------------------
 * Connections
 * ----------------------------------------------------------------
 */

static void
lose_database(In *in, const char *error)
{
	if (error != NULL)
		say(LOG_LEVEL_WARNING, "in: database: %s", error);
	PQfinish(in->conn);
	in->conn = NULL;
	atomic_store(&counters.in_database, 0);
}

static bool
have_database(In *in)
{
	char		error[ERROR_SIZE];

	if (in->conn != NULL && PQstatus(in->conn) == CONNECTION_OK)
		return true;
	if (in->conn != NULL)
		lose_database(in, "connection was lost");
	in->conn = database_connect(in->config, "in", error, sizeof(error));
	if (in->conn != NULL && !prepare(in, error))
	{
		PQfinish(in->conn);
		in->conn = NULL;
	}
	if (in->conn == NULL)
	{
		in->db_failures++;
		say(LOG_LEVEL_WARNING, "in: database: %s", error);
		if (in->life->mode == RUN_ONCE)
			atomic_store(&in->life->in_failed, true);
		life_sleep(in->life, backoff_ms(in->db_failures, in->config->backoff_max_ms));
		return false;
	}
	in->db_failures = 0;
	in->beat_at = 0;
	atomic_store(&counters.in_database, 1);
	say(LOG_LEVEL_INFO, "in: connected to database \"%s\"", PQdb(in->conn));
	return true;
}

static void
lose_broker(In *in, const char *error)
{
	if (in->broker != NULL)
		in->life->api->close(in->broker);
	in->broker = NULL;
	atomic_store(&counters.in_broker, 0);
	if (error == NULL)
		return;
	say(LOG_LEVEL_WARNING, "in: broker: %s", error);
	snprintf(in->error, sizeof(in->error), "%s", error);
	in->broker_failures++;
	if (in->life->mode == RUN_ONCE)
		atomic_store(&in->life->in_failed, true);
	else
		life_sleep(in->life, backoff_ms(in->broker_failures, in->config->backoff_max_ms));
}

static bool
have_broker(In *in)
{
	char		error[ERROR_SIZE] = "";
	BrokerSettings settings;
	const char **sources;

	if (in->broker != NULL)
		return true;
	sources = must_alloc(sizeof(char *) * (size_t) in->config->nin);
	for (int i = 0; i < in->config->nin; i++)
		sources[i] = in->config->in[i].source;
	settings = life_broker_settings(in->life);
	in->broker = in->life->api->connect(&settings, sources, in->config->nin, error);
	free(sources);
	if (in->broker == NULL)
	{
		lose_broker(in, error);
		return false;
	}
	atomic_store(&counters.in_broker, 1);
	say(LOG_LEVEL_INFO, "in: connected to %s", in->life->api->name);
	return true;
}

static void
beat(In *in)
{
	char		numbers[4][24];
	const char *params[5];
	char		error[ERROR_SIZE];
	PGresult   *result;

	if (in->conn == NULL || now_ms() < in->beat_at)
		return;
	snprintf(numbers[0], 24, "%d", 0);
	snprintf(numbers[1], 24, "%lld", atomic_load(&counters.effects));
	snprintf(numbers[2], 24, "%lld", atomic_load(&counters.retries));
	snprintf(numbers[3], 24, "%lld", atomic_load(&counters.dead_letters));
	for (int i = 0; i < 4; i++)
		params[i] = numbers[i];
	params[4] = in->error[0] ? in->error : NULL;
	result = database_run(in->conn, PGRES_TUPLES_OK, "SELECT dtx.relay_beat($1, $2, $3, $4, $5)", 5, params, NULL, error, sizeof(error));
	if (result == NULL)
		lose_database(in, error);
	PQclear(result);
	in->beat_at = now_ms() + BEAT_MS;
}

/* ----------------------------------------------------------------
 * Messages
 * ----------------------------------------------------------------
 */

static void
count_effect(const char *what)
{
	if (what != NULL && strcmp(what, "duplicate") == 0)
		atomic_fetch_add(&counters.duplicates, 1);
	else
		atomic_fetch_add(&counters.effects, 1);
}

/* Has it a body that the database can take? */
static bool
is_text(const InMessage *m)
{
	return strlen(m->body) == m->body_len;
}

/*
 * All of them in one transaction, sent at once.  false: none of them has had its effect, or
 * that is not known; the connection may be lost.
 */
static bool
together(In *in, const InMessage *messages, int n)
{
	Params	   *params = must_alloc(sizeof(Params) * (size_t) n);
	int			duplicates = 0;
	bool		committed = false;
	bool		ok;

	for (int i = 0; i < n; i++)
		make_params(&messages[i], &params[i]);
	fault_point();
	ok = PQenterPipelineMode(in->conn) == 1 &&
		PQsendQueryParams(in->conn, "BEGIN", 0, NULL, NULL, NULL, NULL, 0) == 1;
	for (int i = 0; ok && i < n; i++)
	{
		char		statement[16];

		snprintf(statement, sizeof(statement), "in%d", messages[i].source);
		ok = PQsendQueryPrepared(in->conn, statement, NPARAMS, params[i].values, NULL, NULL, 0) == 1;
	}
	fault_point();
	ok = ok && PQsendQueryParams(in->conn, "COMMIT", 0, NULL, NULL, NULL, NULL, 0) == 1 &&
		PQpipelineSync(in->conn) == 1;
	fault_point();
	for (int i = 0; ok && i <= n + 1; i++)
	{
		PGresult   *result = PQgetResult(in->conn);

		if (result == NULL)
		{
			ok = false;
			break;
		}
		if (i > 0 && i <= n)
		{
			ok = PQresultStatus(result) == PGRES_TUPLES_OK;
			if (ok && PQntuples(result) == 1 && strcmp(PQgetvalue(result, 0, 0), "duplicate") == 0)
				duplicates++;
		}
		else
			ok = PQresultStatus(result) == PGRES_COMMAND_OK;
		if (i == n + 1)
			/* (COMMIT of a transaction that has failed says so) */
			committed = ok && strcmp(PQcmdStatus(result), "COMMIT") == 0;
		PQclear(result);
		/* the NULL between two results */
		result = PQgetResult(in->conn);
		PQclear(result);
	}
	/* whatever is left, up to the sync */
	while (PQstatus(in->conn) == CONNECTION_OK && PQpipelineStatus(in->conn) != PQ_PIPELINE_OFF)
	{
		PGresult   *result = PQgetResult(in->conn);
		ExecStatusType status = result ? PQresultStatus(result) : PGRES_EMPTY_QUERY;

		PQclear(result);
		if (status == PGRES_PIPELINE_SYNC)
		{
			(void) PQexitPipelineMode(in->conn);
			break;
		}
		if (result == NULL && PQexitPipelineMode(in->conn) == 1)
			break;
	}
	for (int i = 0; i < n; i++)
		free_params(&params[i]);
	free(params);
	if (committed)
	{
		atomic_fetch_add(&counters.duplicates, duplicates);
		atomic_fetch_add(&counters.effects, n - duplicates);
		return true;
	}
	if (PQstatus(in->conn) == CONNECTION_OK)
	{
		PGresult   *result = PQexec(in->conn, "ROLLBACK");

		PQclear(result);
	}
	return false;
}

/* One message, in a transaction of its own.  false: see "sqlstate", and "error". */
static bool
alone(In *in, const InMessage *m, char *sqlstate, char *error)
{
	char		statement[16];
	Params		params;
	PGresult   *result;
	bool		ok;

	if (!is_text(m))
	{
		strcpy(sqlstate, "22021");
		snprintf(error, ERROR_SIZE, "message is no text: it has a zero byte");
		return false;
	}
	snprintf(statement, sizeof(statement), "in%d", m->source);
	make_params(m, &params);
	fault_point();
	result = PQexecPrepared(in->conn, statement, NPARAMS, params.values, NULL, NULL, 0);
	free_params(&params);
	ok = PQresultStatus(result) == PGRES_TUPLES_OK;
	if (ok)
		count_effect(PQgetisnull(result, 0, 0) ? NULL : PQgetvalue(result, 0, 0));
	else
		database_error(in->conn, result, sqlstate, error, ERROR_SIZE);
	PQclear(result);
	return ok;
}

/*
 * Does an error go away by itself?  So do a lock that was not to be had in time, and a
 * database in which nothing may be written for now.
 */
static bool
passes(const char *sqlstate)
{
	return sqlstate[0] == '\0' || strncmp(sqlstate, "40", 2) == 0 || strncmp(sqlstate, "08", 2) == 0 ||
		strncmp(sqlstate, "53", 2) == 0 || strncmp(sqlstate, "57P", 3) == 0 ||
		strcmp(sqlstate, "55P03") == 0 || strcmp(sqlstate, "25006") == 0;
}

/* To the dead letters; false: stop was ordered before that, or the broker is lost. */
static bool
bury(In *in, const InMessage *m, const char *sqlstate, const char *message)
{
	const InRule *r = &in->config->in[m->source];
	Header		more[3];
	char		error[ERROR_SIZE] = "";

	more[0].name = (char *) "dtx-sqlstate";
	more[0].value = (char *) sqlstate;
	more[1].name = (char *) "dtx-error";
	more[1].value = (char *) message;
	more[2].name = (char *) "dtx-rule";
	more[2].value = r->name;
	if (in->life->api->bury(in->broker, m, r->dead_letter, more, 3, error))
	{
		say(LOG_LEVEL_ERROR, "in: message %s of [in.%s] is a dead letter: %s", m->id ? m->id : "without id", r->name, message);
		atomic_fetch_add(&counters.dead_letters, 1);
		return true;
	}
	/* nothing is lost: it is delivered again */
	lose_broker(in, error);
	return false;
}

/* One message, until it has had its effect, or is dead; false: neither. */
static bool
until_done(In *in, const InMessage *m)
{
	const InRule *r = &in->config->in[m->source];
	int			attempts = 0;
	int			passing = 0;

	for (;;)
	{
		char		sqlstate[6] = "";
		char		error[ERROR_SIZE] = "";

		atomic_fetch_add(&in->life->in_turns, 1);
		if (atomic_load(&in->life->stop))
			return false;
		if (!have_database(in))
		{
			if (in->life->mode == RUN_ONCE)
				return false;
			continue;
		}
		beat(in);
		if (in->conn == NULL)
			continue;
		if (alone(in, m, sqlstate, error))
		{
			in->error[0] = '\0';
			return true;
		}
		snprintf(in->error, sizeof(in->error), "%s", error);
		atomic_fetch_add(&counters.retries, 1);
		if (sqlstate[0] == '\0')
			lose_database(in, error);
		if (passes(sqlstate))
		{
			passing++;
			if (in->life->mode == RUN_ONCE && passing > 10)
			{
				atomic_store(&in->life->in_failed, true);
				return false;
			}
			life_sleep(in->life, backoff_ms(passing, in->config->backoff_max_ms));
			continue;
		}
		attempts++;
		say(LOG_LEVEL_WARNING, "in: message %s of [in.%s], attempt %d of %d: %s", m->id ? m->id : "without id",
			r->name, attempts, r->attempts, error);
		if (attempts >= r->attempts)
			return bury(in, m, sqlstate, error);
		life_sleep(in->life, backoff_ms(attempts, 2000));
	}
}

static bool
one_batch(In *in, InMessage *messages, int n)
{
	bool		all_text = true;
	char		error[ERROR_SIZE] = "";

	atomic_fetch_add(&counters.received, n);
	for (int i = 0; i < n; i++)
		all_text = all_text && is_text(&messages[i]);
	if (!all_text || n == 1 || !together(in, messages, n))
	{
		for (int i = 0; i < n; i++)
		{
			if (!until_done(in, &messages[i]))
			{
				/* what is not settled comes again: that is what ends a batch */
				if (in->broker != NULL && !atomic_load(&in->life->stop))
					lose_broker(in, "a message had no effect");
				return false;
			}
		}
	}
	in->broker_failures = 0;
	if (in->broker != NULL && !in->life->api->settle(in->broker, messages, n, error))
	{
		lose_broker(in, error);
		return false;
	}
	in->error[0] = '\0';
	return true;
}

static void
run(In *in)
{
	Life	   *life = in->life;
	InMessage  *messages = must_alloc(sizeof(InMessage) * BATCH);

	while (!atomic_load(&life->stop))
	{
		char		error[ERROR_SIZE] = "";
		int			n;

		atomic_fetch_add(&life->in_turns, 1);
		if (life->mode == RUN_ONCE && atomic_load(&life->in_failed))
			break;
		if (!have_database(in) || !have_broker(in))
		{
			beat(in);
			continue;
		}
		beat(in);
		n = life->api->receive(in->broker, messages, BATCH, life->mode == RUN_ONCE ? LAST_MS : RECEIVE_MS, error);
		if (n < 0)
		{
			lose_broker(in, error);
			continue;
		}
		if (n == 0)
		{
			in->broker_failures = 0;
			in->error[0] = '\0';
			if (life->mode == RUN_ONCE)
				break;
			continue;
		}
		if (in->conn != NULL)
			(void) one_batch(in, messages, n);
		else
			lose_broker(in, "database was lost");
		life->api->release(messages, n);
	}
	free(messages);
}

void *
in_main(void *arg)
{
	In			in;

	memset(&in, 0, sizeof(in));
	in.life = (Life *) arg;
	in.config = in.life->config;
	run(&in);
	lose_broker(&in, NULL);
	in.beat_at = 0;
	beat(&in);
	lose_database(&in, NULL);
	atomic_store(&in.life->in_ended, true);
	return NULL;
}
