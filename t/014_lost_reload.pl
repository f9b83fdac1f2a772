# A reload while a worker starts must not be lost: before its signal handler is
# there, SIGHUP is ignored.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

plan skip_all => 'needs /proc' unless -e "/proc/$$/task/$$/children";

my $dtx = DtxTest->new(servers => 1, conf => "pg_dtx.resolve_interval = '50ms'\n");
my $coord = $dtx->coord;
my ($postmaster) = $dtx->processes($coord);

sub children
{
	return split ' ', slurp_file("/proc/$postmaster/task/$postmaster/children");
}

for my $round (1 .. 3)
{
	$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
	$coord->reload;
	$dtx->poll($coord, q{SELECT current_setting('pg_dtx.resolver') = 'off' AND EXISTS
(SELECT FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver')}, 't', 'the resolver is off');
	my $pid = $dtx->sql(
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
	$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = on');

	# Stop its successor as early as can be, and reload.
	my %old = map { $_ => 1 } children();
	kill 'TERM', $pid;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $new;
	($new) = grep { !$old{$_} } children() until $new || time > $deadline;
	ok($new, 'a new resolver starts') or last;
	$dtx->stop_process($new);
	$coord->reload;
	$dtx->continue_process($new);

	my $passes = $dtx->sql('SELECT passes FROM dtx.stat');
	$dtx->poll($coord, "SELECT passes > $passes + 1 FROM dtx.stat", 't',
		'... and knows the new configuration');
}

done_testing();
