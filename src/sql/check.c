/*-------------------------------------------------------------------------
 *
 * check.c
 *		dtx.check_server(): what a server lacks for taking part in distributed transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "commit/fdw_library.h"
#include "commit/fdw_session.h"
#include "exec/api.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "resolve/api.h"
#include "resolve/visit.h"
#include "sql/values.h"
#include "state/in_doubt.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/palloc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Oldest server that can say whether a transaction wrote there. */
#define OLDEST_REMOTE_VERSION	100000

static void add_check(ReturnSetInfo *rsinfo, const char *check, int ok,
					  char *detail, const char *hint);
static void check_session(ReturnSetInfo *rsinfo, const DtxProbe *probe);
static void note_status(ForeignServer *server, Oid umid, const DtxProbe *probe,
						uint64 seen_changes);
static int	session_seen(ForeignServer *server, int *max_connections,
						 const char **error);
static char *clashing_servers(ForeignServer *server);
static bool same_database(List *options1, List *options2);
static const char *server_option(List *options, const char *name,
								 const char *missing);

/*
 * Add a row to the result.  ok: 1 yes, 0 no, -1 not known.  The hint is shown
 * only where something has to be done.
 */
static void
add_check(ReturnSetInfo *rsinfo, const char *check, int ok, char *detail,
		  const char *hint)
{
	Datum		values[4];
	bool		nulls[4] = {0};

	values[0] = CStringGetTextDatum(check);
	values[1] = BoolGetDatum(ok > 0);
	nulls[1] = ok < 0;
	if (detail != NULL)
		values[2] = DtxTextValue(detail);
	else
		nulls[2] = true;
	if (hint != NULL && ok <= 0)
		values[3] = CStringGetTextDatum(hint);
	else
		nulls[3] = true;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/*
 * What depends on how the server is set up for the session's user.
 */
static void
check_session(ReturnSetInfo *rsinfo, const DtxProbe *probe)
{
	if (!probe->has_session)
	{
		const char *unknown = "not known, because the server did not tell";

		add_check(rsinfo, "reserved connections", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "synchronous standbys", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "statement statistics", -1, pstrdup(unknown), NULL);
		return;
	}

	/* Not to be had everywhere, so what is merely not reserved is no failure. */
	add_check(rsinfo, "reserved connections",
			  probe->reserved ? 1 :
			  probe->role_limit >= 0 || probe->database_limit >= 0 ? 0 : -1,
			  probe->reserved ?
			  psprintf("\"%s\" may use reserved connections", probe->remote_user) :
			  probe->role_limit >= 0 ?
			  psprintf("\"%s\" may have %d connections", probe->remote_user,
					   probe->role_limit) :
			  probe->database_limit >= 0 ?
			  psprintf("database \"%s\" may have %d connections", probe->database,
					   probe->database_limit) :
			  psprintf("no connection is reserved for \"%s\"", probe->remote_user),
			  "Sessions that wait for what is in doubt can take all connections, and keep the resolver from finishing it unless it has kept one. Grant pg_use_reserved_connections to the role and set \"reserved_connections\" there (PostgreSQL 16 or later), or create a user mapping for a superuser.");
	add_check(rsinfo, "synchronous standbys",
			  !probe->has_standbys || probe->has_witness,
			  pstrdup(!probe->has_standbys ? "the server has none" :
					  probe->has_witness ?
					  "the server has some, and can be asked whether they have what it has committed" :
					  "the server has some, and cannot be asked whether they have what it has committed"),
			  psprintf("A commit whose wait for the standby was canceled stays in doubt. Grant USAGE on language plpgsql and EXECUTE on pg_logical_emit_message() to \"%s\" there (PostgreSQL 11 or later).",
					   probe->remote_user));
	add_check(rsinfo, "statement statistics",
			  !probe->counts_utilities || probe->version >= 170000,
			  pstrdup(!probe->counts_utilities ?
					  "pg_stat_statements does not count utility statements there" :
					  probe->version >= 170000 ?
					  "pg_stat_statements takes commands on prepared transactions together" :
					  "pg_stat_statements fills with one entry for each prepared transaction"),
			  "Set \"pg_stat_statements.track_utility\" to off there, at least for the role of the user mapping (ALTER ROLE ... SET), or use PostgreSQL 17 or later.");
}

PG_FUNCTION_INFO_V1(dtx_sql_check_server);

/*
 * dtx.check_server(server, role): is everything there that a commit in two phases
 * needs?  Visits the server with the mapping of a role, who needs USAGE on it.
 *
 * The caller must have the privileges of the role.  That of another role is used only
 * on servers of superusers: the owner of a server learns the passwords that are brought
 * there, and must not get them by having others check (superusers can check for
 * everybody).
 */
Datum
dtx_sql_check_server(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = NameStr(*PG_GETARG_NAME(0));
	ForeignServer *server = GetForeignServerByName(name, false);
	Oid			userid = get_role_oid(NameStr(*PG_GETARG_NAME(1)), false);
	bool		other_role = userid != GetUserId();
	bool		visit;
	AclResult	aclresult;
	HeapTuple	mapping;
	DtxProbe	probe;
	const char *unknown = "not known, because the server was not reached";
	char	   *clashes;
	const char *seen_error = NULL;
	bool		is_public = false;
	int			max_connections = 0;
	int			seen;

	if (other_role && !has_privs_of_role(GetUserId(), userid))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to check a server for role \"%s\"",
						GetUserNameFromId(userid, false)),
				 errdetail("Only roles with the privileges of role \"%s\" may use its user mapping.",
						   GetUserNameFromId(userid, false))));
	aclresult = DtxForeignServerAclcheck(server->serverid, GetUserId(), ACL_USAGE);
	if (aclresult != ACLCHECK_OK)
		aclcheck_error(aclresult, OBJECT_FOREIGN_SERVER, server->servername);
	visit = !other_role || superuser_arg(server->owner);
	if (!DtxWrapperIsPostgresFdw(server->fdwid))
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" is not a server of postgres_fdw",
						server->servername)));

	InitMaterializedSRF(fcinfo, 0);

	mapping = SearchSysCache2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							  ObjectIdGetDatum(server->serverid));
	if (!HeapTupleIsValid(mapping))
		mapping = SearchSysCache2(USERMAPPINGUSERSERVER,
								  ObjectIdGetDatum(InvalidOid),
								  ObjectIdGetDatum(server->serverid));
	memset(&probe, 0, sizeof(probe));
	if (HeapTupleIsValid(mapping))
	{
		Oid			umid = ((Form_pg_user_mapping) GETSTRUCT(mapping))->oid;
		uint64		seen_changes = DtxServerChanges();

		is_public = !OidIsValid(((Form_pg_user_mapping) GETSTRUCT(mapping))->umuser);
		ReleaseSysCache(mapping);
		if (visit)
		{
			DtxProbeServer(server->serverid, userid, &probe);
			note_status(server, umid, &probe, seen_changes);
		}
	}

	/*
	 * A session of postgres_fdw is one of the current user.  It would wait
	 * for what we have waited for, and without end.
	 */
	if (other_role && DtxFdwLibraryCallsUs(DtxWrapperHandler(server->fdwid)))
	{
		seen = -1;
		seen_error = "a session is opened for the current user only";
	}
	else if (HeapTupleIsValid(mapping) && !probe.reachable)
	{
		seen = -1;
		seen_error = "it is not reachable";
	}
	else
		seen = session_seen(server, &max_connections, &seen_error);
	add_check(rsinfo, "interposition", seen,
			  seen > 0 ? pstrdup("pg_dtx has seen postgres_fdw open a session") :
			  seen == 0 ?
			  pstrdup("postgres_fdw does not call libpq through pg_dtx") :
			  psprintf("not known, because postgres_fdw could not open a session: %s",
					   seen_error),
			  seen < 0 ? NULL :
			  "Use a postgres_fdw that is linked dynamically with libpq, with pg_dtx first in \"shared_preload_libraries\" of the coordinator. Transactions that use this server together with others are refused.");

	if (HeapTupleIsValid(mapping))
	{
		if (other_role &&
			DtxForeignServerAclcheck(server->serverid, userid, ACL_USAGE) != ACLCHECK_OK)
			add_check(rsinfo, "user mapping", 0,
					  psprintf("\"%s\" has one, but no USAGE on the server",
							   GetUserNameFromId(userid, false)),
					  "Grant it with GRANT USAGE ON FOREIGN SERVER, or drop the user mapping.");
		else
			add_check(rsinfo, "user mapping", 1,
					  is_public ? pstrdup("mapping for PUBLIC") :
					  psprintf("mapping for \"%s\"",
							   GetUserNameFromId(userid, false)),
					  NULL);

		if (!visit)
			add_check(rsinfo, "reachable", -1,
					  psprintf("not tried, because \"%s\", who owns the server and is no superuser, could learn the password",
							   GetUserNameFromId(server->owner, false)),
					  "Let the role call dtx.check_server() itself.");
		else
			add_check(rsinfo, "reachable", probe.reachable,
					  probe.reachable ?
					  psprintf("database \"%s\" as user \"%s\"",
							   probe.database, probe.remote_user) : probe.error,
					  probe.error != NULL && strncmp(probe.error, "password", 8) == 0 ?
					  "Add a password to the user mapping, or let a superuser set \"password_required\" to \"false\" in it." :
					  "Check the options of the server and of the user mapping, and that the server is running.");
	}
	else
	{
		add_check(rsinfo, "user mapping", 0,
				  psprintf("no user mapping for \"%s\"",
						   GetUserNameFromId(userid, false)),
				  "Create one with CREATE USER MAPPING.");
		add_check(rsinfo, "reachable", -1,
				  pstrdup("not tried, because there is no user mapping"), NULL);
	}

	if (probe.reachable)
	{
		add_check(rsinfo, "direct connection", probe.pooled ? -1 : 1,
				  pstrdup(probe.pooled ? "a connection pooler is in between" :
						  "no connection pooler is in between"),
				  "A pooler works in session mode only. In other modes the settings of postgres_fdw's sessions get lost, and with them the meaning of values that are exchanged.");
		add_check(rsinfo, "version", probe.version >= OLDEST_REMOTE_VERSION,
				  psprintf("PostgreSQL %s", DtxVersionText(probe.version)),
				  "A server older than PostgreSQL 10 cannot tell whether a transaction wrote there, so that even readers are prepared.");
		add_check(rsinfo, "identity",
				  probe.system_id != 0 && probe.timeline != 0,
				  probe.system_id == 0 ?
				  pstrdup("the server does not tell its system identifier") :
				  probe.timeline == 0 ?
				  pstrdup("the server does not tell its timeline") :
				  pstrdup("the server tells its system identifier and its timeline"),
				  psprintf("Grant EXECUTE on pg_control_system(), pg_current_wal_insert_lsn() and pg_walfile_name(pg_lsn) to \"%s\" there. Without them it cannot be noticed that the foreign server leads to another cluster, or that a standby was promoted.",
						   probe.remote_user));
		add_check(rsinfo, "max_prepared_transactions",
				  probe.slots_total > 0 && probe.slots_total >= max_connections,
				  max_connections > 0 ?
				  psprintf("%d, and \"max_connections\" is %d", probe.slots_total, max_connections) :
				  psprintf("%d", probe.slots_total),
				  psprintf("Set \"max_prepared_transactions\" on server \"%s\" (not on the coordinator) to at least its \"max_connections\", and restart it.",
						   server->servername));
		add_check(rsinfo, "free slots", probe.slots_total > probe.slots_used,
				  psprintf("%d of %d used", probe.slots_used,
						   probe.slots_total),
				  psprintf("Increase \"max_prepared_transactions\" on server \"%s\", or look for forgotten prepared transactions in its pg_prepared_xacts.",
						   server->servername));
	}
	else
	{
		add_check(rsinfo, "direct connection", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "version", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "identity", -1, pstrdup(unknown), NULL);
		add_check(rsinfo, "max_prepared_transactions", -1, pstrdup(unknown),
				  NULL);
		add_check(rsinfo, "free slots", -1, pstrdup(unknown), NULL);
	}
	check_session(rsinfo, &probe);

	clashes = clashing_servers(server);
	add_check(rsinfo, "one server per database", clashes == NULL,
			  clashes ?
			  psprintf("the same database is also reached through: %s",
					   clashes) : pstrdup("no other server has these options"),
			  "Transactions that use several of these servers do not see their own changes through the others, and can wait for themselves. Use one of them only.");

	if (dtx_resolver && probe.resolver_error != NULL)
		add_check(rsinfo, "resolver", 0, probe.resolver_error,
				  "The resolver cannot finish what is in doubt through this user mapping. Add a password to it, or let a superuser set \"password_required\" to \"false\" in it.");
	else
		add_check(rsinfo, "resolver", dtx_resolver,
				  psprintf("pg_dtx.resolver is %s",
						   dtx_resolver ? "on" : "off"),
				  "What is in doubt is not finished until \"pg_dtx.resolver\" is on.");

	return (Datum) 0;
}

/*
 * Let dtx.servers show what was found, if the caller is one of those who may see it, or
 * the owner of the server.  That a user mapping does not work says nothing of the server
 * if another one has worked in the same statement.
 */
static void
note_status(ForeignServer *server, Oid umid, const DtxProbe *probe, uint64 seen_changes)
{
	DtxServerStatus status;
	bool		known;

	if (!has_privs_of_role(GetUserId(), ROLE_PG_MONITOR) &&
		!has_privs_of_role(GetUserId(), server->owner))
		return;
	memset(&status, 0, sizeof(status));
	known = DtxServerStatusGet(MyDatabaseId, server->serverid, &status);
	if (!probe->reachable && known && status.reachable &&
		status.checked_at >= GetCurrentStatementStartTimestamp())
		return;
	if (!known)
	{
		status.dbid = MyDatabaseId;
		status.serverid = server->serverid;
		status.slots_used = status.slots_total = -1;
	}
	status.reachable = probe->reachable;
	status.checked_at = GetCurrentTimestamp();
	status.seen_changes = seen_changes;
	if (probe->reachable)
	{
		status.version = probe->version;
		status.slots_used = probe->slots_used;
		status.slots_total = probe->slots_total;
		status.last_error[0] = '\0';
		status.error_umid = InvalidOid;
	}
	else
	{
		strlcpy(status.last_error, probe->error, sizeof(status.last_error));
		status.error_umid = umid;
	}
	DtxServerStatusSet(&status);
}

/*
 * Let postgres_fdw open a session with the server, unless it has one, and look
 * whether we see that.  1 yes, 0 no, -1 not known, and then *error says why, in
 * the current memory context.  If yes, *max_connections receives that of the server.
 */
static int
session_seen(ForeignServer *server, int *max_connections, const char **error)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	volatile int result = 1;

	if (!DtxFdwLibraryCallsUs(DtxWrapperHandler(server->fdwid)))
		return 0;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		(void) DtxFdwSessionOpen(server->serverid);
		*max_connections = atoi(DtxRemoteAsk(server->servername,
											 "SELECT pg_catalog.current_setting('max_connections') AS value"));
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();

		/* A cancel is not about the server. */
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED)
			ReThrowError(edata);

		/* What postgres_fdw says if its questions have reached the server. */
		result = edata->sqlerrcode == ERRCODE_FDW_SCHEMA_NOT_FOUND ? 0 : -1;
		*error = edata->message;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return result;
}

/*
 * Names of other servers of postgres_fdw that lead to the same database, as far
 * as their options tell, or NULL.
 */
static char *
clashing_servers(ForeignServer *server)
{
	StringInfoData names;
	ListCell   *lc;

	initStringInfo(&names);
	foreach(lc, DtxPostgresFdwServers())
	{
		ForeignServer *other = (ForeignServer *) lfirst(lc);

		if (other->serverid == server->serverid ||
			!same_database(server->options, other->options))
			continue;

		/* The names of others' servers are not for everybody. */
		if (DtxForeignServerAclcheck(other->serverid, GetUserId(), ACL_USAGE) != ACLCHECK_OK)
			continue;
		if (names.len > 0)
			appendStringInfoString(&names, ", ");
		appendStringInfo(&names, "\"%s\"", other->servername);
	}
	return names.len > 0 ? names.data : NULL;
}

/*
 * Do two servers' options lead to the same database, for all that can be told
 * without asking a name service?
 */
static bool
same_database(List *options1, List *options2)
{
	static const char *const same[][2] = {
		{"port", DEF_PGPORT_STR}, {"dbname", ""}, {"service", ""}
	};
	const char *hostaddr1 = server_option(options1, "hostaddr", NULL);
	const char *hostaddr2 = server_option(options2, "hostaddr", NULL);

	for (int i = 0; i < lengthof(same); i++)
	{
		if (strcmp(server_option(options1, same[i][0], same[i][1]),
				   server_option(options2, same[i][0], same[i][1])) != 0)
			return false;
	}
	if (hostaddr1 != NULL && hostaddr2 != NULL)
		return strcmp(hostaddr1, hostaddr2) == 0;

	/* An address may also be given as a host. */
	if (hostaddr1 == NULL)
		hostaddr1 = server_option(options1, "host", "");
	if (hostaddr2 == NULL)
		hostaddr2 = server_option(options2, "host", "");
	return strcmp(hostaddr1, hostaddr2) == 0 ||
		strcmp(server_option(options1, "host", ""),
			   server_option(options2, "host", "")) == 0;
}

/* The value of an option, "missing" if it is not there. */
static const char *
server_option(List *options, const char *name, const char *missing)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			return defGetString(def);
	}
	return missing;
}
