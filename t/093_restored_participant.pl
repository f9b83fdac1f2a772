# A participant comes back as it was before: restored from a backup, or as a standby
# that had not received everything; or its server leads elsewhere and does not tell.
use strict;
use warnings FATAL => 'all';

use File::Path qw(rmtree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(
	servers => 3,
	participant_conf => "wal_level = replica\nmax_wal_senders = 5\nhot_standby = on\n");
my $coord = $dtx->coord;
my $damage = 'SELECT server, decided, found FROM dtx.damage ORDER BY since';

sub acknowledge
{
	$dtx->sql(q{SELECT dtx.acknowledge_damage(gid, 'seen') FROM dtx.damage});
	return;
}

# A commit that waits for its local standby, everything prepared.
sub hold
{
	my $sql = shift;
	$dtx->arm;
	my $s = $dtx->session;
	$s->run($dtx->hold . q{SET pg_dtx.commit_timeout = '3s'});
	$s->start($sql);
	$dtx->wait_held($s);
	return $s;
}

# ---- restored from a backup that was taken while something was prepared
my $s = hold($dtx->transfer(10, 1, 2));
$dtx->prepared_is($_, 1) for 1, 2;
$dtx->p(1)->backup('prepared');
$dtx->release;
$s->finish;
is($s->stderr, '', 'committed');
$s->close;
$dtx->clean('confirmed everywhere');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... and the decision is forgotten');
$dtx->p(1)->stop;
rmtree($dtx->p(1)->data_dir);
PostgreSQL::Test::RecursiveCopy::copypath($dtx->p(1)->backup_dir . '/prepared', $dtx->p(1)->data_dir);
chmod 0700, $dtx->p(1)->data_dir;
$dtx->p(1)->start;
$dtx->prepared_is(1, 0, 'restored: it is finished');
$dtx->balances_are('100 90 110 100', '... committed, as on the other server');
$dtx->poll($coord, $damage, 's1|commit|reappeared', '... and that is on record');
like($dtx->sql('SELECT detail FROM dtx.damage'), qr/this server had confirmed it/, '... with what that means');
acknowledge();

# ---- a standby is promoted that has the PREPARE, and not the COMMIT PREPARED
sub standby_of
{
	my ($i, $name) = @_;
	my $node = $dtx->p($i);
	$node->backup($name);
	my $standby = PostgreSQL::Test::Cluster->new($name);
	$standby->init_from_backup($node, $name, has_streaming => 1);
	$standby->start;
	$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
	return $standby;
}

sub fail_over
{
	my ($i, $standby) = @_;
	$dtx->p($i)->stop('immediate');
	$standby->start;
	$standby->promote;
	$dtx->{nodes}[$i] = $standby;
	$dtx->sql(sprintf "ALTER SERVER s$i OPTIONS (SET host '%s', SET port '%s')", $standby->host, $standby->port);
	return;
}

my $standby = standby_of(1, 'standby1');
$s = hold($dtx->transfer(10, 1, 2));
$dtx->p(1)->wait_for_catchup($standby, 'replay', $dtx->p(1)->lsn('insert'));
$standby->stop;
$dtx->release;
$s->finish;
is($s->stderr, '', 'committed, and the standby was away');
$s->close;
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... confirmed and forgotten');
fail_over(1, $standby);
$dtx->prepared_is(1, 0, 'promoted: it is finished');
$dtx->balances_are('100 80 120 100', '... committed, as on the other server');
$dtx->poll($coord, $damage, 's1|commit|reappeared', '... and that is on record');
acknowledge();

# ---- a standby is promoted that has not even the PREPARE, and goes to work at once
$standby = standby_of(1, 'standby2');
$standby->stop;
$s = hold($dtx->transfer(10, 1, 2));
my $xid = $dtx->p(1)->safe_psql('postgres', 'SELECT transaction FROM pg_prepared_xacts');
fail_over(1, $standby);
while ($standby->safe_psql('postgres', 'SELECT pg_current_xact_id()') <= $xid + 3) { }
is($standby->safe_psql('postgres', "SELECT pg_xact_status('$xid')"), 'committed', 'the same xid has committed there, of another transaction');
$dtx->release;
$s->finish;
like($s->stderr, qr/WARNING.*"s1"/, 'committed, and s1 has not confirmed');
$s->close;
$dtx->poll($coord, $damage, 's1|commit|unknown', 'what became of it is not taken for a commit');
$dtx->balances_are('100 80 130 100', '... it is lost');
$dtx->clean('and forgotten with that');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... and its decision');
acknowledge();

# ---- a server that does not say which cluster it is
for my $i (2, 3)
{
	$dtx->p($i)->safe_psql('postgres', q{
REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC;
CREATE ROLE clerk LOGIN;
GRANT ALL ON acct TO clerk});
}
$dtx->sql(q{
ALTER USER MAPPING FOR CURRENT_USER SERVER s2 OPTIONS (ADD user 'clerk');
ALTER USER MAPPING FOR CURRENT_USER SERVER s3 OPTIONS (ADD user 'clerk')});
$s = hold($dtx->transfer(5, 1, 2));
$dtx->prepared_is(2, 1);
$dtx->p(2)->stop('immediate');
$dtx->release;
$s->finish;
like($s->stderr, qr/WARNING.*"s2"/, 'committed, and s2 has not confirmed');
$s->close;
my ($host, $port) = ($dtx->p(2)->host, $dtx->p(2)->port);
$dtx->sql(sprintf "ALTER SERVER s2 OPTIONS (SET host '%s', SET port '%s')", $dtx->p(3)->host, $dtx->p(3)->port);
$dtx->poll($coord, q{SELECT last_error LIKE '%cannot be told whether the server is the one where it was%' FROM dtx.in_doubt}, 't',
	'another cluster, which it does not say: not confirmed');
$dtx->wait_passes(2);
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', '... the decision is kept');
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$host', SET port '$port')");
$dtx->p(2)->start;
$dtx->clean('back again');
$dtx->balances_are('100 75 135 100', '... it is committed');

# The same server, its options the same: its word about the transaction counts.
$s = hold($dtx->transfer(5, 1, 2));
$dtx->prepared_is(2, 1);
my $gid = $dtx->gid(2);
$dtx->p(2)->stop('immediate');
$dtx->release;
$s->finish;
$s->close;
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.resolver = off});
$coord->reload;
$dtx->poll($coord, q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}, 't', 'the resolver rests');
$dtx->p(2)->start;
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '$gid'");
$dtx->sql(q{ALTER SYSTEM RESET pg_dtx.resolver});
$coord->reload;
$dtx->clean('finished by hand');
is($dtx->sql($damage), '', '... as decided');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.decision', '0', '... and the decision is forgotten');
done_testing();
