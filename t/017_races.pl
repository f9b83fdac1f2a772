# Resolvers at full speed against commits of all shapes; see t/lib/Races.pm.
# "make races" does it until there have been a million interleavings.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Races;
use Test::More;

# Programs with this extension that are not those of PG_CONFIG.

my $duration = $ENV{DTX_RACES_DURATION} || 15;
my $goal = $ENV{DTX_RACES_INTERLEAVINGS};
my $say = sub { $ENV{DTX_RACES_LOUD} ? diag($_[0]) : note($_[0]) };
my $races = Races->new(say => $say);
my $end = time + $duration;

# At least two rounds: what the first one leaves behind is there in the second.
my $seconds = $duration > 240 ? 60 : $duration / 2;
my $good = 1;
for (my $round = 0; $good && ($round < 2 || time < $end - $seconds / 2); $round++)
{
	last if $goal && $races->interleavings >= $goal;
	$good = $races->round($seconds);
}

ok($good, 'nothing was decided twice, differently, or by a process that was not to decide')
  or diag(join "\n", $races->problems);
my $few = 10 * $duration;
cmp_ok($races->interleavings, '>', $few, 'resolvers looked at live commits');
cmp_ok($races->{count}{'COMMIT by a resolver'} // 0,
	'>', 0, 'resolvers committed what was left to them');
cmp_ok($races->{count}{'decided by a server'} // 0, '>', 0, 'servers decided');
cmp_ok($races->{count}{'ROLLBACK by its own backend'} // 0,
	'>', 0, 'backends rolled back what they had prepared');
$say->("\n" . $races->table);

done_testing();
