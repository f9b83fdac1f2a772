/*-------------------------------------------------------------------------
 *
 * fuzz_gid.c
 *		What is read from other machines without libpq's help: gids and numbers.
 *
 * Built with clang -fsanitize=fuzzer (make fuzz), or with any compiler and
 * -DSTANDALONE: then it makes its own inputs, by changing good ones, for as
 * many seconds as its argument says.
 *
 * A text that is taken for a gid must be the very text that DtxGidFormat() makes
 * of it, and nothing but letters, digits and colons, because it is put between
 * quotes in commands.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "base/gid.h"

extern int	LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
check(bool ok, const char *what, const char *text)
{
	if (ok)
		return;
	fprintf(stderr, "%s: \"%s\"\n", what, text);
	abort();
}

static void
check_gid(const char *text)
{
	DtxGid		gid;
	DtxGid		again;
	char		formatted[DTX_GID_SIZE];
	char		stem[DTX_GID_SIZE];
	char		prefix[DTX_GID_SIZE];

	if (!DtxGidParse(text, &gid))
		return;
	DtxGidFormat(&gid, formatted);
	check(strcmp(text, formatted) == 0, "not the text of its gid", text);
	check(strlen(text) < DTX_GID_SIZE, "too long", text);
	check(strspn(text, "0123456789abcdefdstx:") == strlen(text),
		  "not safe between quotes", text);
	check(gid.n > 0 && gid.xid > 0, "no number", text);
	check(DtxGidParse(formatted, &again) &&
		  memcmp(&gid, &again, sizeof(gid)) == 0, "not the same gid", text);
	DtxGidFormatStem(&gid, stem);
	DtxGidFormatPrefix(gid.coordinator_id, gid.dbid, prefix);
	check(strncmp(text, stem, strlen(stem)) == 0 &&
		  strncmp(text, prefix, strlen(prefix)) == 0, "odd beginning", text);
}

static void
check_number(const char *text)
{
	static const uint64 limits[] = {0, 9, 255, PG_UINT32_MAX, PG_INT64_MAX, PG_UINT64_MAX};

	for (int i = 0; i < lengthof(limits); i++)
	{
		uint64		value = DtxNumberParse(text, limits[i]);
		char		formatted[32];

		check(value <= limits[i], "too big", text);
		if (value == 0)
			continue;
		snprintf(formatted, sizeof(formatted), "%llu", (unsigned long long) value);
		check(strcmp(text, formatted) == 0, "not the text of its number", text);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* of exactly this size, so that reading past the end is noticed */
	char	   *text = malloc(size + 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[		size] = '\0';

	check_gid(text);
	check_number(text);
	free(text);
	return 0;
}

#ifdef STANDALONE
static uint64 state = 88172645463325252ULL;

static uint64
next_random(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

int
main(int argc, char **argv)
{
	static const char *const seeds[] = {
		"dtx:0123456789abcdef:16384:fedcba9876543210:1234567890123:1:0f1e2d3c4b5a6978",
		"dtx:ffffffffffffffff:4294967295:ffffffffffffffff:9223372036854775807:4294967295:ffffffffffffffff",
		"dtx:ffffffffffffffff:4294967295:ffffffffffffffff:s9223372036854775807:18446744073709551615:4294967295:9223372036854775807:ffffffffffffffff:4294967295:4294967295:ffffffffffffffff",
		"dtx:0000000000000000:1:0000000000000001:3:64:0000000000000000",
		"18446744073709551615", "9223372036854775807", "0", "-1", " 7", "00", ""
	};
	static const char alphabet[] = "dtx:0123456789abcdefsABCDEFS '\\\"-+.\n\x80\xff";
	time_t		end = time(NULL) + (argc > 1 ? atoi(argv[1]) : 1);
	uint64		inputs = 0;
	uint64		taken = 0;

	while (time(NULL) < end)
	{
		for (int i = 0; i < 10000; i++)
		{
			char text[	256];
			DtxGid		gid;
			int			changes;
			size_t		len;

			strcpy(text, seeds[next_random() % lengthof(seeds)]);
			changes = next_random() % 4;
			while (changes-- > 0)
			{
				size_t		at;

				len = strlen(text);
				at = next_random() % (len + 1);
				switch (next_random() % 3)
				{
					case 0:		/* another character */
						if (at < len)
							text[		at] = alphabet[next_random() % (sizeof(alphabet) - 1)];

						break;
					case 1:		/* one more */
						if (len < sizeof(text) - 1)
						{
							memmove(text +at + 1, text +at, len - at + 1);
							text[		at] = alphabet[next_random() % (sizeof(alphabet) - 1)];
						}
						break;
					case 2:		/* one less, or the end */
						if (next_random() % 4 == 0)
							text[		at] = '\0';

						else if (at < len)
							memmove(text +at, text +at + 1, len - at);
						break;
				}
			}
			LLVMFuzzerTestOneInput((const uint8_t *) text, strlen(text));
			inputs++;
			if (DtxGidParse(text, &gid))
				taken++;
		}
	}
	printf("%llu inputs, %llu of them gids\n", (unsigned long long) inputs,
		   (unsigned long long) taken);
	return taken == 0;
}
#endif
