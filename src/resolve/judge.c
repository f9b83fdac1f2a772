/*-------------------------------------------------------------------------
 *
 * judge.c
 *		From facts to verdicts.  Pure functions: nothing here looks anything up,
 *		waits, allocates or throws.
 *
 * A verdict needs a proof.  What is not known is not an answer: no decision row
 * is not yet an abort, an id that is not found is not yet one that was never
 * assigned, and a server that does not show a transaction has not yet finished
 * it.  t/programs/judge_test.c compares every combination of facts with a table.
 *
 * Why COMMIT and ROLLBACK are right
 * ---------------------------------
 * A backend makes itself responsible for its transaction T before it sends the
 * first PREPARE, and stops being so only after T has left the proc array
 * (xact.c: CommitTransaction() and AbortTransaction() call
 * ProcArrayEndTransaction() before the callbacks in which the coordinator lets
 * go; a backend that dies aborts first).  The seal proves that T gave the gid its
 * name.  So once the gid was seen and nobody is responsible, T is over, and a
 * snapshot and a look at the commit log that come later see T as it ended.
 *
 * The decision row alone proves a commit.  Its absence proves nothing, because
 * it is deleted or overwritten when all participants have confirmed; but one of
 * them may be back, restored or failed over to a standby that had not heard of
 * the confirmation.  The commit log is the second witness.
 *
 * A transaction id that never reached the WAL is assigned again after a crash, so
 * the commit log answers for the boot of the gid only where no later boot can
 * have assigned the same id.
 *
 * What a human has said of a gid that was not to be found counts when it appears
 * after all.
 *
 * After a restore from a backup this database lacks what its former self did at
 * the end: what is not committed here may have been committed there.  So there
 * only a commit can be proven.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "resolve/judge.h"

/*
 * What is to become of a prepared transaction that has a name of this
 * coordinator's database.
 */
DtxVerdict
DtxJudge(const DtxFacts *facts)
{
	if (!facts->authentic)
		return DTX_VERDICT_FORGED;
	if (facts->history == DTX_HISTORY_UNKNOWN)
		return DTX_VERDICT_OTHER_INSTANCE;

	if (facts->history == DTX_HISTORY_CURRENT)
	{
		/* sealed, but not by a transaction of this boot */
		if (facts->xid != DTX_XID_OF_BOOT)
			return DTX_VERDICT_OTHER_INSTANCE;
		if (facts->responsible)
			return DTX_VERDICT_LEAVE;
	}
	else if (facts->suspended || facts->late ||facts->xid == DTX_XID_FUTURE)
		return DTX_VERDICT_OTHER_INSTANCE;

	if (facts->row || facts->forced)
		return DTX_VERDICT_COMMIT;
	if (facts->forced_rollback)
		return DTX_VERDICT_ROLLBACK;

	if (facts->xid == DTX_XID_UNWRITTEN)
		return facts->history == DTX_HISTORY_CONTINUED ?
			DTX_VERDICT_ROLLBACK : DTX_VERDICT_UNKNOWN;

	switch (facts->log)
	{
		case DTX_LOG_IN_PROGRESS:
			/* of a former boot: a later transaction has its id */
			if (facts->history == DTX_HISTORY_BROKEN)
				return DTX_VERDICT_UNKNOWN;
			return DTX_VERDICT_LEAVE;
		case DTX_LOG_COMMITTED:
			return facts->xid == DTX_XID_OF_BOOT ?
				DTX_VERDICT_COMMIT : DTX_VERDICT_UNKNOWN;
		case DTX_LOG_ABORTED:
			return facts->history == DTX_HISTORY_BROKEN ?
				DTX_VERDICT_UNKNOWN : DTX_VERDICT_ROLLBACK;
		default:
			return DTX_VERDICT_UNKNOWN;
	}
}

/*
 * What is to become of a prepared transaction about which a server decides: what became
 * of the transaction there, and nothing else.  Which boot of this database has made it,
 * and whether that can be told, does not matter: an id that the server calls committed
 * or aborted stays so, and it is called neither before the COMMIT there has succeeded or
 * cannot succeed any more.  A COMMIT there is sent only when all others are prepared.
 *
 * The id was on the disk of that server before the gid was given, so that no crash makes it
 * hand out the id again (state/flushed.c).  An id that is not handed out yet is that of a
 * server that was restored, which proves nothing.
 *
 * What a human has said counts where the server cannot tell.
 */
DtxVerdict
DtxJudgeDecided(const DtxDecidedFacts *facts)
{
	if (!facts->authentic)
		return DTX_VERDICT_FORGED;
	if (facts->responsible)
		return DTX_VERDICT_LEAVE;
	if (facts->outcome == DTX_OUTCOME_COMMITTED)
		return DTX_VERDICT_COMMIT;
	if (facts->outcome == DTX_OUTCOME_ABORTED)
		return DTX_VERDICT_ROLLBACK;
	if (facts->forced)
		return DTX_VERDICT_COMMIT;
	if (facts->forced_rollback)
		return DTX_VERDICT_ROLLBACK;
	if (facts->outcome == DTX_OUTCOME_NOT_TOLD ||
		facts->outcome == DTX_OUTCOME_IN_PROGRESS)
		return DTX_VERDICT_WAIT;
	return DTX_VERDICT_UNKNOWN;
}

/*
 * Is it, if the verdict is to commit it and that succeeds, a participant that had
 * been confirmed once and came back?
 */
bool
DtxReappeared(const DtxFacts *facts)
{
	return DtxJudge(facts) == DTX_VERDICT_COMMIT && !facts->row && !facts->forced;
}

/*
 * May a gid that a server does not show any more be forgotten, and is it damage?
 *
 * After a failover the server may have assigned the same transaction id once
 * more, so that a commit of that id proves nothing.  Anything else does: whether
 * the id is ours or a later transaction's, ours has not committed.
 */
DtxGoneVerdict
DtxMayForget(const DtxGoneFacts *facts)
{
	if (facts->finished_here)
		return DTX_GONE_FORGET;
	if (facts->cluster == DTX_DIFFERENT)
		return DTX_GONE_ELSEWHERE;
	if (facts->cluster == DTX_NOT_TOLD && !facts->same_endpoint)
		return DTX_GONE_UNIDENTIFIED;
	if (!facts->decided)
		return DTX_GONE_FORGET;

	/*
	 * Without an id there was no reply to PREPARE, hence no commit, and what
	 * is not prepared is not going to be committed by us.
	 */
	if (!facts->xid_known)
		return facts->commit ? DTX_GONE_NO_OUTCOME : DTX_GONE_FORGET;

	switch (facts->outcome)
	{
		case DTX_OUTCOME_COMMITTED:
			if (facts->timeline != DTX_SAME)
				return DTX_GONE_UNKNOWN;
			return facts->commit ? DTX_GONE_FORGET : DTX_GONE_COMMITTED;
		case DTX_OUTCOME_ABORTED:
			if (!facts->commit)
				return DTX_GONE_FORGET;
			return facts->timeline == DTX_SAME ?
				DTX_GONE_ROLLED_BACK : DTX_GONE_LOST;
		case DTX_OUTCOME_IN_PROGRESS:
			if (facts->timeline == DTX_SAME)
				return DTX_GONE_NO_OUTCOME;
			return facts->commit ? DTX_GONE_LOST : DTX_GONE_FORGET;
		case DTX_OUTCOME_FUTURE:
			return facts->commit ? DTX_GONE_LOST : DTX_GONE_FORGET;
		case DTX_OUTCOME_TRUNCATED:
			return DTX_GONE_UNKNOWN;
		default:
			return DTX_GONE_NO_OUTCOME;
	}
}
