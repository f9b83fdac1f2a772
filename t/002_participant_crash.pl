# A participant dies before, while and after it is prepared.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(servers => 2);

# Before: the COMMIT finds the connection dead.
my $s = $dtx->session;
$s->run('BEGIN; UPDATE acct1 SET bal = 0; UPDATE acct2 SET bal = 0; UPDATE acct0 SET bal = 0');
$dtx->crash($dtx->p(2));
$s->run('COMMIT');
like($s->stderr, qr/ERROR:  .*"s2"|ERROR:  08006/, 'dead before PREPARE: an error');
$dtx->p(2)->start;
$dtx->balances_are('100 100 100', '... and nothing is left');
$dtx->clean('dead before PREPARE');

# During: PREPARE is on its way into a server that does not answer and dies.
$s->run('BEGIN; UPDATE acct1 SET bal = 0; UPDATE acct2 SET bal = 0; UPDATE acct0 SET bal = 0');
$dtx->stop_process($dtx->remote_pids(2));
$s->start('COMMIT');
$dtx->prepared_is(1, 1, 's1 is prepared while s2 is not');
$dtx->poll($dtx->coord, 'SELECT state, waiting_for::text FROM dtx.transactions',
	'preparing|{s2}', 'dtx.transactions: preparing, waiting for s2');
$dtx->crash($dtx->p(2));
$s->finish;
like($s->stderr, qr/ERROR: .*"s2"/, 'dead in PREPARE: an error');
$dtx->prepared_is(1, 0, '... and s1 is rolled back');
$dtx->p(2)->start;
$dtx->balances_are('100 100 100', '... and nothing is left');
$dtx->clean('dead in PREPARE');

# Prepared, and the decision is made.
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->wait_held($s);
$dtx->prepared_is(1, 1);
$dtx->prepared_is(2, 1);
$dtx->balances_are('100 100 100', 'nothing is visible between the phases');
my $gid = $dtx->gid(2);
my ($handed_over, $commit, $rollback) = split /\|/,
  $dtx->sql('SELECT handed_over, resolved_commit, resolved_rollback FROM dtx.stat');
$dtx->crash($dtx->p(2));
$dtx->release;
$s->finish;
unlike($s->stderr, qr/ERROR|FATAL/, 'dead while prepared: COMMIT succeeds');
my @warnings = $s->stderr =~ /^(?:psql:.*?)?WARNING:.*$/mg;
is(scalar(@warnings), 1, '... with one warning') or diag($s->stderr);
like($warnings[0] // '', qr/s2/, '... that names the server');
unlike($warnings[0] // '', qr/s1/, '... and only that one');
like($s->stderr, qr/dtx\.in_doubt/, '... and the view to look at');
is($dtx->sql('SELECT bal FROM acct0'), '100', 'committed here');
is($dtx->sql('SELECT bal FROM acct1'), '90', 'committed on s1');
$dtx->poll(
	$dtx->coord,
	q{SELECT gid, server, decision, since IS NOT NULL, attempts > 0, last_error <> '' FROM dtx.in_doubt},
	"$gid|s2|commit|t|t|t",
	'dtx.in_doubt shows it, with the attempts and the error');
like($dtx->sql('SELECT last_error FROM dtx.in_doubt'), qr/^connection to server .* failed: [^.]+\. Is the server running [^\n]+\?$/,
	'... libpq\'s two lines in one');
$dtx->poll(
	$dtx->coord,
	q{SELECT server, reachable, in_doubt, last_error <> '' FROM dtx.servers ORDER BY server},
	"s1|t|0|\ns2|f|1|t",
	'dtx.servers shows the server unreachable');

# Another transaction in the meantime, with the other server.
$s->run($dtx->transfer(10, 1, 0));
unlike($s->stderr, qr/ERROR|WARNING/, 'the other server goes on working');

$dtx->p(2)->start;
$dtx->clean('dead while prepared');
$dtx->balances_are('110 80 110', 'committed everywhere after the restart');
is($dtx->sql('SELECT handed_over, resolved_commit, resolved_rollback FROM dtx.stat'),
	join('|', $handed_over + 1, $commit + 1, $rollback), 'statistics');
$s->run($dtx->transfer(10, 0, 1));
$s->run($dtx->transfer(10, 2, 1));
is($s->stderr, '', 'the same session works with the restarted server');
$dtx->balances_are('100 100 100', '... and commits');
$dtx->clean('at the end');
$s->close;

done_testing();
