/*-------------------------------------------------------------------------
 *
 * log.c
 *		What the relay tells of itself, on standard error.
 *
 * Under systemd lines begin with their priority, and without a time, which the journal
 * has.
 *
 *-------------------------------------------------------------------------
 */
#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static atomic_int min_level = LOG_LEVEL_INFO;

void
log_set_level(LogLevel level)
{
	atomic_store(&min_level, level);
}

void
say(LogLevel level, const char *format,...)
{
	static const char *const names[] = {"DEBUG", "INFO", "WARNING", "ERROR"};
	static const char *const priorities[] = {"<7>", "<6>", "<4>", "<3>"};
	char		line[2048];
	size_t		len;
	va_list		args;

	if ((int) level < atomic_load(&min_level))
		return;
	if (getenv("JOURNAL_STREAM") != NULL)
		len = (size_t) snprintf(line, sizeof(line), "%s", priorities[level]);
	else
	{
		struct timespec t;
		struct tm	tm;
		char		when[32];

		clock_gettime(CLOCK_REALTIME, &t);
		localtime_r(&t.tv_sec, &tm);
		strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &tm);
		len = (size_t) snprintf(line, sizeof(line), "%s.%03ld [%ld] %s: ", when,
								t.tv_nsec / 1000000, (long) getpid(), names[level]);
	}
	va_start(args, format);
	vsnprintf(line + len, sizeof(line) - len - 1, format, args);
	va_end(args);
	len = strlen(line);
	while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == ' '))
		len--;
	for (size_t i = 0; i < len; i++)
	{
		if ((unsigned char) line[i] < ' ')
			line[i] = ' ';
	}
	line[len++] = '\n';
	/* (one call, so that lines of several threads are not mixed) */
	if (write(STDERR_FILENO, line, len) < 0)
		return;
}
