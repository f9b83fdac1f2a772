/*-------------------------------------------------------------------------
 *
 * ini.c
 *		Reading a configuration file: sections, and lines "name = value" in them.
 *
 * A line is as long as it likes, and a value is all of it to its end, without the white
 * space around: comments have lines of their own, so that there can be any characters in
 * a password.  (libinih cuts lines, and values at " ;".)
 *
 *-------------------------------------------------------------------------
 */
#include "ini.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Without white space at both ends; in place. */
static char *
trim(char *s)
{
	char	   *end;

	while (isspace((unsigned char) *s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char) end[-1]))
		*--end = '\0';
	return s;
}

bool
ini_read(const char *path, IniLine line, void *arg, char *error, size_t size)
{
	FILE	   *file = fopen(path, "re");
	char	   *buffer = NULL;
	size_t		room = 0;
	ssize_t		len;
	char	   *section = NULL;
	int			number = 0;
	bool		ok = true;

	if (file == NULL)
	{
		snprintf(error, size, "could not open \"%s\": %s", path, strerror(errno));
		return false;
	}
	while (ok && (len = getline(&buffer, &room, file)) >= 0)
	{
		char		why[256] = "";
		bool		zero = memchr(buffer, '\0', (size_t) len) != NULL;
		char	   *s = trim(buffer);
		char	   *equals;

		number++;
		if (zero)
			snprintf(why, sizeof(why), "zero byte");
		else if (*s == '\0' || *s == '#' || *s == ';')
			continue;
		else if (*s == '[')
		{
			size_t		n = strlen(s);

			if (n < 3 || s[n - 1] != ']')
				snprintf(why, sizeof(why), "section without an end, or a name");
			else
			{
				s[n - 1] = '\0';
				free(section);
				section = strdup(trim(s + 1));
				if (section == NULL)
					abort();
			}
		}
		else if ((equals = strchr(s, '=')) == NULL || equals == s)
			snprintf(why, sizeof(why), "neither \"name = value\" nor a section");
		else if (section == NULL)
			snprintf(why, sizeof(why), "in no section");
		else
		{
			*equals = '\0';
			if (!line(arg, section, trim(s), trim(equals + 1), why, sizeof(why)) &&
				why[0] == '\0')
				snprintf(why, sizeof(why), "not understood");
		}
		if (why[0] != '\0')
		{
			snprintf(error, size, "%s, line %d: %s", path, number, why);
			ok = false;
		}
	}
	if (ok && ferror(file))
	{
		snprintf(error, size, "could not read \"%s\": %s", path, strerror(errno));
		ok = false;
	}
	free(section);
	free(buffer);
	fclose(file);
	return ok;
}
