/*-------------------------------------------------------------------------
 *
 * prepare_question.c
 *		What a server is asked, and told, right before PREPARE TRANSACTION.
 *
 * - The server tells its transaction id, from which it can tell later how the
 *	 transaction ended if it was finished from elsewhere.  One that has none yet, after
 *	 an UPDATE that found no row, gets it now rather than in PREPARE.
 * - The current role is the one as which connections through this user mapping
 *	 begin.  It will be the owner of the prepared transaction, and nobody but the
 *	 owner may finish it (access/transam/twophase.c, LockGXact).  A trigger or
 *	 function may have set another one, until the end of the transaction or longer.
 *	 (Only a superuser can have changed the session user; then any role will do.)
 * - No time-out of the session cuts short the wait of COMMIT PREPARED for a
 *	 synchronous standby (PostgreSQL turns statement_timeout off for COMMIT only), and
 *	 it says so if something else has done that, see prepare_notice() in participant.c.
 *	 This lasts beyond the transaction, and DtxPutOffTidy() takes it back.
 * - The server tells up to where its WAL will be flushed by PREPARE (state/flushed.c), if
 *	 every role may ask for that.
 *
 * To parse and plan that costs a server more than anything else in PREPARE but its
 * flush, so it is prepared once in each session (DtxConnectionAskCluster).  Where it is
 * not, or not any more, it is sent in full.  pg_catalog comes first in every name look-up
 * of postgres_fdw's sessions, but a function may have changed that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commit/prepare_question.h"

#define NAME		"dtx_prepare"
#define NAME_ANY	"dtx_prepare_any"
#define SET_CONFIG	"pg_catalog.set_config"
#define SETTING		"pg_catalog.current_setting"
#define XID			"pg_catalog.txid_current()"
#define LSN			"pg_catalog.pg_current_wal_insert_lsn()"
#define NO_LSN		"NULL::pg_catalog.pg_lsn"

/* The role, if it is to be the session user; or another one, by its OID. */
#define SESSION_ROLE(otherwise) \
	"CASE WHEN current_user OPERATOR(pg_catalog.<>) session_user" \
	otherwise " THEN " SET_CONFIG "('role', 'none', false)"
#define OTHER_ROLE(oid) \
	"WHEN current_user OPERATOR(pg_catalog.<>) pg_catalog.pg_get_userbyid(" oid ")" \
	" AND pg_catalog.pg_has_role(session_user, " oid ", 'MEMBER')" \
	" THEN " SET_CONFIG "('role', pg_catalog.pg_get_userbyid(" oid ")::pg_catalog.text, false)"

/* The settings, if they are not as they have to be; or whatever they are. */
#define TIMEOUT(always) \
	"CASE WHEN " always SETTING "('statement_timeout') OPERATOR(pg_catalog.<>) '0'" \
	" THEN " SET_CONFIG "('statement_timeout', '0', false) END"
#define MESSAGES(always) \
	"CASE WHEN " always SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error'" \
	" THEN " SET_CONFIG "('client_min_messages', 'warning', false) END"

/*
 * With the position in the WAL, for a session that is not cautious, and of its own role.
 * No row: settings were changed.  All that is to be set is in one condition, both sides of
 * which are evaluated, because an expression in the result of EXECUTE is copied each time,
 * and then once more.
 */
#define DEFINITION \
	"PREPARE " NAME " AS SELECT " XID " AS x, " LSN " AS l WHERE " \
	SESSION_ROLE("") " IS NOT NULL ELSE true END OPERATOR(pg_catalog.=) " \
	"CASE WHEN " SETTING "('statement_timeout') OPERATOR(pg_catalog.<>) '0' OR " \
	SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error' THEN (" \
	SET_CONFIG "('statement_timeout', '0', false) OPERATOR(pg_catalog.||) " \
	SET_CONFIG "('client_min_messages', 'warning', false)) IS NULL ELSE true END"

/* For any other one. */
#define DEFINITION_ANY \
	"PREPARE " NAME_ANY " (pg_catalog.oid, pg_catalog.bool) AS SELECT " XID ", " \
	SESSION_ROLE(" AND $1 OPERATOR(pg_catalog.=) 0::pg_catalog.oid") \
	" WHEN $1 OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN NULL " \
	OTHER_ROLE("$1") " END, " TIMEOUT("$2 OR ") ", " MESSAGES("$2 OR ") ", " NO_LSN

/*
 * The statements that prepare the question in a session.
 */
const char *
DtxPrepareQuestionDefinitions(void)
{
	return DEFINITION "; " DEFINITION_ANY;
}

/*
 * The question to a session with this endpoint, "by_name" if it was prepared there, into
 * a buffer of DTX_PREPARE_QUESTION_SIZE bytes.
 */
void
DtxPrepareQuestion(const DtxConnectionEndpoint *e, bool by_name, char *question)
{
	int			len;

	if (by_name && e->may_ask_wal && !OidIsValid(e->default_role) && !e->cautious)
	{
		strlcpy(question, "EXECUTE " NAME, DTX_PREPARE_QUESTION_SIZE);
		return;
	}
	if (by_name)
	{
		snprintf(question, DTX_PREPARE_QUESTION_SIZE, "EXECUTE " NAME_ANY "(%u, %s)",
				 e->default_role, e->cautious ? "true" : "false");
		return;
	}
	len = snprintf(question, DTX_PREPARE_QUESTION_SIZE, "SELECT %s, ", XID);
	if (OidIsValid(e->default_role))
		len += snprintf(question + len, DTX_PREPARE_QUESTION_SIZE - len,
						"CASE " OTHER_ROLE("%u") " END, ", e->default_role,
						e->default_role, e->default_role);
	else
		len += snprintf(question + len, DTX_PREPARE_QUESTION_SIZE - len, "%s END, ",
						SESSION_ROLE(""));
	snprintf(question + len, DTX_PREPARE_QUESTION_SIZE - len, "%s, %s, %s",
			 e->cautious ? TIMEOUT("true OR ") : TIMEOUT(""),
			 e->cautious ? MESSAGES("true OR ") : MESSAGES(""),
			 e->may_ask_wal ? LSN : NO_LSN);
}
