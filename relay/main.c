/*-------------------------------------------------------------------------
 *
 * main.c
 *		pg_dtx_relay: between the outbox and inbox of a database and a message broker.
 *
 * A thread publishes, another one receives, each with connections of its own; this one
 * starts and stops them, and waits for signals: SIGTERM and SIGINT stop them after what
 * they are doing, a second one ends the process at once, and SIGHUP has them begin anew
 * with the configuration as it is now, if that is valid.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "config.h"
#include "counters.h"
#include "exits.h"
#include "in.h"
#include "life.h"
#include "log.h"
#include "metrics.h"
#include "module.h"
#include "notify.h"
#include "out.h"
#include "util.h"

#ifndef RELAY_VERSION
#define RELAY_VERSION "unknown"
#endif

#define DEFAULT_CONFIG	"/etc/pg_dtx_relay.conf"

typedef struct Options
{
	const char *config;
	bool		check;
	RunMode		mode;
	int			timeout_s;		/* 0: none */
} Options;

typedef enum Why
{
	WHY_ENDED, WHY_STOP, WHY_RELOAD, WHY_TIMEOUT
} Why;

static void
usage(FILE *f)
{
	fprintf(f,
			"pg_dtx_relay publishes events of a database to a message broker, and has messages\n"
			"from it take effect there.\n\n"
			"Usage:\n"
			"  pg_dtx_relay [OPTION]...\n\n"
			"Options:\n"
			"  -c, --config=FILE      configuration (default: " DEFAULT_CONFIG ")\n"
			"      --check            look whether everything is there, and exit\n"
			"      --once             publish and take what there is now, and exit\n"
			"      --drain            publish until nothing is left, take no messages, and exit\n"
			"      --timeout=SECONDS  of --once and --drain: exit with status 6 after that\n"
			"  -V, --version          show the version, and exit\n"
			"  -?, --help             show this, and exit\n");
}

/* Returns an exit status, or -1: go on. */
static int
read_options(int argc, char **argv, Options *o)
{
	static const struct option options[] = {
		{"config", required_argument, NULL, 'c'},
		{"check", no_argument, NULL, 1},
		{"once", no_argument, NULL, 2},
		{"drain", no_argument, NULL, 3},
		{"timeout", required_argument, NULL, 4},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, '?'},
		{NULL, 0, NULL, 0}
	};
	int			c;
	int			modes = 0;

	memset(o, 0, sizeof(*o));
	o->config = DEFAULT_CONFIG;
	opterr = 0;
	while ((c = getopt_long(argc, argv, "c:V?", options, NULL)) != -1)
	{
		switch (c)
		{
			case 'c':
				o->config = optarg;
				break;
			case 1:
				o->check = true;
				modes++;
				break;
			case 2:
				o->mode = RUN_ONCE;
				modes++;
				break;
			case 3:
				o->mode = RUN_DRAIN;
				modes++;
				break;
			case 4:
				o->timeout_s = atoi(optarg);
				if (o->timeout_s <= 0)
				{
					fprintf(stderr, "pg_dtx_relay: --timeout is a number of seconds\n");
					return RELAY_EXIT_USAGE;
				}
				break;
			case 'V':
				printf("pg_dtx_relay " RELAY_VERSION "\n");
				return RELAY_EXIT_OK;
			default:
				if (argv[optind - 1] != NULL &&
					(strcmp(argv[optind - 1], "--help") == 0 || strcmp(argv[optind - 1], "-?") == 0))
				{
					usage(stdout);
					return RELAY_EXIT_OK;
				}
				fprintf(stderr, "pg_dtx_relay: unknown option, or one without its value; try --help\n");
				return RELAY_EXIT_USAGE;
		}
	}
	if (optind < argc || modes > 1 || (o->timeout_s > 0 && o->mode == RUN_ON))
	{
		fprintf(stderr, "pg_dtx_relay: options do not go together; try --help\n");
		return RELAY_EXIT_USAGE;
	}
	return -1;
}

/*
 * The configuration, and the module for its broker.  NULL: "error" says what is wrong.
 */
static Config *
load(const char *path, const BrokerApi **api, char *error, size_t size)
{
	Config	   *c = config_read(path, error, size);

	if (c == NULL)
		return NULL;
	*api = module_load(c->broker_kind, error);
	for (int i = 0; *api != NULL && i < c->nbroker; i++)
	{
		if (!(*api)->known_setting(c->broker[i].name))
		{
			snprintf(error, size, "%s: there is no setting \"%s\" in [%s], or it is not to be set",
					 path, c->broker[i].name, c->broker_kind);
			*api = NULL;
		}
	}
	if (*api == NULL)
	{
		config_free(c);
		return NULL;
	}
	log_set_level(c->log_level);
	return c;
}

static void
start(pthread_t *thread, void *(*function) (void *), Life *life)
{
	int			err = pthread_create(thread, NULL, function, life);

	if (err != 0)
	{
		say(LOG_LEVEL_ERROR, "could not start a thread: %s", strerror(err));
		exit(RELAY_EXIT_FATAL);
	}
}

/* Does a thread do something? */
static bool
alive(Life *life, int *turns, int64_t *since)
{
	int			now = atomic_load(&life->out_turns) + atomic_load(&life->in_turns) * 7;

	if (now != *turns)
	{
		*turns = now;
		*since = now_ms();
	}
	return now_ms() - *since < life->config->timeout_ms + 90000;
}

/*
 * Run with a configuration, until that has to end.  If it is to run on with another one,
 * that is in "next", and its module in "next_api".
 */
static Why
run(Life *life, const sigset_t *signals, const Options *options, bool *failed,
	Config **next, const BrokerApi **next_api)
{
	pthread_t	out;
	pthread_t	in;
	bool		has_out = life->config->nout > 0;
	bool		has_in = life->config->nin > 0 && life->mode != RUN_DRAIN;
	bool		told_ready = false;
	int64_t		began = now_ms();
	int64_t		since = began;
	int			turns = -1;
	Why			why = WHY_ENDED;

	atomic_store(&life->out_ended, !has_out);
	atomic_store(&life->in_ended, !has_in);
	if (has_out)
		start(&out, out_main, life);
	if (has_in)
		start(&in, in_main, life);
	metrics_of(life);
	while (!atomic_load(&life->out_ended) || !atomic_load(&life->in_ended))
	{
		struct timespec tick = {0, 100 * 1000000};
		int			sig = sigtimedwait(signals, NULL, &tick);

		if (sig == SIGTERM || sig == SIGINT)
		{
			if (why == WHY_STOP)
				_exit(RELAY_EXIT_FATAL);
			why = WHY_STOP;
			notify("STOPPING=1");
			say(LOG_LEVEL_INFO, "stopping");
			atomic_store(&life->stop, true);
		}
		else if (sig == SIGHUP && why == WHY_ENDED && life->mode == RUN_ON)
		{
			char		error[ERROR_SIZE];

			*next = load(options->config, next_api, error, sizeof(error));
			if (*next == NULL)
				say(LOG_LEVEL_ERROR, "configuration is not used: %s", error);
			else
			{
				why = WHY_RELOAD;
				say(LOG_LEVEL_INFO, "beginning anew with the configuration as it is now");
				atomic_store(&life->stop, true);
			}
		}
		if (options->timeout_s > 0 && why == WHY_ENDED && now_ms() - began > (int64_t) options->timeout_s * 1000)
		{
			why = WHY_TIMEOUT;
			say(LOG_LEVEL_ERROR, "not done after %d seconds", options->timeout_s);
			atomic_store(&life->stop, true);
		}
		if (!told_ready && metrics_ready(life))
		{
			notify("READY=1\nSTATUS=connected");
			say(LOG_LEVEL_INFO, "ready");
			told_ready = true;
		}
		if (alive(life, &turns, &since))
			notify("WATCHDOG=1");
	}
	if (has_out)
		pthread_join(out, NULL);
	if (has_in)
		pthread_join(in, NULL);
	metrics_of(NULL);
	*failed = atomic_load(&life->out_failed) || atomic_load(&life->in_failed);
	return why;
}

int
main(int argc, char **argv)
{
	Options		options;
	Life		life;
	const BrokerApi *api;
	char		error[ERROR_SIZE] = "";
	Config	   *config;
	sigset_t	signals;
	char	   *listening = NULL;	/* where metrics are served */
	bool		failed = false;
	Why			why;
	int			status = read_options(argc, argv, &options);

	if (status >= 0)
		return status;
	config = load(options.config, &api, error, sizeof(error));
	if (config == NULL)
	{
		fprintf(stderr, "pg_dtx_relay: %s\n", error);
		return RELAY_EXIT_CONFIG;
	}

	/* before there are threads, which inherit that */
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);

	do
	{
		Config	   *next = NULL;
		const BrokerApi *next_api = NULL;

		life_begin(&life, config, api, options.mode);
		if (options.check)
		{
			status = check(&life);
			config_free(config);
			return status;
		}
		if (config->metrics_address != NULL)
		{
			char	   *address = must_printf("%s:%d", config->metrics_address, config->metrics_port);

			if (listening == NULL || strcmp(listening, address) != 0)
			{
				metrics_stop();
				free(listening);
				listening = NULL;
				if (!metrics_start(config->metrics_address, config->metrics_port, error, sizeof(error)))
				{
					say(LOG_LEVEL_ERROR, "%s", error);
					return RELAY_EXIT_CONFIG;
				}
				listening = must_dup(address);
			}
			free(address);
		}
		else if (listening != NULL)
		{
			metrics_stop();
			free(listening);
			listening = NULL;
		}
		why = run(&life, &signals, &options, &failed, &next, &next_api);
		config_free(config);
		config = next;
		api = next_api;
	} while (why == WHY_RELOAD);
	metrics_stop();
	free(listening);
	if (why == WHY_TIMEOUT || failed)
		return RELAY_EXIT_LEFT;
	return RELAY_EXIT_OK;
}
