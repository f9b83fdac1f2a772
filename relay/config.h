/*-------------------------------------------------------------------------
 *
 * config.h
 *		What the configuration file of a relay says.
 *
 * Made by config_read() and never changed after that: threads share it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_CONFIG_H
#define RELAY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "broker.h"
#include "log.h"

/* [out.NAME]: events with such an aggregatetype go there.  [step.QUEUE]: likewise, the
 * commands for external steps of that queue. */
typedef struct OutRule
{
	char	   *name;
	char	   *queue;			/* of external steps; NULL: it is [out] */
	char	   *pattern;		/* of LIKE */
	char	   *exchange;		/* or topic; a template */
	char	   *routing_key;	/* a template */
	char	   *envelope;
	char	   *reply_to;		/* of commands; NULL: none */
	bool		skip_poison;
	bool		strict_order;
} OutRule;

typedef enum InAction
{
	IN_START_SAGA, IN_SIGNAL_SAGA, IN_REPLY, IN_CALL
} InAction;

/* [in.NAME]: what a message from a queue or topic does */
typedef struct InRule
{
	char	   *name;			/* source in dtx.inbox */
	char	   *source;			/* queue or topic */
	char	   *envelope;
	InAction	action;
	char	   *saga;
	char	   *signal;
	char	   *key;			/* which part of the message */
	char	   *function;
	int			attempts;
	char	   *dead_letter;	/* queue or topic */
} InRule;

typedef struct Config
{
	char	   *path;
	char	   *name;
	char	   *group;
	char	   *source;			/* of CloudEvents */
	LogLevel	log_level;
	char	   *metrics_address;	/* NULL: none */
	int			metrics_port;
	int			batch;
	int			poll_ms;
	int			timeout_ms;		/* of confirms */
	int			backoff_max_ms;
	char	   *keep_inbox;		/* interval */
	char	   *conninfo;
	char	   *db_password;	/* NULL: as libpq finds one */
	char	   *broker_kind;	/* section, and module */
	BrokerSetting *broker;
	int			nbroker;
	OutRule    *out;
	int			nout;
	InRule	   *in;
	int			nin;
} Config;

/*
 * Read a file; names of settings of the broker are not checked.  NULL: "error" says what is
 * wrong.
 */
extern Config *config_read(const char *path, char *error, size_t size);
extern void config_free(Config *config);

#endif							/* RELAY_CONFIG_H */
