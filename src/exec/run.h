/*-------------------------------------------------------------------------
 *
 * run.h
 *		Running a remote command on several servers at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_RUN_H
#define PG_DTX_RUN_H

#include "commit/connection.h"
#include "exec/rows.h"
#include "libpq-fe.h"
#include "nodes/pg_list.h"

/* What to run; the same on all servers. */
typedef struct DtxRemoteCommand
{
	List	   *statements;		/* texts (char *), at least one */
	int			nparams;
	const Oid  *types;			/* their types, or NULL: the server finds out */
	const char **params;		/* their values as text, or NULL for null */
	bool		tidy;			/* leave no settings and locks in the session? */
	int			lock_timeout;	/* longest wait for a lock, ms, unless the
								 * session has a limit; 0: none */
} DtxRemoteCommand;

/* What went wrong, other than an error that the server reported. */
typedef enum DtxProblem
{
	DTX_NO_PROBLEM = 0,
	DTX_TRANSACTION_CONTROL,	/* a command tag that must not be */
	DTX_NO_RESULT_SET			/* rows wanted, but the last statement has
								 * none */
} DtxProblem;

/* The command on one server. */
typedef struct DtxExecution
{
	DtxRowSource source;		/* its name, and the rows that have come */
	Oid			serverid;
	DtxConnection *c;			/* its connection */
	int			step;			/* which results are due: up to 0 START
								 * TRANSACTION and settings, 1 to n
								 * statements, then settings and the Sync */
	char		start_command[DTX_START_SIZE];	/* START TRANSACTION that was
												 * sent with it, or "" */
	bool		anew;			/* was it sent again? */
	bool		done;			/* Sync seen, and pipeline mode left */
	PGresult   *result;			/* the one that is being looked at, or NULL */
	PGresult   *error;			/* the first error, or NULL */
	int			error_step;		/* its step */
	DtxProblem	problem;		/* the first one */
	int64		affected;		/* rows, all statements together */
	int64		affected_last;	/* rows of the last statement with a result */
} DtxExecution;

extern void DtxRun(const DtxRemoteCommand *command, DtxExecution *executions,
				   int n, DtxRowSink *sink);

#endif							/* PG_DTX_RUN_H */
