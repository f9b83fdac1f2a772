/*-------------------------------------------------------------------------
 *
 * fdw_library.h
 *		Which libraries of this process are a postgres_fdw, and call our wrappers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_FDW_LIBRARY_H
#define PG_DTX_FDW_LIBRARY_H

extern void DtxFdwLibraryInit(const char *const *names, int n);
extern bool DtxFdwLibraryIsOurs(const void *address);
extern bool DtxFdwLibraryLoaded(void);
extern bool DtxFdwLibraryContains(const void *address);
extern bool DtxFdwLibraryFind(const void *address);
extern bool DtxFdwLibraryCallsUs(const void *handler);
extern bool DtxFdwLibraryAnyPassesBy(void);

#endif							/* PG_DTX_FDW_LIBRARY_H */
