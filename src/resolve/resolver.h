/*-------------------------------------------------------------------------
 *
 * resolver.h
 *		Finishing what is in doubt: what resolver.c offers to the launcher and
 *		to the administrative functions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_RESOLVER_H
#define PG_DTX_RESOLVER_H

#include "base/gid.h"
#include "nodes/pg_list.h"

/* One thing that a pass did, or could not do. */
typedef struct DtxResolved
{
	Oid			serverid;		/* foreign server */
	char	   *server;			/* its name */
	char	   *gid;			/* text, NULL if the server was not reached */
	DtxDecision decision;		/* valid if gid is set */
	bool		done;			/* finished now? */
	char	   *error;			/* why not, or NULL */
} DtxResolved;

/* What a visit of one server as one local user found. */
typedef struct DtxProbe
{
	bool		reachable;
	char	   *error;			/* why not reachable; never has a password */
	char	   *resolver_error; /* why a resolver can't use the mapping, or NULL */
	char	   *remote_user;	/* current_user there */
	char	   *database;		/* current_database() there */
	int			version;		/* as PQserverVersion() */
	int			slots_used;		/* prepared transactions there */
	int			slots_total;	/* its max_prepared_transactions */
	bool		pooled;			/* a connection pooler is in between */
	uint64		system_id;		/* system identifier, 0 if it does not tell */
	uint64		timeline;		/* of its WAL, likewise */

	bool		has_session;	/* has it answered what follows? */
	int			role_limit;		/* connections that the user may have, or -1 */
	int			database_limit; /* that the database may have, or -1 */
	bool		reserved;		/* are connections reserved for the user? */
	bool		counts_utilities;	/* does pg_stat_statements count them? */
	bool		has_standbys;	/* has it synchronous standbys? */
	bool		has_witness;	/* can a resolver find out whether these have got
								 * something? */
} DtxProbe;

/*
 * Run a full pass in this backend, inside its transaction, and return a list
 * of DtxResolved in the current memory context.  Interruptible; throws if
 * pg_dtx.resolver is off.  Errors of single servers are rows, not throws.  What
 * was prepared through a server that was dropped since is left to the worker.
 */
extern List *DtxResolveNow(void);

/*
 * Finish one gid on one server on the word of a human, through the mapping
 * "umid" (or, if that is InvalidOid, the mapping that belongs to the owner of
 * the prepared transaction).  Throws with the remote SQLSTATE if it fails,
 * ERRCODE_UNDEFINED_OBJECT if no such prepared transaction is there, and
 * ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE if the server leads to another cluster
 * than "system_id" (0: no matter which).
 */
extern void DtxFinishGid(Oid serverid, Oid umid, const char *gid,
						 DtxDecision decision, uint64 system_id);

/* Servers of postgres_fdw that hold "gid" now: list of Oids. */
extern List *DtxFindGid(const char *gid);

/* Visit a server with the mapping of "userid"; does not throw for its errors. */
extern void DtxProbeServer(Oid serverid, Oid userid, DtxProbe *probe);

PGDLLEXPORT extern void dtx_resolver_main(Datum arg);

#endif							/* PG_DTX_RESOLVER_H */
