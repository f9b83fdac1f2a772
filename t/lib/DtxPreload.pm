# A server that runs with t/programs/preload.c: with a name server of the test's, and a
# wall clock that can be set.
#
#	my $preload = DtxPreload->new;
#	$preload->name('a.test', '127.0.0.1');		# one address or more
#	$preload->name('b.test', '-');				# nobody answers
#	$preload->start($node);
#	$preload->set_clock(-3600);					# an hour back
#	$preload->lookups($pid);					# names that getaddrinfo() got from it
package DtxPreload;

use strict;
use warnings FATAL => 'all';

use Carp;
use File::Basename;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Socket;

my %servers;

END
{
	local $?;
	kill 'KILL', keys %servers if %servers;
	waitpid $_, 0 for keys %servers;
}

sub new
{
	my $class = shift;
	my $dir = PostgreSQL::Test::Utils::tempdir();
	my $source = dirname(__FILE__) . '/../programs/preload.c';
	my $cc = $ENV{CC} // 'cc';
	my $built = `$cc -shared -fPIC -O1 -Wall -Wextra -o '$dir/preload.so' '$source' -ldl 2>&1`;
	croak "could not build the preloaded library: $built" if $? || $built;

	my $self = bless { dir => $dir, names => {} }, $class;
	$self->set_clock(0);
	append_to_file("$dir/resolv.conf", "nameserver 127.0.0.1\n");
	append_to_file("$dir/lookups", '');
	$self->_write_names;

	my $socket = IO::Socket::INET->new(Proto => 'udp', LocalAddr => '127.0.0.1')
	  or croak "no socket for a name server: $!";
	$self->{port} = $socket->sockport;
	my $pid = fork // croak "fork: $!";
	if ($pid == 0)
	{
		eval { _serve($socket, $dir) };
		print STDERR $@;
		POSIX::_exit(1);
	}
	$servers{$pid} = 1;
	return $self;
}

# How often was the name server asked for a name?
sub asked
{
	my ($self, $name) = @_;
	my $log = slurp_file("$self->{dir}/asked");
	return scalar(() = $log =~ /^\Q$name\E$/mg);
}

sub name
{
	my ($self, $name, @addresses) = @_;
	$self->{names}{$name} = join ',', @addresses;
	return $self->_write_names;
}

sub _write_names
{
	my $self = shift;
	my $file = "$self->{dir}/names";
	unlink "$file.new";
	append_to_file("$file.new",
		join '', map { "$_ $self->{names}{$_}\n" } sort keys %{ $self->{names} });
	rename "$file.new", $file or croak "rename: $!";
	return;
}

# From now on getaddrinfo() does not wait for names that nobody answers.
sub impatient
{
	append_to_file("$_[0]->{dir}/impatient", '');
	return;
}

# Seconds by which the wall clock of the server is to be wrong.
sub set_clock
{
	my ($self, $offset) = @_;
	open my $fh, '+>>', "$self->{dir}/clock" or croak "clock: $!";
	close $fh;
	open $fh, '+<', "$self->{dir}/clock" or croak "clock: $!";
	syswrite $fh, pack('q', $offset) or croak "clock: $!";
	close $fh;
	return;
}

# Start a node so, with the environment given.
sub start
{
	my ($self, $node, %env) = @_;
	local %ENV = (
		%ENV,
		LD_PRELOAD => join(' ', "$self->{dir}/preload.so", $ENV{LD_PRELOAD} // ()),
		DTX_PRELOAD => $self->{dir},
		DTX_PRELOAD_PORT => $self->{port},
		%env);
	$node->start;
	return;
}

sub lookups
{
	my ($self, $pid) = @_;
	return slurp_file("$self->{dir}/lookups") =~ /^$pid (\S+)$/mg;
}

# The name server: A and AAAA, and nothing else.
sub _serve
{
	my ($socket, $dir) = @_;
	my $parent = getppid;

	while (1)
	{
		my $ready = '';
		vec($ready, fileno($socket), 1) = 1;
		exit 0 if getppid != $parent;
		next unless select($ready, undef, undef, 1);
		my $peer = $socket->recv(my $question, 4096) // next;
		my ($id, $flags, $n) = unpack 'nnn', $question;
		my ($pos, @labels) = (12);
		while ((my $len = ord substr $question, $pos, 1) > 0)
		{
			push @labels, substr $question, $pos + 1, $len;
			$pos += $len + 1;
		}
		my ($type) = unpack 'n', substr $question, $pos + 1, 2;
		my $name = lc join '.', @labels;
		append_to_file("$dir/asked", "$name\n");
		my ($value) = slurp_file("$dir/names") =~ /^\Q$name\E (\S+)$/m;
		next if defined $value && $value eq '-';

		my @answers;
		for my $address (defined $value ? split /,/, $value : ())
		{
			my $v6 = $address =~ /:/;
			next if $type != ($v6 ? 28 : 1);
			my $bytes = Socket::inet_pton($v6 ? Socket::AF_INET6() : Socket::AF_INET(), $address);
			push @answers, pack('nnnNn', 0xc00c, $type, 1, 1, length $bytes) . $bytes;
		}
		$socket->send(
			pack('nnnnnn', $id, 0x8180 | (defined $value ? 0 : 3), 1, scalar @answers, 0, 0)
			  . substr($question, 12, $pos + 5 - 12)
			  . join('', @answers),
			0, $peer);
	}
}

1;
