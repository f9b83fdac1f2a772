/*-------------------------------------------------------------------------
 *
 * point_question.c
 *		What a server is asked, and told, that may decide about a transaction.
 *
 * Behind a command that writes: the id of the remote transaction, which has one from then
 * on at the latest; the position of a WAL record that carries it; and up to where the WAL
 * is on disk.  A command may have got the id without a WAL record (unlogged tables, a
 * function that asks for the id), so one is written: a logical message, which is assigned
 * an id by being transactional (LogLogicalMessage in replication/logical/message.c), that
 * of the innermost subtransaction, which is not lower than that of the transaction.
 * Nothing but logical decoding looks at it.
 *
 * In front of COMMIT, when deferred triggers have run, which may change settings: the
 * commit is flushed, and if it does not wait for the synchronous standby that is said.
 *
 * Both are prepared once in each session: the latter together with the question of
 * prepare_question.c, the former when it is first asked.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commit/point_question.h"

#define SET_CONFIG	"pg_catalog.set_config"
#define SETTING		"pg_catalog.current_setting"
#define COMMIT_NAME	"dtx_commit"
#define CONSTRAINTS	"SET CONSTRAINTS ALL IMMEDIATE"
#define COMMIT_COMMAND	"COMMIT TRANSACTION"

#define XID	"pg_catalog.txid_current()"
#define MESSAGE(more) "pg_catalog.pg_logical_emit_message(" more ")"
#define RECORD	MESSAGE("true, 'pg_dtx', ''::pg_catalog.text")
#define QUESTION \
	"SELECT " XID " AS x, " RECORD " AS r, pg_catalog.pg_current_wal_flush_lsn() AS f"
#define SETTINGS \
	"SELECT CASE WHEN " SETTING "('synchronous_commit') OPERATOR(pg_catalog.=) 'off'" \
	" THEN " SET_CONFIG "('synchronous_commit', 'local', true) END AS a, " \
	"CASE WHEN " SETTING "('client_min_messages') OPERATOR(pg_catalog.=) 'error'" \
	" THEN " SET_CONFIG "('client_min_messages', 'warning', true) END AS b, " \
	"pg_catalog.pg_current_wal_insert_lsn() AS l"
#define COMMIT(settings) \
	CONSTRAINTS "; " settings "; " COMMIT_COMMAND

const DtxWireStatement DtxPointCommitStatements[] = {
	{"dtx_constraints", CONSTRAINTS},
	{"dtx_end", COMMIT_COMMAND}
};
const char *const DtxPointCommitNames[] = {"dtx_constraints", COMMIT_NAME, "dtx_end"};

/*
 * What such a server is asked in front of a COMMIT that may decide; a constant, as all
 * that is returned here.
 */
const char *
DtxPointQuestion(void)
{
	return QUESTION;
}

/*
 * Likewise, in a round trip of its own: it flushes the WAL up to that record, which a
 * server can since version 17 (pg_logical_emit_message()).
 */
const char *
DtxPointQuestionFlushed(void)
{
	return "SELECT " XID ", " RECORD ", "
		MESSAGE("false, 'pg_dtx', ''::pg_catalog.text, true");
}

/*
 * The statement that prepares in a session what is asked in front of COMMIT.
 */
const char *
DtxPointCommitDefinition(void)
{
	return "PREPARE " COMMIT_NAME " AS " SETTINGS;
}

/*
 * What is sent to commit, "by_name" if its question was prepared: DTX_POINT_COMMIT_SIZE
 * bytes at most.
 */
const char *
DtxPointCommit(bool by_name)
{
	StaticAssertStmt(sizeof(COMMIT(SETTINGS)) <= DTX_POINT_COMMIT_SIZE,
					 "DTX_POINT_COMMIT_SIZE is too small");
	return by_name ? COMMIT("EXECUTE " COMMIT_NAME) : COMMIT(SETTINGS);
}
