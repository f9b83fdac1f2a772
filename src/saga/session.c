/*-------------------------------------------------------------------------
 *
 * session.c
 *		The session of a worker or scheduler of sagas: its start, a transaction, cleaning up after
 *		the SQL of a step, and after an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_authid.h"
#include "commands/async.h"
#include "commands/prepare.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pgstat.h"
#include "saga/session.h"
#include "saga/stop.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timeout.h"
#include "utils/wait_event.h"
#include "worker/self.h"
#include "worker/slots.h"
#include "worker/startup.h"

/* Worker: has a step run in this session since it was cleaned? */
bool		DtxSagaSessionUsed = false;

/*
 * What both do first.  Leaves if nobody wants this process any more.  FATAL if it
 * cannot connect (DtxWorkerConnect).
 */
void
DtxSagaStartProcess(DtxWorkerKind kind, Oid dbid, const char *name)
{
	Oid			role = InvalidOid;

	if (kind == DTX_WORKER_SAGA)
		pqsignal(SIGUSR2, DtxSagaHandleSigusr2);
	DtxWorkerBegin(kind == DTX_WORKER_SAGA ? DtxSagaHandleSigterm : die);

	/* Before connecting, see DtxWorkerAttach(). */
	if (!DtxWorkerAttach(kind, dbid))
		proc_exit(0);
	if (kind == DTX_WORKER_SAGA)
	{
		/* Without a role it would be connected as a superuser. */
		role = DtxWorkerRole();
		if (!OidIsValid(role))
			elog(FATAL, "worker of sagas without a role");
	}
	DtxWorkerConnect(dbid, role, 0, name);
}

/*
 * Is there such a role, and may it log in?  In a transaction.
 */
bool
DtxSagaRoleMayLogIn(Oid role)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(role));
	bool		login;

	if (!HeapTupleIsValid(tuple))
		return false;
	login = ((Form_pg_authid) GETSTRUCT(tuple))->rolcanlogin;
	ReleaseSysCache(tuple);
	return login;
}

/*
 * After an error that has been dealt with: back to where a transaction can be
 * started.  The error itself has been copied or reported by the caller.
 */
void
DtxSagaRecoverFromError(void)
{
	HOLD_INTERRUPTS();
	error_context_stack = NULL;
	debug_query_string = NULL;
	disable_all_timeouts(false);
	QueryCancelPending = false; /* second to avoid a race */
	AbortOutOfAnyTransaction();
	LWLockReleaseAll();
	pgstat_report_wait_end();
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(TopMemoryContext);
	RESUME_INTERRUPTS();
}

/*
 * Begin a transaction, and have a snapshot.  Does not change the current memory
 * context.
 */
void
DtxSagaBegin(void)
{
	MemoryContext old = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();

	/* Whatever an earlier step, or its triggers, have made the default. */
	XactIsoLevel = XACT_READ_COMMITTED;
	XactReadOnly = false;
	XactDeferrable = false;
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(old);
}

/*
 * In a transaction: take away what the SQL of an earlier step has left in the
 * session, as DISCARD ALL does (commands/discard.c).  Plans may stay.
 */
void
DtxSagaCleanSession(void)
{
	if (!DtxSagaSessionUsed)
		return;
	PortalHashTableDeleteAll();
	SetPGVariable("session_authorization", NIL, false);
	ResetAllOptions();
	DropAllPreparedStatements();
	Async_UnlistenAll();
	LockReleaseAll(USER_LOCKMETHOD, true);
	ResetTempTableNamespace();
	ResetSequenceCaches();
	DtxSagaSessionUsed = false;
}
