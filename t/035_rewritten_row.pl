# A session writes its decision row anew while the resolver reads the table: the
# old row is not taken for one that nobody takes care of.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use PrivateTree;
use Test::More;
use Time::HiRes qw(time usleep);

$ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";
my $dtx = DtxTest->new(servers => 2, conf => "synchronous_standby_names = ''\npg_dtx.commit_timeout = '5min'\n");
my $coord = $dtx->coord;

my $s = $dtx->session;
$s->run($dtx->transfer(1, 1, 2));
my $xid = $dtx->sql('SELECT xid FROM dtx_internal.decision');

# The resolver stops between its scan and its look at the sessions.
my $log = -s $coord->logfile;
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.fault = 'resolver-rows:hang'});
$coord->reload;
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
my $pid;
until ($pid || time > $deadline)
{
	usleep(10_000);
	$pid = $1 if slurp_file($coord->logfile, $log) =~ /fault point "resolver-rows" reached, action "hang", process (\d+)/;
}
ok($pid, 'the resolver has read the decisions');
$s->run($dtx->transfer(1, 1, 2));
isnt($dtx->sql('SELECT xid FROM dtx_internal.decision'), $xid, 'a session writes its row anew');
$dtx->p(2)->stop('immediate');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.fault');
$coord->reload;
kill 'CONT', $pid;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.servers WHERE server = 's2' AND NOT reachable}, 1, 'a server is down');
$dtx->wait_passes(1);
is($dtx->sql('SELECT gid FROM dtx.in_doubt'), '', '... and nothing is in doubt there');
$dtx->p(2)->start;
$dtx->clean('at last');
$dtx->balances_are('100 98 102', '... with the right balances');
$s->close;

done_testing();
