# The coordinator has a synchronous standby: no server is told to commit before that
# standby has the decision.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "pg_dtx.wait_for_standby = on\n");
my $coord = $dtx->coord;
my $why = "this server's synchronous standby has not got the decision yet";

# All sessions wait for the standby that there is not.
$dtx->sql('ALTER SYSTEM SET synchronous_commit = on');
$coord->reload;
$dtx->poll($coord, 'SHOW synchronous_commit', 'on', 'synchronous commit');

sub in_doubt
{
	my ($n, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$dtx->poll($coord, qq{SELECT count(*) FROM dtx.in_doubt WHERE decision = 'commit' AND last_error = '} . ($why =~ s/'/''/r) . q{'},
		$n, $name);
	return;
}

# Start a COMMIT that waits for the standby, and cancel that.
sub commit_canceled
{
	my $s = $dtx->session;
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	$coord->safe_psql('postgres', 'SELECT pg_cancel_backend(' . $s->pid . ')');
	$s->finish;
	return $s;
}

# Canceled: nobody is told, neither by the session nor by the resolver, ...
my $s = commit_canceled();
like($s->stderr, qr/WARNING:.*canceling wait for synchronous replication/, 'the wait was canceled');
like($s->stderr, qr/WARNING:.*not every server has confirmed it yet: "s1", "s2"/, '... the client is told');
in_doubt(2, '... dtx.in_doubt tells why');
$dtx->wait_passes(2);
$dtx->prepared_is($_, 1, "... still prepared on s$_") for 1, 2;
is($dtx->sql('SELECT count(*) FROM dtx.resolve_in_doubt() WHERE done'), '0', '... not by dtx.resolve_in_doubt() either');
$dtx->prepared_is($_, 1, "... still prepared on s$_") for 1, 2;

# ... while a rollback waits for nothing.
my $other = $dtx->session;
$_->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)') for $dtx->p(1), $dtx->p(2);
$dtx->proxy(2)->rule(cut_reply => q{PREPARE TRANSACTION 'dtx});
$other->run('BEGIN; UPDATE acct1 SET bal = 0 WHERE id = 2; UPDATE acct2 SET bal = 0 WHERE id = 2; COMMIT');
like($other->stderr, qr/ERROR/, 'another transaction fails');
$dtx->proxy(2)->wait_for('cut_reply');
$dtx->proxy(2)->clear;
$dtx->prepared_is($_, 1, "... it is rolled back on s$_") for 1, 2;
$other->close;

$dtx->release;
$dtx->clean('when no standby is needed any more');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '90', '... committed on s1');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '110', '... committed on s2');
$s->close;
for my $level (qw(remote_write remote_apply))
{
	my (undef, undef, $said) = $coord->psql('postgres', "SET synchronous_commit = $level; " . $dtx->transfer(1, 1, 0, 2) . $dtx->transfer(1, 2, 0, 1));
	is($said, '', "... nor where sessions would wait for $level");
}

# Sessions that do not want to wait do not: a COMMIT that does not ask for it, ...
$dtx->arm;
$s = $dtx->session;
$s->run('SET synchronous_commit = local');
$s->run($dtx->transfer(10, 2, 0, 1));
is($s->stderr, '', 'synchronous_commit = local: nothing is waited for');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '100', '... committed');
$s->close;

# ... and all, if availability counts for more.
$dtx->sql('ALTER SYSTEM SET pg_dtx.wait_for_standby = off');
$coord->reload;
$dtx->poll($coord, 'SHOW pg_dtx.wait_for_standby', 'off', 'wait_for_standby = off');
$s = commit_canceled();
unlike($s->stderr, qr/not every server has confirmed/, '... the servers are told at once');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '110', '... committed');
$dtx->sql('ALTER SYSTEM SET pg_dtx.wait_for_standby = on');
$coord->reload;
$s->close;

# A restart: what is found in the table was waited for by nobody.
$s = $dtx->session;
$s->start($dtx->transfer(10, 2, 0, 1));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1, 2;
$dtx->crash($coord);
$s->close;
$coord->start;
in_doubt(2, 'after a restart: dtx.in_doubt tells why');
$dtx->wait_passes(2);
$dtx->prepared_is($_, 1, "... still prepared on s$_") for 1, 2;

# A standby comes, and gets it.
$dtx->sql(q{SET synchronous_commit = local; SELECT pg_create_physical_replication_slot('standby', true)});
$coord->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($coord, 'backup', has_streaming => 1);
$standby->start;
$dtx->sql(q{ALTER SYSTEM SET synchronous_standby_names = 'standby'});
$coord->reload;
$dtx->clean('a standby has the decision');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '100', '... committed on s1');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '100', '... committed on s2');

# It goes away, and is promoted without the decision: all is rolled back.
$dtx->poll($coord, 'SELECT replay_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication', 't', 'it follows');
$standby->stop;
$s = commit_canceled();
in_doubt(2, 'canceled again');
$dtx->crash($coord);
$s->close;
$standby->start;
$standby->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$standby->safe_psql('postgres', "ALTER SYSTEM RESET synchronous_standby_names");
$standby->reload;
$standby->promote;
$dtx->set_coord($standby);
$dtx->clean('after the failover of the coordinator');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '100', '... rolled back on s1');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), '100', '... rolled back on s2');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... without damage');

done_testing();
