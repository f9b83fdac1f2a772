# DROP EXTENSION while a session rolls back, a parallel worker that writes on a
# server, a server that changes its meaning in the middle of a visit.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(
	servers => 2,
	proxy => [2],
	participant_conf => "track_activity_query_size = 100kB\n",
	conf => "max_parallel_workers = 4\n");
my ($ret, $out, $err);

# s1 refuses to prepare; the ROLLBACK PREPARED of s2 is under way.
$dtx->p(1)->safe_psql(
	'postgres', q{
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
	$$ BEGIN PERFORM pg_sleep(0.5); RAISE EXCEPTION 'refused'; END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON acct DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW WHEN (NEW.id = 13) EXECUTE FUNCTION refuse();
});
my $s = $dtx->session;
$dtx->proxy(2)->rule(hold => q{ROLLBACK PREPARED 'dtx});
$s->run('BEGIN; INSERT INTO acct1 VALUES (13, 0); INSERT INTO acct2 VALUES (13, 0)');
$s->start('COMMIT');
$dtx->proxy(2)->wait_for('hold');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP EXTENSION pg_dtx');
isnt($ret, 0, 'DROP EXTENSION is refused while a session rolls back');
like($err, qr/cannot drop the decisions of "pg_dtx"/, '... with an error');
$dtx->prepared_is(2, 1, '... s2 is still prepared');
$dtx->proxy(2)->clear;
$s->finish;
like($s->stderr, qr/ERROR:.*refused/, '... the session has its error');
$dtx->clean('rolled back');
$s->close;
$dtx->poll($dtx->coord, q{SELECT count(*) FROM dtx.transactions}, '0', 'nothing is under way');
($ret, $out, $err) = $dtx->coord->psql('postgres', 'DROP EXTENSION pg_dtx');
is($ret, 0, '... and the extension can be dropped') or diag($err);
$dtx->sql('CREATE EXTENSION pg_dtx');

# DROP EXTENSION needs all tables, and others one after the other: nothing that it waits
# for may wait for it.
$s = $dtx->session;
$s->run('BEGIN; SELECT count(*) FROM dtx_internal.saga_step_record');
my $dropper = $dtx->session;
$dropper->start('DROP EXTENSION pg_dtx');
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_locks WHERE NOT granted
	AND relation = 'dtx_internal.saga_step_record'::regclass}, '1', 'DROP EXTENSION waits for a table');
$s->run('SELECT more FROM dtx_internal.saga_take(10)');
is($s->stderr, '', '... and a worker of sagas, which has locked it, goes on with another one');
$s->run('SELECT count(*) FROM dtx.sagas, dtx.in_doubt; COMMIT');
is($s->stderr, '', '... and a reader with views');
$dropper->finish;
unlike($dropper->stderr, qr/ERROR/, '... and then it is dropped');
$_->close for $s, $dropper;
$dtx->sql('CREATE EXTENSION pg_dtx');

# A parallel worker commits on its own, so what it wrote could not be taken back.
# It can write only through a SELECT.
$dtx->p(1)->safe_psql(
	'postgres', q{
CREATE TABLE note (id int);
CREATE FUNCTION put() RETURNS int LANGUAGE sql VOLATILE AS
	'INSERT INTO public.note VALUES (1) RETURNING id';
CREATE VIEW put AS SELECT put() AS id;
});
$dtx->sql(q{
CREATE FOREIGN TABLE put1 (id int) SERVER s1 OPTIONS (table_name 'put');
CREATE FUNCTION writes() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS
	$$ BEGIN RETURN (SELECT count(*) FROM put1); END $$;
CREATE FUNCTION reads() RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS
	$$ BEGIN RETURN (SELECT count(*) FROM acct1 WHERE id = 1); END $$;
});
my $parallel = q{
SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
SET parallel_leader_participation = off; SET max_parallel_workers_per_gather = 2;
};
like($dtx->sql("$parallel EXPLAIN (COSTS OFF) SELECT sum(writes()) FROM probe"),
	qr/Workers Planned/, 'a parallel plan');
($ret, $out, $err) = $dtx->coord->psql('postgres', "$parallel SELECT sum(writes()) FROM probe");
isnt($ret, 0, 'a parallel worker that writes on a server fails');
like($err, qr/ERROR:  cannot write on server "s1" in a parallel worker/, '... with an error');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM note'), '0', '... and nothing is written');
is($dtx->sql("$parallel SELECT sum(reads()) FROM probe"), '1',
	'a parallel worker that only reads does not');

# A visit needs two connections, because the user of the first one may not finish
# what another one has prepared; between them the address of s3 comes to mean
# another machine.  Not seen there it is not gone.
my $dir = PostgreSQL::Test::Utils::tempdir_short();
my $port = $dtx->p(2)->port;
my $link = "$dir/.s.PGSQL.$port";
my $away = $dtx->p(1)->host . '/.s.PGSQL.' . $dtx->p(1)->port;

sub lead_to
{
	my $target = shift;
	symlink $target, "$link.new" or die "$link: $!";
	rename "$link.new", $link or die "$link: $!";
	return;
}
lead_to($dtx->proxy(2)->host . "/.s.PGSQL.$port");
for my $i (1, 2)
{
	$dtx->p($i)->safe_psql('postgres', q{
CREATE ROLE looker LOGIN; CREATE ROLE writer LOGIN;
GRANT EXECUTE ON FUNCTION pg_control_system() TO looker, writer;
GRANT ALL ON acct TO writer;
});
}
$dtx->sql(qq{
CREATE ROLE other SUPERUSER;
DROP SERVER s2 CASCADE;
CREATE SERVER s3 FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS (host '$dir', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s3 OPTIONS (user 'writer');
CREATE FOREIGN TABLE acct3 (id int, bal int) SERVER s3 OPTIONS (table_name 'acct');
});
$s = $dtx->session;
$dtx->arm;
$s->run($dtx->hold);
$s->start('BEGIN; INSERT INTO acct3 VALUES (33, 0); INSERT INTO acct0 VALUES (33, 0); COMMIT;');
$dtx->wait_held($s);
$dtx->prepared_is(2, 1);
my $gid = $dtx->gid(2);
my $xid = (split /:/, $gid)[4];
$dtx->sql('ALTER SYSTEM SET pg_dtx.resolver = off');
$dtx->crash($dtx->coord);
$s->finish;
$dtx->coord->append_conf('postgresql.auto.conf', "synchronous_standby_names = ''");
$dtx->coord->start;

# The mapping of the decision is tried first, so let it be another user's now.
$dtx->sql(q{
ALTER USER MAPPING FOR CURRENT_USER SERVER s3 OPTIONS (SET user 'looker');
CREATE USER MAPPING FOR other SERVER s3 OPTIONS (user 'writer');
SELECT dtx.confirm_server('s3', all_mappings => true);
ALTER SYSTEM RESET pg_dtx.resolver;
});
$dtx->proxy(2)->rule(hold => 'pg_prepared_xacts WHERE gid LIKE');
$dtx->coord->reload;
$dtx->proxy(2)->wait_for('hold');
lead_to($away);
$dtx->proxy(2)->clear;
$dtx->poll($dtx->coord,
	"SELECT last_error LIKE '%another cluster%' FROM dtx.in_doubt WHERE gid = '$gid'",
	't', 'changed in the middle of a visit: it is in doubt');
$dtx->wait_passes(2);
is($dtx->sql("SELECT count(*) FROM dtx_internal.decision WHERE xid = $xid"), '1',
	'... and its decision is kept');
$dtx->prepared_is(2, 1, '... it is still prepared');
lead_to($dtx->proxy(2)->host . "/.s.PGSQL.$port");
$dtx->clean('the server leads back');
is($dtx->p(2)->safe_psql('postgres', 'SELECT count(*) FROM acct WHERE id = 33'), '1',
	'... it is committed');

# A user's own query on a server begins like a PREPARE of ours, is long, and comes
# through a slow network: the resolver does not take that for an attack.
$dtx->p(2)->safe_psql('postgres', 'GRANT pg_read_all_stats TO looker, writer');
my $own = join ':', (split /:/, $gid)[ 1, 2 ];
my $long = $dtx->session(node => $dtx->p(2));
$long->run('BEGIN');
$long->start("PREPARE TRANSACTION 'dtx:$own:none'\\; SELECT pg_sleep(1000), '" . 'x' x 60_000 . "'");
$dtx->poll($dtx->p(2),
	q{SELECT max(octet_length(query)) > 60000 FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'PREPARE%'},
	't', 'a long query runs');
my $offset = -s $dtx->coord->logfile;
$dtx->proxy(2)->rule(pieces => q{.});
$dtx->wait_passes(2);
$dtx->proxy(2)->wait_for('pieces');
$dtx->proxy(2)->clear;
unlike(slurp_file($dtx->coord->logfile, $offset), qr/sends more than it was asked for/,
	'... and the resolver goes on with its server');
$dtx->p(2)->safe_psql('postgres', q{
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'PREPARE%';
});
$long->finish;
$dtx->p(2)->safe_psql('postgres', "ROLLBACK PREPARED 'dtx:$own:none'");
$long->close;

done_testing();
