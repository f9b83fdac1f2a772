/*-------------------------------------------------------------------------
 *
 * announce.c
 *		What external workers are to be told: NOTIFY after the transaction that made it so.
 *
 * NOTIFY is no part of the transaction that says so in the tables: it fails when its
 * queue is full, because some session listens and never ends its transaction, and it
 * waits for a lock that any COMMIT with a NOTIFY holds to its end.  Sagas must not be
 * stopped by that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/compat.h"
#include "commands/async.h"
#include "fmgr.h"
#include "saga/announce.h"
#include "utils/builtins.h"
#include "worker/self.h"

/* Queues that a transaction can announce something in; the rest is not said. */
#define MAX_ANNOUNCED	16

/* This worker of sagas: channels to notify when the transaction has committed. */
static char announced[MAX_ANNOUNCED][NAMEDATALEN];
static int	nannounced = 0;

/*
 * What the transaction would have announced is not so.  Never throws.
 */
void
DtxSagaDropAnnouncements(void)
{
	nannounced = 0;
}

PG_FUNCTION_INFO_V1(dtx_sql_saga_announce);

/*
 * dtx_internal.saga_announce(queue): there is something for external workers, or, if that
 * is empty, for consumers of events.
 *
 * NOTIFY is no part of the transaction that says so in the tables: it fails when
 * its queue is full, because some session listens and never ends its transaction,
 * and it waits for a lock that any COMMIT with a NOTIFY holds to its end.  Sagas
 * must not be stopped by that.
 */
Datum
dtx_sql_saga_announce(PG_FUNCTION_ARGS)
{
	char	   *queue = text_to_cstring(PG_GETARG_TEXT_PP(0));
	char		channel[NAMEDATALEN];

	if (!DtxWorkerExecutesSagas())
		PG_RETURN_VOID();
	if (queue[0] != '\0')
	{
		strlcpy(channel, "dtx:", sizeof(channel));
		strlcat(channel, queue, sizeof(channel));
	}
	else
		strlcpy(channel, "dtx_saga_events", sizeof(channel));
	for (int i = 0; i < nannounced; i++)
	{
		if (strcmp(announced[i], channel) == 0)
			PG_RETURN_VOID();
	}
	if (nannounced < MAX_ANNOUNCED)
		strlcpy(announced[nannounced++], channel, NAMEDATALEN);
	PG_RETURN_VOID();
}

/*
 * Has the last transaction, which has committed, something to announce?
 */
bool
DtxSagaHasAnnouncements(void)
{
	return nannounced > 0;
}

/*
 * Have the current transaction announce it.
 */
void
DtxSagaAnnounce(void)
{
	int			n = nannounced;

	nannounced = 0;
	for (int i = 0; i < n; i++)
		Async_Notify(announced[i], "");
}
