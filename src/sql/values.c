/*-------------------------------------------------------------------------
 *
 * values.c
 *		Values in rows of functions, as their columns show them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/encoding.h"
#include "base/gid.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "sql/values.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/palloc.h"

/* As it is shown in views; a constant. */
const char *
DtxDecisionName(DtxDecision decision)
{
	return decision == DTX_COMMIT ? "commit" :
		decision == DTX_ROLLBACK ? "rollback" : "unknown";
}

/*
 * Name of a foreign server, NULL if there is none with this OID.  In a transaction; in
 * the current memory context.
 */
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
 * A name as a Datum.  Longer ones are cut.  In the current memory context.
 */
Datum
DtxNameValue(const char *name)
{
	return DirectFunctionCall1(namein, CStringGetDatum(name));
}

/*
 * A text from shared memory as a Datum.  It may come from another machine, or have been
 * cut anywhere: what is not text in this database's encoding must not get into a
 * query's result.  In the current memory context.
 */
Datum
DtxTextValue(const char *text)
{
	int			size = strlen(text) + 1;
	char	   *copy = palloc(size);

	DtxTextClip(copy, text, size);
	DtxTextMakeValid(copy);
	return CStringGetTextDatum(copy);
}

/*
 * A server's version number as its own server_version begins.  In the current memory
 * context.
 */
char *
DtxVersionText(int version)
{
	if (version >= 100000)
		return psprintf("%d.%d", version / 10000, version % 10000);
	return psprintf("%d.%d.%d", version / 10000, version / 100 % 100,
					version % 100);
}

/*
 * The reason that a human has given for what "function" does and what is kept in
 * "kept_in", as a palloc'd text.  Throws ERRCODE_NULL_VALUE_NOT_ALLOWED or
 * ERRCODE_INVALID_PARAMETER_VALUE if there is none.
 */
char *
DtxReason(text *reason, const char *function, const char *kept_in)
{
	char	   *result;

	if (reason == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("arguments of %s must not be null", function)));
	result = text_to_cstring(reason);
	if (result[strspn(result, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a reason must be given"),
				 errhint("It is kept in the %s.", kept_in)));
	return result;
}
