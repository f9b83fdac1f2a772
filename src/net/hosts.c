/*-------------------------------------------------------------------------
 *
 * hosts.c
 *		Which hosts a target leads to, and their addresses: what libpq would find out itself,
 *		and wait for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <netdb.h>

#include "lib/stringinfo.h"
#include "libpq-fe.h"
#include "net/hosts.h"
#include "net/names.h"
#include "net/target.h"
#include "utils/palloc.h"

/* Of a list of hosts so many are tried at a time; next time from another one on. */
#define MAX_HOSTS				32

/* Not a valid sslmode: see DtxHostsFind(). */
#define DRY_RUN					"pg_dtx-dry-run"

/* Where the text of an error stops, bytes. */
#define MAX_TEXT				1000

#define GSS_REQUIRED	"gssencmode=require needs Kerberos, which pg_dtx does not use where a password is required"

static int	count_elements(const char *list);
static void split_list(const char *list, int count, char **elements);
static const char *no_address(const DtxHosts *hosts);

/*
 * Find out which hosts libpq would connect to for a target: from options, service file and
 * environment, which only libpq knows all of (fe-connect.c, conninfo_add_defaults()).
 * So it is asked to connect with an option that is refused after all that was read,
 * and before anything is looked up (fe-connect.c, connectOptions2()).
 *
 * Returns them in the current memory context, with their names still to be looked up
 * (DtxHostsHaveAddresses), or NULL with *error, in the same context.  May throw if out
 * of memory.
 */
DtxHosts *
DtxHostsFind(const DtxTarget *target, const char **error)
{
	DtxHosts   *volatile result = NULL;
	const char **keywords;
	const char **values;
	PGconn	   *volatile conn = NULL;
	PQconninfoOption *volatile info = NULL;
	int			n = 0;

	*error = NULL;
	while (target->keywords[n] != NULL)
		n++;
	keywords = palloc((n + 2) * sizeof(char *));
	values = palloc((n + 2) * sizeof(char *));
	memcpy(keywords, target->keywords, n * sizeof(char *));
	memcpy(values, target->values, n * sizeof(char *));
	keywords[n] = "sslmode";
	values[n++] = DRY_RUN;
	keywords[n] = values[n] = NULL;

	PG_TRY();
	{
		conn = PQconnectStartParams(keywords, values, 0);
		info = conn != NULL ? PQconninfo(conn) : NULL;
		if (info == NULL)
			*error = pstrdup("out of memory");
		else if (strstr(PQerrorMessage(conn), DRY_RUN) == NULL)
			*error = pstrdup(PQerrorMessage(conn));
		else
		{
			const char *host = "";
			const char *hostaddr = "";
			const char *port = "";
			const char *gssencmode = "";
			int			count;
			char	  **hosts;
			char	  **hostaddrs;
			char	  **ports;
			DtxHosts   *found;

			for (PQconninfoOption *option = info; option->keyword; option++)
			{
				if (option->val == NULL)
					continue;
				if (strcmp(option->keyword, "host") == 0)
					host = option->val;
				else if (strcmp(option->keyword, "hostaddr") == 0)
					hostaddr = option->val;
				else if (strcmp(option->keyword, "port") == 0)
					port = option->val;
				else if (strcmp(option->keyword, "gssencmode") == 0)
					gssencmode = option->val;
			}
			if (target->need_password && strcmp(gssencmode, "require") == 0)
				*error = pstrdup(GSS_REQUIRED);

			/* That these fit together has been checked by libpq. */
			count = count_elements(hostaddr[0] ? hostaddr : host);
			hosts = palloc(count * sizeof(char *));
			hostaddrs = palloc(count * sizeof(char *));
			ports = palloc(count * sizeof(char *));
			split_list(host, count, hosts);
			split_list(hostaddr, count, hostaddrs);
			split_list(port, count, ports);

			found = palloc0(sizeof(DtxHosts));
			found->n = Min(count, MAX_HOSTS);
			found->hosts = palloc0(found->n * sizeof(DtxHost));
			for (int i = 0; i < found->n; i++)
			{
				DtxHost    *h = &found->hosts[i];
				int			from = (target->attempt % count + i) % count;

				h->host = hosts[from];
				h->hostaddr = hostaddrs[from];
				h->port = ports[from];
				if (h->host[0] == '\0' && h->hostaddr[0] == '\0' &&
					DEFAULT_PGSOCKET_DIR[0] == '\0')
					h->host = "localhost";	/* fe-connect.c, DefaultHost */
				if (h->hostaddr[0] != '\0' || h->host[0] == '\0' ||
					h->host[0] == '/' || h->host[0] == '@')
					continue;
				if (DtxNameIsNumeric(h->host))
					h->hostaddr = h->host;
				else
				{
					h->asked = true;
					found->pending = true;
				}
			}
			result = found;
		}
	}
	PG_FINALLY();
	{
		if (info != NULL)
			PQconninfoFree(info);
		if (conn != NULL)
			PQfinish(conn);
	}
	PG_END_TRY();

	return *error == NULL ? result : NULL;
}

static int
count_elements(const char *list)
{
	int			n = 1;

	for (; *list; list++)
	{
		if (*list == ',')
			n++;
	}
	return n;
}

/*
 * The "count" elements of a comma-separated list, palloc'd.  If it has fewer, the last
 * one is repeated: a port may be there once for all hosts.
 */
static void
split_list(const char *list, int count, char **elements)
{
	for (int i = 0; i < count; i++)
	{
		const char *end = list + strcspn(list, ",");

		elements[i] = pnstrdup(list, end - list);
		if (*end == ',')
			list = end + 1;
	}
}

/*
 * Are all names of hosts known by now, as far as they can be?  What is not is being
 * looked up: ask again when DtxNamesProcess() has found something.  If not even one
 * host has an address, returns false with *error.
 *
 * In the memory context in which the hosts were made.  May throw if out of memory.
 */
bool
DtxHostsHaveAddresses(DtxHosts *hosts, const char **error)
{
	bool		pending = false;
	bool		any = false;

	*error = NULL;
	if (!hosts->pending)
		return true;
	for (int i = 0; i < hosts->n; i++)
	{
		DtxHost    *h = &hosts->hosts[i];
		const DtxNameAnswer *answer;

		if (h->asked && h->answer == NULL)
		{
			if (DtxNameLookUp(h->host, &answer) == DTX_NAME_PENDING)
			{
				pending = true;
				continue;
			}
			h->answer = palloc(sizeof(DtxNameAnswer));
			*h->answer = *answer;
		}
		any |= !h->asked || h->answer->naddresses > 0;
	}
	if (pending)
		return false;
	hosts->pending = false;
	if (!any)
		*error = no_address(hosts);
	return any;
}

/*
 * Say why there is no address to connect to.
 */
static const char *
no_address(const DtxHosts *hosts)
{
	StringInfoData text;

	initStringInfo(&text);
	for (int i = 0; i < hosts->n; i++)
	{
		const DtxHost *h = &hosts->hosts[i];

		appendStringInfo(&text,
						 "%scould not translate host name \"%s\" to address: %s",
						 i > 0 ? "; " : "", h->host, h->answer->error);
		if (text.len > MAX_TEXT)
			break;
	}
	return text.data;
}

/*
 * PQconnectStartParams() for a target with the addresses that were found: one element
 * of libpq's lists for each of them, because it takes one address per element.  What it
 * allocates is left in the current memory context.  Returns NULL if libpq is out of
 * memory; may throw if we are.
 */
PGconn *
DtxHostsConnect(const DtxHosts *hosts, const DtxTarget *target)
{
	StringInfoData host;
	StringInfoData hostaddr;
	StringInfoData port;
	const char **keywords;
	const char **values;
	int			n = 0;
	int			nelements = 0;

	initStringInfo(&host);
	initStringInfo(&hostaddr);
	initStringInfo(&port);
	for (int i = 0; i < hosts->n; i++)
	{
		const DtxHost *h = &hosts->hosts[i];
		int			naddresses = h->asked ? h->answer->naddresses : 1;

		for (int j = 0; j < naddresses; j++)
		{
			const char *comma = nelements++ > 0 ? "," : "";
			int			from = (target->attempt / hosts->n + j) % naddresses;

			appendStringInfo(&host, "%s%s", comma, h->host);
			appendStringInfo(&hostaddr, "%s%s", comma,
							 h->asked ? h->answer->addresses[from] : h->hostaddr);
			appendStringInfo(&port, "%s%s", comma, h->port);
		}
	}

	while (target->keywords[n] != NULL)
		n++;
	keywords = palloc((n + 6) * sizeof(char *));
	values = palloc((n + 6) * sizeof(char *));
	memcpy(keywords, target->keywords, n * sizeof(char *));
	memcpy(values, target->values, n * sizeof(char *));

	/* Of an option that is there twice the last one counts. */
	keywords[n] = "host";
	values[n++] = host.data;
	keywords[n] = "hostaddr";
	values[n++] = hostaddr.data;
	keywords[n] = "port";
	values[n++] = port.data;

	/*
	 * Who must bring a password gets no ticket of this server's.  Nor does
	 * Kerberos' library look up "host", which it does as soon as the server
	 * asks for a ticket, whatever we have (lib/gssapi/krb5/import_name.c):
	 * what it gets as the host's name is too long to be asked for (libpq
	 * appends "@" and the name to krbsrvname: fe-gssapi-common.c,
	 * pg_GSS_load_servicename).
	 */
	if (target->need_password)
	{
		char	   *service = psprintf("postgres@%0*d", NI_MAXHOST, 0);

		keywords[n] = "gssencmode";
		values[n++] = "disable";
		keywords[n] = "krbsrvname";
		values[n++] = service;
	}
	keywords[n] = values[n] = NULL;

	return PQconnectStartParams(keywords, values, 0);
}
