# Remote SQL (dtx.exec and relatives) on clusters of their own: long results,
# cancel at any moment, servers that die, other encodings, big parameters.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dtx = DtxTest->new(servers => 2);

# Resident memory of a process that is its own, kB.
sub memory
{
	my ($rss) = slurp_file("/proc/$_[0]/status") =~ /^RssAnon:\s+(\d+) kB/m;
	return $rss;
}

# A long result: bounded memory here.
SKIP:
{
	skip 'no /proc', 1 unless -r '/proc/self/status';
	my $s = $dtx->session;
	$s->run("SELECT * FROM dtx.query('s1', 'SELECT 1') AS t(i int)");
	my $before = memory($s->pid);

	# look while it runs: what a query has used is given back at its end
	my $peak = 0;
	$s->start(q{SELECT count(*), sum(i), min(length(t)) FROM dtx.query('s1',
		$$SELECT i, repeat('x', 200) FROM generate_series(1, 1000000) i$$) AS t(i int, t text)});
	until ($s->finished)
	{
		my $now = memory($s->pid);
		$peak = $now if $now > $peak;
		usleep(20_000);
	}
	is($s->finish, '1000000|500000500000|200', 'a million rows');
	# a sanitizer keeps what was freed
	cmp_ok($peak - $before, '<', 40_000, '... in bounded memory (kB)') unless $ENV{DTX_CHECKER};
	$s->close;
}

# A big parameter, and a big value back; more than sockets take at once, in both
# directions at the same time.
is($dtx->sql(q{SELECT length(a), length(b), a = b FROM dtx.query('s1',
	'SELECT repeat(''y'', 30000000), $1', repeat('y', 30000000)) AS t(a text, b text)}),
	'30000000|30000000|t', '30 MB there and back');
$dtx->sql(q{SELECT dtx.exec('s1', 'SELECT 1'), dtx.exec_all('{s1,s2}', 'SELECT length($1)', repeat('y', 30000000))});

# Cancel at any moment: the session goes on in its transaction, and what it did
# before is what gets committed.
my $s = $dtx->session;
$s->run(q{
CREATE PROCEDURE interrupted() LANGUAGE plpgsql AS $$
DECLARE
	canceled int := 0;
BEGIN
	FOR i IN 1 .. 40 LOOP
		PERFORM dtx.exec('s1', 'UPDATE acct SET bal = bal + 1');
		UPDATE acct2 SET bal = bal + 1;
		BEGIN
			PERFORM dtx.exec('s2', 'UPDATE acct SET bal = 0');
			PERFORM dtx.exec('s1', 'UPDATE acct SET bal = 0');
			-- killed by a cancel of its own after i milliseconds, on either side
			PERFORM * FROM dtx.query_all('{s1,s2}', format(
				'SET LOCAL statement_timeout = %s; SELECT i, repeat(''x'', 1000) FROM generate_series(1, 3000000) i', i))
				AS t(server name, i int, x text);
		EXCEPTION WHEN query_canceled THEN
			canceled := canceled + 1;
		END;
	END LOOP;
	RAISE NOTICE 'canceled: %', canceled;
END
$$});
$s->run('CALL interrupted()');
like($s->stderr, qr/canceled: 40/, 'errors while rows come from two servers');
$dtx->balances_are('100 140 140', '... undo what they have to');

# A timeout may also hit SAVEPOINT or ROLLBACK TO on the server: then postgres_fdw
# gives the connection up, and the transaction can't be committed.
my ($canceled, $committed) = (0, 0);
for my $i (1 .. 30)
{
	my $timeout = $i * 5;
	$s->run("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = bal + 1'); UPDATE acct2 SET bal = bal + 1;
SAVEPOINT a; SET LOCAL statement_timeout = $timeout;
SELECT count(*) FROM dtx.query_all('{s1,s2}', 'UPDATE acct SET bal = 0; SELECT i, repeat(''x'', 1000) FROM generate_series(1, 3000000) i') AS t(s name, i int, x text);
ROLLBACK TO a; SET LOCAL statement_timeout = 0; COMMIT");
	my @errors = $s->stderr =~ /ERROR:/g;
	$canceled++ if $s->stderr =~ /57014/;
	$committed++ if @errors == 1;
	$s->run('ROLLBACK') if @errors > 1;
}
is($canceled, 30, 'canceled at thirty moments');
cmp_ok($committed, '>=', 20, '... and gone on in the transaction');
my $b = 140 + $committed;
$dtx->balances_are("100 $b $b", '... which committed, or did not');
$dtx->sql('UPDATE acct1 SET bal = 170; UPDATE acct2 SET bal = 170');
$dtx->clean('after cancels');

# One server fails at once, the other is told to stop: a cancel that comes between
# two of its commands is lost, and is repeated.
my $port1 = $dtx->p(1)->port;
$s->run(qq{
CREATE PROCEDURE one_fails() LANGUAGE plpgsql AS \$\$
DECLARE
	failed int := 0;
BEGIN
	FOR i IN 1 .. 300 LOOP
		PERFORM dtx.exec('s2', 'UPDATE acct SET bal = bal + 1');
		BEGIN
			PERFORM dtx.exec_all('{s2,s1}',
				'SELECT 1 / (current_setting(''port'')::int - $port1); SELECT pg_sleep(3600)');
		EXCEPTION WHEN division_by_zero THEN
			failed := failed + 1;
		END;
	END LOOP;
	RAISE NOTICE 'failed: %', failed;
END
\$\$});
$s->run('CALL one_fails()');
like($s->stderr, qr/failed: 300/, 'one of two servers fails, three hundred times');
$dtx->balances_are('100 170 470', '... and the other goes on');
$s->run('UPDATE acct2 SET bal = 170');

# A cancel without a savepoint, by another session.
$s->start("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 0'); SELECT dtx.exec_all('{s1,s2}', 'SELECT pg_sleep(3600)')");
$dtx->p(2)->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()});
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/57014/, 'canceled by another session');
$s->run('ROLLBACK');
is($dtx->p(2)->safe_psql('postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND state = 'active' AND pid <> pg_backend_pid()}
	), '0', '... and so are its commands on the servers');
$dtx->balances_are('100 170 170', '... nothing is left');

# A server dies under a command, and is reached again afterwards.
$s->start("SELECT dtx.exec_all('{s1,s2}', 'UPDATE acct SET bal = 0; SELECT pg_sleep(3600)')");
$dtx->p(2)->poll_query_until('postgres',
	q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND pid <> pg_backend_pid()});
$dtx->crash($dtx->p(2));
$s->finish;
like($s->stderr, qr/ERROR:  08006: connection to server "s2" was lost/, 'server dies: an error with its name');
$dtx->p(2)->start;
$dtx->balances_are('100 170 170', '... nothing is left');
is($s->run("SELECT dtx.exec('s2', 'UPDATE acct SET bal = 100')"), '1', '... the next command reaches it');
is($s->run("SELECT dtx.exec('s1', 'UPDATE acct SET bal = 100')"), '1', '... and the other');

# An idle connection that died is replaced unnoticed, as by postgres_fdw.
$dtx->p($_)->restart for 1, 2;
is($s->run("SELECT * FROM dtx.query_all('{s1,s2}', 'SELECT bal FROM acct') AS t(s name, b int) ORDER BY s"),
	"s1|100\ns2|100", 'restarted servers');
$dtx->clean('after restarts');

# A connection that is lost while a savepoint is open takes the transaction
# with it, whatever is caught.
$s->run("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 0'); SELECT dtx.exec('s2', 'UPDATE acct SET bal = 0'); SAVEPOINT a;
SELECT dtx.exec('s2', 'SELECT pg_terminate_backend(pg_backend_pid())');
ROLLBACK TO a; COMMIT");
like($s->stderr, qr/DETAIL:  terminating connection due to administrator command/, 'connection lost under a savepoint: the reason');
like($s->stderr, qr/ERROR.*\n(.*\n)*.*ERROR/, '... error at COMMIT');
$s->run('ROLLBACK');
$dtx->balances_are('100 100 100', '... nothing is committed');
$dtx->clean('after the lost connection');

# Encodings: LATIN1 there, UTF8 here.
$dtx->p(1)->safe_psql('postgres',
	q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
$dtx->p(1)->safe_psql('latin', 'CREATE TABLE t (a text)');
my $coding = $dtx->coord->safe_psql('postgres', 'SHOW server_encoding');
if ($coding ne 'UTF8')
{
	$dtx->sql(q{CREATE DATABASE utf ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
}
my $db = $coding eq 'UTF8' ? 'postgres' : 'utf';
my ($host, $port) = ($dtx->p(1)->host, $dtx->p(1)->port);
my $user = $dtx->sql('SELECT current_user');
$dtx->coord->safe_psql($db, qq{
CREATE EXTENSION IF NOT EXISTS postgres_fdw;
CREATE EXTENSION IF NOT EXISTS pg_dtx;
CREATE SERVER latin FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'latin');
CREATE USER MAPPING FOR CURRENT_USER SERVER latin OPTIONS (user '$user')});
is($dtx->coord->safe_psql($db, q{SELECT dtx.exec('latin', 'INSERT INTO t VALUES ($1)', U&'na\00EFve')}), '1', 'text into another encoding');
is($dtx->p(1)->safe_psql('latin', q{SELECT encode(convert_to(a, 'LATIN1'), 'hex') FROM t}), '6e61ef7665', '... is converted');
is($dtx->coord->safe_psql($db, q{SELECT a = U&'na\00EFve', j = U&'"na\00EFve"'::jsonb FROM dtx.query('latin', 'SELECT * FROM t') AS t(a text), (SELECT x->'a' FROM dtx.query_json('latin', 'SELECT * FROM t') x) AS y(j)}), 't|t', '... and back');
my ($ret, $out, $err) = $dtx->coord->psql($db, q{SELECT dtx.exec('latin', 'INSERT INTO t VALUES ($1)', U&'\20AC')});
like($err, qr/server "latin": character with byte sequence 0xe2 0x82 0xac/, 'a character that is not there: an error');
($ret, $out, $err) = $dtx->coord->psql($db, q{SELECT * FROM dtx.query('latin', 'SET client_encoding = latin1; SELECT * FROM t') AS t(a text)});
like($err, qr/invalid byte sequence for encoding "UTF8"/, 'text in a wrong encoding is refused');
like($err, qr/column "a" of row 1 from server "latin"/, '... and its place is told');

$s->close;
done_testing();
