# One moment on all servers, while transactions commit, hang, are in doubt and crash:
# pg_dtx.consistent_reads, dtx.export_snapshot(), dtx.wait_until_visible(), and restoring all
# servers to a restore point.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{DTX_SNAPSHOT_SECONDS} || 5;
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $dtx = DtxTest->new(
	servers => 3,
	proxy => [ 1, 2 ],
	conf => "synchronous_standby_names = ''\nlog_statement = none\n",
	participant_conf => "log_statement = none\nmax_prepared_transactions = 40\nmax_connections = 60\n");
my $all = 'SELECT (SELECT bal FROM acct0) + (SELECT bal FROM acct1) + (SELECT bal FROM acct2) + (SELECT bal FROM acct3)';

# What a consistent reader of these servers sees, or the error that it gets.
sub reads
{
	my ($servers, %params) = @_;
	my $sql = $params{sql} // $all;
	my $limit = $params{timeout} // '60s';
	my ($ret, $out, $err) = $dtx->coord->psql('postgres', qq{
\\set VERBOSITY verbose
SET pg_dtx.snapshot_timeout = '$limit';
BEGIN ISOLATION LEVEL REPEATABLE READ;
SET LOCAL pg_dtx.consistent_reads = $servers;
$sql;
COMMIT;});
	return $out if $err eq '';
	return $err =~ /ERROR:  (.*?)\n(?:DETAIL:  (.*?)\n)?/ ? join ' | ', grep { defined } $1, $2 : $err;
}
my $gid = qr/"dtx:[^"]+"/;

is(reads('on'), '400', 'nothing happens: the total');

# ----------------------------------------------------------------
# Not confirmed by one server: the session has been told, or does not wait, or is gone.
# ----------------------------------------------------------------
my $s = $dtx->session;
$s->run(q{SET pg_dtx.commit_timeout = '1s'});
$dtx->proxy(2)->rule(hold => q{COMMIT PREPARED 'dtx});
$s->run($dtx->transfer(10, 0, 1, 2));
like($s->stderr, qr/WARNING:.*"s2"/, 'not confirmed: the session is warned');
like(reads('on', timeout => '1s'),
	qr/^40001: could not take a consistent snapshot on server "s2" \| Prepared transaction $gid there may have been committed on other servers already\.$/,
	'... and a reader of all servers is told which server, and what is prepared there');
is(reads(q{'s1, s3'}, sql => 'SELECT (SELECT bal FROM acct0) + (SELECT bal FROM acct1)'), '190',
	'... but not one of the other servers');
my $reader = $dtx->session;
$reader->run(q{SET pg_dtx.snapshot_timeout = '60s'; BEGIN ISOLATION LEVEL REPEATABLE READ});
$reader->start(qq{SET LOCAL pg_dtx.consistent_reads = on; $all});
my ($ret, $out, $err) = $dtx->coord->psql('postgres', q{SET pg_dtx.snapshot_timeout = '1s'; SELECT dtx.wait_until_visible()});
like($err, qr/could not see all that was committed on server "s2"/, '... and cannot be waited for');
is($dtx->sql(q{SELECT dtx.wait_until_visible('{s1,s3}')}), '', '... but on the others');
my $begin = time;
$dtx->sql($dtx->transfer(0, 0, 1, 3)) for 1 .. 5;
cmp_ok(time - $begin, '<', 3, '... and commits go on, though a reader waits');
$dtx->proxy(2)->clear;
is($reader->finish, '400', '... which gets the total when it is confirmed');
$reader->close;
$dtx->clean('not confirmed');

$s->run(q{SET pg_dtx.commit_wait = off});
$dtx->proxy(2)->rule(hold => q{COMMIT PREPARED 'dtx});
$s->run($dtx->transfer(10, 0, 1, 2));
is($s->stderr, '', 'commit_wait = off: committed');
like(reads('on', timeout => '1s'), qr/^40001:.*"s2"/, '... and not a moment for readers before it is confirmed');
$dtx->proxy(2)->clear;
is(reads('on'), '400', '... which it is without the session, that is idle');
$s->run($dtx->transfer(10, 0, 1, 2));
$s->run(q{SET pg_dtx.commit_wait = on});
$dtx->sql('SELECT dtx.wait_until_visible()');
is($dtx->sql($all), '400', 'wait_until_visible');
$s->close;

$dtx->proxy(2)->rule(hold => q{COMMIT PREPARED 'dtx});
$s = $dtx->session;
$s->start($dtx->transfer(10, 0, 1, 2));
$dtx->proxy(2)->wait_for('hold');
$dtx->sql(q{ALTER SYSTEM SET pg_dtx.resolver = off});
$dtx->crash($dtx->coord);
eval { $s->close };
$dtx->coord->start;
like(reads('on', timeout => '1s'), qr/^40001:.*"s2"/,
	'the coordinator has crashed after the decision: not a moment, with nothing in memory');
$dtx->proxy(2)->clear;
$dtx->sql(q{ALTER SYSTEM RESET pg_dtx.resolver});
$dtx->coord->reload;
is(reads('on'), '400', '... until the resolver has finished it');
$dtx->clean('crash');

# ----------------------------------------------------------------
# A server hangs.
# ----------------------------------------------------------------
my $warm = $dtx->session;
$warm->run($all);
$dtx->freeze($dtx->p(2));
$begin = time;
$warm->run(q{SET pg_dtx.snapshot_timeout = '2s'});
$warm->start('BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL pg_dtx.consistent_reads = on; COMMIT');
my $commits = 0;
until ($warm->finished)
{
	my $start = time;
	$dtx->sql($dtx->transfer(0, 0, 1, 3));
	cmp_ok(time - $start, '<', 2, 'a server hangs: commits on the others go on') if $commits++ == 0;
	last if time - $begin > $timeout;
}
$warm->finish;
like($warm->stderr, qr/40001.*on server "s2"\nDETAIL:  It has not answered in time/s,
	'... and its reader gets its error');
cmp_ok($commits, '>', 3, "... $commits commits meanwhile");
is(reads(q{'s1, s3'}, sql => 'SELECT 1'), '1', '... and others get their snapshots');
$dtx->thaw($dtx->p(2));
$warm->close;
is(reads('on'), '400', '... and all, when it goes on');

# A reader that stops with the gate closed holds up nobody for long, and does not believe in
# what it has got.
$dtx->proxy(2)->rule(hold => 'pg_prepared_xact');
$reader = $dtx->session;
$reader->run(q{SET pg_dtx.snapshot_timeout = '60s'; BEGIN ISOLATION LEVEL REPEATABLE READ});
my $pid = $reader->pid;
$reader->start(qq{SET LOCAL pg_dtx.consistent_reads = on; $all});
$dtx->proxy(2)->wait_for('hold');
$dtx->stop_process($pid);
$begin = time;
$dtx->sql($dtx->transfer(10, 0, 1, 3));
cmp_ok(time - $begin, '<', 3, 'a reader is stopped with the gate closed: commits go on');
$dtx->proxy(2)->clear;
$dtx->continue_process($pid);
is($reader->finish, '400', '... and it begins anew');
$reader->close;

# ----------------------------------------------------------------
# Load
# ----------------------------------------------------------------
my $dir = PostgreSQL::Test::Utils::tempdir();
$dtx->p($_)->safe_psql('postgres', 'INSERT INTO acct SELECT g, 100 FROM generate_series(2, 50) g; CREATE TABLE seq (n bigint); INSERT INTO seq VALUES (0)')
  for 1 .. 3;
$dtx->sql(q{INSERT INTO acct0 SELECT g, 100 FROM generate_series(2, 50) g;
CREATE TABLE seen (kind text, total bigint, ordered bool);});
$dtx->sql("CREATE FOREIGN TABLE seq$_ (n bigint) SERVER s$_ OPTIONS (table_name 'seq')") for 1 .. 3;

# Writers of one client follow each other: the second of two is not seen without the first.
my %scripts = (
	two => "UPDATE acct1 SET bal = bal - 1 WHERE id = :a; UPDATE acct2 SET bal = bal + 1 WHERE id = :b;",
	ledger => "UPDATE acct0 SET bal = bal - 2 WHERE id = :a; UPDATE acct1 SET bal = bal + 1 WHERE id = :b; UPDATE acct3 SET bal = bal + 1 WHERE id = :a;",
	late => "SET LOCAL pg_dtx.commit_wait = off; UPDATE acct3 SET bal = bal - 1 WHERE id = :a; UPDATE acct2 SET bal = bal + 1 WHERE id = :b;",
	savepoint => "UPDATE acct3 SET bal = bal - 1 WHERE id = :a; SAVEPOINT a; UPDATE acct1 SET bal = bal + 1 WHERE id = :b; ROLLBACK TO a; UPDATE acct0 SET bal = bal + 1 WHERE id = :b;",
	decided => "SET LOCAL pg_dtx.commit_point = server; UPDATE acct1 SET bal = bal - 1 WHERE id = :a; UPDATE acct3 SET bal = bal + 1 WHERE id = :b;");
PostgreSQL::Test::Utils::append_to_file("$dir/$_.sql",
	"\\set a random(1, 50)\n\\set b random(1, 50)\nBEGIN; $scripts{$_} COMMIT;\n") for keys %scripts;
PostgreSQL::Test::Utils::append_to_file("$dir/order.sql",
	"UPDATE seq1 SET n = n + 1;\nUPDATE seq2 SET n = n + 1;\n");
my $sums = join ' + ', map { "(SELECT sum(bal) FROM acct$_)" } 0 .. 3;
for my $kind ('plain', 'consistent')
{
	my $how = $kind eq 'plain' ? '' : "SET LOCAL pg_dtx.consistent_reads = on;\n";
	PostgreSQL::Test::Utils::append_to_file("$dir/$kind.sql",
		"BEGIN ISOLATION LEVEL REPEATABLE READ;\n${how}INSERT INTO seen SELECT '$kind', $sums, (SELECT n FROM seq1) >= (SELECT n FROM seq2);\nCOMMIT;\n\\sleep 5 ms\n");
}

# pgbench in the background; returns a function that waits for its end.
sub pgbench
{
	my ($clients, $duration, @files) = @_;
	my @cmd = ('pgbench', '-n', '-h', $dtx->coord->host, '-p', $dtx->coord->port, '-c', $clients, '-T', $duration,
		'--max-tries=100', (map { ('-f', "$dir/$_.sql") } @files), 'postgres');
	local $ENV{PGOPTIONS} = '-c pg_dtx.remote_isolation=read\\ committed -c lock_timeout=5s';
	my ($out, $err) = ('', '');
	my $h = IPC::Run::start(\@cmd, '>', \$out, '2>', \$err);
	return sub { $h->finish; return $err; };
}
my @runs = (
	pgbench(5, $seconds, sort keys %scripts),
	pgbench(1, $seconds, 'order'),
	pgbench(2, $seconds, 'plain'),
	pgbench(2, $seconds, 'consistent'));
my @dumps;
for my $i (1 .. 2)
{
	my $exporter = $dtx->session;
	my %snapshot = map { /(.*)\|(.*)/ }
	  split /\n/, $exporter->run(q{BEGIN; SELECT coalesce(server, 'c'), snapshot FROM dtx.export_snapshot()});
	my $total = 0;
	for my $node (0 .. 3)
	{
		my $name = $node ? "s$node" : 'c';
		my $dump = $node ? '' : 0;
		my ($table, $n) = ($node ? 'acct' : 'acct0', $node ? $dtx->p($node) : $dtx->coord);
		my ($stdout, $stderr) = run_command([ 'pg_dump', '-a', '-t', $table, '--snapshot', $snapshot{$name} // 'none',
				'-h', $n->host, '-p', $n->port, 'postgres' ]);
		$total += $1 while $stdout =~ /^\d+\t(\d+)$/mg;
	}
	$exporter->close;
	is($total, 4 * 50 * 100, "dump $i of all servers under load: the total");
}
{
	local %ENV = (%ENV, PGHOST => $dtx->coord->host, PGPORT => $dtx->coord->port, PGDATABASE => 'postgres');
	my ($stdout, $stderr) = run_command([ 'bash', "$FindBin::RealBin/../examples/dump_all.sh", "$dir/dumps", '-t', 'acct*' ]);
	is($stderr, '', 'examples/dump_all.sh');
	my $total = 0;
	for my $name ('coordinator', 's1', 's2', 's3')
	{
		($stdout, $stderr) = run_command([ 'pg_restore', '-a', '-f', '-', "$dir/dumps/$name.dump" ]);
		$total += $1 while $stdout =~ /^\d+\t(\d+)$/mg;
	}
	is($total, 4 * 50 * 100, '... dumps one moment');
	$dtx->p(3)->safe_psql('postgres', 'CREATE DATABASE restored');
	my $where = 'host=' . $dtx->p(3)->host . ' port=' . $dtx->p(3)->port . ' dbname=restored';
	($stdout, $stderr) = run_command([ 'bash', "$FindBin::RealBin/../examples/restore_all.sh", "$dir/dumps", "s1=$where" ]);
	is($dtx->p(3)->safe_psql('restored', 'SELECT count(*) FROM acct'), '50', '... and examples/restore_all.sh restores')
	  or diag($stderr);
}
my $errors = join '', map { $_->() } @runs;
$errors = join "\n", grep { /ERROR|FATAL/ && !/could not serialize|deadlock|lock timeout/ } split /\n/, $errors;
is($errors, '', 'load: no errors');
my ($plain, $wrong) = split /\|/, $dtx->sql(q{SELECT count(*), count(*) FILTER (WHERE total <> 20000) FROM seen WHERE kind = 'plain'});
note "plain: $plain reads, $wrong wrong";
cmp_ok($wrong, '>', 0, "load: plain readers see wrong totals ($wrong of $plain)");
my ($consistent, $bad, $unordered) = split /\|/,
  $dtx->sql(q{SELECT count(*), count(*) FILTER (WHERE total <> 20000), count(*) FILTER (WHERE NOT ordered) FROM seen WHERE kind = 'consistent'});
cmp_ok($consistent, '>', 5, "load: $consistent consistent reads");
is($bad, '0', '... none of them wrong');
is($unordered, '0', '... and none sees a transaction without the one before it');
$dtx->clean('load');
is($dtx->sql(q{SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'DtxGate'}), '0', 'nobody waits at the gate');

# Writers on one server alone are always about to commit, and need not be waited for; but what
# leaves while snapshots are taken makes them begin anew.
for my $i (1, 2)
{
	PostgreSQL::Test::Utils::append_to_file("$dir/single$i.sql", "\\set a random(1, 50)\nUPDATE acct$i SET bal = bal WHERE id = :a;\n");
}
my $counts = 'SELECT snapshots, snapshot_retries, snapshots_refused FROM dtx.stat';
my @before = split /\|/, $dtx->sql($counts);
@runs = (pgbench(5, 3, 'single1'), pgbench(5, 3, 'single2'), pgbench(1, 3, 'consistent'));
$_->() for @runs;
my @after = split /\|/, $dtx->sql($counts);
my ($taken, $retries, $refused) = map { $after[$_] - $before[$_] } 0 .. 2;
ok($taken > $retries && !$refused, "many writers on one server each: $taken snapshots, $retries attempts in vain, $refused refused");

# Steps of sagas are READ COMMITTED, whatever a database has as its default.
$dtx->sql(q{ALTER DATABASE postgres SET pg_dtx.consistent_reads = on});
$dtx->sql(q{SELECT dtx.define_saga('step', dtx.step('s1', server => 's1', execute => 'UPDATE acct SET bal = bal WHERE id = 1', kind => 'pivot'))});
my $saga = $dtx->sql(q{SELECT dtx.start_saga('step')});
is($dtx->sql("SELECT dtx.wait_saga($saga, '60s')"), 'completed', 'a step of a saga runs, whatever the database has');
$dtx->sql(q{ALTER DATABASE postgres RESET pg_dtx.consistent_reads});

# ----------------------------------------------------------------
# All servers are restored to a restore point.
# ----------------------------------------------------------------
for my $node (@{ $dtx->{nodes} })
{
	$node->append_conf('postgresql.conf', "wal_level = replica\n");
	$node->enable_archiving;
	$node->restart;
	$node->stop;
	$node->backup_fs_cold('before');
	$node->start;
}
my $finish = pgbench(6, $seconds, sort keys %scripts);
my @points;
for my $i (1 .. 2)
{
	usleep(300_000);    # (a rhythm, not a wait)
	my $created = $dtx->sql("SELECT count(*), count(lsn) FROM dtx.create_restore_point('point $i')");
	is($created, '4|4', "restore point $i under load");
}
$finish->();
$dtx->clean('restore points');
for my $node (@{ $dtx->{nodes} })
{
	my $wal = $node->safe_psql('postgres', 'SELECT pg_walfile_name(pg_current_wal_lsn())');
	$node->safe_psql('postgres', 'SELECT pg_switch_wal()');
	$node->poll_query_until('postgres', "SELECT last_archived_wal >= '$wal' FROM pg_stat_archiver");
}
my $after = $dtx->sql("SELECT $sums");
my @old = @{ $dtx->{nodes} };
for my $i (1, 2)
{
	my @new;
	for my $node (@old)
	{
		my $new = PostgreSQL::Test::Cluster->new($node->name . "_$i");
		$new->init_from_backup($node, 'before', has_restoring => 1, standby => 0);
		$new->append_conf('postgresql.conf',
			"recovery_target_name = 'point $i'\nrecovery_target_action = 'promote'\nsynchronous_standby_names = ''\n");
		push @new, $new;
	}
	$_->start for @new;
	$_->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') for @new;

	# as docs/operations.md says
	$new[0]->safe_psql('postgres', join '', map {
			"ALTER SERVER s$_ OPTIONS (SET host '" . $new[$_]->host . "', SET port '" . $new[$_]->port . "');"
		} 1 .. 3);
	$new[0]->safe_psql('postgres', q{SELECT dtx.adopt_identity('restored')});
	is($new[$_]->safe_psql('postgres', 'SELECT count(*) FROM pg_prepared_xacts'), '0',
		"restored to point $i: nothing is prepared on node $_") for 1 .. 3;
	is($new[0]->safe_psql('postgres', "SELECT $sums"), '20000', "restored to point $i: the total");
	is($new[0]->safe_psql('postgres', "BEGIN; UPDATE acct1 SET bal = bal WHERE id = 1; UPDATE acct2 SET bal = bal WHERE id = 1; COMMIT; SELECT count(*) FROM dtx.in_doubt"),
		'0', '... and it works');
	$_->stop('immediate') for @new;
}

done_testing();
