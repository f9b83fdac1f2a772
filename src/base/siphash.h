/*-------------------------------------------------------------------------
 *
 * siphash.h
 *		SipHash-2-4: a message authentication code for short messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SIPHASH_H
#define PG_DTX_SIPHASH_H

#define DTX_SIPHASH_KEY_SIZE	16

extern uint64 DtxSipHash(const uint8 *key, const char *data, size_t len);

#endif							/* PG_DTX_SIPHASH_H */
