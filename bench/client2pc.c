/*-------------------------------------------------------------------------
 *
 * client2pc.c
 *		The transfers of the benchmark, committed atomically by the application:
 *		what a careful programmer would write without pg_dtx.
 *
 *	client2pc -c CLIENTS {-T SECONDS | -t TRANSACTIONS} -n ACCOUNTS [-L] -l LOGPREFIX
 *			  COORDINATOR SERVER ...
 *
 * COORDINATOR and SERVER are connection strings.  Each client is a thread with a
 * connection to each of them.  A transaction is
 *
 *	1. BEGIN and the UPDATE, in one pipeline, on all servers at once;
 *	2. PREPARE TRANSACTION on all servers at once;
 *	3. on the coordinator, with -L, the row of the ledger, and always a row that
 *	   says that the transaction is to be committed, without which a crash could
 *	   not be recovered from; the row of the client's last transaction is
 *	   overwritten;
 *	4. COMMIT PREPARED on all servers at once.
 *
 * So the servers' round trips are three in sequence.  With one server and no
 * ledger there is nothing to prepare: BEGIN and UPDATE, then COMMIT.
 *
 * LOGPREFIX.1, .2 ... get a line for each transaction, like the files that
 * "pgbench -l" writes: client, transaction, microseconds, 0, seconds and
 * microseconds of the end, and the number of retries after serialization errors.
 *
 *-------------------------------------------------------------------------
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "libpq-fe.h"

#define MAX_SERVERS		16

/* A connection. */
typedef struct Node
{
	PGconn	   *conn;
	int			syncs;			/* pipelines sent whose end was not seen yet */
	bool		conflict;		/* a serialization error came */
} Node;

typedef struct Client
{
	pthread_t	thread;
	int			number;			/* from 0 */
	unsigned short seed[3];
	Node		coordinator;
	Node		servers[MAX_SERVERS];
	FILE	   *log;
	long		done;			/* transactions committed */
	long		retries;		/* of the transaction at hand */
} Client;

static int	nclients = 1;
static int	duration = 0;		/* seconds, or */
static long ntransactions = 0;	/* that many for each client */
static int	naccounts = 10000;
static bool ledger = false;
static const char *log_prefix = NULL;
static int	nservers;
static char **conninfos;		/* the coordinator's first */
static struct timespec stop_at;
static pthread_barrier_t ready;

static void
die(PGconn *conn, const char *what)
{
	fprintf(stderr, "client2pc: %s: %s", what,
			conn ? PQerrorMessage(conn) : "failed\n");
	exit(1);
}

static void
open_node(Node *node, const char *conninfo)
{
	const char *keywords[] = {"dbname", "fallback_application_name", NULL};
	const char *values[] = {conninfo, "client2pc", NULL};

	node->conn = PQconnectdbParams(keywords, values, 1);
	if (PQstatus(node->conn) != CONNECTION_OK)
		die(node->conn, "connect");
}

static void
prepare(Node *node, const char *name, const char *query)
{
	PGresult   *res = PQprepare(node->conn, name, query, 0, NULL);

	if (PQresultStatus(res) != PGRES_COMMAND_OK)
		die(node->conn, query);
	PQclear(res);
}

static void
enter_pipeline(Node *node)
{
	if (!PQenterPipelineMode(node->conn) || PQsetnonblocking(node->conn, 1) != 0)
		die(node->conn, "pipeline");
}

static void
put(Node *node, const char *query)
{
	if (!PQsendQueryParams(node->conn, query, 0, NULL, NULL, NULL, NULL, 0))
		die(node->conn, query);
}

static void
put_prepared(Node *node, const char *name, int nparams, const char *const *values)
{
	if (!PQsendQueryPrepared(node->conn, name, nparams, values, NULL, NULL, 0))
		die(node->conn, name);
}

/* End a pipeline and send it. */
static void
put_sync(Node *node)
{
	if (!PQpipelineSync(node->conn) || PQflush(node->conn) < 0)
		die(node->conn, "sync");
	node->syncs++;
}

/*
 * Take what has arrived.  Every UPDATE has to find its row, and every PREPARE
 * TRANSACTION to prepare: in a failed transaction it would succeed and roll
 * back.
 */
static void
take(Node *node, const char *tag)
{
	if (!PQconsumeInput(node->conn))
		die(node->conn, "receive");
	while (node->syncs > 0 && !PQisBusy(node->conn))
	{
		PGresult   *res = PQgetResult(node->conn);
		const char *state;

		if (res == NULL)
			continue;
		switch (PQresultStatus(res))
		{
			case PGRES_PIPELINE_SYNC:
				node->syncs--;
				break;
			case PGRES_COMMAND_OK:
				if (tag && strcmp(PQcmdStatus(res), tag) != 0 &&
					strcmp(PQcmdStatus(res), "BEGIN") != 0)
					die(NULL, PQcmdStatus(res));
				break;
			case PGRES_PIPELINE_ABORTED:
				break;
			default:
				state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
				if (state == NULL || strcmp(state, "40001") != 0)
					die(node->conn, "command");
				node->conflict = true;
		}
		PQclear(res);
	}
}

/*
 * Wait until all nodes have answered.
 */
static void
take_all(Node *nodes, int n, const char *tag)
{
	for (;;)
	{
		struct pollfd fds[MAX_SERVERS];
		Node	   *waiting[MAX_SERVERS];
		int			nfds = 0;

		for (int i = 0; i < n; i++)
		{
			int			unsent;

			if (nodes[i].syncs == 0)
				continue;
			unsent = PQflush(nodes[i].conn);
			if (unsent < 0)
				die(nodes[i].conn, "send");
			fds[nfds].fd = PQsocket(nodes[i].conn);
			fds[nfds].events = POLLIN | (unsent ? POLLOUT : 0);
			waiting[nfds++] = &nodes[i];
		}
		if (nfds == 0)
			return;
		if (poll(fds, nfds, -1) < 0 && errno != EINTR)
			die(NULL, "poll");
		for (int i = 0; i < nfds; i++)
		{
			if (fds[i].revents)
				take(waiting[i], tag);
		}
	}
}

/*
 * Do one transaction.  Returns false if it was rolled back because of a
 * conflict and should be tried again.
 */
static bool
transfer(Client *client)
{
	char		gid[64];
	char		number[16];
	char		command[128];
	long		amount = 1 + nrand48(client->seed) % 100;
	bool		two_phase = nservers > 1 || ledger;
	bool		conflict = false;

	for (int i = 0; i < nservers; i++)
	{
		char		change[16];
		char		id[16];
		const char *values[2] = {change, id};

		/* as in the pgbench scripts */
		snprintf(change, sizeof(change), "%ld",
				 nservers == 1 ? 0 : i == 0 ? -amount : i == nservers - 1 ? amount : 0);
		snprintf(id, sizeof(id), "%ld", 1 + nrand48(client->seed) % naccounts);
		put_prepared(&client->servers[i], "begin", 0, NULL);
		put_prepared(&client->servers[i], "change", 2, values);
		put_sync(&client->servers[i]);
	}
	take_all(client->servers, nservers, "UPDATE 1");
	for (int i = 0; i < nservers; i++)
	{
		conflict |= client->servers[i].conflict;
		client->servers[i].conflict = false;
	}
	if (conflict)
	{
		for (int i = 0; i < nservers; i++)
		{
			put_prepared(&client->servers[i], "rollback", 0, NULL);
			put_sync(&client->servers[i]);
		}
		take_all(client->servers, nservers, "ROLLBACK");
		return false;
	}

	if (!two_phase)
	{
		put_prepared(&client->servers[0], "commit", 0, NULL);
		put_sync(&client->servers[0]);
		take_all(client->servers, 1, "COMMIT");
		return true;
	}

	snprintf(number, sizeof(number), "%d", client->number);
	snprintf(gid, sizeof(gid), "client2pc:%ld:%d:%ld", (long) getpid(),
			 client->number, client->done);
	snprintf(command, sizeof(command), "PREPARE TRANSACTION '%s'", gid);
	for (int i = 0; i < nservers; i++)
	{
		put(&client->servers[i], command);
		put_sync(&client->servers[i]);
	}
	take_all(client->servers, nservers, "PREPARE TRANSACTION");

	{
		const char *values[2] = {number, gid};
		char		shown[16];
		const char *entry[1] = {shown};

		put_prepared(&client->coordinator, "begin", 0, NULL);
		put_prepared(&client->coordinator, "decide", 2, values);
		if (ledger)
		{
			snprintf(shown, sizeof(shown), "%ld", amount);
			put_prepared(&client->coordinator, "enter", 1, entry);
		}
		put_prepared(&client->coordinator, "commit", 0, NULL);
		put_sync(&client->coordinator);
		take_all(&client->coordinator, 1, NULL);
	}

	snprintf(command, sizeof(command), "COMMIT PREPARED '%s'", gid);
	for (int i = 0; i < nservers; i++)
	{
		put(&client->servers[i], command);
		put_sync(&client->servers[i]);
	}
	take_all(client->servers, nservers, "COMMIT PREPARED");
	return true;
}

static void *
run(void *arg)
{
	Client	   *client = arg;
	char		name[1024];
	struct timespec begun;

	open_node(&client->coordinator, conninfos[0]);
	prepare(&client->coordinator, "begin", "BEGIN");
	prepare(&client->coordinator, "commit", "COMMIT");
	prepare(&client->coordinator, "decide",
			"INSERT INTO app_decision (client, gid) VALUES ($1, $2) "
			"ON CONFLICT (client) DO UPDATE SET gid = excluded.gid");
	prepare(&client->coordinator, "enter",
			"INSERT INTO ledger (amount) VALUES ($1)");
	enter_pipeline(&client->coordinator);
	for (int i = 0; i < nservers; i++)
	{
		Node	   *node = &client->servers[i];

		open_node(node, conninfos[i + 1]);
		/* the isolation level that postgres_fdw asks for */
		prepare(node, "begin", "BEGIN ISOLATION LEVEL REPEATABLE READ");
		prepare(node, "commit", "COMMIT");
		prepare(node, "rollback", "ROLLBACK");
		prepare(node, "change",
				"UPDATE account SET bal = bal + $1 WHERE id = $2");
		enter_pipeline(node);
	}
	snprintf(name, sizeof(name), "%s.%d", log_prefix, client->number + 1);
	client->log = fopen(name, "w");
	if (client->log == NULL)
		die(NULL, name);

	if (pthread_barrier_wait(&ready) == PTHREAD_BARRIER_SERIAL_THREAD)
	{
		clock_gettime(CLOCK_MONOTONIC, &stop_at);
		stop_at.tv_sec += duration;
	}
	pthread_barrier_wait(&ready);

	clock_gettime(CLOCK_MONOTONIC, &begun);
	while (ntransactions > 0 ? client->done < ntransactions :
		   begun.tv_sec < stop_at.tv_sec ||
		   (begun.tv_sec == stop_at.tv_sec && begun.tv_nsec < stop_at.tv_nsec))
	{
		struct timespec ended;
		struct timeval wall;

		client->retries = 0;
		while (!transfer(client))
			client->retries++;
		clock_gettime(CLOCK_MONOTONIC, &ended);
		gettimeofday(&wall, NULL);
		fprintf(client->log, "%d %ld %ld 0 %ld %ld %ld\n", client->number, client->done,
				(ended.tv_sec - begun.tv_sec) * 1000000L +
				(ended.tv_nsec - begun.tv_nsec) / 1000,
				(long) wall.tv_sec, (long) wall.tv_usec, client->retries);
		client->done++;
		begun = ended;
	}
	fclose(client->log);
	PQfinish(client->coordinator.conn);
	for (int i = 0; i < nservers; i++)
		PQfinish(client->servers[i].conn);
	return NULL;
}

int
main(int argc, char **argv)
{
	Client	   *clients;
	int			opt;

	while ((opt = getopt(argc, argv, "c:T:t:n:Ll:")) != -1)
	{
		switch (opt)
		{
			case 'c':
				nclients = atoi(optarg);
				break;
			case 'T':
				duration = atoi(optarg);
				break;
			case 't':
				ntransactions = atol(optarg);
				break;
			case 'n':
				naccounts = atoi(optarg);
				break;
			case 'L':
				ledger = true;
				break;
			case 'l':
				log_prefix = optarg;
				break;
			default:
				return 1;
		}
	}
	conninfos = argv + optind;
	nservers = argc - optind - 1;
	if (nclients < 1 || (duration > 0) == (ntransactions > 0) ||
		naccounts < 1 || log_prefix == NULL ||
		nservers < 1 || nservers > MAX_SERVERS)
	{
		fprintf(stderr, "usage: client2pc -c CLIENTS {-T SECONDS | -t TRANSACTIONS} -n ACCOUNTS [-L] -l LOGPREFIX COORDINATOR SERVER ...\n");
		return 1;
	}

	clients = calloc(nclients, sizeof(Client));
	if (clients == NULL || pthread_barrier_init(&ready, NULL, nclients) != 0)
		die(NULL, "start");
	for (int i = 0; i < nclients; i++)
	{
		clients[i].number = i;
		clients[i].seed[0] = i;
		clients[i].seed[1] = (unsigned short) getpid();
		clients[i].seed[2] = (unsigned short) time(NULL);
		if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
			die(NULL, "start a thread");
	}
	for (int i = 0; i < nclients; i++)
		pthread_join(clients[i].thread, NULL);
	return 0;
}
