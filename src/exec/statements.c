/*-------------------------------------------------------------------------
 *
 * statements.c
 *		What a remote command may be: divided into its statements, without those
 *		that must not be in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "exec/statements.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "parser/scansup.h"
#include "utils/palloc.h"

static void check_statement(Node *stmt);
static void check_unknown(const char *command);
static const char *next_word(const char *command, char *word, int size);
static const char *transaction_control(TransactionStmtKind kind);
static void refuse_transaction_control(const char *what);
static void refuse_copy(void);

/*
 * Divide a command into its statements, and refuse what must not be in it.  Returns
 * texts (char *), at least one, in the current memory context.
 *
 * Our parser may be of another version than the server.  A command that it does not
 * understand is sent as one statement, and if it is more than one, or really wrong, the
 * server says so.  Throws ERRCODE_SYNTAX_ERROR if the command is empty,
 * ERRCODE_INVALID_TRANSACTION_TERMINATION for what would begin or end the transaction,
 * and ERRCODE_FEATURE_NOT_SUPPORTED for what else must not be in it.
 */
List *
DtxSplitStatements(const char *command)
{
	MemoryContext cxt = CurrentMemoryContext;
	List	   *raw = NIL;
	bool		understood = true;
	List	   *statements;
	ListCell   *lc;

	/*
	 * Nothing but memory is at stake in the parser's grammar, so the error
	 * can be dropped without a subtransaction.
	 */
	PG_TRY();
	{
		raw = raw_parser(command, RAW_PARSE_DEFAULT);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(cxt);
		edata = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(edata->sqlerrcode) !=
			ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION &&
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_DATA_EXCEPTION &&
			ERRCODE_TO_CATEGORY(edata->sqlerrcode) != ERRCODE_FEATURE_NOT_SUPPORTED)
			PG_RE_THROW();
		FlushErrorState();
		FreeErrorData(edata);
		understood = false;
	}
	PG_END_TRY();

	if (!understood)
	{
		check_unknown(command);
		return list_make1(pstrdup(command));
	}

	if (raw == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("remote command is empty")));
	statements = NIL;
	foreach(lc, raw)
	{
		RawStmt    *stmt = lfirst_node(RawStmt, lc);
		const char *begin = command + stmt->stmt_location;
		const char *end = stmt->stmt_len > 0 ? begin + stmt->stmt_len :
		begin + strlen(begin);

		check_statement(stmt->stmt);
		while (begin < end && scanner_isspace(*begin))
			begin++;
		statements = lappend(statements, pnstrdup(begin, end - begin));
	}
	return statements;
}

/*
 * Refuse a statement that cannot be part of the distributed transaction, or that
 * takes away what postgres_fdw keeps in the session.
 */
static void
check_statement(Node *stmt)
{
	const char *taken = NULL;

	switch (nodeTag(stmt))
	{
		case T_TransactionStmt:
			refuse_transaction_control(transaction_control(((TransactionStmt *) stmt)->kind));
			break;
		case T_CopyStmt:
			if (((CopyStmt *) stmt)->filename == NULL)
				refuse_copy();
			break;
		case T_DeallocateStmt:
			if (((DeallocateStmt *) stmt)->name == NULL)
				taken = "DEALLOCATE ALL";
			break;
		case T_ClosePortalStmt:
			if (((ClosePortalStmt *) stmt)->portalname == NULL)
				taken = "CLOSE ALL";
			break;
		case T_DiscardStmt:
			taken = "DISCARD";
			break;
		default:
			break;
	}

	if (taken != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot use %s in a remote command", taken),
				 errdetail("The session belongs to postgres_fdw, which keeps cursors and prepared statements in it.")));
}

/*
 * The same for a command that our parser does not understand: look at the first
 * word of the one statement that it can be.
 */
static void
check_unknown(const char *command)
{
	static const char *const control[] = {
		"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT",
		"RELEASE"
	};
	char		word[16];
	char		second[16];
	const char *rest = next_word(command, word, sizeof(word));

	for (int i = 0; i < lengthof(control); i++)
	{
		if (pg_strcasecmp(word, control[i]) == 0)
			refuse_transaction_control(control[i]);
	}
	next_word(rest, second, sizeof(second));
	if (pg_strcasecmp(word, "PREPARE") == 0 &&
		pg_strcasecmp(second, "TRANSACTION") == 0)
		refuse_transaction_control("PREPARE TRANSACTION");
	if (pg_strcasecmp(word, "COPY") == 0)
		refuse_copy();
}

/*
 * The word that a command begins with, behind white space, comments and semicolons,
 * or as much of it as there is room for.  Returns the command behind it.
 */
static const char *
next_word(const char *command, char *word, int size)
{
	int			depth = 0;
	int			len = 0;

	for (;;)
	{
		if (command[0] == '/' && command[1] == '*')
		{
			depth++;
			command += 2;
		}
		else if (depth > 0 && command[0] == '*' && command[1] == '/')
		{
			depth--;
			command += 2;
		}
		else if (depth == 0 && command[0] == '-' && command[1] == '-')
		{
			while (*command != '\0' && *command != '\n' && *command != '\r')
				command++;
		}
		else if (*command != '\0' &&
				 (depth > 0 || *command == ';' || scanner_isspace(*command)))
			command++;
		else
			break;
	}
	while ((command[0] >= 'a' && command[0] <= 'z') ||
		   (command[0] >= 'A' && command[0] <= 'Z') || command[0] == '_')
	{
		if (len < size - 1)
			word[len++] = *command;
		command++;
	}
	word[len] = '\0';
	return command;
}

/* What that kind of statement is called. */
static const char *
transaction_control(TransactionStmtKind kind)
{
	switch (kind)
	{
		case TRANS_STMT_BEGIN:
			return "BEGIN";
		case TRANS_STMT_START:
			return "START TRANSACTION";
		case TRANS_STMT_COMMIT:
			return "COMMIT";
		case TRANS_STMT_ROLLBACK:
			return "ROLLBACK";
		case TRANS_STMT_SAVEPOINT:
			return "SAVEPOINT";
		case TRANS_STMT_RELEASE:
			return "RELEASE SAVEPOINT";
		case TRANS_STMT_ROLLBACK_TO:
			return "ROLLBACK TO SAVEPOINT";
		case TRANS_STMT_PREPARE:
			return "PREPARE TRANSACTION";
		case TRANS_STMT_COMMIT_PREPARED:
			return "COMMIT PREPARED";
		case TRANS_STMT_ROLLBACK_PREPARED:
			return "ROLLBACK PREPARED";
	}
	return "a transaction command";	/* of a later PostgreSQL */
}

static void
refuse_transaction_control(const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
			 errmsg("cannot use %s in a remote command", what),
			 errdetail("The remote transaction is part of the local one, and ends with it."),
			 errhint("Use transactions and savepoints in the local session; the servers follow.")));
}

static void
refuse_copy(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
			 errmsg("cannot use COPY from or to the client in a remote command"),
			 errhint("Use COPY with a foreign table, or INSERT with dtx.query().")));
}
