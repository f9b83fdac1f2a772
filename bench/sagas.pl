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

# Rows of one state, and seconds until there are so many.
sub seconds_until
{
	my ($sql, $expected, $begin) = @_;
	usleep(20_000) until sql('coordinator', $sql) eq $expected;
	return time - $begin;
}

sub set_workers
{
	sql('coordinator', "ALTER SYSTEM SET pg_dtx.saga_workers = $_[0]");
	sql('coordinator', 'SELECT pg_reload_conf()');
	return;
}

my $unfinished = q{SELECT count(*) FROM dtx_internal.saga_record WHERE finished_at IS NULL};

# How fast sagas go on that have waited for a server: n of them, per second, from its
# first answer on.
sub after_outage
{
	my $n = shift;
	set_workers(4);
	run_quietly("$work/s2.stop", 'pg_ctl', '-D', "$work/s2", '-m', 'immediate', '-w', 'stop');
	sql('coordinator', "SELECT count(dtx.start_saga('transfer', jsonb_build_object('id', 1 + i * 7919 % $rows))) FROM generate_series(1, $n) i");
	usleep(3_000_000);
	run_quietly("$work/s2.start", 'pg_ctl', '-D', "$work/s2", '-l', "$work/s2.log", '-w', '-s', 'start');
	return $n / seconds_until($unfinished, '0', time);
}

# In a backlog of n sagas: milliseconds until the first one is completed, until one with
# priority is, and until one that has begun is canceled and compensated.
sub backlog
{
	my $n = shift;
	sql('coordinator', q{SELECT dtx.define_saga('long', dtx.step('a', 's1', 'SELECT 1', compensate => 'SELECT 1'), dtx.step_sleep('b', '1 hour'))});
	set_workers(4);
	my $id = sql('coordinator', q{SELECT dtx.start_saga('long')});
	seconds_until("SELECT state FROM dtx.saga_steps WHERE saga = $id AND step = 'b'", 'waiting', time);
	my $begin = time;
	sql('coordinator', "SELECT count(dtx.start_saga('transfer', jsonb_build_object('id', 1 + i * 7919 % $rows))) FROM generate_series(1, $n) i");
	my $started = time;
	my $first = seconds_until(q{SELECT EXISTS (SELECT FROM dtx_internal.saga_record WHERE state = 'completed' AND finished_at > '} . sql('coordinator', 'SELECT now()') . q{')}, 't', $started);
	my $now = time;
	sql('coordinator', "SELECT dtx.cancel_saga($id, 'benchmark')");
	my $cancel = seconds_until("SELECT state FROM dtx_internal.saga_record WHERE id = $id", 'compensated', $now);
	$now = time;
	my $urgent = sql('coordinator', q{SELECT dtx.start_saga('transfer', '{"id": 1}', priority => 100)});
	$urgent = seconds_until("SELECT state FROM dtx_internal.saga_record WHERE id = $urgent", 'completed', $now);
	set_workers(8);
	seconds_until($unfinished, '0', time);
	return map { $_ * 1000 } $first, $cancel, $urgent;
}

# Milliseconds per saga, with so many that have ended and so many that are scheduled.  (They
# are copies of one that is.)
sub with_history
{
	my ($ended, $scheduled) = @_;
	set_workers(0);
	my $model = sql('coordinator', q{SELECT dtx.start_saga('transfer', '{"id": 1}', run_at => now() + interval '1 year')});
	my ($definition, $from) = (sql('coordinator', "SELECT definition FROM dtx_internal.saga_record WHERE id = $model"), $model + 1);
	my $all = $ended + $scheduled;
	sql('coordinator', qq{
SET session_replication_role = replica;
INSERT INTO dtx_internal.saga_record (id, home, definition, role, boot_id, xid, state, started_at, finished_at)
SELECT $model + i, g.home, g.definition, g.role, g.boot_id, g.xid,
	CASE WHEN i <= $ended THEN 'completed' ELSE 'pending' END::dtx.saga_state, now(), CASE WHEN i <= $ended THEN now() - interval '1 day' END
FROM dtx_internal.saga_record g, generate_series(1, $all) i WHERE g.id = $model;
INSERT INTO dtx_internal.saga_data (saga, input) SELECT $model + i, '{"id": 1}' FROM generate_series(1, $all) i;
INSERT INTO dtx_internal.saga_step_record (saga, step, home, role, lane, rank, servers, state, due_at, since)
SELECT $model + i, d.step, s.home, s.role, s.lane, s.rank, s.servers,
	CASE WHEN i <= $ended THEN 'completed' ELSE 'pending' END::dtx.saga_step_state, CASE WHEN i > $ended THEN now() + interval '1 year' END, now()
FROM dtx_internal.saga_step_record s, generate_series(1, $all) i, dtx_internal.saga_definition_step_record d
WHERE s.saga = $model AND d.definition = $definition AND (i <= $ended OR d.step = 1);
INSERT INTO dtx_internal.saga_history_record (saga, step, action, outcome, started_at, finished_at)
SELECT $model + i, d.step, 'execute', 'completed', now(), now() FROM generate_series(1, $ended) i, dtx_internal.saga_definition_step_record d WHERE d.definition = $definition;
SELECT setval('dtx_internal.saga_id', $model + $all)});
	sql('coordinator', $_) for 'VACUUM ANALYZE', 'CHECKPOINT';
	my $ms = latency();
	sql('coordinator', "DELETE FROM dtx_internal.$_->[0] WHERE $_->[1] BETWEEN $model AND $model + $all")
	  for [ 'saga_record', 'id' ], [ 'saga_data', 'saga' ], [ 'saga_step_record', 'saga' ], [ 'saga_history_record', 'saga' ];
	return $ms;
}

# Seconds for n sagas, each of a role of its own, or all of one.
sub many_roles
{
	my $n = shift;
	set_workers(8);
	sql('coordinator', join '', map { "CREATE ROLE bench_$_ LOGIN; GRANT EXECUTE ON FUNCTION dtx.start_saga(text, jsonb, text, timestamptz, timestamptz, integer, integer, text, text, jsonb, text) TO bench_$_;" } 1 .. $n);
	sql('coordinator', q{SELECT dtx.define_saga('anybody', dtx.step('a', execute => 'SELECT 1')); SELECT dtx.grant_saga_definition('anybody', 'public')});
	my $begin = time;
	sql('coordinator', "SELECT count(dtx.start_saga('anybody')) FROM generate_series(1, $n)");
	my $one = seconds_until($unfinished, '0', $begin);
	$begin = time;
	sql('coordinator', join '', map { "SET ROLE bench_$_; SELECT dtx.start_saga('postgres.anybody');" } 1 .. $n);
	return ($one, seconds_until($unfinished, '0', $begin));
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
my $backlog = $ENV{BACKLOG} || 10_000;
printf "After an outage of a server, with %d sagas that wait: %.0f a second\n", $backlog / 10, after_outage($backlog / 10);
printf "In a backlog of %d: first completed after %.0f ms, canceled after %.0f ms, urgent one completed after %.0f ms\n", $backlog, backlog($backlog);
my ($ended, $scheduled) = map { $backlog * $_ } 100, 10;
printf "With %d sagas that have ended and %d that are scheduled, one alone: %.1f ms\n", $ended, $scheduled, with_history($ended, $scheduled);
printf "100 sagas of one role: %.1f s, of 100 roles: %.1f s\n", many_roles(100);
my ($sum) = map { $_->[0] + $_->[1] } [ map { sql($_, 'SELECT sum(bal) FROM account') } qw(s1 s2) ];
die "the balances do not agree: $sum\n" if $sum != 0;
