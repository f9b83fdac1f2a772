/*-------------------------------------------------------------------------
 *
 * history.h
 *		What can be known of the boot and of the transaction id in a gid.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_HISTORY_H
#define PG_DTX_HISTORY_H

/* What this database knows of the boot in which a gid was made. */
typedef enum DtxHistory
{
	DTX_HISTORY_CURRENT,		/* it is the current one */
	DTX_HISTORY_CONTINUED,		/* a former one; all WAL that it has flushed
								 * is part of this database */
	DTX_HISTORY_BROKEN,			/* a former one; this database was restored or
								 * copied since, and may lack some of its end */
	DTX_HISTORY_UNKNOWN,		/* it is not one of this database */
	DTX_HISTORY_COUNT
} DtxHistory;

/* What is known of the transaction id in a gid. */
typedef enum DtxXidOrigin
{
	DTX_XID_OF_BOOT,			/* that boot can have assigned it, no later
								 * one */
	DTX_XID_OF_LATER_BOOT,		/* that boot or a later one has assigned it */
	DTX_XID_UNWRITTEN,			/* no WAL of that boot mentions it: if it was
								 * assigned, it did not commit */
	DTX_XID_FUTURE,				/* that boot had not assigned it when the
								 * server was asked what is prepared there */
	DTX_XID_COUNT
} DtxXidOrigin;

#endif							/* PG_DTX_HISTORY_H */
