/*-------------------------------------------------------------------------
 *
 * announce.h
 *		What external workers are to be told: NOTIFY after the transaction that made it so.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ANNOUNCE_H
#define PG_DTX_ANNOUNCE_H

extern void DtxSagaDropAnnouncements(void);
extern bool DtxSagaHasAnnouncements(void);
extern void DtxSagaAnnounce(void);

#endif							/* PG_DTX_ANNOUNCE_H */
