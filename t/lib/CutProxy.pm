# A network that can be cut: a TCP proxy for tests, in a process of its own.
#
#	my $net = CutProxy->new($port);		# or the path of a Unix socket
#	connect to 127.0.0.1, $net->port
#	$net->cut;			# reset all connections, and refuse new ones
#	$net->cut_after(5000);	# ... when so many bytes more were passed on, in both directions together
#	$net->hang;			# pass nothing on: nobody answers
#	$net->mend;
#	$net->cuts			# how many connections were reset so far
package CutProxy;

use strict;
use warnings FATAL => 'all';

use Carp;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use POSIX ();
use Socket qw(SOCK_STREAM SOL_SOCKET SO_LINGER);

my %running;

END
{
	local $?;
	$_->stop for values %running;
}

sub new
{
	my ($class, $target) = @_;
	my $listener = IO::Socket::INET->new(Listen => 50, LocalAddr => '127.0.0.1', ReuseAddr => 1) or croak "could not listen: $!";
	my $self = bless { port => $listener->sockport, target => $target, parent => $$ }, $class;

	pipe(my $commands, $self->{to}) or croak "pipe: $!";
	pipe($self->{from}, my $answers) or croak "pipe: $!";
	my $pid = fork() // croak "could not fork: $!";
	if ($pid == 0)
	{
		# Neither END blocks nor destructors of the test may run here.
		eval { $self->_serve($listener, $commands, $answers); };
		print STDERR "proxy: $@" if $@;
		POSIX::_exit(0);
	}
	$self->{pid} = $pid;
	$running{$self} = $self;
	close $_ for $commands, $answers, $listener;
	$self->{to}->autoflush(1);
	return $self;
}

sub port { return $_[0]->{port}; }
sub cut { return $_[0]->_ask('cut'); }
sub cut_after { return $_[0]->_ask("after $_[1]"); }
sub hang { return $_[0]->_ask('hang'); }
sub mend { return $_[0]->_ask('mend'); }
sub cuts { return $_[0]->_ask('cuts'); }

# It is so when this returns.
sub _ask
{
	my ($self, $command) = @_;
	print { $self->{to} } "$command\n";
	my $answer = readline($self->{from}) // croak 'the proxy has ended';
	chomp $answer;
	return $answer;
}

sub stop
{
	my $self = shift;
	return if !$self->{pid} || $self->{parent} != $$;
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	delete $self->{pid};
	return;
}

sub _target
{
	my $self = shift;
	return $self->{target} =~ m{^/}
	  ? IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $self->{target})
	  : IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{target}, Timeout => 10);
}

# The child: forward until told otherwise, or killed.
sub _serve
{
	my ($self, $listener, $commands, $answers) = @_;
	my $select = IO::Select->new($listener, $commands);
	my (%peer, $state, $left, $cuts);

	$SIG{PIPE} = 'IGNORE';
	$SIG{$_} = 'DEFAULT' for qw(TERM INT HUP);
	$answers->autoflush(1);
	($state, $cuts) = ('', 0);

	# both ends; with "reset" they learn of it by an error, as from a router that is gone
	my $drop = sub {
		my ($socket, $reset) = @_;
		for my $side ($socket, $peer{$socket})
		{
			$select->remove($side);
			setsockopt($side, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $reset;
		}
		$cuts++ if $reset;
		my $other = delete $peer{$socket};
		delete $peer{$other};
		close $_ for $socket, $other;
	};
	my $cut = sub {
		$state = 'cut';
		my @sockets = grep { $peer{$_} } $select->handles;
		for my $socket (@sockets) { $drop->($socket, 1) if $peer{$socket}; }
	};

	while (1)
	{
		my @ready = $select->can_read(1);

		# A test that died leaves no proxy behind.
		return if getppid() != $self->{parent};
		my ($command) = grep { $_ == $commands } @ready;
		if ($command)
		{
			# (one line at a time: who asks waits for the answer)
			sysread($commands, my $line, 100) or return;
			if ($line =~ /^cut$/m) { $cut->(); }
			elsif ($line =~ /^after (\d+)/) { ($state, $left) = ('after', $1); }
			elsif ($line =~ /^hang/) { $state = 'hang'; }
			elsif ($line =~ /^mend/) { $state = ''; }
			print $answers "$cuts\n";
			next;
		}
		if ($state eq 'hang')
		{
			select undef, undef, undef, 0.02;
			next;
		}
		for my $socket (@ready)
		{
			if ($socket == $listener)
			{
				my $client = $listener->accept or next;
				my $server = $state eq 'cut' ? undef : $self->_target;
				if (!$server)
				{
					setsockopt($client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
					close $client;
					next;
				}
				@peer{ $client, $server } = ($server, $client);
				$select->add($client, $server);
				next;
			}
			next if !$peer{$socket};
			my $got = sysread $socket, my $data, 65536;
			if (!$got) { $drop->($socket, 0); next; }
			if ($state eq 'after' && ($left -= $got) < 0)
			{
				# a part of it arrives
				syswrite $peer{$socket}, substr($data, 0, $got + $left);
				$cut->();
				last;
			}
			my $at = 0;
			while ($at < $got)
			{
				my $n = syswrite $peer{$socket}, $data, $got - $at, $at;
				last if !defined $n;
				$at += $n;
			}
		}
	}
	return;
}

1;
