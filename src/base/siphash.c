/*-------------------------------------------------------------------------
 *
 * siphash.c
 *		SipHash-2-4: a message authentication code for short messages.
 *
 * By Aumasson and Bernstein ("SipHash: a fast short-input PRF", 2012): who does not know
 * the key of 128 bits cannot tell the codes of 64 bits from random numbers, however many
 * he has seen.  PostgreSQL has HMACs (common/hmac.h), which the library of OpenSSL
 * computes; that takes longer than all else that names a transaction, and allocates.
 *
 * Nothing here allocates, locks or throws.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/siphash.h"

/* Rounds for each word of the message, and in the end. */
#define WORD_ROUNDS		2
#define LAST_ROUNDS		4

static inline uint64
rotate(uint64 word, int bits)
{
	return (word << bits) | (word >> (64 - bits));
}

static inline void
mix(uint64 *v, int rounds)
{
	for (int i = 0; i < rounds; i++)
	{
		v[0] += v[1];
		v[1] = rotate(v[1], 13) ^ v[0];
		v[0] = rotate(v[0], 32);
		v[2] += v[3];
		v[3] = rotate(v[3], 16) ^ v[2];
		v[0] += v[3];
		v[3] = rotate(v[3], 21) ^ v[0];
		v[2] += v[1];
		v[1] = rotate(v[1], 17) ^ v[2];
		v[2] = rotate(v[2], 32);
	}
}

/* Of "len" bytes, 8 at most, the first is the lowest. */
static inline uint64
word_of(const uint8 *bytes, size_t len)
{
	uint64		word = 0;

	for (size_t i = 0; i < len; i++)
		word |= (uint64) bytes[i] << (8 * i);
	return word;
}

/*
 * The code of a message under a key of DTX_SIPHASH_KEY_SIZE bytes.
 */
uint64
DtxSipHash(const uint8 *key, const char *data, size_t len)
{
	const uint8 *bytes = (const uint8 *) data;
	uint64		k0 = word_of(key, 8);
	uint64		k1 = word_of(key + 8, 8);
	uint64		v[4] = {
		k0 ^ UINT64CONST(0x736f6d6570736575),
		k1 ^ UINT64CONST(0x646f72616e646f6d),
		k0 ^ UINT64CONST(0x6c7967656e657261),
		k1 ^ UINT64CONST(0x7465646279746573)
	};
	size_t		left = len;
	uint64		word;

	for (; left >= 8; left -= 8, bytes += 8)
	{
		word = word_of(bytes, 8);
		v[3] ^= word;
		mix(v, WORD_ROUNDS);
		v[0] ^= word;
	}
	word = word_of(bytes, left) | (uint64) (len & 0xff) << 56;
	v[3] ^= word;
	mix(v, WORD_ROUNDS);
	v[0] ^= word;
	v[2] ^= 0xff;
	mix(v, LAST_ROUNDS);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}
