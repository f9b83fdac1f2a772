/*-------------------------------------------------------------------------
 *
 * config.c
 *		What the configuration file of a relay says.
 *
 *-------------------------------------------------------------------------
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ini.h"
#include "util.h"

/* Which of the settings of a section may be given by file or environment. */
#define SECRET_FILE		"_file"
#define SECRET_ENV		"_env"

static bool read_line(void *arg, const char *section, const char *name,
					  const char *value, char *error, size_t size);
static bool relay_line(Config *c, const char *name, const char *value, char *error, size_t size);
static bool database_line(Config *c, const char *name, const char *value, char *error, size_t size);
static bool broker_line(Config *c, const char *section, const char *name, const char *value,
						char *error, size_t size);
static bool out_line(OutRule *r, const char *name, const char *value, char *error, size_t size);
static bool in_line(InRule *r, const char *name, const char *value, char *error, size_t size);
static bool complete(Config *c, char *error, size_t size);

static void
set(char **field, const char *value)
{
	free(*field);
	*field = must_dup(value);
}

static bool
one_of(const char *value, const char *const *options, int *which, char *error, size_t size)
{
	size_t		len = 0;

	for (int i = 0; options[i] != NULL; i++)
	{
		if (strcmp(value, options[i]) == 0)
		{
			*which = i;
			return true;
		}
	}
	len = (size_t) snprintf(error, size, "must be");
	for (int i = 0; options[i] != NULL && len < size; i++)
		len += (size_t) snprintf(error + len, size - len, "%s %s",
								 i == 0 ? "" : options[i + 1] == NULL ? " or" : ",", options[i]);
	return false;
}

static bool
boolean(const char *value, bool *result, char *error, size_t size)
{
	static const char *const options[] = {"off", "on", NULL};
	int			which;

	if (!one_of(value, options, &which, error, size))
		return false;
	*result = which == 1;
	return true;
}

static bool
number(const char *value, int min, int max, int *result, char *error, size_t size)
{
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(value, &end, 10);
	if (errno != 0 || end == value || *end != '\0' || n < min || n > max)
	{
		snprintf(error, size, "must be a number from %d to %d", min, max);
		return false;
	}
	*result = (int) n;
	return true;
}

/* "250ms", "30s", "5min" in milliseconds */
static bool
duration(const char *value, int min_ms, int max_ms, int *result, char *error, size_t size)
{
	static const struct
	{
		const char *unit;
		long		ms;
	}			units[] = {{"ms", 1}, {"s", 1000}, {"min", 60000}, {"h", 3600000}};
	char	   *end;
	long		n;

	errno = 0;
	n = strtol(value, &end, 10);
	while (isspace((unsigned char) *end))
		end++;
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
	{
		if (errno == 0 && end != value && n >= 0 && n <= INT_MAX / units[i].ms &&
			strcmp(end, units[i].unit) == 0 &&
			n * units[i].ms >= min_ms && n * units[i].ms <= max_ms)
		{
			*result = (int) (n * units[i].ms);
			return true;
		}
	}
	snprintf(error, size, "must be a time like 250ms, 30s or 5min, from %d ms to %d s",
			 min_ms, max_ms / 1000);
	return false;
}

/*
 * The content of a file without the line end, or of a variable of the environment.
 * NULL: failed.
 */
static char *
secret(const char *how, const char *where, char *error, size_t size)
{
	char		buffer[4096];
	size_t		len;
	FILE	   *file;

	if (strcmp(how, SECRET_ENV) == 0)
	{
		if (getenv(where) != NULL)
			return must_dup(getenv(where));
		snprintf(error, size, "environment variable \"%s\" is not set", where);
		return NULL;
	}
	file = fopen(where, "re");
	if (file == NULL)
	{
		snprintf(error, size, "could not open \"%s\": %s", where, strerror(errno));
		return NULL;
	}
	len = fread(buffer, 1, sizeof(buffer) - 1, file);
	fclose(file);
	while (len > 0 && (buffer[len - 1] == '\n' || buffer[len - 1] == '\r'))
		len--;
	buffer[len] = '\0';
	if (len == 0 || strlen(buffer) != len)
	{
		snprintf(error, size, "\"%s\" is empty, or no text", where);
		return NULL;
	}
	return must_dup(buffer);
}

/*
 * A name without _file or _env, and the value that is meant.  false: failed.
 */
static bool
resolve_secret(const char *name, const char *value, char **real_name, char **real_value,
			   char *error, size_t size)
{
	static const char *const hows[] = {SECRET_FILE, SECRET_ENV};
	static const char *const secrets[] = {"password", "sasl.password", "ssl.key.password", "key_password"};

	for (size_t i = 0; i < 2; i++)
	{
		size_t		len = strlen(name);
		size_t		end = strlen(hows[i]);

		for (size_t j = 0; j < sizeof(secrets) / sizeof(secrets[0]); j++)
		{
			if (len == strlen(secrets[j]) + end && strncmp(name, secrets[j], len - end) == 0 &&
				strcmp(name + len - end, hows[i]) == 0)
			{
				*real_value = secret(hows[i], value, error, size);
				*real_name = must_dup(secrets[j]);
				return *real_value != NULL;
			}
		}
	}
	*real_name = must_dup(name);
	*real_value = must_dup(value);
	return true;
}

static bool
relay_line(Config *c, const char *name, const char *value, char *error, size_t size)
{
	static const char *const levels[] = {"debug", "info", "warning", "error", NULL};

	if (strcmp(name, "name") == 0)
		set(&c->name, value);
	else if (strcmp(name, "group") == 0)
		set(&c->group, value);
	else if (strcmp(name, "source") == 0)
		set(&c->source, value);
	else if (strcmp(name, "log_level") == 0)
	{
		int			level;

		if (!one_of(value, levels, &level, error, size))
			return false;
		c->log_level = (LogLevel) level;
	}
	else if (strcmp(name, "metrics") == 0)
	{
		const char *colon = strrchr(value, ':');

		if (colon == NULL || colon == value)
		{
			snprintf(error, size, "must be ADDRESS:PORT");
			return false;
		}
		if (!number(colon + 1, 1, 65535, &c->metrics_port, error, size))
			return false;
		free(c->metrics_address);
		c->metrics_address = must_printf("%.*s", (int) (colon - value), value);
	}
	else if (strcmp(name, "batch") == 0)
		return number(value, 1, 10000, &c->batch, error, size);
	else if (strcmp(name, "poll") == 0)
		return duration(value, 10, 1000, &c->poll_ms, error, size);
	else if (strcmp(name, "confirm_timeout") == 0)
		return duration(value, 1000, 600000, &c->timeout_ms, error, size);
	else if (strcmp(name, "backoff_max") == 0)
		return duration(value, 100, 3600000, &c->backoff_max_ms, error, size);
	else if (strcmp(name, "keep_inbox") == 0)
		set(&c->keep_inbox, value);
	else
	{
		snprintf(error, size, "there is no setting \"%s\" in [relay]", name);
		return false;
	}
	return true;
}

static bool
database_line(Config *c, const char *name, const char *value, char *error, size_t size)
{
	char	   *real_name = NULL;
	char	   *real_value = NULL;
	bool		ok = resolve_secret(name, value, &real_name, &real_value, error, size);

	if (ok)
	{
		if (strcmp(real_name, "conninfo") == 0)
			set(&c->conninfo, real_value);
		else if (strcmp(real_name, "password") == 0)
			set(&c->db_password, real_value);
		else
		{
			snprintf(error, size, "there is no setting \"%s\" in [database]", name);
			ok = false;
		}
	}
	free(real_name);
	free(real_value);
	return ok;
}

static bool
broker_line(Config *c, const char *section, const char *name, const char *value,
			char *error, size_t size)
{
	BrokerSetting s = {NULL, NULL};

	if (c->broker_kind != NULL && strcmp(c->broker_kind, section) != 0)
	{
		snprintf(error, size, "a relay is for one broker; use another one for [%s]", section);
		return false;
	}
	set(&c->broker_kind, section);
	if (!resolve_secret(name, value, &s.name, &s.value, error, size))
	{
		free(s.name);
		return false;
	}
	c->broker = must_realloc(c->broker, sizeof(BrokerSetting) * (size_t) (c->nbroker + 1));
	c->broker[c->nbroker++] = s;
	return true;
}

static bool
out_line(OutRule *r, const char *name, const char *value, char *error, size_t size)
{
	static const char *const envelopes[] = {"raw", "cloudevents", "cloudevents-structured", "debezium", NULL};
	static const char *const poisons[] = {"stop", "skip", NULL};
	int			which;

	if (strcmp(name, "aggregatetype") == 0 && r->queue == NULL)
		set(&r->pattern, value);
	else if (strcmp(name, "exchange") == 0 || strcmp(name, "topic") == 0)
		set(&r->exchange, value);
	else if (strcmp(name, "routing_key") == 0)
		set(&r->routing_key, value);
	else if (strcmp(name, "reply_to") == 0 && r->queue != NULL)
		set(&r->reply_to, value);
	else if (strcmp(name, "envelope") == 0)
	{
		if (!one_of(value, envelopes, &which, error, size))
			return false;
		set(&r->envelope, value);
	}
	else if (strcmp(name, "on_poison") == 0)
	{
		if (!one_of(value, poisons, &which, error, size))
			return false;
		r->skip_poison = which == 1;
	}
	else if (strcmp(name, "strict_order") == 0)
		return boolean(value, &r->strict_order, error, size);
	else
	{
		snprintf(error, size, "there is no setting \"%s\" in [%s.NAME]", name, r->queue ? "step" : "out");
		return false;
	}
	return true;
}

static bool
in_line(InRule *r, const char *name, const char *value, char *error, size_t size)
{
	static const char *const envelopes[] = {"raw", "cloudevents", "debezium", NULL};
	static const char *const actions[] = {"start_saga", "signal_saga", "reply", "call", NULL};
	int			which;

	if (strcmp(name, "queue") == 0 || strcmp(name, "topic") == 0)
		set(&r->source, value);
	else if (strcmp(name, "envelope") == 0)
	{
		if (!one_of(value, envelopes, &which, error, size))
			return false;
		set(&r->envelope, value);
	}
	else if (strcmp(name, "action") == 0)
	{
		if (!one_of(value, actions, &which, error, size))
			return false;
		r->action = (InAction) which;
	}
	else if (strcmp(name, "saga") == 0)
		set(&r->saga, value);
	else if (strcmp(name, "signal") == 0)
		set(&r->signal, value);
	else if (strcmp(name, "function") == 0)
		set(&r->function, value);
	else if (strcmp(name, "key") == 0)
	{
		bool		path = strncmp(value, "header.", 7) == 0 || strncmp(value, "data.", 5) == 0;

		if (strcmp(value, "id") != 0 && strcmp(value, "key") != 0 && strcmp(value, "type") != 0 &&
			(!path || strchr(value, '.')[1] == '\0'))
		{
			snprintf(error, size, "must be id, key, type, header.NAME, or data.FIELD");
			return false;
		}
		set(&r->key, value);
	}
	else if (strcmp(name, "attempts") == 0)
		return number(value, 1, 100, &r->attempts, error, size);
	else if (strcmp(name, "dead_letter") == 0)
		set(&r->dead_letter, value);
	else
	{
		snprintf(error, size, "there is no setting \"%s\" in [in.NAME]", name);
		return false;
	}
	return true;
}

/* For LIKE: that text, and no other. */
static char *
literal_pattern(const char *prefix, const char *text)
{
	char	   *pattern = must_alloc(strlen(prefix) + 2 * strlen(text) + 1);
	char	   *p = pattern + sprintf(pattern, "%s", prefix);

	for (; *text; text++)
	{
		if (strchr("%_\\", *text))
			*p++ = '\\';
		*p++ = *text;
	}
	return pattern;
}

static bool
read_line(void *arg, const char *section, const char *name, const char *value,
		  char *error, size_t size)
{
	Config	   *c = (Config *) arg;
	bool		step = strncmp(section, "step.", 5) == 0;

	if (strcmp(section, "relay") == 0)
		return relay_line(c, name, value, error, size);
	if (strcmp(section, "database") == 0)
		return database_line(c, name, value, error, size);
	if (strcmp(section, "rabbitmq") == 0 || strcmp(section, "kafka") == 0)
		return broker_line(c, section, name, value, error, size);
	if ((step && section[5] != '\0') || (strncmp(section, "out.", 4) == 0 && section[4] != '\0'))
	{
		OutRule    *r = NULL;

		for (int i = 0; i < c->nout; i++)
		{
			if (strcmp(c->out[i].name, section) == 0)
				r = &c->out[i];
		}
		if (r == NULL)
		{
			c->out = must_realloc(c->out, sizeof(OutRule) * (size_t) (c->nout + 1));
			r = &c->out[c->nout++];
			memset(r, 0, sizeof(*r));
			r->name = must_dup(section);
			r->strict_order = true;
			r->envelope = must_dup("raw");
			if (step)
			{
				r->queue = must_dup(section + 5);
				r->pattern = literal_pattern("dtx.step.", section + 5);
			}
		}
		return out_line(r, name, value, error, size);
	}
	if (strncmp(section, "in.", 3) == 0 && section[3] != '\0')
	{
		InRule	   *r = NULL;

		for (int i = 0; i < c->nin; i++)
		{
			if (strcmp(c->in[i].name, section + 3) == 0)
				r = &c->in[i];
		}
		if (r == NULL)
		{
			c->in = must_realloc(c->in, sizeof(InRule) * (size_t) (c->nin + 1));
			r = &c->in[c->nin++];
			memset(r, 0, sizeof(*r));
			r->name = must_dup(section + 3);
			r->envelope = must_dup("raw");
			r->action = IN_CALL;
			r->attempts = 5;
		}
		return in_line(r, name, value, error, size);
	}
	snprintf(error, size, "there is no section [%s]", section);
	return false;
}

/* Defaults, and what must be there. */
static bool
complete(Config *c, char *error, size_t size)
{
	bool		kafka = c->broker_kind != NULL && strcmp(c->broker_kind, "kafka") == 0;

	if (c->conninfo == NULL)
		set(&c->conninfo, "");
	if (c->broker_kind == NULL)
	{
		snprintf(error, size, "%s: there is no section [rabbitmq] or [kafka]", c->path);
		return false;
	}
	if (c->group == NULL)
		set(&c->group, c->broker_kind);
	if (c->name == NULL)
	{
		char		host[256] = "";

		gethostname(host, sizeof(host) - 1);
		c->name = must_printf("%s:%ld", host, (long) getpid());
	}
	if (c->nout + c->nin == 0)
	{
		snprintf(error, size, "%s: there is no rule, [out.NAME], [step.NAME] or [in.NAME]", c->path);
		return false;
	}
	for (int i = 0; i < c->nout; i++)
	{
		OutRule    *r = &c->out[i];

		if (r->pattern == NULL)
			set(&r->pattern, "%");
		if (r->exchange == NULL && kafka)
		{
			snprintf(error, size, "%s: [%s] has no topic", c->path, r->name);
			return false;
		}
		/* (the default exchange leads to the queue of that name) */
		if (r->exchange == NULL)
			set(&r->exchange, "");
		if (r->routing_key == NULL)
			set(&r->routing_key, r->queue ? r->queue : "{aggregatetype}.{type}");
	}
	for (int i = 0; i < c->nin; i++)
	{
		InRule	   *r = &c->in[i];
		const char *lacks = NULL;

		if (r->source == NULL)
			lacks = kafka ? "topic" : "queue";
		else if ((r->action == IN_START_SAGA || r->action == IN_SIGNAL_SAGA) && r->saga == NULL)
			lacks = "saga";
		else if (r->action == IN_SIGNAL_SAGA && r->signal == NULL)
			lacks = "signal";
		else if (r->action == IN_CALL && r->function == NULL)
			lacks = "function";
		if (lacks != NULL)
		{
			snprintf(error, size, "%s: [in.%s] has no %s", c->path, r->name, lacks);
			return false;
		}
		if (r->key == NULL)
			set(&r->key, "key");
		if (r->dead_letter == NULL)
			r->dead_letter = must_printf("%s.dead", r->source);
		for (int j = 0; j < i; j++)
		{
			if (strcmp(c->in[j].source, r->source) == 0)
			{
				snprintf(error, size, "%s: [in.%s] and [in.%s] are for the same messages", c->path,
						 c->in[j].name, r->name);
				return false;
			}
		}
	}
	return true;
}

Config *
config_read(const char *path, char *error, size_t size)
{
	Config	   *c = must_alloc(sizeof(Config));

	c->path = must_dup(path);
	c->source = must_dup("/pg_dtx");
	c->log_level = LOG_LEVEL_INFO;
	c->batch = 500;
	c->poll_ms = 250;
	c->timeout_ms = 30000;
	c->backoff_max_ms = 30000;
	c->keep_inbox = must_dup("30 days");
	if (!ini_read(path, read_line, c, error, size) || !complete(c, error, size))
	{
		config_free(c);
		return NULL;
	}
	return c;
}

void
config_free(Config *c)
{
	if (c == NULL)
		return;
	for (int i = 0; i < c->nout; i++)
	{
		OutRule    *r = &c->out[i];

		free(r->name);
		free(r->queue);
		free(r->pattern);
		free(r->exchange);
		free(r->routing_key);
		free(r->envelope);
		free(r->reply_to);
	}
	for (int i = 0; i < c->nin; i++)
	{
		InRule	   *r = &c->in[i];

		free(r->name);
		free(r->source);
		free(r->envelope);
		free(r->saga);
		free(r->signal);
		free(r->key);
		free(r->function);
		free(r->dead_letter);
	}
	for (int i = 0; i < c->nbroker; i++)
	{
		free(c->broker[i].name);
		free(c->broker[i].value);
	}
	free(c->out);
	free(c->in);
	free(c->broker);
	free(c->path);
	free(c->name);
	free(c->group);
	free(c->source);
	free(c->metrics_address);
	free(c->keep_inbox);
	free(c->conninfo);
	free(c->db_password);
	free(c->broker_kind);
	free(c);
}
