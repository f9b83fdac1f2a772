# Everything over TLS, with SCRAM and channel binding: transactions, folded commands,
# confirmations that come later, the resolver, dtx.exec(), and a server that sends
# without end.
#
# A connection with TLS is not like another one: what has arrived at the socket
# need not be data for libpq, and libpq may have data when nothing arrives.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

plan skip_all => 'openssl is not installed'
  if system('command -v openssl >/dev/null') != 0;

my $dir = PostgreSQL::Test::Utils::tempdir();
system(qw(openssl req -new -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1
	  -addext subjectAltName=IP:127.0.0.1), '-keyout', "$dir/server.key", '-out',
	"$dir/server.crt") == 0
  or die "openssl failed\n";
chmod 0600, "$dir/server.key";

my $dtx = DtxTest->new(
	servers => 2,
	participant_conf => qq{
listen_addresses = '127.0.0.1'
ssl_cert_file = '$dir/server.crt'
ssl_key_file = '$dir/server.key'
max_prepared_transactions = 250
allow_system_table_mods = on
});
if ($dtx->p(1)->safe_psql('postgres', q{SELECT setting FROM pg_settings WHERE name = 'ssl_library'}) eq '')
{
	plan skip_all => 'PostgreSQL was built without TLS';
}
for my $i (1, 2)
{
	my $node = $dtx->p($i);
	$node->safe_psql('postgres', q{
ALTER SYSTEM SET ssl = on;
ALTER SYSTEM SET password_encryption = 'scram-sha-256';
});
	unlink $node->data_dir . '/pg_hba.conf';
	$node->append_conf('pg_hba.conf',
		"local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
	$node->restart;
	$node->safe_psql('postgres', q{
CREATE ROLE teller LOGIN PASSWORD 'secret';
GRANT ALL ON acct TO teller;
GRANT EXECUTE ON FUNCTION pg_control_system() TO teller;
});
	my $port = $node->port;
	$dtx->sql(qq{
ALTER SERVER s$i OPTIONS (SET host '127.0.0.1', ADD sslmode 'verify-full', ADD sslrootcert '$dir/server.crt',
	ADD channel_binding 'require');
ALTER USER MAPPING FOR CURRENT_USER SERVER s$i OPTIONS (ADD user 'teller', ADD password 'secret');
});
}
my ($ret, $out, $err);

# Transactions: one after the other on the same connections, in all ways.
my $s = $dtx->session;
$s->run($dtx->transfer(1, 1, 2));
is($s->stderr, '', 'a transfer');
$dtx->balances_are('100 99 101', '... is on both servers');
is($dtx->p(1)->safe_psql('postgres', q{
SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'postgres_fdw'}),
	't', '... with TLS');
for my $setting ('commit_wait = on', 'commit_wait = off', 'fold_start = off')
{
	my $offset = -s $dtx->p(1)->logfile;
	$s->run("SET pg_dtx.$setting;\n" . $dtx->transfer(1, 1, 2) x 10 . $dtx->transfer(1, 2, 0, 1) x 10 . "RESET ALL;\n");
	is($s->stderr, '', "$setting: ten transfers there, ten back");
	my $log = slurp_file($dtx->p(1)->logfile, $offset);
	is((() = $log =~ /(statement|execute \S+): START TRANSACTION/g) + 0, 20,
		"$setting: in as many transactions");
	is((() = $log =~ /execute \S+: START TRANSACTION/g) + 0, $setting =~ /fold/ ? 0 : 20,
		"$setting: folded or not");
}
$dtx->clean('after transfers');
$dtx->balances_are('100 99 101', '... nothing is lost');

# Which server decides, if any, depends on how far away they are, as the kernel has it.
my $prepared = $dtx->sql('SELECT prepared FROM dtx.stat');
$s->run("SET pg_dtx.commit_point = auto;\n" . $dtx->transfer(1, 1, 2) x 10 . $dtx->transfer(1, 2, 1) x 10 . "RESET ALL;\n");
is($s->stderr, '', 'the nearest server decides');
$prepared = $dtx->sql('SELECT prepared FROM dtx.stat') - $prepared;
ok($prepared >= 20 && $prepared <= 40, "... where it is near enough: $prepared of 40 are prepared");
$dtx->balances_are('100 99 101', '... nothing is lost, either');

# An answer of many records.
is($s->run(q{SELECT length(r) FROM dtx.query('s1', $$SELECT repeat('x', 3000000)$$) AS t(r text)}), '3000000', 'a long row');
is($dtx->sql(q{SELECT bool_and(ok) FROM dtx.check_server('s1')}), 't', 'dtx.check_server()');

# A resolver with a lot to do: what was rolled back, and one that has committed.
my @orphans = $dtx->orphan_gids(201);
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$dtx->coord->reload;
$dtx->arm;
$s->run($dtx->hold);
$s->start($dtx->transfer(9, 1, 0, 2));
$dtx->wait_held($s);
$dtx->crash($dtx->coord);
$s->finish;
$dtx->p(2)->safe_psql('postgres', join '', map {
	"BEGIN; SET LOCAL ROLE teller; SELECT txid_current(); PREPARE TRANSACTION '$_';"
} @orphans[ 1 .. 200 ]);
$dtx->prepared_is(2, 201);
$dtx->coord->append_conf('postgresql.auto.conf',
	"synchronous_standby_names = ''\npg_dtx.resolver = on");
$dtx->coord->start;
$dtx->clean('after a crash');
$dtx->balances_are('100 90 110', '... what was decided is committed');

# A server that sends a row of hundreds of megabytes to a simple question: an intruder
# has replaced a function there.  The other server is served.
$dtx->p(2)->safe_psql('postgres', q{
ALTER FUNCTION pg_catalog.pg_control_system() RENAME TO honest;
CREATE FUNCTION pg_catalog.pg_control_system(OUT system_identifier text) LANGUAGE sql AS
	$$ SELECT repeat('1', 300000000) $$;
});
$dtx->sql(q{SELECT dtx.resolve_in_doubt()});
my $resolver = $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
$dtx->poll($dtx->coord, q{SELECT last_error LIKE '%more than it was asked for%' FROM dtx.servers WHERE server = 's2'},
	't', 'a server that sends too much is found out');
$dtx->p(1)->safe_psql('postgres',
	"BEGIN; SET LOCAL ROLE teller; SELECT txid_current(); PREPARE TRANSACTION '$orphans[0]'");
$dtx->prepared_is(1, 0, '... the other one is served');
is($dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}), $resolver,
	'... by the same resolver');

# (How much of the row is read before that is noticed depends on the machine: once a
# message is announced libpq reads as long as its bytes come fast enough.)
$dtx->p(2)->safe_psql('postgres', q{
DROP FUNCTION pg_catalog.pg_control_system();
ALTER FUNCTION pg_catalog.honest() RENAME TO pg_control_system;
});
$s = $dtx->session;
$s->run($dtx->transfer(1, 1, 2));
is($s->stderr, '', 'honest again: a transfer');
$dtx->clean('in the end');

done_testing();
