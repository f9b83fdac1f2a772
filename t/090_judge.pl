# All combinations of facts on which a verdict may rest (t/programs/judge_test.c), and what
# seals names (t/programs/siphash_test.c).
use strict;
use warnings FATAL => 'all';

use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $cc = `$pg_config --cc`);
$cc = 'cc' if system("$cc --version >/dev/null 2>&1") != 0;
chomp(my ($server, $include) = map { `$pg_config --$_` } qw(includedir-server includedir));

my $top = "$FindBin::RealBin/..";

# ("make coverage" counts what it reaches, too: in that directory)
my $counted = $ENV{DTX_COVERAGE};
my $program = ($counted // PostgreSQL::Test::Utils::tempdir()) . '/judge_test';
is(system(split(' ', $cc), '-g', $counted ? ('-O0', '--coverage') : '-O1', '-Wall', "-I$top/src", "-I$server", "-I$include",
		"$top/t/programs/judge_test.c", ($counted // $top) . '/src/resolve/judge.c', '-o', $program), 0, 'it is built');
my $output = `$program`;
is($?, 0, 'every combination gets the verdict of the table') or diag($output);
like($output, qr/^\d{4,} combinations, 0 failures$/m, '... all of them');
note $output;

# The seal of names.
my $siphash = ($counted // PostgreSQL::Test::Utils::tempdir()) . '/siphash_test';
is(system(split(' ', $cc), '-g', $counted ? ('-O0', '--coverage') : '-O1', '-Wall', "-I$top/src", "-I$server", "-I$include",
		"$top/t/programs/siphash_test.c", ($counted // $top) . '/src/base/siphash.c', '-o', $siphash), 0, 'it is built');
is(`$siphash`, '', 'SipHash-2-4 is what its authors have published');
done_testing();
