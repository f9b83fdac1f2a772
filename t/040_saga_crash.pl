# Whatever dies at whatever moment of a step: every step and every compensation
# takes effect once.  The servers have a library of their own with the fault
# points.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use PrivateTree;
use SagaBooks;
use Test::More;
use Time::HiRes qw(time);

$ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";

# One worker, because each process counts by itself how often a point is reached:
# on a busy machine the scheduler may start a second one, which goes on with the
# saga.
my $books = SagaBooks->new(conf => "pg_dtx.saga_workers = 1\n");
my $dtx = $books->dtx;

# Points in the worker, with the number of times that one worker reaches them in
# a saga that is completed ("move") and in one that is compensated ("refused"),
# from where on it does something else.  A point that is behind the commit of a
# step throws no error.
my @cases;
for my $action (qw(crash error terminate))
{
	for my $n (1 .. 4)
	{
		for my $point (qw(saga-executed saga-done))
		{
			# two kinds of nodes take part in steps 1 and 4, and 2 and 3
			next if $action ne 'crash' && $n % 2 == 0;
			push @cases, [ $point, $action, $n, 'move' ];
		}
		push @cases, [ 'saga-committed', $action, $n, 'move' ]
		  if $action ne 'error' && ($action eq 'crash' || $n == 2);
	}
	push @cases, [ 'saga-taken', $action, 1, 'move' ] if $action ne 'error';

	# the third compensation is the last one
	push @cases, map { [ 'saga-executed', $action, $_, 'refused' ] } 4, 5;
	push @cases, map { [ 'saga-done', $action, $_, 'refused' ] } 4, 6;
	push @cases, [ 'saga-error', $action, 1, 'refused' ];
}

# Points of the commit of the step, of which the second one is the first in two
# phases.
push @cases, map { [ $_, 'crash', 2, 'move' ] }
  qw(prepare-sent decision-after commit-sent commit-wait committed);
push @cases, map { [ $_, 'crash', 1, 'move' ] }
  qw(prepare-before prepare-reply decision-before prepared local-commit commit-before commit-reply);
push @cases, map { [ $_, 'terminate', 1, 'move' ] } qw(prepare-sent commit-sent);
push @cases, map { [ $_, 'error', 1, 'move' ] } qw(prepare-sent decision-after);

# A step that was interrupted is tried again; one that fails for another reason
# is compensated.
sub outcome
{
	my ($point, $action, $n, $saga) = @_;
	return 'compensated' if $saga eq 'refused' || $action eq 'error';
	return 'completed';
}

my $waited = 0;
for my $case (@cases)
{
	my ($point, $action, $n, $saga) = @$case;
	my $begin = time;
	my $name = "$action at $point, time $n, saga $saga";

	$books->arm("$point:$action:$n");
	my $id = $books->start($saga);
	my $pid = $books->reached($point);
	ok($pid, "$name: reached");
	$books->arm('');
	$dtx->coord->poll_query_until('postgres', 'SELECT true') if $action eq 'crash';
	if ($action eq 'error' && $saga eq 'move')
	{
		# what had been done by then is taken back
		is($books->state($id), 'compensated', "$name: compensated");
		my @lines = $books->lines($id);
		for my $i (0 .. $#lines)
		{
			my %count;
			$count{$_}++ for split /,/, $lines[$i];
			my @odd = grep
			{
				my ($step) = /^(\d)/;
				($count{"$step execute"} // 0) != 1 || ($count{"$step compensate"} // 0) != 1
			} keys %count;
			is("@odd", '', "$name: node $i: what was done was undone, once");
		}
	}
	else
	{
		$books->ended($id, outcome(@$case), $name);
	}
	$waited += time - $begin if $action eq 'terminate';
}
my $terminated = grep { $_->[1] eq 'terminate' } @cases;
cmp_ok($waited, '<', 5 * $terminated, "$terminated times a worker that had done its work was terminated, and replaced at once");

# A worker that is asked to leave before it has begun a step gives it back: that
# is no attempt, so steps that may be tried once only are done.
$dtx->sql(q{
SELECT dtx.define_saga('once',
	dtx.step('one', server => 's1', max_attempts => 1,
		execute => $$INSERT INTO saga_log VALUES (($1->>'id')::int, 1, 'execute')$$),
	dtx.step('two', max_attempts => 1,
		execute => $$INSERT INTO saga_log VALUES (($1->>'id')::int, 2, 'execute')$$),
	dtx.step('three', server => 's1', max_attempts => 1,
		execute => $$INSERT INTO saga_log VALUES (($1->>'id')::int, 3, 'execute')$$))});
for my $case (qw(saga-taken:1 prepared:1 local-commit:1 commit-sent:1 commit-wait:1
	saga-committed:1 saga-committed:2 commit-sent:2))
{
	my ($point, $n) = split /:/, $case;
	my $name = "terminate at $point, time $n, steps that may be tried once";

	$books->arm("$point:terminate:$n");
	my $id = $books->start('once');
	ok($books->reached($point), "$name: reached");
	$books->arm('');
	is($books->state($id), 'completed', "$name: completed");
	is( $dtx->sql("SELECT string_agg(step || ' ' || outcome, ', ' ORDER BY id) FROM dtx.saga_history WHERE saga = $id"),
		'one completed, two completed, three completed', "$name: no attempt was lost");
	is(join('; ', $books->lines($id)), '2 execute; 1 execute,3 execute; ', "$name: every step once");
}
$books->balanced('at last');
$dtx->clean('at last');

done_testing();
