/*-------------------------------------------------------------------------
 *
 * hosts.h
 *		Which hosts a target leads to, and their addresses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_HOSTS_H
#define PG_DTX_HOSTS_H

#include "libpq-fe.h"
#include "net/names.h"
#include "net/target.h"

/* One element of a list of hosts. */
typedef struct DtxHost
{
	char	   *host;			/* as libpq would get it; "" is its default */
	char	   *hostaddr;		/* likewise; "" if there is none */
	char	   *port;			/* likewise; "" is its default */
	bool		asked;			/* is "host" a name that is being looked up? */
	DtxNameAnswer *answer;		/* what came of that, or NULL: nothing yet */
} DtxHost;

/* Where a target leads; all in one memory context. */
typedef struct DtxHosts
{
	int			n;
	DtxHost    *hosts;
	bool		pending;		/* is any of their names not known yet? */
} DtxHosts;

extern DtxHosts *DtxHostsFind(const DtxTarget *target, const char **error);
extern bool DtxHostsHaveAddresses(DtxHosts *hosts, const char **error);
extern PGconn *DtxHostsConnect(const DtxHosts *hosts, const DtxTarget *target);

#endif							/* PG_DTX_HOSTS_H */
