# pg_dtx_relay for tests: built among the files of the run, with the points at which it can
# be made to die; and a coordinator that it works for.
#
#	my $relay = Relay->new('kafka');		# undef, and $Relay::why, if it cannot be built
#	$relay->configure('name', out => { orders => { exchange => 'orders' } });
#	$relay->run('name', '--once');			# exit status
#	my $pid = $relay->start('name');
package Relay;

use strict;
use warnings FATAL => 'all';

use Carp;
use Cwd qw(abs_path getcwd);
use Fcntl qw(LOCK_EX);
use File::Path qw(make_path);
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use POSIX qw(:sys_wait_h setsid);
use Time::HiRes qw(time usleep);

our $why;
my %running;

# (also what was stopped)
END
{
	local $?;
	for my $pid (keys %running)
	{
		CORE::kill 'KILL', $pid;
		waitpid($pid, 0);
	}
}

# Build it; undef if the library for that broker is missing.
sub build
{
	my $kind = shift;
	my $dir = abs_path($ENV{TESTDATADIR} || 'tmp_check') . '/relay';
	my %libs = (rabbitmq => 'librabbitmq', kafka => 'rdkafka');
	my $pg_config = $ENV{PG_CONFIG} || 'pg_config';

	if (system("pkg-config --exists $libs{$kind} >/dev/null 2>&1") != 0)
	{
		$why = "$libs{$kind} is not installed";
		return;
	}
	make_path($dir);
	open my $lock, '>>', "$dir/lock" or croak "$dir/lock: $!";
	flock $lock, LOCK_EX or croak "$dir/lock: $!";
	if (!-e "$dir/done")
	{
		my $source = abs_path(getcwd());
		delete local @ENV{qw(MAKEFLAGS MFLAGS MAKELEVEL)};
		system("cd '$dir' && make -f '$source/relay/Makefile' -j2 FAULTS=1 CFLAGS='-O1 -g $ENV{RELAY_CFLAGS}' PG_CONFIG='$pg_config' >'$dir/log' 2>&1") == 0
		  or croak "could not build the relay: " . slurp_file("$dir/log");
		open my $fh, '>', "$dir/done" or croak $!;
	}
	return $dir;
}
$ENV{RELAY_CFLAGS} //= '';

sub new
{
	my ($class, $kind) = @_;
	my $dir = build($kind) or return;
	my $self = bless { kind => $kind, dir => $dir, etc => PostgreSQL::Test::Utils::tempdir(), settings => {} }, $class;
	my $node = PostgreSQL::Test::Cluster->new('coordinator');

	$node->init;
	$node->append_conf('postgresql.conf', qq{
shared_preload_libraries = 'pg_dtx'
max_prepared_transactions = 10
autovacuum = off
pg_dtx.saga_workers = 3
});
	$node->start;
	$node->safe_psql('postgres', q{
CREATE EXTENSION postgres_fdw;
CREATE EXTENSION pg_dtx;
CREATE ROLE relay LOGIN;
SELECT dtx.grant_relay('relay');
});
	$self->{node} = $node;
	return $self;
}

sub node { return $_[0]->{node}; }

sub sql
{
	my ($self, $sql) = @_;
	return $self->{node}->safe_psql('postgres', $sql);
}

# Settings of the broker, for all configurations.
sub broker
{
	my ($self, %settings) = @_;
	$self->{settings} = \%settings;
	return;
}

# Write a configuration: sections, and lines in them.
sub configure
{
	my ($self, $name, %sections) = @_;
	my %all = (
		relay => { name => $name, group => 'test', poll => '20ms', confirm_timeout => '5s', backoff_max => '500ms' },
		database => { conninfo => $self->{node}->connstr('postgres') . ' user=relay' },
		$self->{kind} => $self->{settings});

	for my $section (keys %sections)
	{
		$all{$section} = { %{ $all{$section} // {} }, %{ $sections{$section} } };
	}
	open(my $fh, '>', $self->file($name)) or croak $!;
	for my $section (sort keys %all)
	{
		print $fh "[$section]\n", map { "$_ = $all{$section}{$_}\n" } sort grep { defined $all{$section}{$_} } keys %{ $all{$section} };
	}
	close $fh or croak $!;
	return;
}

sub file { my ($self, $name) = @_; return "$self->{etc}/$name.conf"; }
sub log_file { my ($self, $name) = @_; return "$self->{etc}/$name.log"; }
sub log_text { my ($self, $name) = @_; return -e $self->log_file($name) ? slurp_file($self->log_file($name)) : ''; }

sub _spawn
{
	my ($self, $name, %params) = @_;
	my $pid = fork // croak "fork: $!";
	if (!$pid)
	{
		$ENV{PG_DTX_RELAY_MODULES} = $self->{dir};
		$ENV{PG_DTX_RELAY_DIE} = $params{die} if $params{die};
		@ENV{ keys %{ $params{env} } } = values %{ $params{env} } if $params{env};
		open(STDIN, '<', '/dev/null');
		open(STDOUT, '>', "$self->{etc}/$name.out");
		open(STDERR, '>>', $self->log_file($name));
		exec("$self->{dir}/pg_dtx_relay", '-c', $self->file($name), @{ $params{options} // [] }) or POSIX::_exit(127);
	}
	$running{$pid} = 1;
	return $pid;
}

# Run it to its end; its exit status, or -SIGNAL.
sub run
{
	my ($self, $name, @options) = @_;
	my %params = ref $options[-1] ? %{ pop @options } : ();
	return $self->ended($self->_spawn($name, options => \@options, %params));
}

sub out_text { my ($self, $name) = @_; return slurp_file("$self->{etc}/$name.out"); }

sub start
{
	my ($self, $name, %params) = @_;
	return $self->_spawn($name, %params);
}

# Wait for its end.
sub ended
{
	my ($self, $pid) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;

	while (waitpid($pid, WNOHANG) != $pid)
	{
		if (time > $deadline)
		{
			CORE::kill 'KILL', $pid;
			waitpid($pid, 0);
			delete $running{$pid};
			croak 'the relay does not end';
		}
		usleep(5_000);
	}
	delete $running{$pid};
	return $? & 127 ? -($? & 127) : $? >> 8;
}

sub kill
{
	my ($self, $pid, $signal) = @_;
	CORE::kill $signal // 'KILL', $pid;
	return;
}

# Wait until a query returns what is expected.
sub poll
{
	my ($self, $sql, $expected) = @_;
	return $self->{node}->poll_query_until('postgres', $sql, $expected // 't');
}

# Wait until its log matches.
sub log_has
{
	my ($self, $name, $pattern) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	until ($self->log_text($name) =~ $pattern)
	{
		return 0 if time > $deadline;
		usleep(20_000);
	}
	return 1;
}

# Of messages ({ key, n }), in the order in which they came: what is wrong if 1 to $n of each
# of these keys must be there, the first copies in their order.  '' is nothing.
sub disorder
{
	my ($self, $messages, $n, @keys) = @_;
	my (%last, @wrong);
	for my $m (@$messages)
	{
		my $expected = ($last{ $m->{key} } // 0) + 1;
		next if $m->{n} < $expected;
		push @wrong, "$m->{key}: $m->{n} after " . ($expected - 1) if $m->{n} > $expected;
		$last{ $m->{key} } = $m->{n};
	}
	push @wrong, map { "$_: ends with " . ($last{$_} // 'none') } grep { ($last{$_} // 0) != $n } @keys;
	return join(', ', @wrong);
}

1;
