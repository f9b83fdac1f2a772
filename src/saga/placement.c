/*-------------------------------------------------------------------------
 *
 * placement.c
 *		Which role's sagas get a worker: starting them, waking them, sending them away.
 *
 * One place is kept for roles without any worker.  If there is none, one of another role
 * is sent away after its step, and that step is stopped after a while if that role has
 * more than its share.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/backoff.h"
#include "base/process.h"
#include "base/settings.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "postmaster/bgworker.h"
#include "saga/call.h"
#include "saga/claims.h"
#include "saga/placement.h"
#include "saga/session.h"
#include "utils/hsearch.h"
#include "utils/palloc.h"
#include "worker/register.h"
#include "worker/saga_workers.h"
#include "worker/self.h"

/* A worker is not sent away for the sake of another role before that, ms. */
#define MIN_TENURE	1000

/* A role waits so long for its only worker before a step is stopped, ms. */
#define ROOM_PATIENCE	5000

/* A worker that lived for this time did not die of its start, ms. */
#define HEALTHY_AFTER	10000

/* A role that cannot connect is looked at again after this time, ms. */
#define ROLE_PAUSE	60000

static DtxRoleState *role_state(DtxScheduler *s, Oid role);
static void role_died(DtxScheduler *s, const DtxSagaWorker *worker);
static bool role_may_connect(DtxScheduler *s, Oid role);
static int	compare_waiting(const ListCell *a, const ListCell *b);
static bool start_worker(DtxScheduler *s, Oid role);
static bool send_one_away(DtxScheduler *s, Oid for_role);
static int	busy_workers(DtxScheduler *s, Oid role);
static void stop_one(DtxScheduler *s, Oid for_role, int share);

/*
 * Take stock of the workers, and let go of those that have left.  Returns
 * whether there were any.
 */
bool
DtxPlacementNoteExits(DtxScheduler *s)
{
	DtxSagaWorker *workers;
	int			n;
	bool		left = false;
	ListCell   *lc;

	DtxAssertInWorker();
	workers = palloc(sizeof(DtxSagaWorker) * max_worker_processes);
	n = DtxSagaWorkerList(workers, max_worker_processes);
	s->nworkers = 0;
	for (int i = 0; i < n; i++)
	{
		DtxSagaWorker *worker = &workers[i];
		bool		gone = worker->exited;

		if (worker->starting)
		{
			DtxStartedWorker *started = NULL;
			pid_t		pid;

			foreach(lc, s->started)
			{
				DtxStartedWorker *candidate = (DtxStartedWorker *) lfirst(lc);

				if (candidate->worker.index == worker->index &&
					candidate->worker.generation == worker->generation)
					started = candidate;
			}

			if (started == NULL)
			{
				/* Of an earlier scheduler: nobody would learn of its fate. */
				gone = true;
				worker->clean = true;
			}
			else
				gone = GetBackgroundWorkerPid(started->handle, &pid) == BGWH_STOPPED;
		}
		if (!gone)
		{
			s->workers[s->nworkers++] = *worker;
			continue;
		}
		if (!worker->clean)
			role_died(s, worker);
		DtxSagaWorkerRelease(worker);
		left = true;
	}

	/* Handles are of use only until the worker is there. */
	foreach(lc, s->started)
	{
		DtxStartedWorker *started = (DtxStartedWorker *) lfirst(lc);
		bool		starting = false;

		for (int i = 0; i < s->nworkers; i++)
		{
			if (s->workers[i].index == started->worker.index &&
				s->workers[i].generation == started->worker.generation)
				starting = s->workers[i].starting;
		}
		if (!starting)
		{
			s->started = foreach_delete_current(s->started, lc);
			pfree(started->handle);
			pfree(started);
		}
	}
	return left;
}

static DtxRoleState *
role_state(DtxScheduler *s, Oid role)
{
	bool		found;
	DtxRoleState *state = hash_search(s->roles, &role, HASH_ENTER, &found);

	if (!found)
	{
		memset(state, 0, sizeof(*state));
		state->role = role;
	}
	return state;
}

/*
 * A worker has died of its own: when to start another one for its role?  Pauses grow
 * only while workers die without having executed a step: a step that kills its worker
 * has pauses and attempts of its own.
 */
static void
role_died(DtxScheduler *s, const DtxSagaWorker *worker)
{
	DtxRoleState *state = role_state(s, worker->role);

	if (worker->has_worked ||
		(worker->attached_at != 0 && DtxIsDue(worker->attached_at + HEALTHY_AFTER)))
		DtxBackoffReset(&state->backoff);
	DtxBackoffFailed(&state->backoff, DTX_SAGA_ERROR_PAUSE_MIN, DTX_SAGA_ERROR_PAUSE_MAX);
}

/*
 * Can a worker connect as that role?  If not, say so once, and leave its sagas
 * for a while.
 */
static bool
role_may_connect(DtxScheduler *s, Oid role)
{
	DtxRoleState *state = role_state(s, role);
	char	   *name;

	if (DtxSagaRoleMayLogIn(role))
	{
		state->refused = false;
		return true;
	}

	state->backoff.next = DtxIn(ROLE_PAUSE);
	name = GetUserNameFromId(role, true);
	if (!state->refused && name != NULL)
		ereport(WARNING,
				(errcode(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION),
				 errmsg("sagas of role \"%s\" wait", name),
				 errdetail("The role is not permitted to log in."),
				 errhint("Use ALTER ROLE ... LOGIN, or end its sagas with dtx.force_saga().")));
	else if (name == NULL)
	{
		static const Oid types[] = {OIDOID};
		Datum		args[lengthof(types)];
		bool		isnull;

		/* Nobody else shall do their steps: they fail, and say why. */
		args[0] = ObjectIdGetDatum(role);
		(void) DtxSagaCall("saga_orphaned", lengthof(types), types, args, NULL,
						   &isnull);
		state->backoff.next = DtxIn(DTX_SAGA_LEFTOVER_MS);
	}
	state->refused = true;
	return false;
}

/*
 * Give the work to workers.
 */
void
DtxPlacementServe(DtxScheduler *s, List *work)
{
	DtxMoment	again = DtxIn(DTX_SAGA_LEFTOVER_MS);
	HASH_SEQ_STATUS seq;
	DtxRoleState *state;
	ListCell   *lc;
	bool		place_needed = false;
	int			nroles = 0;

	DtxAssertInWorker();
	/* A role's share of the workers; and who has waited longest comes first. */
	foreach(lc, work)
	{
		DtxRoleWork *w = (DtxRoleWork *) lfirst(lc);

		if (w->due > 0 || busy_workers(s, w->role) > 0)
			nroles++;
		state = role_state(s, w->role);
		w->waiting_since = state->waiting_since == 0 ? DTX_NEVER : state->waiting_since;
	}
	list_sort(work, compare_waiting);

	foreach(lc, work)
	{
		DtxRoleWork *w = (DtxRoleWork *) lfirst(lc);
		int64		missing = w->due;
		int			there = 0;

		state = role_state(s, w->role);
		if (w->due == 0)
			continue;

		/* Those who have nothing to do first. */
		for (int i = 0; i < s->nworkers; i++)
		{
			DtxSagaWorker *worker = &s->workers[i];

			if (worker->role != w->role || worker->stop)
				continue;
			there++;
			if (missing > 0 && (worker->idle || worker->starting))
			{
				if (worker->idle)
					DtxSagaWorkerWake(worker);
				missing--;
			}
		}

		/*
		 * As many more as are needed and allowed.  A busy one goes on with
		 * what is left, but another's step may be in its way: look again.
		 */
		if (!DtxIsDue(state->backoff.next))
		{
			s->next_look = Min(s->next_look, state->backoff.next);
			continue;
		}
		if (missing > 0 && !role_may_connect(s, w->role))
		{
			s->next_look = Min(s->next_look, state->backoff.next);
			continue;
		}
		s->next_look = Min(s->next_look, again);

		/* The last place is kept for a role that has none. */
		while (missing > 0 &&
			   s->nworkers < (there == 0 ? dtx_saga_workers : dtx_saga_workers - 1) &&
			   start_worker(s, w->role))
		{
			missing--;
			there++;
		}
		if (there > 0)
			continue;
		place_needed |= send_one_away(s, w->role);
		state->seen = true;
		if (state->waiting_since == 0)
			state->waiting_since = DtxNow();
		else if (DtxIsDue(state->waiting_since + ROOM_PATIENCE))
			stop_one(s, w->role, Max(1, dtx_saga_workers / Max(1, nroles)));
	}
	DtxSchedulerWakeWhenIdle(place_needed);

	hash_seq_init(&seq, s->roles);
	while ((state = hash_seq_search(&seq)) != NULL)
	{
		if (!state->seen)
			state->waiting_since = 0;
		state->seen = false;
	}
}

/*
 * For list_sort(): of two roles, the one that has waited longer for a worker.
 */
static int
compare_waiting(const ListCell *a, const ListCell *b)
{
	DtxMoment	first = ((DtxRoleWork *) lfirst(a))->waiting_since;
	DtxMoment	second = ((DtxRoleWork *) lfirst(b))->waiting_since;

	return first < second ? -1 : first > second ? 1 : 0;
}

/*
 * Start a worker.  Returns false if that is not possible now.
 */
static bool
start_worker(DtxScheduler *s, Oid role)
{
	MemoryContext old;
	DtxStartedWorker *started;
	bool		ok = false;

	old = MemoryContextSwitchTo(s->cxt);
	started = palloc0(sizeof(DtxStartedWorker));
	switch (DtxSagaWorkerStart(role, &started->worker, &started->handle))
	{
		case DTX_STARTED:
			s->started = lappend(s->started, started);
			s->workers[s->nworkers++] = started->worker;
			s->no_slot_logged = false;
			ok = true;
			break;
		case DTX_NO_SLOT:
			if (!s->no_slot_logged)
				ereport(s->nworkers > 0 ? LOG : WARNING,
						(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
						 errmsg("out of background worker slots for the sagas of pg_dtx"),
						 errdetail("%d of at most %d workers (\"%s\") are there.",
								   s->nworkers, dtx_saga_workers,
								   "pg_dtx.saga_workers"),
						 errhint("You might need to increase \"%s\".",
								 "max_worker_processes")));
			s->no_slot_logged = true;
			break;
		case DTX_BLOCKED:
			break;
	}
	if (!ok)
		pfree(started);
	MemoryContextSwitchTo(old);
	return ok;
}

/*
 * A role has work and no worker, and all are taken: let the role that has most
 * of them give one up.  Returns true; the caller is told when a worker leaves.
 */
static bool
send_one_away(DtxScheduler *s, Oid for_role)
{
	DtxSagaWorker *victim = NULL;
	int			most = 0;

	for (int i = 0; i < s->nworkers; i++)
	{
		DtxSagaWorker *worker = &s->workers[i];
		int			n = 0;

		/* One is leaving already. */
		if (worker->stop)
			return true;
		if (worker->starting || worker->role == for_role)
			continue;

		/* The idle ones first, then those of the role that has most. */
		if (worker->idle)
			n = s->nworkers;
		else if (DtxIsDue(worker->attached_at + MIN_TENURE))
		{
			for (int j = 0; j < s->nworkers; j++)
			{
				if (s->workers[j].role == worker->role)
					n++;
			}
		}
		if (n > most)
		{
			most = n;
			victim = worker;
		}
	}
	if (victim != NULL)
	{
		victim->stop = true;
		DtxSagaWorkerDismiss(victim);
	}
	return true;
}

/* How many workers of a role have, or are about to have, something to do? */
static int
busy_workers(DtxScheduler *s, Oid role)
{
	int			n = 0;

	for (int i = 0; i < s->nworkers; i++)
	{
		if (s->workers[i].role == role && !s->workers[i].idle)
			n++;
	}
	return n;
}

/*
 * A role has been waiting for its only worker: stop a step of a role that has more
 * workers than its share, the one that has run longest.  One that is to leave anyway
 * is preferred.  If no role has more than its share, but all of them wait for one
 * foreign server, one of them makes room for the others.  Steps that are within their
 * rights go on, until their own limit.
 */
static void
stop_one(DtxScheduler *s, Oid for_role, int share)
{
	DtxSagaExecution *victim = NULL;
	DtxSagaWorker *victim_worker = NULL;
	int			most = 0;
	int			n = DtxSagaExecutions(s->executions, max_worker_processes);

	for (int i = 0; i < n; i++)
	{
		DtxSagaExecution *e = &s->executions[i];
		DtxSagaWorker *worker = NULL;
		int			rank;

		/* One is being stopped already. */
		if (e->stopping)
			return;
		for (int j = 0; j < s->nworkers; j++)
		{
			if (s->workers[j].pid == e->pid)
				worker = &s->workers[j];
		}
		if (worker == NULL || e->role == for_role)
			continue;
		rank = busy_workers(s, e->role);
		if (rank <= share)
		{
			bool		all_there = false;

			for (int i = 0; i < e->nlanes && !all_there; i++)
			{
				int			there = 0;

				for (int j = 0; j < n; j++)
					there += DtxSagaExecutionUses(&s->executions[j], e->lanes[i]);
				all_there = OidIsValid(e->lanes[i]) && there >= dtx_saga_workers;
			}
			if (!all_there || dtx_saga_workers < 2)
				continue;
			rank = 1;
		}
		rank = 2 * rank + (worker->stop ? 1 : 0);
		if (rank > most ||
			(rank == most && e->begun_at < victim->begun_at))
		{
			most = rank;
			victim = e;
			victim_worker = worker;
		}
	}
	if (victim == NULL || !DtxSagaMakeRoom(victim))
		return;
	victim_worker->stop = true;
	DtxSagaWorkerDismiss(victim_worker);
	ereport(LOG,
			(errmsg("stopping a step of saga " INT64_FORMAT, victim->saga),
			 errdetail("Sagas of another role have no worker. The step is tried again, and this was no attempt."),
			 errhint("You might need to increase \"%s\".", "pg_dtx.saga_workers")));
}
