# Several databases, their creation and removal, the resolver's life, and the
# ways to load the library.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2, proxy => [2]);
my $coord = $dtx->coord;

sub db
{
	my ($dbname, $sql) = @_;
	return $coord->safe_psql($dbname, $sql);
}

my $resolvers = q{
SELECT string_agg(datname, ',' ORDER BY datname) FROM pg_stat_activity
WHERE backend_type LIKE 'pg_dtx%' AND datname IS NOT NULL};

$dtx->poll($coord, $resolvers, 'postgres', 'one resolver runs');

# A second database: its resolver starts without a restart.
db('postgres', 'CREATE DATABASE other');
$dtx->install('other');
$dtx->poll($coord, $resolvers, 'other,postgres', 'a second one after CREATE EXTENSION');
isnt(
	db('postgres', 'SELECT id FROM dtx_internal.coordinator'),
	db('other', 'SELECT id FROM dtx_internal.coordinator'),
	'every database has a coordinator id of its own');

# Both have something in doubt on the same server, under their own gids.
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
for my $db (qw(postgres other))
{
	my $id = $db eq 'other' ? 2 : 1;
	$dtx->p($_)->safe_psql('postgres',
		"INSERT INTO acct VALUES ($id, 100) ON CONFLICT DO NOTHING")
	  for 1, 2;
	my $s = $dtx->session(dbname => $db);
	$s->run(
		"SET pg_dtx.commit_timeout = '10ms'; BEGIN; UPDATE acct1 SET bal = 90 WHERE id = $id; UPDATE acct2 SET bal = 110 WHERE id = $id; COMMIT"
	);
	like($s->stderr, qr/WARNING:.*"s2"/, "in doubt in $db");
	$s->close;
}
$dtx->prepared_is(2, 2);

# (with such a timeout s1 may be in doubt, too, for a moment)
ok($coord->poll_query_until($_, 'SELECT count(*) FROM dtx.in_doubt', '1'), "$_ shows its own only")
  for qw(postgres other);
$dtx->proxy(2)->clear;
$dtx->clean('two databases');
ok( $coord->poll_query_until('other', 'SELECT count(*) FROM dtx.in_doubt', '0'),
	'... in the second one, too');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct ORDER BY id'),
	"110\n110", 'both committed');

# A database with a resolver as a template: the copy is a coordinator of its
# own that never touches what is the original's.
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
my $s = $dtx->session(dbname => 'other');
$s->run(
	"SET pg_dtx.commit_timeout = '10ms'; BEGIN; UPDATE acct1 SET bal = 80 WHERE id = 2; UPDATE acct2 SET bal = 120 WHERE id = 2; COMMIT"
);
$s->close;
$dtx->prepared_is(2, 1);
ok( $coord->poll_query_until(
		'postgres',
		q{SELECT count(*) FROM pg_stat_activity WHERE datname = 'other' AND backend_type = 'client backend'},
		'0'),
	'nobody but the resolver uses the template');
my ($ret, $out, $err) =
  $coord->psql('postgres', 'CREATE DATABASE copy TEMPLATE other');
is($ret, 0, 'CREATE DATABASE ... TEMPLATE with a running resolver')
  or diag($err);
$dtx->poll($coord, $resolvers, 'copy,other,postgres', 'the copy gets a resolver');
ok( $coord->poll_query_until('copy',
		'SELECT count(*) FROM dtx.in_doubt', '0'),
	'the copy has nothing in doubt');
db('copy', 'SELECT * FROM dtx.resolve_in_doubt()');
$dtx->prepared_is(2, 1, 'a pass in the copy leaves the gid of the original');
$dtx->proxy(2)->clear;
$dtx->prepared_is(2, 0, 'the original finishes it');
$s = $dtx->session(dbname => 'copy');
$s->run('BEGIN; UPDATE acct1 SET bal = 90 WHERE id = 2; UPDATE acct2 SET bal = 110 WHERE id = 2; COMMIT');
is($s->stderr, '', 'the copy commits transactions of its own');
$s->close;

# DROP DATABASE with a running resolver.
($ret, $out, $err) = $coord->psql('postgres', 'DROP DATABASE copy');
is($ret, 0, 'DROP DATABASE with a running resolver') or diag($err);
$dtx->poll($coord, $resolvers, 'other,postgres', 'its resolver is gone');

# ALTER DATABASE ... RENAME with a running resolver.
($ret, $out, $err) =
  $coord->psql('postgres', 'ALTER DATABASE other RENAME TO another');
is($ret, 0, 'ALTER DATABASE ... RENAME with a running resolver') or diag($err);
$dtx->poll($coord, $resolvers, 'another,postgres', 'it has a resolver again');

# ALTER DATABASE ... SET TABLESPACE likewise.
db('postgres', q{CREATE ROLE nobody_there LOGIN; SET allow_in_place_tablespaces = on; CREATE TABLESPACE elsewhere LOCATION ''});
($ret, $out, $err) = $coord->psql('postgres', 'ALTER DATABASE another SET TABLESPACE elsewhere');
is($ret, 0, 'ALTER DATABASE ... SET TABLESPACE with a running resolver') or diag($err);
$dtx->poll($coord, $resolvers, 'another,postgres', 'it has a resolver again');

# Those who may not do that do not make it leave either.
my $there = $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE datname = 'another' AND application_name = 'pg_dtx resolver'});
for my $statement ('DROP DATABASE another', 'CREATE DATABASE copy TEMPLATE another')
{
	($ret, $out, $err) = $coord->psql('postgres', "SET ROLE nobody_there; $statement");
	like($err, qr/must be owner|permission denied/, "$statement: refused");
}
is($dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE datname = 'another' AND application_name = 'pg_dtx resolver'}), $there,
	'... and the resolver has not been asked to leave');

# DROP EXTENSION ends the resolver, and plain postgres_fdw remains.
ok($coord->poll_query_until('another', 'SELECT count(*) FROM dtx_internal.decision', '0'), 'no decision is left');
db('another', 'DROP EXTENSION pg_dtx');
$dtx->poll($coord, $resolvers, 'postgres', 'DROP EXTENSION ends the resolver');
my $before = $dtx->sql('SELECT two_phase FROM dtx.stat');
$s = $dtx->session(dbname => 'another');
$s->run('SET pg_dtx.require = off; BEGIN; UPDATE acct1 SET bal = 100 WHERE id = 2; UPDATE acct2 SET bal = 100 WHERE id = 2; COMMIT');
is($s->stderr, '', 'without the extension: postgres_fdw as ever');
is($dtx->sql('SELECT two_phase FROM dtx.stat'),
	$before, '... in one phase');
$s->run('BEGIN; UPDATE acct1 SET bal = 0 WHERE id = 2; UPDATE acct2 SET bal = 0 WHERE id = 2; ROLLBACK');
is($s->stderr, '', '... ROLLBACK, too');
$s->close;
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct ORDER BY id'),
	"110\n100", '... committed what was to be committed');
db('another', 'CREATE EXTENSION pg_dtx');
$dtx->poll($coord, $resolvers, 'another,postgres', 'CREATE EXTENSION brings it back');
db('postgres', 'DROP DATABASE another');
$dtx->poll($coord, $resolvers, 'postgres', 'DROP DATABASE again');

# A resolver that is terminated comes back.
my $pid = db('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%' AND datname = 'postgres'});
db('postgres', "SELECT pg_terminate_backend($pid)");
$dtx->poll(
	$coord,
	qq{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%' AND datname = 'postgres' AND pid <> $pid},
	'1',
	'a terminated resolver is started again');
my $launcher = db('postgres',
	q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%' AND datname IS NULL});
like($launcher, qr/^\d+$/, 'a launcher runs');
db('postgres', "SELECT pg_terminate_backend($launcher)");
$dtx->poll(
	$coord,
	qq{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%' AND datname IS NULL AND pid <> $launcher},
	'1',
	'a terminated launcher is started again');
$dtx->poll($coord, $resolvers, 'postgres', 'one resolver, not two');

# ... and does its work.
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 0, 2));
like($s->stderr, qr/WARNING:.*"s2"/, 'in doubt again');
$dtx->proxy(2)->clear;
$dtx->clean('the restarted resolver works');

# pg_dtx.resolver = off: nothing is finished, nothing is lost.
$coord->append_conf('postgresql.auto.conf', 'pg_dtx.resolver = off');
$coord->reload;
$dtx->poll($coord, 'SHOW pg_dtx.resolver', 'off', 'resolver switched off');
my $offset = -s $dtx->p(2)->logfile;
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
$s->run($dtx->transfer(10, 2, 0, 1));
like($s->stderr, qr/WARNING:.*"s2"/, 'in doubt with the resolver off');
$dtx->proxy(2)->clear;
$dtx->prepared_is(1, 0);
$dtx->prepared_is(2, 1);
my $xid = (split /:/, $dtx->gid(2))[4];
($ret, $out, $err) = $coord->psql('postgres', 'SELECT * FROM dtx.resolve_in_doubt()');
isnt($ret, 0, 'dtx.resolve_in_doubt() refuses while the resolver is off');
like($err, qr/pg_dtx\.resolver/, '... and says why');
$coord->restart;
$s->close;
is($dtx->sql("SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid"),
	'1', 'the decision is kept over a restart');
$s = $dtx->session;
$s->run($dtx->transfer(10, 0, 1));
is($s->stderr, '', 'transactions go on with the resolver off');
$dtx->prepared_is(2, 1, 'still prepared');
unlike(
	slurp_file($dtx->p(2)->logfile, $offset),
	qr/COMMIT PREPARED|ROLLBACK PREPARED/,
	'... and nobody tried to finish it');
$coord->append_conf('postgresql.auto.conf', 'pg_dtx.resolver = on');
$coord->reload;
$dtx->clean('resolver switched on');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'),
	'110', 'committed in the end');
$s->close;

# DROP SERVER, DROP USER MAPPING while something is in doubt there.
$dtx->proxy(2)->rule(cut => 'COMMIT PREPARED');
$s = $dtx->session;
$s->run("SET pg_dtx.commit_timeout = '1s';" . $dtx->transfer(10, 2, 1));
like($s->stderr, qr/WARNING:.*"s2"/, 'in doubt on a server that goes away');
$dtx->prepared_is(2, 1);
$xid = (split /:/, $dtx->gid(2))[4];
$dtx->sql('DROP USER MAPPING FOR CURRENT_USER SERVER s2');
$dtx->wait_passes(2);
$dtx->poll($coord, $resolvers, 'postgres', 'the resolver survives DROP USER MAPPING');
$dtx->sql('CREATE USER MAPPING FOR CURRENT_USER SERVER s2');
$dtx->wait_passes(1);
$s->close;
$dtx->sql('DROP SERVER s2 CASCADE');
$dtx->wait_passes(2);
$dtx->poll($coord, $resolvers, 'postgres', 'the resolver survives DROP SERVER');
is($dtx->sql("SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid"),
	'1', 'the decision is not forgotten');
$dtx->proxy(2)->clear;
my ($host, $port) = ($dtx->proxy(2)->host, $dtx->p(2)->port);
$dtx->sql(qq{
CREATE SERVER s2 FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s2;
CREATE FOREIGN TABLE acct2 (id int, bal int) SERVER s2 OPTIONS (table_name 'acct');
});
$dtx->clean('the server is back');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'),
	'100', 'committed in the end');

# A standby server, a user without rights, ... are elsewhere; here is loading.
# Not preloaded: the extension can't be used, and says how it can.
$coord->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$coord->restart;
($ret, $out, $err) = $coord->psql('postgres', "LOAD 'pg_dtx'");
isnt($ret, 0, 'LOAD is refused');
like($err, qr/HINT:.*shared_preload_libraries/, '... with a hint');
($ret, $out, $err) = $coord->psql('postgres', 'SELECT * FROM dtx.stat');
isnt($ret, 0, 'so are the views');
like($err, qr/HINT:.*shared_preload_libraries/, '... with a hint');
($ret, $out, $err) = $coord->psql('postgres', 'UPDATE acct1 SET bal = bal');
is($ret, 0, 'postgres_fdw works without the library') or diag($err);

# postgres_fdw first: its calls of libpq would be bound already.
$coord->stop;
$coord->append_conf('postgresql.conf',
	"shared_preload_libraries = 'postgres_fdw, pg_dtx'");
my $log_offset = -s $coord->logfile;
is($coord->start(fail_ok => 1), 0, 'the wrong order refuses to start');
my $log = slurp_file($coord->logfile, $log_offset);
like($log, qr/FATAL:.*pg_dtx|FATAL:.*postgres_fdw/, '... with an error');
like($log, qr/HINT:.*shared_preload_libraries/, '... with a hint');
$coord->append_conf('postgresql.conf',
	"shared_preload_libraries = 'pg_dtx, postgres_fdw'");
$coord->start;
$s = $dtx->session;
$s->run($dtx->transfer(10, 1, 2));
is($s->stderr, '', 'the right order works');
$dtx->clean('the right order');
$s->close;

# A launcher that is started again takes up what the one before it had in hand: the
# scheduler of sagas has died, too.
db('postgres', q{SELECT dtx.define_saga('later', dtx.step_sleep('nap', '3 s'), dtx.step('work', NULL, 'SELECT 1'))});
my $saga = db('postgres', q{SELECT dtx.start_saga('later')});
$dtx->poll($coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga scheduler'}, 1, 'a saga waits');
db('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE backend_type IN ('pg_dtx saga worker', 'pg_dtx saga scheduler', 'pg_dtx launcher')});
$dtx->poll($coord, "SELECT state FROM dtx.sagas WHERE id = $saga", 'completed', 'scheduler and launcher terminated: it goes on');

# Databases that have nothing to do keep no others waiting when the server starts,
# however seldom their resolvers look.
for my $name (map { "idle$_" } 1 .. 5)
{
	db('postgres', "CREATE DATABASE $name");
	db($name, 'CREATE EXTENSION pg_dtx CASCADE');
}
db('postgres', q{ALTER SYSTEM SET pg_dtx.resolve_interval = '1h'});
$coord->restart;
$dtx->poll($coord, $resolvers, 'idle1,idle2,idle3,idle4,idle5,postgres', 'every database has its resolver soon');
db('postgres', 'ALTER SYSTEM SET pg_dtx.resolver = off');
$coord->restart;
$dtx->poll($coord, $resolvers, 'idle1,idle2,idle3,idle4,idle5,postgres', '... also if none is to do anything');

done_testing();
