/*-------------------------------------------------------------------------
 *
 * target.c
 *		How to connect to a foreign server through a user mapping: options, and where they lead.
 *
 * A connection is made with the same options as postgres_fdw would use for the same server
 * and user mapping, and under the same condition: a mapping of a user who is not a superuser
 * must bring a password, and the server must have asked for it.  Otherwise its owner would
 * borrow the identity of the operating-system user that runs this server
 * (contrib/postgres_fdw/connection.c, check_conn_params and pgfdw_security_check).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/reloptions.h"
#include "base/settings.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "net/target.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "state/identity.h"
#include "utils/palloc.h"
#include "utils/syscache.h"

/* Longest time to connect if the server has no option connect_timeout, ms. */
#define CONNECT_TIMEOUT			10000

static bool mapping_read(Oid umid, Oid *serverid, Oid *userid, List **options);
static bool is_libpq_option(const char *keyword);
static int	extract_options(List *options, const char **keywords,
							const char **values);
static bool is_endpoint_option(const char *keyword);
static int	by_text(const ListCell *a, const ListCell *b);
static uint64 hash_place(List *options);

/*
 * Read a user mapping.  Returns false if it does not exist (any more).
 */
static bool
mapping_read(Oid umid, Oid *serverid, Oid *userid, List **options)
{
	HeapTuple	tuple;
	Form_pg_user_mapping form;
	Datum		datum;
	bool		isnull;

	tuple = SearchSysCache1(USERMAPPINGOID, ObjectIdGetDatum(umid));
	if (!HeapTupleIsValid(tuple))
		return false;
	form = (Form_pg_user_mapping) GETSTRUCT(tuple);
	*serverid = form->umserver;
	*userid = form->umuser;
	datum = SysCacheGetAttr(USERMAPPINGOID, tuple,
							Anum_pg_user_mapping_umoptions, &isnull);
	*options = isnull ? NIL : untransformRelOptions(datum);
	ReleaseSysCache(tuple);
	return true;
}

/*
 * The value of an option of a user mapping, palloc'd, or NULL.  To be called in a
 * transaction.  NULL, too, if there is no such mapping.
 */
char *
DtxMappingOption(Oid umid, const char *name)
{
	Oid			serverid;
	Oid			userid;
	List	   *options;
	ListCell   *lc;

	if (!mapping_read(umid, &serverid, &userid, &options))
		return NULL;
	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, name) == 0)
			return pstrdup(defGetString(def));
	}
	return NULL;
}

/*
 * Is this an option that postgres_fdw hands on to libpq?  The rule is that of
 * contrib/postgres_fdw/option.c, InitPgFdwOptions; the validator has already
 * refused the others, except those of postgres_fdw's own.
 */
static bool
is_libpq_option(const char *keyword)
{
	static PQconninfoOption *all = NULL;

	if (all == NULL)
	{
		/* malloc'd, and kept for the life of the process */
		all = PQconndefaults();
		if (all == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_OUT_OF_MEMORY),
					 errmsg("out of memory")));
	}

	for (PQconninfoOption *option = all; option->keyword; option++)
	{
		if (strcmp(option->keyword, keyword) == 0)
			return (strchr(option->dispchar, 'D') == NULL ||
					strcmp(keyword, "gssdelegation") == 0) &&
				strcmp(keyword, "fallback_application_name") != 0 &&
				strcmp(keyword, "client_encoding") != 0 &&
				strncmp(keyword, "oauth_", strlen("oauth_")) != 0;
	}
	return false;
}

static int
extract_options(List *options, const char **keywords, const char **values)
{
	ListCell   *lc;
	int			n = 0;

	foreach(lc, options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (is_libpq_option(def->defname))
		{
			keywords[n] = pstrdup(def->defname);
			values[n] = pstrdup(defGetString(def));
			n++;
		}
	}
	return n;
}

/*
 * Does an option say where a connection leads, as whom, and how the other side is
 * made sure of?  Passwords change without that, and what is left out here changes
 * nothing but the manner of waiting.
 */
static bool
is_endpoint_option(const char *keyword)
{
	static const char *const others[] = {
		"password", "sslpassword", "application_name", "connect_timeout",
		"keepalives", "keepalives_idle", "keepalives_interval",
		"keepalives_count", "tcp_user_timeout"
	};

	for (int i = 0; i < lengthof(others); i++)
	{
		if (strcmp(keyword, others[i]) == 0)
			return false;
	}
	return is_libpq_option(keyword);
}

static int
by_text(const ListCell *a, const ListCell *b)
{
	return strcmp((const char *) lfirst(a), (const char *) lfirst(b));
}

/*
 * Where a foreign server and a user mapping lead: their options of that kind, in
 * whatever order they stand, as a text in the current memory context.  Throws if out of
 * memory.
 */
char *
DtxEndpointText(List *server_options, List *mapping_options)
{
	List	   *lists[2] = {server_options, mapping_options};
	List	   *options = NIL;
	StringInfoData text;
	ListCell   *lc;

	for (int i = 0; i < lengthof(lists); i++)
	{
		foreach(lc, lists[i])
		{
			DefElem    *def = (DefElem *) lfirst(lc);
			const char *value = defGetString(def);

			if (is_endpoint_option(def->defname))
				options = lappend(options,
								  psprintf("%d %s %zu:%s", i, def->defname,
										   strlen(value), value));
		}
	}
	list_sort(options, by_text);

	initStringInfo(&text);
	appendStringInfoString(&text, "endpoint");
	foreach(lc, options)
		appendStringInfo(&text, " %s", (const char *) lfirst(lc));
	list_free_deep(options);
	return text.data;
}

/*
 * A hash of such a text, never 0.  It decides where passwords may be sent, so nobody
 * may be able to find other options with the same one: it is keyed.  In a transaction
 * in which catalogs can be read, where the extension is installed; throws what
 * DtxKeyedHash() does.
 */
uint64
DtxEndpoint(const char *text)
{
	uint64		result = DtxKeyedHash(text, strlen(text));

	return result != 0 ? result : 1;
}

/*
 * A hash of the addresses that a server's options name.
 */
static uint64
hash_place(List *options)
{
	static const char *const names[] = {"servicefile", "service", "host", "hostaddr", "port"};
	StringInfoData text;
	ListCell   *lc;
	uint64		result;

	initStringInfo(&text);
	for (int i = 0; i < lengthof(names); i++)
	{
		foreach(lc, options)
		{
			DefElem    *def = (DefElem *) lfirst(lc);

			if (strcmp(def->defname, names[i]) == 0)
				appendStringInfo(&text, "%d %s ", i, defGetString(def));
		}
	}
	result = DatumGetUInt64(hash_any_extended((const unsigned char *) text.data,
											  text.len, 0));
	pfree(text.data);
	return result;
}

/*
 * Make a target from a foreign server and one of its user mappings.
 *
 * "attempt" is the number of visits that have failed so far: if the server has
 * several hosts or addresses, they are tried from another one on each time.  libpq would
 * need a deadline of its own per host to get past one that does not answer,
 * and only its blocking functions have that.
 *
 * "on_behalf_of" is the user who wants the connection, InvalidOid for a resolver.
 *
 * To be called in a transaction.  The result is in the current memory context.  Does
 * not throw if the server or the mapping cannot be used or is gone: "error" is set
 * then.  Throws what DtxEndpoint() does.
 */
DtxTarget *
DtxTargetMake(Oid serverid, Oid umid, int attempt, Oid on_behalf_of)
{
	DtxTarget  *target = palloc0(sizeof(DtxTarget));
	ForeignServer *server;
	Oid			um_serverid;
	Oid			um_userid;
	List	   *um_options;
	ListCell   *lc;
	bool		password_required = true;
	bool		have_password = false;
	bool		entitled;
	bool		requires_auth = false;
	int			n;

	target->serverid = serverid;
	target->umid = umid;
	target->attempt = attempt;
	target->connect_timeout = CONNECT_TIMEOUT;

	server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	if (server == NULL)
	{
		target->servername = psprintf("%u", serverid);
		target->error = psprintf("foreign server with OID %u was dropped",
								 serverid);
		return target;
	}
	target->servername = server->servername;

	if (!mapping_read(umid, &um_serverid, &um_userid, &um_options) ||
		um_serverid != serverid)
	{
		target->error = psprintf("user mapping with OID %u was dropped", umid);
		return target;
	}

	target->options_text = DtxEndpointText(server->options, um_options);
	target->endpoint = DtxEndpoint(target->options_text);
	target->place = hash_place(server->options);
	target->trusted = superuser_arg(server->owner);

	/*
	 * Room for fallback_application_name, client_encoding, require_auth, and
	 * the end.
	 */
	n = list_length(server->options) + list_length(um_options) + 4;
	target->keywords = palloc0(n * sizeof(char *));
	target->values = palloc0(n * sizeof(char *));

	/* Those of the mapping come last: libpq takes the last of its kind. */
	n = extract_options(server->options, target->keywords, target->values);
	n += extract_options(um_options, target->keywords + n, target->values + n);
	target->keywords[n] = "fallback_application_name";
	target->values[n++] = "pg_dtx";
	target->keywords[n] = "client_encoding";
	target->values[n++] = GetDatabaseEncodingName();
	target->keywords[n] = target->values[n] = NULL;

	for (int i = 0; i < n; i++)
	{
		if (strcmp(target->keywords[i], "require_auth") == 0)
			requires_auth = true;
		else if (strcmp(target->keywords[i], "user") == 0)
			target->user = unconstify(char *, target->values[i]);
		else if (strcmp(target->keywords[i], "password") == 0)
			have_password = target->values[i][0] != '\0';
		else if (strcmp(target->keywords[i], "connect_timeout") == 0)
		{
			/* libpq rounds 1 up to 2 and takes 0 and less for "forever" */
			int			seconds = atoi(target->values[i]);

			if (seconds > 0)
				target->connect_timeout = Min(CONNECT_TIMEOUT,
											  Max(seconds, 2) * 1000);
		}
	}

	foreach(lc, um_options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, "password_required") == 0)
			password_required = defGetBoolean(def);
	}

	/*
	 * The author of the options must be entitled to this server's own
	 * identity, or bring a password.  For a user's mapping that is the user;
	 * postgres_fdw asks the same.  For a PUBLIC mapping postgres_fdw asks who
	 * is connecting.
	 *
	 * A resolver connects though nobody has asked for it, and the owner of
	 * the server may make mappings for anybody (commands/foreigncmds.c,
	 * user_mapping_ddl_aclcheck): a superuser's, too, without a password, and
	 * to wherever he likes.  So the owner must be entitled as well.
	 */
	entitled = superuser_arg(OidIsValid(um_userid) ? um_userid :
							 OidIsValid(on_behalf_of) ? on_behalf_of :
							 server->owner);
	if (!OidIsValid(on_behalf_of))
		entitled = entitled && target->trusted;
	target->need_password = password_required && !entitled;

	/*
	 * A service file may name an LDAP server, which libpq asks at once and
	 * waits for (fe-connect.c, ldapServiceLookup).
	 */
	foreach(lc, server->options)
	{
		if (strcmp(((DefElem *) lfirst(lc))->defname, "servicefile") == 0 &&
			!superuser_arg(server->owner))
			target->error = pstrdup("only a server that belongs to a superuser may have option \"servicefile\"");
	}
	if (target->need_password && !have_password)
		target->error = OidIsValid(um_userid) && superuser_arg(um_userid) ?
			pstrdup("password is required: a user mapping of a server whose owner is not a superuser must contain a password") :
			pstrdup("password is required: a user mapping of a role that is not a superuser must contain a password");

	/*
	 * How a resolver proves who it is, if neither server nor mapping say so;
	 * what users' sessions do is their own affair.
	 */
	if (!OidIsValid(on_behalf_of) && !requires_auth &&
		dtx_resolver_require_auth != NULL && dtx_resolver_require_auth[0] != '\0')
	{
		if (is_libpq_option("require_auth"))
		{
			target->keywords[n] = "require_auth";
			target->values[n++] = pstrdup(dtx_resolver_require_auth);
			target->keywords[n] = target->values[n] = NULL;
		}
		else if (target->error == NULL)
			target->error = pstrdup("\"pg_dtx.resolver_require_auth\" is set, but this version of libpq does not know require_auth (PostgreSQL 16 or later)");
	}

	return target;
}

/*
 * In the current memory context, what DtxTargetSame() looks at.
 */
DtxTarget *
DtxTargetCopy(const DtxTarget *target)
{
	DtxTarget  *copy = palloc0(sizeof(DtxTarget));
	int			n = 0;

	while (target->keywords[n] != NULL)
		n++;
	copy->serverid = target->serverid;
	copy->umid = target->umid;
	copy->need_password = target->need_password;
	copy->keywords = palloc0((n + 1) * sizeof(char *));
	copy->values = palloc0((n + 1) * sizeof(char *));
	for (int i = 0; i < n; i++)
	{
		copy->keywords[i] = pstrdup(target->keywords[i]);
		copy->values[i] = pstrdup(target->values[i]);
	}
	return copy;
}

/*
 * Do both lead to the same place as the same user, under the same condition?
 */
bool
DtxTargetSame(const DtxTarget *a, const DtxTarget *b)
{
	int			i = 0;

	if (a->serverid != b->serverid || a->umid != b->umid ||
		a->need_password != b->need_password)
		return false;
	for (; a->keywords[i] != NULL && b->keywords[i] != NULL; i++)
	{
		if (strcmp(a->keywords[i], b->keywords[i]) != 0 ||
			strcmp(a->values[i], b->values[i]) != 0)
			return false;
	}
	return a->keywords[i] == NULL && b->keywords[i] == NULL;
}
