/*-------------------------------------------------------------------------
 *
 * role_type.c
 *		Type dtx_internal.saga_role: a role in a table, which goes in and out as its name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/palloc.h"

/* What stands for a role that does not exist. */
#define NO_ROLE	"-"

static Oid	role_of_name(const char *name);
static const char *name_of_role(Oid role);

/*
 * The role of that name, quoted or not, or InvalidOid.
 */
static Oid
role_of_name(const char *name)
{
	char	   *unquoted = palloc(strlen(name) + 1);
	char	   *to = unquoted;
	Oid			role;

	if (strcmp(name, NO_ROLE) == 0)
		return InvalidOid;
	if (name[0] == '"')
	{
		for (const char *from = name + 1; *from != '\0'; from++)
		{
			if (*from == '"' && *++from != '"')
				break;
			*to++ = *from;
		}
		*to = '\0';
	}
	else
		strcpy(unquoted, name);

	role = strlen(unquoted) < NAMEDATALEN ? get_role_oid(unquoted, true) : InvalidOid;
	if (!OidIsValid(role))
		ereport(WARNING,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("role \"%s\" does not exist", unquoted),
				 errdetail("What was its in the tables of sagas belongs to nobody.")));
	pfree(unquoted);
	return role;
}

/*
 * The name of a role, quoted if necessary.
 */
static const char *
name_of_role(Oid role)
{
	char	   *name = OidIsValid(role) ? GetUserNameFromId(role, true) : NULL;

	return name == NULL ? NO_ROLE : quote_identifier(name);
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_role_in);

/*
 * dtx_internal.saga_role: a role that is dumped by its name.  A name that does not exist is
 * a warning and 0.
 */
Datum
dtx_sql_saga_role_in(PG_FUNCTION_ARGS)
{
	PG_RETURN_OID(role_of_name(PG_GETARG_CSTRING(0)));
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_role_out);

/* ... as it is written. */
Datum
dtx_sql_saga_role_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(pstrdup(name_of_role(PG_GETARG_OID(0))));
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_role_recv);

/* ... in binary form, which is that of an OID. */
Datum
dtx_sql_saga_role_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			nbytes;

	PG_RETURN_OID(role_of_name(pq_getmsgtext(buf, buf->len - buf->cursor, &nbytes)));
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_role_send);

/* ... likewise. */
Datum
dtx_sql_saga_role_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	const char *name = name_of_role(PG_GETARG_OID(0));

	pq_begintypsend(&buf);
	pq_sendtext(&buf, name, strlen(name));
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}
