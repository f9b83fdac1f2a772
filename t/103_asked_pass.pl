# A full pass that was asked for comes to an end also if it takes longer than the pause
# between two, because servers are being visited all the time.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $servers = 12;
my $dtx = DtxTest->new(servers => 1, conf => "pg_dtx.resolve_interval = '1h'\n");
my ($coord, $p1) = ($dtx->coord, $dtx->p(1));
my ($host, $port) = ($p1->host, $p1->port);

# Every connection takes a second, and four at a time are made to one place.
$p1->append_conf('postgresql.conf', 'pre_auth_delay = 1');
$p1->reload;
$dtx->sql(join '', map { qq{
CREATE SERVER slow$_ FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER slow$_;} } 1 .. $servers);

# Each transaction that confirms something asks for a pass; the second one while the
# first pass has begun, and visits are running.
my $state = q{SELECT state FROM pg_stat_activity WHERE application_name = 'pg_dtx resolver'};
$dtx->sql(join '', map { "SELECT dtx.confirm_server('slow$_', all_mappings => true);" } 1 .. $servers);
$dtx->poll($coord, $state, 'active', 'a pass begins');
$dtx->sql(q{SELECT dtx.confirm_server('slow1', all_mappings => true)});
$dtx->poll($coord, q{SELECT count(*) FROM dtx.servers WHERE server LIKE 'slow%' AND reachable}, $servers, 'all servers are visited');
$dtx->poll($coord, $state, 'idle', '... and the pass ends');

done_testing();
