/*-------------------------------------------------------------------------
 *
 * late_report.c
 *		What external workers report after their leases have ended.
 *
 * A worker that reports too late that it has done a step gets an error, so that what it has
 * written in the same transaction is rolled back.  So would be a row that says so.
 * Therefore its token is noted in shared memory, and the scheduler of the database records it
 * (dtx_internal.saga_report_late()).  A crash in the moment between loses it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "saga/late_report.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/array.h"
#include "utils/palloc.h"
#include "utils/uuid.h"
#include "worker/wake.h"

/* Reports that wait for the schedulers of all databases; more are not noted. */
#define MAX_LATE	256

typedef struct LateReport
{
	Oid			dbid;			/* database */
	pg_uuid_t	token;			/* of the lease that has ended */
} LateReport;

typedef struct LateShared
{
	LWLock		lock;			/* guards what follows */
	int			n;
	LateReport	reports[MAX_LATE];	/* the first n */
} LateShared;

static LateShared *shared = NULL;

/*
 * Bytes of shared memory that this module needs.
 */
Size
DtxSagaLateShmemSize(void)
{
	return sizeof(LateShared);
}

/*
 * Create or attach to it.  The caller holds AddinShmemInitLock.
 */
void
DtxSagaLateShmemInit(void)
{
	bool		found;

	shared = ShmemInitStruct("pg_dtx late reports", DtxSagaLateShmemSize(), &found);
	if (!found)
	{
		memset(shared, 0, DtxSagaLateShmemSize());
		LWLockInitialize(&shared->lock, DtxLWLockTranche("DtxSaga"));
	}
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_note_late);

/*
 * dtx_internal.saga_note_late(token): the scheduler is to record that, whatever becomes of
 * this transaction.
 */
Datum
dtx_sql_saga_note_late(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *token = PG_GETARG_UUID_P(0);
	bool		known = false;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < shared->n; i++)
		known |= shared->reports[i].dbid == MyDatabaseId &&
			memcmp(&shared->reports[i].token, token, sizeof(*token)) == 0;
	if (!known && shared->n < MAX_LATE)
	{
		shared->reports[shared->n].dbid = MyDatabaseId;
		shared->reports[shared->n++].token = *token;
	}
	LWLockRelease(&shared->lock);
	DtxLauncherWakeSagas(MyDatabaseId);
	PG_RETURN_VOID();
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_late);

/*
 * dtx_internal.saga_late(): the tokens that were noted for this database, which are
 * forgotten here.
 */
Datum
dtx_sql_saga_late(PG_FUNCTION_ARGS)
{
	Datum	   *tokens = palloc(sizeof(Datum) * MAX_LATE);
	pg_uuid_t  *copies = palloc(sizeof(pg_uuid_t) * MAX_LATE);
	int			n = 0;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	for (int i = shared->n - 1; i >= 0; i--)
	{
		if (shared->reports[i].dbid != MyDatabaseId)
			continue;
		copies[n] = shared->reports[i].token;
		tokens[n] = UUIDPGetDatum(&copies[n]);
		n++;
		shared->reports[i] = shared->reports[--shared->n];
	}
	LWLockRelease(&shared->lock);
	PG_RETURN_ARRAYTYPE_P(construct_array(tokens, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}
