# From one SQL version to the next, with data and with a transaction in doubt; and
# what a dump keeps.  (pg_upgrade: dev/test-upgrade.)
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib $FindBin::RealBin;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $coord = $dtx->coord;
my $tmp = $PostgreSQL::Test::Utils::tmp_check;

# A database with version 1.0.
$dtx->sql('CREATE DATABASE old');
$dtx->install('old', without_extension => 1);
$coord->safe_psql('old', q{CREATE EXTENSION pg_dtx VERSION '1.0'});
is($coord->safe_psql('old', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.0', 'version 1.0');

# It works with this library.
$coord->safe_psql('old', $dtx->transfer(10, 1, 0, 2));
$dtx->balances_are('100 90 110', 'version 1.0: a transfer');
$coord->safe_psql('old', q{SELECT count(*) FROM dtx.resolve()});

# Something in doubt: decided, and a server is down.
sub make_doubt
{
	my $s = $dtx->session(dbname => 'old');
	$dtx->arm;
	$s->run($dtx->hold);
	$s->start($dtx->transfer(10, 1, 0, 2));
	$dtx->wait_held($s);
	$dtx->p(2)->stop('immediate');
	$dtx->release;
	$s->finish;
	$s->close;
	$coord->poll_query_until('old', q{SELECT count(*) = 1 FROM dtx.in_doubt WHERE server = 's2' AND decision = 'commit'})
	  or die 'nothing is in doubt';
	return;
}
make_doubt();
$coord->safe_psql('old', q{
INSERT INTO dtx.forced VALUES ('dtx:1', 's1', 'commit', 'commit', false, 'test', 'me', now());
INSERT INTO dtx.damage_record VALUES ('dtx:2', 's1', 'commit', 'rollback', now(), '7', 1, 'test');
});
my $id = $coord->safe_psql('old', 'SELECT id FROM dtx.coordinator');
# not those rows that their sessions will use again
my $decision_rows =
  q{SELECT d.* FROM dtx.decision AS d JOIN dtx.in_doubt AS i ON i.gid LIKE '%:' || lpad(to_hex(d.boot_id), 16, '0') || ':' || d.xid || ':%'};
my $decisions = $coord->safe_psql('old', $decision_rows);
isnt($decisions, '', 'a decision is needed');

# A transaction in progress sees neither the one nor the other half.
my $open = $dtx->session(dbname => 'old');
$open->run('BEGIN; UPDATE acct1 SET bal = bal - 1; UPDATE acct0 SET bal = bal + 1');
$coord->safe_psql('old', q{ALTER EXTENSION pg_dtx UPDATE});
is($coord->safe_psql('old', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.1', 'updated to 1.1');
is($open->run('COMMIT') . $open->stderr, '', 'a transaction that began before commits');
is($coord->safe_psql('old', 'SELECT id FROM dtx.coordinator'), $id, '... with its identity');
is($coord->safe_psql('old', $decision_rows), $decisions, '... its decision');
is($coord->safe_psql('old', 'SELECT count(*) FROM dtx.forced'), '1', '... what was forced');
is($coord->safe_psql('old', 'SELECT count(*) FROM dtx.damage'), '1', '... and damage');
is($coord->safe_psql('old', 'SELECT count(*) FROM dtx.in_doubt'), '1', 'still in doubt');
$dtx->p(2)->start;
ok($coord->poll_query_until('old', 'SELECT count(*) = 0 FROM dtx.in_doubt'), 'finished after the update');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct'), '120', 'it was committed');
$open->close;

# Updated, it is what a new one is.
my $objects = q{
SELECT pg_describe_object(classid, objid, 0) || ' ' ||
	coalesce((SELECT array_agg(a::text ORDER BY a::text)::text FROM unnest(
		CASE classid WHEN 'pg_proc'::regclass THEN (SELECT proacl FROM pg_proc WHERE oid = objid)
			WHEN 'pg_class'::regclass THEN (SELECT relacl FROM pg_class WHERE oid = objid)
			WHEN 'pg_type'::regclass THEN (SELECT typacl FROM pg_type WHERE oid = objid) END) a), '-') || ' ' ||
	coalesce(CASE classid WHEN 'pg_proc'::regclass THEN (SELECT md5(pg_get_functiondef(objid)) FROM pg_proc WHERE oid = objid AND prokind <> 'a')
		WHEN 'pg_class'::regclass THEN (SELECT md5(string_agg(attname || format_type(atttypid, atttypmod) || attnotnull, ' ' ORDER BY attnum))
			FROM pg_attribute WHERE attrelid = objid AND attnum > 0 AND NOT attisdropped) END, '-') || ' ' ||
	coalesce(obj_description(objid, (SELECT relname FROM pg_class WHERE oid = classid)), '-')
FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pg_dtx')
ORDER BY 1};
my $new = $dtx->sql($objects);
is($coord->safe_psql('old', $objects), $new, 'updated, the extension is what a new one is');
is(join("\n", grep { / -$/ && !/^(?:type|sequence|index|schema|constraint) / } split /\n/, $new), '',
	'everything has a comment');

# A dump keeps what humans did, and no identity, no decisions.
$coord->command_ok([ 'pg_dump', '-d', $coord->connstr('old'), '-f', "$tmp/051.sql" ], 'pg_dump');
$dtx->sql('CREATE DATABASE restored');
$coord->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d', $coord->connstr('restored'), '-f', "$tmp/051.sql" ],
	'restore');
is($coord->safe_psql('restored', q{SELECT extversion FROM pg_extension WHERE extname = 'pg_dtx'}), '1.1', 'restored');
isnt($coord->safe_psql('restored', 'SELECT id FROM dtx.coordinator'), $id, '... with an identity of its own');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx.decision'), '0', '... without decisions');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx.forced'), '1', '... with what was forced');
is($coord->safe_psql('restored', 'SELECT count(*) FROM dtx.damage_record'), '0', '... without damage');
is($coord->safe_psql('restored', 'SELECT string_agg(srvname, $$ $$ ORDER BY 1) FROM pg_foreign_server'), 's1 s2', '... with its servers');
$coord->safe_psql('restored', $dtx->transfer(1, 1, 0, 2));
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct'), '121', '... and it works');

done_testing();
