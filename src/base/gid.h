/*-------------------------------------------------------------------------
 *
 * gid.h
 *		The global transaction identifier: its parts, its text, and what is to
 *		become of the prepared transaction that has it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_GID_H
#define PG_DTX_GID_H

/*
 * The commit point of a transaction that is decided by a server: a transaction there,
 * whose commit or abort is the decision.
 */
typedef struct DtxDecider
{
	uint64		system_id;		/* system identifier of its cluster; 0: the
								 * coordinator decides, and the rest is 0, too */
	uint64		timeline;		/* of that cluster when the transaction ran */
	uint64		xid;			/* full transaction id there; no later
								 * transaction of that timeline gets it
								 * (state/flushed.c) */
	uint64		lsn;			/* end of a WAL record there that carries the
								 * id, and was on disk before anything was
								 * prepared */
	Oid			serverid;		/* foreign server that led there */
	uint32		unused;			/* 0: no padding */
} DtxDecider;

/*
 * What a gid says, "dtx:<coordinator id>:<database>:<boot id>:<xid>:<n>:<seal>", or of a
 * transaction that is decided by a server "dtx:<coordinator id>:<database>:<boot
 * id>:s<number>:<system identifier>:<timeline>:<xid
 * there>:<position>:<foreign server>:<n>:<seal>".  Used as a hash key: zero the whole struct before filling it.
 */
typedef struct DtxGid
{
	uint64		coordinator_id; /* random, one per CREATE EXTENSION */
	uint64		boot_id;		/* random, one per life of shared memory */
	uint64		xid;			/* full transaction id of the local
								 * transaction; if a server decides, its
								 * number in this boot with DTX_NUMBERED */
	uint64		seal;			/* proof that the coordinator gave the name */
	DtxDecider	decider;
	Oid			dbid;			/* database of the coordinator */
	uint32		n;				/* number of the participant, from 1 */
} DtxGid;

/*
 * A transaction that is decided by a server has no local transaction id, and is known
 * by a number instead.  With this bit it is none of the other kind: no full
 * transaction id is so large.
 */
#define DTX_NUMBERED	(UINT64CONST(1) << 63)

/* Is it decided by a server? */
static inline bool
DtxGidDecidedElsewhere(const DtxGid *gid)
{
	return gid->decider.system_id != 0;
}

/* Room for a gid's text with its NUL: PostgreSQL's GIDSIZE (access/twophase.c). */
#define DTX_GID_SIZE	200

extern void DtxGidFormat(const DtxGid *gid, char *buf);
extern void DtxGidFormatStem(const DtxGid *gid, char *buf);
extern void DtxGidFormatPrefix(uint64 coordinator_id, Oid dbid, char *buf);
extern bool DtxGidParse(const char *text, DtxGid *gid);
extern uint64 DtxNumberParse(const char *text, uint64 max);
extern uint64 DtxTimelineParse(const char *text);
extern uint64 DtxLsnParse(const char *text);

/* What became, or is to become, of a prepared transaction. */
typedef enum DtxDecision
{
	DTX_ROLLBACK = 0,
	DTX_COMMIT = 1,
	DTX_UNDECIDED = 2			/* a human has to say; see judge.h */
} DtxDecision;

#endif							/* PG_DTX_GID_H */
