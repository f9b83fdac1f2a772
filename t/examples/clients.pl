# The programs in examples/ with Debian's drivers, while a server is killed and
# comes back.  What a program was told is committed is on all servers, what it was
# told is not is on none.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../lib";
use DtxTest;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $examples = "$FindBin::RealBin/../../examples";
my $timeout = $PostgreSQL::Test::Utils::timeout_default;

# JDBC knows TCP only.
my $dtx = DtxTest->new(servers => 2, conf => "listen_addresses = '127.0.0.1'\npg_dtx.commit_timeout = '2s'\n");
$dtx->sql('ALTER SERVER s1 RENAME TO berlin; ALTER SERVER s2 RENAME TO tokyo;');
$dtx->sql(slurp_file("$examples/schema.sql"));
$dtx->p($_)->safe_psql('postgres',
	'CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL); INSERT INTO account SELECT i, 100000 FROM generate_series(1, 8) i')
  for 1, 2;

local %ENV = (
	%ENV,
	PGHOST => $dtx->coord->host,
	PGPORT => $dtx->coord->port,
	PGDATABASE => 'postgres',
	PGUSER => (getpwuid $<)[0],
	GO111MODULE => 'off',
	GOPATH => '/usr/share/gocode',
	GOCACHE => "$ENV{TMPDIR}/go",
	GOFLAGS => '-p=1');
my $bin = "$PostgreSQL::Test::Utils::tmp_check/examples";
mkdir $bin;
system('go', 'build', '-o', "$bin/transfer", "$examples/go/transfer.go") == 0 or die 'go build failed';
system('javac', '-d', $bin, "$examples/java/Transfer.java") == 0 or die 'javac failed';

# What came out of it, on all nodes: transfers made, gone from berlin, come to tokyo.
my $sums = 0;
sub sums_agree
{
	my $what = shift;
	my $made = $dtx->sql('SELECT coalesce(sum(amount), 0) FROM transfer');
	my $from = $dtx->p(1)->safe_psql('postgres', 'SELECT 800000 - sum(balance) FROM account');
	my $to = $dtx->p(2)->safe_psql('postgres', 'SELECT sum(balance) - 800000 FROM account');
	is("$from $to", "$made $made", "$what: the sums agree on all nodes");
	cmp_ok($made, '>', $sums, "$what: something was done");
	$sums = $made;
	return;
}

sub run_client
{
	my ($name, @command) = @_;
	my $count = 400;
	my ($out, $err) = ('', '');
	my $deadline = time + 2 * $timeout;

	my $client = IPC::Run::start([ @command, $count ], '<', \undef, '>', \$out, '2>', \$err);
	my $wait = sub {
		my ($pattern) = @_;
		until ($out =~ $pattern)
		{
			die "$name: timed out waiting for $pattern: $err" if time > $deadline || !$client->pumpable;
			$client->pump_nb;
			usleep(10_000);
		}
	};
	$wait->(qr/(?:done .*\n.*){20}/);
	$dtx->p(2)->stop('immediate');
	$wait->(qr/failed /);
	$dtx->p(2)->start;
	$client->pump until !$client->pumpable;
	$client->finish;

	my @done = $out =~ /^done (\S+)/mg;
	my @failed = $out =~ /^failed (\S+)/mg;
	is(scalar @done, $count, "$name: goes on until all is done");
	cmp_ok(scalar @failed, '>', 0, "$name: has seen errors");
	is($dtx->sql("SELECT count(*) FROM transfer WHERE id = ANY ('{" . join(',', @done) . "}')"),
		$count, "$name: everything that was done is there");
	is($dtx->sql("SELECT count(*) FROM transfer WHERE id = ANY ('{" . join(',', @failed) . "}')"),
		0, "$name: nothing that failed is there");
	$dtx->clean($name);
	sums_agree($name);
	return;
}

run_client('Python, psycopg2', 'python3', "$examples/python/transfer.py");
run_client('Python, psycopg 3', 'python3', "$examples/python/transfer_psycopg3.py");
run_client('Go', "$bin/transfer");
run_client('Java', 'java', '-cp', "$bin:/usr/share/java/postgresql.jar", 'Transfer');

# pgbench gives up at errors.
{
	my ($out, $err) = ('', '');
	my $pgbench = IPC::Run::start(
		[ 'pgbench', '-n', '-f', "$examples/pgbench/transfer.sql", '-c', 8, '-T', $timeout ],
		'<', \undef, '>', \$out, '2>', \$err);
	my $before = $sums;
	$dtx->poll($dtx->coord, "SELECT count(*) > 50 FROM transfer WHERE id LIKE 'pgbench%'", 't', 'pgbench runs');
	$dtx->p(2)->stop('immediate');
	$pgbench->pump until !$pgbench->pumpable;
	$pgbench->finish;
	$dtx->p(2)->start;
	like($err, qr/aborted/, 'pgbench: clients have given up');
	$dtx->clean('pgbench');
	sums_agree('pgbench');
	is(system('pgbench', '-n', '-f', "$examples/pgbench/transfer.sql", '-c', 8, '-t', 20), 0, 'pgbench: once more');
	$dtx->clean('pgbench');
	sums_agree('pgbench');
}

done_testing();
