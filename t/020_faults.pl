# A fifteenth of the fault matrix, which touches every point: see t/lib/FaultMatrix.pm.  The
# servers have a library of their own with the fault points; a normal build must
# not know them.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use FaultMatrix;
use PostgreSQL::Test::Utils;
use PrivateTree;
use Test::More;

my @symbols = qw(DtxFaultHit DtxFaultDefineSetting);
my @texts = ('pg_dtx.fault', 'fault point', 'prepare-before', 'commit-sent',
	'resolver-decided');

# What of the above a library has.
sub traces
{
	my $library = shift;
	my $content = slurp_file($library);
	my @found = grep { $content =~ /\Q$_\E/ } @symbols, @texts;
	push @found, map { "$_ (nm)" } grep { /DtxFault/ } split /\n/,
	  `nm -D '$library' 2>/dev/null`;
	return "@found";
}

chomp(my $pkglibdir = `pg_config --pkglibdir`);
is(traces("$pkglibdir/pg_dtx.so"), '', 'the library that is installed has no fault points');

$ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";
chomp($pkglibdir = `pg_config --pkglibdir`);
my $traces = traces("$pkglibdir/pg_dtx.so");
ok((!grep { $traces !~ /\Q$_\E/ } @symbols, @texts),
	'a build with FAULTS=1 has them');

my $matrix = FaultMatrix->new;
my @cases = FaultMatrix::cases();
$matrix->run(FaultMatrix::sample(15, @cases));
$matrix->finish;
note($matrix->table);

# Every point, and every action.
for my $point (FaultMatrix::points())
{
	ok($matrix->{table}{$point}, "point $point was touched");
}
for my $action (FaultMatrix::actions())
{
	ok((grep { $_->{$action} } values %{ $matrix->{table} }),
		"action $action was taken");
}

done_testing();
