/*-------------------------------------------------------------------------
 *
 * gid.c
 *		The global transaction identifier: its text form and its strict parser,
 *		and that of numbers.
 *
 * A gid names one participant of one distributed transaction:
 *
 *		dtx:<coordinator id>:<database>:<boot id>:<xid>:<n>:<seal>
 *
 * or, if a server decides, in which case that transaction has a number instead of
 * an xid, and the xid is that of the deciding transaction on its server:
 *
 *		dtx:<coordinator id>:<database>:<boot id>:s<number>:<system identifier>:
 *			<timeline>:<xid>:<position>:<foreign server>:<n>:<seal>
 *
 * The coordinator id, the boot id, the position in the WAL and the seal are 16
 * lower-case hexadecimal digits, the other fields decimal numbers without sign or leading zeros.  The
 * text comes back from another machine (pg_prepared_xacts of a participant),
 * where every role may prepare a transaction under any name, so the parser takes
 * exactly what DtxGidFormat() writes and nothing else: two different texts
 * never mean the same gid, and no text outside [0-9a-fstx:] passes, which is
 * why a parsed gid may be put between single quotes in a command.
 *
 * The seal is a message authentication code of all other fields under a secret
 * of the coordinator's database (DtxSeal in identity.c).  A name that the
 * coordinator has not given cannot be made by anybody else, neither in advance
 * nor of another participant of the same transaction.
 *
 * Nothing here allocates, locks or throws.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/transam.h"
#include "base/gid.h"

#define GID_MAGIC		"dtx:"
#define GID_HEX_DIGITS	16

static char *put_stem(char *end, const DtxGid *gid);
static char *put_prefix(char *end, uint64 coordinator_id, Oid dbid);
static char *put_hex(char *end, uint64 value);
static char *put_decimal(char *end, uint64 value);
static char *put_colon(char *end);
static bool parse_hex(const char **p, uint64 *value);
static bool parse_decimal(const char **p, uint64 max, uint64 *value);
static bool parse_colon(const char **p);
static bool parse_decider(const char **p, DtxGid *gid);

/*
 * Write the text of a gid into buf, which has room for DTX_GID_SIZE bytes.
 */
void
DtxGidFormat(const DtxGid *gid, char *buf)
{
	char	   *end = put_stem(buf, gid);

	end = put_decimal(put_colon(end), gid->n);
	end = put_hex(put_colon(end), gid->seal);
	*end = '\0';
}

/*
 * Write what the gids of all participants of a transaction have in common, without the
 * trailing colon.  buf has room for DTX_GID_SIZE bytes.
 */
void
DtxGidFormatStem(const DtxGid *gid, char *buf)
{
	*put_stem(buf, gid) = '\0';
}

/* Likewise, without a NUL; returns the end. */
static char *
put_stem(char *end, const DtxGid *gid)
{
	const DtxDecider *d = &gid->decider;

	end = put_prefix(end, gid->coordinator_id, gid->dbid);
	end = put_colon(put_hex(end, gid->boot_id));
	if (!DtxGidDecidedElsewhere(gid))
		return put_decimal(end, gid->xid);
	*end++ = 's';
	end = put_colon(put_decimal(end, gid->xid & ~DTX_NUMBERED));
	end = put_colon(put_decimal(end, d->system_id));
	end = put_colon(put_decimal(end, d->timeline));
	end = put_colon(put_decimal(end, d->xid));
	end = put_colon(put_hex(end, d->lsn));
	return put_decimal(end, d->serverid);
}

/*
 * Write what all gids of one coordinator database have in common, with the trailing
 * colon.  Likewise.
 */
void
DtxGidFormatPrefix(uint64 coordinator_id, Oid dbid, char *buf)
{
	*put_prefix(buf, coordinator_id, dbid) = '\0';
}

static char *
put_prefix(char *end, uint64 coordinator_id, Oid dbid)
{
	memcpy(end, GID_MAGIC, strlen(GID_MAGIC));
	end += strlen(GID_MAGIC);
	end = put_colon(put_hex(end, coordinator_id));
	return put_colon(put_decimal(end, dbid));
}

/* (snprintf() would take most of the time that a commit takes here.) */
static char *
put_hex(char *end, uint64 value)
{
	for (int i = GID_HEX_DIGITS - 1; i >= 0; i--, value >>= 4)
		end[i] = "0123456789abcdef"[value & 0xf];
	return end + GID_HEX_DIGITS;
}

static char *
put_decimal(char *end, uint64 value)
{
	char		digits[20];
	int			n = 0;

	do
	{
		digits[n++] = '0' + value % 10;
		value /= 10;
	} while (value > 0);
	while (n > 0)
		*end++ = digits[--n];
	return end;
}

static char *
put_colon(char *end)
{
	*end++ = ':';
	return end;
}

/*
 * Parse a gid.  Returns false, with *gid undefined, if the text is not exactly
 * what DtxGidFormat() would have written.
 */
bool
DtxGidParse(const char *text, DtxGid *gid)
{
	const char *p = text;
	uint64		value;

	memset(gid, 0, sizeof(DtxGid));

	if (strncmp(p, GID_MAGIC, strlen(GID_MAGIC)) != 0)
		return false;
	p += strlen(GID_MAGIC);

	if (!parse_hex(&p, &gid->coordinator_id) || !parse_colon(&p))
		return false;

	if (!parse_decimal(&p, PG_UINT32_MAX, &value) || !parse_colon(&p))
		return false;
	gid->dbid = (Oid) value;

	if (!parse_hex(&p, &gid->boot_id) || !parse_colon(&p))
		return false;

	if (*p == 's')
	{
		p++;
		if (!parse_decider(&p, gid))
			return false;
	}
	else if (!parse_decimal(&p, DTX_NUMBERED - 1, &gid->xid) ||
			 !TransactionIdIsNormal((TransactionId) gid->xid))
		return false;
	if (!parse_colon(&p))
		return false;

	if (!parse_decimal(&p, PG_UINT32_MAX, &value) || value == 0 ||
		!parse_colon(&p))
		return false;
	gid->n = (uint32) value;

	if (!parse_hex(&p, &gid->seal))
		return false;

	return *p == '\0';
}

/* The number of a transaction that is decided by a server, and what decides it. */
static bool
parse_decider(const char **p, DtxGid *gid)
{
	DtxDecider *d = &gid->decider;
	uint64		value;

	if (!parse_decimal(p, DTX_NUMBERED - 1, &gid->xid) || gid->xid == 0 ||
		!parse_colon(p) ||
		!parse_decimal(p, PG_UINT64_MAX, &d->system_id) || d->system_id == 0 ||
		!parse_colon(p) ||
		!parse_decimal(p, PG_UINT32_MAX, &d->timeline) || d->timeline == 0 ||
		!parse_colon(p) ||
		!parse_decimal(p, PG_INT64_MAX, &d->xid) ||
		!TransactionIdIsNormal((TransactionId) d->xid) || !parse_colon(p) ||
		!parse_hex(p, &d->lsn) || d->lsn == 0 || !parse_colon(p) ||
		!parse_decimal(p, PG_UINT32_MAX, &value) || value == InvalidOid)
		return false;
	d->serverid = (Oid) value;
	gid->xid |= DTX_NUMBERED;
	return true;
}

/*
 * Parse a number that another machine has sent: decimal, without sign or leading
 * zeros, at most max.  Returns 0, which all its callers take for "not known", if
 * it is anything else.
 */
uint64
DtxNumberParse(const char *text, uint64 max)
{
	uint64		value;

	return parse_decimal(&text, max, &value) && *text == '\0' ? value : 0;
}

/*
 * The timeline in the name of a WAL file that another machine has sent: the first
 * 8 of its 24 hexadecimal digits (XLogFileName() in access/xlog_internal.h).
 * Returns 0, "not known", if it is anything else.
 */
uint64
DtxTimelineParse(const char *text)
{
	uint64		value = 0;

	if (strlen(text) != 24 || strspn(text, "0123456789ABCDEF") != 24)
		return 0;
	for (int i = 0; i < 8; i++)
		value = (value << 4) |
			(uint64) (text[i] <= '9' ? text[i] - '0' : text[i] - 'A' + 10);
	return value;
}

/*
 * A position in the WAL that another machine has sent: two hexadecimal numbers (pg_lsn_out
 * in utils/adt/pg_lsn.c).  Returns 0, "not known", if it is anything else.
 */
uint64
DtxLsnParse(const char *text)
{
	uint64		value[2] = {0, 0};
	int			half = 0;
	int			digits = 0;

	for (const char *c = text;; c++)
	{
		if (*c >= '0' && *c <= '9')
			value[half] = (value[half] << 4) | (uint64) (*c - '0');
		else if (*c >= 'A' && *c <= 'F')
			value[half] = (value[half] << 4) | (uint64) (*c - 'A' + 10);
		else if (digits > 0 && half == 0 && *c == '/')
		{
			half = 1;
			digits = 0;
			continue;
		}
		else
			return *c == '\0' && half == 1 && digits > 0 ?
				(value[0] << 32) | value[1] : 0;
		if (++digits > 8)
			return 0;
	}
}

/* Exactly 16 lower-case hexadecimal digits. */
static bool
parse_hex(const char **p, uint64 *value)
{
	*value = 0;
	for (int i = 0; i < GID_HEX_DIGITS; i++)
	{
		char		c = **p;

		if (c >= '0' && c <= '9')
			*value = (*value << 4) | (uint64) (c - '0');
		else if (c >= 'a' && c <= 'f')
			*value = (*value << 4) | (uint64) (c - 'a' + 10);
		else
			return false;
		(*p)++;
	}
	return true;
}

/* A decimal number without sign or leading zeros, at most max. */
static bool
parse_decimal(const char **p, uint64 max, uint64 *value)
{
	const char *start = *p;

	*value = 0;
	while (**p >= '0' && **p <= '9')
	{
		uint64		digit = (uint64) (**p - '0');

		if (digit > max || *value > (max - digit) / 10)
			return false;
		*value = *value * 10 + digit;
		(*p)++;
	}
	if (*p == start)
		return false;
	return *start != '0' || *p == start + 1;
}

static bool
parse_colon(const char **p)
{
	if (**p != ':')
		return false;
	(*p)++;
	return true;
}
