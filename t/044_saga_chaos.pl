# A minute of chaos with sagas in the mix; see t/lib/Chaos.pm.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use Chaos;
use Test::More;

# Programs with this extension that are not those of PG_CONFIG.

my $seed = $ENV{DTX_CHAOS_SEED} || (time ^ $$) % 1_000_000;
my $duration = $ENV{DTX_CHAOS_DURATION} || 60;
my $loud = $ENV{DTX_CHAOS_LOUD};
my $chaos = Chaos->new(
	seed => $seed,
	duration => $duration,
	sagas => 1,
	journal => $PostgreSQL::Test::Utils::log_path . '/044_saga_chaos_journal.log',
	say => sub { $loud ? diag($_[0]) : note($_[0]) });

my $good = $chaos->run;
ok($good, "$duration seconds of chaos with sagas, seed $seed")
  or diag(join "\n", $chaos->problems);
my $ended = $chaos->{ended}{saga};
ok(($ended->{completed} // 0) > $duration / 4, 'sagas have completed');
ok(($chaos->{ended}{'saga that is refused'}{compensated} // 0) > $duration / 10,
	'sagas have been compensated');
$loud ? diag("\n" . $chaos->table) : note($chaos->table);

done_testing();
