# What the documentation promises of remote SQL, on clusters of their own: one
# round trip, all servers at once, memory that does not grow, encodings, passwords,
# lost connections, COMMIT that does not wait, roles, the recipes of docs/remote-sql.md.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $dtx = DtxTest->new(servers => 3, proxy => [3]);
my $s = $dtx->session;
my ($host, $port) = ($dtx->p(1)->host, $dtx->p(1)->port);

# Resident memory of a process that is its own, kB; 0 if there is no telling.
sub memory
{
	my $pid = shift;
	return 0 unless -r "/proc/$pid/status";
	my ($rss) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	return $rss // 0;
}

# The most memory that a statement uses, above what the session had, kB.
sub peak
{
	my $sql = shift;
	my $before = memory($s->pid);
	my $peak = $before;
	$s->start($sql);
	until ($s->finished)
	{
		my $now = memory($s->pid);
		$peak = $now if $now > $peak;
		usleep(10_000);
	}
	$s->finish;
	return $peak - $before;
}

# Statements that server $i was sent while $code ran.
sub sent
{
	my ($i, $code) = @_;
	my $offset = -s $dtx->p($i)->logfile;
	$code->();
	my $log = slurp_file($dtx->p($i)->logfile, $offset);
	my @sent;
	while ($log =~ /postgres_fdw LOG:  (?:statement: |execute [^:]*: )(.*)/g)
	{
		push @sent, $1;
	}
	note join "\n", @sent;
	return @sent;
}

#
# One round trip.
#
$s->run("SELECT dtx.exec_all('{s1,s2,s3}', 'SELECT 1')");
my @sent = sent(1, sub { $s->run("SELECT dtx.exec('s1', 'SELECT 4711')") });
is(scalar(@sent), 6, 'nothing is sent but the command and what it needs');
like($sent[0], qr/^START TRANSACTION/, '... START TRANSACTION');
is($sent[1], 'SET LOCAL search_path TO DEFAULT', '... settings');
is($sent[3], 'SELECT 4711', '... the command');
like($sent[4], qr/^SELECT .*set_config\('search_path', 'pg_catalog'/, '... settings back');
is($sent[5], 'COMMIT TRANSACTION', '... COMMIT, later');
$s->run('SET pg_dtx.fold_start = off');
@sent = sent(1, sub { $s->run("BEGIN; SAVEPOINT a; SELECT dtx.exec('s1', 'SELECT 4711'); RELEASE a; COMMIT") });
is($sent[0], 'START TRANSACTION ISOLATION LEVEL REPEATABLE READ', 'fold_start = off: alone');
is($sent[1], 'SAVEPOINT s2', '... then the savepoint');
is($sent[4], 'SELECT 4711', '... then the command');
$s->run('RESET pg_dtx.fold_start');
# In one piece: the command and all around it leave together.
$dtx->proxy(3)->rule(cut => q{(?s)START TRANSACTION.*search_path TO DEFAULT.*SELECT 4711.*'search_path', 'pg_catalog'});
$s->run("SELECT dtx.exec('s3', 'SELECT 4711')");
like($s->stderr, qr/ERROR:  08006: connection to server "s3" was lost/, 'all of it is one message');
$dtx->proxy(3)->clear;
is($s->run("SELECT dtx.exec('s3', 'SELECT 4711')"), '1', '... and the next one reaches the server again');

# What can be known before is refused before: nothing is sent.
for my $sql ("dtx.exec('s1', 'UPDATE acct SET bal = 0; COMMIT')", "dtx.exec_all('{s1}', 'ROLLBACK and what not')", "dtx.exec('s1', 'COPY acct TO STDOUT')",
	"dtx.exec('s1', 'SELECT 1; SELECT \$1', 'x')", "dtx.exec('s1', '')", "dtx.exec_all('{s1,nowhere}', 'SELECT 1')")
{
	@sent = sent(1, sub { $s->run("SELECT $sql") });
	like($s->stderr, qr/ERROR/, "refused: $sql");
	is_deeply(\@sent, [], '... before anything is sent');
}

# Types that only the server has become strings in JSON.
$dtx->p(1)->safe_psql('postgres', q{CREATE TYPE mood AS ENUM ('fine'); CREATE TYPE pair AS (a int, b text)});
is($s->run(q{SELECT * FROM dtx.query_json('s1', $$SELECT 'fine'::mood AS m, ARRAY['fine'::mood] AS ms, (1, 'x')::pair AS p$$)}),
	'{"m": "fine", "p": "(1,x)", "ms": "{fine}"}', 'types that are not known here');

# One session per server and user.
$s->run('SELECT postgres_fdw_disconnect_all()');
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'}, '0', 'no session');
$dtx->p(1)->safe_psql('postgres', 'CREATE VIEW pid AS SELECT pg_backend_pid() AS pid');
$dtx->sql('CREATE FOREIGN TABLE pid1 (pid int) SERVER s1 OPTIONS (table_name \'pid\'); CREATE ROLE other SUPERUSER; CREATE USER MAPPING FOR other SERVER s1 OPTIONS (user \'' . $dtx->sql('SELECT current_user') . '\')');
is($s->run("BEGIN; SELECT count(DISTINCT pid) FROM (SELECT pid FROM dtx.query('s1', 'SELECT pg_backend_pid()') AS t(pid int) UNION ALL SELECT pid FROM pid1) x"),
	'1', 'one session for functions and foreign tables');
$s->run('SET ROLE other');
is($s->run("SELECT count(DISTINCT pid) FROM (SELECT pid FROM pid1 UNION ALL SELECT pid FROM dtx.query('s1', 'SELECT pg_backend_pid()') AS t(pid int)) x; RESET ROLE; COMMIT"),
	'1', '... and one for another user');
is(scalar(() = $dtx->remote_pids(1)), 2, '... which makes two');
$s->run('SELECT postgres_fdw_disconnect_all()');
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'}, '0', '... and then none');
$s->run("SELECT dtx.exec_all('{s1,s2,s3}', 'SELECT 1')");

#
# A lock is taken before the snapshot.
#
my $locked = $dtx->session(node => $dtx->p(1));
$locked->run('BEGIN; UPDATE acct SET bal = 777');
$s->start("BEGIN; SELECT dtx.exec('s1', 'LOCK TABLE acct'); SELECT * FROM dtx.query('s1', 'SELECT bal FROM acct') AS t(bal int); UPDATE acct1 SET bal = 100; COMMIT");
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'acct'::regclass}, '1', 'LOCK TABLE waits');
$locked->run('COMMIT');
is($s->finish, "0\n777", '... and then the transaction sees what was committed meanwhile');
is($s->stderr, '', '... and may change it');
$locked->close;

#
# The time of the slowest, not the sum.
#
my $start = time;
$s->run("SELECT dtx.exec('s1', 'SELECT pg_sleep(5)')");
my $one = time - $start;
for my $sql ("SELECT dtx.exec_all('{s1,s2,s3}', 'SELECT pg_sleep(5)')",
	"SELECT * FROM dtx.query_all('{s1,s2,s3}', 'SELECT 1 FROM pg_sleep(5)') AS t(s name, i int)")
{
	$start = time;
	$s->run($sql);
	my $all = time - $start;
	is($s->stderr, '', $sql);
	cmp_ok($all, '<', 2 * $one, "... on three servers at once (one: $one, all: $all)");
}

#
# Memory.
#
SKIP:
{
	skip 'no /proc', 9 unless memory($s->pid);
	skip 'a sanitizer keeps what is freed', 9 if $ENV{DTX_CHECKER};
	my $rows = 'SELECT i, repeat(md5(i::text), 6) AS t FROM generate_series(1, 500000) i';
	my $small = $rows =~ s/500000/10/r;
	my $query = sub { "SELECT count(*), max(length(t)) FROM dtx.query('s1', \$\$$_[0]\$\$) AS t(i int, t text)" };
	$s->run($query->($small));

	# Always as the first command of a remote transaction, and not; alone, and
	# behind others; by both protocols' ways to begin.
	cmp_ok(peak($query->($rows)), '<', 40_000, 'half a million rows: as the first command');
	cmp_ok(peak("BEGIN; SELECT * FROM acct1; SAVEPOINT a; " . $query->($rows) . '; COMMIT'), '<', 40_000, '... in a savepoint');
	cmp_ok(peak($query->("SELECT 1; CREATE TEMP TABLE x (); DROP TABLE x; $rows")), '<', 40_000, '... behind other statements');
	cmp_ok(peak("SELECT count(*) FROM dtx.query_json('s1', \$\$$rows\$\$) AS j"), '<', 40_000, '... as JSON');
	cmp_ok(peak("SELECT count(*) FROM dtx.query_all('{s1,s2}', \$\$$rows\$\$) AS t(s name, i int, t text)"), '<', 40_000, '... of two servers');
	cmp_ok(peak("SELECT dtx.exec('s1', \$\$$rows\$\$)"), '<', 20_000, '... thrown away');

	# Many calls.
	$s->run(q{
CREATE PROCEDURE many_calls(n int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		BEGIN
			PERFORM dtx.exec('s1', 'SELECT $1', repeat('x', 1000));
			PERFORM * FROM dtx.query_all('{s1,s2}', 'SELECT i, repeat(''x'', 100) FROM generate_series(1, 10) i') AS t(s name, i int, t text);
			PERFORM dtx.query_json('s1', 'SELECT i, repeat(''x'', 100) AS t FROM generate_series(1, 10) i');
			PERFORM * FROM dtx.query_all('{s1,s2}', CASE i % 3 WHEN 0 THEN 'SELECT 1/0' WHEN 1 THEN 'SELECT repeat(''y'', 1000)' ELSE 'this is no SQL' END) AS t(s name, i int);
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
END
$$;
CALL many_calls(200)});
	my $before = memory($s->pid);
	$s->run('CALL many_calls(2000)');
	cmp_ok(memory($s->pid) - $before, '<', 3000, 'thousands of calls and errors leave nothing');
	my $lateral = q{SELECT count(*) FROM generate_series(1, 2000) i, LATERAL dtx.query('s1', 'SELECT $1::int, repeat(''x'', 1000)', i::text) AS t(j int, x text)};
	$s->run('SET jit = off');
	my $few = peak($lateral);
	cmp_ok(peak($lateral =~ s/2000/10000/r), '<', $few + 3000, 'ten thousand calls in one statement');
	my @open = glob('/proc/' . $s->pid . '/fd/*');
	$s->run('CALL many_calls(100)');
	is(scalar(() = glob('/proc/' . $s->pid . '/fd/*')), scalar(@open), 'no descriptor is left open');
}

#
# Interrupted while a big parameter is on its way to a backend that does not read.
#
my ($remote) = $dtx->remote_pids(1);
$s->run("BEGIN; UPDATE acct2 SET bal = 0; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 0')");
$dtx->stop_process($dtx->remote_pids(1));
$start = time;
$s->run("SET LOCAL statement_timeout = '3s'; SELECT dtx.exec_all('{s2,s1}', 'SELECT length(\$1)', repeat(repeat('y', 1000), 50000))");
like($s->stderr, qr/57014/, 'canceled while sending');
cmp_ok(time - $start, '<', 30, '... and does not wait for the server');
$dtx->continue_process($dtx->remote_pids(1));
$s->run('ROLLBACK');
$dtx->balances_are('100 100 100 100', '... nothing is left');
is($s->run("SELECT dtx.exec_all('{s1,s2}', 'SELECT 1')"), "(s1,1)\n(s2,1)", '... and the session goes on');

#
# A connection that is lost between two calls.
#
for my $where ('SAVEPOINT a;', '')
{
	$s->run("BEGIN; SELECT dtx.exec_all('{s1,s2}', 'UPDATE acct SET bal = 0'); $where");
	my ($pid) = $dtx->remote_pids(1);
	$dtx->p(1)->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$dtx->p(1)->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	$s->run("SELECT dtx.exec('s1', 'UPDATE acct SET bal = 1')");
	like($s->stderr, $where ? qr/terminating connection.*remote command on server "s1"/s : qr/connection to server "s1" was lost/,
		"lost between two calls: an error ($where)");
	$s->run('ROLLBACK TO a') if $where;
	$s->run("SELECT dtx.exec('s1', 'UPDATE acct SET bal = 1')");
	like($s->stderr, qr/ERROR/, '... again, and no new connection in the same transaction');
	$s->run('COMMIT');
	$dtx->balances_are('100 100 100 100', '... nothing is committed');
	is($s->run("SELECT dtx.exec('s1', 'SELECT 1')"), '1', '... and the next transaction has a new one');
}
# Idle, and dead: nobody notices, whatever comes first and however it died.
for my $sql ("SELECT dtx.exec('s1', 'SELECT 1')", "BEGIN; SAVEPOINT a; SELECT dtx.exec('s1', 'SELECT 1'); COMMIT",
	"SET pg_dtx.fold_start = off; SELECT dtx.exec('s1', 'SELECT 1'); RESET pg_dtx.fold_start")
{
	$s->run("SELECT dtx.exec('s1', 'SELECT 1')");
	my ($pid) = $dtx->remote_pids(1);
	$dtx->p(1)->safe_psql('postgres', "SELECT pg_terminate_backend($pid)");
	$dtx->p(1)->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid");
	is($s->run($sql), '1', "idle connection killed: $sql");
	is($s->stderr, '', '... nothing to be seen');
	$s->run("SELECT dtx.exec('s1', 'SELECT 1')");
	$dtx->crash($dtx->p(1));
	$dtx->p(1)->start;
	is($s->run($sql), '1', '... server crashed and came back');
	is($s->stderr, '', '... nothing to be seen');
}
# A coordinator's backend that is terminated under a command: nothing goes on there, and
# it does not wait for what it will not read any more.
my $sleep = "SELECT dtx.exec_all('{s1,s2}', 'SELECT pg_sleep(3600)')";
for my $what ($sleep, "DO 'BEGIN PERFORM " . ($sleep =~ s/^SELECT //r) =~ s/'/''/gr . "; EXCEPTION WHEN division_by_zero THEN NULL; END'")
{
	my $victim = $dtx->session;
	$victim->start("BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = 0'); $what");
	$dtx->p($_)->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND state = 'active' AND pid <> pg_backend_pid()})
	  for 1, 2;
	$start = time;
	$dtx->sql('SELECT pg_terminate_backend(' . $victim->pid . ')');
	eval { $victim->finish };
	cmp_ok(time - $start, '<', 20, 'session terminated: it ends at once');
	for my $i (1, 2)
	{
		$dtx->poll($dtx->p($i), q{SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(3600)%' AND state = 'active' AND pid <> pg_backend_pid()},
			'0', "... server s$i stops, too");
	}
	$victim->close;
}
$dtx->balances_are('100 100 100 100', '... nothing is left');

#
# COMMIT that does not wait, and the next command on the same connection.
#
$s->run('SET pg_dtx.commit_wait = off');
$s->run(q{
CREATE PROCEDURE hurry() LANGUAGE plpgsql AS $$
DECLARE
	wrong int := 0;
	n int;
BEGIN
	FOR i IN 1 .. 200 LOOP
		PERFORM dtx.exec_all('{s1,s2}', 'UPDATE acct SET bal = bal + 1');
		COMMIT;
		IF i % 2 = 0 THEN
			BEGIN
				SELECT count(*) INTO n FROM dtx.query_all('{s1,s2}', 'SELECT bal FROM acct') AS t(s name, bal int) WHERE bal <> 100 + i;
			EXCEPTION WHEN division_by_zero THEN
				-- there is none: a savepoint is what this is about
				RAISE;
			END;
			wrong := wrong + n;
		END IF;
	END LOOP;
	RAISE NOTICE 'wrong: %', wrong;
END
$$});
$s->run('CALL hurry()');
like($s->stderr, qr/wrong: 0/, 'commit_wait = off: sees its own writes');
# held by the network
$dtx->proxy(3)->rule(hold => 'COMMIT PREPARED');
$s->run("BEGIN; SELECT dtx.exec_all('{s1,s3}', 'UPDATE acct SET bal = 500'); COMMIT");
is($s->stderr, '', '... even if the confirmation is late');
$dtx->proxy(3)->wait_for('hold');
$s->start("SELECT * FROM dtx.query_all('{s1,s3}', 'SELECT bal FROM acct') AS t(s name, bal int) ORDER BY s");
usleep(100_000);
$dtx->proxy(3)->clear;
is($s->finish, "s1|500\ns3|500", '... for which the next command waits');
is($s->stderr, '', '... without an error');
$s->run('RESET pg_dtx.commit_wait');
$s->run("SELECT dtx.exec_all('{s1,s2,s3}', 'UPDATE acct SET bal = 100')");
$dtx->balances_are('100 100 100 100', 'all back');
$dtx->clean('after commit_wait = off');

#
# A role that a command takes on does not own what is prepared: after a crash the
# resolver, who knows the user mapping only, must be able to finish.
#
$dtx->p(1)->safe_psql('postgres', q{CREATE ROLE owner; CREATE ROLE app LOGIN IN ROLE owner; GRANT CREATE ON SCHEMA public TO owner; GRANT ALL ON acct TO app});
$dtx->sql(qq{CREATE SERVER as_app FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER as_app OPTIONS (user 'app')});
my $held = $dtx->session;
$held->run($dtx->hold);
$held->start("BEGIN; SELECT dtx.exec('as_app', 'SET LOCAL ROLE owner; CREATE TABLE owned ()'); SELECT dtx.exec('s2', 'UPDATE acct SET bal = 1'); COMMIT");
$dtx->wait_held($held);
is($dtx->p(1)->safe_psql('postgres', 'SELECT owner FROM pg_prepared_xacts'), 'app', 'who prepares is the role of the user mapping');
$dtx->crash($dtx->coord);
eval { $held->finish };
$held->close;
$s->close;
$dtx->coord->start;
$dtx->clean('after the crash');
is($dtx->p(1)->safe_psql('postgres', q{SELECT relowner::regrole FROM pg_class WHERE relname = 'owned'}), 'owner', 'the resolver has committed there');
$dtx->balances_are('100 100 1 100', '... and on the other server');
$dtx->p(2)->safe_psql('postgres', 'UPDATE acct SET bal = 100');

#
# Passwords: as postgres_fdw has it.
#
my $hba = $dtx->p(1)->data_dir . '/pg_hba.conf';
my $trust = slurp_file($hba);
$dtx->p(1)->safe_psql('postgres', q{ALTER ROLE app PASSWORD 'secret'});
append_to_file("$hba.new", "local all app scram-sha-256\n$trust");
rename "$hba.new", $hba;
$dtx->p(1)->reload;
# no password, no entry
$dtx->p(1)->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_hba_file_rules WHERE user_name = '{app}'});
$dtx->sql(q{
CREATE ROLE plain LOGIN;
GRANT USAGE ON FOREIGN SERVER as_app, s2 TO plain;
GRANT USAGE ON SCHEMA dtx TO plain;
GRANT EXECUTE ON FUNCTION dtx.exec(name, text, text[]), dtx.query(name, text, text[]) TO plain;
CREATE USER MAPPING FOR plain SERVER as_app OPTIONS (user 'app', password 'secret');
CREATE USER MAPPING FOR plain SERVER s2});
my $who = q{SELECT * FROM dtx.query('as_app', 'SELECT current_user') AS t(who name)};
my $call = sub {
	my ($sql) = @_;
	my ($ret, $out, $err) = $dtx->coord->psql('postgres', $sql, connstr => $dtx->coord->connstr('postgres') . ' user=plain');
	return $err ne '' ? $err : $out;
};
is($call->($who), 'app', 'a user with a password');
like($call->(q{SELECT dtx.exec('s2', 'SELECT 1')}), qr/password.* required/, 'a user without one');
$dtx->sql(q{ALTER USER MAPPING FOR plain SERVER s2 OPTIONS (ADD user 'app', ADD password 'secret')});
$dtx->p(2)->safe_psql('postgres', 'CREATE ROLE app LOGIN');
like($call->(q{SELECT dtx.exec('s2', 'SELECT 1')}), qr/password.* required.*\n.*does not request a password/, 'a server that does not ask for it');
$dtx->sql(q{ALTER USER MAPPING FOR plain SERVER s2 OPTIONS (DROP password, ADD password_required 'false')});
is($call->(q{SELECT dtx.exec('s2', 'SELECT 1')}), '1', '... which a superuser may allow');
like($call->(q{SELECT dtx.exec('s3', 'SELECT 1')}), qr/permission denied for foreign server s3/, 'no USAGE');
like($call->(q{SELECT dtx.exec_all('{as_app}', 'SELECT 1')}), qr/permission denied for function exec_all/, 'no EXECUTE');
$dtx->sql(q{ALTER USER MAPPING FOR plain SERVER as_app OPTIONS (SET password 'wrong')});
like($call->($who), qr/password authentication failed for user "app"/, 'a wrong password');

#
# Encodings: UTF8 there, LATIN1 here.
#
$dtx->p(2)->safe_psql('postgres', q{CREATE DATABASE utf ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
$dtx->p(2)->safe_psql('utf', q{CREATE TABLE t (id int, a text); INSERT INTO t VALUES (1, U&'na\00EFve'), (2, U&'10 \20AC');
CREATE FUNCTION complain() RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''%'', U&''expensive: \20AC''; END'});
$dtx->sql(q{CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'});
my ($host2, $port2) = ($dtx->p(2)->host, $dtx->p(2)->port);
$dtx->coord->safe_psql('latin', qq{CREATE EXTENSION pg_dtx CASCADE;
CREATE SERVER utf FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host2', port '$port2', dbname 'utf');
CREATE USER MAPPING FOR CURRENT_USER SERVER utf});
is($dtx->coord->safe_psql('latin', q{SELECT a = U&'na\00EFve', length(a), octet_length(a) FROM dtx.query('utf', 'SELECT a FROM t WHERE id = 1') AS t(a text)}),
	't|5|5', 'UTF8 there, LATIN1 here: converted');
is($dtx->coord->safe_psql('latin', q{SELECT j->>'a' = U&'na\00EFve', j->>U&'\00E4' FROM dtx.query_json('utf', U&'SELECT a, 5 AS "\00E4" FROM t WHERE id = 1') j}),
	't|5', '... as JSON, with a strange name of a column');
is($dtx->coord->safe_psql('latin', q{SELECT dtx.exec('utf', 'UPDATE t SET a = $1 || U&''\00FC'' WHERE id = 1', U&'\00E9')}), '1', '... a parameter');
is($dtx->p(2)->safe_psql('utf', q{SELECT a = U&'\00E9\00FC' FROM t WHERE id = 1}), 't', '... arrives');
my (undef, undef, $err) = $dtx->coord->psql('latin', q{SELECT * FROM dtx.query('utf', 'SELECT * FROM t ORDER BY id') AS t(id int, a text)});
like($err, qr/server "utf": character with byte sequence 0xe2 0x82 0xac in encoding "UTF8" has no equivalent in encoding "LATIN1"/,
	'... what is not in LATIN1 is an error');
is($dtx->coord->safe_psql('latin', q{
BEGIN; SELECT dtx.exec('utf', 'DELETE FROM t WHERE id = 1'); SAVEPOINT a;
\set ON_ERROR_STOP 0
SELECT * FROM dtx.query('utf', 'SELECT * FROM t') AS t(id int, a text);
\set ON_ERROR_STOP 1
ROLLBACK TO a; SELECT * FROM dtx.query('utf', 'SELECT count(*) FROM t') AS t(n int); COMMIT}, on_error_die => 0), "1\n1", '... and the transaction goes on');
(undef, undef, $err) = $dtx->coord->psql('latin', q{SELECT dtx.exec('utf', 'SELECT complain()')});
like($err, qr/server "utf": .*/, '... and one in a message does no harm');

#
# The recipes of docs/remote-sql.md, as they are printed.
#
SKIP:
{
	my $file = "$FindBin::RealBin/../docs/remote-sql.md";
	skip 'no documents', 10 unless -r $file;
	my ($recipes) = slurp_file($file) =~ /^# SQL on the servers.*?^```sql\n(.*?)^```/ms;
	ok($recipes, 'there are recipes');
	$dtx->sql(q{CREATE DATABASE recipes});
	my $sql = "CREATE EXTENSION pg_dtx CASCADE;\n";
	for my $name ('tokyo', 'berlin')
	{
		my $node = $dtx->p($name eq 'tokyo' ? 1 : 2);
		$node->safe_psql('postgres', qq{CREATE DATABASE $name});
		$node->safe_psql($name, q{
CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL);
CREATE TABLE queue (id serial PRIMARY KEY, account int, amount int);
CREATE FUNCTION quote(currency text, amount numeric, OUT rate numeric, OUT until timestamptz) RETURNS SETOF record LANGUAGE sql AS 'SELECT 1.5, timestamptz ''infinity'''});
		$sql .= sprintf q{CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname '%s');
CREATE USER MAPPING FOR CURRENT_USER SERVER %s;
}, $name, $node->host, $node->port, $name, $name;
	}
	$dtx->p(1)->safe_psql('tokyo', 'INSERT INTO account SELECT i, i FROM generate_series(1, 150) i; INSERT INTO queue (account, amount) VALUES (1000, 5), (1000, 6)');
	$dtx->p(2)->safe_psql('berlin', 'INSERT INTO account VALUES (1000, 0)');
	$dtx->coord->safe_psql('recipes', $sql);
	my ($ret, $out, $errors) = $dtx->coord->psql('recipes', $recipes, on_error_die => 0, on_error_stop => 1);
	note $out;
	is($errors, '', 'they run');
	is($dtx->p(1)->safe_psql('tokyo', 'SELECT count(*), count(note), min(id) FROM account; SELECT count(*) FROM queue'), "100|0|1\n1", '... and do on one server');
	is($dtx->p(2)->safe_psql('berlin', 'SELECT count(*), sum(balance), sum(balance) FILTER (WHERE id = 1000) FROM account'), "51|6280|5", '... and on the other what they say');

	# The queue, with as many at work as there are hands.
	my ($queue) = $recipes =~ /any number of consumers[^\n]*\n(.*)\z/s;
	$dtx->p(1)->safe_psql('tokyo', 'DELETE FROM queue; INSERT INTO queue (account, amount) SELECT 1000, 1 FROM generate_series(1, 200)');
	$dtx->p(2)->safe_psql('berlin', 'UPDATE account SET balance = 0; INSERT INTO account SELECT i, 0 FROM generate_series(1, 10) i ON CONFLICT DO NOTHING');
	my @workers = map { $dtx->session(dbname => 'recipes') } 1 .. 4;
	$_->start(join "\n", ($queue) x 60) for @workers;
	$_->finish for @workers;
	like($_->stderr, qr/^\s*$/, 'a consumer that is not alone') for @workers;
	is($dtx->p(1)->safe_psql('tokyo', 'SELECT count(*) FROM queue'), '0', 'four consumers empty the queue');
	is($dtx->p(2)->safe_psql('berlin', 'SELECT balance FROM account WHERE id = 1000'), '200', '... each thing exactly once');
	$_->close for @workers;
}
$dtx->clean('in the end');
done_testing();
