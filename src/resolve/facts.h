/*-------------------------------------------------------------------------
 *
 * facts.h
 *		Gathering what a verdict on a prepared transaction rests on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FACTS_H
#define PG_DTX_FACTS_H

#include "base/gid.h"
#include "resolve/judge.h"
#include "state/decision.h"

/* What this database knew at one moment. */
typedef struct DtxWitness DtxWitness;

/* A name that a server has shown. */
typedef struct DtxSighting
{
	DtxGid		gid;
	uint64		next_xid;		/* next full transaction id of this server
								 * before the other one was asked */
	int64		age_ms;			/* prepared for so long, by the server's
								 * clock; -1 if not known */
	bool		responsible;	/* DtxActivityResponsible(), asked after the
								 * sighting and before DtxWitnessTake() */
} DtxSighting;

extern DtxWitness *DtxWitnessTake(void);
extern void DtxWitnessFacts(DtxWitness *witness, const DtxSighting *sighting,
							DtxFacts *facts);
extern void DtxWitnessDecidedFacts(DtxWitness *witness, const DtxSighting *sighting,
								   DtxDecidedFacts *facts);
extern const DtxDecisionRow *DtxWitnessRow(DtxWitness *witness, const DtxGid *gid);
extern bool DtxWitnessMayCancel(DtxWitness *witness, const DtxSighting *sighting);
extern bool DtxWitnessSuspended(const DtxWitness *witness);
extern DtxXactLog DtxCommitLog(uint64 xid);
extern const char *DtxVerdictReason(DtxVerdict verdict, const DtxFacts *facts);

#endif							/* PG_DTX_FACTS_H */
