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
 * What a gid says,
 * "dtx:<coordinator id>:<database>:<boot id>:<xid>:<n>:<seal>".
 * Used as a hash key: zero the whole struct before filling it.
 */
typedef struct DtxGid
{
	uint64		coordinator_id; /* random, one per CREATE EXTENSION */
	uint64		boot_id;		/* random, one per life of shared memory */
	uint64		xid;			/* full transaction id of the local
								 * transaction */
	uint64		seal;			/* proof that the coordinator gave the name */
	Oid			dbid;			/* database of the coordinator */
	uint32		n;				/* number of the participant, from 1 */
} DtxGid;

/* Room for a gid's text with its NUL; PostgreSQL's GIDSIZE is 200. */
#define DTX_GID_SIZE	128

extern void DtxGidFormat(const DtxGid *gid, char *buf);
extern void DtxGidFormatStem(const DtxGid *gid, char *buf);
extern void DtxGidFormatPrefix(uint64 coordinator_id, Oid dbid, char *buf);
extern bool DtxGidParse(const char *text, DtxGid *gid);
extern uint64 DtxNumberParse(const char *text, uint64 max);
extern uint64 DtxTimelineParse(const char *text);

/* What became, or is to become, of a prepared transaction. */
typedef enum DtxDecision
{
	DTX_ROLLBACK = 0,
	DTX_COMMIT = 1,
	DTX_UNDECIDED = 2			/* a human has to say; see judge.h */
} DtxDecision;

#endif							/* PG_DTX_GID_H */
