# Copies of a coordinator, beside it and instead of it: none of them touches what
# another one has prepared, or rolls back what may have been committed.
use strict;
use warnings FATAL => 'all';

use File::Path qw(rmtree);
use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;

my $dtx = DtxTest->new(servers => 2);
my $original = $dtx->coord;
my $suspended = 'SELECT suspended FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1';
my $identity = 'SELECT id FROM dtx_internal.coordinator';

# Let the resolver of another coordinator make some passes.
sub passes
{
	my $node = shift;
	my $n = $node->safe_psql('postgres', 'SELECT passes FROM dtx.stat') + 3;
	return $node->poll_query_until('postgres', "SELECT passes >= $n FROM dtx.stat");
}

# What a coordinator says of what it leaves alone.
sub reasons
{
	my $node = shift;
	return $node->safe_psql('postgres',
		q{SELECT DISTINCT coalesce(decision, 'null') || ': ' || last_error FROM dtx.in_doubt ORDER BY 1});
}
my $waits = 'null: resolution of earlier transactions is suspended until dtx.adopt_identity() or dtx.change_identity() is called';

# ---- a base backup, started beside the living original
$dtx->sql(q{
SELECT dtx.define_saga('welcome', dtx.step('insert', server => 's1', execute => 'INSERT INTO acct VALUES (50, 1)'));
ALTER SYSTEM SET pg_dtx.saga_workers = 0});
$original->reload;
$dtx->poll($original, 'SHOW pg_dtx.saga_workers', '0', 'no sagas now');
$dtx->sql(q{SELECT dtx.start_saga('welcome')});

# (the resolver of the copy goes where something was prepared before)
$dtx->sql($dtx->transfer(1, @$_)) for [ 1, 2 ], [ 2, 1 ];
$original->backup('base');
$dtx->arm;
my $held = $dtx->session;
$held->run($dtx->hold);
$held->start($dtx->transfer(10, 1, 2));
$dtx->wait_held($held);
$dtx->prepared_is($_, 1) for 1, 2;

my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($original, 'base');
$copy->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$copy->append_conf('postgresql.auto.conf', 'pg_dtx.saga_workers = 2');
$copy->start;
ok(passes($copy), 'base backup: its resolver works');
like($copy->safe_psql('postgres', $suspended), qr/recovered from a backup/, '... and knows what it is');
$dtx->prepared_is($_, 1, "... nothing is touched on s$_") for 1, 2;
is(reasons($copy), $waits, '... and it is said why');
ok($copy->log_contains(qr/resolution of earlier transactions is suspended\n.*recovered from a backup/), '... also in the log');
my ($ret, $out, $err) = $copy->psql('postgres', q{SELECT dtx.adopt_identity(' ')});
like($err, qr/a reason must be given/, 'a reason is needed');

# Its own transactions are not those of the original.
$copy->safe_psql('postgres', 'UPDATE acct0 SET bal = bal - 1; INSERT INTO acct1 VALUES (7, 1)');
$copy->safe_psql('postgres', 'BEGIN; UPDATE acct1 SET bal = 2 WHERE id = 7; UPDATE acct0 SET bal = 98; COMMIT');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 7'), '2', 'new transactions of the copy commit');
($ret, $out, $err) = $copy->psql('postgres', q{SELECT dtx.resolve_in_doubt()});
$dtx->prepared_is($_, 1, "dtx.resolve_in_doubt() there touches nothing on s$_") for 1, 2;
$copy->safe_psql('postgres', q{UPDATE dtx_internal.saga_step_record SET due_at = now(); SELECT dtx_internal.wake_sagas()});
ok(passes($copy), 'it has time for the saga of the original');
is($copy->safe_psql('postgres', 'SELECT state FROM dtx.sagas'), 'pending', '... and leaves it alone');
my $gid = $dtx->gid(1);
($ret, $out, $err) = $copy->psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'rollback', 'test')");
like($err, qr/must not be finished by this server/, 'nor does dtx.force_in_doubt() without override');

# I am the copy.
my $id = $copy->safe_psql('postgres', $identity);
($ret, $out, $err) = $copy->psql('postgres',
	q{BEGIN; INSERT INTO acct1 VALUES (8, 1); UPDATE acct0 SET bal = 0; SELECT dtx.change_identity('for reports'); COMMIT});
like($err, qr/cannot commit on several servers in the transaction that calls dtx.change_identity\(\)/,
	'not in a transaction that writes on servers');
is($copy->safe_psql('postgres', $identity), $id, '... nothing has changed');
$copy->safe_psql('postgres', q{SELECT dtx.change_identity('for reports')});
isnt($copy->safe_psql('postgres', $identity), $id, 'a new identity');
ok($copy->poll_query_until('postgres', 'SELECT count(*) = 0 FROM dtx.in_doubt'), '... has nothing in doubt');
ok(passes($copy), '... and passes are made');
$dtx->prepared_is($_, 1, "... that touch nothing on s$_") for 1, 2;
$copy->safe_psql('postgres', 'BEGIN; UPDATE acct1 SET bal = 3 WHERE id = 7; UPDATE acct0 SET bal = 97; COMMIT');
is($dtx->p(1)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 7'), '3', '... and commits');
is($copy->safe_psql('postgres', q{SELECT ended_as || ': ' || reason FROM dtx_internal.boot}), 'copy: for reports', '... and it is on record');
$copy->safe_psql('postgres', q{SELECT dtx.start_saga('welcome'); UPDATE dtx_internal.saga_step_record SET due_at = now()});
ok($copy->poll_query_until('postgres', q{SELECT count(*) = 1 FROM dtx.sagas WHERE state = 'completed'}), '... and executes sagas of its own');
is($dtx->p(1)->safe_psql('postgres', 'DELETE FROM acct WHERE id = 50 RETURNING bal'), '1', '... but not that of the original');
($ret, $out, $err) = $copy->psql('postgres', q{SELECT dtx.cancel_saga(id, 'test') FROM dtx.sagas WHERE state = 'pending'});
like($err, qr/belongs to another database.*on another server/s, '... and says so');
$copy->stop('immediate');
$copy->start;
$copy->safe_psql('postgres', 'BEGIN; UPDATE acct1 SET bal = 4 WHERE id = 7; UPDATE acct0 SET bal = 96; COMMIT');
is($copy->safe_psql('postgres', $suspended), '', 'after a crash it is not suspended again');
$copy->stop;

$dtx->release;
$held->finish;
is($held->stderr, '', 'the original commits');
$held->close;
$dtx->clean('the original');
$dtx->balances_are("100 90\n4 110", 'on both servers');
$dtx->sql('ALTER SYSTEM RESET pg_dtx.saga_workers');
$original->reload;
$dtx->poll($dtx->p(1), 'SELECT count(*) FROM acct WHERE id = 50', '1', 'the original executes its saga');
$dtx->poll($original, 'SELECT state FROM dtx.sagas', 'completed', '... once');
$dtx->p(1)->safe_psql('postgres', 'DELETE FROM acct WHERE id = 50');

# ---- the data directory of a stopped server, copied and started beside it
$original->stop;
my $twin = PostgreSQL::Test::Cluster->new('twin');
PostgreSQL::Test::RecursiveCopy::copypath($original->data_dir, $twin->data_dir);
chmod 0700, $twin->data_dir;
$twin->append_conf('postgresql.conf', sprintf "port = %d\nunix_socket_directories = '%s'\n", $twin->port, $twin->host);
$original->start;
$twin->start;
ok(passes($original) && passes($twin), 'copied directory: both work');
is($original->safe_psql('postgres', $suspended), '', '... the original as ever');
like($twin->safe_psql('postgres', $suspended), qr/data directory is a copy/, '... the other one knows that it is a copy');
$dtx->arm;
$held = $dtx->session;
$held->run($dtx->hold);
$held->start($dtx->transfer(5, 1, 2));
$dtx->wait_held($held);
ok(passes($twin), 'a transaction of the original is prepared');
$dtx->prepared_is($_, 1, "... and stays so on s$_") for 1, 2;
like(reasons($twin), qr/made by another server with this database/, '... it is told whose it is');
$dtx->release;
$held->finish;
$held->close;
$dtx->clean('the original');
$twin->safe_psql('postgres', q{SELECT dtx.change_identity('test')});
$twin->stop;

# ---- the coordinator is restored to an earlier moment
$original->backup('earlier');
$dtx->arm;
$held = $dtx->session;
$held->run($dtx->hold . q{SET pg_dtx.commit_timeout = '10ms'});
$held->start($dtx->transfer(7, 1, 2));
$dtx->wait_held($held);
$dtx->prepared_is($_, 1) for 1, 2;
$gid = $dtx->gid(2);
$dtx->p(2)->stop('immediate');
$dtx->release;
$held->finish;
like($held->stderr, qr/WARNING.*"s2"/, 'committed, and s2 has not confirmed');
$held->close;
$dtx->prepared_is(1, 0);
$original->stop('immediate');
$dtx->p(2)->start;
$dtx->prepared_is(2, 1);
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init_from_backup($original, 'earlier');
$restored->append_conf('postgresql.conf', q{
synchronous_standby_names = ''
restore_command = 'false'
recovery_target = 'immediate'
recovery_target_action = 'promote'
});
$restored->append_conf('recovery.signal', '');
$restored->start;
$restored->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()');
$dtx->set_coord($restored);
ok(passes($restored), 'restored: it works');
like($restored->safe_psql('postgres', $suspended), qr/recovered from a backup/, '... and knows that it was restored');
$dtx->prepared_is(2, 1, '... the only evidence of a commit is not rolled back');
is(reasons($restored), $waits, '... and it is said why');
$restored->safe_psql('postgres', q{SELECT dtx.adopt_identity('the old one is scrapped')});
($ret, $out, $err) = $restored->psql('postgres', q{SELECT dtx.adopt_identity('again')});
like($err, qr/resolution is not suspended/, 'once is enough');
ok($restored->poll_query_until('postgres', q{SELECT count(*) = 1 FROM dtx.in_doubt WHERE last_error LIKE '%was restored since%'}),
	'adopted: nothing proves how the transaction ended');
ok(passes($restored), '... and passes are made');
$dtx->prepared_is(2, 1, '... and a human has to say');
$restored->safe_psql('postgres', "SELECT dtx.force_in_doubt('$gid', 'commit', 's1 has it')");
$dtx->clean('after that');
is($dtx->p($_)->safe_psql('postgres', 'SELECT bal FROM acct WHERE id = 1'), $_ == 1 ? 78 : 122, "all or nothing: s$_")
  for 1, 2;
is($restored->safe_psql('postgres', q{SELECT decided FROM dtx.forced}), 'unknown', 'it is on record that nothing was decided');
$restored->safe_psql('postgres', $dtx->transfer(1, 1, 2));
$dtx->clean('the restored one goes on');

# ---- a crash, and a standby that is promoted: nothing is suspended
$restored->stop('immediate');
$restored->start;
ok(passes($restored), 'after a crash it works');
is($restored->safe_psql('postgres', $suspended), '', '... and nothing is suspended');
$restored->append_conf('postgresql.conf', "recovery_target = ''\nrestore_command = ''\n");
$restored->restart;
$restored->backup('streaming');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($restored, 'streaming', has_streaming => 1);
$standby->start;
$restored->wait_for_catchup($standby, 'replay', $restored->lsn('insert'));
$restored->stop('immediate');
$standby->promote;
ok(passes($standby), 'promoted: it works');
is($standby->safe_psql('postgres', $suspended), '', '... and nothing is suspended');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM dtx.in_doubt'), '0', '... and nothing in doubt');

# ---- the old primary is alive all the same, and prepares: that is noticed
$dtx->set_coord($standby);
$standby->safe_psql('postgres', 'ALTER SYSTEM SET pg_dtx.resolver = off');
$standby->reload;
ok($standby->poll_query_until('postgres', q{SELECT state = 'idle' FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}),
	'the resolver rests');
my $boot = $standby->safe_psql('postgres', 'SELECT boot_id FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1 OFFSET 1');
($gid, my $early) = split /\n/, $standby->safe_psql('postgres',
	"SELECT dtx_internal.gid((next_xid::text::bigint + 1000 * n)::text::xid8, 1, boot_id) FROM dtx_internal.boot, generate_series(1, 2) n WHERE boot_id = $boot");
$dtx->p(1)->safe_psql('postgres', "BEGIN; INSERT INTO acct VALUES (10, 9); PREPARE TRANSACTION '$early'");
ok($standby->poll_query_until('postgres', q{SELECT now() - started_at > '63 s' FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1}),
	'some time has passed');
$dtx->p(1)->safe_psql('postgres', "BEGIN; INSERT INTO acct VALUES (9, 9); PREPARE TRANSACTION '$gid'");
$standby->safe_psql('postgres', 'ALTER SYSTEM RESET pg_dtx.resolver');
$standby->reload;
ok($standby->poll_query_until('postgres', "SELECT suspended IS NOT NULL FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1"),
	'another server with this database is alive');
like($standby->safe_psql('postgres', $suspended), qr/is alive/, '... which is said');
ok(passes($standby), '... and passes are made');
$dtx->prepared_is(1, 2, '... it is not touched, nor what could have been rolled back otherwise');
$standby->safe_psql('postgres', q{SELECT dtx.adopt_identity('the other one was stopped')});
ok(passes($standby), 'adopted');
$dtx->prepared_is(1, 2, '... what the other one has prepared is for a human');
$standby->safe_psql('postgres', "SELECT dtx.force_in_doubt('$_', 'rollback', 'it has not committed', override => true)") for $gid, $early;
$dtx->clean('in the end');

done_testing();
