/*-------------------------------------------------------------------------
 *
 * turns.h
 *		Where databases are more than slots: whose turn it is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TURNS_H
#define PG_DTX_TURNS_H

/* Pause after all background-worker slots were found taken, milliseconds. */
#define DTX_NO_SLOT_PAUSE_MS		5000

/*
 * Where databases wait for a slot: an idle resolver has it for at least this time, ms.
 */
#define DTX_TURN_MIN_MS			1000

/* DtxLauncherMakeRoom() is good for this time, ms. */
#define DTX_GUEST_MS			200

/* Likewise for a saga that finds no slot: a resolver leaves within that, ms. */
#define DTX_SAGA_GUEST_MS		1500

extern long DtxTurnsEndSome(int waiting, bool dynamic, bool reserved);
extern void DtxTurnsEndScheduler(void);
extern void DtxTurnsMakeRoom(int ms);
extern void DtxLauncherMakeRoom(void);

#endif							/* PG_DTX_TURNS_H */
