/*-------------------------------------------------------------------------
 *
 * step.c
 *		A step that this worker has taken: taking it, and saying what has become of it.
 *
 * The functions of the extension do both; the attempt is counted, and committed, before
 * it is made.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/backoff.h"
#include "base/fault.h"
#include "base/process.h"
#include "catalog/pg_type.h"
#include "commit/connection.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "saga/call.h"
#include "saga/claims.h"
#include "saga/saga_tables.h"
#include "saga/session.h"
#include "saga/step.h"
#include "saga/stop.h"
#include "storage/itemptr.h"
#include "storage/latch.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

/* Longest wait for a step's row by a worker that has executed it: who has that is about
 * to take the step away. */
#define SAGA_LOCK_TIMEOUT	"10s"

/* ... and of one that gives back a step because it is to leave. */
#define GIVE_BACK_LOCK_TIMEOUT	"2s"

/* How often a worker tries to say that a step has failed. */
#define REPORT_TRIES	5

/* Worker: parent of the contexts of the steps that it has taken. */
MemoryContext DtxStepsContext = NULL;

/* Wait events, see DtxWaitEvent(). */
uint32		DtxStepWaitEvent;

static DtxStep *read_step(Datum taken, bool *more);

/*
 * In a transaction: take a step that is due, of saga "only" if that is not 0.  If there
 * is none, *more says whether to ask again.  If it is to be careful, a step that cannot
 * even be looked at is left for later; that costs a subtransaction for each one.  The
 * step has a memory context of its own (DtxStepFree).  Throws what the function throws.
 */
DtxStep *
DtxStepTake(int64 only, bool careful, bool *more)
{
	static const Oid types[] = {OIDOID, INT8OID, BOOLOID};
	Datum		args[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	Datum		taken;
	bool		isnull;

	DtxAssertInWorker();
	args[0] = ObjectIdGetDatum(GetSessionUserId());
	args[1] = Int64GetDatum(only);
	nulls[1] = only == 0;
	args[2] = BoolGetDatum(careful);
	taken = DtxSagaCall("saga_take", lengthof(args), types, args, nulls,
						&isnull);
	*more = false;
	return isnull ? NULL : read_step(taken, more);
}

/*
 * What dtx_internal.saga_take() has returned.
 */
static DtxStep *
read_step(Datum taken, bool *more)
{
	HeapTupleHeader header = DatumGetHeapTupleHeader(taken);
	HeapTupleData tuple;
	TupleDesc	desc;
	MemoryContext cxt;
	MemoryContext old;
	DtxStep    *step;
	Datum	   *values;
	bool	   *nulls;
	int			nservers = 0;
	int			nmin_rows = 0;
	Datum	   *servers = NULL;
	Datum	   *commands = NULL;
	Datum	   *min_rows = NULL;
	bool	   *no_server = NULL;
	bool	   *no_command = NULL;
	bool	   *no_min_rows = NULL;
	bool		found = false;

	cxt = AllocSetContextCreate(DtxStepsContext, "pg_dtx saga step",
								ALLOCSET_SMALL_SIZES);
	old = MemoryContextSwitchTo(cxt);
	step = palloc0(sizeof(DtxStep));
	step->cxt = cxt;

	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(header),
								  HeapTupleHeaderGetTypMod(header));
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	values = palloc(sizeof(Datum) * desc->natts);
	nulls = palloc(sizeof(bool) * desc->natts);
	heap_deform_tuple(&tuple, desc, values, nulls);

	for (int i = 0; i < desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(desc, i)->attname);

		if (nulls[i])
			continue;
		if (strcmp(name, "saga") == 0)
		{
			step->saga = DatumGetInt64(values[i]);
			found = true;
		}
		else if (strcmp(name, "step") == 0)
			step->step = DatumGetInt16(values[i]);
		else if (strcmp(name, "attempt") == 0)
			step->attempt = DatumGetInt32(values[i]);
		else if (strcmp(name, "direction") == 0)
			step->direction = TextDatumGetCString(values[i]);
		else if (strcmp(name, "servers") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), NAMEOID,
							  NAMEDATALEN, false, TYPALIGN_CHAR, &servers,
							  &no_server, &nservers);
		else if (strcmp(name, "commands") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), TEXTOID, -1,
							  false, TYPALIGN_INT, &commands, &no_command,
							  &step->ncommands);
		else if (strcmp(name, "min_rows") == 0)
			deconstruct_array(DatumGetArrayTypePCopy(values[i]), INT4OID,
							  sizeof(int32), true, TYPALIGN_INT, &min_rows,
							  &no_min_rows, &nmin_rows);
		else if (strcmp(name, "input") == 0)
		{
			step->input = JsonbPGetDatum(DatumGetJsonbPCopy(values[i]));
			step->has_input = true;
		}
		else if (strcmp(name, "results") == 0)
		{
			step->results = JsonbPGetDatum(DatumGetJsonbPCopy(values[i]));
			step->has_results = true;
		}
		else if (strcmp(name, "context") == 0)
		{
			step->context = JsonbPGetDatum(DatumGetJsonbPCopy(values[i]));
			step->has_context = true;
		}
		else if (strcmp(name, "condition") == 0)
			step->condition = TextDatumGetCString(values[i]);
		else if (strcmp(name, "timeout") == 0)
		{
			Interval   *interval = DatumGetIntervalP(values[i]);
			double		ms;

			ms = (interval->time +
				  ((double) interval->day + (double) interval->month * DAYS_PER_MONTH) *
				  USECS_PER_DAY) / 1000.0;
			step->timeout = ms <= 1 ? 1 : ms >= PG_INT32_MAX ? 0 : (int) ms;
		}
		else if (strcmp(name, "more") == 0)
			*more = DatumGetBool(values[i]);
	}
	ReleaseTupleDesc(desc);

	if (found)
	{
		int			n = Max(step->ncommands, 1);

		step->servers = palloc0(sizeof(char *) * n);
		step->commands = palloc0(sizeof(char *) * n);
		step->min_rows = palloc0(sizeof(int) * n);
		for (int i = 0; i < step->ncommands; i++)
		{
			if (i < nservers && !no_server[i])
				step->servers[i] = pstrdup(NameStr(*DatumGetName(servers[i])));
			if (!no_command[i])
				step->commands[i] = TextDatumGetCString(commands[i]);
			step->min_rows[i] = i < nmin_rows && !no_min_rows[i] ?
				DatumGetInt32(min_rows[i]) : -1;
		}
	}
	MemoryContextSwitchTo(old);
	if (!found)
	{
		MemoryContextDelete(cxt);
		return NULL;
	}
	return step;
}

/* Free a step that DtxStepTake() has returned, and what hangs off it. */
void
DtxStepFree(DtxStep *step)
{
	MemoryContextDelete(step->cxt);
}

/*
 * In the transaction of the step: it is done, or was skipped because its condition was
 * not true.  Throws, and the step fails with it, if the function does, and if a lock is
 * held for too long.
 */
void
DtxStepDone(DtxStep *step, Datum result, bool isnull, bool skipped)
{
	static const Oid types[] = {
		INT8OID, INT2OID, INT4OID, TEXTOID, JSONBOID, NAMEARRAYOID, INT8ARRAYOID, BOOLOID
	};
	Datum		args[lengthof(types)];
	bool		nulls[lengthof(types)] = {0};
	bool		nothing;
	int			nestlevel;
	Datum	   *names = palloc(sizeof(Datum) * Max(step->ncommands, 1));
	Datum	   *systems = palloc(sizeof(Datum) * Max(step->ncommands, 1));
	int			nservers = 0;

	DtxAssertInWorker();
	args[0] = Int64GetDatum(step->saga);
	args[1] = Int16GetDatum(step->step);
	args[2] = Int32GetDatum(step->attempt);
	args[3] = CStringGetTextDatum(step->direction);
	args[4] = result;
	nulls[4] = isnull;

	/* Where it was done, and can be undone. */
	for (int i = 0; i < step->ncommands; i++)
	{
		bool		again = step->servers[i] == NULL || step->commands[i] == NULL;

		for (int j = 0; j < i && !again; j++)
			again = step->servers[j] != NULL && strcmp(step->servers[i], step->servers[j]) == 0;
		if (again)
			continue;
		names[nservers] = DirectFunctionCall1(namein, CStringGetDatum(step->servers[i]));
		systems[nservers++] = Int64GetDatum((int64) DtxConnectionSystemId(get_foreign_server_oid(step->servers[i], true)));
	}
	args[5] = PointerGetDatum(construct_array(names, nservers, NAMEOID, NAMEDATALEN,
											  false, TYPALIGN_CHAR));
	args[6] = PointerGetDatum(construct_array(systems, nservers, INT8OID, sizeof(int64),
											  true, TYPALIGN_DOUBLE));

	args[7] = BoolGetDatum(skipped);

	/* It has to see what the statements have done, and others meanwhile. */
	CommandCounterIncrement();
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());

	/*
	 * Another session may hold the step's row, and wait on a server for what
	 * this step has locked there: nobody sees such a deadlock.  The step is
	 * tried again then.  (The saga's row is not waited for.)
	 */
	nestlevel = NewGUCNestLevel();
	(void) set_config_option("lock_timeout", SAGA_LOCK_TIMEOUT, PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	(void) DtxSagaCall("saga_done", lengthof(types), types, args, nulls,
					   &nothing);
	AtEOXact_GUC(true, nestlevel);
}

/*
 * A step that was taken is not going to be executed now, or was stopped for no fault
 * of its own and is rolled back: it was no attempt.  "why" is for the history; NULL:
 * it was not begun.  "most": that often for that reason, then it counts, as one that
 * was lost; -1: no bound.  If this throws, it counts, too.
 *
 * That has to be said by a worker that was asked to die, too: it was asked while
 * it committed the step before, perhaps.  Then it does not die before this is
 * done; but it does not wait for long either, neither for a lock nor for disks
 * and standbys.
 */
void
DtxStepGiveBack(DtxStep *step, const char *why, int most)
{
	static const Oid types[] = {
		INT8OID, INT2OID, INT4OID, TEXTOID, TEXTOID, TIMESTAMPTZOID, INT4OID
	};
	bool		must_die = ProcDiePending;

	DtxAssertInWorker();
	PG_TRY();
	{
		Datum		args[lengthof(types)];
		bool		nulls[lengthof(types)] = {0};
		bool		nothing;

		ProcDiePending = false; /* asked once more, it dies at once */
		DtxSagaBegin();
		if (must_die)
		{
			(void) set_config_option("lock_timeout", GIVE_BACK_LOCK_TIMEOUT,
									 PGC_USERSET, PGC_S_SESSION,
									 GUC_ACTION_LOCAL, true, 0, false);
			(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
									 false);
		}
		args[0] = Int64GetDatum(step->saga);
		args[1] = Int16GetDatum(step->step);
		args[2] = Int32GetDatum(step->attempt);
		args[3] = CStringGetTextDatum(step->direction);
		args[4] = why ? CStringGetTextDatum(why) : (Datum) 0;
		nulls[4] = why == NULL;
		args[5] = TimestampTzGetDatum(step->started_at);
		nulls[5] = why == NULL;
		args[6] = Int32GetDatum(most);
		nulls[6] = most < 0;

		/* Unless the extension was dropped meanwhile. */
		if (DtxSagaInstalled())
			(void) DtxSagaCall("saga_untake", lengthof(types), types, args,
							   nulls, &nothing);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_FINALLY();
	{
		if (must_die)
		{
			ProcDiePending = true;
			InterruptPending = true;
		}
	}
	PG_END_TRY();
}

/*
 * A step has failed, and its transaction has been rolled back.  Says so in a
 * transaction of its own, several times if it has to; throws if that fails for good,
 * and on interrupts.
 */
void
DtxStepFailed(DtxStep *step, ErrorData *edata)
{
	static const Oid types[] = {
		INT8OID, INT2OID, INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
		TIMESTAMPTZOID, TEXTOID
	};
	const char *volatile message = edata->message;
	const char *volatile server = step->at_server;

	/* At its commit any of them may have been the one. */
	for (int i = 0; i < step->ncommands && server == NULL && !step->local; i++)
		server = step->servers[i];

	if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
	{
		switch (DtxSagaStopReason)
		{
			case DTX_SAGA_STOP_TIMEOUT:
				message = "canceling saga step due to its timeout";
				break;
			case DTX_SAGA_STOP_LIMIT:
				message = "canceling saga step due to \"pg_dtx.saga_step_timeout\"";
				break;
			case DTX_SAGA_STOP_ENDED:
				message = "canceling saga step due to cancellation of its saga";
				break;
			default:
				break;
		}
	}

	for (volatile int try = 1;; try++)
	{
		volatile bool done = false;

		PG_TRY();
		{
			Datum		args[lengthof(types)];
			bool		nulls[lengthof(types)] = {0};
			bool		nothing;

			DtxSagaBegin();
			args[0] = Int64GetDatum(step->saga);
			args[1] = Int16GetDatum(step->step);
			args[2] = Int32GetDatum(step->attempt);
			args[3] = CStringGetTextDatum(step->direction);
			args[4] = CStringGetTextDatum(unpack_sql_state(edata->sqlerrcode));
			args[5] = CStringGetTextDatum(message ? message : "");
			args[6] = edata->detail ? CStringGetTextDatum(edata->detail) : (Datum) 0;
			nulls[6] = edata->detail == NULL;
			args[7] = edata->hint ? CStringGetTextDatum(edata->hint) : (Datum) 0;
			nulls[7] = edata->hint == NULL;
			args[8] = TimestampTzGetDatum(step->started_at);
			args[9] = server ? CStringGetTextDatum(server) : (Datum) 0;
			nulls[9] = server == NULL;

			/* Unless the extension was dropped meanwhile. */
			if (DtxSagaInstalled())
				(void) DtxSagaCall("saga_error", lengthof(types), types, args,
								   nulls, &nothing);
			DTX_FAULT("saga-error", NULL);
			PopActiveSnapshot();
			CommitTransactionCommand();
			done = true;
		}
		PG_CATCH();
		{
			ErrorData  *error;

			MemoryContextSwitchTo(step->cxt);
			error = CopyErrorData();
			if (error->sqlerrcode == ERRCODE_DTX_STEP_LOST)
				done = true;
			else if (try >= REPORT_TRIES)
				PG_RE_THROW();
			else
				EmitErrorReport();
			FlushErrorState();
			DtxSagaRecoverFromError();
		}
		PG_END_TRY();

		if (done)
			break;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT |
						 WL_EXIT_ON_PM_DEATH,
						 DtxBackoffPause(try, DTX_SAGA_ERROR_PAUSE_MIN, DTX_SAGA_ERROR_PAUSE_MAX),
						 DtxStepWaitEvent);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
}
