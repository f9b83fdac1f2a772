/*-------------------------------------------------------------------------
 *
 * questions.c
 *		What servers are asked about locks, and how their answers are read.
 *
 * Everybody may ask this, on every server since PostgreSQL 9.6: pg_blocking_pids() and the
 * locks in pg_locks are shown to all.  What is answered is not
 * trusted: numbers are parsed, texts cleaned and clipped.
 *
 * Questions are added to "question".  Throws if out of memory, and nothing else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/gid.h"
#include "deadlock/questions.h"
#include "net/protocol.h"
#include "net/session_mark.h"
#include "net/text.h"
#include "storage/lock.h"
#include "utils/palloc.h"

/*
 * Of those that a process waits for no more than that many are told: a row of an answer
 * must not be longer than what DtxRemote takes for honest.
 */
#define MAX_BLOCKERS	1500

/* Longest text that is taken over, bytes. */
#define MAX_TEXT		200

static void append_pids(StringInfo buf, List *pids);
static unsigned int number(const PGresult *res, int column);
static LOCKMODE mode_of(const char *name);
static char *describe(const PGresult *res);

static void
append_pids(StringInfo buf, List *pids)
{
	ListCell   *lc;
	const char *separator = "";

	appendStringInfoString(buf, "'{");
	foreach(lc, pids)
	{
		appendStringInfo(buf, "%s%d", separator, lfirst_int(lc));
		separator = ",";
	}
	appendStringInfoString(buf, "}'::pg_catalog.int4[]");
}

/*
 * Who is waited for by these processes, and by those that they wait for, and so on; also
 * by those whose sessions have one of "marks".  Each process is asked about once, however
 * many wait for it.  The locks that are marks are looked up only if others were met.
 */
void
DtxAskWhoBlocks(StringInfo question, List *pids, List *marks)
{
	appendStringInfoString(question,
						   "WITH RECURSIVE m AS (SELECT k.pid, k.objid::pg_catalog.int8 AS mark"
						   " FROM pg_catalog.pg_locks AS k"
						   " WHERE k.locktype OPERATOR(pg_catalog.=) 'advisory'"
						   " AND k.classid OPERATOR(pg_catalog.=) " DTX_SESSION_MARK_CLASS
						   " AND k.objsubid OPERATOR(pg_catalog.=) 2"
						   " AND k.mode OPERATOR(pg_catalog.=) 'ShareLock' AND k.granted)"
						   ", p(pid) AS (SELECT pg_catalog.unnest(");
	append_pids(question, pids);
	appendStringInfoString(question, ") ");
	if (marks != NIL)
	{
		ListCell   *lc;

		appendStringInfoString(question,
							   "UNION SELECT m.pid FROM m WHERE m.mark OPERATOR(pg_catalog.=) ANY ('{");
		foreach(lc, marks)
			appendStringInfo(question, "%s%u", lc == list_head(marks) ? "" : ",",
							 (uint32) lfirst_oid(lc));
		appendStringInfoString(question, "}'::pg_catalog.int8[]) ");
	}
	appendStringInfo(question,
					 "UNION SELECT pg_catalog.unnest(pg_catalog.pg_blocking_pids(p.pid)) FROM p"
					 " WHERE p.pid OPERATOR(pg_catalog.<>) 0)"
					 " SELECT p.pid, b.pids[1:%d], CASE WHEN p.pid OPERATOR(pg_catalog.<>) ALL (",
					 MAX_BLOCKERS);
	append_pids(question, pids);
	appendStringInfoString(question,
						   ") THEN (SELECT pg_catalog.min(m.mark) FROM m"
						   " WHERE m.pid OPERATOR(pg_catalog.=) p.pid) END"
						   " FROM p, LATERAL (SELECT pg_catalog.pg_blocking_pids(p.pid) AS pids OFFSET 0) AS b"
						   " WHERE p.pid OPERATOR(pg_catalog.<>) 0"
						   " AND (b.pids OPERATOR(pg_catalog.<>) '{}' OR p.pid OPERATOR(pg_catalog.<>) ALL (");
	append_pids(question, pids);
	appendStringInfoString(question, "))");
}

/*
 * For which locks these processes wait, and who has them; not who stands in the queue, of
 * whom there may be many.  pg_locks shows of a prepared transaction only that it has a virtual transaction of its own; its
 * transaction id is that on which it has a lock.
 */
void
DtxAskWhichLocks(StringInfo question, List *pids)
{
	appendStringInfoString(question,
						   "; WITH l AS (SELECT k.*, pg_catalog.concat_ws('/', k.locktype, k.database,"
						   " k.relation, k.page, k.tuple, k.virtualxid, k.transactionid, k.classid,"
						   " k.objid, k.objsubid) AS object FROM pg_catalog.pg_locks AS k)"
						   " SELECT w.pid, coalesce(h.pid, 0), h.granted, h.mode, g.gid, w.virtualtransaction,"
						   " w.mode, w.locktype, w.database, w.relation, w.page, w.tuple, w.virtualxid,"
						   " w.transactionid, w.classid, w.objid, w.objsubid, "
						   DTX_PROCESS_STARTED("w.pid") ", " DTX_PROCESS_STARTED("coalesce(h.pid, 0)")
						   " FROM l AS w LEFT JOIN l AS h ON h.object OPERATOR(pg_catalog.=) w.object"
						   " AND h.granted AND (h.pid IS NULL OR h.pid OPERATOR(pg_catalog.<>) w.pid)"
						   " LEFT JOIN l AS x ON h.pid IS NULL AND x.pid IS NULL AND x.granted"
						   " AND x.locktype OPERATOR(pg_catalog.=) 'transactionid'"
						   " AND x.virtualtransaction OPERATOR(pg_catalog.=) h.virtualtransaction"
						   " LEFT JOIN pg_catalog.pg_prepared_xact() AS g"
						   " ON g.transaction OPERATOR(pg_catalog.=) x.transactionid"
						   " WHERE NOT w.granted AND w.pid OPERATOR(pg_catalog.=) ANY (");
	append_pids(question, pids);
	appendStringInfoString(question, ")");
}

static unsigned int
number(const PGresult *res, int column)
{
	return (unsigned int) DtxNumberParse(PQgetvalue(res, 0, column), PG_UINT32_MAX);
}

/* A row of the first answer, in the current memory context; NULL if it is none. */
DtxBlocked *
DtxReadBlocked(uint64 instance, const PGresult *res)
{
	DtxBlocked *row;
	const char *list;
	int			n = 0;

	if (PQnfields(res) != 3 || (int) number(res, 0) <= 0)
		return NULL;
	list = PQgetvalue(res, 0, 1);
	row = palloc0(sizeof(DtxBlocked));
	row->instance = instance;
	row->pid = (int) number(res, 0);
	for (const char *c = list; *c != '\0'; c++)
		n += *c == ',' ? 1 : 0;
	row->blockers = palloc(sizeof(int) * (Min(n, MAX_BLOCKERS) + 1));
	while (row->nblockers <= Min(n, MAX_BLOCKERS) && *list != '\0')
	{
		char	   *end;
		long		pid = strtol(list + 1, &end, 10);

		if (end == list + 1 || pid < 0 || pid > PG_INT32_MAX)
			break;
		row->blockers[row->nblockers++] = (int) pid;
		list = end;
	}
	row->mark = number(res, 2);
	return row;
}

/* Likewise, of the second one. */
DtxLockWait *
DtxReadLockWait(uint64 instance, const PGresult *res)
{
	DtxLockWait *row;
	LOCKMODE	wanted;
	LOCKMODE	held;

	if (PQnfields(res) != 19)
		return NULL;
	wanted = mode_of(PQgetvalue(res, 0, 6));
	held = mode_of(PQgetvalue(res, 0, 3));
	row = palloc0(sizeof(DtxLockWait));
	row->instance = instance;
	row->pid = (int) number(res, 0);
	row->blocker = (int) number(res, 1);
	row->holds = !PQgetisnull(res, 0, 2) && wanted != NoLock &&
		held != NoLock && DoLockModesConflict(wanted, held);
	row->queues = strcmp(PQgetvalue(res, 0, 7), "tuple") == 0;
	if (!PQgetisnull(res, 0, 4))
		row->gid = DtxCleanText(PQgetvalue(res, 0, 4), DTX_GID_SIZE);
	row->lock = describe(res);
	row->started = DtxNumberParse(PQgetvalue(res, 0, 17), PG_INT64_MAX);
	row->blocker_started = row->blocker == 0 ? 0 :
		DtxNumberParse(PQgetvalue(res, 0, 18), PG_INT64_MAX);
	row->identity = psprintf("%s %s",
							 DtxCleanText(PQgetvalue(res, 0, 5), MAX_TEXT), row->lock);
	return row;
}

/* A mode of locks by its name, or NoLock. */
static LOCKMODE
mode_of(const char *name)
{
	for (LOCKMODE mode = AccessShareLock; mode <= AccessExclusiveLock; mode++)
	{
		if (strcmp(name, GetLockmodeName(DEFAULT_LOCKMETHOD, mode)) == 0)
			return mode;
	}
	return NoLock;
}

/*
 * "ShareLock on transaction 123", as DescribeLockTag() in storage/lmgr/lmgr.c puts it.
 */
static char *
describe(const PGresult *res)
{
	LOCKMODE	mode = mode_of(PQgetvalue(res, 0, 6));
	const char *name = mode == NoLock ? "lock" : GetLockmodeName(DEFAULT_LOCKMETHOD, mode);
	const char *type = PQgetvalue(res, 0, 7);

	if (strcmp(type, "relation") == 0)
		return psprintf("%s on relation %u of database %u", name, number(res, 9),
						number(res, 8));
	if (strcmp(type, "tuple") == 0)
		return psprintf("%s on tuple (%u,%u) of relation %u of database %u", name,
						number(res, 10), number(res, 11), number(res, 9), number(res, 8));
	if (strcmp(type, "transactionid") == 0)
		return psprintf("%s on transaction %u", name, number(res, 13));
	if (strcmp(type, "virtualxid") == 0)
		return psprintf("%s on virtual transaction %s", name,
						DtxCleanText(PQgetvalue(res, 0, 12), MAX_TEXT));
	if (strcmp(type, "advisory") == 0)
		return psprintf("%s on advisory lock [%u,%u,%u,%u]", name, number(res, 8),
						number(res, 14), number(res, 15), number(res, 16));
	if (strcmp(type, "object") == 0)
		return psprintf("%s on object %u of class %u of database %u", name,
						number(res, 15), number(res, 14), number(res, 8));
	return psprintf("%s on %s", name, DtxCleanText(type, MAX_TEXT));
}
