# Two foreign servers that lead to the same cluster: what is finished through the one
# has not "reappeared" because the other one has an older list.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxProxy;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [1]);
my $coord = $dtx->coord;
my $other = DtxProxy->new($dtx->p(1));
my ($host, $port) = ($other->host, $dtx->p(1)->port);
$dtx->sql(qq{
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER other;
SELECT dtx.confirm_server('other', all_mappings => true)});

# The commit log proves how a transaction of an earlier run has ended if the resolver
# has made a pass since.  Both are looked at once the decision is gone.
for my $how ('proven', 'not proven')
{
	# In doubt on s1, and the resolver about to commit it there, when ...
	$dtx->sql('ALTER SYSTEM SET pg_dtx.resolve_interval = ' . ($how eq 'proven' ? q{'500ms'} : q{'1h'}));
	$coord->reload;
	$dtx->arm;
	my $s = $dtx->session;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(1, 1, 2));
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	my $xid = (split /:/, $dtx->gid(1))[4];
	$dtx->poll($coord, "SELECT proven_xid > '$xid' FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1", 't', "$how: the resolver has been there")
	  if $how eq 'proven';
	$dtx->proxy(1)->rule(hold => 'COMMIT PREPARED');
	$dtx->crash($coord);
	$other->rule(split => 'dtx:[0-9a-f]{16}:');
	$coord->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''\npg_dtx.resolve_interval = '500ms'");
	my $log = -s $coord->logfile;
	$coord->start;
	$s->finish;
	$s->close;

	# ... the other server has shown it, and its visit is late.
	$dtx->proxy(1)->wait_for('hold');
	$other->wait_for('split');
	$dtx->proxy(1)->clear;
	$dtx->prepared_is(1, 0, "$how: committed through the one server");
	$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... and forgotten');
	$other->clear;
	$dtx->wait_passes(2);
	is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... it has not reappeared on the other one');
	unlike(slurp_file($coord->logfile, $log), qr/is left alone/, '... nor is it left alone there');
	is($dtx->sql('SELECT count(*) FROM dtx.in_doubt'), '0', '... and nothing is in doubt');
}
$dtx->balances_are('100 98 102', 'committed everywhere');
done_testing();
