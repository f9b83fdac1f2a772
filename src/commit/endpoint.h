/*-------------------------------------------------------------------------
 *
 * endpoint.h
 *		Which foreign server, user mapping and cluster a connection belongs to.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ENDPOINT_H
#define PG_DTX_ENDPOINT_H

#include "libpq-fe.h"
#include "state/flushed.h"

typedef struct DtxConnectionEndpoint
{
	char	  **keywords;		/* parameters as postgres_fdw gave them, with
								 * a NULL at the end, until identified */
	char	  **values;			/* likewise */

	/* found once per connection (DtxEndpointIdentify) */
	Oid			serverid;		/* foreign server, or InvalidOid */
	Oid			umid;			/* user mapping */
	char		server_name[NAMEDATALEN];
	char	   *options_text;	/* DtxEndpointText(), or NULL */
	uint64		hash;			/* DtxEndpoint() of it, as this coordinator's: */
	uint64		hash_of;		/* its identifier, 0: not known yet */

	/* told by the server (DtxEndpointTakeAnswer) */
	uint64		system_id;		/* system identifier of the cluster, or 0 */
	uint64		timeline;		/* of the cluster when it was asked, or 0 */
	uint64		run;			/* which run of it that is (protocol.h), or 0 */
	bool		may_ask_wal;	/* may every role there ask for positions in
								 * the WAL, and write a message into it? */
	Oid			default_role;	/* role there as which the session begins,
								 * unless that is the session user, or not
								 * known: InvalidOid */
	int			pid;			/* process of the session there, or 0 */
	uint64		process_started;	/* when that has started, see protocol.h,
									 * or 0 */
	uint64		instance;		/* which running server that is (DtxInstance) */
	bool		cautious;		/* do the session's own settings hide
								 * warnings, or have commands canceled that
								 * take long? */
} DtxConnectionEndpoint;

extern void DtxEndpointNoteParameters(DtxConnectionEndpoint *e,
									  const char *const *keywords,
									  const char *const *values);
extern void DtxEndpointForget(DtxConnectionEndpoint *e);
extern void DtxEndpointIdentify(DtxConnectionEndpoint *e,
								bool (*mapping_in_use) (Oid umid));
extern uint64 DtxEndpointHash(DtxConnectionEndpoint *e, uint64 coordinator_id);
extern const char *DtxEndpointQuestion(const PGconn *conn);
extern void DtxEndpointTakeAnswer(DtxConnectionEndpoint *e,
								  const PGresult *result);
extern void DtxEndpointForgetAnswer(DtxConnectionEndpoint *e);
extern bool DtxEndpointMayBeSame(uint64 a, uint64 b);

/* Whose WAL a session there tells of. */
static inline DtxWalOf
DtxEndpointWal(const DtxConnectionEndpoint *e)
{
	DtxWalOf	wal = {e->system_id, e->timeline, e->run};

	return wal;
}

/* Have server and mapping been found? */
static inline bool
DtxEndpointIsKnown(const DtxConnectionEndpoint *e)
{
	return OidIsValid(e->serverid);
}

#endif							/* PG_DTX_ENDPOINT_H */
