/*-------------------------------------------------------------------------
 *
 * statement.c
 *		Statements that postgres_fdw sends again and again on a connection,
 *		prepared on the server.
 *
 * postgres_fdw has the server parse and plan every UPDATE and DELETE that it
 * pushes down anew, with the same text each time (execute_dml_stmt in
 * contrib/postgres_fdw/postgres_fdw.c).  From its third use on, such a statement
 * is prepared and executed by name; sending.c sends the two in one pipeline, so
 * that no round trip is added.
 *
 * Nobody shall notice.  So only statements that return no rows are prepared:
 * those can't fail because the type of a result has changed.  The types of
 * parameters are in the text (printRemoteParam in deparse.c), and the server plans
 * anew when a table has changed.  If an execution fails for something that the
 * statement is to blame for, it is forgotten and prepared anew later.
 * postgres_fdw's DEALLOCATE ALL takes ours with it.
 *
 * A connection has room for MAX_STATEMENTS texts.  Prepared ones stay; among the
 * others, which may differ in a constant each time, the oldest gives way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/settings.h"
#include "commit/statement.h"
#include "common/hashfn.h"
#include "libpq-fe.h"
#include "utils/memutils.h"

/* Texts remembered per connection. */
#define MAX_STATEMENTS		100

/* Longer ones are not worth the memory; bytes. */
#define MAX_STATEMENT_SIZE	8192

/* Uses after which a statement is prepared. */
#define MIN_USES			2

/* "dtx_s" and a number */
#define NAME_SIZE			16

typedef struct Statement
{
	uint64		hash;			/* of the text; 0: entry unused */
	char	   *sql;			/* the text, or NULL until it is prepared */
	uint32		uses;			/* before it was prepared */
} Statement;

struct DtxStatementCache
{
	Statement	entries[MAX_STATEMENTS];
	char		names[MAX_STATEMENTS][NAME_SIZE];	/* on the server, of those
													 * that have a text */
	int			next;			/* entry at which the search for one to give
								 * way begins */
	int			executing;		/* entry whose result is due, or -1 */
	bool		preparing;		/* was it sent to be prepared, too? */
};

static int	find_statement(DtxStatementCache *cache, uint64 hash, const char *sql);
static void forget(DtxStatementCache *cache, int i);

/*
 * postgres_fdw sends a command by the extended protocol.  Returns the name by
 * which the caller has to execute it instead, or NULL; *prepare is set if it has
 * to be prepared under that name before, in the same pipeline.  The result is to
 * be given to DtxStatementDone().  Throws if out of memory.
 */
const char *
DtxStatementUse(DtxStatements *s, const char *sql, bool *prepare)
{
	DtxStatementCache *cache = s->cache;
	size_t		len;
	uint64		hash;
	int			i;

	*prepare = false;
	if (!dtx_prepare_statements || !dtx_two_phase_commit)
		return NULL;
	if (pg_strncasecmp(sql, "UPDATE ", 7) != 0 &&
		pg_strncasecmp(sql, "DELETE ", 7) != 0)
		return NULL;
	len = strlen(sql);
	if (len > MAX_STATEMENT_SIZE || strstr(sql, " RETURNING ") != NULL)
		return NULL;

	if (cache == NULL)
	{
		cache = MemoryContextAllocZero(TopMemoryContext, sizeof(DtxStatementCache));
		cache->executing = -1;
		s->cache = cache;
	}

	/* The end of the last one was not seen: nobody knows what became of it. */
	if (cache->executing >= 0)
		DtxStatementDone(s, NULL);

	hash = hash_bytes_extended((const unsigned char *) sql, (int) len, 0);
	if (hash == 0)
		hash = 1;
	i = find_statement(cache, hash, sql);
	if (i < 0)
		return NULL;
	if (cache->entries[i].sql == NULL)
	{
		if (++cache->entries[i].uses <= MIN_USES)
			return NULL;
		cache->entries[i].sql = MemoryContextStrdup(TopMemoryContext, sql);
		/* Never used twice: DEALLOCATE ALL may be on its way yet. */
		snprintf(cache->names[i], NAME_SIZE, "dtx_s%u", ++s->last_number);
		*prepare = true;
	}
	cache->executing = i;
	cache->preparing = *prepare;
	return cache->names[i];
}

/*
 * The result of what DtxStatementUse() has named, NULL if there is none.  Does not
 * throw.
 */
void
DtxStatementDone(DtxStatements *s, const PGresult *result)
{
	DtxStatementCache *cache = s->cache;
	const char *sqlstate;
	int			i;

	if (cache == NULL || cache->executing < 0)
		return;
	i = cache->executing;
	cache->executing = -1;

	if (result != NULL && PQresultStatus(result) == PGRES_COMMAND_OK)
		return;

	/*
	 * Was it prepared at all?  If it was, may it be out of date?  Not if it
	 * was the data that it did not like, or other transactions.
	 */
	sqlstate = result ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	if (!cache->preparing && sqlstate != NULL &&
		(strncmp(sqlstate, "22", 2) == 0 || strncmp(sqlstate, "23", 2) == 0 ||
		 strncmp(sqlstate, "40", 2) == 0 || strncmp(sqlstate, "55", 2) == 0 ||
		 strncmp(sqlstate, "57", 2) == 0 || strncmp(sqlstate, "P0", 2) == 0))
		return;
	forget(cache, i);
}

/*
 * The server has been told to forget all prepared statements, or the connection
 * is about to be closed.  Does not throw.
 */
void
DtxStatementForgetAll(DtxStatements *s)
{
	DtxStatementCache *cache = s->cache;

	if (cache == NULL)
		return;
	for (int i = 0; i < MAX_STATEMENTS; i++)
		forget(cache, i);
	pfree(cache);
	s->cache = NULL;
}

/*
 * The entry of a statement, a new one if it has none, or -1 if there is no room.
 */
static int
find_statement(DtxStatementCache *cache, uint64 hash, const char *sql)
{
	for (int i = 0; i < MAX_STATEMENTS; i++)
	{
		Statement  *entry = &cache->entries[i];

		if (entry->hash == hash &&
			(entry->sql == NULL || strcmp(entry->sql, sql) == 0))
			return i;
	}

	for (int n = 0; n < MAX_STATEMENTS; n++)
	{
		int			i = cache->next;

		cache->next = (cache->next + 1) % MAX_STATEMENTS;
		if (cache->entries[i].sql == NULL)
		{
			cache->entries[i].hash = hash;
			cache->entries[i].uses = 0;
			return i;
		}
	}
	return -1;
}

static void
forget(DtxStatementCache *cache, int i)
{
	if (cache->entries[i].sql != NULL)
		pfree(cache->entries[i].sql);
	memset(&cache->entries[i], 0, sizeof(Statement));
}
