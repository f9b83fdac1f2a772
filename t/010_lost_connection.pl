# Connections that are lost at every step.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "pg_dtx.commit_timeout = '2s'\n");
my $s = $dtx->session;
my $balance = 100;

# A transfer of 10 that must fail / succeed, and then the state of all servers.
sub fails
{
	my ($name, $pattern) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	like($s->stderr, $pattern, "$name: an error");
	$dtx->clean($name);
	$dtx->balances_are(
		join(' ', 100, $balance, 200 - $balance),
		"$name: nothing is left");
	return;
}

sub succeeds
{
	my ($name, $warned) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	unlike($s->stderr, qr/ERROR|FATAL/, "$name: COMMIT succeeds");
	my @warnings = $s->stderr =~ /WARNING:.*/g;
	if ($warned)
	{
		is(scalar(@warnings), 1, "$name: one warning") or diag($s->stderr);
		like($warnings[0] // '', qr/"s2"/, "$name: ... names the server");
	}
	else
	{
		is($s->stderr, '', "$name: no warning");
	}
	$dtx->clean($name);
	$balance -= 10;
	$dtx->balances_are(
		join(' ', 100, $balance, 200 - $balance),
		"$name: committed everywhere");
	return;
}

# The remote backend is terminated inside the transaction, before COMMIT.
$s->run('BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10');
$dtx->p(2)->safe_psql('postgres', "SELECT pg_terminate_backend($_)")
  for $dtx->remote_pids(2);
$dtx->poll($dtx->p(2),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', 'the remote backend is gone');
$s->run('COMMIT');
fails('terminated before COMMIT', qr/ERROR:/);

# Message by message, through the proxy.
my @cases = (

	# rule, message, fails or not
	[ 'cut', q{PREPARE TRANSACTION 'dtx}, 1 ],
	[ 'cut_reply', q{PREPARE TRANSACTION 'dtx}, 1 ],
	[ 'cut', 'COMMIT PREPARED', 0 ],
	[ 'cut_reply', 'COMMIT PREPARED', 0 ]);
for my $commit_wait (qw(on off))
{
	$s->run("SET pg_dtx.commit_wait = $commit_wait");
	for my $case (@cases)
	{
		my ($rule, $message, $fails) = @$case;
		my $name = "$rule $message, commit_wait $commit_wait";

		$dtx->proxy(2)->rule($rule, $message);
		$s->run($dtx->transfer(10, 1, 2));
		my $stderr = $s->stderr;
		$dtx->proxy(2)->wait_for($rule);
		$dtx->proxy(2)->clear;
		if ($fails)
		{
			fails($name, qr/ERROR: .*"s2"/);
		}
		elsif ($commit_wait eq 'on')
		{
			# The resolver comes through where only the reply was lost.
			succeeds($name, $rule eq 'cut');
		}
		else
		{
			unlike($stderr, qr/ERROR|FATAL/, "$name: COMMIT succeeds");

			# The same session sees its own writes, or an error of its
			# next transaction, but never the state of before.
			$balance -= 10;
			$s->run('SELECT bal FROM acct1');
			is($s->{stdout}, $balance, "$name: own writes on s1");
			$dtx->clean($name);
			$dtx->balances_are(
				join(' ', 100, $balance, 200 - $balance),
				"$name: committed everywhere");
		}
		$s->run('SELECT bal FROM acct2');
		is($s->{stdout}, 200 - $balance, "$name: the session goes on")
		  or diag($s->stderr);
	}
}

# commit_wait = off: COMMIT does not wait for a server that does not answer, but
# the next statement for that server does, rather than to see the past.
$s->run("SET pg_dtx.commit_timeout = '1h'");
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
$s->run($dtx->transfer(10, 1, 2));
$balance -= 10;
is($s->stderr, '', 'commit_wait = off: COMMIT returns at once');
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(2, 1, '... while s2 is still prepared');
is($s->run('SELECT bal FROM acct1'), $balance, '... and s1 can be used');
$s->start('SELECT bal FROM acct2');
$dtx->poll(
	$dtx->coord,
	'SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = ' . $s->pid,
	'active|Extension',
	'the next statement for s2 waits');
is($s->finished, 0, '... and does not return');
$dtx->proxy(2)->clear;
is($s->finish, 200 - $balance, '... until s2 has confirmed');
$s->run('RESET pg_dtx.commit_timeout');
$dtx->clean('commit_wait = off and a slow server');

# commit_wait = off without failures: read your own writes, 10 times.
my $wrong = 0;
for my $i (1 .. 10)
{
	$s->run($dtx->transfer(1, 1, 2));
	$balance--;
	my $seen = $s->run('SELECT a.bal, b.bal FROM acct1 a, acct2 b');
	$wrong++ if $seen ne $balance . '|' . (200 - $balance);
}
is($wrong, 0, 'commit_wait = off: a session sees its own writes');
$s->run('RESET pg_dtx.commit_wait');
$dtx->clean('commit_wait = off');

# commit_wait = off, and the session ends at once: nothing is in doubt for long.
my $t = $dtx->session;
$t->run("SET pg_dtx.commit_wait = off");
$t->start($dtx->transfer(1, 1, 2));
$t->close;
$balance--;
$dtx->clean('commit_wait = off and a session that ends');
$dtx->balances_are(
	join(' ', 100, $balance, 200 - $balance),
	'committed everywhere');

# The remote backend is terminated between the phases.
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 2));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1, 2;
$dtx->p(2)->safe_psql('postgres', "SELECT pg_terminate_backend($_)")
  for $dtx->remote_pids(2);
$dtx->poll($dtx->p(2),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', 'the remote backend is gone');
$dtx->prepared_is(2, 1, 'what it prepared is not');
$dtx->release;
$s->finish;
succeeds('terminated between the phases, which the resolver makes good', 0);

# The client's backend is terminated between the phases.
$dtx->arm;
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 2));
$dtx->wait_held($s);
$dtx->prepared_is($_, 1) for 1, 2;
my $pid = $s->pid;
$dtx->sql("SELECT pg_terminate_backend($pid)");
$s->finish;
$dtx->poll($dtx->coord, "SELECT count(*) FROM pg_stat_activity WHERE pid = $pid",
	'0', 'the backend is gone');
$dtx->clean('client terminated between the phases');
$balance -= 10;
$dtx->balances_are(
	join(' ', 100, $balance, 200 - $balance),
	'... committed everywhere');
$s->close;

# A server that can't be reached when the transaction begins.
$dtx->release;
$s = $dtx->session;
$dtx->p(2)->stop('fast');
$s->run($dtx->transfer(10, 1, 2));
like($s->stderr, qr/ERROR:  08001: could not connect to server "s2"/,
	'an unreachable server is an error');
$dtx->p(2)->start;
$dtx->balances_are(join(' ', 100, $balance, 200 - $balance),
	'... that leaves nothing');
$s->run(q{SET pg_dtx.commit_timeout = '1min';} . $dtx->transfer(10, 1, 2));
succeeds('reachable again', 0);
$s->close;

# commit_timeout bounds the second phase, nothing else: with 0, a server whose
# first reply on a new connection takes a moment can be used all the same.
$s = $dtx->session;
$s->run('SET pg_dtx.commit_timeout = 0');
$dtx->proxy(2)->rule(hold => 'system_identifier');
$s->start('SELECT bal FROM acct2');
$dtx->proxy(2)->wait_for('hold');
$dtx->proxy(2)->clear;
is($s->finish, 200 - $balance, 'commit_timeout = 0 and a slow new connection')
  or diag($s->stderr);
$s->close;

done_testing();
