# START TRANSACTION goes out with the first command, and CLOSE with the next, and
# nobody notices; the isolation level of remote transactions.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
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

		# (what a server is asked that may decide is no concern here)
		next if $sql =~ /pg_logical_emit_message/;
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
is("@$sent[0, 1]", '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ +SAVEPOINT s2', 'folded with a SAVEPOINT');
$sent = sent(1, sub { $s->run("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 4'); COMMIT") });
is($sent->[0], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'folded with remote SQL');
is($sent->[-1], 'COMMIT TRANSACTION', '... and committed');
$sent = sent(1, sub { $s->run('BEGIN; INSERT INTO acct1 VALUES (5, 5); DELETE FROM acct1 WHERE id = 5 AND bal < random() * 0 + 6; COMMIT') });
is($sent->[0], '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'folded with PREPARE of an INSERT');

# Opened, but never used: nothing is sent at all.
$s->run('SET plan_cache_mode = force_generic_plan; PREPARE p AS SELECT * FROM acct1 WHERE $1');
$sent = sent(1, sub { $s->run('BEGIN; EXECUTE p(false); COMMIT; BEGIN; EXECUTE p(false); ROLLBACK') });
is_deeply($sent, [], 'nothing for nothing');
$s->run('RESET plan_cache_mode');

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

# A command that is too long to be kept, should it have to be sent again: START TRANSACTION
# goes ahead of it, and it is the one that finds an idle connection dead.
my $many = join(', ', 2 .. 8000);
my $by_key = "UPDATE acct1 SET bal = bal WHERE id IN (1, $many)";
$sent = sent(1, sub { $s->run("$by_key; SELECT bal FROM acct1 WHERE id IN (1, $many)") });
is($s->stderr, '', 'long commands');
is($sent->[$_], 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ', '... START TRANSACTION alone') for 0, 3;
my ($idle) = $dtx->remote_pids(1);
$dtx->p(1)->safe_psql('postgres', "SELECT pg_terminate_backend($idle)");
$dtx->poll($dtx->p(1), "SELECT count(*) FROM pg_stat_activity WHERE pid = $idle", 0, 'the connection is dead');
$s->run("BEGIN; $by_key; UPDATE acct2 SET bal = bal; COMMIT");
is($s->stderr, '', '... which a long command does not mind');
$s->run("SET pg_dtx.commit_wait = off; BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; COMMIT; $by_key; RESET pg_dtx.commit_wait");
is($s->stderr, '', '... nor a confirmation that is due');
$dtx->sql(q{ALTER FOREIGN TABLE acct1 OPTIONS (ADD batch_size '5000')});
$s->run('BEGIN; INSERT INTO acct1 SELECT i, 1 FROM generate_series(2, 5001) i; ROLLBACK');
is($s->stderr, '', 'a long command that is prepared');
$dtx->sql(q{ALTER FOREIGN TABLE acct1 OPTIONS (DROP batch_size)});

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
$s->run(q{BEGIN; UPDATE acct1 SET bal = 50; SAVEPOINT a; SET LOCAL statement_timeout = '2s'; SELECT * FROM slow; ROLLBACK TO a; UPDATE acct2 SET bal = 150; COMMIT});
like($s->stderr, qr/ERROR:  57014/, 'canceled under the first command');
unlike($s->stderr, qr/ERROR.*ERROR/s, '... and only that');
$dtx->balances_are('100 50 150', '... the transaction goes on');

# CLOSE is put off, too.
my $start = '+START TRANSACTION ISOLATION LEVEL REPEATABLE READ | ';
sub closes
{
	my ($sql) = @_;
	my $sent = sent(1, sub { $s->run($sql) });
	is($s->stderr, '', 'no error');
	s/DECLARE (c\d+) .*/DECLARE $1/, s/FETCH .*/FETCH/ for @$sent;
	return join(' | ', @$sent);
}
is(closes('BEGIN; SELECT bal FROM acct1; SELECT bal FROM acct1; COMMIT'),
	"${start}+DECLARE c1 | FETCH | +CLOSE c1 | +DECLARE c2 | FETCH | CLOSE c2; COMMIT TRANSACTION",
	'CLOSE goes with what comes next');
is(closes('BEGIN; SELECT bal FROM acct1; SAVEPOINT a; SELECT bal FROM acct1; ROLLBACK TO a; SELECT bal FROM acct1; COMMIT'),
	"${start}+DECLARE c1 | FETCH | CLOSE c1; SAVEPOINT s2 | +DECLARE c2 | FETCH | "
	  . 'CLOSE c2; ROLLBACK TO SAVEPOINT s2; RELEASE SAVEPOINT s2 | SAVEPOINT s2 | +DECLARE c3 | FETCH | '
	  . 'CLOSE c3; RELEASE SAVEPOINT s2 | COMMIT TRANSACTION',
	'... around subtransactions');
like(closes('BEGIN; UPDATE acct1 SET bal = bal; SELECT bal FROM acct1; COMMIT'),
	qr/FETCH \| CLOSE c1; COMMIT TRANSACTION$/, '... before deferred triggers');
$sent = sent(1, sub { $s->run('BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; SELECT bal FROM acct1; COMMIT') });
like(join(' | ', @$sent), qr/FETCH [^|]*\| CLOSE c1; SET [^|]*; (?:SELECT|EXECUTE) [^|]*; PREPARE TRANSACTION/, '... likewise in two phases');
is(closes('BEGIN; SELECT bal FROM acct1; UPDATE acct1 SET bal = bal WHERE id = 1; SELECT bal FROM acct1; ROLLBACK'),
	"${start}+DECLARE c1 | FETCH | +CLOSE c1 | +UPDATE public.acct SET bal = bal WHERE ((id = 1)) | +DECLARE c2 | FETCH | ABORT TRANSACTION",
	'... with the extended protocol');
$s->run('BEGIN; SAVEPOINT a; SELECT bal FROM acct1; UPDATE acct1 SET bal = -1; ROLLBACK TO a; SELECT bal FROM acct1; COMMIT');
unlike($s->stderr, qr/ERROR.*ERROR/s, '... before an error');

# What minds an open cursor.
$dtx->p(1)->safe_psql('postgres', 'CREATE TABLE t AS SELECT 1 AS i');
$dtx->sql(q{CREATE FOREIGN TABLE t (i int) SERVER s1});
$s->run(q{BEGIN; SELECT * FROM t; TRUNCATE t; SELECT count(*) FROM t; SELECT dtx.exec('s1', 'TRUNCATE t'); COMMIT});
is($s->stderr, '', 'a table is truncated after it was read');
$dtx->p(1)->safe_psql('postgres', q{
CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN TRUNCATE public.t; RETURN NULL; END';
CREATE CONSTRAINT TRIGGER late AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()});
$s->run(q{BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct2 SET bal = bal; SELECT * FROM t; COMMIT});
is($s->stderr, '', '... by a deferred trigger, in two phases');
$s->run(q{BEGIN; UPDATE acct1 SET bal = bal; SELECT * FROM t; COMMIT});
is($s->stderr, '', '... in one phase');
$dtx->p(1)->safe_psql('postgres', q{CREATE FUNCTION w() RETURNS int LANGUAGE sql AS 'UPDATE public.acct SET bal = bal RETURNING 1';
CREATE VIEW v AS SELECT public.w() AS i});
$dtx->sql('CREATE FOREIGN TABLE v (i int) SERVER s1');
$s->run(q{BEGIN; SELECT * FROM v; SELECT * FROM t; COMMIT});
is($s->stderr, '', '... of a reader that wrote');
$dtx->p(1)->safe_psql('postgres', 'DROP TRIGGER late ON acct');

# Many cursors at once, and one again and again.
is($s->run(join(' UNION ALL ', ('SELECT count(*) FROM (SELECT * FROM t OFFSET 0) t') x 12) . '; SELECT count(*) FROM t'),
	join("\n", (0) x 13), 'more CLOSEs than are put off');
is($s->run('SELECT sum(a.bal) FROM generate_series(1, 20) g, LATERAL (SELECT bal FROM acct1 WHERE id = g % 2 OFFSET 0) a'),
	500, 'a cursor that is opened again for each row');

# A server that is gone from one moment to the next, while its reply is waited for.
$s->run('BEGIN; SELECT bal FROM acct2');
$s->start('SELECT * FROM slow');
$dtx->poll($dtx->p(2), q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'}, 1, 'a server is busy');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('Extension', 'PostgresFdwGetResult') AND state = 'active'}, 1,
	'... and is waited for');
$dtx->crash($dtx->p(2));
$s->finish;
like($s->stderr, qr/ERROR:  08006: server closed the connection unexpectedly\n(?:.*\n){2}CONTEXT:/, 'it crashes: the error is that of postgres_fdw');
$dtx->p(2)->start;
is($s->run('ROLLBACK; SELECT bal FROM acct2'), 150, '... and it is used again');
is($s->stderr, '', '... without a word');

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
