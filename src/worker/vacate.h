/*-------------------------------------------------------------------------
 *
 * vacate.h
 *		Databases that a statement needs for itself: their workers are stopped, and kept from
 *		being started again until the transaction is over.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_VACATE_H
#define PG_DTX_VACATE_H

extern Oid	DtxVacateTarget(Node *stmt);
extern void DtxVacateBlock(Oid dbid);
extern void DtxVacateUnblock(void);
extern void DtxVacateInstallHooks(void);

#endif							/* PG_DTX_VACATE_H */
