/*-------------------------------------------------------------------------
 *
 * owners.c
 *		Whose a prepared transaction is: a backend's of this server, which goes on to
 *		finish it, or of none that could be found in a circle.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/gid.h"
#include "deadlock/graph.h"
#include "deadlock/owners.h"
#include "state/activity.h"

/*
 * The node of the backend that is responsible for a prepared transaction of that server;
 * a node of its own if there is none.  "gid" is what the server said, which is not to be
 * trusted, or NULL.
 */
int
DtxOwnerOfPrepared(DtxGraph *g, uint64 instance, const char *gid)
{
	DtxGid		parsed;

	if (gid != NULL && DtxGidParse(gid, &parsed))
	{
		int			procno = DtxActivityResponsibleProc(&parsed);

		for (int i = 0; i < g->nnodes && procno >= 0; i++)
		{
			if (g->nodes[i].backend != NULL && g->nodes[i].backend->procno == procno)
				return i;
		}
	}
	return DtxGraphPrepared(g, instance, gid);
}
