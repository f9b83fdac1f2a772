/*-------------------------------------------------------------------------
 *
 * execute.c
 *		Executing a step: its statements run here, on this database or through a foreign server,
 *		and the step is marked as done in the same transaction.
 *
 * The servers and this database commit in two phases, so the step and the mark are
 * there, or neither is.  The next step of the saga is taken in the same transaction, so a
 * step costs one commit.  A worker may die at any moment.  Then its transaction is rolled
 * back, and its claim on the step goes after that; the step's row says that it is being
 * executed, which nobody does, and whichever worker takes it next knows what that means.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/fault.h"
#include "base/process.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "commit/phase_two.h"
#include "exec/api.h"
#include "exec/rows.h"
#include "executor/spi.h"
#include "executor/tuptable.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/params.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "parser/parser.h"
#include "pgstat.h"
#include "saga/claims.h"
#include "saga/execute.h"
#include "saga/session.h"
#include "saga/step.h"
#include "saga/stop.h"
#include "storage/proc.h"
#include "tcop/dest.h"
#include "tcop/tcopprot.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/palloc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/self.h"

/*
 * So many executions of a step may end because its worker was told to leave, nobody
 * knows by whom.  The next ones are attempts: the step itself may have done it.
 */
#define MAX_LEAVES		10

/* Keeps the first row that it gets, and counts. */
typedef struct FirstRowReceiver
{
	DestReceiver pub;
	MemoryContext cxt;			/* for the row */
	TupleDesc	desc;			/* of the rows */
	bool		found;			/* has it the row, or need it none? */
	Datum		first;			/* as jsonb */
} FirstRowReceiver;

static void run_commands(DtxStep *step, MemoryContext cxt, Datum *result,
						 bool *isnull, bool *skipped);
static void first_row_startup(DestReceiver *self, int operation,
							  TupleDesc typeinfo);
static bool first_row_receive(TupleTableSlot *slot, DestReceiver *self);
static void first_row_shutdown(DestReceiver *self);
static void first_row_destroy(DestReceiver *self);
static int64 run_local(const char *command, DtxStep *step, MemoryContext cxt,
					   Datum *row, bool *isnull);

/*
 * Execute a step and commit it, after DtxSagaBeginExecution().  Returns the next one of its
 * saga, taken but not begun, or NULL.  The step is freed.  Throws if it cannot even be
 * said that the step has failed.
 */
DtxStep *
DtxStepExecute(DtxStep *step)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData  *volatile edata = NULL;
	DtxStep    *volatile next = NULL;
	const char *volatile shown = "(nothing to do)";

	DtxAssertInWorker();
	for (int i = step->ncommands - 1; i >= 0; i--)
	{
		if (step->commands[i] != NULL)
			shown = step->commands[i];
	}
	step->started_at = GetCurrentTimestamp();

	PG_TRY();
	{
		Datum		result;
		bool		isnull;
		bool		skipped;
		bool		more;

		DtxSagaBegin();
		DtxSagaCleanSession();
		DtxSagaSetLimits(step->timeout);
		pgstat_report_activity(STATE_RUNNING, shown);
		debug_query_string = shown;
		run_commands(step, cxt, &result, &isnull, &skipped);
		DtxSagaCheckStopped();
		DTX_FAULT("saga-executed", NULL);
		DtxStepDone(step, result, isnull, skipped);
		if (!DtxWorkerMustStop())
			next = DtxStepTake(step->saga, false, &more);
		DtxSagaCheckStopped();

		/* The attempt at the next step is counted, whatever becomes of it. */
		if (next != NULL)
			ForceSyncCommit();
		DTX_FAULT("saga-done", NULL);
		PopActiveSnapshot();
		CommitTransactionCommand();
		DtxSagaEndExecution();
		DTX_FAULT("saga-committed", NULL);
		debug_query_string = NULL;
		pgstat_report_activity(STATE_IDLE, NULL);
		pgstat_report_stat(false);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(step->cxt);
		edata = CopyErrorData();
		FlushErrorState();
		DtxSagaRecoverFromError();
		DtxSagaEndExecution();
		DtxSagaSessionUsed = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);

	if (edata != NULL)
	{
		/* A step that was taken and has been rolled back with this one. */
		if (next != NULL)
			DtxStepFree(next);
		next = NULL;

		/*
		 * If it is not ours any more (ERRCODE_DTX_STEP_LOST), that changes
		 * nothing.  But who knows: the step's own SQL may have said so, or
		 * have done what was rolled back with it.
		 */
		if (DtxSagaStopReason == DTX_SAGA_STOP_LEAVE)
			DtxStepGiveBack(step, "the worker was told to leave",
							DtxWorkerMustStop() ? -1 : MAX_LEAVES);
		else if (DtxSagaStopReason == DTX_SAGA_STOP_ROOM)
			DtxStepGiveBack(step, "another role needed a worker", -1);
		else
			DtxStepFailed(step, edata);
	}
	else if (next != NULL && DtxPhaseTwoLeftUnconfirmed())
	{
		/* The next step must not begin before the servers have confirmed. */
		DtxStepGiveBack(next, NULL, -1);
		DtxStepFree(next);
		next = NULL;
	}
	DtxStepFree(step);

	if (next != NULL)
		DtxSagaKeepClaim(next->saga, next->step);
	else
		DtxSagaDropClaims();
	return next;
}

/*
 * Run the statements of a step, in the current transaction.  The result is made
 * of the first rows of all of them.  *skipped: its condition was not true, and nothing
 * was run.
 */
static void
run_commands(DtxStep *step, MemoryContext cxt, Datum *result, bool *isnull,
			 bool *skipped)
{
	static const Oid types[] = {JSONBOID, JSONBOID, JSONBOID};
	const char *params[lengthof(types)] = {NULL};
	int			nestlevel = NewGUCNestLevel();

	/* A compensation has no result, so whatever its rows are is all right. */
	bool		compensating = strcmp(step->direction, "compensate") == 0;

	*result = (Datum) 0;
	*isnull = true;
	*skipped = false;

	/* A step that waits for a lock keeps a worker from the others: later again. */
	if (dtx_saga_lock_timeout > 0 && LockTimeout == 0)
	{
		char		value[32];

		snprintf(value, sizeof(value), "%d", dtx_saga_lock_timeout);
		(void) set_config_option("lock_timeout", value, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	if (step->has_input)
		params[0] = JsonbToCString(NULL, &DatumGetJsonbP(step->input)->root,
								   VARSIZE(DatumGetPointer(step->input)));
	if (step->has_results)
		params[1] = JsonbToCString(NULL, &DatumGetJsonbP(step->results)->root,
								   VARSIZE(DatumGetPointer(step->results)));
	if (step->has_context)
		params[2] = JsonbToCString(NULL, &DatumGetJsonbP(step->context)->root,
								   VARSIZE(DatumGetPointer(step->context)));

	if (step->condition != NULL)
	{
		bool		save_read_only = XactReadOnly;

		/*
		 * It decides what is to be done, and does nothing.  (Should it throw,
		 * the transaction is aborted.)
		 */
		step->local = true;
		DtxSagaClaimAt(InvalidOid);
		XactReadOnly = true;
		*skipped = run_local(step->condition, step, cxt,
							 step->ncommands == 0 ? result : NULL, isnull) == 0;
		XactReadOnly = save_read_only;
	}

	for (int i = 0; i < step->ncommands && !*skipped; i++)
	{
		int64		rows;
		Datum		row = (Datum) 0;
		bool		norow = true;

		if (step->commands[i] == NULL)
			continue;
		CHECK_FOR_INTERRUPTS();
		step->at_server = step->servers[i];
		step->local = step->servers[i] == NULL;
		DtxSagaClaimAt(step->local ? InvalidOid : get_foreign_server_oid(step->servers[i], true));
		if (step->servers[i] != NULL)
			rows = DtxRemoteExecute(step->servers[i], step->commands[i],
									lengthof(types), types, params,
									dtx_saga_lock_timeout,
									compensating ? NULL : &row, &norow);
		else
			rows = run_local(step->commands[i], step, cxt,
							 compensating ? NULL : &row, &norow);

		if (step->min_rows[i] >= 0 && rows < step->min_rows[i])
			ereport(ERROR,
					(errcode(ERRCODE_NO_DATA_FOUND),
					 errmsg("statement %d affected or returned " INT64_FORMAT " rows, but the step requires at least %d",
							i + 1, rows, step->min_rows[i])));
		if (!norow)
			*result = *isnull ? row :
				DirectFunctionCall2(jsonb_concat, *result, row);
		*isnull &= norow;
	}

	step->at_server = NULL;
	step->local = false;

	/* Settings of a step are not for what follows. */
	AtEOXact_GUC(false, nestlevel);
}

static void
first_row_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;
	MemoryContext old = MemoryContextSwitchTo(receiver->cxt);

	receiver->desc = CreateTupleDescCopy(typeinfo);
	DtxUniqueColumns(receiver->desc);
	receiver->desc = BlessTupleDesc(receiver->desc);
	MemoryContextSwitchTo(old);
}

static bool
first_row_receive(TupleTableSlot *slot, DestReceiver *self)
{
	FirstRowReceiver *receiver = (FirstRowReceiver *) self;
	MemoryContext old;
	HeapTuple	tuple;
	bool		free_tuple;
	int			nestlevel;

	if (receiver->found)
		return true;
	old = MemoryContextSwitchTo(receiver->cxt);

	/*
	 * The slot may be one of a scan, as it is: then the names in its
	 * descriptor are those of the table, or none, and not those of the query.
	 */
	tuple = ExecFetchSlotHeapTuple(slot, false, &free_tuple);
	nestlevel = DtxResultSettings();
	receiver->first = DtxRowToJsonb(heap_copy_tuple_as_datum(tuple, receiver->desc));
	AtEOXact_GUC(true, nestlevel);
	MemoryContextSwitchTo(old);
	receiver->found = true;
	return true;
}

static void
first_row_shutdown(DestReceiver *self)
{
}

static void
first_row_destroy(DestReceiver *self)
{
}

/*
 * Run a statement, or several, in this database.  Returns the number of rows of
 * the last one, and its first row, as DtxRemoteExecute() does: so they are run
 * one by one.  NULL for the row: nobody wants it.
 */
static int64
run_local(const char *command, DtxStep *step, MemoryContext cxt, Datum *row,
		  bool *isnull)
{
	List	   *statements = raw_parser(command, RAW_PARSE_DEFAULT);
	ListCell   *lc;
	ParamListInfo params = makeParamList(3);
	int64		rows = 0;

	DtxSagaSessionUsed = true;
	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the SQL of a step is empty")));
	params->params[0].value = step->input;
	params->params[0].isnull = !step->has_input;
	params->params[1].value = step->results;
	params->params[1].isnull = !step->has_results;
	params->params[2].value = step->context;
	params->params[2].isnull = !step->has_context;
	for (int i = 0; i < 3; i++)
	{
		params->params[i].pflags = PARAM_FLAG_CONST;
		params->params[i].ptype = JSONBOID;
	}

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	foreach(lc, statements)
	{
		RawStmt    *stmt = lfirst_node(RawStmt, lc);
		const char *begin = command + stmt->stmt_location;
		FirstRowReceiver receiver = {0};
		SPIExecuteOptions options = {0};
		int			code;

		receiver.pub.receiveSlot = first_row_receive;
		receiver.pub.rStartup = first_row_startup;
		receiver.pub.rShutdown = first_row_shutdown;
		receiver.pub.rDestroy = first_row_destroy;
		receiver.pub.mydest = DestNone;
		receiver.cxt = cxt;
		receiver.found = row == NULL;
		options.params = params;
		options.dest = &receiver.pub;

		code = SPI_execute_extended(stmt->stmt_len > 0 ?
									pnstrdup(begin, stmt->stmt_len) : begin,
									&options);
		if (code == SPI_ERROR_TRANSACTION)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
					 errmsg("cannot use transaction control statements in a step of a saga"),
					 errdetail("Each step is a transaction.")));
		if (code == SPI_ERROR_COPY)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("cannot use COPY from or to the client in a step of a saga")));
		if (code < 0)
			ereport(ERROR,
					(errcode(ERRCODE_SYNTAX_ERROR),
					 errmsg("could not execute the statement of a step: %s",
							SPI_result_code_string(code))));
		rows = (int64) SPI_processed;
		if (row != NULL)
		{
			*row = receiver.first;
			*isnull = !receiver.found;
		}
	}
	SPI_finish();
	return rows;
}
