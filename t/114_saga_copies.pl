# A logical replica of a coordinator, as in a blue/green upgrade, executes nothing of its
# sagas until it has adopted them, and then goes on with all of them.  And what is told
# and forgotten by itself: NOTIFY after an event, pg_dtx.saga_retention.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $dtx = DtxTest->new(servers => 1, conf => "wal_level = logical\nsynchronous_standby_names = ''\nmax_worker_processes = 20\n");
my $blue = $dtx->coord;
my $s1 = $dtx->p(1);
$s1->safe_psql('postgres', 'CREATE TABLE log (what text)');

# ----------------------------------------------------------------
# Events: the name that the definition gives, NOTIFY
# ----------------------------------------------------------------

$dtx->sql(q{
SELECT dtx.define_saga('tell', dtx.step('a', 's1', 'INSERT INTO log VALUES ($3->>''step'') RETURNING what', event => 'a is done'), dtx.step('b', execute => 'SELECT 1'))});
my $listener = $dtx->session;
$listener->run('LISTEN dtx_saga_events');
my $id = $dtx->sql(q{SELECT dtx.start_saga('tell', key => 'k')});
is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'completed', 'a saga whose step has an event');
is($dtx->sql(q{SELECT string_agg(concat_ws(' ', step, event, payload->>'key', payload->'result'->>'what'), ', ') FROM dtx.take_saga_events('test')}),
	'a a is done k a, completed k', 'its events, in order');
my $deadline = time + 60;
my $heard = '';
$heard .= $listener->run('SELECT 1') . "\n" until $heard =~ /notification "dtx_saga_events"/ || time > $deadline;
like($heard, qr/notification "dtx_saga_events"/, 'those who listen are told');
is($dtx->sql(q{SELECT count(*) FROM dtx.take_saga_events('test')}), 0, 'each event once');
$listener->close;

# ----------------------------------------------------------------
# What has ended is forgotten by itself
# ----------------------------------------------------------------

$dtx->sql(q{SELECT dtx.drop_saga_consumer('test'); ALTER SYSTEM SET pg_dtx.saga_retention = '1 s'});
$blue->reload;
$deadline = time + 60;
$dtx->sql(q{SELECT dtx.start_saga('tell')}) until $dtx->sql("SELECT count(*) FROM dtx.sagas WHERE id = $id") eq '0' || time > $deadline;
is($dtx->sql("SELECT (SELECT count(*) FROM dtx.sagas WHERE id = $id) + (SELECT count(*) FROM dtx.saga_history WHERE saga = $id)"), 0,
	'a saga that has ended is forgotten after pg_dtx.saga_retention');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.saga_retention');
$blue->reload;
$dtx->poll($blue, q{SELECT count(*) FROM dtx.sagas WHERE state NOT IN ('completed', 'compensated')}, '0', 'the others have ended');
$dtx->sql(q{SELECT dtx.purge_sagas('0')});
$s1->safe_psql('postgres', 'DELETE FROM log');

# ----------------------------------------------------------------
# A logical replica
# ----------------------------------------------------------------

$dtx->sql(q{
SELECT dtx.define_saga('order',
	dtx.step('book', 's1', $$INSERT INTO log VALUES ('book ' || ($1->>'n'))$$, $$INSERT INTO log VALUES ('cancel ' || ($1->>'n'))$$),
	dtx.step_sleep('wait', '1 hour'),
	dtx.step('pay', 's1', $$INSERT INTO log VALUES ('pay ' || ($1->>'n'))$$))});
my ($one, $two) = map { $dtx->sql(qq{SELECT dtx.start_saga('order', '{"n": $_}')}) } 1, 2;
$dtx->poll($blue, q{SELECT count(*) FROM dtx.saga_steps WHERE step = 'wait' AND state = 'waiting'}, '2', 'two sagas are under way');

my $green = PostgreSQL::Test::Cluster->new('green');
$green->init;
$green->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\nmax_worker_processes = 20\npg_dtx.resolve_interval = '500ms'\n");
$green->start;
my ($host, $port) = ($s1->host, $s1->port);
$green->safe_psql('postgres', qq{
CREATE EXTENSION pg_dtx CASCADE;
CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw;
CREATE SERVER s1 FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s1});
my $tables = $dtx->sql(q{SELECT string_agg(c.oid::regclass::text, ', ') FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
	WHERE c.relnamespace = 'dtx_internal'::regnamespace AND c.relkind = 'r' AND c.relname LIKE 'saga%'});
$dtx->sql("CREATE PUBLICATION up FOR TABLE $tables");
my $connstr = $blue->connstr('postgres') =~ s{'}{''}gr;
$green->safe_psql('postgres', "CREATE SUBSCRIPTION up CONNECTION '$connstr' PUBLICATION up");
$green->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate NOT IN ('r', 's')") or die 'no initial copy';
is($green->safe_psql('postgres', "SELECT string_agg(state::text, ' ') FROM dtx.sagas WHERE id IN ($one, $two)"), 'running running', 'they are in the replica, too');
like($green->safe_psql('postgres', "SELECT hint FROM dtx.sagas WHERE id = $one"), qr/adopt_sagas/, '... which says what they are');

# Due, and with a scheduler that looks: nothing of it is executed.
$green->safe_psql('postgres', q{
UPDATE dtx_internal.saga_step_record SET due_at = now() WHERE due_at IS NOT NULL;
SELECT dtx.define_saga('own', dtx.step('a', 's1', $$INSERT INTO log VALUES ('green')$$))}) ;
my (undef, undef, $refused) = $green->psql('postgres', "SELECT dtx.skip_step($one, 'wait', 'why not')");
like($refused, qr/belongs to another database/, 'nobody has it go on there');

# The original is shut down for good.
$dtx->poll($green, "SELECT count(*) FROM dtx.sagas WHERE id IN ($one, $two)", '2', 'the replica has all');
$blue->stop('fast');
$green->safe_psql('postgres', q{ALTER SUBSCRIPTION up DISABLE; ALTER SUBSCRIPTION up SET (slot_name = NONE); DROP SUBSCRIPTION up});
is($s1->safe_psql('postgres', q{SELECT string_agg(what, ', ' ORDER BY what) FROM log}), 'book 1, book 2', 'nothing was done twice');
is($green->safe_psql('postgres', "BEGIN; SELECT dtx.adopt_sagas('blue is gone'); SELECT dtx.cancel_saga($two, 'test'); COMMIT"), "2\ncompensating", 'the replica adopts them');
is($green->safe_psql('postgres', "SELECT dtx.wait_saga($one, '60 s')"), 'completed', '... and goes on');
is($green->safe_psql('postgres', "SELECT dtx.wait_saga($two, '60 s')"), 'compensated', '... or undoes what the original has done');
is($green->safe_psql('postgres', q{SELECT outcome || ' ' || message FROM dtx.saga_history WHERE action = 'adopt' LIMIT 1}), 'running blue is gone', 'which is in the history');
is($s1->safe_psql('postgres', q{SELECT string_agg(what, ', ' ORDER BY what) FROM log}), 'book 1, book 2, cancel 2, pay 1', 'all was done once');

# Numbers go on.
my $three = $green->safe_psql('postgres', q{SELECT dtx.start_saga('own')});
cmp_ok($three, '>', $two, 'new sagas get new numbers');
is($green->safe_psql('postgres', "SELECT dtx.wait_saga($three, '60 s')"), 'completed', 'and are executed');

done_testing();
