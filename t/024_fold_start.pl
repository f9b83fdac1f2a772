# START TRANSACTION goes out with the first command, and nobody notices; the
# isolation level of remote transactions.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $s = $dtx->session;

# What server $i was sent while $code ran, in order: statements of the simple
# protocol as they are, of the extended protocol behind a "+".
sub sent
{
	my ($i, $code) = @_;
	my $offset = -s $dtx->p($i)->logfile;
	$code->();
	my $log = slurp_file($dtx->p($i)->logfile, $offset);
	my @sent;
	while ($log =~ /postgres_fdw LOG:  (statement: |execute [^:]*: )(.*)/g)
	{
		my ($kind, $sql) = ($1, $2);
		push @sent, ($kind =~ /^execute/ ? '+' : '') . $sql;
	}
	note join "\n", @sent;
	return \@sent;
}

$s->run('SELECT * FROM acct1, acct2');

# Update by key is a command of the extended protocol.
my $sent = sent(1, sub { $s->run('UPDATE acct1 SET bal = 1; UPDATE acct1 SET bal = 2') });
is($sent->[0], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'folded with an UPDATE');
like($sent->[1], qr/^\+UPDATE/, '... which comes next');
is($sent->[3], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', '... and with the next');

# In a subtransaction SAVEPOINT is the first command.
$sent = sent(1, sub { $s->run('BEGIN; SAVEPOINT a; UPDATE acct1 SET bal = 3; COMMIT') });
is($sent->[0], 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ; SAVEPOINT s2', 'folded with a SAVEPOINT');
$sent = sent(1, sub { $s->run("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 4'); COMMIT") });
is($sent->[0], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'folded with remote SQL');
is($sent->[-1], 'COMMIT TRANSACTION', '... and committed');
$sent = sent(1, sub { $s->run('BEGIN; INSERT INTO acct1 VALUES (5, 5); DELETE FROM acct1 WHERE id = 5 AND bal < random() * 0 + 6; COMMIT') });
is($sent->[0], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'folded with PREPARE of an INSERT');

# Opened, but never used: nothing is sent at all.
$sent = sent(1, sub { $s->run("BEGIN; SELECT * FROM dtx.exec_all('{s1,s2}', 'SELECT 1', VARIADIC ARRAY['x']) WHERE false; COMMIT") });
$sent = sent(1, sub { $s->run('PREPARE p AS SELECT * FROM acct1 WHERE $1; BEGIN; EXPLAIN EXECUTE p(false); COMMIT; DEALLOCATE p') });
is_deeply($sent, [], 'nothing for nothing');

# Switched off.
$s->run('SET pg_dtx.fold_start = off');
$sent = sent(1, sub { $s->run('UPDATE acct1 SET bal = 1') });
is($sent->[0], 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'switched off');
$s->run("RESET pg_dtx.fold_start; SET pg_dtx.two_phase_commit = off");
$sent = sent(1, sub { $s->run('UPDATE acct1 SET bal = 1') });
is($sent->[0], 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ', '... with all of pg_dtx');
$s->run("RESET pg_dtx.two_phase_commit");

# Errors are those of the command.
$s->run('UPDATE acct1 SET bal = -1');
like($s->stderr, qr/ERROR:  23514: .*acct_bal_check/, 'an error of the first command');
$s->run('BEGIN; SAVEPOINT a; UPDATE acct1 SET bal = -1; ROLLBACK TO a; UPDATE acct1 SET bal = 7; UPDATE acct2 SET bal = 7; COMMIT');
$dtx->balances_are('100 7 7', '... in a savepoint');
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE acct RENAME TO hidden');
$s->run('SELECT * FROM acct1');
like($s->stderr, qr/ERROR:  42P01/, 'a table that is not there');
$dtx->p(1)->safe_psql('postgres', 'ALTER TABLE hidden RENAME TO acct');
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$dtx->balances_are('100 100 100', '... and the connection goes on');

# An idle connection that has died is replaced without anybody noticing.
for my $how ('killed', 'restarted')
{
	my ($pid) = $dtx->remote_pids(1);
	if ($how eq 'killed')
	{
		$dtx->p(1)->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
		$dtx->p(1)->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	}
	else
	{
		$dtx->p(1)->restart;
	}
	is($s->run('SELECT bal FROM acct1'), '100', "idle connection $how: a read");
	is($s->stderr, '', '... without a word');
}
my ($pid) = $dtx->remote_pids(1);
$dtx->p(1)->restart;
$s->run('BEGIN; UPDATE acct2 SET bal = 99; UPDATE acct1 SET bal = 101; COMMIT');
is($s->stderr, '', 'restarted: a write, with another server in the transaction');
$dtx->balances_are('100 101 99', '... in two phases');

# A server that dies under the first command.
$dtx->p(2)->safe_psql('postgres', q{CREATE FUNCTION die() RETURNS int LANGUAGE sql AS 'SELECT pg_terminate_backend(pg_backend_pid())::int';
CREATE VIEW deadly AS SELECT die() AS i});
$dtx->sql(q{CREATE FOREIGN TABLE deadly (i int) SERVER s2});
$s->run('BEGIN; UPDATE acct1 SET bal = 0; SELECT * FROM deadly; COMMIT');
like($s->stderr, qr/ERROR:  (57P01|08006)/, 'dies under the first command: an error');
$dtx->balances_are('100 101 99', '... and everything is rolled back');
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$dtx->balances_are('100 100 100', '... and the session goes on');

# Canceled under the first command.
$dtx->p(2)->safe_psql('postgres', 'CREATE VIEW slow AS SELECT 1 AS i FROM pg_sleep(3600)');
$dtx->sql(q{CREATE FOREIGN TABLE slow (i int) SERVER s2});
$s->run(q{BEGIN; UPDATE acct1 SET bal = 50; SAVEPOINT a; SET LOCAL statement_timeout = '200ms'; SELECT * FROM slow; ROLLBACK TO a; UPDATE acct2 SET bal = 150; COMMIT});
like($s->stderr, qr/ERROR:  57014/, 'canceled under the first command');
unlike($s->stderr, qr/ERROR.*ERROR/s, '... and only that');
$dtx->balances_are('100 50 150', '... the transaction goes on');

# Isolation levels.
$s->run("SET pg_dtx.remote_isolation = 'read committed'");
for my $fold ('on', 'off')
{
	$s->run("SET pg_dtx.fold_start = $fold");
	my $plus = $fold eq 'on' ? '+' : '';
	$sent = sent(1, sub { $s->run('UPDATE acct1 SET bal = 50') });
	is($sent->[0], $plus . 'START TRANSACTION ISOLATION LEVEL READ COMMITTED', "read committed, fold_start = $fold");
	$sent = sent(1, sub { $s->run('BEGIN ISOLATION LEVEL REPEATABLE READ; UPDATE acct1 SET bal = 50; COMMIT') });
	is($sent->[0], $plus . 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ', '... not where more is asked for');
	$sent = sent(1, sub { $s->run('BEGIN ISOLATION LEVEL SERIALIZABLE; UPDATE acct1 SET bal = 50; COMMIT') });
	is($sent->[0], $plus . 'START TRANSACTION ISOLATION LEVEL SERIALIZABLE', '... or still more');
}
# The point of it: a row that was changed since the transaction began.
for my $level ('read committed', 'repeatable read')
{
	$s->run("RESET pg_dtx.fold_start; SET pg_dtx.remote_isolation = '$level'");
	$s->run('BEGIN; SELECT * FROM acct1');
	$dtx->p(1)->safe_psql('postgres', 'UPDATE acct SET bal = bal + 1');
	$s->run('UPDATE acct1 SET bal = bal + 1; UPDATE acct2 SET bal = bal - 1; COMMIT');
	if ($level eq 'read committed')
	{
		is($s->stderr, '', 'read committed: a changed row is updated');
		$dtx->balances_are('100 52 149', '... on top of the change');
	}
	else
	{
		like($s->stderr, qr/ERROR:  40001/, 'repeatable read: it is not');
		$s->run('ROLLBACK');
		$dtx->balances_are('100 53 149', '... nor anything else');
	}
}
$dtx->clean('in the end');
$s->close;
done_testing();
