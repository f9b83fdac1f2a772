/*-------------------------------------------------------------------------
 *
 * names.h
 *		Host names, looked up without waiting for anybody.
 *
 * DtxNameLookUp() says what is known of a name, and has it looked up if nothing is;
 * the caller asks again when DtxNamesProcess() has returned true.  The sockets of
 * DtxNamesSocket() are waited for together with the caller's own, until DtxNamesUntil()
 * at most, and then DtxNamesProcess() is called.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_NAMES_H
#define PG_DTX_NAMES_H

#include <netinet/in.h>

#include "base/backoff.h"

/* Addresses of one name that are used; the others are not. */
#define DTX_NAME_MAX_ADDRESSES	8

/* A name takes no longer than this, milliseconds; then it counts as not known. */
#define DTX_NAME_TIMEOUT		5000

typedef enum DtxNameStatus
{
	DTX_NAME_PENDING,			/* ask again */
	DTX_NAME_KNOWN,				/* there are addresses */
	DTX_NAME_FAILED				/* there is an error */
} DtxNameStatus;

typedef struct DtxNameAnswer
{
	int			naddresses;
	char		addresses[DTX_NAME_MAX_ADDRESSES][INET6_ADDRSTRLEN];	/* the best first */
	char		error[128];
} DtxNameAnswer;

extern void DtxNamesAttach(void);
extern void DtxNamesDetach(void);
extern bool DtxNameIsNumeric(const char *name);
extern DtxNameStatus DtxNameLookUp(const char *name, const DtxNameAnswer **answer);
extern int	DtxNamesSockets(void);
extern void DtxNamesSocket(int i, pgsocket *sock, uint32 *events);
extern uint64 DtxNamesSocketsVersion(void);
extern void DtxNamesReady(int i, uint32 events);
extern DtxMoment DtxNamesUntil(void);
extern bool DtxNamesProcess(void);

#endif							/* PG_DTX_NAMES_H */
