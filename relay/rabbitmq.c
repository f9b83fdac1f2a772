/*-------------------------------------------------------------------------
 *
 * rabbitmq.c
 *		Module for RabbitMQ, and what else speaks AMQP 0-9-1, by librabbitmq.
 *
 * A connection has one channel, with publisher confirms.  Messages are persistent and
 * mandatory: what no queue takes comes back.  There are no heartbeats, which would have
 * to be sent while the database works: TCP finds out whether the other side is there.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_ssl_socket.h>
#include <amqp_tcp_socket.h>

#include "broker.h"
#include "fault.h"
#include "util.h"

#define CHANNEL			1
#define FRAME_MAX		131072

/* Messages that may be on their way here. */
#define PREFETCH		200

/* Messages larger than that have no place in a frame of headers anyway. */
#define MAX_HEADERS		256

struct Broker
{
	amqp_connection_state_t conn;
	BrokerSettings settings;	/* for a second connection */
	uint64_t	next_tag;		/* delivery tag of the next message published */
	Broker	   *burying;		/* connection for dead letters; NULL: not yet */
	int			nsources;
};

static bool open_channel(Broker *b, char *error);
static void close_broker(Broker *b);
static bool publish(Broker *b, const OutMessage *messages, int n, OutResult *results, char *error);

static const char *
setting(const BrokerSettings *s, const char *name, const char *value)
{
	for (int i = 0; i < s->nsettings; i++)
	{
		if (strcmp(s->settings[i].name, name) == 0)
			value = s->settings[i].value;
	}
	return value;
}

static bool
known_setting(const char *name)
{
	static const char *const names[] = {"host", "port", "vhost", "user", "password", "tls",
	"ca_file", "cert_file", "key_file", "verify"};

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static void
fail_status(char *error, const char *what, int status)
{
	snprintf(error, ERROR_SIZE, "%s: %s", what, amqp_error_string2(status));
}

/* What a reply says, if it is no normal one. */
static bool
check_reply(amqp_rpc_reply_t reply, const char *what, char *error)
{
	if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		return true;
	if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION)
		fail_status(error, what, reply.library_error);
	else if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
			 reply.reply.id == AMQP_CONNECTION_CLOSE_METHOD)
	{
		amqp_connection_close_t *m = reply.reply.decoded;

		snprintf(error, ERROR_SIZE, "%s: %.*s (%u)", what,
				 (int) m->reply_text.len, (char *) m->reply_text.bytes, m->reply_code);
	}
	else if (reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION &&
			 reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
	{
		amqp_channel_close_t *m = reply.reply.decoded;

		snprintf(error, ERROR_SIZE, "%s: %.*s (%u)", what,
				 (int) m->reply_text.len, (char *) m->reply_text.bytes, m->reply_code);
	}
	else
		snprintf(error, ERROR_SIZE, "%s: connection was closed", what);
	return false;
}

static struct timeval
timeval_of(int ms)
{
	struct timeval tv;

	tv.tv_sec = ms / 1000;
	tv.tv_usec = (ms % 1000) * 1000;
	return tv;
}

/* So that a peer that is gone is noticed, without heartbeats. */
static void
watch_socket(int fd, int timeout_ms)
{
	int			on = 1;
	int			idle = 30;
	int			interval = 10;
	int			count = 3;
	unsigned int user_timeout = (unsigned int) timeout_ms + 10000;

	(void) setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
	(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

static amqp_socket_t *
make_socket(Broker *b, bool tls, char *error)
{
	const BrokerSettings *s = &b->settings;
	amqp_socket_t *socket;
	bool		verify = strcmp(setting(s, "verify", "on"), "off") != 0;
	int			status;

	if (!tls)
		return amqp_tcp_socket_new(b->conn);
	socket = amqp_ssl_socket_new(b->conn);
	if (socket == NULL)
		return NULL;
	amqp_ssl_socket_set_verify_peer(socket, verify);
	amqp_ssl_socket_set_verify_hostname(socket, verify);
	(void) amqp_ssl_socket_set_ssl_versions(socket, AMQP_TLSv1_2, AMQP_TLSvLATEST);
	if (setting(s, "ca_file", NULL) != NULL &&
		(status = amqp_ssl_socket_set_cacert(socket, setting(s, "ca_file", NULL))) != AMQP_STATUS_OK)
	{
		fail_status(error, "could not read ca_file", status);
		return NULL;
	}
	if (setting(s, "ca_file", NULL) == NULL && verify)
		(void) amqp_ssl_socket_set_cacert(socket, "/etc/ssl/certs/ca-certificates.crt");
	if (setting(s, "cert_file", NULL) != NULL &&
		(status = amqp_ssl_socket_set_key(socket, setting(s, "cert_file", NULL),
										  setting(s, "key_file", setting(s, "cert_file", NULL)))) != AMQP_STATUS_OK)
	{
		fail_status(error, "could not read cert_file and key_file", status);
		return NULL;
	}
	return socket;
}

static Broker *
connect_broker(const BrokerSettings *settings, const char *const *sources, int nsources, char *error)
{
	Broker	   *b = must_alloc(sizeof(Broker));
	bool		tls = strcmp(setting(settings, "tls", "off"), "on") == 0;
	int			port = atoi(setting(settings, "port", tls ? "5671" : "5672"));
	struct timeval tv = timeval_of(settings->timeout_ms > 10000 ? 10000 : settings->timeout_ms);
	amqp_socket_t *socket;
	amqp_table_entry_t property;
	amqp_table_t properties;
	int			status;

	b->settings = *settings;
	b->nsources = nsources;
	b->conn = amqp_new_connection();
	error[0] = '\0';
	socket = b->conn ? make_socket(b, tls, error) : NULL;
	if (socket == NULL)
	{
		if (error[0] == '\0')
			snprintf(error, ERROR_SIZE, "out of memory");
		goto failed;
	}
	(void) amqp_set_handshake_timeout(b->conn, &tv);
	(void) amqp_set_rpc_timeout(b->conn, &tv);
	fault_point();
	status = amqp_socket_open_noblock(socket, setting(settings, "host", "localhost"), port, &tv);
	if (status != AMQP_STATUS_OK)
	{
		snprintf(error, ERROR_SIZE, "could not connect to \"%s\", port %d: %s",
				 setting(settings, "host", "localhost"), port, amqp_error_string2(status));
		goto failed;
	}
	watch_socket(amqp_get_sockfd(b->conn), settings->timeout_ms);

	memset(&property, 0, sizeof(property));
	property.key = amqp_cstring_bytes("connection_name");
	property.value.kind = AMQP_FIELD_KIND_UTF8;
	property.value.value.bytes = amqp_cstring_bytes(settings->client_name);
	properties.num_entries = 1;
	properties.entries = &property;
	if (!check_reply(amqp_login_with_properties(b->conn, setting(settings, "vhost", "/"), 0, FRAME_MAX,
												0, &properties, AMQP_SASL_METHOD_PLAIN,
												setting(settings, "user", "guest"),
												setting(settings, "password", "guest")),
					 "could not log in", error))
		goto failed;
	if (!open_channel(b, error))
		goto failed;
	if (nsources > 0)
	{
		amqp_basic_qos(b->conn, CHANNEL, 0, PREFETCH, 0);
		if (!check_reply(amqp_get_rpc_reply(b->conn), "could not limit messages", error))
			goto failed;
	}
	for (int i = 0; i < nsources; i++)
	{
		char		tag[16];
		char	   *what = must_printf("could not consume from queue \"%s\"", sources[i]);
		bool		ok;

		snprintf(tag, sizeof(tag), "%d", i);
		fault_point();
		amqp_basic_consume(b->conn, CHANNEL, amqp_cstring_bytes(sources[i]), amqp_cstring_bytes(tag),
						   0, 0, 0, amqp_empty_table);
		ok = check_reply(amqp_get_rpc_reply(b->conn), what, error);
		free(what);
		if (!ok)
			goto failed;
	}
	return b;

failed:
	close_broker(b);
	return NULL;
}

/* A channel with confirms, whose tags begin with 1. */
static bool
open_channel(Broker *b, char *error)
{
	amqp_channel_open(b->conn, CHANNEL);
	if (!check_reply(amqp_get_rpc_reply(b->conn), "could not open a channel", error))
		return false;
	fault_point();
	amqp_confirm_select(b->conn, CHANNEL);
	b->next_tag = 1;
	return check_reply(amqp_get_rpc_reply(b->conn), "could not have messages confirmed", error);
}

static void
close_broker(Broker *b)
{
	if (b == NULL)
		return;
	close_broker(b->burying);
	/* (without saying so: what is not settled is delivered again either way) */
	if (b->conn != NULL)
		(void) amqp_destroy_connection(b->conn);
	free(b);
}

/* ----------------------------------------------------------------
 * Publishing
 * ----------------------------------------------------------------
 */

static amqp_bytes_t
bytes(const char *s)
{
	return s == NULL ? amqp_empty_bytes : amqp_cstring_bytes(s);
}

/* Send one message; what is "strings" is freed by the caller after that. */
static int
send_message(Broker *b, const OutMessage *m)
{
	amqp_basic_properties_t props;
	amqp_table_entry_t *entries = must_alloc(sizeof(amqp_table_entry_t) * (size_t) (m->nheaders + 1));
	char	  **names = must_alloc(sizeof(char *) * (size_t) (m->nheaders + 1));
	amqp_bytes_t body;
	int			status;

	memset(&props, 0, sizeof(props));
	props._flags = AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_TYPE_FLAG |
		AMQP_BASIC_CONTENT_TYPE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG | AMQP_BASIC_HEADERS_FLAG;
	props.delivery_mode = 2;
	if (m->id != NULL && m->id[0] != '\0')
	{
		/* (a dead letter may have none) */
		props._flags |= AMQP_BASIC_MESSAGE_ID_FLAG;
		props.message_id = bytes(m->id);
	}
	props.type = bytes(m->type);
	props.content_type = bytes(m->content_type);
	props.timestamp = (uint64_t) (m->at_ms / 1000);
	for (int i = 0; i < m->nheaders; i++)
	{
		const Header *h = &m->headers[i];

		if (strcmp(h->name, "correlation_id") == 0 && strlen(h->value) < 256)
		{
			props._flags |= AMQP_BASIC_CORRELATION_ID_FLAG;
			props.correlation_id = bytes(h->value);
		}
		else if (strcmp(h->name, "reply_to") == 0 && strlen(h->value) < 256)
		{
			props._flags |= AMQP_BASIC_REPLY_TO_FLAG;
			props.reply_to = bytes(h->value);
		}
		else
		{
			amqp_table_entry_t *e = &entries[props.headers.num_entries];

			/* as the AMQP binding of CloudEvents has them */
			names[i] = strncmp(h->name, "ce:", 3) == 0 ? must_printf("cloudEvents:%s", h->name + 3) :
				must_dup(h->name);
			e->key = bytes(names[i]);
			e->value.kind = AMQP_FIELD_KIND_UTF8;
			e->value.value.bytes = bytes(h->value);
			props.headers.num_entries++;
		}
	}
	props.headers.entries = entries;
	body.bytes = (void *) (m->body ? m->body : "");
	body.len = m->body ? m->body_len : 0;
	fault_point();
	status = amqp_basic_publish(b->conn, CHANNEL, bytes(m->exchange), bytes(m->routing_key), 1, 0, &props, body);
	for (int i = 0; i < m->nheaders; i++)
		free(names[i]);
	free(names);
	free(entries);
	return status;
}

static void
set_result(OutResult *r, OutOutcome outcome, const char *format, int len, const void *text, int code)
{
	r->outcome = outcome;
	snprintf(r->reason, sizeof(r->reason), format, len, (const char *) text, code);
}

/*
 * The broker has closed the channel because of one of the messages that it has not
 * confirmed.  If there is one only, it was that.
 */
static bool
channel_closed(Broker *b, amqp_channel_close_t *m, int n, OutResult *results, bool *seen, char *error)
{
	amqp_channel_close_ok_t ok = {0};
	int			open = 0;
	int			code = m->reply_code;

	for (int i = 0; i < n; i++)
		open += !seen[i];
	for (int i = 0; i < n; i++)
	{
		if (seen[i])
			continue;
		/* no such exchange; refused because of its size, or of its properties */
		set_result(&results[i], open > 1 ? OUT_UNKNOWN :
				   code == AMQP_NOT_FOUND || code == AMQP_PRECONDITION_FAILED ||
				   code == AMQP_CONTENT_TOO_LARGE ? OUT_POISON : OUT_AGAIN,
				   "%.*s (%d)", (int) m->reply_text.len, m->reply_text.bytes, code);
		seen[i] = true;
	}
	if (amqp_send_method(b->conn, CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &ok) != AMQP_STATUS_OK)
	{
		snprintf(error, ERROR_SIZE, "connection was lost");
		return false;
	}
	return open_channel(b, error);
}

static bool
publish(Broker *b, const OutMessage *messages, int n, OutResult *results, char *error)
{
	uint64_t	first = b->next_tag;
	int64_t		deadline = now_ms() + b->settings.timeout_ms;
	bool	   *seen = must_alloc(sizeof(bool) * (size_t) (n + 1));
	int			left = n;
	bool		ok = false;

	for (int i = 0; i < n; i++)
		set_result(&results[i], OUT_AGAIN, "%.*s", 0, "", 0);
	for (int i = 0; i < n; i++)
	{
		int			status = send_message(b, &messages[i]);

		if (status != AMQP_STATUS_OK)
		{
			fail_status(error, "could not publish", status);
			goto done;
		}
		b->next_tag++;
	}
	while (left > 0)
	{
		amqp_frame_t frame;
		int64_t		wait = deadline - now_ms();
		struct timeval tv = timeval_of(wait > 0 ? (int) wait : 0);
		int			status;

		amqp_maybe_release_buffers(b->conn);
		fault_point();
		status = amqp_simple_wait_frame_noblock(b->conn, &frame, &tv);
		if (status == AMQP_STATUS_TIMEOUT)
		{
			snprintf(error, ERROR_SIZE, "no confirm of %d messages within %d ms", left, b->settings.timeout_ms);
			goto done;
		}
		if (status != AMQP_STATUS_OK)
		{
			fail_status(error, "waiting for confirms", status);
			goto done;
		}
		if (frame.frame_type != AMQP_FRAME_METHOD)
			continue;
		if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD ||
			frame.payload.method.id == AMQP_BASIC_NACK_METHOD)
		{
			bool		ack = frame.payload.method.id == AMQP_BASIC_ACK_METHOD;
			amqp_basic_ack_t *a = frame.payload.method.decoded;
			amqp_basic_nack_t *k = frame.payload.method.decoded;
			uint64_t	tag = ack ? a->delivery_tag : k->delivery_tag;
			bool		multiple = ack ? a->multiple : k->multiple;

			for (int i = 0; i < n; i++)
			{
				uint64_t	this = first + (uint64_t) i;

				if (seen[i] || !(this == tag || (multiple && (this < tag || tag == 0))))
					continue;
				seen[i] = true;
				left--;
				/* (one that was returned is acknowledged after that) */
				if (ack && results[i].reason[0] == '\0')
					results[i].outcome = OUT_CONFIRMED;
				else if (!ack)
					set_result(&results[i], OUT_AGAIN, "%.*s", 32, "refused by the broker (nack)", 0);
			}
		}
		else if (frame.payload.method.id == AMQP_BASIC_RETURN_METHOD)
		{
			amqp_basic_return_t *r = frame.payload.method.decoded;
			char		reason[REASON_SIZE];
			amqp_message_t message;

			snprintf(reason, sizeof(reason), "returned by exchange \"%.*s\" with routing key \"%.*s\": %.*s (%u)",
					 (int) r->exchange.len, (char *) r->exchange.bytes,
					 (int) r->routing_key.len, (char *) r->routing_key.bytes,
					 (int) r->reply_text.len, (char *) r->reply_text.bytes, r->reply_code);
			if (amqp_read_message(b->conn, CHANNEL, &message, 0).reply_type != AMQP_RESPONSE_NORMAL)
			{
				snprintf(error, ERROR_SIZE, "connection was lost");
				goto done;
			}
			for (int i = 0; i < n; i++)
			{
				if (message.properties.message_id.len == strlen(messages[i].id) &&
					memcmp(message.properties.message_id.bytes, messages[i].id, strlen(messages[i].id)) == 0)
					set_result(&results[i], OUT_AGAIN, "%.*s", (int) sizeof(reason), reason, 0);
			}
			amqp_destroy_message(&message);
		}
		else if (frame.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD)
		{
			ok = channel_closed(b, frame.payload.method.decoded, n, results, seen, error);
			goto done;
		}
		else if (frame.payload.method.id == AMQP_CONNECTION_CLOSE_METHOD)
		{
			amqp_connection_close_t *m = frame.payload.method.decoded;
			amqp_connection_close_ok_t close_ok = {0};

			snprintf(error, ERROR_SIZE, "%.*s (%u)", (int) m->reply_text.len, (char *) m->reply_text.bytes, m->reply_code);
			(void) amqp_send_method(b->conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &close_ok);
			goto done;
		}
	}
	ok = true;

done:
	if (!ok)
	{
		for (int i = 0; i < n; i++)
		{
			if (!seen[i] && results[i].reason[0] == '\0')
				set_result(&results[i], OUT_AGAIN, "%.*s", REASON_SIZE - 1, error, 0);
		}
	}
	free(seen);
	return ok;
}

static bool
there(Broker *b, const char *name, bool source, char *error)
{
	char	   *what = must_printf("%s \"%s\"", source ? "queue" : "exchange", name);
	amqp_rpc_reply_t reply;
	bool		ok;

	if (!source && name[0] == '\0')
	{
		free(what);
		return true;
	}
	if (source)
		amqp_queue_declare(b->conn, CHANNEL, bytes(name), 1, 0, 0, 0, amqp_empty_table);
	else
		amqp_exchange_declare(b->conn, CHANNEL, bytes(name), bytes("direct"), 1, 0, 0, 0, amqp_empty_table);
	reply = amqp_get_rpc_reply(b->conn);
	ok = check_reply(reply, what, error);
	free(what);
	if (!ok && reply.reply_type == AMQP_RESPONSE_SERVER_EXCEPTION && reply.reply.id == AMQP_CHANNEL_CLOSE_METHOD)
	{
		amqp_channel_close_ok_t close_ok = {0};
		char		ignored[ERROR_SIZE];

		(void) amqp_send_method(b->conn, CHANNEL, AMQP_CHANNEL_CLOSE_OK_METHOD, &close_ok);
		(void) open_channel(b, ignored);
	}
	return ok;
}

/* ----------------------------------------------------------------
 * Receiving
 * ----------------------------------------------------------------
 */

static char *
dup_bytes(amqp_bytes_t s)
{
	char	   *copy = must_alloc(s.len + 1);

	memcpy(copy, s.bytes, s.len);
	return copy;
}

/* The value of a header as text; NULL: not one that has one. */
static char *
field_text(amqp_field_value_t v)
{
	switch (v.kind)
	{
		case AMQP_FIELD_KIND_UTF8:
		case AMQP_FIELD_KIND_BYTES:
			return dup_bytes(v.value.bytes);
		case AMQP_FIELD_KIND_BOOLEAN:
			return must_dup(v.value.boolean ? "true" : "false");
		case AMQP_FIELD_KIND_I8:
			return must_printf("%d", v.value.i8);
		case AMQP_FIELD_KIND_U8:
			return must_printf("%u", v.value.u8);
		case AMQP_FIELD_KIND_I16:
			return must_printf("%d", v.value.i16);
		case AMQP_FIELD_KIND_U16:
			return must_printf("%u", v.value.u16);
		case AMQP_FIELD_KIND_I32:
			return must_printf("%d", v.value.i32);
		case AMQP_FIELD_KIND_U32:
			return must_printf("%u", v.value.u32);
		case AMQP_FIELD_KIND_I64:
			return must_printf("%lld", (long long) v.value.i64);
		case AMQP_FIELD_KIND_U64:
		case AMQP_FIELD_KIND_TIMESTAMP:
			return must_printf("%llu", (unsigned long long) v.value.u64);
		case AMQP_FIELD_KIND_F32:
			return must_printf("%g", (double) v.value.f32);
		case AMQP_FIELD_KIND_F64:
			return must_printf("%.17g", v.value.f64);
		default:
			return NULL;
	}
}

static void
take_header(InMessage *m, char *name, char *value)
{
	if (value == NULL || m->nheaders >= MAX_HEADERS)
	{
		free(name);
		free(value);
		return;
	}
	m->headers[m->nheaders].name = name;
	m->headers[m->nheaders].value = value;
	m->nheaders++;
}

static void
take_envelope(InMessage *m, amqp_envelope_t *e)
{
	amqp_basic_properties_t *p = &e->message.properties;

	memset(m, 0, sizeof(*m));
	m->tag = e->delivery_tag;
	for (size_t i = 0; i < e->consumer_tag.len; i++)
		m->source = m->source * 10 + ((char *) e->consumer_tag.bytes)[i] - '0';
	m->key = dup_bytes(e->routing_key);
	m->body = dup_bytes(e->message.body);
	m->body_len = e->message.body.len;
	m->headers = must_alloc(sizeof(Header) * MAX_HEADERS);
	if (p->_flags & AMQP_BASIC_MESSAGE_ID_FLAG && p->message_id.len > 0)
		m->id = dup_bytes(p->message_id);
	if (p->_flags & AMQP_BASIC_TYPE_FLAG && p->type.len > 0)
		m->type = dup_bytes(p->type);
	if (p->_flags & AMQP_BASIC_CONTENT_TYPE_FLAG)
		m->content_type = dup_bytes(p->content_type);
	if (p->_flags & AMQP_BASIC_HEADERS_FLAG)
	{
		for (int i = 0; i < p->headers.num_entries; i++)
			take_header(m, dup_bytes(p->headers.entries[i].key), field_text(p->headers.entries[i].value));
	}
	if (p->_flags & AMQP_BASIC_CORRELATION_ID_FLAG)
		take_header(m, must_dup("correlation_id"), dup_bytes(p->correlation_id));
	if (p->_flags & AMQP_BASIC_REPLY_TO_FLAG)
		take_header(m, must_dup("reply_to"), dup_bytes(p->reply_to));
}

static int
receive(Broker *b, InMessage *messages, int max, int timeout_ms, char *error)
{
	int			n = 0;

	while (n < max)
	{
		amqp_envelope_t envelope;
		struct timeval tv = timeval_of(n == 0 ? timeout_ms : 0);
		amqp_rpc_reply_t reply;

		amqp_maybe_release_buffers(b->conn);
		fault_point();
		reply = amqp_consume_message(b->conn, &envelope, &tv, 0);
		if (reply.reply_type == AMQP_RESPONSE_NORMAL)
		{
			take_envelope(&messages[n++], &envelope);
			amqp_destroy_envelope(&envelope);
			continue;
		}
		if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_TIMEOUT)
			break;
		/* what has come has come; the next call finds out again */
		if (n > 0)
			break;
		if (reply.reply_type == AMQP_RESPONSE_LIBRARY_EXCEPTION && reply.library_error == AMQP_STATUS_UNEXPECTED_STATE)
		{
			amqp_frame_t frame;

			if (amqp_simple_wait_frame(b->conn, &frame) == AMQP_STATUS_OK && frame.frame_type == AMQP_FRAME_METHOD)
			{
				if (frame.payload.method.id == AMQP_BASIC_ACK_METHOD)
					continue;
				if (frame.payload.method.id == AMQP_CHANNEL_CLOSE_METHOD)
				{
					amqp_channel_close_t *m = frame.payload.method.decoded;

					snprintf(error, ERROR_SIZE, "%.*s (%u)", (int) m->reply_text.len, (char *) m->reply_text.bytes, m->reply_code);
					return -1;
				}
				if (frame.payload.method.id == AMQP_CONNECTION_CLOSE_METHOD)
				{
					amqp_connection_close_t *m = frame.payload.method.decoded;

					snprintf(error, ERROR_SIZE, "%.*s (%u)", (int) m->reply_text.len, (char *) m->reply_text.bytes, m->reply_code);
					return -1;
				}
				if (frame.payload.method.id == AMQP_BASIC_CANCEL_METHOD)
				{
					snprintf(error, ERROR_SIZE, "a queue was deleted");
					return -1;
				}
			}
			snprintf(error, ERROR_SIZE, "connection was lost");
			return -1;
		}
		(void) check_reply(reply, "receiving", error);
		return -1;
	}
	return n;
}

static bool
settle(Broker *b, const InMessage *messages, int n, char *error)
{
	uint64_t	last = 0;
	int			status;

	for (int i = 0; i < n; i++)
	{
		if (messages[i].tag > last)
			last = messages[i].tag;
	}
	if (n == 0)
		return true;
	fault_point();
	status = amqp_basic_ack(b->conn, CHANNEL, last, 1);
	if (status != AMQP_STATUS_OK)
		fail_status(error, "could not acknowledge", status);
	return status == AMQP_STATUS_OK;
}

/* On a connection of its own, because there are messages on their way on this one. */
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
	out.exchange = "";
	out.routing_key = where;
	out.id = m->id ? m->id : "";
	out.type = m->type;
	out.content_type = m->content_type;
	out.body = m->body;
	out.body_len = m->body_len;
	out.headers = headers;
	out.nheaders = m->nheaders + nmore;
	if (b->burying == NULL)
		b->burying = connect_broker(&b->settings, NULL, 0, error);
	if (b->burying != NULL)
	{
		if (publish(b->burying, &out, 1, &result, error))
		{
			ok = result.outcome == OUT_CONFIRMED;
			if (!ok)
				snprintf(error, ERROR_SIZE, "dead letter was not taken: %s", result.reason);
		}
		else
		{
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
	.name = "rabbitmq",
	.keeps_order = false,
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
