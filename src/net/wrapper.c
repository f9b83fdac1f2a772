/*-------------------------------------------------------------------------
 *
 * wrapper.c
 *		Which foreign-data wrappers are postgres_fdw, where their code is, and which
 *		servers they have.
 *
 * A wrapper is what its handler makes it.  The wrapper itself, the SQL function
 * that is its handler, and the shared library may have any names; what counts is
 * the C function behind the SQL function.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/syscache.h"

static bool handler_source(Oid handler, char **function, char **library);

/*
 * What the catalogs say of a handler: the C function and its library, in the
 * current memory context.  Returns false if it is not a C function, or was dropped
 * a moment ago.
 */
static bool
handler_source(Oid handler, char **function, char **library)
{
	HeapTuple	tuple;
	Datum		source;
	Datum		binary;
	bool		source_null = true;
	bool		binary_null = true;
	bool		is_c;

	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(handler));
	if (!HeapTupleIsValid(tuple))
		return false;
	is_c = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId;
	if (is_c)
	{
		source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &source_null);
		binary = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_probin, &binary_null);
		if (!source_null && !binary_null)
		{
			*function = TextDatumGetCString(source);
			*library = TextDatumGetCString(binary);
		}
	}
	ReleaseSysCache(tuple);
	return is_c && !source_null && !binary_null;
}

/*
 * Is this foreign-data wrapper a postgres_fdw?  To be called in a transaction.
 * Loads nothing.
 */
bool
DtxWrapperIsPostgresFdw(Oid fdwid)
{
	ForeignDataWrapper *fdw = GetForeignDataWrapperExtended(fdwid, FDW_MISSING_OK);
	char	   *function;
	char	   *library;

	return fdw != NULL && OidIsValid(fdw->fdwhandler) &&
		handler_source(fdw->fdwhandler, &function, &library) &&
		strcmp(function, DTX_POSTGRES_FDW_HANDLER) == 0;
}

/*
 * Where the handler of a postgres_fdw lies in this process, NULL if the wrapper is
 * none.  Loads its library.  To be called in a transaction; throws if the library
 * cannot be loaded.
 */
const void *
DtxWrapperHandler(Oid fdwid)
{
	ForeignDataWrapper *fdw = GetForeignDataWrapperExtended(fdwid, FDW_MISSING_OK);
	char	   *function;
	char	   *library;

	if (fdw == NULL || !OidIsValid(fdw->fdwhandler) ||
		!handler_source(fdw->fdwhandler, &function, &library) ||
		strcmp(function, DTX_POSTGRES_FDW_HANDLER) != 0)
		return NULL;
	return (const void *) load_external_function(library, function, true, NULL);
}

/*
 * The wrappers of this database that are a postgres_fdw: OIDs in the current memory
 * context.  To be called in a transaction.
 */
List *
DtxPostgresFdwWrappers(void)
{
	List	   *wrappers = NIL;
	Relation	rel = table_open(ForeignDataWrapperRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			fdwid = ((Form_pg_foreign_data_wrapper) GETSTRUCT(tuple))->oid;

		if (DtxWrapperIsPostgresFdw(fdwid))
			wrappers = lappend_oid(wrappers, fdwid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return wrappers;
}

/*
 * The servers of these wrappers: ForeignServer structs in the current memory context.
 * To be called in a transaction.
 */
List *
DtxPostgresFdwServers(void)
{
	List	   *servers = NIL;
	List	   *wrappers = DtxPostgresFdwWrappers();
	Relation	rel = table_open(ForeignServerRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_foreign_server form = (Form_pg_foreign_server) GETSTRUCT(tuple);
		ForeignServer *server;

		if (!list_member_oid(wrappers, form->srvfdw))
			continue;
		server = GetForeignServerExtended(form->oid, FSV_MISSING_OK);
		if (server != NULL)
			servers = lappend(servers, server);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return servers;
}
