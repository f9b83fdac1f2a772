/*-------------------------------------------------------------------------
 *
 * siphash_test.c
 *		SipHash-2-4 against what its authors have published: key 00 01 ... 0f, messages of
 *		so many bytes 00 01 02 ...
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

/* Without libpgport. */
#undef printf
#include <stdio.h>

#include "base/siphash.h"

static const struct
{
	int			len;
	uint64		code;
}			expected[] = {
	{0, UINT64CONST(0x726fdb47dd0e0e31)},
	{1, UINT64CONST(0x74f839c593dc67fd)},
	{7, UINT64CONST(0xab0200f58b01d137)},
	{8, UINT64CONST(0x93f5f5799a932462)},
	{15, UINT64CONST(0xa129ca6149be45e5)}
};

int
main(void)
{
	uint8		key[DTX_SIPHASH_KEY_SIZE];
	char		message[64];
	int			failures = 0;

	for (int i = 0; i < DTX_SIPHASH_KEY_SIZE; i++)
		key[i] = (uint8) i;
	for (int i = 0; i < 64; i++)
		message[i] = (char) i;
	for (int i = 0; i < lengthof(expected); i++)
	{
		uint64		code = DtxSipHash(key, message, expected[i].len);

		if (code != expected[i].code)
		{
			printf("%d bytes: %llx\n", expected[i].len, (unsigned long long) code);
			failures++;
		}
	}
	return failures;
}
