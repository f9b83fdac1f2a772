# An xid that never reached the WAL is handed out again after a crash.  A gid of
# before must not be judged by the fate of the new transaction with that xid.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use Test::More;

my $dtx = DtxTest->new(
	servers => 4,
	proxy => [ 3, 4 ],
	conf => "wal_writer_delay = '10s'\nsynchronous_standby_names = ''\n");

# Boot id and xid of a gid.
sub parse
{
	my $gid = shift;
	my @fields = split /:/, $gid;
	is(scalar(@fields), 7, "a gid has seven fields: $gid");
	return @fields[ 3, 4 ];
}

# Something was prepared on these servers before; the first time that is put on record
# (dtx_internal.route), and the WAL flushed.
$dtx->sql($dtx->transfer(1, @$_)) for [ 1, 3 ], [ 3, 1 ];

# s1 is prepared, PREPARE is on its way to s3, and the coordinator dies with
# nothing of this transaction on disk: whatever would flush the WAL is stopped.
my $s = $dtx->session;
$s->run('BEGIN; UPDATE acct1 SET bal = 1; UPDATE acct3 SET bal = 3');
$dtx->proxy(3)->rule(hold => q{PREPARE TRANSACTION 'dtx});
$dtx->sql('CHECKPOINT');
$dtx->stop_process(
	split /\n/, $dtx->sql(q{
SELECT pid FROM pg_stat_activity
WHERE backend_type IN ('walwriter', 'background writer', 'checkpointer')
	OR backend_type LIKE 'pg_dtx%'
}));

# The next life of the server needs an xid of its own before it makes gids.
my @open = map { $dtx->session } 1 .. 3;
$_->run('BEGIN; SELECT pg_current_xact_id()') for @open;
$s->start('COMMIT');
$dtx->prepared_is(1, 1);
$dtx->proxy(3)->wait_for('hold');
my ($old_boot, $old_xid) = parse($dtx->gid(1));
$dtx->crash($dtx->coord);
$_->close for $s, @open;

# s1 stays away, and the PREPARE on its way, while the same xid commits over s2
# and s4.  s4 does not get to know, so the decision stays on record.
$dtx->p(1)->stop('fast');
$dtx->coord->start;
$s = $dtx->session;
$s->run(q{SET pg_dtx.commit_timeout = '10ms'});
$dtx->poll($dtx->coord, 'SELECT count(*) > 1 FROM dtx_internal.boot', 't', 'this life is on record');

# No worker takes an xid until ours has it.
my @workers = split /\n/, $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'pg_dtx%'});
$dtx->stop_process(@workers);
my $next = $s->run('SELECT pg_snapshot_xmax(pg_current_snapshot())');
cmp_ok($next, '<=', $old_xid, 'the xid will be handed out again')
  or diag("next $next, old $old_xid");
while ($s->run('SELECT pg_snapshot_xmax(pg_current_snapshot())') < $old_xid)
{
	$s->run('SELECT pg_current_xact_id()');
}
$dtx->proxy(4)->rule(hold => 'COMMIT PREPARED');
$s->run($dtx->transfer(10, 2, 4));
like($s->stderr, qr/WARNING:.*"s4"/, 'the new transaction commits');
$dtx->prepared_is(4, 1);
my ($new_boot, $new_xid) = parse($dtx->gid(4));
is($new_xid, $old_xid, '... with the same xid');
$dtx->continue_process(@workers);
isnt($new_boot, $old_boot, '... in another life of the server');

# Now the old gids turn up.
$dtx->p(1)->start;
$dtx->prepared_is(1, 0, 's1: the old gid is finished');
$dtx->proxy(3)->clear;
$dtx->proxy(3)->wait_for('released');
$dtx->poll($dtx->p(3),
	'SELECT count(*) FROM pg_stat_activity WHERE application_name = $$postgres_fdw$$',
	'0', 's3: the PREPARE has arrived');
ok($dtx->p(3)->log_contains(qr/PREPARE TRANSACTION 'dtx:/),
	's3: ... and was executed');
$dtx->prepared_is(3, 0, 's3: the old gid is finished');
is($dtx->p($_)->safe_psql('postgres', 'SELECT bal FROM acct'),
	'100', "s$_: ... by rolling back")
  for 1, 3;
$dtx->prepared_is(4, 1, 's4: the new gid is not touched');

$dtx->proxy(4)->clear;
$dtx->clean('after all');
$dtx->balances_are('100 100 90 100 110', 'old rolled back, new committed');


# A start of the server without the library assigns the xid once more, and that
# transaction commits: the commit log says nothing of the old one then.
$dtx->clean('before that');
my $coord = $dtx->coord;
my $xid = $dtx->sql('SELECT pg_snapshot_xmax(pg_current_snapshot())') + 20;
my $unlogged = $dtx->sql("SELECT dtx_internal.gid('$xid', 1)");
$dtx->p(1)->safe_psql('postgres', "BEGIN; INSERT INTO acct VALUES (99, 1); PREPARE TRANSACTION '$unlogged'");
$coord->stop('immediate');
$coord->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$coord->start;
while ($dtx->sql('SELECT pg_current_xact_id()') <= $xid) { }
$coord->stop;
$coord->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'");
$coord->start;
$dtx->poll($coord, q{SELECT last_error LIKE 'the coordinator crashed, and nothing proves%' FROM dtx.in_doubt}, 't',
	'an xid that was assigned by a start that is not on record: nothing is proven');
$dtx->prepared_is(1, 1, '... and nothing done');
is($dtx->sql('SELECT count(*) FROM dtx.damage'), '0', '... and no damage');
$dtx->sql("SELECT dtx.force_in_doubt('$unlogged', 'rollback', 'test')");
$dtx->clean('a human has decided');

# Up to where the resolver has been, the commit log is proof after a crash.
$s = $dtx->session;
$xid = $s->run('CREATE TABLE committed AS SELECT pg_current_xact_id() AS xid; SELECT xid FROM committed');
$s->close;
$dtx->poll($coord, "SELECT proven_xid > '$xid' FROM dtx_internal.boot ORDER BY ordinal DESC LIMIT 1", 't', 'the resolver has been there');
my $back = $dtx->sql("SELECT dtx_internal.gid('$xid', 1)");
$coord->stop('immediate');
$coord->start;
$dtx->p(1)->safe_psql('postgres', "BEGIN; INSERT INTO acct VALUES (98, 1); PREPARE TRANSACTION '$back'");
$dtx->prepared_is(1, 0, 'what has committed before the crash, and is back');
is($dtx->p(1)->safe_psql('postgres', 'SELECT count(*) FROM acct WHERE id = 98'), '1', '... is committed');
done_testing();
