# pg_dtx.commit_wait = off: the next transaction does not wait for the confirmation
# of the one before it, and yet sees what that did.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

# No resolver comes in between unless it is called.
my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "synchronous_standby_names = ''\npg_dtx.resolve_interval = '1h'\npg_dtx.commit_timeout = '60s'\n");
my $proxy = $dtx->proxy(2);
my $cancel = 'SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = ';
my $s;

# A session whose last transaction is not confirmed by server 2: its COMMIT
# PREPARED is held, and what comes behind.
sub session
{
	$s->close if $s;
	$proxy->clear;
	$dtx->clean('before');
	$s = $dtx->session;
	$s->run('SET pg_dtx.commit_wait = off; UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
	$proxy->rule(hold => 'COMMIT PREPARED');
	$s->run($dtx->transfer(1, 1, 2));
	is($s->stderr, '', 'COMMIT does not wait');
	$proxy->wait_for('hold');
	return;
}

sub behind
{
	my ($pattern, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return like($proxy->wait_for('behind'), $pattern, $name);
}

# What server 2 got while $code ran, in order.
sub sent
{
	my ($code) = @_;
	my $offset = -s $dtx->p(2)->logfile;
	$code->();
	return join ' | ', map { s/ '.*//r } slurp_file($dtx->p(2)->logfile, $offset) =~
	  /postgres_fdw LOG:  (?:statement: |execute [^:]*: )(.*)/g;
}

# ----------------------------------------------------------------
# The rule
# ----------------------------------------------------------------

for my $command ('UPDATE acct2 SET bal = bal + 1 WHERE bal = 101 RETURNING bal',
	'SELECT bal + 1 FROM acct2', 'INSERT INTO acct2 SELECT 2, 102 RETURNING bal')
{
	session();
	my ($word) = $command =~ /^(\w+)/;
	is( sent(sub {
				$s->start($command);
				behind(qr/START TRANSACTION .*(?:UPDATE|DECLARE|INSERT)/, "$word is sent before the confirmation is here");
				$proxy->clear;
				is($s->finish, '102', '... and sees what the transaction did');
		}) =~ /^COMMIT PREPARED \| START TRANSACTION ISOLATION LEVEL REPEATABLE READ \|/ ? 1 : 0,
		1, '... because it comes after it');
	is($s->stderr, '', '... without a word');
	is($s->run('DELETE FROM acct2 WHERE id = 2; ' . $dtx->transfer(1, 2, 1) . 'SELECT sum(bal) FROM (TABLE acct1 UNION ALL TABLE acct2) a'),
		$word eq 'UPDATE' ? '201' : '200', '... and the session goes on');
}
is($dtx->sql(q{SELECT count(*) FROM dtx.in_doubt}), 0, 'nothing was left to the resolver');

# Many of them, one after the other.
$proxy->clear;
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$s->run($dtx->transfer(1, 1, 2)) for 1 .. 20;
is($s->run('SELECT a.bal, b.bal FROM acct1 a, acct2 b'), '80|120', 'twenty transactions');
is($s->stderr, '', '... without a word');

# ----------------------------------------------------------------
# What can't be sent in the same pipeline waits
# ----------------------------------------------------------------

for my $command ('SAVEPOINT a; SELECT bal FROM acct2', q{SELECT dtx.query_json('s2', 'SELECT bal FROM acct')->>'bal'},
	'TRUNCATE acct2; SELECT 101')
{
	session();
	$s->start("BEGIN; $command; ROLLBACK");
	$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event IN ('Extension', 'DtxSettle') AND pid = } . $s->pid,
		1, 'it waits');
	ok(!$proxy->happened('behind'), '... and is not sent');
	$proxy->clear;
	is($s->finish, '101', '... and sees what the transaction did');
	is($s->stderr, '', '... without a word');
}
session();
$s->start('BEGIN; SAVEPOINT a; SELECT bal FROM acct2');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event IN ('Extension', 'DtxSettle') AND pid = } . $s->pid,
	1, 'it waits');
$dtx->sql($cancel . $s->pid);
$s->finish;
like($s->stderr, qr/ERROR:  57014/, '... and can be canceled');
$proxy->clear;
$s->run('ROLLBACK');
is($s->run('SELECT bal FROM acct2'), '101', '... and tried again');

# Begun and ended with nothing sent, in between.
session();
$s->run('PREPARE p AS SELECT * FROM acct2 WHERE $1; EXPLAIN EXECUTE p(false); BEGIN; EXPLAIN EXECUTE p(false); ROLLBACK');
is($s->stderr, '', 'a transaction that sends nothing');
ok(!$proxy->happened('behind'), '... sends nothing');
$s->start('SELECT bal FROM acct2');
behind(qr/START TRANSACTION/, 'the next one sends something');
$proxy->clear;
is($s->finish, '101', '... and sees what the transaction did');
is($s->stderr, '', '... without a word');

# ----------------------------------------------------------------
# What goes wrong
# ----------------------------------------------------------------

# Somebody else has finished it.
session();
$s->start('UPDATE acct2 SET bal = bal + 1');
behind(qr/UPDATE/, 'sent before the confirmation is here');
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
$proxy->clear;
$s->finish;
like($s->stderr, qr/ERROR:  42704: prepared transaction with identifier "dtx:.*" does not exist/,
	'not confirmed: the command fails');
$s->run('SELECT bal FROM acct2');
is($s->stderr, '', '... and the session goes on');
$dtx->sql('SELECT dtx.resolve()');
$dtx->clean('committed by hand');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), 0, '... rightly');
$dtx->balances_are('100 99 101', 'nothing of the command is left');

session();
$s->start('BEGIN; SAVEPOINT a; UPDATE acct2 SET bal = bal + 1');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event IN ('Extension', 'DtxSettle') AND pid = } . $s->pid,
	1, 'it waits');
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
$proxy->clear;
$s->finish;
like($s->stderr, qr/ERROR:  08006: server "s2" has not confirmed the previous transaction\nDETAIL:  prepared transaction .* does not exist/,
	'not confirmed, and waited for: the command fails');
$s->run('ROLLBACK');
is($s->run('SELECT bal FROM acct2'), '101', '... and the session goes on');
is($s->stderr, '', '... without a word');

# The server is restarted before the confirmation was even sent: the next transaction
# gets another connection.
$s->close;
$s = $dtx->session;
$s->run('SET pg_dtx.commit_wait = off; SELECT * FROM acct1, acct2');
$dtx->arm;
$s->run($dtx->hold);
$s->start($dtx->transfer(1, 1, 2));
$dtx->wait_held($s);
$dtx->p(2)->restart;
$dtx->release;
$s->finish;
is($s->run('SELECT i FROM (SELECT 1 AS i) a, acct2'), '1', 'restarted before COMMIT PREPARED: the session goes on');
like($s->stderr, qr/^[^\n]*WARNING:  01000: the previous transaction has committed, but server "s2" has not confirmed it yet\n/, '... with a warning');
unlike($s->stderr, qr/ERROR/, '... and nothing else');
$s->run('SELECT bal FROM acct1');
$dtx->sql('SELECT dtx.resolve()');
$dtx->clean('restarted before COMMIT PREPARED');
is($s->run('UPDATE acct2 SET bal = bal; SELECT bal FROM acct2'), '102', '... and is confirmed later');
is($s->stderr, '', '... without a word');

# The connection is lost, the session killed, the command canceled.
for my $what ('lost', 'killed', 'canceled', 'killed before')
{
	session();
	if ($what ne 'killed before')
	{
		$s->start('UPDATE acct2 SET bal = bal + 1');
		behind(qr/UPDATE/, 'sent before the confirmation is here');
	}
	else
	{
		$s->run('BEGIN; EXPLAIN (COSTS off) SELECT * FROM acct2');
	}
	if ($what eq 'lost')
	{
		$dtx->p(2)->safe_psql('postgres', "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()");
	}
	elsif ($what eq 'canceled')
	{
		$dtx->sql($cancel . $s->pid);
	}
	else
	{
		$dtx->sql('SELECT pg_terminate_backend(' . $s->pid . ')');
	}
	$proxy->clear;
	$s->finish if $what ne 'killed before';
	like($s->stderr, $what eq 'lost' ? qr/ERROR:  (?:57P01|08006)/ : $what eq 'canceled' ? qr/ERROR:  57014/ : qr/FATAL:  57P01/,
		"$what: an error")
	  if $what ne 'killed before';
	# (until the other server's reply is taken, the session is responsible)
	$s->run('SELECT bal FROM acct1') if $what eq 'lost';
	if ($what eq 'canceled')
	{
		is($s->run('SELECT bal FROM acct2'), '101', '... and the next command sees what the transaction did');
	}
	$dtx->sql('SELECT dtx.resolve()');
	$dtx->clean($what);
	$dtx->balances_are('100 99 101', '... and the transaction is committed everywhere');
}
$s->close;

done_testing();
