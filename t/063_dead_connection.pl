# A connection that turns out to be dead when the first command of a transaction is
# sent is replaced, as postgres_fdw does it: nobody notices.  One that dies under a
# command is not.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [ 1, 2 ]);
my $proxy = $dtx->proxy(2);
my $p2 = $dtx->p(2);
$p2->safe_psql('postgres', q{
CREATE VIEW settings AS SELECT name, setting FROM pg_settings
	WHERE name IN ('search_path', 'TimeZone', 'DateStyle', 'IntervalStyle', 'extra_float_digits', 'client_encoding', 'application_name');
CREATE VIEW session AS SELECT pg_backend_pid() AS pid;
CREATE TABLE log (i int, t text);
CREATE SEQUENCE executed;
CREATE FUNCTION once() RETURNS int LANGUAGE sql VOLATILE AS $$SELECT nextval('public.executed')::int$$;
CREATE VIEW counting AS SELECT once() AS i;
CREATE FUNCTION die() RETURNS int LANGUAGE sql AS $$SELECT nextval('public.executed'); SELECT pg_terminate_backend(pg_backend_pid())::int$$;
CREATE VIEW deadly AS SELECT die() AS i});
$dtx->sql(q{
CREATE FOREIGN TABLE settings (name text, setting text) SERVER s2;
CREATE FOREIGN TABLE session (pid int) SERVER s2;
CREATE FOREIGN TABLE log (i int, t text) SERVER s2;
CREATE FOREIGN TABLE counting (i int) SERVER s2;
CREATE FOREIGN TABLE deadly (i int) SERVER s2});
my $s = $dtx->session;

sub rows { return $p2->safe_psql('postgres', 'SELECT count(*) FROM log') }

# All kinds of first commands, with a connection that was closed by something in
# between, which neither side has told: the message is lost, or its reply.
my $settings = $s->run('SELECT * FROM settings ORDER BY name');
my $n = 0;
my @first = (
	[ 'a query' => 'SELECT count(*) FROM log', sub { $n } ],
	[ 'a query with a parameter' => q{SELECT count(*) FROM log WHERE i = (SELECT 5 + random() * 0)}, sub { '' } ],
	[ 'UPDATE' => 'UPDATE log SET i = i RETURNING 1', undef ],
	[ 'UPDATE by name' => 'UPDATE log SET t = t WHERE i = 1', undef ],
	[ 'INSERT' => q{INSERT INTO log VALUES (1, 'x')}, undef, 1 ],
	[ 'a long INSERT' => q{INSERT INTO log SELECT 2, repeat('x', 100000)}, undef, 1 ],
	[ 'a long UPDATE' => q{UPDATE log SET t = 'y' WHERE t = repeat('x', 50000)}, undef ],
	[ 'SAVEPOINT' => q{BEGIN; SAVEPOINT a; INSERT INTO log VALUES (3, 'x'); COMMIT}, undef, 1 ],
	[ 'TRUNCATE' => q{BEGIN; TRUNCATE log; ROLLBACK}, undef ],
	[ 'dtx.exec' => q{SELECT dtx.exec('s2', 'INSERT INTO log VALUES ($1::int, $2)', '4', 'x')}, sub { 1 }, 1 ],
	[ 'dtx.query' => q{SELECT * FROM dtx.query('s2', 'SELECT count(*) FROM log') AS t(n bigint)}, sub { $n } ],
	[ 'dtx.exec_all' => q{SELECT count(*) FROM dtx.exec_all(ARRAY['s1', 's2'], 'SELECT 1')}, sub { 2 } ]);
for my $rule ('cut_once', 'cut_reply_once')
{
	for my $first (@first)
	{
		my ($name, $sql, $expected, $inserted) = @$first;
		$s->run('UPDATE log SET t = t WHERE i = 1') for 1 .. 4;    # then it is prepared
		my $before = $s->run('SELECT pid FROM session');
		$proxy->rule($rule => 'START TRANSACTION');
		my $out = $s->run($sql);
		is($s->stderr, '', "$rule, $name: without a word");
		ok($proxy->happened($rule), '... though the connection was lost');
		$proxy->clear;
		$n += $inserted // 0;
		is($out, $expected->(), '... with its result') if $expected && $expected->() ne '';
		is(rows(), $n, '... done once');
		isnt($s->run('SELECT pid FROM session'), $before, '... on another connection');
		is($s->stderr, '', '... that is used on');
	}
	$dtx->clean($rule);
}
is($s->run('SELECT * FROM settings ORDER BY name'), $settings, 'the new session is set up as the old one was');

# In a distributed transaction, and on both servers.
my @bal = split /\|/, $s->run('SELECT a.bal, b.bal FROM acct1 a, acct2 b');
$dtx->proxy($_)->rule(cut_once => 'START TRANSACTION') for 1, 2;
$s->run($dtx->transfer(1, 1, 0, 2));
is($s->stderr, '', 'dead on both servers: without a word');
$dtx->proxy($_)->clear for 1, 2;
$dtx->balances_are(join(' ', 100, $bal[0] - 1, $bal[1] + 1), '... committed on both');
is($dtx->sql('SELECT two_phase > 0 FROM dtx.stat'), 't', '... in two phases');

# With fold_start off it is postgres_fdw that does it.
$s->run('SET pg_dtx.fold_start = off; SELECT count(*) FROM log');
$proxy->rule(cut_once => 'START TRANSACTION');
is($s->run('SELECT count(*) FROM log'), $n, 'fold_start = off: postgres_fdw replaces it');
is($s->stderr, '', '... without a word');
$proxy->clear;
$s->run('RESET pg_dtx.fold_start; SELECT count(*) FROM log');

# Who is gone for good is asked again once.
$proxy->rule(cut => 'START TRANSACTION');
$s->run('SELECT count(*) FROM log');
like($s->stderr, qr/ERROR:  08006: server closed the connection unexpectedly/, 'gone for good: an error');
unlike($s->stderr, qr/ERROR.*ERROR/s, '... and only that');
$s->run(q{SELECT dtx.exec('s2', 'SELECT 1')});
like($s->stderr, qr/ERROR:  08006: connection to server "s2" was lost/, '... likewise with remote SQL');
$proxy->clear;
is($s->run('SELECT count(*) FROM log'), $n, '... until it is back');
is($s->stderr, '', '... without a word');
$p2->stop('fast');
$s->run('SELECT count(*) FROM log');
like($s->stderr, qr/ERROR:  08001: could not connect to server "s2"/, 'a server that is down');
$p2->start;
is($s->run('SELECT count(*) FROM log'), $n, '... and back');

# A command under which the connection dies is not sent again.
my $executed = $p2->safe_psql('postgres', 'SELECT last_value FROM executed');
$s->run('SELECT * FROM deadly');
like($s->stderr, qr/ERROR:  (57P01|08006)/, 'a command that kills its session: an error');
$s->run(q{SELECT count(*) FROM log; SELECT dtx.exec('s2', 'SELECT die()')});
like($s->stderr, qr/ERROR:  (57P01|08006)/, '... likewise with remote SQL');
is($p2->safe_psql('postgres', 'SELECT last_value FROM executed'), $executed + 2 - ($executed == 1 ? 1 : 0), '... which is not executed again');

# ... nor one of which the server crashes, whether the connection was in use a moment ago or
# not: the reply to START TRANSACTION is asked for at once in the latter case only.
$p2->append_conf('postgresql.conf', "restart_after_crash = on\n");
$p2->reload;
$p2->safe_psql('postgres', q{
CREATE FUNCTION crash() RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'; PERFORM pg_sleep(60); RETURN 0; END $$;
CREATE VIEW crashing AS SELECT crash() AS i});
$dtx->sql('CREATE FOREIGN TABLE crashing (i int) SERVER s2');
for my $idle (0, 1)
{
	my $offset = -s $p2->logfile;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	1 until $s->run('SELECT count(*) FROM log') eq $n || time > $deadline;
	$s->run('SELECT pg_sleep(1.1)') if $idle;
	$s->run('SELECT * FROM crashing');
	like($s->stderr, qr/ERROR:  (57P02|08006|08001|08003)/, 'a command of which its server crashes: an error');
	my @sent = slurp_file($p2->logfile, $offset) =~ /LOG:  execute [^\n]*\n?[^\n]*public\.crashing/g;
	is(scalar(@sent), 1, '... which is sent once');
}
{
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	1 until $s->run('SELECT count(*) FROM log') eq $n || time > $deadline;
}

# Canceled while the new connection is made.
$s->run('SELECT count(*) FROM log');
$proxy->rule(cut_once => 'START TRANSACTION', hold => 'application_name|SET search_path');
$s->start('SELECT count(*) FROM log');
$proxy->wait_for('hold');
$dtx->sql('SELECT pg_cancel_backend(' . $s->pid . ')');
$s->finish;
like($s->stderr, qr/ERROR:  57014/, 'canceled while the connection is made');
$proxy->clear;
is($s->run('SELECT count(*) FROM log'), $n, '... and the session goes on');
is($s->stderr, '', '... without a word');
$s->close;

# Who had to give a password must not get in without.
$p2->safe_psql('postgres', q{SET password_encryption = 'scram-sha-256'; CREATE ROLE app LOGIN PASSWORD 'secret'; GRANT ALL ON log TO app});
my $hba = slurp_file($p2->data_dir . '/pg_hba.conf');
sub hba
{
	my $how = shift;
	open my $fh, '>', $p2->data_dir . '/pg_hba.conf' or die $!;
	print $fh "local all app $how\n$hba";
	close $fh;
	$p2->reload;
	return $p2->poll_query_until('postgres', "SELECT auth_method = '$how' FROM pg_hba_file_rules ORDER BY line_number LIMIT 1");
}
hba('scram-sha-256');
$dtx->sql(q{CREATE ROLE joe LOGIN; GRANT USAGE ON FOREIGN SERVER s2 TO joe; GRANT ALL ON log TO joe;
CREATE USER MAPPING FOR joe SERVER s2 OPTIONS (user 'app', password 'secret')});
$s = $dtx->session(user => 'joe');
is($s->run('SELECT count(*) FROM log'), $n, 'a session with a password');
$proxy->rule(cut_once => 'START TRANSACTION');
is($s->run('SELECT count(*) FROM log'), $n, '... is replaced by one with the same password');
is($s->stderr, '', '... without a word');
hba('trust');
# (the postmaster may learn of it a moment later)
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
1 until $p2->psql('postgres', 'SELECT 1', connstr => $p2->connstr('postgres') . ' user=app password=wrong') == 0 || time > $deadline;
$proxy->clear;
$proxy->rule(cut_once => 'START TRANSACTION');
$s->run('SELECT count(*) FROM log');
like($s->stderr, qr/ERROR:  08001: could not connect to server "s2"/, '... and by none without a password');
$s->close;
done_testing();
