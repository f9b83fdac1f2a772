# A participant whose connection is closed in the middle of the transaction, and that
# error is caught: the transaction does not commit without it.  Every postgres_fdw
# released before May 2026 does that; t/programs/old_postgres_fdw.c does it, too.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
my $dir = PostgreSQL::Test::Utils::tempdir();
chomp(my @include = map { `$pg_config --$_` } qw(includedir-server includedir));
my $cc = $ENV{CC} || 'cc';
my $built = `$cc -shared -fPIC -O1 -D_GNU_SOURCE @{[map { "-I'$_'" } @include]} -o '$dir/postgres_fdw.so' '$FindBin::RealBin/programs/old_postgres_fdw.c' 2>&1`;
is($?, 0, 'the old wrapper is built') or BAIL_OUT($built);
chmod 0755, $dir;

my $dtx = DtxTest->new(servers => 2, conf => "max_prepared_transactions = 5\n");
$dtx->sql(qq{
CREATE SCHEMA old;
CREATE FUNCTION old.postgres_fdw_handler() RETURNS fdw_handler LANGUAGE c AS '$dir/postgres_fdw.so', 'postgres_fdw_handler';
CREATE FUNCTION old.run(server text, command text) RETURNS text LANGUAGE c STRICT AS '$dir/postgres_fdw.so', 'old_run';
CREATE FOREIGN DATA WRAPPER old HANDLER old.postgres_fdw_handler;
CREATE SERVER o1 FOREIGN DATA WRAPPER old OPTIONS (host '} . $dtx->p(1)->host . qq{', port '} . $dtx->p(1)->port . qq{', dbname 'postgres');
CREATE SERVER o2 FOREIGN DATA WRAPPER old OPTIONS (host '} . $dtx->p(2)->host . qq{', port '} . $dtx->p(2)->port . qq{', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER o1;
CREATE USER MAPPING FOR CURRENT_USER SERVER o2;
});
my $s = $dtx->session;
my $take = "SELECT old.run('o1', 'UPDATE acct SET bal = bal - 30')";
my $give = "SELECT old.run('o2', 'UPDATE acct SET bal = bal + 30')";

$s->run("BEGIN; $take; $give; COMMIT");
is($s->stderr, '', 'the old wrapper, and nothing happens');
$dtx->balances_are('100 70 130', '... in two phases');
is($dtx->sql('SELECT two_phase FROM dtx.stat'), 1, '... which are counted');

# The connection is lost inside of a subtransaction: it can't be rolled back there.
# The next use closes the connection, which is an error; so again a subtransaction.
my $lose = "SAVEPOINT a; SELECT old.run('o1', 'SELECT pg_terminate_backend(pg_backend_pid())'); ROLLBACK TO a; "
  . "SELECT old.run('o1', 'SELECT 1'); ROLLBACK TO a;";
my $lost = qr/ERROR:  08006: connection to server "[so]1" was lost\nDETAIL:  postgres_fdw has closed it .*\nHINT:/;
for my $end (
	[ 'and others wrote' => $give ],
	[ '... and the server was used again' => "SELECT old.run('o1', 'SELECT 1'); $give" ],
	[ '... and nobody else' => 'SELECT 1' ],
	[ '... and this node wrote' => 'UPDATE acct0 SET bal = 0' ])
{
	my ($name, $sql) = @$end;
	$s->run("BEGIN; $take; $lose $sql; COMMIT");
	like($s->stderr, $lost, "a participant that wrote is lost, $name: COMMIT fails");
	$dtx->balances_are('100 70 130', '... and nothing is left');
	$dtx->clean($name);
}
my $prepare = "BEGIN; $take; $lose PREPARE TRANSACTION 'x'";
$s->run($prepare);
like($s->stderr, $lost, '... and the local transaction is prepared: likewise');

# Where nothing was sent, nothing is missing.
$s->run('SELECT old.run($$o1$$, $$SELECT 1$$)');
$s->run("BEGIN; $take; $give; COMMIT");
is($s->stderr, '', 'the next transaction of the session commits');
$dtx->balances_are('100 40 160', '... in two phases');

# Who wants no atomicity gets what he would get without pg_dtx.
$s->run("SET pg_dtx.two_phase_commit = off; BEGIN; $take; $lose $give; COMMIT");
unlike($s->stderr, qr/closed it/, 'switched off: as without pg_dtx');
$dtx->balances_are('100 40 190', '... half of it is lost');

# Remote SQL is under way on the connection that is closed, or has been in the same
# call, by a function that looks at what it returns.
$s->run('RESET pg_dtx.two_phase_commit');
$dtx->sql(q{
CREATE FUNCTION use_twice(i int) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 1 .. CASE i WHEN 0 THEN 2 ELSE 0 END LOOP
		BEGIN
			PERFORM old.run('o1', 'SELECT pg_terminate_backend(pg_backend_pid())');
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	RETURN true;
END $$;
CREATE DOMAIN closes AS int CHECK (use_twice(VALUE));
});
my $port = $dtx->p(2)->port;
for my $case (
	[ 'under way', q{dtx.query('o1', 'SELECT 0 FROM generate_series(1, 3)') AS a(i closes)} ],
	[ 'done on one of two servers', qq{dtx.query_all('{o1,o2}',
	'SELECT CASE current_setting(\$\$port\$\$) WHEN \$\$$port\$\$ THEN length(pg_sleep(0.2)::text) ELSE 1 END'
) AS a(server name, i closes)} ])
{
	my ($name, $rows) = @$case;
	my $began = time;
	$s->run("BEGIN; $give; SELECT count(*) FROM $rows; COMMIT");
	like($s->stderr, qr/ERROR:  08006: connection to server "[so]1" was lost/, "remote SQL, $name: an error");
	cmp_ok(time - $began, '<', 4, '... at once');
	$dtx->balances_are('100 40 190', '... and nothing is left');
	is($s->run("SELECT old.run('o1', 'SELECT 2')"), '2', '... and the session goes on');
	is(scalar(grep { $_ } $dtx->remote_pids(1)), 1, '... with one connection');
}
$s->close;
done_testing();
