/*-------------------------------------------------------------------------
 *
 * encoding.h
 *		Texts that may not be valid in this database's encoding.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_ENCODING_H
#define PG_DTX_ENCODING_H

extern void DtxTextClip(char *dest, const char *source, int size);
extern void DtxTextMakeValid(char *text);

#endif							/* PG_DTX_ENCODING_H */
