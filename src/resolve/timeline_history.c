/*-------------------------------------------------------------------------
 *
 * timeline_history.c
 *		Where a server has left the timelines that it was on before.
 *
 * A server that was promoted, or restored to a moment in the past, is on a new timeline.
 * A file in its pg_wal says from which timelines that comes, and up to which position in
 * the WAL each of them belongs to it (access/transam/timeline.c).  So what another
 * timeline's WAL had up to there this server has, too, and of what came later it knows
 * nothing.
 *
 * Reading that file takes the right to execute pg_read_file(), which superusers have.
 *
 * Nothing here allocates, locks or throws.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/gid.h"
#include "resolve/timeline_history.h"

/*
 * The question for the history of a timeline, in DTX_HISTORY_QUESTION_SIZE bytes.  It is
 * answered by one value: the text of the file, or null if there is none.
 */
void
DtxHistoryQuestion(uint64 timeline, char *question)
{
	snprintf(question, DTX_HISTORY_QUESTION_SIZE,
			 "SELECT pg_catalog.pg_read_file('pg_wal/%08X.history', 0, %d, true)",
			 (uint32) timeline, DTX_HISTORY_SIZE);
}

/*
 * Up to which position in its WAL does a timeline belong to the one that has this
 * history?  0: it is none of those that that comes from, or the text is no history.
 *
 * A line has the number of a timeline, the position, and a reason (writeTimeLineHistory()
 * in access/transam/timeline.c); any other one does not count.
 */
uint64
DtxHistoryLeftAt(const char *history, uint64 timeline)
{
	for (const char *line = history; line != NULL && line[0] != '\0';)
	{
		const char *next = strchr(line, '\n');
		const char *end = next != NULL ? next : line + strlen(line);
		char		fields[2][32];
		int			n = 0;
		const char *c = line;

		while (n < 2)
		{
			int			len = 0;

			while (c < end && (*c == ' ' || *c == '\t'))
				c++;
			while (c < end && *c != ' ' && *c != '\t' && len < 31)
				fields[n][len++] = *c++;
			fields[n][len] = '\0';

			/* (what nothing follows may have been cut off) */
			if (len == 0 || c >= end || (*c != ' ' && *c != '\t'))
				break;
			n++;
		}
		if (n == 2 && DtxNumberParse(fields[0], PG_UINT32_MAX) == timeline)
			return DtxLsnParse(fields[1]);
		line = next != NULL ? next + 1 : NULL;
	}
	return 0;
}
