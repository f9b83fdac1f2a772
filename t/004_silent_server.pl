# A server that stops answering without closing its connections: every wait is
# bounded, and can be canceled.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(
	servers => 2,
	conf => "pg_dtx.commit_timeout = '1h'\npg_dtx.prepare_timeout = '1h'\n");
my $work = 'BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10; UPDATE acct0 SET bal = bal + 1;';
my $s = $dtx->session;

sub rolled_back
{
	my $name = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	$dtx->prepared_is(1, 0, "$name: s1 is rolled back while s2 is silent");
	$dtx->thaw($dtx->p(2));
	$dtx->clean($name);
	$dtx->balances_are('100 100 100', "$name: nothing is left");
	return;
}

# Phase one, timeout.
$s->run("SET pg_dtx.prepare_timeout = '1s'; $work");
$dtx->freeze($dtx->p(2));
my $start = time;
$s->run('COMMIT');
my $elapsed = time - $start;
like($s->stderr, qr/ERROR: .*"s2"/, 'prepare_timeout is an error that names the server');
cmp_ok($elapsed, '>=', 1, '... after the timeout');
cmp_ok($elapsed, '<', 20, '... and not much later');
rolled_back('timeout in phase one');

# Phase one, cancel.
$s->run("RESET pg_dtx.prepare_timeout; $work");
$dtx->freeze($dtx->p(2));
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
is($s->finished, 0, 'COMMIT waits');
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/ERROR:  57014: canceling statement due to user request/,
	'cancel works in phase one');
rolled_back('cancel in phase one');

# Phase one, terminate.
$s->run($work);
$dtx->freeze($dtx->p(2));
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
my $pid = $s->pid;
$dtx->sql("SELECT pg_terminate_backend($pid)");
$s->finish;
like($s->stderr, qr/FATAL:  57P01/, 'pg_terminate_backend works in phase one');
$dtx->poll($dtx->coord,
	"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid",
	'0', '... the backend is gone');
rolled_back('terminate in phase one');
$s->close;

# Phase two.  The commit is held until both are prepared, and the server goes
# silent before the decision is released.
my %second = (
	timeout => {
		set => "SET pg_dtx.commit_timeout = '5s';",
		act => sub { },
		alive => 1
	},
	cancel => {
		set => '',
		act => sub { $dtx->sql("SELECT pg_cancel_backend($_[0])") },
		alive => 1
	},
	terminate => {
		set => '',
		act => sub { $dtx->sql("SELECT pg_terminate_backend($_[0])") },
		alive => 0
	});
my $balance = 100;
for my $how (qw(timeout cancel terminate))
{
	my $case = $second{$how};

	$dtx->arm;
	$s = $dtx->session;
	$s->run($dtx->hold . $case->{set} . $work);
	$s->start('COMMIT');
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	$dtx->freeze($dtx->p(2));
	$dtx->release;
	$dtx->prepared_is(1, 0, "$how in phase two: s1 has committed");
	$pid = $s->pid;
	if ($how ne 'timeout')
	{
		$dtx->poll(
			$dtx->coord,
			"SELECT state, waiting_for::text FROM dtx.transactions WHERE pid = $pid",
			'committing|{s2}',
			"$how in phase two: dtx.transactions");
		is($s->finished, 0, "$how in phase two: COMMIT waits");
	}
	$start = time;
	$case->{act}->($pid);
	$s->finish;
	cmp_ok(time - $start, '<', 20, "$how in phase two: soon");
	my @warnings = $s->stderr =~ /^(?:psql:.*?)?WARNING:.*$/mg;
	if ($case->{alive})
	{
		unlike($s->stderr, qr/ERROR|FATAL/, "$how in phase two: COMMIT succeeds");
		is(scalar(@warnings), 1, "$how in phase two: one warning")
		  or diag($s->stderr);
		like($warnings[0] // '', qr/s2/, '... that names the server');
		unlike($warnings[0] // '', qr/s1/, '... and no other');
		like($s->stderr, qr/dtx\.in_doubt/, '... and the view to look at');
	}
	else
	{
		$dtx->poll($dtx->coord,
			"SELECT count(*) FROM pg_stat_activity WHERE pid = $pid",
			'0', "$how in phase two: the backend is gone");
	}
	$dtx->poll($dtx->coord, 'SELECT server, decision FROM dtx.in_doubt',
		's2|commit', "$how in phase two: dtx.in_doubt");
	is($dtx->sql('SELECT bal FROM acct1'),
		$balance - 10, "$how in phase two: committed on s1");
	$dtx->thaw($dtx->p(2));
	$dtx->clean("$how in phase two");
	$balance -= 10;
	$dtx->balances_are(
		join(' ', 100 + (100 - $balance) / 10, $balance, 200 - $balance),
		"$how in phase two: committed everywhere");
	$s->close;
}

done_testing();
