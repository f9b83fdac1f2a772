/*-------------------------------------------------------------------------
 *
 * compat.h
 *		Differences between PostgreSQL 15 to 19, the only file that knows
 *		PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COMPAT_H
#define PG_DTX_COMPAT_H

#include "access/heapam.h"
#include "access/tableam.h"
#include "catalog/pg_database.h"
#include "catalog/pg_foreign_server.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/shmem.h"
#include "utils/acl.h"
#include "utils/inval.h"
#include "utils/memutils.h"
#if PG_VERSION_NUM >= 180000
#include "storage/waiteventset.h"
#endif
#if PG_VERSION_NUM >= 170000
#include "utils/wait_event.h"
#else
#include "utils/wait_event.h"
#endif

#if PG_VERSION_NUM < 150000
#error pg_dtx needs PostgreSQL 15 or later
#endif

/* Number of this backend's PGPROC, below MaxBackends for regular backends. */
#if PG_VERSION_NUM >= 170000
#define DtxMyProcNumber()	((int) MyProcNumber)
#else
#define DtxMyProcNumber()	(MyProc->pgprocno)
#endif

/* A wait-event set that lives until it is freed, whatever ends before. */
#if PG_VERSION_NUM >= 170000
#define DtxCreateWaitEventSet(nevents)	CreateWaitEventSet(NULL, (nevents))
#else
#define DtxCreateWaitEventSet(nevents) \
	CreateWaitEventSet(TopMemoryContext, (nevents))
#endif

/*
 * The end of the postmaster, as WL_POSTMASTER_DEATH or WL_EXIT_ON_PM_DEATH, of which
 * there is none in single-user mode (CreateWaitEventSet's callers in
 * storage/ipc/latch.c look, too).
 */
static inline void
DtxAddPostmasterDeath(WaitEventSet *set, uint32 event)
{
	if (IsUnderPostmaster)
		(void) AddWaitEventToSet(set, event, PGINVALID_SOCKET, NULL, NULL);
}

/*
 * A wait event of our own.  Takes a lock and may throw, so call it early, once
 * per process and name; before version 17 all extensions share one event.
 */
static inline uint32
DtxWaitEvent(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/* Which syscache a callback is told of. */
#if PG_VERSION_NUM >= 190000
typedef SysCacheIdentifier DtxSyscacheId;
#else
typedef int DtxSyscacheId;
#endif

/* simple_heap_update() reports since 16 which indexes need new entries. */
static inline void
DtxHeapUpdate(Relation rel, ItemPointer otid, HeapTuple tup)
{
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update_indexes;

	simple_heap_update(rel, otid, tup, &update_indexes);
#else
	simple_heap_update(rel, otid, tup);
#endif
}

/* Opportunistic pruning of one page, which the caller has pinned. */
static inline void
DtxHeapPrune(Relation rel, Buffer buffer)
{
#if PG_VERSION_NUM >= 190000
	Buffer		vmbuffer = InvalidBuffer;

	heap_page_prune_opt(rel, buffer, &vmbuffer, false);
	if (BufferIsValid(vmbuffer))
		ReleaseBuffer(vmbuffer);
#else
	heap_page_prune_opt(rel, buffer);
#endif
}

/* A sequential scan; since 19 the caller may say what he is going to do. */
static inline TableScanDesc
DtxTableBeginScan(Relation rel, Snapshot snapshot)
{
#if PG_VERSION_NUM >= 190000
	return table_beginscan(rel, snapshot, 0, NULL, SO_NONE);
#else
	return table_beginscan(rel, snapshot, 0, NULL);
#endif
}

/* Since 19, DROP DATABASE and the like may end such a worker themselves. */
#ifdef BGWORKER_INTERRUPTIBLE
#define DTX_BGWORKER_INTERRUPTIBLE	BGWORKER_INTERRUPTIBLE
#else
#define DTX_BGWORKER_INTERRUPTIBLE	0
#endif

/* USAGE and the like on a foreign server: one function for all kinds since 16. */
#if PG_VERSION_NUM >= 160000
#define DtxForeignServerAclcheck(serverid, roleid, mode) \
	object_aclcheck(ForeignServerRelationId, (serverid), (roleid), (mode))
#else
#define DtxForeignServerAclcheck(serverid, roleid, mode) \
	pg_foreign_server_aclcheck((serverid), (roleid), (mode))
#endif

/*
 * A new tranche of LWLocks under a name that wait events show.  To be called
 * once per life of shared memory, by the process that creates it; the others
 * inherit the name by fork().
 */
static inline int
DtxLWLockTranche(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	int			tranche = LWLockNewTrancheId();

	LWLockRegisterTranche(tranche, name);
	return tranche;
#endif
}

/* Since 15.4 a database whose DROP failed half way; connections are refused. */
#ifndef DATCONNLIMIT_INVALID_DB
#define DATCONNLIMIT_INVALID_DB	(-2)
#endif

/* Number of the file of a relation. */
#if PG_VERSION_NUM >= 160000
#define DtxRelFile(rel)	((Oid) (rel)->rd_locator.relNumber)
#else
#define DtxRelFile(rel)	((rel)->rd_node.relNode)
#endif

/* A hash table in shared memory; since 19 it has one size only. */
static inline HTAB *
DtxShmemInitHash(const char *name, int64 nelems, HASHCTL *info, int flags)
{
#if PG_VERSION_NUM >= 190000
	return ShmemInitHash(name, nelems, info, flags);
#else
	return ShmemInitHash(name, (long) nelems, (long) nelems, info, flags);
#endif
}

/* Does this transaction hold a lock of this mode on a relation of this database? */
static inline bool
DtxRelationLockedByMe(Oid relid, LOCKMODE mode)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(&tag, mode, false);
#else
	return LockHeldByMe(&tag, mode);
#endif
}

/* Has a connection been authenticated by GSSAPI?  Before 16 libpq cannot tell. */
#if PG_VERSION_NUM >= 160000
#define DtxConnectionUsedGssapi(conn)	(PQconnectionUsedGSSAPI(conn) != 0)
#else
#define DtxConnectionUsedGssapi(conn)	((void) (conn), false)
#endif

/* The virtual transaction by which a process, or a prepared one, has its locks. */
#if PG_VERSION_NUM >= 170000
#define DtxLockInstanceBackend(instance)	((instance)->vxid.procNumber)
#define DtxLockInstanceLxid(instance)	((instance)->vxid.localTransactionId)
#else
#define DtxLockInstanceBackend(instance)	((instance)->backend)
#define DtxLockInstanceLxid(instance)	((instance)->lxid)
#endif

/* Ownership of a database: one function for all kinds of objects since 16. */
#if PG_VERSION_NUM >= 160000
#define DtxDatabaseOwnercheck(dbid, roleid) \
	object_ownercheck(DatabaseRelationId, (dbid), (roleid))
#else
#define DtxDatabaseOwnercheck(dbid, roleid) \
	pg_database_ownercheck((dbid), (roleid))
#endif

/* Likewise of an extension. */
#if PG_VERSION_NUM >= 160000
#define DtxExtensionOwnercheck(extid, roleid) \
	object_ownercheck(ExtensionRelationId, (extid), (roleid))
#else
#define DtxExtensionOwnercheck(extid, roleid) \
	pg_extension_ownercheck((extid), (roleid))
#endif

/*
 * The library shows what is PGDLLEXPORT, and nothing else.  Before 16 that was not said
 * of functions that SQL calls, so every file that has some includes this one.
 */
#if PG_VERSION_NUM < 160000
#undef PG_FUNCTION_INFO_V1
#define PG_FUNCTION_INFO_V1(funcname) \
extern PGDLLEXPORT Datum funcname(PG_FUNCTION_ARGS); \
extern PGDLLEXPORT const Pg_finfo_record *CppConcat(pg_finfo_, funcname) (void); \
const Pg_finfo_record * \
CppConcat(pg_finfo_, funcname) (void) \
{ \
	static const Pg_finfo_record my_finfo = {1}; \
	return &my_finfo; \
} \
extern int	no_such_variable
#endif

#endif							/* PG_DTX_COMPAT_H */
