/*-------------------------------------------------------------------------
 *
 * encoding.c
 *		Texts that may not be valid in this database's encoding: they come from
 *		another machine, or have been cut anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/encoding.h"
#include "mb/pg_wchar.h"

/*
 * Copy as much of a text as fits into "size" bytes with its NUL, without cutting a
 * multibyte character in two.  NULL is copied as an empty text.  Never throws.
 */
void
DtxTextClip(char *dest, const char *source, int size)
{
	int			len = 0;

	if (source != NULL)
	{
		/* a text that ends within a character is clipped behind its end */
		len = strlen(source);
		len = Min(len, pg_mbcliplen(source, len, size - 1));
		memcpy(dest, source, len);
	}
	dest[len] = '\0';
}

/*
 * What is not text in this database's encoding must not get into a message or a query's
 * result: replace its bytes by question marks, in place.  Never throws.  A text does
 * not get longer.
 */
void
DtxTextMakeValid(char *text)
{
	if (pg_verifymbstr(text, strlen(text), true))
		return;
	for (char *p = text; *p; p++)
	{
		if (IS_HIGHBIT_SET(*p))
			*p = '?';
	}
}
