/*-------------------------------------------------------------------------
 *
 * servers.c
 *		On which servers snapshots are taken.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "catalog/pg_user_mapping.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "net/wrapper.h"
#include "nodes/pg_list.h"
#include "snapshot/servers.h"
#include "utils/acl.h"
#include "utils/memutils.h"
#include "utils/palloc.h"
#include "utils/syscache.h"

static DtxSnapshotServer *allocate(int n);
static int	compare(const ListCell *a, const ListCell *b);
static bool may_use(const ForeignServer *server);

/*
 * Replies may come as long as the transaction is not over, also when the process ends in the
 * middle (FATAL), and the statement's memory is gone.
 */
static DtxSnapshotServer *
allocate(int n)
{
	return MemoryContextAllocZero(TopTransactionContext, sizeof(DtxSnapshotServer) * Max(n, 1));
}

/*
 * All servers of postgres_fdw that the current user may use and has a user mapping for, by
 * name.  *n is their number; until the end of the transaction, but for their names, which
 * are in the current memory context.
 */
DtxSnapshotServer *
DtxSnapshotAllServers(int *n)
{
	List	   *all = DtxPostgresFdwServers();
	DtxSnapshotServer *servers = allocate(list_length(all));
	ListCell   *lc;

	list_sort(all, compare);
	*n = 0;
	foreach(lc, all)
	{
		ForeignServer *server = (ForeignServer *) lfirst(lc);

		if (!may_use(server))
			continue;
		servers[*n].name = server->servername;
		servers[(*n)++].serverid = server->serverid;
	}
	return servers;
}

/* Orders servers by name. */
static int
compare(const ListCell *a, const ListCell *b)
{
	return strcmp(((ForeignServer *) lfirst(a))->servername,
				  ((ForeignServer *) lfirst(b))->servername);
}

static bool
may_use(const ForeignServer *server)
{
	return DtxForeignServerAclcheck(server->serverid, GetUserId(), ACL_USAGE) == ACLCHECK_OK &&
		(SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(GetUserId()),
							   ObjectIdGetDatum(server->serverid)) ||
		 SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(server->serverid)));
}

/*
 * The servers with these names, in their order, likewise.  Throws
 * unless each is one of postgres_fdw that the current user may use, and named once.
 */
DtxSnapshotServer *
DtxSnapshotNamedServers(char **names, int n)
{
	DtxSnapshotServer *servers = allocate(n);

	for (int i = 0; i < n; i++)
	{
		ForeignServer *server = GetForeignServerByName(names[i], false);
		AclResult	aclresult = DtxForeignServerAclcheck(server->serverid, GetUserId(), ACL_USAGE);

		if (aclresult != ACLCHECK_OK)
			aclcheck_error(aclresult, OBJECT_FOREIGN_SERVER, server->servername);
		if (!DtxWrapperIsPostgresFdw(server->fdwid))
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("server \"%s\" is not a server of postgres_fdw",
							server->servername)));
		for (int j = 0; j < i; j++)
		{
			if (servers[j].serverid == server->serverid)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("server \"%s\" is named more than once", server->servername)));
		}
		servers[i].name = server->servername;
		servers[i].serverid = server->serverid;
	}
	return servers;
}
