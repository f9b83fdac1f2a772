/*-------------------------------------------------------------------------
 *
 * stat.c
 *		The functions behind the view of counters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/stats.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "funcapi.h"
#include "state/in_doubt.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(dtx_sql_stat);

/*
 * dtx_internal.stat(): one row of counters.
 */
Datum
dtx_sql_stat(PG_FUNCTION_ARGS)
{
	/* The counts, in the order of the view; times and the rest follow. */
	static const DtxCounter counts[] = {
		DTX_STAT_ONE_PHASE,
		DTX_STAT_TWO_PHASE,
		DTX_STAT_AT_SERVER,
		DTX_STAT_PREPARED,
		DTX_STAT_PREPARE_FAILED,
		DTX_STAT_UNPROTECTED,
		DTX_STAT_HANDED_OVER,
		DTX_STAT_RESOLVED_COMMIT,
		DTX_STAT_RESOLVED_ROLLBACK,
		DTX_STAT_FORCED,
		DTX_STAT_PASSES,
		DTX_STAT_DEADLOCKS,
		DTX_STAT_SNAPSHOTS,
		DTX_STAT_SNAPSHOT_RETRIES,
		DTX_STAT_SNAPSHOTS_REFUSED
	};
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Datum		values[lengthof(counts) + 5];
	bool		nulls[lengthof(counts) + 5] = {0};
	int			n = 0;

	InitMaterializedSRF(fcinfo, 0);

	for (int i = 0; i < lengthof(counts); i++)
		values[n++] = Int64GetDatum((int64) DtxStatsGet(counts[i]));
	values[n++] = Int64GetDatum((int64) DtxInDoubtOverflows());
	values[n++] = Float8GetDatum(DtxStatsGet(DTX_STAT_PREPARE_USEC) / 1000.0);
	values[n++] = Float8GetDatum(DtxStatsGet(DTX_STAT_COMMIT_USEC) / 1000.0);
	values[n++] = Float8GetDatum(DtxStatsGet(DTX_STAT_GATE_USEC) / 1000.0);
	values[n++] = TimestampTzGetDatum(DtxStatsResetAt());
	Assert(n == lengthof(values) && n == rsinfo->setDesc->natts);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);

	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_stat_since_last_call);

/*
 * dtx_internal.stat_since_last_call(): what was counted since this session last asked
 * or, if it has not, or the counters were reset meanwhile, since they were zero.
 */
Datum
dtx_sql_stat_since_last_call(PG_FUNCTION_ARGS)
{
	/* What this session was told last; zeros before that. */
	static uint64 last[DTX_STAT_COUNT];
	static DtxMoment last_at = 0;
	static TimestampTz last_reset = 0;

	uint64		since[DTX_STAT_COUNT];
	DtxMoment	now = DtxNow();
	TimestampTz reset_at = DtxStatsResetAt();
	TupleDesc	desc;
	Datum		values[8];
	bool		nulls[8] = {0};
	int			n = 0;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	if (last_reset != reset_at)
	{
		memset(last, 0, sizeof(last));
		last_at = Max(last_at, DtxTimestampToMoment(reset_at));
		last_reset = reset_at;
	}
	for (int i = 0; i < DTX_STAT_COUNT; i++)
	{
		uint64		value = DtxStatsGet((DtxCounter) i);

		/* Less than before: it is being reset just now. */
		since[i] = value - Min(value, last[i]);
		last[i] = value;
	}

	values[n++] = Float8GetDatum(Max(now - last_at, 0) / 1000.0);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_ONE_PHASE]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_TWO_PHASE]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_PREPARE_FAILED]);
	values[n++] = Int64GetDatum((int64) since[DTX_STAT_HANDED_OVER]);
	values[n++] = Int64GetDatum((int64) (since[DTX_STAT_RESOLVED_COMMIT] +
										 since[DTX_STAT_RESOLVED_ROLLBACK]));
	values[n++] = Float8GetDatum(since[DTX_STAT_PREPARE_USEC] / 1000.0);
	values[n++] = Float8GetDatum(since[DTX_STAT_COMMIT_USEC] / 1000.0);
	Assert(n == lengthof(values) && n == desc->natts);
	last_at = now;

	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc),
													  values, nulls)));
}

PG_FUNCTION_INFO_V1(dtx_sql_stat_reset);

/*
 * dtx.reset_stat(): set the counters to zero.
 */
Datum
dtx_sql_stat_reset(PG_FUNCTION_ARGS)
{
	DtxStatsReset();
	DtxInDoubtOverflowsReset();
	PG_RETURN_VOID();
}
