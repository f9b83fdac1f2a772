/*-------------------------------------------------------------------------
 *
 * unconfirmed.h
 *		Decision rows that no live backend owns, and which of their participants have
 *		not confirmed yet.  In the worker only.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_UNCONFIRMED_H
#define PG_DTX_UNCONFIRMED_H

#include "base/gid.h"
#include "resolve/resolver.h"
#include "state/decision.h"

/* A decision row that no backend owns, waiting for its participants. */
typedef struct DtxUnconfirmed
{
	DtxDecisionRow row;
	uint64		serial;			/* DtxResolver.serial when it was first read */
	int			nconfirmed;
	bool	   *confirmed;		/* per participant */
	uint64	   *seals;			/* of their gids, likewise */
} DtxUnconfirmed;

/* Where DtxUnconfirmedNext() has got to; all zero at first. */
typedef struct DtxUnconfirmedCursor
{
	int			next_row;		/* in DtxResolver.unconfirmed */
	int			next_index;		/* in the row before that */
	DtxUnconfirmed *row;
	int			index;			/* the participant, from 0 */
	DtxGid		gid;			/* its gid */
} DtxUnconfirmedCursor;

extern bool DtxUnconfirmedNext(DtxResolver *r, uint64 serial,
							   DtxUnconfirmedCursor *cursor);
extern void DtxUnconfirmedGid(DtxResolver *r, DtxUnconfirmed *note, int index,
							  DtxGid *gid);
extern void DtxUnconfirmedRead(DtxResolver *r);
extern void DtxUnconfirmedShow(DtxResolver *r, DtxUnconfirmed *note, int index,
							   const char *error, Oid error_umid);
extern void DtxUnconfirmedDeleteDone(DtxResolver *r);

#endif							/* PG_DTX_UNCONFIRMED_H */
