# pg_upgrade keeps the decisions, and what was in doubt is committed once a human has said
# that the old cluster is not used any more.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $old = $dtx->coord;
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$old->reload;
$dtx->arm;
my $session = $dtx->session;
$session->run($dtx->hold);
$session->start($dtx->transfer(1, 1, 2));
$dtx->wait_held($session);
$dtx->prepared_is(2, 1);
$dtx->p(2)->stop('immediate');
$dtx->release;
$session->finish;
like($session->stderr, qr/WARNING.*"s2"/, 's2 has not confirmed');
$session->close;
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', 'a decision');
$old->stop;
$dtx->p(2)->start;

my $new = PostgreSQL::Test::Cluster->new('new');
$new->init(allows_streaming => 1);
$new->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\npg_dtx.resolve_interval = '500ms'\n");
chomp(my $bindir = `$ENV{PG_CONFIG} --bindir`);
my $dir = PostgreSQL::Test::Utils::tempdir;
chdir $dir or die "$!";
command_ok([ 'pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir,
		'-B', $bindir, '-s', $new->host, '-p', $old->port, '-P', $new->port ], 'pg_upgrade');
$new->start;
$dtx->set_coord($new);
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', 'the decision is there');
is($dtx->sql('SELECT suspended FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1'),
	'the system identifier of the cluster has changed', 'it could be a copy')
  if $dtx->poll($new, 'SELECT passes > 2 FROM dtx.stat', 't', 'the resolver looks');
$dtx->prepared_is(2, 1, '... and leaves it alone');
$dtx->sql(q{SELECT dtx.adopt_identity('pg_upgrade')});
$dtx->prepared_is(2, 0, 'adopted: what the decision says is done');
$dtx->balances_are('100 99 101', 'committed');
$dtx->sql($dtx->transfer(1, 1, 2));
$dtx->balances_are('100 98 102', 'and commits go on');

done_testing();
