/*-------------------------------------------------------------------------
 *
 * fault.c
 *		Named points at which tests make something go wrong; empty unless
 *		built with "make FAULTS=1".
 *
 * The superuser setting pg_dtx.fault arms one point with one action:
 *
 *		point:action[:n[:milliseconds]]
 *
 * n says which time the point is reached, counted from when the setting was
 * made (1 if not given).  Actions:
 *
 *		crash		SIGKILL to this process, so that the server restarts
 *		error		ERROR; only for points before the local commit
 *		terminate	SIGTERM to this process
 *		hang		SIGSTOP to this process; the test continues it
 *		drop		the connection at hand is shut down
 *		delay		sleep for so many milliseconds
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/fault.h"
#include "libpq-fe.h"

#ifdef DTX_FAULTS

#include <signal.h>
#include <sys/socket.h>

#include "miscadmin.h"
#include "utils/guc.h"

/* The setting. */
static char *fault_setting = NULL;

/* Times that the armed point was reached. */
static int	fault_hits = 0;

static void assign_fault(const char *newval, void *extra);

/* In _PG_init(): the setting that says where to fail. */
void
DtxFaultDefineSetting(void)
{
	DefineCustomStringVariable("pg_dtx.fault",
							   "Makes something go wrong at a named point.",
							   "For tests of pg_dtx itself.",
							   &fault_setting, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE,
							   NULL, assign_fault, NULL);
}

static void
assign_fault(const char *newval, void *extra)
{
	fault_hits = 0;
}

/*
 * A point is reached.  "conn" is the connection at hand, or NULL.  Throws only with
 * action "error".
 */
void
DtxFaultHit(const char *point, PGconn *conn)
{
	char		name[64];
	char		action[16];
	int			n = 1;
	int			ms = 1000;

	if (fault_setting == NULL || fault_setting[0] == '\0')
		return;
	if (sscanf(fault_setting, "%63[^:]:%15[^:]:%d:%d", name, action, &n, &ms) < 2)
		return;
	if (strcmp(name, point) != 0 || ++fault_hits != n)
		return;

	write_stderr("pg_dtx fault point \"%s\" reached, action \"%s\", process %d\n",
				 point, action, MyProcPid);

	if (strcmp(action, "crash") == 0)
		kill(getpid(), SIGKILL);
	else if (strcmp(action, "terminate") == 0)
		kill(getpid(), SIGTERM);
	else if (strcmp(action, "hang") == 0)
		kill(getpid(), SIGSTOP);
	else if (strcmp(action, "delay") == 0)
		pg_usleep(ms * 1000L);
	else if (strcmp(action, "drop") == 0)
	{
		if (conn != NULL && PQsocket(conn) >= 0)
			(void) shutdown(PQsocket(conn), SHUT_RDWR);
	}
	else if (strcmp(action, "error") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_EXTERNAL_ROUTINE_EXCEPTION),
				 errmsg("fault point \"%s\" reached", point)));
}

#else

/* ISO C forbids an empty translation unit. */
typedef int dtx_no_faults;

#endif							/* DTX_FAULTS */
