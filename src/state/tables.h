/*-------------------------------------------------------------------------
 *
 * tables.h
 *		The extension in this database, and its tables that C code reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TABLES_H
#define PG_DTX_TABLES_H

#include "storage/lockdefs.h"
#include "utils/relcache.h"

#define DTX_EXTENSION	"pg_dtx"
#define DTX_SCHEMA		"dtx"
#define DTX_INTERNAL_SCHEMA	"dtx_internal"

typedef struct DtxColumn
{
	const char *name;
	Oid			type;
} DtxColumn;

/* A table that is known to be the extension's, and since when. */
typedef struct DtxVerified
{
	Oid			relid;			/* InvalidOid: none is */
	uint64		names_changed;	/* see tables.c */
} DtxVerified;

/* A table of which C code reads columns by number.  Static, one per table. */
typedef struct DtxTable
{
	const char *name;			/* in schema dtx_internal */
	const DtxColumn *columns;	/* the first ones, in the order of the script */
	int			ncolumns;
	bool		below_executor; /* written by C, too: it must not have more
								 * columns, nor indexes */

	/* what tables.c knows; as long as the relcache entry is valid */
	DtxVerified verified;
	bool		checked;		/* are the columns known to be right? */
	bool		noted;			/* is it in the list of all of them? */
	struct DtxTable *next;		/* in that list */
} DtxTable;

extern bool DtxExtensionInstalled(void);
extern Oid	DtxExtensionTable(const char *name, DtxVerified *verified);
extern Oid	DtxTableOid(DtxTable *table);
extern Relation DtxTableOpen(DtxTable *table, LOCKMODE lockmode);
extern Relation DtxTableOpenExisting(DtxTable *table, LOCKMODE lockmode);
extern Relation DtxTableOpenInTime(DtxTable *table, LOCKMODE lockmode);
extern void DtxThrowNotInstalled(void);

#endif							/* PG_DTX_TABLES_H */
