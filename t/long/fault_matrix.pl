# All cases of the fault matrix, or those of one of several shards.  Run by
# "make faults", with servers that have the fault points.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use FaultMatrix;
use Test::More;

my ($shard) = $0 =~ /matrix_(\d+)\.pl$/;
my $shards = $ENV{DTX_FAULT_SHARDS} || 1;
my @cases = FaultMatrix::cases();

@cases = grep { FaultMatrix::name($_) =~ /$ENV{CASES}/ } @cases if $ENV{CASES};
@cases = FaultMatrix::sample($ENV{DTX_FAULT_SAMPLE}, @cases)
  if $ENV{DTX_FAULT_SAMPLE};
@cases = grep { $_->{number} * 7919 % 10007 % $shards == $shard - 1 } @cases
  if defined $shard;
plan(skip_all => 'no case') unless @cases;

my $matrix = FaultMatrix->new;
$matrix->run(@cases);
$matrix->finish;
diag("\n" . $matrix->table);
done_testing();
