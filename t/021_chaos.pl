# A minute of chaos; see t/lib/Chaos.pm.  "make chaos" does it for longer.
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
	journal => $PostgreSQL::Test::Utils::log_path . '/021_chaos_journal.log',
	say => sub { $loud ? diag($_[0]) : note($_[0]) });

my $good = $chaos->run;
ok($good, "$duration seconds of chaos, seed $seed")
  or diag(join "\n", $chaos->problems);
ok($chaos->{id} > $duration, "$chaos->{id} transfers");

# (a crash of the coordinator takes what was counted since the last look)
ok($chaos->{decided} > 0 || grep({ /coordinator/ && $chaos->{happened}{$_} } keys %{ $chaos->{happened} }) > 0,
	"$chaos->{decided} of them are decided by a server")
  unless $ENV{DTX_CHAOS_SAGAS};
$loud ? diag("\n" . $chaos->table) : note($chaos->table);

done_testing();
