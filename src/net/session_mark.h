/*-------------------------------------------------------------------------
 *
 * session_mark.h
 *		By what coordinators know each other's sessions on a server.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_SESSION_MARK_H
#define PG_DTX_SESSION_MARK_H

/* First key of the advisory locks that are marks: "dtx1". */
#define DTX_SESSION_MARK_CLASS	"1685354545"

extern uint32 DtxSessionMark(void);

#endif							/* PG_DTX_SESSION_MARK_H */
