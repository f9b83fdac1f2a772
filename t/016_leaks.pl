# Nothing grows: results of libpq, memory contexts, memory, descriptors, in
# sessions over thousands of transactions of all kinds, and in the resolver over
# thousands of passes.  DTX_LEAK_TRANSACTIONS and DTX_LEAK_PASSES say how many
# ("make leaks": 100,000 transactions, and a day of passes).
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

plan skip_all => 'needs /proc' unless -r '/proc/self/status';

my $transactions = $ENV{DTX_LEAK_TRANSACTIONS} || 2400;
my $passes = $ENV{DTX_LEAK_PASSES} || 300;

# Count libpq's results, where there is a compiler.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $shim = "$dir/count_results.so";
my $counting = system("cc -shared -fPIC -O1 -o $shim $FindBin::RealBin/programs/count_results.c -ldl >/dev/null 2>&1") == 0;
$ENV{DTX_COUNT_DIR} = $dir;
$ENV{LD_PRELOAD} = join ':', grep { $_ } $shim, $ENV{LD_PRELOAD} if $counting;

my $dtx = DtxTest->new(
	servers => 3,
	conf => "log_statement = none\nfsync = off\npg_dtx.resolve_interval = '10ms'\n",
	participant_conf => "log_statement = none\nfsync = off\nmax_connections = 50\n");
$dtx->p($_)->safe_psql('postgres', q{
ALTER TABLE acct ADD CONSTRAINT unique_bal UNIQUE (id) DEFERRABLE INITIALLY DEFERRED;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF new.bal = 13 THEN RAISE EXCEPTION 'refused'; END IF;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER refuse AFTER UPDATE ON acct DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
}) for 1, 2;

# Twenty transactions.
my $both = 'UPDATE acct1 SET bal = bal + 1; UPDATE acct2 SET bal = bal + 1;';
my @kinds = (
	"BEGIN; $both COMMIT;",
	'UPDATE acct1 SET bal = bal + 1;',
	'SELECT * FROM acct1, acct2, acct0;',
	"BEGIN; SET LOCAL pg_dtx.commit_wait = off; $both COMMIT;",
	"BEGIN; $both ROLLBACK;",
	'BEGIN; UPDATE acct2 SET bal = 1; UPDATE acct1 SET bal = 13; COMMIT;',    # refused at PREPARE
	"BEGIN; UPDATE acct0 SET bal = bal + 1; SAVEPOINT a; $both ROLLBACK TO a; UPDATE acct1 SET bal = bal + 1; COMMIT;",
	'BEGIN; UPDATE acct2 SET bal = 1; UPDATE acct1 SET bal = -1; COMMIT;',
	q{BEGIN; SELECT dtx.exec('s1', 'UPDATE acct SET bal = bal + 1'); SELECT dtx.exec_all('{s1,s2}', 'UPDATE acct SET bal = bal + 1'); COMMIT;},
	q{SELECT dtx.exec('s1', 'SELECT 1/0');},
	q{SELECT count(*) FROM dtx.query_all('{s1,s2}', 'SELECT generate_series(1, 50)') AS t(s name, i int);},
	q{SELECT * FROM dtx.query('s1', 'SELECT ''x'' FROM generate_series(1, 50)') AS t(i int);},
	q{SELECT count(*) FROM dtx.query_json('s2', 'SELECT i, i::text FROM generate_series(1, 20) i');},
	q{BEGIN; SAVEPOINT a; SET LOCAL statement_timeout = 1; SELECT dtx.exec_all('{s1,s2}', 'SELECT pg_sleep(0.003)'); ROLLBACK TO a; SET LOCAL statement_timeout = 0; UPDATE acct1 SET bal = bal + 1; COMMIT;},
	"BEGIN; SET LOCAL pg_dtx.fold_start = off; $both COMMIT;",
	"BEGIN; SET LOCAL pg_dtx.two_phase_commit = off; $both COMMIT;",
	q{BEGIN; UPDATE acct1 SET bal = bal + 1; SELECT * FROM acct2; COMMIT;},
	q{BEGIN; DECLARE c CURSOR FOR SELECT * FROM acct1, acct2; FETCH c; UPDATE acct0 SET bal = bal + 1; COMMIT;},
	q{SELECT postgres_fdw_disconnect('s2');},
	q{SELECT count(*) FROM dtx.transactions, dtx.stat, dtx.servers, dtx.in_doubt;});

sub measure
{
	my ($pid, $session) = @_;
	my %m;
	my $status = slurp_file("/proc/$pid/status");
	($m{rss}) = $status =~ /^RssAnon:\s+(\d+) kB/m;
	opendir my $fds, "/proc/$pid/fd" or die "$!";
	$m{fds} = grep { !/^\./ } readdir $fds;
	closedir $fds;
	$m{contexts} = $session->run('SELECT sum(used_bytes) / 1024 FROM pg_backend_memory_contexts') if $session;
	if ($counting && -s "$dir/$pid")
	{
		my ($made, $freed) = unpack 'QQ', slurp_file("$dir/$pid");
		@m{qw(made live)} = ($made, $made - $freed);
	}
	return \%m;
}

my @table;
sub note_measures
{
	my ($who, $what, $m) = @_;
	push @table, sprintf '%-10s %12s %10s kB %10s kB %6s %12s %6s', $who, $what, $m->{rss}, $m->{contexts} // '-',
	  $m->{fds}, $m->{made} // '-', $m->{live} // '-';
	return;
}

# ---- sessions
for my $number (1, 2)
{
	my $s = $dtx->session;
	my $done = 0;
	$s->run('\set VERBOSITY sqlstate');
	my $chunk = 10;
	my $run = sub {
		my $until = shift;
		while ($done < $until)
		{
			$s->run(join("\n", ('SET client_min_messages = error;', map { @kinds } 1 .. $chunk)));
			$done += @kinds * $chunk;

			# a connection that is cut, now and then
			if ($done % 2000 == 0)
			{
				my ($pid) = $dtx->remote_pids(1);
				$dtx->p(1)->safe_psql('postgres', "SELECT pg_terminate_backend($pid)") if $pid;
				$s->run('BEGIN; UPDATE acct2 SET bal = 1; UPDATE acct1 SET bal = 1; COMMIT; ROLLBACK');
			}
		}
	};
	# caches fill in the beginning
	$s->run('\o /dev/null');
	$run->($transactions / 4);
	$s->run('\o');
	my $first = measure($s->pid, $s);
	note_measures("session $number", $done, $first);
	$s->run('\o /dev/null');
	$run->($transactions / 2);
	$s->run('\o');
	my $last = measure($s->pid, $s);
	note_measures("session $number", $done, $last);
	cmp_ok($last->{rss} - $first->{rss}, '<', 4096, "session $number: memory (kB)");
	cmp_ok($last->{contexts} - $first->{contexts}, '<', 256, "session $number: memory contexts (kB)");
	# files of relations come and go
	cmp_ok(abs($last->{fds} - $first->{fds}), '<=', 8, "session $number: descriptors");
	cmp_ok($last->{live}, '<', 20, "session $number: results that are not freed") if $counting;
	$s->close;
}

# ---- the resolver: with something to do, and one server down
$dtx->p(3)->stop('immediate');
my $pid = $dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'});
my $n = 0;
my $made = sub {
	my $until = $dtx->sql('SELECT passes FROM dtx.stat') + shift;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default + $passes;
	while ($dtx->sql('SELECT passes FROM dtx.stat') < $until)
	{
		die 'the resolver makes no passes' if time > $deadline;
		for my $i (1, 2)
		{
			my ($gid) = $dtx->orphan_gids(1);
			$n++;
			$dtx->p($i)->safe_psql('postgres', "BEGIN; CREATE TABLE orphan$n (); PREPARE TRANSACTION '$gid'");
		}
		$dtx->sql('SELECT count(*) FROM dtx.resolve_in_doubt() AS a, dtx.resolve_in_doubt() AS b');
	}
};
$made->($passes / 4);
my $first = measure($pid);
note_measures('resolver', $dtx->sql('SELECT passes FROM dtx.stat'), $first);
$made->($passes);
my $last = measure($pid);
note_measures('resolver', $dtx->sql('SELECT passes FROM dtx.stat'), $last);
cmp_ok($last->{rss} - $first->{rss}, '<', 1024, 'resolver: memory (kB)');
cmp_ok(abs($last->{fds} - $first->{fds}), '<=', 4, 'resolver: descriptors');
cmp_ok($last->{live}, '<', 20, 'resolver: results that are not freed') if $counting && defined $last->{live};
is($dtx->sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pg_dtx resolver'}), $pid, 'resolver: the same all the time');
$dtx->prepared_is(1, 0, 'nothing stays prepared');

diag(join "\n", '', sprintf('%-10s %12s %13s %13s %6s %12s %6s', 'who', 'transactions', 'memory', 'contexts', 'files', 'results made', 'live'),
	'           or passes', @table) if $ENV{DTX_LEAK_TRANSACTIONS};
note join "\n", @table;
done_testing();
