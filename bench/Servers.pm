# Servers of a benchmark: a coordinator with pg_dtx and the servers s1, s2, ... with a table
# "account" each, in one directory, reached over Unix sockets.
package Servers;

use strict;
use warnings;

use Exporter qw(import);
our @EXPORT = qw(start_servers sql run_quietly slurp socket_of median);

my %port;
my $work;

delete @ENV{ grep { /^PG(?!_CONFIG)/ } keys %ENV };
$ENV{LC_MESSAGES} = 'C';
$ENV{PGUSER} = 'postgres';
STDOUT->autoflush(1);

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

# The output of a command, which goes to a file; dies with it if the command fails.
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

# In a directory: the coordinator and so many servers, with a table of so many rows.
sub start_servers
{
	my ($directory, $servers, $rows) = @_;
	my $number = 6000;
	$work = $ENV{PGHOST} = $directory;
	for my $name ('coordinator', map { "s$_" } 1 .. $servers)
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
	sql('coordinator', 'CREATE EXTENSION pg_dtx CASCADE');
	for my $i (1 .. $servers)
	{
		sql("s$i", qq{
CREATE TABLE account (id int PRIMARY KEY, bal bigint NOT NULL) WITH (fillfactor = 50);
INSERT INTO account SELECT i, 100 FROM generate_series(1, $rows) i});
		sql("s$i", 'VACUUM ANALYZE account');
		sql('coordinator', qq{
CREATE SERVER s$i FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$work', port '$port{"s$i"}', dbname 'postgres');
CREATE USER MAPPING FOR CURRENT_USER SERVER s$i OPTIONS (user 'postgres');
CREATE FOREIGN TABLE account$i (id int, bal bigint) SERVER s$i OPTIONS (table_name 'account')});
	}
	return;
}

sub sql
{
	my ($name, $sql) = @_;
	my $out = run_quietly("$work/psql.out", 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1',
		'-p', $port{$name}, '-d', 'postgres', '-c', $sql);
	chomp $out;
	return $out;
}

sub socket_of { return $port{ $_[0] }; }

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return @sorted ? $sorted[ $#sorted / 2 ] : 0;
}

1;
