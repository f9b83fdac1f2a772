# A step whose second phase is not confirmed: the next step waits, because it
# would read the past.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use PrivateTree;
use SagaBooks;
use Test::More;

$ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";

# One worker, because each process counts by itself how often a point is reached
# (see t/040).
my $books = SagaBooks->new(conf => 'pg_dtx.saga_workers = 1');
my $dtx = $books->dtx;

# Step $step of saga $id is looked at again and again, and put off each time.
sub waits
{
	my ($id, $step, $name) = @_;
	my $due = "SELECT coalesce(max(due_at)::text, '') FROM dtx_internal.saga_step_record WHERE saga = $id AND step = $step";
	for my $time (1 .. 3)
	{
		my $before = $dtx->sql($due);
		ok($dtx->coord->poll_query_until('postgres', "SELECT ($due) <> '$before'"),
			"$name: put off, time $time");
	}

	# the last step of "refused" does, and what a dead worker had in hands is lost
	is( $dtx->sql(
			"SELECT count(*) FROM dtx.saga_history WHERE saga = $id AND outcome NOT IN ('completed', 'lost') AND step <> 'four'"
		),
		0,
		"$name: nothing failed meanwhile");
	is($dtx->sql('SELECT count(*) FROM dtx.in_doubt'),
		1, "$name: the earlier step is in doubt");
	return;
}

# An operator can't go ahead, either.
sub refuses_skip
{
	my ($id, $step, $name) = @_;
	my ($status, undef, $stderr) =
	  $dtx->coord->psql('postgres', "SELECT dtx.skip_step($id, '$step', 'test')");
	isnt($status, 0, "$name: that step can't be skipped");
	like($stderr, qr/not confirmed by all servers yet/, '... and why');
	return;
}

# The second step is the first one on a server.  Its worker stops behind the
# local commit, and then the server dies.
for my $saga (qw(move refused))
{
	# Of "refused", the compensation of step 3 is the third distributed one.
	my $n = $saga eq 'move' ? 1 : 3;
	my $waiting = $saga eq 'move' ? 3 : 2;

	$books->arm("local-commit:hang:$n");
	my $id = $books->start($saga);
	my $pid = $books->reached('local-commit');
	ok($pid, "$saga: a step has committed here");
	$books->arm('');
	$dtx->p(1)->stop('immediate');
	kill 'CONT', $pid;
	$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.in_doubt', 1,
		"$saga: it is in doubt there");
	waits($id, $waiting, "$saga, step $waiting");

	refuses_skip($id, $waiting == 3 ? 'three' : 'two', $saga);
	$dtx->p(1)->start;
	$books->ended($id, $saga eq 'move' ? 'completed' : 'compensated', $saga);
	is( $dtx->sql("SELECT max(attempt) FROM dtx.saga_history WHERE saga = $id"),
		1, "$saga: waiting is no attempt");
}

# The same, but the worker dies before it can give back the next step, which it
# has taken in the commit of the one before.  That step is not at its first
# attempt any more then.
for my $death (qw(TERM KILL))
{
	for my $saga (qw(move refused))
	{
		my $n = $saga eq 'move' ? 1 : 3;
		my $waiting = $saga eq 'move' ? 3 : 2;
		my $name = "SIG$death, $saga";

		$books->arm("local-commit:hang:$n");
		my $id = $books->start($saga);
		my $pid = $books->reached('local-commit');
		ok($pid, "$name: a step has committed here");
		$books->arm('');
		$dtx->p(1)->stop('immediate');
		kill $death, $pid;
		kill 'CONT', $pid;
		ok($dtx->coord->poll_query_until('postgres', 'SELECT count(*) = 1 FROM dtx.in_doubt'),
			"$name: it is in doubt there");
		waits($id, $waiting, "$name, step $waiting");
		refuses_skip($id, $waiting == 3 ? 'three' : 'two', $name);
		$dtx->p(1)->start;
		$books->ended($id, $saga eq 'move' ? 'completed' : 'compensated', $name);
	}
}

# The transaction that starts a saga is itself in doubt: the first step waits.
my $session = $dtx->session;
$session->run(q{
BEGIN;
UPDATE acct0 SET bal = bal + 0 WHERE id = 1;
UPDATE acct1 SET bal = bal + 1 WHERE id = 1;
SELECT dtx.start_saga('move', '{"id": 100, "n": 1}');
SET pg_dtx.fault = 'local-commit:hang';
});
$books->{log_offset} = -s $dtx->coord->logfile;
$session->start('COMMIT;');
my $pid = $books->reached('local-commit');
ok($pid, 'a transaction that starts a saga has committed here');
$dtx->p(1)->stop('immediate');
kill 'CONT', $pid;
$session->finish;
like($session->stderr, qr/not every server has confirmed it yet: "s1"/, '... and is in doubt');
$session->close;
my $id = $dtx->sql('SELECT max(id) FROM dtx.sagas');
waits($id, 1, 'first step');
refuses_skip($id, 'one', 'first step');
$dtx->p(1)->start;
$books->{number}{$id} = 100;
$books->ended($id, 'completed', 'started by a transaction in doubt');
$dtx->clean('at last');

done_testing();
