/*-------------------------------------------------------------------------
 *
 * force.c
 *		What administrators do about what is in doubt or damaged:
 *		dtx.resolve_in_doubt(), dtx.force_in_doubt(), dtx.acknowledge_damage().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/gid.h"
#include "base/stats.h"
#include "catalog/pg_type.h"
#include "catalog/pg_user_mapping.h"
#include "commands/dbcommands.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "resolve/api.h"
#include "resolve/facts.h"
#include "resolve/judge.h"
#include "resolve/resolver.h"
#include "sql/guards.h"
#include "sql/values.h"
#include "state/activity.h"
#include "state/damage.h"
#include "state/decision.h"
#include "state/identity.h"
#include "state/in_doubt.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/tuplestore.h"
#include "worker/wake.h"

/* What dtx_internal.forced_record tells, besides the gid and what was done. */
typedef struct Forced
{
	const char *server;			/* its name */
	DtxDecision decided;		/* what was on record */
	const char *reason;
	const char *by_user;
} Forced;

static DtxVerdict judge_decided(DtxWitness *witness, const DtxSighting *sighting,
								const DtxInDoubt *entry);
static void throw_decider_not_asked(const char *gid_text, const DtxGid *gid,
									const DtxInDoubt *entry);
static DtxDecision parse_decision(const char *text);
static void check_own_gid(const char *text, const DtxGid *gid);
static void check_contradiction(const char *gid, DtxDecision decision,
								DtxDecision decided, bool override);
static Oid	server_holding(const char *gid_text, const DtxGid *gid,
						   const DtxDecisionRow *row);
static Oid	usable_mapping(Oid umid, Oid serverid);
static void forget_dropped(const DtxGid *gid, DtxDecision decision,
						   DtxDecision decided, const DtxDecisionRow *row,
						   const char *reason, const char *by_user);
static void confirm_commit(Oid serverid, const char *gid, uint64 system_id);
static ErrorData *try_finish(Oid serverid, Oid umid, const char *gid,
							 DtxDecision decision, uint64 system_id,
							 const Forced *forced);
static void audit(const char *gid, const char *server, DtxDecision decision,
				  DtxDecision decided, const char *reason,
				  const char *by_user);

PG_FUNCTION_INFO_V1(dtx_sql_resolve);

/*
 * dtx.resolve_in_doubt(): a full pass now, one row for each thing that was done or could
 * not be done.
 */
Datum
dtx_sql_resolve(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	PreventCommandDuringRecovery("dtx.resolve_in_doubt()");

	InitMaterializedSRF(fcinfo, 0);

	foreach(lc, DtxResolveNow())
	{
		DtxResolved *r = (DtxResolved *) lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {0};

		if (r->server != NULL)
			values[0] = DtxNameValue(r->server);
		else
			nulls[0] = true;
		if (r->gid != NULL)
		{
			values[1] = DtxTextValue(r->gid);
			if (r->decision != DTX_UNDECIDED)
				values[2] = CStringGetTextDatum(DtxDecisionName(r->decision));
			else
				nulls[2] = true;
		}
		else
			nulls[1] = nulls[2] = true;
		values[3] = BoolGetDatum(r->done);
		if (r->error != NULL)
			values[4] = DtxTextValue(r->error);
		else
			nulls[4] = true;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}

	/*
	 * Decisions nobody needs any more are deleted by the worker, if by
	 * anyone.
	 */
	(void) DtxAskPassIfDecisions(false);

	return (Datum) 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_force);

/*
 * dtx.force_in_doubt(gid text, decision text, reason text, override boolean): finish a
 * prepared transaction on the word of a human.
 *
 * The function is SECURITY DEFINER, so that who is granted EXECUTE needs no
 * privileges on the audit table; the human is the session user.  What is done
 * on the server is done at once, whatever becomes of the local transaction.
 * Hence the row of the audit table is inserted first: if that fails, nothing
 * was done; and the server log tells it in any case.
 */
Datum
dtx_sql_force(PG_FUNCTION_ARGS)
{
	char	   *gid_text;
	char	   *reason;
	char	   *by_user = GetUserNameFromId(GetSessionUserId(), false);
	char	   *server;
	DtxDecision decision;
	DtxDecision decided;
	const DtxDecisionRow *row;
	DtxWitness *witness;
	DtxSighting sighting;
	DtxFacts	facts;
	DtxVerdict	verdict;
	DtxInDoubt	entry;
	DtxGid		gid;
	Oid			serverid;
	Oid			umid;
	bool		override;
	bool		known;

	for (int i = 0; i < 4; i++)
	{
		if (PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("arguments of %s must not be null",
							"dtx.force_in_doubt()")));
	}
	gid_text = text_to_cstring(PG_GETARG_TEXT_PP(0));
	decision = parse_decision(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	override = PG_GETARG_BOOL(3);

	reason = DtxReason(PG_GETARG_TEXT_PP(2), "dtx.force_in_doubt()",
					   "view \"dtx.forced\"");

	PreventCommandIfReadOnly("dtx.force_in_doubt()");
	DtxDamageLockForced();

	if (!DtxGidParse(gid_text, &gid))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("\"%s\" is not a global transaction identifier of pg_dtx",
						gid_text),
				 errhint("Take it from the view \"dtx.in_doubt\", or from pg_prepared_xacts on the server.")));
	check_own_gid(gid_text, &gid);

	/*
	 * First this, then the witness.  The other way round, the transaction
	 * could commit in between, and we would take its decision for rollback.
	 */
	memset(&sighting, 0, sizeof(sighting));
	sighting.gid = gid;
	sighting.next_xid = U64FromFullTransactionId(ReadNextFullTransactionId());
	sighting.age_ms = -1;
	sighting.responsible = DtxActivityResponsible(&gid);
	witness = DtxWitnessTake();
	if (witness == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("extension \"%s\" is not installed in this database",
						"pg_dtx")));
	known = DtxInDoubtGet(&gid, &entry);
	row = DtxWitnessRow(witness, &gid);
	if (DtxGidDecidedElsewhere(&gid))
		verdict = judge_decided(witness, &sighting, known ? &entry : NULL);
	else
	{
		DtxWitnessFacts(witness, &sighting, &facts);
		verdict = DtxJudge(&facts);
	}
	decided = DTX_UNDECIDED;
	switch (verdict)
	{
		case DTX_VERDICT_LEAVE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("prepared transaction \"%s\" is still being taken care of by its session",
							gid_text),
					 errhint("The view \"dtx.transactions\" shows the session. Cancel or terminate it if it has to end.")));
			break;
		case DTX_VERDICT_COMMIT:
			decided = DTX_COMMIT;
			break;
		case DTX_VERDICT_ROLLBACK:
			decided = DTX_ROLLBACK;
			break;
		case DTX_VERDICT_FORGED:
		case DTX_VERDICT_OTHER_INSTANCE:
			if (!override)
				ereport(ERROR,
						(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
						 errmsg("prepared transaction \"%s\" must not be finished by this server",
								gid_text),
						 errdetail("Reason: %s.",
								   DtxVerdictReason(verdict, DtxGidDecidedElsewhere(&gid) ?
													NULL : &facts)),
						 errhint("Pass override => true to do it nevertheless.")));
			break;
		case DTX_VERDICT_WAIT:
			if (!override)
				throw_decider_not_asked(gid_text, &gid, known ? &entry : NULL);
			break;
		case DTX_VERDICT_UNKNOWN:
			break;
	}
	check_contradiction(gid_text, decision, decided, override);

	if (known)
	{
		serverid = entry.serverid;
		umid = entry.umid;
		if (DtxServerName(serverid) == NULL)
		{
			forget_dropped(&gid, decision, decided, row, reason, by_user);
			DtxStatsAdd(DTX_STAT_FORCED, 1);
			PG_RETURN_VOID();
		}
	}
	else
	{
		serverid = server_holding(gid_text, &gid, row);
		umid = InvalidOid;
		if (row != NULL && gid.n <= row->nparticipants &&
			row->prepared[gid.n - 1].serverid == serverid)
			umid = row->prepared[gid.n - 1].umid;
	}
	server = DtxServerName(serverid);
	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server with OID %u does not exist", serverid)));

	if (known && override)
	{
		Forced		forced = {server, decided, reason, by_user};
		ErrorData  *error = try_finish(serverid, usable_mapping(umid, serverid),
									   gid_text, decision, 0, &forced);

		/*
		 * The server was asked and does not have it: a human says that this
		 * is the end.  A server that could not be asked may have it yet.
		 */
		if (error != NULL && error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT)
		{
			if (error->sqlerrcode == ERRCODE_SQLCLIENT_UNABLE_TO_ESTABLISH_SQLCONNECTION &&
				error->hint == NULL)
				error->hint = psprintf("If the server is lost for good, drop the foreign server \"%s\", and call dtx.force_in_doubt() again.",
									   server);
			ReThrowError(error);
		}
		if (error != NULL)
		{
			forget_dropped(&gid, decision, decided, row, reason, by_user);
			DtxStatsAdd(DTX_STAT_FORCED, 1);
			PG_RETURN_VOID();
		}
	}
	else
	{
		audit(gid_text, server, decision, decided, reason, by_user);
		DtxFinishGid(serverid, usable_mapping(umid, serverid), gid_text,
					 decision, known ? entry.system_id : 0, InvalidOid);
	}

	/* Nothing can undo it now, so say so before anything else can fail. */
	DtxInDoubtRemove(&gid);
	DtxStatsAdd(DTX_STAT_FORCED, 1);
	ereport(LOG,
			(errmsg("user \"%s\" forced %s of prepared transaction \"%s\" on server \"%s\"",
					by_user, DtxDecisionName(decision), gid_text, server),
			 errdetail("The recorded decision is %s. Reason: %s",
					   DtxDecisionName(decided), reason)));
	DtxLauncherWakeResolver(MyDatabaseId);

	PG_RETURN_VOID();
}

/*
 * What is known of a gid about which a server decides: what the resolver has found out
 * ("entry" of the in-doubt table, or NULL).
 */
static DtxVerdict
judge_decided(DtxWitness *witness, const DtxSighting *sighting, const DtxInDoubt *entry)
{
	DtxDecidedFacts facts;

	DtxWitnessDecidedFacts(witness, sighting, &facts);
	if (entry != NULL && entry->decision != DTX_UNDECIDED)
		facts.outcome = entry->decision == DTX_COMMIT ?
			DTX_OUTCOME_COMMITTED : DTX_OUTCOME_ABORTED;
	return DtxJudgeDecided(&facts);
}

/*
 * Nothing is presumed of a transaction that a server decides.
 */
static void
throw_decider_not_asked(const char *gid_text, const DtxGid *gid, const DtxInDoubt *entry)
{
	const char *name = DtxServerName(gid->decider.serverid);

	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 name != NULL ?
			 errmsg("server \"%s\" decides about prepared transaction \"%s\", and has not said how",
					name, gid_text) :
			 errmsg("a server that is not known any more decides about prepared transaction \"%s\"",
					gid_text),
			 entry != NULL && entry->last_error[0] != '\0' &&
			 !OidIsValid(entry->error_umid) ?
			 errdetail("Reason: %s.", entry->last_error) : 0,
			 errhint("The resolver asks it. Pass override => true if it will never answer.")));
}

static DtxDecision
parse_decision(const char *text)
{
	if (strcmp(text, "commit") == 0)
		return DTX_COMMIT;
	if (strcmp(text, "rollback") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid decision: \"%s\"", text),
				 errhint("Valid decisions are \"commit\" and \"rollback\".")));
	return DTX_ROLLBACK;
}

/*
 * Throw if a gid belongs to another coordinator or to another database of this
 * one.  Its decision is recorded there, and here it would look like rollback.
 */
static void
check_own_gid(const char *text, const DtxGid *gid)
{
	char	   *database;

	if (gid->coordinator_id != DtxCoordinatorId())
	{
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prepared transaction \"%s\" belongs to another coordinator",
						text),
				 errhint("Connect to the database whose table \"dtx_internal.coordinator\" has that identifier.")));
	}
	if (gid->dbid != MyDatabaseId)
	{
		database = get_database_name(gid->dbid);
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("prepared transaction \"%s\" belongs to another database",
						text),
				 database ? errhint("Connect to database \"%s\".", database) : 0));
	}
}

/*
 * Throw if a human wants something else than what was decided, and did not say
 * that this is what he wants.
 */
static void
check_contradiction(const char *gid, DtxDecision decision, DtxDecision decided,
					bool override)
{
	if (decision == decided || decided == DTX_UNDECIDED || override)
		return;

	if (decided == DTX_COMMIT)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prepared transaction \"%s\" must not be rolled back", gid),
				 errdetail("Its transaction has committed. Rolling it back on one server would leave the transaction half done."),
				 errhint("Pass override => true to do it nevertheless.")));
	else
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("prepared transaction \"%s\" must not be committed", gid),
				 errdetail("Its transaction has been rolled back: no decision to commit is recorded. Committing it on one server would leave the transaction half done."),
				 errhint("Pass override => true to do it nevertheless.")));
}

/*
 * Look for a gid that is not known to be in doubt, on all servers.  Throws if
 * it is on none of them.
 */
static Oid
server_holding(const char *gid_text, const DtxGid *gid,
			   const DtxDecisionRow *row)
{
	List	   *servers = DtxFindGid(gid_text);

	if (servers == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("prepared transaction \"%s\" was not found on any server",
						gid_text),
				 errdetail("It has been finished already, or its server could not be asked.")));

	/* Several servers may lead to one database; prefer the one that was used. */
	if (row != NULL && gid->n <= row->nparticipants &&
		list_member_oid(servers, row->prepared[gid->n - 1].serverid))
		return row->prepared[gid->n - 1].serverid;
	return linitial_oid(servers);
}

/*
 * A user mapping that was in use, if it still is one of this server.
 */
static Oid
usable_mapping(Oid umid, Oid serverid)
{
	Oid			result = InvalidOid;
	HeapTuple	tuple;

	if (!OidIsValid(umid))
		return InvalidOid;
	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(umid));
	if (HeapTupleIsValid(tuple))
	{
		if (((Form_pg_user_mapping) GETSTRUCT(tuple))->umserver == serverid)
			result = umid;
		ReleaseSysCache(tuple);
	}
	return result;
}

/*
 * The server of a gid was dropped, and a human says that this is the end of it.
 *
 * A decision to commit is one row for all participants of the transaction.  It
 * may go only when nobody needs it any more, so all participants whose servers
 * still exist are committed first, or this throws.  Those whose servers were
 * dropped as well are forgotten together with this one.
 */
static void
forget_dropped(const DtxGid *gid, DtxDecision decision,
			   DtxDecision decided, const DtxDecisionRow *row, const char *reason,
			   const char *by_user)
{
	List	   *forgotten = list_make1_int((int) gid->n);
	ListCell   *lc;

	if (row != NULL)
	{
		for (int i = 0; i < row->nparticipants; i++)
		{
			DtxGid		other = *gid;
			char text[	DTX_GID_SIZE];

			other.n = (uint32) i + 1;
			if (other.n == gid->n)
				continue;
			DtxSeal(&other);
			DtxGidFormat(&other, text);
			if (DtxServerName(row->prepared[i].serverid) != NULL)
				confirm_commit(row->prepared[i].serverid, text,
							   row->prepared[i].system_id);
			else
				forgotten = lappend_int(forgotten, (int) other.n);
		}
	}

	foreach(lc, forgotten)
	{
		DtxGid		which = *gid;
		char text[	DTX_GID_SIZE];

		which.n = (uint32) lfirst_int(lc);
		DtxSeal(&which);
		DtxGidFormat(&which, text);
		audit(text, NULL, decision, decided, reason, by_user);
		ereport(NOTICE,
				(errmsg("prepared transaction \"%s\" is forgotten", text),
				 decision == DTX_COMMIT ?
				 errdetail("It is not to be found. If a foreign server ever leads to where it is prepared, it is committed there.") :
				 errdetail("It is not to be found. If a foreign server ever leads to where it is prepared, it is rolled back there.")));
		ereport(LOG,
				(errmsg("user \"%s\" forced prepared transaction \"%s\" to be forgotten",
						by_user, text),
				 errdetail("It is not to be found. The recorded decision is %s. Reason: %s",
						   DtxDecisionName(decided), reason)));
	}

	if (row != NULL && !DtxActivityOwnsRow(row->boot_id, row->xid))
		(void) DtxDecisionDelete(row);

	/* Last: if something above failed, the entries stay. */
	foreach(lc, forgotten)
	{
		DtxGid		which = *gid;

		which.n = (uint32) lfirst_int(lc);
		DtxSeal(&which);
		DtxInDoubtRemove(&which);
	}
}

/*
 * Make sure that a participant of a transaction that has committed is committed
 * on its server.  Throws if that cannot be done or found out now.
 *
 * "Does not exist" is proof here: a transaction commits only after all its
 * PREPAREs have succeeded, so none can arrive later.
 */
static void
confirm_commit(Oid serverid, const char *gid, uint64 system_id)
{
	ErrorData  *error = try_finish(serverid, InvalidOid, gid, DTX_COMMIT,
								   system_id, NULL);

	/* Not from a server of which it is not known whether it is that one. */
	if (error != NULL &&
		(error->sqlerrcode != ERRCODE_UNDEFINED_OBJECT || system_id == 0))
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("the decision to commit cannot be forgotten yet"),
				 errdetail("Prepared transaction \"%s\" on server \"%s\" could not be committed: %s",
						   gid, DtxServerName(serverid), error->message),
				 errhint("Try again when that server can be reached.")));
}

/*
 * DtxFinishGid() in a subtransaction, and before that, unless it is NULL, the row
 * in dtx_internal.forced_record.  Returns the error in the current memory context, or NULL.
 */
static ErrorData *
try_finish(Oid serverid, Oid umid, const char *gid, DtxDecision decision,
		   uint64 system_id, const Forced *forced)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		if (forced != NULL)
			audit(gid, forced->server, decision, forced->decided,
				  forced->reason, forced->by_user);
		DtxFinishGid(serverid, umid, gid, decision, system_id, InvalidOid);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Insert a row into dtx_internal.forced_record.  server is NULL if it was dropped.
 */
static void
audit(const char *gid, const char *server, DtxDecision decision,
	  DtxDecision decided, const char *reason, const char *by_user)
{
	Oid			types[7] = {TEXTOID, NAMEOID, TEXTOID, TEXTOID, BOOLOID,
	TEXTOID, NAMEOID};
	Datum		values[7];
	char		nulls[8] = "       ";

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	values[0] = CStringGetTextDatum(gid);
	if (server != NULL)
		values[1] = DtxNameValue(server);
	else
		nulls[1] = 'n';
	values[2] = CStringGetTextDatum(DtxDecisionName(decision));
	values[3] = CStringGetTextDatum(DtxDecisionName(decided));
	values[4] = BoolGetDatum(decision != decided && decided != DTX_UNDECIDED);
	values[5] = CStringGetTextDatum(reason);
	values[6] = DtxNameValue(by_user);
	if (SPI_execute_with_args("INSERT INTO dtx_internal.forced_record (gid, server, decision, decided, contradicted, reason, by_user, at)"
							  " VALUES ($1, $2, $3, $4, $5, $6, $7, pg_catalog.clock_timestamp())",
							  7, types, values, nulls, false, 0) != SPI_OK_INSERT)
		elog(ERROR, "could not insert into dtx_internal.forced_record");
	SPI_finish();
}

PG_FUNCTION_INFO_V1(dtx_sql_acknowledge);

/*
 * dtx.acknowledge_damage(gid, reason): a human has seen it.
 *
 * SECURITY DEFINER for the same reason as dtx.force_in_doubt(); the human is the session
 * user.
 */
Datum
dtx_sql_acknowledge(PG_FUNCTION_ARGS)
{
	Oid			types[3] = {TEXTOID, NAMEOID, TEXTOID};
	Datum		values[3];
	NameData	name;
	char	   *by_user = GetUserNameFromId(GetSessionUserId(), false);
	char	   *gid;
	char	   *reason;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of %s must not be null",
						"dtx.acknowledge_damage()")));
	gid = text_to_cstring(PG_GETARG_TEXT_PP(0));
	reason = DtxReason(PG_GETARG_TEXT_PP(1), "dtx.acknowledge_damage()",
					   "table \"dtx_internal.damage_record\"");

	PreventCommandIfReadOnly("dtx.acknowledge_damage()");

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	namestrcpy(&name, by_user);
	values[0] = CStringGetTextDatum(gid);
	values[1] = NameGetDatum(&name);
	values[2] = CStringGetTextDatum(reason);
	if (SPI_execute_with_args("UPDATE dtx_internal.damage_record"
							  " SET acknowledged_at = pg_catalog.clock_timestamp(),"
							  " acknowledged_by = $2, reason = $3"
							  " WHERE gid OPERATOR(pg_catalog.=) $1"
							  " AND acknowledged_at IS NULL",
							  3, types, values, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not update dtx_internal.damage_record");
	if (SPI_processed == 0)
	{
		if (SPI_execute_with_args("SELECT FROM dtx_internal.damage_record"
								  " WHERE gid OPERATOR(pg_catalog.=) $1",
								  1, types, values, NULL, false, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not read dtx_internal.damage_record");
		if (SPI_processed > 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("damage of prepared transaction \"%s\" is acknowledged already",
							gid)));
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no damage of prepared transaction \"%s\" is known", gid),
				 errhint("View \"dtx.damage\" shows what there is to acknowledge.")));
	}
	SPI_finish();

	ereport(LOG,
			(errmsg("user \"%s\" acknowledged damage of prepared transaction \"%s\"",
					by_user, gid),
			 errdetail("Reason: %s", reason)));
	PG_RETURN_VOID();
}
