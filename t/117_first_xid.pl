# What a crash has left is judged although other databases and users have used
# transaction ids before the resolver of its own has recorded the start.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $coord = $dtx->coord;
for my $db (qw(db2 db3 db4))
{
	$dtx->sql("CREATE DATABASE $db");
	$dtx->install($db);
}
$coord->safe_psql($_, 'BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; COMMIT') for qw(postgres db2 db3 db4);
$dtx->prepared_is($_, 0) for 1, 2;

# A transaction that wrote nothing here is prepared on a server; nothing of its id is in
# the WAL.
for my $db (qw(postgres db3 db4))
{
	$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
	my $s = $dtx->session(dbname => $db);
	$s->start('BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; COMMIT');
	$dtx->prepared_is(1, 1, "prepared on s1 by $db");
	my ($xid) = $dtx->gid(1) =~ /^dtx:[0-9a-f]+:\d+:[0-9a-f]+:(\d+):/;
	$dtx->crash($coord);
	$s->close;
	$coord->start;
	$coord->safe_psql($_, 'CREATE TABLE IF NOT EXISTS t (); DROP TABLE t') for qw(postgres db2);
	$dtx->poll($coord, "SELECT txid_current() > $xid", 't', 'its id is used by another transaction');
	$dtx->prepared_is(1, 0, "$db: rolled back");
	$dtx->proxy(2)->clear;
	$dtx->prepared_is(2, 0, '... on the other one, too, if it comes late');
	ok($coord->poll_query_until($db, 'SELECT count(*) FROM dtx.in_doubt', '0'), '... and nothing is in doubt');
}

# A default of a database that has everything run in parallel mode is none for us.
my $parallel = $dtx->sql(q{SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});
$coord->safe_psql('db2', "ALTER DATABASE db2 SET $parallel = on");
is($coord->safe_psql('db2', 'SELECT dtx_internal.saga_active_home() IS NOT NULL'), 't', 'functions of ours do not run in it');
my $log = -s $coord->logfile;
$coord->restart;
my ($gid) = $dtx->orphan_gids(1, 'db2');
$dtx->p(1)->safe_psql('postgres', "BEGIN; PREPARE TRANSACTION '$gid'");
$dtx->prepared_is(1, 0, '... nor does a resolver');
unlike(slurp_file($coord->logfile, $log), qr/ERROR/, '... without an error');

done_testing();
