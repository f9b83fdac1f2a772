# More in doubt than shared memory has room for: nothing is lost, the passes
# find it on the servers.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "pg_dtx.max_in_doubt = 16\n",
	participant_conf => "max_prepared_transactions = 40\n");
my $n = 25;
my $errors = '';

$dtx->p($_)->safe_psql('postgres',
	"INSERT INTO acct SELECT i, 100 FROM generate_series(2, $n) i")
  for 1, 2;
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
my $s;
for my $i (1 .. $n)
{
	# (a session does not use the server before it sees what it has committed)
	$s = $dtx->session;
	$s->run("SET pg_dtx.commit_timeout = 0; BEGIN; UPDATE acct1 SET bal = 90 WHERE id = $i; UPDATE acct2 SET bal = 110 WHERE id = $i; COMMIT");
	$errors .= $s->stderr if $s->stderr =~ /ERROR/;
	$s->close;
}
is($errors, '', 'sessions go on after COMMITs that were not confirmed');
$errors = '';
$dtx->prepared_is(2, $n, "$n are prepared on s2");
my $shown = $dtx->sql('SELECT count(*) FROM dtx.in_doubt');
cmp_ok($shown, '<=', 16, 'dtx.in_doubt shows no more than there is room for');
cmp_ok($dtx->sql('SELECT not_remembered FROM dtx.stat'),
	'>', 0, 'dtx.stat counts those that were not remembered');
is( $dtx->sql('SELECT count(*) >= ' . $n . ' FROM dtx_internal.decision'),
	't', 'all decisions are on record');

$dtx->proxy(2)->clear;
$dtx->clean('the server answers again');
is( $dtx->p(2)->safe_psql(
		'postgres', 'SELECT count(*) FROM acct WHERE bal = 110'),
	$n,
	'all of them are committed on s2');
is( $dtx->p(1)->safe_psql(
		'postgres', 'SELECT count(*) FROM acct WHERE bal = 90'),
	$n,
	'... and on s1');

# The same after the coordinator has forgotten everything in shared memory.
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
for my $i (1 .. $n)
{
	$s = $dtx->session;
	$s->run("SET pg_dtx.commit_timeout = 0; BEGIN; UPDATE acct1 SET bal = 100 WHERE id = $i; UPDATE acct2 SET bal = 100 WHERE id = $i; COMMIT");
	$errors .= $s->stderr if $s->stderr =~ /ERROR/;
	$s->close;
}
is($errors, '', 'sessions go on after COMMITs that were not confirmed');
$dtx->prepared_is(2, $n, "$n are prepared on s2 again");
$dtx->crash($dtx->coord);
$dtx->coord->start;
$dtx->proxy(2)->clear;
$dtx->clean('after a crash');
is( $dtx->p($_)->safe_psql(
		'postgres', 'SELECT count(*) FROM acct WHERE bal = 100'),
	$n,
	"all of them are committed on s$_") for 1, 2;
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decisions are forgotten');

done_testing();
