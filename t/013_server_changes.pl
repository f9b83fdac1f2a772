# Servers that change their meaning, and an extension that comes and goes,
# while transactions run or are in doubt.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(servers => 2, participant_conf => "post_auth_delay = 0\n");

# In doubt: committed here, prepared on both servers, the coordinator crashed.
# It comes back with its resolver switched off.
sub make_doubt
{
	my $s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
	$dtx->crash($dtx->coord);
	$s->finish;
	$dtx->coord->append_conf('postgresql.auto.conf',
		"synchronous_standby_names = ''");
	$dtx->coord->start;
	return;
}

sub resolver
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver = $to");
	$dtx->coord->reload;
	$dtx->coord->poll_query_until('postgres',
		"SELECT current_setting('pg_dtx.resolver') = '$to'");
	return;
}

# The resolver is off: the view still says what is left.
make_doubt();
is($dtx->sql('SELECT server, decision FROM dtx.in_doubt ORDER BY 1'),
	"s1|commit\ns2|commit", 'resolver off: the view shows what is in doubt');

# DROP EXTENSION would drop the decision.
my ($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP EXTENSION pg_dtx');
isnt($ret, 0, 'DROP EXTENSION is refused while a decision is needed');
like($err, qr/cannot drop the decisions of "pg_dtx"/, '... with an error');
like($err, qr/dtx\.in_doubt/, '... that names the view');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP SCHEMA dtx CASCADE');
isnt($ret, 0, '... also by way of its schema');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP EXTENSION postgres_fdw CASCADE');
isnt($ret, 0, '... or of the extension that it needs');
like($err, qr/cannot drop the decisions of "pg_dtx"/, '... with the same error');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', 'the decision is still there');

# s2 is made to lead to the cluster of s1, where its gid is not prepared.  That
# confirms nothing.
my $old_host = $dtx->p(2)->host;
my $old_port = $dtx->p(2)->port;
my $new_host = $dtx->p(1)->host;
my $new_port = $dtx->p(1)->port;
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$new_host', SET port '$new_port')");
resolver('on');
$dtx->prepared_is(1, 0, 's1 is committed');
$dtx->poll($dtx->coord,
	q{SELECT count(*) FROM dtx.in_doubt WHERE server = 's2' AND last_error LIKE '%another cluster%'},
	'1', 'a server that leads elsewhere is in the view');
$dtx->wait_passes(3);
$dtx->prepared_is(2, 1, 'what the real server has prepared is still there');
is($dtx->sql('SELECT count(*) FROM dtx_internal.decision'), '1', 'and the decision, too');
$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$old_host', SET port '$old_port')");
$dtx->clean('the server leads back');
$dtx->balances_are('100 90 110', 'committed everywhere');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0',
	'the decision is forgotten in the end');
$dtx->sql($dtx->transfer(10, 2, 0, 1));

# The same, changed by the writing transaction itself.
{
	my $s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start("BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct2 SET bal = bal + 10;
ALTER SERVER s2 OPTIONS (SET host '$new_host', SET port '$new_port'); COMMIT;");
	$dtx->wait_held($s);
	$dtx->prepared_is($_, 1) for 1, 2;
	$dtx->crash($dtx->coord);
	$s->finish;
	$dtx->coord->append_conf('postgresql.auto.conf',
		"synchronous_standby_names = ''");
	$dtx->coord->start;
	$dtx->prepared_is(1, 0, 'changed in the transaction: s1 is committed');
	$dtx->wait_passes(3);
	$dtx->prepared_is(2, 1, '... what the old server has prepared is still there');
	$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$old_host', SET port '$old_port')");
	$dtx->clean('changed in the transaction');
	$dtx->balances_are('100 90 110', '... committed everywhere');
	$dtx->sql($dtx->transfer(10, 2, 0, 1));
}

# ALTER SERVER by another session while a connection is being made: postgres_fdw
# hears of it at the next look at a catalog.
for my $what ('ALTER SERVER s1 OPTIONS (ADD fetch_size $$50$$)',
	'ALTER SERVER s1 OPTIONS (DROP fetch_size)')
{
	my $s = $dtx->session;
	$dtx->p(1)->safe_psql('postgres', "ALTER SYSTEM SET post_auth_delay = 2; SELECT pg_reload_conf()");
	my $before = () = $dtx->processes($dtx->p(1));
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	# A new connection there takes two seconds from now on, or soon.
	$s->start($dtx->transfer(1, 1, 0, 2));
	1 until (() = $dtx->processes($dtx->p(1))) > $before || $s->finished || time > $deadline;
	$dtx->sql($what);
	$s->finish;
	is($s->stderr, '', 'ALTER SERVER while connecting');
	$dtx->p(1)->safe_psql('postgres', "ALTER SYSTEM RESET post_auth_delay; SELECT pg_reload_conf()");
	$s->close;
}
$dtx->clean('ALTER SERVER while connecting');
like($dtx->balances, qr/^100 98 102$/, '... and both transfers are done');
$dtx->sql($dtx->transfer(2, 2, 0, 1));

# The extension appears in the middle of a transaction.
$dtx->poll($dtx->coord, q{SELECT count(*) FROM dtx.in_doubt}, '0', 'nothing in doubt');
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', '0', 'no decision is left');
$dtx->sql('DROP EXTENSION pg_dtx');
my $s = $dtx->session;
$s->run(
	'BEGIN; UPDATE acct1 SET bal = bal - 10; CREATE EXTENSION pg_dtx; UPDATE acct0 SET bal = bal + 10; COMMIT;');
like($s->stderr, qr/ERROR:  55000: cannot commit on several servers in the transaction that creates extension "pg_dtx"\nHINT/,
	'CREATE EXTENSION in a transaction that wrote on a server: if it failed, nobody could clean up');
$s->run('BEGIN; UPDATE acct1 SET bal = bal - 10; CREATE EXTENSION pg_dtx; COMMIT;');
like($s->stderr, qr/ERROR:  55000: cannot commit on several servers/, '... the extension itself is a local write');
$dtx->balances_are('100 100 100', '... nothing is committed');
$dtx->sql('CREATE EXTENSION pg_dtx');
$s->run('BEGIN; UPDATE acct1 SET bal = bal - 10; UPDATE acct0 SET bal = bal + 10; COMMIT;');
is($s->stderr, '', 'the next one can');
$s->run('BEGIN; UPDATE acct1 SET bal = bal + 10; UPDATE acct0 SET bal = bal - 10; COMMIT;');
is($s->stderr, '', '... and the one after that');
$dtx->balances_are('100 100 100', '... with the right balances');

# A service file, an empty option, a default port: the server is identified
# whatever its options look like.
my $service = $dtx->coord->data_dir . '/service.conf';
append_to_file($service, "[here]\nhost=$new_host\nport=$new_port\ndbname=postgres\n");
$dtx->coord->stop;
# for good: the resolver may have to visit that server until the end of the test
$ENV{PGSERVICEFILE} = $service;
$dtx->coord->start;
$dtx->sql(q{
CREATE SERVER serv FOREIGN DATA WRAPPER postgres_fdw OPTIONS (service 'here', sslmode '');
CREATE USER MAPPING FOR CURRENT_USER SERVER serv;
CREATE FOREIGN TABLE acct_serv (id int, bal int) SERVER serv OPTIONS (table_name 'acct');
});
# its decision is on record as long as the session lasts
my $recorded = $dtx->session;
$recorded->run(
	'BEGIN; UPDATE acct_serv SET bal = bal - 5; UPDATE acct2 SET bal = bal + 5; COMMIT;');
$dtx->balances_are('100 95 105', 'a server given by a service file');
is($dtx->sql(q{
SELECT count(*) FROM dtx_internal.decision, pg_foreign_server s WHERE srvname = 'serv' AND s.oid = ANY (serverids)}),
	'1', '... is the one that is recorded');
$recorded->close;
$dtx->sql($dtx->transfer(5, 2, 0, 1));

# keep_connections off: the connection is closed at the end of the transaction,
# and nothing stays behind in the view.
$dtx->sql('ALTER SERVER s1 OPTIONS (ADD keep_connections $$off$$)');
$s = $dtx->session;
$s->run('BEGIN; SELECT count(*) FROM acct1; COMMIT;');
$s->run('BEGIN; SELECT count(*) FROM acct1; ROLLBACK;');
is($dtx->sql('SELECT count(*) FROM dtx.transactions'), '0',
	'keep_connections off: no transaction is shown when it is over');
$s->run('SET pg_dtx.commit_wait = off');
$s->run($dtx->transfer(1, 1, 2)) for 1 .. 5;
$dtx->poll($dtx->p(1), q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND application_name = 'postgres_fdw'},
	'0', 'keep_connections off, commit_wait off: no connection is kept');
$dtx->sql('ALTER SERVER s1 OPTIONS (DROP keep_connections)');
$dtx->sql($dtx->transfer(5, 2, 0, 1));

# postgres_fdw's DEALLOCATE ALL comes when everything is prepared; a server that
# falls silent then must not hold the COMMIT up for ever.
{
	my $s = $dtx->session;
	$dtx->arm;
	$s->run($dtx->hold);
	$s->run(q{SET pg_dtx.commit_timeout = '1s'});
	$s->start(q{
BEGIN;
INSERT INTO acct1 VALUES (2, 0);
SAVEPOINT a;
INSERT INTO acct1 VALUES (2, 0);
ROLLBACK TO a;
INSERT INTO acct2 VALUES (2, 0);
COMMIT;});
	$dtx->wait_held($s);
	ok(1, 'DEALLOCATE ALL does not come between the phases');
	my @remote = $dtx->remote_pids(1);
	$dtx->stop_process(@remote);
	$dtx->release;
	$s->finish;
	like($s->stderr, qr/WARNING:.*"s1"/, '... and a server that is silent then is waited for no longer than allowed');
	$dtx->continue_process(@remote);
	$dtx->clean('DEALLOCATE ALL');
	$s->run('SELECT count(*) FROM acct1');
	unlike($s->stderr, qr/ERROR/, '... and the session goes on');
	is($dtx->p($_)->safe_psql('postgres', 'SELECT count(*) FROM acct'), '2', "s$_ has the row") for 1, 2;
}

# A user prepares a transaction of his own under the gid of another server's
# participant.  That it can be committed confirms nothing.
{
	my $before = $dtx->balances;
	my ($b0, $b1, $b2) = split ' ', $before =~ s/\n\d+//gr;
	make_doubt();
	my $gid = $dtx->gid(2);
	$dtx->p(2)->stop('fast');
	$dtx->p(1)->safe_psql('postgres',
		"BEGIN; CREATE TABLE forged (); PREPARE TRANSACTION '$gid'");
	resolver('on');
	$dtx->prepared_is(1, 0, 'a forged gid on s1 is finished');
	$dtx->wait_passes(2);
	my $xid = (split /:/, $gid)[4];
	is($dtx->sql("SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid"), '1',
		'... but it does not confirm what s2 has prepared');
	is($dtx->sql("SELECT server FROM dtx.in_doubt WHERE gid = '$gid'"),
		's2', '... which is in doubt');
	$dtx->p(2)->start;
	$dtx->clean('forged gid');
	is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'),
		$b2 + 10, '... and committed on s2');
}

# The same in a database to which no server leads.  What can't be finished on
# s1 hides nothing: the entry stays that of s2, and goes when s2 has confirmed.
{
	$dtx->p(1)->safe_psql('postgres', 'CREATE DATABASE elsewhere');
	make_doubt();
	my $gid = $dtx->gid(2);
	$dtx->p(2)->stop('fast');
	$dtx->p(1)->safe_psql('elsewhere', "BEGIN; PREPARE TRANSACTION '$gid'");
	resolver('on');
	$dtx->wait_passes(2);
	is($dtx->sql("SELECT server, decision FROM dtx.in_doubt WHERE gid = '$gid'"),
		's2|commit', "a stranger's gid that can't be finished does not take the place of the one in doubt");

	# s2 itself is made to lead there: it is tried more and more seldom.
	$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$new_host', SET port '$new_port')");
	$dtx->poll($dtx->coord, "SELECT attempts >= 3 AND last_error LIKE '%elsewhere%' FROM dtx.in_doubt WHERE gid = '$gid'",
		't', '... nor hide what is wrong when its server leads there');
	my $log = -s $dtx->coord->logfile;
	$dtx->wait_passes(3);
	unlike(slurp_file($dtx->coord->logfile, $log), qr/could not commit prepared/, '... and the log is told once');
	$dtx->sql("ALTER SERVER s2 OPTIONS (SET host '$old_host', SET port '$old_port')");
	$dtx->p(2)->start;
	$dtx->prepared_is(2, 0, '... which is committed when its server is back');
	ok($dtx->coord->poll_query_until('postgres',
			"SELECT count(*) FROM dtx.in_doubt WHERE gid = '$gid' AND server <> 's2'", '1'),
		'... and then it is said what is left on the other server');
	$dtx->p(1)->safe_psql('elsewhere', "ROLLBACK PREPARED '$gid'");
	$dtx->clean('gid of a stranger');
}

# The extension disappears in the middle of a transaction: not silently.
$s = $dtx->session;
$s->run('BEGIN; INSERT INTO acct1 VALUES (9, 9); INSERT INTO acct2 VALUES (9, 9); DROP EXTENSION pg_dtx; COMMIT;');
like($s->stderr, qr/ERROR:  55000: extension "pg_dtx" was dropped while the transaction ran/,
	'DROP EXTENSION in a transaction that wrote on two servers');
is($dtx->p($_)->safe_psql('postgres', 'SELECT count(*) FROM acct WHERE id = 9'), '0',
	"... nothing is left on s$_") for 1, 2;

sub last_gid
{
	my $server = shift;
	return $dtx->sql(qq{SELECT gid FROM dtx.in_doubt WHERE server = '$server'
ORDER BY split_part(gid, ':', 5)::bigint DESC LIMIT 1});
}

# Entries that nobody confirms: the resolver is off.  With a commit_timeout of 0
# COMMIT leaves to it what has not confirmed at once, although the servers commit
# a moment later.  Some do confirm at once if the machine is busy.
resolver('off');
$s = $dtx->session;
$s->run('SET pg_dtx.commit_timeout = 0');
for my $try (1 .. 100)
{
	$s->run($dtx->transfer(1, 1, 2));
	last if $s->stderr =~ /"s1"/ && $s->stderr =~ /"s2"/;
}
like($s->stderr, qr/(?=.*"s1").*"s2"/, 'COMMIT without waiting');
$dtx->prepared_is($_, 0) for 1, 2;
my $gid = last_gid('s1');
like($gid, qr/^dtx:/, 'nobody knows that it is finished');
($ret, $out, $err) =
  $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 'test')");
like($err, qr/does not exist on server "s1"/, 'it can not be finished by hand');
($ret, $out, $err) = $dtx->coord->psql('postgres',
	"SELECT dtx.force_in_doubt('$gid', 'commit', 'test', override => true)");
is($ret, 0, 'but it can be forgotten');
like($err, qr/NOTICE:.*is forgotten/, '... with a notice');
is($dtx->sql("SELECT count(*) FROM dtx.in_doubt WHERE gid = '$gid'"), '0',
	'... and is gone from the view');
is($dtx->sql("SELECT reason FROM dtx.forced WHERE gid = '$gid'"), 'test', '... and on record');

# A server that can't be asked may have it yet: then nothing is forgotten.
$gid = last_gid('s2');
$dtx->p(2)->stop('fast');
($ret, $out, $err) = $dtx->coord->psql('postgres',
	"SELECT dtx.force_in_doubt('$gid', 'commit', 'test', override => true)");
like($err, qr/could not connect to server "s2"/,
	'a server that is down is an error, whatever is asked for');
is($dtx->sql("SELECT count(*) FROM dtx.in_doubt WHERE gid = '$gid'"), '1',
	'... and nothing is forgotten');
$dtx->p(2)->start;

# DROP DATABASE is refused while something is in doubt, unless it is forced.
$dtx->sql('CREATE DATABASE other');
$dtx->install('other');
my $o = $dtx->session(dbname => 'other');
$dtx->arm;
$o->run($dtx->hold);
$o->start($dtx->transfer(1, 2, 1));
$dtx->wait_held($o);
$dtx->p(1)->stop('immediate');
$dtx->release;
$o->finish;
$o->close;
$dtx->p(1)->start;
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity
WHERE datname = 'other' AND backend_type = 'client backend'}, '0', 'the session has gone');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP DATABASE other');
isnt($ret, 0, 'DROP DATABASE is refused while something is in doubt');
like($err, qr/cannot drop database "other"\n.*DETAIL:  Transactions of pg_dtx are in doubt/, '... with an error');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP DATABASE other WITH (FORCE)');
is($ret, 0, '... and done with FORCE');
# nobody else can finish this now
$gid = $dtx->gid(1);
$dtx->p(1)->safe_psql('postgres', "COMMIT PREPARED '$gid'");
resolver('on');
$dtx->clean('in the end');

done_testing();
