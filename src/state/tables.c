/*-------------------------------------------------------------------------
 *
 * tables.c
 *		The extension in this database, and its tables that C code reads: is it
 *		installed, is a table the one of its script.
 *
 * Whether the extension is installed is told by pg_extension, by nothing else.  If
 * it is, and one of its tables is not to be found, or is not its member, an administrator
 * has renamed, moved or removed it (protection.c refuses that as long as the
 * library is loaded): that is an ERROR, not "not installed".
 *
 * The columns of a table are compared with what the code expects once per relcache
 * entry.  They differ if the library and the extension's script are not of the same
 * version, as after ALTER EXTENSION UPDATE before a restart.
 *
 * Everything here is called in a transaction in which catalogs can be read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "base/backoff.h"
#include "base/compat.h"
#include "base/settings.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "state/tables.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/lockdefs.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

/* How often a lock that is taken is asked for, milliseconds. */
#define LOCK_RETRY_MS	5

/* Tables that have been looked at in this process. */
static DtxTable *known_tables = NULL;

/*
 * Counts what may have changed which table a name means: schemas, and names of tables.
 * A name need not be looked up again while it stays.
 */
static uint64 names_changed = 1;

static void watch_names(void);
static void names_may_mean_others(Datum arg, DtxSyscacheId cacheid, uint32 hashvalue);
static void note_table(DtxTable *table);
static void forget_tables(Datum arg, Oid relid);
static void check_shape(const DtxTable *table, Relation rel);

/*
 * OID of a table of the extension, InvalidOid if it is not there, or not a member
 * of the extension; *verified, all 0 at first, remembers the last one that was.
 */
Oid
DtxExtensionTable(const char *name, DtxVerified *verified)
{
	uint64		now;
	Oid			nspid;
	Oid			relid;
	Oid			extid;

	if (OidIsValid(verified->relid) && verified->names_changed == names_changed)
		return verified->relid;

	/* What is looked up may process invalidations. */
	watch_names();
	now = names_changed;
	nspid = get_namespace_oid(DTX_INTERNAL_SCHEMA, true);
	if (!OidIsValid(nspid))
		return InvalidOid;
	relid = get_relname_relid(name, nspid);
	if (!OidIsValid(relid))
		return InvalidOid;
	if (relid != verified->relid)
	{
		extid = getExtensionOfObject(RelationRelationId, relid);
		if (!OidIsValid(extid) ||
			extid != get_extension_oid(DTX_EXTENSION, true))
			return InvalidOid;
	}
	verified->relid = relid;
	verified->names_changed = now;
	return relid;
}

static void
watch_names(void)
{
	static bool watched = false;

	if (watched)
		return;
	CacheRegisterSyscacheCallback(NAMESPACENAME, names_may_mean_others, (Datum) 0);
	CacheRegisterSyscacheCallback(RELNAMENSP, names_may_mean_others, (Datum) 0);
	watched = true;
}

/* Syscache callback. */
static void
names_may_mean_others(Datum arg, DtxSyscacheId cacheid, uint32 hashvalue)
{
	names_changed++;
}

/*
 * Is the extension installed in this database?  To be called in a transaction;
 * costs two syscache lookups if it is.
 */
bool
DtxExtensionInstalled(void)
{
	static DtxVerified verified;

	return OidIsValid(DtxExtensionTable("decision", &verified)) ||
		OidIsValid(get_extension_oid(DTX_EXTENSION, true));
}

/*
 * OID of a table that every version of the extension has, InvalidOid if the
 * extension is not installed.  Throws if it is, and the table is not there.
 */
Oid
DtxTableOid(DtxTable *table)
{
	Oid			relid = DtxExtensionTable(table->name, &table->verified);

	note_table(table);
	if (!OidIsValid(relid) && OidIsValid(get_extension_oid(DTX_EXTENSION, true)))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" of extension \"%s\" is missing",
						DTX_INTERNAL_SCHEMA, table->name, DTX_EXTENSION),
				 errdetail("It, or its schema, was renamed, moved, or taken out of the extension. Without it, transactions cannot be committed atomically."),
				 errhint("Undo that, or drop the extension and create it again.")));
	return relid;
}

/*
 * Open such a table.  Returns NULL if the extension is not installed (any more).
 * Throws if the table is not what the code expects.
 */
Relation
DtxTableOpen(DtxTable *table, LOCKMODE lockmode)
{
	Oid			relid = DtxTableOid(table);
	Relation	rel = OidIsValid(relid) ? try_table_open(relid, lockmode) : NULL;

	if (rel != NULL && !table->checked)
	{
		check_shape(table, rel);
		table->checked = true;
	}
	return rel;
}

/*
 * The same for those who cannot go on without the extension: throws if it is not there.
 */
Relation
DtxTableOpenExisting(DtxTable *table, LOCKMODE lockmode)
{
	Relation	rel = DtxTableOpen(table, lockmode);

	if (rel == NULL)
		DtxThrowNotInstalled();
	return rel;
}

/*
 * Likewise during a commit on several servers: a lock is waited for no longer than
 * the servers are ("pg_dtx.prepare_timeout").  Throws, too, if the time is over, and on
 * interrupts.
 */
Relation
DtxTableOpenInTime(DtxTable *table, LOCKMODE lockmode)
{
	static uint32 wait_event = 0;
	Oid			relid = DtxTableOid(table);
	DtxMoment	deadline = 0;
	Relation	rel;

	if (!OidIsValid(relid))
		DtxThrowNotInstalled();
	while (!ConditionalLockRelationOid(relid, lockmode))
	{
		if (deadline == 0)
			deadline = DtxIn(dtx_prepare_timeout);
		if (DtxIsDue(deadline))
			ereport(ERROR,
					(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
					 errmsg("could not lock table \"%s.%s\" in time",
							DTX_INTERNAL_SCHEMA, table->name),
					 errdetail("It has been locked by another session for %d ms (\"pg_dtx.prepare_timeout\").",
							   dtx_prepare_timeout),
					 errhint("The transaction is rolled back on all servers.")));
		if (wait_event == 0)
			wait_event = DtxWaitEvent("DtxTableLock");
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 LOCK_RETRY_MS, wait_event);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}

	/*
	 * It may have been dropped, and made again, before it was locked: the one
	 * that is there now is not.
	 */
	rel = DtxTableOpenExisting(table, NoLock);
	if (RelationGetRelid(rel) != relid)
		DtxThrowNotInstalled();
	return rel;
}

/*
 * Let the next invalidation of the table's relcache entry be noticed.
 */
static void
note_table(DtxTable *table)
{
	if (table->noted)
		return;
	if (known_tables == NULL)
		CacheRegisterRelcacheCallback(forget_tables, (Datum) 0);
	table->next = known_tables;
	known_tables = table;
	table->noted = true;
}

/* Relcache callback; InvalidOid: all of them. */
static void
forget_tables(Datum arg, Oid relid)
{
	for (DtxTable *table = known_tables; table != NULL; table = table->next)
	{
		if (!OidIsValid(relid) || relid == table->verified.relid)
		{
			table->checked = false;
			table->verified.relid = InvalidOid;
		}
	}
}

/*
 * Throw if the table is not as the extension's script made it.
 */
static void
check_shape(const DtxTable *table, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);
	const char *wrong = NULL;

	if (rel->rd_rel->relam != HEAP_TABLE_AM_OID)
		wrong = "It is not a heap.";
	else if (desc->natts < table->ncolumns)
		wrong = "It has fewer columns.";
	else if (table->below_executor && desc->natts > table->ncolumns)
		wrong = "It has more columns.";
	for (int i = 0; wrong == NULL && i < table->ncolumns; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped ||
			strcmp(NameStr(att->attname), table->columns[i].name) != 0 ||
			att->atttypid != table->columns[i].type)
			wrong = psprintf("Column %d is not \"%s\" of type %s.", i + 1,
							 table->columns[i].name,
							 format_type_be(table->columns[i].type));
	}
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" is not as this version of pg_dtx expects",
						DTX_INTERNAL_SCHEMA, table->name),
				 errdetail_internal("%s", wrong),
				 errhint("After an update of the extension restart the server, so that it loads the library of the same version. Otherwise undo the change.")));

	if (table->below_executor && RelationGetIndexList(rel) != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s.%s\" must not have indexes",
						DTX_INTERNAL_SCHEMA, table->name),
				 errdetail("Its rows are written without regard to indexes."),
				 errhint("Drop the indexes.")));
}

/*
 * For those who cannot go on without the extension.  Throws ERRCODE_UNDEFINED_OBJECT.
 */
void
DtxThrowNotInstalled(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("extension \"%s\" is not installed in this database",
					"pg_dtx"),
			 errdetail("It may have been dropped a moment ago.")));
}
