/*-------------------------------------------------------------------------
 *
 * metrics.c
 *		What is counted, over HTTP, as Prometheus reads it.
 *
 * libmicrohttpd serves it, in a thread of its own.  Without that library there are no
 * metrics, and a configuration that asks for them is refused.
 *
 *-------------------------------------------------------------------------
 */
#include "metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counters.h"
#include "util.h"

static _Atomic(Life *) current = NULL;

void
metrics_of(Life *life)
{
	atomic_store(&current, life);
}

bool
metrics_ready(const Life *life)
{
	if (life == NULL)
		return false;
	return (life->config->nout == 0 || (atomic_load(&counters.out_database) && atomic_load(&counters.out_broker))) &&
		(life->config->nin == 0 || (atomic_load(&counters.in_database) && atomic_load(&counters.in_broker)));
}

#ifdef HAVE_MICROHTTPD

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>

#include <microhttpd.h>

static struct MHD_Daemon *daemon_of = NULL;

/* A metric with one value. */
static void
metric(FILE *f, const char *name, const char *type, const char *help, long long value)
{
	fprintf(f, "# HELP pg_dtx_relay_%s %s\n# TYPE pg_dtx_relay_%s %s\npg_dtx_relay_%s %lld\n",
			name, help, name, type, name, value);
}

static char *
page(size_t *len)
{
	char	   *text = NULL;
	FILE	   *f = open_memstream(&text, len);
	long long	sum = 0;

	if (f == NULL)
		return NULL;
	metric(f, "published_total", "counter", "Events that the broker has confirmed.", atomic_load(&counters.published));
	metric(f, "publish_failures_total", "counter", "Attempts to publish that have failed.", atomic_load(&counters.publish_failed));
	metric(f, "poison_total", "counter", "Events that were given up.", atomic_load(&counters.poison));
	metric(f, "commands_total", "counter", "Commands written for steps of sagas.", atomic_load(&counters.commands));
	metric(f, "buckets", "gauge", "Parts of the outbox that this relay holds, of 64.", atomic_load(&counters.buckets));
	metric(f, "blocked_buckets", "gauge", "Of these, those that wait after a failure.", atomic_load(&counters.blocked_buckets));
	metric(f, "oldest_milliseconds", "gauge", "Age of the oldest event of the last batch.", atomic_load(&counters.oldest_ms));
	metric(f, "received_total", "counter", "Messages from the broker.", atomic_load(&counters.received));
	metric(f, "effects_total", "counter", "Messages that have had their effect.", atomic_load(&counters.effects));
	metric(f, "duplicates_total", "counter", "Messages that had it before.", atomic_load(&counters.duplicates));
	metric(f, "retries_total", "counter", "Attempts at messages that have failed.", atomic_load(&counters.retries));
	metric(f, "dead_letters_total", "counter", "Messages that were given up.", atomic_load(&counters.dead_letters));
	fprintf(f, "# HELP pg_dtx_relay_connected Is it connected?\n# TYPE pg_dtx_relay_connected gauge\n");
	fprintf(f, "pg_dtx_relay_connected{direction=\"out\",to=\"database\"} %d\n", atomic_load(&counters.out_database));
	fprintf(f, "pg_dtx_relay_connected{direction=\"out\",to=\"broker\"} %d\n", atomic_load(&counters.out_broker));
	fprintf(f, "pg_dtx_relay_connected{direction=\"in\",to=\"database\"} %d\n", atomic_load(&counters.in_database));
	fprintf(f, "pg_dtx_relay_connected{direction=\"in\",to=\"broker\"} %d\n", atomic_load(&counters.in_broker));
	fprintf(f, "# HELP pg_dtx_relay_latency_seconds From writing an event to its confirm.\n# TYPE pg_dtx_relay_latency_seconds histogram\n");
	for (int i = 0; i <= LATENCY_BUCKETS; i++)
	{
		sum += atomic_load(&counters.latency[i]);
		if (i < LATENCY_BUCKETS)
			fprintf(f, "pg_dtx_relay_latency_seconds_bucket{le=\"%g\"} %lld\n", latency_bounds_ms[i] / 1000.0, sum);
		else
			fprintf(f, "pg_dtx_relay_latency_seconds_bucket{le=\"+Inf\"} %lld\n", sum);
	}
	fprintf(f, "pg_dtx_relay_latency_seconds_sum %.3f\npg_dtx_relay_latency_seconds_count %lld\n",
			(double) atomic_load(&counters.latency_sum_ms) / 1000.0, sum);
	if (fclose(f) != 0)
	{
		free(text);
		return NULL;
	}
	return text;
}

static enum MHD_Result
answer(void *arg, struct MHD_Connection *connection, const char *url, const char *method,
	   const char *version, const char *data, size_t *size, void **state)
{
	struct MHD_Response *response;
	enum MHD_Result result;
	char	   *text = NULL;
	size_t		len = 0;
	unsigned int status = MHD_HTTP_OK;

	(void) arg;
	(void) version;
	(void) data;
	(void) size;
	(void) state;
	if (strcmp(method, "GET") != 0)
		status = MHD_HTTP_METHOD_NOT_ALLOWED;
	else if (strcmp(url, "/metrics") == 0)
		text = page(&len);
	else if (strcmp(url, "/readyz") == 0)
		status = metrics_ready(atomic_load(&current)) ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE;
	else if (strcmp(url, "/healthz") != 0)
		status = MHD_HTTP_NOT_FOUND;
	if (text == NULL)
	{
		text = must_dup(status == MHD_HTTP_OK ? "ok\n" : status == MHD_HTTP_SERVICE_UNAVAILABLE ? "not ready\n" : "no such page\n");
		len = strlen(text);
	}
	response = MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (response == NULL)
	{
		free(text);
		return MHD_NO;
	}
	(void) MHD_add_response_header(response, "Content-Type", "text/plain; version=0.0.4; charset=utf-8");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

bool
metrics_start(const char *address, int port, char *error, size_t size)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	unsigned int flags = MHD_USE_INTERNAL_POLLING_THREAD;
	struct sockaddr *sa = (struct sockaddr *) &v4;

	memset(&v4, 0, sizeof(v4));
	memset(&v6, 0, sizeof(v6));
	v4.sin_family = AF_INET;
	v4.sin_port = htons((uint16_t) port);
	v6.sin6_family = AF_INET6;
	v6.sin6_port = htons((uint16_t) port);
	if (strcmp(address, "localhost") == 0)
		address = "127.0.0.1";
	if (inet_pton(AF_INET, address, &v4.sin_addr) != 1)
	{
		char	   *plain = must_dup(address[0] == '[' ? address + 1 : address);

		plain[strcspn(plain, "]")] = '\0';
		if (inet_pton(AF_INET6, plain, &v6.sin6_addr) != 1)
		{
			snprintf(error, size, "metrics: \"%s\" is no address", address);
			free(plain);
			return false;
		}
		free(plain);
		sa = (struct sockaddr *) &v6;
		flags |= MHD_USE_IPv6;
	}
	errno = 0;
	daemon_of = MHD_start_daemon(flags, (uint16_t) port, NULL, NULL, answer, NULL,
								 MHD_OPTION_SOCK_ADDR, sa, MHD_OPTION_CONNECTION_LIMIT, 16U,
								 MHD_OPTION_CONNECTION_TIMEOUT, 10U, MHD_OPTION_END);
	if (daemon_of == NULL)
		snprintf(error, size, "metrics: could not listen on %s, port %d: %s", address, port, strerror(errno));
	return daemon_of != NULL;
}

void
metrics_stop(void)
{
	if (daemon_of != NULL)
		MHD_stop_daemon(daemon_of);
	daemon_of = NULL;
}

#else							/* without libmicrohttpd */

bool
metrics_start(const char *address, int port, char *error, size_t size)
{
	(void) address;
	(void) port;
	snprintf(error, size, "metrics: this pg_dtx_relay was built without libmicrohttpd");
	return false;
}

void
metrics_stop(void)
{
}

#endif
