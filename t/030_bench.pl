# The benchmark works: every kind of transaction is measured, round trips are
# counted, and the results are written.  How fast anything is does not matter.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $bindir = `$pg_config --bindir`);
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $has_gnuplot = !system 'command -v gnuplot >/dev/null';

{
	delete local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
	my $log = `make bench-programs PG_CONFIG='$pg_config' 2>&1`;
	is($?, 0, 'the programs are built') or diag($log);
	unlike($log, qr/warning:/, 'without warnings');
}

local @ENV{qw(PATH ROUNDS DURATION CLIENTS SERVERS DELAYS CASES SAMPLE LOAD)} = (
	"$bindir:$ENV{PATH}", 1, 1, '2', '2', '1',
	'^2 servers, (write|read), (postgres_fdw|pg_dtx|2PC by the application), [0-9]', 1, 1);
my $output = `perl bench/bench.pl '$dir' 2>&1`;
is($?, 0, 'the benchmark runs') or diag($output);

# The CSV file of a run: by shape and mode.
sub read_csv
{
	my ($header, @lines) = split /\n/, slurp_file("$_[0]/results/performance.csv");
	my @names = split /,/, $header;
	my %found;
	for my $line (@lines)
	{
		my %field;
		@field{@names} =
		  map { s/^"|"$//gr } $line =~ /("[^"]*"|[^,]*)(?:,|$)/g;
		$found{"$field{shape}: $field{mode}"} = \%field;
	}
	return %found;
}

my %found = read_csv($dir);
is(scalar keys %found, 5, 'every case that was asked for is in the CSV file')
  or diag(slurp_file("$dir/results/performance.csv"));
is((grep { $_->{tps} > 0 && $_->{mean_ms} >= 2 } values %found), 5,
	'and took longer than the network');

# What does not depend on how fast it is.
my $plain = $found{'2 servers, write: postgres_fdw'};
my $dtx = $found{'2 servers, write: pg_dtx'};
my $client = $found{'2 servers, write: 2PC by the application'};
is($plain->{round_trips_by_server}, '3.00 3.00',
	'postgres_fdw: START TRANSACTION, UPDATE, COMMIT');
is($plain->{sequential_round_trips}, 6, 'one after the other');
is($client->{round_trips_by_server}, '3.00 3.00',
	'application: BEGIN and UPDATE, PREPARE, COMMIT PREPARED');
is($client->{sequential_round_trips}, 3, 'on all servers at once');
cmp_ok($dtx->{sequential_round_trips}, '>=', 3, 'pg_dtx: round trips are counted');
cmp_ok($dtx->{sequential_round_trips}, '<=', 6, 'and two are in parallel');
cmp_ok($plain->{flushes_coordinator}, '<', 0.1,
	'without a local write the coordinator of plain postgres_fdw flushes nothing');
cmp_ok($dtx->{flushes_coordinator}, '>', 0.2, 'that of pg_dtx its decision');

like($output, qr/COMMIT PREPARED/, 'steps of a transaction are shown');
like($output, qr/rows of dtx_internal\.decision/, 'and what stays on the coordinator');
like(slurp_file("$dir/results/waits.csv"), qr/^event,.*\n\w+/, 'and what 64 clients wait for');

SKIP:
{
	skip 'gnuplot is not installed', 1 unless $has_gnuplot;
	like(slurp_file("$dir/results/performance.svg"), qr/<svg/, 'there is a chart');
}

# Disks of their own: transactions wait for two flushes one after the other, or for
# three; and the two servers flush at the same time.
my $own = PostgreSQL::Test::Utils::tempdir_short();
local @ENV{qw(CLIENTS DELAYS CASES SAMPLE LOAD FLUSH)} = (
	'1', '0', '^2 servers, write, (postgres_fdw|pg_dtx), [0-9]', 0, 0, '20');
$output = `perl bench/bench.pl '$own' 2>&1`;
is($?, 0, 'the benchmark runs with disks of their own') or diag($output);
%found = read_csv($own);
cmp_ok($found{'2 servers, write: postgres_fdw'}{mean_ms}, '>=', 40,
	'postgres_fdw waits for two flushes');
cmp_ok($found{'2 servers, write: pg_dtx'}{mean_ms}, '>=', 60,
	'pg_dtx waits for three');
like($output, qr/disks of their own for all servers: writing 8 kB .* takes (?:[2-9]\d|\d{3,})\./,
	'and it says how long a flush takes');

done_testing();
