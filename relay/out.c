/*-------------------------------------------------------------------------
 *
 * out.c
 *		Publishing what is in dtx.outbox.
 *
 * The outbox has 64 buckets.  A relay publishes those of which it holds the advisory lock
 * (with its group as the other half of the key), of which each relay of a group takes its
 * share; with its connection it loses them.  A batch is taken from them, in the order of
 * seq; published; and what the broker has confirmed is deleted.  A crash in between has it
 * published again.
 *
 * Order: the first copies of the events of an aggregate come in their order, because
 * nothing is sent before the broker has confirmed the one before it (or, if the broker keeps
 * the order of what is sent together, the ones before it are sent with it).  This holds
 * also if another relay that has lost its lock without knowing sends the same: each of them
 * sends all from the first one that is not deleted on.
 *
 *-------------------------------------------------------------------------
 */
#include "out.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "array.h"
#include "counters.h"
#include "database.h"
#include "life.h"
#include "log.h"
#include "template.h"
#include "util.h"

#define BUCKETS			64

/* How often a relay tells of itself, and looks who else is there, milliseconds. */
#define BEAT_MS			1000

/* ... and how far the outbox is settled. */
#define POSITION_MS		3000

/* ... and forgets what is old. */
#define PRUNE_MS		60000

/* Commands that are written in one transaction. */
#define DISPATCH		100

typedef struct Bucket
{
	bool		held;
	int64_t		after;			/* nothing up to that is ours, or there */
	int			failures;		/* in a row */
	int64_t		again_at;		/* not tried before */
} Bucket;

typedef enum Fate
{
	FATE_WAITING,				/* not published yet */
	FATE_DONE,					/* confirmed, or given up */
	FATE_BLOCKED				/* not in this batch */
} Fate;

typedef struct Event
{
	Fate		fate;
	bool		alone;			/* to be published by itself */
	int			rule;
	int			bucket;
	char	  **names;			/* of headers */
	char	  **values;
	int			nnames;
	int			nvalues;
	Header	   *headers;
	char	   *exchange;
	char	   *routing_key;
	OutMessage	message;		/* points into the result of the query, and
								 * here */
	const char *aggregatetype;
} Event;

typedef struct Out
{
	Life	   *life;
	const Config *config;
	PGconn	   *conn;			/* NULL: not connected */
	Broker	   *broker;			/* NULL: not connected */
	int			db_failures;
	int			broker_failures;
	int64_t		broker_again_at;
	Bucket		buckets[BUCKETS];
	int64_t		beat_at;
	int64_t		position_at;
	int64_t		prune_at;
	int64_t		settled;		/* all events up to that are there, or never
								 * will be */
	int64_t		pending;		/* will be when "pending_xid" is the oldest */
	unsigned long long pending_xid;
	char		error[ERROR_SIZE];	/* "" : none since there was success */
	char	   *patterns;		/* arrays, for the query */
	char	   *envelopes;
} Out;

static int64_t
real_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t) t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ----------------------------------------------------------------
 * Connections
 * ----------------------------------------------------------------
 */

static void
lose_database(Out *o, const char *error)
{
	if (error != NULL)
		say(LOG_LEVEL_WARNING, "out: database: %s", error);
	PQfinish(o->conn);
	o->conn = NULL;
	atomic_store(&counters.out_database, 0);
	atomic_store(&counters.buckets, 0);
	for (int i = 0; i < BUCKETS; i++)
		o->buckets[i].held = false;
}

static void
lose_broker(Out *o, const char *error)
{
	if (error != NULL)
	{
		say(LOG_LEVEL_WARNING, "out: broker: %s", error);
		snprintf(o->error, sizeof(o->error), "%s", error);
		atomic_fetch_add(&counters.publish_failed, 1);
		o->broker_failures++;
		o->broker_again_at = now_ms() + backoff_ms(o->broker_failures, o->config->backoff_max_ms);
	}
	if (o->broker != NULL)
		o->life->api->close(o->broker);
	o->broker = NULL;
	atomic_store(&counters.out_broker, 0);
}

static bool
have_database(Out *o)
{
	char		error[ERROR_SIZE];

	if (o->conn != NULL && PQstatus(o->conn) == CONNECTION_OK)
		return true;
	if (o->conn != NULL)
		lose_database(o, "connection was lost");
	o->conn = database_connect(o->config, "out", error, sizeof(error));
	if (o->conn == NULL)
	{
		o->db_failures++;
		say(LOG_LEVEL_WARNING, "out: database: %s", error);
		if (o->life->mode == RUN_ONCE)
			atomic_store(&o->life->out_failed, true);
		else
			life_sleep(o->life, backoff_ms(o->db_failures, o->config->backoff_max_ms));
		return false;
	}
	o->db_failures = 0;
	o->beat_at = 0;
	o->pending_xid = 0;
	o->settled = 0;
	for (int i = 0; i < BUCKETS; i++)
		o->buckets[i].after = 0;
	atomic_store(&counters.out_database, 1);
	say(LOG_LEVEL_INFO, "out: connected to database \"%s\"", PQdb(o->conn));
	return true;
}

static bool
have_broker(Out *o)
{
	char		error[ERROR_SIZE] = "";
	BrokerSettings settings;

	if (o->broker != NULL)
		return true;
	if (now_ms() < o->broker_again_at)
		return false;
	settings = life_broker_settings(o->life);
	o->broker = o->life->api->connect(&settings, NULL, 0, error);
	if (o->broker == NULL)
	{
		lose_broker(o, error);
		return false;
	}
	atomic_store(&counters.out_broker, 1);
	o->error[0] = '\0';
	say(LOG_LEVEL_INFO, "out: connected to %s", o->life->api->name);
	return true;
}

/*
 * A query; NULL, after the connection was given up, if it has failed.
 */
static PGresult *
ask(Out *o, const char *command, int nparams, const char *const *params)
{
	char		error[ERROR_SIZE];
	PGresult   *result = database_run(o->conn, PGRES_TUPLES_OK, command, nparams, params, NULL, error, sizeof(error));

	if (result == NULL)
	{
		lose_database(o, error);
		o->db_failures++;
		if (o->life->mode == RUN_ONCE)
			atomic_store(&o->life->out_failed, true);
		else
			life_sleep(o->life, backoff_ms(o->db_failures, o->config->backoff_max_ms));
	}
	return result;
}

/* ----------------------------------------------------------------
 * Shares
 * ----------------------------------------------------------------
 */

static int
held(Out *o)
{
	int			n = 0;

	for (int i = 0; i < BUCKETS; i++)
		n += o->buckets[i].held;
	return n;
}

/*
 * Lock or unlock some buckets: those in "which", "n" at most.  false: no database.
 */
static bool
change_buckets(Out *o, const int *which, int nwhich, int n, bool lock)
{
	char		list[BUCKETS * 3 + 3];
	char		limit[16];
	size_t		len = 1;
	const char *params[3];
	PGresult   *result;

	if (n <= 0 || nwhich == 0)
		return true;
	strcpy(list, "{");
	for (int i = 0; i < nwhich; i++)
		len += (size_t) sprintf(list + len, "%s%d", i ? "," : "", which[i]);
	strcpy(list + len, "}");
	snprintf(limit, sizeof(limit), "%d", n);
	params[0] = o->config->group;
	params[1] = list;
	params[2] = limit;
	/* (rows are looked at one after the other, until there are enough) */
	result = ask(o, lock ?
				 "SELECT b FROM unnest($2::int[]) AS b WHERE pg_try_advisory_lock(hashtext('pg_dtx_relay ' || $1), b) LIMIT $3::int" :
				 "SELECT b FROM unnest($2::int[]) AS b WHERE pg_advisory_unlock(hashtext('pg_dtx_relay ' || $1), b) LIMIT $3::int",
				 3, params);
	if (result == NULL)
		return false;
	for (int i = 0; i < PQntuples(result); i++)
	{
		Bucket	   *b = &o->buckets[atoi(PQgetvalue(result, i, 0))];

		b->held = lock;
		b->after = 0;
		b->failures = 0;
		b->again_at = 0;
	}
	PQclear(result);
	atomic_store(&counters.buckets, held(o));
	return true;
}

/* As many buckets as are ours, if there are so many relays. */
static bool
take_share(Out *o, int relays)
{
	int			share = (BUCKETS + relays - 1) / (relays > 0 ? relays : 1);
	int			have = held(o);
	int			which[BUCKETS];
	int			n = 0;
	int			first = rand() % BUCKETS;

	for (int i = 0; i < BUCKETS; i++)
	{
		int			b = (first + i) % BUCKETS;

		if (o->buckets[b].held == (have > share))
			which[n++] = b;
	}
	if (have > share)
		return change_buckets(o, which, n, have - share, false);
	return change_buckets(o, which, n, share - have, true);
}

static bool
beat(Out *o)
{
	char		numbers[4][24];
	const char *params[5];
	PGresult   *result;
	int			relays;

	if (now_ms() < o->beat_at)
		return true;
	snprintf(numbers[0], 24, "%d", held(o));
	snprintf(numbers[1], 24, "%lld", atomic_load(&counters.published));
	snprintf(numbers[2], 24, "%lld", atomic_load(&counters.publish_failed));
	snprintf(numbers[3], 24, "%lld", atomic_load(&counters.poison));
	for (int i = 0; i < 4; i++)
		params[i] = numbers[i];
	params[4] = o->error[0] ? o->error : NULL;
	result = ask(o, "SELECT dtx.relay_beat($1, $2, $3, $4, $5)", 5, params);
	if (result == NULL)
		return false;
	relays = atoi(PQgetvalue(result, 0, 0));
	PQclear(result);
	o->beat_at = now_ms() + BEAT_MS;
	return take_share(o, relays);
}

/* What need not be read again, and what need not be kept. */
static bool
look_after(Out *o)
{
	PGresult   *result;

	if (now_ms() >= o->position_at)
	{
		unsigned long long xid,
					oldest;

		result = ask(o, "SELECT seq, xid, oldest FROM dtx.relay_position()", 0, NULL);
		if (result == NULL)
			return false;
		xid = strtoull(PQgetvalue(result, 0, 1), NULL, 10);
		oldest = strtoull(PQgetvalue(result, 0, 2), NULL, 10);
		if (o->pending_xid != 0 && oldest >= o->pending_xid)
		{
			o->settled = o->pending;
			o->pending_xid = 0;
		}
		if (o->pending_xid == 0)
		{
			o->pending = strtoll(PQgetvalue(result, 0, 0), NULL, 10);
			o->pending_xid = xid;
		}
		PQclear(result);
		o->position_at = now_ms() + POSITION_MS;
	}
	if (now_ms() >= o->prune_at)
	{
		const char *params[1];

		params[0] = o->config->keep_inbox;
		result = ask(o, "SELECT dtx.relay_prune($1)", 1, params);
		if (result == NULL)
			return false;
		PQclear(result);
		o->prune_at = now_ms() + PRUNE_MS;
	}
	return true;
}

/* ----------------------------------------------------------------
 * A batch
 * ----------------------------------------------------------------
 */

/* Commands for steps of sagas that wait in a queue; false: no database. */
static bool
dispatch(Out *o)
{
	for (int i = 0; i < o->config->nout; i++)
	{
		const OutRule *r = &o->config->out[i];
		const char *params[4];
		char		limit[16];
		int			n;

		if (r->queue == NULL)
			continue;
		snprintf(limit, sizeof(limit), "%d", DISPATCH);
		params[0] = r->queue;
		params[1] = o->config->name;
		params[2] = r->reply_to;
		params[3] = limit;
		do
		{
			PGresult   *result = ask(o, "SELECT dtx.relay_dispatch($1, $2, $3, $4)", 4, params);

			if (result == NULL)
				return false;
			n = atoi(PQgetvalue(result, 0, 0));
			PQclear(result);
			atomic_fetch_add(&counters.commands, n);
		} while (n == DISPATCH);
	}
	return true;
}

static int64_t
parse_ms(const char *epoch)
{
	return (int64_t) (strtod(epoch, NULL) * 1000);
}

static void
read_event(Out *o, Event *e, PGresult *result, int row)
{
	const OutRule *r;

	memset(e, 0, sizeof(*e));
	e->message.id = PQgetvalue(result, row, 0);
	e->bucket = atoi(PQgetvalue(result, row, 2));
	e->rule = atoi(PQgetvalue(result, row, 3)) - 1;
	r = &o->config->out[e->rule];
	e->aggregatetype = PQgetvalue(result, row, 4);
	e->message.key = PQgetvalue(result, row, 5);
	e->message.type = PQgetvalue(result, row, 6);
	e->message.at_ms = parse_ms(PQgetvalue(result, row, 7));
	e->message.content_type = PQgetvalue(result, row, 8);
	if (!PQgetisnull(result, row, 9))
	{
		e->message.body = PQgetvalue(result, row, 9);
		e->message.body_len = (size_t) PQgetlength(result, row, 9);
	}
	e->names = array_read(PQgetvalue(result, row, 10), &e->nnames);
	e->values = array_read(PQgetvalue(result, row, 11), &e->nvalues);
	e->headers = must_alloc(sizeof(Header) * (size_t) (e->nnames + 1));
	for (int i = 0; i < e->nnames && i < e->nvalues; i++)
	{
		e->headers[i].name = e->names[i];
		e->headers[i].value = e->values[i];
		e->message.nheaders++;
	}
	e->message.headers = e->headers;
	e->exchange = template_fill(r->exchange, e->aggregatetype, e->message.key, e->message.type);
	e->routing_key = template_fill(r->routing_key, e->aggregatetype, e->message.key, e->message.type);
	e->message.exchange = e->exchange;
	e->message.routing_key = e->routing_key;
}

static void
free_event(Event *e)
{
	array_free(e->names, e->nnames);
	array_free(e->values, e->nvalues);
	free(e->headers);
	free(e->exchange);
	free(e->routing_key);
}

/* The events of a bucket that are left wait. */
static void
block_bucket(Out *o, Event *events, int n, int bucket, const char *reason)
{
	Bucket	   *b = &o->buckets[bucket];

	for (int i = 0; i < n; i++)
	{
		if (events[i].bucket == bucket && events[i].fate == FATE_WAITING)
			events[i].fate = FATE_BLOCKED;
	}
	b->failures++;
	b->again_at = now_ms() + backoff_ms(b->failures, o->config->backoff_max_ms);
	snprintf(o->error, sizeof(o->error), "%s", reason);
	atomic_fetch_add(&counters.publish_failed, 1);
	if (o->life->mode == RUN_ONCE)
		atomic_store(&o->life->out_failed, true);
}

/* Give an event up; false: no database. */
static bool
give_up(Out *o, Event *e, const char *reason)
{
	const char *params[2];
	PGresult   *result;

	params[0] = e->message.id;
	params[1] = reason;
	result = ask(o, "SELECT dtx.relay_bury($1, $2)", 2, params);
	if (result == NULL)
		return false;
	PQclear(result);
	say(LOG_LEVEL_ERROR, "out: event %s of %s was given up: %s", e->message.id, e->aggregatetype, reason);
	atomic_fetch_add(&counters.poison, 1);
	e->fate = FATE_DONE;
	return true;
}

/* What may be sent now: those before which nothing of their aggregate waits. */
static int
next_wave(Out *o, Event *events, int n, int *wave)
{
	int			nwave = 0;

	for (int i = 0; i < n; i++)
	{
		bool		first = true;

		if (events[i].fate != FATE_WAITING)
			continue;
		if (events[i].alone)
		{
			/* by itself, when it is the first one */
			if (nwave == 0)
				wave[nwave++] = i;
			return nwave;
		}
		if (!o->life->api->keeps_order && o->config->out[events[i].rule].strict_order)
		{
			for (int j = 0; j < nwave && first; j++)
				first = events[wave[j]].bucket != events[i].bucket ||
					strcmp(events[wave[j]].message.key, events[i].message.key) != 0 ||
					strcmp(events[wave[j]].aggregatetype, events[i].aggregatetype) != 0;
		}
		if (first)
			wave[nwave++] = i;
	}
	return nwave;
}

/*
 * Publish a batch.  Which ones are confirmed is in their fates, also if it returns false:
 * there is no broker, or no database, any more.
 */
static bool
publish_batch(Out *o, Event *events, int n)
{
	int		   *wave = must_alloc(sizeof(int) * (size_t) n);
	OutMessage *messages = must_alloc(sizeof(OutMessage) * (size_t) n);
	OutResult  *results = must_alloc(sizeof(OutResult) * (size_t) n);
	int			nwave;
	bool		ok = true;

	while (ok && (nwave = next_wave(o, events, n, wave)) > 0)
	{
		char		error[ERROR_SIZE] = "";
		bool		connected;
		int			progress = 0;

		for (int i = 0; i < nwave; i++)
			messages[i] = events[wave[i]].message;
		connected = o->life->api->publish(o->broker, messages, nwave, results, error);
		for (int i = 0; i < nwave; i++)
		{
			Event	   *e = &events[wave[i]];
			const OutRule *r = &o->config->out[e->rule];

			switch (results[i].outcome)
			{
				case OUT_CONFIRMED:

					/*
					 * also of what waits: it was confirmed, whatever is
					 * before it
					 */
					e->fate = FATE_DONE;
					progress++;
					o->buckets[e->bucket].failures = 0;
					atomic_fetch_add(&counters.published, 1);
					count_latency(real_ms() - e->message.at_ms);
					break;
				case OUT_UNKNOWN:
					/* (one by itself that is not known would go on for ever) */
					if (e->alone)
						block_bucket(o, events, n, e->bucket, results[i].reason);
					e->alone = true;
					break;
				case OUT_AGAIN:
					if (e->fate != FATE_WAITING || !connected)
						break;
					say(LOG_LEVEL_WARNING, "out: event %s of %s was not taken: %s", e->message.id, e->aggregatetype, results[i].reason);
					block_bucket(o, events, n, e->bucket, results[i].reason);
					break;
				case OUT_POISON:
					if (e->fate != FATE_WAITING)
						break;
					if (r->skip_poison)
					{
						ok = give_up(o, e, results[i].reason) && ok;
						progress++;
						break;
					}
					say(LOG_LEVEL_ERROR, "out: event %s of %s cannot be published, and stops its bucket: %s",
						e->message.id, e->aggregatetype, results[i].reason);
					block_bucket(o, events, n, e->bucket, results[i].reason);
					break;
			}
			if (!ok)
				break;
		}
		if (progress > 0)
		{
			o->broker_failures = 0;
			o->broker_again_at = 0;
		}
		if (!connected)
		{
			bool		blame = false;

			/* after one that was refused, and has its own pause, all is well */
			for (int i = 0; i < nwave; i++)
				blame = blame || results[i].outcome == OUT_AGAIN;
			if (blame)
			{
				lose_broker(o, error);
				if (o->life->mode == RUN_ONCE)
					atomic_store(&o->life->out_failed, true);
				ok = false;
			}
			else
			{
				lose_broker(o, NULL);
				ok = ok && have_broker(o);
			}
		}
		if (atomic_load(&o->life->stop))
			break;
	}
	free(wave);
	free(messages);
	free(results);
	return ok;
}

/* Delete what was confirmed; false: no database. */
static bool
mark_done(Out *o, Event *events, int n)
{
	const char **ids = must_alloc(sizeof(char *) * (size_t) n);
	const char *params[1];
	char	   *array;
	PGresult   *result;
	int			nids = 0;

	for (int i = 0; i < n; i++)
	{
		if (events[i].fate == FATE_DONE)
			ids[nids++] = events[i].message.id;
	}
	if (nids == 0)
	{
		free(ids);
		return true;
	}
	array = database_array(ids, nids);
	params[0] = array;
	result = ask(o, "SELECT dtx.relay_done($1)", 1, params);
	free(array);
	free(ids);
	if (result == NULL)
		return false;
	PQclear(result);
	return true;
}

/*
 * Take, publish, mark.  Returns the number of events that were taken, or -1: no database
 * or broker.
 */
static int
one_batch(Out *o)
{
	char		buckets[BUCKETS * 4 + 3];
	char		after[BUCKETS * 22 + 3];
	char		batch[16];
	size_t		nb = 1;
	size_t		na = 1;
	bool		asked[BUCKETS] = {false};
	int64_t		first[BUCKETS] = {0};
	const char *params[6];
	PGresult   *result;
	Event	   *events;
	int64_t		now = now_ms();
	int64_t		settled = o->settled;
	int			blocked = 0;
	int			n;
	bool		ok;

	strcpy(buckets, "{");
	strcpy(after, "{");
	for (int i = 0; i < BUCKETS; i++)
	{
		blocked += o->buckets[i].held && o->buckets[i].failures > 0;
		if (!o->buckets[i].held || o->buckets[i].again_at > now)
			continue;
		asked[i] = true;
		nb += (size_t) sprintf(buckets + nb, "%s%d", nb > 1 ? "," : "", i);
		na += (size_t) sprintf(after + na, "%s%lld", na > 1 ? "," : "", (long long) o->buckets[i].after);
	}
	atomic_store(&counters.blocked_buckets, blocked);
	if (nb == 1)
		return 0;
	strcpy(buckets + nb, "}");
	strcpy(after + na, "}");
	snprintf(batch, sizeof(batch), "%d", o->config->batch);
	params[0] = buckets;
	params[1] = after;
	params[2] = o->patterns;
	params[3] = o->envelopes;
	params[4] = o->config->source;
	params[5] = batch;
	result = ask(o, "SELECT id, seq, bucket, rule, aggregatetype, aggregateid, type, extract(epoch FROM at), content_type, body,"
				 " header_names, header_values FROM dtx.relay_take($1, $2, $3, $4, $5, $6)", 6, params);
	if (result == NULL)
		return -1;
	n = PQntuples(result);
	events = must_alloc(sizeof(Event) * (size_t) (n + 1));
	for (int i = 0; i < n; i++)
	{
		int			b = atoi(PQgetvalue(result, i, 2));

		read_event(o, &events[i], result, i);
		if (first[b] == 0)
			first[b] = strtoll(PQgetvalue(result, i, 1), NULL, 10);
	}
	atomic_store(&counters.oldest_ms, n > 0 ? real_ms() - events[0].message.at_ms : 0);

	/* what is settled, and was not there now, never will be */
	for (int i = 0; i < BUCKETS; i++)
	{
		int64_t		up_to = first[i] > 0 && first[i] <= settled ? first[i] - 1 : settled;

		/* (of a bucket without any, others may have filled the batch) */
		if (asked[i] && (first[i] > 0 || n == 0) && up_to > o->buckets[i].after)
			o->buckets[i].after = up_to;
	}
	ok = n == 0 || publish_batch(o, events, n);
	if (n > 0 && o->conn != NULL)
		ok = mark_done(o, events, n) && ok;
	if (ok && n > 0)
	{
		bool		any = false;

		for (int i = 0; i < n; i++)
			any = any || events[i].fate == FATE_BLOCKED;
		if (!any && blocked == 0)
			o->error[0] = '\0';
	}
	for (int i = 0; i < n; i++)
		free_event(&events[i]);
	free(events);
	PQclear(result);
	return ok ? n : -1;
}

/* Is nothing left of ours, whoever publishes it? */
static bool
drained(Out *o)
{
	char		all[BUCKETS * 4 + 3];
	char		zeros[BUCKETS * 2 + 3];
	size_t		na = 1;
	size_t		nz = 1;
	const char *params[6];
	PGresult   *result;
	bool		empty;

	strcpy(all, "{");
	strcpy(zeros, "{");
	for (int i = 0; i < BUCKETS; i++)
	{
		na += (size_t) sprintf(all + na, "%s%d", i ? "," : "", i);
		nz += (size_t) sprintf(zeros + nz, "%s0", i ? "," : "");
	}
	strcpy(all + na, "}");
	strcpy(zeros + nz, "}");
	params[0] = all;
	params[1] = zeros;
	params[2] = o->patterns;
	params[3] = o->envelopes;
	params[4] = o->config->source;
	params[5] = "1";
	result = ask(o, "SELECT 1 FROM dtx.relay_take($1, $2, $3, $4, $5, $6) LIMIT 1", 6, params);
	if (result == NULL)
		return false;
	empty = PQntuples(result) == 0;
	PQclear(result);
	return empty;
}

static void
run(Out *o)
{
	Life	   *life = o->life;
	int			idle = 0;

	while (!atomic_load(&life->stop))
	{
		int			n;
		char		wait[16];
		const char *params[1];
		PGresult   *result;

		atomic_fetch_add(&life->out_turns, 1);
		if (life->mode == RUN_ONCE && atomic_load(&life->out_failed) && (o->conn == NULL || o->broker == NULL) && idle++ > 0)
			return;
		if (!have_database(o) || !beat(o) || !look_after(o))
			continue;
		if (!have_broker(o))
		{
			/* events wait; it is told why, and locks are kept */
			if (life->mode == RUN_ONCE)
			{
				atomic_store(&life->out_failed, true);
				o->beat_at = 0;
				(void) beat(o);
				return;
			}
			life_sleep(life, 100);
			continue;
		}
		if (!dispatch(o))
			continue;
		n = one_batch(o);
		if (n != 0)
			continue;
		if (life->mode == RUN_ONCE)
			return;
		if (life->mode == RUN_DRAIN && o->conn != NULL && drained(o))
			return;
		if (o->conn == NULL)
			continue;
		snprintf(wait, sizeof(wait), "%d", o->config->poll_ms);
		params[0] = wait;
		result = ask(o, "SELECT dtx.relay_wait($1)", 1, params);
		PQclear(result);
	}
}

void *
out_main(void *arg)
{
	Life	   *life = (Life *) arg;
	Out			out;
	const char **list = must_alloc(sizeof(char *) * (size_t) (life->config->nout + 1));

	memset(&out, 0, sizeof(out));
	out.life = life;
	out.config = life->config;
	srand((unsigned int) now_ms());
	for (int i = 0; i < life->config->nout; i++)
		list[i] = life->config->out[i].pattern;
	out.patterns = database_array(list, life->config->nout);
	for (int i = 0; i < life->config->nout; i++)
		list[i] = life->config->out[i].envelope;
	out.envelopes = database_array(list, life->config->nout);
	free(list);
	run(&out);
	lose_broker(&out, NULL);
	if (out.conn != NULL)
	{
		out.beat_at = 0;
		(void) beat(&out);
	}
	lose_database(&out, NULL);
	free(out.patterns);
	free(out.envelopes);
	atomic_store(&life->out_ended, true);
	return NULL;
}
