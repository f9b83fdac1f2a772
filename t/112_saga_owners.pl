# Whose sagas and definitions are whose: roles that are renamed, dropped, and restored
# elsewhere; open transactions of one that are in nobody's way.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 1, conf => "pg_dtx.saga_lock_timeout = 0\nmax_worker_processes = 20\n");
my $coord = $dtx->coord;

sub as
{
	my ($role, $sql) = @_;
	return $dtx->sql("SET ROLE $role; $sql");
}

$dtx->sql(qq{CREATE ROLE $_ LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dtx TO $_}) for qw(alice bob mallory gone);

# A role is dumped by name, in binary form, too.
my $binary = "$PostgreSQL::Test::Utils::tmp_check/112_role";
$dtx->sql(qq{COPY (SELECT 'mallory'::dtx_internal.saga_role) TO '$binary' (FORMAT binary);
ALTER ROLE mallory RENAME TO eve; CREATE ROLE mallory LOGIN;
CREATE TABLE copied (role dtx_internal.saga_role); COPY copied FROM '$binary' (FORMAT binary)});
is($dtx->sql(q{SELECT role::oid = 'mallory'::regrole FROM copied}), 't', 'what is copied belongs to the role of that name');
$dtx->sql('DROP TABLE copied; DROP ROLE mallory; ALTER ROLE eve RENAME TO mallory');

# ----------------------------------------------------------------
# Roles that are renamed, and dropped
# ----------------------------------------------------------------

# Something for all to forget
as('gone', q{SELECT dtx.define_saga('forgotten', dtx.step('a', execute => 'SELECT 1')); SELECT dtx.start_saga('forgotten')});
$dtx->poll($coord, q{SELECT state FROM dtx.sagas WHERE name = 'forgotten'}, 'completed', 'a saga');
as('gone', q{SELECT dtx.drop_saga_definition('forgotten')});
as('alice', q{SELECT dtx.define_saga('note', dtx.step_signal('go'), dtx.step('who', execute => 'SELECT current_user AS me', kind => 'retriable'));
SELECT dtx.grant_saga_definition('note', 'bob')});
my $renamed = as('alice', q{SELECT dtx.start_saga('note')});
my $orphan = as('gone', q{SELECT dtx.define_saga('note', dtx.step_signal('go'), dtx.step('who', execute => 'SELECT current_user AS me', kind => 'retriable'));
SELECT dtx.start_saga('note')});
$orphan =~ s/.*\n//s;
$dtx->poll($coord, q{SELECT count(*) FROM dtx.saga_steps WHERE state = 'waiting'}, 2, 'two sagas wait');
$dtx->sql('ALTER ROLE alice RENAME TO "al-ice"; DROP OWNED BY gone; DROP ROLE gone');
$dtx->sql("SELECT dtx.signal_saga(id, 'go') FROM dtx.sagas WHERE name = 'note'");
is($dtx->sql("SELECT dtx.wait_saga($renamed, '60 s')"), 'completed', 'a saga of a role that was renamed goes on');
is($dtx->sql("SELECT result FROM dtx.saga_steps WHERE saga = $renamed AND step = 'who'"), '{"me": "al-ice"}', '... as that role');
cmp_ok(as('bob', q{SELECT dtx.start_saga('al-ice.note')}), '>', 0, '... whose definitions have moved with it');
is($dtx->sql("SELECT dtx.wait_saga($orphan, '60 s')"), 'failed', 'a saga of a role that was dropped fails');
is($dtx->sql("SELECT concat_ws('|', coalesce(role, '(null)'), coalesce(owner, '(null)'), reason) FROM dtx.sagas WHERE id = $orphan"),
	q{(null)|(null)|step "who" cannot be executed: the role that has started the saga does not exist}, '... and says why');
is($dtx->sql("SELECT result FROM dtx.saga_steps WHERE saga = $orphan AND step = 'who'"), '', '... and nobody else has done its step');
$dtx->sql("SELECT dtx.retry_saga($orphan)");
is($dtx->sql("SELECT dtx.wait_saga($orphan, '60 s')"), 'failed', '... nor does anybody if it is tried again');
is($dtx->sql("SELECT dtx.force_saga($orphan, 'compensated', 'test')"), 'compensated', '... until it is ended');

# ----------------------------------------------------------------
# Dump and restore, where roles have other OIDs
# ----------------------------------------------------------------

# The fourth one is known here only.
$dtx->sql(q{CREATE ROLE here_only LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dtx TO here_only});
for my $role (qw(bob mallory here_only))
{
	as($role, qq{SELECT dtx.define_saga('of $role', dtx.step('a', execute => 'SELECT current_user'));
	SELECT dtx.grant_saga_definition('of $role', 'here_only'), dtx.grant_saga_definition('of $role', '"al-ice"') WHERE false;
	SELECT dtx.grant_saga_definition('of $role', g) FROM unnest('{al-ice,here_only}'::name[]) g});
}
my $dump = $coord->basedir . '/dump.sql';
$coord->command_ok([ 'pg_dump', '-f', $dump, '-d', $coord->connstr('postgres') ], 'pg_dump');
my %oid = map { split /\|/ } split /\n/, $dtx->sql(q{SELECT rolname, oid FROM pg_roles WHERE oid >= 16384});
for my $table (qw(saga_definition_record saga_definition_grant))
{
	my ($copy) = slurp_file($dump) =~ /^COPY dtx_internal\.$table \(.*?\n(.*?)^\\\.$/ms;
	isnt($copy // '', '', "$table is dumped");
	unlike($copy, qr/(?:^|\t)\d{5}(?:\t|$)/m, '... without numbers of roles');
}

my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\nmax_worker_processes = 20\n");
$other->start;
$other->safe_psql('postgres', join '; ', (map { "CREATE ROLE r$_ LOGIN" } 1 .. 30), map { "CREATE ROLE $_ LOGIN" } qw(mallory bob "al-ice"));
$other->psql('postgres', "\\i $dump");
is( $other->safe_psql('postgres', q{
SELECT name, coalesce(owner, '(null)'), granted_to FROM dtx.saga_definitions ORDER BY 1, 2}),
	qq{note|(null)|{}\nnote|al-ice|{bob}\nof bob|bob|{al-ice}\nof here_only|(null)|{al-ice}\nof mallory|mallory|{al-ice}},
	'restored: all belong to the same names, or to nobody')
  or diag $other->safe_psql('postgres', 'SELECT * FROM dtx_internal.saga_definition_record');
$other->safe_psql('postgres', 'GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA dtx TO bob, mallory, "al-ice"' . join '', map { ", r$_" } 1 .. 30);
is($other->safe_psql('postgres', join '; ', map { "SET ROLE r$_; SELECT count(*) FROM dtx.saga_definitions" } 1 .. 30) =~ /[1-9]/ ? 'yes' : 'no',
	'no', 'none of the others has got anything');
my $id = $other->safe_psql('postgres', q{SET ROLE "al-ice"; SELECT dtx.start_saga('bob.of bob')});
is($other->safe_psql('postgres', "SELECT dtx.wait_saga($id, '60 s')"), 'completed', 'who was granted a definition may start it');
is($other->safe_psql('postgres', "SELECT result FROM dtx.saga_steps WHERE saga = $id"), '{"current_user": "al-ice"}', '... as itself');
my (undef, undef, $stderr) = $other->psql('postgres', q{SET ROLE "al-ice"; SELECT dtx.start_saga('here_only.of here_only')});
like($stderr, qr/there is no definition of a saga "here_only.of here_only"/, 'what belongs to nobody can not be started');
$other->stop;

# ----------------------------------------------------------------
# What one leaves open is in nobody's way
# ----------------------------------------------------------------

my $mallory = $dtx->session;
my $bob = $dtx->session;
$_->run("SET statement_timeout = '20s'") for $mallory, $bob;
$mallory->run(q{SET ROLE mallory; BEGIN; SELECT dtx.define_saga('open', dtx.step('a', execute => 'SELECT 1'))});
$mallory->run(q{SELECT dtx.start_saga('of mallory')});
$mallory->run(q{SELECT dtx.grant_saga_definition('open', 'public')});
$mallory->run(q{SELECT count(*) FROM dtx.take_saga_events('m', 10000)});
$mallory->run(q{SELECT dtx.purge_sagas('0')});
for my $sql (
	q{SELECT dtx.define_saga('open', dtx.step('a', execute => 'SELECT 1'))},
	q{SELECT dtx.define_saga('quick', dtx.step('a', execute => 'SELECT 1'))},
	q{SELECT dtx.grant_saga_definition('quick', 'mallory')},
	q{SELECT count(*) FROM dtx.take_saga_events('b', 10000)},
	q{SELECT dtx.purge_sagas('0')},
	q{SELECT dtx.drop_saga_definition('open')})
{
	$bob->run("SET ROLE bob; $sql");
	is($bob->stderr, '', "while another one leaves open a transaction: $sql");
}
$id = as('bob', q{SELECT dtx.start_saga('quick')});
is($dtx->sql("SELECT dtx.wait_saga($id, '60 s')"), 'completed', '... and sagas end');
is(as('bob', q{SELECT event FROM dtx.take_saga_events('b', 1)}), 'completed', '... and their events are there');

# Nor what a user takes in that of a superuser who forgets.
$mallory->run('ROLLBACK');
$id = as('mallory', q{SELECT dtx.start_saga('of mallory')});
$dtx->sql("SELECT dtx.wait_saga($id, '60 s')");
$mallory->run(q{BEGIN; SELECT count(*) FROM dtx.take_saga_events('m', 10000)});
is($dtx->sql(q{SET statement_timeout = '20s'; SELECT dtx.purge_sagas('0') > 0}), 't', '... and are forgotten');
is($dtx->sql('SELECT count(*) FROM dtx_internal.saga_definition_record WHERE dropped'), 0, '... with definitions that were dropped');

# Two consumers of a role get the same.  Two sessions of one consumer do not take at the
# same time, so that the order holds; they do not wait either.
$mallory->run('ROLLBACK');
as('bob', q{SELECT count(*) FROM unnest('{b,c}'::text[]) AS c, LATERAL dtx.take_saga_events(c, 10000)});
as('bob', q{SELECT count(dtx.start_saga('quick')) FROM generate_series(1, 4)});
$dtx->poll($coord, q{SELECT count(*) >= 4 FROM dtx_internal.saga_outbox o JOIN dtx_internal.saga_record g ON g.id = o.saga WHERE o.name = 'quick' AND g.finished_at > now() - interval '1 minute'}, 't', 'four more events');
$mallory->run(q{SET ROLE bob; BEGIN; SELECT count(*) FROM dtx.take_saga_events('b', 3)});
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('b', 3)}), 0, 'what a consumer is taking no other session takes');
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('c', 3)}), 3, 'another consumer does');
$mallory->run('ROLLBACK');
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('b', 3)}), 3, 'and if it is rolled back, they are there again');
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('b', 3)}), 1, '... and then the others');
is($bob->run(q{SELECT string_agg(name || ' ' || waiting, ', ' ORDER BY name) FROM dtx.saga_consumers}), 'b 0, c 1', 'dtx.saga_consumers tells');

# One that is committed late comes late, and is not lost: numbers are no order.
$mallory->run(q{BEGIN; SELECT dtx.emit_saga_event((SELECT max(id) FROM dtx.sagas), 'early', '{"n": 1}')});
$bob->run(q{SELECT dtx.emit_saga_event((SELECT max(id) FROM dtx.sagas), 'late', '{"n": 2}')});
is($bob->run(q{SELECT string_agg(event, ' ') FROM dtx.take_saga_events('b')}), 'late', 'an event that is committed is there');
$mallory->run('COMMIT');
is($bob->run(q{SELECT string_agg(event, ' ') FROM dtx.take_saga_events('b')}), 'early', 'one of a lower number that is committed later comes later');
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('b')}), 0, '... once');

# What a consumer has not had is not forgotten with its saga.
$bob->run(q{SELECT dtx.purge_sagas('0')});
is($bob->run(q{SELECT string_agg(event, ' ') FROM dtx.take_saga_events('c')}), 'completed early late', 'a consumer that was away gets all of them');
$bob->run(q{SELECT dtx.purge_sagas('0')});
is($dtx->sql(q{SELECT count(*) FROM dtx_internal.saga_outbox WHERE role = 'bob'::regrole}), 0, '... and then they are forgotten');
$bob->run(q{SELECT dtx.drop_saga_consumer('b'), dtx.drop_saga_consumer('c')});

# Many of them
$dtx->sql(q{INSERT INTO dtx_internal.saga_outbox (saga, owner, name, role, event, at, payload)
SELECT i, 'bob', 'many', 'bob', 'failed', now(), '{}' FROM generate_series(1, 2100) i});
is($bob->run(q{SELECT (count(*), count(*) FILTER (WHERE id > last)) FROM (SELECT id, lead(id) OVER () AS last FROM dtx.take_saga_events('many', 1000)) x}), '(1000,0)',
	'many events, in their order') for 1 .. 2;
is($bob->run(q{SELECT count(*) FROM dtx.take_saga_events('many', 1000)}), 100, '... all of them');
$bob->run(q{SELECT dtx.drop_saga_consumer('many')});
$dtx->sql(q{DELETE FROM dtx_internal.saga_outbox WHERE name = 'many'});

# Dropping a definition and starting a saga of it
$mallory->run(q{BEGIN; SELECT dtx.start_saga('quick')});
$bob->start(q{SELECT dtx.drop_saga_definition('quick')});
$dtx->poll($coord, 'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $bob->pid, 'Lock', 'dropping waits for who starts');
$dtx->sql('ALTER SYSTEM SET pg_dtx.saga_workers = 0');
$coord->reload;
$dtx->poll($coord, q{SELECT current_setting('pg_dtx.saga_workers')}, '0', 'no workers');
$mallory->run('COMMIT');
$bob->finish;
like($bob->stderr, qr/cannot drop definition "quick"\n.*DETAIL:  Sagas of it that have not ended: 1/, '... and is refused');
$dtx->sql(q{SELECT dtx.force_saga(id, 'completed', 'test') FROM dtx.sagas WHERE name = 'quick' AND finished_at IS NULL});
$bob->run(q{BEGIN; SELECT dtx.drop_saga_definition('quick')});
$mallory->start(q{SELECT dtx.start_saga('quick')});
$dtx->poll($coord, 'SELECT wait_event_type FROM pg_stat_activity WHERE pid = ' . $mallory->pid, 'Lock', 'starting waits for who drops');
$bob->run('COMMIT');
$mallory->finish;
like($mallory->stderr, qr/there is no definition of a saga "quick"/, '... and is refused');
$_->close for $mallory, $bob;

done_testing();
