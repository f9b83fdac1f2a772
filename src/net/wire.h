/*-------------------------------------------------------------------------
 *
 * wire.h
 *		A connection and the queue of the replies that are due on it.
 *
 * Whatever is sent on a wire is entered in its queue, and whatever arrives is the
 * reply to the first command in it: REPLIES COME IN THE ORDER OF THE QUEUE.  What is
 * going on is read from there.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_WIRE_H
#define PG_DTX_WIRE_H

#include "libpq-fe.h"

/* Whose a reply is, and what becomes of it. */
typedef enum DtxReplyKind
{
	DTX_REPLY_READ,				/* who has sent the command reads its results,
								 * with DtxWireRead() */
	DTX_REPLY_JOINED,			/* likewise, but it was sent in a pipeline,
								 * behind others; it becomes MADE when all
								 * results are in */
	DTX_REPLY_START,			/* of START TRANSACTION, in front of one of
								 * these */
	DTX_REPLY_START_FAILED,		/* of one that has failed, until the Sync
								 * behind it: not on the wire any more */
	DTX_REPLY_STEP,				/* of another command in front of one of these */
	DTX_REPLY_HANDLED,			/* goes to a handler */
	DTX_REPLY_DROPPED,			/* is thrown away */
	DTX_REPLY_MADE				/* not on the wire: it is here, to be read
								 * with DtxWireReadMade() */
} DtxReplyKind;

/*
 * Where the reply to a command of our own goes.  These functions are called from
 * DtxWirePump() and DtxWireBreak(), also after the local commit: they do not throw,
 * allocate nothing in a memory context, and do not close the wire.
 */
typedef struct DtxReplyHandler
{
	/* A notice has come; returns true if it is not to be passed on.  Or NULL. */
	bool		(*notice) (void *owner, const PGresult *notice);

	/* A result has come; it is the wire's.  Or NULL. */
	void		(*result) (void *owner, const PGresult *result);

	/*
	 * The reply is complete: "last" is its last result, or NULL, and the
	 * handler's to clear.  "lost" says why nothing more is going to come, or
	 * is NULL.  The entry has left the queue, so that the next command can be
	 * sent.
	 */
	void		(*complete) (void *owner, PGresult *last, const char *lost);
} DtxReplyHandler;

/* An entry of the queue. */
typedef struct DtxPending
{
	DtxReplyKind kind;
	int			commands;		/* replies that are due of this kind, in a
								 * row; of MADE: 1, or 0 if the NULL at its
								 * end is due */
	bool		sync;			/* does a Sync follow the last of them? */
	bool		answered;		/* has the first of them got a result?  Of
								 * MADE: from the server? */
	int			reads;			/* times that it was read from, if HANDLED */
	const DtxReplyHandler *handler; /* if HANDLED, with the next one */
	void	   *owner;
	PGresult   *result;			/* the last one; of MADE, and not from the server:
								 * NULL stands for success */
} DtxPending;

/* A statement that is prepared in a session. */
typedef struct DtxWireStatement
{
	const char *name;
	const char *command;
} DtxWireStatement;

/* What precedes a command in a pipeline, and others in front of that. */
#define DTX_WIRE_QUEUE	16

typedef struct DtxWire
{
	PGconn	   *conn;
	uint64		serial;			/* no other connection of this process ever
								 * has or had it */
	bool		broken;			/* nothing more may be sent: what would come
								 * is not known */
	bool		start_unknown;	/* has a START been sent by a name that the
								 * session does not know? */
	int			npending;		/* entries of the next one */
	DtxPending	pending[DTX_WIRE_QUEUE];	/* the queue, the next reply first */
	PQnoticeReceiver notice_receiver;	/* what notices go to that no handler
										 * takes, ... */
	void	   *notice_arg;		/* ... and its argument */
} DtxWire;

/* What DtxWireRead() has found. */
typedef enum DtxReadEnd
{
	DTX_READ_NOT_YET,			/* nothing is here */
	DTX_READ_RESULT,			/* a result, the caller's to clear */
	DTX_READ_NEXT,				/* the end of one of several commands */
	DTX_READ_COMPLETE,			/* the end of all; the entry has left the
								 * queue */
	DTX_READ_LOST				/* nothing more is going to come */
} DtxReadEnd;

extern void DtxWireAttach(DtxWire *wire, PGconn *conn);
extern void DtxWireDetach(DtxWire *wire);
extern void DtxWireForget(DtxWire *wire);
extern PQnoticeReceiver DtxWirePassNotices(DtxWire *wire,
										   PQnoticeReceiver receiver, void *arg);

/* sending */
extern bool DtxWireSend(DtxWire *wire, const char *command,
						const DtxReplyHandler *handler, void *owner);
extern bool DtxWireSendInPipeline(DtxWire *wire, const char *command,
								  const DtxReplyHandler *handler, void *owner);
extern bool DtxWireSendNames(DtxWire *wire, const char *const *names, int n,
							 const DtxReplyHandler *handler, void *owner);
extern bool DtxWireSendBehind(DtxWire *wire, const char *command,
							  const char *name, bool prepare,
							  const DtxReplyHandler *handler, void *owner);
extern bool DtxWireSendStep(DtxWire *wire, const char *command,
							const char *name, DtxReplyKind kind, bool prompt);
extern bool DtxWirePrepare(DtxWire *wire, const DtxWireStatement *statements, int n,
						   const DtxReplyHandler *handler, void *owner);
extern void DtxWireExpect(DtxWire *wire, DtxReplyKind kind, int commands);
extern bool DtxWireSync(DtxWire *wire);
extern void DtxWireMake(DtxWire *wire, PGresult *result);

/* receiving; none of these waits or throws */
extern void DtxWirePump(DtxWire *wire);
extern void DtxWireTakeInput(DtxWire *wire);
extern bool DtxWireIsReadable(DtxWire *wire);
extern DtxReadEnd DtxWireRead(DtxWire *wire, PGresult **result);
extern void DtxWireReadIsOver(DtxWire *wire);
extern PGresult *DtxWireReadMade(DtxWire *wire, bool *received);
extern void DtxWireFailJoined(DtxWire *wire);
extern void DtxWireLeaveToReader(DtxWire *wire, const void *owner);
extern void DtxWireDropReplies(DtxWire *wire);
extern void DtxWireBreak(DtxWire *wire, const char *why);

/* looking at the queue */
extern bool DtxWireIdle(const DtxWire *wire);
extern bool DtxWireExpects(const DtxWire *wire, DtxReplyKind kind);
extern bool DtxWireStartIsDue(const DtxWire *wire);
extern bool DtxWireOwes(const DtxWire *wire, const void *owner);
extern bool DtxWireIsSilent(const DtxWire *wire);

#endif							/* PG_DTX_WIRE_H */
