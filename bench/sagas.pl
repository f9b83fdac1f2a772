#!/usr/bin/perl
#
# How many two-step sagas a second, on two servers?  And how many transactions
# with the same SQL: both updates in one distributed transaction, and each in one
# of its own.  Called by dev/run as the user who runs the servers:
#
#	sagas.pl DIRECTORY
#
# DIRECTORY gets the servers.  ROUNDS, DURATION, CLIENTS are explained there.
#
use strict;
use warnings;

use Cwd qw(abs_path);
use List::Util qw(max min);
use Time::HiRes qw(time usleep);

my $work = abs_path(shift or die "usage: sagas.pl DIRECTORY\n");
my $rounds = $ENV{ROUNDS} || 3;
my $duration = $ENV{DURATION} || 5;
my @clients = split ' ', $ENV{CLIENTS} || '1 4 8';
my $rows = 10_000;
my %port;

delete @ENV{ grep { /^PG(?!_CONFIG)/ } keys %ENV };
$ENV{LC_MESSAGES} = 'C';
$ENV{PGUSER} = 'postgres';
$ENV{PGHOST} = $work;
STDOUT->autoflush(1);

sub run_quietly
{
	my ($log, @command) = @_;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDOUT, '>', $log or die "$log: $!\n";
		open STDERR, '>&', \*STDOUT;
		exec @command or die "$command[0]: $!\n";
	}
	waitpid $pid, 0;
	return slurp($log) if $? == 0;
	die "\"@command\" failed:\n", slurp($log);
}

sub slurp
{
	my $file = shift;
	open my $fh, '<', $file or return '';
	local $/;
	return <$fh> // '';
}

# Servers are told apart by the number of their socket only.
sub start_nodes
{
	my $number = 6000;
	for my $name (qw(coordinator s1 s2))
	{
		my $dir = "$work/$name";
		$port{$name} = $number++;
		run_quietly("$dir.initdb", 'initdb', '-D', $dir, '-N', '-A', 'trust',
			'-U', 'postgres', '-E', 'UTF8', '--no-locale');
		open my $conf, '>>', "$dir/postgresql.conf" or die "$!\n";
		print $conf <<"CONF";
listen_addresses = ''
port = $port{$name}
unix_socket_directories = '$work'
unix_socket_permissions = 0700
max_connections = 100
max_worker_processes = 64
max_prepared_transactions = 100
checkpoint_timeout = 1h
max_wal_size = 2GB
CONF
		print $conf "shared_preload_libraries = 'pg_dtx'\n"
		  if $name eq 'coordinator';
		close $conf;
		run_quietly("$dir.start", 'pg_ctl', '-D', $dir, '-l', "$dir.log", '-w', '-s', 'start');
	}
	return;
}

END
{
	my $status = $?;
	for my $name (keys %port)
	{
		system "pg_ctl -D '$work/$name' -m immediate -s stop >/dev/null 2>&1";
	}
	$? = $status;
}
$SIG{$_} = sub { exit 1 } for qw(INT TERM HUP);

sub sql
{
	my ($name, $sql) = @_;
	my $out = run_quietly("$work/psql.out", 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-p', $port{$name}, '-d', 'postgres', '-c', $sql);
	chomp $out;
	return $out;
}

my @update = (
	'UPDATE account SET bal = bal - 1 WHERE id = %s',
	'UPDATE account SET bal = bal + 1 WHERE id = %s');

sub fill_nodes
{
	for my $name (qw(s1 s2))
	{
		sql($name, qq{
CREATE TABLE account (id int PRIMARY KEY, bal bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO account SELECT i, 0 FROM generate_series(1, $rows) i});
		sql($name, 'VACUUM ANALYZE account');
	}
	sql('coordinator', 'CREATE EXTENSION pg_dtx CASCADE;'
		  . join('', map { qq{
CREATE SERVER $_ FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$work', port '$port{$_}', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER $_ OPTIONS (user 'postgres');} } qw(s1 s2))
		  . q{CREATE TABLE ledger (at timestamptz DEFAULT now(), step int);}
		  . 'SELECT dtx.define_saga($$transfer$$, '
		  . join(', ', map {
				my $sql = sprintf $update[$_ - 1], q{($1->>'id')::int};
				my $back = sprintf $update[2 - $_], q{($1->>'id')::int};
				"dtx.step('step$_', server => 's$_', execute => \$e\$$sql\$e\$, compensate => \$c\$$back\$c\$, min_rows => 1)"
			} 1, 2)
		  . ')');
	return;
}

# Transactions per second of pgbench.
sub bare
{
	my ($clients, $script) = @_;
	my $file = "$work/script.sql";
	open my $fh, '>', $file or die "$file: $!\n";
	print $fh $script;
	close $fh;
	my $out = run_quietly("$work/pgbench.out", 'pgbench', '-n', '-M', 'prepared', '-f', $file,
		'-c', $clients, '-j', min($clients, 2), '-T', $duration, '-p', $port{coordinator}, 'postgres');
	return $out =~ /^tps = ([\d.]+)/m ? $1 : die "pgbench says:\n$out";
}

sub exec_step
{
	my $i = shift;
	my $sql = sprintf $update[$i - 1], '$1';
	return "SELECT dtx.exec('s$i', '" . ($sql =~ s/\$1/\$1::int/r) . "', :id::text);\n";
}

# Sagas per second: workers against a backlog, which lasts for longer than is
# measured.
sub sagas
{
	my ($workers) = @_;
	my $state = q{SELECT count(*) FROM dtx_internal.saga_record WHERE state = 'completed'};

	sql('coordinator', "ALTER SYSTEM SET pg_dtx.saga_workers = $workers");
	sql('coordinator', 'SELECT pg_reload_conf()');
	my $n = 1000 * $duration;
	sql('coordinator', "SELECT count(dtx.start_saga('transfer', jsonb_build_object('id', 1 + i * 7919 % $rows))) FROM generate_series(1, $n) i");

	# until all of them are at work
	my $before = sql('coordinator', $state);
	usleep(20_000) until sql('coordinator', $state) > $before + 2 * $workers;
	my ($from, $begin) = (sql('coordinator', $state), time);
	usleep($duration * 1e6);
	my ($to, $end) = (sql('coordinator', $state), time);
	my $left = sql('coordinator', q{SELECT count(*) FROM dtx_internal.saga_record WHERE state IN ('pending', 'running')});
	die "only $left sagas were left at the end\n" if $left < $workers;

	sql('coordinator', 'ALTER SYSTEM SET pg_dtx.saga_workers = 0');
	sql('coordinator', 'SELECT pg_reload_conf()');
	usleep(20_000)
	  until sql('coordinator', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pg_dtx saga worker'}) eq '0';

	# What is left would be in the way of the next one.
	sql('coordinator', q{SELECT count(dtx.cancel_saga(id, 'benchmark')) FROM dtx_internal.saga_record WHERE state = 'pending'});
	sql('coordinator', 'ALTER SYSTEM SET pg_dtx.saga_workers = 8');
	sql('coordinator', 'SELECT pg_reload_conf()');
	usleep(20_000)
	  until sql('coordinator', q{SELECT count(*) FROM dtx_internal.saga_record WHERE state NOT IN ('completed', 'compensated')}) eq '0';
	sql('coordinator', 'SELECT dtx.purge_sagas(interval $$0$$)');
	sql('coordinator', 'VACUUM ANALYZE');
	return ($to - $from) / ($end - $begin);
}

# Milliseconds from the call to the end of a saga, when nothing else happens.
sub latency
{
	sql('coordinator', q{ALTER SYSTEM SET pg_dtx.saga_workers = 4});
	sql('coordinator', q{SELECT pg_reload_conf()});
	my $sql = '';
	$sql .= "\\timing off\nSELECT dtx.start_saga('transfer', '{\"id\": $_}') AS id \\gset\n\\timing on\nSELECT dtx.wait_saga(:id);\n"
	  for 1 .. 50;
	open my $fh, '>', "$work/latency.sql" or die "$!\n";
	print $fh $sql;
	close $fh;
	my $out = run_quietly("$work/latency.out", 'psql', '-XAtq', '-p', $port{coordinator}, '-d',
		'postgres', '-f', "$work/latency.sql");
	my @ms = sort { $a <=> $b } $out =~ /^Time: ([\d.]+) ms/mg;
	return $ms[ @ms / 2 ];
}

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return $sorted[ @sorted / 2 ];
}

start_nodes();
fill_nodes();
my $prepare = "\\set id random(1, $rows)\n";
my %modes = (
	'one transaction on both servers' => sub {
		bare($_[0], $prepare . "BEGIN;\n" . exec_step(1) . exec_step(2) . "COMMIT;\n");
	},
	'two transactions, each with a local row' => sub {
		bare($_[0], $prepare . join '', map {
			"BEGIN;\n" . exec_step($_) . "INSERT INTO ledger (step) VALUES ($_);\nCOMMIT;\n"
		} 1, 2);
	},
	'two-step sagas' => \&sagas);
my @order = ('one transaction on both servers', 'two transactions, each with a local row', 'two-step sagas');

my %result;
for my $round (1 .. $rounds)
{
	for my $n (@clients)
	{
		push @{ $result{$_}{$n} }, $modes{$_}->($n) for @order;
	}
}

printf "\nPer second, median of %d rounds of %d s\n\n", $rounds, $duration;
printf "%-44s%s\n", 'sessions or workers', join '', map { sprintf '%10d', $_ } @clients;
for my $mode (@order)
{
	printf "%-44s%s\n", $mode,
	  join '', map { sprintf '%10.0f', median(@{ $result{$mode}{$_} }) } @clients;
}
printf "\nOne saga alone, from its start to its end: %.1f ms (median of 50)\n", latency();
my ($sum) = map { $_->[0] + $_->[1] } [ map { sql($_, 'SELECT sum(bal) FROM account') } qw(s1 s2) ];
die "the balances do not agree: $sum\n" if $sum != 0;
