/*
 * A Kafka for tests: librdkafka's mock cluster, and what a test does with it.
 *
 *	kafka_mock TOPIC:PARTITIONS ...
 *
 * prints its addresses, and then answers commands, a line each, until its standard input
 * ends:
 *
 *	produce TOPIC KEY ID BODY	writes a message with header id (ID "-": without)
 *	consume TOPIC				reads all from the beginning, a line each:
 *								PARTITION OFFSET KEY HEADERS<tab>BODY
 *	fail API N CODE				the next N requests of that kind fail with that code
 *	down, up					the only broker does not listen, or does again
 *
 * Each answer ends with a line "." or "error".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>

static rd_kafka_mock_cluster_t *cluster;

static void
quiet(const rd_kafka_t *rk, int level, const char *fac, const char *buf)
{
}

static rd_kafka_t *
client(rd_kafka_type_t type)
{
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	char		error[512];
	rd_kafka_t *rk;

	rd_kafka_conf_set_log_cb(conf, quiet);
	rd_kafka_conf_set(conf, "bootstrap.servers", rd_kafka_mock_cluster_bootstraps(cluster), error, sizeof(error));
	if (type == RD_KAFKA_CONSUMER)
	{
		rd_kafka_conf_set(conf, "group.id", "test", error, sizeof(error));
		rd_kafka_conf_set(conf, "enable.partition.eof", "true", error, sizeof(error));
		rd_kafka_conf_set(conf, "fetch.wait.max.ms", "10", error, sizeof(error));
	}
	else
		rd_kafka_conf_set(conf, "linger.ms", "0", error, sizeof(error));
	rk = rd_kafka_new(type, conf, error, sizeof(error));
	if (rk == NULL)
	{
		fprintf(stderr, "%s\n", error);
		exit(1);
	}
	return rk;
}

static int
produce(rd_kafka_t *rk, char *rest)
{
	char	   *topic = strtok(rest, " ");
	char	   *key = strtok(NULL, " ");
	char	   *id = strtok(NULL, " ");
	char	   *body = strtok(NULL, "");
	rd_kafka_headers_t *headers = rd_kafka_headers_new(1);

	if (body == NULL)
		return 0;
	if (strcmp(id, "-") != 0)
		rd_kafka_header_add(headers, "id", -1, id, -1);
	if (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, strlen(key)),
						  RD_KAFKA_V_VALUE(body, strlen(body)), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
						  RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_END) != RD_KAFKA_RESP_ERR_NO_ERROR)
		return 0;
	return rd_kafka_flush(rk, 20000) == RD_KAFKA_RESP_ERR_NO_ERROR;
}

static int
consume(char *topic, int partitions)
{
	rd_kafka_t *rk = client(RD_KAFKA_CONSUMER);
	rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
	int			ends = 0;
	int			tries = 0;

	for (int i = 0; i < partitions; i++)
		rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
	rd_kafka_assign(rk, list);
	rd_kafka_topic_partition_list_destroy(list);
	while (ends < partitions && tries < 200)
	{
		rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
		rd_kafka_headers_t *headers;
		const char *name;
		const void *value;
		size_t		len;

		if (m == NULL)
		{
			tries++;
			continue;
		}
		if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
			ends++;
		else if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR)
		{
			printf("%d %ld %.*s ", m->partition, (long) m->offset, (int) m->key_len, (char *) m->key);
			if (rd_kafka_message_headers(m, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR)
			{
				for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &len) == RD_KAFKA_RESP_ERR_NO_ERROR; i++)
					printf("%s%s=%.*s", i ? ";" : "", name, (int) len, (const char *) value);
			}
			printf("\t%.*s\n", (int) m->len, (char *) m->payload);
		}
		rd_kafka_message_destroy(m);
	}
	rd_kafka_consumer_close(rk);
	rd_kafka_destroy(rk);
	return ends == partitions;
}

int
main(int argc, char **argv)
{
	char		error[512];
	char		line[65536];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	rd_kafka_t *rk;
	rd_kafka_t *producer;

	rd_kafka_conf_set_log_cb(conf, quiet);
	rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof(error));
	cluster = rd_kafka_mock_cluster_new(rk, 1);
	if (cluster == NULL)
		return 1;
	for (int i = 1; i < argc; i++)
	{
		char	   *colon = strchr(argv[i], ':');

		*colon = '\0';
		rd_kafka_mock_topic_create(cluster, argv[i], atoi(colon + 1), 1);
		*colon = ':';
	}
	producer = client(RD_KAFKA_PRODUCER);
	printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL)
	{
		char	   *what;
		int			ok = 0;

		line[strcspn(line, "\n")] = '\0';
		what = strtok(line, " ");
		if (what == NULL)
			continue;
		if (strcmp(what, "produce") == 0)
			ok = produce(producer, strtok(NULL, ""));
		else if (strcmp(what, "consume") == 0)
		{
			char	   *topic = strtok(NULL, " ");
			int			partitions = 1;

			for (int i = 1; i < argc; i++)
			{
				if (strncmp(argv[i], topic, strlen(topic)) == 0 && argv[i][strlen(topic)] == ':')
					partitions = atoi(argv[i] + strlen(topic) + 1);
			}
			ok = consume(topic, partitions);
		}
		else if (strcmp(what, "fail") == 0)
		{
			int			api = atoi(strtok(NULL, " "));
			int			n = atoi(strtok(NULL, " "));
			rd_kafka_resp_err_t errors[100];

			errors[0] = (rd_kafka_resp_err_t) atoi(strtok(NULL, " "));
			for (int i = 1; i < 100; i++)
				errors[i] = errors[0];
			rd_kafka_mock_push_request_errors_array(cluster, (int16_t) api, (size_t) (n > 100 ? 100 : n), errors);
			ok = 1;
		}
		else if (strcmp(what, "down") == 0)
			ok = rd_kafka_mock_broker_set_down(cluster, 1) == RD_KAFKA_RESP_ERR_NO_ERROR;
		else if (strcmp(what, "up") == 0)
			ok = rd_kafka_mock_broker_set_up(cluster, 1) == RD_KAFKA_RESP_ERR_NO_ERROR;
		printf("%s\n", ok ? "." : "error");
		fflush(stdout);
	}
	rd_kafka_destroy(producer);
	rd_kafka_mock_cluster_destroy(cluster);
	rd_kafka_destroy(rk);
	return 0;
}
