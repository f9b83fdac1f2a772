# synchronous_commit = off must not lose a decision.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "wal_writer_delay = '10s'\nsynchronous_standby_names = ''\nbgwriter_lru_maxpages = 0\n");

# What a commit may lose with this setting: the control, without servers.
# Nothing but the WAL writer would put it on disk, and that is stopped.
# Some other process may flush the WAL for reasons of its own, so try more than once.
my ($s, $walwriter);
for my $try (1 .. 5)
{
	$dtx->sql('UPDATE acct0 SET bal = 100');
	$s = $dtx->session;
	$dtx->sql('CHECKPOINT');
	$walwriter = $dtx->sql(
		q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
	$dtx->stop_process($walwriter);
	$s->run('SET synchronous_commit = off; UPDATE acct0 SET bal = 0');
	is($s->stderr, '', 'a local commit');
	$dtx->crash($dtx->coord);
	$s->close;
	$dtx->coord->start;
	last if $dtx->sql('SELECT bal FROM acct0') eq '100';
	note "not lost, try $try";
}
$dtx->balances_are('100 100 100', 'the local commit is lost: the method works');

# COMMIT PREPARED does not get through to s2, not even after the crash: only the
# decision on disk can tell that it is to be committed.
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
$s = $dtx->session;
$s->run(q{SET synchronous_commit = off; SET pg_dtx.commit_timeout = '10ms'});
$walwriter = $dtx->sql(
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
$dtx->stop_process($walwriter);
$s->run($dtx->transfer(10, 1, 0, 2));
unlike($s->stderr, qr/ERROR|FATAL/, 'COMMIT succeeds');
like($s->stderr, qr/WARNING:.*"s2"/, '... without the confirmation of s2');
$dtx->prepared_is(2, 1);
$dtx->crash($dtx->coord);
$s->close;
$dtx->prepared_is(2, 1, 's2 is still prepared after the crash');
$dtx->coord->start;
$dtx->proxy(2)->clear;
$dtx->clean('synchronous_commit = off');
$dtx->balances_are('100 90 110', 'committed everywhere');

# Two servers, no local write at all.
$s = $dtx->session;
$s->run('SET synchronous_commit = off');
$walwriter = $dtx->sql(
	q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'});
$dtx->stop_process($walwriter);
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
$s->run(q{SET pg_dtx.commit_timeout = '10ms';} . $dtx->transfer(10, 2, 1));
like($s->stderr, qr/WARNING:.*"s2"/, 'without a local write: COMMIT succeeds');
$dtx->crash($dtx->coord);
$s->close;
$dtx->coord->start;
$dtx->proxy(2)->clear;
$dtx->clean('without a local write');
$dtx->balances_are('100 100 100', 'committed everywhere');

done_testing();
