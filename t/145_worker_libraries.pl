# Workers outside of the database with the libraries of clients/, while they, the coordinator
# and a server are killed: every saga ends, and what was done in the database was done once.
use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/lib";
use DtxTest;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $seconds = $ENV{DTX_WORKER_SECONDS} || 6;
my $timeout = $PostgreSQL::Test::Utils::timeout_default;
my $clients = "$FindBin::RealBin/../clients";
my $dir = PostgreSQL::Test::Utils::tempdir();

# Which of them can be run here?
my ($python) = grep { -x && system("$_ -c 'import psycopg' 2>/dev/null") == 0 } '/usr/bin/python3', '/usr/local/bin/python3';
my %programs;
$programs{'Python, psycopg 3'} = [ $python, "$FindBin::RealBin/programs/worker.py" ] if $python;
if (grep { -x "$_/go" } split /:/, $ENV{PATH})
{
	my $path = "$dir/go";
	system('mkdir', '-p', "$path/src") == 0 or die;
	system('cp', '-r', "$clients/go/dtx", "$path/src/") == 0 or die;
	local %ENV = (%ENV, GO111MODULE => 'off', GOPATH => "$path:/usr/share/gocode", GOCACHE => "$dir/cache", HOME => $dir);
	if (-d '/usr/share/gocode/src/github.com/lib/pq' && -d '/usr/share/gocode/src/github.com/jackc/pgx')
	{
		is(system('go', 'build', '-o', "$dir/worker", "$FindBin::RealBin/programs/worker.go"), 0, 'the Go library is built');
		is(`gofmt -l $clients/go $FindBin::RealBin/programs/worker.go`, '', 'gofmt has nothing to say');
		$programs{'Go, lib/pq'} = [ "$dir/worker" ];
		$programs{'Go, pgx'} = [ "$dir/worker" ];
	}
}
plan skip_all => 'neither psycopg 3 nor Go with lib/pq and pgx are installed' if !%programs;

my $dtx = DtxTest->new(
	servers => 2,
	conf => "synchronous_standby_names = ''\nlog_statement = none\n",
	participant_conf => "log_statement = none\n");
for my $i (1, 2)
{
	$dtx->p($i)->safe_psql('postgres', 'CREATE TABLE effect (saga bigint, what text)');
	$dtx->sql("CREATE FOREIGN TABLE effect$i (saga bigint, what text) SERVER s$i OPTIONS (table_name 'effect')");
}
$dtx->sql(q{SELECT dtx.define_saga('order',
	dtx.step_external('pay', queue => 'pay', compensate_queue => 'pay undo', max_attempts => 1000),
	dtx.step_external('ship', queue => 'ship', max_attempts => 1000))});

my %running;

END
{
	local $?;
	kill 'KILL', keys %running if %running;
}

sub start_worker
{
	my ($name, $file) = @_;
	my $pid = fork // die;
	if ($pid == 0)
	{
		$ENV{PYTHONPATH} = "$clients/python";
		$ENV{PYTHONDONTWRITEBYTECODE} = 1;
		@ENV{qw(PGHOST PGPORT PGDATABASE)} = ($dtx->coord->host, $dtx->coord->port, 'postgres');
		open STDOUT, '>>', "$PostgreSQL::Test::Utils::log_path/145_worker.log" or die;
		open STDERR, '>&', \*STDOUT;
		{ exec @{ $programs{$name} }, $file, $name =~ /pgx/ ? "pgx" : "postgres"; }
		POSIX::_exit(1);
	}
	$running{$pid} = 1;
	return $pid;
}

sub end_worker
{
	my ($pid, $signal) = @_;
	kill $signal, $pid;
	waitpid $pid, 0;
	delete $running{$pid};
	return $?;
}

sub try_sql
{
	my ($sql) = @_;
	my $deadline = time + $timeout;
	while (time < $deadline)
	{
		my ($ret, $out) = $dtx->coord->psql('postgres', $sql);
		return $out if defined $ret && $ret == 0;
		usleep(50_000);
	}
	die "not executed: $sql";
}

for my $name (sort keys %programs)
{
	my $file = "$dir/calls";
	unlink $file;
	my $first = $dtx->sql('SELECT coalesce(max(id), 0) FROM dtx.sagas');
	my @workers = map { start_worker($name, $file) } 1 .. 2;
	my ($n, $round) = (0, 0);
	my $end = time + $seconds;
	while (time < $end)
	{
		try_sql(join '', map { 'SELECT dtx.start_saga(\'order\', \'{"n": ' . ++$n . '}\');' } 1 .. 5);
		usleep(200_000);    # (a rhythm, not a wait)
		if (++$round % 3 == 0)
		{
			my $victim = shift @workers;
			end_worker($victim, 'KILL');
			push @workers, start_worker($name, $file);
		}
		if ($round == 7)
		{
			$dtx->crash($dtx->coord);
			$dtx->coord->start;
		}
		if ($round == 12)
		{
			$dtx->crash($dtx->p(1));
			$dtx->p(1)->start;
		}
	}
	my $ours = "id > $first";
	$dtx->poll($dtx->coord, "SELECT count(*) FROM dtx.sagas WHERE $ours AND state NOT IN ('completed', 'compensated')", '0',
		"$name: all sagas end");
	is($dtx->sql("SELECT count(*) FROM dtx.sagas WHERE $ours AND state = 'compensated'"), int($n / 5),
		"$name: of $n those are compensated that are to be");
	is(end_worker($_, 'TERM'), 0, "$name: ends when it is told to") for @workers;
	my %effects;
	for my $i (1, 2)
	{
		for (split /\n/, $dtx->p($i)->safe_psql('postgres', "SELECT saga, what FROM effect WHERE saga > $first ORDER BY what"))
		{
			my ($saga, $what) = split /\|/;
			$effects{$saga} .= "$what ";
		}
	}
	my %should = map { split /\|/ }
	  split /\n/, $dtx->sql("SELECT id, CASE state WHEN 'completed' THEN 'pay ship ' ELSE 'pay undo ' END FROM dtx.sagas WHERE $ours");
	is_deeply(\%effects, \%should, "$name: every effect is there once");
	my %calls;
	$calls{$_}++ for split /\n/, slurp_file($file);
	is(scalar keys %calls, $n + int($n / 5), "$name: ... and each has an idempotency key of its own");
}
is($dtx->sql('SELECT count(*) FROM dtx.saga_damage'), '0', 'no damage');
$dtx->clean('workers');

done_testing();
