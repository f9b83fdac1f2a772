# Deadlocks between servers: one session of each gets 40P01, the others go on.
#
# DTX_DEADLOCK_RUNS: how often each kind is tried, and for how many tens of seconds there
# is a load without deadlocks ("make deadlocks").  DTX_DEADLOCK_CASES: only those kinds whose
# names match.
use strict;
use warnings FATAL => 'all';

use FindBin;
use IPC::Run;
use lib "$FindBin::RealBin/lib";
use Deadlocks;
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $dtx = DtxTest->new(
	servers => 3,
	conf => "pg_dtx.remote_isolation = 'read committed'\ndeadlock_timeout = '200ms'\nlog_lock_waits = on\nmax_connections = 60\nmax_prepared_transactions = 60\nsynchronous_standby_names = ''\n",
	participant_conf => "deadlock_timeout = '200ms'\nmax_prepared_transactions = 60\n");
my $runs = $ENV{DTX_DEADLOCK_RUNS} // 1;
my $deadlocks = Deadlocks->new($dtx, rows => 1000);
my @kinds = Deadlocks->kinds;
my $only = $ENV{DTX_DEADLOCK_CASES} // '';
my $row = 9;    # (those before are for the load)

# Every kind, alone and several at once.
while (my ($name, $kind) = splice @kinds, 0, 2)
{
	my @took;
	next if $name !~ /(?:$only)/;
	for my $lanes (map { $kind->(1, 2)->{alone} ? 1 : (1, 3) } 1 .. $runs)
	{
		if ($row > 900)
		{
			# What was committed there would be in the way.
			$row = 9;
			$dtx->p(2)->safe_psql('postgres', 'TRUNCATE deferred');
		}
		my @results = $deadlocks->run($kind, map { $row += 2 } 1 .. $lanes);
		is(join('; ', map { $_->[0] } grep { $_->[0] ne '' } @results), '', "$name: one victim, $lanes at once");
		push @took, map { $_->[1] } @results;
	}
	@took = sort { $a <=> $b } @took;
	my $quantiles = sprintf 'from the last wait to the error, p50 %d ms, p95 %d ms, maximum %d ms of %d: %s', (map { 1000 * $took[$_] } $#took / 2, $#took * 0.95, $#took),
	  scalar @took, $name;
	$runs > 1 ? diag($quantiles) : note($quantiles);
	cmp_ok($took[ $#took / 2 ], '<', 1.8, '... soon') if $name =~ /PREPARE/;
}
my ($ring) = $deadlocks->run(sub {
	my $id = shift;
	return {
		hold => [ map { [ $_ => Deadlocks::row($_, $id) ] } 1 .. 3 ],
		close => [ map { [ $_ => Deadlocks::row($_ % 3 + 1, $id) ] } 1 .. 3 ]
	};
}, $row += 2);
is($ring->[0], '', 'three sessions, three servers: one victim');
is(scalar @{ $ring->[2] }, 3, '... which is told of three waits');
like($ring->[2][0], qr/^Process \d+ waits for ShareLock on transaction \d+ on server "s[123]" \(process \d+ there\); blocked by process \d+\.$/, '... its own first');
like(slurp_file($dtx->coord->logfile), qr/CONTEXT:  $_\n/, "CONTEXT: $_")
  for $only ne '' ? () : ('waiting for a reply of server "s1"', 'waiting for remote commands on "s2"', 'waiting for the servers to prepare the transaction');
like(slurp_file($dtx->coord->logfile), qr/DETAIL:  Process \d+ waits for .*\n(?:\t.*\n)*\tProcess \d+: UPDATE item/, 'the server log has the queries');
like(slurp_file($dtx->coord->logfile), qr/LOG:  process \d+ waits for ShareLock on transaction \d+ on server "s1" \(process \d+ there\) since \d+ ms\n.*DETAIL:  Blocked by process \d+/,
	'log_lock_waits logs who waits for whom')
  if $only eq '';
my $found = $dtx->sql('SELECT deadlocks FROM dtx.stat');
cmp_ok($found, '>', $only ne '' ? 0 : 30, 'dtx.stat counts them');
$dtx->clean('after all of that');

# What is no deadlock: a session that waits for one that is doing something else, for a
# client of the server, for what is prepared and nobody's.
$row += 2;
my ($one, $two, $three) = map { $deadlocks->session($dtx->coord) } 1 .. 3;
my $direct = $deadlocks->session($dtx->p(2));
Deadlocks::ask($_, 'BEGIN'), Deadlocks::wait_over($_, 'BEGIN') for $one, $two, $three, $direct;
Deadlocks::ask($one, Deadlocks::row(1, $row)), Deadlocks::wait_over($one, 'UPDATE');
Deadlocks::ask($direct, "UPDATE item SET v = v WHERE id = $row"), Deadlocks::wait_over($direct, 'UPDATE');
Deadlocks::ask($two, Deadlocks::row(1, $row));
Deadlocks::ask($three, Deadlocks::row(2, $row));
$dtx->poll($dtx->coord, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx deadlock detector'}, 1, 'the detector is there');
$dtx->poll($dtx->coord, q{SELECT string_agg(server || ' ' || (lock ~ '^ShareLock on transaction') || ' ' || (since < now()) || ' ' || (pid > 0) || ' ' || (remote_pid > 0) || ' ' || regexp_replace(blocked_by, '\d+', 'N') || ' ' || (blocked_by_pid > 0), '; ' ORDER BY server)
	FROM dtx.lock_waits WHERE server = 's1'}, 's1 true true true true process N true', 'dtx.lock_waits says who waits for a session');
is($dtx->sql(q{SELECT server, regexp_replace(blocked_by, '\d+', 'N'), blocked_by_pid IS NULL, gid IS NULL, in_doubt_since IS NULL FROM dtx.lock_waits WHERE server = 's2'}),
	's2|process N of server "s2"|t|t|t', '... and for a client of a server');

# many looks later
my $looks = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx deadlock detector' AND state_change > };
my $now = $dtx->sql(q{SELECT now() + '1 s'});
$dtx->poll($dtx->coord, "$looks '$now'", 1, 'it has looked again and again');
ok(!Deadlocks::is_over($two) && !Deadlocks::is_over($three), '... and nobody was ended who waits in no circle');
Deadlocks::ask($one, 'COMMIT'), Deadlocks::wait_over($one, 'COMMIT');
Deadlocks::ask($direct, "PREPARE TRANSACTION 'somebody''s'"), Deadlocks::wait_over($direct, 'PREPARE');
Deadlocks::wait_over($two, 'UPDATE');
unlike($two->{err}, qr/ERROR/, 'they go on when what they wait for is over');
$dtx->poll($dtx->coord, q{SELECT blocked_by, gid FROM dtx.lock_waits WHERE server = 's2'}, q{prepared transaction "somebody's" of server "s2"|somebody's},
	'a prepared transaction is named');
$dtx->p(2)->safe_psql('postgres', "ROLLBACK PREPARED 'somebody''s'");
Deadlocks::wait_over($three, 'UPDATE');
Deadlocks::ask($_, 'COMMIT'), Deadlocks::wait_over($_, 'COMMIT') for $two, $three;
is($dtx->sql('SELECT deadlocks FROM dtx.stat'), $found, 'no deadlock was counted');

# The one that is ended goes on from a savepoint, or an exception block.
$row += 2;
my ($caught) = $deadlocks->run(sub {
	my ($id) = @_;
	return {
		hold => [ [ a => Deadlocks::row(1, $id) . '; SAVEPOINT s' ], [ b => Deadlocks::row(0, $id) ] ],
		close => [ [ a => "DO \$\$ BEGIN UPDATE item2 SET v = v WHERE id = $id; PERFORM 1; EXCEPTION WHEN deadlock_detected THEN RAISE WARNING '40P01 was caught'; END \$\$" ] ]
	};
}, $row);
is($caught->[0], 'victims: none', 'nobody waits, nobody is ended');
$row += 2;
$deadlocks->session($dtx->coord);
Deadlocks::ask($_, 'BEGIN'), Deadlocks::wait_over($_, 'BEGIN') for $one, $two;
Deadlocks::ask($two, Deadlocks::row(2, $row)), Deadlocks::wait_over($two, 'UPDATE');
Deadlocks::ask($one, Deadlocks::row(0, $row)), Deadlocks::wait_over($one, 'UPDATE');
Deadlocks::ask($two, Deadlocks::row(0, $row));
$deadlocks->wait_blocked(1);
Deadlocks::ask($one, "DO \$\$ BEGIN UPDATE item2 SET v = v WHERE id = $row; EXCEPTION WHEN deadlock_detected THEN RAISE WARNING 'caught'; UPDATE item1 SET v = v WHERE id = $row; END \$\$");
Deadlocks::wait_over($one, 'a block that catches it');
like($one->{err}, qr/WARNING: +01000: caught/, 'an exception block catches it, and uses another server');
ok(!Deadlocks::is_over($two), '... and keeps the locks that it had before');
Deadlocks::ask($one, 'COMMIT'), Deadlocks::wait_over($one, 'COMMIT');
unlike($one->{err}, qr/ERROR/, '... and commits');
Deadlocks::wait_over($two, 'UPDATE');
Deadlocks::ask($two, 'COMMIT'), Deadlocks::wait_over($two, 'COMMIT');
unlike($two->{err}, qr/ERROR/, 'so does the other one');

# A server that hangs does not keep the others from being looked at.
$row += 2;
Deadlocks::ask($one, 'SELECT count(*) FROM item3'), Deadlocks::wait_over($one, 'SELECT');
Deadlocks::ask($two, 'SELECT count(*) FROM item3'), Deadlocks::wait_over($two, 'SELECT');
push @{ $deadlocks->{idle}{ $dtx->coord->name } }, $one, $two;
my @hung = $dtx->processes($dtx->p(3));
$dtx->stop_process(@hung);
$deadlocks->{hung} = 3;
my ($hung) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row);
is($hung->[0], '', 'one victim, though a server hangs that both have used');
cmp_ok($hung->[1], '<', 3, '... soon');
$dtx->continue_process(@hung);
delete $deadlocks->{hung};
($one, $two) = splice @{ $deadlocks->{idle}{ $dtx->coord->name } }, -2;

# A server that says of its processes what is not so, too much, or too late: nobody is ended
# for that, and what others say is looked at all the same.
sub blocking_pids
{
	my $body = shift;
	$dtx->p(3)->safe_psql('postgres', "SET allow_system_table_mods = on;
CREATE OR REPLACE FUNCTION pg_catalog.pg_blocking_pids(int) RETURNS int[] LANGUAGE sql AS \$\$ $body \$\$");
	return;
}
my $detector = q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx deadlock detector'};
$dtx->p(3)->safe_psql('postgres', 'SET allow_system_table_mods = on; ALTER FUNCTION pg_catalog.pg_blocking_pids(int) RENAME TO told_pids');
for my $lie (
	[ 'everybody blocks himself' => 'SELECT ARRAY[$1]' ],
	[ 'many processes' => 'SELECT CASE WHEN $1 > 2000000000 THEN ARRAY[2000000001 + $1 % 6000] ELSE ARRAY(SELECT generate_series(2000000001, 2000006000)) END' ],
	[ 'more and more processes' => 'SELECT ARRAY(SELECT (($1::int8 * 31 + g) % 2147483647)::int FROM generate_series(1, 300) g)' ],
	[ 'many blockers' => 'SELECT ARRAY(SELECT generate_series(2000000001, 2000001500))' ],
	[ 'late' => 'SELECT NULLIF(ARRAY[length(pg_sleep(0.3)::text)], ARRAY[0])' ],
	[ 'an error' => q{SELECT ARRAY[1 / 0]} ])
{
	my ($name, $body) = @$lie;
	blocking_pids($body);
	for my $s ($one, $two)
	{
		Deadlocks::ask($s, 'BEGIN; SELECT count(*) FROM item3'), Deadlocks::wait_over($s, 'SELECT');
	}
	$row += 2;
	Deadlocks::ask($one, Deadlocks::row(1, $row)), Deadlocks::wait_over($one, 'UPDATE');
	Deadlocks::ask($two, Deadlocks::row(1, $row));
	$now = $dtx->sql(q{SELECT now() + '1 s'});
	$dtx->poll($dtx->coord, "$looks '$now'", 1, "a server lies ($name): the detector has looked again and again");
	my $pid = $dtx->sql($detector);
	ok(!Deadlocks::is_over($two), '... and nobody was ended who waits in no circle');
	Deadlocks::ask($one, 'COMMIT'), Deadlocks::wait_over($one, 'COMMIT');
	Deadlocks::wait_over($two, 'UPDATE');
	Deadlocks::ask($two, 'COMMIT'), Deadlocks::wait_over($two, 'COMMIT');
	unlike($one->{err} . $two->{err}, qr/ERROR/, '... without errors');

	# (these have sessions there)
	my $idle = $deadlocks->{idle}{ $dtx->coord->name } //= [];
	push @$idle, $one, $two;
	my ($result) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row += 2);
	is($result->[0], '', '... and one victim, where there is a circle elsewhere');
	($one, $two) = splice @$idle, -2;
	is($dtx->sql($detector), $pid, '... and the detector has gone on');
	my ($rss) = slurp_file("/proc/$pid/status") =~ /^RssAnon:\s+(\d+) kB/m;
	cmp_ok($rss, '<', 100_000, '... and is small') if defined $rss && !$ENV{DTX_CHECKER};
}
$dtx->p(3)->safe_psql('postgres', 'SET allow_system_table_mods = on; DROP FUNCTION pg_catalog.pg_blocking_pids(int);
ALTER FUNCTION pg_catalog.told_pids(int) RENAME TO pg_blocking_pids');

# Roles that may do nothing on the servers but what they have to.
$dtx->p($_)->safe_psql('postgres', 'CREATE ROLE app LOGIN; GRANT SELECT, UPDATE ON item TO app') for 1 .. 3;
$dtx->sql(q{CREATE ROLE app LOGIN; GRANT SELECT, UPDATE ON item0, item1, item2, item3 TO app; GRANT USAGE ON FOREIGN SERVER s1, s2, s3 TO app});
$dtx->sql("CREATE USER MAPPING FOR app SERVER s$_ OPTIONS (user 'app', password_required 'false')") for 1 .. 3;
{
	local $deadlocks->{as} = 'app';
	my ($result) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row += 2);
	is($result->[0], '', 'roles without privileges: one victim');
	like($result->[1] // '', qr/^[0-9.]+$/, '... soon');
	($result) = $deadlocks->run({ Deadlocks->kinds }->{'local row, closed by the remote wait'}, $row += 2);
	is($result->[0], '', '... likewise with a row here');

	# What servers of others say of themselves counts for these servers only.
	$dtx->sql('CREATE ROLE own LOGIN; GRANT USAGE ON FOREIGN DATA WRAPPER postgres_fdw TO own');
	$dtx->sql("ALTER SERVER s$_ OWNER TO own") for 1, 2;
	($result) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row += 2);
	is($result->[0], '', 'servers of a role that is not a superuser: one victim');
	$dtx->sql("ALTER SERVER s$_ OWNER TO CURRENT_USER") for 1, 2;
}

# The detector ends while it is needed.
$dtx->sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pg_dtx deadlock detector'});
my ($terminated) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row += 2);
is($terminated->[0], '', 'one victim, after the detector was terminated');
cmp_ok($terminated->[1], '<', 8, '... soon');

# Another coordinator over the same servers: one of the two ends it, not both.
my $other = PostgreSQL::Test::Cluster->new('other');
$other->init;
$other->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_dtx'\ndeadlock_timeout = '200ms'\nmax_prepared_transactions = 0\n");
$other->start;
{
	local $dtx->{nodes} = [ $other, @{ $dtx->{nodes} }[ 1 .. 3 ] ];
	$dtx->install('postgres');
	$dtx->sql("CREATE FOREIGN TABLE item$_ (id int, v int) SERVER s$_ OPTIONS (table_name 'item')") for 1 .. 3;
}
$deadlocks->{coordinators} = { b => $other };
for my $try (1 .. 4)
{
	my ($result) = $deadlocks->run({ Deadlocks->kinds }->{'two sessions, two servers'}, $row += 2);
	is($result->[0], '', 'two coordinators: one victim');
	cmp_ok($result->[1], '<', 2.5, '... soon');
}
delete $deadlocks->{coordinators};

# A load without deadlocks, in which everybody waits for longer than deadlock_timeout all
# the time, and circles beside it.
$dtx->sql($_) for q{ALTER SYSTEM SET deadlock_timeout = '20ms'}, 'ALTER SYSTEM SET log_lock_waits = off', 'SELECT pg_reload_conf()';
my $script = PostgreSQL::Test::Utils::tempdir() . '/load.sql';
append_to_file($script, q{\set id random(1, 4)
\set local random(0, 2)
BEGIN;
\if :local = 0
UPDATE item0 SET v = v + 1 WHERE id = :id;
\endif
UPDATE item1 SET v = v + 1 WHERE id = :id;
SELECT * FROM dtx.query('s2', 'SELECT 1 FROM pg_advisory_xact_lock($1)', :id) AS t (one int);
SAVEPOINT s;
UPDATE item2 SET v = v + 1 WHERE id = :id;
UPDATE item3 SET v = v + 1 WHERE id = :id;
COMMIT;
});
my $before = $dtx->sql('SELECT deadlocks FROM dtx.stat');
my $seconds = $runs == 1 ? 4 : 10 * $runs;
my ($load_out, $load_err) = ('', '');
my $load = IPC::Run::start([ 'pgbench', '-n', '-c', 12, '-T', $seconds, '-f', $script, '-d', $dtx->coord->connstr('postgres') ],
	'>', \$load_out, '2>', \$load_err);
my $planted = 0;
my $until = time + $seconds - 1;
while (time < $until)
{
	my ($result) = $deadlocks->run(
		sub {
			my $id = shift;
			return {
				hold => [ [ a => Deadlocks::row(1, $id) ], [ b => Deadlocks::row(2, $id) ] ],
				close => [ [ a => Deadlocks::row(2, $id) ], [ b => Deadlocks::row(1, $id) ] ]
			};
		}, $row = $row > 900 ? 11 : $row + 2);
	is($result->[0], '', 'a circle beside the load: one victim');
	$planted++;
}
$load->finish;
like($load_out, qr/number of failed transactions: 0 |number of transactions actually processed: \d+$/m, 'no transaction of the load has failed');
unlike($load_err, qr/ERROR/, '... or got an error');
note $load_out;
cmp_ok($planted, '>', 0, 'there were circles beside it');
is($dtx->sql('SELECT deadlocks FROM dtx.stat') - $before, $planted, '... one victim each, and no other');
is($dtx->sql(q{SELECT count(DISTINCT v) FROM (SELECT (SELECT v FROM item1 WHERE id = i), i FROM generate_series(1, 4) i UNION ALL
	SELECT (SELECT v FROM item2 WHERE id = i), i FROM generate_series(1, 4) i UNION ALL
	SELECT (SELECT v FROM item3 WHERE id = i), i FROM generate_series(1, 4) i) AS t (v, i) WHERE i = 1}), 1, 'the sums are right');
$dtx->sql($_) for q{ALTER SYSTEM SET deadlock_timeout = '200ms'}, 'SELECT pg_reload_conf()';

# Switched off, they wait.
$dtx->sql($_) for 'ALTER SYSTEM SET pg_dtx.deadlock_detection = off', 'SELECT pg_reload_conf()';
$dtx->poll($dtx->coord, 'SHOW pg_dtx.deadlock_detection', 'off', 'it can be switched off');
($one, $two) = map { $deadlocks->session($dtx->coord) } 1, 2;
$row += 2;
Deadlocks::ask($_, "SET lock_timeout = 0; BEGIN"), Deadlocks::wait_over($_, 'BEGIN') for $one, $two;
Deadlocks::ask($one, Deadlocks::row(1, $row)), Deadlocks::wait_over($one, 'UPDATE');
Deadlocks::ask($two, Deadlocks::row(2, $row)), Deadlocks::wait_over($two, 'UPDATE');
Deadlocks::ask($one, Deadlocks::row(2, $row));
Deadlocks::ask($two, Deadlocks::row(1, $row));
$deadlocks->wait_blocked(2);
$now = $dtx->sql(q{SELECT now() + '1 s'});
$dtx->poll($dtx->coord, "SELECT now() > '$now'", 't', 'a second later');
ok(!Deadlocks::is_over($one) && !Deadlocks::is_over($two), '... both wait');
is($dtx->sql(q{SELECT count(*) FROM dtx.lock_waits WHERE server IN ('s1', 's2')}), 0, '... and dtx.lock_waits knows nothing of them');
$dtx->sql($_) for 'ALTER SYSTEM RESET pg_dtx.deadlock_detection', 'SELECT pg_reload_conf()';
$_->kill for $one, $two;
$dtx->clean('in the end');
done_testing();
