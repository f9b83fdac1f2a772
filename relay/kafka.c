/*-------------------------------------------------------------------------
 *
 * kafka.c
 *		Module for Kafka, by librdkafka.
 *
 * The producer is idempotent and without gaps: if one message of a partition cannot be
 * written, those behind it are not, either.  After any such failure the producer is thrown
 * away.  Offsets are committed by settle(), after messages have had their effect.
 *
 *-------------------------------------------------------------------------
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <librdkafka/rdkafka.h>

#include "broker.h"
#include "fault.h"
#include "util.h"

struct Broker
{
	rd_kafka_t *rk;
	BrokerSettings settings;
	char	  **topics;			/* of a consumer */
	int			ntopics;
	Broker	   *burying;		/* producer for dead letters; NULL: not yet */
	char		fatal[ERROR_SIZE];	/* why it is of no use any more */
};

static void close_broker(Broker *b);

/* What the relay itself sets, because its promises hang on it. */
static const char *const own_settings[] = {"enable.idempotence", "enable.gapless.guarantee", "acks",
	"enable.auto.commit", "enable.auto.offset.store", "message.timeout.ms", "delivery.timeout.ms",
"max.in.flight", "max.in.flight.requests.per.connection", "retries", "message.send.max.retries"};

static bool
known_setting(const char *name)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		why[256];
	bool		known = rd_kafka_conf_set(conf, name, "", why, sizeof(why)) != RD_KAFKA_CONF_UNKNOWN;

	rd_kafka_conf_destroy(conf);
	for (size_t i = 0; i < sizeof(own_settings) / sizeof(own_settings[0]); i++)
		known = known && strcmp(name, own_settings[i]) != 0;
	return known;
}

/* A message was written, or never will be. */
static void
delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
	OutResult  *r = m->_private;

	if (r == NULL)
		return;
	switch (m->err)
	{
		case RD_KAFKA_RESP_ERR_NO_ERROR:
			r->outcome = OUT_CONFIRMED;
			return;
		case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
		case RD_KAFKA_RESP_ERR_INVALID_RECORD:
		case RD_KAFKA_RESP_ERR_INVALID_MSG:
		case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
		case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
		case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
			r->outcome = OUT_POISON;
			break;
		default:
			r->outcome = OUT_AGAIN;
			break;
	}
	snprintf(r->reason, sizeof(r->reason), "%s", rd_kafka_err2str(m->err));
}

static void
failed(rd_kafka_t *rk, int err, const char *reason, void *opaque)
{
	Broker	   *b = opaque;
	char		text[ERROR_SIZE];

	if (err == RD_KAFKA_RESP_ERR__FATAL)
	{
		(void) rd_kafka_fatal_error(rk, text, sizeof(text));
		snprintf(b->fatal, sizeof(b->fatal), "%.400s", text);
	}
	else if (err == RD_KAFKA_RESP_ERR__AUTHENTICATION)
		snprintf(b->fatal, sizeof(b->fatal), "%.400s", reason);
}

/* Nothing of librdkafka's own goes to standard error: errors are told by those who ask. */
static void
quiet(const rd_kafka_t *rk, int level, const char *fac, const char *buf)
{
}

static bool
set(rd_kafka_conf_t *conf, const char *name, const char *value, char *error)
{
	char		why[256];

	if (rd_kafka_conf_set(conf, name, value, why, sizeof(why)) == RD_KAFKA_CONF_OK)
		return true;
	snprintf(error, ERROR_SIZE, "%s", why);
	return false;
}

/* Is a cluster there? */
static bool
reachable(Broker *b, char *error)
{
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err;
	int			ms = b->settings.timeout_ms < 10000 ? b->settings.timeout_ms : 10000;

	err = rd_kafka_metadata(b->rk, 0, NULL, &metadata, ms);
	if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		rd_kafka_metadata_destroy(metadata);
		return true;
	}
	rd_kafka_poll(b->rk, 0);
	snprintf(error, ERROR_SIZE, "could not reach Kafka: %.400s", b->fatal[0] ? b->fatal : rd_kafka_err2str(err));
	return false;
}

static Broker *
connect_broker(const BrokerSettings *settings, const char *const *sources, int nsources, char *error)
{
	Broker	   *b = must_alloc(sizeof(Broker));
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		ms[32];
	bool		consumer = nsources > 0;
	bool		has_group = false;
	bool		ok = true;

	b->settings = *settings;
	rd_kafka_conf_set_log_cb(conf, quiet);
	rd_kafka_conf_set_error_cb(conf, failed);
	rd_kafka_conf_set_opaque(conf, b);
	snprintf(ms, sizeof(ms), "%d", settings->timeout_ms);
	ok = set(conf, "client.id", settings->client_name, error);
	if (consumer)
		ok = ok && set(conf, "auto.offset.reset", "earliest", error);
	else
		ok = ok && set(conf, "linger.ms", "1", error);
	for (int i = 0; ok && i < settings->nsettings; i++)
	{
		has_group = has_group || strcmp(settings->settings[i].name, "group.id") == 0;
		ok = set(conf, settings->settings[i].name, settings->settings[i].value, error);
	}
	if (consumer)
	{
		if (!has_group)
			ok = ok && set(conf, "group.id", "pg_dtx_relay", error);
		ok = ok && set(conf, "enable.auto.commit", "false", error) &&
			set(conf, "enable.auto.offset.store", "false", error);
	}
	else
	{
		rd_kafka_conf_set_dr_msg_cb(conf, delivered);
		ok = ok && set(conf, "enable.idempotence", "true", error) &&
			set(conf, "enable.gapless.guarantee", "true", error) &&
			set(conf, "acks", "all", error) &&
			set(conf, "message.timeout.ms", ms, error) &&
			set(conf, "topic.metadata.propagation.max.ms", "5000", error);
	}
	if (!ok)
	{
		rd_kafka_conf_destroy(conf);
		free(b);
		return NULL;
	}
	b->rk = rd_kafka_new(consumer ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, conf, error, ERROR_SIZE);
	if (b->rk == NULL)
	{
		rd_kafka_conf_destroy(conf);
		free(b);
		return NULL;
	}
	ok = reachable(b, error);
	if (ok && consumer)
	{
		rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(nsources);
		rd_kafka_resp_err_t err;

		b->topics = must_alloc(sizeof(char *) * (size_t) nsources);
		b->ntopics = nsources;
		for (int i = 0; i < nsources; i++)
		{
			b->topics[i] = must_dup(sources[i]);
			rd_kafka_topic_partition_list_add(list, sources[i], RD_KAFKA_PARTITION_UA);
		}
		rd_kafka_poll_set_consumer(b->rk);
		err = rd_kafka_subscribe(b->rk, list);
		rd_kafka_topic_partition_list_destroy(list);
		if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			snprintf(error, ERROR_SIZE, "could not subscribe: %s", rd_kafka_err2str(err));
			ok = false;
		}
	}
	if (!ok)
	{
		close_broker(b);
		return NULL;
	}
	return b;
}

static void
close_broker(Broker *b)
{
	if (b == NULL)
		return;
	close_broker(b->burying);
	if (b->ntopics > 0)
		(void) rd_kafka_consumer_close(b->rk);
	else
		(void) rd_kafka_purge(b->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT | RD_KAFKA_PURGE_F_NON_BLOCKING);
	rd_kafka_destroy(b->rk);
	for (int i = 0; i < b->ntopics; i++)
		free(b->topics[i]);
	free(b->topics);
	free(b);
}

/* ----------------------------------------------------------------
 * Publishing
 * ----------------------------------------------------------------
 */

/* Attributes of CloudEvents, as the Kafka binding has them; NULL: no header of this kind. */
static rd_kafka_headers_t *
make_headers(const OutMessage *m)
{
	rd_kafka_headers_t *headers = rd_kafka_headers_new((size_t) m->nheaders + 1);

	for (int i = 0; i < m->nheaders; i++)
	{
		const Header *h = &m->headers[i];

		if (strncmp(h->name, "ce:", 3) == 0)
		{
			char	   *name = must_printf("ce_%s", h->name + 3);

			(void) rd_kafka_header_add(headers, name, -1, h->value, -1);
			free(name);
		}
		else
			(void) rd_kafka_header_add(headers, h->name, -1, h->value, -1);
	}
	if (m->content_type != NULL)
		(void) rd_kafka_header_add(headers, "content-type", -1, m->content_type, -1);
	return headers;
}

static bool
publish(Broker *b, const OutMessage *messages, int n, OutResult *results, char *error)
{
	/* (librdkafka itself gives up after the time-out) */
	int64_t		deadline = now_ms() + b->settings.timeout_ms + 5000;
	int			sent = 0;
	bool		poison = false;
	bool		ok = true;

	for (int i = 0; i < n; i++)
	{
		results[i].outcome = OUT_AGAIN;
		results[i].reason[0] = '\0';
	}
	for (int i = 0; ok && i < n; i++)
	{
		const OutMessage *m = &messages[i];
		rd_kafka_headers_t *headers = make_headers(m);
		rd_kafka_resp_err_t err;

		for (;;)
		{
			fault_point();
			err = rd_kafka_producev(b->rk,
									RD_KAFKA_V_TOPIC(m->exchange),
									RD_KAFKA_V_KEY(m->key, m->key ? strlen(m->key) : 0),
									RD_KAFKA_V_VALUE((void *) m->body, m->body ? m->body_len : 0),
									RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
									RD_KAFKA_V_TIMESTAMP(m->at_ms),
									RD_KAFKA_V_HEADERS(headers),
									RD_KAFKA_V_OPAQUE(&results[i]),
									RD_KAFKA_V_END);
			if (err != RD_KAFKA_RESP_ERR__QUEUE_FULL || now_ms() >= deadline)
				break;
			rd_kafka_poll(b->rk, 100);
		}
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			sent++;
			rd_kafka_poll(b->rk, 0);
			continue;
		}
		rd_kafka_headers_destroy(headers);
		snprintf(results[i].reason, REASON_SIZE, "%s", rd_kafka_err2str(err));
		/* what librdkafka does not even take, and would not, by itself */
		if (err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE || err == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
			err == RD_KAFKA_RESP_ERR__INVALID_ARG || err == RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION)
			results[i].outcome = OUT_POISON;
		else
			ok = false;

		/* nothing behind it may overtake it */
		for (int j = i + 1; j < n; j++)
		{
			results[j].outcome = OUT_UNKNOWN;
			snprintf(results[j].reason, REASON_SIZE, "comes after one that was not written");
		}
		break;
	}
	while (rd_kafka_outq_len(b->rk) > 0 && now_ms() < deadline)
		rd_kafka_poll(b->rk, 100);
	fault_point();
	if (rd_kafka_outq_len(b->rk) > 0)
	{
		/* the results must not be written to when this function is over */
		(void) rd_kafka_purge(b->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
		while (rd_kafka_outq_len(b->rk) > 0)
			rd_kafka_poll(b->rk, 100);
		ok = false;
	}
	for (int i = 0; i < sent; i++)
	{
		/* A producer without gaps is of no use after a failure. */
		if (results[i].outcome != OUT_CONFIRMED)
			ok = false;
		poison = poison || results[i].outcome == OUT_POISON;
	}

	/* Of several that have failed together it is not known which one it was. */
	for (int i = 0; poison && n > 1 && i < n; i++)
	{
		if (results[i].outcome != OUT_CONFIRMED)
			results[i].outcome = OUT_UNKNOWN;
	}
	if (!ok)
	{
		const char *why = b->fatal;

		for (int i = 0; i < n && why[0] == '\0'; i++)
		{
			if (results[i].outcome != OUT_CONFIRMED)
				why = results[i].reason;
		}
		snprintf(error, ERROR_SIZE, "%s", why[0] ? why : "no confirm in time");
	}
	return ok;
}

static bool
there(Broker *b, const char *name, bool source, char *error)
{
	rd_kafka_topic_t *topic = rd_kafka_topic_new(b->rk, name, NULL);
	const struct rd_kafka_metadata *metadata;
	rd_kafka_resp_err_t err = rd_kafka_last_error();

	if (topic != NULL)
	{
		err = rd_kafka_metadata(b->rk, 0, topic, &metadata, 10000);
		if (err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			err = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
			rd_kafka_metadata_destroy(metadata);
		}
		rd_kafka_topic_destroy(topic);
	}
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
		snprintf(error, ERROR_SIZE, "topic \"%s\": %s", name, rd_kafka_err2str(err));
	return err == RD_KAFKA_RESP_ERR_NO_ERROR;
}

/* ----------------------------------------------------------------
 * Receiving
 * ----------------------------------------------------------------
 */

static char *
dup_bytes(const void *s, size_t len)
{
	char	   *copy = must_alloc(len + 1);

	if (len > 0)
		memcpy(copy, s, len);
	return copy;
}

static void
take_message(Broker *b, InMessage *m, rd_kafka_message_t *r)
{
	rd_kafka_headers_t *headers;
	const char *topic = rd_kafka_topic_name(r->rkt);

	memset(m, 0, sizeof(*m));
	for (int i = 0; i < b->ntopics; i++)
	{
		if (strcmp(b->topics[i], topic) == 0)
			m->source = i;
	}
	m->partition = r->partition;
	m->tag = (uint64_t) r->offset;
	m->key = r->key ? dup_bytes(r->key, r->key_len) : NULL;
	m->body = dup_bytes(r->payload, r->payload ? r->len : 0);
	m->body_len = r->payload ? r->len : 0;
	if (rd_kafka_message_headers(r, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		size_t		count = rd_kafka_header_cnt(headers);
		const char *name;
		const void *value;
		size_t		len;

		m->headers = must_alloc(sizeof(Header) * (count + 1));
		for (size_t i = 0; i < count; i++)
		{
			if (rd_kafka_header_get_all(headers, i, &name, &value, &len) != RD_KAFKA_RESP_ERR_NO_ERROR || value == NULL)
				continue;
			if (strcmp(name, "content-type") == 0 && m->content_type == NULL)
				m->content_type = dup_bytes(value, len);
			if (strcmp(name, "id") == 0 && m->id == NULL && len > 0)
				m->id = dup_bytes(value, len);
			m->headers[m->nheaders].name = must_dup(name);
			m->headers[m->nheaders].value = dup_bytes(value, len);
			m->nheaders++;
		}
	}
	/* one that has no id of its own has a place */
	if (m->id == NULL)
		m->id = must_printf("%s/%d/%" PRId64, topic, r->partition, r->offset);
}

static int
receive(Broker *b, InMessage *messages, int max, int timeout_ms, char *error)
{
	int			n = 0;

	while (n < max)
	{
		rd_kafka_message_t *r;

		fault_point();
		r = rd_kafka_consumer_poll(b->rk, n == 0 ? timeout_ms : 0);

		if (r == NULL)
			break;
		if (r->err == RD_KAFKA_RESP_ERR_NO_ERROR)
			take_message(b, &messages[n++], r);
		else if (r->err == RD_KAFKA_RESP_ERR__MAX_POLL_EXCEEDED || r->err == RD_KAFKA_RESP_ERR__FATAL ||
				 r->err == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ||
				 r->err == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED ||
				 r->err == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || b->fatal[0] != '\0')
		{
			snprintf(error, ERROR_SIZE, "%s", b->fatal[0] ? b->fatal : rd_kafka_message_errstr(r));
			rd_kafka_message_destroy(r);
			if (n > 0)
				break;
			return -1;
		}
		/* (all else goes away by itself) */
		rd_kafka_message_destroy(r);
	}
	return n;
}

static bool
settle(Broker *b, const InMessage *messages, int n, char *error)
{
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
	rd_kafka_resp_err_t err = RD_KAFKA_RESP_ERR_NO_ERROR;

	for (int i = 0; i < n; i++)
	{
		const InMessage *m = &messages[i];
		rd_kafka_topic_partition_t *p = rd_kafka_topic_partition_list_find(list, b->topics[m->source], m->partition);

		if (p == NULL)
		{
			p = rd_kafka_topic_partition_list_add(list, b->topics[m->source], m->partition);
			p->offset = 0;
		}
		if (p->offset < (int64_t) m->tag + 1)
			p->offset = (int64_t) m->tag + 1;
	}
	fault_point();
	if (n > 0)
		err = rd_kafka_commit(b->rk, list, 0);
	rd_kafka_topic_partition_list_destroy(list);
	if (err != RD_KAFKA_RESP_ERR_NO_ERROR)
	{
		/*
		 * If others have the partition now, they get these again, which is no
		 * harm.
		 */
		snprintf(error, ERROR_SIZE, "could not commit offsets: %s", rd_kafka_err2str(err));
		return false;
	}
	return true;
}

static bool
bury(Broker *b, const InMessage *m, const char *where, const Header *more, int nmore, char *error)
{
	Header	   *headers = must_alloc(sizeof(Header) * (size_t) (m->nheaders + nmore + 1));
	OutMessage	out;
	OutResult	result;
	bool		ok = false;

	memset(&out, 0, sizeof(out));
	if (m->nheaders > 0)
		memcpy(headers, m->headers, sizeof(Header) * (size_t) m->nheaders);
	if (nmore > 0)
		memcpy(headers + m->nheaders, more, sizeof(Header) * (size_t) nmore);
	out.exchange = where;
	out.key = m->key;
	out.body = m->body;
	out.body_len = m->body_len;
	out.headers = headers;
	out.nheaders = m->nheaders + nmore;
	if (b->burying == NULL)
		b->burying = connect_broker(&b->settings, NULL, 0, error);
	if (b->burying != NULL)
	{
		ok = publish(b->burying, &out, 1, &result, error) && result.outcome == OUT_CONFIRMED;
		if (!ok)
		{
			snprintf(error, ERROR_SIZE, "dead letter was not taken: %s", result.reason);
			close_broker(b->burying);
			b->burying = NULL;
		}
	}
	free(headers);
	return ok;
}

static void
release(InMessage *messages, int n)
{
	for (int i = 0; i < n; i++)
	{
		InMessage  *m = &messages[i];

		free(m->id);
		free(m->key);
		free(m->type);
		free(m->content_type);
		free(m->body);
		for (int j = 0; j < m->nheaders; j++)
		{
			free(m->headers[j].name);
			free(m->headers[j].value);
		}
		free(m->headers);
	}
}

__attribute__((visibility("default")))
const BrokerApi relay_broker = {
	.abi = BROKER_ABI,
	.name = "kafka",
	.keeps_order = true,
	.known_setting = known_setting,
	.connect = connect_broker,
	.publish = publish,
	.there = there,
	.receive = receive,
	.settle = settle,
	.bury = bury,
	.release = release,
	.close = close_broker
};
