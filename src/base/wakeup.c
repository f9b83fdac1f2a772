/*-------------------------------------------------------------------------
 *
 * wakeup.c
 *		What lower folders ask of the background workers.
 *
 * Who runs, and how it is woken, is known by worker/wake.c, which is above state/ and
 * net/ and registers here what they may call.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/wakeup.h"

static DtxWakeupCallback wake_resolver = NULL;
static DtxWakeupCallback ask_pass = NULL;
static DtxWakeupCallback wake_detector = NULL;

/*
 * By worker/wake.c, before the server accepts connections; backends inherit it.
 */
void
DtxWakeupRegister(DtxWakeupCallback resolver, DtxWakeupCallback pass,
				  DtxWakeupCallback detector)
{
	wake_resolver = resolver;
	ask_pass = pass;
	wake_detector = detector;
}

/*
 * See DtxLauncherWakeResolver().  Never throws.
 */
void
DtxWakeupResolver(Oid dbid)
{
	if (wake_resolver != NULL)
		wake_resolver(dbid);
}

/*
 * See DtxLauncherAskPass().  Never throws.
 */
void
DtxWakeupPass(Oid dbid)
{
	if (ask_pass != NULL)
		ask_pass(dbid);
}

/*
 * See DtxLauncherWakeDetector().  Never throws.
 */
void
DtxWakeupDetector(Oid dbid)
{
	if (wake_detector != NULL)
		wake_detector(dbid);
}
