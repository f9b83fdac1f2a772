/*-------------------------------------------------------------------------
 *
 * judge_test.c
 *		Every combination of facts against a table.
 *
 * A table is a list of rows that is read from the top; the first one that fits
 * says the verdict.  Each field of a row is a set of values, so that a row reads
 * like a sentence.  Every combination must fit some row, and every row must be the
 * first one to fit some combination.  Besides, what must never happen is checked
 * without the table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

/* Without libpgport. */
#undef printf
#include <stdio.h>

#include "resolve/judge.h"

#define ANY		0xff
#define NO		1
#define YES		2
#define IS(x)	(1 << (x))

static int	failures = 0;

typedef struct Rule
{
	const char *why;
	uint8		authentic;
	uint8		history;
	uint8		suspended;
	uint8 late;
	uint8		responsible;
	uint8		xid;
	uint8		row;
	uint8		forced;
	uint8		forced_rollback;
	uint8		log;
	DtxVerdict	verdict;
	int			used;
} Rule;

#define CURRENT		IS(DTX_HISTORY_CURRENT)
#define CONTINUED	IS(DTX_HISTORY_CONTINUED)
#define BROKEN		IS(DTX_HISTORY_BROKEN)
#define UNKNOWN		IS(DTX_HISTORY_UNKNOWN)
#define FORMER		(CONTINUED | BROKEN)
#define OF_BOOT		IS(DTX_XID_OF_BOOT)
#define OF_LATER	IS(DTX_XID_OF_LATER_BOOT)
#define UNWRITTEN	IS(DTX_XID_UNWRITTEN)
#define FUTURE		IS(DTX_XID_FUTURE)
#define PROGRESS	IS(DTX_LOG_IN_PROGRESS)
#define COMMITTED	IS(DTX_LOG_COMMITTED)
#define ABORTED		IS(DTX_LOG_ABORTED)
#define TRUNCATED	IS(DTX_LOG_TRUNCATED)

static Rule rules[] = {
	/*
	 * why, authentic, history, suspended, late, responsible, xid, row,
	 * forced, forced_rollback, log, verdict
	 */
	{"without our seal", NO, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, DTX_VERDICT_FORGED},
	{"of a boot that we do not know", YES, UNKNOWN, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, DTX_VERDICT_OTHER_INSTANCE},
	{"sealed, and not assigned by us", YES, CURRENT, ANY, ANY, ANY, OF_LATER | UNWRITTEN | FUTURE, ANY, ANY, ANY, ANY, DTX_VERDICT_OTHER_INSTANCE},
	{"a backend takes care of it", YES, CURRENT, ANY, ANY, YES, OF_BOOT, ANY, ANY, ANY, ANY, DTX_VERDICT_LEAVE},
	{"who we are is not settled", YES, FORMER, YES, ANY, ANY, ANY, ANY, ANY, ANY, ANY, DTX_VERDICT_OTHER_INSTANCE},
	{"a boot that is over does not prepare", YES, FORMER, ANY, YES, ANY, ANY, ANY, ANY, ANY, ANY, DTX_VERDICT_OTHER_INSTANCE},
	{"a boot that is over does not get that far", YES, FORMER, ANY, ANY, ANY, FUTURE, ANY, ANY, ANY, ANY, DTX_VERDICT_OTHER_INSTANCE},
	{"the decision is on record", YES, ANY, ANY, ANY, ANY, ANY, YES, ANY, ANY, ANY, DTX_VERDICT_COMMIT},
	{"a human has decided", YES, ANY, ANY, ANY, ANY, ANY, ANY, YES, ANY, ANY, DTX_VERDICT_COMMIT},
	{"a human has decided otherwise", YES, ANY, ANY, ANY, ANY, ANY, NO, NO, YES, ANY, DTX_VERDICT_ROLLBACK},
	{"restored: what is not written may have been", YES, BROKEN, ANY, ANY, ANY, UNWRITTEN, ANY, ANY, ANY, ANY, DTX_VERDICT_UNKNOWN},
	{"not written, so not committed", YES, CONTINUED, ANY, ANY, ANY, UNWRITTEN, ANY, ANY, ANY, ANY, DTX_VERDICT_ROLLBACK},
	{"committed, and no other transaction had that id", YES, ANY, ANY, ANY, ANY, OF_BOOT, ANY, ANY, ANY, COMMITTED, DTX_VERDICT_COMMIT},
	{"committed, or a later transaction with that id", YES, FORMER, ANY, ANY, ANY, OF_LATER, ANY, ANY, ANY, COMMITTED, DTX_VERDICT_UNKNOWN},
	{"restored: only a commit is proof", YES, BROKEN, ANY, ANY, ANY, ANY, ANY, ANY, ANY, ANY, DTX_VERDICT_UNKNOWN},
	{"aborted, whatever had that id", YES, CURRENT | CONTINUED, ANY, ANY, ANY, OF_BOOT | OF_LATER, ANY, ANY, ANY, ABORTED, DTX_VERDICT_ROLLBACK},
	{"not over yet", YES, CURRENT | CONTINUED, ANY, ANY, ANY, OF_BOOT | OF_LATER, ANY, ANY, ANY, PROGRESS, DTX_VERDICT_LEAVE},
	{"too long ago", YES, CURRENT | CONTINUED, ANY, ANY, ANY, OF_BOOT | OF_LATER, ANY, ANY, ANY, TRUNCATED, DTX_VERDICT_UNKNOWN},
};

typedef struct GoneRule
{
	const char *why;
	uint8		finished_here;
	uint8		decided;
	uint8		commit;
	uint8		cluster;
	uint8		same_endpoint;
	uint8		timeline;
	uint8		xid_known;
	uint8		outcome;
	DtxGoneVerdict verdict;
	int			used;
} GoneRule;

#define SAME		IS(DTX_SAME)
#define DIFFERENT	IS(DTX_DIFFERENT)
#define NOT_TOLD	IS(DTX_NOT_TOLD)
#define O_NOT_TOLD	IS(DTX_OUTCOME_NOT_TOLD)
#define O_COMMITTED	IS(DTX_OUTCOME_COMMITTED)
#define O_ABORTED	IS(DTX_OUTCOME_ABORTED)
#define O_PROGRESS	IS(DTX_OUTCOME_IN_PROGRESS)
#define O_FUTURE	IS(DTX_OUTCOME_FUTURE)
#define O_TRUNCATED	IS(DTX_OUTCOME_TRUNCATED)

static GoneRule gone_rules[] = {
	/*
	 * why, finished_here, decided, commit, cluster, same_endpoint, timeline,
	 * xid_known, outcome, verdict
	 */
	{"we did it", YES, ANY, ANY, ANY, ANY, ANY, ANY, ANY, DTX_GONE_FORGET},
	{"another cluster", NO, ANY, ANY, DIFFERENT, ANY, ANY, ANY, ANY, DTX_GONE_ELSEWHERE},
	{"which cluster?", NO, ANY, ANY, NOT_TOLD, NO, ANY, ANY, ANY, DTX_GONE_UNIDENTIFIED},
	{"nothing was decided", NO, NO, ANY, ANY, ANY, ANY, ANY, ANY, DTX_GONE_FORGET},
	{"no PREPARE was answered, nothing to roll back", NO, YES, NO, ANY, ANY, ANY, NO, ANY, DTX_GONE_FORGET},
	{"a commit that cannot be asked for", NO, YES, YES, ANY, ANY, ANY, NO, ANY, DTX_GONE_NO_OUTCOME},
	{"no answer", NO, YES, ANY, ANY, ANY, ANY, YES, O_NOT_TOLD, DTX_GONE_NO_OUTCOME},
	{"it does not remember", NO, YES, ANY, ANY, ANY, ANY, YES, O_TRUNCATED, DTX_GONE_UNKNOWN},
	{"committed as decided", NO, YES, YES, ANY, ANY, SAME, YES, O_COMMITTED, DTX_GONE_FORGET},
	{"committed against the decision", NO, YES, NO, ANY, ANY, SAME, YES, O_COMMITTED, DTX_GONE_COMMITTED},
	{"ours, or one after a failover", NO, YES, ANY, ANY, ANY, DIFFERENT | NOT_TOLD, YES, O_COMMITTED, DTX_GONE_UNKNOWN},
	{"rolled back as decided", NO, YES, NO, ANY, ANY, ANY, YES, O_ABORTED, DTX_GONE_FORGET},
	{"rolled back against the decision", NO, YES, YES, ANY, ANY, SAME, YES, O_ABORTED, DTX_GONE_ROLLED_BACK},
	{"not committed after a failover", NO, YES, YES, ANY, ANY, DIFFERENT | NOT_TOLD, YES, O_ABORTED, DTX_GONE_LOST},
	{"it is just being prepared or finished", NO, YES, ANY, ANY, ANY, SAME, YES, O_PROGRESS, DTX_GONE_NO_OUTCOME},
	{"another one has the id: lost", NO, YES, YES, ANY, ANY, DIFFERENT | NOT_TOLD, YES, O_PROGRESS, DTX_GONE_LOST},
	{"another one has the id: never prepared", NO, YES, NO, ANY, ANY, DIFFERENT | NOT_TOLD, YES, O_PROGRESS, DTX_GONE_FORGET},
	{"it never got there: lost", NO, YES, YES, ANY, ANY, ANY, YES, O_FUTURE, DTX_GONE_LOST},
	{"it never got there", NO, YES, NO, ANY, ANY, ANY, YES, O_FUTURE, DTX_GONE_FORGET},
};

typedef struct DecidedRule
{
	const char *why;
	uint8		authentic;
	uint8		responsible;
	uint8		forced;
	uint8		forced_rollback;
	uint8		outcome;
	DtxVerdict	verdict;
	int			used;
} DecidedRule;

static DecidedRule decided_rules[] = {
	/*
	 * why, authentic, responsible, forced, forced_rollback, outcome, verdict
	 */
	{"without our seal", NO, ANY, ANY, ANY, ANY, DTX_VERDICT_FORGED},
	{"a backend takes care of it", YES, YES, ANY, ANY, ANY, DTX_VERDICT_LEAVE},
	{"the server has committed", YES, NO, ANY, ANY, O_COMMITTED, DTX_VERDICT_COMMIT},
	{"the server has aborted", YES, NO, ANY, ANY, O_ABORTED, DTX_VERDICT_ROLLBACK},
	{"a human has decided", YES, NO, YES, ANY, ANY, DTX_VERDICT_COMMIT},
	{"a human has decided otherwise", YES, NO, NO, YES, ANY, DTX_VERDICT_ROLLBACK},
	{"the server cannot tell", YES, NO, NO, NO, O_FUTURE | O_TRUNCATED, DTX_VERDICT_UNKNOWN},
	{"the server has not told yet", YES, NO, NO, NO, O_NOT_TOLD | O_PROGRESS, DTX_VERDICT_WAIT},
};

static void
fail(const char *what, const char *rule, int combination)
{
	if (failures++ < 20)
		printf("combination %d: %s (%s)\n", combination, what, rule);
}

/* The value of the next fact, from 0 to n - 1, and take it off the combination. */
static int
take(int *rest, int n)
{
	int			value = *rest % n;

	*rest /= n;
	return value;
}

static int
check_judge(void)
{
	int			n = 2 * DTX_HISTORY_COUNT * 2 * 2 * 2 * DTX_XID_COUNT * 2 * 2 * 2 * DTX_LOG_COUNT;

	for (int i = 0; i < n; i++)
	{
		int			rest = i;
		DtxFacts	f;
		DtxVerdict	verdict;
		Rule	   *rule = NULL;

		f.authentic = take(&rest, 2);
		f.history = (DtxHistory) take(&rest, DTX_HISTORY_COUNT);
		f.suspended = take(&rest, 2);
		f.late = take(&rest, 2);
		f.responsible = take(&rest, 2);
		f.xid = (DtxXidOrigin) take(&rest, DTX_XID_COUNT);
		f.row = take(&rest, 2);
		f.forced = take(&rest, 2);
		f.forced_rollback = take(&rest, 2);
		f.log = (DtxXactLog) take(&rest, DTX_LOG_COUNT);
		verdict = DtxJudge(&f);

		for (int j = 0; j < lengthof(rules) && rule == NULL; j++)
		{
			Rule	   *r = &rules[j];

			if ((r->authentic & IS(f.authentic)) && (r->history & IS(f.history)) &&
				(r->suspended & IS(f.suspended)) && (r->late &IS(f.late)) &&
				(r->responsible & IS(f.responsible)) && (r->xid & IS(f.xid)) &&
				(r->row & IS(f.row)) && (r->forced & IS(f.forced)) &&
				(r->forced_rollback & IS(f.forced_rollback)) &&
				(r->log & IS(f.log)))
				rule = r;
		}
		if (rule == NULL)
			fail("no rule", "", i);
		else
		{
			rule->used++;
			if (rule->verdict != verdict)
				fail("another verdict", rule->why, i);
		}

		/* what must never happen */
		if (verdict == DTX_VERDICT_ROLLBACK &&
			(f.row || f.forced || !f.authentic || f.history == DTX_HISTORY_UNKNOWN ||
			 f.xid == DTX_XID_FUTURE ||
			 (!f.forced_rollback &&
			  (f.history == DTX_HISTORY_BROKEN ||
			   (f.xid != DTX_XID_UNWRITTEN && f.log != DTX_LOG_ABORTED)))))
			fail("rolled back without proof", rule ? rule->why : "", i);
		if (verdict == DTX_VERDICT_COMMIT &&
			(!f.authentic || f.history == DTX_HISTORY_UNKNOWN ||
			 (!f.row && !f.forced &&
			  (f.xid != DTX_XID_OF_BOOT || f.log != DTX_LOG_COMMITTED))))
			fail("committed without proof", rule ? rule->why : "", i);
		if ((verdict == DTX_VERDICT_ROLLBACK || verdict == DTX_VERDICT_COMMIT) &&
			((f.responsible && f.history == DTX_HISTORY_CURRENT) ||
			 (f.history != DTX_HISTORY_CURRENT && (f.suspended || f.late))))
			fail("touched", rule ? rule->why : "", i);
		if (DtxReappeared(&f) != (verdict == DTX_VERDICT_COMMIT && !f.row && !f.forced))
			fail("reappeared", rule ? rule->why : "", i);
	}
	for (int j = 0; j < lengthof(rules); j++)
	{
		if (rules[j].used == 0)
			fail("a rule that is never used", rules[j].why, j);
	}
	return n;
}

static int
check_may_forget(void)
{
	int			n = 2 * 2 * 2 * DTX_SAME_COUNT * 2 * DTX_SAME_COUNT * 2 * DTX_OUTCOME_COUNT;

	for (int i = 0; i < n; i++)
	{
		int			rest = i;
		DtxGoneFacts f;
		DtxGoneVerdict verdict;
		GoneRule   *rule = NULL;

		f.finished_here = take(&rest, 2);
		f.decided = take(&rest, 2);
		f.commit = take(&rest, 2);
		f.cluster = (DtxSame) take(&rest, DTX_SAME_COUNT);
		f.same_endpoint = take(&rest, 2);
		f.timeline = (DtxSame) take(&rest, DTX_SAME_COUNT);
		f.xid_known = take(&rest, 2);
		f.outcome = (DtxOutcome) take(&rest, DTX_OUTCOME_COUNT);
		verdict = DtxMayForget(&f);

		for (int j = 0; j < lengthof(gone_rules) && rule == NULL; j++)
		{
			GoneRule   *r = &gone_rules[j];

			if ((r->finished_here & IS(f.finished_here)) &&
				(r->decided & IS(f.decided)) && (r->commit & IS(f.commit)) &&
				(r->cluster & IS(f.cluster)) &&
				(r->same_endpoint & IS(f.same_endpoint)) &&
				(r->timeline & IS(f.timeline)) &&
				(r->xid_known & IS(f.xid_known)) &&
				(r->outcome & IS(f.outcome)))
				rule = r;
		}
		if (rule == NULL)
			fail("no rule", "gone", i);
		else
		{
			rule->used++;
			if (rule->verdict != verdict)
				fail("another verdict", rule->why, i);
		}

		/* what must never happen */
		if (verdict == DTX_GONE_FORGET && !f.finished_here && f.decided && f.commit &&
			(f.outcome != DTX_OUTCOME_COMMITTED || f.timeline != DTX_SAME ||
			 f.cluster == DTX_DIFFERENT))
			fail("a commit forgotten without proof", rule ? rule->why : "", i);
	}
	for (int j = 0; j < lengthof(gone_rules); j++)
	{
		if (gone_rules[j].used == 0)
			fail("a rule that is never used", gone_rules[j].why, j);
	}
	return n;
}

static int
check_decided(void)
{
	int			n = 2 * 2 * 2 * 2 * DTX_OUTCOME_COUNT;

	for (int i = 0; i < n; i++)
	{
		int			rest = i;
		DtxDecidedFacts f;
		DtxVerdict	verdict;
		DecidedRule *rule = NULL;

		f.authentic = take(&rest, 2);
		f.responsible = take(&rest, 2);
		f.forced = take(&rest, 2);
		f.forced_rollback = take(&rest, 2);
		f.outcome = (DtxOutcome) take(&rest, DTX_OUTCOME_COUNT);
		verdict = DtxJudgeDecided(&f);

		for (int j = 0; j < lengthof(decided_rules) && rule == NULL; j++)
		{
			DecidedRule *r = &decided_rules[j];

			if ((r->authentic & IS(f.authentic)) &&
				(r->responsible & IS(f.responsible)) &&
				(r->forced & IS(f.forced)) &&
				(r->forced_rollback & IS(f.forced_rollback)) &&
				(r->outcome & IS(f.outcome)))
				rule = r;
		}
		if (rule == NULL)
			fail("no rule", "decided", i);
		else
		{
			rule->used++;
			if (rule->verdict != verdict)
				fail("another verdict", rule->why, i);
		}

		/* what must never happen */
		if (verdict == DTX_VERDICT_ROLLBACK && f.outcome != DTX_OUTCOME_ABORTED &&
			!f.forced_rollback)
			fail("rolled back without the word of the server", rule ? rule->why : "", i);
		if (verdict == DTX_VERDICT_COMMIT && !f.forced &&
			f.outcome != DTX_OUTCOME_COMMITTED)
			fail("committed without the word of the server", rule ? rule->why : "", i);
	}
	for (int j = 0; j < lengthof(decided_rules); j++)
	{
		if (decided_rules[j].used == 0)
			fail("a rule that is never used", decided_rules[j].why, j);
	}
	return n;
}

int
main(void)
{
	int			n = check_judge() + check_decided() + check_may_forget();

	printf("%d combinations, %d failures\n", n, failures);
	return failures > 0 ? 1 : 0;
}
