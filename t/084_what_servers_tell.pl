# What is said of a server before it is relied upon, and why something there cannot be
# finished; a server whose standby is away does not fill with our sessions.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	participant_conf => "wal_level = replica\nmax_wal_senders = 5\nshared_preload_libraries = 'pg_stat_statements'\n");
my ($p1, $p2) = ($dtx->p(1), $dtx->p(2));
my $version = $p1->safe_psql('postgres', 'SHOW server_version_num');

$p1->safe_psql('postgres', 'CREATE DATABASE b; CREATE ROLE app LOGIN; GRANT ALL ON acct TO app; CREATE ROLE app2 LOGIN; GRANT ALL ON acct TO app2');
$dtx->sql(q{ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (user 'app', password_required 'false')});

sub check_is
{
	my ($check, $expected, $name) = @_;
	local $Test::Builder::Level = $Test::Builder::Level + 1;
	is($dtx->sql(qq{SELECT coalesce(ok::text, 'not known') || ': ' || detail FROM dtx.check_server('s1') WHERE "check" = '$check'}),
		$expected, $name);
	return;
}

check_is('reserved connections', 'not known: no connection is reserved for "app"', 'an ordinary role');
$p1->safe_psql('postgres', 'ALTER ROLE app CONNECTION LIMIT 5');
check_is('reserved connections', 'false: "app" may have 5 connections', 'a limited one');
$p1->safe_psql('postgres', 'ALTER ROLE app CONNECTION LIMIT -1 SUPERUSER');
check_is('reserved connections', 'true: "app" may use reserved connections', 'a superuser');
$p1->safe_psql('postgres', 'ALTER ROLE app NOSUPERUSER');

check_is('statement statistics',
	$version >= 170000 ? 'true: pg_stat_statements takes commands on prepared transactions together' :
	'false: pg_stat_statements fills with one entry for each prepared transaction', 'pg_stat_statements');
$p1->safe_psql('postgres', 'ALTER ROLE app SET pg_stat_statements.track_utility = off');
check_is('statement statistics', 'true: pg_stat_statements does not count utility statements there', '... for that role');

check_is('synchronous standbys', 'true: the server has none', 'no standby');
$p1->safe_psql('postgres', "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC");
$p1->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$p1->reload;
$p1->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody') or die;
check_is('synchronous standbys',
	'false: the server has some, and cannot be asked whether they have what it has committed', 'not to be asked');
$p1->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = ''");
$p1->reload;
$p1->poll_query_until('postgres', 'SHOW synchronous_standby_names', '') or die;
$p1->safe_psql('postgres', "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC");

# The role that has prepared is dropped.
$dtx->sql(sprintf q{
ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (SET user 'app2');
CREATE ROLE other;
CREATE USER MAPPING FOR other SERVER s1 OPTIONS (user 'app', password_required 'false');
CREATE SERVER sb FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'b');
CREATE USER MAPPING FOR other SERVER sb OPTIONS (user 'app', password_required 'false');
SELECT dtx.confirm_server('s1', all_mappings => true), dtx.confirm_server('sb', all_mappings => true);
}, $p1->host, $p1->port);
my $s = $dtx->session;
$dtx->arm;
$s->run($dtx->hold);
$s->start($dtx->transfer(10, 1, 0, 2));
$dtx->wait_held($s);
$dtx->prepared_is(1, 1);
$p1->safe_psql('postgres', q{
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app2';
REVOKE ALL ON acct FROM app2;
DROP ROLE app2;
});
$dtx->release;
$s->finish;
$s->close;
my $why = q{SELECT last_error FROM dtx.in_doubt WHERE last_error LIKE 'its owner was dropped%'};
$dtx->poll($dtx->coord, "SELECT count(*) FROM ($why) AS w", '1', 'nobody can finish what a role has prepared that was dropped');
like($dtx->sql($why), qr/its owner was dropped, and no user mapping leads to a superuser; one was refused: .*role "app2" does not exist/,
	'... dtx.in_doubt says so');

# Another server leads to the same cluster, and has nothing to do with that.
is($dtx->sql('SELECT string_agg(DISTINCT server, $$ $$) FROM dtx.resolve_in_doubt() WHERE NOT done'), 's1',
	'... and no other server of the same cluster complains');
$dtx->sql(q{ALTER USER MAPPING FOR other SERVER s1 OPTIONS (SET user '} . $p1->safe_psql('postgres', 'SELECT current_user') . q{')});
$dtx->clean('a superuser can');
$dtx->balances_are('100 90 110', '... committed');

# Many transactions meet a server whose standby is away.
$p2->safe_psql('postgres', "ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
$p2->reload;
$p2->poll_query_until('postgres', 'SHOW synchronous_standby_names', 'nobody') or die;
$dtx->sql("ALTER USER MAPPING FOR CURRENT_USER SERVER s1 OPTIONS (SET user 'app')");
$s = $dtx->session;
$s->run(q{SET pg_dtx.prepare_timeout = '300ms'});
for my $i (1 .. 5)
{
	$s->run($dtx->transfer(10, 1, 2));
	like($s->stderr, qr/ERROR:  (?:57014: canceling COMMIT|55P03|40001)|could not/, "transaction $i is refused");
}
$dtx->poll($p2, q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'}, '0', 'no session stays behind there');
$dtx->clean('although the standby is away');
$dtx->balances_are('100 90 110', '... rolled back');
$s->close;

done_testing();
