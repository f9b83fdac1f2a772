/*-------------------------------------------------------------------------
 *
 * template.c
 *		Names of exchanges, topics and routing keys with parts of an event in them.
 *
 *-------------------------------------------------------------------------
 */
#include "template.h"

#include <string.h>

#include "util.h"

char *
template_fill(const char *template, const char *aggregatetype, const char *aggregateid,
			  const char *type)
{
	static const char *const names[] = {"{aggregatetype}", "{aggregateid}", "{type}"};
	const char *values[3];
	size_t		len = 0;
	char	   *result = NULL;

	values[0] = aggregatetype;
	values[1] = aggregateid;
	values[2] = type;

	/* once for the length, and once more */
	for (int pass = 0; pass < 2; pass++)
	{
		const char *s = template;

		if (pass == 1)
			result = must_alloc(len + 1);
		len = 0;
		while (*s)
		{
			int			i;

			for (i = 0; i < 3 && strncmp(s, names[i], strlen(names[i])) != 0; i++)
				;
			if (i < 3)
			{
				if (result)
					memcpy(result + len, values[i], strlen(values[i]));
				len += strlen(values[i]);
				s += strlen(names[i]);
			}
			else
			{
				if (result)
					result[len] = *s;
				len++;
				s++;
			}
		}
	}
	return result;
}
