# A standby of the coordinator is promoted: its resolver takes over.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $primary = $dtx->coord;

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$dtx->poll($primary, 'SELECT count(*) FROM pg_stat_replication', '1',
	'a standby streams');

# On the standby the views work, and no resolver runs.
like(($standby->psql('postgres', 'CALL dtx.self_test()'))[2], qr/ERROR:  dtx\.self_test\(\) cannot be called during recovery/,
	'dtx.self_test() on a standby');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM dtx.in_doubt'),
	'0', 'dtx.in_doubt on a standby');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM dtx.transactions'),
	'0', 'dtx.transactions on a standby');

# One commit is replicated and not confirmed by any server, ...
my $committed = $dtx->session;
$committed->run($dtx->hold);
$committed->start($dtx->transfer(10, 1, 0, 2));
$dtx->wait_held($committed);
$dtx->poll($standby, 'SELECT bal FROM acct0', '100', 'a commit is replicated')
  unless $dtx->poll($standby, 'SELECT count(*) FROM dtx_internal.decision', '1',
	'the decision is replicated');

# ... another transaction is prepared on s1 only.
my $undecided = $dtx->session;
$dtx->p($_)->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)')
  for 1, 2;
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$undecided->start(
	'BEGIN; UPDATE acct1 SET bal = 0 WHERE id = 2; UPDATE acct2 SET bal = 0 WHERE id = 2; COMMIT');
$dtx->prepared_is(1, 2);
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(2, 1);

# A reading standby does not touch them, whatever it is asked for.
my ($ret, $out, $err) =
  $standby->psql('postgres', 'SELECT * FROM dtx.resolve_in_doubt()');
isnt($ret, 0, 'dtx.resolve_in_doubt() on a standby is an error');
$dtx->prepared_is(1, 2);

$dtx->crash($primary);
$_->close for $committed, $undecided;
$dtx->prepared_is(1, 2, 'prepared when the primary is dead');
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->reload;
$standby->promote;
$dtx->set_coord($standby);
$dtx->proxy(2)->clear;
$dtx->proxy(2)->wait_for('released');
$dtx->clean('after the promotion');
is($standby->safe_psql('postgres', 'SELECT bal FROM acct0'),
	'100', 'the replicated commit is a commit');
is( $dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct ORDER BY id'),
	"90\n100", 's1: committed, and the undecided one rolled back');
is( $dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct ORDER BY id'),
	"110\n100", 's2: committed, and the undecided one rolled back');

# The new coordinator works.
my $s = $dtx->session;
$s->run($dtx->transfer(10, 2, 0, 1));
is($s->stderr, '', 'the new coordinator commits');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'),
	'100', '... on the servers');
$dtx->clean('at the end');
$s->close;

done_testing();
