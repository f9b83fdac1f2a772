/*-------------------------------------------------------------------------
 *
 * copies.h
 *		Signs by which a server knows that its data directory was restored, copied or moved
 *		since it was used last.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_COPIES_H
#define PG_DTX_COPIES_H

extern uint64 DtxCopiesNoteRecovery(void);
extern uint64 DtxRandomId(void);
extern char *DtxCopiesMachineId(void);
extern uint64 DtxCopiesControlFile(void);

#endif							/* PG_DTX_COPIES_H */
