# Transactions go on while servers crash and backends are terminated at random.
# Each of them leaves its number on three nodes; in the end the nodes must have
# the same numbers, all those whose COMMIT was reported, and none of those whose
# failure was.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $workers = 4;
my $rounds = $ENV{DTX_CHAOS_ROUNDS} || 20;
my $seed = $ENV{DTX_CHAOS_SEED} || time ^ $$;
srand($seed);
note("seed $seed");

my $dtx = DtxTest->new(
	servers => 2,
	conf => "synchronous_standby_names = ''\nsynchronous_commit = on\n"
	  . "pg_dtx.prepare_timeout = '5s'\npg_dtx.commit_timeout = '1s'\n");
$dtx->p($_)->safe_psql('postgres', 'CREATE TABLE log (n int PRIMARY KEY)')
  for 1, 2;
$dtx->sql(
	q{
CREATE TABLE log0 (n int PRIMARY KEY);
CREATE FOREIGN TABLE log1 (n int) SERVER s1 OPTIONS (table_name 'log');
CREATE FOREIGN TABLE log2 (n int) SERVER s2 OPTIONS (table_name 'log');
});

# A worker sends one transaction after the other, each in one message, and keeps
# a record of "number SQLSTATE".  psql ends when its connection is lost; then it
# is started again, and what became of the last number is not known.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $psql = $dtx->coord->installed_command('psql');
my $connstr = $dtx->coord->connstr('postgres');
my @pids;
for my $w (1 .. $workers)
{
	my $pid = fork();
	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		$ENV{PGAPPNAME} = 'chaos';
		$SIG{PIPE} = 'IGNORE';
		$SIG{$_} = 'DEFAULT' for qw(TERM INT);
		my $n = $w * 1_000_000;
		my $parent = getppid();
		until (-e "$dir/stop" || getppid() != $parent)
		{
			# A few at a time, so that it stops when it is told to.
			my $script = '';
			$script .= "SET pg_dtx.commit_wait = off;\n" if $w == 2;
			$script .= "SET synchronous_commit = off;\n" if $w == 3;
			for (1 .. 25)
			{
				$n++;
				my @tables = $w == 4 ? qw(log1 log2 log0) : qw(log0 log1 log2);
				$script .= join(' \; ',
					'BEGIN',
					(map { "INSERT INTO $_ VALUES ($n)" } @tables), 'COMMIT')
				  . ";\n\\echo $n :SQLSTATE\n\\if :ERROR\nROLLBACK;\n\\endif\n";
			}
			open my $in, '|-',
			  "$psql -XAtq -d '$connstr' >>$dir/out$w 2>>$dir/err$w"
			  or last;
			print $in $script;
			close $in;
			usleep(50_000) if $?;
		}
		POSIX::_exit(0);
	}
	push @pids, $pid;
}

END
{
	local $?;
	kill 'KILL', @pids if @pids;
}

# Number of COMMITs reported so far.
sub committed
{
	my $all = 0;
	for my $w (1 .. $workers)
	{
		next unless -e "$dir/out$w";
		$all += () = slurp_file("$dir/out$w") =~ /^\d+ 00000$/mg;
	}
	return $all;
}

sub wait_progress
{
	my $n = shift;
	my $target = committed() + $n;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	while (committed() < $target)
	{
		die "no progress" if time > $deadline;
		usleep(5_000);
	}
	return;
}

my %actions = (
	'terminate remote backends' => sub {
		my $i = 1 + int(rand(2));
		$dtx->p($i)->psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'"
		);
	},
	'terminate clients' => sub {
		$dtx->coord->psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'chaos'"
		);
	},
	'cancel clients' => sub {
		$dtx->coord->psql('postgres',
			"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'chaos'"
		);
	},
	'terminate workers' => sub {
		$dtx->coord->psql('postgres',
			"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%'"
		);
	},
	'crash a participant' => sub {
		my $node = $dtx->p(1 + int(rand(2)));
		$dtx->crash($node);
		$node->start;
	},
	'restart a participant' => sub {
		$dtx->p(1 + int(rand(2)))->restart;
	},
	'crash the coordinator' => sub {
		$dtx->crash($dtx->coord);
		$dtx->coord->start;
	});
my @names = sort keys %actions;
my $broken = 0;
for my $round (1 .. $rounds)
{
	my $name = $names[ $round <= @names ? $round - 1 : int(rand(@names)) ];
	wait_progress(5 + int(rand(20)));
	note("round $round: $name");
	$actions{$name}->();
}
wait_progress(20);
open my $stop, '>', "$dir/stop" or die $!;
close $stop;
waitpid $_, 0 for @pids;
@pids = ();

$dtx->clean('after the chaos');
my @logs = map {
	$dtx->{nodes}[$_]->safe_psql('postgres',
		'SELECT n FROM ' . ($_ == 0 ? 'log0' : 'log') . ' ORDER BY n')
} 0 .. 2;
ok($logs[0] eq $logs[1], 'the coordinator and s1 have the same transactions');
ok($logs[0] eq $logs[2], 'the coordinator and s2 have the same transactions');

my %there = map { $_ => 1 } split /\n/, $logs[0];
my ($lost, $undead, $reported, $failed) = (0, 0, 0, 0);
for my $w (1 .. $workers)
{
	my %seen;
	for (split /\n/, slurp_file("$dir/out$w"))
	{
		next unless /^(\d+) (\w{5})$/;
		if ($2 eq '00000')
		{
			$reported++;
			next if $there{$1};
			$lost++;
			diag("COMMIT of $1 was reported, but it is not there");
		}
		elsif ($2 !~ /^(?:08|57P)/)
		{
			# psql reports lost connections, too; those may be either.
			$failed++;
			next if !$there{$1};
			$undead++;
			diag("failure of $1 was reported ($2), but it is there");
		}
	}
}
is($lost, 0, "no reported COMMIT is lost (of $reported)");
is($undead, 0, "nothing that failed has survived (of $failed)");
$dtx->poll(
	$dtx->coord,
	'SELECT count(*) < 60 FROM dtx_internal.decision',
	't',
	'the decision table is as small as ever');

done_testing();
