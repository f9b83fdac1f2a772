/*-------------------------------------------------------------------------
 *
 * connection.h
 *		A connection of postgres_fdw, and all that belongs to it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_CONNECTION_H
#define PG_DTX_CONNECTION_H

#include "base/backoff.h"
#include "base/gid.h"
#include "commit/endpoint.h"
#include "commit/put_off.h"
#include "commit/statement.h"
#include "libpq-fe.h"
#include "net/round_trip.h"
#include "net/wire.h"

/* Lives from postgres_fdw's PQconnect to its PQfinish, and until phase two is over. */
typedef struct DtxConnection
{
	DtxWire		wire;			/* wire.conn: NULL until there is one */
	DtxConnectionEndpoint endpoint;
	DtxPutOff	put_off;
	DtxStatements statements;
	struct DtxParticipant *participant; /* its remote transaction in the
										 * current local one, or NULL;
										 * participant.c */
	char	   *setup;			/* what postgres_fdw has sent before the first
								 * transaction, as one text, or NULL */
	uint64		transactions;	/* remote transactions that have begun on it */
	DtxMoment	last_start;		/* when the last one did, or it was made */
	uint64		fingerprint;	/* DtxWaitsFingerprint() of its options, or 0 */
	uint64		salt;			/* DtxInstanceSalt() of its foreign server, if
								 * that is known */
	uint64		shown;			/* serial of the wire when others were last
								 * told of it (DtxConnectionShow) */
	bool		extension_seen; /* was the extension there when it was made,
								 * or last used? */
	bool		cluster_asked;	/* was it asked which cluster it leads to? */
	int			nquestions;		/* how many of its questions has the session
								 * by name (DtxConnectionHasQuestion)? */
	bool		point_prepared; /* ... and that of point_question.c? */
	bool		question_refused;	/* ... or has it refused one? */
	int			point_misses;	/* how often in a row did the answer to
								 * point_question.c not help (point.c)? */
	DtxRoundTrip round_trip;
	uint64		told_lsn;		/* up to where its server has told here that
								 * its WAL is on disk */
	bool		not_prepared;	/* DtxConnectionIsPrepared(): has the server
								 * said no? */
	bool		closed_by_fdw;	/* has postgres_fdw called PQfinish? */
	int			holds;			/* remote commands that need it until they are
								 * over (DtxConnectionHold) */
} DtxConnection;

extern DtxConnection *DtxConnectionFind(PGconn *conn);
extern DtxConnection *DtxConnectionCreate(const char *const *keywords,
										  const char *const *values);
extern void DtxConnectionAttach(DtxConnection *c, PGconn *conn);
extern void DtxConnectionDestroy(DtxConnection *c);
extern void DtxConnectionForEach(void (*callback) (DtxConnection *c, void *arg),
								 void *arg);
extern int	DtxConnectionCount(void);

extern void DtxConnectionNoteSetup(DtxConnection *c, const char *command);
extern void DtxConnectionIdentify(DtxConnection *c);
extern void DtxConnectionFingerprint(DtxConnection *c);
extern void DtxConnectionShow(DtxConnection *c);
extern void DtxConnectionAskCluster(DtxConnection *c);
extern uint64 DtxConnectionSystemId(Oid serverid);
extern bool DtxConnectionHasQuestion(const DtxConnection *c);
extern bool DtxConnectionHasCommands(const DtxConnection *c);
extern bool DtxConnectionMayPrepare(const DtxConnection *c);
extern bool DtxConnectionWantsQuestion(const DtxConnection *c);
extern void DtxConnectionForgetQuestion(DtxConnection *c, bool deallocated);
extern bool DtxConnectionIsPrepared(DtxConnection *c, const DtxGid *gid);
extern bool DtxConnectionAwait(DtxConnection *c, DtxMoment deadline);
extern bool DtxConnectionRenew(DtxConnection *c, DtxMoment deadline);
extern void DtxConnectionKeep(DtxConnection *c);
extern void DtxConnectionRelease(DtxConnection *c);
extern void DtxConnectionHold(DtxConnection *c);
extern void DtxConnectionLetGo(DtxConnection *c);

extern uint32 DtxConnectionWaitEvent(void);

#endif							/* PG_DTX_CONNECTION_H */
