# After the local commit nothing is reported, allocated or looked up where an error
# would be a PANIC, and phase two holds up nobody.  The servers have a library with
# fault points, which ends the process if anything is (src/base/quiet.c).
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use PrivateTree;
use Test::More;
use Time::HiRes qw(time usleep);

local $ENV{PATH} = PrivateTree::with_faults() . ":$ENV{PATH}";

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	conf => "pg_dtx.max_in_doubt = 16\nsynchronous_standby_names = ''\n",
	participant_conf => "max_prepared_transactions = 60\n");
my $proxy = $dtx->proxy(2);
my $coord = $dtx->coord;

# ----------------------------------------------------------------
# The table of what is in doubt is full, and the context of a message can't be
# converted for the client.
# ----------------------------------------------------------------

$coord->safe_psql('postgres',
	q{CREATE DATABASE utf8 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0});
$dtx->install('utf8');
my $n = 20;
$dtx->p($_)->safe_psql('postgres', "INSERT INTO acct SELECT i, 100 FROM generate_series(2, $n) i")
  for 1, 2;
$coord->safe_psql('utf8', qq{
CREATE PROCEDURE "\x{d0}\x{b4}\x{d0}\x{b5}\x{d0}\x{bb}\x{d0}\x{be}"() LANGUAGE plpgsql AS \$\$
BEGIN
	UPDATE acct1 SET bal = bal - 1 WHERE id = $n;
	UPDATE acct2 SET bal = bal + 1 WHERE id = $n;
	COMMIT;
END\$\$;
CREATE PROCEDURE one() LANGUAGE plpgsql AS \$\$BEGIN CALL "\x{d0}\x{b4}\x{d0}\x{b5}\x{d0}\x{bb}\x{d0}\x{be}"(); END\$\$});
$proxy->rule(hold => 'COMMIT PREPARED');
my $offset = -s $coord->logfile;
for my $i (1 .. $n - 1)
{
	$coord->safe_psql('utf8', "SET pg_dtx.commit_timeout = 0; BEGIN; UPDATE acct1 SET bal = bal - 1 WHERE id = $i; UPDATE acct2 SET bal = bal + 1 WHERE id = $i; COMMIT");
}
cmp_ok($coord->safe_psql('utf8', 'SELECT not_remembered FROM dtx.stat'), '>', 0, 'there is no room for what is in doubt');
my $s = $dtx->session(dbname => 'utf8');
my $pid = $s->pid;
$s->run(q{SET client_encoding = 'LATIN1'; SET client_min_messages = log; SET pg_dtx.commit_timeout = 0});
$s->run('CALL one()');
unlike($s->stderr, qr/ERROR|FATAL|PANIC/, '... a commit goes on');
is($s->run('SELECT pg_backend_pid()'), $pid, '... and so does the session');
$proxy->clear;
ok($coord->poll_query_until('utf8', 'SELECT count(*) = 0 FROM dtx.in_doubt'), '... everything is finished');
$dtx->prepared_is(2, 0);
is($dtx->p(2)->safe_psql('postgres', "SELECT count(*) FROM acct WHERE bal = 101"), $n, '... and committed');
my $log = slurp_file($coord->logfile, $offset);
unlike($log, qr/PANIC|after the local commit|was terminated by signal/, 'nothing was reported after the commit');
like($log, qr/LOG:  too many prepared foreign transactions are in doubt/, '... but by a worker');
$s->close;

# ----------------------------------------------------------------
# Barriers
# ----------------------------------------------------------------

$s = $dtx->session;
$s->run(q{SET pg_dtx.commit_timeout = '5min'; SELECT * FROM acct1, acct2});
$proxy->rule(hold => 'COMMIT PREPARED');
$s->start('BEGIN; UPDATE acct1 SET bal = 99 WHERE id = 1; UPDATE acct2 SET bal = 101 WHERE id = 1; COMMIT');
$proxy->wait_for('hold');
my $other = $dtx->session;
$other->start('CREATE DATABASE other; DROP DATABASE other');
my $deadline = time + 30;
usleep(50_000) until $other->finished || time > $deadline;
ok($other->finished, 'DROP DATABASE does not wait for a COMMIT that waits for a server');
ok(!$s->finished, '... which still waits');
$proxy->clear;
$other->finish;
is($other->stderr, '', '... without a word');
$other->close;
$s->finish;
is($s->stderr, '', '... and neither does the COMMIT');

# ----------------------------------------------------------------
# What has ended the wait
# ----------------------------------------------------------------

$dtx->sql(q{CREATE PROCEDURE pay(more int) LANGUAGE plpgsql AS $$
BEGIN
	UPDATE acct1 SET bal = bal - 1 WHERE id = 1;
	UPDATE acct2 SET bal = bal + 1 WHERE id = 1;
	COMMIT;
	UPDATE acct0 SET bal = more WHERE id = 1;
END$$});
$proxy->rule(hold => 'COMMIT PREPARED');
$s->run(q{SET statement_timeout = '1s'; CALL pay(0)});
like($s->stderr, qr/WARNING: .*not every server has confirmed it yet: "s2"\nDETAIL:  The wait was canceled due to statement timeout\./, 'statement_timeout in phase two is called that');
like($s->stderr, qr/ERROR:  57014: canceling statement due to statement timeout/, '... and ends the statement after it');
$proxy->clear;
$s->run('RESET statement_timeout');
$dtx->clean('statement_timeout');
is($dtx->sql('SELECT acct0.bal, acct1.bal, acct2.bal FROM acct0, acct1, acct2 WHERE acct1.id = 1 AND acct2.id = 1'), '100|98|102', '... of which is left what was committed');
$proxy->rule(hold => 'COMMIT PREPARED');
$s->start('CALL pay(0)');
$proxy->wait_for('hold');
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/DETAIL:  The wait was canceled due to user request\./, 'a cancel is called a cancel');
unlike($s->stderr, qr/ERROR/, '... and is not heard twice');
$proxy->clear;
$dtx->clean('cancel');

# A cancel before the decision does not wait for the server that hangs.
for my $message (q{PREPARE TRANSACTION 'dtx}, 'wrote_elsewhere')
{
	my $fastest = 1e9;
	for (1 .. 3)
	{
		$s->run('SELECT * FROM acct1, acct2 LIMIT 1');
		$proxy->rule(hold => $message);
		$s->start('BEGIN; UPDATE acct1 SET bal = 0 WHERE id = 1; '
			  . ($message =~ /^PREPARE/ ? 'UPDATE acct2 SET bal = 0 WHERE id = 1' : 'SELECT bal FROM acct2')
			  . '; COMMIT');
		$proxy->wait_for('hold');
		my $start = time;
		$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
		$s->finish;
		my $took = time - $start;
		$fastest = $took if $took < $fastest;
		like($s->stderr, qr/ERROR:  57014/, 'a COMMIT that hangs is canceled');
		$proxy->clear;
		$dtx->clean('canceled');
		last if $fastest < 1.5;
	}
	cmp_ok($fastest, '<', 1.5, '... at once');
}

# ----------------------------------------------------------------
# Memory and descriptors
# ----------------------------------------------------------------

$dtx->sql(q{CREATE TABLE used (n int, bytes bigint);
CREATE PROCEDURE many() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 240 LOOP
		UPDATE acct1 SET bal = bal WHERE id = 1;
		UPDATE acct2 SET bal = bal WHERE id = 1;
		COMMIT;
		IF i IN (40, 240) THEN
			INSERT INTO used SELECT i, sum(used_bytes) FROM pg_backend_memory_contexts;
			COMMIT;
		END IF;
	END LOOP;
END$$});
$s->run('CALL many()');
cmp_ok($dtx->sql('SELECT max(bytes) - min(bytes) FROM used'), '<', 20_000, 'COMMIT in a procedure leaves no memory behind');
$s->close;

$s = $dtx->session;
$s->run('SELECT 1 FROM pg_foreign_server; SELECT bal FROM acct2');
my $attempts = q{DO $$ BEGIN
	FOR i IN 1 .. 400 LOOP
		BEGIN
			PERFORM set_config('pg_dtx.fault', 'attach:error', false);
			PERFORM bal FROM acct1;
			RAISE 'connected';
		EXCEPTION WHEN external_routine_exception THEN NULL;
		END;
	END LOOP;
END $$};
my $bytes = 'SELECT sum(used_bytes) FROM pg_backend_memory_contexts';
$s->run($attempts =~ s/400/20/r);
is($s->stderr, '', 'connections of which we can keep no record');
my $before = $s->run($bytes);
$s->run($attempts);
is($s->stderr, '', '... again and again');
my $after = $s->run($bytes);
cmp_ok($after - $before, '<', 40_000, '... leave no memory behind');

# (the server may not have got round to all of them yet)
$deadline = time + $PostgreSQL::Test::Utils::timeout_default;
my $count;
do
{
	$count = $s->run(q{SET pg_dtx.fault = ''; SELECT count(*) FROM acct1});
} while ($s->stderr =~ /temporarily unavailable|too many clients/ && time < $deadline);
is($count, $n, '... nor descriptors');
is($s->stderr, '', '... without a word');

# ----------------------------------------------------------------
# What a COMMIT says of a remote error
# ----------------------------------------------------------------

$dtx->p(2)->safe_psql('postgres', 'CREATE TABLE uniq (i int CONSTRAINT only_one UNIQUE DEFERRABLE INITIALLY DEFERRED)');
$dtx->sql('CREATE FOREIGN TABLE uniq (i int) SERVER s2');
$s->run('BEGIN; UPDATE acct1 SET bal = bal; INSERT INTO uniq VALUES (1), (1); COMMIT');
like($s->stderr, qr/ERROR:  23505: could not prepare transaction on server "s2".*SCHEMA NAME:  public\nTABLE NAME:  uniq\nCONSTRAINT NAME:  only_one/s, 'an error of COMMIT names the constraint');
$s->run(q{SELECT dtx.exec('s2', 'INSERT INTO acct VALUES (1, 1)')});
like($s->stderr, qr/ERROR:  23505: .*TABLE NAME:  acct\nCONSTRAINT NAME:  acct_pkey/s, '... and so does one of remote SQL');

# ----------------------------------------------------------------
# A confirmation on a closed connection comes together with a request to cancel the
# wait for it: nothing is ever going to happen on that connection again.
# ----------------------------------------------------------------

my @pids = map { [ $dtx->remote_pids($_) ] } 1, 2;
$s->run('SELECT count(postgres_fdw_disconnect_all()); SET pg_dtx.commit_wait = off; SELECT count(*) FROM acct1, acct2');
my @mine = map { my $i = $_; my %other = map { $_ => 1 } @{ $pids[ $i - 1 ] }; grep { !$other{$_} } $dtx->remote_pids($i) } 1, 2;
is(scalar(@mine), 2, 'two new connections');
$proxy->rule(hold => 'COMMIT PREPARED');
$offset = -s $coord->logfile;
$s->run('BEGIN; UPDATE acct1 SET bal = bal WHERE id = 1; UPDATE acct2 SET bal = bal WHERE id = 1; COMMIT');
$proxy->wait_for('hold');
$s->run(q{SET pg_dtx.fault = 'settled:delay:2:10000'; SELECT count(postgres_fdw_disconnect_all())});
$s->start('SELECT count(*) FROM acct1, acct2');
$proxy->clear;
$deadline = time + $PostgreSQL::Test::Utils::timeout_default;
usleep(10_000) until slurp_file($coord->logfile, $offset) =~ /fault point "settled" reached/ || time > $deadline;
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/ERROR:  57014/, 'canceled when the confirmation is here');
$s->run(q{SET pg_dtx.fault = ''; SELECT count(*) FROM acct1, acct2});
is($s->stderr, '', '... the session goes on');
$dtx->poll($dtx->p($_), "SELECT count(*) FROM pg_stat_activity WHERE pid = $mine[$_ - 1]", 0, "... and that connection to s$_ is closed")
  for 1, 2;
$dtx->clean('canceled when the confirmation is here');
$s->close;
unlike(slurp_file($coord->logfile), qr/after the local commit|was terminated by signal/, 'nothing was reported after any commit');
done_testing();
