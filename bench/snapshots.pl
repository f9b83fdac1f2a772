#!/usr/bin/perl
#
# What consistent reads cost those who write, and those who read.  Writers move money between
# two servers of several and a local table; readers add up everything, in REPEATABLE READ:
# none, plain ones, and ones with pg_dtx.consistent_reads, one after the other in each round.
# Called by dev/run as the user who runs the servers:
#
#	snapshots.pl DIRECTORY
#
# DIRECTORY gets the servers.  ROUNDS, DURATION, CLIENTS (writers), READERS, SERVERS and
# PAUSE (of a reader, ms) are explained there.
#
use strict;
use warnings;

use Cwd qw(abs_path);
use FindBin;
use lib $FindBin::RealBin;
use Servers;

my $work = abs_path(shift or die "usage: snapshots.pl DIRECTORY\n");
my $rounds = $ENV{ROUNDS} || 3;
my $duration = $ENV{DURATION} || 5;
my @writers = split ' ', $ENV{CLIENTS} || '4 8 16';
my $readers = $ENV{READERS} || 4;
my $servers = $ENV{SERVERS} || 2;
my $pause = $ENV{PAUSE} // 0;
my $rows = 1000;
my $total = ($servers + 1) * $rows * 100;

start_servers($work, $servers, $rows);
sql('coordinator', "CREATE TABLE account0 (id int PRIMARY KEY, bal bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO account0 SELECT i, 100 FROM generate_series(1, $rows) i; CREATE SEQUENCE wrong");

sub script
{
	my ($name, $text) = @_;
	open my $fh, '>', "$work/$name.sql" or die "$!\n";
	print $fh $text;
	close $fh;
	return;
}
script('write', "\\set a random(1, $rows)\n\\set b random(1, $rows)\n\\set c random(1, $rows)\n"
	  . 'BEGIN; UPDATE account1 SET bal = bal - 2 WHERE id = :a; UPDATE account2 SET bal = bal + 1 WHERE id = :b; '
	  . "UPDATE account0 SET bal = bal + 1 WHERE id = :c; COMMIT;\n");
for my $kind ('plain', 'consistent')
{
	script($kind, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;\n"
		  . ($kind eq 'consistent' ? "SET LOCAL pg_dtx.consistent_reads = on;\n" : '')
		  . 'SELECT ' . join(' + ', map { "(SELECT sum(bal) FROM account$_)" } 0 .. $servers) . " AS total \\gset\n"
		  . "COMMIT;\n\\if :total <> $total\nSELECT nextval('wrong');\n\\endif\n"
		  . ($pause ? "\\sleep $pause ms\n" : ''));
}

# Start pgbench; returns a function that waits for it, and returns transactions a second and
# their latencies in ms, sorted.
sub pgbench
{
	my ($name, $clients) = @_;
	my $log = "$work/$name.log";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		$ENV{PGOPTIONS} = '-c pg_dtx.remote_isolation=read\\ committed' if $name eq 'write';
		open STDOUT, '>', $log or die "$!\n";
		open STDERR, '>&', \*STDOUT;
		exec 'pgbench', '-n', '-p', socket_of('coordinator'), '-c', $clients, '-T', $duration, '-f', "$work/$name.sql",
		  '--max-tries=1000', '-l', "--log-prefix=$work/log.$name", 'postgres';
		die "pgbench: $!\n";
	}
	return sub {
		waitpid $pid, 0;
		die "pgbench failed:\n", slurp($log) if $?;
		my @latency;
		for my $file (glob "$work/log.$name.*")
		{
			push @latency, map { (split ' ')[2] / 1000 } split /\n/, slurp($file);
			unlink $file;
		}
		@latency = sort { $a <=> $b } @latency;
		return (scalar @latency / $duration, \@latency);
	};
}

my %result;
for my $round (1 .. $rounds)
{
	for my $writers (@writers)
	{
		for my $kind ('none', 'plain', 'consistent')
		{
			my $r = $result{$writers}{$kind} //= {};
			my @before = split /\|/, sql('coordinator', 'SELECT snapshots, snapshot_retries, snapshots_refused, gate_time FROM dtx.stat');
			my $wrong = sql('coordinator', 'SELECT last_value FROM wrong');
			my $write = pgbench('write', $writers);
			my $read = $kind ne 'none' ? pgbench($kind, $readers) : undef;
			my ($tps) = $write->();
			push @{ $r->{tps} }, $tps;
			if ($read)
			{
				my ($reads, $latency) = $read->();
				push @{ $r->{reads} }, $reads;
				push @{ $r->{p50} }, $latency->[ $#$latency / 2 ];
				push @{ $r->{p95} }, $latency->[ $#$latency * 0.95 ];
				$r->{wrong} += sql('coordinator', 'SELECT last_value FROM wrong') - $wrong;
				$r->{all} += $reads * $duration;
			}
			my @after = split /\|/, sql('coordinator', 'SELECT snapshots, snapshot_retries, snapshots_refused, gate_time FROM dtx.stat');
			$r->{gate}[$_] += $after[$_] - $before[$_] for 0 .. 3;
		}
	}
}

print sql('coordinator', 'SHOW server_version'), ", $servers servers, $readers readers"
  . ($pause ? " that pause $pause ms" : '') . ", medians of $rounds rounds of $duration s\n\n";
printf "%7s  %-10s %9s %6s %9s %9s %9s %8s %9s %8s\n", 'writers', 'readers', 'writes/s', 'ratio', 'reads/s',
  'p50 ms', 'p95 ms', 'wrong', 'closed ms', 'retries';
for my $writers (@writers)
{
	my $plain = $result{$writers}{plain};
	for my $kind ('none', 'plain', 'consistent')
	{
		my $r = $result{$writers}{$kind};
		my $ratio = median(map { $r->{tps}[$_] / $plain->{tps}[$_] } 0 .. $rounds - 1);
		printf "%7d  %-10s %9.0f %6.2f", $writers, $kind, median(@{ $r->{tps} }), $ratio;
		printf " %9.0f %9.1f %9.1f %7.0f%%", median(@{ $r->{reads} }), median(@{ $r->{p50} }), median(@{ $r->{p95} }),
		  100 * $r->{wrong} / ($r->{all} || 1)
		  if $kind ne 'none';
		printf " %9.1f %8.2f", $r->{gate}[3] / ($r->{gate}[0] + $r->{gate}[1] || 1), $r->{gate}[1] / ($r->{gate}[0] || 1)
		  if $kind eq 'consistent';
		print "\n";
	}
}
