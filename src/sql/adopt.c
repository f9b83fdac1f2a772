/*-------------------------------------------------------------------------
 *
 * adopt.c
 *		What dtx.adopt_coordinator() needs: asking a server that decides, and finishing
 *		what another coordinator has prepared.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "base/gid.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/ask_outcome.h"
#include "resolve/api.h"
#include "utils/builtins.h"
#include "utils/palloc.h"

PG_FUNCTION_INFO_V1(dtx_sql_outcome_question);

/*
 * dtx_internal.outcome_question(xid bigint): the question that DTX_ASK_OUTCOME makes.
 */
Datum
dtx_sql_outcome_question(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(psprintf("SELECT " DTX_ASK_OUTCOME("u.x")
											  " FROM (VALUES (" INT64_FORMAT "::pg_catalog.int8)) AS u(x)",
											  PG_GETARG_INT64(0))));
}

PG_FUNCTION_INFO_V1(dtx_sql_finish_prepared);

/*
 * dtx_internal.finish_prepared(server name, gid text, committed boolean, system_id text):
 * through the user mapping of the current user.
 * Superusers only, whatever privileges were granted: nothing is checked here.
 */
Datum
dtx_sql_finish_prepared(PG_FUNCTION_ARGS)
{
	const char *server = NameStr(*PG_GETARG_NAME(0));
	uint64		system_id = DtxNumberParse(text_to_cstring(PG_GETARG_TEXT_PP(3)),
										   PG_UINT64_MAX);
	Oid			serverid;

	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be superuser to finish what another coordinator has prepared")));
	if (system_id == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid system identifier")));
	serverid = GetForeignServerByName(server, false)->serverid;
	DtxFinishGid(serverid, GetUserMapping(GetUserId(), serverid)->umid,
				 text_to_cstring(PG_GETARG_TEXT_PP(1)),
				 PG_GETARG_BOOL(2) ? DTX_COMMIT : DTX_ROLLBACK, system_id,
				 GetUserId());
	PG_RETURN_VOID();
}
