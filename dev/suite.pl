#!/usr/bin/perl
#
# Run the tests of the source tree in the current directory against the extension
# that is installed in the PostgreSQL of PG_CONFIG, with all files of theirs in the
# given directory, and count.  Called by dev/run, as the user who runs the servers.
#
use strict;
use warnings;

use Cwd qw(getcwd);
use File::Copy qw(copy);
use File::Path qw(make_path);
use TAP::Harness;

my $work = shift or die "usage: suite.pl DIRECTORY\n";
my $tree = getcwd();
my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
my $jobs = $ENV{JOBS} || default_jobs();
my @only = split ' ', ($ENV{TESTS} // '');

chomp(my $bindir = `$pg_config --bindir`);
chomp(my $pgxs = `$pg_config --pgxs`);
(my $pg_src = $pgxs) =~ s{/makefiles/[^/]+$}{};

my ($passed, $failed) = (0, 0);

# Files in t/ that take a minute or more.  They come first, so that none of them runs alone
# in the end.
my @long = qw(015_hostile_server 020_faults 029_remote_sql 021_chaos 042_saga_workers 044_saga_chaos
  091_identity 030_bench 034_many_users 047_saga_faulty_input 110_saga_limits);

# lines that say how each suite went, for "make test-matrix"
my @summary;
my $interrupted = 0;
$| = 1;

# Nothing of the caller's environment may reach the servers or their clients.
delete @ENV{ grep { /^PG(?!_TEST_|_CONFIG)/ } keys %ENV };
delete @ENV{qw(LANGUAGE LC_ALL)};
$ENV{LC_MESSAGES} = 'C';
$ENV{LANG} = 'C';
$ENV{PATH} = "$bindir:$ENV{PATH}";
$ENV{PG_REGRESS} = "$pg_src/test/regress/pg_regress";
# (for machines that are busy; nobody waits that long where all is well)
$ENV{PG_TEST_TIMEOUT_DEFAULT} ||= 300;

chomp(my $version = `postgres --version`);
print "# $version\n";

# Tests mostly wait: two for each processor, eight at most.
sub default_jobs
{
	my $processors = () = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg;
	return $processors < 1 ? 2 : $processors > 4 ? 8 : 2 * $processors;
}

sub wanted
{
	my $what = shift;
	return !@only || grep { $_ eq $what } @only;
}

sub slurp
{
	my $file = shift;
	open my $fh, '<', $file or return '';
	local $/;
	my $content = <$fh>;
	return $content // '';
}

sub heading
{
	print "\n== $_[0] ==\n";
	return;
}

# "make installcheck" of regress or of isolation, on a server of its own, and count.
sub run_regress
{
	my ($kind, $list, $other) = @_;

	heading($kind);
	my ($good, $bad) = (0, 0);
	open my $out, '-|',
	  "make -s installcheck PG_CONFIG=$pg_config SERVER=$work/tmp_check $other= TAP_TESTS= 2>&1"
	  or die "make: $!\n";
	while (my $line = <$out>)
	{
		print $line;

		# "test name ... ok" up to 15, TAP from 16 on
		$good++ if $line =~ /^(?:test\s+\S+\s+\.\.\. ok\b|ok \d+)/;
		$bad++ if $line =~ /^(?:test\s+\S+\s+\.\.\. FAILED\b|not ok \d+)/;
	}
	my $ok = close $out;
	my $results = $kind eq 'regress' ? '.' : 'output_iso';
	print slurp("$results/regression.diffs") if $bad;
	my $log = slurp("$results/log/postmaster.log");
	copy("$results/log/postmaster.log", "$work/tmp_check/$kind.log");
	if ($log =~ /^.*(?:PANIC|TRAP|was terminated by signal).*$/m)
	{
		print "server log: $&\n";
		$bad++;
	}
	if (!$ok && !$bad)
	{
		print $log;
		$bad++;
	}
	if ($good + $bad == 0)
	{
		print "no test of $list ran\n";
		$bad++;
	}
	$passed += $good;
	$failed += $bad;
	push @summary, "# $kind: $good passed, $bad failed\n";
	return;
}

# The place of a file in the order of all: its place in @long, or behind them.
sub place
{
	my $file = shift;
	for my $i (0 .. $#long)
	{
		return $i if $file eq "t/$long[$i].pl";
	}
	return scalar @long;
}

sub run_tap
{
	my @files = @_;
	my $failed_before = $failed;

	heading('TAP');
	$ENV{TESTDIR} = $work;
	$ENV{TESTDATADIR} = "$work/tmp_check";
	$ENV{TESTLOGDIR} = "$work/tmp_check/log";
	$ENV{PGPORT} = 65432;
	# for sockets, which failed tests leave behind
	$ENV{TMPDIR} = "$work/tmp";
	make_path($ENV{TMPDIR}, "$work/tmp_check/log");

	my $harness = TAP::Harness->new(
		{
			lib => [ "$pg_src/test/perl", "$tree/t/lib" ],
			jobs => $jobs,
			timer => 1,
			failures => 1,
		});
	my $result = $harness->runtests(@files);
	$passed += $result->passed;
	$failed += $result->failed;

	# A file that broke off, or failed without a failed test, counts as one.
	for my $parser ($result->parsers)
	{
		next if $parser->failed;
		$failed++ if $parser->parse_errors || $parser->exit || $parser->wait;
	}
	for my $file (@files)
	{
		my ($parser) = $result->parsers($file);
		next
		  if !$parser
		  || !($parser->failed || $parser->parse_errors || $parser->exit);
		(my $name = $file) =~ s{.*/(.*)\.pl$}{$1};
		for my $log (glob("$work/tmp_check/log/regress_log_$name"),
			glob("$work/tmp_check/log/${name}_*.log"))
		{
			my @lines = split /\n/, slurp($log);
			my $keep = $log =~ /regress_log/ ? 120 : 40;
			splice @lines, 0, @lines - $keep if @lines > $keep;
			print "\n---- end of $log\n", map { "$_\n" } @lines;
		}
	}
	push @summary, '# TAP: ' . $result->passed . ' passed, ' . ($failed - $failed_before) . " failed\n";
	return;
}

run_regress('regress', 'REGRESS', 'ISOLATION') if wanted('regress');
run_regress('isolation', 'ISOLATION', 'REGRESS') if wanted('isolation');
my @tap = wanted('tap') ? sort { place($a) <=> place($b) || $a cmp $b } glob('t/*.pl') : ();
for my $name (@only)
{
	push @tap, $name if $name =~ m{^t/.*\.pl$};
}
run_tap(@tap) if @tap;

print "\n", @summary, "$passed passed, $failed failed\n";
exit($failed ? 1 : 0);
