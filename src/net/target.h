/*-------------------------------------------------------------------------
 *
 * target.h
 *		How to connect to a foreign server through a user mapping: options, and where they lead.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_TARGET_H
#define PG_DTX_TARGET_H

#include "nodes/pg_list.h"

/* How to reach a server through one user mapping. */
typedef struct DtxTarget
{
	Oid			serverid;		/* foreign server */
	Oid			umid;			/* user mapping */
	char	   *servername;
	char	   *user;			/* option "user" of the mapping, or NULL */
	const char **keywords;		/* for PQconnectStartParams(), NULL-ended */
	const char **values;
	int			connect_timeout;	/* milliseconds, for all hosts together */
	bool		need_password;	/* the server must have asked for it */
	int			attempt;		/* which host of several comes first */
	char	   *options_text;	/* DtxEndpointText() */
	uint64		endpoint;		/* DtxEndpoint() of it */
	uint64		place;			/* hash of the addresses: few connections at a
								 * time */
	bool		trusted;		/* is the owner of the server a superuser? */
	char	   *error;			/* why it cannot be used, or NULL */
} DtxTarget;

extern DtxTarget *DtxTargetCopy(const DtxTarget *target);
extern bool DtxTargetSame(const DtxTarget *a, const DtxTarget *b);
extern char *DtxMappingOption(Oid umid, const char *name);
extern char *DtxEndpointText(List *server_options, List *mapping_options);
extern uint64 DtxEndpoint(const char *text);
extern DtxTarget *DtxTargetMake(Oid serverid, Oid umid, int attempt,
								Oid on_behalf_of);

#endif							/* PG_DTX_TARGET_H */
