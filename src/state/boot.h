/*-------------------------------------------------------------------------
 *
 * boot.h
 *		The boots of the server that this database remembers, and whether former ones may be
 *		judged.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_BOOT_H
#define PG_DTX_BOOT_H

#include "base/history.h"
#include "datatype/timestamp.h"
#include "utils/snapshot.h"

/* A row of dtx_internal.boot. */
typedef struct DtxBoot
{
	uint64		boot_id;
	int			ordinal;		/* 1, 2, ... in the order of recording */
	TimestampTz started_at;
	uint64		floor_xid;		/* it has assigned no lower full transaction
								 * id */
	uint64		next_xid;		/* first one that it can have assigned, or a
								 * higher one that was next soon after its
								 * start */
	uint64		proven_xid;		/* lower ones cannot be assigned again by
								 * later boots */
	uint32		timeline;		/* of the WAL */
	uint64		system_id;		/* of the cluster */
	char	   *machine;		/* machine identifier, or NULL if not known */
	uint64		control_file;	/* inode number of global/pg_control */
	uint64		recovery_id;	/* the last recovery from a backup, or 0 */
	char	   *suspended;		/* why former boots are not judged, or NULL */
	TimestampTz ended_at;		/* when a human ended that, or 0 */
} DtxBoot;

/* The boots of this database, as one snapshot saw them. */
typedef struct DtxBoots
{
	DtxBoot    *boots;			/* by ordinal */
	int			nboots;
	int			current;		/* index of the current boot, or -1 */
} DtxBoots;

extern Size DtxIdentityShmemSize(void);
extern void DtxIdentityShmemInit(void);
extern uint64 DtxBootId(void);
extern void DtxBootRecord(void);
extern void DtxBootBegin(void);
extern void DtxBootProve(void);
extern void DtxBootRequire(uint32 wait_event);
extern void DtxBootSuspend(const char *why);
extern void DtxBootEndSuspension(const char *as, const char *by_user,
								 const char *reason);
extern void DtxBootDeleteFormer(const DtxBoots *boots);
extern DtxBoots *DtxBootsRead(Snapshot snapshot);
extern bool DtxBootsSuspended(const DtxBoots *boots);
extern DtxHistory DtxBootsHistory(const DtxBoots *boots, uint64 boot_id);
extern DtxXidOrigin DtxBootsXidOrigin(const DtxBoots *boots, uint64 boot_id,
									  uint64 xid, uint64 next_xid);
extern int64 DtxFormerBootsEndedFor(const DtxBoots *boots);

#endif							/* PG_DTX_BOOT_H */
