#!/usr/bin/perl
#
# What does pg_dtx cost?  Run the same transfers with and without it, in one run,
# on servers of its own, and compare; see docs/performance.md.  Called by
# dev/run as the user who runs the servers:
#
#	bench.pl DIRECTORY
#
# DIRECTORY gets the servers, and results/ with the table, CSV and chart.  What is
# measured is chosen by ROUNDS, DURATION, CLIENTS, SERVERS, DELAYS, CASES, SAMPLE,
# LOAD, FLUSH, which "dev/run help" explains.
#
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use IO::Handle;
use IO::Socket::INET;
use IPC::Open2;
use List::Util qw(max min sum0 first uniq);
use POSIX qw(WNOHANG);
use Time::HiRes qw(time usleep);

my $work = abs_path(shift or die "usage: bench.pl DIRECTORY\n");
my $here = $FindBin::RealBin;
my $results = "$work/results";
my $rows = 10_000;		# accounts of each server
my $hot_rows = 5;		# of them, where everybody meets
my $password = join '', map { sprintf '%02x', int rand 256 } 1 .. 16;

delete @ENV{ grep { /^PG(?!_CONFIG)/ } keys %ENV };
delete @ENV{qw(LANGUAGE LC_ALL)};
$ENV{LC_MESSAGES} = 'C';
$ENV{PGUSER} = 'postgres';
$ENV{PGPASSWORD} = $password;
STDOUT->autoflush(1);

sub knob
{
	my ($name, $default) = @_;
	my $value = $ENV{$name};
	$value = $default if !defined $value || $value eq '';
	return $value;
}

sub numbers
{
	my ($name, $default, $pattern) = @_;
	my @values = split /[ ,]+/, knob($name, $default);
	die "$name is a list of numbers\n"
	  if !@values || grep { !/^$pattern$/ } @values;
	return uniq @values;
}

my ($rounds) = numbers('ROUNDS', 3, qr/[1-9]\d*/);
my ($duration) = numbers('DURATION', 3, qr/[1-9]\d*/);
my ($sample) = numbers('SAMPLE', 10, qr/\d+/);
my ($load) = numbers('LOAD', 30, qr/\d+/);
my @clients = numbers('CLIENTS', '1 8 16', qr/[1-9]\d*/);
my @servers = numbers('SERVERS', '1 2 4', qr/[1-9]/);
my @delays = numbers('DELAYS', '0 1 5', qr/\d+(?:\.\d+)?/);
my $cases = knob('CASES', '');
my ($flush) = numbers('FLUSH', 0, qr/\d*\.?\d+/);
my $nservers = max @servers;

# How transactions are committed: which coordinator, which database of it, which
# settings.
my %modes = (
	plain => { label => 'postgres_fdw', node => 'plain', db => 'serial' },
	parallel => {
		label => 'postgres_fdw, parallel_commit',
		node => 'plain',
		db => 'parallel'
	},
	dtx => { label => 'pg_dtx', node => 'dtx', db => 'bench' },
	nowait => {
		label => 'pg_dtx, commit_wait = off',
		node => 'dtx',
		db => 'bench',
		options => '-c pg_dtx.commit_wait=off'
	},
	coordinator => {
		label => 'pg_dtx, commit_point = coordinator',
		node => 'dtx',
		db => 'bench',
		options => '-c pg_dtx.commit_point=coordinator'
	},
	server => {
		label => 'pg_dtx, commit_point = server',
		node => 'dtx',
		db => 'bench',
		options => '-c pg_dtx.commit_point=server'
	},
	off => {
		label => 'pg_dtx, two_phase_commit = off',
		node => 'dtx',
		db => 'bench',
		options => '-c pg_dtx.two_phase_commit=off'
	},
	absent => {
		label => 'library loaded, no extension',
		node => 'dtx',
		db => 'absent'
	},
	committed => {
		label => 'pg_dtx, read committed',
		node => 'dtx',
		db => 'bench',
		options => '-c pg_dtx.remote_isolation=read\\ committed'
	},
	client => {
		label => '2PC by the application',
		node => 'plain',
		db => 'serial',
		program => 1
	});

# What transactions do.  The mode that is named first is what others are
# compared with.
my @shapes;
for my $n (@servers)
{
	my $what = $n == 1 ? '1 server' : "$n servers";

	push @shapes,
	  {
		name => "$what, write",
		n => $n,
		modes => [
			'plain', $n > 1 ? 'parallel' : (), 'dtx',
			$n > 1 ? qw(nowait coordinator server) : (), 'off', $n == 2 ? 'absent' : (), 'client'
		]
	  };
	push @shapes,
	  {
		name => "$what, write and ledger",
		n => $n,
		ledger => 1,
		modes => [qw(plain parallel dtx nowait off client)]
	  }
	  if $n == 2 || $nservers == 1;
	push @shapes,
	  {
		name => "$what, read",
		n => $n,
		read => 1,
		modes => [qw(plain dtx)]
	  };
	push @shapes,
	  {
		name => "$what, hot rows",
		n => $n,
		hot => 1,
		modes => [qw(plain dtx committed)]
	  }
	  if $n == 2;
}

my (%node, @proxied, %proxy, %failed);

# ----------------------------------------------------------------
# Servers
# ----------------------------------------------------------------

sub slurp
{
	my $file = shift;
	open my $fh, '<', $file or return '';
	local $/;
	return <$fh> // '';
}

sub run_quietly
{
	my ($log, @command) = @_;
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>', $log or die "$log: $!\n";
		open STDERR, '>&', \*STDOUT;
		exec @command or die "$command[0]: $!\n";
	}
	waitpid $pid, 0;
	die "\"@command\" failed:\n" . slurp($log) if $? != 0;
	return;
}

sub capture
{
	my @command = @_;
	open my $fh, '-|', @command or die "$command[0]: $!\n";
	local $/;
	my $output = <$fh> // '';
	close $fh or die "\"$command[0]\" failed\n";
	return $output;
}

# Ports that nobody uses.
sub free_ports
{
	my $n = shift;
	my @sockets = map {
		IO::Socket::INET->new(
			Listen => 1,
			LocalAddr => '127.0.0.1',
			LocalPort => 0)
		  or die "no free port: $!\n"
	} 1 .. $n;
	return map { $_->sockport } @sockets;
}

sub make_nodes
{
	my @names = ('plain', 'dtx', map { "s$_" } 1 .. $nservers);
	my @ports = free_ports(2 * @names);
	my %pid;

	open my $fh, '>', "$work/password" or die "$!\n";
	print $fh "$password\n";
	close $fh;
	chmod 0600, "$work/password";

	for my $name (@names)
	{
		$node{$name} = {
			name => $name,
			dir => "$work/$name",
			port => shift @ports,
			proxy_port => shift @ports
		};
		mkdir "$work/$name" or die "$work/$name: $!\n";
		my $pid = fork // die "fork: $!\n";
		if ($pid == 0)
		{
			my $good = eval { start_node($node{$name}); 1 };
			print STDERR $@ unless $good;
			require POSIX;
			POSIX::_exit($good ? 0 : 1);
		}
		$pid{$pid} = $name;
	}
	for my $pid (keys %pid)
	{
		waitpid $pid, 0;
		$failed{start} = 1 if $?;
	}
	die "a server does not start\n" if $failed{start};
	return;
}

# Settings are those of a server that is relied on, and what keeps noise
# away: no checkpoint in a measurement, and no walwriter that flushes what a
# session would have flushed.
sub start_node
{
	my $n = shift;

	run_quietly("$n->{dir}/initdb.log", 'initdb', '-D', "$n->{dir}/data", '-N',
		'--auth-local=trust', '--auth-host=scram-sha-256',
		"--pwfile=$work/password", '-U', 'postgres', '-E', 'UTF8',
		'--no-locale');
	open my $conf, '>>', "$n->{dir}/data/postgresql.conf" or die "$!\n";
	print $conf <<"CONF";
listen_addresses = '127.0.0.1'
port = $n->{port}
unix_socket_directories = '$n->{dir}'
max_connections = 150
fsync = on
synchronous_commit = on
full_page_writes = on
checkpoint_timeout = 1h
max_wal_size = 2GB
wal_writer_delay = 10s
CONF
	print $conf "max_prepared_transactions = 150\n" if $n->{name} =~ /^s\d/;
	print $conf "shared_preload_libraries = 'pg_dtx'\n" if $n->{name} eq 'dtx';
	close $conf;
	own_disk();
	run_quietly("$n->{dir}/start.log", 'pg_ctl', '-D', "$n->{dir}/data", '-l',
		"$n->{dir}/log", '-w', '-s', 'start');
	return;
}

# With FLUSH, what this process starts from now on has a disk of its own.
sub own_disk
{
	return unless $flush > 0;
	$ENV{OWN_DISK_US} = int($flush * 1000 + 0.5);
	$ENV{LD_PRELOAD} = join ' ', "$here/own_disk.so", $ENV{LD_PRELOAD} // ();
	return;
}

sub stop_nodes
{
	for my $n (values %node)
	{
		next unless -f "$n->{dir}/data/postmaster.pid";
		system "pg_ctl -D '$n->{dir}/data' -m immediate -s stop >/dev/null 2>&1";
	}
	return;
}

# Run SQL in a session that stays open, so that measuring costs little.  Returns
# the output, fields separated by "|".
sub sql
{
	my ($name, $sql, $db) = @_;
	my $n = $node{$name};
	my $s = $n->{session}{ $db //= 'postgres' } //= do
	{
		local $ENV{PGAPPNAME} = 'bench';
		my ($out, $in);
		open2($out, $in, 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-h',
			$n->{dir}, '-p', $n->{port}, '-d', $db, '-f', '-');
		$in->autoflush(1);
		{ in => $in, out => $out };
	};
	my $text = '';

	print { $s->{in} } "$sql\n;\n\\echo [end]\n";
	while (1)
	{
		my $line = readline $s->{out};
		die "SQL failed on $name:\n$sql\n" unless defined $line;
		last if $line eq "[end]\n";
		$text .= $line;
	}
	chomp $text;
	return $text;
}

sub fill_nodes
{
	for my $i (1 .. $nservers)
	{
		# space for versions of a row on its own page, as one would set it
		# who updates that often
		sql("s$i", qq{
CREATE TABLE account (id int PRIMARY KEY, bal bigint NOT NULL)
	WITH (fillfactor = 50);
INSERT INTO account SELECT i, 0 FROM generate_series(1, $rows) i});
	}
	for my $m ([ plain => 'serial' ], [ plain => 'parallel' ], [ dtx => 'bench' ],
		[ dtx => 'absent' ])
	{
		my ($name, $db) = @$m;
		my $options = $db eq 'parallel' ? "parallel_commit 'true'," : '';

		sql($name, "CREATE DATABASE $db");
		sql($name, 'CREATE EXTENSION postgres_fdw', $db);
		sql($name, 'CREATE EXTENSION pg_dtx', $db) if $db eq 'bench';
		sql($name, q{
CREATE TABLE ledger (at timestamptz DEFAULT now(), amount int);
CREATE TABLE app_decision (client int PRIMARY KEY, gid text NOT NULL)
	WITH (fillfactor = 20)}, $db);
		for my $i (1 .. $nservers)
		{
			sql($name, qq{
CREATE SERVER s$i FOREIGN DATA WRAPPER postgres_fdw
	OPTIONS ($options host '127.0.0.1', port '$node{"s$i"}{port}', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s$i
	OPTIONS (user 'postgres', password '$password');
CREATE FOREIGN TABLE account$i (id int, bal bigint) SERVER s$i
	OPTIONS (table_name 'account')}, $db);
		}
	}

	# Pages have been written to the log since the checkpoint, and rows lie
	# where they will lie.
	for my $name (keys %node)
	{
		sql($name, 'CHECKPOINT');
		next unless $name =~ /^s\d/;
		sql($name, 'UPDATE account SET bal = 0');
		sql($name, 'VACUUM ANALYZE account');
	}
	return;
}

# ----------------------------------------------------------------
# The network
# ----------------------------------------------------------------

# Everything through the proxy, with that delay each way; undef: directly.
sub set_network
{
	my ($delay, %params) = @_;

	stop_proxy();
	start_proxy($delay, %params) if defined $delay;
	for my $m ([ plain => 'serial' ], [ plain => 'parallel' ], [ dtx => 'bench' ],
		[ dtx => 'absent' ])
	{
		my ($name, $db) = @$m;
		sql($name, join(';',
				map { "ALTER SERVER s$_ OPTIONS (SET port '" . port("s$_") . "')" }
				  1 .. $nservers), $db);
	}
	return;
}

sub start_proxy
{
	my ($delay, %params) = @_;
	my @pairs = map { "$_->{proxy_port}:$_->{port}" } @proxied;
	my ($in, $out);

	push @pairs, @{ $params{more} // [] };
	$proxy{pid} = open2($out, $in, "$here/proxy", '-d', int($delay * 1000), '-s',
		"$work/counters", $params{trace} ? ('-t', $params{trace}) : (), @pairs);
	$proxy{in} = $in;
	my $line = readline $out;
	die "the proxy does not start\n" unless ($line // '') eq "ready\n";
	return;
}

sub stop_proxy
{
	return unless $proxy{pid};
	close $proxy{in};
	waitpid $proxy{pid}, 0;
	%proxy = ();
	return;
}

sub port
{
	my $n = $node{ $_[0] };
	return $proxy{pid} ? $n->{proxy_port} : $n->{port};
}

# Is the delay what it is said to be?  Returns the median and the 99th percentile
# of the time there and back over 2, and the median without the proxy,
# milliseconds.
sub check_delay
{
	my $delay = shift;
	my $listener = IO::Socket::INET->new(
		Listen => 5,
		LocalAddr => '127.0.0.1') or die "$!\n";
	my ($port) = free_ports(1);
	my $pid = fork // die "fork: $!\n";
	my @result;

	if ($pid == 0)
	{
		# an echo, for one connection after the other
		alarm 60;
		while (my $s = $listener->accept)
		{
			my $byte;
			$s->setsockopt(Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1);
			syswrite $s, $byte while sysread $s, $byte, 1;
		}
		require POSIX;
		POSIX::_exit(0);
	}
	start_proxy($delay, more => [ "$port:" . $listener->sockport ]);
	for my $p ($port, $listener->sockport)
	{
		my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $p)
		  or die "$!\n";
		my @times;

		$s->setsockopt(Socket::IPPROTO_TCP(), Socket::TCP_NODELAY(), 1);
		for (1 .. 100)
		{
			my $begun = time;
			my $byte = 'x';
			syswrite $s, $byte;
			sysread $s, $byte, 1;
			push @times, (time - $begun) * 500;
		}
		push @result, percentile(50, @times), percentile(99, @times);
		close $s;
	}
	stop_proxy();
	kill 'TERM', $pid;
	waitpid $pid, 0;
	return @result[ 0 .. 2 ];
}

# ----------------------------------------------------------------
# Measuring
# ----------------------------------------------------------------

sub percentile
{
	my ($p, @values) = @_;
	return undef unless @values;
	@values = sort { $a <=> $b } @values;
	return $values[ max(0, int(@values * $p / 100 + 0.999999) - 1) ];
}

sub median
{
	my @values = sort { $a <=> $b } grep { defined } @_;
	return undef unless @values;
	my $half = int(@values / 2);
	return @values % 2 ? $values[$half] : ($values[ $half - 1 ] + $values[$half]) / 2;
}

sub write_script
{
	my $shape = shift;
	my $n = $shape->{n};
	my $script = "$work/" . ($shape->{name} =~ s/\W+/_/gr) . '.sql';
	my $limit = $shape->{hot} ? $hot_rows : $rows;
	my $sql = "\\set amount random(1, 100)\n";

	$sql .= "\\set id$_ random(1, $limit)\n" for 1 .. $n;
	$sql .= "BEGIN;\n";
	for my $i (1 .. $n)
	{
		my $change = $n == 1 ? '+ 0' : $i == 1 ? '- :amount' : $i == $n ? '+ :amount' : '+ 0';
		$sql .=
		  $shape->{read}
		  ? "SELECT bal FROM account$i WHERE id = :id$i;\n"
		  : "UPDATE account$i SET bal = bal $change WHERE id = :id$i;\n";
	}
	$sql .= "INSERT INTO ledger (amount) VALUES (:amount);\n" if $shape->{ledger};
	$sql .= "COMMIT;\n";
	open my $fh, '>', $script or die "$script: $!\n";
	print $fh $sql;
	close $fh;
	return $script;
}

# Run one mode's transactions, for some seconds or a number for each client.
sub run_load
{
	my ($shape, $mode, $clients, $how, $amount, %params) = @_;
	my $m = $modes{$mode};
	my $n = $node{ $m->{node} };
	my $log = "$work/transactions";
	my $limit = $shape->{hot} ? $hot_rows : $rows;
	my @command;

	unlink glob("$log.*");
	if ($m->{program})
	{
		my $local = 
			  $params{through_proxy}
			  ? "host=127.0.0.1 port=$n->{proxy_port} dbname=$m->{db}"
			  : "host=$n->{dir} port=$n->{port} dbname=$m->{db}";
		@command = (
			"$here/client2pc", '-c', $clients, $how, $amount, '-n', $limit,
			$shape->{ledger} ? '-L' : (), '-l', $log, $local,
			map { "host=127.0.0.1 dbname=postgres port=" . port("s$_") }
			  1 .. $shape->{n});
	}
	else
	{
		my ($host, $port) =
		  $params{through_proxy}
		  ? ('127.0.0.1', $n->{proxy_port})
		  : ($n->{dir}, $n->{port});
		@command = (
			'pgbench', '-n', '-M', 'prepared', '-f', write_script($shape),
			'-c', $clients, '-j', min($clients, 2), $how, $amount, '-l',
			"--log-prefix=$log", '--max-tries=10000', '-h', $host, '-p', $port,
			$m->{db});
	}
	local $ENV{PGOPTIONS} = $m->{options} // '';
	run_quietly("$work/load.log", @command);
	if ($m->{program} ? 0 : slurp("$work/load.log") =~ /aborted/)
	{
		die slurp("$work/load.log");
	}
	wait_for_exits();

	# not "return glob": that would begin an iteration where nobody asks
	my @files = glob("$log.*");
	return @files;
}

# Backends report what they did when they exit.
sub wait_for_exits
{
	my $deadline = time + 60;

	for my $name (keys %node)
	{
		until (
			sql($name, q{
SELECT count(*) FROM pg_stat_activity
WHERE application_name IN ('postgres_fdw', 'pgbench', 'client2pc')
	AND backend_type = 'client backend'}) eq '0')
		{
			die "sessions on $name do not end\n" if time > $deadline;
			usleep(5_000);
		}
	}
	return;
}

# Since when: WAL flushes (fsyncs of the log by sessions) and bytes of a node.
sub wal
{
	my $name = shift;
	my $version = $node{$name}{version} //= sql($name, 'SHOW server_version_num');
	my $flushes =
	  $version >= 180000
	  ? q{(SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io
		WHERE object = 'wal' AND backend_type <> 'walwriter')}
	  : 'wal_sync';
	my @fields = split /\|/, sql($name, "SELECT $flushes, wal_bytes FROM pg_stat_wal");
	return { flushes => $fields[0], bytes => $fields[1] };
}

# Times in milliseconds, ends in seconds, retries, of what is in the log files.
sub read_log
{
	my @files = @_;
	my @transactions;

	for my $file (@files)
	{
		open my $fh, '<', $file or die "$file: $!\n";
		while (<$fh>)
		{
			my @f = split;
			next if $f[2] !~ /^\d/;
			push @transactions,
			  [ $f[4] + $f[5] / 1e6, $f[2] / 1000, $f[6] // 0 ];
		}
	}
	return sort { $a->[0] <=> $b->[0] } @transactions;
}

sub measure
{
	my ($shape, $mode, $clients) = @_;
	my @nodes = ($modes{$mode}{node}, map { "s$_" } 1 .. $shape->{n});
	my %before = map { $_ => wal($_) } @nodes;
	my @all = read_log(run_load($shape, $mode, $clients, '-T', $duration));
	my %after = map { $_ => wal($_) } @nodes;
	my (%m, @times);

	die "no transactions\n" unless @all;

	# Connections, caches and plans are made in the beginning.
	my $since = $all[0][0] + min(1, 0.15 * $duration);
	my @warm = grep { $_->[0] > $since } @all;
	($since, @warm) = ($all[0][0] - $all[0][1] / 1000, @all) if @warm < 5;
	@times = map { $_->[1] } @warm;

	$m{tps} = @warm / max(0.000001, $all[-1][0] - $since);
	$m{mean} = sum0(@times) / @times;
	$m{p99} = percentile(99, @times);
	$m{retries} = sum0(map { max(0, $_->[2]) } @all) / @all;
	for my $what (qw(flushes bytes))
	{
		$m{$what} =
		  [ map { ($after{$_}{$what} - $before{$_}{$what}) / @all } @nodes ];
	}
	return \%m;
}

# ----------------------------------------------------------------
# Where the time goes
# ----------------------------------------------------------------

# What the proxy saw of transactions with one client: a list of transactions,
# each a hash of begin, end (microseconds), and steps, which are hashes of who was
# asked, what, begin, end, and whether it was a round trip of its own.
sub trace_transactions
{
	my ($shape, $mode) = @_;
	my $trace = "$work/trace";
	my $program = $modes{$mode}{program};
	my (%text, @transactions, $current, %open);

	start_proxy(0, trace => $trace);
	run_load($shape, $mode, 1, '-t', 130, through_proxy => 1);
	stop_proxy();

	open my $fh, '<', $trace or die "$trace: $!\n";
	while (my $line = <$fh>)
	{
		chomp $line;
		my ($at, $pair, $conn, $direction, undef, $what) = split / /, $line, 6;
		my $name = $proxied[$pair]{name};
		my @messages = split /\|/, $what // '';
		my $open = $open{$conn} //= [];

		if ($direction eq '<')
		{
			# ready for the next query: once for each query or end of a pipeline
			for (grep { $_ eq 'Z' } @messages)
			{
				next unless @$open && --$open->[0]{due} == 0;
				my $step = shift @$open;
				$step->{end} = $at;
				$step->{of}{end} = $at if $step->{of} && $step->{last};
			}
			next;
		}

		my $due = grep { /^[QS]/ } @messages;
		my @labels;
		for my $message (@messages)
		{
			my $said;
			if ($message =~ /^P\[(.*?)\](.*)/) { $said = $text{$conn}{$1} = $2 }
			elsif ($message =~ /^B\[(.*?)\]/) { $said = $text{$conn}{$1} }
			elsif ($message =~ /^Q(.*)/) { $said = $1 }
			push @labels, label($_) for split /;\s*/, $said // '';
		}
		@labels = uniq @labels;
		next unless $due && @labels;

		if ($program
			? $name eq 's1' && $labels[0] eq 'BEGIN'
			: $name !~ /^s\d/ && $labels[0] eq 'BEGIN')
		{
			$current = { begin => $at, steps => [] };
			push @transactions, $current;
		}
		my $step = {
			who => $name, what => join('; ', @labels), begin => $at, due => $due,
			trip => !@$open, of => $current,
			last => $program
			  ? $labels[0] eq 'COMMIT PREPARED' || $name eq 's1' && $labels[0] eq 'COMMIT'
			  : $name !~ /^s\d/ && $labels[0] eq 'COMMIT'
		};
		push @$open, $step;
		push @{ $current->{steps} }, $step if $current;
	}
	close $fh;
	delete $_->{of} for map { @{ $_->{steps} } } @transactions;

	# The first ones are not like the others: connections, caches, plans.
	splice @transactions, 0, 30;
	@transactions = grep { $_->{end} } @transactions;
	die "the proxy saw no transactions\n" unless @transactions;
	return @transactions;
}

sub label
{
	my $said = shift;
	return () if $said !~ /\w/;
	return uc $1
	  if $said =~ /^\s*(START TRANSACTION|PREPARE TRANSACTION|COMMIT PREPARED|DEALLOCATE ALL)/i;
	return $said =~ /^\s*(\w+)/ ? uc $1 : '?';
}

# Round trips per transaction: a list for the servers, and how many of them come
# one after the other before COMMIT returns; that is what a network costs.
sub count_round_trips
{
	my ($shape, @transactions) = @_;
	my (@trips, @sequence);

	for my $t (@transactions)
	{
		my @steps = grep { $_->{who} =~ /^s\d/ && $_->{trip} } @{ $t->{steps} };
		my $free = 0;
		my $n = 0;

		for my $i (1 .. $shape->{n})
		{
			push @{ $trips[ $i - 1 ] }, scalar grep { $_->{who} eq "s$i" } @steps;
		}

		# the most that do not overlap
		for my $step (
			sort { $a->{end} <=> $b->{end} }
			grep { $_->{end} && $_->{end} <= $t->{end} } @steps)
		{
			next if $step->{begin} < $free;
			$free = $step->{end};
			$n++;
		}
		push @sequence, $n;
	}
	return { by_server => [ map { median(@$_) } @trips ], sequence => median(@sequence) };
}

# The steps of a transaction: lines [begin, end, who is asked, what], medians in
# microseconds since its begin.
sub timeline
{
	my @transactions = @_;
	my (%begin, %end, @lines);

	for my $t (@transactions)
	{
		my %seen;
		for my $step (@{ $t->{steps} })
		{
			next unless defined $step->{end};
			my $key = "$step->{who}|$step->{what}";
			$key .= ' ' . $seen{$key} if $seen{$key}++;
			push @{ $begin{$key} }, $step->{begin} - $t->{begin};
			push @{ $end{$key} }, $step->{end} - $t->{begin};
		}
	}
	for my $key (keys %begin)
	{
		next if @{ $begin{$key} } < @transactions / 2;
		push @lines,
		  [ median(@{ $begin{$key} }), median(@{ $end{$key} }), split /\|/, $key ];
	}
	return sort { $a->[0] <=> $b->[0] || $a->[1] <=> $b->[1] } @lines;
}

# ----------------------------------------------------------------
# What sessions wait for, and what stays behind
# ----------------------------------------------------------------

# Samples of all sessions of a coordinator while many clients work: a hash of the
# share of samples by wait event.
sub sample_waits
{
	my ($shape, $mode, $clients, $seconds) = @_;
	my $name = $modes{$mode}{node};
	my $pid = fork // die "fork: $!\n";
	my %count;

	if ($pid == 0)
	{
		$_->{session} = {} for values %node;
		my $good = eval { run_load($shape, $mode, $clients, '-T', $seconds); 1 };
		print STDERR $@ unless $good;
		require POSIX;
		POSIX::_exit($good ? 0 : 1);
	}
	my $until = time + $seconds;
	my $status;
	usleep(500_000) if $seconds > 1;

	# On a slow machine the clients may come late.
	while (time < $until || !%count && !defined $status)
	{
		for my $line (
			split /\n/, sql($name, q{
SELECT coalesce(wait_event_type || ' ' || wait_event, 'running'), count(*)
FROM pg_stat_activity
WHERE application_name = 'pgbench' AND backend_type = 'client backend'
GROUP BY 1}))
		{
			my ($event, $n) = split /\|/, $line;
			$count{$event} += $n;
		}
		usleep(20_000);
		$status = $? if !defined $status && waitpid($pid, WNOHANG) == $pid;
	}
	if (!defined $status)
	{
		waitpid $pid, 0;
		$status = $?;
	}
	die "the load failed\n" if $status;
	my $total = sum0(values %count) || 1;
	return { map { $_ => $count{$_} / $total } keys %count };
}

# A long load: is what a commit leaves on the coordinator constant?
sub watch_growth
{
	my ($shape, $clients, $seconds) = @_;
	my @lines;
	my $looks = min($seconds, 4);
	my $previous;

	for my $i (0 .. $looks)
	{
		run_load($shape, 'dtx', $clients, '-T', max(1, int($seconds / $looks)))
		  if $i > 0;
		my ($commits, $handed) = split /\|/,
		  sql('dtx', 'SELECT two_phase, handed_over FROM dtx.stat', 'bench');
		my ($rows_left, $size) = split /\|/,
		  sql('dtx', q{SELECT count(*), pg_relation_size('dtx_internal.decision') FROM dtx_internal.decision}, 'bench');
		my $in_doubt = sql('dtx', 'SELECT count(*) FROM dtx.in_doubt', 'bench');
		my $wal = wal('dtx');
		my $now = {
			commits => $commits, rows => $rows_left, size => $size,
			in_doubt => $in_doubt, %$wal
		};
		if ($previous)
		{
			my $n = max(1, $commits - $previous->{commits});
			$now->{$_ . '_each'} = ($now->{$_} - $previous->{$_}) / $n
			  for qw(flushes bytes);
		}
		push @lines, $now;
		$previous = $now;
	}
	return @lines;
}

# ----------------------------------------------------------------
# Results
# ----------------------------------------------------------------

my (%measured, %trips, %timeline, @table, %files, @report);

sub say_and_keep
{
	my $text = join '', @_;
	print "$text\n";
	push @report, $text;
	return;
}

sub number
{
	my ($value, $digits) = @_;
	return defined $value ? sprintf "%.${digits}f", $value : '-';
}

sub case_name
{
	my ($shape, $mode, $clients, $delay) = @_;
	return sprintf '%s, %s, %s, %s ms', $shape->{name}, $modes{$mode}{label},
	  $clients == 1 ? '1 client' : "$clients clients", $delay;
}

sub wanted
{
	return $cases eq '' || case_name(@_) =~ /$cases/;
}

# Fixed-width text; the first column is left-aligned.
sub print_table
{
	my @lines = @_;
	my @width;

	for my $line (@lines)
	{
		$width[$_] = max($width[$_] // 0, length $line->[$_]) for 0 .. $#$line;
	}
	for my $line (@lines)
	{
		say_and_keep(
			join '  ',
			map {
				sprintf $_ == 0 ? "%-$width[$_]s" : "%$width[$_]s", $line->[$_]
			} 0 .. $#$line);
	}
	return;
}

sub each_measured
{
	my $callback = shift;

	for my $delay (@delays)
	{
		for my $shape (@shapes)
		{
			for my $clients (@clients)
			{
				for my $mode (@{ $shape->{modes} })
				{
					my $key = case_name($shape, $mode, $clients, $delay);
					$callback->($shape, $mode, $clients, $delay, $measured{$key})
					  if $measured{$key};
				}
			}
		}
	}
	return;
}

# Medians over the rounds; ratios are taken within a round.
sub summarize
{
	each_measured(
		sub {
			my ($shape, $mode, $clients, $delay, $runs) = @_;
			my $base = $measured{ case_name($shape, $shape->{modes}[0], $clients, $delay) };
			my $still = $measured{ case_name($shape, $mode, $clients, $delays[0]) };
			my %r = (
				shape => $shape, mode => $mode, clients => $clients, delay => $delay,
				rounds => scalar @$runs);

			for my $what (qw(tps mean p99 retries))
			{
				$r{$what} = median(map { $_->{$what} } @$runs);
			}
			for my $what (qw(flushes bytes))
			{
				$r{$what} = [
					map {
						my $i = $_;
						median(map { $_->{$what}[$i] } @$runs)
					} 0 .. $shape->{n}
				];
			}
			for my $what (qw(tps mean))
			{
				$r{"${what}_ratio"} = median(
					map { $base->[$_] ? $runs->[$_]{$what} / $base->[$_]{$what} : undef }
					  0 .. $#$runs)
				  if $base;
			}
			$r{trips} = $trips{"$shape->{name}|$mode"};

			# the network's share of the latency, in round trips
			$r{slope} =
			  ($r{mean} - median(map { $_->{mean} } @$still)) / (2 * ($delay - $delays[0]))
			  if $clients == 1 && $still && $delay > $delays[0];
			push @table, \%r;
		});
	return;
}

sub mean_of
{
	my @values = @_;
	return @values ? sum0(@values) / @values : undef;
}

sub show_table
{
	my $previous = '';
	my @lines;
	my $flush = sub {
		print_table(@lines) if @lines;
		@lines = ();
	};

	for my $r (@table)
	{
		my $group = sprintf '%s, %s', $r->{shape}{name},
		  $r->{delay} > 0 ? "$r->{delay} ms each way" : 'no delay';
		if ($group ne $previous)
		{
			$flush->();
			say_and_keep('');
			say_and_keep($group);
			push @lines,
			  [ '', qw(clients tps ratio mean p99 ratio trips in-seq flushes WAL retries) ];
			$previous = $group;
		}
		my ($local_flushes, @flushes) = @{ $r->{flushes} };
		my ($local_bytes, @bytes) = @{ $r->{bytes} };
		push @lines,
		  [
			$modes{ $r->{mode} }{label}, $r->{clients}, number($r->{tps}, 0),
			number($r->{tps_ratio}, 2), number($r->{mean}, 2),
			number($r->{p99}, 2), number($r->{mean_ratio}, 2),
			$r->{trips} ? number(mean_of(@{ $r->{trips}{by_server} }), 1) : '-',
			$r->{trips} ? number($r->{trips}{sequence}, 0) : '-',
			number($local_flushes, 2) . ' + ' . number(mean_of(@flushes), 2),
			number($local_bytes, 0) . ' + ' . number(mean_of(@bytes), 0),
			number($r->{retries}, 2)
		  ];
	}
	$flush->();
	return;
}

sub write_csv
{
	open my $fh, '>', "$results/performance.csv" or die "$!\n";
	print $fh join(',', qw(delay_ms shape clients mode rounds tps tps_ratio mean_ms p99_ms
		  mean_ratio round_trips_by_server sequential_round_trips latency_in_round_trips flushes_coordinator
		  flushes_by_server wal_bytes_coordinator wal_bytes_by_server retries)), "\n";
	for my $r (@table)
	{
		my ($local_flushes, @flushes) = @{ $r->{flushes} };
		my ($local_bytes, @bytes) = @{ $r->{bytes} };
		my @fields = (
			$r->{delay}, qq{"$r->{shape}{name}"}, $r->{clients},
			qq{"$modes{ $r->{mode} }{label}"}, $r->{rounds}, number($r->{tps}, 1),
			number($r->{tps_ratio}, 3), number($r->{mean}, 3),
			number($r->{p99}, 3), number($r->{mean_ratio}, 3),
			join(' ', map { number($_, 2) } @{ $r->{trips} ? $r->{trips}{by_server} : [] }),
			number($r->{trips} ? $r->{trips}{sequence} : undef, 0),
			number($r->{slope}, 2), number($local_flushes, 3),
			join(' ', map { number($_, 3) } @flushes),
			number($local_bytes, 0),
			join(' ', map { number($_, 0) } @bytes),
			number($r->{retries}, 3));
		print $fh join(',', map { $_ eq '-' ? '' : $_ } @fields), "\n";
	}
	close $fh;
	return;
}

# One panel for each delay and number of clients: throughput relative to plain
# postgres_fdw, groups of bars for what transactions do.
sub write_chart
{
	my @wide = grep { !$_->{hot} } @shapes;
	my @bars = grep { $_ ne 'plain' && $_ ne 'committed' } qw(parallel dtx nowait off absent client);
	my (@panels, $data);
	my %at = map { ("$_->{delay}|$_->{shape}{name}|$_->{clients}|$_->{mode}" => $_) } @table;
	my %color = (
		parallel => '#9aa5b1', dtx => '#1f6feb', nowait => '#79b8ff',
		off => '#d0d7de', absent => '#8c959f', client => '#e69f00');

	@wide = grep {
		my $shape = $_;
		grep { $_->{shape} == $shape } @table
	} @wide;
	return unless @wide;
	# without postgres_fdw's own figures there is nothing to compare with
	@bars = grep {
		my $mode = $_;
		grep { $_->{mode} eq $mode && defined $_->{tps_ratio} } @table
	} @bars;
	return unless @bars;
	for my $delay (@delays)
	{
		for my $clients (@clients)
		{
			my $name = '$panel' . @panels;
			$data .= "$name << EOD\n";
			for my $shape (@wide)
			{
				(my $label = $shape->{name}) =~ s/, /\\n/;
				$label =~ s/write and ledger/ledger/;
				$data .= join(' ', qq{"$label"},
					map {
						my $r = $at{"$delay|$shape->{name}|$clients|$_"};
						$r && defined $r->{tps_ratio} ? $r->{tps_ratio} : 'NaN'
					} @bars) . "\n";
			}
			$data .= "EOD\n";
			push @panels,
			  [
				$name,
				sprintf('%s, %s',
					$delay > 0 ? "$delay ms each way" : 'no delay',
					$clients == 1 ? '1 client' : "$clients clients")
			  ];
		}
	}
	if (system("command -v gnuplot >/dev/null") != 0)
	{
		print "gnuplot is not installed: no chart\n";
		return;
	}
	my ($width, $height) = (max(700, 460 * @clients), 280 * @delays + 130);

	# room for the title and, below, for what the colors mean; for labels between
	my ($top, $bottom) = (1 - 60 / $height, 110 / $height);
	my ($across, $down) = (60 / $width, 85 / $height);
	my $script = "$work/chart.gp";
	open my $fh, '>', $script or die "$!\n";
	print $fh <<"GP";
set terminal svg size $width,$height dynamic noenhanced font "Helvetica,11" background "#ffffff"
set output '$results/performance.svg'
set encoding utf8
set style data histograms
set style histogram clustered gap 1
set style fill solid 1.0 noborder
set boxwidth 0.9
set grid ytics lc rgb "#dddddd"
set border 3 lc rgb "#666666"
set xtics nomirror scale 0
set ytics nomirror
set datafile missing 'NaN'
$data
set key at screen 0.5,0.01 center bottom horizontal samplen 1 maxrows 2
set multiplot layout ${\scalar @delays},${\scalar @clients} margins screen $across,0.98,$bottom,$top spacing screen $across,$down title "Throughput relative to plain postgres_fdw (1.0; higher is better)"
GP
	for my $i (0 .. $#panels)
	{
		my ($name, $title) = @{ $panels[$i] };
		print $fh "set title \"$title\"\n";
		print $fh "unset key\n" if $i == 1;
		print $fh "set yrange [0:*<4]\nset arrow 1 from graph 0, first 1 to graph 1, first 1 nohead lc rgb '#cc0000' dt 2 front\n";
		print $fh "plot ", join(
			', ',
			map {
				    "$name using "
				  . ($_ + 2)
				  . ($_ == 0 ? ':xtic(1)' : '')
				  . " title \"" . $modes{ $bars[$_] }{label}
				  . "\" lc rgb '$color{ $bars[$_] }'"
			} 0 .. $#bars), "\n";
	}
	print $fh "unset multiplot\n";
	close $fh;
	run_quietly("$work/gnuplot.log", 'gnuplot', $script);
	return;
}

# Nobody has made or lost money, in whatever way it was committed.
sub check_balances
{
	my $total = 0;

	# what commit_wait = off left on the wire
	my $deadline = time + 60;
	for my $i (1 .. $nservers)
	{
		until (sql("s$i", 'SELECT count(*) FROM pg_prepared_xacts') eq '0')
		{
			die "transactions stay prepared on s$i\n" if time > $deadline;
			usleep(100_000);
		}
		$total += sql("s$i", 'SELECT sum(bal) FROM account');
	}
	die "balances add up to $total, not to 0\n" if $total != 0;
	return;
}

# How long a flush takes, as a server's process has it.
sub fsync_time
{
	local %ENV = %ENV;
	own_disk();
	my $times = capture('perl', '-MIO::Handle', '-MTime::HiRes=time', '-e', q{
open my $fh, '+>', $ARGV[0] or die "$!\n";
for (1 .. 100)
{
	sysseek $fh, 0, 0;
	syswrite $fh, 'x' x 8192;
	my $begun = time;
	$fh->sync;
	print +(time - $begun) * 1000, "\n";
}}, "$work/fsync");
	unlink "$work/fsync";
	return median(split /\n/, $times);
}

# ----------------------------------------------------------------
# The run
# ----------------------------------------------------------------

my $main = $$;
END
{
	local $?;
	if (defined $main && $$ == $main)
	{
		stop_proxy();
		stop_nodes();
	}
}
$SIG{INT} = $SIG{TERM} = $SIG{HUP} = sub { exit 130 };
$SIG{PIPE} = 'IGNORE';

mkdir $results or die "$results: $!\n";
my $begun = time;
make_nodes();
fill_nodes();

# the order of the proxy's pairs
@proxied = map { $node{$_} } 'plain', 'dtx', map { "s$_" } 1 .. $nservers;
my $has_isolation =
  sql('dtx', q{SELECT count(*) FROM pg_settings WHERE name = 'pg_dtx.remote_isolation'}, 'bench');
for my $shape (@shapes)
{
	@{ $shape->{modes} } = grep { $_ ne 'committed' || $has_isolation } @{ $shape->{modes} };
}

# What is going to be measured, in the order of a round.
my @plan;
for my $delay (@delays)
{
	for my $clients (@clients)
	{
		for my $shape (@shapes)
		{
			# conflicts need more than one, and the network is not the point
			next if $shape->{hot} && ($clients == 1 || $delay != $delays[0]);
			push @plan, map { [ $shape, $_, $clients, $delay ] }
			  grep { wanted($shape, $_, $clients, $delay) } @{ $shape->{modes} };
		}
	}
}
die "no case matches \"$cases\"\n" unless @plan;

say_and_keep(sprintf '%s, %d processors, Linux %s',
	sql('dtx', q{SELECT 'PostgreSQL ' || current_setting('server_version')}),
	scalar(() = slurp('/proc/cpuinfo') =~ /^processor\s*:/mg), `uname -r` =~ s/^(\d+\.\d+).*/$1/sr);
say_and_keep(sprintf '%swriting 8 kB to disk (fsync) takes %.2f ms',
	$flush > 0 ? 'disks of their own for all servers: ' : '', fsync_time());
for my $delay (grep { $_ > 0 } @delays)
{
	my ($median, $p99, $without) = check_delay($delay);
	say_and_keep(
		sprintf 'a delay of %s ms each way is %.2f ms (99%%: %.2f ms; without it %.3f ms)',
		$delay, $median, $p99, $without);
}
printf "%d measurements of %d s, about %d minutes\n", @plan * $rounds, $duration,
  (@plan * $rounds * ($duration + 0.8) + $sample * 2 + $load) / 60 + 1;

my $sampled = first { $_->{n} == 2 && !$_->{read} && !$_->{hot} && !$_->{ledger} } @shapes;
$sampled //= first { !$_->{read} && !$_->{hot} } reverse @shapes;

# Round trips are the same whatever else happens.
set_network(0);
stop_proxy();
{
	my %wanted;
	for my $case (@plan)
	{
		my ($shape, $mode) = @$case;
		next if $wanted{"$shape->{name}|$mode"}++ || $shape->{hot};
		my @seen = trace_transactions($shape, $mode);
		$trips{"$shape->{name}|$mode"} = count_round_trips($shape, @seen);
		$timeline{$mode} = [ timeline(@seen) ] if $shape == $sampled;
	}
}

for my $round (1 .. $rounds)
{
	my $network = '';
	my $step = 0;

	for my $case (@plan)
	{
		my ($shape, $mode, $clients, $delay) = @$case;

		if ($network ne $delay)
		{
			set_network($delay > 0 ? $delay : undef);
			$network = $delay;
		}
		$step++;
		my $key = case_name($shape, $mode, $clients, $delay);
		my $m = measure($shape, $mode, $clients);
		push @{ $measured{$key} }, $m;
		printf "%d/%d %d/%d %s: %.0f tps, %.2f ms\n", $round, $rounds, $step,
		  scalar @plan, $key, $m->{tps}, $m->{mean};
	}
}
set_network(undef);
check_balances();

summarize();
say_and_keep('');
say_and_keep("Medians of $rounds rounds of $duration s; ratios to the first line; times in ms.");
say_and_keep('trips: round trips per transaction and server; in-seq: those that come one after the other before COMMIT returns');
say_and_keep('flushes, WAL: per transaction, of the coordinator + of each server (flushes of the log; bytes)');
show_table();
write_csv();

# Where the time goes.
for my $mode (grep { $timeline{$_} } qw(plain parallel dtx nowait client))
{
	say_and_keep('');
	say_and_keep(
		"Steps of a transaction, $sampled->{name}, $modes{$mode}{label}, 1 client, no delay (microseconds, medians)"
	);
	print_table(
		[ qw(asked begin end takes) ],
		map {
			[
				($_->[2] =~ /^s\d/ ? "  $_->[2]" : "coordinator") . ": $_->[3]",
				number($_->[0], 0), number($_->[1], 0),
				number($_->[1] - $_->[0], 0)
			]
		} @{ $timeline{$mode} });
}

if ($sample > 0)
{
	my @columns = qw(plain dtx);
	my %share = map { $_ => sample_waits($sampled, $_, 64, $sample) } @columns;

	say_and_keep('');
	say_and_keep("What 64 clients wait for on the coordinator, $sampled->{name} (share of samples)");
	my @events = sort {
		max(map { $share{$_}{$b} // 0 } @columns) <=> max(map { $share{$_}{$a} // 0 } @columns)
		  || $a cmp $b
	} uniq map { keys %{ $share{$_} } } @columns;
	print_table([ '', map { $modes{$_}{label} } @columns ],
		map {
			my $event = $_;
			[ $event, map { number(100 * ($share{$_}{$event} // 0), 1) . ' %' } @columns ]
		} @events);
	open my $fh, '>', "$results/waits.csv" or die "$!\n";
	print $fh join(',', 'event', @columns), "\n";
	for my $event (@events)
	{
		print $fh join(',', $event, map { number($share{$_}{$event} // 0, 4) } @columns), "\n";
	}
	close $fh;
}

if ($load > 0)
{
	say_and_keep('');
	say_and_keep("What stays on the coordinator, $sampled->{name}, pg_dtx, $load s of load with 8 clients");
	print_table(
		[ 'commits in two phases', 'rows of dtx_internal.decision', 'its size', 'in doubt',
			'flushes per commit', 'WAL bytes per commit' ],
		map {
			[
				@$_{qw(commits rows size in_doubt)}, number($_->{flushes_each}, 2),
				number($_->{bytes_each}, 0)
			]
		} watch_growth($sampled, 8, $load));
}
check_balances();
write_chart();

open my $fh, '>', "$results/performance.txt" or die "$!\n";
print $fh map { s/\s+$//r . "\n" } @report;
close $fh;
printf "\n%d minutes\n", (time - $begun) / 60 + 0.5;
