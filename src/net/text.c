/*-------------------------------------------------------------------------
 *
 * text.c
 *		Texts that a server has sent: cleaned, and not longer than they may be.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/encoding.h"
#include "fmgr.h"
#include "libpq-fe.h"
#include "mb/pg_wchar.h"
#include "net/text.h"
#include "utils/palloc.h"

/*
 * A value of a single-row result, or NULL if it is null, is not there, or is longer
 * than "maxlen" bytes.  As long as the result lives.
 */
const char *
DtxRemoteValue(const PGresult *res, int column, int maxlen)
{
	if (column >= PQnfields(res) || PQgetisnull(res, 0, column) ||
		PQfformat(res, column) != 0 || PQgetlength(res, 0, column) > maxlen)
		return NULL;
	return PQgetvalue(res, 0, column);
}

/*
 * A palloc'd copy of a text from elsewhere that is safe to show: on one line,
 * valid in the database encoding, at most "maxlen" bytes.  A line that is followed by one
 * that begins with a capital, as in libpq's messages, gets a period.
 */
char *
DtxCleanText(const char *text, int maxlen)
{
	int			len = strlen(text);
	bool		newline = false;
	char	   *copy;
	char	   *dest;

	/* Drop libpq's trailing newline. */
	while (len > 0 && (text[len - 1] == '\n' || text[len - 1] == ' '))
		len--;

	len = Min(len, maxlen + MAX_MULTIBYTE_CHAR_LEN);

	/* One blank for each run of control characters and blanks. */
	dest = copy = palloc(2 * len + 1);
	for (const char *p = text; p < text +len && *p; p++)
	{
		bool		blank = (unsigned char) *p <= ' ' || *p == 0x7f;

		newline |= *p == '\n';
		if (blank)
		{
			if (dest > copy && dest[-1] != ' ')
				*dest++ = ' ';
			continue;
		}
		if (newline && *p >= 'A' && *p <= 'Z' && dest > copy + 1 &&
			strchr(".,:;?!", dest[-2]) == NULL)
		{
			dest[-1] = '.';
			*dest++ = ' ';
		}
		newline = false;
		*dest++ = *p;
	}
	*dest = '\0';
	len = dest - copy;

	if (len > maxlen)
	{
		/* may be invalid before the clipping, so look at bytes only */
		len = maxlen;
		while (len > 0 && IS_HIGHBIT_SET(copy[len]) &&
			   IS_HIGHBIT_SET(copy[len - 1]))
			len--;
		copy[len] = '\0';
	}

	DtxTextMakeValid(copy);
	return copy;
}

/*
 * A palloc'd copy of a field of a remote error, in a form that can be passed on,
 * with its line breaks; or NULL.
 */
char *
DtxRemoteText(const PGresult *res, int field)
{
	const char *text = PQresultErrorField(res, field);
	int			len;

	if (text == NULL || text[0] == '\0')
		return NULL;
	len = strlen(text);
	if (len <= DTX_MAX_REMOTE_TEXT && pg_verifymbstr(text, len, true))
		return pstrdup(text);
	return DtxCleanText(text, DTX_MAX_REMOTE_TEXT);
}

/*
 * Within ereport(): pass on the names of the objects that a remote error is about,
 * which applications look at: a constraint, its table, and the like.  They are
 * those of the remote objects.
 */
int
DtxRemoteFields(const PGresult *res)
{
	static const int fields[] = {
		PG_DIAG_SCHEMA_NAME, PG_DIAG_TABLE_NAME, PG_DIAG_COLUMN_NAME,
		PG_DIAG_DATATYPE_NAME, PG_DIAG_CONSTRAINT_NAME
	};

	for (int i = 0; i < lengthof(fields); i++)
	{
		char	   *name = DtxRemoteText(res, fields[i]);

		if (name != NULL)
			(void) err_generic_string(fields[i], name);
	}
	return 0;
}
