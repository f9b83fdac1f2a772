# Whose business a resolver does, and as whom: many users, none of them allowed
# to do everything; mappings that lead nowhere; several servers of one cluster; a
# standby that is away.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use IO::Socket::UNIX;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(
	servers => 1,
	proxy => [1],
	conf => "synchronous_standby_names = ''\nsynchronous_commit = on\n");
my $p1 = $dtx->p(1);
my ($host, $port) = ($p1->host, $p1->port);
my $superuser = $dtx->sql('SELECT current_user');
my @orphans = $dtx->orphan_gids(6);

sub resolver
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver = $to");
	$dtx->coord->reload;
	$dtx->poll($dtx->coord, "SELECT current_setting('pg_dtx.resolver') = '$to'", 't', "resolver $to");

	# the worker itself may learn of it later; the next one knows it
	$dtx->sql(q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'})
	  if $to eq 'off';
	return;
}

# A commit that the server does not confirm, because it dies.  It is back, with what
# it had prepared, and the resolver is off.
sub leave_in_doubt
{
	my ($sql, %params) = @_;
	$dtx->arm;
	my $session = $dtx->session(%params);
	$session->start($sql);
	$dtx->wait_held($session);
	$dtx->prepared_is(1, 1);
	$p1->stop('immediate');
	$dtx->release;
	$session->finish;
	$session->close;
	resolver('off');
	$p1->start;
	return;
}

# A server, with mappings for these local users, each to the role of the same name.
sub server
{
	my ($name, $dbname, @users) = @_;
	my $at = $dtx->proxy(1)->host;
	$dtx->sql(qq{CREATE SERVER $name FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$at', port '$port', dbname '$dbname');}
		  . join '', map { qq{CREATE USER MAPPING FOR $_ SERVER $name OPTIONS (user '$_', password_required 'false');} } @users);
	$dtx->sql("SELECT dtx.confirm_server('$name', all_mappings => true)");
	return;
}

my @users = map { "u$_" } 1 .. 20;
for my $node ($dtx->coord, $p1)
{
	$node->safe_psql('postgres', join '', map { "CREATE ROLE $_ LOGIN;" } @users);
}
$dtx->sql('DROP SERVER s1 CASCADE');
server('many', 'postgres', @users);
$p1->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');

# A gid that nobody can finish comes first.  There are more users than a visit
# tries, and yet the one who can finish the next gid is found.
sub prepared_by
{
	my ($user, $gid) = @_;
	$p1->safe_psql('postgres', "BEGIN; PREPARE TRANSACTION '$gid'", extra_params => [ '-U', $user ]);
	return;
}
resolver('off');
prepared_by('stranger', $orphans[1]);
prepared_by('u20', $orphans[2]);
is($p1->safe_psql('postgres', 'SELECT gid FROM pg_prepared_xacts LIMIT 1'), $orphans[1], 'that of a stranger is listed first');
resolver('on');
$dtx->prepared_is(1, 1, 'what a user can finish is finished, whatever user comes before');
$dtx->poll($dtx->coord, 'SELECT gid, server, remote_user, last_error FROM dtx.in_doubt',
	qq{$orphans[1]|many|stranger|no user mapping leads to its owner "stranger" in database "postgres"}, '... and what nobody can is told');
$p1->safe_psql('postgres', "ROLLBACK PREPARED '$orphans[1]'");
$dtx->clean('finished by hand');

# Five users are in doubt, and are not let in any more.  There is a user who may
# finish everything.
$dtx->sql(join '', map { qq{
GRANT USAGE ON FOREIGN SERVER many TO $_;
GRANT UPDATE ON acct0 TO $_; GRANT SELECT ON acct0 TO $_;} } @users[ 0 .. 4 ]);
$dtx->sql(q{
CREATE FOREIGN TABLE acct1 (id int, bal int) SERVER many OPTIONS (table_name 'acct');
INSERT INTO acct0 SELECT i, 100 FROM generate_series(2, 5) AS i;
GRANT SELECT, UPDATE ON acct1 TO PUBLIC;});
$p1->safe_psql('postgres', q{
INSERT INTO acct SELECT i, 100 FROM generate_series(2, 5) AS i;
GRANT SELECT, UPDATE ON acct TO PUBLIC;});
$dtx->arm;
my @sessions = map { $dtx->session(user => $users[$_]) } 0 .. 4;
for my $i (1 .. 5)
{
	$sessions[ $i - 1 ]->start("BEGIN; UPDATE acct0 SET bal = 90 WHERE id = $i; UPDATE acct1 SET bal = 110 WHERE id = $i; COMMIT");
}
$dtx->wait_held($_) for @sessions;
$dtx->prepared_is(1, 5, 'five users have prepared');
$p1->stop('immediate');
$dtx->release;
for my $session (@sessions)
{
	$session->finish;
	like($session->stderr, qr/WARNING:.*"many"/, 'in doubt');
	$session->close;
}
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx.in_doubt', 5, 'five are in doubt');
resolver('off');
$p1->start;
$p1->safe_psql('postgres', join '', map { "ALTER ROLE $_ NOLOGIN;" } @users[ 0 .. 4 ]);
$dtx->sql("CREATE USER MAPPING FOR $superuser SERVER many; SELECT dtx.confirm_server('many', all_mappings => true)");
resolver('on');
$dtx->clean('five users who are refused do not keep out the one who is let in');
is($p1->safe_psql('postgres', 'SELECT min(bal), max(bal), count(*) FROM acct'), '110|110|5', '... and all is committed');
$p1->safe_psql('postgres', join '', map { "ALTER ROLE $_ LOGIN;" } @users[ 0 .. 4 ]);
$dtx->sql("DROP USER MAPPING FOR $superuser SERVER many");

# A PREPARE that hangs, in a deferred trigger, seen by its user only.  The next
# connection of the same visit, made because of something else, does not see it.
$p1->safe_psql('postgres', q{
UPDATE acct SET bal = 100;
CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_advisory_xact_lock(4711); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER hang AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION hang();
});
$dtx->sql('UPDATE acct0 SET bal = 100');
my $locker = $dtx->session(node => $p1);
$locker->run('SELECT pg_advisory_lock(4711)');
my $s = $dtx->session(user => 'u1');
$s->run("SET pg_dtx.prepare_timeout = '15s'; BEGIN; UPDATE acct0 SET bal = 90 WHERE id = 1; UPDATE acct1 SET bal = 110 WHERE id = 1");
$s->start('COMMIT');
$dtx->poll($p1, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'}, 1, 'a PREPARE runs');
my @remote = $dtx->remote_pids(1);
$dtx->stop_process(@remote);
$s->finish;
like($s->stderr, qr/ERROR:.*"many"/, '... and hangs');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM dtx.in_doubt WHERE last_error LIKE 'its PREPARE TRANSACTION is still running%' AND now() - since > '2 s'},
	1, '... and is in doubt');
prepared_by('u2', $orphans[3]);
$dtx->prepared_is(1, 0, '... while another transaction is finished');
is($dtx->sql('SELECT decision FROM dtx.in_doubt'), 'rollback', '... it is still in doubt');
$dtx->continue_process(@remote);
$locker->close;
$dtx->clean('the PREPARE does not hang any more');
is($dtx->sql('SELECT min(bal) FROM acct0') . ' ' . $p1->safe_psql('postgres', 'SELECT max(bal) FROM acct'), '100 100', '... and nothing is left');
$p1->safe_psql('postgres', 'DROP FUNCTION hang() CASCADE');
$s->close;

# Two databases of one cluster, one of which lets nobody in.  What is in doubt
# there stays the business of the server that leads there.
$p1->safe_psql('postgres', 'CREATE DATABASE b');
$p1->safe_psql('b', 'CREATE TABLE acct AS SELECT 1 AS id, 100 AS bal');
server('s_a', 'postgres', $superuser);
server('s_b', 'b', $superuser);
$dtx->sql(q{CREATE FOREIGN TABLE acct_b (id int, bal int) SERVER s_b OPTIONS (table_name 'acct')});
leave_in_doubt('BEGIN; UPDATE acct0 SET bal = 90 WHERE id = 1; UPDATE acct_b SET bal = 110; COMMIT');
$p1->safe_psql('postgres', 'ALTER DATABASE b ALLOW_CONNECTIONS false');
resolver('on');
for my $time (1 .. 5)
{
	$dtx->wait_passes(1);
	is($dtx->sql('SELECT server, decision FROM dtx.in_doubt'), 's_b|commit', "pass $time: in doubt on its own server");
}
like($dtx->sql('SELECT last_error FROM dtx.in_doubt'), qr/database "b" is not currently accepting connections/, '... which says why');
$p1->safe_psql('postgres', 'ALTER DATABASE b ALLOW_CONNECTIONS true');
$dtx->clean('the other database lets us in');
is($p1->safe_psql('b', 'SELECT bal FROM acct'), '110', '... and it is committed there');

# What nobody has told us about is entered by whichever server lists it first, and
# then becomes the business of the one that leads to its database.
resolver('off');
$dtx->sql(qq{ALTER USER MAPPING FOR $superuser SERVER s_b OPTIONS (SET user 'u5')});
$p1->safe_psql('b', "BEGIN; PREPARE TRANSACTION '$orphans[4]'");
resolver('on');
$dtx->wait_passes(1);
for my $time (1 .. 5)
{
	$dtx->wait_passes(1);
	is($dtx->sql('SELECT server, decision FROM dtx.in_doubt'), 's_b|rollback', "pass $time: a gid that only lists have shown");
}
$dtx->sql(qq{ALTER USER MAPPING FOR $superuser SERVER s_b OPTIONS (SET user '$superuser')});
$dtx->clean('its owner comes');
$dtx->sql('DROP SERVER s_a CASCADE');
$dtx->sql('DROP SERVER s_b CASCADE');

# A server that does not say which database: that depends on the user.
# (The environment of the tests would say it, too.)
my $os_user = getpwuid($<);
{
	delete local $ENV{PGDATABASE};
	$dtx->coord->restart;
}
$p1->safe_psql('postgres', qq{CREATE DATABASE "$os_user"}) if $os_user ne 'postgres';
$p1->safe_psql('postgres', 'CREATE DATABASE u6');
$dtx->sql(qq{
CREATE SERVER nodb FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port');
CREATE USER MAPPING FOR u6 SERVER nodb OPTIONS (user 'u6', password_required 'false');
CREATE USER MAPPING FOR u7 SERVER nodb OPTIONS (password_required 'false');
SELECT dtx.confirm_server('nodb', all_mappings => true)});
$p1->safe_psql($os_user, "BEGIN; PREPARE TRANSACTION '$orphans[5]'");
$dtx->clean('another user leads to another database');
$dtx->sql('DROP SERVER nodb CASCADE');

# A role that is no superuser makes a server, and a mapping for a superuser that
# has no password.  The resolver lends him nobody's identity.
$dtx->sql(q{CREATE ROLE owner LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO owner});
$dtx->sql(qq{SET ROLE owner;
CREATE SERVER evil FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', application_name 'evil');
CREATE USER MAPPING FOR $superuser SERVER evil OPTIONS (user '$superuser')});
my $log = -s $p1->logfile;
$dtx->sql(q{SELECT dtx.confirm_server('evil', all_mappings => true)});
$dtx->poll($dtx->coord, q{SELECT reachable, last_error FROM dtx.servers WHERE server = 'evil'},
	'f|password is required: a user mapping of a server whose owner is not a superuser must contain a password',
	"a superuser's mapping without a password, on a server of another role");
$dtx->wait_passes(2);
unlike(slurp_file($p1->logfile, $log), qr/evil/, '... nobody has connected there');
is($dtx->sql(q{SELECT ok, detail FROM dtx.check_server('evil') WHERE "check" = 'resolver'}),
	'f|password is required: a user mapping of a server whose owner is not a superuser must contain a password',
	'... which dtx.check_server() tells beforehand');
$dtx->sql(qq{ALTER USER MAPPING FOR $superuser SERVER evil OPTIONS (ADD password_required 'false')});
$dtx->poll($dtx->coord, q{SELECT reachable FROM dtx.servers WHERE server = 'evil'}, 't', '... unless a superuser allows it');
$dtx->sql('DROP SERVER evil CASCADE');

# dtx.force_in_doubt() on a server that can't be identified any more: nothing is done.
leave_in_doubt('BEGIN; UPDATE acct0 SET bal = 95 WHERE id = 3; UPDATE acct1 SET bal = 105 WHERE id = 3; COMMIT', user => 'u3');
$p1->safe_psql('postgres', 'REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC');
my $gid = $dtx->gid(1);
my ($ret, undef, $err) = $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 'test')");
isnt($ret, 0, 'dtx.force_in_doubt() where the cluster can not be identified: an error');
like($err, qr/cannot tell about prepared transaction/, '... that says why');
$dtx->prepared_is(1, 1, '... and it has done nothing');
$dtx->sql(q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no room on record'; END $$;
CREATE TRIGGER refuse BEFORE INSERT ON dtx_internal.forced_record EXECUTE FUNCTION refuse()});
($ret, undef, $err) = $dtx->coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'rollback', 'test', override => true)");
like($err, qr/ERROR:  no room on record/, 'what can not be put on record ...');
$dtx->prepared_is(1, 1, '... is not done');
$dtx->sql('DROP FUNCTION refuse() CASCADE');
$p1->safe_psql('postgres', 'GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC');
resolver('on');
$dtx->clean('it can be identified again');

# What the database has for defaults, and a synchronous standby that is away, are
# no hindrance.
$dtx->arm;
$dtx->sql(q{SET synchronous_commit = local; ALTER DATABASE postgres SET default_transaction_read_only = on});
$s = $dtx->session(user => 'u4');
$s->run(q{SET synchronous_commit = local; SET default_transaction_read_only = off; SELECT * FROM acct1});
$dtx->proxy(1)->rule(cut => 'COMMIT PREPARED');
$s->run('BEGIN; UPDATE acct0 SET bal = 94 WHERE id = 4; UPDATE acct1 SET bal = 106 WHERE id = 4; COMMIT');
like($s->stderr, qr/WARNING:.*"many"/, 'in doubt');
$dtx->proxy(1)->clear;
$dtx->clean('a standby is away');
$s->close;
$dtx->poll($dtx->coord, 'SELECT count(*) FROM dtx_internal.decision', 0, '... and the decision is forgotten');
$dtx->release;
$dtx->coord->safe_psql('postgres', q{SET default_transaction_read_only = off; ALTER DATABASE postgres RESET default_transaction_read_only});

# Many servers that do not answer, and a user who does not want to wait.
my $silent = PostgreSQL::Test::Utils::tempdir_short();
my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM(), Local => "$silent/.s.PGSQL.4321", Listen => 2000)
  or die "could not listen: $!";
chmod 0777, "$silent/.s.PGSQL.4321";
$dtx->sql(join '', map { qq{
CREATE SERVER silent$_ FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$silent', port '4321');
CREATE USER MAPPING FOR $superuser SERVER silent$_;
SELECT dtx.confirm_server('silent$_', all_mappings => true);} } 1 .. 120);
my $postmaster = $dtx->sql('SELECT pg_postmaster_start_time()');
for my $time (1 .. 3)
{
	(undef, undef, $err) = $dtx->coord->psql('postgres', "SET statement_timeout = '1s'; SELECT * FROM dtx.resolve_in_doubt()");
	next if $err eq '';    # systems that let few connections wait: refused
	like($err, qr/canceling statement due to statement timeout/, "120 silent servers: canceled, time $time");
}
resolver('off');
resolver('on');
$dtx->sql(join '', map { "DROP SERVER silent$_ CASCADE;" } 1 .. 120);
is($dtx->sql('SELECT pg_postmaster_start_time()'), $postmaster, '... and nothing has crashed');

done_testing();
