# Sagas while something is in doubt, and after a restart; what pg_dump makes of
# definitions; and how external workers are waked up.
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

# ----------------------------------------------------------------
# Sagas go on beside something in doubt, and after a restart
# ----------------------------------------------------------------

db('postgres', 'CREATE DATABASE old');
$dtx->install('old');
$dtx->p(1)->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)');
$dtx->p(2)->safe_psql('postgres', 'INSERT INTO acct VALUES (2, 100)');
$dtx->proxy(2)->rule(hold => 'COMMIT PREPARED');
my $s = $dtx->session(dbname => 'old');
$s->run("SET pg_dtx.commit_timeout = '10ms'; BEGIN; UPDATE acct1 SET bal = 90 WHERE id = 2; "
	  . 'UPDATE acct2 SET bal = 110 WHERE id = 2; COMMIT');
like($s->stderr, qr/WARNING:.*"s2"/, 'in doubt');
$s->close;

db('old', q{
SELECT dtx.define_saga('move',
	dtx.step('take', 's1', 'UPDATE acct SET bal = bal - 1 WHERE id = 1', 'UPDATE acct SET bal = bal + 1 WHERE id = 1'),
	dtx.step('note', NULL, 'UPDATE acct0 SET bal = bal + 1', kind => 'pivot'),
	dtx.step_external('tell', 'news', '{"to": "all"}', kind => 'retriable'))});
my $id = db('old', q{SELECT dtx.start_saga('move', key => 'first')});
$coord->poll_query_until('old', q{SELECT count(*) FROM dtx.saga_steps WHERE queue = 'news'}, '1')
  or die 'nothing offered';
pass('sagas run, whatever else is in doubt');
$dtx->proxy(2)->clear;
ok($coord->poll_query_until('old', 'SELECT count(*) FROM dtx_internal.decision', '0'), 'resolved');
is($dtx->p(2)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 2'), '110', '... as decided');

# They go on after a restart, and the worker that asks finds its work.
$coord->restart;
is(db('old', q{SELECT payload FROM dtx.claim_step('news', 'w', '1 hour')}), '{"to": "all"}', 'still there after a restart');
db('old', 'SELECT dtx.complete_step(token) FROM dtx_internal.saga_external');
is(db('old', "SELECT dtx.wait_saga($id, '60 s')"), 'completed', 'completed');
is(db('old', 'SELECT bal FROM acct0'), '101', '... once');

# ----------------------------------------------------------------
# Those who listen are told what there is to claim
# ----------------------------------------------------------------

my $out = $coord->safe_psql(
	'old', q{
LISTEN "dtx:news";
SELECT dtx.start_saga('move');
DO $$
BEGIN
	FOR i IN 1 .. 6000 LOOP
		-- a worker is not idle before it has notified
		EXIT WHEN EXISTS (SELECT FROM dtx.saga_steps WHERE queue = 'news')
			AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
				AND backend_type = 'pg_dtx saga worker' AND state = 'active');
		PERFORM pg_sleep(0.01);
		COMMIT;
	END LOOP;
END
$$;
SELECT 'said';
});
like($out, qr/^Asynchronous notification "dtx:news" received/m, 'a notification for the queue');

# ----------------------------------------------------------------
# Dump and restore
# ----------------------------------------------------------------

db('old', q{
CREATE ROLE definer;
GRANT EXECUTE ON FUNCTION dtx.define_saga(text, dtx.step_spec[]) TO definer;
SET ROLE definer;
SELECT dtx.define_saga('it''s "strange"', dtx.step('a\\b', NULL, E'SELECT ''\\t'', $1->''x'''), dtx.step_sleep('c', '1 mon 2 days 03:04:05.678'));
SELECT dtx.define_saga('it''s "strange"', dtx.step('a', NULL, 'SELECT 1'));
});
db('postgres', 'CREATE DATABASE copy');
my $dump = $coord->basedir . '/old.sql';
$coord->command_ok([ 'pg_dump', '-f', $dump, '-d', $coord->connstr('old') ], 'pg_dump');
$coord->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $coord->connstr('copy') ], 'restored');
my $definitions = q{
SELECT d.name, d.version, d.owner, to_jsonb(s) FROM dtx.saga_definitions d JOIN dtx.saga_definition_steps s USING (name, version)
ORDER BY 1, 2, s.position};
is(db('copy', $definitions), db('old', $definitions), 'the definitions are there');
is(db('copy', 'SELECT count(*) FROM dtx.sagas'), '0', '... and no saga, which would do all of it again');
is(db('copy', q{SELECT dtx.define_saga('move', dtx.step('a', NULL, 'UPDATE acct0 SET bal = 7'))}), '2', 'the next version');
is(db('copy', q{SELECT id FROM dtx_internal.saga_definition_record ORDER BY id DESC LIMIT 1}), '4', '... has a number of its own');
$id = db('copy', q{SELECT dtx.start_saga('move', key => 'first')});
is(db('copy', "SELECT dtx.wait_saga($id, '60 s')"), 'completed', '... and runs');
is(db('copy', 'SELECT bal FROM acct0'), '7', '... here');
is(db('old', 'SELECT bal FROM acct0'), '102', '... and not there');

done_testing();
