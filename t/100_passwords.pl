# To whom the resolver brings passwords: only to whom their owner has brought them
# in a transaction that was prepared there.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use HostileServer;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my ($coord, $p1) = ($dtx->coord, $dtx->p(1));
my $trap = HostileServer->new($p1->port + 1);
$trap->mode('password');

sub as
{
	my ($user, $sql) = @_;
	return $coord->safe_psql('postgres', $sql, extra_params => [ '-U', $user ]);
}

# Looking for prepared transactions.
sub look
{
	$dtx->wait_passes(2);
	$dtx->sql('SELECT * FROM dtx.resolve_in_doubt()');
	my ($unknown) = $dtx->orphan_gids(1);
	$coord->psql('postgres', "SELECT dtx.force_in_doubt('$unknown', 'rollback', 'test')");
	return;
}

sub move
{
	my ($host, $port) = @_;
	as('mallory', "ALTER SERVER trap OPTIONS (SET host '$host', SET port '$port')");
	return;
}

sub orphan
{
	my $user = shift;
	my ($gid) = $dtx->orphan_gids(1);
	local $ENV{PGPASSWORD} = "$user-secret";
	$p1->safe_psql('postgres', "BEGIN; PREPARE TRANSACTION '$gid'", extra_params => [ '-U', $user ]);
	return $gid;
}

# The resolver has put dtx_internal.route in order, once more.
sub swept
{
	$dtx->sql(q{
CREATE SERVER witness FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '/nowhere');
CREATE USER MAPPING FOR CURRENT_USER SERVER witness;
SELECT dtx.confirm_server('witness', all_mappings => true);
DROP SERVER witness CASCADE});
	$dtx->poll($coord, q{SELECT count(*) FROM dtx_internal.route WHERE server = 'witness'}, '0', 'dtx_internal.route was put in order');
	return;
}

# s1 wants passwords of two users.
$p1->safe_psql('postgres', q{
SET password_encryption = 'scram-sha-256';
CREATE ROLE alice LOGIN PASSWORD 'alice-secret';
CREATE ROLE bob LOGIN PASSWORD 'bob-secret';
CREATE TABLE shared (id int);
GRANT ALL ON shared TO PUBLIC});
my $hba = $p1->data_dir . '/pg_hba.conf';
my $before = slurp_file($hba);
unlink $hba;
append_to_file($hba, "local all alice,bob scram-sha-256\n$before");
$p1->restart;

# ---- nothing is in doubt, nobody has used the server
$dtx->sql(q{
CREATE ROLE mallory LOGIN;
CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO mallory;
GRANT CREATE ON SCHEMA public TO mallory;
CREATE TABLE mine (id int);
GRANT ALL ON mine TO PUBLIC});
as('mallory', sprintf q{
CREATE SERVER trap FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres', connect_timeout '2');
GRANT USAGE ON FOREIGN SERVER trap TO alice, bob;
CREATE FOREIGN TABLE there (id int) SERVER trap OPTIONS (table_name 'shared');
GRANT ALL ON there TO PUBLIC;
}, $trap->host, $trap->port);
as($_, "CREATE USER MAPPING FOR $_ SERVER trap OPTIONS (user '$_', password '$_-secret')") for qw(alice bob);
$dtx->sql(q{CREATE USER MAPPING FOR CURRENT_USER SERVER trap OPTIONS (user 'postgres', password 'root-secret')});
look();
is($trap->heard, '', 'a server on which nothing was prepared is never visited');
is($dtx->sql(q{SELECT reachable IS NULL AND checked_at IS NULL AND last_error IS NULL FROM dtx.servers WHERE server = 'trap'}),
	't', '... which dtx.servers tells');

# ---- one user has prepared something at an honest address
move($p1->host, $p1->port);
as('alice', 'BEGIN; INSERT INTO mine VALUES (1); INSERT INTO there VALUES (1); COMMIT');
is($p1->safe_psql('postgres', 'SELECT count(*) FROM shared'), '1', 'a transaction over an honest server');
orphan('alice');
$dtx->prepared_is(1, 0, '... through whose mapping the resolver works there');
my $gid = orphan('bob');
$dtx->poll($coord, "SELECT last_error LIKE '%no user mapping leads to its owner \"bob\"%' FROM dtx.in_doubt WHERE gid = '$gid'",
	't', 'not through one with which nothing was prepared there');
$p1->safe_psql('postgres', "ROLLBACK PREPARED '$gid'");
$dtx->clean('taken away');

# What does not say where the server is may change.
as('mallory', q{ALTER SERVER trap OPTIONS (ADD application_name 'x', SET connect_timeout '3', ADD keepalives_idle '60')});
orphan('alice');
$dtx->prepared_is(1, 0, 'options that do not matter have changed');

# ---- the owner moves the server to the listener
move($trap->host, $trap->port);
$gid = orphan('alice');
look();
is($trap->heard, '', 'moved to a listener: nobody comes');
$dtx->poll($coord, q{SELECT NOT reachable AND last_error LIKE '%dtx.confirm_server%' FROM dtx.servers WHERE server = 'trap'}, 't',
	'... and it is said why, and what to do');
$dtx->prepared_is(1, 1, '... what is prepared at the old address stays');
move($p1->host, $p1->port);
$dtx->clean('moved back: it is finished');

# The same with a committed transaction that the server has not confirmed.
$dtx->arm;
my $s = $dtx->session(user => 'alice');
$s->run($dtx->hold);
$s->start('BEGIN; INSERT INTO mine VALUES (2); INSERT INTO there VALUES (2); COMMIT');
$dtx->wait_held($s);
$dtx->prepared_is(1, 1);
$p1->stop('immediate');
move($trap->host, $trap->port);
$dtx->release;
$s->finish;
$s->close;
$p1->start;
$dtx->poll($coord, q{SELECT server = 'trap' AND last_error LIKE '%dtx.confirm_server%' FROM dtx.in_doubt}, 't',
	'in doubt, and the server was moved: dtx.in_doubt says what to do');
look();
is($trap->heard, '', '... and nobody comes');
($gid) = $dtx->gid(1);
my ($ret, $out, $err) = $coord->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 'test')");
like($err, qr/ERROR.*dtx\.confirm_server/s, '... nor does dtx.force_in_doubt()');
is($trap->heard, '', '... not even then');

# A superuser says that this is the right address.
($ret, $out, $err) = $coord->psql('postgres', q{SELECT dtx.confirm_server('trap')}, extra_params => [ '-U', 'mallory' ]);
like($err, qr/permission denied/, 'not everybody may confirm an address');
$dtx->sql('GRANT USAGE ON SCHEMA dtx TO mallory; GRANT EXECUTE ON FUNCTION dtx.confirm_server TO mallory');
($ret, $out, $err) = $coord->psql('postgres', q{\set VERBOSITY verbose
SELECT dtx.confirm_server('trap')}, extra_params => [ '-U', 'mallory' ]);
like($err, qr/ERROR:  42501: must be superuser/, '... not even if it was granted');
$dtx->sql('REVOKE EXECUTE ON FUNCTION dtx.confirm_server FROM mallory');
($ret, $out, $err) = $coord->psql('postgres', sprintf q{SELECT dtx.confirm_server('trap', expected_options => ARRAY['host=%s', 'port=%s', 'dbname=postgres'])},
	$p1->host, $p1->port);
like($err, qr/ERROR:  server "trap" does not have the expected options\nDETAIL:  Its options are: host=/,
	'a superuser who means another address learns that it is not');
# (before 16, libpq does not know how: then nobody goes there at all)
sub require_auth
{
	my $to = shift;
	$dtx->sql("ALTER SYSTEM SET pg_dtx.resolver_require_auth = '$to'");
	$coord->reload;
	$dtx->poll($coord, q{SELECT current_setting('pg_dtx.resolver_require_auth')}, $to, "resolver_require_auth is '$to'");
	return;
}
require_auth('scram-sha-256');
is($dtx->sql(sprintf q{SELECT dtx.confirm_server('trap', expected_options => ARRAY['dbname=postgres', 'port=%s', 'host=%s'])}, $trap->port, $trap->host),
	'1', 'a superuser may, for the mappings that were used');
look();
unlike($trap->heard, qr/password/, 'the resolver does not send what the administrator does not want to be sent');
require_auth('');
look();
like($trap->heard, qr/^password alice-secret/m, '... and then it is used');
unlike($trap->heard, qr/bob|root/, '... those of others are not');
move($p1->host, $p1->port);
$dtx->clean('led back');
is($p1->safe_psql('postgres', 'SELECT count(*) FROM shared WHERE id = 2'), '1', '... it is committed');

# ---- on a server of a superuser the address may change
$dtx->sql('ALTER SERVER trap OWNER TO CURRENT_USER');
$dtx->sql(q{ALTER SERVER trap OPTIONS (ADD options '-c work_mem=8MB')});
orphan('alice');
$dtx->prepared_is(1, 0, "a superuser's server: other options are his choice");

# One that looks the same gets nothing of it.
$p1->safe_psql('postgres', 'CREATE ROLE carol LOGIN; GRANT ALL ON shared TO carol');
$dtx->sql(sprintf q{
CREATE SERVER honest FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
CREATE USER MAPPING FOR PUBLIC SERVER honest OPTIONS (user 'carol', password_required 'false');
CREATE FOREIGN TABLE honest_table (id int) SERVER honest OPTIONS (table_name 'shared');
GRANT ALL ON honest_table TO PUBLIC}, $p1->host, $p1->port);
as('mallory', sprintf q{
CREATE SERVER twin FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '%s', port '%s', dbname 'postgres');
CREATE USER MAPPING FOR bob SERVER twin OPTIONS (user 'carol')}, $p1->host, $p1->port);
as('bob', 'BEGIN; INSERT INTO mine VALUES (3); INSERT INTO honest_table VALUES (3); COMMIT');
is($dtx->sql(q{SELECT string_agg(server, ' ') FROM dtx_internal.route WHERE server IN ('honest', 'twin')}), 'honest',
	"a superuser's server is not mistaken for one with the same options");
$dtx->sql('DROP SERVER honest CASCADE; DROP SERVER twin CASCADE');

# A role whose mappings are meant for the resolver.
$dtx->sql(q{
CREATE ROLE keeper;
CREATE USER MAPPING FOR keeper SERVER trap OPTIONS (user 'keeper', password 'k', password_required 'false');
ALTER SYSTEM SET pg_dtx.resolver_role = 'keeper'});
$p1->safe_psql('postgres', 'CREATE ROLE keeper LOGIN SUPERUSER');
$coord->reload;
$dtx->poll($coord, q{SELECT current_setting('pg_dtx.resolver_role')}, 'keeper', 'a role for the resolver');
orphan('bob');
$dtx->prepared_is(1, 0, '... finishes what others have prepared');
$dtx->sql('ALTER SERVER trap OWNER TO mallory');
$gid = orphan('bob');
look();
$dtx->prepared_is(1, 1, '... but not on a server of a role that is no superuser');
is($dtx->sql(q{SELECT dtx.confirm_server('trap', all_mappings => true)}), '4', '... unless a superuser confirms it');
$dtx->clean('confirmed');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.resolver_role');
$coord->reload;

# ---- how a route is recorded: before the first PREPARE, whatever becomes of that
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.route r JOIN pg_foreign_server s ON s.oid = serverid WHERE srvname IN ('s1', 's2')}), '0',
	'nothing was prepared on two servers');
$s = $dtx->session;
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start($dtx->transfer(1, 1, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->prepared_is(1, 1);
$dtx->crash($coord);
$s->finish;
$dtx->proxy(2)->clear;
$coord->start;
$dtx->clean('crash in the very first transaction: both servers are looked at');
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.route r JOIN pg_foreign_server s ON s.oid = serverid WHERE srvname IN ('s1', 's2')}), '2',
	'... they are on record');
$dtx->balances_are('100 100 100', '... and it was rolled back');
$dtx->sql(q{SET statement_timeout = '60s';} . $dtx->transfer(1, 1, 2)) for 1 .. 3;
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.route r JOIN pg_foreign_server s ON s.oid = serverid WHERE srvname IN ('s1', 's2')}), '2',
	'... once');

# Mappings that are gone are forgotten; a server that comes back by its name is not.
my ($host, $port) = ($p1->host, $p1->port);
$dtx->sql(qq{
DROP SERVER s1 CASCADE;
CREATE SERVER s1 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (port '$port', host '$host', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s1});
my ($orphan) = $dtx->orphan_gids(1);
$p1->safe_psql('postgres', "BEGIN; PREPARE TRANSACTION '$orphan'");
$dtx->prepared_is(1, 0, 'a server that was made again under its name is visited');
$dtx->sql('DROP SERVER s1 CASCADE; DROP SERVER trap CASCADE');
$dtx->poll($coord, 'SELECT count(*) FROM dtx_internal.route', '1', 'routes of servers that were dropped are forgotten');

# ---- a user mapping that the transaction itself has made
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.resolve_interval = '100ms'});
$coord->reload;
$s = $dtx->session;
$dtx->proxy(2)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$s->start(q{BEGIN; DROP USER MAPPING FOR CURRENT_USER SERVER s2; CREATE USER MAPPING FOR CURRENT_USER SERVER s2; }
	. 'UPDATE acct0 SET bal = bal - 1; UPDATE acct2 SET bal = bal + 1; COMMIT');
$dtx->proxy(2)->wait_for('hold');
swept();
$dtx->proxy(2)->clear;
$s->finish;
is($s->stderr, '', 'a transaction that makes its user mapping');
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.route r JOIN pg_user_mapping m ON m.oid = r.umid WHERE r.server = 's2'}), '1',
	'... whose route nobody has deleted before it committed');
$s->close;

# ---- addresses that were left are forgotten, also by sessions
my $route = q{SELECT string_agg(endpoint::text, ' ') FROM dtx_internal.route WHERE server = 's2'};
my $commit = 'BEGIN; UPDATE acct0 SET bal = bal - 1; UPDATE acct2 SET bal = bal + 1; COMMIT';
$s = $dtx->session;
$s->run($commit);
swept();
my $first = $dtx->sql($route);
like($first, qr/^-?\d+$/, 'one address');
$dtx->sql(q{ALTER SERVER s2 OPTIONS (ADD options '-c work_mem=8MB')});
swept();
is($dtx->sql($route), $first, 'it stays as long as nothing was prepared at another one');
for my $mb (9 .. 11)
{
	$dtx->sql("ALTER SERVER s2 OPTIONS (SET options '-c work_mem=${mb}MB')");
	$s->run($commit);
}
swept();
$dtx->poll($coord, qq{SELECT count(*) = 1 AND min(endpoint) <> $first FROM dtx_internal.route WHERE server = 's2'}, 't', 'the last one is left');
$dtx->sql('ALTER SERVER s2 OPTIONS (DROP options)');
$s->run($commit);
is($s->stderr, '', 'the first address again');
$dtx->poll($coord, $route, $first, '... is recorded again by a session that has known it');

$s->close;

done_testing();
