/*-------------------------------------------------------------------------
 *
 * broker.h
 *		What a module for a kind of message broker offers to the relay.
 *
 * A module is a shared library, relay_KIND.so, with one symbol, relay_broker: a
 * BrokerApi.  A Broker is a connection, used by one thread at a time.  Functions write
 * why they have failed into "error" (ERROR_SIZE bytes), without passwords, and never end
 * the process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_BROKER_H
#define RELAY_BROKER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BROKER_ABI		1
#define ERROR_SIZE		512
#define REASON_SIZE		256

typedef struct Broker Broker;

typedef struct Header
{
	char	   *name;
	char	   *value;
} Header;

/* Lines of the configuration file, in the section of the broker. */
typedef struct BrokerSetting
{
	char	   *name;
	char	   *value;
} BrokerSetting;

/* Valid as long as any connection that was made with it. */
typedef struct BrokerSettings
{
	const BrokerSetting *settings;
	int			nsettings;
	const char *client_name;	/* what the broker shows */
	int			timeout_ms;		/* of connecting, and of waiting for confirms */
} BrokerSettings;

/*
 * A message to be published.  "header_prefix" of headers whose name begins with "ce:" is
 * the module's: attributes of a CloudEvent have another one with each protocol.
 */
typedef struct OutMessage
{
	const char *exchange;		/* or topic */
	const char *routing_key;	/* not for Kafka */
	const char *id;
	const char *key;
	const char *type;
	const char *content_type;
	const char *body;			/* NULL: none */
	size_t		body_len;
	int64_t		at_ms;			/* since 1970 */
	const Header *headers;
	int			nheaders;
} OutMessage;

typedef enum OutOutcome
{
	OUT_UNKNOWN,				/* not known; to be published again, by itself */
	OUT_CONFIRMED,				/* the broker has it, and keeps it */
	OUT_AGAIN,					/* refused for no fault of its own */
	OUT_POISON					/* refused, and always will be */
} OutOutcome;

typedef struct OutResult
{
	OutOutcome	outcome;
	char		reason[REASON_SIZE];	/* if it was not confirmed */
} OutResult;

/* A message that has come.  Strings are the message's, freed by release(). */
typedef struct InMessage
{
	int			source;			/* index of the queue or topic, as given to
								 * connect() */
	char	   *id;				/* NULL: none */
	char	   *key;			/* routing key, or key of the record; NULL:
								 * none */
	char	   *type;
	char	   *content_type;
	char	   *body;			/* followed by a zero byte */
	size_t		body_len;
	Header	   *headers;
	int			nheaders;
	uint64_t	tag;			/* the module's */
	int32_t		partition;		/* the module's */
} InMessage;

typedef struct BrokerApi
{
	int			abi;			/* BROKER_ABI */
	const char *name;

	/*
	 * Does it keep the order of what is published together, whatever is
	 * refused of it?
	 */
	bool		keeps_order;

	/* Is this a name of a setting?  One for all connections. */
	bool		(*known_setting) (const char *name);

	/*
	 * Connect, to publish if there are no "sources", else to receive from
	 * these queues or topics.  NULL: failed.
	 */
	Broker	   *(*connect) (const BrokerSettings *settings,
							const char *const *sources, int nsources, char *error);

	/*
	 * Publish, and wait for what becomes of each, for the time-out at most.
	 * false: the connection is of no use any more; outcomes that are known
	 * are set all the same.
	 */
	bool		(*publish) (Broker *broker, const OutMessage *messages, int n,
							OutResult *results, char *error);

	/*
	 * Is there such an exchange, or topic (source: queue, or topic)?
	 */
	bool		(*there) (Broker *broker, const char *name, bool source, char *error);

	/*
	 * Up to "max" messages, after "timeout_ms" if there is none.  -1: the
	 * connection is of no use any more.
	 */
	int			(*receive) (Broker *broker, InMessage *messages, int max,
							int timeout_ms, char *error);

	/*
	 * All of these, which are all that were received and not settled yet,
	 * have had their effect, or are dead.
	 */
	bool		(*settle) (Broker *broker, const InMessage *messages, int n,
						   char *error);

	/*
	 * Publish a message that has no effect here to a queue or topic for
	 * those, with more headers, and wait for the confirm.
	 */
	bool		(*bury) (Broker *broker, const InMessage *message, const char *where,
						 const Header *more, int nmore, char *error);

	void		(*release) (InMessage *messages, int n);
	void		(*close) (Broker *broker);
} BrokerApi;

#endif							/* RELAY_BROKER_H */
