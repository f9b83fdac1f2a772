# pg_dtx.commit_wait = off: the next transaction does not wait for the confirmation
# of the one before it, and yet sees what that did.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
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

# The session waits for something of the server, which is not its command.
sub waits
{
	my $name = shift;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	return $dtx->poll($dtx->coord,
		q{SELECT count(*) FROM pg_stat_activity
WHERE state = 'active' AND wait_event IN ('Extension', 'DtxSettle') AND pid = } . $s->pid,
		1, $name);
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
	waits('it waits');
	ok(!$proxy->happened('behind'), '... and is not sent');
	$proxy->clear;
	is($s->finish, '101', '... and sees what the transaction did');
	is($s->stderr, '', '... without a word');
}
session();
$s->start('BEGIN; SAVEPOINT a; SELECT bal FROM acct2');
waits('it waits');
$dtx->sql($cancel . $s->pid);
$s->finish;
like($s->stderr, qr/ERROR:  57014/, '... and can be canceled');
$proxy->clear;
$s->run('ROLLBACK');
is($s->run('SELECT bal FROM acct2'), '101', '... and tried again');

# Begun and ended with nothing sent, in between: neither waits.
my $nothing = 'EXECUTE nothing(false);';
my $prepare = 'SET plan_cache_mode = force_generic_plan; PREPARE nothing AS SELECT * FROM acct2 WHERE $1;';
session();
$s->run("$prepare BEGIN; $nothing COMMIT; BEGIN; $nothing ROLLBACK");
is($s->stderr, '', 'a transaction that sends nothing');
$s->run("BEGIN; $nothing UPDATE acct1 SET bal = bal; UPDATE acct0 SET bal = bal; COMMIT");
is($s->stderr, '', '... to one server');
session();
$dtx->p(1)->safe_psql('postgres', q{CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION $a$no$a$; END';
CREATE CONSTRAINT TRIGGER no AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no()});
$s->run("$prepare BEGIN; $nothing UPDATE acct1 SET bal = bal; UPDATE acct0 SET bal = bal; COMMIT");
like($s->stderr, qr/ERROR:  P0001: could not prepare transaction on server "s1": no/, '... and fails on another');
$dtx->p(1)->safe_psql('postgres', 'DROP TRIGGER no ON acct');
ok(!$proxy->happened('behind'), '... sends nothing');

# (the one on another server has left it to the resolver)
$proxy->clear;
is($s->run('SELECT bal FROM acct2'), '101', '... and the next one sees what the transaction did');
is($s->stderr, '', '... without a word');
session();
$s->run("$prepare BEGIN; $nothing COMMIT");
$s->start('SELECT bal FROM acct2');
behind(qr/START TRANSACTION/, 'the next one sends something');
$proxy->clear;
is($s->finish, '101', '... and sees what the transaction did');
is($s->stderr, '', '... without a word');

# ----------------------------------------------------------------
# What would lead past the transaction waits for it
# ----------------------------------------------------------------

$dtx->sql(q{
CREATE SERVER s2b FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '} . $proxy->host . q{', port '} . $dtx->p(2)->port . q{', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s2b;
CREATE FOREIGN TABLE acct2b (id int, bal int) SERVER s2b OPTIONS (table_name 'acct')});
for my $case (
	[ 'closed by its session', sub { $s->run('SELECT count(postgres_fdw_disconnect_all())') } ],
	[ 'closed by ALTER SERVER', sub { $dtx->sql(q{ALTER SERVER s2 OPTIONS (ADD fetch_size '101')}); $dtx->sql(q{ALTER SERVER s2 OPTIONS (DROP fetch_size)}) } ],
	[ 'closed because a command was canceled', sub {
		$s->start('BEGIN; SAVEPOINT a; SELECT bal FROM acct2');
		waits('it waits');
		$dtx->sql($cancel . $s->pid);
		$s->finish;
		$s->run('ROLLBACK');
	} ],
	[ 'of another foreign server', sub { }, 'acct2b' ])
{
	my ($name, $code, $table) = @$case;
	session();
	$code->();
	$s->start('SELECT bal FROM ' . ($table // 'acct2'));
	waits("connection $name: it waits");
	ok(!$proxy->happened('behind'), '... and is not sent');
	$proxy->clear;
	is($s->finish, '101', '... and sees what the transaction did');
	is($s->stderr, '', '... without a word');
}

# ... also while that connection has been asked to begin, and has sent nothing yet.
session();
$s->start("$prepare BEGIN; $nothing SELECT bal FROM acct2b; COMMIT");
waits('another foreign server while the connection owes: it waits');
ok(!$proxy->happened('behind'), '... and is not sent');
$proxy->clear;
is($s->finish, '101', '... and sees what the transaction did');
is($s->stderr, '', '... without a word');

# One connection is lost, and another one to the same cluster owes: the resolver
# can't help before the session has taken what the other one owes.
$s->close;
$dtx->clean('before');
$dtx->p(2)->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)');
$s = $dtx->session;
$s->run('SET pg_dtx.commit_wait = off; SELECT * FROM acct2, acct2b');
$proxy->rule(cut => q{COMMIT PREPARED '[^']*:2:[0-9a-f]*'}, hold => 'COMMIT PREPARED');
$s->run('BEGIN; UPDATE acct2 SET bal = 200 WHERE id = 1; UPDATE acct2b SET bal = 200 WHERE id = 2; COMMIT');
is($s->stderr, '', 'two connections to one cluster');
$proxy->wait_for($_) for 'cut', 'hold';
my $began = time;
$s->start('SELECT sum(bal) FROM acct2');
waits('one is lost, the other one owes: it waits');
$proxy->clear;
is($s->finish, '400', '... and sees what the transaction did on both');
is($s->stderr, '', '... without a word');
cmp_ok(time - $began, '<', 45, '... not only after pg_dtx.commit_timeout');
$dtx->p(2)->safe_psql('postgres', 'DELETE FROM acct WHERE id = 2');

# A session can't drop what it needs itself.
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$proxy->rule(cut => 'COMMIT PREPARED');
$s->run($dtx->transfer(1, 1, 2));
$proxy->wait_for('cut');
$s->run('DROP EXTENSION pg_dtx');
like($s->stderr, qr/ERROR:  55006: cannot drop the decisions of "pg_dtx"/, 'DROP EXTENSION while something is not confirmed');
$proxy->clear;
$dtx->clean('... it is finished');
$dtx->balances_are('100 99 101', '... everywhere');

# A long command does not go behind the confirmation: libpq could not be interrupted.
session();
$s->start(q{SET plan_cache_mode = force_generic_plan; PREPARE long(bytea) AS UPDATE acct2 SET bal = octet_length($1) WHERE id = 1; EXECUTE long(convert_to(repeat('x', 1000000), 'UTF8'))});
waits('a long command: it waits');
ok(!$proxy->happened('behind'), '... and is not sent');
$dtx->sql($cancel . $s->pid);
$s->finish;
like($s->stderr, qr/ERROR:  57014/, '... and can be canceled');
$proxy->clear;

# The connection is lost while the session is idle: the resolver is waited for.
$s->close;
$dtx->clean('before');
$s = $dtx->session;
$s->run('SET pg_dtx.commit_wait = off; UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$proxy->rule(cut => 'COMMIT PREPARED');
$s->run($dtx->transfer(1, 1, 2));
$proxy->wait_for('cut');
$proxy->clear;
is($s->run('SELECT bal FROM acct2'), '101', 'connection lost: the session sees what the transaction did');
is($s->stderr, '', '... without a word');

# ... but not for ever.
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$proxy->rule(cut => 'COMMIT PREPARED');
$s->run($dtx->transfer(1, 1, 2));
$proxy->wait_for('cut');
$s->run(q{SET pg_dtx.commit_timeout = '100ms'});
$s->run('SELECT bal FROM acct2');
like($s->stderr, qr/ERROR:  40001: server "s2" has not confirmed an earlier transaction of this session yet/, '... or gets an error, if that takes too long');

# The resolver was faster, rightly.
session();
$proxy->rule(hold => 'never matches, and keeps what is held');
$s->run('BEGIN; UPDATE acct1 SET bal = bal; UPDATE acct0 SET bal = bal; COMMIT');
$dtx->prepared_is(2, 0, 'the resolver has committed it');
$s->start('SELECT bal FROM acct2');
$proxy->clear;
is($s->finish, '101', '... and the session sees what the transaction did');
is($s->stderr, '', '... without a word');

# DEALLOCATE ALL of postgres_fdw is due as well, because a command has failed.
my $failing = 'BEGIN; INSERT INTO acct2 VALUES (7, 7); SAVEPOINT a; INSERT INTO acct2 VALUES (7, 7); ROLLBACK TO a; UPDATE acct1 SET bal = bal; COMMIT;';
for my $hold (0, 1)
{
	$proxy->clear;
	$s->run('UPDATE acct2 SET bal = bal WHERE id = 1;' x 3);
	$proxy->rule(hold => 'COMMIT PREPARED') if $hold;
	$s->run($failing);
	$hold ? $proxy->wait_for('hold') : $dtx->prepared_is(2, 0, 'DEALLOCATE ALL is due');
	$s->start('BEGIN;' . 'UPDATE acct2 SET bal = bal WHERE id = 1;' x 3 . 'COMMIT');
	$proxy->clear;
	$s->finish;
	is($s->stderr, '', '... and the next transaction is none the worse');
	$s->run('UPDATE acct2 SET bal = bal WHERE id = 1; DELETE FROM acct2 WHERE id = 7');
	is($s->stderr, '', '... nor is the one after that');
}

# ----------------------------------------------------------------
# What goes wrong
# ----------------------------------------------------------------

# The reply comes in two pieces.
for my $piece ('COMMIT PREPARED', 'does not exist')
{
	session();
	$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'")
	  if $piece ne 'COMMIT PREPARED';
	$proxy->rule(split => $piece);
	$proxy->wait_for('split');
	$s->start('SELECT bal FROM acct2');
	$proxy->clear;
	is($s->finish, '101', "half a reply, $piece: the session sees what the transaction did");
	is($s->stderr, '', '... without a word');
}

# It was finished by hand.
session();
$s->start('UPDATE acct2 SET bal = bal + 1');
behind(qr/UPDATE/, 'sent before the confirmation is here');
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
$proxy->clear;
$s->finish;
is($s->stderr, '', 'finished by hand: the command goes on');
$dtx->sql('SELECT dtx.resolve_in_doubt()');
$dtx->clean('committed by hand');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), 0, '... rightly');
$dtx->balances_are('100 99 102', '... and the command has seen what was committed');

session();
$s->start('BEGIN; SAVEPOINT a; UPDATE acct2 SET bal = bal + 1');
waits('it waits');
$dtx->p(2)->safe_psql('postgres', "COMMIT PREPARED '" . $dtx->gid(2) . "'");
$proxy->clear;
$s->finish;
is($s->stderr, '', 'finished by hand, and waited for: the command goes on');
is($s->run('SELECT bal FROM acct2'), '102', '... and has seen what was committed');
$s->run('ROLLBACK');
is($s->stderr, '', '... without a word');

# The server refuses to confirm: the first command can't have seen what was committed,
# so it is sent again when the resolver has done its work.
for my $command ('SELECT bal FROM acct2', 'BEGIN; SAVEPOINT a; SELECT bal FROM acct2; COMMIT')
{
	session();
	$s->start($command);
	$command =~ /SAVEPOINT/ ? waits('it waits') : behind(qr/DECLARE/, 'sent before the confirmation is here');
	$dtx->p(2)->safe_psql('postgres', 'ALTER SYSTEM SET default_transaction_read_only = on');
	$dtx->p(2)->reload;
	$dtx->p(2)->poll_query_until('postgres', q{SELECT current_setting('default_transaction_read_only') = 'on'});
	$proxy->clear;
	is($s->finish, '101', 'the server refuses to confirm: the command sees what was committed');
	is($s->stderr, '', '... without a word');
	$dtx->p(2)->safe_psql('postgres', 'SET default_transaction_read_only = off; ALTER SYSTEM RESET default_transaction_read_only');
	$dtx->p(2)->reload;
	$dtx->p(2)->poll_query_until('postgres', q{SELECT current_setting('default_transaction_read_only') = 'off'});
	$dtx->clean('refused');
}

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
is($s->run('SELECT bal FROM acct2'), '102', 'restarted before COMMIT PREPARED: the session waits for the resolver');
is($s->stderr, '', '... without a word');
$dtx->clean('restarted before COMMIT PREPARED');

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
		$s->run("$prepare BEGIN; $nothing");
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
	like($s->stderr, $what eq 'lost' ? qr/^$/ : $what eq 'canceled' ? qr/ERROR:  57014/ : qr/FATAL:  57P01/,
		$what eq 'lost' ? 'lost: the command is sent again' : "$what: an error")
	  if $what ne 'killed before';
	# (until the other server's reply is taken, the session is responsible)
	$s->run('SELECT bal FROM acct1') if $what eq 'lost';
	if ($what eq 'canceled')
	{
		is($s->run('SELECT bal FROM acct2'), '101', '... and the next command sees what the transaction did');
	}
	$dtx->sql('SELECT dtx.resolve_in_doubt()');
	$dtx->clean($what);
	$dtx->balances_are($what eq 'lost' ? '100 99 102' : '100 99 101', '... and the transaction is committed everywhere');
}
$s->close;

# Decisions that nobody needs any more go with a full pass.  The next one would
# begin in an hour, but dtx.resolve_in_doubt() asks for one, ...
$dtx->sql('SELECT dtx.resolve_in_doubt()');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0', 'dtx.resolve_in_doubt(): no decisions are left');

# ... and so does DROP EXTENSION when it is refused.
my $drop = 'BEGIN; DROP EXTENSION pg_dtx; ROLLBACK';
$s = $dtx->session;
$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
$proxy->rule(cut => 'COMMIT PREPARED');
$s->run($dtx->transfer(1, 1, 2));
like($s->stderr, qr/WARNING/, 'a confirmation is lost');
$proxy->clear;
$dtx->clean('... it is finished');
$s->close;
my $ret = 1;
my $odd = '';
my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
while ($ret != 0 && time < $deadline)
{
	($ret, undef, my $error) = $dtx->coord->psql('postgres', $drop, on_error_stop => 1);
	$odd = $error if $ret != 0 && $error !~ /HINT:  The resolver has been told to look at them/;
}
is($ret, 0, 'DROP EXTENSION is refused no longer than a pass takes');
is($odd, '', '... and says so');

# When all is confirmed, a session can drop the extension, though it has not waited.
$s = $dtx->session;
$s->run('SET pg_dtx.commit_wait = off; BEGIN; UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100; COMMIT; BEGIN; DROP EXTENSION pg_dtx; ROLLBACK');
unlike($s->stderr, qr/ERROR|WARNING/, 'DROP EXTENSION when all is confirmed');
$s->close;

# While a session that does not wait has not taken its confirmation, the others are
# told who that is.
session();
my ($status, undef, $hint) = $dtx->coord->psql('postgres', $drop, on_error_stop => 1);
isnt($status, 0, 'DROP EXTENSION while another session owes');
my $pid = $s->pid;
like($hint, qr/HINT:  Wait for the session with process ID $pid\./, '... which is named');
$proxy->clear;
$s->run('SELECT count(*) FROM acct2');
$s->close;
$dtx->clean('it has taken its confirmation');

# Dropped and created again: what is handed over then is not forgotten.  (No pass
# comes in between.)
$deadline = time + $PostgreSQL::Test::Utils::timeout_default;
$ret = 1;
while ($ret != 0 && time < $deadline)
{
	($ret) = $dtx->coord->psql('postgres', 'DROP EXTENSION pg_dtx; CREATE EXTENSION pg_dtx', on_error_stop => 1);
}
is($ret, 0, 'dropped and created again');
$s = $dtx->session;
$s->run('SELECT * FROM acct1, acct2');
$proxy->rule(cut => 'COMMIT PREPARED', hold => 'current_database');
$s->run($dtx->transfer(1, 1, 2));
like($s->stderr, qr/WARNING:.*"s2"/, 'a new extension: a confirmation is lost');
$proxy->wait_for('hold');
is($dtx->sql('SELECT server, decision FROM dtx.in_doubt'), 's2|commit', '... which is in doubt');
$proxy->clear;
$dtx->clean('... until it is finished');
$s->close;

# A server that was dropped while something is in doubt on it, and made again.  In
# between a human may say that it has to be committed: so it is.
my $port = $dtx->p(2)->port;
my $at = $proxy->host;
$dtx->sql('DROP SERVER s2b CASCADE');
$dtx->sql('SELECT dtx.resolve_in_doubt()');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', 0, 'no decisions of before are left');
for my $forced (0, 1)
{
	my $what = $forced ? 'dropped, forced and made again' : 'dropped and made again';
	$s = $dtx->session;
	$s->run('UPDATE acct1 SET bal = 100; UPDATE acct2 SET bal = 100');
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(1, 1, 2));
	$dtx->wait_held($s);
	$dtx->p(2)->stop('immediate');
	$dtx->release;
	$s->finish;
	like($s->stderr, qr/WARNING:.*"s2"/, "$what: in doubt");
	$s->close;
	my $gid = $dtx->sql('SELECT gid FROM dtx.in_doubt');
	my (undef, undef, $error) = $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 'lost', override => true)");
	like($error, qr/HINT:  If the server is lost for good, drop the foreign server "s2"/, '... nobody knows without the server');
	$dtx->sql('DROP SERVER s2 CASCADE');
	if ($forced)
	{
		(undef, undef, $error) = $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 'lost')");
		like($error, qr/NOTICE:.*is forgotten.*DETAIL:  It is not to be found. If a foreign server ever leads to where it is prepared, it is committed there/s, '... forgotten');
		is($dtx->sql('SELECT count(*) FROM dtx.in_doubt'), 0, '... and not in doubt');
	}
	$dtx->p(2)->start;
	$dtx->sql(qq{CREATE SERVER s2 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$at', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s2;
CREATE FOREIGN TABLE acct2 (id int, bal int) SERVER s2 OPTIONS (table_name 'acct')});
	$dtx->sql('SELECT dtx.resolve_in_doubt()');
	$dtx->clean($what);
	$dtx->balances_are('100 99 101', '... committed everywhere');
	$dtx->sql('SELECT dtx.resolve_in_doubt()');
	$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', 0, '... and the decision is forgotten');
}

done_testing();
