# What dtx.resolve_in_doubt() has found gone is not in doubt any more when it returns, also if
# that was for the worker to find out, and its next attempt far away.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, conf => "pg_dtx.resolve_interval = '1h'\n");
my $coord = $dtx->coord;

# Something is left in doubt on a server that is down until the resolver has failed
# three times, and a human finishes it before the fourth.
sub finished_by_hand
{
	my $command = shift;
	$dtx->arm;
	my $session = $dtx->session;
	$session->start($dtx->hold . $dtx->transfer(1, 1, 2));
	$dtx->wait_held($session);
	my $gid = $dtx->gid(2);
	$dtx->p(2)->stop('immediate');
	$dtx->release;
	$session->finish;
	like($session->stderr, qr/WARNING.*not every server has confirmed it yet: "s2"/, 'in doubt on s2');
	$session->close;
	$dtx->poll($coord, 'SELECT attempts >= 3 FROM dtx.in_doubt', 't', 'the resolver has tried');
	$dtx->p(2)->start;
	$dtx->p(2)->safe_psql('postgres', "$command PREPARED '$gid'");
	return;
}

finished_by_hand('COMMIT');
my $session = $dtx->session;
is($session->run('SELECT count(*) FROM dtx.in_doubt'), '1', 'it is still to be tried again');
$session->run('SELECT * FROM dtx.resolve_in_doubt()');
is($session->stderr, '', 'resolve');
is($session->run('SELECT count(*) FROM dtx.in_doubt'), '0', 'nothing is in doubt any more');
is($session->run('SELECT count(*) FROM dtx.damage'), '0', 'it was finished as decided');
$dtx->balances_are('100 99 101', 'committed');

finished_by_hand('ROLLBACK');
$session->run('SELECT * FROM dtx.resolve_in_doubt()');
is($session->run('SELECT count(*) FROM dtx.in_doubt'), '0', 'nothing is in doubt any more');
is($session->run('SELECT found FROM dtx.damage'), 'rollback', 'it was not finished as decided');

done_testing();
