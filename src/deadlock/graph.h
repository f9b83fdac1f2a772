/*-------------------------------------------------------------------------
 *
 * graph.h
 *		Who waits for whom on all servers, and where that goes in a circle.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GRAPH_H
#define PG_DTX_GRAPH_H

#include "state/waits.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"

/* What waits, or is waited for. */
typedef enum DtxNodeKind
{
	DTX_NODE_BACKEND,			/* of this server, with sessions on others */
	DTX_NODE_PROCESS,			/* another process of a server, this or
								 * another */
	DTX_NODE_MARKED,			/* sessions with the same mark: those of a
								 * process of another coordinator */
	DTX_NODE_PREPARED			/* a prepared transaction that is no backend's */
} DtxNodeKind;

typedef struct DtxNode
{
	DtxNodeKind kind;
	const DtxWaits *backend;	/* of BACKEND */
	uint32		mark;			/* of MARKED and BACKEND */
	uint64		instance;		/* of PROCESS and PREPARED: which server */
	int			pid;			/* of PROCESS: there; of BACKEND: here */
	char	   *gid;			/* of PREPARED, or NULL if not known */
	int			first_edge;		/* edges that begin here, or -1 */
	int			visited;		/* number of the search that came here last */
	bool		on_path;		/* is it on the way of the search? */
} DtxNode;

/* One waits for another one. */
typedef struct DtxEdge
{
	int			from;			/* nodes */
	int			to;
	int			next;			/* the next one from the same node, or -1 */
	uint64		instance;		/* server on which it waits */
	int			waiter_pid;		/* there */
	int			blocker_pid;	/* there; 0: a prepared transaction */
	bool		hard;			/* does the blocker hold what is waited for,
								 * to the end of its transaction? Otherwise it
								 * stands before it in the queue (for a row,
								 * that is the lock on the tuple), or that is
								 * not known */
	char	   *lock;			/* "ShareLock on transaction 123", or NULL */
	char	   *identity;		/* of the wait: the same later, if it is the
								 * same wait; or NULL if not known */
	char	   *gid;			/* prepared transaction that blocks, or NULL */
	bool		wrong;			/* one of the two is not the session that it
								 * was taken for */
	bool		ignored;		/* not to be used by searches any more */
} DtxEdge;

typedef struct DtxGraph
{
	MemoryContext cxt;
	HTAB	   *places;			/* (instance, process) → node */
	DtxNode    *nodes;
	int			nnodes;
	int			max_nodes;
	DtxEdge    *edges;
	int			nedges;
	int			max_edges;
	int			searches;
} DtxGraph;

extern DtxGraph *DtxGraphCreate(MemoryContext cxt);
extern int	DtxGraphAddBackend(DtxGraph *g, const DtxWaits *backend);
extern void DtxGraphPlace(DtxGraph *g, uint64 instance, int pid, int node);
extern int	DtxGraphFind(const DtxGraph *g, uint64 instance, int pid);
extern int	DtxGraphProcess(DtxGraph *g, uint64 instance, int pid,
							uint32 mark);
extern int	DtxGraphPrepared(DtxGraph *g, uint64 instance, const char *gid);
extern DtxEdge *DtxGraphAddEdge(DtxGraph *g, int from, int to, uint64 instance,
								int waiter_pid, int blocker_pid);
extern bool DtxGraphWaitCounts(const DtxGraph *g, int node, uint64 instance,
							   int pid);
extern DtxEdge *DtxGraphFindEdge(DtxGraph *g, const DtxEdge *like);
extern bool DtxNodeIsHere(const DtxNode *node);
extern void DtxGraphIgnoreNone(DtxGraph *g);
extern int	DtxGraphFindCycle(DtxGraph *g, int *cycle);
extern int	DtxGraphVictim(const DtxGraph *g, const int *cycle, int n);

#endif							/* PG_DTX_GRAPH_H */
