# pg_upgrade keeps the decisions, and what was in doubt is committed.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $old = $dtx->coord;
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$old->reload;
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
my $session = $dtx->session;
$session->run('SET pg_dtx.commit_timeout = 0;' . $dtx->transfer(1, 1, 2));
$session->close;
$dtx->prepared_is(2, 1);
is($dtx->sql('SELECT count(*) FROM dtx.decision'), '1', 'a decision');
$dtx->proxy(2)->clear;
$old->stop;

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
is($dtx->sql('SELECT count(*) FROM dtx.decision'), '1', 'the decision is there');
$dtx->prepared_is(2, 0, 'what it says is done');
$dtx->balances_are('100 99 101', 'committed');
$dtx->sql($dtx->transfer(1, 1, 2));
$dtx->balances_are('100 98 102', 'and commits go on');

done_testing();
