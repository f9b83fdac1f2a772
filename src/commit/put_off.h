/*-------------------------------------------------------------------------
 *
 * put_off.h
 *		What postgres_fdw has said, and the server has not been told yet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef PG_DTX_PUT_OFF_H
#define PG_DTX_PUT_OFF_H

#include "lib/stringinfo.h"
#include "net/wire.h"

/*
 * Room for the longest START TRANSACTION, with READ ONLY and DEFERRABLE
 * (begin_remote_xact in contrib/postgres_fdw/connection.c, 19).
 */
#define DTX_START_SIZE	128

/* Cursors that are closed, and the server does not know it yet. */
#define DTX_MAX_CLOSES	8

/* Room for all their CLOSE commands in one text. */
#define DTX_CLOSES_SIZE	(DTX_MAX_CLOSES * 20 + 1)

/*
 * What was sent together with START TRANSACTION, in one piece of memory.  Kept until
 * the reply to that is here.
 */
typedef struct DtxFirstCommand
{
	char		start[DTX_START_SIZE];
	char	   *prepare;		/* name of the statement that it prepares, or
								 * NULL: it is executed */
	char	   *command;		/* its text, or NULL: there was none */
	int			nparams;
	char	  **values;			/* of parameters, as text, or NULL for null */
} DtxFirstCommand;

/* Of one connection.  All zero: nothing. */
typedef struct DtxPutOff
{
	char		start[DTX_START_SIZE];	/* START TRANSACTION, or "" */
	char		last_start[DTX_START_SIZE]; /* likewise, sent or not, of the
											 * last remote transaction */
	bool		start_prepared; /* does the session know those of
								 * DtxPutOffStarts by name? */
	bool		prompt;			/* is that, or the last one, to be answered at
								 * once? */
	DtxFirstCommand *first;		/* to be sent again if the connection turns
								 * out to be dead, or NULL */
	int			ncloses;		/* entries of the next one */
	uint32		closes[DTX_MAX_CLOSES]; /* numbers of the cursors to be closed */
	bool		deallocate;		/* DEALLOCATE ALL? */
	bool		reset;			/* take back what DtxParticipantPrepare() has
								 * changed? */
} DtxPutOff;

/* What START TRANSACTION mostly looks like, and its name where it is prepared. */
#define DTX_PUT_OFF_STARTS	2
extern const DtxWireStatement DtxPutOffStarts[DTX_PUT_OFF_STARTS];

extern int	DtxPutOffSend(DtxPutOff *put_off, DtxWire *wire);
extern bool DtxPutOffBeginJoined(DtxPutOff *put_off, DtxWire *wire, bool more);
extern int	DtxPutOffEndJoined(DtxWire *wire, int sent);
extern int	DtxPutOffCloses(DtxPutOff *put_off, char *commands, size_t size);
extern void DtxPutOffKeepFirst(DtxPutOff *put_off, const char *prepare,
							   const char *command, int nparams,
							   const char *const *values);
extern void DtxPutOffForgetFirst(DtxPutOff *put_off);
extern void DtxPutOffForgetTransaction(DtxPutOff *put_off);
extern void DtxPutOffTidy(DtxPutOff *put_off, DtxWire *wire);

/* Is there START TRANSACTION or a CLOSE in front of the next command? */
static inline bool
DtxPutOffAny(const DtxPutOff *put_off)
{
	return put_off->start[0] != '\0' || put_off->ncloses > 0;
}

#endif							/* PG_DTX_PUT_OFF_H */
