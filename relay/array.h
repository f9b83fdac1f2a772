/*-------------------------------------------------------------------------
 *
 * array.h
 *		Arrays of texts as the database writes them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RELAY_ARRAY_H
#define RELAY_ARRAY_H

/* The elements of an array in text form, of which none is NULL; array_free() frees them. */
extern char **array_read(const char *text, int *n);
extern void array_free(char **elements, int n);

#endif							/* RELAY_ARRAY_H */
