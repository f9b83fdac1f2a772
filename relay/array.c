/*-------------------------------------------------------------------------
 *
 * array.c
 *		Arrays of texts as the database writes them.
 *
 *-------------------------------------------------------------------------
 */
#include "array.h"

#include <stdlib.h>
#include <string.h>

#include "util.h"

char	  **
array_read(const char *text, int *n)
{
	char	  **elements = NULL;
	const char *s = text;

	*n = 0;
	if (*s == '{')
		s++;
	while (*s && *s != '}')
	{
		char	   *element = must_alloc(strlen(s) + 1);
		char	   *p = element;

		if (*s == '"')
		{
			for (s++; *s && *s != '"'; s++)
			{
				if (*s == '\\' && s[1])
					s++;
				*p++ = *s;
			}
			if (*s == '"')
				s++;
		}
		else
		{
			while (*s && *s != ',' && *s != '}')
				*p++ = *s++;
		}
		elements = must_realloc(elements, sizeof(char *) * (size_t) (*n + 1));
		elements[(*n)++] = element;
		if (*s == ',')
			s++;
	}
	return elements;
}

void
array_free(char **elements, int n)
{
	for (int i = 0; i < n; i++)
		free(elements[i]);
	free(elements);
}
