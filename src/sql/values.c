/*-------------------------------------------------------------------------
 *
 * values.c
 *		Values in rows of functions, as their columns show them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/gid.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "sql/values.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/palloc.h"

const char *
DtxDecisionName(DtxDecision decision)
{
	return decision == DTX_COMMIT ? "commit" :
		decision == DTX_ROLLBACK ? "rollback" : "unknown";
}

/* Name of a foreign server, NULL if there is none with this OID. */
char *
DtxServerName(Oid serverid)
{
	ForeignServer *server;

	if (!OidIsValid(serverid))
		return NULL;
	server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	return server ? server->servername : NULL;
}

/*
 * A name as a Datum.  Longer ones are cut.
 */
Datum
DtxNameValue(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

/*
 * A text from shared memory as a Datum.  It may come from another machine, or
 * have been cut anywhere: what is not text in this database's encoding must
 * not get into a query's result.
 */
Datum
DtxTextValue(const char *text)
{
	char	   *copy = pstrdup(text);
	int			len = strlen(copy);

	/* a text that ends within a character is clipped behind its end */
	len = Min(len, pg_mbcliplen(copy, len, len));
	copy[len] = '\0';
	if (!pg_verifymbstr(copy, len, true))
	{
		for (char *p = copy; *p; p++)
		{
			if (IS_HIGHBIT_SET(*p))
				*p = '?';
		}
	}
	return CStringGetTextDatum(copy);
}

/*
 * A server's version number as its own server_version begins.
 */
char *
DtxVersionText(int version)
{
	if (version >= 100000)
		return psprintf("%d.%d", version / 10000, version % 10000);
	return psprintf("%d.%d.%d", version / 10000, version / 100 % 100,
					version % 100);
}
